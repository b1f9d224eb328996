/* The product of two tensors of floats. */
#ifndef FLOAT_MUL_H
#define FLOAT_MUL_H

#include "float_epilogue.h"

/* The second tensor has one pixel for all, or as many as the first. */
typedef struct float_mul {
    int32_t count, other; /* elements of the first tensor and of the second */
} float_mul;

static void run_float_mul(const float_mul *l, const void *const *sources, void *dst) {
    int32_t k = 0;
    for (int32_t i = 0; i < l->count; i++) {
        ((mem_f32 *)dst)[i] = ((const mem_f32 *)sources[0])[i] * ((const mem_f32 *)sources[1])[k];
        k = k + 1 < l->other ? k + 1 : 0;
    }
}

#endif

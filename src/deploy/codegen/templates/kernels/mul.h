/* The product of two tensors of fixed-point numbers. */
#ifndef MUL_H
#define MUL_H

#include "tensor.h"

/* The second tensor has one pixel for all, or as many as the first. */
typedef struct fixed_mul {
    int32_t count, other; /* elements of the first tensor and of the second */
} fixed_mul;

static void run_mul(const fixed_mul *l, const void *const *sources, void *dst) {
    int32_t k = 0;
    for (int32_t i = 0; i < l->count; i++) {
        ((mem_i32 *)dst)[i] = lbrt_fixed_mul(((const mem_i32 *)sources[0])[i], ((const mem_i32 *)sources[1])[k]);
        k = k + 1 < l->other ? k + 1 : 0;
    }
}

#endif

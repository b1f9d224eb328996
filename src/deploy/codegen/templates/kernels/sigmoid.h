/* 1 / (1 + e^-x) of fixed-point numbers. */
#ifndef SIGMOID_H
#define SIGMOID_H

#include "tensor.h"

typedef struct sigmoid {
    int32_t count;
} sigmoid;

static void run_sigmoid(const sigmoid *l, const void *src, void *dst) {
    for (int32_t i = 0; i < l->count; i++)
        ((mem_i32 *)dst)[i] = lbrt_sigmoid(((const mem_i32 *)src)[i]);
}

#endif

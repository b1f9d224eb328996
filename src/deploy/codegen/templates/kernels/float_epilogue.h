/* The float domain: access to float tensors, and what happens to each accumulator, in this order: affine, residual, clamp, then
 * sign, code, fixed point or nothing. Every product and every sum is rounded to float: no fused multiply-add. */
#ifndef FLOAT_EPILOGUE_H
#define FLOAT_EPILOGUE_H

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "float_rules.h"
#include "tensor.h"

typedef float MAY_ALIAS mem_f32;

enum { FLOAT_AFFINE = 1, FLOAT_RESIDUAL = 2, FLOAT_CODE = 8, FLOAT_SIGN = 16, FLOAT_TO_FIXED = 32 };

typedef struct float_epilogue {
    uint32_t flags;
    int32_t dst_type, res_type;
    const float *scale, *offset; /* (oc) */
    float res_step;
    const float *lo, *hi;        /* clamp; NULL: no bound */
    float inv_step;
    int32_t qlo, qhi;
} float_epilogue;

/* Element i as a float; integers are multiplied by `step`. */
static inline float get_float(const void *src, int32_t type, size_t i, float step) {
    return type == TYPE_F32 ? ((const mem_f32 *)src)[i] : (float)get_int(src, type, i) * step;
}

static inline void finish_float(const float_epilogue *e, float v, int32_t c, size_t at, const void *res, void *dst) {
    if (e->flags & FLOAT_AFFINE) {
        v = v * e->scale[c];
        v = v + e->offset[c];
    }
    if (e->flags & FLOAT_RESIDUAL) {
        const float r = get_float(res, e->res_type, at, 1.0f) * e->res_step;
        v = v + r;
    }
    if (e->lo != NULL && v < *e->lo)
        v = *e->lo;
    else if (e->hi != NULL && v > *e->hi)
        v = *e->hi;
    if (e->flags & FLOAT_SIGN)
        put_int(dst, e->dst_type, at, v >= 0.0f ? 1 : -1);
    else if (e->flags & FLOAT_CODE)
        put_int(dst, e->dst_type, at, lbrt_code_f32(v, e->inv_step, e->qlo, e->qhi));
    else if (e->flags & FLOAT_TO_FIXED)
        put_int(dst, TYPE_I32, at, lbrt_fixed_f32(v));
    else
        ((mem_f32 *)dst)[at] = v;
}

#endif

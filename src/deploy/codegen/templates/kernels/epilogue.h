/* What happens to each accumulator of an integer layer, in this order: affine, residual, clamp, code or sign; or thresholds or
 * lines, which stand for all of them. EPILOGUE_FLAGS are the flags that occur in this network: the compiler drops the rest. */
#ifndef EPILOGUE_H
#define EPILOGUE_H

#include "tensor.h"

enum { AFFINE = 1, RESIDUAL = 2, CLAMP = 4, CODE = 8, SIGN = 16, THRESHOLDS = 64, LINES = 128 };

/* A channel's code as a straight line, rounded down and clamped: with accumulator v and the residual's code r, if there is one,
 *     clamp((high half of (v * unit) * mul + r * res_mul + add) >> down, qlo, qhi) | sign,
 * sign being 1 where the codes are -1 and 1, which then come of -1 and 0, and else 0.
 * Equal to the steps it stands for at every v and r that can occur: that was tried when this code was generated. */
typedef struct line {
    int32_t mul, add;
} line;

typedef struct line_form { /* of all lines of a layer */
    int32_t unit, down, res_mul, qlo, qhi, sign;
} line_form;

typedef struct epilogue {
    uint32_t flags;
    int32_t dst_type, res_type;
    const lbrt_requant *requant; /* (oc) */
    lbrt_requant res;            /* shift -1: the residual is fixed point already */
    lbrt_requant q;              /* fixed point -> code */
    int32_t lo, hi;              /* clamp */
    int32_t qlo, qhi;            /* codes */
    int32_t nthresholds;         /* per channel */
    const int16_t *t16;          /* (oc, nthresholds) ascending: the code counts those that are not above the accumulator */
    const int32_t *t32;          /* instead of t16 where they do not fit 16 bits */
    const int8_t *flip;          /* (oc) -1: the thresholds are those of ~accumulator; NULL: none are */
    const line *lines;           /* (oc) */
    line_form form;
} epilogue;

static inline int32_t threshold_code(const epilogue *e, int32_t v, int32_t c) {
    const int32_t n = e->nthresholds;
    int32_t count = 0;
    if (e->flip != NULL)
        v ^= e->flip[c];
    if (e->t16 != NULL)
        for (const int16_t *t = e->t16 + (size_t)c * (size_t)n; count < n && v >= t[count]; count++)
            ;
    else
        for (const int32_t *t = e->t32 + (size_t)c * (size_t)n; count < n && v >= t[count]; count++)
            ;
    return (e->flags & EPILOGUE_FLAGS & SIGN) != 0 ? 2 * count - 1 : e->qlo + count;
}

static inline int32_t line_code(line_form f, line l, int32_t v, int32_t r) {
    const int32_t high = (int32_t)lbrt_shift_right((int64_t)(v * f.unit) * l.mul, 32);
    return lbrt_clamp(shift_right(high + r * f.res_mul + l.add, f.down), f.qlo, f.qhi) | f.sign;
}

/* Channel c's accumulator v to element `at` of dst. */
static inline void finish(const epilogue *e, int32_t v, int32_t c, size_t at, const void *res, void *dst) {
    const uint32_t flags = e->flags & EPILOGUE_FLAGS;
    if (flags & LINES) {
        const int32_t r = flags & RESIDUAL ? get_int(res, e->res_type, at) : 0;
        ((uint8_t *)dst)[at] = (uint8_t)line_code(e->form, e->lines[c], v, r);
        return;
    }
    if (flags & THRESHOLDS) {
        put_int(dst, e->dst_type, at, threshold_code(e, v, c));
        return;
    }
    if (flags & AFFINE)
        v = lbrt_apply(&e->requant[c], v);
    if (flags & RESIDUAL) {
        int32_t r = get_int(res, e->res_type, at);
        if (e->res.shift >= 0)
            r = lbrt_apply(&e->res, r);
        v = lbrt_saturate((int64_t)v + r);
    }
    if (flags & CLAMP)
        v = lbrt_clamp(v, e->lo, e->hi);
    if (flags & SIGN)
        v = v >= 0 ? 1 : -1;
    else if (flags & CODE)
        v = lbrt_clamp(lbrt_apply(&e->q, v), e->qlo, e->qhi);
    put_int(dst, e->dst_type, at, v);
}

#endif

/* Evaluation's passes over numbers, vectorised; each variant gives the same bits. Rules: net/numerics.h, runtime/fixed.h. */
#ifndef LB_EVAL_KERNELS_H
#define LB_EVAL_KERNELS_H

#include <stdint.h>

#include "fixed.h"

/* One image through a float convolution whose products are summed in the order kh, kw, ic, from +0, every product and sum rounded
 * to f32. */
#define LB_ORDERED_LANES 16
typedef struct lb_ordered_conv {
    int ih, iw, ic, oh, ow, oc;
    int kh, kw, sh, sw, pt, pl, groups, gap_h, gap_w;
    const float *weights; /* (groups, ceil(oc / groups / 16), kh, kw, ic / groups, 16), zeros behind the last channel */
} lb_ordered_conv;

typedef struct lb_eval_pool {
    int ih, iw, c, oh, ow, kh, kw, sh, sw, pt, pl;
    int inside; /* i32, f32: a sum of fewer than kh kw pixels is made one of all */
} lb_eval_pool;

/* n numbers in place unless said otherwise. Arrays of parameters have one per number. `src` may be `dst`. */
typedef struct lb_eval_kernels {
    const char *name;
    void (*load_u8)(const uint8_t *src, int n, int32_t *v);
    void (*load_s8)(const int8_t *src, int n, int32_t *v);
    void (*load_whole)(const float *src, int n, int32_t *v); /* floats that are whole numbers */
    void (*store_u8)(const int32_t *v, int n, uint8_t *dst);
    void (*store_s8)(const int32_t *v, int n, int8_t *dst);

    void (*requant)(const int32_t *src, int n, const int64_t *mul, const int64_t *add, const int64_t *shift, int32_t *dst);
    /* Where no result leaves int32. */
    void (*requant_fits)(const int32_t *src, int n, const int64_t *mul, const int64_t *add, const int64_t *shift, int32_t *dst);
    void (*requant1)(const int32_t *src, int n, lbrt_requant r, int32_t *dst);
    void (*add)(int32_t *v, const int32_t *w, int n); /* saturating */
    void (*clamp)(int32_t *v, int n, int32_t lo, int32_t hi);
    void (*sign)(int32_t *v, int n);
    /* start, size (n); above (nabove, pitch): start + size * how many of them src is above, modulo 256. */
    void (*steps)(const int32_t *src, int n, const uint8_t *start, const uint8_t *size, const int32_t *above, int nabove,
                  int64_t pitch, uint8_t *dst);
    void (*look_up)(const int32_t *src, int n, const int32_t table[16], int32_t *dst); /* table[src mod 16] */
    void (*merge)(const int32_t *halves, int64_t pixels, int c, int32_t *dst); /* (pixels, 2, c): dst = 16 first + second */
    void (*merge_whole)(const float *halves, int64_t pixels, int c, int32_t *dst);

    void (*pixels)(const uint8_t *src, int n, const float *scale, const float *offset, float *f);
    void (*to_float)(const int32_t *v, int n, const float *step, float *f);
    void (*to_float1)(const int32_t *v, int n, float step, float *f);
    /* Clamped to [lo, hi], which may be infinite; NaN stays. */
    void (*affine)(const float *src, int n, const float *scale, const float *offset, float lo, float hi, float *f);
    void (*add_f32)(const float *src, const float *g, int n, float lo, float hi, float *f);
    void (*clamp_f32)(const float *src, int n, float lo, float hi, float *f);
    void (*code_f32)(const float *f, int n, float inv_step, float lo, float hi, int32_t *v);
    void (*sign_f32)(const float *f, int n, int32_t *v);
    void (*fixed_f32)(const float *f, int n, int32_t *v);

    void (*conv_ordered)(const lb_ordered_conv *conv, const float *src, float *dst);
    void (*max_u8)(const lb_eval_pool *pool, const uint8_t *src, uint8_t *dst);
    void (*max_s8)(const lb_eval_pool *pool, const int8_t *src, int8_t *dst);
    void (*max_i32)(const lb_eval_pool *pool, const int32_t *src, int32_t *dst);
    void (*max_f32)(const lb_eval_pool *pool, const float *src, float *dst);
    void (*sum_u8)(const lb_eval_pool *pool, const uint8_t *src, int32_t *dst);
    void (*sum_s8)(const lb_eval_pool *pool, const int8_t *src, int32_t *dst);
    void (*sum_i32)(const lb_eval_pool *pool, const int32_t *src, int32_t *dst); /* exact, saturated */
    void (*sum_f32)(const lb_eval_pool *pool, const float *src, float *dst);
} lb_eval_kernels;

/* The best for this CPU. */
const lb_eval_kernels *lb_eval_kernels_select(void);
/* Variant i that this CPU can run, scalar first; NULL after the last. For the tests. */
const lb_eval_kernels *lb_eval_kernels_variant(int i);

#endif

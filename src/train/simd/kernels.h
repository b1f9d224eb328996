/* The passes over activations around convolutions, vectorised. Each source in this folder is compiled once per instruction set
 * (LB_ISA is its name); lb_kernels_select() picks the best this CPU has. The scalar variant is the specification; the others are
 * tested against it. */
#ifndef LB_KERNELS_H
#define LB_KERNELS_H

#include "quant/quant.h"
#include "train/backend/backend.h"

#define LB_MAX_GRADS 4

/* What follows the per-channel affine. */
typedef enum lb_norm_act { LB_NORM_NONE, LB_NORM_CLIP, LB_NORM_QUANT } lb_norm_act;

/* One fused "norm" step on rows x c tensors of one type (NHWC, rows = mb * h * w):
 *     z = a[c] * x + b[c] (+ residual * residual_step)
 *     dst = z | clip(z, form.sur_lo, form.sur_hi) | the quantizer's form, in units of its step */
typedef struct lb_norm_args {
    lb_dtype type;
    int c;
    lb_norm_act act;
    lb_act_form form;
    const void *x;             /* (rows, c) */
    const float *a, *b;        /* (c) */
    const void *residual;      /* (rows, c) or NULL */
    float residual_step;
    void *dst;                 /* (rows, c) */
    const uint8_t *mask;       /* (mask_rows, c) of 0 and 1, or NULL: m of element (row % mask_rows, c), in place of form.m */
    size_t mask_rows;

    /* backward, first pass: dz = act'(z) * sum of factor[i] * grad[i], and the sums that batch norm and the quantizer need */
    int ngrads;
    const void *grad[LB_MAX_GRADS]; /* (rows, c) */
    float factor[LB_MAX_GRADS];
    const float *center;       /* (c) mean of x */
    void *dz;                  /* (rows, c); may be grad[0] */

    /* second pass: dx = p[c] * dz + q[c] * (x - center[c]) + s[c]; dx may be x or dz */
    const float *p, *q, *s;    /* (c) */
    void *dx;                  /* (rows, c) */
} lb_norm_args;

/* Rows [first, last). Sums are added to, one array per thread: (c) each, and two of what is learned. */
typedef struct lb_kernels {
    const char *isa;
    bool bf16_only;            /* `type` must be LB_BF16 */
    /* Sums of x and of x * x, in f32 within a tile of rows: a variance from them is good while the mean is less than about 1000
     * standard deviations away from 0. */
    void (*stats)(lb_dtype type, const void *x, int c, size_t first, size_t last, double *sum, double *sum_sq);
    void (*norm_forward)(const lb_norm_args *args, size_t first, size_t last);
    void (*norm_backward)(const lb_norm_args *args, size_t first, size_t last, double *sum_dz, double *sum_dz_x, double *learn);
    void (*norm_backward_x)(const lb_norm_args *args, size_t first, size_t last);
    /* dst = sum of factor[i] * grad[i], elements [first, last) */
    void (*sum)(lb_dtype type, int n, const void *const *grad, const float *factor, void *dst, size_t first, size_t last);
    void (*to_f32)(lb_dtype type, const void *src, float *dst, size_t count);
    void (*from_f32)(lb_dtype type, const float *src, void *dst, size_t count);
} lb_kernels;

/* The best variant for tensors of a type. */
const lb_kernels *lb_kernels_select(lb_dtype type);

/* Variant `name` if it was built and this CPU can run it, else NULL; for tests. */
const lb_kernels *lb_kernels_find(const char *name);

#endif

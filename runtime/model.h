/* A deploy graph: what lowering makes, packing writes, and the runtime, the code generator and `inspect` read.
 *
 * Tensors are NHWC. A tensor's numbers are one of: codes (u8, i8), wide integers (i32: accumulators, sums of codes, or fixed point with 16
 * fractional bits), or f32. Tensor 0 is the uint8 image. Each layer writes exactly one new tensor; the last one is the output. */
#ifndef LBRT_MODEL_H
#define LBRT_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "fixed.h"
#include "lowbit/lowbit_rt.h"

typedef enum lbrt_type { LBRT_U8, LBRT_I8, LBRT_I32, LBRT_F32, LBRT_TYPES } lbrt_type;

typedef enum lbrt_op {
    LBRT_OP_INPUT,    /* image -> codes or f32, per channel */
    LBRT_OP_CONV,     /* convolution; a linear layer is a 1x1 convolution of a 1 x 1 x (h w c) view */
    LBRT_OP_POINT,    /* the epilogue alone: batch norm, addition, activation */
    LBRT_OP_MAXPOOL,  /* keeps its source's type */
    LBRT_OP_SUMPOOL,  /* sum over the window, zeros in the padding: i32 of integers, f32 of floats (not divided) */
    LBRT_OPS
} lbrt_op;

typedef struct lbrt_tensor {
    int32_t h, w, c;
    int32_t type;      /* lbrt_type */
    int32_t lo, hi;    /* integers: every value lies in here */
} lbrt_tensor;

/* What happens to each accumulator (conv) or source element (point), in this order. In the integer domain (source and
 * weights are integers): i32 arithmetic of fixed.h; in the float domain: f32, no fused multiply-add, the order given here.
 *   affine    integer: v = apply(requant[c], v), now fixed point.    float: v = v * scale[c] + offset[c] (two roundings)
 *   residual  integer: v = saturate(v + apply(res, r)), or + r if it is fixed point already (res.shift < 0)
 *             float: v = v + (float)r * res_step
 *   clamp     v = clamp(v, lo, hi) (fixed point or float)
 *   code      integer: clamp(apply(q, v), qlo, qhi); sign: v >= 0 ? 1 : -1
 *             float: clamp(rint(v * inv_step), qlo, qhi) (half to even; NaN gives qlo); sign: v >= 0 ? 1 : -1
 *   to_fixed  float output to fixed point: rint(v * 65536), saturating (scores of a float network)
 * `thresholds` replaces affine, clamp and code in the integer domain: code = qlo + number of k with v >= t[c][k], t ascending, or, where
 * flip[c] is 1, v <= t[c][k], t descending. Only when qhi - qlo <= 15 and no residual (sign: one threshold, codes -1 and 1). */
enum {
    LBRT_AFFINE = 1, LBRT_RESIDUAL = 2, LBRT_CLAMP = 4, LBRT_CODE = 8, LBRT_SIGN = 16, LBRT_TO_FIXED = 32, LBRT_THRESHOLDS = 64
};

typedef struct lbrt_epilogue {
    uint32_t flags;
    int32_t residual;            /* tensor index */
    const lbrt_requant *requant; /* (c) */
    const float *scale, *offset; /* (c) */
    lbrt_requant res;
    float res_step;
    int32_t lo, hi;              /* clamp, fixed point */
    float flo, fhi;              /* clamp, float */
    lbrt_requant q;              /* fixed point -> code */
    float inv_step;
    int32_t qlo, qhi;
    int32_t nthresholds;         /* per channel */
    const int32_t *thresholds;   /* (c, nthresholds) */
    const uint8_t *flip;         /* (c) */
} lbrt_epilogue;

typedef struct lbrt_weights {
    int32_t bits;                /* 1..8 packed integers; 32: float */
    int32_t mul, add;            /* integer value = mul * stored + add */
    const uint8_t *packed;       /* (oc, kh, kw, ic / groups), LSB first, each output channel starting at a byte */
    const float *f32;            /* bits == 32: (oc, kh, kw, ic / groups) */
} lbrt_weights;

typedef struct lbrt_layer {
    int32_t op;
    int32_t src, dst;            /* tensor indices */
    int32_t kh, kw, sh, sw, pt, pl, pb, pr, groups;
    int32_t flat;                /* conv: view src as 1 x 1 x (h w c) */
    /* conv in the float domain: integer source elements are first multiplied by src_step, packed weights' integer values are used as they are (their
     * step is in the epilogue's scale). Products are added in the order kh, kw, ic, each product and each sum rounded to f32. */
    int32_t is_float;            /* conv, point: 1: float domain. The source may be integer then: it is multiplied by src_step first */
    float src_step;
    lbrt_weights weights;
    /* input layer: integer: code = clamp(apply(epilogue.requant[c], pixel), qlo, qhi); float: pixel * scale[c] + offset[c] */
    lbrt_epilogue epilogue;
    const char *name;            /* 0-terminated */
} lbrt_layer;

typedef struct lbrt_graph {
    const char *name;
    int32_t classes;
    const char *const *class_names; /* (classes) or NULL */
    int32_t ntensors, nlayers;
    const lbrt_tensor *tensors;
    const lbrt_layer *layers;
} lbrt_graph;

/* The graph inside an opened model, borrowed. */
const lbrt_graph *lbrt_model_graph(const lbrt_model *model);

#endif

/* A deploy graph: what lowering makes, packing writes, and the runtime, the code generator and `inspect` read.
 *
 * Tensors are NHWC. A tensor's numbers are one of: codes (u8, i8), wide integers (i32: accumulators, sums of codes, or fixed
 * point with 16 fractional bits), or f32. Tensor 0 is the uint8 image, 0..255. Layer i writes tensor i + 1 and reads tensors
 * before it; the last tensor is the output: 1 x 1 x classes, i32, fixed point.
 *
 * Ranges are proven, not believed: packing and loading compute by interval arithmetic (lbrt_layer_range) what a layer can give
 * from what its source can hold, and reject a graph whose accumulators could leave 32 bits or whose tensors could leave their
 * stated lo..hi. Kernels may therefore rely on lo, hi. Lowering should take lo, hi from lbrt_layer_range. */
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
    LBRT_OP_SUMPOOL,  /* sum over the window, zeros in the padding, not divided. Integers: the exact sum, saturated to i32.
                       * Floats: f32, each sum rounded, in the order kh, kw. Inside: i32 and f32 alone; windows that reach over
                       * the image's edge are made up for (lbrt_whole_window, lbrt_whole_window_f32) */
    LBRT_OP_COPY,     /* channels of one or several tensors of dst's type as they are, side by side or in other places, of every
                       * stride-th pixel, or of rows and columns by their numbers; zeros elsewhere */
    LBRT_OP_MUL,      /* the product of two tensors, both fixed point (lbrt_fixed_mul) or both f32; the second one has the same
                       * shape or one pixel, whose channels serve all */
    LBRT_OP_SIGMOID,  /* fixed point: lbrt_sigmoid */
    LBRT_OPS
} lbrt_op;

typedef struct lbrt_tensor {
    int32_t h, w, c;
    int32_t type;      /* lbrt_type */
    int32_t lo, hi;    /* integers: every value lies in here; f32: 0, 0 */
} lbrt_tensor;

/* What happens to each accumulator (conv) or source element (point), in this order. In the integer domain (source and
 * weights are integers): i32 arithmetic of fixed.h; in the float domain: f32, no fused multiply-add, the order given here.
 *   affine    integer: v = apply(requant[c], v), now fixed point.    float: v = v * scale[c] + offset[c] (two roundings)
 *   residual  integer: v = saturate(v + apply(res, r)), or + r if it is fixed point already (res.shift < 0)
 *             float: v = v + (float)r * res_step
 *   clamp     v = clamp(v, lo, hi) (fixed point or float)
 *   code      integer: clamp(apply(q, v), qlo, qhi); sign: v >= 0 ? 1 : -1
 *             float: clamp(rint(v * inv_step), qlo, qhi) (half to even; NaN gives qlo); sign: v >= 0 ? 1 : -1 (NaN gives -1)
 *             LBRT_SIGN alone and LBRT_SIGN | LBRT_CODE mean the same; then qlo, qhi are -1, 1. -0.0 has sign 1.
 *   to_fixed  float output to fixed point: rint(v * 65536), saturating; NaN gives INT32_MIN (scores of a float network)
 * Float clamp keeps NaN. The results: code, sign, thresholds: u8, i8 or i32 (as the tensor says); else i32 in the integer
 * domain, and in the float domain f32, or i32 after to_fixed. float_rules.h has the float rules as inline functions, to share.
 *
 * `thresholds` replaces affine, clamp and code in the integer domain: code = qlo + number of k with v >= t[c][k], t ascending,
 * or, where flip[c] is 1, v <= t[c][k], t descending. Only when qhi - qlo <= 15 and no residual (sign: one threshold, codes -1
 * and 1). nthresholds is qhi - qlo, or 1 for sign; the flags are LBRT_THRESHOLDS or LBRT_THRESHOLDS | LBRT_SIGN alone. t =
 * INT32_MAX for "never" and such are fine: packing moves every threshold into the accumulator's range, which changes nothing. */
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
    const uint8_t *flip;         /* (c); NULL: all 0 */
} lbrt_epilogue;

typedef struct lbrt_weights {
    int32_t bits;                /* 1..8 packed integers; 32: float */
    int32_t mul, add;            /* integer value = mul * stored + add, within -32767..32767 */
    const uint8_t *packed;       /* (oc, kh, kw, ic / groups), LSB first, each output channel starting at a byte */
    const float *f32;            /* bits == 32: (oc, kh, kw, ic / groups) */
} lbrt_weights;

/* Copy: a run of channels. */
typedef struct lbrt_part {
    int32_t source;              /* number in the layer's sources */
    int32_t dst, src, count;     /* first channel there, first channel here, how many */
} lbrt_part;

#define LBRT_MAX_SOURCES 8

typedef struct lbrt_layer {
    int32_t op;
    int32_t src, dst;            /* tensor indices */
    int32_t nsources;            /* copy: 1 .. LBRT_MAX_SOURCES, mul: 2 */
    int32_t sources[LBRT_MAX_SOURCES]; /* their tensors; the first one is src */
    int32_t nparts;              /* copy */
    const lbrt_part *parts;      /* (nparts) in the order of dst, without overlap */
    int32_t zeros;               /* copy: they, rows or columns leave some of dst out */
    const int32_t *rows, *cols;  /* copy: (dst h), (dst w): dst[y][x] is of src[rows[y]][cols[x]], -1: 0. NULL, both: of
                                  * src[y sh][x sw] */
    int32_t kh, kw, sh, sw, pt, pl, pb, pr, groups; /* copy: sh, sw alone */
    int32_t inside;              /* sum pool */
    int32_t gap_h, gap_w;        /* conv: pixels between the kernel's taps: dilation - 1 */
    int32_t flat;                /* conv: view src as 1 x 1 x (h w c) */
    int32_t src_signs;           /* src holds only -1 and 1: found when a file is loaded, for kernels */
    /* Float domain: integer source elements are first multiplied by src_step (one f32 multiplication), packed weights' integer
     * values are used as they are (their step is in the epilogue's scale). A convolution's products are added in the order kh,
     * kw, ic, starting from +0, each product and each sum rounded to f32; positions in the padding are left out. */
    int32_t is_float;            /* conv, point: 1: float domain. Input, others: implied by dst's, src's type */
    float src_step;              /* ignored for an f32 source */
    lbrt_weights weights;
    /* input layer: integer (dst u8, i8, i32): code = clamp(apply(epilogue.requant[c], pixel), qlo, qhi); float (dst f32):
     * pixel * scale[c] + offset[c]. Its flags are AFFINE | CODE or AFFINE (packing does not look at them). What is not input, conv
     * or point has no epilogue: flags 0. */
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

/* Tensor k, from 0 on, that a layer reads, -1 behind the last: its sources, and the epilogue's residual. */
static inline int32_t lbrt_layer_reads(const lbrt_layer *layer, int32_t k) {
    const int32_t n = layer->op == LBRT_OP_COPY || layer->op == LBRT_OP_MUL ? layer->nsources : 1;
    if (k < n)
        return k == 0 ? layer->src : layer->sources[k];
    return k == n && layer->epilogue.flags & LBRT_RESIDUAL ? layer->epilogue.residual : -1;
}

/* Limits of the format, also of what packing accepts. */
#define LBRT_MAX_LAYERS 4096
#define LBRT_MAX_SIDE 65535           /* h, w, kernel, stride, padding */
#define LBRT_MAX_CHANNELS (1 << 20)   /* also classes */
#define LBRT_MAX_ELEMENTS (1 << 28)   /* of a tensor, and of one output channel's weights */
#define LBRT_MAX_TEXT 1023            /* bytes of a name, key or value */
#define LBRT_MAX_THRESHOLDS 15        /* of a channel: one less than the codes of 4 bits */

/* The graph inside an opened model, borrowed. */
const lbrt_graph *lbrt_model_graph(const lbrt_model *model);

/* Name of the kernel that runs a layer. */
const char *lbrt_layer_kernel(const lbrt_model *model, int layer);

/* Bytes that lbrt_run_layers needs: all images go through a layer together there. */
size_t lbrt_arena_size_layers(const lbrt_model *model, int mb, int count);

/* As lbrt_run_threads (threads NULL: one), layers first..last-1 only; the arena holds what those before left there. For
 * measuring. */
lbrt_status lbrt_run_layers(const lbrt_model *model, int first, int last, const uint8_t *images, int mb, void *arena,
                            size_t arena_size, int32_t *scores, const lbrt_threads *threads);

/* What layer `index` of the graph can give, from its sources' lo, hi and its own weights and epilogue: the least interval that
 * this interval arithmetic proves; [0, 0] for f32. False if the accumulator could leave 32 bits. Uses the layer's fields, the
 * sources' shapes, types and ranges, and dst's shape and type; not dst's lo, hi. */
int lbrt_layer_range(const lbrt_graph *graph, int index, int32_t *lo, int32_t *hi);

/* The range of output channel oc's accumulator (conv) or source element (point), integer domain. Padding counts, so that 0 and
 * every partial sum, in any order, lie inside for conv. False if it could leave 32 bits. */
int lbrt_source_range(const lbrt_layer *layer, const lbrt_tensor *src, int oc, int32_t *lo, int32_t *hi);

static inline int lbrt_is_dilated(const lbrt_layer *layer) { return layer->gap_h != 0 || layer->gap_w != 0; }

/* Weights of one output channel. */
static inline int32_t lbrt_weights_per_channel(const lbrt_layer *layer, const lbrt_tensor *src) {
    return layer->flat ? src->h * src->w * src->c / layer->groups * layer->kh * layer->kw
                       : layer->kh * layer->kw * (src->c / layer->groups);
}
static inline size_t lbrt_packed_bytes(int32_t count, int32_t bits) { return ((size_t)count * (size_t)bits + 7) / 8; }

/* Stored (unsigned) weight i of a packed output channel that starts at `row`. */
static inline int32_t lbrt_stored_weight(const uint8_t *row, size_t i, int32_t bits) {
    const size_t bit = i * (size_t)bits;
    unsigned v = row[bit / 8] >> (bit % 8);
    if (bit % 8 + (size_t)bits > 8)
        v |= (unsigned)row[bit / 8 + 1] << (8 - bit % 8);
    return (int32_t)(v & ((1u << bits) - 1u));
}

#endif

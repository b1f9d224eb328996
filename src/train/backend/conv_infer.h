/* oneDNN convolutions for evaluation: 8-bit integers or f32 on NHWC, weights fixed, each call on one thread of the caller's. */
#ifndef LB_CONV_INFER_H
#define LB_CONV_INFER_H

#include "core/core.h"

typedef enum lb_infer_type { LB_INFER_U8, LB_INFER_S8, LB_INFER_F32 } lb_infer_type;

/* The result is s32 for 8-bit sources, f32 for floats. A linear layer is a 1x1 convolution. */
typedef struct lb_infer_dims {
    int mb, ih, iw, ic, oh, ow, oc;
    int kh, kw, sh, sw, pt, pl, pb, pr, groups, gap_h, gap_w;
    lb_infer_type src;
} lb_infer_dims;

/* True if 8-bit products are added up in 32 bits on this CPU (VNNI, AMX). Without those, oneDNN adds pairs of them in saturating 16
 * bits. In both cases oneDNN passes the sums through f32, so that results are exact only while |sum| <= LB_INFER_EXACT. */
bool lb_infer_has_int8(void);
#define LB_INFER_EXACT (1 << 24)
/* What an S8 source counts as in that sum: it is computed as unsigned, 128 higher. */
#define LB_INFER_S8_REACH 256

/* What to use instead where the processor has matrix registers and the shape suits them, else NULL. */
const struct lb_tiles_sums *lb_infer_tiles(const lb_infer_dims *dims);

typedef struct lb_infer lb_infer;
/* For up to `threads` simultaneous callers. */
lb_status lb_infer_create(lb_ctx *ctx, int threads, lb_infer **infer);
void lb_infer_destroy(lb_infer *infer);

typedef struct lb_infer_conv lb_infer_conv;
/* weights: (oc, kh, kw, ic / groups); for 8-bit sources whole numbers in -128..127. The engine is borrowed. */
lb_status lb_infer_conv_create(lb_infer *infer, const lb_infer_dims *dims, const float *weights, lb_infer_conv **conv);
void lb_infer_conv_destroy(lb_infer_conv *conv);
size_t lb_infer_conv_scratch(const lb_infer_conv *conv);

/* src (mb, ih, iw, ic), dst (mb, oh, ow, oc), `thread` 0 .. threads-1: no two calls with the same one at a time. Must run inside an
 * OpenMP parallel region with omp_set_num_threads(1). False if oneDNN failed. */
bool lb_infer_conv_run(lb_infer_conv *conv, int thread, const void *src, void *dst, void *scratch);

#endif

/* The float domain's convolution: shared by the runtime's ref kernels and the trainer's evaluation, so that both give the same
 * bits. Compile with -ffp-contract=off. */
#ifndef LBRT_REF_FLOAT_H
#define LBRT_REF_FLOAT_H

#include <stddef.h>
#include <stdint.h>

#include "float_rules.h"

typedef struct lbrt_conv_shape {
    int32_t ih, iw, ic, oh, ow, oc, kh, kw, sh, sw, pt, pl, groups, gap_h, gap_w;
} lbrt_conv_shape;

/* dst(n, oy, ox, oc) = sum over kh, kw, ic, in this order, of src * weights, from +0, each product and each sum rounded to f32,
 * positions in the padding left out. src: (mb, ih, iw, ic), weights: (kh, kw, ic / groups, oc), dst: (mb, oh, ow, oc); computes
 * images image0..image1-1. Serial. */
void lbrt_conv_f32(const lbrt_conv_shape *shape, const float *src, const float *weights, float *dst, size_t image0, size_t image1);

/* The same for one row: src is one image, dst (ow, oc) the row oy. */
void lbrt_conv_f32_row(const lbrt_conv_shape *shape, const float *src, const float *weights, int32_t oy, float *dst);

#endif

/* 3x3 convolutions with stride 1 by Winograd's minimal filtering F(2 x 2, 3 x 3): 16 products for 4 results instead of 36, forward
 * and in both backward passes. (A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016.) Tensors are NHWC.
 *
 * A tile is 2 x 2 pixels of dst. With sources d (4 x 4), weights g (3 x 3) and results y (2 x 2),
 *
 *     y = A^T [ (G g G^T) . (B^T d B) ] A            and for the gradient of g, summed over the tiles:
 *     dg = G^T [ (A dy A^T) . (B^T d B) ] G          the gradient of d is a convolution of dy with the turned weights
 *
 *     B^T d: d0 - d2, d1 + d2, d2 - d1, d3 - d1      G g: g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2
 *     A^T n: n0 + n1 + n2, n1 - n2 + n3
 *
 * Small whole numbers stay exact: transformed sources are at most 4 times as large, transformed weights fourths of whole numbers
 * that are at most 9 times as large. */
#ifndef LB_WINOGRAD_KERNELS_H
#define LB_WINOGRAD_KERNELS_H

#include "train/backend/backend.h"

#define LB_WINOGRAD_LANES 16   /* channels are multiples of it */
#define LB_WINOGRAD_POSITIONS 16
#define LB_WINOGRAD_SLICE 64   /* channels of each side that one call of `diff` does, at most */

/* src (mb, ih, iw, ic), dst (mb, oh, ow, oc), both of one type; pixels beyond src are zeros. */
typedef struct lb_winograd_dims {
    lb_dtype type;
    int mb, ih, iw, ic, oh, ow, oc, pt, pl;
    const void *zeros;         /* (ic or oc, the larger) zeros */
} lb_winograd_dims;

/* Rows of tiles, from 0 to mb * ceil(oh / 2). */
static inline size_t lb_winograd_across(const lb_winograd_dims *d) { return ((size_t)d->ow + 1) / 2; }
static inline size_t lb_winograd_down(const lb_winograd_dims *d) { return ((size_t)d->oh + 1) / 2; }

typedef struct lb_winograd_kernels {
    const char *isa;
    /* w (oc, 3, 3, ic) f32, output channels [first, last), both even, to the transformed weights of the convolution (16, ic, oc) and
     * of its gradient of src (16, oc, ic), if that is not NULL; bf16: pairs of the middle index are neighbours. */
    void (*weights)(lb_dtype type, const float *w, int oc, int ic, int first, int last, void *forward, void *backward);
    /* dst of tile rows [first, last). `scratch` as large as conv_scratch says, aligned to LB_ALIGN. */
    void (*conv)(const lb_winograd_dims *d, size_t first, size_t last, const void *src, const void *weights, void *dst,
                 void *scratch);
    size_t (*conv_scratch)(const lb_winograd_dims *d);
    /* Gradient of the weights of input channels ic0 .. and output channels oc0 .. (a slice of each) from tile rows [first, last),
     * to diff (oc, 3, 3, ic). */
    void (*diff)(const lb_winograd_dims *d, size_t first, size_t last, int ic0, int oc0, const void *src, const void *diff_dst,
                 float *diff, void *scratch);
    size_t (*diff_scratch)(const lb_winograd_dims *d);
} lb_winograd_kernels;

/* The variant for a type, NULL if oneDNN is faster: without AVX-512, and in bf16 with AMX. */
const lb_winograd_kernels *lb_winograd_select(lb_dtype type);

/* Variant `name` if it was built and this CPU can run it, else NULL; for tests. */
const lb_winograd_kernels *lb_winograd_find(const char *name);

#endif

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
 * that are at most 9 times as large. Where both fit, bytes are multiplied in place of bf16, twice as many at a time. */
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

/* What is multiplied: transformed numbers. */
typedef enum lb_factor { LB_FACTOR_F32 = LB_F32, LB_FACTOR_BF16 = LB_BF16, LB_FACTOR_S8 } lb_factor;

typedef struct lb_winograd_weights {
    lb_factor factor;          /* of type F32: F32; of BF16: BF16 or S8 */
    void *numbers;             /* (16, ic, oc), positions lb_winograd_weights_step apart; as many of ic as one instruction
                                * multiplies are neighbours. S8: times 4 */
    float *start;              /* S8: (16, oc) integers that sums start from */
} lb_winograd_weights;

/* Rows of tiles, from 0 to mb * ceil(oh / 2). */
static inline size_t lb_winograd_across(const lb_winograd_dims *d) { return ((size_t)d->ow + 1) / 2; }
static inline size_t lb_winograd_down(const lb_winograd_dims *d) { return ((size_t)d->oh + 1) / 2; }
/* That many are done at once; calls are best given multiples. Even: in bf16 two are neighbours in `diff`. */
enum { LB_WINOGRAD_CONV_TILES = 48, LB_WINOGRAD_DIFF_TILES = 64 };
static inline size_t lb_winograd_rows(const lb_winograd_dims *d, size_t tiles) {
    const size_t rows = tiles / lb_winograd_across(d) / 2 * 2;
    return rows < 2 ? 2 : rows;
}

/* Elements from one position of the transformed weights to the next: not a power of two, or all 16 would fall into the same few
 * lines of the cache. */
static inline size_t lb_winograd_weights_step(int oc, int ic) { return (size_t)oc * (size_t)ic + 2 * LB_WINOGRAD_LANES; }

typedef struct lb_winograd_kernels {
    const char *isa;
    /* Of w (oc, 3, 3, ic) f32, 16 output channels from `first` on: for the convolution; and turned, for that of diff_dst, whose ic
     * is this one's oc and the other way round. */
    void (*weights)(const lb_winograd_dims *d, const float *w, int first, lb_winograd_weights *to);
    void (*turned)(const lb_winograd_dims *d, const float *w, int first, lb_winograd_weights *to);
    /* dst of tile rows [first, last). `scratch` as large as conv_scratch says, aligned to LB_ALIGN. */
    void (*conv)(const lb_winograd_dims *d, size_t first, size_t last, const void *src, const lb_winograd_weights *weights,
                 void *dst, void *scratch);
    size_t (*conv_scratch)(const lb_winograd_dims *d);
    /* Gradient of the weights of input channels ic0 .. and output channels oc0 .. (a slice of each) from tile rows [first, last),
     * to diff (oc, 3, 3, ic). */
    void (*diff)(const lb_winograd_dims *d, size_t first, size_t last, int ic0, int oc0, const void *src, const void *diff_dst,
                 float *diff, void *scratch);
    size_t (*diff_scratch)(const lb_winograd_dims *d);
} lb_winograd_kernels;

/* The variant for a type; NULL without AVX-512, where oneDNN is faster. (So it is in bf16 with AMX: backend/winograd.c asks.) */
const lb_winograd_kernels *lb_winograd_select(lb_dtype type);

/* Variant `name` if it was built and this CPU can run it, else NULL; for tests. */
const lb_winograd_kernels *lb_winograd_find(const char *name);

#endif

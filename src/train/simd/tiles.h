/* Convolutions of bf16 by matrix registers (AMX: tdpbf16ps), directly, in all three passes. Tensors are NHWC. Output
 * channels are multiples of 16; so are those of sources, or LB_TILES_RUN holds (first layers). Sums are f32.
 *
 * Variant "amx" is what runs; "scalar" does the same operations on the same registers in plain C (tile.h), for the tests. */
#ifndef LB_TILES_H
#define LB_TILES_H

#include "train/backend/backend.h"

#define LB_TILES_CHANNELS 16 /* channels are multiples of it */
#define LB_TILES_RUN 32      /* where ic is no such multiple, kw * ic is at most this */

/* src (mb, ih, iw, ic), results (mb, oh, ow, oc); pixels beyond src are zeros, as many on each side as the sizes need. Result
 * (y, x) is pixel (from_h + y step_h, from_w + x step_w) of dst (mb, dst_h, dst_w, oc). */
typedef struct lb_tiles_dims {
    int mb, ih, iw, ic, oh, ow, oc, kh, kw, sh, sw, pt, pl;
    int dst_h, dst_w, from_h, from_w, step_h, step_w;
} lb_tiles_dims;

/* Which of another kernel's weights a convolution has, turned by half a circle: of rows, the first and every `sh`th from it on. */
typedef struct lb_tiles_taps {
    int kh, kw, first_h, first_w, sh, sw;
} lb_tiles_taps;

typedef struct lb_tiles_conv {
    const char *isa;
    /* Weights as `conv` reads them, of w (oc, kh, kw, ic) f32, 16 output channels from `first` on; to: weights_size(d) bytes,
     * aligned to LB_ALIGN. turned: d is a convolution of diff_dst with some of the forward pass's weights, which w is. */
    size_t (*weights_size)(const lb_tiles_dims *d);
    void (*weights)(const lb_tiles_dims *d, const float *w, int first, void *to);
    void (*turned)(const lb_tiles_dims *d, const lb_tiles_taps *taps, const float *w, int first, void *to);
    /* dst of images [first, last). `scratch`: as many bytes as scratch() says, aligned to LB_ALIGN. */
    void (*conv)(const lb_tiles_dims *d, int first, int last, const void *src, const void *weights, void *dst, void *scratch);
    size_t (*scratch)(const lb_tiles_dims *d);
} lb_tiles_conv;

typedef struct lb_tiles_diff {
    const char *isa;
    /* Gradient of the weights of output channels [oc_first, oc_last) (multiples of 16) from images [first, last), not none, to
     * diff (oc, kh, kw, ic) f32; add: to what is there, else that is overwritten. ic may be any. `scratch`: aligned to LB_ALIGN. */
    void (*diff)(const lb_tiles_dims *d, int first, int last, int oc_first, int oc_last, const void *src, const void *diff_dst,
                 bool add, float *diff, void *scratch);
    size_t (*scratch)(const lb_tiles_dims *d, int oc); /* bytes of a call for as many output channels */
} lb_tiles_diff;

/* Variant `name` if it was built and this CPU can run it, else NULL. */
const lb_tiles_conv *lb_tiles_conv_find(const char *name);
const lb_tiles_diff *lb_tiles_diff_find(const char *name);

#endif

/* Convolutions of evaluation by matrix registers (AMX: tdpbusd, tdpbssd, tdpbf16ps): bands of sums, which are finished while they
 * are in the cache. Tensors are NHWC, one group, no dilation, output channels multiples of 16.
 *
 * Bytes give the exact sums, modulo 2^32. Floats are taken apart, a = a1 + a2 and w = w1 + w2 with two bf16 each, which leaves 16
 * bits of them, and become more channels: a1 a1 a2 by w2 w1 w1. Weights that are bf16 (codes) stay whole: a1 a2 by w w. Sums are
 * f32.
 *
 * Variant "amx" is what runs; "scalar" does the same operations on the same registers in plain C (tile.h), for the tests. */
#ifndef LB_TILES_SUMS_H
#define LB_TILES_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lb_sums_type {
    LB_SUMS_U8, LB_SUMS_S8,   /* sources; weights in -128..127; sums are int32 */
    LB_SUMS_F32,              /* floats */
    LB_SUMS_F32_CODES         /* floats; weights that bf16 holds exactly */
} lb_sums_type;

typedef struct lb_sums {
    int ih, iw, ic, oh, ow, oc, kh, kw, sh, sw, pt, pl;
    lb_sums_type type;
    /* What `plan` makes of it. Sizes are in bytes; "rows" and "pixels" are the strip's where nothing else is said. */
    size_t size, parts;        /* of a number; how many a source number becomes */
    size_t pixel;              /* ic * parts * size */
    size_t steps;              /* registers that the pixels of a kernel row take, zeros behind them */
    size_t down, across;       /* rows and pixels from one result to the next, */
    size_t gap_y, gap_x;       /* source rows and pixels from one of the strip to the next */
    size_t pitch, left, wide;  /* pixels of a row: all; of padding; from the source then */
    size_t strip_rows, strip;  /* of an image; bytes of all images and of what registers reach behind them */
    size_t rows, images;       /* result rows of a band; or whole images, if all of their rows fit */
    bool count_on;             /* results go on over the padding between rows */
    size_t result_row;         /* results from one row of them to the next: at least ow */
    size_t tiles;              /* registers of results of an image's part of a band */
    size_t weights;            /* of all */
    size_t scratch;            /* of a call, sums first */
} lb_sums;

typedef struct lb_tiles_sums {
    const char *isa;
    /* For tensors of up to mb images. */
    void (*plan)(lb_sums *s, int mb);
    /* w: (oc, kh, kw, ic); to: s->weights bytes, aligned to LB_ALIGN. */
    void (*weights)(const lb_sums *s, const float *w, void *to);
    /* All results of `images` images, rows <= oh of them: for each band its sums (scratch: s->scratch bytes, aligned to LB_ALIGN)
     * and then `finish` of each image's part of it, result rows y .. y + rows - 1 of image n, s->result_row * oc numbers from one
     * to the next. */
    void (*conv)(const lb_sums *s, const void *src, int images, int rows, const void *weights, void *scratch,
                 void (*finish)(void *user, int n, int y, int rows, const void *sums), void *user);
} lb_tiles_sums;

/* Variant `name` if it was built and this CPU can run it, else NULL. */
const lb_tiles_sums *lb_tiles_sums_find(const char *name);

#endif

/* What all kernels share: element types, access to tensors, windows that move over an image. Tensors are NHWC, in bytes of the
 * arena: codes take one byte, wide integers and floats four, aligned to four. */
#ifndef TENSOR_H
#define TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "fixed.h"
#include "window.h"

enum { TYPE_U8, TYPE_I8, TYPE_I32, TYPE_F32 };

/* The arena's memory holds one type after another: compilers that reason about types must be told. */
#if defined(__GNUC__)
#define MAY_ALIAS __attribute__((__may_alias__))
#else
#define MAY_ALIAS
#endif
typedef int16_t MAY_ALIAS mem_i16;
typedef int32_t MAY_ALIAS mem_i32;

static inline int32_t get_int(const void *src, int32_t type, size_t i) {
    return type == TYPE_U8   ? ((const uint8_t *)src)[i]
           : type == TYPE_I8 ? ((const int8_t *)src)[i]
                             : ((const mem_i32 *)src)[i];
}

static inline void put_int(void *dst, int32_t type, size_t i, int32_t v) {
    if (type == TYPE_I32)
        ((mem_i32 *)dst)[i] = v;
    else
        ((uint8_t *)dst)[i] = (uint8_t)v;
}

/* As lbrt_shift_right, of 32 bits. */
static inline int32_t shift_right(int32_t v, int32_t shift) {
#if defined(__GNUC__)
    return v >> shift;
#else
    return v < 0 ? ~(~v >> shift) : v >> shift;
#endif
}

/* A window that moves over an image; groups divide the channels of a convolution, whose taps may have pixels between them. */
typedef struct window {
    int32_t ih, iw, ic, oh, ow, oc, kh, kw, sh, sw, pt, pl, groups, gap_h, gap_w;
} window;

/* The part of an output pixel's window that lies inside the image: its rows ky0 .. ky1 - 1 and columns kx0 .. kx1 - 1. Row ky of
 * the window is row y0 + ky (gap_h + 1) of the image, columns alike. */
typedef struct inside {
    int32_t y0, x0, ky0, ky1, kx0, kx1;
} inside;

/* Of a row of output pixels; then, given its rows, of one of them. */
static inline inside inside_rows(const window *s, int32_t oy) {
    inside w = {0, 0, 0, 0, 0, 0};
    w.y0 = oy * s->sh - s->pt;
    w.ky0 = lbrt_first_tap(w.y0, s->gap_h, s->kh);
    w.ky1 = lbrt_end_tap(w.y0, s->gap_h, s->kh, s->ih);
    return w;
}

static inline inside inside_columns(const window *s, inside rows, int32_t ox) {
    inside w = rows;
    w.x0 = ox * s->sw - s->pl;
    w.kx0 = lbrt_first_tap(w.x0, s->gap_w, s->kw);
    w.kx1 = lbrt_end_tap(w.x0, s->gap_w, s->kw, s->iw);
    if (w.kx0 >= w.kx1) /* all columns are padding: no rows either */
        w.ky1 = w.ky0;
    return w;
}

static inline inside inside_of(const window *s, int32_t oy, int32_t ox) { return inside_columns(s, inside_rows(s, oy), ox); }

/* First element of image pixel (y, x). */
static inline size_t pixel_at(const window *s, int32_t y, int32_t x) {
    return ((size_t)y * (size_t)s->iw + (size_t)x) * (size_t)s->ic;
}

#endif

/* Channels as they are, from one or several tensors, of every stride-th pixel or of rows and columns by their numbers, to other
 * places; zeros elsewhere. */
#ifndef COPY_H
#define COPY_H

#include "tensor.h"

/* A run of channels; numbers of elements. */
typedef struct copy_part {
    int32_t source, channels, first, to, count; /* channels: of a pixel of the source */
} copy_part;

typedef struct copy {
    int32_t iw, oh, ow, oc, stride, wide; /* wide: elements of four bytes, else one */
    int32_t zeros, nparts;                /* zeros: something of the result comes from nowhere */
    const copy_part *parts;               /* (nparts) */
    const int32_t *rows, *cols;           /* (oh), (ow), -1: zeros. NULL: every stride-th */
} copy;

static void copy_elements(int32_t wide, const void *src, size_t from, void *dst, size_t to, size_t count) {
    if (wide)
        for (size_t i = 0; i < count; i++)
            ((mem_i32 *)dst)[to + i] = src != NULL ? ((const mem_i32 *)src)[from + i] : 0;
    else
        for (size_t i = 0; i < count; i++)
            ((uint8_t *)dst)[to + i] = src != NULL ? ((const uint8_t *)src)[from + i] : 0;
}

static void run_copy(const copy *l, const void *const *sources, void *dst) {
    size_t at = 0;
    for (int32_t y = 0; y < l->oh; y++)
        for (int32_t x = 0; x < l->ow; x++, at += (size_t)l->oc) {
            const int32_t from_y = l->rows != NULL ? l->rows[y] : y * l->stride;
            const int32_t from_x = l->cols != NULL ? l->cols[x] : x * l->stride;
            if (l->zeros)
                copy_elements(l->wide, NULL, 0, dst, at, (size_t)l->oc);
            if (from_y < 0 || from_x < 0)
                continue;
            const size_t pixel = (size_t)from_y * (size_t)l->iw + (size_t)from_x;
            for (int32_t p = 0; p < l->nparts; p++) {
                const copy_part *const part = &l->parts[p];
                copy_elements(l->wide, sources[part->source], pixel * (size_t)part->channels + (size_t)part->first, dst,
                              at + (size_t)part->to, (size_t)part->count);
            }
        }
}

#endif

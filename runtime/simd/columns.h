/* Columns of pixels (tiles.c): convolutions of few inputs to 16 channels, whose three kernel rows are a register of weights each.
 *
 * Weights stay in registers. A register of sources, 16 pixels of a row, is loaded once and multiplied by all kernel rows: by the
 * last one for the result row above, whose sums are complete then, by the middle one, and by the first one for the row below.
 * Sums are stored while the next row is multiplied and finished while the one after that is. One column follows another in the
 * same rhythm; the first two rows of each complete no sums. */
#ifndef LBRT_COLUMNS_H
#define LBRT_COLUMNS_H

#include "amx.h"
#include "quads.h"
#include "strip.h"

#define COLUMN_KERNEL 3 /* rows */
#define NOTHING SIZE_MAX

typedef struct columns {
    const uint8_t *strip;
    size_t stride, pixel; /* bytes from one row to the next, from one pixel to the next */
    size_t rows, count; /* of results, of columns */
    const int8_t *weights;
    size_t weights_row; /* bytes of a register */
    const vec *start; /* NULL: zeros */
    int is_signed; /* sources */
    const lbrt_call *call; /* its results start with the strip's */
    const quads *quads;
} columns;

static inline int columns_fit(const lbrt_site *site, size_t products) {
    const lbrt_layer *l = site->layer;
    return l->kh == COLUMN_KERNEL && products == COLUMN_KERNEL && l->sh == 1 && l->sw == 1 && l->groups == 1 &&
           site->dst->c == LANES && site->dst->w % TILE_ROWS == 0;
}

/* Sums are registers 0..2, sources 3 and 4, weights 5..7. */
static inline tile_shapes columns_shapes(size_t bytes) {
    tile_shapes shapes = {1, 0, {0}, {0}, {0}};
    for (size_t t = 0; t < 8; t++) {
        shapes.rows[t] = (uint8_t)(t < 5 ? TILE_ROWS : bytes / STEP);
        shapes.bytes[t] = (uint16_t)(t == 3 || t == 4 ? bytes : TILE_BYTES);
    }
    return shapes;
}

/* Where the next sources are, and where results of the sums that they complete belong: bytes, or nothing. */
typedef struct column_place {
    const uint8_t *src;
    size_t row, column;
} column_place;

INLINE size_t column_results(const columns *o, const column_place *p) {
    const size_t w = (size_t)o->call->site.dst->w;
    return p->row + 1 < COLUMN_KERNEL ? NOTHING : ((p->row + 1 - COLUMN_KERNEL) * w + p->column * TILE_ROWS) * LANES;
}

/* Behind the last column is the first one, which is not completed any more. */
INLINE void column_next(const columns *o, column_place *p) {
    p->src += o->stride;
    if (++p->row < o->rows + COLUMN_KERNEL - 1)
        return;
    p->row = 0;
    p->column++;
    p->src = o->strip + (p->column < o->count ? p->column * TILE_ROWS * o->pixel : 0);
}

/* Two quads. */
INLINE void column_finish(const vec *acc, const quad_rule *rule, uint8_t *dst, size_t at, const int how) {
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        const size_t here = at + i * sizeof(vec);
        const vec u = how & WITH_RESIDUAL ? vec_load(rule->res + here) : vec_set(0);
        vec_store(dst + here, quad_codes(acc + 4 * i, u, rule, how));
    }
}

#define COLUMN_DOT(sum, src, weights)              \
    do {                                           \
        if (is_signed)                             \
            tile_dot_signed(sum, src, weights);    \
        else                                       \
            tile_dot(sum, src, weights);           \
    } while (0)

/* A row of sources, register `from`: the last one for sums `last`, the middle one for `middle`, the first one for `first`, which
 * holds sums that the row before completed. */
#define COLUMN_ROW(first, middle, last, from)                                          \
    do {                                                                               \
        tile_load(from, p.src, pixel);                                                 \
        COLUMN_DOT(last, from, 7);                                                     \
        if (stored != NOTHING)                                                         \
            column_finish(acc, &rule, dst, stored, how);                              \
        COLUMN_DOT(middle, from, 6);                                                   \
        if (stored != NOTHING)                                                         \
            column_finish(acc + 8, &rule, dst, stored + 2 * sizeof(vec), how);        \
        tile_store(first, acc, sizeof(vec));                                          \
        if (start == NULL)                                                             \
            tile_zero(first);                                                          \
        else                                                                           \
            tile_load(first, start, 0);                                                \
        COLUMN_DOT(first, from, 5);                                                    \
        stored = complete;                                                             \
        complete = column_results(o, &p);                                              \
        column_next(o, &p);                                                            \
    } while (0)

INLINE void columns_multiply(const columns *o, const int how) {
    const quad_rule rule = quads_rule(o->quads, o->call, 0, how);
    const vec *const start = o->start;
    const size_t pixel = o->pixel, steps = o->count * (o->rows + COLUMN_KERNEL - 1) + 2;
    const int is_signed = o->is_signed;
    uint8_t *const dst = o->call->dst;
    vec acc[TILE_ROWS];
    column_place p = {o->strip, 0, 0};
    size_t complete = NOTHING, stored = NOTHING;
    tile_load(5, o->weights, LANES * STEP);
    tile_load(6, o->weights + o->weights_row, LANES * STEP);
    tile_load(7, o->weights + 2 * o->weights_row, LANES * STEP);
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    for (size_t i = 0; i < steps; i += 3) {
        COLUMN_ROW(0, 2, 1, 3);
        COLUMN_ROW(1, 0, 2, 4);
        COLUMN_ROW(2, 1, 0, 3);
    }
}

#define COLUMN_CASE(how) case how: columns_multiply(o, how); break;

APART void columns_run(const columns *o, int how) {
    switch (how) {
        COLUMN_CASE(IN_WORDS)
        COLUMN_CASE(IN_WORDS + OF_THREE)
        COLUMN_CASE(IN_WORDS + WITH_RESIDUAL)
        COLUMN_CASE(IN_BYTES + OF_ONE)
        COLUMN_CASE(IN_BYTES + OF_ONE + WITH_RESIDUAL)
        COLUMN_CASE(IN_BYTES + OF_THREE)
        COLUMN_CASE(IN_BYTES + OF_THREE + WITH_RESIDUAL)
    }
}

#endif

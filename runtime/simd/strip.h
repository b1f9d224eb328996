/* What convolutions by dot products share (dot.c, tiles.c): a strip of source rows, and weights in blocks that go with it.
 *
 * Source rows are copied, padding included, into a strip in which the inputs under one kernel row are one segment of kw * c
 * values. Weights are laid out in blocks of LANES output channels, each step holding 4 inputs (words: 2) per channel. Bytes are
 * stored as value + offset (stored.h), so accumulators start at -offset * sum(weights); they wrap in 32 bits, and the loader
 * has proven that the result fits.
 *
 * Weights that do not fit a signed byte are mul * s + add of stored ones s: then s - zero is multiplied, and rest = add + mul *
 * zero times the sum of the window's values added. */
#ifndef LBRT_STRIP_H
#define LBRT_STRIP_H

#include "../epilogue.h"
#include "finish.h"

#define STRIP_BUDGET ((size_t)96 << 10) /* a strip takes as many result rows as fit: weights are read once per strip */
#define STRIP_LIMIT ((size_t)64 << 20) /* a hostile padding is ref's work */

typedef struct geometry {
    size_t groups, blocks; /* blocks of LANES output channels of each group */
    size_t c; /* inputs of a group */
    size_t size; /* bytes of a stored value */
    int32_t offset; /* of bytes: what is added to a source's values */
    size_t steps; /* per kernel row */
    size_t columns; /* padded source pixels of a strip's row */
    size_t stride; /* bytes of a strip's row */
    size_t rows; /* result rows per strip */
    size_t phases, phase; /* row i of the source stands in phase i % phases, `phase` bytes from one to the next */
    size_t part; /* steps of a pixel that are taken in all kernel positions before the next ones are; 0: row by row */
} geometry;

/* Where the weights of step k of kernel row y stand. */
static inline size_t step_place(const lbrt_layer *l, const geometry *g, size_t y, size_t k) {
    if (g->part == 0)
        return y * g->steps + k;
    const size_t x = k / (g->c / STEP), in = k % (g->c / STEP);
    return ((in / g->part * (size_t)l->kh + y) * (size_t)l->kw + x) * g->part + in % g->part;
}

/* Result rows whose source rows fit the budget. */
static inline size_t rows_within_budget(const lbrt_site *site, size_t stride) {
    const size_t kh = (size_t)site->layer->kh, fit = STRIP_BUDGET / stride;
    const size_t rows = fit > kh ? (fit - kh) / (size_t)site->layer->sh + 1 : 1;
    return rows < (size_t)site->dst->h ? rows : (size_t)site->dst->h;
}

/* A sum of products of bytes to an accumulator: sum * mul + (the window's sum) * rest. */
typedef struct split {
    int32_t mul, zero, rest;
} split;

static inline split split_of(const lbrt_weights *w) {
    split s = {1, 0, 0};
    if (!weights_fit_byte(w)) {
        s.mul = w->mul;
        s.zero = 1 << (w->bits - 1);
        s.rest = w->add + w->mul * s.zero;
    }
    return s;
}

/* ---- What is prepared: arrays of whole blocks, so that channels beyond a group's last are zeros ----------------------- */

typedef struct parameters {
    int8_t *weights; /* (groups, blocks, kh, steps, LANES, STEP bytes) */
    vec *start; /* (groups, blocks) accumulators */
    finish finish;
    int16_t *unpacked; /* one channel, while preparing */
} parameters;

static inline parameters parameters_carve(const lbrt_site *site, const geometry *g, lbrt_carve *at) {
    const lbrt_layer *l = site->layer;
    const size_t block = lbrt_size_mul((size_t)l->kh * g->steps, LANES * STEP), blocks = g->groups * g->blocks;
    parameters p;
    p.weights = lbrt_take(at, blocks, block);
    p.start = lbrt_take(at, blocks, sizeof *p.start);
    p.finish = finish_carve(site, g->groups, at);
    p.unpacked = lbrt_take(at, (size_t)lbrt_weights_per_channel(l, site->src), sizeof *p.unpacked);
    return p;
}

/* Into memory that is all zeros. */
static inline void parameters_prepare(const lbrt_site *site, const geometry *g, const parameters *p) {
    const lbrt_layer *l = site->layer;
    const size_t kh = (size_t)l->kh, segment = (size_t)l->kw * g->c, oc = (size_t)site->dst->c / g->groups, each = STEP / g->size;
    const size_t row = lbrt_packed_bytes((int32_t)(kh * segment), l->weights.bits);
    const int whole = g->size > 1 || weights_fit_byte(&l->weights);
    const split s = split_of(&l->weights);
    const uint32_t offset = (uint32_t)g->offset;
    for (size_t o = 0; o < (size_t)site->dst->c; o++) {
        const size_t block = o / oc * g->blocks + o % oc / LANES, lane = o % oc % LANES;
        int8_t *w = p->weights + block * kh * g->steps * LANES * STEP + lane * STEP;
        uint32_t sum = 0;
        lbrt_unpack(l, site->src, (int32_t)o, p->unpacked);
        for (size_t y = 0; y < kh; y++)
            for (size_t i = 0; i < segment; i++) {
                const uint8_t *packed = l->weights.packed + o * row;
                const int32_t v =
                    whole ? p->unpacked[y * segment + i] : lbrt_stored_weight(packed, y * segment + i, l->weights.bits) - s.zero;
                store_weight(w + step_place(l, g, y, i / each) * LANES * STEP + i % each * g->size, g->size, v);
                sum += (uint32_t)v;
            }
        /* Modulo 2^32, like the sums that start from it. */
        ((uint32_t *)&p->start[block])[lane] = 0u - offset * sum;
    }
    finish_prepare(site, g->groups, &p->finish);
}

/* ---- Filling a strip --------------------------------------------------------------------------------------------------- */

/* Source elements at.. of a tensor to `count` stored values. */
static inline void convert(const void *src, int32_t type, size_t at, size_t count, size_t size, int32_t offset,
                           uint8_t *restrict to) {
    const uint8_t *restrict narrow = (const uint8_t *)src + at;
    const int32_t *restrict wide = (const int32_t *)src + at;
    if (size == 2) {
        lbrt_widen16(src, type, at, count, (int16_t *)(void *)to);
    } else if (type == LBRT_I32) {
        for (size_t i = 0; i < count; i++)
            to[i] = (uint8_t)(wide[i] + offset);
    } else if (offset == 0) {
        bytes_copy(to, narrow, count);
    } else {
        for (size_t i = 0; i < count; i++)
            to[i] = (uint8_t)(narrow[i] + offset);
    }
}

/* Where source row i is. */
static inline size_t strip_row(const geometry *g, size_t i) { return i % g->phases * g->phase + i / g->phases * g->stride; }

/* Copies the source rows under result rows oy.. of an image into the strip, padding filled with the code of 0. */
static inline void strip_fill(const lbrt_call *call, const geometry *g, size_t group, size_t image, size_t oy, size_t rows,
                              uint8_t *restrict strip) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor view = lbrt_view(&call->site);
    const int32_t offset = g->offset;
    const size_t columns = g->columns, w = (size_t)view.w, c = (size_t)view.c, pixel = g->c * g->size;
    const size_t left = (size_t)l->pl < columns ? (size_t)l->pl : columns, inside = columns - left < w ? columns - left : w;
    const size_t count = (rows - 1) * (size_t)l->sh + (size_t)l->kh;
    for (size_t i = 0; i < count; i++) {
        if (i % (size_t)l->sh >= (size_t)l->kh) /* no kernel row reads it */
            continue;
        const int64_t y = (int64_t)oy * l->sh - l->pt + (int64_t)i;
        uint8_t *row = strip + strip_row(g, i);
        if (y < 0 || y >= view.h) {
            bytes_fill(row, (uint8_t)offset, columns * pixel);
            continue;
        }
        const size_t at = (image * (size_t)view.h + (size_t)y) * w * c + group * g->c;
        uint8_t *to = row + left * pixel;
        bytes_fill(row, (uint8_t)offset, left * pixel);
        if (g->groups == 1)
            convert(call->src, view.type, at, inside * c, g->size, offset, to);
        else
            for (size_t x = 0; x < inside; x++)
                convert(call->src, view.type, at + x * c, g->c, g->size, offset, to + x * pixel);
        bytes_fill(to + inside * pixel, (uint8_t)offset, (columns - left - inside) * pixel);
    }
}

/* Multiplies the strip's `rows` result rows from row `row` of the batch, one group; `job`: what the kernel wants to know. */
typedef void strip_task(const lbrt_call *call, const geometry *g, const void *job, size_t group, size_t row, size_t rows);

/* Fills the strip, at the start of scratch, with the sources of one part of a call after the other, and has each multiplied. */
static inline void strip_run(const lbrt_call *call, const geometry *g, strip_task *multiply, const void *job) {
    const size_t oh = (size_t)call->site.dst->h;
    for (size_t row = call->row0, rows; row < call->row1; row += rows) {
        const size_t oy = row % oh;
        rows = call->row1 - row < oh - oy ? call->row1 - row : oh - oy;
        rows = rows < g->rows ? rows : g->rows;
        for (size_t group = 0; group < g->groups; group++) {
            strip_fill(call, g, group, row / oh, oy, rows, call->scratch);
            multiply(call, g, job, group, row, rows);
        }
    }
}

#endif

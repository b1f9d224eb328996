/* Depthwise convolution of integers: one channel in, one out per group.
 *
 * The source rows under a result row are interleaved, four (words: two) at a time, so that the values of a column and channel
 * lie side by side: a step of products is a kernel column of 4 (2) rows for LANES channels. Bytes are stored as value + offset
 * (stored.h), so accumulators start at -offset * sum(weights). */
#include "finish.h"

#define PIXELS 8 /* at a time */
#define STRIP_LIMIT ((size_t)16 << 20)

typedef struct geometry {
    size_t c, blocks; /* channels, blocks of LANES of them */
    size_t size; /* bytes of a stored value */
    size_t each, parts; /* rows of a step, steps of a kernel column */
    size_t run; /* steps whose products fit the sums of bytes */
    size_t columns; /* padded source columns that a row of results needs */
    size_t stride; /* bytes of a strip's row: (columns, blocks, LANES, STEP) */
} geometry;

static geometry geometry_of(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    const lbrt_weights *w = &l->weights;
    geometry g;
    g.c = (size_t)site->dst->c;
    g.blocks = blocks_of(site, 1);
    g.run = weights_fit_byte(w) ? stored_run(site->src, magnitude(first_weight(w), last_weight(w))) : 0;
    g.size = g.run > 0 ? 1 : 2;
    g.each = STEP / g.size;
    g.parts = ((size_t)l->kh + g.each - 1) / g.each;
    g.columns = (size_t)(site->dst->w - 1) * (size_t)l->sw + (size_t)l->kw;
    g.stride = lbrt_size_mul(g.columns, g.blocks * LANES * STEP);
    return g;
}

typedef struct buffers {
    uint8_t *strip; /* (parts, columns, blocks, LANES, STEP) */
    uint8_t *zeros; /* (w, c) a source row outside the image */
} buffers;

static buffers buffers_carve(const lbrt_site *site, const geometry *g, lbrt_carve *at) {
    buffers b;
    b.strip = lbrt_take(at, g->parts, g->stride);
    b.zeros = lbrt_take(at, (size_t)site->src->w, g->c);
    return b;
}

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {NULL, 0};
    buffers_carve(site, &g, &at);
    return at.used;
}

static int accepts(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    return !l->is_float && !l->flat && l->groups > 1 && l->groups == site->src->c && l->groups == site->dst->c &&
           (site->src->type == LBRT_U8 || site->src->type == LBRT_I8) && !lbrt_is_dilated(l) && strides_are_small(site) &&
           scratch_size(site) <= STRIP_LIMIT;
}

static size_t cost(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    return g.blocks * (g.parts * (size_t)site->layer->kw + 16);
}

/* ---- What is prepared: arrays of whole blocks, so that channels beyond c are zeros ------------------------------------ */

typedef struct parameters {
    uint8_t *weights; /* (blocks, parts, kw, LANES, STEP bytes) */
    vec *start; /* (blocks) accumulators */
    finish finish;
    int16_t *unpacked; /* one channel, while preparing */
} parameters;

static parameters carve(const lbrt_site *site, lbrt_carve *at) {
    const geometry g = geometry_of(site);
    parameters p;
    p.weights = lbrt_take(at, lbrt_size_mul(g.parts * (size_t)site->layer->kw, g.blocks), LANES * STEP);
    p.start = lbrt_take(at, g.blocks, sizeof *p.start);
    p.finish = finish_carve(site, 1, at);
    p.unpacked = lbrt_take(at, (size_t)lbrt_weights_per_channel(site->layer, site->src), sizeof *p.unpacked);
    return p;
}

static size_t prepared_size(const lbrt_site *site) {
    lbrt_carve at = {NULL, 0};
    carve(site, &at);
    return at.used;
}

static void prepare(const lbrt_site *site, void *prepared) {
    const geometry g = geometry_of(site);
    const size_t kh = (size_t)site->layer->kh, kw = (size_t)site->layer->kw;
    const uint32_t offset = g.size == 1 ? (uint32_t)stored_offset(site->src) : 0;
    lbrt_carve at = {prepared, 0};
    const parameters p = carve(site, &at);
    memset(prepared, 0, at.used);
    for (size_t o = 0; o < g.c; o++) {
        uint8_t *w = p.weights + (o / LANES * g.parts * kw * LANES + o % LANES) * STEP;
        uint32_t sum = 0;
        lbrt_unpack(site->layer, site->src, (int32_t)o, p.unpacked);
        for (size_t y = 0; y < kh; y++)
            for (size_t x = 0; x < kw; x++) {
                const int16_t v = p.unpacked[y * kw + x];
                store_weight(w + (y / g.each * kw + x) * LANES * STEP + y % g.each * g.size, g.size, v);
                sum += (uint32_t)(int32_t)v;
            }
        /* Modulo 2^32, like the sums that start from it. */
        ((uint32_t *)&p.start[o / LANES])[o % LANES] = 0u - offset * sum;
    }
    finish_prepare(site, 1, &p.finish);
}

/* ---- Running ----------------------------------------------------------------------------------------------------------- */

static void interleave_bytes(const uint8_t *const rows[4], size_t at, size_t count, uint8_t offset, uint8_t *restrict to) {
    const uint8_t *restrict a = rows[0] + at, *restrict b = rows[1] + at, *restrict c = rows[2] + at, *restrict d = rows[3] + at;
    for (size_t i = 0; i < count; i++) {
        to[4 * i] = (uint8_t)(a[i] + offset);
        to[4 * i + 1] = (uint8_t)(b[i] + offset);
        to[4 * i + 2] = (uint8_t)(c[i] + offset);
        to[4 * i + 3] = (uint8_t)(d[i] + offset);
    }
}

static void interleave_words(const uint8_t *const rows[2], int32_t type, size_t at, size_t count, int16_t *restrict to) {
    const uint8_t *restrict a = rows[0] + at, *restrict b = rows[1] + at;
    if (type == LBRT_U8)
        for (size_t i = 0; i < count; i++) {
            to[2 * i] = a[i];
            to[2 * i + 1] = b[i];
        }
    else
        for (size_t i = 0; i < count; i++) {
            to[2 * i] = (int8_t)a[i];
            to[2 * i + 1] = (int8_t)b[i];
        }
}

/* The source rows under result row oy of an image into the strip. */
static void fill(const lbrt_call *call, const geometry *g, const buffers *b, size_t image, size_t oy) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor *src = call->site.src;
    const size_t columns = g->columns, w = (size_t)src->w, column = g->blocks * LANES * STEP;
    const size_t left = (size_t)l->pl < columns ? (size_t)l->pl : columns, inside = columns - left < w ? columns - left : w;
    const int32_t offset = g->size == 1 ? stored_offset(src) : 0;
    /* A row whose channels fill their blocks is one piece. */
    const size_t pieces = g->c % LANES == 0 ? 1 : inside, count = g->c * (inside / (pieces > 0 ? pieces : 1));
    for (size_t part = 0; part < g->parts; part++) {
        const uint8_t *rows[STEP];
        for (size_t i = 0; i < g->each; i++) {
            const int64_t ky = (int64_t)(part * g->each + i), y = (int64_t)oy * l->sh - l->pt + ky;
            rows[i] = b->zeros;
            if (ky < l->kh && y >= 0 && y < src->h)
                rows[i] = (const uint8_t *)call->src + (image * (size_t)src->h + (size_t)y) * w * g->c;
        }
        uint8_t *const strip = b->strip + part * g->stride, *const to = strip + left * column;
        memset(strip, offset, left * column);
        for (size_t x = 0; x < pieces; x++)
            if (g->size == 1)
                interleave_bytes(rows, x * g->c, count, (uint8_t)offset, to + x * column);
            else
                interleave_words(rows, src->type, x * g->c, count, (int16_t *)(void *)(to + x * column));
        memset(to + inside * column, offset, (columns - left - inside) * column);
    }
}

typedef struct tile {
    const uint8_t *src; /* the first pixel's first column */
    size_t pixel, column, part; /* bytes from one pixel, column, part to the next */
    const uint8_t *weights;
    vec start;
} tile;

/* Accumulators of `pixels` pixels, one block. Inlined with constants. */
INLINE void multiply(const tile *t, size_t pixels, const size_t parts, const size_t kw, const size_t run, const int wide,
                     vec *acc) {
    for (size_t i = 0; i < pixels; i++) {
        vec a = t->start;
        sums s = sums_start(a);
        size_t left = run;
#pragma GCC unroll 2
        for (size_t part = 0; part < parts; part++)
#pragma GCC unroll 3
            for (size_t k = 0; k < kw; k++) {
                const vec x = vec_load(t->src + i * t->pixel + part * t->part + k * t->column);
                const vec w = vec_load(t->weights + (part * kw + k) * LANES * STEP);
                if (wide) {
                    a = vec_dot_words(a, x, w);
                    continue;
                }
                if (left-- == 0) {
                    a = sums_end(a, s);
                    s = sums_start(a);
                    left = run - 1;
                }
                s = sums_dot(s, x, w);
            }
        acc[i] = wide ? a : sums_end(a, s);
    }
}

static void run_row(const lbrt_call *call, const geometry *g, const parameters *p, const buffers *b, size_t row) {
    const size_t ow = (size_t)call->site.dst->w, kw = (size_t)call->site.layer->kw, steps = g->parts * kw;
    tile t;
    t.column = g->blocks * LANES * STEP;
    t.pixel = (size_t)call->site.layer->sw * t.column;
    t.part = g->stride;
    for (size_t x = 0, pixels; x < ow; x += pixels) {
        size_t pixel[PIXELS];
        pixels = ow - x < PIXELS ? ow - x : PIXELS;
        for (size_t k = 0; k < pixels; k++)
            pixel[k] = row * ow + x + k;
        for (size_t block = 0; block < g->blocks; block++) {
            vec acc[PIXELS];
            t.src = b->strip + x * t.pixel + block * LANES * STEP;
            t.weights = p->weights + block * steps * LANES * STEP;
            t.start = p->start[block];
            if (g->size == 1 && g->parts == 1 && kw == 3 && g->run >= 3)
                multiply(&t, pixels, 1, 3, SIZE_MAX, 0, acc);
            else if (g->size == 2 && g->parts == 2 && kw == 3)
                multiply(&t, pixels, 2, 3, 0, 1, acc);
            else if (g->size == 1)
                multiply(&t, pixels, g->parts, kw, g->run, 0, acc);
            else
                multiply(&t, pixels, g->parts, kw, 0, 1, acc);
            const patch at = patch_of(&call->site, 1, 0, block, pixel, pixels);
            finish_block(call, &p->finish, &at, acc, 1);
        }
    }
}

static void run(const lbrt_call *call) {
    const geometry g = geometry_of(&call->site);
    lbrt_carve prepared = {(uint8_t *)call->prepared, 0}, scratch = {call->scratch, 0};
    const parameters p = carve(&call->site, &prepared);
    const buffers b = buffers_carve(&call->site, &g, &scratch);
    const size_t oh = (size_t)call->site.dst->h;
    memset(b.zeros, 0, (size_t)call->site.src->w * g.c);
    for (size_t row = call->row0; row < call->row1; row++) {
        fill(call, &g, &b, row / oh, row % oh);
        run_row(call, &g, &p, &b, row);
    }
}

const lbrt_kernel LBRT_NAME(dot_depthwise) = {
    .name = "depthwise", .op = LBRT_OP_CONV, .accepts = accepts, .prepared_size = prepared_size, .prepare = prepare,
    .scratch_size = scratch_size, .run = run, .cost = cost};

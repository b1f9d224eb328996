/* Integer convolution, linear layers and groups included, as dot products of bytes or words.
 *
 * Source rows are copied, padding included, into a strip in which the inputs under one kernel row are one segment of kw * c
 * values. Weights are laid out in blocks of LANES output channels, each step holding 4 inputs (words: 2) per channel. Bytes are
 * stored as value + offset (stored.h), so accumulators start at -offset * sum(weights); they wrap in 32 bits, and the loader
 * has proven that the result fits.
 *
 * Weights that do not fit a signed byte are mul * s + add of stored ones s: then s - zero is multiplied, and rest = add + mul *
 * zero times the sum of the window's values added. Words are for sources that do not fit a byte, and for products whose sums do
 * not fit 16 bits where the instruction set adds them up so. */
#include "../epilogue.h"
#include "tile.h"

#define STRIP_BUDGET ((size_t)96 << 10) /* a strip takes as many output rows as fit: weights are read once per strip */
#define STRIP_LIMIT ((size_t)64 << 20) /* a hostile padding is ref's work */

typedef struct geometry {
    size_t groups, blocks; /* blocks of LANES output channels of each group */
    size_t c; /* inputs of a group */
    size_t size; /* bytes of a stored value */
    size_t steps; /* per kernel row */
    size_t columns; /* padded source pixels that a row of results needs */
    size_t stride; /* bytes of a strip's row */
    size_t rows; /* result rows per strip */
} geometry;

/* A sum of products of bytes to an accumulator: sum * mul + (the window's sum) * rest. */
typedef struct split {
    int32_t mul, zero, rest;
} split;

static split split_of(const lbrt_weights *w) {
    split s = {1, 0, 0};
    if (!weights_fit_byte(w)) {
        s.mul = w->mul;
        s.zero = 1 << (w->bits - 1);
        s.rest = w->add + w->mul * s.zero;
    }
    return s;
}

/* Steps of bytes whose products fit the sums; 0: this takes words. */
static size_t run_of(const lbrt_site *site) {
    const lbrt_weights *w = &site->layer->weights;
    const int32_t most = weights_fit_byte(w) ? magnitude(first_weight(w), last_weight(w)) : 1 << (w->bits - 1);
    return stored_run(site->src, most);
}

static geometry geometry_of(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    geometry g;
    g.groups = (size_t)l->groups;
    g.blocks = blocks_of(site, g.groups);
    g.c = (size_t)lbrt_view(site).c / g.groups;
    g.size = run_of(site) > 0 ? 1 : 2;
    g.steps = ((size_t)l->kw * g.c * g.size + STEP - 1) / STEP;
    g.columns = (size_t)(site->dst->w - 1) * (size_t)l->sw + (size_t)l->kw;
    /* The last step may read too much, and so may sum_window(). */
    g.stride = lbrt_size_add(lbrt_size_mul(g.columns, g.c * g.size), LANES * STEP + 63) / 64 * 64;
    const size_t sh = (size_t)l->sh, fit = STRIP_BUDGET / g.stride;
    g.rows = fit > (size_t)l->kh ? (fit - (size_t)l->kh) / sh + 1 : 1;
    if (g.rows > (size_t)site->dst->h)
        g.rows = (size_t)site->dst->h;
    return g;
}

static size_t strip_size(const lbrt_site *site, const geometry *g) {
    return lbrt_size_mul((g->rows - 1) * (size_t)site->layer->sh + (size_t)site->layer->kh, g->stride);
}

static int accepts(const lbrt_site *site) {
    const lbrt_tensor *src = site->src;
    if (site->layer->is_float || src->type == LBRT_F32 || lbrt_is_dilated(site->layer) || !strides_are_small(site))
        return 0;
    const geometry g = geometry_of(site);
    return (g.size == 1 || (src->lo >= INT16_MIN && src->hi <= INT16_MAX)) && strip_size(site, &g) <= STRIP_LIMIT;
}

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    return strip_size(site, &g);
}

static size_t cost(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    const size_t steps = lbrt_size_mul((size_t)site->layer->kh, g.steps);
    return lbrt_size_mul(g.groups * g.blocks, lbrt_size_add(steps, 11));
}

/* ---- What is prepared: arrays of whole blocks, so that channels beyond a group's last are zeros ----------------------- */

typedef struct parameters {
    int8_t *weights; /* (groups, blocks, kh, steps, LANES, STEP bytes) */
    vec *start; /* (groups, blocks) accumulators */
    finish finish;
    int16_t *unpacked; /* one channel, while preparing */
} parameters;

static parameters carve(const lbrt_site *site, lbrt_carve *at) {
    const lbrt_layer *l = site->layer;
    const geometry g = geometry_of(site);
    const size_t block = lbrt_size_mul((size_t)l->kh * g.steps, LANES * STEP), blocks = g.groups * g.blocks;
    parameters p;
    p.weights = lbrt_take(at, blocks, block);
    p.start = lbrt_take(at, blocks, sizeof *p.start);
    p.finish = finish_carve(site, g.groups, at);
    p.unpacked = lbrt_take(at, (size_t)lbrt_weights_per_channel(l, site->src), sizeof *p.unpacked);
    return p;
}

static size_t prepared_size(const lbrt_site *site) {
    lbrt_carve at = {NULL, 0};
    carve(site, &at);
    return at.used;
}

static void prepare(const lbrt_site *site, void *prepared) {
    const lbrt_layer *l = site->layer;
    const geometry g = geometry_of(site);
    const size_t kh = (size_t)l->kh, segment = (size_t)l->kw * g.c, oc = (size_t)site->dst->c / g.groups, each = STEP / g.size;
    const size_t row = lbrt_packed_bytes((int32_t)(kh * segment), l->weights.bits);
    const int whole = g.size > 1 || weights_fit_byte(&l->weights);
    const split s = split_of(&l->weights);
    const uint32_t offset = g.size == 1 ? (uint32_t)stored_offset(site->src) : 0;
    lbrt_carve at = {prepared, 0};
    const parameters p = carve(site, &at);
    memset(prepared, 0, at.used);
    for (size_t o = 0; o < (size_t)site->dst->c; o++) {
        const size_t block = o / oc * g.blocks + o % oc / LANES, lane = o % oc % LANES;
        int8_t *w = p.weights + block * kh * g.steps * LANES * STEP + lane * STEP;
        uint32_t sum = 0;
        lbrt_unpack(l, site->src, (int32_t)o, p.unpacked);
        for (size_t y = 0; y < kh; y++)
            for (size_t i = 0; i < segment; i++) {
                const uint8_t *packed = l->weights.packed + o * row;
                const int32_t v =
                    whole ? p.unpacked[y * segment + i] : lbrt_stored_weight(packed, y * segment + i, l->weights.bits) - s.zero;
                store_weight(w + (y * g.steps + i / each) * LANES * STEP + i % each * g.size, g.size, v);
                sum += (uint32_t)v;
            }
        /* Modulo 2^32, like the sums that start from it. */
        ((uint32_t *)&p.start[block])[lane] = 0u - offset * sum;
    }
    finish_prepare(site, g.groups, &p.finish);
}

/* ---- Running ----------------------------------------------------------------------------------------------------------- */

/* Source elements at.. of a tensor to `count` stored values. */
static void convert(const void *src, int32_t type, size_t at, size_t count, size_t size, int32_t offset, uint8_t *restrict to) {
    const uint8_t *restrict narrow = (const uint8_t *)src + at;
    const int32_t *restrict wide = (const int32_t *)src + at;
    if (size == 2) {
        lbrt_widen16(src, type, at, count, (int16_t *)(void *)to);
    } else if (type == LBRT_I32) {
        for (size_t i = 0; i < count; i++)
            to[i] = (uint8_t)(wide[i] + offset);
    } else if (offset == 0) {
        memcpy(to, narrow, count);
    } else {
        for (size_t i = 0; i < count; i++)
            to[i] = (uint8_t)(narrow[i] + offset);
    }
}

/* Copies the source rows under result rows oy.. of an image into the strip, padding filled with the code of 0. */
static void fill(const lbrt_call *call, const geometry *g, size_t group, size_t image, size_t oy, size_t rows,
                 uint8_t *restrict strip) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor view = lbrt_view(&call->site);
    const int32_t offset = g->size == 1 ? stored_offset(&view) : 0;
    const size_t columns = g->columns, w = (size_t)view.w, c = (size_t)view.c, pixel = g->c * g->size;
    const size_t left = (size_t)l->pl < columns ? (size_t)l->pl : columns, inside = columns - left < w ? columns - left : w;
    const size_t count = (rows - 1) * (size_t)l->sh + (size_t)l->kh;
    for (size_t i = 0; i < count; i++, strip += g->stride) {
        const int64_t y = (int64_t)oy * l->sh - l->pt + (int64_t)i;
        if (y < 0 || y >= view.h) {
            memset(strip, offset, columns * pixel);
            continue;
        }
        const size_t at = (image * (size_t)view.h + (size_t)y) * w * c + group * g->c;
        uint8_t *to = strip + left * pixel;
        memset(strip, offset, left * pixel);
        if (g->groups == 1)
            convert(call->src, view.type, at, inside * c, g->size, offset, to);
        else
            for (size_t x = 0; x < inside; x++)
                convert(call->src, view.type, at + x * c, g->c, g->size, offset, to + x * pixel);
        memset(to + inside * pixel, offset, (columns - left - inside) * pixel);
    }
}

/* LANES * STEP ones, and as many zeros. */
#define ONES_16 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
static const int8_t ones[128] = {ONES_16, ONES_16, ONES_16, ONES_16};

/* Sum of the stored values under a window of the strip, modulo 2^32: kh segments, `row` bytes apart. */
static uint32_t sum_window(const uint8_t *src, size_t row, size_t kh, size_t segment) {
    const size_t most = LANES * STEP;
    vec sum = vec_set(0);
    for (size_t y = 0; y < kh; y++, src += row)
        for (size_t i = 0; i < segment; i += most) {
            const size_t count = segment - i < most ? segment - i : most;
            sum = sums_end(sum, sums_dot(sums_start(sum), vec_load(src + i), vec_load(ones + 64 - count)));
        }
    return (uint32_t)vec_sum(sum);
}

/* Sums of products (pixels, blocks) of a tile to accumulators. */
static void complete(const split *s, const tile *t, size_t segment, int32_t offset, size_t pixels, size_t blocks, vec *acc) {
    const vec mul = vec_set(s->mul);
    const uint32_t extra = (uint32_t)offset * (uint32_t)(t->kh * segment);
    for (size_t i = 0; i < pixels; i++) {
        const uint32_t sum = sum_window(t->src + i * t->pixel, t->row, t->kh, segment) - extra;
        const vec add = vec_set((int32_t)(sum * (uint32_t)s->rest));
        for (size_t b = 0; b < blocks; b++)
            acc[i * blocks + b] = vec_add(vec_mul(acc[i * blocks + b], mul), add);
    }
}

/* The strip's `rows` result rows from row `row` of the batch, one group. */
static void run_group(const lbrt_call *call, const geometry *g, const parameters *p, size_t group, size_t row, size_t rows) {
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const size_t ow = (size_t)site->dst->w;
    const int wide = g->size > 1, byte = wide || weights_fit_byte(&l->weights);
    const split s = split_of(&l->weights);
    tile t;
    t.pixel = (size_t)l->sw * g->c * g->size;
    t.row = g->stride;
    t.kh = (size_t)l->kh;
    t.steps = g->steps;
    t.run = run_of(site);
    for (size_t block = 0, blocks; block < g->blocks; block += blocks) {
        const size_t first = group * g->blocks + block;
        blocks = tile_blocks(g->blocks - block);
        /* As few tiles per row as registers allow, all nearly as wide as each other. */
        const size_t most = tile_pixels(blocks), tiles = (ow + most - 1) / most;
        t.weights = p->weights + first * t.kh * t.steps * LANES * STEP;
        t.start = p->start + first;
        for (size_t y = 0; y < rows; y++)
            for (size_t i = 0; i < tiles; i++) {
                const size_t x = ow * i / tiles, pixels = ow * (i + 1) / tiles - x;
                vec acc[TILE_SUMS];
                size_t pixel[MAX_PIXELS];
                t.src = (const uint8_t *)call->scratch + y * (size_t)l->sh * g->stride + x * t.pixel;
                multiply_tile(&t, pixels, blocks, wide, acc);
                if (!byte)
                    complete(&s, &t, (size_t)l->kw * g->c, stored_offset(site->src), pixels, blocks, acc);
                for (size_t k = 0; k < pixels; k++)
                    pixel[k] = (row + y) * ow + x + k;
                for (size_t b = 0; b < blocks; b++) {
                    const patch at = patch_of(site, g->groups, group, block + b, pixel, pixels);
                    finish_block(call, &p->finish, &at, acc + b, blocks);
                }
            }
    }
}

static void run(const lbrt_call *call) {
    const geometry g = geometry_of(&call->site);
    lbrt_carve at = {(uint8_t *)call->prepared, 0};
    const parameters p = carve(&call->site, &at);
    const size_t oh = (size_t)call->site.dst->h;
    for (size_t row = call->row0, rows; row < call->row1; row += rows) {
        const size_t oy = row % oh;
        rows = call->row1 - row < oh - oy ? call->row1 - row : oh - oy;
        rows = rows < g.rows ? rows : g.rows;
        for (size_t group = 0; group < g.groups; group++) {
            fill(call, &g, group, row / oh, oy, rows, call->scratch);
            run_group(call, &g, &p, group, row, rows);
        }
    }
}

const lbrt_kernel LBRT_NAME(dot) = {"dot", LBRT_OP_CONV, accepts, prepared_size, prepare, scratch_size, run, cost};

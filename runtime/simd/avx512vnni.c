/* Integer convolution (groups == 1, linear layers included) for AVX-512 with VNNI: 8-bit sources.
 *
 * vpdpbusd multiplies unsigned by signed bytes and wraps in 32 bits, so sources are stored as value + offset (offset 128 for i8)
 * and accumulators start at -offset * sum(weights); the loader has proven that the result fits. Weights are laid out in blocks of
 * 16 output channels, each step holding 4 inputs per channel. Source rows are copied, padding included, into a strip in which the
 * inputs under one kernel row are one segment of kw * c bytes.
 *
 * Weights that do not fit a signed byte are mul * s + add of stored ones s: then s - zero is multiplied, and rest = add + mul *
 * zero times the sum of the window's values added. */
#include "vnni.h"

#define STRIP_BUDGET ((size_t)96 << 10) /* a strip takes as many output rows as fit: weights are read once per strip */
#define STRIP_LIMIT ((size_t)64 << 20) /* a hostile padding is ref's work */

typedef struct geometry {
    size_t c, oc, blocks; /* blocks of output channels */
    size_t steps; /* of 4 inputs per kernel row */
    size_t columns; /* padded source pixels that a row of results needs */
    size_t stride; /* bytes of a strip's row */
    size_t rows; /* result rows per strip */
} geometry;

static geometry geometry_of(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    geometry g;
    g.c = (size_t)lbrt_view(site).c;
    g.oc = (size_t)site->dst->c;
    g.blocks = (g.oc + LANES - 1) / LANES;
    g.steps = ((size_t)l->kw * g.c + 3) / 4;
    g.columns = (size_t)(site->dst->w - 1) * (size_t)l->sw + (size_t)l->kw;
    g.stride = lbrt_size_add(lbrt_size_mul(g.columns, g.c), 3 + 63) / 64 * 64; /* the last step may read 3 bytes too many */
    const size_t sh = (size_t)l->sh, fit = STRIP_BUDGET / g.stride;
    g.rows = fit > (size_t)l->kh ? (fit - (size_t)l->kh) / sh + 1 : 1;
    if (g.rows > (size_t)site->dst->h)
        g.rows = (size_t)site->dst->h;
    return g;
}

static size_t strip_size(const lbrt_site *site, const geometry *g) {
    return lbrt_size_mul((g->rows - 1) * (size_t)site->layer->sh + (size_t)site->layer->kh, g->stride);
}

static int fits_byte(const lbrt_weights *w) {
    const int32_t last = w->mul * ((1 << w->bits) - 1) + w->add;
    return w->add >= INT8_MIN && w->add <= INT8_MAX && last >= INT8_MIN && last <= INT8_MAX;
}

/* A sum of products of bytes to an accumulator: sum * mul + (the window's sum) * rest. */
typedef struct split {
    int32_t mul, zero, rest;
} split;

static split split_of(const lbrt_weights *w) {
    split s = {1, 0, 0};
    if (!fits_byte(w)) {
        s.mul = w->mul;
        s.zero = 1 << (w->bits - 1);
        s.rest = w->add + w->mul * s.zero;
    }
    return s;
}

static int accepts(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    if (l->is_float || l->groups != 1 || lbrt_is_dilated(l) || (site->src->type != LBRT_U8 && site->src->type != LBRT_I8))
        return 0;
    const geometry g = geometry_of(site);
    return strip_size(site, &g) <= STRIP_LIMIT;
}

/* ---- What is prepared: arrays of whole blocks, so that channels beyond oc are zeros ----------------------------------- */

typedef struct parameters {
    int8_t *weights; /* (blocks, kh, steps, 16, 4) */
    __m512i *start; /* (blocks) accumulators */
    finish finish;
    int16_t *unpacked; /* one channel, while preparing */
} parameters;

static parameters carve(const lbrt_site *site, lbrt_carve *at) {
    const lbrt_layer *l = site->layer;
    const geometry g = geometry_of(site);
    const size_t block = lbrt_size_mul((size_t)l->kh * g.steps, LANES * 4);
    parameters p;
    p.weights = lbrt_take(at, g.blocks, block);
    p.start = lbrt_take(at, g.blocks, sizeof *p.start);
    p.finish = finish_carve(site, at);
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
    const size_t kh = (size_t)l->kh, segment = (size_t)l->kw * g.c;
    const size_t row = lbrt_packed_bytes((int32_t)(kh * segment), l->weights.bits);
    const int byte = fits_byte(&l->weights);
    const split s = split_of(&l->weights);
    lbrt_carve at = {prepared, 0};
    const parameters p = carve(site, &at);
    memset(prepared, 0, at.used);
    for (size_t o = 0; o < g.oc; o++) {
        const size_t block = o / LANES, lane = o % LANES;
        int8_t *w = p.weights + block * kh * g.steps * LANES * 4 + lane * 4;
        int32_t sum = 0;
        lbrt_unpack(l, site->src, (int32_t)o, p.unpacked);
        for (size_t y = 0; y < kh; y++)
            for (size_t i = 0; i < segment; i++) {
                const uint8_t *packed = l->weights.packed + o * row;
                const int32_t v =
                    byte ? p.unpacked[y * segment + i] : lbrt_stored_weight(packed, y * segment + i, l->weights.bits) - s.zero;
                w[(y * g.steps + i / 4) * LANES * 4 + i % 4] = (int8_t)v;
                sum += v;
            }
        /* Modulo 2^32, like the sums that start from it. */
        ((uint32_t *)&p.start[block])[lane] = site->src->type == LBRT_I8 ? 0u - 128u * (uint32_t)sum : 0u;
    }
    finish_prepare(site, &p.finish);
}

/* ---- Running ----------------------------------------------------------------------------------------------------------- */

/* Copies the source rows under result rows oy.. of an image into the strip, padding filled with the code of 0. */
static void fill(const lbrt_call *call, const geometry *g, size_t image, int32_t oy, size_t rows, uint8_t *restrict strip) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor view = lbrt_view(&call->site);
    const uint8_t offset = view.type == LBRT_I8 ? 128 : 0;
    const size_t columns = g->columns, w = (size_t)view.w;
    const size_t left = (size_t)l->pl < columns ? (size_t)l->pl : columns, inside = columns - left < w ? columns - left : w;
    const size_t count = (rows - 1) * (size_t)l->sh + (size_t)l->kh;
    for (size_t i = 0; i < count; i++, strip += g->stride) {
        const int64_t y = (int64_t)oy * l->sh - l->pt + (int64_t)i;
        if (y < 0 || y >= view.h) {
            memset(strip, offset, columns * g->c);
            continue;
        }
        const uint8_t *restrict src = (const uint8_t *)call->src + (image * (size_t)view.h + (size_t)y) * w * g->c;
        uint8_t *restrict to = strip + left * g->c;
        memset(strip, offset, left * g->c);
        if (offset == 0)
            memcpy(to, src, inside * g->c);
        else
            for (size_t k = 0; k < inside * g->c; k++)
                to[k] = src[k] ^ offset; /* two's complement + 128 */
        memset(to + inside * g->c, offset, (columns - left - inside) * g->c);
    }
}

/* Sum of the values under a window of the strip, modulo 2^32: kh segments, `row` bytes apart. */
static uint32_t sum_window(const uint8_t *src, size_t row, size_t kh, size_t segment, uint32_t offset) {
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    for (size_t y = 0; y < kh; y++, src += row)
        for (size_t i = 0; i < segment; i += 64) {
            const __mmask64 mask = segment - i < 64 ? ((__mmask64)1 << (segment - i)) - 1 : ~(__mmask64)0;
            sum = _mm512_dpbusd_epi32(sum, _mm512_maskz_loadu_epi8(mask, src + i), ones);
        }
    return (uint32_t)_mm512_reduce_add_epi32(sum) - offset * (uint32_t)(kh * segment);
}

/* Sums of products (pixels, blocks) of a tile to accumulators. */
static void complete(const split *s, const tile *t, size_t segment, uint32_t offset, size_t pixels, size_t blocks, __m512i *acc) {
    const __m512i mul = _mm512_set1_epi32(s->mul);
    for (size_t i = 0; i < pixels; i++) {
        const uint32_t sum = sum_window(t->src + i * t->pixel, t->row, t->kh, segment, offset);
        const __m512i add = _mm512_set1_epi32((int32_t)(sum * (uint32_t)s->rest));
        for (size_t b = 0; b < blocks; b++)
            acc[i * blocks + b] = _mm512_add_epi32(_mm512_mullo_epi32(acc[i * blocks + b], mul), add);
    }
}

static void run(const lbrt_call *call) {
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const geometry g = geometry_of(site);
    lbrt_carve at = {(uint8_t *)call->prepared, 0};
    const parameters p = carve(site, &at);
    const size_t oh = (size_t)site->dst->h, ow = (size_t)site->dst->w;
    const int byte = fits_byte(&l->weights);
    const split s = split_of(&l->weights);
    uint8_t *strip = call->scratch;
    __m512i acc[MAX_PIXELS * 2];
    size_t at_pixel[MAX_PIXELS];
    tile t;
    t.pixel = (size_t)l->sw * g.c;
    t.row = g.stride;
    t.kh = (size_t)l->kh;
    t.steps = g.steps;
    for (size_t row = call->row0, rows; row < call->row1; row += rows) {
        const size_t oy = row % oh;
        rows = call->row1 - row < oh - oy ? call->row1 - row : oh - oy;
        rows = rows < g.rows ? rows : g.rows;
        fill(call, &g, row / oh, (int32_t)oy, rows, strip);
        for (size_t block = 0, blocks; block < g.blocks; block += blocks) {
            const size_t rest = g.blocks - block;
            blocks = rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
            /* As few tiles per row as registers allow, all nearly as wide as each other. */
            const size_t most = blocks == 4 ? 6 : 12, tiles = (ow + most - 1) / most;
            t.weights = p.weights + block * t.kh * t.steps * LANES * 4;
            t.start = p.start + block;
            for (size_t y = 0; y < rows; y++)
                for (size_t i = 0; i < tiles; i++) {
                    const size_t x = ow * i / tiles, pixels = ow * (i + 1) / tiles - x;
                    t.src = strip + y * (size_t)l->sh * g.stride + x * t.pixel;
                    multiply_tile(&t, pixels, blocks, acc);
                    if (!byte)
                        complete(&s, &t, (size_t)l->kw * g.c, site->src->type == LBRT_I8 ? 128 : 0, pixels, blocks, acc);
                    for (size_t k = 0; k < pixels; k++)
                        at_pixel[k] = (row + y) * ow + x + k;
                    for (size_t b = 0; b < blocks; b++)
                        finish_block(call, &p.finish, block + b, at_pixel, pixels, acc + b, blocks);
                }
        }
    }
}

static size_t cost(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    return g.blocks * ((size_t)site->layer->kh * g.steps + 11);
}

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    return strip_size(site, &g);
}

const lbrt_kernel lbrt_avx512_vnni = {"vnni", LBRT_OP_CONV, accepts, prepared_size, prepare, scratch_size, run, cost};

/* 3x3 convolution with stride 1 by Winograd's minimal filtering for AVX-512 with VNNI: few bits leave room in a byte for the
 * transforms, so that the result is exact. (A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016.)
 *
 * A tile of 2 x 4 results comes from 4 x 6 sources: F(2, 3) along the columns, F(4, 3) along the rows, 24 products per channel
 * instead of 72. Sources d, weights g and products n are transformed by
 *
 *     F(2, 3)   d0 - d2, d1 + d2, d2 - d1, d1 - d3
 *               2 g0, g0 + g1 + g2, g0 - g1 + g2, 2 g2
 *               2 y0 = n0 + n1 + n2, 2 y1 = n1 - n2 - n3
 *     F(4, 3)   4 d0 - 5 d2 + d4, -4 d1 - 4 d2 + d3 + d4, 4 d1 - 4 d2 - d3 + d4, -2 d1 - d2 + 2 d3 + d4, 2 d1 - d2 - 2 d3 + d4,
 *               4 d1 - 5 d3 + d5
 *               6 g0, -4 (g0 + g1 + g2), -4 (g0 - g1 + g2), g0 + 2 g1 + 4 g2, g0 - 2 g1 + 4 g2, 6 g2
 *               24 y0 = n0 + n1 + n2 + n3 + n4, 24 y1 = n1 - n2 + 2 (n3 - n4), 24 y2 = n1 + n2 + 4 (n3 + n4),
 *               24 y3 = n1 - n2 + 8 (n3 - n4) + 4 n5
 *
 * in whole numbers, and the results are divided by 48, which leaves no rest. */
#include "tile.h"

#define POSITIONS 24
#define ROWS 2 /* results of a tile */
#define COLUMNS 4
#define GROUP 16 /* tiles to transform before multiplying, if the image has as many */
#define CACHE ((size_t)2 << 20) /* larger weights come late from beyond the second level, at some 16 bytes per cycle */
#define SCRATCH_LIMIT ((size_t)64 << 20)

typedef struct geometry {
    size_t c, oc; /* channels, of the source filled up to a multiple of 16 */
    size_t blocks; /* of 16 output channels */
    size_t across; /* tiles of a row */
    size_t rows; /* tile rows of a group */
    size_t width; /* pixels of a strip's row */
} geometry;

static geometry geometry_of(const lbrt_site *site) {
    geometry g;
    g.c = ((size_t)site->src->c + 15) / 16 * 16;
    g.oc = (size_t)site->dst->c;
    g.blocks = (g.oc + LANES - 1) / LANES;
    g.across = ((size_t)site->dst->w + COLUMNS - 1) / COLUMNS;
    const size_t down = ((size_t)site->dst->h + ROWS - 1) / ROWS, fit = GROUP / g.across;
    g.rows = fit < 1 ? 1 : fit < down ? fit : down;
    g.width = g.across * COLUMNS + 2;
    return g;
}

/* Distances between two positions: never a power of two, or the 24 would fall into the same few lines of the cache. */
static size_t sources_step(const geometry *g, size_t tiles) { return ((tiles * g->c + 63) / 64 | 1) * 64; }
static size_t products_step(size_t tiles, size_t blocks) { return tiles * blocks | 1; }

typedef struct buffers {
    uint8_t *strip; /* (2 rows + 2, width, c) the sources, padding included */
    uint8_t *sources; /* (24, tiles, c) transformed */
    __m512i *products; /* (24, tiles, blocks at a time) */
} buffers;

static buffers buffers_carve(const geometry *g, lbrt_carve *at) {
    const size_t tiles = g->rows * g->across;
    buffers b;
    b.strip = lbrt_take(at, lbrt_size_mul(g->rows * ROWS + 2, g->width), g->c);
    b.sources = lbrt_take(at, POSITIONS, sources_step(g, tiles));
    b.products = lbrt_take(at, lbrt_size_mul(POSITIONS, products_step(tiles, TILE_BLOCKS)), sizeof(__m512i));
    return b;
}

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {NULL, 0};
    buffers_carve(&g, &at);
    return at.used;
}

/* Sums of the positive and negative factors of the sources in each transformed one. */
static const int32_t plus2[4] = {1, 2, 1, 1}, minus2[4] = {1, 0, 1, 1};
static const int32_t plus4[6] = {5, 2, 5, 3, 3, 5}, minus4[6] = {5, 8, 5, 3, 3, 5};

static int accepts(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    const lbrt_tensor *src = site->src;
    if (l->is_float || l->flat || l->groups != 1 || lbrt_is_dilated(l) || l->kh != 3 || l->kw != 3 || l->sh != 1 || l->sw != 1 ||
        src->type > LBRT_I8)
        return 0;
    /* Transformed weights are at most 12 * 3 * |w|, 12 = 4 * 3 and 3 along rows and columns. */
    const int32_t first = first_weight(&l->weights), last = last_weight(&l->weights);
    if (first < -3 || first > 3 || last < -3 || last > 3)
        return 0;
    const int32_t lo = src->lo < 0 ? src->lo : 0, hi = src->hi > 0 ? src->hi : 0;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 6; j++) {
            const int32_t plus = plus2[i] * plus4[j] + minus2[i] * minus4[j], minus = plus2[i] * minus4[j] + minus2[i] * plus4[j];
            if (plus * lo - minus * hi < INT8_MIN || plus * hi - minus * lo > INT8_MAX)
                return 0;
        }
    /* 48 times a result fits 32 bits. */
    const int64_t most = (int64_t)src->c * 27 * (hi > -lo ? hi : -lo);
    return most * 48 <= INT32_MAX && scratch_size(site) <= SCRATCH_LIMIT;
}

static size_t cost(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    const size_t down = ((size_t)site->dst->h + ROWS - 1) / ROWS, weights = lbrt_size_mul(POSITIONS * g.blocks * LANES, g.c);
    const size_t results = site->layer->epilogue.flags & LBRT_THRESHOLDS ? 160 : 260;
    const size_t each = g.blocks * (POSITIONS * g.c * 13 / 48 + results) + g.c * 2;
    size_t total = lbrt_size_mul(down * g.across, each);
    if (weights > CACHE)
        total = lbrt_size_add(total, lbrt_size_mul((down + g.rows - 1) / g.rows, weights) / 16);
    return total / ((size_t)site->dst->h * (size_t)site->dst->w);
}

/* ---- What is prepared ------------------------------------------------------------------------------------------------- */

typedef struct parameters {
    int8_t *weights; /* (24, blocks, c / 4, 16, 4) transformed */
    __m512i *start; /* (24, blocks) -128 times their sums: transformed sources are stored plus 128 */
    finish finish;
    int16_t *unpacked; /* one channel, while preparing */
} parameters;

static parameters carve(const lbrt_site *site, lbrt_carve *at) {
    const geometry g = geometry_of(site);
    parameters p;
    p.weights = lbrt_take(at, lbrt_size_mul(POSITIONS, g.blocks * LANES), g.c);
    p.start = lbrt_take(at, POSITIONS * g.blocks, sizeof *p.start);
    p.finish = finish_carve(site, 1, at);
    p.unpacked = lbrt_take(at, (size_t)lbrt_weights_per_channel(site->layer, site->src), sizeof *p.unpacked);
    return p;
}

static size_t prepared_size(const lbrt_site *site) {
    lbrt_carve at = {NULL, 0};
    carve(site, &at);
    return at.used;
}

/* The 24 transformed weights of one input channel; w (3, 3), `step` apart. */
static void transform_weights(const int16_t *w, size_t step, int32_t u[4][6]) {
    for (size_t j = 0; j < 3; j++) {
        const int32_t a = w[j * step], b = w[(3 + j) * step], c = w[(6 + j) * step];
        u[0][j] = 2 * a;
        u[1][j] = a + b + c;
        u[2][j] = a - b + c;
        u[3][j] = 2 * c;
    }
    for (size_t i = 0; i < 4; i++) {
        const int32_t a = u[i][0], b = u[i][1], c = u[i][2];
        u[i][0] = 6 * a;
        u[i][1] = -4 * (a + b + c);
        u[i][2] = -4 * (a - b + c);
        u[i][3] = a + 2 * b + 4 * c;
        u[i][4] = a - 2 * b + 4 * c;
        u[i][5] = 6 * c;
    }
}

static void prepare(const lbrt_site *site, void *prepared) {
    const geometry g = geometry_of(site);
    const size_t c = (size_t)site->src->c;
    lbrt_carve at = {prepared, 0};
    const parameters p = carve(site, &at);
    memset(prepared, 0, at.used);
    finish_prepare(site, 1, &p.finish);
    for (size_t o = 0; o < g.oc; o++) {
        const size_t block = o / LANES, lane = o % LANES;
        lbrt_unpack(site->layer, site->src, (int32_t)o, p.unpacked);
        for (size_t i = 0; i < c; i++) {
            int32_t u[4][6];
            transform_weights(p.unpacked + i, c, u);
            for (size_t k = 0; k < POSITIONS; k++) {
                const int32_t v = u[k / 6][k % 6];
                p.weights[((k * g.blocks + block) * g.c / STEP + i / STEP) * LANES * STEP + lane * STEP + i % STEP] = (int8_t)v;
                int32_t *start = (int32_t *)&p.start[k * g.blocks + block] + lane;
                *start = (int32_t)((uint32_t)*start - 128u * (uint32_t)v); /* wraps, as the sums it starts do */
            }
        }
    }
}

/* ---- Sources ----------------------------------------------------------------------------------------------------------- */

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint8_t bytes32 __attribute__((vector_size(32)));
typedef uint8_t bytes64 __attribute__((vector_size(64)));

#define VEC bytes16
#define NAME(name) name##_16
#include "winograd.inc.h"
#undef VEC
#undef NAME
#define VEC bytes32
#define NAME(name) name##_32
#include "winograd.inc.h"
#undef VEC
#undef NAME
#define VEC bytes64
#define NAME(name) name##_64
#include "winograd.inc.h"

/* Copies the source rows under result rows oy.. of an image, zeros for the padding and for what is beyond the image. */
static void fill(const lbrt_call *call, const geometry *g, size_t image, int32_t oy, size_t rows, uint8_t *restrict strip) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor *src = call->site.src;
    const size_t w = (size_t)src->w, c = (size_t)src->c, left = (size_t)l->pl < g->width ? (size_t)l->pl : g->width;
    const size_t inside = g->width - left < w ? g->width - left : w;
    for (size_t i = 0; i < rows * ROWS + 2; i++, strip += g->width * g->c) {
        const int64_t y = (int64_t)oy - l->pt + (int64_t)i;
        if (y < 0 || y >= src->h) {
            memset(strip, 0, g->width * g->c);
            continue;
        }
        const uint8_t *restrict from = (const uint8_t *)call->src + (image * (size_t)src->h + (size_t)y) * w * c;
        uint8_t *restrict to = strip + left * g->c;
        memset(strip, 0, left * g->c);
        if (c == g->c)
            memcpy(to, from, inside * c);
        else
            for (size_t x = 0; x < inside; x++) {
                memcpy(to + x * g->c, from + x * c, c);
                memset(to + x * g->c + c, 0, g->c - c);
            }
        memset(to + inside * g->c, 0, (g->width - left - inside) * g->c);
    }
}

static void transform_sources(const geometry *g, const buffers *b, size_t rows) {
    const size_t tiles = rows * g->across, position = sources_step(g, tiles), row = g->width * g->c;
    for (size_t t = 0; t < tiles; t++) {
        const uint8_t *src = b->strip + t / g->across * ROWS * row + t % g->across * COLUMNS * g->c;
        uint8_t *dst = b->sources + t * g->c;
        size_t i = 0;
        for (; i + 64 <= g->c; i += 64)
            transform_64(src + i, g->c, row, dst + i, position);
        if (i + 32 <= g->c) {
            transform_32(src + i, g->c, row, dst + i, position);
            i += 32;
        }
        if (i < g->c)
            transform_16(src + i, g->c, row, dst + i, position);
    }
}

/* ---- Results ----------------------------------------------------------------------------------------------------------- */

/* One tile and block: products n, `position` vectors apart, to 2 x 4 results. */
static void transform_results(const __m512i *n, size_t position, __m512i *y) {
    __m512i r[ROWS][6];
#pragma GCC unroll 6
    for (size_t j = 0; j < 6; j++) {
        const __m512i a = n[j * position], b = n[(6 + j) * position], c = n[(12 + j) * position], d = n[(18 + j) * position];
        r[0][j] = _mm512_add_epi32(_mm512_add_epi32(a, b), c);
        r[1][j] = _mm512_sub_epi32(_mm512_sub_epi32(b, c), d);
    }
    const __m512i third = _mm512_set1_epi32((int32_t)0xaaaaaaab); /* 1 / 3 modulo 2^32 */
#pragma GCC unroll 2
    for (size_t i = 0; i < ROWS; i++) {
        const __m512i *x = r[i], sum = _mm512_add_epi32(x[1], x[2]), difference = _mm512_sub_epi32(x[1], x[2]);
        const __m512i sum2 = _mm512_add_epi32(x[3], x[4]), difference2 = _mm512_sub_epi32(x[3], x[4]);
        __m512i *v = y + i * COLUMNS;
        v[0] = _mm512_add_epi32(_mm512_add_epi32(x[0], sum), sum2);
        v[1] = _mm512_add_epi32(difference, _mm512_slli_epi32(difference2, 1));
        v[2] = _mm512_add_epi32(sum, _mm512_slli_epi32(sum2, 2));
        v[3] = _mm512_add_epi32(difference, _mm512_slli_epi32(_mm512_add_epi32(_mm512_slli_epi32(difference2, 1), x[5]), 2));
#pragma GCC unroll 4
        for (size_t j = 0; j < COLUMNS; j++)
            v[j] = _mm512_mullo_epi32(_mm512_srai_epi32(v[j], 4), third);
    }
}

/* The results of a group's tiles that are inside the result rows row.. , `rows` tile rows, and before row `end`. */
static void store_results(const lbrt_call *call, const geometry *g, const parameters *p, const buffers *b, size_t block,
                          size_t blocks, size_t row, size_t rows, size_t end) {
    const size_t ow = (size_t)call->site.dst->w, tiles = rows * g->across;
    for (size_t t = 0; t < tiles; t++) {
        const size_t y0 = row + t / g->across * ROWS, x0 = t % g->across * COLUMNS;
        const int whole = y0 + ROWS <= end && x0 + COLUMNS <= ow;
        for (size_t k = 0; k < blocks; k++) {
            __m512i y[ROWS * COLUMNS];
            size_t pixel[ROWS * COLUMNS], count = 0;
            transform_results(b->products + t * blocks + k, products_step(tiles, blocks), y);
            for (size_t i = 0; i < ROWS * COLUMNS; i++)
                if (whole)
                    pixel[count++] = (y0 + i / COLUMNS) * ow + x0 + i % COLUMNS;
                else if (y0 + i / COLUMNS < end && x0 + i % COLUMNS < ow) {
                    pixel[count] = (y0 + i / COLUMNS) * ow + x0 + i % COLUMNS;
                    y[count++] = y[i];
                }
            const patch at = patch_of(&call->site, 1, 0, block + k, pixel, count);
            finish_block(call, &p->finish, &at, y, 1);
        }
    }
}

static void multiply_group(const geometry *g, const parameters *p, const buffers *b, size_t block, size_t blocks, size_t tiles) {
    const size_t most = tile_pixels(blocks), parts = (tiles + most - 1) / most;
    tile t;
    t.pixel = g->c;
    t.row = 0;
    t.kh = 1;
    t.steps = g->c / STEP;
    t.run = SIZE_MAX;
    for (size_t k = 0; k < POSITIONS; k++) {
        t.weights = p->weights + (k * g->blocks + block) * t.steps * LANES * STEP;
        t.start = p->start + k * g->blocks + block;
        for (size_t i = 0; i < parts; i++) {
            const size_t first = tiles * i / parts, count = tiles * (i + 1) / parts - first;
            t.src = b->sources + k * sources_step(g, tiles) + first * g->c;
            multiply_tile(&t, count, blocks, 0, b->products + k * products_step(tiles, blocks) + first * blocks);
        }
    }
}

static void run(const lbrt_call *call) {
    const lbrt_site *site = &call->site;
    const geometry g = geometry_of(site);
    lbrt_carve prepared = {(uint8_t *)call->prepared, 0}, scratch = {call->scratch, 0};
    const parameters p = carve(site, &prepared);
    const buffers b = buffers_carve(&g, &scratch);
    const size_t oh = (size_t)site->dst->h;
    for (size_t row = call->row0, count; row < call->row1; row += count) {
        const size_t oy = row % oh, most = call->row1 - row < oh - oy ? call->row1 - row : oh - oy;
        const size_t need = (most + ROWS - 1) / ROWS, rows = need < g.rows ? need : g.rows;
        count = rows * ROWS < most ? rows * ROWS : most;
        fill(call, &g, row / oh, (int32_t)oy, rows, b.strip);
        transform_sources(&g, &b, rows);
        for (size_t block = 0, blocks; block < g.blocks; block += blocks) {
            blocks = tile_blocks(g.blocks - block);
            multiply_group(&g, &p, &b, block, blocks, rows * g.across);
            store_results(call, &g, &p, &b, block, blocks, row, rows, row + count);
        }
    }
}

const lbrt_kernel LBRT_NAME(winograd) = {
    .name = "winograd", .op = LBRT_OP_CONV, .accepts = accepts, .prepared_size = prepared_size, .prepare = prepare,
    .scratch_size = scratch_size, .run = run, .cost = cost};

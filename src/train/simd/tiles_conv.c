#include "train/simd/tiles.h"
#include "train/simd/tile.h"

/* The input rows of a band of results are copied to a strip with padding; in it a row of the kernel is one run of kw * ic numbers
 * for every result, so that 32 of them for 16 results are one register: rows `sw * ic` numbers apart. Runs are filled up by
 * weights of zero. Where that takes fewer registers, results count on linearly over the padding at the rows' ends. */
enum { RESULTS = 16, STEP = 32, BLOCK = RESULTS * STEP /* weights of a register */, TILES = 4, MAX_TILES = 64, STRIP = 24 << 10, SUMS = TILES * RESULTS * RESULTS };

typedef struct plan {
    size_t pitch;              /* pixels of a strip row */
    size_t left;               /* of them, zeros before the source's first */
    size_t gap_y, gap_x;       /* source rows, pixels from one strip row, pixel to the next */
    size_t sh, sw;             /* in the strip */
    size_t wide;               /* pixels copied per row */
    size_t rows, images;       /* result rows of a band; whole images of a band, if all of their rows fit */
    size_t strip_rows;         /* of an image's part of the band */
    size_t line;               /* results from one result row to the next */
    size_t across;             /* registers per result row; 0: results count on from row to row */
    size_t tiles;              /* registers of results of an image's part of the band */
    size_t steps;              /* registers of a run */
} plan;

static size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t strip_bytes(const lb_tiles_dims *d, const plan *p) {
    /* behind it, what the last results' runs and the registers' unused rows read */
    const size_t behind = (RESULTS * p->sw + (size_t)d->kw + p->left + p->pitch) * (size_t)d->ic + STEP;
    return ((p->images * p->strip_rows * p->pitch * (size_t)d->ic + behind) * 2 + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN;
}

/* For a band of `rows` result rows of an image. */
static void plan_rows(const lb_tiles_dims *d, plan *p, size_t rows) {
    const size_t ow = (size_t)d->ow;
    p->rows = rows;
    p->strip_rows = (rows - 1) * p->sh + (size_t)d->kh;
    const size_t by_rows = rows * divide_up(ow, RESULTS), on = divide_up((rows - 1) * p->pitch + ow, RESULTS);
    p->across = p->sh == p->sw && on < by_rows ? 0 : divide_up(ow, RESULTS);
    p->tiles = p->across ? by_rows : on;
    p->line = p->across ? p->across * RESULTS : p->pitch;
}

static plan make_plan(const lb_tiles_dims *d) {
    const bool point = d->kh == 1 && d->kw == 1; /* only the pixels that matter are copied */
    plan p = {.sh = point ? 1 : (size_t)d->sh, .sw = point ? 1 : (size_t)d->sw, .images = 1};
    p.gap_y = point ? (size_t)d->sh : 1;
    p.gap_x = point ? (size_t)d->sw : 1;
    p.left = (size_t)d->pl;
    const size_t reach = ((size_t)d->ow - 1) * p.sw + (size_t)d->kw; /* the zeros on the left of the next row are on the right too */
    p.wide = smaller(divide_up((size_t)d->iw, p.gap_x), reach - smaller(reach, p.left));
    p.pitch = larger(p.left + p.wide, reach - smaller(reach, p.left));
    p.steps = divide_up((size_t)d->kw * (size_t)d->ic, STEP);
    const size_t row = p.pitch * (size_t)d->ic * 2, oh = (size_t)d->oh, fit = STRIP / row;
    size_t rows = fit > (size_t)d->kh ? (fit - (size_t)d->kh) / p.sh + 1 : 1;
    const size_t weights = (size_t)d->kh * p.steps * BLOCK * 2 * 2; /* of 32 output channels: read again for each band */
    if (weights > STRIP)
        rows = larger(rows, divide_up(16 * RESULTS, (size_t)d->ow));
    rows = larger(1, smaller(oh, rows));
    plan_rows(d, &p, divide_up(oh, divide_up(oh, rows)));
    while (p.rows > 1 && p.tiles > MAX_TILES)
        plan_rows(d, &p, p.rows - 1);
    if (p.rows == oh)
        while (p.images < (size_t)d->mb && (p.images + 1) * p.tiles <= MAX_TILES / 2 &&
               ((p.images + 1) * p.strip_rows * row <= STRIP || (weights > STRIP && p.images * p.tiles < 16)))
            p.images++;
    return p;
}

static size_t bands_down(const lb_tiles_dims *d, const plan *p) { return divide_up((size_t)d->oh, p->rows); }

static size_t LB_NAME(bands)(const lb_tiles_dims *d) {
    const plan p = make_plan(d);
    return bands_down(d, &p) * divide_up((size_t)d->mb, p.images);
}

/* ---- Weights: (oc / 16, kh, steps) registers, each (16, 16 output channels, 2) --------------------------------------------- */

static size_t LB_NAME(weights_size)(const lb_tiles_dims *d) {
    return (size_t)d->oc * (size_t)d->kh * divide_up((size_t)d->kw * (size_t)d->ic, STEP) * STEP * 2;
}

static void LB_NAME(weights)(const lb_tiles_dims *d, const float *w, int first, void *to) {
    const size_t run = (size_t)d->kw * (size_t)d->ic, kh = (size_t)d->kh, steps = divide_up(run, STEP);
    uint16_t *out = (uint16_t *)to + (size_t)first * kh * steps * STEP;
    for (size_t y = 0; y < kh; y++)
        for (size_t k = 0; k < steps; k++, out += BLOCK)
            for (size_t o = 0; o < RESULTS; o++) {
                const float *from = w + (((size_t)first + o) * kh + y) * run + k * STEP;
                const size_t n = smaller(STEP, run - k * STEP);
                for (size_t i = 0; i < STEP; i++)
                    out[i / 2 * RESULTS * 2 + o * 2 + i % 2] = i < n ? lb_bf16_put(from[i]) : 0;
            }
}

/* The kernel turned by half a circle, its input and output channels exchanged. */
static void LB_NAME(turned)(const lb_tiles_dims *d, const float *w, int first, void *to) {
    const size_t ic = (size_t)d->ic, kh = (size_t)d->kh, kw = (size_t)d->kw, run = kw * ic, steps = divide_up(run, STEP);
    uint16_t *out = (uint16_t *)to + (size_t)first * kh * steps * STEP;
    for (size_t y = 0; y < kh; y++, out += steps * STEP * RESULTS)
        for (size_t i = 0; i < steps * STEP; i++) {
            uint16_t *row = out + i / 2 * RESULTS * 2 + i % 2;
            const size_t x = i / ic, c = i % ic;
            const float *from = w + ((c * kh + kh - 1 - y) * kw + kw - 1 - smaller(x, kw - 1)) * (size_t)d->oc + (size_t)first;
            for (size_t o = 0; o < RESULTS; o++)
                row[2 * o] = x < kw ? lb_bf16_put(from[o]) : 0;
        }
}

/* ---- The strip -------------------------------------------------------------------------------------------------------- */

/* The source rows of result rows y .. of image n; zeros are there already. */
static void fill_strip(const lb_tiles_dims *d, const plan *p, const uint16_t *src, size_t n, size_t y, uint16_t *strip) {
    const size_t ic = (size_t)d->ic, ih = (size_t)d->ih, row = p->pitch * ic;
    strip += p->left * ic;
    for (size_t r = 0; r < p->strip_rows; r++, strip += row) {
        const size_t from = (y * p->sh + r) * p->gap_y; /* pt too large */
        if (from < (size_t)d->pt || from - (size_t)d->pt >= ih || n >= (size_t)d->mb) {
            memset(strip, 0, p->wide * ic * 2);
            continue;
        }
        const uint16_t *pixels = src + (n * ih + from - (size_t)d->pt) * (size_t)d->iw * ic;
        if (p->gap_x == 1)
            memcpy(strip, pixels, p->wide * ic * 2);
        else
            for (size_t x = 0; x < p->wide; x++)
                memcpy(strip + x * ic, pixels + x * p->gap_x * ic, ic * 2);
    }
}

/* ---- Products --------------------------------------------------------------------------------------------------------- */

typedef struct product {
    const uint16_t *a[TILES];  /* sources of the first kernel row of 16 results each */
    size_t result, row;        /* bytes from one result's to the next; numbers from one kernel row to the next */
    const uint16_t *b, *b2;    /* weights of 16 output channels each */
    size_t kh, steps;
    float *sums;               /* (4, 16, 16) */
} product;

/* Four times 16 results of 16 channels. */
static void narrow(const product *p) {
    const ptrdiff_t result = (ptrdiff_t)p->result;
    const uint16_t *b = p->b;
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (size_t y = 0; y < p->kh; y++)
        for (size_t k = 0, at = y * p->row; k < p->steps; k++, at += STEP, b += BLOCK) {
            tile_load(6, b, 64);
            tile_load(4, p->a[0] + at, result);
            tile_dot_bf16(0, 4, 6);
            tile_load(5, p->a[1] + at, result);
            tile_dot_bf16(1, 5, 6);
            tile_load(7, p->a[2] + at, result);
            tile_dot_bf16(2, 7, 6);
            tile_load(4, p->a[3] + at, result);
            tile_dot_bf16(3, 4, 6);
        }
    tile_store(0, p->sums, 64);
    tile_store(1, p->sums + 256, 64);
    tile_store(2, p->sums + 512, 64);
    tile_store(3, p->sums + 768, 64);
}

/* Twice 16 results of 32 channels: sums (2 results, 2 channels, 16, 16). */
static void square(const product *p) {
    const ptrdiff_t result = (ptrdiff_t)p->result;
    const uint16_t *b = p->b, *b2 = p->b2;
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (size_t y = 0; y < p->kh; y++)
        for (size_t k = 0, at = y * p->row; k < p->steps; k++, at += STEP, b += BLOCK, b2 += BLOCK) {
            tile_load(6, b, 64);
            tile_load(4, p->a[0] + at, result);
            tile_dot_bf16(0, 4, 6);
            tile_load(7, b2, 64);
            tile_dot_bf16(1, 4, 7);
            tile_load(5, p->a[1] + at, result);
            tile_dot_bf16(2, 5, 6);
            tile_dot_bf16(3, 5, 7);
        }
    tile_store(0, p->sums, 64);
    tile_store(1, p->sums + 256, 64);
    tile_store(2, p->sums + 512, 64);
    tile_store(3, p->sums + 768, 64);
}

/* ---- Results ---------------------------------------------------------------------------------------------------------- */

#if defined(LB_ISA_amx)
LB_INLINE void round_two(uint16_t *to, const float *a, const float *b) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(b), _mm512_loadu_ps(a)));
}
LB_INLINE void round_one(uint16_t *to, const float *a) {
    _mm256_storeu_si256((__m256i *)(void *)to, (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(a)));
}
#else
LB_INLINE void round_one(uint16_t *to, const float *a) {
    for (int i = 0; i < RESULTS; i++)
        to[i] = lb_bf16_put(a[i]);
}
LB_INLINE void round_two(uint16_t *to, const float *a, const float *b) {
    round_one(to, a);
    round_one(to + RESULTS, b);
}
#endif

/* Where the results of a register are. */
typedef struct spot {
    size_t pixel;              /* of the strip, that of the first one */
    size_t row, x;             /* the first one in the band */
} spot;

static void find_spots(const plan *p, spot *spots) {
    for (size_t tile = 0; tile < p->tiles; tile++) {
        const size_t at = tile * RESULTS, row = at / p->line, x = at % p->line;
        spots[tile] = (spot){.pixel = row * p->sh * p->pitch + x * p->sw, .row = row, .x = x};
    }
}

/* The results of a band of `rows` rows; dst: its first. second: sums of 16 more channels, or NULL. */
static void store_results(const lb_tiles_dims *d, const plan *p, const spot *at, size_t rows, const float *sums, const float *second,
                          uint16_t *dst) {
    const size_t ow = (size_t)d->ow, oc = (size_t)d->oc;
    for (size_t i = 0, row = at->row, x = at->x; i < RESULTS && row < rows; row++, x = 0) {
        const size_t count = smaller(RESULTS - i, p->line - x), end = i + (x < ow ? smaller(count, ow - x) : 0), next = i + count;
        uint16_t *to = dst + (row * ow + x) * oc;
        if (second)
            for (; i < end; i++, to += oc)
                round_two(to, sums + i * RESULTS, second + i * RESULTS);
        else if (oc == RESULTS)
            for (; i + 1 < end; i += 2, to += 2 * oc)
                round_two(to, sums + i * RESULTS, sums + (i + 1) * RESULTS);
        for (; i < end; i++, to += oc)
            round_one(to, sums + i * RESULTS);
        i = next;
    }
}

/* ---- Bands ------------------------------------------------------------------------------------------------------------ */

typedef struct workspace {
    spot *spots;
    float *sums;               /* of one step of products */
    uint16_t *strip;           /* zeros in all the padding */
} workspace;

static size_t spot_bytes(void) { return (MAX_TILES * sizeof(spot) + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN; }

static workspace divide(const plan *p, void *scratch) {
    unsigned char *at = scratch;
    const workspace w = {(void *)at, (void *)(at + spot_bytes()), (void *)(at + spot_bytes() + SUMS * sizeof(float))};
    find_spots(p, w.spots);
    return w;
}

static size_t LB_NAME(scratch)(const lb_tiles_dims *d) {
    const plan p = make_plan(d);
    return spot_bytes() + SUMS * sizeof(float) + strip_bytes(d, &p);
}

/* Images first .., result rows y .. */
static void band(const lb_tiles_dims *d, const plan *p, size_t first, size_t y, const uint16_t *src, const uint16_t *weights,
                 uint16_t *dst, const workspace *w) {
    const size_t ic = (size_t)d->ic, oc = (size_t)d->oc, oh = (size_t)d->oh, image = oh * (size_t)d->ow * oc;
    const size_t images = smaller(p->images, (size_t)d->mb - first), rows = smaller(p->rows, oh - y), all = images * p->tiles;
    const size_t strip = p->strip_rows * p->pitch * ic, block = (size_t)d->kh * p->steps * BLOCK;
    for (size_t i = 0; i < images; i++)
        fill_strip(d, p, src, first + i, y, w->strip + i * strip);
    dst += first * image + y * (size_t)d->ow * oc;
    product job = {.result = p->sw * ic * 2, .row = p->pitch * ic, .kh = (size_t)d->kh, .steps = p->steps, .sums = w->sums};
    for (size_t o = 0; o < oc; o += 2 * RESULTS) {
        const bool two = o + RESULTS < oc;
        const size_t group = two ? TILES / 2 : TILES;
        job.b = weights + o / RESULTS * block;
        job.b2 = job.b + block;
        for (size_t t = 0, n = 0, tile = 0; t < all; t += group) {
            size_t image_of[TILES];
            const spot *spots[TILES];
            for (size_t i = 0; i < group; i++) {
                spots[i] = &w->spots[tile];
                image_of[i] = n;
                job.a[i] = w->strip + n * strip + spots[i]->pixel * ic;
                if (t + i + 1 == all) /* beyond the last: that one again */
                    continue;
                if (++tile == p->tiles) {
                    tile = 0;
                    n++;
                }
            }
            if (two)
                square(&job);
            else
                narrow(&job);
            for (size_t i = 0; i < group && t + i < all; i++) {
                const float *sums = w->sums + i * (two ? 2 : 1) * RESULTS * RESULTS;
                store_results(d, p, spots[i], rows, sums, two ? sums + RESULTS * RESULTS : NULL, dst + image_of[i] * image + o);
            }
        }
    }
}

static void LB_NAME(conv)(const lb_tiles_dims *d, size_t first, size_t last, const void *src, const void *weights, void *dst,
                          void *scratch) {
    const plan p = make_plan(d);
    const size_t down = bands_down(d, &p);
    const workspace w = divide(&p, scratch);
    memset(w.strip, 0, strip_bytes(d, &p));
    tiles_begin();
    for (size_t i = first; i < last; i++)
        band(d, &p, i / down * p.images, i % down * p.rows, src, weights, dst, &w);
    tiles_end();
}

const lb_tiles_conv LB_NAME(lb_tiles_conv) = {
    .isa = LB_STRING(LB_ISA),
    .weights_size = LB_NAME(weights_size),
    .weights = LB_NAME(weights),
    .turned = LB_NAME(turned),
    .bands = LB_NAME(bands),
    .conv = LB_NAME(conv),
    .scratch = LB_NAME(scratch),
};

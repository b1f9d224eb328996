#include "train/simd/tiles.h"
#include "train/simd/tile.h"

/* Source rows are copied to a strip with padding whose pixels have a multiple of 32 numbers, so that registers are loaded from
 * whole cache lines (one across two costs as much as three): rows of a register are results, each with 32 numbers of a pixel.
 *
 *     plain     the pixel's channels, a multiple of 32
 *     pairs     those of the pixel and of the one below, 16 or 48 .. each; kernel rows go by two
 *     runs      all that a kernel row of the result at that place needs, at most 32 numbers: first layers
 *
 * Where it takes fewer registers, results count on over the padding at the ends of rows. */
enum { RESULTS = 16, STEP = LB_TILES_RUN, BLOCK = RESULTS * STEP /* weights of a register */ };
enum { TILES = 4, SUMS = TILES * RESULTS * RESULTS }; /* of results at a time */
enum { MAX_TILES = 64 };   /* of a band, unless one row has more */
enum { STRIP = 24 << 10 }; /* bytes that leave the first-level cache room for the rest */

typedef enum pixels { PLAIN, PAIRS, RUNS } pixels;

typedef struct plan {
    pixels pixels;
    size_t c;                  /* numbers of a strip's pixel */
    size_t kh, kw, sh, sw;     /* the kernel and its strides in the strip */
    size_t down;               /* strip rows from one of its rows to the next */
    size_t gap_y, gap_x;       /* source rows, pixels from one of the strip to the next */
    size_t pitch, left, wide;  /* pixels of a strip row; zeros on the left, then source pixels */
    size_t rows, images;       /* result rows of a band; or whole images of a band, if all of their rows fit */
    size_t strip_rows;         /* of an image's part of the band */
    size_t line;               /* results from one result row to the next */
    size_t tiles;              /* registers of results of an image's part of the band */
} plan;

static size_t strip_bytes(const plan *p) {
    /* behind it, what the last results' kernels and the registers' unused rows reach */
    const size_t behind = RESULTS * p->sw + p->kw + p->left + 2 * p->pitch;
    return (p->images * p->strip_rows * p->pitch + behind) * p->c * 2;
}

/* For a band of `rows` result rows of an image. */
static void plan_rows(const lb_tiles_dims *d, plan *p, size_t rows) {
    const size_t ow = (size_t)d->ow, by_rows = rows * tiles_ceil_div(ow, RESULTS);
    const size_t on = tiles_ceil_div((rows - 1) * p->pitch + ow, RESULTS);
    const bool count_on = p->sh == p->sw && on < by_rows;
    p->rows = rows;
    p->strip_rows = (rows - 1) * p->sh + (p->kh - 1) * p->down + 1;
    p->tiles = count_on ? on : by_rows;
    p->line = count_on ? p->pitch : tiles_ceil_div(ow, RESULTS) * RESULTS;
}

/* What a strip's pixel holds, and kernel and strides over such pixels. */
static plan plan_pixels(const lb_tiles_dims *d) {
    const size_t ic = (size_t)d->ic, kh = (size_t)d->kh, kw = (size_t)d->kw;
    const bool point = kh == 1 && kw == 1; /* only the pixels that matter are copied */
    plan p = {.pixels = ic % STEP == 0 ? PLAIN : ic % RESULTS == 0 ? PAIRS : RUNS, .down = 1, .gap_y = 1, .gap_x = 1, .images = 1,
              .c = ic, .kh = kh, .kw = kw, .sh = (size_t)d->sh, .sw = (size_t)d->sw, .left = (size_t)d->pl};
    if (p.pixels == PAIRS) {
        p.c = 2 * ic;
        p.kh = tiles_ceil_div(kh, 2);
        p.down = 2;
    }
    if (p.pixels == RUNS || point) {
        p.gap_x = p.sw;
        p.sw = 1;
    }
    if (point) {
        p.gap_y = p.sh;
        p.sh = 1;
    }
    if (p.pixels == RUNS) {
        p.c = STEP;
        p.kw = 1;
        p.left = 0;
    }
    return p;
}

/* The pixels of a strip's row. The zeros on the left of the next row are on the right too. */
static void plan_row(const lb_tiles_dims *d, plan *p) {
    if (p->pixels == RUNS) {
        p->pitch = (size_t)d->ow;
        return;
    }
    const size_t reach = ((size_t)d->ow - 1) * p->sw + p->kw, right = reach - LB_MIN(reach, p->left);
    p->wide = LB_MIN(tiles_ceil_div((size_t)d->iw, p->gap_x), right);
    p->pitch = LB_MAX(p->left + p->wide, right);
}

/* How many rows or images make a band: as many as the strip's bytes allow, and more where the weights are large, since each band
 * reads them again. Bands of an image are equally high, as far as that goes. */
static void plan_band(const lb_tiles_dims *d, plan *p) {
    const size_t oh = (size_t)d->oh, ow = (size_t)d->ow, row = p->pitch * p->c * 2;
    const bool heavy = p->kh * p->kw * p->c * 2 * RESULTS * 2 > STRIP; /* the weights of 32 output channels */
    const size_t fit = STRIP / row, beside = (p->kh - 1) * p->down + 1;
    size_t rows = fit > beside ? (fit - beside) / p->sh + 1 : 1;
    if (heavy)
        rows = LB_MAX(rows, tiles_ceil_div(16 * RESULTS, ow));
    rows = LB_MAX((size_t)1, LB_MIN(oh, rows));
    plan_rows(d, p, tiles_ceil_div(oh, tiles_ceil_div(oh, rows)));
    while (p->rows > 1 && p->tiles > MAX_TILES)
        plan_rows(d, p, p->rows - 1);
    while (p->rows == oh && p->images < (size_t)d->mb && (p->images + 1) * p->tiles <= MAX_TILES / 2 &&
           ((p->images + 1) * p->strip_rows * row <= STRIP || (heavy && p->images * p->tiles < 16)))
        p->images++;
}

static plan make_plan(const lb_tiles_dims *d) {
    plan p = plan_pixels(d);
    plan_row(d, &p);
    plan_band(d, &p);
    return p;
}

/* ---- Weights: (oc / 16) times the strip's (kh, kw, c / 32) registers, each (16, 16 output channels, 2) --------------------- */

static size_t filter_size(const plan *p) { return p->kh * p->kw * p->c; }

static size_t LB_NAME(weights_size)(const lb_tiles_dims *d) {
    const plan p = make_plan(d);
    return (size_t)d->oc * filter_size(&p) * 2;
}

/* Where number i of a filter in the strip's order is in a filter (kh, kw, ic); larger than that: nowhere, it is zero. */
static size_t find_weight(const lb_tiles_dims *d, const plan *p, size_t i) {
    const size_t ic = (size_t)d->ic, kh = (size_t)d->kh, kw = (size_t)d->kw, none = kh * kw * ic;
    size_t c = i % p->c, x = i / p->c % p->kw, y = i / p->c / p->kw * p->down;
    if (p->pixels == PAIRS) {
        y += c / ic;
        c %= ic;
    } else if (p->pixels == RUNS) {
        x = c / ic;
        c %= ic;
    }
    return y < kh && x < kw ? (y * kw + x) * ic + c : none;
}

/* A row of a register: 16 numbers of each, alternating. */
LB_INLINE void put_pair(uint16_t *row, const float *even, const float *odd) {
#if defined(LB_ISA_amx)
    _mm512_storeu_si512(row, tiles_alternate((__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(odd), _mm512_loadu_ps(even))));
#else
    for (int o = 0; o < RESULTS; o++) {
        row[2 * o] = lb_bf16_put(even[o]);
        row[2 * o + 1] = lb_bf16_put(odd[o]);
    }
#endif
}

static void LB_NAME(weights)(const lb_tiles_dims *d, const float *w, int first, void *to) {
    const plan p = make_plan(d);
    const size_t filter = (size_t)d->kh * (size_t)d->kw * (size_t)d->ic, size = filter_size(&p);
    uint16_t *out = (uint16_t *)to + (size_t)first * size;
    for (size_t i = 0; i < size; i += 2, out += 2 * RESULTS) {
        float pair[2][RESULTS] = {{0}};
        for (size_t k = 0; k < 2; k++) {
            const size_t from = find_weight(d, &p, i + k);
            for (size_t o = 0; from < filter && o < RESULTS; o++)
                pair[k][o] = w[((size_t)first + o) * filter + from];
        }
        put_pair(out, pair[0], pair[1]);
    }
}

static void LB_NAME(turned)(const lb_tiles_dims *d, const lb_tiles_taps *taps, const float *w, int first, void *to) {
    static const float zeros[RESULTS];
    const plan p = make_plan(d);
    const size_t ic = (size_t)d->ic, kh = (size_t)d->kh, kw = (size_t)d->kw, oc = (size_t)d->oc, size = filter_size(&p);
    uint16_t *out = (uint16_t *)to + (size_t)first * size;
    for (size_t i = 0; i < size; i += 2, out += 2 * RESULTS) {
        const float *pair[2] = {zeros, zeros};
        for (size_t k = 0; k < 2; k++) {
            const size_t at = find_weight(d, &p, i + k), c = at % ic, x = at / ic % kw, y = at / ic / kw;
            if (y >= kh)
                continue;
            const size_t from_y = (size_t)taps->first_h + (kh - 1 - y) * (size_t)taps->sh;
            const size_t from_x = (size_t)taps->first_w + (kw - 1 - x) * (size_t)taps->sw;
            pair[k] = w + ((c * (size_t)taps->kh + from_y) * (size_t)taps->kw + from_x) * oc + (size_t)first;
        }
        put_pair(out, pair[0], pair[1]);
    }
}

/* ---- The strip -------------------------------------------------------------------------------------------------------- */

/* `count` numbers each, a multiple of 16, `step` apart. */
LB_INLINE void copy_pixels(uint16_t *to, size_t to_step, const uint16_t *from, size_t step, size_t wide, size_t count) {
    for (size_t x = 0; x < wide; x++, to += to_step, from += step)
        for (size_t i = 0; i < count; i += RESULTS)
            memcpy(to + i, from + i, RESULTS * 2);
}

/* The runs of a source row. line: zeros where the padding is. */
static void fill_runs(const lb_tiles_dims *d, const plan *p, const uint16_t *src, uint16_t *line, uint16_t *row) {
    const size_t ic = (size_t)d->ic, step = p->gap_x * ic;
    memcpy(line + (size_t)d->pl * ic, src, (size_t)d->iw * ic * 2);
    for (size_t x = 0; x < p->pitch; x++, line += step, row += STEP) /* what is behind a run is multiplied by zeros */
        memcpy(row, line, STEP * 2);
}

/* A source row, or NULL: zeros, to a row of the strip; half: the pixels' second half. */
static void fill_row(const lb_tiles_dims *d, const plan *p, const uint16_t *src, bool half, uint16_t *line, uint16_t *row) {
    const size_t ic = (size_t)d->ic;
    uint16_t *to = row + p->left * p->c + (half ? ic : 0);
    if (p->pixels == RUNS && src)
        fill_runs(d, p, src, line, row);
    else if (p->pixels == RUNS)
        memset(row, 0, p->pitch * STEP * 2);
    else if (!src)
        for (size_t x = 0; x < p->wide; x++)
            memset(to + x * p->c, 0, ic * 2);
    else if (p->pixels == PLAIN && p->gap_x == 1)
        memcpy(to, src, p->wide * ic * 2);
    else if (ic == RESULTS)
        copy_pixels(to, p->c, src, p->gap_x * ic, p->wide, RESULTS);
    else
        copy_pixels(to, p->c, src, p->gap_x * ic, p->wide, ic);
}

/* The source rows of result rows y .. of image n. */
static void fill_strip(const lb_tiles_dims *d, const plan *p, const uint16_t *src, size_t n, size_t y, uint16_t *line,
                       uint16_t *strip) {
    const size_t row = p->pitch * p->c, source = (size_t)d->iw * (size_t)d->ic, ih = (size_t)d->ih, pt = (size_t)d->pt;
    const bool pairs = p->pixels == PAIRS && d->kh > 1;
    for (size_t r = 0; r < p->strip_rows + pairs; r++) {
        const size_t at = (y * p->sh + r) * p->gap_y;
        const uint16_t *from = at >= pt && at - pt < ih ? src + (n * ih + at - pt) * source : NULL;
        if (r < p->strip_rows)
            fill_row(d, p, from, false, line, strip + r * row);
        if (pairs && r > 0)
            fill_row(d, p, from, true, line, strip + (r - 1) * row);
    }
}

/* ---- Products --------------------------------------------------------------------------------------------------------- */

typedef struct product {
    const uint16_t *a[TILES];  /* sources of the first kernel row of 16 results each */
    size_t result, row;        /* bytes from one result's to the next; numbers from one kernel row to the next */
    const uint16_t *b, *b2;    /* weights of 16 output channels each */
    size_t kh, steps;          /* steps: registers of a kernel row */
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
static void store_results(const lb_tiles_dims *d, const plan *p, const spot *at, size_t rows, const float *sums,
                          const float *second, uint16_t *dst) {
    const size_t ow = (size_t)d->ow, oc = (size_t)d->oc, step = (size_t)d->step_w * oc;
    for (size_t i = 0, row = at->row, x = at->x; i < RESULTS && row < rows; row++, x = 0) {
        const size_t count = LB_MIN((size_t)RESULTS - i, p->line - x), next = i + count;
        const size_t end = i + (x < ow ? LB_MIN(count, ow - x) : 0);
        uint16_t *to = dst + row * (size_t)d->step_h * (size_t)d->dst_w * oc + x * step;
        if (second)
            for (; i < end; i++, to += step)
                round_two(to, sums + i * RESULTS, second + i * RESULTS);
        else if (step == RESULTS)
            for (; i + 1 < end; i += 2, to += 2 * step)
                round_two(to, sums + i * RESULTS, sums + (i + 1) * RESULTS);
        for (; i < end; i++, to += step)
            round_one(to, sums + i * RESULTS);
        i = next;
    }
}

/* ---- Bands ------------------------------------------------------------------------------------------------------------ */

typedef struct workspace {
    spot *spots;
    float *sums;               /* of one step of products */
    uint16_t *line;            /* a source row with padding, of runs */
    uint16_t *strip;           /* zeros in all the padding */
} workspace;

static size_t line_bytes(const lb_tiles_dims *d) {
    return ((((size_t)d->ow - 1) * (size_t)d->sw + (size_t)d->kw + (size_t)d->pl + (size_t)d->iw) * (size_t)d->ic + STEP) * 2;
}

static size_t spot_bytes(const plan *p) { return tiles_ceil_div(p->tiles * sizeof(spot), LB_ALIGN) * LB_ALIGN; }

/* Clears what must be zeros. */
static workspace divide(const lb_tiles_dims *d, const plan *p, void *scratch) {
    unsigned char *at = scratch, *sums = at + spot_bytes(p), *strip = sums + SUMS * sizeof(float), *line = strip + strip_bytes(p);
    const workspace w = {(void *)at, (void *)sums, (void *)line, (void *)strip};
    find_spots(p, w.spots);
    memset(strip, 0, strip_bytes(p));
    if (p->pixels == RUNS)
        memset(line, 0, line_bytes(d));
    return w;
}

static size_t LB_NAME(scratch)(const lb_tiles_dims *d) {
    const plan p = make_plan(d);
    return spot_bytes(&p) + SUMS * sizeof(float) + strip_bytes(&p) + (p.pixels == RUNS ? line_bytes(d) : 0);
}

/* Memory that will be needed soon: `step` bytes of it are asked for at a time. */
typedef struct ahead {
    const unsigned char *at, *end;
    size_t step;
} ahead;

static ahead look_ahead(const void *from, size_t numbers, size_t times) {
    const unsigned char *at = from;
    return (ahead){at, at + numbers * 2, tiles_ceil_div(tiles_ceil_div(numbers * 2, LB_ALIGN), times) * LB_ALIGN};
}

LB_INLINE void ask(ahead *a) {
    const unsigned char *end = a->at + LB_MIN(a->step, (size_t)(a->end - a->at));
    for (; a->at < end; a->at += LB_ALIGN)
        __builtin_prefetch(a->at, 0, 2);
    a->at = end;
}

/* `count` rows from row `from` on, of a tensor that has `rows`. */
static ahead look_at_rows(const uint16_t *data, size_t row, size_t rows, size_t from, size_t count, size_t times) {
    from = LB_MIN(from, rows);
    return look_ahead(data + from * row, LB_MIN(count, rows - from) * row, times);
}

/* What the band behind this one reads and writes. */
static void look_behind(const lb_tiles_dims *d, const plan *p, size_t first, size_t y, const uint16_t *src, const uint16_t *dst,
                        size_t times, ahead *sources, ahead *results) {
    const bool whole = p->rows == (size_t)d->oh;
    const size_t mb = (size_t)d->mb, ih = (size_t)d->ih, h = (size_t)d->dst_h, down = p->sh * p->gap_y, step = (size_t)d->step_h;
    *sources = look_at_rows(src, (size_t)d->iw * (size_t)d->ic, mb * ih,
                            whole ? (first + p->images) * ih : first * ih + (y + p->rows) * down,
                            whole ? p->images * ih : p->rows * down, times);
    *results = look_at_rows(dst, (size_t)d->dst_w * (size_t)d->oc, mb * h,
                            whole ? (first + p->images) * h : first * h + (y + p->rows) * step,
                            whole ? p->images * h : p->rows * step, times);
}

/* A band while it is computed. */
typedef struct band {
    const lb_tiles_dims *d;
    const plan *p;
    const workspace *w;
    size_t rows, tiles;        /* result rows; registers of results, all images' */
    size_t strip, image;       /* numbers from one image to the next in the strip, in dst */
    uint16_t *dst;             /* the first result */
    ahead sources, results;    /* of the next band */
} band;

/* The registers of results that one step of products makes. */
typedef struct group {
    size_t image[TILES];       /* each one's of the band */
    const spot *spots[TILES];
    size_t next_image, next;   /* the register behind */
} group;

/* The next `count` registers from number `first` on; behind the last one, that one again. */
LB_INLINE void take_group(const band *b, size_t first, size_t count, group *g, product *job) {
    for (size_t i = 0; i < count; i++) {
        g->image[i] = g->next_image;
        g->spots[i] = &b->w->spots[g->next];
        job->a[i] = b->w->strip + g->next_image * b->strip + g->spots[i]->pixel * b->p->c;
        if (first + i + 1 < b->tiles && ++g->next == b->p->tiles) {
            g->next = 0;
            g->next_image++;
        }
    }
}

/* All results of output channels o .. o + 31, or of the last 16. */
static void compute_channels(band *b, size_t o, product *job) {
    const bool two = o + RESULTS < (size_t)b->d->oc;
    const size_t count = two ? TILES / 2 : TILES, each = (two ? 2 : 1) * RESULTS * RESULTS;
    group g = {.next = 0};
    for (size_t t = 0; t < b->tiles; t += count) {
        take_group(b, t, count, &g, job);
        ask(&b->sources);
        ask(&b->results);
        if (two)
            square(job);
        else
            narrow(job);
        for (size_t i = 0; i < count && t + i < b->tiles; i++) {
            const float *sums = job->sums + i * each;
            store_results(b->d, b->p, g.spots[i], b->rows, sums, two ? sums + RESULTS * RESULTS : NULL,
                          b->dst + g.image[i] * b->image + o);
        }
    }
}

/* `images` from the first on, result rows y .. */
static void compute_band(const lb_tiles_dims *d, const plan *p, size_t first, size_t images, size_t y, const uint16_t *src,
                         const uint16_t *weights, uint16_t *dst, const workspace *w) {
    const size_t oc = (size_t)d->oc, to_row = (size_t)d->dst_w * oc, block = filter_size(p) * RESULTS;
    band b = {.d = d, .p = p, .w = w, .rows = LB_MIN(p->rows, (size_t)d->oh - y), .tiles = images * p->tiles,
              .strip = p->strip_rows * p->pitch * p->c, .image = (size_t)d->dst_h * to_row};
    b.dst = dst + first * b.image + ((size_t)d->from_h + y * (size_t)d->step_h) * to_row + (size_t)d->from_w * oc;
    const size_t steps = tiles_ceil_div(b.tiles, oc > RESULTS ? TILES / 2 : TILES) * tiles_ceil_div(oc, 2 * RESULTS);
    look_behind(d, p, first, y, src, dst, steps, &b.sources, &b.results);
    for (size_t i = 0; i < images; i++)
        fill_strip(d, p, src, first + i, y, w->line, w->strip + i * b.strip);
    product job = {.result = p->sw * p->c * 2, .row = p->down * p->pitch * p->c, .kh = p->kh, .steps = p->kw * p->c / STEP,
                   .sums = w->sums};
    for (size_t o = 0; o < oc; o += 2 * RESULTS) {
        job.b = weights + o / RESULTS * block;
        job.b2 = job.b + block;
        compute_channels(&b, o, &job);
    }
}

static void LB_NAME(conv)(const lb_tiles_dims *d, int first, int last, const void *src, const void *weights, void *dst,
                          void *scratch) {
    const plan p = make_plan(d);
    const workspace w = divide(d, &p, scratch);
    tiles_begin();
    for (size_t n = (size_t)first; n < (size_t)last; n += p.images)
        for (size_t y = 0; y < (size_t)d->oh; y += p.rows)
            compute_band(d, &p, n, LB_MIN(p.images, (size_t)last - n), y, src, weights, dst, &w);
    tiles_end();
}

const lb_tiles_conv LB_NAME(lb_tiles_conv) = {
    .isa = LB_STRING(LB_ISA),
    .weights_size = LB_NAME(weights_size),
    .weights = LB_NAME(weights),
    .turned = LB_NAME(turned),
    .conv = LB_NAME(conv),
    .scratch = LB_NAME(scratch),
};

/* Integer convolution by table lookup (groups == 1, linear layers included): 1- and 2-bit weights, sources of at most four
 * neighbouring values.
 *
 * One instruction looks up a vector of bytes in a table of 64 (AVX-512 VBMI: vpermb) or 16 (vpshufb, tbl) at once. The stored
 * weights of a few inputs of an output channel, 6 or 4 bits of them, are an index, BYTES channels make a vector; the codes of
 * the same inputs of a pixel choose a table, which holds the sum of their products for every index. With tables of 64, one
 * lookup and one addition of bytes are 192 multiplications (384, if both sides have one bit). Bytes are widened to 16 bits
 * before they can overflow.
 *
 * With stored weights s, w = mul (s - zero) + rest. The tables hold sums of (s - zero) a, made unsigned by `least` per product;
 * what is missing is the same for all channels of a pixel: a constant per kernel position inside the image, and rest times the
 * sum of the window's source values. Positions in the padding are left out. */
#include "finish.h"

#define CHANNELS BYTES /* of a block */
#define HALF (CHANNELS / 2) /* words of a vector */
#define PARTS (CHANNELS / LANES)
#define TABLE (1 << LOOKUP_BITS)
#define TABLES_BYTES 4096 /* at most */
#define MAX_PIXELS LOOKUP_SUMS /* of a tile, and pixels times blocks */
#define MAX_BLOCKS 2
#define TOGETHER_LIMIT ((size_t)512 << 10) /* weights of the two blocks of a tile */
#define STRIP_BUDGET ((size_t)96 << 10) /* a strip takes as many result rows as fit: weights are read once per strip */
#define STRIP_LIMIT ((size_t)64 << 20)
#define MAX_VALUE 8 /* of a source, either sign */

typedef struct geometry {
    int32_t c, h, w; /* source as seen by the kernel */
    size_t each; /* inputs per lookup */
    int code_bits; /* of an input's code, in the number of a table */
    int32_t spread; /* from one source value to the next: 2 for -1 and 1 */
    size_t steps; /* lookups per kernel position */
    size_t stride; /* codes of a source row */
    size_t columns; /* source columns that a result row needs, padding included */
    size_t rows; /* result rows per strip */
    size_t blocks;
} geometry;

static geometry geometry_of(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    const lbrt_tensor view = lbrt_view(site);
    geometry g;
    g.c = view.c;
    g.h = view.h;
    g.w = view.w;
    g.spread = l->src_signs && l->weights.bits == 1 ? 2 : 1;
    g.code_bits = l->weights.bits == 1 && view.hi - view.lo <= g.spread ? 1 : 2;
    g.each = LOOKUP_BITS / (size_t)l->weights.bits;
    while (TABLE << g.each * (size_t)g.code_bits > TABLES_BYTES)
        g.each--;
    g.steps = ((size_t)view.c + g.each - 1) / g.each;
    g.stride = (size_t)view.w * g.steps;
    g.columns = (size_t)(site->dst->w - 1) * (size_t)l->sw + (size_t)l->kw;
    const size_t fit = STRIP_BUDGET / sizeof(uint16_t) / g.stride;
    g.rows = fit > (size_t)l->kh ? (fit - (size_t)l->kh) / (size_t)l->sh + 1 : 1;
    if (g.rows > (size_t)site->dst->h)
        g.rows = (size_t)site->dst->h;
    g.blocks = ((size_t)site->dst->c + CHANNELS - 1) / CHANNELS;
    return g;
}

/* Source rows that a strip needs at most. */
static size_t strip_rows(const lbrt_site *site, const geometry *g) {
    const size_t need = lbrt_size_add(lbrt_size_mul(g->rows - 1, (size_t)site->layer->sh), (size_t)site->layer->kh);
    return need < (size_t)g->h ? need : (size_t)g->h;
}

typedef struct strip {
    uint16_t *codes; /* (strip_rows, w, steps) byte offsets of tables */
    uint32_t *sums; /* (strip_rows, w) of a pixel's values; modulo 2^32, as all that follow */
    uint32_t *column; /* (columns) one result row's source columns, padding included */
    uint32_t *windows; /* (rows, ow) what the lookups of a window lack */
} strip;

static strip strip_carve(const lbrt_site *site, const geometry *g, lbrt_carve *at) {
    const size_t rows = strip_rows(site, g);
    strip s;
    s.codes = lbrt_take(at, lbrt_size_mul(rows, g->stride), sizeof *s.codes);
    s.sums = lbrt_take(at, rows * (size_t)g->w, sizeof *s.sums);
    s.column = lbrt_take(at, g->columns, sizeof *s.column);
    s.windows = lbrt_take(at, g->rows * (size_t)site->dst->w, sizeof *s.windows);
    return s;
}

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {NULL, 0};
    strip_carve(site, &g, &at);
    return at.used;
}

static int32_t least_of(int32_t a, int32_t b) { return a < b ? a : b; }

/* The products in the tables: (stored weight - zero) * source value. */
typedef struct products {
    int32_t zero;
    int32_t least;
    int32_t width; /* of the sums of a lookup */
} products;

static products products_of(const lbrt_site *site, int32_t each, int32_t most_stored) {
    const lbrt_weights *w = &site->layer->weights;
    const int32_t lo = site->src->lo, hi = site->src->hi;
    const int32_t zero = w->mul != 0 && w->add % w->mul == 0 ? -w->add / w->mul : 0;
    products p;
    p.zero = zero >= 0 && zero <= most_stored ? zero : 0;
    const int32_t first = -p.zero, last = most_stored - p.zero;
    p.least = least_of(least_of(first * lo, first * hi), least_of(last * lo, last * hi));
    p.width = each * (-least_of(least_of(-first * lo, -first * hi), least_of(-last * lo, -last * hi)) - p.least);
    return p;
}

static int accepts(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    const lbrt_tensor *src = site->src;
    if (l->is_float || l->groups != 1 || lbrt_is_dilated(l) || (src->type != LBRT_U8 && src->type != LBRT_I8) ||
        l->weights.bits > 2)
        return 0;
    if (src->lo < -MAX_VALUE || src->hi > MAX_VALUE || src->hi - src->lo > 3)
        return 0;
    const geometry g = geometry_of(site);
    const size_t width = (size_t)products_of(site, (int32_t)g.each, (1 << l->weights.bits) - 1).width;
    return width <= UINT8_MAX && lbrt_size_mul((size_t)l->kh * (size_t)l->kw, g.steps) <= UINT16_MAX / (width + 1) &&
           scratch_size(site) <= STRIP_LIMIT;
}

static size_t cost(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    const size_t lookups = (size_t)site->layer->kh * (size_t)site->layer->kw * g.steps;
    const size_t after = site->layer->epilogue.flags & LBRT_THRESHOLDS ? LOOKUP_EXTRA : LOOKUP_EXTRA * 8 / 5;
    return g.blocks * (lookups * LOOKUP_CYCLES / 100 + after);
}

/* ---- What is prepared ------------------------------------------------------------------------------------------------- */

typedef struct constants {
    int32_t mul, rest; /* of the stored weights */
    int32_t position; /* what each kernel position inside the image lacks */
    int32_t run; /* lookups that a byte holds the sum of */
    int32_t narrow; /* accumulators fit 16 bits and only thresholds follow: they are counted on words */
} constants;

typedef struct parameters {
    constants *constants;
    uint8_t *tables; /* (TABLES_BYTES / TABLE, TABLE) */
    uint8_t *weights; /* (blocks, kh, kw, steps, CHANNELS) indices */
    int16_t *flip, *thresholds; /* (blocks, CHANNELS), (blocks, 2, nthresholds, HALF): as in `finish`, if narrow */
    finish finish;
} parameters;

static parameters carve(const lbrt_site *site, lbrt_carve *at) {
    const lbrt_layer *l = site->layer;
    const geometry g = geometry_of(site);
    parameters p;
    p.constants = lbrt_take(at, 1, sizeof *p.constants);
    p.tables = lbrt_take(at, TABLES_BYTES, 1);
    p.weights = lbrt_take(at, lbrt_size_mul((size_t)l->kh * (size_t)l->kw, g.steps), g.blocks * CHANNELS);
    const size_t narrow = l->epilogue.flags & LBRT_THRESHOLDS && site->dst->type != LBRT_I32 ? g.blocks * CHANNELS : 0;
    p.flip = lbrt_take(at, narrow, sizeof *p.flip);
    p.thresholds = lbrt_take(at, narrow * (size_t)l->epilogue.nthresholds, sizeof *p.thresholds);
    p.finish = finish_carve(site, 1, at);
    return p;
}

static size_t prepared_size(const lbrt_site *site) {
    lbrt_carve at = {NULL, 0};
    carve(site, &at);
    return at.used;
}

/* Even bytes are the first half of the channels, odd ones the second: so they come out in order when words are taken apart. */
static size_t lane_of(size_t channel) { return channel % HALF * 2 + channel / HALF; }

/* True if every accumulator fits 16 bits; then fills flip and thresholds. */
static int narrow(const lbrt_site *site, const parameters *p) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = (size_t)e->nthresholds;
    if (!(e->flags & LBRT_THRESHOLDS) || site->dst->type == LBRT_I32)
        return 0;
    for (size_t o = 0; o < (size_t)site->dst->c; o++) {
        int32_t lo, hi;
        /* Thresholds of 32767 and more must stay out of reach. */
        if (!lbrt_source_range(site->layer, site->src, (int32_t)o, &lo, &hi) || lo < INT16_MIN || hi >= INT16_MAX)
            return 0;
        const int32_t flip = e->flip != NULL && e->flip[o] ? -1 : 0;
        p->flip[o] = (int16_t)flip;
        for (size_t k = 0; k < n; k++) {
            const int32_t t = lbrt_clamp(e->thresholds[o * n + k], INT16_MIN, INT16_MAX);
            p->thresholds[(o / HALF * n + k) * HALF + o % HALF] = (int16_t)(t ^ flip);
        }
    }
    return 1;
}

static void prepare(const lbrt_site *site, void *prepared) {
    const lbrt_layer *l = site->layer;
    const lbrt_weights *w = &l->weights;
    const geometry g = geometry_of(site);
    const size_t positions = (size_t)l->kh * (size_t)l->kw, c = (size_t)g.c, count = positions * c;
    const size_t row = lbrt_packed_bytes((int32_t)count, w->bits);
    lbrt_carve at = {prepared, 0};
    const parameters p = carve(site, &at);
    memset(prepared, 0, at.used);
    finish_prepare(site, 1, &p.finish);

    int32_t most = 0; /* stored */
    for (size_t o = 0; o < (size_t)site->dst->c; o++) {
        uint8_t *block = p.weights + o / CHANNELS * positions * g.steps * CHANNELS + lane_of(o % CHANNELS);
        for (size_t i = 0; i < count; i++) {
            const int32_t s = lbrt_stored_weight(w->packed + o * row, i, w->bits);
            const size_t k = i % c;
            block[(i / c * g.steps + k / g.each) * CHANNELS] |= (uint8_t)(s << (k % g.each * (size_t)w->bits));
            most = s > most ? s : most;
        }
    }

    const int32_t lo = site->src->lo, each = (int32_t)g.each;
    const products product = products_of(site, each, most);
    p.constants->mul = w->mul;
    p.constants->rest = w->add + w->mul * product.zero;
    /* Channels that fill up the last lookup have the stored weight 0 and the value lo. */
    p.constants->position = (int32_t)g.steps * each * product.least + ((int32_t)g.steps * each - g.c) * product.zero * lo;
    p.constants->run = product.width > 0 ? UINT8_MAX / product.width : UINT8_MAX;
    p.constants->narrow = narrow(site, &p);
    const int32_t code_mask = (1 << g.code_bits) - 1, weight_mask = (1 << w->bits) - 1;
    for (int32_t code = 0; code < 1 << each * g.code_bits; code++)
        for (int32_t index = 0; index < 1 << each * w->bits; index++) {
            int32_t sum = -each * product.least;
            for (int32_t k = 0; k < each; k++) {
                const int32_t stored = index >> k * w->bits & weight_mask;
                const int32_t a = lo + g.spread * (code >> k * g.code_bits & code_mask);
                sum += (stored - product.zero) * a;
            }
            p.tables[code * TABLE + index] = (uint8_t)sum;
        }
}

/* ---- Codes of the source ---------------------------------------------------------------------------------------------- */

#if LOOKUP_BITS == 6
/* A pixel's c values to `steps` offsets of tables; their sum is returned. */
static uint32_t encode_pixel(const uint8_t *src, int32_t lo, const geometry *g, uint16_t *dst) {
    const size_t c = (size_t)g->c;
    const __m512i low = _mm512_set1_epi8((char)lo), ones = _mm512_set1_epi8(1);
    const __m128i shift = _mm_cvtsi32_si128(g->spread == 2 ? 5 : 6); /* differences from lo are codes times spread */
    __m512i lane, weights, sum = _mm512_setzero_si512();
    if (g->each == 3) { /* three bytes to each 32 bits; byte 63 is 0 */
        lane = _mm512_setr_epi32(0x3f020100, 0x3f050403, 0x3f080706, 0x3f0b0a09, 0x3f0e0d0c, 0x3f11100f, 0x3f141312, 0x3f171615,
                                 0x3f1a1918, 0x3f1d1c1b, 0x3f201f1e, 0x3f232221, 0x3f262524, 0x3f292827, 0x3f2c2b2a, 0x3f2f2e2d);
        weights = _mm512_set1_epi32(0x00100401);
    } else { /* six to each 64 */
        lane = _mm512_setr_epi32(0x03020100, 0x3f3f0504, 0x09080706, 0x3f3f0b0a, 0x0f0e0d0c, 0x3f3f1110, 0x15141312, 0x3f3f1716,
                                 0x1b1a1918, 0x3f3f1d1c, 0x21201f1e, 0x3f3f2322, 0x27262524, 0x3f3f2928, 0x2d2c2b2a, 0x3f3f2f2e);
        weights = _mm512_set1_epi64(0x0000201008040201);
    }
    for (size_t i = 0, step = 0; i < c; i += 48) {
        const size_t count = c - i < 48 ? c - i : 48, steps = (count + g->each - 1) / g->each;
        const __mmask64 mask = ((__mmask64)1 << count) - 1;
        const __m512i code = _mm512_maskz_sub_epi8(mask, _mm512_maskz_loadu_epi8(mask, src + i), low);
        sum = _mm512_dpbusd_epi32(sum, code, ones);
        __m512i v = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_permutexvar_epi8(lane, code), weights);
        if (g->each == 3) {
            _mm512_mask_cvtepi32_storeu_epi16(dst + step, (__mmask16)((1u << steps) - 1), _mm512_sll_epi32(v, shift));
        } else {
            v = _mm512_add_epi64(v, _mm512_srli_epi64(v, 32));
            _mm512_mask_cvtepi64_storeu_epi16(dst + step, (__mmask8)((1u << steps) - 1), _mm512_sll_epi64(v, shift));
        }
        step += steps;
    }
    return (uint32_t)_mm512_reduce_add_epi32(sum) + (uint32_t)g->c * (uint32_t)lo;
}

/* `count` pixels: codes and the sums of their values. */
static void encode(const uint8_t *src, size_t count, int32_t lo, const geometry *g, int32_t rest, uint16_t *to, uint32_t *total) {
    (void)rest;
    for (size_t i = 0; i < count; i++)
        total[i] = encode_pixel(src + i * (size_t)g->c, lo, g, to + i * g->steps);
}
#else
/* The offset of the table that `count` values choose. */
INLINE uint16_t table_of(const uint8_t *src, uint8_t lo, int spread, const size_t count, const int bits) {
    unsigned v = 0;
    for (size_t k = 0; k < count; k++)
        v |= (unsigned)(uint8_t)(src[k] - lo) >> (spread - 1) << (k * (size_t)bits);
    return (uint16_t)(v << LOOKUP_BITS);
}

/* Values to offsets of tables, g->each at a time; what fills up the last one is lo. A product of 4 bytes is one code of 4
 * values or half of two codes of 2. */
static void encode_values(const uint8_t *src, size_t count, int32_t lo, const geometry *g, uint16_t *dst) {
    const int halves = g->each == 2, shift = LOOKUP_BITS - (g->spread - 1); /* differences from lo are codes times spread */
    const vec low = vec_set((int32_t)(0x01010101u * (uint8_t)lo));
    const vec first = vec_set(halves ? 0x00000401 : g->code_bits == 1 ? 0x08040201 : 0x40100401), second = vec_set(0x04010000);
    size_t i = 0;
    for (; i + LANES * STEP <= count; i += LANES * STEP) {
        const vec x = vec_sub_bytes(vec_load(src + i), low);
        const vec v = vec_shift_left(vec_dot(x, first), shift);
        if (halves)
            vec_store(dst, vec_add(v, vec_shift_left(vec_dot(x, second), shift + 16)));
        else
            vec_store_words(dst, v);
        dst += halves ? 2 * LANES : LANES;
    }
    for (; i < count; i += g->each)
        *dst++ = table_of(src + i, (uint8_t)lo, g->spread, count - i < g->each ? count - i : g->each, g->code_bits);
}

/* The sum of a pixel's values. */
static uint32_t sum_values(const uint8_t *src, size_t count, int32_t lo) {
    const vec low = vec_set((int32_t)(0x01010101u * (uint8_t)lo)), ones = vec_set(0x01010101);
    vec all = vec_set(0);
    size_t i = 0;
    for (; i + LANES * STEP <= count; i += LANES * STEP)
        all = vec_add(all, vec_dot(vec_sub_bytes(vec_load(src + i), low), ones));
    uint32_t sum = (uint32_t)count * (uint32_t)lo + (uint32_t)vec_sum(all);
    for (; i < count; i++)
        sum += (uint8_t)(src[i] - (uint8_t)lo);
    return sum;
}

/* `count` pixels: codes and, where they are needed, the sums of their values. */
static void encode(const uint8_t *src, size_t count, int32_t lo, const geometry *g, int32_t rest, uint16_t *to, uint32_t *total) {
    const size_t c = (size_t)g->c;
    const int even = c % g->each == 0; /* all pixels are one row of codes */
    if (even)
        encode_values(src, count * c, lo, g, to);
    for (size_t i = 0; i < count && !(even && rest == 0); i++, src += c) {
        if (!even)
            encode_values(src, c, lo, g, to + i * g->steps);
        total[i] = sum_values(src, c, lo);
    }
}
#endif

/* Positions first..last - 1 of a window along one axis lie inside the source. */
typedef struct range {
    int64_t first, last;
} range;

static range inside(size_t o, int32_t stride, int32_t pad, int32_t kernel, int32_t size) {
    const int64_t start = (int64_t)o * stride - pad, end = size - start;
    range r;
    r.first = start < 0 ? (-start < kernel ? -start : kernel) : 0;
    r.last = end < kernel ? end : kernel;
    r.last = r.last < r.first ? r.first : r.last;
    return r;
}

/* What windows of result row oy lack, into windows (ow): the sums of their values times rest, and the constant of their
 * positions. */
static void sum_windows(const lbrt_site *site, const geometry *g, const constants *k, const strip *s, size_t oy, int64_t first,
                        uint32_t *restrict windows) {
    const lbrt_layer *l = site->layer;
    const size_t ow = (size_t)site->dst->w, sw = (size_t)l->sw, left = (size_t)l->pl < g->columns ? (size_t)l->pl : g->columns;
    const size_t w = (size_t)g->w < g->columns - left ? (size_t)g->w : g->columns - left;
    const range ry = inside(oy, l->sh, l->pt, l->kh, g->h);
    uint32_t *restrict column = s->column + left;
    memset(s->column, 0, g->columns * sizeof *column);
    for (int64_t ky = ry.first; ky < ry.last; ky++) {
        const uint32_t *restrict from = s->sums + ((int64_t)oy * l->sh - l->pt + ky - first) * g->w;
        for (size_t x = 0; x < w; x++)
            column[x] += (k->rest != 0 ? from[x] * (uint32_t)k->rest : 0u) + (uint32_t)k->position * (uint32_t)k->mul;
    }
    memset(windows, 0, ow * sizeof *windows);
    for (size_t kx = 0; kx < (size_t)l->kw; kx++) {
        const uint32_t *restrict from = s->column + kx;
        if (sw == 1)
            for (size_t x = 0; x < ow; x++)
                windows[x] += from[x];
        else
            for (size_t x = 0; x < ow; x++)
                windows[x] += from[x * sw];
    }
}

/* Codes and sums for `rows` result rows from oy; returns the source row of the strip's first. */
static size_t fill(const lbrt_call *call, const geometry *g, const parameters *p, const strip *s, size_t image, size_t oy,
                   size_t rows) {
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const size_t w = (size_t)g->w, ow = (size_t)site->dst->w;
    int64_t first = (int64_t)oy * l->sh - l->pt, last = (int64_t)(oy + rows - 1) * l->sh - l->pt + l->kh;
    first = first < 0 ? 0 : first > g->h ? g->h : first;
    last = last > g->h ? g->h : last;
    const uint8_t *src = (const uint8_t *)call->src + (image * (size_t)g->h + (size_t)first) * w * (size_t)g->c;
    const size_t count = last > first ? (size_t)(last - first) * w : 0;
    encode(src, count, site->src->lo, g, p->constants->rest, s->codes, s->sums);
    for (size_t y = 0; y < rows; y++)
        sum_windows(site, g, p->constants, s, oy + y, first, s->windows + y * ow);
    return (size_t)first;
}

/* ---- Tiles ------------------------------------------------------------------------------------------------------------- */

typedef struct tile {
    const uint8_t *tables;
    const uint8_t *weights; /* of the first position inside */
    size_t kh, steps, run; /* kernel rows, lookups per row and lookups per byte */
    size_t stride, weights_stride; /* from one kernel row to the next */
    size_t block; /* from one block's weights to the next */
    const uint16_t *src[MAX_PIXELS];
} tile;

/* Sums of the lookups: out (pixels, blocks, 2) words of the two halves of each block's channels. Inlined with constants, so
 * that the accumulators are registers. */
INLINE void look_up(const tile *t, const size_t pixels, const size_t blocks, vec16 *out) {
    const size_t all = pixels * blocks;
    vec16 even[MAX_PIXELS], odd[MAX_PIXELS];
#pragma GCC unroll 8
    for (size_t k = 0; k < all; k++)
        even[k] = odd[k] = words_set(0);
    const uint16_t *src[MAX_PIXELS];
#pragma GCC unroll 8
    for (size_t p = 0; p < pixels; p++)
        src[p] = t->src[p];
    for (size_t y = 0; y < t->kh; y++) {
        const uint8_t *w = t->weights + y * t->weights_stride;
        for (size_t i = y * t->stride, last = i + t->steps; i < last;) {
            const size_t end = last - i < t->run ? last : i + t->run;
            vec8 sum[MAX_PIXELS];
#pragma GCC unroll 8
            for (size_t k = 0; k < all; k++)
                sum[k] = bytes_set(0);
#pragma GCC unroll 2
            for (; i < end; i++, w += CHANNELS) {
                vec8 index[MAX_BLOCKS];
#pragma GCC unroll 2
                for (size_t b = 0; b < blocks; b++)
                    index[b] = bytes_load(w + b * t->block);
#pragma GCC unroll 2
                for (size_t b = 0; b < blocks; b++)
                    KEEP(index[b]);
                /* One counter for all pixels' pointers. */
#pragma GCC unroll 8
                for (size_t p = 0; p < pixels; p++)
                    __asm__("" : "+r"(src[p]));
#pragma GCC unroll 8
                for (size_t k = 0; k < all; k += 2) {
                    const vec8 table = table_load(t->tables + src[k / blocks][i]);
                    if (blocks == 2)
                        look_up_two(&sum[k], &sum[k + 1], table, table, &index[0], &index[1]);
                    else if (k + 1 < all)
                        look_up_two(&sum[k], &sum[k + 1], table, table_load(t->tables + src[k + 1][i]), &index[0], &index[0]);
                    else
                        sum[k] = bytes_add(sum[k], bytes_look_up(table, index[0]));
                }
            }
            /* The even words still hold the odd bytes times 256, which come off at the end. */
#pragma GCC unroll 8
            for (size_t k = 0; k < all; k++) {
                KEEP(sum[k]);
                even[k] = words_add(even[k], bytes_words(sum[k]));
                odd[k] = words_add(odd[k], words_high(sum[k]));
            }
        }
    }
#pragma GCC unroll 8
    for (size_t k = 0; k < all; k++) {
        out[2 * k] = words_low(even[k], odd[k]);
        out[2 * k + 1] = odd[k];
    }
}

#define CASE(pixels, blocks)                    \
    case pixels:                                \
        if ((pixels) * (blocks) <= MAX_PIXELS)  \
            look_up(t, pixels, blocks, out);    \
        break;

APART void look_up_1(const tile *t, size_t pixels, vec16 *out) {
    switch (pixels) { CASE(1, 1) CASE(2, 1) CASE(3, 1) CASE(4, 1) CASE(5, 1) CASE(6, 1) CASE(7, 1) CASE(8, 1) }
}
APART void look_up_2(const tile *t, size_t pixels, vec16 *out) {
    switch (pixels) { CASE(1, 2) CASE(2, 2) CASE(3, 2) CASE(4, 2) }
}

/* ---- Running ----------------------------------------------------------------------------------------------------------- */

typedef struct job {
    const lbrt_call *call;
    geometry g;
    parameters p;
    strip s;
    size_t image, oy; /* the strip's first result row */
    size_t source; /* its first source row */
} job;

/* The thresholds that words (pixels, `step` apart) reach, window[] added; n thresholds, copied so that they stay in registers. */
INLINE void count_words(const job *j, size_t block, const size_t *at, size_t pixels, const vec16 *v, size_t step,
                        const int32_t *window, const size_t n) {
    const lbrt_site *site = &j->call->site;
    const lbrt_epilogue *e = &site->layer->epilogue;
    const int sign = (e->flags & LBRT_SIGN) != 0;
    const int32_t base = sign ? -1 : e->qlo;
    const size_t oc = (size_t)site->dst->c;
    const vec16 mul = words_set((int16_t)j->p.constants->mul);
    for (size_t half = 0, c = block * CHANNELS; half < 2 && c < oc; half++, c += HALF) {
        const vec16 flip = words_load(j->p.flip + c);
        vec16 t[FEW];
        for (size_t i = 0; i < n; i++)
            t[i] = words_load(j->p.thresholds + c * n + HALF * i);
        for (size_t k = 0; k < pixels; k++) {
            const vec16 sum = words_add(words_mul(v[k * step + half], mul), words_set((int16_t)window[k]));
            codes_store_words((uint8_t *)j->call->dst + at[k] * oc + c, oc - c,
                              codes_count_words(words_xor(sum, flip), t, n, sign, base));
        }
    }
}

static void count_thresholds(const job *j, size_t block, const size_t *at, size_t pixels, const vec16 *v, size_t step,
                             const int32_t *window) {
    const size_t n = (size_t)j->call->site.layer->epilogue.nthresholds;
    switch (n) {
    case 1: count_words(j, block, at, pixels, v, step, window, 1); break;
    case 3: count_words(j, block, at, pixels, v, step, window, 3); break;
    default: count_words(j, block, at, pixels, v, step, window, n);
    }
}

/* Words (pixels, `step` apart) of a block to results. */
static void finish_words(const job *j, size_t block, const size_t *at, size_t pixels, const vec16 *v, size_t step,
                         const int32_t *window) {
    if (j->p.constants->narrow) {
        count_thresholds(j, block, at, pixels, v, step, window);
        return;
    }
    const size_t channels = (size_t)j->call->site.dst->c - block * CHANNELS;
    const size_t parts = channels >= CHANNELS ? PARTS : (channels + LANES - 1) / LANES;
    const vec mul = vec_set(j->p.constants->mul);
    for (size_t i = 0; i < parts; i++) {
        vec acc[MAX_PIXELS];
        for (size_t k = 0; k < pixels; k++)
            acc[k] = vec_add(vec_mul(words_widen(v[k * step + i / 2], i % 2), mul), vec_set(window[k]));
        const patch p = patch_of(&j->call->site, 1, 0, block * PARTS + i, at, pixels);
        finish_block(j->call, &j->p.finish, &p, acc, 1);
    }
}

/* Result pixels of rows y0..y1-1 of the strip and columns x0..x1-1, whose windows all have the same positions inside; 1 or 2
 * blocks. */
static void run_patch(const job *j, size_t block, size_t blocks, size_t y0, size_t y1, size_t x0, size_t x1, range ry, range rx) {
    const lbrt_site *site = &j->call->site;
    const lbrt_layer *l = site->layer;
    const size_t steps = j->g.steps, count = (y1 - y0) * (x1 - x0), most = MAX_PIXELS / blocks, tiles = (count + most - 1) / most;
    tile t;
    t.tables = j->p.tables;
    t.kh = (size_t)(ry.last - ry.first);
    t.steps = (size_t)(rx.last - rx.first) * steps;
    t.run = (size_t)j->p.constants->run;
    t.stride = j->g.stride;
    t.weights_stride = (size_t)l->kw * steps * CHANNELS;
    t.block = (size_t)l->kh * t.weights_stride;
    t.weights = j->p.weights + block * t.block;
    if (t.kh > 0 && t.steps > 0)
        t.weights += (size_t)ry.first * t.weights_stride + (size_t)rx.first * steps * CHANNELS;
    else
        t.kh = 0;
    size_t x = x0, y = y0;
    for (size_t i = 0, left = count, pixels; i < tiles; i++, left -= pixels) {
        pixels = left / (tiles - i);
        size_t at[MAX_PIXELS];
        int32_t window[MAX_PIXELS];
        vec16 v[2 * MAX_PIXELS];
        for (size_t k = 0; k < pixels; k++, x++) {
            if (x == x1) {
                x = x0;
                y++;
            }
            const int64_t sy = (int64_t)(j->oy + y) * l->sh - l->pt + ry.first - (int64_t)j->source;
            const int64_t sx = (int64_t)x * l->sw - l->pl + rx.first;
            t.src[k] = j->s.codes + (t.kh > 0 ? (size_t)sy * j->g.stride + (size_t)sx * steps : 0);
            at[k] = (j->image * (size_t)site->dst->h + j->oy + y) * (size_t)site->dst->w + x;
            window[k] = (int32_t)j->s.windows[y * (size_t)site->dst->w + x];
        }
        if (blocks == 2)
            look_up_2(&t, pixels, v);
        else
            look_up_1(&t, pixels, v);
        for (size_t b = 0; b < blocks; b++)
            finish_words(j, block + b, at, pixels, v + 2 * b, 2 * blocks, window);
    }
}

static int same(range a, range b) { return a.first == b.first && a.last == b.last; }

/* The strip's `rows` result rows, some blocks of channels: patches between which the windows' positions inside change. */
static void run_blocks(const job *j, size_t block, size_t blocks, size_t rows) {
    const lbrt_site *site = &j->call->site;
    const lbrt_layer *l = site->layer;
    const size_t ow = (size_t)site->dst->w;
    for (size_t y0 = 0, y1; y0 < rows; y0 = y1) {
        const range ry = inside(j->oy + y0, l->sh, l->pt, l->kh, j->g.h);
        for (y1 = y0 + 1; y1 < rows && same(ry, inside(j->oy + y1, l->sh, l->pt, l->kh, j->g.h));)
            y1++;
        for (size_t x0 = 0, x1; x0 < ow; x0 = x1) {
            const range rx = inside(x0, l->sw, l->pl, l->kw, j->g.w);
            for (x1 = x0 + 1; x1 < ow && same(rx, inside(x1, l->sw, l->pl, l->kw, j->g.w));)
                x1++;
            run_patch(j, block, blocks, y0, y1, x0, x1, ry, rx);
        }
    }
}

static void run(const lbrt_call *call) {
    const lbrt_site *site = &call->site;
    const size_t oh = (size_t)site->dst->h;
    lbrt_carve prepared = {(uint8_t *)call->prepared, 0}, scratch = {call->scratch, 0};
    job j;
    j.call = call;
    j.g = geometry_of(site);
    j.p = carve(site, &prepared);
    j.s = strip_carve(site, &j.g, &scratch);
    /* Two blocks share the tables, but read twice the weights per pixel. */
    const int together = (size_t)site->layer->kh * (size_t)site->layer->kw * j.g.steps * CHANNELS * MAX_BLOCKS <= TOGETHER_LIMIT;
    for (size_t row = call->row0, rows; row < call->row1; row += rows) {
        j.image = row / oh;
        j.oy = row % oh;
        rows = call->row1 - row < oh - j.oy ? call->row1 - row : oh - j.oy;
        rows = rows < j.g.rows ? rows : j.g.rows;
        j.source = fill(call, &j.g, &j.p, &j.s, j.image, j.oy, rows);
        for (size_t block = 0, blocks; block < j.g.blocks; block += blocks) {
            blocks = j.g.blocks - block >= MAX_BLOCKS && together ? MAX_BLOCKS : 1;
            run_blocks(&j, block, blocks, rows);
        }
    }
}

const lbrt_kernel LBRT_NAME(lookup) = {
    .name = "lookup", .op = LBRT_OP_CONV, .accepts = accepts, .prepared_size = prepared_size, .prepare = prepare,
    .scratch_size = scratch_size, .run = run, .cost = cost};

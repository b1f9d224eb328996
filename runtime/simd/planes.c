/* Integer 3x3 convolution (groups == 1) by table lookup for layers of few channels: 1- and 2-bit weights, sources of at most four
 * values, AVX-512 VBMI. What lookup.c does with the sides exchanged: the lanes of a vector are 64 pixels, not 64 channels.
 *
 * The codes of the three sources under a kernel row, of one channel or (one bit on both sides) of two, are an index; the indices
 * of all pixels are a plane per channel. The weights of the same three or six choose a table, which holds the sum of their
 * products for every index. All pixels share the weights, so the tables of a channel tell how many lookups a byte can add up.
 *
 * A plane has an index for the padding. Where 0 is no value of the source (signs), the padding has the least value instead, and
 * what that adds is taken off by further lookups: a plane says which sides of a pixel's window are outside, tables of each
 * channel how much that is. */
#include "planes_source.h"

#define TABLES_BYTES 4096
#define SCRATCH_LIMIT ((size_t)64 << 20)
#define MAX_VALUE 8 /* of a source, either sign */
#define MAX_CHANNELS 1024 /* of the result: thresholds and codes take much more memory here than in a file */
#define WINDOW 128 /* sums whose codes are looked up */
#define BYTE_WINDOW 256 /* sums that are compared as bytes */
#define LEAST_WORD (-INT16_MAX) /* sums of lookups start there where thresholds on words follow */
#define MOST_SUM (UINT16_MAX - 2) /* no sum reaches what a threshold out of range becomes */

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {NULL, 0};
    buffers_carve(&g, &at);
    return at.used;
}

/* That lookups can reach. */
static int64_t most_sum(const lbrt_site *site, const geometry *g) {
    const int64_t most = magnitude(first_weight(&site->layer->weights), last_weight(&site->layer->weights));
    return 9 * (int64_t)g->c * most * (site->src->hi - site->src->lo) + (int64_t)g->most_border * UINT8_MAX;
}

static int accepts(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    const lbrt_tensor *src = site->src, *dst = site->dst;
    if (l->is_float || l->flat || l->groups != 1 || lbrt_is_dilated(l) || l->kh != 3 || l->kw != 3 || l->weights.bits > 2 ||
        (src->type != LBRT_U8 && src->type != LBRT_I8) || !strides_are_small(site) || l->sh > 4)
        return 0;
    if (src->lo < -MAX_VALUE || src->hi > MAX_VALUE || src->hi - src->lo > 3 || dst->c > MAX_CHANNELS)
        return 0;
    const geometry g = geometry_of(site);
    const int64_t most = magnitude(first_weight(&l->weights), last_weight(&l->weights)), range = src->hi - src->lo;
    if (3 * (int64_t)g.together * most * range > UINT8_MAX ||
        most_sum(site, &g) > MOST_SUM ||
        TABLES_BYTES + g.most_border * tiles_of(&g) * TILE * TABLE > UINT16_MAX)
        return 0;
    if (g.most_border > 0 && (l->pt > 1 || l->pl > 1 || (dst->h - 1) * l->sh + 3 - l->pt > src->h + 1 ||
                              (dst->w - 1) * l->sw + 3 - l->pl > src->w + 1))
        return 0;
    return scratch_size(site) <= SCRATCH_LIMIT;
}

static size_t thresholds_of(const lbrt_site *site);

static size_t cost(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    const size_t pixels = (size_t)site->dst->w * g.rows, vectors = (pixels + PIXELS - 1) / PIXELS;
    /* A vector alone waits for tables, many channels for the second-level cache. */
    const size_t lookups = steps_of(&g) * (vectors == 1 ? 12 : steps_of(&g) > 256 ? 11 : 10) / 8;
    const size_t after = thresholds_of(site) == 0 ? 80 : site->res != NULL ? 35 : 20;
    const size_t before = g.pitch * (site->layer->sw == 1 ? 12 : 80) + 300;
    return lbrt_size_mul(vectors, tiles_of(&g) * TILE * (lookups + after) + before) / pixels;
}

/* ---- What is prepared ------------------------------------------------------------------------------------------------- */

typedef struct constants {
    size_t steps; /* lookups, those of the border included */
    size_t thresholds; /* per channel, that make codes of words; 0: there are none */
    int by_residual; /* which thresholds depends on the residual */
    int32_t most; /* no sum is larger */
} constants;

typedef struct parameters {
    constants *constants;
    uint8_t *tables; /* (TABLES_BYTES), (most_border, tiles, TILE, TABLE) */
    uint32_t *at; /* (steps) where in the planes a lookup's indices are */
    uint16_t *weights; /* (tiles, steps, TILE) byte offsets of tables */
    uint16_t *runs; /* (tiles, steps) behind which lookups bytes are added to words */
    int32_t *offset; /* (blocks, BLOCK) an accumulator less the sum of its lookups */
    int16_t *flip; /* (oc) as in `finish` */
    int16_t *thresholds; /* (oc, thresholds, 32) words, chosen by the residual's last 5 bits; or, in a window, (64) bytes by 6 */
    int16_t *start; /* (tiles, TILE) of the sums' words */
    uint8_t *window; /* (oc) all thresholds are near to each other: words, saturated to bytes, tell which are reached */
    uint8_t *codes; /* (oc, WINDOW) what those bytes become, larger ones as the last, unless it depends on the residual */
    finish finish;
    int16_t *unpacked; /* one channel, while preparing */
    uint8_t *widths; /* (steps, TILE), likewise: of one tile's tables */
} parameters;

/* How many thresholds say what the epilogue gives; 0: it gives more than a few codes. */
static size_t thresholds_of(const lbrt_site *site) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    if (site->dst->type == LBRT_I32)
        return 0;
    if (e->flags & LBRT_THRESHOLDS)
        return (size_t)e->nthresholds;
    if (e->flags & LBRT_RESIDUAL && (site->res->type == LBRT_I32 || site->res->hi - site->res->lo >= FEW))
        return 0;
    if (e->flags & LBRT_SIGN)
        return 1;
    return e->flags & LBRT_CODE && e->q.mul >= 0 && e->qhi - e->qlo <= 3 ? (size_t)(e->qhi - e->qlo) : 0;
}

static parameters carve(const lbrt_site *site, const geometry *g, lbrt_carve *at) {
    const size_t steps = steps_of(g) + g->most_border, tiles = tiles_of(g);
    parameters p;
    p.constants = lbrt_take(at, 1, sizeof *p.constants);
    p.tables = lbrt_take(at, TABLES_BYTES + g->most_border * tiles * TILE * TABLE, 1);
    p.at = lbrt_take(at, steps, sizeof *p.at);
    p.weights = lbrt_take(at, lbrt_size_mul(tiles * TILE, steps), sizeof *p.weights);
    p.runs = lbrt_take(at, lbrt_size_mul(tiles, steps), sizeof *p.runs);
    p.offset = lbrt_take(at, (g->oc + BLOCK - 1) / BLOCK * BLOCK, sizeof *p.offset);
    p.flip = lbrt_take(at, g->oc, sizeof *p.flip);
    p.thresholds = lbrt_take(at, lbrt_size_mul(g->oc, thresholds_of(site)), 32 * sizeof *p.thresholds);
    p.start = lbrt_take(at, tiles * TILE, sizeof *p.start);
    p.window = lbrt_take(at, g->oc, 1);
    p.codes = lbrt_take(at, thresholds_of(site) > 0 ? g->oc : 0, WINDOW);
    p.finish = finish_carve(site, 1, at);
    p.unpacked = lbrt_take(at, (size_t)lbrt_weights_per_channel(site->layer, site->src), sizeof *p.unpacked);
    p.widths = lbrt_take(at, steps, TILE);
    return p;
}

static size_t prepared_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {NULL, 0};
    carve(site, &g, &at);
    return at.used;
}

static int32_t least_of(int32_t a, int32_t b) { return a < b ? a : b; }

/* The sums of products of the inputs of an index, by their stored weights and their codes, above the least. */
static void fill_tables(const lbrt_site *site, const geometry *g, uint8_t *tables) {
    const lbrt_weights *w = &site->layer->weights;
    const int32_t inputs = 3 * (int32_t)g->together, lo = site->src->lo, hi = site->src->hi;
    for (int32_t number = 0; number < 1 << inputs * w->bits; number++)
        for (int32_t index = 0; index < TABLE; index++) {
            int32_t sum = 0;
            for (int32_t k = 0; k < inputs; k++) {
                const int32_t v = w->mul * (number >> k * w->bits & ((1 << w->bits) - 1)) + w->add;
                const int32_t a = lo + g->spread * (index >> k * g->code_bits & ((1 << g->code_bits) - 1));
                sum += v * a - least_of(v * lo, v * hi);
            }
            tables[number * TABLE + index] = (uint8_t)sum;
        }
}

/* What the border's lookups add up to for a channel, by class: -padding times the weights outside, above the least, which is
 * returned. */
static int32_t border_sums(const geometry *g, const int16_t *weights, int32_t border[CLASSES]) {
    int32_t least = 0;
    for (int k = 0; k < CLASSES; k++) {
        border[k] = 0;
        for (size_t tap = 0; tap < 9; tap++) {
            const size_t x = tap % 3, y = tap / 3;
            if ((k & 1 && x == 0) || (k & 2 && x == 2) || (k & 4 && y == 0) || (k & 8 && y == 2))
                for (size_t i = 0; i < g->c; i++)
                    border[k] -= g->padding * weights[tap * g->c + i];
        }
        least = least_of(least, border[k]);
    }
    for (int k = 0; k < CLASSES; k++)
        border[k] -= least;
    return least;
}

/* Of the lookup of kernel row y and the channels from i on: the table's number, and what its sums reach above the least. */
static int32_t table_number(const lbrt_site *site, const geometry *g, const uint8_t *stored, size_t y, size_t i) {
    const int bits = site->layer->weights.bits;
    int32_t number = 0;
    for (size_t k = 0; k < 3 * g->together; k++)
        number |= lbrt_stored_weight(stored, (y * 3 + k % 3) * g->c + i + k / 3, bits) << k * (size_t)bits;
    return number;
}

static int32_t table_width(const lbrt_site *site, const geometry *g, const int16_t *weights, size_t y, size_t i) {
    int32_t sum = 0;
    for (size_t k = 0; k < 3 * g->together; k++)
        sum += magnitude(weights[(y * 3 + k % 3) * g->c + i + k / 3], 0);
    return sum * (site->src->hi - site->src->lo);
}

static int32_t epilogue_code(const lbrt_epilogue *e, size_t o, int32_t v, int32_t residual) {
    if (e->flags & LBRT_AFFINE)
        v = lbrt_apply(&e->requant[o], v);
    if (e->flags & LBRT_RESIDUAL)
        v = lbrt_saturate((int64_t)v + (e->res.shift >= 0 ? lbrt_apply(&e->res, residual) : residual));
    if (e->flags & LBRT_CLAMP)
        v = lbrt_clamp(v, e->lo, e->hi);
    return e->flags & LBRT_SIGN ? (v >= 0 ? 1 : -1) : lbrt_clamp(lbrt_apply(&e->q, v), e->qlo, e->qhi);
}

/* The threshold of `code` for accumulators within lo..hi: they reach it from there upwards, downwards if `flip`. The epilogue
 * is monotonous. */
static int32_t find_threshold(const lbrt_epilogue *e, size_t o, int32_t residual, int32_t code, int flip, int32_t lo, int32_t hi) {
    int64_t first = 0, last = (int64_t)hi - lo + 1; /* the least distance from lo or, if flip, from lo - 1, that has crossed it */
    while (first < last) {
        const int64_t middle = first + (last - first) / 2;
        if ((epilogue_code(e, o, (int32_t)(lo + middle), residual) >= code) != flip)
            last = middle;
        else
            first = middle + 1;
    }
    return (int32_t)(lo + first - flip);
}

/* The thresholds of channel o on words. */
static void prepare_thresholds(const lbrt_site *site, const parameters *p, size_t o) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = p->constants->thresholds;
    const int given = (e->flags & LBRT_THRESHOLDS) != 0;
    const int flip = given ? e->flip != NULL && e->flip[o] : e->flags & LBRT_AFFINE && e->requant[o].mul < 0;
    const int32_t first = e->flags & LBRT_SIGN ? 1 : e->qlo + 1;
    const int32_t start = p->constants->by_residual ? site->res->lo : 0, end = p->constants->by_residual ? site->res->hi : 0;
    int32_t lo, hi;
    lbrt_source_range(site->layer, site->src, (int32_t)o, &lo, &hi); /* which loading has proven to fit */
    p->flip[o] = (int16_t)-flip;
    for (size_t k = 0; k < n; k++)
        for (int32_t r = start; r <= end; r++) {
            const int64_t t = given ? e->thresholds[o * n + k] : find_threshold(e, o, r, first + (int32_t)k, flip, lo, hi);
            const int64_t v = t - p->offset[o] + LEAST_WORD;
            const int16_t word = (int16_t)(v < INT16_MIN ? INT16_MIN : v > INT16_MAX ? INT16_MAX : v);
            int16_t *to = p->thresholds + (o * n + k) * 32;
            for (int32_t i = start; i <= start + 31; i++)
                if (i == r || start == end)
                    to[i & 31] = (int16_t)(word ^ -flip);
        }
}

/* Channel o's tables and, into p->widths, what their sums reach. */
static void prepare_channel(const lbrt_site *site, const geometry *g, const parameters *p, size_t o) {
    const lbrt_layer *l = site->layer;
    const size_t groups = g->c / g->together, steps = p->constants->steps;
    const uint8_t *stored = l->weights.packed + o * lbrt_packed_bytes(9 * (int32_t)g->c, l->weights.bits);
    uint16_t *weights = p->weights + o / TILE * steps * TILE + o % TILE;
    uint8_t *widths = p->widths + o % TILE;
    int32_t border[CLASSES];
    lbrt_unpack(l, site->src, (int32_t)o, p->unpacked);
    for (size_t i = 0; i < 9 * g->c; i++)
        p->offset[o] += least_of(p->unpacked[i] * site->src->lo, p->unpacked[i] * site->src->hi);
    for (size_t s = 0; s < 3 * groups; s++) {
        const size_t y = s / groups, i = s % groups * g->together;
        weights[s * TILE] = (uint16_t)(table_number(site, g, stored, y, i) * TABLE);
        widths[s * TILE] = (uint8_t)table_width(site, g, p->unpacked, y, i);
    }
    if (steps > 3 * groups)
        p->offset[o] += border_sums(g, p->unpacked, border);
    for (size_t s = 3 * groups, piece = 0; s < steps; s++, piece++) {
        const size_t at = TABLES_BYTES + (piece * tiles_of(g) * TILE + o) * TABLE;
        for (size_t k = 0; k < CLASSES; k++)
            p->tables[at + k] = (uint8_t)lbrt_clamp(border[k] - (int32_t)piece * UINT8_MAX, 0, UINT8_MAX);
        weights[s * TILE] = (uint16_t)at;
        widths[s * TILE] = UINT8_MAX;
    }
}

/* As many lookups of a tile as the bytes of all its channels have room for. */
static void prepare_runs(const parameters *p, size_t tile) {
    const size_t steps = p->constants->steps;
    uint16_t *end = p->runs + tile * steps;
    int32_t reached[TILE] = {0};
    for (size_t s = 0; s < steps; s++) {
        int32_t most = 0;
        for (size_t k = 0; k < TILE; k++)
            most = reached[k] + p->widths[s * TILE + k] > most ? reached[k] + p->widths[s * TILE + k] : most;
        if (most > (int32_t)UINT8_MAX) {
            *end++ = (uint16_t)s;
            memset(reached, 0, sizeof reached);
        }
        for (size_t k = 0; k < TILE; k++)
            reached[k] += p->widths[s * TILE + k];
    }
    *end = (uint16_t)steps;
}

/* Where the thresholds of channel o are near to each other: what the bytes of a window of sums become. */
static void prepare_window(const lbrt_site *site, const parameters *p, size_t o) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = p->constants->thresholds;
    const int sign = (e->flags & LBRT_SIGN) != 0, by_residual = p->constants->by_residual;
    const int32_t flip = p->flip[o], most = LEAST_WORD + p->constants->most;
    const int32_t start = by_residual ? site->res->lo : 0, end = by_residual ? site->res->hi : 0;
    int16_t *const thresholds = p->thresholds + o * n * 32;
    int32_t first = INT16_MAX, last = INT16_MIN; /* words that cross one; where there are codes those that never or always do need
                                                    not be in the window */
    for (size_t k = 0; k < n; k++)
        for (int32_t r = start; r <= end; r++) {
            const int32_t t = (thresholds[k * 32 + (size_t)(r & 31)] ^ flip) - flip;
            if (!by_residual && (t <= LEAST_WORD || t > most))
                continue;
            first = t < first ? t : first;
            last = t > last ? t : last;
        }
    if (first > last)
        first = last = LEAST_WORD + 1;
    /* Sums start below 0, so that they must fit 15 bits. */
    if (p->constants->most > INT16_MAX || first <= LEAST_WORD || last > most + 1 ||
        last - first > (by_residual ? BYTE_WINDOW : WINDOW) - 2)
        return;
    first--; /* this word is byte 0 */
    p->window[o] = 1;
    p->start[o] = (int16_t)(LEAST_WORD - first);
    for (int32_t i = 0; i < WINDOW && !by_residual; i++) {
        const int32_t v = i == 0 ? LEAST_WORD : i < WINDOW - 1 ? first + i : most;
        int32_t count = 0;
        for (size_t k = 0; k < n; k++)
            count += (v ^ flip) >= thresholds[k * 32];
        p->codes[o * WINDOW + (size_t)i] = (uint8_t)(sign ? 2 * count - 1 : e->qlo + count);
    }
    for (size_t k = 0; k < n && by_residual; k++) {
        uint8_t bytes[64] = {0};
        for (int32_t r = start; r <= end; r++)
            bytes[r & 63] = (uint8_t)(((thresholds[k * 32 + (size_t)(r & 31)] ^ flip) - first) ^ flip);
        memcpy(thresholds + k * 32, bytes, sizeof bytes);
    }
}

static void prepare(const lbrt_site *site, void *prepared) {
    const geometry g = geometry_of(site);
    const size_t groups = g.c / g.together, sh = (size_t)site->layer->sh, ow = (size_t)site->dst->w;
    lbrt_carve carving = {prepared, 0};
    const parameters p = carve(site, &g, &carving);
    memset(prepared, 0, carving.used);
    finish_prepare(site, 1, &p.finish);
    fill_tables(site, &g, p.tables);
    p.constants->thresholds = thresholds_of(site);
    p.constants->most = (int32_t)most_sum(site, &g);
    p.constants->by_residual = p.constants->thresholds > 0 && site->layer->epilogue.flags & LBRT_RESIDUAL;
    int32_t most = 0, border[CLASSES];
    for (size_t o = 0; o < g.oc && g.most_border > 0; o++) {
        lbrt_unpack(site->layer, site->src, (int32_t)o, p.unpacked);
        border_sums(&g, p.unpacked, border);
        for (size_t k = 0; k < CLASSES; k++)
            most = border[k] > most ? border[k] : most;
    }
    p.constants->steps = steps_of(&g) + ((size_t)most + UINT8_MAX - 1) / UINT8_MAX;
    for (size_t s = 0; s < p.constants->steps; s++) {
        const size_t y = s / groups;
        p.at[s] = (uint32_t)(y < 3 ? s % groups * g.plane + (y % sh * g.phase + y / sh) * ow : planes_of(&g) * g.plane);
    }
    for (size_t o = 0; o < g.oc; o++) {
        if (o % TILE == 0)
            memset(p.widths, 0, p.constants->steps * TILE);
        prepare_channel(site, &g, &p, o);
        if (p.constants->thresholds > 0) {
            p.start[o] = LEAST_WORD;
            prepare_thresholds(site, &p, o);
            prepare_window(site, &p, o);
        }
        if (o % TILE == TILE - 1 || o + 1 == g.oc)
            prepare_runs(&p, o / TILE);
    }
}

/* ---- Results ---------------------------------------------------------------------------------------------------------- */

/* A block of channels of a tile's pixels, byte planes: codes, before that the bytes of a window, or the low and high bytes of
 * sums. Of 16 pixels the even ones come first, because words are packed so. */
typedef struct block {
    uint8_t low[BLOCK][VECTORS * PIXELS], high[BLOCK][VECTORS * PIXELS];
    uint8_t residual[BLOCK][VECTORS * PIXELS];
} block;

typedef struct job {
    const lbrt_call *call;
    geometry g;
    parameters p;
    buffers b;
} job;

/* Bytes of words (of the even pixels, of the odd ones), saturated. */
INLINE __m512i pack(__m512i even, __m512i odd) { return _mm512_packus_epi16(even, odd); }

/* Numbers of thresholds, of n, that 64 words reach, given as low and high bytes; residual: zeros if it does not matter. */
INLINE __m512i count_words(const int16_t *thresholds, __m512i flip, __m512i low, __m512i high, __m512i residual, const size_t n) {
    const __m512i zero = _mm512_setzero_si512(), one = _mm512_set1_epi16(1);
    __m512i found[2];
    for (size_t i = 0; i < 2; i++) {
        const __m512i x = words_xor(i == 0 ? _mm512_unpacklo_epi8(low, high) : _mm512_unpackhi_epi8(low, high), flip);
        const __m512i r = i == 0 ? _mm512_unpacklo_epi8(residual, zero) : _mm512_unpackhi_epi8(residual, zero);
        found[i] = zero;
        for (size_t k = 0; k < n; k++) {
            const __m512i t = _mm512_permutexvar_epi16(r, words_load(thresholds + 32 * k));
            found[i] = _mm512_mask_add_epi16(found[i], _mm512_cmpge_epi16_mask(x, t), found[i], one);
        }
    }
    return pack(found[0], found[1]);
}

/* The same of bytes of a window. */
INLINE __m512i count_bytes(const int16_t *thresholds, __m512i flip, __m512i v, __m512i residual, const size_t n) {
    const __m512i x = _mm512_xor_si512(v, flip), one = bytes_set(1);
    __m512i found = _mm512_setzero_si512();
    for (size_t k = 0; k < n; k++) {
        const __m512i t = _mm512_permutexvar_epi8(residual, words_load(thresholds + 32 * k));
        found = _mm512_mask_add_epi8(found, _mm512_cmpge_epu8_mask(x, t), found, one);
    }
    return found;
}

/* Where a channel of a pixel of the batch is in a tensor of planes of dst's shape. */
static size_t in_planes(const job *j, size_t pixel, size_t channel) {
    const lbrt_tensor *dst = j->call->site.dst;
    const size_t size = (size_t)dst->h * (size_t)dst->w;
    return (pixel / size * (size_t)dst->c + channel) * size + pixel % size;
}

/* A masked store takes much longer. */
INLINE void store_pixels(uint8_t *to, size_t count, __m512i v) {
    if (count >= PIXELS)
        _mm512_storeu_si512(to, v);
    else
        _mm512_mask_storeu_epi8(to, first_pixels(count), v);
}

/* Bytes of a block to codes, which stay there or go to dst's planes; n thresholds. */
INLINE void find_block_codes(const job *j, size_t pixel, size_t count, size_t channel, size_t channels, block *to, const size_t n) {
    const size_t size = (size_t)j->call->site.dst->h * (size_t)j->call->site.dst->w, place = in_planes(j, pixel, channel);
    uint8_t *dst = j->call->planar & LBRT_PLANAR_DST ? (uint8_t *)j->call->dst + place : NULL;
    const uint8_t *res = j->call->planar & LBRT_PLANAR_RES ? (const uint8_t *)j->call->res + place : NULL;
    const lbrt_epilogue *e = &j->call->site.layer->epilogue;
    const int sign = (e->flags & LBRT_SIGN) != 0, by_residual = j->p.constants->by_residual;
    const __m512i base = bytes_set((uint8_t)(sign ? -1 : e->qlo)), twice = sign ? bytes_set(UINT8_MAX) : _mm512_setzero_si512();
    const __m512i most = bytes_set(WINDOW - 1);
    for (size_t k = 0; k < channels; k++) {
        const size_t o = channel + k;
        const int16_t *thresholds = j->p.thresholds + o * n * 32;
        const __m512i flip = _mm512_set1_epi16(j->p.flip[o]);
        const uint8_t *table = j->p.codes + o * WINDOW;
        const int window = j->p.window[o];
        for (size_t i = 0; i < count; i += PIXELS) {
            __m512i v = bytes_load(&to->low[k][i]), r = _mm512_setzero_si512();
            if (window && !by_residual) {
                v = _mm512_permutex2var_epi8(table_load(table), _mm512_min_epu8(v, most), table_load(table + WINDOW / 2));
            } else {
                if (res != NULL)
                    r = even_first(_mm512_maskz_loadu_epi8(first_pixels(count - i), res + k * size + i));
                else if (by_residual)
                    r = bytes_load(&to->residual[k][i]);
                if (window)
                    v = count_bytes(thresholds, flip, v, r, n);
                else
                    v = count_words(thresholds, flip, v, bytes_load(&to->high[k][i]), r, n);
                v = _mm512_add_epi8(_mm512_add_epi8(v, _mm512_and_si512(v, twice)), base);
            }
            if (dst != NULL)
                store_pixels(dst + k * size + i, count - i, in_order(v));
            else
                _mm512_storeu_si512(&to->low[k][i], v);
        }
    }
}

APART void find_codes_of_1(const job *j, size_t pixel, size_t count, size_t channel, size_t channels, block *to) {
    find_block_codes(j, pixel, count, channel, channels, to, 1);
}
APART void find_codes_of_3(const job *j, size_t pixel, size_t count, size_t channel, size_t channels, block *to) {
    find_block_codes(j, pixel, count, channel, channels, to, 3);
}
APART void find_codes_of_any(const job *j, size_t pixel, size_t count, size_t channel, size_t channels, block *to) {
    find_block_codes(j, pixel, count, channel, channels, to, j->p.constants->thresholds);
}

/* Words of a channel to bytes, low and high ones `distance` apart. */
INLINE void store_words(int window, vec16 even, vec16 odd, uint8_t *low, size_t distance) {
    if (window) {
        _mm512_storeu_si512(low, pack(even, odd));
        return;
    }
    const __m512i byte = _mm512_set1_epi16(255);
    _mm512_storeu_si512(low, pack(_mm512_and_si512(even, byte), _mm512_and_si512(odd, byte)));
    _mm512_storeu_si512(low + distance, pack(_mm512_srli_epi16(even, 8), _mm512_srli_epi16(odd, 8)));
}

/* ---- Lookups ---------------------------------------------------------------------------------------------------------- */

/* One tile's part of the parameters. */
typedef struct tile {
    const uint8_t *tables, *planes;
    const uint32_t *at;
    const uint16_t *weights, *runs;
    size_t steps;
    const int16_t *start; /* of the words, by channel */
} tile;

/* Lookups of some channels from `channel` on, to bytes of a block. Inlined with constants, so that the sums are registers. */
INLINE void look_up(const job *j, const tile *t, const size_t vectors, const size_t channels, size_t channel, block *to) {
    const size_t all = vectors * channels;
    const uint16_t *w = t->weights, *end = t->runs;
    vec16 even[TILE], odd[TILE];
#pragma GCC unroll 8
    for (size_t k = 0; k < all; k++)
        odd[k] = words_set(t->start[k / vectors]), even[k] = words_set((int16_t)(t->start[k / vectors] * 257));
    for (size_t s = 0; s < t->steps; end++) {
        vec8 sum[TILE];
#pragma GCC unroll 8
        for (size_t k = 0; k < all; k++)
            sum[k] = bytes_set(0);
        for (; s < *end; s++, w += TILE) {
            const uint8_t *plane = t->planes + t->at[s];
            vec8 index[VECTORS];
#pragma GCC unroll 2
            for (size_t i = 0; i < vectors; i++) {
                index[i] = bytes_load(plane + i * PIXELS);
                KEEP(index[i]);
            }
#pragma GCC unroll 8
            for (size_t k = 0; k < channels; k += 2) {
                uint64_t four; /* fewer loads: tables and planes keep their unit busy */
                __builtin_memcpy(&four, w + k / 4 * 4, sizeof four);
                const vec8 table0 = table_load(t->tables + (uint16_t)(four >> k % 4 * 16));
                const vec8 table1 = table_load(t->tables + (uint16_t)(four >> (k % 4 + 1) * 16));
                vec8 *const s0 = &sum[k * vectors], *const s1 = &sum[(k + 1) * vectors];
                if (vectors == 1) {
                    look_up_two(s0, s1, table0, table1, &index[0], &index[0]);
                } else {
                    look_up_two(s0, s0 + 1, table0, table0, &index[0], &index[1]);
                    look_up_two(s1, s1 + 1, table1, table1, &index[0], &index[1]);
                }
            }
        }
        /* The even words still hold the odd ones times 256, which come off at the end. */
#pragma GCC unroll 8
        for (size_t k = 0; k < all; k++) {
            KEEP(sum[k]);
            even[k] = words_add(even[k], bytes_words(sum[k]));
            odd[k] = words_add(odd[k], words_high(sum[k]));
        }
    }
#pragma GCC unroll 8
    for (size_t k = 0; k < all; k++)
        if (channel + k / vectors < j->g.oc)
            store_words(j->p.window[channel + k / vectors], words_low(even[k], odd[k]), odd[k],
                        &to->low[(channel + k / vectors) % BLOCK][k % vectors * PIXELS], sizeof to->low);
}

APART void look_up_1(const job *j, const tile *t, size_t channel, block *to) { look_up(j, t, 1, TILE, channel, to); }
APART void look_up_2(const job *j, const tile *t, size_t channel, block *to) { look_up(j, t, 2, TILE / 2, channel, to); }

/* ---- Running ---------------------------------------------------------------------------------------------------------- */

/* The residual's values of a block, `count` pixels from `pixel` of the batch. */
static void load_residual(const job *j, size_t pixel, size_t count, size_t channel, block *to) {
    const size_t oc = j->g.oc, channels = oc - channel < BLOCK ? oc - channel : BLOCK;
    const uint8_t *from = (const uint8_t *)j->call->res + pixel * oc + channel;
    for (size_t i = 0; i < count; i += PIXELS, from += PIXELS * oc) {
        if (channels == BLOCK && count - i >= PIXELS) {
            to_planes(from, oc, &to->residual[0][i], sizeof to->residual[0]);
            continue;
        }
        uint8_t some[PIXELS][BLOCK] = {{0}};
        for (size_t x = 0; x < PIXELS && x < count - i; x++)
            memcpy(some[x], from + x * oc, channels);
        to_planes(some[0], BLOCK, &to->residual[0][i], sizeof to->residual[0]);
    }
}

/* A block's sums, low and high bytes by pixel, through the epilogue. */
static void finish_sums(const job *j, size_t pixel, size_t count, size_t channel, const uint8_t *low, const uint8_t *high) {
    const vec offset = vec_load(j->p.offset + channel);
    for (size_t x = 0; x < count; x += TILE) {
        const size_t pixels = count - x < TILE ? count - x : TILE;
        size_t at[TILE];
        vec acc[TILE];
        for (size_t k = 0; k < pixels; k++) {
            const vec v = vec_load_values(low, LBRT_U8, (x + k) * BLOCK, LANES);
            const vec u = vec_load_values(high, LBRT_U8, (x + k) * BLOCK, LANES);
            at[k] = pixel + x + k;
            acc[k] = vec_add(vec_add(v, vec_shift_left(u, 8)), offset);
        }
        const patch p = patch_of(&j->call->site, 1, 0, channel / LANES, at, pixels);
        finish_block(j->call, &j->p.finish, &p, acc, 1);
    }
}

/* A block to results. */
static void store_block(const job *j, size_t pixel, size_t count, size_t channel, block *from) {
    const size_t oc = j->g.oc, channels = oc - channel < BLOCK ? oc - channel : BLOCK, pitch = sizeof from->low[0];
    const size_t n = j->p.constants->thresholds;
    if (n == 1)
        find_codes_of_1(j, pixel, count, channel, channels, from);
    else if (n == 3)
        find_codes_of_3(j, pixel, count, channel, channels, from);
    else if (n > 0)
        find_codes_of_any(j, pixel, count, channel, channels, from);
    for (size_t i = 0; i < count && !(j->call->planar & LBRT_PLANAR_DST); i += PIXELS) {
        const size_t pixels = count - i < PIXELS ? count - i : PIXELS;
        uint8_t *to = (uint8_t *)j->call->dst + (pixel + i) * oc + channel, some[2][PIXELS][BLOCK];
        if (n == 0) {
            to_pixels(&from->low[0][i], pitch, some[0][0], BLOCK);
            to_pixels(&from->high[0][i], pitch, some[1][0], BLOCK);
            finish_sums(j, pixel + i, pixels, channel, some[0][0], some[1][0]);
        } else if (channels == BLOCK && pixels == PIXELS) {
            to_pixels(&from->low[0][i], pitch, to, oc);
        } else {
            to_pixels(&from->low[0][i], pitch, some[0][0], BLOCK);
            for (size_t x = 0; x < pixels; x++)
                memcpy(to + x * oc, some[0][x], channels);
        }
    }
}

/* `count` pixels of the strip from `first`, which are `pixel` and on in the batch. */
static void run_pixels(const job *j, size_t first, size_t pixel, size_t count) {
    const size_t vectors = count > PIXELS ? VECTORS : 1, channels = TILE / vectors;
    block to;
    tile t;
    t.tables = j->p.tables;
    t.planes = j->b.planes + first;
    t.at = j->p.at;
    t.steps = j->p.constants->steps;
    for (size_t channel = 0; channel < j->g.oc; channel += channels) {
        if (channel % BLOCK == 0 && j->p.constants->by_residual && !(j->call->planar & LBRT_PLANAR_RES))
            load_residual(j, pixel, count, channel, &to);
        t.weights = j->p.weights + channel / TILE * t.steps * TILE + channel % TILE;
        t.runs = j->p.runs + channel / TILE * t.steps;
        t.start = j->p.start + channel;
        if (vectors == 1)
            look_up_1(j, &t, channel, &to);
        else
            look_up_2(j, &t, channel, &to);
        const size_t done = channel + channels;
        if (done % BLOCK == 0 || done >= j->g.oc)
            store_block(j, pixel, count, channel / BLOCK * BLOCK, &to);
    }
}

static void run(const lbrt_call *call) {
    const lbrt_site *site = &call->site;
    const size_t oh = (size_t)site->dst->h, ow = (size_t)site->dst->w;
    lbrt_carve prepared = {(uint8_t *)call->prepared, 0}, scratch = {call->scratch, 0};
    job j;
    j.call = call;
    j.g = geometry_of(site);
    j.p = carve(site, &j.g, &prepared);
    j.b = buffers_carve(&j.g, &scratch);
    for (size_t row = call->row0, rows; row < call->row1; row += rows) {
        const size_t oy = row % oh;
        rows = call->row1 - row < oh - oy ? call->row1 - row : oh - oy;
        rows = rows < j.g.rows ? rows : j.g.rows;
        fill(call, &j.g, &j.b, row / oh, oy, rows);
        for (size_t first = 0, count; first < rows * ow; first += count) {
            count = rows * ow - first < VECTORS * PIXELS ? rows * ow - first : VECTORS * PIXELS;
            run_pixels(&j, first, row * ow + first, count);
        }
    }
}

static uint32_t planar(const lbrt_site *site) {
    const uint32_t results = thresholds_of(site) > 0 ? LBRT_PLANAR_DST | LBRT_PLANAR_RES : 0;
    return results | (reads_planes(site) ? LBRT_PLANAR_SRC : 0);
}

const lbrt_kernel LBRT_NAME(planes) = {
    .name = "planes", .op = LBRT_OP_CONV, .accepts = accepts, .prepared_size = prepared_size, .prepare = prepare,
    .scratch_size = scratch_size, .run = run, .cost = cost, .planar = planar};

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
#include "finish.h"
#include "transpose.h"

#define PIXELS BYTES /* of a vector */
#define VECTORS 2 /* of a tile */
#define TILE 8 /* channels whose weights lie together; and sums of a tile */
#define BLOCK 16 /* channels that are transposed together */
#define TABLE 64
#define TABLES_BYTES 4096
#define CLASSES 16 /* which sides are outside: left 1, right 2, top 4, bottom 8 */
#define PLANES_BUDGET ((size_t)128 << 10)
#define SCRATCH_LIMIT ((size_t)64 << 20)
#define MAX_VALUE 8 /* of a source, either sign */
#define MAX_CHANNELS 1024 /* of the result: thresholds and codes take much more memory here than in a file */
#define WINDOW 128 /* sums whose codes are looked up */
#define LEAST_WORD (-INT16_MAX) /* sums of lookups start there where thresholds follow */
#define MOST_SUM (UINT16_MAX - 2) /* no sum reaches what a threshold out of range becomes */

typedef struct geometry {
    size_t c, oc;
    int32_t spread; /* from one source value to the next: 2 for -1 and 1 */
    int code_bits;
    int32_t padding; /* the value that the padding has in the planes */
    size_t together; /* channels of an index */
    size_t pitch; /* channels of a pixel in the padded row: c filled up */
    size_t columns; /* pixels of the padded row */
    size_t rows; /* result rows per strip */
    size_t phase; /* rows of a plane that follow with the vertical stride */
    size_t plane; /* bytes of a plane */
    size_t most_border; /* lookups for the border at most */
} geometry;

static geometry geometry_of(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    const lbrt_tensor *src = site->src;
    const size_t ow = (size_t)site->dst->w, oh = (size_t)site->dst->h, sh = (size_t)l->sh;
    geometry g;
    g.c = (size_t)src->c;
    g.oc = (size_t)site->dst->c;
    g.spread = l->src_signs ? 2 : 1;
    g.code_bits = src->hi - src->lo <= g.spread ? 1 : 2;
    g.padding = src->lo <= 0 && src->hi >= 0 && -src->lo % g.spread == 0 ? 0 : src->lo;
    g.together = g.code_bits == 1 && l->weights.bits == 1 && g.c % 2 == 0 ? 2 : 1;
    g.pitch = (g.c + BLOCK - 1) / BLOCK * BLOCK;
    g.columns = (ow - 1) * (size_t)l->sw + 3;
    /* As many rows as the budget has, if it is not all of them a multiple of what fills whole vectors. */
    const size_t fit = PLANES_BUDGET / (g.pitch / g.together) / ow;
    size_t align = VECTORS * PIXELS;
    while (align > 1 && ow % align != 0)
        align /= 2;
    align = VECTORS * PIXELS / align;
    g.rows = fit > 3 ? (fit - 3) / sh + 1 : 1;
    g.rows = g.rows >= oh ? oh : g.rows > align ? g.rows / align * align : g.rows;
    g.phase = ((g.rows - 1) * sh + 3 + sh - 1) / sh;
    g.plane = ((g.phase * sh * ow + VECTORS * PIXELS) / 64 | 1) * 64; /* not a power of two: many are read at a time */
    const size_t most = (size_t)magnitude(first_weight(&l->weights), last_weight(&l->weights));
    const int border = g.padding != 0 && (l->pt | l->pl | l->pb | l->pr) != 0;
    g.most_border = border ? 16 * g.c * most * (size_t)magnitude(g.padding, 0) / UINT8_MAX + 1 : 0;
    return g;
}

/* Of a pixel, those of filled up channels included. */
static size_t indices_of(const geometry *g) { return g->pitch / g->together; }
static size_t planes_of(const geometry *g) { return (indices_of(g) + BLOCK - 1) / BLOCK * BLOCK; }
static size_t steps_of(const geometry *g) { return 3 * g->c / g->together; } /* lookups without those of the border */
static size_t tiles_of(const geometry *g) { return (g->oc + TILE - 1) / TILE; }

typedef struct buffers {
    uint8_t *row; /* (columns, pitch) codes of a padded source row */
    uint8_t *merged; /* (source rows, ow, indices) */
    uint8_t *planes; /* (planes, plane) the same, transposed */
    uint8_t *border; /* (plane) which sides are outside: the last of the planes */
} buffers;

static buffers buffers_carve(const lbrt_site *site, const geometry *g, lbrt_carve *at) {
    const size_t count = planes_of(g), rows = lbrt_size_mul(g->phase, (size_t)site->layer->sh);
    buffers b;
    b.row = lbrt_take(at, lbrt_size_add(lbrt_size_mul(g->columns, g->pitch), BYTES), 1);
    b.merged = lbrt_take(at, lbrt_size_add(lbrt_size_mul(rows, (size_t)site->dst->w), PIXELS + 1), indices_of(g));
    b.planes = lbrt_take(at, count + (g->most_border > 0), g->plane);
    b.border = b.planes != NULL ? b.planes + count * g->plane : NULL;
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
    const lbrt_tensor *src = site->src, *dst = site->dst;
    if (l->is_float || l->flat || l->groups != 1 || lbrt_is_dilated(l) || l->kh != 3 || l->kw != 3 || l->weights.bits > 2 ||
        (src->type != LBRT_U8 && src->type != LBRT_I8) || !strides_are_small(site) || l->sh > 4)
        return 0;
    if (src->lo < -MAX_VALUE || src->hi > MAX_VALUE || src->hi - src->lo > 3 || dst->c > MAX_CHANNELS)
        return 0;
    const geometry g = geometry_of(site);
    const int64_t most = magnitude(first_weight(&l->weights), last_weight(&l->weights)), range = src->hi - src->lo;
    if (3 * (int64_t)g.together * most * range > UINT8_MAX ||
        9 * (int64_t)g.c * most * range + (int64_t)g.most_border * UINT8_MAX > MOST_SUM ||
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
} constants;

typedef struct parameters {
    constants *constants;
    uint8_t *tables; /* (TABLES_BYTES), (most_border, tiles, TILE, TABLE) */
    uint32_t *at; /* (steps) where in the planes a lookup's indices are */
    uint16_t *weights; /* (tiles, steps, TILE) byte offsets of tables */
    uint16_t *runs; /* (tiles, steps) behind which lookups bytes are added to words */
    int32_t *offset; /* (blocks, BLOCK) an accumulator less the sum of its lookups */
    int16_t *flip; /* (oc) as in `finish` */
    int16_t *thresholds; /* (oc, thresholds, 32) words, chosen by the residual's last 5 bits */
    int16_t *window; /* (oc) where not LEAST_WORD: all thresholds are among this word and the WINDOW - 1 behind it */
    uint8_t *codes; /* (oc, WINDOW) what those words become; words outside become what the first and the last one do */
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
    p.window = lbrt_take(at, g->oc, sizeof *p.window);
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

/* Where the thresholds of channel o are near to each other: the codes of all sums around them. */
static void prepare_window(const lbrt_site *site, const parameters *p, size_t o) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = p->constants->thresholds;
    const int sign = (e->flags & LBRT_SIGN) != 0;
    int32_t first = INT16_MAX, last = INT16_MIN; /* sums that cross one */
    for (size_t k = 0; k < n; k++) {
        const int32_t t = (p->thresholds[(o * n + k) * 32] ^ p->flip[o]) - p->flip[o];
        if (t <= LEAST_WORD || t >= INT16_MAX)
            continue;
        first = t < first ? t : first;
        last = t > last ? t : last;
    }
    if (p->constants->by_residual || last - first > WINDOW - 2 || first == LEAST_WORD + 1)
        return;
    p->window[o] = (int16_t)(first <= last ? first - 1 : 0);
    for (int32_t i = 0; i < WINDOW; i++) {
        const int32_t v = i == 0 ? LEAST_WORD : i < WINDOW - 1 ? p->window[o] + i : INT16_MAX - 1;
        int32_t count = 0;
        for (size_t k = 0; k < n; k++)
            count += (v ^ p->flip[o]) >= p->thresholds[(o * n + k) * 32];
        p->codes[o * WINDOW + (size_t)i] = (uint8_t)(sign ? 2 * count - 1 : e->qlo + count);
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
        p.window[o] = LEAST_WORD;
        if (p.constants->thresholds > 0) {
            prepare_thresholds(site, &p, o);
            prepare_window(site, &p, o);
        }
        if (o % TILE == TILE - 1 || o + 1 == g.oc)
            prepare_runs(&p, o / TILE);
    }
}

/* ---- Planes of the source --------------------------------------------------------------------------------------------- */

/* Codes of a source row into a row of the padding's. */
static void fill_row(const lbrt_site *site, const geometry *g, const uint8_t *src, uint8_t *row) {
    const size_t c = g->c, left = (size_t)site->layer->pl < g->columns ? (size_t)site->layer->pl : g->columns;
    const size_t w = (size_t)site->src->w, inside = g->columns - left < w ? g->columns - left : w;
    const __m512i low = bytes_set((uint8_t)site->src->lo);
    const __m128i shift = _mm_cvtsi32_si128(g->spread - 1);
    row += left * g->pitch;
    const size_t pixels = c == g->pitch ? 1 : inside, each = c == g->pitch ? inside * c : c;
    for (size_t x = 0; x < pixels; x++, src += c, row += g->pitch)
        for (size_t i = 0; i < each; i += BYTES) { /* shifted are even numbers if at all */
            if (each - i >= BYTES) {
                _mm512_storeu_si512(row + i, _mm512_srl_epi16(_mm512_sub_epi8(_mm512_loadu_si512(src + i), low), shift));
                continue;
            }
            const __mmask64 mask = ((__mmask64)1 << (each - i)) - 1;
            const __m512i code = _mm512_sub_epi8(_mm512_maskz_loadu_epi8(mask, src + i), low);
            _mm512_mask_storeu_epi8(row + i, mask, _mm512_srl_epi16(code, shift));
        }
}

/* Stores the first `count` bytes, a multiple of 8: a masked store would take many cycles. */
INLINE void store_parts(uint8_t *to, __m512i v, size_t count) {
    if (count >= 64) {
        _mm512_storeu_si512(to, v);
        return;
    }
    for (; count >= 16; count -= 16, to += 16) {
        _mm_storeu_si128((__m128i *)to, _mm512_castsi512_si128(v));
        v = _mm512_alignr_epi64(v, v, 2);
    }
    if (count > 0)
        _mm_storel_epi64((__m128i *)to, _mm512_castsi512_si128(v));
}

/* The indices of `count` bytes of a padded row, from one pixel to the next. */
INLINE void merge(const uint8_t *row, const geometry *g, size_t count, uint8_t *to) {
    const __m128i bits = _mm_cvtsi32_si128(g->code_bits), twice = _mm_cvtsi32_si128(2 * g->code_bits);
    for (size_t i = 0; i < count; i += BYTES) {
        const __m512i a = bytes_load(row + i), b = _mm512_sll_epi16(bytes_load(row + i + g->pitch), bits);
        const __m512i v = _mm512_ternarylogic_epi64(a, b, _mm512_sll_epi16(bytes_load(row + i + 2 * g->pitch), twice), 0xfe);
        if (g->together == 1) {
            store_parts(to + i, v, count - i);
        } else { /* three bits of two neighbours */
            const __m256i both = _mm512_cvtepi16_epi8(_mm512_or_si512(v, _mm512_srli_epi16(v, 5)));
            store_parts(to + i / 2, _mm512_castsi256_si512(both), count - i < BYTES ? (count - i) / 2 : BYTES / 2);
        }
    }
}

/* Which sides of the windows of result row oy are outside: of those of the first and last pixel at most the left and right. */
static void fill_border(const lbrt_site *site, const geometry *g, size_t oy, uint8_t *to) {
    const lbrt_layer *l = site->layer;
    const int64_t y = (int64_t)oy * l->sh - l->pt;
    const size_t ow = (size_t)site->dst->w;
    memset(to, (y < 0 ? 4 : 0) + (y + 3 > site->src->h ? 8 : 0), ow);
    to[0] |= l->pl > 0 ? 1 : 0;
    to[ow - 1] |= g->columns > (size_t)(l->pl + site->src->w) ? 2 : 0;
}

/* The planes for `rows` result rows from oy. */
static void fill(const lbrt_call *call, const geometry *g, const buffers *b, size_t image, size_t oy, size_t rows) {
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const size_t ow = (size_t)site->dst->w, sh = (size_t)l->sh, h = (size_t)site->src->h, indices = indices_of(g);
    const size_t source = (size_t)site->src->w * g->c, count = g->phase * sh * ow;
    const int32_t padding = (g->padding - site->src->lo) / g->spread;
    int32_t index = 0;
    for (size_t k = 0; k < 3 * g->together; k++)
        index = index << g->code_bits | padding;
    memset(b->row, padding, g->columns * g->pitch);
    for (size_t i = 0; i < (rows - 1) * sh + 3; i++) {
        const int64_t y = (int64_t)(oy * sh + i) - l->pt;
        uint8_t *to = b->merged + (i % sh * g->phase + i / sh) * ow * indices;
        if (y < 0 || y >= (int64_t)h) {
            memset(to, index, ow * indices);
            continue;
        }
        fill_row(site, g, (const uint8_t *)call->src + (image * h + (size_t)y) * source, b->row);
        if (l->sw == 1)
            merge(b->row, g, ow * g->pitch, to);
        else
            for (size_t x = 0; x < ow; x++)
                merge(b->row + x * (size_t)l->sw * g->pitch, g, g->pitch, to + x * indices);
    }
    for (size_t i = 0; i < count; i += PIXELS)
        for (size_t k = 0; k < indices; k += BLOCK)
            to_planes(b->merged + i * indices + k, indices, b->planes + k * g->plane + i, g->plane);
    for (size_t y = 0; y < rows && g->most_border > 0; y++)
        fill_border(site, g, oy + y, b->border + y * ow);
}

/* ---- Results ---------------------------------------------------------------------------------------------------------- */

/* A block of channels of a tile's pixels, byte planes: codes, or the low and high bytes of sums. Of 16 pixels the even ones come
 * first, because words are packed so. */
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

/* Words of 64 pixels of a channel to numbers of thresholds that they reach, of n. */
INLINE __m512i count_words(const int16_t *thresholds, int16_t flip, const vec16 *v, const uint8_t *residual, const size_t n) {
    const __m512i inverse = _mm512_set1_epi16(flip), one = _mm512_set1_epi16(1);
    __m512i found[2];
    for (size_t i = 0; i < 2; i++) {
        const __m512i x = words_xor(v[i], inverse);
        __m512i r = _mm512_setzero_si512();
        if (residual != NULL) /* its low bytes count */
            r = i == 0 ? bytes_load(residual) : _mm512_srli_epi16(bytes_load(residual), 8);
        found[i] = _mm512_setzero_si512();
        for (size_t k = 0; k < n; k++) {
            __m512i t = words_load(thresholds + 32 * k);
            if (residual != NULL)
                t = _mm512_permutexvar_epi16(r, t);
            found[i] = _mm512_mask_add_epi16(found[i], _mm512_cmpge_epi16_mask(x, t), found[i], one);
        }
    }
    return pack(found[0], found[1]);
}

/* Words of a channel to bytes of a block, `low`, where no window of codes says what they are. */
APART void store_others(const job *j, size_t channel, const vec16 *v, block *to, uint8_t *low) {
    const size_t n = j->p.constants->thresholds, at = (size_t)(low - to->low[0]);
    if (n == 0) {
        const __m512i byte = _mm512_set1_epi16(255);
        _mm512_storeu_si512(low, pack(_mm512_and_si512(v[0], byte), _mm512_and_si512(v[1], byte)));
        _mm512_storeu_si512(to->high[0] + at, pack(_mm512_srli_epi16(v[0], 8), _mm512_srli_epi16(v[1], 8)));
        return;
    }
    const lbrt_epilogue *e = &j->call->site.layer->epilogue;
    const int sign = (e->flags & LBRT_SIGN) != 0;
    const int16_t *thresholds = j->p.thresholds + channel * n * 32, flip = j->p.flip[channel];
    const uint8_t *residual = j->p.constants->by_residual ? to->residual[0] + at : NULL;
    __m512i found;
    if (residual != NULL && n == 1)
        found = count_words(thresholds, flip, v, residual, 1);
    else if (residual != NULL && n == 3)
        found = count_words(thresholds, flip, v, residual, 3);
    else
        found = count_words(thresholds, flip, v, residual, n);
    if (sign)
        found = _mm512_add_epi8(found, found);
    _mm512_storeu_si512(low, _mm512_add_epi8(found, bytes_set((uint8_t)(sign ? -1 : e->qlo))));
}

/* Words of a channel, `at` pixels into the tile, to bytes of a block. */
INLINE void store_words(const job *j, size_t channel, vec16 even, vec16 odd, block *to, size_t at) {
    uint8_t *low = to->low[channel % BLOCK] + at;
    if (j->p.window[channel] == LEAST_WORD) {
        const vec16 v[2] = {even, odd};
        store_others(j, channel, v, to, low);
        return;
    }
    const __m512i first = _mm512_set1_epi16(j->p.window[channel]);
    const __m512i i = pack(_mm512_subs_epi16(even, first), _mm512_subs_epi16(odd, first));
    const uint8_t *table = j->p.codes + channel * WINDOW;
    _mm512_storeu_si512(low, _mm512_permutex2var_epi8(table_load(table), _mm512_min_epu8(i, bytes_set(WINDOW - 1)),
                                                      table_load(table + WINDOW / 2)));
}

/* ---- Lookups ---------------------------------------------------------------------------------------------------------- */

/* One tile's part of the parameters. */
typedef struct tile {
    const uint8_t *tables, *planes;
    const uint32_t *at;
    const uint16_t *weights, *runs;
    size_t steps;
    int16_t start; /* of the words */
} tile;

/* Lookups of some channels from `channel` on, to bytes of a block. Inlined with constants, so that the sums are registers. */
INLINE void look_up(const job *j, const tile *t, const size_t vectors, const size_t channels, size_t channel, block *to) {
    const size_t all = vectors * channels;
    const uint16_t *w = t->weights, *end = t->runs;
    vec16 even[TILE], odd[TILE];
#pragma GCC unroll 8
    for (size_t k = 0; k < all; k++)
        even[k] = odd[k] = words_set(t->start);
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
        /* The even words still hold the odd bytes times 256, which come off at the end. */
#pragma GCC unroll 8
        for (size_t k = 0; k < all; k++) {
            KEEP(sum[k]);
            even[k] = words_add(even[k], bytes_words(sum[k]));
            odd[k] = words_add(odd[k], words_high(sum[k]));
        }
    }
    const vec16 start = words_set(t->start);
#pragma GCC unroll 8
    for (size_t k = 0; k < all; k++)
        if (channel + k / vectors < j->g.oc)
            store_words(j, channel + k / vectors, words_low(even[k], _mm512_sub_epi16(odd[k], start)), odd[k], to,
                        k % vectors * PIXELS);
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
static void store_block(const job *j, size_t pixel, size_t count, size_t channel, const block *from) {
    const size_t oc = j->g.oc, channels = oc - channel < BLOCK ? oc - channel : BLOCK, pitch = sizeof from->low[0];
    for (size_t i = 0; i < count; i += PIXELS) {
        const size_t pixels = count - i < PIXELS ? count - i : PIXELS;
        uint8_t *to = (uint8_t *)j->call->dst + (pixel + i) * oc + channel, some[2][PIXELS][BLOCK];
        if (j->p.constants->thresholds == 0) {
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
    t.start = j->p.constants->thresholds > 0 ? LEAST_WORD : 0;
    for (size_t channel = 0; channel < j->g.oc; channel += channels) {
        if (channel % BLOCK == 0 && j->p.constants->by_residual)
            load_residual(j, pixel, count, channel, &to);
        t.weights = j->p.weights + channel / TILE * t.steps * TILE + channel % TILE;
        t.runs = j->p.runs + channel / TILE * t.steps;
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
    j.b = buffers_carve(site, &j.g, &scratch);
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

const lbrt_kernel LBRT_NAME(planes) = {"planes", LBRT_OP_CONV, accepts, prepared_size, prepare, scratch_size, run, cost};

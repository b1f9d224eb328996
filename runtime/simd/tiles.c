/* Integer convolution, linear layers and groups included, of bytes by the matrix registers of AMX.
 *
 * A strip (strip.h) has no gaps: its columns are a multiple of the horizontal stride, and its rows stand in as many phases as
 * the vertical one, those that a kernel row reads behind each other. So the sources of all result pixels of a strip, row after row,
 * are equally far apart, which is how a register of sources is loaded: no columns of an image are made. At the end of each row
 * there are some positions that are no results. The weights of a block and 64 inputs, in steps of 4 inputs, are a register as they
 * are; large weights of few bits are packed, because they come from beyond the first caches, and unpacked a little before their
 * use. At most five accumulators, of the same block, are computed at a time.
 *
 * The matrix unit waits if it is given nothing for longer than some products take. So sums are stored while the first products
 * of the next ones are computed, and finished between the products that follow.
 *
 * Where three kernel rows of few inputs are a register of weights each, there are columns (columns.h) instead.
 *
 * Sums of a window's values, where weights do not fit a byte (strip.h), are those of one more block of weights that are all 1. */
#include "columns.h"

#define SUMS 5 /* accumulators: registers 0..4; sources: 5, 6; weights: 7 */
#define PACKED_FROM ((size_t)128 << 10) /* bytes of weights: fewer stay near enough as they are */
#define AHEAD 2 /* products between unpacking weights and using them: stores have to be through by then */
#define RING 4 /* registers of unpacked weights */
#define TILE_SIZE (TILE_ROWS * TILE_BYTES)

/* Registers that a strip takes. */
typedef struct shape {
    size_t width; /* positions of a row */
    size_t rows; /* positions of a register */
    size_t bytes; /* inputs of a register, a multiple of STEP */
    size_t products; /* of registers, for a sum */
    size_t packed; /* weights in a byte of memory, 1: not packed */
} shape;

static size_t positions_of(const lbrt_site *site, const shape *s, size_t rows) {
    return (rows - 1) * s->width + (size_t)site->dst->w;
}

/* As few registers as there can be, all nearly as full as each other. */
static size_t share(size_t count, size_t most) {
    const size_t parts = (count + most - 1) / most;
    return (count + parts - 1) / parts;
}

/* Sources that are multiplied as signed bytes. */
static int is_signed(const lbrt_tensor *src) { return src->lo < 0 && src->lo >= INT8_MIN && src->hi <= INT8_MAX; }

static geometry geometry_of(const lbrt_site *site, shape *s) {
    const lbrt_layer *l = site->layer;
    const size_t sh = (size_t)l->sh, sw = (size_t)l->sw, kh = (size_t)l->kh, kw = (size_t)l->kw;
    geometry g;
    g.groups = (size_t)l->groups;
    g.blocks = blocks_of(site, g.groups);
    g.c = (size_t)lbrt_view(site).c / g.groups;
    g.size = 1;
    g.offset = is_signed(site->src) ? 0 : stored_offset(site->src);
    s->bytes = (share(kw * g.c, TILE_BYTES) + STEP - 1) / STEP * STEP;
    g.steps = (kw * g.c + s->bytes - 1) / s->bytes * (s->bytes / STEP);
    g.part = g.c % TILE_BYTES == 0 ? TILE_BYTES / STEP : 0;
    s->products = lbrt_size_mul(kh, g.steps * STEP / s->bytes);
    const size_t all = lbrt_size_mul(lbrt_size_mul(g.groups * g.blocks, s->products), TILE_SIZE);
    const int packs = all >= PACKED_FROM && g.part > 0 && l->weights.bits <= 4 && weights_fit_byte(&l->weights);
    s->packed = !packs ? 1 : l->weights.bits > 2 ? 2 : 4;
    s->width = (size_t)site->dst->w - 1 + (kw + sw - 1) / sw;
    g.columns = s->width * sw;
    g.stride = lbrt_size_mul(g.columns, g.c);
    g.rows = rows_within_budget(site, g.stride);
    g.phases = sh;
    g.phase = lbrt_size_mul(g.rows + (kh - 1) / sh, g.stride);
    s->rows = share(positions_of(site, s, g.rows), TILE_ROWS);
    return g;
}

typedef struct buffers {
    uint8_t *strip;
    int32_t *sums; /* (positions) what windows add to accumulators */
    int8_t *unpacked; /* (RING) registers of weights */
} buffers;

static buffers buffers_carve(const lbrt_site *site, const geometry *g, const shape *s, lbrt_carve *at) {
    const size_t phases = g->phases < (size_t)site->layer->kh ? g->phases : (size_t)site->layer->kh;
    const size_t positions = positions_of(site, s, g->rows);
    /* The last register may read inputs and positions too much. */
    const size_t beyond = lbrt_size_add(lbrt_size_mul(TILE_ROWS * g->c, (size_t)site->layer->sw), 2 * TILE_BYTES);
    buffers b;
    b.strip = lbrt_take(at, lbrt_size_add(lbrt_size_mul(phases, g->phase), beyond), 1);
    b.sums = lbrt_take(at, weights_fit_byte(&site->layer->weights) ? 0 : positions, sizeof *b.sums);
    b.unpacked = lbrt_take(at, s->packed > 1 ? RING : 0, TILE_SIZE);
    return b;
}

static size_t scratch_size(const lbrt_site *site) {
    shape s;
    const geometry g = geometry_of(site, &s);
    lbrt_carve at = {NULL, 0};
    buffers_carve(site, &g, &s, &at);
    return at.used;
}

static int accepts(const lbrt_site *site) {
    const lbrt_tensor *src = site->src;
    return !site->layer->is_float && src->type != LBRT_F32 && stored_run(src, 0) > 0 && !lbrt_is_dilated(site->layer) &&
           strides_are_small(site) && scratch_size(site) <= STRIP_LIMIT;
}

/* Measured: a product of registers takes 20 cycles with its loads, 30 where their rows cross lines of the cache, the results of a
 * position and block 5 by quads.h, else about as in `dot`; the strip is copied at 16 bytes per cycle. */
static size_t cost(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    shape s;
    const geometry g = geometry_of(site, &s);
    const size_t oh = (size_t)site->dst->h, pixels = oh * (size_t)site->dst->w, strips = (oh + g.rows - 1) / g.rows;
    const size_t registers = strips * ((positions_of(site, &s, g.rows) + s.rows - 1) / s.rows);
    const size_t all = g.groups * g.blocks;
    const int crossing = l->kw > 1 && g.c % TILE_BYTES != 0;
    const size_t each = lbrt_size_add(lbrt_size_mul(s.products, crossing ? 30 : 20), 10);
    const size_t fill = lbrt_size_mul(lbrt_size_mul(g.groups, g.stride), oh * (size_t)l->sh) / 16;
    const size_t extra = weights_fit_byte(&l->weights) ? 0 : g.groups;
    const size_t total = lbrt_size_add(lbrt_size_mul(lbrt_size_mul(registers, all + extra), each), fill);
    return lbrt_size_add(total / pixels, all * (quad_levels(site) > 0 ? 5 : 10) + 1000 / pixels);
}

/* ---- What is prepared ------------------------------------------------------------------------------------------------- */

/* What would take some time to find for each call. */
typedef struct layout {
    geometry g;
    shape s;
} layout;

typedef struct weights {
    layout *layout;
    parameters p;
    quads q;
    size_t *at; /* (products) where the sources of each are, from those of the first on */
    size_t *pixel; /* (positions) the places of their results, from a strip's first one on */
    vec *values; /* (3) of packed weights, by their codes */
    int8_t *ones; /* (products, bytes / STEP, LANES, STEP) */
    vec *start; /* of their sums */
} weights;

static weights weights_carve(const lbrt_site *site, const geometry *g, const shape *s, lbrt_carve *at) {
    const size_t extra = weights_fit_byte(&site->layer->weights) ? 0 : 1;
    weights w;
    w.layout = lbrt_take(at, 1, sizeof *w.layout);
    w.ones = lbrt_take(at, lbrt_size_mul(s->products, s->bytes * LANES), extra);
    w.start = lbrt_take(at, extra, sizeof *w.start);
    w.at = lbrt_take(at, lbrt_size_add(s->products, 2), sizeof *w.at);
    w.pixel = lbrt_take(at, lbrt_size_add(positions_of(site, s, g->rows), 4), sizeof *w.pixel); /* quads look ahead */
    w.values = lbrt_take(at, 3, sizeof *w.values);
    w.q = quads_carve(site, g->groups, at);
    w.p = parameters_carve(site, g, at);
    return w;
}

static size_t prepared_size(const lbrt_site *site) {
    shape s;
    const geometry g = geometry_of(site, &s);
    lbrt_carve at = {NULL, 0};
    weights_carve(site, &g, &s, &at);
    return at.used;
}

/* The weights of a register: those of `packed` rows in the bytes of one. `to` may be where they are, or before. */
static void pack(const lbrt_weights *w, size_t packed, const int8_t *from, uint8_t *to) {
    const size_t rows = TILE_ROWS / packed, bits = 8 / packed;
    uint8_t all[TILE_SIZE] = {0};
    for (size_t i = 0; i < sizeof all; i++)
        for (size_t code = 0; code < (size_t)1 << w->bits; code++)
            if (from[i] == w->mul * (int32_t)code + w->add) {
                all[i / (packed * TILE_BYTES) * TILE_BYTES + i % TILE_BYTES] |= (uint8_t)(code << i / TILE_BYTES % packed * bits);
                break;
            }
    memcpy(to, all, rows * TILE_BYTES);
}

static void prepare(const lbrt_site *site, void *prepared) {
    const lbrt_weights *stored = &site->layer->weights;
    const size_t kh = (size_t)site->layer->kh, kw = (size_t)site->layer->kw, ow = (size_t)site->dst->w;
    shape s;
    const geometry g = geometry_of(site, &s);
    const size_t segment = kw * g.c, each = s.bytes / STEP;
    lbrt_carve at = {prepared, 0};
    const weights w = weights_carve(site, &g, &s, &at);
    memset(prepared, 0, at.used);
    w.layout->g = g;
    w.layout->s = s;
    parameters_prepare(site, &g, &w.p);
    quads_prepare(site, g.groups, &w.q);
    for (size_t y = 0; y < kh; y++)
        for (size_t k = 0; k < g.steps; k += each)
            w.at[step_place(site->layer, &g, y, k) / each] = strip_row(&g, y) + k * STEP;
    for (size_t y = 0, i = 0, all = positions_of(site, &s, g.rows); i < all; y++)
        for (size_t x = 0; x < s.width && i < all; x++, i++)
            w.pixel[i] = y * ow + (x < ow ? x : ow);
    if (s.packed > 1) {
        const size_t bits = 8 / s.packed;
        for (size_t i = 0; i < 3; i++)
            for (size_t k = 0; k < TILE_BYTES; k++) {
                const int32_t code = (int32_t)(k >> i * bits & ((1u << stored->bits) - 1));
                ((int8_t *)&w.values[i])[k] = (int8_t)(stored->mul * code + stored->add);
            }
        uint8_t *packed = (uint8_t *)w.p.weights;
        for (size_t i = 0; i < g.groups * g.blocks * s.products; i++)
            pack(stored, s.packed, w.p.weights + i * TILE_SIZE, packed + i * TILE_SIZE / s.packed);
    }
    if (weights_fit_byte(stored))
        return;
    for (size_t y = 0; y < kh; y++)
        for (size_t i = 0; i < segment; i++)
            for (size_t lane = 0; lane < LANES; lane++)
                w.ones[(step_place(site->layer, &g, y, i / STEP) * LANES + lane) * STEP + i % STEP] = 1;
    *w.start = vec_set((int32_t)(0u - (uint32_t)g.offset * (uint32_t)(kh * segment)));
}

/* ---- Running ----------------------------------------------------------------------------------------------------------- */

typedef struct job {
    shape s;
    weights w;
    buffers b;
} job;

/* Sums that are to be finished: `count` positions of the strip from `first` on. */
typedef struct pending {
    vec acc[SUMS * TILE_ROWS];
    size_t group, block, first, count;
} pending;

typedef struct operands {
    const lbrt_call *call; /* its results start with the strip's */
    const geometry *g;
    const job *j;
    size_t pixel; /* bytes from one position to the next */
    const uint8_t *src; /* the first position's first input */
    const int8_t *weights; /* of the block */
    const uint8_t *packed; /* the same ones, to be unpacked there; NULL: they are */
    size_t ring; /* mask of a product's place in weights */
    const vec *start;
    int zero; /* starts are zeros */
    int is_signed; /* sources */
    size_t each; /* quads that are finished with a product of all registers */
    size_t registers; /* of positions whose sums the accumulators hold */
    pending p; /* these, from when they are stored */
} operands;

/* Weights of a register. */
INLINE void unpack(const vec *values, size_t packed, const uint8_t *from, int8_t *to) {
    if (packed == 4)
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++, to += 4 * TILE_BYTES) {
            const vec v = vec_load(from + i * TILE_BYTES);
            vec_store(to, bytes_look_up(values[0], v));
            vec_store(to + TILE_BYTES, bytes_look_up(values[1], v));
            vec_store(to + 2 * TILE_BYTES, bytes_look_up(values[2], v));
            vec_store(to + 3 * TILE_BYTES, bytes_look_up(values[0], _mm512_srli_epi16(v, 6)));
        }
    else
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++, to += 2 * TILE_BYTES) {
            const vec v = vec_load(from + i * TILE_BYTES);
            vec_store(to, bytes_look_up(values[0], v));
            vec_store(to + TILE_BYTES, bytes_look_up(values[0], _mm512_srli_epi16(v, 4)));
        }
}

/* Positions that are no results are written, too, where later ones belong. */
APART void finish_sums(operands *o) {
    const lbrt_call *call = o->call;
    const lbrt_weights *stored = &call->site.layer->weights;
    pending *p = &o->p;
    const patch at = patch_of(&call->site, o->g->groups, p->group, p->block, o->j->w.pixel + p->first, p->count);
    if (!weights_fit_byte(stored)) {
        const vec mul = vec_set(split_of(stored).mul);
        for (size_t k = 0; k < p->count; k++)
            p->acc[k] = vec_add(vec_mul(p->acc[k], mul), vec_set(o->j->b.sums[p->first + k]));
    }
    finish_block(call, &o->j->w.p.finish, &at, p->acc, 1);
}

INLINE quad quads_of(const operands *o) {
    const pending *p = &o->p;
    const size_t channel = (p->group * o->g->blocks + p->block) * LANES;
    quad q = {p->acc, o->j->w.pixel + p->first, p->count, (uint8_t *)o->call->dst + channel, {NULL}};
    quad_aim(&q, (size_t)o->call->site.dst->c);
    return q;
}

INLINE quad_rule rule_of(const operands *o, const int how) {
    const size_t block = o->p.group * o->g->blocks + o->p.block;
    return quads_rule(&o->j->w.q, o->call, block, how);
}

/* Accumulator i: what it holds is stored; and it starts anew. */
#define STORE(i)                                                              \
    do {                                                                      \
        if (o->registers > (i))                                               \
            tile_store(i, o->p.acc + (i) * o->j->s.rows, sizeof(vec));        \
    } while (0)
#define START(i)                                                              \
    do {                                                                      \
        STORE(i);                                                             \
        if (o->zero)                                                          \
            tile_zero(i);                                                     \
        else                                                                  \
            tile_load(i, o->start, 0);                                        \
    } while (0)

#define DOT(sum, src)                                                         \
    do {                                                                      \
        if (o->is_signed)                                                     \
            tile_dot_signed(sum, src, 7);                                     \
        else                                                                  \
            tile_dot(sum, src, 7);                                            \
    } while (0)

/* After product i of a step: its share of the quads that are finished there. */
#define FINISH(i)                                                                 \
    do {                                                                          \
        for (size_t k = i; how & IN_QUADS && k < each && q->left > 0; k += m)     \
            quad_finish(q, rule, how);                                            \
    } while (0)

/* A product of m registers of positions, `next` bytes from one to the next; before the first one of its sum an accumulator is
 * stored. Inlined with constants. */
INLINE void multiply_once(operands *o, const uint8_t *src, size_t pixel, size_t next, const int8_t *w, const size_t m,
                          const int first, quad *q, const quad_rule *rule, size_t each, const int how) {
    tile_load(7, w, LANES * STEP);
    tile_load(5, src, pixel);
    if (first)
        START(0);
    DOT(0, 5);
    FINISH(0);
    if (m > 1) {
        tile_load(6, src + next, pixel);
        if (first)
            START(1);
        DOT(1, 6);
        FINISH(1);
    }
    if (m > 2) {
        tile_load(5, src + 2 * next, pixel);
        if (first)
            START(2);
        DOT(2, 5);
        FINISH(2);
    }
    if (m > 3) {
        tile_load(6, src + 3 * next, pixel);
        if (first)
            START(3);
        DOT(3, 6);
        FINISH(3);
    }
    if (m > 4) {
        tile_load(5, src + 4 * next, pixel);
        if (first)
            START(4);
        DOT(4, 5);
        FINISH(4);
    }
}

/* Sums of m registers of positions, while those before are finished. What the loop needs is copied, because what is stored could
 * be anything's. */
INLINE void multiply(operands *o, const size_t m, const int how) {
    const job *j = o->j;
    const size_t products = j->s.products, *const at = j->w.at, ring = o->ring, bytes = j->s.bytes * LANES, packed = j->s.packed;
    const size_t pixel = o->pixel, next = j->s.rows * pixel, each = o->each, part = TILE_SIZE / packed;
    const uint8_t *const src = o->src, *const from = o->packed;
    int8_t *const w = (int8_t *)o->weights;
    const vec *const values = j->w.values;
    quad q = {NULL, NULL, 0, NULL, {NULL}};
    quad_rule rule;
    if (how & IN_QUADS) {
        q = quads_of(o);
        rule = rule_of(o, how);
    }
    if (m < 2)
        STORE(1);
    if (m < 3)
        STORE(2);
    if (m < 4)
        STORE(3);
    if (m < 5)
        STORE(4);
    multiply_once(o, src + at[0], pixel, next, w, m, 1, &q, &rule, 0, how);
    if (from != NULL && AHEAD < products)
        unpack(values, packed, from + AHEAD * part, w + (AHEAD & ring) * bytes);
    size_t place = at[1];
    for (size_t i = 1; i < products; i++) {
        const uint8_t *here = src + place;
        place = at[i + 1];
        multiply_once(o, here, pixel, next, w + (i & ring) * bytes, m, 0, &q, &rule, each, how);
        if (from != NULL && i + AHEAD < products)
            unpack(values, packed, from + (i + AHEAD) * part, w + ((i + AHEAD) & ring) * bytes);
        if (!(how & IN_QUADS) && i == 1 && o->p.count > 0)
            finish_sums(o);
    }
    while (how & IN_QUADS && q.left > 0)
        quad_finish(&q, &rule, how);
    if (!(how & IN_QUADS) && products == 1 && o->p.count > 0)
        finish_sums(o);
    o->registers = m;
}

#define CASES(how)                                     \
    case SUMS * (how) + 1: multiply(o, 1, how); break; \
    case SUMS * (how) + 2: multiply(o, 2, how); break; \
    case SUMS * (how) + 3: multiply(o, 3, how); break; \
    case SUMS * (how) + 4: multiply(o, 4, how); break; \
    case SUMS * (how) + 5: multiply(o, 5, how); break;

APART void multiply_registers(operands *o, size_t m, int how) {
    switch ((size_t)how * SUMS + m) {
        CASES(0)
        CASES(IN_WORDS)
        CASES(IN_WORDS + OF_THREE)
        CASES(IN_WORDS + WITH_RESIDUAL)
        CASES(IN_BYTES + OF_ONE)
        CASES(IN_BYTES + OF_ONE + WITH_RESIDUAL)
        CASES(IN_BYTES + OF_THREE)
        CASES(IN_BYTES + OF_THREE + WITH_RESIDUAL)
    }
}

static void store_all(operands *o) {
    STORE(0);
    STORE(1);
    STORE(2);
    STORE(3);
    STORE(4);
    o->registers = 0;
}

/* Into sums: what is added to the products of positions 0..count-1. */
static void sum_windows(operands *o, int32_t rest, size_t count) {
    const size_t rows = o->j->s.rows, registers = (count + rows - 1) / rows;
    o->weights = o->j->w.ones;
    o->packed = NULL;
    o->ring = SIZE_MAX;
    o->start = o->j->w.start;
    o->p.count = 0;
    for (size_t i = 0, m; i < registers; i += m) {
        m = registers - i < SUMS ? registers - i : SUMS;
        o->src = o->j->b.strip + i * rows * o->pixel;
        multiply_registers(o, m, 0);
        store_all(o);
        for (size_t k = i * rows; k < (i + m) * rows && k < count; k++)
            o->j->b.sums[k] = (int32_t)((uint32_t)_mm512_cvtsi512_si32(o->p.acc[k - i * rows]) * (uint32_t)rest);
    }
}

/* The call with row `row` of the results as the first one. */
static lbrt_call from_row(const lbrt_call *call, size_t row) {
    const lbrt_site *site = &call->site;
    const size_t at = row * (size_t)site->dst->w * (size_t)site->dst->c;
    lbrt_call c = *call;
    c.dst = (uint8_t *)call->dst + at * lbrt_type_size(site->dst->type);
    if (site->res != NULL)
        c.res = (const uint8_t *)call->res + at * lbrt_type_size(site->res->type);
    return c;
}

#define LAST(how) case how: finish_last(o, how); break;

INLINE void finish_last(operands *o, const int how) {
    quad q = quads_of(o);
    const quad_rule rule = rule_of(o, how);
    while (q.left > 0)
        quad_finish(&q, &rule, how);
}

/* The last ones. */
static void finish_now(operands *o, int how) {
    store_all(o);
    switch (how) {
        LAST(IN_WORDS)
        LAST(IN_WORDS + OF_THREE)
        LAST(IN_WORDS + WITH_RESIDUAL)
        LAST(IN_BYTES + OF_ONE)
        LAST(IN_BYTES + OF_ONE + WITH_RESIDUAL)
        LAST(IN_BYTES + OF_THREE)
        LAST(IN_BYTES + OF_THREE + WITH_RESIDUAL)
    default: finish_sums(o);
    }
}

/* All blocks of some positions after each other, so that their results fill lines of the cache. */
static void run_group(const lbrt_call *whole, const geometry *g, const void *job_of_call, size_t group, size_t row, size_t rows) {
    const job *j = job_of_call;
    const lbrt_call call = from_row(whole, row);
    const lbrt_site *site = &call.site;
    const size_t each = j->s.rows, count = positions_of(site, &j->s, rows), registers = (count + each - 1) / each;
    const size_t most = share(registers, SUMS), block_bytes = j->s.products * (j->s.bytes * LANES), part = TILE_SIZE / j->s.packed;
    const int packed = j->s.packed > 1, how = quads_how(site, &j->w.q);
    const size_t steps = j->s.products > 1 ? j->s.products - 1 : 1, quads_at_once = most * each / 4;
    operands o;
    o.call = &call;
    o.g = g;
    o.j = j;
    o.pixel = (size_t)site->layer->sw * g->c;
    o.zero = g->offset == 0;
    o.is_signed = is_signed(site->src);
    o.registers = 0;
    o.p.group = o.p.block = o.p.first = o.p.count = 0;
    if (!weights_fit_byte(&site->layer->weights))
        sum_windows(&o, split_of(&site->layer->weights).rest, count);
    o.each = (quads_at_once + steps - 1) / steps;
    o.ring = packed ? RING - 1 : SIZE_MAX;
    size_t held = 0; /* positions whose sums the accumulators hold */
    for (size_t i = 0, m; i < registers; i += m) {
        m = registers - i < most ? registers - i : most;
        o.src = j->b.strip + i * each * o.pixel;
        for (size_t block = 0; block < g->blocks; block++) {
            const size_t all = group * g->blocks + block;
            const int8_t *stored = j->w.p.weights + all * block_bytes / j->s.packed;
            o.weights = packed ? j->b.unpacked : stored;
            o.packed = packed ? (const uint8_t *)stored : NULL;
            o.start = j->w.p.start + all;
            for (size_t k = 0; k < AHEAD && k < j->s.products && packed; k++)
                unpack(j->w.values, j->s.packed, o.packed + k * part, j->b.unpacked + k * TILE_SIZE);
            o.p.count = held;
            multiply_registers(&o, m, how);
            o.p.group = group;
            o.p.block = block;
            o.p.first = i * each;
            held = count - i * each < m * each ? count - i * each : m * each;
        }
    }
    o.p.count = held;
    finish_now(&o, how);
}

static tile_shapes shapes_of(const shape *s) {
    tile_shapes shapes = {1, 0, {0}, {0}, {0}};
    for (size_t t = 0; t < 8; t++) {
        shapes.rows[t] = (uint8_t)(t < 7 ? s->rows : s->bytes / STEP);
        shapes.bytes[t] = (uint16_t)(t == 5 || t == 6 ? s->bytes : TILE_BYTES);
    }
    return shapes;
}

static void run_columns(const lbrt_call *whole, const geometry *g, const void *job_of_call, size_t group, size_t row, size_t rows) {
    const job *j = job_of_call;
    const lbrt_call call = from_row(whole, row);
    const columns c = {j->b.strip, g->stride, g->c, rows, (size_t)call.site.dst->w / TILE_ROWS, j->w.p.weights, j->s.bytes * LANES,
                       g->offset == 0 ? NULL : j->w.p.start, is_signed(call.site.src), &call, &j->w.q};
    (void)group;
    columns_run(&c, quads_how(&call.site, &j->w.q));
}

static void run(const lbrt_call *call) {
    job j;
    const layout *found = call->prepared; /* its first part */
    const geometry g = found->g;
    lbrt_carve prepared = {(uint8_t *)call->prepared, 0}, scratch = {call->scratch, 0};
    j.s = found->s;
    j.w = weights_carve(&call->site, &g, &j.s, &prepared);
    j.b = buffers_carve(&call->site, &g, &j.s, &scratch);
    const int in_columns = columns_fit(&call->site, j.s.products) && quads_how(&call->site, &j.w.q) != 0;
    const tile_shapes shapes = in_columns ? columns_shapes(j.s.bytes) : shapes_of(&j.s);
    tile_begin(&shapes);
    strip_run(call, &g, in_columns ? run_columns : run_group, &j);
    tile_end();
}

const lbrt_kernel LBRT_NAME(tiles) = {
    .name = "tiles", .op = LBRT_OP_CONV, .accepts = accepts, .prepared_size = prepared_size, .prepare = prepare,
    .scratch_size = scratch_size, .run = run, .cost = cost};

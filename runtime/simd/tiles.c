/* Integer convolution, linear layers and groups included, of bytes by the matrix registers of AMX.
 *
 * A strip (strip.h) has no gaps: its columns are a multiple of the horizontal stride, and its rows stand in as many phases as
 * the vertical one, those that a kernel row reads behind each other. So the sources of all result pixels of a strip, row after row,
 * are equally far apart, which is how a register of sources is loaded: no columns of an image are made. At the end of each row
 * there are some positions that are no results. The weights of a block and 64 inputs, in steps of 4 inputs, are a register as they
 * are. At most four accumulators are computed at a time: two of positions by two of channels, or four by one.
 *
 * Sums of a window's values, where weights do not fit a byte (strip.h), are those of one more block of weights that are all 1. */
#include "amx.h"
#include "strip.h"

#define SUMS 4 /* accumulators: registers 0..3; sources: 4, 5; weights: 6, 7 */
#define BLOCKS 2

/* Registers that a strip takes. */
typedef struct shape {
    size_t width; /* positions of a row */
    size_t rows; /* positions of a register */
    size_t bytes; /* inputs of a register, a multiple of STEP */
} shape;

static size_t positions_of(const lbrt_site *site, const shape *s, size_t rows) {
    return (rows - 1) * s->width + (size_t)site->dst->w;
}

/* As few registers as there can be, all nearly as full as each other. */
static size_t share(size_t count, size_t most) {
    const size_t parts = (count + most - 1) / most;
    return (count + parts - 1) / parts;
}

static geometry geometry_of(const lbrt_site *site, shape *s) {
    const lbrt_layer *l = site->layer;
    const size_t sh = (size_t)l->sh, sw = (size_t)l->sw, kh = (size_t)l->kh, kw = (size_t)l->kw;
    geometry g;
    g.groups = (size_t)l->groups;
    g.blocks = blocks_of(site, g.groups);
    g.c = (size_t)lbrt_view(site).c / g.groups;
    g.size = 1;
    s->bytes = (share(kw * g.c, TILE_BYTES) + STEP - 1) / STEP * STEP;
    g.steps = (kw * g.c + s->bytes - 1) / s->bytes * (s->bytes / STEP);
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
} buffers;

static buffers buffers_carve(const lbrt_site *site, const geometry *g, const shape *s, lbrt_carve *at) {
    const size_t phases = g->phases < (size_t)site->layer->kh ? g->phases : (size_t)site->layer->kh;
    const size_t positions = positions_of(site, s, g->rows);
    /* The last register may read inputs and positions too much. */
    const size_t beyond = lbrt_size_add(lbrt_size_mul(TILE_ROWS * g->c, (size_t)site->layer->sw), 2 * TILE_BYTES);
    buffers b;
    b.strip = lbrt_take(at, lbrt_size_add(lbrt_size_mul(phases, g->phase), beyond), 1);
    b.sums = lbrt_take(at, weights_fit_byte(&site->layer->weights) ? 0 : positions, sizeof *b.sums);
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

/* A product of registers takes 16 cycles, a load 8, a store 16, and the first result 52 (Intel 64 and IA-32 Architectures
 * Optimization Reference Manual); the epilogue is that of `dot`, the strip is copied at 16 bytes per cycle. */
static size_t cost(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    shape s;
    const geometry g = geometry_of(site, &s);
    const size_t oh = (size_t)site->dst->h, pixels = oh * (size_t)site->dst->w, strips = (oh + g.rows - 1) / g.rows;
    const size_t registers = strips * ((positions_of(site, &s, g.rows) + s.rows - 1) / s.rows);
    const size_t products = lbrt_size_mul((size_t)l->kh, g.steps * STEP / s.bytes), all = g.groups * g.blocks;
    const size_t each = lbrt_size_add(lbrt_size_mul(products, 16), 50);
    const size_t fill = lbrt_size_mul(lbrt_size_mul(g.groups, g.stride), oh * (size_t)l->sh) / 16;
    const size_t extra = weights_fit_byte(&l->weights) ? 0 : g.groups;
    const size_t total = lbrt_size_add(lbrt_size_mul(lbrt_size_mul(registers, all + extra), each), fill);
    return lbrt_size_add(total / pixels, all * 11 + 300 / pixels);
}

/* ---- What is prepared ------------------------------------------------------------------------------------------------- */

typedef struct weights {
    parameters p;
    int8_t *ones; /* (kh, steps, LANES, STEP) */
    vec *start; /* of their sums */
} weights;

static weights weights_carve(const lbrt_site *site, const geometry *g, lbrt_carve *at) {
    const size_t extra = weights_fit_byte(&site->layer->weights) ? 0 : 1;
    weights w;
    w.ones = lbrt_take(at, lbrt_size_mul((size_t)site->layer->kh * g->steps, LANES * STEP), extra);
    w.start = lbrt_take(at, extra, sizeof *w.start);
    w.p = parameters_carve(site, g, at);
    return w;
}

static size_t prepared_size(const lbrt_site *site) {
    shape s;
    const geometry g = geometry_of(site, &s);
    lbrt_carve at = {NULL, 0};
    weights_carve(site, &g, &at);
    return at.used;
}

static void prepare(const lbrt_site *site, void *prepared) {
    const size_t kh = (size_t)site->layer->kh;
    shape s;
    const geometry g = geometry_of(site, &s);
    const size_t segment = (size_t)site->layer->kw * g.c;
    lbrt_carve at = {prepared, 0};
    const weights w = weights_carve(site, &g, &at);
    memset(prepared, 0, at.used);
    parameters_prepare(site, &g, &w.p);
    if (weights_fit_byte(&site->layer->weights))
        return;
    for (size_t y = 0; y < kh; y++)
        for (size_t i = 0; i < segment; i++)
            for (size_t lane = 0; lane < LANES; lane++)
                w.ones[((y * g.steps + i / STEP) * LANES + lane) * STEP + i % STEP] = 1;
    *w.start = vec_set((int32_t)(0u - (uint32_t)stored_offset(site->src) * (uint32_t)(kh * segment)));
}

/* ---- Running ----------------------------------------------------------------------------------------------------------- */

typedef struct job {
    shape s;
    weights w;
    buffers b;
} job;

typedef struct operands {
    const geometry *g;
    const shape *s;
    size_t kh, pixel; /* kernel rows; bytes from one position to the next */
    const uint8_t *src; /* the first position's first input */
    const int8_t *weights; /* of the first block */
    const vec *start;
} operands;

/* Accumulators (m * rows positions, n blocks). Inlined with constants: accumulator i * n + b is of positions i and block b. */
INLINE void multiply(const operands *o, const size_t m, const size_t n, vec *out) {
    const size_t bytes = o->s->bytes, steps = o->g->steps, pixel = o->pixel, all = m * n;
    const size_t next = o->s->rows * pixel, block = o->kh * steps * LANES * STEP;
    const int8_t *w = o->weights;
    tile_load(0, o->start, 0);
    if (all > 1)
        tile_load(1, o->start + 1 % n, 0);
    if (all > 2)
        tile_load(2, o->start, 0);
    if (all > 3)
        tile_load(3, o->start + 1 % n, 0);
    for (size_t y = 0; y < o->kh; y++) {
        const uint8_t *src = o->src + strip_row(o->g, y), *const end = src + steps * STEP;
        for (; src < end; src += bytes, w += bytes * LANES) {
            tile_load(6, w, LANES * STEP);
            if (n > 1)
                tile_load(7, w + block, LANES * STEP);
            tile_load(4, src, pixel);
            tile_dot(0, 4, 6);
            if (n > 1)
                tile_dot(1, 4, 7);
            if (m > 1)
                tile_load(5, src + next, pixel);
            if (m > 1 && n > 1) {
                tile_dot(2, 5, 6);
                tile_dot(3, 5, 7);
            } else if (m > 1) {
                tile_dot(1, 5, 6);
            }
            if (m > 2) {
                tile_load(4, src + 2 * next, pixel);
                tile_dot(2, 4, 6);
            }
            if (m > 3) {
                tile_load(5, src + 3 * next, pixel);
                tile_dot(3, 5, 6);
            }
        }
    }
    const size_t row = n * sizeof(vec), part = o->s->rows * n;
    tile_store(0, out, row);
    if (all > 1)
        tile_store(1, out + 1 / n * part + 1 % n, row);
    if (all > 2)
        tile_store(2, out + 2 / n * part, row);
    if (all > 3)
        tile_store(3, out + 3 / n * part + 1 % n, row);
}

APART void multiply_registers(const operands *o, size_t m, size_t n, vec *out) {
    switch (n * SUMS + m) {
    case SUMS + 1: multiply(o, 1, 1, out); break;
    case SUMS + 2: multiply(o, 2, 1, out); break;
    case SUMS + 3: multiply(o, 3, 1, out); break;
    case SUMS + 4: multiply(o, 4, 1, out); break;
    case 2 * SUMS + 1: multiply(o, 1, 2, out); break;
    case 2 * SUMS + 2: multiply(o, 2, 2, out); break;
    }
}

/* Into sums: what is added to the products of positions 0..count-1. */
static void sum_windows(operands *o, const job *j, int32_t rest, size_t count) {
    const size_t rows = j->s.rows, registers = (count + rows - 1) / rows;
    o->weights = j->w.ones;
    o->start = j->w.start;
    for (size_t i = 0, m; i < registers; i += m) {
        vec acc[SUMS * TILE_ROWS];
        m = registers - i < SUMS ? registers - i : SUMS;
        o->src = j->b.strip + i * rows * o->pixel;
        multiply_registers(o, m, 1, acc);
        for (size_t k = i * rows; k < (i + m) * rows && k < count; k++)
            j->b.sums[k] = (int32_t)((uint32_t)_mm512_cvtsi512_si32(acc[k - i * rows]) * (uint32_t)rest);
    }
}

/* Results of positions first..first+count-1 of the strip, which starts at row `row`: those of each row, for each block. */
static void finish_positions(const lbrt_call *call, const geometry *g, const job *j, size_t group, size_t block, size_t blocks,
                             size_t row, size_t first, size_t count, const vec *acc) {
    const size_t width = j->s.width, ow = (size_t)call->site.dst->w;
    size_t x = first % width;
    row += first / width;
    for (size_t i = 0; i < count; i += width - x, x = 0, row++) {
        size_t pixel[SUMS * TILE_ROWS], pixels = 0;
        for (; x + pixels < ow && i + pixels < count; pixels++)
            pixel[pixels] = row * ow + x + pixels;
        for (size_t b = 0; b < blocks && pixels > 0; b++) {
            const patch at = patch_of(&call->site, g->groups, group, block + b, pixel, pixels);
            finish_block(call, &j->w.p.finish, &at, acc + i * blocks + b, blocks);
        }
    }
}

static void run_group(const lbrt_call *call, const geometry *g, const void *job_of_call, size_t group, size_t row, size_t rows) {
    const job *j = job_of_call;
    const lbrt_site *site = &call->site;
    const int byte = weights_fit_byte(&site->layer->weights);
    const split s = split_of(&site->layer->weights);
    const size_t each = j->s.rows, count = positions_of(site, &j->s, rows), registers = (count + each - 1) / each;
    operands o;
    o.g = g;
    o.s = &j->s;
    o.kh = (size_t)site->layer->kh;
    o.pixel = (size_t)site->layer->sw * g->c;
    if (!byte)
        sum_windows(&o, j, s.rest, count);
    for (size_t block = 0, blocks; block < g->blocks; block += blocks) {
        const size_t first = group * g->blocks + block;
        blocks = g->blocks - block < BLOCKS ? 1 : BLOCKS;
        o.weights = j->w.p.weights + first * o.kh * g->steps * LANES * STEP;
        o.start = j->w.p.start + first;
        for (size_t i = 0, m; i < registers; i += m) {
            vec acc[SUMS * TILE_ROWS];
            m = registers - i < SUMS / blocks ? registers - i : SUMS / blocks;
            const size_t at = i * each, most = m * each, here = count - at < most ? count - at : most;
            o.src = j->b.strip + at * o.pixel;
            multiply_registers(&o, m, blocks, acc);
            for (size_t k = 0; k < here && !byte; k++)
                for (size_t b = 0; b < blocks; b++) {
                    vec *v = &acc[k * blocks + b];
                    *v = vec_add(vec_mul(*v, vec_set(s.mul)), vec_set(j->b.sums[at + k]));
                }
            finish_positions(call, g, j, group, block, blocks, row, at, here, acc);
        }
    }
}

static void run(const lbrt_call *call) {
    job j;
    const geometry g = geometry_of(&call->site, &j.s);
    lbrt_carve prepared = {(uint8_t *)call->prepared, 0}, scratch = {call->scratch, 0};
    j.w = weights_carve(&call->site, &g, &prepared);
    j.b = buffers_carve(&call->site, &g, &j.s, &scratch);
    tile_shapes shapes = {1, 0, {0}, {0}, {0}};
    for (size_t t = 0; t < 8; t++) {
        shapes.rows[t] = (uint8_t)(t < 6 ? j.s.rows : j.s.bytes / STEP);
        shapes.bytes[t] = (uint16_t)(t == 4 || t == 5 ? j.s.bytes : TILE_BYTES);
    }
    tile_begin(&shapes);
    strip_run(call, &g, run_group, &j);
    tile_end();
}

const lbrt_kernel LBRT_NAME(tiles) = {
    .name = "tiles", .op = LBRT_OP_CONV, .accepts = accepts, .prepared_size = prepared_size, .prepare = prepare,
    .scratch_size = scratch_size, .run = run, .cost = cost};

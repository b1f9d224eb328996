/* Integer convolution, linear layers and groups included, as dot products of bytes or words of a strip (strip.h) in registers.
 * Words are for sources that do not fit a byte, and for products whose sums do not fit 16 bits where the instruction set adds
 * them up so. */
#include "strip.h"
#include "tile.h"

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
    g.offset = g.size == 1 ? stored_offset(site->src) : 0;
    g.steps = ((size_t)l->kw * g.c * g.size + STEP - 1) / STEP;
    g.columns = (size_t)(site->dst->w - 1) * (size_t)l->sw + (size_t)l->kw;
    /* The last step may read too much, and so may sum_windows(). */
    g.stride = lbrt_size_add(lbrt_size_mul(g.columns, g.c * g.size), LANES * STEP + 63) / 64 * 64;
    g.rows = rows_within_budget(site, g.stride);
    g.phases = 1;
    g.phase = 0;
    g.part = 0;
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

/* Weights of a byte times mul, and the window's sum times rest (strip.h). */
static int is_split(const lbrt_site *site, const geometry *g) { return g->size == 1 && !weights_fit_byte(&site->layer->weights); }

/* Sums of stored values, modulo 2^32. */
typedef struct window_sums {
    uint32_t *four; /* (stride / STEP) of the same four of all kernel rows */
    uint32_t *column; /* (columns) of a pixel's values of all kernel rows */
    uint32_t *window; /* (rows, ow) of a window's values: what they add to an accumulator */
} window_sums;

/* Behind the strip. */
static window_sums sums_carve(const lbrt_site *site, const geometry *g, lbrt_carve *at) {
    const size_t any = is_split(site, g) ? 1 : 0;
    window_sums s;
    lbrt_take(at, strip_size(site, g), 1);
    s.four = lbrt_take(at, any * g->stride / STEP, sizeof *s.four);
    s.column = lbrt_take(at, any * g->columns, sizeof *s.column);
    s.window = lbrt_take(at, any * g->rows * (size_t)site->dst->w, sizeof *s.window);
    return s;
}

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {NULL, 0};
    sums_carve(site, &g, &at);
    return at.used;
}

static size_t cost(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    const size_t steps = lbrt_size_mul((size_t)site->layer->kh, g.steps);
    return lbrt_size_mul(g.groups * g.blocks, lbrt_size_add(steps, 11));
}

static size_t prepared_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {NULL, 0};
    parameters_carve(site, &g, &at);
    return at.used;
}

static void prepare(const lbrt_site *site, void *prepared) {
    const geometry g = geometry_of(site);
    lbrt_carve at = {prepared, 0};
    const parameters p = parameters_carve(site, &g, &at);
    memset(prepared, 0, at.used);
    parameters_prepare(site, &g, &p);
}

/* What the windows of a result row, whose first source row is src, add to accumulators, to window (ow). */
static void sum_windows(const lbrt_site *site, const geometry *g, const uint8_t *src, const window_sums *s, uint32_t *window) {
    const size_t kh = (size_t)site->layer->kh, kw = (size_t)site->layer->kw, sw = (size_t)site->layer->sw;
    const size_t ow = (size_t)site->dst->w, c = g->c;
    if (c % STEP == 0) {
        const vec ones = vec_set(0x01010101);
        for (size_t i = 0; i < g->columns * c; i += LANES * STEP) {
            vec sum = vec_set(0);
            for (size_t y = 0; y < kh; y++)
                sum = vec_add(sum, vec_dot(vec_load(src + y * g->stride + i), ones));
            vec_store(s->four + i / STEP, sum);
        }
        for (size_t x = 0; x < g->columns; x++) {
            uint32_t sum = 0;
            for (size_t i = 0; i < c / STEP; i++)
                sum += s->four[x * (c / STEP) + i];
            s->column[x] = sum;
        }
    } else {
        memset(s->column, 0, g->columns * sizeof *s->column);
        for (size_t y = 0; y < kh; y++)
            for (size_t x = 0; x < g->columns; x++)
                for (size_t i = 0; i < c; i++)
                    s->column[x] += (uint32_t)((const stored_byte *)src)[y * g->stride + x * c + i];
    }
    memset(window, 0, ow * sizeof *window);
    for (size_t k = 0; k < kw; k++)
        for (size_t x = 0; x < ow; x++)
            window[x] += s->column[x * sw + k];
    const uint32_t offsets = (uint32_t)stored_offset(site->src) * (uint32_t)(kh * kw * c);
    const uint32_t rest = (uint32_t)split_of(&site->layer->weights).rest;
    for (size_t x = 0; x < ow; x++)
        window[x] = (window[x] - offsets) * rest;
}

/* Sums of products (pixels, blocks) of a tile to accumulators. */
static void complete(const split *s, const uint32_t *window, size_t pixels, size_t blocks, vec *acc) {
    const vec mul = vec_set(s->mul);
    for (size_t i = 0; i < pixels; i++) {
        const vec add = vec_set((int32_t)window[i]);
        for (size_t b = 0; b < blocks; b++)
            acc[i * blocks + b] = vec_add(vec_mul(acc[i * blocks + b], mul), add);
    }
}

static void run_group(const lbrt_call *call, const geometry *g, const void *job, size_t group, size_t row, size_t rows) {
    const parameters *p = job;
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const size_t ow = (size_t)site->dst->w;
    const int wide = g->size > 1;
    const split s = split_of(&l->weights);
    const size_t row_bytes = (size_t)l->sh * g->stride;
    lbrt_carve scratch = {call->scratch, 0};
    const window_sums window = sums_carve(site, g, &scratch);
    for (size_t y = 0; y < rows && is_split(site, g); y++)
        sum_windows(site, g, (const uint8_t *)call->scratch + y * row_bytes, &window, window.window + y * ow);
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
                t.src = (const uint8_t *)call->scratch + y * row_bytes + x * t.pixel;
                multiply_tile(&t, pixels, blocks, wide, acc);
                if (is_split(site, g))
                    complete(&s, window.window + y * ow + x, pixels, blocks, acc);
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
    const parameters p = parameters_carve(&call->site, &g, &at);
    strip_run(call, &g, run_group, &p);
}

const lbrt_kernel LBRT_NAME(dot) = {
    .name = "dot", .op = LBRT_OP_CONV, .accepts = accepts, .prepared_size = prepared_size, .prepare = prepare,
    .scratch_size = scratch_size, .run = run, .cost = cost};

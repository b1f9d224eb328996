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
    g.steps = ((size_t)l->kw * g.c * g.size + STEP - 1) / STEP;
    g.columns = (size_t)(site->dst->w - 1) * (size_t)l->sw + (size_t)l->kw;
    /* The last step may read too much, and so may sum_window(). */
    g.stride = lbrt_size_add(lbrt_size_mul(g.columns, g.c * g.size), LANES * STEP + 63) / 64 * 64;
    g.rows = rows_within_budget(site, g.stride);
    g.phases = 1;
    g.phase = 0;
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

static size_t scratch_size(const lbrt_site *site) {
    const geometry g = geometry_of(site);
    return strip_size(site, &g);
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

/* LANES * STEP ones, and as many zeros. */
#define ONES_16 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
static const int8_t ones[128] = {ONES_16, ONES_16, ONES_16, ONES_16};

/* Sum of the stored values under a window of the strip, modulo 2^32: kh segments, `row` bytes apart. */
static uint32_t sum_window(const uint8_t *src, size_t row, size_t kh, size_t segment) {
    const size_t most = LANES * STEP;
    vec sum = vec_set(0);
    for (size_t y = 0; y < kh; y++, src += row)
        for (size_t i = 0; i < segment; i += most) {
            const size_t count = segment - i < most ? segment - i : most;
            sum = sums_end(sum, sums_dot(sums_start(sum), vec_load(src + i), vec_load(ones + 64 - count)));
        }
    return (uint32_t)vec_sum(sum);
}

/* Sums of products (pixels, blocks) of a tile to accumulators. */
static void complete(const split *s, const tile *t, size_t segment, int32_t offset, size_t pixels, size_t blocks, vec *acc) {
    const vec mul = vec_set(s->mul);
    const uint32_t extra = (uint32_t)offset * (uint32_t)(t->kh * segment);
    for (size_t i = 0; i < pixels; i++) {
        const uint32_t sum = sum_window(t->src + i * t->pixel, t->row, t->kh, segment) - extra;
        const vec add = vec_set((int32_t)(sum * (uint32_t)s->rest));
        for (size_t b = 0; b < blocks; b++)
            acc[i * blocks + b] = vec_add(vec_mul(acc[i * blocks + b], mul), add);
    }
}

static void run_group(const lbrt_call *call, const geometry *g, const void *job, size_t group, size_t row, size_t rows) {
    const parameters *p = job;
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const size_t ow = (size_t)site->dst->w;
    const int wide = g->size > 1, byte = wide || weights_fit_byte(&l->weights);
    const split s = split_of(&l->weights);
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
                t.src = (const uint8_t *)call->scratch + y * (size_t)l->sh * g->stride + x * t.pixel;
                multiply_tile(&t, pixels, blocks, wide, acc);
                if (!byte)
                    complete(&s, &t, (size_t)l->kw * g->c, stored_offset(site->src), pixels, blocks, acc);
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

const lbrt_kernel LBRT_NAME(dot) = {"dot", LBRT_OP_CONV, accepts, prepared_size, prepare, scratch_size, run, cost};

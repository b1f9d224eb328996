#include "train/backend/winograd.h"

#include <math.h>
#include <omp.h>

#include "quant/rint.h"
#include "train/backend/internal.h"
#include "train/simd/winograd.h"

enum { SLICE = LB_WINOGRAD_SLICE };

struct lb_winograd {
    lb_ctx *ctx;
    const lb_winograd_kernels *kernels;
    lb_winograd_dims forward, backward; /* backward: src is diff_dst, dst is diff_src */
    bool backward_data;
    int threads;
    size_t scratch;            /* bytes of one thread */
    int parts;                 /* the images are cut into, for their sums of the weights' gradient */
    int slices;                /* of input channels times those of output channels */
    lb_winograd_weights weights, turned; /* transformed, for each direction */
    void *zeros;
};

static bool fits(const lb_conv_dims *d) {
    return !d->linear && d->groups == 1 && d->kh == 3 && d->kw == 3 && d->sh == 1 && d->sw == 1 && d->gap_h == 0 && d->gap_w == 0 &&
           d->src_type == d->dst_type && d->ic % LB_WINOGRAD_LANES == 0 && d->oc % LB_WINOGRAD_LANES == 0;
}

static bool allowed(lb_dtype type) {
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    return type == LB_BF16 ? !lb_dnnl_has_amx() : (isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
}

static size_t weight_count(const lb_winograd *w) { return (size_t)w->forward.oc * 9 * (size_t)w->forward.ic; }

/* As many parts as their sums fit a second-level cache, and enough of them with the slices for a few threads. */
static int parts_of(const lb_winograd *w) {
    const int fit = (int)LB_MIN(((size_t)1 << 18) / weight_count(w), (size_t)32), need = (8 + w->slices - 1) / w->slices;
    return LB_MIN(LB_MAX(fit, need), w->forward.mb);
}

static lb_status fill(lb_winograd *w) {
    const size_t c = (size_t)LB_MAX(w->forward.ic, w->forward.oc), size = lb_dtype_size(w->forward.type);
    const size_t transformed = lb_winograd_weights_step(w->forward.oc, w->forward.ic) * LB_WINOGRAD_POSITIONS;
    w->weights.factor = w->turned.factor = (lb_factor)w->forward.type;
    w->weights.numbers = lb_alloc(w->ctx, transformed, size);
    w->weights.start = lb_alloc(w->ctx, (size_t)w->forward.oc * LB_WINOGRAD_POSITIONS, sizeof *w->weights.start);
    w->turned.numbers = w->backward_data ? lb_alloc(w->ctx, transformed, size) : NULL;
    w->zeros = lb_alloc(w->ctx, c, size);
    w->forward.zeros = w->backward.zeros = w->zeros;
    const bool weights = w->weights.numbers && w->weights.start && (w->turned.numbers || !w->backward_data);
    return weights && w->zeros ? LB_OK : LB_ERR_MEMORY;
}

lb_status lb_winograd_create(lb_ctx *ctx, const lb_conv_dims *d, lb_winograd **out) {
    *out = NULL;
    const lb_winograd_kernels *kernels = fits(d) && allowed(d->src_type) ? lb_winograd_select(d->src_type) : NULL;
    if (!kernels)
        return LB_OK;
    lb_winograd *w = lb_alloc(ctx, 1, sizeof *w);
    if (!w)
        return LB_ERR_MEMORY;
    w->ctx = ctx;
    w->kernels = kernels;
    w->backward_data = d->backward_data;
    w->threads = lb_threads(ctx);
    w->forward = (lb_winograd_dims){.type = d->src_type, .mb = d->mb, .ih = d->ih, .iw = d->iw, .ic = d->ic,
                                    .oh = d->oh, .ow = d->ow, .oc = d->oc, .pt = d->pt, .pl = d->pl};
    w->backward = (lb_winograd_dims){.type = d->src_type, .mb = d->mb, .ih = d->oh, .iw = d->ow, .ic = d->oc,
                                     .oh = d->ih, .ow = d->iw, .oc = d->ic, .pt = 2 - d->pt, .pl = 2 - d->pl};
    w->slices = ((d->ic + SLICE - 1) / SLICE) * ((d->oc + SLICE - 1) / SLICE);
    w->parts = parts_of(w);
    w->scratch = LB_MAX(kernels->conv_scratch(&w->forward), kernels->diff_scratch(&w->forward));
    w->scratch = LB_MAX(w->scratch, kernels->conv_scratch(&w->backward));
    const lb_status status = fill(w);
    if (status) {
        lb_winograd_destroy(w);
        return status;
    }
    *out = w;
    return LB_OK;
}

void lb_winograd_destroy(lb_winograd *w) {
    if (!w)
        return;
    lb_free(w->ctx, w->weights.numbers);
    lb_free(w->ctx, w->weights.start);
    lb_free(w->ctx, w->turned.numbers);
    lb_free(w->ctx, w->zeros);
    lb_free(w->ctx, w);
}

/* One for each thread, then the gradients of the weights of each part, if there are several. */
size_t lb_winograd_scratch(const lb_winograd *w) {
    const size_t parts = w->parts > 1 ? (size_t)w->parts : 0;
    return (size_t)w->threads * w->scratch + parts * weight_count(w) * sizeof(float);
}

static void *scratch_of(const lb_winograd *w, void *scratch, int thread) {
    return (unsigned char *)scratch + (size_t)thread * w->scratch;
}

static void *own_scratch(const lb_winograd *w, void *scratch) { return scratch_of(w, scratch, omp_get_thread_num()); }

/* The largest magnitude if all are whole numbers (of at most 22 bits), infinity otherwise. */
LB_CLONES static float largest_whole(const float *values, size_t count) {
    uint32_t largest = 0; /* the bits of positive floats order as they do */
    int real = 0;
    for (size_t i = 0; i < count; i++) {
        const float magnitude = fabsf(values[i]);
        uint32_t bits;
        memcpy(&bits, &magnitude, sizeof bits);
        real |= !(lb_rint(values[i]) == values[i]);
        largest = LB_MAX(largest, bits);
    }
    float whole;
    memcpy(&whole, &largest, sizeof whole);
    return real ? INFINITY : whole;
}

/* Transformed whole numbers have 8 bits in bf16 (weights as fourths), 7 in bytes, sums of products 24 in f32; the last transform
 * adds 9 of them. */
static bool choose_factor(lb_winograd *w, const float *weights, float reach) {
    if (w->forward.type == LB_F32)
        return true;
    const float source = 4 * reach, weight = 9 * largest_whole(weights, weight_count(w)), larger = LB_MAX(source, weight);
    w->weights.factor = larger <= 127 ? LB_FACTOR_S8 : LB_FACTOR_BF16;
    return reach > 0 && larger <= 256 && 9 * source * weight * (float)w->forward.ic <= (float)(1 << 24);
}

bool lb_winograd_set_weights(lb_winograd *w, const float *weights, float reach) {
    const bool exact = choose_factor(w, weights, reach);
#pragma omp parallel for num_threads(w->threads)
    for (int o = 0; o < w->forward.oc; o += LB_WINOGRAD_LANES) {
        if (exact)
            w->kernels->weights(&w->forward, weights, o, &w->weights);
        if (w->backward_data)
            w->kernels->turned(&w->forward, weights, o, &w->turned);
    }
    return exact;
}

static void convolve(lb_winograd *w, const lb_winograd_dims *d, const void *src, const lb_winograd_weights *weights, void *dst,
                     void *scratch) {
    const size_t rows = (size_t)d->mb * lb_winograd_down(d), chunk = lb_winograd_rows(d, LB_WINOGRAD_CONV_TILES);
#pragma omp parallel for num_threads(w->threads)
    for (size_t row = 0; row < rows; row += chunk)
        w->kernels->conv(d, row, LB_MIN(row + chunk, rows), src, weights, dst, own_scratch(w, scratch));
}

void lb_winograd_forward(lb_winograd *w, const void *src, void *dst, void *scratch) {
    convolve(w, &w->forward, src, &w->weights, dst, scratch);
}

void lb_winograd_backward_data(lb_winograd *w, const void *diff_dst, void *diff_src, void *scratch) {
    convolve(w, &w->backward, diff_dst, &w->turned, diff_src, scratch);
}

void lb_winograd_backward_weights(lb_winograd *w, const void *src, const void *diff_dst, float *diff_weights, void *scratch) {
    enum { BLOCK = 9 * LB_WINOGRAD_LANES * LB_WINOGRAD_LANES }; /* weights are a multiple */
    const size_t count = weight_count(w), down = lb_winograd_down(&w->forward), mb = (size_t)w->forward.mb;
    float *diffs = w->parts > 1 ? scratch_of(w, scratch, w->threads) : diff_weights;
    const int across = (w->forward.ic + SLICE - 1) / SLICE;
#pragma omp parallel for num_threads(w->threads) schedule(dynamic)
    for (int unit = 0; unit < w->parts * w->slices; unit++) {
        const size_t part = (size_t)(unit / w->slices), parts = (size_t)w->parts;
        const int slice = unit % w->slices;
        w->kernels->diff(&w->forward, mb * part / parts * down, mb * (part + 1) / parts * down, slice % across * SLICE,
                         slice / across * SLICE, src, diff_dst, diffs + part * count, own_scratch(w, scratch));
    }
    if (w->parts == 1)
        return;
#pragma omp parallel for num_threads(w->threads)
    for (size_t i = 0; i < count; i += BLOCK) {
        memcpy(diff_weights + i, diffs + i, BLOCK * sizeof *diff_weights);
        for (size_t part = 1; part < (size_t)w->parts; part++)
            for (size_t k = 0; k < BLOCK; k++)
                diff_weights[i + k] += diffs[part * count + i + k];
    }
}

#include "train/backend/tiles.h"

#include <omp.h>

#include "train/backend/internal.h"
#include "train/simd/tiles.h"

/* Images are cut into as many parts for their sums of the weights' gradient, and output channels into slices. */
enum { PARTS = 8, SLICE = 128 };

struct lb_tiles {
    lb_ctx *ctx;
    const lb_tiles_conv *conv;
    const lb_tiles_diff *diff;     /* or NULL */
    lb_tiles_dims forward, backward; /* backward: src is diff_dst, dst is diff_src */
    bool backward_data;
    int threads, parts;
    size_t scratch;                /* bytes of one thread */
    void *weights, *turned;
};

static bool fits(const lb_conv_dims *d) {
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(), amx = dnnl_cpu_isa_avx512_core_amx; /* it may have been capped */
    const bool point = d->kh == 1 && d->kw == 1 && (d->pt || d->pl);
    return (isa & amx) == amx && d->src_type == LB_BF16 && d->dst_type == LB_BF16 && !d->linear && d->groups == 1 &&
           d->gap_h == 0 && d->gap_w == 0 && d->oc % LB_TILES_CHANNELS == 0 && d->sh == d->sw && !point;
}

static size_t weight_count(const lb_tiles *t) {
    return (size_t)t->forward.oc * (size_t)t->forward.kh * (size_t)t->forward.kw * (size_t)t->forward.ic;
}

/* Their sums together in a second-level cache. */
static int parts_of(const lb_tiles *t) {
    const size_t fit = ((size_t)1 << 18) / weight_count(t);
    return (int)LB_MIN(LB_MAX(fit, (size_t)1), (size_t)LB_MIN(PARTS, t->forward.mb));
}

static lb_status fill(lb_tiles *t) {
    t->weights = lb_alloc(t->ctx, t->conv->weights_size(&t->forward), 1);
    t->turned = t->backward_data ? lb_alloc(t->ctx, t->conv->weights_size(&t->backward), 1) : NULL;
    return t->weights && (t->turned || !t->backward_data) ? LB_OK : LB_ERR_MEMORY;
}

lb_status lb_tiles_create(lb_ctx *ctx, const lb_conv_dims *d, lb_tiles **out) {
    *out = NULL;
    const lb_tiles_conv *conv = fits(d) ? lb_tiles_conv_find("amx") : NULL;
    if (!conv)
        return LB_OK;
    lb_tiles *t = lb_alloc(ctx, 1, sizeof *t);
    if (!t)
        return LB_ERR_MEMORY;
    t->ctx = ctx;
    t->conv = conv;
    t->diff = d->ic % LB_TILES_CHANNELS == 0 ? lb_tiles_diff_find("amx") : NULL;
    t->forward = (lb_tiles_dims){.mb = d->mb, .ih = d->ih, .iw = d->iw, .ic = d->ic, .oh = d->oh, .ow = d->ow, .oc = d->oc,
                                 .kh = d->kh, .kw = d->kw, .sh = d->sh, .sw = d->sw, .pt = d->pt, .pl = d->pl};
    t->backward = (lb_tiles_dims){.mb = d->mb, .ih = d->oh, .iw = d->ow, .ic = d->oc, .oh = d->ih, .ow = d->iw, .oc = d->ic,
                                  .kh = d->kh, .kw = d->kw, .sh = 1, .sw = 1, .pt = d->kh - 1 - d->pt, .pl = d->kw - 1 - d->pl};
    t->backward_data = d->backward_data && d->sh == 1 && d->ic % LB_TILES_CHANNELS == 0 && t->backward.pt >= 0 && t->backward.pl >= 0;
    t->threads = lb_threads(ctx);
    t->parts = parts_of(t);
    t->scratch = conv->scratch(&t->forward);
    if (t->backward_data)
        t->scratch = LB_MAX(t->scratch, conv->scratch(&t->backward));
    if (t->diff)
        t->scratch = LB_MAX(t->scratch, t->diff->scratch(&t->forward, LB_MIN(SLICE, d->oc)));
    t->scratch = (t->scratch + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN;
    const lb_status status = fill(t);
    if (status) {
        lb_tiles_destroy(t);
        return status;
    }
    *out = t;
    return LB_OK;
}

void lb_tiles_destroy(lb_tiles *t) {
    if (!t)
        return;
    lb_free(t->ctx, t->weights);
    lb_free(t->ctx, t->turned);
    lb_free(t->ctx, t);
}

bool lb_tiles_does(const lb_tiles *t, lb_pass pass) {
    return t && (pass == LB_PASS_FORWARD || (pass == LB_PASS_BACKWARD_DATA ? t->backward_data : t->diff != NULL));
}

/* One for each thread, then the gradients of the weights of each part, if there are several. */
size_t lb_tiles_scratch(const lb_tiles *t) {
    const size_t parts = t->diff && t->parts > 1 ? (size_t)t->parts : 0;
    return (size_t)t->threads * t->scratch + parts * weight_count(t) * sizeof(float);
}

static void *scratch_of(const lb_tiles *t, void *scratch, int thread) { return (unsigned char *)scratch + (size_t)thread * t->scratch; }

void lb_tiles_set_weights(lb_tiles *t, const float *weights) {
#pragma omp parallel for num_threads(t->threads)
    for (int o = 0; o < t->forward.oc; o += LB_TILES_CHANNELS)
        t->conv->weights(&t->forward, weights, o, t->weights);
    if (!t->backward_data)
        return;
#pragma omp parallel for num_threads(t->threads)
    for (int o = 0; o < t->backward.oc; o += LB_TILES_CHANNELS)
        t->conv->turned(&t->backward, weights, o, t->turned);
}

static void convolve(lb_tiles *t, const lb_tiles_dims *d, const void *src, const void *weights, void *dst, void *scratch) {
    const size_t bands = t->conv->bands(d);
#pragma omp parallel num_threads(t->threads)
    {
        const size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
        const size_t first = bands * thread / threads, last = bands * (thread + 1) / threads;
        t->conv->conv(d, first, last, src, weights, dst, scratch_of(t, scratch, (int)thread));
    }
}

void lb_tiles_forward(lb_tiles *t, const void *src, void *dst, void *scratch) {
    convolve(t, &t->forward, src, t->weights, dst, scratch);
}

void lb_tiles_backward_data(lb_tiles *t, const void *diff_dst, void *diff_src, void *scratch) {
    convolve(t, &t->backward, diff_dst, t->turned, diff_src, scratch);
}

void lb_tiles_backward_weights(lb_tiles *t, const void *src, const void *diff_dst, float *diff_weights, void *scratch) {
    const size_t count = weight_count(t), filter = count / (size_t)t->forward.oc;
    const int mb = t->forward.mb, oc = t->forward.oc, slices = (oc + SLICE - 1) / SLICE;
    float *diffs = t->parts > 1 ? scratch_of(t, scratch, t->threads) : diff_weights;
#pragma omp parallel for num_threads(t->threads) schedule(dynamic)
    for (int unit = 0; unit < t->parts * slices; unit++) {
        const int part = unit / slices, slice = unit % slices * SLICE;
        t->diff->diff(&t->forward, (int)((int64_t)mb * part / t->parts), (int)((int64_t)mb * (part + 1) / t->parts), slice,
                      LB_MIN(slice + SLICE, oc), src, diff_dst, diffs + (size_t)part * count,
                      scratch_of(t, scratch, omp_get_thread_num()));
    }
    if (t->parts == 1)
        return;
#pragma omp parallel for num_threads(t->threads)
    for (int o = 0; o < oc; o++) {
        float *sum = diff_weights + (size_t)o * filter;
        memcpy(sum, diffs + (size_t)o * filter, filter * sizeof *sum);
        for (size_t part = 1; part < (size_t)t->parts; part++)
            for (size_t k = 0; k < filter; k++)
                sum[k] += diffs[part * count + (size_t)o * filter + k];
    }
}

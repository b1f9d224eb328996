#include "train/backend/tiles.h"

#include "train/backend/internal.h"
#include "train/simd/tiles.h"

enum { SLICE = 128 }; /* output channels whose weights' gradient is computed at a time */

struct lb_tiles {
    lb_ctx *ctx;
    const lb_tiles_conv *conv;
    const lb_tiles_diff *diff;     /* or NULL */
    lb_tiles_dims forward, backward; /* backward: src is diff_dst, dst is diff_src */
    bool backward_data;
    int threads;
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
    t->diff = lb_tiles_diff_find("amx");
    t->forward = (lb_tiles_dims){.mb = d->mb, .ih = d->ih, .iw = d->iw, .ic = d->ic, .oh = d->oh, .ow = d->ow, .oc = d->oc,
                                 .kh = d->kh, .kw = d->kw, .sh = d->sh, .sw = d->sw, .pt = d->pt, .pl = d->pl};
    t->backward = (lb_tiles_dims){.mb = d->mb, .ih = d->oh, .iw = d->ow, .ic = d->oc, .oh = d->ih, .ow = d->iw, .oc = d->ic,
                                  .kh = d->kh, .kw = d->kw, .sh = 1, .sw = 1, .pt = d->kh - 1 - d->pt, .pl = d->kw - 1 - d->pl};
    t->backward_data = d->backward_data && d->sh == 1 && d->ic % LB_TILES_CHANNELS == 0 && t->backward.pt >= 0 && t->backward.pl >= 0;
    t->threads = lb_threads(ctx);
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

/* One for each thread, then the gradients of the weights of each part. */
size_t lb_tiles_scratch(const lb_tiles *t) {
    return (size_t)t->threads * t->scratch + (t->diff ? LB_PARTS * weight_count(t) * sizeof(float) : 0);
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

void lb_tiles_forward(const lb_tiles *t, const lb_image_range *images, const void *src, void *dst, void *scratch) {
    t->conv->conv(&t->forward, images->first, images->last, src, t->weights, dst, scratch_of(t, scratch, images->thread));
}

void lb_tiles_backward_data(const lb_tiles *t, const lb_image_range *images, const void *diff_dst, void *diff_src, void *scratch) {
    t->conv->conv(&t->backward, images->first, images->last, diff_dst, t->turned, diff_src, scratch_of(t, scratch, images->thread));
}

void lb_tiles_backward_weights(const lb_tiles *t, const lb_image_range *images, const void *src, const void *diff_dst, void *scratch) {
    float *diffs = scratch_of(t, scratch, t->threads);
    for (int o = 0; o < t->forward.oc; o += SLICE)
        t->diff->diff(&t->forward, images->first, images->last, o, LB_MIN(o + SLICE, t->forward.oc), src, diff_dst, !images->begins,
                      diffs + (size_t)images->part * weight_count(t), scratch_of(t, scratch, images->thread));
}

void lb_tiles_add_parts(const lb_tiles *t, float *diff_weights, void *scratch) {
    const float *diffs = scratch_of(t, scratch, t->threads);
    const size_t count = weight_count(t), filter = count / (size_t)t->forward.oc, parts = (size_t)LB_MIN(LB_PARTS, t->forward.mb);
#pragma omp parallel for num_threads(t->threads)
    for (int o = 0; o < t->forward.oc; o++) {
        float *sum = diff_weights + (size_t)o * filter;
        memcpy(sum, diffs + (size_t)o * filter, filter * sizeof *sum);
        for (size_t part = 1; part < parts; part++)
            for (size_t k = 0; k < filter; k++)
                sum[k] += diffs[part * count + (size_t)o * filter + k];
    }
}

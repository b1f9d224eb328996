#include "train/backend/tiles.h"

#include <omp.h>

#include "train/backend/internal.h"
#include "train/simd/tiles.h"

enum { SLICE = 128 };           /* output channels whose weights' gradient is computed at a time */
enum { MANY_WEIGHTS = 1 << 17 }; /* from here on, sums by part take longer than they save */

/* The part of diff_src whose pixels are the stride apart: a convolution of diff_dst with some of the weights, or none. */
typedef struct phase {
    lb_tiles_dims dims;
    lb_tiles_taps taps;
    void *weights;
} phase;

struct lb_tiles {
    lb_ctx *ctx;
    const lb_tiles_conv *conv;
    const lb_tiles_diff *diff;
    lb_tiles_dims forward;
    lb_tiles_dims part;            /* the same with as few images as a part has: diff packs as many together as there are */
    int nphases;                   /* of the gradient of the source; 0: oneDNN computes it */
    phase *phases;
    bool gaps;                     /* some pixels of it have no phase: zeros */
    int threads;
    size_t scratch;                /* bytes of one thread */
    void *weights;
};

static bool fits(const lb_conv_dims *d) {
    const bool point = d->kh == 1 && d->kw == 1 && (d->pt || d->pl);
    const bool src = d->ic % LB_TILES_CHANNELS == 0 || d->ic <= LB_TILES_RUN / d->kw;
    return lb_dnnl_has_amx() && d->src_type == LB_BF16 && d->dst_type == LB_BF16 && !d->linear && d->groups == 1 &&
           d->gap_h == 0 && d->gap_w == 0 && d->oc % LB_TILES_CHANNELS == 0 && d->sh == d->sw && src && !point;
}

static size_t weight_count(const lb_tiles *t) {
    return (size_t)t->forward.oc * (size_t)t->forward.kh * (size_t)t->forward.kw * (size_t)t->forward.ic;
}

/* One dimension of a phase: pixel p + stride j of diff_src is the sum over k of diff_dst[base + j - k] times tap first + stride k.
 * False if there are no such taps or pixels. *padding is negative if the first pixels of diff_dst would be left out. */
static bool phase_of(int p, int stride, int pad, int k, int size, int *first, int *taps, int *results, int *padding) {
    *first = (p + pad) % stride;
    *taps = (k - *first + stride - 1) / stride;
    *results = (size - p + stride - 1) / stride;
    *padding = *taps - 1 - (p + pad - *first) / stride;
    return *taps > 0 && *results > 0;
}

/* Phases of strides; their number, or -1 if one cannot be done. */
static int find_phases(const lb_conv_dims *d, phase *phases) {
    int n = 0;
    for (int y = 0; y < d->sh; y++)
        for (int x = 0; x < d->sw; x++) {
            lb_tiles_dims dims = {.mb = d->mb, .ih = d->oh, .iw = d->ow, .ic = d->oc, .oc = d->ic, .sh = 1, .sw = 1,
                                  .dst_h = d->ih, .dst_w = d->iw, .from_h = y, .from_w = x, .step_h = d->sh, .step_w = d->sw};
            lb_tiles_taps taps = {.kh = d->kh, .kw = d->kw, .sh = d->sh, .sw = d->sw};
            const bool down = phase_of(y, d->sh, d->pt, d->kh, d->ih, &taps.first_h, &dims.kh, &dims.oh, &dims.pt);
            const bool across = phase_of(x, d->sw, d->pl, d->kw, d->iw, &taps.first_w, &dims.kw, &dims.ow, &dims.pl);
            if (!down || !across)
                continue;
            if (dims.pt < 0 || dims.pl < 0 || (dims.kh == 1 && dims.kw == 1 && (dims.pt || dims.pl)))
                return -1;
            phases[n++] = (phase){.dims = dims, .taps = taps};
        }
    return n;
}

static size_t parts_of(const lb_tiles *t) { return (size_t)lb_parts(t->threads, t->forward.mb); }

static lb_status make_backward(lb_tiles *t, const lb_conv_dims *d) {
    if (!d->backward_data || d->ic % LB_TILES_CHANNELS)
        return LB_OK;
    t->phases = lb_alloc(t->ctx, (size_t)d->sh * (size_t)d->sw, sizeof *t->phases);
    if (!t->phases)
        return LB_ERR_MEMORY;
    t->nphases = LB_MAX(find_phases(d, t->phases), 0);
    t->gaps = t->nphases < d->sh * d->sw;
    for (int i = 0; i < t->nphases; i++) {
        phase *p = &t->phases[i];
        t->scratch = LB_MAX(t->scratch, t->conv->scratch(&p->dims));
        p->weights = lb_alloc(t->ctx, t->conv->weights_size(&p->dims), 1);
        if (!p->weights)
            return LB_ERR_MEMORY;
    }
    return LB_OK;
}

static lb_status make(lb_tiles *t, const lb_conv_dims *d) {
    t->forward = (lb_tiles_dims){.mb = d->mb, .ih = d->ih, .iw = d->iw, .ic = d->ic, .oh = d->oh, .ow = d->ow, .oc = d->oc,
                                 .kh = d->kh, .kw = d->kw, .sh = d->sh, .sw = d->sw, .pt = d->pt, .pl = d->pl,
                                 .dst_h = d->oh, .dst_w = d->ow, .step_h = 1, .step_w = 1};
    t->weights = lb_alloc(t->ctx, t->conv->weights_size(&t->forward), 1);
    t->scratch = t->conv->scratch(&t->forward);
    t->part = t->forward;
    t->part.mb = d->mb / lb_parts(t->threads, d->mb);
    for (int o = LB_TILES_CHANNELS; o <= LB_MIN(SLICE, d->oc); o += LB_TILES_CHANNELS) { /* fewer may need more */
        t->scratch = LB_MAX(t->scratch, t->diff->scratch(&t->forward, o));
        t->scratch = LB_MAX(t->scratch, t->diff->scratch(&t->part, o));
    }
    const lb_status status = t->weights ? make_backward(t, d) : LB_ERR_MEMORY;
    t->scratch = (t->scratch + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN;
    return status;
}

lb_status lb_tiles_create(lb_ctx *ctx, const lb_conv_dims *d, lb_tiles **out) {
    *out = NULL;
    const lb_tiles_conv *conv = lb_tiles_conv_find("amx");
    const lb_tiles_diff *diff = lb_tiles_diff_find("amx");
    if (!conv || !diff || !fits(d))
        return LB_OK;
    lb_tiles *t = lb_alloc(ctx, 1, sizeof *t);
    if (!t)
        return LB_ERR_MEMORY;
    t->ctx = ctx;
    t->conv = conv;
    t->diff = diff;
    t->threads = lb_threads(ctx);
    const lb_status status = make(t, d);
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
    for (int i = 0; i < t->nphases; i++)
        lb_free(t->ctx, t->phases[i].weights);
    lb_free(t->ctx, t->phases);
    lb_free(t->ctx, t);
}

bool lb_tiles_does(const lb_tiles *t, lb_pass pass) {
    return t && (pass != LB_PASS_BACKWARD_DATA || t->nphases > 0);
}

bool lb_tiles_by_images(const lb_tiles *t, lb_pass pass) {
    return lb_tiles_does(t, pass) && (pass != LB_PASS_BACKWARD_WEIGHTS || weight_count(t) < MANY_WEIGHTS);
}

size_t lb_tiles_scratch(const lb_tiles *t) { return t->scratch; }

size_t lb_tiles_parts_size(const lb_tiles *t) {
    return lb_tiles_by_images(t, LB_PASS_BACKWARD_WEIGHTS) ? parts_of(t) * weight_count(t) * sizeof(float) : 0;
}

void lb_tiles_set_weights(lb_tiles *t, const float *weights) {
#pragma omp parallel for num_threads(t->threads)
    for (int o = 0; o < t->forward.oc; o += LB_TILES_CHANNELS)
        t->conv->weights(&t->forward, weights, o, t->weights);
    const int slices = t->forward.ic / LB_TILES_CHANNELS;
#pragma omp parallel for num_threads(t->threads)
    for (int i = 0; i < t->nphases * slices; i++) {
        const phase *p = &t->phases[i / slices];
        t->conv->turned(&p->dims, &p->taps, weights, i % slices * LB_TILES_CHANNELS, p->weights);
    }
}

void lb_tiles_forward(const lb_tiles *t, const lb_image_range *images, const void *src, void *dst, void *scratch) {
    t->conv->conv(&t->forward, images->first, images->last, src, t->weights, dst, scratch);
}

void lb_tiles_backward_data(const lb_tiles *t, const lb_image_range *images, const void *diff_dst, void *diff_src, void *scratch) {
    const size_t image = (size_t)t->forward.ih * (size_t)t->forward.iw * (size_t)t->forward.ic * 2;
    if (t->gaps)
        memset((unsigned char *)diff_src + (size_t)images->first * image, 0, (size_t)(images->last - images->first) * image);
    for (int i = 0; i < t->nphases; i++)
        t->conv->conv(&t->phases[i].dims, images->first, images->last, diff_dst, t->phases[i].weights, diff_src, scratch);
}

void lb_tiles_backward_weights(const lb_tiles *t, const lb_image_range *images, const void *src, const void *diff_dst, float *parts,
                               void *scratch) {
    for (int o = 0; o < t->forward.oc; o += SLICE)
        t->diff->diff(&t->part, images->first, images->last, o, LB_MIN(o + SLICE, t->forward.oc), src, diff_dst, !images->begins,
                      parts + (size_t)images->part * weight_count(t), scratch);
}

void lb_tiles_backward_all_weights(const lb_tiles *t, const void *src, const void *diff_dst, float *diff_weights, void *scratch) {
    const int oc = t->forward.oc, fair = (oc / LB_TILES_CHANNELS + t->threads - 1) / t->threads * LB_TILES_CHANNELS;
    const int slice = LB_MIN(fair, SLICE);
#pragma omp parallel for num_threads(t->threads) schedule(dynamic)
    for (int o = 0; o < oc; o += slice)
        t->diff->diff(&t->forward, 0, t->forward.mb, o, LB_MIN(o + slice, oc), src, diff_dst, false, diff_weights,
                      (unsigned char *)scratch + (size_t)omp_get_thread_num() * t->scratch);
}

void lb_tiles_add_parts(const lb_tiles *t, const float *parts, float *diff_weights) {
    const size_t count = weight_count(t), filter = count / (size_t)t->forward.oc, nparts = parts_of(t);
#pragma omp parallel for num_threads(t->threads)
    for (int o = 0; o < t->forward.oc; o++) {
        float *sum = diff_weights + (size_t)o * filter;
        memcpy(sum, parts + (size_t)o * filter, filter * sizeof *sum);
        for (size_t part = 1; part < nparts; part++)
            for (size_t k = 0; k < filter; k++)
                sum[k] += parts[part * count + (size_t)o * filter + k];
    }
}

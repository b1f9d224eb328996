/* Ref convolution: gathers the source values under the kernel, widened to 16 bits (32 where the source's range needs it), and takes
 * plain dot products with the unpacked weights, four output channels and two pixels at a time. The loader has proven that no sum
 * leaves 32 bits. */
#include "epilogue.h"
#include "window.h"

#define PAD 16 /* weights and gathered values are padded with zeros to a multiple of this */
#define OC 4 /* output channels at a time */

static int is_integer_conv(const lbrt_site *site) { return site->layer->op == LBRT_OP_CONV && !site->layer->is_float; }

static int fits16(const lbrt_tensor *t) { return t->lo >= INT16_MIN && t->hi <= INT16_MAX; }

static size_t padded(const lbrt_site *site) {
    return ((size_t)lbrt_weights_per_channel(site->layer, site->src) + PAD - 1) / PAD * PAD;
}

static size_t conv_prepared_size(const lbrt_site *site) {
    return lbrt_size_mul(lbrt_size_mul((size_t)site->dst->c, padded(site)), sizeof(int16_t));
}

/* (oc, K) with K = kh kw ic / groups, padded with zeros. */
static void conv_prepare(const lbrt_site *site, void *prepared) {
    const size_t k = padded(site);
    int16_t *dst = prepared;
    memset(dst, 0, conv_prepared_size(site));
    for (int32_t oc = 0; oc < site->dst->c; oc++)
        lbrt_unpack(site->layer, site->src, oc, dst + (size_t)oc * k);
}

static size_t conv_scratch_size(const lbrt_site *site) {
    return lbrt_size_add(lbrt_size_mul(2 * padded(site), sizeof(int32_t)),
                         lbrt_size_mul(2 * (size_t)site->dst->c, sizeof(int32_t)));
}

typedef struct window {
    const lbrt_call *call;
    lbrt_tensor view;
    int32_t ic; /* per group */
    int wide;
} window;

/* Widens `count` source elements from `at` to element *n of the patch and moves on. */
static void fetch(const window *w, size_t at, size_t count, void *patch, size_t *n) {
    if (w->wide)
        lbrt_widen32(w->call->src, w->view.type, at, count, (int32_t *)patch + *n);
    else
        lbrt_widen16(w->call->src, w->view.type, at, count, (int16_t *)patch + *n);
    *n += count;
}

static void skip(const window *w, size_t count, void *patch, size_t *n) {
    if (w->wide)
        memset((int32_t *)patch + *n, 0, count * sizeof(int32_t));
    else
        memset((int16_t *)patch + *n, 0, count * sizeof(int16_t));
    *n += count;
}

/* The source values (kh, kw, ic / groups) under output (oy, ox) of image n. */
static void gather(const window *w, size_t image, int32_t oy, int32_t ox, int32_t group, void *patch) {
    const lbrt_layer *l = w->call->site.layer;
    const size_t c = (size_t)w->view.c, ic = (size_t)w->ic;
    const int32_t y0 = oy * l->sh - l->pt, x0 = ox * l->sw - l->pl;
    const int32_t left = lbrt_first_tap(x0, l->gap_w, l->kw), end = lbrt_end_tap(x0, l->gap_w, l->kw, w->view.w);
    const int32_t right = end > left ? end : left;
    size_t n = 0;
    for (int32_t ky = 0; ky < l->kh; ky++) {
        const int32_t y = y0 + ky * (l->gap_h + 1);
        if (y < 0 || y >= w->view.h) {
            skip(w, (size_t)l->kw * ic, patch, &n);
            continue;
        }
        const size_t row = (image * (size_t)w->view.h + (size_t)y) * (size_t)w->view.w;
        skip(w, (size_t)left * ic, patch, &n);
        if (ic == c && l->gap_w == 0 && right > left)
            fetch(w, (row + (size_t)(x0 + left)) * c, (size_t)(right - left) * c, patch, &n);
        else
            for (int32_t kx = left; kx < right; kx++)
                fetch(w, (row + (size_t)(x0 + kx * (l->gap_w + 1))) * c + (size_t)group * ic, ic, patch, &n);
        skip(w, (size_t)(l->kw - right) * ic, patch, &n);
    }
}

static void dot_tile(const int16_t *restrict a, const int16_t *restrict b, const int16_t *restrict w, size_t k,
                     int32_t *restrict va, int32_t *restrict vb) {
    const int16_t *restrict w1 = w + k, *restrict w2 = w + 2 * k, *restrict w3 = w + 3 * k;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
    for (size_t i = 0; i < k; i++) {
        a0 += a[i] * w[i];
        a1 += a[i] * w1[i];
        a2 += a[i] * w2[i];
        a3 += a[i] * w3[i];
        b0 += b[i] * w[i];
        b1 += b[i] * w1[i];
        b2 += b[i] * w2[i];
        b3 += b[i] * w3[i];
    }
    va[0] = a0, va[1] = a1, va[2] = a2, va[3] = a3;
    vb[0] = b0, vb[1] = b1, vb[2] = b2, vb[3] = b3;
}

static int32_t dot(const int16_t *restrict a, const int16_t *restrict w, size_t k) {
    int32_t sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += a[i] * w[i];
    return sum;
}

static int32_t dot_wide(const int32_t *restrict a, const int16_t *restrict w, size_t k) {
    int32_t sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += a[i] * w[i];
    return sum;
}

static void conv_run(const lbrt_call *call) {
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const int32_t oh = site->dst->h, ow = site->dst->w, oc = site->dst->c, ocg = oc / l->groups;
    const size_t k = padded(site);
    window w = {call, lbrt_view(site), 0, !fits16(site->src)};
    w.ic = w.view.c / l->groups;
    int32_t *const acc = (int32_t *)call->scratch, *const acc2 = acc + oc;
    void *const patch = acc2 + oc, *const patch2 = (int32_t *)patch + k;
    memset(patch, 0, 2 * k * sizeof(int32_t));
    /* A pair of pixels is two neighbours in the order of rows: also the end of one row and the start of the next. */
    const size_t first = call->row0 * (size_t)ow, last = call->row1 * (size_t)ow;
    for (size_t p = first; p < last; p += 2) {
        const int two = p + 1 < last;
        for (int32_t g = 0; g < l->groups; g++) {
            const int16_t *weights = (const int16_t *)call->prepared + (size_t)g * (size_t)ocg * k;
            int32_t o = 0;
            for (int i = 0; i < 1 + two; i++) {
                const size_t row = (p + (size_t)i) / (size_t)ow, x = (p + (size_t)i) % (size_t)ow;
                gather(&w, row / (size_t)oh, (int32_t)(row % (size_t)oh), (int32_t)x, g, i == 0 ? patch : patch2);
            }
            if (w.wide) {
                for (; o < ocg; o++) {
                    acc[g * ocg + o] = dot_wide(patch, weights + (size_t)o * k, k);
                    acc2[g * ocg + o] = two ? dot_wide(patch2, weights + (size_t)o * k, k) : 0;
                }
                continue;
            }
            for (; o + OC <= ocg; o += OC)
                dot_tile(patch, two ? patch2 : patch, weights + (size_t)o * k, k, acc + g * ocg + o, acc2 + g * ocg + o);
            for (; o < ocg; o++) {
                acc[g * ocg + o] = dot(patch, weights + (size_t)o * k, k);
                acc2[g * ocg + o] = two ? dot(patch2, weights + (size_t)o * k, k) : 0;
            }
        }
        lbrt_epilogue_row(site, acc, call->res, call->dst, p);
        if (two)
            lbrt_epilogue_row(site, acc2, call->res, call->dst, p + 1);
    }
}

const lbrt_kernel lbrt_ref_conv = {
    .name = LBRT_PLAIN, .op = LBRT_OP_CONV, .accepts = is_integer_conv, .prepared_size = conv_prepared_size,
    .prepare = conv_prepare, .scratch_size = conv_scratch_size, .run = conv_run};

/* ---- One channel in, one out per group: vectors run along the channels instead -------------------------------------- */

static int is_depthwise(const lbrt_site *site) {
    return is_integer_conv(site) && site->layer->groups > 1 && site->layer->groups == lbrt_view(site).c &&
           site->layer->groups == site->dst->c;
}

static size_t depthwise_prepared_size(const lbrt_site *site) {
    const size_t taps = (size_t)lbrt_weights_per_channel(site->layer, site->src);
    return lbrt_size_add(lbrt_size_mul(lbrt_size_mul((size_t)site->dst->c, taps), sizeof(int16_t)),
                         lbrt_size_mul(taps, sizeof(int16_t)));
}

/* (kh, kw, c), then room for one channel as it is unpacked. */
static void depthwise_prepare(const lbrt_site *site, void *prepared) {
    const size_t taps = (size_t)lbrt_weights_per_channel(site->layer, site->src), c = (size_t)site->dst->c;
    int16_t *dst = prepared, *one = dst + taps * c;
    for (size_t i = 0; i < c; i++) {
        lbrt_unpack(site->layer, site->src, (int32_t)i, one);
        for (size_t k = 0; k < taps; k++)
            dst[k * c + i] = one[k];
    }
}

static size_t depthwise_scratch_size(const lbrt_site *site) { return lbrt_size_mul(2 * (size_t)site->dst->c, sizeof(int32_t)); }

static void depthwise_run(const lbrt_call *call) {
    const lbrt_site *site = &call->site;
    const lbrt_layer *l = site->layer;
    const lbrt_tensor view = lbrt_view(site);
    const size_t oh = (size_t)site->dst->h, ow = (size_t)site->dst->w, c = (size_t)view.c;
    int32_t *restrict acc = call->scratch, *restrict values = acc + c;
    for (size_t row = call->row0; row < call->row1; row++)
        for (size_t ox = 0; ox < ow; ox++) {
            const int32_t y0 = (int32_t)(row % oh) * l->sh - l->pt, x0 = (int32_t)ox * l->sw - l->pl;
            memset(acc, 0, c * sizeof *acc);
            for (int32_t ky = 0; ky < l->kh; ky++)
                for (int32_t kx = 0; kx < l->kw; kx++) {
                    const int32_t y = y0 + ky * (l->gap_h + 1), x = x0 + kx * (l->gap_w + 1);
                    if (y < 0 || y >= view.h || x < 0 || x >= view.w)
                        continue;
                    const int16_t *restrict w = (const int16_t *)call->prepared + (size_t)(ky * l->kw + kx) * c;
                    lbrt_widen32(call->src, view.type, ((row / oh * (size_t)view.h + (size_t)y) * (size_t)view.w + (size_t)x) * c,
                                 c, values);
                    for (size_t i = 0; i < c; i++)
                        acc[i] += values[i] * w[i];
                }
            lbrt_epilogue_row(site, acc, call->res, call->dst, row * ow + ox);
        }
}

const lbrt_kernel lbrt_ref_depthwise = {
    .name = LBRT_PLAIN, .op = LBRT_OP_CONV, .accepts = is_depthwise, .prepared_size = depthwise_prepared_size,
    .prepare = depthwise_prepare, .scratch_size = depthwise_scratch_size, .run = depthwise_run};

/* For tests of convolutions: all passes of one, as training runs them, against plain loops. */
#ifndef LB_TEST_CONVS_H
#define LB_TEST_CONVS_H

#include "support.h"

#include "quant/rint.h"
#include "train/backend/backend.h"
#include "train/simd/vec.h"

enum { CONV_REACH = 3, CONV_AROUND = 4096 };

/* Whole numbers, which every order of sums and every transform leaves exact, between NaNs: reading beside them shows. */
typedef struct conv_tensor {
    lb_dtype type;
    size_t count;
    unsigned char *block, *data; /* data: (count) */
    double *wanted; /* (count) by the plain loops, or what is in data */
} conv_tensor;

static inline conv_tensor conv_tensor_make(lb_dtype type, size_t count) {
    conv_tensor t = {.type = type, .count = count};
    const size_t bytes = (count * lb_dtype_size(type) + 63) / 64 * 64 + 2 * CONV_AROUND;
    t.block = aligned_alloc(64, bytes);
    t.wanted = calloc(count, sizeof *t.wanted);
    assert_true(t.block && t.wanted);
    memset(t.block, 0xff, bytes);
    t.data = t.block + CONV_AROUND;
    return t;
}

static inline conv_tensor conv_tensor_filled(lb_dtype type, size_t count, uint64_t what) {
    conv_tensor t = conv_tensor_make(type, count);
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    lb_rng_normal(1, LB_RNG_TEST, what, 1, values, count);
    for (size_t i = 0; i < count; i++) {
        const float v = lb_rint(LB_MAX(-CONV_REACH, LB_MIN(CONV_REACH, values[i])));
        t.wanted[i] = (double)v;
        if (type == LB_F32)
            ((float *)t.data)[i] = v;
        else
            ((uint16_t *)t.data)[i] = lb_bf16_put(v);
    }
    free(values);
    return t;
}

/* Also that nothing was written beside it. */
static inline void conv_tensor_check(const conv_tensor *t, const char *name, const char *text) {
    for (size_t i = 0; i < t->count; i++) {
        const bool f32 = t->type == LB_F32;
        const float is = f32 ? ((float *)t->data)[i] : lb_bf16_get(((uint16_t *)t->data)[i]);
        const float wanted = f32 ? (float)t->wanted[i] : lb_bf16_get(lb_bf16_put((float)t->wanted[i]));
        if (!(is == wanted))
            fail_msg("%s: %s %zu of %zu is %g in place of %g", text, name, i, t->count, (double)is, (double)wanted);
    }
    const unsigned char *end = t->data + t->count * lb_dtype_size(t->type);
    for (size_t i = 0; i < CONV_AROUND; i++)
        if (t->block[i] != 0xff || end[i] != 0xff)
            fail_msg("%s: written beside %s", text, name);
}

static inline void conv_tensor_free(conv_tensor *t) {
    free(t->block);
    free(t->wanted);
}

/* The definition of all passes. */
static inline void conv_plain(const lb_conv_dims *d, const conv_tensor *src, const conv_tensor *weights, const conv_tensor *dy,
                              double *dst, double *diff_src, double *diff_weights) {
    const int ic = d->ic / d->groups, oc = d->oc / d->groups;
    for (int n = 0; n < d->mb; n++)
        for (int y = 0; y < d->oh; y++)
            for (int x = 0; x < d->ow; x++)
                for (int k = 0; k < d->kh * d->kw; k++) {
                    const int iy = y * d->sh - d->pt + k / d->kw * (1 + d->gap_h);
                    const int ix = x * d->sw - d->pl + k % d->kw * (1 + d->gap_w);
                    if (iy < 0 || iy >= d->ih || ix < 0 || ix >= d->iw)
                        continue;
                    for (int o = 0; o < d->oc; o++) {
                        const size_t to = (size_t)(((n * d->oh + y) * d->ow + x) * d->oc + o);
                        const size_t w = (size_t)((o * d->kh * d->kw + k) * ic);
                        const size_t from = (size_t)(((n * d->ih + iy) * d->iw + ix) * d->ic + o / oc * ic);
                        for (size_t c = 0; c < (size_t)ic; c++) {
                            dst[to] += src->wanted[from + c] * weights->wanted[w + c];
                            diff_src[from + c] += dy->wanted[to] * weights->wanted[w + c];
                            diff_weights[w + c] += dy->wanted[to] * src->wanted[from + c];
                        }
                    }
                }
}

static inline void conv_run(lb_conv_prims *conv, const lb_conv_dims *d, const conv_tensor *src, const conv_tensor *dy,
                            conv_tensor *dst, conv_tensor *diff_src, conv_tensor *diff_weights, lb_ctx *ctx) {
    const lb_image_range all = {.last = d->mb, .begins = true};
    float *diff = (float *)(void *)diff_weights->data;
    if (lb_conv_by_images(conv, LB_PASS_FORWARD))
        lb_conv_forward_images(conv, &all, src->data, dst->data);
    else
        assert_ok(ctx, lb_conv_forward(conv, src->data, dst->data));
    if (lb_conv_by_images(conv, LB_PASS_BACKWARD_DATA))
        lb_conv_backward_data_images(conv, &all, dy->data, diff_src->data);
    else
        assert_ok(ctx, lb_conv_backward_data(conv, dy->data, diff_src->data));
    assert_ok(ctx, lb_conv_backward_weights(conv, src->data, dy->data, diff));
}

/* What `dims` leaves 0 is as the kernel's height, 1 (strides, groups), or follows: padding by half the kernel, oh and ow. */
static inline void check_conv(lb_conv_dims dims, lb_dtype type) {
    lb_conv_dims *d = &dims;
    d->kw = d->kw ? d->kw : d->kh;
    d->sh = d->sh ? d->sh : 1;
    d->sw = d->sw ? d->sw : d->sh;
    d->groups = d->groups ? d->groups : 1;
    const int reach_h = (d->kh - 1) * (1 + d->gap_h), reach_w = (d->kw - 1) * (1 + d->gap_w);
    d->pt = d->pb = reach_h / 2;
    d->pl = d->pr = reach_w / 2;
    d->oh = (d->ih + d->pt + d->pb - reach_h - 1) / d->sh + 1;
    d->ow = (d->iw + d->pl + d->pr - reach_w - 1) / d->sw + 1;
    d->src_type = d->dst_type = type;
    d->backward_data = true;
    char text[200];
    snprintf(text, sizeof text, "%s, %d x %d x %d x %d to %d channels, kernel %d x %d, strides %d %d, gaps %d %d, %d groups",
             type == LB_F32 ? "f32" : "bf16", d->mb, d->ih, d->iw, d->ic, d->oc, d->kh, d->kw, d->sh, d->sw, d->gap_h, d->gap_w,
             d->groups);
    const size_t from = (size_t)(d->mb * d->ih * d->iw * d->ic), to = (size_t)(d->mb * d->oh * d->ow * d->oc);
    const size_t nweights = (size_t)(d->oc * d->kh * d->kw * (d->ic / d->groups));
    lb_ctx *ctx = test_ctx();
    lb_backend *backend;
    lb_conv_prims *conv;
    conv_tensor src = conv_tensor_filled(type, from, 0), weights = conv_tensor_filled(LB_F32, nweights, 1);
    conv_tensor dy = conv_tensor_filled(type, to, 2), dst = conv_tensor_make(type, to);
    conv_tensor diff_src = conv_tensor_make(type, from), diff_weights = conv_tensor_make(LB_F32, nweights);
    assert_ok(ctx, lb_backend_create(ctx, &backend));
    assert_ok(ctx, lb_conv_prims_create(backend, d, &conv));
    assert_ok(ctx, lb_backend_reserve(backend));
    assert_ok(ctx, lb_conv_set_weights(conv, (float *)(void *)weights.data, CONV_REACH));
    conv_run(conv, d, &src, &dy, &dst, &diff_src, &diff_weights, ctx);
    conv_plain(d, &src, &weights, &dy, dst.wanted, diff_src.wanted, diff_weights.wanted);
    conv_tensor_check(&dst, "dst", text);
    conv_tensor_check(&diff_src, "diff_src", text);
    conv_tensor_check(&diff_weights, "diff_weights", text);
    conv_tensor *const all[] = {&src, &weights, &dy, &dst, &diff_src, &diff_weights};
    for (size_t i = 0; i < LB_COUNT(all); i++)
        conv_tensor_free(all[i]);
    lb_conv_prims_destroy(conv);
    lb_backend_destroy(backend);
    lb_ctx_destroy(ctx);
}

/* In all types that this processor has. */
static inline void check_convs(const lb_conv_dims *dims, size_t count) {
    for (size_t i = 0; i < count; i++) {
        check_conv(dims[i], LB_F32);
        if (lb_backend_has_bf16())
            check_conv(dims[i], LB_BF16);
    }
}

#endif

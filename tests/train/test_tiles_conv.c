/* Convolutions by matrix registers: those of AMX, of this machine or emulated, against plain C, bit for bit; that against plain
 * loops; all three passes by images, strides included, against their definition. */
#include "amx_machine.h"

#include "quant/rint.h"
#include "train/simd/tiles.h"
#include "train/simd/vec.h"

/* Pixels of 16, 32, 48 and few channels; results that count on over padding and such that do not; several images and several bands;
 * results that are a step apart. */
static const lb_tiles_dims shapes[] = {
    {.mb = 3, .ih = 7, .iw = 5, .ic = 16, .oh = 7, .ow = 5, .oc = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 2, .ih = 32, .iw = 32, .ic = 16, .oh = 32, .ow = 32, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 5, .ih = 9, .iw = 8, .ic = 32, .oh = 5, .ow = 4, .oc = 48, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .pt = 1, .pl = 1},
    {.mb = 2, .ih = 21, .iw = 19, .ic = 48, .oh = 21, .ow = 19, .oc = 16, .kh = 5, .kw = 3, .sh = 1, .sw = 1, .pt = 2, .pl = 1},
    {.mb = 2, .ih = 9, .iw = 33, .ic = 3, .oh = 9, .ow = 33, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 3, .ih = 13, .iw = 15, .ic = 3, .oh = 7, .ow = 8, .oc = 32, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .pt = 3, .pl = 3},
    {.mb = 6, .ih = 8, .iw = 9, .ic = 16, .oh = 4, .ow = 5, .oc = 48, .kh = 1, .kw = 1, .sh = 2, .sw = 2, .pt = 0, .pl = 0},
    {.mb = 9, .ih = 5, .iw = 6, .ic = 160, .oh = 5, .ow = 6, .oc = 32, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.mb = 9, .ih = 3, .iw = 3, .ic = 192, .oh = 3, .ow = 3, .oc = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 2, .ih = 6, .iw = 5, .ic = 32, .oh = 6, .ow = 5, .oc = 144, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.mb = 1, .ih = 6, .iw = 40, .ic = 32, .oh = 4, .ow = 19, .oc = 16, .kh = 3, .kw = 4, .sh = 1, .sw = 2, .pt = 0, .pl = 0},
    {.mb = 2, .ih = 5, .iw = 4, .ic = 24, .oh = 5, .ow = 4, .oc = 32, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.mb = 2, .ih = 3, .iw = 7, .ic = 8, .oh = 1, .ow = 3, .oc = 16, .kh = 5, .kw = 4, .sh = 3, .sw = 3, .pt = 1, .pl = 2},
    {.mb = 3, .ih = 2, .iw = 3, .ic = 16, .oh = 2, .ow = 4, .oc = 32, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .pt = 2, .pl = 4},
    {.mb = 3, .ih = 7, .iw = 6, .ic = 32, .oh = 2, .ow = 2, .oc = 16, .kh = 2, .kw = 2, .sh = 4, .sw = 4, .pt = 0, .pl = 0},
    {.mb = 2, .ih = 9, .iw = 1, .ic = 16, .oh = 9, .ow = 1, .oc = 16, .kh = 4, .kw = 1, .sh = 1, .sw = 1, .pt = 3, .pl = 0},
    {.mb = 1, .ih = 2, .iw = 1100, .ic = 3, .oh = 1, .ow = 1100, .oc = 16, .kh = 2, .kw = 3, .sh = 1, .sw = 1, .pt = 0, .pl = 1},
    {.mb = 2, .ih = 5, .iw = 6, .ic = 32, .oh = 5, .ow = 6, .oc = 16, .kh = 2, .kw = 1, .sh = 1, .sw = 1, .pt = 0, .pl = 0,
     .dst_h = 11, .dst_w = 13, .from_h = 1, .from_w = 0, .step_h = 2, .step_w = 2},
};
enum { MAX_TENSOR = 1 << 16 };

static float src_f[MAX_TENSOR], weights[MAX_TENSOR], diff[MAX_TENSOR];
static uint16_t src[MAX_TENSOR], dy[MAX_TENSOR], wanted[MAX_TENSOR], got[MAX_TENSOR];

static lb_tiles_dims shape(size_t i) {
    lb_tiles_dims d = shapes[i];
    if (!d.dst_h) {
        d.dst_h = d.oh;
        d.dst_w = d.ow;
        d.step_h = d.step_w = 1;
    }
    return d;
}
static size_t src_count(const lb_tiles_dims *d) { return (size_t)d->mb * (size_t)d->ih * (size_t)d->iw * (size_t)d->ic; }
static size_t dst_count(const lb_tiles_dims *d) { return (size_t)d->mb * (size_t)d->dst_h * (size_t)d->dst_w * (size_t)d->oc; }
static size_t weight_count(const lb_tiles_dims *d) { return (size_t)d->oc * (size_t)d->kh * (size_t)d->kw * (size_t)d->ic; }

/* Numbers that are bf16, into f and, unless it is NULL, b. */
static void fill(float *f, uint16_t *b, size_t count, bool whole, uint64_t seed) {
    assert_true(count <= MAX_TENSOR);
    lb_rng_normal(seed, LB_RNG_TEST, 2, 1, f, count);
    for (size_t i = 0; i < count; i++) {
        const uint16_t number = lb_bf16_put(whole ? lb_rint(f[i]) : f[i]);
        f[i] = lb_bf16_get(number);
        if (b)
            b[i] = number;
    }
}

/* In two calls. */
static void run(const lb_tiles_conv *k, const lb_tiles_dims *d, uint16_t *dst) {
    lb_ctx *ctx = test_ctx();
    void *w = lb_alloc(ctx, k->weights_size(d), 1), *scratch = lb_alloc(ctx, k->scratch(d), 1);
    assert_true(w && scratch);
    memset(scratch, 0xff, k->scratch(d)); /* NaN */
    memset(dst, 0, dst_count(d) * sizeof *dst);
    for (int o = 0; o < d->oc; o += LB_TILES_CHANNELS)
        k->weights(d, weights, o, w);
    k->conv(d, 0, d->mb / 3, src, w, dst, scratch);
    k->conv(d, d->mb / 3, d->mb, src, w, dst, scratch);
    lb_free(ctx, w);
    lb_free(ctx, scratch);
    lb_ctx_destroy(ctx);
}

/* What differs from plain C, NULL: nothing. */
static const char *difference(const lb_tiles_conv *fast) {
    static char text[64];
    for (size_t i = 0; i < LB_COUNT(shapes); i++) {
        const lb_tiles_dims d = shape(i);
        fill(src_f, src, src_count(&d), false, i);
        fill(weights, NULL, weight_count(&d), false, 100 + i);
        run(lb_tiles_conv_find("scalar"), &d, wanted);
        run(fast, &d, got);
        if (memcmp(got, wanted, dst_count(&d) * sizeof *got) != 0) {
            snprintf(text, sizeof text, "amx is not scalar: shape %zu", i);
            return text;
        }
    }
    return NULL;
}

AMX_KERNEL_TESTS(lb_tiles_conv)

/* One product of result (n, y, x, o), 0 outside of the source. */
static double product(const lb_tiles_dims *d, int n, int y, int x, int o, int kh, int kw, int c) {
    const int iy = y * d->sh - d->pt + kh, ix = x * d->sw - d->pl + kw;
    if (iy < 0 || ix < 0 || iy >= d->ih || ix >= d->iw)
        return 0;
    const float w = weights[((o * d->kh + kh) * d->kw + kw) * d->ic + c];
    return (double)src_f[((n * d->ih + iy) * d->iw + ix) * d->ic + c] * (double)w;
}

/* dst against the definition; what is no result must be 0. */
static void check(const lb_tiles_dims *d, const uint16_t *dst, bool whole) {
    double error = 0, size = 0;
    size_t others = 0, zeros = 0;
    for (int n = 0; n < d->mb; n++)
        for (int y = 0; y < d->oh; y++)
            for (int x = 0; x < d->ow; x++)
                for (int o = 0; o < d->oc; o += 3) {
                    double sum = 0;
                    for (int kh = 0; kh < d->kh; kh++)
                        for (int kw = 0; kw < d->kw; kw++)
                            for (int c = 0; c < d->ic; c++)
                                sum += product(d, n, y, x, o, kh, kw, c);
                    const int to_y = d->from_h + y * d->step_h, to_x = d->from_w + x * d->step_w;
                    const uint16_t is = dst[((n * d->dst_h + to_y) * d->dst_w + to_x) * d->oc + o];
                    if (whole && is != lb_bf16_put((float)sum))
                        fail_msg("image %d, (%d, %d), channel %d: %g instead of %g", n, y, x, o, (double)lb_bf16_get(is), sum);
                    error += ((double)lb_bf16_get(is) - sum) * ((double)lb_bf16_get(is) - sum);
                    size += sum * sum;
                }
    if (!(sqrt(error / size) < 2e-3))
        fail_msg("%dx%d, %d channels: error %g", d->ih, d->iw, d->ic, sqrt(error / size));
    for (int i = 0; i < d->mb * d->dst_h * d->dst_w; i++) {
        const int y = i / d->dst_w % d->dst_h - d->from_h, x = i % d->dst_w - d->from_w;
        const bool row = y >= 0 && y % d->step_h == 0 && y / d->step_h < d->oh;
        const bool result = row && x >= 0 && x % d->step_w == 0 && x / d->step_w < d->ow;
        for (int o = 0; !result && o < d->oc; o++, others++)
            zeros += dst[i * d->oc + o] == 0;
    }
    assert_int_equal(zeros, others);
}

static void test_scalar(void **state) {
    (void)state;
    for (size_t i = 0; i < LB_COUNT(shapes); i++)
        for (int whole = 0; whole < 2; whole++) {
            const lb_tiles_dims d = shape(i);
            fill(src_f, src, src_count(&d), whole, 17 + i);
            fill(weights, NULL, weight_count(&d), whole, 117 + i);
            run(lb_tiles_conv_find("scalar"), &d, wanted);
            check(&d, wanted, whole);
        }
}

/* The gradient of the source by its definition, in whole numbers: dy is in diff for a moment. */
static void check_data(const lb_tiles_dims *d, const uint16_t *diff_src) {
    for (int n = 0; n < d->mb; n++)
        for (int iy = 0; iy < d->ih; iy++)
            for (int ix = 0; ix < d->iw; ix++)
                for (int c = 0; c < d->ic; c += 5) {
                    double sum = 0;
                    for (int kh = 0; kh < d->kh; kh++)
                        for (int kw = 0; kw < d->kw; kw++) {
                            const int y = iy + d->pt - kh, x = ix + d->pl - kw;
                            if (y < 0 || x < 0 || y % d->sh || x % d->sw || y / d->sh >= d->oh || x / d->sw >= d->ow)
                                continue;
                            for (int o = 0; o < d->oc; o++)
                                sum += (double)diff[((n * d->oh + y / d->sh) * d->ow + x / d->sw) * d->oc + o] *
                                       (double)weights[((o * d->kh + kh) * d->kw + kw) * d->ic + c];
                        }
                    if (diff_src[((n * d->ih + iy) * d->iw + ix) * d->ic + c] != lb_bf16_put((float)sum))
                        fail_msg("image %d, (%d, %d), channel %d: not %g", n, iy, ix, c, sum);
                }
}

/* That of the weights, the same way. */
static void check_weights(const lb_tiles_dims *d, const float *diff_weights) {
    for (int o = 0; o < d->oc; o += 3)
        for (int k = 0; k < d->kh * d->kw; k++)
            for (int c = 0; c < d->ic; c += d->ic < 16 ? 1 : 5) {
                double sum = 0;
                for (int i = 0; i < d->mb * d->oh * d->ow; i++) {
                    const int iy = i / d->ow % d->oh * d->sh - d->pt + k / d->kw, ix = i % d->ow * d->sw - d->pl + k % d->kw;
                    const int row = i / d->ow / d->oh * d->ih + iy;
                    if (iy >= 0 && ix >= 0 && iy < d->ih && ix < d->iw)
                        sum += (double)diff[i * d->oc + o] * (double)src_f[(row * d->iw + ix) * d->ic + c];
                }
                if ((double)diff_weights[(o * d->kh * d->kw + k) * d->ic + c] != sum)
                    fail_msg("weight %d of channels %d, %d: not %g", k, o, c, sum);
            }
}

static lb_conv_dims conv_dims(const lb_tiles_dims *d) {
    return (lb_conv_dims){.mb = d->mb, .ih = d->ih, .iw = d->iw, .ic = d->ic, .oh = d->oh, .ow = d->ow, .oc = d->oc,
                          .kh = d->kh, .kw = d->kw, .sh = d->sh, .sw = d->sw, .pt = d->pt, .pl = d->pl,
                          .pb = (d->oh - 1) * d->sh + d->kh - d->pt - d->ih,
                          .pr = (d->ow - 1) * d->sw + d->kw - d->pl - d->iw, .groups = 1, .src_type = LB_BF16, .dst_type = LB_BF16,
                          .backward_data = true};
}

/* All passes in two ranges of images, those of two threads. */
static void test_by_images(void **state) {
    (void)state;
    const lb_ctx_options options = {.threads = 2};
    lb_ctx *ctx;
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
    for (size_t i = 0; i < LB_COUNT(shapes); i++) {
        const lb_tiles_dims d = shape(i);
        const lb_conv_dims dims = conv_dims(&d);
        const size_t results = (size_t)d.mb * (size_t)d.oh * (size_t)d.ow * (size_t)d.oc;
        if (d.step_h != 1 || d.sh != d.sw)
            continue;
        lb_backend *backend;
        lb_conv_prims *prims;
        assert_ok(ctx, lb_backend_create(ctx, &backend));
        assert_ok(ctx, lb_conv_prims_create(backend, &dims, &prims));
        assert_ok(ctx, lb_backend_reserve(backend));
        fill(src_f, src, src_count(&d), true, 31 + i);
        fill(weights, NULL, weight_count(&d), true, 131 + i);
        fill(diff, dy, results, true, 231 + i);
        const bool here = lb_conv_by_images(prims, LB_PASS_FORWARD);
        if (!here && i == 0)
            printf("SKIPPED: this processor has no matrix registers (AMX) for bf16\n");
        if (here) {
            const lb_image_range ranges[] = {{.last = d.mb / 2, .begins = true}, {.first = d.mb / 2, .last = d.mb, .thread = 1}};
            assert_ok(ctx, lb_conv_set_weights(prims, weights, 0));
            for (int k = 0; k < 2; k++)
                lb_conv_forward_images(prims, &ranges[k], src, got);
            check(&d, got, true);
            assert_int_equal(lb_conv_by_images(prims, LB_PASS_BACKWARD_DATA), d.ic % 16 == 0);
            for (int k = 0; k < 2 && d.ic % 16 == 0; k++)
                lb_conv_backward_data_images(prims, &ranges[k], dy, got);
            if (d.ic % 16 == 0)
                check_data(&d, got);
            assert_ok(ctx, lb_conv_backward_weights(prims, src, dy, weights)); /* all at once */
            check_weights(&d, weights);
        }
        lb_conv_prims_destroy(prims);
        lb_backend_destroy(backend);
    }
    lb_ctx_destroy(ctx);
}

/* Sources that the kernels cannot take are left to oneDNN. */
static void test_refused(void **state) {
    (void)state;
    static const lb_conv_dims all[] = {
        {.mb = 2, .ih = 6, .iw = 6, .ic = 20, .oh = 4, .ow = 4, .oc = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1},
        {.mb = 2, .ih = 6, .iw = 6, .ic = 40, .oh = 6, .ow = 6, .oc = 16, .kh = 1, .kw = 1, .sh = 1, .sw = 1},
    };
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(all) && lb_backend_has_bf16(); i++) {
        lb_conv_dims dims = all[i];
        dims.groups = 1;
        dims.src_type = dims.dst_type = LB_BF16;
        lb_backend *backend;
        lb_conv_prims *prims;
        assert_ok(ctx, lb_backend_create(ctx, &backend));
        assert_ok(ctx, lb_conv_prims_create(backend, &dims, &prims));
        assert_false(lb_conv_by_images(prims, LB_PASS_FORWARD));
        lb_conv_prims_destroy(prims);
        lb_backend_destroy(backend);
    }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_emulated), cmocka_unit_test(test_amx), cmocka_unit_test(test_scalar),
                                       cmocka_unit_test(test_by_images), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

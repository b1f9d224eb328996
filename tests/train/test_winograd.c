/* Winograd's convolutions: every variant against the scalar one, that against plain loops, and the passes of a layer on any number
 * of threads. */
#include "support.h"

#include <math.h>

#include "quant/rint.h"
#include "train/backend/backend.h"
#include "train/backend/winograd.h"
#include "train/simd/vec.h"
#include "train/simd/winograd.h"

/* Odd sizes, images smaller than a tile, every padding, slices of 64 channels and less, more tiles than are done at once. */
static const lb_winograd_dims shapes[] = {
    {.mb = 3, .ih = 7, .iw = 5, .ic = 16, .oh = 7, .ow = 5, .oc = 32, .pt = 1, .pl = 1},
    {.mb = 2, .ih = 6, .iw = 9, .ic = 80, .oh = 4, .ow = 7, .oc = 16, .pt = 0, .pl = 0},
    {.mb = 5, .ih = 1, .iw = 2, .ic = 48, .oh = 1, .ow = 2, .oc = 144, .pt = 1, .pl = 1},
    {.mb = 2, .ih = 5, .iw = 4, .ic = 16, .oh = 7, .ow = 5, .oc = 16, .pt = 2, .pl = 2},
    {.mb = 1, .ih = 2, .iw = 108, .ic = 16, .oh = 2, .ow = 108, .oc = 16, .pt = 1, .pl = 1},
    {.mb = 9, .ih = 16, .iw = 10, .ic = 16, .oh = 16, .ow = 10, .oc = 16, .pt = 1, .pl = 1},
};
enum { MAX_PIXELS = 9 * 160, MAX_TENSOR = MAX_PIXELS * 16, MAX_WEIGHTS = 48 * 144 * 16 };

static float wide_src[MAX_TENSOR], wide_dy[MAX_TENSOR], weights[MAX_WEIGHTS]; /* bf16 numbers all */
static float src[MAX_TENSOR], dy[MAX_TENSOR];                                 /* of the type that is tested */

static size_t src_count(const lb_winograd_dims *d) { return (size_t)d->mb * (size_t)d->ih * (size_t)d->iw * (size_t)d->ic; }
static size_t dst_count(const lb_winograd_dims *d) { return (size_t)d->mb * (size_t)d->oh * (size_t)d->ow * (size_t)d->oc; }
static size_t weight_count(const lb_winograd_dims *d) { return (size_t)d->oc * 9 * (size_t)d->ic; }

/* Sources and weights are whole (codes) or any numbers. */
static void fill(const lb_winograd_dims *d, lb_dtype type, bool whole, uint64_t seed) {
    lb_rng_normal(seed, LB_RNG_TEST, 0, 1, wide_src, src_count(d));
    lb_rng_normal(seed, LB_RNG_TEST, 1, 1, wide_dy, dst_count(d));
    lb_rng_normal(seed, LB_RNG_TEST, 2, 1, weights, weight_count(d));
    float *const all[] = {wide_src, wide_dy, weights};
    const size_t counts[] = {src_count(d), dst_count(d), weight_count(d)};
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < counts[k]; i++)
            all[k][i] = whole && k != 1 ? lb_rint(3 * fmaxf(-1, fminf(1, all[k][i]))) : lb_bf16_get(lb_bf16_put(all[k][i]));
    for (size_t i = 0; i < LB_MAX(counts[0], counts[1]); i++)
        if (type == LB_F32) {
            src[i] = wide_src[i];
            dy[i] = wide_dy[i];
        } else {
            ((uint16_t *)src)[i] = lb_bf16_put(wide_src[i]);
            ((uint16_t *)dy)[i] = lb_bf16_put(wide_dy[i]);
        }
}

static float number(lb_dtype type, const void *data, size_t i) {
    return type == LB_F32 ? ((const float *)data)[i] : lb_bf16_get(((const uint16_t *)data)[i]);
}

typedef struct results {
    float dst[MAX_TENSOR], diff[MAX_WEIGHTS];
} results;
static results got, wanted;

static void run(const lb_winograd_kernels *k, const lb_winograd_dims *d, lb_factor factor, results *r) {
    const size_t transformed = lb_winograd_weights_step(d->oc, d->ic) * LB_WINOGRAD_POSITIONS;
    const size_t rows = (size_t)d->mb * lb_winograd_down(d);
    const size_t room = LB_MAX(k->conv_scratch(d), k->diff_scratch(d));
    lb_ctx *ctx = test_ctx();
    lb_winograd_weights w = {factor, lb_alloc(ctx, transformed, 4), lb_alloc(ctx, (size_t)d->oc * LB_WINOGRAD_POSITIONS, 4)};
    void *scratch = lb_alloc(ctx, room, 1);
    assert_true(w.numbers && w.start && scratch);
    memset(r, 0, sizeof *r);
    for (int o = 0; o < d->oc; o += LB_WINOGRAD_LANES)
        k->weights(d, weights, o, &w);
    k->conv(d, 0, rows / 3, src, &w, r->dst, scratch); /* rows do not depend on each other */
    k->conv(d, rows / 3, rows, src, &w, r->dst, scratch);
    for (int o = 0; o < d->oc; o += LB_WINOGRAD_SLICE)
        for (int i = 0; i < d->ic; i += LB_WINOGRAD_SLICE)
            k->diff(d, 0, rows, i, o, src, dy, r->diff, scratch);
    lb_free(ctx, w.numbers);
    lb_free(ctx, w.start);
    lb_free(ctx, scratch);
    lb_ctx_destroy(ctx);
}

static lb_winograd_dims shape(size_t i, lb_factor factor) {
    static const float zeros[256];
    lb_winograd_dims d = shapes[i];
    d.type = factor == LB_FACTOR_F32 ? LB_F32 : LB_BF16;
    d.zeros = zeros;
    return d;
}

static void test_variants(void **state) {
    (void)state;
    const lb_winograd_kernels *ref = lb_winograd_find("scalar");
    static const char *const names[] = {"avx512", "avx512bf16"};
    for (size_t v = 0; v < LB_COUNT(names); v++) {
        const lb_winograd_kernels *fast = lb_winograd_find(names[v]);
        if (!fast) {
            printf("SKIPPED: this processor has no %s\n", names[v]);
            continue;
        }
        for (size_t i = 0; i < LB_COUNT(shapes); i++)
            for (lb_factor factor = LB_FACTOR_F32; factor <= LB_FACTOR_S8; factor++) {
                const bool bytes_without_bf16 = v == 0 && factor == LB_FACTOR_S8; /* that variant is for f32 */
                lb_winograd_dims d = shape(i, factor);
                fill(&d, d.type, factor == LB_FACTOR_S8, i);
                run(ref, &d, factor, &wanted);
                if (!bytes_without_bf16)
                    run(fast, &d, factor, &got);
                if (!bytes_without_bf16 && memcmp(&wanted, &got, sizeof got) != 0)
                    fail_msg("%s is not scalar: shape %zu, factor %d", fast->isa, i, (int)factor);
            }
    }
}

/* dst and the gradient of the weights by their definition. */
static double plain(const lb_winograd_dims *d, bool diff, int n, int y, int x, int o, int c, int ky, int kx) {
    const int iy = y - d->pt + ky, ix = x - d->pl + kx;
    if (iy < 0 || ix < 0 || iy >= d->ih || ix >= d->iw)
        return 0;
    const size_t w = (size_t)(((o * 3 + ky) * 3 + kx) * d->ic + c), to = (size_t)(((n * d->oh + y) * d->ow + x) * d->oc + o);
    return (double)wide_src[((n * d->ih + iy) * d->iw + ix) * d->ic + c] * (double)(diff ? wide_dy[to] : weights[w]);
}

static void check_dst(const lb_winograd_dims *d, const void *dst, bool whole, double tolerance) {
    double error = 0, size = 0;
    for (int n = 0; n < d->mb; n++)
        for (int y = 0; y < d->oh; y++)
            for (int x = 0; x < d->ow; x++)
                for (int o = 0; o < d->oc; o += 5) {
                    double sum = 0;
                    for (int k = 0; k < 9; k++)
                        for (int c = 0; c < d->ic; c++)
                            sum += plain(d, false, n, y, x, o, c, k / 3, k % 3);
                    const float is = number(d->type, dst, (size_t)(((n * d->oh + y) * d->ow + x) * d->oc + o));
                    if (whole) /* only the result is rounded */
                        assert_true(is == (d->type == LB_F32 ? (float)sum : lb_bf16_get(lb_bf16_put((float)sum))));
                    error += ((double)is - sum) * ((double)is - sum);
                    size += sum * sum;
                }
    assert_true(sqrt(error / size) < tolerance);
}

static void check_diff(const lb_winograd_dims *d, const float *diff, double tolerance) {
    double error = 0, size = 0;
    for (int o = 0; o < d->oc; o += 7)
        for (int k = 0; k < 9; k++)
            for (int c = 0; c < d->ic; c += 3) {
                double sum = 0;
                for (int n = 0; n < d->mb; n++)
                    for (int y = 0; y < d->oh; y++)
                        for (int x = 0; x < d->ow; x++)
                            sum += plain(d, true, n, y, x, o, c, k / 3, k % 3);
                const double e = (double)diff[(o * 9 + k) * d->ic + c] - sum;
                error += e * e;
                size += sum * sum;
            }
    assert_true(sqrt(error / size) < tolerance);
}

static void test_scalar(void **state) {
    (void)state;
    for (size_t i = 0; i < LB_COUNT(shapes); i++)
        for (lb_factor factor = LB_FACTOR_F32; factor <= LB_FACTOR_S8; factor++)
            for (int whole = factor == LB_FACTOR_S8; whole < 2; whole++) {
                const lb_winograd_dims d = shape(i, factor);
                fill(&d, d.type, whole, 17 + i);
                run(lb_winograd_find("scalar"), &d, factor, &got);
                check_dst(&d, got.dst, whole, d.type == LB_F32 ? 1e-6 : 0.01);
                check_diff(&d, got.diff, d.type == LB_F32 ? 1e-6 : 0.01);
            }
}

/* A layer through the backend's interface: the gradient of src is the convolution's adjoint, and nothing depends on the number of
 * threads. Sums are cut into parts and, for the second shape, slices. */
static void test_layer(void **state) {
    (void)state;
    static const lb_winograd_dims layers[] = {
        {.mb = 6, .ih = 8, .iw = 9, .ic = 32, .oh = 8, .ow = 9, .oc = 16, .pt = 1, .pl = 1},
        {.mb = 2, .ih = 5, .iw = 6, .ic = 80, .oh = 5, .ow = 6, .oc = 80, .pt = 1, .pl = 1},
    };
    for (size_t i = 0; i < LB_COUNT(layers); i++)
        for (int type = LB_F32; type <= LB_BF16; type++)
            for (int threads = 1; threads <= 3; threads++) {
                lb_ctx *ctx;
                const lb_ctx_options options = {.threads = threads};
                assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
                const lb_winograd_dims *d = &layers[i];
                const lb_conv_dims dims = {.mb = d->mb, .ih = d->ih, .iw = d->iw, .ic = d->ic, .oh = d->oh, .ow = d->ow,
                                           .oc = d->oc, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = d->pt, .pl = d->pl, .pb = d->pt,
                                           .pr = d->pl, .groups = 1, .src_type = (lb_dtype)type, .dst_type = (lb_dtype)type,
                                           .backward_data = true};
                lb_winograd *w;
                assert_ok(ctx, lb_winograd_create(ctx, &dims, &w));
                if (!w) {
                    printf("SKIPPED: oneDNN is faster here, type %d\n", type);
                    lb_ctx_destroy(ctx);
                    continue;
                }
                static float dx[2][MAX_TENSOR];
                results *r = threads == 1 ? &wanted : &got;
                void *scratch = lb_alloc(ctx, lb_winograd_scratch(w), 1);
                fill(d, (lb_dtype)type, true, 31);
                assert_true(lb_winograd_set_weights(w, weights, 3));
                memset(r, 0, sizeof *r);
                lb_winograd_forward(w, src, r->dst, scratch);
                lb_winograd_backward_data(w, dy, dx[threads > 1], scratch);
                lb_winograd_backward_weights(w, src, dy, r->diff, scratch);
                double forward = 0, backward = 0, by_weights = 0;
                for (size_t k = 0; k < dst_count(d); k++)
                    forward += (double)number((lb_dtype)type, r->dst, k) * (double)wide_dy[k];
                for (size_t k = 0; k < src_count(d); k++)
                    backward += (double)number((lb_dtype)type, dx[threads > 1], k) * (double)wide_src[k];
                for (size_t k = 0; k < weight_count(d); k++)
                    by_weights += (double)r->diff[k] * (double)weights[k];
                const double tolerance = (type == LB_F32 ? 1e-5 : 0.02) * fabs(forward);
                assert_true(fabs(backward - forward) < tolerance && fabs(by_weights - forward) < tolerance);
                assert_memory_equal(r, &wanted, sizeof *r);
                assert_memory_equal(dx[threads > 1], dx[0], sizeof dx[0]);
                lb_free(ctx, scratch);
                lb_winograd_destroy(w);
                lb_ctx_destroy(ctx);
            }
}

/* Which forward passes may round. */
static void test_exact(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_conv_dims dims = {.mb = 1, .ih = 4, .iw = 4, .ic = 64, .oh = 4, .ow = 4, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1,
                         .pt = 1, .pl = 1, .pb = 1, .pr = 1, .groups = 1, .src_type = LB_BF16, .dst_type = LB_BF16};
    lb_winograd *w;
    assert_ok(ctx, lb_winograd_create(ctx, &dims, &w));
    if (!w) {
        printf("SKIPPED: oneDNN is faster here\n");
    } else {
        memset(weights, 0, sizeof weights);
        weights[5] = -3;
        assert_true(lb_winograd_set_weights(w, weights, 3) && lb_winograd_set_weights(w, weights, 64));
        assert_false(lb_winograd_set_weights(w, weights, 65) || lb_winograd_set_weights(w, weights, 0));
        static const float too_much[] = {2.5f, 30, NAN};
        for (size_t i = 0; i < LB_COUNT(too_much); i++) {
            weights[6] = too_much[i];
            assert_false(lb_winograd_set_weights(w, weights, 3));
        }
    }
    lb_winograd_destroy(w);
    dims.sh = 2;
    assert_ok(ctx, lb_winograd_create(ctx, &dims, &w));
    assert_null(w);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_variants), cmocka_unit_test(test_scalar), cmocka_unit_test(test_layer),
                                       cmocka_unit_test(test_exact)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

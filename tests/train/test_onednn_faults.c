/* What oneDNN 2.6 does wrong with AMX is gone around. */
#include "support.h"

#include "quant/rint.h"
#include "train/backend/internal.h"
#include "train/simd/vec.h"

enum { CHANNELS = 4, ROWS = 5, LONGEST = 1200, COUNT = ROWS * LONGEST * CHANNELS };
static float src[COUNT], dy[COUNT], diff[CHANNELS * CHANNELS * 9];

/* Whole numbers, which every order of sums adds up alike; in tensors of bf16 or f32. */
static void *tensor(lb_ctx *ctx, lb_dtype type, uint64_t what, float *values, size_t count) {
    lb_rng_normal(1, LB_RNG_TEST, what, 1, values, count);
    void *data = lb_alloc(ctx, count, lb_dtype_size(type));
    assert_non_null(data);
    for (size_t i = 0; i < count; i++) {
        values[i] = lb_rint(values[i]);
        if (type == LB_F32)
            ((float *)data)[i] = values[i];
        else
            ((uint16_t *)data)[i] = lb_bf16_put(values[i]);
    }
    return data;
}

static double plain(int width, int oc, int ky, int kx, int ic) {
    double sum = 0;
    for (int y = 0; y < ROWS; y++)
        for (int x = 0; x < width; x++) {
            const int iy = y + ky - 1, ix = x + kx - 1;
            if (iy >= 0 && iy < ROWS && ix >= 0 && ix < width)
                sum += (double)dy[(y * width + x) * CHANNELS + oc] * (double)src[(iy * width + ix) * CHANNELS + ic];
        }
    return sum;
}

static void check(lb_dtype type, int width) {
    lb_ctx *ctx = test_ctx();
    lb_backend *backend;
    lb_conv_prims *conv;
    const lb_conv_dims dims = {.mb = 1, .ih = ROWS, .iw = width, .ic = CHANNELS, .oh = ROWS, .ow = width, .oc = CHANNELS, .kh = 3,
                               .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1, .pb = 1, .pr = 1, .groups = 1, .src_type = type,
                               .dst_type = type};
    const size_t count = (size_t)(ROWS * width * CHANNELS);
    void *x = tensor(ctx, type, 0, src, count), *g = tensor(ctx, type, 1, dy, count);
    assert_ok(ctx, lb_backend_create(ctx, &backend));
    assert_ok(ctx, lb_conv_prims_create(backend, &dims, &conv));
    assert_ok(ctx, lb_backend_reserve(backend));
    assert_ok(ctx, lb_conv_backward_weights(conv, x, g, diff));
    for (int oc = 0; oc < CHANNELS; oc++)
        for (int k = 0; k < 9; k++)
            for (int ic = 0; ic < CHANNELS; ic++)
                if ((double)diff[(oc * 9 + k) * CHANNELS + ic] != plain(width, oc, k / 3, k % 3, ic))
                    fail_msg("%d pixels, %s: weight (%d, %d, %d): %g in place of %g", width, type == LB_F32 ? "f32" : "bf16", oc, k,
                             ic, (double)diff[(oc * 9 + k) * CHANNELS + ic], plain(width, oc, k / 3, k % 3, ic));
    lb_conv_prims_destroy(conv);
    lb_backend_destroy(backend);
    lb_free(ctx, x);
    lb_free(ctx, g);
    lb_ctx_destroy(ctx);
}

/* Gradients of weights over long rows of images, against plain loops. Channels that are no multiples of 16 are oneDNN's own. */
static void test_wide_rows(void **state) {
    (void)state;
    static const int widths[] = {320, 321, 384, LONGEST};
    for (size_t i = 0; i < LB_COUNT(widths); i++) {
        check(LB_F32, widths[i]);
        if (lb_backend_has_bf16())
            check(LB_BF16, widths[i]);
    }
}

static bool is_unfit(dnnl_primitive_desc_t desc) {
    const char *name;
    assert_int_equal(dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name), dnnl_success);
    return strstr(name, LB_UNFIT_FORWARD);
}

/* A convolution whose kernel would be one that reads behind its lists. */
static lb_status describe(lb_backend *b, dnnl_convolution_desc_t *op) {
    const dnnl_dims_t from_dims = {2, 17, 32, 27}, weight_dims = {4, 17, 5, 5}, to_dims = {2, 4, 16, 14}, stride = {2, 2};
    const dnnl_dims_t gap = {0, 0}, left = {2, 2}, right = {1, 2};
    dnnl_memory_desc_t from, weights, to;
    LB_DNNL(b, dnnl_memory_desc_init_by_tag(&from, 4, from_dims, dnnl_u8, dnnl_nhwc));
    LB_DNNL(b, dnnl_memory_desc_init_by_tag(&weights, 4, weight_dims, dnnl_s8, dnnl_format_tag_any));
    LB_DNNL(b, dnnl_memory_desc_init_by_tag(&to, 4, to_dims, dnnl_s32, dnnl_nhwc));
    const dnnl_status_t status = dnnl_dilated_convolution_forward_desc_init(
        op, dnnl_forward_inference, dnnl_convolution_direct, &from, &weights, NULL, &to, stride, gap, left, right);
    return lb_dnnl_check(b, status, "describing a convolution");
}

static void test_unfit_forward(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_backend *b;
    dnnl_convolution_desc_t op;
    dnnl_primitive_desc_t first, chosen;
    assert_ok(ctx, lb_backend_create(ctx, &b));
    assert_ok(ctx, describe(b, &op));
    assert_int_equal(lb_dnnl_choose(&first, &op, b->attr, b->engine, NULL, NULL), dnnl_success);
    assert_int_equal(is_unfit(first), lb_dnnl_has_amx());
    assert_int_equal(lb_dnnl_choose(&chosen, &op, b->attr, b->engine, NULL, LB_UNFIT_FORWARD), dnnl_success);
    assert_false(is_unfit(chosen));
    dnnl_primitive_desc_destroy(first);
    dnnl_primitive_desc_destroy(chosen);
    lb_backend_destroy(b);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wide_rows), cmocka_unit_test(test_unfit_forward)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

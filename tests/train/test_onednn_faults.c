/* What oneDNN 2.6 does wrong, with AMX or without, is gone around. */
#include "convs.h"

#include "train/backend/internal.h"

/* Gradients of weights over long rows of images. Channels that are no multiples of 16 are oneDNN's own. */
static void test_wide_rows(void **state) {
    (void)state;
    static const int widths[] = {320, 321, 384, 1200};
    for (size_t i = 0; i < LB_COUNT(widths); i++)
        check_convs(&(lb_conv_dims){.mb = 1, .ih = 5, .iw = widths[i], .ic = 4, .oc = 4, .kh = 3}, 1);
}

/* Gradients of weights with strides over images that are narrower or lower than these. */
static void test_narrow_images(void **state) {
    (void)state;
    static const lb_conv_dims shapes[] = {
        {.mb = 2, .ih = 1, .iw = 1, .ic = 32, .oc = 16, .kh = 3, .sh = 2},
        {.mb = 2, .ih = 1, .iw = 1, .ic = 17, .oc = 17, .kh = 3, .sh = 2},
        {.mb = 3, .ih = 9, .iw = 1, .ic = 8, .oc = 3, .kh = 3, .sh = 2},
        {.mb = 3, .ih = 1, .iw = 9, .ic = 17, .oc = 17, .kh = 3, .sh = 2},
        {.mb = 3, .ih = 2, .iw = 9, .ic = 20, .oc = 20, .kh = 5, .sh = 4},
        {.mb = 6, .ih = 8, .iw = 2, .ic = 17, .oc = 48, .kh = 3, .sh = 1, .sw = 3},
        {.mb = 3, .ih = 3, .iw = 3, .ic = 17, .oc = 17, .kh = 7, .sh = 4},
        {.mb = 2, .ih = 2, .iw = 2, .ic = 3, .oc = 17, .kh = 5, .sh = 4},
        {.mb = 3, .ih = 8, .iw = 1, .ic = 32, .oc = 2, .kh = 2, .sh = 1, .sw = 4},
        {.mb = 2, .ih = 1, .iw = 1, .ic = 24, .oc = 40, .kh = 1, .sh = 2},
        {.mb = 3, .ih = 3, .iw = 3, .ic = 12, .oc = 12, .kh = 5, .sh = 4, .groups = 4},
        {.mb = 3, .ih = 1, .iw = 1, .ic = 36, .oc = 36, .kh = 3, .sh = 2, .groups = 36},
        {.mb = 3, .ih = 1, .iw = 1, .ic = 64, .oc = 64, .kh = 3, .sh = 2, .groups = 64},
        {.mb = 3, .ih = 2, .iw = 2, .ic = 20, .oc = 12, .kh = 3, .sh = 2},
    };
    check_convs(shapes, LB_COUNT(shapes));
}

/* Gradients of the source of 1x1 convolutions to an odd number of channels, over 30 pixels. */
static void test_odd_points(void **state) {
    (void)state;
    static const lb_conv_dims shapes[] = {
        {.mb = 3, .ih = 6, .iw = 5, .ic = 12, .oc = 61, .kh = 1},
        {.mb = 1, .ih = 1, .iw = 30, .ic = 64, .oc = 1, .kh = 1},
        {.mb = 2, .ih = 3, .iw = 10, .ic = 22, .oc = 10, .kh = 1, .groups = 2},
    };
    check_convs(shapes, LB_COUNT(shapes));
}

/* Gradients of dilated weights with more than 32 input channels that are no multiple of 16. */
static void test_dilated(void **state) {
    (void)state;
    static const lb_conv_dims shapes[] = {
        {.mb = 3, .ih = 9, .iw = 8, .ic = 33, .oc = 31, .kh = 3, .gap_h = 2, .gap_w = 2},
        {.mb = 1, .ih = 17, .iw = 31, .ic = 90, .oc = 30, .kh = 3, .gap_h = 1, .gap_w = 1},
        {.mb = 2, .ih = 7, .iw = 6, .ic = 40, .oc = 16, .kh = 2, .kw = 3, .gap_h = 2, .gap_w = 1},
        {.mb = 2, .ih = 7, .iw = 6, .ic = 37, .oc = 16, .kh = 3, .gap_h = 1},
        {.mb = 2, .ih = 7, .iw = 6, .ic = 37, .oc = 16, .kh = 3, .gap_w = 1},
        {.mb = 3, .ih = 9, .iw = 9, .ic = 109, .oc = 35, .kh = 1, .kw = 3, .gap_w = 2},
        {.mb = 2, .ih = 9, .iw = 8, .ic = 40, .oc = 16, .kh = 3, .sh = 2, .gap_h = 1, .gap_w = 1},
        {.mb = 2, .ih = 9, .iw = 8, .ic = 80, .oc = 32, .kh = 3, .groups = 2, .gap_h = 1, .gap_w = 1},
        {.mb = 2, .ih = 9, .iw = 8, .ic = 48, .oc = 16, .kh = 3, .gap_h = 1, .gap_w = 1},
        {.mb = 2, .ih = 9, .iw = 8, .ic = 24, .oc = 16, .kh = 3, .gap_h = 1, .gap_w = 1},
    };
    check_convs(shapes, LB_COUNT(shapes));
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wide_rows), cmocka_unit_test(test_narrow_images),
                                       cmocka_unit_test(test_dilated), cmocka_unit_test(test_odd_points),
                                       cmocka_unit_test(test_unfit_forward)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

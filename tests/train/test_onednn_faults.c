/* What oneDNN 2.6 does wrong is gone around. */
#include "convs.h"

#include "train/backend/internal.h"

/* Gradients of weights over long rows of images. Channels that are no multiples of 16 are oneDNN's own. */
static void test_wide_rows(void **state) {
    (void)state;
    static const int widths[] = {320, 321, 384, 1200};
    for (size_t i = 0; i < LB_COUNT(widths); i++)
        check_convs(&(lb_conv_dims){.mb = 1, .ih = 5, .iw = widths[i], .ic = 4, .oc = 4, .kh = 3}, 1);
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

/* Import against export: float networks of every family, written as ONNX and read back, compute what they did. */
#include "deploy/export.h"
#include "families.h"
#include "net/import/import.h"

static const float mean[4] = {0.49f, 0.48f, 0.45f, 0}, std_[4] = {0.25f, 0.24f, 0.26f, 1};

static double *scores_of(const lb_net *net, const uint8_t *pixels, netref *r) {
    netref_create(r, net, mean, std_, MB, 1);
    netref_run(r, pixels);
    return r->values[net->nnodes - 1];
}

/* Writes the net, reads it back, compares both on the same images. */
static void compare(lb_ctx *ctx, const char *name, lb_net *net, uint32_t seed) {
    netref_fill(net, seed);
    uint8_t *pixels = make_pixels(net, &seed);
    netref first, second;
    netref_create(&first, net, mean, std_, MB, seed);
    first.calibrate = true;
    netref_run(&first, pixels);
    netref_destroy(&first);
    lb_onnx_build b;
    lb_export_options options;
    lb_imported in;
    assert_ok(ctx, lb_export_resolve(ctx, &(lb_export_options){.format = LB_ONNX_FLOAT}, &options));
    lb_onnx_build_init(&b, ctx, net->name);
    assert_ok(ctx, lb_export_net(ctx, net, mean, std_, &options, &b));
    assert_ok(ctx, lb_net_import(ctx, &b.model, name, NULL, &in));
    for (int c = 0; c < net->nodes[0].dst.c; c++) {
        assert_true(fabs((double)in.scale[c] * 255 * (double)std_[c] - 1) < 1e-6);
        assert_true(fabs((double)in.offset[c] + (double)mean[c] / (double)std_[c]) < 1e-6);
    }
    const double *want = scores_of(net, pixels, &first), *got = scores_of(in.net, pixels, &second);
    double most = 0;
    for (int i = 0; i < MB * net->classes; i++)
        most = fmax(most, fabs(want[i]));
    for (int i = 0; i < MB * net->classes; i++)
        if (!(fabs(want[i] - got[i]) <= 1e-5 * most))
            fail_msg("%s: score %d is %.9g instead of %.9g", name, i, got[i], want[i]);
    netref_destroy(&first);
    netref_destroy(&second);
    free(pixels);
    lb_net_destroy(in.net);
    lb_net_destroy(net);
    lb_onnx_build_free(&b);
}

static void round_trip(void **state) {
    const family *f = *state;
    static const scheme in_float = {"float", "none", "none", 32, 32};
    lb_ctx *ctx = test_ctx();
    compare(ctx, f->name, make_net(ctx, f, &in_float, 0), 815);
    lb_ctx_destroy(ctx);
}

/* Channels taken apart, shuffled, and put side by side. */
static void selected(void **state) {
    (void)state;
    static const lb_part odd[] = {{0, 1, 1}, {1, 3, 1}, {2, 5, 1}}, front[] = {{0, 0, 3}}, back[] = {{3, 0, 6}};
    lb_ctx *ctx = test_ctx();
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "selected", 9, 7, 3, &net));
    lb_node select = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1};
    const int x = lb_net_batchnorm(net, lb_net_conv2d(net, 0, "conv1", 6, 3, 1, 1, 1, false), "bn1", 0, 0);
    select.u.shortcutpad.oc = 3, select.u.shortcutpad.nparts = 3, select.u.shortcutpad.parts = odd;
    select.name = "odd", select.src[0] = x;
    const int few = lb_net_relu(net, lb_net_append(net, &select), "relu1");
    select.u.shortcutpad.oc = 9, select.u.shortcutpad.nparts = 1, select.u.shortcutpad.parts = front;
    select.name = "front", select.src[0] = few;
    const int a = lb_net_append(net, &select);
    select.u.shortcutpad.parts = back;
    select.name = "back", select.src[0] = x;
    const int y = lb_net_add(net, a, lb_net_append(net, &select), "side by side");
    lb_net_linear(net, lb_net_flatten(net, y, "flat"), "fc", 4, true);
    assert_ok(ctx, lb_net_finish(net));
    compare(ctx, "selected", net, 7);
    lb_ctx_destroy(ctx);
}

int main(void) {
    struct CMUnitTest tests[LB_COUNT(families) + 1];
    char names[LB_COUNT(families)][64];
    for (size_t i = 0; i < LB_COUNT(families); i++) {
        family_name(&families[i], names[i]);
        tests[i] = (struct CMUnitTest){names[i], round_trip, NULL, NULL, (void *)(uintptr_t)&families[i]};
    }
    tests[LB_COUNT(families)] = (struct CMUnitTest)cmocka_unit_test(selected);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

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

static void round_trip(void **state) {
    const family *f = *state;
    static const scheme in_float = {"float", "none", "none", 32, 32};
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx, f, &in_float, 0);
    uint32_t seed = 815;
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
    assert_ok(ctx, lb_net_import(ctx, &b.model, f->name, NULL, &in));
    for (int c = 0; c < net->nodes[0].dst.c; c++) {
        assert_true(fabs((double)in.scale[c] * 255 * (double)std_[c] - 1) < 1e-6);
        assert_true(fabs((double)in.offset[c] + (double)mean[c] / (double)std_[c]) < 1e-6);
    }
    const double *want = scores_of(net, pixels, &first), *got = scores_of(in.net, pixels, &second);
    double most = 0;
    for (int i = 0; i < MB * CLASSES; i++)
        most = fmax(most, fabs(want[i]));
    for (int i = 0; i < MB * CLASSES; i++)
        if (!(fabs(want[i] - got[i]) <= 1e-5 * most))
            fail_msg("%s: score %d is %.9g instead of %.9g", f->name, i, got[i], want[i]);
    netref_destroy(&first);
    netref_destroy(&second);
    free(pixels);
    lb_net_destroy(in.net);
    lb_net_destroy(net);
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

int main(void) {
    struct CMUnitTest tests[LB_COUNT(families)];
    char names[LB_COUNT(families)][64];
    for (size_t i = 0; i < LB_COUNT(families); i++) {
        family_name(&families[i], names[i]);
        tests[i] = (struct CMUnitTest){names[i], round_trip, NULL, NULL, (void *)(uintptr_t)&families[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

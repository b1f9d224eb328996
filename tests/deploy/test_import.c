/* Import against export: float networks of every family, written as ONNX and read back, compute what they did. */
#include "deploy/export.h"
#include "families.h"
#include "net/import.h"
#include "paths.h"

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
    lb_node conv = {.op = LB_OP_CONV, .name = "conv1", .nsrc = 1};
    conv.u.conv = (lb_conv){.oc = 6, .kh = 3, .kw = 3, .pt = 1, .pl = 1, .pb = 1, .pr = 1, .gap_h = 1};
    const int x = lb_net_batchnorm(net, lb_net_append(net, &conv), "bn1", 0, 0);
    select.u.shortcutpad.oc = 3, select.u.shortcutpad.nparts = 3, select.u.shortcutpad.parts = odd;
    select.name = "odd", select.src[0] = x;
    const int few = lb_net_relu(net, lb_net_append(net, &select), "relu1");
    select.u.shortcutpad.oc = 9, select.u.shortcutpad.nparts = 1, select.u.shortcutpad.parts = front;
    select.name = "front", select.src[0] = few;
    const int a = lb_net_append(net, &select);
    select.u.shortcutpad.parts = back;
    select.name = "back", select.src[0] = x;
    int y = lb_net_add(net, a, lb_net_append(net, &select), "added");
    y = lb_net_append(net, &(lb_node){.op = LB_OP_CONCAT, .name = "side by side", .nsrc = 3, .src = {y, few, x}});
    lb_net_linear(net, lb_net_flatten(net, y, "flat"), "fc", 4, true);
    assert_ok(ctx, lb_net_finish(net));
    compare(ctx, "selected", net, 7);
    lb_ctx_destroy(ctx);
}

/* Rows and columns again, cut off and padded, and averages of what lies inside. */
static void moved(void **state) {
    (void)state;
    static const int rows[] = {2, -1, 0, 0, 5, 8}, cols[] = {6, 3, 1, 3}, all[] = {0, 1, 2, 3, 4, 5}, two[] = {2, 0};
    lb_ctx *ctx = test_ctx();
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "moved", 9, 7, 3, &net));
    lb_node move = {.op = LB_OP_SHORTCUTPAD, .name = "move", .nsrc = 1};
    move.src[0] = lb_net_batchnorm(net, lb_net_conv2d(net, 0, "conv1", 6, 3, 1, 1, 1, false), "bn1", 0, 0);
    move.u.shortcutpad.oc = 6;
    move.u.shortcutpad.oh = 6, move.u.shortcutpad.ow = 4, move.u.shortcutpad.rows = rows, move.u.shortcutpad.cols = cols;
    lb_node pool = {.op = LB_OP_AVGPOOL, .name = "inside", .nsrc = 1, .src = {lb_net_append(net, &move)}};
    pool.u.pool = (lb_pooling){.kh = 3, .kw = 2, .sh = 1, .sw = 2, .pt = 2, .pl = 1, .pb = 0, .pr = 1, .inside = true};
    move.name = "columns", move.src[0] = lb_net_append(net, &pool);
    move.u.shortcutpad.oh = 6, move.u.shortcutpad.ow = 2, move.u.shortcutpad.rows = all, move.u.shortcutpad.cols = two;
    lb_net_linear(net, lb_net_flatten(net, lb_net_append(net, &move), "flat"), "fc", 4, true);
    assert_ok(ctx, lb_net_finish(net));
    compare(ctx, "moved", net, 8);
    lb_ctx_destroy(ctx);
}

static void named(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    compare(ctx, "named", make_named(ctx), 13);
    lb_ctx_destroy(ctx);
}

/* Squeeze-and-excitation and every function: written and read back; evaluated. */
static lb_net *make_gated(lb_ctx *ctx) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "gated", 9, 7, 3, &net));
    int x = lb_net_batchnorm(net, lb_net_conv2d(net, 0, "conv1", 6, 3, 1, 1, 1, false), "bn1", 0, 0);
    for (int k = LB_FUNC_LEAKY; k <= LB_FUNC_HARDSWISH; k++) {
        lb_node func = {.op = LB_OP_FUNC, .nsrc = 1, .src = {x}};
        func.u.func.kind = (lb_func_kind)k;
        func.u.func.alpha = 0.3f, func.u.func.beta = 0.4f;
        x = lb_net_append(net, &func);
        x = lb_net_batchnorm(net, lb_net_conv2d(net, x, NULL, 6, 1, 1, 0, 1, false), NULL, 0, 0);
    }
    lb_node slopes = {.op = LB_OP_FUNC, .name = "prelu", .nsrc = 1, .src = {x}, .u.func.slopes = true};
    x = lb_net_append(net, &slopes);
    int gate = lb_net_conv2d(net, lb_net_globalpool(net, x, "squeeze"), "excite", 6, 1, 1, 0, 1, true);
    lb_node sigmoid = {.op = LB_OP_FUNC, .name = "gate", .nsrc = 1, .src = {gate}};
    sigmoid.u.func.kind = LB_FUNC_SIGMOID;
    gate = lb_net_append(net, &sigmoid);
    x = lb_net_append(net, &(lb_node){.op = LB_OP_MUL, .name = "gated", .nsrc = 2, .src = {lb_net_relu(net, x, "relu"), gate}});
    lb_net_linear(net, lb_net_globalpool(net, x, "pool"), "fc", 4, true);
    assert_ok(ctx, lb_net_finish(net));
    return net;
}

static void gated(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    compare(ctx, "gated", make_gated(ctx), 11);

    lb_net *net = make_gated(ctx);
    uint32_t seed = 12;
    netref_fill(net, seed);
    uint8_t *pixels = make_pixels(net, &seed);
    netref r;
    netref_calibrated(&r, net, mean, std_, MB, seed, pixels);
    int32_t scores[MB * 4];
    run_evaluator(ctx, net, mean, std_, pixels, MB, false, scores);
    for (int i = 0; i < MB * 4; i++)
        assert_true(fabs((double)scores[i] / 65536 - r.values[net->nnodes - 1][i]) < 1e-4);
    netref_destroy(&r);
    free(pixels);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* A low-bit network as QDQ, its weights as integers of 8, 4 and 2 bits, and as QCDQ: the same float network comes back, its weights
 * on their grid. */
static void quantized_round_trip(void **state) {
    (void)state;
    static const scheme low = {"lsq", "lsq", "lsq", 2, 2};
    static const lb_export_options ways[] = {{.opset = 13}, {.opset = 21}, {.opset = 25}, {.format = LB_ONNX_QCDQ}};
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx, &families[0], &low, 0), *back[LB_COUNT(ways)];
    netref_fill(net, 77);
    for (size_t i = 0; i < LB_COUNT(ways); i++) {
        lb_onnx_build b;
        lb_export_options options;
        lb_imported in;
        assert_ok(ctx, lb_export_resolve(ctx, &ways[i], &options));
        lb_onnx_build_init(&b, ctx, net->name);
        assert_ok(ctx, lb_export_net(ctx, net, mean, std_, &options, &b));
        assert_ok(ctx, lb_net_import(ctx, &b.model, "qdq.onnx", NULL, &in));
        lb_onnx_build_free(&b);
        back[i] = in.net;
        assert_int_equal(in.net->nvalues, back[0]->nvalues);
        assert_memory_equal(in.net->values, back[0]->values, in.net->nvalues * sizeof *in.net->values);
    }
    int layers = 0;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        if (!lb_is_layer(node) || !node->quant || node->quant->grid.bits != 2)
            continue;
        const lb_node *same = &back[0]->nodes[lb_net_find(back[0], node->name)];
        const float *got = lb_param_values(back[0], same->param[0]);
        const size_t count = back[0]->params[same->param[0]].count;
        float step = INFINITY;
        for (size_t k = 0; k < count; k++)
            if (got[k] != 0)
                step = fminf(step, fabsf(got[k]));
        for (size_t k = 0; k < count; k++)
            assert_true(got[k] == 0 || got[k] == step || got[k] == -step || got[k] == -2 * step);
        layers++;
    }
    assert_true(layers > 0);
    for (size_t i = 0; i < LB_COUNT(ways); i++)
        lb_net_destroy(back[i]);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

int main(void) {
    struct CMUnitTest tests[LB_COUNT(families) + 5];
    char names[LB_COUNT(families)][64];
    for (size_t i = 0; i < LB_COUNT(families); i++) {
        family_name(&families[i], names[i]);
        tests[i] = (struct CMUnitTest){names[i], round_trip, NULL, NULL, (void *)(uintptr_t)&families[i]};
    }
    tests[LB_COUNT(families)] = (struct CMUnitTest)cmocka_unit_test(selected);
    tests[LB_COUNT(families) + 1] = (struct CMUnitTest)cmocka_unit_test(gated);
    tests[LB_COUNT(families) + 2] = (struct CMUnitTest)cmocka_unit_test(quantized_round_trip);
    tests[LB_COUNT(families) + 3] = (struct CMUnitTest)cmocka_unit_test(moved);
    tests[LB_COUNT(families) + 4] = (struct CMUnitTest)cmocka_unit_test(named);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

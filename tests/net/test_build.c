/* Building a network by hand: shapes, names, parameters, what is refused and how, out of memory, initialisation, editing. */
#include <math.h>

#include "net/config.h"

static lb_net *start(lb_ctx *ctx, int h, int w, int c) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "test", h, w, c, &net));
    return net;
}

/* One of everything; ends in 10 classes. */
static lb_status build_all(lb_net *net) {
    int x = lb_net_conv2d(net, lb_net_input(net), NULL, 8, 3, 2, 1, 1, false);
    x = lb_net_batchnorm(net, x, NULL, 0, 0);
    int a = lb_net_relu(net, x, NULL);
    x = lb_net_conv2d(net, a, NULL, 8, 3, 1, 1, 8, true);
    x = lb_net_relu6(net, x, "six");
    x = lb_net_add(net, x, a, NULL);
    x = lb_net_hardtanh(net, x, NULL);
    x = lb_net_maxpool(net, x, NULL, 3, 2, 1);
    x = lb_net_clip(net, x, NULL, -2, 3);
    x = lb_net_avgpool(net, x, NULL, 2, 2, 0);
    x = lb_net_flatten(net, x, NULL);
    x = lb_net_dropout(net, x, NULL, 0.5f);
    x = lb_net_linear(net, x, NULL, 10, true);
    lb_net_globalpool(net, x, NULL);
    return lb_net_finish(net);
}

static void test_everything(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = start(ctx, 17, 13, 3);
    assert_ok(ctx, build_all(net));
    test_consistent(net);
    static const struct {
        const char *name;
        lb_op op;
        lb_shape dst;
        int64_t macs;
    } wanted[] = {
        {"input", LB_OP_INPUT, {17, 13, 3}, 0},
        {"conv1", LB_OP_CONV, {9, 7, 8}, 9 * 7 * 8 * 27},
        {"batchnorm1", LB_OP_BATCHNORM, {9, 7, 8}, 0},
        {"act1", LB_OP_ACT, {9, 7, 8}, 0},
        {"conv2", LB_OP_CONV, {9, 7, 8}, 9 * 7 * 8 * 9},
        {"six", LB_OP_ACT, {9, 7, 8}, 0},
        {"add1", LB_OP_ADD, {9, 7, 8}, 0},
        {"act3", LB_OP_ACT, {9, 7, 8}, 0},
        {"maxpool1", LB_OP_MAXPOOL, {5, 4, 8}, 0},
        {"act4", LB_OP_ACT, {5, 4, 8}, 0},
        {"avgpool1", LB_OP_AVGPOOL, {2, 2, 8}, 0},
        {"flatten1", LB_OP_FLATTEN, {1, 1, 32}, 0},
        {"dropout1", LB_OP_DROPOUT, {1, 1, 32}, 0},
        {"linear1", LB_OP_LINEAR, {1, 1, 10}, 320},
        {"avgpool2", LB_OP_AVGPOOL, {1, 1, 10}, 0},
    };
    assert_int_equal(net->nnodes, LB_COUNT(wanted));
    int64_t macs = 0;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        assert_string_equal(node->name, wanted[i].name);
        assert_int_equal(node->op, wanted[i].op);
        assert_memory_equal(&node->dst, &wanted[i].dst, sizeof node->dst);
        assert_int_equal(lb_op_info(node->op)->macs ? lb_op_info(node->op)->macs(net, node) : 0, wanted[i].macs);
        macs += wanted[i].macs;
    }
    assert_int_equal(lb_net_macs(net), macs);
    static const struct {
        const char *name;
        lb_param_kind kind;
        int ndim;
        int64_t dims[4];
        int fan_in, fan_out;
    } params[] = {
        {"conv1.weight", LB_PARAM_WEIGHT, 4, {8, 3, 3, 3}, 27, 72},
        {"batchnorm1.weight", LB_PARAM_BN_GAMMA, 1, {8}, 0, 0},
        {"batchnorm1.bias", LB_PARAM_BN_BETA, 1, {8}, 0, 0},
        {"batchnorm1.running_mean", LB_PARAM_BN_MEAN, 1, {8}, 0, 0},
        {"batchnorm1.running_var", LB_PARAM_BN_VAR, 1, {8}, 0, 0},
        {"conv2.weight", LB_PARAM_WEIGHT, 4, {8, 3, 3, 1}, 9, 72},
        {"conv2.bias", LB_PARAM_BIAS, 1, {8}, 0, 0},
        {"linear1.weight", LB_PARAM_WEIGHT, 2, {10, 32}, 32, 10},
        {"linear1.bias", LB_PARAM_BIAS, 1, {10}, 0, 0},
    };
    assert_int_equal(net->nparams, LB_COUNT(params));
    for (int i = 0; i < net->nparams; i++) {
        assert_string_equal(net->params[i].name, params[i].name);
        assert_int_equal(net->params[i].kind, params[i].kind);
        assert_int_equal(net->params[i].ndim, params[i].ndim);
        assert_memory_equal(net->params[i].dims, params[i].dims, sizeof params[i].dims);
        assert_int_equal(net->params[i].fan_in, params[i].fan_in);
        assert_int_equal(net->params[i].fan_out, params[i].fan_out);
    }
    assert_float_equal(net->nodes[2].u.bn.eps, 1e-5, 1e-12);
    assert_float_equal(net->nodes[2].u.bn.momentum, 0.1, 1e-8);
    assert_true(net->nodes[3].u.act.lo == 0 && isinf(net->nodes[3].u.act.hi));
    assert_true(net->nodes[5].u.act.lo == 0 && net->nodes[5].u.act.hi == 6);
    assert_true(net->nodes[7].u.act.lo == -1 && net->nodes[7].u.act.hi == 1);
    assert_true(net->nodes[9].u.act.lo == -2 && net->nodes[9].u.act.hi == 3);
    assert_int_equal(net->classes, 10);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* What goes wrong in one call on a network "in" (relu) of 8x8x6 -> "stem" (conv) 8x8x4 -> "wide" (conv, stride 2) 4x4x6. */
typedef void (*mistake)(lb_net *net, int in, int stem, int wide);
static void add_shapes(lb_net *net, int in, int stem, int wide) {
    (void)in;
    lb_net_add(net, stem, wide, "sum");
}
static void add_channels(lb_net *net, int in, int stem, int wide) {
    (void)wide;
    lb_net_add(net, stem, in, "sum");
}
static void linear_image(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_linear(net, wide, "fc", 10, true);
}
static void conv_small(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "big", 4, 7, 1, 1, 1, false);
}
static void pool_small(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_maxpool(net, wide, "pool", 5, 1, 0);
}
static void avg_small(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_avgpool(net, wide, "pool", 5, 1, 0);
}
static void conv_groups(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "g", 8, 3, 1, 1, 4, false);
}
static void conv_groups_oc(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "g", 8, 3, 1, 1, 3, false);
}
static void conv_negative(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "g", 8, 3, 1, 1, -1, false);
}
static void conv_kernel(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", 8, 0, 1, 0, 1, false);
}
static void conv_stride(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", 8, 1, -1, 0, 1, false);
}
static void conv_pad(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", 8, 3, 1, 3, 1, false);
}
static void conv_pad_negative(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", 8, 3, 1, -1, 1, false);
}
static void conv_none(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", 0, 3, 1, 1, 1, false);
}
static void conv_huge_kernel(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", 1, INT32_MAX, 1, INT32_MAX - 1, 1, false);
}
static void conv_huge(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", INT32_MAX, 3, 1, 1, 1, false);
}
static void conv_huge_weights(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_conv2d(net, wide, "k", 100000000, 3, 4, 1, 1, false);
}
static void same_name(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_relu(net, wide, "stem");
}
static void no_name(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_relu(net, wide, "");
}
static void bad_name(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_relu(net, wide, "a\nb");
}
static void source_later(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_relu(net, wide + 1, "r");
}
static void source_negative(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem, (void)wide;
    lb_net_globalpool(net, -7, "r");
}
static void clip_empty(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_clip(net, wide, "c", 1, 1);
}
static void clip_nan(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_clip(net, wide, "c", NAN, 1);
}
static void dropout_one(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_dropout(net, wide, "d", 1);
}
static void dropout_nan(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_dropout(net, wide, "d", NAN);
}
static void bn_eps(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_batchnorm(net, wide, "b", -1, 0);
}
static void bn_momentum(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_batchnorm(net, wide, "b", 0, 2);
}
static void ends_wide(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem, (void)wide;
    lb_net_finish(net);
}
static void idle_layer(lb_net *net, int in, int stem, int wide) {
    (void)in;
    lb_net_relu(net, stem, "idle");
    lb_net_globalpool(net, wide, NULL);
    lb_net_finish(net);
}
static void wrong_classes(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    net->classes = 10;
    lb_net_globalpool(net, wide, "end");
    lb_net_finish(net);
}
static void after_finish(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    int x = lb_net_globalpool(net, wide, NULL);
    if (lb_net_finish(net) == LB_OK)
        lb_net_relu(net, x, "late");
}
static void finish_twice(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_net_globalpool(net, wide, NULL);
    if (lb_net_finish(net) == LB_OK)
        lb_net_finish(net);
}
static void pad_fewer(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    lb_node node = {.op = LB_OP_SHORTCUTPAD, .name = "p", .nsrc = 1, .src = {wide}};
    node.u.shortcutpad.oc = 5;
    lb_net_append(net, &node);
}
static void pad_parts(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    const lb_part twice[] = {{0, 0, 2}, {2, 1, 2}};
    lb_node node = {.op = LB_OP_SHORTCUTPAD, .name = "p", .nsrc = 1, .src = {wide}};
    node.u.shortcutpad.oc = 5;
    node.u.shortcutpad.nparts = 2;
    node.u.shortcutpad.parts = twice;
    lb_net_append(net, &node);
}
static void pad_outside(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem;
    const lb_part outside = {4, 0, 2};
    lb_node node = {.op = LB_OP_SHORTCUTPAD, .name = "p", .nsrc = 1, .src = {wide}};
    node.u.shortcutpad.oc = 5;
    node.u.shortcutpad.nparts = 1;
    node.u.shortcutpad.parts = &outside;
    lb_net_append(net, &node);
}
static void unknown_op(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem, (void)wide;
    lb_net_append(net, &(lb_node){.op = LB_OP_COUNT});
}
static void second_input(lb_net *net, int in, int stem, int wide) {
    (void)in, (void)stem, (void)wide;
    lb_net_append(net, &(lb_node){.op = LB_OP_INPUT, .dst = {1, 1, 1}});
}

static void test_mistakes(void **state) {
    (void)state;
    static const struct {
        mistake make;
        lb_status status;
        const char *parts[3];
    } rows[] = {
        {add_shapes, LB_ERR_SHAPE, {"sum: stem gives 8x8x4 but wide gives 4x4x6"}},
        {add_channels, LB_ERR_SHAPE, {"sum: stem gives 8x8x4 but in gives 8x8x6"}},
        {linear_image, LB_ERR_SHAPE, {"fc: wide gives 4x4x6", "flatten"}},
        {conv_small, LB_ERR_SHAPE, {"big: wide gives 4x4x6", "7x7"}},
        {pool_small, LB_ERR_SHAPE, {"pool: wide gives 4x4x6", "5x5"}},
        {avg_small, LB_ERR_SHAPE, {"pool: wide gives 4x4x6", "5x5"}},
        {conv_groups, LB_ERR_SHAPE, {"g: wide gives 4x4x6", "4 groups"}},
        {conv_groups_oc, LB_ERR_SHAPE, {"g: wide gives 4x4x6", "3 groups", "8 output channels"}},
        {conv_negative, LB_ERR_SHAPE, {"g: wide", "-1 groups"}},
        {conv_kernel, LB_ERR_ARGUMENT, {"k: kernel 0x0"}},
        {conv_stride, LB_ERR_ARGUMENT, {"k: ", "stride -1"}},
        {conv_pad, LB_ERR_ARGUMENT, {"k: padding 3"}},
        {conv_pad_negative, LB_ERR_ARGUMENT, {"k: padding -1"}},
        {conv_none, LB_ERR_ARGUMENT, {"k: 0 output channels"}},
        {conv_huge_kernel, LB_ERR_ARGUMENT, {"k: kernel"}},
        {conv_huge, LB_ERR_SHAPE, {"k: ", "2^31"}},
        {conv_huge_weights, LB_ERR_SHAPE, {"k: weight", "2^31"}},
        {same_name, LB_ERR_ARGUMENT, {"stem: there are two"}},
        {no_name, LB_ERR_ARGUMENT, {"name"}},
        {bad_name, LB_ERR_ARGUMENT, {"control character at position 2"}},
        {source_later, LB_ERR_ARGUMENT, {"r: source 4"}},
        {source_negative, LB_ERR_ARGUMENT, {"r: source -7"}},
        {clip_empty, LB_ERR_ARGUMENT, {"c: clip to [1, 1]"}},
        {clip_nan, LB_ERR_ARGUMENT, {"c: clip"}},
        {dropout_one, LB_ERR_ARGUMENT, {"d: dropout ratio 1"}},
        {dropout_nan, LB_ERR_ARGUMENT, {"d: dropout ratio"}},
        {bn_eps, LB_ERR_ARGUMENT, {"b: eps -1"}},
        {bn_momentum, LB_ERR_ARGUMENT, {"b: ", "momentum 2"}},
        {ends_wide, LB_ERR_SHAPE, {"the last layer, wide, gives 4x4x6"}},
        {idle_layer, LB_ERR_ARGUMENT, {"no layer reads idle"}},
        {wrong_classes, LB_ERR_SHAPE, {"the last layer, end, gives 1x1x6", "10 classes"}},
        {after_finish, LB_ERR_ARGUMENT, {"late: the network is finished"}},
        {finish_twice, LB_ERR_ARGUMENT, {"finished already"}},
        {pad_fewer, LB_ERR_SHAPE, {"p: wide gives 4x4x6", "5 channels"}},
        {pad_parts, LB_ERR_SHAPE, {"p: its parts", "overlap"}},
        {pad_outside, LB_ERR_SHAPE, {"p: its parts", "own 5"}},
        {unknown_op, LB_ERR_ARGUMENT, {"operator"}},
        {second_input, LB_ERR_ARGUMENT, {"operator"}},
    };
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_net *net = start(ctx, 8, 8, 6);
        int in = lb_net_relu(net, 0, "in"), stem = lb_net_conv2d(net, in, "stem", 4, 1, 1, 0, 1, false);
        int wide = lb_net_conv2d(net, stem, "wide", 6, 3, 2, 1, 1, false);
        assert_int_equal(wide, 3);
        rows[i].make(net, in, stem, wide);
        for (size_t p = 0; p < 3 && rows[i].parts[p]; p++)
            test_contains(lb_error(ctx), rows[i].parts[p]);
        assert_int_equal(net->status, rows[i].status);

        /* It sticks: later calls do nothing, the first failure is what finish returns, the message stays. */
        char message[1024];
        snprintf(message, sizeof message, "%s", lb_error(ctx));
        int nodes = net->nnodes;
        assert_int_equal(lb_net_relu(net, wide, "after"), -1);
        assert_int_equal(lb_net_conv2d(net, -1, "after", 0, 0, 0, 0, 0, false), -1);
        assert_int_equal(lb_net_globalpool(net, 99, NULL), -1);
        assert_int_equal(lb_net_finish(net), rows[i].status);
        assert_int_equal(net->nnodes, nodes);
        assert_string_equal(lb_error(ctx), message);
        lb_net_destroy(net);
    }

    lb_net *net = start(ctx, 2, 2, 1); /* nothing in it */
    assert_int_equal(lb_net_finish(net), LB_ERR_ARGUMENT);
    lb_net_destroy(net);
    lb_net *none = (lb_net *)&none;
    assert_int_equal(lb_net_create(ctx, "x", 0, 2, 3, &none), LB_ERR_SHAPE);
    assert_null(none);
    assert_int_equal(lb_net_create(ctx, "x", 1 << 20, 1 << 20, 3, &none), LB_ERR_SHAPE);
    assert_null(none);
    lb_net_destroy(NULL);
    assert_int_equal(lb_net_relu(NULL, 0, NULL), -1);
    assert_int_equal(lb_net_input(NULL), -1);
    lb_ctx_destroy(ctx);
}

/* Made names never meet a given one. */
static void test_names(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = start(ctx, 4, 4, 2);
    int x = lb_net_conv2d(net, 0, "conv2", 2, 1, 1, 0, 1, false); /* a nasty choice */
    x = lb_net_conv2d(net, x, NULL, 2, 1, 1, 0, 1, false);
    assert_string_equal(net->nodes[x].name, "conv3");
    x = lb_net_conv2d(net, x, NULL, 2, 1, 1, 0, 1, false);
    assert_string_equal(net->nodes[x].name, "conv4");
    x = lb_net_relu(net, x, "act1");
    x = lb_net_relu(net, x, NULL);
    assert_string_equal(net->nodes[x].name, "act2");
    for (int i = 0; i < 100; i++)
        x = lb_net_conv2d(net, x, NULL, 2, 1, 1, 0, 1, true);
    lb_net_globalpool(net, x, NULL);
    assert_ok(ctx, lb_net_finish(net));
    test_consistent(net);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static lb_status build_with(lb_ctx *ctx, test_allocator *a, long left) {
    lb_net *net;
    int index;
    a->left = left;
    lb_status status = lb_net_create(ctx, "test", 17, 13, 3, &net);
    assert_true((status == LB_OK) == (net != NULL));
    if (status == LB_OK)
        status = build_all(net);
    if (status == LB_OK)
        status = lb_net_insert_identity(net, 1, &index);
    if (status == LB_OK)
        status = lb_net_add_param(net, &net->nodes[2], "extra", LB_PARAM_QUANT, 1, (const int64_t[]){100000}, &index);
    lb_net_destroy(net);
    return status;
}

static void test_out_of_memory(void **state) {
    (void)state;
    assert_true(test_memory_runs_out(build_with) > 20);
}

static void test_initialise(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = start(ctx, 8, 8, 16);
    int x = lb_net_conv2d(net, 0, "a", 64, 3, 1, 1, 1, true);
    x = lb_net_batchnorm(net, x, "b", 0, 0);
    x = lb_net_conv2d(net, x, "c", 64, 3, 1, 1, 2, false);
    x = lb_net_globalpool(net, x, NULL);
    lb_net_linear(net, x, "d", 1000, true);
    assert_ok(ctx, lb_net_finish(net));
    int extra;
    assert_ok(ctx, lb_net_add_param(net, &net->nodes[1], "step", LB_PARAM_QUANT, 1, (const int64_t[]){1}, &extra));
    *lb_param_values(net, extra) = 42;
    for (float std = 0; std < 0.02f; std += 0.01f) {
        lb_net_initialise(net, 7, std);
        float *first = malloc(net->nvalues * sizeof *first);
        memcpy(first, net->values, net->nvalues * sizeof *first);
        for (int i = 0; i < net->nparams; i++) {
            const lb_param *param = &net->params[i];
            const float *v = lb_param_values(net, i);
            double sum = 0, squares = 0;
            for (size_t j = 0; j < param->count; j++)
                sum += (double)v[j], squares += (double)v[j] * (double)v[j];
            const bool classifier = !strcmp(param->name, "d.weight");
            double n = (double)param->count, wanted = std > 0 ? (double)std : sqrt((classifier ? 1.0 / 3 : 2) / param->fan_in);
            switch (param->kind) {
            case LB_PARAM_WEIGHT: /* five standard errors */
                assert_true(fabs(sqrt(squares / n) / wanted - 1) < 5 / sqrt(2 * n));
                assert_true(fabs(sum / n) < 5 * wanted / sqrt(n));
                break;
            case LB_PARAM_BN_GAMMA:
            case LB_PARAM_BN_VAR:
                assert_true(sum == n && squares == n);
                break;
            case LB_PARAM_QUANT:
                assert_true(*v == 42);
                break;
            default:
                assert_true(squares == 0);
                break;
            }
        }
        /* Different tensors have different numbers, a seed always the same ones. */
        assert_memory_not_equal(lb_param_values(net, 0), lb_param_values(net, 6), 64 * sizeof(float));
        memset(net->values, 0, (net->nvalues - 1) * sizeof *first);
        lb_net_initialise(net, 7, std);
        assert_memory_equal(net->values, first, net->nvalues * sizeof *first);
        lb_net_initialise(net, 8, std);
        assert_memory_not_equal(net->values, first, net->nvalues * sizeof *first);
        free(first);
    }
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Before lb_net_initialise a finished network has zero weights and neutral batch norms. */
static void test_finished_values(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = start(ctx, 17, 13, 3);
    assert_ok(ctx, build_all(net));
    for (int i = 0; i < net->nparams; i++)
        for (size_t j = 0; j < net->params[i].count; j++) {
            lb_param_kind kind = net->params[i].kind;
            assert_true(lb_param_values(net, i)[j] == (float)(kind == LB_PARAM_BN_GAMMA || kind == LB_PARAM_BN_VAR));
        }
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static void test_add_param(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = start(ctx, 17, 13, 3);
    assert_ok(ctx, build_all(net));
    size_t before = net->nvalues;
    for (size_t i = 0; i < before; i++)
        net->values[i] = (float)i;
    for (int k = 0; k < 40; k++) {
        char suffix[16];
        int index;
        snprintf(suffix, sizeof suffix, "p%d", k);
        assert_ok(ctx, lb_net_add_param(net, &net->nodes[3], suffix, LB_PARAM_QUANT, 1, (const int64_t[]){1 + 100 * k}, &index));
        float *values = lb_param_values(net, index);
        for (size_t j = 0; j < net->params[index].count; j++) {
            assert_true(values[j] == 0);
            values[j] = (float)(k + 1);
        }
    }
    for (size_t i = 0; i < before; i++)
        assert_true(net->values[i] == (float)i);
    for (int i = 0; i < net->nparams; i++)
        for (size_t j = 0; net->params[i].kind == LB_PARAM_QUANT && j < net->params[i].count; j++)
            assert_true(lb_param_values(net, i)[j] == (float)(i - (net->nparams - 40) + 1));
    test_consistent(net);
    int index;
    assert_int_equal(lb_net_add_param(net, &net->nodes[3], "x", LB_PARAM_QUANT, 1, (const int64_t[]){INT32_MAX}, &index),
                     LB_ERR_SHAPE);
    test_contains(lb_error(ctx), "2^31");
    assert_int_equal(lb_net_add_param(net, &net->nodes[3], "x", LB_PARAM_QUANT, 2, (const int64_t[]){INT64_MAX / 2, 3}, &index),
                     LB_ERR_SHAPE);
    test_consistent(net);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Inserting an identity before every node in turn keeps the order, and removing them gives the old graph back. */
static void test_insert(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *plain = start(ctx, 17, 13, 3), *net = start(ctx, 17, 13, 3);
    assert_ok(ctx, build_all(plain));
    assert_ok(ctx, build_all(net));
    int inserted = 0;
    for (int i = 1; i < plain->nnodes; i++) {
        int consumer = lb_net_find(net, plain->nodes[i].name), src = net->nodes[consumer].src[0], index;
        assert_ok(ctx, lb_net_insert_identity(net, consumer, &index));
        inserted++;
        assert_int_equal(index, src + 1);
        const lb_node *node = &net->nodes[index];
        assert_true(node->op == LB_OP_ACT && node->inserted && node->u.act.kind == LB_ACT_IDENTITY);
        assert_true(isinf(node->u.act.lo) && isinf(node->u.act.hi));
        assert_memory_equal(&node->dst, &net->nodes[src].dst, sizeof node->dst);
        assert_string_equal(net->nodes[consumer + 1].name, plain->nodes[i].name);
        assert_int_equal(net->nodes[consumer + 1].src[0], index);
        test_consistent(net);
    }
    assert_int_equal(net->nnodes, plain->nnodes + inserted);
    assert_true(lb_net_find(net, "input.quant") >= 0);
    int index;
    assert_int_equal(lb_net_insert_identity(net, 0, &index), LB_ERR_ARGUMENT);
    assert_int_equal(lb_net_insert_identity(net, net->nnodes, &index), LB_ERR_ARGUMENT);
    for (int i = net->nnodes - 1; i > 0; i--)
        if (net->nodes[i].inserted)
            lb_net_remove(net, i);
    test_consistent(net);
    assert_int_equal(net->nnodes, plain->nnodes);
    for (int i = 0; i < plain->nnodes; i++) {
        assert_string_equal(net->nodes[i].name, plain->nodes[i].name);
        assert_memory_equal(net->nodes[i].src, plain->nodes[i].src, sizeof net->nodes[i].src);
    }
    lb_net_destroy(plain);
    lb_net_destroy(net);

    net = start(ctx, 1, 1, 3); /* two readers of one tensor: each call is for one reader */
    int a = lb_net_linear(net, 0, "a", 2, false), b = lb_net_linear(net, 0, "b", 2, false);
    lb_net_add(net, a, b, "sum");
    assert_ok(ctx, lb_net_finish(net));
    assert_ok(ctx, lb_net_insert_identity(net, 1, &index));
    assert_ok(ctx, lb_net_insert_identity(net, 3, &index));
    test_consistent(net);
    assert_string_equal(net->nodes[net->nodes[lb_net_find(net, "a")].src[0]].name, "input.quant");
    assert_string_equal(net->nodes[net->nodes[lb_net_find(net, "b")].src[0]].name, "input.quant2");
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),    cmocka_unit_test(test_mistakes),   cmocka_unit_test(test_names),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_initialise), cmocka_unit_test(test_finished_values),
        cmocka_unit_test(test_add_param),     cmocka_unit_test(test_insert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The zoo: shapes, parameter counts and MACs of the published networks, options, odd sizes, and what is refused. */
#include "net/config.h"

/* Trainable parameters (running statistics are none), and those of conv and linear alone. */
static size_t count_params(const lb_net *net, bool weights_only) {
    size_t sum = 0;
    for (int i = 0; i < net->nparams; i++) {
        lb_param_kind kind = net->params[i].kind;
        if (kind == LB_PARAM_WEIGHT || (!weights_only && kind != LB_PARAM_BN_MEAN && kind != LB_PARAM_BN_VAR))
            sum += net->params[i].count;
    }
    return sum;
}

static int count_ops(const lb_net *net, lb_op op) {
    int n = 0;
    for (int i = 0; i < net->nnodes; i++)
        n += net->nodes[i].op == op;
    return n;
}

/* Parameters and MACs: torchvision's and the peers' exact figures where there are any, else by hand from the definition. */
static const struct {
    const char *name;
    int classes;
    size_t params, weights;
    int64_t macs;
    int layers; /* conv and linear */
} published[] = {
    {"lenet5", 10, 582634, 32 * 25 + 64 * 32 * 25 + 1024 * 512 + 5120, 0, 4},
    {"vgg9", 10, 0, 3508928, 0, 9},
    {"vgg7", 10, 0, 3456 + 147456 + 294912 + 589824 + 1179648 + 2359296 + 8192 * 1024 + 10240, 0, 8},
    {"vgg-small", 10, 0, 3456 + 147456 + 294912 + 589824 + 1179648 + 2359296 + 81920, 0, 7},
    {"binarynet", 10, 0, 3456 + 147456 + 294912 + 589824 + 1179648 + 2359296 + 8192 * 1024 + 1024 * 1024 + 10240, 0, 9},
    {"resnet20", 10, 272474, 0, 40813184, 22},
    {"resnet32", 10, 466906, 0, 0, 34},
    {"resnet44", 10, 661338, 0, 0, 46},
    {"resnet56", 10, 855770, 0, 0, 58},
    {"resnet110", 10, 1730714, 0, 0, 112},
    {"preresnet20", 10, 0, 270896, 40813184, 22},
    {"resnet18", 1000, 11689512, 0, 1814073344, 21},
    {"resnet34", 1000, 21797672, 0, 3663761408, 37},
    {"resnet50", 1000, 25557032, 0, 4089184256, 54},
    {"mobilenet-v1", 1000, 4231976, 0, 568740352, 28},
    {"mobilenet-v2", 1000, 3504872, 0, 300774272, 53},
};

static void test_published(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    size_t nentries;
    const lb_zoo_entry *entries = lb_zoo_list(&nentries);
    assert_int_equal(nentries, LB_COUNT(published));
    for (size_t e = 0; e < nentries; e++) {
        size_t p = 0;
        while (p < LB_COUNT(published) && strcmp(published[p].name, entries[e].name))
            p++;
        assert_true(p < LB_COUNT(published));
        lb_config config = test_config(entries[e].name);
        lb_shape in = entries[e].input;
        lb_net *net = test_net(ctx, &config, in.h, in.w, in.c, published[p].classes);
        test_consistent(net);
        printf("%-13s %9zu parameters %9zu weights %10lld MACs %3d layers\n", net->name, count_params(net, false),
               count_params(net, true), (long long)lb_net_macs(net), count_ops(net, LB_OP_CONV) + count_ops(net, LB_OP_LINEAR));
        const lb_node *last = &net->nodes[net->nnodes - 1];
        assert_int_equal(last->dst.h * last->dst.w, 1);
        assert_int_equal(last->dst.c, published[p].classes);
        assert_int_equal(net->classes, published[p].classes);
        assert_string_equal(net->name, entries[e].name);
        if (published[p].params)
            assert_int_equal(count_params(net, false), published[p].params);
        if (published[p].weights)
            assert_int_equal(count_params(net, true), published[p].weights);
        if (published[p].macs)
            assert_int_equal(lb_net_macs(net), published[p].macs);
        assert_int_equal(count_ops(net, LB_OP_CONV) + count_ops(net, LB_OP_LINEAR), published[p].layers);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

static const lb_node *node_of(const lb_net *net, const char *name) {
    int i = lb_net_find(net, name);
    if (i < 0)
        fail_msg("there is no %s", name);
    return &net->nodes[i];
}

static void assert_shape(const lb_net *net, const char *name, int h, int w, int c) {
    const lb_shape *dst = &node_of(net, name)->dst;
    char text[LB_SHAPE_TEXT], wanted[LB_SHAPE_TEXT];
    assert_string_equal(lb_shape_text(dst, text), lb_shape_text(&(lb_shape){h, w, c}, wanted));
}

static void test_shapes(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const struct {
        const char *model, *node;
        int size, h, c;
    } rows[] = {
        {"lenet5", "conv1", 28, 24, 32},
        {"lenet5", "pool2", 28, 4, 64},
        {"lenet5", "flatten", 28, 1, 1024},
        {"vgg9", "pool2", 32, 16, 64},
        {"vgg9", "pool6", 32, 4, 256},
        {"vgg9", "fc7", 32, 1, 512},
        {"vgg-small", "flatten", 32, 1, 8192},
        {"binarynet", "relu6", 32, 4, 512},
        {"binarynet", "bn", 32, 1, 10},
        {"resnet20", "layer1.2.relu", 32, 32, 16},
        {"resnet20", "layer2.0.shortcut.conv", 32, 16, 32},
        {"resnet20", "layer3.2.add", 32, 8, 64},
        {"resnet20", "layer3.2.add", 28, 7, 64},
        {"resnet20", "layer3.2.add", 33, 9, 64},
        {"resnet20", "layer3.2.add", 1, 1, 64},
        {"preresnet20", "layer2.0.add", 31, 16, 32},
        {"resnet18", "maxpool", 224, 56, 64},
        {"resnet18", "layer4.1.relu", 224, 7, 512},
        {"resnet18", "layer4.1.relu", 33, 2, 512},
        {"resnet50", "layer1.0.shortcut.conv", 224, 56, 256},
        {"resnet50", "layer4.2.add", 224, 7, 2048},
        {"mobilenet-v1", "block13.pointwise.conv", 224, 7, 1024},
        {"mobilenet-v2", "head.conv", 224, 7, 1280},
        {"mobilenet-v2", "block2.expand.conv", 224, 112, 96},
        {"mobilenet-v2", "block17.project.bn", 97, 4, 320},
    };
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_config config = test_config(rows[i].model);
        lb_net *net = test_net(ctx, &config, rows[i].size, rows[i].size, !strcmp(rows[i].model, "lenet5") ? 1 : 3, 10);
        assert_shape(net, rows[i].node, rows[i].h, rows[i].h, rows[i].c);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* Every network at sizes nobody published, not square, one channel: it is built, or refused with a message that names layers. */
static void test_any_size(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    size_t nentries;
    const lb_zoo_entry *entries = lb_zoo_list(&nentries);
    static const int sizes[][2] = {{1, 1}, {7, 9}, {16, 16}, {28, 28}, {29, 33}, {64, 48}};
    for (size_t e = 0; e < nentries; e++)
        for (size_t s = 0; s < LB_COUNT(sizes); s++)
            for (int width = 0; width < 2; width++) {
                lb_config config = test_config(entries[e].name);
                config.model.width = width ? 0.25f : 0.01f;
                lb_net *net;
                lb_status status = lb_net_from_config(ctx, &config, (lb_shape){sizes[s][0], sizes[s][1], 1}, 3, &net);
                if (status == LB_OK) {
                    test_consistent(net);
                    assert_int_equal(net->nodes[net->nnodes - 1].dst.c, 3);
                } else {
                    assert_int_equal(status, LB_ERR_SHAPE);
                    assert_null(net);
                    test_contains(lb_error(ctx), entries[e].name);
                    test_contains(lb_error(ctx), "too small");
                    assert_true(sizes[s][0] < 28);
                }
                lb_net_destroy(net);
            }
    lb_ctx_destroy(ctx);
}

static void test_width(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = test_config("resnet20");
    static const struct {
        float width;
        int channels[3];
    } rows[] = {{1, {16, 32, 64}}, {4, {64, 128, 256}}, {0.5f, {8, 16, 32}}, {0.01f, {1, 1, 1}}, {1.1f, {18, 35, 70}}};
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        config.model.width = rows[i].width;
        lb_net *net = test_net(ctx, &config, 32, 32, 3, 10);
        assert_shape(net, "conv1", 32, 32, rows[i].channels[0]);
        assert_shape(net, "layer2.1.conv2", 16, 16, rows[i].channels[1]);
        assert_shape(net, "layer3.0.conv1", 8, 8, rows[i].channels[2]);
        assert_shape(net, "fc", 1, 1, 10);
        lb_net_destroy(net);
    }
    config.model.width = 1e9f;
    lb_net *net;
    assert_int_equal(lb_net_from_config(ctx, &config, (lb_shape){32, 32, 3}, 10, &net), LB_ERR_SHAPE);
    test_contains(lb_error(ctx), "conv1");
    lb_ctx_destroy(ctx);
}

/* The networks of SQ's released code (Dong 2017). */
static void test_sq(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = test_config("resnet56");
    strcpy(config.model.variant, "sq");
    lb_net *net = test_net(ctx, &config, 32, 32, 3, 10);
    assert_int_equal(count_ops(net, LB_OP_CONV), 57);
    assert_int_equal(count_ops(net, LB_OP_BATCHNORM), 57);
    assert_int_equal(count_ops(net, LB_OP_ACT), 28);
    assert_int_equal(count_ops(net, LB_OP_LINEAR), 1);
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        if (lb_is_layer(node))
            assert_true(node->u.conv.bias);
        for (int s = 0; node->op == LB_OP_ACT && s < node->nsrc; s++)
            assert_int_not_equal(net->nodes[node->src[s]].op, LB_OP_ADD);
    }
    const lb_conv *proj = &node_of(net, "layer2.0.shortcut.conv")->u.conv;
    assert_int_equal(proj->kh, 2);
    assert_int_equal(proj->sh, 2);
    assert_int_equal(proj->pt + proj->pl + proj->pb + proj->pr, 0);
    assert_true(node_of(net, "layer2.0.shortcut.conv")->shortcut);
    lb_net_destroy(net);

    /* A 2x2 shortcut of an odd image has its last pixels too. */
    net = test_net(ctx, &config, 31, 32, 3, 10);
    proj = &node_of(net, "layer2.0.shortcut.conv")->u.conv;
    assert_true(proj->pt == 0 && proj->pb == 1 && proj->pl == 0 && proj->pr == 0);
    assert_int_equal(node_of(net, "layer2.0.shortcut.conv")->dst.h, 16);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Shortcuts are marked where the shape changes and only there; padded ones have no parameters. */
static void test_shortcuts(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const struct {
        const char *model;
        int size, convs;
    } rows[] = {{"resnet20", 32, 2}, {"preresnet20", 32, 2}, {"resnet18", 64, 3}, {"resnet34", 64, 3}, {"resnet50", 64, 4}};
    for (size_t i = 0; i < LB_COUNT(rows); i++)
        for (int pad = 0; pad < 2; pad++) {
            lb_config config = test_config(rows[i].model);
            config.model.shortcut = pad ? LB_SHORTCUT_PAD : LB_SHORTCUT_CONV;
            lb_net *net = test_net(ctx, &config, rows[i].size, rows[i].size, 3, 10);
            int marked = 0;
            for (int n = 0; n < net->nnodes; n++) {
                marked += net->nodes[n].shortcut;
                assert_true(!net->nodes[n].shortcut || net->nodes[n].op == LB_OP_CONV);
            }
            assert_int_equal(marked, pad ? 0 : rows[i].convs);
            assert_int_equal(count_ops(net, LB_OP_SHORTCUTPAD), pad ? rows[i].convs : 0);
            test_consistent(net);
            lb_net_destroy(net);
        }
    lb_config config = test_config("resnet20"); /* He et al. 2016 print 0.27 M for it */
    config.model.shortcut = LB_SHORTCUT_PAD;
    lb_net *net = test_net(ctx, &config, 32, 32, 3, 10);
    assert_int_equal(count_params(net, false), 269722);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static void test_options(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const struct {
        const char *act;
        lb_act_kind kind;
    } acts[] = {{"relu", LB_ACT_RELU}, {"relu6", LB_ACT_RELU6}, {"hardtanh", LB_ACT_HARDTANH}};
    size_t nentries;
    const lb_zoo_entry *entries = lb_zoo_list(&nentries);
    for (size_t e = 0; e < nentries; e++) {
        lb_shape in = entries[e].input;
        for (size_t a = 0; a < LB_COUNT(acts); a++) {
            lb_config config = test_config(entries[e].name);
            strcpy(config.model.act, acts[a].act);
            lb_net *net = test_net(ctx, &config, in.h, in.w, in.c, 5);
            for (int i = 0; i < net->nnodes; i++)
                assert_true(net->nodes[i].op != LB_OP_ACT || net->nodes[i].u.act.kind == acts[a].kind);
            lb_net_destroy(net);
        }
        for (int on = 0; on < 2; on++) {
            lb_config config = test_config(entries[e].name);
            config.model.dropout = on ? 0.3f : 0;
            lb_net *net = test_net(ctx, &config, in.h, in.w, in.c, 5);
            assert_int_equal(count_ops(net, LB_OP_DROPOUT) > 0, on);
            for (int i = 0; i < net->nnodes; i++)
                assert_true(net->nodes[i].op != LB_OP_DROPOUT || net->nodes[i].u.dropout.ratio == 0.3f);
            lb_net_destroy(net);
        }
    }
    lb_config config = test_config("vgg9");
    lb_net *net = test_net(ctx, &config, 32, 32, 3, 10);
    assert_int_equal(count_ops(net, LB_OP_DROPOUT), 5);
    assert_float_equal(node_of(net, "dropout4")->u.dropout.ratio, 0.25, 0);
    assert_float_equal(node_of(net, "dropout")->u.dropout.ratio, 0.5, 0);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static void test_refused(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const struct {
        const char *model, *variant, *act, *part;
        float width, dropout;
        lb_shortcut_kind shortcut;
        lb_status status;
    } rows[] = {
        {"resnet21", "plain", "auto", "did you mean 'resnet20'", 1, -1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"", "plain", "auto", "lowbit list models", 1, -1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"resnet20", "sqq", "auto", "resnet20 has no variant 'sqq'; it has plain, sq", 1, -1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"vgg9", "sq", "auto", "vgg9 has no variant 'sq'", 1, -1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"resnet20", "s", "auto", "no variant", 1, -1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"resnet20", "plain", "relu5", "did you mean 'relu", 1, -1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"resnet20", "plain", "auto", "model.width", 0, -1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"resnet20", "plain", "auto", "model.dropout", 1, 1, LB_SHORTCUT_CONV, LB_ERR_RECIPE},
        {"vgg7", "plain", "auto", "no shortcuts", 1, -1, LB_SHORTCUT_PAD, LB_ERR_RECIPE},
    };
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_config config = test_config(rows[i].model);
        strcpy(config.model.variant, rows[i].variant);
        strcpy(config.model.act, rows[i].act);
        config.model.width = rows[i].width;
        config.model.dropout = rows[i].dropout;
        config.model.shortcut = rows[i].shortcut;
        lb_net *net;
        assert_int_equal(lb_net_from_config(ctx, &config, (lb_shape){32, 32, 3}, 10, &net), rows[i].status);
        assert_null(net);
        test_contains(lb_error(ctx), rows[i].part);
    }
    lb_config config = test_config("vgg9");
    lb_net *net;
    assert_int_equal(lb_net_from_config(ctx, &config, (lb_shape){5, 32, 3}, 10, &net), LB_ERR_SHAPE);
    test_contains(lb_error(ctx), "pool6: relu6 gives 1x8x256");
    test_contains(lb_error(ctx), "vgg9 on 5x32x3 images");
    assert_int_not_equal(lb_net_from_config(ctx, &config, (lb_shape){32, 32, 3}, 0, &net), LB_OK);
    assert_int_not_equal(lb_net_from_config(ctx, &config, (lb_shape){0, 32, 3}, 10, &net), LB_OK);
    lb_ctx_destroy(ctx);
}

/* The n-th allocation fails, for every n: a clean error, nothing leaks. */
static lb_status build_resnet20(lb_ctx *ctx, test_allocator *a, long left) {
    lb_config config = test_config("resnet20");
    lb_net *net;
    a->left = left;
    const lb_status status = lb_net_from_config(ctx, &config, (lb_shape){32, 32, 3}, 10, &net);
    assert_true((status == LB_OK) == (net != NULL));
    lb_net_destroy(net);
    return status;
}

static void test_out_of_memory(void **state) {
    (void)state;
    assert_true(test_memory_runs_out(build_resnet20) > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published), cmocka_unit_test(test_shapes),  cmocka_unit_test(test_any_size),
        cmocka_unit_test(test_width),     cmocka_unit_test(test_sq),      cmocka_unit_test(test_shortcuts),
        cmocka_unit_test(test_options),   cmocka_unit_test(test_refused), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

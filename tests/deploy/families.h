/* Families of the zoo, small and of odd sizes, and the ways to quantize them that deployment is tested with. */
#ifndef LB_TEST_FAMILIES_H
#define LB_TEST_FAMILIES_H

#include "net/config.h"
#include "netref.h"

enum { MB = 5, CLASSES = 7 };

typedef struct scheme {
    const char *name, *weights, *activations;
    int weight_bits, activation_bits;
} scheme;

static const scheme schemes[] = {
    {"dorefa 2/2", "dorefa", "dorefa", 2, 2},
    {"dorefa 8/8", "dorefa", "dorefa", 8, 8},
    {"lsq 3/3", "lsq", "lsq", 3, 3},
    {"lsq 1/1", "lsq", "lsq", 1, 1},
    {"sign 1/1", "sign", "sign", 1, 1},
    {"xnor 1/1", "xnor", "sign", 1, 1},
    {"bwn 1/2", "bwn", "dorefa", 1, 2},
    {"twn 2/2", "twn", "dorefa", 2, 2},
    {"uniform 8/8", "uniform", "uniform", 8, 8},
    {"uniform 5/6", "uniform", "uniform", 5, 6},
    {"dorefa/pact 4/4", "dorefa", "pact", 4, 4},
    {"weights lsq 2", "lsq", "none", 2, 32},
    {"weights twn", "twn", "none", 2, 32},
    {"activations lsq 2", "none", "lsq", 32, 2},
    {"float", "none", "none", 32, 32},
};
static const int edges[] = {0, 8, LB_EDGE_SAME};

typedef struct family {
    const char *name, *variant;
    lb_shortcut_kind shortcut;
    float width;
    int h, w, c;
} family;

static const family families[] = {
    {"lenet5", "plain", LB_SHORTCUT_CONV, 0.2f, 28, 28, 1},        {"lenet5", "plain", LB_SHORTCUT_CONV, 0.12f, 23, 19, 3},
    {"vgg9", "plain", LB_SHORTCUT_CONV, 0.05f, 17, 19, 3},         {"vgg7", "plain", LB_SHORTCUT_CONV, 0.03f, 17, 9, 3},
    {"vgg-small", "plain", LB_SHORTCUT_CONV, 0.04f, 9, 13, 1},     {"binarynet", "plain", LB_SHORTCUT_CONV, 0.03f, 13, 11, 3},
    {"resnet20", "plain", LB_SHORTCUT_CONV, 0.4f, 9, 11, 3},       {"resnet20", "plain", LB_SHORTCUT_PAD, 0.3f, 11, 9, 1},
    {"resnet20", "sq", LB_SHORTCUT_CONV, 0.3f, 13, 10, 3},          {"preresnet20", "plain", LB_SHORTCUT_CONV, 0.3f, 9, 11, 3},
    {"preresnet20", "plain", LB_SHORTCUT_PAD, 0.5f, 9, 7, 3},      {"resnet18", "plain", LB_SHORTCUT_CONV, 0.05f, 33, 35, 3},
    {"resnet50", "plain", LB_SHORTCUT_CONV, 0.04f, 33, 31, 3},     {"mobilenet-v1", "plain", LB_SHORTCUT_CONV, 0.08f, 33, 37, 3},
    {"mobilenet-v2", "plain", LB_SHORTCUT_CONV, 0.15f, 33, 35, 3},
};

/* As networks come from elsewhere: channels split, shuffled and put side by side, pixels moved, averages at the edge,
 * squeeze-and-excitation, every function. */
static const family mixed = {"mixed", "plain", LB_SHORTCUT_CONV, 1, 13, 11, 3};

static inline int mixed_select(lb_net *net, int x, const lb_part *parts, int nparts, int oc) {
    lb_node node = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1, .src = {x}};
    node.u.shortcutpad.oc = oc;
    node.u.shortcutpad.nparts = nparts;
    node.u.shortcutpad.parts = parts;
    return lb_net_append(net, &node);
}
static inline int mixed_func(lb_net *net, int x, lb_func_kind kind) {
    lb_node node = {.op = LB_OP_FUNC, .nsrc = 1, .src = {x}};
    node.u.func.kind = kind;
    node.u.func.alpha = 0.25f, node.u.func.beta = 0.5f;
    return lb_net_append(net, &node);
}
static inline int mixed_conv(lb_net *net, int x, int oc, int k) {
    return lb_net_batchnorm(net, lb_net_conv2d(net, x, NULL, oc, k, 1, k / 2, 1, false), NULL, 0, 0);
}

static inline lb_net *make_mixed(lb_ctx *ctx) {
    static const lb_part front[] = {{0, 0, 6}}, back[] = {{0, 6, 6}},
                         shuffle[] = {{0, 0, 1}, {1, 8, 1}, {2, 3, 2}, {4, 10, 3}, {7, 1, 2}, {9, 13, 1}};
    static const int rows[] = {1, 0, -1, 2, 3, 3, 4, 9, 12}, cols[] = {10, 8, 6, 4, 2, 0, -1, 3};
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "mixed", mixed.h, mixed.w, mixed.c, &net));
    int x = mixed_func(net, mixed_conv(net, lb_net_input(net), 12, 3), LB_FUNC_HARDSWISH);
    const int left = mixed_select(net, x, front, 1, 6), right = mixed_select(net, x, back, 1, 6);
    const int a = lb_net_relu(net, mixed_conv(net, right, 5, 3), NULL);
    const int b = mixed_func(net, mixed_conv(net, right, 3, 1), LB_FUNC_TANH);
    x = lb_net_append(net, &(lb_node){.op = LB_OP_CONCAT, .nsrc = 3, .src = {left, a, b}});
    x = mixed_conv(net, mixed_select(net, x, shuffle, 6, 10), 8, 1);
    x = mixed_func(net, x, LB_FUNC_LEAKY);
    int gate = lb_net_relu(net, lb_net_conv2d(net, lb_net_globalpool(net, x, NULL), NULL, 4, 1, 1, 0, 1, true), NULL);
    gate = mixed_func(net, lb_net_conv2d(net, gate, NULL, 8, 1, 1, 0, 1, true), LB_FUNC_HARDSIGMOID);
    x = lb_net_append(net, &(lb_node){.op = LB_OP_MUL, .nsrc = 2, .src = {x, gate}});
    lb_node dilated = {.op = LB_OP_CONV, .nsrc = 1, .src = {x}};
    dilated.u.conv = (lb_conv){.oc = 8, .kh = 3, .kw = 2, .pt = 2, .pb = 2, .pl = 1, .pr = 2, .gap_h = 1, .gap_w = 2, .groups = 2};
    x = lb_net_relu(net, lb_net_batchnorm(net, lb_net_append(net, &dilated), NULL, 0, 0), NULL);
    lb_node slopes = {.op = LB_OP_FUNC, .nsrc = 1, .src = {mixed_conv(net, x, 7, 1)}, .u.func.slopes = true};
    x = lb_net_append(net, &slopes);
    const int c = lb_net_relu(net, mixed_conv(net, x, 6, 1), NULL), d = lb_net_relu(net, mixed_conv(net, x, 5, 3), NULL);
    x = lb_net_append(net, &(lb_node){.op = LB_OP_CONCAT, .nsrc = 2, .src = {c, d}});
    lb_node move = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1, .src = {x}};
    move.u.shortcutpad.oc = 11;
    move.u.shortcutpad.oh = 9, move.u.shortcutpad.ow = 8, move.u.shortcutpad.rows = rows, move.u.shortcutpad.cols = cols;
    lb_node pool = {.op = LB_OP_AVGPOOL, .nsrc = 1, .src = {lb_net_append(net, &move)}};
    pool.u.pool = (lb_pooling){.kh = 3, .kw = 2, .sh = 1, .sw = 1, .pt = 1, .pl = 1, .pb = 1, .pr = 0, .inside = true};
    x = mixed_conv(net, lb_net_append(net, &pool), 6, 3);
    x = lb_net_append(net, &(lb_node){.op = LB_OP_MUL, .nsrc = 2, .src = {x, mixed_func(net, x, LB_FUNC_SIGMOID)}});
    lb_net_linear(net, lb_net_globalpool(net, lb_net_add(net, x, mixed_conv(net, x, 6, 1), NULL), NULL), NULL, CLASSES, true);
    assert_ok(ctx, lb_net_finish(net));
    return net;
}

/* Layers called like the graph's own tensors in ONNX, and like tensors of each other. */
static inline lb_net *make_named(lb_ctx *ctx) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "named", 9, 7, 3, &net));
    int x = lb_net_batchnorm(net, lb_net_conv2d(net, 0, "image", 6, 3, 1, 1, 1, true), "image/scale", 0, 0);
    const int left = lb_net_relu(net, x, "logits");
    x = lb_net_relu(net, lb_net_conv2d(net, left, "a", 6, 3, 1, 1, 1, true), "a/sums");
    x = lb_net_relu(net, lb_net_batchnorm(net, lb_net_conv2d(net, x, "a/weight", 6, 1, 1, 0, 1, false), "a_sums_2", 0, 0),
                    "a/sums/lo");
    x = lb_net_relu(net, lb_net_conv2d(net, x, "image_2/x", 6, 1, 1, 0, 1, true), "image_3/bias");
    x = lb_net_add(net, x, left, "a/bias");
    x = lb_net_relu(net, x, "fc/flat");
    lb_net_linear(net, lb_net_flatten(net, lb_net_globalpool(net, x, "fc/weight_codes"), "fc/scores"), "fc", CLASSES, true);
    assert_ok(ctx, lb_net_finish(net));
    return net;
}

static inline void family_name(const family *f, char name[64]) {
    snprintf(name, 64, "%s_%s%s_%dx%d", f->name, f->variant, f->shortcut == LB_SHORTCUT_PAD ? "_pad" : "", f->h, f->w);
}

static inline lb_config scheme_config(const char *model, const scheme *s, int edge) {
    lb_config config = test_config(model);
    config.quant.weights = test_tensor(s->weights, s->weight_bits > 8 ? 2 : s->weight_bits);
    config.quant.activations = test_tensor(s->activations, s->activation_bits > 8 ? 2 : s->activation_bits);
    config.quant.edge_first = config.quant.edge_last = config.quant.edge_shortcut = edge;
    return config;
}

static inline lb_net *make_net(lb_ctx *ctx, const family *f, const scheme *s, int edge) {
    lb_config config = scheme_config(f->name, s, edge);
    config.model.width = f->width;
    config.model.shortcut = f->shortcut;
    snprintf(config.model.variant, sizeof config.model.variant, "%s", f->variant);
    lb_net *net = f == &mixed ? make_mixed(ctx) : test_net(ctx, &config, f->h, f->w, f->c, CLASSES);
    assert_ok(ctx, lb_net_quantize(net, &config));
    return net;
}

/* Smooth enough to be images, with all values. */
static inline uint8_t *make_pixels(const lb_net *net, uint32_t *seed) {
    const size_t image = lb_shape_count(&net->nodes[0].dst);
    uint8_t *pixels = malloc(MB * image);
    for (size_t i = 0; i < MB * image; i++)
        pixels[i] =
            (uint8_t)(i % 7 == 0 ? netref_bits(seed) : (uint32_t)(128 + 90 * sin((double)i * 0.05 + (double)(*seed % 100))));
    return pixels;
}

#endif

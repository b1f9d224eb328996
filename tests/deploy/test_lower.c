/* Lowering: what is fused into which layer, thresholds against the arithmetic they replace, unusual graphs, refusals, lack of
 * memory. */
#include "net/numerics.h"
#include "netref.h"
#include "paths.h"

enum { MB = 4 };
static const float mean[4] = {0.5f, 0.45f, 0.41f, 0}, std[4] = {0.25f, 0.25f, 0.3f, 1}; /* no pixel is exactly 0 */

static void attach(lb_ctx *ctx, lb_net *net, int node, const char *method, int bits) {
    lb_quant *q = lb_pool_alloc(&net->pool, 1, sizeof *q);
    q->param = -1;
    q->spec = (lb_quant_spec){.quantizer = lb_quantizer_find(method),
                              .mixer = lb_mixer_find("constant"),
                              .bits = bits,
                              .target = net->nodes[node].op == LB_OP_ACT ? LB_ACTIVATIONS : LB_WEIGHTS,
                              .options.per = strcmp(method, "bwn") ? LB_PER_TENSOR : LB_PER_FILTER,
                              .options.threshold = 0.7f,
                              .options.mix = 1};
    assert_ok(ctx, lb_quant_resolve(ctx, net->nodes[node].name, &q->spec, &q->grid));
    net->nodes[node].quant = q;
}

static lb_lowered *lower(lb_ctx *ctx, const lb_net *net) {
    lb_lowered *lowered;
    assert_ok(ctx, lb_lower(ctx, net, mean, std, NULL, &lowered));
    return lowered;
}

/* Scores of evaluation and packed runtime are equal, and near real arithmetic's. */
static void check_equal(lb_ctx *ctx, lb_net *net, double tolerance) {
    const size_t image = lb_shape_count(&net->nodes[0].dst), count = MB * (size_t)net->classes;
    uint32_t seed = 99;
    uint8_t *pixels = malloc(MB * image);
    int32_t *want = calloc(count, sizeof *want), *got = calloc(count, sizeof *got);
    for (size_t i = 0; i < MB * image; i++)
        pixels[i] = (uint8_t)netref_bits(&seed);
    netref r;
    netref_calibrated(&r, net, mean, std, MB, 7, pixels);
    run_evaluator(ctx, net, mean, std, pixels, MB, true, want);
    run_packed(ctx, net, mean, std, pixels, MB, got);
    int flipped = 0;
    size_t last_far = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        if (want[i] != got[i])
            fail_msg("%s: score %zu is %d in evaluation, %d packed", net->name, i, want[i], got[i]);
        const double real = r.values[net->nnodes - 1][i];
        const bool far = fabs((double)got[i] / 65536 - real) > tolerance * (1 + fabs(real));
        flipped += far && last_far != i / (size_t)net->classes;
        if (far)
            last_far = i / (size_t)net->classes;
    }
    if (flipped > 1) /* a value at the edge of two codes may go either way, in one image of the few */
        fail_msg("%s: the scores of %d of %d images differ from real arithmetic", net->name, flipped, MB);
    free(want), free(got), free(pixels);
    netref_destroy(&r);
}

static const lbrt_layer *find(const lb_lowered *l, const char *name, int nth) {
    for (int i = 0; i < l->graph.nlayers; i++)
        if (!strcmp(l->graph.layers[i].name, name) && nth-- == 0)
            return &l->graph.layers[i];
    return NULL;
}

/* ---- Fusing ----------------------------------------------------------------------------------------------------------- */

/* A residual block between a quantized image and a linear layer. */
static lb_net *block_net(lb_ctx *ctx, int abits) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "block", 8, 6, 3, &net));
    const int a0 = lb_net_clip(net, lb_net_input(net), "a0", -1, 1);
    const int c0 = lb_net_conv2d(net, a0, "c0", 8, 3, 1, 1, 1, false);
    const int a1 = lb_net_relu(net, lb_net_batchnorm(net, c0, "b0", 0, 0), "a1");
    const int c1 = lb_net_conv2d(net, a1, "c1", 8, 3, 1, 1, 1, false);
    const int a2 = lb_net_relu(net, lb_net_batchnorm(net, c1, "b1", 0, 0), "a2");
    const int c2 = lb_net_conv2d(net, a2, "c2", 8, 3, 1, 1, 1, true);
    const int b2 = lb_net_batchnorm(net, c2, "b2", 0, 0);
    const int sc = lb_net_conv2d(net, a1, "sc", 8, 1, 1, 0, 1, false);
    const int bs = lb_net_batchnorm(net, sc, "bs", 0, 0);
    const int a3 = lb_net_relu(net, lb_net_add(net, b2, bs, "add"), "a3");
    const int fc = lb_net_linear(net, lb_net_flatten(net, lb_net_maxpool(net, a3, "max", 2, 2, 0), "flat"), "fc", 5, true);
    assert_ok(ctx, lb_net_finish(net));
    attach(ctx, net, a0, "dorefa", 8);
    for (int i = 1; i < 4; i++)
        attach(ctx, net, (int[]){a0, a1, a2, a3}[i], abits == 1 ? "sign" : "dorefa", abits);
    for (int i = 0; i < 5; i++)
        attach(ctx, net, (int[]){c0, c1, c2, sc, fc}[i], "dorefa", 2);
    netref_fill(net, 3);
    return net;
}

static void fuses(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int bits = 1; bits <= 5; bits++) {
        lb_net *net = block_net(ctx, bits);
        lb_lowered *l = lower(ctx, net);
        assert_int_equal(l->graph.nlayers, 7); /* a0, c0, c1, then c2 or sc with the addition, max, fc */
        assert_int_equal(l->graph.layers[0].op, LBRT_OP_INPUT);
        const uint32_t codes = bits == 1 ? LBRT_THRESHOLDS | LBRT_SIGN : bits <= 4 ? LBRT_THRESHOLDS : LBRT_AFFINE | LBRT_CODE;
        assert_int_equal(find(l, "c0", 0)->epilogue.flags, codes);
        assert_int_equal(find(l, "c1", 0)->epilogue.flags, codes);
        /* The later of the addition's sources takes it in; the other one is there by then. */
        assert_int_equal(find(l, "c2", 0)->epilogue.flags, LBRT_AFFINE);
        assert_int_equal(find(l, "sc", 0)->epilogue.flags, LBRT_AFFINE | LBRT_RESIDUAL | (bits == 1 ? LBRT_SIGN : LBRT_CODE));
        assert_int_equal(find(l, "sc", 0)->epilogue.residual, find(l, "c2", 0)->dst);
        assert_int_equal(find(l, "max", 0)->op, LBRT_OP_MAXPOOL);
        assert_true(find(l, "fc", 0)->flat);
        assert_int_equal(find(l, "fc", 0)->epilogue.flags, LBRT_AFFINE); /* the bias; scores are fixed point already */
        assert_int_equal(find(l, "c1", 0)->weights.bits, 2);
        for (int i = 0; i < l->graph.nlayers; i++) {
            assert_false(l->graph.layers[i].is_float);
            assert_string_equal(l->graph.layers[i].name, net->nodes[l->layer_node[i]].name);
        }
        lb_lowered_destroy(l);
        check_equal(ctx, net, 0.02);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* Thresholds give the code of the arithmetic at and around each one, whatever the slope. */
static void thresholds(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int bits = 1; bits <= 4; bits++) {
        lb_net *net = block_net(ctx, bits);
        const int b1 = lb_net_find(net, "b1"), a2 = lb_net_find(net, "a2");
        lb_param_values(net, net->nodes[b1].param[0])[0] = 0; /* flat: all codes equal */
        lb_param_values(net, net->nodes[b1].param[0])[1] = -1;
        lb_param_values(net, net->nodes[b1].param[0])[2] = 1e-4f;
        lb_param_values(net, net->nodes[b1].param[0])[3] = -300;
        lb_lowered *l = lower(ctx, net);
        lb_numerics *n;
        assert_ok(ctx, lb_numerics_create(ctx, net, mean, std, &n));
        const lbrt_epilogue *e = &find(l, "c1", 0)->epilogue;
        const lb_numeric *act = &n->nodes[a2];
        assert_int_equal(e->nthresholds, bits == 1 ? 1 : (1 << bits) - 1);
        for (int c = 0; c < 8; c++) {
            for (int k = -1; k < e->nthresholds; k++) {
                for (int64_t d = -3; d <= 3; d++) {
                    const int64_t at = (k < 0 ? 12345 * d : (int64_t)e->thresholds[c * e->nthresholds + k]) + d;
                    if (at < -LB_NUM_ACC_MAX || at > LB_NUM_ACC_MAX)
                        continue;
                    const int32_t v = lbrt_apply(&n->nodes[b1].requant[c], (int32_t)at);
                    const int32_t want = act->sign ? (v >= 0 ? 1 : -1) : lbrt_clamp(lbrt_apply(&act->q, v), act->qlo, act->qhi);
                    int32_t got = 0;
                    for (int t = 0; t < e->nthresholds; t++) {
                        const int32_t limit = e->thresholds[c * e->nthresholds + t];
                        got += e->flip[c] ? at <= limit : at >= limit;
                    }
                    assert_int_equal(act->sign ? 2 * got - 1 : act->qlo + got, want);
                }
            }
        }
        lb_numerics_destroy(n);
        lb_lowered_destroy(l);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* ---- Unusual graphs ------------------------------------------------------------------------------------------------------ */

typedef void (*build_fn)(lb_ctx *ctx, lb_net *net, int x);

/* Accumulators with a step per filter go everywhere: pool, addition with codes, with floats, a float layer, a flat batch norm. */
static int codes_conv(lb_ctx *ctx, lb_net *net, int x, const char *name, int oc) {
    (void)ctx;
    return lb_net_conv2d(net, x, name, oc, 3, 1, 1, 1, false);
}
static void accumulators_pooled(lb_ctx *ctx, lb_net *net, int x) {
    x = codes_conv(ctx, net, x, "bwn1", 6);
    x = lb_net_avgpool(net, x, "avg", 3, 2, 1);
    x = lb_net_relu(net, x, "float.relu");
    lb_net_linear(net, lb_net_flatten(net, x, "flat"), "fc", 4, true);
}
static void accumulators_added(lb_ctx *ctx, lb_net *net, int x) {
    const int a = codes_conv(ctx, net, x, "bwn1", 6), b = codes_conv(ctx, net, x, "bwn2", 6);
    x = lb_net_add(net, a, b, "add");
    x = lb_net_add(net, x, x, "twice");
    x = lb_net_relu6(net, x, "q.act");
    x = codes_conv(ctx, net, x, "bwn3", 4);
    lb_net_globalpool(net, x, "avg");
}
static void accumulators_and_floats(lb_ctx *ctx, lb_net *net, int x) {
    const int a = codes_conv(ctx, net, x, "bwn1", 3), b = codes_conv(ctx, net, a, "float1", 3);
    x = lb_net_add(net, a, b, "add"); /* float, with a step per channel on one side */
    const int y = lb_net_add(net, x, lb_net_input(net), "image");
    x = lb_net_batchnorm(net, lb_net_add(net, y, x, "again"), "bn", 0, 0);
    x = lb_net_clip(net, x, "float.clip", -2, 3);
    x = lb_net_add(net, x, a, "third");
    lb_net_linear(net, lb_net_globalpool(net, x, "avg"), "fc", 4, false);
}
static void batchnorm_of_flat(lb_ctx *ctx, lb_net *net, int x) {
    x = codes_conv(ctx, net, x, "bwn1", 5);
    x = lb_net_flatten(net, x, "flat");
    const int y = x = lb_net_batchnorm(net, x, "bn", 0, 0);
    x = lb_net_relu(net, x, "q.act");
    x = lb_net_dropout(net, x, "drop", 0.5f);
    x = lb_net_add(net, x, y, "add");
    x = lb_net_linear(net, lb_net_relu(net, x, "q.act2"), "bwn.fc", 4, true);
    x = lb_net_batchnorm(net, x, "bn2", 0, 0);
    lb_net_relu(net, x, "float.act");
}
static void batchnorm_of_flat_image(lb_ctx *ctx, lb_net *net, int x) {
    (void)ctx, (void)x;
    x = lb_net_flatten(net, lb_net_input(net), "flat");
    x = lb_net_batchnorm(net, x, "bn", 0, 0);
    lb_net_linear(net, lb_net_relu(net, x, "q.act"), "bwn.fc", 4, true);
}
static void flat_and_not(lb_ctx *ctx, lb_net *net, int x) {
    const int a = lb_net_flatten(net, codes_conv(ctx, net, x, "bwn1", 5), "flat");
    const int b = lb_net_linear(net, lb_net_flatten(net, x, "flat2"), "bwn.fc1", 8 * 7 * 5, true);
    x = lb_net_add(net, b, a, "add"); /* one stored as an image, one as a vector */
    lb_net_linear(net, x, "fc", 4, true);
}
static void codes_out(lb_ctx *ctx, lb_net *net, int x) {
    x = lb_net_globalpool(net, codes_conv(ctx, net, x, "bwn1", 4), "avg");
    lb_net_relu(net, x, "q.out"); /* scores are codes */
}
static void accumulators_out(lb_ctx *ctx, lb_net *net, int x) {
    (void)ctx;
    lb_net_linear(net, lb_net_flatten(net, x, "flat"), "bwn.fc", 4, false);
}
static void floats_out(lb_ctx *ctx, lb_net *net, int x) {
    x = lb_net_globalpool(net, codes_conv(ctx, net, x, "float1", 4), "avg");
    lb_net_hardtanh(net, x, "float.out");
}
static void pool_of_codes_out(lb_ctx *ctx, lb_net *net, int x) {
    (void)ctx;
    lb_net_globalpool(net, x, "avg"); /* three scores, straight from the codes */
}
static void acts_in_a_row(lb_ctx *ctx, lb_net *net, int x) {
    x = lb_net_batchnorm(net, codes_conv(ctx, net, x, "bwn1", 6), "bn1", 0, 0);
    x = lb_net_clip(net, x, "float.a", -3, 3);
    x = lb_net_batchnorm(net, x, "bn2", 0, 0);
    x = lb_net_relu(net, x, "float.b");
    x = lb_net_relu6(net, x, "q.c");
    x = lb_net_relu(net, x, "float.d");
    x = lb_net_relu(net, x, "q.e");
    lb_net_linear(net, lb_net_globalpool(net, x, "avg"), "bwn.fc", 4, true);
}
static void odd_geometry(lb_ctx *ctx, lb_net *net, int x) {
    (void)ctx;
    lb_node conv = {.op = LB_OP_CONV, .name = "bwn1", .nsrc = 1, .src = {x}};
    conv.u.conv =
        (lb_conv){.oc = 6, .kh = 4, .kw = 3, .sh = 2, .sw = 1, .pt = 2, .pl = 0, .pb = 1, .pr = 2, .groups = 3, .bias = true};
    x = lb_net_append(net, &conv);
    x = lb_net_relu(net, x, "q.act");
    lb_node pool = {.op = LB_OP_MAXPOOL, .name = "max", .nsrc = 1, .src = {x}};
    pool.u.pool = (lb_pooling){.kh = 2, .kw = 3, .sh = 1, .sw = 2, .pt = 1, .pl = 2, .pb = 0, .pr = 1};
    x = lb_net_append(net, &pool);
    pool.op = LB_OP_AVGPOOL, pool.name = "avg", pool.src[0] = x;
    x = lb_net_append(net, &pool);
    conv.name = "float1", conv.src[0] = x;
    x = lb_net_append(net, &conv);
    lb_net_linear(net, lb_net_flatten(net, x, "flat"), "fc", 4, true);
}
static void padded_shortcuts(lb_ctx *ctx, lb_net *net, int x) {
    lb_node pad = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1};
    pad.u.shortcutpad.stride = 2;
    pad.u.shortcutpad.oc = 10;
    pad.name = "pad.codes", pad.src[0] = x;
    const int a = lb_net_append(net, &pad);
    const int acc = codes_conv(ctx, net, x, "bwn1", 6);
    pad.name = "pad.acc", pad.src[0] = acc;
    const int b = lb_net_append(net, &pad);
    pad.name = "pad.fixed", pad.src[0] = lb_net_batchnorm(net, acc, "bn", 0, 0);
    const int c = lb_net_append(net, &pad);
    pad.name = "pad.float", pad.src[0] = lb_net_input(net);
    const int d = lb_net_append(net, &pad);
    x = lb_net_add(net, lb_net_add(net, a, b, "add1"), lb_net_add(net, c, d, "add2"), "add3");
    lb_net_linear(net, lb_net_globalpool(net, x, "avg"), "fc", 4, true);
}

/* Averages of what lies inside, and pixels moved, repeated and padded: of codes, of accumulators, of fixed point, of floats. */
static void moved_pixels(lb_ctx *ctx, lb_net *net, int x) {
    static const int rows[] = {2, -1, 0, 0, 5}, cols[] = {-1, 3, 1, 3};
    lb_node pool = {.op = LB_OP_AVGPOOL, .nsrc = 1}, move = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1};
    pool.u.pool = (lb_pooling){.kh = 3, .kw = 2, .sh = 1, .sw = 2, .pt = 2, .pl = 1, .pb = 0, .pr = 1, .inside = true};
    move.u.shortcutpad.oh = 5, move.u.shortcutpad.ow = 4;
    move.u.shortcutpad.rows = rows, move.u.shortcutpad.cols = cols;
    const int acc = codes_conv(ctx, net, x, "bwn1", 6), fixed = lb_net_batchnorm(net, acc, "bn1", 0, 0);
    const int of[] = {x, acc, fixed, lb_net_input(net)};
    static const char *const names[][2] = {
        {"codes", "avg codes"}, {"acc", "avg acc"}, {"fixed", "avg fixed"}, {"float", "avg float"}};
    int all = -1;
    for (int k = 0; k < 4; k++) {
        move.name = names[k][0], move.src[0] = of[k];
        move.u.shortcutpad.oc = net->nodes[of[k]].dst.c;
        pool.name = names[k][1], pool.src[0] = lb_net_append(net, &move);
        const int y = lb_net_append(net, &pool);
        all = all < 0 ? y : lb_net_append(net, &(lb_node){.op = LB_OP_CONCAT, .nsrc = 2, .src = {all, y}});
    }
    lb_net_linear(net, lb_net_flatten(net, all, "flat"), "fc", 4, true);
}

/* Channels taken apart, shuffled and put side by side. */
static void selected_channels(lb_ctx *ctx, lb_net *net, int x) {
    static const lb_part odd[] = {{0, 1, 1}, {1, 3, 1}, {2, 5, 1}}, front[] = {{0, 0, 3}}, back[] = {{3, 0, 6}};
    lb_node select = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1};
    const int acc = codes_conv(ctx, net, x, "bwn1", 6);
    select.u.shortcutpad.oc = 3, select.u.shortcutpad.nparts = 3, select.u.shortcutpad.parts = odd;
    select.name = "odd", select.src[0] = acc;
    const int few = lb_net_append(net, &select);
    select.u.shortcutpad.oc = 9, select.u.shortcutpad.nparts = 1, select.u.shortcutpad.parts = front;
    select.name = "front", select.src[0] = lb_net_relu(net, lb_net_batchnorm(net, few, "bn1", 0, 0), "relu1");
    const int a = lb_net_append(net, &select);
    select.u.shortcutpad.parts = back;
    select.name = "back", select.src[0] = lb_net_relu(net, lb_net_batchnorm(net, acc, "bn2", 0, 0), "relu2");
    const int b = lb_net_append(net, &select);
    x = codes_conv(ctx, net, lb_net_add(net, a, b, "side by side"), "bwn2", 5);
    lb_net_linear(net, lb_net_globalpool(net, x, "avg"), "fc", 4, true);
}

static int concat(lb_net *net, const char *name, int a, int b, int c) {
    return lb_net_append(net, &(lb_node){.op = LB_OP_CONCAT, .name = name, .nsrc = c < 0 ? 2 : 3, .src = {a, b, c}});
}
static int func(lb_net *net, const char *name, int x, lb_func_kind kind) {
    lb_node node = {.op = LB_OP_FUNC, .name = name, .nsrc = 1, .src = {x}};
    node.u.func.kind = kind;
    node.u.func.alpha = 0.3f, node.u.func.beta = 0.4f;
    return lb_net_append(net, &node);
}
static int mul(lb_net *net, const char *name, int a, int b) {
    return lb_net_append(net, &(lb_node){.op = LB_OP_MUL, .name = name, .nsrc = 2, .src = {a, b}});
}

/* Side by side: accumulators, activations and codes that become codes together; with floats; one that has other readers; nothing
 * behind; the scores. */
static void concatenated(lb_ctx *ctx, lb_net *net, int x) {
    const int acc = codes_conv(ctx, net, x, "bwn1", 6), same = codes_conv(ctx, net, x, "bwn2", 3);
    const int relu = lb_net_relu(net, lb_net_batchnorm(net, codes_conv(ctx, net, x, "bwn3", 4), "bn1", 0, 0), "relu1");
    const int inner = concat(net, "inner", relu, codes_conv(ctx, net, x, "bwn7", 2), -1);
    int y = lb_net_relu(net, concat(net, "c1", acc, inner, x), "q.c1");
    y = codes_conv(ctx, net, y, "bwn4", 5);
    const int z = lb_net_clip(net, concat(net, "c2", y, same, lb_net_input(net)), "q.c2", -1, 1);
    y = concat(net, "c3", lb_net_batchnorm(net, codes_conv(ctx, net, z, "bwn5", 4), "bn2", 0, 0), same, z);
    const int a = lb_net_batchnorm(net, y, "bn3", 0, 0), b = codes_conv(ctx, net, lb_net_relu(net, y, "q.c3"), "bwn6", 13);
    y = lb_net_globalpool(net, concat(net, "c4", a, b, -1), "avg");
    concat(net, "scores", lb_net_linear(net, y, "fc", 2, true), lb_net_linear(net, y, "fc2", 2, false), -1);
}

/* Every function, of accumulators, fixed point, codes and floats; with an activation behind, a quantized one, a sum, nothing. */
static void functions(lb_ctx *ctx, lb_net *net, int x) {
    static const char *const names[] = {"leaky", "sigmoid", "tanh", "hard sigmoid", "hard swish"};
    char name[5][5][32];
    int image = lb_net_input(net), all = -1;
    for (int k = LB_FUNC_LEAKY; k <= LB_FUNC_HARDSWISH; k++) {
        static const char *const of[] = {"%s", "%s of acc", "%s of codes", "q.%s", "%s of float"};
        for (size_t i = 0; i < LB_COUNT(of); i++)
            snprintf(name[k][i], sizeof name[k][i], of[i], names[k]);
        char layer[] = "bwn1a", bn[] = "bn1";
        layer[3] = bn[2] = (char)('1' + k);
        int y = func(net, name[k][1], codes_conv(ctx, net, x, layer, 6), (lb_func_kind)k);
        y = func(net, name[k][0], lb_net_batchnorm(net, y, bn, 0, 0), (lb_func_kind)k);
        y = lb_net_clip(net, y, name[k][3], -1, 1);
        y = func(net, name[k][2], y, (lb_func_kind)k);
        layer[4] = 'b';
        y = lb_net_add(net, codes_conv(ctx, net, lb_net_clip(net, y, NULL, -0.5f, 1), layer, 3),
                       func(net, name[k][4], image, (lb_func_kind)k), NULL);
        all = all < 0 ? y : lb_net_add(net, all, y, NULL);
    }
    lb_net_linear(net, lb_net_globalpool(net, all, "avg"), "fc", 4, true);
}

/* Squeeze-and-excitation, codes and accumulators times each other, floats times fixed point; a product as scores. */
static void products(lb_ctx *ctx, lb_net *net, int x) {
    int y = lb_net_relu(net, lb_net_batchnorm(net, codes_conv(ctx, net, x, "bwn1", 6), "bn1", 0, 0), "q.y");
    int gate = lb_net_conv2d(net, lb_net_globalpool(net, y, "squeeze"), "bwn2", 6, 1, 1, 0, 1, true);
    y = lb_net_relu(net, mul(net, "gated", y, func(net, "gate", gate, LB_FUNC_HARDSIGMOID)), "q.gated");
    y = mul(net, "codes", codes_conv(ctx, net, y, "bwn3", 6), y);
    y = codes_conv(ctx, net, lb_net_clip(net, y, "q.codes", -1, 1), "bwn4", 3);
    y = mul(net, "floats", y, mul(net, "image", lb_net_input(net), lb_net_input(net)));
    y = lb_net_globalpool(net, y, "avg");
    mul(net, "scores", lb_net_linear(net, y, "fc1", 4, true),
        func(net, "tanh", lb_net_linear(net, y, "fc2", 4, true), LB_FUNC_TANH));
}

static const struct unusual {
    const char *name;
    build_fn build;
    bool sign; /* the first activation is a sign */
} unusual[] = {
    {"accumulators pooled", accumulators_pooled, false},
    {"selected channels", selected_channels, false},
    {"accumulators added", accumulators_added, false},
    {"accumulators and floats", accumulators_and_floats, false},
    {"batch norm of flat", batchnorm_of_flat, false},
    {"batch norm of flat image", batchnorm_of_flat_image, false},
    {"flat and not", flat_and_not, false},
    {"codes out", codes_out, true},
    {"accumulators out", accumulators_out, false},
    {"floats out", floats_out, false},
    {"pool of codes out", pool_of_codes_out, true},
    {"acts in a row", acts_in_a_row, false},
    {"moved pixels", moved_pixels, false},
    {"moved pixels, signs", moved_pixels, true},
    {"odd geometry", odd_geometry, false},
    {"odd geometry, signs", odd_geometry, true},
    {"padded shortcuts", padded_shortcuts, false},
    {"concatenated", concatenated, false},
    {"concatenated, signs", concatenated, true},
    {"functions", functions, false},
    {"products", products, false},
    {"accumulators added, signs", accumulators_added, true},
};

/* Names say what is quantized: q.* activations, bwn* weights. */
static lb_net *unusual_net(lb_ctx *ctx, const struct unusual *u) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, u->name, 8, 7, 3, &net));
    u->build(ctx, net, u->build == batchnorm_of_flat_image ? -1 : lb_net_clip(net, lb_net_input(net), "q.image", -1, 1));
    assert_ok(ctx, lb_net_finish(net));
    for (int i = 0; i < net->nnodes; i++) {
        if (!strncmp(net->nodes[i].name, "bwn", 3))
            attach(ctx, net, i, "bwn", 1);
        else if (!strcmp(net->nodes[i].name, "q.image") && u->sign)
            attach(ctx, net, i, "sign", 1);
        else if (!strncmp(net->nodes[i].name, "q.", 2))
            attach(ctx, net, i, "dorefa", 5);
    }
    netref_fill(net, 17);
    return net;
}

static void unusual_graphs(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(unusual); i++) {
        lb_net *net = unusual_net(ctx, &unusual[i]);
        check_equal(ctx, net, 0.02);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* ---- Names and refusals -------------------------------------------------------------------------------------------------- */

static void class_names(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = block_net(ctx, 2);
    char text[] = "shirt";
    const char *names[] = {"coat", text, "bag", "", "shoe"};
    lb_lowered *l;
    assert_ok(ctx, lb_lower(ctx, net, mean, std, names, &l));
    text[0] = 'X'; /* copied */
    lb_net_destroy(net);
    assert_string_equal(l->graph.class_names[1], "shirt");
    assert_string_equal(l->graph.name, "block");
    assert_string_equal(l->graph.layers[1].name, "c0");
    lb_lowered_destroy(l);
    lb_lowered_destroy(NULL);
    lb_ctx_destroy(ctx);
}

static void refusals(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_lowered *l;
    /* A learned step that training has not started. */
    lb_net *net = block_net(ctx, 2);
    const int a1 = lb_net_find(net, "a1");
    attach(ctx, net, a1, "lsq", 2);
    net->nodes[a1].quant->param = net->nodes[lb_net_find(net, "b0")].param[0]; /* any parameter */
    net->nodes[a1].quant->initialised = false;
    assert_int_equal(lb_lower(ctx, net, mean, std, NULL, &l), LB_ERR_UNSUPPORTED);
    assert_null(l);
    assert_non_null(strstr(lb_error(ctx), "a1"));
    lb_net_destroy(net);
    /* NaN among the weights. */
    net = block_net(ctx, 2);
    lb_param_values(net, net->nodes[lb_net_find(net, "b1")].param[1])[2] = INFINITY;
    assert_int_equal(lb_lower(ctx, net, mean, std, NULL, &l), LB_ERR_UNSUPPORTED);
    assert_non_null(strstr(lb_error(ctx), "b1"));
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static lb_status lower_with(lb_ctx *ctx, test_allocator *a, long left) {
    lb_net *net = block_net(ctx, 2);
    a->left = left;
    lb_lowered *l;
    const lb_status status = lb_lower(ctx, net, mean, std, NULL, &l);
    lb_lowered_destroy(l);
    lb_net_destroy(net);
    return status;
}

static void out_of_memory(void **state) {
    (void)state;
    assert_true(test_memory_runs_out(lower_with) > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fuses),       cmocka_unit_test(thresholds), cmocka_unit_test(unusual_graphs),
        cmocka_unit_test(class_names), cmocka_unit_test(refusals),   cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

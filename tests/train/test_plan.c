/* A whole compiled network: gradients against finite differences, f32; bf16 against f32; inference against the evaluator. */
#include "support.h"

#include <math.h>

#include "net/net.h"
#include "recipe/config.h"
#include "train/evaluate.h"
#include "train/plan.h"

enum { MB = 6, SIZE = 8, CLASSES = 5 };

static uint8_t pixels[MB * SIZE * SIZE * 3];
static float weight_of_logit[MB * CLASSES];

static void fill_inputs(void) {
    test_bytes(7, pixels, sizeof pixels);
    lb_rng_normal(7, LB_RNG_TEST, 2, 1, weight_of_logit, LB_COUNT(weight_of_logit));
}

/* Every operator, two residual additions, a tensor with three consumers. */
static lb_net *make_net(lb_ctx *ctx, bool smooth, bool pad) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "every-op", SIZE, SIZE, 3, &net));
    int x = lb_net_conv2d(net, lb_net_input(net), "conv1", 8, 3, 1, 1, 1, true);
    x = lb_net_batchnorm(net, x, "bn1", 0, 0);
    x = smooth ? lb_net_clip(net, x, "act1", -100, 100) : lb_net_relu(net, x, "act1");
    int y = lb_net_conv2d(net, x, "conv2", 8, 3, 1, 1, 8, false);
    y = lb_net_batchnorm(net, y, "bn2", 0, 0);
    x = lb_net_add(net, y, x, "add1");
    x = smooth ? lb_net_clip(net, x, "act2", -100, 100) : lb_net_hardtanh(net, x, "act2"); /* kinks spoil finite differences */
    int s = lb_net_conv2d(net, x, "short", 20, 1, 2, 0, 1, false);
    s = lb_net_batchnorm(net, s, "short_bn", 0, 0);
    y = lb_net_conv2d(net, x, "conv3", 20, 3, 2, 1, 4, true);
    y = lb_net_batchnorm(net, y, "bn3", 0, 0);
    y = smooth ? lb_net_clip(net, y, "act3", -100, 100) : lb_net_relu6(net, y, "act3");
    y = lb_net_conv2d(net, y, "conv4", 20, 3, 1, 1, 1, true);
    x = lb_net_add(net, y, s, "add2");
    x = lb_net_batchnorm(net, x, "bn4", 0, 0);
    x = lb_net_avgpool(net, x, "avg", 3, 1, 1);
    if (!smooth)
        x = lb_net_maxpool(net, x, "max", 2, 2, 0);
    if (pad) {
        lb_node node = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1, .src = {x}, .name = "pad"};
        node.u.shortcutpad.stride = 1;
        node.u.shortcutpad.oc = 24;
        x = lb_net_append(net, &node);
        const lb_part parts[] = {{20, 0, 3}, {2, 7, 10}, {0, 5, 1}}; /* moved, and with zeros between */
        node.name = "select", node.src[0] = x;
        node.u.shortcutpad.oc = 23;
        node.u.shortcutpad.nparts = 3;
        node.u.shortcutpad.parts = parts;
        x = lb_net_append(net, &node);
    }
    static const lb_func_kind kinds[] = {LB_FUNC_SIGMOID, LB_FUNC_TANH, LB_FUNC_LEAKY, LB_FUNC_HARDSWISH};
    for (size_t k = 0; pad && k < (smooth ? 2 : LB_COUNT(kinds)); k++) {
        lb_node func = {.op = LB_OP_FUNC, .nsrc = 1, .src = {x}};
        func.u.func.kind = kinds[k];
        func.u.func.alpha = 0.1f;
        const int f = lb_net_append(net, &func);
        const int gate = k % 2 ? f : lb_net_globalpool(net, f, NULL);
        x = lb_net_append(net, &(lb_node){.op = LB_OP_MUL, .nsrc = 2, .src = {x, gate}});
        x = lb_net_add(net, x, f, NULL);
    }
    if (pad) {
        lb_node dilated = {.op = LB_OP_CONV, .nsrc = 1, .src = {x}, .name = "dilated"};
        dilated.u.conv = (lb_conv){.oc = 6, .kh = 3, .kw = 2, .pt = 2, .pb = 2, .pl = 2, .pr = 1, .gap_h = 1, .gap_w = 2};
        x = lb_net_append(net, &dilated);
    }
    if (pad) {
        lb_node slopes = {.op = LB_OP_FUNC, .nsrc = 1, .src = {x}, .name = "slopes", .u.func.slopes = true};
        x = lb_net_append(net, &slopes);
    }
    if (pad) {
        static const int rows[] = {-1, 1, 0, 1, 0, 0, 1, -1}, cols[] = {0, 1, 1, 0, -1}; /* again, and zeros */
        lb_node move = {.op = LB_OP_SHORTCUTPAD, .nsrc = 1, .src = {x}, .name = "move"};
        move.u.shortcutpad.oc = 6;
        move.u.shortcutpad.oh = 8, move.u.shortcutpad.ow = 5;
        move.u.shortcutpad.rows = rows, move.u.shortcutpad.cols = cols;
        lb_node inside = {.op = LB_OP_AVGPOOL, .nsrc = 1, .src = {lb_net_append(net, &move)}, .name = "inside"};
        inside.u.pool = (lb_pooling){.kh = 3, .kw = 2, .sh = 2, .sw = 1, .pt = 1, .pb = 2, .pl = 1, .pr = 0, .inside = true};
        x = lb_net_append(net, &inside);
    }
    if (pad) { /* side by side, one of them twice */
        const int half = lb_net_avgpool(net, x, "same", 1, 1, 0);
        x = lb_net_append(net, &(lb_node){.op = LB_OP_CONCAT, .name = "concat", .nsrc = 3, .src = {half, x, half}});
        x = lb_net_batchnorm(net, lb_net_conv2d(net, x, "conv5", 6, 1, 1, 0, 1, false), "bn6", 0, 0);
    }
    x = lb_net_dropout(net, x, "drop", 0.25f);
    x = lb_net_flatten(net, x, "flat");
    x = lb_net_linear(net, x, "fc1", 12, false);
    x = lb_net_batchnorm(net, x, "bn5", 0, 0);
    x = lb_net_linear(net, x, "fc2", CLASSES, true);
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 3, 0);
    /* biases and batch norm away from their first values */
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        float noise[256];
        lb_rng_normal(5, LB_RNG_TEST, (uint64_t)i, 0.3f, noise, LB_COUNT(noise));
        for (size_t k = 0; p->kind != LB_PARAM_WEIGHT && p->kind != LB_PARAM_BN_VAR && k < p->count; k++)
            net->values[p->offset + k] += noise[k % 256];
    }
    return net;
}

/* Layers whose outputs the loss looks at too. */
static const char *const tapped[] = {"conv1", "conv2", "conv4", "fc1"};
static bool with_taps;

static lb_plan *make_plan(lb_ctx *ctx, lb_net *net, bool bf16) {
    static const float mean[4] = {.5f, .4f, .45f}, std[4] = {.25f, .3f, .2f};
    lb_plan_options options = {.mb = MB, .bf16 = bf16, .seed = 11, .mean = mean, .std = std};
    for (size_t k = 0; with_taps && k < LB_COUNT(tapped); k++)
        options.tap[options.ntaps++] = lb_net_find(net, tapped[k]);
    lb_plan *plan;
    assert_ok(ctx, lb_plan_create(ctx, net, &options, &plan));
    return plan;
}

static void weight_of_tap(int k, size_t count, float *weight) { lb_rng_normal(8, LB_RNG_TEST, (uint64_t)k, 0.1f, weight, count); }

static double loss_of(lb_ctx *ctx, lb_plan *plan) {
    assert_ok(ctx, lb_plan_forward(plan, pixels, &(lb_quant_when){.step = 4}));
    double loss = 0;
    for (int i = 0; i < MB * CLASSES; i++)
        loss += (double)plan->logits[i] * (double)weight_of_logit[i];
    for (int k = 0; k < plan->ntaps; k++) {
        size_t count = lb_plan_tap_count(plan, k);
        float *values = malloc(count * sizeof *values), *weight = malloc(count * sizeof *weight);
        weight_of_tap(k, count, weight);
        lb_plan_tap_read(plan, k, 0, count / 3, values); /* in two pieces */
        lb_plan_tap_read(plan, k, count / 3, count - count / 3, values + count / 3);
        for (size_t i = 0; i < count; i++)
            loss += (double)values[i] * (double)weight[i];
        free(values);
        free(weight);
    }
    return loss;
}

static void backward(lb_ctx *ctx, lb_plan *plan, float *diff) {
    loss_of(ctx, plan);
    memcpy(plan->diff_logits, weight_of_logit, sizeof weight_of_logit);
    for (int k = 0; k < plan->ntaps; k++) {
        size_t count = lb_plan_tap_count(plan, k);
        float *weight = malloc(count * sizeof *weight);
        weight_of_tap(k, count, weight);
        lb_plan_tap_write(plan, k, 0, count / 3, weight);
        lb_plan_tap_write(plan, k, count / 3, count - count / 3, weight + count / 3);
        free(weight);
    }
    assert_ok(ctx, lb_plan_backward(plan, diff));
}

/* Along a random direction per parameter tensor: (L(p + h d) - L(p - h d)) / 2h = diff . d. */
static void check_gradients(lb_ctx *ctx, lb_net *net, double tolerance) {
    lb_plan *plan = make_plan(ctx, net, false);
    float *diff = calloc(net->nvalues, sizeof *diff), *direction = malloc(net->nvalues * sizeof *direction);
    backward(ctx, plan, diff);
    int checked = 0;
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        if (p->kind == LB_PARAM_BN_MEAN || p->kind == LB_PARAM_BN_VAR || p->kind == LB_PARAM_QUANT)
            continue;
        float *values = net->values + p->offset;
        lb_rng_normal(21, LB_RNG_TEST, (uint64_t)i, 1, direction, p->count);
        double expected = 0, norm = 0, h = 4e-3, length = 0;
        for (size_t k = 0; k < p->count; k++)
            length += (double)direction[k] * (double)direction[k];
        for (size_t k = 0; k < p->count; k++) {
            direction[k] /= (float)sqrt(length);
            expected += (double)diff[p->offset + k] * (double)direction[k];
            norm += (double)diff[p->offset + k] * (double)diff[p->offset + k];
        }
        float *saved = malloc(p->count * sizeof *saved);
        memcpy(saved, values, p->count * sizeof *saved);
        double loss[2];
        for (int side = 0; side < 2; side++) {
            for (size_t k = 0; k < p->count; k++)
                values[k] = saved[k] + (float)(side ? h : -h) * direction[k];
            loss[side] = loss_of(ctx, plan);
        }
        memcpy(values, saved, p->count * sizeof *saved);
        free(saved);
        double numeric = (loss[1] - loss[0]) / (2 * h);
        if (fabs(numeric - expected) > tolerance * (sqrt(norm / (double)p->count) + fabs(expected)) + 2e-3)
            fail_msg("%s: gradient %g, finite difference %g (norm %g)", p->name, expected, numeric, sqrt(norm));
        checked++;
    }
    assert_true(checked >= 15);
    free(diff);
    free(direction);
    lb_plan_destroy(plan);
}

static void test_gradients(void **state) {
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        lb_ctx *ctx = test_ctx();
        lb_net *net = make_net(ctx, true, variant & 1);
        with_taps = variant & 2;
        check_gradients(ctx, net, 0.02);
        with_taps = false;
        lb_net_destroy(net);
        lb_ctx_destroy(ctx);
    }
}

/* With the mixer at 0 a quantized tensor is its surrogate, but every step factor is in play. */
static void test_gradients_with_steps(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx, true, false);
    lb_recipe *recipe;
    assert_ok(ctx, lb_recipe_create(ctx, &recipe));
    static const char *const keys[][2] = {{"quant.weights.method", "uniform"}, {"quant.weights.bits", "3"},
                                          {"quant.weights.mix", "0"},          {"quant.weights.surrogate", "identity"},
                                          {"quant.activations.method", "lsq"}, {"quant.activations.bits", "4"},
                                          {"quant.activations.mix", "0"},      {"quant.activations.surrogate", "identity"},
                                          {"quant.edges.first", "same"},       {"quant.edges.last", "same"}};
    for (size_t i = 0; i < LB_COUNT(keys); i++)
        assert_ok(ctx, lb_recipe_set(recipe, keys[i][0], keys[i][1]));
    assert_ok(ctx, lb_net_quantize(net, &recipe->stages[0]));
    lb_plan_init_weights(net);
    int quantized = 0;
    for (int i = 0; i < net->nnodes; i++)
        quantized += net->nodes[i].quant != NULL;
    assert_true(quantized >= 10);
    check_gradients(ctx, net, 0.02);
    with_taps = true;
    check_gradients(ctx, net, 0.02);
    with_taps = false;
    lb_recipe_destroy(recipe);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static double cosine(const float *a, const float *b, size_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb + 1e-30);
}

static void test_bf16_near_f32(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx, false, false);
    float *diff[2];
    for (int bf16 = 0; bf16 < 2; bf16++) {
        diff[bf16] = calloc(net->nvalues, sizeof(float));
        lb_plan *plan = make_plan(ctx, net, bf16);
        backward(ctx, plan, diff[bf16]);
        lb_plan_destroy(plan);
    }
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        /* bn5 follows a linear layer whose gradient it makes orthogonal: small and noisy; the whole must agree */
        if (p->kind == LB_PARAM_WEIGHT && cosine(diff[0] + p->offset, diff[1] + p->offset, p->count) < 0.95)
            fail_msg("%s: cosine of bf16 and f32 gradient %g", p->name, cosine(diff[0] + p->offset, diff[1] + p->offset, p->count));
    }
    assert_true(cosine(diff[0], diff[1], net->nvalues) > 0.99);
    free(diff[0]);
    free(diff[1]);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static void test_same_bits_twice(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx, false, true);
    float *diff[2];
    for (int i = 0; i < 2; i++) {
        diff[i] = calloc(net->nvalues, sizeof(float));
        lb_plan *plan = make_plan(ctx, net, true);
        backward(ctx, plan, diff[i]);
        lb_plan_destroy(plan);
    }
    assert_memory_equal(diff[0], diff[1], net->nvalues * sizeof(float));
    free(diff[0]);
    free(diff[1]);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Two layers whose outputs are one tensor cannot both be tapped. */
static void test_taps_refused(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx, false, false);
    float mean[4] = {0}, std[4] = {1, 1, 1, 1};
    lb_plan_options options = {.mb = MB, .mean = mean, .std = std, .ntaps = 2};
    options.tap[0] = lb_net_find(net, "conv1");
    options.tap[1] = lb_net_find(net, "act1");
    lb_plan *plan;
    assert_int_equal(lb_plan_create(ctx, net, &options, &plan), LB_ERR_UNSUPPORTED);
    assert_non_null(strstr(lb_error(ctx), "conv1 and act1"));
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static lb_net *make_quantized(lb_ctx *ctx, const char *weights, const char *acts) {
    lb_net *net = make_net(ctx, false, true);
    lb_recipe *recipe;
    assert_ok(ctx, lb_recipe_create(ctx, &recipe));
    assert_ok(ctx, lb_recipe_set(recipe, "quant.weights.method", weights));
    assert_ok(ctx, lb_recipe_set(recipe, "quant.activations.method", acts));
    assert_ok(ctx, lb_recipe_set(recipe, "quant.weights.mixer", "alpha")); /* of which evaluation must not see anything */
    assert_ok(ctx, lb_net_quantize(net, &recipe->stages[0]));
    lb_plan_init_weights(net);
    lb_recipe_destroy(recipe);
    return net;
}

/* Inference is what the evaluator computes, but for the rounding of its fixed point, and changes nothing. */
static void test_inference(void **state) {
    (void)state;
    static const char *const methods[][2] = {{"none", "none"}, {"dorefa", "dorefa"}, {"lsq", "lsq"}, {"twn", "pact"}};
    static const float mean[4] = {.5f, .4f, .45f}, std[4] = {.25f, .3f, .2f};
    for (size_t m = 0; m < LB_COUNT(methods); m++) {
        lb_ctx *ctx = test_ctx();
        lb_net *net = m ? make_quantized(ctx, methods[m][0], methods[m][1]) : make_net(ctx, false, true);
        lb_plan *train = make_plan(ctx, net, false), *plan;
        for (int i = 0; i < 30; i++) /* statistics near those of the batch */
            assert_ok(ctx,
                      lb_plan_forward(train, pixels, &(lb_quant_when){.step = (uint64_t)i, .stage_step = i, .stage_steps = 30}));
        float *before = malloc(net->nvalues * sizeof *before);
        memcpy(before, net->values, net->nvalues * sizeof *before);
        lb_plan_options options = {.mb = MB, .seed = 11, .mean = mean, .std = std, .inference = true};
        assert_ok(ctx, lb_plan_create(ctx, net, &options, &plan));
        assert_true(plan->arena_size < train->arena_size);
        assert_ok(ctx, lb_plan_infer(plan, pixels));
        assert_ok(ctx, lb_plan_infer(train, pixels)); /* a training plan can do it too */
        assert_memory_equal(plan->logits, train->logits, MB * CLASSES * sizeof(float));
        assert_memory_equal(before, net->values, net->nvalues * sizeof *before);
        lb_evaluator *evaluator;
        int32_t scores[MB * CLASSES];
        assert_ok(ctx, lb_evaluator_create(ctx, net, mean, std, MB, &evaluator));
        assert_ok(ctx, lb_evaluator_update(evaluator));
        assert_ok(ctx, lb_evaluator_run(evaluator, pixels, MB, scores));
        double difference = 0, size = 0;
        for (int i = 0; i < MB * CLASSES; i++) {
            difference += fabs((double)plan->logits[i] - scores[i] / 65536.0);
            size += fabs((double)plan->logits[i]);
        }
        if (difference > (m ? 0.05 : 1e-3) * size) /* a value near the middle of two codes may fall to the other one */
            fail_msg("%s / %s: inference and evaluation differ by %g of %g", methods[m][0], methods[m][1], difference, size);
        lb_evaluator_destroy(evaluator);
        free(before);
        lb_plan_destroy(train);
        lb_plan_destroy(plan);
        lb_net_destroy(net);
        lb_ctx_destroy(ctx);
    }
}

/* Not even a convolution that multiplies codes as bytes hides a number that is none. */
static void test_not_a_number(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net;
    lb_recipe *recipe;
    assert_ok(ctx, lb_net_create(ctx, "plain", SIZE, SIZE, 3, &net));
    int x = lb_net_input(net);
    static const char *const names[][3] = {{"conv1", "bn1", "act1"}, {"conv2", "bn2", "act2"}, {"conv3", "bn3", "act3"}};
    for (size_t i = 0; i < LB_COUNT(names); i++) {
        x = lb_net_conv2d(net, x, names[i][0], 16, 3, 1, 1, 1, false);
        x = lb_net_relu(net, lb_net_batchnorm(net, x, names[i][1], 0, 0), names[i][2]);
    }
    lb_net_linear(net, lb_net_flatten(net, x, "flat"), "fc", CLASSES, true);
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 3, 0);
    assert_ok(ctx, lb_recipe_create(ctx, &recipe));
    assert_ok(ctx, lb_recipe_set(recipe, "quant.weights.method", "dorefa"));
    assert_ok(ctx, lb_recipe_set(recipe, "quant.activations.method", "dorefa"));
    assert_ok(ctx, lb_net_quantize(net, &recipe->stages[0]));
    lb_plan_init_weights(net);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        lb_plan *plan = make_plan(ctx, net, bf16);
        float *gamma = NULL;
        for (int i = 0; i < net->nnodes; i++)
            if (!strcmp(net->nodes[i].name, "bn1"))
                gamma = lb_param_values(net, net->nodes[i].param[0]);
        assert_non_null(gamma);
        assert_ok(ctx, lb_plan_forward(plan, pixels, &(lb_quant_when){.stage_steps = 1}));
        assert_true(isfinite(plan->logits[0]));
        const float was = gamma[3];
        gamma[3] = NAN;
        assert_ok(ctx, lb_plan_forward(plan, pixels, &(lb_quant_when){.stage_steps = 1}));
        assert_true(isnan(plan->logits[0]));
        gamma[3] = was;
        for (int i = 0; i < net->nparams; i++) /* running statistics have met it */
            for (size_t k = 0; k < net->params[i].count; k++)
                if (!isfinite(lb_param_values(net, i)[k]))
                    lb_param_values(net, i)[k] = 1;
        lb_plan_destroy(plan);
    }
    lb_recipe_destroy(recipe);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Statistics become means over the estimate's batches, whatever they were. */
static void test_estimate(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_quantized(ctx, "dorefa", "dorefa");
    lb_plan *plan = make_plan(ctx, net, false);
    const lb_node *bn = &net->nodes[lb_net_find(net, "bn1")];
    float *mean = lb_param_values(net, bn->param[2]), *var = lb_param_values(net, bn->param[3]);
    static uint8_t other[sizeof pixels];
    for (size_t i = 0; i < sizeof pixels; i++)
        other[i] = pixels[i] / 2;
    float one[2], two[2];
    assert_ok(ctx, lb_plan_estimate(plan, other, 0));
    two[0] = mean[0], two[1] = var[0];
    assert_ok(ctx, lb_plan_estimate(plan, pixels, 0));
    one[0] = mean[0], one[1] = var[0];
    assert_true(two[0] != one[0]);
    mean[0] = 1e9f, var[0] = INFINITY;
    assert_ok(ctx, lb_plan_estimate(plan, other, 0));
    assert_true(mean[0] == two[0] && var[0] == two[1]);
    assert_ok(ctx, lb_plan_estimate(plan, pixels, 1));
    assert_true(fabsf(mean[0] - (one[0] + two[0]) / 2) < 1e-5f && fabsf(var[0] - (one[1] + two[1]) / 2) < 1e-5f);
    lb_plan_destroy(plan);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* A first batch of which nothing is left leaves no quantizer a step that nothing can be told apart with. */
static void test_start_from_zeros(void **state) {
    (void)state;
    static const char *const methods[] = {"uniform", "lsq", "cpq", "rq"};
    for (size_t m = 0; m < LB_COUNT(methods); m++) {
        lb_ctx *ctx = test_ctx();
        lb_net *net = make_quantized(ctx, "dorefa", methods[m]);
        lb_plan *plan = make_plan(ctx, net, false);
        int started = 0;
        for (int i = 0; i < net->nnodes; i++)
            for (int k = 0; k < 2 && net->nodes[i].op == LB_OP_BATCHNORM; k++) /* gamma, beta */
                memset(lb_param_values(net, net->nodes[i].param[k]), 0, (size_t)net->nodes[i].dst.c * sizeof(float));
        assert_ok(ctx, lb_plan_forward(plan, pixels, &(lb_quant_when){.stage_steps = 1}));
        for (int i = 0; i < net->nnodes; i++) {
            const lb_quant *q = net->nodes[i].op == LB_OP_ACT ? net->nodes[i].quant : NULL;
            lb_act_form form;
            if (!q)
                continue;
            lb_quant_act_form(q, &lb_quant_evaluation, lb_param_values(net, q->param), &form);
            assert_true(q->initialised && form.step > 1e-3f && form.step < 10);
            started++;
        }
        assert_true(started > 1);
        lb_plan_destroy(plan);
        lb_net_destroy(net);
        lb_ctx_destroy(ctx);
    }
}

/* StoMPP in a whole network: the same mask for every image of the batch, frozen entries at -1 and +1, others between; the same bits
 * from a plan that starts at this step; layers take turns from the input on. */
static void test_masked_network(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx, false, false);
    lb_recipe *recipe;
    assert_ok(ctx, lb_recipe_create(ctx, &recipe));
    static const char *const keys[][2] = {
        {"quant.weights.method", "sign"},      {"quant.weights.bits", "1"},           {"quant.weights.mixer", "mask"},
        {"quant.activations.method", "sign"},  {"quant.activations.bits", "1"},       {"quant.activations.mixer", "mask"},
        {"quant.weights.mix_refresh", "10"},   {"quant.activations.mix_refresh", "10"}, {"quant.edges.first", "float"},
        {"quant.edges.last", "float"}};
    for (size_t i = 0; i < LB_COUNT(keys); i++)
        assert_ok(ctx, lb_recipe_set(recipe, keys[i][0], keys[i][1]));
    assert_ok(ctx, lb_net_quantize(net, &recipe->stages[0]));
    int layers = 0, next = 0;
    for (int i = 0; i < net->nnodes; i++)
        if (net->nodes[i].quant && net->nodes[i].quant->spec.target == LB_WEIGHTS) {
            const int act = lb_net_source_act(net, i), layer = net->nodes[i].quant->spec.layer;
            assert_int_equal(layer, next++);
            layers = net->nodes[i].quant->spec.layers;
            assert_true(act >= 0 && net->nodes[act].quant->spec.layer <= layer && net->nodes[act].quant->spec.layers == layers);
        }
    assert_true(layers >= 4);
    assert_int_equal(next, layers);
    const int64_t steps = 1000;
    float *diff[2];
    int masked = 0, frozen = 0, real = 0;
    for (int64_t step = 20; step < steps; step += 60)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            const lb_quant_when when = {.step = (uint64_t)step, .stage_step = step, .stage_steps = steps};
            for (int twice = 0; twice < 2; twice++) {
                diff[twice] = calloc(net->nvalues, sizeof(float));
                lb_plan *plan = make_plan(ctx, net, bf16);
                assert_ok(ctx, lb_plan_forward(plan, pixels, &when));
                for (int s = 0; s < plan->nsteps; s++) {
                    const lb_step *st = &plan->steps[s];
                    if (st->kind != LB_STEP_NORM || !st->masked)
                        continue;
                    const lb_value *v = &plan->values[st->node];
                    const size_t each = lb_shape_count(&net->nodes[st->node].dst);
                    masked++;
                    for (size_t i = 0; i < MB * each; i++) {
                        float value;
                        const unsigned char *buffer = lb_plan_buffer(plan, v->buffer);
                        plan->kernels[v->type]->to_f32(v->type, buffer + i * lb_dtype_size(v->type), &value, 1);
                        if (plan->buffers[v->buffer].last <= s)
                            continue; /* its room was given to another */
                        if (st->mask[i % each] == 1)
                            assert_true(fabsf(value) == 1);
                        assert_true(fabsf(value) <= 1);
                        frozen += st->mask[i % each] == 1;
                        real += fabsf(value) != 1;
                    }
                }
                memcpy(plan->diff_logits, weight_of_logit, sizeof weight_of_logit);
                assert_ok(ctx, lb_plan_backward(plan, diff[twice]));
                lb_plan_destroy(plan);
            }
            assert_memory_equal(diff[0], diff[1], net->nvalues * sizeof(float));
            free(diff[0]);
            free(diff[1]);
        }
    assert_true(masked > 20 && frozen > 100 && real > 100);
    lb_recipe_destroy(recipe);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

int main(void) {
    fill_inputs();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),       cmocka_unit_test(test_gradients_with_steps), cmocka_unit_test(test_bf16_near_f32),
        cmocka_unit_test(test_same_bits_twice), cmocka_unit_test(test_masked_network),       cmocka_unit_test(test_taps_refused),
        cmocka_unit_test(test_not_a_number),    cmocka_unit_test(test_inference),            cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_start_from_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Every quantizer with every mixer and every estimator, weights and activations: trains some steps over the whole schedule, with
 * labels, distillation and a feature term, to finite losses, and packs to the evaluator's scores; or is refused for the reason that
 * the tables give. Then every quantizer after every other one, as stages do. */
#include <math.h>

#include "paths.h"
#include "recipe/recipe.h"
#include "train/loss.h"
#include "train/optim.h"
#include "train/plan.h"

enum { MB = 8, SIZE = 8, CLASSES = 5, STEPS = 8 };

static const float mean[4] = {.5f, .5f, .5f}, std[4] = {.25f, .25f, .25f};
static uint8_t pixels[MB * SIZE * SIZE * 3];
static int32_t labels[MB];
static float target[MB * CLASSES];

static void fill_inputs(void) {
    test_bytes(3, pixels, sizeof pixels);
    for (int i = 0; i < MB; i++)
        labels[i] = i % CLASSES;
    lb_rng_normal(3, LB_RNG_TEST, 2, 1, target, LB_COUNT(target));
}

static lb_net *make_net(lb_ctx *ctx) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "tiny", SIZE, SIZE, 3, &net));
    int x = lb_net_conv2d(net, lb_net_input(net), "conv1", 8, 3, 1, 1, 1, false);
    x = lb_net_relu(net, lb_net_batchnorm(net, x, "bn1", 0, 0), "relu1");
    int y = lb_net_conv2d(net, x, "conv2", 8, 3, 1, 1, 1, false);
    y = lb_net_relu(net, lb_net_batchnorm(net, y, "bn2", 0, 0), "relu2");
    y = lb_net_batchnorm(net, lb_net_conv2d(net, y, "conv3", 8, 3, 1, 1, 1, false), "bn3", 0, 0);
    x = lb_net_relu(net, lb_net_add(net, x, y, "add"), "relu3");
    x = lb_net_linear(net, lb_net_globalpool(net, x, "pool"), "fc", CLASSES, true);
    assert_true(x > 0);
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 3, 0);
    return net;
}

#define FLOAT "method: none"

/* weights/activations: "method, bits, mixer, estimator" as flow YAML. */
static lb_status quantize(lb_ctx *ctx, lb_net *net, const char *weights, const char *activations) {
    char text[600];
    lb_recipe *recipe;
    const bool any = strcmp(weights, FLOAT) || strcmp(activations, FLOAT);
    snprintf(text, sizeof text, "quant: {weights: {%s}, activations: {%s}%s}\n", weights, activations,
             any ? ", edges: {first: 8, last: 8}" : "");
    assert_ok(ctx, lb_recipe_parse(ctx, "test", text, strlen(text), NULL, 0, &recipe));
    lb_status status = lb_net_quantize(net, &recipe->stages[0]);
    lb_recipe_destroy(recipe);
    if (!status)
        lb_plan_init_weights(net);
    return status;
}

static void train(lb_ctx *ctx, lb_net *net, int steps, bool bf16, const char *what) {
    const lb_optimizer_config config = {.name = LB_OPT_SGD, .lr = 0.01f, .momentum = 0.9f, .lr_quant = 0.1f};
    lb_plan_options options = {.mb = MB, .bf16 = bf16, .seed = 5, .mean = mean, .std = std, .ntaps = 1};
    options.tap[0] = lb_net_find(net, "conv2");
    lb_plan *plan;
    lb_optim *optim;
    assert_ok(ctx, lb_plan_create(ctx, net, &options, &plan));
    assert_ok(ctx, lb_optim_create(ctx, net, &config, &optim));
    const size_t taps = lb_plan_tap_count(plan, 0);
    float *diff = calloc(net->nvalues, sizeof *diff), *feature = malloc(taps * sizeof *feature);
    for (int i = 0; i < steps; i++) {
        const lb_quant_when when = {.step = (uint64_t)i, .stage_step = i, .stage_steps = steps};
        assert_ok(ctx, lb_plan_forward(plan, pixels, &when));
        double loss = lb_loss(LB_LOSS_CROSS_ENTROPY, 0, plan->logits, labels, MB, CLASSES, plan->diff_logits, NULL);
        loss += lb_distill_loss_add(LB_DISTILL_KL, 2, 0.5f, plan->logits, target, MB, CLASSES, plan->diff_logits);
        lb_plan_tap_read(plan, 0, 0, taps, feature);
        for (size_t k = 0; k < taps; k++)
            feature[k] = 0.2f * (feature[k] - 0.5f) / (float)taps; /* towards 1/2 everywhere */
        lb_plan_tap_write(plan, 0, 0, taps, feature);
        assert_ok(ctx, lb_plan_backward(plan, diff));
        if (!isfinite(loss) || lb_optim_step(optim, net, diff, 0.01, i) > 0)
            fail_msg("%s: step %d: loss %g, or gradients that are not finite", what, i, loss);
    }
    free(diff);
    free(feature);
    lb_optim_destroy(optim);
    lb_plan_destroy(plan);
}

/* The packed model gives the evaluator's scores. */
static void verify(lb_ctx *ctx, const lb_net *net, const char *what) {
    int32_t trained[MB * CLASSES], packed[MB * CLASSES];
    run_evaluator(ctx, net, mean, std, pixels, MB, true, trained);
    run_packed(ctx, net, mean, std, pixels, MB, packed);
    for (int i = 0; i < MB * CLASSES; i++)
        if (trained[i] != packed[i])
            fail_msg("%s: score %d is %d in evaluation and %d packed", what, i, trained[i], packed[i]);
}

/* Part of the reason why this makes no sense, NULL if it does. */
static const char *why_not(const lb_quantizer *q, const lb_mixer *m, const char *estimator, lb_target side, int bits) {
    const bool weights = side == LB_WEIGHTS;
    if (!weights && !m->activations) /* first: the image, which is always uniform, has this mixer too */
        return "chooses among weights";
    if (!(weights ? q->weights : q->activations))
        return "does not quantize activations";
    if (!strcmp(estimator, "own") && (weights ? q->estimator : q->estimator_activations) != LB_EST_OWN)
        return "no estimator of its own";
    if (!strcmp(estimator, "clipped") && weights && bits > 1 && q->no_clipped)
        return q->no_clipped;
    if (!strcmp(estimator, "none") && m == &lb_mixer_constant)
        return "lets no gradient through";
    return NULL;
}

static int bits_of(const lb_quantizer *q) { return LB_MIN(LB_MAX(2, q->min_bits), q->max_bits); }

static void walk(lb_target side) {
    static const char *const estimators[] = {"default", "ste", "clipped", "none", "own"};
    size_t nquantizers, nmixers;
    const lb_quantizer *const *quantizers = lb_quantizer_list(&nquantizers);
    const lb_mixer *const *mixers = lb_mixer_list(&nmixers);
    lb_ctx *ctx = test_ctx();
    int trained = 0, refused = 0;
    for (size_t i = 0; i < nquantizers; i++)
        for (size_t j = 0; j < nmixers; j++)
            for (size_t k = 0; k < LB_COUNT(estimators); k++) {
                const lb_quantizer *q = quantizers[i];
                char spec[200], what[240];
                snprintf(spec, sizeof spec, "method: %s, bits: %d, mixer: %s, estimator: %s", q->name, bits_of(q), mixers[j]->name,
                         estimators[k]);
                snprintf(what, sizeof what, "%s: %s", side == LB_WEIGHTS ? "weights" : "activations", spec);
                const char *reason = why_not(q, mixers[j], estimators[k], side, bits_of(q));
                lb_net *net = make_net(ctx);
                lb_status status = side == LB_WEIGHTS ? quantize(ctx, net, spec, "method: lsq, bits: 3")
                                                      : quantize(ctx, net, "method: lsq, bits: 3", spec);
                if (reason) {
                    if (status != LB_ERR_UNSUPPORTED || !strstr(lb_error(ctx), reason))
                        fail_msg("%s: not refused with \"%s\" but: %s", what, reason, status ? lb_error(ctx) : "nothing");
                    refused++;
                } else if (status) {
                    fail_msg("%s: refused: %s", what, lb_error(ctx));
                } else {
                    train(ctx, net, STEPS, k % 2, what);
                    verify(ctx, net, what);
                    trained++;
                }
                lb_net_destroy(net);
            }
    assert_int_equal(trained + refused, nquantizers * nmixers * LB_COUNT(estimators));
    assert_true(trained > 3 * (int)nquantizers && refused > (int)nquantizers);
    lb_ctx_destroy(ctx);
}

static void test_weights(void **state) {
    (void)state;
    walk(LB_WEIGHTS);
}

static void test_activations(void **state) {
    (void)state;
    walk(LB_ACTIVATIONS);
}

/* From each quantizer to each other, or to float, within one run. */
static void test_stages(void **state) {
    (void)state;
    size_t n;
    const lb_quantizer *const *list = lb_quantizer_list(&n);
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= n; j++) {
            char what[100] = "";
            lb_net *net = make_net(ctx);
            for (int stage = 0; stage < 2; stage++) {
                const lb_quantizer *q = stage ? j < n ? list[j] : NULL : i < n ? list[i] : NULL;
                char weights[80] = FLOAT, acts[80] = FLOAT;
                if (q)
                    snprintf(weights, sizeof weights, "method: %s, bits: %d", q->name, bits_of(q));
                if (q && q->activations)
                    snprintf(acts, sizeof acts, "method: %s, bits: %d", q->name, bits_of(q));
                snprintf(what + strlen(what), sizeof what - strlen(what), "%s%s", stage ? " -> " : "", q ? q->name : "float");
                assert_ok(ctx, quantize(ctx, net, weights, acts));
                train(ctx, net, 2, stage, what);
            }
            verify(ctx, net, what);
            lb_net_destroy(net);
        }
    lb_ctx_destroy(ctx);
}

int main(void) {
    fill_inputs();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_weights), cmocka_unit_test(test_activations),
                                       cmocka_unit_test(test_stages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Settings without effect are named; the same settings where they have one are not. */
#include "support.h"

#include "recipe/recipe.h"
#include "train/unused.h"

#define RESNET "model: {name: resnet20, width: 0.25}\n"
#define VGG "model: {name: vgg-small, width: 0.1}\n"
#define LSQ "quant: {weights: {method: lsq, bits: 2}, activations: {method: lsq, bits: 2}}\n"
#define DOREFA "quant: {weights: {method: dorefa, bits: 2}, activations: {method: dorefa, bits: 2}}\n"

static void test_settings(void **state) {
    static const struct {
        const char *setting, *key, *used, *unused; /* recipes in which the setting has an effect and has none */
    } rows[] = {
        {"train.total_epochs: 3\n", "train.total_epochs", RESNET, RESNET "train.steps: 5\n"},
        {"train.total_epochs: 3\n", "train.total_epochs", RESNET, RESNET "train.epochs: 0\n"},
        {"train.total_epochs: 3\n", "train.total_epochs", RESNET "stages: [{name: a, train: {steps: 5}}, {name: b}]\n",
         RESNET "stages: [{name: a, train: {steps: 5}}, {name: b, train: {steps: 6}}]\n"},
        {"train.optimizer.decay_bias: 1\n", "train.optimizer.decay_bias", RESNET, RESNET "train.optimizer.weight_decay: 0\n"},
        {"train.optimizer.decay_bn: 1\n", "train.optimizer.decay_bn", RESNET, RESNET "train.optimizer.weight_decay: 0\n"},
        {"train.optimizer.decay_quant: 1\n", "train.optimizer.decay_quant", RESNET LSQ, RESNET DOREFA},
        {"train.optimizer.lr_quant: 5\n", "train.optimizer.lr_quant", RESNET LSQ, RESNET DOREFA},
        {"train.optimizer.lr_quant: 5\n", "train.optimizer.lr_quant",
         RESNET "quant: {layers: [{match: fc, weights: {method: lsq}}]}\n",
         RESNET "quant: {weights: {method: pact}}\n"}, /* pact learns a clip of activations, of weights nothing */
        {"train.optimizer.lr_gates: 5\n", "train.optimizer.lr_gates",
         RESNET "quant: {weights: {method: cpq, bits: 4, bit_lengths: learned}}\n", RESNET LSQ},
        {"train.optimizer.clip_weights: 1\n", "train.optimizer.clip_weights", RESNET LSQ,
         RESNET "quant: {activations: {method: lsq}}\n"},
        {"quant.rescale: range\n", "quant.rescale", RESNET LSQ "train.init: runs/float\n", RESNET LSQ},
        {"quant.edges.shortcut: 8\n", "quant.edges.shortcut", RESNET LSQ, VGG LSQ},
        {"quant.weights.surrogate: hardtanh\n", "quant.weights.surrogate",
         RESNET "quant: {weights: {method: bwn, bits: 1, mix: 0.5}}\n", RESNET "quant: {weights: {method: bwn, bits: 1}}\n"},
        {"quant.activations.surrogate: relu\n", "quant.activations.surrogate",
         RESNET "quant: {activations: {method: lsq, mixer: alpha}}\n", RESNET "quant: {activations: {method: lsq}}\n"},
        {"quant.weights.surrogate: hardtanh\n", "quant.weights.surrogate",
         RESNET "quant: {weights: {method: dorefa, bits: 2}, layers: [{match: fc, weights: {mixer: alpha}}]}\n", RESNET LSQ},
        /* one stage that uses it is enough */
        {"train.optimizer.lr_quant: 5\n", "train.optimizer.lr_quant",
         RESNET "stages: [{name: float}, {name: low, quant: {weights: {method: lsq}}}]\n", RESNET "stages: [{name: float}]\n"},
    };
    (void)state;
    for (size_t i = 0; i < LB_COUNT(rows); i++)
        for (int used = 0; used < 2; used++) {
            char text[600];
            snprintf(text, sizeof text, "%s%s", used ? rows[i].used : rows[i].unused, rows[i].setting);
            test_log log;
            lb_ctx *ctx = test_ctx_logging(&log);
            lb_recipe *recipe;
            assert_ok(ctx, lb_recipe_parse(ctx, "test.yaml", text, strlen(text), NULL, 0, &recipe));
            lb_net *net;
            assert_ok(ctx, lb_net_from_config(ctx, &recipe->stages[0], (lb_shape){32, 32, 3}, 10, &net));
            assert_ok(ctx, lb_net_quantize(net, &recipe->stages[0]));
            lb_warn_unused(recipe, net);
            if (log.nwarnings != !used || (!used && strncmp(log.warnings, rows[i].key, strlen(rows[i].key)) != 0))
                fail_msg("%s: %d warnings: %s", text, log.nwarnings, log.warnings);
            lb_net_destroy(net);
            lb_recipe_destroy(recipe);
            lb_ctx_destroy(ctx);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_settings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

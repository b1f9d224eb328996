/* Batch norms that import puts behind convolutions: the first training batch sets them without changing what the network
 * computes. */
#include <math.h>

#include "net/net.h"
#include "support.h"
#include "train/evaluate.h"
#include "train/plan.h"

enum { MB = 16, SIZE = 12, CLASSES = 5 };

static const float mean[4] = {0.5f, 0.4f, 0.6f, 0}, std_[4] = {0.25f, 0.2f, 0.3f, 1};

static lb_net *make_net(lb_ctx *ctx) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "folded", SIZE, SIZE, 3, &net));
    int x = lb_net_relu(net, lb_net_conv2d(net, 0, "conv1", 8, 3, 1, 1, 1, true), "relu1"), y;
    y = lb_net_relu(net, lb_net_conv2d(net, x, "conv2", 8, 3, 1, 1, 8, false), "relu2");
    x = lb_net_add(net, lb_net_conv2d(net, y, "conv3", 8, 1, 1, 0, 1, true), x, "add");
    x = lb_net_flatten(net, lb_net_globalpool(net, lb_net_relu(net, x, "relu3"), "pool"), "flat");
    lb_net_linear(net, x, "fc", CLASSES, true);
    assert_ok(ctx, lb_net_add_batchnorms(net));
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 5, 0);
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        if (node->op == LB_OP_BATCHNORM) {
            assert_true(node->u.bn.calibrate);
            for (int c = 0; c < node->dst.c; c++) {
                lb_param_values(net, node->param[0])[c] = sqrtf(1 + node->u.bn.eps) * (float)(1 + c % 3);
                lb_param_values(net, node->param[1])[c] = (float)(c % 5) / 4;
            }
        } else if (node->op == LB_OP_CONV && node->param[1] >= 0) {
            lb_rng_normal(9, LB_RNG_TEST, (uint64_t)i, 0.5f, lb_param_values(net, node->param[1]), (size_t)node->dst.c);
        }
    }
    return net;
}

static void evaluate(lb_ctx *ctx, const lb_net *net, const uint8_t *pixels, int32_t *scores) {
    lb_evaluator *e;
    assert_ok(ctx, lb_evaluator_create(ctx, net, mean, std_, MB, &e));
    assert_ok(ctx, lb_evaluator_update(e));
    assert_ok(ctx, lb_evaluator_run(e, pixels, MB, scores));
    lb_evaluator_destroy(e);
}

static void first_batch(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = make_net(ctx);
    lb_plan *plan;
    assert_ok(ctx, lb_plan_create(ctx, net, &(lb_plan_options){.mb = MB, .seed = 1, .mean = mean, .std = std_}, &plan));
    uint8_t pixels[2][MB * SIZE * SIZE * 3];
    for (size_t i = 0; i < sizeof pixels; i++)
        ((uint8_t *)pixels)[i] = (uint8_t)(i * 2654435761u >> 13);
    int32_t before[MB * CLASSES], after[MB * CLASSES];
    evaluate(ctx, net, pixels[0], before);
    assert_ok(ctx, lb_plan_forward(plan, pixels[0], &(lb_quant_when){.stage_steps = 10}));
    double most = 0;
    for (int i = 0; i < MB * CLASSES; i++)
        most = fmax(most, fabs((double)before[i] / 65536));
    for (int i = 0; i < MB * CLASSES; i++)
        assert_true(fabs((double)plan->logits[i] - (double)before[i] / 65536) < 1e-4 * most);

    /* Running statistics are the batch's; they differ from it only by being unbiased. */
    evaluate(ctx, net, pixels[0], after);
    for (int i = 0; i < MB * CLASSES; i++)
        assert_true(fabs((double)after[i] - (double)before[i]) / 65536 < 2e-3 * most);
    const lb_node *bn = &net->nodes[lb_net_find(net, "conv2.bn")];
    const double n = MB * SIZE * SIZE;
    for (int c = 0; c < 8; c++) {
        const double scale = (double)lb_param_values(net, bn->param[0])[c] / (1 + c % 3); /* sqrt(var + eps) */
        const double unbiased = (scale * scale - (double)bn->u.bn.eps) * n / (n - 1);
        assert_true(fabs((double)lb_param_values(net, bn->param[3])[c] / unbiased - 1) < 2e-5);
    }

    /* Once only: the next batch leaves gamma alone. */
    const float gamma = lb_param_values(net, bn->param[0])[0];
    assert_ok(ctx, lb_plan_forward(plan, pixels[1], &(lb_quant_when){.stage_steps = 10, .stage_step = 1, .step = 1}));
    assert_true(lb_param_values(net, bn->param[0])[0] == gamma);
    lb_plan_destroy(plan);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(first_batch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Queues of passes: a network's outputs and gradients are the same bits on any number of threads. (Where the convolutions are done
 * by images, that is with AMX.) */
#include "support.h"

#include "net/net.h"
#include "train/backend/backend.h"
#include "train/plan.h"

enum { SIZE = 20, CLASSES = 5, MAX_MB = 19 };

static uint8_t pixels[MAX_MB * SIZE * SIZE * 3];

static int layer(lb_net *net, int x, int oc, int k, int stride, bool bn) {
    x = lb_net_conv2d(net, x, NULL, oc, k, stride, k / 2, 1, !bn);
    return bn ? lb_net_batchnorm(net, x, NULL, 0, 0) : x;
}

/* Convolutions that want different amounts of scratch follow each other, without batch norm in one queue; two residual additions,
 * a value that three convolutions read. */
static lb_net *make_net(lb_ctx *ctx, bool bn) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "queue", SIZE, SIZE, 3, &net));
    int x = lb_net_relu(net, layer(net, lb_net_input(net), 16, 3, 1, bn), NULL);
    int y = lb_net_relu(net, layer(net, x, 64, 1, 1, bn), NULL);
    y = lb_net_relu(net, layer(net, y, 16, 3, 1, bn), NULL);
    y = layer(net, y, 16, 5, 1, bn);
    x = lb_net_relu(net, lb_net_add(net, y, x, NULL), NULL);
    const int a = layer(net, x, 48, 3, 2, bn), b = layer(net, x, 48, 1, 2, bn);
    y = lb_net_relu(net, layer(net, x, 160, 1, 1, bn), NULL);
    y = layer(net, y, 48, 3, 2, bn);
    x = lb_net_relu(net, lb_net_add(net, lb_net_add(net, a, b, NULL), y, NULL), NULL);
    x = lb_net_relu(net, layer(net, x, 32, 3, 1, bn), NULL);
    x = lb_net_flatten(net, lb_net_globalpool(net, x, NULL), NULL);
    lb_net_linear(net, x, "fc", CLASSES, true);
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 3, 0);
    return net;
}

/* Outputs and gradients of two steps; infer: outputs only, as for evaluation. */
static float *results(int threads, int mb, bool bn, bool infer, size_t *count) {
    static const float mean[4] = {.5f, .4f, .45f}, std[4] = {.25f, .3f, .2f};
    const lb_plan_options plan_options = {.mb = mb, .bf16 = true, .seed = 11, .mean = mean, .std = std, .inference = infer};
    const lb_ctx_options options = {.threads = threads};
    lb_ctx *ctx;
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
    lb_net *net = make_net(ctx, bn);
    lb_plan *plan;
    assert_ok(ctx, lb_plan_create(ctx, net, &plan_options, &plan));
    const size_t logits = (size_t)mb * CLASSES, all = logits + net->nvalues;
    float *to = calloc(2 * all, sizeof *to);
    assert_non_null(to);
    *count = 2 * all;
    for (int step = 0; step < 2; step++) {
        float *const at = to + (size_t)step * all;
        if (infer)
            assert_ok(ctx, lb_plan_infer(plan, pixels));
        else
            assert_ok(ctx, lb_plan_forward(plan, pixels, &(lb_quant_when){.step = step}));
        memcpy(at, plan->logits, logits * sizeof *at);
        if (infer)
            continue;
        lb_rng_normal(8, LB_RNG_TEST, (uint64_t)step, 1, plan->diff_logits, logits);
        assert_ok(ctx, lb_plan_backward(plan, at + logits));
        for (size_t i = 0; i < net->nvalues; i++)
            net->values[i] -= 1e-3f * at[logits + i];
    }
    lb_plan_destroy(plan);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
    return to;
}

/* What is left to oneDNN has other bits with other numbers of threads. */
static bool by_images(void) {
    const lb_conv_dims dims = {.mb = 1, .ih = 1, .iw = 1, .ic = 16, .oh = 1, .ow = 1, .oc = 16, .kh = 1, .kw = 1, .sh = 1, .sw = 1,
                               .groups = 1, .src_type = LB_BF16, .dst_type = LB_BF16};
    lb_ctx *ctx = test_ctx();
    lb_backend *backend;
    lb_conv_prims *prims = NULL;
    assert_ok(ctx, lb_backend_create(ctx, &backend));
    if (lb_backend_has_bf16())
        assert_ok(ctx, lb_conv_prims_create(backend, &dims, &prims));
    const bool here = prims && lb_conv_by_images(prims, LB_PASS_FORWARD);
    lb_conv_prims_destroy(prims);
    lb_backend_destroy(backend);
    lb_ctx_destroy(ctx);
    return here;
}

static void test_threads(void **state) {
    (void)state;
    static const int sizes[] = {1, 3, 8, 9, MAX_MB}, threads[][2] = {{1, 2}, {1, 3}, {1, 8}, {9, 11}};
    if (!by_images()) {
        printf("SKIPPED: this processor has no matrix registers (AMX) for bf16\n");
        return;
    }
    test_bytes(7, pixels, sizeof pixels);
    for (int kind = 0; kind < 4; kind++)
        for (size_t k = 0; k < LB_COUNT(sizes); k++) {
            const bool bn = kind & 1, infer = kind & 2;
            size_t count;
            for (size_t t = 0; t < LB_COUNT(threads); t++) {
                float *one = results(threads[t][0], sizes[k], bn, infer, &count);
                float *more = results(threads[t][1], sizes[k], bn, infer, &count);
                size_t others = 0;
                for (size_t i = 0; i < count; i++)
                    others += memcmp(&one[i], &more[i], sizeof *one) != 0;
                if (others)
                    fail_msg("%d images, %d threads, batch norm %d, inference %d: %zu of %zu numbers are others", sizes[k],
                             threads[t][1], bn, infer, others, count);
                free(more);
                free(one);
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

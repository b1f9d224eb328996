/* A packed network of the zoo with random parameters, to measure inference with: speed does not depend on what was learned.
 * usage: random_model NETWORK SIZE CLASSES WEIGHTS BITS ACTIVATIONS BITS OUT.lbm */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "deploy/packed.h"
#include "net/net.h"
#include "recipe/config.h"

/* Learned steps need a start; plausible ones give codes of all values. */
static void start_steps(lb_net *net) {
    float sample[512];
    for (size_t k = 0; k < LB_COUNT(sample); k++)
        sample[k] = (float)(int)(k * 2654435761u % 4001) / 1000.0f - 2.0f;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        lb_quant *q = node->quant;
        if (!q || q->param < 0)
            continue;
        const bool act = node->op == LB_OP_ACT;
        const float *values = act ? sample : lb_param_values(net, node->param[0]);
        const int oc = act ? 1 : node->dst.c;
        const int64_t each = act ? (int64_t)LB_COUNT(sample) : (int64_t)net->params[node->param[0]].count / oc;
        q->spec.quantizer->init(&q->spec, values, oc, each, lb_param_values(net, q->param));
        q->initialised = true;
    }
}

static lb_status choose(lb_recipe *recipe, char **argv) {
    const char *const keys[][2] = {{"model.name", argv[1]}, {"quant.weights.method", argv[4]}, {"quant.weights.bits", argv[5]},
                                   {"quant.activations.method", argv[6]}, {"quant.activations.bits", argv[7]},
                                   {"quant.edges.first", "8"}, {"quant.edges.last", "8"}, {"quant.edges.shortcut", "same"}};
    for (size_t i = 0; i < LB_COUNT(keys); i++)
        LB_TRY(lb_recipe_set(recipe, keys[i][0], keys[i][1]));
    return LB_OK;
}

static lb_status make(lb_ctx *ctx, const lb_recipe *recipe, int size, int classes, const char *path) {
    static const float mean[4] = {0.49f, 0.48f, 0.45f, 0}, std[4] = {0.25f, 0.24f, 0.26f, 1};
    lb_net *net;
    unsigned char *bytes = NULL;
    size_t length = 0;
    LB_TRY(lb_net_from_config(ctx, recipe->stages, (lb_shape){size, size, 3}, classes, &net));
    lb_status status = lb_net_quantize(net, recipe->stages);
    if (status == LB_OK) {
        lb_net_initialise(net, 1, 0);
        start_steps(net);
        status = lb_pack_net(ctx, net, mean, std, NULL, NULL, 0, &bytes, &length);
    }
    if (status == LB_OK)
        status = lb_write_file(ctx, path, &(lb_span){bytes, length}, 1);
    lb_free(ctx, bytes);
    lb_net_destroy(net);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "usage: %s NETWORK SIZE CLASSES WEIGHTS BITS ACTIVATIONS BITS OUT.lbm\n", argv[0]);
        return 2;
    }
    lb_ctx *ctx;
    if (lb_ctx_create(NULL, &ctx) != LB_OK)
        return 1;
    lb_recipe *recipe = NULL;
    const bool failed = lb_recipe_create(ctx, &recipe) != LB_OK || choose(recipe, argv) != LB_OK ||
                        make(ctx, recipe, atoi(argv[2]), atoi(argv[3]), argv[8]) != LB_OK;
    if (failed)
        fprintf(stderr, "%s: %s\n", argv[0], lb_error(ctx));
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
    return failed;
}

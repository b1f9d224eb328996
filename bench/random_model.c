/* A packed network of the zoo with random parameters, to measure inference with: speed does not depend on what was learned.
 * usage: random_model NETWORK SIZE CLASSES WEIGHTS BITS ACTIVATIONS BITS OUT.lbm */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "deploy/packed.h"
#include "net/net.h"
#include "recipe/config.h"

enum { EDGE_BITS = 8 };

static lb_tensor_config tensor_config(const char *method, int bits) {
    lb_tensor_config config = {.bits = bits, .threshold = 0.7f, .mix = 1};
    snprintf(config.method, sizeof config.method, "%s", method);
    strcpy(config.per, "default");
    strcpy(config.estimator, "default");
    strcpy(config.surrogate, "default");
    strcpy(config.scale, "minmax");
    strcpy(config.mixer, "constant");
    return config;
}

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

static lb_status make(lb_ctx *ctx, char **argv) {
    static const float mean[4] = {0.49f, 0.48f, 0.45f, 0}, std[4] = {0.25f, 0.24f, 0.26f, 1};
    const int size = atoi(argv[2]), classes = atoi(argv[3]);
    lb_config config = {.model = {.width = 1, .act = "auto", .dropout = -1}};
    snprintf(config.model.name, sizeof config.model.name, "%s", argv[1]);
    strcpy(config.model.variant, "plain");
    config.quant.weights = tensor_config(argv[4], atoi(argv[5]));
    config.quant.activations = tensor_config(argv[6], atoi(argv[7]));
    config.quant.edge_first = config.quant.edge_last = EDGE_BITS;
    config.quant.edge_shortcut = LB_EDGE_SAME;
    lb_net *net = NULL;
    unsigned char *bytes = NULL;
    size_t length = 0;
    LB_TRY(lb_net_from_config(ctx, &config, (lb_shape){size, size, 3}, classes, &net));
    lb_status status = lb_net_quantize(net, &config);
    if (status == LB_OK) {
        lb_net_initialise(net, 1, 0);
        start_steps(net);
        status = lb_pack_net(ctx, net, mean, std, NULL, NULL, 0, &bytes, &length);
    }
    if (status == LB_OK) {
        const lb_span span = {bytes, length};
        status = lb_write_file(ctx, argv[8], &span, 1);
    }
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
    const int failed = make(ctx, argv) != LB_OK;
    if (failed)
        fprintf(stderr, "%s: %s\n", argv[0], lb_error(ctx));
    lb_ctx_destroy(ctx);
    return failed;
}

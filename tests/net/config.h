/* A recipe of defaults for tests of src/net, and what every network must be. */
#ifndef LB_TEST_NET_CONFIG_H
#define LB_TEST_NET_CONFIG_H

#include "net/net.h"
#include "recipe/config.h"
#include "support.h"

static inline lb_tensor_config test_tensor(const char *method, int bits) {
    lb_tensor_config config = {.bits = bits,
                               .options = {.per = LB_PER_DEFAULT, .threshold = 0.7f, .mix = 1, .mix_end = 0.8f, .mix_exponent = 3,
                                           .mix_every = 1, .mix_from = 0.5f, .mix_ratio = 0.5f}};
    snprintf(config.method, sizeof config.method, "%s", method);
    strcpy(config.mixer, "constant");
    return config;
}

static inline lb_config test_config(const char *model) {
    lb_config config = {.model = {.width = 1, .act = "auto", .variant = "plain", .dropout = -1}};
    snprintf(config.model.name, sizeof config.model.name, "%s", model);
    config.quant.weights = config.quant.activations = test_tensor("none", 2);
    return config;
}

/* The network, or the test fails. */
static inline lb_net *test_net(lb_ctx *ctx, const lb_config *config, int h, int w, int c, int classes) {
    lb_net *net;
    assert_ok(ctx, lb_net_from_config(ctx, config, (lb_shape){h, w, c}, classes, &net));
    return net;
}

/* Every source is earlier, names and parameter names differ, owners and offsets are right. */
static inline void test_consistent(const lb_net *net) {
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        assert_int_equal(node->nsrc, lb_op_info(node->op)->nsrc);
        for (int s = 0; s < node->nsrc; s++)
            assert_in_range(node->src[s], 0, i - 1);
        assert_int_equal(lb_net_find(net, node->name), i);
        for (int p = 0; p < LB_MAX_PARAMS; p++)
            if (node->param[p] >= 0)
                assert_int_equal(net->params[node->param[p]].node, i);
        if (node->quant && node->quant->param >= 0)
            assert_int_equal(net->params[node->quant->param].node, i);
    }
    size_t offset = 0;
    bool quant = false;
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *param = &net->params[i];
        assert_int_equal(param->offset, offset);
        size_t count = 1;
        for (int d = 0; d < param->ndim; d++)
            count *= (size_t)param->dims[d];
        assert_int_equal(param->count, count);
        offset += count;
        assert_true(!quant || param->kind == LB_PARAM_QUANT); /* quantizer parameters are the last ones */
        quant = param->kind == LB_PARAM_QUANT;
        for (int j = 0; j < i; j++)
            assert_string_not_equal(param->name, net->params[j].name);
        assert_memory_equal(param->name, net->nodes[param->node].name, strlen(net->nodes[param->node].name));
    }
    assert_int_equal(net->nvalues, offset);
}

#endif

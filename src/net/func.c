/* func: activation functions that are no clips. */
#include <math.h>

#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    if ((unsigned)node->u.func.kind > LB_FUNC_HARDSWISH || !isfinite(node->u.func.alpha) || !isfinite(node->u.func.beta))
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: function %d with parameters %g and %g", node->name, (int)node->u.func.kind,
                       (double)node->u.func.alpha, (double)node->u.func.beta);
    LB_TRY(lb_op_same_shape(net, node));
    if (!node->u.func.slopes)
        return LB_OK;
    if (node->u.func.kind != LB_FUNC_LEAKY)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: only a leaky function has slopes", node->name);
    return lb_net_add_param(net, node, "slope", LB_PARAM_SLOPE, 1, (int64_t[]){node->dst.c}, &node->param[0]);
}

static float clip01(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

float lb_func_value(const lb_node *node, float alpha, float x) {
    const float beta = node->u.func.beta;
    switch (node->u.func.kind) {
    case LB_FUNC_LEAKY: return x < 0 ? alpha * x : x;
    case LB_FUNC_SIGMOID: return 1 / (1 + expf(-x));
    case LB_FUNC_TANH: return tanhf(x);
    case LB_FUNC_HARDSIGMOID: return clip01(alpha * x + beta);
    case LB_FUNC_HARDSWISH: return x * clip01(x / 6 + 0.5f);
    }
    return x;
}

float lb_func_slope(const lb_node *node, float alpha, float x) {
    const float beta = node->u.func.beta;
    switch (node->u.func.kind) {
    case LB_FUNC_LEAKY: return x < 0 ? alpha : 1;
    case LB_FUNC_SIGMOID: {
        const float y = 1 / (1 + expf(-x));
        return y * (1 - y);
    }
    case LB_FUNC_TANH: {
        const float y = tanhf(x);
        return 1 - y * y;
    }
    case LB_FUNC_HARDSIGMOID: return alpha * x + beta > 0 && alpha * x + beta < 1 ? alpha : 0;
    case LB_FUNC_HARDSWISH: return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + 0.5f;
    }
    return 1;
}

const lb_op_desc lb_op_func = {"func", 1, infer, NULL};

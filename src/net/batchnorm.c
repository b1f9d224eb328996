/* batchnorm: per channel (Ioffe and Szegedy 2015), with PyTorch's names and its unbiased running variance. */
#include <math.h>

#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    if (node->u.bn.eps == 0)
        node->u.bn.eps = 1e-5f;
    if (node->u.bn.momentum == 0)
        node->u.bn.momentum = 0.1f;
    if (!(node->u.bn.eps > 0) || isinf(node->u.bn.eps) || !(node->u.bn.momentum > 0 && node->u.bn.momentum <= 1))
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: eps %g and momentum %g; eps must be above 0, momentum in (0, 1]", node->name,
                       (double)node->u.bn.eps, (double)node->u.bn.momentum);
    LB_TRY(lb_op_same_shape(net, node));

    static const struct {
        const char *suffix;
        lb_param_kind kind;
    } params[4] = {{"weight", LB_PARAM_BN_GAMMA},
                   {"bias", LB_PARAM_BN_BETA},
                   {"running_mean", LB_PARAM_BN_MEAN},
                   {"running_var", LB_PARAM_BN_VAR}};
    const int64_t dims[1] = {node->dst.c};
    for (int i = 0; i < 4; i++)
        LB_TRY(lb_net_add_param(net, node, params[i].suffix, params[i].kind, 1, dims, &node->param[i]));
    return LB_OK;
}

const lb_op_desc lb_op_batchnorm = {"batchnorm", 1, infer, NULL};

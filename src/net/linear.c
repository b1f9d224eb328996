/* linear: fully connected layer on a 1 x 1 x ic vector. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    lb_conv *conv = &node->u.conv;
    const lb_shape *src = lb_src_shape(net, node, 0);
    if (src->h != 1 || src->w != 1) {
        char shape[LB_SHAPE_TEXT];
        return lb_fail(net->ctx, LB_ERR_SHAPE,
                       "%s: %s gives %s, but a linear layer takes 1x1xC; put a flatten or a global pooling between", node->name,
                       lb_src_name(net, node, 0), lb_shape_text(src, shape));
    }
    if (conv->oc < 1)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: %d outputs; at least 1 is needed", node->name, conv->oc);
    LB_TRY(lb_op_set_dst(net, node, 1, 1, conv->oc));
    conv->kh = conv->kw = conv->sh = conv->sw = conv->groups = 1;

    const int64_t dims[2] = {conv->oc, src->c};
    LB_TRY(lb_net_add_param(net, node, "weight", LB_PARAM_WEIGHT, 2, dims, &node->param[0]));
    if (conv->bias)
        LB_TRY(lb_net_add_param(net, node, "bias", LB_PARAM_BIAS, 1, dims, &node->param[1]));
    return LB_OK;
}

static int64_t macs(const lb_net *net, const lb_node *node) { return (int64_t)net->params[node->param[0]].count; }

const lb_op_desc lb_op_linear = {"linear", 1, infer, macs};

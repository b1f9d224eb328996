/* conv: two-dimensional convolution (correlation), grouped, depthwise and dilated included. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    lb_conv *conv = &node->u.conv;
    const lb_shape *src = lb_src_shape(net, node, 0);
    conv->kw = conv->kw ? conv->kw : conv->kh;
    conv->sh = conv->sh ? conv->sh : 1;
    conv->sw = conv->sw ? conv->sw : conv->sh;
    conv->groups = conv->groups ? conv->groups : 1;

    /* As large as what the kernel spans; a kernel that is too large itself is lb_op_slide's to refuse. */
    const int64_t span_h = conv->kh + (conv->kh - 1LL) * conv->gap_h, span_w = conv->kw + (conv->kw - 1LL) * conv->gap_w;
    if (conv->gap_h < 0 || conv->gap_w < 0 || span_h > INT32_MAX || span_w > INT32_MAX)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: %d and %d pixels between the taps of its %dx%d kernel", node->name,
                       conv->gap_h, conv->gap_w, conv->kh, conv->kw);
    lb_window window = {(int)span_h, (int)span_w, conv->sh, conv->sw, conv->pt, conv->pl, conv->pb, conv->pr};
    int64_t oh, ow;
    LB_TRY(lb_op_slide(net, node, &window, &oh, &ow));
    if (conv->oc < 1)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: %d output channels; at least 1 is needed", node->name, conv->oc);
    if (conv->groups < 1 || src->c % conv->groups || conv->oc % conv->groups) {
        char shape[LB_SHAPE_TEXT];
        return lb_fail(net->ctx, LB_ERR_SHAPE,
                       "%s: %s gives %s, but %d groups must divide both its channels and the %d output channels", node->name,
                       lb_src_name(net, node, 0), lb_shape_text(src, shape), conv->groups, conv->oc);
    }
    LB_TRY(lb_op_set_dst(net, node, oh, ow, conv->oc));

    const int64_t dims[4] = {conv->oc, conv->kh, conv->kw, src->c / conv->groups};
    LB_TRY(lb_net_add_param(net, node, "weight", LB_PARAM_WEIGHT, 4, dims, &node->param[0]));
    if (conv->bias)
        LB_TRY(lb_net_add_param(net, node, "bias", LB_PARAM_BIAS, 1, dims, &node->param[1]));
    return LB_OK;
}

static int64_t macs(const lb_net *net, const lb_node *node) {
    return (int64_t)node->dst.h * node->dst.w * (int64_t)net->params[node->param[0]].count;
}

const lb_op_desc lb_op_conv = {"conv", 1, infer, macs};

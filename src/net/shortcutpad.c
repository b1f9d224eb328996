/* shortcutpad: the parameter-free residual shortcut (He et al. 2016, option A): every stride-th pixel, missing channels zero. The
 * zeros are appended; a network that puts half of them in front is the same up to the order of channels. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    const lb_shape *src = lb_src_shape(net, node, 0);
    int stride = node->u.shortcutpad.stride ? node->u.shortcutpad.stride : 1, oc = node->u.shortcutpad.oc;
    if (stride < 1 || stride > LB_MAX_EXTENT)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: stride %d must be at least 1", node->name, stride);
    if (oc < src->c) {
        char shape[LB_SHAPE_TEXT];
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: %s gives %s, which cannot be padded to %d channels", node->name,
                       lb_src_name(net, node, 0), lb_shape_text(src, shape), oc);
    }
    node->u.shortcutpad.stride = stride;
    return lb_op_set_dst(net, node, (src->h - 1) / stride + 1, (src->w - 1) / stride + 1, oc);
}

const lb_op_desc lb_op_shortcutpad = {"shortcutpad", 1, infer, NULL};

/* mul: the product of two tensors of one shape, or of an image and one number for each of its channels, as in
 * squeeze-and-excitation (Hu et al. 2018). */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    const lb_shape *a = lb_src_shape(net, node, 0), *b = lb_src_shape(net, node, 1);
    const bool same = a->h == b->h && a->w == b->w, one = b->h == 1 && b->w == 1;
    if (a->c != b->c || !(same || one)) {
        char ta[LB_SHAPE_TEXT], tb[LB_SHAPE_TEXT];
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: %s gives %s but %s gives %s", node->name, lb_src_name(net, node, 0),
                       lb_shape_text(a, ta), lb_src_name(net, node, 1), lb_shape_text(b, tb));
    }
    return lb_op_same_shape(net, node);
}

const lb_op_desc lb_op_mul = {"mul", 2, infer, NULL};

/* concat: the channels of several tensors side by side, in the order of the sources. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    const lb_shape *a = lb_src_shape(net, node, 0);
    int64_t c = a->c;
    for (int s = 1; s < node->nsrc; s++) {
        const lb_shape *b = lb_src_shape(net, node, s);
        if (a->h != b->h || a->w != b->w) {
            char ta[LB_SHAPE_TEXT], tb[LB_SHAPE_TEXT];
            return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: %s gives %s but %s gives %s", node->name, lb_src_name(net, node, 0),
                           lb_shape_text(a, ta), lb_src_name(net, node, s), lb_shape_text(b, tb));
        }
        c += b->c;
    }
    return lb_op_set_dst(net, node, a->h, a->w, c);
}

const lb_op_desc lb_op_concat = {"concat", LB_MAX_SRC, infer, NULL};

/* dropout: zeros with probability `ratio` and scales the rest up while training, nothing at evaluation. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    if (!(node->u.dropout.ratio >= 0 && node->u.dropout.ratio < 1))
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: dropout ratio %g must be in [0, 1)", node->name,
                       (double)node->u.dropout.ratio);
    return lb_op_same_shape(net, node);
}

const lb_op_desc lb_op_dropout = {"dropout", 1, infer, NULL};

/* act: activation functions, all of them clips; also where an activation's quantizer sits. */
#include <math.h>

#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    static const struct {
        float lo, hi;
    } range[] = {
        [LB_ACT_IDENTITY] = {-INFINITY, INFINITY},
        [LB_ACT_RELU] = {0, INFINITY},
        [LB_ACT_RELU6] = {0, 6},
        [LB_ACT_HARDTANH] = {-1, 1},
    };
    if ((unsigned)node->u.act.kind > LB_ACT_CLIP)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: activation kind %d is unknown", node->name, (int)node->u.act.kind);
    if (node->u.act.kind != LB_ACT_CLIP) {
        node->u.act.lo = range[node->u.act.kind].lo;
        node->u.act.hi = range[node->u.act.kind].hi;
    } else if (!(node->u.act.lo < node->u.act.hi)) {
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: clip to [%g, %g]; the first bound must be below the second", node->name,
                       (double)node->u.act.lo, (double)node->u.act.hi);
    }
    return lb_op_same_shape(net, node);
}

const lb_op_desc lb_op_act = {"act", 1, infer, NULL};

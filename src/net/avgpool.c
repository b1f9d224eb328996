/* avgpool: the mean of each window; padding counts as zeros. Global pooling is a window as large as the source. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    lb_pooling *pool = &node->u.pool;
    pool->kw = pool->kw ? pool->kw : pool->kh;
    pool->sh = pool->sh ? pool->sh : 1;
    pool->sw = pool->sw ? pool->sw : pool->sh;
    lb_window window = {pool->kh, pool->kw, pool->sh, pool->sw, pool->pt, pool->pl, pool->pb, pool->pr};
    int64_t oh, ow;
    LB_TRY(lb_op_slide(net, node, &window, &oh, &ow));
    return lb_op_set_dst(net, node, oh, ow, lb_src_shape(net, node, 0)->c);
}

const lb_op_desc lb_op_avgpool = {"avgpool", 1, infer, NULL};

/* flatten: h x w x c to 1 x 1 x (h w c), in NHWC order. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) {
    return lb_op_set_dst(net, node, 1, 1, (int64_t)lb_shape_count(lb_src_shape(net, node, 0)));
}

const lb_op_desc lb_op_flatten = {"flatten", 1, infer, NULL};

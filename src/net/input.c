/* input: the image, already normalised. */
#include "net/ops.h"

static lb_status infer(lb_net *net, lb_node *node) { return lb_op_set_dst(net, node, node->dst.h, node->dst.w, node->dst.c); }

const lb_op_desc lb_op_input = {"input", 0, infer, NULL};

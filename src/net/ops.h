/* For the operators' own files: the table's rows, and what their infer functions share. */
#ifndef LB_NET_OPS_H
#define LB_NET_OPS_H

#include "net/net.h"

#define LB_X(id, name) extern const lb_op_desc lb_op_##name;
LB_OPS(LB_X)
#undef LB_X

/* Largest kernel, stride, padding and channel count: keeps every sum of them inside an int. */
#define LB_MAX_EXTENT (1 << 28)

/* Most rows or columns of an image that can be moved by their numbers: as many as a packed model's have. */
#define LB_MAX_LINES 65535

/* Most channels of an image that is a network's input: as many as a packed model's may have. */
#define LB_MAX_IMAGE_CHANNELS (1 << 20)

/* Name of source i's layer. */
static inline const char *lb_src_name(const lb_net *net, const lb_node *node, int i) { return net->nodes[node->src[i]].name; }

/* Sets node->dst after checking that one image has less than 2^31 elements. */
lb_status lb_op_set_dst(lb_net *net, lb_node *node, int64_t h, int64_t w, int64_t c);

/* dst = src[0]'s shape. */
lb_status lb_op_same_shape(lb_net *net, lb_node *node);

/* A window moved over the source (convolution and pooling). */
typedef struct lb_window {
    int kh, kw, sh, sw, pt, pl, pb, pr;
} lb_window;

/* Checks the window's values and computes how often it fits; names both layers if it does not. */
lb_status lb_op_slide(lb_net *net, const lb_node *node, const lb_window *window, int64_t *oh, int64_t *ow);

/* The poolings: a window is square and has stride 1 unless it says otherwise; channels stay. */
lb_status lb_op_pool(lb_net *net, lb_node *node);

#endif

/* The builder functions of lowbit.h: one call of lb_net_append each. */
#include "net/ops.h"

int lb_net_input(const lb_net *net) { return net ? 0 : -1; }

int lb_net_conv2d(lb_net *net, int src, const char *name, int oc, int k, int stride, int pad, int groups, bool bias) {
    lb_node node = {.op = LB_OP_CONV, .name = name, .nsrc = 1, .src = {src}};
    node.u.conv = (lb_conv){.oc = oc,
                            .kh = k,
                            .kw = k,
                            .sh = stride,
                            .sw = stride,
                            .pt = pad,
                            .pl = pad,
                            .pb = pad,
                            .pr = pad,
                            .groups = groups,
                            .bias = bias};
    return lb_net_append(net, &node);
}

int lb_net_linear(lb_net *net, int src, const char *name, int oc, bool bias) {
    lb_node node = {.op = LB_OP_LINEAR, .name = name, .nsrc = 1, .src = {src}};
    node.u.conv = (lb_conv){.oc = oc, .bias = bias};
    return lb_net_append(net, &node);
}

int lb_net_batchnorm(lb_net *net, int src, const char *name, float eps, float momentum) {
    lb_node node = {.op = LB_OP_BATCHNORM, .name = name, .nsrc = 1, .src = {src}};
    node.u.bn.eps = eps;
    node.u.bn.momentum = momentum;
    return lb_net_append(net, &node);
}

static int act(lb_net *net, int src, const char *name, lb_act_kind kind, float lo, float hi) {
    lb_node node = {.op = LB_OP_ACT, .name = name, .nsrc = 1, .src = {src}};
    node.u.act.kind = kind;
    node.u.act.lo = lo;
    node.u.act.hi = hi;
    return lb_net_append(net, &node);
}

int lb_net_relu(lb_net *net, int src, const char *name) { return act(net, src, name, LB_ACT_RELU, 0, 0); }
int lb_net_relu6(lb_net *net, int src, const char *name) { return act(net, src, name, LB_ACT_RELU6, 0, 0); }
int lb_net_hardtanh(lb_net *net, int src, const char *name) { return act(net, src, name, LB_ACT_HARDTANH, 0, 0); }
int lb_net_clip(lb_net *net, int src, const char *name, float lo, float hi) { return act(net, src, name, LB_ACT_CLIP, lo, hi); }

int lb_net_add(lb_net *net, int src0, int src1, const char *name) {
    return lb_net_append(net, &(lb_node){.op = LB_OP_ADD, .name = name, .nsrc = 2, .src = {src0, src1}});
}

static int pool(lb_net *net, lb_op op, int src, const char *name, int kh, int kw, int stride, int pad) {
    lb_node node = {.op = op, .name = name, .nsrc = 1, .src = {src}};
    node.u.pool = (lb_pooling){kh, kw, stride, stride, pad, pad, pad, pad, false};
    return lb_net_append(net, &node);
}

int lb_net_maxpool(lb_net *net, int src, const char *name, int k, int stride, int pad) {
    return pool(net, LB_OP_MAXPOOL, src, name, k, k, stride, pad);
}

int lb_net_avgpool(lb_net *net, int src, const char *name, int k, int stride, int pad) {
    return pool(net, LB_OP_AVGPOOL, src, name, k, k, stride, pad);
}

int lb_net_globalpool(lb_net *net, int src, const char *name) {
    lb_shape shape = {1, 1, 1};
    if (net && src >= 0 && src < net->nnodes)
        shape = net->nodes[src].dst; /* else lb_net_append says so */
    return pool(net, LB_OP_AVGPOOL, src, name, shape.h, shape.w, 1, 0);
}

int lb_net_flatten(lb_net *net, int src, const char *name) {
    return lb_net_append(net, &(lb_node){.op = LB_OP_FLATTEN, .name = name, .nsrc = 1, .src = {src}});
}

int lb_net_dropout(lb_net *net, int src, const char *name, float ratio) {
    lb_node node = {.op = LB_OP_DROPOUT, .name = name, .nsrc = 1, .src = {src}};
    node.u.dropout.ratio = ratio;
    return lb_net_append(net, &node);
}

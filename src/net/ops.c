/* The table of operators, and what their infer functions share. */
#include <stdio.h>

#include "net/ops.h"

static const lb_op_desc *const table[LB_OP_COUNT] = {
#define LB_X(id, name) [LB_OP_##id] = &lb_op_##name,
    LB_OPS(LB_X)
#undef LB_X
};

const lb_op_desc *lb_op_info(lb_op op) { return (unsigned)op < LB_OP_COUNT ? table[op] : NULL; }

char *lb_shape_text(const lb_shape *shape, char text[LB_SHAPE_TEXT]) {
    snprintf(text, LB_SHAPE_TEXT, "%dx%dx%d", shape->h, shape->w, shape->c);
    return text;
}

lb_status lb_op_set_dst(lb_net *net, lb_node *node, int64_t h, int64_t w, int64_t c) {
    if (h < 1 || w < 1 || c < 1 || h > INT32_MAX || w > INT32_MAX || c > INT32_MAX || h * w > INT32_MAX / c)
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: its output would be %lldx%lldx%lld, more than 2^31 - 1 values for one image",
                       node->name, (long long)h, (long long)w, (long long)c);
    node->dst = (lb_shape){(int)h, (int)w, (int)c};
    return LB_OK;
}

lb_status lb_op_same_shape(lb_net *net, lb_node *node) {
    node->dst = *lb_src_shape(net, node, 0);
    return LB_OK;
}

lb_status lb_op_slide(lb_net *net, const lb_node *node, const lb_window *win, int64_t *oh, int64_t *ow) {
    char shape[LB_SHAPE_TEXT];
    const lb_shape *src = lb_src_shape(net, node, 0);
    if (win->kh < 1 || win->kw < 1 || win->sh < 1 || win->sw < 1 || win->kh > LB_MAX_EXTENT || win->kw > LB_MAX_EXTENT ||
        win->sh > LB_MAX_EXTENT || win->sw > LB_MAX_EXTENT)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: kernel %dx%d with stride %dx%d; both must be at least 1", node->name,
                       win->kh, win->kw, win->sh, win->sw);
    if (win->pt < 0 || win->pl < 0 || win->pb < 0 || win->pr < 0 || win->pt >= win->kh || win->pb >= win->kh ||
        win->pl >= win->kw || win->pr >= win->kw)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT,
                       "%s: padding %d %d %d %d (top, left, bottom, right) must be at least 0 and less than the "
                       "%dx%d kernel",
                       node->name, win->pt, win->pl, win->pb, win->pr, win->kh, win->kw);
    int64_t h = (int64_t)src->h + win->pt + win->pb - win->kh, w = (int64_t)src->w + win->pl + win->pr - win->kw;
    if (h < 0 || w < 0)
        return lb_fail(net->ctx, LB_ERR_SHAPE,
                       "%s: %s gives %s, too small for a %dx%d kernel with padding %d %d %d %d; use larger images or "
                       "less pooling",
                       node->name, lb_src_name(net, node, 0), lb_shape_text(src, shape), win->kh, win->kw, win->pt, win->pl,
                       win->pb, win->pr);
    *oh = h / win->sh + 1;
    *ow = w / win->sw + 1;
    return LB_OK;
}

lb_status lb_op_pool(lb_net *net, lb_node *node) {
    lb_pooling *pool = &node->u.pool;
    pool->kw = pool->kw ? pool->kw : pool->kh;
    pool->sh = pool->sh ? pool->sh : 1;
    pool->sw = pool->sw ? pool->sw : pool->sh;
    const lb_window window = {pool->kh, pool->kw, pool->sh, pool->sw, pool->pt, pool->pl, pool->pb, pool->pr};
    int64_t oh, ow;
    LB_TRY(lb_op_slide(net, node, &window, &oh, &ow));
    pool->inside &= pool->pt || pool->pl || pool->pb || pool->pr;
    if (pool->inside && (int64_t)pool->kh * pool->kw > LB_MAX_EXTENT)
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: averages over more than 2^28 pixels", node->name);
    return lb_op_set_dst(net, node, oh, ow, lb_src_shape(net, node, 0)->c);
}

/* shortcutpad: every stride-th pixel, or rows and columns by their numbers, with its channels in other places and zeros in between.
 * As the parameter-free residual shortcut (He et al. 2016, option A) missing channels are appended; a network that puts half of
 * them in front is the same up to the order of channels. Imported networks slice, pad and shuffle with it. */
#include "net/ops.h"

static bool inside(int first, int count, int all) { return first >= 0 && count >= 1 && first <= all - count; }

/* Takes over the parts: inside of both tensors, and no channel twice. */
static lb_status check_parts(lb_net *net, lb_node *node, int ic) {
    const int oc = node->u.shortcutpad.oc, n = node->u.shortcutpad.nparts;
    const lb_part whole = {0, 0, ic}, *given = node->u.shortcutpad.parts ? node->u.shortcutpad.parts : &whole;
    const int count = node->u.shortcutpad.parts ? n : 1;
    lb_part *parts = lb_pool_alloc(&net->pool, (size_t)LB_MAX(count, 1), sizeof *parts);
    unsigned char *seen = lb_alloc(net->ctx, (size_t)ic + (size_t)LB_MAX(oc, 0), 1);
    bool good = parts && seen && count >= 1;
    for (int p = 0; good && p < count; p++) {
        parts[p] = given[p];
        good = inside(given[p].src, given[p].count, ic) && inside(given[p].dst, given[p].count, oc);
        for (int c = 0; good && c < given[p].count; c++) {
            unsigned char *from = &seen[given[p].src + c], *to = &seen[ic + given[p].dst + c];
            good = !*from && !*to;
            *from = *to = 1;
        }
    }
    lb_free(net->ctx, seen);
    if (!parts || !seen)
        return LB_ERR_MEMORY;
    node->u.shortcutpad.parts = parts;
    node->u.shortcutpad.nparts = count;
    return good ? LB_OK
                : lb_fail(net->ctx, LB_ERR_SHAPE, "%s: its parts do not lie in the %d channels of %s and its own %d, or overlap",
                          node->name, ic, lb_src_name(net, node, 0), oc);
}

/* Takes over rows or columns, `count` of `all`; NULL: every stride-th. */
static lb_status take_lines(lb_net *net, lb_node *node, const int *given, int count, int all, int stride, const int **lines) {
    int *own = lb_pool_alloc(&net->pool, (size_t)LB_MAX(count, 0), sizeof *own);
    unsigned char *seen = lb_alloc(net->ctx, (size_t)all, 1);
    bool good = count >= 1;
    node->u.shortcutpad.strided &= count == (all - 1) / stride + 1;
    for (int i = 0; own && seen && good && i < count; i++) {
        own[i] = given ? given[i] : i * stride;
        good = own[i] >= -1 && own[i] < all;
        node->u.shortcutpad.strided &= own[i] == i * stride;
        if (!good || own[i] < 0)
            continue;
        node->u.shortcutpad.repeats |= seen[own[i]];
        seen[own[i]] = 1;
    }
    lb_free(net->ctx, seen);
    if (!own || !seen)
        return LB_ERR_MEMORY;
    *lines = own;
    return good ? LB_OK
                : lb_fail(net->ctx, LB_ERR_SHAPE, "%s: its %d rows or columns are not of the %d that %s gives", node->name, count,
                          all, lb_src_name(net, node, 0));
}

/* The stride that rows or columns by their numbers may have. */
static int stride_of(const lb_node *node) {
    const int *rows = node->u.shortcutpad.rows, *cols = node->u.shortcutpad.cols;
    const int second = node->u.shortcutpad.oh > 1 ? rows[1] : node->u.shortcutpad.ow > 1 ? cols[1] : 1;
    return LB_MAX(second, 1);
}

static lb_status infer(lb_net *net, lb_node *node) {
    const lb_shape *src = lb_src_shape(net, node, 0);
    int stride = node->u.shortcutpad.stride ? node->u.shortcutpad.stride : 1, oc = node->u.shortcutpad.oc;
    if (stride < 1 || stride > LB_MAX_EXTENT)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: stride %d must be at least 1", node->name, stride);
    if (oc < src->c && !node->u.shortcutpad.parts) {
        char shape[LB_SHAPE_TEXT];
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: %s gives %s, which cannot be padded to %d channels", node->name,
                       lb_src_name(net, node, 0), lb_shape_text(src, shape), oc);
    }
    LB_TRY(check_parts(net, node, src->c));
    if (src->h > LB_MAX_LINES || src->w > LB_MAX_LINES || node->u.shortcutpad.oh > LB_MAX_LINES ||
        node->u.shortcutpad.ow > LB_MAX_LINES)
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: more than %d rows or columns", node->name, LB_MAX_LINES);
    const bool placed = node->u.shortcutpad.rows && node->u.shortcutpad.cols;
    stride = placed ? stride_of(node) : stride;
    node->u.shortcutpad.stride = stride;
    const int oh = placed ? node->u.shortcutpad.oh : (src->h - 1) / stride + 1;
    const int ow = placed ? node->u.shortcutpad.ow : (src->w - 1) / stride + 1;
    LB_TRY(lb_op_set_dst(net, node, oh, ow, oc));
    node->u.shortcutpad.strided = true;
    node->u.shortcutpad.repeats = false;
    node->u.shortcutpad.oh = oh, node->u.shortcutpad.ow = ow;
    LB_TRY(take_lines(net, node, placed ? node->u.shortcutpad.rows : NULL, oh, src->h, stride, &node->u.shortcutpad.rows));
    return take_lines(net, node, placed ? node->u.shortcutpad.cols : NULL, ow, src->w, stride, &node->u.shortcutpad.cols);
}

const lb_op_desc lb_op_shortcutpad = {"shortcutpad", 1, infer, NULL};

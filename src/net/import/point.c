/* Activations and pooling. */
#include <float.h>
#include <math.h>

#include "net/import/internal.h"
#include "net/quantize.h"
#include "window.h"

/* A node of one source that keeps its shape, and with it the view. */
static lb_status append_like(lb_importer *im, const lb_view *src, lb_node node) {
    lb_view dst = *src;
    node.name = lb_import_name(im, NULL);
    node.nsrc = 1;
    node.src[0] = src->node;
    LB_TRY(lb_import_append(im, &node, &dst.node));
    return lb_import_set_view(im, &dst);
}

lb_status lb_import_clip(lb_importer *im, int i, float lo, float hi) {
    lb_view *src;
    LB_TRY(lb_import_view(im, i, &src));
    if (!(lo < hi))
        return lb_import_refuse(im, "clips to %g .. %g", (double)lo, (double)hi);
    lb_node node = {.op = LB_OP_ACT};
    if (lo <= -FLT_MAX && hi >= FLT_MAX)
        return lb_import_set_view(im, src);
    node.u.act.kind = lo == 0 && hi >= FLT_MAX ? LB_ACT_RELU : lo == 0 && hi == 6 ? LB_ACT_RELU6 : LB_ACT_CLIP;
    node.u.act.lo = lo <= -FLT_MAX ? -INFINITY : lo;
    node.u.act.hi = hi >= FLT_MAX ? INFINITY : hi;
    return append_like(im, src, node);
}

static lb_status read_relu(lb_importer *im) { return lb_import_clip(im, 0, 0, INFINITY); }

static lb_status read_clip(lb_importer *im) {
    float lo, hi;
    LB_TRY(lb_import_scalar(im, 1, "min", -INFINITY, &lo));
    LB_TRY(lb_import_scalar(im, 2, "max", INFINITY, &hi));
    lb_view *src;
    LB_TRY(lb_import_view(im, 0, &src));
    if (src->codes) /* their range goes with their rounding */
        return lb_import_set_view(im, src);
    return lb_import_clip(im, 0, lo, hi);
}

/* Max or Min of an image and a number. */
static lb_status read_bound(lb_importer *im, bool least) {
    const lb_tensor *first = lb_import_input(im, 0), *second = lb_import_input(im, 1);
    float bound;
    if (im->node->n_input != 2 || !first || !second || first->kind == second->kind)
        return lb_import_refuse(im, "only of an image and one number, as Clip is");
    const int which = second->kind == LB_TENSOR_CONSTANT;
    LB_TRY(lb_import_scalar(im, which, "", 0, &bound));
    return lb_import_clip(im, 1 - which, least ? bound : -INFINITY, least ? INFINITY : bound);
}

static lb_status read_max(lb_importer *im) { return read_bound(im, true); }
static lb_status read_min(lb_importer *im) { return read_bound(im, false); }

static lb_status append_func(lb_importer *im, lb_func_kind kind, float alpha, float beta) {
    lb_view *src;
    lb_node node = {.op = LB_OP_FUNC};
    LB_TRY(lb_import_view(im, 0, &src));
    node.u.func.kind = kind;
    node.u.func.alpha = alpha;
    node.u.func.beta = beta;
    return append_like(im, src, node);
}

static lb_status read_leaky(lb_importer *im) { return append_func(im, LB_FUNC_LEAKY, lb_import_real(im, "alpha", 0.01f), 0); }
static lb_status read_sigmoid(lb_importer *im) { return append_func(im, LB_FUNC_SIGMOID, 0, 0); }
static lb_status read_tanh(lb_importer *im) { return append_func(im, LB_FUNC_TANH, 0, 0); }
static lb_status read_hard_swish(lb_importer *im) { return append_func(im, LB_FUNC_HARDSWISH, 0, 0); }
static lb_status read_hard_sigmoid(lb_importer *im) {
    return append_func(im, LB_FUNC_HARDSIGMOID, lb_import_real(im, "alpha", 0.2f), lb_import_real(im, "beta", 0.5f));
}

static lb_status read_dropout(lb_importer *im) {
    lb_view *src;
    float ratio;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_scalar(im, 1, "ratio", 0.5f, &ratio));
    if (ratio == 0)
        return lb_import_set_view(im, src);
    lb_node node = {.op = LB_OP_DROPOUT};
    node.u.dropout.ratio = ratio;
    return append_like(im, src, node);
}

/* Does nothing come behind the current node but other names and shapes for its output? */
static bool is_last(const lb_importer *im) {
    static const char *const moves[] = {"Flatten", "Identity", "Reshape", "Squeeze"};
    bool behind = false, last = true;
    for (size_t i = 0; i < im->graph->n_node && last; i++) {
        const char *op = im->graph->node[i]->op_type;
        bool move = false;
        for (size_t k = 0; k < LB_COUNT(moves); k++)
            move |= op && !strcmp(op, moves[k]);
        last = !behind || !im->needed[i] || move;
        behind |= im->graph->node[i] == im->node;
    }
    return last;
}

/* The loss has it, and it changes no order of scores. */
static lb_status read_softmax(lb_importer *im) {
    lb_view *src;
    int axis;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_axis(im, lb_import_int(im, "axis", im->opset < 13 ? 1 : -1), src->ndim, &axis));
    if (!is_last(im) || axis != 1)
        return lb_import_refuse(im, "only over the classes at the network's end");
    lb_note(im->ctx, "%s: the %s at the end is left out: the loss has it, and the order of scores is the same", im->path,
            im->node->op_type);
    return lb_import_set_view(im, src);
}

/* ---- Pooling ---------------------------------------------------------------------------------------------------------- */

static lb_status append_pool(lb_importer *im, lb_op op, const lb_view *src, const lb_window *w, bool inside, int ndim,
                             lb_view *dst) {
    lb_node node = {.op = op, .name = lb_import_name(im, NULL), .nsrc = 1, .src = {src->node}};
    node.u.pool = (lb_pooling){w->kh, w->kw, w->sh, w->sw, w->pt, w->pl, w->pb, w->pr, inside};
    int index;
    LB_TRY(lb_import_append(im, &node, &index));
    lb_view_image(im, index, ndim, dst);
    return LB_OK;
}

/* The rows or columns that the taps of each window read, one window's after the other's; a tap outside reads what another one
 * does. */
static lb_status tap_lines(lb_importer *im, int all, int taps, int gap, int stride, int before, int after, int *count,
                           int **lines) {
    const int64_t room = (int64_t)all + before + after - taps - (int64_t)(taps - 1) * gap;
    if (room < 0)
        return lb_import_refuse(im, "its kernel is larger than the image");
    LB_TRY(lb_import_lines(im, (room / stride + 1) * taps, lines));
    *count = (int)(room / stride + 1) * taps;
    for (int i = 0; i < *count; i += taps) {
        const int at = i / taps * stride - before, first = lbrt_first_tap(at, gap, taps), end = lbrt_end_tap(at, gap, taps, all);
        if (first >= end)
            return lb_import_refuse(im, "a window of its kernel lies outside of the image");
        for (int k = 0; k < taps; k++)
            (*lines)[i + k] = at + LB_MIN(LB_MAX(k, first), end - 1) * (gap + 1);
    }
    return LB_OK;
}

/* A pool of taps with gaps is a plain one of the pixels that they read, put side by side. */
static lb_status spread_taps(lb_importer *im, lb_view *image, int kh, int kw, const int gap[2], lb_window *w) {
    const lb_shape s = im->net->nodes[image->node].dst;
    int oh, ow, *rows, *cols;
    LB_TRY(tap_lines(im, s.h, kh, gap[0], w->sh, w->pt, w->pb, &oh, &rows));
    LB_TRY(tap_lines(im, s.w, kw, gap[1], w->sw, w->pl, w->pr, &ow, &cols));
    LB_TRY(lb_import_place(im, image, lb_import_unique(im, "taps"), oh, rows, ow, cols));
    *w = (lb_window){.kh = kh, .kw = kw, .sh = kh, .sw = kw};
    return LB_OK;
}

/* The image of a pooling in the usual order, and its kernel. */
static lb_status read_kernel(lb_importer *im, lb_view *image, int64_t *kh, int64_t *kw) {
    size_t n;
    const int64_t *kernel = lb_import_ints(im, "kernel_shape", &n);
    LB_TRY(lb_import_image(im, image));
    if (n != (size_t)image->ndim - 2)
        return lb_import_damaged(im, "its kernel_shape has %zu entries for an image of %d dimensions", n, image->ndim);
    *kh = n == 2 ? kernel[0] : 1;
    *kw = kernel[n - 1];
    return LB_OK;
}

static lb_status read_max_pool(lb_importer *im) {
    lb_view *input, image, dst;
    lb_window w;
    int64_t kh = 1, kw = 1;
    int gap[2];
    bool harmless = true; /* zeros beside numbers from 0 on never win a maximum */
    LB_TRY(lb_import_padded_view(im, 0, &input));
    if (lb_view_padded(input) && !input->pads_lowest)
        LB_TRY(lb_net_nonnegative(im->net, input->node, &harmless));
    if (!harmless)
        LB_TRY(lb_import_settle(im, input));
    image = *input;
    LB_TRY(read_kernel(im, &image, &kh, &kw));
    if (lb_import_is_read(im, 1))
        return lb_import_refuse(im, "its second output is used");
    LB_TRY(lb_import_window(im, &image, kh, kw, &w, gap));
    lb_import_ceil(im, &image, &w);
    if (gap[0] || gap[1])
        LB_TRY(spread_taps(im, &image, (int)kh, (int)kw, gap, &w));
    LB_TRY(append_pool(im, LB_OP_MAXPOOL, &image, &w, false, image.ndim, &dst));
    return lb_import_set_view(im, &dst);
}

/* Of padding what is the node's own does not count unless it says so, what ceil_mode adds never; a Pad node's does. */
static lb_status read_average_pool(lb_importer *im) {
    lb_view *input, image, dst;
    lb_window w;
    int64_t kh = 1, kw = 1;
    LB_TRY(lb_import_padded_view(im, 0, &input));
    if (input->pads_lowest)
        LB_TRY(lb_import_settle(im, input));
    image = *input;
    LB_TRY(read_kernel(im, &image, &kh, &kw));
    LB_TRY(lb_import_window(im, &image, kh, kw, &w, NULL));
    lb_view counted = image;
    if (lb_import_int(im, "count_include_pad", 0))
        counted.pt = w.pt, counted.pl = w.pl, counted.pb = w.pb, counted.pr = w.pr;
    lb_import_ceil(im, &image, &w);
    const bool inside = w.pt != counted.pt || w.pl != counted.pl || w.pb != counted.pb || w.pr != counted.pr;
    if (inside && lb_view_padded(&counted)) { /* both kinds */
        w.pt -= counted.pt, w.pl -= counted.pl, w.pb -= counted.pb, w.pr -= counted.pr;
        LB_TRY(lb_import_settle(im, &counted));
        image = counted;
    }
    LB_TRY(append_pool(im, LB_OP_AVGPOOL, &image, &w, inside, image.ndim, &dst));
    return lb_import_set_view(im, &dst);
}

static lb_status pool_part(lb_importer *im, lb_op op, const lb_view *src, bool down, bool across, lb_view *dst) {
    lb_view image = *src;
    const int ndim = src->ndim;
    LB_TRY(lb_import_image(im, &image));
    const lb_shape *s = &im->net->nodes[image.node].dst;
    const lb_window w = {.kh = down ? s->h : 1, .kw = across ? s->w : 1, .sh = 1, .sw = 1};
    return append_pool(im, op, &image, &w, false, ndim, dst);
}

static lb_status read_global_average(lb_importer *im) {
    lb_view *src, dst;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(pool_part(im, LB_OP_AVGPOOL, src, true, true, &dst));
    return lb_import_set_view(im, &dst);
}

static lb_status read_global_max(lb_importer *im) {
    lb_view *src, dst;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(pool_part(im, LB_OP_MAXPOOL, src, true, true, &dst));
    return lb_import_set_view(im, &dst);
}

/* Are the dimensions in `over` all pixels and nothing else, in any order? */
static bool are_pixels(const lb_importer *im, const lb_view *v, const bool *over) {
    const lb_shape *s = &im->net->nodes[v->node].dst;
    int64_t pixels = 1;
    for (int i = 0; i < v->ndigits; i++) {
        const lb_digit *digit = &v->digit[i];
        if (!over[digit->dim] && digit->stride * digit->extent > s->c)
            return false;
        if (over[digit->dim] && digit->stride % s->c)
            return false;
        pixels *= over[digit->dim] ? digit->extent : 1;
    }
    return !over[v->batch_dim] && pixels == (int64_t)s->h * s->w;
}

/* The mean or maximum of all pixels, in a view of dimensions that may be others than an image's. */
static lb_status pool_all(lb_importer *im, lb_op op, const lb_view *src, const bool *over, lb_view *dst) {
    const lb_shape *s = &im->net->nodes[src->node].dst;
    lb_view image;
    lb_view_image(im, src->node, 4, &image);
    LB_TRY(append_pool(im, op, &image, &(lb_window){.kh = s->h, .kw = s->w, .sh = 1, .sw = 1}, false, 4, &image));
    *dst = *src;
    dst->node = image.node;
    dst->ndigits = 0;
    for (int i = 0; i < src->ndigits; i++)
        if (!over[src->digit[i].dim])
            dst->digit[dst->ndigits++] = src->digit[i];
    for (int d = 0; d < dst->ndim; d++)
        dst->dims[d] = over[d] ? 1 : dst->dims[d];
    return LB_OK;
}

/* Over height, width, or both; *pixels: as many as become one. */
static lb_status reduce(lb_importer *im, lb_op op, int64_t *pixels, lb_view *dst) {
    lb_view *src;
    const int64_t *axes;
    int64_t count, dims[LB_IMPORT_DIMS];
    int ndim = 0;
    bool last, over[LB_IMPORT_DIMS] = {false}, part[LB_IMPORT_DIMS] = {false};
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_list(im, 1, "axes", &axes, &count));
    *dst = *src;
    *pixels = 1;
    LB_TRY(lb_import_turn(im, dst, &last));
    for (int64_t i = 0; i < count; i++) {
        int axis;
        LB_TRY(lb_import_axis(im, axes[i], src->ndim, &axis));
        *pixels *= over[axis] ? 1 : src->dims[axis];
        over[axis] = true;
        part[lb_import_turned_axis(dst, last, axis)] = true;
    }
    if (count < 1 && lb_import_int(im, "noop_with_empty_axes", 0)) {
        *dst = *src;
        return LB_OK;
    }
    if (count > 0 && are_pixels(im, src, over)) {
        LB_TRY(pool_all(im, op, src, over, dst));
    } else if (count < 1 || dst->ndim < 3 || part[0] || part[1]) {
        return lb_import_refuse(im, part[1] && op == LB_OP_AVGPOOL
                                        ? "only over height and width; means over channels are of layer norm: use batch norm"
                                        : "only over height and width");
    } else {
        LB_TRY(pool_part(im, op, dst, dst->ndim == 4 && part[2], part[dst->ndim - 1], dst));
        LB_TRY(lb_import_turn_back(im, dst, last));
    }
    for (int d = 0; d < dst->ndim; d++)
        if (!over[d] || lb_import_int(im, "keepdims", 1))
            dims[ndim++] = dst->dims[d];
    return lb_view_reshape(im, dst, ndim, dims);
}

static lb_status read_pooled(lb_importer *im, lb_op op) {
    lb_view dst;
    int64_t pixels;
    LB_TRY(reduce(im, op, &pixels, &dst));
    return lb_import_set_view(im, &dst);
}

static lb_status read_mean(lb_importer *im) { return read_pooled(im, LB_OP_AVGPOOL); }
static lb_status read_most(lb_importer *im) { return read_pooled(im, LB_OP_MAXPOOL); }

/* The mean, times as many. */
static lb_status read_sum(lb_importer *im) {
    lb_view dst;
    int64_t pixels;
    LB_TRY(reduce(im, LB_OP_AVGPOOL, &pixels, &dst));
    if (pixels > 1)
        LB_TRY(lb_import_times(im, &dst, (float)pixels));
    return lb_import_set_view(im, &dst);
}

static const lb_import_op ops[] = {
    {"AveragePool", read_average_pool},
    {"Clip", read_clip},
    {"Dropout", read_dropout},
    {"GlobalAveragePool", read_global_average},
    {"GlobalMaxPool", read_global_max},
    {"HardSigmoid", read_hard_sigmoid},
    {"HardSwish", read_hard_swish},
    {"LeakyRelu", read_leaky},
    {"LogSoftmax", read_softmax},
    {"Max", read_max},
    {"MaxPool", read_max_pool},
    {"Min", read_min},
    {"ReduceMax", read_most},
    {"ReduceMean", read_mean},
    {"ReduceSum", read_sum},
    {"Relu", read_relu},
    {"Sigmoid", read_sigmoid},
    {"Softmax", read_softmax},
    {"Tanh", read_tanh},
};

lb_import_reader lb_import_point_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

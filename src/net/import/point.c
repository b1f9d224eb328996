/* Activations and pooling. */
#include <float.h>
#include <math.h>

#include "net/import/internal.h"
#include "net/quantize.h"

/* A node of one source that keeps its shape, and with it the view. */
static lb_status append_like(lb_importer *im, const lb_view *src, lb_node node) {
    lb_view dst = *src;
    node.name = lb_import_name(im, NULL);
    node.nsrc = 1;
    node.src[0] = src->node;
    LB_TRY(lb_import_append(im, &node, &dst.node));
    return lb_import_set_view(im, &dst);
}

lb_status lb_import_clip(lb_importer *im, float lo, float hi) {
    lb_view *src;
    LB_TRY(lb_import_view(im, 0, &src));
    lb_node node = {.op = LB_OP_ACT};
    if (lo <= -FLT_MAX && hi >= FLT_MAX)
        return lb_import_set_view(im, src);
    node.u.act.kind = lo == 0 && hi >= FLT_MAX ? LB_ACT_RELU : lo == 0 && hi == 6 ? LB_ACT_RELU6 : LB_ACT_CLIP;
    node.u.act.lo = lo <= -FLT_MAX ? -INFINITY : lo;
    node.u.act.hi = hi >= FLT_MAX ? INFINITY : hi;
    return append_like(im, src, node);
}

static lb_status read_relu(lb_importer *im) { return lb_import_clip(im, 0, INFINITY); }

static lb_status read_clip(lb_importer *im) {
    float lo, hi;
    LB_TRY(lb_import_scalar(im, 1, "min", -INFINITY, &lo));
    LB_TRY(lb_import_scalar(im, 2, "max", INFINITY, &hi));
    lb_view *src;
    LB_TRY(lb_import_view(im, 0, &src));
    if (src->codes) /* their range goes with their rounding */
        return lb_import_set_view(im, src);
    if (!(lo < hi))
        return lb_import_refuse(im, "clips to %g .. %g", (double)lo, (double)hi);
    return lb_import_clip(im, lo, hi);
}

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

/* The loss has it, and it changes no order of scores. */
static lb_status read_softmax(lb_importer *im) {
    lb_view *src;
    int axis;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_axis(im, lb_import_int(im, "axis", im->opset < 13 ? 1 : -1), src->ndim, &axis));
    if (strcmp(im->node->output[0], im->graph->output[0]->name) || axis != 1)
        return lb_import_refuse(im, "only over the classes at the network's end");
    lb_note(im->ctx, "%s: the %s at the end is left out: the loss has it, and the order of scores is the same", im->path,
            im->node->op_type);
    return lb_import_set_view(im, src);
}

/* ---- Pooling ---------------------------------------------------------------------------------------------------------- */

static lb_status append_pool(lb_importer *im, lb_op op, const lb_view *src, const lb_window *w, int ndim) {
    lb_node node = {.op = op, .name = lb_import_name(im, NULL), .nsrc = 1, .src = {src->node}};
    node.u.pool = (lb_pooling){w->kh, w->kw, w->sh, w->sw, w->pt, w->pl, w->pb, w->pr, false};
    lb_view dst;
    int index;
    LB_TRY(lb_import_append(im, &node, &index));
    lb_view_image(im, index, ndim, &dst);
    return lb_import_set_view(im, &dst);
}

static lb_status read_pool(lb_importer *im) {
    const bool max = !strcmp(im->node->op_type, "MaxPool");
    lb_view *input, image, bare;
    const lb_view *src = &image;
    lb_window w, alone;
    size_t n;
    const int64_t *kernel = lb_import_ints(im, "kernel_shape", &n);
    LB_TRY(lb_import_padded_view(im, 0, &input));
    image = *input;
    const bool padded = image.pt || image.pl || image.pb || image.pr;
    bool harmless = true; /* zeros beside numbers from 0 on never win a maximum */
    if (max && padded && !image.pads_lowest)
        LB_TRY(lb_net_nonnegative(im->net, image.node, &harmless));
    if (!harmless || (!max && image.pads_lowest))
        return lb_import_refuse(im,
                                "reads what a Pad node made; a maximum wants zeros beside an activation, or -infinity, an average "
                                "zeros");
    LB_TRY(lb_import_image(im, &image));
    if (n != (size_t)src->ndim - 2)
        return lb_import_damaged(im, "its kernel_shape has %zu entries for an image of %d dimensions", n, src->ndim);
    if (lb_import_is_read(im, 1))
        return lb_import_refuse(im, "its second output is used");
    LB_TRY(lb_import_window(im, src, n == 2 ? kernel[0] : 1, kernel[n - 1], &w, NULL));
    bare = *src;
    bare.pt = bare.pl = bare.pb = bare.pr = 0;
    LB_TRY(lb_import_window(im, &bare, n == 2 ? kernel[0] : 1, kernel[n - 1], &alone, NULL));
    const bool own = alone.pt || alone.pl || alone.pb || alone.pr;
    if (!max && own && (!lb_import_int(im, "count_include_pad", 0) || lb_import_int(im, "ceil_mode", 0)))
        return lb_import_refuse(im, "averages at the edge over fewer pixels; only padding that counts as zeros is read "
                                    "(count_include_pad, without ceil_mode)");
    return append_pool(im, max ? LB_OP_MAXPOOL : LB_OP_AVGPOOL, src, &w, src->ndim);
}

static lb_status pool_all(lb_importer *im, lb_op op, const lb_view *src, int ndim) {
    lb_view image = *src;
    LB_TRY(lb_import_image(im, &image));
    const lb_shape *s = &im->net->nodes[image.node].dst;
    return append_pool(im, op, &image, &(lb_window){.kh = s->h, .kw = s->w, .sh = 1, .sw = 1}, ndim);
}

static lb_status read_global_average(lb_importer *im) {
    lb_view *src;
    LB_TRY(lb_import_view(im, 0, &src));
    return pool_all(im, LB_OP_AVGPOOL, src, src->ndim);
}

static lb_status read_global_max(lb_importer *im) {
    lb_view *src;
    LB_TRY(lb_import_view(im, 0, &src));
    return pool_all(im, LB_OP_MAXPOOL, src, src->ndim);
}

/* Over height and width only. */
static lb_status read_mean(lb_importer *im) {
    lb_view *src;
    const int64_t *axes;
    int64_t count;
    bool over[LB_IMPORT_DIMS] = {false};
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_list(im, 1, "axes", &axes, &count));
    for (int64_t i = 0; i < count; i++) {
        int axis;
        LB_TRY(lb_import_axis(im, axes[i], src->ndim, &axis));
        over[axis] = true;
    }
    bool all = src->ndim > 2 && !over[0] && !over[1];
    for (int d = 2; d < src->ndim; d++)
        all &= over[d];
    if (!all)
        return lb_import_refuse(im, "only means over height and width are read");
    return pool_all(im, LB_OP_AVGPOOL, src, lb_import_int(im, "keepdims", 1) ? src->ndim : 2);
}

static const lb_import_op ops[] = {
    {"AveragePool", read_pool},
    {"Clip", read_clip},
    {"Dropout", read_dropout},
    {"GlobalAveragePool", read_global_average},
    {"GlobalMaxPool", read_global_max},
    {"HardSigmoid", read_hard_sigmoid},
    {"HardSwish", read_hard_swish},
    {"LeakyRelu", read_leaky},
    {"LogSoftmax", read_softmax},
    {"MaxPool", read_pool},
    {"ReduceMean", read_mean},
    {"Relu", read_relu},
    {"Sigmoid", read_sigmoid},
    {"Softmax", read_softmax},
    {"Tanh", read_tanh},
};

lb_import_reader lb_import_point_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

/* Convolutions and linear layers. */
#include "net/import/internal.h"

/* ---- Windows ---------------------------------------------------------------------------------------------------------- */

/* `count` whole numbers of 0 to LB_MAX_EXTENT, for height and width; for a signal (one dimension) what is missing is `fallback`. */
static lb_status read_pair(lb_importer *im, const char *name, int dims, int fallback, int *first, int *second) {
    size_t count;
    const int64_t *given = lb_import_ints(im, name, &count);
    int value[2] = {fallback, fallback};
    if (given && count != (size_t)dims)
        return lb_import_refuse(im, "%s has %zu entries; an image needs %d", name, count, dims);
    for (size_t i = 0; i < count; i++) {
        if (given[i] < 1 || given[i] > LB_MAX_EXTENT)
            return lb_import_refuse(im, "%s has the entry %lld", name, (long long)given[i]);
        value[2 - (size_t)dims + i] = (int)given[i];
    }
    *first = value[0];
    *second = value[1];
    return LB_OK;
}

/* Padding of one dimension for SAME_UPPER and SAME_LOWER: as many windows as strides fit. */
static void pad_same(int in, int k, int stride, bool upper, int *before, int *after) {
    const int64_t out = ((int64_t)in + stride - 1) / stride, all = LB_MAX((out - 1) * stride + k - in, 0);
    *before = (int)(upper ? all / 2 : all - all / 2);
    *after = (int)(all - *before);
}

/* ceil_mode: room for one more window that begins inside the image or the padding before it. */
static void round_up(int in, int k, int stride, int before, int *after) {
    const int64_t rest = (int64_t)in + before + *after - k;
    if (rest < 0 || rest % stride == 0)
        return;
    const int64_t begin = (rest / stride + 1) * stride; /* of the window that floor leaves out */
    if (begin < (int64_t)in + before)
        *after = (int)(begin + k - in - before);
}

/* Padding from pads or auto_pad, around the kernel's span. */
static lb_status read_pads(lb_importer *im, const lb_view *src, lb_window *w) {
    const lb_shape *s = &im->net->nodes[src->node].dst;
    const size_t dims = (size_t)src->ndim - 2;
    size_t count;
    const Lb__Onnx__AttributeProto *auto_pad = lb_import_attribute(im, "auto_pad");
    const bool upper = lb_import_is_text(auto_pad, "SAME_UPPER");
    const int64_t *pads = lb_import_ints(im, "pads", &count);
    if (upper || lb_import_is_text(auto_pad, "SAME_LOWER")) {
        pad_same(s->h, w->kh, w->sh, upper, &w->pt, &w->pb);
        pad_same(s->w, w->kw, w->sw, upper, &w->pl, &w->pr);
        return LB_OK;
    }
    if (!pads || lb_import_is_text(auto_pad, "VALID"))
        return LB_OK;
    if (count != 2 * dims)
        return lb_import_refuse(im, "pads has %zu entries; an image needs %zu", count, 2 * dims);
    for (size_t i = 0; i < count; i++)
        if (pads[i] < 0 || pads[i] > LB_MAX_EXTENT)
            return lb_import_refuse(im, "pads has the entry %lld", (long long)pads[i]);
    w->pt = dims == 2 ? (int)pads[0] : 0, w->pl = (int)pads[dims - 1];
    w->pb = dims == 2 ? (int)pads[2] : 0, w->pr = (int)pads[2 * dims - 1];
    return LB_OK;
}

lb_status lb_import_window(lb_importer *im, lb_view *src, int64_t kh, int64_t kw, lb_window *w, int gap[2]) {
    const int dims = src->ndim - 2;
    int dh, dw;
    if (kh < 1 || kw < 1 || kh > LB_MAX_EXTENT || kw > LB_MAX_EXTENT)
        return lb_import_refuse(im, "a kernel of %lld x %lld", (long long)kh, (long long)kw);
    *w = (lb_window){.kh = (int)kh, .kw = (int)kw};
    LB_TRY(read_pair(im, "strides", dims, 1, &w->sh, &w->sw));
    LB_TRY(read_pair(im, "dilations", dims, 1, &dh, &dw));
    if (dims == 1)
        w->sh = 1;
    dh = kh > 1 ? dh - 1 : 0;
    dw = kw > 1 ? dw - 1 : 0;
    if ((dh || dw) && !gap)
        return lb_import_refuse(im, "dilation; only convolutions and maximum pools may have gaps");
    if ((kh - 1) * (dh + 1LL) >= LB_MAX_EXTENT || (kw - 1) * (dw + 1LL) >= LB_MAX_EXTENT)
        return lb_import_refuse(im, "a kernel of %lld x %lld with gaps of %d x %d", (long long)kh, (long long)kw, dh, dw);
    w->kh += (w->kh - 1) * dh;
    w->kw += (w->kw - 1) * dw;
    if (gap)
        gap[0] = dh, gap[1] = dw;
    LB_TRY(read_pads(im, src, w));
    w->pt += src->pt, w->pl += src->pl, w->pb += src->pb, w->pr += src->pr;
    if (!lb_view_padded(src) || (LB_MAX(w->pt, w->pb) < w->kh && LB_MAX(w->pl, w->pr) < w->kw))
        return LB_OK;
    LB_TRY(lb_import_settle(im, src));
    return lb_import_window(im, src, kh, kw, w, gap);
}

void lb_import_ceil(lb_importer *im, const lb_view *src, lb_window *w) {
    const lb_shape *s = &im->net->nodes[src->node].dst;
    if (!lb_import_int(im, "ceil_mode", 0))
        return;
    round_up(s->h, w->kh, w->sh, w->pt, &w->pb);
    round_up(s->w, w->kw, w->sw, w->pl, &w->pr);
}

/* ---- Layers ----------------------------------------------------------------------------------------------------------- */

static const char *parameter_name(lb_importer *im, int i) {
    const lb_tensor *t = lb_import_input(im, i);
    return t ? t->name : NULL;
}

/* The bias of layer `index` from a constant of oc elements, or of one that is everybody's. */
static lb_status fill_bias(lb_importer *im, int index, const lb_constant *bias, float factor) {
    const lb_node *node = &im->net->nodes[index];
    return lb_import_fill(im, &(lb_import_values){.param = node->param[1],
                                                  .src = bias->f,
                                                  .rows = 1,
                                                  .cols = node->dst.c,
                                                  .col_stride = bias->count > 1,
                                                  .factor = factor});
}

static lb_status read_bias(lb_importer *im, int i, int64_t oc, const lb_constant **bias) {
    *bias = NULL;
    if (!lb_import_input(im, i))
        return LB_OK;
    LB_TRY(lb_import_constant(im, i, bias));
    if ((*bias)->whole || ((*bias)->count != oc && (*bias)->count != 1))
        return lb_import_refuse(im, "its bias has %lld elements for %lld channels", (long long)(*bias)->count, (long long)oc);
    return LB_OK;
}

/* Where weights (ic, area) go in (area, ic). */
static lb_status order_weights(lb_importer *im, int64_t ic, int64_t area, const int64_t **order) {
    LB_TRY(lb_import_charge(im, &im->budget, ic * area));
    int64_t *at = lb_pool_alloc(&im->pool, (size_t)(ic * area), sizeof *at);
    for (int64_t j = 0; at && j < ic * area; j++)
        at[j] = j % area * ic + j / area;
    *order = at;
    return at ? LB_OK : LB_ERR_MEMORY;
}

/* A convolution of an image in the usual order with weights (oc, ic / groups, kh, kw). */
static lb_status append_conv(lb_importer *im, const lb_view *src, const lb_constant *weights, int64_t groups, const lb_window *w,
                             const int gap[2]) {
    const int64_t *d = weights->dims, oc = d[0], ic = d[1], kh = src->ndim == 4 ? d[2] : 1, kw = d[src->ndim - 1];
    const lb_constant *bias;
    LB_TRY(read_bias(im, 2, oc, &bias));
    lb_node node = {.op = LB_OP_CONV, .name = lb_import_name(im, parameter_name(im, 1)), .nsrc = 1, .src = {src->node}};
    node.u.conv = (lb_conv){.oc = (int)oc,
                            .kh = (int)kh,
                            .kw = (int)kw,
                            .sh = w->sh,
                            .sw = w->sw,
                            .pt = w->pt,
                            .pl = w->pl,
                            .pb = w->pb,
                            .pr = w->pr,
                            .groups = (int)groups,
                            .gap_h = gap[0],
                            .gap_w = gap[1],
                            .bias = bias != NULL};
    int index;
    lb_view dst;
    LB_TRY(lb_import_append(im, &node, &index));
    const int64_t area = kh * kw, fan_in = ic * area, *order = NULL;
    if (weights->f)
        LB_TRY(order_weights(im, ic, area, &order));
    LB_TRY(lb_import_fill(im, &(lb_import_values){.param = im->net->nodes[index].param[0],
                                                  .src = weights->f,
                                                  .rows = oc,
                                                  .cols = fan_in,
                                                  .row_stride = fan_in,
                                                  .col_stride = 1,
                                                  .order = order,
                                                  .factor = 1}));
    if (bias)
        LB_TRY(fill_bias(im, index, bias, 1));
    lb_view_image(im, index, src->ndim, &dst);
    return lb_import_set_view(im, &dst);
}

/* Weights of a convolution over an image, from input 1; their second dimension, or of a transposed one the first, is the image's
 * channels, the other has those of the result, one of both in groups. */
static lb_status read_weights(lb_importer *im, const lb_view *src, const lb_constant **weights, int64_t *groups) {
    const bool transposed = !strcmp(im->node->op_type, "ConvTranspose");
    LB_TRY(lb_import_constant(im, 1, weights));
    const int64_t *d = (*weights)->dims, channels = im->net->nodes[src->node].dst.c;
    if ((*weights)->whole || (*weights)->ndim != src->ndim)
        return lb_import_refuse(im, "its weights have %d dimensions, its input %d", (*weights)->ndim, src->ndim);
    *groups = lb_import_int(im, "group", 1);
    const int64_t g = *groups, ic = transposed ? d[0] : d[1], oc = transposed ? d[1] : d[0];
    if ((*weights)->count < 1 || g < 1 || channels % g || ic != (transposed ? channels : channels / g) || oc > LB_MAX_EXTENT ||
        (transposed && oc > LB_MAX_EXTENT / g))
        return lb_import_damaged(im, "weights of %lld x %lld channels in %lld groups do not fit an input of %lld", (long long)oc,
                                 (long long)ic, (long long)g, (long long)channels);
    return LB_OK;
}

/* Weights (ic, oc / groups, kh, kw) as those of a convolution, (oc, ic / groups, kh, kw): mirrored in height and width. */
static lb_status turn_weights(lb_importer *im, const lb_constant *weights, int64_t groups, lb_constant *turned) {
    const int64_t ic = weights->dims[0] / groups, oc = weights->dims[1], area = weights->count / (weights->dims[0] * oc);
    int64_t dims[LB_IMPORT_DIMS];
    float *values;
    memcpy(dims, weights->dims, sizeof dims);
    dims[0] = groups * oc;
    dims[1] = ic;
    if (!weights->f) {
        *turned = *weights;
        memcpy(turned->dims, dims, sizeof dims);
        return LB_OK;
    }
    LB_TRY(lb_constant_real(im, weights->ndim, dims, turned, &values));
    for (int64_t k = 0; k < turned->count; k++) {
        const int64_t p = k % area, i = k / area % ic, o = k / area / ic % oc, g = k / area / ic / oc;
        values[k] = weights->f[((g * ic + i) * oc + o) * area + area - 1 - p];
    }
    return LB_OK;
}

/* Padding of a transposed convolution along one side, which takes away from its result, and what output_padding adds behind. */
typedef struct trim {
    int64_t before, after, extra;
} trim;

/* output_shape, and auto_pad, say the result's size `want` instead of the padding. */
static void trim_to(int64_t in, int64_t span, int64_t stride, int64_t want, bool upper, trim *t) {
    const int64_t over = (in - 1) * stride + t->extra + span - want, all = LB_MAX(over, 0);
    t->before = upper ? all / 2 : all - all / 2;
    t->after = all - t->before;
    t->extra += LB_MAX(-over, 0);
}

static lb_status read_trims(lb_importer *im, const lb_view *src, const lb_window *w, trim *down, trim *across) {
    const lb_shape *s = &im->net->nodes[src->node].dst;
    const size_t dims = (size_t)src->ndim - 2;
    size_t nextra, nshape;
    const int64_t *extra = lb_import_ints(im, "output_padding", &nextra), *shape = lb_import_ints(im, "output_shape", &nshape);
    const Lb__Onnx__AttributeProto *auto_pad = lb_import_attribute(im, "auto_pad");
    const bool upper = lb_import_is_text(auto_pad, "SAME_UPPER"), same = upper || lb_import_is_text(auto_pad, "SAME_LOWER");
    if ((extra && nextra != dims) || (shape && nshape != dims))
        return lb_import_refuse(im, "output_padding or output_shape with other than %zu entries", dims);
    *down = (trim){w->pt, w->pb, 0};
    *across = (trim){w->pl, w->pr, 0};
    trim *const trims[] = {down, across};
    for (size_t d = 0; d < dims; d++) {
        trim *t = trims[2 - dims + d];
        const bool high = t == down;
        const int64_t in = high ? s->h : s->w, span = high ? w->kh : w->kw, stride = high ? w->sh : w->sw;
        if (extra && (extra[d] < 0 || extra[d] > LB_MAX_LINES))
            return lb_import_refuse(im, "output_padding has the entry %lld", (long long)extra[d]);
        if (shape && (shape[d] < 1 || shape[d] > LB_MAX_LINES))
            return lb_import_refuse(im, "output_shape has the entry %lld", (long long)shape[d]);
        t->extra = extra ? extra[d] : 0;
        if (shape || same)
            trim_to(in, span, stride, shape ? shape[d] : in * stride, upper, t);
    }
    return LB_OK;
}

/* One side of a transposed convolution as that of a convolution: pixels `stride` apart with zeros in between, padded by what the
 * padding leaves of the kernel. What a convolution cannot pad becomes zeros in the image, what it would have to cut off is. */
static lb_status stuff_lines(lb_importer *im, int in, int span, int stride, const trim *t, int *count, int **lines, int *before,
                             int *after) {
    const int64_t first = span - 1 - t->before, last = span - 1 - t->after + t->extra;
    *before = (int)LB_MIN(LB_MAX(first, 0), span - 1);
    *after = (int)LB_MIN(LB_MAX(last, 0), span - 1);
    const int64_t from = *before - first, to = (in - 1LL) * stride + 1 + last - *after;
    LB_TRY(lb_import_lines(im, to - from, lines));
    *count = (int)(to - from);
    for (int i = 0; i < *count; i++) {
        const int64_t at = from + i;
        (*lines)[i] = at >= 0 && at % stride == 0 && at / stride < in ? (int)(at / stride) : -1;
    }
    return LB_OK;
}

/* The image and window of the convolution that a transposed one is. */
static lb_status turn_window(lb_importer *im, lb_view *image, lb_window *w) {
    const lb_shape s = im->net->nodes[image->node].dst;
    int oh, ow, *rows, *cols;
    trim down, across;
    LB_TRY(read_trims(im, image, w, &down, &across));
    LB_TRY(stuff_lines(im, s.h, w->kh, w->sh, &down, &oh, &rows, &w->pt, &w->pb));
    LB_TRY(stuff_lines(im, s.w, w->kw, w->sw, &across, &ow, &cols, &w->pl, &w->pr));
    w->sh = w->sw = 1;
    return lb_import_place(im, image, lb_import_unique(im, "spread"), oh, rows, ow, cols);
}

/* Conv, and ConvTranspose, which is one of its image with zeros between the pixels. */
static lb_status read_conv(lb_importer *im) {
    const bool transposed = !strcmp(im->node->op_type, "ConvTranspose");
    lb_view *input, image;
    const lb_constant *weights;
    lb_constant turned;
    int64_t groups = 1;
    lb_window w;
    int gap[2];
    LB_TRY((transposed ? lb_import_view : lb_import_padded_view)(im, 0, &input));
    image = *input;
    if (image.pads_lowest)
        return lb_import_refuse(im, "reads what a Pad node made of -infinity; only maximum pools can");
    LB_TRY(lb_import_image(im, &image));
    LB_TRY(read_weights(im, &image, &weights, &groups));
    const int64_t *d = weights->dims;
    LB_TRY(lb_import_window(im, &image, image.ndim == 4 ? d[2] : 1, d[image.ndim - 1], &w, gap));
    if (transposed) {
        LB_TRY(turn_window(im, &image, &w));
        LB_TRY(turn_weights(im, weights, groups, &turned));
        weights = &turned;
    }
    return append_conv(im, &image, weights, groups, &w, gap);
}

lb_status lb_import_flat(lb_importer *im, lb_view *v, bool values, const int64_t **order, bool *plain) {
    const lb_shape *s = &im->net->nodes[v->node].dst;
    lb_view same;
    *order = NULL;
    if (plain)
        *plain = false;
    if (v->ndim != 2 || v->batch_dim != 0)
        return lb_import_refuse(im, "its input has %d dimensions; only (batch, features) is read", v->ndim);
    if (s->h == 1 && s->w == 1) {
        lb_view_image(im, v->node, 2, &same);
        if (plain)
            *plain = lb_view_same(v, &same);
        if (lb_view_same(v, &same))
            return LB_OK;
    }
    if (values)
        LB_TRY(lb_view_order(im, v, order));
    if (s->h == 1 && s->w == 1)
        return LB_OK;
    const lb_node node = {.op = LB_OP_FLATTEN, .name = lb_import_unique(im, "flatten"), .nsrc = 1, .src = {v->node}};
    return lb_import_append(im, &node, &v->node);
}

/* MatMul over the channels of a view of more dimensions, however its pixels are arranged: a convolution of 1 x 1. */
static lb_status multiply_channels(lb_importer *im, const lb_view *src, const lb_constant *weights) {
    const int64_t ic = weights->dims[0], oc = weights->dims[1];
    lb_view dst = *src;
    int digits = 0;
    for (int i = 0; i < dst.ndigits; i++) {
        lb_digit *digit = &dst.digit[i];
        const bool channels = digit->dim == dst.ndim - 1;
        digits += channels;
        if (channels ? digit->stride != 1 || digit->extent != ic : digit->stride % ic != 0)
            return lb_import_refuse(im, "multiplies what is not the channels of an image");
        digit->extent = channels ? oc : digit->extent;
        digit->stride = channels ? 1 : digit->stride / ic * oc;
    }
    if (digits != 1 || im->net->nodes[src->node].dst.c != ic || oc < 2 || oc > LB_MAX_EXTENT || dst.batch_dim == dst.ndim - 1)
        return lb_import_refuse(im, "multiplies what is not the channels of an image");
    lb_node node = {.op = LB_OP_CONV, .name = lb_import_name(im, parameter_name(im, 1)), .nsrc = 1, .src = {src->node}};
    node.u.conv = (lb_conv){.oc = (int)oc, .kh = 1, .kw = 1};
    LB_TRY(lb_import_append(im, &node, &dst.node));
    dst.dims[dst.ndim - 1] = oc;
    LB_TRY(lb_import_fill(im, &(lb_import_values){.param = im->net->nodes[dst.node].param[0],
                                                  .src = weights->f,
                                                  .rows = oc,
                                                  .cols = ic,
                                                  .row_stride = 1,
                                                  .col_stride = oc,
                                                  .factor = 1}));
    return lb_import_set_view(im, &dst);
}

/* Gemm, and MatMul with weights (ic, oc). */
static lb_status read_linear(lb_importer *im) {
    const bool gemm = !strcmp(im->node->op_type, "Gemm");
    const bool swapped = gemm && lb_import_int(im, "transB", 0);
    const float alpha = gemm ? lb_import_real(im, "alpha", 1) : 1, beta = gemm ? lb_import_real(im, "beta", 1) : 1;
    lb_view *src, flat, dst;
    const lb_constant *weights, *bias = NULL;
    LB_TRY(lb_import_view(im, 0, &src));
    if (lb_import_input(im, 1) && lb_import_input(im, 1)->kind == LB_TENSOR_VIEW)
        return lb_import_refuse(im,
                                "multiplies '%.80s', which depends on the image, as attention does; only products with weights "
                                "are read",
                                lb_import_input(im, 1)->name);
    LB_TRY(lb_import_constant(im, 1, &weights));
    if (gemm && lb_import_int(im, "transA", 0))
        return lb_import_refuse(im, "transA is not read");
    if (weights->whole || weights->ndim != 2)
        return lb_import_refuse(im, "its weights have %d dimensions instead of 2", weights->ndim);
    const int64_t oc = weights->dims[swapped ? 0 : 1], ic = weights->dims[swapped ? 1 : 0];
    const int64_t *order;
    if (!gemm && src->ndim > 2 && weights->count > 0)
        return multiply_channels(im, src, weights);
    flat = *src;
    if (src->ndim == 2 && (src->dims[1] != ic || weights->count < 1 || oc > LB_MAX_EXTENT))
        return lb_import_damaged(im, "weights of %lld x %lld do not fit an input of %lld", (long long)ic, (long long)oc,
                                 (long long)src->dims[1]);
    LB_TRY(lb_import_flat(im, &flat, weights->f != NULL, &order, NULL));
    if (gemm)
        LB_TRY(read_bias(im, 2, oc, &bias));
    lb_node node = {.op = LB_OP_LINEAR, .name = lb_import_name(im, parameter_name(im, 1)), .nsrc = 1, .src = {flat.node}};
    node.u.conv = (lb_conv){.oc = (int)oc, .bias = bias != NULL};
    int index;
    LB_TRY(lb_import_append(im, &node, &index));
    LB_TRY(lb_import_fill(im, &(lb_import_values){.param = im->net->nodes[index].param[0],
                                                  .src = weights->f,
                                                  .rows = oc,
                                                  .cols = ic,
                                                  .row_stride = swapped ? ic : 1,
                                                  .col_stride = swapped ? 1 : oc,
                                                  .order = order,
                                                  .factor = alpha}));
    if (bias)
        LB_TRY(fill_bias(im, index, bias, beta));
    lb_view_image(im, index, 2, &dst);
    return lb_import_set_view(im, &dst);
}

static const lb_import_op ops[] = {
    {"Conv", read_conv}, {"ConvTranspose", read_conv}, {"Gemm", read_linear}, {"MatMul", read_linear}};

lb_import_reader lb_import_layer_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

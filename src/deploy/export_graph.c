/* The walk over a trained network that writes it as ONNX. Images are NCHW there and NHWC here: weights are transposed, and
 * where an image was flattened, everything that counts its elements is put into the other order. */
#include "deploy/export.h"

enum { FLOAT = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, INT64 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64 };

const char *lb_export_op(lb_exporting *e, const char *op, const char *output, int n, const char *const *inputs) {
    lb_onnx_node(e->b, op, output, n, inputs);
    return output;
}

static const char *vector(lb_exporting *e, const char *name, int type, int64_t count, const float *values) {
    return lb_onnx_tensor(e->b, name, type, 1, &count, values);
}

/* ---- Order of elements ----------------------------------------------------------------------------------------------- */

static bool reordered(const lb_onnx_value *v) { return v->flat && v->image.c > 1 && (int64_t)v->image.h * v->image.w > 1; }

/* A parameter per channel of v, (c), in ONNX's order, as `dims` says if not NULL: a vector otherwise. */
static const char *per_channel(lb_exporting *e, const lb_onnx_value *v, const char *name, const float *source, int64_t c,
                               bool as_image) {
    float *values = lb_pool_alloc(&e->b->pool, (size_t)c, sizeof *values);
    if (!values) {
        e->b->status = LB_ERR_MEMORY;
        return NULL;
    }
    for (int64_t k = 0; k < c; k++)
        values[k] = source[lb_onnx_place(v, k)];
    const int64_t dims[4] = {1, c, 1, 1};
    return lb_onnx_tensor(e->b, name, FLOAT, as_image ? 4 : 1, as_image ? dims : &dims[1], values);
}

/* v as (N, c). */
static lb_onnx_value flatten(lb_exporting *e, const char *name, lb_onnx_value v, const lb_shape *shape) {
    if (v.flat)
        return v;
    Lb__Onnx__NodeProto *node = lb_onnx_node(e->b, "Flatten", name, 1, &v.name);
    lb_onnx_int(e->b, node, "axis", 1);
    return (lb_onnx_value){.name = name, .flat = true, .image = *shape};
}

/* v, one pixel, as (N, c, 1, 1). */
static lb_onnx_value unflatten(lb_exporting *e, const char *name, lb_onnx_value v, int c) {
    if (!v.flat)
        return v;
    const float shape[] = {0, (float)c, 1, 1}; /* 0: as it was */
    const char *dims = vector(e, lb_onnx_name(e->b, "%s/shape", name), INT64, 4, shape);
    return (lb_onnx_value){.name = lb_export_op(e, "Reshape", name, 2, (const char *[]){v.name, dims})};
}

static lb_status refuse(lb_exporting *e, const lb_node *node, const char *why) {
    return lb_fail(e->b->pool.ctx, LB_ERR_UNSUPPORTED, "%s (%s): %s; it cannot be exported", node->name, lb_op_info(node->op)->name,
                   why);
}

/* ---- Operators ------------------------------------------------------------------------------------------------------- */

static lb_onnx_value export_input(lb_exporting *e, const lb_node *node) {
    const lb_shape *s = &node->dst;
    const int64_t dims[] = {0, s->c, s->h, s->w};
    const lb_onnx_value none = {0};
    lb_onnx_input(e->b, LB_EXPORT_INPUT, 4, dims);
    if (e->exact && e->n->pixels_direct)
        return (lb_onnx_value){.name = LB_EXPORT_INPUT};
    const char *scale = per_channel(e, &none, lb_export_part(e, node, "scale"), e->n->scale, s->c, true);
    const char *offset = per_channel(e, &none, lb_export_part(e, node, "offset"), e->n->offset, s->c, true);
    const char *scaled = lb_export_op(e, "Mul", lb_export_part(e, node, "scaled"), 2, (const char *[]){LB_EXPORT_INPUT, scale});
    return (lb_onnx_value){.name =
                               lb_export_op(e, "Add", lb_export_part(e, node, "normalised"), 2, (const char *[]){scaled, offset})};
}

/* order[k]: where element k of the transposed weights lies in (oc, kh, kw, ic / groups). Freed by the caller. */
static int64_t *weight_order(lb_exporting *e, const lb_node *node, const lb_onnx_value *src, bool matrix) {
    const lb_param *p = &e->net->params[node->param[0]];
    const int64_t fan_in = (int64_t)p->count / node->dst.c;
    int64_t *order = lb_alloc(e->b->pool.ctx, p->count, sizeof *order);
    if (!order) {
        e->b->status = LB_ERR_MEMORY;
        return NULL;
    }
    const int64_t kernel = matrix ? 1 : (int64_t)node->u.conv.kh * node->u.conv.kw, ic = fan_in / kernel;
    for (int64_t k = 0; k < (int64_t)p->count; k++) {
        if (matrix) /* (oc, ic) */
            order[k] = k / fan_in * fan_in + lb_onnx_place(src, k % fan_in);
        else /* (oc, ic / groups, kh, kw) */
            order[k] = k / fan_in * fan_in + k % kernel * ic + k % fan_in / kernel;
    }
    return order;
}

/* What follows the sums of node i. The bias is added apart: runtimes that see it in a convolution of codes round it to the
 * accumulator's step. */
static lb_onnx_value finish_sums(lb_exporting *e, int i, const char *sum, bool flat) {
    const lb_node *node = &e->net->nodes[i];
    lb_onnx_value v = {.name = sum, .flat = flat, .image = node->dst};
    if (e->exact)
        return lb_exact_affine(e, i, lb_export_name(e, node), v, node->dst.c);
    if (node->param[1] < 0)
        return v;
    const char *bias =
        per_channel(e, &v, lb_export_part(e, node, "bias"), lb_param_values(e->net, node->param[1]), node->dst.c, !flat);
    v.name = lb_export_op(e, "Add", lb_export_name(e, node), 2, (const char *[]){sum, bias});
    return v;
}

static const char *sums_name(lb_exporting *e, int i) {
    const lb_numeric *x = &e->n->nodes[i];
    const bool more = e->exact ? x->requant || x->scale : e->net->nodes[i].param[1] >= 0;
    return more ? lb_export_part(e, &e->net->nodes[i], "sums") : lb_export_name(e, &e->net->nodes[i]);
}

/* What node i multiplies: codes if it sums integers, else real numbers. */
static lb_onnx_value factors(lb_exporting *e, int i, lb_onnx_value src) {
    return e->exact && !e->n->nodes[i].integer ? lb_exact_to_float(e, i, 0, src) : src;
}

static lb_onnx_value export_linear(lb_exporting *e, int i, lb_onnx_value src) {
    const lb_node *node = &e->net->nodes[i];
    src = flatten(e, lb_export_part(e, node, "flat"), factors(e, i, src), lb_src_shape(e->net, node, 0));
    const int64_t oc = node->dst.c, dims[] = {oc, (int64_t)e->net->params[node->param[0]].count / oc};
    int64_t *order = weight_order(e, node, &src, true);
    const char *weights = order ? lb_export_weights(e, i, 2, dims, order) : NULL;
    lb_free(e->b->pool.ctx, order);
    const char *sums = sums_name(e, i);
    Lb__Onnx__NodeProto *gemm = lb_onnx_node(e->b, "Gemm", sums, 2, (const char *[]){src.name, weights});
    lb_onnx_int(e->b, gemm, "transB", 1);
    return finish_sums(e, i, sums, true);
}

static lb_status export_conv(lb_exporting *e, int i, lb_onnx_value src, lb_onnx_value *result) {
    const lb_node *node = &e->net->nodes[i];
    const lb_conv *c = &node->u.conv;
    if (src.flat && c->groups == 1 && node->dst.h == 1 && node->dst.w == 1 && c->kh == 1 && c->kw == 1) {
        *result = export_linear(e, i, src);
        return LB_OK;
    }
    if (reordered(&src))
        return refuse(e, node, "a convolution in groups behind flatten");
    src = unflatten(e, lb_export_part(e, node, "image"), factors(e, i, src), lb_src_shape(e->net, node, 0)->c);
    const int64_t ic = lb_src_shape(e->net, node, 0)->c / c->groups, dims[] = {c->oc, ic, c->kh, c->kw};
    int64_t *order = weight_order(e, node, &src, false);
    const char *weights = order ? lb_export_weights(e, i, 4, dims, order) : NULL;
    lb_free(e->b->pool.ctx, order);
    const char *sums = sums_name(e, i);
    Lb__Onnx__NodeProto *conv = lb_onnx_node(e->b, "Conv", sums, 2, (const char *[]){src.name, weights});
    lb_onnx_ints(e->b, conv, "kernel_shape", (int[]){c->kh, c->kw}, 2);
    lb_onnx_ints(e->b, conv, "strides", (int[]){c->sh, c->sw}, 2);
    lb_onnx_ints(e->b, conv, "pads", (int[]){c->pt, c->pl, c->pb, c->pr}, 4);
    lb_onnx_int(e->b, conv, "group", c->groups);
    if (c->gap_h || c->gap_w)
        lb_onnx_ints(e->b, conv, "dilations", (int[]){c->gap_h + 1, c->gap_w + 1}, 2);
    *result = finish_sums(e, i, sums, false);
    return LB_OK;
}

static lb_onnx_value export_batchnorm(lb_exporting *e, int i, lb_onnx_value src) {
    const lb_node *node = &e->net->nodes[i];
    if (e->exact)
        return lb_exact_affine(e, i, lb_export_name(e, node), src, node->dst.c);
    static const char *const names[] = {"gamma", "beta", "mean", "var"};
    const char *inputs[5] = {src.name};
    for (int p = 0; p < 4; p++)
        inputs[p + 1] = per_channel(e, &src, lb_onnx_name(e->b, "%s/%s", lb_export_name(e, node), names[p]),
                                    lb_param_values(e->net, node->param[p]), node->dst.c, false);
    Lb__Onnx__NodeProto *bn = lb_onnx_node(e->b, "BatchNormalization", lb_export_name(e, node), 5, inputs);
    lb_onnx_real(e->b, bn, "epsilon", node->u.bn.eps);
    src.name = lb_export_name(e, node);
    return src;
}

static lb_onnx_value export_act(lb_exporting *e, int i, lb_onnx_value src) {
    const lb_node *node = &e->net->nodes[i];
    if (e->exact)
        return lb_exact_act(e, i, src);
    if (e->n->nodes[i].quantized) {
        src.name = lb_export_act(e, i, src.name);
    } else if (node->u.act.kind == LB_ACT_RELU) {
        src.name = lb_export_op(e, "Relu", lb_export_name(e, node), 1, &src.name);
    } else if (node->u.act.kind != LB_ACT_IDENTITY) {
        const char *lo = lb_onnx_scalar(e->b, lb_export_part(e, node, "lo"), FLOAT, node->u.act.lo);
        const char *hi = lb_onnx_scalar(e->b, lb_export_part(e, node, "hi"), FLOAT, node->u.act.hi);
        src.name = lb_export_op(e, "Clip", lb_export_name(e, node), 3, (const char *[]){src.name, lo, hi});
    }
    return src;
}

static lb_status export_add(lb_exporting *e, int i, lb_onnx_value a, lb_onnx_value b, lb_onnx_value *result) {
    const lb_node *node = &e->net->nodes[i];
    const bool fixed = e->exact && e->n->nodes[i].kind == LB_NUM_FIXED;
    if (e->exact) {
        a = fixed ? lb_exact_to_fixed(e, i, 0, a) : lb_exact_to_float(e, i, 0, a);
        b = fixed ? lb_exact_to_fixed(e, i, 1, b) : lb_exact_to_float(e, i, 1, b);
    }
    if (a.flat != b.flat) {
        a = flatten(e, lb_export_part(e, node, "flat0"), a, lb_src_shape(e->net, node, 0));
        b = flatten(e, lb_export_part(e, node, "flat1"), b, lb_src_shape(e->net, node, 1));
    }
    const bool same = a.image.h == b.image.h && a.image.w == b.image.w && a.image.c == b.image.c;
    if (!same && (reordered(&a) || reordered(&b)))
        return refuse(e, node, "adds a flattened image to a vector");
    const char *sum = fixed ? lb_export_part(e, node, "sum") : lb_export_name(e, node);
    a.name = lb_export_op(e, "Add", sum, 2, (const char *[]){a.name, b.name});
    *result = fixed ? lb_exact_saturate(e, lb_export_name(e, node), a) : a;
    return LB_OK;
}

static lb_onnx_value pool(lb_exporting *e, const lb_node *node, const char *output, lb_onnx_value src) {
    const lb_pooling *p = &node->u.pool;
    const lb_shape *s = lb_src_shape(e->net, node, 0);
    src = unflatten(e, lb_export_part(e, node, "image"), src, s->c);
    const bool max = node->op == LB_OP_MAXPOOL, all = p->kh == s->h && p->kw == s->w && node->dst.h == 1 && node->dst.w == 1;
    if (!max && all && !(p->pt || p->pl || p->pb || p->pr)) {
        src.name = lb_export_op(e, "GlobalAveragePool", output, 1, &src.name);
        return src;
    }
    Lb__Onnx__NodeProto *pool = lb_onnx_node(e->b, max ? "MaxPool" : "AveragePool", output, 1, &src.name);
    lb_onnx_ints(e->b, pool, "kernel_shape", (int[]){p->kh, p->kw}, 2);
    lb_onnx_ints(e->b, pool, "strides", (int[]){p->sh, p->sw}, 2);
    lb_onnx_ints(e->b, pool, "pads", (int[]){p->pt, p->pl, p->pb, p->pr}, 4);
    if (!max)
        lb_onnx_int(e->b, pool, "count_include_pad", !p->inside);
    src.name = output;
    return src;
}

/* Averages of integers are their sums. */
static lb_onnx_value exact_sum(lb_exporting *e, const lb_node *node, lb_onnx_value v) {
    const lb_pooling *p = &node->u.pool;
    const char *name = lb_export_name(e, node);
    const char *area = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/area", name), FLOAT, (float)(p->kh * p->kw));
    v = pool(e, node, lb_onnx_name(e->b, "%s/mean", name), v);
    v.name = lb_export_op(e, "Mul", lb_onnx_name(e->b, "%s/sum", name), 2, (const char *[]){v.name, area});
    v.name = lb_export_op(e, "Round", name, 1, &v.name);
    return v;
}

static lb_onnx_value export_pool(lb_exporting *e, int i, lb_onnx_value src) {
    const lb_node *node = &e->net->nodes[i];
    const lb_numeric *x = &e->n->nodes[i];
    if (!e->exact || node->op == LB_OP_MAXPOOL || x->kind == LB_NUM_F32)
        return pool(e, node, lb_export_name(e, node), src);
    if (x->kind == LB_NUM_INT)
        return exact_sum(e, node, src);
    src = lb_exact_to_fixed(e, i, 0, src);
    return lb_exact_average(e, i, unflatten(e, lb_export_part(e, node, "image"), src, node->dst.c));
}

static const char *export_stride(lb_exporting *e, const lb_node *node, const char *src, const char *output) {
    const float starts[] = {0, 0}, ends[] = {0x1p30f, 0x1p30f}, axes[] = {2, 3};
    const float steps[] = {(float)node->u.shortcutpad.stride, (float)node->u.shortcutpad.stride};
    const char *inputs[] = {src, vector(e, lb_export_part(e, node, "starts"), INT64, 2, starts),
                            vector(e, lb_export_part(e, node, "ends"), INT64, 2, ends),
                            vector(e, lb_export_part(e, node, "axes"), INT64, 2, axes),
                            vector(e, lb_export_part(e, node, "steps"), INT64, 2, steps)};
    return lb_export_op(e, "Slice", output, 5, inputs);
}

/* Rows (axis 2) or columns (axis 3) by their numbers; those that are zeros come from one appended behind the last. */
static const char *export_lines(lb_exporting *e, const lb_node *node, const char *src, int axis, int all, const int *lines,
                                int count) {
    const char *what = axis == 2 ? "rows" : "cols";
    float *from = lb_pool_alloc(&e->b->pool, (size_t)count, sizeof *from);
    bool zeros = false;
    for (int i = 0; from && i < count; i++) {
        from[i] = (float)(lines[i] < 0 ? all : lines[i]);
        zeros |= lines[i] < 0;
    }
    if (!from)
        return src; /* the pool's failure is the file's */
    if (zeros) {
        const float pads[] = {0, 0, 0, 0, 0, 0, axis == 2, axis == 3};
        const char *amounts = vector(e, lb_onnx_name(e->b, "%s/%s_pads", lb_export_name(e, node), what), INT64, 8, pads);
        src = lb_export_op(e, "Pad", lb_onnx_name(e->b, "%s/%s_padded", lb_export_name(e, node), what), 2,
                           (const char *[]){src, amounts});
    }
    const char *output = lb_onnx_name(e->b, "%s/%s", lb_export_name(e, node), what);
    const char *inputs[] = {src, vector(e, lb_onnx_name(e->b, "%s/%s_numbers", lb_export_name(e, node), what), INT64, count, from)};
    lb_onnx_int(e->b, lb_onnx_node(e->b, "Gather", output, 2, inputs), "axis", axis);
    return output;
}

/* Channels from other places, without zeros between. */
static lb_status export_gather(lb_exporting *e, const lb_node *node, const char *src, lb_onnx_value *v) {
    const int oc = node->u.shortcutpad.oc;
    float *from = lb_pool_alloc(&e->b->pool, (size_t)oc, sizeof *from);
    int filled = 0;
    if (!from)
        return LB_ERR_MEMORY;
    for (int p = 0; p < node->u.shortcutpad.nparts; p++)
        for (int c = 0; c < node->u.shortcutpad.parts[p].count; c++, filled++)
            from[node->u.shortcutpad.parts[p].dst + c] = (float)(node->u.shortcutpad.parts[p].src + c);
    if (filled != oc)
        return refuse(e, node, "channels from other places with zeros between them");
    const char *inputs[] = {src, vector(e, lb_export_part(e, node, "channels"), INT64, oc, from)};
    Lb__Onnx__NodeProto *gather = lb_onnx_node(e->b, "Gather", lb_export_name(e, node), 2, inputs);
    lb_onnx_int(e->b, gather, "axis", 1);
    v->name = lb_export_name(e, node);
    return LB_OK;
}

static lb_status export_shortcutpad(lb_exporting *e, const lb_node *node, lb_onnx_value src, lb_onnx_value *v) {
    const int ic = lb_src_shape(e->net, node, 0)->c, stride = node->u.shortcutpad.stride;
    const lb_part *part = node->u.shortcutpad.parts;
    const bool whole = node->u.shortcutpad.nparts == 1 && part->src == 0 && part->count == ic, more = node->u.shortcutpad.oc != ic;
    src = unflatten(e, lb_export_part(e, node, "image"), src, ic);
    if (!node->u.shortcutpad.strided) {
        const lb_shape *s = lb_src_shape(e->net, node, 0);
        src.name = export_lines(e, node, src.name, 2, s->h, node->u.shortcutpad.rows, node->dst.h);
        src.name = export_lines(e, node, src.name, 3, s->w, node->u.shortcutpad.cols, node->dst.w);
    } else if (stride > 1)
        src.name = export_stride(e, node, src.name, more || !whole ? lb_export_part(e, node, "strided") : lb_export_name(e, node));
    *v = src;
    if (!whole)
        return export_gather(e, node, src.name, v);
    if (more) {
        const float pads[] = {0, (float)part->dst, 0, 0, 0, (float)(node->u.shortcutpad.oc - ic - part->dst), 0, 0};
        const char *amounts = vector(e, lb_export_part(e, node, "pads"), INT64, 8, pads);
        v->name = lb_export_op(e, "Pad", lb_export_name(e, node), 2, (const char *[]){src.name, amounts});
    }
    return LB_OK;
}

static lb_status export_func(lb_exporting *e, int i, lb_onnx_value src, lb_onnx_value *v) {
    static const char *const names[] = {"LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"};
    const lb_node *node = &e->net->nodes[i];
    const bool swish = node->u.func.kind == LB_FUNC_HARDSWISH; /* newer than the oldest opset that is written */
    if (e->exact && (node->u.func.kind == LB_FUNC_SIGMOID || node->u.func.kind == LB_FUNC_TANH))
        return refuse(e, node, "its fixed point takes 60 bits, which no operator of ONNX has exactly");
    if (e->exact && e->n->nodes[i].kind == LB_NUM_FIXED) {
        *v = lb_exact_func(e, i, src);
        return LB_OK;
    }
    *v = src;
    if (node->u.func.slopes) {
        const char *slopes =
            per_channel(e, &src, lb_export_part(e, node, "slope"), lb_param_values(e->net, node->param[0]), node->dst.c, !src.flat);
        v->name = lb_export_op(e, "PRelu", lb_export_name(e, node), 2, (const char *[]){src.name, slopes});
        return LB_OK;
    }
    const char *output = swish ? lb_export_part(e, node, "gate") : lb_export_name(e, node);
    Lb__Onnx__NodeProto *func = lb_onnx_node(e->b, names[swish ? LB_FUNC_HARDSIGMOID : node->u.func.kind], output, 1, &src.name);
    if (swish || node->u.func.kind == LB_FUNC_HARDSIGMOID || node->u.func.kind == LB_FUNC_LEAKY)
        lb_onnx_real(e->b, func, "alpha", swish ? 1.0f / 6 : node->u.func.alpha);
    if (swish || node->u.func.kind == LB_FUNC_HARDSIGMOID)
        lb_onnx_real(e->b, func, "beta", swish ? 0.5f : node->u.func.beta);
    v->name = swish ? lb_export_op(e, "Mul", lb_export_name(e, node), 2, (const char *[]){src.name, output}) : output;
    return LB_OK;
}

/* Source s of a node that takes images in one kind of number, as (N, c, h, w). */
static lb_onnx_value image_source(lb_exporting *e, int i, int s) {
    const lb_node *node = &e->net->nodes[i];
    lb_onnx_value v = e->values[node->src[s]];
    if (e->exact)
        v = e->n->nodes[i].kind == LB_NUM_FIXED ? lb_exact_to_fixed(e, i, s, v) : lb_exact_to_float(e, i, s, v);
    return unflatten(e, lb_onnx_name(e->b, "%s/image%d", lb_export_name(e, node), s), v, lb_src_shape(e->net, node, s)->c);
}

static lb_onnx_value export_mul(lb_exporting *e, int i) {
    const char *name = lb_export_name(e, &e->net->nodes[i]);
    lb_onnx_value a = image_source(e, i, 0);
    const lb_onnx_value b = image_source(e, i, 1);
    if (e->exact && e->n->nodes[i].kind == LB_NUM_FIXED)
        return lb_exact_product(e, name, a, b.name);
    a.name = lb_export_op(e, "Mul", name, 2, (const char *[]){a.name, b.name});
    return a;
}

static lb_onnx_value export_concat(lb_exporting *e, int i) {
    const lb_node *node = &e->net->nodes[i];
    const char *inputs[LB_MAX_SRC];
    lb_onnx_value v = {0};
    for (int s = 0; s < node->nsrc; s++) {
        v = image_source(e, i, s);
        inputs[s] = v.name;
    }
    Lb__Onnx__NodeProto *concat = lb_onnx_node(e->b, "Concat", lb_export_name(e, node), node->nsrc, inputs);
    lb_onnx_int(e->b, concat, "axis", 1);
    v.name = lb_export_name(e, node);
    return v;
}

static lb_status export_node(lb_exporting *e, int i, lb_onnx_value *v) {
    const lb_node *node = &e->net->nodes[i];
    const lb_onnx_value *src = node->nsrc > 0 ? &e->values[node->src[0]] : NULL;
    switch (node->op) {
    case LB_OP_INPUT: *v = export_input(e, node); return LB_OK;
    case LB_OP_CONV: return export_conv(e, i, *src, v);
    case LB_OP_LINEAR: *v = export_linear(e, i, *src); return LB_OK;
    case LB_OP_BATCHNORM: *v = export_batchnorm(e, i, *src); return LB_OK;
    case LB_OP_ACT: *v = export_act(e, i, *src); return LB_OK;
    case LB_OP_ADD: return export_add(e, i, *src, e->values[node->src[1]], v);
    case LB_OP_MAXPOOL:
    case LB_OP_AVGPOOL: *v = export_pool(e, i, *src); return LB_OK;
    case LB_OP_FLATTEN: *v = flatten(e, lb_export_name(e, node), *src, lb_src_shape(e->net, node, 0)); return LB_OK;
    case LB_OP_DROPOUT: *v = *src; return LB_OK;
    case LB_OP_SHORTCUTPAD: return export_shortcutpad(e, node, *src, v);
    case LB_OP_FUNC: return export_func(e, i, *src, v);
    case LB_OP_MUL: *v = export_mul(e, i); return LB_OK;
    case LB_OP_CONCAT: *v = export_concat(e, i); return LB_OK;
    case LB_OP_COUNT: break;
    }
    return refuse(e, node, "an operator without counterpart");
}

/* ---- The whole network ----------------------------------------------------------------------------------------------- */

/* The format's version that an opset came with: what readers check first. */
static int ir_version(int opset) {
    return opset >= 25 ? 13 : opset >= 23 ? 11 : opset >= 21 ? 10 : opset >= 19 ? 9 : opset >= 15 ? 8 : 7;
}

static lb_status export_all(lb_exporting *e) {
    lb_onnx_build *b = e->b;
    const lb_net *net = e->net;
    b->model.has_ir_version = 1;
    b->model.ir_version = ir_version(e->opset);
    lb_onnx_opset(b, "", e->opset);
    if (e->format == LB_ONNX_QONNX)
        lb_onnx_opset(b, "qonnx.custom_op.general", 1);
    for (int i = 0; i < net->nnodes; i++)
        if (i == 0 || e->n->nodes[i].live)
            LB_TRY(export_node(e, i, &e->values[i]));
    const lb_node *last = &net->nodes[net->nnodes - 1];
    lb_onnx_value scores = flatten(e, lb_export_part(e, last, "flat"), e->values[net->nnodes - 1], &last->dst);
    if (e->exact)
        scores = lb_exact_scores(e, scores);
    if (b->status == LB_OK)
        lb_onnx_output(b, scores.name, LB_EXPORT_OUTPUT, 2, (const int64_t[]){0, net->classes});
    return b->status;
}

lb_status lb_export_resolve(lb_ctx *ctx, const lb_export_options *options, lb_export_options *resolved) {
    enum { DEFAULT_QDQ = 21 };
    *resolved = options ? *options : (lb_export_options){0};
    if ((int)resolved->format < 0 || resolved->format >= LB_ONNX_FORMATS)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "export: format %d does not exist", (int)resolved->format);
    if (resolved->exact && resolved->format == LB_ONNX_QONNX)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "export: QONNX's operators do not compute in fixed point; exact needs another format");
    if (!resolved->opset)
        resolved->opset = resolved->format == LB_ONNX_QDQ ? DEFAULT_QDQ : LB_ONNX_OPSET_MIN; /* DequantizeLinear by channel */
    if (resolved->opset < LB_ONNX_OPSET_MIN || resolved->opset > LB_ONNX_OPSET_MAX)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "export: opset %d; %d to %d are written", resolved->opset, LB_ONNX_OPSET_MIN,
                       LB_ONNX_OPSET_MAX);
    return LB_OK;
}

lb_status lb_export_net(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], const lb_export_options *options,
                        lb_onnx_build *b) {
    lb_numerics *n;
    LB_TRY(b->status);
    LB_TRY(lb_numerics_create(ctx, net, mean, std, &n));
    lb_exporting e = {.b = b, .net = net, .n = n, .format = options->format, .opset = options->opset, .exact = options->exact};
    e.values = lb_alloc(ctx, (size_t)net->nnodes, sizeof *e.values);
    e.names = lb_alloc(ctx, (size_t)net->nnodes, sizeof *e.names);
    lb_status status = e.values && e.names ? lb_export_names(&e) : LB_ERR_MEMORY;
    if (status == LB_OK)
        status = export_all(&e);
    lb_free(ctx, e.names);
    lb_free(ctx, e.values);
    lb_numerics_destroy(n);
    return status;
}

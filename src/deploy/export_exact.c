/* The rules of net/numerics.h as ONNX operators: y = floor((x mul + add) / 2^shift) is Mul, Add and Floor in f64, which holds
 * every product below 2^53 exactly. */
#include <math.h>

#include "deploy/export.h"

enum {
    FLOAT = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
    DOUBLE = ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE,
    INT8 = ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
    UINT8 = ONNX__TENSOR_PROTO__DATA_TYPE__UINT8
};

static lb_onnx_value op1(lb_exporting *e, const char *op, const char *output, lb_onnx_value v) {
    v.name = lb_export_op(e, op, output, 1, &v.name);
    return v;
}
static lb_onnx_value op2(lb_exporting *e, const char *op, const char *output, lb_onnx_value v, const char *with) {
    v.name = lb_export_op(e, op, output, 2, (const char *[]){v.name, with});
    return v;
}

static lb_onnx_value cast(lb_exporting *e, const char *output, lb_onnx_value v, int type) {
    Onnx__NodeProto *node = lb_onnx_node(e->b, "Cast", output, 1, &v.name);
    lb_onnx_int(e->b, node, "to", type);
    v.name = output;
    return v;
}

static lb_onnx_value clip(lb_exporting *e, const char *output, lb_onnx_value v, double lo, double hi) {
    const char *low = lb_onnx_doubles(e->b, lb_onnx_name(e->b, "%s/lo", output), 0, NULL, &lo);
    const char *high = lb_onnx_doubles(e->b, lb_onnx_name(e->b, "%s/hi", output), 0, NULL, &hi);
    v.name = lb_export_op(e, "Clip", output, 3, (const char *[]){v.name, low, high});
    return v;
}

/* n numbers, repeated for all of v's c channels; one is enough if there is one. */
static const char *constants(lb_exporting *e, const char *name, const lb_onnx_value *v, const double *values, int n, int c,
                             int type) {
    if (n == 1)
        return type == DOUBLE ? lb_onnx_doubles(e->b, name, 0, NULL, values) : lb_onnx_scalar(e->b, name, FLOAT, (float)values[0]);
    const int64_t dims[4] = {1, c, 1, 1};
    double *all = lb_pool_alloc(&e->b->pool, (size_t)c, sizeof *all);
    float *floats = lb_pool_alloc(&e->b->pool, (size_t)c, sizeof *floats);
    if (!all || !floats) {
        e->b->status = LB_ERR_MEMORY;
        return NULL;
    }
    for (int64_t k = 0; k < c; k++)
        floats[k] = (float)(all[k] = values[lb_onnx_place(v, k) % n]);
    const int ndim = v->flat ? 2 : 4;
    return type == DOUBLE ? lb_onnx_doubles(e->b, name, ndim, dims, all) : lb_onnx_tensor(e->b, name, FLOAT, ndim, dims, floats);
}

/* v, f32 or f64, through n requants; f64. */
static lb_onnx_value apply(lb_exporting *e, const char *output, lb_onnx_value v, const lbrt_requant *r, int n, int c) {
    double *mul = lb_alloc(e->b->pool.ctx, (size_t)n, sizeof *mul), *add = lb_alloc(e->b->pool.ctx, (size_t)n, sizeof *add);
    if (!mul || !add)
        e->b->status = LB_ERR_MEMORY;
    for (int k = 0; mul && add && k < n; k++) {
        mul[k] = ldexp(r[k].mul, -r[k].shift);
        add[k] = ldexp((double)r[k].add, -r[k].shift);
    }
    if (mul && add) {
        const char *factor = constants(e, lb_onnx_name(e->b, "%s/mul", output), &v, mul, n, c, DOUBLE);
        const char *offset = constants(e, lb_onnx_name(e->b, "%s/add", output), &v, add, n, c, DOUBLE);
        v = cast(e, lb_onnx_name(e->b, "%s/f64", output), v, DOUBLE);
        v = op2(e, "Mul", lb_onnx_name(e->b, "%s/scaled", output), v, factor);
        v = op2(e, "Add", lb_onnx_name(e->b, "%s/sum", output), v, offset);
        v = op1(e, "Floor", output, v);
    }
    lb_free(e->b->pool.ctx, mul);
    lb_free(e->b->pool.ctx, add);
    return v;
}

lb_onnx_value lb_exact_saturate(lb_exporting *e, const char *output, lb_onnx_value v) {
    return clip(e, output, v, INT32_MIN, INT32_MAX);
}

lb_onnx_value lb_exact_affine(lb_exporting *e, int i, const char *output, lb_onnx_value v, int c) {
    const lb_numeric *x = &e->n->nodes[i];
    if (x->requant) {
        v = apply(e, lb_onnx_name(e->b, "%s/fixed", output), v, x->requant, x->affine_channels, c);
        return lb_exact_saturate(e, output, v);
    }
    if (!x->scale)
        return v;
    const char *names[2];
    for (int p = 0; p < 2; p++) {
        const float *from = p ? x->offset : x->scale;
        double *all = lb_pool_alloc(&e->b->pool, (size_t)x->affine_channels, sizeof *all);
        if (!all) {
            e->b->status = LB_ERR_MEMORY;
            return v;
        }
        for (int k = 0; k < x->affine_channels; k++)
            all[k] = (double)from[k];
        names[p] = constants(e, lb_onnx_name(e->b, p ? "%s/offset" : "%s/factor", output), &v, all, x->affine_channels, c, FLOAT);
    }
    v = op2(e, "Mul", lb_onnx_name(e->b, "%s/scaled", output), v, names[0]);
    return op2(e, "Add", output, v, names[1]);
}

lb_onnx_value lb_exact_to_float(lb_exporting *e, int i, int s, lb_onnx_value v) {
    const lb_node *node = &e->net->nodes[i];
    const lb_numeric *x = lb_numeric_src(e->n, node, s);
    const char *output = lb_onnx_name(e->b, "%s/float%d", node->name, s);
    if (x->kind == LB_NUM_F32)
        return v;
    if (x->kind == LB_NUM_FIXED) {
        const double step = 0x1p-16;
        v = cast(e, lb_onnx_name(e->b, "%s/f32", output), v, FLOAT);
        return op2(e, "Mul", output, v, constants(e, lb_onnx_name(e->b, "%s/step", output), &v, &step, 1, 1, FLOAT));
    }
    const char *step =
        constants(e, lb_onnx_name(e->b, "%s/step", output), &v, x->step, x->nsteps, lb_src_shape(e->net, node, s)->c, FLOAT);
    return op2(e, "Mul", output, v, step);
}

lb_onnx_value lb_exact_to_fixed(lb_exporting *e, int i, int s, lb_onnx_value v) {
    const lb_node *node = &e->net->nodes[i];
    const lb_numeric *x = lb_numeric_src(e->n, node, s);
    if (x->kind != LB_NUM_INT)
        return v;
    const char *output = lb_onnx_name(e->b, "%s/fixed%d", node->name, s);
    v = apply(e, lb_onnx_name(e->b, "%s/wide", output), v, x->to_fixed, x->nsteps, lb_src_shape(e->net, node, s)->c);
    return lb_exact_saturate(e, output, v);
}

/* Codes of FIXED, of F32 or of pixels, as f32. */
static lb_onnx_value codes(lb_exporting *e, const lb_node *node, const lb_numeric *x, lb_onnx_value v, bool is_float) {
    const char *name = node->name, *output = lb_onnx_name(e->b, "%s/codes", name);
    if (x->sign) {
        const double zero = 0;
        const char *limit = constants(e, lb_onnx_name(e->b, "%s/zero", name), &v, &zero, 1, 1, is_float ? FLOAT : DOUBLE);
        const char *one = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/one", name), FLOAT, 1);
        const char *minus = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/minus", name), FLOAT, -1);
        v = op2(e, "GreaterOrEqual", lb_onnx_name(e->b, "%s/positive", name), v, limit);
        v.name = lb_export_op(e, "Where", output, 3, (const char *[]){v.name, one, minus});
        return v;
    }
    if (is_float) {
        v = op2(e, "Mul", lb_onnx_name(e->b, "%s/scaled", name), v,
                lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/inverse_step", name), FLOAT, x->inv_step));
        v = op1(e, "Round", lb_onnx_name(e->b, "%s/rounded", name), v);
        v = cast(e, lb_onnx_name(e->b, "%s/wide", name), v, DOUBLE);
    } else {
        v = apply(e, lb_onnx_name(e->b, "%s/wide", name), v, x->from_pixels ? x->requant : &x->q,
                  x->from_pixels ? x->affine_channels : 1, node->dst.c);
    }
    v = clip(e, lb_onnx_name(e->b, "%s/clipped", name), v, x->qlo, x->qhi);
    return cast(e, output, v, FLOAT);
}

lb_onnx_value lb_exact_act(lb_exporting *e, int i, lb_onnx_value v) {
    const lb_node *node = &e->net->nodes[i];
    const lb_numeric *x = &e->n->nodes[i];
    const bool is_float = !x->from_pixels && lb_numeric_src(e->n, node, 0)->kind == LB_NUM_F32;
    if (!x->from_pixels && !is_float)
        v = lb_exact_to_fixed(e, i, 0, v);
    if (!x->quantized && is_float) {
        const char *lo = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/lo", node->name), FLOAT, x->flo);
        const char *hi = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/hi", node->name), FLOAT, x->fhi);
        v.name = lb_export_op(e, "Clip", node->name, 3, (const char *[]){v.name, lo, hi});
        return v;
    }
    if (!x->quantized)
        return clip(e, node->name, v, x->clo, x->chi);
    v = codes(e, node, x, v, is_float);
    if (e->format == LB_ONNX_FLOAT || x->qlo < -128 || x->qhi > (x->qlo < 0 ? 127 : 255))
        return v;
    const char *one = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/scale", node->name), FLOAT, 1);
    const char *zero = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/zero_point", node->name), x->qlo < 0 ? INT8 : UINT8, 0);
    const char *quantized = lb_onnx_name(e->b, "%s/quantized", node->name);
    v.name = lb_export_op(e, "QuantizeLinear", quantized, 3, (const char *[]){v.name, one, zero});
    v.name = lb_export_op(e, "DequantizeLinear", node->name, 3, (const char *[]){v.name, one, zero});
    return v;
}

lb_onnx_value lb_exact_scores(lb_exporting *e, lb_onnx_value v) {
    const int last = e->net->nnodes - 1;
    const lb_numeric *x = &e->n->nodes[e->n->nodes[last].tensor];
    const double step = 0x1p-16;
    if (x->kind == LB_NUM_F32)
        return v;
    if (x->kind == LB_NUM_INT)
        v = apply(e, "scores/fixed", v, x->to_fixed, x->nsteps, e->net->nodes[last].dst.c);
    v = op2(e, "Mul", "scores/real", v, constants(e, "scores/step", &v, &step, 1, 1, DOUBLE));
    return cast(e, "scores", v, FLOAT);
}

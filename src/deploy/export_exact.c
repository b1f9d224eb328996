/* The rules of net/numerics.h as ONNX operators: y = floor((x mul + add) / 2^shift) is Mul, Add and Floor in f64, which holds
 * every product below 2^53 exactly. */
#include <math.h>

#include "deploy/export.h"
#include "window.h"

enum {
    FLOAT = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
    DOUBLE = LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE,
    INT64 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64,
    INT8 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
    UINT8 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8
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
    Lb__Onnx__NodeProto *node = lb_onnx_node(e->b, "Cast", output, 1, &v.name);
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
    const char *output = lb_onnx_name(e->b, "%s/float%d", lb_export_name(e, node), s);
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
    const char *output = lb_onnx_name(e->b, "%s/fixed%d", lb_export_name(e, node), s);
    v = apply(e, lb_onnx_name(e->b, "%s/wide", output), v, x->to_fixed, x->nsteps, lb_src_shape(e->net, node, s)->c);
    return lb_exact_saturate(e, output, v);
}

/* ---- Averages of fixed point ------------------------------------------------------------------------------------------- */

/* One side of a pool's window, along an axis of v. */
typedef struct side {
    int axis, in, out, taps, stride, before, after;
} side;

/* The sum of each window of v along one side, f64: of all, or tap by tap, for runtimes pool only floats. */
static lb_onnx_value sum_side(lb_exporting *e, const char *name, lb_onnx_value v, const side *s) {
    const float axis[] = {(float)s->axis}, step[] = {(float)s->stride};
    const int64_t one = 1, eight = 8;
    const char *axes = lb_onnx_tensor(e->b, lb_onnx_name(e->b, "%s/axis", name), INT64, 1, &one, axis);
    if (s->taps == s->in && s->out == 1 && !s->before && !s->after)
        return op2(e, "ReduceSum", name, v, axes);
    if (s->before || s->after) {
        float pads[8] = {0};
        pads[s->axis] = (float)s->before;
        pads[4 + s->axis] = (float)s->after;
        const char *amounts = lb_onnx_tensor(e->b, lb_onnx_name(e->b, "%s/pads", name), INT64, 1, &eight, pads);
        v = op2(e, "Pad", lb_onnx_name(e->b, "%s/padded", name), v, amounts);
    }
    const char *steps = lb_onnx_tensor(e->b, lb_onnx_name(e->b, "%s/step", name), INT64, 1, &one, step);
    lb_onnx_value sum = v;
    for (int k = 0; k < s->taps; k++) {
        const char *tap = lb_onnx_name(e->b, "%s/tap%d", name, k);
        const float from[] = {(float)k}, to[] = {(float)(k + (s->out - 1) * s->stride + 1)};
        const char *first = lb_onnx_tensor(e->b, lb_onnx_name(e->b, "%s/first", tap), INT64, 1, &one, from);
        const char *end = lb_onnx_tensor(e->b, lb_onnx_name(e->b, "%s/end", tap), INT64, 1, &one, to);
        lb_export_op(e, "Slice", tap, 5, (const char *[]){v.name, first, end, axes, steps});
        if (k)
            sum = op2(e, "Add", k == s->taps - 1 ? name : lb_onnx_name(e->b, "%s/sum%d", name, k), sum, tap);
        else
            sum.name = tap;
    }
    return sum;
}

/* Taps of window `at` that lie in the image. */
static int inside(const side *s, int at) {
    const int first = at * s->stride - s->before;
    return lbrt_end_tap(first, 0, s->taps, s->in) - lbrt_first_tap(first, 0, s->taps);
}

/* lbrt_whole_window: floor((2 area sum + n) / 2 n), n the pixels of each window that lie in the image. */
static lb_onnx_value make_whole(lb_exporting *e, const char *name, lb_onnx_value v, const side *down, const side *across) {
    const int64_t dims[] = {1, 1, down->out, across->out};
    const double twice = 2.0 * down->taps * across->taps;
    double *n = lb_pool_alloc(&e->b->pool, (size_t)(dims[2] * dims[3]), sizeof *n);
    double *twice_n = lb_pool_alloc(&e->b->pool, (size_t)(dims[2] * dims[3]), sizeof *n);
    if (!n || !twice_n) {
        e->b->status = LB_ERR_MEMORY;
        return v;
    }
    for (int64_t k = 0; k < dims[2] * dims[3]; k++) {
        n[k] = inside(down, (int)(k / dims[3])) * inside(across, (int)(k % dims[3]));
        twice_n[k] = 2 * n[k];
    }
    const char *factor = constants(e, lb_onnx_name(e->b, "%s/twice_area", name), &v, &twice, 1, 1, DOUBLE);
    const char *half = lb_onnx_doubles(e->b, lb_onnx_name(e->b, "%s/pixels", name), 4, dims, n);
    const char *divisor = lb_onnx_doubles(e->b, lb_onnx_name(e->b, "%s/twice_pixels", name), 4, dims, twice_n);
    v = op2(e, "Mul", lb_onnx_name(e->b, "%s/scaled", name), v, factor);
    v = op2(e, "Add", lb_onnx_name(e->b, "%s/rounded", name), v, half);
    v = op2(e, "Div", lb_onnx_name(e->b, "%s/quotient", name), v, divisor);
    v = op1(e, "Floor", lb_onnx_name(e->b, "%s/floor", name), v);
    return lb_exact_saturate(e, name, v);
}

lb_onnx_value lb_exact_average(lb_exporting *e, int i, lb_onnx_value v) {
    const lb_node *node = &e->net->nodes[i];
    const lb_pooling *p = &node->u.pool;
    const lb_shape *s = lb_src_shape(e->net, node, 0);
    const side down = {2, s->h, node->dst.h, p->kh, p->sh, p->pt, p->pb};
    const side across = {3, s->w, node->dst.w, p->kw, p->sw, p->pl, p->pr};
    v = sum_side(e, lb_export_part(e, node, "down"), v, &down);
    v = sum_side(e, lb_export_part(e, node, "sum"), v, &across);
    v = lb_exact_saturate(e, lb_export_part(e, node, "saturated"), v);
    if (p->inside)
        v = make_whole(e, lb_export_part(e, node, "whole"), v, &down, &across);
    return lb_exact_affine(e, i, lb_export_name(e, node), v, node->dst.c);
}

/* ---- Functions and products -------------------------------------------------------------------------------------------- */

lb_onnx_value lb_exact_product(lb_exporting *e, const char *output, lb_onnx_value a, const char *b) {
    const double step = 0x1p-16, half = 0.5;
    const char *factor = constants(e, lb_onnx_name(e->b, "%s/unit", output), &a, &step, 1, 1, DOUBLE);
    const char *offset = constants(e, lb_onnx_name(e->b, "%s/half", output), &a, &half, 1, 1, DOUBLE);
    a = op2(e, "Mul", lb_onnx_name(e->b, "%s/product", output), a, b);
    a = op2(e, "Mul", lb_onnx_name(e->b, "%s/scaled", output), a, factor);
    a = op2(e, "Add", lb_onnx_name(e->b, "%s/sum", output), a, offset);
    return lb_exact_saturate(e, output, op1(e, "Floor", lb_onnx_name(e->b, "%s/floor", output), a));
}

lb_onnx_value lb_exact_func(lb_exporting *e, int i, lb_onnx_value v) {
    const lb_node *node = &e->net->nodes[i];
    const lb_numeric *x = &e->n->nodes[i];
    const char *name = lb_export_name(e, node), *line = lb_onnx_name(e->b, "%s/line", name);
    const bool leaky = node->u.func.kind == LB_FUNC_LEAKY, swish = node->u.func.kind == LB_FUNC_HARDSWISH;
    v = lb_exact_to_fixed(e, i, 0, v);
    lb_onnx_value y = leaky ? clip(e, lb_onnx_name(e->b, "%s/negative", name), v, INT32_MIN, 0) : v;
    y = apply(e, line, y, x->func, x->func_channels, node->dst.c);
    if (leaky) {
        y = lb_exact_saturate(e, lb_onnx_name(e->b, "%s/part", name), y);
        return lb_exact_saturate(e, name, op2(e, "Add", lb_onnx_name(e->b, "%s/whole", name), v, y.name));
    }
    y = clip(e, swish ? lb_onnx_name(e->b, "%s/gate", name) : name, y, 0, 1 << LBRT_FIX_BITS);
    return swish ? lb_exact_product(e, name, v, y.name) : y;
}

/* ---- Activations and scores --------------------------------------------------------------------------------------------- */

/* Codes of FIXED, of F32 or of pixels, as f32. */
static lb_onnx_value codes(lb_exporting *e, const lb_node *node, const lb_numeric *x, lb_onnx_value v, bool is_float) {
    const char *name = lb_export_name(e, node), *output = lb_onnx_name(e->b, "%s/codes", name);
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
        const char *lo = lb_onnx_scalar(e->b, lb_export_part(e, node, "lo"), FLOAT, x->flo);
        const char *hi = lb_onnx_scalar(e->b, lb_export_part(e, node, "hi"), FLOAT, x->fhi);
        v.name = lb_export_op(e, "Clip", lb_export_name(e, node), 3, (const char *[]){v.name, lo, hi});
        return v;
    }
    if (!x->quantized)
        return clip(e, lb_export_name(e, node), v, x->clo, x->chi);
    v = codes(e, node, x, v, is_float);
    if (e->format == LB_ONNX_FLOAT || x->qlo < -128 || x->qhi > (x->qlo < 0 ? 127 : 255))
        return v;
    const char *one = lb_onnx_scalar(e->b, lb_export_part(e, node, "scale"), FLOAT, 1);
    const char *zero = lb_onnx_scalar(e->b, lb_export_part(e, node, "zero_point"), x->qlo < 0 ? INT8 : UINT8, 0);
    const char *quantized = lb_export_part(e, node, "quantized");
    v.name = lb_export_op(e, "QuantizeLinear", quantized, 3, (const char *[]){v.name, one, zero});
    v.name = lb_export_op(e, "DequantizeLinear", lb_export_name(e, node), 3, (const char *[]){v.name, one, zero});
    return v;
}

lb_onnx_value lb_exact_scores(lb_exporting *e, lb_onnx_value v) {
    const int last = e->net->nnodes - 1;
    const lb_numeric *x = &e->n->nodes[e->n->nodes[last].tensor];
    const double step = 0x1p-16;
    if (x->kind == LB_NUM_F32)
        return v;
    const lb_node *node = &e->net->nodes[last];
    if (x->kind == LB_NUM_INT)
        v = apply(e, lb_export_part(e, node, "scores/fixed"), v, x->to_fixed, x->nsteps, node->dst.c);
    const char *unit = constants(e, lb_export_part(e, node, "scores/step"), &v, &step, 1, 1, DOUBLE);
    v = op2(e, "Mul", lb_export_part(e, node, "scores/real"), v, unit);
    return cast(e, lb_export_part(e, node, "scores"), v, FLOAT);
}

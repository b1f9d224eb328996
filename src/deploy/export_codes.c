/* Quantized tensors in each format. */
#include <math.h>

#include "deploy/export.h"

enum {
    FLOAT = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
    INT8 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
    UINT8 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8
};

static const char *node1(lb_exporting *e, const char *op, const char *output, const char *a) {
    lb_onnx_node(e->b, op, output, 1, &a);
    return output;
}
static const char *node2(lb_exporting *e, const char *op, const char *output, const char *a, const char *b) {
    lb_onnx_node(e->b, op, output, 2, (const char *[]){a, b});
    return output;
}
static const char *node3(lb_exporting *e, const char *op, const char *output, const char *a, const char *b, const char *c) {
    lb_onnx_node(e->b, op, output, 3, (const char *[]){a, b, c});
    return output;
}

/* min(max(from, lo), hi), in numbers of `type`. */
static const char *clip(lb_exporting *e, const char *output, const char *name, const char *from, int type, float lo, float hi) {
    const char *low = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/lo", name), type, lo);
    const char *high = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/hi", name), type, hi);
    return node3(e, "Clip", output, from, low, high);
}

/* QONNX's integers: all of lo..hi in the fewest bits. False if no number of bits has just that range. */
static bool integer_bits(int lo, int hi, int *bits, bool *is_signed, bool *narrow) {
    *is_signed = lo < 0;
    *narrow = false;
    for (*bits = 1; *bits < 32; ++*bits) {
        const int64_t top = ((int64_t)1 << (*bits - *is_signed)) - 1, bottom = *is_signed ? -top - 1 : 0;
        if (hi > top || lo < bottom)
            continue;
        *narrow = *is_signed && lo == -top;
        return hi == top && (lo == bottom || *narrow);
    }
    return false;
}

static const char *quant_node(lb_exporting *e, const char *output, const char *from, const char *scale, int lo, int hi) {
    int bits;
    bool is_signed, narrow;
    const bool whole = integer_bits(lo, hi, &bits, &is_signed, &narrow);
    const char *zero = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/zero_point", output), FLOAT, 0);
    const char *width = lb_onnx_scalar(e->b, lb_onnx_name(e->b, "%s/bits", output), FLOAT, (float)bits);
    const char *inputs[] = {from, scale, zero, width};
    if (!whole) {
        lb_fail(e->b->pool.ctx, LB_ERR_UNSUPPORTED, "%s: codes %d..%d are no range of QONNX; use another format", output, lo, hi);
        e->b->status = LB_ERR_UNSUPPORTED;
    }
    Lb__Onnx__NodeProto *node = lb_onnx_node(e->b, "Quant", output, 4, inputs);
    if (node)
        node->domain = (char *)lb_onnx_name(e->b, "qonnx.custom_op.general");
    lb_onnx_int(e->b, node, "signed", is_signed);
    lb_onnx_int(e->b, node, "narrow", narrow);
    lb_onnx_text(e->b, node, "rounding_mode", "ROUND");
    return output;
}

static const char *bipolar_node(lb_exporting *e, const char *output, const char *from, const char *scale) {
    Lb__Onnx__NodeProto *node = lb_onnx_node(e->b, "BipolarQuant", output, 2, (const char *[]){from, scale});
    if (node)
        node->domain = (char *)lb_onnx_name(e->b, "qonnx.custom_op.general");
    return output;
}

/* ---- Weights --------------------------------------------------------------------------------------------------------- */

/* The smallest type of the opset that holds lo..hi, or 0: more than 8 bits. */
static int weight_type(const lb_exporting *e, int lo, int hi) {
    const bool small = e->format == LB_ONNX_QDQ;
    if (small && e->opset >= 25 && lo >= -2 && hi <= 1)
        return LB_ONNX_INT2;
    if (small && e->opset >= 21 && lo >= -8 && hi <= 7)
        return LB_ONNX_INT4;
    return lo >= -128 && hi <= 127 ? INT8 : 0;
}

/* One step if all are equal, else one per output channel, the first dimension of weights with `ndim`. Exact arithmetic wants
 * codes: the step is 1. */
static const char *steps(lb_exporting *e, const char *name, const float *step, int oc, float factor, int ndim) {
    const int64_t dims[4] = {oc, 1, 1, 1};
    float *values = lb_pool_alloc(&e->b->pool, (size_t)oc, sizeof *values);
    bool one = true;
    for (int o = 0; values && o < oc; o++) {
        values[o] = (e->exact ? 1 : step[o]) * factor;
        one = one && values[o] == values[0];
    }
    if (!values)
        e->b->status = LB_ERR_MEMORY;
    if (!values || one)
        return values ? lb_onnx_scalar(e->b, name, FLOAT, values[0]) : NULL;
    return lb_onnx_tensor(e->b, name, FLOAT, ndim, dims, values);
}

/* Integers and DequantizeLinear. Codes that leave 8 bits are the odd ones of -255 .. 255: code = 2 u + 1, u in INT8, becomes
 * (2 step) u + step. (From 0 .. 255 the offset would be -255 steps, whose rounding every weight would share.) */
static const char *dequantized(lb_exporting *e, const lb_node *node, const lb_numeric *x, int ndim, const int64_t *dims,
                               float *codes) {
    lb_onnx_build *b = e->b;
    const lb_grid *grid = &node->quant->grid;
    const char *name = lb_export_name(e, node);
    int type = weight_type(e, grid->lo, grid->hi);
    const bool shifted = !type;
    if (shifted) {
        type = INT8;
        const size_t count = e->net->params[node->param[0]].count;
        if (grid->mul != 2 || grid->lo < -255 || grid->hi > 255)
            b->status = lb_fail(b->pool.ctx, LB_ERR_UNSUPPORTED, "%s: weight codes %d..%d do not fit 8 bits; use the format float",
                                name, grid->lo, grid->hi);
        for (size_t k = 0; k < count; k++)
            codes[k] = (codes[k] - 1) / 2;
    }
    const char *scale = steps(e, lb_onnx_name(b, "%s/weight_scale", name), x->weight_step, node->dst.c, shifted ? 2 : 1, 1);
    const char *from = lb_onnx_tensor(b, lb_onnx_name(b, "%s/weight_codes", name), type, ndim, dims, codes);
    const bool narrow = grid->lo > -128 || grid->hi < 127;
    if (e->format == LB_ONNX_QCDQ && !shifted && narrow)
        from = clip(e, lb_onnx_name(b, "%s/weight_clipped", name), lb_onnx_name(b, "%s/weight", name), from, INT8, (float)grid->lo,
                    (float)grid->hi);
    const char *result = lb_onnx_name(b, shifted ? "%s/weight_shifted" : "%s/weight", name);
    Lb__Onnx__NodeProto *dq = lb_onnx_node(b, "DequantizeLinear", result, 2, (const char *[]){from, scale});
    lb_onnx_int(b, dq, "axis", 0);
    if (!shifted)
        return result;
    const char *offset = steps(e, lb_onnx_name(b, "%s/weight_offset", name), x->weight_step, node->dst.c, 1, ndim);
    return node2(e, "Add", lb_onnx_name(b, "%s/weight", name), result, offset);
}

/* Weights as their values on the grid, which QONNX's operators quantize once more, to the same. */
static const char *as_floats(lb_exporting *e, const lb_node *node, const lb_numeric *x, int ndim, const int64_t *dims,
                             const float *values) {
    lb_onnx_build *b = e->b;
    const lb_grid *grid = x->code ? &node->quant->grid : NULL;
    const char *name = lb_export_part(e, node, "weight");
    if (!grid || e->format == LB_ONNX_FLOAT)
        return lb_onnx_tensor(b, name, FLOAT, ndim, dims, values);
    const char *raw = lb_onnx_tensor(b, lb_export_part(e, node, "weight_values"), FLOAT, ndim, dims, values);
    const char *scale = steps(e, lb_export_part(e, node, "weight_scale"), x->weight_step, node->dst.c, 1, ndim);
    if (grid->bits == 1)
        return bipolar_node(e, name, raw, scale);
    return quant_node(e, name, raw, scale, grid->lo, grid->hi);
}

const char *lb_export_weights(lb_exporting *e, int i, int ndim, const int64_t *dims, const int64_t *order) {
    const lb_node *node = &e->net->nodes[i];
    const lb_numeric *x = &e->n->nodes[i];
    const size_t count = e->net->params[node->param[0]].count, per_channel = count / (size_t)node->dst.c;
    const float *source = x->code ? x->code : lb_param_values(e->net, node->param[0]);
    const bool integers = x->code && (e->format == LB_ONNX_QDQ || e->format == LB_ONNX_QCDQ);
    float *values = lb_alloc(e->b->pool.ctx, count, sizeof *values);
    if (!values) {
        e->b->status = LB_ERR_MEMORY;
        return NULL;
    }
    for (size_t k = 0; k < count; k++) {
        const size_t from = (size_t)order[k];
        values[k] = x->code && !integers && !e->exact ? source[from] * x->weight_step[from / per_channel] : source[from];
    }
    const char *name = integers ? dequantized(e, node, x, ndim, dims, values) : as_floats(e, node, x, ndim, dims, values);
    lb_free(e->b->pool.ctx, values);
    return name;
}

/* ---- Activations ----------------------------------------------------------------------------------------------------- */

const char *lb_export_act(lb_exporting *e, int i, const char *from) {
    lb_onnx_build *b = e->b;
    const char *name = lb_export_name(e, &e->net->nodes[i]);
    const lb_numeric *x = &e->n->nodes[i];
    const float step = (float)x->step[0], lo = (float)x->qlo, hi = (float)x->qhi;
    const char *scale = lb_onnx_scalar(b, lb_onnx_name(b, "%s/scale", name), FLOAT, step);
    if (e->format == LB_ONNX_QONNX)
        return x->sign ? bipolar_node(e, name, from, scale) : quant_node(e, name, from, scale, x->qlo, x->qhi);
    const bool as_float = e->format == LB_ONNX_FLOAT;
    if (x->sign) { /* a rounding to -1, 1 would have 0 in between */
        const char *zero = lb_onnx_scalar(b, lb_onnx_name(b, "%s/zero", name), FLOAT, 0);
        const char *minus = lb_onnx_scalar(b, lb_onnx_name(b, "%s/minus", name), FLOAT, -step);
        const char *positive = node2(e, "GreaterOrEqual", lb_onnx_name(b, "%s/positive", name), from, zero);
        from = node3(e, "Where", as_float ? name : lb_onnx_name(b, "%s/sign", name), positive, scale, minus);
        if (as_float)
            return from;
    } else if (as_float) {
        from = node1(e, "Round", lb_onnx_name(b, "%s/rounded", name),
                     node2(e, "Div", lb_onnx_name(b, "%s/scaled", name), from, scale));
        return node2(e, "Mul", name, clip(e, lb_onnx_name(b, "%s/codes", name), name, from, FLOAT, lo, hi), scale);
    }
    const int type = x->qlo < 0 ? INT8 : UINT8;
    const float least = type == INT8 ? -128 : 0, most = type == INT8 ? 127 : 255;
    const bool narrow = !x->sign && (lo > least || hi < most);
    if (lo < least || hi > most) {
        b->status = lb_fail(b->pool.ctx, LB_ERR_UNSUPPORTED, "%s: codes %d..%d take more than 8 bits; use the format float", name,
                            x->qlo, x->qhi);
        return NULL;
    }
    if (narrow && e->format == LB_ONNX_QDQ)
        from = clip(e, lb_onnx_name(b, "%s/clipped", name), name, from, FLOAT, lo * step, hi * step);
    const char *zero = lb_onnx_scalar(b, lb_onnx_name(b, "%s/zero_point", name), type, 0);
    from = node3(e, "QuantizeLinear", lb_onnx_name(b, "%s/quantized", name), from, scale, zero);
    if (narrow && e->format == LB_ONNX_QCDQ)
        from = clip(e, lb_onnx_name(b, "%s/clipped", name), name, from, type, lo, hi);
    return node3(e, "DequantizeLinear", name, from, scale, zero);
}

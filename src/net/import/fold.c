/* What does not depend on the image: constants, shapes, and what is computed from them. */
#include <math.h>

#include "net/import/internal.h"

/* ---- Constants and shapes --------------------------------------------------------------------------------------------- */

static lb_status fold_constant(lb_importer *im) {
    const Lb__Onnx__AttributeProto *a = im->node->n_attribute == 1 ? im->node->attribute[0] : NULL;
    const char *name = a && a->name ? a->name : "";
    lb_constant c;
    int64_t *whole = NULL;
    float *real = NULL;
    if (!strcmp(name, "value") && a->t) {
        LB_TRY(lb_import_tensor(im, "its value", a->t, &c));
    } else if (!strcmp(name, "value_int") || !strcmp(name, "value_ints")) {
        const bool one = !strcmp(name, "value_int");
        LB_TRY(lb_constant_whole(im, one ? 0 : 1, (int64_t[]){(int64_t)a->n_ints}, &c, &whole));
        if (c.count)
            memcpy(whole, one ? &a->i : a->ints, (size_t)c.count * sizeof *whole);
    } else if (!strcmp(name, "value_float") || !strcmp(name, "value_floats")) {
        const bool one = !strcmp(name, "value_float");
        LB_TRY(lb_constant_real(im, one ? 0 : 1, (int64_t[]){(int64_t)a->n_floats}, &c, &real));
        if (c.count)
            memcpy(real, one ? &a->f : a->floats, (size_t)c.count * sizeof *real);
    } else {
        return lb_import_refuse(im, "its value is no tensor of numbers");
    }
    return lb_import_set_constant(im, &c);
}

static lb_status fold_shape(lb_importer *im) {
    lb_tensor *t = lb_import_input(im, 0);
    if (!t || t->kind == LB_TENSOR_NONE)
        return lb_import_damaged(im, "its input 0 is missing");
    const bool view = t->kind == LB_TENSOR_VIEW;
    if (view)
        LB_TRY(lb_import_settle(im, &t->view));
    const int ndim = view ? t->view.ndim : t->constant.ndim;
    const int64_t *dims = view ? t->view.dims : t->constant.dims;
    int64_t from = lb_import_int(im, "start", 0), to = lb_import_int(im, "end", ndim); /* opset 15 */
    from = LB_MIN(LB_MAX(from < 0 ? from + ndim : from, 0), ndim);
    to = LB_MIN(LB_MAX(to < 0 ? to + ndim : to, from), ndim);
    lb_constant c;
    int64_t *values;
    LB_TRY(lb_constant_whole(im, 1, (int64_t[]){to - from}, &c, &values));
    memcpy(values, dims + from, (size_t)(to - from) * sizeof *values);
    return lb_import_set_constant(im, &c);
}

static lb_status fold_filled(lb_importer *im) { /* ConstantOfShape */
    const lb_constant *shape;
    LB_TRY(lb_import_constant(im, 0, &shape));
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, "value");
    lb_constant value = {.count = 1}, c;
    if (a && a->t)
        LB_TRY(lb_import_tensor(im, "its value", a->t, &value));
    if (!shape->whole || shape->count > LB_IMPORT_DIMS || value.count != 1)
        return lb_import_damaged(im, "its shape is no list of up to %d whole numbers, or its value no single one", LB_IMPORT_DIMS);
    int64_t *whole = NULL;
    float *real = NULL;
    if (value.whole)
        LB_TRY(lb_constant_whole(im, (int)shape->count, shape->i, &c, &whole));
    else
        LB_TRY(lb_constant_real(im, (int)shape->count, shape->i, &c, &real));
    for (int64_t k = 0; k < c.count; k++) {
        if (whole)
            whole[k] = value.i[0];
        else
            real[k] = value.f ? value.f[0] : 0;
    }
    return lb_import_set_constant(im, &c);
}

/* ---- Moving elements -------------------------------------------------------------------------------------------------- */

/* dst of `ndim` dims with dst[index] = src[start + sum of index * stride]. */
static lb_status rearrange(lb_importer *im, const lb_constant *src, int ndim, const int64_t *dims, int64_t start,
                           const int64_t *stride, lb_constant *dst) {
    int64_t *whole = NULL, index[LB_IMPORT_DIMS] = {0}, at = start;
    float *real = NULL;
    if (src->whole) {
        LB_TRY(lb_constant_whole(im, ndim, dims, dst, &whole));
    } else if (src->f) {
        LB_TRY(lb_constant_real(im, ndim, dims, dst, &real));
    } else {
        *dst = (lb_constant){.weight = true, .ndim = ndim};
        memcpy(dst->dims, dims, (size_t)ndim * sizeof *dims);
        return lb_import_count(im, "its output", ndim, dims, &dst->count);
    }
    dst->weight = src->weight;
    for (int64_t k = 0; k < dst->count; k++) {
        if (whole)
            whole[k] = src->i[at];
        else
            real[k] = src->f[at];
        for (int d = ndim - 1; d >= 0; d--) {
            at += stride[d];
            if (++index[d] < dims[d])
                break;
            at -= stride[d] * dims[d];
            index[d] = 0;
        }
    }
    return LB_OK;
}

static void strides_of(const lb_constant *c, int64_t *stride) {
    int64_t step = 1;
    for (int d = c->ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= c->dims[d];
    }
}

static lb_status fold_transpose(lb_importer *im) {
    const lb_constant *src;
    lb_constant dst;
    int64_t perm[LB_IMPORT_DIMS], stride[LB_IMPORT_DIMS], dims[LB_IMPORT_DIMS], steps[LB_IMPORT_DIMS];
    LB_TRY(lb_import_constant(im, 0, &src));
    LB_TRY(lb_import_perm(im, src->ndim, perm));
    strides_of(src, stride);
    for (int d = 0; d < src->ndim; d++) {
        dims[d] = src->dims[perm[d]];
        steps[d] = stride[perm[d]];
    }
    LB_TRY(rearrange(im, src, src->ndim, dims, 0, steps, &dst));
    return lb_import_set_constant(im, &dst);
}

static lb_status fold_reshape(lb_importer *im) {
    const lb_constant *src;
    LB_TRY(lb_import_constant(im, 0, &src));
    lb_constant dst = *src;
    LB_TRY(lb_import_new_dims(im, src->ndim, src->dims, -1, &dst.ndim, dst.dims));
    return lb_import_set_constant(im, &dst);
}

static lb_status fold_identity(lb_importer *im) {
    const lb_constant *src;
    LB_TRY(lb_import_constant(im, 0, &src));
    return lb_import_set_constant(im, src);
}

static lb_status fold_gather(lb_importer *im) {
    const lb_constant *src, *at;
    lb_constant dst;
    int axis;
    LB_TRY(lb_import_constant(im, 0, &src));
    LB_TRY(lb_import_constant(im, 1, &at));
    LB_TRY(lb_import_axis(im, lb_import_int(im, "axis", 0), src->ndim, &axis));
    if (!src->whole || src->ndim != 1 || !at->whole || at->ndim > 1)
        return lb_import_refuse(im, "only a list of whole numbers can be gathered from");
    int64_t *values;
    LB_TRY(lb_constant_whole(im, at->ndim, at->dims, &dst, &values));
    for (int64_t k = 0; k < at->count; k++) {
        const int64_t i = at->i[k] < 0 ? at->i[k] + src->count : at->i[k];
        if (i < 0 || i >= src->count)
            return lb_import_damaged(im, "gathers element %lld of %lld", (long long)at->i[k], (long long)src->count);
        values[k] = src->i[i];
    }
    return lb_import_set_constant(im, &dst);
}

static lb_status fold_slice(lb_importer *im) {
    const lb_constant *src;
    lb_constant dst;
    lb_cut cuts[LB_IMPORT_DIMS];
    int64_t stride[LB_IMPORT_DIMS], dims[LB_IMPORT_DIMS], first = 0;
    LB_TRY(lb_import_constant(im, 0, &src));
    LB_TRY(lb_import_cuts(im, src->ndim, src->dims, cuts));
    strides_of(src, stride);
    for (int d = 0; d < src->ndim; d++) {
        dims[d] = cuts[d].count;
        first += cuts[d].first * stride[d];
        stride[d] *= cuts[d].step;
    }
    LB_TRY(rearrange(im, src, src->ndim, dims, first, stride, &dst));
    return lb_import_set_constant(im, &dst);
}

static lb_status fold_concat(lb_importer *im) {
    lb_constant dst;
    int64_t count = 0, at = 0, *values;
    const lb_constant *src;
    for (size_t i = 0; i < im->node->n_input; i++) {
        LB_TRY(lb_import_constant(im, (int)i, &src));
        if (!src->whole || src->ndim != 1)
            return lb_import_refuse(im, "only lists of whole numbers can be put together, or images");
        count += src->count;
    }
    LB_TRY(lb_constant_whole(im, 1, &count, &dst, &values));
    for (size_t i = 0; i < im->node->n_input; i++) {
        LB_TRY(lb_import_constant(im, (int)i, &src));
        if (src->count)
            memcpy(values + at, src->i, (size_t)src->count * sizeof *values);
        at += src->count;
    }
    return lb_import_set_constant(im, &dst);
}

/* ---- Arithmetic ------------------------------------------------------------------------------------------------------- */

static lb_status fold_cast(lb_importer *im) {
    const lb_constant *src;
    LB_TRY(lb_import_constant(im, 0, &src));
    const int64_t to = lb_import_int(im, "to", 0);
    const bool whole = to == LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64 || to == LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT32;
    if (!whole && to != LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT && to != LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE)
        return lb_import_refuse(im, "a cast to element type %lld; float, double, int32 and int64 are read", (long long)to);
    if (whole && src->weight)
        return lb_import_refuse(im, "makes whole numbers of a weight");
    if (whole == src->whole || src->weight)
        return lb_import_set_constant(im, src);
    lb_constant dst;
    int64_t *i = NULL;
    float *f = NULL;
    if (whole)
        LB_TRY(lb_constant_whole(im, src->ndim, src->dims, &dst, &i));
    else
        LB_TRY(lb_constant_real(im, src->ndim, src->dims, &dst, &f));
    dst.weight = src->weight;
    for (int64_t k = 0; k < src->count; k++) {
        if (f) {
            f[k] = (float)src->i[k];
        } else {
            if (!(fabsf(src->f[k]) < 0x1p62f))
                return lb_import_refuse(im, "casts %g to a whole number", (double)src->f[k]);
            i[k] = (int64_t)src->f[k];
        }
    }
    return lb_import_set_constant(im, &dst);
}

static bool compute_whole(lb_arithmetic op, int64_t a, int64_t b, int64_t *result) {
    switch (op) {
    case LB_ADD: return !__builtin_add_overflow(a, b, result);
    case LB_SUB: return !__builtin_sub_overflow(a, b, result);
    case LB_MUL: return !__builtin_mul_overflow(a, b, result);
    case LB_DIV: break;
    }
    if (b == 0 || (b == -1 && a == INT64_MIN))
        return false;
    *result = a / b;
    return true;
}

static float compute_real(lb_arithmetic op, float a, float b) {
    return op == LB_ADD ? a + b : op == LB_SUB ? a - b : op == LB_MUL ? a * b : a / b;
}

/* Inputs 0 and 1 repeated to a common shape, aligned at the last dimension. */
static lb_status broadcast(lb_importer *im, lb_constant wide[2]) {
    const lb_constant *src[2];
    int64_t dims[LB_IMPORT_DIMS], stride[2][LB_IMPORT_DIMS];
    LB_TRY(lb_import_constant(im, 0, &src[0]));
    LB_TRY(lb_import_constant(im, 1, &src[1]));
    const int ndim = LB_MAX(src[0]->ndim, src[1]->ndim);
    if (src[0]->whole != src[1]->whole)
        return lb_import_damaged(im, "one operand is whole and the other is not");
    for (int s = 0; s < 2; s++)
        strides_of(src[s], stride[s] + ndim - src[s]->ndim);
    for (int d = 0; d < ndim; d++) {
        int64_t extent[2];
        for (int s = 0; s < 2; s++) {
            const int at = d - (ndim - src[s]->ndim);
            extent[s] = at < 0 ? 1 : src[s]->dims[at];
            if (extent[s] == 1)
                stride[s][d] = 0;
        }
        if (extent[0] != extent[1] && extent[0] != 1 && extent[1] != 1)
            return lb_import_damaged(im, "its operands have %lld and %lld elements in one dimension", (long long)extent[0],
                                     (long long)extent[1]);
        dims[d] = extent[0] == 1 ? extent[1] : extent[0];
    }
    const bool values = src[0]->whole || (src[0]->f && src[1]->f);
    for (int s = 0; s < 2; s++) {
        lb_constant known = *src[s];
        known.f = values ? known.f : NULL; /* one without values: the other's are not needed */
        LB_TRY(rearrange(im, &known, ndim, dims, 0, stride[s], &wide[s]));
    }
    return LB_OK;
}

static lb_status fold_arithmetic(lb_importer *im, lb_arithmetic op) {
    lb_constant wide[2], dst;
    int64_t *whole = NULL;
    float *real = NULL;
    LB_TRY(broadcast(im, wide));
    const lb_constant *a = &wide[0], *b = &wide[1];
    if (a->whole) {
        LB_TRY(lb_constant_whole(im, a->ndim, a->dims, &dst, &whole));
    } else if (a->f && b->f) {
        LB_TRY(lb_constant_real(im, a->ndim, a->dims, &dst, &real));
    } else {
        dst = *a;
        dst.f = NULL;
    }
    dst.weight = a->weight || b->weight;
    for (int64_t k = 0; k < dst.count; k++) {
        if (real)
            real[k] = compute_real(op, a->f[k], b->f[k]);
        else if (whole && !compute_whole(op, a->i[k], b->i[k], &whole[k]))
            return lb_import_damaged(im, "%lld and %lld have no result in 64 bits", (long long)a->i[k], (long long)b->i[k]);
    }
    return lb_import_set_constant(im, &dst);
}

static lb_status fold_add(lb_importer *im) { return fold_arithmetic(im, LB_ADD); }
static lb_status fold_sub(lb_importer *im) { return fold_arithmetic(im, LB_SUB); }
static lb_status fold_mul(lb_importer *im) { return fold_arithmetic(im, LB_MUL); }
static lb_status fold_div(lb_importer *im) { return fold_arithmetic(im, LB_DIV); }

static lb_status fold_floor(lb_importer *im) {
    const lb_constant *src;
    lb_constant dst;
    float *values;
    LB_TRY(lb_import_constant(im, 0, &src));
    if (src->whole || !src->f)
        return lb_import_set_constant(im, src);
    LB_TRY(lb_constant_real(im, src->ndim, src->dims, &dst, &values));
    dst.weight = src->weight;
    for (int64_t k = 0; k < src->count; k++)
        values[k] = floorf(src->f[k]);
    return lb_import_set_constant(im, &dst);
}

/* Codes of weights, as QCDQ has them. */
static lb_status fold_clip(lb_importer *im) {
    const lb_constant *src, *lo, *hi;
    lb_constant dst;
    int64_t *values;
    LB_TRY(lb_import_constant(im, 0, &src));
    LB_TRY(lb_import_constant(im, 1, &lo));
    LB_TRY(lb_import_constant(im, 2, &hi));
    if (!src->whole || !lo->whole || !hi->whole || lo->count != 1 || hi->count != 1)
        return lb_import_refuse(im, "only whole numbers are clipped, to two single ones, or images");
    LB_TRY(lb_constant_whole(im, src->ndim, src->dims, &dst, &values));
    for (int64_t k = 0; k < src->count; k++)
        values[k] = LB_MIN(LB_MAX(src->i[k], lo->i[0]), hi->i[0]);
    return lb_import_set_constant(im, &dst);
}

/* ---- The table -------------------------------------------------------------------------------------------------------- */

static const lb_import_op always[] = {{"Constant", fold_constant}, {"Shape", fold_shape}};

static const lb_import_op of_constants[] = {
    {"Add", fold_add},
    {"Cast", fold_cast},
    {"Clip", fold_clip},
    {"Concat", fold_concat},
    {"ConstantOfShape", fold_filled},
    {"Div", fold_div},
    {"Dropout", fold_identity},
    {"Flatten", fold_reshape},
    {"Floor", fold_floor},
    {"Gather", fold_gather},
    {"Identity", fold_identity},
    {"Mul", fold_mul},
    {"Reshape", fold_reshape},
    {"Slice", fold_slice},
    {"Squeeze", fold_reshape},
    {"Sub", fold_sub},
    {"Transpose", fold_transpose},
    {"Unsqueeze", fold_reshape},
};

lb_import_reader lb_import_fold_reader(const lb_importer *im) {
    const lb_import_reader reader = lb_import_look_up(im, always, LB_COUNT(always));
    if (reader)
        return reader;
    if (im->node->n_input == 0)
        return NULL;
    for (size_t i = 0; i < im->node->n_input; i++) {
        const int t = *im->node->input[i] ? lb_import_find(im, im->node->input[i]) : -1;
        if (t >= 0 && im->tensors[t].kind == LB_TENSOR_VIEW)
            return NULL;
    }
    return lb_import_look_up(im, of_constants, LB_COUNT(of_constants));
}

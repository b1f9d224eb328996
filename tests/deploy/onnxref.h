/* Runs an ONNX model of the operators that export writes: plain loops over what the file says, by the standard's
 * definitions. Numbers are doubles; results of type float are rounded to it. */
#ifndef LB_TEST_ONNXREF_H
#define LB_TEST_ONNXREF_H

#include <math.h>

#include "onnx/build.h"
#include "support.h"

enum { ONNXREF_MAX = 4000 };

typedef struct onnxref_tensor {
    const char *name;
    uint64_t hash; /* of the name */
    int type, ndim;
    int64_t dims[4];
    size_t count;
    double *v;
} onnxref_tensor;

typedef struct onnxref {
    const Lb__Onnx__GraphProto *graph;
    int count;
    onnxref_tensor tensors[ONNXREF_MAX];
} onnxref;

static inline uint64_t onnxref_hash(const char *name) { return lb_hash(LB_HASH, name, strlen(name)); }

/* Or NULL. */
static inline const onnxref_tensor *onnxref_look(const onnxref *r, const char *name) {
    const uint64_t hash = onnxref_hash(name);
    for (int i = r->count - 1; i >= 0; i--)
        if (r->tensors[i].hash == hash && !strcmp(r->tensors[i].name, name))
            return &r->tensors[i];
    return NULL;
}

static inline const onnxref_tensor *onnxref_find(const onnxref *r, const char *name) {
    const onnxref_tensor *t = onnxref_look(r, name);
    if (!t)
        fail_msg("no tensor %s", name);
    return t;
}

static inline onnxref_tensor *onnxref_add(onnxref *r, const char *name, int type, int ndim, const int64_t *dims) {
    assert_true(r->count < ONNXREF_MAX && ndim <= 4);
    if (onnxref_look(r, name))
        fail_msg("tensor %s is made twice", name);
    onnxref_tensor *t = &r->tensors[r->count++];
    *t = (onnxref_tensor){.name = name, .hash = onnxref_hash(name), .type = type, .ndim = ndim, .count = 1};
    for (int i = 0; i < ndim; i++)
        t->count *= (size_t)(t->dims[i] = dims[i]);
    t->v = calloc(t->count + 1, sizeof *t->v);
    return t;
}

static inline double onnxref_element(const Lb__Onnx__TensorProto *t, size_t i) {
    const uint8_t *d = t->raw_data.data;
    const size_t bits = t->data_type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT                                      ? 32
                        : t->data_type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64 || t->data_type == 11 /* double */ ? 64
                        : t->data_type == LB_ONNX_INT4                                                                ? 4
                        : t->data_type == LB_ONNX_INT2                                                                ? 2
                                                                                                                      : 8;
    uint64_t word = 0;
    for (size_t b = 0; b < bits; b++)
        word |= (uint64_t)(d[(i * bits + b) / 8] >> (i * bits + b) % 8 & 1) << b;
    const uint32_t low = (uint32_t)word;
    float f;
    double g;
    memcpy(&f, &low, sizeof f);
    memcpy(&g, &word, sizeof g);
    if (t->data_type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT)
        return (double)f;
    if (t->data_type == 11)
        return g;
    if (t->data_type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8)
        return (double)word;
    return (double)((int64_t)(word << (64 - bits)) >> (64 - bits));
}

static inline const Lb__Onnx__AttributeProto *onnxref_attribute(const Lb__Onnx__NodeProto *n, const char *name) {
    for (size_t i = 0; i < n->n_attribute; i++)
        if (!strcmp(n->attribute[i]->name, name))
            return n->attribute[i];
    return NULL;
}
static inline int64_t onnxref_int(const Lb__Onnx__NodeProto *n, const char *name, int64_t missing) {
    const Lb__Onnx__AttributeProto *a = onnxref_attribute(n, name);
    return a ? a->i : missing;
}
static inline const int64_t *onnxref_ints(const Lb__Onnx__NodeProto *n, const char *name, size_t count) {
    const Lb__Onnx__AttributeProto *a = onnxref_attribute(n, name);
    if (!a || a->n_ints != count)
        fail_msg("%s: %s", n->name, name);
    return a->ints;
}

/* Element of t that stands for element i of a tensor of those dimensions: broadcast, aligned at the last. */
static inline double onnxref_at(const onnxref_tensor *t, int ndim, const int64_t *dims, size_t i) {
    size_t at = 0, stride = 1;
    if (t->count == 1)
        return t->v[0];
    for (int d = ndim - 1, k = t->ndim - 1; d >= 0; i /= (size_t)dims[d], d--, k--) {
        if (k < 0)
            continue;
        assert_true(t->dims[k] == dims[d] || t->dims[k] == 1);
        at += t->dims[k] == 1 ? 0 : i % (size_t)dims[d] * stride;
        stride *= (size_t)t->dims[k];
    }
    return t->v[at];
}

static inline double onnxref_clamp(double v, double lo, double hi) { return v < lo ? lo : v > hi ? hi : v; }

/* Elementwise operators. */
#define ONNXREF_OPS(X)                                                                                                             \
    X(Mul)                                                                                                                         \
    X(Add) X(Div) X(Round) X(Floor) X(Relu) X(Clip) X(GreaterOrEqual) X(Where) X(Cast) X(Quant) X(BipolarQuant) X(QuantizeLinear)
enum {
#define X(name) ONNXREF_##name,
    ONNXREF_OPS(X)
#undef X
};
static const char *const onnxref_ops[] = {
#define X(name) #name,
    ONNXREF_OPS(X)
#undef X
};

static inline size_t onnxref_op(const char *name) {
    size_t op = 0;
    while (op < LB_COUNT(onnxref_ops) && strcmp(onnxref_ops[op], name))
        op++;
    if (op == LB_COUNT(onnxref_ops))
        fail_msg("operator %s", name);
    return op;
}

/* One element from its inputs' elements. */
static inline double onnxref_point(size_t op, const double *x, int type) {
    const bool is_signed = type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8;
    switch (op) {
    case ONNXREF_Mul: return x[0] * x[1];
    case ONNXREF_Add: return x[0] + x[1];
    case ONNXREF_Div: return x[0] / x[1];
    case ONNXREF_Round: return rint(x[0]);
    case ONNXREF_Floor: return floor(x[0]);
    case ONNXREF_Relu: return x[0] > 0 ? x[0] : 0;
    case ONNXREF_Clip: return onnxref_clamp(x[0], x[1], x[2]);
    case ONNXREF_GreaterOrEqual: return x[0] >= x[1];
    case ONNXREF_Where: return x[0] != 0 ? x[1] : x[2];
    case ONNXREF_Cast: return x[0];
    case ONNXREF_BipolarQuant: return x[0] >= 0 ? x[1] : -x[1];
    default: /* QuantizeLinear */
        return onnxref_clamp(rint((double)((float)x[0] / (float)x[1])) + x[2], is_signed ? -128 : 0, is_signed ? 127 : 255);
    }
}

static inline double onnxref_quant(const Lb__Onnx__NodeProto *n, const double *x) {
    const bool is_signed = onnxref_int(n, "signed", -1) == 1, narrow = onnxref_int(n, "narrow", -1) == 1;
    const double top = ldexp(1, (int)x[3] - is_signed) - 1 - (!is_signed && narrow), bottom = is_signed ? -top - 1 + narrow : 0;
    return (onnxref_clamp(rint(x[0] / x[1] + x[2]), bottom, top) - x[2]) * x[1];
}

static inline void onnxref_window(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, const onnxref_tensor *w, onnxref *r) {
    const bool max = !strcmp(n->op_type, "MaxPool");
    const int64_t *kernel = onnxref_ints(n, "kernel_shape", 2), *stride = onnxref_ints(n, "strides", 2),
                  *pad = onnxref_ints(n, "pads", 4);
    const int64_t c = x->dims[1], h = x->dims[2], wd = x->dims[3], groups = w ? onnxref_int(n, "group", 1) : 1;
    const int64_t oc = w ? w->dims[0] : c, icg = w ? w->dims[1] : 1;
    const int64_t dims[] = {x->dims[0], oc, (h + pad[0] + pad[2] - kernel[0]) / stride[0] + 1,
                            (wd + pad[1] + pad[3] - kernel[1]) / stride[1] + 1};
    if (w)
        assert_true(w->ndim == 4 && w->dims[2] == kernel[0] && w->dims[3] == kernel[1] && icg * groups == c);
    if (!w && !max)
        assert_int_equal(onnxref_int(n, "count_include_pad", 0), 1);
    onnxref_tensor *y = onnxref_add(r, n->output[0], x->type, 4, dims);
    double *out = y->v;
    for (int64_t m = 0; m < dims[0]; m++)
        for (int64_t o = 0; o < oc; o++)
            for (int64_t oy = 0; oy < dims[2]; oy++)
                for (int64_t ox = 0; ox < dims[3]; ox++) {
                    double sum = 0, most = -INFINITY;
                    for (int64_t ky = 0; ky < kernel[0]; ky++)
                        for (int64_t kx = 0; kx < kernel[1]; kx++) {
                            const int64_t iy = oy * stride[0] - pad[0] + ky, ix = ox * stride[1] - pad[1] + kx;
                            if (iy < 0 || iy >= h || ix < 0 || ix >= wd)
                                continue;
                            for (int64_t i = 0; i < icg; i++) {
                                const int64_t ic = w ? o / (oc / groups) * icg + i : o;
                                const double v = x->v[((m * c + ic) * h + iy) * wd + ix];
                                sum += w ? v * w->v[((o * icg + i) * kernel[0] + ky) * kernel[1] + kx] : v;
                                most = fmax(most, v);
                            }
                        }
                    *out++ = max ? most : w ? sum : sum / (double)(kernel[0] * kernel[1]);
                }
}

static inline void onnxref_global(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, onnxref *r) {
    const bool max = !strcmp(n->op_type, "GlobalMaxPool");
    const int64_t dims[] = {x->dims[0], x->dims[1], 1, 1}, area = x->dims[2] * x->dims[3];
    onnxref_tensor *y = onnxref_add(r, n->output[0], x->type, 4, dims);
    for (size_t i = 0; i < y->count; i++) {
        double sum = 0, most = -INFINITY;
        for (int64_t k = 0; k < area; k++) {
            sum += x->v[(int64_t)i * area + k];
            most = fmax(most, x->v[(int64_t)i * area + k]);
        }
        y->v[i] = max ? most : sum / (double)area;
    }
}

/* ReduceSum over rows, columns, or both. */
static inline void onnxref_sum(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, onnxref *r) {
    const onnxref_tensor *axes = onnxref_find(r, n->input[1]);
    int64_t dims[] = {x->dims[0], x->dims[1], x->dims[2], x->dims[3]};
    for (size_t i = 0; i < axes->count; i++) {
        assert_true(axes->v[i] == 2 || axes->v[i] == 3);
        dims[(int)axes->v[i]] = 1;
    }
    onnxref_tensor *y = onnxref_add(r, n->output[0], x->type, 4, dims);
    for (size_t i = 0; i < x->count; i++) {
        const size_t w = i % (size_t)x->dims[3] % (size_t)dims[3];
        const size_t h = i / (size_t)x->dims[3] % (size_t)x->dims[2] % (size_t)dims[2];
        const size_t slice = i / (size_t)(x->dims[2] * x->dims[3]);
        y->v[(slice * (size_t)dims[2] + h) * (size_t)dims[3] + w] += x->v[i];
    }
}

static inline void onnxref_gemm(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, const onnxref_tensor *w, onnxref *r) {
    const int64_t dims[] = {x->dims[0], w->dims[0]}, ic = x->dims[1];
    assert_true(x->ndim == 2 && w->ndim == 2 && w->dims[1] == ic && onnxref_int(n, "transB", 0) == 1);
    onnxref_tensor *y = onnxref_add(r, n->output[0], x->type, 2, dims);
    for (int64_t m = 0; m < dims[0]; m++)
        for (int64_t o = 0; o < dims[1]; o++)
            for (int64_t i = 0; i < ic; i++)
                y->v[m * dims[1] + o] += x->v[m * ic + i] * w->v[o * ic + i];
}

static inline void onnxref_batchnorm(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, onnxref *r) {
    const onnxref_tensor *p[4];
    for (int i = 0; i < 4; i++)
        p[i] = onnxref_find(r, n->input[i + 1]);
    const size_t area = x->ndim == 4 ? (size_t)(x->dims[2] * x->dims[3]) : 1;
    const double eps = (double)onnxref_attribute(n, "epsilon")->f;
    onnxref_tensor *y = onnxref_add(r, n->output[0], x->type, x->ndim, x->dims);
    for (size_t i = 0; i < y->count; i++) {
        const size_t c = i / area % (size_t)x->dims[1];
        y->v[i] = (x->v[i] - p[2]->v[c]) / sqrt(p[3]->v[c] + eps) * p[0]->v[c] + p[1]->v[c];
    }
}

static inline void onnxref_dequantize(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, const onnxref_tensor *scale,
                                      onnxref *r) {
    const size_t axis = (size_t)onnxref_int(n, "axis", 1);
    size_t inner = 1;
    for (size_t d = axis + 1; d < (size_t)x->ndim; d++)
        inner *= (size_t)x->dims[d];
    onnxref_tensor *y = onnxref_add(r, n->output[0], scale->type, x->ndim, x->dims);
    for (size_t i = 0; i < y->count; i++)
        y->v[i] = x->v[i] * scale->v[scale->ndim == 0 ? 0 : i / inner % (size_t)x->dims[axis]];
}

/* Of channels. */
static inline void onnxref_concat(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, onnxref *r) {
    int64_t dims[] = {x->dims[0], 0, x->dims[2], x->dims[3]};
    const size_t area = (size_t)(dims[2] * dims[3]), batch = (size_t)dims[0];
    assert_true(onnxref_int(n, "axis", 0) == 1 && x->ndim == 4);
    for (size_t k = 0; k < n->n_input; k++)
        dims[1] += onnxref_find(r, n->input[k])->dims[1];
    double *at = onnxref_add(r, n->output[0], x->type, 4, dims)->v;
    for (size_t m = 0; m < batch; m++)
        for (size_t k = 0; k < n->n_input; k++) {
            const onnxref_tensor *in = onnxref_find(r, n->input[k]);
            const size_t count = (size_t)in->dims[1] * area;
            memcpy(at, in->v + m * count, count * sizeof *at);
            at += count;
        }
}

/* Flatten, Reshape, Slice, Pad: element by element of the result. */
static inline void onnxref_move(const Lb__Onnx__NodeProto *n, const onnxref_tensor *x, onnxref *r) {
    const char *op = n->op_type;
    int64_t dims[4] = {x->dims[0], (int64_t)x->count / x->dims[0], 1, 1}, start[4] = {0}, step[4] = {1, 1, 1, 1};
    const int ndim = strcmp(op, "Flatten") ? 4 : 2;
    const onnxref_tensor *p = n->n_input > 1 ? onnxref_find(r, n->input[1]) : NULL;
    if (!strcmp(op, "Flatten") || !strcmp(op, "Reshape")) {
        for (int d = 1; p && d < 4; d++)
            dims[d] = (int64_t)p->v[d];
        onnxref_tensor *y = onnxref_add(r, n->output[0], x->type, ndim, dims);
        assert_int_equal(y->count, x->count);
        memcpy(y->v, x->v, x->count * sizeof *y->v);
        return;
    }
    memcpy(dims, x->dims, sizeof dims);
    if (!strcmp(op, "Slice"))
        for (size_t k = 0; k < p->count; k++) {
            const int axis = (int)onnxref_find(r, n->input[3])->v[k];
            step[axis] = (int64_t)onnxref_find(r, n->input[4])->v[k];
            const double end = onnxref_find(r, n->input[2])->v[k];
            start[axis] = (int64_t)p->v[k];
            assert_true(start[axis] >= 0 && (double)start[axis] < end);
            dims[axis] = (LB_MIN(x->dims[axis], (int64_t)end) - start[axis] + step[axis] - 1) / step[axis];
        }
    else
        for (int d = 0; d < 4; d++) {
            start[d] = -(int64_t)p->v[d];
            dims[d] += (int64_t)(p->v[d] + p->v[d + 4]);
        }
    onnxref_tensor *y = onnxref_add(r, n->output[0], x->type, 4, dims);
    for (size_t i = 0; i < y->count; i++) {
        size_t rest = i, at = 0, stride = 1;
        bool inside = true;
        for (int d = 3; d >= 0; rest /= (size_t)dims[d], d--) {
            const int64_t k = start[d] + (int64_t)(rest % (size_t)dims[d]) * step[d];
            inside = inside && k >= 0 && k < x->dims[d];
            at += (size_t)k * stride;
            stride *= (size_t)x->dims[d];
        }
        y->v[i] = inside ? x->v[at] : 0;
    }
}

static inline void onnxref_elementwise(const Lb__Onnx__NodeProto *n, onnxref *r) {
    const onnxref_tensor *in[4], *shape;
    assert_true(n->n_input <= 4);
    for (size_t k = 0; k < n->n_input; k++)
        in[k] = onnxref_find(r, n->input[k]);
    shape = in[0];
    int type = strcmp(n->op_type, "QuantizeLinear") ? in[n->n_input - 1]->type : in[2]->type;
    if (!strcmp(n->op_type, "Cast"))
        type = (int)onnxref_int(n, "to", 0);
    onnxref_tensor *y = onnxref_add(r, n->output[0], type, shape->ndim, shape->dims);
    const size_t op = onnxref_op(n->op_type);
    for (size_t i = 0; i < y->count; i++) {
        double x[4] = {0};
        for (size_t k = 0; k < n->n_input; k++)
            x[k] = in[k]->count == y->count ? in[k]->v[i] : onnxref_at(in[k], shape->ndim, shape->dims, i);
        y->v[i] = op == ONNXREF_Quant ? onnxref_quant(n, x) : onnxref_point(op, x, type);
    }
}

static inline void onnxref_node(const Lb__Onnx__NodeProto *n, onnxref *r) {
    const char *op = n->op_type;
    const onnxref_tensor *x = onnxref_find(r, n->input[0]);
    if (!strcmp(op, "Conv") || !strcmp(op, "MaxPool") || !strcmp(op, "AveragePool"))
        onnxref_window(n, x, n->n_input > 1 ? onnxref_find(r, n->input[1]) : NULL, r);
    else if (!strncmp(op, "Global", 6))
        onnxref_global(n, x, r);
    else if (!strcmp(op, "ReduceSum"))
        onnxref_sum(n, x, r);
    else if (!strcmp(op, "Concat"))
        onnxref_concat(n, x, r);
    else if (!strcmp(op, "Gemm"))
        onnxref_gemm(n, x, onnxref_find(r, n->input[1]), r);
    else if (!strcmp(op, "BatchNormalization"))
        onnxref_batchnorm(n, x, r);
    else if (!strcmp(op, "DequantizeLinear"))
        onnxref_dequantize(n, x, onnxref_find(r, n->input[1]), r);
    else if (!strcmp(op, "Flatten") || !strcmp(op, "Reshape") || !strcmp(op, "Slice") || !strcmp(op, "Pad"))
        onnxref_move(n, x, r);
    else
        onnxref_elementwise(n, r);
    onnxref_tensor *y = &r->tensors[r->count - 1];
    for (size_t i = 0; y->type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT && i < y->count; i++)
        y->v[i] = (double)(float)y->v[i];
}

/* pixels (mb, h, w, c) through the model; the result's memory belongs to r. */
static inline const double *onnxref_run(onnxref *r, const Lb__Onnx__ModelProto *model, const uint8_t *pixels, int mb) {
    *r = (onnxref){.graph = model->graph};
    for (size_t i = 0; i < r->graph->n_initializer; i++) {
        const Lb__Onnx__TensorProto *t = r->graph->initializer[i];
        onnxref_tensor *to = onnxref_add(r, t->name, t->data_type, (int)t->n_dims, t->dims);
        for (size_t k = 0; k < to->count; k++)
            to->v[k] = onnxref_element(t, k);
    }
    const Lb__Onnx__ValueInfoProto *in = r->graph->input[0];
    int64_t dims[4] = {mb};
    for (int d = 1; d < 4; d++)
        dims[d] = in->type->tensor_type->shape->dim[d]->dim_value;
    onnxref_tensor *image = onnxref_add(r, in->name, LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, 4, dims);
    for (size_t i = 0; i < image->count; i++) {
        const size_t area = (size_t)(dims[2] * dims[3]), p = i % area, c = i / area % (size_t)dims[1];
        image->v[i] = pixels[((i / area / (size_t)dims[1]) * area + p) * (size_t)dims[1] + c];
    }
    for (size_t i = 0; i < r->graph->n_node; i++)
        onnxref_node(r->graph->node[i], r);
    return onnxref_find(r, r->graph->output[0]->name)->v;
}

static inline void onnxref_free(onnxref *r) {
    for (int i = 0; i < r->count; i++)
        free(r->tensors[i].v);
    r->count = 0;
}

#endif

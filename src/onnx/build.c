#include "onnx/build.h"

#include <stdio.h>

static void *take(lb_onnx_build *b, size_t count, size_t size) {
    void *memory = b->status == LB_OK ? lb_pool_alloc(&b->pool, count, size) : NULL;
    if (!memory && b->status == LB_OK)
        b->status = LB_ERR_MEMORY;
    return memory;
}

static char *copy(lb_onnx_build *b, const char *text) {
    char *memory = take(b, strlen(text) + 1, 1);
    return memory ? strcpy(memory, text) : NULL;
}

/* Room for one more element of an array of pointers; `array` as for lb_grow. */
static bool grow(lb_onnx_build *b, void *array, size_t *capacity, size_t count) {
    if (b->status == LB_OK)
        b->status = lb_grow(b->pool.ctx, array, capacity, count + 1, sizeof(void *));
    return b->status == LB_OK;
}

void lb_onnx_build_init(lb_onnx_build *b, lb_ctx *ctx, const char *graph_name) {
    *b = (lb_onnx_build){.status = LB_OK};
    lb_pool_init(&b->pool, ctx);
    lb__onnx__model_proto__init(&b->model);
    lb__onnx__graph_proto__init(&b->graph);
    b->graph.name = copy(b, graph_name);
    b->model.graph = &b->graph;
}

void lb_onnx_build_free(lb_onnx_build *b) {
    lb_free(b->pool.ctx, b->graph.node);
    lb_free(b->pool.ctx, b->graph.initializer);
    lb_free(b->pool.ctx, b->model.metadata_props);
    lb_pool_free(&b->pool);
}

const char *lb_onnx_name(lb_onnx_build *b, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int size = vsnprintf(NULL, 0, fmt, args);
    char *text = take(b, (size_t)size + 1, 1);
    if (text)
        vsnprintf(text, (size_t)size + 1, fmt, again);
    va_end(again);
    va_end(args);
    return text;
}

/* ---- Nodes ----------------------------------------------------------------------------------------------------------- */

Lb__Onnx__NodeProto *lb_onnx_node(lb_onnx_build *b, const char *op, const char *output, int ninputs, const char *const *inputs) {
    Lb__Onnx__GraphProto *g = &b->graph;
    Lb__Onnx__NodeProto *node = take(b, 1, sizeof *node);
    char **in = take(b, (size_t)ninputs, sizeof *in), **out = take(b, 1, sizeof *out);
    if (!out || !grow(b, &g->node, &b->nodes, g->n_node))
        return NULL;
    lb__onnx__node_proto__init(node);
    for (int i = 0; i < ninputs; i++)
        in[i] = copy(b, inputs[i]);
    out[0] = copy(b, output);
    node->op_type = copy(b, op);
    node->name = out[0];
    node->n_input = (size_t)ninputs;
    node->input = in;
    node->n_output = 1;
    node->output = out;
    if (b->status != LB_OK)
        return NULL;
    return (g->node[g->n_node++] = node);
}

/* A new attribute of `node`; its list is copied, for a node has few. */
static Lb__Onnx__AttributeProto *attribute(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name,
                                           Lb__Onnx__AttributeProto__AttributeType type) {
    Lb__Onnx__AttributeProto *a = take(b, 1, sizeof *a);
    Lb__Onnx__AttributeProto **list = take(b, node ? node->n_attribute + 1 : 1, sizeof(Lb__Onnx__AttributeProto *));
    if (!node || !list)
        return NULL;
    lb__onnx__attribute_proto__init(a);
    a->name = copy(b, name);
    a->has_type = 1;
    a->type = type;
    if (node->n_attribute)
        memcpy(list, node->attribute, node->n_attribute * sizeof *list);
    list[node->n_attribute++] = a;
    node->attribute = list;
    return a;
}

void lb_onnx_int(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, int64_t value) {
    Lb__Onnx__AttributeProto *a = attribute(b, node, name, LB__ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (a)
        a->has_i = 1, a->i = value;
}

void lb_onnx_ints(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, const int *values, int count) {
    Lb__Onnx__AttributeProto *a = attribute(b, node, name, LB__ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    int64_t *ints = take(b, (size_t)count, sizeof *ints);
    for (int i = 0; ints && i < count; i++)
        ints[i] = values[i];
    if (a)
        a->n_ints = (size_t)count, a->ints = ints;
}

void lb_onnx_real(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, float value) {
    Lb__Onnx__AttributeProto *a = attribute(b, node, name, LB__ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (a)
        a->has_f = 1, a->f = value;
}

void lb_onnx_text(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, const char *value) {
    Lb__Onnx__AttributeProto *a = attribute(b, node, name, LB__ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    char *text = copy(b, value);
    if (a && text)
        a->has_s = 1, a->s = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
}

/* ---- Initializers ---------------------------------------------------------------------------------------------------- */

static int bits_of_type(int type) {
    switch (type) {
    case LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
    case LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE: return 64;
    case LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT: return 32;
    case LB_ONNX_UINT4:
    case LB_ONNX_INT4: return 4;
    case LB_ONNX_UINT2:
    case LB_ONNX_INT2: return 2;
    default: return 8;
    }
}

/* The value's pattern in a type; a negative integer's upper bits are 1. */
static uint64_t pattern_of(int type, double value) {
    if (type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT) {
        const float single = (float)value;
        uint32_t pattern;
        memcpy(&pattern, &single, sizeof pattern);
        return pattern;
    }
    if (type != LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE)
        return (uint64_t)(int64_t)value;
    uint64_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    return pattern;
}

/* Little endian, whatever the machine is. */
static void put(uint8_t *data, size_t bits, size_t i, uint64_t word) {
    if (bits < 8)
        data[i * bits / 8] |= (uint8_t)((word & ((1u << bits) - 1u)) << i * bits % 8);
    for (size_t byte = 0; byte < bits / 8; byte++)
        data[i * bits / 8 + byte] = (uint8_t)(word >> 8 * byte);
}

/* Appends an initializer with room for its elements, NULL after a failure. */
static Lb__Onnx__TensorProto *new_tensor(lb_onnx_build *b, const char *name, int type, int ndim, const int64_t *dims,
                                         size_t *count) {
    Lb__Onnx__GraphProto *g = &b->graph;
    Lb__Onnx__TensorProto *t = take(b, 1, sizeof *t);
    int64_t *shape = take(b, (size_t)ndim, sizeof *shape);
    const size_t bits = (size_t)bits_of_type(type);
    *count = 1;
    for (int i = 0; shape && i < ndim; i++)
        *count *= (size_t)(shape[i] = dims[i]);
    const size_t bytes = bits < 8 ? (*count * bits + 7) / 8 : *count * (bits / 8);
    uint8_t *data = take(b, bytes, 1);
    if (!data || !name || !grow(b, &g->initializer, &b->initializers, g->n_initializer))
        return NULL;
    lb__onnx__tensor_proto__init(t);
    t->name = copy(b, name);
    t->has_data_type = t->has_raw_data = 1;
    t->data_type = type;
    t->n_dims = (size_t)ndim;
    t->dims = shape;
    t->raw_data = (ProtobufCBinaryData){bytes, data};
    if (b->status != LB_OK)
        return NULL;
    return g->initializer[g->n_initializer++] = t;
}

const char *lb_onnx_tensor(lb_onnx_build *b, const char *name, int type, int ndim, const int64_t *dims, const float *values) {
    size_t count;
    Lb__Onnx__TensorProto *t = new_tensor(b, name, type, ndim, dims, &count);
    for (size_t i = 0; t && i < count; i++)
        put(t->raw_data.data, (size_t)bits_of_type(type), i, pattern_of(type, (double)values[i]));
    return t ? name : NULL;
}

const char *lb_onnx_doubles(lb_onnx_build *b, const char *name, int ndim, const int64_t *dims, const double *values) {
    enum { DOUBLE = LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE };
    size_t count;
    Lb__Onnx__TensorProto *t = new_tensor(b, name, DOUBLE, ndim, dims, &count);
    for (size_t i = 0; t && i < count; i++)
        put(t->raw_data.data, 64, i, pattern_of(DOUBLE, values[i]));
    return t ? name : NULL;
}

const char *lb_onnx_scalar(lb_onnx_build *b, const char *name, int type, float value) {
    return lb_onnx_tensor(b, name, type, 0, NULL, &value);
}

/* ---- The model ------------------------------------------------------------------------------------------------------- */

void lb_onnx_opset(lb_onnx_build *b, const char *domain, int64_t version) {
    Lb__Onnx__ModelProto *m = &b->model;
    Lb__Onnx__OperatorSetIdProto *id = take(b, 1, sizeof *id);
    Lb__Onnx__OperatorSetIdProto **list = take(b, m->n_opset_import + 1, sizeof(Lb__Onnx__OperatorSetIdProto *));
    if (!list)
        return;
    lb__onnx__operator_set_id_proto__init(id);
    id->domain = copy(b, domain);
    id->has_version = 1;
    id->version = version;
    if (m->n_opset_import)
        memcpy(list, m->opset_import, m->n_opset_import * sizeof *list);
    list[m->n_opset_import++] = id;
    m->opset_import = list;
}

void lb_onnx_metadata(lb_onnx_build *b, const char *key, const char *value) {
    Lb__Onnx__ModelProto *m = &b->model;
    Lb__Onnx__StringStringEntryProto *entry = take(b, 1, sizeof *entry);
    if (!entry || !grow(b, &m->metadata_props, &b->metadata, m->n_metadata_props))
        return;
    lb__onnx__string_string_entry_proto__init(entry);
    entry->key = copy(b, key);
    entry->value = copy(b, value);
    m->metadata_props[m->n_metadata_props++] = entry;
}

/* A list of one tensor of floats. */
static Lb__Onnx__ValueInfoProto **value_info(lb_onnx_build *b, const char *name, int ndim, const int64_t *dims) {
    Lb__Onnx__ValueInfoProto **list = take(b, 1, sizeof *list), *info = take(b, 1, sizeof *info);
    Lb__Onnx__TypeProto *type = take(b, 1, sizeof *type);
    Lb__Onnx__TypeProto__Tensor *tensor = take(b, 1, sizeof *tensor);
    Lb__Onnx__TensorShapeProto *shape = take(b, 1, sizeof *shape);
    Lb__Onnx__TensorShapeProto__Dimension **sizes = take(b, (size_t)ndim, sizeof *sizes), *d = take(b, (size_t)ndim, sizeof *d);
    if (!d)
        return NULL;
    lb__onnx__value_info_proto__init(info);
    lb__onnx__type_proto__init(type);
    lb__onnx__type_proto__tensor__init(tensor);
    lb__onnx__tensor_shape_proto__init(shape);
    for (int i = 0; i < ndim; i++) {
        sizes[i] = &d[i];
        lb__onnx__tensor_shape_proto__dimension__init(sizes[i]);
        d[i].value_case =
            i ? LB__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE : LB__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        if (i)
            d[i].dim_value = dims[i];
        else
            d[i].dim_param = copy(b, "batch");
    }
    shape->n_dim = (size_t)ndim;
    shape->dim = sizes;
    tensor->has_elem_type = 1;
    tensor->elem_type = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tensor->shape = shape;
    type->value_case = LB__ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    info->name = copy(b, name);
    info->type = type;
    list[0] = info;
    return b->status == LB_OK ? list : NULL;
}

void lb_onnx_input(lb_onnx_build *b, const char *name, int ndim, const int64_t *dims) {
    b->graph.input = value_info(b, name, ndim, dims);
    b->graph.n_input = b->graph.input ? 1 : 0;
}

void lb_onnx_output(lb_onnx_build *b, const char *value, const char *name, int ndim, const int64_t *dims) {
    b->graph.output = value_info(b, name, ndim, dims);
    b->graph.n_output = b->graph.output ? 1 : 0;
    char *new_name = copy(b, name);
    if (b->status != LB_OK)
        return;
    for (size_t i = 0; i < b->graph.n_node; i++) {
        Lb__Onnx__NodeProto *node = b->graph.node[i];
        for (size_t k = 0; k < node->n_input; k++)
            if (!strcmp(node->input[k], value))
                node->input[k] = new_name;
        if (!strcmp(node->output[0], value))
            node->output[0] = new_name;
    }
}

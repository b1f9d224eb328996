/* Constants of the file: messages to whole or real numbers, external files, and the model without its weights. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/import/internal.h"
#include "onnx/build.h"

enum {
    FLOAT = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
    DOUBLE = LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE,
    FLOAT16 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16,
    INT64 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64,
    INT32 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT32,
    INT8 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
    UINT8 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8,
    BOOL = LB__ONNX__TENSOR_PROTO__DATA_TYPE__BOOL
};

lb_status lb_import_count(lb_importer *im, const char *what, int ndim, const int64_t *dims, int64_t *count) {
    int64_t product = 1; /* without the zeros: strides are made of it */
    *count = 1;
    for (int i = 0; i < ndim; i++) {
        if (dims[i] < 0)
            return lb_import_damaged(im, "%s has the negative dimension %lld", what, (long long)dims[i]);
        if (dims[i] && product > INT32_MAX / dims[i])
            return lb_import_refuse(im, "%s has more than 2^31 - 1 elements, or would have but for a dimension of none", what);
        product *= dims[i] ? dims[i] : 1;
        *count = dims[i] ? *count : 0;
    }
    *count = *count ? product : 0;
    return LB_OK;
}

lb_status lb_import_charge(lb_importer *im, int64_t *left, int64_t count) {
    if (count > *left)
        return lb_import_refuse(im, "what is computed from constants grows beyond reason");
    *left -= count;
    return LB_OK;
}

static lb_status prepare(lb_importer *im, bool whole, int ndim, const int64_t *dims, lb_constant *c) {
    *c = (lb_constant){.whole = whole, .ndim = ndim};
    if (ndim > LB_IMPORT_DIMS)
        return lb_import_refuse(im, "a tensor of %d dimensions; up to %d are read", ndim, LB_IMPORT_DIMS);
    if (ndim)
        memcpy(c->dims, dims, (size_t)ndim * sizeof *dims);
    LB_TRY(lb_import_count(im, "a computed tensor", ndim, dims, &c->count));
    return lb_import_charge(im, &im->budget, c->count);
}

lb_status lb_constant_whole(lb_importer *im, int ndim, const int64_t *dims, lb_constant *c, int64_t **values) {
    LB_TRY(prepare(im, true, ndim, dims, c));
    c->i = *values = lb_pool_alloc(&im->pool, (size_t)c->count, sizeof **values);
    return c->i ? LB_OK : LB_ERR_MEMORY;
}

lb_status lb_constant_real(lb_importer *im, int ndim, const int64_t *dims, lb_constant *c, float **values) {
    LB_TRY(prepare(im, false, ndim, dims, c));
    c->f = *values = lb_pool_alloc(&im->pool, (size_t)c->count, sizeof **values);
    return c->f ? LB_OK : LB_ERR_MEMORY;
}

/* IEEE 754 binary16; every value is a float too. */
static float from_half(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    union {
        uint32_t bits;
        float value;
    } x;
    if (exponent == 0) {
        x.value = (float)fraction * 0x1p-24f;
        return half >> 15 ? -x.value : x.value;
    }
    x.bits = (uint32_t)(half >> 15) << 31 | (uint32_t)(exponent == 31 ? 255 : exponent + 112) << 23 | (uint32_t)fraction << 13;
    return x.value;
}

/* Bits of an element, 0 if the type is not read. */
static int bits_of(int32_t type) {
    switch (type) {
    case DOUBLE:
    case INT64: return 64;
    case FLOAT:
    case INT32: return 32;
    case FLOAT16: return 16;
    case BOOL:
    case INT8:
    case UINT8: return 8;
    case LB_ONNX_INT4:
    case LB_ONNX_UINT4: return 4;
    case LB_ONNX_INT2:
    case LB_ONNX_UINT2: return 2;
    default: return 0;
    }
}

static bool is_whole(int32_t type) { return type != FLOAT && type != DOUBLE && type != FLOAT16; }
static bool is_signed(int32_t type) { return type == INT8 || type == LB_ONNX_INT4 || type == LB_ONNX_INT2; }

bool lb_import_least_code(int32_t type, int64_t *least) {
    const int bits = bits_of(type);
    *least = is_signed(type) ? -(1 << (bits - 1)) : 0;
    return bits > 0 && bits <= 8 && type != BOOL;
}

static float real_at(int32_t type, const unsigned char *raw, int64_t k) {
    uint16_t half;
    double wide;
    if (type == FLOAT16) {
        memcpy(&half, raw + 2 * k, sizeof half);
        return from_half(half);
    }
    memcpy(&wide, raw + 8 * k, sizeof wide);
    return (float)wide;
}

static int64_t whole_at(int32_t type, const unsigned char *raw, int64_t k) {
    const int bits = bits_of(type);
    int64_t wide;
    int32_t narrow;
    if (type == BOOL)
        return raw[k] != 0;
    if (type == INT32) {
        memcpy(&narrow, raw + 4 * k, sizeof narrow);
        return narrow;
    }
    if (type == INT64) {
        memcpy(&wide, raw + 8 * k, sizeof wide);
        return wide;
    }
    const int64_t code = raw[k * bits / 8] >> k * bits % 8 & ((1 << bits) - 1); /* the first one lowest */
    return is_signed(type) && code >> (bits - 1) ? code - (1 << bits) : code;
}

/* Elements from little-endian bytes, which outlive the importer. */
static lb_status from_raw(lb_importer *im, int32_t type, const unsigned char *raw, lb_constant *c) {
    if (type == FLOAT && (uintptr_t)raw % sizeof(float) == 0) {
        c->f = (const float *)(const void *)raw;
        return LB_OK;
    }
    if (c->whole) {
        int64_t *values = lb_pool_alloc(&im->pool, (size_t)c->count, sizeof *values);
        for (int64_t k = 0; values && k < c->count; k++)
            values[k] = whole_at(type, raw, k);
        c->i = values;
        return values ? LB_OK : LB_ERR_MEMORY;
    }
    float *values = lb_pool_alloc(&im->pool, (size_t)c->count, sizeof *values);
    if (values && type == FLOAT)
        memcpy(values, raw, (size_t)c->count * sizeof *values);
    for (int64_t k = 0; values && type != FLOAT && k < c->count; k++)
        values[k] = real_at(type, raw, k);
    c->f = values;
    return values ? LB_OK : LB_ERR_MEMORY;
}

/* ---- External files --------------------------------------------------------------------------------------------------- */

static bool is_external(const Lb__Onnx__TensorProto *t) {
    return t->has_data_location && t->data_location == LB__ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}

/* A file beside the model: a relative path that does not climb out of its folder. */
static bool is_beside(const char *location) {
    if (!*location || *location == '/' || strlen(location) > 1000)
        return false;
    for (const char *part = location; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL)
        if (!strncmp(part, "..", 2) && (part[2] == '/' || !part[2]))
            return false;
    return true;
}

static bool parse_number(const char *text, int64_t *value) {
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    *value = number;
    return !errno && end != text && !*end && number >= 0;
}

static lb_status read_region(lb_importer *im, const char *what, const char *location, int64_t offset, size_t size,
                             const unsigned char **data) {
    const char *slash = strrchr(im->path, '/');
    const char *path = lb_pool_printf(&im->pool, "%.*s%s", slash ? (int)(slash - im->path) + 1 : 0, im->path, location);
    if (!path)
        return LB_ERR_MEMORY;
    FILE *file = fopen(path, "rb");
    if (!file)
        return lb_fail(im->ctx, LB_ERR_IO, "%s: %s is in %s, which cannot be opened: %s", im->path, what, path, strerror(errno));
    /* Before memory is asked for: the shape may lie. */
    const int64_t all = fseeko(file, 0, SEEK_END) == 0 ? (int64_t)ftello(file) : -1;
    bool whole =
        all >= 0 && offset <= all && (uint64_t)size <= (uint64_t)(all - offset) && fseeko(file, (off_t)offset, SEEK_SET) == 0;
    unsigned char *bytes = whole ? lb_pool_alloc(&im->pool, size, 1) : NULL;
    const bool memory = whole && !bytes;
    whole = bytes && fread(bytes, 1, size, file) == size;
    fclose(file);
    if (memory)
        return LB_ERR_MEMORY;
    if (!whole)
        return lb_import_damaged(im, "%s should be %zu bytes at %lld of %s, but that file ends before", what, size,
                                 (long long)offset, path);
    *data = bytes;
    return LB_OK;
}

static lb_status read_external(lb_importer *im, const char *what, const Lb__Onnx__TensorProto *t, size_t size,
                               const unsigned char **data) {
    const char *location = "";
    int64_t offset = 0, length = (int64_t)size;
    for (size_t i = 0; i < t->n_external_data; i++) {
        const char *key = t->external_data[i]->key, *value = t->external_data[i]->value;
        bool good = key && value;
        if (good && !strcmp(key, "location"))
            location = value;
        else if (good && !strcmp(key, "offset"))
            good = parse_number(value, &offset);
        else if (good && !strcmp(key, "length"))
            good = parse_number(value, &length);
        if (!good)
            return lb_import_damaged(im, "%s: where its external data lies cannot be understood", what);
    }
    if (!is_beside(location))
        return lb_import_refuse(im, "%s: its external file '%.80s' is not beside the model", what, location);
    if (length != (int64_t)size)
        return lb_import_damaged(im, "%s needs %zu bytes, its external data has %lld", what, size, (long long)length);
    return read_region(im, what, location, offset, size, data);
}

/* ---- Messages --------------------------------------------------------------------------------------------------------- */

/* The typed lists that a tensor may use instead of raw bytes; *count is what they hold. */
static lb_status from_lists(lb_importer *im, const char *what, const Lb__Onnx__TensorProto *t, lb_constant *c) {
    const size_t held = t->data_type == FLOAT    ? t->n_float_data
                        : t->data_type == DOUBLE ? t->n_double_data
                        : t->data_type == INT64  ? t->n_int64_data
                                                 : t->n_int32_data;
    if (held == 0 && im->options.graph_only && lb_import_is_weight(t->data_type, c->count))
        return LB_OK;
    if (bits_of(t->data_type) < 8 && held)
        return lb_import_refuse(im, "%s has its %d-bit elements in a list; they are read as raw data", what, bits_of(t->data_type));
    if (held == 0 && c->count > 0)
        return lb_import_damaged(im, "%s has no data; is this the graph alone, without its weights?", what);
    if (held != (size_t)c->count)
        return lb_import_damaged(im, "%s has %lld elements by its shape, but %zu are there", what, (long long)c->count, held);
    if (t->data_type == FLOAT) {
        c->f = t->float_data;
        return LB_OK;
    }
    int64_t *whole = NULL;
    float *real = NULL;
    if (c->whole)
        c->i = whole = lb_pool_alloc(&im->pool, held, sizeof *whole);
    else
        c->f = real = lb_pool_alloc(&im->pool, held, sizeof *real);
    if (!whole && !real)
        return LB_ERR_MEMORY;
    for (size_t k = 0; k < held; k++) {
        if (t->data_type == DOUBLE)
            real[k] = (float)t->double_data[k];
        else if (t->data_type == FLOAT16)
            real[k] = from_half((uint16_t)t->int32_data[k]);
        else
            whole[k] = t->data_type == INT64 ? t->int64_data[k] : t->int32_data[k];
    }
    return LB_OK;
}

lb_status lb_import_tensor(lb_importer *im, const char *what, const Lb__Onnx__TensorProto *t, lb_constant *c) {
    const int32_t type = t->data_type;
    if (!bits_of(type))
        return lb_import_refuse(
            im,
            "%s has element type %d; float, double, float16, int64, int32, bool, and integers of 8, 4 and 2 bits "
            "are read",
            what, type);
    if (t->n_dims > LB_IMPORT_DIMS)
        return lb_import_refuse(im, "%s has %zu dimensions; up to %d are read", what, t->n_dims, LB_IMPORT_DIMS);
    if (t->segment)
        return lb_import_refuse(im, "%s comes in segments", what);
    *c = (lb_constant){.type = type, .whole = is_whole(type), .ndim = (int)t->n_dims};
    if (t->n_dims)
        memcpy(c->dims, t->dims, t->n_dims * sizeof *t->dims);
    LB_TRY(lb_import_count(im, what, c->ndim, c->dims, &c->count));
    c->weight = lb_import_is_weight(type, c->count);
    const size_t size = ((size_t)c->count * (size_t)bits_of(type) + 7) / 8;
    const unsigned char *raw = t->raw_data.data;
    if (is_external(t))
        LB_TRY(read_external(im, what, t, size, &raw));
    else if (!t->has_raw_data || t->raw_data.len == 0)
        return from_lists(im, what, t, c);
    else if (t->raw_data.len != size)
        return lb_import_damaged(im, "%s needs %zu bytes by its shape, but %zu are there", what, size, t->raw_data.len);
    return from_raw(im, type, raw, c);
}

/* ---- The graph alone -------------------------------------------------------------------------------------------------- */

/* What lies outside comes into the message: the run has no such file beside it. */
static lb_status fetch(lb_importer *im, Lb__Onnx__TensorProto *t) {
    const char *what = lb_pool_printf(&im->pool, "tensor '%.80s'", t->name ? t->name : "");
    const unsigned char *data = NULL;
    int64_t count;
    if (!what)
        return LB_ERR_MEMORY;
    LB_TRY(lb_import_count(im, what, (int)t->n_dims, t->dims, &count));
    const size_t size = ((size_t)count * (size_t)bits_of(t->data_type) + 7) / 8;
    LB_TRY(read_external(im, what, t, size, &data));
    lb_free(im->ctx, t->raw_data.data);
    t->raw_data = (ProtobufCBinaryData){size, lb_alloc(im->ctx, size, 1)};
    if (!t->raw_data.data)
        return LB_ERR_MEMORY;
    memcpy(t->raw_data.data, data, size);
    t->has_raw_data = 1;
    return LB_OK;
}

static void drop_values(lb_ctx *ctx, Lb__Onnx__TensorProto *t) {
    void *lists[] = {t->raw_data.data, t->float_data, t->double_data, t->int32_data};
    for (size_t i = 0; i < LB_COUNT(lists); i++)
        lb_free(ctx, lists[i]);
    t->raw_data = (ProtobufCBinaryData){0};
    t->float_data = NULL;
    t->double_data = NULL;
    t->int32_data = NULL;
    t->n_float_data = t->n_double_data = t->n_int32_data = 0;
    t->has_raw_data = 0;
}

static void drop_location(lb_ctx *ctx, Lb__Onnx__TensorProto *t) {
    ProtobufCAllocator allocator = lb_onnx_allocator(ctx);
    for (size_t i = 0; i < t->n_external_data; i++)
        lb__onnx__string_string_entry_proto__free_unpacked(t->external_data[i], &allocator);
    lb_free(ctx, t->external_data);
    t->external_data = NULL;
    t->n_external_data = 0;
    t->has_data_location = 0;
}

static lb_status strip(lb_importer *im, Lb__Onnx__TensorProto *t) {
    if (!t || t->n_dims > LB_IMPORT_DIMS || !bits_of(t->data_type)) /* import reads no such tensor */
        return LB_OK;
    int64_t count = 1;
    for (size_t i = 0; i < t->n_dims; i++)
        count = t->dims[i] > 0 && count <= INT32_MAX / t->dims[i] ? count * t->dims[i] : 0;
    if (lb_import_is_weight(t->data_type, count))
        drop_values(im->ctx, t);
    else if (is_external(t))
        LB_TRY(fetch(im, t));
    drop_location(im->ctx, t);
    return LB_OK;
}

lb_status lb_import_strip(lb_ctx *ctx, const char *path, Lb__Onnx__ModelProto *model) {
    lb_importer im = {.ctx = ctx, .path = path};
    const Lb__Onnx__GraphProto *g = model->graph;
    lb_status status = LB_OK;
    lb_pool_init(&im.pool, ctx);
    for (size_t i = 0; g && i < g->n_initializer && status == LB_OK; i++)
        status = strip(&im, g->initializer[i]);
    for (size_t i = 0; g && i < g->n_node; i++)
        for (size_t a = 0; a < g->node[i]->n_attribute && status == LB_OK; a++)
            status = strip(&im, g->node[i]->attribute[a]->t);
    lb_pool_free(&im.pool);
    return status;
}

#include "train/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor data is copied as it is in memory");

#define LONGEST_FILE ((size_t)1 << 33)
#define LONGEST_HEADER 100000000u /* the format's own limit */
#define HEADER_ALIGN 64u /* where the data begins in files we write */
#define METADATA "__metadata__"
#define NAME "%.200s" /* names come from files: keep room for the reason behind them */

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [LB_ST_F32] = {"F32", 4},   [LB_ST_F16] = {"F16", 2}, [LB_ST_BF16] = {"BF16", 2}, [LB_ST_F64] = {"F64", 8},
    [LB_ST_I64] = {"I64", 8},   [LB_ST_I32] = {"I32", 4}, [LB_ST_I16] = {"I16", 2},   [LB_ST_I8] = {"I8", 1},
    [LB_ST_U64] = {"U64", 8},   [LB_ST_U32] = {"U32", 4}, [LB_ST_U16] = {"U16", 2},   [LB_ST_U8] = {"U8", 1},
    [LB_ST_BOOL] = {"BOOL", 1},
};

const char *lb_st_dtype_name(lb_st_dtype dtype) { return (size_t)dtype < LB_COUNT(dtypes) ? dtypes[dtype].name : "?"; }
size_t lb_st_dtype_size(lb_st_dtype dtype) { return (size_t)dtype < LB_COUNT(dtypes) ? dtypes[dtype].size : 0; }

/* Bytes of a tensor; false when a dimension is negative or the product does not fit. */
static bool tensor_bytes(lb_st_dtype dtype, int ndims, const int64_t *dims, uint64_t *bytes) {
    int64_t product = (int64_t)lb_st_dtype_size(dtype);
    for (int i = 0; i < ndims; i++)
        if (dims[i] < 0 || __builtin_mul_overflow(product, dims[i], &product))
            return false;
    *bytes = (uint64_t)product;
    return true;
}

/* ---- Writing --------------------------------------------------------------------------------------------------- */

/* Adds one tensor to the header and moves *offset behind it. */
static lb_status describe(lb_ctx *ctx, json_t *header, const lb_st_tensor *t, uint64_t *offset) {
    uint64_t bytes;
    if (!t->name || !strcmp(t->name, METADATA))
        return lb_fail(ctx, LB_ERR_ARGUMENT, "a tensor needs a name other than " METADATA);
    if (!lb_st_dtype_size(t->dtype) || t->ndims < 0 || t->ndims > LB_ST_MAX_DIMS ||
        !tensor_bytes(t->dtype, t->ndims, t->dims, &bytes))
        return lb_fail(ctx, LB_ERR_ARGUMENT, "tensor '" NAME "': wrong type or shape", t->name);
    if (bytes && !t->data)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "tensor '" NAME "': no data", t->name);
    if (json_object_get(header, t->name))
        return lb_fail(ctx, LB_ERR_ARGUMENT, "tensor '" NAME "': twice the same name", t->name);
    json_t *name = json_string(t->name); /* NULL when it is not UTF-8 */
    const bool utf8 = name != NULL;
    json_decref(name);
    json_t *shape = json_array();
    int bad = !shape;
    for (int i = 0; i < t->ndims; i++)
        bad |= json_array_append_new(shape, json_integer(t->dims[i]));
    json_t *offsets = json_pack("[I, I]", (json_int_t)*offset, (json_int_t)(*offset + bytes));
    json_t *entry = json_pack("{s:s, s:o, s:o}", "dtype", lb_st_dtype_name(t->dtype), "shape", shape, "data_offsets", offsets);
    if (json_object_set_new(header, t->name, entry) != 0 || bad)
        return utf8 ? lb_fail(ctx, LB_ERR_MEMORY, "out of memory for the header")
                    : lb_fail(ctx, LB_ERR_ARGUMENT, "tensor '" NAME "': the name is not UTF-8", t->name);
    *offset += bytes;
    return LB_OK;
}

static lb_status add_metadata(lb_ctx *ctx, json_t *header, const lb_st_pair *metadata, size_t nmetadata) {
    if (!nmetadata)
        return LB_OK;
    json_t *map = json_object();
    if (json_object_set_new(header, METADATA, map) != 0)
        return lb_fail(ctx, LB_ERR_MEMORY, "out of memory for the header");
    for (size_t i = 0; i < nmetadata; i++) {
        const char *key = metadata[i].key, *value = metadata[i].value;
        if (!key || !value || json_object_get(map, key) || json_object_set_new(map, key, json_string(value)) != 0)
            return lb_fail(ctx, LB_ERR_ARGUMENT, "metadata '" NAME "': missing, twice the same key, or not UTF-8", key ? key : "");
    }
    return LB_OK;
}

static lb_status write_tensors(lb_pool *pool, json_t *header, const char *path, const lb_st_tensor *tensors, size_t ntensors,
                               const lb_st_pair *metadata, size_t nmetadata) {
    lb_ctx *ctx = pool->ctx;
    if (ntensors > INT32_MAX)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "too many tensors");
    lb_span *spans = lb_pool_alloc(pool, ntensors + 2, sizeof *spans); /* length, header, data .. */
    if (!spans)
        return LB_ERR_MEMORY;
    LB_TRY(add_metadata(ctx, header, metadata, nmetadata));
    uint64_t offset = 0;
    int nspans = 2;
    for (size_t size = 8; size > 0; size /= 2)
        for (size_t i = 0; i < ntensors; i++)
            if (lb_st_dtype_size(tensors[i].dtype) == size || (size == 8 && !lb_st_dtype_size(tensors[i].dtype))) {
                uint64_t begin = offset;
                LB_TRY(describe(ctx, header, &tensors[i], &offset));
                spans[nspans++] = (lb_span){tensors[i].data, (size_t)(offset - begin)};
            }
    size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    size_t padded = (8 + length + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN - 8;
    char *text = lb_pool_alloc(pool, padded, 1);
    if (!text)
        return LB_ERR_MEMORY;
    if (padded > LONGEST_HEADER)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "too many tensors for one header");
    memset(text, ' ', padded);
    if (!length || json_dumpb(header, text, length, JSON_COMPACT) != length)
        return lb_fail(ctx, LB_ERR_MEMORY, "out of memory for the header");
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    spans[0] = (lb_span){prefix, sizeof prefix};
    spans[1] = (lb_span){text, padded};
    return lb_write_file(ctx, path, spans, nspans);
}

lb_status lb_safetensors_write(lb_ctx *ctx, const char *path, const lb_st_tensor *tensors, size_t ntensors,
                               const lb_st_pair *metadata, size_t nmetadata) {
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    json_t *header = json_object();
    lb_status status = header ? write_tensors(&pool, header, path, tensors, ntensors, metadata, nmetadata)
                              : lb_fail(ctx, LB_ERR_MEMORY, "out of memory for the header");
    json_decref(header);
    lb_pool_free(&pool);
    if (status != LB_OK && status != LB_ERR_IO) /* which names the file itself */
        lb_fail_in(ctx, status, "%s", path);
    return status;
}

/* ---- Reading --------------------------------------------------------------------------------------------------- */

struct lb_safetensors {
    lb_ctx *ctx;
    lb_pool pool;
    char *path;
    unsigned char *bytes; /* the file */
    json_t *header; /* owns names and metadata */
    size_t count;
    lb_st_tensor *tensors; /* (count) */
};

/* Where a tensor says its data is, for the check that they tile the file. */
typedef struct extent {
    uint64_t begin, end;
    size_t tensor;
} extent;

static int by_begin(const void *a, const void *b) {
    const extent *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static lb_status parse_dtype(lb_ctx *ctx, const json_t *value, lb_st_dtype *dtype) {
    const char *name = json_string_value(value);
    if (!name)
        return lb_fail(ctx, LB_ERR_FORMAT, "dtype is missing or not a string");
    for (size_t i = 0; i < LB_COUNT(dtypes); i++)
        if (!strcmp(name, dtypes[i].name)) {
            *dtype = (lb_st_dtype)i;
            return LB_OK;
        }
    return lb_fail(ctx, LB_ERR_FORMAT, "dtype '%.20s' is unknown; convert the tensor to F32", name);
}

static lb_status parse_tensor(lb_ctx *ctx, json_t *value, uint64_t space, lb_st_tensor *t, extent *e) {
    if (!json_is_object(value))
        return lb_fail(ctx, LB_ERR_FORMAT, "its header entry is not an object");
    LB_TRY(parse_dtype(ctx, json_object_get(value, "dtype"), &t->dtype));
    const json_t *shape = json_object_get(value, "shape"), *offsets = json_object_get(value, "data_offsets");
    if (!json_is_array(shape) || json_array_size(shape) > LB_ST_MAX_DIMS)
        return lb_fail(ctx, LB_ERR_FORMAT, "shape is missing or not a list of at most %d numbers", LB_ST_MAX_DIMS);
    t->ndims = (int)json_array_size(shape);
    for (int i = 0; i < t->ndims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return lb_fail(ctx, LB_ERR_FORMAT, "shape holds something else than counts");
        t->dims[i] = json_integer_value(dim);
    }
    uint64_t bytes;
    if (!tensor_bytes(t->dtype, t->ndims, t->dims, &bytes))
        return lb_fail(ctx, LB_ERR_FORMAT, "shape is larger than any file");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return lb_fail(ctx, LB_ERR_FORMAT, "data_offsets is missing or not a list of two numbers");
    int64_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > space)
        return lb_fail(ctx, LB_ERR_FORMAT, "data_offsets %lld to %lld lie outside the %llu bytes of data; "
                       "is the file cut short? Use another copy",
                       (long long)from, (long long)to, (unsigned long long)space);
    if ((uint64_t)(to - from) != bytes)
        return lb_fail(ctx, LB_ERR_FORMAT, "its shape takes %llu bytes, data_offsets hold %lld", (unsigned long long)bytes,
                       (long long)(to - from));
    e->begin = (uint64_t)from;
    e->end = (uint64_t)to;
    return LB_OK;
}

static lb_status check_metadata(lb_ctx *ctx, json_t *metadata) {
    if (metadata && !json_is_object(metadata))
        return lb_fail(ctx, LB_ERR_FORMAT, METADATA " is not an object");
    const char *key;
    json_t *value;
    json_object_foreach (metadata, key, value)
        if (!json_is_string(value))
            return lb_fail(ctx, LB_ERR_FORMAT, METADATA ": '" NAME "' is not a string", key);
    return LB_OK;
}

/* The tensors must fill `space` bytes, each byte once. */
static lb_status check_tiling(lb_safetensors *file, extent *extents, uint64_t space) {
    qsort(extents, file->count, sizeof *extents, by_begin);
    uint64_t end = 0;
    for (size_t i = 0; i < file->count; i++) {
        const extent *e = &extents[i];
        const char *name = file->tensors[e->tensor].name;
        if (e->begin < end)
            return lb_fail(file->ctx, LB_ERR_FORMAT, "tensor '" NAME "': its data overlaps that of '" NAME "'", name,
                           file->tensors[extents[i - 1].tensor].name);
        if (e->begin > end)
            return lb_fail(file->ctx, LB_ERR_FORMAT, "tensor '" NAME "': %llu unused bytes before its data", name,
                           (unsigned long long)(e->begin - end));
        end = e->end;
    }
    if (end != space)
        return lb_fail(file->ctx, LB_ERR_FORMAT, "%llu unused bytes at the end", (unsigned long long)(space - end));
    return LB_OK;
}

static lb_status parse_tensors(lb_safetensors *file, const unsigned char *data, uint64_t space) {
    lb_ctx *ctx = file->ctx;
    LB_TRY(check_metadata(ctx, json_object_get(file->header, METADATA)));
    size_t most = json_object_size(file->header);
    extent *extents = lb_alloc(ctx, most, sizeof *extents);
    file->tensors = lb_pool_alloc(&file->pool, most, sizeof *file->tensors);
    lb_status status = extents && file->tensors ? LB_OK : LB_ERR_MEMORY;
    if (status == LB_OK) {
        const char *name;
        json_t *value;
        json_object_foreach (file->header, name, value) {
            if (!strcmp(name, METADATA))
                continue;
            extent *e = &extents[file->count];
            lb_st_tensor *t = &file->tensors[file->count];
            status = parse_tensor(ctx, value, space, t, e);
            if (status != LB_OK) {
                lb_fail_in(ctx, status, "tensor '" NAME "'", name);
                break;
            }
            t->name = name;
            e->tensor = file->count++;
        }
    }
    if (status == LB_OK)
        status = check_tiling(file, extents, space);
    for (size_t i = 0; i < file->count && status == LB_OK; i++) {
        const extent *e = &extents[i];
        lb_st_tensor *t = &file->tensors[e->tensor];
        t->data = data + e->begin;
        if ((uintptr_t)t->data %
            lb_st_dtype_size(t->dtype)) { /* other writers do not align; copying is bounded by the file's size */
            void *copy = lb_pool_alloc(&file->pool, (size_t)(e->end - e->begin), 1);
            if (copy)
                memcpy(copy, t->data, (size_t)(e->end - e->begin));
            else
                status = LB_ERR_MEMORY;
            t->data = copy;
        }
    }
    lb_free(ctx, extents);
    return status;
}

static lb_status parse_file(lb_safetensors *file, size_t size) {
    lb_ctx *ctx = file->ctx;
    if (size < 8)
        return lb_fail(ctx, LB_ERR_FORMAT, "%zu bytes are too few for a safetensors file; use another copy", size);
    uint64_t length = 0;
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)file->bytes[i] << 8 * i;
    if (length > LONGEST_HEADER || length > size - 8)
        return lb_fail(ctx, LB_ERR_FORMAT,
                       "a header of %llu bytes does not fit a file of %zu: cut short, or not a safetensors file; use another copy",
                       (unsigned long long)length, size);
    const char *text = (const char *)file->bytes + 8;
    json_error_t error;
    if (length == 0 || text[0] != '{')
        return lb_fail(ctx, LB_ERR_FORMAT, "the header does not begin with '{': not a safetensors file");
    file->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!file->header)
        return json_error_code(&error) == json_error_out_of_memory
                   ? lb_fail(ctx, LB_ERR_MEMORY, "out of memory for the header")
                   : lb_fail(ctx, LB_ERR_FORMAT, "the header is not valid JSON: %s (byte %d)", error.text, error.position + 8);
    return parse_tensors(file, file->bytes + 8 + length, size - 8 - length);
}

lb_status lb_safetensors_read(lb_ctx *ctx, const char *path, lb_safetensors **out) {
    *out = NULL;
    lb_safetensors *file = lb_alloc(ctx, 1, sizeof *file);
    if (!file)
        return LB_ERR_MEMORY;
    file->ctx = ctx;
    lb_pool_init(&file->pool, ctx);
    file->path = lb_pool_strdup(&file->pool, path);
    size_t size;
    lb_status status = file->path ? lb_read_file(ctx, path, LONGEST_FILE, &file->bytes, &size) : LB_ERR_MEMORY;
    if (status == LB_OK) {
        status = parse_file(file, size);
        if (status != LB_OK)
            lb_fail_in(ctx, status, "%s", path);
    }
    if (status != LB_OK) {
        lb_safetensors_destroy(file);
        return status;
    }
    *out = file;
    return LB_OK;
}

void lb_safetensors_destroy(lb_safetensors *file) {
    if (!file)
        return;
    json_decref(file->header);
    lb_free(file->ctx, file->bytes);
    lb_pool_free(&file->pool);
    lb_free(file->ctx, file);
}

/* ---- Looking up ------------------------------------------------------------------------------------------------ */

size_t lb_safetensors_count(const lb_safetensors *file) { return file->count; }

const lb_st_tensor *lb_safetensors_at(const lb_safetensors *file, size_t i) { return i < file->count ? &file->tensors[i] : NULL; }

const lb_st_tensor *lb_safetensors_find(const lb_safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (!strcmp(file->tensors[i].name, name))
            return &file->tensors[i];
    return NULL;
}

const char *lb_safetensors_metadata(const lb_safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, METADATA), key));
}

static void shape_text(char *dst, size_t size, int ndims, const int64_t *dims) {
    size_t used = (size_t)snprintf(dst, size, "(");
    for (int i = 0; i < ndims && used < size; i++)
        used += (size_t)snprintf(dst + used, size - used, i ? ", %lld" : "%lld", (long long)dims[i]);
    if (used < size)
        snprintf(dst + used, size - used, ")");
}

static lb_status missing(const lb_safetensors *file, const char *name) {
    const char **names = lb_alloc(file->ctx, file->count, sizeof *names);
    const char *near = NULL;
    if (names) {
        for (size_t i = 0; i < file->count; i++)
            names[i] = file->tensors[i].name;
        near = lb_nearest(name, names, file->count);
    }
    lb_free(file->ctx, names);
    return near
               ? lb_fail(file->ctx, LB_ERR_SHAPE, "%s: has no tensor '" NAME "'; the nearest is '" NAME "'", file->path, name, near)
               : lb_fail(file->ctx, LB_ERR_SHAPE, "%s: has no tensor '" NAME "'; is it another network's?", file->path, name);
}

lb_status lb_safetensors_get(const lb_safetensors *file, const char *name, lb_st_dtype dtype, int ndims, const int64_t *dims,
                             const void **data) {
    const lb_st_tensor *t = lb_safetensors_find(file, name);
    if (!t)
        return missing(file, name);
    bool same = t->dtype == dtype && t->ndims == ndims;
    for (int i = 0; i < ndims && same; i++)
        same = t->dims[i] == dims[i];
    if (!same) {
        char is[200], should[200];
        shape_text(is, sizeof is, t->ndims, t->dims);
        shape_text(should, sizeof should, ndims, dims);
        return lb_fail(file->ctx, LB_ERR_SHAPE, "%s: tensor '" NAME "' is %s %s, but %s %s is needed; is it another network's?",
                       file->path, name, lb_st_dtype_name(t->dtype), is, lb_st_dtype_name(dtype), should);
    }
    *data = t->data;
    return LB_OK;
}

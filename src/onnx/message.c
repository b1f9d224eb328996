/* Model files to messages and back. */
#include "onnx/onnx.h"

#define MAX_BYTES ((size_t)INT32_MAX) /* of a protobuf message */
#define MAX_DEPTH 64 /* nested messages; a graph inside an attribute takes three levels */
#define MAX_BLOCKS 4000000 /* messages, texts and fields that nobody knows: 2 bytes become hundreds in memory */

static void *allocate(void *ctx, size_t size) { return lb_alloc(ctx, 1, size); }
static void release(void *ctx, void *ptr) { lb_free(ctx, ptr); }

ProtobufCAllocator lb_onnx_allocator(lb_ctx *ctx) {
    return (ProtobufCAllocator){.alloc = allocate, .free = release, .allocator_data = ctx};
}

/* ---- Checking the wire format before protobuf-c, which recurses without a limit -------------------------------------- */

typedef struct cursor {
    const unsigned char *at, *end;
} cursor;

static bool varint(cursor *in, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        unsigned char byte = *in->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool skip(cursor *in, uint64_t bytes) {
    if (bytes > (uint64_t)(in->end - in->at))
        return false;
    in->at += bytes;
    return true;
}

/* True if every length lies inside its message, nesting is at most `depth`, and *budget blocks of memory suffice. */
static bool check(cursor in, const ProtobufCMessageDescriptor *type, int depth, int64_t *budget) {
    if (depth == 0)
        return false;
    while (in.at < in.end) {
        uint64_t key, value;
        if (!varint(&in, &key))
            return false;
        const ProtobufCFieldDescriptor *field =
            key >> 3 <= UINT32_MAX ? protobuf_c_message_descriptor_get_field(type, (unsigned)(key >> 3)) : NULL;
        if (((key & 7) == 2 || !field) && --*budget < 0)
            return false;
        switch (key & 7) {
        case 0:
            if (!varint(&in, &value))
                return false;
            break;
        case 1:
            if (!skip(&in, 8))
                return false;
            break;
        case 5:
            if (!skip(&in, 4))
                return false;
            break;
        case 2: {
            const unsigned char *body;
            if (!varint(&in, &value) || (body = in.at, !skip(&in, value)))
                return false;
            if (field && field->type == PROTOBUF_C_TYPE_MESSAGE &&
                !check((cursor){body, body + value}, field->descriptor, depth - 1, budget))
                return false;
            break;
        }
        default: return false; /* groups are not used */
        }
    }
    return true;
}

/* ---- In and out ---------------------------------------------------------------------------------------------------- */

lb_status lb_onnx_parse(lb_ctx *ctx, const char *path, const void *data, size_t size, Lb__Onnx__ModelProto **model) {
    *model = NULL;
    int64_t budget = MAX_BLOCKS;
    const unsigned char *bytes = data;
    if (size > 4 && !memcmp(bytes, "PK\3\4", 4))
        return lb_fail(ctx, LB_ERR_FORMAT,
                       "%s: a zip archive, perhaps of torch.save, not an ONNX model; torch.onnx.export writes one", path);
    if (size == 0 || size > MAX_BYTES ||
        !check((cursor){bytes, bytes + size}, &lb__onnx__model_proto__descriptor, MAX_DEPTH, &budget))
        return lb_fail(ctx, LB_ERR_FORMAT, "%s: not an ONNX model, or cut off or damaged; export it again", path);
    ProtobufCAllocator allocator = lb_onnx_allocator(ctx);
    ctx->error[0] = 0;
    *model = lb__onnx__model_proto__unpack(&allocator, size, data);
    if (!*model)
        return *ctx->error ? LB_ERR_MEMORY
                           : lb_fail(ctx, LB_ERR_FORMAT, "%s: not an ONNX model, or damaged; export it again", path);
    return LB_OK;
}

lb_status lb_onnx_load(lb_ctx *ctx, const char *path, Lb__Onnx__ModelProto **model) {
    unsigned char *data;
    size_t size;
    *model = NULL;
    LB_TRY(lb_read_file(ctx, path, MAX_BYTES, &data, &size));
    lb_status status = lb_onnx_parse(ctx, path, data, size, model);
    lb_free(ctx, data);
    return status;
}

void lb_onnx_free(lb_ctx *ctx, Lb__Onnx__ModelProto *model) {
    ProtobufCAllocator allocator = lb_onnx_allocator(ctx);
    if (model)
        lb__onnx__model_proto__free_unpacked(model, &allocator);
}

lb_status lb_onnx_save(lb_ctx *ctx, const char *path, const Lb__Onnx__ModelProto *model) {
    size_t size = lb__onnx__model_proto__get_packed_size(model);
    if (size > MAX_BYTES)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: %zu bytes; an ONNX file holds at most 2 GB", path, size);
    unsigned char *data = lb_alloc(ctx, size, 1);
    if (!data)
        return LB_ERR_MEMORY;
    lb__onnx__model_proto__pack(model, data);
    lb_span span = {data, size};
    lb_status status = lb_write_file(ctx, path, &span, 1);
    lb_free(ctx, data);
    return status;
}

/* libFuzzer: any bytes as an ONNX model. What is read is imported, with its weights and as a graph alone. */
#include <assert.h>
#include <stdlib.h>

#include "net/import/import.h"

#define LIMIT ((size_t)1 << 26) /* bytes of one block: a network may be large by right */

static void *allocate(void *user, size_t size) {
    (void)user;
    return size > LIMIT ? NULL : aligned_alloc(LB_ALIGN, (size + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN);
}

static void release(void *user, void *ptr) {
    (void)user;
    free(ptr);
}

static void import(lb_ctx *ctx, const Lb__Onnx__ModelProto *model, bool graph_only) {
    const lb_import_options options = {.input = {8, 8, 3}, .graph_only = graph_only};
    lb_imported in;
    if (lb_net_import(ctx, model, "fuzz.onnx", &options, &in) == LB_OK) {
        assert(in.net && in.net->finished);
        lb_net_destroy(in.net);
    } else {
        assert(!in.net && *lb_error(ctx) && !strpbrk(lb_error(ctx), "\n\r"));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const lb_ctx_options options = {.allocator = {allocate, release, NULL}};
    lb_ctx *ctx;
    Lb__Onnx__ModelProto *model;
    if (lb_ctx_create(&options, &ctx) != LB_OK)
        return 0;
    if (lb_onnx_parse(ctx, "fuzz.onnx", data, size, &model) == LB_OK) {
        import(ctx, model, false);
        import(ctx, model, true);
        if (lb_import_strip(ctx, "fuzz.onnx", model) == LB_OK)
            import(ctx, model, true);
        lb_onnx_free(ctx, model);
    }
    lb_ctx_destroy(ctx);
    return 0;
}

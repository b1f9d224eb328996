/* A small network as an ONNX model, built node by node, for tests of import: 8x8 images of three channels, convolution,
 * activation, pooling, classifier. */
#ifndef LB_TEST_IMPORT_H
#define LB_TEST_IMPORT_H

#include "net/import/import.h"
#include "onnx/build.h"
#include "support.h"

enum { FLOAT_TYPE = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, INT64_TYPE = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64 };

/* Values that differ. */
static inline const char *test_weights(lb_onnx_build *b, const char *name, int ndim, const int64_t *dims) {
    size_t count = 1;
    for (int i = 0; i < ndim; i++)
        count *= (size_t)dims[i];
    float *values = calloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(i * 7919 % 201) - 100) / 100;
    lb_onnx_tensor(b, name, FLOAT_TYPE, ndim, dims, values);
    free(values);
    return name;
}

static inline void test_list(lb_onnx_build *b, const char *name, int64_t count, const float *values) {
    lb_onnx_tensor(b, name, INT64_TYPE, 1, &count, values);
}

#define TEST_NODE(b, op, output, ...)                                                                                              \
    lb_onnx_node(b, op, output, (int)LB_COUNT(((const char *[]){__VA_ARGS__})), (const char *[]){__VA_ARGS__})

static inline void test_model(lb_onnx_build *b, lb_ctx *ctx) {
    lb_onnx_build_init(b, ctx, "small");
    lb_onnx_opset(b, "", 13);
    lb_onnx_input(b, "image", 4, (const int64_t[]){0, 3, 8, 8});
    Lb__Onnx__NodeProto *conv =
        TEST_NODE(b, "Conv", "conv_out", "image", test_weights(b, "conv.weight", 4, (const int64_t[]){4, 3, 3, 3}),
                  test_weights(b, "conv.bias", 1, (const int64_t[]){4}));
    lb_onnx_ints(b, conv, "kernel_shape", (const int[]){3, 3}, 2);
    lb_onnx_ints(b, conv, "pads", (const int[]){1, 1, 1, 1}, 4);
    lb_onnx_ints(b, conv, "strides", (const int[]){1, 1}, 2);
    TEST_NODE(b, "Relu", "relu_out", "conv_out");
    Lb__Onnx__NodeProto *pool = TEST_NODE(b, "MaxPool", "pool_out", "relu_out");
    lb_onnx_ints(b, pool, "kernel_shape", (const int[]){2, 2}, 2);
    lb_onnx_ints(b, pool, "strides", (const int[]){2, 2}, 2);
    test_list(b, "shape", 2, (const float[]){0, -1});
    TEST_NODE(b, "Reshape", "flat", "pool_out", "shape");
    Lb__Onnx__NodeProto *gemm = TEST_NODE(b, "Gemm", "gemm_out", "flat", test_weights(b, "fc.weight", 2, (const int64_t[]){5, 64}),
                                          test_weights(b, "fc.bias", 1, (const int64_t[]){5}));
    lb_onnx_int(b, gemm, "transB", 1);
    lb_onnx_output(b, "gemm_out", "scores", 2, (const int64_t[]){0, 5});
}

/* The node that was appended last goes to place `at`, since nodes stand in the order in which they run. */
static inline void test_node_to(lb_onnx_build *b, size_t at) {
    Lb__Onnx__NodeProto **nodes = b->graph.node, *last = nodes[b->graph.n_node - 1];
    memmove(nodes + at + 1, nodes + at, (b->graph.n_node - 1 - at) * sizeof *nodes);
    nodes[at] = last;
}

/* What the test changes: the first node of an operator, an initializer by name, a name. */
static inline Lb__Onnx__NodeProto *node_of(lb_onnx_build *b, const char *op) {
    for (size_t i = 0; i < b->graph.n_node; i++)
        if (!strcmp(b->graph.node[i]->op_type, op))
            return b->graph.node[i];
    fail_msg("no %s", op);
    return NULL;
}

static inline Lb__Onnx__TensorProto *tensor_of(lb_onnx_build *b, const char *name) {
    for (size_t i = 0; i < b->graph.n_initializer; i++)
        if (!strcmp(b->graph.initializer[i]->name, name))
            return b->graph.initializer[i];
    fail_msg("no %s", name);
    return NULL;
}

#define TEXT(text) ((char *)(uintptr_t)(text))

/* A model that is wrong in one way, and what the error says of it. */
typedef struct test_refusal {
    void (*change)(lb_onnx_build *b);
    const char *says;
} test_refusal;

/* Each is one line that names the file, and no network comes of it. */
static inline void assert_refused(const test_refusal *rows, size_t count) {
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < count; i++) {
        lb_onnx_build b;
        lb_imported in = {0};
        test_model(&b, ctx);
        rows[i].change(&b);
        const lb_status status = lb_net_import(ctx, &b.model, "bad.onnx", NULL, &in);
        if (status != LB_ERR_FORMAT && status != LB_ERR_UNSUPPORTED && status != LB_ERR_SHAPE && status != LB_ERR_IO)
            fail_msg("row %zu, '%s': %s: %s", i, rows[i].says, lb_status_name(status), lb_error(ctx));
        assert_null(in.net);
        if (!strstr(lb_error(ctx), rows[i].says) || strncmp(lb_error(ctx), "bad.onnx: ", 10) || strpbrk(lb_error(ctx), "\n\x1b"))
            fail_msg("row %zu: '%s' is not in '%s'", i, rows[i].says, lb_error(ctx));
        lb_onnx_build_free(&b);
    }
    lb_ctx_destroy(ctx);
}

#endif

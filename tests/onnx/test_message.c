/* Model files: a round trip, every truncation, deep nesting, lengths that lie, no memory. */
#include <unistd.h>

#include "support.h"

#include "onnx/onnx.h"

/* A model with one node and one initializer, packed into `out`. */
static size_t small_model(unsigned char *out) {
    Lb__Onnx__NodeProto node = LB__ONNX__NODE_PROTO__INIT;
    char op[] = "MatMul", x_name[] = "x", w_name[] = "w", y_name[] = "y"; /* protobuf-c's strings are not const */
    char *names[] = {x_name, w_name}, *results[] = {y_name};
    node.op_type = op;
    node.n_input = 2, node.input = names;
    node.n_output = 1, node.output = results;
    Lb__Onnx__TensorProto w = LB__ONNX__TENSOR_PROTO__INIT;
    int64_t dims[] = {2, 1};
    float values[] = {1.5f, -2};
    w.name = w_name, w.has_data_type = 1, w.data_type = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    w.n_dims = 2, w.dims = dims, w.n_float_data = 2, w.float_data = values;
    Lb__Onnx__NodeProto *nodes[] = {&node};
    Lb__Onnx__TensorProto *tensors[] = {&w};
    Lb__Onnx__GraphProto graph = LB__ONNX__GRAPH_PROTO__INIT;
    graph.n_node = 1, graph.node = nodes;
    graph.n_initializer = 1, graph.initializer = tensors;
    Lb__Onnx__ModelProto model = LB__ONNX__MODEL_PROTO__INIT;
    model.has_ir_version = 1, model.ir_version = 8;
    model.graph = &graph;
    return lb__onnx__model_proto__pack(&model, out);
}

static void round_trip(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char data[512];
    size_t size = small_model(data);
    Lb__Onnx__ModelProto *model, *again;
    assert_ok(ctx, lb_onnx_parse(ctx, "memory", data, size, &model));
    char path[] = "/tmp/lowbit_onnx_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_ok(ctx, lb_onnx_save(ctx, path, model));
    assert_ok(ctx, lb_onnx_load(ctx, path, &again));
    unlink(path);
    assert_int_equal(again->ir_version, 8);
    assert_string_equal(again->graph->node[0]->op_type, "MatMul");
    assert_float_equal(again->graph->initializer[0]->float_data[1], -2, 0);
    lb_onnx_free(ctx, model);
    lb_onnx_free(ctx, again);
    lb_ctx_destroy(ctx);
}

static void truncated(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char data[512];
    size_t size = small_model(data);
    int refused = 0;
    for (size_t n = 0; n < size; n++) {
        Lb__Onnx__ModelProto *model;
        lb_status status = lb_onnx_parse(ctx, "cut.onnx", data, n, &model);
        if (status != LB_OK) {
            assert_int_equal(status, LB_ERR_FORMAT);
            assert_non_null(strstr(lb_error(ctx), "cut.onnx: "));
            assert_null(model);
            refused++;
        }
        lb_onnx_free(ctx, model);
    }
    assert_true(refused > (int)size - 4); /* cut between top-level fields it is a valid, shorter message */
    lb_ctx_destroy(ctx);
}

/* Every single byte changed to a few values: an answer, no crash. */
static void mutated(void **state) {
    (void)state;
    static const unsigned char values[] = {0, 1, 0x7f, 0x80, 0xff};
    lb_ctx *ctx = test_ctx();
    unsigned char data[512];
    size_t size = small_model(data);
    for (size_t i = 0; i < size; i++)
        for (size_t v = 0; v < LB_COUNT(values); v++) {
            unsigned char old = data[i];
            data[i] = values[v];
            Lb__Onnx__ModelProto *model;
            lb_onnx_parse(ctx, "memory", data, size, &model);
            lb_onnx_free(ctx, model);
            data[i] = old;
        }
    lb_ctx_destroy(ctx);
}

/* Graph in attribute in node in graph ... 100,000 deep, each length true. Built from the inside out, at the end of a buffer. */
static void nested(void **state) {
    (void)state;
    enum { LEVELS = 100000, SIZE = (3 * LEVELS + 1) * 6 };
    static unsigned char buffer[SIZE];
    static const unsigned char keys[] = {1 << 3 | 2 /* graph.node */, 5 << 3 | 2 /* node.attribute */,
                                         6 << 3 | 2 /* attribute.g */};
    size_t at = SIZE;
    for (int i = 0; i <= 3 * LEVELS; i++) {
        unsigned char head[8];
        size_t n = 0, length = SIZE - at;
        head[n++] = i == 3 * LEVELS ? 7 << 3 | 2 /* model.graph */ : keys[2 - i % 3];
        do
            head[n++] = (unsigned char)((length & 0x7f) | (length > 0x7f ? 0x80 : 0));
        while (length >>= 7);
        at -= n;
        memcpy(buffer + at, head, n);
    }
    lb_ctx *ctx = test_ctx();
    Lb__Onnx__ModelProto *model;
    assert_int_equal(lb_onnx_parse(ctx, "deep.onnx", buffer + at, SIZE - at, &model), LB_ERR_FORMAT);
    lb_ctx_destroy(ctx);
}

/* Millions of texts, or of fields that no schema has, of two bytes each. */
static void many_blocks(void **state) {
    (void)state;
    enum { COUNT = 4100000 };
    static const unsigned char inner[][2] = {{1 << 3 | 2 /* node.input */, 0},
                                             {12 << 3 /* a number in a field that nodes have not */, 0}};
    for (int kind = 0; kind < 2; kind++) {
        test_allocator allocator = {.left = 1000000};
        lb_ctx *poor = test_ctx_with(&allocator);
        unsigned char *data = malloc(2 * COUNT + 32);
        Lb__Onnx__ModelProto *model;
        size_t at = 0;
        const unsigned char keys[] = {7 << 3 | 2 /* model.graph */, 1 << 3 | 2 /* graph.node */};
        for (size_t level = 0; level < 2; level++) {
            size_t length = 2 * COUNT + (level == 0 ? 5 : 0);
            data[at++] = keys[level];
            for (; length > 0x7f; length >>= 7)
                data[at++] = (unsigned char)((length & 0x7f) | 0x80);
            data[at++] = (unsigned char)length;
        }
        for (int i = 0; i < COUNT; i++, at += 2)
            memcpy(data + at, inner[kind], 2);
        assert_int_equal(lb_onnx_parse(poor, "many.onnx", data, at, &model), LB_ERR_FORMAT);
        free(data);
        lb_ctx_destroy(poor);
        assert_int_equal(allocator.alive, 0);
    }
}

static void no_memory(void **state) {
    (void)state;
    unsigned char data[512];
    size_t size = small_model(data);
    for (long left = 1;; left++) {
        test_allocator allocator = {.left = left};
        lb_ctx *ctx = test_ctx_with(&allocator);
        if (!ctx)
            continue;
        Lb__Onnx__ModelProto *model;
        lb_status status = lb_onnx_parse(ctx, "memory", data, size, &model);
        lb_onnx_free(ctx, model);
        lb_ctx_destroy(ctx);
        assert_int_equal(allocator.alive, 0);
        if (status == LB_OK)
            break;
        assert_int_equal(status, LB_ERR_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(truncated),   cmocka_unit_test(mutated),
        cmocka_unit_test(nested),     cmocka_unit_test(many_blocks), cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

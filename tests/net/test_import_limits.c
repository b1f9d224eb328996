/* Import of ONNX models that are small files and want much: time, memory. Each is read quickly, or refused before it has it. */
#include "import.h"

enum { MANY = 19990 };

static lb_status import_built(lb_ctx *ctx, lb_onnx_build *b, bool graph_only, lb_imported *in) {
    *in = (lb_imported){0};
    assert_ok(ctx, b->status);
    return lb_net_import(ctx, &b->model, "limits.onnx", &(lb_import_options){.graph_only = graph_only}, in);
}

/* Layers of one name each get the next number; finding it takes no longer the more there are. */
static void same_names(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported in;
    test_model(&b, ctx);
    const char *src = "scores";
    for (int i = 0; i < MANY; i++) {
        const char *dst = i == MANY - 1 ? "last" : lb_onnx_name(&b, "t%d", i);
        TEST_NODE(&b, "Sigmoid", dst, src)->name = TEXT(i == 3 ? "same_3" : "same");
        src = dst;
    }
    b.graph.output[0]->name = TEXT("last");
    const double begin = lb_thread_time();
    assert_ok(ctx, import_built(ctx, &b, false, &in));
    const double took = lb_thread_time() - begin;
    static const char *const names[] = {"same", "same_2", "same_3", "same_3_2", "same_4", "same_5"};
    for (size_t i = 0; i < LB_COUNT(names); i++)
        assert_int_equal(lb_net_find(in.net, names[i]), lb_net_find(in.net, "same") + (int)i);
    printf("%d layers of one name: %.2f s\n", MANY, took);
    assert_true(took < 20);
    lb_net_destroy(in.net);
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

/* Each wants more numbers than a file of its size may have. */
static void large_constants(lb_onnx_build *b) { /* the size of weights that are not there allows nothing */
    test_model(b, b->pool.ctx);
    test_list(b, "size", 1, (const float[]){1 << 27});
    lb_onnx_tensor(b, "absent", FLOAT_TYPE, 1, (const int64_t[]){1}, (const float[]){0});
    tensor_of(b, "absent")->dims[0] = 1 << 27;
    tensor_of(b, "absent")->has_raw_data = 0;
    TEST_NODE(b, "Identity", "again", "absent");
    TEST_NODE(b, "ConstantOfShape", "filled", "size");
    TEST_NODE(b, "Add", "sum", "again", "filled");
    TEST_NODE(b, "Conv", "last", "conv_out", "sum");
}
static void many_channels(lb_onnx_build *b) {
    test_model(b, b->pool.ctx);
    test_weights(b, "wide", 4, (const int64_t[]){1, 4, 1, 1});
    tensor_of(b, "wide")->dims[0] = 1 << 25;
    tensor_of(b, "wide")->has_raw_data = 0;
    test_list(b, "from", 1, (const float[]){0});
    test_list(b, "to", 1, (const float[]){(1 << 25) - 8});
    test_list(b, "axis", 1, (const float[]){1});
    TEST_NODE(b, "GlobalAveragePool", "mean", "relu_out");
    TEST_NODE(b, "Conv", "widened", "mean", "wide");
    TEST_NODE(b, "Slice", "last", "widened", "from", "to", "axis");
}
static void large_input(lb_onnx_build *b, int c, int side) {
    lb_onnx_build_init(b, b->pool.ctx, "large");
    lb_onnx_opset(b, "", 13);
    lb_onnx_input(b, "image", 4, (const int64_t[]){0, c, side, side});
}
static void many_orders(lb_onnx_build *b) {
    large_input(b, 64, 64);
    test_weights(b, "fc.weight", 2, (const int64_t[]){1 << 18, 2});
    lb_onnx_int(b, TEST_NODE(b, "Flatten", "flat", "image"), "axis", 1);
    for (int i = 0; i < 80; i++)
        TEST_NODE(b, "MatMul", lb_onnx_name(b, "fc%d", i), "flat", "fc.weight");
    for (int i = 0; i < 80; i++)
        TEST_NODE(b, "Add", i == 79 ? "last" : lb_onnx_name(b, "sum%d", i), i ? lb_onnx_name(b, "sum%d", i - 1) : "fc0",
                  lb_onnx_name(b, "fc%d", i));
}
static void many_factors(lb_onnx_build *b) {
    large_input(b, 65535, 5);
    test_weights(b, "factors", 4, (const int64_t[]){1, 65535, 1, 1});
    for (int i = 0; i < 200; i++)
        TEST_NODE(b, "Mul", i == 199 ? "last" : lb_onnx_name(b, "t%d", i), i ? lb_onnx_name(b, "t%d", i - 1) : "image", "factors");
}
static void wide_input(lb_onnx_build *b) {
    large_input(b, (1 << 20) + 1, 5);
    TEST_NODE(b, "Relu", "last", "image");
}

static void join(lb_onnx_build *b, int nodes, int ninputs) {
    static const char *inputs[4097];
    for (int i = 0; i < ninputs; i++)
        inputs[i] = "relu_out";
    test_model(b, b->pool.ctx);
    for (int i = 0; i < nodes; i++)
        lb_onnx_node(b, "Concat", i ? lb_onnx_name(b, "t%d", i) : "last", ninputs, inputs);
}
static void many_inputs(lb_onnx_build *b) { join(b, 1, 4097); }
static void many_lists(lb_onnx_build *b) { join(b, 50, 4000); }

static void beyond_reason(void **state) {
    (void)state;
    static const struct {
        void (*make)(lb_onnx_build *b);
        const char *says;
    } rows[] = {
        {large_constants, "node 'filled' (ConstantOfShape): what is computed from constants grows beyond reason"},
        {many_channels, "node 'last' (Slice): what is computed from constants grows beyond reason"},
        {many_orders, "(MatMul): what is computed from constants grows beyond reason"},
        {many_factors, "(Mul): what is computed from constants grows beyond reason"},
        {many_inputs, "a node has 4097 inputs; up to 4096 are read"},
        {many_lists, "its nodes have 200"},
        {wide_input, "and 1048577 channels"},
    };
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_onnx_build b = {.pool.ctx = ctx};
        lb_imported in;
        rows[i].make(&b);
        if (b.graph.n_output == 0)
            lb_onnx_output(&b, "last", "last", 2, (const int64_t[]){0, 2});
        b.graph.output[0]->name = TEXT("last");
        const lb_status status = import_built(ctx, &b, true, &in);
        if (status != LB_ERR_UNSUPPORTED || !strstr(lb_error(ctx), rows[i].says))
            fail_msg("row %zu, '%s': %s: %s", i, rows[i].says, lb_status_name(status), lb_error(ctx));
        lb_onnx_build_free(&b);
    }
    lb_ctx_destroy(ctx);
}

/* Weights whose values the graph alone lacks cost nothing there: it must not be refused where the whole file was read. */
static void graph_of_large_weights(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported in;
    lb_onnx_build_init(&b, ctx, "turned");
    lb_onnx_opset(&b, "", 13);
    lb_onnx_input(&b, "image", 4, (const int64_t[]){0, 2048, 5, 5});
    test_weights(&b, "wide", 4, (const int64_t[]){1, 1, 1, 1});
    for (int d = 0; d < 2; d++)
        tensor_of(&b, "wide")->dims[d] = d ? 9000 : 2048;
    tensor_of(&b, "wide")->has_raw_data = 0;
    lb_onnx_scalar(&b, "factor", FLOAT_TYPE, 2);
    TEST_NODE(&b, "Mul", "larger", "wide", "factor");
    TEST_NODE(&b, "GlobalAveragePool", "mean", "image");
    TEST_NODE(&b, "ConvTranspose", "last", "mean", "larger");
    lb_onnx_output(&b, "last", "scores", 4, (const int64_t[]){0, 9000, 1, 1});
    assert_ok(ctx, import_built(ctx, &b, true, &in));
    assert_int_equal(in.net->classes, 9000);
    lb_net_destroy(in.net);
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_names),
        cmocka_unit_test(beyond_reason),
        cmocka_unit_test(graph_of_large_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Import of ONNX models: what becomes of a small network, and that each damaged, hostile or unsupported model is one clear error.
 * What imported networks compute is tested in tests/deploy/test_import.c and tests/deploy/test_onnx_cases.c. */
#include <float.h>
#include <math.h>

#include "import.h"

static Lb__Onnx__AttributeProto *attribute_of(lb_onnx_build *b, const char *op, const char *name) {
    Lb__Onnx__NodeProto *node = node_of(b, op);
    for (size_t i = 0; i < node->n_attribute; i++)
        if (!strcmp(node->attribute[i]->name, name))
            return node->attribute[i];
    fail_msg("no %s", name);
    return NULL;
}

/* ---- What becomes of it ----------------------------------------------------------------------------------------------- */

static void small_network(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported in;
    test_model(&b, ctx);
    assert_ok(ctx, b.status);
    assert_ok(ctx, lb_net_import(ctx, &b.model, "small.onnx", NULL, &in));
    const lb_net *net = in.net;
    assert_string_equal(net->name, "onnx");
    assert_int_equal(net->classes, 5);
    static const struct {
        const char *name;
        lb_op op;
    } nodes[] = {{"input", LB_OP_INPUT},      {"conv", LB_OP_CONV},       {"conv.bn", LB_OP_BATCHNORM}, {"relu_out", LB_OP_ACT},
                 {"pool_out", LB_OP_MAXPOOL}, {"flatten", LB_OP_FLATTEN}, {"fc", LB_OP_LINEAR}};
    assert_int_equal(net->nnodes, LB_COUNT(nodes));
    for (size_t i = 0; i < LB_COUNT(nodes); i++) {
        assert_string_equal(net->nodes[i].name, nodes[i].name);
        assert_int_equal(net->nodes[i].op, nodes[i].op);
    }
    /* (oc, ic, kh, kw) to (oc, kh, kw, ic); (c, h, w) to (h, w, c) */
    const float *conv = lb_param_values(net, net->nodes[1].param[0]), *fc = lb_param_values(net, net->nodes[6].param[0]);
    for (int k = 0; k < 108; k++) {
        const int o = k / 27, y = k / 9 % 3, x = k / 3 % 3, i = k % 3;
        assert_float_equal(conv[k], (float)((((o * 3 + i) * 3 + y) * 3 + x) * 7919 % 201 - 100) / 100, 0);
    }
    for (int k = 0; k < 320; k++) {
        const int o = k / 64, p = k / 4 % 16, c = k % 4;
        assert_float_equal(fc[k], (float)((o * 64 + c * 16 + p) * 7919 % 201 - 100) / 100, 0);
    }
    assert_true(net->nodes[2].u.bn.calibrate);
    assert_float_equal(lb_param_values(net, net->nodes[2].param[0])[3], 1.000005f, 1e-6);
    lb_net_destroy(in.net);
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

/* One convolution over a signal of 20 samples in three channels, and the mean of all. */
static void import_signal(lb_ctx *ctx, bool last, lb_imported *in) {
    lb_onnx_build b;
    lb_onnx_build_init(&b, ctx, "signal");
    lb_onnx_opset(&b, "", 13);
    lb_onnx_input(&b, "signal", 3, last ? (const int64_t[]){0, 20, 3} : (const int64_t[]){0, 3, 20});
    if (last) /* as Keras has it: an image of one row */
        test_list(&b, "axis", 1, (const float[]){1});
    if (last)
        TEST_NODE(&b, "Unsqueeze", "row", "signal", "axis");
    if (last)
        lb_onnx_ints(&b, TEST_NODE(&b, "Transpose", "turned", "row"), "perm", (const int[]){0, 3, 1, 2}, 4);
    test_weights(&b, "conv.weight", last ? 4 : 3, last ? (const int64_t[]){5, 3, 1, 4} : (const int64_t[]){5, 3, 4});
    TEST_NODE(&b, "Conv", "conv", last ? "turned" : "signal", "conv.weight");
    TEST_NODE(&b, "GlobalAveragePool", "mean", "conv");
    lb_onnx_int(&b, TEST_NODE(&b, "Flatten", "flat", "mean"), "axis", 1);
    lb_onnx_output(&b, "flat", "scores", 2, (const int64_t[]){0, 5});
    assert_ok(ctx, b.status);
    assert_ok(ctx, lb_net_import(ctx, &b.model, "signal.onnx", NULL, in));
    lb_onnx_build_free(&b);
}

/* Channels first, or last. */
static void signals(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_imported in[2];
    for (int last = 0; last < 2; last++) {
        import_signal(ctx, last, &in[last]);
        const lb_shape *image = &in[last].net->nodes[0].dst, *conv = &in[last].net->nodes[1].dst;
        assert_true(image->h == 1 && image->w == 20 && image->c == 3);
        assert_true(conv->h == 1 && conv->w == 17 && conv->c == 5);
    }
    assert_int_equal(in[0].net->nvalues, in[1].net->nvalues);
    assert_memory_equal(in[0].net->values, in[1].net->values, in[0].net->nvalues * sizeof(float));
    lb_net_destroy(in[0].net);
    lb_net_destroy(in[1].net);
    lb_ctx_destroy(ctx);
}

/* A Pad node before the pooling, of `value`, behind the activation or the convolution. */
static lb_status import_padded(lb_ctx *ctx, const char *pool, float value, bool activated, lb_imported *in) {
    lb_onnx_build b;
    test_model(&b, ctx);
    Lb__Onnx__NodeProto *node = node_of(&b, "MaxPool");
    node->input[0] = TEXT("padded");
    attribute_of(&b, "MaxPool", "kernel_shape")->ints[0] = attribute_of(&b, "MaxPool", "kernel_shape")->ints[1] = 3;
    node->op_type = TEXT(pool);
    test_list(&b, "pads", 8, (const float[]){0, 0, 1, 1, 0, 0, 1, 1});
    lb_onnx_scalar(&b, "value", FLOAT_TYPE, value);
    TEST_NODE(&b, "Pad", "padded", activated ? "relu_out" : "conv_out", "pads", "value");
    test_node_to(&b, 2);
    const lb_status status = lb_net_import(ctx, &b.model, "padded.onnx", NULL, in);
    lb_onnx_build_free(&b);
    return status;
}

static void padded_pools(void **state) {
    (void)state;
    static const struct {
        const char *pool;
        float value;
        bool activated, read;
    } cases[] = {
        {"MaxPool", 0, true, true},
        {"MaxPool", 0, false, true},
        {"MaxPool", -INFINITY, false, true},
        {"MaxPool", -FLT_MAX, true, true},
        {"MaxPool", 1, true, false},
        {"AveragePool", 0, false, true},
        {"AveragePool", -INFINITY, true, false},
    };
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        lb_imported in;
        const lb_status status = import_padded(ctx, cases[i].pool, cases[i].value, cases[i].activated, &in);
        if ((status == LB_OK) != cases[i].read)
            fail_msg("case %d: %s", (int)i, lb_error(ctx));
        if (status != LB_OK)
            continue;
        const lb_node *pool = &in.net->nodes[lb_net_find(in.net, "pool_out")];
        const bool zeros = !cases[i].activated && cases[i].value == 0 && !strcmp(cases[i].pool, "MaxPool"); /* they may win */
        assert_int_equal(pool->u.pool.pt + pool->u.pool.pl + pool->u.pool.pb + pool->u.pool.pr, zeros ? 0 : 4);
        assert_int_equal(lb_net_find(in.net, "padding") >= 0, zeros);
        assert_int_equal(pool->dst.h, 4);
        lb_net_destroy(in.net);
    }
    lb_ctx_destroy(ctx);
}

/* A graph alone gives the same network, without values. */
static void graph_alone(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported whole, alone;
    Lb__Onnx__ModelProto *model;
    test_model(&b, ctx);
    assert_ok(ctx, lb_onnx_save(ctx, "import-whole.onnx", &b.model));
    assert_ok(ctx, lb_onnx_load(ctx, "import-whole.onnx", &model));
    assert_ok(ctx, lb_net_import(ctx, model, "whole", NULL, &whole));
    assert_ok(ctx, lb_import_strip(ctx, "import-whole.onnx", model));
    assert_ok(ctx, lb_onnx_save(ctx, "import-alone.onnx", model));
    lb_onnx_free(ctx, model);
    assert_ok(ctx, lb_onnx_load(ctx, "import-alone.onnx", &model));
    assert_int_equal(lb_net_import(ctx, model, "alone", NULL, &alone), LB_ERR_FORMAT);
    assert_non_null(strstr(lb_error(ctx), "has no data"));
    assert_ok(ctx, lb_net_import(ctx, model, "alone", &(lb_import_options){.graph_only = true}, &alone));
    assert_int_equal(whole.net->nparams, alone.net->nparams);
    for (int i = 0; i < whole.net->nparams; i++) {
        assert_string_equal(whole.net->params[i].name, alone.net->params[i].name);
        assert_int_equal(whole.net->params[i].count, alone.net->params[i].count);
        assert_int_equal(whole.net->params[i].offset, alone.net->params[i].offset);
    }
    lb_onnx_free(ctx, model);
    lb_net_destroy(whole.net);
    lb_net_destroy(alone.net);
    lb_onnx_build_free(&b);
    remove("import-whole.onnx");
    remove("import-alone.onnx");
    lb_ctx_destroy(ctx);
}

/* All tensors lie in a file that the graph alone has not beside it: what decides about the network comes along. */
static void graph_of_external_data(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported whole, alone;
    Lb__Onnx__ModelProto *model;
    Lb__Onnx__StringStringEntryProto *entries = lb_alloc(ctx, 10, sizeof *entries), **list = lb_alloc(ctx, 10, sizeof(void *));
    FILE *file = fopen("import-all.bin", "wb");
    test_model(&b, ctx);
    assert_non_null(file);
    assert_int_equal(b.graph.n_initializer, 5);
    for (size_t i = 0; i < b.graph.n_initializer; i++) {
        Lb__Onnx__TensorProto *t = b.graph.initializer[i];
        static const char *const keys[] = {"location", "offset"};
        const char *values[] = {"import-all.bin", lb_onnx_name(&b, "%ld", ftell(file))};
        for (size_t k = 2 * i; k < 2 * i + 2; k++) {
            lb__onnx__string_string_entry_proto__init(list[k] = &entries[k]);
            entries[k].key = TEXT(keys[k % 2]), entries[k].value = TEXT(values[k % 2]);
        }
        assert_int_equal(fwrite(t->raw_data.data, 1, t->raw_data.len, file), t->raw_data.len);
        t->has_raw_data = 0;
        t->has_data_location = 1;
        t->data_location = LB__ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
        t->n_external_data = 2;
        t->external_data = list + 2 * i;
    }
    fclose(file);
    assert_ok(ctx, lb_onnx_save(ctx, "import-whole.onnx", &b.model));
    assert_ok(ctx, lb_onnx_load(ctx, "import-whole.onnx", &model));
    assert_ok(ctx, lb_net_import(ctx, model, "import-whole.onnx", NULL, &whole));
    assert_ok(ctx, lb_import_strip(ctx, "import-whole.onnx", model));
    remove("import-all.bin");
    assert_ok(ctx, lb_net_import(ctx, model, "alone", &(lb_import_options){.graph_only = true}, &alone));
    assert_int_equal(whole.net->nvalues, alone.net->nvalues);
    lb_net_destroy(alone.net);
    lb_onnx_free(ctx, model);
    assert_ok(ctx, lb_onnx_load(ctx, "import-whole.onnx", &model));
    assert_int_equal(lb_import_strip(ctx, "import-whole.onnx", model), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "import-all.bin, which cannot be opened"));
    lb_onnx_free(ctx, model);
    lb_net_destroy(whole.net);
    lb_onnx_build_free(&b);
    lb_free(ctx, entries);
    lb_free(ctx, list);
    remove("import-whole.onnx");
    lb_ctx_destroy(ctx);
}

/* Weights far smaller than He's get his size if a batch norm follows, which takes it back; others stay, and those whose variance
 * would be infinite. */
static void small_weights(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    enum { USUAL, SMALL, LARGE_VARIANCE, SMALL_VARIANCE, KINDS };
    for (int kind = 0; kind < KINDS; kind++) {
        lb_onnx_build b;
        lb_imported in;
        const int64_t four = 4;
        const bool small = kind == SMALL || kind == SMALL_VARIANCE;
        const float ones[] = {1, 1, 1, 1}, most[] = {1, 1, 1e38f, 1}, least[] = {1e-5f, 1e-5f, 0, 1};
        const float *vars = kind == LARGE_VARIANCE ? most : kind == SMALL_VARIANCE ? least : ones;
        test_model(&b, ctx);
        float *w = (float *)(void *)tensor_of(&b, "conv.weight")->raw_data.data;
        for (int k = 0; k < 108; k++)
            w[k] *= kind ? 0.001f : 0.25f;
        const float first = w[0];
        lb_onnx_tensor(&b, "bn.weight", FLOAT_TYPE, 1, &four, ones);
        lb_onnx_tensor(&b, "bn.var", FLOAT_TYPE, 1, &four, vars);
        node_of(&b, "Conv")->output[0] = TEXT("sums");
        TEST_NODE(&b, "BatchNormalization", "conv_out", "sums", "bn.weight", "bn.weight", "bn.weight", "bn.var");
        test_node_to(&b, 1);
        assert_ok(ctx, lb_net_import(ctx, &b.model, "small.onnx", NULL, &in));
        const lb_node *conv = &in.net->nodes[1], *bn = &in.net->nodes[2];
        const float *values = lb_param_values(in.net, conv->param[0]), *var = lb_param_values(in.net, bn->param[3]);
        double squares = 0;
        for (int k = 0; k < 108; k++)
            squares += (double)values[k] * (double)values[k];
        const double he = sqrt(2.0 / 27), own = sqrt(squares / 108), factor = (double)(values[0] / first);
        if (small) {
            assert_true(own > he / 1.5 && own < he * 1.5);
            assert_true(factor == exp2(round(log2(factor))));
            for (int c = 0; c < 4; c++)
                assert_true(fabs(((double)var[c] + 1e-5) / (factor * factor * ((double)vars[c] + 1e-5)) - 1) < 1e-4);
            assert_true(fabs((double)lb_param_values(in.net, bn->param[2])[1] / factor - 1) < 1e-6);
            assert_true(fabs((double)lb_param_values(in.net, conv->param[1])[0] / factor + 1) < 1e-6);
        } else {
            assert_true(factor == 1 && var[1] == 1 && var[2] == vars[2]);
        }
        lb_net_destroy(in.net);
        lb_onnx_build_free(&b);
    }
    lb_ctx_destroy(ctx);
}

/* ---- Refused ---------------------------------------------------------------------------------------------------------- */

static void no_graph(lb_onnx_build *b) { b->model.graph = NULL; }
static void no_opset(lb_onnx_build *b) { b->model.n_opset_import = 0; }
static void old_opset(lb_onnx_build *b) { b->model.opset_import[0]->version = 3; }
static void far_opset(lb_onnx_build *b) { b->model.opset_import[0]->version = INT64_MAX; }
static void no_nodes(lb_onnx_build *b) { b->graph.n_node = 0; }
static void no_output(lb_onnx_build *b) { b->graph.n_output = 0; }
static void nameless_output(lb_onnx_build *b) { b->graph.output[0]->name = NULL; }
static void other_output(lb_onnx_build *b) { b->graph.output[0]->name = TEXT("elsewhere"); }
static void no_input(lb_onnx_build *b) { b->graph.n_input = 0; }
static void no_shape(lb_onnx_build *b) { b->graph.input[0]->type->tensor_type->shape = NULL; }
static void no_type(lb_onnx_build *b) { b->graph.input[0]->type = NULL; }
static void whole_input(lb_onnx_build *b) { b->graph.input[0]->type->tensor_type->elem_type = INT64_TYPE; }
static Lb__Onnx__TensorShapeProto__Dimension *input_dim(lb_onnx_build *b, int d) {
    return b->graph.input[0]->type->tensor_type->shape->dim[d];
}
static void negative_input(lb_onnx_build *b) { input_dim(b, 2)->dim_value = -8; }
static void huge_input(lb_onnx_build *b) { input_dim(b, 2)->dim_value = input_dim(b, 3)->dim_value = (int64_t)1 << 30; }
static void wide_input(lb_onnx_build *b) { input_dim(b, 2)->dim_value = input_dim(b, 3)->dim_value = 60000; }
static void vast_input(lb_onnx_build *b) { input_dim(b, 2)->dim_value = INT64_MAX; }
static void open_input(lb_onnx_build *b) { input_dim(b, 2)->value_case = LB__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE__NOT_SET; }
static void scalar_input(lb_onnx_build *b) { b->graph.input[0]->type->tensor_type->shape->n_dim = 0; }
static void missing_tensor(lb_onnx_build *b) { node_of(b, "Conv")->input[1] = TEXT("nowhere"); }
static void missing_input(lb_onnx_build *b) { node_of(b, "Conv")->n_input = 1; }
static void no_inputs(lb_onnx_build *b) { node_of(b, "Relu")->n_input = 0; }
static void nothing_joined(lb_onnx_build *b) { node_of(b, "Relu")->n_input = 0, node_of(b, "Relu")->op_type = TEXT("Concat"); }
static void circle(lb_onnx_build *b) { node_of(b, "Conv")->input[0] = TEXT("pool_out"); }
static void own_input(lb_onnx_build *b) { node_of(b, "Relu")->input[0] = TEXT("relu_out"); }
static void made_twice(lb_onnx_build *b) { node_of(b, "Relu")->output[0] = TEXT("conv_out"); }
static void unknown(lb_onnx_build *b) { node_of(b, "Relu")->op_type = TEXT("Einsum"); }
static void loop(lb_onnx_build *b) { node_of(b, "Relu")->op_type = TEXT("Loop"); }
static void no_operator(lb_onnx_build *b) { node_of(b, "Relu")->op_type = NULL; }
static void foreign(lb_onnx_build *b) { node_of(b, "Relu")->domain = TEXT("com.microsoft"); }
static void rounds(lb_onnx_build *b) { node_of(b, "Relu")->op_type = TEXT("Round"); }
static void qonnx(lb_onnx_build *b) { node_of(b, "Relu")->domain = TEXT("qonnx.custom_op.general"); }
static void integers(lb_onnx_build *b) { node_of(b, "Conv")->op_type = TEXT("QLinearConv"); }

/* Codes in place of the Relu, or of the classifier's weights. */
static void quantize(lb_onnx_build *b, float scale, int type) {
    Lb__Onnx__NodeProto *relu = node_of(b, "Relu");
    char **inputs = lb_pool_alloc(&b->pool, 3, sizeof *inputs);
    inputs[0] = relu->input[0];
    inputs[1] = TEXT(lb_onnx_scalar(b, "step", FLOAT_TYPE, scale));
    inputs[2] = TEXT(lb_onnx_scalar(b, "zero", type, 0));
    relu->op_type = TEXT("QuantizeLinear");
    relu->input = inputs;
    relu->n_input = 3;
}
static void no_step(lb_onnx_build *b) { quantize(b, 0, LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8); }
static void real_zero(lb_onnx_build *b) { quantize(b, 1, FLOAT_TYPE); }
static void dequantize(lb_onnx_build *b, const char *codes, int64_t scales) {
    const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    lb_onnx_tensor(b, "scales", FLOAT_TYPE, 1, &scales, ones);
    TEST_NODE(b, "DequantizeLinear", "real", codes, "scales");
    test_node_to(b, 0);
    node_of(b, "Gemm")->input[1] = TEXT("real");
}
static void real_codes(lb_onnx_build *b) { dequantize(b, "fc.weight", 1); }
static void many_scales(lb_onnx_build *b) {
    const int64_t dims[] = {5, 64};
    float codes[320] = {0};
    lb_onnx_tensor(b, "codes", LB_ONNX_INT4, 2, dims, codes);
    dequantize(b, "codes", 7);
}
static void short_codes(lb_onnx_build *b) {
    many_scales(b);
    tensor_of(b, "codes")->raw_data.len -= 1;
}

static void large_turned(lb_onnx_build *b) {
    node_of(b, "Conv")->op_type = TEXT("ConvTranspose");
    tensor_of(b, "conv.weight")->dims[0] = 3;
    tensor_of(b, "conv.weight")->dims[1] = 4;
    attribute_of(b, "ConvTranspose", "strides")->ints[1] = 1 << 27;
}
static void no_output_size(lb_onnx_build *b) {
    large_turned(b);
    attribute_of(b, "ConvTranspose", "strides")->ints[1] = 1;
    lb_onnx_ints(b, node_of(b, "ConvTranspose"), "output_padding", (const int[]){1, 1}, 2);
    lb_onnx_ints(b, node_of(b, "ConvTranspose"), "output_shape", (const int[]){8, 0}, 2);
}
static void deep_pads(lb_onnx_build *b) {
    large_turned(b);
    attribute_of(b, "ConvTranspose", "strides")->ints[1] = 1;
    attribute_of(b, "ConvTranspose", "pads")->ints[1] = 12;
}
static void divided(lb_onnx_build *b) {
    Lb__Onnx__NodeProto *relu = node_of(b, "Relu");
    char **inputs = lb_pool_alloc(&b->pool, 2, sizeof *inputs);
    inputs[0] = inputs[1] = relu->input[0];
    relu->op_type = TEXT("Div");
    relu->input = inputs;
    relu->n_input = 2;
}

static void rude_name(lb_onnx_build *b) {
    node_of(b, "Relu")->name = TEXT("two\nlines"), node_of(b, "Relu")->op_type = TEXT("A\x1b[2JB");
}
static void short_data(lb_onnx_build *b) { tensor_of(b, "conv.weight")->raw_data.len -= 4; }
static void no_data(lb_onnx_build *b) { tensor_of(b, "conv.weight")->has_raw_data = 0; }
static void negative_dim(lb_onnx_build *b) { tensor_of(b, "conv.weight")->dims[1] = -3; }
static void wrong_dims(lb_onnx_build *b) { tensor_of(b, "conv.weight")->dims[0] = 5; }
static void swapped_dims(lb_onnx_build *b) {
    tensor_of(b, "conv.weight")->dims[0] = 3;
    tensor_of(b, "conv.weight")->dims[1] = 4;
}
static void huge_tensor(lb_onnx_build *b) {
    for (int d = 0; d < 3; d++)
        tensor_of(b, "conv.weight")->dims[d] = 1 << 20; /* 2^60 elements, and more */
}
static void overflowing_tensor(lb_onnx_build *b) {
    for (int d = 0; d < 4; d++)
        tensor_of(b, "conv.weight")->dims[d] = INT64_MAX;
}
static void empty_tensor(lb_onnx_build *b) {
    for (int d = 0; d < 4; d++)
        tensor_of(b, "conv.weight")->dims[d] = d ? INT32_MAX : 0;
    tensor_of(b, "conv.weight")->raw_data.len = 0;
}
static void text_tensor(lb_onnx_build *b) { tensor_of(b, "conv.weight")->data_type = LB__ONNX__TENSOR_PROTO__DATA_TYPE__STRING; }
static void whole_weights(lb_onnx_build *b) {
    tensor_of(b, "conv.weight")->data_type = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT32; /* as many bytes */
}
static void real_shape(lb_onnx_build *b) { node_of(b, "Reshape")->input[1] = TEXT("fc.bias"); }
static void image_shape(lb_onnx_build *b) { node_of(b, "Reshape")->input[1] = TEXT("conv_out"); }
static int64_t *shape_values(lb_onnx_build *b) { return (int64_t *)(void *)tensor_of(b, "shape")->raw_data.data; }
static void negative_shape(lb_onnx_build *b) { shape_values(b)[1] = -7; }
static void two_open(lb_onnx_build *b) { shape_values(b)[0] = -1; }
static void wrong_shape(lb_onnx_build *b) { shape_values(b)[1] = 63; }
static void huge_shape(lb_onnx_build *b) { shape_values(b)[1] = (int64_t)1 << 60; }
static void mixed_batch(lb_onnx_build *b) { shape_values(b)[0] = 4, shape_values(b)[1] = 16; }
static void no_kernel(lb_onnx_build *b) { attribute_of(b, "MaxPool", "kernel_shape")->n_ints = 0; }
static void zero_kernel(lb_onnx_build *b) { attribute_of(b, "MaxPool", "kernel_shape")->ints[0] = 0; }
static void huge_kernel(lb_onnx_build *b) { attribute_of(b, "MaxPool", "kernel_shape")->ints[0] = INT64_MAX; }
static void large_kernel(lb_onnx_build *b) { attribute_of(b, "MaxPool", "kernel_shape")->ints[0] = 9; }
static void zero_stride(lb_onnx_build *b) { attribute_of(b, "Conv", "strides")->ints[0] = 0; }
static void many_strides(lb_onnx_build *b) { attribute_of(b, "Conv", "strides")->n_ints = 1; }
static void negative_pad(lb_onnx_build *b) { attribute_of(b, "Conv", "pads")->ints[3] = -1; }
static void huge_pad(lb_onnx_build *b) { attribute_of(b, "Conv", "pads")->ints[3] = INT64_MIN; }
static void wide_pad(lb_onnx_build *b) { attribute_of(b, "Conv", "pads")->ints[3] = 3; }
static void few_pads(lb_onnx_build *b) { attribute_of(b, "Conv", "pads")->n_ints = 3; }
static void zero_groups(lb_onnx_build *b) { lb_onnx_int(b, node_of(b, "Conv"), "group", 0); }
static void two_groups(lb_onnx_build *b) { lb_onnx_int(b, node_of(b, "Conv"), "group", 2); }
static void gaps(lb_onnx_build *b) {
    lb_onnx_ints(b, node_of(b, "MaxPool"), "dilations", (const int[]){2, 2}, 2);
    node_of(b, "MaxPool")->op_type = TEXT("AveragePool");
}
static void huge_gaps(lb_onnx_build *b) { lb_onnx_ints(b, node_of(b, "Conv"), "dilations", (const int[]){1, 1 << 28}, 2); }
static void not_swapped(lb_onnx_build *b) { attribute_of(b, "Gemm", "transB")->i = 0; }
static void wrong_bias(lb_onnx_build *b) { node_of(b, "Gemm")->input[2] = TEXT("conv.bias"); }
static void image_weights(lb_onnx_build *b) { node_of(b, "Gemm")->input[1] = TEXT("relu_out"); }
static void constant_input(lb_onnx_build *b) { node_of(b, "MaxPool")->input[0] = TEXT("conv.weight"); }
static void external(lb_onnx_build *b, const char *location, const char *length) {
    static Lb__Onnx__StringStringEntryProto entry[2], *entries[] = {&entry[0], &entry[1]};
    Lb__Onnx__TensorProto *t = tensor_of(b, "conv.weight");
    lb__onnx__string_string_entry_proto__init(&entry[0]);
    lb__onnx__string_string_entry_proto__init(&entry[1]);
    entry[0].key = TEXT("location"), entry[0].value = TEXT(location);
    entry[1].key = TEXT("length"), entry[1].value = TEXT(length);
    t->has_data_location = 1;
    t->data_location = LB__ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    t->n_external_data = 2;
    t->external_data = entries;
}
static void climbing(lb_onnx_build *b) { external(b, "sub/../../secret", "432"); }
static void absolute(lb_onnx_build *b) { external(b, "/etc/passwd", "432"); }
static void absent(lb_onnx_build *b) { external(b, "not-there.bin", "432"); }
static void too_long(lb_onnx_build *b) { external(b, "not-there.bin", "433"); }
static void no_number(lb_onnx_build *b) { external(b, "not-there.bin", "-1"); }
static void huge_external(lb_onnx_build *b) {
    external(b, "import-short.bin", "4294967220");
    tensor_of(b, "conv.weight")->dims[0] = 39768215; /* times 27: 2^30 and a little */
}
static void not_finite(lb_onnx_build *b) { ((float *)(void *)tensor_of(b, "fc.weight")->raw_data.data)[7] = NAN; }
static void negative_variance(lb_onnx_build *b) {
    const int64_t four = 4;
    lb_onnx_tensor(b, "bn.var", FLOAT_TYPE, 1, &four, (const float[]){1, 1, -1, 1});
    node_of(b, "Conv")->output[0] = TEXT("sums");
    TEST_NODE(b, "BatchNormalization", "conv_out", "sums", "conv.bias", "conv.bias", "conv.bias", "bn.var");
    test_node_to(b, 1);
}
static void vector_bound(lb_onnx_build *b) {
    node_of(b, "Relu")->op_type = TEXT("Clip");
    node_of(b, "Clip")->n_input = 2;
    static char *inputs[] = {TEXT("conv_out"), TEXT("conv.bias")};
    inputs[1] = TEXT("conv.bias");
    node_of(b, "Clip")->input = inputs;
}
/* It would decide what the network looks like, and a graph alone has it not. */
static void weight_as_bound(lb_onnx_build *b) {
    const float zero[] = {0, 0}, one[] = {1, 1};
    test_list(b, "from", 2, zero);
    test_list(b, "to", 2, one);
    TEST_NODE(b, "Slice", "bound", "fc.weight", "from", "to");
    Lb__Onnx__NodeProto **nodes = b->graph.node, *last = nodes[b->graph.n_node - 1];
    memmove(nodes + 1, nodes, (b->graph.n_node - 1) * sizeof *nodes);
    nodes[0] = last;
    vector_bound(b);
    node_of(b, "Clip")->input[1] = TEXT("bound");
}
/* A node between the activation and the pooling. */
static Lb__Onnx__NodeProto *between(lb_onnx_build *b, const char *op, const char *second, const char *third, const char *fourth,
                                    const char *fifth) {
    Lb__Onnx__NodeProto *node = TEST_NODE(b, op, "between", "relu_out", second, third, fourth, fifth);
    node_of(b, "MaxPool")->input[0] = TEXT("between");
    test_node_to(b, 2);
    return node;
}
static void pad_by(lb_onnx_build *b, const char *mode, float value, int count, float top) {
    const float pads[8] = {0, 0, top, 0, 0, 0, top, 0};
    test_list(b, "pads", count, pads);
    lb_onnx_scalar(b, "value", FLOAT_TYPE, value);
    lb_onnx_text(b, between(b, "Pad", "pads", "value", "", ""), "mode", mode);
}
static void odd_pads(lb_onnx_build *b) { pad_by(b, "constant", 0, 7, 1); }
static void other_value(lb_onnx_build *b) { pad_by(b, "constant", 1, 8, 1); }
static void unknown_mode(lb_onnx_build *b) { pad_by(b, "round", 0, 8, 1); }
static void deep_mirror(lb_onnx_build *b) { pad_by(b, "reflect", 0, 8, 8); }
static void vast_edge(lb_onnx_build *b) { pad_by(b, "edge", 0, 8, 65000); }
static void all_cut(lb_onnx_build *b) { pad_by(b, "constant", 0, 8, -4); }
/* The image as more than four dimensions. */
static void pad_many(lb_onnx_build *b, int ndim, float by) {
    float shape[8] = {0, 2, 2, 1, 1, 1, 1, 1}, pads[16] = {0};
    shape[ndim - 2] = shape[ndim - 1] = 8;
    pads[4] = by;
    test_list(b, "many", ndim, shape);
    test_list(b, "pads", 2 * ndim, pads);
    between(b, "Pad", "pads", "", "", "")->input[0] = TEXT("tall");
    TEST_NODE(b, "Reshape", "tall", "relu_out", "many");
    test_node_to(b, 2);
}
static void pad_five(lb_onnx_build *b) { pad_many(b, 5, 1); }
static void pad_six(lb_onnx_build *b) { pad_many(b, 6, 1); }
static void pad_eight(lb_onnx_build *b) { pad_many(b, 8, 1); }
static void pad_eight_by_none(lb_onnx_build *b) { pad_many(b, 8, 0); }
static void cut_by(lb_onnx_build *b, float from, float to, float axis, float step) {
    test_list(b, "from", 1, &from);
    test_list(b, "to", 1, &to);
    test_list(b, "axis", 1, &axis);
    test_list(b, "step", 1, &step);
    between(b, "Slice", "from", "to", "axis", "step");
}
static void no_cut_step(lb_onnx_build *b) { cut_by(b, 0, 4, 2, 0); }
static void least_step(lb_onnx_build *b) { cut_by(b, -1, -0x1p63f, 2, -0x1p63f); }
static void nothing_left(lb_onnx_build *b) { cut_by(b, 5, 5, 3, 1); }
static void cut_batch(lb_onnx_build *b) { cut_by(b, 0, 0x1p62f, 0, -1); }
static void far_row(lb_onnx_build *b) {
    test_list(b, "far", 1, (const float[]){8});
    Lb__Onnx__NodeProto *gather = between(b, "Gather", "far", "", "", "");
    lb_onnx_int(b, gather, "axis", 2);
}
static void same_channel(lb_onnx_build *b) {
    test_list(b, "channels", 4, (const float[]){0, 1, 2, 1});
    lb_onnx_int(b, between(b, "Gather", "channels", "", "", ""), "axis", 1);
}
static void ends_early(lb_onnx_build *b) { external(b, "import-short.bin", "432"); }

static void refused(void **state) {
    (void)state;
    static const test_refusal rows[] = {
        {no_graph, "no graph"},
        {no_opset, "opset 0; 6 to 25"},
        {old_opset, "opset 3; 6 to 25"},
        {far_opset, "opset"},
        {no_nodes, "no nodes or no output"},
        {no_output, "no nodes or no output"},
        {nameless_output, "no name"},
        {other_output, "no node makes the output 'elsewhere'"},
        {no_input, "(Conv): its input 'image' is made by no earlier node"},
        {no_shape, "no tensor of a stated shape"},
        {no_type, "no tensor of a stated shape"},
        {whole_input, "element type 7"},
        {negative_input, "negative dimension -8"},
        {huge_input, "its input is of 1073741824 x 1073741824 pixels"},
        {wide_input, "input: its output would be"},
        {vast_input, "its input is of"},
        {open_input, "model.input_size"},
        {scalar_input, "0 dimensions"},
        {missing_tensor, "'nowhere' is made by no earlier node"},
        {missing_input, "node 'conv_out' (Conv): its input 1 is missing"},
        {no_inputs, "(Relu): its input 0 is missing"},
        {nothing_joined, "(Concat): has no inputs"},
        {circle, "(Conv): its input 'pool_out' is made by no earlier node"},
        {own_input, "(Relu): its input 'relu_out' is made by no earlier node"},
        {made_twice, "'conv_out' is made twice"},
        {unknown, "node 'relu_out' (Einsum): this operator is not read"},
        {loop, "(Loop): this operator is not read"},
        {no_operator, "no operator"},
        {foreign, "domain 'com.microsoft'"},
        {large_turned, "rows or columns; up to 65535 are read"},
        {no_output_size, "output_shape has the entry 0"},
        {deep_pads, "makes images of -2 rows or columns"},
        {divided, "divides by an image"},
        {odd_pads, "its pads are not two for each of 4 dimensions"},
        {other_value, "pads with 1; only zeros"},
        {pad_five, "pads dimension 4; images have four"},
        {pad_six, "pads dimension 4; images have four"},
        {pad_eight, "pads dimension 4; images have four"},
        {pad_eight_by_none, "its input is no image in the order batch, channels, height, width"},
        {unknown_mode, "mode round"},
        {deep_mirror, "pads 8 rows or columns by 8 and 8"},
        {vast_edge, "rows or columns; up to 65535 are read"},
        {all_cut, "makes images of 0 rows or columns"},
        {no_cut_step, "a step of 0"},
        {least_step, "a step of -9223372036854775808"},
        {nothing_left, "takes nothing of dimension 3"},
        {cut_batch, "of dimension 0"},
        {same_channel, "(Gather): gathers channel 1 twice"},
        {far_row, "gathers number 8 of 8"},
        {rounds, "(Round): only quantized networks have this operator"},
        {qonnx, "(Relu): only quantized networks have this operator"},
        {integers, "(QLinearConv): only quantized networks have this operator"},
        {no_step, "its scale is 0"},
        {real_zero, "its zero point is no single integer"},
        {real_codes, "its codes, scale and zero point are not"},
        {many_scales, "its scales are not one for each index"},
        {short_codes, "tensor 'codes' needs 160 bytes by its shape, but 159 are there"},
        {rude_name, "node 'two?lines' (A?[2JB)"},
        {short_data, "tensor 'conv.weight' needs 432 bytes by its shape, but 428 are there"},
        {no_data, "tensor 'conv.weight' has no data"},
        {negative_dim, "tensor 'conv.weight' has the negative dimension -3"},
        {wrong_dims, "needs 540 bytes"},
        {swapped_dims, "do not fit an input of 3"},
        {huge_tensor, "tensor 'conv.weight' has more than 2^31 - 1 elements"},
        {overflowing_tensor, "more than 2^31 - 1 elements"},
        {empty_tensor, "would have but for a dimension of none"},
        {text_tensor, "element type 8"},
        {whole_weights, "(Conv): its weights"},
        {real_shape, "(Reshape): its input 1 is no list of whole numbers"},
        {image_shape, "depends on the image"},
        {negative_shape, "-7 as dimension 1"},
        {two_open, "-1 as dimension 1"},
        {wrong_shape, "another number of elements"},
        {huge_shape, "as dimension 1"},
        {mixed_batch, "mixes the images"},
        {no_kernel, "kernel_shape has 0 entries"},
        {zero_kernel, "a kernel of 0 x 2"},
        {huge_kernel, "a kernel of"},
        {large_kernel, "too small for a 9x2 kernel"},
        {zero_stride, "strides has the entry 0"},
        {many_strides, "strides has 1 entries"},
        {negative_pad, "pads has the entry -1"},
        {huge_pad, "pads has the entry"},
        {wide_pad, "padding"},
        {few_pads, "pads has 3 entries"},
        {zero_groups, "in 0 groups"},
        {two_groups, "in 2 groups"},
        {gaps, "only convolutions and maximum pools may have gaps"},
        {huge_gaps, "with gaps of 0 x 268435455"},
        {not_swapped, "do not fit an input of 64"},
        {wrong_bias, "its bias has 4 elements for 5 channels"},
        {image_weights, "multiplies 'relu_out', which depends on the image, as attention does"},
        {constant_input, "'conv.weight', is a constant"},
        {climbing, "'sub/../../secret' is not beside the model"},
        {absolute, "'/etc/passwd' is not beside the model"},
        {absent, "not-there.bin, which cannot be opened"},
        {too_long, "its external data has 433"},
        {no_number, "cannot be understood"},
        {ends_early, "that file ends before"},
        {huge_external, "that file ends before"},
        {not_finite, "fc.weight holds values that are not finite"},
        {negative_variance, "holds a variance below zero"},
        {weight_as_bound, "its input 1 is part of a weight"},
        {vector_bound, "has 4 elements instead of one"},
    };
    FILE *file = fopen("import-short.bin", "w");
    assert_non_null(file);
    fputs("short", file);
    fclose(file);
    assert_refused(rows, LB_COUNT(rows));
    remove("import-short.bin");
}

/* Constants must not multiply: each addition of two vectors would make a matrix of 4096 x 4096. */
static void growing_constants(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported in;
    test_model(&b, ctx);
    test_weights(&b, "row", 2, (const int64_t[]){1, 4096});
    test_weights(&b, "column", 2, (const int64_t[]){4096, 1});
    for (int i = 0; i < 8; i++)
        TEST_NODE(&b, "Add", lb_onnx_name(&b, "sum%d", i), i ? lb_onnx_name(&b, "sum%d", i - 1) : "row", i % 2 ? "row" : "column");
    TEST_NODE(&b, "Conv", "late", "conv_out", "sum7");
    b.graph.output[0]->name = TEXT("late");
    assert_int_equal(lb_net_import(ctx, &b.model, "growing", NULL, &in), LB_ERR_UNSUPPORTED);
    assert_non_null(strstr(lb_error(ctx), "beyond reason"));
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

/* Whenever memory ends: an error, nothing left behind. */
static void out_of_memory(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    test_model(&b, ctx);
    bool done = false;
    for (long blocks = 0; !done; blocks++) {
        test_allocator a = {.left = blocks + 1};
        lb_ctx *poor = test_ctx_with(&a);
        if (!poor)
            continue;
        const long before = a.alive;
        lb_imported in = {0};
        const lb_status status = lb_net_import(poor, &b.model, "small", NULL, &in);
        done = status == LB_OK;
        if (!done)
            assert_int_equal(status, LB_ERR_MEMORY);
        lb_net_destroy(in.net);
        assert_int_equal(a.alive, before);
        lb_ctx_destroy(poor);
        assert_true(blocks < 1000);
    }
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_network),
        cmocka_unit_test(signals),
        cmocka_unit_test(padded_pools),
        cmocka_unit_test(graph_alone),
        cmocka_unit_test(graph_of_external_data),
        cmocka_unit_test(small_weights),
        cmocka_unit_test(refused),
        cmocka_unit_test(growing_constants),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

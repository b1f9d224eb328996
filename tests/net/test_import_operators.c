/* Import of ONNX models, operator by operator: what is noted, and each way to say them wrong is one clear error. That they compute
 * the right thing is tested in tests/deploy/test_import_ways.c and tests/deploy/test_onnx_cases.c. */
#include <math.h>

#include "import.h"

/* A node between the activation and the pooling, of `ninputs` inputs, the first of which it gets. */
static Lb__Onnx__NodeProto *insert(lb_onnx_build *b, const char *op, int ninputs, const char **inputs) {
    inputs[0] = inputs[0] ? inputs[0] : "relu_out";
    Lb__Onnx__NodeProto *node = lb_onnx_node(b, op, "between", ninputs, inputs);
    node_of(b, "MaxPool")->input[0] = TEXT("between");
    test_node_to(b, 2);
    return node;
}
#define INSERT(b, op, ...) insert(b, op, (int)LB_COUNT(((const char *[]){__VA_ARGS__})), (const char *[]){__VA_ARGS__})

static void set_outputs(Lb__Onnx__NodeProto *node, size_t count, const char **names) {
    node->output = (char **)(uintptr_t)names;
    node->n_output = count;
}

/* ---- Batch norm ------------------------------------------------------------------------------------------------------- */

/* In the form of training: opset 14 says it, older ones have outputs for the statistics. */
static void train_norm(lb_onnx_build *b, int opset, size_t noutputs) {
    static const char *outputs[] = {"between", "next_mean", "next_var", "batch_mean", "batch_var"};
    b->model.opset_import[0]->version = opset;
    test_weights(b, "ones", 1, (const int64_t[]){4});
    float *values = (float *)(void *)tensor_of(b, "ones")->raw_data.data;
    for (int c = 0; c < 4; c++)
        values[c] = 1;
    Lb__Onnx__NodeProto *norm = INSERT(b, "BatchNormalization", NULL, "ones", "ones", "ones", "ones");
    if (opset >= 14)
        lb_onnx_int(b, norm, "training_mode", 1);
    set_outputs(norm, noutputs, outputs);
}

static void norms_in_training(void **state) {
    (void)state;
    static const struct {
        int opset;
        size_t noutputs;
        bool noted;
    } rows[] = {{14, 3, true}, {17, 1, true}, {9, 5, true}, {13, 5, true}, {13, 1, false}};
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        test_log log = {0};
        lb_ctx *ctx = test_ctx_logging(&log);
        lb_onnx_build b;
        lb_imported in;
        test_model(&b, ctx);
        train_norm(&b, rows[i].opset, rows[i].noutputs);
        assert_ok(ctx, lb_net_import(ctx, &b.model, "training.onnx", NULL, &in));
        assert_int_equal(strstr(log.notes, "batch norms in training form (1): their running statistics are taken") != NULL,
                         rows[i].noted);
        lb_net_destroy(in.net);
        lb_onnx_build_free(&b);
        lb_ctx_destroy(ctx);
    }
}

static void statistics_read(lb_onnx_build *b) {
    train_norm(b, 14, 3);
    TEST_NODE(b, "Add", "less", "between", "next_mean");
    test_node_to(b, 3);
    node_of(b, "MaxPool")->input[0] = TEXT("less");
}

/* ---- Gather ----------------------------------------------------------------------------------------------------------- */

static void gather(lb_onnx_build *b, int ndim, const int64_t *dims, int axis, float number) {
    lb_onnx_tensor(b, "numbers", INT64_TYPE, ndim, dims, (const float[]){number, number});
    lb_onnx_int(b, INSERT(b, "Gather", NULL, "numbers"), "axis", axis);
}
static void one_image(lb_onnx_build *b) { gather(b, 0, NULL, 0, 0); }
static void far_channel(lb_onnx_build *b) { gather(b, 0, NULL, 1, -5); }
static void table_of_rows(lb_onnx_build *b) { gather(b, 2, (const int64_t[]){1, 2}, 2, 1); }
static void no_rows(lb_onnx_build *b) { gather(b, 1, (const int64_t[]){0}, 2, 1); }

/* ---- Pixels become one ------------------------------------------------------------------------------------------------ */

static void reduce(lb_onnx_build *b, const char *op, int64_t count, const float *axes) {
    test_list(b, "axes", count, axes);
    INSERT(b, op, NULL, "axes");
}
static void all_summed(lb_onnx_build *b) { INSERT(b, "ReduceSum", NULL, ""); }
static void channels_compared(lb_onnx_build *b) { reduce(b, "ReduceMax", 2, (const float[]){1, 2}); }
static void images_summed(lb_onnx_build *b) { reduce(b, "ReduceSum", 3, (const float[]){0, 2, 3}); }
static void far_axis(lb_onnx_build *b) { reduce(b, "ReduceSum", 2, (const float[]){3, -0x1p62f}); }

/* ---- Expand ----------------------------------------------------------------------------------------------------------- */

/* Means of all pixels, repeated to a shape of `count` dimensions. */
static void expand(lb_onnx_build *b, int64_t count, const float *shape) {
    test_list(b, "wide", count, shape);
    INSERT(b, "Expand", "means", "wide");
    TEST_NODE(b, "GlobalAveragePool", "means", "relu_out");
    test_node_to(b, 2);
}

/* A pixel that a product takes as it is makes no image. */
static void gate_stays_small(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int add = 0; add < 2; add++) {
        lb_onnx_build b;
        lb_imported in;
        test_model(&b, ctx);
        expand(&b, 4, (const float[]){1, 4, 8, 8});
        node_of(&b, "MaxPool")->input[0] = TEXT("gated");
        TEST_NODE(&b, add ? "Add" : "Mul", "gated", "between", "relu_out");
        test_node_to(&b, 4);
        assert_ok(ctx, lb_net_import(ctx, &b.model, "gate.onnx", NULL, &in));
        assert_int_equal(lb_net_find(in.net, "spread") >= 0, add);
        assert_int_equal(in.net->nodes[lb_net_find(in.net, "gated")].dst.w, 8);
        lb_net_destroy(in.net);
        lb_onnx_build_free(&b);
    }
    lb_ctx_destroy(ctx);
}

static void expand_to_none(lb_onnx_build *b) { expand(b, 4, (const float[]){1, 4, 0, 8}); }
static void expand_below(lb_onnx_build *b) { expand(b, 4, (const float[]){1, 4, 8, -1}); }
static void expand_far(lb_onnx_build *b) { expand(b, 4, (const float[]){1, 4, 0x1p62f, 8}); }
static void expand_vast(lb_onnx_build *b) { expand(b, 4, (const float[]){1, 4, 65535, 65535}); }
static void expand_deep(lb_onnx_build *b) { expand(b, 5, (const float[]){1, 1, 4, 8, 8}); }
static void expand_channels(lb_onnx_build *b) { expand(b, 4, (const float[]){1, 5, 8, 8}); }
static void expand_images(lb_onnx_build *b) { expand(b, 4, (const float[]){2, 4, 8, 8}); }
static void expand_open(lb_onnx_build *b) { INSERT(b, "Expand", NULL, "relu_out"); }
static void expand_scores(lb_onnx_build *b) {
    test_list(b, "wide", 4, (const float[]){1, 1, 3, 3});
    TEST_NODE(b, "GlobalAveragePool", "means", "relu_out");
    TEST_NODE(b, "Expand", "last", "means", "wide");
    b->graph.output[0]->name = TEXT("last");
}

/* ---- Max and Min ------------------------------------------------------------------------------------------------------ */

/* Max from a constant on, then Min: an activation each, the first of which is a Relu. */
static void bounds(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported in;
    test_model(&b, ctx);
    lb_onnx_scalar(&b, "zero", FLOAT_TYPE, 0);
    lb_onnx_scalar(&b, "most", FLOAT_TYPE, 2.5f);
    INSERT(&b, "Max", "zero", "relu_out");
    TEST_NODE(&b, "Min", "clipped", "between", "most");
    test_node_to(&b, 3);
    node_of(&b, "MaxPool")->input[0] = TEXT("clipped");
    assert_ok(ctx, lb_net_import(ctx, &b.model, "bounds.onnx", NULL, &in));
    const lb_node *max = &in.net->nodes[lb_net_find(in.net, "between")], *min = &in.net->nodes[lb_net_find(in.net, "clipped")];
    assert_true(max->op == LB_OP_ACT && max->u.act.kind == LB_ACT_RELU && max->src[0] == lb_net_find(in.net, "relu_out"));
    assert_true(min->op == LB_OP_ACT && min->u.act.kind == LB_ACT_CLIP && min->u.act.hi == 2.5f && min->u.act.lo < -1e38f);
    lb_net_destroy(in.net);
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

static void most_of_two(lb_onnx_build *b) { INSERT(b, "Max", NULL, "conv_out"); }
static void most_of_three(lb_onnx_build *b) { INSERT(b, "Max", NULL, "conv_out", "conv_out"); }
static void most_of_many(lb_onnx_build *b) { INSERT(b, "Max", NULL, "conv.bias"); }
static void no_number(lb_onnx_build *b) { INSERT(b, "Min", NULL, lb_onnx_scalar(b, "nan", FLOAT_TYPE, NAN)); }
static void below_all(lb_onnx_build *b) { INSERT(b, "Min", NULL, lb_onnx_scalar(b, "below", FLOAT_TYPE, -INFINITY)); }

/* ---- Sum -------------------------------------------------------------------------------------------------------------- */

static void sum_of_none(lb_onnx_build *b) { INSERT(b, "Sum", NULL)->n_input = 0; }
static void sum_with_constant(lb_onnx_build *b) { INSERT(b, "Sum", NULL, "conv_out", "conv.bias"); }
static void sum_of_others(lb_onnx_build *b) { INSERT(b, "Sum", NULL, "conv_out", "image"); }

/* ---- Split ------------------------------------------------------------------------------------------------------------ */

static void split(lb_onnx_build *b, int axis, int64_t nsizes, float first, float second) {
    static const char *outputs[] = {"upper", "between"};
    test_list(b, "sizes", nsizes, (const float[]){first, second});
    Lb__Onnx__NodeProto *node = INSERT(b, "Split", NULL, "sizes");
    lb_onnx_int(b, node, "axis", axis);
    set_outputs(node, 2, outputs);
}
static void split_images(lb_onnx_build *b) { split(b, 0, 2, 0, 1); }
static void split_none(lb_onnx_build *b) { split(b, 2, 2, 8, 0); }
static void split_more(lb_onnx_build *b) { split(b, 2, 2, 4, 0x1p62f); }
static void split_back(lb_onnx_build *b) { split(b, -1, 2, -4, 12); }
static void split_in_one(lb_onnx_build *b) { split(b, 2, 1, 8, 0); }

/* ---- Resize ----------------------------------------------------------------------------------------------------------- */

static void resize(lb_onnx_build *b, int64_t n, const float *scales) {
    lb_onnx_tensor(b, "scales", FLOAT_TYPE, 1, &n, scales);
    INSERT(b, "Resize", NULL, "", "scales");
}
static void resize_to(lb_onnx_build *b, float rows) {
    test_list(b, "sizes", 4, (const float[]){1, 4, rows, 8});
    INSERT(b, "Resize", NULL, "", "", "sizes");
}

/* Pixels twice down and three times across. */
static void resized(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported in;
    test_model(&b, ctx);
    resize(&b, 4, (const float[]){1, 1, 2, 3});
    TEST_NODE(&b, "GlobalAveragePool", "means", "pool_out");
    test_node_to(&b, 4);
    node_of(&b, "Reshape")->input[0] = TEXT("means");
    tensor_of(&b, "fc.weight")->dims[1] = 4;
    tensor_of(&b, "fc.weight")->raw_data.len = 5 * 4 * sizeof(float);
    assert_ok(ctx, lb_net_import(ctx, &b.model, "resized.onnx", NULL, &in));
    const lb_node *node = &in.net->nodes[lb_net_find(in.net, "between")];
    assert_true(node->dst.h == 16 && node->dst.w == 24);
    for (int y = 0; y < 16; y++)
        assert_int_equal(node->u.shortcutpad.rows[y], y / 2);
    for (int x = 0; x < 24; x++)
        assert_int_equal(node->u.shortcutpad.cols[x], x / 3);
    lb_net_destroy(in.net);
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

static void resize_half(lb_onnx_build *b) { resize(b, 4, (const float[]){1, 1, 0.5f, 1}); }
static void resize_part(lb_onnx_build *b) { resize(b, 4, (const float[]){1, 1, 2, 1.5f}); }
static void resize_by_none(lb_onnx_build *b) { resize(b, 4, (const float[]){1, 1, NAN, 1}); }
static void resize_far(lb_onnx_build *b) { resize(b, 4, (const float[]){1, 1, 65535, 1}); }
static void resize_channels(lb_onnx_build *b) { resize(b, 4, (const float[]){1, 2, 1, 1}); }
static void resize_few(lb_onnx_build *b) { resize(b, 2, (const float[]){2, 2}); }
static void resize_to_none(lb_onnx_build *b) { resize_to(b, 0); }
static void resize_below(lb_onnx_build *b) { resize_to(b, -16); }
static void resize_to_odd(lb_onnx_build *b) { resize_to(b, 12); }
static void resize_vast(lb_onnx_build *b) { resize_to(b, 0x1p62f); }
static void resize_line(lb_onnx_build *b) {
    resize(b, 4, (const float[]){1, 1, 2, 2});
    lb_onnx_text(b, node_of(b, "Resize"), "mode", "linear");
}
static void resize_corners(lb_onnx_build *b) {
    resize(b, 4, (const float[]){1, 1, 2, 2});
    lb_onnx_text(b, node_of(b, "Resize"), "coordinate_transformation_mode", "align_corners");
}

/* ---- Not read --------------------------------------------------------------------------------------------------------- */

static void gelu(lb_onnx_build *b) { INSERT(b, "Erf", NULL); }
static void group_norm(lb_onnx_build *b) { INSERT(b, "InstanceNormalization", NULL, "conv.bias", "conv.bias"); }
static void classes_only(lb_onnx_build *b) {
    TEST_NODE(b, "ArgMax", "class", "gemm_out");
    b->graph.output[0]->name = TEXT("class");
}
static void unheard_of(lb_onnx_build *b) { INSERT(b, "Hardmax", NULL); }
static void layer_norm(lb_onnx_build *b) { reduce(b, "ReduceMean", 1, (const float[]){1}); }

/* ---- Refused ---------------------------------------------------------------------------------------------------------- */

static void refused(void **state) {
    (void)state;
    static const test_refusal rows[] = {
        {statistics_read, "(BatchNormalization): its statistics are used"},
        {one_image, "only channels, each at most once, rows or columns are gathered"},
        {far_channel, "gathers number -5 of 4"},
        {table_of_rows, "only channels, each at most once, rows or columns are gathered"},
        {all_summed, "(ReduceSum): only over height and width"},
        {channels_compared, "(ReduceMax): only over height and width"},
        {images_summed, "(ReduceSum): only over height and width"},
        {far_axis, "axis -4611686018427387904 of a tensor of 4 dimensions"},
        {expand_to_none, "(Expand): repeats dimension 2 of 1 to 0"},
        {expand_below, "repeats dimension 3 of 1 to -1"},
        {expand_far, "repeats dimension 2 of 1 to 4611686018427387904"},
        {expand_vast, "(MaxPool): spread: its output would be"},
        {expand_deep, "has more dimensions than the image"},
        {expand_channels, "repeats dimension 1 of 4 to 5"},
        {expand_images, "repeats images or channels"},
        {expand_open, "depends on the image"},
        {expand_scores, "is padded or repeated"},
        {most_of_two, "(Max): only of an image and one number"},
        {most_of_three, "(Max): only of an image and one number"},
        {most_of_many, "has 4 elements instead of one"},
        {no_number, "clips to -inf .. "},
        {below_all, "clips to -inf .. -inf"},
        {sum_of_none, "(Sum): its input 0 is missing"},
        {sum_with_constant, "'conv.bias', is a constant, not an image"},
        {sum_of_others, "of images of different shapes"},
        {split_images, "its parts are not all 1 of dimension 0"},
        {split_none, "its parts are not all 8 of dimension 2"},
        {split_more, "its parts are not all 8 of dimension 2"},
        {split_back, "its parts are not all 8 of dimension 3"},
        {split_in_one, "has 2 outputs for 1 parts"},
        {gelu, "(Erf): this operator is not read: it is GELU; train the network with Hardswish or ReLU"},
        {group_norm, "it is instance norm, or a part of group norm; train the network with batch norm"},
        {classes_only, "(ArgMax): this operator is not read: the class of the highest score; export the network without it"},
        {unheard_of, "this operator is not read; docs/onnx.md lists those that are"},
        {layer_norm, "means over channels are of layer norm: use batch norm"},
        {resize_half, "(Resize): dimension 2 grows by no whole factor"},
        {resize_part, "dimension 3 grows by no whole factor"},
        {resize_by_none, "dimension 2 grows by no whole factor"},
        {resize_far, "makes images of 524280 rows or columns"},
        {resize_channels, "repeats images or channels"},
        {resize_few, "not one for each of 4 dimensions"},
        {resize_to_none, "dimension 2 grows by no whole factor"},
        {resize_below, "dimension 2 grows by no whole factor"},
        {resize_to_odd, "dimension 2 grows by no whole factor"},
        {resize_vast, "dimension 2 grows by no whole factor"},
        {resize_line, "only nearest pixels by whole factors"},
        {resize_corners, "only nearest pixels by whole factors"},
        {no_rows, "makes images of 0 rows or columns"},
    };
    assert_refused(rows, LB_COUNT(rows));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_in_training), cmocka_unit_test(gate_stays_small), cmocka_unit_test(bounds),
        cmocka_unit_test(resized),           cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* One small network as ONNX, said in the ways of different exporters: imported, the same scores each time. */
#include <unistd.h>

#include "families.h"
#include "import_ways.h"
#include "support.h"

static const float mean[4] = {0.49f, 0.48f, 0.45f, 0}, std_[4] = {0.25f, 0.24f, 0.26f, 1};

static void as_it_is(lb_onnx_build *b) { (void)b; }

static void put_outside(lb_onnx_build *b, const char *offset) {
    static Lb__Onnx__StringStringEntryProto entry[2], *entries[] = {&entry[0], &entry[1]};
    Lb__Onnx__TensorProto *t = tensor_of(b, "fc.weight");
    FILE *file = fopen("import-weights.bin", "wb");
    assert_non_null(file);
    assert_int_equal(fseeko(file, atoll(offset), SEEK_SET), 0);
    assert_int_equal(fwrite(t->raw_data.data, 1, t->raw_data.len, file), t->raw_data.len);
    fclose(file);
    lb__onnx__string_string_entry_proto__init(&entry[0]);
    lb__onnx__string_string_entry_proto__init(&entry[1]);
    entry[0].key = TEXT("location"), entry[0].value = TEXT("import-weights.bin");
    entry[1].key = TEXT("offset"), entry[1].value = TEXT(offset);
    t->has_raw_data = 0;
    t->has_data_location = 1;
    t->data_location = LB__ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    t->n_external_data = 2;
    t->external_data = entries;
}
static void external_weights(lb_onnx_build *b) { put_outside(b, "8"); }
static void far_weights(lb_onnx_build *b) { put_outside(b, "5000000001"); } /* a hole before them, which takes no room */

static void double_weights(lb_onnx_build *b) {
    Lb__Onnx__TensorProto *t = tensor_of(b, "conv.weight");
    static double values[108];
    for (int i = 0; i < 108; i++)
        values[i] = (double)((float *)(void *)t->raw_data.data)[i];
    t->data_type = LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE;
    t->has_raw_data = 0;
    t->n_double_data = 108;
    t->double_data = values;
}

static void list_weights(lb_onnx_build *b) {
    Lb__Onnx__TensorProto *t = tensor_of(b, "conv.weight");
    t->has_raw_data = 0;
    t->n_float_data = 108;
    t->float_data = (float *)(void *)t->raw_data.data;
}

/* The image comes as (n, h, w, c), as from TensorFlow. */
static void channels_last(lb_onnx_build *b) {
    Lb__Onnx__TensorShapeProto__Dimension **dim = b->graph.input[0]->type->tensor_type->shape->dim;
    dim[1]->dim_value = dim[2]->dim_value = 8;
    dim[3]->dim_value = 3;
    Lb__Onnx__NodeProto *transpose = TEST_NODE(b, "Transpose", "chw", "image");
    lb_onnx_ints(b, transpose, "perm", (const int[]){0, 3, 1, 2}, 4);
    node_of(b, "Conv")->input[0] = TEXT("chw");
    move_last(b, 0);
}

/* The features too: (n, h, w, c) before they are flattened, and weights in that order. */
static void features_last(lb_onnx_build *b) {
    Lb__Onnx__NodeProto *transpose = TEST_NODE(b, "Transpose", "hwc", "pool_out");
    lb_onnx_ints(b, transpose, "perm", (const int[]){0, 2, 3, 1}, 4);
    node_of(b, "Reshape")->input[0] = TEXT("hwc");
    move_last(b, 3);
    float *w = (float *)(void *)tensor_of(b, "fc.weight")->raw_data.data, moved[320];
    for (int k = 0; k < 320; k++)
        moved[k] = w[k / 64 * 64 + k % 4 * 16 + k % 64 / 4];
    memcpy(w, moved, sizeof moved);
}

static void open_size(lb_onnx_build *b) {
    for (int d = 2; d < 4; d++)
        b->graph.input[0]->type->tensor_type->shape->dim[d]->value_case = LB__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE__NOT_SET;
}

static void fixed_batch(lb_onnx_build *b) {
    Lb__Onnx__TensorShapeProto__Dimension *dim = b->graph.input[0]->type->tensor_type->shape->dim[0];
    dim->value_case = LB__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    dim->dim_value = 16;
}

/* MatMul with transposed weights and Add instead of Gemm. */
static void apart(lb_onnx_build *b) {
    Lb__Onnx__NodeProto *gemm = node_of(b, "Gemm");
    TEST_NODE(b, "Transpose", "fc.turned", "fc.weight");
    move_last(b, 0);
    gemm->op_type = TEXT("MatMul");
    gemm->n_input = 2;
    gemm->n_attribute = 0;
    gemm->input[1] = TEXT("fc.turned");
    gemm->output[0] = TEXT("product");
    TEST_NODE(b, "Add", "scores", "fc.bias", "product");
}

/* The convolution's bias as a constant of its own, (1, 4, 1, 1). */
static void bias_apart(lb_onnx_build *b) {
    Lb__Onnx__NodeProto *conv = node_of(b, "Conv");
    Lb__Onnx__TensorProto *t = tensor_of(b, "conv.bias");
    static int64_t dims[] = {1, 4, 1, 1};
    t->n_dims = 4;
    t->dims = dims;
    conv->n_input = 2;
    conv->output[0] = TEXT("sums");
    TEST_NODE(b, "Add", "conv_out", "sums", "conv.bias");
    move_last(b, 1);
}

/* The convolution is read twice, once with a bias: directly, or under another name, which must not give the bias to both. */
static void read_twice(lb_onnx_build *b, bool renamed) {
    bias_apart(b);
    Lb__Onnx__NodeProto *add = node_of(b, "Add");
    node_of(b, "Relu")->input[0] = TEXT("both");
    TEST_NODE(b, "Mul", "both", "conv_out", "sums");
    move_last(b, 2);
    if (!renamed)
        return;
    TEST_NODE(b, "Identity", "same", "sums");
    move_last(b, 1);
    add->input[0] = TEXT("same");
}
static void bias_for_one(lb_onnx_build *b) { read_twice(b, false); }
static void bias_for_one_renamed(lb_onnx_build *b) { read_twice(b, true); }

/* The same of the image: scaled for one reader. */
static void image_twice(lb_onnx_build *b, bool renamed) {
    lb_onnx_scalar(b, "half", FLOAT_TYPE, 0.5f);
    node_of(b, "Conv")->input[0] = TEXT("sum");
    TEST_NODE(b, "Add", "sum", "image", "less");
    move_last(b, 0);
    TEST_NODE(b, "Mul", "less", renamed ? "same" : "image", "half");
    move_last(b, 0);
    if (!renamed)
        return;
    TEST_NODE(b, "Identity", "same", "image");
    move_last(b, 0);
}
static void half_for_one(lb_onnx_build *b) { image_twice(b, false); }
static void half_for_one_renamed(lb_onnx_build *b) { image_twice(b, true); }

static void negate_weights(lb_onnx_build *b) {
    float *w = (float *)(void *)tensor_of(b, "conv.weight")->raw_data.data;
    for (int k = 0; k < 108; k++)
        w[k] = -w[k];
}

/* Minus the image, which no standard deviation is, with negative weights. */
static void minus_image(lb_onnx_build *b) {
    lb_onnx_scalar(b, "zero", FLOAT_TYPE, 0);
    negate_weights(b);
    node_of(b, "Conv")->input[0] = TEXT("minus");
    TEST_NODE(b, "Sub", "minus", "zero", "image");
    move_last(b, 0);
}

static void negated(lb_onnx_build *b) {
    minus_image(b);
    Lb__Onnx__NodeProto *sub = node_of(b, "Sub");
    sub->op_type = TEXT("Neg");
    sub->n_input = 1;
    sub->input[0] = TEXT("image");
}

/* The bias less the convolution with negative weights. */
static void bias_less(lb_onnx_build *b) {
    bias_apart(b);
    negate_weights(b);
    Lb__Onnx__NodeProto *add = node_of(b, "Add");
    add->op_type = TEXT("Sub");
    add->input[0] = TEXT("conv.bias");
    add->input[1] = TEXT("sums");
}

/* Subtracted and divided somewhere in the middle: a batch norm of ours. */
static void affine(lb_onnx_build *b) {
    const float half[] = {0.5f}, zero[] = {0};
    lb_onnx_tensor(b, "half", FLOAT_TYPE, 0, NULL, half);
    lb_onnx_tensor(b, "zero", FLOAT_TYPE, 0, NULL, zero);
    node_of(b, "Reshape")->input[0] = TEXT("back");
    TEST_NODE(b, "Mul", "back", "less", "half");
    move_last(b, 3);
    TEST_NODE(b, "Sub", "less", "doubled", "zero");
    move_last(b, 3);
    TEST_NODE(b, "Div", "doubled", "pool_out", "half");
    move_last(b, 3);
}

/* The shape computed from the tensor's own, as PyTorch traces x.view(x.size(0), -1). */
static void traced_shape(lb_onnx_build *b) {
    const float none[] = {0}, open[] = {-1};
    lb_onnx_tensor(b, "zero", INT64_TYPE, 0, NULL, none);
    test_list(b, "axes", 1, none);
    test_list(b, "open", 1, open);
    node_of(b, "Reshape")->input[1] = TEXT("traced");
    Lb__Onnx__NodeProto *concat = TEST_NODE(b, "Concat", "traced", "first", "open");
    lb_onnx_int(b, concat, "axis", 0);
    move_last(b, 3);
    TEST_NODE(b, "Unsqueeze", "first", "images", "axes");
    move_last(b, 3);
    TEST_NODE(b, "Gather", "images", "whole", "zero");
    move_last(b, 3);
    TEST_NODE(b, "Shape", "whole", "pool_out");
    move_last(b, 3);
}

/* Places counted from the end: the batch's size, and the last two extents, which opset 15 can ask for. */
static void shape_from_the_end(lb_onnx_build *b) {
    b->model.opset_import[0]->version = 15;
    test_list(b, "fourth", 1, (const float[]){-4});
    test_list(b, "channels", 1, (const float[]){4});
    node_of(b, "Reshape")->input[0] = TEXT("same");
    TEST_NODE(b, "Reshape", "same", "pool_out", "extents");
    move_last(b, 3);
    lb_onnx_int(b, TEST_NODE(b, "Concat", "extents", "images", "channels", "lines"), "axis", 0);
    move_last(b, 3);
    TEST_NODE(b, "Gather", "images", "whole", "fourth");
    move_last(b, 3);
    TEST_NODE(b, "Shape", "whole", "pool_out");
    move_last(b, 3);
    lb_onnx_int(b, TEST_NODE(b, "Shape", "lines", "pool_out"), "start", -2);
    move_last(b, 3);
}

/* An extent computed in real numbers: minus a half, rounded down, is the open one. */
static void floored_extent(lb_onnx_build *b) {
    test_list(b, "zero", 1, (const float[]){0});
    lb_onnx_tensor(b, "half", FLOAT_TYPE, 1, (const int64_t[]){1}, (const float[]){-0.5f});
    node_of(b, "Reshape")->input[1] = TEXT("extents");
    lb_onnx_int(b, TEST_NODE(b, "Concat", "extents", "zero", "open"), "axis", 0);
    move_last(b, 0);
    lb_onnx_int(b, TEST_NODE(b, "Cast", "open", "floored"), "to", INT64_TYPE);
    move_last(b, 0);
    TEST_NODE(b, "Floor", "floored", "half");
    move_last(b, 0);
}

/* Channels apart, and together again in the same order. */
static void split_and_joined(lb_onnx_build *b) {
    const float sizes[] = {1, 3};
    static char *outputs[] = {TEXT("left"), TEXT("right")};
    test_list(b, "sizes", 2, sizes);
    node_of(b, "Reshape")->input[0] = TEXT("joined");
    Lb__Onnx__NodeProto *concat = TEST_NODE(b, "Concat", "joined", "left", "right");
    lb_onnx_int(b, concat, "axis", 1);
    move_last(b, 3);
    Lb__Onnx__NodeProto *split = TEST_NODE(b, "Split", "left", "pool_out", "sizes");
    lb_onnx_int(b, split, "axis", 1);
    split->n_output = 2;
    split->output = outputs;
    move_last(b, 3);
}

/* The image's three channels in two parts of no stated sizes: the last is the smaller. */
static void split_unevenly(lb_onnx_build *b) {
    static char *outputs[] = {TEXT("left"), TEXT("right")};
    node_of(b, "Conv")->input[0] = TEXT("joined");
    lb_onnx_int(b, TEST_NODE(b, "Concat", "joined", "left", "right"), "axis", 1);
    move_last(b, 0);
    Lb__Onnx__NodeProto *split = TEST_NODE(b, "Split", "left", "image");
    lb_onnx_int(b, split, "axis", 1);
    split->n_output = 2;
    split->output = outputs;
    move_last(b, 0);
}

/* Every second channel before the others, twice: of four, the order that was. */
static void every_second(lb_onnx_build *b) {
    static const char *const names[] = {"pool_out", "mixed", "sorted"};
    test_list(b, "zero", 1, (const float[]){0});
    test_list(b, "one", 1, (const float[]){1});
    test_list(b, "two", 1, (const float[]){2});
    test_list(b, "four", 1, (const float[]){4});
    node_of(b, "Reshape")->input[0] = TEXT("sorted");
    for (int i = 0; i < 2; i++) {
        const char *even = lb_onnx_name(b, "even%d", i), *odd = lb_onnx_name(b, "odd%d", i);
        TEST_NODE(b, "Slice", even, names[i], "zero", "four", "one", "two");
        move_last(b, 3 + 3 * (size_t)i);
        TEST_NODE(b, "Slice", odd, names[i], "one", "four", "one", "two");
        move_last(b, 4 + 3 * (size_t)i);
        lb_onnx_int(b, TEST_NODE(b, "Concat", names[i + 1], even, odd), "axis", 1);
        move_last(b, 5 + 3 * (size_t)i);
    }
}

/* Rows apart and together again, columns too, channels last. */
static void join_lines(lb_onnx_build *b, bool split) {
    static struct {
        const char *from, *to, *parts[2];
        int axis;
    } rows[] = {{"last", "columns", {"upper", "lower"}, 1}, {"columns", "joined", {"left", "right"}, 2}};
    test_list(b, "none", 1, (const float[]){0});
    test_list(b, "three", 1, (const float[]){3});
    test_list(b, "rest", 1, (const float[]){100});
    test_list(b, "sizes", 2, (const float[]){3, 1});
    size_t at = 3;
    lb_onnx_ints(b, TEST_NODE(b, "Transpose", "last", "pool_out"), "perm", (const int[]){0, 2, 3, 1}, 4);
    move_last(b, at++);
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        const char *axis = lb_onnx_name(b, "axis%zu", i);
        test_list(b, axis, 1, (const float[]){(float)rows[i].axis});
        Lb__Onnx__NodeProto *first = split ? TEST_NODE(b, "Split", rows[i].parts[0], rows[i].from, "sizes")
                                           : TEST_NODE(b, "Slice", rows[i].parts[0], rows[i].from, "none", "three", axis);
        move_last(b, at++);
        if (split) {
            lb_onnx_int(b, first, "axis", rows[i].axis);
            first->output = (char **)(uintptr_t)rows[i].parts;
            first->n_output = 2;
        } else {
            TEST_NODE(b, "Slice", rows[i].parts[1], rows[i].from, "three", "rest", axis);
            move_last(b, at++);
        }
        lb_onnx_int(b, TEST_NODE(b, "Concat", rows[i].to, rows[i].parts[0], rows[i].parts[1]), "axis", rows[i].axis);
        move_last(b, at++);
    }
    lb_onnx_ints(b, TEST_NODE(b, "Transpose", "back", "joined"), "perm", (const int[]){0, 3, 1, 2}, 4);
    move_last(b, at++);
    node_of(b, "Reshape")->input[0] = TEXT("back");
}
static void lines_joined(lb_onnx_build *b) { join_lines(b, false); }
static void lines_split(lb_onnx_build *b) { join_lines(b, true); }

/* Each row by its number, which has height no more, and back between the others. */
static void rows_picked(lb_onnx_build *b) {
    static const char *rows[] = {"row0", "row1", "row2", "row3"};
    size_t at = 3;
    test_list(b, "height", 1, (const float[]){2});
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        const char *picked = lb_onnx_name(b, "picked%zu", i), *number = lb_onnx_name(b, "number%zu", i);
        lb_onnx_scalar(b, number, INT64_TYPE, (float)i - 4);
        lb_onnx_int(b, TEST_NODE(b, "Gather", picked, "pool_out", number), "axis", 2);
        move_last(b, at++);
        TEST_NODE(b, "Unsqueeze", rows[i], picked, "height");
        move_last(b, at++);
    }
    lb_onnx_int(b, lb_onnx_node(b, "Concat", "again", 4, rows), "axis", 2);
    move_last(b, at++);
    node_of(b, "Reshape")->input[0] = TEXT("again");
}

/* What is an input or an attribute from opset 18 on, as newer exporters of PyTorch write it. */
static void opset_18(lb_onnx_build *b) {
    static char *outputs[] = {TEXT("two"), TEXT("one")};
    b->model.opset_import[0]->version = 18;
    Lb__Onnx__NodeProto *conv = node_of(b, "Conv"), *reshape = node_of(b, "Reshape");
    memset(conv->attribute[1]->ints, 0, 4 * sizeof *conv->attribute[1]->ints); /* pads */
    conv->input[0] = TEXT("padded");
    test_list(b, "pads", 4, (const float[]){1, 1, 1, 1});
    test_list(b, "axes", 2, (const float[]){-2, -1});
    test_list(b, "flat_shape", 2, (const float[]){-1, 64});
    TEST_NODE(b, "Pad", "padded", "image", "pads", "", "axes");
    move_last(b, 0);
    reshape->input[1] = TEXT("flat_shape");
    lb_onnx_int(b, reshape, "allowzero", 1);
    reshape->input[0] = TEXT("same");
    Lb__Onnx__NodeProto *split = TEST_NODE(b, "Split", "two", "pool_out");
    lb_onnx_int(b, split, "axis", 1);
    lb_onnx_int(b, split, "num_outputs", 2);
    split->n_output = 2;
    split->output = outputs;
    move_last(b, 4);
    lb_onnx_int(b, TEST_NODE(b, "Concat", "joined", "two", "one"), "axis", 1);
    move_last(b, 5);
    lb_onnx_int(b, TEST_NODE(b, "ReduceMean", "same", "joined"), "noop_with_empty_axes", 1);
    move_last(b, 6);
}

/* The last layer's probabilities under another name, as Keras networks have them. */
static void softmax_renamed(lb_onnx_build *b) {
    node_of(b, "Gemm")->output[0] = TEXT("dense");
    lb_onnx_int(b, TEST_NODE(b, "Softmax", "probabilities", "dense"), "axis", -1);
    TEST_NODE(b, "Identity", "scores", "probabilities");
}

/* A shuffle of the channels, and one that undoes it; in between a factor for each channel, which a division behind takes back. */
static void shuffle(lb_onnx_build *b, bool scaled) {
    const int64_t four[] = {4, 1, 1};
    const float grouped[] = {0, 2, 2, 4, 4}, plain[] = {0, 4, 4, 4};
    test_list(b, "grouped", 5, grouped);
    test_list(b, "plain", 4, plain);
    node_of(b, "Reshape")->input[0] = TEXT("u3");
    const char *last = "pool_out";
    for (int i = 0; i < 2; i++) { /* a Relu in between does not change what is positive */
        const char *a = lb_onnx_name(b, "a%d", i), *p = lb_onnx_name(b, "p%d", i), *c = lb_onnx_name(b, "c%d", i);
        TEST_NODE(b, "Reshape", a, last, "grouped");
        move_last(b, 3 + 4 * (size_t)i);
        Lb__Onnx__NodeProto *transpose = TEST_NODE(b, "Transpose", p, a);
        lb_onnx_ints(b, transpose, "perm", (const int[]){0, 2, 1, 3, 4}, 5);
        move_last(b, 4 + 4 * (size_t)i);
        TEST_NODE(b, "Reshape", c, p, "plain");
        move_last(b, 5 + 4 * (size_t)i);
        last = i ? "u3" : "u0";
        if (scaled) {
            const float factors[] = {1, i ? 3 : 2, i ? 2 : 3, 4};
            const char *k = lb_onnx_tensor(b, lb_onnx_name(b, "k%d", i), FLOAT_TYPE, 3, four, factors);
            TEST_NODE(b, i ? "Div" : "Mul", last, c, k);
        } else {
            TEST_NODE(b, "Relu", last, c);
        }
        move_last(b, 6 + 4 * (size_t)i);
    }
    for (size_t i = 0; i < b->graph.n_node; i++) /* node_of found one of the new ones */
        if (!strcmp(b->graph.node[i]->output[0], "flat"))
            b->graph.node[i]->input[0] = TEXT("u3");
}
static void shuffled(lb_onnx_build *b) { shuffle(b, false); }
static void shuffled_scaled(lb_onnx_build *b) { shuffle(b, true); }

/* Padding that is more than the kernel behind it takes, cut off again. */
static void wide_padding(lb_onnx_build *b) {
    test_list(b, "around", 8, (const float[]){0, 0, 1, 2, 0, 0, 0, 1});
    test_list(b, "from", 2, (const float[]){1, 2});
    test_list(b, "to", 2, (const float[]){5, 6});
    test_list(b, "axes", 2, (const float[]){2, 3});
    TEST_NODE(b, "Pad", "padded", "pool_out", "around");
    move_last(b, 3);
    lb_onnx_ints(b, TEST_NODE(b, "AveragePool", "taken", "padded"), "kernel_shape", (const int[]){1, 1}, 2);
    move_last(b, 4);
    TEST_NODE(b, "Slice", "cut", "taken", "from", "to", "axes");
    move_last(b, 5);
    node_of(b, "Reshape")->input[0] = TEXT("cut");
}

/* The convolution as a transposed one: weights with channels swapped, mirrored. */
static void transposed(lb_onnx_build *b) {
    Lb__Onnx__TensorProto *t = tensor_of(b, "conv.weight");
    float *w = (float *)(void *)t->raw_data.data, turned[108];
    for (int k = 0; k < 108; k++)
        turned[k] = w[(k / 9 % 4 * 3 + k / 36) * 9 + 8 - k % 9];
    memcpy(w, turned, sizeof turned);
    t->dims[0] = 3, t->dims[1] = 4;
    node_of(b, "Conv")->op_type = TEXT("ConvTranspose");
}

/* A transposed convolution in two groups that adds channels, and a convolution that subtracts them again. */
static void transposed_groups(lb_onnx_build *b) {
    const float add[] = {1, 1, 0, 1, 1, 0.5f, 0, 1}, sub[] = {1, 0, -1, 1, 1, 0, -0.5f, 1};
    lb_onnx_tensor(b, "add", FLOAT_TYPE, 4, (const int64_t[]){4, 2, 1, 1}, add);
    lb_onnx_tensor(b, "sub", FLOAT_TYPE, 4, (const int64_t[]){4, 2, 1, 1}, sub);
    node_of(b, "Reshape")->input[0] = TEXT("subtracted");
    lb_onnx_int(b, TEST_NODE(b, "Conv", "subtracted", "added", "sub"), "group", 2);
    move_last(b, 3);
    lb_onnx_int(b, TEST_NODE(b, "ConvTranspose", "added", "pool_out", "add"), "group", 2);
    move_last(b, 3);
}

/* x = 2 x - x. */
static void difference(lb_onnx_build *b) {
    lb_onnx_scalar(b, "two", FLOAT_TYPE, 2);
    node_of(b, "Reshape")->input[0] = TEXT("rest");
    TEST_NODE(b, "Sub", "rest", "twice", "pool_out");
    move_last(b, 3);
    TEST_NODE(b, "Mul", "twice", "pool_out", "two");
    move_last(b, 3);
}

/* Weights of 1/512, which a batch norm behind them multiplies again. */
static void small_weights(lb_onnx_build *b) {
    const int64_t four = 4;
    const float ones[] = {1, 1, 1, 1}, zeros[4] = {0}, var[] = {0x1p-18f, 0x1p-18f, 0x1p-18f, 0x1p-18f};
    float *w = (float *)(void *)tensor_of(b, "conv.weight")->raw_data.data,
          *bias = (float *)(void *)tensor_of(b, "conv.bias")->raw_data.data;
    for (int k = 0; k < 108; k++)
        w[k] /= 512;
    for (int k = 0; k < 4; k++)
        bias[k] /= 512;
    lb_onnx_tensor(b, "bn.weight", FLOAT_TYPE, 1, &four, ones);
    lb_onnx_tensor(b, "bn.bias", FLOAT_TYPE, 1, &four, zeros);
    lb_onnx_tensor(b, "bn.mean", FLOAT_TYPE, 1, &four, zeros);
    lb_onnx_tensor(b, "bn.var", FLOAT_TYPE, 1, &four, var);
    node_of(b, "Conv")->output[0] = TEXT("sums");
    Lb__Onnx__NodeProto *bn = TEST_NODE(b, "BatchNormalization", "conv_out", "sums", "bn.weight", "bn.bias", "bn.mean", "bn.var");
    lb_onnx_real(b, bn, "epsilon", 1e-12f);
    move_last(b, 1);
}

/* An initializer of hundredths as codes with a zero point; scales are one for all, or one for each of the first dimension, where
 * every second one is negative and zero points differ. */
static void make_codes(lb_onnx_build *b, const char *name, int type, float zero, int nscales) {
    Lb__Onnx__TensorProto *t = tensor_of(b, name);
    float codes[320], scales[8], zeros[8];
    size_t count = t->raw_data.len / sizeof *codes;
    memcpy(codes, t->raw_data.data, t->raw_data.len);
    for (int k = 0; k < nscales; k++)
        scales[k] = k % 2 ? -0.01f : 0.01f, zeros[k] = zero - (float)k;
    for (size_t k = 0; k < count; k++) {
        const size_t at = k / (count / (size_t)nscales);
        codes[k] = roundf(codes[k] * 100) * (at % 2 ? -1.f : 1.f) + zeros[at];
        assert_true(fabsf(codes[k] - zero) < 120);
    }
    const int64_t n = nscales;
    const int ndim = nscales > 1;
    const char *from[] = {lb_onnx_tensor(b, lb_onnx_name(b, "%s_codes", name), type, (int)t->n_dims, t->dims, codes),
                          lb_onnx_tensor(b, lb_onnx_name(b, "%s_scale", name), FLOAT_TYPE, ndim, &n, scales),
                          lb_onnx_tensor(b, lb_onnx_name(b, "%s_zero", name), type, ndim, &n, zeros)};
    Lb__Onnx__NodeProto *node = lb_onnx_node(b, "DequantizeLinear", lb_onnx_name(b, "%s_real", name), 3, from);
    lb_onnx_int(b, node, "axis", 0);
    move_last(b, 0);
}

/* As a quantizer leaves it: codes for weights, and codes from 0 on in place of the Relu. */
static void quantized(lb_onnx_build *b) {
    make_codes(b, "conv.weight", LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8, 3, 1);
    make_codes(b, "fc.weight", LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8, 128, 5);
    node_of(b, "Conv")->input[1] = TEXT("conv.weight_real");
    node_of(b, "Gemm")->input[1] = TEXT("fc.weight_real");
    const char *step = lb_onnx_scalar(b, "step", FLOAT_TYPE, 0.25f);
    const char *zero = lb_onnx_scalar(b, "zero", LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8, 0);
    Lb__Onnx__NodeProto *relu = node_of(b, "Relu");
    relu->op_type = TEXT("DequantizeLinear");
    relu->input[0] = TEXT("codes");
    size_t at = 0;
    while (b->graph.node[at] != relu)
        at++;
    relu->n_input = 1; /* a scale is asked for of constants only */
    TEST_NODE(b, "QuantizeLinear", "codes", "conv_out", step, zero);
    move_last(b, at);
}

/* Signed codes with a zero point in their middle: nothing is cut off at 0. */
static void signed_codes(lb_onnx_build *b) {
    const char *step = lb_onnx_scalar(b, "step", FLOAT_TYPE, 0.125f);
    const char *zero = lb_onnx_scalar(b, "zero", LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8, 0);
    size_t at = 0;
    while (strcmp(b->graph.node[at]->op_type, "Gemm"))
        at++;
    char *name = b->graph.node[at]->output[0];
    b->graph.node[at]->output[0] = TEXT("sums");
    TEST_NODE(b, "QuantizeLinear", "codes", "sums", step, zero);
    move_last(b, at + 1);
    TEST_NODE(b, "DequantizeLinear", name, "codes", step, zero);
    move_last(b, at + 2);
}

/* As PyTorch exports training with simulated rounding: the weights themselves, quantized in the graph. */
static void rounded_in_the_graph(lb_onnx_build *b) {
    const char *step = lb_onnx_scalar(b, "step", FLOAT_TYPE, 0.5f);
    const char *zero = lb_onnx_scalar(b, "zero", LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8, 0);
    TEST_NODE(b, "DequantizeLinear", "conv.real", "conv.codes", step, zero);
    move_last(b, 0);
    TEST_NODE(b, "QuantizeLinear", "conv.codes", "conv.weight", step, zero);
    move_last(b, 0);
    node_of(b, "Conv")->input[1] = TEXT("conv.real");
}

/* As `quantized`, the codes clipped in between: their range goes with their rounding. */
static void clipped_codes(lb_onnx_build *b) {
    quantized(b);
    lb_onnx_scalar(b, "least", LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8, 0);
    lb_onnx_scalar(b, "most", LB__ONNX__TENSOR_PROTO__DATA_TYPE__UINT8, 3);
    size_t at = 0;
    while (strcmp(b->graph.node[at]->output[0], "relu_out"))
        at++;
    b->graph.node[at]->input[0] = TEXT("clipped");
    TEST_NODE(b, "Clip", "clipped", "codes", "least", "most");
    move_last(b, at);
}

/* Padding as PyTorch writes it from opset 11 on: the amounts, last dimension first, padded with zeros, turned round by a Slice with
 * a negative step. */
static void padding_computed(lb_onnx_build *b) {
    test_list(b, "amounts", 4, (const float[]){1, 1, 1, 1});
    test_list(b, "missing", 1, (const float[]){4});
    test_list(b, "pairs", 2, (const float[]){-1, 2});
    test_list(b, "list", 1, (const float[]){-1});
    test_list(b, "from", 1, (const float[]){-1});
    test_list(b, "to", 1, (const float[]){-0x1p62f});
    test_list(b, "first", 1, (const float[]){0});
    Lb__Onnx__NodeProto *conv = node_of(b, "Conv");
    conv->input[0] = TEXT("padded");
    for (size_t i = 0; i < conv->n_attribute; i++)
        if (!strcmp(conv->attribute[i]->name, "pads"))
            memset(conv->attribute[i]->ints, 0, 4 * sizeof *conv->attribute[i]->ints);
    TEST_NODE(b, "ConstantOfShape", "zeros", "missing");
    move_last(b, 0);
    lb_onnx_int(b, TEST_NODE(b, "Concat", "both", "amounts", "whole_zeros"), "axis", 0);
    move_last(b, 1);
    lb_onnx_int(b, TEST_NODE(b, "Cast", "whole_zeros", "zeros"), "to", INT64_TYPE);
    move_last(b, 1);
    TEST_NODE(b, "Reshape", "by two", "both", "pairs");
    move_last(b, 3);
    TEST_NODE(b, "Slice", "reversed", "by two", "from", "to", "first", "from");
    move_last(b, 4);
    lb_onnx_ints(b, TEST_NODE(b, "Transpose", "columns", "reversed"), "perm", (const int[]){1, 0}, 2);
    move_last(b, 5);
    TEST_NODE(b, "Reshape", "pads", "columns", "list");
    move_last(b, 6);
    TEST_NODE(b, "Pad", "padded", "image", "pads");
    move_last(b, 7);
}

/* Padding by -infinity cut off again, and pixels reversed twice, channels last. */
static void pixels_moved(lb_onnx_build *b) {
    test_list(b, "from", 2, (const float[]){-1, -1});
    test_list(b, "to", 2, (const float[]){-9, -0x1p62f});
    test_list(b, "axes", 2, (const float[]){1, 2});
    test_list(b, "pads", 8, (const float[]){0, 1, 2, 0, 0, 0, 1, 0});
    test_list(b, "cut", 8, (const float[]){0, -1, -2, 0, 0, 0, -1, 0});
    node_of(b, "MaxPool")->input[0] = TEXT("back");
    lb_onnx_ints(b, TEST_NODE(b, "Transpose", "last", "relu_out"), "perm", (const int[]){0, 2, 3, 1}, 4);
    move_last(b, 2);
    TEST_NODE(b, "Slice", "reversed", "last", "from", "to", "axes", "from");
    move_last(b, 3);
    lb_onnx_text(b, TEST_NODE(b, "Pad", "mirrored", "reversed", "pads"), "mode", "reflect");
    move_last(b, 4);
    TEST_NODE(b, "Pad", "again", "mirrored", "cut");
    move_last(b, 5);
    TEST_NODE(b, "Slice", "straight", "again", "from", "to", "axes", "from");
    move_last(b, 6);
    lb_onnx_ints(b, TEST_NODE(b, "Transpose", "back", "straight"), "perm", (const int[]){0, 3, 1, 2}, 4);
    move_last(b, 7);
}

/* The classifier behind the mean of all pixels, and MatMul over pixels as a list of tokens, their mean and a classifier of ones. */
static void by_pixel(lb_onnx_build *b, bool tokens, bool axes_as_input) {
    static const float ones[] = {1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1};
    const Lb__Onnx__TensorProto *fc = tensor_of(b, "fc.weight");
    float small[20];
    for (int k = 0; k < 20; k++)
        small[k] = ((const float *)(const void *)fc->raw_data.data)[tokens ? k % 5 * 4 + k / 5 : k];
    lb_onnx_tensor(b, "small", FLOAT_TYPE, 2, tokens ? (const int64_t[]){4, 5} : (const int64_t[]){5, 4}, small);
    node_of(b, "Gemm")->input[0] = TEXT("mean");
    node_of(b, "Gemm")->input[1] = TEXT(tokens ? "ones" : "small");
    if (!tokens) {
        test_list(b, "axes", 2, (const float[]){-1, -2});
        Lb__Onnx__NodeProto *node =
            axes_as_input ? TEST_NODE(b, "ReduceMean", "mean", "pool_out", "axes") : TEST_NODE(b, "ReduceMean", "mean", "pool_out");
        if (axes_as_input)
            b->model.opset_import[0]->version = 18;
        else
            lb_onnx_ints(b, node, "axes", (const int[]){2, 3}, 2);
        lb_onnx_int(b, node, "keepdims", 0);
        move_last(b, 3);
        return;
    }
    lb_onnx_tensor(b, "ones", FLOAT_TYPE, 2, (const int64_t[]){5, 5}, ones);
    test_list(b, "tokens", 3, (const float[]){0, 0, -1});
    TEST_NODE(b, "Reshape", "listed", "pool_out", "tokens");
    move_last(b, 3);
    lb_onnx_ints(b, TEST_NODE(b, "Transpose", "rows", "listed"), "perm", (const int[]){0, 2, 1}, 3);
    move_last(b, 4);
    TEST_NODE(b, "MatMul", "product", "rows", "small");
    move_last(b, 5);
    Lb__Onnx__NodeProto *node = TEST_NODE(b, "ReduceMean", "mean", "product");
    lb_onnx_ints(b, node, "axes", (const int[]){1}, 1);
    lb_onnx_int(b, node, "keepdims", 0);
    move_last(b, 6);
}
static void mean_first(lb_onnx_build *b) { by_pixel(b, false, false); }
static void mean_18(lb_onnx_build *b) { by_pixel(b, false, true); }
static void mean_last(lb_onnx_build *b) { by_pixel(b, true, false); }

/* A larger pool of the average of what lies inside, said by count_include_pad and by ceil_mode. */
static void average(lb_onnx_build *b, bool ceil) {
    Lb__Onnx__NodeProto *pool = node_of(b, "MaxPool");
    pool->op_type = TEXT("AveragePool");
    for (size_t i = 0; i < pool->n_attribute; i++)
        pool->attribute[i]->ints[0] = pool->attribute[i]->ints[1] = 3; /* kernel and strides */
    if (ceil)
        lb_onnx_int(b, pool, "ceil_mode", 1);
    else
        lb_onnx_ints(b, pool, "pads", (const int[]){0, 0, 1, 1}, 4);
    test_weights(b, "less", 2, (const int64_t[]){5, 36});
    node_of(b, "Gemm")->input[1] = TEXT("less");
}
static void average_padded(lb_onnx_build *b) { average(b, false); }
static void average_ceil(lb_onnx_build *b) { average(b, true); }

/* Windows of two, every three, of 8 rows and one more on either side: a fourth would begin in the padding, and is left out. */
static void padded_windows(lb_onnx_build *b, bool ceil) {
    Lb__Onnx__NodeProto *pool = node_of(b, "MaxPool");
    pool->attribute[1]->ints[0] = pool->attribute[1]->ints[1] = 3; /* strides */
    lb_onnx_ints(b, pool, "pads", (const int[]){1, 1, 1, 1}, 4);
    lb_onnx_int(b, pool, "ceil_mode", ceil);
    test_weights(b, "less", 2, (const int64_t[]){5, 36});
    node_of(b, "Gemm")->input[1] = TEXT("less");
}
static void windows_floor(lb_onnx_build *b) { padded_windows(b, false); }
static void windows_ceil(lb_onnx_build *b) { padded_windows(b, true); }

static void same_network(void **state) {
    (void)state;
    static const struct {
        const char *name;
        void (*change)(lb_onnx_build *b);
        bool other; /* a network of its own, which those behind it are */
    } rows[] = {{"as it is", as_it_is, true},
                {"external weights", external_weights, false},
                {"weights behind 4 GB", far_weights, false},
                {"double weights", double_weights, false},
                {"weights as a list", list_weights, false},
                {"channels last", channels_last, false},
                {"features last", features_last, false},
                {"open size", open_size, false},
                {"fixed batch", fixed_batch, false},
                {"MatMul and Add", apart, false},
                {"bias apart", bias_apart, false},
                {"bias less the convolution", bias_less, false},
                {"minus the image", minus_image, false},
                {"minus the image, Neg", negated, false},
                {"affine", affine, false},
                {"traced shape", traced_shape, false},
                {"shape from the end", shape_from_the_end, false},
                {"floored extent", floored_extent, false},
                {"split and joined", split_and_joined, false},
                {"split unevenly", split_unevenly, false},
                {"every second channel", every_second, false},
                {"rows and columns joined", lines_joined, false},
                {"rows and columns split", lines_split, false},
                {"rows picked", rows_picked, false},
                {"opset 18", opset_18, false},
                {"softmax renamed", softmax_renamed, false},
                {"shuffled", shuffled, false},
                {"shuffled and scaled", shuffled_scaled, false},
                {"padded wider than a kernel", wide_padding, false},
                {"transposed", transposed, false},
                {"transposed in groups", transposed_groups, false},
                {"padding computed", padding_computed, false},
                {"pixels moved", pixels_moved, false},
                {"difference", difference, false},
                {"small weights", small_weights, false},
                {"quantized", quantized, false},
                {"clipped codes", clipped_codes, false},
                {"signed codes", signed_codes, false},
                {"rounded in the graph", rounded_in_the_graph, false},
                {"mean before the classifier", mean_first, true},
                {"mean of axes that are an input", mean_18, false},
                {"mean behind it", mean_last, false},
                {"sum", sum_first, false},
                {"sum, channels last", sum_of_last, false},
                {"maximum", most, true},
                {"maximum of axes", most_reduced, false},
                {"maximum, channels last", most_of_last, false},
                {"bias for one of two readers", bias_for_one, true},
                {"bias for one, renamed", bias_for_one_renamed, false},
                {"scaled for one of two readers", half_for_one, true},
                {"scaled for one, renamed", half_for_one_renamed, false},
                {"gated", gated, true},
                {"gated, repeated", gated_as_is, false},
                {"gated, channels last", gated_last, false},
                {"gated, repeated in steps", gated_in_steps, false},
                {"shifted", shifted, true},
                {"shifted, repeated", shifted_as_is, false},
                {"shifted, channels last", shifted_last, false},
                {"sum of three", sum_of_three, true},
                {"sum in steps", sum_in_steps, false},
                {"average of a padded image", average_padded, true},
                {"average by ceil_mode", average_ceil, false},
                {"padded windows", windows_floor, true},
                {"padded windows by ceil_mode", windows_ceil, false}};
    lb_ctx *ctx = test_ctx();
    double want[MB * 5] = {0};
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_onnx_build b;
        lb_imported in;
        uint32_t seed = 3;
        test_model(&b, ctx);
        rows[i].change(&b);
        assert_ok(ctx, b.status);
        lb_status status = lb_net_import(ctx, &b.model, "small.onnx", &(lb_import_options){.input = {8, 8, 3}}, &in);
        if (status != LB_OK)
            fail_msg("%s: %s", rows[i].name, lb_error(ctx));
        uint8_t *pixels = make_pixels(in.net, &seed);
        netref r;
        netref_create(&r, in.net, mean, std_, MB, 1);
        netref_run(&r, pixels);
        const double *got = r.values[in.net->nnodes - 1];
        for (int k = 0; k < MB * 5; k++) {
            if (rows[i].other)
                want[k] = got[k];
            else if (!(fabs(got[k] - want[k]) <= 1e-5 * fmax(1, fabs(want[k]))))
                fail_msg("%s: score %d is %.9g instead of %.9g", rows[i].name, k, got[k], want[k]);
        }
        netref_destroy(&r);
        free(pixels);
        lb_net_destroy(in.net);
        lb_onnx_build_free(&b);
    }
    remove("import-weights.bin");
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_network)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

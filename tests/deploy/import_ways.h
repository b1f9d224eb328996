/* Ways to say the same network for test_import_ways.c: pixels that become one, and one that becomes many. */
#ifndef LB_TEST_IMPORT_WAYS_H
#define LB_TEST_IMPORT_WAYS_H

#include "net/import.h"

/* Moves the node that was appended last to place `to`. */
static inline void move_last(lb_onnx_build *b, size_t to) {
    Lb__Onnx__NodeProto **nodes = b->graph.node, *last = nodes[b->graph.n_node - 1];
    memmove(nodes + to + 1, nodes + to, (b->graph.n_node - 1 - to) * sizeof *nodes);
    nodes[to] = last;
}

/* The classifier behind the sum of all pixels, its weights by so much smaller, and behind their maximum, said in two ways. */
static inline void reduced(lb_onnx_build *b, const char *op, bool last) {
    float small[20];
    for (int k = 0; k < 20; k++)
        small[k] = ((float *)(void *)tensor_of(b, "fc.weight")->raw_data.data)[k] / (strcmp(op, "ReduceSum") ? 1 : 16);
    lb_onnx_tensor(b, "small", FLOAT_TYPE, 2, (const int64_t[]){5, 4}, small);
    size_t at = 3;
    if (last) {
        lb_onnx_ints(b, TEST_NODE(b, "Transpose", "last", "pool_out"), "perm", (const int[]){0, 2, 3, 1}, 4);
        move_last(b, at++);
    }
    test_list(b, "axes", 2, last ? (const float[]){1, 2} : (const float[]){2, 3});
    b->model.opset_import[0]->version = 18;
    Lb__Onnx__NodeProto *node = TEST_NODE(b, op, "reduced", last ? "last" : "pool_out", "axes");
    if (!strcmp(op, "GlobalMaxPool"))
        node->n_input = 1;
    else
        lb_onnx_int(b, node, "keepdims", last ? 0 : 1);
    move_last(b, at++);
    node_of(b, "Reshape")->input[0] = TEXT("reduced");
    node_of(b, "Gemm")->input[1] = TEXT("small");
}
static inline void sum_first(lb_onnx_build *b) { reduced(b, "ReduceSum", false); }
static inline void sum_of_last(lb_onnx_build *b) { reduced(b, "ReduceSum", true); }
static inline void most(lb_onnx_build *b) { reduced(b, "GlobalMaxPool", false); }
static inline void most_reduced(lb_onnx_build *b) { reduced(b, "ReduceMax", false); }
static inline void most_of_last(lb_onnx_build *b) { reduced(b, "ReduceMax", true); }

/* Each pixel times, or plus, the means of all: repeated by the operator itself, or by Expand to the whole shape or a part of it. */
static inline void spread(lb_onnx_build *b, const char *op, const float *shape, bool last) {
    size_t at = 3;
    TEST_NODE(b, "GlobalAveragePool", "means", "pool_out");
    move_last(b, at++);
    const char *from[] = {"pool_out", "means"};
    for (size_t i = 0; i < 2 && last; i++) {
        const char *turned = lb_onnx_name(b, "turned%zu", i);
        lb_onnx_ints(b, TEST_NODE(b, "Transpose", turned, from[i]), "perm", (const int[]){0, 2, 3, 1}, 4);
        move_last(b, at++);
        from[i] = turned;
    }
    if (shape) {
        test_list(b, "wide", 4, shape);
        TEST_NODE(b, "Expand", "spread", from[1], "wide");
        move_last(b, at++);
        from[1] = "spread";
    }
    lb_onnx_node(b, op, "both", 2, (const char *[]){from[1], from[0]});
    move_last(b, at++);
    if (last) {
        lb_onnx_ints(b, TEST_NODE(b, "Transpose", "back", "both"), "perm", (const int[]){0, 3, 1, 2}, 4);
        move_last(b, at++);
    }
    node_of(b, "Reshape")->input[0] = TEXT(last ? "back" : "both");
}
static const float whole[] = {1, 4, 4, 4}, rows_only[] = {1, 1, 4, 1};
static inline void gated(lb_onnx_build *b) { spread(b, "Mul", NULL, false); }
static inline void gated_as_is(lb_onnx_build *b) { spread(b, "Mul", whole, false); }
static inline void gated_last(lb_onnx_build *b) { spread(b, "Mul", whole, true); }
static inline void shifted(lb_onnx_build *b) { spread(b, "Add", NULL, false); }
static inline void shifted_as_is(lb_onnx_build *b) { spread(b, "Add", whole, false); }
static inline void shifted_last(lb_onnx_build *b) { spread(b, "Add", whole, true); }

/* In two steps, rows first, and the result read by others than the product. */
static inline void gated_in_steps(lb_onnx_build *b) {
    spread(b, "Mul", whole, false);
    test_list(b, "rows", 4, rows_only);
    test_list(b, "none", 1, (const float[]){1});
    lb_onnx_ints(b, TEST_NODE(b, "MaxPool", "same", "spread"), "kernel_shape", (const int[]){1, 1}, 2);
    move_last(b, 5);
    TEST_NODE(b, "Expand", "again", "same", "none");
    move_last(b, 6);
    node_of(b, "Expand")->input[0] = TEXT("column");
    TEST_NODE(b, "Expand", "column", "means", "rows");
    move_last(b, 4);
    node_of(b, "Mul")->input[0] = TEXT("again");
}

/* The sum of three images, one of one pixel, and of two in steps. */
static inline void summed(lb_onnx_build *b, bool at_once) {
    TEST_NODE(b, "GlobalAveragePool", "means", "pool_out");
    move_last(b, 3);
    if (at_once)
        TEST_NODE(b, "Sum", "sum", "means", "pool_out", "pool_out");
    else
        TEST_NODE(b, "Add", "sum", "pool_out", "shifted");
    move_last(b, 4);
    if (!at_once) {
        TEST_NODE(b, "Add", "shifted", "pool_out", "means");
        move_last(b, 4);
    }
    node_of(b, "Reshape")->input[0] = TEXT("sum");
}
static inline void sum_of_three(lb_onnx_build *b) { summed(b, true); }
static inline void sum_in_steps(lb_onnx_build *b) { summed(b, false); }

#endif

/* Building an ONNX model message node by node. The first failure sticks in `status`: later calls do nothing, and those that
 * return a pointer return NULL, which every call accepts as a name or node. Texts and data are copied; lb_onnx_build_free
 * frees everything. */
#ifndef LB_ONNX_BUILD_H
#define LB_ONNX_BUILD_H

#include "onnx/onnx.h"

/* Element types newer than the schema that the messages are generated from, with their numbers in the standard. */
enum { LB_ONNX_UINT4 = 21, LB_ONNX_INT4 = 22, LB_ONNX_UINT2 = 25, LB_ONNX_INT2 = 26 };

typedef struct lb_onnx_build {
    lb_pool pool;
    lb_status status;
    Lb__Onnx__ModelProto model; /* model.graph is `graph` */
    Lb__Onnx__GraphProto graph;
    size_t nodes, initializers, metadata; /* capacities of the arrays in them */
} lb_onnx_build;

void lb_onnx_build_init(lb_onnx_build *b, lb_ctx *ctx, const char *graph_name);
void lb_onnx_build_free(lb_onnx_build *b);

/* "What the format says" into the pool; NULL after a failure. */
const char *lb_onnx_name(lb_onnx_build *b, const char *fmt, ...) LB_PRINTF(2, 3);

/* Appends a node with one output, which gives the node its name too. */
Lb__Onnx__NodeProto *lb_onnx_node(lb_onnx_build *b, const char *op, const char *output, int ninputs, const char *const *inputs);

/* Attributes. */
void lb_onnx_int(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, int64_t value);
void lb_onnx_ints(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, const int *values, int count);
void lb_onnx_real(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, float value);
void lb_onnx_text(lb_onnx_build *b, Lb__Onnx__NodeProto *node, const char *name, const char *value);

/* Appends an initializer of element type `type` and `ndim` dimensions (0: a scalar) from floats, which must be whole numbers
 * of the type if it is an integer: FLOAT, INT64, and integers of 8, 4 and 2 bits (those packed, the first element lowest).
 * Returns `name`. */
const char *lb_onnx_tensor(lb_onnx_build *b, const char *name, int type, int ndim, const int64_t *dims, const float *values);
/* The same of type DOUBLE. */
const char *lb_onnx_doubles(lb_onnx_build *b, const char *name, int ndim, const int64_t *dims, const double *values);
const char *lb_onnx_scalar(lb_onnx_build *b, const char *name, int type, float value);

void lb_onnx_opset(lb_onnx_build *b, const char *domain, int64_t version);
void lb_onnx_metadata(lb_onnx_build *b, const char *key, const char *value);

/* The graph's only input and output, f32: dims[0] is the batch, whose size is left open. The output renames tensor `value`. */
void lb_onnx_input(lb_onnx_build *b, const char *name, int ndim, const int64_t *dims);
void lb_onnx_output(lb_onnx_build *b, const char *value, const char *name, int ndim, const int64_t *dims);

#endif

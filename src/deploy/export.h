/* Export: a trained network as an ONNX graph of real-valued operators, in which codes and steps stay visible.
 *
 * The graph is walked as it was trained, before lowering: a consumer needs scales and the operators between them, not the
 * runtime's multiply-shifts. Codes and steps are those of net/numerics.h. Images enter as f32 (N, C, H, W) pixels of 0 ..
 * 255, scores leave as (N, classes). docs/onnx.md says which nodes stand for what in each format. */
#ifndef LB_EXPORT_H
#define LB_EXPORT_H

#include "net/numerics.h"
#include "onnx/build.h"

/* The walk so far. */
typedef struct lb_exporting {
    lb_onnx_build *b;
    const lb_net *net;
    const lb_numerics *n;
    lb_onnx_format format;
    int opset;
    bool exact;
    const char **names; /* (nnodes) lb_export_names */
    struct lb_onnx_value *values; /* (nnodes) */
} lb_exporting;

/* A tensor of the ONNX graph that shows a node's result. */
typedef struct lb_onnx_value {
    const char *name;
    bool flat; /* (N, c), else (N, c, h, w) */
    lb_shape image; /* flat: the image that it was; its elements are in the order c, h, w, ours in h, w, c */
} lb_onnx_value;

/* Where element k of the ONNX tensor lies in ours, for a flattened image; channels of anything else are in order. */
static inline int64_t lb_onnx_place(const lb_onnx_value *v, int64_t k) {
    const int64_t area = (int64_t)v->image.h * v->image.w;
    return v->flat && area > 1 ? k % area * v->image.c + k / area : k;
}

/* ---- Names (export_names.c) -------------------------------------------------------------------------------------------- */

/* The graph's own names, which no layer's tensor has. */
#define LB_EXPORT_INPUT "image"
#define LB_EXPORT_OUTPUT "logits"

/* Fills e->names: what node i's result is called, its own name as far as that cannot meet another's. A tensor is called like
 * that, or like that with a slash and what it is behind it. */
lb_status lb_export_names(lb_exporting *e);

static inline const char *lb_export_name(const lb_exporting *e, const lb_node *node) { return e->names[node - e->net->nodes]; }

/* "NAME/part", NULL after a failure. */
const char *lb_export_part(lb_exporting *e, const lb_node *node, const char *part);

/* ---- The walk (export_graph.c) ----------------------------------------------------------------------------------------- */

/* A node whose output is called `output`; returns that. */
const char *lb_export_op(lb_exporting *e, const char *op, const char *output, int n, const char *const *inputs);

/* Adds the network's graph to `b`, which lb_onnx_build_init has prepared, with opsets, input and output. options: valid.
 * LB_ERR_UNSUPPORTED names the node that ONNX cannot express. */
lb_status lb_export_net(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], const lb_export_options *options,
                        lb_onnx_build *b);

/* Fills in what is 0 and refuses opsets that a format does not exist in. */
lb_status lb_export_resolve(lb_ctx *ctx, const lb_export_options *options, lb_export_options *resolved);

/* ---- How codes are written (export_codes.c) ---------------------------------------------------------------------------- */

/* Weights of node i as a tensor named after it: dims (ndim), output channels first, `order[k]` the place of element k in our
 * own order. Returns the name of the tensor of real numbers. */
const char *lb_export_weights(lb_exporting *e, int i, int ndim, const int64_t *dims, const int64_t *order);

/* `from` quantized as activation node i says; returns the name of the tensor of real numbers. */
const char *lb_export_act(lb_exporting *e, int i, const char *from);

/* ---- Exact arithmetic (export_exact.c) --------------------------------------------------------------------------------- */

/* With options.exact a tensor holds the numbers of net/numerics.h: INT whole numbers in f32, FIXED whole numbers of 2^-16 in
 * f64, F32 as they are. Convolutions sum codes, which is exact below 2^24; what comes between is the multiply, add and shift
 * of runtime/fixed.h, in f64. */

/* The affine of node i's numbers, if it has one, on v, which has `c` channels. `output` names the result. */
lb_onnx_value lb_exact_affine(lb_exporting *e, int i, const char *output, lb_onnx_value v, int c);

/* Source s of node i as F32, and as FIXED. */
lb_onnx_value lb_exact_to_float(lb_exporting *e, int i, int s, lb_onnx_value v);
lb_onnx_value lb_exact_to_fixed(lb_exporting *e, int i, int s, lb_onnx_value v);

/* Average pool i, whose numbers are FIXED, of v, which is FIXED too and (N, c, h, w). */
lb_onnx_value lb_exact_average(lb_exporting *e, int i, lb_onnx_value v);

/* Function i in FIXED, which sigmoid and tanh have no form of: they need more bits than f64 has. */
lb_onnx_value lb_exact_func(lb_exporting *e, int i, lb_onnx_value v);

/* The product of two FIXED values. */
lb_onnx_value lb_exact_product(lb_exporting *e, const char *output, lb_onnx_value a, const char *b);

/* Activation node i. */
lb_onnx_value lb_exact_act(lb_exporting *e, int i, lb_onnx_value v);

/* Fixed point limited to 32 bits. */
lb_onnx_value lb_exact_saturate(lb_exporting *e, const char *output, lb_onnx_value v);

/* The last node's numbers as f32 scores. */
lb_onnx_value lb_exact_scores(lb_exporting *e, lb_onnx_value v);

#endif

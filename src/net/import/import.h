/* Import: a float network from an ONNX file as a graph of this library.
 *
 * ONNX images are NCHW, ours NHWC, and exported graphs are full of Reshape, Transpose and Flatten. So a tensor of the file is a
 * *view* of a node of ours: the list of its dimensions, each made of digits that say how far apart in the node's memory neighbours
 * lie. Operators that only move numbers change the view and make no node; layers read through it: weights of a linear layer behind
 * Flatten are put into our order once, here. Everything that does not depend on the image (shapes and what is computed from them,
 * weights that are transposed or cast) is folded.
 *
 * The same code reads a file with its weights, for `lowbit import`, and the graph alone that a run directory keeps, whose weights
 * are in a checkpoint. What a network looks like therefore never depends on a weight: only on small constants
 * (lb_import_is_weight). */
#ifndef LB_NET_IMPORT_H
#define LB_NET_IMPORT_H

#include "net/net.h"
#include "onnx/onnx.h"

typedef struct lb_import_options {
    lb_shape input; /* of the images, where the file leaves its input's size open; 0: not known */
    bool graph_only; /* weights may lack their values, which stay 0 */
} lb_import_options;

typedef struct lb_imported {
    lb_net *net; /* finished, called "onnx"; the caller's */
    /* Per-channel factor and offset that the file applies to its input before the first layer: not part of the net, for the image's
     * normalisation can do it. */
    float scale[4], offset[4];
} lb_imported;

/* `path` is for messages and for finding external weights beside it. LB_ERR_UNSUPPORTED names the node, its operator and what
 * cannot be read; LB_ERR_FORMAT is for files that contradict themselves. */
lb_status lb_net_import(lb_ctx *ctx, const Lb__Onnx__ModelProto *model, const char *path, const lb_import_options *options,
                        lb_imported *imported);

/* The network of a recipe whose model.name is onnx: the graph in model.path, without weights. */
struct lb_config;
lb_status lb_net_from_onnx(lb_ctx *ctx, const struct lb_config *config, lb_shape input, lb_net **net);

/* Float tensors of more than 16 elements: their values never decide what the network looks like. */
static inline bool lb_import_is_weight(int32_t type, int64_t count) {
    return count > 16 && (type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT || type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE ||
                          type == LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16);
}

/* Takes the values of all weights out of a model that was read from `path`, which then is a graph alone. Small constants in
 * external files come into it. LB_ERR_FORMAT, LB_ERR_UNSUPPORTED or LB_ERR_IO if such a file is not what the model says. */
lb_status lb_import_strip(lb_ctx *ctx, const char *path, Lb__Onnx__ModelProto *model);

#endif

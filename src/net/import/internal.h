/* Inside src/net/import: constants, views, and the walk over the file's nodes. */
#ifndef LB_NET_IMPORT_INTERNAL_H
#define LB_NET_IMPORT_INTERNAL_H

#include "net/import/import.h"
#include "net/ops.h"

enum { LB_IMPORT_DIMS = 8, LB_IMPORT_DIGITS = 24 };
#define LB_IMPORT_MAX_NODES 20000
#define LB_IMPORT_MAX_INPUTS 4096 /* of one node */

/* A tensor that does not depend on the image. Row-major. */
typedef struct lb_constant {
    int32_t type; /* of the elements in the file; 0: computed */
    bool whole; /* whole numbers (also truth values), in i; else f */
    bool weight; /* its values come from a weight, which a graph alone does not have: they must not decide about the network */
    bool unrounded; /* the file has codes of it here; in f is what they round */
    int ndim;
    int64_t dims[LB_IMPORT_DIMS];
    int64_t count;
    const int64_t *i;
    const float *f; /* NULL: a weight of a graph alone */
} lb_constant;

typedef struct lb_digit {
    int64_t extent, stride; /* extent is at least 2; stride in elements of one image */
    int dim;
} lb_digit;

/* How a tensor of the file looks at a node's output. A dimension without digits has one element. */
typedef struct lb_view {
    int node;
    int ndim;
    int64_t dims[LB_IMPORT_DIMS];
    int batch_dim; /* which dimension counts the images */
    int ndigits;
    lb_digit digit[LB_IMPORT_DIGITS]; /* in the order of dimensions, most significant first */
    int pt, pl, pb, pr; /* padding that the next convolution or pooling takes over: zeros, or */
    bool pads_lowest; /* what never wins a maximum */
    int repeat_h, repeat_w; /* rows and columns that its only one is to be repeated to, or as many as there are; 0: is not */
    bool codes; /* the file has codes of it here, between QuantizeLinear and DequantizeLinear */
    bool shared; /* other tensors than those made of this one show the node too */
} lb_view;

typedef enum lb_tensor_kind { LB_TENSOR_NONE, LB_TENSOR_CONSTANT, LB_TENSOR_VIEW } lb_tensor_kind;

typedef struct lb_tensor {
    const char *name; /* "" is nobody's */
    lb_tensor_kind kind;
    const Lb__Onnx__TensorProto *initializer; /* not read yet, if the kind is none */
    lb_constant constant;
    lb_view view;
    int nreaders; /* how often needed nodes read it; the graph's output counts */
} lb_tensor;

/* Values for a parameter, put there once the net is finished: dst[r * cols + order[j]] = src[r * row_stride + j * col_stride] *
 * factor. */
typedef struct lb_import_values {
    int param;
    const float *src;
    int64_t rows, cols, row_stride, col_stride;
    const int64_t *order; /* (cols) or NULL */
    float factor;
} lb_import_values;

/* Tensors that lie side by side in a node. */
typedef struct lb_concat {
    const int *nodes; /* (n) */
    int n, result;
} lb_concat;

/* A layer's name, and the least number that may be free behind it. */
typedef struct lb_taken {
    const char *name; /* NULL: none here */
    int next;
} lb_taken;

typedef struct lb_importer {
    lb_ctx *ctx;
    lb_pool pool;
    const char *path;
    const Lb__Onnx__GraphProto *graph;
    lb_import_options options;
    lb_net *net;
    int opset;
    const Lb__Onnx__NodeProto *node; /* being read; NULL before and after */
    bool *needed; /* (n_node) the output depends on it */
    lb_tensor *tensors;
    int ntensors;
    int *table; /* hash of names to tensors, -1: free */
    size_t table_size; /* a power of two */
    lb_taken *taken; /* hash of the layers' names */
    size_t taken_size; /* a power of two */
    int ntaken; /* layers that are in it */
    lb_import_values *fills;
    size_t nfills, fills_capacity;
    lb_concat *concats;
    int nconcats;
    size_t concats_capacity;
    float scale[4], offset[4]; /* of the image: lb_imported */
    /* What may still be made: a small file must not fill the memory. The graph alone has as many places as the whole file, or it
     * might be refused where that was read. */
    int64_t budget; /* elements computed from constants; those that have values add to it */
    int64_t places; /* numbers of rows, columns and channels */
    int nquantized; /* QuantizeLinear nodes */
    int ntraining; /* batch norms in training form */
    int64_t batch; /* images that the file's shapes are made for */
} lb_importer;

/* "FILE: node 'NAME' (Op): reason". Returns LB_ERR_UNSUPPORTED; lb_import_damaged LB_ERR_FORMAT. */
lb_status lb_import_refuse(lb_importer *im, const char *fmt, ...) LB_PRINTF(2, 3);
lb_status lb_import_damaged(lb_importer *im, const char *fmt, ...) LB_PRINTF(2, 3);

/* ---- Tensors of the file (tensor.c) --------------------------------------------------------------------------------- */

/* A constant from a message; `what` names it. */
lb_status lb_import_tensor(lb_importer *im, const char *what, const Lb__Onnx__TensorProto *proto, lb_constant *constant);

/* The least code of an integer type of at most 8 bits; false: it is another. */
bool lb_import_least_code(int32_t type, int64_t *least);

/* New constants of those dimensions: their elements are in the pool and may be written through the pointer that comes back. */
lb_status lb_constant_whole(lb_importer *im, int ndim, const int64_t *dims, lb_constant *constant, int64_t **values);
lb_status lb_constant_real(lb_importer *im, int ndim, const int64_t *dims, lb_constant *constant, float **values);

/* Checks dims and multiplies them: at most 2^31 - 1 elements. */
lb_status lb_import_count(lb_importer *im, const char *what, int ndim, const int64_t *dims, int64_t *count);

/* ---- Nodes' inputs and attributes (walk.c) -------------------------------------------------------------------------- */

/* Makes im->tensors of all initializers, inputs and nodes' outputs. */
lb_status lb_import_list_tensors(lb_importer *im);
int lb_import_find(const lb_importer *im, const char *name); /* -1: nobody makes it */

/* Input i, NULL if the node has none there. */
lb_tensor *lb_import_input(lb_importer *im, int i);

/* Input i must be there and be of that kind. */
lb_status lb_import_constant(lb_importer *im, int i, const lb_constant **constant);
lb_status lb_import_view(lb_importer *im, int i, lb_view **view);
/* The same for those that take a Pad node's padding over, which lb_import_view settles. They must ask for pads_lowest. */
lb_status lb_import_padded_view(lb_importer *im, int i, lb_view **view);
/* The same for those that take over what is to be repeated, too. */
lb_status lb_import_repeated_view(lb_importer *im, int i, lb_view **view);

/* An attribute of the current node, NULL: it has none of that name; `missing`: nor one with a number of this kind. */
const Lb__Onnx__AttributeProto *lb_import_attribute(const lb_importer *im, const char *name);
bool lb_import_is_text(const Lb__Onnx__AttributeProto *a, const char *text); /* has it this text? NULL: no */
int64_t lb_import_int(const lb_importer *im, const char *name, int64_t missing);
float lb_import_real(const lb_importer *im, const char *name, float missing);
/* An attribute of whole numbers; *count 0 if it is missing. */
const int64_t *lb_import_ints(const lb_importer *im, const char *name, size_t *count);
/* Whole numbers that newer opsets pass as input i and older ones as an attribute. *count -1: neither is there. */
lb_status lb_import_list(lb_importer *im, int i, const char *name, const int64_t **values, int64_t *count);
/* One number that newer opsets pass as input i and older ones as an attribute. */
lb_status lb_import_scalar(lb_importer *im, int i, const char *name, float missing, float *value);

/* -3 of ndim dimensions: ndim - 3. */
lb_status lb_import_axis(lb_importer *im, int64_t axis, int ndim, int *result);

/* Sets output 0. */
lb_status lb_import_set_constant(lb_importer *im, const lb_constant *constant);
lb_status lb_import_set_view(lb_importer *im, const lb_view *view);
/* Sets output o, which is read. */
void lb_import_set_output(lb_importer *im, size_t o, const lb_view *view);
/* Is a tensor read once, and nothing else of the node that it shows? Then its reader may change the node. */
static inline bool lb_import_is_own(const lb_tensor *t) { return t->nreaders == 1 && !t->view.shared; }

/* Does a needed node read output o? */
bool lb_import_is_read(const lb_importer *im, size_t o);

/* A name for a layer from that of one of its parameters ("layer1.0.conv1.weight"; may be NULL), else from the node's own. */
const char *lb_import_name(lb_importer *im, const char *parameter);

/* The same text, of less than 160 bytes, or with the least number behind it that makes it no layer's yet. */
const char *lb_import_unique(lb_importer *im, const char *name);

/* Appends a node of ours. */
lb_status lb_import_append(lb_importer *im, const lb_node *node, int *index);

/* Later: values for a parameter. Constants without values leave it as it is. */
lb_status lb_import_fill(lb_importer *im, const lb_import_values *fill);

/* ---- Views (view.c) ------------------------------------------------------------------------------------------------- */

/* The view of a node as (batch, c, h, w), as (batch, c, w), which needs h = 1, or as (batch, c), which needs w = 1 too. */
void lb_view_image(const lb_importer *im, int node, int ndim, lb_view *view);

/* Is it an image in the usual order, (batch, c, h, w) or (batch, c, w)? */
bool lb_view_is_image(const lb_importer *im, const lb_view *view);

/* Where in the node's memory the elements behind the batch lie, one after the other: (elements of an image), which count as
 * computed from constants. */
lb_status lb_view_order(lb_importer *im, const lb_view *view, const int64_t **order);

/* Are the same elements at the same places? */
bool lb_view_same(const lb_view *a, const lb_view *b);

/* The shape that Reshape asks for: -1 (what is left) and 0 (as before) replaced. LB_IMPORT_DIMS at most. */
lb_status lb_import_resolve(lb_importer *im, int from, const int64_t *before, int ndim, const int64_t *asked, int64_t *dims);

/* Another shape of as many elements. The batch must stay dimension 0. */
lb_status lb_view_reshape(lb_importer *im, lb_view *view, int ndim, const int64_t *dims);
lb_status lb_view_transpose(lb_importer *im, lb_view *view, const int64_t *perm);

static inline bool lb_view_padded(const lb_view *v) { return v->pt || v->pl || v->pb || v->pr; }

/* ---- Pixels in other places (place.c) -------------------------------------------------------------------------------- */

/* Takes so many of what is left in im->budget or im->places. */
lb_status lb_import_charge(lb_importer *im, int64_t *left, int64_t count);

/* Room for rows or columns by their numbers. */
lb_status lb_import_lines(lb_importer *im, int64_t count, int **lines);

/* An image in the usual order becomes one of these rows and columns of it, -1: zeros. Appends nothing if they are all its own. */
lb_status lb_import_place(lb_importer *im, lb_view *image, const char *name, int oh, const int *rows, int ow, const int *cols);

/* What Slice takes of one dimension: count elements from the first on, step apart. */
typedef struct lb_cut {
    int64_t first, count, step;
} lb_cut;
lb_status lb_import_cuts(lb_importer *im, int ndim, const int64_t *dims, lb_cut *cuts);
/* Cut off from each dimension of an image, channels first. */
lb_status lb_import_cut(lb_importer *im, lb_view *view, const lb_cut *cuts);

/* Padding that waits in a view becomes zeros around an image, and what is to be repeated is; nothing where there is neither. */
lb_status lb_import_settle(lb_importer *im, lb_view *view);
lb_status lb_import_repeat(lb_importer *im, lb_view *view); /* the latter alone */

/* An image whose channels come last in the file (NHWC) is turned to the usual order, and back; they may be shuffled. Other views
 * stay as they are, *last false. */
lb_status lb_import_turn(lb_importer *im, lb_view *view, bool *last);
lb_status lb_import_turn_back(lb_importer *im, lb_view *view, bool last);

/* Which dimension of the turned view an axis of the file's tensor is. */
static inline int lb_import_turned_axis(const lb_view *turned, bool last, int axis) {
    return !last || axis == 0 ? axis : axis == turned->ndim - 1 ? 1 : axis + 1;
}

/* ---- After the walk (scale.c) --------------------------------------------------------------------------------------- */

/* Scales weights up that are far smaller than a learning rate is meant for, where the batch norm behind them takes it back: the
 * network computes the same. */
lb_status lb_import_scale(lb_importer *im);

/* ---- Operators ------------------------------------------------------------------------------------------------------ */

/* An operator: reads im->node and sets its output. */
typedef struct lb_import_op {
    const char *name;
    lb_status (*read)(lb_importer *im);
} lb_import_op;

/* The window of the current convolution or pooling of kernel kh x kw over an image: what the kernel spans, strides, padding, with
 * that of a Pad node before it, which is settled where it is more than the kernel takes. gap: pixels between the kernel's taps;
 * NULL: none are allowed. */
lb_status lb_import_window(lb_importer *im, lb_view *src, int64_t kh, int64_t kw, lb_window *window, int gap[2]);

/* Adds to the padding behind what ceil_mode asks for. */
void lb_import_ceil(lb_importer *im, const lb_view *src, lb_window *window);

/* Is it an image in the usual order but for its channels? */
bool lb_view_has_channels(const lb_importer *im, const lb_view *view);

/* Where each channel of such an image is: (c). NULL: it is something else. */
lb_status lb_view_channels(lb_importer *im, const lb_view *view, int **channels);

/* An image in the usual order; where only its channels are in another, a shortcutpad is appended. */
lb_status lb_import_image(lb_importer *im, lb_view *view);

/* The same for one whose channels may come last in the file; what is no image stays as it is. */
lb_status lb_import_straighten(lb_importer *im, lb_view *view);

/* Channels first, first + step, ... of an image, `count` of them. dst may be src. */
lb_status lb_import_slice(lb_importer *im, const lb_view *src, int64_t first, int64_t count, int64_t step, lb_view *dst);

/* A view of 1 x 1 x c: a flatten node is appended if it is not one yet. order: where element j of (batch, c) lies, NULL: at j; it
 * is made for values only, so without them it is NULL too. *plain: each lies at j; may be NULL. */
lb_status lb_import_flat(lb_importer *im, lb_view *view, bool values, const int64_t **order, bool *plain);

/* The reader of the current node's operator for an image, or of constants; NULL: there is none. */
typedef lb_status (*lb_import_reader)(lb_importer *im);
lb_import_reader lb_import_fold_reader(const lb_importer *im); /* fold.c: constants, and shapes */
lb_import_reader lb_import_move_reader(const lb_importer *im); /* move.c: Reshape, Transpose, ... */
lb_import_reader lb_import_place_reader(const lb_importer *im); /* place.c: Pad, Slice, Expand, Resize */
lb_import_reader lb_import_layer_reader(const lb_importer *im); /* layer.c: convolutions and linear layers */
lb_import_reader lb_import_channel_reader(const lb_importer *im); /* channel.c: batch norm and arithmetic */
lb_import_reader lb_import_select_reader(const lb_importer *im); /* select.c: channels apart and side by side */
lb_import_reader lb_import_point_reader(const lb_importer *im); /* point.c: activations and pooling */
lb_import_reader lb_import_codes_reader(const lb_importer *im); /* codes.c: QuantizeLinear and DequantizeLinear */
void lb_import_note_codes(lb_importer *im); /* codes.c: tells of them at the end */
bool lb_import_is_quantized(const lb_importer *im); /* codes.c: other operators that only quantized networks have */
lb_status lb_import_refuse_operator(lb_importer *im); /* advice.c: the current node's, for no reader knows it */

/* Add, Sub, Mul and Div, of constants (fold.c) and of images (channel.c). */
typedef enum lb_arithmetic { LB_ADD, LB_SUB, LB_MUL, LB_DIV } lb_arithmetic;

/* Appends a batch norm that multiplies by a number. */
lb_status lb_import_times(lb_importer *im, lb_view *view, float factor);

/* Appends an activation that clips input i to lo..hi; -INFINITY and INFINITY are no bounds. */
lb_status lb_import_clip(lb_importer *im, int i, float lo, float hi);

/* The row of the current node's operator. */
static inline lb_import_reader lb_import_look_up(const lb_importer *im, const lb_import_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (im->node->op_type && !strcmp(im->node->op_type, ops[i].name))
            return ops[i].read;
    return NULL;
}

/* The new dimensions of Reshape, Flatten, Squeeze and Unsqueeze, from the old ones. keep: a dimension that Squeeze leaves, -1:
 * none. */
lb_status lb_import_new_dims(lb_importer *im, int ndim, const int64_t *dims, int keep, int *to, int64_t *to_dims);

/* perm of Transpose: reversed if the node has none. */
lb_status lb_import_perm(lb_importer *im, int ndim, int64_t *perm);

#endif

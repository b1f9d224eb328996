/* A network as a graph: nodes in topological order, each with one output tensor, NHWC.
 *
 * The public builder (lowbit.h) and the zoo make it, lb_net_quantize() attaches quantizers, and everything downstream (training
 * plan, evaluation, lowering, inspection) only reads it. */
#ifndef LB_NET_H
#define LB_NET_H

#include "core/core.h"
#include "quant/quant.h"
#include "recipe/config.h"

#define LB_MAX_SRC 8
#define LB_MAX_PARAMS 4

/* Every operator: enumerator, name in messages and files. One file src/net/<name>.c each. */
#define LB_OPS(X)             \
    X(INPUT, input)           \
    X(CONV, conv)             \
    X(LINEAR, linear)         \
    X(BATCHNORM, batchnorm)   \
    X(ACT, act)               \
    X(ADD, add)               \
    X(MAXPOOL, maxpool)       \
    X(AVGPOOL, avgpool)       \
    X(FLATTEN, flatten)       \
    X(DROPOUT, dropout)       \
    X(SHORTCUTPAD, shortcutpad) \
    X(FUNC, func)             \
    X(MUL, mul)               \
    X(CONCAT, concat)

typedef enum lb_op {
#define LB_X(id, name) LB_OP_##id,
    LB_OPS(LB_X)
#undef LB_X
    LB_OP_COUNT
} lb_op;

/* What a parameter is: decides initialisation, weight decay and who updates it. */
typedef enum lb_param_kind {
    LB_PARAM_WEIGHT,   /* convolution (oc, kh, kw, ic / groups) or linear (oc, ic) */
    LB_PARAM_BIAS,     /* (oc) */
    LB_PARAM_BN_GAMMA, /* (c) */
    LB_PARAM_BN_BETA,  /* (c) */
    LB_PARAM_BN_MEAN,  /* (c) running statistic: saved, never given a gradient */
    LB_PARAM_BN_VAR,   /* (c) running statistic, the unbiased variance */
    LB_PARAM_SLOPE,    /* (c) of a leaky function's negative side */
    LB_PARAM_QUANT     /* learned by a quantizer: step, clip, ... */
} lb_param_kind;

typedef struct lb_param {
    const char *name;   /* e.g. "layer1.0.conv1.weight": the key in checkpoints */
    lb_param_kind kind;
    int node;           /* owner */
    int ndim;
    int64_t dims[4];    /* as listed at lb_param_kind */
    size_t count;       /* product of dims */
    size_t offset;      /* of its first element in the flat blocks below */
    int fan_in, fan_out;/* weights: for initialisation */
} lb_param;

typedef struct lb_shape {
    int h, w, c; /* one image; a flat vector is 1 x 1 x c */
} lb_shape;

typedef struct lb_conv {
    int oc, kh, kw, sh, sw;   /* a zero kw, sh, sw means kh, 1, sh */
    int pt, pl, pb, pr;       /* zero padding: top, left, bottom, right */
    int groups;               /* zero means 1; groups == ic is depthwise */
    int gap_h, gap_w;         /* pixels between the kernel's taps, down and across: dilation - 1 */
    bool bias;
} lb_conv;

typedef struct lb_pooling {
    int kh, kw, sh, sw;
    int pt, pl, pb, pr;       /* max: padding never wins; average: padding counts as zeros (fixed divisor kh * kw) */
    bool inside;              /* average: padding does not count, the divisor is how many pixels of the image are in the window */
} lb_pooling;                 /* global pooling is a kernel as large as the source */

typedef enum lb_act_kind {
    LB_ACT_IDENTITY, /* only a place for a quantizer */
    LB_ACT_RELU,
    LB_ACT_RELU6,
    LB_ACT_HARDTANH, /* clip(x, -1, 1) */
    LB_ACT_CLIP      /* clip(x, lo, hi) */
} lb_act_kind;

typedef enum lb_func_kind {
    LB_FUNC_LEAKY,       /* x < 0 ? alpha x : x */
    LB_FUNC_SIGMOID,
    LB_FUNC_TANH,
    LB_FUNC_HARDSIGMOID, /* clip(alpha x + beta, 0, 1) */
    LB_FUNC_HARDSWISH    /* x clip(x / 6 + 1/2, 0, 1) */
} lb_func_kind;

/* A run of channels. */
typedef struct lb_part {
    int dst, src, count;
} lb_part;

typedef struct lb_node {
    lb_op op;
    const char *name;
    int nsrc, src[LB_MAX_SRC];   /* indices of earlier nodes */
    lb_shape dst;
    int param[LB_MAX_PARAMS];    /* indices into net->params or -1. conv, linear: weight, bias; batchnorm: gamma, beta, mean, var;
                                  * func: slopes */
    union {
        lb_conv conv;            /* linear uses oc and bias only */
        lb_pooling pool;
        struct {
            float eps, momentum; /* running = (1 - momentum) * running + momentum * batch */
            bool calibrate;      /* while mean is 0 and variance 1, the first training batch sets them and, against that, gamma and
                                  * beta: the function stays as it was */
        } bn;
        struct { lb_act_kind kind; float lo, hi; } act; /* lo, hi hold the range for every kind (relu: 0, INFINITY) */
        struct {
            lb_func_kind kind;
            float alpha, beta;
            bool slopes;         /* leaky: each channel has an alpha of its own, a parameter (PReLU) */
        } func;
        struct { float ratio; } dropout;
        struct {
            int stride, oc, nparts;
            const struct lb_part *parts; /* (nparts) copied. dst[y][x] has these runs of channels of src[rows[y]][cols[x]], each
                                          * at most once, zeros elsewhere. NULL: all channels, from 0 on */
            int oh, ow;                  /* with rows and cols: of the result */
            const int *rows, *cols;      /* (oh), (ow) copied; -1: zeros. NULL: every stride-th */
            bool strided;                /* they are every stride-th, from 0 on */
            bool repeats;                /* some row or column is there more than once */
        } shortcutpad;
    } u;
    bool shortcut;               /* conv of a residual shortcut: quant.edges.shortcut decides about it */
    bool inserted;               /* act made by lb_net_insert_identity; lb_net_quantize takes these out again first */
    lb_quant *quant;             /* conv, linear: of the weights; act: of the output. NULL: float */
} lb_node;

struct lb_net {
    lb_ctx *ctx;
    lb_pool pool;
    lb_status status;            /* of the builder: the first failure sticks */
    char name[32];
    int classes;
    int nnodes; size_t nodes_capacity;
    lb_node *nodes;              /* nodes[0] is the input; the last node is the output: 1 x 1 x classes */
    int nparams; size_t params_capacity;
    lb_param *params;
    size_t nvalues;              /* elements of all parameters */
    float *values;               /* (nvalues) flat; params[i] at values + params[i].offset. Made by lb_net_finish */
    size_t values_capacity;
    bool finished;
};

static inline const lb_shape *lb_src_shape(const lb_net *net, const lb_node *node, int i) {
    return &net->nodes[node->src[i]].dst;
}
static inline float *lb_param_values(const lb_net *net, int param) { return net->values + net->params[param].offset; }
/* A convolution or linear layer: what has weights to quantize. */
static inline bool lb_is_layer(const lb_node *node) { return node->op == LB_OP_CONV || node->op == LB_OP_LINEAR; }
static inline bool lb_same_shape(const lb_shape *a, const lb_shape *b) { return a->h == b->h && a->w == b->w && a->c == b->c; }
static inline size_t lb_shape_count(const lb_shape *s) { return (size_t)s->h * (size_t)s->w * (size_t)s->c; }

/* One row per operator, in src/net/ops.c; the functions are in the operator's own file. */
typedef struct lb_op_desc {
    const char *name;
    int nsrc;                    /* LB_MAX_SRC: two or more */
    /* Fills node->dst from the sources' shapes and adds parameters; fails with LB_ERR_SHAPE naming both layers. */
    lb_status (*infer)(lb_net *net, lb_node *node);
    /* Multiply-accumulates of one image. NULL: none. */
    int64_t (*macs)(const lb_net *net, const lb_node *node);
} lb_op_desc;
const lb_op_desc *lb_op_info(lb_op op);

/* Appends a node of any kind: op, nsrc, src, u, shortcut and name (NULL: made up, e.g. "conv3") are taken from `node`; the
 * builder functions of lowbit.h are all this. Returns the index, or -1 after a failure, which sticks in net->status. */
int lb_net_append(lb_net *net, const lb_node *node);

/* A func node's alpha in channel c. */
static inline float lb_func_alpha(const lb_net *net, const lb_node *node, size_t c) {
    return node->param[0] < 0 ? node->u.func.alpha : lb_param_values(net, node->param[0])[c];
}

/* A func node's function and its derivative, with that alpha. */
float lb_func_value(const lb_node *node, float alpha, float x);
float lb_func_slope(const lb_node *node, float alpha, float x);

/* "16x16x32" into text; returns text. */
#define LB_SHAPE_TEXT 40
char *lb_shape_text(const lb_shape *shape, char text[LB_SHAPE_TEXT]);

/* Index of the node of that name, or -1. */
int lb_net_find(const lb_net *net, const char *name);

/* Multiply-accumulates of one image, all nodes. */
int64_t lb_net_macs(const lb_net *net);

/* Adds a parameter (used by infer functions); returns its index through *index. After lb_net_finish the values block grows
 * (net->values may move, old values and offsets stay) and the new values are zero. */
lb_status lb_net_add_param(lb_net *net, lb_node *node, const char *suffix, lb_param_kind kind, int ndim, const int64_t *dims,
                           int *index);

/* Inserts an activation node (LB_ACT_IDENTITY) between node `consumer` and its source, right behind the source, keeping topological
 * order and renumbering; used where a layer's input has no activation that could carry the quantizer. It is called
 * "<source>.quant". Returns the new index; the consumer's is one higher than before. Moves net->nodes. */
lb_status lb_net_insert_identity(lb_net *net, int consumer, int *index);

/* Puts a batch norm behind each convolution that has none, the last layers left out; before lb_net_finish. Each is to be
 * calibrated by the first training batch; until then it is the identity, for which gamma must be sqrt(1 + eps). */
lb_status lb_net_add_batchnorms(lb_net *net);

/* Takes out a node with one source: its consumers read that source. It must own no parameters. */
void lb_net_remove(lb_net *net, int index);

/* Seeded initialisation of all parameters: He-normal weights (N(0, 2 / fan_in)), zero biases, gamma 1, beta 0, mean 0, var 1;
 * quantizer parameters are left to the quantizers. `weights_std` > 0 replaces He's (VGG-9 of the SQ code: 0.01).
 *
 * The weights that make the scores, if no batch norm follows, have the variance of PyTorch's linear layers instead, 1 / (3 fan_in).
 * They scale the first gradients of every layer. Weights before a batch norm never shrink back from large ones: nothing but the
 * weight decay makes them smaller, and the larger they are the slower they learn. */
void lb_net_initialise(lb_net *net, uint64_t seed, float weights_std);

/* Attaches quantizers as the recipe's quant section says (methods, bits, edges, layers); see docs/recipes.md. `config` is borrowed
 * during the call; the net must be finished. What was attached before goes, inserted nodes included, so that the result depends
 * only on the network and on `config`; learned parameters of a quantizer that stays keep their values, unless its bits
 * change: then quant.rescale decides. Quantizer parameters are always the last ones: no other parameter's offset changes. Node
 * indices may change.
 *
 * Weights: a rule of quant.layers that matches the layer's name decides, the last one if several; else quant.edges for the first
 * layers (no conv or linear before them), the last layers (none behind them) and convs of shortcuts; else quant.weights.
 * Activations: a quantized layer's input is traced back through pooling, flatten, dropout and shortcutpad to the activation
 * node that made it, which gets the quantizer; if there is none, an identity activation is inserted before the layer (behind the
 * net's input, if that is reached), shared by all that read the same tensor; a relu where values cannot be negative. An act node's
 * quantizer replaces its function. A float layer asks for no quantizer. Of several wishes for one act node the first layer's wins
 * (with a warning); shortcuts and last layers take what ordinary layers chose.
 *
 * What was chosen is reported by lb_note. After a failure the net can only be destroyed or quantized again. */
struct lb_config;
lb_status lb_net_quantize(lb_net *net, const struct lb_config *config);
/* The same without a word, for a config that comes later: whether it can be done. To be followed by lb_net_quantize. */
lb_status lb_net_can_quantize(lb_net *net, const struct lb_config *config);

/* Bits, below, are those that layers have in training: of kept bit-lengths those that the gates leave.
 * Carries learned parameters over from `from`, the quantizer that was in the place of `to` before: copies them from `values` to
 * those of `to` (nparams, count), adapted to other bits as `rescale` says:
 *
 *   start   a clip, which is a range, stays; nothing else is carried over
 *   range   likewise, and a step is multiplied by from's largest code / to's, a logarithm of a length likewise
 *   step    steps stay; a clip is multiplied by to's largest code / from's
 *
 * Gates of learned bit-lengths that both have are copied in any case.
 *
 * False: they are not comparable (another quantizer, other signs), or not wanted; then `to` starts its own. */
bool lb_quant_carry(const lb_quant *from, const float *values, const lb_quant *to, float *dst, size_t count, lb_rescale rescale);

/* Learned bit-lengths: sets every quantizer's grid to what its gates say now. To be called after parameters have changed and before
 * grids are read. */
void lb_net_update_grids(lb_net *net);

/* "conv1 4, conv2 2": bits of the layers whose bit-lengths are or were learned; false if there are none. */
bool lb_net_describe_lengths(const lb_net *net, char *text, size_t size);

/* What is attached, in one line: "weights: dorefa 2 bits in 20 layers; activations: ...". */
void lb_net_describe_quant(const lb_net *net, char *text, size_t size);

/* Which role a layer has for quant.edges. Fills roles (nnodes): LB_EDGE_ROLE_NONE for everything but conv and linear. */
typedef enum lb_edge_role {
    LB_EDGE_ROLE_NONE,
    LB_EDGE_ROLE_INNER,
    LB_EDGE_ROLE_FIRST,
    LB_EDGE_ROLE_LAST,
    LB_EDGE_ROLE_SHORTCUT
} lb_edge_role;
lb_status lb_net_edge_roles(const lb_net *net, lb_edge_role *roles);

/* The quantized activation node whose codes node `index` reads (through pooling, flatten, dropout, shortcutpad), or -1. */
int lb_net_source_act(const lb_net *net, int index);

/* The zoo: one file per family in src/net/zoo/, one row each in zoo.c. */
typedef struct lb_zoo_entry {
    const char *name, *help;
    lb_shape input;              /* the published input */
    lb_status (*build)(lb_net *net, const struct lb_config *config, int input_node); /* net->classes is set */
    const char *variants;        /* values of model.variant besides "plain", ", " between; "": none */
    bool residual;               /* has shortcuts: model.shortcut may be pad */
} lb_zoo_entry;
const lb_zoo_entry *lb_zoo_list(size_t *count);
const lb_zoo_entry *lb_zoo_find(const char *name); /* NULL: there is none */
/* Builds and finishes the net a recipe's model section names, for images of `input` and `classes`; weights are still zero. An onnx
 * network has its own classes, and its own images unless the file leaves their size open. Channel
 * counts are multiplied by model.width and rounded to the nearest whole number, at least 1. On failure *net is NULL. */
lb_status lb_net_from_config(lb_ctx *ctx, const struct lb_config *config, lb_shape input, int classes, lb_net **net);

#endif

/* A recipe, typed. One table (keys.c) lists every key with type, default, range and help; the parser, `--set`, the resolved copy
 * in the run directory and docs/recipes.md all come from it. Everybody else only reads these structs. */
#ifndef LB_CONFIG_H
#define LB_CONFIG_H

#include "core/core.h"
#include "quant/quant.h"

#define LB_CONFIG_TEXT 512   /* longest string value, with its 0 */
#define LB_MAX_LAYER_RULES 32
#define LB_MAX_STAGES 16
#define LB_MAX_MILESTONES 16
#define LB_MAX_STUDENTS 6    /* besides the network itself */

/* Choices, enumerators with the words of the keys (core.h). */
#define LB_PRECISIONS(X) X(LB_PRECISION_AUTO, "auto") X(LB_PRECISION_F32, "f32") X(LB_PRECISION_BF16, "bf16")
typedef enum lb_precision { LB_PRECISIONS(LB_ENUMERATOR) } lb_precision;

#define LB_FILLS(X) X(LB_FILL_BLACK, "black") X(LB_FILL_MEAN, "mean")
typedef enum lb_fill { LB_FILLS(LB_ENUMERATOR) } lb_fill; /* mean: what normalisation makes 0, as far as 8 bits can say it */

#define LB_LOSSES(X) X(LB_LOSS_CROSS_ENTROPY, "cross-entropy") X(LB_LOSS_SQUARED_HINGE, "squared-hinge")
typedef enum lb_loss_kind { LB_LOSSES(LB_ENUMERATOR) } lb_loss_kind;

#define LB_OPTIMIZERS(X) X(LB_OPT_SGD, "sgd") X(LB_OPT_ADAM, "adam") X(LB_OPT_ADAMW, "adamw")
typedef enum lb_optimizer_kind { LB_OPTIMIZERS(LB_ENUMERATOR) } lb_optimizer_kind;

#define LB_SCHEDULES(X)                                                                                                            \
    X(LB_SCHED_CONSTANT, "constant") X(LB_SCHED_STEP, "step") X(LB_SCHED_MULTISTEP, "multistep") X(LB_SCHED_COSINE, "cosine")      \
    X(LB_SCHED_POLYNOMIAL, "polynomial") X(LB_SCHED_EXPONENTIAL, "exponential")
typedef enum lb_schedule_kind { LB_SCHEDULES(LB_ENUMERATOR) } lb_schedule_kind;

#define LB_DISTILL_FROMS(X) X(LB_DISTILL_NONE, "none") X(LB_DISTILL_TEACHER, "teacher") X(LB_DISTILL_TWIN, "twin")
typedef enum lb_distill_from { LB_DISTILL_FROMS(LB_ENUMERATOR) } lb_distill_from;

#define LB_DISTILL_LOSSES(X) X(LB_DISTILL_KL, "kl") X(LB_DISTILL_MSE, "mse")
typedef enum lb_distill_loss { LB_DISTILL_LOSSES(LB_ENUMERATOR) } lb_distill_loss;

#define LB_RESCALES(X) X(LB_RESCALE_START, "start") X(LB_RESCALE_RANGE, "range") X(LB_RESCALE_STEP, "step")
typedef enum lb_rescale { LB_RESCALES(LB_ENUMERATOR) } lb_rescale;

/* 1x1 conv + BN, or strided identity with zero channels */
#define LB_SHORTCUTS(X) X(LB_SHORTCUT_CONV, "conv") X(LB_SHORTCUT_PAD, "pad")
typedef enum lb_shortcut_kind { LB_SHORTCUTS(LB_ENUMERATOR) } lb_shortcut_kind;

/* quant.edges.*: 0 means float, LB_EDGE_SAME means like the other layers, else a bit-width (with the layer's own method if it can,
 * else `uniform`). */
#define LB_EDGE_SAME (-1)

typedef struct lb_model_config {
    char name[LB_CONFIG_TEXT];   /* a zoo name, or onnx */
    char path[LB_CONFIG_TEXT];   /* onnx: the file with the graph */
    float width;                 /* multiplies every channel count */
    int input_size;              /* 0: the data's */
    char act[32];                /* auto, relu, relu6, hardtanh: what activation nodes are before quantization */
    char variant[32];            /* family option: resnetNN: plain, sq */
    lb_shortcut_kind shortcut;
    float dropout;               /* -1: the family's own */
    float init_std;              /* 0: He */
    float bn_momentum;           /* weight of a new batch in the running statistics; 0: the family's own, 0.1 */
} lb_model_config;

typedef struct lb_augment_config {
    int pad;                     /* pad-and-crop by so many pixels, 0: none */
    lb_fill fill;                /* their colour */
    bool flip;                   /* horizontal, with probability 1/2 */
    bool resized_crop;           /* random resized crop to the network's input size */
    float scale[2], ratio[2];    /* its area and aspect ranges */
    int resize;                  /* test: shorter side to this before the centre crop; 0: straight to the input size */
} lb_augment_config;

typedef struct lb_data_config {
    char name[LB_CONFIG_TEXT];   /* fashion-mnist, mnist, cifar10, cifar100, folder */
    char path[LB_CONFIG_TEXT];   /* folder, archive, or "" : look in the standard places */
    float mean[4], std[4];       /* of pixels in 0..1, per channel */
    int nmean, nstd;             /* 0: the data set's own figures */
    int size;                    /* images are resized to size x size when decoded; 0: as they are */
    int train_limit, test_limit; /* first N images only (balanced over classes is not promised); 0: all */
    int workers;                 /* threads that prepare batches */
    bool cache;                  /* keep a decoded copy on disk ($XDG_CACHE_HOME/lowbit) where decoding is slow */
    lb_augment_config augment;
} lb_data_config;

typedef struct lb_optimizer_config {
    lb_optimizer_kind name;
    float lr, momentum, beta1, beta2, eps;
    bool nesterov;
    float weight_decay;          /* weights */
    float decay_bias, decay_bn, decay_quant; /* factors on weight_decay for these kinds of parameter */
    float lr_quant;              /* factor on lr for quantizer parameters */
    float lr_gates;              /* and for the gates of learned bit-lengths */
    float clip_weights;          /* clamp latent weights of quantized layers to [-x, x] after each update; 0: no */
} lb_optimizer_config;

typedef struct lb_schedule_config {
    lb_schedule_kind name;
    float warmup;                /* epochs of linear warm-up from 0 */
    float milestones[LB_MAX_MILESTONES]; int nmilestones; /* multistep: epochs */
    float every;                 /* step: epochs */
    float gamma;                 /* step, multistep: factor */
    float power;                 /* polynomial */
    float lr_end;                /* cosine, polynomial, exponential: final lr */
} lb_schedule_config;

typedef struct lb_train_config {
    float epochs;                /* budget of one stage; may be a fraction */
    float total_epochs;          /* if > 0: epochs of all stages together, to which epochs and schedules have been scaled */
    int64_t steps;               /* if > 0, wins over epochs */
    int batch;
    uint64_t seed;
    lb_precision precision;
    lb_loss_kind loss;
    float label_smoothing;
    int eval_batch;
    float eval_every;            /* epochs between evaluations */
    int save_every;              /* steps between checkpoints besides those at each epoch's end; 0: none */
    /* batches over which batch norm's statistics are estimated before an evaluation; 0: those of training */
    int bn_estimate;
    int histograms;              /* epochs between TensorBoard histograms; 0: none */
    /* run directory or checkpoint to start from; "": seeded; from the second stage on: the stage before, unless the stage itself
     * says it */
    char init[LB_CONFIG_TEXT];
    lb_optimizer_config optimizer;
    lb_schedule_config schedule;
} lb_train_config;

/* One side of quant; method and mixer are looked up in the tables of quant.h by lb_net_quantize. */
typedef struct lb_tensor_config {
    char method[32];             /* none, or a quantizer */
    int bits;
    char mixer[32];
    lb_quant_options options;
} lb_tensor_config;

typedef struct lb_layer_rule {
    char match[64];              /* pattern with * and ? on node names */
    lb_tensor_config weights, activations; /* fields not given here are copied from quant.weights and quant.activations */
} lb_layer_rule;

typedef struct lb_quant_config {
    lb_tensor_config weights, activations;
    lb_rescale rescale;          /* what learned steps and clips become when their bits change: lb_quant_carry */
    int edge_first, edge_last, edge_shortcut;
    lb_layer_rule layers[LB_MAX_LAYER_RULES];
    int nlayers;
} lb_quant_config;

/* Other networks that are run on the same batches, and what is learned from them. */
typedef struct lb_distill_config {
    lb_distill_from from;
    char teacher[LB_CONFIG_TEXT]; /* teacher: run directory */
    lb_distill_loss loss;
    float temperature;           /* kl */
    float weight, label_weight;  /* of the low-bit networks: the other network's outputs, and the labels */
    float twin_weight, twin_label_weight; /* twin: likewise */
    float twin_lr;               /* twin: factor on lr */
    float students[LB_MAX_STUDENTS]; int nstudents; /* bits of further students, trained on the same batches */
    char features[LB_CONFIG_TEXT]; /* patterns of layer names whose outputs are compared too, "" : none */
    float feature_weight;
} lb_distill_config;

typedef struct lb_config {
    char stage[64];              /* name of the stage this config is of; "main" in a recipe without stages */
    lb_model_config model;
    lb_data_config data;
    lb_train_config train;
    lb_quant_config quant;
    lb_distill_config distill;
} lb_config;

/* A recipe: the base and its stages, each the base plus the stage's own keys. At least one stage always. A key that is not read
 * under the others (e.g. gamma with a cosine schedule) has its default here. */
struct lb_recipe {
    lb_ctx *ctx;
    lb_pool pool;
    const char *path;            /* where it was read, for messages; "" if made in memory */
    int nstages;
    lb_config *stages;           /* (nstages) resolved */
    struct lb_recipe_given *given; /* what was written, in order: given.h, src/recipe's own */
};

#endif

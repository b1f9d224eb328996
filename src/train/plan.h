/* A network compiled for training at one batch size: fused steps in order, every buffer placed in one arena by its lifetime, every
 * oneDNN primitive made. Running a step allocates nothing.
 *
 * Values. A tensor is stored as numbers v with a scale: real = step * v. The output of a quantized activation is stored as its
 * integer codes, and convolutions run on those and on the weights' codes; the accumulator's real value is v * (step of src) * (step
 * of filter), which the following norm step folds into its affine.
 * Gradients. A consumer leaves dL/dv ("stored") or dL/dreal in a buffer; the producer sums its consumers' with the right
 * factors. */
#ifndef LB_PLAN_H
#define LB_PLAN_H

#include <assert.h>

#include "data/data.h"
#include "net/net.h"
#include "train/laps.h"
#include "train/simd/kernels.h"

typedef struct lb_plan lb_plan;

typedef enum lb_step_kind {
    LB_STEP_INPUT, LB_STEP_CONV, LB_STEP_NORM, LB_STEP_POOL, LB_STEP_DROPOUT, LB_STEP_PAD, LB_STEP_CONCAT,
    LB_STEP_REAL /* func, mul */
} lb_step_kind;

typedef struct lb_grad {
    int buffer;
    bool real;             /* dL/dreal; else dL/dstored */
} lb_grad;

/* The stored output of one node. */
typedef struct lb_value {
    lb_dtype type;
    size_t rows;           /* mb * h * w */
    int c;
    int buffer;            /* -1: the node was fused away */
    float step;
    float reach;           /* largest magnitude of v if all are whole numbers, else 0 */
    bool wants_grad;       /* false before the first parameter */
    int ngrads;
    lb_grad grad[LB_MAX_GRADS];
} lb_value;

typedef struct lb_step {
    lb_step_kind kind;
    int node;              /* whose output this step makes (a norm step: of the last node fused in) */
    int src;               /* node whose value is read */
    int residual;          /* norm, mul: second source, or -1 */
    int conv, bn, act;     /* norm: nodes fused in, or -1. conv: the producer of the accumulator that is read */
    int acc;               /* conv and its norm: buffer of the accumulator, which becomes its gradient. -1: norm reads src */
    lb_dtype acc_type;
    int dz;                /* norm: buffer of its first backward pass */
    int more_dx[LB_MAX_SRC - 1]; /* mul, concat: buffers of the gradients handed to the sources behind the first, or -1 */
    int dx;                /* all but norm behind conv: buffer of the gradient handed to src, or -1 */
    int grad;              /* all but norm and conv: buffer of the summed gradient */
    int workspace;         /* max pool; conv whose accumulator is f32 among bf16: its gradient as bf16 */
    lb_conv_prims *prims;
    lb_pool_prims *pool;
    float *scale;          /* conv: (oc) step of each filter times the source's; its norm step borrows it */
    float *a, *b, *mean, *inv, *p, *q, *s; /* norm: (c) */
    double *sums;          /* norm: (lb_plan_parts, lb_sums_stride(c)): of dz (c), of dz x (c), and two of what is learned */
    lb_norm_args args;     /* norm: of the pass that is being done */
    uint8_t *mask;         /* norm: (h, w, c) of 0 and 1 for a mixer that has one, else NULL; the backward pass reads forward's */
    bool masked;           /* it holds at this step */
    lb_quant_memory memory; /* norm: of its activation's quantizer and mixer, conv: of the weights' mixer */
} lb_step;

/* Room for those sums of one part: a whole cache line behind the channels, so that threads do not write into the same one. */
static inline size_t lb_sums_stride(int c) { return 2 * (size_t)c + 8; }

/* One pass of a step on some images. The passes of a queue are done one after the other on a few images, then on the next ones,
 * so that what one leaves is in the cache for the next. */
typedef void lb_task_run(lb_plan *plan, lb_step *step, const lb_image_range *images);
typedef struct lb_task {
    lb_task_run *run;
    lb_step *step;
    lb_pass pass;          /* for the stopwatch */
} lb_task;
#define LB_MAX_TASKS 4
#define LB_TASK_SPAN 2 /* steps from a queue's first to its last: so much longer do buffers live */

typedef struct lb_buffer {
    size_t size, offset;
    int first, last;       /* lifetime: forward of step i is at time i, its backward at 2 * nsteps - 1 - i */
    bool shared;           /* a gradient that two tensors read: nobody may write over it */
} lb_buffer;

/* A tensor inside the network that a loss looks at: the first one stored at or behind a named layer, which is what leaves the
 * layer, with the batch norm, addition and activation fused into its step. */
typedef struct lb_tap {
    int node;
    int diff;              /* buffer for dL/dreal; -1 in a plan for inference */
} lb_tap;
#define LB_MAX_TAPS 16

typedef struct lb_plan_options {
    int mb;
    bool bf16;
    uint64_t seed;
    const float *mean, *std;   /* (c) normalisation of pixels in 0..1 */
    bool inference;            /* no backward pass: less memory. Of forward passes only lb_plan_infer is allowed */
    int ntaps, tap[LB_MAX_TAPS]; /* nodes whose tensors losses look at, each once */
} lb_plan_options;

/* Which statistics batch norm uses, and what becomes of the running ones. */
typedef enum lb_plan_stats {
    LB_STATS_TRAIN,        /* the batch's; running ones follow by the node's momentum */
    LB_STATS_ESTIMATE,     /* the batch's; running ones become the mean over the batches of the estimate */
    LB_STATS_RUNNING       /* the running ones, unchanged */
} lb_plan_stats;

struct lb_plan {
    lb_ctx *ctx;
    lb_pool pool;
    lb_net *net;               /* borrowed */
    lb_backend *backend;
    const lb_kernels *kernels[2]; /* by lb_dtype */
    lb_plan_options options;
    lb_quant_when when;        /* the step that is being done; its seed is made for each tensor */
    lb_plan_stats stats;
    int64_t estimated;         /* batches of the estimate before this one */
    float mean[4], std[4];
    int threads;
    int nsteps;
    lb_step *steps;            /* (nsteps) */
    lb_value *values;          /* (nnodes) */
    int *root;                 /* (nnodes) the node whose value this one shares (flatten) */
    int nbuffers;
    lb_buffer *buffers;
    int diff_output;           /* buffer of the gradient that the loss leaves */
    int ntaps;
    lb_tap taps[LB_MAX_TAPS];  /* in the order of options.tap */
    unsigned char *arena;
    size_t arena_size;
    float *weights;            /* (nvalues) what convolutions are given, u~ / step */
    float *diff_weights;       /* (nvalues) its gradient */
    float *work;               /* (threads, work_stride) for the quantizers */
    size_t work_stride;        /* twice the largest weight tensor */
    float *filter_steps;       /* (nvalues) step of each filter, at the weight parameter's offset */
    float *logits, *diff_logits; /* (mb, classes) */
    lb_laps *laps;             /* borrowed; NULL unless somebody measures */
    float *calibration;        /* f32 copy of the tensor that an activation quantizer starts from */
    int ntasks;
    lb_task tasks[LB_MAX_TASKS]; /* what has been queued */
};

/* The net is borrowed, and must stay as it is but for its values; mean and std of options are copied. LB_ERR_UNSUPPORTED or
 * LB_ERR_SHAPE name the layer that cannot be trained; after a failure *plan is NULL. */
lb_status lb_plan_create(lb_ctx *ctx, lb_net *net, const lb_plan_options *options, lb_plan **plan);
void lb_plan_destroy(lb_plan *plan);

/* Quantizes the weights, runs the network forward on a batch; plan->logits receives the outputs (mb, classes). `when` says which
 * step this is, for schedules and random numbers (its seed is not read). Running statistics of batch norm are updated. */
lb_status lb_plan_forward(lb_plan *plan, const uint8_t *pixels, const lb_quant_when *when);

/* The network as it is evaluated, up to the rounding of fixed point: everything quantized, running statistics, no dropout. Every
 * learned parameter must have its value. Changes nothing. */
lb_status lb_plan_infer(lb_plan *plan, const uint8_t *pixels);

/* One batch of an estimate of batch norm's running statistics, those of the fully quantized network: batch `index`, from 0. After n
 * of them they are means over n batches. */
lb_status lb_plan_estimate(lb_plan *plan, const uint8_t *pixels, int64_t index);

/* After a forward pass: the values of tap k, elements [first, first + count), real. lb_plan_tap_count says how many there are: mb
 * times those of one image. */
size_t lb_plan_tap_count(const lb_plan *plan, int k);
void lb_plan_tap_read(const lb_plan *plan, int k, size_t first, size_t count, float *dst);
/* Leaves dL/dreal of them for the backward pass, which needs all elements of all taps. */
void lb_plan_tap_write(const lb_plan *plan, int k, size_t first, size_t count, const float *diff);

/* The same step, from plan->diff_logits and the taps back to all parameters: diff (nvalues) is overwritten. */
lb_status lb_plan_backward(lb_plan *plan, float *diff);

/* Name of the first layer (in order) whose output is not finite, NULL if all are; after a loss that is NaN. */
const char *lb_plan_find_bad(const lb_plan *plan);

/* Starts learned parameters of weight quantizers that have no values yet. */
void lb_plan_init_weights(lb_net *net);

/* Where a buffer is in the arena: its content only while it lives. */
void *lb_plan_buffer(const lb_plan *plan, int buffer);

/* The value that holds node's output. */
static inline lb_value *lb_plan_value(const lb_plan *plan, int node) {
    assert(node >= 0);
    return &plan->values[plan->root[node]];
}

#endif

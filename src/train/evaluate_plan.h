/* Inside the evaluator: the network as stages. A stage reads one tensor, does one operator, and then a chain of elementwise
 * operations on blocks that stay in the first-level cache. Every thread runs all stages on a few images at a time, in its own
 * workspace. */
#ifndef LB_EVALUATE_PLAN_H
#define LB_EVALUATE_PLAN_H

#include "net/numerics.h"
#include "train/backend/conv_infer.h"
#include "train/evaluate.h"
#include "train/simd/eval_kernels.h"
#include "train/simd/tiles_sums.h"

#define LB_EVAL_BLOCK 512 /* numbers in flight */

typedef enum lb_stored { LB_STORED_U8, LB_STORED_S8, LB_STORED_I32, LB_STORED_F32 } lb_stored;
static inline size_t lb_stored_size(lb_stored type) { return type <= LB_STORED_S8 ? 1 : 4; }

/* A tensor in the workspace, as many images as a chunk has. */
typedef struct lb_eval_tensor {
    bool made;          /* false: fused away */
    lb_stored type;
    size_t count;       /* numbers of one image */
    int first, last;    /* stages that write and last read it */
    size_t offset;      /* in the workspace */
} lb_eval_tensor;

/* Parameters that repeat with the channels are spelt out for `period` numbers, a multiple of the channels. */
typedef enum lb_chain_kind {
    LB_CHAIN_REQUANT, LB_CHAIN_REQUANT1, LB_CHAIN_ADD, LB_CHAIN_CLAMP, LB_CHAIN_SIGN,
    LB_CHAIN_STEPS, LB_CHAIN_TABLE,                                                                       /* int32 */
    /* between int32 and float */
    LB_CHAIN_FLOAT, LB_CHAIN_FLOAT1, LB_CHAIN_CODE_F32, LB_CHAIN_SIGN_F32, LB_CHAIN_FIXED_F32,
    LB_CHAIN_AFFINE, LB_CHAIN_ADD_F32, LB_CHAIN_CLAMP_F32                                                 /* float */
} lb_chain_kind;

typedef struct lb_chain {
    lb_chain_kind kind;
    int64_t *mul, *add, *shift; /* (period) requant, */
    bool fits;                 /* of numbers whose results never leave int32 */
    lbrt_requant r;            /* requant1 */
    uint8_t *start, *size;     /* (period) steps: the codes of a chain's end, as bytes */
    int32_t *above;            /* (nabove, period) */
    int nabove;
    int64_t pitch;             /* the period */
    int32_t *table;            /* (16) of the number mod 16 */
    float *scale, *offset;     /* (period) affine; scale: of to_float */
    float step;                /* to_float1; code_f32: 1 / step */
    int32_t lo, hi;
    float flo, fhi;
    int other;                 /* add: tensor; `before` brings it to the chain's numbers first */
    int nbefore;
    struct lb_chain *before;
} lb_chain;

typedef enum lb_stage_op {
    LB_STAGE_PIXELS, /* image to floats */
    LB_STAGE_POINT,  /* the chain alone */
    LB_STAGE_CONV, LB_STAGE_MAXPOOL, LB_STAGE_SUMPOOL, LB_STAGE_PAD, LB_STAGE_CONCAT, LB_STAGE_FUNC, LB_STAGE_MUL
} lb_stage_op;

/* concat, func, mul: one of its sources, which a chain brings to the numbers that the operator computes with. */
typedef struct lb_eval_source {
    int tensor, c;
    size_t period, count;      /* count: numbers of one image */
    int nchain;
    lb_chain *chain;
} lb_eval_source;

typedef enum lb_conv_way {
    LB_WAY_INT8,    /* 8-bit: matrix registers, or oneDNN */
    LB_WAY_WHOLE,   /* oneDNN, whole numbers in f32 */
    LB_WAY_INT32,   /* plain loop, for sums beyond what oneDNN keeps exact */
    LB_WAY_ORDERED, /* floats in the packed runtime's order */
    LB_WAY_F32      /* floats in any order: matrix registers, or oneDNN */
} lb_conv_way;

typedef struct lb_stage {
    lb_stage_op op;
    int node, tail;            /* first and last node; the result is tail's tensor */
    int src, dst;              /* tensors; src -1: the pixels */
    lb_stored src_type, acc_type; /* what the operator reads (after `staging`) and leaves for the chain */
    size_t src_count, acc_count;  /* numbers of one image */
    int c;                     /* channels of the result */
    size_t period;
    int nstaging, nchain;
    lb_chain *staging;         /* converts the whole source first, with its own period; */
    bool staged;               /* there is one, though it may be empty (another type only) */
    size_t staging_period;
    lb_chain *chain;
    lb_eval_pool pool;
    lb_conv conv;
    int ih, iw, ic, oh, ow;    /* of the view that is convolved */
    bool vector;               /* 1 x 1 on 1 x 1: a chunk's images are one image's rows or columns */
    lb_conv_way way;
    bool halves;               /* weights = 16 * high + low, as twice as many channels, so that sums stay exact */
    lb_infer_conv *infer;      /* oneDNN; or: */
    const lb_tiles_sums *tiles; /* matrix registers, a band at a time; */
    lb_sums sums;
    void *sums_weights;
    lb_ordered_conv ordered;
    int32_t *int_weights;
    float *pixel_scale, *pixel_offset; /* (period) */
    int nparts;                /* shortcutpad */
    const lb_part *parts;
    const int *rows, *cols;
    const lb_numeric *func;    /* func: its numbers */
    lb_func_kind func_kind;
    int nsources;
    lb_eval_source *sources;   /* (nsources) concat, func, mul */
} lb_stage;

typedef struct lb_eval_plan {
    lb_pool memory;
    lb_numerics *numerics;
    bool ordered;
    int chunk;                 /* images a thread takes at a time */
    int nstages;
    lb_stage *stages;          /* in the order they run; the last one gives the scores */
    lb_eval_tensor *tensors;   /* (nnodes) */
    size_t staging, acc, merged, scratch; /* sizes, then offsets in the workspace */
    size_t workspace;          /* bytes of one thread */
} lb_eval_plan;

/* Compiles the net for chunks of at most `mb` images. */
lb_status lb_eval_plan_create(lb_infer *infer, const lb_net *net, const float mean[4], const float std[4], int mb, bool ordered,
                              lb_eval_plan **plan);
void lb_eval_plan_destroy(lb_eval_plan *plan);

/* Picks how a convolution is computed and makes its weights; in evaluate_conv.c. */
lb_status lb_eval_plan_conv(lb_eval_plan *plan, lb_infer *infer, lb_stage *stage);

/* Makes the last operations of a chain thresholds where they end in few numbers, which are bytes then; in evaluate_steps.c. c:
 * channels, with which the chain's parameters repeat. */
lb_status lb_eval_plan_steps(lb_pool *memory, lb_chain *chain, int *nchain, int c, size_t period);

/* Runs all stages on `count` images, count <= plan->chunk. pixels: (count, h, w, c). False if oneDNN failed. */
bool lb_eval_plan_run(const lb_eval_plan *plan, const lb_eval_kernels *kernels, int thread, unsigned char *workspace,
                      const uint8_t *pixels, int count, int32_t *scores);

#endif

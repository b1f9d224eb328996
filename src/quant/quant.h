/* Quantization: the one equation that holds every method (docs/architecture.md).
 *
 *     u~ = (1 - m) * s(u) + m * Q(u)                       forward
 *     dL/du = [ (1 - m) * s'(u) + m * E(u) ] * dL/du~      backward
 *
 * u is the weights of one layer or the output of one activation node. Q projects onto a grid of integer codes:
 * Q(u) = step * code. s is the surrogate (what the unquantized part does), E the estimator (the gradient through Q), and m the
 * mixer's value, a number, one per filter, or one per element.
 *
 * Convolutions are always given u^ = u~ / step: integer codes, exact in bf16, wherever m = 1; the steps come after, in f32. */
#ifndef LB_QUANT_H
#define LB_QUANT_H

#include "core/core.h"

typedef enum lb_target { LB_WEIGHTS, LB_ACTIVATIONS } lb_target;
/* Choices, enumerators with the words of the recipe's keys (core.h). */
#define LB_GRANULARITIES(X) X(LB_PER_TENSOR, "tensor") X(LB_PER_FILTER, "filter") X(LB_PER_DEFAULT, "default")
typedef enum lb_granularity { LB_GRANULARITIES(LB_ENUMERATOR) } lb_granularity; /* default: the quantizer's own */

/* The gradient E(u) through the quantized part. Learned parameters follow the quantizer's own formula under every estimator.
 *
 *   DEFAULT   the quantizer's usual one
 *   STE       identity (composed with the quantizer's own continuous transform, e.g. DoReFa's tanh)
 *   CLIPPED   STE inside the quantizer's range, 0 outside: step * lo .. step * hi; weights of sign, bwn, xnor, twn and every 1-bit
 *             one whose step is not learned: -1 .. 1
 *   NONE      0: STE-free
 *   OWN       the quantizer's: LSQ, PACT, XNOR's; refused where it has none */
#define LB_ESTIMATORS(X)                                                                                                           \
    X(LB_EST_DEFAULT, "default") X(LB_EST_STE, "ste") X(LB_EST_CLIPPED, "clipped") X(LB_EST_NONE, "none") X(LB_EST_OWN, "own")
typedef enum lb_estimator { LB_ESTIMATORS(LB_ENUMERATOR) } lb_estimator;

/* What the unquantized part does. */
#define LB_SURROGATES(X)                                                                                                           \
    X(LB_SUR_DEFAULT, "default") X(LB_SUR_IDENTITY, "identity") X(LB_SUR_HARDTANH, "hardtanh") X(LB_SUR_CLIP01, "clip01")          \
    X(LB_SUR_RELU, "relu")
typedef enum lb_surrogate { LB_SURROGATES(LB_ENUMERATOR) } lb_surrogate;

#define LB_SCALE_RULES(X) X(LB_SCALE_MINMAX, "minmax") X(LB_SCALE_L2, "l2")
typedef enum lb_scale_rule { LB_SCALE_RULES(LB_ENUMERATOR) } lb_scale_rule; /* uniform: range or least squares */

/* Options of mixers; src/quant/mixers/ says what they do. */
#define LB_MIX_SCOPES(X)                                                                                                           \
    X(LB_SCOPE_DEFAULT, "default") X(LB_SCOPE_FILTER, "filter") X(LB_SCOPE_ELEMENT, "element") X(LB_SCOPE_LAYER, "layer")          \
    X(LB_SCOPE_BLOCK, "block")
typedef enum lb_mix_scope { LB_MIX_SCOPES(LB_ENUMERATOR) } lb_mix_scope;

#define LB_MIX_SCHEDULES(X)                                                                                                        \
    X(LB_RATIO_CONSTANT, "constant") X(LB_RATIO_EXP, "exp") X(LB_RATIO_AVERAGE, "average") X(LB_RATIO_TUNE, "tune")
typedef enum lb_mix_schedule { LB_MIX_SCHEDULES(LB_ENUMERATOR) } lb_mix_schedule;

#define LB_MIX_PARTITIONS(X)                                                                                                       \
    X(LB_PARTITION_STOCHASTIC, "stochastic") X(LB_PARTITION_DETERMINISTIC, "deterministic") X(LB_PARTITION_FIXED, "fixed")
typedef enum lb_mix_partition { LB_MIX_PARTITIONS(LB_ENUMERATOR) } lb_mix_partition;

#define LB_MIX_PROBABILITIES(X)                                                                                                    \
    X(LB_PROB_CONSTANT, "constant") X(LB_PROB_LINEAR, "linear") X(LB_PROB_SOFTMAX, "softmax") X(LB_PROB_SIGMOID, "sigmoid")
typedef enum lb_mix_probability { LB_MIX_PROBABILITIES(LB_ENUMERATOR) } lb_mix_probability;

#define LB_MIX_RULES(X) X(LB_RULE_PAPER, "paper") X(LB_RULE_CODE, "code")
typedef enum lb_mix_rule { LB_MIX_RULES(LB_ENUMERATOR) } lb_mix_rule;

#define LB_CPQ_BACKWARDS(X) X(LB_CPQ_EXPECT, "expect") X(LB_CPQ_MODE, "mode")
typedef enum lb_cpq_backward { LB_CPQ_BACKWARDS(LB_ENUMERATOR) } lb_cpq_backward; /* cpq: what the gradient is that of */

/* Bits of a tensor: as the recipe says; learned, at most as many as it says; as learned in a stage before (gates.h). */
#define LB_BIT_LENGTHS(X) X(LB_BITS_FIXED, "fixed") X(LB_BITS_LEARNED, "learned") X(LB_BITS_KEPT, "kept")
typedef enum lb_bit_lengths { LB_BIT_LENGTHS(LB_ENUMERATOR) } lb_bit_lengths;

/* Mixer mask: whose turn it is to freeze, and how the share p grows over a turn, x = 0 .. 1. */
#define LB_MIX_ORDERS(X) X(LB_MIX_FORWARD, "forward") X(LB_MIX_REVERSE, "reverse") X(LB_MIX_GLOBAL, "global")
typedef enum lb_mix_order { LB_MIX_ORDERS(LB_ENUMERATOR) } lb_mix_order; /* global: all layers in one turn */

#define LB_MIX_RAMPS(X)                                                                                                            \
    X(LB_RAMP_CUBIC, "cubic") X(LB_RAMP_LINEAR, "linear") X(LB_RAMP_QUADRATIC, "quadratic") X(LB_RAMP_COSINE, "cosine")            \
    X(LB_RAMP_FLIPPED, "flipped")
typedef enum lb_mix_ramp { LB_MIX_RAMPS(LB_ENUMERATOR) } lb_mix_ramp;

/* How code values are stored in `bits` bits: value = mul * stored + add, stored = 0 .. levels-1. */
typedef struct lb_grid {
    int bits;
    int lo, hi;        /* smallest and largest code */
    int mul, add;      /* signed: (1, -2^(b-1)); unsigned: (1, 0); odd symmetric, 1-bit sign: (2, -(2^b - 1)); ternary: (1, -1) */
} lb_grid;

/* Options of quantizers and mixers: the recipe's keys of these names in quant.weights, quant.activations and layer rules. Each
 * member has 4 bytes, so that options are equal if their bytes are. */
typedef struct lb_quant_options {
    lb_granularity per;          /* of weights only */
    lb_estimator estimator;
    lb_surrogate surrogate;
    lb_scale_rule scale;         /* uniform */
    float threshold;             /* twn: Delta = threshold * mean|w| */
    lb_cpq_backward cpq_backward; /* cpq */
    float temperature;           /* rq: of the softmax in the backward pass; 0: 1 */
    float drop_top, drop_lower;  /* cpq, rq: DropBits, probability that the highest, and each lower level, is dropped in a step */
    lb_bit_lengths bit_lengths;  /* cpq, of weights only */
    float bits_penalty;          /* learned: weight of the gates' expected number in the loss */
    float mix;                   /* constant: m */
    float mix_start, mix_end;    /* alpha, stochastic: the ramp's ends as fractions of the stage */
    float mix_exponent;          /* alpha */
    int mix_every;               /* alpha: steps between updates; 0 counts as 1 */
    lb_mix_scope mix_scope;      /* what is drawn as one; default: filter (roulette), layer (stochastic) */
    float mix_from;              /* stochastic: probability before the ramp */
    lb_mix_schedule mix_schedule; /* roulette, of weights only, as the next four: quantized share over the stage */
    float mix_ratio;             /* that share where mix_schedule is constant */
    lb_mix_partition mix_partition;
    lb_mix_probability mix_probability; /* of mix_partition stochastic, as the next */
    lb_mix_rule mix_rule;
    lb_mix_order mix_order;      /* mask */
    lb_mix_ramp mix_ramp;        /* mask */
    int mix_refresh;             /* mask: an entry draws its bit again once in so many steps, 1 .. LB_MAX_REFRESH; 0: 100 */
    float mix_settle;            /* mask: last share of the stage in which everything is quantized, below 1 */
} lb_quant_options;

/* What the user asked for one tensor: the recipe's quant.weights or quant.activations, after per-layer overrides. */
typedef struct lb_quant_spec {
    const struct lb_quantizer *quantizer;
    const struct lb_mixer *mixer;
    lb_target target;
    int bits;
    lb_quant_options options;
    /* Set by lb_net_quantize: */
    bool is_signed;      /* uniform activations: signed grid, where the tensor can be negative */
    int64_t features;    /* activations: elements of one image, for LSQ's gradient scale; 0 counts as 1 */
    int mix_unit;        /* stochastic: tensors of one unit share a draw */
    int layer, layers;   /* mask: place among the layers that have one, from the input, and how many */
} lb_quant_spec;
#define LB_MAX_REFRESH 1000

/* What mixer and quantizer of one tensor may keep so as not to draw it again. All zeros at first. */
enum { LB_QUANT_NOISE = 1 << 14 };
typedef struct lb_quant_memory {
    uint16_t *entry;       /* (elements of the tensor) of a mixer that `remembers`, for what `key` says: the same as drawn anew */
    uint64_t key[6];
    bool holds;
    float *noise;          /* (LB_QUANT_NOISE) of activations whose quantizer is `noisy`, or NULL: what elements share in a step */
    bool noise_holds;
    uint64_t noise_key[2];
} lb_quant_memory;

/* When a tensor is quantized: all that draws and schedules may depend on, so that any step of a run can be entered. */
typedef struct lb_quant_when {
    uint64_t seed;                   /* the run's and the tensor's together: draws of different tensors differ */
    uint64_t run_seed;               /* the run's alone, for draws that tensors share */
    uint64_t step;                   /* training steps before this one, over all stages */
    int64_t stage_step, stage_steps; /* the same in this stage, and how many it has */
    bool evaluation;                 /* everything quantized, nothing drawn; the other members do not matter */
    lb_quant_memory *memory;         /* borrowed; NULL, or without what a mixer or quantizer keeps: nothing is kept */
} lb_quant_when;
extern const lb_quant_when lb_quant_evaluation;

enum { LB_ACT_BLOCK = 128 }; /* elements that `soft` and `draw` of lb_act_form answer for at once, at most */

/* A block of a quantizer that is more than elementwise: E of each element, and the derivatives of z~ / step by the logarithms of
 * its two parameters. */
typedef struct lb_soft {
    float slope[LB_ACT_BLOCK], by_step[LB_ACT_BLOCK], by_sigma[LB_ACT_BLOCK];
} lb_soft;

/* The three as cubics, for kernels. With v = z / step, centre = rint(v) clipped to lowest .. highest, or `lowest` where they are
 * equal, and off = v - centre, each is an even or odd function of off:
 *     slope = S(|off|),    by_step = centre * (1 - slope) + sign(off) * A(|off|),    by_sigma = sign(off) * B(|off|)
 * Piece k of LB_CURVE_PIECES holds around k = rint(|off| * scale) and is a cubic in |off| * scale - k; the last is constant and
 * holds for all beyond, for NaN too. The error is below 1e-3 of each function's largest value for a ratio above 1/5, and below
 * 1.5e-3 for all; rounding a gradient to bf16 makes one of 2e-3. */
enum { LB_CURVE_PIECES = 32 };
typedef struct lb_curve {
    bool holds;            /* else `soft` has to be asked */
    bool own;              /* E is `slope`; else 1 in the pass range. by_step is of the former in any case */
    float lowest, highest, scale;
    float slope[4][LB_CURVE_PIECES], by_step[4][LB_CURVE_PIECES], by_sigma[4][LB_CURVE_PIECES]; /* from the constant on */
} lb_curve;

/* What of an activation quantizer is learned: d, a parameter's gradient in one step, learn_scale left aside. */
typedef enum lb_act_learn {
    LB_LEARN_NOTHING,
    LB_LEARN_CLIP, /* PACT: d clip = m * sum of dz~ where z >= clip, clip = step * hi */
    LB_LEARN_STEP, /* LSQ: d step = m * sum of dz~ * (z / step <= lo: lo; >= hi: hi; else code - z / step); sign: dz~ * code */
    LB_LEARN_SOFT  /* two parameters: d = m * sum of dz~ * what `soft` says */
} lb_act_learn;

/* Elementwise form of an activation quantizer for one step, what the fused kernels take:
 *     code = sign ? (z >= 0 ? 1 : -1) : clip(rint(z / step), lo, hi),    z~ = step * code
 * with E(z) = 1 for pass_lo < z < pass_hi (open interval), else 0. z / step is z * (1.f / step), as in net/numerics.h; clipping
 * before lb_rint (rint.h) gives the same code and keeps it in lb_rint's range. NaN has the lowest code, `lo` (sign: -1).
 *
 * With m < 1 the output is (1 - m) * clip(z, sur_lo, sur_hi) + m * step * code, and the gradient
 * (1 - m) * 1[sur_lo < z < sur_hi] + m * E(z). lb_act_forward_ref and lb_act_backward_ref are the exact statement. */
typedef struct lb_act_form {
    float step;
    float lo, hi;          /* codes */
    bool sign;
    float pass_lo, pass_hi;/* in units of z; infinite: STE everywhere; equal: none */
    lb_act_learn learn;
    float learn_scale;     /* factor on its sum: LSQ's g = 1 / sqrt(features * max(hi, 1)); PACT 1; of `soft` the step */
    float m;               /* mixer value, 1 = quantized */
    float sur_lo, sur_hi;  /* surrogate s(z) = clip(z, sur_lo, sur_hi); infinite for identity and ReLU's upper side */

    /* For what is not elementwise in this sense; both NULL: as above. They answer for a block z[0 .. n), n <= LB_ACT_BLOCK, whose
     * first element has index `first` in the whole batch's tensor. `soft` gives E and the two parameters' derivatives in place of
     * the pass range and `learn`, `draw` the codes in place of rounding. */
    void (*soft)(const struct lb_act_form *form, const float *z, int64_t first, int n, lb_soft *soft);
    void (*draw)(const struct lb_act_form *form, const float *z, int64_t first, int n, float *code);
    float ratio;           /* cpq, rq: sigma / step, and how many codes are looked at (logistic.h) */
    int codes;
    lb_curve curve;        /* cpq, expect: what `soft` says, faster */
    const lb_quant_spec *spec; /* borrowed */
    lb_quant_when when;
} lb_act_form;

/* A layer's weights, as quantizers and mixers see them. */
typedef struct lb_weights {
    const float *u; /* (oc, fan_in) */
    int oc;
    int64_t fan_in;
    const float *step, *code; /* what the quantizer's forward returned (oc), (oc, fan_in); forward itself does not look at them */
} lb_weights;

/* One row of the table. A new quantizer is one file in src/quant/quantizers/, one line in LB_QUANTIZERS, and a reference
 * in tests/quant/reference.h, which the tests loop over: docs/adding-a-method.md. */
typedef struct lb_quantizer {
    const char *name;
    const char *help;        /* one line for `lowbit list methods` */
    const char *paper;       /* source */
    bool weights, activations;          /* what it can quantize */
    int min_bits, max_bits;             /* activations and weights alike; 1,1 for sign; ternary: 2,2 */
    int nparams;                        /* parameters per tensor or filter; lb_quant_nparams says how many for a target */
    const char *param_names[2];         /* e.g. "step", "clip" */
    bool weight_params;                 /* weights have them too, not only activations */
    bool learns_bits;                   /* weights can have LB_BITS_LEARNED: gates follow the parameters (gates.h) */
    bool log_params;                    /* they are logarithms of lengths: any sign, no floor */
    bool clips;                         /* its parameter is the range's end, step * hi, not a step */
    bool fixed_params;                  /* set once by init and never trained: no gradient, no decay, no update */
    lb_granularity granularity;         /* default for weights; activations are always per tensor */
    lb_estimator estimator;             /* default for weights */
    lb_estimator estimator_activations; /* default for activations. LB_EST_OWN is allowed exactly where it is the default */
    bool unit_range;                    /* weights become -1 .. 1 whatever they were: fine before a batch norm, not for scores */
    bool noisy;                         /* activations: it makes use of a memory's noise */
    const char *no_clipped;             /* NULL, or why LB_EST_CLIPPED makes no sense on weights of 2 and more bits */
    bool backward_uses_code;            /* else backward is given w->code = NULL, and codes are not recomputed for it */
    lb_surrogate surrogate_weights;     /* default */
    lb_surrogate surrogate_activations; /* default; LB_SUR_DEFAULT here: ReLU where unsigned, identity where signed */

    /* The grid for a spec; activations and weights. */
    void (*grid)(const lb_quant_spec *spec, lb_grid *grid);

    /* Learned parameters' first values from the tensor: weights at start (u is (oc, fan_in)), activations from the first batch
     * (u is (1, count), what enters the activation node). param is (nparams, 1 or oc); behind it
     * are the gates of learned bit-lengths, which have values already. NULL if nparams is 0. */
    void (*init)(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param);

    /* Weights: step[oc] (all equal when per tensor; positive and finite whatever u holds) and code (oc, fan_in) as whole floats on
     * the grid. `param`: learned parameters, NULL if there are none. NULL: weights is false. */
    void (*forward)(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code);

    /* Weights: adds m = 1's part E(u) * diff to diff_u, and learned parameters' gradients to diff_param. What is not
     * wanted is NULL: diff_u where the estimator is LB_EST_NONE, diff_param where nothing is learned; one of them is. diff is
     * m * dL/du~ (oc, fan_in), so this must be linear in it. NULL: the shared code's STE,
     * or clipped STE with range -1 .. 1. */
    void (*backward)(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param);

    /* Activations: sets step, lo, hi, sign, learn, learn_scale and, for own and clipped, the pass range for the current parameters;
     * the shared code does the rest. NULL if activations is false. */
    void (*form)(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *form);
} lb_quantizer;

/* The one list: enumerators, names, help, recipe values and tests come from it. */
#define LB_QUANTIZERS(X) \
    X(sign)              \
    X(bwn)               \
    X(xnor)              \
    X(twn)               \
    X(dorefa)            \
    X(uniform)           \
    X(pact)              \
    X(lsq)               \
    X(seq)               \
    X(cpq)               \
    X(rq)
#define LB_X(name) extern const lb_quantizer lb_quantizer_##name;
LB_QUANTIZERS(LB_X)
#undef LB_X

/* A mixer decides m. Row of the table as above; one file in src/quant/mixers/. */
typedef struct lb_mixer {
    const char *name, *help, *paper;
    bool uses_code; /* `weights` looks at w->code; else it is NULL in backward */
    /* Weights: m per element into `m` (oc, fan_in), or returns true and sets *scalar if one number holds for all. */
    bool (*weights)(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m);
    /* Activations: one m for the whole tensor. NULL: refused for activations. */
    float (*activations)(const lb_quant_spec *spec, const lb_quant_when *when);
    /* The part that is quantized at this step (the expected one where that is drawn), for logs and checks; it never falls. */
    float (*share)(const lb_quant_spec *spec, const lb_quant_when *when);
    /* Why a resolved spec makes no sense, NULL if it does. The member NULL: everything does. */
    const char *(*refuse)(const lb_quant_spec *spec);
    bool remembers; /* it makes use of a memory */
    bool ste_free;  /* the default estimator is LB_EST_NONE */
    bool fades;     /* one m for all, rising slowly: without an estimator an optimizer that normalises gradients undoes (1 - m) */
    /* Activations: a 0 or 1 for each of the `count` elements of one image, the same for all images, in place of that one m; false
     * where one m does at this step. NULL: always. */
    bool (*mask)(const lb_quant_spec *spec, const lb_quant_when *when, int64_t count, uint8_t *mask);
} lb_mixer;
#define LB_MIXERS(X) \
    X(constant)      \
    X(alpha)         \
    X(roulette)      \
    X(stochastic)    \
    X(mask)
#define LB_X(name) extern const lb_mixer lb_mixer_##name;
LB_MIXERS(LB_X)
#undef LB_X

const lb_quantizer *const *lb_quantizer_list(size_t *count);
const lb_quantizer *lb_quantizer_find(const char *name);   /* NULL if unknown */
lb_estimator lb_quantizer_estimator(const lb_quantizer *quantizer, lb_target target); /* its default */
const lb_mixer *const *lb_mixer_list(size_t *count);
const lb_mixer *lb_mixer_find(const char *name);

/* A quantizer attached to one tensor of a network. Owned by the net's pool. */
typedef struct lb_quant {
    lb_quant_spec spec;
    lb_grid grid;       /* of the bits at evaluation: with learned bit-lengths lb_quant_update_grid sets it */
    int param;          /* index of its first learned parameter in net->params (others follow), -1: none */
    bool initialised;   /* learned parameters hold values (saved in checkpoints) */
} lb_quant;

/* Parameters of a spec per tensor or filter: 0, or quantizer->nparams and the gates of learned bit-lengths. Each is (1), or (oc)
 * for weights per filter. */
int lb_quant_nparams(const lb_quant_spec *spec);

/* Name of parameter i of those: quantizer->param_names, then "gate3" .. */
const char *lb_quant_param_name(const lb_quant_spec *spec, int i);

/* Sets the grid to the bits that the gates in `param` say; nothing where bit-lengths are fixed. */
void lb_quant_update_grid(lb_quant *q, const float *param);

/* Fills defaults (estimator, surrogate, granularity, mixer, threshold; grid) and refuses what makes no sense, with a reason: bits
 * the quantizer cannot do, a quantizer for weights on activations, `own` where there is none. `what` names the tensor in the
 * message. */
lb_status lb_quant_resolve(lb_ctx *ctx, const char *what, lb_quant_spec *spec, lb_grid *grid);

/* Whether m is 1 everywhere from a stage's first step on; shares only grow. */
bool lb_quant_is_always_whole(const lb_quant_spec *spec);

/* The equation, forward, for weights: uhat = u~ / step (oc, fan_in) and step (oc). `work` is (oc, fan_in), for the mixer.
 * With m = 1 uhat holds whole numbers. when->evaluation forces m = 1. */
void lb_quant_weights_forward(const lb_quant *q, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                              float *uhat, float *work);

/* The equation, backward: w->step is forward's, diff is dL/du~ (oc, fan_in); adds to diff_u and diff_param (may be NULL).
 * Recomputes codes into `work` (2 * oc * fan_in floats). Same `when` as forward, so that m is the same. */
void lb_quant_weights_backward(const lb_quant *q, const lb_quant_when *when, const float *param, const lb_weights *w,
                               const float *diff, float *diff_u, float *diff_param, float *work);

/* The elementwise form of an activation quantizer at a step, m and surrogate included. */
void lb_quant_act_form(const lb_quant *q, const lb_quant_when *when, const float *param, lb_act_form *form);

/* Fills the mask (count: the elements of one image, NHWC) and returns true where the mixer has one at this step; an element then
 * follows the form with m = mask[element]. Never at evaluation. */
bool lb_quant_act_mask(const lb_quant *q, const lb_quant_when *when, int64_t count, uint8_t *mask);

/* Plain reference of the form on one value (the fused kernels are tested against these). Where the form draws, forward takes the
 * nearest code and backward element 0. */
float lb_act_forward_ref(const lb_act_form *form, float z);                   /* z~ / step */
float lb_act_backward_ref(const lb_act_form *form, float z, float diff, float *diff_param); /* diff is dL/dz~; adds d param */

#endif

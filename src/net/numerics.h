/* Which numbers a network computes with at evaluation: the rules that trainer evaluation and lowering both follow, so that what is
 * evaluated is what is packed.
 *
 *   INT    whole numbers with a real step: activation codes, sums of codes (pooling), convolution accumulators (step per channel)
 *   FIXED  int32, 16 fractional bits (runtime/fixed.h)
 *   F32    float
 *
 * By operator, from the kinds of its sources:
 *   input      F32: pixel * a[c] + b[c], a = 1 / (255 std), b = -mean / std, two roundings in f32. If its only consumer is a
 *              quantized activation node (other than sign), that node reads pixels directly: code = clamp(apply(requant[c], pixel),
 *              lo, hi), INT.
 *   conv, linear   source INT with one step and quantized weights, unless some weights of that grid could make accumulators leave
 *              int32: INT accumulator, step[c] = source step * weight step[c]; a bias makes it FIXED: affine with a = step[c], b =
 *              bias. Otherwise F32: INT and FIXED sources become float first (value * step, one f32 multiplication by the f32
 *              step), products summed in the order kh, kw, ic, a multiplication and an addition rounded each. Quantized weights are
 *              used as their whole-number codes there, and their step is applied after as an affine v * step[oc] + bias, which a
 *              following batch norm is folded into (one affine, computed in double, rounded to f32).
 *   batchnorm  INT or FIXED: FIXED, by one requant per channel. F32: v * A[c] + B[c], two roundings, A and B computed in double.
 *   add        any F32 source: F32 (others: value * step). Else FIXED: saturating sum; an INT source is first brought to FIXED by
 *              one requant.
 *   act        without quantizer: FIXED or F32, clamp. An INT source becomes FIXED first.
 *              with quantizer (which replaces the activation): FIXED -> INT by requant and clamp, sign by v >= 0; F32 -> INT by
 *              clamp(rint(v * (float)(1 / step))). An INT source becomes FIXED first. The result has lo, hi of the grid and one
 *              step.
 *   maxpool    keeps the kind (accumulators too: their steps are positive).
 *   avgpool    INT with one step: sums, step / (kh kw). Accumulators with many steps, and INT whose sums could leave int32: brought
 *              to FIXED first. FIXED: the exact sum, saturated, then requant by 1 / (kh kw). F32: sum, then * (float)(1 / (kh kw)).
 *              Where padding does not count INT is brought to FIXED as well, and a sum of n < kh kw pixels is first made one of kh
 *              kw: lbrt_whole_window; F32: sum * (kh kw / n), the quotient rounded to f32.
 *   shortcutpad    keeps the kind; channels without source are 0.
 *   concat     any F32 source: F32 (others: value * step). Else FIXED; an INT source is first brought to FIXED by one requant.
 *   mul        any F32 source: F32 (others: value * step). Else FIXED: lbrt_fixed_mul, INT sources being brought to FIXED first.
 *   func       sigmoid, tanh: FIXED, of a source in FIXED (INT by one requant, F32 by rint(v * 65536), saturated): lbrt_sigmoid;
 *              apply(func[1], lbrt_sigmoid(apply(func[0], x))), which are 2 x and 2 x - 1.
 *              The others keep F32, and bring INT to FIXED. With f[c](x) = apply(func[c], x) or, in F32, x * a[c] + b[c] with two
 *              roundings: hardsigmoid is clamp(f(x), 0, 1), a = alpha, b = beta; hardswish x * clamp(f(x), 0, 1), a = 1 / 6, b =
 *              1 / 2, a product as mul's; leaky f(min(x, 0)) + x, a = alpha[c] - 1, b = 0, a sum as add's.
 *   flatten, dropout  nothing; the flat view has one step only if the source had.
 *   output     scores are FIXED; INT by requant with its step, F32 by rint(v * 65536), saturated.
 *
 * A node fused into another (batch norm, add, act after a convolution) gives the same numbers as unfused: fusing is only about
 * speed, except that conv + (bias) + batchnorm is always one affine (one rounding). */
#ifndef LB_NUMERICS_H
#define LB_NUMERICS_H

#include "fixed.h"
#include "net/net.h"

/* (a, b) -> requant such that apply(r, x) = round half up(a * x + b), both in units of the destination (for a fixed-point
 * destination: times 65536). Picks the largest shift for which mul fits 24 bits (32 for a huge a) and add 61. False if a or b is
 * not finite or too large. */
bool lb_requant_from_real(double a, double b, lbrt_requant *requant);

/* ---- The rules applied to one network --------------------------------------------------------------------------- */

typedef enum lb_number { LB_NUM_INT, LB_NUM_FIXED, LB_NUM_F32 } lb_number;

/* Wide sums are int32: a convolution whose accumulators could leave this range for some weights of its grid computes in F32. */
#define LB_NUM_ACC_MAX ((int64_t)INT32_MAX - 1)

/* One node. Arrays of n or c elements are owned by the lb_numerics. */
typedef struct lb_numeric {
    bool live;           /* reaches the output; nothing else is filled in if not */
    int tensor;          /* node that makes this node's numbers: itself; flatten and dropout: what they show */
    /* of that tensor as stored: flatten does not change it, but a batch norm of a flat image is 1 x 1 x (h w c) */
    lb_shape shape;
    int nreaders;        /* live nodes that read the tensor, flatten and dropout looked through; the output counts as one */
    int reader;          /* the reader if it is a single node, else -1 */

    lb_number kind;      /* of the result */
    int nsteps;          /* INT: 1, or shape.c */
    double *step;        /* (nsteps) INT: real value = step * number */
    int32_t lo, hi;      /* INT: every number lies in here; FIXED: all of int32 */
    lbrt_requant *to_fixed; /* (nsteps) INT: how the number becomes FIXED where a reader wants that */

    /* conv, linear */
    bool integer;        /* whole-number source and weights, int32 accumulators; else float products */
    /* the batch norm that holds this convolution's affine, else -1. The node's own result is then its accumulators */
    int folded;
    float *code;         /* (oc, kh, kw, ic / groups) codes of quantized weights as whole floats; NULL: float weights */
    float *weight_step;  /* (oc) with code */
    int64_t acc_weight;  /* integer: largest sum of |code| over an output channel: |any partial sum| <= acc_weight * max |source| */

    /* The affine of batch norm, of conv with a bias, of conv with quantized weights in F32, of avgpool that divides: FIXED result
     * of integers through requant, F32 through scale and offset. NULL where there is none. (c) */
    lbrt_requant *requant;
    float *scale, *offset;
    int affine_channels; /* c: how many there are; those of element e of a stored image: e % c */

    /* func: (1), (c) or, for tanh, (2): see above. In F32 func_scale and func_offset instead */
    lbrt_requant *func;
    float *func_scale, *func_offset;
    int func_channels;

    /* act */
    bool quantized, sign;
    bool from_pixels;    /* code = clamp(apply(requant[c], pixel), qlo, qhi) */
    lbrt_requant q;      /* FIXED to code */
    float inv_step;      /* F32 to code */
    int32_t qlo, qhi;    /* of the codes; what the activation itself clips is already in it */
    int32_t clo, chi;    /* without quantizer: clamp of FIXED */
    float flo, fhi;      /* and of F32 */
} lb_numeric;

typedef struct lb_numerics {
    lb_pool pool;
    const lb_net *net;
    bool quantized_activations; /* some activation is quantized: float layers then sum in the order kh, kw, ic */
    bool pixels_direct;  /* the input node is not computed: a quantized activation reads the pixels */
    float scale[4], offset[4]; /* of the input node */
    lb_numeric *nodes;   /* (net->nnodes) */
} lb_numerics;

/* Applies the rules to a network as it is now: quantizes the weights and folds statistics and steps. The net is borrowed. Fails
 * with LB_ERR_UNSUPPORTED, naming the node, where a factor does not fit the integer arithmetic or a quantizer has no step yet. */
lb_status lb_numerics_create(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], lb_numerics **numerics);
void lb_numerics_destroy(lb_numerics *numerics);

/* The tensor that source i of a node reads. */
static inline const lb_numeric *lb_numeric_src(const lb_numerics *n, const lb_node *node, int i) {
    return &n->nodes[n->nodes[node->src[i]].tensor];
}

/* The step of channel c as the f32 factor that turns the number into a float: 2^-16 for FIXED, 1 for F32. */
static inline float lb_numeric_step(const lb_numeric *x, int c) {
    return x->kind == LB_NUM_F32 ? 1.0f : x->kind == LB_NUM_FIXED ? 0x1p-16f : (float)x->step[x->nsteps == 1 ? 0 : c];
}

#endif

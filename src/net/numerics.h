/* Which numbers a network computes with at evaluation: the rules that trainer evaluation and lowering both follow, so that what is
 * evaluated is what is packed.
 *
 *   INT    whole numbers with a real step: activation codes, sums of codes (pooling), convolution accumulators (step per channel)
 *   FIXED  int32, 16 fractional bits (runtime/fixed.h)
 *   F32    float
 *
 * By operator, from the kinds of its sources:
 *   input      F32: pixel * a[c] + b[c], a = 1 / (255 std), b = -mean / std, two roundings in f32. If its only consumer is a quantized
 *              activation node, that node reads pixels directly: code = clamp(apply(requant[c], pixel), lo, hi), INT.
 *   conv, linear   source INT with one step and quantized weights: INT accumulator, step[c] = source step * weight step[c]; a bias makes
 *              it FIXED: affine with a = step[c], b = bias. Otherwise F32: INT and FIXED sources become float first (value * step, one f32
 *              multiplication by the f32 step), products summed in the order kh, kw, ic, a multiplication and an addition rounded each.
 *              Quantized weights are used as their whole-number codes there, and their step is applied after as an affine
 *              v * step[oc] + bias, which a following batch norm is folded into (one affine, computed in double, rounded to f32).
 *   batchnorm  INT or FIXED: FIXED, by one requant per channel. F32: v * A[c] + B[c], two roundings, A and B computed in double.
 *   add        any F32 source: F32. Else FIXED: saturating sum; an INT source is first brought to FIXED by one requant.
 *   act        without quantizer: FIXED or F32, clamp. An INT source becomes FIXED first.
 *              with quantizer: FIXED -> INT by requant and clamp, sign by v >= 0; F32 -> INT by clamp(rint(v * (float)(1 / step))).
 *              An INT source becomes FIXED first. The result has lo, hi of the grid and one step.
 *   maxpool    keeps the kind (accumulators too: their steps are positive).
 *   avgpool    INT with one step: sums, step / (kh kw). Accumulators and FIXED: brought to FIXED, summed, then requant by 1 / (kh kw). F32: sum,
 *              then * (float)(1 / (kh kw)).
 *   flatten, dropout  nothing; the flat view has one step only if the source had.
 *   output     scores are FIXED; INT by requant with its step, F32 by rint(v * 65536), saturated.
 *
 * A node fused into another (batch norm, add, act after a convolution) gives the same numbers as unfused: fusing is only about speed,
 * except that conv + (bias) + batchnorm is always one affine (one rounding). */
#ifndef LB_NUMERICS_H
#define LB_NUMERICS_H

#include "fixed.h"
#include "net/net.h"

/* (a, b) -> requant such that apply(r, x) = round half up(a * x + b), both in units of the destination (for a fixed-point
 * destination: times 65536). Picks the largest shift for which mul and add fit. False if a or b is not finite or too large. */
bool lb_requant_from_real(double a, double b, lbrt_requant *requant);

#endif

/* What cpq and rq share: rounding made smooth by logistic noise (RQ: Louizos et al. 2019, arXiv 1810.01875; CPQ: arXiv 2109.02100).
 * Internal to src/quant.
 *
 * A value x with logistic noise of scale sigma falls into the bin of code k, of width alpha (the step), with probability
 *     pi_k = (S(b_k) - S(a_k)) / D,  a_k = ((k - 1/2) alpha - x) / sigma,  b_k = a_k + alpha / sigma,  S(y) = 1 / (1 + e^-y)
 * where D makes the sum over the codes in play 1. In units of alpha this depends on v = x / alpha and ratio = sigma / alpha only.
 * Differences of sigmoids are taken as S(b) - S(a) = S(b) S(-a) (1 - e^(a-b)): accurate however far out x is, so the papers' small
 * constant in numerator and denominator is not needed. v stops 12 sigmas outside the grid. */
#ifndef LB_LOGISTIC_H
#define LB_LOGISTIC_H

#include "quant/gates.h"
#include "quant/helpers.h"

enum { LB_SOFT_BLOCK = LB_ACT_BLOCK, LB_SOFT_MAX_CODES = 256 };

/* cpq: constants of the expected code for one grid and ratio (logistic.c). */
enum { LB_MAX_PAIRS = 128 };
typedef struct lb_pairs {
    int count; /* even: a pair without weight makes it so */
    float alpha[LB_MAX_PAIRS], weight[LB_MAX_PAIRS];      /* alpha, B */
    float weight_r[LB_MAX_PAIRS], alpha_r[LB_MAX_PAIRS];  /* B', B alpha' */
} lb_pairs;

/* One group at one step. */
typedef struct lb_logistic {
    float step, ratio;
    float lo, hi;   /* codes in play: DropBits takes the outer ones away */
    int codes;      /* of these the `codes` nearest are looked at, the local grid */
    const lb_pairs *pairs; /* borrowed; lb_soft_mean only */
} lb_logistic;

/* Fills what quant.h says, of step * f with the soft code f(v, ratio): slope = df / dv, by_sigma = ratio df / d ratio, by_step =
 * f - v slope - by_sigma. Elements u[0 .. n), n <= LB_SOFT_BLOCK, of which the first is element `first` of the tensor. */
typedef void (*lb_soft_fn)(const lb_quant_spec *spec, const lb_quant_when *when, const lb_logistic *l, const float *u,
                           int64_t first, int n, lb_soft *soft);

/* Bits of this step: `bits`, or fewer where DropBits dropped the outer levels (arXiv 2109.02100). Level k is what the
 * k-bit grid has more than the (k-1)-bit one; masks are nested, so the lowest level dropped decides. Nothing at evaluation. */
int lb_dropbits(const lb_quant_spec *spec, const lb_quant_when *when, int bits);

/* Group g of `groups` (one, where there are gates), whose parameters are the logarithms param[g] of alpha and param[groups + g] of
 * sigma. Codes farther than `reach` <= 14 sigmas are left out. */
lb_logistic lb_logistic_of(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, int groups, int g,
                           float reach);

/* f = sum of pi_k k, by the constants that the first function fills. */
void lb_logistic_pairs(const lb_logistic *l, lb_pairs *pairs);
void lb_soft_mean(const lb_logistic *l, const float *u, int n, lb_soft *soft);

/* The same as cubics; `own` is left to the caller. */
void lb_logistic_curve(const lb_logistic *l, lb_curve *curve);

/* f = sum of z_k k, z = softmax((log pi + nu) / temperature), Gumbel noise nu = -log race, race[k * LB_SOFT_BLOCK + i]
 * exponentially distributed: z is proportional to (pi / race)^(1 / temperature). */
void lb_soft_relaxed(const lb_logistic *l, const float *u, int n, const float *race, float temperature, lb_soft *soft);

/* f = pi_c c at the fixed code c nearest to u, and c in place of f in by_step: CPQ's multi-class straight-through estimator. */
void lb_soft_mode(const lb_logistic *l, const float *u, int n, lb_soft *soft);

/* The same of the probabilities that gates leave: f, code = argmax of them, and by_level[k] = df / dZbar_k. */
void lb_soft_gated(const lb_logistic *l, const lb_gates *gates, const float *u, int n, lb_soft *soft, float *code,
                   float by_level[LB_GATE_LEVELS][LB_SOFT_BLOCK]);

/* The gates of a step whose bit-lengths are learned; false: none, or all open, so that the plain functions do. */
bool lb_logistic_gates(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_gates *gates);

/* race = -log U of elements first .. first + n: each its own. */
void lb_logistic_race(const lb_quant_when *when, const lb_logistic *l, int64_t first, int n, float *race);

/* The same for the many elements of activations, from LB_QUANT_NOISE draws that a tensor has in a step: LB_SOFT_BLOCK elements in a
 * row take as many of them, for each code from a place of its own that is drawn at random. Every element has the right
 * distribution; a draw serves elements far apart more than once. */
void lb_logistic_noise(const lb_quant_when *when, float noise[LB_QUANT_NOISE]);
void lb_logistic_take(const lb_quant_when *when, const lb_logistic *l, const float noise[LB_QUANT_NOISE], int64_t first, int n,
                      float *race);

/* code = argmax of log pi + nu. */
void lb_soft_sample(const lb_logistic *l, const float *u, int n, const float *race, float *code);

/* Activations, for the rows: step, codes in play and pass range; soft and draw are left to the row. The last answers what a form's
 * `soft` is asked: each element's slope is the spec's estimator's where that is not own. */
void lb_logistic_form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, float reach, lb_act_form *form);
lb_logistic lb_logistic_of_form(const lb_act_form *form);
void lb_logistic_slopes(const lb_act_form *form, const float *z, int64_t first, int n, lb_soft_fn fn, lb_soft *soft);

/* For the rows: log_step by least squares, log_sigma a third of it; and backward, own through `soft`. */
void lb_logistic_init(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param);
void lb_logistic_backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                          const float *diff, float *diff_u, float *diff_param, float reach, lb_soft_fn soft);

#endif

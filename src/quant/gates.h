/* Learned bit-lengths: a gate on each level of a tensor's grid, drawn while it is learned (DropBits: arXiv 2109.02100; the hard
 * concrete distribution of a gate, and its expected L0 norm: Louizos et al. 2018, arXiv 1712.01312). Internal to src/quant.
 *
 * Level k is what the k-bit grid has more than the (k-1)-bit one; levels 1 and 2 have no gate. With a = logit of level k,
 *     Z_k = clip(1.2 S((log U - log(1-U) + a) / tau) - 0.1, 0, 1),  tau = 2/3
 *     Zbar_k = Z_3 Z_4 .. Z_k: a dropped level drops all above
 *     evaluation: level k is there if 1.2 S(a) - 0.1 > 0 for it and all below
 * and code n has probability pi_n Zbar_level(n), normalised. Parameters are a - log 9: 0, the start, keeps a level with 0.9. */
#ifndef LB_GATES_H
#define LB_GATES_H

#include "quant/quant.h"

enum { LB_GATE_FIRST = 3, LB_GATE_LEVELS = 9 /* index 0 is not used */ };

typedef struct lb_gates {
    int bits;                    /* the highest level with Zbar > 0 */
    bool open;                   /* every Z is 1: the plain grid */
    float z[LB_GATE_LEVELS];     /* Z_k; 1 for levels without a gate */
    float slope[LB_GATE_LEVELS]; /* dZ_k / da */
    float zbar[LB_GATE_LEVELS];
} lb_gates;

static inline bool lb_has_gates(const lb_quant_spec *spec) {
    return spec->target == LB_WEIGHTS && spec->options.bit_lengths != LB_BITS_FIXED && spec->bits >= LB_GATE_FIRST;
}

/* The gates of one step. gate: the parameters (bits - 2). */
void lb_gates_draw(const lb_quant_spec *spec, const lb_quant_when *when, const float *gate, lb_gates *gates);

/* Adds what dL/dZbar_k (by level) is for the parameters. */
void lb_gates_backward(const lb_quant_spec *spec, const lb_gates *gates, const double diff[LB_GATE_LEVELS], float *diff_gate);

/* Bits at evaluation. */
int lb_gates_bits(const lb_quant_spec *spec, const float *gate);

/* Adds the gradient of bits_penalty * sum of P(Z_k > 0), P = S(a - tau log(0.1 / 1.1)). */
void lb_gates_penalty(const lb_quant_spec *spec, const float *gate, float *diff_gate);

#endif

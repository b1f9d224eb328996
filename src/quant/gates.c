/* Gates of learned bit-lengths (gates.h). */
#include "quant/gates.h"

#include <math.h>

static const double start = 2.1972245773362196; /* log 9: kept with probability 0.9 */
static const double tau = 2.0 / 3.0, stretch = 1.2, below = 0.1;

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

void lb_gates_draw(const lb_quant_spec *spec, const lb_quant_when *when, const float *gate, lb_gates *gates) {
    uint32_t draw[8];
    lb_rng4(when->seed, LB_RNG_DROPBITS, when->step, 0, draw);
    lb_rng4(when->seed, LB_RNG_DROPBITS, when->step, 1, draw + 4);
    *gates = (lb_gates){.bits = spec->bits, .open = true};
    for (int k = 1; k < LB_GATE_LEVELS; k++)
        gates->z[k] = 1.f;
    for (int k = LB_GATE_FIRST; k <= spec->bits; k++) {
        const double u = ((double)draw[k - LB_GATE_FIRST] + 0.5) * 0x1p-32, a = start + (double)gate[k - LB_GATE_FIRST];
        const double s = sigmoid((log(u) - log1p(-u) + a) / tau), z = stretch * s - below;
        gates->z[k] = z > 0 ? z < 1 ? (float)z : 1.f : 0.f;
        gates->slope[k] = z > 0 && z < 1 ? (float)(stretch * s * (1 - s) / tau) : 0.f;
        gates->open &= gates->z[k] == 1.f;
    }
    float product = 1.f;
    for (int k = 1; k <= spec->bits; k++) {
        gates->zbar[k] = product *= gates->z[k];
        if (product == 0.f && gates->bits >= k)
            gates->bits = k - 1;
    }
}

/* dZbar_k / dZ_j is the product of the others up to k. */
void lb_gates_backward(const lb_quant_spec *spec, const lb_gates *gates, const double diff[LB_GATE_LEVELS], float *diff_gate) {
    for (int j = LB_GATE_FIRST; j <= spec->bits; j++) {
        double sum = 0, others = 1;
        for (int k = LB_GATE_FIRST; k <= spec->bits; k++) {
            others *= k == j ? 1 : (double)gates->z[k];
            sum += k >= j ? diff[k] * others : 0;
        }
        diff_gate[j - LB_GATE_FIRST] += (float)(sum * (double)gates->slope[j]);
    }
}

int lb_gates_bits(const lb_quant_spec *spec, const float *gate) {
    int bits = LB_GATE_FIRST - 1;
    while (bits < spec->bits && stretch * sigmoid(start + (double)gate[bits + 1 - LB_GATE_FIRST]) - below > 0)
        bits++;
    return bits;
}

void lb_gates_penalty(const lb_quant_spec *spec, const float *gate, float *diff_gate) {
    for (int k = 0; k + LB_GATE_FIRST <= spec->bits; k++) {
        const double kept = sigmoid(start + (double)gate[k] - tau * log(below / (stretch - below)));
        diff_gate[k] += (float)((double)spec->options.bits_penalty * kept * (1 - kept));
    }
}

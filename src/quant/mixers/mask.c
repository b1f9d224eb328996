/* mask: StoMPP. Every entry of a tensor is either its surrogate or quantized ("frozen"), and layer after layer, ever more of them
 * are frozen. Smith and Islam 2026, arXiv 2601.22660 and (with a gradient through the frozen part) 2606.27759.
 *
 * A layer's turn is a window of S steps; the share frozen at its step t is p = ramp(t / S). An entry keeps its bit until it is
 * refreshed, which happens once in each block of r steps, at a random step of the block, and draws 1[uniform < p] then. So a mask
 * is a function of seed, entry and step: nothing has to be saved, and forward, backward and a resumed run agree. */
#include <math.h>

#include "quant/quant.h"

/* Steps since this layer's turn began (negative: not yet) and how many it has. */
static int64_t turn_of(const lb_quant_spec *spec, const lb_quant_when *when, int64_t *length) {
    const bool global = spec->mix_order == LB_MIX_GLOBAL;
    const int layers = global ? 1 : LB_MAX(spec->layers, 1), layer = global ? 0 : LB_MIN(spec->layer, layers - 1);
    const int turn = spec->mix_order == LB_MIX_REVERSE ? layers - 1 - layer : layer;
    const double each = (double)when->stage_steps * (1 - (double)spec->mix_settle) / layers;
    const int64_t first = llround(each * turn);
    *length = llround(each * (turn + 1)) - first;
    return when->stage_step - first;
}

static double ramp(lb_mix_ramp kind, double x) {
    switch (kind) {
    case LB_RAMP_LINEAR:
        return x;
    case LB_RAMP_QUADRATIC:
        return x * x;
    case LB_RAMP_COSINE:
        return 0.5 - 0.5 * cos(3.14159265358979324 * x);
    case LB_RAMP_FLIPPED:
        return 1 - (1 - x) * (1 - x);
    default:
        return x * x * x;
    }
}

/* One random word is one entry in one block: its low half the step of the block at which it is refreshed, its high half the
 * uniform number that is compared with p then. An entry whose step is still to come has its bit from the block before. */
static void draw(const lb_quant_spec *spec, const lb_quant_when *when, int64_t t, int64_t length, int64_t count, float *mask) {
    const int64_t refresh = spec->mix_refresh, block = t / refresh, now = t % refresh;
    const uint64_t stream = when->step - (uint64_t)when->stage_step + (uint64_t)block + 1; /* other bits in other stages */
    uint32_t share[2 * LB_MAX_REFRESH]; /* p * 2^16 at the steps of the block before and of this one */
    for (int64_t k = 0; k < 2 * refresh; k++) {
        const int64_t at = (block - 1) * refresh + k;
        share[k] = at < 0 ? 0 : (uint32_t)(ramp(spec->mix_ramp, LB_MIN(1.0, (double)at / (double)length)) * 0x1p16);
    }
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t present[4], before[4] = {0};
        int64_t at[4];
        bool all = true;
        lb_rng4(when->seed, LB_RNG_MIXER, stream, (uint64_t)i / 4, present);
        for (int k = 0; k < 4; k++) {
            at[k] = (present[k] & 0xffff) * refresh >> 16;
            all &= at[k] <= now;
        }
        if (!all)
            lb_rng4(when->seed, LB_RNG_MIXER, stream - 1, (uint64_t)i / 4, before);
        for (int k = 0; k < LB_MIN(4, (int)(count - i)); k++) { /* no branches: which block decides is random */
            const bool here = present[k] >> 16 < share[refresh + at[k]];
            const bool there = before[k] >> 16 < share[(before[k] & 0xffff) * refresh >> 16];
            mask[i + k] = (float)(((at[k] <= now) & here) | ((at[k] > now) & there));
        }
    }
}

static bool mask(const lb_quant_spec *spec, const lb_quant_when *when, int64_t count, float *mask) {
    int64_t length, t = turn_of(spec, when, &length);
    if (t < 0 || t >= length)
        return false;
    draw(spec, when, t, length, count, mask);
    return true;
}

static float activations(const lb_quant_spec *spec, const lb_quant_when *when) {
    int64_t length;
    return turn_of(spec, when, &length) < 0 ? 0.f : 1.f;
}

static bool weights(const lb_quant_spec *spec, const lb_quant_when *when, const float *u, const float *step, const float *code,
                    int oc, int64_t fan_in, float *scalar, float *m) {
    (void)u, (void)step, (void)code;
    *scalar = activations(spec, when);
    return !mask(spec, when, oc * fan_in, m);
}

static float share(const lb_quant_spec *spec, const lb_quant_when *when) {
    int64_t length, t = turn_of(spec, when, &length);
    return t < 0 ? 0.f : t >= length ? 1.f : (float)ramp(spec->mix_ramp, (double)t / (double)length);
}

const lb_mixer lb_mixer_mask = {
    .name = "mask",
    .help = "StoMPP: entries freeze at random, ever more of them, layer after layer",
    .paper = "Smith and Islam 2026, arXiv 2601.22660",
    .ste_free = true,
    .weights = weights,
    .activations = activations,
    .mask = mask,
    .share = share,
};

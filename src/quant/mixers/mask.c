/* mask: StoMPP. Every entry of a tensor is either its surrogate or quantized ("frozen"), and layer after layer, ever more of them
 * are frozen. Smith and Islam 2026, arXiv 2601.22660 and (with a gradient through the frozen part) 2606.27759.
 *
 * A layer's turn is a window of S steps; the share frozen at its step t is p = ramp(t / S). An entry keeps its bit until it is
 * refreshed, which happens once in each block of r steps, at a random step of the block, and draws 1[uniform < p] then. So a mask
 * is a function of seed, entry and step: nothing has to be saved, and forward, backward and a resumed run agree. */
#include <math.h>
#include <string.h>

#include "quant/quant.h"

/* Steps since this layer's turn began (negative: not yet) and how many it has. */
static int64_t turn_of(const lb_quant_spec *spec, const lb_quant_when *when, int64_t *length) {
    const bool global = spec->options.mix_order == LB_MIX_GLOBAL;
    const int layers = global ? 1 : LB_MAX(spec->layers, 1), layer = global ? 0 : LB_MIN(spec->layer, layers - 1);
    const int turn = spec->options.mix_order == LB_MIX_REVERSE ? layers - 1 - layer : layer;
    const double each = (double)when->stage_steps * (1 - (double)spec->options.mix_settle) / layers;
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

/* What the bits of a step depend on. */
typedef struct layer_turn {
    uint64_t seed, stream;
    uint32_t refresh, now;               /* steps of a block, the one of them that this is */
    uint32_t share[2 * LB_MAX_REFRESH]; /* p * 2^16 at the steps of the block before and of this one */
} layer_turn;

/* False outside the layer's turn, where one m holds for all entries. */
static bool take_turn(const lb_quant_spec *spec, const lb_quant_when *when, layer_turn *turn) {
    int64_t length, t = turn_of(spec, when, &length);
    if (t < 0 || t >= length)
        return false;
    const int64_t refresh = spec->options.mix_refresh, block = t / refresh;
    turn->seed = when->seed;
    turn->stream = when->step - (uint64_t)when->stage_step + (uint64_t)block + 1; /* other bits in other stages */
    turn->refresh = (uint32_t)refresh;
    turn->now = (uint32_t)(t % refresh);
    for (int64_t k = 0; k < 2 * refresh; k++) {
        const int64_t at = (block - 1) * refresh + k;
        turn->share[k] = at < 0 ? 0 : (uint32_t)(ramp(spec->options.mix_ramp, LB_MIN(1.0, (double)at / (double)length)) * 0x1p16);
    }
    return true;
}

enum { MANY = 1024 }; /* entries drawn at once */

/* Entries first .. first + MANY. One random word is one entry in one block: its low half the step of the block at which it is
 * refreshed, its high half the uniform number that is compared with p then. An entry whose step is still to come has its bit from
 * the block before. No branches: which block decides is random. Only the table is left to a loop that does not vectorise. */
LB_CLONES static void draw(const layer_turn *turn, int64_t first, uint8_t bit[MANY]) {
    enum { N = MANY / 4 };
    const uint32_t refresh = turn->refresh, now = turn->now;
    uint32_t draws[MANY], before[MANY] = {0}, step[MANY];
    lb_rng4_many(turn->seed, LB_RNG_MIXER, turn->stream, (uint64_t)first / 4, 1, N, draws);
    if (now + 1 < refresh)
        lb_rng4_many(turn->seed, LB_RNG_MIXER, turn->stream - 1, (uint64_t)first / 4, 1, N, before);
    for (int i = 0; i < MANY; i++) {
        const uint32_t a = draws[i], b = before[i], at = (a & 0xffff) * refresh >> 16, earlier = (b & 0xffff) * refresh >> 16;
        step[i] = at <= now ? refresh + at : earlier;
        draws[i] = (at <= now ? a : b) >> 16;
    }
    for (int i = 0; i < N; i++)
        for (int word = 0; word < 4; word++)
            bit[4 * i + word] = draws[word * N + i] < turn->share[step[word * N + i]];
}

static bool mask(const lb_quant_spec *spec, const lb_quant_when *when, int64_t count, uint8_t *mask) {
    layer_turn turn;
    if (!take_turn(spec, when, &turn))
        return false;
    for (int64_t first = 0; first < count; first += MANY) {
        uint8_t bit[MANY];
        draw(&turn, first, bit);
        memcpy(mask + first, bit, (size_t)LB_MIN(MANY, count - first));
    }
    return true;
}

static float activations(const lb_quant_spec *spec, const lb_quant_when *when) {
    int64_t length;
    return turn_of(spec, when, &length) < 0 ? 0.f : 1.f;
}

static bool weights(const lb_quant_spec *spec, const lb_quant_when *when, const float *u, const float *step, const float *code,
                    int oc, int64_t fan_in, float *scalar, float *m) {
    (void)u, (void)step, (void)code;
    layer_turn turn;
    *scalar = activations(spec, when);
    if (!take_turn(spec, when, &turn))
        return true;
    for (int64_t first = 0, count = oc * fan_in; first < count; first += MANY) {
        uint8_t bit[MANY];
        draw(&turn, first, bit);
        for (int64_t i = 0; i < LB_MIN(MANY, count - first); i++)
            m[first + i] = bit[i];
    }
    return false;
}

static float share(const lb_quant_spec *spec, const lb_quant_when *when) {
    int64_t length, t = turn_of(spec, when, &length);
    return t < 0 ? 0.f : t >= length ? 1.f : (float)ramp(spec->options.mix_ramp, (double)t / (double)length);
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

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

/* What the bits of a block depend on, and which of its steps this is. */
typedef struct layer_turn {
    uint64_t seed, stream;
    int64_t block, length;
    uint32_t refresh, now;
    lb_mix_ramp ramp;
} layer_turn;

/* False outside the layer's turn, where one m holds for all entries. */
static bool take_turn(const lb_quant_spec *spec, const lb_quant_when *when, layer_turn *turn) {
    int64_t length, t = turn_of(spec, when, &length);
    if (t < 0 || t >= length)
        return false;
    const int64_t refresh = spec->options.mix_refresh, block = t / refresh;
    *turn = (layer_turn){.seed = when->seed,
                         .stream = when->step - (uint64_t)when->stage_step + (uint64_t)block + 1, /* other bits in other stages */
                         .block = block,
                         .length = length,
                         .refresh = (uint32_t)refresh,
                         .now = (uint32_t)(t % refresh),
                         .ramp = spec->options.mix_ramp};
    return true;
}

/* share[2 * refresh]: p * 2^16 at the steps of the block before and of this one. */
static void find_shares(const layer_turn *turn, uint32_t *share) {
    const int64_t refresh = turn->refresh;
    for (int64_t k = 0; k < 2 * refresh; k++) {
        const int64_t at = (turn->block - 1) * refresh + k;
        share[k] = at < 0 ? 0 : (uint32_t)(ramp(turn->ramp, LB_MIN(1.0, (double)at / (double)turn->length)) * 0x1p16);
    }
}

enum { MANY = 1024, STEP_BITS = 14 }; /* entries drawn at once; LB_MAX_REFRESH is less than 2^STEP_BITS */

/* What entries first .. first + MANY do in a block: the step of the block at which each is refreshed, above it the bit that it has
 * until then and above that the one that it has afterwards. One random word is one entry in one block: its low half the step, its
 * high half the uniform number that is compared with p then. Only the table is left to a loop that does not vectorise. */
LB_CLONES static void draw(const layer_turn *turn, const uint32_t *share, int64_t first, uint16_t entry[MANY]) {
    enum { N = MANY / 4 };
    const uint32_t refresh = turn->refresh;
    uint32_t now[MANY], before[MANY], step[MANY], earlier[MANY];
    lb_rng4_many(turn->seed, LB_RNG_MIXER, turn->stream, (uint64_t)first / 4, 1, N, now);
    lb_rng4_many(turn->seed, LB_RNG_MIXER, turn->stream - 1, (uint64_t)first / 4, 1, N, before);
    for (int i = 0; i < MANY; i++) {
        step[i] = (now[i] & 0xffff) * refresh >> 16;
        earlier[i] = (before[i] & 0xffff) * refresh >> 16;
    }
    for (int i = 0; i < N; i++)
        for (int word = 0; word < 4; word++) {
            const int k = word * N + i;
            const uint32_t old = before[k] >> 16 < share[earlier[k]], bit = now[k] >> 16 < share[refresh + step[k]];
            entry[4 * i + word] = (uint16_t)(step[k] | old << STEP_BITS | bit << (STEP_BITS + 1));
        }
}

/* The bits of a step; without branches, because which of an entry's two it is is random. */
LB_CLONES static void bits_at(const uint16_t *entry, int count, uint16_t now, uint8_t *bit) {
    const uint16_t step = (1 << STEP_BITS) - 1;
    for (int i = 0; i < count; i++)
        bit[i] = (uint8_t)((entry[i] & step) <= now ? entry[i] >> (STEP_BITS + 1) : entry[i] >> STEP_BITS & 1);
}

static const uint16_t *remembered(const layer_turn *turn, lb_quant_memory *memory, int64_t count) {
    const uint64_t key[] = {turn->seed,    turn->stream,        (uint64_t)turn->block, (uint64_t)turn->length,
                            turn->refresh, (uint64_t)turn->ramp};
    uint32_t share[2 * LB_MAX_REFRESH];
    uint16_t entry[MANY];
    if (memory->holds && !memcmp(memory->key, key, sizeof key))
        return memory->entry;
    find_shares(turn, share);
    for (int64_t first = 0; first < count; first += MANY) {
        draw(turn, share, first, entry);
        memcpy(memory->entry + first, entry, (size_t)LB_MIN(MANY, count - first) * sizeof *entry);
    }
    memcpy(memory->key, key, sizeof key);
    memory->holds = true;
    return memory->entry;
}

/* Calls `put` for parts of the tensor one after the other. */
typedef void put_bits(const uint8_t *bit, int count, int64_t first, void *dst);
static void each_part(const layer_turn *turn, lb_quant_memory *memory, int64_t count, put_bits *put, void *dst) {
    uint32_t share[2 * LB_MAX_REFRESH];
    const uint16_t *entries = memory && memory->entry ? remembered(turn, memory, count) : NULL;
    if (!entries)
        find_shares(turn, share);
    for (int64_t first = 0; first < count; first += MANY) {
        const int n = (int)LB_MIN(MANY, count - first);
        uint16_t entry[MANY];
        uint8_t bit[MANY];
        if (!entries)
            draw(turn, share, first, entry);
        bits_at(entries ? entries + first : entry, n, (uint16_t)turn->now, bit);
        put(bit, n, first, dst);
    }
}

static void put_bytes(const uint8_t *bit, int count, int64_t first, void *dst) {
    memcpy((uint8_t *)dst + first, bit, (size_t)count);
}

LB_CLONES static void put_floats(const uint8_t *bit, int count, int64_t first, void *dst) {
    float *m = (float *)dst + first;
    for (int i = 0; i < count; i++)
        m[i] = bit[i];
}

static bool mask(const lb_quant_spec *spec, const lb_quant_when *when, int64_t count, uint8_t *mask) {
    layer_turn turn;
    if (!take_turn(spec, when, &turn))
        return false;
    each_part(&turn, when->memory, count, put_bytes, mask);
    return true;
}

static float activations(const lb_quant_spec *spec, const lb_quant_when *when) {
    int64_t length;
    return turn_of(spec, when, &length) < 0 ? 0.f : 1.f;
}

static bool weights(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    layer_turn turn;
    *scalar = activations(spec, when);
    if (!take_turn(spec, when, &turn))
        return true;
    each_part(&turn, when->memory, w->oc * w->fan_in, put_floats, m);
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
    .remembers = true,
    .ste_free = true,
    .weights = weights,
    .activations = activations,
    .mask = mask,
    .share = share,
};

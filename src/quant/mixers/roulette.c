/* roulette: SQ, stochastic quantization (Dong et al., BMVC 2017, arXiv 1708.01001). At every step m = 1 for some of a layer's
 * filters (or elements), 0 for the others; those that quantization changes least are the likeliest to be quantized.
 *
 *     e_i = |u_i - Q(u)_i|_1 / |u_i|_1  (0 where u_i is 0)                                error of filter i
 *     paper: the quantized ones are drawn with probability p(f), f = 1 / (e + 1e-7); p: 1, f, exp f, 1 / (1 + exp -f)
 *     code:  the real ones are drawn with probability p(f), f = e + 1e-7               (the authors' release, which has p = f only)
 *
 * Drawn one after the other without replacement. That is exactly the count largest of log p + Gumbel noise (Yellott 1977;
 * Efraimidis and Spirakis 2006), in which p need not be normalised: O(n). Real are floor((1 - r) n), as in the release,
 * always exactly so many.
 *
 * Partitions: stochastic draws at each step; deterministic quantizes those of least e; fixed draws one partition for the stage,
 * evenly, since the weights at its start, on which p depends, are gone later. */
#include <float.h>
#include <math.h>

#include "quant/quant.h"

/* r. exp and average run through their stages' ratios within this one. */
static float ratio(const lb_quant_spec *spec, const lb_quant_when *when) {
    const double done = when->stage_steps > 0 ? (double)when->stage_step / (double)when->stage_steps : 1;
    switch (spec->options.mix_schedule) {
    case LB_RATIO_CONSTANT:
        return spec->options.mix_ratio;
    case LB_RATIO_EXP: /* 0.5 0.75 0.875 1 */
        return done < 0.75 ? 1.f - (done < 0.25 ? 0.5f : done < 0.5 ? 0.25f : 0.125f) : 1.f;
    case LB_RATIO_AVERAGE: /* 0.2 0.4 0.6 0.8 1 */
        return done < 0.8 ? 0.2f * (float)(1 + (int)(5 * done)) : 1.f;
    default:
        return 1.f;
    }
}

/* Relative error of n weights; finite. */
static float error(const float *u, float step, const float *code, int64_t n) {
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += fabs((double)u[i] - (double)step * (double)code[i]);
        size += fabs((double)u[i]);
    }
    const double e = size == 0 ? 0 : diff / size;
    return e < 1e7 ? (float)e : 1e7f; /* NaN: as bad as can be */
}

static float log_probability(lb_mix_probability probability, float f) {
    switch (probability) {
    case LB_PROB_LINEAR:
        return logf(f);
    case LB_PROB_SOFTMAX:
        return f;
    case LB_PROB_SIGMOID:
        return -log1pf(expf(-f));
    default:
        return 0.f;
    }
}

/* Adds -log E, E exponentially distributed: Gumbel noise. */
static void add_noise(uint64_t seed, uint64_t step, float *key, int64_t n) {
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t bits[4];
        lb_rng4(seed, LB_RNG_MIXER, step, (uint64_t)i / 4, bits);
        for (int64_t j = 0; j < LB_MIN(n - i, 4); j++) /* uniform near 0, where floats are finest, gives the largest keys */
            key[i + j] -= (float)log(-log1p(-((double)bits[j] + 0.5) * 0x1p-32));
    }
}

/* Floats in the order of unsigned integers. */
static uint32_t ordered(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Replaces the `count` largest of n keys by `chosen`, the others by 1 - chosen; of equal keys the first ones count as larger.
 * Finds the smallest of those digit by digit, 11 bits each, as radix sort does. */
static void choose_largest(float *key, int64_t n, int64_t count, float chosen) {
    uint32_t prefix = 0, mask = 0;
    int64_t left = count; /* still to be found among keys that begin with prefix */
    for (int shift = 21; shift >= -1; shift -= 11) {
        const int low = LB_MAX(shift, 0), width = shift < 0 ? 10 : 11;
        int64_t histogram[2048] = {0};
        for (int64_t i = 0; i < n; i++) {
            const uint32_t k = ordered(key[i]);
            histogram[k >> low & ((1u << width) - 1)] += (k & mask) == prefix;
        }
        uint32_t digit = (1u << width) - 1;
        for (; digit > 0 && histogram[digit] < left; digit--)
            left -= histogram[digit];
        prefix |= digit << low;
        mask |= ((1u << width) - 1) << low;
    }
    for (int64_t i = 0; i < n; i++) {
        const uint32_t k = ordered(key[i]);
        const bool is_chosen = k > prefix || (k == prefix && left-- > 0);
        key[i] = is_chosen ? chosen : 1.f - chosen;
    }
}

/* m of n filters or elements of `size` weights each, into m[0 .. n). */
static void draw(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, int64_t n, int64_t size, int64_t real,
                 float *m) {
    const bool fixed = spec->options.mix_partition == LB_PARTITION_FIXED,
               least = spec->options.mix_partition == LB_PARTITION_DETERMINISTIC;
    const bool draw_real = spec->options.mix_rule == LB_RULE_CODE && !fixed && !least;
    const lb_mix_probability probability = fixed ? LB_PROB_CONSTANT : spec->options.mix_probability;
    float most = -FLT_MAX;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = i * size;
        const float e = probability || least ? error(w->u + at, w->step[at / w->fan_in], w->code + at, size) : 0.f;
        m[i] = least ? -e : log_probability(probability, draw_real ? e + 1e-7f : 1.f / (e + 1e-7f));
        most = LB_MAX(most, m[i]);
    }
    if (!least) {
        for (int64_t i = 0; i < n; i++)
            m[i] -= most; /* softmax: noise is small beside 1e7 */
        add_noise(when->seed, fixed ? when->step - (uint64_t)when->stage_step : when->step, m, n);
    }
    choose_largest(m, n, draw_real ? real : n - real, draw_real ? 0.f : 1.f);
}

/* How many of n stay real. */
static int64_t count_real(double r, int64_t n) {
    const double decimal = round(r * 1e6) / 1e6; /* 0.8 as a float is not 0.8 */
    return decimal < 1 ? LB_MIN((int64_t)((1 - decimal) * (double)n + 1e-6), n) : 0;
}

static bool weights(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    const bool elements = spec->options.mix_scope == LB_SCOPE_ELEMENT;
    const int64_t n = elements ? w->oc * w->fan_in : w->oc;
    const int64_t real = count_real((double)ratio(spec, when), n);
    if (real == 0 || real == n) {
        *scalar = real == 0 ? 1.f : 0.f;
        return true;
    }
    draw(spec, when, w, n, elements ? 1 : w->fan_in, real, m);
    if (!elements)
        for (int64_t o = w->oc - 1; o >= 0; o--) { /* from the end: m[o] is not overwritten before it is read */
            const float mo = m[o];
            for (int64_t i = 0; i < w->fan_in; i++)
                m[o * w->fan_in + i] = mo;
        }
    return false;
}

static const char *refuse(const lb_quant_spec *spec) {
    if (spec->options.mix_scope == LB_SCOPE_LAYER || spec->options.mix_scope == LB_SCOPE_BLOCK)
        return "mix_scope must be filter or element; whole layers are drawn by mixer stochastic";
    return spec->options.mix_ratio >= 0.f && spec->options.mix_ratio <= 1.f ? NULL : "mix_ratio must be from 0 to 1";
}

const lb_mixer lb_mixer_roulette = {
    .name = "roulette",
    .help = "SQ: a share of filters or weights, those of small error first, drawn anew at each step",
    .paper = "Dong et al. 2017, arXiv 1708.01001",
    .uses_code = true,
    .weights = weights,
    .share = ratio,
    .refuse = refuse,
};

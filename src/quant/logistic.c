/* Logistic rounding (logistic.h). */
#include "quant/logistic.h"

#include "quant/exp.h"

#define INLINE static inline __attribute__((always_inline))

/* The ratio's bounds, and how many sigmas outside the grid v stops. Exponents stay below 87: five codes (reach 14, ratio just above
 * 1/14) are 70 sigmas, and the tail. */
static const float min_ratio = 1.f / 16.f, max_ratio = 64.f, tail = 12.f;

/* ---- One group at one step ------------------------------------------------------------------------------------- */

int lb_dropbits(const lb_quant_spec *spec, const lb_quant_when *when, int bits) {
    uint32_t draw[8];
    if (when->evaluation || (spec->drop_top <= 0.f && spec->drop_lower <= 0.f))
        return bits;
    lb_rng4(when->seed, LB_RNG_DROPBITS, when->step, 0, draw);
    lb_rng4(when->seed, LB_RNG_DROPBITS, when->step, 1, draw + 4);
    for (int level = 2; level <= bits; level++)
        if (lb_uniform(draw[level - 2]) < (level == bits ? spec->drop_top : spec->drop_lower))
            return level - 1;
    return bits;
}

bool lb_logistic_gates(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_gates *gates) {
    if (spec->bit_lengths != LB_BITS_LEARNED || when->evaluation)
        return false;
    lb_gates_draw(spec, when, param + spec->quantizer->nparams, gates);
    return !gates->open;
}

/* gate: NULL where there are none. */
static int bits_in_play(const lb_quant_spec *spec, const lb_quant_when *when, const float *gate) {
    lb_gates gates;
    if (!gate)
        return lb_dropbits(spec, when, spec->bits);
    if (when->evaluation || spec->bit_lengths == LB_BITS_KEPT)
        return lb_dropbits(spec, when, lb_gates_bits(spec, gate));
    lb_gates_draw(spec, when, gate, &gates);
    return gates.bits;
}

static void codes_in_play(const lb_quant_spec *spec, int bits, float *lo, float *hi) {
    const bool is_unsigned = spec->target == LB_ACTIVATIONS && !spec->is_signed;
    const float levels = (float)(1 << bits);
    *lo = is_unsigned ? 0.f : -0.5f * levels;
    *hi = *lo + levels - 1.f;
}

lb_logistic lb_logistic_of(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, int groups, int g,
                           float reach) {
    const double step = exp((double)param[g]), ratio = exp((double)param[groups + g] - (double)param[g]);
    lb_logistic l = {.step = lb_learned_bound(lb_step_bound(step))};
    codes_in_play(spec, bits_in_play(spec, when, lb_has_gates(spec) ? param + spec->quantizer->nparams : NULL), &l.lo, &l.hi);
    l.ratio = ratio > (double)min_ratio ? (float)LB_MIN(ratio, (double)max_ratio) : min_ratio;
    l.codes = (int)LB_MIN(l.hi - l.lo + 1.f, 2.f * ceilf(reach * l.ratio - 1e-3f) + 1.f); /* sigma = alpha / 3, rounded: one code */
    return l;
}

/* ---- Sums over the local grid ---------------------------------------------------------------------------------- */

/* Where each element is, and the lower edge of its local grid's first bin: p = e^-y, y = (edge - v) / ratio. */
typedef struct start {
    float v[LB_SOFT_BLOCK], code[LB_SOFT_BLOCK], y[LB_SOFT_BLOCK], p[LB_SOFT_BLOCK];
} start;

INLINE float clip(float x, float lo, float hi) { /* NaN gives lo */
    x = x > lo ? x : lo;
    return x < hi ? x : hi;
}

INLINE void begin(const lb_logistic *l, const float *u, int n, start *s) {
    const float inv = 1.f / l->step, per = 1.f / l->ratio, margin = 0.5f + tail * l->ratio;
    const float last = l->hi - (float)(l->codes - 1), reach = (float)(l->codes / 2);
    for (int i = 0; i < n; i++) {
        const float v = u[i] * inv;
        s->v[i] = clip(v, l->lo - margin, l->hi + margin);
        s->code[i] = clip(lb_round_clip(v, l->lo, l->hi) - reach, l->lo, last);
        s->y[i] = (s->code[i] - 0.5f - s->v[i]) * per;
        s->p[i] = lb_exp(-s->y[i]);
    }
}

/* Bins of constant width: each edge's p = e^-y is the one before times e^(-1 / ratio). s = S(y), t = S(-y) = p S(y). */
typedef struct edges {
    float y[LB_SOFT_BLOCK], p[LB_SOFT_BLOCK], s[LB_SOFT_BLOCK], t[LB_SOFT_BLOCK];
} edges;

INLINE void first_edge(const start *from, int n, edges *e) {
    for (int i = 0; i < n; i++) {
        e->y[i] = from->y[i];
        e->p[i] = from->p[i];
        e->s[i] = 1.f / (1.f + e->p[i]);
        e->t[i] = e->p[i] * e->s[i];
    }
}

/* Mass of the bin above the edges, without the factor 1 - e^(-1 / ratio) that all bins share; the edges move up. h and g, unless
 * NULL: ratio * d log mass / dv, and the part of ratio * d log mass / d ratio that differs from bin to bin. */
INLINE void next_bin(edges *e, int n, float per, float decay, float *mass, float *h, float *g) {
    for (int i = 0; i < n; i++) {
        const float y = e->y[i] + per, p = e->p[i] * decay, s = 1.f / (1.f + p), t = p * s;
        mass[i] = s * e->t[i];
        if (h)
            h[i] = e->s[i] - t;
        if (g)
            g[i] = e->y[i] * e->s[i] - y * t;
        e->y[i] = y, e->p[i] = p, e->s[i] = s, e->t[i] = t;
    }
}

/* score[k * LB_SOFT_BLOCK + i] = pi / race, up to what all codes of an element share. */
INLINE void scores(const lb_logistic *l, const start *from, int n, const float *race, float *score) {
    const float per = 1.f / l->ratio, decay = lb_exp(-per);
    edges e;
    first_edge(from, n, &e);
    for (int k = 0; k < l->codes; k++) {
        float *row = score + k * LB_SOFT_BLOCK;
        next_bin(&e, n, per, decay, row, NULL, NULL);
        for (int i = 0; i < n; i++)
            row[i] /= race[k * LB_SOFT_BLOCK + i];
    }
}

/* The scores become score^(1 / temperature), the largest of an element 1. */
static void relax(int codes, int n, float temperature, float *score) {
    const float inv = 1.f / temperature;
    for (int i = 0; i < n; i++) {
        float max = score[i];
        for (int k = 1; k < codes; k++)
            max = LB_MAX(max, score[k * LB_SOFT_BLOCK + i]);
        for (int k = 0; k < codes; k++)
            score[k * LB_SOFT_BLOCK + i] = powf(score[k * LB_SOFT_BLOCK + i] / max, inv);
    }
}

/* With weights z: df / dt = sum of z_k (k - f) d log z_k / dt, where what all codes share drops out. k counts from the local grid's
 * first code, so that the difference of sums stays accurate. */
LB_CLONES void lb_soft_mean(const lb_logistic *l, const float *u, int n, const float *race, float temperature, lb_soft *soft) {
    const float per = 1.f / l->ratio, decay = lb_exp(-per);
    float score[LB_SOFT_MAX_CODES * LB_SOFT_BLOCK], mass[LB_SOFT_BLOCK], h[LB_SOFT_BLOCK], g[LB_SOFT_BLOCK];
    float w0[LB_SOFT_BLOCK] = {0}, w1[LB_SOFT_BLOCK] = {0}, h0[LB_SOFT_BLOCK] = {0}, h1[LB_SOFT_BLOCK] = {0};
    float g0[LB_SOFT_BLOCK] = {0}, g1[LB_SOFT_BLOCK] = {0};
    start from;
    edges e;
    begin(l, u, n, &from);
    if (race) {
        scores(l, &from, n, race, score);
        if (temperature != 1.f)
            relax(l->codes, n, temperature, score);
    } else {
        temperature = 1.f;
    }
    first_edge(&from, n, &e);
    for (int k = 0; k < l->codes; k++) {
        const float *w = race ? score + k * LB_SOFT_BLOCK : mass;
        const float at = (float)k;
        next_bin(&e, n, per, decay, mass, h, g);
        for (int i = 0; i < n; i++) {
            const float wh = w[i] * h[i], wg = w[i] * g[i];
            w0[i] += w[i], w1[i] += at * w[i];
            h0[i] += wh, h1[i] += at * wh;
            g0[i] += wg, g1[i] += at * wg;
        }
    }
    for (int i = 0; i < n; i++) {
        const float inv = 1.f / w0[i], mean = w1[i] * inv, scale = inv / temperature;
        soft->v[i] = from.v[i];
        soft->value[i] = from.code[i] + mean;
        soft->slope[i] = (h1[i] - mean * h0[i]) * scale * per;
        soft->spread[i] = (g1[i] - mean * g0[i]) * scale;
    }
}

/* level[n - lo] of codes n: the bits of the smallest grid that has them. */
static void levels_of(const lb_logistic *l, int *level) {
    for (int n = (int)l->lo; n <= (int)l->hi; n++) {
        int k = 1;
        while (n < -(1 << (k - 1)) || n >= 1 << (k - 1))
            k++;
        level[n - (int)l->lo] = k;
    }
}

void lb_soft_gated(const lb_logistic *l, const lb_gates *gates, const float *u, int n, lb_soft *soft, float *code,
                   float by_level[LB_GATE_LEVELS][LB_SOFT_BLOCK]) {
    const float per = 1.f / l->ratio, decay = lb_exp(-per);
    float mass[LB_SOFT_BLOCK], h[LB_SOFT_BLOCK], g[LB_SOFT_BLOCK], best[LB_SOFT_BLOCK] = {0};
    float w0[LB_SOFT_BLOCK] = {0}, w1[LB_SOFT_BLOCK] = {0}, h0[LB_SOFT_BLOCK] = {0}, h1[LB_SOFT_BLOCK] = {0};
    float g0[LB_SOFT_BLOCK] = {0}, g1[LB_SOFT_BLOCK] = {0}, level0[LB_GATE_LEVELS][LB_SOFT_BLOCK] = {{0}};
    int level[LB_SOFT_MAX_CODES];
    start from;
    edges e;
    levels_of(l, level);
    memset(by_level, 0, LB_GATE_LEVELS * sizeof *by_level);
    begin(l, u, n, &from);
    first_edge(&from, n, &e);
    for (int k = 0; k < l->codes; k++) {
        next_bin(&e, n, per, decay, mass, h, g);
        for (int i = 0; i < n; i++) {
            const int lev = level[(int)(from.code[i] - l->lo) + k];
            const float at = (float)k, w = gates->zbar[lev] * mass[i], wh = w * h[i], wg = w * g[i];
            w0[i] += w, w1[i] += at * w;
            h0[i] += wh, h1[i] += at * wh;
            g0[i] += wg, g1[i] += at * wg;
            level0[lev][i] += mass[i], by_level[lev][i] += at * mass[i];
            if (w > best[i])
                best[i] = w, code[i] = from.code[i] + at;
        }
    }
    for (int i = 0; i < n; i++) {
        const float inv = 1.f / w0[i], mean = w1[i] * inv;
        soft->v[i] = from.v[i];
        soft->value[i] = from.code[i] + mean;
        soft->slope[i] = (h1[i] - mean * h0[i]) * inv * per;
        soft->spread[i] = (g1[i] - mean * g0[i]) * inv;
        for (int k = 1; k < LB_GATE_LEVELS; k++)
            by_level[k][i] = (by_level[k][i] - mean * level0[k][i]) * inv;
    }
}

LB_CLONES void lb_logistic_race(const lb_quant_when *when, const lb_logistic *l, int64_t first, int n, float *race) {
    const int blocks = (l->codes + 3) / 4;
    uint32_t bits[4 * LB_SOFT_BLOCK];
    for (int k = 0; k < l->codes; k++) {
        if (k % 4 == 0)
            lb_rng4_many(when->seed, LB_RNG_GUMBEL, when->step, (uint64_t)first * (uint64_t)blocks + (uint64_t)(k / 4),
                         (uint64_t)blocks, n, bits);
        for (int i = 0; i < n; i++) /* the uniform is inside (0, 1) */
            race[k * LB_SOFT_BLOCK + i] = -lb_log(((float)(bits[k % 4 * n + i] >> 9) + 0.5f) * 0x1p-23f);
    }
}

LB_CLONES void lb_soft_sample(const lb_logistic *l, const float *u, int n, const float *race, float *code) {
    float score[LB_SOFT_MAX_CODES * LB_SOFT_BLOCK];
    start from;
    begin(l, u, n, &from);
    scores(l, &from, n, race, score);
    float best[LB_SOFT_BLOCK];
    for (int i = 0; i < n; i++)
        best[i] = score[i], code[i] = 0.f;
    for (int k = 1; k < l->codes; k++)
        for (int i = 0; i < n; i++) {
            const float s = score[k * LB_SOFT_BLOCK + i];
            code[i] = s > best[i] ? (float)k : code[i];
            best[i] = s > best[i] ? s : best[i];
        }
    for (int i = 0; i < n; i++)
        code[i] += from.code[i];
}

/* ---- The most likely code's probability ------------------------------------------------------------------------ */

INLINE float sigmoid(float y) { return 1.f / (1.f + lb_exp(clip(-y, -80.f, 80.f))); }

/* y / (e^y - 1): -ratio * d log(1 - e^-y) / d ratio of a range of y = width / ratio. */
static inline float shrink(float y) { return y < 80.f ? (float)((double)y / expm1((double)y)) : 0.f; }

/* log pi_c = log S(b) S(-a) - log S(end) S(-begin) + log (1 - e^(-1/ratio)) - log (1 - e^(-codes/ratio)), with the whole grid's
 * edges begin and end. */
LB_CLONES void lb_soft_mode(const lb_logistic *l, const float *u, int n, lb_soft *soft) {
    const float per = 1.f / l->ratio, inv = 1.f / l->step, margin = 0.5f + tail * l->ratio, width = l->hi - l->lo + 1.f;
    const float factor = (1.f - lb_exp(-per)) / (1.f - lb_exp(-LB_MIN(width * per, 80.f)));
    const float shared = shrink(width * per) - shrink(per);
    for (int i = 0; i < n; i++) {
        const float x = u[i] * inv, code = lb_round_clip(x, l->lo, l->hi), v = clip(x, l->lo - margin, l->hi + margin);
        const float a = (code - 0.5f - v) * per, b = a + per, begin = (l->lo - 0.5f - v) * per, end = (l->hi + 0.5f - v) * per;
        const float sa = sigmoid(a), ta = sigmoid(-a), sb = sigmoid(b), tb = sigmoid(-b);
        const float s0 = sigmoid(begin), t0 = sigmoid(-begin), s1 = sigmoid(end), t1 = sigmoid(-end);
        const float pi = factor * (sb * ta) / (s1 * t0);
        soft->v[i] = v;
        soft->value[i] = code;
        soft->slope[i] = code * pi * ((sa - tb) - (s0 - t1)) * per;
        soft->spread[i] = code * pi * ((a * sa - b * tb) - (begin * s0 - end * t1) + shared);
    }
}

/* ---- For the rows ---------------------------------------------------------------------------------------------- */

void lb_logistic_init(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param) {
    const lb_groups groups = lb_quant_groups(spec, oc, fan_in);
    float lo, hi;
    codes_in_play(spec, spec->bits, &lo, &hi);
    for (int g = 0; g < groups.count; g++) {
        const double step = (double)lb_learned_bound(lb_step_l2(u + g * groups.size, groups.size, lo, hi));
        param[g] = (float)log(step);
        param[groups.count + g] = (float)log(step / 3.0);
    }
    for (int p = spec->quantizer->nparams; p < lb_quant_nparams(spec); p++) /* gates: one group */
        param[p] = 0.f;
}

void lb_logistic_form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, float reach, lb_act_form *form) {
    const lb_logistic l = lb_logistic_of(spec, when, param, 1, 0, reach);
    form->step = l.step;
    form->lo = l.lo, form->hi = l.hi;
    form->pass_lo = l.step * l.lo, form->pass_hi = l.step * l.hi;
    form->ratio = l.ratio;
    form->codes = l.codes;
    form->learn = 3;
}

lb_logistic lb_logistic_of_form(const lb_act_form *form) {
    return (lb_logistic){.step = form->step, .ratio = form->ratio, .lo = form->lo, .hi = form->hi, .codes = form->codes};
}

void lb_logistic_slopes(const lb_act_form *form, const float *z, int64_t first, int n, lb_soft_fn fn, float *slope, float *by_step,
                        float *by_sigma) {
    const lb_logistic l = lb_logistic_of_form(form);
    lb_soft soft;
    fn(form->spec, &form->when, &l, z, first, n, &soft);
    const bool own = form->spec->estimator == LB_EST_OWN;
    for (int i = 0; i < n; i++) {
        const float inside = ((z[i] > form->pass_lo) & (z[i] < form->pass_hi)) ? 1.f : 0.f;
        slope[i] = !own ? inside : z[i] == z[i] ? soft.slope[i] : 0.f;
        by_step[i] = form->step * (soft.value[i] - soft.v[i] * soft.slope[i] - soft.spread[i]);
        by_sigma[i] = form->step * soft.spread[i];
    }
}

/* step * f(x / step, sigma / step) by x, log step and log sigma. */
void lb_logistic_backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const float *u, int oc,
                          int64_t fan_in, const float *diff, float *diff_u, float *diff_param, float reach, lb_soft_fn fn) {
    const lb_groups groups = lb_quant_groups(spec, oc, fan_in);
    lb_gates gates;
    const bool gated = lb_logistic_gates(spec, when, param, &gates);
    double by_zbar[LB_GATE_LEVELS] = {0};
    for (int g = 0; g < groups.count; g++) {
        const lb_logistic l = lb_logistic_of(spec, when, param, groups.count, g, reach);
        double step_sum = 0.0, sigma_sum = 0.0;
        for (int64_t at = 0; at < groups.size; at += LB_SOFT_BLOCK) {
            const int n = (int)LB_MIN(LB_SOFT_BLOCK, groups.size - at);
            const int64_t first = g * groups.size + at;
            const float *d = diff + first;
            float of_step[LB_SOFT_BLOCK], of_sigma[LB_SOFT_BLOCK];
            lb_soft soft;
            if (gated) {
                float code[LB_SOFT_BLOCK], by_level[LB_GATE_LEVELS][LB_SOFT_BLOCK];
                lb_soft_gated(&l, &gates, u + first, n, &soft, code, by_level);
                for (int k = LB_GATE_FIRST; k <= gates.bits; k++)
                    for (int i = 0; i < n; i++)
                        by_zbar[k] += (double)(d[i] * by_level[k][i]) * (double)l.step;
            } else {
                fn(spec, when, &l, u + first, first, n, &soft);
            }
            for (int i = 0; i < n; i++) {
                of_step[i] = d[i] * (soft.value[i] - soft.v[i] * soft.slope[i] - soft.spread[i]);
                of_sigma[i] = d[i] * soft.spread[i];
            }
            step_sum += lb_sum(of_step, n);
            sigma_sum += lb_sum(of_sigma, n);
            if (diff_u && spec->estimator == LB_EST_OWN)
                for (int i = 0; i < n; i++)
                    diff_u[first + i] += d[i] * soft.slope[i];
            else if (diff_u && spec->estimator == LB_EST_CLIPPED)
                lb_backward_clipped(u + first, n, l.step * l.lo, l.step * l.hi, d, diff_u + first);
            else if (diff_u)
                lb_backward_ste(n, d, diff_u + first);
        }
        if (diff_param) {
            diff_param[g] += (float)(step_sum * (double)l.step);
            diff_param[groups.count + g] += (float)(sigma_sum * (double)l.step);
        }
    }
    if (gated && diff_param)
        lb_gates_backward(spec, &gates, by_zbar, diff_param + spec->quantizer->nparams);
}

/* Logistic rounding (logistic.h). */
#include "quant/logistic.h"

#include <string.h>

#include "quant/exp.h"

#define INLINE static inline __attribute__((always_inline))

/* The ratio's bounds, and how many sigmas outside the grid v stops. Exponents stay below 87: five codes (reach 14, ratio just above
 * 1/14) are 70 sigmas, and the tail. */
static const float min_ratio = 1.f / 16.f, max_ratio = 64.f, tail = 12.f;

/* ---- One group at one step ------------------------------------------------------------------------------------- */

int lb_dropbits(const lb_quant_spec *spec, const lb_quant_when *when, int bits) {
    uint32_t draw[8];
    if (when->evaluation || (spec->options.drop_top <= 0.f && spec->options.drop_lower <= 0.f))
        return bits;
    lb_rng4(when->seed, LB_RNG_DROPBITS, when->step, 0, draw);
    lb_rng4(when->seed, LB_RNG_DROPBITS, when->step, 1, draw + 4);
    for (int level = 2; level <= bits; level++)
        if (lb_uniform(draw[level - 2]) < (level == bits ? spec->options.drop_top : spec->options.drop_lower))
            return level - 1;
    return bits;
}

bool lb_logistic_gates(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_gates *gates) {
    if (spec->options.bit_lengths != LB_BITS_LEARNED || when->evaluation)
        return false;
    lb_gates_draw(spec, when, param + spec->quantizer->nparams, gates);
    return !gates->open;
}

/* gate: NULL where there are none. */
static int bits_in_play(const lb_quant_spec *spec, const lb_quant_when *when, const float *gate) {
    lb_gates gates;
    if (!gate)
        return lb_dropbits(spec, when, spec->bits);
    if (when->evaluation || spec->options.bit_lengths == LB_BITS_KEPT)
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

/* gcc vectorises the loops over elements here: those over codes inside them are `do`, whose first turn nothing can skip. */

INLINE float clip(float x, float lo, float hi) { /* NaN gives lo */
    x = x > lo ? x : lo;
    return x < hi ? x : hi;
}

/* v, and the first code of the local grid. */
INLINE void place(const lb_logistic *l, const float *u, int n, float *v, float *first) {
    const float inv = 1.f / l->step, margin = 0.5f + tail * l->ratio;
    const float last = l->hi - (float)(l->codes - 1), reach = (float)(l->codes / 2);
    for (int i = 0; i < n; i++) {
        const float x = u[i] * inv;
        v[i] = clip(x, l->lo - margin, l->hi + margin);
        first[i] = clip(lb_round_clip(x, l->lo, l->hi) - reach, l->lo, last);
    }
}

/* An edge between bins: y = (edge - v) / ratio, p = e^-y, s = S(y), t = S(-y). The next edge has y + per, per = 1 / ratio, and p *
 * decay, decay = e^-per. */
typedef struct edge {
    float y, p, s, t;
} edge;

INLINE edge edge_at(float y, float p) {
    const float s = 1.f / (1.f + p);
    return (edge){y, p, s, p * s};
}

/* Mass of the bin between two edges, without the factor 1 - decay that all bins share; h = ratio * d log mass / dv; g, the part of
 * ratio * d log mass / d ratio that differs from bin to bin. */
INLINE float mass(edge a, edge b) { return b.s * a.t; }
INLINE float mass_h(edge a, edge b) { return a.s - b.t; }
INLINE float mass_g(edge a, edge b) { return a.y * a.s - b.y * b.t; }

/* The lowest edge of each element's local grid. */
INLINE void first_edges(const lb_logistic *l, const float *v, const float *first, int n, float *y, float *p) {
    const float per = 1.f / l->ratio;
    for (int i = 0; i < n; i++) {
        y[i] = (first[i] - 0.5f - v[i]) * per;
        p[i] = lb_exp(-y[i]);
    }
}

/* Of f, `value` in the place of f, and its derivatives by v and log ratio. */
INLINE void store_soft(lb_soft *soft, int i, float v, float value, float slope, float spread) {
    soft->slope[i] = slope;
    soft->by_step[i] = value - v * slope - spread;
    soft->by_sigma[i] = spread;
}

/* The mean as a sum over pairs of edges. y = w / ratio with the local grid's centre as origin; edges at +-j, j = 0 .. K / 2 - 1 or
 * 1/2 .., K = codes (at 0: half a pair); A_j = cosh(j / ratio), a = K / (2 ratio). By S(j - y) + S(-j - y) = 1 - sinh y / (cosh y +
 * A_j) and S(a - y) - S(-a - y) = sinh a / (cosh y + cosh a)
 *     mean = sinh y * sum of B_j / (cosh y + A_j),   B_j = (cosh a - A_j) / sinh a   (half of it for j = 0)
 * where nothing cancels and the outermost edges are gone. By t = e^-y, y >= 0 (what is below the centre is looked at in a mirror),
 * c = 1 + t^2, s = 1 - t^2, alpha = 2 A, q = c + alpha t:
 *     mean = s sum of B / q,   d mean / dy = t sum of B (4 t + alpha c) / q^2,
 *     d mean / d log ratio, y held = s sum of B' / q - t B alpha' / q^2,   ' = d / d log ratio */
void lb_logistic_pairs(const lb_logistic *l, lb_pairs *pairs) {
    const double per = 1.0 / (double)l->ratio, a = 0.5 * l->codes * per;
    const int count = l->codes / 2;
    pairs->count = (count + 1) / 2 * 2;
    pairs->alpha[pairs->count - 1] = 2.f;
    pairs->weight[pairs->count - 1] = pairs->weight_r[pairs->count - 1] = pairs->alpha_r[pairs->count - 1] = 0.f;
    for (int i = 0; i < count; i++) {
        const double j = l->codes % 2 ? i + 0.5 : i, b = j * per, sum = 0.5 * (a + b), gap = 0.5 * (a - b);
        const double weight = (j > 0 ? 2.0 : 1.0) * sinh(sum) * sinh(gap) / sinh(a);
        pairs->alpha[i] = (float)(2.0 * cosh(b));
        pairs->weight[i] = (float)weight;
        pairs->weight_r[i] = (float)(weight * (a / tanh(a) - sum / tanh(sum) - gap / tanh(gap)));
        pairs->alpha_r[i] = (float)(weight * -2.0 * b * sinh(b));
    }
}

typedef struct pair_sums {
    float mean[LB_SOFT_BLOCK], by_y[LB_SOFT_BLOCK], by_r[LB_SOFT_BLOCK];
} pair_sums;

/* What pairs k and k + 1 add to an element's sums (`first`: these become it); one division for both. */
INLINE void add_pairs(const lb_pairs *p, int k, const float *restrict t, int n, bool first, pair_sums *restrict sums) {
    const float a0 = p->alpha[k], w0 = p->weight[k], w_r0 = p->weight_r[k], a_r0 = p->alpha_r[k];
    const float a1 = p->alpha[k + 1], w1 = p->weight[k + 1], w_r1 = p->weight_r[k + 1], a_r1 = p->alpha_r[k + 1];
    for (int i = 0; i < n; i++) {
        const float ti = t[i], c = 1.f + ti * ti, q0 = c + a0 * ti, q1 = c + a1 * ti, inv = 1.f / (q0 * q1);
        const float r0 = q1 * inv, r1 = q0 * inv, m0 = w0 * r0, m1 = w1 * r1, four = 4.f * ti;
        const float by_y = (four + a0 * c) * (m0 * r0) + (four + a1 * c) * (m1 * r1);
        const float by_r = (w_r0 * r0 + w_r1 * r1) - ti * (a_r0 * (r0 * r0) + a_r1 * (r1 * r1));
        sums->mean[i] = first ? m0 + m1 : sums->mean[i] + (m0 + m1);
        sums->by_y[i] = first ? by_y : sums->by_y[i] + by_y;
        sums->by_r[i] = first ? by_r : sums->by_r[i] + by_r;
    }
}

/* Short loops: an element's operations wait for each other, those of other elements fill the gaps. */
LB_CLONES void lb_soft_mean(const lb_logistic *l, const float *u, int n, lb_soft *restrict soft) {
    const float inv = 1.f / l->step, per = 1.f / l->ratio, half = 0.5f * ((float)l->codes - 1.f), to_log2 = -1.44269504f * per;
    const float limit = LB_MIN(half + 0.5f + tail * l->ratio, 43.f * l->ratio); /* t^2 is a normal number */
    const float lowest = l->lo + half, highest = l->hi - half, shift = half - (float)(l->codes / 2);
    float centre[LB_SOFT_BLOCK], w[LB_SOFT_BLOCK], t[LB_SOFT_BLOCK];
    pair_sums sums;
    if (lowest == highest)
        for (int i = 0; i < n; i++)
            centre[i] = lowest;
    else
        for (int i = 0; i < n; i++)
            centre[i] = clip(lb_round_clip(u[i] * inv, l->lo, l->hi) + shift, lowest, highest);
    for (int i = 0; i < n; i++) {
        const float off = u[i] * inv - centre[i], far = fabsf(off);
        w[i] = copysignf(far < limit ? far : limit, off);
        t[i] = lb_exp2(fabsf(w[i]) * to_log2);
    }
    add_pairs(l->pairs, 0, t, n, true, &sums);
    for (int k = 2; k < l->pairs->count; k += 2)
        add_pairs(l->pairs, k, t, n, false, &sums);
    for (int i = 0; i < n; i++) {
        const float s = 1.f - t[i] * t[i], slope = per * (t[i] * sums.by_y[i]), turn = copysignf(s, w[i]) * sums.by_r[i];
        soft->slope[i] = slope;
        soft->by_step[i] = centre[i] * (1.f - slope) + (copysignf(s, w[i]) * sums.mean[i] - turn);
        soft->by_sigma[i] = turn - w[i] * slope;
    }
}

enum { NODES = 4 }; /* where a piece is exact: -outer, -inner, inner, outer */
static const float inner = 0.191341716f, outer = 0.461939766f; /* Chebyshev's: sin and cos of pi / 8, halved */

/* The cubic through values at the nodes: of t^2 its even part, of t^2 again, divided by t, its odd one. */
static void cubic(const float value[NODES], float coefficient[4][LB_CURVE_PIECES], int piece) {
    const float a = outer * outer, b = inner * inner;
    const float even_far = 0.5f * (value[3] + value[0]), even_near = 0.5f * (value[2] + value[1]);
    const float odd_far = 0.5f * (value[3] - value[0]) / outer, odd_near = 0.5f * (value[2] - value[1]) / inner;
    coefficient[2][piece] = (even_far - even_near) / (a - b);
    coefficient[0][piece] = even_near - coefficient[2][piece] * b;
    coefficient[3][piece] = (odd_far - odd_near) / (a - b);
    coefficient[1][piece] = odd_near - coefficient[3][piece] * b;
}

/* All as if the grid were the local one around 0, or the whole one where that has pieces of less than 1.15 sigma too. The first
 * piece has nodes below 0: odd functions just go on there. */
void lb_logistic_curve(const lb_logistic *l, lb_curve *curve) {
    enum { LAST = LB_CURVE_PIECES - 1 };
    const float tail_of_curve = 10.f, whole = 0.5f * (l->hi - l->lo) + 0.5f + tail_of_curve * l->ratio;
    const float node[NODES] = {-outer, -inner, inner, outer};
    lb_logistic centred = *l;
    lb_pairs pairs;
    lb_soft soft;
    float u[LB_SOFT_BLOCK];
    if (whole < 1.15f * ((float)LAST - 0.5f) * l->ratio)
        centred.codes = (int)(l->hi - l->lo) + 1;
    lb_logistic_pairs(&centred, &pairs);
    const float half = 0.5f * ((float)centred.codes - 1.f);
    centred.pairs = &pairs;
    centred.step = 1.f;
    centred.lo = -half, centred.hi = half;
    *curve = (lb_curve){.holds = true, .own = true, .lowest = l->lo + half, .highest = l->hi - half};
    curve->scale = ((float)LAST - 0.5f) / (half + 0.5f + tail_of_curve * l->ratio);
    for (int i = 0; i < NODES * LB_CURVE_PIECES; i++)
        u[i] = ((float)(i / NODES) + (i / NODES < LAST ? node[i % NODES] : -0.5f)) / curve->scale;
    lb_soft_mean(&centred, u, NODES * LB_CURVE_PIECES, &soft);
    for (int k = 0; k < LB_CURVE_PIECES; k++) {
        cubic(soft.slope + NODES * k, curve->slope, k);
        cubic(soft.by_step + NODES * k, curve->by_step, k);
        cubic(soft.by_sigma + NODES * k, curve->by_sigma, k);
    }
    curve->slope[0][LAST] = 0.f;
}

/* Bins of noise in play. With y = (k - v) / ratio and d = e^(-1 / ratio), the mass of code k is, up to what all codes share,
 *     1 / q,  q = 1 + d + up + down,  up = sqrt(d) e^y,  down = sqrt(d) e^-y,
 *     ratio * d log q / dv = (down - up) / q,
 *     ratio * d log q / d ratio = (d / ratio + (up + down) / (2 ratio) - y (up - down)) / q
 * and the next code has up / d and down * d. Of the first code: */
typedef struct bins {
    float y[LB_SOFT_BLOCK], up[LB_SOFT_BLOCK], down[LB_SOFT_BLOCK];
} bins;

INLINE void first_bins(const lb_logistic *l, const float *v, const float *first, int n, bins *b) {
    const float per = 1.f / l->ratio, root = lb_exp(-0.5f * per);
    for (int i = 0; i < n; i++) {
        const float y = b->y[i] = (first[i] - v[i]) * per;
        b->up[i] = root * lb_exp(y);
        b->down[i] = root * lb_exp(-y);
    }
}

/* score[k * LB_SOFT_BLOCK + i] = (pi / race)^(1 / temperature), up to what all codes of an element share: the largest is 1. */
static void relax(const lb_logistic *l, const bins *b, int n, const float *race, float temperature, float *score) {
    const float per = 1.f / l->ratio, decay = lb_exp(-per), grow = lb_exp(per), inv = 1.f / temperature;
    for (int i = 0; i < n; i++) {
        float up = b->up[i], down = b->down[i], max = 0.f;
        for (int k = 0; k < l->codes; k++) {
            const float s = score[k * LB_SOFT_BLOCK + i] = 1.f / (race[k * LB_SOFT_BLOCK + i] * (1.f + decay + (up + down)));
            max = LB_MAX(max, s);
            up *= grow, down *= decay;
        }
        for (int k = 0; k < l->codes; k++)
            score[k * LB_SOFT_BLOCK + i] = powf(score[k * LB_SOFT_BLOCK + i] / max, inv);
    }
}

/* With weights z: df / dt = sum of z_k (k - f) d log z_k / dt, where what all codes share drops out. k counts from the local grid's
 * first code, so that the difference of sums stays accurate. score NULL: temperature 1. */
INLINE void relaxed_sums(const lb_logistic *l, const float *v, const float *first, const bins *b, int n, const float *race,
                         const float *score, float temperature, lb_soft *soft) {
    const float per = 1.f / l->ratio, decay = lb_exp(-per), grow = lb_exp(per), base = 1.f + decay, by_r = decay * per;
    const float half = 0.5f * per;
    for (int i = 0; i < n; i++) {
        float w0 = 0.f, w1 = 0.f, h0 = 0.f, h1 = 0.f, g0 = 0.f, g1 = 0.f, at = 0.f;
        float y = b->y[i], up = b->up[i], down = b->down[i];
        int k = 0;
        do {
            const float r = race[k * LB_SOFT_BLOCK + i], both = up + down, turn = up - down, pi = 1.f / (r * (base + both));
            const float w = score ? score[k * LB_SOFT_BLOCK + i] : pi, scaled = w * (pi * r);
            const float wh = scaled * turn, wg = scaled * (y * turn - (by_r + half * both));
            w0 += w, w1 += at * w;
            h0 += wh, h1 += at * wh;
            g0 += wg, g1 += at * wg;
            at += 1.f;
            y += per, up *= grow, down *= decay;
        } while (++k < l->codes);
        const float inv = 1.f / w0, mean = w1 * inv, scale = inv / temperature;
        store_soft(soft, i, v[i], first[i] + mean, (h1 - mean * h0) * scale * per, (g1 - mean * g0) * scale);
    }
}

LB_CLONES void lb_soft_relaxed(const lb_logistic *l, const float *u, int n, const float *restrict race, float temperature,
                               lb_soft *restrict soft) {
    float v[LB_SOFT_BLOCK], first[LB_SOFT_BLOCK], score[LB_SOFT_MAX_CODES * LB_SOFT_BLOCK];
    bins b;
    place(l, u, n, v, first);
    first_bins(l, v, first, n, &b);
    if (temperature == 1.f) {
        relaxed_sums(l, v, first, &b, n, race, NULL, 1.f, soft);
    } else {
        relax(l, &b, n, race, temperature, score);
        relaxed_sums(l, v, first, &b, n, race, score, temperature, soft);
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
    float v[LB_SOFT_BLOCK], first[LB_SOFT_BLOCK], y[LB_SOFT_BLOCK], p[LB_SOFT_BLOCK];
    int level[LB_SOFT_MAX_CODES];
    levels_of(l, level);
    place(l, u, n, v, first);
    first_edges(l, v, first, n, y, p);
    for (int i = 0; i < n; i++) {
        float w0 = 0.f, w1 = 0.f, h0 = 0.f, h1 = 0.f, g0 = 0.f, g1 = 0.f, best = 0.f;
        float level0[LB_GATE_LEVELS] = {0}, level1[LB_GATE_LEVELS] = {0};
        edge a = edge_at(y[i], p[i]);
        for (int k = 0; k < l->codes; k++) {
            const edge b = edge_at(a.y + per, a.p * decay);
            const int lev = level[(int)(first[i] - l->lo) + k];
            const float at = (float)k, pi = mass(a, b), w = gates->zbar[lev] * pi, wh = w * mass_h(a, b), wg = w * mass_g(a, b);
            w0 += w, w1 += at * w;
            h0 += wh, h1 += at * wh;
            g0 += wg, g1 += at * wg;
            level0[lev] += pi, level1[lev] += at * pi;
            if (w > best)
                best = w, code[i] = first[i] + at;
            a = b;
        }
        const float inv = 1.f / w0, mean = w1 * inv;
        store_soft(soft, i, v[i], first[i] + mean, (h1 - mean * h0) * inv * per, (g1 - mean * g0) * inv);
        for (int k = 0; k < LB_GATE_LEVELS; k++)
            by_level[k][i] = (level1[k] - mean * level0[k]) * inv;
    }
}

LB_CLONES static void exponentials(const uint32_t *bits, int n, float *race) {
    for (int i = 0; i < n; i++) /* the uniform is inside (0, 1) */
        race[i] = -lb_log(((float)(bits[i] >> 9) + 0.5f) * 0x1p-23f);
}

void lb_logistic_race(const lb_quant_when *when, const lb_logistic *l, int64_t first, int n, float *race) {
    const int blocks = (l->codes + 3) / 4;
    uint32_t bits[4 * LB_SOFT_BLOCK];
    for (int k = 0; k < l->codes; k++) {
        if (k % 4 == 0)
            lb_rng4_many(when->seed, LB_RNG_GUMBEL, when->step, (uint64_t)first * (uint64_t)blocks + (uint64_t)(k / 4),
                         (uint64_t)blocks, n, bits);
        exponentials(bits + k % 4 * n, n, race + k * LB_SOFT_BLOCK);
    }
}

/* Of indices that no element has. */
void lb_logistic_noise(const lb_quant_when *when, float noise[LB_QUANT_NOISE]) {
    uint32_t bits[4 * LB_SOFT_BLOCK];
    for (int i = 0; i < LB_QUANT_NOISE; i += 4 * LB_SOFT_BLOCK) {
        lb_rng4_many(when->seed, LB_RNG_GUMBEL, when->step, (UINT64_C(1) << 63) + (uint64_t)i / 4, 1, LB_SOFT_BLOCK, bits);
        exponentials(bits, 4 * LB_SOFT_BLOCK, noise + i);
    }
}

void lb_logistic_take(const lb_quant_when *when, const lb_logistic *l, const float noise[LB_QUANT_NOISE], int64_t first, int n,
                      float *race) {
    enum { RUN = LB_SOFT_BLOCK, PLACES = (LB_QUANT_NOISE - RUN) / 16 + 1 };
    const uint64_t key = lb_scatter(when->seed + when->step * 0x9e3779b97f4a7c15u);
    for (int done = 0; done < n;) {
        const int64_t run = (first + done) / RUN, skip = (first + done) % RUN;
        const int count = (int)LB_MIN(n - done, RUN - skip);
        for (int k = 0; k < l->codes; k++) {
            const uint64_t draw = lb_scatter(key + (uint64_t)run * LB_SOFT_MAX_CODES + (uint64_t)k);
            const size_t place = (size_t)((draw >> 32) * PLACES >> 32) * 16;
            memcpy(race + k * LB_SOFT_BLOCK + done, noise + place + skip, (size_t)count * sizeof *race);
        }
        done += count;
    }
}

/* The largest pi / race is the smallest race * q. */
LB_CLONES void lb_soft_sample(const lb_logistic *l, const float *u, int n, const float *restrict race, float *restrict code) {
    const float per = 1.f / l->ratio, decay = lb_exp(-per), grow = lb_exp(per), base = 1.f + decay;
    float v[LB_SOFT_BLOCK], first[LB_SOFT_BLOCK];
    bins b;
    place(l, u, n, v, first);
    first_bins(l, v, first, n, &b);
    for (int i = 0; i < n; i++) {
        float up = b.up[i], down = b.down[i], at = first[i], winner = at, best = INFINITY;
        int k = 0;
        do {
            const float score = race[k * LB_SOFT_BLOCK + i] * (base + (up + down));
            winner = score < best ? at : winner;
            best = score < best ? score : best;
            at += 1.f;
            up *= grow, down *= decay;
        } while (++k < l->codes);
        code[i] = winner;
    }
}

/* ---- The most likely code's probability ------------------------------------------------------------------------ */

INLINE edge edge_of(float y) { return edge_at(y, lb_exp(clip(-y, -80.f, 80.f))); }

/* y / (e^y - 1): -ratio * d log(1 - e^-y) / d ratio of a range of y = width / ratio. */
static inline float shrink(float y) { return y < 80.f ? (float)((double)y / expm1((double)y)) : 0.f; }

/* log pi_c = log mass of the code's bin - log mass of the whole grid + log (1 - e^(-1/ratio)) - log (1 - e^(-codes/ratio)). */
LB_CLONES void lb_soft_mode(const lb_logistic *l, const float *u, int n, lb_soft *soft) {
    const float per = 1.f / l->ratio, inv = 1.f / l->step, margin = 0.5f + tail * l->ratio, width = l->hi - l->lo + 1.f;
    const float decay = lb_exp(-per), factor = (1.f - decay) / (1.f - lb_exp(-LB_MIN(width * per, 80.f)));
    const float shared = shrink(width * per) - shrink(per);
    for (int i = 0; i < n; i++) {
        const float x = u[i] * inv, code = lb_round_clip(x, l->lo, l->hi), v = clip(x, l->lo - margin, l->hi + margin);
        const edge a = edge_of((code - 0.5f - v) * per), b = edge_at(a.y + per, a.p * decay);
        const edge begin = edge_of((l->lo - 0.5f - v) * per), end = edge_of((l->hi + 0.5f - v) * per);
        const float pi = factor * mass(a, b) / mass(begin, end);
        store_soft(soft, i, v, code, code * pi * (mass_h(a, b) - mass_h(begin, end)) * per,
                   code * pi * (mass_g(a, b) - mass_g(begin, end) + shared));
    }
}

/* ---- For the rows ---------------------------------------------------------------------------------------------- */

void lb_logistic_init(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param) {
    const lb_groups groups = lb_quant_groups(spec, oc, fan_in);
    const bool kept = spec->options.bit_lengths == LB_BITS_KEPT;
    float lo, hi;
    codes_in_play(spec, kept ? lb_gates_bits(spec, param + spec->quantizer->nparams) : spec->bits, &lo, &hi);
    for (int g = 0; g < groups.count; g++) {
        const double step = (double)lb_learned_bound(lb_step_l2(u + g * groups.size, groups.size, lo, hi));
        param[g] = (float)log(step);
        param[groups.count + g] = (float)log(step / 3.0);
    }
}

void lb_logistic_form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, float reach, lb_act_form *form) {
    const lb_logistic l = lb_logistic_of(spec, when, param, 1, 0, reach);
    form->step = l.step;
    form->lo = l.lo, form->hi = l.hi;
    form->pass_lo = l.step * l.lo, form->pass_hi = l.step * l.hi;
    form->ratio = l.ratio;
    form->codes = l.codes;
    form->learn = LB_LEARN_SOFT;
    form->learn_scale = l.step;
}

lb_logistic lb_logistic_of_form(const lb_act_form *form) {
    return (lb_logistic){form->step, form->ratio, form->lo, form->hi, form->codes, NULL};
}

LB_CLONES void lb_logistic_slopes(const lb_act_form *form, const float *z, int64_t first, int n, lb_soft_fn fn, lb_soft *soft) {
    const lb_logistic l = lb_logistic_of_form(form);
    fn(form->spec, &form->when, &l, z, first, n, soft);
    if (form->spec->options.estimator == LB_EST_OWN)
        for (int i = 0; i < n; i++)
            soft->slope[i] = z[i] == z[i] ? soft->slope[i] : 0.f;
    else
        for (int i = 0; i < n; i++)
            soft->slope[i] = ((z[i] > form->pass_lo) & (z[i] < form->pass_hi)) ? 1.f : 0.f;
}

/* step * f(x / step, sigma / step) by x, log step and log sigma. */
void lb_logistic_backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                          const float *diff, float *diff_u, float *diff_param, float reach, lb_soft_fn fn) {
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    lb_gates gates;
    const bool gated = lb_logistic_gates(spec, when, param, &gates);
    double by_zbar[LB_GATE_LEVELS] = {0};
    for (int g = 0; g < groups.count; g++) {
        lb_logistic l = lb_logistic_of(spec, when, param, groups.count, g, reach);
        lb_pairs pairs;
        lb_logistic_pairs(&l, &pairs);
        l.pairs = &pairs;
        double step_sum = 0.0, sigma_sum = 0.0;
        for (int64_t at = 0; at < groups.size; at += LB_SOFT_BLOCK) {
            const int n = (int)LB_MIN(LB_SOFT_BLOCK, groups.size - at);
            const int64_t first = g * groups.size + at;
            const float *d = diff + first;
            float of_step[LB_SOFT_BLOCK], of_sigma[LB_SOFT_BLOCK];
            lb_soft soft;
            if (gated) {
                float code[LB_SOFT_BLOCK], by_level[LB_GATE_LEVELS][LB_SOFT_BLOCK];
                lb_soft_gated(&l, &gates, w->u + first, n, &soft, code, by_level);
                for (int k = LB_GATE_FIRST; k <= gates.bits; k++)
                    for (int i = 0; i < n; i++)
                        by_zbar[k] += (double)(d[i] * by_level[k][i]) * (double)l.step;
            } else {
                fn(spec, when, &l, w->u + first, first, n, &soft);
            }
            for (int i = 0; i < n; i++) {
                of_step[i] = d[i] * soft.by_step[i];
                of_sigma[i] = d[i] * soft.by_sigma[i];
            }
            step_sum += lb_sum(of_step, n);
            sigma_sum += lb_sum(of_sigma, n);
            if (diff_u && spec->options.estimator == LB_EST_OWN)
                for (int i = 0; i < n; i++)
                    diff_u[first + i] += d[i] * soft.slope[i];
            else if (diff_u && spec->options.estimator == LB_EST_CLIPPED)
                lb_backward_clipped(w->u + first, n, l.step * l.lo, l.step * l.hi, d, diff_u + first);
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

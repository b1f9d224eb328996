/* Plain double-precision references of every quantizer, one row each, and loops over all that can be asked of the tables. A
 * quantizer without a row here fails every test that loops. */
#ifndef LB_TEST_QUANT_REFERENCE_H
#define LB_TEST_QUANT_REFERENCE_H

#include <float.h>
#include <math.h>

#include "quant/quant.h"
#include "support.h"

enum { OC = 5, FAN = 37, COUNT = OC * FAN };

/* Weights without and with steps. */
#define WEIGHTS(u, oc, fan) STEPPED(u, oc, fan, NULL)
#define STEPPED(u, oc, fan, step) (&(lb_weights){u, oc, fan, step, NULL})

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

/* One group (the tensor, or a filter) and what its elements share. */
typedef struct ref_group {
    const lb_quant_spec *spec;
    double step;
    double delta; /* twn: threshold; dorefa: max |tanh|; cpq, rq: sigma */
    int64_t size;
    int lo, hi;
} ref_group;

typedef struct ref_row {
    const char *name;
    /* Fills step and delta. `layer` is the whole tensor, `u` the group. `param` is the group's, NaN if there is none. */
    void (*group)(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param);
    /* The code of one element; *margin: how far u is from where the code changes, relative to a level. */
    double (*code)(const ref_group *g, double u, double *margin);
    /* What the quantizer's own gradient is the derivative of; NULL if it has none. */
    double (*own)(const ref_group *g, double u);
    bool idempotent, odd, equivariant, random; /* of weights with 2 bits and more (1 bit: always, but `sign` keeps step 1) */
} ref_row;

static inline double ref_clip(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }
static inline double ref_mean(const float *u, int64_t n, double above, int64_t *kept) {
    double sum = 0;
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabs((double)u[i]) > above)
            sum += fabs((double)u[i]), k++;
    if (kept)
        *kept = k;
    return sum;
}
static inline double ref_mean_abs(const float *u, int64_t n) { return ref_mean(u, n, -1, NULL) / (double)n; }
static inline double ref_max(const float *u, int64_t n) {
    double max = 0;
    for (int64_t i = 0; i < n; i++)
        max = fmax(max, fabs((double)u[i]));
    return max;
}
static inline double ref_round(double v, double lo, double hi, double *margin) {
    *margin = fabs(fabs(v - floor(v)) - 0.5);
    return nearbyint(ref_clip(v, lo, hi));
}

static inline double ref_sign_code(const ref_group *g, double u, double *margin) {
    (void)g;
    *margin = u == 0 ? 1 : fabs(u);
    return u < 0 ? -1 : 1;
}
static inline void ref_sign_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    (void)layer, (void)nlayer, (void)u, (void)param;
    g->step = 1;
}
static inline void ref_bwn_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    (void)layer, (void)nlayer, (void)param;
    g->step = ref_mean_abs(u, g->size);
}
static inline double ref_xnor_own(const ref_group *g, double u) { return u / (double)g->size + g->step * ref_clip(u, -1, 1); }

static inline void ref_twn_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    int64_t kept;
    (void)param;
    g->delta = (double)g->spec->options.threshold * ref_mean_abs(layer, nlayer);
    double sum = ref_mean(u, g->size, g->delta, &kept);
    g->step = kept ? sum / (double)kept : 0;
}
static inline double ref_twn_code(const ref_group *g, double u, double *margin) {
    *margin = fabs(fabs(u) - g->delta) / g->delta;
    return fabs(u) <= g->delta ? 0 : u < 0 ? -1 : 1;
}
static inline void ref_dorefa_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    (void)layer, (void)nlayer, (void)param;
    g->delta = tanh(ref_max(u, g->size));
    g->step = g->spec->bits == 1 ? ref_mean_abs(u, g->size) : 1.0 / (double)((1 << g->spec->bits) - 1);
}
static inline double ref_dorefa_code(const ref_group *g, double u, double *margin) {
    if (g->spec->bits == 1)
        return ref_sign_code(g, u, margin);
    double n = (1 << g->spec->bits) - 1;
    return 2 * ref_round(n * (tanh(u) / (2 * g->delta) + 0.5), 0, n, margin) - n;
}
/* The rounding of uniform and lsq. */
static inline double ref_even_code(const ref_group *g, double u, double *margin) {
    if (g->spec->bits == 1)
        return ref_sign_code(g, u, margin);
    return ref_round(u / g->step, g->lo, g->hi, margin);
}
static inline double ref_error(const float *u, int64_t n, double step, double lo, double hi) {
    double sum = 0, margin;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)u[i] - step * ref_round((double)u[i] / step, lo, hi, &margin);
        sum += d * d;
    }
    return sum;
}
/* The best of 1000 steps. */
static inline double ref_best_error(const float *u, int64_t n, double lo, double hi) {
    double best = INFINITY, max = ref_max(u, n);
    for (int i = 1; i <= 1000; i++)
        best = fmin(best, ref_error(u, n, 1.2 * max / hi * i / 1000, lo, hi));
    return best;
}
static inline void ref_uniform_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    (void)layer, (void)nlayer, (void)param;
    g->step = g->spec->bits == 1 ? ref_mean_abs(u, g->size) : ref_max(u, g->size) / g->hi;
}
static inline void ref_lsq_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    (void)layer, (void)nlayer, (void)u;
    g->step = param;
}
static inline double ref_lsq_own(const ref_group *g, double u) { return ref_clip(u, g->step * g->lo, g->step * g->hi); }

static inline void ref_seq_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    (void)layer, (void)nlayer, (void)u;
    g->step = param / 2;
}
static inline double ref_seq_code(const ref_group *g, double u, double *margin) {
    const double code = 2 * ref_round((u / g->step + g->hi) / 2, 0, g->hi, margin) - g->hi;
    return u == 0 ? 1 : code;
}
static inline double ref_seq_own(const ref_group *g, double u) {
    return ref_clip(u, -g->step * (g->hi + 1), g->step * (g->hi + 1));
}

static inline double ref_sigmoid(double y) { return 1 / (1 + exp(-y)); }
/* S(b) - S(a), whichever tail they are in. */
static inline double ref_between(double a, double b) {
    return a > 0 ? ref_sigmoid(-a) - ref_sigmoid(-b) : ref_sigmoid(b) - ref_sigmoid(a);
}
/* Probability of code k of lo..hi for x (RQ's, without the papers' small constant). */
static inline double ref_pi(double x, double step, double sigma, int lo, int hi, int k) {
    return ref_between((step * (k - 0.5) - x) / sigma, (step * (k + 0.5) - x) / sigma) /
           ref_between((step * (lo - 0.5) - x) / sigma, (step * (hi + 0.5) - x) / sigma);
}
static inline double ref_expect(double x, double step, double sigma, int lo, int hi) {
    double sum = 0;
    for (int k = lo; k <= hi; k++)
        sum += ref_pi(x, step, sigma, lo, hi, k) * step * k;
    return sum;
}
static inline void ref_cpq_group(ref_group *g, const float *layer, int64_t nlayer, const float *u, double param) {
    (void)layer, (void)nlayer, (void)u;
    g->step = exp(param);
}
static inline double ref_cpq_own(const ref_group *g, double u) { return ref_expect(u, g->step, g->delta, g->lo, g->hi); }

static const ref_row ref_rows[] = {
    {"sign", ref_sign_group, ref_sign_code, NULL, true, true, true, false},
    {"bwn", ref_bwn_group, ref_sign_code, NULL, true, true, true, false},
    {"xnor", ref_bwn_group, ref_sign_code, ref_xnor_own, true, true, true, false},
    {"twn", ref_twn_group, ref_twn_code, NULL, true, true, true, false},
    {"dorefa", ref_dorefa_group, ref_dorefa_code, NULL, false, true, false, false}, /* tanh: neither idempotent nor equivariant */
    {"pact", ref_dorefa_group, ref_dorefa_code, NULL, false, true, false, false},
    {"uniform", ref_uniform_group, ref_even_code, NULL, true, true, true, false},
    {"lsq", ref_lsq_group, ref_even_code, ref_lsq_own, true, false, true, false}, /* lo = -hi - 1: not odd */
    {"seq", ref_seq_group, ref_seq_code, ref_seq_own, true, true, true, false},
    {"cpq", ref_cpq_group, ref_even_code, ref_cpq_own, true, false, false, false}, /* e^(a - log 8) is not e^a / 8 to the bit */
    {"rq", ref_cpq_group, ref_even_code, ref_cpq_own, true, false, false, true}, /* random: what holds, holds in evaluation */
};

static inline const ref_row *ref_find(const lb_quantizer *q) {
    for (size_t i = 0; i < LB_COUNT(ref_rows); i++)
        if (!strcmp(ref_rows[i].name, q->name))
            return &ref_rows[i];
    fail_msg("%s has no row in tests/quant/reference.h", q->name);
    return NULL;
}

static inline bool is_l2(const lb_quant_spec *s) {
    return !strcmp(s->quantizer->name, "uniform") && s->options.scale == LB_SCALE_L2 && s->bits > 1;
}
static inline bool is_dorefa(const lb_quant_spec *s) {
    return (s->quantizer == &lb_quantizer_dorefa || s->quantizer == &lb_quantizer_pact) && s->bits > 1;
}

static inline int64_t ref_group_size(const lb_quant *q, int oc, int64_t fan) {
    return q->spec.options.per == LB_PER_FILTER ? fan : oc * fan;
}

/* The group of filter o, its step and all. `step`: what the library found, taken over where the rule is a search. */
static inline ref_group ref_group_of(const lb_quant *q, const float *param, const float *u, int oc, int64_t fan, int o,
                                     const float *step) {
    const bool per_filter = q->spec.options.per == LB_PER_FILTER;
    ref_group g = {.spec = &q->spec, .size = ref_group_size(q, oc, fan), .lo = q->grid.lo, .hi = q->grid.hi};
    ref_find(q->spec.quantizer)
        ->group(&g, u, oc * fan, per_filter ? u + o * fan : u, param ? (double)param[per_filter ? o : 0] : (double)NAN);
    if (is_l2(&q->spec))
        g.step = (double)step[o];
    if (lb_quant_nparams(&q->spec) == 2)
        g.delta = exp((double)(per_filter ? param[oc + o] : param[1]));
    return g;
}

/* What E is the derivative of, at u. */
static inline double ref_through(const ref_group *g, double u) {
    const lb_quant_spec *s = g->spec;
    const bool learned = !strcmp(s->quantizer->name, "lsq") || lb_quant_nparams(s) == 2,
               even = learned || (!strcmp(s->quantizer->name, "uniform") && s->bits > 1);
    switch (s->options.estimator) {
    case LB_EST_STE: return is_dorefa(s) ? tanh(u) / g->delta : u;
    case LB_EST_CLIPPED:
        if (s->quantizer == &lb_quantizer_seq)
            return ref_seq_own(g, u);
        return even ? ref_clip(u, g->step * g->lo, g->step * g->hi) : ref_clip(u, -1, 1);
    case LB_EST_OWN: return ref_find(s->quantizer)->own(g, u);
    default: return 0;
    }
}

static inline double ref_surrogate(lb_surrogate s, double u) {
    switch (s) {
    case LB_SUR_HARDTANH: return ref_clip(u, -1, 1);
    case LB_SUR_CLIP01: return ref_clip(u, 0, 1);
    case LB_SUR_RELU: return ref_clip(u, 0, INFINITY);
    default: return u;
    }
}

/* ---- Loops --------------------------------------------------------------------------------------------------------- */

/* Calls check for every quantizer x bits x granularity x scale rule x estimator of `target` that resolves; returns how many that
 * was. */
static inline int for_each_case(lb_ctx *ctx, lb_target target, void (*check)(lb_ctx *ctx, lb_quant *q)) {
    size_t count;
    int cases = 0;
    const lb_quantizer *const *list = lb_quantizer_list(&count);
    for (size_t i = 0; i < count; i++) {
        const lb_quantizer *z = list[i];
        const bool own = (target == LB_WEIGHTS ? z->estimator : z->estimator_activations) == LB_EST_OWN;
        if (target == LB_WEIGHTS ? !z->weights : !z->activations)
            continue;
        for (int bits = z->min_bits; bits <= z->max_bits; bits++)
            for (int variant = 0; variant < 2 * 2 * 2; variant++)
                for (lb_estimator e = LB_EST_STE; e <= LB_EST_OWN; e++) {
                    lb_quant q = {.param = -1, .initialised = true};
                    q.spec =
                        (lb_quant_spec){.quantizer = z, .target = target, .bits = bits, .options.estimator = e, .features = 50};
                    q.spec.options.per = variant & 1 ? LB_PER_FILTER : LB_PER_TENSOR;
                    q.spec.options.scale = variant & 2 ? LB_SCALE_L2 : LB_SCALE_MINMAX;
                    q.spec.is_signed = variant & 4;
                    const bool refused = (e == LB_EST_OWN && !own) || (target == LB_ACTIVATIONS && (variant & 1)) ||
                                         (e == LB_EST_CLIPPED && target == LB_WEIGHTS && is_dorefa(&q.spec));
                    if (refused) {
                        assert_int_equal(lb_quant_resolve(ctx, "layer", &q.spec, &q.grid), LB_ERR_UNSUPPORTED);
                        assert_non_null(strstr(lb_error(ctx), "layer"));
                        continue;
                    }
                    assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
                    check(ctx, &q);
                    cases++;
                }
    }
    return cases;
}

static inline void fill_normal(float *u, int64_t count, uint64_t seed, float stddev) {
    lb_rng_normal(seed, LB_RNG_TEST, 0, stddev, u, (size_t)count);
}

/* param (2, oc): learned parameters' first values. Returns NULL if the spec has none, as callers of the library must. */
static inline float *first_params(const lb_quant *q, const float *u, int oc, int64_t fan, float *param) {
    for (int o = 0; o < 2 * oc; o++)
        param[o] = NAN;
    if (!lb_quant_nparams(&q->spec))
        return NULL;
    q->spec.quantizer->init(&q->spec, u, oc, fan, param);
    return param;
}

#endif

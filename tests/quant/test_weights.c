/* Weights: the equation, forward and backward, for everything in the tables against plain references and finite differences. */
#include "quant/reference.h"

static float u[COUNT], uhat[COUNT], step[OC], param[2 * OC], work[2 * COUNT];
static int compared, skipped;

/* What one element's code must be; NaN where it is too near a decision to say. */
static double expected(const ref_group *g, const ref_row *row, int i) {
    double margin, code = row->code(g, (double)u[i], &margin);
    compared++;
    if (margin >= 1e-4)
        return code;
    skipped++;
    return (double)NAN;
}

static const lb_quant_when at = {.seed = 7, .step = 9, .stage_step = 9, .stage_steps = 100};

static void check_forward(lb_ctx *ctx, lb_quant *q) {
    const ref_row *row = ref_find(q->spec.quantizer);
    (void)ctx;
    const float *p = first_params(q, u, OC, FAN, param);
    lb_quant_weights_forward(q, row->random ? &lb_quant_evaluation : &at, p, WEIGHTS(u, OC, FAN), step, uhat, work);
    for (int o = 0; o < OC; o++) {
        const ref_group g = ref_group_of(q, p, u, OC, FAN, o, step);
        assert_true(fabs((double)step[o] - g.step) <= 1e-6 * g.step);
        for (int i = o * FAN; i < (o + 1) * FAN; i++) {
            double want = expected(&g, row, i);
            if (!isnan(want) && (double)uhat[i] != want)
                fail_msg("%s %d bits: u %g gives %g, should be %g", row->name, q->spec.bits, (double)u[i], (double)uhat[i], want);
        }
    }
}

static void forward(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    compared = skipped = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        fill_normal(u, COUNT, seed, seed == 2 ? 0.05f : 0.8f);
        assert_true(for_each_case(ctx, LB_WEIGHTS, check_forward) > 100);
    }
    assert_true(skipped < compared / 500);
    lb_ctx_destroy(ctx);
}

/* ---- Mixers: constant, and two that later methods will resemble ----------------------------------------------------- */

static bool saw_codes;

static bool filters(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    (void)spec, (void)scalar;
    assert_true(when->seed == 7 && when->step == 9); /* the same in forward and backward */
    saw_codes = true;
    for (int o = 0; o < w->oc; o++)
        for (int64_t i = 0; i < w->fan_in; i++) {
            assert_true(w->step[o] > 0.f && w->code[o * w->fan_in + i] == nearbyintf(w->code[o * w->fan_in + i]));
            m[o * w->fan_in + i] = (float)(o % 2);
        }
    return false;
}

static bool elements(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    (void)spec, (void)scalar, (void)when;
    for (int64_t i = 0; i < w->oc * w->fan_in; i++)
        m[i] = i % 3 == 0 ? 0.f : i % 3 == 1 ? 1.f : 0.3f;
    return false;
}

static float drawn[COUNT];

/* SQ's draw, remembered. */
static bool roulette(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    assert_false(lb_mixer_roulette.weights(spec, when, w, scalar, m));
    memcpy(drawn, m, sizeof drawn);
    return false;
}

static const lb_mixer mix_roulette = {.name = "roulette", .uses_code = true, .weights = roulette};
static const lb_mixer mix_filters = {.name = "filters", .uses_code = true, .weights = filters};
static const lb_mixer mix_elements = {.name = "elements", .weights = elements};

typedef struct mix_case {
    const lb_mixer *mixer;
    float value; /* alpha: where the ramp ends; roulette: the ratio */
} mix_case;

static const mix_case mixes[] = {
    {&lb_mixer_constant, 1.f}, {&lb_mixer_constant, 0.3f}, {&lb_mixer_constant, 0.f}, {&mix_filters, 0.f}, {&mix_elements, 0.f},
    {&lb_mixer_alpha, 0.5f}, {&mix_roulette, 0.5f}};

static double mix_of(const mix_case *mix, int o, int i) {
    if (mix->mixer == &mix_filters)
        return o % 2;
    if (mix->mixer == &mix_elements)
        return i % 3 == 0 ? 0 : i % 3 == 1 ? 1 : (double)0.3f;
    if (mix->mixer == &lb_mixer_alpha)
        return 1 - pow(1 - 9 / (100 * (double)mix->value), 3); /* at step 9 of 100 */
    if (mix->mixer == &mix_roulette)
        return (double)drawn[i];
    return (double)mix->value;
}

static void set_mix(lb_quant_spec *spec, const mix_case *mix) {
    spec->mixer = mix->mixer;
    spec->options.mix = spec->options.mix_end = spec->options.mix_ratio = mix->value;
    spec->options.mix_exponent = 3.f;
    spec->options.mix_scope = LB_SCOPE_ELEMENT;
    spec->options.mix_probability = LB_PROB_LINEAR;
}

static void check_mixed(lb_ctx *ctx, lb_quant *q) {
    static float code[COUNT], step2[OC];
    (void)ctx;
    if (ref_find(q->spec.quantizer)->random) /* test_logistic.c */
        return;
    const float *p = first_params(q, u, OC, FAN, param);
    for (lb_surrogate s = LB_SUR_IDENTITY; s <= LB_SUR_RELU; s++)
        for (size_t k = 0; k < LB_COUNT(mixes); k++) {
            q->spec.options.surrogate = s;
            set_mix(&q->spec, &mixes[k]);
            lb_quant_weights_forward(q, &lb_quant_evaluation, p, WEIGHTS(u, OC, FAN), step, code, work); /* all quantized */
            lb_quant_weights_forward(q, &at, p, WEIGHTS(u, OC, FAN), step2, uhat, work);
            assert_memory_equal(step, step2, sizeof step);
            for (int i = 0; i < COUNT; i++) {
                const double m = mix_of(&mixes[k], i / FAN, i), st = (double)step[i / FAN];
                const double want = ((1 - m) * ref_surrogate(s, (double)u[i]) + m * st * (double)code[i]) / st;
                assert_true(code[i] == nearbyintf(code[i]));
                if (m == 1)
                    assert_true(uhat[i] == code[i]);
                else
                    assert_true(fabs((double)uhat[i] - want) <= 1e-6 * (fabs(want) + fabs((double)(code[i])) + 1e-6));
            }
        }
}

static void mixed_forward(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, COUNT, 4, 0.8f);
    saw_codes = false;
    for_each_case(ctx, LB_WEIGHTS, check_mixed);
    assert_true(saw_codes);
    lb_ctx_destroy(ctx);
}

/* ---- Backward ---------------------------------------------------------------------------------------------------- */

static double phi(const ref_group *g, double m, double x) {
    return (1 - m) * ref_surrogate(g->spec->options.surrogate, x) + m * ref_through(g, x);
}

/* Derivative of phi by differences, NaN at a kink. */
static double slope(const ref_group *g, double m, double x) {
    const double h = 1e-5, up = (phi(g, m, x + h) - phi(g, m, x)) / h, down = (phi(g, m, x) - phi(g, m, x - h)) / h;
    return fabs(up - down) > 1e-2 * (fabs(up) + 1e-3) ? (double)NAN : (phi(g, m, x + h) - phi(g, m, x - h)) / (2 * h);
}

static bool is_seq(const lb_quant_spec *s) { return s->quantizer == &lb_quantizer_seq; }

/* A straight-through quantizer's value as its step moves: rounding is replaced by "adds what it added at step0" (LSQ, eq. 3). */
static double at_step(const ref_group *g, double x, double step0, double s) {
    double margin;
    ref_group g0 = *g;
    g0.step = step0;
    const double code = ref_find(g->spec->quantizer)->code(&g0, x, &margin),
                 beyond = is_seq(g->spec); /* it ends half a level later */
    if (g->spec->bits == 1 && !is_seq(g->spec))
        return s * code;
    const double lo = g->lo - beyond, hi = g->hi + beyond;
    return s * (ref_clip(x / s, lo, hi) + code - ref_clip(x / step0, lo, hi));
}

/* dorefa: the largest weight of a group also moves M = max |tanh u|, by which all of them are divided. */
static double through_max(const lb_quant *q, const ref_group *g, const mix_case *mixing, const float *diff, int i) {
    const bool per_filter = q->spec.options.per == LB_PER_FILTER;
    const int first = per_filter ? i / FAN * FAN : 0, last = per_filter ? first + FAN : COUNT;
    double loss[2] = {0, 0}, h = 1e-6;
    if (!is_dorefa(&q->spec) || q->spec.options.estimator != LB_EST_STE)
        return 0;
    for (int j = first; j < last; j++) {
        if (fabsf(u[j]) > fabsf(u[i]))
            return 0;
        for (int side = 0; side < 2; side++)
            loss[side] += mix_of(mixing, j / FAN, j) * (double)diff[j] * tanh((double)u[j]) / (g->delta + (side ? h : -h));
    }
    const double t = tanh((double)u[i]);
    return (loss[1] - loss[0]) / (2 * h) * (1 - t * t) * (u[i] < 0 ? -1 : 1);
}

static void check_backward(lb_ctx *ctx, lb_quant *q) {
    static float diff[COUNT], diff_u[COUNT], diff_param[2 * OC];
    (void)ctx;
    if (ref_find(q->spec.quantizer)->random) /* test_logistic.c */
        return;
    const float *p = first_params(q, u, OC, FAN, param);
    const bool logarithm = lb_quant_nparams(&q->spec) == 2; /* its learned parameters: test_logistic.c */
    if (p)
        for (int o = 0; o < OC; o++)
            param[o] = logarithm ? param[o] + logf(0.6f) : param[o] * 0.6f; /* some elements beyond the range */
    fill_normal(diff, COUNT, 11, 1.f);
    for (lb_surrogate s = LB_SUR_IDENTITY; s <= LB_SUR_RELU; s++)
        for (size_t k = 0; k < LB_COUNT(mixes); k++) {
            double want_param[OC] = {0}, size_param[OC] = {0};
            const bool per_filter = q->spec.options.per == LB_PER_FILTER;
            q->spec.options.surrogate = s;
            set_mix(&q->spec, &mixes[k]);
            lb_quant_weights_forward(q, &at, p, WEIGHTS(u, OC, FAN), step, uhat, work);
            for (int i = 0; i < COUNT; i++)
                diff_u[i] = 0.5f; /* backward adds */
            memset(diff_param, 0, sizeof diff_param);
            memset(work, 0xff, sizeof work);
            lb_quant_weights_backward(q, &at, p, STEPPED(u, OC, FAN, step), diff, diff_u, diff_param, work);
            for (int i = 0; i < COUNT; i++) {
                const int o = i / FAN;
                ref_group g = ref_group_of(q, p, u, OC, FAN, o, step);
                g.step = (double)step[o];
                const double m = mix_of(&mixes[k], o, i), d = slope(&g, m, (double)u[i]),
                             max = through_max(q, &g, &mixes[k], diff, i);
                const double want = 0.5 + d * (double)diff[i] + max;
                if (!isnan(d) && fabs((double)diff_u[i] - want) > (logarithm ? 4e-5 : 1e-5) * (1 + fabs(d) + fabs(max)))
                    fail_msg("%s %d bits, estimator %d, surrogate %d, mixer %s: gradient at %g is %g, should be %g",
                             q->spec.quantizer->name, q->spec.bits, (int)q->spec.options.estimator, (int)s, mixes[k].mixer->name,
                             (double)u[i], (double)diff_u[i], want);
                if (p && !logarithm) {
                    const double h = 1e-6 * g.step;
                    const double ds =
                        (at_step(&g, (double)u[i], g.step, g.step + h) - at_step(&g, (double)u[i], g.step, g.step - h)) / (2 * h);
                    /* seq: codes count halves of its parameter */
                    const double half = is_seq(&q->spec) ? 0.5 : 1, scale = half / sqrt((double)g.size * g.hi * half);
                    want_param[per_filter ? o : 0] += scale * m * ds * (double)diff[i];
                    size_param[per_filter ? o : 0] += scale * fabs(ds * (double)diff[i]);
                }
            }
            for (int o = 0; !logarithm && o < OC; o++)
                assert_true(fabs((double)diff_param[o] - want_param[o]) <= 1e-5 * size_param[o]);
            lb_quant_weights_backward(q, &at, p, STEPPED(u, OC, FAN, step), diff, diff_u, NULL, work); /* parameters not wanted */
        }
}

static void backward(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, COUNT, 5, 0.8f);
    assert_true(for_each_case(ctx, LB_WEIGHTS, check_backward) > 100);
    lb_ctx_destroy(ctx);
}

/* ---- Scales -------------------------------------------------------------------------------------------------------- */

/* Least squares: as good as the best of 1000 steps, to 4 %, on three shapes of data. */
static void l2_scale(void **state) {
    enum { N = 3000 };
    static float v[N], code[N];
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (int shape = 0; shape < 3; shape++)
        for (int bits = 2; bits <= 8; bits++) {
            lb_quant q = {.spec = {.quantizer = &lb_quantizer_uniform, .bits = bits, .options.scale = LB_SCALE_L2}};
            assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
            fill_normal(v, N, 6, 1.f);
            for (int i = 0; i < N; i++)
                v[i] = shape == 0 ? v[i] : shape == 1 ? v[i] * v[i] * v[i] : fmodf(v[i], 1.f); /* normal, long tails, short tails */
            lb_quant_weights_forward(&q, &at, NULL, WEIGHTS(v, 1, N), step, code, code);
            const double best = ref_best_error(v, N, q.grid.lo, q.grid.hi),
                         found = ref_error(v, N, (double)step[0], q.grid.lo, q.grid.hi);
            if (found > 1.04 * best)
                fail_msg("shape %d, %d bits: error %g, best %g", shape, bits, found, best);
        }
    lb_ctx_destroy(ctx);
}

/* Nor worse than the step of the range, whatever the search's sample of every third weight sees. */
static void l2_beside_range(void **state) {
    enum { N = 3000 };
    static float v[N], code[N];
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (int bits = 2; bits <= 8; bits++)
        for (int shift = 0; shift < 3; shift++) {
            lb_quant q = {.spec = {.quantizer = &lb_quantizer_uniform, .bits = bits, .options.scale = LB_SCALE_L2}};
            assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
            fill_normal(v, N, 9, 0.01f);
            for (int i = 0; i < N; i++)
                v[i] = i % 3 == shift ? v[i] : v[i] < 0 ? -1.f : 1.f;
            lb_quant_weights_forward(&q, &at, NULL, WEIGHTS(v, 1, N), step, code, code);
            const double range = ref_error(v, N, 1.0 / q.grid.hi, q.grid.lo, q.grid.hi),
                         found = ref_error(v, N, (double)step[0], q.grid.lo, q.grid.hi);
            if (found > 1.001 * range)
                fail_msg("%d bits: error %g, the range's %g", bits, found, range);
        }
    lb_ctx_destroy(ctx);
}

/* First steps of learned parameters. */
static void initial(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, COUNT, 8, 0.3f);
    for (int bits = 1; bits <= 8; bits++) {
        lb_quant q = {.spec = {.quantizer = &lb_quantizer_lsq, .bits = bits, .options.per = LB_PER_FILTER}};
        assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
        first_params(&q, u, OC, FAN, param);
        for (int o = 0; o < OC; o++) {
            const double want = 2 * ref_mean_abs(u + o * FAN, FAN) / sqrt((double)q.grid.hi);
            assert_true(fabs((double)param[o] - want) <= 1e-6 * want);
        }
    }
    lb_ctx_destroy(ctx);
}

/* The largest weight, wherever it is, has the outermost code, and is still inside of what gradients pass. */
static void largest_anywhere(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (int bits = 2; bits <= 8; bits++) {
        lb_quant q = {.spec = {.quantizer = &lb_quantizer_uniform, .bits = bits}};
        float diff[FAN], diff_u[FAN];
        assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
        for (int n = 1; n <= FAN; n++)
            for (int i = 0; i < n; i++) {
                fill_normal(u, n, (uint64_t)i, 0.1f);
                u[i] = (i % 2 ? -1.f : 1.f) * (1.f + (float)(i * FAN + n) / 1439.f);
                lb_quant_weights_forward(&q, &at, NULL, WEIGHTS(u, 1, n), step, uhat, work);
                assert_true(fabsf(step[0] * (float)q.grid.hi - fabsf(u[i])) <= 1e-6f * fabsf(u[i]));
                assert_true(uhat[i] == (i % 2 ? -(float)q.grid.hi : (float)q.grid.hi));
                for (int k = 0; k < n; k++)
                    diff[k] = 1.f, diff_u[k] = 0.f;
                lb_quant_weights_backward(&q, &at, NULL, STEPPED(u, 1, n, step), diff, diff_u, NULL, work);
                for (int k = 0; k < n; k++)
                    assert_true(diff_u[k] == 1.f);
            }
    }
    lb_ctx_destroy(ctx);
}

/* Weights on the outermost levels and beside them, where differences say nothing: LSQ's are outside (eq. 3 and section 2.1), those
 * of a straight-through estimator that is cut at 1 inside (BNN, eq. 4). */
static void ends(void **state) {
    static const struct {
        const lb_quantizer *quantizer;
        lb_estimator estimator;
        int bits;
        float u[6], diff_u[6], diff_param; /* of a step of 1/4 */
    } cases[] = {
        {&lb_quantizer_lsq, LB_EST_OWN, 2, {-0.75f, -0.5f, -0.4375f, 0.1875f, 0.25f, 0.5f}, {0, 0, 1, 1, 0, 0}, -2.f},
        {&lb_quantizer_lsq, LB_EST_OWN, 3, {-1.5f, -1.f, -0.9375f, 0.6875f, 0.75f, 2.f}, {0, 0, 1, 1, 0, 0}, -2.f},
        {&lb_quantizer_lsq, LB_EST_OWN, 1, {-0.5f, -0.25f, -0.1875f, 0.1875f, 0.25f, 0.5f}, {0, 0, 1, 1, 0, 0}, 0.f},
        {&lb_quantizer_bwn, LB_EST_CLIPPED, 1, {-1.0625f, -1.f, -0.9375f, 0.9375f, 1.f, 1.0625f}, {0, 1, 1, 1, 1, 0}, 0.f},
        {&lb_quantizer_sign, LB_EST_CLIPPED, 1, {-1.0625f, -1.f, -0.9375f, 0.9375f, 1.f, 1.0625f}, {0, 1, 1, 1, 1, 0}, 0.f},
    };
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        lb_quant q = {.spec = {.quantizer = cases[i].quantizer, .bits = cases[i].bits, .options.estimator = cases[i].estimator}};
        const float diff[6] = {1, 1, 1, 1, 1, 1}, quarter = 0.25f;
        float diff_u[6] = {0}, diff_param = 0;
        assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
        q.spec.options.per = LB_PER_TENSOR;
        lb_quant_weights_forward(&q, &at, &quarter, WEIGHTS(cases[i].u, 1, 6), step, uhat, work);
        lb_quant_weights_backward(&q, &at, &quarter, STEPPED(cases[i].u, 1, 6, step), diff, diff_u, &diff_param, work);
        for (int k = 0; k < 6; k++)
            if (diff_u[k] != cases[i].diff_u[k])
                fail_msg("case %d: gradient %g at %g", (int)i, (double)diff_u[k], (double)cases[i].u[k]);
        const float want = cases[i].diff_param / sqrtf(6.f * (float)q.grid.hi);
        assert_true(fabsf(diff_param - want) <= 1e-6f);
    }
    lb_ctx_destroy(ctx);
}

/* What is quantized is the code, whatever the float part beside it would be. */
static void infinite_weights(void **state) {
    lb_ctx *ctx = test_ctx();
    lb_quant q = {.spec = {.quantizer = &lb_quantizer_lsq, .bits = 3, .mixer = &mix_elements}};
    const float quarter = 0.25f, v[9] = {0.1f, INFINITY, 0.1f, 0.1f, -INFINITY, 0.1f, 0.1f, NAN, 0.1f};
    (void)state;
    assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
    lb_quant_weights_forward(&q, &at, &quarter, WEIGHTS(v, 1, 9), step, uhat, work);
    assert_true(uhat[1] == 3.f && uhat[4] == -4.f && uhat[7] >= -4.f && uhat[7] <= 3.f);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(forward), cmocka_unit_test(mixed_forward), cmocka_unit_test(backward),
                                       cmocka_unit_test(l2_scale), cmocka_unit_test(l2_beside_range), cmocka_unit_test(initial),
                                       cmocka_unit_test(largest_anywhere), cmocka_unit_test(ends),
                                       cmocka_unit_test(infinite_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Activations: every quantizer's elementwise form against its formula in double, the gradient against differences of what it stands
 * for, learned parameters, mixers, extreme inputs. */
#include "quant/reference.h"
#include "quant/rint.h"

enum { N = 600 };
static const lb_quant_when at = {.seed = 3, .step = 4, .stage_step = 4, .stage_steps = 100};
static float z[N], param[2];
static int compared, skipped;

/* One row for each quantizer of activations: its value and what its usual estimator is the derivative of. */
typedef struct act_row {
    const char *name;
    double (*value)(const lb_quant *q, double s, double z, double *margin); /* z~ */
    double (*smooth)(const lb_quant *q, double s, double z);
    lb_act_learn learn;
} act_row;

static double sign_value(const lb_quant *q, double s, double x, double *margin) {
    (void)q, (void)s;
    *margin = fabs(x);
    return x < 0 ? -1 : 1;
}
static double sign_smooth(const lb_quant *q, double s, double x) {
    (void)q, (void)s;
    return ref_clip(x, -1, 1);
}
static double top(const lb_quant *q) { return (1 << q->spec.bits) - 1; }
static double dorefa_value(const lb_quant *q, double s, double x, double *margin) {
    (void)s;
    return ref_round(top(q) * ref_clip(x, 0, 1), 0, top(q), margin) / top(q);
}
static double dorefa_smooth(const lb_quant *q, double s, double x) {
    (void)q, (void)s;
    return ref_clip(x, 0, 1);
}
static double pact_smooth(const lb_quant *q, double s, double x) {
    (void)q;
    return 0.5 * (fabs(x) - fabs(x - s) + s); /* s is the clip here */
}
static double pact_value(const lb_quant *q, double s, double x, double *margin) {
    return ref_round(pact_smooth(q, s, x) * top(q) / s, 0, top(q), margin) * s / top(q);
}
static double even_value(const lb_quant *q, double s, double x, double *margin) {
    if (q->spec.bits == 1 && q->spec.is_signed) {
        *margin = fabs(x);
        return x < 0 ? -s : s;
    }
    const double lo = q->spec.is_signed ? -(1 << (q->spec.bits - 1)) : 0, hi = q->spec.is_signed ? -lo - 1 : top(q);
    return s * ref_round(x / s, lo, hi, margin);
}
static double even_smooth(const lb_quant *q, double s, double x) {
    if (q->spec.bits == 1 && q->spec.is_signed)
        return ref_clip(x, -s, s);
    const double lo = q->spec.is_signed ? -(1 << (q->spec.bits - 1)) : 0, hi = q->spec.is_signed ? -lo - 1 : top(q);
    return ref_clip(x, s * lo, s * hi);
}

/* s is the step, sigma a third of it: as it starts. */
static double soft_smooth(const lb_quant *q, double s, double x) { return ref_expect(x, s, s / 3, q->grid.lo, q->grid.hi); }

static const act_row act_rows[] = {
    {"sign", sign_value, sign_smooth, 0}, {"xnor", sign_value, sign_smooth, 0},    {"dorefa", dorefa_value, dorefa_smooth, 0},
    {"pact", pact_value, pact_smooth, 1}, {"uniform", even_value, even_smooth, 0}, {"lsq", even_value, even_smooth, 2},
    {"cpq", even_value, soft_smooth, 3},  {"rq", even_value, NULL, 3}, /* NULL: of a draw, tests/quant/test_logistic.c */
};

static const act_row *row_of(const lb_quant *q) {
    for (size_t i = 0; i < LB_COUNT(act_rows); i++)
        if (!strcmp(act_rows[i].name, q->spec.quantizer->name))
            return &act_rows[i];
    fail_msg("%s has no row in test_activations.c", q->spec.quantizer->name);
    return NULL;
}

/* The parameters as they start, made such that some z are outside the range; NULL if there are none. */
static const float *start(const lb_quant *q) {
    if (!lb_quant_nparams(&q->spec))
        return NULL;
    const float factor = q->spec.quantizer == &lb_quantizer_pact ? 0.12f : 0.7f;
    q->spec.quantizer->init(&q->spec, z, 1, N, param);
    for (int p = 0; p < lb_quant_nparams(&q->spec); p++)
        param[p] = q->spec.quantizer->log_params ? param[p] + logf(factor) : param[p] * factor;
    return param;
}

static double smooth(const lb_quant *q, const act_row *row, double s, double x) {
    switch (q->spec.options.estimator) {
    case LB_EST_NONE:
        return 0;
    case LB_EST_STE:
        return x;
    case LB_EST_CLIPPED:
        return row->learn == LB_LEARN_SOFT ? even_smooth(q, s, x) : row->smooth(q, s, x);
    default:
        return row->smooth ? row->smooth(q, s, x) : 0;
    }
}

/* Derivatives of the value by log step and log sigma, of the whole grid's mean. */
static void soft_params(const lb_quant *q, double s, double x, double d[2]) {
    const double h = 1e-4;
    d[0] = (ref_expect(x, s * exp(h), s / 3, q->grid.lo, q->grid.hi) - ref_expect(x, s * exp(-h), s / 3, q->grid.lo, q->grid.hi)) /
           (2 * h);
    d[1] = (ref_expect(x, s, s / 3 * exp(h), q->grid.lo, q->grid.hi) - ref_expect(x, s, s / 3 * exp(-h), q->grid.lo, q->grid.hi)) /
           (2 * h);
}

static void check(lb_ctx *ctx, lb_quant *q) {
    static const float ms[] = {1.f, 0.3f, 0.f};
    const act_row *row = row_of(q);
    const float *p = start(q);
    const bool soft = row->learn == LB_LEARN_SOFT, drawn = !row->smooth;
    const double s = !p ? 0 : soft ? exp((double)*p) : (double)*p;
    (void)ctx;
    for (lb_surrogate sur = LB_SUR_IDENTITY; sur <= LB_SUR_RELU; sur++)
        for (size_t k = 0; k < LB_COUNT(ms); k++) {
            lb_act_form f;
            double want_param[2] = {0}, size_param = 0;
            float diff_param[2] = {0};
            const double m = (double)ms[k];
            q->spec.options.mix = ms[k], q->spec.options.surrogate = sur;
            lb_quant_act_form(q, &lb_quant_evaluation, p, &f);
            assert_true(f.m == 1.f);
            lb_quant_act_form(q, &at, p, &f);
            assert_true(f.m == ms[k] && f.step > 0.f && f.lo == (float)q->grid.lo && f.hi == (float)q->grid.hi);
            assert_true(f.sign == (q->grid.mul == 2));
            assert_int_equal(f.learn, row->learn);
            for (int i = 0; i < N; i++) {
                const double x = (double)z[i], h = 1e-5, st = (double)f.step, diff = 0.01 * (i % 11 - 5);
                double margin, far;
                const double value = row->value(q, s, x, &margin), got = (double)lb_act_forward_ref(&f, z[i]);
                const double want = ((1 - m) * ref_surrogate(sur, x) + m * value) / st;
                compared++;
                if (margin < 1e-4)
                    skipped++;
                else if (fabs(got - want) > 1e-6 * (fabs(want) + fabs(value / st) + fabs((1 - m) * x / st)))
                    fail_msg("%s %d bits: %g gives %g, should be %g", row->name, q->spec.bits, x, got, want);
                if (m == 1)
                    assert_true(got == nearbyint(got) && got >= q->grid.lo && got <= q->grid.hi);

                const double up = (1 - m) * (ref_surrogate(sur, x + h) - ref_surrogate(sur, x)) +
                                  m * (smooth(q, row, s, x + h) - smooth(q, row, s, x));
                const double down = (1 - m) * (ref_surrogate(sur, x) - ref_surrogate(sur, x - h)) +
                                    m * (smooth(q, row, s, x) - smooth(q, row, s, x - h));
                const double back = (double)lb_act_backward_ref(&f, z[i], (float)diff, diff_param);
                if (drawn && q->spec.options.estimator == LB_EST_OWN)
                    continue;
                if (fabs(up - down) < 1e-3 * h && fabs(back - diff * (up + down) / (2 * h)) > (soft ? 2e-6 : 1e-6))
                    fail_msg("%s %d bits, estimator %d, m %g: gradient %g at %g, should be %g", row->name, q->spec.bits,
                             (int)q->spec.options.estimator, m, back, x, diff * (up + down) / (2 * h));
                if (soft) {
                    double d[2];
                    soft_params(q, s, x, d);
                    for (int c = 0; c < 2; c++)
                        want_param[c] += m * diff * d[c];
                    size_param += fabs(m * diff) * (1 + fabs(d[0]));
                } else if (f.learn) { /* PACT: of the smooth clip. LSQ: of rounding replaced by "adds what it added at s" */
                    const double e = 1e-6 * s;
                    double d;
                    if (f.learn == LB_LEARN_CLIP)
                        d = (pact_smooth(q, s + e, x) - pact_smooth(q, s - e, x)) / (2 * e);
                    else if (f.sign)
                        d = value / s;
                    else {
                        const double added = (even_value(q, s, x, &far) - even_smooth(q, s, x)) / s;
                        d = (even_smooth(q, s + e, x) - even_smooth(q, s - e, x)) / (2 * e) + added;
                    }
                    want_param[0] += m * diff * d, size_param += fabs(m * diff);
                }
            }
            const double g = f.learn == LB_LEARN_STEP ? 1 / sqrt((double)q->spec.features * q->grid.hi) : 1;
            assert_true(fabs((double)f.learn_scale - (soft ? (double)f.step : g)) < 1e-6 * g);
            for (int c = 0; c < 2 && !drawn; c++)
                if (fabs((double)diff_param[c] - g * want_param[c]) > 2e-5 * g * size_param)
                    fail_msg("%s %d bits, estimator %d, m %g: parameter %d has %g, should be %g (%g)", row->name, q->spec.bits,
                             (int)q->spec.options.estimator, m, c, (double)diff_param[c], g * want_param[c], size_param);
        }
}

static void formula(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    compared = skipped = 0;
    fill_normal(z, N, 40, 0.8f);
    assert_true(for_each_case(ctx, LB_ACTIVATIONS, check) > 100);
    assert_true(skipped < compared / 500);
    lb_ctx_destroy(ctx);
}

/* Codes of any float are codes: never NaN, never out of range. */
static void check_extreme(lb_ctx *ctx, lb_quant *q) {
    static const float xs[] = {0, -0.f, 1e-45f, -1e-45f, FLT_MIN, FLT_MAX, -FLT_MAX, INFINITY, -INFINITY, NAN, -NAN};
    static const float params[] = {1.f, 0.f, -1.f, 1e-45f, FLT_MAX, INFINITY, NAN, -FLT_MAX}; /* two in a row */
    (void)ctx;
    for (size_t k = 0; k + 1 < LB_COUNT(params); k++) {
        lb_act_form f;
        lb_quant_act_form(q, &lb_quant_evaluation, &params[k], &f);
        assert_true(f.step > 0.f && f.step <= FLT_MAX && 1.f / f.step <= FLT_MAX);
        for (size_t i = 0; i < LB_COUNT(xs); i++) {
            float c = lb_act_forward_ref(&f, xs[i]), d[2] = {0};
            assert_true(c == nearbyintf(c) && c >= f.lo && c <= f.hi);
            if (isnan(xs[i]))
                assert_true(c == f.lo &&
                            (q->spec.options.estimator == LB_EST_STE || lb_act_backward_ref(&f, xs[i], 1.f, d) == 0.f));
            lb_act_backward_ref(&f, xs[i], 1.f, d);
            lb_act_backward_ref(&f, xs[i], 1.f, NULL);
            assert_true(fabsf(d[0]) <= FLT_MAX && fabsf(d[1]) <= FLT_MAX);
        }
    }
}

static void extreme_inputs(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    for_each_case(ctx, LB_ACTIVATIONS, check_extreme);
    lb_ctx_destroy(ctx);
}

/* First values from a batch, and from batches of nothing or nonsense. */
static void initial(void **state) {
    static const float odd[][4] = {
        {0, 0, 0, 0}, {-1, -2, -3, -4}, {NAN, NAN, NAN, NAN}, {INFINITY, 1, -INFINITY, NAN}, {3e38f, 3e38f, 3e38f, 0}};
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(z, N, 41, 1.5f);
    double sum = 0, relu = 0, max = 0, max_abs = 0;
    for (int i = 0; i < N; i++) {
        const double x = (double)z[i];
        sum += fabs(x), relu += fmax(x, 0), max = fmax(max, x), max_abs = fmax(max_abs, fabs(x));
    }
    for (int bits = 1; bits <= 8; bits++)
        for (int is_signed = 0; is_signed < 2; is_signed++) {
            lb_quant q = {.spec = {.target = LB_ACTIVATIONS, .bits = bits, .is_signed = is_signed}};
            double want[3];
            const lb_quantizer *const quantizers[] = {&lb_quantizer_lsq, &lb_quantizer_uniform, &lb_quantizer_pact};
            const double hi = is_signed ? bits == 1 ? 1 : (1 << (bits - 1)) - 1 : (1 << bits) - 1;
            want[0] = 2 * (is_signed ? sum : relu) / N / sqrt(hi);
            want[1] = is_signed ? bits == 1 ? sum / N : max_abs / hi : max / hi;
            want[2] = 10;
            for (int k = 0; k < 3; k++) {
                q.spec.quantizer = quantizers[k];
                q.spec.options.estimator = LB_EST_DEFAULT;
                assert_ok(ctx, lb_quant_resolve(ctx, "act", &q.spec, &q.grid));
                assert_int_equal(lb_quant_nparams(&q.spec), 1);
                q.spec.quantizer->init(&q.spec, z, 1, N, param);
                assert_true(fabs((double)*param - want[k]) <= 1e-6 * want[k]);
                for (size_t i = 0; i < LB_COUNT(odd); i++) {
                    q.spec.quantizer->init(&q.spec, odd[i], 1, 4, param);
                    assert_true(*param > 0.f && *param <= FLT_MAX);
                }
            }
        }
    lb_ctx_destroy(ctx);
}

/* lb_rint is rint on its whole range, halves to even. */
static void rounding(void **state) {
    (void)state;
    for (float x = -300.f; x <= 300.f; x += 0.125f)
        assert_true(lb_rint(x) == nearbyintf(x));
    fill_normal(z, N, 42, 1e5f);
    for (int i = 0; i < N; i++)
        assert_true(lb_rint(z[i]) == nearbyintf(z[i]));
    assert_true(isnan(lb_rint(NAN)));
    assert_true(lb_round_clip(NAN, -3.f, 3.f) == -3.f);
    assert_true(lb_round_clip(INFINITY, -3.f, 3.f) == 3.f && lb_round_clip(-INFINITY, -3.f, 3.f) == -3.f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(formula), cmocka_unit_test(extreme_inputs), cmocka_unit_test(initial),
                                       cmocka_unit_test(rounding)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What must hold for every quantizer of weights, ordinary and extreme inputs alike. Run under the sanitizers too. */
#include "quant/reference.h"

static const lb_quant_when at = {.seed = 3, .step = 4, .stage_step = 4, .stage_steps = 100};
static float u[COUNT], code[COUNT], step[OC], param[2 * OC], work[2 * COUNT];
static float v[COUNT], code2[COUNT], step2[OC];

/* Codes are whole, on the grid and storable; steps positive, finite, one per tensor or filter. */
static void assert_on_grid(const lb_quant *q, int oc, int64_t fan, const float *c, const float *s) {
    const lb_grid *g = &q->grid;
    const int levels = (g->hi - g->lo) / g->mul + 1;
    assert_true(levels <= 1 << g->bits);
    for (int o = 0; o < oc; o++) {
        assert_true(s[o] > 0.f && s[o] <= FLT_MAX && 1.f / s[o] <= FLT_MAX);
        if (q->spec.options.per == LB_PER_TENSOR)
            assert_true(s[o] == s[0]);
    }
    for (int64_t i = 0; i < oc * fan; i++) {
        assert_true(c[i] >= (float)g->lo && c[i] <= (float)g->hi);
        const int whole = (int)c[i], stored = (whole - g->add) / g->mul;
        assert_true((float)whole == c[i]);
        assert_int_equal((whole - g->add) % g->mul, 0);
        assert_in_range(stored, 0, levels - 1);
    }
}

static void check_grid(lb_ctx *ctx, lb_quant *q) {
    (void)ctx;
    assert_int_equal(q->grid.bits, q->spec.bits);
    const float *p = first_params(q, u, OC, FAN, param);
    lb_quant_weights_forward(q, &at, p, WEIGHTS(u, OC, FAN), step, code, work);
    assert_on_grid(q, OC, FAN, code, step);
    lb_quant_weights_forward(q, &at, p, WEIGHTS(u, OC, FAN), step2, code2, work); /* a function of its arguments */
    assert_memory_equal(code, code2, sizeof code);
    assert_memory_equal(step, step2, sizeof step);
}

/* Q(Q(u)) = Q(u), with learned parameters held. Not for dorefa above 1 bit (tanh again), nor least squares (a search). */
static void check_idempotent(lb_ctx *ctx, lb_quant *q) {
    const ref_row *row = ref_find(q->spec.quantizer);
    (void)ctx;
    if (is_l2(&q->spec) || (!row->idempotent && q->spec.bits > 1))
        return;
    const float *p = first_params(q, u, OC, FAN, param);
    const lb_quant_when *when = row->random ? &lb_quant_evaluation : &at;
    lb_quant_weights_forward(q, when, p, WEIGHTS(u, OC, FAN), step, code, work);
    for (int i = 0; i < COUNT; i++)
        v[i] = step[i / FAN] * code[i];
    lb_quant_weights_forward(q, when, p, WEIGHTS(v, OC, FAN), step2, code2, work);
    assert_memory_equal(code, code2, sizeof code);
    for (int o = 0; o < OC; o++)
        assert_true(fabsf(step2[o] - step[o]) <= 1e-6f * step[o]);
}

/* Q(-u) = -Q(u) off the ties. Not for two's-complement grids used to their lowest code (lsq, least squares). */
static void check_odd(lb_ctx *ctx, lb_quant *q) {
    const ref_row *row = ref_find(q->spec.quantizer);
    int ties = 0;
    (void)ctx;
    if (is_l2(&q->spec) || (!row->odd && q->spec.bits > 1))
        return;
    const float *p = first_params(q, u, OC, FAN, param);
    for (int i = 0; i < COUNT; i++)
        v[i] = -u[i];
    lb_quant_weights_forward(q, &at, p, WEIGHTS(u, OC, FAN), step, code, work);
    lb_quant_weights_forward(q, &at, p, WEIGHTS(v, OC, FAN), step2, code2, work);
    assert_memory_equal(step, step2, sizeof step);
    for (int i = 0; i < COUNT; i++) {
        const ref_group g = ref_group_of(q, p, u, OC, FAN, i / FAN, step);
        double margin;
        row->code(&g, (double)u[i], &margin);
        if (margin < 1e-4)
            ties++;
        else
            assert_true(code[i] == -code2[i]);
    }
    assert_true(ties < COUNT / 20);
}

/* Q(a u) = a Q(u) for a power of two, learned steps scaled likewise. `sign` has no scale: its codes stay. Not for tanh. */
static void check_equivariant(lb_ctx *ctx, lb_quant *q) {
    const ref_row *row = ref_find(q->spec.quantizer);
    (void)ctx;
    if (!row->equivariant && q->spec.bits > 1)
        return;
    float *p = (float *)first_params(q, u, OC, FAN, param);
    lb_quant_weights_forward(q, &at, p, WEIGHTS(u, OC, FAN), step, code, work);
    for (int i = 0; i < COUNT; i++)
        v[i] = 0.125f * u[i];
    for (int o = 0; p && o < OC; o++)
        param[o] *= 0.125f;
    lb_quant_weights_forward(q, &at, p, WEIGHTS(v, OC, FAN), step2, code2, work);
    assert_memory_equal(code, code2, sizeof code);
    for (int o = 0; o < OC; o++)
        assert_true(step2[o] == (q->spec.quantizer == &lb_quantizer_sign ? 1.f : 0.125f * step[o]));
}

static void invariants(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (uint64_t seed = 20; seed < 23; seed++) {
        fill_normal(u, COUNT, seed, 0.5f);
        assert_true(for_each_case(ctx, LB_WEIGHTS, check_grid) > 100);
        for_each_case(ctx, LB_WEIGHTS, check_idempotent);
        for_each_case(ctx, LB_WEIGHTS, check_odd);
        for_each_case(ctx, LB_WEIGHTS, check_equivariant);
    }
    lb_ctx_destroy(ctx);
}

/* ---- Extreme inputs ---------------------------------------------------------------------------------------------- */

typedef struct extreme {
    const char *name;
    float values[6]; /* repeated */
    bool finite;
} extreme;

static const extreme extremes[] = {
    {"zeros", {0, 0, 0, 0, 0, 0}, true},
    {"minus zeros", {-0.f, 0, -0.f, 0, -0.f, 0}, true},
    {"one value", {3, 3, 3, 3, 3, 3}, true},
    {"huge", {3e38f, -3e38f, 1e38f, 1, 0, -2}, true},
    {"largest", {FLT_MAX, FLT_MAX, FLT_MAX, FLT_MAX, -FLT_MAX, FLT_MAX}, true},
    {"denormal", {1e-42f, -1e-44f, 3e-40f, 0, 1e-45f, -1e-39f}, true},
    {"tiny and one", {1e-38f, -1e-20f, 1, 0, 1e-30f, -1e-39f}, true},
    {"NaN", {NAN, NAN, NAN, NAN, NAN, NAN}, false},
    {"some NaN", {1, NAN, -1, 0.5f, -NAN, 2}, false},
    {"infinite", {INFINITY, -INFINITY, INFINITY, INFINITY, INFINITY, -INFINITY}, false},
    {"mixed", {INFINITY, 1, NAN, -1, -INFINITY, 0}, false},
};

static const extreme *now;

static void check_extreme(lb_ctx *ctx, lb_quant *q) {
    static float diff[COUNT], diff_u[COUNT], diff_param[2 * OC];
    static const int shapes[][2] = {{OC, FAN}, {1, 1}, {OC, 1}, {1, FAN}, {3, 9}};
    (void)ctx;
    for (size_t s = 0; s < LB_COUNT(shapes); s++)
        for (int mixed = 0; mixed < 2; mixed++) {
            const int oc = shapes[s][0];
            const int64_t fan = shapes[s][1];
            q->spec.options.mix = mixed ? 0.3f : 1.f;
            const float *p = first_params(q, u, oc, fan, param);
            lb_quant_weights_forward(q, &lb_quant_evaluation, p, WEIGHTS(u, oc, fan), step, code, work);
            assert_on_grid(q, oc, fan, code, step);
            for (int64_t i = 0; i < oc * fan; i++) {
                if (isnan(u[i]) && code[i] != (q->spec.quantizer == &lb_quantizer_twn ? 0.f : (float)q->grid.lo))
                    fail_msg("%s: NaN has code %g", q->spec.quantizer->name, (double)code[i]);
                if (u[i] == INFINITY)
                    assert_true(code[i] == (float)q->grid.hi);
            }
            for (int64_t i = 0; i < oc * fan; i++)
                diff[i] = 1e-3f * (float)(i % 7 - 3), diff_u[i] = 0.f;
            memset(diff_param, 0, sizeof diff_param);
            lb_quant_weights_forward(q, &at, p, WEIGHTS(u, oc, fan), step, code, work);
            lb_quant_weights_backward(q, &at, p, STEPPED(u, oc, fan, step), diff, diff_u, diff_param, work);
            for (int64_t i = 0; now->finite && i < oc * fan; i++)
                if (!(fabsf(diff_u[i]) <= FLT_MAX))
                    fail_msg("%s, %d bits, %s: gradient %g at %g", q->spec.quantizer->name, q->spec.bits, now->name,
                             (double)diff_u[i], (double)u[i]);
            for (int o = 0; o < 2 * oc; o++)
                assert_true(fabsf(diff_param[o]) <= FLT_MAX);
        }
}

static void extreme_inputs(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (size_t e = 0; e < LB_COUNT(extremes); e++) {
        now = &extremes[e];
        for (int i = 0; i < COUNT; i++)
            u[i] = now->values[i % 6];
        assert_true(for_each_case(ctx, LB_WEIGHTS, check_extreme) > 100);
    }
    lb_ctx_destroy(ctx);
}

/* Learned steps that training drove to nonsense are floored. */
static void bad_params(void **state) {
    static const float bad[] = {0.f, -1.f, NAN, INFINITY, -INFINITY, FLT_MAX, 1e-45f};
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, COUNT, 30, 1.f);
    for (size_t b = 0; b < LB_COUNT(bad); b++) /* logarithms of step and sigma, each with each */
        for (size_t c = 0; c < LB_COUNT(bad); c++)
            for (int k = 0; k < 2; k++) {
                static float diff[COUNT], diff_u[COUNT], diff_param[2];
                const float both[2] = {bad[b], bad[c]};
                lb_quant q = {
                    .spec = {.quantizer = k ? &lb_quantizer_cpq : &lb_quantizer_rq, .bits = 4, .options.cpq_backward = b % 2}};
                assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
                fill_normal(diff, COUNT, 31, 1.f);
                memset(diff_u, 0, sizeof diff_u);
                memset(diff_param, 0, sizeof diff_param);
                lb_quant_weights_forward(&q, &at, both, WEIGHTS(u, OC, FAN), step, code, work);
                assert_on_grid(&q, OC, FAN, code, step);
                lb_quant_weights_backward(&q, &at, both, STEPPED(u, OC, FAN, step), diff, diff_u, diff_param, work);
                for (int i = 0; i < COUNT; i++)
                    assert_true(fabsf(diff_u[i]) <= FLT_MAX);
                assert_true(fabsf(diff_param[0]) <= FLT_MAX && fabsf(diff_param[1]) <= FLT_MAX);
            }
    for (size_t b = 0; b < LB_COUNT(bad); b++) {
        lb_quant q = {.spec = {.quantizer = &lb_quantizer_lsq, .bits = 4}};
        assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
        lb_quant_weights_forward(&q, &lb_quant_evaluation, &bad[b], WEIGHTS(u, OC, FAN), step, code, work);
        assert_on_grid(&q, OC, FAN, code, step);
        assert_true(step[0] >= 1e-8f); /* the floor */
    }
    lb_ctx_destroy(ctx);
}

/* A weight that is no number counts as 0: the step and everybody else's codes are what they were. */
static void check_stray(lb_ctx *ctx, lb_quant *q) {
    static const float strays[] = {NAN, INFINITY, -INFINITY};
    (void)ctx;
    if (lb_quant_nparams(&q->spec))
        return;
    memcpy(v, u, sizeof v);
    v[40] = 0.f;
    lb_quant_weights_forward(q, &at, NULL, WEIGHTS(v, OC, FAN), step, code, work);
    for (size_t s = 0; s < LB_COUNT(strays); s++) {
        v[40] = strays[s];
        lb_quant_weights_forward(q, &at, NULL, WEIGHTS(v, OC, FAN), step2, code2, work);
        code2[40] = code[40];
        assert_memory_equal(code, code2, sizeof code);
        assert_memory_equal(step, step2, sizeof step);
    }
}

/* The sign of 0 is +1, of -0 too. */
static void check_sign_of_zero(lb_ctx *ctx, lb_quant *q) {
    (void)ctx;
    if (q->spec.bits > 1)
        return;
    memcpy(v, u, sizeof v);
    v[3] = 0.f, v[4] = -0.f;
    lb_quant_weights_forward(q, &at, first_params(q, v, OC, FAN, param), WEIGHTS(v, OC, FAN), step, code, work);
    assert_true(code[3] == 1.f && code[4] == 1.f);
}

static void special_values(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, COUNT, 32, 1.f);
    for_each_case(ctx, LB_WEIGHTS, check_stray);
    for_each_case(ctx, LB_WEIGHTS, check_sign_of_zero);
    lb_ctx_destroy(ctx);
}

/* A ternary filter with nothing above the threshold: codes 0, and a step that is still a step. */
static void ternary_silent_filter(void **state) {
    lb_ctx *ctx = test_ctx();
    lb_quant q = {.spec = {.quantizer = &lb_quantizer_twn, .bits = 2, .options.per = LB_PER_FILTER}};
    (void)state;
    assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
    fill_normal(u, COUNT, 31, 1.f);
    for (int i = FAN; i < 2 * FAN; i++)
        u[i] = 0.f;
    lb_quant_weights_forward(&q, &lb_quant_evaluation, NULL, WEIGHTS(u, OC, FAN), step, code, work);
    assert_on_grid(&q, OC, FAN, code, step);
    for (int i = FAN; i < 2 * FAN; i++)
        assert_true(code[i] == 0.f);
    assert_true(step[1] < 1e-20f && step[0] > 0.5f);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(invariants), cmocka_unit_test(extreme_inputs), cmocka_unit_test(bad_params),
                                       cmocka_unit_test(special_values), cmocka_unit_test(ternary_silent_filter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Mixers: what m is when. That the equation applies it, forward and backward, is test_weights.c's and test_activations.c's. */
#include "quant/reference.h"

static lb_quant quant_with(lb_ctx *ctx, const lb_mixer *mixer, lb_target target) {
    lb_quant q = {.param = -1, .initialised = true};
    q.spec = (lb_quant_spec){.quantizer = target == LB_WEIGHTS ? &lb_quantizer_uniform : &lb_quantizer_dorefa,
                             .target = target, .bits = 2, .options.per = LB_PER_DEFAULT, .mixer = mixer,
                             .options.mix_end = 0.8f, .options.mix_exponent = 3.f, .options.mix_every = 1};
    assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
    return q;
}

/* ---- alpha ------------------------------------------------------------------------------------------------------------ */

static float alpha_at(const lb_quant *q, int64_t step, int64_t steps) {
    lb_act_form form;
    lb_quant_act_form(q, &(lb_quant_when){.seed = 1, .step = 77, .stage_step = step, .stage_steps = steps}, NULL, &form);
    return form.m;
}

static void alpha(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_quant q = quant_with(ctx, &lb_mixer_alpha, LB_ACTIVATIONS);
    assert_int_equal(q.spec.options.estimator, LB_EST_NONE);
    q.spec.options.mix_start = 0.25f, q.spec.options.mix_end = 0.75f;
    for (int64_t t = 0; t <= 400; t++) {
        const double ramp = 1 - (300 - (double)t) * (300 - (double)t) * (300 - (double)t) / (200. * 200 * 200);
        const float want = t <= 100 ? 0.f : t >= 300 ? 1.f : (float)ramp;
        assert_true(fabsf(alpha_at(&q, t, 400) - want) < 1e-6f);
        assert_true(t == 0 || alpha_at(&q, t, 400) >= alpha_at(&q, t - 1, 400));
    }
    assert_true(alpha_at(&q, 100, 400) == 0.f && alpha_at(&q, 300, 400) == 1.f && alpha_at(&q, 299, 400) < 1.f);
    q.spec.options.mix_every = 70; /* 0, 70, 140 (the first within the ramp), 210, 280; and its end is not late */
    assert_true(alpha_at(&q, 139, 400) == 0.f && fabsf(alpha_at(&q, 140, 400) - 0.488f) < 1e-6f);
    assert_true(alpha_at(&q, 209, 400) == alpha_at(&q, 140, 400) && alpha_at(&q, 299, 400) == alpha_at(&q, 280, 400));
    assert_true(alpha_at(&q, 300, 400) == 1.f);
    q.spec.options.mix_every = 1, q.spec.options.mix_exponent = 1.f;
    assert_true(fabsf(alpha_at(&q, 150, 400) - 0.25f) < 1e-6f);
    q.spec.options.mix_start = q.spec.options.mix_end = 0.5f; /* a jump */
    assert_true(alpha_at(&q, 199, 400) == 0.f && alpha_at(&q, 200, 400) == 1.f);
    q.spec.options.mix_start = q.spec.options.mix_end = 0.f;
    assert_true(alpha_at(&q, 0, 400) == 1.f && alpha_at(&q, 0, 0) == 1.f);
    lb_ctx_destroy(ctx);
}

/* STE-free: the gradient of weights and activations is (1 - alpha) s'; with ste it is whole. */
static void alpha_gradient(void **state) {
    enum { N = 8 };
    (void)state;
    lb_ctx *ctx = test_ctx();
    const lb_quant_when when = {.stage_step = 40, .stage_steps = 100}; /* alpha = 1 - 0.5^3 */
    for (int ste = 0; ste < 2; ste++) {
        float u[N], diff[N], diff_u[N] = {0}, step[1], uhat[N], work[2 * N];
        lb_quant q = quant_with(ctx, &lb_mixer_alpha, LB_WEIGHTS), a = quant_with(ctx, &lb_mixer_alpha, LB_ACTIVATIONS);
        if (ste)
            q.spec.options.estimator = a.spec.options.estimator = LB_EST_STE;
        fill_normal(u, N, 1, 1.f);
        fill_normal(diff, N, 2, 1.f);
        lb_quant_weights_forward(&q, &when, NULL, WEIGHTS(u, 1, N), step, uhat, work);
        lb_quant_weights_backward(&q, &when, NULL, STEPPED(u, 1, N, step), diff, diff_u, NULL, work);
        for (int i = 0; i < N; i++)
            assert_true(fabsf(diff_u[i] - diff[i] * (ste ? 1.f : 0.125f)) < 1e-6f);
        lb_act_form form;
        lb_quant_act_form(&a, &when, NULL, &form);
        assert_true(fabsf(lb_act_backward_ref(&form, 0.3f, 1.f, NULL) - (ste ? 1.f : 0.125f)) < 1e-6f);
    }
    lb_ctx_destroy(ctx);
}

/* ---- roulette --------------------------------------------------------------------------------------------------------- */

enum { ROWS = 10, COLUMNS = 30, MANY = ROWS * COLUMNS };

/* Draws for (ROWS, COLUMNS) weights of codes 1; the mask's sum. Checks that m is 0 or 1, and one number per filter. */
static int draw(const lb_quant_spec *spec, const lb_quant_when *when, const float *u, float *m) {
    float step[ROWS], code[MANY], scalar = -1;
    int sum = 0;
    for (int i = 0; i < MANY; i++)
        code[i] = u[i] < 0 ? -1.f : 1.f, step[i / COLUMNS] = 0.7f;
    if (lb_mixer_roulette.weights(spec, when, &(lb_weights){u, ROWS, COLUMNS, step, code}, &scalar, m))
        for (int i = 0; i < MANY; i++)
            m[i] = scalar;
    for (int i = 0; i < MANY; i++) {
        assert_true(m[i] == 0.f || m[i] == 1.f);
        assert_true(spec->options.mix_scope == LB_SCOPE_ELEMENT || m[i] == m[i / COLUMNS * COLUMNS]);
        sum += (int)m[i];
    }
    return sum;
}

/* Exactly ceil(r n), at every step, whatever the options and the weights. */
static void roulette_counts(void **state) {
    static const float ratios[] = {0.f, 0.2f, 0.4f, 0.5f, 0.6f, 0.75f, 0.8f, 0.875f, 0.99f, 1.f};
    static const int filters[] = {0, 2, 4, 5, 6, 8, 8, 9, 10, 10}, elements[] = {0, 60, 120, 150, 180, 225, 240, 263, 297, 300};
    float u[MANY], m[MANY];
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        fill_normal(u, MANY, 3, 0.8f);
        for (int i = 0; i < MANY; i++) {
            u[i] = kind == 1 ? 0.7f : kind == 2 ? 0.f : u[i]; /* on the grid; zeros: all equally good */
            u[i] = kind == 3 && i % 7 == 0 ? (i % 2 ? NAN : INFINITY) : u[i];
        }
        for (int options = 0; options < 2 * 3 * 4 * 2; options++)
            for (size_t r = 0; r < LB_COUNT(ratios); r++)
                for (int64_t t = 0; t < 3; t++) {
                    const bool element = options % 2;
                    const lb_quant_spec spec = {.options.mix_ratio = ratios[r],
                                                .options.mix_scope = element ? LB_SCOPE_ELEMENT : LB_SCOPE_DEFAULT,
                                                .options.mix_partition = (lb_mix_partition)(options / 2 % 3),
                                                .options.mix_probability = (lb_mix_probability)(options / 6 % 4),
                                                .options.mix_rule = (lb_mix_rule)(options / 24)};
                    const lb_quant_when when = {.seed = 5, .step = 40 + (uint64_t)t, .stage_step = t, .stage_steps = 9};
                    assert_int_equal(draw(&spec, &when, u, m), element ? elements[r] : filters[r] * COLUMNS);
                }
    }
}

/* What the schedules split a stage into. */
static void roulette_schedules(void **state) {
    static const float exp[] = {0.5f, 0.75f, 0.875f, 1.f}, average[] = {0.2f, 0.4f, 0.6f, 0.8f, 1.f};
    (void)state;
    for (int64_t t = 0; t < 1000; t++) {
        const lb_quant_when when = {.stage_step = t, .stage_steps = 1000};
        lb_quant_spec spec = {.options.mix_schedule = LB_RATIO_EXP};
        assert_true(lb_mixer_roulette.share(&spec, &when) == exp[t / 250]);
        spec.options.mix_schedule = LB_RATIO_AVERAGE;
        assert_true(fabsf(lb_mixer_roulette.share(&spec, &when) - average[t / 200]) < 1e-6f);
        spec.options.mix_schedule = LB_RATIO_TUNE;
        assert_true(lb_mixer_roulette.share(&spec, &when) == 1.f);
    }
}

/* Two of four are drawn as by a roulette wheel without replacement: chi-squared of the six pairs, 5 degrees of freedom. */
static void roulette_frequencies(void **state) {
    enum { N = 4, DRAWS = 20000 };
    static const float u[N] = {1.1f, 1.5f, 0.8f, -0.4f}, step[N] = {1, 1, 1, 1}, code[N] = {1, 1, 1, -1};
    (void)state;
    for (int options = 0; options < 4 * 2 * 2; options++) {
        const bool by_code = options / 4 % 2, element = options / 8;
        const lb_quant_spec spec = {.options.mix_ratio = 0.5f, .options.mix_probability = (lb_mix_probability)(options % 4),
                                    .options.mix_rule = by_code ? LB_RULE_CODE : LB_RULE_PAPER,
                                    .options.mix_scope = element ? LB_SCOPE_ELEMENT : LB_SCOPE_FILTER};
        int seen[N][N] = {{0}};
        double p[N], total = 0, chi = 0;
        for (int i = 0; i < N; i++) {
            const double e = fabs((double)u[i] - (double)code[i]) / fabs((double)u[i]), f = by_code ? e : 1 / e;
            p[i] = options % 4 == 0 ? 1 : options % 4 == 1 ? f : options % 4 == 2 ? exp(f) : 1 / (1 + exp(-f));
            total += p[i];
        }
        for (int d = 0; d < DRAWS; d++) {
            float m[N], scalar;
            const lb_quant_when when = {.seed = 12, .step = (uint64_t)d};
            const lb_weights w = {u, element ? 1 : N, element ? N : 1, step, code};
            assert_false(lb_mixer_roulette.weights(&spec, &when, &w, &scalar, m));
            int pair[2], found = 0;
            for (int i = 0; i < N; i++)
                if (m[i] == (by_code ? 0.f : 1.f))
                    pair[found++ % 2] = i;
            assert_int_equal(found, 2);
            seen[pair[0]][pair[1]]++;
        }
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++) {
                const double q = p[i] * p[j] / total * (1 / (total - p[i]) + 1 / (total - p[j])), want = DRAWS * q;
                chi += (seen[i][j] - want) * (seen[i][j] - want) / want;
            }
        if (chi > 20.5) /* 1 in 1000 */
            fail_msg("options %d: chi-squared %g", options, chi);
    }
}

static void roulette_partitions(void **state) {
    float u[MANY], a[MANY], b[MANY];
    lb_quant_spec spec = {.options.mix_ratio = 0.5f, .options.mix_probability = LB_PROB_LINEAR};
    (void)state;
    for (int i = 0; i < MANY; i++)
        u[i] = 0.7f + 0.05f * (float)(i / COLUMNS * 7 % ROWS + 1); /* the ranks of the filters' errors: 0 7 4 1 8 5 2 9 6 3 */
    const lb_quant_when at3 = {.seed = 1, .step = 103, .stage_step = 3, .stage_steps = 50},
                        at4 = {.seed = 1, .step = 104, .stage_step = 4, .stage_steps = 50},
                        other = {.seed = 2, .step = 103, .stage_step = 3, .stage_steps = 50},
                        next = {.seed = 1, .step = 153, .stage_step = 3, .stage_steps = 50};
    for (int scope = LB_SCOPE_FILTER; scope <= LB_SCOPE_ELEMENT; scope++) {
        spec.options.mix_scope = (lb_mix_scope)scope;
        spec.options.mix_partition =
            LB_PARTITION_STOCHASTIC; /* drawn anew at each step and for each tensor, but a step has one draw */
        draw(&spec, &at3, u, a);
        draw(&spec, &at3, u, b);
        assert_memory_equal(a, b, sizeof a);
        draw(&spec, &at4, u, b);
        assert_memory_not_equal(a, b, sizeof a);
        draw(&spec, &other, u, b);
        assert_memory_not_equal(a, b, sizeof a);
        spec.options.mix_partition = LB_PARTITION_FIXED; /* for a stage, whatever the weights become */
        draw(&spec, &at3, u, a);
        u[5] += 3.f;
        draw(&spec, &at4, u, b);
        u[5] -= 3.f;
        assert_memory_equal(a, b, sizeof a);
        draw(&spec, &next, u, b);
        assert_memory_not_equal(a, b, sizeof a);
    }
    spec.options.mix_partition = LB_PARTITION_DETERMINISTIC;
    spec.options.mix_scope = LB_SCOPE_FILTER;
    draw(&spec, &at3, u, a);
    for (int o = 0; o < ROWS; o++)
        assert_true(a[o * COLUMNS] == (o * 7 % ROWS < 5 ? 1.f : 0.f));
    /* Equal errors do not make the first filters more likely: softmax of 1e7 leaves room for the noise. */
    int first = 0;
    spec.options.mix_partition = LB_PARTITION_STOCHASTIC, spec.options.mix_probability = LB_PROB_SOFTMAX;
    for (int i = 0; i < MANY; i++)
        u[i] = 0.7f;
    for (uint64_t t = 0; t < 1000; t++) {
        draw(&spec, &(lb_quant_when){.seed = 1, .step = t}, u, a);
        first += a[0] == 1.f;
    }
    assert_in_range(first, 450, 550);
}

/* ---- stochastic ------------------------------------------------------------------------------------------------------- */

static float drawn(const lb_mixer *mixer, const lb_quant_spec *spec, const lb_quant_when *when, bool activations) {
    float scalar = -1, unused[1];
    if (activations)
        return mixer->activations(spec, when);
    assert_true(mixer->weights(spec, when, WEIGHTS(NULL, 1, 1), &scalar, unused));
    return scalar;
}

static void stochastic(void **state) {
    enum { DRAWS = 20000 };
    (void)state;
    for (int t = 0; t <= 10; t++) { /* p is 0.5 until 0.2, then 0.5 + 0.5 (t - 2) / 6, 1 from 0.8 on */
        const double p = t <= 2 ? 0.5 : t >= 8 ? 1 : 0.5 + 0.5 * (t - 2) / 6;
        const lb_quant_spec a = {.options.mix_from = 0.5f, .options.mix_start = 0.2f, .options.mix_end = 0.8f, .mix_unit = 3},
                            b = {.options.mix_from = 0.5f, .options.mix_start = 0.2f, .options.mix_end = 0.8f, .mix_unit = 4};
        int yes = 0, both = 0;
        for (int d = 0; d < DRAWS; d++) {
            /* weights and activation have different seeds, and the same draw */
            const lb_quant_when w = {.seed = 5, .run_seed = 9, .step = (uint64_t)d, .stage_step = t, .stage_steps = 10},
                                z = {.seed = 6, .run_seed = 9, .step = (uint64_t)d, .stage_step = t, .stage_steps = 10};
            const float m = drawn(&lb_mixer_stochastic, &a, &w, false);
            assert_true((m == 0.f || m == 1.f) && m == drawn(&lb_mixer_stochastic, &a, &z, true));
            yes += m == 1.f;
            both += m == 1.f && drawn(&lb_mixer_stochastic, &b, &w, false) == 1.f;
            assert_true(fabs((double)lb_mixer_stochastic.share(&a, &w) - p) < 1e-6);
        }
        if (p == 1)
            assert_true(yes == DRAWS && both == DRAWS);
        else { /* chi-squared, 1 degree of freedom, 1 in 1000; two units are independent */
            const double d1 = yes - DRAWS * p, d2 = both - DRAWS * p * p;
            assert_true(d1 * d1 / (DRAWS * p * (1 - p)) < 10.8 && d2 * d2 / (DRAWS * p * p * (1 - p * p)) < 10.8);
        }
    }
}

/* Without a ramp everything is quantized from its end on. */
static void stochastic_jump(void **state) {
    const lb_quant_spec spec = {.options.mix_from = 0.25f, .options.mix_start = 0.5f, .options.mix_end = 0.5f};
    (void)state;
    for (int t = 0; t <= 10; t++) {
        const lb_quant_when when = {.run_seed = 9, .step = (uint64_t)t, .stage_step = t, .stage_steps = 10};
        assert_true(lb_mixer_stochastic.share(&spec, &when) == (t < 5 ? 0.25f : 1.f));
        assert_true(t < 5 || drawn(&lb_mixer_stochastic, &spec, &when, false) == 1.f);
    }
}

/* Nothing is drawn at evaluation. */
/* The error of an element is beside the step of its own filter: of filters that differ by factors, the same ones are quantized. */
static void roulette_elements(void **state) {
    enum { OUT = 6, IN = 5 };
    const lb_quant_spec spec = {.options.mix_ratio = 0.4f, .options.mix_partition = LB_PARTITION_DETERMINISTIC,
                                .options.mix_scope = LB_SCOPE_ELEMENT};
    float weights[OUT * IN], steps[OUT], code[OUT * IN], m[OUT * IN], scalar;
    (void)state;
    for (int o = 0; o < OUT; o++) {
        steps[o] = (float)(1 << 3 * o % 8);
        for (int i = 0; i < IN; i++) {
            code[o * IN + i] = i % 2 ? -1.f : 1.f;
            weights[o * IN + i] = steps[o] * code[o * IN + i] * (1.f + 0.01f * (float)((i + o) % IN) + 0.001f * (float)o);
        }
    }
    const lb_weights w = {weights, OUT, IN, steps, code};
    assert_false(lb_mixer_roulette.weights(&spec, &(lb_quant_when){.stage_steps = 10}, &w, &scalar, m));
    for (int i = 0; i < OUT * IN; i++)
        assert_true(m[i] == ((i % IN + i / IN) % IN < 2 ? 1.f : 0.f));
}

static void evaluation(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const lb_mixer *const mixers[] = {&lb_mixer_alpha, &lb_mixer_roulette, &lb_mixer_stochastic};
    float u[MANY], plain[MANY], uhat[MANY], work[2 * MANY], step[ROWS];
    fill_normal(u, MANY, 3, 0.8f);
    for (size_t i = 0; i < LB_COUNT(mixers); i++) {
        lb_quant q = quant_with(ctx, &lb_mixer_constant, LB_WEIGHTS), mixed = quant_with(ctx, mixers[i], LB_WEIGHTS);
        mixed.spec.options.mix_ratio = 0.5f;
        lb_quant_weights_forward(&q, &lb_quant_evaluation, NULL, WEIGHTS(u, ROWS, COLUMNS), step, plain, work);
        lb_quant_weights_forward(&mixed, &lb_quant_evaluation, NULL, WEIGHTS(u, ROWS, COLUMNS), step, uhat, work);
        assert_memory_equal(plain, uhat, sizeof plain);
        lb_quant_weights_forward(&mixed, &(lb_quant_when){.stage_steps = 10}, NULL, WEIGHTS(u, ROWS, COLUMNS), step, uhat, work);
        assert_memory_not_equal(plain, uhat, sizeof plain);
    }
    lb_quant half = quant_with(ctx, &lb_mixer_constant, LB_ACTIVATIONS);
    lb_act_form form;
    half.spec.options.mix = 0.5f;
    lb_quant_act_form(&half, &lb_quant_evaluation, NULL, &form);
    assert_true(form.m == 1.f);
    lb_quant_act_form(&half, &(lb_quant_when){.stage_steps = 10}, NULL, &form);
    assert_true(form.m == 0.5f);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(alpha), cmocka_unit_test(alpha_gradient), cmocka_unit_test(roulette_counts),
                                       cmocka_unit_test(roulette_schedules), cmocka_unit_test(roulette_frequencies),
                                       cmocka_unit_test(roulette_partitions), cmocka_unit_test(roulette_elements),
                                       cmocka_unit_test(stochastic), cmocka_unit_test(stochastic_jump),
                                       cmocka_unit_test(evaluation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

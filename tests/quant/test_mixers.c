/* Mixers: what m is when. That the equation applies it, forward and backward, is test_weights.c's and test_activations.c's. */
#include "quant/reference.h"

static lb_quant quant_with(lb_ctx *ctx, const lb_mixer *mixer, lb_target target) {
    lb_quant q = {.param = -1, .initialised = true};
    q.spec = (lb_quant_spec){.quantizer = target == LB_WEIGHTS ? &lb_quantizer_uniform : &lb_quantizer_dorefa,
                             .target = target, .bits = 2, .granularity = LB_PER_DEFAULT, .mixer = mixer,
                             .mix_end = 0.8f, .mix_exponent = 3.f, .mix_every = 1};
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
    assert_int_equal(q.spec.estimator, LB_EST_NONE);
    q.spec.mix_start = 0.25f, q.spec.mix_end = 0.75f;
    for (int64_t t = 0; t <= 400; t++) {
        const double ramp = 1 - (300 - (double)t) * (300 - (double)t) * (300 - (double)t) / (200. * 200 * 200);
        const float want = t <= 100 ? 0.f : t >= 300 ? 1.f : (float)ramp;
        assert_true(fabsf(alpha_at(&q, t, 400) - want) < 1e-6f);
        assert_true(t == 0 || alpha_at(&q, t, 400) >= alpha_at(&q, t - 1, 400));
    }
    assert_true(alpha_at(&q, 100, 400) == 0.f && alpha_at(&q, 300, 400) == 1.f && alpha_at(&q, 299, 400) < 1.f);
    q.spec.mix_every = 70; /* 0, 70, 140 (the first within the ramp), 210, 280; and its end is not late */
    assert_true(alpha_at(&q, 139, 400) == 0.f && fabsf(alpha_at(&q, 140, 400) - 0.488f) < 1e-6f);
    assert_true(alpha_at(&q, 209, 400) == alpha_at(&q, 140, 400) && alpha_at(&q, 299, 400) == alpha_at(&q, 280, 400));
    assert_true(alpha_at(&q, 300, 400) == 1.f);
    q.spec.mix_every = 1, q.spec.mix_exponent = 1.f;
    assert_true(fabsf(alpha_at(&q, 150, 400) - 0.25f) < 1e-6f);
    q.spec.mix_start = q.spec.mix_end = 0.5f; /* a jump */
    assert_true(alpha_at(&q, 199, 400) == 0.f && alpha_at(&q, 200, 400) == 1.f);
    q.spec.mix_start = q.spec.mix_end = 0.f;
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
            q.spec.estimator = a.spec.estimator = LB_EST_STE;
        fill_normal(u, N, 1, 1.f);
        fill_normal(diff, N, 2, 1.f);
        lb_quant_weights_forward(&q, &when, NULL, u, 1, N, step, uhat, work);
        lb_quant_weights_backward(&q, &when, NULL, u, 1, N, step, diff, diff_u, NULL, work);
        for (int i = 0; i < N; i++)
            assert_true(fabsf(diff_u[i] - diff[i] * (ste ? 1.f : 0.125f)) < 1e-6f);
        lb_act_form form;
        lb_quant_act_form(&a, &when, NULL, &form);
        assert_true(fabsf(lb_act_backward_ref(&form, 0.3f, 1.f, NULL) - (ste ? 1.f : 0.125f)) < 1e-6f);
    }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(alpha), cmocka_unit_test(alpha_gradient)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

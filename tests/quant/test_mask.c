/* Mixer mask: whose turn it is, what share is frozen, which entries draw again, and the gradients with the mask held still. */
#include "quant/reference.h"

enum { N = 40000, LAYERS = 5, STEPS = 10000 }; /* settle 0.1: turns of 1800 steps */

static const char *const ramp_names[] = {"cubic", "linear", "quadratic", "cosine"};

static lb_quant make(lb_ctx *ctx, lb_target target, lb_quant_spec spec) {
    lb_quant q = {.spec = spec};
    q.spec.quantizer = &lb_quantizer_sign;
    q.spec.mixer = &lb_mixer_mask;
    q.spec.target = target;
    q.spec.bits = 1;
    assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
    return q;
}

static lb_quant_when at_step(int64_t step) {
    return (lb_quant_when){.seed = 77, .step = (uint64_t)step, .stage_step = step, .stage_steps = STEPS};
}

/* The mask at a step, whole numbers 0 and 1 where one of them holds for all. */
static void mask_at(const lb_quant *q, int64_t step, uint8_t *mask) {
    const lb_quant_when when = at_step(step);
    if (!lb_quant_act_mask(q, &when, N, mask)) {
        lb_act_form form;
        lb_quant_act_form(q, &when, NULL, &form);
        assert_true(form.m == 0.f || form.m == 1.f);
        for (int i = 0; i < N; i++)
            mask[i] = form.m == 1.f;
    }
}

static double share_of(const uint8_t *mask) {
    double sum = 0;
    for (int i = 0; i < N; i++) {
        assert_in_range(mask[i], 0, 1);
        sum += mask[i];
    }
    return sum / N;
}

static double ramp(lb_mix_ramp kind, double x) {
    return x < 0 ? 0 : kind == LB_RAMP_LINEAR ? x : kind == LB_RAMP_QUADRATIC ? x * x : kind == LB_RAMP_CUBIC ? x * x * x
           : kind == LB_RAMP_FLIPPED ? x * (2 - x) : pow(sin(x * asin(1)), 2);
}

/* What the share is on average, t steps into a turn: p at each entry's last refresh, one in each block at any of its steps. */
static double expected_share(lb_mix_ramp kind, int refresh, int64_t t, int64_t length) {
    const int64_t start = t / refresh * refresh;
    double sum = 0, before = 0;
    for (int k = 0; k < refresh; k++)
        before += ramp(kind, (double)(start - refresh + k) / (double)length) / refresh;
    for (int k = 0; k < refresh; k++)
        sum += start + k <= t ? ramp(kind, (double)(start + k) / (double)length) : before;
    return sum / refresh;
}

static void share_follows_the_ramp(void **state) {
    static uint8_t mask[N];
    lb_ctx *ctx = test_ctx();
    (void)state;
    const int refreshes[] = {1, 10, 100, 1000};
    for (lb_mix_ramp kind = LB_RAMP_CUBIC; kind <= LB_RAMP_FLIPPED; kind++)
        for (size_t r = 0; r < LB_COUNT(refreshes); r++) {
            lb_quant q = make(ctx, LB_ACTIVATIONS,
                              (lb_quant_spec){.options.mix_ramp = kind,
                                              .options.mix_refresh = refreshes[r],
                                              .options.mix_settle = 0.1f,
                                              .layer = 2,
                                              .layers = LAYERS});
            for (int64_t t = 0; t < 1800; t += 97) {
                mask_at(&q, 3600 + t, mask);
                const double want = expected_share(kind, refreshes[r], t, 1800), share = share_of(mask);
                if (fabs(share - want) > 5 * sqrt(want * (1 - want) / N) + 2e-5)
                    fail_msg("%s, refresh %d, step %d: share %g, should be %g", ramp_names[kind], refreshes[r], (int)t, share,
                             want);
                assert_true(share <= ramp(kind, (double)t / 1800) + 0.013); /* it lags behind p */
            }
        }
    lb_ctx_destroy(ctx);
}

/* Each layer is all real before its turn and all quantized after it; turns follow the order; the end is settled. */
static void turns(void **state) {
    static uint8_t mask[N];
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (lb_mix_order order = LB_MIX_FORWARD; order <= LB_MIX_GLOBAL; order++)
        for (int layer = 0; layer < LAYERS; layer++) {
            lb_quant q = make(ctx, LB_ACTIVATIONS,
                              (lb_quant_spec){.options.mix_order = order,
                                              .options.mix_refresh = 50,
                                              .options.mix_settle = 0.1f,
                                              .layer = layer,
                                              .layers = LAYERS});
            const bool global = order == LB_MIX_GLOBAL;
            const int64_t length = global ? 9000 : 1800,
                          first = global ? 0 : order == LB_MIX_REVERSE ? (LAYERS - 1 - layer) * 1800 : layer * 1800;
            double last = 0;
            for (int64_t step = 0; step < STEPS; step += 45) {
                mask_at(&q, step, mask);
                const double share = share_of(mask);
                if (step < first)
                    assert_true(share == 0);
                if (step >= first + length)
                    assert_true(share == 1);
                assert_true(share >= last - 5 * sqrt(0.5 / N)); /* rising, up to chance */
                last = share;
            }
            assert_true(last == 1);
            mask_at(&q, first + length * 3 / 4, mask);
            assert_true(share_of(mask) > 0.3 && share_of(mask) < 0.5);
        }
    lb_ctx_destroy(ctx);
}

/* From one step to the next only what is refreshed can change: 1 in `refresh`, of which p (1 - p) 2 draw the other bit. */
static void refresh_is_soft(void **state) {
    static uint8_t mask[2][N];
    lb_ctx *ctx = test_ctx();
    lb_quant q =
        make(ctx, LB_ACTIVATIONS, (lb_quant_spec){.options.mix_ramp = LB_RAMP_LINEAR, .options.mix_refresh = 100, .layers = 1});
    int rises = 0, falls = 0, steps = 0;
    (void)state;
    for (int64_t step = 4900; step < 5100; step++) {
        int changed = 0;
        mask_at(&q, step, mask[0]);
        mask_at(&q, step + 1, mask[1]);
        for (int i = 0; i < N; i++) {
            changed += mask[0][i] != mask[1][i];
            rises += mask[1][i] > mask[0][i];
            falls += mask[1][i] < mask[0][i];
        }
        assert_in_range(changed, 140, 265); /* 200 of 40000, give or take 4.5 standard deviations */
        steps++;
    }
    assert_true(rises > falls && falls > 80 * steps); /* bits are also taken back */
    lb_ctx_destroy(ctx);
}

/* Turns of a few steps, every entry drawn anew at each: p at that very step. */
static void short_turns(void **state) {
    enum { TURN = 8 };
    static uint8_t mask[N];
    lb_ctx *ctx = test_ctx();
    lb_quant q = make(ctx, LB_ACTIVATIONS,
                      (lb_quant_spec){.options.mix_ramp = LB_RAMP_LINEAR, .options.mix_refresh = 1, .layer = 1, .layers = 2});
    (void)state;
    for (int64_t t = 1; t < TURN; t++) {
        const lb_quant_when when = {.seed = 77, .step = (uint64_t)(TURN + t), .stage_step = TURN + t, .stage_steps = 2 * TURN};
        const double p = (double)t / TURN;
        assert_true(lb_quant_act_mask(&q, &when, N, mask));
        assert_true(fabs(share_of(mask) - p) < 5 * sqrt(p * (1 - p) / N) + 2e-5);
    }
    lb_ctx_destroy(ctx);
}

/* What is remembered of a block is what would be drawn anew, whatever was asked before. */
static void remembered(void **state) {
    enum { COUNTED = 3000 };
    static uint16_t entry[N];
    static uint8_t mask[2][COUNTED];
    lb_ctx *ctx = test_ctx();
    lb_quant_memory memory = {.entry = entry};
    (void)state;
    for (int64_t step = 0; step < 700; step += step % 5 ? 1 : 17)
        for (int i = 0; i < 8; i++) {
            const int k = i % 2 ? i / 2 + 1 : 0; /* one thing differs, then none */
            lb_quant q = make(ctx, LB_ACTIVATIONS,
                              (lb_quant_spec){.options.mix_ramp = k == 1 ? LB_RAMP_QUADRATIC : LB_RAMP_LINEAR,
                                              .options.mix_refresh = k == 2 ? 30 : 50,
                                              .layers = 1});
            lb_quant_when when = {.seed = 77 + (k == 3), .step = (uint64_t)step, .stage_step = step, .stage_steps = 700 + (k == 4)};
            const bool some = lb_quant_act_mask(&q, &when, COUNTED, mask[0]);
            when.memory = &memory;
            assert_int_equal(lb_quant_act_mask(&q, &when, COUNTED, mask[1]), some);
            if (some)
                assert_memory_equal(mask[0], mask[1], sizeof mask[0]);
        }
    lb_ctx_destroy(ctx);
}

/* Other tensors and other stages have other masks; the same arguments have the same one. */
static void draws_differ(void **state) {
    static uint8_t mask[4][N];
    lb_ctx *ctx = test_ctx();
    lb_quant q = make(ctx, LB_ACTIVATIONS, (lb_quant_spec){.options.mix_ramp = LB_RAMP_LINEAR, .layers = 1});
    lb_quant_when when[4] = {at_step(5000), at_step(5000), at_step(5000), at_step(5000)};
    (void)state;
    when[2].seed++;
    when[3].step += 20000; /* a later stage */
    for (int k = 0; k < 4; k++)
        assert_true(lb_quant_act_mask(&q, &when[k], N, mask[k]));
    assert_memory_equal(mask[0], mask[1], sizeof mask[0]);
    for (int k = 2; k < 4; k++) {
        int same = 0;
        for (int i = 0; i < N; i++)
            same += mask[0][i] == mask[k][i];
        assert_in_range(same, N / 2 - 600, N / 2 + 600); /* independent */
    }
    assert_true(lb_quant_act_mask(&q, &when[0], 13, mask[2])); /* any count, and an entry does not depend on it */
    assert_memory_equal(mask[0], mask[2], 13);
    lb_ctx_destroy(ctx);
}

static void nothing_at_evaluation(void **state) {
    static float u[COUNT], uhat[COUNT], work[2 * COUNT], step[OC];
    static uint8_t mask[COUNT];
    lb_ctx *ctx = test_ctx();
    lb_quant w = make(ctx, LB_WEIGHTS, (lb_quant_spec){.layers = 1}), a = make(ctx, LB_ACTIVATIONS, (lb_quant_spec){.layers = 1});
    lb_quant_when when = at_step(5000);
    lb_act_form form;
    (void)state;
    fill_normal(u, COUNT, 1, 0.5f);
    when.evaluation = true;
    assert_false(lb_quant_act_mask(&a, &when, COUNT, mask));
    lb_quant_act_form(&a, &when, NULL, &form);
    assert_true(form.m == 1.f);
    lb_quant_weights_forward(&w, &when, NULL, WEIGHTS(u, OC, FAN), step, uhat, work);
    for (int i = 0; i < COUNT; i++)
        assert_true(uhat[i] == (u[i] >= 0 ? 1.f : -1.f));
    lb_ctx_destroy(ctx);
}

/* u~ (weights, every entry on its own for sign) */
static void forward(const lb_quant *q, const lb_quant_when *when, const float *u, float *out) {
    static float step[OC], work[COUNT];
    lb_quant_weights_forward(q, when, NULL, WEIGHTS(u, OC, FAN), step, out, work);
}

/* Weights: differences of u~ at one step, so with the mask held still; the straight-through estimator adds 1 on the frozen part. */
static void gradient_of_weights(void **state) {
    static float u[COUNT], up[COUNT], down[COUNT], out[3][COUNT], diff[COUNT], diff_u[COUNT], work[2 * COUNT], step[OC], m[COUNT];
    lb_ctx *ctx = test_ctx();
    (void)state;
    const lb_quant_when when = at_step(7500);
    const float h = 1e-3f;
    fill_normal(u, COUNT, 2, 0.8f);
    fill_normal(diff, COUNT, 3, 1);
    for (int ste = 0; ste < 2; ste++) {
        lb_quant q = make(ctx, LB_WEIGHTS, (lb_quant_spec){.options.surrogate = LB_SUR_HARDTANH, .layers = 1,
                                                          .options.estimator = ste ? LB_EST_STE : LB_EST_DEFAULT});
        assert_true(q.spec.options.estimator == (ste ? LB_EST_STE : LB_EST_NONE)); /* STE-free unless asked */
        float scalar;
        assert_false(lb_mixer_mask.weights(&q.spec, &when, WEIGHTS(u, OC, FAN), &scalar, m));
        for (int i = 0; i < COUNT; i++)
            up[i] = u[i] + h, down[i] = u[i] - h, step[i / FAN] = 1;
        forward(&q, &when, u, out[0]);
        forward(&q, &when, up, out[1]);
        forward(&q, &when, down, out[2]);
        memset(diff_u, 0, sizeof diff_u);
        lb_quant_weights_backward(&q, &when, NULL, STEPPED(u, OC, FAN, step), diff, diff_u, NULL, work);
        int frozen = 0, moving = 0;
        for (int i = 0; i < COUNT; i++) {
            const float kink = fminf(fabsf(u[i]), fabsf(fabsf(u[i]) - 1));
            assert_true(out[0][i] == (m[i] == 1.f ? (u[i] >= 0 ? 1.f : -1.f) : fminf(fmaxf(u[i], -1), 1)));
            if (kink < 2 * h)
                continue;
            float want = (out[1][i] - out[2][i]) / (2 * h) + (ste ? m[i] : 0);
            assert_float_equal(diff_u[i], want * diff[i], 1e-3 * (1 + fabs((double)diff[i])));
            frozen += m[i] == 1.f;
            moving += m[i] == 0.f && diff_u[i] != 0.f;
        }
        assert_true(frozen > 20 && moving > 20);
    }
    lb_ctx_destroy(ctx);
}

static void refused(void **state) {
    lb_ctx *ctx = test_ctx();
    lb_grid grid;
    (void)state;
    const lb_quant_spec good = {.quantizer = &lb_quantizer_sign, .mixer = &lb_mixer_mask, .bits = 1};
    lb_quant_spec bad[] = {good, good, good, good};
    bad[0].options.mix_refresh = -1;
    bad[1].options.mix_refresh = LB_MAX_REFRESH + 1;
    bad[2].options.mix_settle = 1;
    bad[3].options.mix_settle = NAN;
    for (size_t i = 0; i < LB_COUNT(bad); i++) {
        assert_int_equal(lb_quant_resolve(ctx, "conv1", &bad[i], &grid), LB_ERR_UNSUPPORTED);
        assert_non_null(strstr(lb_error(ctx), i < 2 ? "conv1: mix_refresh" : "conv1: mix_settle"));
    }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(share_follows_the_ramp), cmocka_unit_test(turns),
                                       cmocka_unit_test(refresh_is_soft),        cmocka_unit_test(short_turns),
                                       cmocka_unit_test(remembered),             cmocka_unit_test(draws_differ),
                                       cmocka_unit_test(nothing_at_evaluation),  cmocka_unit_test(gradient_of_weights),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* cpq and rq: probabilities, closed-form gradients, draws and dropped bits, against sums in double and differences. */
#include "quant/exp.h"
#include "quant/logistic.h"
#include "quant/reference.h"

enum { N = 400, DRAWS = 20000 };
static float u[N], diff[N];
static const lb_quant_when at = {.seed = 7, .step = 9, .stage_step = 9, .stage_steps = 100};

/* A resolved cpq or rq for `bits`. */
static lb_quant quant_of(lb_ctx *ctx, const lb_quantizer *quantizer, int bits, lb_cpq_backward backward) {
    lb_quant q = {.spec = {.quantizer = quantizer, .bits = bits, .options.cpq_backward = backward}, .initialised = true};
    assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
    return q;
}

static void exponential(void **state) {
    (void)state;
    for (float x = -87.f; x <= 87.f; x += 0.0137f)
        assert_true(fabs((double)lb_exp(x) / exp((double)x) - 1) < 2e-7);
    assert_true(lb_exp(0.f) == 1.f);
    for (float x = -126.f; x <= 126.f; x += 0.0137f)
        assert_true(fabs((double)lb_exp2(x) / exp2((double)x) - 1) < 3e-7);
    assert_true(lb_exp2(0.f) == 1.f);
    for (float x = 0x1p-126f; x < 0x1p126f; x *= 1.0007f)
        assert_true(fabs((double)lb_log(x) - log((double)x)) < 2e-7 * fabs(log((double)x)));
    for (float x = 0.5f; x < 1.f; x += 0x1p-20f)
        assert_true(fabs((double)lb_log(x) - log((double)x)) < 2e-7 * fabs(log((double)x)));
    assert_true(lb_log(1.f) == 0.f);
}

/* What each gradient is the derivative of: x, log step, log sigma -> value of one element. */
static double surrogate_value(const lb_quant *q, double x, double a, double s, int code, double pi0) {
    const double step = exp(a), sigma = exp(s);
    if (q->spec.options.cpq_backward == LB_CPQ_EXPECT)
        return ref_expect(x, step, sigma, q->grid.lo, q->grid.hi);
    return step * code * (1 + ref_pi(x, step, sigma, q->grid.lo, q->grid.hi, code) - pi0); /* y, dy = d pi */
}

/* The three derivatives of the mode rule as docs/methods.md has them: G g dpi/dx; G (n + g dpi/dalpha); G g dpi/dsigma. */
static void check_gradient(lb_ctx *ctx, int bits, lb_cpq_backward backward, double ratio) {
    lb_quant q = quant_of(ctx, &lb_quantizer_cpq, bits, backward);
    static float code[N], diff_u[N], work[2 * N];
    float param[2], step[1], diff_param[2] = {0};
    double want[2] = {0}, size[2] = {0}, h = 1e-5;
    lb_logistic_init(&q.spec, u, 1, N, param);
    param[0] += logf(0.7f); /* some elements beyond the range */
    param[1] = param[0] + (float)log(ratio);
    lb_quant_weights_forward(&q, &at, param, WEIGHTS(u, 1, N), step, code, work);
    memset(diff_u, 0, sizeof diff_u);
    lb_quant_weights_backward(&q, &at, param, STEPPED(u, 1, N, step), diff, diff_u, diff_param, work);
    for (int i = 0; i < N; i++) {
        const double x = (double)u[i], a = (double)param[0], s = (double)param[1], d = (double)diff[i];
        const int k = (int)code[i];
        const double pi0 = ref_pi(x, exp(a), exp(s), q.grid.lo, q.grid.hi, k), hx = h * exp(s);
        const double dx =
            (surrogate_value(&q, x + hx, a, s, k, pi0) - surrogate_value(&q, x - hx, a, s, k, pi0)) / (2 * hx);
        const double da = (surrogate_value(&q, x, a + h, s, k, pi0) - surrogate_value(&q, x, a - h, s, k, pi0)) / (2 * h);
        const double ds = (surrogate_value(&q, x, a, s + h, k, pi0) - surrogate_value(&q, x, a, s - h, k, pi0)) / (2 * h);
        /* x / step is rounded to f32, which counts where the slope is steep */
        const double steep = 1.2e-7 * fabs(x) / exp(a) * (backward == LB_CPQ_MODE ? abs(k) : 1) / (ratio * ratio);
        if (fabs((double)diff_u[i] - d * dx) > fabs(d) * (1e-4 * (1 + fabs(dx)) + steep))
            fail_msg("%d bits, backward %d, ratio %g: at %g %g, should be %g", bits, (int)backward, ratio, x, (double)diff_u[i],
                     d * dx);
        want[0] += d * da, size[0] += fabs(d) * (fabs(da) + exp(a));
        want[1] += d * ds, size[1] += fabs(d) * (fabs(ds) + exp(a));
        if (backward == LB_CPQ_MODE && k == 0)
            assert_true(diff_u[i] == 0.f); /* consequence (i) */
    }
    for (int p = 0; p < 2; p++)
        if (fabs((double)diff_param[p] - want[p]) > 1e-4 * size[p])
            fail_msg("%d bits, backward %d, ratio %g: parameter %d has %g, should be %g", bits, (int)backward, ratio, p,
                     (double)diff_param[p], want[p]);
}

static void gradients(void **state) {
    static const double ratios[] = {0.07, 0.0715, 1.0 / 3, 1, 5, 60};
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, N, 50, 0.8f);
    fill_normal(diff, N, 51, 1.f);
    for (int bits = 2; bits <= 8; bits++)
        for (size_t r = 0; r < LB_COUNT(ratios); r++)
            for (lb_cpq_backward b = LB_CPQ_EXPECT; b <= LB_CPQ_MODE; b++)
                check_gradient(ctx, bits, b, ratios[r]);
    lb_ctx_destroy(ctx);
}

/* The nearest code is the most likely one. */
static void mode_is_nearest(void **state) {
    lb_ctx *ctx = test_ctx();
    lb_quant q = quant_of(ctx, &lb_quantizer_cpq, 3, LB_CPQ_EXPECT);
    float param[2] = {logf(0.3f), logf(0.12f)}, step, code[N], work[2 * N];
    (void)state;
    fill_normal(u, N, 52, 0.8f);
    lb_quant_weights_forward(&q, &at, param, WEIGHTS(u, 1, N), &step, code, work);
    for (int i = 0; i < N; i++)
        for (int k = q.grid.lo; k <= q.grid.hi; k++)
            assert_true(ref_pi((double)u[i], 0.3, 0.12, q.grid.lo, q.grid.hi, k) <=
                        ref_pi((double)u[i], 0.3, 0.12, q.grid.lo, q.grid.hi, (int)code[i]) + 1e-6);
    lb_ctx_destroy(ctx);
}

/* ---- rq ---------------------------------------------------------------------------------------------------------- */

/* Codes are drawn with probability pi (over the local grid), anew at every step, not at evaluation. */
static void draws_follow_pi(void **state) {
    static const float xs[] = {0.f, 0.14f, 0.3f, -0.41f, 1.1f, -3.f};
    static float same[DRAWS], code[DRAWS], next[DRAWS], work[2 * DRAWS];
    lb_ctx *ctx = test_ctx();
    lb_quant q = quant_of(ctx, &lb_quantizer_rq, 3, LB_CPQ_EXPECT);
    const double step = 0.3, sigma = 0.19; /* reach 3: two codes to each side */
    float param[2] = {logf(0.3f), logf(0.19f)}, st;
    (void)state;
    for (size_t x = 0; x < LB_COUNT(xs); x++) {
        int64_t count[8] = {0};
        double chi = 0, tail_pi = 0, tail = 0;
        int cells = 0, centre = (int)ref_clip(nearbyint((double)xs[x] / step), -4, 3);
        const int first = LB_MIN(LB_MAX(centre - 2, -4), -1), last = first + 4;
        for (int i = 0; i < DRAWS; i++)
            same[i] = xs[x];
        lb_quant_weights_forward(&q, &at, param, WEIGHTS(same, 1, DRAWS), &st, code, work);
        for (int i = 0; i < DRAWS; i++)
            count[(int)code[i] + 4]++;
        for (int k = -4; k <= 3; k++) {
            if (k < first || k > last) {
                assert_int_equal(count[k + 4], 0);
                continue;
            }
            const double want = DRAWS * ref_pi((double)xs[x], step, sigma, first, last, k), got = (double)count[k + 4];
            if (want < 10)
                tail_pi += want, tail += got;
            else
                chi += (got - want) * (got - want) / want, cells++;
        }
        assert_true(fabs(tail - tail_pi) <= 5 * sqrt(tail_pi) + 1);
        if (chi > 22) /* 4 degrees of freedom: p = 2e-4 */
            fail_msg("chi squared %g over %d codes at %g", chi, cells, (double)xs[x]);
        lb_quant_weights_forward(&q, &(lb_quant_when){.seed = 7, .step = 10}, param, WEIGHTS(same, 1, DRAWS), &st, next, work);
        assert_memory_not_equal(code, next, sizeof code);
        lb_quant_weights_forward(&q, &lb_quant_evaluation, param, WEIGHTS(same, 1, DRAWS), &st, next, work);
        for (int i = 0; i < DRAWS; i++)
            assert_true((int)next[i] == centre);
    }
    lb_ctx_destroy(ctx);
}

/* The relaxed value of one element in double, its noise given. */
static double relaxed(double x, double a, double s, int lo, int codes, const double *noise, double temperature) {
    double weight = 0, sum = 0;
    for (int k = 0; k < codes; k++) {
        const double w = exp((log(ref_pi(x, exp(a), exp(s), lo, lo + codes - 1, lo + k)) + noise[k]) / temperature);
        weight += w, sum += w * exp(a) * (lo + k);
    }
    return sum / weight;
}

/* Gradient of the relaxed sample by differences, the noise held. Two bits and a wide sigma: the local grid is the whole one. */
static void relaxed_gradient(void **state) {
    static const float temperatures[] = {0.5f, 1.f, 2.f};
    enum { CODES = 4 };
    const lb_logistic l = {.step = 0.5f, .ratio = 0.8f, .lo = -2, .hi = 1, .codes = CODES};
    (void)state;
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < 200; i++) {
            const float x = 0.02f * (float)(i - 100);
            const double a = log(0.5), s = log(0.4), h = 1e-5, temperature = (double)temperatures[t];
            double nu[CODES];
            float race[CODES * LB_SOFT_BLOCK];
            lb_soft soft;
            for (int k = 0; k < CODES; k++)
                race[k * LB_SOFT_BLOCK] = (float)exp(-(nu[k] = sin(i + 2.1 * k)));
            lb_soft_relaxed(&l, &x, 1, race, temperatures[t], &soft);
#define R(dx, da, ds) relaxed((double)x + (dx), a + (da), s + (ds), -2, CODES, nu, temperature)
            const double dx = (R(h, 0, 0) - R(-h, 0, 0)) / (2 * h), da = (R(0, h, 0) - R(0, -h, 0)) / (2 * h),
                         ds = (R(0, 0, h) - R(0, 0, -h)) / (2 * h);
            assert_true(fabs((double)soft.slope[0] - dx) < 1e-4);
            assert_true(fabs((double)(l.step * soft.by_step[0]) - da) < 1e-4);
            assert_true(fabs((double)(l.step * soft.by_sigma[0]) - ds) < 1e-4);
        }
}

/* ---- Activations --------------------------------------------------------------------------------------------------- */

/* The form does to the elements of a signed tensor what the weights' functions do. Of the pass range there is another test. */
static void form_is_weights(void **state) {
    static float code[N], du[N], work[2 * N];
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, N, 54, 0.8f);
    for (int k = 0; k < 3; k++) {
        const lb_quantizer *row = k < 2 ? &lb_quantizer_cpq : &lb_quantizer_rq;
        lb_quant weights = quant_of(ctx, row, 3, k == 1 ? LB_CPQ_MODE : LB_CPQ_EXPECT), acts = weights;
        float param[2] = {logf(0.3f), logf(0.12f)}, step, dp[2] = {0};
        double sum[2] = {0};
        lb_act_form f;
        weights.spec.options.drop_top = 0.5f;
        acts.spec = weights.spec;
        acts.spec.target = LB_ACTIVATIONS;
        acts.spec.is_signed = true;
        assert_ok(ctx, lb_quant_resolve(ctx, "act", &acts.spec, &acts.grid));
        for (int i = 0; i < N; i++)
            diff[i] = 1.f;
        memset(du, 0, sizeof du);
        lb_quant_weights_forward(&weights, &at, param, WEIGHTS(u, 1, N), &step, code, work);
        lb_quant_weights_backward(&weights, &at, param, STEPPED(u, 1, N, &step), diff, du, dp, work);
        lb_quant_act_form(&acts, &at, param, &f);
        assert_true(f.step == step && f.learn == LB_LEARN_SOFT && (f.draw != NULL) == (k == 2));
        for (int first = 0; first < N; first += LB_ACT_BLOCK) {
            lb_soft soft;
            float drawn[LB_ACT_BLOCK];
            const int n = LB_MIN(LB_ACT_BLOCK, N - first);
            f.soft(&f, u + first, first, n, &soft);
            if (f.draw)
                f.draw(&f, u + first, first, n, drawn);
            for (int i = 0; i < n; i++) {
                assert_true(soft.slope[i] == du[first + i]);
                assert_true((f.draw ? drawn[i] : lb_act_forward_ref(&f, u[first + i])) == code[first + i]);
                sum[0] += (double)(soft.by_step[i] * f.learn_scale), sum[1] += (double)(soft.by_sigma[i] * f.learn_scale);
            }
        }
        for (int p = 0; p < 2; p++)
            assert_true(fabs(sum[p] - (double)dp[p]) < 1e-4 * (1 + fabs(sum[p])));
    }
    lb_ctx_destroy(ctx);
}

/* Activations that share draws: codes with probability pi, the same wherever a block begins, others in the next step. */
static void shared_noise(void **state) {
    enum { STEPS_DRAWN = 60, ELEMENTS = 400, FROM = 1000, CODES = 5 };
    static float noise[LB_QUANT_NOISE], x[ELEMENTS], code[2][ELEMENTS], slope[2][ELEMENTS];
    lb_ctx *ctx = test_ctx();
    lb_quant q = {.spec = {.quantizer = &lb_quantizer_rq, .bits = 3, .target = LB_ACTIVATIONS, .is_signed = true}};
    lb_quant_memory memory = {.noise = noise};
    const float param[2] = {logf(0.3f), logf(0.19f)};
    int64_t count[CODES] = {0}, same = 0;
    double chi = 0;
    (void)state;
    assert_ok(ctx, lb_quant_resolve(ctx, "act", &q.spec, &q.grid));
    for (int i = 0; i < ELEMENTS; i++)
        x[i] = 0.04f;
    for (int s = 0; s < STEPS_DRAWN; s++) {
        const lb_quant_when when = {.seed = 7, .step = (uint64_t)s, .memory = &memory};
        static float before[ELEMENTS], noise_before[LB_QUANT_NOISE];
        lb_act_form f;
        lb_soft soft;
        memcpy(before, code[0], sizeof before);
        memcpy(noise_before, noise, sizeof noise);
        lb_quant_act_form(&q, &when, param, &f);
        for (int i = 0; i < LB_QUANT_NOISE; i++)
            same += noise[i] == noise_before[i];
        for (int split = 0; split < 2; split++)
            for (int i = 0, n; i < ELEMENTS; i += n) {
                n = LB_MIN(split ? 48 : LB_ACT_BLOCK, ELEMENTS - i);
                f.draw(&f, x + i, FROM + i, n, code[split] + i);
                f.soft(&f, x + i, FROM + i, n, &soft);
                memcpy(slope[split] + i, soft.slope, (size_t)n * sizeof(float));
            }
        assert_memory_equal(code[0], code[1], sizeof code[0]);
        assert_memory_equal(slope[0], slope[1], sizeof slope[0]);
        assert_memory_not_equal(code[0], before, sizeof before);
        for (int i = 0; i < ELEMENTS; i++)
            count[(int)code[0][i] + 2]++;
    }
    for (int k = 0; k < CODES; k++) {
        const double want = STEPS_DRAWN * ELEMENTS * ref_pi(0.04, 0.3, 0.19, -2, 2, k - 2);
        chi += ((double)count[k] - want) * ((double)count[k] - want) / want;
    }
    assert_true(same < LB_QUANT_NOISE * STEPS_DRAWN / 1000); /* all of it is new at each step */
    if (chi > 22) /* 4 degrees of freedom: p = 2e-4 */
        fail_msg("chi squared %g", chi);
    lb_ctx_destroy(ctx);
}

/* Weights of rq: each element has noise of its own, forward and backward, whether steps are of the tensor or of filters. */
static void noise_of_filters(void **state) {
    enum { OUT = 5, IN = N / OUT };
    static float code[2][N], work[2 * N], du[2][N];
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (int i = 0; i < N; i++)
        u[i] = 0.1f * (float)(i % 7) - 0.3f, diff[i] = 1.f;
    for (int per_filter = 0; per_filter < 2; per_filter++) {
        lb_quant q = {.spec = {.quantizer = &lb_quantizer_rq, .bits = 3, .options.per = per_filter ? LB_PER_FILTER : LB_PER_TENSOR},
                      .initialised = true};
        float param[2 * OUT], step[OUT], dp[2 * OUT] = {0};
        assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
        for (int o = 0; o < 2 * OUT; o++)
            param[o] = logf(o < (per_filter ? OUT : 1) ? 0.3f : 0.19f);
        memset(du[per_filter], 0, sizeof du[per_filter]);
        lb_quant_weights_forward(&q, &at, param, WEIGHTS(u, OUT, IN), step, code[per_filter], work);
        lb_quant_weights_backward(&q, &at, param, STEPPED(u, OUT, IN, step), diff, du[per_filter], dp, work);
    }
    assert_memory_equal(code[0], code[1], sizeof code[0]);
    assert_memory_equal(du[0], du[1], sizeof du[0]);
    lb_ctx_destroy(ctx);
}

/* After a ReLU codes begin at 0; dropping a level halves the range. At evaluation nothing is drawn or dropped. */
static void unsigned_codes(void **state) {
    lb_ctx *ctx = test_ctx();
    lb_quant q = {.spec = {.quantizer = &lb_quantizer_rq, .target = LB_ACTIVATIONS, .bits = 3, .options.drop_top = 0.5f}};
    const float param[2] = {logf(0.3f), logf(0.12f)};
    bool seen[8] = {0};
    (void)state;
    assert_ok(ctx, lb_quant_resolve(ctx, "act", &q.spec, &q.grid));
    assert_true(q.grid.lo == 0 && q.grid.hi == 7);
    fill_normal(u, LB_ACT_BLOCK, 55, 1.5f);
    for (uint64_t s = 0; s < 40; s++) {
        const lb_quant_when when = {.seed = 3, .step = s};
        const int hi = (1 << lb_dropbits(&q.spec, &when, 3)) - 1;
        float code[LB_ACT_BLOCK];
        lb_act_form f;
        lb_quant_act_form(&q, &when, param, &f);
        assert_true(f.lo == 0.f && (int)f.hi == hi);
        f.draw(&f, u, 0, LB_ACT_BLOCK, code);
        for (int i = 0; i < LB_ACT_BLOCK; i++) {
            assert_true(code[i] >= 0.f && (int)code[i] <= hi && code[i] == nearbyintf(code[i]));
            assert_true(fabsf(code[i] - lb_round_clip(u[i] / 0.3f, 0.f, f.hi)) <= 4.f); /* the local grid */
            seen[(int)code[i]] = true;
        }
    }
    for (int k = 0; k < 8; k++)
        assert_true(seen[k]);
    lb_act_form f;
    lb_quant_act_form(&q, &lb_quant_evaluation, param, &f);
    assert_true(!f.draw && (int)f.hi == 7);
    lb_ctx_destroy(ctx);
}

/* ---- DropBits ------------------------------------------------------------------------------------------------------ */

/* Levels drop at their rates, the lowest dropped one decides, nothing at evaluation, the same within a step. */
static void dropped_bits(void **state) {
    enum { STEPS = 20000 };
    lb_quant_spec spec = {.bits = 4, .options.drop_top = 0.1f, .options.drop_lower = 0.2f};
    const double want[5] = {0, 0.2, 0.8 * 0.2, 0.8 * 0.8 * 0.1, 0.8 * 0.8 * 0.9};
    int64_t count[5] = {0};
    double chi = 0;
    (void)state;
    for (uint64_t step = 0; step < STEPS; step++) {
        const lb_quant_when when = {.seed = 5, .step = step};
        const int bits = lb_dropbits(&spec, &when, spec.bits);
        assert_in_range(bits, 1, 4);
        assert_int_equal(bits, lb_dropbits(&spec, &when, spec.bits));
        assert_int_equal(lb_dropbits(&spec, &(lb_quant_when){.seed = 5, .step = step, .evaluation = true}, 4), 4);
        count[bits]++;
    }
    for (int b = 1; b <= 4; b++)
        chi += ((double)count[b] - STEPS * want[b]) * ((double)count[b] - STEPS * want[b]) / (STEPS * want[b]);
    if (chi > 19.7) /* 3 degrees of freedom: p = 2e-4 */
        fail_msg("chi squared %g", chi);
    spec = (lb_quant_spec){.bits = 3, .options.drop_top = 0.1f}; /* only the highest level */
    for (uint64_t step = 0; step < 1000; step++)
        assert_in_range(lb_dropbits(&spec, &(lb_quant_when){.seed = 5, .step = step}, 3), 2, 3);
    spec.options.drop_top = 0.f;
    for (uint64_t step = 0; step < 1000; step++)
        assert_int_equal(lb_dropbits(&spec, &(lb_quant_when){.seed = 5, .step = step}, 3), 3);
}

/* The codes of a step are those of the smaller grid, gradients too; the step size stays. */
static void dropped_codes(void **state) {
    static float full[N], code[N], du[2][N], work[2 * N];
    lb_ctx *ctx = test_ctx();
    lb_quant q = quant_of(ctx, &lb_quantizer_cpq, 3, LB_CPQ_EXPECT), two = quant_of(ctx, &lb_quantizer_cpq, 2, LB_CPQ_EXPECT);
    float param[2], step[2];
    int seen = 0;
    (void)state;
    fill_normal(u, N, 53, 0.8f);
    lb_logistic_init(&q.spec, u, 1, N, param);
    q.spec.options.drop_top = 0.5f;
    for (uint64_t s = 0; s < 20; s++) {
        const lb_quant_when when = {.seed = 3, .step = s};
        if (lb_dropbits(&q.spec, &when, 3) == 3)
            continue;
        float dp[2][2] = {{0}};
        memset(du, 0, sizeof du);
        lb_quant_weights_forward(&q, &when, param, WEIGHTS(u, 1, N), &step[0], code, work);
        lb_quant_weights_backward(&q, &when, param, STEPPED(u, 1, N, &step[0]), diff, du[0], dp[0], work);
        lb_quant_weights_forward(&two, &when, param, WEIGHTS(u, 1, N), &step[1], full, work);
        lb_quant_weights_backward(&two, &when, param, STEPPED(u, 1, N, &step[1]), diff, du[1], dp[1], work);
        assert_memory_equal(code, full, sizeof code);
        assert_memory_equal(du[0], du[1], sizeof du[0]);
        assert_memory_equal(dp[0], dp[1], sizeof dp[0]);
        assert_true(step[0] == step[1]);
        seen++;
    }
    assert_true(seen > 3);
    lb_ctx_destroy(ctx);
}

/* The cubics of a form, evaluated as quant.h has them, beside what `soft` says. */
static double piece(const float c[4][LB_CURVE_PIECES], int k, double t) {
    return (double)c[0][k] + t * ((double)c[1][k] + t * ((double)c[2][k] + t * (double)c[3][k]));
}

static void check_curve(const lb_act_form *f) {
    enum { LAST = LB_CURVE_PIECES - 1 };
    const lb_curve *c = &f->curve;
    double largest[3] = {0}, error[3] = {0};
    const double width = f->hi - f->lo + 2 * (1 + 11 * f->ratio), from = f->lo - 1 - 11 * f->ratio;
    assert_true(c->holds && c->own);
    for (int block = 0; block < 40; block++) {
        float z[LB_ACT_BLOCK];
        lb_soft soft;
        for (int i = 0; i < LB_ACT_BLOCK; i++)
            z[i] = f->step * (float)(from + width * (block * LB_ACT_BLOCK + i) / (40 * LB_ACT_BLOCK));
        f->soft(f, z, 0, LB_ACT_BLOCK, &soft);
        for (int i = 0; i < LB_ACT_BLOCK; i++) {
            const double v = (double)(z[i] * (1 / f->step)), lowest = (double)c->lowest, highest = (double)c->highest;
            const double centre = lowest == highest ? lowest : fmin(fmax(nearbyint(v), lowest), highest), off = v - centre;
            const double far = fmin(fabs(off) * (double)c->scale, LAST), sign = off < 0 ? -1 : 1;
            const int k = (int)nearbyint(far);
            const double slope = piece(c->slope, k, far - k), by_sigma = sign * piece(c->by_sigma, k, far - k);
            const double by_step = sign * piece(c->by_step, k, far - k);
            const double want[3] = {(double)soft.slope[i], (double)soft.by_step[i] - centre * (1 - (double)soft.slope[i]),
                                    (double)soft.by_sigma[i]};
            const double got[3] = {slope, by_step, by_sigma};
            for (int j = 0; j < 3; j++) {
                largest[j] = fmax(largest[j], fabs(want[j]));
                error[j] = fmax(error[j], fabs(got[j] - want[j]));
            }
        }
    }
    for (int j = 0; j < 3; j++)
        if (error[j] > (f->ratio > 0.2f ? 1e-3 : 1.5e-3) * largest[j] + 2e-6)
            fail_msg("%g codes, ratio %g: function %d is off by %g of %g", (double)(f->hi - f->lo + 1), (double)f->ratio, j,
                     error[j], largest[j]);
}

static void curve_is_soft(void **state) {
    static const double ratios[] = {0.01, 0.07, 0.1, 0.15, 0.2, 0.25, 1 / 3.0, 0.5, 1, 2, 8, 100};
    static const int bits[] = {2, 3, 4, 5, 8};
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (size_t b = 0; b < LB_COUNT(bits); b++)
        for (size_t r = 0; r < LB_COUNT(ratios); r++)
            for (int is_signed = 0; is_signed < 2; is_signed++) {
                const float param[2] = {logf(0.3f), (float)log(0.3 * ratios[r])};
                lb_quant q = {.spec = {.quantizer = &lb_quantizer_cpq, .bits = bits[b], .target = LB_ACTIVATIONS,
                                       .is_signed = is_signed}};
                lb_act_form f;
                assert_ok(ctx, lb_quant_resolve(ctx, "act", &q.spec, &q.grid));
                lb_quant_act_form(&q, &at, param, &f);
                check_curve(&f);
            }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(exponential),      cmocka_unit_test(gradients),
                                       cmocka_unit_test(mode_is_nearest),  cmocka_unit_test(draws_follow_pi),
                                       cmocka_unit_test(relaxed_gradient), cmocka_unit_test(dropped_bits),
                                       cmocka_unit_test(dropped_codes),    cmocka_unit_test(curve_is_soft),
                                       cmocka_unit_test(shared_noise),     cmocka_unit_test(noise_of_filters),
                                       cmocka_unit_test(form_is_weights),  cmocka_unit_test(unsigned_codes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

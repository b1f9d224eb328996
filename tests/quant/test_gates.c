/* Learned bit-lengths: draws of the gates, gradients through them by differences, the grid at evaluation, the penalty. */
#include "quant/gates.h"
#include "quant/logistic.h"
#include "quant/reference.h"

enum { N = 300, MAX_PARAMS = 8 };
static float u[N], diff[N];

static lb_quant quant_of(lb_ctx *ctx, int bits, lb_bit_lengths lengths) {
    lb_quant q = {
        .spec = {.quantizer = &lb_quantizer_cpq, .bits = bits, .options.bit_lengths = lengths, .options.bits_penalty = 0.25f},
        .initialised = true};
    assert_ok(ctx, lb_quant_resolve(ctx, "layer", &q.spec, &q.grid));
    return q;
}

/* P(Z = 0) = S(tau log(0.1 / 1.1) - a), P(Z = 1) likewise; a step's draws are the same again; a closed gate closes all above. */
static void draws(void **state) {
    enum { STEPS = 20000 };
    const lb_quant_spec spec = {.quantizer = &lb_quantizer_cpq, .bits = 4, .options.bit_lengths = LB_BITS_LEARNED};
    const float gate[2] = {-1.5f, -2.5f};
    int zero[2] = {0}, one[2] = {0}, bits[5] = {0};
    (void)state;
    for (uint64_t step = 0; step < STEPS; step++) {
        const lb_quant_when when = {.seed = 4, .step = step};
        lb_gates g, again;
        lb_gates_draw(&spec, &when, gate, &g);
        lb_gates_draw(&spec, &when, gate, &again);
        assert_memory_equal(&g, &again, sizeof g);
        for (int k = 0; k < 2; k++)
            zero[k] += g.z[3 + k] == 0.f, one[k] += g.z[3 + k] == 1.f;
        assert_true(g.zbar[2] == 1.f && g.zbar[3] == g.z[3] && g.zbar[4] == g.z[3] * g.z[4]);
        assert_int_equal(g.bits, g.z[3] == 0.f ? 2 : g.z[4] == 0.f ? 3 : 4);
        assert_int_equal(g.open, g.z[3] == 1.f && g.z[4] == 1.f);
        bits[g.bits]++;
    }
    for (int k = 0; k < 2; k++) {
        const double a = log(9) + (double)gate[k], shift = 2.0 / 3 * log(0.1 / 1.1);
        const double p0 = ref_sigmoid(shift - a), p1 = ref_sigmoid(a + shift);
        assert_true(fabs(zero[k] - STEPS * p0) < 4 * sqrt(STEPS * p0 * (1 - p0)));
        assert_true(fabs(one[k] - STEPS * p1) < 4 * sqrt(STEPS * p1 * (1 - p1)));
    }
    assert_true(bits[2] > 100 && bits[3] > 100 && bits[4] > 100);
}

/* No two gates of a draw have the same noise. */
static void draws_are_apart(void **state) {
    const lb_quant_spec spec = {.quantizer = &lb_quantizer_cpq, .bits = 8, .options.bit_lengths = LB_BITS_LEARNED};
    const float gate[6] = {-2.f, -2.f, -2.f, -2.f, -2.f, -2.f};
    int half_open = 0;
    (void)state;
    for (uint64_t step = 0; step < 100; step++) {
        const lb_quant_when when = {.seed = 5, .step = step};
        lb_gates g;
        lb_gates_draw(&spec, &when, gate, &g);
        for (int k = LB_GATE_FIRST; k <= 8; k++)
            for (int j = LB_GATE_FIRST; j < k; j++) {
                const bool both = g.z[j] > 0.f && g.z[j] < 1.f && g.z[k] > 0.f && g.z[k] < 1.f;
                assert_true(!both || g.z[j] != g.z[k]);
                half_open += both;
            }
    }
    assert_true(half_open > 100);
}

/* The mean over the codes that the gates leave, in double; param: log step, log sigma, gates. */
static double gated_mean(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, double x, int *best) {
    const double step = exp((double)param[0]), sigma = exp((double)param[1]);
    lb_gates g;
    double weight = 0, sum = 0, most = -1;
    lb_gates_draw(spec, when, param + 2, &g);
    for (int k = -(1 << (spec->bits - 1)); k < 1 << (spec->bits - 1); k++) {
        int level = 1;
        while (k < -(1 << (level - 1)) || k >= 1 << (level - 1))
            level++;
        const double w = (double)g.zbar[level] * ref_between((step * (k - 0.5) - x) / sigma, (step * (k + 0.5) - x) / sigma);
        weight += w, sum += w * step * k;
        if (w > most)
            most = w, *best = k;
    }
    return sum / weight;
}

static void gradients(void **state) {
    lb_ctx *ctx = test_ctx();
    int half_open = 0;
    (void)state;
    fill_normal(u, N, 60, 0.8f);
    fill_normal(diff, N, 61, 1.f);
    for (int bits = 3; bits <= 6; bits++)
        for (uint64_t s = 0; s < 12; s++) {
            lb_quant q = quant_of(ctx, bits, LB_BITS_LEARNED);
            const lb_quant_when when = {.seed = 9, .step = s};
            const int n = lb_quant_nparams(&q.spec);
            float param[MAX_PARAMS], code[N], du[N] = {0}, work[2 * N], step, dp[MAX_PARAMS] = {0}, penalty[MAX_PARAMS] = {0};
            double loss[2], size = 0;
            int unused;
            lb_gates g;
            assert_int_equal(n, bits);
            for (int p = 2; p < n; p++)
                param[p] = -1.5f;
            lb_logistic_init(&q.spec, u, 1, N, param);
            for (int p = 2; p < n; p++)
                assert_true(param[p] == -1.5f); /* gates have their values already */
            lb_gates_draw(&q.spec, &when, param + 2, &g);
            half_open += !g.open;
            lb_quant_weights_forward(&q, &when, param, WEIGHTS(u, 1, N), &step, code, work);
            lb_quant_weights_backward(&q, &when, param, STEPPED(u, 1, N, &step), diff, du, dp, work);
            lb_gates_penalty(&q.spec, param + 2, penalty + 2);
            for (int i = 0; i < N; i++) {
                const double x = (double)u[i], h = 1e-5;
                int best;
                const double down = gated_mean(&q.spec, &when, param, x - h, &unused);
                const double slope = (gated_mean(&q.spec, &when, param, x + h, &unused) - down) / (2 * h);
                assert_true(fabs((double)du[i] - (double)diff[i] * slope) < 1e-3 * (1 + fabs(slope)) * fabs((double)diff[i]));
                gated_mean(&q.spec, &when, param, x, &best);
                if ((int)code[i] != best) { /* a tie */
                    const double v = fabs(x / (double)step - ((double)code[i] + best) / 2);
                    assert_true(v < 1e-3 || !g.open);
                }
                size += fabs((double)diff[i] * x);
            }
            for (int p = 0; p < n; p++) {
                const float h = 2e-3f, at = param[p];
                for (int side = 0; side < 2; side++) {
                    param[p] = side ? at + h : at - h;
                    loss[side] = 0;
                    for (int i = 0; i < N; i++)
                        loss[side] += (double)diff[i] * gated_mean(&q.spec, &when, param, (double)u[i], &unused);
                }
                const double want = (loss[1] - loss[0]) / ((double)(at + h) - (double)(at - h)) + (double)penalty[p];
                param[p] = at;
                if (fabs(want - (double)dp[p]) > 2e-4 * size)
                    fail_msg("%d bits, step %d: parameter %d has %g, should be %g", bits, (int)s, p, (double)dp[p], want);
            }
        }
    assert_true(half_open > 20);
    lb_ctx_destroy(ctx);
}

static void penalty_gradient(void **state) {
    const lb_quant_spec spec = {
        .quantizer = &lb_quantizer_cpq, .bits = 5, .options.bit_lengths = LB_BITS_LEARNED, .options.bits_penalty = 0.7f};
    const float gate[3] = {1.f, -2.f, -4.5f};
    float got[3] = {0};
    (void)state;
    lb_gates_penalty(&spec, gate, got);
    for (int k = 0; k < 3; k++) {
        const double a = log(9) + (double)gate[k] - 2.0 / 3 * log(0.1 / 1.1), h = 1e-5;
        assert_true(fabs((double)got[k] - 0.7 * (ref_sigmoid(a + h) - ref_sigmoid(a - h)) / (2 * h)) < 1e-6);
    }
}

/* At evaluation a level is there if its gate and all below are; the grid follows; the kept bits are those of training too. */
static void evaluation(void **state) {
    static const struct {
        float gate[3];
        int bits;
    } cases[] = {{{0, 0, 0}, 5}, {{0, 0, -4.7f}, 4}, {{0, -5, 0}, 3}, {{-5, 3, 3}, 2}, {{-4.5f, -4.5f, -4.5f}, 5}};
    lb_ctx *ctx = test_ctx();
    (void)state;
    fill_normal(u, N, 62, 1.5f);
    for (size_t c = 0; c < LB_COUNT(cases); c++)
        for (lb_bit_lengths lengths = LB_BITS_LEARNED; lengths <= LB_BITS_KEPT; lengths++) {
            lb_quant q = quant_of(ctx, 5, lengths);
            float param[MAX_PARAMS] = {-2.f, -3.f}, step, code[N], work[2 * N], dp[MAX_PARAMS] = {0}, du[N] = {0};
            const lb_quant_when training = {.seed = 1, .step = 2};
            bool seen[2] = {false, false};
            memcpy(param + 2, cases[c].gate, sizeof cases[c].gate);
            lb_quant_update_grid(&q, param);
            assert_int_equal(q.grid.bits, cases[c].bits);
            assert_int_equal(q.grid.hi, (1 << (cases[c].bits - 1)) - 1);
            lb_quant_weights_forward(&q, lengths == LB_BITS_KEPT ? &training : &lb_quant_evaluation, param, WEIGHTS(u, 1, N),
                                     &step, code, work);
            for (int i = 0; i < N; i++) {
                assert_true(code[i] >= (float)q.grid.lo && code[i] <= (float)q.grid.hi);
                seen[0] |= (int)code[i] == q.grid.lo, seen[1] |= (int)code[i] == q.grid.hi;
            }
            assert_true(seen[0] && seen[1]);
            if (lengths == LB_BITS_KEPT) {
                lb_quant_weights_backward(&q, &training, param, STEPPED(u, 1, N, &step), u, du, dp, work);
                assert_true(dp[0] != 0.f && dp[2] == 0.f && dp[3] == 0.f && dp[4] == 0.f);
            }
        }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws), cmocka_unit_test(draws_are_apart), cmocka_unit_test(gradients),
                                       cmocka_unit_test(penalty_gradient), cmocka_unit_test(evaluation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

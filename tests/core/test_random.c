/* Random numbers: published answers, independence of everything but the key and counter, moments. And CRC-32C. */
#include <math.h>

#include "support.h"

enum { N = 1 << 20 };

static void philox(void **state) {
    (void)state;
    /* Random123's kat_vectors, philox4x32 10 rounds; the key is the seed for purpose 0. */
    static const struct {
        uint64_t seed, step, index;
        uint32_t want[4];
    } kat[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < LB_COUNT(kat); i++) {
        uint32_t got[4];
        lb_rng4(kat[i].seed, LB_RNG_INIT, kat[i].step, kat[i].index, got);
        assert_memory_equal(got, kat[i].want, sizeof got);
    }
}

static void many(void **state) {
    (void)state;
    static const uint64_t firsts[] = {0, 5, 0xFFFFFFF0u, UINT64_MAX - 20};
    for (int count = 0; count < 70; count += 1 + count / 7)
        for (uint64_t stride = 0; stride < 4; stride++)
            for (size_t f = 0; f < LB_COUNT(firsts); f++) {
                uint32_t got[4 * 70], want[4];
                lb_rng4_many(~(uint64_t)f, LB_RNG_GUMBEL, stride << 33 | 7, firsts[f], stride, count, got);
                for (int i = 0; i < count; i++) {
                    lb_rng4(~(uint64_t)f, LB_RNG_GUMBEL, stride << 33 | 7, firsts[f] + (uint64_t)i * stride, want);
                    for (int w = 0; w < 4; w++)
                        assert_int_equal(got[w * count + i], want[w]);
                }
            }
}

/* No two of a grid of arguments give the same numbers. */
static void arguments_matter(void **state) {
    (void)state;
    enum { SEEDS = 5, PURPOSES = LB_RNG_MIXER + 1, STEPS = 5, INDICES = 5, ALL = SEEDS * PURPOSES * STEPS * INDICES };
    static const uint64_t values[5] = {0, 1, 2, (uint64_t)1 << 32, UINT64_MAX};
    static uint32_t seen[ALL][4];
    int n = 0;
    for (int seed = 0; seed < SEEDS; seed++)
        for (int purpose = 0; purpose < PURPOSES; purpose++)
            for (int step = 0; step < STEPS; step++)
                for (int index = 0; index < INDICES; index++, n++)
                    lb_rng4(values[seed], (lb_purpose)purpose, values[step], values[index], seen[n]);
    for (int i = 0; i < ALL; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(seen[i], seen[j], sizeof seen[i]);
}

/* Seeds of a network's tensors (train/plan_run.h) never meet where purposes move them to. */
static void tensors_are_apart(void **state) {
    (void)state;
    enum { NODES = 200, PURPOSES = LB_RNG_GUMBEL + 1 };
    static uint64_t seeds[NODES];
    const uint64_t line = 0x9e3779b97f4a7c15u;
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (uint64_t node = 0; node < NODES; node++)
            seeds[node] = lb_scatter(seed ^ (node + 1) * line);
        for (int i = 0; i < NODES; i++)
            for (int k = 0; k < i; k++)
                for (uint64_t p = 0; p < PURPOSES; p++)
                    assert_true(seeds[i] - seeds[k] != p * line && seeds[k] - seeds[i] != p * line);
    }
}

static void uniform_ends(void **state) {
    (void)state;
    assert_true(lb_uniform(0) == 0.0f);
    assert_true(lb_uniform(UINT32_MAX) < 1.0f);
    assert_true(lb_uniform(UINT32_MAX) > 0.9999f);
    assert_true(lb_uniform(0x80000000u) == 0.5f);
    const uint32_t ends[] = {0, 1, 255, 256, 0x7FFFFFFF, 0x80000000u, 0xFFFFFF00u, UINT32_MAX};
    for (size_t i = 0; i < LB_COUNT(ends); i++)
        for (size_t j = 0; j < LB_COUNT(ends); j++) {
            float out[2];
            lb_normal2(ends[i], ends[j], out);
            assert_true(isfinite(out[0]) && isfinite(out[1]) && fabsf(out[0]) < 7.0f && fabsf(out[1]) < 7.0f);
        }
}

static void prefix_of_itself(void **state) {
    (void)state;
    static float whole[1000], part[1001];
    lb_rng_normal(7, LB_RNG_TEST, 3, 0.5f, whole, 1000);
    for (size_t n = 0; n <= 1000; n += n < 20 ? 1 : 49) {
        for (size_t i = 0; i < 1001; i++)
            part[i] = 99.0f;
        lb_rng_normal(7, LB_RNG_TEST, 3, 0.5f, part, n);
        assert_memory_equal(part, whole, n * sizeof *part);
        assert_true(part[n] == 99.0f); /* nothing behind the end */
    }
}

static float *fill(uint64_t seed, lb_purpose purpose, uint64_t step, float scale) {
    float *x = malloc(N * sizeof *x);
    lb_rng_normal(seed, purpose, step, scale, x, N);
    return x;
}

static double correlation(const float *x, const float *y, size_t n) {
    double xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        xy += (double)x[i] * y[i];
        xx += (double)x[i] * x[i];
        yy += (double)y[i] * y[i];
    }
    return xy / sqrt(xx * yy);
}

/* Bounds are 5 standard errors. */
static void normals(void **state) {
    (void)state;
    float *x = fill(1, LB_RNG_INIT, 0, 2.0f);
    double m[5] = {0}, largest = 0;
    static const double cuts[] = {-2, -1, -0.5, 0, 0.5, 1, 2, 3};
    size_t below[LB_COUNT(cuts)] = {0};
    for (size_t i = 0; i < N; i++) {
        double z = x[i] / 2.0, power = z;
        for (int k = 1; k <= 4; k++, power *= z)
            m[k] += power / N;
        largest = fmax(largest, fabs(z));
        for (size_t c = 0; c < LB_COUNT(cuts); c++)
            below[c] += z < cuts[c];
    }
    double error = 5 / sqrt(N);
    assert_true(fabs(m[1]) < error);
    assert_true(fabs(m[2] - 1) < error * sqrt(2));
    assert_true(fabs(m[3]) < error * sqrt(15));
    assert_true(fabs(m[4] - 3) < error * sqrt(96));
    assert_true(largest > 4.3 && largest < 6.8);
    for (size_t c = 0; c < LB_COUNT(cuts); c++) {
        double p = 0.5 * erfc(-cuts[c] / sqrt(2));
        assert_true(fabs((double)below[c] / N - p) < error * sqrt(p * (1 - p)));
    }
    for (size_t lag = 1; lag <= 8; lag++) /* the elements of one counter, and of neighbours */
        assert_true(fabs(correlation(x, x + lag, N - lag)) < error);
    float *others[] = {fill(2, LB_RNG_INIT, 0, 1), fill(1, LB_RNG_DROPOUT, 0, 1),
                       fill(1, LB_RNG_INIT, 1, 1)};
    for (size_t i = 0; i < LB_COUNT(others); i++) {
        assert_true(fabs(correlation(x, others[i], N)) < error);
        free(others[i]);
    }
    free(x);
}

static void uniforms(void **state) {
    (void)state;
    float *x = malloc(N * sizeof *x);
    for (size_t i = 0; i < N; i++) {
        uint32_t bits[4];
        lb_rng4(1, LB_RNG_TEST, 0, i / 4, bits);
        x[i] = 3.0f * (2.0f * lb_uniform(bits[i % 4]) - 1.0f);
    }
    size_t bins[16] = {0};
    double mean = 0;
    for (size_t i = 0; i < N; i++) {
        assert_true(x[i] >= -3.0f && x[i] < 3.0f);
        bins[(int)((x[i] + 3.0f) / 6.0f * 16.0f)]++;
        mean += x[i] / (double)N;
    }
    assert_true(fabs(mean) < 5 * 3 / sqrt(3.0 * N));
    double chi2 = 0;
    for (int b = 0; b < 16; b++)
        chi2 += pow((double)bins[b] - N / 16.0, 2) / (N / 16.0);
    assert_true(chi2 < 44.3); /* 15 degrees of freedom, p = 1e-4 */
    for (size_t lag = 1; lag <= 8; lag++)
        assert_true(fabs(correlation(x, x + lag, N - lag)) < 5 / sqrt(N));
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox),       cmocka_unit_test(arguments_matter), cmocka_unit_test(tensors_are_apart),
        cmocka_unit_test(uniform_ends), cmocka_unit_test(prefix_of_itself),
        cmocka_unit_test(normals),      cmocka_unit_test(uniforms),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

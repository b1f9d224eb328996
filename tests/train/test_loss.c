/* Losses against known values and finite differences; ranks and scores. */
#include "support.h"

#include <math.h>

#include "train/accuracy.h"
#include "train/loss.h"

enum { MB = 5, CLASSES = 7 };

static void fill(float *logits, int32_t *labels, float spread, uint64_t seed) {
    lb_rng_normal(seed, LB_RNG_TEST, 0, spread, logits, (size_t)MB * CLASSES);
    for (int i = 0; i < MB; i++)
        labels[i] = (i * 3) % CLASSES;
}

static void test_known(void **state) {
    (void)state;
    int64_t correct = -1;
    float diff[3];
    /* softmax of (log 1, log 2, log 5) is (1, 2, 5) / 8 */
    float y[3] = {logf(1), logf(2), logf(5)};
    int32_t label = 1;
    assert_true(fabs(lb_loss(LB_LOSS_CROSS_ENTROPY, 0, y, &label, 1, 3, diff, &correct) - log(4)) < 1e-6);
    assert_int_equal(correct, 0);
    assert_true(fabsf(diff[0] - 0.125f) < 1e-6f && fabsf(diff[1] + 0.75f) < 1e-6f && fabsf(diff[2] - 0.625f) < 1e-6f);
    /* smoothing 0.3: q = (.1, .8, .1) */
    double smooth = -(0.1 * log(1 / 8.) + 0.8 * log(2 / 8.) + 0.1 * log(5 / 8.));
    assert_true(fabs(lb_loss(LB_LOSS_CROSS_ENTROPY, 0.3f, y, &label, 1, 3, diff, NULL) - smooth) < 1e-6);
    assert_true(fabsf(diff[1] - (0.25f - 0.8f)) < 1e-6f && fabsf(diff[2] - (0.625f - 0.1f)) < 1e-6f);
    /* hinge: t = (-1, 1, -1); margins 1 - t y = (1 + .5, 1 - 2, 1 + -3) -> (1.5, 0, 0) */
    float h[3] = {0.5f, 2, -3};
    assert_true(fabs(lb_loss(LB_LOSS_SQUARED_HINGE, 0, h, &label, 1, 3, diff, &correct) - 2.25 / 3) < 1e-7);
    assert_int_equal(correct, 1);
    assert_true(fabsf(diff[0] - 1.0f) < 1e-6f && diff[1] == 0 && diff[2] == 0);
}

static void test_differences(void **state) {
    (void)state;
    static const struct {
        lb_loss_kind kind;
        float smoothing;
    } cases[] = {
        {LB_LOSS_CROSS_ENTROPY, 0}, {LB_LOSS_CROSS_ENTROPY, 0.1f}, {LB_LOSS_CROSS_ENTROPY, 0.9f}, {LB_LOSS_SQUARED_HINGE, 0}};
    for (size_t k = 0; k < LB_COUNT(cases); k++) {
        float logits[MB * CLASSES], diff[MB * CLASSES];
        int32_t labels[MB];
        fill(logits, labels, 2, k);
        lb_loss(cases[k].kind, cases[k].smoothing, logits, labels, MB, CLASSES, diff, NULL);
        for (int i = 0; i < MB * CLASSES; i++) {
            const float h = 0x1p-10f;
            float was = logits[i];
            logits[i] = was + h;
            float up = logits[i];
            double above = lb_loss(cases[k].kind, cases[k].smoothing, logits, labels, MB, CLASSES, NULL, NULL);
            logits[i] = was - h;
            double below = lb_loss(cases[k].kind, cases[k].smoothing, logits, labels, MB, CLASSES, NULL, NULL);
            double slope = (above - below) / ((double)up - logits[i]);
            logits[i] = was;
            if (!(fabs(slope - diff[i]) < 1e-4 * (1 + fabs(slope))))
                fail_msg("case %zu, logit %d: %g, not %g", k, i, (double)diff[i], slope);
        }
    }
}

static void test_distill_known(void **state) {
    (void)state;
    /* q = (1, 2, 5) / 8 and t = (2, 2, 4) / 8 at temperature 1 */
    const float y[3] = {logf(1), logf(2), logf(5)}, target[3] = {logf(2), logf(2), logf(4)};
    float diff[3] = {1, 1, 1}; /* added to */
    double expected = (2 * log(2. / 1) + 4 * log(4. / 5)) / 8;
    assert_true(fabs(lb_distill_loss_add(LB_DISTILL_KL, 1, 3, y, target, 1, 3, diff) - 3 * expected) < 1e-6);
    assert_true(fabsf(diff[0] - (1 - 3 * 0.125f)) < 1e-6f && fabsf(diff[1] - 1) < 1e-6f &&
                fabsf(diff[2] - (1 + 3 * 0.125f)) < 1e-6f);
    const float hot[3] = {2 * y[0], 2 * y[1], 2 * y[2]}, hot_target[3] = {2 * target[0], 2 * target[1], 2 * target[2]};
    assert_true(fabs(lb_distill_loss_add(LB_DISTILL_KL, 2, 1, hot, hot_target, 1, 3, diff) - 4 * expected) < 1e-6);
    const float a[2] = {1, 5}, b[2] = {3, 4};
    float d[2] = {0};
    assert_true(fabs(lb_distill_loss_add(LB_DISTILL_MSE, 1, 2, a, b, 1, 2, d) - 2 * 2.5) < 1e-9);
    assert_true(fabsf(d[0] + 4) < 1e-6f && fabsf(d[1] - 2) < 1e-6f);
    assert_true(lb_distill_loss_add(LB_DISTILL_KL, 1, 1, y, y, 1, 3, diff) == 0); /* nothing between equals */
    const float far[2] = {-1e30f, 1e30f};
    assert_true(isfinite(lb_distill_loss_add(LB_DISTILL_KL, 1, 1, far, b, 1, 2, d)));
    const float bad[2] = {NAN, 1};
    assert_false(isfinite(lb_distill_loss_add(LB_DISTILL_KL, 1, 1, a, bad, 1, 2, d)));
    assert_false(isfinite(lb_distill_loss_add(LB_DISTILL_MSE, 1, 1, bad, a, 1, 2, d)));
}

static void test_distill_differences(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        const lb_distill_loss kind = k & 1 ? LB_DISTILL_MSE : LB_DISTILL_KL;
        const float temperature = k & 2 ? 4 : 1, h = 0x1p-8f;
        float y[MB * CLASSES], target[MB * CLASSES], diff[MB * CLASSES] = {0}, unused[MB * CLASSES];
        int32_t labels[MB];
        fill(y, labels, 2, 40 + (uint64_t)k);
        fill(target, labels, 2, 50 + (uint64_t)k);
        lb_distill_loss_add(kind, temperature, 0.7f, y, target, MB, CLASSES, diff);
        for (int i = 0; i < MB * CLASSES; i++) {
            const float was = y[i];
            y[i] = was + h;
            double above = lb_distill_loss_add(kind, temperature, 0.7f, y, target, MB, CLASSES, unused), up = (double)y[i];
            y[i] = was - h;
            double below = lb_distill_loss_add(kind, temperature, 0.7f, y, target, MB, CLASSES, unused);
            double slope = (above - below) / (up - (double)y[i]);
            y[i] = was;
            if (!(fabs(slope - (double)diff[i]) < 1e-4 * (1 + fabs(slope))))
                fail_msg("case %d, logit %d: %g, not %g", k, i, (double)diff[i], slope);
        }
    }
}

static void test_extremes(void **state) {
    (void)state;
    float diff[3];
    int32_t label = 0;
    float far[3] = {-1e30f, 1e30f, 0};
    int64_t correct;
    double loss = lb_loss(LB_LOSS_CROSS_ENTROPY, 0, far, &label, 1, 3, diff, &correct);
    assert_true(loss > 1.9e30 && isfinite(loss) && diff[0] == -1 && diff[1] == 1 && diff[2] == 0);
    far[0] = far[1] = far[2] = 80; /* no overflow in exp */
    assert_true(fabs(lb_loss(LB_LOSS_CROSS_ENTROPY, 0, far, &label, 1, 3, diff, &correct) - log(3)) < 1e-9);
    assert_int_equal(correct, 1); /* the first of equals */
    float one[1] = {5};
    assert_true(lb_loss(LB_LOSS_CROSS_ENTROPY, 0.1f, one, &label, 1, 1, diff, &correct) == 0);
    for (int bad = 0; bad < 3; bad++)
        for (int kind = 0; kind < 2; kind++) {
            float y[3] = {1, 2, 3};
            y[bad] = NAN;
            assert_false(isfinite(lb_loss((lb_loss_kind)kind, 0, y, &label, 1, 3, diff, &correct)));
            assert_int_equal(correct, 0);
        }
    float inf[3] = {1, INFINITY, 2};
    assert_false(isfinite(lb_loss(LB_LOSS_CROSS_ENTROPY, 0, inf, &label, 1, 3, diff, NULL)));
}

static void test_ranks(void **state) {
    (void)state;
    const float y[6] = {3, 1, 4, 1, 5, 9};
    const int32_t s[6] = {3, 1, 4, 1, 5, 9};
    const int ranks[6] = {3, 4, 2, 5, 1, 0};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(lb_logit_rank(y, 6, i), ranks[i]);
        assert_int_equal(lb_score_rank(s, 6, i), ranks[i]);
    }
}

static void test_scores(void **state) {
    (void)state;
    lb_score_sums sums = {0};
    lb_metrics m;
    lb_scores_metrics(&sums, &m);
    assert_true(m.images == 0 && m.top1 == 0 && m.top5 == 0 && m.loss == 0);

    /* The same logits as float and as fixed point agree. */
    float logits[MB * CLASSES];
    int32_t labels[MB], scores[MB * CLASSES];
    int64_t correct = 0, first5 = 0;
    fill(logits, labels, 2, 42);
    for (int i = 0; i < MB * CLASSES; i++)
        scores[i] = (int32_t)lrint(logits[i] * 65536.0);
    double loss = lb_loss(LB_LOSS_CROSS_ENTROPY, 0, logits, labels, MB, CLASSES, NULL, &correct);
    for (int i = 0; i < MB; i++)
        first5 += lb_logit_rank(logits + i * CLASSES, CLASSES, labels[i]) < 5;
    lb_scores_add(&sums, scores, labels, 2, CLASSES); /* in two pieces */
    lb_scores_add(&sums, scores + 2 * CLASSES, labels + 2, MB - 2, CLASSES);
    lb_scores_metrics(&sums, &m);
    assert_int_equal(m.images, MB);
    assert_int_equal(sums.cut, 0);
    assert_true(fabs(m.loss - loss) < 1e-4);
    assert_true(m.top1 == 100.0 * (double)correct / MB && m.top5 == 100.0 * (double)first5 / MB);

    int32_t edge[2] = {INT32_MIN, INT32_MAX}, label = 0;
    sums = (lb_score_sums){0};
    lb_scores_add(&sums, edge, &label, 1, 2);
    lb_scores_metrics(&sums, &m);
    assert_true(m.loss > 65535 && m.loss < 65537 && m.top1 == 0 && m.top5 == 100);
    assert_true(sums.images == 1 && sums.cut == 1);

    static const int32_t ends[][2] = {{INT32_MIN, 0}, {0, INT32_MAX}, {INT32_MIN + 1, INT32_MAX - 1}}; /* cut off: the first two */
    sums = (lb_score_sums){0};
    for (size_t i = 0; i < LB_COUNT(ends); i++)
        lb_scores_add(&sums, ends[i], &label, 1, 2);
    assert_true(sums.images == 3 && sums.cut == 2);
    const int32_t six[12] = {1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1}, last[2] = {0, 4}; /* ranks 5 and 4 */
    sums = (lb_score_sums){0};
    lb_scores_add(&sums, six, last, 2, 6);
    assert_true(sums.top1 == 0 && sums.top5 == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),         cmocka_unit_test(test_differences),         cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_distill_known), cmocka_unit_test(test_distill_differences), cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

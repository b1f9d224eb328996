/* Learning rates against values worked out by hand (and PyTorch's schedulers). */
#include "support.h"

#include <math.h>

#include "train/schedule.h"

/* 10 epochs of 100 steps unless said otherwise. */
static const struct {
    lb_schedule_config schedule;
    float lr;
    int64_t step;
    double value;
} known[] = {
    {{.name = LB_SCHED_CONSTANT}, 0.5f, 0, 0.5},
    {{.name = LB_SCHED_CONSTANT}, 0.5f, 999, 0.5},
    {{.name = LB_SCHED_COSINE}, 0.5f, 0, 0.5},
    {{.name = LB_SCHED_COSINE}, 0.5f, 500, 0.25},
    {{.name = LB_SCHED_COSINE}, 0.5f, 250, 0.4267766952966369},
    {{.name = LB_SCHED_COSINE}, 0.5f, 1000, 0},
    {{.name = LB_SCHED_COSINE}, 0.5f, 5000, 0},
    {{.name = LB_SCHED_COSINE, .lr_end = 0.25f}, 0.5f, 500, 0.375},
    {{.name = LB_SCHED_COSINE, .lr_end = 0.25f}, 0.5f, 1000, 0.25},
    {{.name = LB_SCHED_STEP, .every = 3, .gamma = 0.5f}, 1, 0, 1},
    {{.name = LB_SCHED_STEP, .every = 3, .gamma = 0.5f}, 1, 299, 1},
    {{.name = LB_SCHED_STEP, .every = 3, .gamma = 0.5f}, 1, 300, 0.5},
    {{.name = LB_SCHED_STEP, .every = 3, .gamma = 0.5f}, 1, 999, 0.125},
    {{.name = LB_SCHED_STEP, .every = 0.25f, .gamma = 0.5f}, 1, 75, 0.125},
    {{.name = LB_SCHED_STEP, .every = 0.1f, .gamma = 0.5f}, 1, 9, 1}, /* 0.1f is a little more than a tenth */
    {{.name = LB_SCHED_STEP, .every = 0.1f, .gamma = 0.5f}, 1, 10, 0.5},
    {{.name = LB_SCHED_STEP, .every = 0.1f, .gamma = 0.5f}, 1, 29, 0.25},
    {{.name = LB_SCHED_STEP, .every = 0.1f, .gamma = 0.5f}, 1, 30, 0.125},
    {{.name = LB_SCHED_STEP, .every = 0.7f, .gamma = 0.5f}, 1, 69, 1},
    {{.name = LB_SCHED_STEP, .every = 0.7f, .gamma = 0.5f}, 1, 70, 0.5},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {0.1f, 1.1f}, .nmilestones = 2, .gamma = 0.25f}, 1, 9, 1},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {0.1f, 1.1f}, .nmilestones = 2, .gamma = 0.25f}, 1, 10, 0.25},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {0.1f, 1.1f}, .nmilestones = 2, .gamma = 0.25f}, 1, 109, 0.25},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {0.1f, 1.1f}, .nmilestones = 2, .gamma = 0.25f}, 1, 110, 0.0625},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {2, 5.5f}, .nmilestones = 2, .gamma = 0.25f}, 1, 199, 1},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {2, 5.5f}, .nmilestones = 2, .gamma = 0.25f}, 1, 200, 0.25},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {2, 5.5f}, .nmilestones = 2, .gamma = 0.25f}, 1, 549, 0.25},
    {{.name = LB_SCHED_MULTISTEP, .milestones = {2, 5.5f}, .nmilestones = 2, .gamma = 0.25f}, 1, 550, 0.0625},
    {{.name = LB_SCHED_POLYNOMIAL, .power = 1, .lr_end = 0.5f}, 1, 500, 0.75},
    {{.name = LB_SCHED_POLYNOMIAL, .power = 2}, 1, 500, 0.25},
    {{.name = LB_SCHED_POLYNOMIAL, .power = 2}, 1, 1000, 0},
    {{.name = LB_SCHED_EXPONENTIAL, .lr_end = 0.25f}, 1, 0, 1},
    {{.name = LB_SCHED_EXPONENTIAL, .lr_end = 0.25f}, 1, 500, 0.5},
    {{.name = LB_SCHED_EXPONENTIAL, .lr_end = 0.25f}, 1, 1000, 0.25},
    /* Warm-up: 200 steps, then the curve over the other 800. */
    {{.name = LB_SCHED_COSINE, .warmup = 2}, 0.5f, 0, 0.5 / 200},
    {{.name = LB_SCHED_COSINE, .warmup = 2}, 0.5f, 99, 0.25},
    {{.name = LB_SCHED_COSINE, .warmup = 2}, 0.5f, 198, 0.5 * 199 / 200},
    {{.name = LB_SCHED_COSINE, .warmup = 2}, 0.5f, 199, 0.5},
    {{.name = LB_SCHED_COSINE, .warmup = 2}, 0.5f, 200, 0.5},
    {{.name = LB_SCHED_COSINE, .warmup = 2}, 0.5f, 600, 0.25},
    {{.name = LB_SCHED_COSINE, .warmup = 0.5f}, 0.5f, 24, 0.25},
    {{.name = LB_SCHED_STEP, .warmup = 4, .every = 1, .gamma = 0.5f}, 1, 199, 0.25}, /* milestones count from the stage's start */
    {{.name = LB_SCHED_COSINE, .warmup = 20}, 1, 999, 0.5}, /* longer than the stage */
};

static void test_known(void **state) {
    (void)state;
    for (size_t i = 0; i < LB_COUNT(known); i++) {
        lb_train_config train = {.schedule = known[i].schedule, .optimizer = {.lr = known[i].lr}};
        double lr = lb_schedule_lr(&train, known[i].step, 100, 1000);
        if (!(fabs(lr - known[i].value) < 1e-12))
            fail_msg("row %zu: %.15g, not %.15g", i, lr, known[i].value);
    }
}

/* Never negative or NaN, never above lr, and falling after warm-up; with odd sizes too. */
static void test_shape(void **state) {
    (void)state;
    for (int name = LB_SCHED_CONSTANT; name <= LB_SCHED_EXPONENTIAL; name++)
        for (int64_t total = 1; total < 40; total += 3)
            for (int warmup = 0; warmup < 4; warmup++) {
                lb_train_config train = {.optimizer = {.lr = 0.1f},
                                         .schedule = {.name = (lb_schedule_kind)name,
                                                      .warmup = (float)warmup / 2,
                                                      .every = 0.7f,
                                                      .gamma = 0.3f,
                                                      .power = 1.5f,
                                                      .lr_end = 1e-3f,
                                                      .milestones = {0.5f, 1.1f},
                                                      .nmilestones = 2}};
                double before = INFINITY;
                for (int64_t step = 0; step <= total; step++) {
                    double lr = lb_schedule_lr(&train, step, 7, total);
                    assert_true(lr > 0 && lr <= 0.1f);
                    if ((double)step >= warmup * 3.5) {
                        assert_true(lr <= before);
                        before = lr;
                    }
                }
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

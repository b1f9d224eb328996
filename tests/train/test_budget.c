/* Budgets of runs that are continued. */
#include "runs.h"

#include "lowbit/lowbit.h"

#define RECIPE                                                                                    \
    "model: {name: lenet5, width: 0.25}\n"                                                        \
    "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 20}\n"            \
    "train: {batch: 32, epochs: 2, total_epochs: 1, optimizer: {lr: 0.01}, schedule: {warmup: 0.5}}\n"

static int64_t steps_done(const char *dir) {
    char *log = read_text(dir, "metrics.jsonl");
    long long steps = 0;
    for (const char *at = log; (at = strstr(at, "\"step\": ")); at++)
        sscanf(at, "\"step\": %lld", &steps);
    free(log);
    return steps;
}

/* A run with a total of epochs says what continues it, and then is continued. */
static void test_total_epochs(void **state) {
    (void)state;
    if (!have_data())
        return;
    static const struct {
        const char *set;
        int64_t steps;
        bool advice;
    } runs[] = {{NULL, 10, false}, {NULL, 10, true}, {"train.total_epochs=2", 20, false}};
    char dir[64];
    make_dir(dir);
    for (size_t i = 0; i < LB_COUNT(runs); i++) {
        test_log log;
        lb_ctx *ctx = test_ctx_logging(&log);
        lb_recipe *recipe;
        lb_trainer *t;
        assert_ok(ctx, lb_recipe_parse(ctx, "test.yaml", RECIPE, strlen(RECIPE), &runs[i].set, runs[i].set ? 1 : 0, &recipe));
        assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &t));
        assert_ok(ctx, lb_trainer_run(t, dir, i > 0));
        assert_int_equal(steps_done(dir), runs[i].steps);
        assert_true(runs[i].advice == (strstr(log.notes, "a larger train.total_epochs continues it") != NULL));
        lb_trainer_destroy(t);
        lb_recipe_destroy(recipe);
        lb_ctx_destroy(ctx);
    }
    remove_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_total_epochs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What is counted in epochs: budgets of runs that are continued, histograms. */
#include "runs.h"

#include <glob.h>

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
        t = trainer_of(ctx, recipe);
        assert_ok(ctx, lb_trainer_run(t, dir, i > 0));
        assert_int_equal(steps_done(dir), runs[i].steps);
        assert_true(runs[i].advice == (strstr(log.notes, "a larger train.total_epochs continues it") != NULL));
        destroy_all(ctx, recipe, t);
    }
    remove_dir(dir);
}

/* Histograms of conv1's weights in the run's events. */
static int histograms(const char *dir) {
    char pattern[100];
    glob_t found;
    int count = 0;
    snprintf(pattern, sizeof pattern, "%s/events*", dir);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        static const char tag[] = "conv1.weight";
        size_t size;
        unsigned char *data = read_all(dir, strrchr(found.gl_pathv[i], '/') + 1, &size);
        for (size_t k = 0; k + sizeof tag <= size; k++)
            count += !memcmp(data + k, tag, sizeof tag - 1);
        free(data);
    }
    globfree(&found);
    return count;
}

/* 10 steps an epoch. Interrupted after `stop_after` evaluations, if that is not 0, and resumed. */
static int histograms_of(const char *epochs, const char *eval_every, const char *every, int stop_after) {
    char dir[64];
    make_dir(dir);
    for (int resume = 0; resume < (stop_after ? 2 : 1); resume++) {
        watcher w;
        lb_ctx *ctx = watched(&w, resume ? 0 : stop_after);
        lb_recipe *recipe = recipe_of(ctx, RECIPE);
        lb_trainer *t;
        assert_ok(ctx, lb_recipe_set(recipe, "train.total_epochs", epochs));
        assert_ok(ctx, lb_recipe_set(recipe, "train.eval_every", eval_every));
        assert_ok(ctx, lb_recipe_set(recipe, "train.histograms", every));
        t = trainer_of(ctx, recipe);
        const lb_status status = lb_trainer_run(t, dir, resume);
        assert_int_equal(status, stop_after && !resume ? LB_ERR_INTERRUPTED : LB_OK);
        destroy_all(ctx, recipe, t);
    }
    const int count = histograms(dir);
    remove_dir(dir);
    return count;
}

/* At the first evaluation after so many epochs, and after as many again. */
static void test_histograms(void **state) {
    (void)state;
    static const struct {
        const char *epochs, *eval_every, *every;
        int count;
    } cases[] = {{"1", "0.2", "5", 0}, {"7", "1.5", "2", 3}, {"3", "0.5", "1", 3}, {"2", "1", "0", 0}};
    for (size_t i = 0; i < LB_COUNT(cases); i++)
        for (int stop = -1; stop < 2; stop++) {
            const int count = histograms_of(cases[i].epochs, cases[i].eval_every, cases[i].every, stop);
            if (count != cases[i].count)
                fail_msg("%s epochs, evaluated every %s, histograms every %s: %d", cases[i].epochs, cases[i].eval_every,
                         cases[i].every, count);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_total_epochs), cmocka_unit_test(test_histograms)};
    return have_data() ? cmocka_run_group_tests(tests, NULL, NULL) : SKIP_ALL;
}

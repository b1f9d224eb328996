/* Runs of networks built by hand: their recipe says the network's own name; they are resumed by the program that builds them. */
#include "net/net.h"
#include "runs.h"
#include "train/trainer.h"

#define TEXT "data: {name: fashion-mnist, train_limit: 320, test_limit: 100}\n" \
             "train: {batch: 32, eval_batch: 100, steps: %d}\n%s"
#define STAGES "stages: [{name: a}, {name: b}]\n"

static lb_net *linear(lb_ctx *ctx, const char *name) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, name, 28, 28, 1, &net));
    lb_net_linear(net, lb_net_flatten(net, lb_net_input(net), "flat"), "fc", 10, true);
    assert_ok(ctx, lb_net_finish(net));
    return net;
}

static lb_status run(lb_ctx *ctx, const char *name, const char *dir, int steps, const char *stages, bool resume) {
    char text[400];
    snprintf(text, sizeof text, TEXT, steps, stages);
    lb_recipe *recipe = recipe_of(ctx, text);
    lb_trainer *trainer;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, linear(ctx, name), &trainer));
    const lb_status status = lb_trainer_run(trainer, dir, resume);
    assert_string_equal(recipe->stages[0].model.name, "resnet20"); /* the caller's recipe stays as it was */
    lb_trainer_destroy(trainer);
    lb_recipe_destroy(recipe);
    return status;
}

static void test_runs(void **state) {
    (void)state;
    static const char *const stages[] = {"", STAGES};
    /* Names that are nothing else's, a network of the zoo's, and what means something in YAML. */
    static const char *const names[] = {"mine", "lenet5", "#1: [yes]"};
    for (size_t s = 0; s < LB_COUNT(stages); s++)
        for (size_t i = 0; i < LB_COUNT(names); i++) {
            char dir[64], path[128];
            make_dir(dir);
            lb_ctx *ctx = test_ctx();
            assert_ok(ctx, run(ctx, names[i], dir, 3, stages[s], false));
            lb_recipe *recipe;
            assert_ok(ctx, lb_recipe_load_run(ctx, dir, NULL, 0, &recipe));
            for (int k = 0; k < recipe->nstages; k++)
                assert_string_equal(recipe->stages[k].model.name, names[i]);
            lb_recipe_destroy(recipe);

            /* Resumed, also where an older version wrote the recipe's own model.name. */
            assert_ok(ctx, run(ctx, names[i], dir, 5, stages[s], true));
            snprintf(path, sizeof path, "%s/recipe.yaml", dir);
            assert_ok(ctx, lb_recipe_load(ctx, path, (const char *const[]){"model.name=resnet20"}, 1, &recipe));
            assert_ok(ctx, lb_recipe_save(recipe, path));
            lb_recipe_destroy(recipe);
            assert_ok(ctx, run(ctx, names[i], dir, 6, stages[s], true));

            assert_int_equal(run(ctx, "another", dir, 7, stages[s], true), LB_ERR_SHAPE);
            test_contains(lb_error(ctx), names[i]);
            lb_ctx_destroy(ctx);
            remove_dir(dir);
        }
}

static void test_opened(void **state) {
    (void)state;
    char dir[64];
    make_dir(dir);
    lb_ctx *ctx = test_ctx();
    lb_trainer *trainer;
    assert_ok(ctx, run(ctx, "mine", dir, 3, "", false));
    assert_int_equal(lb_trainer_open(ctx, dir, NULL, &trainer), LB_ERR_UNSUPPORTED);
    test_contains(lb_error(ctx), "mine");
    test_contains(lb_error(ctx), "built by hand");
    assert_null(trainer);
    lb_ctx_destroy(ctx);
    remove_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_runs), cmocka_unit_test(test_opened)};
    return have_data() ? cmocka_run_group_tests(tests, NULL, NULL) : SKIP_ALL;
}

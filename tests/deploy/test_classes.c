/* Evaluation on a data set that lacks one of the classes: labels follow names, in a run and in its packed model. */
#include "../data/fixtures.h"

#include <limits.h>

#include "recipe/recipe.h"

static void assert_right(scratch *s, const char *spec) {
    lb_metrics trained, packed;
    lb_trainer *trainer;
    lb_packed *model;
    assert_ok(s->ctx, lb_trainer_open(s->ctx, "run", spec, &trainer));
    assert_ok(s->ctx, lb_trainer_eval(trainer, &trained));
    assert_ok(s->ctx, lb_packed_load(s->ctx, "model.lbm", &model));
    assert_ok(s->ctx, lb_packed_eval(model, spec, &packed));
    if (trained.top1 < 100 || packed.top1 < 100)
        fail_msg("%s: %.2f and %.2f %%", spec, trained.top1, packed.top1);
    lb_trainer_destroy(trainer);
    lb_packed_destroy(model);
}

/* A model whose kernels had no memory is refused, and not asked for its classes. */
static void assert_refused_without_kernels(void) {
    test_allocator a = {.left = LONG_MAX};
    lb_ctx *ctx = test_ctx_with(&a);
    lb_packed *model;
    lb_metrics metrics;
    assert_ok(ctx, lb_packed_load(ctx, "model.lbm", &model));
    a.left = 0;
    assert_int_equal(lb_packed_use(model, "ref"), LB_ERR_MEMORY);
    a.left = LONG_MAX;
    assert_int_equal(lb_packed_eval(model, "abc", &metrics), LB_ERR_ARGUMENT);
    assert_non_null(strstr(lb_error(ctx), "model.lbm: there was no memory for its kernels"));
    lb_packed_destroy(model);
    lb_ctx_destroy(ctx);
}

static void test_evaluated(void **state) {
    static const char text[] = "model: {name: lenet5, width: 0.25}\n"
                               "data: {name: folder, path: abc, cache: false}\n"
                               "train: {epochs: 40, batch: 3, eval_every: 40, optimizer: {lr: 0.02}}\n";
    scratch *s = *state;
    for (int i = 0; i < 3; i++)
        put_class("abc", (const char *const[]){"a", "b", "c"}[i], 9 * i);
    put_class("cb", "b", 9);
    put_class("cb", "c", 18);
    lb_recipe *recipe;
    lb_trainer *trainer;
    assert_ok(s->ctx, lb_recipe_parse(s->ctx, "test.yaml", text, strlen(text), NULL, 0, &recipe));
    assert_ok(s->ctx, lb_trainer_create(s->ctx, recipe, NULL, &trainer));
    assert_ok(s->ctx, lb_trainer_run(trainer, "run", false));
    assert_ok(s->ctx, lb_pack(trainer, "model.lbm"));
    lb_trainer_destroy(trainer);
    lb_recipe_destroy(recipe);
    assert_right(s, "abc");
    assert_right(s, "cb");
    assert_refused_without_kernels();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_evaluated, scratch_setup, scratch_teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What a trainer's steps and epochs come to: figures in the log, losses that are too large, signs that change, starting over. */
#include "runs.h"

#include <math.h>

#include "train/report.h"
#include "train/trainer.h"

static void set(lb_ctx *ctx, lb_recipe *recipe, const char *key, const char *value) {
    assert_ok(ctx, lb_recipe_set(recipe, key, value));
}

static lb_recipe *small_recipe(lb_ctx *ctx) {
    return recipe_of(ctx, "model: {name: lenet5, width: 0.25, dropout: 0.2}\n"
                          "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 50}\n"
                          "train: {batch: 32, eval_batch: 50, precision: f32, optimizer: {lr: 0.02}}\n");
}

/* A run that starts over keeps nothing of what quantizers of its first stage have learned: steps, and gates of learned bits. */
static void test_run_twice_from_quantizers(void **state) {
    (void)state;
    static const char *const methods[] = {"lsq", "cpq"};
    for (size_t i = 0; i < LB_COUNT(methods); i++) {
        lb_ctx *ctx = test_ctx();
        lb_recipe *recipe = small_recipe(ctx);
        set(ctx, recipe, "train.steps", "3");
        set(ctx, recipe, "quant.weights.method", methods[i]);
        set(ctx, recipe, "quant.weights.bits", "4");
        set(ctx, recipe, "quant.activations.method", "lsq");
        if (i)
            set(ctx, recipe, "quant.weights.bit_lengths", "learned");
        lb_trainer *t;
        assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &t));
        assert_ok(ctx, lb_trainer_run(t, NULL, false));
        const size_t bytes = t->net->nvalues * sizeof(float);
        float *values = malloc(bytes);
        memcpy(values, t->net->values, bytes);
        assert_ok(ctx, lb_trainer_run(t, NULL, false));
        assert_memory_equal(t->net->values, values, bytes);
        free(values);
        lb_trainer_destroy(t);
        lb_recipe_destroy(recipe);
        lb_ctx_destroy(ctx);
    }
}

static double logged(const char *line, const char *key) {
    const char *at = strstr(line, key);
    assert_non_null(at);
    return atof(at + strlen(key));
}

/* An epoch's line has the rate of its last step, and what its own images came to. */
static void test_logged_epochs(void **state) {
    (void)state;
    char dir[64];
    make_dir(dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.25}\n"
                                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 64, test_limit: 20}\n"
                                       "train: {batch: 32, epochs: 2, optimizer: {lr: 0.1}}\n"
                                       "quant: {weights: {method: dorefa}, edges: {first: float, last: float}}\n");
    lb_trainer *t;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &t));
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    double count = 0, bits = 0, low = 0;
    for (int i = 0; i < t->net->nnodes; i++)
        if (lb_is_layer(&t->net->nodes[i])) {
            const double n = (double)t->net->params[t->net->nodes[i].param[0]].count;
            const bool quantized = t->net->nodes[i].quant != NULL;
            count += n, bits += n * (quantized ? 2 : 32), low += quantized ? n : 0;
        }
    assert_true(low > 0 && low < count);
    char *log = read_text(dir, "metrics.jsonl"), *line = log;
    static const double lr[] = {0.085355339059327, 0.014644660940673}; /* cosine at steps 1 and 3 of 4 */
    for (int epoch = 0; epoch < 2; epoch++) {
        assert_true(logged(line, "\"epoch\": ") == epoch + 1 && logged(line, "\"step\": ") == 2 * epoch + 2);
        assert_true(fabs(logged(line, "\"lr\": ") - lr[epoch]) < 1e-8);
        assert_true(fabs(logged(line, "\"weight_bits\": ") - bits / count) < 1e-6);
        assert_true(fabs(logged(line, "\"quantized\": ") - low / count) < 1e-6);
        const double hits = logged(line, "\"train_top1\": ") * 0.64, loss = logged(line, "\"train_loss\": ");
        assert_true(hits >= 0 && hits <= 64 && fabs(hits - round(hits)) < 1e-6 && loss > 0.5 && loss < 5);
        line = strchr(line, '\n') + 1;
    }
    free(log);
    lb_trainer_destroy(t);
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
    remove_dir(dir);
}

/* A loss of labels that is finite but too large to come back from. */
static void test_large_loss(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx);
    lb_trainer *t;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &t));
    assert_ok(ctx, lb_trainer_prepare(t));
    const lb_batch *batch;
    assert_ok(ctx, lb_loader_start(t->loader, 0, 0));
    assert_ok(ctx, lb_loader_next(t->loader, &batch));
    const lb_param *last = &t->net->params[t->net->nodes[t->net->nnodes - 1].param[0]];
    for (size_t k = 0; k < last->count; k++)
        t->net->values[last->offset + k] *= 1e6f;
    assert_int_equal(lb_trainer_step(t, batch, 1e-6), LB_ERR_DIVERGED);
    assert_non_null(strstr(lb_error(ctx), "step 0: the loss is "));
    for (size_t k = 0; k < last->count; k++)
        t->net->values[last->offset + k] *= 1e-3f;
    assert_ok(ctx, lb_trainer_step(t, batch, 1e-6));
    lb_trainer_destroy(t);
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
}

/* Signs beside those of the last count: there and back again are two changes. */
static void test_sign_flips_counted(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx);
    lb_trainer *t;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &t));
    assert_ok(ctx, lb_trainer_prepare(t));
    double weights = 0;
    for (int i = 0; i < t->net->nparams; i++)
        weights += t->net->params[i].kind == LB_PARAM_WEIGHT ? (double)t->net->params[i].count : 0;
    const lb_param *p = &t->net->params[t->net->nodes[lb_net_find(t->net, "conv2")].param[0]];
    assert_true(lb_sign_flips(t) == 0);
    for (int turn = 0; turn < 3; turn++) {
        for (size_t k = 0; k < 13; k++)
            t->net->values[p->offset + k] *= -1;
        assert_true(lb_sign_flips(t) == 13 / weights);
        assert_true(lb_sign_flips(t) == 0);
    }
    lb_trainer_destroy(t);
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_run_twice_from_quantizers), cmocka_unit_test(test_logged_epochs),
                                       cmocka_unit_test(test_large_loss), cmocka_unit_test(test_sign_flips_counted)};
    return have_data() ? cmocka_run_group_tests(tests, NULL, NULL) : SKIP_ALL;
}

/* What a trainer's steps and epochs come to: figures in the log, losses that are too large, signs that change, starting over. */
#include "runs.h"

#include <math.h>

#include "train/report.h"
#include "train/safetensors.h"
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
        lb_trainer *t = trainer_of(ctx, recipe);
        assert_ok(ctx, lb_trainer_run(t, NULL, false));
        const size_t bytes = t->net->nvalues * sizeof(float);
        float *values = malloc(bytes);
        memcpy(values, t->net->values, bytes);
        assert_ok(ctx, lb_trainer_run(t, NULL, false));
        assert_memory_equal(t->net->values, values, bytes);
        free(values);
        destroy_all(ctx, recipe, t);
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
    lb_trainer *t = trainer_of(ctx, recipe);
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
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* Of epochs that are equally good the first one is the best. */
static void test_first_of_equals(void **state) {
    (void)state;
    char dir[64], path[100];
    make_dir(dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.25}\n"
                                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 32, test_limit: 1}\n"
                                       "train: {batch: 32, epochs: 3, optimizer: {lr: 1.0e-9}}\n");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    char *log = read_text(dir, "metrics.jsonl"), *line = log, step[2] = "1";
    double best = -1;
    bool tied = false;
    for (int epoch = 1; epoch <= 3; epoch++, line = strchr(line, '\n') + 1) {
        const double top1 = logged(line, "\"test_top1\": ");
        tied = top1 > best ? false : tied || top1 == best;
        if (top1 > best)
            step[0] = (char)('0' + epoch);
        best = fmax(best, top1);
    }
    assert_true(tied);
    free(log);
    lb_safetensors *file;
    snprintf(path, sizeof path, "%s/best.safetensors", dir);
    assert_ok(ctx, lb_safetensors_read(ctx, path, &file));
    assert_string_equal(lb_safetensors_metadata(file, "step"), step);
    lb_safetensors_destroy(file);
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* One value per channel and statistic of a network's batch norms, in order; returns how many. */
static int statistics(const lb_net *net, float *values) {
    int n = 0;
    for (int i = 0; i < net->nparams; i++)
        for (size_t k = 0; k < net->params[i].count; k++)
            if (net->params[i].kind == LB_PARAM_BN_MEAN || net->params[i].kind == LB_PARAM_BN_VAR)
                values[n++] = net->values[net->params[i].offset + k];
    assert_in_range(n, 1, 1000);
    return n;
}

/* Statistics that are estimated after an epoch are the means over this epoch's own first batches. */
static void test_statistics_of_the_epoch(void **state) {
    (void)state;
    static float run[1000], again[1000], single[2][1000];
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.25}\n"
                                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 64, test_limit: 10}\n"
                                       "train: {batch: 32, epochs: 1, precision: f32, bn_estimate: 2}\n");
    lb_trainer *t = trainer_of(ctx, recipe);
    lb_batch const *batch;
    assert_ok(ctx, lb_trainer_run(t, NULL, false));
    const int n = statistics(t->net, run);
    for (int each = 0; each < 2; each++) {
        assert_ok(ctx, lb_loader_start(t->loader, 0, 0));
        for (int i = 0; i < 2; i++) {
            assert_ok(ctx, lb_loader_next(t->loader, &batch));
            assert_ok(ctx, lb_plan_estimate(t->learners[0].plan, batch->pixels, each ? 0 : i));
            statistics(t->net, each ? single[i] : again);
        }
    }
    assert_memory_equal(run, again, (size_t)n * sizeof *run);
    for (int k = 0; k < n; k++) {
        const float want = (single[0][k] + single[1][k]) / 2;
        assert_true(fabsf(again[k] - want) <= 1e-5f * fmaxf(1, fabsf(want)));
    }
    destroy_all(ctx, recipe, t);
}

/* A loss of labels that is finite but too large to come back from. */
static void test_large_loss(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx);
    lb_trainer *t = trainer_of(ctx, recipe);
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
    destroy_all(ctx, recipe, t);
}

/* Signs beside those of the last count: there and back again are two changes. */
static void test_sign_flips_counted(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx);
    lb_trainer *t = trainer_of(ctx, recipe);
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
    destroy_all(ctx, recipe, t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_run_twice_from_quantizers), cmocka_unit_test(test_logged_epochs),
                                       cmocka_unit_test(test_first_of_equals), cmocka_unit_test(test_statistics_of_the_epoch),
                                       cmocka_unit_test(test_large_loss), cmocka_unit_test(test_sign_flips_counted)};
    return have_data() ? cmocka_run_group_tests(tests, NULL, NULL) : SKIP_ALL;
}

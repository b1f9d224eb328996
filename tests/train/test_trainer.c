/* The training loop on real images: golden losses per method, resuming to the same bits, divergence, out of memory. */
#include "runs.h"

#include <math.h>

#include <omp.h>

#include "comma_locale.h"
#include "lowbit/lowbit.h"
#include "quant/quant.h"
#include "train/report.h"
#include "train/safetensors.h"
#include "train/trainer.h"

static void set(lb_ctx *ctx, lb_recipe *recipe, const char *key, const char *value) {
    assert_ok(ctx, lb_recipe_set(recipe, key, value));
}

/* 20 steps an epoch, a test after each `every` epochs. */
static lb_recipe *small_recipe(lb_ctx *ctx, const char *every) {
    lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.25, dropout: 0.2}\n"
                                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 640, test_limit: 50,\n"
                                       "       augment: {pad: 2, flip: true}}\n"
                                       "train: {batch: 32, eval_batch: 50, precision: f32, optimizer: {lr: 0.02}}\n");
    set(ctx, recipe, "train.eval_every", every);
    return recipe;
}

/* ---- Golden losses --------------------------------------------------------------------------------------------------------- */

/* f32, 2 threads, seed 0. `LB_GOLDEN=1 test_train_trainer` prints the table anew. */
static const struct golden {
    const char *weights, *wbits, *acts, *abits;
    double loss[10];
} goldens[] = {
#include "golden.inc"
};

static void run_golden(const struct golden *g, bool print) {
    watcher w;
    lb_ctx *ctx = watched(&w, 0);
    lb_recipe *recipe = small_recipe(ctx, "0.05");
    set(ctx, recipe, "train.steps", "10");
    set(ctx, recipe, "quant.weights.method", g->weights);
    if (strcmp(g->weights, "none"))
        set(ctx, recipe, "quant.weights.bits", g->wbits);
    set(ctx, recipe, "quant.activations.method", g->acts);
    if (strcmp(g->acts, "none"))
        set(ctx, recipe, "quant.activations.bits", g->abits);
    lb_trainer *trainer = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(trainer, NULL, false));
    assert_int_equal(w.epochs, 10);
    if (print) {
        printf("    {\"%s\", \"%s\", \"%s\", \"%s\", {", g->weights, g->wbits, g->acts, g->abits);
        for (int i = 0; i < 10; i++)
            printf("%s%.4f", i ? ", " : "", w.loss[i]);
        printf("}},\n");
    }
    /* The sums of other instruction sets differ in their last bits, which now and then moves a value to the next code. */
    for (int i = 0; i < 10 && !print; i++)
        if (fabs(w.loss[i] - g->loss[i]) > 2e-3 * (1 + i) * (1 + g->loss[i]))
            fail_msg("%s %s / %s %s: loss of step %d is %.4f, golden %.4f", g->weights, g->wbits, g->acts, g->abits, i, w.loss[i],
                     g->loss[i]);
    destroy_all(ctx, recipe, trainer);
}

static void test_golden_losses(void **state) {
    (void)state;
    for (size_t i = 0; i < LB_COUNT(goldens); i++)
        run_golden(&goldens[i], getenv("LB_GOLDEN") != NULL);
    /* Every quantizer of the table has a row. */
    size_t count;
    const lb_quantizer *const *list = lb_quantizer_list(&count);
    for (size_t q = 0; q < count; q++) {
        bool found = false;
        for (size_t i = 0; i < LB_COUNT(goldens); i++)
            found |= !strcmp(goldens[i].weights, list[q]->name) || !strcmp(goldens[i].acts, list[q]->name);
        if (!found)
            fail_msg(
                "%s has no golden losses: add a row that ends in {0}} to tests/train/golden.inc, run this with LB_GOLDEN=1, and "
                "put in what it prints",
                list[q]->name);
    }
}

/* ---- Runs and resuming ----------------------------------------------------------------------------------------------------- */

#define LSQ "weights: {method: lsq, bits: 2}, activations: {method: lsq, bits: 2}"

/* Two stages, two epochs each: float, then `quant`. */
static lb_recipe *staged_recipe(lb_ctx *ctx, const char *optimizer, const char *quant) {
    static const char format[] =
        "model: {name: lenet5, width: 0.25, dropout: 0.2}\n"
        "data: {name: fashion-mnist, path: " DATA ", train_limit: 640, test_limit: 50, augment: {pad: 2, flip: true}}\n"
        "train: {batch: 32, eval_batch: 50, epochs: 2, eval_every: 0.35, optimizer: {name: %s, lr: 0.01}}\n"
        "stages:\n"
        "  - {name: float}\n"
        "  - {name: low, quant: {%s}}\n";
    char dir[64], path[100];
    make_dir(dir);
    snprintf(path, sizeof path, "%s/recipe.yaml", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, format, optimizer, quant);
    fclose(f);
    lb_recipe *recipe;
    assert_ok(ctx, lb_recipe_load(ctx, path, NULL, 0, &recipe));
    remove_dir(dir);
    return recipe;
}

/* Trains into dir; interrupted as `stop_after` says (watcher), or to the end. Returns evaluations done. */
static int train(const char *dir, const char *optimizer, const char *quant, int stop_after, bool resume) {
    watcher w;
    lb_ctx *ctx = watched(&w, stop_after);
    lb_recipe *recipe = staged_recipe(ctx, optimizer, quant);
    lb_trainer *trainer = trainer_of(ctx, recipe);
    lb_status status = lb_trainer_run(trainer, dir, resume);
    if (stop_after) {
        assert_int_equal(status, LB_ERR_INTERRUPTED);
        assert_non_null(strstr(lb_error(ctx), "--resume"));
    } else {
        assert_ok(ctx, status);
    }
    destroy_all(ctx, recipe, trainer);
    return w.epochs;
}

static void test_resume_gives_the_same_bits(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"sgd", LSQ},
        {"adam", LSQ},
        {"sgd", "weights: {method: sign, bits: 1, mixer: mask, mix_refresh: 4}, "
                "activations: {method: sign, bits: 1, mixer: mask, mix_refresh: 4}"},
        {"adam", "weights: {method: rq, bits: 2, drop_top: 0.3}, activations: {method: lsq, bits: 2}"}, /* draws are repeated */
        {"adam", "weights: {method: cpq, bits: 3}, activations: {method: rq, bits: 3, drop_top: 0.3}"},
        {"adam", "weights: {method: cpq, bits: 4, bit_lengths: learned, bits_penalty: 0.3}}}\n" /* and a third stage */
                 "  - {name: tune, quant: {weights: {method: cpq, bits: 4, bit_lengths: kept}"},
        {"sgd", "weights: {method: dorefa, bits: 1, mixer: alpha}, activations: {method: dorefa, bits: 2, mixer: alpha}"},
        {"sgd", "weights: {method: twn, mixer: roulette, mix_scope: element, mix_schedule: average}, activations: {method: pact}"},
        {"sgd", "weights: {method: dorefa, mixer: stochastic}, activations: {method: dorefa, mixer: stochastic}"},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        const char *optimizer = cases[i][0], *quant = cases[i][1];
        char whole[64], parts[64];
        make_dir(whole);
        make_dir(parts);
        int epochs = train(whole, optimizer, quant, 0, false);
        /* stops: in the middle of an epoch, while testing, at the change of stage, in the second stage */
        int done = train(parts, optimizer, quant, 2, false);
        done += train(parts, optimizer, quant, -1, true);
        done += train(parts, optimizer, quant, 4, true);
        done += train(parts, optimizer, quant, 1, true);
        done += train(parts, optimizer, quant, 0, true);
        assert_int_equal(done, epochs);
        assert_same_file(whole, parts, "last.safetensors");
        assert_same_file(whole, parts, "best.safetensors");
        assert_same_file(whole, parts, "recipe.yaml");
        remove_dir(whole);
        remove_dir(parts);
    }
}

/* Stopped while testing, continued, and killed after the line in the log and before the checkpoint: the line comes again. */
static void test_an_epoch_is_logged_once(void **state) {
    (void)state;
    char dir[64], command[300];
    make_dir(dir);
    train(dir, "sgd", LSQ, -1, false);
    snprintf(command, sizeof command, "cp %s/last.safetensors %s/kept", dir, dir);
    assert_int_equal(system(command), 0);
    train(dir, "sgd", LSQ, 1, true);
    snprintf(command, sizeof command, "mv %s/kept %s/last.safetensors", dir, dir);
    assert_int_equal(system(command), 0);
    const int epochs = train(dir, "sgd", LSQ, 0, true);
    char *log = read_text(dir, "metrics.jsonl");
    int lines = 0;
    for (const char *c = log; (c = strstr(c, "\"event\": \"epoch\"")); c++)
        lines++;
    assert_int_equal(lines, epochs);
    free(log);
    remove_dir(dir);
}

static void test_opened_run_evaluates_the_same(void **state) {
    (void)state;
    char dir[64];
    make_dir(dir);
    train(dir, "sgd", LSQ, 0, false);
    lb_ctx *ctx = test_ctx();
    lb_trainer *trainer;
    lb_metrics first, second;
    assert_ok(ctx, lb_trainer_open(ctx, dir, NULL, &trainer));
    assert_ok(ctx, lb_trainer_eval(trainer, &first));
    assert_ok(ctx, lb_trainer_eval(trainer, &second));
    assert_memory_equal(&first, &second, sizeof first);
    assert_int_equal(first.images, 50);
    char *log = read_text(dir, "metrics.jsonl"), best[40];
    snprintf(best, sizeof best, "\"best_top1\": %.0f", first.top1);
    if (!strstr(log, best))
        fail_msg("metrics.jsonl does not say %s", best);
    free(log);
    lb_trainer_destroy(trainer);
    lb_ctx_destroy(ctx);
    remove_dir(dir);
}

/* A run is the same whether the program that trains or opens it writes 0.5 or 0,5. */
static void test_comma_locale(void **state) {
    (void)state;
    if (!set_comma_locale())
        return;
    char dir[64];
    make_dir(dir);
    train(dir, "sgd", LSQ, 0, false);
    lb_ctx *ctx = test_ctx();
    lb_trainer *trainer;
    for (int comma = 0; comma < 2; comma++) {
        assert_true(comma ? set_comma_locale() : setlocale(LC_ALL, "C") != NULL);
        assert_ok(ctx, lb_trainer_open(ctx, dir, NULL, &trainer));
        lb_trainer_destroy(trainer);
    }
    setlocale(LC_ALL, "C");
    lb_ctx_destroy(ctx);
    remove_dir(dir);
}

static void count_warnings(void *user, const lb_event *event) {
    if (event->kind == LB_EVENT_WARNING && strstr(event->text, "mixer alpha") && strstr(event->text, "sgd"))
        ++*(int *)user;
}

/* Adam undoes AB's factor on gradients; with SGD, or an estimator, there is nothing to warn of. */
static void test_warning_of_adam(void **state) {
    (void)state;
    static const struct {
        const char *optimizer, *estimator;
        int warnings;
    } cases[] = {{"adam", "default", 1}, {"adamw", "default", 1}, {"sgd", "default", 0}, {"adam", "ste", 0}};
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        int warnings = 0;
        lb_ctx *ctx;
        lb_ctx_options options = {.report = count_warnings, .user = &warnings};
        assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
        lb_recipe *recipe = small_recipe(ctx, "1");
        set(ctx, recipe, "train.steps", "2");
        set(ctx, recipe, "train.optimizer.name", cases[i].optimizer);
        set(ctx, recipe, "quant.weights.method", "bwn");
        set(ctx, recipe, "quant.weights.bits", "1");
        set(ctx, recipe, "quant.weights.mixer", "alpha");
        set(ctx, recipe, "quant.weights.estimator", cases[i].estimator);
        lb_trainer *trainer = trainer_of(ctx, recipe);
        assert_ok(ctx, lb_trainer_run(trainer, NULL, false));
        assert_int_equal(warnings, cases[i].warnings);
        destroy_all(ctx, recipe, trainer);
    }
}

/* A trainer that is run again does the same again. */
static void test_run_twice(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = staged_recipe(ctx, "sgd", LSQ);
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, NULL, false));
    const size_t bytes = t->net->nvalues * sizeof(float);
    float *values = malloc(bytes);
    memcpy(values, t->net->values, bytes);
    const int64_t steps = t->at.step;
    assert_ok(ctx, lb_trainer_run(t, NULL, false));
    assert_int_equal(t->at.step, steps);
    assert_int_equal(t->net->nvalues * sizeof(float), bytes);
    assert_memory_equal(t->net->values, values, bytes);
    free(values);
    destroy_all(ctx, recipe, t);
}

static long json_left = LONG_MAX;

static void *json_alloc(size_t size) { return json_left-- > 0 ? malloc(size) : NULL; }

/* Out of memory while a line of the log is made: an error, and no line lacks a figure. */
static void test_log_out_of_memory(void **state) {
    (void)state;
    static const char *const keys[] = {"\"images_per_s\"", "\"seconds\"", "\"distill_loss\"", "\"test_top1_twin\""};
    char dir[64], path[100];
    make_dir(dir);
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.1}\n"
                                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 32, test_limit: 10}\n"
                                       "train: {batch: 32, steps: 1}\ndistill: {from: twin}\n");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_prepare(t));
    assert_ok(ctx, lb_jsonl_open(ctx, path, -1, &t->log));
    assert_ok(ctx, lb_tensorboard_open(ctx, dir, -1, &t->board));
    t->files.dir = dir;
    json_set_alloc_funcs(json_alloc, free);
    lb_status status = LB_ERR_MEMORY;
    for (long left = 0; status; left++) {
        json_left = left;
        status = lb_report_epoch(t, &(lb_pace){.epoch_steps = 1, .stage_steps = 1}, &(lb_metrics){0}, 0.1, 1);
        assert_true(status == LB_OK || status == LB_ERR_MEMORY);
    }
    json_set_alloc_funcs(malloc, free);
    char *log = read_text(dir, "metrics.jsonl");
    for (size_t i = 0; i < LB_COUNT(keys); i++)
        assert_non_null(strstr(log, keys[i]));
    free(log);
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* Signs that changed are counted from a stage's begin: at a rate of almost 0 there are none. */
static void test_sign_flips(void **state) {
    (void)state;
    char dir[64];
    make_dir(dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.25}\n"
                                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 20}\n"
                                       "train: {batch: 32, steps: 2, optimizer: {lr: 0.05}}\n"
                                       "stages: [{name: one}, {name: two, train: {optimizer: {lr: 1.0e-30}}}]\n");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    char *log = read_text(dir, "metrics.jsonl");
    const char *second = strstr(log, "\"stage\": 1");
    assert_non_null(second);
    assert_non_null(strstr(second, "\"sign_flips\": 0.0,"));
    assert_true(strstr(log, "\"sign_flips\": 0.0,") > second);
    free(log);
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* No gradient reaches the image's quantizer, and decay does not either. */
static void test_images_quantizer_stays(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    float first[2][2];
    for (int i = 0; i < 2; i++) {
        lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.25}\n"
                                           "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 20}\n"
                                           "train: {batch: 32, optimizer: {lr: 0.05, weight_decay: 0.01, decay_quant: 1}}\n"
                                           "quant: {edges: {first: same}, weights: {method: lsq, bits: 4},\n"
                                           "        activations: {method: lsq, bits: 4}}\n");
        set(ctx, recipe, "train.steps", i ? "9" : "1");
        lb_trainer *t = trainer_of(ctx, recipe);
        assert_ok(ctx, lb_trainer_run(t, NULL, false));
        const int layers[] = {lb_net_find(t->net, "conv1"), lb_net_find(t->net, "conv2")};
        for (int k = 0; k < 2; k++)
            first[i][k] = *lb_param_values(t->net, t->net->nodes[lb_net_source_act(t->net, layers[k])].quant->param);
        lb_trainer_destroy(t);
        lb_recipe_destroy(recipe);
    }
    assert_true(first[0][0] == first[1][0]);
    assert_true(first[0][1] != first[1][1]);
    lb_ctx_destroy(ctx);
}

/* How many threads OpenMP takes in this thread is the caller's to say. */
static void test_callers_threads(void **state) {
    (void)state;
    lb_ctx *ctx;
    assert_int_equal(lb_ctx_create(&(lb_ctx_options){.threads = 2}, &ctx), LB_OK);
    lb_recipe *recipe = small_recipe(ctx, "1");
    set(ctx, recipe, "train.steps", "1");
    lb_trainer *t;
    lb_speed speed;
    omp_set_num_threads(3);
    t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, NULL, false));
    assert_int_equal(omp_get_max_threads(), 3);
    assert_ok(ctx, lb_trainer_eval(t, &(lb_metrics){0}));
    assert_int_equal(omp_get_max_threads(), 3);
    assert_ok(ctx, lb_trainer_bench(t, 1, &speed));
    assert_int_equal(omp_get_max_threads(), 3);
    destroy_all(ctx, recipe, t);
}

static size_t weight_bytes(const lb_trainer *t) { return t->net->params[0].count * sizeof(float); }
static const float *weights_of(const lb_trainer *t) { return t->net->values + t->net->params[0].offset; }

/* A directory with a run is left alone, and so is the trainer; the best of a run that came to nothing goes. */
static void test_directory_of_another_run(void **state) {
    (void)state;
    char dir[64], last[100], best[100];
    make_dir(dir);
    snprintf(last, sizeof last, "%s/last.safetensors", dir);
    snprintf(best, sizeof best, "%s/best.safetensors", dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, "model: {name: lenet5, width: 0.25}\n"
                                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 50}\n"
                                       "train: {batch: 32, steps: 2}\n");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    size_t size, size_after;
    unsigned char *before = read_all(dir, "last.safetensors", &size);
    assert_int_equal(lb_trainer_run(t, dir, false), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "a run is there already; resume it"));
    assert_int_equal(t->at.step, 2);
    unsigned char *after = read_all(dir, "last.safetensors", &size_after);
    assert_int_equal(size, size_after);
    assert_memory_equal(before, after, size);
    free(before);
    free(after);
    assert_int_equal(unlink(last), 0);
    assert_true(lb_exists(best));
    lb_trainer_destroy(t);
    assert_ok(ctx, lb_recipe_set(recipe, "train.steps", "0"));
    assert_ok(ctx, lb_recipe_set(recipe, "train.epochs", "0"));
    t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    assert_false(lb_exists(best));
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* A last stage without steps: its network is what the run leaves, in memory and on disk, not the best of the stage before. */
static void test_last_stage_without_steps(void **state) {
    (void)state;
    char dir[64];
    make_dir(dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe =
        recipe_of(ctx, "model: {name: lenet5, width: 0.25}\n"
                       "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 20}\n"
                       "train: {batch: 32, epochs: 2, eval_every: 0.1, optimizer: {lr: 0.05}}\n"
                       "stages: [{name: float}, {name: low, train: {epochs: 0}, quant: {weights: {method: lsq}}}]\n");
    lb_trainer *t, *opened;
    t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, NULL, false));
    const size_t bytes = weight_bytes(t);
    float *last = malloc(bytes);
    memcpy(last, weights_of(t), bytes);
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    assert_memory_equal(weights_of(t), last, bytes);
    assert_ok(ctx, lb_trainer_open(ctx, dir, NULL, &opened));
    assert_memory_equal(weights_of(opened), last, bytes);
    assert_int_equal(opened->at.stage, 1);
    free(last);
    lb_trainer_destroy(opened);
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

typedef struct second_stage {
    lb_ctx *ctx;
    char best[100];
    bool has_best; /* before its evaluation */
} second_stage;

static void interrupt_second_stage(void *user, const lb_event *event) {
    second_stage *s = user;
    if (event->kind != LB_EVENT_PROGRESS || strncmp(event->text, "stage low,", 10) || event->done < event->total)
        return;
    s->has_best = lb_exists(s->best);
    lb_interrupt(s->ctx);
}

/* A run that is stopped before the second stage's first evaluation is opened in this stage, not at the best of the first. */
static void test_best_of_the_stage_before(void **state) {
    (void)state;
    for (int save_every = 0; save_every < 2; save_every++) {
        char dir[64];
        second_stage s;
        const lb_ctx_options options = {.report = interrupt_second_stage, .user = &s};
        make_dir(dir);
        snprintf(s.best, sizeof s.best, "%s/best.safetensors", dir);
        assert_int_equal(lb_ctx_create(&options, &s.ctx), LB_OK);
        lb_recipe *recipe =
            recipe_of(s.ctx, "model: {name: lenet5, width: 0.25}\n"
                             "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 20}\n"
                             "train: {batch: 32, steps: 3}\n"
                             "stages: [{name: float}, {name: low, quant: {weights: {method: lsq}}}]\n");
        set(s.ctx, recipe, "train.save_every", save_every ? "1" : "0");
        lb_trainer *t = trainer_of(s.ctx, recipe);
        assert_int_equal(lb_trainer_run(t, dir, false), LB_ERR_INTERRUPTED);
        assert_true(s.has_best == !save_every);
        lb_trainer_destroy(t);
        assert_ok(s.ctx, lb_trainer_open(s.ctx, dir, NULL, &t));
        assert_int_equal(t->at.stage, 1);
        assert_true(t->net->nodes[lb_net_find(t->net, "conv2")].quant->initialised);
        destroy_all(s.ctx, recipe, t);
        remove_dir(dir);
    }
}

/* A stage starts from its own train.init, also from that of the stage before: at a rate of 0 it is the run that is named. */
static void test_init_of_a_stage(void **state) {
    (void)state;
    char dir[64];
    make_dir(dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx, "1");
    set(ctx, recipe, "train.steps", "3");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    const size_t bytes = weight_bytes(t);
    float *named = malloc(bytes);
    memcpy(named, weights_of(t), bytes);
    lb_trainer_destroy(t);
    lb_recipe_destroy(recipe);
    char text[600];
    snprintf(text, sizeof text,
             "model: {name: lenet5, width: 0.25}\n"
             "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 50}\n"
             "train: {batch: 32, steps: 3, init: %s}\n"
             "stages: [{name: one}, {name: two, train: {init: %s, optimizer: {lr: 0}}}]\n",
             dir, dir);
    recipe = recipe_of(ctx, text);
    t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, NULL, false));
    assert_memory_equal(weights_of(t), named, bytes);
    free(named);
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* train.init from a run of other bits: learned steps and clips are those of the same range (or what quant.rescale says); a
 * quantizer of another kind starts its own. */
static void test_init_from_other_bits(void **state) {
    (void)state;
    static const struct {
        const char *weights, *acts, *bits, *rescale;
        double weight_factor, act_factor; /* 0: not carried over */
    } cases[] = {
        {"lsq", "lsq", "4", "range", 1, 1},
        {"lsq", "lsq", "2", "range", 7, 5},
        {"lsq", "lsq", "8", "range", 7. / 127, 15. / 255},
        {"lsq", "lsq", "2", "step", 1, 1},
        {"lsq", "lsq", "2", "start", 0, 0},
        {"uniform", "lsq", "2", "range", -1, 5},
        {"lsq", "uniform", "4", "range", 1, 0},
        {"lsq", "pact", "4", "range", 1, 0},
    };
    char dir[64];
    make_dir(dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx, "1");
    set(ctx, recipe, "train.steps", "5");
    set(ctx, recipe, "quant.weights.method", "lsq");
    set(ctx, recipe, "quant.weights.bits", "4");
    set(ctx, recipe, "quant.activations.method", "lsq");
    set(ctx, recipe, "quant.activations.bits", "4");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_run(t, dir, false));
    const int conv = lb_net_find(t->net, "conv2"), act = lb_net_source_act(t->net, conv);
    const float weight_step = *lb_param_values(t->net, t->net->nodes[conv].quant->param);
    const float act_step = *lb_param_values(t->net, t->net->nodes[act].quant->param);
    lb_trainer_destroy(t);
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        set(ctx, recipe, "train.init", dir);
        set(ctx, recipe, "quant.weights.method", cases[i].weights);
        set(ctx, recipe, "quant.activations.method", cases[i].acts);
        set(ctx, recipe, "quant.weights.bits", cases[i].bits);
        set(ctx, recipe, "quant.activations.bits", cases[i].bits);
        set(ctx, recipe, "quant.rescale", cases[i].rescale);
        t = trainer_of(ctx, recipe);
        assert_ok(ctx, lb_net_init_from(ctx, t->net, dir, t->config->quant.rescale));
        const lb_quant *w = t->net->nodes[conv].quant, *a = t->net->nodes[act].quant;
        if (cases[i].weight_factor > 0)
            assert_float_equal(*lb_param_values(t->net, w->param), weight_step * cases[i].weight_factor, 1e-6);
        else if (cases[i].weight_factor == 0) /* its own first value */
            assert_true(*lb_param_values(t->net, w->param) > 0 && w->initialised);
        assert_true(a->initialised == (cases[i].act_factor > 0));
        if (cases[i].act_factor > 0)
            assert_float_equal(*lb_param_values(t->net, a->param), act_step * cases[i].act_factor, 1e-5);
        lb_trainer_destroy(t);
    }
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
    remove_dir(dir);
}

/* Another program's file that describes the weight quantizer of conv2, or of another layer, with these bits: is it believed? */
static bool believed(lb_ctx *ctx, lb_net *net, const char *from, const char *to, const char *bits, const char *layer) {
    lb_safetensors *file;
    assert_ok(ctx, lb_safetensors_read(ctx, from, &file));
    const size_t count = lb_safetensors_count(file);
    lb_st_tensor *tensors = malloc(count * sizeof *tensors);
    for (size_t i = 0; i < count; i++)
        tensors[i] = *lb_safetensors_at(file, i);
    char text[100];
    snprintf(text, sizeof text, "weight lsq %s signed %s\n", bits, layer);
    assert_ok(ctx, lb_safetensors_write(ctx, to, tensors, count, &(lb_st_pair){"quantizers", text}, 1));
    free(tensors);
    lb_safetensors_destroy(file);
    lb_quant *q = net->nodes[lb_net_find(net, "conv2")].quant;
    float *step = lb_param_values(net, q->param);
    *step = -1;
    q->initialised = false;
    assert_ok(ctx, lb_net_init_from(ctx, net, to, LB_RESCALE_STEP));
    return fabsf(*step - 0.25f) < 1e-6f;
}

static void test_init_from_described_bits(void **state) {
    (void)state;
    static const struct {
        const char *bits;
        bool good;
    } rows[] = {{"2", true},   {"4", true},           {"0", false},          {"9", false}, {"-2", false},
                {"2x", false}, {"4294967298", false}, {"99999999999", false}, {"18446744073709551618", false}};
    char dir[64], from[100], to[100];
    make_dir(dir);
    snprintf(from, sizeof from, "%s/from.safetensors", dir);
    snprintf(to, sizeof to, "%s/to.safetensors", dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx, "1");
    set(ctx, recipe, "quant.weights.method", "lsq");
    lb_trainer *t = trainer_of(ctx, recipe);
    lb_quant *q = t->net->nodes[lb_net_find(t->net, "conv2")].quant;
    *lb_param_values(t->net, q->param) = 0.25f;
    q->initialised = true;
    assert_ok(ctx, lb_checkpoint_save_learner(t, 0, from));
    for (size_t i = 0; i < LB_COUNT(rows); i++)
        if (believed(ctx, t->net, from, to, rows[i].bits, "conv2") != rows[i].good)
            fail_msg("%s bits", rows[i].bits);
    assert_false(believed(ctx, t->net, from, to, "2", "conv20"));
    assert_false(believed(ctx, t->net, from, to, "2", "conv"));
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* A checkpoint of values that are not finite is neither resumed nor opened. */
static void test_values_not_finite(void **state) {
    (void)state;
    static const float values[] = {0.5f, NAN, INFINITY, -INFINITY};
    char dir[64], path[100];
    make_dir(dir);
    snprintf(path, sizeof path, "%s/full.safetensors", dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx, "1");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_prepare(t));
    lb_net_initialise(t->net, 1, 0);
    for (size_t i = 0; i < LB_COUNT(values); i++) {
        lb_trainer *other = trainer_of(ctx, recipe);
        t->net->values[t->net->nvalues - 1] = values[i];
        assert_ok(ctx, lb_checkpoint_save(t, path));
        assert_int_equal(lb_checkpoint_resume(other, path), i ? LB_ERR_FORMAT : LB_OK);
        assert_true(!i || strstr(lb_error(ctx), "not finite"));
        assert_int_equal(lb_checkpoint_open(other, path), i ? LB_ERR_FORMAT : LB_OK);
        lb_trainer_destroy(other);
    }
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* Estimated statistics are those of the evaluated network; nothing else of training depends on them. */
static void test_batch_norm_estimate(void **state) {
    (void)state;
    float *values[2];
    const lb_net *net = NULL;
    lb_trainer *trainer[2];
    lb_recipe *recipe[2];
    lb_ctx *ctx = test_ctx();
    for (int i = 0; i < 2; i++) {
        recipe[i] = small_recipe(ctx, "0.3"); /* 6 steps: the loader has to find back */
        set(ctx, recipe[i], "train.epochs", "1.2");
        set(ctx, recipe[i], "train.bn_estimate", i ? "23" : "0"); /* more than an epoch */
        set(ctx, recipe[i], "quant.weights.method", "dorefa");
        set(ctx, recipe[i], "quant.weights.mixer", "alpha");
        trainer[i] = trainer_of(ctx, recipe[i]);
        assert_ok(ctx, lb_trainer_run(trainer[i], NULL, false));
        net = trainer[i]->net;
        values[i] = net->values;
    }
    int statistics = 0;
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        const bool same = !memcmp(values[0] + p->offset, values[1] + p->offset, p->count * sizeof(float));
        const bool statistic = p->kind == LB_PARAM_BN_MEAN || p->kind == LB_PARAM_BN_VAR;
        assert_true(same != statistic);
        statistics += statistic;
    }
    assert_true(statistics > 0);
    for (int i = 0; i < 2; i++) {
        lb_trainer_destroy(trainer[i]);
        lb_recipe_destroy(recipe[i]);
    }
    lb_ctx_destroy(ctx);
}

static void test_divergence(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = small_recipe(ctx, "1");
    set(ctx, recipe, "train.optimizer.lr", "1000");
    set(ctx, recipe, "train.optimizer.weight_decay", "0.9");
    lb_trainer *trainer = trainer_of(ctx, recipe);
    assert_int_equal(lb_trainer_run(trainer, NULL, false), LB_ERR_DIVERGED);
    assert_non_null(strstr(lb_error(ctx), "step "));
    assert_non_null(strstr(lb_error(ctx), "train.optimizer.lr"));
    destroy_all(ctx, recipe, trainer);
}

static void test_out_of_memory(void **state) {
    (void)state;
    bool done = false;
    for (long allowed = 0; !done; allowed += allowed < 40 ? 3 : 29) {
        test_allocator a = {.left = allowed};
        lb_ctx *ctx = test_ctx_with(&a);
        if (!ctx)
            continue;
        lb_recipe *recipe = NULL;
        lb_trainer *trainer = NULL;
        lb_status status = lb_recipe_create(ctx, &recipe);
        static const char *const keys[][2] = {{"model.name", "lenet5"},        {"model.width", "0.1"},
                                              {"data.name", "fashion-mnist"},  {"data.path", DATA},
                                              {"data.train_limit", "64"},      {"data.test_limit", "10"},
                                              {"train.batch", "32"},           {"train.steps", "1"},
                                              {"quant.weights.method", "lsq"}, {"quant.activations.method", "dorefa"}};
        for (size_t i = 0; i < LB_COUNT(keys) && !status; i++)
            status = lb_recipe_set(recipe, keys[i][0], keys[i][1]);
        if (!status)
            status = lb_trainer_create(ctx, recipe, NULL, &trainer);
        if (!status)
            status = lb_trainer_run(trainer, NULL, false);
        done = status == LB_OK;
        if (!done) {
            assert_int_equal(status, LB_ERR_MEMORY);
            assert_true(strlen(lb_error(ctx)) > 0);
        }
        destroy_all(ctx, recipe, trainer);
        assert_int_equal(a.alive, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_losses),
        cmocka_unit_test(test_resume_gives_the_same_bits),
        cmocka_unit_test(test_an_epoch_is_logged_once),
        cmocka_unit_test(test_opened_run_evaluates_the_same),
        cmocka_unit_test(test_comma_locale),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_warning_of_adam),
        cmocka_unit_test(test_batch_norm_estimate),
        cmocka_unit_test(test_best_of_the_stage_before),
        cmocka_unit_test(test_init_of_a_stage),
        cmocka_unit_test(test_init_from_other_bits),
        cmocka_unit_test(test_init_from_described_bits),
        cmocka_unit_test(test_values_not_finite),
        cmocka_unit_test(test_run_twice),
        cmocka_unit_test(test_log_out_of_memory),
        cmocka_unit_test(test_callers_threads),
        cmocka_unit_test(test_sign_flips),
        cmocka_unit_test(test_images_quantizer_stays),
        cmocka_unit_test(test_directory_of_another_run),
        cmocka_unit_test(test_last_stage_without_steps),
    };
    return have_data() ? cmocka_run_group_tests(tests, NULL, NULL) : SKIP_ALL;
}

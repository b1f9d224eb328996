/* Several networks on the same batches: the terms between them, resuming, stages, what is left, what is refused. */
#include "runs.h"

#include <math.h>

#include "recipe/recipe.h"
#include "train/trainer.h"

#define HEAD_OF(model, train)                                                                                                      \
    "model: {name: lenet5, dropout: 0.2, " model "}\n"                                                                             \
    "data: {name: fashion-mnist, path: " DATA ", train_limit: 320, test_limit: 50, augment: {pad: 2, flip: true}}\n"               \
    "train: {batch: 32, eval_batch: 50, optimizer: {lr: 0.02}, " train "}\n"
#define HEAD HEAD_OF("width: 0.25", "epochs: 1")
#define LOW "quant: {weights: {method: lsq, bits: 2}, activations: {method: lsq, bits: 2}}\n"

/* Trains; returns evaluations done. */
static int train(const char *text, const char *dir, int stop_after, bool resume) {
    watcher w;
    lb_ctx *ctx = watched(&w, stop_after);
    lb_recipe *recipe = recipe_of(ctx, text);
    lb_trainer *trainer = trainer_of(ctx, recipe);
    lb_status status = lb_trainer_run(trainer, dir, resume);
    if (stop_after)
        assert_int_equal(status, LB_ERR_INTERRUPTED);
    else
        assert_ok(ctx, status);
    destroy_all(ctx, recipe, trainer);
    return w.epochs;
}

/* A trained float network to learn from. */
static void make_teacher(char *dir) {
    make_dir(dir);
    train(HEAD, dir, 0, false);
}

static char text[4096];
static const char *with(const char *head, const char *format, const char *argument) {
    int n = snprintf(text, sizeof text, "%s", head);
    snprintf(text + n, sizeof text - (size_t)n, format, argument);
    return text;
}

/* ---- Terms ---------------------------------------------------------------------------------------------------------- */

/* Other learners change nothing of the first unless a term says so. */
static void test_learners_are_apart(void **state) {
    (void)state;
    char alone[64], beside[64];
    make_dir(alone);
    make_dir(beside);
    train(HEAD LOW, alone, 0, false);
    train(HEAD LOW "distill: {from: twin, students: [4, 3], weight: 0, label_weight: 1}\n", beside, 0, false);
    assert_same_file(alone, beside, "best.safetensors");
    remove_dir(alone);
    remove_dir(beside);
}

/* twin_lr is the twin's alone: at 0 it stays as it began, while the others move. */
static void test_rates(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, HEAD_OF("width: 0.25", "steps: 1") LOW "distill: {from: twin, students: [4], twin_lr: 0}\n");
    lb_trainer *t;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &t));
    assert_ok(ctx, lb_trainer_prepare(t));
    assert_ok(ctx, lb_distill_start(t));
    const lb_batch *batch;
    assert_ok(ctx, lb_loader_start(t->loader, 0, 0));
    assert_ok(ctx, lb_loader_next(t->loader, &batch));
    float *before[3];
    for (int i = 0; i < 3; i++) {
        const lb_net *net = t->learners[i].net;
        before[i] = malloc(net->nvalues * sizeof(float));
        memcpy(before[i], net->values, net->nvalues * sizeof(float));
    }
    assert_ok(ctx, lb_trainer_step(t, batch, 0.02));
    for (int i = 0; i < 3; i++) {
        const lb_net *net = t->learners[i].net;
        bool moved = false;
        for (int p = 0; p < net->nparams; p++) {
            const lb_param *w = &net->params[p];
            for (size_t k = w->offset; w->kind == LB_PARAM_WEIGHT && k < w->offset + w->count; k++)
                moved |= net->values[k] != before[i][k];
        }
        assert_true(moved == (t->learners[i].kind != LB_LEARNER_TWIN));
        free(before[i]);
    }
    lb_trainer_destroy(t);
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
}

/* Loss and gradients of logits and features against the formulas, written out. */
static void test_terms(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, HEAD LOW "distill: {from: twin, students: [4], loss: mse, weight: 0.6, twin_weight: 0.5, "
                                                "features: 'conv2 fc?', feature_weight: 0.3}\n"
                                                "train.precision: f32\n");
    lb_trainer *t = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_prepare(t));
    assert_ok(ctx, lb_distill_start(t));
    assert_int_equal(t->nlearners, 3);
    const lb_batch *batch;
    assert_ok(ctx, lb_loader_start(t->loader, 0, 0));
    assert_ok(ctx, lb_loader_next(t->loader, &batch));
    for (int i = 0; i < 3; i++)
        assert_ok(ctx, lb_plan_forward(t->learners[i].plan, batch->pixels, &(lb_quant_when){.stage_steps = 10}));
    static const struct {
        int targets[2];
        double weight; /* of each */
    } expected[3] = {{{2, -1}, 0.6}, {{2, -1}, 0.6}, {{0, 1}, 0.25}};
    for (int i = 0; i < 3; i++) {
        lb_plan *plan = t->learners[i].plan;
        const int n = 32 * 10;
        double loss = 0;
        static float gradient[320];
        memset(plan->diff_logits, 0, sizeof gradient);
        memset(gradient, 0, sizeof gradient);
        const double terms = lb_distill_terms(t, i);
        for (int k = 0; k < 2 && expected[i].targets[k] >= 0; k++)
            for (int e = 0; e < n; e++) {
                const double d = (double)plan->logits[e] - (double)t->learners[expected[i].targets[k]].plan->logits[e];
                loss += expected[i].weight * d * d / n;
                gradient[e] += (float)(2 * expected[i].weight * d / n);
            }
        for (int e = 0; e < n; e++)
            assert_true(fabsf(gradient[e] - plan->diff_logits[e]) < 1e-6f);
        assert_int_equal(plan->ntaps, 2);
        for (int k = 0; k < 2; k++) {
            const size_t count = lb_plan_tap_count(plan, k);
            const float *diff = lb_plan_buffer(plan, plan->taps[k].diff);
            float *own = malloc(count * sizeof *own), *other = malloc(count * sizeof *own), *sum = calloc(count, sizeof *sum);
            lb_plan_tap_read(plan, k, 0, count, own);
            for (int j = 0; j < 2 && expected[i].targets[j] >= 0; j++) {
                const double weight = 0.3 * (i == 2 ? 0.25 : 1);
                lb_plan_tap_read(t->learners[expected[i].targets[j]].plan, k, 0, count, other);
                for (size_t e = 0; e < count; e++) {
                    const double d = (double)own[e] - (double)other[e];
                    loss += weight * d * d / (double)count;
                    sum[e] += (float)(2 * weight * d / (double)count);
                }
            }
            for (size_t e = 0; e < count; e++)
                assert_true(fabsf(sum[e] - diff[e]) < 1e-9f + 1e-4f * fabsf(sum[e]));
            free(own);
            free(other);
            free(sum);
        }
        if (fabs(terms - loss) > 1e-5 * loss)
            fail_msg("learner %d: %g, not %g", i, terms, loss);
    }
    destroy_all(ctx, recipe, t);
}

static double number_after(const char *text_, const char *key, bool last) {
    const char *at = strstr(text_, key);
    assert_non_null(at);
    for (const char *next; last && (next = strstr(at + 1, key));)
        at = next;
    return strtod(at + strlen(key), NULL);
}

/* A teacher sees its images as it was trained, whatever this run makes of them. */
static void test_teachers_normalisation(void **state) {
    (void)state;
    char teacher[64];
    make_teacher(teacher);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, with(HEAD LOW, "distill: {from: teacher, teacher: %s}\n", teacher));
    assert_ok(ctx, lb_recipe_set(recipe, "data.mean", "[0.125]"));
    assert_ok(ctx, lb_recipe_set(recipe, "data.std", "[0.75]"));
    lb_trainer *t;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &t));
    assert_ok(ctx, lb_trainer_prepare(t));
    assert_int_equal(t->nlearners, 2);
    const lb_plan_options *own = &t->learners[0].plan->options, *theirs = &t->learners[1].plan->options;
    const lb_data *data = t->learners[1].run->data;
    assert_true(own->mean[0] == 0.125f && own->std[0] == 0.75f);
    assert_true(theirs->mean[0] == data->mean[0] && theirs->std[0] == data->std[0] && data->mean[0] != 0.125f);
    lb_trainer_destroy(t);
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
    remove_dir(teacher);
}

/* Without labels a student still comes near its teacher. */
static void test_learns_from_the_teacher_alone(void **state) {
    (void)state;
    char teacher[64], dir[64];
    make_teacher(teacher);
    make_dir(dir);
    train(with(HEAD_OF("width: 0.25", "epochs: 8") LOW, "distill: {from: teacher, teacher: %s, weight: 1, label_weight: 0}\n",
               teacher),
          dir, 0, false);
    char *log = read_text(dir, "metrics.jsonl");
    const double first = number_after(log, "\"distill_loss\": ", false), last = number_after(log, "\"distill_loss\": ", true);
    if (!(last < 0.6 * first))
        fail_msg("the difference from the teacher went from %g to %g", first, last);
    free(log);
    remove_dir(dir);
    remove_dir(teacher);
}

/* ---- Resuming and stages ---------------------------------------------------------------------------------------------- */

static void check_resume(const char *recipe, const char *const *names) {
    char whole[64], parts[64];
    make_dir(whole);
    make_dir(parts);
    int epochs = train(recipe, whole, 0, false);
    int done = train(recipe, parts, 1, false); /* in the first epoch, while testing, in the second stage */
    done += train(recipe, parts, -1, true);
    done += train(recipe, parts, 3, true);
    done += train(recipe, parts, 0, true);
    done += train(recipe, parts, 0, true); /* it is at its end: nothing is left to do */
    assert_int_equal(done, epochs);
    assert_same_file(whole, parts, "last.safetensors");
    assert_same_file(whole, parts, "best.safetensors");
    for (; *names; names++)
        assert_same_file(whole, parts, *names);
    remove_dir(whole);
    remove_dir(parts);
}

static void test_resume_gives_the_same_bits(void **state) {
    (void)state;
    char teacher[64];
    make_teacher(teacher);
    static const char *const none[] = {NULL}, *const all[] = {"twin/last.safetensors", "twin/recipe.yaml", "4bit/last.safetensors",
                                                              "twin/metrics.jsonl", "4bit/metrics.jsonl", NULL};
    static const char *const precisions[] = {"f32", "bf16"};
    for (int i = 0; i < 2; i++) {
        char head[1024];
        snprintf(head, sizeof head, HEAD LOW "train.precision: %s\ntrain.eval_every: 0.35\ntrain.bn_estimate: %d\n", precisions[i],
                 3 * i);
        check_resume(with(head, "distill: {from: teacher, teacher: %s, features: conv2}\n"
                                "stages: [{name: one}, {name: two, quant: {weights: {bits: 1}}}]\n", teacher), none);
        check_resume(with(head,
                          "train.optimizer.name: %s\n"
                          "stages: [{name: one, quant: {activations: {method: none}}, distill: {from: twin, students: [4]}},\n"
                          "  {name: two, distill: {from: twin, loss: mse, weight: 0.1, students: [4], features: fc1}}]\n",
                          "adam"),
                     all);
    }
    remove_dir(teacher);
}

/* A twin that appears in a later stage starts from what the stage before has trained, one that stays goes on. */
static void test_stages(void **state) {
    (void)state;
    static const char *const cases[] = {
        HEAD "stages: [{name: float}, {name: low, train: {epochs: 0}, quant: {weights: {method: lsq}}, distill: {from: twin}}]\n",
        HEAD
        "distill: {from: twin}\n"
        "stages: [{name: float}, {name: low, train: {epochs: 0}, quant: {weights: {method: lsq}}, distill: {students: [4]}}]\n"};
    for (int i = 0; i < 2; i++) {
        lb_ctx *ctx = test_ctx();
        lb_recipe *recipe = recipe_of(ctx, cases[i]);
        lb_trainer *t = trainer_of(ctx, recipe);
        assert_ok(ctx, lb_trainer_run(t, NULL, false));
        assert_int_equal(t->nlearners, 2 + i);
        const lb_learner *twin = &t->learners[1 + i];
        assert_int_equal(twin->kind, LB_LEARNER_TWIN);
        const lb_param *weight = &t->net->params[0];
        const size_t bytes = weight->count * sizeof(float);
        const bool same = !memcmp(t->net->values + weight->offset, twin->net->values + weight->offset, bytes);
        assert_true(same == (i == 0));
        if (i == 1) { /* the student is new */
            const lb_net *student = t->learners[1].net;
            assert_true(!memcmp(t->net->values + weight->offset, student->values + weight->offset, bytes));
            assert_int_equal(student->nodes[lb_net_find(student, "conv2")].quant->spec.bits, 4);
        }
        destroy_all(ctx, recipe, t);
    }
}

/* Networks that a stage goes on with keep what they have learned, in the order that it asks for; a new one begins with the weights
 * of the first. Layers that the recipe gives other bits keep them. */
static void test_learners_of_stages(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int before; /* its place in the stage before */
        float lr;
    } expected[] = {{"", 0, 1}, {"3bit", 2, 1}, {"8bit", -1, 1}, {"4bit", 1, 1}, {"twin", 3, 0.5f}};
    lb_ctx *ctx = test_ctx();
    static const char recipe_text[] = HEAD_OF("width: 0.25", "steps: 1")
        "quant: {weights: {method: lsq, bits: 2}, layers: [{match: conv2, weights: {bits: 6}}]}\n"
        "distill: {from: twin}\n"
        "stages: [{name: two, distill: {students: [4, 3]}}, {name: three, distill: {students: [3, 8, 4], twin_lr: 0.5}}]\n";
    lb_recipe *recipe = recipe_of(ctx, recipe_text);
    lb_trainer *t = trainer_of(ctx, recipe);
    const lb_net *before[4];
    assert_ok(ctx, lb_trainer_prepare(t));
    assert_ok(ctx, lb_distill_start(t));
    assert_int_equal(t->nlearners, 4);
    for (int i = 0; i < 4; i++) {
        before[i] = t->learners[i].net;
        assert_true(t->learners[i].lr == 1);
        for (int k = 1; k < i; k++) /* each its own seed */
            assert_memory_not_equal(before[i]->values, before[k]->values, before[i]->params[0].count * sizeof(float));
    }
    for (size_t k = 0; k < t->net->nvalues; k++)
        t->net->values[k] = (float)(k % 101 + 1) / 101;
    assert_ok(ctx, lb_trainer_enter_stage(t, 1));
    assert_ok(ctx, lb_trainer_prepare(t));
    assert_ok(ctx, lb_distill_start(t));
    assert_int_equal(t->nlearners, LB_COUNT(expected));
    for (int i = 0; i < t->nlearners; i++) {
        const lb_learner *l = &t->learners[i];
        const lb_quant *conv2 = l->net->nodes[lb_net_find(l->net, "conv2")].quant;
        assert_string_equal(l->name, expected[i].name);
        assert_true(l->lr == expected[i].lr);
        assert_true(l->kind == LB_LEARNER_TWIN ? !conv2 : conv2->spec.bits == 6);
        if (expected[i].before >= 0)
            assert_ptr_equal(l->net, before[expected[i].before]);
        for (int p = 0; p < l->net->nparams && expected[i].before < 0; p++)
            if (l->net->params[p].kind != LB_PARAM_QUANT)
                assert_memory_equal(lb_param_values(l->net, p), lb_param_values(t->net, p),
                                    l->net->params[p].count * sizeof(float));
    }
    destroy_all(ctx, recipe, t);
}

/* What a run of several networks has come to within an epoch is there again when it is resumed. */
static void test_progress_of_terms(void **state) {
    (void)state;
    char dir[64], path[100];
    make_dir(dir);
    snprintf(path, sizeof path, "%s/full.safetensors", dir);
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, HEAD LOW "distill: {from: twin}\n");
    lb_trainer *t = trainer_of(ctx, recipe), *resumed = trainer_of(ctx, recipe);
    assert_ok(ctx, lb_trainer_prepare(t));
    assert_ok(ctx, lb_distill_start(t));
    t->at.loss_sum = 2.75;
    t->at.terms_sum = 1.1;
    t->learners[1].top1 = 12.3;
    assert_ok(ctx, lb_checkpoint_save(t, path));
    assert_ok(ctx, lb_checkpoint_resume(resumed, path));
    assert_true(resumed->at.loss_sum == 2.75 && resumed->at.terms_sum == 1.1 && resumed->learners[1].top1 == 12.3);
    lb_trainer_destroy(resumed);
    destroy_all(ctx, recipe, t);
    remove_dir(dir);
}

/* What is left of a student and of the twin are runs that can be opened. */
static void test_left_as_runs(void **state) {
    (void)state;
    char dir[64], path[100], key[32];
    make_dir(dir);
    train(HEAD LOW "distill: {from: twin, students: [4]}\n", dir, 0, false);
    char *log = read_text(dir, "metrics.jsonl");
    static const char *const names[] = {"4bit", "twin"};
    for (int i = 0; i < 2; i++) {
        lb_ctx *ctx = test_ctx();
        lb_trainer *t;
        lb_metrics metrics;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_ok(ctx, lb_trainer_open(ctx, path, NULL, &t));
        assert_ok(ctx, lb_trainer_eval(t, &metrics));
        snprintf(key, sizeof key, "\"test_top1_%s\": ", names[i]);
        assert_true(metrics.top1 == number_after(log, key, true));
        const lb_node *conv = &t->net->nodes[lb_net_find(t->net, "conv2")];
        assert_true(i == 0 ? conv->quant && conv->quant->spec.bits == 4 : !conv->quant);
        lb_trainer_destroy(t);
        lb_ctx_destroy(ctx);
    }
    free(log);
    remove_dir(dir);
}

/* ---- Failures ----------------------------------------------------------------------------------------------------------- */

static void refused(const char *recipe_text, lb_net *net, const char *says) {
    lb_ctx *ctx = net ? net->ctx : test_ctx();
    lb_recipe *recipe = recipe_of(ctx, recipe_text);
    lb_trainer *t = NULL;
    lb_status status = lb_trainer_create(ctx, recipe, net, &t);
    if (!status)
        status = lb_trainer_run(t, NULL, false);
    if (status == LB_OK || !strstr(lb_error(ctx), says))
        fail_msg("not refused with \"%s\" but: %s", says, status ? lb_error(ctx) : "nothing");
    destroy_all(ctx, recipe, t);
}

static lb_net *by_hand(void) {
    lb_ctx *ctx = test_ctx();
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "hand", 28, 28, 1, &net));
    int x = lb_net_flatten(net, lb_net_input(net), "flat");
    x = lb_net_linear(net, x, "fc", 10, true);
    assert_true(x > 0);
    assert_ok(ctx, lb_net_finish(net));
    return net;
}

static void test_refused(void **state) {
    (void)state;
    char teacher[64];
    make_teacher(teacher);
    refused(HEAD "distill: {from: teacher, teacher: /nowhere/run}\n", NULL, "distill.teacher: /nowhere/run: no such run directory");
    refused(with(HEAD_OF("width: 0.25, input_size: 32", "epochs: 1"), "distill: {from: teacher, teacher: %s}\n", teacher), NULL,
            "takes images of 28x28x1, this network of 32x32x1");
    refused(with(HEAD_OF("width: 0.5", "epochs: 1"), "distill: {from: teacher, teacher: %s, features: fc1}\n", teacher), NULL,
            "the output of fc1 is 1x1x256 in this network, but 1x1x128 in the teacher");
    refused(with(HEAD, "distill: {from: teacher, teacher: %s, features: conv9}\n", teacher), NULL,
            "\"conv9\" matches no convolution");
    refused(HEAD "distill: {from: twin, students: [4, 4]}\n", NULL, "4 bits are given twice");
    refused(HEAD LOW "distill: {from: twin, students: [2]}\n", NULL, "the network itself has 2 bits");
    refused(HEAD LOW "distill: {from: twin, label_weight: 0, weight: 0}\n", NULL, "there is nothing to learn from");
    refused(HEAD "distill: {from: twin, students: [4]}\n", NULL, "network 4bit: nothing of it is quantized");
    refused(HEAD "quant: {weights: {method: bwn, bits: 1}}\ndistill: {from: twin, students: [4]}\n", NULL,
            "distill.students: network 4bit: weights of conv2: bwn has 1 bit, not 4");
    refused(HEAD "distill: {from: twin}\n", by_hand(), "built by hand");
    remove_dir(teacher);
}

/* A call that fails leaves no learner behind, however often it is made. */
static void test_failing_again_and_again(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, HEAD LOW "distill: {from: teacher, teacher: /nowhere/run, students: [4]}\n");
    lb_trainer *t;
    lb_speed speed;
    t = trainer_of(ctx, recipe);
    for (int i = 0; i < 4 * LB_MAX_LEARNERS; i++) {
        assert_int_not_equal(i % 2 ? lb_trainer_run(t, NULL, false) : lb_trainer_bench(t, 1, &speed), LB_OK);
        assert_int_equal(t->nlearners, 1);
    }
    destroy_all(ctx, recipe, t);
}

#define ONE_STEP HEAD_OF("width: 0.25", "steps: 1") LOW

static void test_out_of_memory(void **state) {
    (void)state;
    char teacher[64], recipe_texts[2][1024];
    make_teacher(teacher);
    snprintf(recipe_texts[0], sizeof recipe_texts[0], ONE_STEP "distill: {from: teacher, teacher: %s, features: conv2}\n",
             teacher);
    snprintf(recipe_texts[1], sizeof recipe_texts[1], ONE_STEP "distill: {from: twin, students: [4]}\n");
    for (int i = 0; i < 2; i++) {
        bool done = false;
        for (long allowed = 100; !done; allowed += 61) {
            test_allocator a = {.left = allowed};
            lb_ctx *ctx = test_ctx_with(&a);
            lb_recipe *recipe = NULL;
            lb_trainer *t = NULL;
            lb_status status = lb_recipe_parse(ctx, "r", recipe_texts[i], strlen(recipe_texts[i]), NULL, 0, &recipe);
            if (!status)
                status = lb_trainer_create(ctx, recipe, NULL, &t);
            if (!status)
                status = lb_trainer_run(t, NULL, false);
            done = status == LB_OK;
            if (!done)
                assert_int_equal(status, LB_ERR_MEMORY);
            destroy_all(ctx, recipe, t);
            assert_int_equal(a.alive, 0);
        }
    }
    remove_dir(teacher);
}

/* Terms of a large weight are no divergence: that is judged by the labels' loss. */
static void test_large_terms(void **state) {
    (void)state;
    char dir[64];
    make_dir(dir);
    train("model: {name: lenet5, width: 0.25, init_std: 0.5}\n"
          "data: {name: fashion-mnist, path: " DATA ", train_limit: 64, test_limit: 10}\n"
          "train: {batch: 32, steps: 2, optimizer: {lr: 1.0e-9}}\n" LOW "distill: {from: twin, loss: mse, weight: 1000}\n",
          dir, 0, false);
    char *log = read_text(dir, "metrics.jsonl");
    const char *terms = strstr(log, "\"distill_loss\": ");
    assert_non_null(terms);
    assert_true(atof(strchr(terms, ' ')) > 1e4);
    free(log);
    remove_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learners_are_apart),
        cmocka_unit_test(test_large_terms),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_teachers_normalisation),
        cmocka_unit_test(test_terms),
        cmocka_unit_test(test_learns_from_the_teacher_alone),
        cmocka_unit_test(test_resume_gives_the_same_bits),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_learners_of_stages),
        cmocka_unit_test(test_progress_of_terms),
        cmocka_unit_test(test_left_as_runs),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_failing_again_and_again),
        cmocka_unit_test(test_out_of_memory),
    };
    return have_data() ? cmocka_run_group_tests(tests, NULL, NULL) : SKIP_ALL;
}

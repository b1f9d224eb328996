/* The training loop: steps, epochs, stages and checkpoints. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>

#include <omp.h>

#include "recipe/recipe.h"
#include "train/loss.h"
#include "train/report.h"
#include "train/schedule.h"
#include "train/unused.h"

/* A loss of labels this large never comes back; terms may have any weight. */
#define EXPLODED 1e4

typedef struct loop {
    lb_trainer *t;
    lb_pace pace;
    int64_t epoch_base; /* epochs of the stages before, so that no two epochs share an order */
    int64_t eval_steps; /* steps between evaluations */
    bool loading;       /* the loader's next batch is this step's */
} loop;

/* The best of another stage, or of a run that was killed before it saved its last. */
static lb_status remove_best(const lb_trainer *t) {
    const char *best = t->files.best;
    return remove(best) == 0 || errno == ENOENT ? LB_OK : lb_fail_file(t->ctx, best, "remove", errno);
}

/* Where it stands. Whoever opens the run prefers its best, which must not be that of a stage before. */
static lb_status save_last(lb_trainer *t) {
    if (!t->files.dir)
        return LB_OK;
    LB_TRY(lb_checkpoint_save(t, t->files.last));
    return t->at.stage > 0 && t->at.best_top1 < 0 ? remove_best(t) : LB_OK;
}

/* ---- One step ---------------------------------------------------------------------------------------------------------------- */

static lb_status diverged(lb_trainer *t, const lb_learner *l, double loss) {
    const char *layer = lb_plan_find_bad(l->plan);
    return lb_fail(
        t->ctx, LB_ERR_DIVERGED,
        "step %" PRId64
        ": the loss %s%s%sis %g%s%s; lower train.optimizer.lr (now %g), add train.schedule.warmup, or start from a float "
        "run with train.init%s",
        t->at.step, l->name[0] ? "of the network " : "", l->name, l->name[0] ? " " : "", isnan(loss) ? NAN : loss, /* no "-nan" */
        layer ? ", first not finite in layer " : "", layer ? layer : "", (double)t->config->train.optimizer.lr,
        t->files.dir && lb_exists(t->files.last) ? "; " LB_RUN_LAST " is from before" : "");
}

lb_quant_when lb_trainer_when(const lb_trainer *t) {
    return (lb_quant_when){.step = (uint64_t)t->at.step,
                           .stage_step = t->at.stage_step,
                           .stage_steps = lb_trainer_stage_steps(t, t->at.stage)};
}

/* Labels and terms of one learner, with the gradients of both; *loss is that of the labels, without its weight. */
static lb_status loss_of(lb_trainer *t, int i, const lb_batch *batch, double *loss, double *terms, int64_t *correct) {
    const lb_train_config *train = &t->config->train;
    const lb_learner *l = &t->learners[i];
    lb_plan *plan = l->plan;
    const int classes = t->net->classes;
    *loss = lb_loss(train->loss, train->label_smoothing, plan->logits, batch->labels, batch->mb, classes, plan->diff_logits,
                    correct);
    *terms = 0;
    if (t->nterms) {
        for (size_t k = 0; k < (size_t)batch->mb * (size_t)classes; k++)
            plan->diff_logits[k] *= l->label_weight;
        *terms = lb_distill_terms(t, i);
    }
    lb_lap(plan->laps, LB_LAP_LOSS, LB_PASS_FORWARD);
    const double total = *loss + *terms;
    return isfinite(total) && *loss <= EXPLODED ? LB_OK : diverged(t, l, isfinite(total) ? *loss : total);
}

static lb_status update(lb_trainer *t, lb_learner *l, double lr) {
    LB_TRY(lb_plan_backward(l->plan, l->diff));
    int64_t bad = lb_optim_step(l->optim, l->net, l->diff, lr * (double)l->lr, t->at.stage_step);
    lb_lap(l->plan->laps, LB_LAP_OPTIMIZER, LB_PASS_BACKWARD_WEIGHTS);
    if (bad)
        return lb_fail(t->ctx, LB_ERR_DIVERGED,
                       "step %" PRId64 ": %" PRId64 " gradients are not finite; lower train.optimizer.lr (now %g) or "
                       "add train.schedule.warmup",
                       t->at.step, bad, (double)t->config->train.optimizer.lr);
    return LB_OK;
}

/* Every learner sees the batch before any of them is updated. */
lb_status lb_trainer_step(lb_trainer *t, const lb_batch *batch, double lr) {
    const lb_quant_when when = lb_trainer_when(t);
    double loss[LB_MAX_LEARNERS], terms[LB_MAX_LEARNERS];
    int64_t correct[LB_MAX_LEARNERS];
    for (int i = 0; i < t->nlearners; i++) {
        lb_learner *l = &t->learners[i];
        LB_TRY(l->optim ? lb_plan_forward(l->plan, batch->pixels, &when) : lb_plan_infer(l->plan, batch->pixels));
    }
    for (int i = 0; i < t->nlearners; i++)
        if (t->learners[i].optim)
            LB_TRY(loss_of(t, i, batch, &loss[i], &terms[i], &correct[i]));
    for (int i = 0; i < t->nlearners; i++)
        if (t->learners[i].optim)
            LB_TRY(update(t, &t->learners[i], lr));
    t->at.loss_sum += loss[0] * batch->mb;
    t->at.terms_sum += terms[0] * batch->mb;
    t->at.correct += correct[0];
    t->at.images += batch->mb;
    t->at.step++;
    t->at.stage_step++;
    return LB_OK;
}

/* ---- Batch norm ------------------------------------------------------------------------------------------------------------- */

/* Running statistics of the network that is evaluated, from the first batches of this epoch. Training itself does not read them. */
static lb_status estimate_statistics(loop *l) {
    lb_trainer *t = l->t;
    const int64_t batches = t->config->train.bn_estimate, epoch = l->epoch_base + (t->at.stage_step - 1) / l->pace.epoch_steps;
    l->loading = l->loading && batches == 0;
    for (int64_t i = 0; i < batches; i++) {
        const lb_batch *batch;
        if (lb_interrupted(t->ctx))
            return lb_fail(t->ctx, LB_ERR_INTERRUPTED, "interrupted while estimating batch norm's statistics");
        if (i % l->pace.epoch_steps == 0)
            LB_TRY(lb_loader_start(t->loader, epoch + i / l->pace.epoch_steps, 0));
        LB_TRY(lb_loader_next(t->loader, &batch));
        for (int k = 0; k < t->nlearners; k++)
            if (t->learners[k].optim)
                LB_TRY(lb_plan_estimate(t->learners[k].plan, batch->pixels, i));
        lb_progress(t->ctx, "batch norm statistics", i + 1, batches);
    }
    return LB_OK;
}

/* ---- Epochs and stages ----------------------------------------------------------------------------------------------------- */

static lb_status finish_epoch(loop *l) {
    lb_trainer *t = l->t;
    const int64_t last = t->at.stage_step - 1;
    const double lr = lb_schedule_lr(&t->config->train, last, l->pace.epoch_steps, l->pace.stage_steps);
    const double rate = lb_pace_rate(t, &l->pace);
    lb_metrics test;
    LB_TRY(estimate_statistics(l));
    for (int i = t->nlearners - 1; i >= 0; i--) /* the first at last: its figures are the run's */
        if (t->learners[i].kind != LB_LEARNER_TEACHER) {
            LB_TRY(lb_trainer_evaluate(t, &t->learners[i], &test));
            t->learners[i].top1 = test.top1;
        }
    LB_TRY(lb_report_epoch(t, &l->pace, &test, lr, rate));
    t->at.loss_sum = t->at.terms_sum = 0;
    t->at.correct = t->at.images = 0;
    bool better = test.top1 > t->at.best_top1;
    if (better)
        t->at.best_top1 = test.top1;
    /* The best first: if the program is killed in between, resuming from the older last comes here again. */
    if (better && t->files.dir)
        LB_TRY(lb_checkpoint_save_learner(t, 0, t->files.best));
    LB_TRY(save_last(t));
    l->pace.steps_before = t->at.step;
    l->pace.started = lb_now();
    return LB_OK;
}

static lb_status stop_here(loop *l) {
    lb_trainer *t = l->t;
    LB_TRY(save_last(t));
    if (!t->files.dir)
        return lb_fail(t->ctx, LB_ERR_INTERRUPTED, "interrupted at step %" PRId64, t->at.step);
    return lb_fail(t->ctx, LB_ERR_INTERRUPTED, "interrupted at step %" PRId64 "; saved in %s, --resume continues", t->at.step,
                   t->files.last);
}

static bool is_epoch_end(const loop *l) {
    return l->t->at.stage_step % l->eval_steps == 0 || l->t->at.stage_step == l->pace.stage_steps;
}

static lb_status finish_epoch_or_stop(loop *l) {
    lb_status status = finish_epoch(l);
    return status == LB_ERR_INTERRUPTED ? stop_here(l) : status;
}

static lb_status run_stage(loop *l) {
    lb_trainer *t = l->t;
    const lb_train_config *train = &t->config->train;
    l->pace.epoch_steps = lb_trainer_epoch_steps(t, t->at.stage);
    l->pace.stage_steps = lb_trainer_stage_steps(t, t->at.stage);
    l->eval_steps = LB_MAX((int64_t)llround((double)train->eval_every * (double)l->pace.epoch_steps), (int64_t)1);
    l->pace.started = lb_now();
    l->pace.steps_before = t->at.step;
    if (t->at.images > 0 && is_epoch_end(l)) /* resumed after a stop while testing */
        LB_TRY(finish_epoch_or_stop(l));
    while (t->at.stage_step < l->pace.stage_steps) {
        if (lb_interrupted(t->ctx))
            return stop_here(l);
        int64_t epoch = t->at.stage_step / l->pace.epoch_steps, step = t->at.stage_step % l->pace.epoch_steps;
        if (step == 0 || !l->loading)
            LB_TRY(lb_loader_start(t->loader, l->epoch_base + epoch, step));
        l->loading = true;
        const lb_batch *batch;
        LB_TRY(lb_loader_next(t->loader, &batch));
        double lr = lb_schedule_lr(train, t->at.stage_step, l->pace.epoch_steps, l->pace.stage_steps);
        LB_TRY(lb_trainer_step(t, batch, lr));
        lb_report_step(t, &l->pace);
        if (is_epoch_end(l))
            LB_TRY(finish_epoch_or_stop(l));
        else if (train->save_every > 0 && t->at.stage_step % train->save_every == 0)
            LB_TRY(save_last(t));
    }
    return LB_OK;
}

static int64_t epochs_before(const lb_trainer *t, int stage) {
    int64_t epochs = 0;
    for (int i = 0; i < stage; i++) {
        const int64_t per_epoch = lb_trainer_epoch_steps(t, i);
        epochs += (lb_trainer_stage_steps(t, i) + per_epoch - 1) / per_epoch;
    }
    return epochs;
}

/* What the stage trains. */
static void note_quantization(const lb_trainer *t) {
    char text[600];
    for (int i = 0; i < t->nlearners; i++) {
        const lb_learner *l = &t->learners[i];
        lb_net_describe_quant(l->net, text, sizeof text);
        lb_note(t->ctx, "quantization%s%s: %s", l->name[0] ? " of " : "", l->name, text);
    }
    if (t->at.step > 0 && lb_net_describe_lengths(t->net, text, sizeof text))
        lb_note(t->ctx, "bits of weights: %s", text);
}

static lb_status take_init(lb_trainer *t) {
    const lb_status status = lb_net_init_from(t->ctx, t->net, t->config->train.init, t->config->quant.rescale);
    return status ? lb_fail_in(t->ctx, status, "train.init") : LB_OK;
}

/* A stage without steps. If it is the last one, what it left is the run's network, however good another stage's best was. */
static lb_status pass_stage(lb_trainer *t, int stage) {
    lb_warn(t->ctx, "stage %s: its budget is 0 steps; the weights stay what they were", t->config->stage);
    if (stage < t->recipe->nstages - 1 || !t->files.dir)
        return LB_OK;
    return save_last(t);
}

static lb_status run_stages(lb_trainer *t) {
    for (int stage = t->at.stage; stage < t->recipe->nstages; stage++) {
        if (stage != t->at.stage) {
            LB_TRY(lb_trainer_enter_stage(t, stage));
            if (t->config->train.init[0]) /* the stage's own */
                LB_TRY(take_init(t));
            LB_TRY(lb_trainer_prepare(t));
            LB_TRY(lb_distill_start(t));
            t->at.stage_step = 0;
            t->at.best_top1 = -1;
        }
        if (lb_trainer_stage_steps(t, stage) > 0)
            note_quantization(t);
        else if (t->recipe->nstages > 1)
            LB_TRY(pass_stage(t, stage));
        loop l = {.t = t, .epoch_base = epochs_before(t, stage)};
        LB_TRY(run_stage(&l));
    }
    return LB_OK;
}

static lb_status open_logs(lb_trainer *t, bool resume) {
    /* An epoch that is logged has no images left: a line of this very step is of a process that was killed before it saved. */
    const int64_t step = resume ? t->at.step - (t->at.images > 0) : -1;
    LB_TRY(lb_jsonl_open(t->ctx, t->files.log, step, &t->log));
    return lb_tensorboard_open(t->ctx, t->files.dir, step, &t->board);
}

/* A network built by hand is none that model.name knows. */
static void name_model(const lb_trainer *t, const lb_recipe *recipe) {
    for (int i = 0; t->net_is_given && i < recipe->nstages; i++)
        strcpy(recipe->stages[i].model.name, t->net->name);
}
_Static_assert(sizeof((lb_net *)0)->name <= sizeof((lb_model_config *)0)->name, "a network's name is a recipe's text");

/* The recipe as the run's file says it, its stages in the pool. */
static lb_status own_recipe(const lb_trainer *t, lb_pool *pool, lb_recipe *recipe) {
    const size_t nstages = (size_t)t->recipe->nstages;
    *recipe = *t->recipe;
    recipe->stages = lb_pool_alloc(pool, nstages, sizeof *recipe->stages);
    if (!recipe->stages)
        return LB_ERR_MEMORY;
    memcpy(recipe->stages, t->recipe->stages, nstages * sizeof *recipe->stages);
    name_model(t, recipe);
    return LB_OK;
}

static lb_status save_recipe(const lb_trainer *t) {
    lb_recipe recipe;
    lb_pool pool;
    lb_pool_init(&pool, t->ctx);
    lb_status status = own_recipe(t, &pool, &recipe);
    status = status ? status : lb_recipe_save(&recipe, t->files.recipe);
    lb_pool_free(&pool);
    return status;
}

/* A resumed run must be the run that was started. */
static lb_status check_same_recipe(lb_trainer *t) {
    lb_recipe *recipe, own;
    lb_pool pool;
    LB_TRY(lb_recipe_load(t->ctx, t->files.recipe, NULL, 0, &recipe));
    lb_pool_init(&pool, t->ctx);
    name_model(t, recipe); /* older versions wrote the name that the recipe had; the checkpoint tells whether it is this network */
    lb_status status = own_recipe(t, &pool, &own);
    if (!status)
        status = lb_recipe_check_resume(recipe, &own);
    lb_pool_free(&pool);
    lb_recipe_destroy(recipe);
    return status;
}

/* A trainer that has trained, or holds a run's weights, is one that has just been made again. */
static lb_status start_over(lb_trainer *t) {
    while (t->nlearners > 1)
        lb_distill_remove(t, t->nlearners - 1);
    t->at = (lb_progress_state){.best_top1 = -1};
    for (int i = 0; i < t->net->nnodes; i++)
        if (t->net->nodes[i].quant)
            t->net->nodes[i].quant->initialised = false;
    LB_TRY(lb_trainer_enter_stage(t, 0));
    lb_net_initialise(t->net, t->config->train.seed, t->config->model.init_std);
    return LB_OK;
}

static const char *without_dots(const char *path) {
    while (!strncmp(path, "./", 2))
        for (path += 2; *path == '/'; path++)
            ;
    return path;
}

/* Is it of this very run, which writes it before it is read? */
static bool is_own(const lb_trainer *t, const char *path) {
    if (!t->files.dir)
        return false;
    const char *dir = without_dots(t->files.dir);
    size_t n = strlen(dir);
    while (n && dir[n - 1] == '/')
        n--;
    path = without_dots(path);
    return n && !strncmp(path, dir, n) && (!path[n] || path[n] == '/');
}

/* A run or, if `file_will_do`, a checkpoint. */
static lb_status check_there(const lb_trainer *t, const lb_config *config, const char *key, const char *path, bool file_will_do) {
    if (is_own(t, path) || (lb_exists(path) && (file_will_do || lb_is_dir(path))))
        return LB_OK;
    return lb_fail(t->ctx, LB_ERR_IO, "stage %s: %s: %s: %s", config->stage, key, path,
                   file_will_do ? "no such run directory or checkpoint" : "no such run directory");
}

/* What stages after the current one start or learn from: missed at once, not when they begin. */
static lb_status check_runs(const lb_trainer *t) {
    for (int i = t->at.stage + 1; i < t->recipe->nstages; i++) {
        const lb_config *config = &t->recipe->stages[i];
        if (config->train.init[0])
            LB_TRY(check_there(t, config, "train.init", config->train.init, true));
        if (config->distill.from == LB_DISTILL_TEACHER)
            LB_TRY(check_there(t, config, "distill.teacher", config->distill.teacher, false));
    }
    return LB_OK;
}

static lb_status start(lb_trainer *t, bool resume) {
    if (resume) {
        if (!lb_exists(t->files.last))
            return lb_fail(t->ctx, LB_ERR_IO, "%s: nothing to resume; run without --resume to start", t->files.last);
        LB_TRY(check_same_recipe(t));
        LB_TRY(lb_checkpoint_resume(t, t->files.last));
        LB_TRY(check_runs(t));
        if (t->at.stage == t->recipe->nstages - 1 && t->at.stage_step == lb_trainer_stage_steps(t, t->at.stage) && !t->at.images)
            lb_note(t->ctx, "%s: trained to its end already; a larger train.%s continues it", t->files.dir,
                    lb_trainer_budget(t, t->at.stage));
        return LB_OK;
    }
    if (t->at.step > 0 || t->at.stage > 0)
        LB_TRY(start_over(t));
    LB_TRY(check_runs(t));
    if (t->config->train.init[0])
        LB_TRY(take_init(t));
    LB_TRY(lb_trainer_prepare(t));
    return lb_distill_start(t);
}

static lb_status finish(lb_trainer *t) {
    if (!t->files.dir)
        return LB_OK;
    LB_TRY(lb_distill_save(t));
    if (lb_exists(t->files.best)) /* removed where the last stage has no steps */
        LB_TRY(lb_checkpoint_load(t, t->files.best));
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    json_t *line = json_pack("{s:s, s:I, s:o, s:o}", "event", "done", "step", (json_int_t)t->at.step, "best_top1",
                             lb_json_number(t->at.best_top1), "peak_rss_mb", lb_json_number((double)usage.ru_maxrss / 1024));
    lb_status status = lb_jsonl_write(t->log, line);
    json_decref(line);
    return status;
}

lb_status lb_trainer_keep_graph(const lb_trainer *t, const char *path) {
    if (t->net_is_given || strcmp(t->config->model.name, "onnx"))
        return LB_OK;
    if (lb_exists(path))
        return LB_OK;
    const char *own = t->files.graph;
    unsigned char *data;
    size_t size;
    LB_TRY(lb_read_file(t->ctx, lb_exists(own) ? own : t->config->model.path, INT32_MAX, &data, &size));
    const lb_status status = lb_write_file(t->ctx, path, &(lb_span){data, size}, 1);
    lb_free(t->ctx, data);
    return status;
}

/* A run is never overwritten: if it were and the new one were killed before its first checkpoint, resuming would continue the old
 * one. */
static lb_status check_no_run(const lb_trainer *t) {
    if (!lb_exists(t->files.last))
        return LB_OK;
    return lb_fail(t->ctx, LB_ERR_IO, "%s: a run is there already; resume it, or choose another directory", t->files.dir);
}

/* Weights to start from, and the run directory with what is in it from the beginning, locked. */
static lb_status prepare_run(lb_trainer *t, bool resume, int *lock) {
    if (resume)
        LB_TRY(lb_lock_dir(t->ctx, t->files.dir, lock));
    else if (t->files.dir)
        LB_TRY(check_no_run(t)); /* before the trainer's own weights are gone */
    LB_TRY(start(t, resume));
    lb_warn_unused(t->recipe, t->net);
    if (!t->files.dir)
        return LB_OK;
    LB_TRY(lb_make_dirs(t->ctx, t->files.dir));
    if (*lock == LB_NO_LOCK)
        LB_TRY(lb_lock_dir(t->ctx, t->files.dir, lock));
    if (*lock != LB_NO_LOCK)
        lb_run_remove_leftovers(t->files.dir);
    if (!resume) {
        LB_TRY(check_no_run(t)); /* again: another process may have been faster */
        LB_TRY(remove_best(t));
    }
    LB_TRY(save_recipe(t));
    LB_TRY(lb_trainer_keep_graph(t, t->files.graph));
    return open_logs(t, resume);
}

lb_status lb_trainer_run(lb_trainer *t, const char *dir, bool resume) {
    if (resume && !dir)
        return lb_fail(t->ctx, LB_ERR_ARGUMENT, "resuming needs a run directory");
    if (dir && strlen(dir) > 3900)
        return lb_fail(t->ctx, LB_ERR_ARGUMENT, "%.60s...: the name is too long", dir);
    const int threads = omp_get_max_threads(); /* the caller's setting, which plans change */
    int lock = LB_NO_LOCK;
    lb_pool pool;
    lb_pool_init(&pool, t->ctx);
    lb_status status = dir ? lb_run_files_of(&pool, dir, &t->files) : LB_OK;
    if (!status)
        status = prepare_run(t, resume, &lock);
    if (!status)
        status = run_stages(t);
    if (!status)
        status = finish(t);
    lb_jsonl_destroy(t->log);
    t->log = NULL;
    lb_status closed = lb_tensorboard_close(t->board);
    t->board = NULL;
    lb_unlock_dir(lock);
    omp_set_num_threads(threads);
    t->files = (lb_run_files){0};
    lb_pool_free(&pool);
    return status ? status : closed;
}

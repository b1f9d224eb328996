/* Making a trainer, entering its stages, and evaluation. */
#include "train/report.h"

#include <math.h>

#include "recipe/recipe.h"
#include "train/accuracy.h"

int64_t lb_trainer_epoch_steps(const lb_trainer *trainer, int stage) {
    return LB_MAX(trainer->data->split[LB_TRAIN].count / trainer->recipe->stages[stage].train.batch, (int64_t)1);
}

int64_t lb_trainer_stage_steps(const lb_trainer *trainer, int stage) {
    const lb_train_config *train = &trainer->recipe->stages[stage].train;
    if (train->steps > 0)
        return train->steps;
    return (int64_t)llround((double)train->epochs * (double)lb_trainer_epoch_steps(trainer, stage));
}

const char *lb_trainer_budget(const lb_trainer *trainer, int stage) {
    const lb_train_config *train = &trainer->recipe->stages[stage].train;
    return train->steps > 0 ? "steps" : train->total_epochs > 0 ? "total_epochs" : "epochs";
}

static void unprepare_learner(lb_trainer *t, lb_learner *l) {
    lb_plan_destroy(l->plan);
    lb_optim_destroy(l->optim);
    lb_free(t->ctx, l->diff);
    l->plan = NULL;
    l->optim = NULL;
    l->diff = NULL;
}

/* Frees what lb_trainer_prepare makes, except the learners themselves. */
static void unprepare(lb_trainer *t) {
    for (int i = 0; i < t->nlearners; i++)
        unprepare_learner(t, &t->learners[i]);
    lb_loader_destroy(t->loader);
    lb_free(t->ctx, t->signs);
    t->loader = NULL;
    t->signs = NULL;
}

static void leave_stage(lb_trainer *t) {
    unprepare(t);
    for (int i = 0; i < t->nlearners; i++) {
        lb_evaluator_destroy(t->learners[i].evaluator);
        t->learners[i].evaluator = NULL;
    }
}

void lb_distill_remove(lb_trainer *t, int learner) {
    lb_learner *l = &t->learners[learner];
    unprepare_learner(t, l);
    lb_evaluator_destroy(l->evaluator);
    if (l->run)
        lb_trainer_destroy(l->run);
    else
        lb_net_destroy(l->net);
    lb_free(t->ctx, l->config);
    t->nlearners--;
    memmove(l, l + 1, (size_t)(t->nlearners - learner) * sizeof *l);
}

lb_status lb_trainer_enter_stage(lb_trainer *t, int stage) {
    leave_stage(t);
    t->config = &t->recipe->stages[stage];
    t->at.stage = stage;
    return lb_net_quantize(t->net, t->config);
}

/* AB trains by gradients that shrink with (1 - m); Adam divides by their size, which cancels that. */
static void warn_of_optimizer(const lb_trainer *t) {
    if (t->config->train.optimizer.name == LB_OPT_SGD)
        return;
    for (int i = 0; i < t->net->nnodes; i++) {
        const lb_quant *q = t->net->nodes[i].quant;
        if (q && q->spec.mixer->fades && q->spec.options.estimator == LB_EST_NONE) {
            lb_warn(t->ctx, "mixer %s fades gradients out by 1-m, which adam and adamw cancel; use train.optimizer.name: sgd, or "
                    "estimator: ste", q->spec.mixer->name);
            return;
        }
    }
}

static lb_status check_input(lb_trainer *t) {
    return lb_data_check(t->data, t->net->name, t->net->nodes[0].dst.c, t->net->classes);
}

/* Takes over `data`, to which the trainer's normalisation and labels apply. */
static lb_status replace_data(lb_trainer *t, lb_data *data) {
    memcpy(data->mean, t->data->mean, sizeof data->mean);
    memcpy(data->std, t->data->std, sizeof data->std);
    const lb_status status = lb_data_match(data, t->net->name, t->data->classes, t->data->class_names);
    lb_data_destroy(t->data);
    t->data = data;
    return status ? status : check_input(t);
}

lb_status lb_trainer_need_images(lb_trainer *t) {
    lb_data *data;
    if (t->data->split[LB_TRAIN].pixels)
        return LB_OK;
    LB_TRY(lb_data_load(t->ctx, &t->config->data, &data));
    return replace_data(t, data);
}

/* Random numbers of learners differ; the first's are the run's. */
static uint64_t seed_of(const lb_trainer *t, const lb_learner *l) {
    return t->config->train.seed + (uint64_t)((int)l->kind * 16 + l->bits) * 0xd1342543de82ef95u;
}

static lb_status prepare_learner(lb_trainer *t, lb_learner *l) {
    const lb_train_config *train = &t->config->train;
    lb_plan_options options = {
        .mb = train->batch, .bf16 = t->bf16, .seed = seed_of(t, l), .inference = l->kind == LB_LEARNER_TEACHER};
    const lb_data *data = l->run ? l->run->data : t->data; /* a teacher normalises as it was trained */
    options.mean = data->mean;
    options.std = data->std;
    LB_TRY(lb_distill_taps(t, l, &options));
    LB_TRY(lb_plan_create(t->ctx, l->net, &options, &l->plan));
    if (l->kind == LB_LEARNER_TEACHER)
        return LB_OK;
    LB_TRY(lb_optim_create(t->ctx, l->net, &train->optimizer, &l->optim));
    l->diff = lb_alloc(t->ctx, l->net->nvalues, sizeof *l->diff);
    return l->diff ? LB_OK : LB_ERR_MEMORY;
}

/* A batch norm subtracts the mean: of one value nothing is left. */
static lb_status check_batch(const lb_trainer *t) {
    const int batch = t->config->train.batch;
    const int64_t images = t->data->split[LB_TRAIN].count;
    if (images < batch) {
        int fits = 1; /* several batches of a usual size */
        while (fits * 8 <= images)
            fits *= 2;
        return lb_fail(t->ctx, LB_ERR_RECIPE,
                       "train.batch is %d but there are only %lld training images; make it smaller, e.g. --set train.batch=%d",
                       batch, (long long)images, fits);
    }
    for (int i = 0; batch == 1 && i < t->net->nnodes; i++) {
        const lb_node *node = &t->net->nodes[i];
        if (node->op == LB_OP_BATCHNORM && node->dst.h * node->dst.w == 1)
            return lb_fail(t->ctx, LB_ERR_RECIPE,
                           "train.batch is 1, so that batch norm %s has one value per channel and makes it 0; set it to 2 or more",
                           node->name);
    }
    return LB_OK;
}

lb_status lb_trainer_prepare(lb_trainer *t) {
    LB_TRY(lb_trainer_need_images(t));
    const lb_train_config *train = &t->config->train;
    const lb_shape *input = &t->net->nodes[0].dst;
    LB_TRY(check_batch(t));
    unprepare(t); /* of an earlier call */
    lb_plan_init_weights(t->net);
    t->bf16 = train->precision == LB_PRECISION_BF16 || (train->precision == LB_PRECISION_AUTO && lb_backend_has_bf16());
    if (train->precision == LB_PRECISION_BF16 && !lb_backend_has_bf16())
        lb_warn(t->ctx, "this processor has no bf16 multiplication: train.precision bf16 will be slower than f32");
    warn_of_optimizer(t);
    LB_TRY(lb_distill_learners(t));
    for (int i = 0; i < t->nlearners; i++)
        LB_TRY(prepare_learner(t, &t->learners[i]));
    LB_TRY(lb_distill_check(t));
    LB_TRY(lb_loader_create(t->data, &t->config->data, input->h, input->w, train->batch, train->seed, &t->loader));
    t->signs = lb_alloc(t->ctx, (t->net->nvalues + 7) / 8, 1);
    if (!t->signs)
        return LB_ERR_MEMORY;
    lb_sign_flips(t); /* from here on they are counted */
    return LB_OK;
}

/* The mistakes of later stages, before the stages ahead of them take their hours: a run is only continued with the recipe it was
 * started with. */
static lb_status check_later_stages(lb_trainer *t) {
    for (int i = 1; i < t->recipe->nstages; i++) {
        t->config = &t->recipe->stages[i];
        lb_status status = check_batch(t);
        status = status ? status : lb_net_can_quantize(t->net, t->config);
        status = status ? status : lb_distill_check_stage(t);
        if (status)
            return lb_fail_in(t->ctx, status, "stage %s", t->config->stage);
    }
    t->config = &t->recipe->stages[0];
    return LB_OK;
}

static lb_status create(lb_trainer *t) {
    LB_TRY(lb_recipe_check(t->recipe));
    t->config = &t->recipe->stages[0];
    if (!t->data)
        LB_TRY(lb_data_load(t->ctx, &t->config->data, &t->data));
    t->net_is_given = t->net != NULL;
    if (!t->net) {
        const lb_images *images = &t->data->split[LB_TRAIN];
        int size = t->config->model.input_size;
        lb_shape input = {size ? size : images->h, size ? size : images->w, images->c};
        LB_TRY(lb_net_from_config(t->ctx, t->config, input, t->data->classes, &t->net));
    }
    t->learners[0] = (lb_learner){.net = t->net, .lr = 1, .label_weight = 1};
    t->nlearners = 1;
    LB_TRY(check_input(t));
    if (!t->owned_recipe) /* what has been trained of a run can be used, whatever is wrong with the rest */
        LB_TRY(check_later_stages(t));
    lb_net_initialise(t->net, t->config->train.seed, t->config->model.init_std);
    t->at.best_top1 = -1;
    return lb_trainer_enter_stage(t, 0);
}

/* Takes over owned, net and data, each of which may be NULL. */
static lb_status create_with(lb_ctx *ctx, const lb_recipe *recipe, lb_recipe *owned, lb_net *net, lb_data *data, lb_trainer **out) {
    *out = NULL;
    lb_trainer *t = lb_alloc(ctx, 1, sizeof *t);
    if (!t) {
        lb_net_destroy(net);
        lb_data_destroy(data);
        lb_recipe_destroy(owned);
        return LB_ERR_MEMORY;
    }
    t->ctx = ctx;
    t->created = lb_now();
    t->recipe = recipe;
    t->owned_recipe = owned;
    t->net = net;
    t->data = data;
    lb_status status = create(t);
    if (status) {
        lb_trainer_destroy(t);
        return status;
    }
    *out = t;
    return LB_OK;
}

lb_status lb_trainer_create(lb_ctx *ctx, const lb_recipe *recipe, lb_net *net, lb_trainer **trainer) {
    return create_with(ctx, recipe, NULL, net, NULL, trainer);
}

lb_status lb_recipe_load_run(lb_ctx *ctx, const char *dir, const char *const *overrides, int noverrides, lb_recipe **recipe) {
    *recipe = NULL;
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    lb_run_files files;
    lb_status status = lb_run_files_of(&pool, dir, &files);
    status = status ? status : lb_recipe_load(ctx, files.recipe, overrides, noverrides, recipe);
    if (!status && !strcmp((*recipe)->stages[0].model.name, "onnx") && lb_exists(files.graph))
        status = lb_recipe_set(*recipe, "model.path", files.graph);
    if (status) {
        lb_recipe_destroy(*recipe);
        *recipe = NULL;
    }
    lb_pool_free(&pool);
    return status;
}

static lb_status check_model(lb_ctx *ctx, const char *dir, const char *name) {
    if (lb_zoo_find(name) || !strcmp(name, "onnx"))
        return LB_OK;
    return lb_fail(ctx, LB_ERR_UNSUPPORTED,
                   "%s: its network, %s, is none of `lowbit list models`; one built by hand can only be opened by the program that "
                   "builds it (its packed model runs anywhere)", dir, name);
}

static lb_status open_in(lb_ctx *ctx, lb_pool *pool, const char *dir, const char *data_spec, lb_trainer **out) {
    lb_run_files files;
    LB_TRY(lb_run_files_of(pool, dir, &files));
    const char *file = lb_run_checkpoint(&files);
    if (!lb_is_dir(dir))
        return lb_fail(ctx, LB_ERR_IO, "%s: no such run directory; `lowbit train RECIPE --out %s` makes one", dir, dir);
    if (!lb_exists(files.recipe) || !lb_exists(file))
        return lb_fail(ctx, LB_ERR_IO, "%s: not a run directory (%s is missing)", dir,
                       lb_exists(files.recipe) ? file : files.recipe);
    lb_recipe *recipe;
    LB_TRY(lb_recipe_load_run(ctx, dir, NULL, 0, &recipe));
    lb_data *data = NULL; /* old checkpoints do not describe theirs */
    lb_status status = check_model(ctx, dir, recipe->stages[0].model.name);
    status = status ? status : lb_checkpoint_data(ctx, &recipe->stages[0].data, file, &data);
    if (status) {
        lb_recipe_destroy(recipe);
        return status;
    }
    lb_trainer *t;
    LB_TRY(create_with(ctx, recipe, recipe, NULL, data, &t));
    status = lb_checkpoint_open(t, file);
    if (!status && data_spec) {
        status = lb_data_from_spec(ctx, data_spec, &t->config->data, &data);
        status = status ? status : replace_data(t, data);
    }
    if (status) {
        lb_trainer_destroy(t);
        return status;
    }
    *out = t;
    return LB_OK;
}

lb_status lb_trainer_open(lb_ctx *ctx, const char *dir, const char *data_spec, lb_trainer **trainer) {
    *trainer = NULL;
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    lb_status status = open_in(ctx, &pool, dir, data_spec, trainer);
    lb_pool_free(&pool);
    return status;
}

void lb_trainer_destroy(lb_trainer *t) {
    if (!t)
        return;
    leave_stage(t);
    while (t->nlearners > 1)
        lb_distill_remove(t, t->nlearners - 1);
    lb_jsonl_destroy(t->log);
    lb_tensorboard_close(t->board);
    lb_net_destroy(t->net);
    lb_data_destroy(t->data);
    lb_recipe_destroy(t->owned_recipe);
    lb_free(t->ctx, t);
}

/* ---- Evaluation ----------------------------------------------------------------------------------------------------------- */

static lb_status score(void *evaluator, const uint8_t *pixels, int mb, int32_t *scores) {
    return lb_evaluator_run(evaluator, pixels, mb, scores);
}

lb_status lb_trainer_evaluate(lb_trainer *t, lb_learner *l, lb_metrics *metrics) {
    return lb_trainer_evaluate_first(t, l, INT64_MAX, metrics);
}

lb_status lb_trainer_evaluate_first(lb_trainer *t, lb_learner *l, int64_t count, lb_metrics *metrics) {
    const int mb = t->config->train.eval_batch;
    LB_TRY(lb_trainer_need_images(t));
    count = LB_MIN(count, t->data->split[LB_TEST].count);
    if (count == 0)
        return lb_fail(t->ctx, LB_ERR_UNSUPPORTED, "%s has no test images", t->data->source);
    if (!l->evaluator)
        LB_TRY(lb_evaluator_create(t->ctx, l->net, t->data->mean, t->data->std, mb, &l->evaluator));
    lb_net_update_grids(l->net);
    LB_TRY(lb_evaluator_update(l->evaluator));
    const lb_scorer scorer = {t->net->nodes[0].dst, t->net->classes, score, l->evaluator};
    lb_score_sums sums = {0};
    LB_TRY(lb_scores_of_test(&scorer, t->data, &t->config->data, count, mb, &sums));
    if (!t->warned_of_scores) /* once, not after each epoch */
        t->warned_of_scores = lb_scores_warn(t->ctx, t->net->name, &sums);
    lb_scores_metrics(&sums, metrics);
    return LB_OK;
}

lb_status lb_trainer_eval(lb_trainer *trainer, lb_metrics *metrics) {
    return lb_trainer_evaluate(trainer, &trainer->learners[0], metrics);
}

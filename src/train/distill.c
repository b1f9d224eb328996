/* Distillation: the networks beside a run's own, and the parts of the losses that tie them together.
 *
 * teacher  a finished run, as it is evaluated (everything quantized, running statistics), never changed
 * twin     the same network in float, trained at the same time: it learns from the low-bit ones as they learn from it
 * students the same network at other bits; all low-bit networks learn from the teacher or twin, not from one another
 *
 * Zhuang et al. 2021, arXiv 1908.04680, and their released code: with z the scores, D the difference of distill.loss,
 *     loss of a low-bit network j:  label_weight * CE(z_j) + weight * D(z_j, z_F)
 *     loss of the float twin F:     twin_label_weight * CE(z_F) + twin_weight * mean over j of D(z_F, z_j)
 * the second argument held fixed, all z those of the same step, before anybody's update. Tensors of named layers (Zhuang et al.
 * 2018, arXiv 1711.00205, guidance) add feature_weight * mean (f - f_other)^2 for each, in the twin's loss times twin_weight. */
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "train/loss.h"
#include "train/trainer.h"

/* ---- Which learners ---------------------------------------------------------------------------------------------------- */

/* The stage's config as it is for a learner: in float, or with its bits wherever the recipe has those of quant.weights and
 * quant.activations. */
static void own_config(const lb_config *config, const lb_learner *l, lb_config *own) {
    *own = *config;
    memset(&own->distill, 0, sizeof own->distill);
    lb_quant_config *quant = &own->quant;
    if (l->kind == LB_LEARNER_TWIN) {
        strcpy(quant->weights.method, "none");
        strcpy(quant->activations.method, "none");
        quant->nlayers = 0;
        return;
    }
    const int weights = quant->weights.bits, activations = quant->activations.bits;
    /* Where they are not read they stay as they are: a recipe with stages is written as what differs from its first one. */
    if (strcmp(quant->weights.method, "none"))
        quant->weights.bits = l->bits;
    if (strcmp(quant->activations.method, "none"))
        quant->activations.bits = l->bits;
    for (int i = 0; i < quant->nlayers; i++) {
        lb_layer_rule *rule = &quant->layers[i];
        rule->weights.bits = rule->weights.bits == weights ? l->bits : rule->weights.bits;
        rule->activations.bits = rule->activations.bits == activations ? l->bits : rule->activations.bits;
    }
}

static lb_status check_not_given(const lb_trainer *t) {
    if (!t->net_is_given)
        return LB_OK;
    return lb_fail(t->ctx, LB_ERR_UNSUPPORTED,
                   "distill.from twin and distill.students build the recipe's network again, which a network built by hand does "
                   "not have; use distill.from teacher");
}

static lb_status make_network(lb_trainer *t, lb_learner *l) {
    LB_TRY(check_not_given(t));
    l->config = lb_alloc(t->ctx, 1, sizeof *l->config);
    return l->config ? lb_net_from_config(t->ctx, t->config, t->net->nodes[0].dst, t->net->classes, &l->net) : LB_ERR_MEMORY;
}

static lb_status open_teacher(lb_trainer *t, lb_learner *l) {
    const char *dir = t->config->distill.teacher;
    lb_status status = lb_trainer_open(t->ctx, dir, NULL, &l->run);
    if (status)
        return lb_fail_in(t->ctx, status, "distill.teacher");
    l->net = l->run->net;
    const lb_shape *theirs = &l->net->nodes[0].dst, *ours = &t->net->nodes[0].dst;
    char a[LB_SHAPE_TEXT], b[LB_SHAPE_TEXT];
    if (memcmp(theirs, ours, sizeof *ours))
        return lb_fail(t->ctx, LB_ERR_SHAPE, "distill.teacher: %s takes images of %s, this network of %s; they must be the same",
                       dir, lb_shape_text(theirs, a), lb_shape_text(ours, b));
    if (l->net->classes != t->net->classes)
        return lb_fail(t->ctx, LB_ERR_SHAPE, "distill.teacher: %s tells %d classes apart, this network %d", dir, l->net->classes,
                       t->net->classes);
    return LB_OK;
}

static lb_learner new_learner(lb_learner_kind kind, int bits) {
    lb_learner l = {.kind = kind, .bits = bits, .is_new = kind != LB_LEARNER_TEACHER, .top1 = NAN};
    if (kind == LB_LEARNER_STUDENT)
        snprintf(l.name, sizeof l.name, "%dbit", bits);
    else
        snprintf(l.name, sizeof l.name, "%s", kind == LB_LEARNER_TWIN ? "twin" : "teacher");
    return l;
}

/* A learner of this kind at place `place`: the one that the stage before had, or a new one. */
static lb_status want(lb_trainer *t, int place, lb_learner_kind kind, int bits) {
    for (int i = place; i < t->nlearners && kind != LB_LEARNER_TEACHER; i++)
        if (t->learners[i].kind == kind && t->learners[i].bits == bits) {
            const lb_learner there = t->learners[i];
            memmove(&t->learners[place + 1], &t->learners[place], (size_t)(i - place) * sizeof there);
            t->learners[place] = there;
            return LB_OK;
        }
    assert(t->nlearners < (int)LB_COUNT(t->learners));
    memmove(&t->learners[place + 1], &t->learners[place], (size_t)(t->nlearners - place) * sizeof t->learners[0]);
    lb_learner *l = &t->learners[place];
    *l = new_learner(kind, bits);
    t->nlearners++;
    return kind == LB_LEARNER_TEACHER ? open_teacher(t, l) : make_network(t, l);
}

static void add_term(lb_trainer *t, int learner, int target, float weight, float feature_weight) {
    t->terms[t->nterms++] = (lb_term){learner, target, weight, feature_weight};
}

static bool is_low_bit(const lb_net *net) {
    for (int i = 0; i < net->nnodes; i++)
        if (net->nodes[i].quant)
            return true;
    return false;
}

/* The recipe's own network has these bits, weights and activations, as far as they are quantized. */
static bool is_own_bits(const lb_quant_config *quant, int bits) {
    const bool weights = strcmp(quant->weights.method, "none") != 0, activations = strcmp(quant->activations.method, "none") != 0;
    return (weights || activations) && (!weights || quant->weights.bits == bits) &&
           (!activations || quant->activations.bits == bits);
}

/* What quantizing this learner's network, `net`, came to: the message has the learner's name before it. */
static lb_status check_learner(const lb_trainer *t, const lb_learner *l, const lb_net *net, lb_status status) {
    if (!status && l->kind == LB_LEARNER_STUDENT && !is_low_bit(net))
        status = lb_fail(t->ctx, LB_ERR_RECIPE, "nothing of it is quantized, which is what distill.from twin is for");
    if (!status)
        return LB_OK;
    return lb_fail_in(t->ctx, status, l->kind == LB_LEARNER_STUDENT ? "distill.students: network %s" : "distill: network %s",
                      l->name);
}

static lb_status requantize(lb_trainer *t, lb_learner *l) {
    own_config(t->config, l, l->config);
    lb_evaluator_destroy(l->evaluator);
    l->evaluator = NULL;
    LB_TRY(check_learner(t, l, l->net, lb_net_quantize(l->net, l->config)));
    if (!l->is_new)
        lb_plan_init_weights(l->net);
    return LB_OK;
}

static lb_status check_config(const lb_trainer *t) {
    const lb_distill_config *d = &t->config->distill;
    if (d->from == LB_DISTILL_NONE)
        return LB_OK;
    if (d->label_weight == 0 && d->weight == 0 && !(d->features[0] && d->feature_weight > 0))
        return lb_fail(t->ctx, LB_ERR_RECIPE, "distill: label_weight and weight are both 0, so there is nothing to learn from");
    for (int i = 0; i < d->nstudents; i++) {
        const int bits = (int)d->students[i];
        for (int k = 0; k < i; k++)
            if ((int)d->students[k] == bits)
                return lb_fail(t->ctx, LB_ERR_RECIPE, "distill.students: %d bits are given twice", bits);
        if (is_own_bits(&t->config->quant, bits))
            return lb_fail(t->ctx, LB_ERR_RECIPE, "distill.students: the network itself has %d bits; give others", bits);
    }
    return LB_OK;
}

static lb_status choose_learners(lb_trainer *t) {
    const lb_distill_config *d = &t->config->distill;
    lb_learner *first = &t->learners[0];
    const int nstudents = d->from == LB_DISTILL_NONE ? 0 : d->nstudents;
    int n = 1;
    LB_TRY(check_config(t));
    for (int i = 0; i < nstudents; i++, n++)
        LB_TRY(want(t, n, LB_LEARNER_STUDENT, (int)d->students[i]));
    if (d->from != LB_DISTILL_NONE) {
        LB_TRY(want(t, n, d->from == LB_DISTILL_TWIN ? LB_LEARNER_TWIN : LB_LEARNER_TEACHER, 0));
        n++;
    }
    while (t->nlearners > n)
        lb_distill_remove(t, t->nlearners - 1);
    t->nterms = 0;
    first->label_weight = d->from == LB_DISTILL_NONE ? 1 : d->label_weight;
    const int guide = n - 1;
    const float feature_weight = d->features[0] ? d->feature_weight : 0;
    for (int i = 0; i < guide; i++) {
        t->learners[i].lr = 1;
        t->learners[i].label_weight = d->label_weight;
        add_term(t, i, guide, d->weight, feature_weight);
        if (d->from == LB_DISTILL_TWIN)
            add_term(t, guide, i, d->twin_weight / (float)guide, feature_weight * d->twin_weight / (float)guide);
    }
    if (d->from == LB_DISTILL_TWIN) {
        t->learners[guide].lr = d->twin_lr;
        t->learners[guide].label_weight = d->twin_label_weight;
    }
    for (int i = 1; i < n; i++)
        if (t->learners[i].kind != LB_LEARNER_TEACHER)
            LB_TRY(requantize(t, &t->learners[i]));
    return LB_OK;
}

lb_status lb_distill_learners(lb_trainer *t) {
    const lb_status status = choose_learners(t);
    while (status && t->nlearners > 1) /* half made: another call makes them anew */
        lb_distill_remove(t, t->nlearners - 1);
    t->nterms = status ? 0 : t->nterms;
    return status;
}

lb_status lb_distill_start(lb_trainer *t) {
    const lb_train_config *train = &t->config->train;
    for (int i = 1; i < t->nlearners; i++) {
        lb_learner *l = &t->learners[i];
        if (!l->is_new)
            continue;
        if (train->init[0]) {
            LB_TRY(lb_net_init_from(t->ctx, l->net, train->init, t->config->quant.rescale));
        } else if (t->at.stage > 0) { /* everything but quantizers' parameters, which come last */
            size_t count = 0;
            for (int k = 0; k < l->net->nparams && l->net->params[k].kind != LB_PARAM_QUANT; k++)
                count += l->net->params[k].count;
            memcpy(l->net->values, t->net->values, count * sizeof *l->net->values);
        } else {
            lb_net_initialise(l->net, l->plan->options.seed, t->config->model.init_std);
        }
        lb_plan_init_weights(l->net);
        l->is_new = false;
    }
    return LB_OK;
}

/* ---- Features ---------------------------------------------------------------------------------------------------------- */

static bool matches(const char *patterns, const char *name) {
    char pattern[LB_CONFIG_TEXT];
    for (size_t n; *patterns; patterns += n) {
        patterns += strspn(patterns, " ");
        n = strcspn(patterns, " ");
        snprintf(pattern, sizeof pattern, "%.*s", (int)n, patterns);
        if (n && lb_match(pattern, name))
            return true;
    }
    return false;
}

lb_status lb_distill_taps(const lb_trainer *t, const lb_learner *l, lb_plan_options *options) {
    const char *patterns = t->config->distill.features;
    const lb_net *first = t->net;
    if (!patterns[0]) /* nor are there any without distill.from */
        return LB_OK;
    for (int i = 0; i < first->nnodes; i++) {
        const lb_node *node = &first->nodes[i];
        if (!lb_is_layer(node) || !matches(patterns, node->name))
            continue;
        if (options->ntaps == LB_MAX_TAPS)
            return lb_fail(t->ctx, LB_ERR_RECIPE, "distill.features: \"%.80s\" matches more than %d layers", patterns, LB_MAX_TAPS);
        const int there = lb_net_find(l->net, node->name);
        if (there < 0)
            return lb_fail(t->ctx, LB_ERR_RECIPE, "distill.features: the teacher's network has no layer %s", node->name);
        options->tap[options->ntaps++] = there;
    }
    if (!options->ntaps)
        return lb_fail(t->ctx, LB_ERR_RECIPE,
                       "distill.features: \"%.80s\" matches no convolution or linear layer of %s; `lowbit inspect` lists them",
                       patterns, first->name);
    return LB_OK;
}

lb_status lb_distill_check_stage(const lb_trainer *t) {
    const lb_distill_config *d = &t->config->distill;
    lb_plan_options options = {0};
    if (d->from == LB_DISTILL_NONE)
        return LB_OK;
    if (d->from == LB_DISTILL_TWIN || d->nstudents)
        LB_TRY(check_not_given(t));
    LB_TRY(check_config(t));
    LB_TRY(lb_distill_taps(t, &t->learners[0], &options));
    lb_config *own = lb_alloc(t->ctx, 1, sizeof *own);
    lb_status status = own ? LB_OK : LB_ERR_MEMORY;
    for (int i = 0; i < d->nstudents && !status; i++) {
        const lb_learner student = new_learner(LB_LEARNER_STUDENT, (int)d->students[i]);
        own_config(t->config, &student, own);
        status = check_learner(t, &student, t->net, lb_net_can_quantize(t->net, own));
    }
    lb_free(t->ctx, own);
    return status;
}

lb_status lb_distill_check(const lb_trainer *t) {
    const lb_plan *first = t->learners[0].plan;
    for (int i = 1; i < t->nlearners; i++)
        for (int k = 0; k < first->ntaps; k++) {
            const lb_plan *plan = t->learners[i].plan;
            char a[LB_SHAPE_TEXT], b[LB_SHAPE_TEXT];
            const lb_shape *theirs = &plan->net->nodes[plan->taps[k].node].dst, *ours = &first->net->nodes[first->taps[k].node].dst;
            if (memcmp(theirs, ours, sizeof *ours))
                return lb_fail(t->ctx, LB_ERR_SHAPE, "distill.features: the output of %s is %s in this network, but %s in the %s",
                               first->net->nodes[first->options.tap[k]].name, lb_shape_text(ours, a), lb_shape_text(theirs, b),
                               t->learners[i].name);
        }
    return LB_OK;
}

/* ---- Losses ------------------------------------------------------------------------------------------------------------ */

enum { BLOCK = 2048, SHARES = 64 };

/* Elements [first, first + n) of tap k of a learner: leaves the sum of its terms' gradients, returns the sum of their losses. */
static double feature_block(const lb_trainer *t, int learner, int k, size_t first, size_t n, double factor) {
    const lb_plan *plan = t->learners[learner].plan;
    float own[BLOCK], other[BLOCK], diff[BLOCK] = {0};
    double loss = 0;
    lb_plan_tap_read(plan, k, first, n, own);
    for (int i = 0; i < t->nterms; i++) {
        const lb_term *term = &t->terms[i];
        if (term->learner != learner)
            continue;
        const double weight = (double)term->feature_weight * factor;
        const float twice = (float)(2 * weight);
        double sum = 0;
        lb_plan_tap_read(t->learners[term->target].plan, k, first, n, other);
        for (size_t e = 0; e < n; e++) {
            const float d = own[e] - other[e];
            sum += (double)d * (double)d;
            diff[e] += twice * d;
        }
        loss += weight * sum;
    }
    lb_plan_tap_write(plan, k, first, n, diff);
    return loss;
}

/* In a fixed number of shares, whose losses are added in order: the same sum whatever threads did them. */
static double feature_loss(const lb_trainer *t, int learner, int k) {
    const lb_plan *plan = t->learners[learner].plan;
    const size_t count = lb_plan_tap_count(plan, k), share = (count + SHARES - 1) / SHARES;
    double sums[SHARES] = {0}, loss = 0;
#pragma omp parallel for schedule(static) num_threads(plan->threads)
    for (size_t s = 0; s < SHARES; s++)
        for (size_t i = s * share, end = LB_MIN(i + share, count); i < end; i += BLOCK)
            sums[s] += feature_block(t, learner, k, i, LB_MIN((size_t)BLOCK, end - i), 1 / (double)count);
    for (size_t s = 0; s < SHARES; s++)
        loss += sums[s];
    return loss;
}

double lb_distill_terms(const lb_trainer *t, int learner) {
    const lb_distill_config *d = &t->config->distill;
    const lb_plan *plan = t->learners[learner].plan;
    double loss = 0;
    for (int i = 0; i < t->nterms; i++)
        if (t->terms[i].learner == learner)
            loss += lb_distill_loss_add(d->loss, d->temperature, t->terms[i].weight, plan->logits,
                                         t->learners[t->terms[i].target].plan->logits, plan->options.mb, t->net->classes,
                                         plan->diff_logits);
    for (int k = 0; k < plan->ntaps; k++)
        loss += feature_loss(t, learner, k);
    return loss;
}

/* ---- What is left ------------------------------------------------------------------------------------------------------ */

/* What `lowbit compare` reads: all epochs, and the accuracy after the last one. */
static lb_status save_log(const lb_trainer *t, const lb_learner *l, const char *path) {
    lb_jsonl *log;
    double epochs = 0;
    for (int i = 0; i < t->recipe->nstages; i++)
        epochs += (double)lb_trainer_stage_steps(t, i) / (double)lb_trainer_epoch_steps(t, i);
    LB_TRY(lb_jsonl_open(t->ctx, path, -1, &log));
    json_t *lines[] = {json_pack("{s:s, s:i, s:o, s:I, s:o}", "event", "epoch", "stage", 0, "epoch", lb_json_number(epochs), "step",
                                 (json_int_t)t->at.step, "test_top1", lb_json_number(l->top1)),
                       json_pack("{s:s, s:I, s:o}", "event", "done", "step", (json_int_t)t->at.step, "best_top1",
                                 lb_json_number(l->top1))};
    lb_status status = LB_OK;
    for (size_t i = 0; i < LB_COUNT(lines); i++) {
        status = status ? status : lb_jsonl_write(log, lines[i]);
        json_decref(lines[i]);
    }
    lb_jsonl_destroy(log);
    return status;
}

static lb_status save_run(lb_trainer *t, int learner, lb_pool *pool) {
    const lb_learner *l = &t->learners[learner];
    const char *dir = lb_pool_printf(pool, "%s/%s", t->files.dir, l->name);
    lb_run_files files;
    if (!dir)
        return LB_ERR_MEMORY;
    LB_TRY(lb_run_files_of(pool, dir, &files));
    lb_recipe recipe = *t->recipe;
    recipe.stages = lb_pool_alloc(pool, (size_t)recipe.nstages, sizeof *recipe.stages);
    if (!recipe.stages)
        return LB_ERR_MEMORY;
    for (int i = 0; i < recipe.nstages; i++)
        own_config(&t->recipe->stages[i], l, &recipe.stages[i]);
    LB_TRY(lb_make_dirs(t->ctx, dir));
    LB_TRY(lb_recipe_save(&recipe, files.recipe));
    LB_TRY(lb_trainer_keep_graph(t, files.graph));
    LB_TRY(lb_checkpoint_save_learner(t, learner, files.last));
    LB_TRY(save_log(t, l, files.log));
    lb_note(t->ctx, "%s: the %s network, as a run of its own", dir, l->name);
    return LB_OK;
}

lb_status lb_distill_save(lb_trainer *t) {
    lb_pool pool;
    lb_pool_init(&pool, t->ctx);
    lb_status status = LB_OK;
    for (int i = 1; i < t->nlearners && !status; i++)
        if (t->learners[i].kind != LB_LEARNER_TEACHER)
            status = save_run(t, i, &pool);
    lb_pool_free(&pool);
    return status;
}

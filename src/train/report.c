#include "train/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

double lb_pace_rate(const lb_trainer *t, const lb_pace *pace) {
    const int64_t steps = t->at.step - pace->steps_before;
    return steps > 0 ? (double)(steps * t->config->train.batch) / LB_MAX(lb_now() - pace->started, 1e-9) : NAN;
}

static double running_loss(const lb_trainer *t) { return t->at.images ? t->at.loss_sum / (double)t->at.images : NAN; }
static double running_top1(const lb_trainer *t) {
    return t->at.images ? 100.0 * (double)t->at.correct / (double)t->at.images : NAN;
}

void lb_report_step(const lb_trainer *t, lb_pace *pace) {
    double time = lb_now();
    if (time - pace->last_report < 0.1 && t->at.stage_step < pace->stage_steps)
        return;
    pace->last_report = time;
    char text[128];
    int64_t epoch = (t->at.stage_step - 1) / pace->epoch_steps + 1;
    int64_t epochs = (pace->stage_steps + pace->epoch_steps - 1) / pace->epoch_steps;
    if (t->recipe->nstages > 1)
        snprintf(text, sizeof text, "stage %s, epoch %" PRId64 "/%" PRId64, t->config->stage, epoch, epochs);
    else
        snprintf(text, sizeof text, "epoch %" PRId64 "/%" PRId64, epoch, epochs);
    lb_event event = {.kind = LB_EVENT_PROGRESS,
                      .text = text,
                      .done = t->at.stage_step,
                      .total = pace->stage_steps,
                      .loss = running_loss(t),
                      .top1 = running_top1(t),
                      .rate = lb_pace_rate(t, pace)};
    lb_report(t->ctx, &event);
}

double lb_sign_flips(lb_trainer *t) {
    int64_t flips = 0, count = 0;
    for (int i = 0; i < t->net->nparams; i++) {
        const lb_param *p = &t->net->params[i];
        for (size_t k = p->offset; p->kind == LB_PARAM_WEIGHT && k < p->offset + p->count; k++) {
            uint8_t bit = (uint8_t)(1u << (k & 7)), sign = t->net->values[k] < 0 ? bit : 0;
            flips += (t->signs[k >> 3] & bit) != sign;
            t->signs[k >> 3] = (uint8_t)((t->signs[k >> 3] & ~bit) | sign);
            count++;
        }
    }
    return count ? (double)flips / (double)count : 0;
}

/* Mean bits of the weights of convolutions and linear layers, and the share of them that is quantized now. */
static void weight_bits(const lb_net *net, const lb_quant_when *when, double *bits, double *quantized) {
    double count = 0, sum = 0, low = 0;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        if (!lb_is_layer(node))
            continue;
        double n = (double)net->params[node->param[0]].count;
        count += n;
        sum += n * (node->quant ? node->quant->grid.bits : 32);
        low += node->quant ? n * (double)node->quant->spec.mixer->share(&node->quant->spec, when) : 0;
    }
    *bits = count > 0 ? sum / count : 0;
    *quantized = count > 0 ? low / count : 0;
}

/* Has a multiple of train.histograms epochs come since the evaluation before? */
static bool histograms_are_due(const lb_trainer *t, const lb_pace *pace) {
    const int64_t every = (int64_t)t->config->train.histograms * pace->epoch_steps;
    const int64_t before = t->at.stage_step - t->at.images / t->config->train.batch;
    return every > 0 && t->at.stage_step / every > before / every;
}

static lb_status log_histograms(const lb_trainer *t) {
    for (int i = 0; i < t->net->nparams; i++) {
        const lb_param *p = &t->net->params[i];
        if (p->kind == LB_PARAM_WEIGHT)
            LB_TRY(lb_tensorboard_histogram(t->board, p->name, t->at.step, t->net->values + p->offset, p->count));
    }
    return LB_OK;
}

static double running_terms(const lb_trainer *t) { return t->at.images ? t->at.terms_sum / (double)t->at.images : NAN; }

/* Of the learners besides the first: test accuracies, and what the terms add to the first's loss. */
static lb_status log_learners(const lb_trainer *t) {
    if (t->nterms)
        LB_TRY(lb_tensorboard_scalar(t->board, "train/distill", t->at.step, running_terms(t)));
    for (int i = 1; i < t->nlearners; i++) {
        char tag[64];
        snprintf(tag, sizeof tag, "test/top1_%s", t->learners[i].name);
        if (t->learners[i].optim)
            LB_TRY(lb_tensorboard_scalar(t->board, tag, t->at.step, t->learners[i].top1));
    }
    return LB_OK;
}

/* False: out of memory; so is the next. */
static bool json_add(json_t *line, const char *key, double value) {
    return json_object_set_new(line, key, lb_json_number(value)) == 0;
}

static bool json_add_learners(const lb_trainer *t, json_t *line) {
    bool ok = !t->nterms || json_add(line, "distill_loss", running_terms(t));
    for (int i = 1; i < t->nlearners; i++) {
        char key[64];
        snprintf(key, sizeof key, "test_top1_%s", t->learners[i].name);
        if (t->learners[i].optim)
            ok = ok && json_add(line, key, t->learners[i].top1);
    }
    return ok;
}

/* The epoch as a line of text. */
static void say_epoch(const lb_trainer *t, const lb_pace *pace, double epoch, const lb_metrics *test, double lr, double rate) {
    char text[400], stage[80] = "", speed[40] = "";
    if (t->recipe->nstages > 1)
        snprintf(stage, sizeof stage, "%-12s ", t->config->stage);
    if (isfinite(rate))
        snprintf(speed, sizeof speed, "  %6.0f images/s", rate);
    snprintf(text, sizeof text, "%sepoch %6.2f  loss %7.4f  train %6.2f %%  test %6.2f %%  lr %.5f%s", stage, epoch,
             running_loss(t), running_top1(t), test->top1, lr, speed);
    for (int i = 1; i < t->nlearners; i++)
        if (t->learners[i].optim)
            snprintf(text + strlen(text), sizeof text - strlen(text), "  %s %6.2f %%", t->learners[i].name, t->learners[i].top1);
    lb_report(t->ctx, &(lb_event){.kind = LB_EVENT_EPOCH,
                                  .text = text,
                                  .done = t->at.stage_step,
                                  .total = pace->stage_steps,
                                  .loss = running_loss(t),
                                  .top1 = test->top1,
                                  .rate = rate});
}

typedef struct figure {
    const char *tag, *key; /* in TensorBoard, in metrics.jsonl */
    double value;          /* NaN: not known */
} figure;

static lb_status log_to_board(const lb_trainer *t, const lb_pace *pace, const figure *figures, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (isfinite(figures[i].value))
            LB_TRY(lb_tensorboard_scalar(t->board, figures[i].tag, t->at.step, figures[i].value));
    LB_TRY(log_learners(t));
    if (histograms_are_due(t, pace))
        LB_TRY(log_histograms(t));
    return lb_tensorboard_flush(t->board);
}

static lb_status log_to_file(const lb_trainer *t, const lb_pace *pace, double epoch, const figure *figures, size_t count) {
    json_t *line = json_pack("{s:s, s:i, s:o, s:I}", "event", "epoch", "stage", t->at.stage, "epoch", lb_json_number(epoch), "step",
                             (json_int_t)t->at.step);
    bool ok = true;
    for (size_t i = 0; i < count; i++)
        ok = ok && json_add(line, figures[i].key, figures[i].value);
    ok = ok && json_add(line, "seconds", lb_now() - pace->started) && json_add_learners(t, line);
    const lb_status status = lb_jsonl_write(t->log, ok ? line : NULL);
    json_decref(line);
    return status;
}

lb_status lb_report_epoch(lb_trainer *t, const lb_pace *pace, const lb_metrics *test, double lr, double rate) {
    const double epoch = (double)t->at.stage_step / (double)pace->epoch_steps, flips = lb_sign_flips(t);
    const lb_quant_when when = lb_trainer_when(t);
    double bits, quantized;
    weight_bits(t->net, &when, &bits, &quantized);
    say_epoch(t, pace, epoch, test, lr, rate);
    if (!t->files.dir)
        return LB_OK;
    const figure figures[] = {{"train/loss", "train_loss", running_loss(t)}, {"train/top1", "train_top1", running_top1(t)},
                              {"test/loss", "test_loss", test->loss},        {"test/top1", "test_top1", test->top1},
                              {"test/top5", "test_top5", test->top5},        {"lr", "lr", lr},
                              {"weights/bits", "weight_bits", bits},         {"weights/quantized", "quantized", quantized},
                              {"weights/sign_flips", "sign_flips", flips},   {"images_per_s", "images_per_s", rate}};
    LB_TRY(log_to_board(t, pace, figures, LB_COUNT(figures)));
    return log_to_file(t, pace, epoch, figures, LB_COUNT(figures));
}

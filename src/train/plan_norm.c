/* Norm steps of a plan: batch norm, addition, activation and quantizer in two passes each way. */
#include "train/plan_run.h"

#include <math.h>

static const void *norm_x(const lb_plan *plan, const lb_step *step) {
    return step->acc >= 0 ? lb_plan_buffer(plan, step->acc) : lb_plan_data(plan, step->src);
}

/* Real value of stored x in channel c. */
static float scale_of(const lb_plan *plan, const lb_step *step, int c) {
    return step->scale ? step->scale[c] : lb_plan_value(plan, step->src)->step;
}

static void add_sums(const lb_step *step, int c, int parts) {
    const size_t stride = lb_sums_stride(c);
    for (int t = 1; t < parts; t++)
        for (size_t i = 0; i < stride; i++)
            step->sums[i] += step->sums[(size_t)t * stride + i];
}

static bool all_equal(const float *values, int count, float wanted) {
    int i = 0;
    while (i < count && values[i] == wanted)
        i++;
    return i == count;
}

/* The running statistics into step->mean, of x, and inv = 1 / sqrt(var), of real values. */
static void running_stats(lb_plan *plan, lb_step *step, int c) {
    const lb_node *bn = &plan->net->nodes[step->bn];
    const float *mean = lb_plan_param(plan, bn->param[2]), *var = lb_plan_param(plan, bn->param[3]);
    const float *bias = step->conv >= 0 ? lb_plan_param(plan, plan->net->nodes[step->conv].param[1]) : NULL;
    for (int k = 0; k < c; k++) {
        step->mean[k] = (float)(((double)mean[k] - (bias ? (double)bias[k] : 0)) / (double)scale_of(plan, step, k));
        step->inv[k] = (float)(1 / sqrt((double)var[k] + (double)bn->u.bn.eps));
    }
}

/* Rows of a norm step's tensors. */
static void rows_of(const lb_plan *plan, const lb_step *step, const lb_image_range *images, size_t *first, size_t *last) {
    const size_t rows = plan->values[step->node].rows / (size_t)plan->options.mb;
    *first = rows * (size_t)images->first;
    *last = rows * (size_t)images->last;
}

static double *sums_of(const lb_plan *plan, const lb_step *step, const lb_image_range *images) {
    return step->sums + (size_t)images->part * lb_sums_stride(plan->values[step->node].c);
}

static void stats_images(lb_plan *plan, lb_step *step, const lb_image_range *images) {
    const lb_value *v = &plan->values[step->node];
    double *sums = sums_of(plan, step, images);
    size_t first, last;
    rows_of(plan, step, images, &first, &last);
    plan->kernels[v->type]->stats(v->type, norm_x(plan, step), v->c, first, last, sums, sums + v->c);
}

/* Of a pass that adds to step->sums. */
static void sum_images(lb_plan *plan, lb_step *step, lb_task_run *run, lb_pass pass) {
    const int c = plan->values[step->node].c;
    memset(step->sums, 0, (size_t)lb_plan_parts(plan) * lb_sums_stride(c) * sizeof *step->sums);
    lb_plan_queue(plan, run, step, pass);
    lb_plan_flush(plan);
    add_sums(step, c, lb_plan_parts(plan));
}

/* A running statistic towards a batch's. With momentum 1, as an estimate begins, nothing is left of what it was, rounding included:
 * a run that is resumed while it is tested estimates from other statistics. */
static void move(float *running, float momentum, float batch) {
    *running = momentum == 1 ? batch : *running + momentum * (batch - *running);
}

/* Batch statistics into step->mean and inv = 1 / sqrt(var), of real values; running statistics follow. A batch norm that import has
 * added is set by the first training batch so that it changes nothing. */
static void batch_stats(lb_plan *plan, lb_step *step, size_t rows, int c) {
    const lb_node *bn = &plan->net->nodes[step->bn];
    sum_images(plan, step, stats_images, LB_PASS_FORWARD);
    float *running_mean = lb_plan_param(plan, bn->param[2]), *running_var = lb_plan_param(plan, bn->param[3]);
    const float *bias = step->conv >= 0 ? lb_plan_param(plan, plan->net->nodes[step->conv].param[1]) : NULL;
    float *gamma = lb_plan_param(plan, bn->param[0]), *beta = lb_plan_param(plan, bn->param[1]);
    const float momentum = plan->stats == LB_STATS_ESTIMATE ? 1.f / (float)(plan->estimated + 1) : bn->u.bn.momentum;
    double n = (double)rows, unbias = rows > 1 ? n / (n - 1) : 1, eps = (double)bn->u.bn.eps;
    const bool calibrate =
        plan->stats == LB_STATS_TRAIN && bn->u.bn.calibrate && all_equal(running_mean, c, 0) && all_equal(running_var, c, 1);
    for (int k = 0; k < c; k++) {
        double mean = step->sums[k] / n, var = step->sums[c + k] / n - mean * mean, scale = (double)scale_of(plan, step, k);
        var = scale * scale * (var > 0 || isnan(var) ? var : 0);
        step->mean[k] = (float)mean; /* of x, before its scale */
        step->inv[k] = (float)(1 / sqrt(var + eps));
        double real_mean = scale * mean + (bias ? (double)bias[k] : 0);
        if (calibrate) {
            double slope = (double)gamma[k] / sqrt(1 + eps); /* of the function so far */
            gamma[k] = (float)(slope * sqrt(var + eps));
            beta[k] += (float)(slope * real_mean);
            running_mean[k] = (float)real_mean;
            running_var[k] = (float)(var * unbias);
            continue;
        }
        move(&running_mean[k], momentum, (float)real_mean);
        move(&running_var[k], momentum, (float)(var * unbias));
    }
}

static void norm_affine(lb_plan *plan, lb_step *step, int c) {
    const lb_net *net = plan->net;
    const float *bias = step->conv >= 0 ? lb_plan_param(plan, net->nodes[step->conv].param[1]) : NULL;
    const float *gamma = step->bn >= 0 ? lb_plan_param(plan, net->nodes[step->bn].param[0]) : NULL;
    const float *beta = step->bn >= 0 ? lb_plan_param(plan, net->nodes[step->bn].param[1]) : NULL;
    for (int k = 0; k < c; k++) {
        float scale = scale_of(plan, step, k);
        step->a[k] = gamma ? gamma[k] * step->inv[k] * scale : scale;
        step->b[k] = gamma ? beta[k] - step->a[k] * step->mean[k] : bias ? bias[k] : 0;
        if (!gamma)
            step->mean[k] = 0;
    }
}

static void norm_args(const lb_plan *plan, lb_step *step, lb_norm_args *args) {
    const lb_value *v = &plan->values[step->node];
    *args = (lb_norm_args){.type = v->type, .c = v->c, .x = norm_x(plan, step), .a = step->a, .b = step->b,
                           .dst = lb_plan_buffer(plan, v->buffer), .center = step->mean, .p = step->p, .q = step->q, .s = step->s};
    args->form.step = 1;
    if (step->residual >= 0) {
        args->residual = lb_plan_data(plan, step->residual);
        args->residual_step = lb_plan_value(plan, step->residual)->step;
    }
    if (step->act < 0)
        return;
    const lb_node *act = &plan->net->nodes[step->act];
    if (act->quant) {
        args->act = LB_NORM_QUANT;
        const lb_quant_when when = lb_plan_when(plan, step, step->act);
        lb_quant_act_form(act->quant, &when, lb_plan_param(plan, act->quant->param), &args->form);
        if (step->masked) {
            args->form.m = 1;
            args->mask = step->mask;
            args->mask_rows = v->rows / (size_t)plan->options.mb;
        }
    } else if (act->u.act.kind != LB_ACT_IDENTITY) {
        args->act = LB_NORM_CLIP;
        args->form.sur_lo = act->u.act.lo;
        args->form.sur_hi = act->u.act.hi;
    }
}

static void forward_images(lb_plan *plan, lb_step *step, const lb_image_range *images) {
    size_t first, last;
    rows_of(plan, step, images, &first, &last);
    plan->kernels[step->args.type]->norm_forward(&step->args, first, last);
}

static void backward_images(lb_plan *plan, lb_step *step, const lb_image_range *images) {
    const int c = step->args.c;
    double *sums = sums_of(plan, step, images);
    size_t first, last;
    rows_of(plan, step, images, &first, &last);
    plan->kernels[step->args.type]->norm_backward(&step->args, first, last, sums, sums + c, sums + 2 * c);
}

static void backward_x_images(lb_plan *plan, lb_step *step, const lb_image_range *images) {
    size_t first, last;
    rows_of(plan, step, images, &first, &last);
    plan->kernels[step->args.type]->norm_backward_x(&step->args, first, last);
}

static void make_mask(const lb_plan *plan, lb_step *step) {
    const lb_quant_when when = lb_plan_when(plan, step, step->act);
    const lb_node *act = &plan->net->nodes[step->act];
    step->masked = lb_quant_act_mask(act->quant, &when, (int64_t)lb_shape_count(&act->dst), step->mask);
}

lb_status lb_step_norm_forward(lb_plan *plan, lb_step *step) {
    lb_value *v = &plan->values[step->node];
    if (step->bn >= 0 && plan->stats == LB_STATS_RUNNING)
        running_stats(plan, step, v->c);
    else if (step->bn >= 0)
        batch_stats(plan, step, v->rows, v->c);
    norm_affine(plan, step, v->c);
    lb_norm_args *args = &step->args;
    if (lb_plan_must_start(plan, step->act)) {
        lb_step bare = *step;
        bare.act = -1;
        norm_args(plan, &bare, args);
        lb_plan_queue(plan, forward_images, step, LB_PASS_FORWARD);
        lb_plan_flush(plan);
        plan->kernels[v->type]->to_f32(v->type, args->dst, plan->calibration, v->rows * (size_t)v->c);
        lb_plan_start_act(plan, plan->net->nodes[step->act].quant, plan->calibration, v->rows * (size_t)v->c);
    }
    if (step->mask)
        make_mask(plan, step);
    norm_args(plan, step, args);
    lb_plan_queue(plan, forward_images, step, LB_PASS_FORWARD);
    v->step = args->act == LB_NORM_QUANT ? args->form.step : 1;
    /* Bytes would hide that a network has diverged. */
    const bool finite = lb_all_finite(step->a, v->c) && lb_all_finite(step->b, v->c);
    v->reach = args->act == LB_NORM_QUANT && !step->masked && finite ? lb_plan_reach(&args->form) : 0;
    return LB_OK;
}

static void norm_params_backward(lb_plan *plan, lb_step *step, size_t rows, int c, const lb_act_form *form, float *diff) {
    const lb_net *net = plan->net;
    const double *sum_dz = step->sums, *sum_dz_x = step->sums + c;
    float *dgamma = step->bn >= 0 ? diff + net->params[net->nodes[step->bn].param[0]].offset : NULL;
    float *dbeta = step->bn >= 0 ? diff + net->params[net->nodes[step->bn].param[1]].offset : NULL;
    int bias = step->conv >= 0 ? net->nodes[step->conv].param[1] : -1;
    for (int k = 0; k < c; k++) {
        double a = (double)step->a[k], n = (double)rows;
        step->p[k] = step->a[k];
        step->q[k] = step->s[k] = 0;
        if (dgamma) {
            double x_hat = (double)scale_of(plan, step, k) * (double)step->inv[k]; /* per unit of x - mean */
            double dg = x_hat * sum_dz_x[k];
            dgamma[k] = (float)dg;
            dbeta[k] = (float)sum_dz[k];
            step->q[k] = (float)(-a * x_hat * dg / n);
            step->s[k] = (float)(-a * sum_dz[k] / n);
        } else if (bias >= 0) {
            diff[net->params[bias].offset + (size_t)k] = (float)sum_dz[k];
        }
    }
    const lb_quant *q = step->act >= 0 ? net->nodes[step->act].quant : NULL;
    if (q && q->param >= 0 && form->learn != LB_LEARN_NOTHING)
        for (int p = 0; p < lb_quant_nparams(&q->spec); p++)
            diff[net->params[q->param + p].offset] += (float)(step->sums[2 * c + p] * (double)form->learn_scale);
}

void lb_step_norm_backward(lb_plan *plan, lb_step *step, float *diff) {
    lb_value *v = &plan->values[step->node];
    lb_norm_args *args = &step->args;
    norm_args(plan, step, args);
    args->ngrads = v->ngrads;
    lb_plan_grads(plan, v, 1, 1 / v->step, args->grad, args->factor);
    args->dz = lb_plan_buffer(plan, step->dz);
    sum_images(plan, step, backward_images, LB_PASS_BACKWARD_DATA);
    norm_params_backward(plan, step, v->rows, v->c, &args->form, diff);
    if (step->acc < 0 && step->dx < 0)
        return;
    args->dx = lb_plan_buffer(plan, step->acc >= 0 ? step->acc : step->dx);
    lb_plan_queue(plan, backward_x_images, step, LB_PASS_BACKWARD_DATA);
}

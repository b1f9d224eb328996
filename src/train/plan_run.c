/* Running a plan: forward and backward, step by step. */
#include "train/plan.h"

#include <assert.h>
#include <math.h>
#include <omp.h>

static lb_value *value_of(const lb_plan *plan, int node) { return &plan->values[plan->root[node]]; }
static void *data_of(const lb_plan *plan, int node) { return lb_plan_buffer(plan, value_of(plan, node)->buffer); }
static float *param_of(const lb_plan *plan, int param) { return param < 0 ? NULL : lb_param_values(plan->net, param); }

/* Rows [*first, *last) of thread `t` of `n`. */
static void share(size_t rows, int t, int n, size_t *first, size_t *last) {
    *first = rows * (size_t)t / (size_t)n;
    *last = rows * ((size_t)t + 1) / (size_t)n;
}

/* A seed for the random numbers of one tensor. */
static uint64_t seed_of(const lb_plan *plan, int node) { return plan->options.seed ^ (uint64_t)(node + 1) * 0x9e3779b97f4a7c15u; }

/* This step, for one tensor. */
static lb_quant_when when_of(const lb_plan *plan, int node) {
    lb_quant_when when = plan->when;
    when.seed = seed_of(plan, node);
    when.run_seed = plan->options.seed;
    return when;
}

/* This thread's part of the quantizers' scratch. */
static float *work_of(const lb_plan *plan) { return plan->work + (size_t)omp_get_thread_num() * plan->work_stride; }

/* ---- Weights ------------------------------------------------------------------------------------------------------------ */

void lb_plan_init_weights(lb_net *net) {
    for (int i = 0; i < net->nnodes; i++) {
        lb_node *node = &net->nodes[i];
        if (!lb_is_layer(node) || !node->quant || node->quant->initialised)
            continue;
        lb_quant *q = node->quant;
        const lb_param *w = &net->params[node->param[0]];
        if (lb_quant_nparams(&q->spec))
            q->spec.quantizer->init(&q->spec, lb_param_values(net, node->param[0]), (int)w->dims[0], (int64_t)w->count / w->dims[0],
                                    lb_param_values(net, q->param));
        q->initialised = true;
    }
}

static void quantize_weights(lb_plan *plan) {
    const lb_net *net = plan->net;
#pragma omp parallel for schedule(dynamic) num_threads(plan->threads)
    for (int i = 0; i < plan->nsteps; i++) {
        const lb_step *s = &plan->steps[i];
        if (s->kind != LB_STEP_CONV)
            continue;
        const lb_node *node = &net->nodes[s->node];
        const lb_param *w = &net->params[node->param[0]];
        const lb_quant *q = node->quant;
        const float *master = net->values + w->offset;
        float *steps = plan->filter_steps + w->offset;
        const lb_quant_when when = when_of(plan, s->node);
        if (q)
            lb_quant_weights_forward(q, &when, param_of(plan, q->param), master, (int)w->dims[0], (int64_t)w->count / w->dims[0],
                                     steps, plan->weights + w->offset, work_of(plan));
        else
            for (int64_t k = 0; k < w->dims[0]; k++)
                steps[k] = 1;
    }
}

static lb_status conv_forward(lb_plan *plan, lb_step *step) {
    const lb_net *net = plan->net;
    const lb_node *node = &net->nodes[step->node];
    const lb_param *w = &net->params[node->param[0]];
    const float *weights = node->quant ? plan->weights : net->values;
    lb_value *src = value_of(plan, step->src);
    LB_TRY(lb_conv_set_weights(step->prims, weights + w->offset, src->reach));
    lb_lap(plan->laps, LB_LAP_WEIGHTS, LB_PASS_FORWARD);
    LB_TRY(lb_conv_forward(step->prims, lb_plan_buffer(plan, src->buffer), lb_plan_buffer(plan, step->acc)));
    for (int k = 0; k < node->dst.c; k++)
        step->scale[k] = src->step * plan->filter_steps[w->offset + (size_t)k];
    return LB_OK;
}

static lb_status conv_backward(lb_plan *plan, lb_step *step) {
    const lb_param *w = &plan->net->params[plan->net->nodes[step->node].param[0]];
    const lb_value *src = value_of(plan, step->src);
    const void *diff = lb_plan_buffer(plan, step->acc);
    if (step->workspace >= 0) { /* f32 accumulator, bf16 source */
        size_t count = (size_t)plan->options.mb * lb_shape_count(&plan->net->nodes[step->node].dst);
        void *narrow = lb_plan_buffer(plan, step->workspace);
        plan->kernels[src->type]->from_f32(src->type, diff, narrow, count);
        diff = narrow;
    }
    LB_TRY(lb_conv_backward_weights(step->prims, lb_plan_buffer(plan, src->buffer), diff, plan->diff_weights + w->offset));
    lb_lap(plan->laps, LB_LAP_STEPS + (int)(step - plan->steps), LB_PASS_BACKWARD_WEIGHTS);
    return step->dx >= 0 ? lb_conv_backward_data(step->prims, diff, lb_plan_buffer(plan, step->dx)) : LB_OK;
}

/* dL/du^ of every layer to dL/du of its master weights and learned parameters. */
static void weights_backward(lb_plan *plan, float *diff) {
    const lb_net *net = plan->net;
#pragma omp parallel for schedule(dynamic) num_threads(plan->threads)
    for (int i = 0; i < plan->nsteps; i++) {
        const lb_step *s = &plan->steps[i];
        if (s->kind != LB_STEP_CONV)
            continue;
        const lb_node *node = &net->nodes[s->node];
        const lb_param *w = &net->params[node->param[0]];
        const lb_quant *q = node->quant;
        float *dw = plan->diff_weights + w->offset;
        if (!q) {
            memcpy(diff + w->offset, dw, w->count * sizeof *dw);
            continue;
        }
        const float *steps = plan->filter_steps + w->offset;
        int64_t fan_in = (int64_t)w->count / w->dims[0];
        for (int64_t k = 0; k < w->dims[0]; k++) {
            float inv = 1 / steps[k];
            for (int64_t e = 0; e < fan_in; e++)
                dw[k * fan_in + e] *= inv;
        }
        const lb_quant_when when = when_of(plan, s->node);
        lb_quant_weights_backward(q, &when, param_of(plan, q->param), net->values + w->offset, (int)w->dims[0], fan_in, steps, dw,
                                  diff + w->offset, q->param < 0 ? NULL : diff + net->params[q->param].offset, work_of(plan));
    }
}

/* ---- Norm: batch norm + add + activation + quantizer in two passes each way -------------------------------------------- */

static const void *norm_x(const lb_plan *plan, const lb_step *step) {
    return step->acc >= 0 ? lb_plan_buffer(plan, step->acc) : data_of(plan, step->src);
}

/* Real value of stored x in channel c. */
static float scale_of(const lb_plan *plan, const lb_step *step, int c) {
    return step->scale ? step->scale[c] : value_of(plan, step->src)->step;
}

static void add_sums(const lb_step *step, int c, int threads) {
    const size_t stride = lb_sums_stride(c);
    for (int t = 1; t < threads; t++)
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
    const float *mean = param_of(plan, bn->param[2]), *var = param_of(plan, bn->param[3]);
    const float *bias = step->conv >= 0 ? param_of(plan, plan->net->nodes[step->conv].param[1]) : NULL;
    for (int k = 0; k < c; k++) {
        step->mean[k] = (float)(((double)mean[k] - (bias ? (double)bias[k] : 0)) / (double)scale_of(plan, step, k));
        step->inv[k] = (float)(1 / sqrt((double)var[k] + (double)bn->u.bn.eps));
    }
}

/* Sums of x and its squares over a batch into step->sums. */
static void sum_batch(lb_plan *plan, lb_step *step, size_t rows, int c, lb_dtype type) {
    const size_t stride = lb_sums_stride(c);
    const void *x = norm_x(plan, step);
    int threads = 1;
    memset(step->sums, 0, (size_t)plan->threads * stride * sizeof *step->sums);
#pragma omp parallel num_threads(plan->threads)
    {
        size_t first, last;
        int t = omp_get_thread_num();
        share(rows, t, omp_get_num_threads(), &first, &last);
        double *sums = step->sums + (size_t)t * stride;
        plan->kernels[type]->stats(type, x, c, first, last, sums, sums + c);
#pragma omp single nowait
        threads = omp_get_num_threads();
    }
    add_sums(step, c, threads);
}

/* Batch statistics into step->mean and inv = 1 / sqrt(var), of real values; running statistics follow. A batch norm that import has
 * added is set by the first training batch so that it changes nothing. */
static void batch_stats(lb_plan *plan, lb_step *step, size_t rows, int c, lb_dtype type) {
    const lb_node *bn = &plan->net->nodes[step->bn];
    sum_batch(plan, step, rows, c, type);
    float *running_mean = param_of(plan, bn->param[2]), *running_var = param_of(plan, bn->param[3]);
    const float *bias = step->conv >= 0 ? param_of(plan, plan->net->nodes[step->conv].param[1]) : NULL;
    float *gamma = param_of(plan, bn->param[0]), *beta = param_of(plan, bn->param[1]);
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
        running_mean[k] += momentum * ((float)real_mean - running_mean[k]);
        running_var[k] += momentum * ((float)(var * unbias) - running_var[k]);
    }
}

static void norm_affine(lb_plan *plan, lb_step *step, int c) {
    const lb_net *net = plan->net;
    const float *bias = step->conv >= 0 ? param_of(plan, net->nodes[step->conv].param[1]) : NULL;
    const float *gamma = step->bn >= 0 ? param_of(plan, net->nodes[step->bn].param[0]) : NULL;
    const float *beta = step->bn >= 0 ? param_of(plan, net->nodes[step->bn].param[1]) : NULL;
    for (int k = 0; k < c; k++) {
        float scale = scale_of(plan, step, k);
        step->a[k] = gamma ? gamma[k] * step->inv[k] * scale : scale;
        step->b[k] = gamma ? beta[k] - step->a[k] * step->mean[k] : bias ? bias[k] : 0;
        if (!gamma)
            step->mean[k] = 0;
    }
}

static void norm_args(const lb_plan *plan, const lb_step *step, lb_norm_args *args) {
    const lb_value *v = &plan->values[step->node];
    *args = (lb_norm_args){.type = v->type, .c = v->c, .x = norm_x(plan, step), .a = step->a, .b = step->b,
                           .dst = lb_plan_buffer(plan, v->buffer), .center = step->mean, .p = step->p, .q = step->q, .s = step->s};
    args->form.step = 1;
    if (step->residual >= 0) {
        args->residual = data_of(plan, step->residual);
        args->residual_step = value_of(plan, step->residual)->step;
    }
    if (step->act < 0)
        return;
    const lb_node *act = &plan->net->nodes[step->act];
    if (act->quant) {
        args->act = LB_NORM_QUANT;
        const lb_quant_when when = when_of(plan, step->act);
        lb_quant_act_form(act->quant, &when, param_of(plan, act->quant->param), &args->form);
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

static void run_norm_forward(const lb_plan *plan, const lb_norm_args *args, size_t rows) {
#pragma omp parallel num_threads(plan->threads)
    {
        size_t first, last;
        share(rows, omp_get_thread_num(), omp_get_num_threads(), &first, &last);
        plan->kernels[args->type]->norm_forward(args, first, last);
    }
}

/* First batch: the learned parameters of an activation quantizer start from what enters it. */
static void start_quantizer(lb_plan *plan, lb_quant *q, const float *z, size_t count) {
    q->spec.quantizer->init(&q->spec, z, 1, (int64_t)count, param_of(plan, q->param));
    q->initialised = true;
}

static bool must_start(const lb_plan *plan, int act) {
    const lb_quant *q = act < 0 ? NULL : plan->net->nodes[act].quant;
    return q && lb_quant_nparams(&q->spec) && !q->initialised;
}

static void make_mask(const lb_plan *plan, lb_step *step) {
    const lb_quant_when when = when_of(plan, step->act);
    const lb_node *act = &plan->net->nodes[step->act];
    step->masked = lb_quant_act_mask(act->quant, &when, (int64_t)lb_shape_count(&act->dst), step->mask);
}

static bool finite_all(const float *values, int count) {
    for (int i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* Largest magnitude of the codes; 0: something else is mixed in. */
static float reach_of(const lb_act_form *form) {
    return form->m != 1 ? 0 : form->sign ? 1 : LB_MAX(-form->lo, form->hi);
}

static lb_status norm_forward(lb_plan *plan, lb_step *step) {
    lb_value *v = &plan->values[step->node];
    if (step->bn >= 0 && plan->stats == LB_STATS_RUNNING)
        running_stats(plan, step, v->c);
    else if (step->bn >= 0)
        batch_stats(plan, step, v->rows, v->c, v->type);
    norm_affine(plan, step, v->c);
    lb_norm_args args;
    if (must_start(plan, step->act)) {
        lb_step bare = *step;
        bare.act = -1;
        norm_args(plan, &bare, &args);
        run_norm_forward(plan, &args, v->rows);
        plan->kernels[v->type]->to_f32(v->type, args.dst, plan->calibration, v->rows * (size_t)v->c);
        start_quantizer(plan, plan->net->nodes[step->act].quant, plan->calibration, v->rows * (size_t)v->c);
    }
    if (step->mask)
        make_mask(plan, step);
    norm_args(plan, step, &args);
    run_norm_forward(plan, &args, v->rows);
    v->step = args.act == LB_NORM_QUANT ? args.form.step : 1;
    const bool finite = finite_all(step->a, v->c) && finite_all(step->b, v->c); /* bytes would hide that a network has diverged */
    v->reach = args.act == LB_NORM_QUANT && !step->masked && finite ? reach_of(&args.form) : 0;
    return LB_OK;
}

static void collect_grads(const lb_plan *plan, const lb_value *v, float real, float stored, const void **grad, float *factor) {
    for (int i = 0; i < v->ngrads; i++) {
        grad[i] = lb_plan_buffer(plan, v->grad[i].buffer);
        factor[i] = v->grad[i].real ? real : stored;
    }
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

static void norm_backward(lb_plan *plan, lb_step *step, float *diff) {
    lb_value *v = &plan->values[step->node];
    const size_t stride = lb_sums_stride(v->c);
    lb_norm_args args;
    norm_args(plan, step, &args);
    args.ngrads = v->ngrads;
    collect_grads(plan, v, 1, 1 / v->step, args.grad, args.factor);
    args.dz = lb_plan_buffer(plan, step->dz);
    int threads = 1;
    memset(step->sums, 0, (size_t)plan->threads * stride * sizeof *step->sums);
#pragma omp parallel num_threads(plan->threads)
    {
        size_t first, last;
        int t = omp_get_thread_num();
        share(v->rows, t, omp_get_num_threads(), &first, &last);
        double *sums = step->sums + (size_t)t * stride;
        plan->kernels[args.type]->norm_backward(&args, first, last, sums, sums + v->c, sums + 2 * v->c);
#pragma omp single nowait
        threads = omp_get_num_threads();
    }
    add_sums(step, v->c, threads);
    norm_params_backward(plan, step, v->rows, v->c, &args.form, diff);
    if (step->acc < 0 && step->dx < 0)
        return;
    args.dx = lb_plan_buffer(plan, step->acc >= 0 ? step->acc : step->dx);
#pragma omp parallel num_threads(plan->threads)
    {
        size_t first, last;
        share(v->rows, omp_get_thread_num(), omp_get_num_threads(), &first, &last);
        plan->kernels[args.type]->norm_backward_x(&args, first, last);
    }
}

/* ---- The other steps ------------------------------------------------------------------------------------------------------ */

static void input_forward(lb_plan *plan, lb_step *step, const uint8_t *pixels) {
    lb_value *v = &plan->values[step->node];
    int c = v->c;
    size_t count = v->rows * (size_t)c;
    float table[4 * 256];
    for (int k = 0; k < c; k++) {
        float a = (float)(1 / (255.0 * (double)plan->std[k])), b = (float)(-(double)plan->mean[k] / (double)plan->std[k]);
        for (int p = 0; p < 256; p++)
            table[k * 256 + p] = (float)p * a + b;
    }
    if (must_start(plan, step->act)) {
        for (size_t i = 0; i < count; i++)
            plan->calibration[i] = table[i % (size_t)c * 256 + pixels[i]];
        start_quantizer(plan, plan->net->nodes[step->act].quant, plan->calibration, count);
    }
    if (step->act >= 0) {
        const lb_quant *q = plan->net->nodes[step->act].quant;
        lb_act_form form;
        const lb_quant_when when = when_of(plan, step->act);
        lb_quant_act_form(q, &when, param_of(plan, q->param), &form);
        for (int i = 0; i < c * 256; i++)
            table[i] = lb_act_forward_ref(&form, table[i]);
        v->step = form.step;
        v->reach = reach_of(&form);
    }
    uint16_t narrow[4 * 256];
    plan->kernels[LB_BF16]->from_f32(LB_BF16, table, narrow, (size_t)c * 256);
    uint32_t *wide_dst = lb_plan_buffer(plan, v->buffer);
    uint16_t *narrow_dst = lb_plan_buffer(plan, v->buffer);
    float *dst = (float *)wide_dst;
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < v->rows; row++)
        for (int k = 0; k < c; k++) {
            size_t i = row * (size_t)c + (size_t)k;
            if (v->type == LB_F32)
                dst[i] = table[k * 256 + pixels[i]];
            else
                narrow_dst[i] = narrow[k * 256 + pixels[i]];
        }
}

/* Multiplies by 1 / (1 - ratio) or 0: one number of Philox's four for each of four neighbours. `at` is the first's index. */
enum { DROP_BLOCK = 64 };
LB_CLONES static void drop_block(uint64_t seed, uint64_t step, size_t at, float ratio, float values[DROP_BLOCK]) {
    const float keep = 1 / (1 - ratio);
    uint32_t bits[4][DROP_BLOCK / 4];
    lb_rng4_many(seed, LB_RNG_DROPOUT, step, at, 4, DROP_BLOCK / 4, bits[0]);
    for (int i = 0; i < DROP_BLOCK / 4; i++)
        for (int k = 0; k < 4; k++)
            values[4 * i + k] *= lb_uniform(bits[k][i]) < ratio ? 0 : keep;
}

/* The same numbers forward and backward. */
static void dropout(const lb_plan *plan, const lb_step *step, const lb_value *v, const void *src, void *dst) {
    const float ratio = plan->net->nodes[step->node].u.dropout.ratio;
    size_t count = v->rows * (size_t)v->c;
    uint64_t seed = seed_of(plan, step->node);
#pragma omp parallel for num_threads(plan->threads)
    for (size_t block = 0; block < (count + DROP_BLOCK - 1) / DROP_BLOCK; block++) {
        float values[DROP_BLOCK] = {0};
        size_t at = block * DROP_BLOCK, n = LB_MIN((size_t)DROP_BLOCK, count - at), bytes = lb_dtype_size(v->type);
        plan->kernels[v->type]->to_f32(v->type, (const unsigned char *)src + at * bytes, values, n);
        drop_block(seed, (uint64_t)plan->when.step, at, ratio, values);
        plan->kernels[v->type]->from_f32(v->type, values, (unsigned char *)dst + at * bytes, n);
    }
}

enum { REAL_BLOCK = 64 };

static void read_block(const lb_plan *plan, lb_dtype type, const void *data, size_t at, size_t n, float scale, float *block) {
    plan->kernels[type]->to_f32(type, (const unsigned char *)data + at * lb_dtype_size(type), block, n);
    for (size_t i = 0; i < n; i++)
        block[i] *= scale;
}

static void add_row(const lb_plan *plan, lb_dtype type, const unsigned char *from, unsigned char *to, int count) {
    for (int k = 0; k < count; k += REAL_BLOCK) {
        float a[REAL_BLOCK], b[REAL_BLOCK];
        const size_t n = (size_t)LB_MIN((int)REAL_BLOCK, count - k), at = (size_t)k * lb_dtype_size(type);
        read_block(plan, type, from + at, 0, n, 1, a);
        read_block(plan, type, to + at, 0, n, 1, b);
        for (size_t i = 0; i < n; i++)
            b[i] += a[i];
        plan->kernels[type]->from_f32(type, b, to + at, n);
    }
}

/* dst[y][x] = runs of channels of src[rows[y]][cols[x]], 0 elsewhere; backward the other way round. */
static void shortcut_pad(const lb_plan *plan, const lb_step *step, lb_dtype type, bool backward, const void *from, void *to) {
    const lb_node *node = &plan->net->nodes[step->node];
    const lb_shape *s = lb_src_shape(plan->net, node, 0), *d = &node->dst;
    const int *rows = node->u.shortcutpad.rows, *cols = node->u.shortcutpad.cols;
    const bool adds = backward && node->u.shortcutpad.repeats;
    const size_t bytes = lb_dtype_size(type);
    size_t src_row = (size_t)s->c * bytes, dst_row = (size_t)d->c * bytes;
    size_t to_bytes = (size_t)plan->options.mb * lb_shape_count(backward ? s : d) * bytes;
    memset(to, 0, to_bytes);
#pragma omp parallel for num_threads(plan->threads)
    for (int n = 0; n < plan->options.mb; n++)
        for (int y = 0; y < d->h; y++)
            for (int x = 0; x < d->w; x++) {
                if (rows[y] < 0 || cols[x] < 0)
                    continue;
                size_t si = (((size_t)n * (size_t)s->h + (size_t)rows[y]) * (size_t)s->w + (size_t)cols[x]) * src_row;
                size_t di = (((size_t)n * (size_t)d->h + (size_t)y) * (size_t)d->w + (size_t)x) * dst_row;
                for (int p = 0; p < node->u.shortcutpad.nparts; p++) {
                    const lb_part *part = &node->u.shortcutpad.parts[p];
                    const size_t s_at = si + (size_t)part->src * bytes, d_at = di + (size_t)part->dst * bytes;
                    unsigned char *put = (unsigned char *)to + (backward ? s_at : d_at);
                    const unsigned char *get = (const unsigned char *)from + (backward ? d_at : s_at);
                    if (adds)
                        add_row(plan, type, get, put, part->count);
                    else
                        memcpy(put, get, (size_t)part->count * bytes);
                }
            }
}

/* dst[row] = the sources' rows one after the other, as real numbers; backward the other way round. */
static void concat(const lb_plan *plan, const lb_step *step, bool backward, unsigned char *all) {
    const lb_node *node = &plan->net->nodes[step->node];
    const lb_value *v = &plan->values[step->node];
    const size_t bytes = lb_dtype_size(v->type);
    size_t at = 0;
    for (int s = 0; s < node->nsrc; s++) {
        const lb_value *src = value_of(plan, node->src[s]);
        const int dx = s ? step->more_dx[s - 1] : step->dx;
        const size_t c = (size_t)src->c;
        unsigned char *own = backward ? dx < 0 ? NULL : lb_plan_buffer(plan, dx) : data_of(plan, node->src[s]);
#pragma omp parallel for num_threads(plan->threads)
        for (size_t row = 0; row < (own ? v->rows : 0); row++) {
            unsigned char *joined = all + (row * (size_t)v->c + at) * bytes, *single = own + row * c * bytes;
            unsigned char *to = backward ? single : joined;
            const unsigned char *from = backward ? joined : single;
            if (src->step == 1) {
                memcpy(to, from, c * bytes);
                continue;
            }
            for (size_t k = 0; k < c; k += REAL_BLOCK) {
                float block[REAL_BLOCK];
                const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
                read_block(plan, v->type, from, k, n, src->step, block);
                plan->kernels[v->type]->from_f32(v->type, block, to + k * bytes, n);
            }
        }
        at += c;
    }
}

/* ---- Functions and products, in real numbers ----------------------------------------------------------------------------- */

/* The product's second source: one row for each pixel, or one for all of an image's. */
static size_t other_row(const lb_plan *plan, const lb_step *step, size_t row) {
    const lb_value *v = &plan->values[step->node], *other = value_of(plan, step->residual);
    return other->rows == v->rows ? row : row / (v->rows / other->rows);
}

static void real_forward(const lb_plan *plan, const lb_step *step) {
    const lb_value *v = &plan->values[step->node], *src = value_of(plan, step->src);
    const lb_node *node = &plan->net->nodes[step->node];
    const size_t c = (size_t)v->c;
    unsigned char *dst = lb_plan_buffer(plan, v->buffer);
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < v->rows; row++)
        for (size_t k = 0; k < c; k += REAL_BLOCK) {
            float a[REAL_BLOCK], b[REAL_BLOCK];
            const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
            read_block(plan, v->type, data_of(plan, step->src), row * c + k, n, src->step, a);
            if (step->residual >= 0)
                read_block(plan, v->type, data_of(plan, step->residual), other_row(plan, step, row) * c + k, n,
                           value_of(plan, step->residual)->step, b);
            for (size_t i = 0; i < n; i++)
                a[i] = step->residual >= 0 ? a[i] * b[i] : lb_func_value(node, lb_func_alpha(plan->net, node, k + i), a[i]);
            plan->kernels[v->type]->from_f32(v->type, a, dst + (row * c + k) * lb_dtype_size(v->type), n);
        }
}

/* The gradient of the first source: dz times the derivative, or times the other factor. */
static void real_backward_first(const lb_plan *plan, const lb_step *step, const void *dz, unsigned char *dx) {
    const lb_value *v = &plan->values[step->node], *src = value_of(plan, step->src);
    const lb_node *node = &plan->net->nodes[step->node];
    const size_t c = (size_t)v->c;
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < v->rows; row++)
        for (size_t k = 0; k < c; k += REAL_BLOCK) {
            float a[REAL_BLOCK], g[REAL_BLOCK];
            const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
            read_block(plan, v->type, dz, row * c + k, n, src->step, g);
            if (step->residual >= 0)
                read_block(plan, v->type, data_of(plan, step->residual), other_row(plan, step, row) * c + k, n,
                           value_of(plan, step->residual)->step, a);
            else
                read_block(plan, v->type, data_of(plan, step->src), row * c + k, n, src->step, a);
            for (size_t i = 0; i < n; i++)
                g[i] *= step->residual >= 0 ? a[i] : lb_func_slope(node, lb_func_alpha(plan->net, node, k + i), a[i]);
            plan->kernels[v->type]->from_f32(v->type, g, dx + (row * c + k) * lb_dtype_size(v->type), n);
        }
}

/* Of a leaky function's slopes: dz times what is negative, over all rows. */
static void slopes_backward(const lb_plan *plan, const lb_step *step, const void *dz, float *diff) {
    const lb_value *v = &plan->values[step->node], *src = value_of(plan, step->src);
    const size_t c = (size_t)v->c;
#pragma omp parallel for num_threads(plan->threads)
    for (size_t k = 0; k < c; k += REAL_BLOCK) {
        float a[REAL_BLOCK], g[REAL_BLOCK];
        double sum[REAL_BLOCK] = {0};
        const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
        for (size_t row = 0; row < v->rows; row++) {
            read_block(plan, v->type, dz, row * c + k, n, 1, g);
            read_block(plan, v->type, data_of(plan, step->src), row * c + k, n, src->step, a);
            for (size_t i = 0; i < n; i++)
                sum[i] += a[i] < 0 ? (double)a[i] * (double)g[i] : 0;
        }
        for (size_t i = 0; i < n; i++)
            diff[k + i] += (float)sum[i];
    }
}

/* That of the second: summed over the pixels that it was multiplied with. */
static void real_backward_second(const lb_plan *plan, const lb_step *step, const void *dz, unsigned char *dx) {
    const lb_value *v = &plan->values[step->node], *src = value_of(plan, step->src), *other = value_of(plan, step->residual);
    const size_t c = (size_t)v->c, pixels = v->rows / other->rows;
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < other->rows; row++)
        for (size_t k = 0; k < c; k += REAL_BLOCK) {
            float a[REAL_BLOCK], g[REAL_BLOCK], sum[REAL_BLOCK] = {0};
            const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
            for (size_t p = row * pixels; p < (row + 1) * pixels; p++) {
                read_block(plan, v->type, dz, p * c + k, n, other->step, g);
                read_block(plan, v->type, data_of(plan, step->src), p * c + k, n, src->step, a);
                for (size_t i = 0; i < n; i++)
                    sum[i] += a[i] * g[i];
            }
            plan->kernels[v->type]->from_f32(v->type, sum, dx + (row * c + k) * lb_dtype_size(v->type), n);
        }
}

static lb_status plain_forward(lb_plan *plan, lb_step *step) {
    lb_value *v = &plan->values[step->node];
    const void *src = data_of(plan, step->src);
    void *dst = lb_plan_buffer(plan, v->buffer);
    if (step->kind == LB_STEP_REAL || step->kind == LB_STEP_CONCAT) {
        v->step = 1;
        if (step->kind == LB_STEP_REAL)
            real_forward(plan, step);
        else
            concat(plan, step, false, dst);
        return LB_OK;
    }
    v->step = value_of(plan, step->src)->step;
    const bool keeps = step->kind == LB_STEP_PAD || plan->net->nodes[step->node].op == LB_OP_MAXPOOL;
    v->reach = keeps ? value_of(plan, step->src)->reach : 0;
    if (step->kind == LB_STEP_POOL)
        return lb_pool_forward(step->pool, src, dst, step->workspace >= 0 ? lb_plan_buffer(plan, step->workspace) : NULL);
    if (step->kind == LB_STEP_PAD)
        shortcut_pad(plan, step, v->type, false, src, dst);
    else if (plan->when.evaluation)
        memcpy(dst, src, v->rows * (size_t)v->c * lb_dtype_size(v->type));
    else
        dropout(plan, step, v, src, dst);
    return LB_OK;
}

static lb_status plain_backward(lb_plan *plan, lb_step *step, float *diff) {
    lb_value *v = &plan->values[step->node];
    const void *grad[LB_MAX_GRADS];
    float factor[LB_MAX_GRADS];
    void *sum = lb_plan_buffer(plan, step->grad), *dx = step->dx < 0 ? NULL : lb_plan_buffer(plan, step->dx);
    collect_grads(plan, v, v->step, 1, grad, factor); /* all in stored units */
#pragma omp parallel num_threads(plan->threads)
    {
        size_t first, last;
        share(v->rows * (size_t)v->c, omp_get_thread_num(), omp_get_num_threads(), &first, &last);
        plan->kernels[v->type]->sum(v->type, v->ngrads, grad, factor, sum, first, last);
    }
    if (step->kind == LB_STEP_CONCAT) {
        concat(plan, step, true, sum);
        return LB_OK;
    }
    if (step->kind == LB_STEP_REAL) {
        const int slopes = plan->net->nodes[step->node].param[0];
        if (slopes >= 0)
            slopes_backward(plan, step, sum, diff + plan->net->params[slopes].offset);
        if (step->residual >= 0 && step->more_dx[0] >= 0)
            real_backward_second(plan, step, sum, lb_plan_buffer(plan, step->more_dx[0]));
        if (dx)
            real_backward_first(plan, step, sum, dx);
        return LB_OK;
    }
    if (step->kind == LB_STEP_POOL)
        return lb_pool_backward(step->pool, sum, dx, step->workspace >= 0 ? lb_plan_buffer(plan, step->workspace) : NULL);
    if (step->kind == LB_STEP_DROPOUT)
        dropout(plan, step, v, sum, dx);
    else
        shortcut_pad(plan, step, v->type, true, sum, dx);
    return LB_OK;
}

/* ---- All of it --------------------------------------------------------------------------------------------------------------- */

static lb_status forward(lb_plan *plan, const uint8_t *pixels, const lb_quant_when *when, lb_plan_stats stats) {
    plan->when = *when;
    plan->stats = stats;
    quantize_weights(plan);
    lb_lap(plan->laps, LB_LAP_WEIGHTS, LB_PASS_FORWARD);
    for (int i = 0; i < plan->nsteps; i++) {
        lb_step *step = &plan->steps[i];
        if (step->kind == LB_STEP_INPUT)
            input_forward(plan, step, pixels);
        else if (step->kind == LB_STEP_CONV)
            LB_TRY(conv_forward(plan, step));
        else if (step->kind == LB_STEP_NORM)
            LB_TRY(norm_forward(plan, step));
        else
            LB_TRY(plain_forward(plan, step));
        lb_lap(plan->laps, LB_LAP_STEPS + i, LB_PASS_FORWARD);
    }
    const lb_value *output = value_of(plan, plan->net->nnodes - 1);
    size_t count = output->rows * (size_t)output->c;
    plan->kernels[output->type]->to_f32(output->type, lb_plan_buffer(plan, output->buffer), plan->logits, count);
    for (size_t i = 0; output->step != 1 && i < count; i++)
        plan->logits[i] *= output->step;
    return LB_OK;
}

lb_status lb_plan_forward(lb_plan *plan, const uint8_t *pixels, const lb_quant_when *when) {
    assert(!plan->options.inference);
    return forward(plan, pixels, when, LB_STATS_TRAIN);
}

lb_status lb_plan_infer(lb_plan *plan, const uint8_t *pixels) {
    return forward(plan, pixels, &lb_quant_evaluation, LB_STATS_RUNNING);
}

lb_status lb_plan_estimate(lb_plan *plan, const uint8_t *pixels, int64_t index) {
    assert(!plan->options.inference);
    plan->estimated = index;
    return forward(plan, pixels, &lb_quant_evaluation, LB_STATS_ESTIMATE);
}

size_t lb_plan_tap_count(const lb_plan *plan, int k) {
    const lb_value *v = &plan->values[plan->taps[k].node];
    return v->rows * (size_t)v->c;
}

void lb_plan_tap_read(const lb_plan *plan, int k, size_t first, size_t count, float *dst) {
    const lb_value *v = &plan->values[plan->taps[k].node];
    const unsigned char *src = lb_plan_buffer(plan, v->buffer);
    plan->kernels[v->type]->to_f32(v->type, src + first * lb_dtype_size(v->type), dst, count);
    for (size_t i = 0; v->step != 1 && i < count; i++)
        dst[i] *= v->step;
}

void lb_plan_tap_write(const lb_plan *plan, int k, size_t first, size_t count, const float *diff) {
    const lb_value *v = &plan->values[plan->taps[k].node];
    unsigned char *dst = lb_plan_buffer(plan, plan->taps[k].diff);
    plan->kernels[v->type]->from_f32(v->type, diff, dst + first * lb_dtype_size(v->type), count);
}

lb_status lb_plan_backward(lb_plan *plan, float *diff) {
    const lb_value *output = value_of(plan, plan->net->nnodes - 1);
    memset(diff, 0, plan->net->nvalues * sizeof *diff);
    plan->kernels[output->type]->from_f32(output->type, plan->diff_logits, lb_plan_buffer(plan, plan->diff_output),
                            output->rows * (size_t)output->c);
    for (int i = plan->nsteps - 1; i >= 0; i--) {
        lb_step *step = &plan->steps[i];
        if (step->kind == LB_STEP_CONV)
            LB_TRY(conv_backward(plan, step));
        else if (step->kind == LB_STEP_NORM && step->dz >= 0)
            norm_backward(plan, step, diff);
        else if (step->kind != LB_STEP_INPUT && step->kind != LB_STEP_NORM && step->grad >= 0)
            LB_TRY(plain_backward(plan, step, diff));
        lb_lap(plan->laps, LB_LAP_STEPS + i, LB_PASS_BACKWARD_DATA);
    }
    weights_backward(plan, diff);
    lb_lap(plan->laps, LB_LAP_WEIGHTS, LB_PASS_BACKWARD_WEIGHTS);
    return LB_OK;
}

/* A convolution's accumulators; they live until its backward step. */
static bool finite_acc(const lb_plan *plan, const lb_step *step, size_t count) {
    float block[256];
    const unsigned char *acc = lb_plan_buffer(plan, step->acc);
    for (size_t i = 0; i < count; i += LB_COUNT(block)) {
        size_t n = LB_MIN(LB_COUNT(block), count - i);
        plan->kernels[step->acc_type]->to_f32(step->acc_type, acc + i * lb_dtype_size(step->acc_type), block, n);
        if (!finite_all(block, (int)n))
            return false;
    }
    return true;
}

const char *lb_plan_find_bad(const lb_plan *plan) {
    for (int i = 0; i < plan->nsteps; i++) {
        const lb_step *step = &plan->steps[i];
        if (step->kind != LB_STEP_NORM)
            continue;
        int c = plan->net->nodes[step->node].dst.c;
        bool bad = !finite_all(step->a, c) || !finite_all(step->b, c);
        if (bad || (step->acc >= 0 && !finite_acc(plan, step, plan->values[step->node].rows * (size_t)c)))
            return plan->net->nodes[step->conv >= 0 ? step->conv : step->node].name;
    }
    return NULL;
}

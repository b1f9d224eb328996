/* Running a plan: weights and convolutions, and the order of all steps, forward and backward. */
#include "train/plan_run.h"

#include <assert.h>
#include <omp.h>

/* This thread's part of the quantizers' scratch. */
static float *work_of(const lb_plan *plan) { return plan->work + (size_t)omp_get_thread_num() * plan->work_stride; }

/* ---- Weights ------------------------------------------------------------------------------------------------------------ */

static lb_weights weights_of(const lb_net *net, const lb_param *p, const float *steps) {
    return (lb_weights){net->values + p->offset, (int)p->dims[0], (int64_t)p->count / p->dims[0], steps, NULL};
}

void lb_plan_init_weights(lb_net *net) {
    for (int i = 0; i < net->nnodes; i++) {
        lb_node *node = &net->nodes[i];
        if (!lb_is_layer(node) || !node->quant || node->quant->initialised)
            continue;
        lb_quant *q = node->quant;
        const lb_weights w = weights_of(net, &net->params[node->param[0]], NULL);
        if (lb_quant_nparams(&q->spec))
            q->spec.quantizer->init(&q->spec, w.u, w.oc, w.fan_in, lb_param_values(net, q->param));
        q->initialised = true;
    }
}

typedef struct layer {
    const lb_quant *q; /* NULL: float */
    const lb_param *param;
    lb_weights w;
    lb_quant_when when;
} layer;

/* False: the step is of no layer. */
static bool layer_of(const lb_plan *plan, lb_step *step, layer *l) {
    if (step->kind != LB_STEP_CONV)
        return false;
    const lb_node *node = &plan->net->nodes[step->node];
    const lb_param *param = &plan->net->params[node->param[0]];
    *l = (layer){node->quant, param, weights_of(plan->net, param, plan->filter_steps + param->offset),
                 lb_plan_when(plan, step, step->node)};
    return true;
}

static void quantize_weights(lb_plan *plan) {
#pragma omp parallel for schedule(dynamic) num_threads(plan->threads)
    for (int i = 0; i < plan->nsteps; i++) {
        layer l;
        if (!layer_of(plan, &plan->steps[i], &l))
            continue;
        float *steps = plan->filter_steps + l.param->offset;
        if (l.q)
            lb_quant_weights_forward(l.q, &l.when, lb_plan_param(plan, l.q->param), &l.w, steps, plan->weights + l.param->offset,
                                     work_of(plan));
        else
            for (int k = 0; k < l.w.oc; k++)
                steps[k] = 1;
    }
}

static void conv_forward_images(lb_plan *plan, lb_step *step, const lb_image_range *images) {
    lb_conv_forward_images(step->prims, images, lb_plan_data(plan, step->src), lb_plan_buffer(plan, step->acc));
}

static lb_status conv_forward(lb_plan *plan, lb_step *step) {
    const lb_net *net = plan->net;
    const lb_node *node = &net->nodes[step->node];
    const lb_param *w = &net->params[node->param[0]];
    const float *weights = node->quant ? plan->weights : net->values;
    lb_value *src = lb_plan_value(plan, step->src);
    LB_TRY(lb_conv_set_weights(step->prims, weights + w->offset, src->reach));
    lb_lap(plan->laps, LB_LAP_WEIGHTS, LB_PASS_FORWARD);
    if (lb_conv_by_images(step->prims, LB_PASS_FORWARD)) {
        lb_plan_queue(plan, conv_forward_images, step, LB_PASS_FORWARD);
    } else {
        lb_plan_flush(plan);
        LB_TRY(lb_conv_forward(step->prims, lb_plan_buffer(plan, src->buffer), lb_plan_buffer(plan, step->acc)));
    }
    for (int k = 0; k < node->dst.c; k++)
        step->scale[k] = src->step * plan->filter_steps[w->offset + (size_t)k];
    return LB_OK;
}

static void conv_weights_images(lb_plan *plan, lb_step *step, const lb_image_range *images) {
    lb_conv_backward_weights_images(step->prims, images, lb_plan_data(plan, step->src), lb_plan_buffer(plan, step->acc));
}

static void conv_data_images(lb_plan *plan, lb_step *step, const lb_image_range *images) {
    lb_conv_backward_data_images(step->prims, images, lb_plan_buffer(plan, step->acc), lb_plan_buffer(plan, step->dx));
}

static lb_status conv_backward(lb_plan *plan, lb_step *step) {
    const lb_param *w = &plan->net->params[plan->net->nodes[step->node].param[0]];
    const lb_value *src = lb_plan_value(plan, step->src);
    const void *diff = lb_plan_buffer(plan, step->acc);
    if (step->workspace >= 0) { /* f32 accumulator, bf16 source: not by images */
        lb_plan_flush(plan);
        size_t count = (size_t)plan->options.mb * lb_shape_count(&plan->net->nodes[step->node].dst);
        void *narrow = lb_plan_buffer(plan, step->workspace);
        plan->kernels[src->type]->from_f32(src->type, diff, narrow, count);
        diff = narrow;
    }
    if (lb_conv_by_images(step->prims, LB_PASS_BACKWARD_WEIGHTS)) {
        lb_plan_queue(plan, conv_weights_images, step, LB_PASS_BACKWARD_WEIGHTS);
    } else {
        lb_plan_flush(plan);
        LB_TRY(lb_conv_backward_weights(step->prims, lb_plan_buffer(plan, src->buffer), diff, plan->diff_weights + w->offset));
        lb_lap(plan->laps, LB_LAP_STEPS + (int)(step - plan->steps), LB_PASS_BACKWARD_WEIGHTS);
    }
    if (step->dx < 0)
        return LB_OK;
    if (lb_conv_by_images(step->prims, LB_PASS_BACKWARD_DATA)) {
        lb_plan_queue(plan, conv_data_images, step, LB_PASS_BACKWARD_DATA);
        return LB_OK;
    }
    lb_plan_flush(plan);
    return lb_conv_backward_data(step->prims, diff, lb_plan_buffer(plan, step->dx));
}

/* dL/du^ of every layer to dL/du of its master weights and learned parameters. */
static void weights_backward(lb_plan *plan, float *diff) {
#pragma omp parallel for schedule(dynamic) num_threads(plan->threads)
    for (int i = 0; i < plan->nsteps; i++) {
        layer l;
        if (!layer_of(plan, &plan->steps[i], &l))
            continue;
        const size_t at = l.param->offset;
        float *dw = plan->diff_weights + at;
        if (!l.q) {
            memcpy(diff + at, dw, l.param->count * sizeof *dw);
            continue;
        }
        for (int64_t k = 0; k < l.w.oc; k++) {
            float inv = 1 / l.w.step[k];
            for (int64_t e = 0; e < l.w.fan_in; e++)
                dw[k * l.w.fan_in + e] *= inv;
        }
        lb_quant_weights_backward(l.q, &l.when, lb_plan_param(plan, l.q->param), &l.w, dw, diff + at,
                                  l.q->param < 0 ? NULL : diff + plan->net->params[l.q->param].offset, work_of(plan));
    }
}

/* ---- All of it --------------------------------------------------------------------------------------------------------------- */

static lb_status forward(lb_plan *plan, const uint8_t *pixels, const lb_quant_when *when, lb_plan_stats stats) {
    plan->when = *when;
    plan->stats = stats;
    plan->ntasks = 0; /* of a pass that failed */
    quantize_weights(plan);
    lb_lap(plan->laps, LB_LAP_WEIGHTS, LB_PASS_FORWARD);
    for (int i = 0; i < plan->nsteps; i++) {
        lb_step *step = &plan->steps[i];
        if (step->kind != LB_STEP_CONV && step->kind != LB_STEP_NORM)
            lb_plan_flush(plan);
        if (step->kind == LB_STEP_INPUT)
            lb_step_input_forward(plan, step, pixels);
        else if (step->kind == LB_STEP_CONV)
            LB_TRY(conv_forward(plan, step));
        else if (step->kind == LB_STEP_NORM)
            LB_TRY(lb_step_norm_forward(plan, step));
        else
            LB_TRY(lb_step_plain_forward(plan, step));
        lb_lap(plan->laps, LB_LAP_STEPS + i, LB_PASS_FORWARD);
    }
    lb_plan_flush(plan);
    const lb_value *output = lb_plan_value(plan, plan->net->nnodes - 1);
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
    const lb_value *output = lb_plan_value(plan, plan->net->nnodes - 1);
    memset(diff, 0, plan->net->nvalues * sizeof *diff);
    plan->ntasks = 0;
    plan->kernels[output->type]->from_f32(output->type, plan->diff_logits, lb_plan_buffer(plan, plan->diff_output),
                            output->rows * (size_t)output->c);
    for (int i = plan->nsteps - 1; i >= 0; i--) {
        lb_step *step = &plan->steps[i];
        if (step->kind != LB_STEP_CONV && step->kind != LB_STEP_NORM)
            lb_plan_flush(plan);
        if (step->kind == LB_STEP_CONV)
            LB_TRY(conv_backward(plan, step));
        else if (step->kind == LB_STEP_NORM && step->dz >= 0)
            lb_step_norm_backward(plan, step, diff);
        else if (step->kind != LB_STEP_INPUT && step->kind != LB_STEP_NORM && step->grad >= 0)
            LB_TRY(lb_step_plain_backward(plan, step, diff));
        lb_lap(plan->laps, LB_LAP_STEPS + i, LB_PASS_BACKWARD_DATA);
    }
    lb_plan_flush(plan);
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
        if (!lb_all_finite(block, (int)n))
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
        bool bad = !lb_all_finite(step->a, c) || !lb_all_finite(step->b, c);
        if (bad || (step->acc >= 0 && !finite_acc(plan, step, plan->values[step->node].rows * (size_t)c)))
            return plan->net->nodes[step->conv >= 0 ? step->conv : step->node].name;
    }
    return NULL;
}

/* What the parts of a plan's execution share: plan_run.c (weights, convolutions, the order of steps), plan_norm.c (norm steps) and
 * plan_plain.c (all others). Inside src/train only. */
#ifndef LB_PLAN_RUN_H
#define LB_PLAN_RUN_H

#include <math.h>

#include "train/plan.h"

/* ---- The steps ------------------------------------------------------------------------------------------------------------ */

/* Batch norm, addition, activation or quantizer in one pass. Backward: from the gradients of the consumers to that of the
 * accumulator, or source, and to the parameters' in diff (nvalues). */
lb_status lb_step_norm_forward(lb_plan *plan, lb_step *step);
void lb_step_norm_backward(lb_plan *plan, lb_step *step, float *diff);

/* Pixels, (mb, h, w, c), to normalised numbers or the codes of the quantizer behind the input. */
void lb_step_input_forward(lb_plan *plan, lb_step *step, const uint8_t *pixels);

/* Pooling, dropout, shortcut padding, concat, functions and products. */
lb_status lb_step_plain_forward(lb_plan *plan, lb_step *step);
lb_status lb_step_plain_backward(lb_plan *plan, lb_step *step, float *diff);

/* ---- Values and parameters -------------------------------------------------------------------------------------------------- */

static inline void *lb_plan_data(const lb_plan *plan, int node) { return lb_plan_buffer(plan, lb_plan_value(plan, node)->buffer); }

/* NULL if there is no such parameter. */
static inline float *lb_plan_param(const lb_plan *plan, int param) {
    return param < 0 ? NULL : lb_param_values(plan->net, param);
}

/* ---- Queues (plan_queue.c) -------------------------------------------------------------------------------------------------- */

/* Adds a pass; it is done when something needs all images of its result: lb_plan_flush. */
void lb_plan_queue(lb_plan *plan, lb_task_run *run, lb_step *step, lb_pass pass);
void lb_plan_flush(lb_plan *plan);

static inline int lb_plan_parts(const lb_plan *plan) { return lb_parts(plan->threads, plan->options.mb); }

/* Rows [*first, *last) of thread `t` of `n`. */
static inline void lb_plan_share(size_t rows, int t, int n, size_t *first, size_t *last) {
    *first = rows * (size_t)t / (size_t)n;
    *last = rows * ((size_t)t + 1) / (size_t)n;
}

static inline bool lb_all_finite(const float *values, int count) {
    for (int i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* A value's gradients, with the factors that bring them to one unit: `real` for those that are dL/dreal, else `stored`. */
static inline void lb_plan_grads(const lb_plan *plan, const lb_value *v, float real, float stored, const void **grad,
                                 float *factor) {
    for (int i = 0; i < v->ngrads; i++) {
        grad[i] = lb_plan_buffer(plan, v->grad[i].buffer);
        factor[i] = v->grad[i].real ? real : stored;
    }
}

/* ---- Quantizers of activations ---------------------------------------------------------------------------------------------- */

/* A seed for the random numbers of one tensor. Scattered, as purposes move seeds along a line (lb_rng4), on which nodes must not
 * meet. */
static inline uint64_t lb_plan_seed(const lb_plan *plan, int node) {
    return lb_scatter(plan->options.seed ^ (uint64_t)(node + 1) * 0x9e3779b97f4a7c15u);
}

/* This training step, for the tensor of a step's node. */
static inline lb_quant_when lb_plan_when(const lb_plan *plan, lb_step *step, int node) {
    lb_quant_when when = plan->when;
    when.seed = lb_plan_seed(plan, node);
    when.run_seed = plan->options.seed;
    when.memory = &step->memory;
    return when;
}

/* First batch: the learned parameters of an activation quantizer start from what enters it, or, where that says nothing (zeros;
 * with unsigned codes nothing above zero), as from a 1. */
static inline void lb_plan_start_act(lb_plan *plan, lb_quant *q, const float *z, size_t count) {
    static const float one = 1;
    bool any = false;
    for (size_t i = 0; i < count && !any; i++)
        any = z[i] > 0 || (q->grid.lo < 0 && z[i] < 0);
    q->spec.quantizer->init(&q->spec, any ? z : &one, 1, any ? (int64_t)count : 1, lb_plan_param(plan, q->param));
    q->initialised = true;
}

/* Has node `act`, -1 for none, a quantizer whose learned parameters have no values yet? */
static inline bool lb_plan_must_start(const lb_plan *plan, int act) {
    const lb_quant *q = act < 0 ? NULL : plan->net->nodes[act].quant;
    return q && lb_quant_nparams(&q->spec) && !q->initialised;
}

/* Largest magnitude of the codes; 0: something else is mixed in. */
static inline float lb_plan_reach(const lb_act_form *form) {
    return form->m != 1 ? 0 : form->sign ? 1 : LB_MAX(-form->lo, form->hi);
}

#endif

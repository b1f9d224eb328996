/* Queues of passes: several passes on a few images at a time. */
#include "train/plan_run.h"

#include <omp.h>
#include <stdlib.h>

/* Of the largest tensor that a pass reads or writes: half a dozen fit a second-level cache. */
enum { CACHED_BYTES = 256 << 10 };

static size_t image_bytes(const lb_plan *plan, const lb_step *step) {
    const size_t dst = lb_shape_count(&plan->net->nodes[step->node].dst);
    if (step->src < 0) /* behind a convolution, whose accumulator has the same shape */
        return dst * lb_dtype_size(step->acc_type);
    const lb_value *src = lb_plan_value(plan, step->src);
    return LB_MAX(dst, src->rows / (size_t)plan->options.mb * (size_t)src->c) * lb_dtype_size(src->type);
}

/* Images that are done together. */
static int range_of(const lb_plan *plan) {
    size_t bytes = 1;
    for (int i = 0; i < plan->ntasks; i++)
        bytes = LB_MAX(bytes, image_bytes(plan, plan->tasks[i].step));
    return (int)LB_MAX(CACHED_BYTES / bytes, (size_t)1);
}

/* The parts are of one size, give or take an image, so the first thread's time is everybody's. */
static void run_part(lb_plan *plan, int part, int range) {
    const int parts = lb_plan_parts(plan), thread = omp_get_thread_num();
    size_t begin, end;
    lb_plan_share((size_t)plan->options.mb, part, parts, &begin, &end);
    for (int first = (int)begin; first < (int)end; first += range) {
        const lb_image_range images = {first, LB_MIN(first + range, (int)end), part, first == (int)begin, thread};
        for (int i = 0; i < plan->ntasks; i++) {
            const lb_task *task = &plan->tasks[i];
            task->run(plan, task->step, &images);
            lb_lap(thread == 0 ? plan->laps : NULL, LB_LAP_STEPS + (int)(task->step - plan->steps), task->pass);
        }
    }
}

void lb_plan_flush(lb_plan *plan) {
    if (!plan->ntasks)
        return;
    const int parts = lb_plan_parts(plan), range = range_of(plan);
#pragma omp parallel for num_threads(plan->threads) schedule(static)
    for (int part = 0; part < parts; part++)
        run_part(plan, part, range);
    for (int i = 0; i < plan->ntasks; i++) {
        const lb_task *task = &plan->tasks[i];
        if (task->pass != LB_PASS_BACKWARD_WEIGHTS)
            continue;
        const int weights = plan->net->nodes[task->step->node].param[0];
        lb_conv_add_parts(task->step->prims, plan->diff_weights + plan->net->params[weights].offset);
        lb_lap(plan->laps, LB_LAP_STEPS + (int)(task->step - plan->steps), task->pass);
    }
    plan->ntasks = 0;
}

void lb_plan_queue(lb_plan *plan, lb_task_run *run, lb_step *step, lb_pass pass) {
    bool fits = plan->ntasks < LB_MAX_TASKS && (plan->ntasks == 0 || labs((long)(step - plan->tasks[0].step)) <= LB_TASK_SPAN);
    for (int i = 0; i < plan->ntasks; i++) /* the backend keeps the parts of one */
        fits = fits && !(pass == LB_PASS_BACKWARD_WEIGHTS && plan->tasks[i].pass == pass);
    if (!fits)
        lb_plan_flush(plan);
    plan->tasks[plan->ntasks++] = (lb_task){run, step, pass};
}

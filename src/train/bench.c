/* How fast training is, and where the time of a step goes. */
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>

#include <omp.h>

#include "train/backend/backend.h"
#include "train/trainer.h"

enum { WARM_UP = 3 };

/* One step with its batch. A learning rate of 0: the same work, and weights stay as they are. */
static lb_status one_step(lb_trainer *t, int64_t step) {
    const lb_batch *batch;
    const int64_t epoch_steps = lb_trainer_epoch_steps(t, t->at.stage);
    if (step && step % epoch_steps == 0)
        LB_TRY(lb_loader_start(t->loader, step / epoch_steps, 0));
    lb_laps *laps = t->learners[0].plan->laps;
    const double begin = lb_now(); /* waiting takes no processor time */
    LB_TRY(lb_loader_next(t->loader, &batch));
    if (laps) {
        laps->seconds[LB_LAP_DATA * LB_PASSES + LB_PASS_FORWARD] = lb_now() - begin;
        laps->last = laps->clock();
    }
    return lb_trainer_step(t, batch, 0);
}

/* In the middle of the first stage, where schedules mix: at its begin some are still float. times, cpu: (steps) seconds. laps:
 * NULL, or (steps, cells) seconds; of processor time if all work is this thread's. */
static lb_status timed_steps(lb_trainer *t, int steps, double *times, double *cpu, double *laps, size_t cells, double *start) {
    lb_laps watch = {.clock = lb_threads(t->ctx) == 1 ? lb_thread_time : lb_now};
    lb_status status = lb_loader_start(t->loader, 0, 0);
    t->at.step = t->at.stage_step = lb_trainer_stage_steps(t, t->at.stage) / 2;
    for (int i = 0; i < WARM_UP + steps && !status; i++) {
        const double begin = lb_now(), cpu_begin = lb_cpu_time();
        if (laps && i >= WARM_UP) {
            watch.seconds = laps + (size_t)(i - WARM_UP) * cells;
            t->learners[0].plan->laps = &watch;
        }
        status = one_step(t, i);
        if (i == 0)
            *start = lb_now() - t->created;
        if (i >= WARM_UP) {
            times[i - WARM_UP] = lb_now() - begin;
            cpu[i - WARM_UP] = lb_cpu_time() - cpu_begin;
        }
        lb_progress(t->ctx, "training steps", i + 1, WARM_UP + steps);
        if (!status && lb_interrupted(t->ctx))
            status = lb_fail(t->ctx, LB_ERR_INTERRUPTED, "interrupted");
    }
    t->learners[0].plan->laps = NULL;
    return status;
}

/* ---- Costs from shapes ----------------------------------------------------------------------------------------------------- */

static double value_bytes(const lb_plan *plan, int node) {
    const lb_value *v = lb_plan_value(plan, node);
    return (double)v->rows * v->c * (double)lb_dtype_size(v->type);
}

static void conv_costs(const lb_plan *plan, const lb_step *s, lb_cost *cost) {
    const lb_node *node = &plan->net->nodes[s->node];
    const double flops = 2.0 * plan->options.mb * (double)lb_op_info(node->op)->macs(plan->net, node);
    const double weights = (double)plan->net->params[node->param[0]].count, src = value_bytes(plan, s->src);
    const double size = (double)lb_dtype_size(lb_plan_value(plan, s->src)->type);
    const double elements = (double)plan->options.mb * (double)lb_shape_count(&node->dst);
    const double dst = elements * (double)lb_dtype_size(s->acc_type), narrow = s->workspace >= 0 ? dst + elements * size : 0;
    cost[LB_PASS_FORWARD] = (lb_cost){.flops = flops, .bytes = src + weights * size + dst};
    cost[LB_PASS_BACKWARD_WEIGHTS] = (lb_cost){.flops = flops, .bytes = src + elements * size + 4 * weights + narrow};
    if (s->dx >= 0)
        cost[LB_PASS_BACKWARD_DATA] = (lb_cost){.flops = flops, .bytes = elements * size + weights * size + src};
}

/* Forward: batch statistics read x; then x and the residual are read, the result written. Backward: gradients, x and the residual
 * to dz; then dz and x to dx. */
static void norm_costs(const lb_plan *plan, const lb_step *s, lb_cost *cost) {
    const lb_value *v = &plan->values[s->node];
    const double size = value_bytes(plan, s->node), residual = s->residual >= 0 ? size : 0;
    const bool needs_x = s->act >= 0 || s->bn >= 0;
    cost[LB_PASS_FORWARD].bytes = (s->bn >= 0 ? size : 0) + size + residual + size;
    if (s->dz >= 0)
        cost[LB_PASS_BACKWARD_DATA].bytes =
            v->ngrads * size + (needs_x ? size + residual : 0) + size + (s->acc >= 0 || s->dx >= 0 ? 3 * size : 0);
}

static void step_costs(const lb_plan *plan, const lb_step *s, lb_cost *cost) {
    const double size = value_bytes(plan, s->node);
    if (s->kind == LB_STEP_CONV) {
        conv_costs(plan, s, cost);
    } else if (s->kind == LB_STEP_NORM) {
        norm_costs(plan, s, cost);
    } else if (s->kind == LB_STEP_INPUT) {
        cost[LB_PASS_FORWARD].bytes = size + (double)plan->values[s->node].rows * plan->values[s->node].c;
    } else {
        double src = 0;
        for (int i = 0; i < plan->net->nodes[s->node].nsrc; i++)
            src += value_bytes(plan, plan->net->nodes[s->node].src[i]);
        cost[LB_PASS_FORWARD].bytes = src + size;
        if (s->grad >= 0)
            cost[LB_PASS_BACKWARD_DATA].bytes = (plan->values[s->node].ngrads + 2) * size + src;
    }
}

/* Master weights to u~ and to both convolutions' layouts, and back; every parameter through the optimizer with its states. */
static void whole_costs(const lb_trainer *t, lb_profile_row *rows) {
    const lb_net *net = t->net;
    double weights = 0, quantized = 0, layouts = 2.0 * (4 + (double)lb_dtype_size(t->bf16 ? LB_BF16 : LB_F32));
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        if (!lb_is_layer(node))
            continue;
        weights += (double)net->params[node->param[0]].count;
        quantized += node->quant ? (double)net->params[node->param[0]].count : 0;
    }
    rows[LB_LAP_WEIGHTS].pass[LB_PASS_FORWARD].bytes = weights * layouts + quantized * 8;
    rows[LB_LAP_WEIGHTS].pass[LB_PASS_BACKWARD_WEIGHTS].bytes = weights * 8 + quantized * 12;
    rows[LB_LAP_OPTIMIZER].pass[LB_PASS_BACKWARD_WEIGHTS].bytes =
        (double)net->nvalues * (12 + 8 * lb_optim_nstates(t->learners[0].optim));
}

static const char *step_op(const lb_plan *plan, const lb_step *s) {
    return s->kind == LB_STEP_NORM ? "norm"
                                   : lb_op_info(s->kind == LB_STEP_INPUT ? LB_OP_INPUT : plan->net->nodes[s->node].op)->name;
}

/* ---- The profile ----------------------------------------------------------------------------------------------------------- */

double lb_profile_bound(const lb_profile *profile, const lb_cost *cost) {
    const double multiply = profile->flops_per_s > 0 ? cost->flops / profile->flops_per_s : 0;
    const double copy = profile->bytes_per_s > 0 ? cost->bytes / profile->bytes_per_s : 0;
    return 1e3 * LB_MAX(multiply, copy);
}

/* Bytes read and written per second by copying. Piece after piece of something that no cache holds: a piece is short enough to be
 * copied undisturbed now and then on a busy machine. */
static lb_status measure_copy(lb_ctx *ctx, double *bytes_per_s) {
    enum { PIECES = 16, ROUNDS = 4 };
    const size_t piece = (size_t)4 << 20, size = PIECES * piece;
    const int threads = lb_threads(ctx);
    unsigned char *from = lb_alloc(ctx, size, 1), *to = from ? lb_alloc(ctx, size, 1) : NULL;
    double least = INFINITY;
    for (size_t i = 0; to && i < PIECES * ROUNDS; i++) {
        const size_t at = i % PIECES * piece;
        const double begin = lb_now();
#pragma omp parallel for num_threads(threads)
        for (int k = 0; k < threads; k++) {
            const size_t first = piece * (size_t)k / (size_t)threads, last = piece * ((size_t)k + 1) / (size_t)threads;
            memcpy(to + at + first, from + at + first, last - first);
        }
        const double time = lb_now() - begin;
        least = LB_MIN(least, time);
    }
    *bytes_per_s = 2 * (double)piece / LB_MAX(least, 1e-9);
    const lb_status status = to ? LB_OK : LB_ERR_MEMORY;
    lb_free(ctx, from);
    lb_free(ctx, to);
    return status;
}

static lb_status fill_rows(const lb_trainer *t, int steps, const double *laps, size_t cells, lb_profile *profile) {
    static const char *const names[LB_LAP_STEPS] = {"data", "weights", "loss", "optimizer"};
    const lb_plan *plan = t->learners[0].plan;
    for (int i = 0; i < profile->nrows; i++) {
        lb_profile_row *row = &profile->rows[i];
        const lb_step *step = i < LB_LAP_STEPS ? NULL : &plan->steps[i - LB_LAP_STEPS];
        snprintf(row->name, sizeof row->name, "%s", step ? plan->net->nodes[step->node].name : names[i]);
        if (!step)
            continue;
        snprintf(row->op, sizeof row->op, "%s", step_op(plan, step));
        lb_shape_text(&plan->net->nodes[step->node].dst, row->dst);
        step_costs(plan, step, row->pass);
    }
    whole_costs(t, profile->rows);
    double *column = lb_alloc(t->ctx, (size_t)steps, sizeof *column);
    if (!column)
        return LB_ERR_MEMORY;
    for (size_t cell = 0; cell < cells; cell++) {
        for (int i = 0; i < steps; i++)
            column[i] = laps[(size_t)i * cells + cell];
        const double median = lb_median(column, (size_t)steps); /* sorts */
        profile->rows[cell / LB_PASSES].pass[cell % LB_PASSES].ms = 1e3 * (cell / LB_PASSES == LB_LAP_DATA ? median : column[0]);
    }
    /* A lap of nothing is the time of reading the clock. */
    for (int i = LB_LAP_STEPS; i < profile->nrows; i++)
        for (int pass = 0; pass < LB_PASSES; pass++)
            if (profile->rows[i].pass[pass].bytes <= 0)
                profile->rows[i].pass[pass].ms = 0;
    lb_free(t->ctx, column);
    return LB_OK;
}

void lb_profile_free(lb_profile *profile) {
    if (profile->ctx)
        lb_free(profile->ctx, profile->rows);
    *profile = (lb_profile){0};
}

/* ---- Speed ----------------------------------------------------------------------------------------------------------------- */

/* Some test images, a first batch not counted. */
static lb_status eval_speed(lb_trainer *t, lb_speed *speed) {
    enum { BATCHES = 4 };
    speed->eval_images_per_s = speed->eval_cpu_ms = NAN;
    const int64_t there = t->data->split[LB_TEST].count;
    if (there == 0)
        return LB_OK;
    const int64_t count = LB_MIN(there, (int64_t)BATCHES * t->config->train.eval_batch);
    lb_metrics metrics;
    LB_TRY(lb_trainer_evaluate_first(t, &t->learners[0], LB_MIN(count, (int64_t)t->config->train.eval_batch), &metrics));
    const double begin = lb_now(), cpu_begin = lb_cpu_time();
    LB_TRY(lb_trainer_evaluate_first(t, &t->learners[0], count, &metrics));
    speed->eval_cpu_ms = 1e3 * (lb_cpu_time() - cpu_begin) / (double)count;
    speed->eval_images_per_s = (double)count / LB_MAX(lb_now() - begin, 1e-9);
    return LB_OK;
}

static lb_status run(lb_trainer *t, int steps, lb_speed *speed, lb_profile *profile, lb_pool *pool) {
    const size_t rows = (size_t)(LB_LAP_STEPS + t->learners[0].plan->nsteps), cells = rows * LB_PASSES;
    double *times = lb_pool_alloc(pool, (size_t)steps, sizeof *times);
    double *cpu = lb_pool_alloc(pool, (size_t)steps, sizeof *cpu);
    double *laps = profile ? lb_pool_alloc(pool, (size_t)steps * cells, sizeof *laps) : NULL;
    if (!times || !cpu || (profile && !laps))
        return LB_ERR_MEMORY;
    double start = 0;
    LB_TRY(timed_steps(t, steps, times, cpu, laps, cells, &start));
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const double step = lb_median(times, (size_t)steps);
    *speed = (lb_speed){.images_per_s = t->config->train.batch / step, .step_ms = 1e3 * step,
                        .cpu_ms = 1e3 * lb_median(cpu, (size_t)steps), .start_s = start,
                        .threads = lb_threads(t->ctx), .peak_rss_mb = (double)usage.ru_maxrss / 1024,
                        .precision = t->bf16 ? "bf16" : "f32", .batch = t->config->train.batch};
    LB_TRY(eval_speed(t, speed));
    if (!profile)
        return LB_OK;
    profile->nrows = (int)rows;
    profile->rows = lb_alloc(t->ctx, rows, sizeof *profile->rows);
    if (!profile->rows)
        return LB_ERR_MEMORY;
    LB_TRY(fill_rows(t, steps, laps, cells, profile));
    LB_TRY(measure_copy(t->ctx, &profile->bytes_per_s));
    return lb_backend_peak(t->ctx, t->bf16 ? LB_BF16 : LB_F32, &profile->flops_per_s);
}

static lb_status prepare_and_run(lb_trainer *t, int steps, lb_speed *speed, lb_profile *profile) {
    if (steps < 1)
        return lb_fail(t->ctx, LB_ERR_ARGUMENT, "the number of steps to time must be positive");
    LB_TRY(lb_trainer_prepare(t));
    LB_TRY(lb_distill_start(t));
    if (profile && t->nlearners > 1)
        return lb_fail(t->ctx, LB_ERR_UNSUPPORTED,
                       "a profile is of one network, but this recipe trains %d at once; set distill.from=none", t->nlearners);
    lb_pool pool;
    lb_pool_init(&pool, t->ctx);
    const lb_status status = run(t, steps, speed, profile, &pool);
    lb_pool_free(&pool);
    return status;
}

static lb_status bench(lb_trainer *t, int steps, lb_speed *speed, lb_profile *profile) {
    *speed = (lb_speed){0};
    const int threads = omp_get_max_threads(); /* the caller's setting, which plans change */
    const lb_status status = prepare_and_run(t, steps, speed, profile);
    omp_set_num_threads(threads);
    return status;
}

lb_status lb_trainer_bench(lb_trainer *t, int steps, lb_speed *speed) { return bench(t, steps, speed, NULL); }

lb_status lb_trainer_profile(lb_trainer *t, int steps, lb_speed *speed, lb_profile *profile) {
    *profile = (lb_profile){.ctx = t->ctx};
    const lb_status status = bench(t, steps, speed, profile);
    if (status)
        lb_profile_free(profile);
    return status;
}

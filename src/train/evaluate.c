#include "train/evaluate.h"

#include <omp.h>

#include "train/evaluate_plan.h"
#include "train/threads.h"

struct lb_evaluator {
    lb_ctx *ctx;
    const lb_net *net;
    float mean[4], std[4];
    int mb, threads;
    bool ordered;
    lb_infer *infer;
    const lb_eval_kernels *kernels;
    lb_eval_plan *plan;
    unsigned char **workspaces; /* (threads) */
    size_t workspace_size;
};

lb_status lb_evaluator_create(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], int mb,
                              lb_evaluator **evaluator) {
    *evaluator = NULL;
    if (mb < 1)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "evaluation in batches of %d; at least 1", mb);
    lb_evaluator *e = lb_alloc(ctx, 1, sizeof *e);
    if (!e)
        return LB_ERR_MEMORY;
    e->ctx = ctx;
    e->net = net;
    e->mb = mb;
    e->threads = lb_threads(ctx);
    memcpy(e->mean, mean, sizeof e->mean);
    memcpy(e->std, std, sizeof e->std);
    e->kernels = lb_eval_kernels_select();
    e->workspaces = lb_alloc(ctx, (size_t)e->threads, sizeof *e->workspaces);
    const lb_status status = e->workspaces ? lb_infer_create(ctx, e->threads, &e->infer) : LB_ERR_MEMORY;
    if (status != LB_OK) {
        lb_evaluator_destroy(e);
        return status;
    }
    *evaluator = e;
    return LB_OK;
}

static void free_workspaces(lb_evaluator *e) {
    for (int t = 0; e->workspaces && t < e->threads; t++) {
        lb_free(e->ctx, e->workspaces[t]);
        e->workspaces[t] = NULL;
    }
    e->workspace_size = 0;
}

void lb_evaluator_destroy(lb_evaluator *evaluator) {
    if (!evaluator)
        return;
    lb_eval_plan_destroy(evaluator->plan);
    free_workspaces(evaluator);
    lb_infer_destroy(evaluator->infer);
    lb_free(evaluator->ctx, evaluator->workspaces);
    lb_free(evaluator->ctx, evaluator);
}

void lb_evaluator_set_ordered(lb_evaluator *evaluator, bool ordered) { evaluator->ordered = ordered; }

/* Which way a layer is computed may depend on its weights, so everything is planned anew; oneDNN keeps the compiled kernels. */
lb_status lb_evaluator_update(lb_evaluator *e) {
    lb_eval_plan_destroy(e->plan);
    e->plan = NULL;
    LB_TRY(lb_eval_plan_create(e->infer, e->net, e->mean, e->std, e->mb, e->ordered, &e->plan));
    if (e->plan->workspace <= e->workspace_size)
        return LB_OK;
    free_workspaces(e);
    lb_status status = LB_OK;
    for (int t = 0; t < e->threads && status == LB_OK; t++)
        if (!(e->workspaces[t] = lb_alloc(e->ctx, e->plan->workspace, 1)))
            status = LB_ERR_MEMORY;
    if (status == LB_OK)
        status = lb_start_threads(e->ctx, e->threads);
    if (status != LB_OK) {
        lb_eval_plan_destroy(e->plan);
        e->plan = NULL;
        return status;
    }
    e->workspace_size = e->plan->workspace;
    return LB_OK;
}

lb_status lb_evaluator_run(lb_evaluator *e, const uint8_t *pixels, int mb, int32_t *scores) {
    if (!e->plan)
        return lb_fail(e->ctx, LB_ERR_ARGUMENT, "evaluation: call lb_evaluator_update first");
    if (mb < 0 || mb > e->mb)
        return lb_fail(e->ctx, LB_ERR_ARGUMENT, "evaluation of %d images; the evaluator was made for up to %d", mb, e->mb);
    const int chunk = e->plan->chunk, nchunks = (mb + chunk - 1) / chunk;
    const size_t image = lb_shape_count(&e->net->nodes[0].dst), classes = (size_t)e->net->classes;
    bool failed = false;
#pragma omp parallel num_threads(e->threads) reduction(|| : failed)
    {
        omp_set_num_threads(1); /* this thread's own setting, which oneDNN reads; it ends with the parallel region */
        const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (int i = 0; i < nchunks; i++) {
            const int first = i * chunk, count = LB_MIN(chunk, mb - first);
            if (!lb_eval_plan_run(e->plan, e->kernels, thread, e->workspaces[thread], pixels + (size_t)first * image, count,
                                  scores + (size_t)first * classes))
                failed = true;
        }
    }
    return failed ? lb_fail(e->ctx, LB_ERR_BACKEND, "%s: oneDNN failed to run a convolution", e->net->name) : LB_OK;
}

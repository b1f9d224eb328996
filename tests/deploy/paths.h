/* The two paths whose scores must be equal: the trainer's evaluation, and the packed model in the runtime. */
#ifndef LB_TEST_PATHS_H
#define LB_TEST_PATHS_H

#include "deploy/lower.h"
#include "deploy/pack.h"
#include "lowbit/lowbit_rt.h"
#include "support.h"
#include "train/evaluate.h"

/* Scores (mb, classes) of evaluation, with float sums in the packed model's order if `ordered`. */
static inline void run_evaluator(lb_ctx *ctx, const lb_net *net, const float *mean, const float *std, const uint8_t *pixels, int mb,
                                 bool ordered, int32_t *scores) {
    lb_evaluator *e;
    assert_ok(ctx, lb_evaluator_create(ctx, net, mean, std, mb, &e));
    lb_evaluator_set_ordered(e, ordered);
    assert_ok(ctx, lb_evaluator_update(e));
    assert_ok(ctx, lb_evaluator_run(e, pixels, mb, scores));
    lb_evaluator_destroy(e);
}

/* The same of the network lowered, packed and run. */
static inline void run_packed(lb_ctx *ctx, const lb_net *net, const float *mean, const float *std, const uint8_t *pixels, int mb,
                              int32_t *scores) {
    lb_lowered *lowered;
    unsigned char *file;
    size_t size;
    lbrt_info info;
    lbrt_model *model;
    assert_ok(ctx, lb_lower(ctx, net, mean, std, NULL, &lowered));
    assert_ok(ctx, lb_pack_graph(ctx, &lowered->graph, NULL, 0, &file, &size));
    lb_lowered_destroy(lowered);
    assert_int_equal(lbrt_probe(file, size, &info), LBRT_OK);
    assert_int_equal(info.classes, net->classes);
    void *memory = malloc(info.model_size);
    assert_int_equal(lbrt_open(file, size, memory, info.model_size, &model), LBRT_OK);
    const size_t arena_size = lbrt_arena_size(model, mb);
    void *arena = malloc(arena_size);
    assert_int_equal(lbrt_run(model, pixels, mb, arena, arena_size, scores), LBRT_OK);
    free(arena);
    free(memory);
    lb_free(ctx, file);
}

#endif

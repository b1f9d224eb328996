/* Time of each layer of a packed model. */
#include <math.h>
#include <string.h>

#include "deploy/packed.h"

#define WARM_UP 3

static lb_status measure(lb_packed *m, int batch, int runs, lb_pool *pool, lb_layer_times *profile) {
    const size_t image = (size_t)m->info.ih * (size_t)m->info.iw * (size_t)m->info.ic,
                 arena_size = lbrt_arena_size_layers(m->model, batch, 1);
    if (arena_size == 0)
        return lb_fail(m->ctx, LB_ERR_ARGUMENT, "%s: a batch of %d images is too large", m->name, batch);
    uint8_t *pixels = lb_pool_alloc(pool, (size_t)batch, image);
    int32_t *scores = lb_pool_alloc(pool, (size_t)batch * (size_t)m->info.classes, sizeof *scores);
    void *arena = lb_pool_alloc(pool, arena_size, 1);
    if (!pixels || !scores || !arena)
        return LB_ERR_MEMORY;
    for (size_t i = 0; i < (size_t)batch * image; i++)
        pixels[i] = (uint8_t)(i * 2654435761u >> 24);
    for (int r = -WARM_UP; r < runs; r++) {
        for (int i = 0; i < profile->nlayers; i++) {
            const double start = lb_now();
            const lbrt_status status = lbrt_run_layers(m->model, i, i + 1, pixels, batch, arena, arena_size, scores, NULL);
            const double ms = (lb_now() - start) * 1e3;
            if (status != LBRT_OK)
                return lb_fail(m->ctx, LB_ERR_BACKEND, "%s: %s", m->name, lbrt_status_text(status));
            if (r >= 0)
                profile->layers[i].ms = fmin(profile->layers[i].ms, ms);
        }
        if (lb_interrupted(m->ctx))
            return lb_fail(m->ctx, LB_ERR_INTERRUPTED, "interrupted while measuring");
    }
    return LB_OK;
}

lb_status lb_packed_profile(lb_packed *m, int batch, int runs, lb_layer_times *profile) {
    const lbrt_graph *g = lbrt_model_graph(m->model);
    *profile = (lb_layer_times){.ctx = m->ctx, .nlayers = g->nlayers};
    if (batch < 1 || runs < 1)
        return lb_fail(m->ctx, LB_ERR_ARGUMENT, "bench of %d runs of %d images; both must be at least 1", runs, batch);
    profile->layers = lb_alloc(m->ctx, (size_t)g->nlayers, sizeof *profile->layers);
    if (!profile->layers)
        return LB_ERR_MEMORY;
    for (int i = 0; i < g->nlayers; i++)
        profile->layers[i] = (lb_layer_time){.name = g->layers[i].name, .kernel = lbrt_layer_kernel(m->model, i), .ms = INFINITY};
    lb_pool pool;
    lb_pool_init(&pool, m->ctx);
    const lb_status status = measure(m, batch, runs, &pool, profile);
    lb_pool_free(&pool);
    if (status != LB_OK) {
        lb_layer_times_free(profile);
        return status;
    }
    double operations = 0;
    for (int i = 0; i < g->nlayers; i++) {
        lb_layer_time *l = &profile->layers[i];
        lb_layer_info info;
        lb_describe_layer(g, i, &info);
        memcpy(l->op, info.op, sizeof l->op);
        l->gops = 2e-6 * (double)info.macs * batch / fmax(l->ms, 1e-9);
        operations += 2e-6 * (double)info.macs * batch;
        profile->ms += l->ms;
    }
    profile->gops = operations / fmax(profile->ms, 1e-9);
    profile->peak_gops = lb_peak_gops(m->isa);
    return LB_OK;
}

void lb_layer_times_free(lb_layer_times *profile) {
    lb_free(profile->ctx, profile->layers);
    profile->layers = NULL;
}

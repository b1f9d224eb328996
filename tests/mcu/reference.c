/* The first test images of a packed model's data set, and the scores that the reference kernels give them: reference MODEL COUNT
 * writes the files `images` and `wanted`, which main.c reads and whose scores must be equal. */
#include <stdio.h>
#include <stdlib.h>

#include "deploy/packed.h"

static lb_status write_reference(lb_packed *m, int count) {
    const size_t image = (size_t)m->info.ih * (size_t)m->info.iw * (size_t)m->info.ic, classes = (size_t)m->info.classes;
    lb_pool pool;
    lb_pool_init(&pool, m->ctx);
    uint8_t *pixels = lb_pool_alloc(&pool, (size_t)count, image);
    int32_t *labels = lb_pool_alloc(&pool, (size_t)count, sizeof *labels);
    int32_t *scores = lb_pool_alloc(&pool, (size_t)count * classes, sizeof *scores);
    lb_status status = pixels && labels && scores ? lb_packed_use(m, "ref") : LB_ERR_MEMORY;
    if (status == LB_OK)
        status = lb_packed_data(m, NULL);
    if (status == LB_OK && m->data->split[LB_TEST].count < count)
        status = lb_fail(m->ctx, LB_ERR_ARGUMENT, "the data set has too few test images");
    if (status == LB_OK)
        status = lb_test_batch(m->data, &m->config, LB_TEST, 0, count, m->info.ih, m->info.iw, pixels, labels);
    if (status == LB_OK)
        status = lb_packed_scores(m, pixels, count, scores);
    const lb_span images = {pixels, (size_t)count * image}, wanted = {scores, (size_t)count * classes * sizeof *scores};
    if (status == LB_OK)
        status = lb_write_file(m->ctx, "images", &images, 1);
    if (status == LB_OK)
        status = lb_write_file(m->ctx, "wanted", &wanted, 1);
    lb_pool_free(&pool);
    return status;
}

int main(int argc, char **argv) {
    const int count = argc == 3 ? atoi(argv[2]) : 0;
    lb_ctx *ctx;
    lb_packed *model = NULL;
    if (count < 1 || lb_ctx_create(NULL, &ctx) != LB_OK) {
        fprintf(stderr, "usage: reference MODEL COUNT\n");
        return 2;
    }
    lb_status status = lb_packed_load(ctx, argv[1], &model);
    if (status == LB_OK)
        status = write_reference(model, count);
    if (status != LB_OK)
        fprintf(stderr, "reference: %s\n", lb_error(ctx));
    lb_packed_destroy(model);
    lb_ctx_destroy(ctx);
    return status != LB_OK;
}

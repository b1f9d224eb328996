/* What `lowbit eval` computes on every test image, for check.sh: reference RUN FILE writes int32 images, channels, height,
 * width, classes; then for each image its pixels (uint8, height x width x channels), its label and its scores (int32, 16
 * fractional bits). */
#include <stdio.h>
#include <stdlib.h>

#include "train/trainer.h"

/* In the recipe's batches of evaluation: large images take much memory. */
static lb_status write_batches(lb_trainer *t, lb_evaluator *evaluator, FILE *file) {
    const lb_shape *in = &t->net->nodes[0].dst;
    const int classes = t->net->classes, batch = t->config->train.eval_batch;
    const size_t image = lb_shape_count(in);
    const int64_t count = t->data->split[LB_TEST].count;
    const int32_t head[] = {(int32_t)count, in->c, in->h, in->w, classes};
    uint8_t *pixels = lb_alloc(t->ctx, (size_t)batch, image);
    int32_t *labels = lb_alloc(t->ctx, (size_t)batch, sizeof *labels);
    int32_t *scores = lb_alloc(t->ctx, (size_t)batch * (size_t)classes, sizeof *scores);
    lb_status status = pixels && labels && scores ? LB_OK : LB_ERR_MEMORY;
    bool written = fwrite(head, sizeof head, 1, file) == 1;
    for (int64_t first = 0; status == LB_OK && written && first < count; first += batch) {
        const int mb = (int)LB_MIN((int64_t)batch, count - first);
        status = lb_test_batch(t->data, &t->config->data, LB_TEST, first, mb, in->h, in->w, pixels, labels);
        if (status == LB_OK)
            status = lb_evaluator_run(evaluator, pixels, mb, scores);
        for (int i = 0; status == LB_OK && i < mb; i++)
            written = written && fwrite(pixels + (size_t)i * image, image, 1, file) == 1 && fwrite(&labels[i], 4, 1, file) == 1 &&
                      fwrite(scores + i * classes, 4 * (size_t)classes, 1, file) == 1;
    }
    lb_free(t->ctx, pixels);
    lb_free(t->ctx, labels);
    lb_free(t->ctx, scores);
    return status != LB_OK || written ? status : lb_fail(t->ctx, LB_ERR_IO, "cannot write the scores");
}

static lb_status reference(lb_ctx *ctx, const char *run, FILE *file) {
    lb_trainer *t;
    lb_evaluator *evaluator = NULL;
    LB_TRY(lb_trainer_open(ctx, run, NULL, &t));
    lb_status status = lb_trainer_need_images(t);
    if (status == LB_OK)
        status = lb_evaluator_create(ctx, t->net, t->data->mean, t->data->std, t->config->train.eval_batch, &evaluator);
    if (status == LB_OK)
        status = lb_evaluator_update(evaluator);
    if (status == LB_OK)
        status = write_batches(t, evaluator, file);
    lb_evaluator_destroy(evaluator);
    lb_trainer_destroy(t);
    return status;
}

int main(int argc, char **argv) {
    lb_ctx *ctx = NULL;
    FILE *file = argc == 3 ? fopen(argv[2], "wb") : NULL;
    if (!file) {
        fprintf(stderr, argc == 3 ? "%s: cannot write it\n" : "usage: reference RUN FILE\n", argv[argc - 1]);
        return 2;
    }
    lb_status status = lb_ctx_create(NULL, &ctx);
    if (status == LB_OK && (status = reference(ctx, argv[1], file)) != LB_OK)
        fprintf(stderr, "%s\n", lb_error(ctx));
    lb_ctx_destroy(ctx);
    return fclose(file) == 0 && status == LB_OK ? 0 : 1;
}

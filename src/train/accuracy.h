/* Accuracy on a test set, from scores (int32, 16 fractional bits), whatever computes them. */
#ifndef LB_ACCURACY_H
#define LB_ACCURACY_H

#include "data/data.h"
#include "net/net.h"

/* As lb_logit_rank (loss.h): how many classes come before `label`, equals by rising index. */
int lb_score_rank(const int32_t *scores, int classes, int label);

/* Sums over images. Start from zeros. */
typedef struct lb_score_sums {
    int64_t images, top1, top5;
    int64_t cut;    /* images with a score at the end of int32, where larger ones are cut off */
    double loss;    /* cross-entropy, whatever was trained with */
} lb_score_sums;

/* scores: (mb, classes); labels: (mb). */
void lb_scores_add(lb_score_sums *sums, const int32_t *scores, const int32_t *labels, int mb, int classes);

/* Warns of images whose scores were cut off, if there are any. `name`: of the network or file. Returns whether there are. */
bool lb_scores_warn(lb_ctx *ctx, const char *name, const lb_score_sums *sums);

/* Percent and means; zeros if there were no images. */
void lb_scores_metrics(const lb_score_sums *sums, lb_metrics *metrics);

/* What is tested: `score` gives the scores (mb, classes) of pixels (mb, h, w, c). */
typedef struct lb_scorer {
    lb_shape input;
    int classes;
    lb_status (*score)(void *model, const uint8_t *pixels, int mb, int32_t *scores);
    void *model;
} lb_scorer;

/* The first `count` test images, `mb` at a time. Reports progress; LB_ERR_INTERRUPTED. */
lb_status lb_scores_of_test(const lb_scorer *scorer, const lb_data *data, const lb_data_config *config, int64_t count, int mb,
                            lb_score_sums *sums);

#endif

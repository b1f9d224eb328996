#include "train/accuracy.h"

#include <math.h>

#include "lowbit/lowbit_rt.h"

int lb_score_rank(const int32_t *scores, int classes, int label) {
    int rank = 0;
    for (int j = 0; j < classes; j++)
        rank += scores[j] > scores[label] || (scores[j] == scores[label] && j < label);
    return rank;
}

void lb_scores_add(lb_score_sums *sums, const int32_t *scores, const int32_t *labels, int mb, int classes) {
    for (int i = 0; i < mb; i++) {
        const int32_t *s = scores + (size_t)i * (size_t)classes;
        int rank = lb_score_rank(s, classes, labels[i]);
        int32_t most = s[0], least = s[0];
        double sum = 0;
        for (int j = 1; j < classes; j++) {
            most = LB_MAX(most, s[j]);
            least = LB_MIN(least, s[j]);
        }
        for (int j = 0; j < classes; j++)
            sum += exp(((double)s[j] - most) / 65536);
        sums->images++;
        sums->cut += most == INT32_MAX || least == INT32_MIN;
        sums->top1 += rank < 1;
        sums->top5 += rank < 5;
        sums->loss += log(sum) - ((double)s[labels[i]] - most) / 65536;
    }
}

bool lb_scores_warn(lb_ctx *ctx, const char *name, const lb_score_sums *sums) {
    if (sums->cut > 0)
        lb_warn(ctx, "%s: scores of %lld of %lld images are cut off at +-%d, where their fixed point ends; make the last layer's "
                "weights and bias smaller", name, (long long)sums->cut, (long long)sums->images, LBRT_SCORE_LIMIT);
    return sums->cut > 0;
}

void lb_scores_metrics(const lb_score_sums *sums, lb_metrics *metrics) {
    double n = (double)LB_MAX(sums->images, (int64_t)1);
    *metrics = (lb_metrics){100 * (double)sums->top1 / n, 100 * (double)sums->top5 / n, sums->loss / n, sums->images};
}

static lb_status score_batches(const lb_scorer *s, const lb_data *data, const lb_data_config *config, int64_t count, int mb,
                               lb_pool *pool, lb_score_sums *sums) {
    uint8_t *pixels = lb_pool_alloc(pool, (size_t)mb, lb_shape_count(&s->input));
    int32_t *labels = lb_pool_alloc(pool, (size_t)mb, sizeof *labels);
    int32_t *scores = lb_pool_alloc(pool, (size_t)mb * (size_t)s->classes, sizeof *scores);
    if (!pixels || !labels || !scores)
        return LB_ERR_MEMORY;
    for (int64_t first = 0; first < count; first += mb) {
        const int n = (int)LB_MIN((int64_t)mb, count - first);
        LB_TRY(lb_test_batch(data, config, LB_TEST, first, n, s->input.h, s->input.w, pixels, labels));
        LB_TRY(s->score(s->model, pixels, n, scores));
        lb_scores_add(sums, scores, labels, n, s->classes);
        lb_progress(data->ctx, "testing", first + n, count);
        if (lb_interrupted(data->ctx))
            return lb_fail(data->ctx, LB_ERR_INTERRUPTED, "interrupted while testing");
    }
    return LB_OK;
}

lb_status lb_scores_of_test(const lb_scorer *scorer, const lb_data *data, const lb_data_config *config, int64_t count, int mb,
                            lb_score_sums *sums) {
    lb_pool pool;
    lb_pool_init(&pool, data->ctx);
    const lb_status status = score_batches(scorer, data, config, count, mb, &pool, sums);
    lb_pool_free(&pool);
    return status;
}

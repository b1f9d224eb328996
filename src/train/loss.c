#include "train/loss.h"

#include <math.h>

/* One image. Returns its loss; diff (may be NULL) is dL/dlogits * factor. */
static double cross_entropy(const float *y, int label, int classes, double smoothing, float *diff, double factor) {
    double most = y[0], sum = 0, total = 0;
    for (int j = 1; j < classes; j++)
        most = y[j] > most ? y[j] : most;
    for (int j = 0; j < classes; j++) {
        sum += exp(y[j] - most);
        total += y[j] - most;
    }
    double log_sum = log(sum);
    if (diff)
        for (int j = 0; j < classes; j++) {
            double target = smoothing / classes + (j == label ? 1 - smoothing : 0);
            diff[j] = (float)((exp(y[j] - most - log_sum) - target) * factor);
        }
    double loss = log_sum - (1 - smoothing) * (y[label] - most);
    return smoothing > 0 ? loss - smoothing * total / classes : loss;
}

static double squared_hinge(const float *y, int label, int classes, float *diff, double factor) {
    double loss = 0;
    for (int j = 0; j < classes; j++) {
        double t = j == label ? 1 : -1, margin = 1 - t * y[j];
        if (margin < 0)
            margin = 0; /* NaN stays */
        loss += margin * margin;
        if (diff)
            diff[j] = (float)(-2 * t * margin / classes * factor);
    }
    return loss / classes;
}

double lb_loss(lb_loss_kind kind, float smoothing, const float *logits, const int32_t *labels, int mb, int classes, float *diff,
               int64_t *correct) {
    double loss = 0;
    int64_t right = 0;
    for (int i = 0; i < mb; i++) {
        const float *y = logits + (size_t)i * (size_t)classes;
        float *d = diff ? diff + (size_t)i * (size_t)classes : NULL;
        loss += kind == LB_LOSS_CROSS_ENTROPY ? cross_entropy(y, labels[i], classes, smoothing, d, 1.0 / mb)
                                              : squared_hinge(y, labels[i], classes, d, 1.0 / mb);
        right += correct && lb_logit_rank(y, classes, labels[i]) == 0;
    }
    if (correct)
        *correct = right;
    return loss / mb;
}

/* log of the sum of e^(y / T), y's largest taken out: log softmax(y / T)_j = (y_j - most) / T - this. */
static double log_sum(const float *y, int classes, double temperature, float *most) {
    double sum = 0;
    *most = y[0];
    for (int j = 1; j < classes; j++)
        *most = y[j] > *most ? y[j] : *most;
    for (int j = 0; j < classes; j++)
        sum += exp((double)(y[j] - *most) / temperature);
    return log(sum);
}

static double kl(const float *y, const float *target, int classes, double temperature, float *diff, double factor) {
    float most_y, most_t;
    const double sum_y = log_sum(y, classes, temperature, &most_y), sum_t = log_sum(target, classes, temperature, &most_t);
    double loss = 0;
    for (int j = 0; j < classes; j++) {
        const double q = (double)(y[j] - most_y) / temperature - sum_y, t = (double)(target[j] - most_t) / temperature - sum_t;
        loss += exp(t) * (t - q);
        diff[j] += (float)(temperature * (exp(q) - exp(t)) * factor);
    }
    return temperature * temperature * loss;
}

static double mse(const float *y, const float *target, int classes, float *diff, double factor) {
    double loss = 0;
    for (int j = 0; j < classes; j++) {
        const double d = (double)y[j] - (double)target[j];
        loss += d * d;
        diff[j] += (float)(2 * d / classes * factor);
    }
    return loss / classes;
}

double lb_distill_loss_add(lb_distill_loss kind, float temperature, float weight, const float *logits, const float *target, int mb,
                           int classes, float *diff) {
    const double factor = (double)weight / mb;
    double loss = 0;
    for (int i = 0; i < mb; i++) {
        const size_t at = (size_t)i * (size_t)classes;
        loss += kind == LB_DISTILL_KL ? kl(logits + at, target + at, classes, (double)temperature, diff + at, factor)
                                      : mse(logits + at, target + at, classes, diff + at, factor);
    }
    return factor * loss;
}

int lb_logit_rank(const float *logits, int classes, int label) {
    int rank = 0;
    float own = logits[label];
    for (int j = 0; j < classes; j++)
        rank += !(logits[j] < own || (logits[j] == own && j >= label)); /* NaN anywhere counts against the label */
    return own != own ? classes - 1 : rank;
}

#include "train/schedule.h"

#include <math.h>

static const double pi = 3.14159265358979323846;
/* A recipe's numbers are floats: 0.1 epochs of 100 steps are 10.00000015. */
static const double rounding = 1 + 1e-6;

double lb_schedule_lr(const lb_train_config *train, int64_t step, int64_t steps_per_epoch, int64_t total_steps) {
    const lb_schedule_config *c = &train->schedule;
    double lr = train->optimizer.lr, end = c->lr_end, s = (double)step, n = (double)steps_per_epoch;
    double warm = c->warmup * n, rest = (double)total_steps - warm;
    double t = rest > 0 ? (s - warm) / rest : s < warm ? 0 : 1;
    t = LB_MAX(0.0, LB_MIN(t, 1.0));
    switch (c->name) {
    case LB_SCHED_CONSTANT:
        break;
    case LB_SCHED_STEP:
        lr *= pow(c->gamma, floor(s * rounding / (c->every * n)));
        break;
    case LB_SCHED_MULTISTEP:
        for (int i = 0; i < c->nmilestones; i++)
            if (c->milestones[i] * n <= s * rounding)
                lr *= c->gamma;
        break;
    case LB_SCHED_COSINE:
        lr = end + (lr - end) * (1 + cos(pi * t)) / 2;
        break;
    case LB_SCHED_POLYNOMIAL:
        lr = end + (lr - end) * pow(1 - t, c->power);
        break;
    case LB_SCHED_EXPONENTIAL:
        lr *= pow(end / lr, t);
        break;
    }
    return s + 1 < warm ? lr * (s + 1) / warm : lr;
}

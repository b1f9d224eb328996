/* Learning rate as a pure function of the step.
 *
 * With s the step of the stage from 0, T its steps in all, n the steps of an epoch, W = warmup * n, and t = (s - W) / (T - W)
 * clipped to 0..1:
 *
 *     lr(s) = min(1, (s + 1) / W) * f(t)           (the first factor is 1 without warm-up)
 *     constant      f = lr
 *     step          f = lr * gamma^floor(s / (every * n))
 *     multistep     f = lr * gamma^(number of milestones m with m * n <= s)
 *     cosine        f = lr_end + (lr - lr_end) * (1 + cos(pi t)) / 2
 *     polynomial    f = lr_end + (lr - lr_end) * (1 - t)^power
 *     exponential   f = lr * (lr_end / lr)^t       (lr and lr_end above 0)
 *
 * Without warm-up step 0 has lr itself, and step T, which is never trained, would have lr_end: as PyTorch's schedulers when they
 * are stepped after every batch. */
#ifndef LB_SCHEDULE_H
#define LB_SCHEDULE_H

#include "recipe/config.h"

double lb_schedule_lr(const lb_train_config *train, int64_t step, int64_t steps_per_epoch, int64_t total_steps);

#endif

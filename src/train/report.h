/* What a training run says of itself: progress, and each evaluation as a line of text, in metrics.jsonl and for TensorBoard. */
#ifndef LB_TRAIN_REPORT_H
#define LB_TRAIN_REPORT_H

#include "train/trainer.h"

/* How far and how fast a stage goes. */
typedef struct lb_pace {
    int64_t epoch_steps, stage_steps;
    int64_t steps_before;    /* at the last evaluation, or where this process began */
    double started;          /* when that was, lb_now() */
    double last_report;      /* of lb_report_step */
} lb_pace;

/* Images per second since `started`; NaN before the first step. */
double lb_pace_rate(const lb_trainer *trainer, const lb_pace *pace);

/* Progress after a step, at most ten times a second. */
void lb_report_step(const lb_trainer *trainer, lb_pace *pace);

/* An evaluation: `test`, and what the trainer has summed up since the last one. `rate`: lb_pace_rate before it began. */
lb_status lb_report_epoch(lb_trainer *trainer, const lb_pace *pace, const lb_metrics *test, double lr, double rate);

/* Fraction of the weights of convolutions and linear layers whose sign changed since the last call. */
double lb_sign_flips(lb_trainer *trainer);

#endif

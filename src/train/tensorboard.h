/* Event files for TensorBoard: records of length, masked CRC-32C of it, an Event message (event.proto), masked CRC-32C of that. */
#ifndef LB_TRAIN_TENSORBOARD_H
#define LB_TRAIN_TENSORBOARD_H

#include "core/core.h"

typedef struct lb_tensorboard lb_tensorboard;

/* Starts a new event file events.out.tfevents.<time>.<host>.<pid> in `dir` (which is made if needed), sorted behind those already
 * there. Of those TensorBoard will forget every step after `resume_step`; -1 forgets all. A failure to write (LB_ERR_IO) sticks:
 * later calls return it again and write nothing, since a torn record would spoil what follows. */
lb_status lb_tensorboard_open(lb_ctx *ctx, const char *dir, int64_t resume_step, lb_tensorboard **tb);

lb_status lb_tensorboard_scalar(lb_tensorboard *tb, const char *tag, int64_t step, double value); /* stored as f32 */

/* The distribution of values (count) in TensorBoard's buckets, each 1.1 times as wide as the one before. Values that are not finite
 * are left out. */
lb_status lb_tensorboard_histogram(lb_tensorboard *tb, const char *tag, int64_t step, const float *values, size_t count);

/* What was given so far to the file. */
lb_status lb_tensorboard_flush(lb_tensorboard *tb);

/* Flushes, closes and frees, also when it returns a failure. NULL is fine. */
lb_status lb_tensorboard_close(lb_tensorboard *tb);

#endif

/* The run's log as JSON lines: one object per line, appended and flushed, so that it can be followed while training runs. */
#ifndef LB_TRAIN_JSONL_H
#define LB_TRAIN_JSONL_H

#include <jansson.h>

#include "core/core.h"

typedef struct lb_jsonl lb_jsonl;

/* Opens for appending. Lines whose "step" is above `resume_step` are removed first, and what a killed run left half written, and
 * the line "done" of a run that goes on; a resumed run's log then equals that of a run never stopped. -1 starts an empty log. */
lb_status lb_jsonl_open(lb_ctx *ctx, const char *path, int64_t resume_step, lb_jsonl **log);

/* Writes one object (borrowed) as a line. A failure to write (LB_ERR_IO) sticks. NULL, what jansson gives when it has no memory, is
 * LB_ERR_MEMORY. */
lb_status lb_jsonl_write(lb_jsonl *log, const json_t *object);

/* A number for such an object: JSON has no NaN and infinity, they become null. */
json_t *lb_json_number(double value);

/* Closes and frees. Every line is out already, so nothing can fail here. NULL is fine. */
void lb_jsonl_destroy(lb_jsonl *log);

#endif

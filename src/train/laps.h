/* A stopwatch inside a training step: what has passed since the last lap belongs to one pass of one operator. Without a stopwatch
 * (NULL) a lap is one test of a pointer. */
#ifndef LB_LAPS_H
#define LB_LAPS_H

#include "core/core.h"

/* Rows of cells. From LB_LAP_STEPS on: the plan's steps in order. */
enum { LB_LAP_DATA, LB_LAP_WEIGHTS, LB_LAP_LOSS, LB_LAP_OPTIMIZER, LB_LAP_STEPS };

typedef struct lb_laps {
    double (*clock)(void);
    double last;     /* clock() at the last lap */
    double *seconds; /* (LB_LAP_STEPS + nsteps, LB_PASSES) of the step that is being done, added up */
} lb_laps;

static inline void lb_lap(lb_laps *laps, int row, lb_pass pass) {
    if (!laps)
        return;
    double time = laps->clock();
    laps->seconds[row * LB_PASSES + (int)pass] += time - laps->last;
    laps->last = time;
}

#endif

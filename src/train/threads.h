/* Threads that OpenMP will want. */
#ifndef LB_THREADS_H
#define LB_THREADS_H

#include "core/core.h"

/* LB_ERR_MEMORY if the system has no room for `threads` of them at the same time, where OpenMP would print a line and end the
 * process; else they are started. To be called once memory is taken, before the first parallel region. It can still end the process
 * later: it lets threads go that a region has no use for, and starts others for the next one. */
lb_status lb_start_threads(lb_ctx *ctx, int threads);

#endif

/* Time and what is made of it. */
#include <stdlib.h>
#include <time.h>

#include "core/core.h"

static double read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double lb_now(void) { return read_clock(CLOCK_MONOTONIC); }
double lb_cpu_time(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }
double lb_thread_time(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double lb_median(double *values, size_t count) {
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

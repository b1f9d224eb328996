/* Counts instructions where the machine can: -1 where it cannot, or when there were too many. */
#ifndef CYCLES_H
#define CYCLES_H

#include <stdint.h>

void start_counting(void);
int64_t stop_counting(void);

#endif

/* Generated C, compiled here and loaded into this process: the way of verifying it, and of testing it. */
#ifndef LB_COMPILED_H
#define LB_COMPILED_H

#include "deploy/packed.h"

typedef struct lb_compiled lb_compiled;

/* Generates into a temporary directory and compiles with $CC, or cc; `flags` are more arguments for it, ending with NULL. If there
 * is no such compiler, *compiled is NULL and the result LB_OK. The model is borrowed. */
lb_status lb_compiled_create(lb_packed *model, const char *const *flags, lb_compiled **compiled);
void lb_compiled_destroy(lb_compiled *compiled);

/* pixels (mb, h, w, c) to scores (mb, classes), on all threads, each with an arena of its own. */
void lb_compiled_scores(const lb_compiled *compiled, const uint8_t *pixels, int mb, int32_t *scores);

#endif

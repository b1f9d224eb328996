/* The integer epilogue of one pixel (model.h has its rules). Kernels of every ISA may use it. */
#ifndef LBRT_EPILOGUE_H
#define LBRT_EPILOGUE_H

#include "internal.h"

/* v: (c) accumulators, destroyed. pixel: index of the pixel in the batch; res and dst are the whole batch's tensors. */
void lbrt_epilogue_row(const lbrt_site *site, int32_t *restrict v, const void *res, void *restrict dst, size_t pixel);

/* `count` integers from element `at` of an integer tensor, widened. */
void lbrt_widen32(const void *src, int32_t type, size_t at, size_t count, int32_t *restrict dst);
void lbrt_widen16(const void *src, int32_t type, size_t at, size_t count, int16_t *restrict dst); /* all must fit */

/* `count` values that are known to fit, to element `at` of an integer tensor. */
void lbrt_narrow(const int32_t *restrict src, size_t count, void *restrict dst, int32_t type, size_t at);

#endif

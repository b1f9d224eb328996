/* Winograd's convolutions (train/simd/winograd.h) on all threads: what conv.c uses instead of oneDNN where they are faster. */
#ifndef LB_WINOGRAD_H
#define LB_WINOGRAD_H

#include "train/backend/backend.h"

typedef struct lb_winograd lb_winograd;

/* *winograd is NULL where these kernels cannot do it or oneDNN is as good or better: other kernels than 3x3 with stride 1 and no
 * dilation, channels that are no multiples of 16, processors without the vector kernels or with matrix tiles (AMX). */
lb_status lb_winograd_create(lb_ctx *ctx, const lb_conv_dims *dims, lb_winograd **winograd);
void lb_winograd_destroy(lb_winograd *winograd);
size_t lb_winograd_scratch(const lb_winograd *winograd); /* bytes that each call of the passes below needs, aligned to LB_ALIGN */

/* weights: (oc, 3, 3, ic) f32. True if the forward pass with them rounds no more than a direct one does: in f32, or where weights
 * and sources (at most `reach` in magnitude; 0: any numbers) are whole and so small that nothing is rounded before the result is
 * stored. If not, there must be no forward pass. */
bool lb_winograd_set_weights(lb_winograd *winograd, const float *weights, float reach);

/* As the passes of backend.h; the same bits on any number of threads. */
void lb_winograd_forward(lb_winograd *winograd, const void *src, void *dst, void *scratch);
void lb_winograd_backward_data(lb_winograd *winograd, const void *diff_dst, void *diff_src, void *scratch);
void lb_winograd_backward_weights(lb_winograd *winograd, const void *src, const void *diff_dst, float *diff_weights, void *scratch);

#endif

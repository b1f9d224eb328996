/* Convolutions by matrix registers (train/simd/tiles.h) on all threads: what conv.c uses instead of oneDNN where there is AMX. */
#ifndef LB_TILES_BACKEND_H
#define LB_TILES_BACKEND_H

#include "train/backend/backend.h"

typedef struct lb_tiles lb_tiles;

/* *tiles is NULL where no pass can be done so: other types than bf16, linear layers, groups, dilation, two strides, channels that
 * simd/tiles.h does not take, 1x1 kernels with padding, processors without AMX. */
lb_status lb_tiles_create(lb_ctx *ctx, const lb_conv_dims *dims, lb_tiles **tiles);
void lb_tiles_destroy(lb_tiles *tiles);
/* Which passes it does, the others are left to oneDNN; and which of them by images: the gradient of many weights is not, whose sums
 * by part would take longer than they save. */
bool lb_tiles_does(const lb_tiles *tiles, lb_pass pass);
bool lb_tiles_by_images(const lb_tiles *tiles, lb_pass pass);
size_t lb_tiles_scratch(const lb_tiles *tiles); /* bytes that one thread needs, a multiple of LB_ALIGN */
size_t lb_tiles_parts_size(const lb_tiles *tiles); /* bytes of the gradients of the weights of all parts */

/* weights: (oc, kh, kw, ic) f32. */
void lb_tiles_set_weights(lb_tiles *tiles, const float *weights);

/* As the passes by images of backend.h. scratch: this thread's. parts: (lb_parts(), oc, kh, kw, ic), of one convolution
 * at a time. */
void lb_tiles_forward(const lb_tiles *tiles, const lb_image_range *images, const void *src, void *dst, void *scratch);
void lb_tiles_backward_data(const lb_tiles *tiles, const lb_image_range *images, const void *diff_dst, void *diff_src,
                            void *scratch);
void lb_tiles_backward_weights(const lb_tiles *tiles, const lb_image_range *images, const void *src, const void *diff_dst,
                               float *parts, void *scratch);
void lb_tiles_add_parts(const lb_tiles *tiles, const float *parts, float *diff_weights);
/* The whole pass, the same bits on any number of threads. scratch: that of all threads. */
void lb_tiles_backward_all_weights(const lb_tiles *tiles, const void *src, const void *diff_dst, float *diff_weights,
                                   void *scratch);

#endif

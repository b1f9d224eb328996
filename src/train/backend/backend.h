/* The only door to oneDNN for training: convolutions, linear layers and pooling, forward and backward, on NHWC tensors.
 *
 * Primitives are created once per layer and batch size; executing them allocates nothing. Tensors are bf16 or f32; weights come and
 * go as plain f32 in (oc, kh, kw, ic / groups) order and are reordered to what the primitives like. */
#ifndef LB_BACKEND_H
#define LB_BACKEND_H

#include "core/core.h"

typedef enum lb_dtype { LB_F32, LB_BF16 } lb_dtype;
static inline size_t lb_dtype_size(lb_dtype type) { return type == LB_F32 ? 4 : 2; }

/* True if this CPU (and ONEDNN_MAX_CPU_ISA) multiplies bf16 in hardware. */
bool lb_backend_has_bf16(void);

/* Floating-point operations per second of a large matrix product, the fastest of several. */
lb_status lb_backend_peak(lb_ctx *ctx, lb_dtype type, double *flops_per_s);

typedef struct lb_backend lb_backend;
lb_status lb_backend_create(lb_ctx *ctx, lb_backend **backend);
void lb_backend_destroy(lb_backend *backend);

/* Scratch that all primitives of a backend share; call once after the last primitive was created. */
lb_status lb_backend_reserve(lb_backend *backend);

/* A convolution, or with kh = kw = ih = iw = 1 and `linear` an inner product. */
typedef struct lb_conv_dims {
    int mb, ih, iw, ic, oh, ow, oc;
    int kh, kw, sh, sw, pt, pl, pb, pr, groups, gap_h, gap_w;
    bool linear;
    lb_dtype src_type;  /* of src, diff_src, diff_dst and the reordered weights */
    lb_dtype dst_type;  /* of dst */
    bool backward_data; /* false for the first layer: nobody wants its diff_src */
} lb_conv_dims;

/* The kernels of one convolution. The backend is borrowed and must outlive them. LB_ERR_BACKEND: oneDNN cannot make them. */
typedef struct lb_conv_prims lb_conv_prims;
lb_status lb_conv_prims_create(lb_backend *backend, const lb_conv_dims *dims, lb_conv_prims **prims);
void lb_conv_prims_destroy(lb_conv_prims *prims);

/* weights: (oc, kh, kw, ic / groups) f32. `reach`: the largest magnitude in src if that will hold whole numbers, else 0. */
lb_status lb_conv_set_weights(lb_conv_prims *prims, const float *weights, float reach);
/* src (mb, ih, iw, ic), dst (mb, oh, ow, oc). For passes that are not done by images. */
lb_status lb_conv_forward(lb_conv_prims *prims, const void *src, void *dst);
lb_status lb_conv_backward_data(lb_conv_prims *prims, const void *diff_dst, void *diff_src);
/* diff_weights: (oc, kh, kw, ic / groups) f32, overwritten. */
lb_status lb_conv_backward_weights(lb_conv_prims *prims, const void *src, const void *diff_dst, float *diff_weights);

/* Passes by images: what one thread does of a pass, so that others can follow on the same images while these are in its cache.
 * A batch is cut into lb_parts() parts, parts into ranges that are taken in order. Sums over images are added up by part: they are
 * the same bits on up to 8 threads, and on any number beyond. */
#define LB_MAX_PARTS 64
static inline int lb_parts(int threads, int mb) { return LB_MIN(threads <= 8 ? 8 : LB_MAX_PARTS, mb); }

typedef struct lb_image_range {
    int first, last;   /* of the batch */
    int part;
    bool begins;       /* the first of its part */
    int thread;
} lb_image_range;

bool lb_conv_by_images(const lb_conv_prims *prims, lb_pass pass);
/* Images [first, last) of whole tensors. Weights' gradients stay with the backend until lb_conv_add_parts: of one convolution at a
 * time, and no whole pass may come between. */
void lb_conv_forward_images(lb_conv_prims *prims, const lb_image_range *images, const void *src, void *dst);
void lb_conv_backward_data_images(lb_conv_prims *prims, const lb_image_range *images, const void *diff_dst, void *diff_src);
void lb_conv_backward_weights_images(lb_conv_prims *prims, const lb_image_range *images, const void *src, const void *diff_dst);
void lb_conv_add_parts(lb_conv_prims *prims, float *diff_weights);

typedef struct lb_pool_dims {
    int mb, ih, iw, c, oh, ow;
    int kh, kw, sh, sw, pt, pl, pb, pr;
    bool max;            /* else average, padding counted as zeros or, */
    bool inside;         /* not at all */
    lb_dtype type;
} lb_pool_dims;

/* As lb_conv_prims. */
typedef struct lb_pool_prims lb_pool_prims;
lb_status lb_pool_prims_create(lb_backend *backend, const lb_pool_dims *dims, lb_pool_prims **prims);
void lb_pool_prims_destroy(lb_pool_prims *prims);
size_t lb_pool_workspace(const lb_pool_prims *prims); /* bytes that live from forward to backward */
lb_status lb_pool_forward(lb_pool_prims *prims, const void *src, void *dst, void *workspace);
lb_status lb_pool_backward(lb_pool_prims *prims, const void *diff_dst, void *diff_src, const void *workspace);

#endif

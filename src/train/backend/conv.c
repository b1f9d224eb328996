#include "train/backend/internal.h"
#include "train/backend/tiles.h"
#include "train/backend/winograd.h"

struct lb_conv_prims {
    lb_backend *backend;
    lb_conv_dims dims;
    lb_prim forward, backward_data, backward_weights;
    lb_prim to_forward, to_backward;  /* f32 weights -> what the primitives like */
    lb_prim from_diff;                /* diff weights -> plain f32 */
    void *weights, *weights_backward; /* reordered */
    void *diff;                       /* diff weights in the primitive's layout */
    bool plain_diff;                  /* that layout is plain f32 already */
    lb_winograd *winograd;            /* NULL, or what does both backward passes, and the forward pass where it is exact */
    bool winograd_forward;            /* with the weights of now */
    lb_tiles *tiles;                  /* NULL, or what does some passes; if it does the forward pass, there is no winograd */
};

typedef union lb_op_desc_any {
    dnnl_convolution_desc_t conv;
    dnnl_inner_product_desc_t linear;
} lb_op_desc_any;

static lb_status nhwc(lb_backend *backend, int mb, int h, int w, int c, lb_dtype type, bool flat, dnnl_memory_desc_t *md) {
    dnnl_dims_t dims = {mb, c, h, w};
    LB_DNNL(backend, dnnl_memory_desc_init_by_tag(md, flat ? 2 : 4, dims, lb_dnnl_type(type), flat ? dnnl_nc : dnnl_nhwc));
    return LB_OK;
}

/* Dims (oc, ic, kh, kw), or (groups, oc / groups, ic / groups, kh, kw). */
static int weight_dims(const lb_conv_dims *d, dnnl_dims_t dims) {
    int n = 0;
    if (d->groups > 1)
        dims[n++] = d->groups;
    dims[n++] = d->oc / d->groups;
    dims[n++] = d->ic / d->groups;
    if (!d->linear) {
        dims[n++] = d->kh;
        dims[n++] = d->kw;
    }
    return n;
}

/* The plain layout (oc, kh, kw, ic / groups). */
static lb_status plain_weights(lb_backend *backend, const lb_conv_dims *d, dnnl_memory_desc_t *md) {
    dnnl_dims_t dims;
    int n = weight_dims(d, dims);
    int64_t ic = d->ic / d->groups, filter = (int64_t)d->kh * d->kw * ic;
    dnnl_dims_t with_groups = {filter * (d->oc / d->groups), filter, 1, (int64_t)d->kw * ic, ic};
    LB_DNNL(backend, dnnl_memory_desc_init_by_strides(md, n, dims, dnnl_f32, with_groups + (d->groups == 1)));
    return LB_OK;
}

static lb_status describe(lb_backend *backend, const lb_conv_dims *d, lb_pass pass, lb_op_desc_any *op) {
    dnnl_memory_desc_t src, dst, weights;
    dnnl_dims_t dims, stride = {d->sh, d->sw}, gap = {d->gap_h, d->gap_w}, left = {d->pt, d->pl}, right = {d->pb, d->pr};
    LB_TRY(nhwc(backend, d->mb, d->ih, d->iw, d->ic, d->src_type, d->linear, &src));
    LB_TRY(nhwc(backend, d->mb, d->oh, d->ow, d->oc, pass == LB_PASS_FORWARD ? d->dst_type : d->src_type, d->linear, &dst));
    int n = weight_dims(d, dims);
    dnnl_data_type_t type = pass == LB_PASS_BACKWARD_WEIGHTS ? dnnl_f32 : lb_dnnl_type(d->src_type);
    LB_DNNL(backend, dnnl_memory_desc_init_by_tag(&weights, n, dims, type, dnnl_format_tag_any));
    dnnl_status_t status;
    if (d->linear)
        status = pass == LB_PASS_FORWARD
                     ? dnnl_inner_product_forward_desc_init(&op->linear, dnnl_forward_training, &src, &weights, NULL, &dst)
                 : pass == LB_PASS_BACKWARD_DATA
                     ? dnnl_inner_product_backward_data_desc_init(&op->linear, &src, &weights, &dst)
                     : dnnl_inner_product_backward_weights_desc_init(&op->linear, &src, &weights, NULL, &dst);
    else
        status = pass == LB_PASS_FORWARD
                     ? dnnl_dilated_convolution_forward_desc_init(&op->conv, dnnl_forward_training, dnnl_convolution_direct, &src,
                                                                  &weights, NULL, &dst, stride, gap, left, right)
                 : pass == LB_PASS_BACKWARD_DATA
                     ? dnnl_dilated_convolution_backward_data_desc_init(&op->conv, dnnl_convolution_direct, &src, &weights, &dst,
                                                                        stride, gap, left, right)
                     : dnnl_dilated_convolution_backward_weights_desc_init(&op->conv, dnnl_convolution_direct, &src, &weights, NULL,
                                                                           &dst, stride, gap, left, right);
    return lb_dnnl_check(backend, status, "describing a convolution");
}

/* oneDNN 2.6 unrolls its AMX kernel for the weights' gradient over a row. From 353 pixels on (3x3) it is wrong and writes before
 * the gradient, and from about 1000 on it is never done with being generated. */
#define AMX_MAX_ROW 320

/* Its bf16 kernels for the weights' gradient, AMX or not, are wrong where strides step over a whole row or column of the image
 * (they read beside it), and with gaps and more than 32 channels that do not fill the last 16. */
static bool is_odd(const lb_conv_dims *d) {
    const int ic = d->ic / d->groups;
    return d->src_type == LB_BF16 && (d->iw < d->sw || d->ih < d->sh || ((d->gap_h || d->gap_w) && ic > 32 && ic % 16));
}

/* In the names of implementations, what must not do this pass. */
static const char *unfit_for(const lb_conv_dims *d, lb_pass pass) {
    if (pass == LB_PASS_FORWARD)
        return LB_UNFIT_FORWARD;
    if (pass == LB_PASS_BACKWARD_DATA) /* wrong for 30 pixels, and more, if channels of dst are odd */
        return d->oc % 2 || d->oc / d->groups % 2 ? "bf16_1x1" : NULL;
    return is_odd(d) ? "avx512_core" : LB_MAX(d->iw, d->ow) > AMX_MAX_ROW ? "amx" : NULL;
}

static lb_status create_pass(lb_conv_prims *p, lb_pass pass, lb_prim *prim) {
    lb_op_desc_any op;
    LB_TRY(describe(p->backend, &p->dims, pass, &op));
    const const_dnnl_primitive_desc_t hint = pass == LB_PASS_FORWARD ? NULL : p->forward.desc;
    LB_TRY(lb_prim_create(p->backend, &op, hint, unfit_for(&p->dims, pass), prim));
    static const int args[3][3] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                   {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
                                   {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS}};
    for (int i = 0; i < 3; i++)
        LB_TRY(lb_prim_arg(p->backend, prim, args[pass][i]));
    return LB_OK;
}

static lb_status reordered(lb_conv_prims *p, const dnnl_memory_desc_t *plain, const dnnl_memory_desc_t *md, lb_prim *reorder,
                           void **memory) {
    *memory = lb_alloc(p->backend->ctx, dnnl_memory_desc_get_size(md), 1);
    if (!*memory)
        return LB_ERR_MEMORY;
    return lb_reorder_create(p->backend, plain, md, reorder);
}

/* Our own kernels, where there are some. */
static lb_status create_own(lb_conv_prims *p) {
    lb_backend *b = p->backend;
    LB_TRY(lb_tiles_create(b->ctx, &p->dims, &p->tiles));
    if (p->tiles) {
        b->thread_scratch = LB_MAX(b->thread_scratch, lb_tiles_scratch(p->tiles));
        b->parts_size = LB_MAX(b->parts_size, lb_tiles_parts_size(p->tiles));
        return LB_OK;
    }
    LB_TRY(lb_winograd_create(b->ctx, &p->dims, &p->winograd));
    if (p->winograd)
        b->scratch_size = LB_MAX(b->scratch_size, lb_winograd_scratch(p->winograd));
    return LB_OK;
}

static lb_status create(lb_conv_prims *p) {
    dnnl_memory_desc_t plain;
    LB_TRY(plain_weights(p->backend, &p->dims, &plain));
    LB_TRY(create_own(p));
    const bool data = p->dims.backward_data && !lb_tiles_does(p->tiles, LB_PASS_BACKWARD_DATA);
    if (lb_tiles_does(p->tiles, LB_PASS_BACKWARD_WEIGHTS) && !data) /* nothing is left to oneDNN */
        return LB_OK;
    LB_TRY(create_pass(p, LB_PASS_FORWARD, &p->forward));
    LB_TRY(reordered(p, &plain, lb_prim_md(&p->forward, DNNL_ARG_WEIGHTS), &p->to_forward, &p->weights));
    if (p->winograd)
        return LB_OK;
    if (data) {
        LB_TRY(create_pass(p, LB_PASS_BACKWARD_DATA, &p->backward_data));
        LB_TRY(reordered(p, &plain, lb_prim_md(&p->backward_data, DNNL_ARG_WEIGHTS), &p->to_backward, &p->weights_backward));
    }
    if (lb_tiles_does(p->tiles, LB_PASS_BACKWARD_WEIGHTS))
        return LB_OK;
    LB_TRY(create_pass(p, LB_PASS_BACKWARD_WEIGHTS, &p->backward_weights));
    const dnnl_memory_desc_t *diff = lb_prim_md(&p->backward_weights, DNNL_ARG_DIFF_WEIGHTS);
    p->plain_diff = dnnl_memory_desc_equal(diff, &plain);
    if (p->plain_diff)
        return LB_OK;
    p->diff = lb_alloc(p->backend->ctx, dnnl_memory_desc_get_size(diff), 1);
    if (!p->diff)
        return LB_ERR_MEMORY;
    return lb_reorder_create(p->backend, diff, &plain, &p->from_diff);
}

lb_status lb_conv_prims_create(lb_backend *backend, const lb_conv_dims *dims, lb_conv_prims **out) {
    *out = NULL;
    lb_conv_prims *p = lb_alloc(backend->ctx, 1, sizeof *p);
    if (!p)
        return LB_ERR_MEMORY;
    p->backend = backend;
    p->dims = *dims;
    lb_status status = create(p);
    if (status) {
        lb_conv_prims_destroy(p);
        return status;
    }
    *out = p;
    return LB_OK;
}

void lb_conv_prims_destroy(lb_conv_prims *p) {
    if (!p)
        return;
    lb_prim *prims[] = {&p->forward, &p->backward_data, &p->backward_weights, &p->to_forward, &p->to_backward, &p->from_diff};
    for (size_t i = 0; i < LB_COUNT(prims); i++)
        lb_prim_destroy(prims[i]);
    lb_winograd_destroy(p->winograd);
    lb_tiles_destroy(p->tiles);
    lb_free(p->backend->ctx, p->weights);
    lb_free(p->backend->ctx, p->weights_backward);
    lb_free(p->backend->ctx, p->diff);
    lb_free(p->backend->ctx, p);
}

lb_status lb_conv_set_weights(lb_conv_prims *p, const float *weights, float reach) {
    if (p->winograd) {
        p->winograd_forward = lb_winograd_set_weights(p->winograd, weights, reach);
        if (p->winograd_forward)
            return LB_OK;
    }
    if (p->tiles)
        lb_tiles_set_weights(p->tiles, weights);
    else
        LB_TRY(lb_prim_run(p->backend, &p->to_forward, (void *[]){(void *)weights, p->weights}));
    if (!p->backward_data.handle)
        return LB_OK;
    return lb_prim_run(p->backend, &p->to_backward, (void *[]){(void *)weights, p->weights_backward});
}

lb_status lb_conv_forward(lb_conv_prims *p, const void *src, void *dst) {
    if (p->winograd_forward)
        lb_winograd_forward(p->winograd, src, dst, p->backend->scratch);
    else
        return lb_prim_run(p->backend, &p->forward, (void *[]){(void *)src, p->weights, dst});
    return LB_OK;
}

lb_status lb_conv_backward_data(lb_conv_prims *p, const void *diff_dst, void *diff_src) {
    if (p->winograd)
        lb_winograd_backward_data(p->winograd, diff_dst, diff_src, p->backend->scratch);
    else
        return lb_prim_run(p->backend, &p->backward_data, (void *[]){(void *)diff_dst, p->weights_backward, diff_src});
    return LB_OK;
}

lb_status lb_conv_backward_weights(lb_conv_prims *p, const void *src, const void *diff_dst, float *diff_weights) {
    if (lb_tiles_does(p->tiles, LB_PASS_BACKWARD_WEIGHTS)) {
        lb_tiles_backward_all_weights(p->tiles, src, diff_dst, diff_weights, p->backend->scratch);
        return LB_OK;
    }
    if (p->winograd) {
        lb_winograd_backward_weights(p->winograd, src, diff_dst, diff_weights, p->backend->scratch);
        return LB_OK;
    }
    void *diff = p->plain_diff ? (void *)diff_weights : p->diff;
    LB_TRY(lb_prim_run(p->backend, &p->backward_weights, (void *[]){(void *)src, (void *)diff_dst, diff}));
    return p->plain_diff ? LB_OK : lb_prim_run(p->backend, &p->from_diff, (void *[]){diff, diff_weights});
}

/* ---- By images -------------------------------------------------------------------------------------------------------- */

/* As large for every convolution: threads may be at different ones of a queue. */
static void *scratch_of(const lb_backend *b, int thread) {
    return (unsigned char *)b->scratch + (size_t)thread * b->thread_scratch;
}
static float *parts_of(const lb_backend *b) { return scratch_of(b, lb_threads(b->ctx)); }

bool lb_conv_by_images(const lb_conv_prims *p, lb_pass pass) { return lb_tiles_by_images(p->tiles, pass); }

void lb_conv_forward_images(lb_conv_prims *p, const lb_image_range *images, const void *src, void *dst) {
    lb_tiles_forward(p->tiles, images, src, dst, scratch_of(p->backend, images->thread));
}

void lb_conv_backward_data_images(lb_conv_prims *p, const lb_image_range *images, const void *diff_dst, void *diff_src) {
    lb_tiles_backward_data(p->tiles, images, diff_dst, diff_src, scratch_of(p->backend, images->thread));
}

void lb_conv_backward_weights_images(lb_conv_prims *p, const lb_image_range *images, const void *src, const void *diff_dst) {
    lb_tiles_backward_weights(p->tiles, images, src, diff_dst, parts_of(p->backend), scratch_of(p->backend, images->thread));
}

void lb_conv_add_parts(lb_conv_prims *p, float *diff_weights) { lb_tiles_add_parts(p->tiles, parts_of(p->backend), diff_weights); }

#include "train/backend/internal.h"

struct lb_pool_prims {
    lb_backend *backend;
    bool max;
    lb_prim forward, backward;
};

static lb_status create(lb_pool_prims *p, const lb_pool_dims *d) {
    lb_backend *backend = p->backend;
    dnnl_memory_desc_t src, dst;
    dnnl_dims_t src_dims = {d->mb, d->c, d->ih, d->iw}, dst_dims = {d->mb, d->c, d->oh, d->ow};
    dnnl_dims_t kernel = {d->kh, d->kw}, stride = {d->sh, d->sw}, left = {d->pt, d->pl}, right = {d->pb, d->pr};
    LB_DNNL(backend, dnnl_memory_desc_init_by_tag(&src, 4, src_dims, lb_dnnl_type(d->type), dnnl_nhwc));
    LB_DNNL(backend, dnnl_memory_desc_init_by_tag(&dst, 4, dst_dims, lb_dnnl_type(d->type), dnnl_nhwc));
    dnnl_alg_kind_t alg = d->max      ? dnnl_pooling_max
                          : d->inside ? dnnl_pooling_avg_exclude_padding
                                      : dnnl_pooling_avg_include_padding;
    dnnl_pooling_desc_t op;
    LB_DNNL(backend, dnnl_pooling_forward_desc_init(&op, dnnl_forward_training, alg, &src, &dst, stride, kernel, left, right));
    LB_TRY(lb_prim_create(backend, &op, NULL, NULL, &p->forward));
    LB_TRY(lb_prim_arg(backend, &p->forward, DNNL_ARG_SRC));
    LB_TRY(lb_prim_arg(backend, &p->forward, DNNL_ARG_DST));
    if (d->max)
        LB_TRY(lb_prim_arg(backend, &p->forward, DNNL_ARG_WORKSPACE));
    LB_DNNL(backend, dnnl_pooling_backward_desc_init(&op, alg, &src, &dst, stride, kernel, left, right));
    LB_TRY(lb_prim_create(backend, &op, p->forward.desc, NULL, &p->backward));
    LB_TRY(lb_prim_arg(backend, &p->backward, DNNL_ARG_DIFF_DST));
    LB_TRY(lb_prim_arg(backend, &p->backward, DNNL_ARG_DIFF_SRC));
    return d->max ? lb_prim_arg(backend, &p->backward, DNNL_ARG_WORKSPACE) : LB_OK;
}

lb_status lb_pool_prims_create(lb_backend *backend, const lb_pool_dims *dims, lb_pool_prims **out) {
    *out = NULL;
    lb_pool_prims *p = lb_alloc(backend->ctx, 1, sizeof *p);
    if (!p)
        return LB_ERR_MEMORY;
    p->backend = backend;
    p->max = dims->max;
    lb_status status = create(p, dims);
    if (status) {
        lb_pool_prims_destroy(p);
        return status;
    }
    *out = p;
    return LB_OK;
}

void lb_pool_prims_destroy(lb_pool_prims *p) {
    if (!p)
        return;
    lb_prim_destroy(&p->forward);
    lb_prim_destroy(&p->backward);
    lb_free(p->backend->ctx, p);
}

size_t lb_pool_workspace(const lb_pool_prims *p) {
    return p->max ? dnnl_memory_desc_get_size(lb_prim_md(&p->forward, DNNL_ARG_WORKSPACE)) : 0;
}

lb_status lb_pool_forward(lb_pool_prims *p, const void *src, void *dst, void *workspace) {
    return lb_prim_run(p->backend, &p->forward, (void *[]){(void *)src, dst, workspace});
}

lb_status lb_pool_backward(lb_pool_prims *p, const void *diff_dst, void *diff_src, const void *workspace) {
    return lb_prim_run(p->backend, &p->backward, (void *[]){(void *)diff_dst, diff_src, (void *)workspace});
}

/* What a profile is measured by. */
#include "train/backend/internal.h"

/* C = A B of 512 x 512 matrices: large enough for full speed, short enough to run undisturbed now and then on a busy machine. */
enum { SIDE = 512 };

static lb_status create(lb_backend *backend, lb_dtype type, lb_prim *prim) {
    const dnnl_dims_t dims = {SIDE, SIDE};
    dnnl_memory_desc_t src, weights, dst;
    dnnl_matmul_desc_t desc;
    LB_DNNL(backend, dnnl_memory_desc_init_by_tag(&src, 2, dims, lb_dnnl_type(type), dnnl_ab));
    LB_DNNL(backend, dnnl_memory_desc_init_by_tag(&weights, 2, dims, lb_dnnl_type(type), dnnl_format_tag_any));
    LB_DNNL(backend, dnnl_memory_desc_init_by_tag(&dst, 2, dims, lb_dnnl_type(type), dnnl_ab));
    LB_DNNL(backend, dnnl_matmul_desc_init(&desc, &src, &weights, NULL, &dst));
    LB_TRY(lb_prim_create(backend, &desc, NULL, NULL, prim));
    LB_TRY(lb_prim_arg(backend, prim, DNNL_ARG_SRC));
    LB_TRY(lb_prim_arg(backend, prim, DNNL_ARG_WEIGHTS));
    return lb_prim_arg(backend, prim, DNNL_ARG_DST);
}

static lb_status measure(lb_backend *backend, lb_dtype type, lb_prim *prim, lb_pool *pool, double *flops_per_s) {
    LB_TRY(create(backend, type, prim));
    LB_TRY(lb_backend_reserve(backend));
    void *handles[3];
    for (int i = 0; i < 3; i++) {
        handles[i] = lb_pool_alloc(pool, dnnl_memory_desc_get_size(lb_prim_md(prim, prim->args[i + 1].arg)), 1);
        if (!handles[i])
            return LB_ERR_MEMORY;
    }
    double least = 0;
    for (int i = 0; i < 50; i++) {
        const double begin = lb_now();
        LB_TRY(lb_prim_run(backend, prim, handles));
        const double time = lb_now() - begin;
        least = least > 0 ? LB_MIN(least, time) : time;
    }
    *flops_per_s = 2.0 * SIDE * SIDE * SIDE / LB_MAX(least, 1e-9);
    return LB_OK;
}

lb_status lb_backend_peak(lb_ctx *ctx, lb_dtype type, double *flops_per_s) {
    *flops_per_s = 0;
    lb_backend *backend;
    LB_TRY(lb_backend_create(ctx, &backend));
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    lb_prim prim = {0};
    const lb_status status = measure(backend, type, &prim, &pool, flops_per_s);
    lb_prim_destroy(&prim);
    lb_pool_free(&pool);
    lb_backend_destroy(backend);
    return status;
}

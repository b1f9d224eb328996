#include "train/backend/internal.h"

#include <omp.h>
#include <sys/mman.h>

bool lb_backend_has_bf16(void) {
    switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_avx512_core_bf16:
    case dnnl_cpu_isa_avx512_core_amx:
        return true;
    default:
        return false;
    }
}

lb_status lb_dnnl_check(lb_backend *backend, dnnl_status_t status, const char *what) {
    if (status == dnnl_success)
        return LB_OK;
    if (status == dnnl_out_of_memory)
        return lb_fail(backend->ctx, LB_ERR_MEMORY, "out of memory in oneDNN (%.80s); try a smaller train.batch", what);
    return lb_fail(backend->ctx, LB_ERR_BACKEND, "oneDNN: status %d from %.200s", (int)status, what);
}

dnnl_status_t lb_dnnl_generate(dnnl_primitive_t *primitive, const_dnnl_primitive_desc_t desc) {
    const size_t room = (size_t)16 << 20; /* its kernels take 256 KB each, and it writes them unchecked */
    void *probe = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED)
        return dnnl_out_of_memory;
    munmap(probe, room);
    return dnnl_primitive_create(primitive, desc);
}

lb_status lb_backend_create(lb_ctx *ctx, lb_backend **out) {
    *out = NULL;
    lb_backend *backend = lb_alloc(ctx, 1, sizeof *backend);
    if (!backend)
        return LB_ERR_MEMORY;
    backend->ctx = ctx;
    omp_set_num_threads(lb_threads(ctx)); /* this thread's setting, which oneDNN reads; lb_trainer_run and _bench put it back */
    lb_status status = lb_dnnl_check(backend, dnnl_engine_create(&backend->engine, dnnl_cpu, 0), "dnnl_engine_create");
    if (!status)
        status = lb_dnnl_check(backend, dnnl_stream_create(&backend->stream, backend->engine, dnnl_stream_default_flags),
                               "dnnl_stream_create");
    if (!status)
        status = lb_dnnl_check(backend, dnnl_primitive_attr_create(&backend->attr), "dnnl_primitive_attr_create");
    if (!status)
        status = lb_dnnl_check(backend, dnnl_primitive_attr_set_scratchpad_mode(backend->attr, dnnl_scratchpad_mode_user),
                               "dnnl_primitive_attr_set_scratchpad_mode");
    if (status) {
        lb_backend_destroy(backend);
        return status;
    }
    *out = backend;
    return LB_OK;
}

void lb_backend_destroy(lb_backend *backend) {
    if (!backend)
        return;
    if (backend->attr)
        dnnl_primitive_attr_destroy(backend->attr);
    if (backend->stream)
        dnnl_stream_destroy(backend->stream);
    if (backend->engine)
        dnnl_engine_destroy(backend->engine);
    lb_free(backend->ctx, backend->scratch);
    lb_free(backend->ctx, backend);
}

lb_status lb_backend_reserve(lb_backend *backend) {
    const size_t by_images = (size_t)lb_threads(backend->ctx) * backend->thread_scratch + backend->parts_size;
    lb_free(backend->ctx, backend->scratch);
    backend->scratch = lb_alloc(backend->ctx, LB_MAX(LB_MAX(backend->scratch_size, by_images), (size_t)1), 1);
    return backend->scratch ? LB_OK : LB_ERR_MEMORY;
}

const dnnl_memory_desc_t *lb_prim_md(const lb_prim *prim, int arg) {
    if (arg == DNNL_ARG_SCRATCHPAD)
        return dnnl_primitive_desc_query_md(prim->desc, dnnl_query_scratchpad_md, 0);
    return dnnl_primitive_desc_query_md(prim->desc, dnnl_query_exec_arg_md, arg);
}

lb_status lb_prim_arg(lb_backend *backend, lb_prim *prim, int arg) {
    dnnl_memory_t memory;
    LB_DNNL(backend, dnnl_memory_create(&memory, lb_prim_md(prim, arg), backend->engine, DNNL_MEMORY_NONE));
    prim->args[prim->nargs++] = (dnnl_exec_arg_t){arg, memory};
    return LB_OK;
}

lb_status lb_prim_finish(lb_backend *backend, lb_prim *prim) {
    const dnnl_status_t status = lb_dnnl_generate(&prim->handle, prim->desc);
    if (status != dnnl_success && status != dnnl_out_of_memory)
        return lb_fail(backend->ctx, LB_ERR_BACKEND,
                       "oneDNN has no kernel for a layer of this size (status %d); make model.input_size, train.batch or "
                       "model.width smaller",
                       (int)status);
    LB_TRY(lb_dnnl_check(backend, status, "generating a kernel"));
    size_t scratch = dnnl_memory_desc_get_size(lb_prim_md(prim, DNNL_ARG_SCRATCHPAD));
    backend->scratch_size = LB_MAX(backend->scratch_size, scratch);
    return lb_prim_arg(backend, prim, DNNL_ARG_SCRATCHPAD);
}

dnnl_status_t lb_dnnl_choose(dnnl_primitive_desc_t *desc, const_dnnl_op_desc_t op, const_dnnl_primitive_attr_t attr,
                             dnnl_engine_t engine, const_dnnl_primitive_desc_t hint, const char *unfit) {
    dnnl_primitive_desc_iterator_t at = NULL;
    dnnl_status_t status = dnnl_primitive_desc_iterator_create(&at, op, attr, engine, hint);
    *desc = NULL;
    while (status == dnnl_success) {
        const char *name = "";
        *desc = dnnl_primitive_desc_iterator_fetch(at);
        status = *desc ? dnnl_primitive_desc_query(*desc, dnnl_query_impl_info_str, 0, &name) : dnnl_out_of_memory;
        if (status != dnnl_success || !unfit || !strstr(name, unfit))
            break;
        dnnl_primitive_desc_destroy(*desc);
        *desc = NULL;
        status = dnnl_primitive_desc_iterator_next(at);
    }
    if (at)
        dnnl_primitive_desc_iterator_destroy(at);
    return status;
}

lb_status lb_prim_create(lb_backend *backend, const_dnnl_op_desc_t op, const_dnnl_primitive_desc_t hint, const char *unfit,
                         lb_prim *prim) {
    const dnnl_status_t status = lb_dnnl_choose(&prim->desc, op, backend->attr, backend->engine, hint, unfit);
    LB_TRY(lb_dnnl_check(backend, status, "choosing an implementation"));
    return lb_prim_finish(backend, prim);
}

lb_status lb_reorder_create(lb_backend *backend, const dnnl_memory_desc_t *src, const dnnl_memory_desc_t *dst, lb_prim *prim) {
    LB_DNNL(backend, dnnl_reorder_primitive_desc_create(&prim->desc, src, backend->engine, dst, backend->engine, backend->attr));
    LB_TRY(lb_prim_finish(backend, prim));
    LB_TRY(lb_prim_arg(backend, prim, DNNL_ARG_FROM));
    return lb_prim_arg(backend, prim, DNNL_ARG_TO);
}

lb_status lb_prim_run(lb_backend *backend, lb_prim *prim, void *const *handles) {
    LB_DNNL(backend, dnnl_memory_set_data_handle(prim->args[0].memory, backend->scratch));
    for (int i = 1; i < prim->nargs; i++)
        LB_DNNL(backend, dnnl_memory_set_data_handle(prim->args[i].memory, handles[i - 1]));
    return lb_dnnl_check(backend, dnnl_primitive_execute(prim->handle, backend->stream, prim->nargs, prim->args),
                         "dnnl_primitive_execute");
}

void lb_prim_destroy(lb_prim *prim) {
    for (int i = 0; i < prim->nargs; i++)
        dnnl_memory_destroy(prim->args[i].memory);
    if (prim->handle)
        dnnl_primitive_destroy(prim->handle);
    if (prim->desc)
        dnnl_primitive_desc_destroy(prim->desc);
    *prim = (lb_prim){0};
}

/* Shared by the files of this folder: oneDNN handles and their errors. */
#ifndef LB_BACKEND_INTERNAL_H
#define LB_BACKEND_INTERNAL_H

#include <dnnl.h>

#include "train/backend/backend.h"

struct lb_backend {
    lb_ctx *ctx;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr; /* scratchpad by the user: ours */
    size_t scratch_size;
    size_t thread_scratch, parts_size; /* passes by images: of one thread, of whichever convolution; then sums of parts */
    void *scratch;
};

/* oneDNN's status to ours, with what was being done. */
lb_status lb_dnnl_check(lb_backend *backend, dnnl_status_t status, const char *what);

/* dnnl_primitive_desc_create by the first implementation without `unfit` in its name; NULL: by the first. */
dnnl_status_t lb_dnnl_choose(dnnl_primitive_desc_t *desc, const_dnnl_op_desc_t op, const_dnnl_primitive_attr_t attr,
                             dnnl_engine_t engine, const_dnnl_primitive_desc_t hint, const char *unfit);

/* oneDNN 2.6's forward convolutions of whole images at once by AMX: while one is generated it reads up to a block of rows behind
 * the end of a list of rows (skipped_bd_mask_buffer_), which is a segmentation fault where memory ends there. */
#define LB_UNFIT_FORWARD "brgconv:avx512_core_amx"

/* dnnl_primitive_create; out of memory is an error where oneDNN's code generator would crash. */
dnnl_status_t lb_dnnl_generate(dnnl_primitive_t *primitive, const_dnnl_primitive_desc_t desc);

/* Whether oneDNN may use the processor's matrix registers: it may have been capped (ONEDNN_MAX_CPU_ISA), and we are with it. */
static inline bool lb_dnnl_has_amx(void) {
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(), amx = dnnl_cpu_isa_avx512_core_amx;
    return (isa & amx) == amx;
}

#define LB_DNNL(backend, call) LB_TRY(lb_dnnl_check(backend, call, #call))

/* One primitive with the memory objects of its arguments; data handles are set at each execution. */
#define LB_PRIM_ARGS 5
typedef struct lb_prim {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t handle;
    int nargs;
    dnnl_exec_arg_t args[LB_PRIM_ARGS];
} lb_prim;

/* From an operation descriptor; hint: the forward primitive's, or NULL; unfit: as above. */
lb_status lb_prim_create(lb_backend *backend, const_dnnl_op_desc_t op, const_dnnl_primitive_desc_t hint, const char *unfit,
                         lb_prim *prim);
/* From a primitive descriptor that prim->desc already holds. */
lb_status lb_prim_finish(lb_backend *backend, lb_prim *prim);
/* Adds an argument whose memory descriptor is the primitive's own for `arg`. */
lb_status lb_prim_arg(lb_backend *backend, lb_prim *prim, int arg);
/* Executes with `handles` in the order the arguments were added. */
lb_status lb_prim_run(lb_backend *backend, lb_prim *prim, void *const *handles);
const dnnl_memory_desc_t *lb_prim_md(const lb_prim *prim, int arg);
void lb_prim_destroy(lb_prim *prim);

/* f32 (or any) layout to layout. */
lb_status lb_reorder_create(lb_backend *backend, const dnnl_memory_desc_t *src, const dnnl_memory_desc_t *dst, lb_prim *prim);

static inline dnnl_data_type_t lb_dnnl_type(lb_dtype type) { return type == LB_F32 ? dnnl_f32 : dnnl_bf16; }

#endif

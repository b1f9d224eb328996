#include "train/backend/conv_infer.h"

#include <omp.h>

#include "train/backend/internal.h"
#include "train/simd/tiles_sums.h"

struct lb_infer {
    lb_ctx *ctx;
    int threads;
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* (threads) */
};

typedef struct call {
    dnnl_memory_t src, dst, scratch;
} call;

struct lb_infer_conv {
    lb_infer *infer;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t handle;
    dnnl_memory_t weights;
    void *weight_data;
    size_t scratch;
    call *calls; /* (threads) */
};

static lb_status check(lb_ctx *ctx, dnnl_status_t status, const char *what) {
    if (status == dnnl_success)
        return LB_OK;
    if (status == dnnl_out_of_memory)
        return lb_fail(ctx, LB_ERR_MEMORY, "out of memory in oneDNN (%.80s); try a smaller train.eval_batch", what);
    return lb_fail(ctx, LB_ERR_BACKEND, "oneDNN: status %d from %s", (int)status, what);
}
#define DNNL(ctx, expression) LB_TRY(check(ctx, expression, #expression))

bool lb_infer_has_int8(void) {
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    const unsigned vnni512 = dnnl_cpu_isa_avx512_core_vnni & ~dnnl_cpu_isa_avx512_core;
    const unsigned vnni2 = dnnl_cpu_isa_avx2_vnni & ~dnnl_cpu_isa_avx2;
    return (isa & vnni512) || (isa & vnni2);
}

const lb_tiles_sums *lb_infer_tiles(const lb_infer_dims *d) {
    const bool fits = d->groups == 1 && d->gap_h == 0 && d->gap_w == 0 && d->oc % 16 == 0;
    return lb_dnnl_has_amx() && fits ? lb_tiles_sums_find("amx") : NULL;
}

static lb_status open_engine(lb_infer *infer) {
    infer->streams = lb_alloc(infer->ctx, (size_t)infer->threads, sizeof(dnnl_stream_t));
    if (!infer->streams)
        return LB_ERR_MEMORY;
    DNNL(infer->ctx, dnnl_engine_create(&infer->engine, dnnl_cpu, 0));
    for (int t = 0; t < infer->threads; t++)
        DNNL(infer->ctx, dnnl_stream_create(&infer->streams[t], infer->engine, dnnl_stream_default_flags));
    return LB_OK;
}

lb_status lb_infer_create(lb_ctx *ctx, int threads, lb_infer **out) {
    *out = NULL;
    lb_infer *infer = lb_alloc(ctx, 1, sizeof *infer);
    if (!infer)
        return LB_ERR_MEMORY;
    infer->ctx = ctx;
    infer->threads = threads;
    const lb_status status = open_engine(infer);
    if (status != LB_OK) {
        lb_infer_destroy(infer);
        return status;
    }
    *out = infer;
    return LB_OK;
}

void lb_infer_destroy(lb_infer *infer) {
    if (!infer)
        return;
    for (int t = 0; infer->streams && t < infer->threads; t++)
        if (infer->streams[t])
            dnnl_stream_destroy(infer->streams[t]);
    if (infer->engine)
        dnnl_engine_destroy(infer->engine);
    lb_free(infer->ctx, infer->streams);
    lb_free(infer->ctx, infer);
}

static lb_status make_desc(lb_infer_conv *conv, const lb_infer_dims *d) {
    lb_ctx *ctx = conv->infer->ctx;
    const bool grouped = d->groups > 1;
    const dnnl_data_type_t src_type = d->src == LB_INFER_U8 ? dnnl_u8 : d->src == LB_INFER_S8 ? dnnl_s8 : dnnl_f32;
    const dnnl_data_type_t weight_type = d->src == LB_INFER_F32 ? dnnl_f32 : dnnl_s8;
    const dnnl_data_type_t dst_type = d->src == LB_INFER_F32 ? dnnl_f32 : dnnl_s32;
    const dnnl_dims_t src_dims = {d->mb, d->ic, d->ih, d->iw}, dst_dims = {d->mb, d->oc, d->oh, d->ow};
    const dnnl_dims_t weight_dims = {d->oc, d->ic / d->groups, d->kh, d->kw};
    const dnnl_dims_t group_dims = {d->groups, d->oc / d->groups, d->ic / d->groups, d->kh, d->kw};
    const dnnl_dims_t strides = {d->sh, d->sw}, gap = {d->gap_h, d->gap_w}, before = {d->pt, d->pl};
    const dnnl_dims_t behind = {d->pb, d->pr};
    dnnl_memory_desc_t src, weights, dst;
    dnnl_convolution_desc_t op;
    DNNL(ctx, dnnl_memory_desc_init_by_tag(&src, 4, src_dims, src_type, dnnl_nhwc));
    DNNL(ctx, dnnl_memory_desc_init_by_tag(&dst, 4, dst_dims, dst_type, dnnl_nhwc));
    DNNL(ctx, dnnl_memory_desc_init_by_tag(&weights, grouped ? 5 : 4, grouped ? group_dims : weight_dims, weight_type,
                                           dnnl_format_tag_any));
    DNNL(ctx, dnnl_dilated_convolution_forward_desc_init(&op, dnnl_forward_inference, dnnl_convolution_direct, &src, &weights, NULL,
                                                         &dst, strides, gap, before, behind));
    dnnl_primitive_attr_t attr;
    DNNL(ctx, dnnl_primitive_attr_create(&attr));
    dnnl_status_t status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success) /* whole-number sums in f32 must stay exact */
        status = dnnl_primitive_attr_set_fpmath_mode(attr, dnnl_fpmath_mode_strict);
    if (status == dnnl_success)
        status = lb_dnnl_choose(&conv->desc, &op, attr, conv->infer->engine, NULL, LB_UNFIT_FORWARD);
    dnnl_primitive_attr_destroy(attr);
    LB_TRY(check(ctx, status, "choosing an implementation"));
    DNNL(ctx, lb_dnnl_generate(&conv->handle, conv->desc));
    return LB_OK;
}

/* (oc, kh, kw, icg) floats to (oc, icg, kh, kw) of the weights' type, which every oneDNN reorder takes. */
static void *plain_weights(lb_ctx *ctx, const lb_infer_dims *d, const float *weights) {
    const size_t icg = (size_t)(d->ic / d->groups), area = (size_t)d->kh * (size_t)d->kw;
    const bool f32 = d->src == LB_INFER_F32;
    void *plain = lb_alloc(ctx, (size_t)d->oc * icg * area, f32 ? sizeof(float) : 1);
    if (!plain)
        return NULL;
    for (size_t o = 0; o < (size_t)d->oc; o++)
        for (size_t k = 0; k < area; k++)
            for (size_t i = 0; i < icg; i++) {
                const float w = weights[(o * area + k) * icg + i];
                const size_t at = (o * icg + i) * area + k;
                if (f32)
                    ((float *)plain)[at] = w;
                else
                    ((int8_t *)plain)[at] = (int8_t)w;
            }
    return plain;
}

static lb_status reorder(lb_infer_conv *conv, const lb_infer_dims *d, void *plain) {
    lb_ctx *ctx = conv->infer->ctx;
    const dnnl_memory_desc_t *to = dnnl_primitive_desc_query_md(conv->desc, dnnl_query_weights_md, 0);
    dnnl_memory_desc_t from;
    DNNL(ctx, dnnl_memory_desc_init_by_tag(&from, to->ndims, to->dims, d->src == LB_INFER_F32 ? dnnl_f32 : dnnl_s8,
                                           to->ndims == 5 ? dnnl_goihw : dnnl_oihw));
    conv->weight_data = lb_alloc(ctx, LB_MAX(dnnl_memory_desc_get_size(to), (size_t)1), 1);
    if (!conv->weight_data)
        return LB_ERR_MEMORY;
    DNNL(ctx, dnnl_memory_create(&conv->weights, to, conv->infer->engine, conv->weight_data));
    dnnl_memory_t src = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t handle = NULL;
    dnnl_status_t status = dnnl_memory_create(&src, &from, conv->infer->engine, plain);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&desc, &from, conv->infer->engine, to, conv->infer->engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&handle, desc);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, src}, {DNNL_ARG_TO, conv->weights}};
    if (status == dnnl_success)
        status = dnnl_primitive_execute(handle, conv->infer->streams[0], 2, args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(conv->infer->streams[0]);
    if (handle)
        dnnl_primitive_destroy(handle);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (src)
        dnnl_memory_destroy(src);
    return check(ctx, status, "reorder of weights");
}

static lb_status make_calls(lb_infer_conv *conv) {
    lb_ctx *ctx = conv->infer->ctx;
    dnnl_engine_t engine = conv->infer->engine;
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(conv->desc, dnnl_query_scratchpad_md, 0);
    conv->scratch = dnnl_memory_desc_get_size(scratch);
    conv->calls = lb_alloc(ctx, (size_t)conv->infer->threads, sizeof *conv->calls);
    if (!conv->calls)
        return LB_ERR_MEMORY;
    for (int t = 0; t < conv->infer->threads; t++) {
        call *c = &conv->calls[t];
        DNNL(ctx,
             dnnl_memory_create(&c->src, dnnl_primitive_desc_query_md(conv->desc, dnnl_query_src_md, 0), engine, DNNL_MEMORY_NONE));
        DNNL(ctx,
             dnnl_memory_create(&c->dst, dnnl_primitive_desc_query_md(conv->desc, dnnl_query_dst_md, 0), engine, DNNL_MEMORY_NONE));
        DNNL(ctx, dnnl_memory_create(&c->scratch, scratch, engine, DNNL_MEMORY_NONE));
    }
    return LB_OK;
}

static lb_status fill(lb_infer_conv *conv, const lb_infer_dims *dims, const float *weights) {
    LB_TRY(make_desc(conv, dims));
    void *plain = plain_weights(conv->infer->ctx, dims, weights);
    const lb_status status = plain ? reorder(conv, dims, plain) : LB_ERR_MEMORY;
    lb_free(conv->infer->ctx, plain);
    LB_TRY(status);
    return make_calls(conv);
}

lb_status lb_infer_conv_create(lb_infer *infer, const lb_infer_dims *dims, const float *weights, lb_infer_conv **out) {
    *out = NULL;
    lb_infer_conv *conv = lb_alloc(infer->ctx, 1, sizeof *conv);
    if (!conv)
        return LB_ERR_MEMORY;
    conv->infer = infer;
    const int threads = omp_get_max_threads(); /* the primitive plans for the threads it will find when it runs: one */
    omp_set_num_threads(1);
    const lb_status status = fill(conv, dims, weights);
    omp_set_num_threads(threads);
    if (status != LB_OK) {
        lb_infer_conv_destroy(conv);
        return status;
    }
    *out = conv;
    return LB_OK;
}

void lb_infer_conv_destroy(lb_infer_conv *conv) {
    if (!conv)
        return;
    for (int t = 0; conv->calls && t < conv->infer->threads; t++) {
        const dnnl_memory_t memories[] = {conv->calls[t].src, conv->calls[t].dst, conv->calls[t].scratch};
        for (size_t i = 0; i < LB_COUNT(memories); i++)
            if (memories[i])
                dnnl_memory_destroy(memories[i]);
    }
    if (conv->weights)
        dnnl_memory_destroy(conv->weights);
    if (conv->handle)
        dnnl_primitive_destroy(conv->handle);
    if (conv->desc)
        dnnl_primitive_desc_destroy(conv->desc);
    lb_ctx *ctx = conv->infer->ctx;
    lb_free(ctx, conv->calls);
    lb_free(ctx, conv->weight_data);
    lb_free(ctx, conv);
}

size_t lb_infer_conv_scratch(const lb_infer_conv *conv) { return conv->scratch; }

/* oneDNN's handles are not const, though it only reads the source. */
static void *writable(const void *data) {
    union {
        const void *from;
        void *to;
    } u = {data};
    return u.to;
}

bool lb_infer_conv_run(lb_infer_conv *conv, int thread, const void *src, void *dst, void *scratch) {
    const call *c = &conv->calls[thread];
    if (dnnl_memory_set_data_handle(c->src, writable(src)) != dnnl_success ||
        dnnl_memory_set_data_handle(c->dst, dst) != dnnl_success ||
        dnnl_memory_set_data_handle(c->scratch, scratch) != dnnl_success)
        return false;
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, c->src}, {DNNL_ARG_WEIGHTS, conv->weights}, {DNNL_ARG_DST, c->dst}, {DNNL_ARG_SCRATCHPAD, c->scratch}};
    return dnnl_primitive_execute(conv->handle, conv->infer->streams[thread], (int)LB_COUNT(args), args) == dnnl_success &&
           dnnl_stream_wait(conv->infer->streams[thread]) == dnnl_success;
}

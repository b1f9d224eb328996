/* Ref kernels of fixed point: product and sigmoid. */
#include "epilogue.h"

static int is_fixed(const lbrt_site *site) { return site->dst->type == LBRT_I32; }

static void mul_run(const lbrt_call *call) {
    const lbrt_tensor *dst = call->site.dst, *other = &call->tensors[call->site.layer->sources[1]];
    const size_t w = (size_t)dst->w, c = (size_t)dst->c, pixels = (size_t)dst->h * w;
    const int broadcast = lbrt_elements(other) != lbrt_elements(dst);
    for (size_t p = call->row0 * w; p < call->row1 * w; p++) {
        const int32_t *restrict a = (const int32_t *)call->sources[0] + p * c;
        const int32_t *restrict b = (const int32_t *)call->sources[1] + (broadcast ? p / pixels : p) * c;
        int32_t *restrict out = (int32_t *)call->dst + p * c;
        for (size_t i = 0; i < c; i++)
            out[i] = lbrt_fixed_mul(a[i], b[i]);
    }
}

const lbrt_kernel lbrt_ref_mul = {.name = LBRT_PLAIN, .op = LBRT_OP_MUL, .accepts = is_fixed, .run = mul_run};

static void sigmoid_run(const lbrt_call *call) {
    const size_t row = (size_t)call->site.dst->w * (size_t)call->site.dst->c;
    const int32_t *restrict src = (const int32_t *)call->src;
    int32_t *restrict dst = (int32_t *)call->dst;
    for (size_t i = call->row0 * row; i < call->row1 * row; i++)
        dst[i] = lbrt_sigmoid(src[i]);
}

const lbrt_kernel lbrt_ref_sigmoid = {.name = LBRT_PLAIN, .op = LBRT_OP_SIGMOID, .accepts = is_fixed, .run = sigmoid_run};

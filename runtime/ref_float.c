/* Ref kernels of the float domain. Nothing here runs in a model without float layers. */
#include "ref_float.h"
#include "epilogue.h"

#define LBRT_CONV_F32_ROW lbrt_conv_f32_row
#include "conv_f32.inc.h"

void lbrt_conv_f32(const lbrt_conv_shape *s, const float *src, const float *weights, float *dst, size_t image0, size_t image1) {
    const size_t in = (size_t)s->ih * (size_t)s->iw * (size_t)s->ic, row = (size_t)s->ow * (size_t)s->oc;
    for (size_t n = image0; n < image1; n++)
        for (int32_t y = 0; y < s->oh; y++)
            lbrt_conv_f32_row(s, src + n * in, weights, y, dst + (n * (size_t)s->oh + (size_t)y) * row);
}

static int is_float(const lbrt_site *site) { return site->layer->is_float; }

/* `count` elements from `at`, as floats: integers times step. */
static void to_float(const void *src, int32_t type, size_t at, size_t count, float step, float *restrict dst) {
    if (type == LBRT_F32) {
        memcpy(dst, (const float *)src + at, count * sizeof *dst);
    } else if (type == LBRT_U8) {
        const uint8_t *restrict p = (const uint8_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = (float)p[i] * step;
    } else if (type == LBRT_I8) {
        const int8_t *restrict p = (const int8_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = (float)p[i] * step;
    } else {
        const int32_t *restrict p = (const int32_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = (float)p[i] * step;
    }
}

static void put(void *dst, int32_t type, size_t at, int32_t v) {
    if (type == LBRT_U8)
        ((uint8_t *)dst)[at] = (uint8_t)v;
    else if (type == LBRT_I8)
        ((int8_t *)dst)[at] = (int8_t)v;
    else
        ((int32_t *)dst)[at] = v;
}

/* v: (c) the values of one pixel, destroyed. */
static void epilogue_float(const lbrt_site *site, float *restrict v, const void *res, void *dst, size_t pixel) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t c = (size_t)site->dst->c, at = pixel * c;
    const int32_t type = site->dst->type;
    if (e->flags & LBRT_AFFINE)
        for (size_t i = 0; i < c; i++)
            v[i] = v[i] * e->scale[i] + e->offset[i];
    if (e->flags & LBRT_RESIDUAL) {
        for (size_t i = 0; i < c; i++) {
            const size_t k = at + i;
            const float r = site->res->type == LBRT_F32  ? ((const float *)res)[k]
                            : site->res->type == LBRT_U8 ? (float)((const uint8_t *)res)[k]
                            : site->res->type == LBRT_I8 ? (float)((const int8_t *)res)[k]
                                                         : (float)((const int32_t *)res)[k];
            v[i] = v[i] + r * e->res_step;
        }
    }
    if (e->flags & LBRT_CLAMP)
        for (size_t i = 0; i < c; i++)
            v[i] = lbrt_clamp_f32(v[i], e->flo, e->fhi);
    if (e->flags & LBRT_SIGN)
        for (size_t i = 0; i < c; i++)
            put(dst, type, at + i, v[i] >= 0.0f ? 1 : -1);
    else if (e->flags & LBRT_CODE)
        for (size_t i = 0; i < c; i++)
            put(dst, type, at + i, lbrt_code_f32(v[i], e->inv_step, e->qlo, e->qhi));
    else if (e->flags & LBRT_TO_FIXED)
        for (size_t i = 0; i < c; i++)
            ((int32_t *)dst)[at + i] = lbrt_fixed_f32(v[i]);
    else
        memcpy((float *)dst + at, v, c * sizeof *v);
}

/* ---- Input and point -------------------------------------------------------------------------------------------------- */

static size_t row_scratch_size(const lbrt_site *site) { return lbrt_size_mul(2 * (size_t)site->dst->c, sizeof(float)); }

static void input_run(const lbrt_call *call) {
    const size_t w = (size_t)call->site.dst->w, c = (size_t)call->site.dst->c;
    for (size_t p = call->row0 * w; p < call->row1 * w; p++) {
        to_float(call->src, LBRT_U8, p * c, c, 1.0f, call->scratch);
        epilogue_float(&call->site, call->scratch, NULL, call->dst, p);
    }
}

const lbrt_kernel lbrt_ref_input_float = {
    .name = "ref", .op = LBRT_OP_INPUT, .accepts = is_float, .scratch_size = row_scratch_size, .run = input_run};

static void point_run(const lbrt_call *call) {
    const lbrt_tensor *src = call->site.src;
    const size_t w = (size_t)src->w, c = (size_t)src->c;
    for (size_t p = call->row0 * w; p < call->row1 * w; p++) {
        to_float(call->src, src->type, p * c, c, call->site.layer->src_step, call->scratch);
        epilogue_float(&call->site, call->scratch, call->res, call->dst, p);
    }
}

const lbrt_kernel lbrt_ref_point_float = {
    .name = "ref", .op = LBRT_OP_POINT, .accepts = is_float, .scratch_size = row_scratch_size, .run = point_run};

/* ---- Convolution ------------------------------------------------------------------------------------------------------ */

static size_t conv_weights(const lbrt_site *site) {
    return lbrt_size_mul((size_t)lbrt_weights_per_channel(site->layer, site->src), (size_t)site->dst->c);
}

/* Packed weights need room for one channel as it is unpacked. */
static size_t conv_prepared_size(const lbrt_site *site) {
    const size_t one = (size_t)lbrt_weights_per_channel(site->layer, site->src) * sizeof(int16_t);
    return lbrt_size_add(lbrt_size_mul(conv_weights(site), sizeof(float)), site->layer->weights.bits == 32 ? 0 : one);
}

/* (kh, kw, ic / groups, oc) */
static void conv_prepare(const lbrt_site *site, void *prepared) {
    const lbrt_layer *l = site->layer;
    const size_t k = (size_t)lbrt_weights_per_channel(l, site->src), oc = (size_t)site->dst->c;
    float *dst = prepared;
    int16_t *one = (int16_t *)(void *)(dst + k * oc);
    for (size_t o = 0; o < oc; o++) {
        if (l->weights.bits != 32)
            lbrt_unpack(l, site->src, (int32_t)o, one);
        for (size_t i = 0; i < k; i++)
            dst[i * oc + o] = l->weights.bits == 32 ? l->weights.f32[o * k + i] : (float)one[i];
    }
}

/* One row of results, and one image as floats if it is not float yet. */
static size_t conv_scratch_size(const lbrt_site *site) {
    const size_t row = lbrt_size_mul(lbrt_size_mul((size_t)site->dst->w, (size_t)site->dst->c), sizeof(float));
    const size_t image = site->src->type == LBRT_F32 ? 0 : lbrt_size_mul(lbrt_elements(site->src), sizeof(float));
    return lbrt_size_add(row, image);
}

static void conv_run(const lbrt_call *call) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor view = lbrt_view(&call->site), *dst = call->site.dst;
    const lbrt_conv_shape shape = {view.h, view.w, view.c, dst->h, dst->w, dst->c,   l->kh,
                                   l->kw,  l->sh,  l->sw,  l->pt,  l->pl,  l->groups, l->gap_h, l->gap_w};
    const size_t elements = lbrt_elements(&view), oh = (size_t)dst->h, ow = (size_t)dst->w, oc = (size_t)dst->c;
    float *const out = call->scratch, *const image = out + ow * oc;
    size_t converted = SIZE_MAX;
    for (size_t row = call->row0; row < call->row1; row++) {
        const size_t n = row / oh;
        const float *src = (const float *)call->src + n * elements;
        if (view.type != LBRT_F32) {
            if (converted != n)
                to_float(call->src, view.type, n * elements, elements, l->src_step, image);
            converted = n;
            src = image;
        }
        lbrt_conv_f32_row(&shape, src, call->prepared, (int32_t)(row % oh), out);
        for (size_t x = 0; x < ow; x++)
            epilogue_float(&call->site, out + x * oc, call->res, call->dst, row * ow + x);
    }
}

const lbrt_kernel lbrt_ref_conv_float = {
    .name = "ref", .op = LBRT_OP_CONV, .accepts = is_float, .prepared_size = conv_prepared_size, .prepare = conv_prepare,
    .scratch_size = conv_scratch_size, .run = conv_run};

/* ---- Pools ------------------------------------------------------------------------------------------------------------ */

static void pool_run(const lbrt_call *call) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor *src = call->site.src, *dst = call->site.dst;
    const size_t oh = (size_t)dst->h, ow = (size_t)dst->w, c = (size_t)src->c;
    for (size_t row = call->row0; row < call->row1; row++)
        for (size_t ox = 0; ox < ow; ox++) {
            const int32_t y0 = (int32_t)(row % oh) * l->sh - l->pt, x0 = (int32_t)ox * l->sw - l->pl;
            float *restrict out = (float *)call->dst + (row * ow + ox) * c;
            int32_t n = 0;
            for (int32_t y = y0 < 0 ? 0 : y0; y < y0 + l->kh && y < src->h; y++)
                for (int32_t x = x0 < 0 ? 0 : x0; x < x0 + l->kw && x < src->w; x++) {
                    const float *restrict p =
                        (const float *)call->src + ((row / oh * (size_t)src->h + (size_t)y) * (size_t)src->w + (size_t)x) * c;
                    if (l->op == LBRT_OP_SUMPOOL)
                        for (size_t i = 0; i < c; i++)
                            out[i] = (n == 0 ? 0.0f : out[i]) + p[i];
                    else
                        for (size_t i = 0; i < c; i++)
                            out[i] = n == 0 || p[i] > out[i] ? p[i] : out[i];
                    n++;
                }
            for (size_t i = 0; i < c && l->inside; i++)
                out[i] = lbrt_whole_window_f32(out[i], l->kh * l->kw, n);
        }
}

const lbrt_kernel lbrt_ref_maxpool_float = {.name = "ref", .op = LBRT_OP_MAXPOOL, .accepts = is_float, .run = pool_run};
const lbrt_kernel lbrt_ref_sumpool_float = {.name = "ref", .op = LBRT_OP_SUMPOOL, .accepts = is_float, .run = pool_run};

/* ---- Product ---------------------------------------------------------------------------------------------------------- */

static int is_f32(const lbrt_site *site) { return site->dst->type == LBRT_F32; }

static void mul_run(const lbrt_call *call) {
    const lbrt_tensor *dst = call->site.dst, *other = &call->tensors[call->site.layer->sources[1]];
    const size_t w = (size_t)dst->w, c = (size_t)dst->c, pixels = (size_t)dst->h * w;
    const int broadcast = lbrt_elements(other) != lbrt_elements(dst);
    for (size_t p = call->row0 * w; p < call->row1 * w; p++) {
        const float *restrict a = (const float *)call->sources[0] + p * c;
        const float *restrict b = (const float *)call->sources[1] + (broadcast ? p / pixels : p) * c;
        float *restrict out = (float *)call->dst + p * c;
        for (size_t i = 0; i < c; i++)
            out[i] = a[i] * b[i];
    }
}

const lbrt_kernel lbrt_ref_mul_float = {.name = "ref", .op = LBRT_OP_MUL, .accepts = is_f32, .run = mul_run};

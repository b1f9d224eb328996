/* Input layer and pools of 8-bit codes, in loops that the compiler vectorises. */
#include "../internal.h"

static int is_byte(const lbrt_tensor *t) { return t->type == LBRT_U8 || t->type == LBRT_I8; }

/* ---- Input: a pixel has 256 values, so its code is looked up ----------------------------------------------------------- */

#define INPUT_CHANNELS 16 /* more are rare, and tables cost memory */

static int input_accepts(const lbrt_site *site) {
    return !site->layer->is_float && is_byte(site->dst) && site->dst->c <= INPUT_CHANNELS;
}

static size_t input_prepared_size(const lbrt_site *site) { return (size_t)site->dst->c * 256; }

static void input_prepare(const lbrt_site *site, void *prepared) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    uint8_t *codes = prepared; /* (c, 256) */
    for (int32_t c = 0; c < site->dst->c; c++)
        for (int32_t v = 0; v < 256; v++)
            codes[c * 256 + v] = (uint8_t)lbrt_clamp(lbrt_apply(&e->requant[c], v), e->qlo, e->qhi);
}

static void bytes_input_run(const lbrt_call *call) {
    const lbrt_tensor *dst = call->site.dst;
    const size_t w = (size_t)dst->w, c = (size_t)dst->c, first = call->row0 * w * c, last = call->row1 * w * c;
    const uint8_t *restrict src = call->src, *restrict codes = call->prepared;
    uint8_t *restrict to = call->dst;
    if (c == 3)
        for (size_t i = first; i < last; i += 3) {
            to[i] = codes[src[i]];
            to[i + 1] = codes[256 + src[i + 1]];
            to[i + 2] = codes[512 + src[i + 2]];
        }
    else
        for (size_t i = first; i < last; i += c)
            for (size_t k = 0; k < c; k++)
                to[i + k] = codes[k * 256 + src[i + k]];
}

const lbrt_kernel LBRT_NAME(bytes_input) = {
    .name = "table", .op = LBRT_OP_INPUT, .accepts = input_accepts, .prepared_size = input_prepared_size,
    .prepare = input_prepare, .run = bytes_input_run};

/* ---- Pools ------------------------------------------------------------------------------------------------------------- */

static void most_u8(const uint8_t *restrict v, size_t count, uint8_t *restrict best) {
    for (size_t i = 0; i < count; i++)
        best[i] = v[i] > best[i] ? v[i] : best[i];
}

static void most_i8(const int8_t *restrict v, size_t count, int8_t *restrict best) {
    for (size_t i = 0; i < count; i++)
        best[i] = v[i] > best[i] ? v[i] : best[i];
}

static void add_u8(const uint8_t *restrict v, size_t count, int32_t *restrict sum) {
    for (size_t i = 0; i < count; i++)
        sum[i] += v[i];
}

static void add_i8(const int8_t *restrict v, size_t count, int32_t *restrict sum) {
    for (size_t i = 0; i < count; i++)
        sum[i] += v[i];
}

static int max_accepts(const lbrt_site *site) { return is_byte(site->src); }

/* No sum leaves 32 bits: sides are at most 65535. */
static int sum_accepts(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    return is_byte(site->src) && !l->inside && (int64_t)l->kh * l->kw <= INT32_MAX / 255;
}

static void bytes_pool_run(const lbrt_call *call) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor *src = call->site.src, *dst = call->site.dst;
    const int32_t h = src->h, w = src->w;
    const size_t oh = (size_t)dst->h, ow = (size_t)dst->w, c = (size_t)src->c;
    const int max = l->op == LBRT_OP_MAXPOOL, is_signed = src->type == LBRT_I8;
    for (size_t row = call->row0; row < call->row1; row++) {
        const uint8_t *image = (const uint8_t *)call->src + row / oh * (size_t)h * (size_t)w * c;
        const int32_t y = (int32_t)(row % oh) * l->sh - l->pt, y0 = y < 0 ? 0 : y, y1 = y + l->kh > h ? h : y + l->kh;
        for (size_t ox = 0; ox < ow; ox++) {
            const int32_t x = (int32_t)ox * l->sw - l->pl, x0 = x < 0 ? 0 : x, x1 = x + l->kw > w ? w : x + l->kw;
            const size_t count = (size_t)(x1 - x0) * c; /* the window is never empty */
            uint8_t *best = (uint8_t *)call->dst + (row * ow + ox) * c;
            int32_t *sum = (int32_t *)call->dst + (row * ow + ox) * c;
            if (max)
                memcpy(best, image + ((size_t)y0 * (size_t)w + (size_t)x0) * c, c);
            else
                memset(sum, 0, c * sizeof *sum);
            for (int32_t yy = y0; yy < y1; yy++) {
                const uint8_t *v = image + ((size_t)yy * (size_t)w + (size_t)x0) * c;
                for (size_t i = 0; i < count; i += c)
                    if (max && is_signed)
                        most_i8((const int8_t *)v + i, c, (int8_t *)best);
                    else if (max)
                        most_u8(v + i, c, best);
                    else if (is_signed)
                        add_i8((const int8_t *)v + i, c, sum);
                    else
                        add_u8(v + i, c, sum);
            }
        }
    }
}

const lbrt_kernel LBRT_NAME(bytes_maxpool) = {
    .name = "bytes", .op = LBRT_OP_MAXPOOL, .accepts = max_accepts, .run = bytes_pool_run};
const lbrt_kernel LBRT_NAME(bytes_sumpool) = {
    .name = "bytes", .op = LBRT_OP_SUMPOOL, .accepts = sum_accepts, .run = bytes_pool_run};

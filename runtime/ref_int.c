/* Ref kernels of integers other than convolution: input, point, pools. */
#include "epilogue.h"

int lbrt_accepts_all(const lbrt_site *site) {
    (void)site;
    return 1;
}

static int is_integer(const lbrt_site *site) { return !site->layer->is_float; }

static size_t row_scratch_size(const lbrt_site *site) { return lbrt_size_mul((size_t)site->dst->c, sizeof(int32_t)); }

static void input_run(const lbrt_call *call) {
    const lbrt_tensor *dst = call->site.dst;
    const lbrt_epilogue *e = &call->site.layer->epilogue;
    const size_t w = (size_t)dst->w, c = (size_t)dst->c;
    const uint8_t *src = call->src;
    int32_t *v = call->scratch;
    for (size_t p = call->row0 * w; p < call->row1 * w; p++) {
        for (size_t i = 0; i < c; i++)
            v[i] = lbrt_clamp(lbrt_apply(&e->requant[i], src[p * c + i]), e->qlo, e->qhi);
        lbrt_narrow(v, c, call->dst, dst->type, p * c);
    }
}

const lbrt_kernel lbrt_ref_input = {
    .name = LBRT_PLAIN, .op = LBRT_OP_INPUT, .accepts = is_integer, .scratch_size = row_scratch_size, .run = input_run};

static void point_run(const lbrt_call *call) {
    const lbrt_tensor *src = call->site.src;
    const size_t w = (size_t)src->w, c = (size_t)src->c;
    for (size_t p = call->row0 * w; p < call->row1 * w; p++) {
        lbrt_widen32(call->src, src->type, p * c, c, call->scratch);
        lbrt_epilogue_row(&call->site, call->scratch, call->res, call->dst, p);
    }
}

const lbrt_kernel lbrt_ref_point = {
    .name = LBRT_PLAIN, .op = LBRT_OP_POINT, .accepts = is_integer, .scratch_size = row_scratch_size, .run = point_run};

/* ---- Pools ---------------------------------------------------------------------------------------------------------- */

/* The part of the window of output (oy, ox) that is inside the source. Never empty: the loader wants padding smaller than the
 * window. */
typedef struct span {
    int32_t y0, y1, x0, x1;
} span;

static span window_of(const lbrt_site *site, int32_t oy, int32_t ox) {
    const lbrt_layer *l = site->layer;
    const int32_t y = oy * l->sh - l->pt, x = ox * l->sw - l->pl;
    span s;
    s.y0 = y < 0 ? 0 : y;
    s.x0 = x < 0 ? 0 : x;
    s.y1 = y + l->kh > site->src->h ? site->src->h : y + l->kh;
    s.x1 = x + l->kw > site->src->w ? site->src->w : x + l->kw;
    return s;
}

static void maxpool_run(const lbrt_call *call) {
    const lbrt_tensor *src = call->site.src, *dst = call->site.dst;
    const size_t oh = (size_t)dst->h, ow = (size_t)dst->w, c = (size_t)src->c;
    int32_t *restrict best = call->scratch, *restrict v = best + c;
    for (size_t row = call->row0; row < call->row1; row++)
        for (size_t ox = 0; ox < ow; ox++) {
            const span s = window_of(&call->site, (int32_t)(row % oh), (int32_t)ox);
            for (size_t i = 0; i < c; i++)
                best[i] = INT32_MIN;
            for (int32_t y = s.y0; y < s.y1; y++)
                for (int32_t x = s.x0; x < s.x1; x++) {
                    lbrt_widen32(call->src, src->type, ((row / oh * (size_t)src->h + (size_t)y) * (size_t)src->w + (size_t)x) * c,
                                 c, v);
                    for (size_t i = 0; i < c; i++)
                        best[i] = v[i] > best[i] ? v[i] : best[i];
                }
            lbrt_narrow(best, c, call->dst, dst->type, (row * ow + ox) * c);
        }
}

static size_t maxpool_scratch_size(const lbrt_site *site) { return lbrt_size_mul(2 * (size_t)site->dst->c, sizeof(int32_t)); }

const lbrt_kernel lbrt_ref_maxpool = {
    .name = LBRT_PLAIN, .op = LBRT_OP_MAXPOOL, .accepts = is_integer, .scratch_size = maxpool_scratch_size, .run = maxpool_run};

static void sumpool_run(const lbrt_call *call) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor *src = call->site.src, *dst = call->site.dst;
    const size_t oh = (size_t)dst->h, ow = (size_t)dst->w, c = (size_t)src->c;
    int64_t *restrict sum = call->scratch;
    int32_t *restrict v = (int32_t *)(sum + c);
    for (size_t row = call->row0; row < call->row1; row++)
        for (size_t ox = 0; ox < ow; ox++) {
            const span s = window_of(&call->site, (int32_t)(row % oh), (int32_t)ox);
            memset(sum, 0, c * sizeof *sum);
            for (int32_t y = s.y0; y < s.y1; y++)
                for (int32_t x = s.x0; x < s.x1; x++) {
                    lbrt_widen32(call->src, src->type, ((row / oh * (size_t)src->h + (size_t)y) * (size_t)src->w + (size_t)x) * c,
                                 c, v);
                    for (size_t i = 0; i < c; i++)
                        sum[i] += v[i];
                }
            int32_t *out = (int32_t *)call->dst + (row * ow + ox) * c;
            const int64_t area = (int64_t)l->kh * l->kw;
            const int64_t n = l->inside ? (int64_t)(s.y1 - s.y0) * (s.x1 - s.x0) : area;
            for (size_t i = 0; i < c; i++)
                out[i] = n == area ? lbrt_saturate(sum[i]) : lbrt_whole_window(sum[i], area, n);
        }
}

static size_t sumpool_scratch_size(const lbrt_site *site) {
    return lbrt_size_mul((size_t)site->dst->c, sizeof(int64_t) + sizeof(int32_t));
}

const lbrt_kernel lbrt_ref_sumpool = {
    .name = LBRT_PLAIN, .op = LBRT_OP_SUMPOOL, .accepts = is_integer, .scratch_size = sumpool_scratch_size, .run = sumpool_run};

#include "epilogue.h"

void lbrt_widen32(const void *src, int32_t type, size_t at, size_t count, int32_t *restrict dst) {
    if (type == LBRT_U8) {
        const uint8_t *restrict p = (const uint8_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = p[i];
    } else if (type == LBRT_I8) {
        const int8_t *restrict p = (const int8_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = p[i];
    } else {
        memcpy(dst, (const int32_t *)src + at, count * sizeof *dst);
    }
}

void lbrt_widen16(const void *src, int32_t type, size_t at, size_t count, int16_t *restrict dst) {
    if (type == LBRT_U8) {
        const uint8_t *restrict p = (const uint8_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = p[i];
    } else if (type == LBRT_I8) {
        const int8_t *restrict p = (const int8_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = p[i];
    } else {
        const int32_t *restrict p = (const int32_t *)src + at;
        for (size_t i = 0; i < count; i++)
            dst[i] = (int16_t)p[i];
    }
}

void lbrt_narrow(const int32_t *restrict src, size_t count, void *restrict dst, int32_t type, size_t at) {
    if (type == LBRT_U8) {
        uint8_t *restrict p = (uint8_t *)dst + at;
        for (size_t i = 0; i < count; i++)
            p[i] = (uint8_t)src[i];
    } else if (type == LBRT_I8) {
        int8_t *restrict p = (int8_t *)dst + at;
        for (size_t i = 0; i < count; i++)
            p[i] = (int8_t)src[i];
    } else {
        memcpy((int32_t *)dst + at, src, count * sizeof *src);
    }
}

static void count_thresholds(const lbrt_epilogue *e, int32_t *restrict v, int32_t c) {
    const int32_t n = e->nthresholds;
    const int sign = (e->flags & LBRT_SIGN) != 0;
    for (int32_t i = 0; i < c; i++) {
        const int32_t *t = e->thresholds + (size_t)i * (size_t)n, x = v[i];
        int32_t count = 0;
        if (e->flip != NULL && e->flip[i])
            for (int32_t k = 0; k < n; k++)
                count += x <= t[k];
        else
            for (int32_t k = 0; k < n; k++)
                count += x >= t[k];
        v[i] = sign ? 2 * count - 1 : e->qlo + count;
    }
}

void lbrt_epilogue_row(const lbrt_site *site, int32_t *restrict v, const void *res, void *restrict dst, size_t pixel) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const int32_t c = site->dst->c;
    const size_t at = pixel * (size_t)c;
    if (e->flags & LBRT_THRESHOLDS)
        count_thresholds(e, v, c);
    if (e->flags & LBRT_AFFINE)
        for (int32_t i = 0; i < c; i++)
            v[i] = lbrt_apply(&e->requant[i], v[i]);
    if (e->flags & LBRT_RESIDUAL) {
        const int32_t type = site->res->type;
        for (int32_t i = 0; i < c; i++) {
            const size_t k = at + (size_t)i;
            int32_t r = type == LBRT_U8   ? ((const uint8_t *)res)[k]
                        : type == LBRT_I8 ? ((const int8_t *)res)[k]
                                          : ((const int32_t *)res)[k];
            if (e->res.shift >= 0)
                r = lbrt_apply(&e->res, r);
            v[i] = lbrt_saturate((int64_t)v[i] + r);
        }
    }
    if (e->flags & LBRT_CLAMP)
        for (int32_t i = 0; i < c; i++)
            v[i] = lbrt_clamp(v[i], e->lo, e->hi);
    if (!(e->flags & LBRT_THRESHOLDS)) {
        if (e->flags & LBRT_SIGN)
            for (int32_t i = 0; i < c; i++)
                v[i] = v[i] >= 0 ? 1 : -1;
        else if (e->flags & LBRT_CODE)
            for (int32_t i = 0; i < c; i++)
                v[i] = lbrt_clamp(lbrt_apply(&e->q, v[i]), e->qlo, e->qhi);
    }
    lbrt_narrow(v, (size_t)c, dst, site->dst->type, at);
}

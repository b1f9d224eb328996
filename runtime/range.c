/* Interval arithmetic over a deploy graph: proves that accumulators stay within 32 bits and tensors within their stated range. */
#include "internal.h"

void lbrt_unpack(const lbrt_layer *layer, const lbrt_tensor *src, int32_t oc, int16_t *dst) {
    const lbrt_weights *w = &layer->weights;
    const size_t count = (size_t)lbrt_weights_per_channel(layer, src);
    const uint8_t *row = w->packed + (size_t)oc * lbrt_packed_bytes((int32_t)count, w->bits);
    for (size_t i = 0; i < count; i++)
        dst[i] = (int16_t)(w->mul * lbrt_stored_weight(row, i, w->bits) + w->add);
}

int lbrt_source_range(const lbrt_layer *layer, const lbrt_tensor *src, int oc, int32_t *lo, int32_t *hi) {
    if (layer->op != LBRT_OP_CONV) {
        *lo = src->lo;
        *hi = src->hi;
        return 1;
    }
    /* Each partial sum lies between (negative weights) * hi + (positive weights) * lo and the reverse, 0 being a possible source
     * value. */
    const lbrt_weights *w = &layer->weights;
    const size_t count = (size_t)lbrt_weights_per_channel(layer, src);
    const uint8_t *row = w->packed + (size_t)oc * lbrt_packed_bytes((int32_t)count, w->bits);
    const int64_t slo = src->lo < 0 ? src->lo : 0, shi = src->hi > 0 ? src->hi : 0;
    int64_t positive = 0, negative = 0;
    for (size_t i = 0; i < count; i++) {
        const int32_t v = w->mul * lbrt_stored_weight(row, i, w->bits) + w->add;
        if (v > 0)
            positive += v;
        else
            negative += v;
    }
    *lo = *hi = 0;
    if (slo == 0 && shi == 0)
        return 1;
    if (positive > INT32_MAX || negative < -INT32_MAX)
        return 0;
    const int64_t low = positive * slo + negative * shi, high = positive * shi + negative * slo;
    if (low < INT32_MIN || high > INT32_MAX)
        return 0;
    *lo = (int32_t)low;
    *hi = (int32_t)high;
    return 1;
}

/* The interval an epilogue gives from [*lo, *hi]. */
static void epilogue_range(const lbrt_epilogue *e, const lbrt_requant *requant, const lbrt_tensor *res, int32_t *lo, int32_t *hi) {
    if (e->flags & (LBRT_CODE | LBRT_SIGN | LBRT_THRESHOLDS)) {
        *lo = e->qlo;
        *hi = e->qhi;
        return;
    }
    if (e->flags & LBRT_AFFINE) {
        const int32_t a = lbrt_apply(requant, *lo), b = lbrt_apply(requant, *hi);
        *lo = a < b ? a : b;
        *hi = a < b ? b : a;
    }
    if (e->flags & LBRT_RESIDUAL) {
        int32_t a = res->lo, b = res->hi;
        if (e->res.shift >= 0) {
            const int32_t x = lbrt_apply(&e->res, a), y = lbrt_apply(&e->res, b);
            a = x < y ? x : y;
            b = x < y ? y : x;
        }
        *lo = lbrt_saturate((int64_t)*lo + a);
        *hi = lbrt_saturate((int64_t)*hi + b);
    }
    if (e->flags & LBRT_CLAMP) {
        *lo = lbrt_clamp(*lo, e->lo, e->hi);
        *hi = lbrt_clamp(*hi, e->lo, e->hi);
    }
}

int lbrt_channel_range(const lbrt_site *site, int32_t c, const lbrt_requant *requant, int32_t *lo, int32_t *hi) {
    int32_t a, b;
    if (!lbrt_source_range(site->layer, site->src, c, &a, &b))
        return 0;
    epilogue_range(&site->layer->epilogue, requant, site->res, &a, &b);
    *lo = a < *lo ? a : *lo;
    *hi = b > *hi ? b : *hi;
    return 1;
}

int32_t lbrt_range_channels(const lbrt_site *site) {
    return site->layer->op == LBRT_OP_CONV || site->layer->epilogue.flags & LBRT_AFFINE ? site->dst->c : 1;
}

static void mul_range(const lbrt_tensor *a, const lbrt_tensor *b, int32_t *lo, int32_t *hi) {
    const int32_t corner[4] = {lbrt_fixed_mul(a->lo, b->lo), lbrt_fixed_mul(a->lo, b->hi), lbrt_fixed_mul(a->hi, b->lo),
                               lbrt_fixed_mul(a->hi, b->hi)};
    *lo = *hi = corner[0];
    for (int i = 1; i < 4; i++) {
        *lo = corner[i] < *lo ? corner[i] : *lo;
        *hi = corner[i] > *hi ? corner[i] : *hi;
    }
}

static void copy_range(const lbrt_layer *layer, const lbrt_tensor *sources, int32_t *lo, int32_t *hi) {
    for (int32_t k = 1; k < layer->nsources; k++) {
        *lo = sources[k].lo < *lo ? sources[k].lo : *lo;
        *hi = sources[k].hi > *hi ? sources[k].hi : *hi;
    }
    if (layer->zeros) {
        *lo = *lo < 0 ? *lo : 0;
        *hi = *hi > 0 ? *hi : 0;
    }
}

void lbrt_bare_range(const lbrt_layer *layer, const lbrt_tensor *sources, int32_t *lo, int32_t *hi) {
    const lbrt_tensor *src = &sources[0];
    *lo = src->lo;
    *hi = src->hi;
    if (layer->op == LBRT_OP_SUMPOOL) {
        /* At the border fewer positions count: anything from one position (a window always holds one) to all of them. */
        const int64_t count = (int64_t)layer->kh * layer->kw;
        *lo = lbrt_saturate(*lo < 0 ? *lo * count : *lo);
        *hi = lbrt_saturate(*hi > 0 ? *hi * count : *hi);
        if (layer->inside || (layer->pt == 0 && layer->pl == 0 && layer->pb == 0 && layer->pr == 0)) {
            *lo = lbrt_saturate(src->lo * count);
            *hi = lbrt_saturate(src->hi * count);
        }
    } else if (layer->op == LBRT_OP_COPY) {
        copy_range(layer, sources, lo, hi);
    } else if (layer->op == LBRT_OP_MUL) {
        mul_range(&sources[0], &sources[1], lo, hi);
    } else if (layer->op == LBRT_OP_SIGMOID) {
        *lo = lbrt_sigmoid(src->lo);
        *hi = lbrt_sigmoid(src->hi);
    }
}

int lbrt_layer_range(const lbrt_graph *graph, int index, int32_t *lo, int32_t *hi) {
    const lbrt_layer *layer = &graph->layers[index];
    const lbrt_epilogue *e = &layer->epilogue;
    const lbrt_tensor *src = &graph->tensors[layer->src], *dst = &graph->tensors[index + 1];
    *lo = *hi = 0;
    if (dst->type == LBRT_F32)
        return 1;
    if (lbrt_is_bare(layer)) {
        lbrt_tensor sources[LBRT_MAX_SOURCES];
        sources[0] = *src;
        for (int32_t k = 1; lbrt_layer_reads(layer, k) >= 0; k++)
            sources[k] = graph->tensors[layer->sources[k]];
        lbrt_bare_range(layer, sources, lo, hi);
        return 1;
    }
    if (layer->op == LBRT_OP_INPUT || layer->is_float) {
        const int codes = layer->op == LBRT_OP_INPUT || (e->flags & (LBRT_CODE | LBRT_SIGN)) != 0;
        *lo = codes ? e->qlo : INT32_MIN;
        *hi = codes ? e->qhi : INT32_MAX;
        return 1;
    }
    const lbrt_site site = lbrt_site_of(graph, index);
    *lo = INT32_MAX;
    *hi = INT32_MIN;
    for (int32_t c = 0; c < lbrt_range_channels(&site); c++)
        if (!lbrt_channel_range(&site, c, e->requant != NULL ? &e->requant[c] : NULL, lo, hi))
            return 0;
    return 1;
}

/* Writing the packed format. What is legal is decided in one place, the loader: this file checks only what it needs to read the
 * graph at all, and probes its own result. */
#include "deploy/pack.h"

#include <stdlib.h>

#include "crc32c.h"
#include "load.h"

typedef struct writer {
    lb_ctx *ctx;
    unsigned char *data;
    size_t size, capacity;
    unsigned bits, nbits; /* of a byte that is not full yet */
    lb_status status;
} writer;

static void put_bytes(writer *w, const void *data, size_t size) {
    if (w->status != LB_OK)
        return;
    if (size > UINT32_MAX - w->size) {
        w->status =
            lb_fail(w->ctx, LB_ERR_UNSUPPORTED, "packed model: larger than 4 GiB, which the format cannot hold; use fewer bits");
        return;
    }
    w->status = lb_grow(w->ctx, &w->data, &w->capacity, w->size + size, 1);
    if (w->status != LB_OK)
        return;
    if (size > 0)
        memcpy(w->data + w->size, data, size);
    w->size += size;
}

static void put_u8(writer *w, unsigned v) {
    const unsigned char byte = (unsigned char)v;
    put_bytes(w, &byte, 1);
}

/* The low `width` bytes, two's complement. */
static void put_int(writer *w, int64_t v, unsigned width) {
    unsigned char bytes[8];
    for (unsigned i = 0; i < width; i++)
        bytes[i] = (unsigned char)((uint64_t)v >> (8 * i));
    put_bytes(w, bytes, width);
}

static void put_num(writer *w, uint32_t v) {
    for (; v > 127; v >>= 7)
        put_u8(w, (v & 127) | 128);
    put_u8(w, v);
}

static void put_snum(writer *w, int32_t v) { put_num(w, v < 0 ? 2 * (uint32_t) - (v + 1) + 1 : 2 * (uint32_t)v); }

static void put_f32(writer *w, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_int(w, bits, 4);
}

static void put_text(writer *w, const char *text) {
    if (text == NULL)
        text = "";
    put_bytes(w, text, strlen(text) + 1);
}

/* The low `width` bits, behind those put before. end_bits fills up the last byte. */
static void put_bits(writer *w, uint64_t v, unsigned width) {
    for (unsigned i = 0; i < width; i++) {
        w->bits |= (unsigned)(v >> i & 1) << w->nbits++;
        if (w->nbits == 8) {
            put_u8(w, w->bits);
            w->bits = w->nbits = 0;
        }
    }
}

static void end_bits(writer *w) {
    if (w->nbits > 0)
        put_u8(w, w->bits);
    w->bits = w->nbits = 0;
}

static unsigned bits_of_unsigned(uint64_t v) {
    unsigned width = 0;
    while (width < 64 && v >> width != 0)
        width++;
    return width;
}

/* Two's complement; 0 for 0. */
static unsigned bits_of(int64_t v) { return v == 0 ? 0 : bits_of_unsigned((uint64_t)(v < 0 ? ~v : v)) + 1; }

/* add = a * 2^max(0, shift - fraction): the smallest fraction that loses no bit of any channel. */
static int fraction_of(const lbrt_requant *q, int32_t n) {
    int fraction = 0;
    for (int32_t c = 0; c < n; c++)
        while (q[c].shift > fraction && q[c].add % ((int64_t)1 << (q[c].shift - fraction)) != 0)
            fraction++;
    return fraction;
}

static int64_t shortened(const lbrt_requant *q, int fraction) {
    return q->shift > fraction ? q->add / ((int64_t)1 << (q->shift - fraction)) : q->add;
}

static void put_requants(writer *w, const lbrt_requant *q, int32_t n) {
    unsigned mul = 1, add = 0, shift = 0;
    int32_t least = q[0].shift;
    const int fraction = fraction_of(q, n);
    for (int32_t c = 0; c < n; c++)
        least = LB_MIN(least, q[c].shift);
    for (int32_t c = 0; c < n; c++) {
        mul = LB_MAX(mul, bits_of(q[c].mul));
        add = LB_MAX(add, bits_of(shortened(&q[c], fraction)));
        shift = LB_MAX(shift, bits_of_unsigned((uint64_t)(q[c].shift - least)));
    }
    put_u8(w, mul);
    put_u8(w, add);
    put_u8(w, (unsigned)fraction);
    put_u8(w, (unsigned)least);
    put_u8(w, shift);
    for (int32_t c = 0; c < n; c++) {
        put_bits(w, (uint64_t)(int64_t)q[c].mul, mul);
        put_bits(w, (uint64_t)(q[c].shift - least), shift);
        put_bits(w, (uint64_t)shortened(&q[c], fraction), add);
    }
    end_bits(w);
}

static void put_codes(writer *w, const lbrt_epilogue *e) {
    if (e->flags & LBRT_SIGN)
        return;
    put_snum(w, e->qlo);
    put_snum(w, e->qhi);
}

/* A threshold below or above all that channel c's accumulator can be, moved to the nearest value with the same effect. */
static int32_t moved(int32_t t, int flip, int32_t lo, int32_t hi) {
    const int64_t least = flip ? (int64_t)lo - 1 : lo, most = flip ? (int64_t)hi : (int64_t)hi + 1;
    return lbrt_saturate(LB_MAX(least, LB_MIN(most, (int64_t)t)));
}

/* Of a threshold and the one before it. */
static uint64_t distance(const int32_t *t) { return (uint64_t)llabs((long long)t[0] - t[-1]); }

static void put_thresholds(writer *w, const lbrt_layer *layer, const lbrt_tensor *src, int32_t channels) {
    const lbrt_epilogue *e = &layer->epilogue;
    const int32_t n = e->nthresholds;
    unsigned first = 1, step = 0, any_flip = 0;
    put_codes(w, e);
    int32_t *t = lb_alloc(w->ctx, (size_t)channels * (size_t)n, sizeof *t);
    if (t == NULL) {
        w->status = LB_ERR_MEMORY;
        return;
    }
    for (int32_t c = 0; c < channels; c++) {
        const int flip = e->flip != NULL && e->flip[c];
        int32_t lo = INT32_MIN, hi = INT32_MAX;
        lbrt_source_range(layer, src, c, &lo, &hi);
        for (int32_t k = 0; k < n; k++)
            t[c * n + k] = moved(e->thresholds[c * n + k], flip, lo, hi);
        first = LB_MAX(first, bits_of(t[c * n]));
        for (int32_t k = 1; k < n; k++)
            step = LB_MAX(step, bits_of_unsigned(distance(&t[c * n + k])));
        any_flip |= (unsigned)flip;
    }
    put_u8(w, any_flip);
    put_u8(w, first);
    put_u8(w, step);
    for (int32_t c = 0; any_flip && c < channels; c++)
        put_bits(w, e->flip[c] != 0, 1);
    end_bits(w);
    for (int32_t c = 0; c < channels; c++) {
        put_bits(w, (uint64_t)(int64_t)t[c * n], first);
        for (int32_t k = 1; k < n; k++)
            put_bits(w, distance(&t[c * n + k]), step);
    }
    end_bits(w);
    lb_free(w->ctx, t);
}

static void put_scale_offset(writer *w, const lbrt_epilogue *e, int32_t n) {
    for (int32_t c = 0; c < n; c++)
        put_f32(w, e->scale[c]);
    for (int32_t c = 0; c < n; c++)
        put_f32(w, e->offset[c]);
}

static void put_epilogue(writer *w, const lbrt_layer *layer, const lbrt_tensor *src, int32_t channels) {
    const lbrt_epilogue *e = &layer->epilogue;
    put_u8(w, e->flags);
    if (e->flags & LBRT_RESIDUAL) {
        put_num(w, (uint32_t)e->residual);
        if (layer->is_float) {
            put_f32(w, e->res_step);
        } else {
            put_u8(w, e->res.shift >= 0);
            if (e->res.shift >= 0)
                put_requants(w, &e->res, 1);
        }
    }
    if (e->flags & LBRT_CLAMP && layer->is_float) {
        put_f32(w, e->flo);
        put_f32(w, e->fhi);
    } else if (e->flags & LBRT_CLAMP) {
        put_snum(w, e->lo);
        put_snum(w, e->hi);
    }
    if (e->flags & LBRT_THRESHOLDS) {
        put_thresholds(w, layer, src, channels);
        return;
    }
    if (e->flags & (LBRT_CODE | LBRT_SIGN)) {
        put_codes(w, e);
        if (layer->is_float && !(e->flags & LBRT_SIGN))
            put_f32(w, e->inv_step);
        else if (!(e->flags & LBRT_SIGN))
            put_requants(w, &e->q, 1);
    }
    if (e->flags & LBRT_AFFINE && layer->is_float)
        put_scale_offset(w, e, channels);
    else if (e->flags & LBRT_AFFINE)
        put_requants(w, e->requant, channels);
}

static void put_weights(writer *w, const lbrt_layer *layer, const lbrt_tensor *src, int32_t oc) {
    const lbrt_weights *weights = &layer->weights;
    const int32_t count = lbrt_weights_per_channel(layer, src);
    put_num(w, (uint32_t)layer->groups);
    put_u8(w, (unsigned)weights->bits);
    if (weights->bits == 32) {
        for (size_t i = 0; i < (size_t)oc * (size_t)count; i++)
            put_f32(w, weights->f32[i]);
        return;
    }
    put_snum(w, weights->mul);
    put_snum(w, weights->add);
    put_bytes(w, weights->packed, (size_t)oc * lbrt_packed_bytes(count, weights->bits));
}

static void put_lines(writer *w, const int32_t *lines, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        put_num(w, (uint32_t)(lines[i] + 1));
}

/* The sources behind the first; a copy's stride, or rows and columns, and runs of channels. */
static void put_sources(writer *w, const lbrt_layer *l, const lbrt_tensor *dst) {
    if (l->op == LBRT_OP_COPY)
        put_num(w, (uint32_t)l->nsources);
    for (int32_t k = 1; k < l->nsources; k++)
        put_num(w, (uint32_t)l->sources[k]);
    if (l->op != LBRT_OP_COPY)
        return;
    if (l->rows) {
        put_lines(w, l->rows, dst->h);
        put_lines(w, l->cols, dst->w);
    } else {
        put_num(w, (uint32_t)l->sh);
    }
    put_num(w, (uint32_t)l->nparts);
    for (int32_t p = 0, at = 0; p < l->nparts; p++) {
        const lbrt_part *part = &l->parts[p];
        if (l->nsources > 1)
            put_num(w, (uint32_t)part->source);
        put_num(w, (uint32_t)(part->dst - at));
        put_num(w, (uint32_t)part->src);
        put_num(w, (uint32_t)part->count);
        at = part->dst + part->count;
    }
}

static void put_layer(writer *w, const lbrt_graph *graph, int32_t index) {
    const lbrt_layer *l = &graph->layers[index];
    const lbrt_tensor *src = &graph->tensors[l->src], *dst = &graph->tensors[index + 1];
    const int computes = l->op == LBRT_OP_CONV || l->op == LBRT_OP_POINT;
    const int geometric = l->op == LBRT_OP_CONV || l->op == LBRT_OP_MAXPOOL || l->op == LBRT_OP_SUMPOOL;
    const int is_float = computes ? l->is_float != 0 : (l->op == LBRT_OP_INPUT ? dst : src)->type == LBRT_F32;
    const int square = geometric && l->kh == l->kw && l->sh == l->sw && l->pt == l->pl && l->pt == l->pb && l->pt == l->pr;
    put_u8(w, (unsigned)l->op);
    put_u8(w, (is_float ? LBRT_FILE_FLOAT : 0u) | (l->flat ? LBRT_FILE_FLAT : 0u) | (square ? LBRT_FILE_SQUARE : 0u) |
                  (lbrt_is_dilated(l) ? LBRT_FILE_DILATED : 0u) | (l->rows ? LBRT_FILE_PLACED : 0u) |
                  (l->inside ? LBRT_FILE_INSIDE : 0u));
    put_num(w, (uint32_t)l->src);
    put_text(w, l->name);
    if (geometric && square) {
        put_num(w, (uint32_t)l->kh);
        put_num(w, (uint32_t)l->sh);
        put_num(w, (uint32_t)l->pt);
    } else if (geometric) {
        const int32_t fields[] = {l->kh, l->kw, l->sh, l->sw, l->pt, l->pl, l->pb, l->pr};
        for (size_t i = 0; i < LB_COUNT(fields); i++)
            put_num(w, (uint32_t)fields[i]);
    }
    if (lbrt_is_dilated(l)) {
        put_num(w, (uint32_t)l->gap_h);
        put_num(w, (uint32_t)l->gap_w);
    }
    if (computes && l->is_float)
        put_f32(w, src->type == LBRT_F32 ? 1.0f : l->src_step);
    if (l->op == LBRT_OP_CONV)
        put_weights(w, l, src, dst->c);
    if (l->op == LBRT_OP_COPY || l->op == LBRT_OP_MUL)
        put_sources(w, l, dst);
    if (computes) {
        put_epilogue(w, l, src, dst->c);
    } else if (l->op == LBRT_OP_INPUT && is_float) {
        put_scale_offset(w, &l->epilogue, dst->c);
    } else if (l->op == LBRT_OP_INPUT) {
        put_snum(w, l->epilogue.qlo);
        put_snum(w, l->epilogue.qhi);
        put_requants(w, l->epilogue.requant, dst->c);
    }
}

static bool readable_sources(const lbrt_layer *l, int32_t index) {
    if (l->nsources < 1 || l->nsources > LBRT_MAX_SOURCES || l->sources[0] != l->src || (l->op == LBRT_OP_MUL && l->nsources != 2))
        return false;
    for (int32_t k = 0; k < l->nsources; k++)
        if (l->sources[k] < 0 || l->sources[k] > index)
            return false;
    return l->op == LBRT_OP_MUL || (l->sh == l->sw && l->parts && !l->rows == !l->cols);
}

/* Ascending, or descending where they are flipped: what is stored is how far they are apart. */
static bool in_order(const lbrt_epilogue *e, int32_t channels) {
    for (int32_t c = 0; c < channels; c++) {
        const int32_t *t = e->thresholds + (size_t)c * (size_t)e->nthresholds;
        const bool down = e->flip && e->flip[c];
        for (int32_t k = 1; k < e->nthresholds; k++)
            if (down ? t[k] > t[k - 1] : t[k] < t[k - 1])
                return false;
    }
    return true;
}

static const char *unreadable_weights(const lbrt_layer *l, const lbrt_tensor *src, int32_t oc) {
    const lbrt_weights *w = &l->weights;
    const int32_t ic = l->flat ? src->h * src->w * src->c : src->c;
    if (l->groups < 1 || ic % l->groups != 0 || oc % l->groups != 0)
        return "groups do not divide the channels";
    if (l->kh < 1 || l->kw < 1 || (int64_t)l->kh * l->kw * (ic / l->groups) > LBRT_MAX_ELEMENTS)
        return "kernel";
    if (w->bits == 32 ? w->f32 == NULL : w->bits < 1 || w->bits > 8 || w->packed == NULL)
        return "weights missing or of impossible bits";
    return w->bits == 32 && !l->is_float ? "float weights in an integer layer" : NULL;
}

static const char *unreadable_epilogue(const lbrt_layer *l, int32_t index, int32_t channels) {
    const lbrt_epilogue *e = &l->epilogue;
    if (e->flags & LBRT_RESIDUAL && (e->residual < 0 || e->residual > index))
        return "residual is not an earlier tensor";
    if (e->flags & LBRT_AFFINE && (l->is_float ? e->scale == NULL || e->offset == NULL : e->requant == NULL))
        return "affine without factors";
    if (e->flags & LBRT_THRESHOLDS && (l->is_float || e->flags & ~(uint32_t)(LBRT_THRESHOLDS | LBRT_SIGN)))
        return "thresholds beside other epilogue flags";
    if (e->flags & LBRT_THRESHOLDS) {
        const int64_t n = e->flags & LBRT_SIGN ? 1 : (int64_t)e->qhi - e->qlo;
        if (e->thresholds == NULL || e->nthresholds != n || n < 1 || n > LBRT_MAX_THRESHOLDS)
            return "thresholds missing or not as many as codes";
        if (!in_order(e, channels))
            return "thresholds out of order";
    }
    if (e->flags & LBRT_SIGN && (e->qlo != -1 || e->qhi != 1))
        return "sign with codes other than -1 and 1";
    if (e->flags & LBRT_RESIDUAL && e->res.shift > LBRT_MAX_SHIFT)
        return "residual's shift";
    for (int32_t c = 0; c < channels && e->flags & LBRT_AFFINE && !l->is_float; c++)
        if (e->requant[c].shift < 0 || e->requant[c].shift > LBRT_MAX_SHIFT)
            return "requant's shift";
    return NULL;
}

/* What keeps put_layer and the range proof from reading what is not there. */
static const char *unreadable(const lbrt_graph *g, int32_t index) {
    const lbrt_layer *l = &g->layers[index];
    const lbrt_epilogue *e = &l->epilogue;
    if (l->dst != index + 1)
        return "dst is not the tensor after the layer's number";
    if (l->src < 0 || l->src > index)
        return "src is not an earlier tensor";
    if (l->op < 0 || l->op >= LBRT_OPS)
        return "op";
    const lbrt_tensor *src = &g->tensors[l->src], *dst = &g->tensors[index + 1];
    if (l->op == LBRT_OP_INPUT)
        return dst->type == LBRT_F32 ? (e->scale && e->offset ? NULL : "no scale or offset") : e->requant ? NULL : "no requant";
    if (l->op == LBRT_OP_COPY || l->op == LBRT_OP_MUL)
        if (!readable_sources(l, index))
            return "its sources or runs of channels";
    if (lbrt_is_bare(l))
        return e->flags == 0 ? NULL : "an epilogue, which its operator does not have";
    const char *weights = l->op == LBRT_OP_CONV ? unreadable_weights(l, src, dst->c) : NULL;
    return weights ? weights : unreadable_epilogue(l, index, dst->c);
}

static lb_status check_layer(lb_ctx *ctx, const lbrt_graph *g, int32_t index) {
    const lbrt_layer *l = &g->layers[index];
    const lbrt_tensor *dst = &g->tensors[index + 1];
    const char *name = l->name != NULL ? l->name : "";
    const char *what = unreadable(g, index);
    if (what != NULL)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "packing layer %d '%s': %s", index, name, what);
    if (dst->type == LBRT_F32 || l->op == LBRT_OP_INPUT)
        return LB_OK;
    int32_t lo, hi;
    if (!lbrt_layer_range(g, index, &lo, &hi))
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "packing layer %d '%s': its sums could leave 32 bits; use fewer bits or channels",
                       index, name);
    if (lo < dst->lo || hi > dst->hi)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "packing layer %d '%s': results in %d..%d, but its tensor states %d..%d", index,
                       name, (int)lo, (int)hi, (int)dst->lo, (int)dst->hi);
    return LB_OK;
}

static lb_status check_graph(lb_ctx *ctx, const lbrt_graph *g) {
    if (g->nlayers < 1 || g->nlayers > LBRT_MAX_LAYERS || g->ntensors != g->nlayers + 1)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "packing '%s': %d layers and %d tensors", g->name, (int)g->nlayers,
                       (int)g->ntensors);
    for (int32_t i = 0; i < g->ntensors; i++) {
        const lbrt_tensor *t = &g->tensors[i];
        if (t->h < 1 || t->h > LBRT_MAX_SIDE || t->w < 1 || t->w > LBRT_MAX_SIDE || t->c < 1 || t->c > LBRT_MAX_CHANNELS ||
            (int64_t)t->h * t->w > LBRT_MAX_ELEMENTS / t->c)
            return lb_fail(ctx, LB_ERR_UNSUPPORTED, "packing '%s': tensor %d of shape %dx%dx%d is too large", g->name, (int)i,
                           (int)t->h, (int)t->w, (int)t->c);
    }
    if (g->tensors[0].type != LBRT_U8 || g->tensors[0].lo != 0 || g->tensors[0].hi != 255)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "packing '%s': tensor 0 is not an image of values 0..255", g->name);
    for (int32_t i = 0; i < g->nlayers; i++)
        LB_TRY(check_layer(ctx, g, i));
    return LB_OK;
}

static void put_graph(writer *w, const lbrt_graph *g, const lb_pack_note *notes, int nnotes) {
    put_bytes(w, "LBM\x1a", 4);
    put_int(w, LBRT_FORMAT_VERSION, 4);
    put_int(w, 0, 8); /* size and checksum: known at the end */
    put_text(w, g->name);
    put_num(w, (uint32_t)nnotes);
    for (int i = 0; i < nnotes; i++) {
        put_text(w, notes[i].key);
        put_text(w, notes[i].value);
    }
    put_num(w, (uint32_t)g->classes);
    put_num(w, g->class_names != NULL);
    for (int32_t i = 0; g->class_names != NULL && i < g->classes; i++)
        put_text(w, g->class_names[i]);
    put_num(w, (uint32_t)g->tensors[0].h);
    put_num(w, (uint32_t)g->tensors[0].w);
    put_num(w, (uint32_t)g->tensors[0].c);
    put_num(w, (uint32_t)g->nlayers);
    for (int32_t i = 1; i < g->ntensors; i++) {
        const lbrt_tensor *t = &g->tensors[i];
        put_num(w, (uint32_t)t->h);
        put_num(w, (uint32_t)t->w);
        put_num(w, (uint32_t)t->c);
        put_num(w, (uint32_t)t->type);
        if (t->type != LBRT_F32) {
            put_snum(w, t->lo);
            put_snum(w, t->hi);
        }
    }
    for (int32_t i = 0; i < g->nlayers; i++)
        put_layer(w, g, i);
    if (w->status != LB_OK)
        return;
    for (unsigned i = 0; i < 4; i++)
        w->data[8 + i] = (unsigned char)(w->size >> (8 * i));
    uint32_t crc = lbrt_crc32c(0, w->data, LBRT_CHECKSUM_AT);
    crc = lbrt_crc32c(crc, w->data + LBRT_HEADER_SIZE, w->size - LBRT_HEADER_SIZE);
    for (unsigned i = 0; i < 4; i++)
        w->data[LBRT_CHECKSUM_AT + i] = (unsigned char)(crc >> (8 * i));
}

lb_status lb_pack_graph(lb_ctx *ctx, const lbrt_graph *graph, const lb_pack_note *notes, int nnotes, unsigned char **bytes,
                        size_t *size) {
    *bytes = NULL;
    *size = 0;
    LB_TRY(check_graph(ctx, graph));
    writer w = {.ctx = ctx};
    put_graph(&w, graph, notes, nnotes);
    if (w.status == LB_OK) {
        lbrt_info info;
        const char *what;
        int layer;
        const lbrt_status status = lbrt_probe_why(w.data, w.size, LBRT_ISA_REF, &info, &what, &layer);
        if (status != LBRT_OK)
            w.status = lb_fail(ctx, LB_ERR_UNSUPPORTED, "packing '%s', layer %d '%s': %s", graph->name, layer,
                               layer >= 0 && graph->layers[layer].name != NULL ? graph->layers[layer].name : "",
                               what != NULL ? what : lbrt_status_text(status));
    }
    if (w.status != LB_OK) {
        lb_free(ctx, w.data);
        return w.status;
    }
    *bytes = w.data;
    *size = w.size;
    return LB_OK;
}

lb_status lb_pack_layer_sizes(lb_ctx *ctx, const lbrt_graph *graph, int64_t *bytes) {
    LB_TRY(check_graph(ctx, graph));
    writer w = {.ctx = ctx};
    for (int32_t i = 0; i < graph->nlayers; i++) {
        const size_t before = w.size;
        put_layer(&w, graph, i);
        bytes[i] = (int64_t)(w.size - before);
    }
    lb_free(ctx, w.data);
    return w.status;
}

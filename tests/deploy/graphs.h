/* Random deploy graphs, and an independent reading of model.h that says what they compute: plain loops, one element at a time,
 * every integer in 64 bits, libm's rintf. Shared by the packing tests. */
#ifndef LB_TEST_GRAPHS_H
#define LB_TEST_GRAPHS_H

#include <math.h>

#include "deploy/pack.h"
#include "internal.h"
#include "support.h"

#define MAX_TEST_LAYERS 12

typedef struct test_graph {
    lbrt_graph g;
    lbrt_tensor tensors[MAX_TEST_LAYERS + 1];
    lbrt_layer layers[MAX_TEST_LAYERS];
    void *blocks[256];
    int nblocks;
    uint64_t state;
} test_graph;

/* Weight formats: bits, mul, add. */
typedef struct test_weights {
    const char *name;
    int bits, mul, add;
} test_weights;

static const test_weights weight_formats[] = {
    {"sign", 1, 2, -1},    {"unsigned1", 1, 1, 0},  {"ternary", 2, 1, -1},      {"dorefa2", 2, 2, -3}, {"lsq2", 2, 1, -2},
    {"dorefa3", 3, 2, -7}, {"lsq4", 4, 1, -8},      {"lsq5", 5, 1, -16},        {"lsq6", 6, 1, -32},   {"lsq7", 7, 1, -64},
    {"lsq8", 8, 1, -128},  {"dorefa8", 8, 2, -255}, {"coarse8", 8, -100, 9000}, {"float", 32, 0, 0},
};

static inline uint32_t test_bits(test_graph *t) { /* xorshift64* */
    t->state ^= t->state >> 12;
    t->state ^= t->state << 25;
    t->state ^= t->state >> 27;
    return (uint32_t)(t->state * 2685821657736338717ull >> 32);
}
static inline int test_in(test_graph *t, int lo, int hi) { return lo + (int)(test_bits(t) % (uint32_t)(hi - lo + 1)); }
static inline float test_float(test_graph *t, float range) { return ((float)test_bits(t) * 0x1p-31f - 1.0f) * range; }

static inline void *test_block(test_graph *t, size_t count, size_t size) {
    assert_true(t->nblocks < (int)LB_COUNT(t->blocks));
    void *ptr = calloc(count + (count == 0), size);
    assert_non_null(ptr);
    t->blocks[t->nblocks++] = ptr;
    return ptr;
}

static inline void test_graph_free(test_graph *t) {
    for (int i = 0; i < t->nblocks; i++)
        free(t->blocks[i]);
    t->nblocks = 0;
}

static inline lbrt_requant test_requant(test_graph *t, double a, double b) {
    lbrt_requant q;
    q.shift = test_in(t, 8, 46);
    while (q.shift > 0 && (fabs(ldexp(a, q.shift)) > 2e9 || fabs(ldexp(b, q.shift)) > 1e17))
        q.shift--;
    q.mul = (int32_t)ldexp(a, q.shift);
    q.add = (int64_t)ldexp(b, q.shift) + (q.shift > 0 ? (int64_t)1 << (q.shift - 1) : 0);
    return q;
}

static inline const lbrt_requant *test_requants(test_graph *t, int n, double a, double b) {
    lbrt_requant *q = test_block(t, (size_t)n, sizeof *q);
    const int same_shift = test_in(t, 0, 1), zero_add = test_in(t, 0, 4) == 0;
    for (int c = 0; c < n; c++) {
        q[c] = test_requant(t, test_float(t, 1.0f) * a, test_float(t, 1.0f) * b);
        if (same_shift)
            q[c].shift = q[0].shift;
        if (zero_add)
            q[c].add = 0;
    }
    return q;
}

static inline const float *test_floats(test_graph *t, size_t n, float range) {
    float *v = test_block(t, n, sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = test_float(t, range);
    return v;
}

/* A code range and the type that holds it; now and then without 0, which padding is all the same. */
static inline void test_codes(test_graph *t, lbrt_epilogue *e, lbrt_tensor *dst, int bits) {
    const int is_signed = test_in(t, 0, 1);
    e->qlo = is_signed ? -(1 << (bits - 1)) : 0;
    if (bits < 7 && test_in(t, 0, 3) == 0) {
        const int below = is_signed && test_in(t, 0, 1), most = (is_signed ? 128 : 256) - (1 << bits);
        e->qlo = below ? test_in(t, -128, -(1 << bits)) : test_in(t, 1, most);
    }
    e->qhi = e->qlo + (1 << bits) - 1;
    dst->type = test_in(t, 0, 5) == 0 ? LBRT_I32 : is_signed ? LBRT_I8 : LBRT_U8;
    if (test_in(t, 0, 30) == 0) { /* more than 32 bits apart */
        e->qlo = -2000000000;
        e->qhi = 2000000000;
        dst->type = LBRT_I32;
    }
}

static inline void test_input_layer(test_graph *t, int is_float) {
    lbrt_layer *l = &t->layers[0];
    lbrt_tensor *dst = &t->tensors[1];
    *l = (lbrt_layer){.op = LBRT_OP_INPUT, .src = 0, .dst = 1, .name = "input", .groups = 1};
    *dst = t->tensors[0];
    if (is_float) {
        l->epilogue.flags = LBRT_AFFINE;
        l->epilogue.scale = test_floats(t, (size_t)dst->c, 0.02f);
        l->epilogue.offset = test_floats(t, (size_t)dst->c, 2.0f);
        *dst = (lbrt_tensor){dst->h, dst->w, dst->c, LBRT_F32, 0, 0};
    } else {
        l->epilogue.flags = LBRT_AFFINE | LBRT_CODE;
        test_codes(t, &l->epilogue, dst, test_in(t, 1, 8));
        l->epilogue.requant = test_requants(t, dst->c, 1.0, 4.0);
        dst->lo = l->epilogue.qlo;
        dst->hi = l->epilogue.qhi;
    }
    t->g.nlayers = 1;
    t->g.ntensors = 2;
}

static inline void test_random_weights(test_graph *t, lbrt_layer *l, const lbrt_tensor *src, int oc, const test_weights *f) {
    const size_t k = (size_t)lbrt_weights_per_channel(l, src);
    l->weights.bits = f->bits;
    l->weights.mul = f->mul;
    l->weights.add = f->add;
    if (f->bits == 32) {
        l->weights.f32 = test_floats(t, k * (size_t)oc, 0.5f);
        return;
    }
    const size_t row = (k * (size_t)f->bits + 7) / 8;
    uint8_t *packed = test_block(t, row * (size_t)oc, 1);
    for (size_t o = 0; o < (size_t)oc; o++)
        for (size_t i = 0; i < k; i++) {
            const unsigned v = test_bits(t) & ((1u << f->bits) - 1u);
            for (int b = 0; b < f->bits; b++) {
                const size_t bit = i * (size_t)f->bits + (size_t)b;
                packed[o * row + bit / 8] |= (uint8_t)((v >> b & 1u) << (bit % 8));
            }
        }
    l->weights.packed = packed;
}

/* An epilogue of random parts that fits the layer's domain; sets dst's type. `last`: fixed point wanted. */
static inline void test_random_epilogue(test_graph *t, lbrt_layer *l, lbrt_tensor *dst, int last) {
    lbrt_epilogue *e = &l->epilogue;
    const uint32_t pick = test_bits(t);
    const size_t c = (size_t)dst->c;
    memset(e, 0, sizeof *e);
    if (!l->is_float && !last && pick % 3 == 0) {
        const int sign = pick / 3 % 3 == 0, n = sign ? 1 : test_in(t, 1, 15);
        e->flags = LBRT_THRESHOLDS | (sign ? LBRT_SIGN : 0u);
        e->qlo = sign ? -1 : test_in(t, 0, 1) ? 0 : -(n / 2);
        e->qhi = sign ? 1 : e->qlo + n;
        dst->type = e->qlo < 0 ? LBRT_I8 : LBRT_U8;
        e->nthresholds = n;
        int32_t *v = test_block(t, c * (size_t)n, sizeof *v);
        uint8_t *flip = test_block(t, c, 1);
        const int range = 1 << test_in(t, 3, 20), flips = test_in(t, 0, 1);
        for (size_t i = 0; i < c; i++) {
            flip[i] = (uint8_t)(flips && test_in(t, 0, 1));
            for (int k = 0; k < n; k++)
                v[i * (size_t)n + (size_t)k] = test_in(t, 0, 30) == 0   ? INT32_MAX
                                               : test_in(t, 0, 30) == 0 ? INT32_MIN
                                                                        : test_in(t, -range, range);
            for (int a = 0; a < n; a++) /* order them */
                for (int b = 0; b + 1 < n; b++) {
                    int32_t *x = &v[i * (size_t)n + (size_t)b];
                    if (flip[i] ? x[0] < x[1] : x[0] > x[1]) {
                        const int32_t y = x[0];
                        x[0] = x[1];
                        x[1] = y;
                    }
                }
        }
        e->thresholds = v;
        e->flip = flips || test_in(t, 0, 1) ? flip : NULL;
        return;
    }
    if (last || pick & 1)
        e->flags |= LBRT_AFFINE;
    if (pick & 2)
        e->flags |= LBRT_CLAMP;
    if (!last && pick & 4)
        e->flags |= (pick & 24) == 0 ? LBRT_SIGN : LBRT_CODE;
    if (l->is_float && (last || (!(e->flags & (LBRT_CODE | LBRT_SIGN)) && (pick & 96) == 0)))
        e->flags |= LBRT_TO_FIXED;
    for (int32_t r = 0; r <= l->src && pick & 128; r++) {
        const lbrt_tensor *res = &t->tensors[r];
        if (res->h == dst->h && res->w == dst->w && res->c == dst->c && (l->is_float || res->type != LBRT_F32)) {
            e->flags |= LBRT_RESIDUAL;
            e->residual = r;
        }
    }
    if (e->flags & LBRT_AFFINE && l->is_float) {
        e->scale = test_floats(t, c, 1.5f);
        e->offset = test_floats(t, c, 3.0f);
    } else if (e->flags & LBRT_AFFINE) {
        e->requant = test_requants(t, dst->c, ldexp(1.0, test_in(t, -2, 12)), ldexp(1.0, test_in(t, 1, 18)));
    }
    e->res = test_requant(t, test_float(t, 60000.0f), test_float(t, 9000.0f));
    if (pick & 256)
        e->res.shift = -1;
    e->res_step = test_float(t, 1.0f);
    e->lo = -test_in(t, 0, 200000);
    e->hi = test_in(t, 0, 200000);
    e->flo = pick & 512 ? -INFINITY : -1.0f;
    e->fhi = pick & 1024 ? INFINITY : 4.0f;
    e->inv_step = test_float(t, 4.0f);
    e->q = test_requant(t, test_float(t, 0.001f), test_float(t, 4.0f));
    dst->type = l->is_float && !(e->flags & LBRT_TO_FIXED) ? LBRT_F32 : LBRT_I32;
    if (e->flags & LBRT_CODE)
        test_codes(t, e, dst, test_in(t, 1, 8));
    if (e->flags & LBRT_SIGN) {
        e->qlo = -1;
        e->qhi = 1;
        dst->type = LBRT_I8;
        if (pick & 2048)
            e->flags |= LBRT_CODE;
    }
}

/* What a dilated kernel spans. */
static inline int test_span(int k, int gap) { return k + (k - 1) * gap; }

static inline int test_out(int in, int before, int behind, int k, int stride) {
    return in + before + behind < k ? 0 : (in + before + behind - k) / stride + 1;
}

static inline bool test_same_size(const lbrt_tensor *a, const lbrt_tensor *b) { return a->h == b->h && a->w == b->w; }

/* Rows or columns by their numbers, -1 for zeros. */
static inline const int32_t *test_lines(test_graph *t, int count, int all, int32_t *zeros) {
    int32_t *lines = test_block(t, (size_t)count, sizeof *lines);
    for (int i = 0; i < count; i++) {
        lines[i] = test_in(t, -(test_in(t, 0, 3) == 0), all - 1);
        *zeros |= lines[i] < 0;
    }
    return lines;
}

/* Sources and runs of channels of a copy. */
static inline void test_random_copy(test_graph *t, lbrt_layer *l, lbrt_tensor *dst) {
    const lbrt_tensor *src = &t->tensors[l->src];
    lbrt_part *parts = test_block(t, LBRT_MAX_SOURCES + 4, sizeof *parts);
    l->sh = l->sw = test_in(t, 0, 2) ? 1 : test_in(t, 2, 3);
    l->nsources = 1;
    l->sources[0] = l->src;
    for (int32_t r = 0; r <= l->dst - 1 && l->nsources < LBRT_MAX_SOURCES; r++)
        if (test_same_size(&t->tensors[r], src) && t->tensors[r].type == src->type && test_in(t, 0, 1))
            l->sources[l->nsources++] = r;
    *dst = (lbrt_tensor){(src->h - 1) / l->sh + 1, (src->w - 1) / l->sw + 1, 0, src->type, 0, 0};
    if (test_in(t, 0, 1)) {
        l->sh = l->sw = 1;
        dst->h = test_in(t, 1, 9), dst->w = test_in(t, 1, 9);
        l->rows = test_lines(t, dst->h, src->h, &l->zeros);
        l->cols = test_lines(t, dst->w, src->w, &l->zeros);
    }
    const int most = l->nsources + test_in(t, 0, 4);
    int n = 0;
    for (int p = 0; p < most && dst->c < 40; p++, n++) {
        const int source = p < l->nsources ? p : test_in(t, 0, l->nsources - 1), c = t->tensors[l->sources[source]].c;
        const int gap = test_in(t, 0, 5) == 0 ? test_in(t, 1, 3) : 0, first = test_in(t, 0, 2) ? 0 : test_in(t, 0, c - 1);
        l->zeros |= gap > 0;
        parts[p] = (lbrt_part){source, dst->c + gap, first, test_in(t, 1, c - first)};
        dst->c = parts[p].dst + parts[p].count;
    }
    l->nparts = n;
    l->parts = parts;
}

/* The second factor: a tensor of the same shape, or one pixel for all. */
static inline void test_random_factor(test_graph *t, lbrt_layer *l) {
    const lbrt_tensor *src = &t->tensors[l->src];
    l->nsources = 2;
    l->sources[0] = l->sources[1] = l->src;
    for (int32_t r = 0; r <= l->dst - 1; r++) {
        const lbrt_tensor *other = &t->tensors[r];
        if (other->c == src->c && other->type == src->type && (test_same_size(other, src) || (other->h == 1 && other->w == 1)) &&
            test_in(t, 0, 1))
            l->sources[1] = r;
    }
}

/* Appends a random layer; the last one gives `classes` scores. */
static inline void test_random_layer(test_graph *t, const test_weights *format, int classes) {
    for (int attempt = 0; attempt < 1000; attempt++) {
        const int index = t->g.nlayers;
        lbrt_layer *l = &t->layers[index];
        lbrt_tensor *dst = &t->tensors[index + 1];
        const int nblocks = t->nblocks;
        *l = (lbrt_layer){.op = test_in(t, 0, 11),
                          .src = test_in(t, 0, 4) && index > 0 ? index : test_in(t, 0, index),
                          .dst = index + 1,
                          .groups = 1};
        if (l->op == LBRT_OP_INPUT || l->op >= LBRT_OPS || classes > 0)
            l->op = LBRT_OP_CONV;
        static const char *const names[] = {"a", "block.1.conv2", "", NULL};
        l->name = names[test_in(t, 0, 3)];
        const lbrt_tensor *src = &t->tensors[l->src];
        const bool wide = src->type == LBRT_I32 || src->type == LBRT_F32;
        if ((l->op == LBRT_OP_MUL && !wide) || (l->op == LBRT_OP_SIGMOID && src->type != LBRT_I32))
            continue;
        const bool geometric = l->op == LBRT_OP_CONV || l->op == LBRT_OP_MAXPOOL || l->op == LBRT_OP_SUMPOOL;
        l->is_float = src->type == LBRT_F32 || (format->bits == 32 && l->op == LBRT_OP_CONV) ||
                      (!lbrt_is_bare(l) && test_in(t, 0, 5) == 0);
        l->src_step = test_float(t, 0.3f);
        l->kh = l->kw = l->sh = l->sw = 1;
        if (geometric && classes == 0) {
            l->kh = test_in(t, 1, 4);
            l->kw = test_in(t, 0, 1) ? l->kh : test_in(t, 1, 4);
            l->sh = test_in(t, 1, 3);
            l->sw = test_in(t, 0, 1) ? l->sh : test_in(t, 1, 3);
            l->pt = test_in(t, 0, l->kh - 1);
            l->pl = test_in(t, 0, l->kw - 1);
            l->pb = test_in(t, 0, 1) ? l->pt : test_in(t, 0, l->kh - 1);
            l->pr = test_in(t, 0, 1) ? l->pl : test_in(t, 0, l->kw - 1);
            if (l->op == LBRT_OP_CONV && test_in(t, 0, 5) == 0)
                l->pt += 3; /* rows that see only padding */
            if (l->op == LBRT_OP_CONV && test_in(t, 0, 6) == 0)
                l->gap_h = test_in(t, 0, 2), l->gap_w = test_in(t, 0, 2);
        }
        l->inside = l->op == LBRT_OP_SUMPOOL && wide && test_in(t, 0, 1);
        l->flat = classes > 0;
        *dst = (lbrt_tensor){
            test_out(src->h, l->pt, l->pb, test_span(l->kh, l->gap_h), l->sh),
            test_out(src->w, l->pl, l->pr, test_span(l->kw, l->gap_w), l->sw), src->c, src->type, 0, 0};
        if (dst->h < 1 || dst->w < 1)
            continue;
        if (l->op == LBRT_OP_CONV) {
            const int kind = classes > 0 ? 0 : test_in(t, 0, 3);
            dst->c = classes > 0 ? classes : test_in(t, 1, 21);
            if (kind == 1) {
                l->groups = src->c;
                dst->c = src->c * (src->c < 8 ? test_in(t, 1, 2) : 1);
            } else if (kind == 2) {
                l->groups = src->c % 3 == 0 ? 3 : src->c % 2 == 0 ? 2 : 1;
                dst->c = l->groups * test_in(t, 1, 9);
            }
            if (l->flat)
                dst->h = dst->w = 1;
            test_random_weights(t, l, src, dst->c, format->bits == 32 && !l->is_float ? &weight_formats[0] : format);
        }
        if (l->op == LBRT_OP_COPY)
            test_random_copy(t, l, dst);
        else if (l->op == LBRT_OP_MUL)
            test_random_factor(t, l);
        if (l->op == LBRT_OP_CONV || l->op == LBRT_OP_POINT)
            test_random_epilogue(t, l, dst, classes > 0);
        else if (l->op == LBRT_OP_SUMPOOL && src->type != LBRT_F32)
            dst->type = LBRT_I32;
        t->g.nlayers++;
        t->g.ntensors++;
        if (lbrt_layer_range(&t->g, index, &dst->lo, &dst->hi)) {
            if (dst->type == LBRT_I8 && dst->lo > INT8_MIN && test_in(t, 0, 7) == 0)
                dst->lo--; /* a stated range may be wider */
            return;
        }
        t->g.nlayers--;
        t->g.ntensors--;
        while (t->nblocks > nblocks)
            free(t->blocks[--t->nblocks]);
    }
    fail_msg("no layer fits");
}

static inline void test_graph_random(test_graph *t, uint64_t seed, const test_weights *format, int nlayers) {
    static const char *const names[] = {"ankle boot", "b", "", "caf\xc3\xa9", "e", "f", "g"};
    memset(t, 0, sizeof *t);
    t->state = seed * 0x9e3779b97f4a7c15ull + 88172645463325252ull;
    t->g.name = "random";
    t->g.tensors = t->tensors;
    t->g.layers = t->layers;
    t->g.classes = test_in(t, 1, 7);
    t->g.class_names = test_in(t, 0, 1) ? names : NULL;
    t->g.ntensors = 1;
    t->tensors[0] = (lbrt_tensor){test_in(t, 1, 9), test_in(t, 1, 9), test_in(t, 1, 5), LBRT_U8, 0, 255};
    if (test_in(t, 0, 3))
        test_input_layer(t, format->bits == 32 || test_in(t, 0, 3) == 0);
    while (t->g.nlayers < nlayers)
        test_random_layer(t, format, 0);
    while (t->tensors[t->g.nlayers].type != LBRT_F32 && /* sums of wide numbers could leave 32 bits: code them first */
           (t->tensors[t->g.nlayers].hi > 1 << 16 || t->tensors[t->g.nlayers].lo < -(1 << 16))) {
        const int index = t->g.nlayers++;
        t->g.ntensors++;
        t->layers[index] = (lbrt_layer){.op = LBRT_OP_POINT, .src = index, .dst = index + 1, .groups = 1, .name = "code"};
        t->tensors[index + 1] = t->tensors[index];
        lbrt_epilogue *e = &t->layers[index].epilogue;
        e->flags = LBRT_CODE;
        e->q = test_requant(t, 0.001, 1.0);
        e->qlo = -8;
        e->qhi = 7;
        t->tensors[index + 1].type = LBRT_I8;
        t->tensors[index + 1].lo = -8;
        t->tensors[index + 1].hi = 7;
    }
    test_random_layer(t, format, t->g.classes);
}

/* ---- What model.h says, once more ------------------------------------------------------------------------------------- */

typedef struct test_value {
    int64_t i;
    float f;
} test_value;

static inline int64_t plain_saturate(int64_t v) { return v > 2147483647 ? 2147483647 : v < -2147483648LL ? -2147483648LL : v; }

static inline int64_t plain_apply(const lbrt_requant *r, int64_t x) {
    const int64_t v = x * r->mul + r->add, d = (int64_t)1 << r->shift;
    return plain_saturate(v / d - (v % d < 0));
}

static inline int64_t plain_clamp(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

static inline int64_t plain_weight(const lbrt_weights *w, size_t k, size_t o, size_t i) {
    const size_t row = (k * (size_t)w->bits + 7) / 8;
    int64_t stored = 0;
    for (size_t b = 0; b < (size_t)w->bits; b++) {
        const size_t bit = i * (size_t)w->bits + b;
        stored |= (int64_t)(w->packed[o * row + bit / 8] >> (bit % 8) & 1) << b;
    }
    return w->mul * stored + w->add;
}

static inline test_value plain_epilogue(const lbrt_layer *l, test_value v, int c, const test_value *res,
                                        const lbrt_tensor *res_tensor) {
    const lbrt_epilogue *e = &l->epilogue;
    if (l->is_float) {
        if (e->flags & LBRT_AFFINE) {
            const float product = v.f * e->scale[c];
            v.f = product + e->offset[c];
        }
        if (e->flags & LBRT_RESIDUAL) {
            const float r = res_tensor->type == LBRT_F32 ? res->f : (float)res->i, scaled = r * e->res_step;
            v.f = v.f + scaled;
        }
        if (e->flags & LBRT_CLAMP)
            v.f = v.f < e->flo ? e->flo : v.f > e->fhi ? e->fhi : v.f;
        if (e->flags & LBRT_SIGN) {
            v.i = v.f >= 0 ? 1 : -1;
        } else if (e->flags & LBRT_CODE) {
            const float r = rintf(v.f * e->inv_step);
            v.i = r != r || r <= (float)e->qlo ? e->qlo : r >= (float)e->qhi ? e->qhi : (int64_t)r;
        } else if (e->flags & LBRT_TO_FIXED) {
            const float r = rintf(v.f * 65536.0f);
            v.i = r != r || r <= -2147483648.0f ? INT32_MIN : r >= 2147483648.0f ? INT32_MAX : (int64_t)r;
        }
        return v;
    }
    if (e->flags & LBRT_THRESHOLDS) {
        int64_t count = 0;
        for (int k = 0; k < e->nthresholds; k++) {
            const int64_t t = e->thresholds[c * e->nthresholds + k];
            count += e->flip != NULL && e->flip[c] ? v.i <= t : v.i >= t;
        }
        v.i = e->flags & LBRT_SIGN ? (count ? 1 : -1) : e->qlo + count;
        return v;
    }
    if (e->flags & LBRT_AFFINE)
        v.i = plain_apply(&e->requant[c], v.i);
    if (e->flags & LBRT_RESIDUAL)
        v.i = plain_saturate(v.i + (e->res.shift < 0 ? res->i : plain_apply(&e->res, res->i)));
    if (e->flags & LBRT_CLAMP)
        v.i = plain_clamp(v.i, e->lo, e->hi);
    if (e->flags & LBRT_SIGN)
        v.i = v.i >= 0 ? 1 : -1;
    else if (e->flags & LBRT_CODE)
        v.i = plain_clamp(plain_apply(&e->q, v.i), e->qlo, e->qhi);
    return v;
}

static inline test_value plain_element(const lbrt_graph *g, int index, test_value *const *values, int y, int x, int c) {
    const lbrt_layer *l = &g->layers[index];
    const lbrt_epilogue *e = &l->epilogue;
    const lbrt_tensor *st = &g->tensors[l->src], *dt = &g->tensors[index + 1];
    const test_value *src = values[l->src];
    const size_t at = ((size_t)y * (size_t)dt->w + (size_t)x) * (size_t)dt->c + (size_t)c;
    const test_value *res = e->flags & LBRT_RESIDUAL ? &values[e->residual][at] : NULL;
    const lbrt_tensor *res_tensor = &g->tensors[e->residual];
    test_value v = {0, 0.0f};
    if (l->op == LBRT_OP_INPUT) {
        if (dt->type == LBRT_F32) {
            const float product = (float)src[at].i * e->scale[c];
            v.f = product + e->offset[c];
        } else {
            v.i = plain_clamp(plain_apply(&e->requant[c], src[at].i), e->qlo, e->qhi);
        }
        return v;
    }
    if (l->op == LBRT_OP_POINT) {
        v = src[at];
        if (l->is_float && st->type != LBRT_F32)
            v.f = (float)v.i * l->src_step;
        return plain_epilogue(l, v, c, res, res_tensor);
    }
    if (l->op == LBRT_OP_COPY) {
        for (int p = 0; p < l->nparts; p++) {
            const lbrt_part *part = &l->parts[p];
            const lbrt_tensor *from = &g->tensors[l->sources[part->source]];
            const int sy = l->rows ? l->rows[y] : y * l->sh, sx = l->cols ? l->cols[x] : x * l->sw;
            if (sy >= 0 && sx >= 0 && c >= part->dst && c < part->dst + part->count)
                v = values[l->sources[part->source]][((size_t)sy * (size_t)from->w + (size_t)sx) * (size_t)from->c +
                                                     (size_t)(c - part->dst + part->src)];
        }
        return v;
    }
    if (l->op == LBRT_OP_MUL) {
        const lbrt_tensor *other = &g->tensors[l->sources[1]];
        const test_value a = src[at], b = values[l->sources[1]][other->h == dt->h && other->w == dt->w ? at : (size_t)c];
        const int64_t product = a.i * b.i + 32768;
        v.i = plain_saturate(product / 65536 - (product % 65536 < 0));
        v.f = a.f * b.f;
        return v;
    }
    if (l->op == LBRT_OP_SIGMOID) {
        v.i = (int64_t)rint(65536 / (1 + exp((double)-src[at].i / 65536)));
        return v;
    }
    const int ih = l->flat ? 1 : st->h, iw = l->flat ? 1 : st->w, ic = l->flat ? st->h * st->w * st->c : st->c;
    const int icg = ic / l->groups, group = l->op == LBRT_OP_CONV ? c / (dt->c / l->groups) : 0;
    const size_t k = (size_t)(l->kh * l->kw * icg);
    int taken = 0;
    for (int ky = 0; ky < l->kh; ky++)
        for (int kx = 0; kx < l->kw; kx++) {
            const int sy = y * l->sh - l->pt + ky * (l->gap_h + 1), sx = x * l->sw - l->pl + kx * (l->gap_w + 1);
            if (sy < 0 || sy >= ih || sx < 0 || sx >= iw)
                continue;
            const test_value *pixel = src + ((size_t)sy * (size_t)iw + (size_t)sx) * (size_t)ic;
            if (l->op == LBRT_OP_CONV) {
                for (int i = 0; i < icg; i++) {
                    const test_value s = pixel[group * icg + i];
                    const size_t n = (size_t)((ky * l->kw + kx) * icg + i);
                    if (l->is_float) {
                        const float w = l->weights.bits == 32 ? l->weights.f32[(size_t)c * k + n]
                                                              : (float)plain_weight(&l->weights, k, (size_t)c, n);
                        const float a = st->type == LBRT_F32 ? s.f : (float)s.i * l->src_step, product = a * w;
                        v.f = v.f + product;
                    } else {
                        v.i += s.i * plain_weight(&l->weights, k, (size_t)c, n);
                    }
                }
                continue;
            }
            const test_value s = pixel[c];
            if (l->op == LBRT_OP_SUMPOOL) {
                v.i += s.i;
                v.f = v.f + s.f;
            } else {
                v.i = taken == 0 || s.i > v.i ? s.i : v.i;
                v.f = taken == 0 || s.f > v.f ? s.f : v.f;
            }
            taken++;
        }
    if (l->op == LBRT_OP_SUMPOOL)
        v.i = plain_saturate(v.i);
    if (l->inside && taken < l->kh * l->kw) { /* rounded half up */
        const int64_t whole = v.i * l->kh * l->kw;
        v.i = plain_saturate(whole / taken + (whole % taken * 2 >= taken) - (whole % taken * 2 < -taken));
        v.f = v.f * ((float)(l->kh * l->kw) / (float)taken);
    }
    if (l->op == LBRT_OP_CONV && !l->is_float)
        assert_true(v.i == plain_saturate(v.i));
    return l->op == LBRT_OP_CONV ? plain_epilogue(l, v, c, res, res_tensor) : v;
}

/* Scores of one image. */
static inline void plain_run(const lbrt_graph *g, const uint8_t *image, int32_t *scores) {
    test_value *values[MAX_TEST_LAYERS + 1];
    for (int t = 0; t < g->ntensors; t++) {
        const lbrt_tensor *dt = &g->tensors[t];
        values[t] = calloc((size_t)dt->h * (size_t)dt->w * (size_t)dt->c, sizeof **values);
        assert_non_null(values[t]);
        size_t at = 0;
        for (int y = 0; y < dt->h; y++)
            for (int x = 0; x < dt->w; x++)
                for (int c = 0; c < dt->c; c++, at++) {
                    values[t][at] = t == 0 ? (test_value){image[at], (float)image[at]} : plain_element(g, t - 1, values, y, x, c);
                    if (dt->type != LBRT_F32)
                        assert_in_range(values[t][at].i - INT32_MIN, (int64_t)dt->lo - INT32_MIN, (int64_t)dt->hi - INT32_MIN);
                }
    }
    for (int c = 0; c < g->classes; c++)
        scores[c] = (int32_t)values[g->ntensors - 1][c].i;
    for (int t = 0; t < g->ntensors; t++)
        free(values[t]);
}

#endif

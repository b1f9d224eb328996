/* What the AVX-512 convolutions share: the integer epilogue (model.h has its rules) of 16 output channels at a time. */
#ifndef LBRT_AVX512_H
#define LBRT_AVX512_H

#include <immintrin.h>

#include "../internal.h"

#define LANES 16

typedef struct scale { /* a requant of 8 even and 8 odd channels */
    __m512i mul, add[2], shift[2];
} scale;

#define FEW 16 /* residual values, codes */

/* Multiply-shifts whose source or result takes few values. */
typedef struct shortcuts {
    int32_t residual[FEW]; /* scaled, by value - lo */
    int32_t codes[FEW]; /* the least fixed-point values of the codes from qlo + 1 to qlo + ncodes */
    int32_t ncodes; /* -1: compute them */
    int32_t within; /* neither an accumulator's multiply-shift nor its sum with the residual leaves 32 bits */
} shortcuts;

/* The epilogue's parameters in blocks of 16 output channels; channels beyond oc are zeros. */
typedef struct finish {
    __m512i *flip; /* (blocks) all ones where thresholds count downwards */
    __m512i *thresholds; /* (blocks, nthresholds), complemented where flipped: ~v >= ~t is v <= t */
    scale *requant; /* (blocks) */
    shortcuts *shortcuts;
} finish;

static inline int few_residuals(const lbrt_site *site) {
    return site->res != NULL && site->layer->epilogue.res.shift >= 0 && site->res->type != LBRT_I32 &&
           site->res->hi - site->res->lo < FEW;
}

/* A code grows with its fixed-point value, so the values where it steps up say it all. */
static inline void find_codes(const lbrt_epilogue *e, shortcuts *s) {
    s->ncodes = -1;
    if (e->q.mul < 0 || e->qhi - e->qlo >= FEW)
        return;
    for (s->ncodes = 0; s->ncodes < e->qhi - e->qlo; s->ncodes++) {
        const int32_t code = e->qlo + s->ncodes + 1;
        int64_t lo = INT32_MIN, hi = (int64_t)INT32_MAX + 1; /* the least value with this code or more */
        while (lo < hi) {
            const int64_t middle = lo + (hi - lo) / 2;
            if (lbrt_apply(&e->q, (int32_t)middle) >= code)
                hi = middle;
            else
                lo = middle + 1;
        }
        if (lo > INT32_MAX)
            return;
        s->codes[s->ncodes] = (int32_t)lo;
    }
}

/* Whether saturation in the epilogue of a convolution changes nothing. */
static inline int stays_within(const lbrt_site *site) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    int64_t least = 0, most = 0; /* of the residual */
    if (e->flags & LBRT_RESIDUAL) {
        const int scaled = e->res.shift >= 0;
        const int32_t a = scaled ? lbrt_apply(&e->res, site->res->lo) : site->res->lo;
        const int32_t b = scaled ? lbrt_apply(&e->res, site->res->hi) : site->res->hi;
        least = a < b ? a : b;
        most = a < b ? b : a;
    }
    for (int32_t c = 0; c < site->dst->c; c++) {
        const lbrt_requant *q = &e->requant[c];
        int32_t range[2];
        if (!lbrt_source_range(site->layer, site->src, c, &range[0], &range[1]))
            return 0;
        for (int i = 0; i < 2; i++) {
            const int64_t v = lbrt_shift_right((int64_t)range[i] * q->mul + q->add, q->shift);
            if (v < INT32_MIN || v > INT32_MAX || v + least < INT32_MIN || v + most > INT32_MAX)
                return 0;
        }
    }
    return 1;
}

static inline finish finish_carve(const lbrt_site *site, lbrt_carve *at) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t blocks = ((size_t)site->dst->c + LANES - 1) / LANES;
    finish p;
    p.flip = lbrt_take(at, blocks, sizeof *p.flip);
    p.thresholds = lbrt_take(at, lbrt_size_mul(blocks, (size_t)e->nthresholds), sizeof *p.thresholds);
    p.requant = lbrt_take(at, e->flags & LBRT_AFFINE ? blocks : 0, sizeof *p.requant);
    p.shortcuts = lbrt_take(at, 1, sizeof *p.shortcuts);
    return p;
}

/* Into memory that is all zeros. */
static inline void finish_prepare(const lbrt_site *site, const finish *p) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = (size_t)e->nthresholds;
    if (few_residuals(site))
        for (int32_t i = 0; i <= site->res->hi - site->res->lo; i++)
            p->shortcuts->residual[i] = lbrt_apply(&e->res, site->res->lo + i);
    if ((e->flags & (LBRT_CODE | LBRT_SIGN)) == LBRT_CODE)
        find_codes(e, p->shortcuts);
    p->shortcuts->within = e->flags & LBRT_AFFINE && stays_within(site);
    for (size_t o = 0; o < (size_t)site->dst->c; o++) {
        const size_t block = o / LANES, lane = o % LANES;
        const int32_t flip = e->flip != NULL && e->flip[o] ? -1 : 0;
        ((int32_t *)&p->flip[block])[lane] = flip;
        for (size_t k = 0; k < n; k++)
            ((int32_t *)&p->thresholds[block * n + k])[lane] = e->thresholds[o * n + k] ^ flip;
        if (e->flags & LBRT_AFFINE) {
            scale *s = &p->requant[block];
            ((int32_t *)&s->mul)[lane] = e->requant[o].mul;
            ((int64_t *)&s->add[lane % 2])[lane / 2] = e->requant[o].add;
            ((int64_t *)&s->shift[lane % 2])[lane / 2] = e->requant[o].shift;
        }
    }
}

static inline scale broadcast(const lbrt_requant *q) {
    scale s;
    s.mul = _mm512_set1_epi32(q->mul);
    s.add[0] = s.add[1] = _mm512_set1_epi64(q->add);
    s.shift[0] = s.shift[1] = _mm512_set1_epi64(q->shift);
    return s;
}

/* (v * mul + add) >> shift in 64 bits, even lanes, then odd ones; saturated unless that is known to change nothing. */
static inline __attribute__((always_inline)) __m512i apply(const scale *s, __m512i v, const int saturate) {
    const __m512i most = _mm512_set1_epi64(INT32_MAX), least = _mm512_set1_epi64(INT32_MIN);
    __m512i even = _mm512_mul_epi32(v, s->mul);
    __m512i odd = _mm512_mul_epi32(_mm512_srli_epi64(v, 32), _mm512_srli_epi64(s->mul, 32));
    even = _mm512_srav_epi64(_mm512_add_epi64(even, s->add[0]), s->shift[0]);
    odd = _mm512_srav_epi64(_mm512_add_epi64(odd, s->add[1]), s->shift[1]);
    if (saturate) {
        even = _mm512_max_epi64(_mm512_min_epi64(even, most), least);
        odd = _mm512_max_epi64(_mm512_min_epi64(odd, most), least);
    }
    return _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}

static inline __m512i add_saturated(__m512i a, __m512i b) {
    const __m512i sum = _mm512_add_epi32(a, b);
    const __mmask16 over = _mm512_movepi32_mask(_mm512_and_si512(_mm512_xor_si512(a, sum), _mm512_xor_si512(b, sum)));
    return _mm512_mask_xor_epi32(sum, over, _mm512_srai_epi32(a, 31), _mm512_set1_epi32(INT32_MAX));
}

/* Elements at..at + 15 of an integer tensor, those of the mask. */
static inline __m512i load(const void *from, int32_t type, size_t at, __mmask16 mask) {
    if (type == LBRT_U8)
        return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, (const uint8_t *)from + at));
    if (type == LBRT_I8)
        return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, (const int8_t *)from + at));
    return _mm512_maskz_loadu_epi32(mask, (const int32_t *)from + at);
}

static inline void store(void *to, int32_t type, size_t at, __mmask16 mask, __m512i v) {
    if (type == LBRT_I32)
        _mm512_mask_storeu_epi32((int32_t *)to + at, mask, v);
    else if (mask == 0xffff)
        _mm_storeu_si128((__m128i *)((uint8_t *)to + at), _mm512_cvtepi32_epi8(v));
    else
        _mm_mask_storeu_epi8((uint8_t *)to + at, mask, _mm512_cvtepi32_epi8(v));
}

static inline void store_bytes(void *to, size_t at, __mmask16 mask, __m128i v) {
    if (mask == 0xffff)
        _mm_storeu_si128((__m128i *)((uint8_t *)to + at), v);
    else
        _mm_mask_storeu_epi8((uint8_t *)to + at, mask, v);
}

/* base + each * (number of k with x >= t[k]). Inlined with a constant n where it is a common one. */
static inline __attribute__((always_inline)) __m128i count_reached(__m512i x, const __m512i *t, const size_t n, __m128i base,
                                                                   __m128i each) {
    for (size_t k = 0; k < n; k++)
        base = _mm_mask_add_epi8(base, _mm512_cmpge_epi32_mask(x, t[k]), base, each);
    return base;
}

/* What thresholds make of accumulators v[0], v[step], ..: `n` thresholds, copied so that they stay in registers. */
static inline __attribute__((always_inline)) void finish_thresholds(const lbrt_call *call, const finish *p, size_t block,
                                                                    const size_t *pixel, size_t pixels, const __m512i *v,
                                                                    size_t step, const size_t n) {
    const lbrt_epilogue *e = &call->site.layer->epilogue;
    const size_t oc = (size_t)call->site.dst->c, left = oc - block * LANES;
    const __mmask16 mask = (__mmask16)(left >= LANES ? 0xffff : (1u << left) - 1);
    const int sign = (e->flags & LBRT_SIGN) != 0;
    const __m128i each = _mm_set1_epi8(sign ? 2 : 1), base = _mm_set1_epi8((char)(sign ? -1 : e->qlo));
    const __m512i flip = p->flip[block];
    __m512i t[FEW];
    for (size_t k = 0; k < n; k++)
        t[k] = p->thresholds[block * n + k];
    for (size_t i = 0; i < pixels; i++) {
        const __m128i code = count_reached(_mm512_xor_si512(v[i * step], flip), t, n, base, each);
        if (call->site.dst->type == LBRT_I32)
            store(call->dst, LBRT_I32, pixel[i] * oc + block * LANES, mask, _mm512_cvtepi8_epi32(code));
        else
            store_bytes(call->dst, pixel[i] * oc + block * LANES, mask, code);
    }
}

/* Accumulators v[0], v[step], ... of channels 16 * block and on of the pixels pixel[0], pixel[1], ... of the batch. */
static inline void finish_block(const lbrt_call *call, const finish *p, size_t block, const size_t *pixel, size_t pixels,
                                const __m512i *v, size_t step) {
    const lbrt_site *site = &call->site;
    const lbrt_epilogue *e = &site->layer->epilogue;
    if (e->flags & LBRT_THRESHOLDS) {
        switch (e->nthresholds) {
        case 1: finish_thresholds(call, p, block, pixel, pixels, v, step, 1); break;
        case 3: finish_thresholds(call, p, block, pixel, pixels, v, step, 3); break;
        default: finish_thresholds(call, p, block, pixel, pixels, v, step, (size_t)e->nthresholds);
        }
        return;
    }
    const size_t oc = (size_t)site->dst->c, left = oc - block * LANES;
    const __mmask16 mask = (__mmask16)(left >= LANES ? 0xffff : (1u << left) - 1);
    const int32_t type = site->dst->type;
    const scale res = broadcast(&e->res), q = broadcast(&e->q);
    const shortcuts *s = p->shortcuts;
    const int few = few_residuals(site);
    const __m512i residuals = _mm512_loadu_si512(s->residual), least = _mm512_set1_epi32(few ? site->res->lo : 0);
    const __m512i lo = _mm512_set1_epi32(e->lo), hi = _mm512_set1_epi32(e->hi);
    const __m512i qlo = _mm512_set1_epi32(e->qlo), qhi = _mm512_set1_epi32(e->qhi);
    const int by_steps = (e->flags & (LBRT_CODE | LBRT_SIGN)) == LBRT_CODE && s->ncodes >= 0;
    const __m512i low = _mm512_set1_epi8((char)e->qlo);
    __m512i codes[FEW];
    for (int32_t k = 0; by_steps && k < s->ncodes; k++)
        codes[k] = _mm512_set1_epi32(s->codes[k]);
    for (size_t i = 0; i < pixels; i++) {
        const size_t at = pixel[i] * oc + block * LANES;
        __m512i x = v[i * step];
        if (e->flags & LBRT_AFFINE)
            x = s->within ? apply(&p->requant[block], x, 0) : apply(&p->requant[block], x, 1);
        if (e->flags & LBRT_RESIDUAL) {
            __m512i r = load(call->res, site->res->type, at, mask);
            if (few)
                r = _mm512_permutexvar_epi32(_mm512_sub_epi32(r, least), residuals);
            else if (e->res.shift >= 0)
                r = apply(&res, r, 1);
            x = s->within ? _mm512_add_epi32(x, r) : add_saturated(x, r);
        }
        if (e->flags & LBRT_CLAMP)
            x = _mm512_max_epi32(_mm512_min_epi32(x, hi), lo);
        if (e->flags & LBRT_SIGN)
            x = _mm512_or_si512(_mm512_srai_epi32(x, 31), _mm512_set1_epi32(1));
        else if (by_steps && type != LBRT_I32) {
            const __m128i base = _mm512_castsi512_si128(low), each = _mm_set1_epi8(1);
            store_bytes(call->dst, at, mask,
                        s->ncodes == 3 ? count_reached(x, codes, 3, base, each)
                                       : count_reached(x, codes, (size_t)s->ncodes, base, each));
            continue;
        } else if (e->flags & LBRT_CODE)
            x = _mm512_max_epi32(_mm512_min_epi32(apply(&q, x, 1), qhi), qlo);
        store(call->dst, type, at, mask, x);
    }
}

#endif

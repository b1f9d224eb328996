/* Codes of four pixels at a time, 16 channels each, from accumulators in words: by thresholds, those of an epilogue, or those that
 * are found for each value of a residual that takes few (AVX-512).
 *
 * Accumulators are saturated to words, which changes no comparison with a threshold in -32767..32767. Other thresholds are never
 * or always reached by accumulators that fit words themselves. */
#ifndef LBRT_QUADS_H
#define LBRT_QUADS_H

#include "finish.h"

#define RESIDUALS 4 /* values of a residual */

typedef struct quads {
    int32_t *usable; /* 1: yes */
    vec *flip; /* (blocks) all ones where accumulators are counted downwards */
    vec *thresholds; /* (blocks, RESIDUALS or 1, levels) words; 4 channels of a pixel and of the next one in each quarter */
} quads;

/* Thresholds per channel and value of a residual; 0: this is not for quads, which take products as they are. */
static inline size_t quad_levels(const lbrt_site *site) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    if (site->dst->type == LBRT_I32 || site->dst->c / site->layer->groups % LANES != 0 || !weights_fit_byte(&site->layer->weights))
        return 0;
    if (e->flags & LBRT_THRESHOLDS)
        return e->nthresholds < FEW && site->res == NULL ? (size_t)e->nthresholds : 0;
    if (!few_residuals(site) || site->res->hi - site->res->lo >= RESIDUALS || !(e->flags & LBRT_AFFINE))
        return 0;
    if (e->flags & LBRT_SIGN)
        return 1;
    return e->flags & LBRT_CODE && e->q.mul >= 0 && e->qhi - e->qlo < RESIDUALS ? (size_t)(e->qhi - e->qlo) : 0;
}

static inline size_t quad_residuals(const lbrt_site *site) { return site->layer->epilogue.flags & LBRT_RESIDUAL ? RESIDUALS : 1; }

static inline quads quads_carve(const lbrt_site *site, size_t groups, lbrt_carve *at) {
    const size_t levels = quad_levels(site), blocks = levels > 0 ? groups * blocks_of(site, groups) : 0;
    quads q;
    q.usable = lbrt_take(at, 1, sizeof *q.usable);
    q.flip = lbrt_take(at, blocks, sizeof *q.flip);
    q.thresholds = lbrt_take(at, lbrt_size_mul(blocks, quad_residuals(site) * levels), sizeof *q.thresholds);
    return q;
}

/* Whether accumulator v of channel o and a residual that is r scaled give more than `level` codes beyond the least. */
static inline int quad_exceeds(const lbrt_epilogue *e, size_t o, int32_t v, int32_t r, size_t level) {
    int32_t x = lbrt_saturate((int64_t)lbrt_apply(&e->requant[o], v) + r);
    if (e->flags & LBRT_CLAMP)
        x = lbrt_clamp(x, e->lo, e->hi);
    return e->flags & LBRT_SIGN ? x >= 0 : lbrt_apply(&e->q, x) > e->qlo + (int64_t)level;
}

/* The least accumulator in lo..hi that exceeds a level, hi + 1 if none does; downwards: the largest one, lo - 1. */
static inline int32_t quad_threshold(const lbrt_epilogue *e, size_t o, int64_t lo, int64_t hi, int32_t r, size_t level, int down) {
    int64_t no = down ? hi + 1 : lo - 1, yes = down ? lo - 1 : hi + 1;
    while (no - yes > 1 || yes - no > 1) {
        const int64_t middle = no + (yes - no) / 2;
        if (quad_exceeds(e, o, (int32_t)middle, r, level))
            yes = middle;
        else
            no = middle;
    }
    return (int32_t)yes;
}

/* Into memory that is all zeros. */
static inline void quads_prepare(const lbrt_site *site, size_t groups, const quads *q) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = quad_levels(site), residuals = quad_residuals(site), oc = (size_t)site->dst->c / groups;
    *q->usable = n > 0;
    for (size_t o = 0; o < (size_t)site->dst->c && *q->usable; o++) {
        const size_t block = o / oc * blocks_of(site, groups) + o % oc / LANES, word = o % oc % LANES / 4 * 8 + o % 4;
        int32_t lo, hi;
        const int known = lbrt_source_range(site->layer, site->src, (int32_t)o, &lo, &hi);
        const int small = known && lo > -INT16_MAX && hi < INT16_MAX, direct = (e->flags & LBRT_THRESHOLDS) != 0;
        const int32_t flip = direct ? (e->flip != NULL && e->flip[o] ? -1 : 0) : e->requant[o].mul < 0 ? -1 : 0;
        *q->usable = known && lo > INT32_MIN && hi < INT32_MAX;
        for (size_t i = 0; i < 2; i++)
            ((int16_t *)&q->flip[block])[word + 4 * i] = (int16_t)flip;
        for (size_t r = 0; r < residuals && *q->usable; r++)
            for (size_t k = 0; k < n; k++) {
                const int32_t value = direct ? 0 : lbrt_apply(&e->res, site->res->lo + (int32_t)r);
                int32_t t = direct ? e->thresholds[o * n + k] : quad_threshold(e, o, lo, hi, value, k, flip);
                t ^= flip;
                if (t < -INT16_MAX || t > INT16_MAX) {
                    *q->usable &= small;
                    t = t < 0 ? INT16_MIN : INT16_MAX;
                }
                for (size_t i = 0; i < 2; i++)
                    ((int16_t *)&q->thresholds[(block * residuals + r) * n + k])[word + 4 * i] = (int16_t)t;
            }
    }
}

/* What is to be done with accumulators of a block. Addresses of results are computed one quad ahead. */
typedef struct quad {
    const vec *v;
    const size_t *at; /* their pixels */
    size_t left; /* pixels */
    uint8_t *dst, *to[4];
} quad;

/* What is the same for all of a block. */
typedef struct quad_rule {
    const vec *t;
    size_t n, oc; /* levels, bytes of a pixel */
    const uint8_t *res; /* NULL: none */
    vec flip, each, least, least_residual;
    vec three[3 * RESIDUALS]; /* thresholds, where there are three levels: in registers, as there is room */
} quad_rule;

INLINE quad_rule quads_rule(const quads *q, const lbrt_call *call, size_t block, const int residual, const int three) {
    const lbrt_site *site = &call->site;
    const lbrt_epilogue *e = &site->layer->epilogue;
    const int sign = (e->flags & LBRT_SIGN) != 0;
    const size_t n = quad_levels(site);
    quad_rule r;
    r.t = q->thresholds + block * quad_residuals(site) * n;
    r.n = n;
    r.oc = (size_t)site->dst->c;
    r.res = site->res != NULL ? (const uint8_t *)call->res + block * LANES : NULL;
    r.flip = q->flip[block];
    r.each = _mm512_set1_epi16((int16_t)(1 << sign));
    r.least = _mm512_set1_epi8((char)(sign ? -1 : e->qlo));
    r.least_residual = _mm512_set1_epi8((char)(site->res != NULL ? site->res->lo : 0));
    for (size_t i = 0; three && i < (residual ? 3 * RESIDUALS : 3); i++)
        r.three[i] = r.t[i];
    return r;
}

INLINE void quad_aim(quad *q, size_t oc) {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        q->to[i] = q->dst + q->at[i] * oc;
}

/* 4 dwords of 4 pixels to 4 pixels of 4 dwords, and back. */
INLINE vec quad_turn(vec v) {
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
}

INLINE vec quad_count(vec count, vec v, vec t, vec each) {
    return _mm512_mask_add_epi16(count, _mm512_cmpge_epi16_mask(v, t), count, each);
}

/* The thresholds of words whose residuals have these bits. */
INLINE vec quad_choose(const vec *t, size_t n, __mmask32 low, __mmask32 high) {
    const vec even = _mm512_mask_blend_epi16(low, t[0], t[n]), odd = _mm512_mask_blend_epi16(low, t[2 * n], t[3 * n]);
    return _mm512_mask_blend_epi16(high, even, odd);
}

INLINE void quad_finish(quad *q, const quad_rule *r, const int residual, const int three) {
    const size_t n = three ? 3 : r->n;
    const vec *t = three ? r->three : r->t;
    const vec a = vec_xor(_mm512_packs_epi32(q->v[0], q->v[1]), r->flip);
    const vec b = vec_xor(_mm512_packs_epi32(q->v[2], q->v[3]), r->flip);
    vec x = vec_set(0), y = x;
    if (residual) {
        const vec one = _mm512_set1_epi16(1), two = _mm512_set1_epi16(2);
        const uint8_t *res = r->res;
        const size_t *at = q->at, oc = r->oc;
        vec u = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(res + at[0] * oc)));
        if (q->left > 1)
            u = _mm512_inserti32x4(u, _mm_loadu_si128((const __m128i *)(res + at[1] * oc)), 1);
        if (q->left > 2)
            u = _mm512_inserti32x4(u, _mm_loadu_si128((const __m128i *)(res + at[2] * oc)), 2);
        if (q->left > 3)
            u = _mm512_inserti32x4(u, _mm_loadu_si128((const __m128i *)(res + at[3] * oc)), 3);
        u = vec_sub_bytes(quad_turn(u), r->least_residual);
        const vec c = _mm512_unpacklo_epi8(u, x), d = _mm512_unpackhi_epi8(u, x);
        const __mmask32 c0 = _mm512_test_epi16_mask(c, one), c1 = _mm512_test_epi16_mask(c, two);
        const __mmask32 d0 = _mm512_test_epi16_mask(d, one), d1 = _mm512_test_epi16_mask(d, two);
#pragma GCC unroll 3
        for (size_t k = 0; k < n; k++) {
            x = quad_count(x, a, quad_choose(t + k, n, c0, c1), r->each);
            y = quad_count(y, b, quad_choose(t + k, n, d0, d1), r->each);
        }
    } else {
#pragma GCC unroll 3
        for (size_t k = 0; k < n; k++) {
            x = quad_count(x, a, t[k], r->each);
            y = quad_count(y, b, t[k], r->each);
        }
    }
    const vec all = _mm512_add_epi8(quad_turn(_mm512_packs_epi16(x, y)), r->least);
    _mm_storeu_si128((__m128i *)q->to[0], _mm512_castsi512_si128(all));
    if (q->left > 1)
        _mm_storeu_si128((__m128i *)q->to[1], _mm512_extracti32x4_epi32(all, 1));
    if (q->left > 2)
        _mm_storeu_si128((__m128i *)q->to[2], _mm512_extracti32x4_epi32(all, 2));
    if (q->left > 3)
        _mm_storeu_si128((__m128i *)q->to[3], _mm512_extracti32x4_epi32(all, 3));
    q->v += 4;
    q->at += 4;
    q->left -= q->left < 4 ? q->left : 4;
    quad_aim(q, r->oc);
}

#endif

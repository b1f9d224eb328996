/* Codes of four pixels at a time, 16 channels each, by thresholds, those of an epilogue, or those that are found for each value of
 * a residual that takes few (AVX-512 with VBMI).
 *
 * Accumulators are saturated to bytes if that changes no comparison, because all thresholds are in -127..127, else to words.
 * Thresholds beyond that are never or always reached by accumulators that fit themselves. */
#ifndef LBRT_QUADS_H
#define LBRT_QUADS_H

#include "finish.h"

#define RESIDUALS 4 /* values of a residual */

/* How quads are finished: in which integers, then with residuals or not, and of how many levels, if that is a constant. */
enum { IN_WORDS = 1, IN_BYTES = 2, IN_QUADS = IN_WORDS | IN_BYTES, WITH_RESIDUAL = 4, OF_ONE = 8, OF_THREE = 16 };

typedef struct quads {
    int32_t *fit; /* IN_WORDS and IN_BYTES, where thresholds do */
    vec *flip; /* (blocks, 2) all ones where accumulators are counted downwards: words, bytes */
    vec *words; /* (blocks, RESIDUALS or 1, levels) thresholds; 4 channels of a pixel and of the next one in each quarter */
    vec *bytes; /* (blocks, levels) thresholds of channels, four times; with residuals: of channels by residuals */
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
    q.fit = lbrt_take(at, 1, sizeof *q.fit);
    q.flip = lbrt_take(at, lbrt_size_mul(blocks, 2), sizeof *q.flip);
    q.words = lbrt_take(at, lbrt_size_mul(blocks, quad_residuals(site) * levels), sizeof *q.words);
    q.bytes = lbrt_take(at, lbrt_size_mul(blocks, levels), sizeof *q.bytes);
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

/* A threshold in integers of at most `most` that accumulators in lo..hi are saturated to; 0: it does not fit. */
static inline int quad_fits(int32_t t, int32_t lo, int32_t hi, int32_t most) {
    return (t >= -most && t <= most) || (lo > -most && hi < most);
}

/* Into memory that is all zeros. */
static inline void quads_prepare(const lbrt_site *site, size_t groups, const quads *q) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = quad_levels(site), residuals = quad_residuals(site), oc = (size_t)site->dst->c / groups;
    *q->fit = n > 0 ? IN_QUADS : 0;
    for (size_t o = 0; o < (size_t)site->dst->c && *q->fit != 0; o++) {
        const size_t block = o / oc * blocks_of(site, groups) + o % oc / LANES, lane = o % oc % LANES;
        const size_t word = lane / 4 * 8 + lane % 4;
        int32_t lo, hi;
        const int direct = (e->flags & LBRT_THRESHOLDS) != 0;
        const int32_t flip = direct ? (e->flip != NULL && e->flip[o] ? -1 : 0) : e->requant[o].mul < 0 ? -1 : 0;
        if (!lbrt_source_range(site->layer, site->src, (int32_t)o, &lo, &hi) || lo == INT32_MIN || hi == INT32_MAX)
            *q->fit = 0;
        for (size_t i = 0; i < 4; i++) {
            ((int16_t *)&q->flip[2 * block])[word + 4 * (i % 2)] = (int16_t)flip;
            ((int8_t *)&q->flip[2 * block + 1])[lane + LANES * i] = (int8_t)flip;
        }
        for (size_t r = 0; r < residuals && *q->fit != 0; r++)
            for (size_t k = 0; k < n; k++) {
                const int32_t value = direct ? 0 : lbrt_apply(&e->res, site->res->lo + (int32_t)r);
                int32_t t = direct ? e->thresholds[o * n + k] : quad_threshold(e, o, lo, hi, value, k, flip);
                t ^= flip;
                *q->fit &= (quad_fits(t, lo, hi, INT16_MAX) ? IN_WORDS : 0) | (quad_fits(t, lo, hi, INT8_MAX) ? IN_BYTES : 0);
                const int16_t in_word = (int16_t)(t < INT16_MIN ? INT16_MIN : t > INT16_MAX ? INT16_MAX : t);
                const int8_t in_byte = (int8_t)(t < INT8_MIN ? INT8_MIN : t > INT8_MAX ? INT8_MAX : t);
                for (size_t i = 0; i < 2; i++)
                    ((int16_t *)&q->words[(block * residuals + r) * n + k])[word + 4 * i] = in_word;
                for (size_t i = 0; i < 4; i++)
                    ((int8_t *)&q->bytes[block * n + k])[residuals > 1 ? RESIDUALS * lane + r : lane + LANES * i] = in_byte;
            }
    }
}

static inline int quads_how(const lbrt_site *site, const quads *q) {
    const size_t n = quad_levels(site);
    const int residual = site->res != NULL ? WITH_RESIDUAL : 0;
    if (*q->fit & IN_BYTES && (n == 1 || n == 3))
        return IN_BYTES | residual | (n == 3 ? OF_THREE : OF_ONE);
    if (*q->fit & IN_WORDS)
        return IN_WORDS | (residual ? residual : n == 3 ? OF_THREE : 0);
    return 0;
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
    const vec *words;
    size_t n, oc; /* levels, bytes of a pixel */
    const uint8_t *res; /* NULL: none */
    vec flip, each, least, least_residual;
    vec index; /* of bytes' thresholds: where those of a channel start, from the residual's least value on */
    vec few[3]; /* thresholds, if how many is a constant */
} quad_rule;

INLINE size_t constant_levels(const int how) { return how & OF_THREE ? 3 : how & OF_ONE ? 1 : 0; }

INLINE quad_rule quads_rule(const quads *q, const lbrt_call *call, size_t block, const int how) {
    const lbrt_site *site = &call->site;
    const lbrt_epilogue *e = &site->layer->epilogue;
    const int sign = (e->flags & LBRT_SIGN) != 0;
    const size_t n = constant_levels(how) > 0 ? constant_levels(how) : quad_levels(site);
    quad_rule r;
    r.words = q->words + block * quad_residuals(site) * n;
    r.n = n;
    r.oc = (size_t)site->dst->c;
    r.res = site->res != NULL ? (const uint8_t *)call->res + block * LANES : NULL;
    r.flip = q->flip[2 * block + (how & IN_BYTES ? 1 : 0)];
    r.each = how & IN_BYTES ? _mm512_set1_epi8((char)(1 << sign)) : _mm512_set1_epi16((int16_t)(1 << sign));
    r.least = _mm512_set1_epi8((char)(sign ? -1 : e->qlo));
    r.least_residual = _mm512_set1_epi8((char)(site->res != NULL ? site->res->lo : 0));
    r.index = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60));
    r.index = vec_sub_bytes(r.index, r.least_residual);
#pragma GCC unroll 3
    for (size_t k = 0; k < constant_levels(how); k++)
        r.few[k] = how & IN_BYTES ? q->bytes[block * n + k] : r.words[k];
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

/* The codes of words, but for the least one; u: the pixels' residuals. */
INLINE vec quad_words(const vec *v, vec u, const quad_rule *r, const int how) {
    const size_t n = how & OF_THREE ? 3 : r->n;
    const vec *t = how & OF_THREE ? r->few : r->words;
    const vec a = vec_xor(_mm512_packs_epi32(v[0], v[1]), r->flip), b = vec_xor(_mm512_packs_epi32(v[2], v[3]), r->flip);
    vec x = vec_set(0), y = x;
    if (how & WITH_RESIDUAL) {
        const vec one = _mm512_set1_epi16(1), two = _mm512_set1_epi16(2);
        u = vec_sub_bytes(quad_turn(u), r->least_residual);
        const vec c = _mm512_unpacklo_epi8(u, x), d = _mm512_unpackhi_epi8(u, x);
        const __mmask32 c0 = _mm512_test_epi16_mask(c, one), c1 = _mm512_test_epi16_mask(c, two);
        const __mmask32 d0 = _mm512_test_epi16_mask(d, one), d1 = _mm512_test_epi16_mask(d, two);
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
    return _mm512_add_epi8(quad_turn(_mm512_packs_epi16(x, y)), r->least);
}

INLINE vec quad_bytes(const vec *v, vec u, const quad_rule *r, const int how) {
    const vec packed = _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    const vec x = vec_xor(quad_turn(packed), r->flip), index = _mm512_add_epi8(u, r->index);
    vec count = r->least;
#pragma GCC unroll 3
    for (size_t k = 0; k < constant_levels(how); k++) {
        const vec t = how & WITH_RESIDUAL ? bytes_look_up(r->few[k], index) : r->few[k];
        count = _mm512_mask_add_epi8(count, _mm512_cmpge_epi8_mask(x, t), count, r->each);
    }
    return count;
}

/* Codes of four pixels, 16 each, from their sums and residuals. */
INLINE vec quad_codes(const vec *v, vec u, const quad_rule *r, const int how) {
    return how & IN_BYTES ? quad_bytes(v, u, r, how) : quad_words(v, u, r, how);
}

INLINE void quad_finish(quad *q, const quad_rule *r, const int how) {
    vec u = vec_set(0);
    if (how & WITH_RESIDUAL) {
        const uint8_t *res = r->res;
        const size_t *at = q->at, oc = r->oc;
        u = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(res + at[0] * oc)));
        if (q->left > 1)
            u = _mm512_inserti32x4(u, _mm_loadu_si128((const __m128i *)(res + at[1] * oc)), 1);
        if (q->left > 2)
            u = _mm512_inserti32x4(u, _mm_loadu_si128((const __m128i *)(res + at[2] * oc)), 2);
        if (q->left > 3)
            u = _mm512_inserti32x4(u, _mm_loadu_si128((const __m128i *)(res + at[3] * oc)), 3);
    }
    const vec all = quad_codes(q->v, u, r, how);
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

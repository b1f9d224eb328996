/* A vector of LANES floats per instruction set, with just what the kernels need. Every variant rounds alike: v_fma once, as fmaf,
 * and nothing else is fused. Comparisons and bytes of 0 and 1 give an lb_mask; a comparison with NaN is false. v_flip changes signs
 * where those of the second operand are set; v_look_up takes the five lowest bits of the numbers' representation. */
#ifndef LB_VEC_H
#define LB_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "quant/rint.h"

#define LB_CAT_(a, b) a##_##b
#define LB_CAT(a, b) LB_CAT_(a, b)
#define LB_NAME(name) LB_CAT(name, LB_ISA) /* norm_forward -> norm_forward_avx512 */
#define LB_STRING_(a) #a
#define LB_STRING(a) LB_STRING_(a)
#define LB_INLINE static inline __attribute__((always_inline))

LB_INLINE float lb_bf16_get(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Round to nearest even; NaN stays NaN; what is too small for a normal number becomes zero. As vcvtneps2bf16 does it. */
LB_INLINE uint16_t lb_bf16_put(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (!(bits & 0x7f800000u))
        return (uint16_t)(bits >> 16 & 0x8000);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#if defined(LB_ISA_avx512bf16)
#include <immintrin.h>
/* For bf16 tensors alone: 32 numbers, those with even and those with odd index apart, so that a load is a shift and a mask instead
 * of widening, and a store two roundings and one permutation. Floats (numbers per channel) are put into the same order. */
#define LANES 32
typedef struct vec {
    __m512 even, odd;
} vec;
typedef struct lb_mask {
    __mmask16 even, odd;
} lb_mask;
#define V_BOTH(op) ((vec){op(a.even, b.even), op(a.odd, b.odd)})
#define V_COMPARE(how) ((lb_mask){_mm512_cmp_ps_mask(a.even, b.even, how), _mm512_cmp_ps_mask(a.odd, b.odd, how)})
LB_INLINE vec v_set(float f) { return (vec){_mm512_set1_ps(f), _mm512_set1_ps(f)}; }
LB_INLINE vec v_add(vec a, vec b) { return V_BOTH(_mm512_add_ps); }
LB_INLINE vec v_sub(vec a, vec b) { return V_BOTH(_mm512_sub_ps); }
LB_INLINE vec v_mul(vec a, vec b) { return V_BOTH(_mm512_mul_ps); }
LB_INLINE vec v_min(vec a, vec b) { return V_BOTH(_mm512_min_ps); }
LB_INLINE vec v_max(vec a, vec b) { return V_BOTH(_mm512_max_ps); }
LB_INLINE vec v_rint(vec a) {
    return (vec){_mm512_roundscale_ps(a.even, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                 _mm512_roundscale_ps(a.odd, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
LB_INLINE lb_mask v_gt(vec a, vec b) { return V_COMPARE(_CMP_GT_OQ); }
LB_INLINE lb_mask v_ge(vec a, vec b) { return V_COMPARE(_CMP_GE_OQ); }
LB_INLINE lb_mask v_and(lb_mask a, lb_mask b) { return (lb_mask){a.even & b.even, a.odd & b.odd}; }
LB_INLINE vec v_select(lb_mask m, vec yes, vec no) {
    return (vec){_mm512_mask_blend_ps(m.even, no.even, yes.even), _mm512_mask_blend_ps(m.odd, no.odd, yes.odd)};
}
LB_INLINE vec v_fma(vec a, vec b, vec c) {
    return (vec){_mm512_fmadd_ps(a.even, b.even, c.even), _mm512_fmadd_ps(a.odd, b.odd, c.odd)};
}
LB_INLINE __m512 v_flip_half(__m512 a, __m512 sign) {
    return _mm512_xor_ps(a, _mm512_and_ps(sign, _mm512_set1_ps(-0.f)));
}
LB_INLINE vec v_flip(vec a, vec sign) { return (vec){v_flip_half(a.even, sign.even), v_flip_half(a.odd, sign.odd)}; }
LB_INLINE vec v_abs(vec a) { return (vec){_mm512_abs_ps(a.even), _mm512_abs_ps(a.odd)}; }
LB_INLINE vec v_look_up(const float table[32], vec place) {
    const __m512 low = _mm512_loadu_ps(table), high = _mm512_loadu_ps(table + 16);
    return (vec){_mm512_permutex2var_ps(low, _mm512_castps_si512(place.even), high),
                 _mm512_permutex2var_ps(low, _mm512_castps_si512(place.odd), high)};
}
LB_INLINE __mmask32 v_tail(int n) { return n >= LANES ? 0xffffffffu : (1u << n) - 1; }
LB_INLINE __m512i v_index(int first, int step) {
    return _mm512_add_epi32(_mm512_set1_epi32(first), _mm512_mullo_epi32(_mm512_set1_epi32(step),
                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
}
LB_INLINE vec v_load_f32(const float *p, int n) {
    const __m512 first = _mm512_maskz_loadu_ps((__mmask16)v_tail(n), p);
    const __m512 second = _mm512_maskz_loadu_ps((__mmask16)(v_tail(n) >> 16), p + 16);
    return (vec){_mm512_permutex2var_ps(first, v_index(0, 2), second), _mm512_permutex2var_ps(first, v_index(1, 2), second)};
}
LB_INLINE lb_mask v_load_mask(const uint8_t *p, int n) {
    const __m256i b = _mm256_maskz_loadu_epi8(v_tail(n), p);
    return (lb_mask){_mm256_test_epi16_mask(b, _mm256_set1_epi16(0x00ff)),
                     _mm256_test_epi16_mask(b, _mm256_set1_epi16((short)0xff00))};
}
LB_INLINE void v_store_f32(float *p, int n, vec a) { /* lanes 16.. of a permutation are those of the second source */
    const __m512i turn = _mm512_mask_add_epi32(_mm512_srli_epi32(v_index(0, 1), 1), 0xaaaa, _mm512_srli_epi32(v_index(0, 1), 1),
                                               _mm512_set1_epi32(16)); /* 0 16 1 17 ... */
    const __m512 first = _mm512_permutex2var_ps(a.even, turn, a.odd);
    const __m512 second = _mm512_permutex2var_ps(a.even, _mm512_add_epi32(turn, _mm512_set1_epi32(8)), a.odd);
    _mm512_mask_storeu_ps(p, (__mmask16)v_tail(n), first);
    _mm512_mask_storeu_ps(p + 16, (__mmask16)(v_tail(n) >> 16), second);
}
LB_INLINE vec v_load_bf16(const uint16_t *p, int n) {
    const __m512i h = n >= LANES ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(v_tail(n), p);
    return (vec){_mm512_castsi512_ps(_mm512_slli_epi32(h, 16)),
                 _mm512_castsi512_ps(_mm512_and_si512(h, _mm512_set1_epi32((int)0xffff0000u)))};
}
LB_INLINE void v_store_bf16(uint16_t *p, int n, vec a) {
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(a.odd, a.even); /* the evens, then the odds */
    const __m512i turn = _mm512_or_si512(v_index(0, 1), _mm512_slli_epi32(v_index(16, 1), 16));
    const __m512i h = _mm512_permutexvar_epi16(turn, halves);
    if (n >= LANES)
        _mm512_storeu_si512(p, h);
    else
        _mm512_mask_storeu_epi16(p, v_tail(n), h);
}
#elif defined(LB_ISA_avx512)
#include <immintrin.h>
#define LANES 16
typedef __m512 vec;
typedef __mmask16 lb_mask;
LB_INLINE vec v_set(float f) { return _mm512_set1_ps(f); }
LB_INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
LB_INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
LB_INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
LB_INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
LB_INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
LB_INLINE vec v_rint(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LB_INLINE lb_mask v_gt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
LB_INLINE lb_mask v_ge(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
LB_INLINE lb_mask v_and(lb_mask a, lb_mask b) { return a & b; }
LB_INLINE vec v_select(lb_mask m, vec yes, vec no) { return _mm512_mask_blend_ps(m, no, yes); }
LB_INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
LB_INLINE vec v_flip(vec a, vec sign) { return _mm512_xor_ps(a, _mm512_and_ps(sign, _mm512_set1_ps(-0.f))); }
LB_INLINE vec v_abs(vec a) { return _mm512_abs_ps(a); }
LB_INLINE vec v_look_up(const float table[32], vec place) {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(table), _mm512_castps_si512(place), _mm512_loadu_ps(table + 16));
}
LB_INLINE __mmask16 v_tail(int n) { return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1); }
LB_INLINE vec v_load_f32(const float *p, int n) { return _mm512_maskz_loadu_ps(v_tail(n), p); }
LB_INLINE lb_mask v_load_mask(const uint8_t *p, int n) {
    const __m128i b = _mm_maskz_loadu_epi8(v_tail(n), p);
    return _mm_test_epi8_mask(b, b);
}
LB_INLINE void v_store_f32(float *p, int n, vec a) { _mm512_mask_storeu_ps(p, v_tail(n), a); }
LB_INLINE vec v_load_bf16(const uint16_t *p, int n) {
    __m256i h = n >= 16 ? _mm256_loadu_si256((const __m256i *)(const void *)p) : _mm256_maskz_loadu_epi16(v_tail(n), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
LB_INLINE void v_store_bf16(uint16_t *p, int n, vec a) {
    __m512i bits = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    __mmask16 tiny = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
    rounded = _mm512_mask_and_epi32(rounded, tiny, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x8000));
    __m256i h = _mm512_cvtepi32_epi16(rounded);
    if (n >= 16)
        _mm256_storeu_si256((__m256i *)(void *)p, h);
    else
        _mm256_mask_storeu_epi16(p, v_tail(n), h);
}
#elif defined(LB_ISA_avx2)
#include <immintrin.h>
#define LANES 8
typedef __m256 vec;
typedef __m256 lb_mask;
LB_INLINE vec v_set(float f) { return _mm256_set1_ps(f); }
LB_INLINE vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
LB_INLINE vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
LB_INLINE vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
LB_INLINE vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
LB_INLINE vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
LB_INLINE vec v_rint(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LB_INLINE lb_mask v_gt(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
LB_INLINE lb_mask v_ge(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
LB_INLINE lb_mask v_and(lb_mask a, lb_mask b) { return _mm256_and_ps(a, b); }
LB_INLINE vec v_select(lb_mask m, vec yes, vec no) { return _mm256_blendv_ps(no, yes, m); }
LB_INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
LB_INLINE vec v_flip(vec a, vec sign) { return _mm256_xor_ps(a, _mm256_and_ps(sign, _mm256_set1_ps(-0.f))); }
LB_INLINE vec v_abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a); }
LB_INLINE vec v_look_up(const float table[32], vec place) {
    return _mm256_i32gather_ps(table, _mm256_and_si256(_mm256_castps_si256(place), _mm256_set1_epi32(31)), 4);
}
LB_INLINE vec v_load_f32(const float *p, int n) {
    if (n >= LANES)
        return _mm256_loadu_ps(p);
    float buffer[LANES] = {0};
    memcpy(buffer, p, (size_t)n * 4);
    return _mm256_loadu_ps(buffer);
}
LB_INLINE lb_mask v_load_mask(const uint8_t *p, int n) {
    uint8_t buffer[LANES] = {0};
    if (n < LANES) {
        memcpy(buffer, p, (size_t)n);
        p = buffer;
    }
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256()));
}
LB_INLINE void v_store_f32(float *p, int n, vec a) {
    if (n >= LANES) {
        _mm256_storeu_ps(p, a);
        return;
    }
    float buffer[LANES];
    _mm256_storeu_ps(buffer, a);
    memcpy(p, buffer, (size_t)n * 4);
}
LB_INLINE vec v_load_bf16(const uint16_t *p, int n) {
    uint16_t buffer[LANES] = {0};
    if (n < LANES) {
        memcpy(buffer, p, (size_t)n * 2);
        p = buffer;
    }
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
LB_INLINE void v_store_bf16(uint16_t *p, int n, vec a) {
    __m256i bits = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    rounded = _mm256_blendv_epi8(rounded, quiet, nan);
    __m256i tiny = _mm256_cmpeq_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7f800000)), _mm256_setzero_si256());
    rounded = _mm256_blendv_epi8(rounded, _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x8000)), tiny);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0xd8);
    uint16_t buffer[LANES];
    _mm_storeu_si128((__m128i *)(void *)(n >= LANES ? p : buffer), _mm256_castsi256_si128(packed));
    if (n < LANES)
        memcpy(p, buffer, (size_t)n * 2);
}
#else
#define LANES 1
typedef float vec;
typedef int lb_mask;
LB_INLINE vec v_set(float f) { return f; }
LB_INLINE vec v_add(vec a, vec b) { return a + b; }
LB_INLINE vec v_sub(vec a, vec b) { return a - b; }
LB_INLINE vec v_mul(vec a, vec b) { return a * b; }
LB_INLINE vec v_min(vec a, vec b) { return a < b ? a : b; } /* as x86: the second if either is NaN */
LB_INLINE vec v_max(vec a, vec b) { return a > b ? a : b; }
LB_INLINE vec v_rint(vec a) { return lb_rint(a); }
LB_INLINE lb_mask v_gt(vec a, vec b) { return a > b; }
LB_INLINE lb_mask v_ge(vec a, vec b) { return a >= b; }
LB_INLINE lb_mask v_and(lb_mask a, lb_mask b) { return a & b; }
LB_INLINE vec v_select(lb_mask m, vec yes, vec no) { return m ? yes : no; }
LB_INLINE vec v_fma(vec a, vec b, vec c) { return fmaf(a, b, c); }
LB_INLINE vec v_flip(vec a, vec sign) { return signbit(sign) ? -a : a; }
LB_INLINE vec v_abs(vec a) { return fabsf(a); }
LB_INLINE vec v_look_up(const float table[32], vec place) {
    uint32_t bits;
    memcpy(&bits, &place, sizeof bits);
    return table[bits & 31];
}
LB_INLINE vec v_load_f32(const float *p, int n) { return (void)n, *p; }
LB_INLINE lb_mask v_load_mask(const uint8_t *p, int n) { return (void)n, *p != 0; }
LB_INLINE void v_store_f32(float *p, int n, vec a) { (void)n, *p = a; }
LB_INLINE vec v_load_bf16(const uint16_t *p, int n) { return (void)n, lb_bf16_get(*p); }
LB_INLINE void v_store_bf16(uint16_t *p, int n, vec a) { (void)n, *p = lb_bf16_put(a); }
#endif

/* By type: `type` is a constant wherever these are inlined. */
LB_INLINE vec v_load(lb_dtype type, const void *base, size_t index, int n) {
    return type == LB_F32 ? v_load_f32((const float *)base + index, n) : v_load_bf16((const uint16_t *)base + index, n);
}
LB_INLINE void v_store(lb_dtype type, void *base, size_t index, int n, vec a) {
    if (type == LB_F32)
        v_store_f32((float *)base + index, n, a);
    else
        v_store_bf16((uint16_t *)base + index, n, a);
}
/* Asks for what a loop over rows of c elements will load or store a little later: several streams from beyond the second-level
 * cache are more than processors fetch ahead by themselves. The address may be beyond the tensor's end. */
LB_INLINE void v_ahead(lb_dtype type, const void *base, size_t index, int c) {
    enum { ROWS = 32 };
    if (LANES > 1)
        __builtin_prefetch((const void *)((uintptr_t)base + (index + ROWS * (size_t)c) * (type == LB_F32 ? 4 : 2)));
}
/* NaN stays NaN (min and max give their second operand then), so that a diverged network shows in the loss. */
LB_INLINE vec v_clip(vec a, vec lo, vec hi) { return v_min(hi, v_max(lo, a)); }

/* Adds the lanes to doubles, one per channel. */
LB_INLINE void v_add_to(double *sum, int n, vec a) {
    float lanes[LANES];
    v_store_f32(lanes, LANES, a);
    for (int i = 0; i < n && i < LANES; i++)
        sum[i] += (double)lanes[i];
}

#endif

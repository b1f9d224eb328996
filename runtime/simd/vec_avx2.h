/* vec.h for AVX2. vpmaddubsw saturates at 16 bits, so sums of bytes' products are taken only as far as they fit. */
#include <immintrin.h>

#define LANES 8
#define TILE_SUMS 10
#define TILE_BLOCKS 2

typedef __m256i vec;

INLINE vec vec_set(int32_t v) { return _mm256_set1_epi32(v); }
INLINE vec vec_load(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE void vec_store(void *to, vec v) { _mm256_storeu_si256((__m256i *)to, v); }
INLINE vec vec_add(vec a, vec b) { return _mm256_add_epi32(a, b); }
INLINE vec vec_mul(vec a, vec b) { return _mm256_mullo_epi32(a, b); }
INLINE vec vec_xor(vec a, vec b) { return _mm256_xor_si256(a, b); }
INLINE vec vec_sub_bytes(vec a, vec b) { return _mm256_sub_epi8(a, b); }
INLINE vec vec_shift_left(vec v, int count) { return _mm256_sll_epi32(v, _mm_cvtsi32_si128(count)); }
INLINE void vec_store_words(uint16_t *to, vec v) { /* that fit */
    _mm_storeu_si128((__m128i *)to, _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}
INLINE vec vec_clamp(vec v, vec lo, vec hi) { return _mm256_max_epi32(_mm256_min_epi32(v, hi), lo); }
INLINE vec vec_signs(vec v) { return _mm256_or_si256(_mm256_srai_epi32(v, 31), _mm256_set1_epi32(1)); }

INLINE int32_t vec_sum(vec v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

INLINE vec vec_add_saturated(vec a, vec b) {
    const vec sum = vec_add(a, b), over = _mm256_srai_epi32(_mm256_and_si256(vec_xor(a, sum), vec_xor(b, sum)), 31);
    return _mm256_blendv_epi8(sum, vec_xor(_mm256_srai_epi32(a, 31), vec_set(INT32_MAX)), over);
}

/* table[index], 16 entries. */
INLINE vec vec_choose(const int32_t *table, vec index) {
    const vec low = _mm256_permutevar8x32_epi32(vec_load(table), index);
    const vec high = _mm256_permutevar8x32_epi32(vec_load(table + 8), index);
    return _mm256_blendv_epi8(low, high, _mm256_cmpgt_epi32(index, vec_set(7)));
}

/* Elements at..at + count - 1 (at most LANES count) of an integer tensor; the other lanes are 0. */
INLINE vec vec_load_values(const void *from, int32_t type, size_t at, size_t count) {
    if (type == LBRT_I32) {
        const int32_t *p = (const int32_t *)from + at;
        if (count >= LANES)
            return vec_load(p);
        int32_t some[LANES] = {0};
        for (size_t i = 0; i < count; i++)
            some[i] = p[i];
        return vec_load(some);
    }
    const uint8_t *p = (const uint8_t *)from + at;
    uint8_t some[LANES] = {0};
    for (size_t i = 0; i < count && count < LANES; i++)
        some[i] = p[i];
    const __m128i b = _mm_loadl_epi64((const __m128i *)(count < LANES ? some : p));
    return type == LBRT_U8 ? _mm256_cvtepu8_epi32(b) : _mm256_cvtepi8_epi32(b);
}

/* The low bytes of the lanes. */
INLINE void codes_store(uint8_t *to, size_t count, vec v) {
    const vec order = _mm256_set1_epi32(0x0c080400), low = _mm256_shuffle_epi8(v, order);
    const __m128i b = _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    if (count >= LANES) {
        _mm_storel_epi64((__m128i *)to, b);
    } else {
        uint8_t some[LANES];
        _mm_storel_epi64((__m128i *)some, b);
        for (size_t i = 0; i < count; i++)
            to[i] = some[i];
    }
}

/* ---- Products ----------------------------------------------------------------------------------------------------------- */

#define REGISTER "+x"

#define SUM_PRODUCTS 2

typedef __m256i sums; /* 2 words per lane */

INLINE sums sums_start(vec acc) { return (void)acc, _mm256_setzero_si256(); }
INLINE vec sums_end(vec acc, sums s) { return vec_add(acc, _mm256_madd_epi16(s, _mm256_set1_epi16(1))); }
#define SUMS_KEEP(s) KEEP(s)
INLINE sums sums_dot(sums s, vec x, vec w) { return _mm256_add_epi16(s, _mm256_maddubs_epi16(x, w)); }
INLINE vec vec_dot_words(vec acc, vec x, vec w) { return vec_add(acc, _mm256_madd_epi16(x, w)); }

/* ---- Scales ------------------------------------------------------------------------------------------------------------- */

/* 64-bit integers have no arithmetic shift: 2^63 is added before a logical one and comes off, shifted as well, after it. */
typedef struct scale { /* 4 even and 4 odd lanes */
    vec mul, add[2], shift[2], bias[2];
} scale;

INLINE void scale_set(scale *s, size_t lane, const lbrt_requant *q) {
    const uint64_t half = (uint64_t)1 << 63;
    ((int32_t *)&s->mul)[lane] = q->mul;
    ((uint64_t *)&s->add[lane % 2])[lane / 2] = (uint64_t)q->add + half;
    ((uint64_t *)&s->shift[lane % 2])[lane / 2] = (uint64_t)q->shift;
    ((uint64_t *)&s->bias[lane % 2])[lane / 2] = half >> q->shift;
}

INLINE vec shift_right(vec v, const scale *s, size_t i, const int saturate) {
    v = _mm256_sub_epi64(_mm256_srlv_epi64(_mm256_add_epi64(v, s->add[i]), s->shift[i]), s->bias[i]);
    if (saturate) {
        const vec most = _mm256_set1_epi64x(INT32_MAX), least = _mm256_set1_epi64x(INT32_MIN);
        v = _mm256_blendv_epi8(v, most, _mm256_cmpgt_epi64(v, most));
        v = _mm256_blendv_epi8(v, least, _mm256_cmpgt_epi64(least, v));
    }
    return v;
}

/* (v * mul + add) >> shift in 64 bits, even lanes, then odd ones; saturated unless that is known to change nothing. */
INLINE vec scale_apply(const scale *s, vec v, const int saturate) {
    const vec even = shift_right(_mm256_mul_epi32(v, s->mul), s, 0, saturate);
    const vec odd = shift_right(_mm256_mul_epi32(_mm256_srli_epi64(v, 32), _mm256_srli_epi64(s->mul, 32)), s, 1, saturate);
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

/* ---- Codes -------------------------------------------------------------------------------------------------------------- */

typedef vec codes;

/* A comparison gives -1 where a threshold is not reached. */
INLINE codes codes_count(vec x, const vec *t, const size_t n, const int sign, int32_t base) {
    vec count = vec_set((int32_t)n);
    for (size_t k = 0; k < n; k++)
        count = vec_add(count, _mm256_cmpgt_epi32(t[k], x));
    return vec_add(vec_set(base), sign ? _mm256_slli_epi32(count, 1) : count);
}

INLINE vec codes_widen(codes c, int32_t base) { return (void)base, c; }

/* ---- Lookup ------------------------------------------------------------------------------------------------------------- */

#define BYTES 32
#define LOOKUP_SUMS 8
#define LOOKUP_CYCLES 71 /* per 100 lookups, and per block of a pixel besides */
#define LOOKUP_EXTRA 80
#define LOOKUP_BITS 4

typedef __m256i vec8, vec16;

INLINE vec8 bytes_set(uint8_t v) { return _mm256_set1_epi8((char)v); }
INLINE vec8 bytes_load(const uint8_t *from) { return vec_load(from); }
INLINE vec8 bytes_add(vec8 a, vec8 b) { return _mm256_add_epi8(a, b); }
INLINE vec8 table_load(const uint8_t *from) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)from)); }
INLINE vec8 bytes_look_up(vec8 table, vec8 index) { return _mm256_shuffle_epi8(table, index); }

INLINE vec16 bytes_words(vec8 b) { return b; }
INLINE vec16 words_set(int16_t v) { return _mm256_set1_epi16(v); }
INLINE vec16 words_load(const int16_t *from) { return vec_load(from); }
INLINE vec16 words_add(vec16 a, vec16 b) { return _mm256_add_epi16(a, b); }
INLINE vec16 words_mul(vec16 a, vec16 b) { return _mm256_mullo_epi16(a, b); }
INLINE vec16 words_xor(vec16 a, vec16 b) { return vec_xor(a, b); }
INLINE vec16 words_high(vec8 b) { return _mm256_srli_epi16(b, 8); }
INLINE vec16 words_low(vec16 both, vec16 high) { return _mm256_sub_epi16(both, _mm256_slli_epi16(high, 8)); }
INLINE vec words_widen(vec16 v, size_t half) {
    return _mm256_cvtepu16_epi32(half ? _mm256_extracti128_si256(v, 1) : _mm256_castsi256_si128(v));
}

typedef vec16 word_codes;

INLINE word_codes codes_count_words(vec16 x, const vec16 *t, const size_t n, const int sign, int32_t base) {
    vec16 count = words_set((int16_t)n);
    for (size_t k = 0; k < n; k++)
        count = words_add(count, _mm256_cmpgt_epi16(t[k], x));
    return words_add(words_set((int16_t)base), sign ? words_add(count, count) : count);
}

INLINE void codes_store_words(uint8_t *to, size_t count, word_codes c) {
    const vec16 low = _mm256_and_si256(c, words_set(255));
    const __m128i b = _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    if (count >= BYTES / 2) {
        _mm_storeu_si128((__m128i *)to, b);
    } else {
        uint8_t some[BYTES / 2];
        _mm_storeu_si128((__m128i *)some, b);
        for (size_t i = 0; i < count; i++)
            to[i] = some[i];
    }
}

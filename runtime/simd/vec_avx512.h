/* vec.h for AVX-512 (F, BW, VL, DQ, VNNI), with VBMI for wider tables. */
#include <immintrin.h>

#define LANES 16
#define TILE_SUMS 24
#define TILE_BLOCKS 4

#define REGISTER "+v"

typedef __m512i vec;

INLINE __mmask16 first_lanes(size_t count) { return (__mmask16)(count >= LANES ? 0xffff : (1u << count) - 1); }

INLINE vec vec_set(int32_t v) { return _mm512_set1_epi32(v); }
INLINE vec vec_load(const void *from) { return _mm512_loadu_si512(from); }
INLINE void vec_store(void *to, vec v) { _mm512_storeu_si512(to, v); }
INLINE vec vec_add(vec a, vec b) { return _mm512_add_epi32(a, b); }
INLINE vec vec_mul(vec a, vec b) { return _mm512_mullo_epi32(a, b); }
INLINE vec vec_xor(vec a, vec b) { return _mm512_xor_si512(a, b); }
INLINE vec vec_sub_bytes(vec a, vec b) { return _mm512_sub_epi8(a, b); }
INLINE vec vec_shift_left(vec v, int count) { return _mm512_sll_epi32(v, _mm_cvtsi32_si128(count)); }
INLINE void vec_store_words(uint16_t *to, vec v) { _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(v)); }
INLINE vec vec_clamp(vec v, vec lo, vec hi) { return _mm512_max_epi32(_mm512_min_epi32(v, hi), lo); }
INLINE vec vec_signs(vec v) { return _mm512_or_si512(_mm512_srai_epi32(v, 31), _mm512_set1_epi32(1)); }
INLINE int32_t vec_sum(vec v) { return _mm512_reduce_add_epi32(v); }

INLINE vec vec_add_saturated(vec a, vec b) {
    const vec sum = vec_add(a, b);
    const __mmask16 over = _mm512_movepi32_mask(_mm512_and_si512(vec_xor(a, sum), vec_xor(b, sum)));
    return _mm512_mask_xor_epi32(sum, over, _mm512_srai_epi32(a, 31), _mm512_set1_epi32(INT32_MAX));
}

/* table[index], 16 entries. */
INLINE vec vec_choose(const int32_t *table, vec index) { return _mm512_permutexvar_epi32(index, vec_load(table)); }

/* Elements at..at + count - 1 (at most LANES count) of an integer tensor; the other lanes are 0. */
INLINE vec vec_load_values(const void *from, int32_t type, size_t at, size_t count) {
    const __mmask16 mask = first_lanes(count);
    if (type == LBRT_U8)
        return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, (const uint8_t *)from + at));
    if (type == LBRT_I8)
        return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, (const int8_t *)from + at));
    return _mm512_maskz_loadu_epi32(mask, (const int32_t *)from + at);
}

INLINE void codes_store(uint8_t *to, size_t count, __m128i codes) {
    if (count >= LANES)
        _mm_storeu_si128((__m128i *)to, codes);
    else
        _mm_mask_storeu_epi8(to, first_lanes(count), codes);
}

INLINE void vec_store_values(void *to, int32_t type, size_t at, size_t count, vec v) {
    if (type == LBRT_I32)
        _mm512_mask_storeu_epi32((int32_t *)to + at, first_lanes(count), v);
    else
        codes_store((uint8_t *)to + at, count, _mm512_cvtepi32_epi8(v));
}

/* Whole vectors and a masked one: a few lines of the cache take less time than a call of memcpy or memset. */
INLINE void bytes_copy(uint8_t *to, const uint8_t *from, size_t count) {
    for (; count >= sizeof(vec); count -= sizeof(vec), to += sizeof(vec), from += sizeof(vec)) {
        vec v = vec_load(from);
        KEEP(v);
        vec_store(to, v);
    }
    const __mmask64 rest = ((__mmask64)1 << count) - 1;
    if (count > 0)
        _mm512_mask_storeu_epi8(to, rest, _mm512_maskz_loadu_epi8(rest, from));
}

INLINE void bytes_fill(uint8_t *to, uint8_t value, size_t count) {
    vec v = _mm512_set1_epi8((char)value);
    KEEP(v);
    for (; count >= sizeof(vec); count -= sizeof(vec), to += sizeof(vec))
        vec_store(to, v);
    if (count > 0)
        _mm512_mask_storeu_epi8(to, ((__mmask64)1 << count) - 1, v);
}

/* ---- Products ----------------------------------------------------------------------------------------------------------- */

#define SUM_PRODUCTS 0

typedef vec sums;

INLINE sums sums_start(vec acc) { return acc; }
INLINE vec sums_end(vec acc, sums s) { return (void)acc, s; }
#define SUMS_KEEP(s) KEEP(s)
INLINE sums sums_dot(sums s, vec x, vec w) { return _mm512_dpbusd_epi32(s, x, w); }
INLINE vec vec_dot_words(vec acc, vec x, vec w) { return _mm512_dpwssd_epi32(acc, x, w); }

/* ---- Scales ------------------------------------------------------------------------------------------------------------- */

typedef struct scale { /* 8 even and 8 odd lanes */
    vec mul, add[2], shift[2];
} scale;

INLINE void scale_set(scale *s, size_t lane, const lbrt_requant *q) {
    ((int32_t *)&s->mul)[lane] = q->mul;
    ((int64_t *)&s->add[lane % 2])[lane / 2] = q->add;
    ((int64_t *)&s->shift[lane % 2])[lane / 2] = q->shift;
}

/* (v * mul + add) >> shift in 64 bits, even lanes, then odd ones; saturated unless that is known to change nothing. */
INLINE vec scale_apply(const scale *s, vec v, const int saturate) {
    const vec most = _mm512_set1_epi64(INT32_MAX), least = _mm512_set1_epi64(INT32_MIN);
    vec even = _mm512_mul_epi32(v, s->mul);
    vec odd = _mm512_mul_epi32(_mm512_srli_epi64(v, 32), _mm512_srli_epi64(s->mul, 32));
    even = _mm512_srav_epi64(_mm512_add_epi64(even, s->add[0]), s->shift[0]);
    odd = _mm512_srav_epi64(_mm512_add_epi64(odd, s->add[1]), s->shift[1]);
    if (saturate) {
        even = _mm512_max_epi64(_mm512_min_epi64(even, most), least);
        odd = _mm512_max_epi64(_mm512_min_epi64(odd, most), least);
    }
    return _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}

/* ---- Codes -------------------------------------------------------------------------------------------------------------- */

typedef __m128i codes;

INLINE codes codes_count(vec x, const vec *t, const size_t n, const int sign, int32_t base) {
    const __m128i each = _mm_set1_epi8((char)(1 << sign));
    codes c = _mm_set1_epi8((char)base);
    for (size_t k = 0; k < n; k++)
        c = _mm_mask_add_epi8(c, _mm512_cmpge_epi32_mask(x, t[k]), c, each);
    return c;
}

INLINE vec codes_widen(codes c, int32_t base) {
    const vec low = vec_set(base);
    return vec_add(_mm512_cvtepi8_epi32(_mm_sub_epi8(c, _mm_set1_epi8((char)base))), low);
}

/* ---- Lookup ------------------------------------------------------------------------------------------------------------- */

#define BYTES 64
#define LOOKUP_SUMS 8

typedef __m512i vec8, vec16;

INLINE vec8 bytes_set(uint8_t v) { return _mm512_set1_epi8((char)v); }
INLINE vec8 bytes_load(const uint8_t *from) { return _mm512_loadu_si512(from); }
INLINE vec8 bytes_add(vec8 a, vec8 b) { return _mm512_add_epi8(a, b); }
#ifdef __AVX512VBMI__
#define LOOKUP_BITS 6
#define LOOKUP_CYCLES 115 /* per 100 lookups, and per block of a pixel besides */
#define LOOKUP_EXTRA 110
INLINE vec8 table_load(const uint8_t *from) { return _mm512_loadu_si512(from); }
INLINE vec8 bytes_look_up(vec8 table, vec8 index) { return _mm512_permutexvar_epi8(index, table); }
#else
#define LOOKUP_BITS 4
#define LOOKUP_CYCLES 150
#define LOOKUP_EXTRA 120
INLINE vec8 table_load(const uint8_t *from) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)from)); }
INLINE vec8 bytes_look_up(vec8 table, vec8 index) { return _mm512_shuffle_epi8(table, index); }
#endif

/* First both lookups, then both additions: AMD's Zen 4 does that in 2 cycles, by turns in 2.5. What follows uses the indices and so
 * stays behind. */
INLINE void look_up_two(vec8 *sum0, vec8 *sum1, vec8 table0, vec8 table1, vec8 *index0, vec8 *index1) {
    vec8 a = bytes_look_up(table0, *index0), b = bytes_look_up(table1, *index1);
    KEEP_TWO(a, b);
    *sum0 = bytes_add(*sum0, a);
    *sum1 = bytes_add(*sum1, b);
    KEEP_TWO(*sum0, *sum1);
    KEEP(*index0);
    if (index1 != index0)
        KEEP(*index1);
}

INLINE vec16 bytes_words(vec8 b) { return b; }
INLINE vec16 words_set(int16_t v) { return _mm512_set1_epi16(v); }
INLINE vec16 words_load(const int16_t *from) { return _mm512_loadu_si512(from); }
INLINE vec16 words_add(vec16 a, vec16 b) { return _mm512_add_epi16(a, b); }
INLINE vec16 words_mul(vec16 a, vec16 b) { return _mm512_mullo_epi16(a, b); }
INLINE vec16 words_xor(vec16 a, vec16 b) { return _mm512_xor_si512(a, b); }
INLINE vec16 words_high(vec8 b) { return _mm512_srli_epi16(b, 8); }
INLINE vec16 words_low(vec16 both, vec16 high) { return _mm512_sub_epi16(both, _mm512_slli_epi16(high, 8)); }
INLINE vec words_widen(vec16 v, size_t half) {
    return _mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64(v, 1) : _mm512_castsi512_si256(v));
}

typedef __m256i word_codes;

INLINE word_codes codes_count_words(vec16 x, const vec16 *t, const size_t n, const int sign, int32_t base) {
    const __m256i each = _mm256_set1_epi8((char)(1 << sign));
    word_codes c = _mm256_set1_epi8((char)base);
    for (size_t k = 0; k < n; k++)
        c = _mm256_mask_add_epi8(c, _mm512_cmpge_epi16_mask(x, t[k]), c, each);
    return c;
}

INLINE void codes_store_words(uint8_t *to, size_t count, word_codes c) {
    if (count >= BYTES / 2)
        _mm256_storeu_si256((__m256i *)to, c);
    else
        _mm256_mask_storeu_epi8(to, (1u << count) - 1, c);
}

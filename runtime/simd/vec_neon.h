/* vec.h for AArch64: plain NEON, or with the dot product instructions of ARMv8.2. */
#include <arm_neon.h>

#define LANES 4
#define TILE_BLOCKS 4
#define LBRT_SIGNED_BYTES

typedef int32x4_t vec;

INLINE vec vec_set(int32_t v) { return vdupq_n_s32(v); }
INLINE vec vec_load(const void *from) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)from)); }
INLINE void vec_store(void *to, vec v) { vst1q_u8((uint8_t *)to, vreinterpretq_u8_s32(v)); }
INLINE vec vec_add(vec a, vec b) { return vaddq_s32(a, b); }
INLINE vec vec_mul(vec a, vec b) { return vmulq_s32(a, b); }
INLINE vec vec_xor(vec a, vec b) { return veorq_s32(a, b); }
INLINE vec vec_sub_bytes(vec a, vec b) {
    return vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
}
INLINE vec vec_shift_left(vec v, int count) { return vshlq_s32(v, vdupq_n_s32(count)); }
INLINE void vec_store_words(uint16_t *to, vec v) { vst1_u16(to, vreinterpret_u16_s16(vmovn_s32(v))); }
INLINE vec vec_clamp(vec v, vec lo, vec hi) { return vmaxq_s32(vminq_s32(v, hi), lo); }
INLINE vec vec_signs(vec v) { return vorrq_s32(vshrq_n_s32(v, 31), vdupq_n_s32(1)); }
INLINE int32_t vec_sum(vec v) { return vaddvq_s32(v); }
INLINE vec vec_add_saturated(vec a, vec b) { return vqaddq_s32(a, b); }

/* table[index], 16 entries: their bytes are looked up. */
INLINE vec vec_choose(const int32_t *table, vec index) {
    const uint8_t *from = (const uint8_t *)table;
    uint8x16x4_t t;
    t.val[0] = vld1q_u8(from), t.val[1] = vld1q_u8(from + 16), t.val[2] = vld1q_u8(from + 32), t.val[3] = vld1q_u8(from + 48);
    const vec each = vmlaq_s32(vdupq_n_s32(0x03020100), index, vdupq_n_s32(0x04040404));
    return vreinterpretq_s32_u8(vqtbl4q_u8(t, vreinterpretq_u8_s32(each)));
}

/* Elements at..at + count - 1 (at most LANES count) of an integer tensor; the other lanes are 0. */
INLINE vec vec_load_values(const void *from, int32_t type, size_t at, size_t count) {
    int32_t some[LANES] = {0};
    if (type == LBRT_I32 && count >= LANES)
        return vld1q_s32((const int32_t *)from + at);
    for (size_t i = 0; i < LANES; i++)
        if (i < count)
            some[i] = type == LBRT_U8   ? ((const uint8_t *)from)[at + i]
                      : type == LBRT_I8 ? ((const int8_t *)from)[at + i]
                                        : ((const int32_t *)from)[at + i];
    return vld1q_s32(some);
}

/* The low bytes of the lanes. */
INLINE void codes_store(uint8_t *to, size_t count, vec v) {
    const int16x4_t low = vmovn_s32(v);
    uint8_t some[8];
    vst1_u8(some, vreinterpret_u8_s8(vmovn_s16(vcombine_s16(low, low))));
    if (count >= LANES)
        __builtin_memcpy(to, some, LANES);
    else
        for (size_t i = 0; i < count; i++)
            to[i] = some[i];
}

/* ---- Products ----------------------------------------------------------------------------------------------------------- */

#define REGISTER "+w"

#ifdef __ARM_FEATURE_DOTPROD

#define SUM_PRODUCTS 0
#define TILE_SUMS 24

typedef vec sums;

INLINE sums sums_start(vec acc) { return acc; }
INLINE vec sums_end(vec acc, sums s) { return (void)acc, s; }
#define SUMS_KEEP(s) KEEP(s)
INLINE sums sums_dot(sums s, vec x, vec w) { return vdotq_s32(s, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w)); }

#else

#define SUM_PRODUCTS 1
#define TILE_SUMS 12

typedef struct sums { /* 4 words of each of 2 lanes */
    int16x8_t low, high;
} sums;

INLINE sums sums_start(vec acc) {
    const sums s = {vdupq_n_s16(0), vdupq_n_s16(0)};
    return (void)acc, s;
}

#define SUMS_KEEP(s) KEEP_TWO((s).low, (s).high)

INLINE vec sums_end(vec acc, sums s) { return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(s.low), vpaddlq_s16(s.high))); }

INLINE sums sums_dot(sums s, vec x, vec w) {
    const int8x16_t a = vreinterpretq_s8_s32(x), b = vreinterpretq_s8_s32(w);
    s.low = vmlal_s8(s.low, vget_low_s8(a), vget_low_s8(b));
    s.high = vmlal_high_s8(s.high, a, b);
    return s;
}
#endif

INLINE vec vec_dot_words(vec acc, vec x, vec w) {
    const int16x8_t a = vreinterpretq_s16_s32(x), b = vreinterpretq_s16_s32(w);
    return vaddq_s32(acc, vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)));
}

/* ---- Scales ------------------------------------------------------------------------------------------------------------- */

typedef struct scale { /* lanes 0, 1 and 2, 3 */
    vec mul;
    int64x2_t add[2], shift[2]; /* shifted left by minus the shift */
} scale;

INLINE void scale_set(scale *s, size_t lane, const lbrt_requant *q) {
    ((int32_t *)&s->mul)[lane] = q->mul;
    ((int64_t *)&s->add[lane / 2])[lane % 2] = q->add;
    ((int64_t *)&s->shift[lane / 2])[lane % 2] = -q->shift;
}

/* (v * mul + add) >> shift in 64 bits, saturated, which costs nothing. */
INLINE vec scale_apply(const scale *s, vec v, const int saturate) {
    (void)saturate;
    const int64x2_t low = vaddq_s64(vmull_s32(vget_low_s32(v), vget_low_s32(s->mul)), s->add[0]);
    const int64x2_t high = vaddq_s64(vmull_high_s32(v, s->mul), s->add[1]);
    return vcombine_s32(vqmovn_s64(vshlq_s64(low, s->shift[0])), vqmovn_s64(vshlq_s64(high, s->shift[1])));
}

/* ---- Codes -------------------------------------------------------------------------------------------------------------- */

typedef vec codes;

/* A comparison gives -1 where a threshold is reached. */
INLINE codes codes_count(vec x, const vec *t, const size_t n, const int sign, int32_t base) {
    vec count = vdupq_n_s32(0);
    for (size_t k = 0; k < n; k++)
        count = vsubq_s32(count, vreinterpretq_s32_u32(vcgeq_s32(x, t[k])));
    return vaddq_s32(vdupq_n_s32(base), sign ? vshlq_n_s32(count, 1) : count);
}

INLINE codes codes_widen(codes c, int32_t base) { return (void)base, c; }

/* ---- Lookup ------------------------------------------------------------------------------------------------------------- */

#define BYTES 16
#define LOOKUP_SUMS 8
#define LOOKUP_CYCLES 100 /* per 100 lookups, and per block of a pixel besides: not measured */
#define LOOKUP_EXTRA 40
#define LOOKUP_BITS 4

typedef uint8x16_t vec8;
typedef int16x8_t vec16;

INLINE vec8 bytes_set(uint8_t v) { return vdupq_n_u8(v); }
INLINE vec8 bytes_load(const uint8_t *from) { return vld1q_u8(from); }
INLINE vec8 bytes_add(vec8 a, vec8 b) { return vaddq_u8(a, b); }
INLINE vec8 table_load(const uint8_t *from) { return vld1q_u8(from); }
INLINE vec8 bytes_look_up(vec8 table, vec8 index) { return vqtbl1q_u8(table, index); }

INLINE vec16 bytes_words(vec8 b) { return vreinterpretq_s16_u8(b); }
INLINE vec16 words_set(int16_t v) { return vdupq_n_s16(v); }
INLINE vec16 words_load(const int16_t *from) { return vld1q_s16(from); }
INLINE vec16 words_add(vec16 a, vec16 b) { return vaddq_s16(a, b); }
INLINE vec16 words_mul(vec16 a, vec16 b) { return vmulq_s16(a, b); }
INLINE vec16 words_xor(vec16 a, vec16 b) { return veorq_s16(a, b); }
INLINE vec16 words_high(vec8 b) { return vreinterpretq_s16_u16(vshrq_n_u16(vreinterpretq_u16_u8(b), 8)); }
INLINE vec16 words_low(vec16 both, vec16 high) { return vsubq_s16(both, vshlq_n_s16(high, 8)); }
INLINE vec words_widen(vec16 v, size_t half) {
    const uint16x8_t u = vreinterpretq_u16_s16(v);
    return vreinterpretq_s32_u32(half ? vmovl_high_u16(u) : vmovl_u16(vget_low_u16(u)));
}

typedef vec16 word_codes;

INLINE word_codes codes_count_words(vec16 x, const vec16 *t, const size_t n, const int sign, int32_t base) {
    vec16 count = vdupq_n_s16(0);
    for (size_t k = 0; k < n; k++)
        count = vsubq_s16(count, vreinterpretq_s16_u16(vcgeq_s16(x, t[k])));
    return vaddq_s16(vdupq_n_s16((int16_t)base), sign ? vshlq_n_s16(count, 1) : count);
}

INLINE void codes_store_words(uint8_t *to, size_t count, word_codes c) {
    const uint8x8_t b = vreinterpret_u8_s8(vmovn_s16(c));
    if (count >= BYTES / 2) {
        vst1_u8(to, b);
    } else {
        uint8_t some[BYTES / 2];
        vst1_u8(some, b);
        for (size_t i = 0; i < count; i++)
            to[i] = some[i];
    }
}

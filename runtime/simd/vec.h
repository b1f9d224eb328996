/* The vectors of the instruction set that a source is compiled for (LBRT_VARIANT), so that there is one source per kernel.
 *
 *   LANES         32-bit integers in a `vec`
 *   TILE_SUMS     sums of a tile that stay in registers, TILE_BLOCKS blocks of LANES output channels at most
 *
 * Products of bytes. sums_dot() multiplies 4 bytes of a source, unsigned ones on x86, signed ones (LBRT_SIGNED_BYTES) on ARM,
 * with 4 signed bytes of weights in each lane and adds the products to `sums`. Where sums have 16 bits, SUM_PRODUCTS products
 * are added to each, so only few steps fit between sums_start() and sums_end(), which widens (SUM_PRODUCTS 0: sums are a vec,
 * no limit). vec_dot_words() multiplies 2 words of both.
 *
 * KEEP(v) and SUMS_KEEP(sums) keep a value in a register from here on and stand in order, which stops compilers from loading
 * everything first and then running out of registers. REGISTER: how to say vector register there.
 *
 * Lookup. A `vec8` has BYTES indices of LOOKUP_BITS bits, bytes_look_up() takes each from a table of 1 << LOOKUP_BITS bytes.
 * look_up_two() adds what two of them find to two sums. The sums are added up in words, `vec16`: words_high() are the odd bytes,
 * words_low() the even ones from sums in which the odd ones still are.
 *
 * Codes. codes_count() gives base + (number of k with x >= t[k]) << sign per lane, codes_count_words() for words; codes_store()
 * and codes_store_words() write the first `count` of them as bytes.
 *
 * A `scale` is a requant per lane. */
#ifndef LBRT_VEC_H
#define LBRT_VEC_H

#include "../internal.h"

#define INLINE static inline __attribute__((always_inline))
#define KEEP(v) __asm__ volatile("" : REGISTER(v))
#define KEEP_TWO(v, u) __asm__ volatile("" : REGISTER(v), REGISTER(u)) /* and both before anything else */
#define APART static __attribute__((noinline, unused)) /* inner loops: the registers of what is around them would be in the way */

#if defined(__AVX512F__)
#include "vec_avx512.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#else
#include "vec_neon.h"
#endif

#if !defined(__AVX512F__) /* which has masks for the first three, and an order for the last */
INLINE void bytes_copy(uint8_t *to, const uint8_t *from, size_t count) { memcpy(to, from, count); }
INLINE void bytes_fill(uint8_t *to, uint8_t value, size_t count) { memset(to, value, count); }

INLINE void vec_store_values(void *to, int32_t type, size_t at, size_t count, vec v) {
    if (type != LBRT_I32) {
        codes_store((uint8_t *)to + at, count, v);
    } else if (count >= LANES) {
        vec_store((int32_t *)to + at, v);
    } else {
        int32_t some[LANES];
        vec_store(some, v);
        for (size_t i = 0; i < count; i++)
            ((int32_t *)to)[at + i] = some[i];
    }
}

INLINE void look_up_two(vec8 *sum0, vec8 *sum1, vec8 table0, vec8 table1, vec8 *index0, vec8 *index1) {
    *sum0 = bytes_add(*sum0, bytes_look_up(table0, *index0));
    *sum1 = bytes_add(*sum1, bytes_look_up(table1, *index1));
}
#endif

/* Products of 4 bytes per lane that fit 16 bits. */
INLINE vec vec_dot(vec x, vec w) {
    const vec zero = vec_set(0);
    return sums_end(zero, sums_dot(sums_start(zero), x, w));
}

#endif

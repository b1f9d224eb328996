/* The integer arithmetic that trainer, runtime and generated C share: one definition, so that they agree bit for bit.
 *
 * "Fixed" is int32 with 16 fractional bits. A real factor a and offset b become (mul, add, shift): y = (x * mul + add) >> shift. */
#ifndef LBRT_FIXED_H
#define LBRT_FIXED_H

#include <stdint.h>

#define LBRT_FIX_BITS 16
#define LBRT_MAX_SHIFT 46

typedef struct lbrt_requant {
    int64_t add;    /* offset and rounding half, |add| < 2^61 */
    int32_t mul;
    int32_t shift;  /* 0 .. LBRT_MAX_SHIFT */
} lbrt_requant;

static inline int32_t lbrt_saturate(int64_t v) {
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

/* Arithmetic shift right by floor. How a compiler shifts negative numbers is its own choice; GCC and clang say that they do it
 * so. */
static inline int64_t lbrt_shift_right(int64_t v, int32_t shift) {
#if defined(__GNUC__)
    return v >> shift;
#else
    return v < 0 ? ~(~v >> shift) : v >> shift;
#endif
}

/* Rounds half up; saturates. |x * mul + add| < 2^63 because |x|, |mul| <= 2^31 and |add| < 2^61. */
static inline int32_t lbrt_apply(const lbrt_requant *r, int32_t x) {
    return lbrt_saturate(lbrt_shift_right((int64_t)x * r->mul + r->add, r->shift));
}

/* The product of two fixed-point numbers; rounds half up, saturates. */
static inline int32_t lbrt_fixed_mul(int32_t a, int32_t b) {
    return lbrt_saturate(lbrt_shift_right((int64_t)a * b + ((int64_t)1 << (LBRT_FIX_BITS - 1)), LBRT_FIX_BITS));
}

/* 1 / (1 + e^-x) of a fixed-point number, to the nearest one. With 30 fractional bits: e^-|x| = 2^-k 2^-f, and 2^-f, f in [0, 1),
 * by ten terms of the series of e^-u, u = f ln 2; the first one left out is below 2^-30. */
static inline int32_t lbrt_sigmoid(int32_t x) {
    const int64_t one = (int64_t)1 << 30, log2_e = 1549082005, ln_2 = 744261118;
    const int64_t a = x < 0 ? -(int64_t)x : x;
    if (a >= (int64_t)16 << LBRT_FIX_BITS) /* 1 - 2^-23 */
        return x < 0 ? 0 : (int32_t)1 << LBRT_FIX_BITS;
    const int64_t t = (a * log2_e) >> LBRT_FIX_BITS, u = ((t & (one - 1)) * ln_2) >> 30;
    int64_t e = one;
    for (int32_t n = 10; n > 0; n--)
        e = one - ((u * e) >> 30) / n;
    e >>= t >> 30;
    const int64_t sum = one + e, y = (((int64_t)1 << (30 + LBRT_FIX_BITS)) + sum / 2) / sum;
    return (int32_t)(x < 0 ? ((int64_t)1 << LBRT_FIX_BITS) - y : y);
}

/* The sum of n pixels of a window of `area`, 1 <= n <= area <= 2^28, as that of all of them: saturated, times area / n, rounded
 * half up, saturated. */
static inline int32_t lbrt_whole_window(int64_t sum, int64_t area, int64_t n) {
    const int64_t whole = (int64_t)lbrt_saturate(sum) * area * 2 + n, quotient = whole / (2 * n);
    return lbrt_saturate(quotient - (whole % (2 * n) < 0));
}

static inline int32_t lbrt_clamp(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }

#endif

/* The integer arithmetic that trainer, runtime and generated C share: one definition, so that they agree bit for bit.
 *
 * "Fixed" is int32 with 16 fractional bits. A real factor a and offset b become (mul, add, shift): y = (x * mul + add) >> shift. */
#ifndef LBRT_FIXED_H
#define LBRT_FIXED_H

#include <stdint.h>

#define LBRT_FIX_BITS 16

typedef struct lbrt_requant {
    int64_t add;    /* offset and rounding half, |add| < 2^61 */
    int32_t mul;
    int32_t shift;  /* 0 .. 46 */
} lbrt_requant;

static inline int32_t lbrt_saturate(int64_t v) {
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

/* Arithmetic shift right by floor. How a compiler shifts negative numbers is its own choice; GCC and clang say that they do it
 * so. */
static inline int64_t lbrt_shift_right(int64_t v, int shift) {
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

static inline int32_t lbrt_clamp(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }

#endif

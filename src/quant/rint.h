/* Rounding half to even in one addition and one subtraction, so that loops vectorise on plain SSE2 (where rintf is a call).
 *
 * 1.5 * 2^23 pushes the fraction out of the mantissa, and the addition itself rounds to nearest even: exact for |x| < 2^22, which
 * every clipped code is. NaN stays NaN, and the result is never -0. Needs the default rounding mode and no -ffast-math. */
#ifndef LB_RINT_H
#define LB_RINT_H

static inline float lb_rint(float x) { return (x + 12582912.f) - 12582912.f; }

/* clip(rint(v), lo, hi) for whole lo, hi. Clipping first gives the same and stays in lb_rint's range; NaN gives lo. */
static inline float lb_round_clip(float v, float lo, float hi) {
    v = v > lo ? v : lo;
    v = v < hi ? v : hi;
    return lb_rint(v);
}

#endif

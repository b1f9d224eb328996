/* tanh for loops: no call, no table, vectorises. Within 3e-7 of tanh, relative (tests/quant/test_tanh.c); odd; NaN stays NaN. */
#ifndef LB_TANH_H
#define LB_TANH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* With e = expm1(2 |x|): tanh |x| = e / (e + 2). expm1(y) = 2^k expm1(r) + (2^k - 1) where y = k ln 2 + r, |r| <= ln 2 / 2, and
 * expm1(r) is its Taylor series to r^7: small x keep their relative accuracy. */
static inline float lb_tanh(float x) {
    float y = 2.f * fabsf(x);
    int32_t order;                                            /* positive floats are ordered as their bits are: a minimum without a */
    memcpy(&order, &y, sizeof order);                         /* branch for gcc to stumble over */
    order = order < 0x41a00000 ? order : 0x41a00000;          /* 20: tanh(10) rounds to 1 */
    memcpy(&y, &order, sizeof y);
    const float shifted = y * 1.44269504f + 12582912.f;       /* as lb_rint; k is in the low bits too */
    const float k = shifted - 12582912.f;
    const float r = (y - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f; /* ln 2 in two parts, k times the first exact */
    float p = 1.f / 5040.f;
    p = p * r + 1.f / 720.f;
    p = p * r + 1.f / 120.f;
    p = p * r + 1.f / 24.f;
    p = p * r + 1.f / 6.f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    uint32_t bits;
    float scale;                                              /* 2^k */
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;
    memcpy(&scale, &bits, sizeof scale);
    const float e = scale * p + (scale - 1.f);
    const float t = copysignf(e / (e + 2.f), x);
    return x == x ? t : x;
}

#endif

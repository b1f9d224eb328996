/* tanh for loops: no call, no table, vectorises. Within 3e-7 of tanh, relative (tests/quant/test_tanh.c); odd; NaN stays NaN. */
#ifndef LB_TANH_H
#define LB_TANH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* With e = expm1(2 |x|): tanh |x| = e / (e + 2). expm1(y) = 2^k expm1(r) + (2^k - 1) where y = k ln 2 + r, |r| <= ln 2 / 2, and
 * expm1(r) is its Taylor series to r^7: small x keep their relative accuracy. */
static inline float lb_tanh(float x) {
    float y = 2.f * fabsf(x), scale;
    uint32_t bits, nan;
    /* min(y, 20): tanh(10) rounds to 1. Done on the bits, which order as positive floats do, NaN on top: gcc makes a branch of
     * anything that compares floats here, and then does not vectorise. */
    memcpy(&bits, &y, sizeof bits);
    nan = (0x7f800000u - bits) >> 31;
    bits = (bits < 0x41a00000u ? bits : 0x41a00000u) | ((0u - nan) & 0x7fc00000u);
    memcpy(&y, &bits, sizeof y);

    const float shifted = y * 1.44269504f + 12582912.f; /* as lb_rint; k is in the low bits too */
    const float k = shifted - 12582912.f;
    const float r = (y - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f; /* ln 2 in two parts, k times the first exact */
    float p = 1.f / 5040.f;
    p = p * r + 1.f / 720.f;
    p = p * r + 1.f / 120.f;
    p = p * r + 1.f / 24.f;
    p = p * r + 1.f / 6.f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;

    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;
    memcpy(&scale, &bits, sizeof scale); /* 2^k */
    const float e = scale * p + (scale - 1.f);
    return copysignf(e / (e + 2.f), x);
}

#endif

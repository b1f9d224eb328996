/* tanh for loops: no call, no table, vectorises. Within 3e-7 of tanh, relative (tests/quant/test_tanh.c); odd; NaN stays NaN. */
#ifndef LB_TANH_H
#define LB_TANH_H

#include <math.h>

#include "quant/exp.h"

/* With e = expm1(2 |x|): tanh |x| = e / (e + 2). From the parts of e^y, expm1(y) = scale p + (scale - 1): small x keep their
 * relative accuracy. */
static inline float lb_tanh(float x) {
    float y = 2.f * fabsf(x), scale;
    uint32_t bits, nan;
    /* min(y, 20): tanh(10) rounds to 1. Done on the bits, which order as positive floats do, NaN on top: gcc makes a branch of
     * anything that compares floats here, and then does not vectorise. */
    memcpy(&bits, &y, sizeof bits);
    nan = (0x7f800000u - bits) >> 31;
    bits = (bits < 0x41a00000u ? bits : 0x41a00000u) | ((0u - nan) & 0x7fc00000u);
    memcpy(&y, &bits, sizeof y);

    const float p = lb_exp_parts(y, &scale);
    const float e = scale * p + (scale - 1.f);
    return copysignf(e / (e + 2.f), x);
}

#endif

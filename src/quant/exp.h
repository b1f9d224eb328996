/* exp and log for loops: no call, no table, they vectorise. exp: |x| <= 87; both within 2e-7, relative, exp2 within
 * 3e-7 (tests/quant/test_logistic.c). */
#ifndef LB_EXP_H
#define LB_EXP_H

#include <stdint.h>
#include <string.h>

/* e^x = scale (1 + p): scale = 2^k, p = e^r - 1 by its Taylor series to r^7, where x = k ln 2 + r, |r| <= ln 2 / 2. */
static inline float lb_exp_parts(float x, float *scale) {
    const float shifted = x * 1.44269504f + 12582912.f; /* as lb_rint; k is in the low bits too */
    const float k = shifted - 12582912.f;
    const float r = (x - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f; /* ln 2 in two parts, k times the first exact */
    float p = 1.f / 5040.f;
    uint32_t bits;
    p = p * r + 1.f / 720.f;
    p = p * r + 1.f / 120.f;
    p = p * r + 1.f / 24.f;
    p = p * r + 1.f / 6.f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;
    memcpy(scale, &bits, sizeof bits);
    return p;
}

static inline float lb_exp(float x) {
    float scale;
    const float p = lb_exp_parts(x, &scale);
    return scale + scale * p;
}

/* 2^x, |x| <= 126: k goes to the exponent, and 2^(x - k), |x - k| <= 1/2, is a polynomial near minimax. */
static inline float lb_exp2(float x) {
    const float shifted = x + 12582912.f, r = x - (shifted - 12582912.f);
    float p = 0.00133813025f;
    uint32_t bits, k;
    p = p * r + 0.00966636852f;
    p = p * r + 0.0555038101f;
    p = p * r + 0.24022349f;
    p = p * r + 0.693147181f;
    p = p * r + 1.f;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&k, &shifted, sizeof k);
    bits += k << 23;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* log x, x positive and normal: x = 2^k f, f = 0.707 .. 1.414, log f = 2 artanh r, r = (f - 1) / (f + 1), its series to r^9. */
static inline float lb_log(float x) {
    uint32_t bits;
    float f;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t up = bits - 0x3f3504f3u; /* sqrt(1/2) has exponent 0 then */
    const float k = (float)((int32_t)up >> 23);
    bits -= up & 0xff800000u;
    memcpy(&f, &bits, sizeof f);
    const float r = (f - 1.f) / (f + 1.f), r2 = r * r;
    float p = 2.f / 9.f;
    p = p * r2 + 2.f / 7.f;
    p = p * r2 + 2.f / 5.f;
    p = p * r2 + 2.f / 3.f;
    p = p * r2 * r + 2.f * r;
    return k * 0x1.62e4p-1f + (p + k * 0x1.7f7d1cp-20f);
}

#endif

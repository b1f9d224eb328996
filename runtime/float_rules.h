/* The float domain's rules as inline functions: shared by trainer, runtime and generated C, so that all give the same bits. Compile
 * with -ffp-contract=off, without -ffast-math, and with float arithmetic in float precision. */
#ifndef LBRT_FLOAT_RULES_H
#define LBRT_FLOAT_RULES_H

#include <stdint.h>

#if defined(__FAST_MATH__)
#error "lowbit's float layers need IEEE arithmetic: compile without -ffast-math"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "lowbit's float layers need float arithmetic in float precision: compile with -msse2 -mfpmath=sse"
#endif

/* Half to even without libm: adding 2^23 leaves no bits behind the point. Floats from 2^23 on are whole. NaN stays NaN; the sign of
 * a zero result is not kept. */
static inline float lbrt_rint_f32(float v) {
    const float big = 8388608.0f; /* 2^23 */
    if (v >= 0.0f && v < big)
        return (v + big) - big;
    if (v < 0.0f && v > -big)
        return (v - big) + big;
    return v;
}

/* clamp(rint(v * inv_step), lo, hi); NaN gives lo. */
static inline int32_t lbrt_code_f32(float v, float inv_step, int32_t lo, int32_t hi) {
    const float x = v * inv_step;
    if (!(x > (float)lo))
        return lo;
    if (x >= (float)hi)
        return hi;
    return (int32_t)lbrt_rint_f32(x);
}

/* The sum of n pixels of a window of `area` as that of all of them. */
static inline float lbrt_whole_window_f32(float sum, int32_t area, int32_t n) {
    return n == area ? sum : sum * ((float)area / (float)n);
}

/* rint(v * 65536), saturated; NaN gives INT32_MIN. */
static inline int32_t lbrt_fixed_f32(float v) {
    const float x = v * 65536.0f;
    if (x >= 2147483648.0f)
        return INT32_MAX;
    if (!(x > -2147483648.0f))
        return INT32_MIN;
    return (int32_t)lbrt_rint_f32(x);
}

static inline float lbrt_clamp_f32(float v, float lo, float hi) { return v < lo ? lo : v > hi ? hi : v; }

#endif

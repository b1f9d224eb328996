/* Two products at once: the 16-bit halves of x times those of w, added to sum modulo 2^32. One instruction, SMLAD, where the
 * processor has it. dot2: all halves are within 0 .. 32767; dot2_signed: within -32768 .. 32767. */
#ifndef DOT2_H
#define DOT2_H

#include <stdint.h>

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
static inline uint32_t dot2_signed(uint32_t x, uint32_t w, uint32_t sum) {
    return (uint32_t)__smlad((int16x2_t)x, (int16x2_t)w, (int32_t)sum);
}
static inline uint32_t dot2(uint32_t x, uint32_t w, uint32_t sum) { return dot2_signed(x, w, sum); }
#else
static inline int32_t signed_half(uint32_t half) { return (int32_t)(half ^ 0x8000) - 0x8000; }
static inline uint32_t dot2_signed(uint32_t x, uint32_t w, uint32_t sum) {
    const int32_t low = signed_half(x & 0xffff) * signed_half(w & 0xffff), high = signed_half(x >> 16) * signed_half(w >> 16);
    return sum + (uint32_t)low + (uint32_t)high;
}
static inline uint32_t dot2(uint32_t x, uint32_t w, uint32_t sum) {
    return sum + (x & 0xffff) * (w & 0xffff) + (x >> 16) * (w >> 16);
}
#endif

#endif

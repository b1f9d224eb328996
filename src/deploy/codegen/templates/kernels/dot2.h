/* Two products at once: the 16-bit halves of x times those of w, added to sum modulo 2^32. All halves are within 0 .. 32767. One
 * instruction, SMLAD, where the processor has it. */
#ifndef DOT2_H
#define DOT2_H

#include <stdint.h>

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
static inline uint32_t dot2(uint32_t x, uint32_t w, uint32_t sum) {
    return (uint32_t)__smlad((int16x2_t)x, (int16x2_t)w, (int32_t)sum);
}
#else
static inline uint32_t dot2(uint32_t x, uint32_t w, uint32_t sum) {
    return sum + (x & 0xffff) * (w & 0xffff) + (x >> 16) * (w >> 16);
}
#endif

#endif

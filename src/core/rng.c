/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). */
#include <math.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wexpansion-to-defined"
#endif
#include <Random123/philox.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include "core/core.h"

/* The key is the seed moved along a Weyl sequence by the purpose, so that no two purposes of nearby seeds share a key. */
void lb_rng4(uint64_t seed, lb_purpose purpose, uint64_t step, uint64_t index, uint32_t out[4]) {
    uint64_t mixed = seed + (uint64_t)purpose * 0x9E3779B97F4A7C15u;
    philox4x32_key_t key = {{(uint32_t)mixed, (uint32_t)(mixed >> 32)}};
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)step, (uint32_t)(step >> 32)}};
    philox4x32_ctr_t bits = philox4x32(counter, key);
    memcpy(out, bits.v, sizeof bits.v);
}

/* Philox once more, in a form that vectorises over indices (tests/core/test_random.c compares the two). Words are the lower halves
 * of 64 bits, which is how vectors multiply 32 bits to 64. */
LB_CLONES void lb_rng4_many(uint64_t seed, lb_purpose purpose, uint64_t step, uint64_t first, uint64_t stride, int count,
                            uint32_t *out) {
    const uint64_t mixed = seed + (uint64_t)purpose * 0x9E3779B97F4A7C15u, low = 0xffffffffu;
    for (int i = 0; i < count; i++) {
        const uint64_t index = first + (uint64_t)i * stride;
        uint64_t a = index, b = index >> 32, c = step, d = step >> 32;
        uint32_t k = (uint32_t)mixed, l = (uint32_t)(mixed >> 32);
        for (int round = 0; round < 10; round++) {
            const uint64_t p = (a & low) * PHILOX_M4x32_0, q = (c & low) * PHILOX_M4x32_1;
            a = q >> 32 ^ b ^ k, b = q;
            c = p >> 32 ^ d ^ l, d = p;
            k += PHILOX_W32_0, l += PHILOX_W32_1;
        }
        out[i] = (uint32_t)a, out[count + i] = (uint32_t)b, out[2 * count + i] = (uint32_t)c, out[3 * count + i] = (uint32_t)d;
    }
}

/* Box and Muller (1958). The radius takes all 32 bits, moved off zero: values reach 6.8 standard deviations. */
void lb_normal2(uint32_t a, uint32_t b, float out[2]) {
    float radius = sqrtf(-2.0f * logf(((float)a + 0.5f) * 0x1p-32f));
    float angle = 6.28318531f * lb_uniform(b);
    out[0] = radius * cosf(angle);
    out[1] = radius * sinf(angle);
}

/* Elements 4 i to 4 i + 3 come from index i, so an element does not depend on how many others there are. */
void lb_rng_normal(uint64_t seed, lb_purpose purpose, uint64_t step, float stddev, float *dst, size_t count) {
    for (size_t i = 0; i < count; i += 4) {
        uint32_t bits[4];
        float normal[4];
        lb_rng4(seed, purpose, step, i / 4, bits);
        lb_normal2(bits[0], bits[1], normal);
        lb_normal2(bits[2], bits[3], normal + 2);
        for (size_t j = 0; j < LB_MIN(count - i, 4); j++)
            dst[i + j] = stddev * normal[j];
    }
}

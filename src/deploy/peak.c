/* The machine's peak in 8-bit multiply-adds, to compare layers with: the best instruction in a loop of independent sums. */
#include <math.h>

#include "deploy/packed.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum { SUMS = 12, LOOPS = 20000, TRIES = 20 };

/* The empty statement keeps a value in its register and the compiler from knowing it. */
#define KEEP(v) __asm__ volatile("" : "+v"(v))

__attribute__((target("avx512f,avx512vnni"))) static int vnni(void) {
    __m512i sum[SUMS], a = _mm512_set1_epi8(1), b = a;
    KEEP(a);
    KEEP(b);
#pragma GCC unroll 12
    for (int k = 0; k < SUMS; k++)
        sum[k] = _mm512_setzero_si512();
    for (int i = 0; i < LOOPS; i++)
#pragma GCC unroll 12
        for (int k = 0; k < SUMS; k++) {
            sum[k] = _mm512_dpbusd_epi32(sum[k], a, b);
            KEEP(sum[k]);
        }
    return 64;
}

__attribute__((target("avx2"))) static int avx2(void) {
    __m256i sum[SUMS], a = _mm256_set1_epi8(1), b = a, ones = _mm256_set1_epi16(1);
    KEEP(a);
    KEEP(b);
#pragma GCC unroll 12
    for (int k = 0; k < SUMS; k++)
        sum[k] = _mm256_setzero_si256();
    for (int i = 0; i < LOOPS; i++)
#pragma GCC unroll 12
        for (int k = 0; k < SUMS; k++) {
            sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
            KEEP(sum[k]);
        }
    return 32;
}

double lb_peak_gops(void) {
    int (*loop)(void) = lbrt_best_isa() >= LBRT_ISA_AVX512 ? vnni : __builtin_cpu_supports("avx2") ? avx2 : NULL;
    if (!loop)
        return 0;
    double least = INFINITY;
    int products = 0;
    for (int i = 0; i < TRIES; i++) {
        const double start = lb_now();
        products = loop();
        least = fmin(least, lb_now() - start);
    }
    return 2e-9 * products * SUMS * LOOPS / least;
}
#else
double lb_peak_gops(void) { return 0; }
#endif

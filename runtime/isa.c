/* Which instruction sets this machine, and its operating system, can run. */
#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* The best of AVX-512: VNNI, or VNNI and VBMI; ref if there is neither. */
static lbrt_isa avx512(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return LBRT_ISA_REF;
    unsigned state, high;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    if ((state & 0xe6) != 0xe6) /* xmm, ymm, opmask and both halves of zmm are saved */
        return LBRT_ISA_REF;
    const unsigned want = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & want) != want || !(c & bit_AVX512VNNI))
        return LBRT_ISA_REF;
    return c & bit_AVX512VBMI ? LBRT_ISA_AVX512VBMI : LBRT_ISA_AVX512;
}
#endif

lbrt_isa lbrt_best_isa(void) {
#if defined(__x86_64__)
    return avx512();
#else
    return LBRT_ISA_REF;
#endif
}

const char *lbrt_isa_name(lbrt_isa isa) {
    switch (isa) {
    case LBRT_ISA_AVX512: return "avx512";
    case LBRT_ISA_AVX512VBMI: return "avx512vbmi";
    default: return "ref";
    }
}

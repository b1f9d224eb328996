/* Which instruction sets this machine, and its operating system, can run. */
#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>

static lbrt_isa best(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return LBRT_ISA_REF;
    unsigned state, high;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    if ((state & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) /* xmm and ymm are saved */
        return LBRT_ISA_REF;
    const unsigned want = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if ((state & 0xe6) != 0xe6 || (b & want) != want || !(c & bit_AVX512VNNI)) /* opmask and both halves of zmm too */
        return LBRT_ISA_AVX2;
    return c & bit_AVX512VBMI ? LBRT_ISA_AVX512VBMI : LBRT_ISA_AVX512;
}
#endif

lbrt_isa lbrt_best_isa(void) {
#if defined(__x86_64__)
    return best();
#else
    return LBRT_ISA_REF;
#endif
}

const char *lbrt_isa_name(lbrt_isa isa) {
    switch (isa) {
    case LBRT_ISA_AVX2: return "avx2";
    case LBRT_ISA_AVX512: return "avx512";
    case LBRT_ISA_AVX512VBMI: return "avx512vbmi";
    default: return "ref";
    }
}

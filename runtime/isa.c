/* Which instruction sets this machine, and its operating system, can run. */
#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>

static int has_avx512vnni(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    unsigned state, high;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    if ((state & 0xe6) != 0xe6) /* xmm, ymm, opmask and both halves of zmm are saved */
        return 0;
    const unsigned want = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & want) == want && (c & bit_AVX512VNNI);
}
#endif

lbrt_isa lbrt_best_isa(void) {
#if defined(__x86_64__)
    if (has_avx512vnni())
        return LBRT_ISA_AVX512;
#endif
    return LBRT_ISA_REF;
}

const char *lbrt_isa_name(lbrt_isa isa) { return isa == LBRT_ISA_AVX512 ? "avx512" : "ref"; }

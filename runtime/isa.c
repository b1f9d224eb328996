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

#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>

/* Of the C library, where there is one: a freestanding program may do without, and has plain NEON then. */
extern unsigned long getauxval(unsigned long type) __attribute__((weak));
#define AUXV_HWCAP 16

static lbrt_isa best(void) {
    return getauxval != NULL && getauxval(AUXV_HWCAP) & HWCAP_ASIMDDP ? LBRT_ISA_DOTPROD : LBRT_ISA_NEON;
}

#elif defined(__aarch64__)
static lbrt_isa best(void) { return LBRT_ISA_NEON; }

#else
static lbrt_isa best(void) { return LBRT_ISA_REF; }
#endif

lbrt_isa lbrt_best_isa(void) { return best(); }

const char *lbrt_isa_name(lbrt_isa isa) {
    switch (isa) {
#if defined(__aarch64__)
    case LBRT_ISA_NEON: return "neon";
    case LBRT_ISA_DOTPROD: return "dotprod";
#else
    case LBRT_ISA_AVX2: return "avx2";
    case LBRT_ISA_AVX512: return "avx512";
    case LBRT_ISA_AVX512VBMI: return "avx512vbmi";
#endif
    default: return "ref";
    }
}

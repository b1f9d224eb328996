/* Which instruction sets this machine, and its operating system, can run. */
#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>

#define AMX (3u << 24) /* AMX-TILE, AMX-INT8; compilers differ about the names */
#define AMX_STATE (3u << 17) /* its registers and their shapes are saved */

/* Palette 1 has eight registers of 16 rows of 64 bytes, as on every processor so far. */
static int shapes_are_known(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d))
        return 0;
    return a >> 16 == 1024 && (b & 0xffff) == 64 && b >> 16 == 8 && (c & 0xffff) == 16;
}

/* Linux gives the registers to processes that ask for them. It refuses if a thread has a signal stack too small for the larger
 * frames. (Documentation/arch/x86/xstate.rst) */
static int may_use_tiles(void) {
#if defined(__linux__)
    const long arch_prctl = 158, request = 0x1023, registers = 18;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(arch_prctl), "D"(request), "S"(registers) : "rcx", "r11", "memory");
    return result == 0;
#else
    return 0;
#endif
}

lbrt_isa lbrt_processor_isa(void) {
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
    if (!(c & bit_AVX512VBMI))
        return LBRT_ISA_AVX512;
    const int tiles = (d & AMX) == AMX && (state & AMX_STATE) == AMX_STATE && shapes_are_known();
    return tiles ? LBRT_ISA_AMX : LBRT_ISA_AVX512VBMI;
}

lbrt_isa lbrt_best_isa_unasked(void) {
    const lbrt_isa isa = lbrt_processor_isa();
    return isa == LBRT_ISA_AMX ? LBRT_ISA_AVX512VBMI : isa;
}

lbrt_isa lbrt_best_isa(void) {
    const lbrt_isa isa = lbrt_processor_isa();
    return isa == LBRT_ISA_AMX && !may_use_tiles() ? LBRT_ISA_AVX512VBMI : isa;
}

#else
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>

/* Of the C library, where there is one: a freestanding program may do without, and has plain NEON then. */
extern unsigned long getauxval(unsigned long type) __attribute__((weak));
#define AUXV_HWCAP 16

lbrt_isa lbrt_processor_isa(void) {
    return getauxval != NULL && getauxval(AUXV_HWCAP) & HWCAP_ASIMDDP ? LBRT_ISA_DOTPROD : LBRT_ISA_NEON;
}
#elif defined(__aarch64__)
lbrt_isa lbrt_processor_isa(void) { return LBRT_ISA_NEON; }
#else
lbrt_isa lbrt_processor_isa(void) { return LBRT_ISA_REF; }
#endif

lbrt_isa lbrt_best_isa_unasked(void) { return lbrt_processor_isa(); }

lbrt_isa lbrt_best_isa(void) { return lbrt_processor_isa(); }
#endif

const char *lbrt_isa_name(lbrt_isa isa) {
    switch (isa) {
#if defined(__aarch64__)
    case LBRT_ISA_NEON: return "neon";
    case LBRT_ISA_DOTPROD: return "dotprod";
#else
    case LBRT_ISA_AVX2: return "avx2";
    case LBRT_ISA_AVX512: return "avx512";
    case LBRT_ISA_AVX512VBMI: return "avx512vbmi";
    case LBRT_ISA_AMX: return "amx";
#endif
    default: return "ref";
    }
}

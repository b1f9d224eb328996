/* Which variants of simd/ this processor can run, and the best of them. */
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "model.h"
#include "train/simd/eval_kernels.h"
#include "train/simd/kernels.h"
#include "train/simd/tiles.h"
#include "train/simd/tiles_sums.h"
#include "train/simd/winograd.h"

extern const lb_kernels lb_kernels_scalar;
extern const lb_eval_kernels lb_eval_kernels_scalar;
extern const lb_winograd_kernels lb_winograd_scalar;
extern const lb_tiles_conv lb_tiles_conv_scalar;
extern const lb_tiles_diff lb_tiles_diff_scalar;
extern const lb_tiles_sums lb_tiles_sums_scalar;
#if defined(__x86_64__)
extern const lb_kernels lb_kernels_avx2, lb_kernels_avx512, lb_kernels_avx512bf16;
extern const lb_eval_kernels lb_eval_kernels_avx2, lb_eval_kernels_avx512;
extern const lb_winograd_kernels lb_winograd_avx512, lb_winograd_avx512bf16;
extern const lb_tiles_conv lb_tiles_conv_amx;
extern const lb_tiles_diff lb_tiles_diff_amx;
extern const lb_tiles_sums lb_tiles_sums_amx;

static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}
static bool has_avx512bf16(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
/* Also asks the system for the registers. */
static bool has_amx_bf16(void) {
    unsigned a, b, c, d;
    return has_avx512bf16() && lbrt_best_isa() == LBRT_ISA_AMX && __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 22 & 1;
}
#endif
static bool always(void) { return true; }

/* Best first. */
static const struct variant {
    const lb_kernels *kernels;
    bool (*usable)(void);
} variants[] = {
#if defined(__x86_64__)
    {&lb_kernels_avx512bf16, has_avx512bf16},
    {&lb_kernels_avx512, has_avx512},
    {&lb_kernels_avx2, has_avx2},
#endif
    {&lb_kernels_scalar, always},
};

const lb_kernels *lb_kernels_select(lb_dtype type) {
    for (size_t i = 0;; i++)
        if (variants[i].usable() && !(variants[i].kernels->bf16_only && type != LB_BF16))
            return variants[i].kernels;
}

const lb_kernels *lb_kernels_find(const char *name) {
    for (size_t i = 0; i < LB_COUNT(variants); i++)
        if (!strcmp(variants[i].kernels->isa, name) && variants[i].usable())
            return variants[i].kernels;
    return NULL;
}

const lb_winograd_kernels *lb_winograd_find(const char *name) {
#if defined(__x86_64__)
    if (!strcmp(name, "avx512bf16") && has_avx512bf16())
        return &lb_winograd_avx512bf16;
    if (!strcmp(name, "avx512") && has_avx512())
        return &lb_winograd_avx512;
#endif
    return strcmp(name, "scalar") ? NULL : &lb_winograd_scalar;
}

const lb_tiles_diff *lb_tiles_diff_find(const char *name) {
#if defined(__x86_64__)
    if (!strcmp(name, "amx") && has_amx_bf16())
        return &lb_tiles_diff_amx;
#endif
    return strcmp(name, "scalar") ? NULL : &lb_tiles_diff_scalar;
}

const lb_winograd_kernels *lb_winograd_select(lb_dtype type) { return lb_winograd_find(type == LB_F32 ? "avx512" : "avx512bf16"); }

const lb_eval_kernels *lb_eval_kernels_variant(int i) {
    const lb_eval_kernels *usable[3] = {&lb_eval_kernels_scalar};
    int n = 1;
#if defined(__x86_64__)
    if (has_avx2())
        usable[n++] = &lb_eval_kernels_avx2;
    if (has_avx512())
        usable[n++] = &lb_eval_kernels_avx512;
#endif
    return i >= 0 && i < n ? usable[i] : NULL;
}

const lb_eval_kernels *lb_eval_kernels_select(void) {
    int i = 0;
    while (lb_eval_kernels_variant(i + 1))
        i++;
    return lb_eval_kernels_variant(i);
}

const lb_tiles_conv *lb_tiles_conv_find(const char *name) {
#if defined(__x86_64__)
    if (!strcmp(name, "amx") && has_amx_bf16())
        return &lb_tiles_conv_amx;
#endif
    return strcmp(name, "scalar") ? NULL : &lb_tiles_conv_scalar;
}

const lb_tiles_sums *lb_tiles_sums_find(const char *name) {
#if defined(__x86_64__)
    if (!strcmp(name, "amx") && has_amx_bf16())
        return &lb_tiles_sums_amx;
#endif
    return strcmp(name, "scalar") ? NULL : &lb_tiles_sums_scalar;
}

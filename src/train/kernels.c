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

/* What is compiled for an instruction set. Best first. */
static const struct variant {
    const char *isa;
    bool (*usable)(void);
    const lb_kernels *kernels;
    const lb_eval_kernels *eval;
    const lb_winograd_kernels *winograd;
    const lb_tiles_conv *conv;
    const lb_tiles_diff *diff;
    const lb_tiles_sums *sums;
} variants[] = {
#if defined(__x86_64__)
    {"amx", has_amx_bf16, NULL, NULL, NULL, &lb_tiles_conv_amx, &lb_tiles_diff_amx, &lb_tiles_sums_amx},
    {"avx512bf16", has_avx512bf16, &lb_kernels_avx512bf16, NULL, &lb_winograd_avx512bf16, NULL, NULL, NULL},
    {"avx512", has_avx512, &lb_kernels_avx512, &lb_eval_kernels_avx512, &lb_winograd_avx512, NULL, NULL, NULL},
    {"avx2", has_avx2, &lb_kernels_avx2, &lb_eval_kernels_avx2, NULL, NULL, NULL, NULL},
#endif
    {"scalar", always, &lb_kernels_scalar, &lb_eval_kernels_scalar, &lb_winograd_scalar, &lb_tiles_conv_scalar,
     &lb_tiles_diff_scalar, &lb_tiles_sums_scalar},
};

/* One without anything if this processor has no such variant. */
static const struct variant *find(const char *isa) {
    static const struct variant none = {0};
    for (size_t i = 0; i < LB_COUNT(variants); i++)
        if (!strcmp(variants[i].isa, isa) && variants[i].usable())
            return &variants[i];
    return &none;
}

const lb_kernels *lb_kernels_find(const char *name) { return find(name)->kernels; }
const lb_winograd_kernels *lb_winograd_find(const char *name) { return find(name)->winograd; }
const lb_tiles_conv *lb_tiles_conv_find(const char *name) { return find(name)->conv; }
const lb_tiles_diff *lb_tiles_diff_find(const char *name) { return find(name)->diff; }
const lb_tiles_sums *lb_tiles_sums_find(const char *name) { return find(name)->sums; }

const lb_winograd_kernels *lb_winograd_select(lb_dtype type) { return lb_winograd_find(type == LB_F32 ? "avx512" : "avx512bf16"); }

const lb_kernels *lb_kernels_select(lb_dtype type) {
    for (const struct variant *v = variants;; v++)
        if (v->kernels && !(v->kernels->bf16_only && type != LB_BF16) && v->usable())
            return v->kernels;
}

const lb_eval_kernels *lb_eval_kernels_select(void) {
    for (const struct variant *v = variants;; v++)
        if (v->eval && v->usable())
            return v->eval;
}

const lb_eval_kernels *lb_eval_kernels_variant(int i) {
    for (size_t k = LB_COUNT(variants); k-- > 0;)
        if (variants[k].eval && variants[k].usable() && i-- == 0)
            return variants[k].eval;
    return NULL;
}

/* Picks the variant of simd/eval_kernels.c for this CPU. */
#include <stddef.h>

#include "train/simd/eval_kernels.h"

extern const lb_eval_kernels lb_eval_kernels_scalar;
#if defined(__x86_64__)
extern const lb_eval_kernels lb_eval_kernels_avx2, lb_eval_kernels_avx512;
#endif

const lb_eval_kernels *lb_eval_kernels_variant(int i) {
    const lb_eval_kernels *usable[3] = {&lb_eval_kernels_scalar};
    int n = 1;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        usable[n++] = &lb_eval_kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
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

/* The kernel tables. */
#include "internal.h"

static const lbrt_kernel *const ref[] = {
    &lbrt_ref_input,         &lbrt_ref_input_float, &lbrt_ref_depthwise,     &lbrt_ref_conv,
    &lbrt_ref_conv_float,    &lbrt_ref_point,       &lbrt_ref_point_float,   &lbrt_ref_maxpool,
    &lbrt_ref_maxpool_float, &lbrt_ref_sumpool,     &lbrt_ref_sumpool_float, &lbrt_ref_copy,
    &lbrt_ref_mul,           &lbrt_ref_mul_float,   &lbrt_ref_sigmoid,
};

/* Kernels with the first instruction set that has them; of those without a cost the first counts. */
static const struct {
    lbrt_isa isa;
    const lbrt_kernel *kernel;
} fast[] = {
#if defined(__x86_64__)
    {LBRT_ISA_AVX512VBMI, &lbrt_avx512_lookup},
    {LBRT_ISA_AVX512, &lbrt_avx512_vnni},
    {LBRT_ISA_AVX512, &lbrt_avx512_winograd},
    {LBRT_ISA_AVX512, &lbrt_avx512_bytes_input},
    {LBRT_ISA_AVX512, &lbrt_avx512_bytes_maxpool},
    {LBRT_ISA_AVX512, &lbrt_avx512_bytes_sumpool},
    {LBRT_ISA_AVX512, &lbrt_avx512_input},
    {LBRT_ISA_AVX512, &lbrt_avx512_depthwise},
    {LBRT_ISA_AVX512, &lbrt_avx512_conv},
    {LBRT_ISA_AVX512, &lbrt_avx512_point},
    {LBRT_ISA_AVX512, &lbrt_avx512_maxpool},
    {LBRT_ISA_AVX512, &lbrt_avx512_sumpool},
    {LBRT_ISA_AVX512, &lbrt_avx512_mul},
    {LBRT_ISA_AVX512, &lbrt_avx512_sigmoid},
    {LBRT_ISA_AVX2, &lbrt_avx2_bytes_input},
    {LBRT_ISA_AVX2, &lbrt_avx2_bytes_maxpool},
    {LBRT_ISA_AVX2, &lbrt_avx2_bytes_sumpool},
    {LBRT_ISA_AVX2, &lbrt_avx2_input},
    {LBRT_ISA_AVX2, &lbrt_avx2_depthwise},
    {LBRT_ISA_AVX2, &lbrt_avx2_conv},
    {LBRT_ISA_AVX2, &lbrt_avx2_point},
    {LBRT_ISA_AVX2, &lbrt_avx2_maxpool},
    {LBRT_ISA_AVX2, &lbrt_avx2_sumpool},
    {LBRT_ISA_AVX2, &lbrt_avx2_mul},
    {LBRT_ISA_AVX2, &lbrt_avx2_sigmoid},
#endif
    {LBRT_ISA_REF, NULL},
};

const lbrt_kernel *lbrt_fast_kernel(size_t i, lbrt_isa *isa) {
    *isa = fast[i].isa;
    return fast[i].kernel;
}

static int suits(const lbrt_kernel *kernel, const lbrt_site *site) {
    return (int32_t)kernel->op == site->layer->op && kernel->accepts(site);
}

const lbrt_kernel *lbrt_select(const lbrt_site *site, lbrt_isa isa) {
    const lbrt_kernel *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; fast[i].kernel != NULL; i++)
        if (fast[i].isa <= isa && suits(fast[i].kernel, site)) {
            const size_t cost = fast[i].kernel->cost != NULL ? fast[i].kernel->cost(site) : SIZE_MAX - 1;
            if (cost < least) {
                best = fast[i].kernel;
                least = cost;
            }
        }
    /* The ref kernels cover every operator in both domains. */
    for (size_t i = 0; best == NULL && i < sizeof ref / sizeof *ref; i++)
        if (suits(ref[i], site))
            best = ref[i];
    return best;
}

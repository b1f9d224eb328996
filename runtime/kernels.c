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
#define FAST(isa, name)                                                                                                           \
    {isa, &lbrt_##name##_lookup}, {isa, &lbrt_##name##_dot}, {isa, &lbrt_##name##_dot_depthwise},                                 \
        {isa, &lbrt_##name##_bytes_input}, {isa, &lbrt_##name##_bytes_maxpool}, {isa, &lbrt_##name##_bytes_sumpool},              \
        {isa, &lbrt_##name##_input}, {isa, &lbrt_##name##_depthwise}, {isa, &lbrt_##name##_conv}, {isa, &lbrt_##name##_point},    \
        {isa, &lbrt_##name##_maxpool}, {isa, &lbrt_##name##_sumpool}, {isa, &lbrt_##name##_mul}, {isa, &lbrt_##name##_sigmoid}
#if defined(__x86_64__)
    {LBRT_ISA_AMX, &lbrt_amx_tiles},
    {LBRT_ISA_AVX512VBMI, &lbrt_avx512vbmi_lookup},
    {LBRT_ISA_AVX512VBMI, &lbrt_avx512vbmi_planes},
    FAST(LBRT_ISA_AVX512, avx512),
    {LBRT_ISA_AVX512, &lbrt_avx512_winograd},
    FAST(LBRT_ISA_AVX2, avx2),
#elif defined(__aarch64__)
    {LBRT_ISA_DOTPROD, &lbrt_dotprod_dot},
    {LBRT_ISA_DOTPROD, &lbrt_dotprod_dot_depthwise},
    FAST(LBRT_ISA_NEON, neon),
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

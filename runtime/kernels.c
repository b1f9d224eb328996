/* The kernel tables: those of the chosen instruction set first, ref last. */
#include "internal.h"

static const lbrt_kernel *const ref[] = {
    &lbrt_ref_input,         &lbrt_ref_input_float, &lbrt_ref_depthwise,     &lbrt_ref_conv,
    &lbrt_ref_conv_float,    &lbrt_ref_point,       &lbrt_ref_point_float,   &lbrt_ref_maxpool,
    &lbrt_ref_maxpool_float, &lbrt_ref_sumpool,     &lbrt_ref_sumpool_float,
};

#if defined(__x86_64__)
static const lbrt_kernel *const avx512[] = {&lbrt_avx512_conv};
#endif

static const lbrt_kernel *find(const lbrt_kernel *const *kernels, size_t count, const lbrt_site *site) {
    for (size_t i = 0; i < count; i++)
        if ((int32_t)kernels[i]->op == site->layer->op && kernels[i]->accepts(site))
            return kernels[i];
    return NULL;
}

const lbrt_kernel *lbrt_select(const lbrt_site *site, lbrt_isa isa) {
    const lbrt_kernel *found = NULL;
#if defined(__x86_64__)
    if (isa == LBRT_ISA_AVX512)
        found = find(avx512, sizeof avx512 / sizeof *avx512, site);
#endif
    (void)isa;
    /* The ref kernels cover every operator in both domains. */
    return found != NULL ? found : find(ref, sizeof ref / sizeof *ref, site);
}

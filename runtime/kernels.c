/* The kernel table: the best first, ref last. Kernels of an instruction set go before the ref kernels and refuse (accepts) what
 * they, or the machine, cannot do. */
#include "internal.h"

static const lbrt_kernel *const kernels[] = {
    &lbrt_ref_input,         &lbrt_ref_input_float, &lbrt_ref_depthwise,     &lbrt_ref_conv,
    &lbrt_ref_conv_float,    &lbrt_ref_point,       &lbrt_ref_point_float,   &lbrt_ref_maxpool,
    &lbrt_ref_maxpool_float, &lbrt_ref_sumpool,     &lbrt_ref_sumpool_float,
};

const lbrt_kernel *lbrt_select(const lbrt_site *site) {
    const lbrt_kernel *found = NULL;
    for (size_t i = 0; found == NULL && i < sizeof kernels / sizeof *kernels; i++)
        if ((int32_t)kernels[i]->op == site->layer->op && kernels[i]->accepts(site))
            found = kernels[i];
    return found; /* never NULL: the ref kernels cover every operator in both domains */
}

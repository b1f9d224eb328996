/* bwn: Binary-Weight-Networks (Rastegari et al. 2016, arXiv 1603.05279, section 3.1).
 *
 *   forward   code = u >= 0 ? 1 : -1, step = mean |u| over the filter
 *   backward  identity
 *
 * One scale per filter as in the paper; `per: tensor` takes one per layer (as 1-bit DoReFa). The identity gradient is the one of
 * SQ's code and of the BWN baselines; the gradient XNOR-Net's paper derives, scale included, is quantizer xnor. */
#include "quant/helpers.h"

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    (void)when, (void)param;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    for (int g = 0; g < groups.count; g++)
        lb_step_fill(&groups, g, lb_step_bound(lb_mean_abs(w->u + g * groups.size, groups.size)), step);
    lb_sign_codes(w->u, w->oc * w->fan_in, code);
}

const lb_quantizer lb_quantizer_bwn = {
    .name = "bwn",
    .help = "-1 or +1 times the filter's mean magnitude",
    .paper = "Rastegari et al. 2016, arXiv 1603.05279",
    .weights = true,
    .min_bits = 1,
    .max_bits = 1,
    .granularity = LB_PER_FILTER,
    .estimator = LB_EST_STE,
    .surrogate_weights = LB_SUR_IDENTITY,
    .grid = lb_grid_of_sign,
    .forward = forward,
};

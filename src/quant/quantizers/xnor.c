/* xnor: XNOR-Net (Rastegari et al. 2016, arXiv 1603.05279): bwn's weights with the paper's gradient, sign activations.
 *
 *   forward   weights: code = u >= 0 ? 1 : -1, step = mean |u| over the filter; activations: sign
 *   backward  weights, own: dL/du = dL/du~ (1 / n + step * 1[|u| < 1]), n = weights of the filter (paper, section 3.1, "training");
 *             activations: 1[|u| < 1]
 *
 * Readings taken:
 *  - own is the formula the paper prints. The product rule worked out gives another first term,
 *    (1 / n) sign(u_i) sum_j dL/du~_j sign(u_j); the authors' code takes the printed one, times (1 - 1 / ic), times n for SGD or
 *    1e9 for Adam. Estimator `ste` is the plain alternative.
 *  - The code also subtracts the mean over input channels and clamps to [-1, 1] before binarizing. Not done: `clip_weights` clamps.
 *  - The input scale K of the paper is not in the authors' code and not here: batch norm before the sign does its work. */
#include "quant/helpers.h"

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    lb_quantizer_bwn.forward(spec, when, param, w, step, code);
}

static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param) {
    (void)when, (void)param, (void)diff_param;
    if (spec->options.estimator != LB_EST_OWN) {
        lb_backward_plain(spec->options.estimator, w->u, w->oc * w->fan_in, diff, diff_u);
        return;
    }
    const float share = 1.f / (float)lb_quant_groups(spec, w->oc, w->fan_in).size;
    for (int o = 0; o < w->oc; o++)
        for (int64_t i = o * w->fan_in; i < (o + 1) * w->fan_in; i++)
            diff_u[i] += diff[i] * (share + (fabsf(w->u[i]) < 1.f ? w->step[o] : 0.f));
}

const lb_quantizer lb_quantizer_xnor = {
    .name = "xnor",
    .help = "XNOR-Net: bwn with the paper's weight gradient; sign activations",
    .paper = "Rastegari et al. 2016, arXiv 1603.05279",
    .weights = true,
    .activations = true,
    .min_bits = 1,
    .max_bits = 1,
    .granularity = LB_PER_FILTER,
    .estimator = LB_EST_OWN,
    .estimator_activations = LB_EST_CLIPPED,
    .surrogate_weights = LB_SUR_IDENTITY,
    .surrogate_activations = LB_SUR_HARDTANH,
    .grid = lb_grid_of_sign,
    .forward = forward,
    .backward = backward,
    .form = lb_form_of_sign,
};

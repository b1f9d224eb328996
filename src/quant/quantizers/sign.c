/* sign: BinaryConnect's weights (Courbariaux et al. 2015, arXiv 1511.00363, eq. 1), BNN's activations (arXiv 1602.02830, eq. 1, 4).
 *
 *   forward   code = u >= 0 ? 1 : -1, step = 1
 *   backward  weights: identity (both papers apply dL/du~ to u, and clip u to [-1, 1] after the update:
 *             train.optimizer.clip_weights); activations: 1[|u| < 1], the derivative of hard tanh
 *
 * As the authors' code does it. Only the deterministic form; the papers' stochastic one is left out. BNN writes
 * 1[|u| <= 1] for activations, forms take open intervals: a difference at two points only. */
#include "quant/helpers.h"

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    (void)when, (void)spec, (void)param;
    for (int o = 0; o < w->oc; o++)
        step[o] = 1.f;
    lb_sign_codes(w->u, w->oc * w->fan_in, code);
}

const lb_quantizer lb_quantizer_sign = {
    .name = "sign",
    .help = "-1 or +1 without a scale (BinaryConnect, BNN)",
    .paper = "Courbariaux et al. 2015, arXiv 1511.00363; 2016, arXiv 1602.02830",
    .weights = true,
    .unit_range = true,
    .activations = true,
    .min_bits = 1,
    .max_bits = 1,
    .estimator = LB_EST_STE,
    .estimator_activations = LB_EST_CLIPPED,
    .surrogate_weights = LB_SUR_IDENTITY,
    .surrogate_activations = LB_SUR_HARDTANH,
    .grid = lb_grid_of_sign,
    .forward = forward,
    .form = lb_form_of_sign,
};

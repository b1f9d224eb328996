/* cpq: Cluster-Promoting Quantization with DropBits (Lee et al., ICCV 2021, arXiv 2109.02100, eq. 1 to 3; read second-hand).
 *
 *   forward   code = argmax of pi, which is clip(rint(u / alpha), lo, hi): lo = -2^(b-1), hi = 2^(b-1) - 1 of this step's bits b
 *   backward  expect: that of sum over k of pi_k alpha k
 *             mode: that of y alpha k at the chosen code k, where dy := dpi_k (the paper's multi-class straight-through estimator);
 *             u of elements with code 0 gets none then
 *   ReLU      activations that are never negative: lo = 0, hi = 2^b - 1
 *   bits      DropBits: levels are dropped at random, for the whole tensor and one step (logistic.h); or learned (gates.h)
 *
 * pi: logistic.h. alpha = e^log_step and sigma = e^log_sigma are learned; sigma stays in alpha / 16 .. 64 alpha. */
#include "quant/logistic.h"

/* Sigmas a code is looked for: beyond, pi < 1e-6. */
static const float reach = 14.f;

/* Where gates are half open the nearest code is not always the most likely one. */
static void gated_forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_gates *gates,
                          const lb_weights *w, float *step, float *code) {
    const int64_t count = w->oc * w->fan_in;
    const lb_logistic l = lb_logistic_of(spec, when, param, 1, 0, reach);
    for (int o = 0; o < w->oc; o++)
        step[o] = l.step;
    for (int64_t at = 0; at < count; at += LB_SOFT_BLOCK) {
        float by_level[LB_GATE_LEVELS][LB_SOFT_BLOCK];
        lb_soft s;
        lb_soft_gated(&l, gates, w->u + at, (int)LB_MIN(LB_SOFT_BLOCK, count - at), &s, code + at, by_level);
    }
}

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    lb_gates gates;
    if (lb_logistic_gates(spec, when, param, &gates)) {
        gated_forward(spec, when, param, &gates, w, step, code);
        return;
    }
    for (int g = 0; g < groups.count; g++) {
        const lb_logistic l = lb_logistic_of(spec, when, param, groups.count, g, reach);
        lb_step_fill(&groups, g, l.step, step);
        lb_round_codes(w->u + g * groups.size, groups.size, l.step, l.lo, l.hi, code + g * groups.size);
    }
}

static void soft(const lb_quant_spec *spec, const lb_quant_when *when, const lb_logistic *l, const float *u, int64_t first, int n,
                 lb_soft *s) {
    (void)when, (void)first;
    if (spec->options.cpq_backward == LB_CPQ_MODE)
        lb_soft_mode(l, u, n, s);
    else
        lb_soft_mean(l, u, n, s);
}

static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param) {
    lb_logistic_backward(spec, when, param, w, diff, diff_u, diff_param, reach, soft);
}

/* Kernels ask the curve in its place, but for the mode. */
static void soft_once(const lb_quant_spec *spec, const lb_quant_when *when, const lb_logistic *l, const float *u, int64_t first,
                      int n, lb_soft *s) {
    lb_logistic with_pairs = *l;
    lb_pairs pairs;
    if (spec->options.cpq_backward != LB_CPQ_MODE)
        lb_logistic_pairs(l, &pairs);
    with_pairs.pairs = &pairs;
    soft(spec, when, &with_pairs, u, first, n, s);
}

static void act_soft(const lb_act_form *form, const float *z, int64_t first, int n, lb_soft *s) {
    lb_logistic_slopes(form, z, first, n, soft_once, s);
}

static void form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *f) {
    lb_logistic_form(spec, when, param, reach, f);
    f->soft = act_soft;
    if (spec->options.cpq_backward == LB_CPQ_MODE || when->evaluation)
        return;
    const lb_logistic l = lb_logistic_of_form(f);
    lb_logistic_curve(&l, &f->curve);
    f->curve.own = spec->options.estimator == LB_EST_OWN;
}

const lb_quantizer lb_quantizer_cpq = {
    .name = "cpq",
    .help = "nearest level forward, logistic probabilities of the levels backward; DropBits",
    .paper = "Lee et al. 2021, arXiv 2109.02100",
    .weights = true,
    .activations = true,
    .min_bits = 2,
    .max_bits = 8,
    .nparams = 2,
    .param_names = {"log_step", "log_sigma"},
    .weight_params = true,
    .learns_bits = true,
    .log_params = true,
    .estimator = LB_EST_OWN,
    .estimator_activations = LB_EST_OWN,
    .surrogate_weights = LB_SUR_IDENTITY,
    .grid = lb_grid_of_even,
    .init = lb_logistic_init,
    .forward = forward,
    .backward = backward,
    .form = form,
};

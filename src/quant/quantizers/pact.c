/* pact: PACT (Choi et al. 2018, arXiv 1805.06085, eq. 1 to 3). n = 2^bits - 1.
 *
 *   activations   forward   y = clip(u, 0, clip), u~ = rint(y n / clip) clip / n: step = clip / n
 *                 backward  d u~/du = 1[0 < u < clip];  d u~/d clip = 1[u >= clip]
 *   weights       DoReFa's, as in the paper
 *
 * clip starts at 10 and is L2-regularised as weights are (train.optimizer.decay_quant: 1). The start is from memory (AdaBits starts
 * at 8 and 10); the decay pulls it into place. The exact straight-through version, which adds (u~ - u) / clip inside the range
 * (AdaBits, SAT), is lsq's gradient: use lsq for it. */
#include "quant/helpers.h"

static void grid(const lb_quant_spec *spec, lb_grid *g) { lb_quantizer_dorefa.grid(spec, g); }

static void init(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param) {
    (void)u;
    for (int g = 0; g < lb_quant_groups(spec, oc, fan_in).count; g++)
        param[g] = 10.f;
}

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    lb_quantizer_dorefa.forward(spec, when, param, w, step, code);
}

static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param) {
    lb_quantizer_dorefa.backward(spec, when, param, w, diff, diff_u, diff_param);
}

static void form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *f) {
    (void)when;
    f->hi = (float)((1 << spec->bits) - 1);
    f->step = lb_learned_bound(param[0]) / f->hi;
    f->pass_hi = f->step * f->hi; /* clip, in the one rounding everybody sees */
    f->learn = LB_LEARN_CLIP;
}

const lb_quantizer lb_quantizer_pact = {
    .name = "pact",
    .help = "activations clipped at a learned value; weights as dorefa",
    .paper = "Choi et al. 2018, arXiv 1805.06085",
    .weights = true,
    .unit_range = true,
    .activations = true,
    .min_bits = 1,
    .max_bits = 8,
    .nparams = 1,
    .param_names = {"clip"},
    .clips = true,
    .estimator = LB_EST_STE,
    .estimator_activations = LB_EST_OWN,
    .no_clipped = "tanh brings every weight inside the range, there is nothing to clip; use ste",
    .surrogate_weights = LB_SUR_IDENTITY,
    .surrogate_activations = LB_SUR_RELU,
    .grid = grid,
    .init = init,
    .forward = forward,
    .backward = backward,
    .form = form,
};

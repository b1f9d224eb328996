/* rq: Relaxed Quantization, the straight-through variant RQ-ST (Louizos et al., ICLR 2019, arXiv 1810.01875).
 *
 *   forward   a code drawn from pi: argmax of log pi_k + nu_k, nu_k = -log(-log U) Gumbel noise; evaluation, and of an image that
 *             enters the network: the nearest code
 *   backward  that of alpha * sum of z_k k, z = softmax((log pi + nu) / temperature), the same nu
 *
 * pi: logistic.h, on the local grid of the paper: codes within 3 sigma. Weights draw noise for each code; activations, of which
 * there are many more, share draws (lb_logistic_take). RQ itself gives the relaxed value to the network, off the
 * grid; RQ-ST keeps codes whole in training, as everything else here. */
#include "quant/logistic.h"

static const float reach = 3.f;

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    float race[LB_SOFT_MAX_CODES * LB_SOFT_BLOCK];
    for (int g = 0; g < groups.count; g++) {
        const lb_logistic l = lb_logistic_of(spec, when, param, groups.count, g, reach);
        const float *src = w->u + g * groups.size;
        float *dst = code + g * groups.size;
        lb_step_fill(&groups, g, l.step, step);
        if (when->evaluation)
            lb_round_codes(src, groups.size, l.step, l.lo, l.hi, dst);
        else
            for (int64_t at = 0; at < groups.size; at += LB_SOFT_BLOCK) {
                const int n = (int)LB_MIN(LB_SOFT_BLOCK, groups.size - at);
                lb_logistic_race(when, &l, g * groups.size + at, n, race);
                lb_soft_sample(&l, src + at, n, race, dst + at);
            }
    }
}

static void soft(const lb_quant_spec *spec, const lb_quant_when *when, const lb_logistic *l, const float *u, int64_t first, int n,
                 lb_soft *s) {
    float race[LB_SOFT_MAX_CODES * LB_SOFT_BLOCK];
    if (spec->target == LB_ACTIVATIONS && when->memory && when->memory->noise)
        lb_logistic_take(when, l, when->memory->noise, first, n, race);
    else
        lb_logistic_race(when, l, first, n, race);
    lb_soft_relaxed(l, u, n, race, spec->options.temperature, s);
}

static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param) {
    lb_logistic_backward(spec, when, param, w, diff, diff_u, diff_param, reach, soft);
}

static void act_draw(const lb_act_form *form, const float *z, int64_t first, int n, float *code) {
    const lb_logistic l = lb_logistic_of_form(form);
    float race[LB_SOFT_MAX_CODES * LB_SOFT_BLOCK];
    const lb_quant_memory *memory = form->when.memory;
    if (memory && memory->noise)
        lb_logistic_take(&form->when, &l, memory->noise, first, n, race);
    else
        lb_logistic_race(&form->when, &l, first, n, race);
    lb_soft_sample(&l, z, n, race, code);
}

static void act_soft(const lb_act_form *form, const float *z, int64_t first, int n, lb_soft *s) {
    lb_logistic_slopes(form, z, first, n, soft, s);
}

static void form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *f) {
    lb_logistic_form(spec, when, param, reach, f);
    f->soft = act_soft;
    f->draw = when->evaluation ? NULL : act_draw;
    lb_quant_memory *memory = when->memory;
    if (when->evaluation || !memory || !memory->noise ||
        (memory->noise_holds && memory->noise_key[0] == when->seed && memory->noise_key[1] == when->step))
        return;
    lb_logistic_noise(when, memory->noise);
    memory->noise_holds = true;
    memory->noise_key[0] = when->seed, memory->noise_key[1] = when->step;
}

const lb_quantizer lb_quantizer_rq = {
    .name = "rq",
    .help = "levels drawn by their logistic probabilities (RQ-ST), Gumbel-softmax backward",
    .paper = "Louizos et al. 2019, arXiv 1810.01875",
    .weights = true,
    .activations = true,
    .min_bits = 2,
    .max_bits = 8,
    .nparams = 2,
    .param_names = {"log_step", "log_sigma"},
    .weight_params = true,
    .log_params = true,
    .noisy = true,
    .estimator = LB_EST_OWN,
    .estimator_activations = LB_EST_OWN,
    .surrogate_weights = LB_SUR_IDENTITY,
    .grid = lb_grid_of_even,
    .init = lb_logistic_init,
    .forward = forward,
    .backward = backward,
    .form = form,
};

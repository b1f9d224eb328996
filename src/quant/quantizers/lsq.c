/* lsq: Learned Step Size Quantization (Esser et al. 2020, arXiv 1902.08153, eq. 1 to 5 and section 2.2).
 *
 *   forward   code = rint(clip(u / step, lo, hi)): signed lo = -2^(b-1), hi = 2^(b-1) - 1; unsigned 0, 2^b - 1
 *   backward  d u~/du = 1[lo < u / step < hi]
 *             d u~/d step = lo below, hi above, code - u / step inside; summed, times g = 1 / sqrt(N max(hi, 1))
 *   init      step = 2 mean |u| / sqrt(max(hi, 1)): weights, or the first batch
 *
 * N is the weights that share the step, or the features of one image; not the batch (third-party code counts the batch too). 1 bit
 * signed, where the formulas degenerate: code = sign(u), d u~/d step = code, d u~/du = 1[|u| < step] (our reading: the gradient to
 * u keeps LSQ's rule that it ends at the outermost level). Unsigned activations have negative inputs ReLUed away, so the mean |u|
 * of init is of max(u, 0). step is floored at 1e-8. */
#include "quant/helpers.h"

static float gradient_scale(int64_t elements, float hi) { return (float)(1.0 / sqrt((double)LB_MAX(elements, 1) * (double)hi)); }

static void init(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param) {
    const lb_groups groups = lb_quant_groups(spec, oc, fan_in);
    lb_grid range;
    lb_grid_of_even(spec, &range);
    for (int g = 0; g < groups.count; g++) {
        const float *src = u + g * groups.size;
        double mean = lb_mean_abs(src, groups.size);
        if (range.lo == 0) { /* mean max(u, 0) = (mean |u| + mean u) / 2 */
            double sum = 0.0;
            for (int64_t i = 0; i < groups.size; i++)
                sum += (double)lb_finite(src[i]);
            mean = (mean + sum / (double)LB_MAX(groups.size, 1)) / 2.0;
        }
        param[g] = lb_learned_bound(lb_step_bound(2.0 * mean / sqrt((double)range.hi)));
    }
}

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    (void)when;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    lb_grid range;
    lb_grid_of_even(spec, &range);
    for (int g = 0; g < groups.count; g++) {
        const float value = lb_learned_bound(param[g]);
        lb_step_fill(&groups, g, value, step);
        lb_even_codes(w->u + g * groups.size, groups.size, value, &range, code + g * groups.size);
    }
}

/* d u~/d step of one element, v = u / step: the code, less v inside. NaN counts as below. */
static inline float slope(float v, float lo, float hi) { return lb_round_clip(v, lo, hi) - (((v > lo) & (v < hi)) ? v : 0.f); }

/* sum of diff * d u~/d step */
LB_CLONES static double step_gradient(const float *u, int64_t count, float step, bool sign, float lo, float hi, const float *diff) {
    const float inv = 1.f / step;
    float term[LB_BLOCK];
    double sum = 0.0;
    for (int64_t start = 0; start < count; start += LB_BLOCK) {
        const int64_t n = LB_MIN(LB_BLOCK, count - start);
        const float *v = u + start, *d = diff + start;
        if (sign)
            for (int64_t i = 0; i < n; i++)
                term[i] = d[i] * (v[i] >= 0.f ? 1.f : -1.f);
        else
            for (int64_t i = 0; i < n; i++)
                term[i] = d[i] * slope(v[i] * inv, lo, hi);
        sum += lb_sum(term, n);
    }
    return sum;
}

LB_CLONES static void add_inside(const float *restrict u, int64_t count, float step, float lo, float hi, const float *restrict diff,
                                 float *restrict diff_u) {
    const float inv = 1.f / step;
    for (int64_t i = 0; i < count; i++) {
        const float v = u[i] * inv;
        diff_u[i] += ((v > lo) & (v < hi)) ? diff[i] : 0.f;
    }
}

static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param) {
    (void)when, (void)param;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    lb_grid range;
    lb_grid_of_even(spec, &range);
    const float lo = (float)range.lo, hi = (float)range.hi;
    for (int g = 0; g < groups.count; g++) {
        const float *src = w->u + g * groups.size, *d = diff + g * groups.size, s = w->step[g * groups.filters];
        if (diff_u && spec->options.estimator == LB_EST_STE)
            lb_backward_ste(groups.size, d, diff_u + g * groups.size);
        else if (diff_u)
            add_inside(src, groups.size, s, lo, hi, d, diff_u + g * groups.size);
        if (diff_param)
            diff_param[g] +=
                (float)(step_gradient(src, groups.size, s, range.mul == 2, lo, hi, d) * (double)gradient_scale(groups.size, hi));
    }
}

static void form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *f) {
    (void)when;
    lb_form_of_even(spec, lb_learned_bound(param[0]), f);
    f->learn = LB_LEARN_STEP;
    f->learn_scale = gradient_scale(spec->features, f->hi);
}

const lb_quantizer lb_quantizer_lsq = {
    .name = "lsq",
    .help = "even levels with a learned step",
    .paper = "Esser et al. 2020, arXiv 1902.08153",
    .weights = true,
    .activations = true,
    .min_bits = 1,
    .max_bits = 8,
    .nparams = 1,
    .param_names = {"step"},
    .weight_params = true,
    .estimator = LB_EST_OWN,
    .estimator_activations = LB_EST_OWN,
    .surrogate_weights = LB_SUR_IDENTITY,
    .surrogate_activations = LB_SUR_DEFAULT,
    .grid = lb_grid_of_even,
    .init = init,
    .forward = forward,
    .backward = backward,
    .form = form,
};

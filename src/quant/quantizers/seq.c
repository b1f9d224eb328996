/* seq: stretched elastic quantization (ParetoQ, Liu et al. 2025, arXiv 2502.02631, section 3), weights. n = 2^bits - 1.
 *
 *   forward   code = 2 floor(clip(u / step + (n + 1) / 2, 0, n)) - n: odd numbers -n..n, u~ = code * step / 2
 *   backward  d u~/du = 1[|u| < step (n + 1) / 2]
 *             d u~/d step = +-n / 2 outside, code / 2 - u / step inside; summed, times g = 1 / sqrt(N n / 2)
 *   init      step = 2 mean |u| / sqrt(n): mean |u| times the sign with 1 bit, and for normal weights near least squares up to 4
 *
 * LSQ on levels that lie evenly on both sides of zero and have none there: at 2 bits its +-1/2 and +-3/2 steps serve both signs
 * alike, where two's complement has -2, -1, 0, 1. The paper's alpha is step (n + 1) / 2, and its init max |u|. g follows LSQ's,
 * with the largest |u~| / step in the place of hi. N: weights that share the step. step is floored at 1e-8. */
#include "quant/helpers.h"

static float highest(const lb_quant_spec *spec) { return (float)((1 << spec->bits) - 1); }

static void grid(const lb_quant_spec *spec, lb_grid *g) { lb_grid_odd(spec->bits, g); }

static void init(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param) {
    const lb_groups groups = lb_quant_groups(spec, oc, fan_in);
    for (int g = 0; g < groups.count; g++)
        param[g] = lb_learned_bound(
            lb_step_bound(2.0 * lb_mean_abs(u + g * groups.size, groups.size) / sqrt((double)highest(spec))));
}

/* The code of v = u / step; 0 goes up, NaN to the lowest. */
static inline float odd_code(float v, float n) {
    float index = v + 0.5f * (n + 1.f);
    index = index > 0.f ? index : 0.f;
    index = index < n ? index : n;
    return 2.f * (float)(int)index - n; /* rounded down: vectorises, unlike floorf */
}

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    (void)when;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    const float n = highest(spec);
    for (int g = 0; g < groups.count; g++) {
        const float value = lb_learned_bound(param[g]), inv = 1.f / value;
        for (int64_t i = g * groups.size; i < (g + 1) * groups.size; i++)
            code[i] = odd_code(w->u[i] * inv, n);
        lb_step_fill(&groups, g, 0.5f * value, step);
    }
}

static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param) {
    (void)when;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    const float n = highest(spec), end = 0.5f * (n + 1.f);
    for (int g = 0; g < groups.count; g++) {
        const float *src = w->u + g * groups.size, *d = diff + g * groups.size, value = lb_learned_bound(param[g]);
        float *dst = diff_u ? diff_u + g * groups.size : NULL;
        if (dst && spec->options.estimator == LB_EST_STE)
            lb_backward_ste(groups.size, d, dst);
        else if (dst)
            lb_backward_clipped(src, groups.size, -end * value, end * value, d, dst);
        if (!diff_param)
            continue;
        const float inv = 1.f / value;
        double sum = 0.0;
        for (int64_t first = 0; first < groups.size; first += LB_BLOCK) {
            const int64_t count = LB_MIN(LB_BLOCK, groups.size - first);
            float term[LB_BLOCK];
            for (int64_t i = 0; i < count; i++) {
                const float v = src[first + i] * inv;
                term[i] = d[first + i] * (0.5f * odd_code(v, n) - (fabsf(v) < end ? v : 0.f));
            }
            sum += lb_sum(term, count);
        }
        diff_param[g] += (float)(sum / sqrt((double)groups.size * 0.5 * (double)n));
    }
}

const lb_quantizer lb_quantizer_seq = {
    .name = "seq",
    .help = "levels on both sides of zero alike with a learned step, weights",
    .paper = "Liu et al. 2025, arXiv 2502.02631",
    .weights = true,
    .min_bits = 1,
    .max_bits = 8,
    .nparams = 1,
    .param_names = {"step"},
    .weight_params = true,
    .estimator = LB_EST_OWN,
    .surrogate_weights = LB_SUR_IDENTITY,
    .grid = grid,
    .init = init,
    .forward = forward,
    .backward = backward,
};

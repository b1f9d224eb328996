/* twn: Ternary Weight Networks (Li et al. 2016, arXiv 1605.04711).
 *
 *   forward   Delta = threshold * mean |u| over the layer; code = u > Delta ? 1 : u < -Delta ? -1 : 0
 *             step = mean |u| over the elements with |u| > Delta, per layer
 *   backward  identity
 *
 * threshold: 0.7 (first version of the paper and the authors' code; later versions print 0.75: quant.weights.threshold).
 * `per: filter` takes the step, not Delta, per filter, as SQ's code does; that code's Delta is of the mean-centred weights, ours is
 * the paper's. A filter with nothing above Delta has codes 0 and the smallest step; in SQ's code, step 0. */
#include "quant/helpers.h"

static void grid(const lb_quant_spec *spec, lb_grid *g) {
    (void)spec;
    *g = (lb_grid){.bits = 2, .lo = -1, .hi = 1, .mul = 1, .add = -1};
}

/* Mean magnitude of the finite elements with a code other than 0; 0 if there are none. */
static double mean_kept(const float *u, const float *code, int64_t count) {
    double sum[LB_LANES] = {0}, kept[LB_LANES] = {0};
    int64_t i = 0;
    for (; i + LB_LANES <= count; i += LB_LANES)
        for (int j = 0; j < LB_LANES; j++) {
            const float c = fabsf(u[i + j]) <= FLT_MAX ? code[i + j] : 0.f;
            sum[j] += (double)(lb_finite(u[i + j]) * c);
            kept[j] += (double)(c * c);
        }
    for (int j = 0; i < count; i++, j++) {
        const float c = fabsf(u[i]) <= FLT_MAX ? code[i] : 0.f;
        sum[j] += (double)(lb_finite(u[i]) * c);
        kept[j] += (double)(c * c);
    }
    return lb_fold(kept) > 0.0 ? lb_fold(sum) / lb_fold(kept) : 0.0;
}

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    (void)when, (void)param;
    const float *u = w->u;
    const int64_t count = w->oc * w->fan_in;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    const float delta = (float)LB_MIN((double)spec->options.threshold * lb_mean_abs(u, count), (double)FLT_MAX);
    for (int64_t i = 0; i < count; i++)
        code[i] = (u[i] > delta ? 1.f : 0.f) - (u[i] < -delta ? 1.f : 0.f);
    for (int g = 0; g < groups.count; g++)
        lb_step_fill(&groups, g, lb_step_bound(mean_kept(u + g * groups.size, code + g * groups.size, groups.size)), step);
}

const lb_quantizer lb_quantizer_twn = {
    .name = "twn",
    .help = "ternary: -1, 0 or +1 times a scale",
    .paper = "Li et al. 2016, arXiv 1605.04711",
    .weights = true,
    .min_bits = 2,
    .max_bits = 2,
    .estimator = LB_EST_STE,
    .surrogate_weights = LB_SUR_IDENTITY,
    .grid = grid,
    .forward = forward,
};

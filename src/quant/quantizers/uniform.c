/* uniform: evenly spaced levels whose step follows the data (Jacob et al. 2018, arXiv 1712.05877, for the range rule; PPQ in AB,
 * Liu & Mattina 2019, arXiv 1903.01061, for least squares, from memory).
 *
 *   weights       code = clip(rint(u / step), lo, hi), lo = -2^(b-1), hi = 2^(b-1) - 1
 *     minmax      step = max |u| / hi, so that codes are -hi .. hi: symmetric, lo unused
 *     l2          the step of least squared error over lo .. hi
 *     1 bit       code = u >= 0 ? 1 : -1, step = mean |u|, which is least squares; both rules
 *   activations   the same with lo .. hi signed (two's complement, or {-1, +1}) or unsigned (0 .. 2^b - 1); the step is set by the
 *                 rule from the first batch and stays (parameter "step", never trained)
 *   backward      STE where step * lo <= u <= step * hi (1-bit weights: |u| <= 1), the step held constant
 *
 * l2 alternates the codes given the step with the least-squares step given the codes, step = sum u c / sum c^2. Alternation only
 * finds a local optimum, so it starts from the best of a few: fractions of the range judged on a sample, then its neighbourhood on
 * all. PPQ refines one step over training; here the step is a function of u alone, so evaluation and resuming need no state. */
#include "quant/helpers.h"

enum { SAMPLE = 1024, STARTS = 14, ROUNDS = 2 };

/* sum u c and sum c^2 over every stride-th element. The least-squares step's error is sum u^2 - (sum u c)^2 / sum c^2. */
static void correlate(const float *u, int64_t count, int64_t stride, float step, float lo, float hi, double *uc, double *cc) {
    const float inv = 1.f / step;
    float cross[LB_BLOCK], square[LB_BLOCK];
    *uc = *cc = 0.0;
    for (int64_t start = 0; start < count; start += LB_BLOCK * stride) {
        const int64_t n = LB_MIN(LB_BLOCK, (count - start + stride - 1) / stride);
        const float *src = u + start;
        for (int64_t i = 0; i < n; i++)
            cross[i] = lb_finite(src[i * stride]) * inv;
        for (int64_t i = 0; i < n; i++) {
            const float v = cross[i], c = lb_round_clip(v, lo, hi);
            cross[i] = v * c; /* in units of step: no overflow */
            square[i] = c * c;
        }
        *uc += lb_sum(cross, n);
        *cc += lb_sum(square, n);
    }
    *uc *= (double)step;
}

static float max_in_range(const float *u, int64_t count, bool both) {
    if (both)
        return lb_max_abs(u, count);
    float max = 0.f;
    for (int64_t i = 0; i < count; i++)
        max = LB_MAX(max, lb_finite(u[i]));
    return max;
}

/* Takes `start` if its codes, at their own least-squares step, err less than the best so far. */
static void try_start(const float *u, int64_t count, int64_t stride, double start, float lo, float hi, double *best, float *step) {
    const float bounded = lb_step_bound(start);
    double uc, cc;
    correlate(u, count, stride, bounded, lo, hi, &uc, &cc);
    if (cc > 0.0 && uc > 0.0 && uc * uc / cc > *best) {
        *best = uc * uc / cc;
        *step = bounded;
    }
}

float lb_step_l2(const float *u, int64_t count, float lo, float hi) {
    static const double near[] = {1.0, 0.88, 0.92, 0.96, 0.98, 1.04, 1.08, 1.12};
    const double range = (double)max_in_range(u, count, lo < 0.f) / (double)hi;
    double best = 0.0, fraction = 1.0, uc, cc;
    float coarse = lb_step_bound(range), step;
    for (int s = 0; s < STARTS; s++, fraction *= 0.8)
        try_start(u, count, (count + SAMPLE - 1) / SAMPLE, range * fraction, lo, hi, &best, &coarse);
    best = 0.0;
    step = coarse;
    try_start(u, count, 1, range, lo, hi, &best, &step); /* never worse than minmax */
    for (size_t s = 0; s < LB_COUNT(near); s++)
        try_start(u, count, 1, (double)coarse * near[s], lo, hi, &best, &step);
    for (int r = 0; r < ROUNDS; r++) {
        correlate(u, count, 1, step, lo, hi, &uc, &cc);
        if (cc > 0.0 && uc > 0.0)
            step = lb_step_bound(uc / cc);
    }
    return step;
}

static float rule_step(const lb_quant_spec *spec, const float *u, int64_t count) {
    lb_grid g;
    lb_grid_of_even(spec, &g);
    if (g.mul == 2)
        return lb_step_bound(lb_mean_abs(u, count));
    if (spec->options.scale == LB_SCALE_L2)
        return lb_step_l2(u, count, (float)g.lo, (float)g.hi);
    return lb_step_bound((double)max_in_range(u, count, g.lo < 0) / (double)g.hi);
}

static void init(const lb_quant_spec *spec, const float *u, int oc, int64_t fan_in, float *param) {
    const lb_groups groups = lb_quant_groups(spec, oc, fan_in);
    for (int g = 0; g < groups.count; g++)
        param[g] = rule_step(spec, u + g * groups.size, groups.size);
}

static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                    float *code) {
    (void)when, (void)param;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    lb_grid range;
    lb_grid_of_even(spec, &range);
    for (int g = 0; g < groups.count; g++) {
        const float *src = w->u + g * groups.size, value = rule_step(spec, src, groups.size);
        lb_step_fill(&groups, g, value, step);
        lb_even_codes(src, groups.size, value, &range, code + g * groups.size);
    }
}

static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                     const float *diff, float *diff_u, float *diff_param) {
    (void)when, (void)param, (void)diff_param;
    const int64_t fan_in = w->fan_in;
    lb_grid range;
    lb_grid_of_even(spec, &range);
    if (spec->options.estimator != LB_EST_CLIPPED) {
        lb_backward_ste(w->oc * fan_in, diff, diff_u);
        return;
    }
    for (int o = 0; o < w->oc; o++) {
        /* The largest weight is the range: one part in a million keeps it inside after step = max / hi was rounded. */
        const float scale = w->step[o] * 1.000001f;
        const float lo = range.mul == 2 ? -1.f : scale * (float)range.lo, hi = range.mul == 2 ? 1.f : scale * (float)range.hi;
        lb_backward_clipped(w->u + o * fan_in, fan_in, lo, hi, diff + o * fan_in, diff_u + o * fan_in);
    }
}

static void form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *f) {
    (void)when;
    lb_form_of_even(spec, lb_step_bound((double)param[0]), f);
}

const lb_quantizer lb_quantizer_uniform = {
    .name = "uniform",
    .help = "even levels, step from the range or by least squares",
    .paper = "Jacob et al. 2018, arXiv 1712.05877; Liu and Mattina 2019, arXiv 1903.01061",
    .weights = true,
    .activations = true,
    .min_bits = 1,
    .max_bits = 8,
    .nparams = 1,
    .param_names = {"step"},
    .fixed_params = true,
    .estimator = LB_EST_CLIPPED,
    .estimator_activations = LB_EST_CLIPPED,
    .surrogate_weights = LB_SUR_IDENTITY,
    .surrogate_activations = LB_SUR_DEFAULT,
    .grid = lb_grid_of_even,
    .init = init,
    .forward = forward,
    .backward = backward,
    .form = form,
};

/* dorefa: DoReFa-Net (Zhou et al. 2016, arXiv 1606.06160, eq. 5 to 11). n = 2^bits - 1.
 *
 *   weights, 2 bits and more (eq. 9, 10)
 *     forward   t = tanh(u), M = max |t|, q = rint(n (t / 2M + 1/2)), u~ = 2 q / n - 1: odd codes 2 q - n, step 1 / n
 *     backward  of t / M with rint as identity, M differentiated too, as automatic differentiation does: (1 - t^2) / M on every
 *               weight, and -sum(diff t) / M^2 * sign(t) (1 - t^2) more on the largest. Without that term nothing holds back an
 *               outlier that makes all other weights small.
 *   weights, 1 bit (eq. 7, 8)
 *     forward   u~ = E sign(u), E = mean |u| over the layer; backward identity, unclipped, E held constant
 *   activations (eq. 11)
 *     forward   u~ = rint(n clip(u, 0, 1)) / n; backward 1[0 < u < 1]
 *
 * As DoReFa-code computes it. M and E are of the layer; `per: filter` takes them of each filter. Gradients are not quantized.
 * At 8 bits the codes are the odd numbers -255 .. 255: exact in bf16, not in an int8. What is packed is q, mul 2, add -n. */
#include "quant/helpers.h"
#include "quant/tanh.h"

enum { BLOCK = 256 };

/* M of a group whose largest |u| is `max`, as tanh grows with |u|; 1 where all is zero, so that the gradient stays finite. */
static float max_tanh(float max) {
    const float t = lb_tanh(max);
    return t > 0x1p-100f ? t : 1.f;
}

/* The first that is as large as `max`, in blocks because gcc does not vectorise a loop that ends early. */
static inline int64_t find_largest(const float *u, int64_t count, float max) {
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = LB_MIN((int64_t)BLOCK, count - first);
        int found = 0;
        for (int64_t i = 0; i < n; i++)
            found |= fabsf(u[first + i]) == max;
        for (int64_t i = 0; found && i < n; i++)
            if (fabsf(u[first + i]) == max)
                return first + i;
    }
    return 0;
}

static void grid(const lb_quant_spec *spec, lb_grid *g) {
    if (spec->target == LB_ACTIVATIONS)
        lb_grid_unsigned(spec->bits, g);
    else
        lb_grid_odd(spec->bits, g);
}

LB_CLONES static void forward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                              float *step, float *code) {
    if (spec->bits == 1) {
        lb_quantizer_bwn.forward(spec, when, param, w, step, code);
        return;
    }
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    const float n = (float)((1 << spec->bits) - 1), half = 0.5f * n;
    for (int g = 0; g < groups.count; g++) {
        const float *src = w->u + g * groups.size;
        float *dst = code + g * groups.size;
        const float scale = half / max_tanh(lb_max_abs(src, groups.size));
        for (int64_t i = 0; i < groups.size; i++) {
            float v = lb_tanh(src[i]) * scale;
            v = v > -half ? v : -half; /* NaN, and an infinity that max |t| left out */
            v = v < half ? v : half;
            dst[i] = 2.f * lb_rint(v + half) - n;
        }
        lb_step_fill(&groups, g, 1.f / n, step);
    }
}

LB_CLONES static void backward(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                               const float *diff, float *diff_u, float *diff_param) {
    (void)when, (void)param, (void)diff_param;
    const lb_groups groups = lb_quant_groups(spec, w->oc, w->fan_in);
    if (spec->bits == 1) {
        lb_backward_plain(spec->options.estimator, w->u, w->oc * w->fan_in, diff, diff_u);
        return;
    }
    for (int g = 0; g < groups.count; g++) {
        const float *src = w->u + g * groups.size, *d = diff + g * groups.size;
        float *dst = diff_u + g * groups.size;
        const float max = lb_max_abs(src, groups.size), inv = 1.f / max_tanh(max);
        double slope_of_max = 0;
        for (int64_t first = 0; first < groups.size; first += BLOCK) { /* one kind of work per loop, or gcc does not vectorise */
            const int64_t n = LB_MIN((int64_t)BLOCK, groups.size - first);
            float product[BLOCK];
            for (int64_t i = 0; i < n; i++) {
                const float t = lb_tanh(src[first + i]);
                dst[first + i] += d[first + i] * ((1.f - t * t) * inv);
                product[i] = d[first + i] * t;
            }
            slope_of_max -= lb_sum(product, n);
        }
        const int64_t largest = find_largest(src, groups.size, max);
        const float t = lb_tanh(src[largest]), slope = (float)slope_of_max * inv * inv;
        dst[largest] += slope * (t < 0 ? -1.f : 1.f) * (1.f - t * t);
    }
}

static void form(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *f) {
    (void)when, (void)param;
    const float n = (float)((1 << spec->bits) - 1);
    f->step = 1.f / n;
    f->hi = n;
    f->pass_hi = 1.f;
}

const lb_quantizer lb_quantizer_dorefa = {
    .name = "dorefa",
    .help = "DoReFa: weights through tanh onto odd levels, activations clipped to 0..1",
    .paper = "Zhou et al. 2016, arXiv 1606.06160",
    .weights = true,
    .unit_range = true,
    .activations = true,
    .min_bits = 1,
    .max_bits = 8,
    .estimator = LB_EST_STE,
    .estimator_activations = LB_EST_CLIPPED,
    .no_clipped = "tanh brings every weight inside the range, there is nothing to clip; use ste",
    .surrogate_weights = LB_SUR_IDENTITY,
    .surrogate_activations = LB_SUR_CLIP01,
    .grid = grid,
    .forward = forward,
    .backward = backward,
    .form = form,
};

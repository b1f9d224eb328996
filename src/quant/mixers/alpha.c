/* alpha: AB, alpha-blending (Liu and Mattina, IJCAI 2019, arXiv 1903.01061). One m for the whole tensor, a function of time only:
 *
 *     u~ = (1 - alpha) s(u) + alpha Q(u),    dL/du = (1 - alpha) s'(u) dL/du~           (abstract)
 *     alpha(t) = 0 for t < T0;  1 - ((T1 - t) / (T1 - T0))^3 for T0 <= t < T1;  1 from T1 on
 *
 * with t the steps of the stage so far, rounded down to a multiple of mix_every, T0 = mix_start and T1 = mix_end of the stage's
 * steps and mix_exponent for the 3. The gradient is exact, so the default estimator is `none`; `ste` adds alpha E(u), which is
 * QKeras's use_ste. The schedule is from QKeras, which names the paper for it (the paper itself was not at hand). */
#include <math.h>

#include "quant/quant.h"

static float alpha(const lb_quant_spec *spec, const lb_quant_when *when) {
    const double steps = (double)when->stage_steps;
    const double start = (double)spec->options.mix_start * steps, end = (double)spec->options.mix_end * steps;
    const double t = (double)(when->stage_step - when->stage_step % LB_MAX(spec->options.mix_every, 1));
    if ((double)when->stage_step >= end) /* not t: the ramp is over at its end however rare updates are */
        return 1.f;
    return t < start ? 0.f : (float)(1 - pow((end - t) / (end - start), (double)spec->options.mix_exponent));
}

static bool weights(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    (void)w, (void)m;
    *scalar = alpha(spec, when);
    return true;
}

static const char *refuse(const lb_quant_spec *spec) {
    return spec->options.mix_start > spec->options.mix_end ? "mix_start is after mix_end" : NULL;
}

const lb_mixer lb_mixer_alpha = {
    .name = "alpha",
    .help = "AB: everything fades from float to quantized, alpha from 0 to 1; no straight-through estimator",
    .paper = "Liu and Mattina 2019, arXiv 1903.01061",
    .weights = weights,
    .activations = alpha,
    .share = alpha,
    .refuse = refuse,
    .ste_free = true,
    .fades = true,
};

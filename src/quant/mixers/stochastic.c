/* stochastic: stochastic precision (Zhuang et al. 2021, arXiv 1908.04680). At each step a layer (or a residual block) is
 * quantized as a whole with probability p, weights and input activation together, or stays float with its surrogates:
 *
 *     m ~ Bernoulli(p(t)),    p(t) = mix_from before T0, rising in a straight line to 1 at T1, 1 from then on
 *
 * T0 and T1 are mix_start and mix_end of the stage's steps. The paper names the idea only; probabilities and schedule are ours. The
 * draw depends on the run's seed, the step and spec->mix_unit, so tensors of one unit share it. */
#include "quant/quant.h"

static float probability(const lb_quant_spec *spec, const lb_quant_when *when) {
    const double steps = (double)when->stage_steps;
    const double start = (double)spec->options.mix_start * steps, end = (double)spec->options.mix_end * steps;
    const double t = (double)when->stage_step, from = (double)spec->options.mix_from;
    if (t >= end)
        return 1.f;
    return (float)(t < start ? from : from + (1 - from) * (t - start) / (end - start));
}

static float draw(const lb_quant_spec *spec, const lb_quant_when *when) {
    uint32_t bits[4];
    lb_rng4(when->run_seed, LB_RNG_MIXER, when->step, (uint64_t)spec->mix_unit, bits);
    return lb_uniform(bits[0]) < probability(spec, when) ? 1.f : 0.f;
}

static bool weights(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    (void)w, (void)m;
    *scalar = draw(spec, when);
    return true;
}

static const char *refuse(const lb_quant_spec *spec) {
    if (spec->options.mix_scope == LB_SCOPE_FILTER || spec->options.mix_scope == LB_SCOPE_ELEMENT)
        return "mix_scope must be layer or block; filters and elements are drawn by mixer roulette";
    if (!(spec->options.mix_from >= 0.f && spec->options.mix_from <= 1.f))
        return "mix_from must be from 0 to 1";
    return spec->options.mix_start > spec->options.mix_end ? "mix_start is after mix_end" : NULL;
}

const lb_mixer lb_mixer_stochastic = {
    .name = "stochastic",
    .help = "stochastic precision: whole layers or residual blocks, quantized or float, drawn at each step",
    .paper = "Zhuang et al. 2021, arXiv 1908.04680",
    .weights = weights,
    .activations = draw,
    .share = probability,
    .refuse = refuse,
};

/* constant: m is a number of the recipe. 1 (the default) is plain quantization-aware training, 0 the float network with its
 * surrogates, anything between a fixed blend (AB's alpha held still). */
#include "quant/quant.h"

static bool weights(const lb_quant_spec *spec, const lb_quant_when *when, const lb_weights *w, float *scalar, float *m) {
    (void)when, (void)w, (void)m;
    *scalar = spec->options.mix;
    return true;
}

static float activations(const lb_quant_spec *spec, const lb_quant_when *when) {
    (void)when;
    return spec->options.mix;
}

const lb_mixer lb_mixer_constant = {
    .name = "constant",
    .help = "m = quant.*.mix always: 1 quantizes everything",
    .paper = "plain quantization-aware training",
    .weights = weights,
    .activations = activations,
    .share = activations,
};

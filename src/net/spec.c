/* What the words of quant.weights, quant.activations and quant.layers mean for one tensor. */
#include <stdio.h>

#include "net/quantize.h"

/* The error that no row of a table is called `word`, naming the nearest. */
static lb_status fail_name(lb_ctx *ctx, const char *where, const char *key, const char *word, const char *const *names,
                           size_t count) {
    const char *near = lb_nearest(word, names, count);
    return lb_fail(ctx, LB_ERR_RECIPE, "%s.%s: there is no '%s'%s%s%s", where, key, word, near ? "; did you mean '" : "",
                   near ? near : "", near ? "'?" : "; see docs/recipes.md");
}

static lb_status find_quantizer(lb_ctx *ctx, const char *where, const char *word, const lb_quantizer **quantizer) {
    static const char *const names[] = {
#define LB_X(name) #name,
        LB_QUANTIZERS(LB_X)
#undef LB_X
    };
    *quantizer = lb_quantizer_find(word);
    return *quantizer ? LB_OK : fail_name(ctx, where, "method", word, names, LB_COUNT(names));
}

static lb_status find_mixer(lb_ctx *ctx, const char *where, const char *word, const lb_mixer **mixer) {
    static const char *const names[] = {
#define LB_X(name) #name,
        LB_MIXERS(LB_X)
#undef LB_X
    };
    *mixer = lb_mixer_find(word);
    return *mixer ? LB_OK : fail_name(ctx, where, "mixer", word, names, LB_COUNT(names));
}

void lb_spec_set_quantizer(lb_quant_spec *spec, const lb_quantizer *quantizer) {
    spec->quantizer = quantizer;
    spec->options.bit_lengths = LB_BITS_FIXED;
    spec->options.per = LB_PER_DEFAULT;
    const lb_estimator asked = spec->options.estimator;
    spec->options.estimator = LB_EST_DEFAULT;
    if (spec->mixer && spec->mixer->ste_free && asked != LB_EST_DEFAULT && asked != LB_EST_NONE) /* its default has none at all */
        spec->options.estimator = asked == LB_EST_OWN ? lb_quantizer_estimator(quantizer, spec->target) : asked;
    spec->options.surrogate = LB_SUR_DEFAULT;
    spec->options.scale = LB_SCALE_MINMAX;
}

void lb_spec_set_bits(lb_quant_spec *spec, int bits) {
    spec->bits = bits;
    spec->options.bit_lengths = LB_BITS_FIXED;
    bool fits = bits >= spec->quantizer->min_bits && bits <= spec->quantizer->max_bits;
    if (fits && !(spec->target == LB_WEIGHTS && spec->quantizer->unit_range))
        return;
    lb_spec_set_quantizer(spec, &lb_quantizer_uniform);
    if (spec->target == LB_WEIGHTS)
        spec->options.per = LB_PER_FILTER;
}

lb_status lb_spec_from_config(lb_ctx *ctx, const char *where, const lb_tensor_config *config, lb_target target,
                              lb_quant_spec *spec) {
    *spec = (lb_quant_spec){.target = target, .bits = config->bits, .is_signed = target == LB_WEIGHTS, .options = config->options};
    if (!strcmp(config->method, "none"))
        return LB_OK;
    LB_TRY(find_quantizer(ctx, where, config->method, &spec->quantizer));
    return find_mixer(ctx, where, config->mixer, &spec->mixer);
}

char *lb_spec_text(const lb_quant_spec *spec, char text[LB_SPEC_TEXT]) {
    if (spec && spec->quantizer)
        snprintf(text, LB_SPEC_TEXT, "%s %s%d bit%s", spec->quantizer->name,
                 spec->options.bit_lengths == LB_BITS_FIXED ? "" : "up to ", spec->bits, spec->bits == 1 ? "" : "s");
    else
        snprintf(text, LB_SPEC_TEXT, "float");
    return text;
}

bool lb_spec_equal(const lb_quant_spec *a, const lb_quant_spec *b) {
    return a->quantizer == b->quantizer && a->mixer == b->mixer && a->target == b->target && a->bits == b->bits &&
           a->is_signed == b->is_signed && a->features == b->features && !memcmp(&a->options, &b->options, sizeof a->options);
}

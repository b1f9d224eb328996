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
    spec->bit_lengths = LB_BITS_FIXED;
    spec->granularity = LB_PER_DEFAULT;
    if (!(spec->mixer && spec->mixer->ste_free && spec->estimator == LB_EST_STE)) /* asked for: the default has none at all */
        spec->estimator = LB_EST_DEFAULT;
    spec->surrogate = LB_SUR_DEFAULT;
    spec->scale = LB_SCALE_MINMAX;
}

void lb_spec_set_bits(lb_quant_spec *spec, int bits) {
    spec->bits = bits;
    spec->bit_lengths = LB_BITS_FIXED;
    bool fits = bits >= spec->quantizer->min_bits && bits <= spec->quantizer->max_bits;
    if (fits && !(spec->target == LB_WEIGHTS && spec->quantizer->unit_range))
        return;
    lb_spec_set_quantizer(spec, &lb_quantizer_uniform);
    if (spec->target == LB_WEIGHTS)
        spec->granularity = LB_PER_FILTER;
}

lb_status lb_spec_from_config(lb_ctx *ctx, const char *where, const lb_tensor_config *config, lb_target target,
                              lb_quant_spec *spec) {
    *spec = (lb_quant_spec){.target = target,
                            .bits = config->bits,
                            .granularity = config->per,
                            .estimator = config->estimator,
                            .surrogate = config->surrogate,
                            .scale = config->scale,
                            .threshold = config->threshold,
                            .is_signed = target == LB_WEIGHTS,
                            .cpq_backward = config->cpq_backward,
                            .temperature = config->temperature,
                            .bit_lengths = config->bit_lengths,
                            .bits_penalty = config->bits_penalty,
                            .drop_top = config->drop_top,
                            .drop_lower = config->drop_lower,
                            .mixer_value = config->mix,
                            .mix_start = config->mix_start,
                            .mix_end = config->mix_end,
                            .mix_exponent = config->mix_exponent,
                            .mix_every = config->mix_every,
                            .mix_scope = config->mix_scope,
                            .mix_from = config->mix_from,
                            .mix_schedule = config->mix_schedule,
                            .mix_ratio = config->mix_ratio,
                            .mix_partition = config->mix_partition,
                            .mix_probability = config->mix_probability,
                            .mix_rule = config->mix_rule,
                            .mix_order = config->mix_order,
                            .mix_ramp = config->mix_ramp,
                            .mix_refresh = config->mix_refresh,
                            .mix_settle = config->mix_settle};
    if (!strcmp(config->method, "none"))
        return LB_OK;
    LB_TRY(find_quantizer(ctx, where, config->method, &spec->quantizer));
    return find_mixer(ctx, where, config->mixer, &spec->mixer);
}

char *lb_spec_text(const lb_quant_spec *spec, char text[LB_SPEC_TEXT]) {
    if (spec && spec->quantizer)
        snprintf(text, LB_SPEC_TEXT, "%s %s%d bit%s", spec->quantizer->name,
                 spec->bit_lengths == LB_BITS_FIXED ? "" : "up to ", spec->bits, spec->bits == 1 ? "" : "s");
    else
        snprintf(text, LB_SPEC_TEXT, "float");
    return text;
}

bool lb_spec_equal(const lb_quant_spec *a, const lb_quant_spec *b) {
    return a->quantizer == b->quantizer && a->mixer == b->mixer && a->target == b->target && a->bits == b->bits &&
           a->granularity == b->granularity && a->estimator == b->estimator && a->surrogate == b->surrogate &&
           a->scale == b->scale && a->threshold == b->threshold && a->is_signed == b->is_signed &&
           a->cpq_backward == b->cpq_backward && a->temperature == b->temperature && a->drop_top == b->drop_top &&
           a->drop_lower == b->drop_lower && a->bit_lengths == b->bit_lengths && a->bits_penalty == b->bits_penalty &&
           a->mixer_value == b->mixer_value && a->features == b->features && a->mix_start == b->mix_start &&
           a->mix_end == b->mix_end && a->mix_exponent == b->mix_exponent && a->mix_every == b->mix_every &&
           a->mix_scope == b->mix_scope && a->mix_from == b->mix_from && a->mix_schedule == b->mix_schedule &&
           a->mix_ratio == b->mix_ratio && a->mix_partition == b->mix_partition && a->mix_probability == b->mix_probability &&
           a->mix_rule == b->mix_rule && a->mix_order == b->mix_order && a->mix_ramp == b->mix_ramp &&
           a->mix_refresh == b->mix_refresh && a->mix_settle == b->mix_settle;
}

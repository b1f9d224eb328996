/* What the words of quant.weights, quant.activations and quant.layers mean for one tensor. */
#include <stdio.h>

#include "net/quantize.h"

static bool given(const char *text) { return *text && strcmp(text, "default"); }

/* Index of `word` in names, or an error that names the key and the nearest word. */
static lb_status choose(lb_ctx *ctx, const char *where, const char *key, const char *word, const char *const *names, size_t count,
                        int *index) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(word, names[i])) {
            *index = (int)i;
            return LB_OK;
        }
    const char *near = lb_nearest(word, names, count);
    return lb_fail(ctx, LB_ERR_RECIPE, "%s.%s: there is no '%s'%s%s%s", where, key, word, near ? ", did you mean '" : "",
                   near ? near : "", near ? "'?" : "; see docs/recipes.md");
}

static lb_status choose_quantizer(lb_ctx *ctx, const char *where, const char *word, const lb_quantizer **quantizer) {
    *quantizer = lb_quantizer_find(word);
    if (*quantizer)
        return LB_OK;
    const char *names[64];
    size_t count, n = 0;
    const lb_quantizer *const *list = lb_quantizer_list(&count);
    names[n++] = "none";
    for (size_t i = 0; i < count && n < LB_COUNT(names); i++)
        names[n++] = list[i]->name;
    int unused;
    return choose(ctx, where, "method", word, names, n, &unused);
}

static lb_status choose_mixer(lb_ctx *ctx, const char *where, const char *word, const lb_mixer **mixer) {
    *mixer = given(word) ? lb_mixer_find(word) : &lb_mixer_constant;
    if (*mixer)
        return LB_OK;
    const char *names[64];
    size_t count, n = 0;
    const lb_mixer *const *list = lb_mixer_list(&count);
    for (size_t i = 0; i < count && n < LB_COUNT(names); i++)
        names[n++] = list[i]->name;
    int unused;
    return choose(ctx, where, "mixer", word, names, n, &unused);
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
    static const char *const per[] = {"tensor", "filter"};
    static const char *const estimators[] = {"default", "ste", "clipped", "none", "own"};
    static const char *const surrogates[] = {"default", "identity", "hardtanh", "clip01", "relu"};
    static const char *const scales[] = {"minmax", "l2"};
    static const char *const scopes[] = {"default", "filter", "element", "layer", "block"};
    static const char *const schedules[] = {"constant", "exp", "average", "tune"};
    static const char *const partitions[] = {"stochastic", "deterministic", "fixed"};
    static const char *const probabilities[] = {"constant", "linear", "softmax", "sigmoid"};
    static const char *const rules[] = {"paper", "code"};
    static const char *const backwards[] = {"expect", "mode"};
    static const char *const lengths[] = {"fixed", "learned", "kept"};
    static const char *const orders[] = {"forward", "reverse", "global"};
    static const char *const ramps[] = {"cubic", "linear", "quadratic", "cosine", "flipped"};
    int index = 0;
    *spec = (lb_quant_spec){.target = target,
                            .bits = config->bits,
                            .threshold = config->threshold,
                            .is_signed = target == LB_WEIGHTS,
                            .temperature = config->temperature,
                            .bits_penalty = config->bits_penalty,
                            .drop_top = config->drop_top,
                            .drop_lower = config->drop_lower,
                            .mixer_value = config->mix,
                            .mix_start = config->mix_start,
                            .mix_end = config->mix_end,
                            .mix_exponent = config->mix_exponent,
                            .mix_every = config->mix_every,
                            .mix_from = config->mix_from,
                            .mix_ratio = config->mix_ratio,
                            .mix_refresh = config->mix_refresh,
                            .mix_settle = config->mix_settle};
    if (!given(config->method) || !strcmp(config->method, "none"))
        return LB_OK;
    const lb_quantizer *quantizer;
    LB_TRY(choose_quantizer(ctx, where, config->method, &quantizer));
    LB_TRY(choose_mixer(ctx, where, config->mixer, &spec->mixer));
    lb_spec_set_quantizer(spec, quantizer);
    if (given(config->per)) {
        LB_TRY(choose(ctx, where, "per", config->per, per, LB_COUNT(per), &index));
        if (index == LB_PER_FILTER && target == LB_ACTIVATIONS)
            return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s.per: filter is for weights; activations have one step per tensor", where);
        spec->granularity = (lb_granularity)index;
    }
    if (given(config->estimator)) {
        LB_TRY(choose(ctx, where, "estimator", config->estimator, estimators, LB_COUNT(estimators), &index));
        spec->estimator = (lb_estimator)index;
    }
    if (given(config->surrogate)) {
        LB_TRY(choose(ctx, where, "surrogate", config->surrogate, surrogates, LB_COUNT(surrogates), &index));
        spec->surrogate = (lb_surrogate)index;
    }
    if (given(config->scale)) {
        LB_TRY(choose(ctx, where, "scale", config->scale, scales, LB_COUNT(scales), &index));
        spec->scale = (lb_scale_rule)index;
    }
    if (given(config->mix_scope)) {
        LB_TRY(choose(ctx, where, "mix_scope", config->mix_scope, scopes, LB_COUNT(scopes), &index));
        spec->mix_scope = (lb_mix_scope)index;
    }
    if (given(config->mix_schedule)) {
        LB_TRY(choose(ctx, where, "mix_schedule", config->mix_schedule, schedules, LB_COUNT(schedules), &index));
        spec->mix_schedule = (lb_mix_schedule)index;
    }
    if (given(config->mix_partition)) {
        LB_TRY(choose(ctx, where, "mix_partition", config->mix_partition, partitions, LB_COUNT(partitions), &index));
        spec->mix_partition = (lb_mix_partition)index;
    }
    if (given(config->mix_probability)) {
        LB_TRY(choose(ctx, where, "mix_probability", config->mix_probability, probabilities, LB_COUNT(probabilities), &index));
        spec->mix_probability = (lb_mix_probability)index;
    }
    if (given(config->mix_rule)) {
        LB_TRY(choose(ctx, where, "mix_rule", config->mix_rule, rules, LB_COUNT(rules), &index));
        spec->mix_rule = (lb_mix_rule)index;
    }
    if (given(config->cpq_backward)) {
        LB_TRY(choose(ctx, where, "cpq_backward", config->cpq_backward, backwards, LB_COUNT(backwards), &index));
        spec->cpq_backward = (lb_cpq_backward)index;
    }
    if (given(config->bit_lengths)) {
        LB_TRY(choose(ctx, where, "bit_lengths", config->bit_lengths, lengths, LB_COUNT(lengths), &index));
        spec->bit_lengths = (lb_bit_lengths)index;
    }
    if (given(config->mix_order)) {
        LB_TRY(choose(ctx, where, "mix_order", config->mix_order, orders, LB_COUNT(orders), &index));
        spec->mix_order = (lb_mix_order)index;
    }
    if (given(config->mix_ramp)) {
        LB_TRY(choose(ctx, where, "mix_ramp", config->mix_ramp, ramps, LB_COUNT(ramps), &index));
        spec->mix_ramp = (lb_mix_ramp)index;
    }
    return LB_OK;
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

#include "train/unused.h"

#include "recipe/keys.h"

/* What the rows below ask: one stage of a recipe and its network. */
typedef struct view {
    const lb_recipe *recipe;
    const lb_config *stage;
    const lb_net *net;
} view;

/* ---- What a stage has ---------------------------------------------------------------------------------------------- */

typedef bool (*tensor_test)(const lb_tensor_config *tensor, bool weights);

/* Does any tensor's configuration, layer rules included, pass? */
static bool any_tensor(const lb_quant_config *quant, tensor_test test) {
    bool any = test(&quant->weights, true) || test(&quant->activations, false);
    for (int i = 0; i < quant->nlayers; i++)
        any |= test(&quant->layers[i].weights, true) || test(&quant->layers[i].activations, false);
    return any;
}

static bool is_low_bit_weights(const lb_tensor_config *tensor, bool weights) {
    return weights && strcmp(tensor->method, "none") != 0;
}

static bool learns_step(const lb_tensor_config *tensor, bool weights) {
    const lb_quantizer *q = lb_quantizer_find(tensor->method);
    return q && q->nparams > 0 && !q->fixed_params && (q->weight_params || !weights);
}

static bool learns_bits(const lb_tensor_config *tensor, bool weights) {
    return weights && tensor->options.bit_lengths == LB_BITS_LEARNED;
}

static bool is_partly_float(const lb_tensor_config *tensor) {
    const lb_mixer *mixer = lb_mixer_find(tensor->mixer);
    return mixer && !lb_quant_is_always_whole(&(lb_quant_spec){.mixer = mixer, .options = tensor->options});
}
static bool is_partly_float_weights(const lb_tensor_config *tensor, bool weights) { return weights && is_partly_float(tensor); }
static bool is_partly_float_activation(const lb_tensor_config *tensor, bool weights) { return !weights && is_partly_float(tensor); }

static bool has_shortcut_layer(const view *v) {
    for (int i = 0; i < v->net->nnodes; i++)
        if (v->net->nodes[i].shortcut)
            return true;
    return false;
}

static bool decays(const view *v) { return v->stage->train.optimizer.weight_decay > 0; }
static bool has_low_bit_weights(const view *v) { return any_tensor(&v->stage->quant, is_low_bit_weights); }
static bool has_learned_step(const view *v) { return any_tensor(&v->stage->quant, learns_step); }
static bool decays_learned_step(const view *v) { return decays(v) && has_learned_step(v); }
static bool has_learned_bits(const view *v) { return any_tensor(&v->stage->quant, learns_bits); }
static bool has_weights_before(const view *v) { return v->recipe->nstages > 1 || v->stage->train.init[0]; }
static bool counts_epochs(const view *v) { return v->stage->train.steps == 0 && v->stage->train.epochs > 0; }

static bool mixes_weights(const view *v) { return any_tensor(&v->stage->quant, is_partly_float_weights); }
static bool mixes_activations(const view *v) { return any_tensor(&v->stage->quant, is_partly_float_activation); }

static bool drops_lower(const lb_tensor_config *tensor, bool weights) {
    return weights && tensor->options.drop_lower > 0 && tensor->bits > 2;
}
static bool has_lower_levels(const view *v) { return any_tensor(&v->stage->quant, drops_lower); }
static bool has_lengths(const view *v) { return has_learned_bits(v) || v->stage->train.init[0]; }

/* ---- The keys ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *key;
    bool (*is_used)(const view *v);
    const char *why_not;
} rows[] = {
    {"train.total_epochs", counts_epochs, "no stage's budget is in epochs, which it would scale (train.steps, or 0 epochs)"},
    {"train.optimizer.decay_bias", decays, "it is a factor on train.optimizer.weight_decay, which is 0"},
    {"train.optimizer.decay_bn", decays, "it is a factor on train.optimizer.weight_decay, which is 0"},
    {"train.optimizer.decay_quant", decays_learned_step, "no quantizer learns a step or clip, or weight_decay is 0"},
    {"train.optimizer.lr_quant", has_learned_step, "no quantizer learns a step or clip"},
    {"train.optimizer.lr_gates", has_learned_bits, "quant.weights.bit_lengths is not learned"},
    {"train.optimizer.clip_weights", has_low_bit_weights, "all weights are float"},
    {"quant.rescale", has_weights_before, "there is neither an earlier stage nor train.init"},
    {"quant.edges.shortcut", has_shortcut_layer, "the network has no convolutions in shortcuts"},
    {"quant.weights.surrogate", mixes_weights, "all weights are quantized at every step"},
    {"quant.activations.surrogate", mixes_activations, "all activations are quantized at every step"},
    {"quant.weights.drop_lower", has_lower_levels, "with 2 bits all that can be dropped is the highest level, by drop_top"},
    {"quant.weights.bit_lengths", has_lengths, "no earlier stage has learned lengths to be kept, and there is no train.init"},
};

static bool is_set(const lb_key *key, const lb_config *stage, lb_config *defaults) {
    lb_key_store_default(key, defaults);
    return !lb_key_equal(key, stage, defaults);
}

void lb_warn_unused(const lb_recipe *recipe, const lb_net *net) {
    lb_config defaults;
    for (size_t r = 0; r < LB_COUNT(rows); r++) {
        const lb_key *key = lb_key_find(rows[r].key);
        bool given = false, used = false;
        for (int i = 0; i < recipe->nstages; i++) {
            const lb_config *stage = &recipe->stages[i];
            given |= is_set(key, stage, &defaults);
            used |= rows[r].is_used(&(view){recipe, stage, net});
        }
        if (given && !used)
            lb_warn(recipe->ctx, "%s has no effect here: %s", rows[r].key, rows[r].why_not);
    }
}

/* From what was given to one complete lb_config per stage, and which keys are read under the others. */
#include <math.h>
#include <stdio.h>

#include "recipe/given.h"
#include "recipe/recipe.h"

/* ---- Which keys are read ------------------------------------------------------------------------------------------- */

static bool quantizes(const lb_tensor_config *t) { return strcmp(t->method, "none") != 0; }

static bool any_quantized(const lb_config *c) {
    bool any = quantizes(&c->quant.weights) || quantizes(&c->quant.activations);
    for (int i = 0; i < c->quant.nlayers; i++)
        any |= quantizes(&c->quant.layers[i].weights) || quantizes(&c->quant.layers[i].activations);
    return any;
}

bool lb_key_is_read_base(const lb_key *key, const lb_config *config) {
    if (!key->when)
        return true;
    if (strcmp(key->when, "quant") == 0)
        return any_quantized(config);
    size_t n = strcspn(key->when, "!=");
    bool other = key->when[n] == '!';
    char path[64], value[LB_KEY_FORMAT];
    snprintf(path, sizeof path, "%.*s", (int)n, key->when);
    const lb_key *on = lb_key_find(path);
    if (!on || !lb_key_is_read_base(on, config))
        return false;
    lb_key_format(on, config, value);
    bool found = false;
    for (const char *c = key->when + n + 1 + other; *c && !found;) {
        size_t piece = strcspn(c, "|");
        found = strlen(value) == piece && strncmp(c, value, piece) == 0;
        c += piece + (c[piece] == '|');
    }
    return found != other;
}

void lb_rule_view(lb_config *view, const lb_layer_rule *rule) {
    view->quant.weights = rule->weights;
    view->quant.activations = rule->activations;
}

bool lb_key_is_read(const lb_key *key, const lb_config *config) {
    bool read = lb_key_is_read_base(key, config);
    if (!lb_key_is_tensors(key))
        return read;
    lb_config view = {0};
    for (int i = 0; i < config->quant.nlayers && !read; i++) {
        lb_rule_view(&view, &config->quant.layers[i]);
        read = lb_key_is_read_base(key, &view);
    }
    return read;
}

/* Keys that are not read get their defaults. */
static void normalise(lb_config *config, bool tensors_only) {
    /* All are judged before any is changed. */
    const lb_key *key;
    bool unread[LB_MAX_KEYS];
    for (size_t i = 0; (key = lb_recipe_key(i)); i++)
        unread[i] = key->type != LB_KEY_SECTION && (!tensors_only || lb_key_is_tensors(key)) && !lb_key_is_read_base(key, config);
    for (size_t i = 0; (key = lb_recipe_key(i)); i++)
        if (unread[i])
            lb_key_store_default(key, config);
}

/* ---- Layers of settings -------------------------------------------------------------------------------------------- */

/* Applies the entries of one kind: from the file or overrides, of one stage (-1: the base), of one rule (-1: none). */
static void apply(const lb_recipe_given *given, bool from_file, int stage, int rule, lb_config *config, const lb_key *except) {
    for (size_t i = 0; i < given->nentries; i++) {
        const lb_entry *e = &given->entries[i];
        if ((e->line > 0) == from_file && e->stage == stage && e->rule == rule && e->key != except)
            lb_key_store(e->key, &e->value, config);
    }
}

static void resolve_stage(const lb_recipe *recipe, int stage, lb_config *config) {
    const lb_recipe_given *given = recipe->given;
    const lb_key *key, *init = lb_key_find("train.init");
    memset(config, 0, sizeof *config);
    for (size_t i = 0; (key = lb_recipe_key(i)); i++)
        lb_key_store_default(key, config);
    strcpy(config->stage, given->nstages ? given->scopes[stage + 1].name : "main");

    const lb_key *except = stage > 0 ? init : NULL; /* only the first stage starts from the base's train.init */
    apply(given, true, -1, -1, config, except);
    apply(given, true, stage, -1, config, NULL);
    apply(given, false, -1, -1, config, except);
    apply(given, false, stage, -1, config, NULL);

    int from = given->scopes[stage + 1].has_layers ? stage : -1;
    const lb_scope *scope = &given->scopes[from + 1];
    lb_config view = {0};
    config->quant.nlayers = scope->nrules;
    for (int i = 0; i < scope->nrules; i++) {
        lb_layer_rule *rule = &config->quant.layers[i];
        view.quant.weights = config->quant.weights;
        view.quant.activations = config->quant.activations;
        apply(given, true, from, i, &view, NULL);
        normalise(&view, true);
        memcpy(rule->match, scope->rules[i].match, sizeof rule->match);
        rule->weights = view.quant.weights;
        rule->activations = view.quant.activations;
    }
    normalise(config, false);
}

/* Scales what is counted in epochs so that all stages together have train.total_epochs; stages counted in steps stay as they are. A
 * second time it changes nothing, so that a saved recipe, which has the scaled numbers, is read as it was. */
static void share_total_epochs(lb_recipe *recipe) {
    double sum = 0, total = (double)recipe->stages[0].train.total_epochs;
    for (int i = 0; i < recipe->nstages; i++)
        sum += recipe->stages[i].train.steps ? 0 : (double)recipe->stages[i].train.epochs;
    if (total <= 0 || sum <= 0 || fabs(sum - total) < 1e-5 * total)
        return;
    float factor = (float)(total / sum);
    for (int i = 0; i < recipe->nstages; i++) {
        lb_config *stage = &recipe->stages[i];
        if (stage->train.steps)
            continue;
        stage->train.epochs *= factor;
        const lb_key *key;
        for (size_t k = 0; (key = lb_recipe_key(k)); k++)
            if (key->change == LB_KEY_OF_TOTAL && lb_key_is_read_base(key, stage))
                lb_key_scale(key, stage, factor);
    }
}

void lb_recipe_resolve(lb_recipe *recipe) {
    for (int i = 0; i < recipe->nstages; i++)
        resolve_stage(recipe, i, &recipe->stages[i]);
    share_total_epochs(recipe);
}

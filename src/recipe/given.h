/* What a recipe's file and its overrides gave, before it is resolved. Inside src/recipe only. */
#ifndef LB_RECIPE_GIVEN_H
#define LB_RECIPE_GIVEN_H

#include "recipe/keys.h"

#define LB_RECIPE_LIMIT ((size_t)1 << 20) /* bytes of a recipe file */

/* One key with its value. */
typedef struct lb_entry {
    const lb_key *key;
    lb_key_value value; /* text owned by the recipe's pool */
    int stage; /* -1: the base (or, of an override, every stage) */
    int rule; /* of quant.layers, -1: none */
    int line; /* 0: an override */
    const char *source; /* override: its text as given */
    bool yields; /* override: a program's own default, which others may leave without effect */
} lb_entry;

typedef struct lb_given_rule {
    char match[sizeof((lb_layer_rule *)0)->match];
    int line;
} lb_given_rule;

/* What one scope, the base or a stage, says besides entries. */
typedef struct lb_scope {
    char name[64]; /* of a stage */
    int line;
    bool has_layers; /* an empty list counts */
    int nrules;
    lb_given_rule rules[LB_MAX_LAYER_RULES];
} lb_scope;

typedef struct lb_recipe_given {
    int nstages; /* in the file; 0: no stages key */
    lb_scope scopes[LB_MAX_STAGES + 1]; /* [0] is the base, [1 + i] stage i */
    lb_entry *entries; /* (nentries) made by lb_alloc */
    size_t nentries, capacity;
} lb_recipe_given;

/* Adds an entry; its text is in the recipe's pool or static. */
lb_status lb_given_add(lb_recipe *recipe, const lb_entry *entry);

/* Reads YAML into recipe->given. */
lb_status lb_recipe_read_yaml(lb_recipe *recipe, const char *text, size_t size);

/* Reads one YAML scalar or list of scalars (an override's value) for a key. The text is copied to the pool. On failure `why`
 * holds the reason, or is empty when it is memory. */
lb_status lb_recipe_read_value(lb_recipe *recipe, const lb_key *key, const char *text, lb_key_value *value, char why[LB_KEY_WHY]);

/* Fills recipe->stages, which is allocated, from recipe->given. */
void lb_recipe_resolve(lb_recipe *recipe);

/* Is the key read by this config's own settings, layer rules left aside? */
bool lb_key_is_read_base(const lb_key *key, const lb_config *config);

/* Makes `view`, zero but for this, hold a rule's two tensors: the keys of quant.weights and quant.activations then work on it. */
void lb_rule_view(lb_config *view, const lb_layer_rule *rule);

#endif

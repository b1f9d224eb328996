/* Whether a run that was started with one recipe may be continued with another. */
#include <stdio.h>

#include "core/locale.h"
#include "recipe/given.h"
#include "recipe/recipe.h"

#define REST "; only the budget and keys such as train.eval_every may change, start another run for the rest"

/* Two stages, or a layer rule of each. */
typedef struct pair {
    const lb_recipe *before;
    const char *where; /* " of stage low", "" with one stage */
    const char *match; /* of the rule; NULL: none */
    const lb_config *was, *is;
} pair;

static lb_status differ(const pair *p, const char *key, const char *was, const char *is) {
    return lb_fail(p->before->ctx, LB_ERR_RECIPE, "%s says %s%s%s%s%s: %.80s, but the recipe to resume with %.80s" REST,
                   p->before->path, key, p->match ? " of layers '" : "", p->match ? p->match : "", p->match ? "'" : "", p->where,
                   was, is);
}

/* Do the two say the same but for the budget that train.total_epochs scales it to? */
static bool same_share(const pair *p, const lb_key *key) {
    const lb_train_config *was = &p->was->train, *is = &p->is->train;
    return key->change == LB_KEY_OF_TOTAL && was->total_epochs > 0 && is->total_epochs > 0 && was->epochs > 0 && !was->steps &&
           !is->steps && lb_key_is_scaled(key, p->was, p->is, (double)is->epochs / (double)was->epochs);
}

static lb_status compare_keys(const pair *p) {
    const lb_key *key;
    for (size_t i = 0; (key = lb_recipe_key(i)); i++) {
        if (key->type == LB_KEY_SECTION || key->change == LB_KEY_MAY_CHANGE || (p->match && !lb_key_is_tensors(key)) ||
            lb_key_equal(key, p->was, p->is) || same_share(p, key))
            continue;
        char was[LB_KEY_FORMAT], is[LB_KEY_FORMAT];
        lb_key_format(key, p->was, was);
        lb_key_format(key, p->is, is);
        return differ(p, key->path, was, is);
    }
    return LB_OK;
}

static lb_status compare_layers(const pair *stages) {
    const lb_quant_config *was = &stages->was->quant, *is = &stages->is->quant;
    lb_config view_was = {0}, view_is = {0};
    pair rules = *stages;
    rules.was = &view_was;
    rules.is = &view_is;
    for (int i = 0; i < LB_MAX(was->nlayers, is->nlayers); i++) {
        const char *match_was = i < was->nlayers ? was->layers[i].match : "nothing";
        const char *match_is = i < is->nlayers ? is->layers[i].match : "nothing";
        if (i >= was->nlayers || i >= is->nlayers || strcmp(match_was, match_is))
            return differ(stages, "quant.layers", match_was, match_is);
        rules.match = match_was;
        lb_rule_view(&view_was, &was->layers[i]);
        lb_rule_view(&view_is, &is->layers[i]);
        LB_TRY(compare_keys(&rules));
    }
    return LB_OK;
}

static lb_status compare(const lb_recipe *before, const lb_recipe *after) {
    for (int i = 0; i < LB_MAX(before->nstages, after->nstages); i++) {
        const char *was = i < before->nstages ? before->stages[i].stage : "nothing";
        const char *is = i < after->nstages ? after->stages[i].stage : "nothing";
        const pair names = {.before = before, .where = ""};
        if (i >= before->nstages || i >= after->nstages || strcmp(was, is))
            return differ(&names, "stages", was, is);
    }
    for (int i = 0; i < before->nstages; i++) {
        const char *stage = before->stages[i].stage;
        char where[sizeof before->stages[i].stage + 16] = "";
        if (before->nstages > 1)
            snprintf(where, sizeof where, " of stage %s", stage);
        const pair stages = {.before = before, .where = where, .was = &before->stages[i], .is = &after->stages[i]};
        LB_TRY(compare_keys(&stages));
        LB_TRY(compare_layers(&stages));
    }
    return LB_OK;
}

lb_status lb_recipe_check_resume(const lb_recipe *before, const lb_recipe *after) {
    const lb_c_locale locale = lb_c_locale_begin();
    const lb_status status = compare(before, after);
    lb_c_locale_end(locale);
    return status;
}

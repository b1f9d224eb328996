/* What the other modules may want of a recipe besides lowbit.h and config.h. */
#ifndef LB_RECIPE_H
#define LB_RECIPE_H

#include "recipe/config.h"
#include "recipe/keys.h"

/* What keys say together: milestones in order, as many means as deviations, no key set that nothing reads, ... lb_recipe_load does
 * it; whoever runs a recipe filled by lb_recipe_set calls it first. LB_ERR_RECIPE, naming where the key was given. */
lb_status lb_recipe_check(const lb_recipe *recipe);

/* As lb_recipe_set, for a program's own default: it is no mistake if what is set later leaves it without effect. */
lb_status lb_recipe_propose(lb_recipe *recipe, const char *key, const char *value);

/* Applies overrides "a.b=value" as lb_recipe_load does: a key that nothing reads then is an error. */
lb_status lb_recipe_override(lb_recipe *recipe, const char *const *overrides, int noverrides);

/* As lb_recipe_load, from text. `path` is for messages. `size` bytes with a 0 behind them. */
lb_status lb_recipe_parse(lb_ctx *ctx, const char *path, const char *text, size_t size, const char *const *overrides,
                          int noverrides, lb_recipe **recipe);

/* May a run that was started with `before` be continued with `after`? Only keys that may change (keys.h) may differ, and with
 * train.total_epochs what it scales. LB_ERR_RECIPE, naming the first other one and both values. */
lb_status lb_recipe_check_resume(const lb_recipe *before, const lb_recipe *after);

/* The text lb_recipe_save writes, 0-terminated; free with lb_free. */
lb_status lb_recipe_format(const lb_recipe *recipe, char **text, size_t *size);

/* Is the key read by this stage's config (keys.h, `when`)? */
bool lb_key_is_read(const lb_key *key, const lb_config *config);

#endif

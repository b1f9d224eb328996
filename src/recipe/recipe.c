#include "recipe/recipe.h"

#include <stdio.h>

#include "core/locale.h"
#include "recipe/given.h"

lb_status lb_given_add(lb_recipe *recipe, const lb_entry *entry) {
    lb_recipe_given *given = recipe->given;
    LB_TRY(lb_grow(recipe->ctx, &given->entries, &given->capacity, given->nentries + 1, sizeof *given->entries));
    given->entries[given->nentries++] = *entry;
    return LB_OK;
}

/* ---- Overrides ----------------------------------------------------------------------------------------------------- */

/* Sets "key" or "stages.NAME.key". `source` is what messages begin with. */
static lb_status add_override(lb_recipe *recipe, const char *source, const char *path, const char *text, bool yields) {
    lb_ctx *ctx = recipe->ctx;
    lb_recipe_given *given = recipe->given;
    lb_entry entry = {.stage = -1, .rule = -1, .yields = yields};
    char why[LB_KEY_WHY], name[80];
    if (strncmp(path, "stages.", 7) == 0) {
        const char *rest = strchr(path + 7, '.');
        size_t n = rest ? (size_t)(rest - path - 7) : 0;
        for (int i = 0; i < given->nstages; i++)
            if (strlen(given->scopes[i + 1].name) == n && strncmp(given->scopes[i + 1].name, path + 7, n) == 0)
                entry.stage = i;
        if (entry.stage < 0)
            return lb_fail(ctx, LB_ERR_RECIPE, "%s: the recipe has no stage \"%s\"; write stages.NAME.KEY=VALUE", source,
                           lb_key_quote(path + 7, rest ? n : strlen(path + 7), name));
        path = rest + 1;
    }
    const lb_key *key = lb_key_find(path);
    if (strcmp(path, "stages") == 0 || strcmp(path, "quant.layers") == 0)
        return lb_fail(ctx, LB_ERR_RECIPE, "%s: %s is a list; it can be written in a recipe file only", source, path);
    if (!key) {
        char suggestion[LB_KEY_WHY];
        lb_key_suggest(path, suggestion);
        return lb_fail(ctx, LB_ERR_RECIPE, "%s: unknown key %s: %s", source, lb_key_quote(path, strlen(path), name), suggestion);
    }
    if (key->type == LB_KEY_SECTION)
        return lb_fail(ctx, LB_ERR_RECIPE, "%s: %s has no value of its own; set a key below it, such as %s (docs/recipes.md)",
                       source, path, lb_key_first(path));
    if (entry.stage >= 0 && lb_key_is_common(key))
        return lb_fail(ctx, LB_ERR_RECIPE, "%s: " LB_KEY_COMMON "; set %s itself", source, path);
    lb_status status = lb_recipe_read_value(recipe, key, text, &entry.value, why);
    if (status != LB_OK && why[0])
        return lb_fail(ctx, LB_ERR_RECIPE, "%s: %s %s", source, path, why);
    LB_TRY(status);
    entry.key = key;
    entry.source = lb_pool_strdup(&recipe->pool, source);
    if (!entry.source)
        return LB_ERR_MEMORY;
    /* The same key again replaces its earlier override. */
    for (size_t i = 0; i < given->nentries; i++) {
        lb_entry *e = &given->entries[i];
        if (e->line == 0 && e->key == key && e->stage == entry.stage) {
            *e = entry;
            return LB_OK;
        }
    }
    return lb_given_add(recipe, &entry);
}

/* "a.b=value" */
static lb_status add_override_text(lb_recipe *recipe, const char *text) {
    char source[160], quoted[80], path[160];
    snprintf(source, sizeof source, "--set %s", lb_key_quote(text, strlen(text), quoted));
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s: needs KEY=VALUE, e.g. train.epochs=5", source);
    if ((size_t)(equals - text) >= sizeof path)
        return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s: unknown key: too long", source);
    memcpy(path, text, (size_t)(equals - text));
    path[equals - text] = 0;
    return add_override(recipe, source, path, equals + 1, false);
}

/* ---- Checks of the whole ------------------------------------------------------------------------------------------- */

/* Where a key's value in this stage comes from: "recipe.yaml:7", "--set ...", or the recipe's path. */
static void locate(const lb_recipe *recipe, const char *path, int stage, char out[200]) {
    const lb_recipe_given *given = recipe->given;
    const lb_entry *best = NULL;
    for (size_t i = 0; i < given->nentries; i++) {
        const lb_entry *e = &given->entries[i];
        if (strcmp(e->key->path, path) != 0 || e->rule >= 0 || (e->stage >= 0 && e->stage != stage))
            continue;
        int rank = 2 * (e->line == 0) + (e->stage >= 0), best_rank = best ? 2 * (best->line == 0) + (best->stage >= 0) : -1;
        if (rank >= best_rank)
            best = e;
    }
    if (best && best->line)
        snprintf(out, 200, "%s:%d", recipe->path, best->line);
    else
        snprintf(out, 200, "%s", best ? best->source : recipe->path[0] ? recipe->path : "recipe");
}

/* "train.schedule.name=step|multistep" in words. */
static void describe_when(const char *when, char *out, size_t size) {
    if (strcmp(when, "quant") == 0) {
        snprintf(out, size, "quant.weights.method or quant.activations.method other than none");
        return;
    }
    size_t n = strcspn(when, "!="), used = 0;
    bool other = when[n] == '!';
    used += (size_t)snprintf(out, size, "%.*s %s", (int)n, when, other ? "other than " : "");
    for (const char *c = when + n + 1 + other; *c && used < size; c++)
        used += (size_t)snprintf(out + used, size - used, *c == '|' ? " or " : "%c", *c);
}

/* Does any stage that the entry was given for read its key? */
static bool is_read(const lb_recipe *recipe, const lb_entry *e) {
    if (!e->key->when)
        return true;
    for (int k = 0; k < recipe->nstages; k++) {
        const lb_config *stage = &recipe->stages[k];
        if (e->stage >= 0 && e->stage != k)
            continue;
        if (e->rule < 0) {
            if (lb_key_is_read(e->key, stage))
                return true;
        } else if (recipe->given->scopes[k + 1].has_layers == (e->stage >= 0)) { /* else this stage has other rules */
            lb_config view = {0};
            lb_rule_view(&view, &stage->quant.layers[e->rule]);
            if (lb_key_is_read_base(e->key, &view))
                return true;
        }
    }
    return false;
}

/* Given in the file, or by overrides, but without effect. */
typedef enum giver { BY_FILE, BY_OVERRIDES } giver;
static lb_status check_unread(const lb_recipe *recipe, giver by) {
    const lb_recipe_given *given = recipe->given;
    for (size_t i = 0; i < given->nentries; i++) {
        const lb_entry *e = &given->entries[i];
        if ((e->line > 0) != (by == BY_FILE) || e->yields || is_read(recipe, e))
            continue;
        char when[160], where[200];
        describe_when(e->key->when, when, sizeof when);
        if (e->line)
            snprintf(where, sizeof where, "%s:%d", recipe->path, e->line);
        else
            snprintf(where, sizeof where, "%s", e->source);
        return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s: %s has no effect here: it is read only with %s", where, e->key->path, when);
    }
    return LB_OK;
}

lb_status lb_recipe_check(const lb_recipe *recipe) {
    char where[200];
    for (int i = 0; i < recipe->nstages; i++) {
        const lb_config *c = &recipe->stages[i];
        const lb_schedule_config *s = &c->train.schedule;
        if (c->data.nmean != c->data.nstd) {
            locate(recipe, c->data.nmean ? "data.mean" : "data.std", i, where);
            return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s: data.mean has %d numbers and data.std %d; give both, one per channel",
                           where, c->data.nmean, c->data.nstd);
        }
        if (s->name == LB_SCHED_MULTISTEP) {
            bool ascending = s->nmilestones > 0;
            for (int k = 1; k < s->nmilestones; k++)
                ascending &= s->milestones[k] > s->milestones[k - 1];
            locate(recipe, s->nmilestones ? "train.schedule.milestones" : "train.schedule.name", i, where);
            if (!ascending)
                return lb_fail(recipe->ctx, LB_ERR_RECIPE,
                               "%s: a multistep schedule needs train.schedule.milestones, ascending, e.g. [15, 25]", where);
        }
        const lb_distill_config *d = &c->distill;
        if (d->from == LB_DISTILL_TEACHER && !d->teacher[0]) {
            locate(recipe, "distill.from", i, where);
            return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s: a teacher needs distill.teacher, the directory of a finished run",
                           where);
        }
        for (int k = 0; k < d->nstudents; k++)
            if (d->students[k] != (float)(int)d->students[k]) {
                locate(recipe, "distill.students", i, where);
                return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s: distill.students must be whole numbers of bits, not %g", where,
                               (double)d->students[k]);
            }
        if (s->name == LB_SCHED_EXPONENTIAL && !(s->lr_end > 0 && c->train.optimizer.lr > 0)) {
            locate(recipe, s->lr_end > 0 ? "train.optimizer.lr" : "train.schedule.lr_end", i, where);
            return lb_fail(
                recipe->ctx, LB_ERR_RECIPE,
                "%s: an exponential schedule needs train.optimizer.lr and train.schedule.lr_end above 0, e.g. lr_end: 1e-5", where);
        }
    }
    return check_unread(recipe, BY_OVERRIDES);
}

/* Keys of a sound file that the overrides left without effect: most often meant, so no mistake. */
static void note_unread(const lb_recipe *recipe) {
    const lb_recipe_given *given = recipe->given;
    char keys[400] = "";
    size_t n = 0;
    for (size_t i = 0; i < given->nentries && n < sizeof keys; i++) {
        const lb_entry *e = &given->entries[i];
        if (e->line > 0 && !is_read(recipe, e))
            n += (size_t)snprintf(keys + n, sizeof keys - n, "%s %s (line %d)", n ? "," : "", e->key->path, e->line);
    }
    if (n)
        lb_note(recipe->ctx, "%s: without effect under these --set:%s", recipe->path, keys);
}

/* ---- The object ---------------------------------------------------------------------------------------------------- */

static lb_status create(lb_ctx *ctx, const char *path, lb_recipe **recipe) {
    *recipe = NULL;
    lb_recipe *r = lb_alloc(ctx, 1, sizeof *r);
    if (!r)
        return LB_ERR_MEMORY;
    r->ctx = ctx;
    lb_pool_init(&r->pool, ctx);
    r->path = lb_pool_strdup(&r->pool, path);
    r->given = lb_pool_alloc(&r->pool, 1, sizeof *r->given);
    if (!r->path || !r->given) {
        lb_recipe_destroy(r);
        return LB_ERR_MEMORY;
    }
    *recipe = r;
    return LB_OK;
}

void lb_recipe_destroy(lb_recipe *recipe) {
    if (!recipe)
        return;
    if (recipe->given)
        lb_free(recipe->ctx, recipe->given->entries);
    lb_pool_free(&recipe->pool);
    lb_free(recipe->ctx, recipe);
}

/* Once the number of stages is known. */
static lb_status make_stages(lb_recipe *r) {
    r->nstages = LB_MAX(r->given->nstages, 1);
    r->stages = lb_pool_alloc(&r->pool, (size_t)r->nstages, sizeof *r->stages);
    if (!r->stages)
        return LB_ERR_MEMORY;
    lb_recipe_resolve(r);
    return LB_OK;
}

/* On top of a sound recipe. */
static lb_status override(lb_recipe *r, const char *const *overrides, int noverrides) {
    for (int i = 0; i < noverrides; i++)
        LB_TRY(add_override_text(r, overrides[i]));
    lb_recipe_resolve(r);
    return check_unread(r, BY_OVERRIDES);
}

static lb_status fill(lb_recipe *r, const char *text, size_t size, const char *const *overrides, int noverrides) {
    LB_TRY(lb_recipe_read_yaml(r, text, size));
    LB_TRY(make_stages(r));
    LB_TRY(check_unread(r, BY_FILE));
    LB_TRY(override(r, overrides, noverrides));
    note_unread(r);
    return lb_recipe_check(r);
}

lb_status lb_recipe_parse(lb_ctx *ctx, const char *path, const char *text, size_t size, const char *const *overrides,
                          int noverrides, lb_recipe **recipe) {
    LB_TRY(create(ctx, path, recipe));
    lb_c_locale locale = lb_c_locale_begin();
    lb_status status = fill(*recipe, text, size, overrides, noverrides);
    lb_c_locale_end(locale);
    if (status != LB_OK) {
        lb_recipe_destroy(*recipe);
        *recipe = NULL;
    }
    return status;
}

lb_status lb_recipe_load(lb_ctx *ctx, const char *path, const char *const *overrides, int noverrides, lb_recipe **recipe) {
    unsigned char *text;
    size_t size;
    *recipe = NULL;
    LB_TRY(lb_read_file(ctx, path, LB_RECIPE_LIMIT, &text, &size));
    lb_status status = lb_recipe_parse(ctx, path, (const char *)text, size, overrides, noverrides, recipe);
    lb_free(ctx, text);
    return status;
}

lb_status lb_recipe_create(lb_ctx *ctx, lb_recipe **recipe) {
    LB_TRY(create(ctx, "", recipe));
    lb_c_locale locale = lb_c_locale_begin();
    lb_status status = make_stages(*recipe);
    lb_c_locale_end(locale);
    if (status != LB_OK) {
        lb_recipe_destroy(*recipe);
        *recipe = NULL;
    }
    return status;
}

static lb_status set(lb_recipe *recipe, const char *key, const char *value, bool yields) {
    char source[200], quoted_key[80], quoted[80];
    snprintf(source, sizeof source, "setting %s=%s", lb_key_quote(key, strlen(key), quoted_key),
             lb_key_quote(value, strlen(value), quoted));
    lb_c_locale locale = lb_c_locale_begin();
    lb_status status = add_override(recipe, source, key, value, yields);
    if (status == LB_OK)
        lb_recipe_resolve(recipe);
    lb_c_locale_end(locale);
    return status;
}

lb_status lb_recipe_set(lb_recipe *recipe, const char *key, const char *value) {
    if (!key || !value)
        return lb_fail(recipe->ctx, LB_ERR_ARGUMENT, "lb_recipe_set: key and value must not be NULL");
    return set(recipe, key, value, false);
}

lb_status lb_recipe_propose(lb_recipe *recipe, const char *key, const char *value) { return set(recipe, key, value, true); }

lb_status lb_recipe_override(lb_recipe *recipe, const char *const *overrides, int noverrides) {
    lb_c_locale locale = lb_c_locale_begin();
    const lb_status status = override(recipe, overrides, noverrides);
    lb_c_locale_end(locale);
    return status;
}

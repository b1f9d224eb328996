/* The resolved recipe as YAML. */
#include <stdio.h>

#include "core/locale.h"
#include "recipe/given.h"
#include "recipe/recipe.h"

typedef struct writer {
    lb_ctx *ctx;
    lb_status status;
    char *text;
    size_t size, capacity;
    int indent; /* of the mapping that sections stand in */
    char section[64]; /* open now */
} writer;

static void LB_PRINTF(2, 3) emit(writer *w, const char *fmt, ...) {
    char line[LB_KEY_FORMAT + 128];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (w->status == LB_OK)
        w->status = lb_grow(w->ctx, &w->text, &w->capacity, w->size + (size_t)n + 1, 1);
    if (w->status != LB_OK)
        return;
    memcpy(w->text + w->size, line, (size_t)n + 1);
    w->size += (size_t)n;
}

static int depth_of(const char *path) {
    int depth = 0;
    for (; *path; path++)
        depth += *path == '.';
    return depth;
}

/* Writes the headings from what is open to the section. */
static void open_section(writer *w, const char *section) {
    size_t n = strlen(section);
    for (size_t end = 1; end <= n; end++) {
        if (section[end] != '.' && section[end] != 0)
            continue;
        bool open = strncmp(w->section, section, end) == 0 && (w->section[end] == '.' || w->section[end] == 0);
        char path[64];
        snprintf(path, sizeof path, "%.*s", (int)end, section);
        const char *dot = strrchr(path, '.');
        if (!open)
            emit(w, "%*s%s:\n", w->indent + 2 * depth_of(path), "", dot ? dot + 1 : path);
    }
    snprintf(w->section, sizeof w->section, "%s", section);
}

static void write_key(writer *w, const lb_key *key, const lb_config *config, const char *path) {
    char value[LB_KEY_FORMAT], section[64];
    const char *dot = strrchr(path, '.');
    snprintf(section, sizeof section, "%.*s", (int)(dot - path), path);
    open_section(w, section);
    lb_key_format(key, config, value);
    emit(w, "%*s%s: %s\n", w->indent + 2 * depth_of(path), "", dot + 1, value);
}

/* Every key that is read; with `base`, those that differ from it. */
static void write_keys(writer *w, const lb_config *config, const lb_config *base) {
    const lb_key *key;
    w->section[0] = 0;
    for (size_t i = 0; (key = lb_recipe_key(i)); i++) {
        if (key->type == LB_KEY_SECTION || !lb_key_is_read_base(key, config))
            continue;
        bool init = strcmp(key->path, "train.init") == 0; /* a later stage does not take it from the base */
        if (base && (init ? !config->train.init[0] : lb_key_equal(key, config, base)))
            continue;
        write_key(w, key, config, key->path);
    }
}

static void write_layers(writer *w, const lb_config *config) {
    const lb_key *key;
    int indent = w->indent;
    open_section(w, "quant");
    emit(w, "%*slayers:%s\n", indent + 2, "", config->quant.nlayers ? "" : " []");
    lb_config view = {0};
    static const lb_key match = {.path = "match", .type = LB_KEY_TEXT, .capacity = sizeof(((lb_layer_rule *)0)->match)};
    for (int i = 0; i < config->quant.nlayers; i++) {
        const lb_layer_rule *rule = &config->quant.layers[i];
        char value[LB_KEY_FORMAT];
        lb_key_format(&match, rule->match, value);
        emit(w, "%*s- match: %s\n", indent + 4, "", value);
        lb_rule_view(&view, rule);
        w->indent = indent + 6;
        w->section[0] = 0;
        for (size_t k = 0; (key = lb_recipe_key(k)); k++)
            if (key->type != LB_KEY_SECTION && lb_key_is_tensors(key) && lb_key_is_read_base(key, &view))
                write_key(w, key, &view, key->path + strlen("quant."));
    }
    w->indent = indent;
    w->section[0] = 0;
}

static bool same_layers(const lb_quant_config *a, const lb_quant_config *b) {
    return a->nlayers == b->nlayers && memcmp(a->layers, b->layers, sizeof a->layers) == 0;
}

lb_status lb_recipe_format(const lb_recipe *recipe, char **text, size_t *size) {
    writer w = {.ctx = recipe->ctx};
    const lb_config *base = &recipe->stages[0];
    lb_c_locale locale = lb_c_locale_begin();
    emit(&w, "# Written by lowbit %s: every key that this recipe reads, so that the run can be repeated.\n", LB_VERSION);
    write_keys(&w, base, NULL);
    if (base->quant.nlayers)
        write_layers(&w, base);
    if (recipe->given->nstages)
        emit(&w, "stages:\n");
    for (int i = 0; i < recipe->given->nstages; i++) {
        const lb_config *stage = &recipe->stages[i];
        w.indent = 0;
        emit(&w, "  - name: \"%s\"\n", stage->stage);
        w.indent = 4;
        if (i > 0)
            write_keys(&w, stage, base);
        if (i > 0 && !same_layers(&stage->quant, &base->quant))
            write_layers(&w, stage);
    }
    lb_c_locale_end(locale);
    if (w.status != LB_OK) {
        lb_free(recipe->ctx, w.text);
        w.text = NULL;
        w.size = 0;
    }
    *text = w.text;
    *size = w.size;
    return w.status;
}

lb_status lb_recipe_save(const lb_recipe *recipe, const char *path) {
    char *text;
    size_t size;
    LB_TRY(lb_recipe_format(recipe, &text, &size));
    lb_status status = lb_write_file(recipe->ctx, path, &(lb_span){text, size}, 1);
    lb_free(recipe->ctx, text);
    return status;
}

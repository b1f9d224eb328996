/* YAML to entries, through libyaml's events. Nesting needs no limit of its own: every level must be a known key. Anchors, aliases
 * and tags are refused, so a small file cannot stand for a large one. */
#include <stdio.h>
#include <yaml.h>

#include "recipe/given.h"

#define MAX_KEYS 64 /* of one mapping; more than any section has */
#define MAX_PATH 160

typedef struct reader {
    lb_recipe *recipe;
    lb_ctx *ctx;
    const char *text;
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    int stage, rule; /* where we are; -1: not in one */
} reader;

static int line_of(const reader *r) { return (int)LB_MIN(r->event.start_mark.line + 1, (size_t)1 << 24); }

/* A failure at the current event: "recipe.yaml:7: ..." */
static lb_status LB_PRINTF(2, 3) fail_here(reader *r, const char *fmt, ...) {
    char text[800];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return lb_fail(r->ctx, LB_ERR_RECIPE, "%s:%d: %s", r->recipe->path, line_of(r), text);
}

static lb_status fail_parser(reader *r) {
    yaml_parser_t *p = &r->parser;
    const char *problem = p->problem ? p->problem : "not YAML";
    if (p->error == YAML_MEMORY_ERROR)
        return lb_fail(r->ctx, LB_ERR_MEMORY, "%s: out of memory while reading", r->recipe->path);
    if (p->error == YAML_READER_ERROR) {
        int line = 1;
        for (size_t i = 0; i < p->problem_offset && r->text[i]; i++)
            line += r->text[i] == '\n';
        return lb_fail(r->ctx, LB_ERR_RECIPE, "%s:%d: %s; save the file as UTF-8", r->recipe->path, line, problem);
    }
    bool tab = strstr(problem, "cannot start any token") != NULL;
    return lb_fail(r->ctx, LB_ERR_RECIPE, "%s:%d: not valid YAML: %s%s%s%s", r->recipe->path, (int)p->problem_mark.line + 1,
                   p->context ? p->context : "", p->context ? ": " : "", problem, tab ? " (indent with spaces, not tabs)" : "");
}

/* The next event into r->event. */
static lb_status next(reader *r) {
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = false;
    if (!yaml_parser_parse(&r->parser, &r->event))
        return fail_parser(r);
    r->has_event = true;
    const yaml_event_t *e = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        anchor = e->data.alias.anchor;
        break;
    case YAML_SCALAR_EVENT:
        anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor)
        return fail_here(r, "anchors and aliases (& and *) are not used in recipes; a text that begins with * needs quotes");
    if (tag)
        return fail_here(r, "tags (!) are not used in recipes; a text that begins with ! needs quotes");
    return LB_OK;
}

static lb_key_scalar scalar_of(const reader *r) {
    return (lb_key_scalar){(const char *)r->event.data.scalar.value, r->event.data.scalar.length,
                           r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE};
}

/* Nothing after the colon, or null. */
static bool is_null(const reader *r) {
    if (r->event.type != YAML_SCALAR_EVENT)
        return false;
    lb_key_scalar s = scalar_of(r);
    return s.plain && (s.length == 0 || strcmp(s.text, "~") == 0 || strcmp(s.text, "null") == 0);
}

/* What the current event is, for messages. */
static const char *shown(const reader *r, char out[80]) {
    if (r->event.type == YAML_MAPPING_START_EVENT)
        return "a mapping";
    if (r->event.type == YAML_SEQUENCE_START_EVENT)
        return "a list";
    if (r->event.type != YAML_SCALAR_EVENT)
        return "the end";
    lb_key_scalar s = scalar_of(r);
    return is_null(r) ? "nothing" : lb_key_quote(s.text, s.length, out);
}

/* The path as the user wrote it: inside a rule or stage, where it is. */
static const char *label(const reader *r, const char *path, char out[MAX_PATH + 96]) {
    char stage[96] = "";
    if (r->stage >= 0)
        snprintf(stage, sizeof stage, "stage %d: ", r->stage + 1);
    bool rule = r->rule >= 0 && strncmp(path, "quant.", 6) == 0;
    if (rule)
        snprintf(out, MAX_PATH + 96, "%squant.layers[%d].%s", stage, r->rule, path + 6);
    else
        snprintf(out, MAX_PATH + 96, "%s%s", stage, path);
    return out;
}

/* The value at the current event; leaves the value's last event current. On failure with an empty `why` the message is recorded. */
static lb_status read_value(reader *r, const lb_key *key, lb_key_value *value, char why[LB_KEY_WHY]) {
    why[0] = 0;
    if (r->event.type == YAML_MAPPING_START_EVENT || r->event.type == YAML_DOCUMENT_END_EVENT) {
        snprintf(why, LB_KEY_WHY, "must be a value, not %s", r->event.type == YAML_MAPPING_START_EVENT ? "a mapping" : "nothing");
        return LB_ERR_RECIPE;
    }
    if (r->event.type == YAML_SCALAR_EVENT) {
        if (is_null(r)) {
            snprintf(why, LB_KEY_WHY, key->type == LB_KEY_TEXT ? "has no value; for an empty text write \"\"" : "has no value");
            return LB_ERR_RECIPE;
        }
        lb_key_scalar s = scalar_of(r);
        if (!lb_key_parse(key, &s, 1, false, value, why))
            return LB_ERR_RECIPE;
        if (value->text && key->type == LB_KEY_TEXT)
            value->text = lb_pool_strdup(&r->recipe->pool, value->text);
        return value->text || key->type != LB_KEY_TEXT ? LB_OK : LB_ERR_MEMORY;
    }
    /* A list: only numbers, which are short. */
    char texts[LB_KEY_VALUES + 1][48];
    lb_key_scalar scalars[LB_KEY_VALUES + 1];
    int n = 0;
    for (;;) {
        LB_TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        if (r->event.type != YAML_SCALAR_EVENT) {
            snprintf(why, LB_KEY_WHY,
                     lb_key_is_list(key) ? "must be a list of numbers, not of lists or mappings" : "must be one value, not a list");
            return LB_ERR_RECIPE;
        }
        if (n > LB_KEY_VALUES)
            continue; /* counted as too many */
        lb_key_scalar s = scalar_of(r);
        snprintf(texts[n], sizeof texts[n], "%.*s", (int)LB_MIN(s.length, sizeof texts[n] - 1), s.text);
        scalars[n] = (lb_key_scalar){texts[n], strlen(texts[n]), s.plain && s.length < sizeof texts[n]};
        n++;
    }
    return lb_key_parse(key, scalars, n, true, value, why) ? LB_OK : LB_ERR_RECIPE;
}

static lb_status read_mapping(reader *r, const char *prefix);

/* The current event must open a list. */
static lb_status want_list(reader *r, const char *path, const char *of) {
    char value[80], where[MAX_PATH + 96];
    if (r->event.type == YAML_SEQUENCE_START_EVENT)
        return LB_OK;
    return fail_here(r, "%s must be a list of %s, not %s", label(r, path, where), of, shown(r, value));
}

static lb_status read_layers(reader *r) {
    lb_scope *scope = &r->recipe->given->scopes[r->stage + 1];
    LB_TRY(want_list(r, "quant.layers", "{match: ..., weights: {...}, activations: {...}}"));
    if (scope->has_layers)
        return fail_here(r, "quant.layers is given twice");
    scope->has_layers = true;
    for (;;) {
        LB_TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT)
            return LB_OK;
        char value[80];
        if (r->event.type != YAML_MAPPING_START_EVENT)
            return fail_here(r, "quant.layers[%d] must be a mapping {match: ..., weights: {...}}, not %s", scope->nrules,
                             shown(r, value));
        if (scope->nrules == LB_MAX_LAYER_RULES)
            return fail_here(r, "quant.layers has more than %d rules; patterns with * need fewer", LB_MAX_LAYER_RULES);
        int index = scope->nrules++;
        scope->rules[index].line = line_of(r);
        r->rule = index;
        LB_TRY(read_mapping(r, "quant"));
        r->rule = -1;
        if (!scope->rules[index].match[0])
            return lb_fail(r->ctx, LB_ERR_RECIPE, "%s:%d: quant.layers[%d] needs match, a pattern of layer names such as layer1.*",
                           r->recipe->path, scope->rules[index].line, index);
    }
}

static lb_status read_stages(reader *r) {
    lb_recipe_given *given = r->recipe->given;
    LB_TRY(want_list(r, "stages", "{name: ..., any keys}"));
    int list_line = line_of(r);
    for (;;) {
        LB_TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        char value[80];
        if (r->event.type != YAML_MAPPING_START_EVENT)
            return fail_here(r, "stage %d must be a mapping {name: ..., any keys}, not %s", given->nstages + 1, shown(r, value));
        if (given->nstages == LB_MAX_STAGES)
            return fail_here(r, "more than %d stages", LB_MAX_STAGES);
        int index = given->nstages++;
        lb_scope *scope = &given->scopes[index + 1];
        scope->line = line_of(r);
        r->stage = index;
        LB_TRY(read_mapping(r, ""));
        r->stage = -1;
        if (!scope->name[0])
            return lb_fail(r->ctx, LB_ERR_RECIPE, "%s:%d: stage %d needs a name", r->recipe->path, scope->line, index + 1);
        for (int i = 0; i < index; i++)
            if (strcmp(given->scopes[i + 1].name, scope->name) == 0)
                return lb_fail(r->ctx, LB_ERR_RECIPE, "%s:%d: two stages are named %s", r->recipe->path, scope->line, scope->name);
    }
    if (given->nstages == 0)
        return lb_fail(r->ctx, LB_ERR_RECIPE, "%s:%d: stages is empty; leave it out to train in one stage", r->recipe->path,
                       list_line);
    return LB_OK;
}

/* A stage's name or a rule's pattern. */
static lb_status read_word(reader *r, const char *what, const char *allowed, char *dst, size_t size) {
    char value[80];
    if (r->event.type != YAML_SCALAR_EVENT || is_null(r))
        return fail_here(r, "%s must be a text, not %s", what, shown(r, value));
    lb_key_scalar s = scalar_of(r);
    if (s.length == 0 || s.length >= size || strspn(s.text, allowed) != s.length)
        return fail_here(r, "%s must be 1 to %zu of the characters a-z A-Z 0-9 %s, not \"%s\"", what, size - 1, allowed + 62,
                         shown(r, value));
    memcpy(dst, s.text, s.length + 1);
    return LB_OK;
}
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* The value of one key, the current event being the value's first. */
static lb_status read_key(reader *r, const char *path) {
    lb_recipe_given *given = r->recipe->given;
    lb_scope *scope = &given->scopes[r->stage + 1];
    char where[MAX_PATH + 96], value[80], why[LB_KEY_WHY];
    if (r->rule >= 0 && strcmp(path, "quant.match") == 0)
        return read_word(r, "match", LETTERS "_-./:*?", scope->rules[r->rule].match, sizeof scope->rules[r->rule].match);
    if (r->stage >= 0 && r->rule < 0 && strcmp(path, "name") == 0)
        return read_word(r, "a stage's name", LETTERS "_-", scope->name, sizeof scope->name);
    if (r->rule < 0 && strcmp(path, "quant.layers") == 0)
        return read_layers(r);
    if (strcmp(path, "stages") == 0 && r->stage < 0)
        return read_stages(r);

    const lb_key *key = lb_key_find(path);
    bool in_rule = key && (strncmp(path, "quant.weights", 13) == 0 || strncmp(path, "quant.activations", 17) == 0);
    if (r->rule >= 0 && !in_rule)
        return fail_here(r, "unknown key %s; a layer rule has match, weights, activations", label(r, path, where));
    if (!key) {
        lb_key_suggest(path, why);
        return fail_here(r, "unknown key %s: %s", label(r, path, where), why);
    }
    if (r->stage >= 0 && lb_key_is_common(key))
        return fail_here(r, "%s: " LB_KEY_COMMON "; set it at the top level", label(r, path, where));
    if (key->type == LB_KEY_SECTION) {
        if (is_null(r))
            return LB_OK;
        if (r->event.type != YAML_MAPPING_START_EVENT)
            return fail_here(r, "%s must be a mapping of keys such as %s, not %s", label(r, path, where), lb_key_first(path),
                             shown(r, value));
        return read_mapping(r, path);
    }
    lb_entry entry = {.key = key, .stage = r->stage, .rule = r->rule, .line = line_of(r)};
    for (size_t i = 0; i < given->nentries; i++) {
        const lb_entry *e = &given->entries[i];
        if (e->key == key && e->stage == r->stage && e->rule == r->rule)
            return fail_here(r, "%s is given twice, first in line %d", label(r, path, where), e->line);
    }
    lb_status status = read_value(r, key, &entry.value, why);
    if (status != LB_OK && why[0])
        return lb_fail(r->ctx, status, "%s:%d: %s %s", r->recipe->path, entry.line, label(r, path, where), why);
    LB_TRY(status);
    return lb_given_add(r->recipe, &entry);
}

/* From the event that opens a mapping to the one that closes it. `prefix`: path of its section, "" at the top. */
static lb_status read_mapping(reader *r, const char *prefix) {
    char seen[MAX_KEYS][32];
    int nseen = 0;
    for (;;) {
        LB_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            return LB_OK;
        char value[80], path[MAX_PATH], where[MAX_PATH + 96];
        if (r->event.type != YAML_SCALAR_EVENT)
            return fail_here(r, "a key must be a word, not %s", shown(r, value));
        lb_key_scalar s = scalar_of(r);
        lb_key_quote(s.text, s.length, value);
        snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] ? "." : "", value);
        for (int i = 0; i < nseen; i++)
            if (strcmp(seen[i], value) == 0)
                return fail_here(r, "%s is given twice", label(r, path, where));
        if (nseen < MAX_KEYS && strlen(value) < sizeof seen[0])
            memcpy(seen[nseen++], value, strlen(value) + 1);
        /* An unknown key is reported where it stands, before its value is looked at. */
        bool known = lb_key_find(path) || strcmp(path, "stages") == 0 || strcmp(path, "quant.layers") == 0 ||
                     (r->rule >= 0 && strcmp(path, "quant.match") == 0) || (r->stage >= 0 && strcmp(path, "name") == 0);
        if (known)
            LB_TRY(next(r));
        if (strcmp(path, "stages") == 0 && r->stage >= 0)
            return fail_here(r, "a stage cannot have stages");
        LB_TRY(read_key(r, path));
    }
}

/* Zero bytes would end strings early. */
static lb_status check_text(lb_recipe *recipe, const char *text, size_t size) {
    if (size > LB_RECIPE_LIMIT)
        return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s: %zu bytes is more than the %zu a recipe may have", recipe->path, size,
                       LB_RECIPE_LIMIT);
    const char *zero = memchr(text, 0, size);
    if (!zero)
        return LB_OK;
    int line = 1;
    for (const char *c = text; c < zero; c++)
        line += *c == '\n';
    return lb_fail(recipe->ctx, LB_ERR_RECIPE, "%s:%d: a zero byte; a recipe is UTF-8 text", recipe->path, line);
}

/* Opens the document: the first event of its content is current after it. */
static lb_status open_document(reader *r, const char *text, size_t size) {
    if (!yaml_parser_initialize(&r->parser)) {
        memset(&r->parser, 0, sizeof r->parser);
        return lb_fail(r->ctx, LB_ERR_MEMORY, "%s: out of memory while reading", r->recipe->path);
    }
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, size);
    LB_TRY(next(r)); /* stream start */
    LB_TRY(next(r));
    if (r->event.type == YAML_DOCUMENT_START_EVENT)
        LB_TRY(next(r));
    return LB_OK;
}

static lb_status read_document(reader *r, const char *text, size_t size) {
    LB_TRY(open_document(r, text, size));
    char value[80];
    if (r->event.type == YAML_STREAM_END_EVENT || is_null(r))
        return lb_fail(r->ctx, LB_ERR_RECIPE,
                       "%s: the recipe is empty; name what is not to have its default, such as model and data (docs/recipes.md)",
                       r->recipe->path);
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return fail_here(r, "a recipe must be a mapping of keys such as model:, data:, train:, not %s", shown(r, value));
    LB_TRY(read_mapping(r, ""));
    LB_TRY(next(r)); /* document end */
    LB_TRY(next(r));
    if (r->event.type != YAML_STREAM_END_EVENT)
        return fail_here(r, "a second document begins; a recipe is one document");
    return LB_OK;
}

static void close_reader(reader *r) {
    if (r->has_event)
        yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
}

lb_status lb_recipe_read_yaml(lb_recipe *recipe, const char *text, size_t size) {
    LB_TRY(check_text(recipe, text, size));
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        text += 3, size -= 3;
    reader r = {.recipe = recipe, .ctx = recipe->ctx, .text = text, .stage = -1, .rule = -1};
    lb_status status = read_document(&r, text, size);
    close_reader(&r);
    return status;
}

lb_status lb_recipe_read_value(lb_recipe *recipe, const lb_key *key, const char *text, lb_key_value *value, char why[LB_KEY_WHY]) {
    why[0] = 0;
    /* A text is taken as it stands unless it is quoted: paths need no care. */
    if (key->type == LB_KEY_TEXT && text[0] != '"' && text[0] != '\'') {
        lb_key_scalar s = {text, strlen(text), true};
        if (!lb_key_parse(key, &s, 1, false, value, why))
            return LB_ERR_RECIPE;
        value->text = lb_pool_strdup(&recipe->pool, text);
        return value->text ? LB_OK : LB_ERR_MEMORY;
    }
    reader r = {.recipe = recipe, .ctx = recipe->ctx, .text = text, .stage = -1, .rule = -1};
    lb_status status = open_document(&r, text, strlen(text));
    if (status == LB_OK && r.event.type == YAML_STREAM_END_EVENT) {
        snprintf(why, LB_KEY_WHY, "has no value");
        status = LB_ERR_RECIPE;
    }
    if (status == LB_OK)
        status = read_value(&r, key, value, why);
    if (status == LB_OK && (status = next(&r)) == LB_OK && (status = next(&r)) == LB_OK && r.event.type != YAML_STREAM_END_EVENT)
        status = LB_ERR_RECIPE;
    close_reader(&r);
    if (status != LB_OK && status != LB_ERR_MEMORY && !why[0])
        snprintf(why, LB_KEY_WHY, "has a value that is not valid YAML");
    return status;
}

/* docs/recipes.md: its table of keys is the table of keys.c, and its example recipes load. After changing keys.c:
 *     LB_UPDATE_DOCS=1 build/tests/test_recipe_docs        writes the table anew */
#include "support.h"

#include "recipe/recipe.h"

#define PATH LB_SOURCE_DIR "/docs/recipes.md"
#define BEGIN "<!-- keys: written by tests/recipe/test_docs.c -->\n"
#define END "<!-- end of keys -->\n"

/* Text with | escaped for a table cell. */
static void cell(FILE *f, const char *text) {
    for (; *text; text++)
        fprintf(f, *text == '|' ? "\\|" : "%c", *text);
}

static void write_type(FILE *f, const lb_key *key) {
    switch (key->type) {
    case LB_KEY_SECTION:
        break;
    case LB_KEY_INT:
    case LB_KEY_INT64:
        if (key->max >= 2147483647.0)
            fprintf(f, "whole number from %.0f", key->min);
        else
            fprintf(f, "whole number %.0f to %.0f", key->min, key->max);
        break;
    case LB_KEY_UINT64:
        fprintf(f, "whole number from 0");
        break;
    case LB_KEY_FLOAT:
        fprintf(f, "number %.10g to %.10g", key->min, key->max);
        break;
    case LB_KEY_BOOL:
        fprintf(f, "true, false");
        break;
    case LB_KEY_TEXT:
        fprintf(f, "text");
        break;
    case LB_KEY_NAME:
    case LB_KEY_ENUM:
        for (int i = 0, n = 0; key->choices[i]; i++)
            if (lb_key_offers(key, key->choices[i]))
                fprintf(f, "%s%s", n++ ? ", " : "", key->choices[i]);
        break;
    case LB_KEY_EDGE:
        fprintf(f, "float, same, %g to %g", key->min, key->max);
        break;
    case LB_KEY_LIST:
        fprintf(f, "list of up to %zu numbers %.10g to %.10g", key->capacity, key->min, key->max);
        break;
    case LB_KEY_PAIR:
        fprintf(f, "[smallest, largest], %g to %g", key->min, key->max);
        break;
    }
}

/* "A.b=x|y" -> "Read if b is x or y." with the key's last word */
static void write_when(FILE *f, const char *when) {
    if (!when)
        return;
    if (strcmp(when, "quant") == 0) {
        fprintf(f, " Read if anything is quantized.");
        return;
    }
    size_t n = strcspn(when, "!=");
    bool other = when[n] == '!';
    const char *word = when + n;
    while (word > when && word[-1] != '.')
        word--;
    fprintf(f, " Read if `%.*s` is %s", (int)(when + n - word), word, other ? "not " : "");
    for (const char *c = when + n + 1 + other; *c; c++)
        fprintf(f, *c == '|' ? " or " : "%c", *c);
    fprintf(f, ".");
}

static char *make_table(void) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    const lb_key *key;
    fprintf(f, BEGIN);
    for (size_t i = 0; (key = lb_recipe_key(i)); i++) {
        if (key->type == LB_KEY_SECTION) {
            const lb_key *next = lb_recipe_key(i + 1);
            fprintf(f, "\n### `%s`\n\n%s\n", key->path, key->help);
            if (next && next->type != LB_KEY_SECTION)
                fprintf(f, "\n| key | values | default | meaning |\n|---|---|---|---|\n");
            continue;
        }
        fprintf(f, "| `%s` | ", strrchr(key->path, '.') + 1);
        write_type(f, key);
        fprintf(f, " | `%s` | ", key->fallback);
        cell(f, key->help);
        fprintf(f, ".");
        write_when(f, key->when);
        if (key->change == LB_KEY_MAY_CHANGE)
            fprintf(f, " May change with `--resume`.");
        fprintf(f, " |\n");
    }
    fprintf(f, "\n" END);
    fclose(f);
    return text;
}

static char *read_text(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    text[n] = 0;
    return text;
}

static void test_table(void **state) {
    (void)state;
    char *text = read_text(PATH), *table = make_table();
    char *begin = strstr(text, BEGIN), *end = strstr(text, END);
    if (!begin || !end)
        fail_msg("%s has lost its marks", PATH);
    end += strlen(END);
    bool same = strlen(table) == (size_t)(end - begin) && strncmp(table, begin, strlen(table)) == 0;
    if (!same && getenv("LB_UPDATE_DOCS")) {
        FILE *f = fopen(PATH, "wb");
        assert_non_null(f);
        fprintf(f, "%.*s%s%s", (int)(begin - text), text, table, end);
        assert_int_equal(fclose(f), 0);
    } else if (!same) {
        fail_msg("docs/recipes.md is not in step with src/recipe/keys.c: run LB_UPDATE_DOCS=1 build/tests/test_recipe_docs");
    }
    free(text);
    free(table);
}

/* Every ```yaml block is a recipe. */
static void test_examples(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    char *text = read_text(PATH);
    int n = 0;
    for (char *c = text; (c = strstr(c, "```yaml\n")); n++) {
        c += strlen("```yaml\n");
        char *end = strstr(c, "```");
        assert_non_null(end);
        lb_recipe *recipe;
        char zero = *end;
        *end = 0;
        if (lb_recipe_parse(ctx, "docs/recipes.md", c, (size_t)(end - c), NULL, 0, &recipe) != LB_OK)
            fail_msg("example %d: %s", n + 1, lb_error(ctx));
        lb_recipe_destroy(recipe);
        *end = zero;
        c = end;
    }
    assert_true(n >= 3);
    free(text);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_examples)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

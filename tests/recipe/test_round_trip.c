/* Recipes written and read back: the resolved copy, floats, other locales, out of memory, mutated input, those of the tree. */
#include <glob.h>
#include <unistd.h>

#include "comma_locale.h"
#include "recipes.h"

/* Writes, reads back, and wants the same bits in every stage. */
static void check_round_trip(lb_ctx *ctx, const lb_recipe *r) {
    char *text, *again_text;
    size_t size, again_size;
    lb_recipe *again;
    assert_ok(ctx, lb_recipe_format(r, &text, &size));
    if (lb_recipe_parse(ctx, "saved.yaml", text, size, NULL, 0, &again) != LB_OK)
        fail_msg("%s\n%s", lb_error(ctx), text);
    assert_int_equal(r->nstages, again->nstages);
    for (int i = 0; i < r->nstages; i++)
        if (memcmp(&r->stages[i], &again->stages[i], sizeof r->stages[i]) != 0)
            fail_msg("stage %d differs:\n%s", i, text);
    assert_ok(ctx, lb_recipe_format(again, &again_text, &again_size));
    assert_int_equal(size, again_size);
    assert_memory_equal(text, again_text, size);
    lb_free(ctx, text);
    lb_free(ctx, again_text);
    lb_recipe_destroy(again);
}

/* A value for a key, drawn from its whole range. */
static void random_value(const lb_key *key, uint64_t seed, char *out, size_t size) {
    uint32_t bits[4];
    lb_rng4(seed, LB_RNG_TEST, key->offset, 1, bits);
    double u = bits[0] / 4294967296.0, x = key->min + (key->max - key->min) * (bits[1] % 3 ? u * 1e-3 : u);
    size_t choices = 0;
    while (key->choices && key->choices[choices])
        choices++;
    switch (key->type) {
    case LB_KEY_SECTION:
        break;
    case LB_KEY_INT:
    case LB_KEY_INT64:
        snprintf(out, size, "%.0f", x < key->min ? key->min : x);
        break;
    case LB_KEY_UINT64:
        snprintf(out, size, "%llu", (unsigned long long)bits[0] << 32 | bits[1]);
        break;
    case LB_KEY_FLOAT:
        snprintf(out, size, "%.17g", x);
        break;
    case LB_KEY_BOOL:
        snprintf(out, size, bits[0] % 2 ? "true" : "false");
        break;
    case LB_KEY_NAME:
    case LB_KEY_ENUM:
        snprintf(out, size, "%s", key->choices[bits[0] % choices]);
        break;
    case LB_KEY_EDGE: {
        static const char *const values[] = {"float", "same", "1", "8"};
        snprintf(out, size, "%s", values[bits[0] % 4]);
        break;
    }
    case LB_KEY_TEXT: {
        static const char *const values[] = {"",
                                             "plain",
                                             "true",
                                             "No",
                                             "~",
                                             "null",
                                             "12",
                                             "1e-3",
                                             "a: b # c",
                                             "'",
                                             "\xc3\xa9",
                                             "\xf0\x9f\x98\x80",
                                             "\\",
                                             "- a",
                                             "*x",
                                             "&x",
                                             "!x",
                                             "a\"b",
                                             " lead",
                                             "trail ",
                                             "[a]",
                                             "{a: b}",
                                             "%x",
                                             "@x",
                                             "`",
                                             "| x",
                                             "> x",
                                             "\xc2\x85",
                                             "\xe2\x80\xa8",
                                             "/abs/p-a_th.x"};
        const char *value = values[bits[0] % LB_COUNT(values)];
        snprintf(out, size, "%s", value);
        if (value[0] == '\'')
            snprintf(out, size, "\"'\"");
        break;
    }
    case LB_KEY_LIST:
    case LB_KEY_PAIR: {
        double lo = key->min + (key->max - key->min) * u / 2, hi = lo + (key->max - lo) * u / 3;
        snprintf(out, size, "[%.17g, %.17g]", lo, hi + 1e-4);
        break;
    }
    }
}

static void test_round_trip(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *r;
    assert_ok(ctx, parse(ctx, full, &r));
    check_round_trip(ctx, r);

    char path[] = "/tmp/lb-recipe-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    lb_recipe *loaded;
    assert_ok(ctx, lb_recipe_save(r, path));
    assert_ok(ctx, lb_recipe_load(ctx, path, (const char *[]){"train.seed=5"}, 1, &loaded));
    assert_int_equal(loaded->stages[0].train.seed, 5);
    assert_string_equal(loaded->path, path);
    lb_recipe_destroy(loaded);
    unlink(path);
    assert_int_equal(lb_recipe_save(r, "/nowhere/r.yaml"), LB_ERR_IO);
    lb_recipe_destroy(r);

    char longest[LB_CONFIG_TEXT]; /* a text that grows most when it is written */
    for (int i = 0; i < LB_CONFIG_TEXT - 1; i++)
        longest[i] = i == 0 ? 'x' : i % 2 ? '\xd0' : '\xb6';
    longest[LB_CONFIG_TEXT - 1] = 0;
    assert_ok(ctx, lb_recipe_create(ctx, &r));
    assert_ok(ctx, lb_recipe_set(r, "data.path", longest));
    check_round_trip(ctx, r);
    lb_recipe_destroy(r);

    for (uint64_t seed = 0; seed < 300; seed++) {
        assert_ok(ctx, seed % 2 ? lb_recipe_create(ctx, &r) : parse(ctx, full, &r));
        const lb_key *key;
        for (size_t i = 0; (key = lb_recipe_key(i)); i++) {
            char value[256], name[128];
            if (key->type == LB_KEY_SECTION)
                continue;
            random_value(key, seed, value, sizeof value);
            bool whole = lb_key_is_below(key, "model") || lb_key_is_below(key, "data") || seed % 2 || i % 3;
            snprintf(name, sizeof name, "%s%s", whole ? "" : i % 2 ? "stages.both." : "stages.plain.", key->path);
            if (lb_recipe_propose(r, name, value) != LB_OK) /* many are without effect */
                fail_msg("%s", lb_error(ctx));
        }
        if (lb_recipe_check(r) == LB_OK)
            check_round_trip(ctx, r);
        else /* what the draw can get wrong: exponential to 0, half a bit, no teacher */
            assert_true(strstr(lb_error(ctx), "exponential") || strstr(lb_error(ctx), "distill.students must be whole") ||
                        strstr(lb_error(ctx), "needs distill.teacher"));
        lb_recipe_destroy(r);
    }
    lb_ctx_destroy(ctx);
}

/* Floats come back with the same bits: every power of two's neighbourhood that fits the key, and others. */
static void test_floats(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const lb_key *key = lb_key_find("train.optimizer.lr");
    for (int i = 0; i < 200000; i++) {
        uint32_t bits[4];
        lb_rng4(7, LB_RNG_TEST, 3, (uint64_t)i, bits);
        float x, y;
        uint32_t raw = bits[0] % 0x44000000u; /* 0 .. 512, subnormals too */
        memcpy(&x, &raw, sizeof x);
        lb_config config = {0};
        config.train.optimizer.lr = x;
        char out[LB_KEY_FORMAT], why[LB_KEY_WHY], buffer[LB_CONFIG_TEXT];
        lb_key_value value;
        lb_key_format(key, &config, out);
        assert_true(lb_key_parse_text(key, out, buffer, &value, why));
        y = value.list[0];
        if (memcmp(&x, &y, sizeof x) != 0)
            fail_msg("%a -> %s -> %a", (double)x, out, (double)y);
    }
    lb_ctx_destroy(ctx);
}

/* A comma as decimal point must change nothing. */
static void test_locale(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    if (set_comma_locale()) {
        lb_recipe *r;
        assert_ok(ctx, parse(ctx, full, &r));
        assert_true(r->stages[0].train.epochs == 12.5f);
        check_round_trip(ctx, r);
        lb_recipe_destroy(r);
        setlocale(LC_ALL, "C");
    }
    lb_ctx_destroy(ctx);
}

/* The n-th allocation fails, for every n until none does: an error, no leak, no crash. */
static lb_status parse_with(lb_ctx *ctx, test_allocator *a, long left) {
    const char *set[] = {"data.path=x", "train.init='y'", "data.mean=[0.1,0.2,0.3]"};
    lb_recipe *r;
    char *text = NULL;
    size_t size;
    a->left = left;
    lb_status status = lb_recipe_parse(ctx, "r.yaml", full, strlen(full), set, LB_COUNT(set), &r);
    assert_true((status == LB_OK) == (r != NULL));
    if (status == LB_OK)
        status = lb_recipe_set(r, "train.init", "somewhere");
    if (status == LB_OK)
        status = lb_recipe_format(r, &text, &size);
    assert_true((status == LB_OK) == (text != NULL));
    lb_free(ctx, text);
    lb_recipe_destroy(r);
    return status;
}

static void test_out_of_memory(void **state) {
    (void)state;
    assert_true(test_memory_runs_out(parse_with) > 5);
}

/* Random damage to a valid recipe: accepted or refused with a message, no crash; what is accepted can be saved and read again. */
static void test_mutations(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const char *const bits_of_yaml[] = {"{",        "}",      "[",       "]",      ": ",      "- ",   "\n",
                                               "  ",       "&a ",    "*a",      "!!int ", "\"",      "'",    "#",
                                               "|",        ">",      "%",       "0",      "-1",      "1e99", "nan",
                                               "stages:",  "quant:", "layers:", "name:",  "match: ", "\xff", "\x01",
                                               "\xc3\xa9", "?",      ",",       "---\n",  "...\n",   "\t",   "~"};
    size_t accepted = 0, length = strlen(full);
    char text[sizeof full + 400];
    for (uint64_t i = 0; i < 6000; i++) {
        memcpy(text, full, sizeof full);
        size_t size = length;
        uint32_t r[4];
        lb_rng4(11, LB_RNG_TEST, 0, i, r);
        int edits = 1 + (int)(r[0] % 4);
        for (int e = 0; e < edits; e++) {
            lb_rng4(11, LB_RNG_TEST, 1 + (uint64_t)e, i, r);
            size_t at = r[0] % size, n = LB_MIN(1 + r[1] % 12, size - at);
            const char *insert = bits_of_yaml[r[2] % LB_COUNT(bits_of_yaml)];
            switch (r[3] % 4) {
            case 0: /* delete */
                memmove(text + at, text + at + n, size - at - n);
                size -= n;
                break;
            case 1:
                text[at] = (char)r[1];
                break;
            case 2: /* insert */
                memmove(text + at + strlen(insert), text + at, size - at);
                memcpy(text + at, insert, strlen(insert));
                size += strlen(insert);
                break;
            default:
                size = LB_MAX(at, (size_t)1);
                break; /* truncate */
            }
            if (size == 0)
                break;
        }
        text[size] = 0;
        lb_recipe *recipe = NULL;
        lb_status status = lb_recipe_parse(ctx, "r.yaml", text, size, NULL, 0, &recipe);
        if (status == LB_OK) {
            accepted++;
            check_round_trip(ctx, recipe);
            lb_recipe_destroy(recipe);
        } else {
            assert_int_equal(status, LB_ERR_RECIPE);
            assert_non_null(strstr(lb_error(ctx), "r.yaml"));
            assert_null(recipe);
        }
    }
    assert_true(accepted > 100 && accepted < 5000); /* both happen */
    lb_ctx_destroy(ctx);
}

/* What a run may be continued with: other budgets and places; else the key is named with both values. */
static void test_resume(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const char *const free_to_change[] = {"model.path", "data.path", "data.workers", "data.cache", "train.epochs",
                                                 "train.total_epochs", "train.steps", "train.eval_batch", "train.eval_every",
                                                 "train.save_every", "train.histograms", "train.init"};
    size_t marked = 0;
    const lb_key *key;
    for (size_t i = 0; (key = lb_recipe_key(i)); i++)
        marked += key->change == LB_KEY_MAY_CHANGE;
    for (size_t i = 0; i < LB_COUNT(free_to_change); i++) {
        key = lb_key_find(free_to_change[i]);
        assert_non_null(key);
        assert_int_equal(key->change, LB_KEY_MAY_CHANGE);
    }
    assert_int_equal(marked, LB_COUNT(free_to_change));
    static const struct {
        const char *set, *message; /* NULL: the same run */
    } cases[] = {
        {"train.epochs=3", NULL},
        {"data.path=elsewhere", NULL},
        {"stages.last.train.init=x", NULL},
        {"train.batch=16", "r.yaml says train.batch of stage weights-only: 128, but the recipe to resume with 16; only the budget"},
        {"stages.both.train.optimizer.lr=0.5", "says train.optimizer.lr of stage both: 0.001, but the recipe to resume with 0.5;"},
        {"data.augment.flip=false", "says data.augment.flip of stage weights-only: true, but the recipe to resume with false;"},
        {"stages.both.quant.weights.method=lsq", "says quant.weights.method of stage both: dorefa, but"},
    };
    static const struct {
        const char *from, *to, *message;
    } edits[] = {
        {"bits: 4}", "bits: 5}",
         "says quant.weights.bits of layers 'layer1.*' of stage weights-only: 4, but the recipe to resume with 5;"},
        {"layer1.*", "layer2.*", "says quant.layers of stage weights-only: layer1.*, but the recipe to resume with layer2.*;"},
        {"[{match: fc, weights: {bits: 8}}]", "[]", "says quant.layers of stage last: fc, but the recipe to resume with nothing;"},
        {"name: last", "name: lost", "says stages: last, but the recipe to resume with lost;"},
        {"  - {name: plain, quant: {layers: []}}\n", "", "says stages: plain, but the recipe to resume with nothing;"},
    };
    lb_recipe *before, *after;
    assert_ok(ctx, parse(ctx, full, &before));
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        assert_ok(ctx, lb_recipe_parse(ctx, "new.yaml", full, strlen(full), &cases[i].set, 1, &after));
        const lb_status status = lb_recipe_check_resume(before, after);
        assert_int_equal(status, cases[i].message ? LB_ERR_RECIPE : LB_OK);
        if (status && !strstr(lb_error(ctx), cases[i].message))
            fail_msg("%s\ngives: %s", cases[i].set, lb_error(ctx));
        lb_recipe_destroy(after);
    }
    for (size_t i = 0; i < LB_COUNT(edits); i++) {
        char text[sizeof full + 100];
        const char *at = strstr(full, edits[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - full), full, edits[i].to, at + strlen(edits[i].from));
        assert_ok(ctx, parse(ctx, text, &after));
        assert_int_equal(lb_recipe_check_resume(before, after), LB_ERR_RECIPE);
        if (!strstr(lb_error(ctx), edits[i].message))
            fail_msg("%s\ngives: %s", edits[i].to, lb_error(ctx));
        lb_recipe_destroy(after);
    }
    lb_recipe_destroy(before);
    lb_ctx_destroy(ctx);
}

/* A total of epochs is a budget: what it scales may change with it, and only so. */
static void test_resume_total(void **state) {
    (void)state;
    static const char text[] =
        "train: {epochs: 3, total_epochs: 1, schedule: {name: multistep, milestones: [1, 1.7], warmup: 0.5}}\n"
        "stages: [{name: a}, {name: b, train: {epochs: 4, schedule: {name: step, every: 0.7}}}]\n";
    static const struct {
        const char *set, *message; /* NULL: the same run */
    } cases[] = {
        {"train.total_epochs=1", NULL},
        {"train.total_epochs=2.3", NULL},
        {"train.total_epochs=1000", NULL},
        {"train.schedule.warmup=0.6", "says train.schedule.warmup of stage a: "},
        {"stages.a.train.schedule.milestones=[1, 1.8]", "says train.schedule.milestones of stage a: "},
        {"stages.a.train.schedule.milestones=[1]", "says train.schedule.milestones of stage a: "},
        {"stages.b.train.schedule.every=0.8", "says train.schedule.every of stage b: "},
        {"train.total_epochs=0", "says train.schedule.warmup of stage a: "},
    };
    lb_ctx *ctx = test_ctx();
    lb_recipe *given, *saved, *after;
    char *copy;
    size_t size;
    assert_ok(ctx, parse(ctx, text, &given));
    assert_ok(ctx, lb_recipe_format(given, &copy, &size));
    assert_ok(ctx, parse(ctx, copy, &saved));
    const char *const texts[] = {text, copy}; /* both may be continued */
    for (size_t k = 0; k < LB_COUNT(texts); k++)
        for (size_t i = 0; i < LB_COUNT(cases); i++) {
            assert_ok(ctx, lb_recipe_parse(ctx, "new.yaml", texts[k], strlen(texts[k]), &cases[i].set, 1, &after));
            const bool total = k == 1 && !strcmp(cases[i].set, "train.total_epochs=0"); /* the copy's numbers are scaled already */
            const lb_status status = lb_recipe_check_resume(saved, after);
            assert_int_equal(status, cases[i].message && !total ? LB_ERR_RECIPE : LB_OK);
            if (status)
                test_contains(lb_error(ctx), cases[i].message);
            lb_recipe_destroy(after);
        }
    lb_free(ctx, copy);
    lb_recipe_destroy(saved);
    lb_recipe_destroy(given);
    lb_ctx_destroy(ctx);
}

/* Every shipped recipe loads. */
static void test_shipped(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    glob_t found;
    assert_int_equal(glob(LB_SOURCE_DIR "/recipes/*/*.yaml", 0, NULL, &found), 0);
    assert_true(found.gl_pathc > 5);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        lb_recipe *r;
        assert_ok(ctx, lb_recipe_load(ctx, found.gl_pathv[i], NULL, 0, &r));
        check_round_trip(ctx, r);
        lb_recipe_destroy(r);
    }
    globfree(&found);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_floats),    cmocka_unit_test(test_locale),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_mutations), cmocka_unit_test(test_shipped),
        cmocka_unit_test(test_resume),        cmocka_unit_test(test_resume_total),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

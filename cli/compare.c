/* lowbit compare */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define DEFAULT_BITS "2" /* a later stage's recipe leaves out what is as in the first or, where that is float, the default */

/* A run and the one whose group it is in: runs whose recipes differ in nothing but the seed. */
typedef struct entry {
    cli_run run;
    int group;
} entry;

static const char *get(const cli_run *run, const char *key, const char *fallback) {
    const char *value = cli_run_get(run, key);
    return value && *value ? value : fallback;
}

static bool ends_in(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static bool counts(const cli_setting *setting) { return !ends_in(setting->key, "train.seed"); }

/* "seed1" in the place of a run with seed 1 is "seed2" in that of a run with seed 2: the runs that others start or learn from. */
static bool same_path(const char *a, const char *seed_a, const char *b, const char *seed_b) {
    while (*a && *a == *b) {
        if (!strncmp(a, "seed", 4)) {
            a += 4;
            b += 4;
            size_t na = strspn(a, "0123456789"), nb = strspn(b, "0123456789");
            bool own = na == strlen(seed_a) && !strncmp(a, seed_a, na) && nb == strlen(seed_b) && !strncmp(b, seed_b, nb);
            a += own ? na : 0;
            b += own ? nb : 0;
        } else {
            a++;
            b++;
        }
    }
    return *a == *b;
}

static bool same_value(const cli_run *a, const cli_setting *x, const cli_run *b, const cli_setting *y) {
    if (strcmp(x->key, y->key))
        return false;
    bool path = ends_in(x->key, "train.init") || ends_in(x->key, "distill.teacher");
    return path ? same_path(x->value, get(a, "train.seed", ""), y->value, get(b, "train.seed", "")) : !strcmp(x->value, y->value);
}

/* Every setting of a but the seed is b's too. */
static bool covers(const cli_run *a, const cli_run *b) {
    for (int i = 0; i < a->nsettings; i++) {
        bool found = !counts(&a->settings[i]);
        for (int k = 0; k < b->nsettings && !found; k++)
            found = same_value(a, &a->settings[i], b, &b->settings[k]);
        if (!found)
            return false;
    }
    return true;
}

/* Whether layers may have other lengths than quant.weights.bits, by what they learned or by rules of their own. */
static bool lengths_differ(const cli_run *run) {
    for (int i = 0; i < run->nsettings; i++) {
        const cli_setting *s = &run->settings[i];
        if (ends_in(s->key, "weights.bit_lengths") && strcmp(s->value, "fixed"))
            return true;
        const char *rule = strstr(s->key, "quant.layers."); /* of any stage; the last one's counts */
        if (rule && ends_in(rule, ".weights.bits") &&
            strcmp(get(run, rule, DEFAULT_BITS), get(run, "quant.weights.bits", DEFAULT_BITS)))
            return true;
    }
    return false;
}

/* "W2A2", "W1A32" where something is float, "W2.4A4" where weights have 2.4 bits in the mean, "float". */
static const char *bits_text(char text[64], const cli_run *run) {
    const char *w = get(run, "quant.weights.method", "none"), *a = get(run, "quant.activations.method", "none");
    bool fw = !strcmp(w, "none"), fa = !strcmp(a, "none");
    if (fw && fa)
        snprintf(text, 64, "float");
    else if (!fw && isfinite(run->weight_bits) && lengths_differ(run))
        snprintf(text, 64, "W%.1fA%.8s", run->weight_bits, fa ? "32" : get(run, "quant.activations.bits", DEFAULT_BITS));
    else
        snprintf(text, 64, "W%.8sA%.8s", fw ? "32" : get(run, "quant.weights.bits", DEFAULT_BITS),
                 fa ? "32" : get(run, "quant.activations.bits", DEFAULT_BITS));
    return text;
}

static const char *method_text(char text[80], const cli_run *run) {
    const char *w = get(run, "quant.weights.method", "none"), *a = get(run, "quant.activations.method", "none");
    if (!strcmp(w, a))
        snprintf(text, 80, "%.32s", w);
    else
        snprintf(text, 80, "%.32s/%.32s", w, a);
    return text;
}

static const char *percent(char text[32], double value) {
    snprintf(text, 32, isfinite(value) ? "%.2f" : "-", value);
    return text;
}

static bool is_result(const entry *e, int group) { return e->group == group && e->run.done && isfinite(e->run.best); }

static bool same_seed(const cli_run *a, const cli_run *b) { return !strcmp(get(a, "train.seed", ""), get(b, "train.seed", "")); }

/* A finished run of the group, the first with its seed: the same seed twice tells nothing of seeds. */
static bool is_sample(const entry *entries, int i, int group) {
    for (int k = 0; k < i; k++)
        if (is_result(&entries[k], group) && same_seed(&entries[k].run, &entries[i].run))
            return false;
    return is_result(&entries[i], group);
}

/* Mean and sample standard deviation of the best accuracies of a group's seeds; returns how many there are. */
static int group_spread(const entry *entries, int n, int group, double *mean, double *spread) {
    double sum = 0, squares = 0;
    int count = 0;
    for (int i = 0; i < n; i++)
        if (is_sample(entries, i, group)) {
            sum += entries[i].run.best;
            count++;
        }
    *mean = count ? sum / count : NAN;
    for (int i = 0; i < n; i++)
        if (is_sample(entries, i, group))
            squares += (entries[i].run.best - *mean) * (entries[i].run.best - *mean);
    *spread = count > 1 ? sqrt(squares / (count - 1)) : NAN;
    return count;
}

/* The directory as one cell of a table. */
static char *name_cell(const char *dir) {
    char *name = cli_strdup(dir);
    for (char *c = name; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?'; /* as errors do */
    return name;
}

/* Named after its first run: groups can differ in what the line does not show. */
static void print_group(const cli_run *first, double mean, double spread, int count) {
    char bits[64], method[80], *name = name_cell(first->dir);
    printf("%s ...: %s %s %s: %.2f %s %.2f %% over %d seeds\n", name, get(first, "model.name", "-"), method_text(method, first),
           bits_text(bits, first), mean, cli_utf8() ? "±" : "+-", spread, count);
    free(name);
}

static void print_table(const entry *entries, int n) {
    char bits[64], method[80], best[32], last[32], bytes[32], rate[32], epochs[32];
    cli_table table;
    cli_table_init(&table, "<<<<>>>>>>>");
    cli_table_row(&table,
                  "run\tmodel\tmethod\tbits\tseed\tepochs\tminutes\tbest top-1 %%\tlast top-1 %%\tpacked bytes\timages/s");
    for (int i = 0; i < n; i++) {
        const cli_run *r = &entries[i].run;
        char *name = name_cell(r->dir);
        snprintf(epochs, sizeof epochs, "%g%s", r->epochs, r->done || r->epochs == 0 ? "" : " (unfinished)");
        cli_table_row(&table, "%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t%s\t%s\t%s", name, get(r, "model.name", "-"),
                      method_text(method, r), bits_text(bits, r), get(r, "train.seed", "-"), epochs, r->minutes,
                      percent(best, r->best), percent(last, r->last), r->packed >= 0 ? cli_commas(bytes, r->packed) : "-",
                      isfinite(r->images_per_s) ? cli_commas(rate, llrint(r->images_per_s)) : "-");
        free(name);
    }
    cli_table_print(&table);
    for (int i = 0; i < n; i++) {
        double mean, spread;
        int count = entries[i].group == i ? group_spread(entries, n, i, &mean, &spread) : 0;
        if (count > 1)
            print_group(&entries[i].run, mean, spread, count);
    }
}

/* A number, as text where it is too large for JSON's; null: none. */
static json_t *seed_json(const cli_run *r) {
    const char *text = get(r, "train.seed", "");
    char *end;
    errno = 0;
    const long long seed = strtoll(text, &end, 10);
    return !*text ? json_null() : *end || errno ? cli_json_text(text) : json_integer(seed);
}

/* The runs that its mean is of. */
static json_t *group_json(const entry *entries, int n, int group) {
    json_t *runs = json_array();
    for (int i = 0; i < n; i++)
        if (is_sample(entries, i, group))
            json_array_append_new(runs, cli_json_text(entries[i].run.dir));
    return runs;
}

static int print_json(const entry *entries, int n) {
    char bits[64], method[80];
    json_t *runs = json_array(), *groups = json_array();
    for (int i = 0; i < n; i++) {
        const cli_run *r = &entries[i].run;
        json_array_append_new(runs,
                              json_pack("{s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o}", "run",
                                        cli_json_text(r->dir), "model", get(r, "model.name", "-"), "method", method_text(method, r),
                                        "bits", bits_text(bits, r), "seed", seed_json(r), "epochs",
                                        cli_json_real(r->epochs), "minutes", cli_json_real(r->minutes), "done", r->done,
                                        "best_top1", cli_json_real(r->best), "last_top1", cli_json_real(r->last), "packed_bytes",
                                        r->packed >= 0 ? json_integer(r->packed) : json_null(), "images_per_s",
                                        cli_json_real(r->images_per_s)));
        double mean, spread;
        int count = entries[i].group == i ? group_spread(entries, n, i, &mean, &spread) : 0;
        if (count > 1)
            json_array_append_new(groups,
                                  json_pack("{s:o, s:s, s:s, s:s, s:i, s:o, s:o}", "runs", group_json(entries, n, i), "model",
                                            get(r, "model.name", "-"), "method", method_text(method, r), "bits", bits_text(bits, r),
                                            "seeds", count, "mean_top1", cli_json_real(mean), "spread", cli_json_real(spread)));
    }
    return cli_print_json(json_pack("{s:o, s:o}", "runs", runs, "groups", groups));
}

/* By this path or another. */
static bool is_named_before(const cli_args *args, int operand) {
    for (int i = 0; i < operand; i++)
        if (cli_is_same_file(args->operands[i], args->operands[operand]))
            return true;
    return false;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    int n = 0, status = CLI_DONE;
    entry *entries = cli_alloc((size_t)args->noperands * sizeof *entries);
    (void)ctx;
    for (int i = 0; i < args->noperands; i++) {
        if (is_named_before(args, i))
            continue;
        entry *e = &entries[n];
        if (cli_run_read(args->operands[i], &e->run) != CLI_DONE) { /* the others are still worth a table */
            cli_run_free(&e->run);
            status = CLI_FAILED;
            continue;
        }
        e->group = n;
        for (int k = n - 1; k >= 0; k--)
            if (entries[k].group == k && covers(&e->run, &entries[k].run) && covers(&entries[k].run, &e->run))
                e->group = k;
        n++;
    }
    if (n && args->json)
        status = print_json(entries, n) == CLI_DONE ? status : CLI_FAILED;
    else if (n)
        print_table(entries, n);
    for (int i = 0; i < n; i++)
        cli_run_free(&entries[i].run);
    free(entries);
    return status;
}

static const cli_option options[] = {CLI_JSON, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_compare = {
    .name = "compare",
    .summary = "one table of several runs",
    .operands = "RUN...",
    .min_operands = 1,
    .max_operands = -1,
    .options = options,
    .description =
        "Prints a line for each run directory: network, method and bits of its last stage, seed, finished epochs and their\n"
        "minutes, test accuracy of the last stage's best epoch and of the last one, size of RUN/model.lbm if there is one,\n"
        "and training speed (median of the epochs). Where recipes differ in nothing but train.seed (and in \"seedN\" within\n"
        "train.init and distill.teacher, N being the seed), the mean of their best accuracies and the sample standard\n"
        "deviation follow, of finished runs and each seed once, in a line named after the first. A run\n"
        "that is named twice is listed once.\n"
        "\n"
        "--json prints {\"runs\": [{\"run\", \"model\", \"method\", \"bits\", \"seed\", \"epochs\", \"minutes\", \"done\",\n"
        "\"best_top1\", \"last_top1\", \"packed_bytes\", \"images_per_s\"}], \"groups\": [{\"runs\", \"model\", \"method\",\n"
        "\"bits\", \"seeds\", \"mean_top1\", \"spread\"}]}.",
    .files = "RUN/recipe.yaml, RUN/metrics.jsonl, RUN/model.lbm",
    .examples = "lowbit compare runs/*",
    .exit_failed = "a run directory cannot be read (the others are compared all the same)",
    .run = run,
};

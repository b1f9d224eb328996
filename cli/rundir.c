/* What a run directory says about its run: recipe.yaml as flat settings, metrics.jsonl as figures. The recipe is read as plain
 * YAML, so that runs of other versions, whose keys this one may not know, can be compared. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <yaml.h>

#include "cli.h"

#define STAGES_MAX 1000

/* ---- recipe.yaml --------------------------------------------------------------------------------------------------- */

static void add_setting(cli_run *run, const char *key, const char *value) {
    run->settings = cli_grow(run->settings, (size_t)run->nsettings + 1, sizeof *run->settings);
    run->settings[run->nsettings++] = (cli_setting){cli_strdup(key), cli_strdup(value)};
}

/* Scalars below `node` as settings "prefix.key" or "prefix.0". */
static void flatten(cli_run *run, yaml_document_t *document, const yaml_node_t *node, const char *prefix, int depth) {
    char key[512];
    const char *dot = *prefix ? "." : "";
    if (!node || depth > 16)
        return;
    if (node->type == YAML_SCALAR_NODE) {
        add_setting(run, prefix, (const char *)node->data.scalar.value);
    } else if (node->type == YAML_MAPPING_NODE) {
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
            const yaml_node_t *name = yaml_document_get_node(document, pair->key);
            if (name && name->type == YAML_SCALAR_NODE) {
                snprintf(key, sizeof key, "%s%s%s", prefix, dot, (const char *)name->data.scalar.value);
                flatten(run, document, yaml_document_get_node(document, pair->value), key, depth + 1);
            }
        }
    } else if (node->type == YAML_SEQUENCE_NODE) {
        int i = 0;
        for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++, i++) {
            snprintf(key, sizeof key, "%s%s%d", prefix, dot, i);
            flatten(run, document, yaml_document_get_node(document, *item), key, depth + 1);
        }
    }
}

static int read_recipe(const char *path, cli_run *run) {
    yaml_parser_t parser;
    yaml_document_t document;
    FILE *file = fopen(path, "rb");
    if (!file)
        return cli_fail("%s: cannot open: %s; is this a run directory (lowbit train makes one)?", path, strerror(errno));
    if (!yaml_parser_initialize(&parser)) {
        fclose(file);
        return cli_fail("out of memory");
    }
    yaml_parser_set_input_file(&parser, file);
    int status = CLI_DONE;
    if (yaml_parser_load(&parser, &document)) {
        flatten(run, &document, yaml_document_get_root_node(&document), "", 0);
        yaml_document_delete(&document);
    } else {
        status =
            cli_fail("%s:%zu: not YAML: %s", path, parser.problem_mark.line + 1, parser.problem ? parser.problem : "unreadable");
    }
    yaml_parser_delete(&parser);
    fclose(file);
    return status;
}

static const char *find_setting(const cli_run *run, const char *key) {
    for (int i = 0; i < run->nsettings; i++)
        if (!strcmp(run->settings[i].key, key))
            return run->settings[i].value;
    return NULL;
}

/* -1: the recipe has no stages. */
static int last_stage(const cli_run *run) {
    int last = -1;
    for (int i = 0; i < run->nsettings; i++)
        if (!strncmp(run->settings[i].key, "stages.", 7)) {
            int stage = atoi(run->settings[i].key + 7);
            last = stage > last && stage < STAGES_MAX ? stage : last;
        }
    return last;
}

const char *cli_run_get(const cli_run *run, const char *key) {
    const int last = last_stage(run);
    char staged[512];
    snprintf(staged, sizeof staged, "stages.%d.%s", last, key);
    const char *value = last >= 0 ? find_setting(run, staged) : NULL;
    return value ? value : find_setting(run, key);
}

/* ---- metrics.jsonl ------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double field(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* What lines before the present one said. */
typedef struct history {
    double stage, before; /* the present stage, and epochs of those before it */
    double *rates;        /* (nrates) images per second */
    size_t nrates;
} history;

static void take_epoch(const json_t *entry, cli_run *run, history *h) {
    const double top1 = field(entry, "test_top1"), rate = field(entry, "images_per_s"), epoch = field(entry, "epoch"),
                 seconds = field(entry, "seconds");
    if (field(entry, "stage") != h->stage) { /* its epochs begin at 0 again */
        h->stage = field(entry, "stage");
        h->before = run->epochs;
        run->best = NAN; /* best.safetensors is the last stage's */
    }
    run->done = false;
    run->minutes += isfinite(seconds) ? seconds / 60 : 0;
    run->weight_bits = field(entry, "weight_bits");
    run->epochs = h->before + (isfinite(epoch) ? round(1000 * epoch) / 1000 : 0);
    if (isfinite(top1)) {
        run->last = top1;
        if (!(run->best >= top1)) {
            run->best = top1;
            run->best_epoch = run->epochs;
        }
    }
    if (isfinite(rate)) {
        h->rates = cli_grow(h->rates, h->nrates + 1, sizeof *h->rates);
        h->rates[h->nrates++] = rate;
    }
}

static int read_metrics(const char *path, cli_run *run) {
    FILE *file = fopen(path, "r");
    if (!file && errno == ENOENT)
        return CLI_DONE; /* imported, and not trained yet */
    if (!file)
        return cli_fail("%s: cannot open: %s", path, strerror(errno));
    char *line = NULL;
    size_t capacity = 0;
    history h = {0};
    int status = CLI_DONE;
    for (int number = 1; status == CLI_DONE && getline(&line, &capacity, file) > 0; number++) {
        json_error_t error;
        json_t *entry = json_loads(line, 0, &error);
        const char *event = json_string_value(json_object_get(entry, "event"));
        if (!entry && !strchr(line, '\n'))
            break; /* the last line is being written */
        if (!entry)
            status = cli_fail("%s:%d: not a JSON object: %s", path, number, error.text);
        else if (event && !strcmp(event, "epoch"))
            take_epoch(entry, run, &h);
        else if (event && !strcmp(event, "done"))
            run->done = true;
        json_decref(entry);
    }
    if (h.stage < last_stage(run)) /* not reached or, without a budget, not evaluated: what was measured is another network */
        run->best = run->last = run->weight_bits = NAN;
    if (h.nrates) {
        qsort(h.rates, h.nrates, sizeof *h.rates, by_value);
        run->images_per_s = h.rates[h.nrates / 2];
    }
    free(h.rates);
    free(line);
    fclose(file);
    return status;
}

int cli_run_read(const char *dir, cli_run *run) {
    *run = (cli_run){.dir = dir, .best = NAN, .last = NAN, .images_per_s = NAN, .weight_bits = NAN, .packed = -1};
    if (!cli_is_dir(dir))
        return cli_fail("%s: %s", dir, cli_exists(dir) ? "not a run directory" : "no such run directory");
    char *recipe = cli_join(dir, "recipe.yaml"), *metrics = cli_join(dir, "metrics.jsonl"), *model = cli_join(dir, "model.lbm");
    int status = read_recipe(recipe, run);
    if (status == CLI_DONE)
        status = read_metrics(metrics, run);
    struct stat st;
    if (stat(model, &st) == 0)
        run->packed = (int64_t)st.st_size;
    free(recipe);
    free(metrics);
    free(model);
    return status;
}

void cli_run_free(cli_run *run) {
    for (int i = 0; i < run->nsettings; i++) {
        free(run->settings[i].key);
        free(run->settings[i].value);
    }
    free(run->settings);
    run->settings = NULL;
    run->nsettings = 0;
}

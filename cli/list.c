/* lowbit list */
#include <string.h>

#include "cli.h"

static int run(lb_ctx *ctx, const cli_args *args) {
    static const char *const names[] = {"methods", "models", "data"};
    static const lb_list_kind kinds[] = {LB_LIST_METHODS, LB_LIST_MODELS, LB_LIST_DATA};
    const char *word = args->operands[0];
    (void)ctx;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (strcmp(word, names[k]))
            continue;
        json_t *array = json_array();
        cli_table table;
        lb_list_row row;
        const bool is_mixed = kinds[k] == LB_LIST_METHODS; /* the other lists are of one kind */
        cli_table_init(&table, is_mixed ? "<<<" : "<<");
        cli_table_row(&table, is_mixed ? "name\tkind\tdescription" : "name\tdescription");
        for (int i = 0; lb_list(kinds[k], i, &row); i++) {
            cli_table_row(&table, "%s\t%s%s%s", row.name, is_mixed ? row.kind : "", is_mixed ? "\t" : "", row.help);
            json_array_append_new(array, json_pack("{s:s, s:s, s:s}", "name", row.name, "kind", row.kind, "help", row.help));
        }
        if (args->json) {
            cli_table_free(&table);
            return cli_print_json(json_pack("{s:o}", names[k], array));
        }
        json_decref(array);
        cli_table_print(&table);
        return CLI_DONE;
    }
    const char *near = lb_nearest(word, names, sizeof names / sizeof *names);
    if (near)
        return cli_usage(args->verb, "list: '%s' is none of methods, models, data; did you mean '%s'?", word, near);
    return cli_usage(args->verb, "list: '%s' is none of methods, models, data", word);
}

static const cli_option options[] = {CLI_JSON, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_list = {
    .name = "list",
    .summary = "methods, networks and data formats there are",
    .operands = "methods|models|data",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description =
        "methods: the quantizers and mixers a recipe can name. models: the networks of model.name. data: the data sets and\n"
        "formats that data.name and --data understand.",
    .examples = "lowbit list methods",
    .exit_failed = "the results cannot be written",
    .run = run,
};

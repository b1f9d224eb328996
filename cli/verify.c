/* lowbit verify */
#include "cli.h"

static int print_json(const lb_verify_result *r) {
    json_t *paths = json_object();
    for (int i = 0; i < r->npaths; i++)
        json_object_set_new(paths, r->paths[i].name,
                            json_pack("{s:I, s:I, s:o}", "equal", (json_int_t)r->paths[i].equal, "predictions_equal",
                                      (json_int_t)r->paths[i].predictions_equal, "max_abs_diff",
                                      cli_json_real(r->paths[i].max_abs_diff)));
    return cli_print_json(json_pack("{s:I, s:b, s:o}", "images", (json_int_t)r->images, "equal", r->equal, "paths", paths));
}

static void print_table(const lb_verify_result *r) {
    char images[32], equal[32], predictions[32];
    cli_table table;
    cli_table_init(&table, "<>>>");
    cli_table_row(&table, "path\tequal scores\tequal classes\tlargest difference");
    for (int i = 0; i < r->npaths; i++)
        cli_table_row(&table, "%s\t%s\t%s\t%.6g", r->paths[i].name, cli_commas(equal, r->paths[i].equal),
                      cli_commas(predictions, r->paths[i].predictions_equal), r->paths[i].max_abs_diff);
    cli_table_print(&table);
    printf("%s on %s images\n", r->equal ? "equal" : "NOT EQUAL", cli_commas(images, r->images));
}

static int run(lb_ctx *ctx, const cli_args *args) {
    lb_verify_result result = {0};
    if (lb_verify(ctx, args->operands[0], args->data, &result) != LB_OK)
        return cli_library_error(ctx);
    int status = CLI_DONE;
    if (args->json)
        status = print_json(&result);
    else
        print_table(&result);
    return result.equal ? status
                        : cli_fail("%s does not compute what was trained; if the run was trained further or the model is another "
                                   "run's, pack it again: lowbit pack RUN -o RUN/model.lbm",
                                   args->operands[0]);
}

static const cli_option options[] = {CLI_DATA, CLI_JSON, CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_verify = {
    .name = "verify",
    .summary = "prove that the packed model computes what was trained",
    .operands = "RUN|MODEL",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description =
        "Runs every test image through the trainer's own evaluation and through every way the packed model can be run,\n"
        "and compares the scores one by one: ref and each instruction set of this machine, and c, the generated C compiled\n"
        "with cc, or what CC names; it is left out without a compiler, and for models of more than 32 MB. A run's\n"
        "model.lbm is taken, or if there is none, the run is packed in memory; a model must lie in its run directory, where\n"
        "the trained weights are.\n"
        "\n"
        "For each path: on how many images every score is equal, on how many the class is equal, and the largest\n"
        "difference of a score. --json prints {\"images\", \"equal\", \"paths\": {NAME: {\"equal\", \"predictions_equal\",\n"
        "\"max_abs_diff\"}}}.",
    .examples = "lowbit verify runs/quickstart\nlowbit verify runs/quickstart/model.lbm --json",
    .exit_failed = "not equal, or the run, model or data cannot be read",
    .run = run,
};

/* lowbit pack */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static lb_status pack(lb_ctx *ctx, const cli_args *args, const char *path, lb_inspection *inspection) {
    lb_trainer *trainer = NULL;
    lb_status status = lb_trainer_open(ctx, args->operands[0], NULL, &trainer);
    if (status == LB_OK)
        status = lb_pack(trainer, path);
    lb_trainer_destroy(trainer);
    return status == LB_OK ? lb_inspect(ctx, path, inspection) : status;
}

static bool is_packed(const unsigned char *head, size_t size) { return size >= 3 && !memcmp(head, "LBM", 3); }

static int print(const cli_args *args, const char *path, const lb_inspection *in) {
    char bytes[32], floats[32], smaller[64];
    const double ratio = in->bytes > 0 ? (double)in->float_bytes / (double)in->bytes : 0;
    if (args->json)
        return cli_print_json(json_pack("{s:o, s:I, s:I, s:o}", "file", cli_json_text(path), "bytes", (json_int_t)in->bytes,
                                        "float_bytes", (json_int_t)in->float_bytes, "ratio", cli_json_real(ratio)));
    cli_term_clear();
    printf("%s: %s bytes; in float %s bytes; %s\n", path, cli_commas(bytes, in->bytes), cli_commas(floats, in->float_bytes),
           cli_smaller(smaller, in->bytes, in->float_bytes));
    return CLI_DONE;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    char *path = args->output ? cli_strdup(args->output) : cli_join(args->operands[0], "model.lbm");
    lb_inspection inspection = {0};
    int result = CLI_DONE;
    if (!cli_is_dir(args->operands[0])) {
        result =
            cli_fail("%s: %s", args->operands[0], cli_exists(args->operands[0]) ? "not a run directory" : "no such run directory");
    } else if (cli_check_output(path, "a packed model", is_packed) != CLI_DONE) {
        result = CLI_FAILED;
    } else if (pack(ctx, args, path, &inspection) != LB_OK) {
        result = cli_library_error(ctx);
    } else {
        result = print(args, path, &inspection);
        lb_inspection_free(&inspection);
    }
    free(path);
    return result;
}

static const cli_option options[] = {CLI_OUTPUT, CLI_JSON, CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_pack = {
    .name = "pack",
    .summary = "lower a run to integers and pack it",
    .operands = "RUN",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description =
        "Takes the weights of the run's best epoch, folds batch norm, scales, clipping and rounding into integer\n"
        "arithmetic, stores each weight in its bits, and writes one file that the runtime library reads. Prints its size\n"
        "beside that of the same network in 32-bit float. 'lowbit verify' proves that it computes what was trained.\n"
        "\n"
        "Without -o the model is RUN/model.lbm. An existing file is replaced only when the new one is complete.\n"
        "\n"
        "--json prints {\"file\", \"bytes\", \"float_bytes\", \"ratio\"}.",
    .files = "RUN                    a directory made by lowbit train\nMODEL.lbm              the packed model; docs/format.md "
             "describes it byte by byte",
    .examples = "lowbit pack runs/quickstart\nlowbit pack runs/quickstart -o model.lbm",
    .exit_failed = "the run cannot be read, the network cannot be packed, or the file cannot be written",
    .run = run,
};

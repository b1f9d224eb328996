/* lowbit codegen */
#include "cli.h"

static int run(lb_ctx *ctx, const cli_args *args) {
    lb_packed *model = NULL;
    lb_codegen_info info;
    lb_status status = lb_packed_load(ctx, args->operands[0], &model);
    if (status == LB_OK)
        status = lb_codegen(model, args->output, args->data, &info);
    lb_packed_destroy(model);
    if (status != LB_OK)
        return cli_library_error(ctx);
    if (args->json)
        return cli_print_json(json_pack("{s:o, s:I, s:I}", "directory", cli_json_text(args->output), "constant_bytes",
                                        (json_int_t)info.constants, "ram_bytes", (json_int_t)info.arena));
    char constants[32], arena[32];
    cli_term_clear();
    printf("%s: %s bytes of constants, %s bytes of RAM\n", args->output, cli_commas(constants, info.constants),
           cli_commas(arena, info.arena));
    return CLI_DONE;
}

static const cli_option options[] = {CLI_OUTPUT, CLI_DATA, CLI_JSON, CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_codegen = {
    .name = "codegen",
    .summary = "write a packed model as C for a microcontroller",
    .operands = "MODEL.lbm",
    .min_operands = 1,
    .max_operands = 1,
    .output = "DIR",
    .options = options,
    .description =
        "Writes the network as C99 that needs no C library and no heap: weights as constants in their bits, the kernels\n"
        "that the network needs, one static arena, and an interface of three functions. Its scores are those of the packed\n"
        "model, bit for bit; there is no float arithmetic unless the network has float layers. A self-test with three images\n"
        "of the model's test set (or of the one that --data names; noise, if there is none) is written beside it.\n"
        "\n"
        "-o names the directory. It is made; one that exists must be empty or made by this command, and is replaced only\n"
        "when all new files are complete. The README.md in it says how to compile, and how much flash and RAM are needed.\n"
        "Prints both; --json prints {\"directory\", \"constant_bytes\", \"ram_bytes\"}.",
    .files = "DIR/model.h            the interface\nDIR/model.c            the only file to compile\n"
             "DIR/README.md          memory, compiling, the self-test",
    .examples = "lowbit codegen runs/quickstart/model.lbm -o firmware/net\n"
                "cd firmware/net && cc -std=c99 -O2 test.c model.c -o test && ./test",
    .exit_failed = "the model or its data cannot be read, or DIR cannot be written",
    .run = run,
};

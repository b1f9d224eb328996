/* lowbit export */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

/* A model starts with its version (below 32) and who made it. */
static bool is_onnx(const unsigned char *head, size_t size) {
    return size >= 3 && head[0] == 0x08 && head[1] < 32 && head[2] == 0x12;
}

/* The format of that name, or -1. */
static int find_format(const char *name) {
    for (int i = 0; lb_onnx_format_name(i); i++)
        if (!strcmp(name, lb_onnx_format_name(i)))
            return i;
    return -1;
}

static lb_status export(lb_ctx *ctx, const char *run, const char *path, const lb_export_options *options) {
    lb_trainer *trainer = NULL;
    lb_status status = lb_trainer_open(ctx, run, NULL, &trainer);
    if (status == LB_OK)
        status = lb_export(trainer, path, options);
    lb_trainer_destroy(trainer);
    return status;
}

static int print(const cli_args *args, const char *path, const char *format) {
    struct stat st;
    char text[32];
    const int64_t bytes = stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
    if (args->json)
        return cli_print_json(
            json_pack("{s:o, s:I, s:s}", "file", cli_json_text(path), "bytes", (json_int_t)bytes, "format", format));
    cli_term_clear();
    printf("%s: %s bytes, %s\n", path, cli_commas(text, bytes), format);
    return CLI_DONE;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    const char *run_dir = args->operands[0];
    const int format = args->format ? find_format(args->format) : LB_ONNX_QDQ;
    if (format < 0)
        return cli_usage(args->verb, "--format: '%s' is none of qdq, qcdq, qonnx, float", args->format);
    if (args->opset && (args->opset < LB_ONNX_OPSET_MIN || args->opset > LB_ONNX_OPSET_MAX))
        return cli_usage(args->verb, "--opset: %d is none of %d to %d", args->opset, LB_ONNX_OPSET_MIN, LB_ONNX_OPSET_MAX);
    if (!cli_is_dir(run_dir))
        return cli_fail("%s: %s", run_dir, cli_exists(run_dir) ? "not a run directory" : "no such run directory");
    char *path = args->output ? cli_strdup(args->output) : cli_join(run_dir, "model.onnx");
    const lb_export_options options = {.format = (lb_onnx_format)format, .opset = args->opset, .exact = args->exact};
    int result = CLI_DONE;
    if (cli_check_output(path, "an ONNX model", is_onnx) != CLI_DONE) {
        result = CLI_FAILED;
    } else if (export(ctx, run_dir, path, &options) != LB_OK) {
        result = cli_library_error(ctx);
    } else {
        result = print(args, path, lb_onnx_format_name(format));
    }
    free(path);
    return result;
}

static const cli_option options[] = {CLI_OUTPUT, CLI_FORMAT, CLI_OPSET, CLI_EXACT, CLI_JSON,
                                     CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_export = {
    .name = "export",
    .summary = "write a run as an ONNX file for other runtimes",
    .operands = "RUN",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description =
        "Takes the weights of the run's best epoch and writes the network as an ONNX model. Its input 'image' is a batch\n"
        "of float NCHW images with pixels of 0 to 255, as decoded: normalisation is inside. Its output 'logits' has a score\n"
        "for each class; class names and where the model came from are in its metadata.\n"
        "\n"
        "  qdq    integer weights with DequantizeLinear, activations through QuantizeLinear and DequantizeLinear. Weights\n"
        "         take 2, 4 or 8 bits with --opset 25, 4 or 8 bits from --opset 21 on, else 8 bits\n"
        "  qcdq   the same with 8-bit integers only, and Clip where fewer bits are used; for older runtimes\n"
        "  qonnx  float weights and the QONNX operators Quant and BipolarQuant\n"
        "  float  float weights on their grid, activations rounded by Div, Round, Clip and Mul; runs everywhere\n"
        "\n"
        "With --exact the numbers between the convolutions are those of the packed model, to the last bit: fixed point in\n"
        "double precision instead of batch norm in float. For runtimes that know doubles, and for comparing. Sigmoid and Tanh\n"
        "have no such form.\n"
        "\n"
        "Without -o the file is RUN/model.onnx. An existing one is replaced only when the new one is complete.\n"
        "docs/onnx.md says which runtime takes which format, and how closely predictions agree.\n"
        "\n"
        "--json prints {\"file\", \"bytes\", \"format\"}.",
    .files = "RUN                    a directory made by lowbit train",
    .examples = "lowbit export runs/quickstart\nlowbit export runs/quickstart -o net.onnx --opset 25\n"
                "lowbit export runs/quickstart -o old.onnx --format qcdq",
    .exit_failed = "the run cannot be read, the network cannot be expressed, or the file cannot be written",
    .run = run,
};

/* lowbit inspect */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "cli.h"

static int print_json(const lb_inspection *in) {
    json_t *layers = json_array();
    for (int i = 0; i < in->nlayers; i++) {
        const lb_layer_info *l = &in->layers[i];
        json_array_append_new(layers,
                              json_pack("{s:s, s:s, s:i, s:i, s:I, s:I, s:I}", "name", l->name, "op", l->op, "weight_bits",
                                        l->weight_bits, "activation_bits", l->activation_bits, "weights", (json_int_t)l->weights,
                                        "macs", (json_int_t)l->macs, "bytes", (json_int_t)l->bytes));
    }
    return cli_print_json(
        json_pack("{s:o, s:I, s:I}", "layers", layers, "bytes", (json_int_t)in->bytes, "float_bytes", (json_int_t)in->float_bytes));
}

/* "2", "float", or "-" where there is nothing to quantize. */
static const char *bits_text(char text[16], int bits) {
    snprintf(text, 16, bits == 0 ? "-" : bits == 32 ? "float" : "%d", bits);
    return text;
}

static void print_table(const lb_inspection *in) {
    char wbits[16], abits[16], weights[32], macs[32], bytes[32], error[32], smaller[64];
    int64_t all_weights = 0, all_macs = 0;
    cli_table table;
    cli_table_init(&table, "<<<>>>>>>");
    cli_table_row(&table, "layer\top\toutput\tw bits\ta bits\tweights\tMACs\tbytes\tw error");
    for (int i = 0; i < in->nlayers; i++) {
        const lb_layer_info *l = &in->layers[i];
        snprintf(error, sizeof error, isfinite(l->weight_error) && l->weights ? "%.4f" : "-", l->weight_error);
        cli_table_row(&table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", l->name, l->op, l->dst, bits_text(wbits, l->weight_bits),
                      bits_text(abits, l->activation_bits), l->weights ? cli_commas(weights, l->weights) : "-",
                      l->macs ? cli_commas(macs, l->macs) : "-", cli_commas(bytes, l->bytes), error);
        all_weights += l->weights;
        all_macs += l->macs;
    }
    cli_table_row(&table, "total\t\t\t\t\t%s\t%s\t%s", cli_commas(weights, all_weights), cli_commas(macs, all_macs),
                  cli_commas(bytes, in->bytes));
    cli_table_print(&table);
    printf("packed %s bytes, in float %s bytes, %s\n", cli_commas(bytes, in->bytes), cli_commas(weights, in->float_bytes),
           cli_smaller(smaller, in->bytes, in->float_bytes));
}

/* Learned bit-lengths as the last lines of a recipe's quant section. */
static int print_rules(const lb_inspection *in, const char *path) {
    bool any = false;
    for (int i = 0; i < in->nlayers; i++) {
        const lb_layer_info *l = &in->layers[i];
        if (!l->bits_learned || !l->weight_bits)
            continue;
        if (!any)
            puts("  layers:");
        fputs("    - {match: \"", stdout);
        for (const char *c = l->name; *c; c++) /* what a pattern cannot say stands for any character */
            putchar(isalnum((unsigned char)*c) || strchr("_-./:", *c) ? *c : '?');
        printf("\", weights: {bits: %d, bit_lengths: fixed}}\n", l->weight_bits);
        any = true;
    }
    return any ? CLI_DONE : cli_fail("%s: no layer has learned its bit-length (quant.weights.bit_lengths)", path);
}

static int run(lb_ctx *ctx, const cli_args *args) {
    lb_inspection inspection = {0};
    if (args->rules && args->json)
        return cli_usage(args->verb, "inspect: --rules prints lines of a recipe, --json everything; give one of them");
    if (args->nsets && (cli_is_dir(args->operands[0]) || !cli_is_recipe(args->operands[0])))
        return cli_usage(args->verb, "inspect: --set is for a recipe (.yaml); %s is none", args->operands[0]);
    if ((args->nsets ? lb_inspect_recipe(ctx, args->operands[0], args->sets, args->nsets, &inspection)
                     : lb_inspect(ctx, args->operands[0], &inspection)) != LB_OK)
        return cli_library_error(ctx);
    int status = CLI_DONE;
    if (args->rules)
        status = print_rules(&inspection, args->operands[0]);
    else if (args->json)
        status = print_json(&inspection);
    else
        print_table(&inspection);
    lb_inspection_free(&inspection);
    return status;
}

static const cli_option options[] = {CLI_SET, CLI_RULES, CLI_JSON, CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_inspect = {
    .name = "inspect",
    .summary = "bits, operations and bytes of each layer",
    .operands = "RUN|MODEL|RECIPE",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description =
        "Prints a line for each layer: output shape, bits of its weights and of its input, number of weights, multiply-\n"
        "accumulates per image, bytes in the packed model, and the relative L1 error of quantizing its weights; then the\n"
        "totals, and the size of the same network in 32-bit float. Of a recipe it tells the same before any training,\n"
        "with what --set changes.\n"
        "\n"
        "Where bit-lengths were learned (quant.weights.bit_lengths), the bits are those that were chosen. --rules prints them\n"
        "as quant.layers, to be appended to a recipe that ends with its quant section: the same bits from the start.\n"
        "\n"
        "--json prints {\"layers\": [{\"name\", \"op\", \"weight_bits\", \"activation_bits\", \"weights\", \"macs\", \"bytes\"}],\n"
        "\"bytes\", \"float_bytes\"}; bits are 32 for float and 0 where there is nothing to quantize.",
    .examples = "lowbit inspect recipes/fashion-mnist/quickstart.yaml --set quant.weights.bits=1\n"
                "lowbit inspect runs/quickstart/model.lbm --json\n"
                "lowbit inspect runs/lenet5-cpq-learned --rules >>fixed.yaml",
    .exit_failed = "the run, model or recipe cannot be read",
    .run = run,
};

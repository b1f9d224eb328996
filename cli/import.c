/* lowbit import */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static bool is_data_name(const char *word) {
    lb_list_row row;
    for (int i = 0; lb_list(LB_LIST_DATA, i, &row); i++)
        if (!strcmp(word, row.name))
            return true;
    return false;
}

static char *key_value(const char *key, const char *value) {
    char *text = cli_alloc(strlen(key) + strlen(value) + 2);
    sprintf(text, "%s=%s", key, value);
    return text;
}

/* "data.name=cifar10", or for a path "data.name=folder" and "data.path=photos". Returns how many were added to `sets`. */
static int add_data(const char *spec, const char **sets) {
    if (is_data_name(spec)) {
        sets[0] = key_value("data.name", spec);
        return 1;
    }
    sets[0] = key_value("data.name", "folder");
    sets[1] = key_value("data.path", spec);
    return 2;
}

static void say_next(const cli_args *args) {
    char *recipe = cli_join(args->output, "recipe.yaml");
    fputs("next:", stderr);
    cli_print_command(stderr, args, "eval", args->output);
    fputc(';', stderr);
    cli_print_command(stderr, args, "train", recipe);
    fputs(" --out runs/NAME --set quant.weights.method=lsq --set quant.activations.method=lsq\n", stderr);
    free(recipe);
}

static int print(const cli_args *args, const lb_import_result *net) {
    if (args->json)
        return cli_print_json(json_pack("{s:o, s:i, s:I, s:i, s:i, s:i, s:i, s:i}", "run", cli_json_text(args->output), "layers",
                                        net->layers, "parameters", (json_int_t)net->parameters, "height", net->ih, "width",
                                        net->iw, "channels", net->ic, "classes", net->classes, "added_norms", net->added));
    char count[32];
    cli_term_clear();
    printf("%s: %d layers, %s parameters, images of %dx%dx%d, %d classes\n", args->output, net->layers,
           cli_commas(count, net->parameters), net->ih, net->iw, net->ic, net->classes);
    return CLI_DONE;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    if (args->data && !is_data_name(args->data) && !cli_exists(args->data))
        return cli_fail("--data: '%s' is neither a known data set (lowbit list data) nor a folder or archive", args->data);
    const char **sets = cli_alloc(((size_t)args->nsets + 2) * sizeof *sets);
    const int ndata = args->data ? add_data(args->data, sets) : 0;
    for (int i = 0; i < args->nsets; i++)
        sets[ndata + i] = args->sets[i];
    lb_import_result net;
    int result = CLI_DONE;
    if (lb_import(ctx, args->operands[0], args->output, sets, ndata + args->nsets, &net) != LB_OK) {
        result = cli_library_error(ctx);
    } else {
        result = print(args, &net);
        fflush(stdout); /* where both streams are one file, the result comes first */
        if (net.added && !args->quiet)
            fprintf(stderr,
                    "%d convolutions without batch norm got one; the first training batch sets it so that nothing changes\n",
                    net.added);
        if (!args->quiet)
            say_next(args);
    }
    for (int i = 0; i < ndata; i++)
        free((char *)(uintptr_t)sets[i]);
    free(sets);
    return result;
}

static const cli_option options[] = {CLI_OUTPUT, CLI_DATA, CLI_SET, CLI_SEED, CLI_JSON, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_import = {
    .name = "import",
    .summary = "make a run from a float ONNX network",
    .operands = "NET.onnx",
    .min_operands = 1,
    .max_operands = 1,
    .output = "RUN",
    .options = options,
    .description =
        "Reads a float network, classification or regression, that PyTorch (torch.onnx), Keras (tf2onnx) or lowbit export\n"
        "wrote, opsets 6 to 25, and makes a run directory of it: the graph, the weights, and a recipe. lowbit eval tests it as\n"
        "it is; lowbit train with that recipe starts from its weights and fine-tunes it with any method.\n"
        "\n"
        "--data names the images, a known set or a folder; without it the set is guessed from channels and classes.\n"
        "Networks are trained on images normalised in some way: where the file does that itself, the recipe takes it over;\n"
        "otherwise it is the data set's usual one, or what --set data.mean=[...] and --set data.std=[...] say.\n"
        "\n"
        "A quantized network with QuantizeLinear and DequantizeLinear around float operators is taken for the float network\n"
        "in it.\n"
        "\n"
        "What cannot be read is an error that names the node, its operator and the reason. docs/onnx.md lists the operators,\n"
        "and says what happens to networks whose batch norms were folded into their convolutions.\n"
        "\n"
        "--json prints {\"run\", \"layers\", \"parameters\", \"height\", \"width\", \"channels\", \"classes\", \"added_norms\"}.",
    .files = "RUN/net.onnx           the graph, without weights\n"
             "RUN/last.safetensors   the weights\n"
             "RUN/recipe.yaml        a recipe that fine-tunes them",
    .examples = "lowbit import resnet18.onnx -o runs/float --data cifar10\n"
                "lowbit eval runs/float\n"
                "lowbit train runs/float/recipe.yaml --out runs/w4a4 --set quant.weights.method=lsq --set quant.weights.bits=4 \\\n"
                "    --set quant.activations.method=lsq --set quant.activations.bits=4",
    .exit_failed = "the file cannot be read, has something that is not supported, or a run is there already",
    .notes = true,
    .run = run,
};

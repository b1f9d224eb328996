/* lowbit eval */
#include "cli.h"

static lb_status evaluate(lb_ctx *ctx, const cli_args *args, lb_metrics *metrics) {
    const char *path = args->operands[0];
    lb_status status;
    if (cli_is_dir(path)) {
        lb_trainer *trainer = NULL;
        status = lb_trainer_open(ctx, path, args->data, &trainer);
        if (status == LB_OK)
            status = lb_trainer_eval(trainer, metrics);
        lb_trainer_destroy(trainer);
    } else {
        lb_packed *model = NULL;
        status = lb_packed_load(ctx, path, &model);
        if (status == LB_OK)
            status = lb_packed_eval(model, args->data, metrics);
        lb_packed_destroy(model);
    }
    return status;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    lb_metrics m = {0};
    char images[32];
    if (evaluate(ctx, args, &m) != LB_OK)
        return cli_library_error(ctx);
    cli_term_clear();
    if (args->json)
        return cli_print_json(json_pack("{s:o, s:o, s:o, s:I}", "top1", cli_json_real(m.top1), "top5", cli_json_real(m.top5),
                                        "loss", cli_json_real(m.loss), "images", (json_int_t)m.images));
    printf("top-1 %.2f %%  top-5 %.2f %%  loss %.4f  on %s images\n", m.top1, m.top5, m.loss, cli_commas(images, m.images));
    return CLI_DONE;
}

static const cli_option options[] = {CLI_DATA, CLI_JSON, CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_eval = {
    .name = "eval",
    .summary = "accuracy of a run or a packed model",
    .operands = "RUN|MODEL",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description =
        "Classifies every test image and prints the share that is right (top-1), the share whose truth is among the five\n"
        "best (top-5), and the mean loss. A run directory is evaluated by the trainer with the weights of its best epoch,\n"
        "quantized; a packed model by the integer runtime. Without --data the images are those the network was trained\n"
        "for; classes of other data are told by their names, and it may lack some.\n"
        "\n"
        "--json prints {\"top1\", \"top5\", \"loss\", \"images\"}; top1 and top5 are percent.",
    .files = "RUN                    a directory made by lowbit train\nMODEL                  a file made by lowbit pack",
    .examples = "lowbit eval runs/quickstart\nlowbit eval runs/quickstart/model.lbm --json",
    .exit_failed = "the run, model or data cannot be read",
    .run = run,
};

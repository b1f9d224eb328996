/* lowbit bench */
#include "cli.h"

static int bench_recipe(lb_ctx *ctx, const cli_args *args) {
    lb_recipe *recipe = NULL;
    lb_trainer *trainer = NULL;
    lb_speed s = {0};
    char rate[32];
    lb_status status = lb_recipe_load(ctx, args->operands[0], args->sets, args->nsets, &recipe);
    if (status == LB_OK)
        status = lb_trainer_create(ctx, recipe, NULL, &trainer);
    if (status == LB_OK)
        status = lb_trainer_bench(trainer, args->steps ? args->steps : 30, &s);
    int result = CLI_DONE;
    if (status != LB_OK) {
        result = cli_library_error(ctx);
    } else if (args->json) {
        result = cli_print_json(json_pack("{s:o, s:o, s:o, s:s}", "images_per_s", cli_json_real(s.images_per_s), "step_ms",
                                          cli_json_real(s.step_ms), "peak_rss_mb", cli_json_real(s.peak_rss_mb), "precision",
                                          s.precision));
    } else {
        cli_term_clear();
        printf("training: %s images/s, %.2f ms per step of %d images, %s, %d thread%s, peak memory %.0f MB\n",
               cli_commas(rate, (int64_t)(s.images_per_s + 0.5)), s.step_ms, s.batch, s.precision, s.threads,
               s.threads == 1 ? "" : "s", s.peak_rss_mb);
    }
    lb_trainer_destroy(trainer);
    lb_recipe_destroy(recipe);
    return result;
}

static int bench_model(lb_ctx *ctx, const cli_args *args) {
    lb_packed *model = NULL;
    lb_latency l = {0};
    char rate[32];
    lb_status status = lb_packed_load(ctx, args->operands[0], &model);
    if (status == LB_OK && args->isa)
        status = lb_packed_use(model, args->isa);
    if (status == LB_OK && args->profile) {
        const int result = cli_profile_model(ctx, model, args);
        lb_packed_destroy(model);
        return result;
    }
    if (status == LB_OK)
        status = lb_packed_bench(model, args->batch ? args->batch : 1, args->runs ? args->runs : 100, &l);
    int result = CLI_DONE;
    if (status != LB_OK) {
        result = cli_library_error(ctx);
    } else if (args->json) {
        result = cli_print_json(json_pack("{s:{s:o, s:o}, s:o, s:i, s:i, s:s}", "latency_ms", "min", cli_json_real(l.min_ms), "median",
                                          cli_json_real(l.median_ms), "images_per_s", cli_json_real(l.images_per_s), "threads",
                                          l.threads, "batch", l.batch, "isa", l.isa));
    } else {
        cli_term_clear();
        printf("inference: median %.3f ms, min %.3f ms per batch of %d, %s images/s, %d thread%s, %s\n", l.median_ms, l.min_ms, l.batch,
               cli_commas(rate, (int64_t)(l.images_per_s + 0.5)), l.threads, l.threads == 1 ? "" : "s", l.isa);
    }
    lb_packed_destroy(model);
    return result;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    const char *path = args->operands[0];
    if (cli_is_dir(path))
        return cli_fail("%s: a directory; bench wants its recipe.yaml (training) or its model.lbm (inference)", path);
    if (cli_is_recipe(path)) {
        if (args->batch || args->runs || args->isa || args->profile)
            return cli_usage(args->verb,
                             "bench: --batch, --runs, --profile and --isa are for a packed model (a recipe: --set train.batch=N, --steps N)");
        return bench_recipe(ctx, args);
    }
    if (args->steps || args->nsets)
        return cli_usage(args->verb, "bench: --steps, --set and --seed are for a recipe (a packed model: --batch N, --runs N)");
    return bench_model(ctx, args);
}

static const cli_option options[] = {CLI_BATCH, CLI_RUNS,    CLI_ISA,   CLI_PROFILE, CLI_STEPS, CLI_SET,        CLI_SEED,
                                     CLI_JSON,  CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_bench = {
    .name = "bench",
    .summary = "inference latency, or training speed",
    .operands = "MODEL|RECIPE",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description =
        "Of a packed model: how long one batch takes (least and median) and images per second. Of a recipe (.yaml):\n"
        "training images per second on its real data, the median step after a warm-up, peak memory, and the precision\n"
        "computed in. Nothing is written.\n"
        "\n"
        "Of a model, --profile prints the time of each layer instead (the least, one thread), the kernel that ran it, its\n"
        "operations per second (two per multiply-accumulate), and their share of the machine's peak in 8-bit\n"
        "multiply-adds, which is measured too; with --json {\"layers\": [{\"name\", \"op\", \"kernel\", \"ms\", \"gops\"}], \"ms\",\n"
        "\"gops\", \"peak_gops\"}.\n"
        "\n"
        "--json prints {\"latency_ms\": {\"min\", \"median\"}, \"images_per_s\", \"threads\", \"batch\", \"isa\"} of a model, and\n"
        "{\"images_per_s\", \"step_ms\", \"peak_rss_mb\", \"precision\"} of a recipe.",
    .examples = "lowbit bench runs/quickstart/model.lbm --batch 8\nlowbit bench recipes/cifar10/resnet20-dorefa-w2a2.yaml "
                "--threads 1 --json",
    .exit_failed = "the model, recipe or data cannot be read",
    .run = run,
};

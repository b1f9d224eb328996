/* lowbit bench */
#include <math.h>

#include "cli.h"

/* ---- Where the time of a step goes ------------------------------------------------------------------------------------------- */

static json_t *costs_json(const lb_profile *profile, const lb_profile_row *row) {
    static const char *const names[LB_PASSES] = {"forward", "backward_data", "backward_weights"};
    json_t *object = json_pack("{s:s, s:s, s:s}", "name", row->name, "op", row->op, "output", row->dst);
    for (int i = 0; i < LB_PASSES && object; i++) {
        const lb_cost *c = &row->pass[i];
        if (c->ms > 0)
            json_object_set_new(object, names[i],
                                json_pack("{s:o, s:o, s:o, s:o}", "ms", cli_json_real(c->ms), "bytes", cli_json_real(c->bytes),
                                          "flops", cli_json_real(c->flops), "bound_ms",
                                          cli_json_real(lb_profile_bound(profile, c))));
    }
    return object;
}

static json_t *profile_json(const lb_profile *profile) {
    json_t *rows = json_array();
    for (int i = 0; i < profile->nrows; i++)
        json_array_append_new(rows, costs_json(profile, &profile->rows[i]));
    return json_pack("{s:o, s:o, s:o}", "peak_gflops", cli_json_real(profile->flops_per_s / 1e9), "copy_gb_per_s",
                     cli_json_real(profile->bytes_per_s / 1e9), "operators", rows);
}

/* "1.23", or "-" for nothing. */
static const char *number(char text[16], const char *fmt, double value) {
    if (!(value > 0))
        return "-";
    snprintf(text, 16, fmt, value);
    return text;
}

static void profile_line(cli_table *table, const lb_profile *profile, const lb_profile_row *row, double whole_ms) {
    char ms[LB_PASSES][16], all[16], share[16], mb[16], gflops[16], bound[16];
    const char *pass[LB_PASSES];
    double sum = 0, bytes = 0, flops = 0, least = 0;
    for (int i = 0; i < LB_PASSES; i++) {
        const lb_cost *c = &row->pass[i];
        pass[i] = number(ms[i], "%.3f", c->ms);
        sum += c->ms;
        bytes += c->bytes;
        flops += c->flops;
        least += lb_profile_bound(profile, c);
    }
    cli_table_row(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", row->name, row->op, row->dst, pass[LB_PASS_FORWARD],
                  pass[LB_PASS_BACKWARD_DATA], pass[LB_PASS_BACKWARD_WEIGHTS], number(all, "%.3f", sum),
                  number(share, "%.1f", 100 * sum / whole_ms), number(mb, "%.1f", bytes / 1e6),
                  number(gflops, "%.0f", flops / sum / 1e6), number(bound, "%.0f", 100 * least / sum));
}

static void add_row(lb_profile_row *sum, const lb_profile_row *row) {
    for (int i = 0; i < LB_PASSES; i++) {
        sum->pass[i].ms += row->pass[i].ms;
        sum->pass[i].bytes += row->pass[i].bytes;
        sum->pass[i].flops += row->pass[i].flops;
    }
}

static void print_profile(const lb_profile *profile, const lb_speed *speed, int steps) {
    lb_profile_row layers = {.name = "convolutions"}, rest = {.name = "everything else"}, total = {.name = "step"};
    double whole = 0;
    cli_table table;
    cli_table_init(&table, "<<<>>>>>>>>");
    cli_table_row(&table, "milliseconds\top\toutput\tforward\tbackward\tweights\tall\t%%\tMB\tGFLOP/s\tbound %%");
    for (int i = 0; i < profile->nrows; i++) {
        add_row(profile->rows[i].pass[LB_PASS_FORWARD].flops > 0 ? &layers : &rest, &profile->rows[i]);
        add_row(&total, &profile->rows[i]);
    }
    for (int i = 0; i < LB_PASSES; i++)
        whole += total.pass[i].ms;
    for (int i = 0; i < profile->nrows; i++)
        profile_line(&table, profile, &profile->rows[i], whole);
    profile_line(&table, profile, &layers, whole);
    profile_line(&table, profile, &rest, whole);
    profile_line(&table, profile, &total, whole);
    cli_table_print(&table);
    printf("milliseconds: each the least of %d steps, %s; their sum is less than the median step below\n"
           "bound: the share of the time that it would take at %.0f GFLOP/s (a matrix product of 512 x 512) or %.1f GB/s (copying "
           "64 MB),\n"
           "whichever is longer; above 100 %% where tensors are still in a cache or 3x3 convolutions make do with\n"
           "fewer products (Winograd)\n",
           steps, speed->threads == 1 ? "processor time" : "elapsed time (of one thread: processor time)",
           profile->flops_per_s / 1e9, profile->bytes_per_s / 1e9);
}

/* ---- Training ---------------------------------------------------------------------------------------------------------------- */

static void print_speed(const lb_speed *s) {
    char rate[32];
    printf("training: %s images/s, %.2f ms per step of %d images (%.2f ms of processor time), %s, %d thread%s, peak memory %.0f "
           "MB\n",
           cli_commas(rate, (int64_t)(s->images_per_s + 0.5)), s->step_ms, s->batch, s->cpu_ms, s->precision, s->threads,
           s->threads == 1 ? "" : "s", s->peak_rss_mb);
    if (isfinite(s->eval_images_per_s))
        printf("evaluation: %s images/s; ", cli_commas(rate, (int64_t)(s->eval_images_per_s + 0.5)));
    printf("first step done after %.2f s\n", s->start_s);
}

static int bench_recipe(lb_ctx *ctx, const cli_args *args) {
    lb_recipe *recipe = NULL;
    lb_trainer *trainer = NULL;
    lb_speed s = {0};
    lb_profile profile = {0};
    const int steps = args->steps ? args->steps : 30;
    lb_status status = lb_recipe_load(ctx, args->operands[0], args->sets, args->nsets, &recipe);
    if (status == LB_OK)
        status = lb_trainer_create(ctx, recipe, NULL, &trainer);
    if (status == LB_OK)
        status = args->profile ? lb_trainer_profile(trainer, steps, &s, &profile) : lb_trainer_bench(trainer, steps, &s);
    int result = CLI_DONE;
    if (status != LB_OK) {
        result = cli_library_error(ctx);
    } else if (args->json) {
        json_t *object = json_pack(
            "{s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:i, s:i}", "images_per_s", cli_json_real(s.images_per_s), "step_ms",
            cli_json_real(s.step_ms), "cpu_ms", cli_json_real(s.cpu_ms), "peak_rss_mb", cli_json_real(s.peak_rss_mb), "precision",
            s.precision, "eval_images_per_s", cli_json_real(s.eval_images_per_s), "eval_cpu_ms", cli_json_real(s.eval_cpu_ms),
            "start_s", cli_json_real(s.start_s), "threads", s.threads, "batch", s.batch);
        if (args->profile)
            json_object_set_new(object, "profile", profile_json(&profile));
        result = cli_print_json(object);
    } else {
        cli_term_clear();
        if (args->profile)
            print_profile(&profile, &s, steps);
        print_speed(&s);
    }
    lb_profile_free(&profile);
    lb_trainer_destroy(trainer);
    lb_recipe_destroy(recipe);
    return result;
}

/* ---- Inference --------------------------------------------------------------------------------------------------------------- */

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
        result = cli_print_json(json_pack("{s:{s:o, s:o}, s:o, s:o, s:i, s:i, s:s}", "latency_ms", "min",
                                          cli_json_real(l.min_ms), "median", cli_json_real(l.median_ms), "cpu_ms",
                                          cli_json_real(l.cpu_ms), "images_per_s", cli_json_real(l.images_per_s), "threads",
                                          l.threads, "batch", l.batch, "isa", l.isa));
    } else {
        cli_term_clear();
        printf("inference: median %.3f ms, min %.3f ms per batch of %d, %s images/s, %d thread%s, %s\n", l.median_ms, l.min_ms,
               l.batch, cli_commas(rate, (int64_t)(l.images_per_s + 0.5)), l.threads, l.threads == 1 ? "" : "s", l.isa);
    }
    lb_packed_destroy(model);
    return result;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    const char *path = args->operands[0];
    if (cli_is_dir(path))
        return cli_fail("%s: a directory; bench wants its recipe.yaml (training) or its model.lbm (inference)", path);
    if (cli_is_recipe(path)) {
        if (args->batch || args->runs || args->isa)
            return cli_usage(args->verb,
                             "bench: --batch, --runs and --isa are for a packed model (a recipe: --set train.batch=N, --steps N)");
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
        "training images per second on its real data, the median step after a warm-up, peak memory, the precision computed\n"
        "in, evaluation images per second, and the time from reading the data to the end of the first step. Nothing is written.\n"
        "\n"
        "--profile adds a line for each operator of the training step: milliseconds (the least of the steps; with\n"
        "--threads 1 of processor time, so that other programs count little) forward, backward to the layer's input, and\n"
        "backward to its weights; its share of the step; megabytes read and written (from the shapes, each tensor once per\n"
        "loop over it); GFLOP/s; and the share of its time that the arithmetic or the memory traffic alone would take on\n"
        "this machine, measured by a large matrix product and a large copy. A norm is everything around a convolution:\n"
        "batch norm, residual addition, activation, quantizer. data is the waiting for images; weights: quantizing all\n"
        "weights, laying them out for the convolutions, and the way of their gradients back.\n"
        "\n"
        "Of a model, --profile prints the time of each layer instead (the least, one thread), the kernel that ran it, its\n"
        "operations per second (two per multiply-accumulate), and their share of the machine's peak in 8-bit\n"
        "multiply-adds, which is measured too; with --json {\"layers\": [{\"name\", \"op\", \"kernel\", \"ms\", \"gops\"}], "
        "\"ms\",\n"
        "\"gops\", \"peak_gops\"}.\n"
        "\n"
        "--json prints {\"latency_ms\": {\"min\", \"median\"}, \"cpu_ms\", \"images_per_s\", \"threads\", \"batch\", \"isa\"}\n"
        "of a model, and {\"images_per_s\", \"step_ms\", \"cpu_ms\", \"peak_rss_mb\", \"precision\", \"eval_images_per_s\",\n"
        "\"eval_cpu_ms\", \"start_s\", \"threads\", \"batch\"} of a recipe; cpu_ms is the processor time of a batch (the\n"
        "least) or of a step, eval_cpu_ms of a test image, all threads, for busy machines. With --profile also \"profile\":\n"
        "{\"peak_gflops\", \"copy_gb_per_s\", \"operators\": [{\"name\", \"op\", \"output\", \"forward\", \"backward_data\",\n"
        "\"backward_weights\"}]}, each pass that there is {\"ms\", \"bytes\", \"flops\", \"bound_ms\"}.",
    .examples = "lowbit bench runs/quickstart/model.lbm --batch 8\nlowbit bench recipes/cifar10/resnet20-dorefa-w2a2.yaml "
                "--threads 1 --json\nlowbit bench recipes/cifar10/resnet20-dorefa-w2a2.yaml --profile",
    .exit_failed = "the model, recipe or data cannot be read",
    .run = run,
};

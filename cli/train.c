/* lowbit train */
#define _XOPEN_SOURCE 700 /* open_memstream */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* runs/NAME for some/where/NAME.yaml. */
static char *default_dir(const char *recipe) {
    const char *name = strrchr(recipe, '/');
    name = name ? name + 1 : recipe;
    char *dir = cli_join("runs", name), *dot = strrchr(dir, '.');
    if (dot > dir + strlen("runs/") && cli_is_recipe(dir))
        *dot = 0;
    return dir;
}

static bool has_file(const char *dir, const char *name) {
    char *path = cli_join(dir, name);
    const bool there = cli_exists(path);
    free(path);
    return there;
}

/* The directory of the run whose own recipe this is, NULL if it is no run's; free(). */
static char *run_of(const char *recipe) {
    const char *slash = strrchr(recipe, '/');
    if (strcmp(slash ? slash + 1 : recipe, "recipe.yaml"))
        return NULL;
    char *dir = cli_strdup(slash ? recipe : ".");
    if (slash)
        dir[slash > recipe ? slash - recipe : 1] = 0;
    if (has_file(dir, "last.safetensors") || has_file(dir, "best.safetensors"))
        return dir;
    free(dir);
    return NULL;
}

/* The run's own recipe has every --set. */
static int say_interrupted(const cli_args *args, const char *dir) {
    char *text = NULL;
    size_t size;
    if (!has_file(dir, "last.safetensors"))
        return cli_fail("interrupted before the first checkpoint, nothing is saved");
    FILE *line = open_memstream(&text, &size);
    if (line) {
        cli_print_command(line, args, "train", dir);
        if (args->threads) /* other threads, other bits */
            fprintf(line, " --threads %d", args->threads);
        fclose(line);
    }
    const int status = cli_fail("interrupted, the state is saved; continue with:%s --resume", text ? text : " ...");
    free(text);
    return status;
}

/* What came out, from the run's own log. */
static int print_result(const cli_args *args, const char *dir) {
    cli_run run;
    int status = cli_run_read(dir, &run);
    if (status == CLI_DONE) {
        const bool evaluated = isfinite(run.best);
        if (evaluated)
            printf("%s: best %.2f %% top-1 (epoch %g of %g), last %.2f %%\n", dir, run.best, run.best_epoch, run.epochs, run.last);
        else
            printf("%s: no %sevaluation: the %sbudget is 0 steps\n", dir, run.epochs > 0 ? "" : "training, no ",
                   run.epochs > 0 ? "last stage's " : "");
        fflush(stdout); /* where both streams are one file, the result comes first */
        if (evaluated && !args->quiet) {
            fputs("next:", stderr);
            cli_print_command(stderr, args, "eval", dir);
            fputs(", then", stderr);
            cli_print_command(stderr, args, "pack", dir);
            fputc('\n', stderr);
        }
    }
    cli_run_free(&run);
    return status;
}

static int check_dir(const char *dir, bool resume) {
    const bool there = has_file(dir, "last.safetensors");
    if (there && !resume)
        return cli_fail("%s: a run is there already; continue it with --resume, or choose another directory with --out", dir);
    if (!there && resume)
        return cli_fail("%s: nothing to resume, there is no last.safetensors; start it without --resume", dir);
    return CLI_DONE;
}

/* A directory in the recipe's place is a run to resume. */
static int check_run(const cli_args *args, const char *source) {
    if (!has_file(source, "recipe.yaml"))
        return cli_fail(args->resume ? "%s: no training to resume, recipe.yaml is missing; name a directory that lowbit train made"
                                     : "%s: a directory without a run, recipe.yaml is missing; name a recipe",
                        source);
    if (!args->resume)
        return cli_fail("%s: a directory, not a recipe; --resume continues a run, and %s/recipe.yaml repeats it in another --out",
                        source, source);
    if (args->out)
        return cli_usage(args->verb, "--out: the run %s goes on where it is; leave --out away", source);
    return CLI_DONE;
}

/* A run's own recipe, without a place for the new run. */
static int refuse_own(const char *recipe, const char *dir) {
    if (has_file(dir, "metrics.jsonl") || has_file(dir, "best.safetensors")) /* an imported one has neither */
        return cli_fail("%s: the recipe of a run; `lowbit train %s --resume` continues it, --out DIR repeats it elsewhere", recipe,
                        dir);
    return cli_fail("%s: the recipe of a run that is not trained yet; --out DIR says where the trained one is to be", recipe);
}

static int run(lb_ctx *ctx, const cli_args *args) {
    lb_recipe *recipe = NULL;
    lb_trainer *trainer = NULL;
    char *own = cli_is_dir(args->operands[0]) ? NULL : run_of(args->operands[0]);
    const char *source = own && args->resume && !args->out ? own : args->operands[0];
    const bool is_run = cli_is_dir(source);
    char *dir = args->out ? cli_strdup(args->out) : is_run ? cli_strdup(source) : default_dir(source);
    int result = is_run ? check_run(args, source) : own && !args->out ? refuse_own(source, own) : CLI_DONE;
    lb_status status = LB_OK;
    if (result == CLI_DONE)
        status = is_run ? lb_recipe_load_run(ctx, source, args->sets, args->nsets, &recipe)
                        : lb_recipe_load(ctx, source, args->sets, args->nsets, &recipe);
    if (result == CLI_DONE)
        result = status == LB_OK ? check_dir(dir, args->resume) : cli_library_error(ctx);
    if (result == CLI_DONE) {
        status = lb_trainer_create(ctx, recipe, NULL, &trainer);
        if (status == LB_OK)
            status = lb_trainer_run(trainer, dir, args->resume);
        cli_term_clear();
        if (status == LB_ERR_INTERRUPTED && trainer)
            result = say_interrupted(args, dir);
        else
            result = status == LB_OK ? print_result(args, dir) : cli_library_error(ctx);
    }
    lb_trainer_destroy(trainer);
    lb_recipe_destroy(recipe);
    free(dir);
    free(own);
    return result;
}

static const cli_option options[] = {CLI_SET, CLI_OUT, CLI_RESUME, CLI_SEED, CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_train = {
    .name = "train",
    .summary = "train a network as a recipe says",
    .operands = "RECIPE|RUN",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .description = "Reads a recipe, loads its data, builds and quantizes its network, and trains all its stages. Each epoch ends\n"
                   "with the accuracy of the quantized network on the test images and a checkpoint.\n"
                   "\n"
                   "Ctrl-C, SIGTERM or a closed terminal (unless under nohup) saves the state and stops, with a line that says\n"
                   "how to go on: 'lowbit train RUN --resume' continues to the same bits as a run that was never stopped. It may\n"
                   "change the budget, with --set train.epochs=N, and what docs/recipes.md says may change. A second Ctrl-C stops\n"
                   "at once. A directory with a run in it is never overwritten.",
    .files = "RECIPE                 YAML; docs/recipes.md lists every key. A run's own recipe.yaml repeats it, in another --out\n"
             "RUN                    a directory made by lowbit train, to resume\n"
             "DIR/recipe.yaml        the recipe with every key resolved: the run can be repeated from it\n"
             "DIR/last.safetensors   checkpoint of the last epoch, to resume\n"
             "DIR/best.safetensors   checkpoint of the best epoch, to evaluate and pack\n"
             "DIR/metrics.jsonl      a JSON object per evaluation\n"
             "DIR/events.out.*       the same, and more, for TensorBoard, which reads one more file after each --resume\n"
             "DIR/twin, DIR/4bit ... networks that a recipe with distill trained beside its own, as runs with their last weights\n"
             "A data set is looked for in data.path or, if the recipe has none, in each folder of $LOWBIT_DATA, in data/ and in\n"
             "../shared/data.",
    .examples = "lowbit train recipes/fashion-mnist/quickstart.yaml\n"
                "lowbit train recipes/fashion-mnist/quickstart.yaml --set quant.weights.bits=1 --seed 2 --out runs/w1a2\n"
                "lowbit train runs/quickstart --resume",
    .exit_failed = "bad recipe or data, or a diverged loss",
    .notes = true,
    .run = run,
};

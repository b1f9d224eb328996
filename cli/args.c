/* Options: one table for all verbs, parsed with getopt_long, and the manual pages made from the same rows. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct option_row {
    char letter; /* 0: none */
    const char *name, *arg; /* arg NULL: a flag */
    const char *help;
} option_row;

static const option_row rows[] = {
    [CLI_SET] = {0, "set", "KEY=VALUE", "change one key of the recipe, e.g. train.epochs=5; may be given often"},
    [CLI_OUT] = {'o', "out", "DIR", "run directory (default: runs/ and the recipe's file name)"},
    [CLI_RESUME] = {0, "resume", NULL, "continue from the run directory's last checkpoint"},
    [CLI_SEED] = {0, "seed", "N", "the same as --set train.seed=N"},
    [CLI_DATA] = {0, "data", "SPEC", "another data set: a name (lowbit list data) or the path of a folder or archive"},
    [CLI_OUTPUT] = {'o', "output", "PATH", "where to write"},
    [CLI_DRAW] = {0, "draw", NULL, "draw each image (the default on a terminal)"},
    [CLI_TEST] = {0, "test", "N", "classify the first N test images of the model's data set, truth shown"},
    [CLI_STEPS] = {0, "steps", "N", "training steps to time (default 30)"},
    [CLI_BATCH] = {0, "batch", "N", "images per inference (default 1)"},
    [CLI_RUNS] = {0, "runs", "N", "inferences to time (default 100)"},
    [CLI_FORMAT] = {0, "format", "NAME", "qdq (the default), qcdq, qonnx or float"},
    [CLI_OPSET] = {0, "opset", "N", "version of ONNX's operators, 13 to 25 (default: 21 for qdq, else 13)"},
    [CLI_ISA] = {0, "isa", "NAME",
                 "kernels to use: amx, avx512vbmi, avx512, avx2 (AArch64: dotprod, neon), ref; default: the best"},
    [CLI_PROFILE] = {0, "profile", NULL, "also print the time of each operator, beside what the machine could do"},
    [CLI_RULES] = {0, "rules", NULL, "print learned bit-lengths as rules of a recipe, nothing else"},
    [CLI_EXACT] = {0, "exact", NULL, "compute in the packed model's fixed point between the convolutions"},
    [CLI_JSON] = {0, "json", NULL, "print one JSON object instead of text"},
    [CLI_THREADS] = {0, "threads", "N", "compute threads (default: one per processor)"},
    [CLI_QUIET] = {'q', "quiet", NULL, "no progress, only results, warnings and errors"},
    [CLI_HELP] = {'h', "help", NULL, "this page"},
};
#define NROWS (sizeof rows / sizeof *rows)

/* ---- Parsing ------------------------------------------------------------------------------------------------------- */

/* One option by two names: a verb that has --out knows it as --output too, and the other way round. */
static const char *other_name(cli_option option) {
    return option == CLI_OUT ? rows[CLI_OUTPUT].name : option == CLI_OUTPUT ? rows[CLI_OUT].name : NULL;
}

/* The verb's rows as getopt wants them; --help always. val is the cli_option. */
static void getopt_tables(const cli_verb *verb, struct option *longs, char *shorts) {
    int n = 0, s = 0;
    shorts[s++] = ':';
    for (const cli_option *o = verb->options;; o++) {
        cli_option option = *o == CLI_OPTIONS_END ? CLI_HELP : *o;
        const option_row *row = &rows[option];
        longs[n++] = (struct option){row->name, row->arg ? required_argument : no_argument, NULL, (int)option};
        if (other_name(option))
            longs[n++] = (struct option){other_name(option), required_argument, NULL, (int)option};
        if (row->letter) {
            shorts[s++] = row->letter;
            if (row->arg)
                shorts[s++] = ':';
        }
        if (*o == CLI_OPTIONS_END)
            break;
    }
    longs[n] = (struct option){0};
    shorts[s] = 0;
}

/* What getopt found: an option, or the letter of one of the verb's. */
static cli_option option_of(const cli_verb *verb, int found) {
    for (const cli_option *o = verb->options; *o != CLI_OPTIONS_END; o++)
        if (rows[*o].letter && found == rows[*o].letter)
            return *o;
    return found == rows[CLI_HELP].letter ? CLI_HELP : (cli_option)found;
}

static bool takes(const cli_verb *verb, cli_option option) {
    for (const cli_option *o = verb->options; *o != CLI_OPTIONS_END; o++)
        if (*o == option)
            return true;
    return false;
}

static int unknown_option(const cli_verb *verb, const struct option *longs, const char *word) {
    const char *names[NROWS + 1];
    size_t count = 0;
    char name[64];
    for (; longs[count].name; count++)
        names[count] = longs[count].name;
    snprintf(name, sizeof name, "%s", word + strspn(word, "-"));
    name[strcspn(name, "=")] = 0;
    const char *near = strncmp(word, "--", 2) ? NULL : lb_nearest(name, names, count);
    if (near)
        return cli_usage(verb, "unknown option '%s'; did you mean '--%s'?", word, near);
    if (takes(verb, CLI_SET))
        return cli_usage(verb, "unknown option '%s'; keys of the recipe are changed with --set, e.g. --set train.epochs=5", word);
    return cli_usage(verb, "unknown option '%s'", word);
}

static int parse_count(const cli_verb *verb, const char *name, const char *text, int max, int *value) {
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno || *end || end == text || number < 1 || number > max)
        return cli_usage(verb, "--%s: '%s' is not a whole number from 1 to %d", name, text, max);
    *value = (int)number;
    return CLI_DONE;
}

static int take_option(const cli_verb *verb, cli_option option, const char *value, cli_args *args) {
    const char *name = rows[option].name;
    switch (option) {
    case CLI_SET: {
        const char *equals = strchr(value, '=');
        if (!equals || equals == value)
            return cli_usage(verb, "--set: '%s' is not KEY=VALUE, e.g. train.epochs=5", value);
        args->sets[args->nsets++] = value;
        break;
    }
    case CLI_SEED: {
        char *end;
        errno = 0;
        unsigned long long seed = strtoull(value, &end, 10); /* it accepts signs, we do not */
        if (errno || *end || value[0] < '0' || value[0] > '9')
            return cli_usage(verb, "--seed: '%s' is not a whole number from 0 up", value);
        snprintf(args->seed_set, sizeof args->seed_set, "train.seed=%llu", seed);
        args->sets[args->nsets++] = args->seed_set;
        break;
    }
    case CLI_OUT: args->out = value; break;
    case CLI_OUTPUT: args->output = value; break;
    case CLI_ISA: args->isa = value; break;
    case CLI_DATA: args->data = value; break;
    case CLI_FORMAT: args->format = value; break;
    case CLI_RESUME: args->resume = true; break;
    case CLI_DRAW: args->draw = true; break;
    case CLI_JSON: args->json = true; break;
    case CLI_PROFILE: args->profile = true; break;
    case CLI_RULES: args->rules = true; break;
    case CLI_EXACT: args->exact = true; break;
    case CLI_QUIET: args->quiet = true; break;
    case CLI_HELP: args->help = true; break;
    case CLI_THREADS: return parse_count(verb, name, value, 4096, &args->threads);
    case CLI_TEST: return parse_count(verb, name, value, INT_MAX, &args->test);
    case CLI_STEPS: return parse_count(verb, name, value, 1 << 20, &args->steps);
    case CLI_BATCH: return parse_count(verb, name, value, 1 << 20, &args->batch);
    case CLI_RUNS: return parse_count(verb, name, value, 1 << 20, &args->runs);
    case CLI_OPSET: return parse_count(verb, name, value, 1000, &args->opset);
    case CLI_OPTIONS_END: break;
    }
    if (rows[option].arg && !*value)
        return cli_usage(verb, "--%s: its value is empty", name);
    return CLI_DONE;
}

static int check_complete(const cli_verb *verb, const cli_args *args) {
    if (args->noperands < verb->min_operands)
        return cli_usage(verb, "%s: %s is missing", verb->name, verb->operands);
    if (verb->max_operands >= 0 && args->noperands > verb->max_operands)
        return cli_usage(verb, "%s: unexpected argument '%s'", verb->name, args->operands[verb->max_operands]);
    if (verb->output && !args->output)
        return cli_usage(verb, "%s: -o %s is missing", verb->name, verb->output);
    for (int i = 0; i < args->noperands; i++)
        if (!*args->operands[i])
            return cli_usage(verb, "%s: an argument is empty", verb->name);
    return CLI_DONE;
}

int cli_parse(const cli_verb *verb, int argc, char **argv, cli_args *args) {
    struct option longs[NROWS + 2]; /* one may have two names */
    char shorts[2 * NROWS + 2];
    memset(args, 0, sizeof *args);
    args->verb = verb;
    args->sets = cli_alloc(((size_t)argc + 1) * sizeof *args->sets);
    getopt_tables(verb, longs, shorts);
    opterr = 0;
    for (;;) {
        int last = optind;
        int found = getopt_long(argc, argv, shorts, longs, NULL);
        if (found == -1)
            break;
        if (found == '?' || found == ':') {
            /* optopt is a known option's val when only its value is wrong, and a letter or 0 when the option is unknown. */
            const char *word = argv[optind > last ? optind - 1 : last];
            char letter[3] = {'-', (char)optopt, 0};
            bool is_long = !strncmp(word, "--", 2);
            if (found == ':')
                return cli_usage(verb, "option '%s' wants a value", is_long ? word : letter);
            if (is_long && optopt)
                return cli_usage(verb, "option '--%s' takes no value", rows[optopt].name);
            if (is_long && strlen(word) > 3) {
                int matches = 0;
                for (const struct option *o = longs; o->name; o++)
                    matches += !strncmp(o->name, word + 2, strcspn(word + 2, "="));
                if (matches > 1)
                    return cli_usage(verb, "option '%s' is ambiguous", word);
            }
            return unknown_option(verb, longs, is_long || !optopt ? word : letter);
        }
        int status = take_option(verb, option_of(verb, found), optarg ? optarg : "", args);
        if (status != CLI_DONE)
            return status;
    }
    args->noperands = argc - optind;
    args->operands = argv + optind;
    return args->help ? CLI_DONE : check_complete(verb, args);
}

void cli_args_free(cli_args *args) {
    free(args->sets);
    args->sets = NULL;
}

/* ---- Manual pages -------------------------------------------------------------------------------------------------- */

/* Prints text indented, line by line. */
static void print_section(const char *title, const char *text) {
    printf("\n%s\n", title);
    while (*text) {
        size_t n = strcspn(text, "\n");
        printf(n ? "  %.*s\n" : "%.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void print_synopsis(const cli_verb *verb) {
    int column = printf("  lowbit %s %s", verb->name, verb->operands);
    for (const cli_option *o = verb->options; *o != CLI_OPTIONS_END; o++) {
        const option_row *row = &rows[*o];
        char text[64];
        if (*o == CLI_OUTPUT && verb->output)
            snprintf(text, sizeof text, " -%c %s", row->letter, verb->output);
        else if (row->letter && row->arg)
            snprintf(text, sizeof text, " [-%c %s]", row->letter, row->arg);
        else
            snprintf(text, sizeof text, " [--%s%s%s]%s", row->name, row->arg ? " " : "", row->arg ? row->arg : "",
                     *o == CLI_SET ? "..." : "");
        if (column + (int)strlen(text) > 100)
            column = printf("\n        ") - 1;
        column += printf("%s", text);
    }
    putchar('\n');
}

void cli_print_help(const cli_verb *verb) {
    printf("lowbit %s: %s\n\nSYNOPSIS\n", verb->name, verb->summary);
    print_synopsis(verb);
    print_section("DESCRIPTION", verb->description);
    printf("\nOPTIONS\n");
    for (const cli_option *o = verb->options;; o++) {
        const option_row *row = &rows[*o == CLI_OPTIONS_END ? CLI_HELP : *o];
        char flags[64], letter[8] = "    ";
        if (row->letter)
            snprintf(letter, sizeof letter, "-%c, ", row->letter);
        snprintf(flags, sizeof flags, "%s--%s%s%s", letter, row->name, row->arg ? " " : "", row->arg ? row->arg : "");
        printf("  %-21s  %s\n", flags, row->help);
        if (*o == CLI_OPTIONS_END)
            break;
    }
    if (verb->files)
        print_section("FILES", verb->files);
    if (verb->examples)
        print_section("EXAMPLES", verb->examples);
    printf("\nEXIT STATUS\n  0  done\n  1  failed: %s\n  2  wrong usage\n  128 + N  stopped by signal N: 130 after Ctrl-C\n",
           verb->exit_failed);
}

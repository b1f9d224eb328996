/* The lowbit program: finds the verb, reads its options, gives it a context and checks that its results were written. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_verb *const verbs[] = {&cli_verb_train,   &cli_verb_eval,  &cli_verb_pack,    &cli_verb_run, &cli_verb_verify,
                                        &cli_verb_inspect, &cli_verb_bench, &cli_verb_compare, &cli_verb_import, &cli_verb_export,
                                        &cli_verb_codegen, &cli_verb_list};
#define NVERBS (sizeof verbs / sizeof *verbs)

static void print_overview(FILE *file) {
    fputs("lowbit trains neural networks with 1- to 8-bit weights and activations and runs them with integers only.\n\n"
          "usage: lowbit VERB [OPTION]...\n\n",
          file);
    for (size_t i = 0; i < NVERBS; i++) {
        const cli_verb *v = verbs[i];
        char operands[64];
        snprintf(operands, sizeof operands, "%s%s%s", v->operands, v->output ? " -o " : "", v->output ? v->output : "");
        fprintf(file, "  lowbit %-8s %-19s %s\n", v->name, operands, v->summary);
    }
    fputs("\n"
          "'lowbit VERB --help' is the manual of a verb; 'lowbit --version' prints the version.\n"
          "Results go to standard output, progress and errors to standard error. Exit status: 0 done, 1 failed, 2 wrong usage,\n"
          "128 + N stopped by signal N: 130 after Ctrl-C.\n",
          file);
}

static const cli_verb *find_verb(const char *name) {
    for (size_t i = 0; i < NVERBS; i++)
        if (!strcmp(name, verbs[i]->name))
            return verbs[i];
    return NULL;
}

static int unknown_verb(const char *name) {
    const char *names[NVERBS];
    for (size_t i = 0; i < NVERBS; i++)
        names[i] = verbs[i]->name;
    const char *near = lb_nearest(name, names, NVERBS);
    if (name[0] == '-')
        return cli_usage(NULL, "unknown option '%s'", name);
    if (near)
        return cli_usage(NULL, "unknown verb '%s'; did you mean '%s'?", name, near);
    return cli_usage(NULL, "unknown verb '%s'", name);
}

/* What was printed must have arrived: a full disk is an error, a reader that left early is not worth a word. */
static int finish_output(int status) {
    int failed = fflush(stdout) != 0 || ferror(stdout);
    if (!failed)
        return status;
    if (errno == EPIPE)
        return status == CLI_DONE ? CLI_FAILED : status;
    int code = errno;
    return cli_fail("standard output: cannot write the results: %s", code ? strerror(code) : "write error");
}

static int run_verb(const char *program, const cli_verb *verb, int argc, char **argv) {
    cli_args args;
    int status = cli_parse(verb, argc, argv, &args);
    args.program = program;
    if (status == CLI_DONE && args.help) {
        cli_print_help(verb);
    } else if (status == CLI_DONE) {
        lb_ctx *ctx = NULL;
        lb_ctx_options options = {.threads = args.threads, .report = cli_report, .user = &args};
        if (lb_ctx_create(&options, &ctx) != LB_OK) {
            status = cli_fail("cannot start: out of memory");
        } else {
            cli_catch_signals(ctx);
            status = verb->run(ctx, &args);
            cli_release_signals();
        }
        cli_term_clear();
        lb_ctx_destroy(ctx);
        if (cli_interrupted())
            cli_end_by_signal();
    }
    cli_args_free(&args);
    return status;
}

/* A standard stream that is closed must not become the number of a file of the run, which messages would then be written to. It is
 * opened the wrong way round, so that using it stays an error. */
static void keep_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            exit(CLI_FAILED);
}

int main(int argc, char **argv) {
    keep_streams();
    signal(SIGPIPE, SIG_IGN); /* a reader that leaves must not stop a training; finish_output sees it */
    cli_term_init();
    if (argc < 2) {
        print_overview(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    int status = CLI_DONE;
    if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
        printf("lowbit %s\n", LB_VERSION);
    } else if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2)) {
        print_overview(stdout);
    } else if (!strcmp(word, "help")) {
        const cli_verb *verb = find_verb(argv[2]);
        if (verb)
            cli_print_help(verb);
        else
            status = unknown_verb(argv[2]);
    } else {
        const cli_verb *verb = find_verb(word);
        status = verb ? run_verb(argv[0], verb, argc - 1, argv + 1) : unknown_verb(word);
    }
    return finish_output(status);
}

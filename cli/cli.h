/* The lowbit program: one table of verbs (main.c), one file per verb, and what they share. This is the only folder that prints:
 * results go to standard output, progress and errors to standard error. */
#ifndef LB_CLI_H
#define LB_CLI_H

#include <stdio.h>

#include <jansson.h>

#include "lowbit/lowbit.h"
#include "lowbit/lowbit_rt.h"

/* Exit statuses. */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* ---- Command line (args.c) ----------------------------------------------------------------------------------------- */

/* Every option there is; a verb lists those it takes. */
typedef enum cli_option {
    CLI_OPTIONS_END,
    CLI_SET, CLI_OUT, CLI_RESUME, CLI_SEED, CLI_DATA, CLI_OUTPUT, CLI_DRAW, CLI_TEST,
    CLI_STEPS, CLI_BATCH, CLI_RUNS, CLI_FORMAT, CLI_OPSET, CLI_EXACT, CLI_RULES, CLI_ISA, CLI_PROFILE,
    CLI_JSON, CLI_THREADS, CLI_QUIET, CLI_HELP
} cli_option;

typedef struct cli_args {
    const char *program;     /* as it was called, for commands that the user can copy */
    const struct cli_verb *verb;
    int noperands;
    char **operands;         /* (noperands) borrowed from argv */
    int nsets;
    const char **sets;       /* (nsets) "a.b=value", --seed included, in the order given: the last counts */
    const char *out;         /* --out */
    const char *output;      /* -o */
    const char *data;        /* --data */
    const char *format;      /* --format */
    const char *isa;         /* --isa */
    bool resume, draw, exact, profile, rules, json, quiet, help;
    int threads;             /* 0: not given; so are the next */
    int test, steps, batch, runs, opset;
    char seed_set[64];       /* storage of --seed as a set */
} cli_args;

/* One verb: how it is called, its manual and what runs it. */
typedef struct cli_verb {
    const char *name, *summary;
    const char *operands;           /* as the synopsis shows them, e.g. "RUN|MODEL" */
    int min_operands, max_operands; /* max -1: any number */
    const char *output;             /* what -o names, e.g. "DIR", where it must be given; NULL: it may be left out */
    const cli_option *options;      /* ends with CLI_OPTIONS_END */
    const char *description;        /* paragraphs, wrapped */
    const char *files, *examples;   /* may be NULL */
    const char *exit_failed;        /* what exit status 1 means */
    bool notes;                     /* shows the library's notes: choices that matter when training */
    int (*run)(lb_ctx *ctx, const cli_args *args);
} cli_verb;

extern const cli_verb cli_verb_train, cli_verb_eval, cli_verb_pack, cli_verb_run, cli_verb_verify, cli_verb_inspect, cli_verb_bench,
    cli_verb_compare, cli_verb_list, cli_verb_import, cli_verb_export, cli_verb_codegen;

/* Fills *args from argv, where argv[0] is the verb. Returns CLI_DONE, or CLI_USAGE or CLI_FAILED with the error printed. */
int cli_parse(const cli_verb *verb, int argc, char **argv, cli_args *args);
void cli_args_free(cli_args *args);

/* The manual page of a verb, on standard output. */
void cli_print_help(const cli_verb *verb);

/* ---- Errors and progress (term.c) ---------------------------------------------------------------------------------- */

/* One line "lowbit: error: ..." on standard error; returns CLI_FAILED. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same with "(try 'lowbit VERB --help')" behind it; returns CLI_USAGE. verb may be NULL. */
int cli_usage(const cli_verb *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The library's last error; returns CLI_FAILED. */
int cli_library_error(const lb_ctx *ctx);

/* Reads the terminal's abilities; once, first. */
void cli_term_init(void);

/* The context's callback: bar on a terminal, else a plain line at most every ten seconds. user: const cli_args *. */
void cli_report(void *user, const lb_event *event);

/* Wipes the progress bar, before anything else is printed. */
void cli_term_clear(void);

bool cli_colour(FILE *file);   /* colours are fine there: a terminal, and NO_COLOR is not set */
bool cli_shown(void);          /* standard output is a terminal, be it one without colours */
bool cli_utf8(void);           /* the locale's characters are UTF-8 */

/* Draws an image (h, w, c), c = 1 or 3, in at most `columns` characters; beside its first lines stand those of `captions`. */
void cli_draw(const uint8_t *pixels, int h, int w, int c, int columns, const char *const *captions, int ncaptions);

/* ---- Signals (signals.c) ------------------------------------------------------------------------------------------- */

/* From now on SIGINT, SIGTERM and SIGHUP interrupt what runs in this context; the same one again kills. */
void cli_catch_signals(lb_ctx *ctx);
/* Back to what they did; before the context is destroyed. */
void cli_release_signals(void);
bool cli_interrupted(void);   /* a signal came */
void cli_end_by_signal(void); /* as if it had not been caught; results printed so far are written first */

/* ---- Output (output.c) --------------------------------------------------------------------------------------------- */

/* Prints one object and frees it. Returns CLI_DONE. */
int cli_print_json(json_t *object);

/* A number, or null where it is not finite. */
json_t *cli_json_real(double value);

/* A text. JSON knows UTF-8 only: of a file's name in another encoding, what is not ASCII becomes '?'. */
json_t *cli_json_text(const char *text);

/* 1234567 -> "1,234,567". Returns text (at least 32 bytes). */
const char *cli_commas(char *text, int64_t value);

/* What a packed model's size is beside that in float: "14.0 times smaller", "3 % larger". Returns text (at least 64 bytes). */
const char *cli_smaller(char *text, int64_t bytes, int64_t float_bytes);

/* " PROGRAM VERB OPERAND" for the user to copy: the program as it was called, words quoted where the shell wants it. */
void cli_print_command(FILE *file, const cli_args *args, const char *verb, const char *operand);

/* A table: rows of cells, aligned when printed. `align` has one of "<>" per column. */
typedef struct cli_table {
    const char *align;
    int nrows, capacity;
    char **cells; /* (nrows, strlen(align)) */
} cli_table;

void cli_table_init(cli_table *table, const char *align);
/* Adds a row: tab-separated cells; a missing one is empty. */
void cli_table_row(cli_table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints (the first row is the head) and frees. */
void cli_table_print(cli_table *table);
void cli_table_free(cli_table *table);

/* calloc, realloc of an array and strdup that end the program with an error when memory is out. */
void *cli_alloc(size_t size);
void *cli_grow(void *array, size_t count, size_t size); /* count > 0 */
char *cli_strdup(const char *text);

/* ---- Profile of a packed model (profile.c) ------------------------------------------------------------------------- */

/* Times and prints each layer. */
int cli_profile_model(lb_ctx *ctx, lb_packed *model, const cli_args *args);

/* ---- Files (files.c) ---------------------------------------------------------------------------------------------------- */

/* CLI_DONE if a result may be written there: no file, or one whose first bytes `ours` knows (up to 16 of them), so that a recipe or
 * a checkpoint is not replaced by mistake; else CLI_FAILED with the error printed. kind: "a packed model". */
int cli_check_output(const char *path, const char *kind, bool (*ours)(const unsigned char *head, size_t size));

char *cli_join(const char *dir, const char *name); /* "dir/name"; free() */
bool cli_exists(const char *path);
bool cli_is_dir(const char *path);
bool cli_is_same_file(const char *a, const char *b); /* both exist, and the two paths lead to one file or directory */
bool cli_is_recipe(const char *path);              /* named .yaml or .yml */

/* ---- Run directories (rundir.c) ------------------------------------------------------------------------------------ */

typedef struct cli_setting {
    char *key, *value; /* "quant.weights.bits", "2" */
} cli_setting;

/* What a run directory's recipe.yaml and metrics.jsonl say. */
typedef struct cli_run {
    const char *dir;
    int nsettings;
    cli_setting *settings;
    double epochs;         /* finished, of all stages */
    bool done;             /* trained to its end */
    double best, last;     /* top-1 of the last stage's best epoch and of the last one, percent; NaN: none yet */
    double minutes;        /* of all epochs, evaluation included */
    double best_epoch;
    double images_per_s;   /* median of the epochs */
    double weight_bits;    /* mean of all weights after the last epoch; NaN: none yet */
    int64_t packed;        /* bytes of model.lbm, -1: not packed */
} cli_run;

/* Returns CLI_DONE or CLI_FAILED with the error printed. Free either way. */
int cli_run_read(const char *dir, cli_run *run);
void cli_run_free(cli_run *run);

/* A setting's value in the last stage, or NULL. */
const char *cli_run_get(const cli_run *run, const char *key);

#endif

/* JSON, tables and numbers on standard output. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void *or_exit(void *ptr) {
    if (!ptr) {
        cli_fail("out of memory");
        exit(CLI_FAILED);
    }
    return ptr;
}

void *cli_alloc(size_t size) { return or_exit(calloc(1, size ? size : 1)); }

void *cli_grow(void *array, size_t count, size_t size) { return or_exit(realloc(array, count * size)); }

char *cli_strdup(const char *text) { return strcpy(cli_alloc(strlen(text) + 1), text); }

int cli_print_json(json_t *object) {
    if (!object)
        return cli_fail("out of memory");
    cli_term_clear();
    json_dumpf(object, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(8));
    putchar('\n');
    json_decref(object);
    return CLI_DONE;
}

json_t *cli_json_real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

json_t *cli_json_text(const char *text) {
    json_t *result = json_string(text);
    if (result)
        return result;
    char *copy = cli_strdup(text);
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    result = json_string(copy);
    free(copy);
    return result;
}

const char *cli_commas(char *text, int64_t value) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)(value < 0 ? -value : value)), used = 0;
    if (value < 0)
        text[used++] = '-';
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = 0;
    return text;
}

/* ---- Tables -------------------------------------------------------------------------------------------------------- */

/* Prints a word as the shell wants it. */
static void print_word(FILE *file, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=:,+-";
    if (*word && strspn(word, plain) == strlen(word)) {
        fprintf(file, " %s", word);
        return;
    }
    fputs(" '", file);
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", file);
        else
            fputc(*word, file);
    fputc('\'', file);
}

void cli_print_command(FILE *file, const cli_args *args, const char *verb, const char *operand) {
    char *named = *operand == '-' ? cli_join(".", operand) : NULL; /* no option */
    print_word(file, args->program);
    fprintf(file, " %s", verb);
    print_word(file, named ? named : operand);
    free(named);
}

const char *cli_smaller(char *text, int64_t bytes, int64_t float_bytes) {
    const double ratio = bytes > 0 ? (double)float_bytes / (double)bytes : 0;
    if (ratio >= 1.05)
        snprintf(text, 64, "%.1f times smaller", ratio);
    else if (bytes == float_bytes || float_bytes <= 0)
        snprintf(text, 64, "no smaller");
    else
        snprintf(text, 64, "%.2g %% %s", 100 * fabs(1 - (double)bytes / (double)float_bytes), ratio > 1 ? "smaller" : "larger");
    return text;
}

void cli_table_init(cli_table *table, const char *align) { *table = (cli_table){.align = align}; }

void cli_table_row(cli_table *table, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int size = vsnprintf(NULL, 0, fmt, args);
    char *text = cli_alloc((size_t)(size > 0 ? size : 0) + 1);
    vsnprintf(text, (size_t)(size > 0 ? size : 0) + 1, fmt, again);
    va_end(again);
    va_end(args);
    size_t columns = strlen(table->align);
    if (table->nrows == table->capacity) {
        table->capacity = table->capacity ? 2 * table->capacity : 16;
        table->cells = cli_grow(table->cells, (size_t)table->capacity * columns, sizeof *table->cells);
    }
    char *next = text;
    for (size_t c = 0; c < columns; c++) {
        char *cell = next;
        next += strcspn(next, "\t");
        if (*next)
            *next++ = 0;
        table->cells[(size_t)table->nrows * columns + c] = cli_strdup(cell);
    }
    table->nrows++;
    free(text);
}

/* Characters that a UTF-8 text takes on the screen (all of ours are one wide). */
static int screen_width(const char *text) {
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void cli_table_print(cli_table *table) {
    size_t columns = strlen(table->align);
    int *width = cli_alloc((columns + 1) * sizeof *width);
    for (int r = 0; r < table->nrows; r++)
        for (size_t c = 0; c < columns; c++) {
            int n = screen_width(table->cells[(size_t)r * columns + c]);
            width[c] = n > width[c] ? n : width[c];
        }
    cli_term_clear();
    for (int r = 0; r < table->nrows; r++) {
        if (r == 0 && cli_colour(stdout))
            fputs("\033[1m", stdout);
        for (size_t c = 0; c < columns; c++) {
            char *cell = table->cells[(size_t)r * columns + c];
            int pad = width[c] - screen_width(cell);
            bool last = c + 1 == columns;
            printf("%*s%s%*s", table->align[c] == '>' ? pad : 0, "", cell, table->align[c] == '<' && !last ? pad : 0, "");
            fputs(last ? "" : "  ", stdout);
        }
        fputs(r == 0 && cli_colour(stdout) ? "\033[0m\n" : "\n", stdout);
    }
    free(width);
    cli_table_free(table);
}

void cli_table_free(cli_table *table) {
    for (size_t i = 0; i < (size_t)table->nrows * strlen(table->align); i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (cli_table){.align = table->align};
}

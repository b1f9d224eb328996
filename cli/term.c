/* Errors, progress and pictures on the terminal. */
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define LINE_EVERY 10.0 /* seconds between plain progress lines */
#define DRAW_EVERY 0.1 /* seconds between redraws of the bar */

static struct {
    bool err_tty, out_tty, plain, utf8;
    bool shown; /* a bar stands on the last line */
    char task[64]; /* what the progress is about */
    int64_t first, total; /* where it was when it began */
    double began, drawn;
} term;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_term_init(void) {
    const char *no_colour = getenv("NO_COLOR"), *kind = getenv("TERM");
    setlocale(LC_CTYPE, "");
    term.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
    term.plain = (no_colour && *no_colour) || (kind && !strcmp(kind, "dumb"));
    term.err_tty = isatty(STDERR_FILENO) && !(kind && !strcmp(kind, "dumb"));
    term.out_tty = isatty(STDOUT_FILENO);
}

bool cli_colour(FILE *file) { return !term.plain && (file == stderr ? term.err_tty : term.out_tty); }
bool cli_shown(void) { return term.out_tty; }
bool cli_utf8(void) { return term.utf8; }

void cli_term_clear(void) {
    if (term.shown)
        fputs("\r\033[K", stderr);
    term.shown = false;
}

/* ---- Errors -------------------------------------------------------------------------------------------------------- */

/* One line whatever the text holds: line breaks and other control characters become spaces. */
static void print_message(const char *kind, const char *colour, const char *text, const char *tail) {
    bool coloured = cli_colour(stderr);
    cli_term_clear();
    fprintf(stderr, "lowbit: %s%s%s: ", coloured ? colour : "", kind, coloured ? "\033[0m" : "");
    for (const char *c = text; *c; c++)
        fputc((unsigned char)*c < 32 || *c == 127 ? ' ' : *c, stderr);
    fprintf(stderr, "%s\n", tail);
}

static void print_error(const char *text, const char *tail) { print_message("error", "\033[1;31m", text, tail); }

int cli_fail(const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    print_error(text, "");
    return CLI_FAILED;
}

int cli_usage(const cli_verb *verb, const char *fmt, ...) {
    char text[1024], tail[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    snprintf(tail, sizeof tail, " (try 'lowbit %s%s--help')", verb ? verb->name : "", verb ? " " : "");
    print_error(text, tail);
    return CLI_USAGE;
}

int cli_library_error(const lb_ctx *ctx) {
    const char *text = lb_error(ctx);
    print_error(*text ? text : "unknown failure", "");
    return CLI_FAILED;
}

/* ---- Progress ------------------------------------------------------------------------------------------------------ */

static int columns(int fd) {
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* "1:02:03" or "4:05". */
static void format_time(char *text, size_t size, double seconds) {
    long s = lrint(seconds > 0 ? seconds : 0);
    if (s >= 3600)
        snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size, "%ld:%02ld", s / 60, s % 60);
}

/* What is known beside the bar: loss, accuracy, images/s, time left; in few columns the time left and what fits before it. */
static void format_figures(char *text, size_t size, int room, const lb_event *event, double elapsed) {
    char commas[32], time[32], parts[3][48] = {"", "", ""}, left[48] = "";
    if (isfinite(event->loss) && event->loss != 0)
        snprintf(parts[0], sizeof parts[0], "  loss %.3f", event->loss);
    if (isfinite(event->top1) && event->top1 != 0)
        snprintf(parts[1], sizeof parts[1], "  top-1 %.1f %%", event->top1);
    if (isfinite(event->rate) && event->rate > 0)
        snprintf(parts[2], sizeof parts[2], "  %s images/s", cli_commas(commas, llrint(event->rate)));
    if (event->done > term.first && elapsed > 0.5) {
        format_time(time, sizeof time, elapsed * (double)(event->total - event->done) / (double)(event->done - term.first));
        snprintf(left, sizeof left, "  %s left", time);
    }
    room -= (int)strlen(left);
    text[0] = 0;
    for (int i = 0; i < 3 && (int)strlen(parts[i]) <= room; i++) {
        room -= (int)strlen(parts[i]);
        strncat(text, parts[i], size - strlen(text) - 1);
    }
    if (room >= 0)
        strncat(text, left, size - strlen(text) - 1);
}

static void draw_bar(const char *task, double part, const char *figures) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const int room = columns(STDERR_FILENO) - 7;
    int width = room - 2 - (int)strlen(task) - (int)strlen(figures);
    char bar[512] = "";
    width = width > 40 ? 40 : width;
    if (width >= 5) {
        int parts = (int)(part * width * 8), n = 0;
        for (int i = 0; i < width; i++) {
            int fill = parts - 8 * i;
            const char *cell = fill >= 8 ? (term.utf8 ? "█" : "#") : fill > 0 && term.utf8 ? eighths[fill] : term.utf8 ? " " : "-";
            n += snprintf(bar + n, sizeof bar - (size_t)n, "%s", cell);
        }
    }
    bool coloured = cli_colour(stderr);
    const char *edge = term.utf8 ? "▕" : "[", *end = term.utf8 ? "▏" : "]";
    if (width >= 5)
        fprintf(stderr, "\r\033[K%s %s%s%s%s%s %3d%%%s", task, edge, coloured ? "\033[32m" : "", bar, coloured ? "\033[0m" : "",
                end, (int)(100 * part), figures);
    else
        fprintf(stderr, "\r\033[K%.*s %3d%%%s", room > 0 ? room : 0, task, (int)(100 * part), figures);
    fflush(stderr);
    term.shown = true;
}

static void report_progress(const lb_event *event) {
    double time = now();
    const char *task = event->text ? event->text : "working";
    if (strncmp(task, term.task, sizeof term.task - 1) || event->total != term.total || event->done < term.first) {
        snprintf(term.task, sizeof term.task, "%s", task);
        term.first = event->done;
        term.total = event->total;
        term.began = time;
        term.drawn = term.err_tty ? 0 : time; /* the first plain line after ten seconds */
    }
    bool complete = event->total > 0 && event->done >= event->total;
    if (event->total <= 0 || (term.err_tty ? time - term.drawn < DRAW_EVERY && !complete : time - term.drawn < LINE_EVERY))
        return;
    term.drawn = time;
    double part = (double)event->done / (double)event->total;
    part = part > 1 ? 1 : part;
    char figures[192];
    format_figures(figures, sizeof figures, term.err_tty ? columns(STDERR_FILENO) - (int)strlen(term.task) - 6 : INT_MAX, event,
                   time - term.began);
    if (term.err_tty)
        draw_bar(term.task, part, figures);
    else
        fprintf(stderr, "%s: %d%%%s\n", term.task, (int)(100 * part), figures);
}

void cli_report(void *user, const lb_event *event) {
    const cli_args *args = user;
    const char *text = event->text ? event->text : "";
    if (event->kind == LB_EVENT_WARNING) {
        print_message("warning", "\033[1;33m", text, "");
    } else if (!args->quiet && event->kind == LB_EVENT_PROGRESS) {
        report_progress(event);
    } else if (!args->quiet && (event->kind != LB_EVENT_NOTE || args->verb->notes)) {
        cli_term_clear();
        fprintf(stderr, "%s\n", text);
    }
}

/* ---- Pictures ------------------------------------------------------------------------------------------------------ */

/* Average of the source pixels under one drawn pixel, as RGB. */
static void sample(const uint8_t *pixels, int h, int w, int c, int oh, int ow, int y, int x, int rgb[3]) {
    int y0 = (int)((int64_t)y * h / oh), y1 = (int)((y + INT64_C(1)) * h / oh), x0 = x * w / ow, x1 = (x + 1) * w / ow;
    long sum[3] = {0}, count = 0;
    y1 += y1 == y0;
    x1 += x1 == x0;
    for (int iy = y0; iy < y1 && iy < h; iy++)
        for (int ix = x0; ix < x1 && ix < w; ix++, count++)
            for (int k = 0; k < 3; k++)
                sum[k] += pixels[((size_t)iy * (size_t)w + (size_t)ix) * (size_t)c + (size_t)(c == 3 ? k : 0)];
    for (int k = 0; k < 3; k++)
        rgb[k] = count ? (int)(sum[k] / count) : 0;
}

void cli_draw(const uint8_t *pixels, int h, int w, int c, int columns_wanted, const char *const *captions, int ncaptions) {
    int ow = w < columns_wanted ? w : columns_wanted, oh = (h * ow / w + 1) / 2 * 2;
    bool blocks = cli_colour(stdout) && term.utf8;
    oh = oh < 2 ? 2 : oh;
    for (int y = 0; y < oh; y += 2) {
        for (int x = 0; x < ow; x++) {
            int top[3], low[3];
            sample(pixels, h, w, c, oh, ow, y, x, top);
            sample(pixels, h, w, c, oh, ow, y + 1, x, low);
            if (blocks) {
                printf("\033[38;2;%d;%d;%d;48;2;%d;%d;%dm▀", top[0], top[1], top[2], low[0], low[1], low[2]);
            } else {
                static const char ramp[] = " .:-=+*#%@";
                int grey = (299 * (top[0] + low[0]) + 587 * (top[1] + low[1]) + 114 * (top[2] + low[2])) / 2000;
                putchar(ramp[grey * 10 / 256]);
            }
        }
        if (blocks)
            fputs("\033[0m", stdout);
        int line = y / 2 - 1;
        if (line >= 0 && line < ncaptions)
            printf("   %s", captions[line]);
        putchar('\n');
    }
    for (int line = oh / 2 - 1; line < ncaptions; line++) /* a picture lower than its captions */
        printf("%*s   %s\n", ow, "", captions[line < 0 ? 0 : line]);
}

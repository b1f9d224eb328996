/* lowbit run */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define DRAW_COLUMNS 56
#define BEST 3 /* classes named beside a picture */

typedef struct scored {
    int index;
    double percent;
} scored;

static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    return x->percent != y->percent ? (x->percent < y->percent ? 1 : -1) : x->index - y->index;
}

/* Softmax of the scores in percent, best first. */
static void rank(const float *scores, int classes, scored *ranked) {
    double top = scores[0], sum = 0;
    for (int i = 1; i < classes; i++)
        top = scores[i] > top ? scores[i] : top;
    for (int i = 0; i < classes; i++)
        sum += exp(scores[i] - top);
    for (int i = 0; i < classes; i++)
        ranked[i] = (scored){i, 100 * exp(scores[i] - top) / sum};
    qsort(ranked, (size_t)classes, sizeof *ranked, by_score);
}

typedef struct session {
    const cli_args *args;
    lbrt_info info;
    const lbrt_model *model;
    float *scores; /* (classes) */
    uint8_t *pixels; /* (ih, iw, ic) */
    scored *ranked; /* (classes) */
    json_t *list; /* --json: one object per image */
    bool draw;
} session;

static const char *class_name(const session *s, int i, char spare[32]) {
    const char *name = lbrt_class_name(s->model, i);
    if (name && *name)
        return name;
    snprintf(spare, 32, "class %d", i);
    return spare;
}

/* One output has no classes to choose from: a regression. */
static bool is_number(const session *s) { return s->info.classes == 1; }

static json_t *all_scores(const session *s) {
    json_t *list = json_array();
    for (int i = 0; i < s->info.classes; i++)
        json_array_append_new(list, cli_json_real((double)s->scores[i]));
    return list;
}

static const char *verdict(const session *s, int label) { return label == s->ranked[0].index ? "right, it is" : "wrong, it is"; }

/* The picture with its best classes beside it. */
static void draw(const session *s, const char *image, int label) {
    char text[BEST + 2][256], spare[32];
    const char *lines[BEST + 2];
    int n = 0;
    snprintf(text[n++], sizeof *text, "%s", image);
    if (is_number(s))
        snprintf(text[n++], sizeof *text, "%.6g", (double)s->scores[0]);
    for (int i = 0; i < BEST && i < s->info.classes && !is_number(s); i++) {
        char bar[11] = "";
        memset(bar, '#', (size_t)lrint(s->ranked[i].percent / 10));
        snprintf(text[n++], sizeof *text, "%-10s %5.1f %%  %s", bar, s->ranked[i].percent,
                 class_name(s, s->ranked[i].index, spare));
    }
    if (label >= 0)
        snprintf(text[n++], sizeof *text, "%s %s", verdict(s, label), class_name(s, label, spare));
    for (int i = 0; i < n; i++)
        lines[i] = text[i];
    cli_draw(s->pixels, s->info.ih, s->info.iw, s->info.ic, DRAW_COLUMNS, lines, n);
}

/* One result; label -1: unknown. */
static void print_result(const session *s, const char *image, int label) {
    char spare[32], truth[32];
    int best = s->ranked[0].index;
    const char *name = class_name(s, best, spare);
    cli_term_clear();
    if (s->args->json) {
        json_t *entry = json_pack("{s:o, s:i, s:o, s:o, s:o}", "image", cli_json_text(image), "class", best, "name",
                                  cli_json_text(name), "score", cli_json_real(s->ranked[0].percent), "scores", all_scores(s));
        if (label >= 0)
            json_object_set_new(entry, "truth", json_integer(label));
        json_array_append_new(s->list, entry);
    } else if (s->draw) {
        draw(s, image, label);
    } else if (is_number(s)) {
        printf("%s: %.6g\n", image, (double)s->scores[0]);
    } else if (label >= 0) {
        printf("%s: %s %.1f %% (%s %s)\n", image, name, s->ranked[0].percent, verdict(s, label), class_name(s, label, truth));
    } else {
        printf("%s: %s %.1f %%\n", image, name, s->ranked[0].percent);
    }
}

static int classify(lb_ctx *ctx, lb_packed *model, session *s) {
    const cli_args *args = s->args;
    int right = 0, result = CLI_DONE;
    for (int i = 0; i < args->noperands - 1 && !cli_interrupted(); i++) {
        if (lb_packed_classify(model, args->operands[i + 1], s->scores, s->pixels) != LB_OK) {
            result = cli_library_error(ctx); /* the other images are still worth an answer */
            continue;
        }
        rank(s->scores, s->info.classes, s->ranked);
        print_result(s, args->operands[i + 1], -1);
    }
    for (int i = 0; i < args->test && !cli_interrupted(); i++) {
        char name[32];
        int label = -1;
        if (lb_packed_classify_test(model, args->data, i, s->scores, s->pixels, &label) != LB_OK)
            return cli_library_error(ctx);
        snprintf(name, sizeof name, "test image %d", i);
        rank(s->scores, s->info.classes, s->ranked);
        print_result(s, name, label);
        right += s->ranked[0].index == label;
    }
    if (args->test && !args->json && !cli_interrupted())
        printf("%d of %d right\n", right, args->test);
    return result;
}

static int run(lb_ctx *ctx, const cli_args *args) {
    lb_packed *model = NULL;
    session s = {.args = args, .draw = args->draw || cli_shown()};
    if (args->noperands < 2 && !args->test)
        return cli_usage(args->verb, "run: IMAGE is missing (or give --test N)");
    if (args->draw && args->json)
        return cli_usage(args->verb, "run: --draw prints pictures, --json an object; give one of them");
    if (args->data && !args->test)
        return cli_usage(args->verb, "run: --data is for --test N");
    if (lb_packed_load(ctx, args->operands[0], &model) != LB_OK)
        return cli_library_error(ctx);
    s.model = lb_packed_model(model);
    lbrt_model_info(s.model, &s.info);
    s.scores = cli_alloc((size_t)s.info.classes * sizeof *s.scores);
    s.ranked = cli_alloc((size_t)s.info.classes * sizeof *s.ranked);
    s.pixels = cli_alloc((size_t)s.info.ih * (size_t)s.info.iw * (size_t)s.info.ic);
    s.list = json_array();
    int result = classify(ctx, model, &s);
    if (args->json && json_array_size(s.list) && /* some may have been classified before one failed */
        cli_print_json(json_pack("{s:O}", "images", s.list)) != CLI_DONE)
        result = CLI_FAILED;
    json_decref(s.list);
    free(s.scores);
    free(s.ranked);
    free(s.pixels);
    lb_packed_destroy(model);
    return result;
}

static const cli_option options[] = {CLI_DRAW, CLI_TEST, CLI_DATA, CLI_JSON, CLI_THREADS, CLI_QUIET, CLI_OPTIONS_END};

const cli_verb cli_verb_run = {
    .name = "run",
    .summary = "classify images with a packed model",
    .operands = "MODEL.lbm IMAGE...",
    .min_operands = 1,
    .max_operands = -1,
    .options = options,
    .description =
        "Prints, for each image file (JPEG or PNG), the class and its score: the softmax of the network's outputs, in\n"
        "percent. An image is resized and cropped as the recipe's test images were. All arithmetic of the network is\n"
        "the integer runtime's. On a terminal, or with --draw, the image is drawn too, as the network sees it: in colour\n"
        "where the terminal has colours and UTF-8, else in characters.\n"
        "\n"
        "A network of one output, a regression, has a number in place of class and score.\n"
        "\n"
        "--json prints {\"images\": [{\"image\", \"class\", \"name\", \"score\", \"scores\"}]}, with \"truth\" under --test;\n"
        "\"scores\" are all outputs of the network, before the softmax.",
    .examples = "lowbit run runs/quickstart/model.lbm shoe.png shirt.jpg\nlowbit run runs/quickstart/model.lbm --test 5 --draw",
    .exit_failed = "the model or an image cannot be read (the other images are classified all the same)",
    .run = run,
};

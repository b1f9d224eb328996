/* For tests that train on real images: a context that watches and interrupts, recipes, run directories, their files. */
#ifndef LB_TEST_RUNS_H
#define LB_TEST_RUNS_H

#include "support.h"

#include <sys/stat.h>
#include <unistd.h>

#include "recipe/recipe.h"

#define DATA "/usr/share/datasets/fashion-mnist"

enum {
    MAX_EPOCHS = 64,
    SKIP_ALL = 77 /* a program's status when it could not test anything: ctest says so (CMakeLists.txt) */
};

typedef struct watcher {
    lb_ctx *ctx;
    int epochs, stop_after;   /* interrupt after so many evaluations; 0: never; -1: in the first one */
    double loss[MAX_EPOCHS];
} watcher;

static inline void watch(void *user, const lb_event *event) {
    watcher *w = user;
    if (w->stop_after < 0 && event->kind == LB_EVENT_PROGRESS && !strcmp(event->text, "testing"))
        lb_interrupt(w->ctx);
    if (event->kind != LB_EVENT_EPOCH)
        return;
    if (w->epochs < MAX_EPOCHS)
        w->loss[w->epochs] = event->loss;
    if (++w->epochs == w->stop_after)
        lb_interrupt(w->ctx);
}

static inline lb_ctx *watched(watcher *w, int stop_after) {
    *w = (watcher){.stop_after = stop_after};
    lb_ctx_options options = {.threads = 2, .report = watch, .user = w};
    assert_int_equal(lb_ctx_create(&options, &w->ctx), LB_OK);
    return w->ctx;
}

static inline bool have_data(void) {
    if (access(DATA, R_OK) == 0)
        return true;
    printf("SKIPPED: %s is not there (package dataset-fashion-mnist)\n", DATA);
    return false;
}

static inline lb_recipe *recipe_of(lb_ctx *ctx, const char *text) {
    lb_recipe *recipe;
    assert_ok(ctx, lb_recipe_parse(ctx, "test.yaml", text, strlen(text), NULL, 0, &recipe));
    return recipe;
}

static inline lb_trainer *trainer_of(lb_ctx *ctx, const lb_recipe *recipe) {
    lb_trainer *trainer;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &trainer));
    return trainer;
}

static inline void destroy_all(lb_ctx *ctx, lb_recipe *recipe, lb_trainer *trainer) {
    lb_trainer_destroy(trainer);
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
}

static inline void make_dir(char *dir) {
    strcpy(dir, "/tmp/lowbit-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static inline void remove_dir(const char *dir) {
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static inline unsigned char *read_all(const char *dir, const char *name, size_t *size) {
    lb_ctx *ctx = test_ctx();
    char path[300];
    unsigned char *data;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(ctx, lb_read_file(ctx, path, 1 << 30, &data, size));
    unsigned char *copy = malloc(*size + 1);
    memcpy(copy, data, *size);
    lb_free(ctx, data);
    lb_ctx_destroy(ctx);
    return copy;
}

static inline char *read_text(const char *dir, const char *name) {
    size_t size;
    char *text = (char *)read_all(dir, name, &size);
    text[size] = 0;
    return text;
}

static inline void assert_same_file(const char *a, const char *b, const char *name) {
    size_t na, nb;
    unsigned char *da = read_all(a, name, &na), *db = read_all(b, name, &nb);
    assert_int_equal(na, nb);
    assert_memory_equal(da, db, na);
    free(da);
    free(db);
}

#endif

#define _XOPEN_SOURCE 700 /* mkdtemp, nftw */
#include "deploy/compiled.h"

#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deploy/codegen/codegen.h"

#define MAX_ARGS 32
#define NOT_FOUND 127 /* the shell's exit status for a command that is not there */

extern char **environ;

typedef void run_fn(const uint8_t *image, int32_t *scores);

struct lb_compiled {
    lb_ctx *ctx;
    void *library;
    run_fn *run;
    size_t image; /* bytes */
    int classes, threads;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* Exit status of $CC (which may be several words) or cc with these arguments, -1 if it cannot be run; its messages go to the file
 * `log`. */
static int run_compiler(const char *log, const char *const *args) {
    static const char script[] = "log=$1; shift; exec ${CC:-cc} \"$@\" >\"$log\" 2>&1";
    const char *argv[MAX_ARGS + 6] = {"sh", "-c", script, "sh", log};
    int n = 5;
    for (; *args && n < MAX_ARGS + 5; args++)
        argv[n++] = *args;
    union {
        const char **from;
        char **to;
    } words = {argv};
    pid_t child;
    int status;
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, words.to, environ) != 0)
        return -1;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static lb_status load(lb_compiled *c, const char *library) {
    union {
        void *from;
        run_fn *to;
    } run;
    c->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    run.from = c->library ? dlsym(c->library, "model_run") : NULL;
    if (!run.from)
        return lb_fail(c->ctx, LB_ERR_BACKEND,
                       "the compiled C cannot be loaded: %s; if programs must not run from there, set TMPDIR to another directory",
                       dlerror());
    c->run = run.to;
    return LB_OK;
}

/* The first line of the compiler's messages that names an error. */
static lb_status compile_failed(lb_ctx *ctx, const char *log, int status) {
    unsigned char *text = NULL;
    size_t size;
    if (lb_interrupted(ctx)) /* Ctrl-C reached the compiler too */
        return lb_fail(ctx, LB_ERR_INTERRUPTED, "interrupted while compiling the generated C");
    if (lb_read_file(ctx, log, (size_t)1 << 24, &text, &size) != LB_OK || !size) {
        lb_free(ctx, text);
        return lb_fail(ctx, LB_ERR_BACKEND, "compiling the generated C failed with status %d", status);
    }
    const char *line = strstr((const char *)text, "error");
    while (line && line > (const char *)text && line[-1] != '\n')
        line--;
    line = line ? line : (const char *)text;
    lb_fail(ctx, LB_ERR_BACKEND, "compiling the generated C failed: %.*s", (int)LB_MIN(strcspn(line, "\n"), 500), line);
    lb_free(ctx, text);
    return LB_ERR_BACKEND;
}

static lb_status compile(lb_compiled *c, lb_pool *pool, lb_packed *model, const char *dir, const char *const *flags, bool *found) {
    const char *source = lb_pool_printf(pool, "%s/c/model.c", dir), *into = lb_pool_printf(pool, "%s/c", dir);
    const char *library = lb_pool_printf(pool, "%s/model.so", dir), *log = lb_pool_printf(pool, "%s/log", dir);
    if (!source || !into || !library || !log)
        return LB_ERR_MEMORY;
    LB_TRY(lb_codegen_sources(model, into, NULL));
    const char *args[MAX_ARGS + 1] = {"-shared", "-fPIC", "-std=c99", "-ffreestanding", "-DMODEL_ARENA_ATTRIBUTE=__thread",
                                      source,    "-o",    library};
    int n = 0;
    while (args[n])
        n++;
    for (; *flags && n < MAX_ARGS; flags++)
        args[n++] = *flags;
    const int status = run_compiler(log, args);
    *found = status != NOT_FOUND;
    if (!*found)
        return LB_OK;
    if (status != 0)
        return compile_failed(c->ctx, log, status);
    return load(c, library);
}

lb_status lb_compiled_create(lb_packed *model, const char *const *flags, lb_compiled **compiled) {
    lb_ctx *ctx = model->ctx;
    lb_compiled *c = lb_alloc(ctx, 1, sizeof *c);
    *compiled = NULL;
    if (!c)
        return LB_ERR_MEMORY;
    *c = (lb_compiled){.ctx = ctx,
                       .image = lbrt_elements(&lbrt_model_graph(model->model)->tensors[0]),
                       .classes = model->info.classes,
                       .threads = model->threads};
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    const char *tmp = getenv("TMPDIR");
    char *dir = lb_pool_printf(&pool, "%s/lowbit-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    bool found = false;
    lb_status status = dir ? LB_OK : LB_ERR_MEMORY;
    if (status == LB_OK && !mkdtemp(dir)) {
        status = lb_fail(ctx, LB_ERR_IO, "%s: cannot make a temporary directory: %s; set TMPDIR", dir, strerror(errno));
    } else if (status == LB_OK) {
        status = compile(c, &pool, model, dir, flags, &found);
        nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
    lb_pool_free(&pool);
    if (status == LB_OK && found)
        *compiled = c;
    else
        lb_compiled_destroy(c);
    return status;
}

void lb_compiled_destroy(lb_compiled *c) {
    if (!c)
        return;
    if (c->library)
        dlclose(c->library);
    lb_free(c->ctx, c);
}

void lb_compiled_scores(const lb_compiled *c, const uint8_t *pixels, int mb, int32_t *scores) {
#pragma omp parallel for num_threads(LB_MAX(LB_MIN(c->threads, mb), 1)) schedule(dynamic)
    for (int i = 0; i < mb; i++)
        c->run(pixels + (size_t)i * c->image, scores + (size_t)i * (size_t)c->classes);
}

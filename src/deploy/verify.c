/* Verification: the trainer's scores against the packed model's and generated C's, image by image. */
#include <assert.h>
#include <stdlib.h>

#include "deploy/compiled.h"
#include "train/trainer.h"

#define BATCH 256
#define MOST_COMPILED ((size_t)32 << 20) /* bytes of a packed model: gcc takes 70 times as many for the constants it becomes */

enum { PATH_TRAINER, PATH_ISAS };

/* All floats in the packed runtime's order, also where the evaluations during training let oneDNN choose one. */
static lb_status make_evaluator(lb_trainer *t, lb_evaluator **evaluator) {
    LB_TRY(lb_evaluator_create(t->ctx, t->net, t->data->mean, t->data->std, BATCH, evaluator));
    lb_evaluator_set_ordered(*evaluator, true);
    return lb_evaluator_update(*evaluator);
}

static void compare(const int32_t *want, const int32_t *got, int n, int classes, lb_verify_path *path) {
    for (int i = 0; i < n; i++, want += classes, got += classes) {
        int64_t worst = 0;
        for (int c = 0; c < classes; c++)
            worst = LB_MAX(worst, llabs((int64_t)want[c] - got[c]));
        path->equal += worst == 0;
        path->predictions_equal += lbrt_argmax(want, classes) == lbrt_argmax(got, classes);
        path->max_abs_diff = LB_MAX(path->max_abs_diff, (double)worst / LBRT_SCORE_ONE);
    }
}

/* The path of instruction sets, then that of generated C, if it could be compiled. */
static lb_status compare_all(lb_trainer *t, lb_evaluator *evaluator, lb_packed *model, const lb_compiled *compiled, lb_pool *pool,
                             lb_verify_result *result) {
    const int nisas = result->npaths - PATH_ISAS - (compiled != NULL);
    const lb_shape *input = &t->net->nodes[0].dst;
    const int classes = t->net->classes;
    const int64_t count = t->data->split[LB_TEST].count;
    uint8_t *pixels = lb_pool_alloc(pool, BATCH, lb_shape_count(input));
    int32_t *labels = lb_pool_alloc(pool, BATCH, sizeof *labels);
    int32_t *want = lb_pool_alloc(pool, BATCH * (size_t)classes, sizeof *want);
    int32_t *got = lb_pool_alloc(pool, BATCH * (size_t)classes, sizeof *got);
    if (!pixels || !labels || !want || !got)
        return LB_ERR_MEMORY;
    for (int64_t first = 0; first < count; first += BATCH) {
        const int n = (int)LB_MIN((int64_t)BATCH, count - first);
        LB_TRY(lb_test_batch(t->data, &t->config->data, LB_TEST, first, n, input->h, input->w, pixels, labels));
        LB_TRY(lb_evaluator_run(evaluator, pixels, n, want));
        compare(want, want, n, classes, &result->paths[PATH_TRAINER]);
        for (int i = 0; i < nisas; i++) {
            LB_TRY(lb_packed_set_isa(model, (lbrt_isa)i));
            LB_TRY(lb_packed_scores(model, pixels, n, got));
            compare(want, got, n, classes, &result->paths[PATH_ISAS + i]);
        }
        if (compiled) {
            lb_compiled_scores(compiled, pixels, n, got);
            compare(want, got, n, classes, &result->paths[PATH_ISAS + nisas]);
        }
        result->images += n;
        lb_progress(t->ctx, "verifying", first + n, count);
        if (lb_interrupted(t->ctx))
            return lb_fail(t->ctx, LB_ERR_INTERRUPTED, "interrupted while verifying");
    }
    return LB_OK;
}

static lb_status verify(lb_trainer *t, lb_packed *model, lb_verify_result *result) {
    const lb_shape *input = &t->net->nodes[0].dst;
    const lbrt_info *info = &model->info;
    if (info->ih != input->h || info->iw != input->w || info->ic != input->c || info->classes != t->net->classes)
        return lb_fail(t->ctx, LB_ERR_SHAPE,
                       "%s takes %d x %d x %d and gives %d classes, its run's %s takes %d x %d x %d and gives %d; pack it again",
                       model->name, info->ih, info->iw, info->ic, info->classes, t->net->name, input->h, input->w, input->c,
                       t->net->classes);
    LB_TRY(lb_trainer_need_images(t));
    if (t->data->split[LB_TEST].count == 0)
        return lb_fail(t->ctx, LB_ERR_UNSUPPORTED, "%s has no test images", t->data->source);
    *result = (lb_verify_result){.npaths = PATH_ISAS + (int)lbrt_best_isa() + 1};
    assert(result->npaths < (int)LB_COUNT(result->paths)); /* room for generated C */
    result->paths[PATH_TRAINER].name = "trainer";
    for (int i = PATH_ISAS; i < result->npaths; i++)
        result->paths[i].name = lbrt_isa_name((lbrt_isa)(i - PATH_ISAS));
#if defined(__x86_64__)
    static const char *const flags[] = {"-O3", "-march=native", NULL};
#else /* not every compiler knows -march=native there */
    static const char *const flags[] = {"-O3", NULL};
#endif
    lb_evaluator *evaluator = NULL;
    lb_compiled *compiled = NULL;
    lb_pool pool;
    lb_pool_init(&pool, t->ctx);
    lb_status status = make_evaluator(t, &evaluator);
    const bool small = model->size <= MOST_COMPILED;
    if (status == LB_OK && small)
        status = lb_compiled_create(model, flags, &compiled);
    if (compiled)
        result->paths[result->npaths++].name = "c";
    else if (!small)
        lb_warn(t->ctx, "generated C is not verified: compilers need gigabytes for the constants of a model of %zu bytes",
                model->size);
    else if (status == LB_OK)
        lb_warn(t->ctx, "generated C is not verified: there is no C compiler; install one called cc, or let CC name one "
                "that is there");
    if (status == LB_OK)
        status = compare_all(t, evaluator, model, compiled, &pool, result);
    lb_compiled_destroy(compiled);
    lb_evaluator_destroy(evaluator);
    lb_pool_free(&pool);
    result->equal = true;
    for (int i = 0; i < result->npaths; i++)
        result->equal = result->equal && result->paths[i].equal == result->images;
    return status;
}

static lb_status pack_in_memory(lb_trainer *t, const char *dir, lb_packed **model) {
    unsigned char *bytes;
    size_t size;
    LB_TRY(lb_pack_trainer(t, &bytes, &size));
    return lb_packed_from_memory(t->ctx, dir, bytes, size, model);
}

/* A run's own model; *model is NULL if there is none. */
static lb_status open_run(lb_ctx *ctx, lb_pool *pool, const char *dir, lb_packed **model) {
    const char *file = lb_pool_printf(pool, "%s/" LB_RUN_MODEL, dir);
    if (!file)
        return LB_ERR_MEMORY;
    const bool there = lb_exists(file);
    lb_note(ctx, there ? "verifying %s" : "verifying %s, packed in memory", there ? file : dir);
    return there ? lb_packed_load(ctx, file, model) : LB_OK;
}

/* The model itself first: what is wrong with it matters more than where it lies. *dir: its run. */
static lb_status open_file(lb_ctx *ctx, lb_pool *pool, const char *path, lb_packed **model, const char **dir) {
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    *dir = slash ? lb_pool_printf(pool, "%.*s", (int)LB_MAX(slash - path, 1), path) : ".";
    lb_run_files files;
    if (!*dir)
        return LB_ERR_MEMORY;
    LB_TRY(lb_run_files_of(pool, *dir, &files));
    if (!lb_exists(path))
        return lb_fail(ctx, LB_ERR_IO, "%s: no such file or run directory", path);
    LB_TRY(lb_refuse_onnx(ctx, path));
    if (!lb_is_packed(path) && !(dot && !strcmp(dot, ".lbm"))) /* a damaged one keeps its name */
        return lb_fail(ctx, LB_ERR_FORMAT, "%s: neither a packed model nor a run directory", path);
    LB_TRY(lb_packed_load(ctx, path, model));
    if (!lb_exists(files.recipe))
        return lb_fail(ctx, LB_ERR_ARGUMENT,
                       "%s: verifying compares with the trained weights, but %s is not a run directory; pass the run", path, *dir);
    return LB_OK;
}

static lb_status verify_in(lb_ctx *ctx, lb_pool *pool, const char *path, const char *data_spec, lb_verify_result *result) {
    const char *dir = path;
    lb_packed *model = NULL;
    lb_trainer *trainer = NULL;
    lb_status status = lb_is_dir(path) ? open_run(ctx, pool, path, &model) : open_file(ctx, pool, path, &model, &dir);
    if (status == LB_OK)
        status = lb_trainer_open(ctx, dir, data_spec, &trainer);
    if (status == LB_OK && !model)
        status = pack_in_memory(trainer, dir, &model);
    if (status == LB_OK)
        status = verify(trainer, model, result);
    lb_packed_destroy(model);
    lb_trainer_destroy(trainer);
    return status;
}

lb_status lb_verify(lb_ctx *ctx, const char *path, const char *data_spec, lb_verify_result *result) {
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    *result = (lb_verify_result){0};
    const lb_status status = verify_in(ctx, &pool, path, data_spec, result);
    lb_pool_free(&pool);
    return status;
}

#include "deploy/packed.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "deploy/lower.h"
#include "load.h"
#include "train/accuracy.h"
#include "train/threads.h"
#include "train/trainer.h"

#define MODEL_LIMIT ((size_t)4 << 30)
#define CHUNK 8
#define ARENA_LIMIT ((size_t)64 << 20) /* of a thread, above which it takes fewer images at a time */
#define EVAL_BATCH 256

/* ---- Packing --------------------------------------------------------------------------------------------------------- */

static void warn_of_scores(lb_ctx *ctx, const lbrt_graph *graph) {
    const double bound = lb_score_bound(graph);
    if (bound > LBRT_SCORE_LIMIT)
        lb_warn(ctx, "%s: its weights allow scores of up to %.3g, but a packed model's end at %d: larger ones are cut off there "
                "(`lowbit eval` counts them); make its weights and bias smaller", graph->layers[graph->nlayers - 1].name, bound,
                LBRT_SCORE_LIMIT);
}

lb_status lb_pack_net(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], const char *const *class_names,
                      const lb_pack_note *notes, int nnotes, unsigned char **bytes, size_t *size) {
    lb_lowered *lowered;
    LB_TRY(lb_lower(ctx, net, mean, std, class_names, &lowered));
    warn_of_scores(ctx, &lowered->graph);
    const lb_status status = lb_pack_graph(ctx, &lowered->graph, notes, nnotes, bytes, size);
    lb_lowered_destroy(lowered);
    return status;
}

lb_status lb_pack_trainer(const lb_trainer *trainer, unsigned char **bytes, size_t *size) {
    const lb_data_config *d = &trainer->config->data;
    const lb_data *data = trainer->data;
    char image_size[16], resize[16], limit[16];
    snprintf(image_size, sizeof image_size, "%d", d->size);
    snprintf(resize, sizeof resize, "%d", d->augment.resize);
    snprintf(limit, sizeof limit, "%d", d->test_limit);
    const lb_pack_note notes[] = {{"data.name", d->name}, {"data.path", d->path}, {"data.size", image_size},
                                  {"data.augment.resize", resize}, {"data.test_limit", limit}};
    /* The data's names are of its classes; the network may have more. */
    const bool named = data->class_names && data->classes == trainer->net->classes;
    return lb_pack_net(trainer->ctx, trainer->net, data->mean, data->std, named ? data->class_names : NULL, notes,
                       (int)LB_COUNT(notes), bytes, size);
}

lb_status lb_pack(lb_trainer *trainer, const char *path) {
    unsigned char *bytes;
    size_t size;
    LB_TRY(lb_pack_trainer(trainer, &bytes, &size));
    const lb_span span = {bytes, size};
    const lb_status status = lb_write_file(trainer->ctx, path, &span, 1);
    lb_free(trainer->ctx, bytes);
    return status;
}

/* ---- Opening --------------------------------------------------------------------------------------------------------- */

static bool begins_like_one(const unsigned char *head, size_t size) {
    lbrt_info info;
    return size > 0 && lbrt_probe(head, size, &info) != LBRT_ERR_MAGIC;
}

bool lb_is_packed(const char *path) {
    unsigned char head[64];
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    const size_t size = fread(head, 1, sizeof head, file);
    fclose(file);
    return begins_like_one(head, size);
}

lb_status lb_refuse_onnx(lb_ctx *ctx, const char *path) {
    const char *dot = strrchr(path, '.');
    if (dot && !strcmp(dot, ".onnx") && lb_exists(path))
        return lb_fail(ctx, LB_ERR_FORMAT, "%s: an ONNX file; `lowbit import %s -o RUN` makes a run of it", path, path);
    return LB_OK;
}

static const char *note(const lb_packed *m, const char *key) {
    const char *value = lbrt_metadata(m->model, key);
    return value ? value : "";
}

static int number_note(const lb_packed *m, const char *key) {
    const long value = strtol(note(m, key), NULL, 10);
    return value > 0 && value <= INT32_MAX ? (int)value : 0;
}

/* What depends on the instruction set. */
static void close_runtime(lb_packed *m) {
    for (int t = 0; m->arenas && t < m->threads; t++)
        lb_free(m->ctx, m->arenas[t]);
    lb_free(m->ctx, m->arenas);
    lb_free(m->ctx, m->memory);
    m->arenas = NULL;
    m->memory = NULL;
    m->model = NULL;
}

static lb_status open_runtime(lb_packed *m, lbrt_isa isa) {
    const char *what = NULL;
    int layer = -1;
    const lbrt_status found = lbrt_probe_why(m->file, m->size, isa, &m->info, &what, &layer);
    if (m->size == 0)
        return lb_fail(m->ctx, LB_ERR_FORMAT, "%s: an empty file, not a packed model; `lowbit pack RUN -o MODEL.lbm` makes one",
                       m->name);
    if (found == LBRT_ERR_MAGIC)
        return lb_fail(m->ctx, LB_ERR_FORMAT, "%s: not a packed model; `lowbit pack RUN -o MODEL.lbm` makes one", m->name);
    if (found == LBRT_ERR_VERSION) {
        const unsigned char *v = m->file + 4;
        const uint32_t version = v[0] | (uint32_t)v[1] << 8 | (uint32_t)v[2] << 16 | (uint32_t)v[3] << 24;
        const bool older = version < LBRT_FORMAT_VERSION;
        return lb_fail(m->ctx, LB_ERR_FORMAT, "%s: packed in format %u, %s than the %d that this lowbit reads; %s", m->name,
                       version, older ? "older" : "newer", LBRT_FORMAT_VERSION,
                       older ? "pack it again" : "update lowbit, or pack it again");
    }
    if (found != LBRT_OK && what && layer >= 0)
        return lb_fail(m->ctx, LB_ERR_FORMAT, "%s: layer %d: %s (%s); pack it again", m->name, layer, what,
                       lbrt_status_text(found));
    if (found != LBRT_OK)
        return lb_fail(m->ctx, LB_ERR_FORMAT, "%s: %s%s%s; pack it again", m->name, lbrt_status_text(found), what ? ": " : "",
                       what ? what : "");
    close_runtime(m);
    m->memory = lb_alloc(m->ctx, m->info.model_size, 1);
    if (!m->memory)
        return LB_ERR_MEMORY;
    const lbrt_status opened = lbrt_open_isa(m->file, m->size, isa, m->memory, m->info.model_size, &m->model);
    if (opened != LBRT_OK)
        return lb_fail(m->ctx, LB_ERR_FORMAT, "%s: %s", m->name, lbrt_status_text(opened));
    m->isa = isa;
    m->chunk = CHUNK;
    while (m->chunk > 1 && (lbrt_arena_size(m->model, m->chunk) == 0 || lbrt_arena_size(m->model, m->chunk) > ARENA_LIMIT))
        m->chunk /= 2;
    m->arena_size = lbrt_arena_size(m->model, m->chunk);
    m->shared_size = lbrt_arena_size_threads(m->model, 1, m->threads);
    m->arenas = lb_alloc(m->ctx, (size_t)m->threads, sizeof *m->arenas);
    return m->arenas ? LB_OK : LB_ERR_MEMORY;
}

lb_status lb_packed_set_isa(lb_packed *m, lbrt_isa isa) {
    if (m->model && isa == m->isa)
        return LB_OK;
    const lb_status status = open_runtime(m, isa);
    if (status != LB_OK)
        close_runtime(m);
    return status;
}

lb_status lb_packed_use(lb_packed *m, const char *isa) {
    for (int i = LBRT_ISA_REF; i <= (int)lbrt_best_isa(); i++)
        if (!strcmp(isa, lbrt_isa_name((lbrt_isa)i)))
            return lb_packed_set_isa(m, (lbrt_isa)i);
    return lb_fail(m->ctx, LB_ERR_ARGUMENT, "no kernels named %s on this machine; the best are %s, and ref is always there", isa,
                   lbrt_isa_name(lbrt_best_isa()));
}

static lb_status open_model(lb_packed *m) {
    m->threads = lb_threads(m->ctx);
    LB_TRY(lb_packed_set_isa(m, lbrt_best_isa()));
    m->config = (lb_data_config){.workers = 1,
                                 .cache = true,
                                 .size = number_note(m, "data.size"),
                                 .test_limit = number_note(m, "data.test_limit"),
                                 .augment.resize = number_note(m, "data.augment.resize")};
    snprintf(m->config.name, sizeof m->config.name, "%s", note(m, "data.name"));
    snprintf(m->config.path, sizeof m->config.path, "%s", note(m, "data.path"));
    return LB_OK;
}

lb_status lb_packed_from_memory(lb_ctx *ctx, const char *name, unsigned char *bytes, size_t size, lb_packed **model) {
    *model = NULL;
    lb_packed *m = lb_alloc(ctx, 1, sizeof *m);
    if (!m) {
        lb_free(ctx, bytes);
        return LB_ERR_MEMORY;
    }
    m->ctx = ctx;
    m->file = bytes;
    m->size = size;
    m->name = lb_strdup(ctx, name);
    const lb_status status = m->name ? open_model(m) : LB_ERR_MEMORY;
    if (status != LB_OK) {
        lb_packed_destroy(m);
        return status;
    }
    *model = m;
    return LB_OK;
}

static lb_status refuse_dir(lb_ctx *ctx, const char *dir) {
    char model[4096];
    if (snprintf(model, sizeof model, "%s/" LB_RUN_MODEL, dir) < (int)sizeof model && lb_exists(model))
        return lb_fail(ctx, LB_ERR_IO, "%s: a directory; its packed model is %s", dir, model);
    return lb_fail(ctx, LB_ERR_IO, "%s: a directory, not a packed model; `lowbit pack` makes one of a run", dir);
}

lb_status lb_packed_load(lb_ctx *ctx, const char *path, lb_packed **model) {
    *model = NULL;
    unsigned char *bytes;
    size_t size;
    if (lb_is_dir(path))
        return refuse_dir(ctx, path);
    LB_TRY(lb_refuse_onnx(ctx, path));
    LB_TRY(lb_read_file_like(ctx, path, begins_like_one, MODEL_LIMIT, &bytes, &size));
    return lb_packed_from_memory(ctx, path, bytes, size, model);
}

lb_status lb_packed_load_memory(lb_ctx *ctx, const char *name, const void *bytes, size_t size, lb_packed **model) {
    *model = NULL;
    if (!name || (!bytes && size > 0))
        return lb_fail(ctx, LB_ERR_ARGUMENT, "a packed model in memory has a name, for messages, and bytes");
    unsigned char *copy = lb_alloc(ctx, LB_MAX(size, 1), 1);
    if (!copy)
        return LB_ERR_MEMORY;
    if (size > 0)
        memcpy(copy, bytes, size);
    return lb_packed_from_memory(ctx, name, copy, size, model);
}

void lb_packed_destroy(lb_packed *m) {
    if (!m)
        return;
    close_runtime(m);
    lb_data_destroy(m->data);
    lb_free(m->ctx, m->data_spec);
    lb_free(m->ctx, m->file);
    lb_free(m->ctx, m->name);
    lb_free(m->ctx, m);
}

const struct lbrt_model *lb_packed_model(const lb_packed *model) { return model->model; }

/* ---- Running --------------------------------------------------------------------------------------------------------- */

static void parallel_for(void *user, int count, void (*task)(void *arg, int i), void *arg) {
    (void)user;
#pragma omp parallel for num_threads(count) schedule(static, 1)
    for (int i = 0; i < count; i++)
        task(arg, i);
}

/* `count` threads and memory of the first `arenas`, taken when they first run: a model may be opened only to be looked at. */
static lb_status take_threads(lb_packed *m, int arenas, int count) {
    for (int t = 0; t < arenas; t++)
        if (!m->arenas[t] && !(m->arenas[t] = lb_alloc(m->ctx, t == 0 ? LB_MAX(m->arena_size, m->shared_size) : m->arena_size, 1)))
            return LB_ERR_MEMORY;
    if (count > m->started)
        LB_TRY(lb_start_threads(m->ctx, count));
    m->started = LB_MAX(m->started, count);
    return LB_OK;
}

/* Is there a model to run? Not once lb_packed_use has failed for want of memory. */
static lb_status check_open(const lb_packed *m) {
    if (m->model)
        return LB_OK;
    return lb_fail(m->ctx, LB_ERR_ARGUMENT, "%s: there was no memory for its kernels; choose some before it runs", m->name);
}

/* Images are shared out among the threads; the layers of a single one are. */
lb_status lb_packed_scores(lb_packed *m, const uint8_t *pixels, int mb, int32_t *scores) {
    LB_TRY(check_open(m));
    if (!pixels || !scores || mb < 1)
        return lb_fail(m->ctx, LB_ERR_ARGUMENT, "%s: scores of %d images; there must be pixels and scores of at least 1",
                       m->name, mb);
    if (mb == 1 && m->shared_size > 0) {
        LB_TRY(take_threads(m, 1, m->threads));
        const lbrt_threads threads = {m->threads, parallel_for, NULL};
        const lbrt_status status = lbrt_run_threads(m->model, pixels, 1, m->arenas[0], m->shared_size, scores, &threads);
        return status == LBRT_OK ? LB_OK : lb_fail(m->ctx, LB_ERR_BACKEND, "%s: %s", m->name, lbrt_status_text(status));
    }
    const size_t image = (size_t)m->info.ih * (size_t)m->info.iw * (size_t)m->info.ic;
    const int share = LB_MIN(m->chunk, (mb - 1) / m->threads + 1), chunks = (mb - 1) / share + 1;
    const int threads = LB_MIN(m->threads, chunks);
    int failed = LBRT_OK;
    LB_TRY(take_threads(m, threads, threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(max : failed)
    for (int i = 0; i < chunks; i++) {
        const int first = i * share, count = LB_MIN(share, mb - first);
        const int status = (int)lbrt_run(m->model, pixels + (size_t)first * image, count, m->arenas[omp_get_thread_num()],
                                         m->arena_size, scores + (size_t)first * (size_t)m->info.classes);
        failed = LB_MAX(failed, status);
    }
    return failed == LBRT_OK ? LB_OK : lb_fail(m->ctx, LB_ERR_BACKEND, "%s: %s", m->name, lbrt_status_text((lbrt_status)failed));
}

static bool same_spec(const char *a, const char *b) { return a == b || (a && b && !strcmp(a, b)); }

lb_status lb_packed_data(lb_packed *m, const char *spec) {
    LB_TRY(check_open(m));
    if (m->data && same_spec(m->data_spec, spec))
        return LB_OK;
    if (!spec && !*m->config.name && !*m->config.path)
        return lb_fail(m->ctx, LB_ERR_ARGUMENT, "%s does not say what data it was trained on; give it with --data", m->name);
    lb_data *data;
    LB_TRY(spec ? lb_data_from_spec(m->ctx, spec, &m->config, &data) : lb_data_load(m->ctx, &m->config, &data));
    lb_status status;
    char *copy = NULL;
    if (data->split[LB_TEST].count == 0)
        status = lb_fail(m->ctx, LB_ERR_UNSUPPORTED, "%s has no test images", data->source);
    else
        status = lb_data_check(data, m->name, m->info.ic, m->info.classes);
    if (!status)
        status = lb_data_match(data, m->name, m->info.classes, m->model->graph.class_names);
    if (!status && spec && !(copy = lb_strdup(m->ctx, spec)))
        status = LB_ERR_MEMORY;
    if (status != LB_OK) {
        lb_data_destroy(data);
        return status;
    }
    lb_data_destroy(m->data);
    lb_free(m->ctx, m->data_spec);
    m->data = data;
    m->data_spec = copy;
    return LB_OK;
}

static lb_status score(void *model, const uint8_t *pixels, int mb, int32_t *scores) {
    return lb_packed_scores(model, pixels, mb, scores);
}

lb_status lb_packed_eval(lb_packed *m, const char *data_spec, lb_metrics *metrics) {
    LB_TRY(lb_packed_data(m, data_spec));
    const lb_scorer scorer = {{m->info.ih, m->info.iw, m->info.ic}, m->info.classes, score, m};
    lb_score_sums sums = {0};
    LB_TRY(lb_scores_of_test(&scorer, m->data, &m->config, m->data->split[LB_TEST].count, EVAL_BATCH, &sums));
    (void)lb_scores_warn(m->ctx, m->name, &sums);
    lb_scores_metrics(&sums, metrics);
    return LB_OK;
}

/* What to classify: the file `path`, or if that is NULL, test image `index`, whose truth *label receives. */
typedef struct one_image {
    const char *path;
    int64_t index;
    int32_t *label;
} one_image;

static lb_status classify(lb_packed *m, const one_image *image, float *scores, uint8_t *pixels) {
    const size_t size = (size_t)m->info.ih * (size_t)m->info.iw * (size_t)m->info.ic;
    lb_pool pool;
    lb_pool_init(&pool, m->ctx);
    uint8_t *read = pixels ? pixels : lb_pool_alloc(&pool, size, 1);
    int32_t *fixed = lb_pool_alloc(&pool, (size_t)m->info.classes, sizeof *fixed);
    lb_status status = read && fixed ? LB_OK : LB_ERR_MEMORY;
    if (status == LB_OK && image->path)
        status = lb_image_load(m->ctx, image->path, &m->config, m->info.ih, m->info.iw, m->info.ic, read);
    else if (status == LB_OK)
        status = lb_test_batch(m->data, &m->config, LB_TEST, image->index, 1, m->info.ih, m->info.iw, read, image->label);
    if (status == LB_OK)
        status = lb_packed_scores(m, read, 1, fixed);
    int cut = 0;
    for (int c = 0; status == LB_OK && c < m->info.classes; c++) {
        scores[c] = (float)fixed[c] / (float)LBRT_SCORE_ONE;
        cut += fixed[c] == INT32_MAX || fixed[c] == INT32_MIN;
    }
    if (cut > 0)
        lb_warn(m->ctx, "%s: %d of %d scores are cut off at +-%d, where their fixed point ends",
                image->path ? image->path : m->name, cut, m->info.classes, LBRT_SCORE_LIMIT);
    lb_pool_free(&pool);
    return status;
}

lb_status lb_packed_classify(lb_packed *model, const char *image, float *scores, uint8_t *pixels) {
    return classify(model, &(one_image){.path = image}, scores, pixels);
}

lb_status lb_packed_classify_test(lb_packed *model, const char *data_spec, int64_t index, float *scores, uint8_t *pixels,
                                  int *label) {
    LB_TRY(lb_packed_data(model, data_spec));
    const int64_t count = model->data->split[LB_TEST].count;
    if (index < 0 || index >= count)
        return lb_fail(model->ctx, LB_ERR_ARGUMENT, "there is no test image %lld: the %lld in use of %s are counted from 0",
                       (long long)index, (long long)count, model->data->source);
    int32_t truth;
    LB_TRY(classify(model, &(one_image){.index = index, .label = &truth}, scores, pixels));
    *label = truth;
    return LB_OK;
}

/* ---- Speed ----------------------------------------------------------------------------------------------------------- */

lb_status lb_packed_bench(lb_packed *m, int batch, int runs, lb_latency *latency) {
    if (batch < 1 || runs < 1)
        return lb_fail(m->ctx, LB_ERR_ARGUMENT, "bench of %d runs of %d images; both must be at least 1", runs, batch);
    const size_t image = (size_t)m->info.ih * (size_t)m->info.iw * (size_t)m->info.ic;
    lb_pool pool;
    lb_pool_init(&pool, m->ctx);
    uint8_t *pixels = lb_pool_alloc(&pool, (size_t)batch, image);
    int32_t *scores = lb_pool_alloc(&pool, (size_t)batch * (size_t)m->info.classes, sizeof *scores);
    double *times = lb_pool_alloc(&pool, (size_t)runs, sizeof *times);
    lb_status status = pixels && scores && times ? LB_OK : LB_ERR_MEMORY;
    for (size_t i = 0; status == LB_OK && i < (size_t)batch * image; i++)
        pixels[i] = (uint8_t)(i * 2654435761u >> 24);
    const int warm = LB_MIN(runs, 3);
    double cpu = INFINITY;
    for (int r = -warm; r < runs && status == LB_OK; r++) {
        const double cpu_start = lb_cpu_time(), start = lb_now();
        status = lb_packed_scores(m, pixels, batch, scores);
        if (r >= 0) {
            times[r] = 1e3 * (lb_now() - start);
            cpu = fmin(cpu, 1e3 * (lb_cpu_time() - cpu_start));
        }
        if (status == LB_OK && lb_interrupted(m->ctx))
            status = lb_fail(m->ctx, LB_ERR_INTERRUPTED, "interrupted while measuring");
    }
    if (status == LB_OK) {
        const double median = lb_median(times, (size_t)runs);
        *latency = (lb_latency){.min_ms = times[0], .median_ms = median, .images_per_s = batch * 1e3 / LB_MAX(median, 1e-9),
                                .cpu_ms = cpu, .threads = batch > 1 ? LB_MIN(m->threads, batch) : m->threads, .batch = batch,
                                .isa = lbrt_isa_name(m->isa)};
    }
    lb_pool_free(&pool);
    return status;
}

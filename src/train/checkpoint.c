/* Checkpoints: safetensors with the parameters by name, the optimizer's state, and the progress as metadata. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/safetensors.h"
#include "train/trainer.h"

#define FORMAT "lowbit checkpoint 1"

/* The metadata, in the order that the checksum covers it. */
static const char *const metadata_keys[] = {"format",    "model",    "stage",   "step",  "stage_step",
                                            "best_top1", "loss_sum", "correct", "images", "data"};

static uint32_t checksum_pair(uint32_t crc, const char *key, const char *value) {
    crc = lb_crc32c(crc, key, strlen(key) + 1);
    return lb_crc32c(crc, value, strlen(value) + 1);
}

static uint32_t checksum_tensor(uint32_t crc, const lb_st_tensor *t) {
    size_t bytes = lb_st_dtype_size(t->dtype);
    for (int i = 0; i < t->ndims; i++)
        bytes *= (size_t)t->dims[i];
    crc = lb_crc32c(crc, t->name, strlen(t->name) + 1);
    return lb_crc32c(crc, t->data, bytes);
}

/* ---- Saving -------------------------------------------------------------------------------------------------------------- */

typedef struct writer {
    lb_pool pool;
    lb_st_tensor *tensors;
    size_t ntensors;
    lb_st_pair *pairs;
    size_t npairs;
    bool failed;
} writer;

static void add_tensor(writer *w, const char *name, lb_st_dtype dtype, int ndims, const int64_t *dims, const void *data) {
    lb_st_tensor *t = &w->tensors[w->ntensors++];
    *t = (lb_st_tensor){.name = name, .dtype = dtype, .ndims = ndims, .data = data};
    memcpy(t->dims, dims, (size_t)ndims * sizeof *dims);
}

static void add_pair(writer *w, const char *key, const char *value) {
    w->failed |= !value;
    w->pairs[w->npairs++] = (lb_st_pair){key, value};
}

static void add_int(writer *w, const char *key, int64_t value) { add_pair(w, key, lb_pool_printf(&w->pool, "%" PRId64, value)); }
/* Hexadecimal: the same bits come back. */
static void add_real(writer *w, const char *key, double value) { add_pair(w, key, lb_pool_printf(&w->pool, "%a", value)); }

/* A quantizer's parameters are saved once they have values. */
static bool is_started(const lb_net *net, const lb_param *param) {
    const lb_quant *q = net->nodes[param->node].quant;
    return param->kind != LB_PARAM_QUANT || (q && q->initialised);
}

static lb_status save(const lb_trainer *t, writer *w, const char *path, bool full) {
    const lb_net *net = t->net;
    int nstates = full ? lb_optim_nstates(t->optim) : 0;
    w->tensors = lb_pool_alloc(&w->pool, (size_t)(net->nparams + nstates + 1), sizeof *w->tensors);
    w->pairs = lb_pool_alloc(&w->pool, 16, sizeof *w->pairs);
    if (!w->tensors || !w->pairs)
        return LB_ERR_MEMORY;
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        if (is_started(net, p))
            add_tensor(w, p->name, LB_ST_F32, p->ndim, p->dims, net->values + p->offset);
    }
    int64_t count = (int64_t)net->nvalues, bytes = (count + 7) / 8;
    for (int i = 0; i < nstates; i++) {
        const char *name = lb_pool_printf(&w->pool, "optimizer.%s", lb_optim_state_name(t->optim, i));
        w->failed |= !name;
        add_tensor(w, name ? name : "", LB_ST_F32, 1, &count, lb_optim_state(t->optim, i));
    }
    if (full)
        add_tensor(w, "train.signs", LB_ST_U8, 1, &bytes, t->signs);
    add_pair(w, "format", FORMAT);
    add_pair(w, "model", net->name);
    add_int(w, "stage", t->at.stage);
    add_int(w, "step", t->at.step);
    add_int(w, "stage_step", t->at.stage_step);
    add_real(w, "best_top1", t->at.best_top1);
    add_real(w, "loss_sum", t->at.loss_sum);
    add_int(w, "correct", t->at.correct);
    add_int(w, "images", t->at.images);
    if (t->data) /* an imported network has seen none yet */
        add_pair(w, "data", lb_data_describe(t->data, &w->pool));
    if (w->failed)
        return LB_ERR_MEMORY;
    assert(w->npairs == LB_COUNT(metadata_keys) - !t->data);
    uint32_t crc = 0;
    for (size_t i = 0; i < w->npairs; i++)
        crc = checksum_pair(crc, w->pairs[i].key, w->pairs[i].value);
    for (size_t i = 0; i < w->ntensors; i++)
        crc = checksum_tensor(crc, &w->tensors[i]);
    add_pair(w, "crc32c", lb_pool_printf(&w->pool, "%08" PRIx32, crc));
    if (w->failed)
        return LB_ERR_MEMORY;
    return lb_safetensors_write(t->ctx, path, w->tensors, w->ntensors, w->pairs, w->npairs);
}

lb_status lb_checkpoint_save(const lb_trainer *trainer, const char *path, bool full) {
    writer w = {0};
    lb_pool_init(&w.pool, trainer->ctx);
    lb_status status = save(trainer, &w, path, full);
    lb_pool_free(&w.pool);
    return status;
}

/* ---- Loading -------------------------------------------------------------------------------------------------------------- */

static lb_status get_text(lb_ctx *ctx, const lb_safetensors *file, const char *path, const char *key, const char **text) {
    *text = lb_safetensors_metadata(file, key);
    return *text ? LB_OK : lb_fail(ctx, LB_ERR_FORMAT, "%s: not a lowbit checkpoint (no \"%s\" in its metadata)", path, key);
}

static lb_status get_int(lb_ctx *ctx, const lb_safetensors *file, const char *path, const char *key, int64_t max, int64_t *value) {
    const char *text;
    LB_TRY(get_text(ctx, file, path, key, &text));
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end || number < 0 || number > max)
        return lb_fail(ctx, LB_ERR_FORMAT, "%s: \"%s\" is %.40s, not a number from 0 to %" PRId64, path, key, text, max);
    *value = number;
    return LB_OK;
}

static lb_status get_real(lb_ctx *ctx, const lb_safetensors *file, const char *path, const char *key, double *value) {
    const char *text;
    LB_TRY(get_text(ctx, file, path, key, &text));
    char *end;
    *value = strtod(text, &end);
    return end != text && !*end && isfinite(*value)
               ? LB_OK
               : lb_fail(ctx, LB_ERR_FORMAT, "%s: \"%s\" is %.40s, not a number", path, key, text);
}

/* Of our own files only: another program's have no checksum and come in through train.init. */
static lb_status check_sum(lb_ctx *ctx, const lb_safetensors *file, const char *path) {
    const char *stated = lb_safetensors_metadata(file, "crc32c");
    if (!stated)
        return LB_OK;
    uint32_t crc = 0;
    char text[16];
    for (size_t i = 0; i < LB_COUNT(metadata_keys); i++) {
        const char *value = lb_safetensors_metadata(file, metadata_keys[i]);
        if (value)
            crc = checksum_pair(crc, metadata_keys[i], value);
    }
    for (size_t i = 0; i < lb_safetensors_count(file); i++)
        crc = checksum_tensor(crc, lb_safetensors_at(file, i));
    snprintf(text, sizeof text, "%08" PRIx32, crc);
    return !strcmp(text, stated)
               ? LB_OK
               : lb_fail(ctx, LB_ERR_FORMAT, "%s: altered or damaged (its checksum is %.16s, its content's %s); use another copy",
                         path, stated, text);
}

static lb_status load_progress(lb_trainer *t, const lb_safetensors *file, const char *path, lb_progress_state *at) {
    const char *format, *model, *sum;
    int64_t stage;
    *at = (lb_progress_state){0};
    LB_TRY(get_text(t->ctx, file, path, "crc32c", &sum));
    LB_TRY(get_text(t->ctx, file, path, "model", &model));
    if (strcmp(model, t->net->name))
        return lb_fail(t->ctx, LB_ERR_SHAPE,
                       "%s: holds the network %.40s, but the recipe builds %s; a network built by hand can only be opened by "
                       "the program that builds it",
                       path, model, t->net->name);
    LB_TRY(get_text(t->ctx, file, path, "format", &format));
    if (strcmp(format, FORMAT))
        return lb_fail(t->ctx, LB_ERR_FORMAT, "%s: its format is \"%.40s\", this program reads \"%s\"", path, format, FORMAT);
    LB_TRY(get_int(t->ctx, file, path, "stage", INT_MAX, &stage));
    if (stage >= t->recipe->nstages)
        return lb_fail(t->ctx, LB_ERR_SHAPE, "%s: is in stage %" PRId64 ", but the recipe has only %d; was the recipe changed?",
                       path, stage + 1, t->recipe->nstages);
    at->stage = (int)stage;
    LB_TRY(get_int(t->ctx, file, path, "step", INT64_MAX / 2, &at->step));
    LB_TRY(get_int(t->ctx, file, path, "stage_step", INT64_MAX / 2, &at->stage_step));
    if (at->stage_step > lb_trainer_stage_steps(t, at->stage))
        return lb_fail(t->ctx, LB_ERR_SHAPE,
                       "%s: has done %" PRId64 " steps of its stage, but the recipe gives it only %" PRId64 "; "
                       "was train.epochs, train.batch or the data changed?",
                       path, at->stage_step, lb_trainer_stage_steps(t, at->stage));
    LB_TRY(get_int(t->ctx, file, path, "correct", INT64_MAX / 2, &at->correct));
    LB_TRY(get_int(t->ctx, file, path, "images", INT64_MAX / 2, &at->images));
    LB_TRY(get_real(t->ctx, file, path, "best_top1", &at->best_top1));
    return get_real(t->ctx, file, path, "loss_sum", &at->loss_sum);
}

/* Every parameter from the file. A quantizer's that the file lacks are left to be started. Nothing is changed if one does not fit. */
static lb_status load_params(lb_trainer *t, const lb_safetensors *file) {
    lb_net *net = t->net;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < net->nparams; i++) {
            const lb_param *p = &net->params[i];
            const void *data;
            if (p->kind == LB_PARAM_QUANT && !lb_safetensors_find(file, p->name))
                continue;
            LB_TRY(lb_safetensors_get(file, p->name, LB_ST_F32, p->ndim, p->dims, &data));
            if (pass == 0)
                continue;
            memcpy(net->values + p->offset, data, p->count * sizeof(float));
            if (p->kind == LB_PARAM_QUANT)
                net->nodes[p->node].quant->initialised = true;
        }
    return LB_OK;
}

static lb_status check_finite(lb_trainer *t, const char *path) {
    for (int i = 0; i < t->net->nparams; i++) {
        const lb_param *p = &t->net->params[i];
        for (size_t k = 0; k < p->count; k++)
            if (!isfinite(t->net->values[p->offset + k]))
                return lb_fail(t->ctx, LB_ERR_FORMAT, "%s: %s holds a value that is not finite", path, p->name);
    }
    return LB_OK;
}

static lb_status read_params(lb_trainer *t, const lb_safetensors *file, const char *path) {
    lb_status status = load_params(t, file);
    if (status)
        return lb_fail_in(t->ctx, status, "%s does not fit the network %s", path, t->net->name);
    LB_TRY(check_finite(t, path));
    lb_net_update_grids(t->net);
    return LB_OK;
}

static lb_status resume(lb_trainer *t, const lb_safetensors *file, const char *path) {
    lb_progress_state at;
    LB_TRY(load_progress(t, file, path, &at));
    LB_TRY(lb_trainer_enter_stage(t, at.stage));
    LB_TRY(read_params(t, file, path));
    LB_TRY(lb_plan_init_weights(t->net));
    LB_TRY(lb_trainer_prepare(t));
    int64_t count = (int64_t)t->net->nvalues, bytes = (count + 7) / 8;
    const void *data;
    for (int i = 0; i < lb_optim_nstates(t->optim); i++) {
        char name[64];
        snprintf(name, sizeof name, "optimizer.%s", lb_optim_state_name(t->optim, i));
        lb_status status = lb_safetensors_get(file, name, LB_ST_F32, 1, &count, &data);
        if (status)
            return lb_fail_in(t->ctx, status, "%s: cannot be resumed (was the optimizer changed?)", path);
        memcpy(lb_optim_state(t->optim, i), data, (size_t)count * sizeof(float));
    }
    LB_TRY(lb_safetensors_get(file, "train.signs", LB_ST_U8, 1, &bytes, &data));
    memcpy(t->signs, data, (size_t)bytes);
    t->at = at;
    return LB_OK;
}

lb_status lb_checkpoint_resume(lb_trainer *trainer, const char *path) {
    lb_safetensors *file;
    LB_TRY(lb_safetensors_read(trainer->ctx, path, &file));
    lb_status status = check_sum(trainer->ctx, file, path);
    if (!status)
        status = resume(trainer, file, path);
    lb_safetensors_destroy(file);
    return status;
}

static lb_status load(lb_trainer *t, const lb_safetensors *file, const char *path, bool enter) {
    if (enter) {
        lb_progress_state at;
        LB_TRY(load_progress(t, file, path, &at));
        LB_TRY(lb_trainer_enter_stage(t, at.stage));
        t->at = at;
    }
    LB_TRY(read_params(t, file, path));
    return lb_plan_init_weights(t->net);
}

lb_status lb_checkpoint_load(lb_trainer *trainer, const char *path, bool enter) {
    lb_safetensors *file;
    LB_TRY(lb_safetensors_read(trainer->ctx, path, &file));
    lb_status status = check_sum(trainer->ctx, file, path);
    if (!status)
        status = load(trainer, file, path, enter);
    lb_safetensors_destroy(file);
    return status;
}

lb_status lb_checkpoint_data(lb_ctx *ctx, const lb_data_config *config, const char *path, lb_data **data) {
    *data = NULL;
    lb_safetensors *file;
    LB_TRY(lb_safetensors_read(ctx, path, &file));
    const char *text = lb_safetensors_metadata(file, "data");
    lb_status status = text ? lb_data_described(ctx, config, text, data) : LB_OK;
    lb_safetensors_destroy(file);
    return status ? lb_fail_in(ctx, status, "%s", path) : LB_OK;
}

lb_status lb_trainer_init_from(lb_trainer *trainer, const char *path) {
    if (!lb_is_dir(path))
        return lb_checkpoint_load(trainer, path, false);
    lb_pool pool;
    lb_pool_init(&pool, trainer->ctx);
    char *file = lb_pool_printf(&pool, "%s/best.safetensors", path);
    if (file && !lb_exists(file))
        file = lb_pool_printf(&pool, "%s/last.safetensors", path);
    lb_status status = file ? lb_checkpoint_load(trainer, file, false) : LB_ERR_MEMORY;
    lb_pool_free(&pool);
    return status;
}

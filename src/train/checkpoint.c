/* Checkpoints: safetensors with the parameters by name, the optimizer's state, and the progress as metadata. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/locale.h"
#include "crc32c.h"
#include "train/safetensors.h"
#include "train/trainer.h"

#define FORMAT "lowbit checkpoint 1"

/* The metadata, in the order that the checksum covers it; those from "data" on need not be there. */
static const char *const metadata_keys[] = {"format",   "model",   "stage",  "step", "stage_step", "best_top1",
                                            "loss_sum", "correct", "images", "data", "quantizers", "terms_sum",
                                            "learners_top1"};

static uint32_t checksum_pair(uint32_t crc, const char *key, const char *value) {
    crc = lbrt_crc32c(crc, key, strlen(key) + 1);
    return lbrt_crc32c(crc, value, strlen(value) + 1);
}

static uint32_t checksum_tensor(uint32_t crc, const lb_st_tensor *t) {
    size_t bytes = lb_st_dtype_size(t->dtype);
    for (int i = 0; i < t->ndims; i++)
        bytes *= (size_t)t->dims[i];
    crc = lbrt_crc32c(crc, t->name, strlen(t->name) + 1);
    return lbrt_crc32c(crc, t->data, bytes);
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
    w->failed |= !name;
    *t = (lb_st_tensor){.name = name ? name : "", .dtype = dtype, .ndims = ndims, .data = data};
    memcpy(t->dims, dims, (size_t)ndims * sizeof *dims);
}

static void add_pair(writer *w, const char *key, const char *value) {
    w->failed |= !value;
    w->pairs[w->npairs++] = (lb_st_pair){key, value};
}

static void add_int(writer *w, const char *key, int64_t value) { add_pair(w, key, lb_pool_printf(&w->pool, "%" PRId64, value)); }
/* Hexadecimal: the same bits come back. */
static void add_real(writer *w, const char *key, double value) {
    const lb_c_locale locale = lb_c_locale_begin();
    add_pair(w, key, lb_pool_printf(&w->pool, "%a", value));
    lb_c_locale_end(locale);
}

/* A quantizer's parameters are saved once they have values. */
static bool is_started(const lb_net *net, const lb_param *param) {
    const lb_quant *q = net->nodes[param->node].quant;
    return param->kind != LB_PARAM_QUANT || (q && q->initialised);
}

/* Name of a learner's tensor: the first's as they are, others' below "learners.NAME". */
static const char *tensor_name(lb_pool *pool, const lb_learner *l, const char *name) {
    return l->name[0] ? lb_pool_printf(pool, "learners.%s.%s", l->name, name) : name;
}

static void add_learner(writer *w, const lb_learner *l, bool full) {
    const lb_net *net = l->net;
    const int64_t count = (int64_t)net->nvalues;
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        if (is_started(net, p))
            add_tensor(w, full ? tensor_name(&w->pool, l, p->name) : p->name, LB_ST_F32, p->ndim, p->dims, net->values + p->offset);
    }
    for (int i = 0; full && i < lb_optim_nstates(l->optim); i++) {
        const char *name = lb_pool_printf(&w->pool, "optimizer.%s", lb_optim_state_name(l->optim, i));
        add_tensor(w, name ? tensor_name(&w->pool, l, name) : NULL, LB_ST_F32, 1, &count, lb_optim_state(l->optim, i));
    }
}

/* "weight lsq 2 signed LAYER" and a line's end, if the node's quantizer has learned parameters, else nothing; as snprintf. */
static size_t quantizer_line(const lb_node *node, char *line, size_t room) {
    const lb_quant *q = node->quant;
    if (!q || q->param < 0 || !q->initialised)
        return 0;
    const int n = snprintf(line, room, "%s %s %d %s %s\n", q->spec.target == LB_WEIGHTS ? "weight" : "act",
                           q->spec.quantizer->name, q->spec.bits, q->spec.is_signed ? "signed" : "unsigned", node->name);
    return n > 0 ? (size_t)n : 0;
}

/* What learned parameters are of, one line each, for train.init of a run with other quantizers. */
static const char *quantizer_lines(lb_pool *pool, const lb_net *net) {
    size_t size = 1, used = 0;
    for (int i = 0; i < net->nnodes; i++)
        size += quantizer_line(&net->nodes[i], NULL, 0);
    char *text = lb_pool_alloc(pool, size, 1);
    for (int i = 0; i < net->nnodes && text; i++)
        used += quantizer_line(&net->nodes[i], text + used, size - used);
    return text;
}

/* Accuracies at the last evaluation, of all learners but the first, one after the other. */
static const char *top1_of_learners(const lb_trainer *t, lb_pool *pool) {
    const lb_c_locale locale = lb_c_locale_begin();
    const char *text = "";
    for (int i = 1; i < t->nlearners && text; i++)
        text = lb_pool_printf(pool, "%s%s%a", text, i > 1 ? " " : "", t->learners[i].top1);
    lb_c_locale_end(locale);
    return text;
}

/* As top1_of_learners wrote it; older checkpoints have none. */
static void read_top1(lb_trainer *t, const lb_safetensors *file) {
    const char *text = lb_safetensors_metadata(file, "learners_top1");
    const lb_c_locale locale = lb_c_locale_begin();
    for (int i = 1; i < t->nlearners && text; i++) {
        char *end;
        const double top1 = strtod(text, &end);
        if (end == text)
            break;
        t->learners[i].top1 = top1;
        text = end;
    }
    lb_c_locale_end(locale);
}

/* Learners [first, last), with optimizer state and what else resuming needs if `full`. */
static lb_status save(const lb_trainer *t, writer *w, const char *path, int first, int last, bool full) {
    const lb_net *net = t->learners[first].net;
    size_t ntensors = 1;
    for (int i = first; i < last; i++)
        ntensors += (size_t)t->learners[i].net->nparams + 2;
    w->tensors = lb_pool_alloc(&w->pool, ntensors, sizeof *w->tensors);
    w->pairs = lb_pool_alloc(&w->pool, LB_COUNT(metadata_keys) + 1, sizeof *w->pairs);
    if (!w->tensors || !w->pairs)
        return LB_ERR_MEMORY;
    for (int i = first; i < last; i++)
        if (t->learners[i].kind != LB_LEARNER_TEACHER)
            add_learner(w, &t->learners[i], full);
    const int64_t bytes = ((int64_t)net->nvalues + 7) / 8;
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
    add_pair(w, "quantizers", quantizer_lines(&w->pool, net));
    if (last - first > 1) {
        add_real(w, "terms_sum", t->at.terms_sum);
        add_pair(w, "learners_top1", top1_of_learners(t, &w->pool));
    }
    if (w->failed)
        return LB_ERR_MEMORY;
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

static lb_status save_file(const lb_trainer *t, const char *path, int first, int last, bool full) {
    writer w = {0};
    lb_pool_init(&w.pool, t->ctx);
    lb_status status = save(t, &w, path, first, last, full);
    lb_pool_free(&w.pool);
    return status;
}

lb_status lb_checkpoint_save(const lb_trainer *trainer, const char *path) {
    return save_file(trainer, path, 0, trainer->nlearners, true);
}

lb_status lb_checkpoint_save_learner(const lb_trainer *trainer, int learner, const char *path) {
    return save_file(trainer, path, learner, learner + 1, false);
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
    const lb_c_locale locale = lb_c_locale_begin();
    *value = strtod(text, &end);
    lb_c_locale_end(locale);
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
                       "was train.%s, train.batch or the data changed?",
                       path, at->stage_step, lb_trainer_stage_steps(t, at->stage),
                       lb_trainer_budget(t, at->stage));
    LB_TRY(get_int(t->ctx, file, path, "correct", INT64_MAX / 2, &at->correct));
    LB_TRY(get_int(t->ctx, file, path, "images", INT64_MAX / 2, &at->images));
    LB_TRY(get_real(t->ctx, file, path, "best_top1", &at->best_top1));
    if (lb_safetensors_metadata(file, "terms_sum"))
        LB_TRY(get_real(t->ctx, file, path, "terms_sum", &at->terms_sum));
    return get_real(t->ctx, file, path, "loss_sum", &at->loss_sum);
}

static lb_status check_finite(lb_ctx *ctx, const lb_net *net, const char *path) {
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        for (size_t k = 0; k < p->count; k++)
            if (!isfinite(net->values[p->offset + k]))
                return lb_fail(ctx, LB_ERR_FORMAT, "%s: %s holds a value that is not finite", path, p->name);
    }
    return LB_OK;
}

/* Every parameter of a learner from the file; a quantizer's that the file lacks are left to be started. Nothing is changed if one
 * does not fit. */
static lb_status load_params(lb_learner *l, const lb_safetensors *file, lb_pool *pool) {
    lb_net *net = l->net;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < net->nparams; i++) {
            const lb_param *p = &net->params[i];
            const void *data;
            const char *name = tensor_name(pool, l, p->name);
            if (!name)
                return LB_ERR_MEMORY;
            if (p->kind == LB_PARAM_QUANT && !lb_safetensors_find(file, name))
                continue;
            LB_TRY(lb_safetensors_get(file, name, LB_ST_F32, p->ndim, p->dims, &data));
            if (pass == 0)
                continue;
            memcpy(net->values + p->offset, data, p->count * sizeof(float));
            if (p->kind == LB_PARAM_QUANT)
                net->nodes[p->node].quant->initialised = true;
        }
    return LB_OK;
}

static lb_status read_params(lb_trainer *t, lb_learner *l, const lb_safetensors *file, const char *path, lb_pool *pool) {
    lb_status status = load_params(l, file, pool);
    if (status)
        return lb_fail_in(t->ctx, status, "%s does not fit the network %s", path, l->net->name);
    LB_TRY(check_finite(t->ctx, l->net, path));
    lb_net_update_grids(l->net);
    lb_plan_init_weights(l->net);
    return LB_OK;
}

static lb_status read_optimizer(lb_trainer *t, lb_learner *l, const lb_safetensors *file, const char *path, lb_pool *pool) {
    const int64_t count = (int64_t)l->net->nvalues;
    for (int i = 0; i < lb_optim_nstates(l->optim); i++) {
        const void *data;
        const char *state = lb_pool_printf(pool, "optimizer.%s", lb_optim_state_name(l->optim, i));
        const char *name = state ? tensor_name(pool, l, state) : NULL;
        if (!name)
            return LB_ERR_MEMORY;
        lb_status status = lb_safetensors_get(file, name, LB_ST_F32, 1, &count, &data);
        if (status)
            return lb_fail_in(t->ctx, status, "%s: cannot be resumed (was the optimizer changed?)", path);
        memcpy(lb_optim_state(l->optim, i), data, (size_t)count * sizeof(float));
    }
    return LB_OK;
}

static lb_status resume(lb_trainer *t, const lb_safetensors *file, const char *path, lb_pool *pool) {
    lb_progress_state at;
    LB_TRY(load_progress(t, file, path, &at));
    LB_TRY(lb_trainer_enter_stage(t, at.stage));
    LB_TRY(read_params(t, &t->learners[0], file, path, pool)); /* before plans are made: what is started needs no room for it */
    const int64_t bytes = ((int64_t)t->net->nvalues + 7) / 8;
    const void *data;
    if (lb_safetensors_get(file, "train.signs", LB_ST_U8, 1, &bytes, &data) != LB_OK)
        return lb_fail(t->ctx, LB_ERR_FORMAT,
                       "%s: no training to resume, it has weights only; train the run's recipe.yaml with another --out", path);
    LB_TRY(lb_trainer_prepare(t));
    for (int i = 0; i < t->nlearners; i++) {
        lb_learner *l = &t->learners[i];
        if (l->kind == LB_LEARNER_TEACHER)
            continue;
        if (i > 0)
            LB_TRY(read_params(t, l, file, path, pool));
        LB_TRY(read_optimizer(t, l, file, path, pool));
        l->is_new = false;
    }
    read_top1(t, file);
    memcpy(t->signs, data, (size_t)bytes);
    t->at = at;
    return LB_OK;
}

typedef lb_status read_fn(lb_trainer *t, const lb_safetensors *file, const char *path, lb_pool *pool);
static lb_status read_file(lb_trainer *t, const char *path, read_fn *read) {
    lb_safetensors *file;
    lb_pool pool;
    LB_TRY(lb_safetensors_read(t->ctx, path, &file));
    lb_pool_init(&pool, t->ctx);
    lb_status status = check_sum(t->ctx, file, path);
    if (!status)
        status = read(t, file, path, &pool);
    lb_pool_free(&pool);
    lb_safetensors_destroy(file);
    return status;
}

static lb_status load(lb_trainer *t, const lb_safetensors *file, const char *path, lb_pool *pool) {
    return read_params(t, &t->learners[0], file, path, pool);
}

static lb_status open_run(lb_trainer *t, const lb_safetensors *file, const char *path, lb_pool *pool) {
    lb_progress_state at;
    LB_TRY(load_progress(t, file, path, &at));
    LB_TRY(lb_trainer_enter_stage(t, at.stage));
    t->at = at;
    return load(t, file, path, pool);
}

lb_status lb_checkpoint_resume(lb_trainer *trainer, const char *path) { return read_file(trainer, path, resume); }
lb_status lb_checkpoint_open(lb_trainer *trainer, const char *path) { return read_file(trainer, path, open_run); }
lb_status lb_checkpoint_load(lb_trainer *trainer, const char *path) { return read_file(trainer, path, load); }

lb_status lb_checkpoint_data(lb_ctx *ctx, const lb_data_config *config, const char *path, lb_data **data) {
    *data = NULL;
    lb_safetensors *file;
    LB_TRY(lb_safetensors_read(ctx, path, &file));
    const char *text = lb_safetensors_metadata(file, "data");
    lb_status status = text ? lb_data_described(ctx, config, text, data) : LB_OK;
    lb_safetensors_destroy(file);
    return status ? lb_fail_in(ctx, status, "%s", path) : LB_OK;
}

/* ---- Another run's parameters --------------------------------------------------------------------------------------------- */

/* What the file says about the quantizer in this place, from the "quantizers" of its metadata; false: nothing that can be used. */
static bool described(const lb_safetensors *file, const char *node, lb_target target, lb_quant *from) {
    const char *line = lb_safetensors_metadata(file, "quantizers"), *kind = target == LB_WEIGHTS ? "weight" : "act";
    for (; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        char word[8], name[32], number[12], sign[10], *number_end;
        int end = 0;
        if (sscanf(line, "%7s %31s %11s %9s%n", word, name, number, sign, &end) != 4 || strcmp(word, kind))
            continue;
        const char *rest = line + end;
        const size_t length = strcspn(rest, "\n");
        if (length != strlen(node) + 1 || strncmp(rest + 1, node, length - 1))
            continue;
        const lb_quantizer *quantizer = lb_quantizer_find(name);
        const long bits = strtol(number, &number_end, 10);
        if (!quantizer || *number_end || bits < quantizer->min_bits || bits > quantizer->max_bits)
            return false;
        *from =
            (lb_quant){.spec = {.quantizer = quantizer, .target = target, .bits = (int)bits, .is_signed = !strcmp(sign, "signed")}};
        quantizer->grid(&from->spec, &from->grid);
        return true;
    }
    return false;
}

/* A quantizer's learned parameters, if the file has those of the same one. Files that do not say what theirs are of are believed
 * where the names are the same. */
static lb_status carry_quantizer(lb_ctx *ctx, lb_net *net, const lb_node *node, const lb_safetensors *file, lb_rescale rescale) {
    lb_quant *q = node->quant, from = *q;
    const bool says = lb_safetensors_metadata(file, "quantizers") != NULL;
    const lb_param *first = &net->params[q->param];
    if (says && !described(file, node->name, q->spec.target, &from))
        return LB_OK;
    const int own = q->spec.quantizer->nparams; /* then gates of learned bits, as many as both have */
    from.spec.options.bit_lengths = lb_safetensors_find(file, first[LB_MIN(own, lb_quant_nparams(&q->spec) - 1)].name)
                                        ? q->spec.options.bit_lengths
                                        : LB_BITS_FIXED;
    const int nparams = LB_MIN(lb_quant_nparams(&from.spec), lb_quant_nparams(&q->spec));
    float *values = lb_alloc(ctx, (size_t)nparams * first->count, sizeof *values);
    bool fits = values != NULL;
    for (int p = 0; p < nparams && fits; p++) {
        const void *data;
        fits = !lb_safetensors_get(file, first[p].name, LB_ST_F32, 1, first[p].dims, &data);
        if (fits)
            memcpy(values + (size_t)p * first->count, data, first->count * sizeof *values);
    }
    if (fits && lb_quant_carry(&from, values, q, lb_param_values(net, q->param), first->count, rescale))
        q->initialised = true;
    lb_free(ctx, values);
    return values ? LB_OK : LB_ERR_MEMORY;
}

static lb_status init_from(lb_ctx *ctx, lb_net *net, const lb_safetensors *file, const char *path, lb_rescale rescale) {
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < net->nparams; i++) {
            const lb_param *p = &net->params[i];
            const void *data;
            if (p->kind == LB_PARAM_QUANT)
                continue;
            lb_status status = lb_safetensors_get(file, p->name, LB_ST_F32, p->ndim, p->dims, &data);
            if (status)
                return lb_fail_in(ctx, status, "%s does not fit the network %s", path, net->name);
            if (pass)
                memcpy(net->values + p->offset, data, p->count * sizeof(float));
        }
    for (int i = 0; i < net->nnodes; i++)
        if (net->nodes[i].quant && net->nodes[i].quant->param >= 0)
            LB_TRY(carry_quantizer(ctx, net, &net->nodes[i], file, rescale));
    LB_TRY(check_finite(ctx, net, path));
    lb_net_update_grids(net);
    lb_plan_init_weights(net);
    return LB_OK;
}

static lb_status init_from_file(lb_ctx *ctx, lb_net *net, const char *path, lb_rescale rescale) {
    lb_safetensors *file;
    LB_TRY(lb_safetensors_read(ctx, path, &file));
    lb_status status = check_sum(ctx, file, path);
    if (!status)
        status = init_from(ctx, net, file, path, rescale);
    lb_safetensors_destroy(file);
    return status;
}

lb_status lb_net_init_from(lb_ctx *ctx, lb_net *net, const char *path, lb_rescale rescale) {
    if (!lb_exists(path))
        return lb_fail(ctx, LB_ERR_IO, "%s: no such run directory or checkpoint; `lowbit train RECIPE --out %s` makes one", path,
                       path);
    if (!lb_is_dir(path))
        return init_from_file(ctx, net, path, rescale);
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    lb_run_files files;
    lb_status status = lb_run_files_of(&pool, path, &files);
    if (!status)
        status = init_from_file(ctx, net, lb_run_checkpoint(&files), rescale);
    lb_pool_free(&pool);
    return status;
}

/* A packed model as C source in a directory. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/locale.h"
#include "deploy/codegen/codegen.h"

#define TEST_IMAGES 3

/* ---- The directory ------------------------------------------------------------------------------------------------------ */

static bool starts_with_mark(const char *path) {
    char head[sizeof LB_CODEGEN_MARK - 1];
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    const size_t size = fread(head, 1, sizeof head, file);
    fclose(file);
    return size == sizeof head && !memcmp(head, LB_CODEGEN_MARK, sizeof head);
}

/* True if there is nothing in it, it cannot be read (then writing says why), or it has a model.h of ours, be it one that still has
 * its temporary name because its process was killed. */
static bool is_ours(lb_generator *g, const char *path) {
    DIR *dir = opendir(path);
    if (!dir)
        return true;
    bool empty = true, ours = false;
    for (const struct dirent *entry; !ours && (entry = readdir(dir));) {
        empty = empty && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."));
        if (!strcmp(entry->d_name, "model.h") || !strncmp(entry->d_name, "model.h.tmp.", 12)) {
            const char *header = lb_pool_printf(&g->pool, "%s/%s", path, entry->d_name);
            ours = header && starts_with_mark(header);
        }
    }
    closedir(dir);
    return empty || ours;
}

static lb_status check_dir(lb_generator *g, const char *dir) {
    if (lb_exists(dir) && !lb_is_dir(dir))
        return lb_fail(g->ctx, LB_ERR_ARGUMENT, "%s: a file, but the generated C needs a directory; name a new one", dir);
    if (lb_is_dir(dir) && !is_ours(g, dir))
        return lb_fail(g->ctx, LB_ERR_ARGUMENT, "%s: has files that lowbit codegen did not make; name a new directory", dir);
    return LB_OK;
}

static lb_status write_file(lb_generator *g, lb_staged *staged, const char *dir, const char *name, const char *text) {
    const char *path = lb_pool_printf(&g->pool, "%s/%s", dir, name);
    const lb_span span = {text, strlen(text)};
    if (!path)
        return LB_ERR_MEMORY;
    lb_remove_leftovers(dir, name);
    return lb_staged_write(staged, path, &span, 1);
}

/* ---- Copied files --------------------------------------------------------------------------------------------------------- */

static int find_template(const char *name, size_t size) {
    for (int i = 0; lb_codegen_kernels[i].name; i++)
        if (strlen(lb_codegen_kernels[i].name) == size && !strncmp(lb_codegen_kernels[i].name, name, size))
            return i;
    return -1;
}

/* Marks what `text` includes in quotes, with or without a folder before the name, and what that includes. */
static void mark_includes(const char *text, bool *needed) {
    static const char directive[] = "#include \"";
    while ((text = strstr(text, directive)) != NULL) {
        text += sizeof directive - 1;
        const char *end = strchr(text, '"'), *name = text;
        for (const char *c = text; c < end; c++)
            if (*c == '/')
                name = c + 1;
        const int i = find_template(name, (size_t)(end - name));
        if (i >= 0 && !needed[i]) {
            needed[i] = true;
            mark_includes(lb_codegen_kernels[i].text, needed);
        }
        text = end;
    }
}

static int count_kernels(void) {
    int count = 0;
    while (lb_codegen_kernels[count].name)
        count++;
    return count;
}

/* The kernels that model.c includes. needed: (count_kernels()). */
static lb_status write_kernels(lb_generator *g, lb_staged *staged, const char *kernels, const char *model, bool *needed) {
    mark_includes(model, needed);
    for (int i = 0; lb_codegen_kernels[i].name; i++)
        if (needed[i])
            LB_TRY(write_file(g, staged, kernels, lb_codegen_kernels[i].name, lb_codegen_kernels[i].text));
    return LB_OK;
}

/* Those of a network that was here before go away. */
static lb_status remove_kernels(lb_generator *g, const char *kernels, const bool *needed) {
    for (int i = 0; lb_codegen_kernels[i].name; i++) {
        const char *path = lb_pool_printf(&g->pool, "%s/%s", kernels, lb_codegen_kernels[i].name);
        if (!path)
            return LB_ERR_MEMORY;
        if (!needed[i] && unlink(path) != 0 && errno != ENOENT)
            return lb_fail(g->ctx, LB_ERR_IO, "%s: cannot remove what an earlier network needed; remove it yourself", path);
    }
    return LB_OK;
}

/* ---- The network ---------------------------------------------------------------------------------------------------------- */

/* The first place where `size` bytes meet none of the tensors that are there while layer i runs. */
static size_t place_scratch(const lb_generator *g, int i, size_t size) {
    size_t at = 0;
    for (int t = 0; t < g->graph->ntensors; t++) {
        const lbrt_slot *slot = &g->slots[t];
        const size_t end = slot->offset + slot->size;
        if (slot->first <= i && slot->last >= i && slot->offset < lbrt_size_add(at, size) && at < end) {
            at = end;
            t = -1; /* it may meet one now that it did not meet before */
        }
    }
    return at;
}

/* Layers whose columns can be kept from row to row without the arena growing do that. */
static void keep_rows(lb_generator *g) {
    for (int i = 0; i < g->graph->nlayers; i++) {
        if (!lb_codegen_can_keep(g->graph, i))
            continue;
        const size_t size = lb_codegen_scratch(g->graph, i, true), at = place_scratch(g, i, size);
        if (lbrt_size_add(at, size) <= g->arena) {
            g->keeps[i] = true;
            g->scratch[i] = at;
        }
    }
}

static lb_status plan(lb_generator *g) {
    const size_t nlayers = (size_t)g->graph->nlayers;
    g->slots = lb_pool_alloc(&g->pool, (size_t)g->graph->ntensors, sizeof *g->slots);
    g->scratch = lb_pool_alloc(&g->pool, nlayers, sizeof *g->scratch);
    g->keeps = lb_pool_alloc(&g->pool, nlayers, sizeof *g->keeps);
    g->lines = lb_pool_alloc(&g->pool, nlayers, sizeof *g->lines);
    if (!g->slots || !g->scratch || !g->keeps || !g->lines)
        return LB_ERR_MEMORY;
    g->arena = lbrt_plan(g->graph, g->slots);
    for (int i = 0; i < g->graph->nlayers && g->arena <= INT32_MAX; i++) {
        const size_t size = lb_codegen_scratch(g->graph, i, false);
        g->scratch[i] = place_scratch(g, i, size);
        if (size > 0)
            g->arena = LB_MAX(g->arena, lbrt_size_add(g->scratch[i], size));
        LB_TRY(lb_find_lines(g, i, &g->lines[i]));
    }
    if (g->arena > INT32_MAX)
        return lb_fail(g->ctx, LB_ERR_UNSUPPORTED, "%s: needs %zu bytes of memory to run, more than generated C can address",
                       g->model->name, g->arena);
    g->arena = (g->arena + 3) / 4 * 4;
    keep_rows(g);
    g->info.arena = (int64_t)g->arena;
    return LB_OK;
}

/* The first images of the data set, or noise if there is none and none was asked for. */
static lb_status make_images(lb_generator *g, const char *data_spec) {
    lb_packed *m = g->model;
    const size_t size = lbrt_elements(&g->graph->tensors[0]);
    int32_t labels[TEST_IMAGES];
    g->images = lb_pool_alloc(&g->pool, TEST_IMAGES, size);
    g->scores = lb_pool_alloc(&g->pool, TEST_IMAGES * (size_t)g->graph->classes, sizeof *g->scores);
    if (!g->images || !g->scores)
        return LB_ERR_MEMORY;
    g->nimages = TEST_IMAGES;
    const lb_status found = lb_packed_data(m, data_spec);
    g->real = found == LB_OK;
    if (g->real) {
        g->nimages = (int)LB_MIN((int64_t)TEST_IMAGES, m->data->split[LB_TEST].count);
        LB_TRY(lb_test_batch(m->data, &m->config, LB_TEST, 0, g->nimages, m->info.ih, m->info.iw, g->images, labels));
    } else if (data_spec || found == LB_ERR_MEMORY || found == LB_ERR_INTERRUPTED) {
        return found;
    } else {
        lb_warn(g->ctx, "the self-test's images are noise: %s", lb_error(g->ctx));
        for (size_t i = 0; i < TEST_IMAGES * size; i += 16) {
            uint32_t bits[4];
            lb_rng4(1, LB_RNG_TEST, 0, i / 16, bits);
            memcpy(g->images + i, bits, LB_MIN(sizeof bits, TEST_IMAGES * size - i));
        }
    }
    return lb_packed_scores(m, g->images, g->nimages, g->scores);
}

enum { HEADER, WEIGHTS, MODEL, SOURCES, IMAGES = SOURCES, README, FILES };

static void write_text(lb_generator *g, int file, lb_code *code) {
    switch (file) {
    case HEADER: lb_write_header(g, code); break;
    case WEIGHTS: lb_write_weights(g, code); break;
    case MODEL: lb_write_model(g, code); break;
    case IMAGES: lb_write_test_images(g, code); break;
    default: lb_write_readme(g, code); break;
    }
}

/* Files 0 .. nfiles - 1, and the self-test if those are all. model.h, by which the directory is known as ours, comes first: what
 * is left of a process that was killed can be replaced. It gets its name last. */
static lb_status stage_files(lb_generator *g, lb_staged *staged, const char *dir, const char *kernels, int nfiles, bool *needed) {
    static const char *const names[FILES] = {"model.h", "weights.h", "model.c", "test_images.h", "README.md"};
    for (int i = 0; i < nfiles; i++) {
        lb_code code = {.ctx = g->ctx};
        const lb_c_locale locale = lb_c_locale_begin();
        write_text(g, i, &code);
        lb_c_locale_end(locale);
        lb_status status = code.status;
        if (status == LB_OK)
            status = write_file(g, staged, dir, names[i], code.text);
        if (status == LB_OK && i == MODEL)
            status = write_kernels(g, staged, kernels, code.text, needed);
        lb_code_free(&code);
        if (status != LB_OK)
            return status;
    }
    return nfiles == FILES ? write_file(g, staged, dir, "test.c", lb_codegen_test->text) : LB_OK;
}

/* All of them or, if one cannot be written, what was there before. */
static lb_status write_files(lb_generator *g, const char *dir, int nfiles) {
    const char *kernels = lb_pool_printf(&g->pool, "%s/kernels", dir);
    bool *needed = lb_pool_alloc(&g->pool, (size_t)count_kernels(), sizeof *needed);
    if (!kernels || !needed)
        return LB_ERR_MEMORY;
    int made, made_kernels = 0;
    lb_staged staged;
    lb_staged_init(&staged, g->ctx);
    lb_status status = lb_make_new_dirs(g->ctx, dir, &made);
    if (status == LB_OK)
        status = lb_make_new_dirs(g->ctx, kernels, &made_kernels);
    if (status == LB_OK)
        status = stage_files(g, &staged, dir, kernels, nfiles, needed);
    if (status == LB_OK)
        status = lb_staged_commit(&staged);
    lb_staged_free(&staged);
    if (status == LB_OK)
        return remove_kernels(g, kernels, needed);
    lb_remove_made_dirs(g->ctx, kernels, made_kernels);
    lb_remove_made_dirs(g->ctx, dir, made);
    return status;
}

static void start(lb_generator *g, lb_packed *model) {
    *g = (lb_generator){.ctx = model->ctx, .model = model, .graph = lbrt_model_graph(model->model)};
    lb_pool_init(&g->pool, g->ctx);
}

static lb_status end(lb_generator *g, lb_status status, lb_codegen_info *info) {
    lb_pool_free(&g->pool);
    if (info)
        *info = g->info;
    return status;
}

lb_status lb_codegen_sources(lb_packed *model, const char *dir, lb_codegen_info *info) {
    lb_generator g;
    start(&g, model);
    lb_status status = plan(&g);
    if (status == LB_OK)
        status = write_files(&g, dir, SOURCES);
    return end(&g, status, info);
}

lb_status lb_codegen(lb_packed *model, const char *dir, const char *data_spec, lb_codegen_info *info) {
    lb_generator g;
    start(&g, model);
    lb_status status = check_dir(&g, dir);
    if (status == LB_OK)
        status = plan(&g);
    if (status == LB_OK)
        status = make_images(&g, data_spec);
    if (status == LB_OK)
        status = write_files(&g, dir, FILES);
    return end(&g, status, info);
}

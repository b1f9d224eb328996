/* Import: a run directory from a float ONNX network. It holds the graph without its weights, the weights as a checkpoint, and a
 * recipe that names both. */
#include <math.h>
#include <stdio.h>

#include "core/locale.h"
#include "net/import/import.h"
#include "recipe/recipe.h"
#include "train/trainer.h"

/* ---- The recipe ------------------------------------------------------------------------------------------------------- */

/* What the images probably are: a data set of as many channels and classes; NULL: none. */
static const char *guess_data(const lb_net *net) {
    const bool is_grey = net->nodes[0].dst.c == 1;
    if (net->classes == 10)
        return is_grey ? "fashion-mnist" : "cifar10";
    return net->classes == 100 && !is_grey ? "cifar100" : NULL;
}

/* A folder's images are seen when they are read. */
static lb_status check_channels(const lb_recipe *recipe, const lb_net *net) {
    const lb_data_config *data = &recipe->stages[0].data;
    const int takes = net->nodes[0].dst.c;
    int size, has, classes;
    if (!lb_data_known(data, &size, &has, &classes) || has == takes)
        return LB_OK;
    return lb_fail(recipe->ctx, LB_ERR_RECIPE,
                   "data.name: the images of %s have %d channel%s, but the network takes %d; name another", data->name, has,
                   has == 1 ? "" : "s", takes);
}

static bool says_data(const char *const *overrides, int noverrides) {
    bool said = false;
    for (int i = 0; i < noverrides; i++)
        said |= !strncmp(overrides[i], "data.name=", 10) || !strncmp(overrides[i], "data.path=", 10);
    return said;
}

static lb_status set_list(lb_recipe *recipe, const char *key, const double *values, int n) {
    char text[256] = "[";
    const lb_c_locale locale = lb_c_locale_begin();
    for (int i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%.9g", i ? ", " : "", values[i]);
    lb_c_locale_end(locale);
    strcat(text, "]");
    return lb_recipe_set(recipe, key, text);
}

/* The file's own normalisation as data.mean and data.std, behind what the user says of them. If that is nothing, it starts from
 * pixels of 0..255 if its factor is that small, else from 0..1. */
static lb_status set_normalisation(lb_recipe *recipe, const char *path, const lb_imported *in) {
    const int c = in->net->nodes[0].dst.c;
    const struct lb_data_config *data = &recipe->stages[0].data;
    double mean[4], std[4];
    bool any = false;
    for (int k = 0; k < c && c <= 4; k++) {
        const double scale = (double)in->scale[k], range = scale < 0.2 && !data->nmean && !data->nstd ? 255 : 1;
        const double before = k < data->nstd ? (double)data->std[k] : 1;
        if (!(scale > 0))
            return lb_fail(recipe->ctx, LB_ERR_UNSUPPORTED, "%s: multiplies its input by %g; it must be above 0", path, scale);
        std[k] = before / (scale * range);
        mean[k] = (k < data->nmean ? (double)data->mean[k] : 0) - (double)in->offset[k] * std[k];
        any |= in->scale[k] != 1 || in->offset[k] != 0;
    }
    if (!any)
        return LB_OK;
    LB_TRY(set_list(recipe, "data.mean", mean, c));
    return set_list(recipe, "data.std", std, c);
}

static lb_status fill_recipe(lb_recipe *recipe, const char *path, const char *dir, const char *graph, const lb_imported *in,
                             const char *const *overrides, int noverrides) {
    char epochs[] = "15", lr[] = "0.01"; /* fine-tuning takes less of both than training from nothing */
    LB_TRY(lb_recipe_propose(recipe, "model.name", "onnx"));
    LB_TRY(lb_recipe_propose(recipe, "model.path", graph));
    LB_TRY(lb_recipe_propose(recipe, "train.init", dir));
    LB_TRY(lb_recipe_propose(recipe, "train.epochs", epochs));
    LB_TRY(lb_recipe_propose(recipe, "train.optimizer.lr", lr));
    const lb_shape *input = &in->net->nodes[0].dst;
    const char *guess = guess_data(in->net);
    LB_TRY(lb_recipe_propose(recipe, "data.name", guess ? guess : "folder"));
    LB_TRY(lb_recipe_override(recipe, overrides, noverrides));
    const struct lb_data_config *data = &recipe->stages[0].data;
    const bool is_folder = !strcmp(data->name, "folder");
    if (is_folder && !data->path[0])
        return lb_fail(recipe->ctx, LB_ERR_RECIPE,
                       "%s: %d channel%s and %d classes are of no data set that lowbit knows; name the images with data.path, or "
                       "--data PATH: a folder or an archive with train/<class>/*.jpg|png",
                       path, input->c, input->c == 1 ? "" : "s", in->net->classes);
    if (is_folder && !data->size && input->h == input->w) { /* a folder's images may be of any size */
        char size[16];
        snprintf(size, sizeof size, "%d", LB_MAX(input->h, data->augment.resize));
        LB_TRY(lb_recipe_set(recipe, "data.size", size));
    }
    LB_TRY(check_channels(recipe, in->net));
    LB_TRY(set_normalisation(recipe, path, in));
    return lb_recipe_check(recipe);
}

/* The override of model.input_size, which says how large images are where the file does not; 0: none. */
static int given_size(lb_ctx *ctx, const char *const *overrides, int noverrides) {
    lb_recipe *recipe;
    int size = 0;
    if (lb_recipe_create(ctx, &recipe) != LB_OK)
        return 0;
    for (int i = 0; i < noverrides; i++)
        if (!strncmp(overrides[i], "model.input_size=", 17) && lb_recipe_override(recipe, &overrides[i], 1) == LB_OK)
            size = recipe->stages[0].model.input_size;
    lb_recipe_destroy(recipe);
    return size;
}

/* ---- The directory ---------------------------------------------------------------------------------------------------- */

static lb_status write_files(lb_ctx *ctx, Lb__Onnx__ModelProto *model, const char *path, const lb_trainer *trainer,
                             const lb_run_files *files) {
    LB_TRY(lb_import_strip(ctx, path, model));
    LB_TRY(lb_onnx_save(ctx, files->graph, model));
    LB_TRY(lb_recipe_save(trainer->recipe, files->recipe));
    return lb_checkpoint_save_learner(trainer, 0, files->last);
}

static lb_status write_run(lb_ctx *ctx, lb_pool *pool, Lb__Onnx__ModelProto *model, const char *path, const char *dir,
                           const lb_imported *in, const char *const *overrides, int noverrides) {
    lb_run_files files;
    LB_TRY(lb_run_files_of(pool, dir, &files));
    if (lb_exists(files.last) || lb_exists(files.graph) || lb_exists(files.recipe))
        return lb_fail(ctx, LB_ERR_IO, "%s: a run is there already; choose another directory", dir);
    lb_recipe *recipe;
    LB_TRY(lb_recipe_create(ctx, &recipe));
    const lb_trainer trainer = {.ctx = ctx, .recipe = recipe, .net = in->net, .learners = {{.net = in->net}}, .nlearners = 1,
                                .at = {.best_top1 = -1}};
    lb_status status = fill_recipe(recipe, path, dir, files.graph, in, overrides, noverrides);
    int made = 0;
    if (status == LB_OK)
        status = lb_make_new_dirs(ctx, dir, &made);
    if (status == LB_OK)
        status = write_files(ctx, model, path, &trainer, &files);
    if (status != LB_OK) { /* no half of a run */
        remove(files.graph);
        remove(files.recipe);
        remove(files.last);
        lb_remove_made_dirs(ctx, dir, made);
    }
    if (status == LB_OK && !says_data(overrides, noverrides))
        lb_note(ctx, "data set %s guessed from %d channel%s and %d classes; data.name or data.path say otherwise",
                recipe->stages[0].data.name, in->net->nodes[0].dst.c, in->net->nodes[0].dst.c == 1 ? "" : "s", in->net->classes);
    lb_recipe_destroy(recipe);
    return status;
}

static void describe(const lb_net *net, lb_import_result *result) {
    *result = (lb_import_result){.ih = net->nodes[0].dst.h,
                                 .iw = net->nodes[0].dst.w,
                                 .ic = net->nodes[0].dst.c,
                                 .classes = net->classes,
                                 .parameters = (int64_t)net->nvalues};
    for (int i = 0; i < net->nnodes; i++) {
        result->layers += lb_is_layer(&net->nodes[i]);
        result->added += net->nodes[i].op == LB_OP_BATCHNORM && net->nodes[i].u.bn.calibrate;
    }
}

lb_status lb_import(lb_ctx *ctx, const char *path, const char *dir, const char *const *overrides, int noverrides,
                    lb_import_result *result) {
    const int size = given_size(ctx, overrides, noverrides);
    const lb_import_options options = {.input = {size, size, 0}};
    lb_imported imported;
    Lb__Onnx__ModelProto *model;
    LB_TRY(lb_onnx_load(ctx, path, &model));
    lb_status status = lb_net_import(ctx, model, path, &options, &imported);
    if (status == LB_OK) {
        lb_pool pool;
        lb_pool_init(&pool, ctx);
        status = write_run(ctx, &pool, model, path, dir, &imported, overrides, noverrides);
        if (status == LB_OK && result)
            describe(imported.net, result);
        lb_pool_free(&pool);
        lb_net_destroy(imported.net);
    }
    lb_onnx_free(ctx, model);
    return status;
}

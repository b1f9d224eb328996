/* What a network is made of: layer by layer, from the deploy graph, whether it comes from a run, a packed model or a recipe. */
#include <math.h>
#include <stdio.h>

#include "deploy/lower.h"
#include "deploy/packed.h"
#include "net/numerics.h"
#include "recipe/recipe.h"
#include "train/trainer.h"

/* ---- One layer ------------------------------------------------------------------------------------------------------- */

/* Smallest number of bits that tells lo..hi apart; -1 and 1 of a sign are two values. */
static int bits_of(int32_t lo, int32_t hi) {
    if (lo == -1 && hi == 1)
        return 1;
    const int64_t levels = (int64_t)hi - lo + 1;
    int bits = 1;
    while ((int64_t)1 << bits < levels)
        bits++;
    return bits;
}

/* Lowering makes the flattening of a batch norm's source into a convolution with weights of 1. */
static bool is_copy(const lbrt_layer *l) {
    return l->op == LBRT_OP_CONV && l->weights.bits == 1 && l->weights.mul == 1 && l->weights.add == 0;
}

static const char *op_name(const lbrt_layer *l, const lbrt_tensor *src) {
    static const char *const names[LBRT_OPS] = {"input", "conv", "pointwise", "maxpool", "sumpool", "copy", "mul", "sigmoid"};
    if (is_copy(l))
        return "copy";
    if (l->op == LBRT_OP_CONV && l->kh == 1 && l->kw == 1 && (l->flat || (src->h == 1 && src->w == 1)))
        return "linear";
    return names[l->op];
}

/* Adds what the layer would take in f32: weights, and a factor and an offset per channel where there are any. */
static void describe(const lbrt_graph *g, int i, int64_t bytes, lb_layer_info *info, int64_t *float_bytes) {
    const lbrt_layer *l = &g->layers[i];
    const lbrt_tensor *src = &g->tensors[l->src], *dst = &g->tensors[l->dst];
    *info = (lb_layer_info){.bytes = bytes, .weight_error = NAN};
    snprintf(info->name, sizeof info->name, "%s", l->name);
    snprintf(info->op, sizeof info->op, "%s", op_name(l, src));
    snprintf(info->dst, sizeof info->dst, "%dx%dx%d", dst->h, dst->w, dst->c);
    if (l->op == LBRT_OP_CONV && !is_copy(l)) {
        const int64_t per_channel = lbrt_weights_per_channel(l, src);
        info->weight_bits = l->weights.bits;
        /* A float layer may read codes; wide integers it reads are fixed point. */
        const bool is_codes = src->type != LBRT_F32 && !(l->is_float && src->type == LBRT_I32);
        info->activation_bits = is_codes ? bits_of(src->lo, src->hi) : 32;
        info->weights = per_channel * dst->c;
        info->macs = info->weights * dst->h * dst->w;
    }
    *float_bytes += 4 * info->weights;
    if (l->epilogue.flags & (LBRT_AFFINE | LBRT_THRESHOLDS) && !is_copy(l) && l->op != LBRT_OP_INPUT)
        *float_bytes += 8 * (int64_t)dst->c;
}

void lb_describe_layer(const lbrt_graph *graph, int i, lb_layer_info *info) {
    int64_t float_bytes = 0;
    describe(graph, i, 0, info, &float_bytes);
}

static lb_status describe_graph(lb_ctx *ctx, const lbrt_graph *g, lb_inspection *in) {
    int64_t *bytes = lb_alloc(ctx, (size_t)g->nlayers, sizeof *bytes);
    in->layers = lb_alloc(ctx, (size_t)g->nlayers, sizeof *in->layers);
    lb_status status = bytes && in->layers ? lb_pack_layer_sizes(ctx, g, bytes) : LB_ERR_MEMORY;
    if (status == LB_OK) {
        in->nlayers = g->nlayers;
        for (int i = 0; i < g->nlayers; i++)
            describe(g, i, bytes[i], &in->layers[i], &in->float_bytes);
    }
    lb_free(ctx, bytes);
    return status;
}

/* ---- Networks -------------------------------------------------------------------------------------------------------- */

/* sum |w - f step code| / sum |w|, f the least-squares factor: some methods rescale the weights, which batch norm undoes. */
static double weight_error(const lb_net *net, const lb_node *node, const lb_numeric *x) {
    const lb_param *p = &net->params[node->param[0]];
    const float *w = lb_param_values(net, node->param[0]);
    const size_t fan_in = p->count / (size_t)node->dst.c;
    double error = 0, all = 0, wq = 0, qq = 0;
    for (size_t i = 0; i < p->count; i++) {
        const double q = (double)x->code[i] * (double)x->weight_step[i / fan_in];
        wq += (double)w[i] * q;
        qq += q * q;
    }
    const double factor = qq > 0 ? wq / qq : 0;
    for (size_t i = 0; i < p->count; i++) {
        error += fabs((double)w[i] - factor * (double)x->code[i] * (double)x->weight_step[i / fan_in]);
        all += fabs((double)w[i]);
    }
    return all > 0 ? error / all : 0;
}

static lb_status inspect_net(lb_ctx *ctx, const lb_net *net, const float *mean, const float *std, const char *const *class_names,
                             lb_inspection *in) {
    lb_lowered *lowered;
    LB_TRY(lb_lower(ctx, net, mean, std, class_names, &lowered));
    unsigned char *bytes = NULL;
    size_t size = 0;
    lb_numerics *numerics = NULL;
    lb_status status = describe_graph(ctx, &lowered->graph, in);
    if (status == LB_OK)
        status = lb_pack_graph(ctx, &lowered->graph, NULL, 0, &bytes, &size);
    if (status == LB_OK)
        status = lb_numerics_create(ctx, net, mean, std, &numerics);
    in->bytes = (int64_t)size;
    for (int i = 0; status == LB_OK && i < in->nlayers; i++) {
        const int node = lowered->layer_node[i];
        const lb_quant *q = net->nodes[node].quant;
        in->layers[i].bits_learned = q && q->spec.options.bit_lengths != LB_BITS_FIXED;
        if (in->layers[i].weight_bits && in->layers[i].weight_bits < 32 && numerics->nodes[node].code)
            in->layers[i].weight_error = weight_error(net, &net->nodes[node], &numerics->nodes[node]);
    }
    lb_numerics_destroy(numerics);
    lb_free(ctx, bytes);
    lb_lowered_destroy(lowered);
    return status;
}

static lb_status inspect_run(lb_ctx *ctx, const char *dir, lb_inspection *in) {
    lb_trainer *t;
    LB_TRY(lb_trainer_open(ctx, dir, NULL, &t));
    const bool named = t->data->class_names && t->data->classes == t->net->classes;
    lb_status status = inspect_net(ctx, t->net, t->data->mean, t->data->std, named ? t->data->class_names : NULL, in);
    unsigned char *bytes = NULL;
    size_t size = 0;
    if (status == LB_OK) /* with its notes: the size of the file */
        status = lb_pack_trainer(t, &bytes, &size);
    in->bytes = (int64_t)size;
    lb_free(ctx, bytes);
    lb_trainer_destroy(t);
    return status;
}

static lb_status inspect_model(lb_ctx *ctx, const char *path, lb_inspection *in) {
    lb_packed *model;
    LB_TRY(lb_packed_load(ctx, path, &model));
    in->bytes = (int64_t)model->size;
    const lb_status status = describe_graph(ctx, lbrt_model_graph(model->model), in);
    lb_packed_destroy(model);
    return status;
}

/* ---- Recipes --------------------------------------------------------------------------------------------------------- */

/* Image and classes of the data, without reading it if its name says them and no path may say otherwise. */
static lb_status data_shape(lb_ctx *ctx, const lb_config *config, lb_shape *image, int *classes) {
    int size;
    if (lb_data_known(&config->data, &size, &image->c, classes)) {
        image->h = image->w = size;
        return LB_OK;
    }
    lb_data *data;
    LB_TRY(lb_data_load(ctx, &config->data, &data));
    *image = (lb_shape){data->split[LB_TRAIN].h, data->split[LB_TRAIN].w, data->split[LB_TRAIN].c};
    *classes = data->classes;
    lb_data_destroy(data);
    return LB_OK;
}

/* Steps that training would learn: weights' from the initial weights; activations' are any, which changes no size. */
static void start_quantizers(lb_net *net) {
    lb_plan_init_weights(net);
    for (int i = 0; i < net->nnodes; i++) {
        lb_quant *q = net->nodes[i].op == LB_OP_ACT ? net->nodes[i].quant : NULL;
        if (!q || q->initialised || q->param < 0)
            continue;
        for (int p = 0; p < q->spec.quantizer->nparams && q->param + p < net->nparams; p++)
            for (size_t k = 0; k < net->params[q->param + p].count; k++)
                lb_param_values(net, q->param + p)[k] = 1;
        q->initialised = true;
    }
}

/* What comes out of the last stage; the stages before it must be possible. */
static lb_status quantize_stages(const lb_recipe *recipe, lb_net *net) {
    const int last = recipe->nstages - 1;
    for (int i = 0; i <= last; i++) {
        const lb_config *config = &recipe->stages[i];
        const lb_status status = i < last ? lb_net_can_quantize(net, config) : lb_net_quantize(net, config);
        if (status)
            return last > 0 ? lb_fail_in(net->ctx, status, "stage %s", config->stage) : status;
    }
    return LB_OK;
}

static lb_status inspect_stages(lb_ctx *ctx, const lb_recipe *recipe, lb_inspection *in) {
    static const float mean[4] = {0.5f, 0.5f, 0.5f, 0.5f}, std[4] = {0.25f, 0.25f, 0.25f, 0.25f};
    const lb_config *config = &recipe->stages[0]; /* all have the same network and data */
    lb_shape image;
    int classes;
    LB_TRY(data_shape(ctx, config, &image, &classes));
    if (config->model.input_size)
        image.h = image.w = config->model.input_size;
    lb_net *net;
    LB_TRY(lb_net_from_config(ctx, config, image, classes, &net));
    lb_net_initialise(net, config->train.seed, config->model.init_std);
    lb_status status = quantize_stages(recipe, net);
    if (status == LB_OK) {
        start_quantizers(net);
        status = inspect_net(ctx, net, mean, std, NULL, in);
    }
    lb_net_destroy(net);
    return status;
}

lb_status lb_inspect_recipe(lb_ctx *ctx, const char *path, const char *const *overrides, int noverrides, lb_inspection *in) {
    lb_recipe *recipe;
    *in = (lb_inspection){.ctx = ctx};
    LB_TRY(lb_recipe_load(ctx, path, overrides, noverrides, &recipe));
    const lb_status status = inspect_stages(ctx, recipe, in);
    lb_recipe_destroy(recipe);
    if (status != LB_OK)
        lb_inspection_free(in);
    return status;
}

lb_status lb_inspect(lb_ctx *ctx, const char *path, lb_inspection *inspection) {
    *inspection = (lb_inspection){.ctx = ctx};
    if (!lb_exists(path))
        return lb_fail(ctx, LB_ERR_IO, "%s: no such run directory, packed model or recipe", path);
    LB_TRY(lb_refuse_onnx(ctx, path));
    const char *dot = strrchr(path, '.');
    const bool is_model = lb_is_packed(path) || (dot && !strcmp(dot, ".lbm")); /* a damaged one keeps its name */
    const lb_status status = lb_is_dir(path) ? inspect_run(ctx, path, inspection)
                             : is_model      ? inspect_model(ctx, path, inspection)
                                             : lb_inspect_recipe(ctx, path, NULL, 0, inspection);
    if (status != LB_OK)
        lb_inspection_free(inspection);
    return status;
}

void lb_inspection_free(lb_inspection *inspection) {
    if (inspection->ctx)
        lb_free(inspection->ctx, inspection->layers);
    *inspection = (lb_inspection){.ctx = inspection->ctx};
}

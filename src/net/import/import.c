/* lb_net_import: from the file's graph to ours. */
#include "net/import/import.h"

#include <math.h>

#include "net/import/internal.h"
#include "recipe/config.h"

/* ---- What is needed --------------------------------------------------------------------------------------------------- */

static lb_status check_model(lb_importer *im, const Lb__Onnx__ModelProto *model) {
    enum { OLDEST = 6, NEWEST = 25 };
    if (!model->graph)
        return lb_import_damaged(im, "the model has no graph");
    for (size_t i = 0; i < model->n_opset_import; i++) {
        const Lb__Onnx__OperatorSetIdProto *set = model->opset_import[i];
        if (!set->domain || !*set->domain || !strcmp(set->domain, "ai.onnx"))
            im->opset = set->version < 0 || set->version > 1000 ? -1 : (int)set->version;
    }
    if (im->opset < OLDEST || im->opset > NEWEST)
        return lb_import_refuse(im, "it uses opset %d; %d to %d are read, so export it again with another", im->opset, OLDEST,
                                NEWEST);
    if (model->graph->n_node == 0 || model->graph->n_output == 0)
        return lb_import_damaged(im, "the graph has no nodes or no output");
    for (size_t i = 0; i < model->graph->n_output; i++)
        if (!model->graph->output[i]->name || !*model->graph->output[i]->name)
            return lb_import_damaged(im, "the graph's output has no name");
    return LB_OK;
}

/* Nodes that the first output depends on, and who reads what among them. Sources come before what they feed. */
static lb_status find_needed(lb_importer *im) {
    const Lb__Onnx__GraphProto *g = im->graph;
    const int output = lb_import_find(im, g->output[0]->name);
    im->needed = lb_pool_alloc(&im->pool, g->n_node, sizeof *im->needed);
    if (!im->needed)
        return LB_ERR_MEMORY;
    if (output < 0)
        return lb_import_damaged(im, "no node makes the output '%.80s'", g->output[0]->name);
    if (g->n_output > 1)
        lb_note(im->ctx, "%s: of %zu outputs the first is taken, %s", im->path, g->n_output, g->output[0]->name);
    im->tensors[output].nreaders = 1;
    for (size_t i = g->n_node; i-- > 0;) {
        const Lb__Onnx__NodeProto *node = g->node[i];
        for (size_t o = 0; o < node->n_output; o++)
            im->needed[i] |= *node->output[o] && im->tensors[lb_import_find(im, node->output[o])].nreaders > 0;
        for (size_t k = 0; im->needed[i] && k < node->n_input; k++) {
            const int t = *node->input[k] ? lb_import_find(im, node->input[k]) : -1;
            if (t >= 0)
                im->tensors[t].nreaders++;
        }
    }
    return LB_OK;
}

/* Initializers are read when a node wants them: one that cannot be read is then that node's error. */
static void find_initializers(lb_importer *im) {
    const Lb__Onnx__GraphProto *g = im->graph;
    for (size_t i = 0; i < g->n_initializer; i++)
        if (g->initializer[i]->name && *g->initializer[i]->name)
            im->tensors[lb_import_find(im, g->initializer[i]->name)].initializer = g->initializer[i];
    im->budget = im->places = 1 << 24;
}

static lb_status read_initializer(lb_importer *im, lb_tensor *t) {
    const char *what = lb_pool_printf(&im->pool, "tensor '%.80s'", t->name);
    if (!what)
        return LB_ERR_MEMORY;
    LB_TRY(lb_import_tensor(im, what, t->initializer, &t->constant));
    t->kind = LB_TENSOR_CONSTANT;
    if (t->constant.f || t->constant.i) /* the graph alone may state any size */
        im->budget += 4 * t->constant.count;
    return LB_OK;
}

/* ---- The input -------------------------------------------------------------------------------------------------------- */

static const Lb__Onnx__TypeProto__Tensor *type_of(const Lb__Onnx__ValueInfoProto *info) {
    return info->type && info->type->value_case == LB__ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ? info->type->tensor_type : NULL;
}

/* A size that the file states, 0 if it leaves it open. */
static int64_t size_of(const Lb__Onnx__TypeProto__Tensor *type, size_t d) {
    const Lb__Onnx__TensorShapeProto__Dimension *dim = type->shape->dim[d];
    return dim->value_case == LB__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ? dim->dim_value : 0;
}

enum { LONG_SIGNAL = 16 }; /* (batch, this many, at most 4) has channels last; shorter ones may well have channels first */

static bool is_channels(int64_t size) { return size >= 1 && size <= 4; }

static int64_t root(int64_t area) {
    int64_t side = 1;
    while (side * side < area && side < 1 << 15)
        side++;
    return side * side == area ? side : 0;
}

/* The image behind an input of those dimensions; *last: channels come last. A vector is taken for a flattened square image, grey
 * or of three colours, if it can be one. */
static lb_status find_image(lb_importer *im, int ndim, const int64_t *dims, int64_t image[3], bool *last) {
    const lb_shape *given = &im->options.input;
    const bool few_behind = ndim > 2 && is_channels(dims[ndim - 1]);
    *last = few_behind && (ndim == 4 ? !is_channels(dims[1]) : dims[1] >= LONG_SIGNAL);
    int64_t c = dims[*last ? ndim - 1 : 1], h = ndim == 4 ? dims[*last ? 1 : 2] : 1;
    int64_t w = ndim > 2 ? dims[*last ? ndim - 2 : ndim - 1] : 1;
    if (ndim == 2 && c > 4 && root(c)) {
        h = w = root(c);
        c = 1;
    } else if (ndim == 2 && c % 3 == 0 && root(c / 3) > 1) {
        h = w = root(c / 3);
        c = 3;
    }
    c = c ? c : given->c, h = h ? h : given->h, w = w ? w : given->w;
    if (c < 1 || h < 1 || w < 1)
        return lb_import_refuse(im, "its input leaves the size of the images open; say it with model.input_size");
    if (c > LB_MAX_IMAGE_CHANNELS || h > LB_MAX_EXTENT || w > LB_MAX_EXTENT)
        return lb_import_refuse(im, "its input is of %lld x %lld pixels and %lld channels", (long long)h, (long long)w,
                                (long long)c);
    image[0] = h, image[1] = w, image[2] = c;
    return LB_OK;
}

static lb_status read_input(lb_importer *im) {
    const Lb__Onnx__GraphProto *g = im->graph;
    const Lb__Onnx__ValueInfoProto *input = NULL;
    for (size_t i = 0; i < g->n_input; i++) {
        const char *name = g->input[i]->name;
        const lb_tensor *t = name && *name ? &im->tensors[lb_import_find(im, name)] : NULL;
        if (!t || t->initializer || !t->nreaders)
            continue;
        if (input)
            return lb_import_refuse(im, "it has more than one input, '%.80s' and '%.80s'", input->name, name);
        input = g->input[i];
    }
    if (!input)
        return LB_OK; /* then some node reads what nobody makes, or the output is a constant */
    const Lb__Onnx__TypeProto__Tensor *type = type_of(input);
    if (!type || !type->shape)
        return lb_import_damaged(im, "its input '%.80s' is no tensor of a stated shape", input->name);
    if (type->elem_type != LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT)
        return lb_import_refuse(im, "its input is of element type %d, not float", type->elem_type);
    const int ndim = type->shape->n_dim < 100 ? (int)type->shape->n_dim : 100;
    if (ndim < 2 || ndim > 4)
        return lb_import_refuse(im, "its input has %d dimensions; (batch, channels, height, width) is read, and less", ndim);
    int64_t dims[4] = {0}, image[3] = {0};
    bool last;
    for (int d = 0; d < ndim; d++) {
        dims[d] = size_of(type, (size_t)d);
        if (dims[d] < 0)
            return lb_import_damaged(im, "its input has the negative dimension %lld", (long long)dims[d]);
    }
    im->batch = dims[0] ? dims[0] : 1;
    if (im->batch > LB_MAX_EXTENT)
        return lb_import_refuse(im, "it takes %lld images at once", (long long)im->batch);
    LB_TRY(find_image(im, ndim, dims, image, &last));
    const lb_status status = lb_net_create(im->ctx, "onnx", (int)image[0], (int)image[1], (int)image[2], &im->net);
    if (status != LB_OK)
        return lb_fail_in(im->ctx, status, "%s", im->path);
    lb_view view;
    lb_view_image(im, 0, ndim == 3 ? 3 : 4, &view);
    LB_TRY(lb_import_turn_back(im, &view, last));
    if (ndim == 2)
        LB_TRY(lb_view_reshape(im, &view, 2, (int64_t[]){im->batch, image[0] * image[1] * image[2]}));
    lb_tensor *t = &im->tensors[lb_import_find(im, input->name)];
    t->kind = LB_TENSOR_VIEW;
    t->view = view;
    return LB_OK;
}

/* ---- The walk --------------------------------------------------------------------------------------------------------- */

static lb_import_reader find_reader(const lb_importer *im) {
    lb_import_reader (*const families[])(const lb_importer *) = {
        lb_import_fold_reader,    lb_import_move_reader,   lb_import_place_reader, lb_import_layer_reader,
        lb_import_channel_reader, lb_import_select_reader, lb_import_point_reader, lb_import_codes_reader};
    lb_import_reader reader = NULL;
    for (size_t i = 0; i < LB_COUNT(families) && !reader; i++)
        reader = families[i](im);
    return reader;
}

static lb_status read_node(lb_importer *im) {
    const Lb__Onnx__NodeProto *node = im->node;
    if (!node->op_type)
        return lb_import_damaged(im, "it has no operator");
    if (lb_import_is_quantized(im))
        return lb_import_refuse(im,
                                "only quantized networks have this operator; import the float network that this one was made from, "
                                "or its form with QuantizeLinear and DequantizeLinear");
    if (node->domain && *node->domain && strcmp(node->domain, "ai.onnx"))
        return lb_import_refuse(im, "operators of domain '%.80s' are not read", node->domain);
    const lb_import_reader read = find_reader(im);
    if (!read)
        return lb_import_refuse_operator(im);
    for (size_t i = 0; i < node->n_input; i++) {
        lb_tensor *t = lb_import_input(im, (int)i);
        if (t && t->kind == LB_TENSOR_NONE && t->initializer)
            LB_TRY(read_initializer(im, t));
        if (*node->input[i] && (!t || t->kind == LB_TENSOR_NONE))
            return lb_import_damaged(
                im, "its input '%.80s' is made by no earlier node; the nodes are in the wrong order, or in a circle",
                node->input[i]);
    }
    return read(im);
}

/* The output must be (batch, classes), with ones behind perhaps. */
static lb_status check_output(lb_importer *im) {
    const lb_tensor *t = &im->tensors[lb_import_find(im, im->graph->output[0]->name)];
    im->node = NULL;
    if (t->kind != LB_TENSOR_VIEW)
        return lb_import_refuse(im, "its output '%.80s' does not depend on the image", t->name);
    const lb_view *v = &t->view;
    if (lb_view_padded(v) || v->repeat_h)
        return lb_import_refuse(im, "its output '%.80s' is padded or repeated", t->name);
    const lb_shape *s = &im->net->nodes[v->node].dst;
    if (v->batch_dim != 0 || v->ndim < 2 || v->dims[1] != s->c || s->h != 1 || s->w != 1 || v->node != im->net->nnodes - 1)
        return lb_import_refuse(im, "its output '%.80s' is not (batch, classes)", t->name);
    return LB_OK;
}

/* Values of all parameters. Batch norms that are to be calibrated are the identity until their own values come. */
static void apply_fills(lb_importer *im) {
    for (int i = 0; i < im->net->nnodes; i++) {
        const lb_node *node = &im->net->nodes[i];
        for (int c = 0; node->op == LB_OP_BATCHNORM && node->u.bn.calibrate && c < node->dst.c; c++)
            lb_param_values(im->net, node->param[0])[c] = sqrtf(1 + node->u.bn.eps);
    }
    for (size_t i = 0; i < im->nfills; i++) {
        const lb_import_values *f = &im->fills[i];
        float *dst = lb_param_values(im->net, f->param);
        for (int64_t r = 0; r < f->rows; r++)
            for (int64_t j = 0; j < f->cols; j++)
                dst[r * f->cols + (f->order ? f->order[j] : j)] = f->src[r * f->row_stride + j * f->col_stride] * f->factor;
    }
}

/* A network with such weights cannot be evaluated, let alone trained. */
static lb_status check_values(lb_importer *im) {
    for (int i = 0; i < im->net->nparams; i++) {
        const lb_param *p = &im->net->params[i];
        for (size_t k = 0; k < p->count; k++) {
            const float value = im->net->values[p->offset + k];
            if (!isfinite(value))
                return lb_import_damaged(im, "%s holds values that are not finite", p->name);
            if (p->kind == LB_PARAM_BN_VAR && value < 0)
                return lb_import_damaged(im, "%s holds a variance below zero", p->name);
        }
    }
    return LB_OK;
}

static lb_status walk(lb_importer *im, const Lb__Onnx__ModelProto *model) {
    LB_TRY(check_model(im, model));
    im->graph = model->graph;
    LB_TRY(lb_import_list_tensors(im));
    LB_TRY(find_needed(im));
    find_initializers(im);
    LB_TRY(read_input(im));
    for (size_t i = 0; i < im->graph->n_node; i++) {
        im->node = im->graph->node[i];
        if (im->needed[i])
            LB_TRY(read_node(im));
    }
    LB_TRY(check_output(im));
    LB_TRY(lb_net_add_batchnorms(im->net));
    if (lb_net_finish(im->net) != LB_OK)
        return lb_fail_in(im->ctx, im->net->status, "%s", im->path);
    apply_fills(im);
    LB_TRY(check_values(im));
    lb_import_note_codes(im);
    if (im->ntraining)
        lb_note(im->ctx, "%s: batch norms in training form (%d): their running statistics are taken", im->path, im->ntraining);
    return lb_import_scale(im);
}

lb_status lb_net_import(lb_ctx *ctx, const Lb__Onnx__ModelProto *model, const char *path, const lb_import_options *options,
                        lb_imported *imported) {
    lb_importer im = {.ctx = ctx, .path = path, .scale = {1, 1, 1, 1}};
    if (options)
        im.options = *options;
    lb_pool_init(&im.pool, ctx);
    *imported = (lb_imported){0};
    const lb_status status = walk(&im, model);
    if (status == LB_OK) {
        imported->net = im.net;
        memcpy(imported->scale, im.scale, sizeof im.scale);
        memcpy(imported->offset, im.offset, sizeof im.offset);
    } else {
        lb_net_destroy(im.net);
    }
    lb_free(ctx, im.fills);
    lb_free(ctx, im.concats);
    lb_pool_free(&im.pool);
    return status;
}

/* ---- From a recipe ---------------------------------------------------------------------------------------------------- */

lb_status lb_net_from_onnx(lb_ctx *ctx, const lb_config *config, lb_shape input, lb_net **net) {
    const char *path = config->model.path;
    const lb_import_options options = {.input = input, .graph_only = true};
    lb_imported imported;
    Lb__Onnx__ModelProto *model;
    *net = NULL;
    if (!*path)
        return lb_fail(ctx, LB_ERR_RECIPE, "model.path: an onnx network needs the file it is in; `lowbit import` makes one");
    LB_TRY(lb_onnx_load(ctx, path, &model));
    const lb_status status = lb_net_import(ctx, model, path, &options, &imported);
    lb_onnx_free(ctx, model);
    if (status != LB_OK)
        return status;
    const lb_shape *image = &imported.net->nodes[0].dst;
    const int size = config->model.input_size;
    if (size && (image->h != size || image->w != size)) {
        lb_net_destroy(imported.net);
        return lb_fail(ctx, LB_ERR_RECIPE, "model.input_size: %s is made for images of %dx%d pixels; leave it out", path, image->h,
                       image->w);
    }
    *net = imported.net;
    return LB_OK;
}

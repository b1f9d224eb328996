/* The graph itself: building it node by node, its parameters, finishing and destroying it. */
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "net/ops.h"

#define LB_MAX_VALUES INT32_MAX /* elements of all parameters together */

/* ---- Names ----------------------------------------------------------------------------------------------------- */

int lb_net_find(const lb_net *net, const char *name) {
    for (int i = 0; i < net->nnodes; i++)
        if (!strcmp(net->nodes[i].name, name))
            return i;
    return -1;
}

/* A name like "conv3" for the third convolution, or the next free number. */
static const char *make_name(lb_net *net, lb_op op) {
    int number = 1;
    for (int i = 0; i < net->nnodes; i++)
        number += net->nodes[i].op == op;
    char name[64];
    do
        snprintf(name, sizeof name, "%s%d", lb_op_info(op)->name, number++);
    while (lb_net_find(net, name) >= 0);
    return lb_pool_strdup(&net->pool, name);
}

static lb_status check_name(lb_net *net, const char *name) {
    size_t length = strlen(name);
    if (!length || length >= LB_NAME_SIZE)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "a layer's name has %zu characters; 1 to %d are allowed", length,
                       LB_NAME_SIZE - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 127)
            return lb_fail(net->ctx, LB_ERR_ARGUMENT, "a layer's name has a control character at position %zu", i + 1);
    if (lb_net_find(net, name) >= 0)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: there are two layers of this name; names must differ", name);
    return LB_OK;
}

/* ---- Nodes ----------------------------------------------------------------------------------------------------- */

static lb_status append(lb_net *net, const lb_node *proto) {
    const lb_op_desc *desc = lb_op_info(proto->op);
    if (!desc || (proto->op == LB_OP_INPUT) != (net->nnodes == 0))
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "operator %d cannot be added to a network", (int)proto->op);
    const char *label = proto->name ? proto->name : desc->name;
    if (net->finished)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: the network is finished; no layer can be added", label);
    const bool list = desc->nsrc == LB_MAX_SRC;
    if (list ? proto->nsrc < 2 || proto->nsrc > LB_MAX_SRC : proto->nsrc != desc->nsrc)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: %d sources, but %s has %d", label, proto->nsrc, desc->name, desc->nsrc);
    for (int i = 0; i < proto->nsrc; i++)
        if (proto->src[i] < 0 || proto->src[i] >= net->nnodes)
            return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: source %d is not an earlier layer (there are %d)", label, proto->src[i],
                           net->nnodes);
    if (net->nnodes == INT32_MAX - 1)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: too many layers", label);
    if (proto->name)
        LB_TRY(check_name(net, proto->name));
    const char *name = proto->name ? lb_pool_strdup(&net->pool, proto->name) : make_name(net, proto->op);
    if (!name)
        return LB_ERR_MEMORY;
    LB_TRY(lb_grow(net->ctx, &net->nodes, &net->nodes_capacity, (size_t)net->nnodes + 1, sizeof(lb_node)));

    lb_node *node = &net->nodes[net->nnodes];
    *node = (lb_node){.op = proto->op, .name = name, .nsrc = proto->nsrc, .u = proto->u, .shortcut = proto->shortcut};
    memcpy(node->src, proto->src, sizeof node->src);
    for (int i = 0; i < LB_MAX_PARAMS; i++)
        node->param[i] = -1;
    if (node->op == LB_OP_INPUT)
        node->dst = proto->dst;
    LB_TRY(desc->infer(net, node));
    net->nnodes++;
    return LB_OK;
}

int lb_net_append(lb_net *net, const lb_node *node) {
    if (!net)
        return -1;
    if (net->status == LB_OK)
        net->status = append(net, node);
    return net->status == LB_OK ? net->nnodes - 1 : -1;
}

lb_status lb_net_create(lb_ctx *ctx, const char *name, int ih, int iw, int ic, lb_net **out) {
    *out = NULL;
    lb_net *net = lb_alloc(ctx, 1, sizeof *net);
    if (!net)
        return LB_ERR_MEMORY;
    net->ctx = ctx;
    lb_pool_init(&net->pool, ctx);
    snprintf(net->name, sizeof net->name, "%s", name ? name : "net");
    lb_status status = LB_OK;
    if (ih < 1 || iw < 1 || ic < 1)
        status = lb_fail(ctx, LB_ERR_SHAPE, "%s: images of %dx%dx%d; height, width and channels must be at least 1", net->name, ih,
                         iw, ic);
    else if (lb_net_append(net, &(lb_node){.op = LB_OP_INPUT, .name = "input", .dst = {ih, iw, ic}}) < 0)
        status = net->status;
    if (status != LB_OK) {
        lb_net_destroy(net);
        return status;
    }
    *out = net;
    return LB_OK;
}

void lb_net_destroy(lb_net *net) {
    if (!net)
        return;
    lb_ctx *ctx = net->ctx;
    lb_free(ctx, net->nodes);
    lb_free(ctx, net->params);
    lb_free(ctx, net->values);
    lb_pool_free(&net->pool);
    lb_free(ctx, net);
}

/* ---- Parameters ------------------------------------------------------------------------------------------------ */

/* After lb_net_finish: room for `need` values. A little more than needed, so that adding many small ones seldom copies. */
static lb_status reserve_values(lb_net *net, size_t need) {
    if (need <= net->values_capacity)
        return LB_OK;
    size_t capacity = need + LB_MAX(need / 64, 1024);
    float *values = lb_alloc(net->ctx, capacity, sizeof *values);
    if (!values)
        return LB_ERR_MEMORY;
    memcpy(values, net->values, net->nvalues * sizeof *values);
    lb_free(net->ctx, net->values);
    net->values = values;
    net->values_capacity = capacity;
    return LB_OK;
}

lb_status lb_net_add_param(lb_net *net, lb_node *node, const char *suffix, lb_param_kind kind, int ndim, const int64_t *dims,
                           int *index) {
    assert(ndim >= 1 && ndim <= 4);
    int64_t count = 1;
    for (int i = 0; i < ndim; i++) {
        assert(dims[i] > 0);
        if (count > LB_MAX_VALUES / dims[i])
            return lb_fail(net->ctx, LB_ERR_SHAPE,
                           "%s: %s has more than 2^31 - 1 elements; make model.width or model.input_size smaller", node->name,
                           suffix);
        count *= dims[i];
    }
    if ((size_t)count > (size_t)LB_MAX_VALUES - net->nvalues)
        return lb_fail(net->ctx, LB_ERR_SHAPE,
                       "%s: with %s the network has more than 2^31 - 1 parameters; make model.width smaller", node->name, suffix);
    LB_TRY(lb_grow(net->ctx, &net->params, &net->params_capacity, (size_t)net->nparams + 1, sizeof(lb_param)));
    if (net->finished)
        LB_TRY(reserve_values(net, net->nvalues + (size_t)count));

    lb_param param = {.kind = kind, .node = (int)(node - net->nodes), .ndim = ndim, .count = (size_t)count, .offset = net->nvalues};
    memcpy(param.dims, dims, (size_t)ndim * sizeof *dims);
    param.name = lb_pool_printf(&net->pool, "%s.%s", node->name, suffix);
    if (!param.name)
        return LB_ERR_MEMORY;
    if (kind == LB_PARAM_WEIGHT) {
        param.fan_in = (int)(count / dims[0]);
        param.fan_out = (int)(count / dims[ndim - 1]);
    }
    if (net->finished)
        memset(net->values + net->nvalues, 0, (size_t)count * sizeof *net->values);
    net->nvalues += (size_t)count;
    *index = net->nparams;
    net->params[net->nparams++] = param;
    return LB_OK;
}

/* The weights that make the scores: the last ones, unless a batch norm follows; -1: none. */
static int classifier_weights(const lb_net *net) {
    int last = -1;
    for (int i = 0; i < net->nparams; i++)
        last = net->params[i].kind == LB_PARAM_WEIGHT ? i : net->params[i].kind == LB_PARAM_BN_GAMMA ? -1 : last;
    return last;
}

void lb_net_initialise(lb_net *net, uint64_t seed, float weights_std) {
    const int classifier = classifier_weights(net);
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *param = &net->params[i];
        float *values = lb_param_values(net, i);
        switch (param->kind) {
        case LB_PARAM_WEIGHT: {
            const float he = sqrtf((i == classifier ? 1.f / 3 : 2.f) / (float)param->fan_in);
            const float std = weights_std > 0 ? weights_std : he;
            lb_rng_normal(seed, LB_RNG_INIT, (uint64_t)i, std, values, param->count);
            break;
        }
        case LB_PARAM_BN_GAMMA:
        case LB_PARAM_BN_VAR:
            for (size_t j = 0; j < param->count; j++)
                values[j] = 1;
            break;
        case LB_PARAM_SLOPE:
            for (size_t j = 0; j < param->count; j++)
                values[j] = 0.25f; /* as PReLU's authors did (He et al. 2015) */
            break;
        case LB_PARAM_BIAS:
        case LB_PARAM_BN_BETA:
        case LB_PARAM_BN_MEAN:
            memset(values, 0, param->count * sizeof *values);
            break;
        case LB_PARAM_QUANT: /* its quantizer's business */
            break;
        }
    }
}

int64_t lb_net_macs(const lb_net *net) {
    int64_t sum = 0;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_op_desc *desc = lb_op_info(net->nodes[i].op);
        sum += desc->macs ? desc->macs(net, &net->nodes[i]) : 0;
    }
    return sum;
}

/* ---- Finishing ------------------------------------------------------------------------------------------------- */

static lb_status finish(lb_net *net) {
    if (net->finished)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: the network is finished already", net->name);
    const lb_node *last = &net->nodes[net->nnodes - 1];
    char shape[LB_SHAPE_TEXT];
    if (net->nnodes == 1)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: the network has no layers", net->name);
    if (last->dst.h != 1 || last->dst.w != 1)
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: the last layer, %s, gives %s; a network must end in 1x1xCLASSES", net->name,
                       last->name, lb_shape_text(&last->dst, shape));
    if (net->classes && net->classes != last->dst.c)
        return lb_fail(net->ctx, LB_ERR_SHAPE, "%s: the last layer, %s, gives %s, but there are %d classes", net->name, last->name,
                       lb_shape_text(&last->dst, shape), net->classes);

    bool *used = lb_alloc(net->ctx, (size_t)net->nnodes, sizeof *used);
    if (!used)
        return LB_ERR_MEMORY;
    for (int i = 0; i < net->nnodes; i++)
        for (int s = 0; s < net->nodes[i].nsrc; s++)
            used[net->nodes[i].src[s]] = true;
    int idle = 0;
    while (idle < net->nnodes - 1 && used[idle])
        idle++;
    lb_free(net->ctx, used);
    if (idle < net->nnodes - 1)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: no layer reads %s, which is not the last one (%s)", net->name,
                       net->nodes[idle].name, last->name);

    net->values = lb_alloc(net->ctx, LB_MAX(net->nvalues, 1), sizeof *net->values);
    if (!net->values)
        return LB_ERR_MEMORY;
    net->values_capacity = LB_MAX(net->nvalues, 1);
    for (int i = 0; i < net->nparams; i++)
        if (net->params[i].kind == LB_PARAM_BN_GAMMA || net->params[i].kind == LB_PARAM_BN_VAR)
            for (size_t j = 0; j < net->params[i].count; j++)
                lb_param_values(net, i)[j] = 1;
    net->classes = last->dst.c;
    net->finished = true;
    return LB_OK;
}

lb_status lb_net_finish(lb_net *net) {
    if (net->status == LB_OK)
        net->status = finish(net);
    return net->status;
}

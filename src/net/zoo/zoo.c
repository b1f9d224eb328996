/* The zoo's table, what its families share, and lb_net_from_config. */
#include <math.h>
#include <stdio.h>

#include "net/import/import.h"
#include "net/zoo/zoo.h"

static const lb_zoo_entry table[] = {
#define LB_X(id, name, size, channels, variants, residual, help)                                                                   \
    {name, help, {size, size, channels}, lb_zoo_##id, variants, residual},
    LB_ZOO(LB_X)
#undef LB_X
};

const lb_zoo_entry *lb_zoo_list(size_t *count) {
    *count = LB_COUNT(table);
    return table;
}

/* ---- What families share --------------------------------------------------------------------------------------- */

lb_zoo_name lb_zoo_join(const char *prefix, const char *suffix) {
    lb_zoo_name name;
    snprintf(name.text, sizeof name.text, "%s%s%s", prefix, *prefix ? "." : "", suffix);
    return name;
}

lb_zoo_name lb_zoo_number(const char *prefix, int number) {
    lb_zoo_name name;
    snprintf(name.text, sizeof name.text, "%s%d", prefix, number);
    return name;
}

int lb_zoo_width(const lb_zoo *zoo, int channels) {
    double scaled = (double)channels * (double)zoo->model->width + 0.5;
    return scaled < 1 ? 1 : scaled > INT32_MAX ? INT32_MAX : (int)scaled;
}

static const struct {
    const char *name;
    lb_act_kind kind;
} acts[] = {{"relu", LB_ACT_RELU}, {"relu6", LB_ACT_RELU6}, {"hardtanh", LB_ACT_HARDTANH}};

/* The kind model.act names; false if it leaves the choice to the family. */
static bool chosen_act(const lb_model_config *model, lb_act_kind *kind) {
    for (size_t i = 0; i < LB_COUNT(acts); i++)
        if (!strcmp(model->act, acts[i].name)) {
            *kind = acts[i].kind;
            return true;
        }
    return false;
}

int lb_zoo_act(const lb_zoo *zoo, int src, const char *name, lb_act_kind own) {
    lb_node node = {.op = LB_OP_ACT, .name = name, .nsrc = 1, .src = {src}};
    node.u.act.kind = own;
    chosen_act(zoo->model, &node.u.act.kind);
    return lb_net_append(zoo->net, &node);
}

int lb_zoo_dropout(const lb_zoo *zoo, int src, const char *name, float own) {
    float ratio = zoo->model->dropout >= 0 ? zoo->model->dropout : own;
    return ratio == 0 ? src : lb_net_dropout(zoo->net, src, name, ratio);
}

int lb_zoo_shortcut_conv(const lb_zoo *zoo, int src, const char *name, int oc, int k, int stride, bool bias) {
    lb_node node = {.op = LB_OP_CONV, .name = name, .nsrc = 1, .src = {src}, .shortcut = true};
    node.u.conv = (lb_conv){.oc = oc, .kh = k, .sh = stride, .bias = bias};
    if (k == 2 && src >= 0) { /* of an odd image the last row and column count too, as in the branch beside it */
        node.u.conv.pb = zoo->net->nodes[src].dst.h % 2;
        node.u.conv.pr = zoo->net->nodes[src].dst.w % 2;
    }
    return lb_net_append(zoo->net, &node);
}

int lb_zoo_shortcut_pad(const lb_zoo *zoo, int src, const char *name, int oc, int stride) {
    lb_node node = {.op = LB_OP_SHORTCUTPAD, .name = name, .nsrc = 1, .src = {src}};
    node.u.shortcutpad.stride = stride;
    node.u.shortcutpad.oc = oc;
    return lb_net_append(zoo->net, &node);
}

int lb_zoo_conv_bn(const lb_zoo *zoo, int src, const char *conv, const char *bn, int oc, int k, int stride, int pad, int groups) {
    int x = lb_net_conv2d(zoo->net, src, conv, oc, k, stride, pad, groups, false);
    return lb_net_batchnorm(zoo->net, x, bn, 0, 0);
}

int lb_zoo_classifier(const lb_zoo *zoo, int src, float ratio) {
    int x = lb_zoo_dropout(zoo, src, "dropout", ratio);
    return lb_net_linear(zoo->net, x, "fc", zoo->net->classes, true);
}

/* ---- From a recipe --------------------------------------------------------------------------------------------- */

static bool has_variant(const lb_zoo_entry *entry, const char *variant) {
    if (!*variant || !strcmp(variant, "plain") || !strcmp(variant, "auto") || !strcmp(variant, "default"))
        return true;
    size_t length = strlen(variant);
    for (const char *p = entry->variants; p && *p;) {
        size_t n = strcspn(p, ",");
        if (n == length && !strncmp(p, variant, n))
            return true;
        p += n + strspn(p + n, ", ");
    }
    return false;
}

static lb_status check_model(lb_ctx *ctx, const lb_model_config *model, const lb_zoo_entry *entry) {
    lb_act_kind kind;
    if (!has_variant(entry, model->variant))
        return lb_fail(ctx, LB_ERR_RECIPE, "model.variant: %s has no variant '%s'; it has plain%s%s", entry->name, model->variant,
                       *entry->variants ? ", " : "", entry->variants);
    if (*model->act && strcmp(model->act, "auto") && !chosen_act(model, &kind)) {
        const char *names[LB_COUNT(acts)];
        for (size_t i = 0; i < LB_COUNT(acts); i++)
            names[i] = acts[i].name;
        const char *near = lb_nearest(model->act, names, LB_COUNT(acts));
        return lb_fail(ctx, LB_ERR_RECIPE, "model.act: '%s' is not auto, relu, relu6 or hardtanh%s%s%s", model->act,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    if (model->shortcut != LB_SHORTCUT_CONV && !entry->residual)
        return lb_fail(ctx, LB_ERR_RECIPE, "model.shortcut: %s has no shortcuts to pad; leave it out", entry->name);
    if (!(model->width > 0) || isinf(model->width))
        return lb_fail(ctx, LB_ERR_RECIPE, "model.width: %g must be above 0", (double)model->width);
    if (!(model->dropout < 1))
        return lb_fail(ctx, LB_ERR_RECIPE, "model.dropout: %g must be below 1 (-1: the network's own)", (double)model->dropout);
    return LB_OK;
}

static void set_momentum(lb_net *net, float momentum) {
    for (int i = 0; momentum > 0 && i < net->nnodes; i++)
        if (net->nodes[i].op == LB_OP_BATCHNORM)
            net->nodes[i].u.bn.momentum = momentum;
}

static lb_status from_onnx(lb_ctx *ctx, const lb_config *config, lb_shape input, lb_net **out) {
    static const lb_zoo_entry entry = {.name = "onnx", .variants = "", .residual = false};
    const lb_model_config *model = &config->model;
    LB_TRY(check_model(ctx, model, &entry));
    if (model->width != 1 || (*model->act && strcmp(model->act, "auto")) || model->dropout >= 0)
        return lb_fail(ctx, LB_ERR_RECIPE, "model: width, act and dropout of an onnx network are the file's own; leave them out");
    LB_TRY(lb_net_from_onnx(ctx, config, input, out));
    set_momentum(*out, model->bn_momentum);
    return LB_OK;
}

const lb_zoo_entry *lb_zoo_find(const char *name) {
    for (size_t i = 0; i < LB_COUNT(table); i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

static lb_status refuse_name(lb_ctx *ctx, const char *name) {
    const char *names[LB_COUNT(table)];
    for (size_t i = 0; i < LB_COUNT(table); i++)
        names[i] = table[i].name;
    const char *near = lb_nearest(name, names, LB_COUNT(names));
    return lb_fail(ctx, LB_ERR_RECIPE, "model.name: there is no network '%s'; %s%s%s`lowbit list models` shows all", name,
                   near ? "did you mean '" : "", near ? near : "", near ? "'? " : "");
}

lb_status lb_net_from_config(lb_ctx *ctx, const lb_config *config, lb_shape input, int classes, lb_net **out) {
    const lb_model_config *model = &config->model;
    *out = NULL;
    if (!strcmp(model->name, "onnx"))
        return from_onnx(ctx, config, input, out);
    const lb_zoo_entry *entry = lb_zoo_find(model->name);
    if (!entry)
        return refuse_name(ctx, model->name);
    LB_TRY(check_model(ctx, model, entry));
    if (classes < 1)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "%s: %d classes; at least 1 is needed", entry->name, classes);

    lb_net *net;
    LB_TRY(lb_net_create(ctx, entry->name, input.h, input.w, input.c, &net));
    net->classes = classes;
    lb_status status = entry->build(net, config, lb_net_input(net));
    set_momentum(net, model->bn_momentum);
    if (status == LB_OK)
        status = lb_net_finish(net);
    if (status != LB_OK) {
        lb_net_destroy(net);
        return status == LB_ERR_SHAPE ? lb_fail_in(ctx, status, "%s on %dx%dx%d images", entry->name, input.h, input.w, input.c)
                                      : status;
    }
    *out = net;
    return LB_OK;
}

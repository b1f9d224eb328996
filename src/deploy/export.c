/* A run as an ONNX file: the graph, and where it came from. */
#include "deploy/export.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "train/trainer.h"

static const char *const format_names[LB_ONNX_FORMATS] = {"qdq", "qcdq", "qonnx", "float"};

const char *lb_onnx_format_name(int format) { return format >= 0 && format < LB_ONNX_FORMATS ? format_names[format] : NULL; }

/* Class names as a JSON array: they may hold any character. */
static lb_status add_classes(lb_onnx_build *b, const lb_data *data) {
    json_t *names = json_array();
    for (int c = 0; c < data->classes; c++)
        json_array_append_new(names, json_string(data->class_names[c]));
    char *text = names && json_array_size(names) == (size_t)data->classes ? json_dumps(names, JSON_COMPACT) : NULL;
    json_decref(names);
    if (!text)
        return lb_fail(b->pool.ctx, LB_ERR_FORMAT, "%s: class names that are not UTF-8", data->source);
    lb_onnx_metadata(b, "classes", text);
    free(text);
    return LB_OK;
}

static lb_status describe(lb_onnx_build *b, const lb_trainer *t, const lb_export_options *options) {
    const lb_data_config *d = &t->config->data;
    char quant[1024], number[16];
    b->model.producer_name = (char *)lb_onnx_name(b, "lowbit");
    b->model.producer_version = (char *)lb_onnx_name(b, "%s", LB_VERSION);
    lb_net_describe_quant(t->net, quant, sizeof quant);
    lb_onnx_metadata(b, "format", lb_onnx_format_name((int)options->format));
    lb_onnx_metadata(b, "model", t->net->name);
    lb_onnx_metadata(b, "quantization", quant);
    lb_onnx_metadata(b, "input",
                     t->net->nodes[0].dst.c == 3 ? "RGB pixels 0..255, NCHW, not normalised"
                                                 : "pixels 0..255, NCHW, not normalised");
    lb_onnx_metadata(b, "data.name", d->name);
    snprintf(number, sizeof number, "%d", d->size);
    lb_onnx_metadata(b, "data.size", number);
    snprintf(number, sizeof number, "%d", d->augment.resize);
    lb_onnx_metadata(b, "data.augment.resize", number);
    if (t->data->class_names && t->data->classes == t->net->classes)
        LB_TRY(add_classes(b, t->data));
    return b->status;
}

lb_status lb_export(lb_trainer *trainer, const char *path, const lb_export_options *options) {
    lb_ctx *ctx = trainer->ctx;
    lb_export_options resolved;
    LB_TRY(lb_export_resolve(ctx, options, &resolved));
    if (lb_is_same_file(path, trainer->config->model.path))
        return lb_fail(ctx, LB_ERR_ARGUMENT, "%s: this is the graph that the run was made of and needs; choose another name", path);
    lb_onnx_build b;
    lb_onnx_build_init(&b, ctx, trainer->net->name);
    lb_status status = lb_export_net(ctx, trainer->net, trainer->data->mean, trainer->data->std, &resolved, &b);
    if (status == LB_OK)
        status = describe(&b, trainer, &resolved);
    if (status == LB_OK)
        status = lb_onnx_save(ctx, path, &b.model);
    lb_onnx_build_free(&b);
    return status;
}

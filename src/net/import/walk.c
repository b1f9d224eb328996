/* Nodes of the file: their tensors by name, inputs, attributes, and the names of the layers they become. */
#include <stdio.h>

#include "net/import/internal.h"

/* ---- Errors ----------------------------------------------------------------------------------------------------------- */

/* Text of a file in a message: short, and without what would break the line. */
static void clean(const char *text, char *out, size_t size) {
    size_t n = 0;
    for (; text && text[n] && n < size - 1; n++)
        out[n] = (unsigned char)text[n] < ' ' || text[n] == 127 ? '?' : text[n];
    out[n] = 0;
}

static const char *node_name(const Lb__Onnx__NodeProto *node) {
    if (node->name && *node->name)
        return node->name;
    return node->n_output ? node->output[0] : "";
}

static lb_status fail_at(lb_importer *im, lb_status status, const char *fmt, va_list args) {
    char raw[600], reason[600], name[160], op[60];
    vsnprintf(raw, sizeof raw, fmt, args);
    clean(raw, reason, sizeof reason);
    if (!im->node)
        return lb_fail(im->ctx, status, "%s: %s", im->path, reason);
    clean(node_name(im->node), name, sizeof name);
    clean(im->node->op_type, op, sizeof op);
    return lb_fail(im->ctx, status, "%s: node '%s' (%s): %s", im->path, name, op, reason);
}

lb_status lb_import_refuse(lb_importer *im, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    lb_status status = fail_at(im, LB_ERR_UNSUPPORTED, fmt, args);
    va_end(args);
    return status;
}

lb_status lb_import_damaged(lb_importer *im, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    lb_status status = fail_at(im, LB_ERR_FORMAT, fmt, args);
    va_end(args);
    return status;
}

/* ---- Tensors by name -------------------------------------------------------------------------------------------------- */

/* Where in a table of `size`, a power of two, the search for a name begins. */
static size_t place_of(const char *name, size_t size) {
    const uint64_t h = lb_hash(LB_HASH, name, strlen(name));
    return (size_t)(h ^ h >> 32) & (size - 1);
}

int lb_import_find(const lb_importer *im, const char *name) {
    for (size_t at = place_of(name, im->table_size);; at = (at + 1) & (im->table_size - 1)) {
        const int t = im->table[at];
        if (t < 0 || !strcmp(im->tensors[t].name, name))
            return t;
    }
}

static lb_status add_tensor(lb_importer *im, const char *name, bool again) {
    if (!*name)
        return LB_OK;
    size_t at = place_of(name, im->table_size);
    for (; im->table[at] >= 0; at = (at + 1) & (im->table_size - 1))
        if (!strcmp(im->tensors[im->table[at]].name, name))
            return again ? LB_OK : lb_import_damaged(im, "tensor '%.80s' is made twice", name);
    im->tensors[im->ntensors] = (lb_tensor){.name = name};
    im->table[at] = im->ntensors++;
    return LB_OK;
}

lb_status lb_import_list_tensors(lb_importer *im) {
    const Lb__Onnx__GraphProto *g = im->graph;
    size_t count = g->n_initializer + g->n_input;
    if (g->n_node > LB_IMPORT_MAX_NODES || count > 10 * LB_IMPORT_MAX_NODES)
        return lb_import_refuse(im, "%zu nodes and %zu weights; up to %d nodes are read", g->n_node, g->n_initializer,
                                LB_IMPORT_MAX_NODES);
    size_t inputs = 0; /* lists of them become as many layers */
    for (size_t i = 0; i < g->n_node; i++) {
        count += g->node[i]->n_output;
        inputs += g->node[i]->n_input;
        if (g->node[i]->n_input > LB_IMPORT_MAX_INPUTS)
            return lb_import_refuse(im, "a node has %zu inputs; up to %d are read", g->node[i]->n_input, LB_IMPORT_MAX_INPUTS);
    }
    if (inputs > 10 * LB_IMPORT_MAX_NODES)
        return lb_import_refuse(im, "its nodes have %zu inputs", inputs);
    if (count > 20 * LB_IMPORT_MAX_NODES)
        return lb_import_refuse(im, "its nodes have %zu outputs", count);
    im->table_size = 16;
    while (im->table_size < 2 * count)
        im->table_size *= 2;
    im->table = lb_pool_alloc(&im->pool, im->table_size, sizeof *im->table);
    im->tensors = lb_pool_alloc(&im->pool, count, sizeof *im->tensors);
    if (!im->table || !im->tensors)
        return LB_ERR_MEMORY;
    for (size_t i = 0; i < im->table_size; i++)
        im->table[i] = -1;
    for (size_t i = 0; i < g->n_initializer; i++)
        LB_TRY(add_tensor(im, g->initializer[i]->name ? g->initializer[i]->name : "", false));
    for (size_t i = 0; i < g->n_input; i++) /* old files list weights as inputs too */
        LB_TRY(add_tensor(im, g->input[i]->name ? g->input[i]->name : "", true));
    for (size_t i = 0; i < g->n_node; i++) {
        im->node = g->node[i];
        for (size_t o = 0; o < g->node[i]->n_output; o++)
            LB_TRY(add_tensor(im, g->node[i]->output[o], false));
    }
    im->node = NULL;
    return LB_OK;
}

/* ---- Inputs ----------------------------------------------------------------------------------------------------------- */

lb_tensor *lb_import_input(lb_importer *im, int i) {
    if (i < 0 || (size_t)i >= im->node->n_input || !*im->node->input[i])
        return NULL;
    const int t = lb_import_find(im, im->node->input[i]);
    return t < 0 ? NULL : &im->tensors[t];
}

static lb_status find_input(lb_importer *im, int i, lb_tensor **tensor) {
    *tensor = lb_import_input(im, i);
    if (*tensor)
        return LB_OK;
    return lb_import_damaged(im, "its input %d is missing", i);
}

lb_status lb_import_constant(lb_importer *im, int i, const lb_constant **constant) {
    lb_tensor *t;
    LB_TRY(find_input(im, i, &t));
    if (t->kind != LB_TENSOR_CONSTANT)
        return lb_import_refuse(im, "its input %d, '%.80s', depends on the image; only constants can be there", i, t->name);
    *constant = &t->constant;
    return LB_OK;
}

lb_status lb_import_repeated_view(lb_importer *im, int i, lb_view **view) {
    lb_tensor *t;
    LB_TRY(find_input(im, i, &t));
    if (t->kind != LB_TENSOR_VIEW)
        return lb_import_refuse(im, "its input %d, '%.80s', is a constant, not an image", i, t->name);
    *view = &t->view;
    return LB_OK;
}

lb_status lb_import_padded_view(lb_importer *im, int i, lb_view **view) {
    LB_TRY(lb_import_repeated_view(im, i, view));
    return lb_import_repeat(im, *view);
}

lb_status lb_import_view(lb_importer *im, int i, lb_view **view) {
    LB_TRY(lb_import_padded_view(im, i, view));
    return lb_import_settle(im, *view);
}

/* ---- Attributes ------------------------------------------------------------------------------------------------------- */

bool lb_import_is_text(const Lb__Onnx__AttributeProto *a, const char *text) {
    return a && a->has_s && a->s.len == strlen(text) && !memcmp(a->s.data, text, a->s.len);
}

const Lb__Onnx__AttributeProto *lb_import_attribute(const lb_importer *im, const char *name) {
    for (size_t i = 0; i < im->node->n_attribute; i++)
        if (im->node->attribute[i]->name && !strcmp(im->node->attribute[i]->name, name))
            return im->node->attribute[i];
    return NULL;
}

int64_t lb_import_int(const lb_importer *im, const char *name, int64_t missing) {
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, name);
    return a && a->has_i ? a->i : missing;
}

float lb_import_real(const lb_importer *im, const char *name, float missing) {
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, name);
    return a && a->has_f ? a->f : missing;
}

const int64_t *lb_import_ints(const lb_importer *im, const char *name, size_t *count) {
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, name);
    *count = a ? a->n_ints : 0;
    return a ? a->ints : NULL;
}

lb_status lb_import_list(lb_importer *im, int i, const char *name, const int64_t **values, int64_t *count) {
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, name);
    *values = NULL;
    *count = -1;
    if (lb_import_input(im, i)) {
        const lb_constant *c;
        LB_TRY(lb_import_constant(im, i, &c));
        if (!c->whole || c->ndim > 1)
            return lb_import_damaged(im, "its input %d is no list of whole numbers", i);
        *values = c->i;
        *count = c->count;
    } else if (a) {
        *values = a->ints;
        *count = (int64_t)a->n_ints;
    }
    return LB_OK;
}

lb_status lb_import_scalar(lb_importer *im, int i, const char *name, float missing, float *value) {
    *value = lb_import_real(im, name, missing);
    if (!lb_import_input(im, i))
        return LB_OK;
    const lb_constant *c;
    LB_TRY(lb_import_constant(im, i, &c));
    if (c->count != 1)
        return lb_import_damaged(im, "its input %d has %lld elements instead of one", i, (long long)c->count);
    if (c->weight)
        return lb_import_refuse(im, "its input %d is part of a weight", i);
    *value = c->whole ? (float)c->i[0] : c->f[0];
    return LB_OK;
}

lb_status lb_import_axis(lb_importer *im, int64_t axis, int ndim, int *result) {
    if (axis < -ndim || axis >= ndim)
        return lb_import_damaged(im, "axis %lld of a tensor of %d dimensions", (long long)axis, ndim);
    *result = (int)(axis < 0 ? axis + ndim : axis);
    return LB_OK;
}

/* ---- Results ---------------------------------------------------------------------------------------------------------- */

static lb_tensor *output(const lb_importer *im, size_t o) {
    const int t = o < im->node->n_output && *im->node->output[o] ? lb_import_find(im, im->node->output[o]) : -1;
    return t < 0 ? NULL : &im->tensors[t];
}

bool lb_import_is_read(const lb_importer *im, size_t o) {
    const lb_tensor *t = output(im, o);
    return t && t->nreaders > 0;
}

void lb_import_set_output(lb_importer *im, size_t o, const lb_view *view) {
    lb_tensor *t = output(im, o);
    if (!t)
        return;
    t->kind = LB_TENSOR_VIEW;
    t->view = *view;
    t->view.shared = false;
    for (size_t i = 0; i < im->node->n_input; i++) {
        const lb_tensor *src = lb_import_input(im, (int)i);
        if (src && src->kind == LB_TENSOR_VIEW && src->view.node == view->node)
            t->view.shared |= !lb_import_is_own(src);
    }
}

lb_status lb_import_set_constant(lb_importer *im, const lb_constant *constant) {
    lb_tensor *t = output(im, 0);
    if (t) {
        t->kind = LB_TENSOR_CONSTANT;
        t->constant = *constant;
    }
    return LB_OK;
}

lb_status lb_import_set_view(lb_importer *im, const lb_view *view) {
    lb_import_set_output(im, 0, view);
    return LB_OK;
}

/* ---- Names ------------------------------------------------------------------------------------------------------------ */

enum { NAME = 160 };

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n > m && !strcmp(text + n - m, end);
}

/* "/layer1/layer1.0/conv1/Conv" of PyTorch, where each part repeats the one before, as "layer1.0.conv1". */
static void from_path(const char *path, const char *op, char out[NAME]) {
    size_t used = 0;
    path += strspn(path, "/");
    for (const char *part = path; *part;) {
        const size_t n = strcspn(part, "/");
        const char *next = part + n + strspn(part + n, "/");
        const bool is_op = !*next && part != path && !strncmp(part, op, strlen(op));
        const bool repeated = *next && !strncmp(next, part, n) && next[n] == '.';
        if (!is_op && !repeated && used + n + 2 < NAME) {
            if (used)
                out[used++] = '.';
            memcpy(out + used, part, n);
            used += n;
        }
        part = next;
    }
    out[used] = 0;
}

/* The layer of that name, or the free place in the table where it would be. */
static lb_taken *find_taken(const lb_importer *im, const char *name) {
    size_t at = place_of(name, im->taken_size);
    while (im->taken[at].name && strcmp(im->taken[at].name, name))
        at = (at + 1) & (im->taken_size - 1);
    return &im->taken[at];
}

/* Enters the layers that came since. */
static lb_status note_names(lb_importer *im) {
    const size_t count = (size_t)im->net->nnodes;
    if (im->taken_size < 2 * count) {
        lb_taken *old = im->taken;
        const size_t had = im->taken_size;
        im->taken_size = had ? had : 64;
        while (im->taken_size < 4 * count)
            im->taken_size *= 2;
        im->taken = lb_pool_alloc(&im->pool, im->taken_size, sizeof *im->taken);
        if (!im->taken)
            return LB_ERR_MEMORY;
        for (size_t i = 0; i < had; i++)
            if (old[i].name)
                *find_taken(im, old[i].name) = old[i];
    }
    for (; im->ntaken < im->net->nnodes; im->ntaken++)
        *find_taken(im, im->net->nodes[im->ntaken].name) = (lb_taken){im->net->nodes[im->ntaken].name, 2};
    return LB_OK;
}

const char *lb_import_unique(lb_importer *im, const char *name) {
    char numbered[NAME + 12];
    if (note_names(im) != LB_OK)
        return NULL;
    lb_taken *taken = find_taken(im, name);
    if (!taken->name)
        return lb_pool_strdup(&im->pool, name);
    for (;; taken->next++) {
        snprintf(numbered, sizeof numbered, "%.*s_%d", NAME - 1, name, taken->next);
        if (!find_taken(im, numbered)->name)
            return lb_pool_strdup(&im->pool, numbered);
    }
}

const char *lb_import_name(lb_importer *im, const char *parameter) {
    static const char *const suffixes[] = {".weight", "/weight"};
    char raw[NAME], name[NAME];
    const char *found = NULL;
    for (size_t i = 0; parameter && i < LB_COUNT(suffixes); i++)
        if (ends_with(parameter, suffixes[i]) && !strstr(parameter, "::") && strlen(parameter) < NAME)
            found = parameter;
    if (found)
        snprintf(raw, sizeof raw, "%.*s", (int)(strlen(found) - strlen(".weight")), found);
    else
        from_path(node_name(im->node), im->node->op_type, raw);
    clean(*raw ? raw : im->node->op_type, name, sizeof name);
    return lb_import_unique(im, name);
}

/* ---- Our nodes -------------------------------------------------------------------------------------------------------- */

lb_status lb_import_append(lb_importer *im, const lb_node *node, int *index) {
    if (!node->name)
        return LB_ERR_MEMORY;
    *index = lb_net_append(im->net, node);
    if (*index >= 0)
        return LB_OK;
    char why[sizeof im->ctx->error];
    memcpy(why, im->ctx->error, sizeof why);
    return im->net->status == LB_ERR_MEMORY ? LB_ERR_MEMORY : lb_import_refuse(im, "%s", why);
}

lb_status lb_import_fill(lb_importer *im, const lb_import_values *fill) {
    if (!fill->src)
        return LB_OK;
    LB_TRY(lb_grow(im->ctx, &im->fills, &im->fills_capacity, im->nfills + 1, sizeof *im->fills));
    im->fills[im->nfills++] = *fill;
    return LB_OK;
}

/* The single-operator cases of ONNX's own test data (Debian's libonnx-testdata): each whose operators import knows is read, run in
 * real arithmetic and compared with the output that comes with it. A case's first input is the image, the others become weights, or
 * where that cannot be, are parts of the image too, which a Split takes apart. Behind the output come Flatten and Gemm, which make
 * scores of any tensor: its elements themselves, or sums of them where they are many; before a Softmax they are scores themselves.
 * Each case that is left out is named, with import's reason. */
#include <dirent.h>

#include "families.h"
#include "net/import/import.h"
#include "onnx/build.h"

#define DATA "/usr/share/libonnx-testdata/data/"

enum { MOST = 256, SUMS = 32, FLOAT_TYPE = LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT };

/* Those that docs/onnx.md lists. */
static const char *const operators[] = {
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Neg",
    "Sum",
    "BatchNormalization",
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Clip",
    "Max",
    "Min",
    "HardSigmoid",
    "HardSwish",
    "Sigmoid",
    "Tanh",
    "Softmax",
    "LogSoftmax",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Concat",
    "Slice",
    "Split",
    "Pad",
    "Identity",
    "Dropout",
    "Constant",
    "Cast",
    "Shape",
    "Gather",
    "Expand",
    "Resize",
    "Upsample",
};

/* Why cases are left out: part of import's message. A message that fits none is an error of the test. */
static const char *const reasons[] = {
    "this operator is not read",
    "opset",
    "dimensions; (batch, channels, height, width) is read", /* 1-d and 5-d inputs */
    "of element type",
    "has element type",
    "is no tensor of a stated shape",
    "its constant is not one number for each channel",
    "numbers are not one for each channel",
    "its constant has",
    "its constant holds no real numbers",
    "its bias has",
    "its weights have",
    "transA is not read",
    "its second output is used",
    "mixes the images of a batch",
    "puts the images of batches together",
    "of a batch of",
    "rows or columns; up to",
    "only over height and width",
    "only over the classes at the network's end",
    "only zeros, or -infinity",
    "is given twice, is the batch",
    "its input has",
    "does not depend on the image",
    "depends on the image; only constants",
    "only products with weights are read",
    "is a constant, not an image",
    "divides by an image",
    "clips to",
    "only of an image and one number",
    "elements instead of one",
    "casts an image",
    "must be at least 0 and less than the", /* padding of a whole kernel */
    "beyond reason",
    "leaves the size of the images open",
    "pads by",
    "its shape is missing",
    "is no image in the order",
    "only channels of an image are",
    "repeats images or channels",
    "only nearest pixels by whole factors",
    "grows by no whole factor",
    "its scales or sizes",
    "has more dimensions than the image",
    "only channels, each at most once",
    "are not two for each of",
    "ratio",
    "is not (batch, classes)",
    "slopes; only a single one is read",
    "of images of different shapes",
    "in pieces that do not fit",
    "there is nothing to compare", /* the test's own, as the next */
    "its output is that of training",
};

/* ---- Files ------------------------------------------------------------------------------------------------------------ */

static Lb__Onnx__TensorProto *load_tensor(lb_ctx *ctx, const char *dir, const char *what) {
    char path[700];
    unsigned char *data;
    size_t size;
    ProtobufCAllocator allocator = lb_onnx_allocator(ctx);
    snprintf(path, sizeof path, "%s/test_data_set_0/%s_0.pb", dir, what);
    if (!strcmp(what, "1") || !strcmp(what, "2") || !strcmp(what, "3") || !strcmp(what, "4"))
        snprintf(path, sizeof path, "%s/test_data_set_0/input_%s.pb", dir, what);
    if (!lb_exists(path))
        return NULL;
    assert_ok(ctx, lb_read_file(ctx, path, 1 << 28, &data, &size));
    Lb__Onnx__TensorProto *t = lb__onnx__tensor_proto__unpack(&allocator, size, data);
    lb_free(ctx, data);
    return t;
}

static float float_at(const Lb__Onnx__TensorProto *t, size_t i) {
    float value;
    if (!t->has_raw_data)
        return t->float_data[i];
    memcpy(&value, t->raw_data.data + 4 * i, sizeof value);
    return value;
}

static size_t count_of(const Lb__Onnx__TensorProto *t) {
    size_t count = 1;
    for (size_t d = 0; d < t->n_dims; d++)
        count *= (size_t)t->dims[d];
    return count;
}

/* ---- One case --------------------------------------------------------------------------------------------------------- */

typedef enum way { AS_WEIGHTS, AS_PARTS, AS_SCORES, WAYS } way;

typedef struct wrapped {
    lb_onnx_build b; /* holds what is added */
    way way;
    Lb__Onnx__NodeProto **nodes;
    Lb__Onnx__TensorProto **initializers, *inputs[4];
    Lb__Onnx__TensorProto joined; /* as parts: the image that they are */
    int64_t joined_dims[4];
    char *names[4];
    size_t features, sums;
    float *matrix; /* (sums, features) */
} wrapped;

/* Inputs of the same shape but for the channels, side by side: element i of the image's slice n is in one of them. */
static bool join_inputs(const Lb__Onnx__GraphProto *g, const Lb__Onnx__TensorProto *first, wrapped *w) {
    const size_t count = g->n_input;
    const Lb__Onnx__TensorProto *parts[4] = {first, w->inputs[0], w->inputs[1], w->inputs[2]};
    int64_t channels = 0;
    if (count < 2 || count > 4 || first->n_dims < 2 || first->n_dims > 4)
        return false;
    for (size_t p = 0; p < count; p++) {
        if (!parts[p] || parts[p]->data_type != FLOAT_TYPE || parts[p]->n_dims != first->n_dims)
            return false;
        for (size_t d = 0; d < first->n_dims; d++)
            if (d != 1 && parts[p]->dims[d] != first->dims[d])
                return false;
        channels += parts[p]->dims[1];
    }
    lb__onnx__tensor_proto__init(&w->joined);
    memcpy(w->joined_dims, first->dims, first->n_dims * sizeof *first->dims);
    w->joined_dims[1] = channels;
    w->joined.data_type = FLOAT_TYPE;
    w->joined.n_dims = first->n_dims;
    w->joined.dims = w->joined_dims;
    w->joined.n_float_data = count_of(&w->joined);
    w->joined.float_data = calloc(w->joined.n_float_data, sizeof(float));
    size_t at = 0;
    for (int64_t n = 0; n < first->dims[0]; n++)
        for (size_t p = 0; p < count; p++) {
            const size_t each = count_of(parts[p]) / (size_t)first->dims[0];
            for (size_t i = 0; i < each; i++)
                w->joined.float_data[at++] = float_at(parts[p], (size_t)n * each + i);
        }
    float sizes[4];
    for (size_t p = 0; p < count; p++) {
        sizes[p] = (float)parts[p]->dims[1];
        w->names[p] = g->input[p]->name;
    }
    lb_onnx_tensor(&w->b, "test/sizes", LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT64, 1, (const int64_t[]){(int64_t)count}, sizes);
    lb_onnx_input(&w->b, "test/joined", (int)first->n_dims, w->joined_dims);
    Lb__Onnx__NodeProto *split = lb_onnx_node(&w->b, "Split", "test/split", 2, (const char *[]){"test/joined", "test/sizes"});
    lb_onnx_int(&w->b, split, "axis", 1);
    split->n_output = count;
    split->output = w->names;
    return true;
}

/* Adds the other inputs as weights or as parts, and Flatten and Gemm behind the output. False: nothing is to be had this way. */
static bool wrap(lb_ctx *ctx, const char *dir, Lb__Onnx__ModelProto *model, const Lb__Onnx__TensorProto *input,
                 const Lb__Onnx__TensorProto *want, wrapped *w) {
    Lb__Onnx__GraphProto *g = model->graph;
    const size_t batch = want->n_dims ? (size_t)want->dims[0] : 1;
    w->features = count_of(want) / batch;
    w->sums = w->features <= MOST ? w->features : SUMS;
    w->matrix = calloc(w->features * w->sums, sizeof *w->matrix);
    uint32_t seed = 99;
    for (size_t i = 0; i < w->features * w->sums; i++)
        w->matrix[i] = w->sums == w->features ? (float)(i / w->features == i % w->features) : netref_uniform(&seed, -1, 1);
    lb_onnx_build_init(&w->b, ctx, "wrap");
    const char *tensor = w->way == AS_SCORES ? g->input[0]->name : g->output[0]->name;
    Lb__Onnx__NodeProto *flatten = lb_onnx_node(&w->b, "Flatten", "test/flat", 1, &tensor);
    lb_onnx_int(&w->b, flatten, "axis", 1);
    lb_onnx_tensor(&w->b, "test/matrix", FLOAT_TYPE, 2, (const int64_t[]){(int64_t)w->sums, (int64_t)w->features}, w->matrix);
    Lb__Onnx__NodeProto *gemm = lb_onnx_node(&w->b, "Gemm", "test/scores", 2, (const char *[]){"test/flat", "test/matrix"});
    lb_onnx_int(&w->b, gemm, "transB", 1);
    w->nodes = calloc(g->n_node + 3, sizeof *w->nodes);
    w->initializers = calloc(g->n_initializer + 6, sizeof *w->initializers);
    size_t n = g->n_initializer;
    if (n)
        memcpy(w->initializers, g->initializer, n * sizeof *w->initializers);
    w->initializers[n++] = w->b.graph.initializer[0];
    for (size_t i = 0; i < 4 && g->n_initializer == 0 && i + 1 < g->n_input; i++) {
        const char name[] = {(char)('1' + i), 0};
        w->inputs[i] = load_tensor(ctx, dir, name);
        if (!w->inputs[i])
            continue;
        lb_free(ctx, w->inputs[i]->name);
        w->inputs[i]->name = lb_alloc(ctx, strlen(g->input[i + 1]->name) + 1, 1);
        strcpy(w->inputs[i]->name, g->input[i + 1]->name);
        if (w->way == AS_WEIGHTS)
            w->initializers[n++] = w->inputs[i];
    }
    size_t at = 0;
    if (w->way == AS_PARTS && !join_inputs(g, input, w))
        return false;
    if (w->way == AS_PARTS) {
        w->initializers[n++] = w->b.graph.initializer[1];
        w->nodes[at++] = w->b.graph.node[2];
    }
    if (w->way == AS_SCORES) {
        if (g->n_node != 1 || !strstr(g->node[0]->op_type, "Softmax") || w->sums != w->features || want->n_dims != 2)
            return false;
        w->nodes[at++] = flatten;
        w->nodes[at++] = gemm;
        g->node[0]->input[0] = gemm->output[0];
    }
    memcpy(w->nodes + at, g->node, g->n_node * sizeof *w->nodes);
    at += g->n_node;
    if (w->way != AS_SCORES) {
        w->nodes[at++] = flatten;
        w->nodes[at++] = gemm;
        g->output[0]->name = gemm->output[0];
    }
    if (w->way == AS_PARTS) {
        g->input = w->b.graph.input;
        g->n_input = 1;
    }
    /* On loan to the model until unwrap. */
    g->node = w->nodes;
    g->n_node = at;
    g->initializer = w->initializers;
    g->n_initializer = n;
    return true;
}

/* (n, c, h, w), (n, h, w, c), (n, c, w) or (n, c h w) as the node's (n, h, w, c), with the file's own affine. */
static double *make_image(const lb_imported *in, const Lb__Onnx__TensorProto *t) {
    const lb_shape *s = &in->net->nodes[0].dst;
    const size_t c = (size_t)s->c, area = (size_t)s->h * (size_t)s->w, count = count_of(t);
    const bool last = t->n_dims == 4 && !(t->dims[1] == s->c && t->dims[2] == s->h && t->dims[3] == s->w);
    double *image = calloc(count, sizeof *image);
    for (size_t i = 0; i < count; i++) {
        const size_t n = i / (c * area), k = i % (c * area), ch = last ? k % c : k / area, p = last ? k / c : k % area;
        const double value = (double)float_at(t, i);
        image[(n * area + p) * c + ch] = ch < 4 ? value * (double)in->scale[ch] + (double)in->offset[ch] : value;
    }
    return image;
}

static void take_softmax(double *v, size_t count, bool logarithm) {
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, v[i]);
    for (size_t i = 0; i < count; i++)
        sum += exp(v[i] - most);
    for (size_t i = 0; i < count; i++)
        v[i] = logarithm ? v[i] - most - log(sum) : exp(v[i] - most) / sum;
}

/* Largest difference in relation to what was added up. */
static double compare(const lb_imported *in, const Lb__Onnx__TensorProto *input, const Lb__Onnx__TensorProto *want,
                      const wrapped *w) {
    static const float zeros[4], ones[4] = {1, 1, 1, 1};
    const size_t batch = (size_t)want->dims[0];
    double *image = make_image(in, input), worst = 0;
    netref r;
    netref_create(&r, in->net, zeros, ones, (int)batch, 1);
    r.image = image;
    netref_run(&r, NULL);
    double *got = r.values[in->net->nnodes - 1];
    for (size_t n = 0; w->way == AS_SCORES && n < batch; n++)
        take_softmax(got + n * w->sums, w->sums, !strcmp(w->nodes[2]->op_type, "LogSoftmax"));
    for (size_t n = 0; n < batch; n++)
        for (size_t s = 0; s < w->sums; s++) {
            double sum = 0, size = 0;
            for (size_t k = 0; k < w->features; k++) {
                const double term = (double)w->matrix[s * w->features + k] * (double)float_at(want, n * w->features + k);
                sum += term;
                size += fabs(term);
            }
            worst = fmax(worst, fabs(sum - got[n * w->sums + s]) / fmax(size, 1e-2));
        }
    netref_destroy(&r);
    free(image);
    return worst;
}

static bool is_known(const char *message) {
    for (size_t i = 0; i < LB_COUNT(reasons); i++)
        if (strstr(message, reasons[i]))
            return true;
    return false;
}

static bool is_listed(const Lb__Onnx__GraphProto *g) {
    for (size_t i = 0; i < g->n_node; i++) {
        size_t k = 0;
        while (k < LB_COUNT(operators) && strcmp(operators[k], g->node[i]->op_type))
            k++;
        if (k == LB_COUNT(operators))
            return false;
    }
    return true;
}

typedef struct tally {
    int listed, passed;
} tally;

/* One case in one way. Leaves import's reason in `why`, "" if it passed; false: it cannot be tried so. */
static bool try_case(lb_ctx *ctx, const char *dir, way how, const Lb__Onnx__TensorProto *want, Lb__Onnx__TensorProto *input,
                     char *why, size_t size) {
    char path[700];
    Lb__Onnx__ModelProto *model;
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    assert_ok(ctx, lb_onnx_load(ctx, path, &model));
    Lb__Onnx__GraphProto *g = model->graph, whole = *g;
    char *const output = g->output[0]->name, *const first = g->node[0]->n_input ? g->node[0]->input[0] : NULL;
    wrapped w = {.way = how};
    lb_imported in;
    const bool tried = wrap(ctx, dir, model, input, want, &w);
    const lb_status status = tried ? lb_net_import(ctx, model, dir, NULL, &in) : LB_ERR_UNSUPPORTED;
    if (status == LB_OK) {
        const double off = compare(&in, how == AS_PARTS ? &w.joined : input, want, &w);
        if (!(off < 1e-4))
            fail_msg("%s: off by %g", dir, off);
        lb_net_destroy(in.net);
        *why = 0;
    } else if (tried && how == AS_WEIGHTS) {
        snprintf(why, size, "%s", lb_error(ctx));
    }
    *g = whole;
    g->output[0]->name = output;
    if (first)
        g->node[0]->input[0] = first;
    ProtobufCAllocator allocator = lb_onnx_allocator(ctx);
    for (size_t i = 0; i < LB_COUNT(w.inputs); i++)
        if (w.inputs[i])
            lb__onnx__tensor_proto__free_unpacked(w.inputs[i], &allocator);
    free(w.nodes), free(w.initializers), free(w.matrix), free(w.joined.float_data);
    lb_onnx_build_free(&w.b);
    lb_onnx_free(ctx, model);
    return status == LB_OK;
}

static void run_case(lb_ctx *ctx, const char *dir, tally *count) {
    char path[700];
    Lb__Onnx__ModelProto *model;
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    if (!lb_exists(path) || lb_onnx_load(ctx, path, &model) != LB_OK)
        return;
    const bool listed = is_listed(model->graph);
    lb_onnx_free(ctx, model);
    if (!listed)
        return;
    Lb__Onnx__TensorProto *input = load_tensor(ctx, dir, "input"), *want = load_tensor(ctx, dir, "output");
    char why[1100] = "there is nothing to compare: no input or output, or none of floats";
    const bool training = (strstr(dir, "training_dropout") && !strstr(dir, "zero_ratio")) || strstr(dir, "training_mode");
    bool passed = false;
    count->listed++;
    if (training)
        strcpy(why, "its output is that of training");
    else if (input && want && input->data_type == FLOAT_TYPE && want->data_type == FLOAT_TYPE && want->n_dims && count_of(want))
        for (way how = AS_WEIGHTS; how < WAYS && !passed; how++)
            passed = try_case(ctx, dir, how, want, input, why, sizeof why);
    count->passed += passed;
    if (!passed && !strncmp(why, DATA, strlen(DATA))) /* import's reasons begin with the case */
        printf("left out: %s\n", why);
    else if (!passed)
        printf("left out: %s: %s\n", dir, why);
    if (!passed && !is_known(why))
        fail_msg("%s: left out for an unknown reason: %s", dir, why);
    ProtobufCAllocator allocator = lb_onnx_allocator(ctx);
    if (input)
        lb__onnx__tensor_proto__free_unpacked(input, &allocator);
    if (want)
        lb__onnx__tensor_proto__free_unpacked(want, &allocator);
}

static void every_case(void **state) {
    static const struct {
        const char *folder;
        int passed; /* of libonnx-testdata 1.12 */
    } folders[] = {{"node", 116}, {"pytorch-operator", 12}, {"pytorch-converted", 51}};
    (void)state;
    if (!lb_is_dir(DATA "node")) {
        printf("SKIPPED: no libonnx-testdata\n");
        skip();
    }
    lb_ctx *ctx = test_ctx();
    for (size_t f = 0; f < LB_COUNT(folders); f++) {
        char base[300], dir[600];
        tally count = {0};
        snprintf(base, sizeof base, "%s%s", DATA, folders[f].folder);
        DIR *entries = opendir(base);
        assert_non_null(entries);
        for (struct dirent *entry; (entry = readdir(entries));)
            if (entry->d_name[0] != '.') {
                snprintf(dir, sizeof dir, "%s/%s", base, entry->d_name);
                run_case(ctx, dir, &count);
            }
        closedir(entries);
        printf("%s: %d cases of the operators, %d pass\n", folders[f].folder, count.listed, count.passed);
        assert_true(count.passed >= folders[f].passed);
    }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

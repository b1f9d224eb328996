/* Every family of the zoo x methods x edges x formats, written as ONNX, read back and run by the plain loops of onnxref.h:
 * the scores of real arithmetic on the net (netref.h), which shares nothing with export. Then what the files say about
 * types, names and limits. */
#include <unistd.h>

#include "deploy/export.h"
#include "families.h"
#include "onnxref.h"
#include "paths.h"

static const float mean[4] = {0.49f, 0.48f, 0.45f, 0}, std_[4] = {0.25f, 0.24f, 0.26f, 1};

static const lb_export_options variants[] = {
    {.format = LB_ONNX_QDQ, .opset = 25},
    {.format = LB_ONNX_QDQ, .opset = 21},
    {.format = LB_ONNX_QDQ, .opset = 13},
    {.format = LB_ONNX_QCDQ},
    {.format = LB_ONNX_QONNX},
    {.format = LB_ONNX_FLOAT},
};

static const lb_export_options exact[] = {{.format = LB_ONNX_QDQ, .exact = true}, {.format = LB_ONNX_FLOAT, .exact = true}};

/* Through a file. */
static Lb__Onnx__ModelProto *exported(lb_ctx *ctx, const lb_net *net, const lb_export_options *options) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/lowbit-export-%ld.onnx", (long)getpid());
    lb_export_options resolved;
    lb_onnx_build b;
    Lb__Onnx__ModelProto *model;
    assert_ok(ctx, lb_export_resolve(ctx, options, &resolved));
    lb_onnx_build_init(&b, ctx, net->name);
    assert_ok(ctx, lb_export_net(ctx, net, mean, std_, &resolved, &b));
    assert_ok(ctx, lb_onnx_save(ctx, path, &b.model));
    lb_onnx_build_free(&b);
    assert_ok(ctx, lb_onnx_load(ctx, path, &model));
    remove(path);
    return model;
}

/* Mean difference as a part of the scores' spread. */
static double distance(const double *want, const double *got) {
    double sum = 0, spread = 0;
    for (int i = 0; i < MB * CLASSES; i++) {
        sum += fabs(got[i] - want[i]);
        spread += fabs(want[i] - want[i / CLASSES * CLASSES]);
    }
    return sum / (spread + 1e-9 * MB * CLASSES);
}

/* All in whole numbers from the pixels on: no sum depends on its order. */
static bool is_integer(lb_ctx *ctx, const lb_net *net) {
    lb_numerics *n;
    bool integer = true;
    assert_ok(ctx, lb_numerics_create(ctx, net, mean, std_, &n));
    for (int i = 1; i < net->nnodes; i++)
        integer = integer && (!n->nodes[i].live || n->nodes[i].kind != LB_NUM_F32);
    lb_numerics_destroy(n);
    return integer;
}

/* Exact exports give the evaluator's scores, bit for bit where nothing is float. */
static bool check_exact(lb_ctx *ctx, const family *f, const scheme *s, const lb_net *net, const uint8_t *pixels,
                        const lb_export_options *options) {
    int32_t want[MB * CLASSES];
    run_evaluator(ctx, net, mean, std_, pixels, MB, false, want);
    const bool integer = is_integer(ctx, net);
    Lb__Onnx__ModelProto *model = exported(ctx, net, options);
    onnxref *run = malloc(sizeof *run);
    const double *got = onnxref_run(run, model, pixels, MB);
    for (int i = 0; i < MB * CLASSES && integer; i++)
        if (got[i] != (double)((float)want[i] * 0x1p-16f))
            fail_msg("%s %s, exact: score %d is %.9g instead of %.9g", f->name, s->name, i, got[i], (double)want[i] * 0x1p-16);
    double scores[MB * CLASSES];
    for (int i = 0; i < MB * CLASSES; i++)
        scores[i] = (double)want[i] * 0x1p-16;
    if (!(distance(scores, got) < 0.02))
        fail_msg("%s %s, exact: scores are %.4f of their spread away", f->name, s->name, distance(scores, got));
    onnxref_free(run);
    free(run);
    lb_onnx_free(ctx, model);
    return integer;
}

/* Every other variant, from `first` on: all meet every family. Destroys the net. */
static bool check(lb_ctx *ctx, const family *f, const scheme *s, lb_net *net, int edge, size_t first, uint32_t seed) {
    netref_fill(net, seed);
    uint8_t *pixels = make_pixels(net, &seed);
    netref r;
    netref_calibrated(&r, net, mean, std_, MB, seed, pixels);
    const double *want = r.values[net->nnodes - 1];
    for (size_t v = first; v < LB_COUNT(variants); v += 2) {
        Lb__Onnx__ModelProto *model = exported(ctx, net, &variants[v]);
        onnxref *run = malloc(sizeof *run);
        const double off = distance(want, onnxref_run(run, model, pixels, MB));
        if (getenv("LB_TEST_VERBOSE"))
            printf("%s %s, edges %d, %s %d: %.6f\n", f->name, s->name, edge, lb_onnx_format_name((int)variants[v].format),
                   variants[v].opset, off);
        if (!(off < 0.02))
            fail_msg("%s %s, edges %d, %s opset %d: scores are %.4f of their spread away from real arithmetic", f->name, s->name,
                     edge, lb_onnx_format_name((int)variants[v].format), variants[v].opset, off);
        onnxref_free(run);
        free(run);
        lb_onnx_free(ctx, model);
    }
    const bool integer = check_exact(ctx, f, s, net, pixels, &exact[first]);
    netref_destroy(&r);
    free(pixels);
    lb_net_destroy(net);
    return integer;
}

static void every_network(void **state) {
    const family *f = *state;
    lb_ctx *ctx = test_ctx();
    uint32_t seed = 4711;
    int nintegers = 0;
    for (size_t s = 0; s < LB_COUNT(schemes); s++) {
        const int edge = edges[(s + (size_t)(f - families)) % LB_COUNT(edges)];
        nintegers += check(ctx, f, &schemes[s], make_net(ctx, f, &schemes[s], edge), edge, s % 2, netref_bits(&seed));
    }
    assert_true(nintegers >= 5); /* or nothing was compared bit for bit */
    lb_ctx_destroy(ctx);
}

/* ---- What the zoo has not: averages, functions and products in fixed point ---------------------------------------------- */

static int average(lb_net *net, int x, lb_pooling p) {
    return lb_net_append(net, &(lb_node){.op = LB_OP_AVGPOOL, .nsrc = 1, .src = {x}, .u.pool = p});
}

static int function(lb_net *net, int x, lb_func_kind kind, bool slopes) {
    lb_node node = {.op = LB_OP_FUNC, .nsrc = 1, .src = {x}, .u.func = {.kind = kind, .slopes = slopes}};
    node.u.func.alpha = 0.25f, node.u.func.beta = 0.5f;
    return lb_net_append(net, &node);
}

/* sigmoid: a gate of it, which has no exact form, in place of a hard one. */
static lb_net *make_fixed(lb_ctx *ctx, bool sigmoid) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "fixed", 11, 9, 3, &net));
    int x = function(net, mixed_conv(net, lb_net_input(net), 6, 3), LB_FUNC_HARDSWISH, false);
    const int a =
        average(net, mixed_conv(net, x, 6, 1), (lb_pooling){.kh = 2, .kw = 3, .sh = 2, .sw = 1, .pl = 1, .pr = 1, .pb = 1});
    const int b = average(net, function(net, mixed_conv(net, x, 5, 3), LB_FUNC_LEAKY, false),
                          (lb_pooling){.kh = 3, .kw = 3, .sh = 2, .sw = 1, .pt = 1, .pl = 1, .pb = 1, .pr = 1, .inside = true});
    x = lb_net_append(net, &(lb_node){.op = LB_OP_CONCAT, .nsrc = 2, .src = {a, b}});
    x = function(net, mixed_conv(net, lb_net_relu(net, x, NULL), 8, 3), LB_FUNC_LEAKY, true);
    x = average(net, x, (lb_pooling){.kh = 6, .kw = 2, .sh = 1, .sw = 2});
    const lb_func_kind kind = sigmoid ? LB_FUNC_SIGMOID : LB_FUNC_HARDSIGMOID;
    const int gate = function(net, mixed_conv(net, lb_net_globalpool(net, x, NULL), 8, 1), kind, false);
    x = lb_net_append(net, &(lb_node){.op = LB_OP_MUL, .nsrc = 2, .src = {x, gate}});
    lb_net_linear(net, lb_net_globalpool(net, lb_net_relu(net, x, NULL), NULL), NULL, CLASSES, true);
    assert_ok(ctx, lb_net_finish(net));
    return net;
}

static void fixed_point(void **state) {
    (void)state;
    static const family fixed = {"fixed point", "plain", LB_SHORTCUT_CONV, 1, 11, 9, 3};
    lb_ctx *ctx = test_ctx();
    uint32_t seed = 99;
    for (size_t s = 0; s < LB_COUNT(schemes); s++) {
        if (schemes[s].weight_bits == 32 || schemes[s].activation_bits == 32)
            continue;
        lb_net *net = make_fixed(ctx, false);
        const lb_config config = scheme_config("lenet5", &schemes[s], LB_EDGE_SAME);
        assert_ok(ctx, lb_net_quantize(net, &config));
        netref_fill(net, netref_bits(&seed));
        uint8_t *pixels = make_pixels(net, &seed);
        netref r;
        netref_calibrated(&r, net, mean, std_, MB, seed, pixels);
        assert_true(check_exact(ctx, &fixed, &schemes[s], net, pixels, &exact[s % 2]));
        netref_destroy(&r);
        free(pixels);
        lb_net_destroy(net);
    }
    lb_net *net = make_fixed(ctx, true);
    lb_onnx_build b;
    lb_onnx_build_init(&b, ctx, "fixed");
    assert_int_equal(lb_export_net(ctx, net, mean, std_, &(lb_export_options){.opset = 21, .exact = true}, &b), LB_ERR_UNSUPPORTED);
    assert_non_null(strstr(lb_error(ctx), "60 bits"));
    lb_onnx_build_free(&b);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* ---- Names ------------------------------------------------------------------------------------------------------------- */

static const Lb__Onnx__TensorProto *initializer(const Lb__Onnx__ModelProto *model, const char *suffix) {
    for (size_t i = 0; i < model->graph->n_initializer; i++) {
        const char *name = model->graph->initializer[i]->name;
        if (strlen(name) >= strlen(suffix) && !strcmp(name + strlen(name) - strlen(suffix), suffix))
            return model->graph->initializer[i];
    }
    return NULL;
}

/* onnxref.h refuses files in which two tensors have one name. */
static void names(void **state) {
    (void)state;
    static const family named = {"named", "plain", LB_SHORTCUT_CONV, 1, 9, 7, 3};
    lb_ctx *ctx = test_ctx();
    for (size_t s = 0; s < LB_COUNT(schemes); s++)
        for (size_t first = 0; first < 2; first++) {
            lb_net *net = make_named(ctx);
            const lb_config config = scheme_config("lenet5", &schemes[s], LB_EDGE_SAME);
            assert_ok(ctx, lb_net_quantize(net, &config));
            check(ctx, &named, &schemes[s], net, LB_EDGE_SAME, first, 5);
        }
    lb_net *net = make_named(ctx);
    netref_fill(net, 1);
    Lb__Onnx__ModelProto *model = exported(ctx, net, &(lb_export_options){.format = LB_ONNX_FLOAT});
    assert_string_equal(model->graph->input[0]->name, "image");
    assert_string_equal(model->graph->output[0]->name, "logits");
    assert_non_null(initializer(model, "a/bias"));
    assert_non_null(initializer(model, "fc/weight"));
    assert_non_null(initializer(model, "image_4/weight")); /* image_2 and image_3 begin other names */
    lb_onnx_free(ctx, model);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* ---- What the file says ---------------------------------------------------------------------------------------------- */

static int count_nodes(const Lb__Onnx__ModelProto *model, const char *op) {
    int n = 0;
    for (size_t i = 0; i < model->graph->n_node; i++)
        n += !strcmp(model->graph->node[i]->op_type, op);
    return n;
}

/* A small network that a scheme of the table quantizes everywhere. */
static lb_net *small_net(lb_ctx *ctx, const char *name) {
    for (size_t s = 0; s < LB_COUNT(schemes); s++)
        if (!strcmp(schemes[s].name, name)) {
            lb_net *net = make_net(ctx, &families[0], &schemes[s], LB_EDGE_SAME);
            netref_fill(net, 1);
            return net;
        }
    fail_msg("no scheme %s", name);
    return NULL;
}

/* Element type of the weights, by method and opset. */
static void weight_types(void **state) {
    (void)state;
    enum { INT8 = LB__ONNX__TENSOR_PROTO__DATA_TYPE__INT8 };
    static const struct {
        const char *scheme;
        int at25, at21;
    } rows[] = {
        {"sign 1/1", LB_ONNX_INT2, LB_ONNX_INT4},
        {"twn 2/2", LB_ONNX_INT2, LB_ONNX_INT4},
        {"lsq 1/1", LB_ONNX_INT2, LB_ONNX_INT4},
        {"dorefa 2/2", LB_ONNX_INT4, LB_ONNX_INT4},
        {"lsq 3/3", LB_ONNX_INT4, LB_ONNX_INT4},
        {"uniform 5/6", INT8, INT8},
        {"dorefa 8/8", INT8, INT8},
    };
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_net *net = small_net(ctx, rows[i].scheme);
        const int opsets[] = {25, 21, 20}, want[] = {rows[i].at25, rows[i].at21, INT8};
        for (int k = 0; k < 3; k++) {
            Lb__Onnx__ModelProto *model = exported(ctx, net, &(lb_export_options){.format = LB_ONNX_QDQ, .opset = opsets[k]});
            const Lb__Onnx__TensorProto *codes = initializer(model, "/weight_codes");
            const size_t bits = want[k] == LB_ONNX_INT2 ? 2 : want[k] == LB_ONNX_INT4 ? 4 : 8;
            size_t count = 1;
            for (size_t d = 0; d < codes->n_dims; d++)
                count *= (size_t)codes->dims[d];
            assert_int_equal(codes->data_type, want[k]);
            assert_int_equal(codes->raw_data.len, (count * bits + 7) / 8);
            assert_int_equal(model->opset_import[0]->version, opsets[k]);
            lb_onnx_free(ctx, model);
        }
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

static void node_kinds(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net = small_net(ctx, "sign 1/1");
    Lb__Onnx__ModelProto *model = exported(ctx, net, &(lb_export_options){.format = LB_ONNX_QONNX});
    assert_true(count_nodes(model, "BipolarQuant") > 0);
    assert_int_equal(model->n_opset_import, 2);
    assert_string_equal(model->opset_import[1]->domain, "qonnx.custom_op.general");
    lb_onnx_free(ctx, model);
    lb_net_destroy(net);
    net = small_net(ctx, "twn 2/2");
    model = exported(ctx, net, &(lb_export_options){.format = LB_ONNX_QONNX});
    for (size_t i = 0; i < model->graph->n_node; i++) {
        const Lb__Onnx__NodeProto *n = model->graph->node[i];
        if (!strcmp(n->op_type, "Quant") && strstr(n->output[0], "weight"))
            assert_true(onnxref_int(n, "signed", 0) == 1 && onnxref_int(n, "narrow", 0) == 1);
    }
    lb_onnx_free(ctx, model);
    model = exported(ctx, net, &(lb_export_options){.format = LB_ONNX_QCDQ});
    assert_true(count_nodes(model, "Clip") >= count_nodes(model, "QuantizeLinear"));
    assert_null(initializer(model, "/nothing"));
    lb_onnx_free(ctx, model);
    model = exported(ctx, net, &(lb_export_options){.format = LB_ONNX_FLOAT});
    assert_int_equal(count_nodes(model, "QuantizeLinear") + count_nodes(model, "DequantizeLinear"), 0);
    assert_int_equal(model->graph->n_input, 1);
    assert_string_equal(model->graph->input[0]->name, "image");
    assert_string_equal(model->graph->output[0]->name, "logits");
    lb_onnx_free(ctx, model);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static void wrong_options(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_export_options out;
    const int wrong[] = {12, 26, -1, 1000};
    for (size_t i = 0; i < LB_COUNT(wrong); i++)
        assert_int_equal(lb_export_resolve(ctx, &(lb_export_options){.format = LB_ONNX_QDQ, .opset = wrong[i]}, &out),
                         LB_ERR_ARGUMENT);
    assert_int_equal(lb_export_resolve(ctx, &(lb_export_options){.format = LB_ONNX_FORMATS}, &out), LB_ERR_ARGUMENT);
    assert_int_equal(lb_export_resolve(ctx, &(lb_export_options){.format = LB_ONNX_QONNX, .exact = true}, &out), LB_ERR_ARGUMENT);
    assert_ok(ctx, lb_export_resolve(ctx, NULL, &out));
    assert_true(out.format == LB_ONNX_QDQ && out.opset == 21);
    lb_ctx_destroy(ctx);
}

/* Every allocation of an export fails once. */
static void out_of_memory(void **state) {
    (void)state;
    test_allocator a = {.left = 1L << 40};
    lb_ctx *ctx = test_ctx_with(&a);
    lb_net *net = small_net(ctx, "twn 2/2");
    const long alive = a.alive;
    const lb_export_options options = {.format = LB_ONNX_QCDQ, .opset = 13};
    lb_status status = LB_ERR_MEMORY;
    for (long left = 0; status != LB_OK; left++) {
        lb_onnx_build b;
        a.left = left;
        lb_onnx_build_init(&b, ctx, "small");
        status = lb_export_net(ctx, net, mean, std_, &options, &b);
        assert_true(status == LB_OK || status == LB_ERR_MEMORY);
        lb_onnx_build_free(&b);
        assert_int_equal(a.alive, alive);
    }
    a.left = 1L << 40;
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest files[] = {
        cmocka_unit_test(fixed_point),
        cmocka_unit_test(names),
        cmocka_unit_test(weight_types),
        cmocka_unit_test(node_kinds),
        cmocka_unit_test(wrong_options),
        cmocka_unit_test(out_of_memory),
    };
    struct CMUnitTest tests[LB_COUNT(families)];
    char labels[LB_COUNT(families)][64];
    for (size_t i = 0; i < LB_COUNT(families); i++) {
        family_name(&families[i], labels[i]);
        union {
            const family *from;
            void *to;
        } f = {&families[i]};
        tests[i] = (struct CMUnitTest){.name = labels[i], .test_func = every_network, .initial_state = f.to};
    }
    return cmocka_run_group_tests(files, NULL, NULL) + _cmocka_run_group_tests("export", tests, LB_COUNT(tests), NULL, NULL);
}

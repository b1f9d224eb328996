/* lb_net_quantize: which tensors get which quantizer, on every network of the zoo; rules, edges, stages, errors. */
#include <limits.h>
#include <math.h>

#include "net/config.h"

/* ---- Helpers --------------------------------------------------------------------------------------------------- */

static lb_config quant_config(const char *model, const char *weights, int wbits, const char *acts, int abits, int first, int last,
                              int shortcut) {
    lb_config config = test_config(model);
    config.quant.weights = test_tensor(weights, wbits);
    config.quant.activations = test_tensor(acts, abits);
    config.quant.edge_first = first;
    config.quant.edge_last = last;
    config.quant.edge_shortcut = shortcut;
    return config;
}

static const lb_node *node_of(const lb_net *net, const char *name) {
    int i = lb_net_find(net, name);
    if (i < 0)
        fail_msg("there is no %s", name);
    return &net->nodes[i];
}

/* "lsq 4" of the weights or act node of that name, "float" if it has none. */
static void assert_quant(const lb_net *net, const char *name, const char *wanted) {
    const lb_quant *quant = node_of(net, name)->quant;
    char text[64] = "float";
    if (quant)
        snprintf(text, sizeof text, "%s %d", quant->spec.quantizer->name, quant->spec.bits);
    if (strcmp(text, wanted))
        fail_msg("%s is %s, not %s", name, text, wanted);
}

/* The same for what arrives at a layer. */
static void assert_input(const lb_net *net, const char *name, const char *wanted) {
    int act = lb_net_source_act(net, lb_net_find(net, name));
    if (act < 0)
        assert_string_equal(wanted, "float");
    else
        assert_quant(net, net->nodes[act].name, wanted);
}


/* A small input that every network of the zoo accepts. */
static lb_net *small(lb_ctx *ctx, const lb_config *config) { return test_net(ctx, config, 32, 32, 3, 10); }

/* ---- All networks, all edges ----------------------------------------------------------------------------------- */

static const int edge_values[] = {0, LB_EDGE_SAME, 8, 1};

static lb_edge_role role_by_name(const lb_net *net, int i) {
    const lb_node *node = &net->nodes[i];
    if (!lb_is_layer(node))
        return LB_EDGE_ROLE_NONE;
    if (!strcmp(node->name, "conv1") || !strcmp(node->name, "stem.conv"))
        return LB_EDGE_ROLE_FIRST;
    if (!strcmp(node->name, "fc"))
        return LB_EDGE_ROLE_LAST;
    return strstr(node->name, "shortcut") ? LB_EDGE_ROLE_SHORTCUT : LB_EDGE_ROLE_INNER;
}

static void check_network(lb_ctx *ctx, lb_net *net, const lb_net *plain, const lb_config *config) {
    test_consistent(net);
    lb_edge_role *roles = calloc((size_t)net->nnodes, sizeof *roles);
    bool *wanted = calloc((size_t)net->nnodes, sizeof *wanted);
    assert_ok(ctx, lb_net_edge_roles(net, roles));
    bool weights = strcmp(config->quant.weights.method, "none"), acts = strcmp(config->quant.activations.method, "none");
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        assert_int_equal(roles[i], role_by_name(net, i));
        if (!lb_is_layer(node))
            continue;
        int edge = roles[i] == LB_EDGE_ROLE_FIRST      ? config->quant.edge_first
                   : roles[i] == LB_EDGE_ROLE_LAST     ? config->quant.edge_last
                   : roles[i] == LB_EDGE_ROLE_SHORTCUT ? config->quant.edge_shortcut
                                                       : LB_EDGE_SAME;
        assert_int_equal(node->quant != NULL, weights && edge != 0);
        if (node->quant) {
            assert_int_equal(node->quant->spec.bits, edge > 0 ? edge : config->quant.weights.bits);
            assert_int_equal(node->quant->grid.bits, node->quant->spec.bits);
            assert_true(node->quant->spec.quantizer->weights);
            assert_int_equal(node->quant->param >= 0, lb_quant_nparams(&node->quant->spec) > 0);
        }
        /* Every quantized layer reads codes; a float first layer reads the image as it is. */
        int source = lb_net_source_act(net, i);
        if (acts && edge != 0) {
            if (source < 0)
                fail_msg("%s %s reads no codes", net->name, node->name);
            wanted[source] = true;
        }
        if (acts && edge == 0 && roles[i] == LB_EDGE_ROLE_FIRST)
            assert_int_equal(source, -1);
        if (acts && edge > 0 && roles[i] == LB_EDGE_ROLE_FIRST) {
            assert_string_equal(net->nodes[source].name, "input.quant");
            assert_string_equal(net->nodes[source].quant->spec.quantizer->name, "uniform");
            assert_int_equal(net->nodes[source].quant->spec.bits, edge);
            assert_true(net->nodes[source].quant->grid.lo < 0);
        }
    }
    int inserted = 0;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        inserted += node->inserted;
        if (lb_is_layer(node))
            continue;
        assert_int_equal(node->quant != NULL, wanted[i]); /* one where somebody wants it, none elsewhere */
        assert_true(!node->inserted || node->quant);
        if (node->quant) {
            assert_int_equal(node->op, LB_OP_ACT);
            assert_int_equal(node->quant->spec.target, LB_ACTIVATIONS);
            assert_int_equal(node->quant->spec.features, lb_shape_count(&node->dst));
            assert_int_equal(node->quant->spec.is_signed, node->u.act.lo < 0);
            if (node->u.act.kind == LB_ACT_IDENTITY)
                assert_true(node->quant->grid.lo < 0);
        }
    }
    assert_int_equal(net->nnodes, plain->nnodes + inserted);
    /* Two inserted nodes never show the same tensor. */
    for (int i = 0; i < net->nnodes; i++)
        for (int j = 0; j < i; j++)
            assert_true(!net->nodes[i].inserted || !net->nodes[j].inserted || net->nodes[i].src[0] != net->nodes[j].src[0]);
    free(roles);
    free(wanted);
}

static void test_zoo_edges(void **state) {
    (void)state;
    static const struct {
        const char *weights;
        int wbits;
        const char *acts;
        int abits;
    } methods[] = {{"dorefa", 2, "dorefa", 2}, {"lsq", 3, "lsq", 4},  {"bwn", 1, "none", 2},
                   {"none", 2, "pact", 4},     {"twn", 2, "sign", 1}, {"none", 1, "none", 1}};
    lb_ctx *ctx = test_ctx();
    size_t nentries;
    const lb_zoo_entry *entries = lb_zoo_list(&nentries);
    for (size_t e = 0; e < nentries + 1; e++) {
        const char *model = e < nentries ? entries[e].name : "resnet32";
        lb_config config = test_config(model);
        config.model.width = 0.125f;
        if (e == nentries)
            strcpy(config.model.variant, "sq");
        lb_net *plain = small(ctx, &config), *net = small(ctx, &config);
        for (size_t m = 0; m < LB_COUNT(methods); m++)
            for (size_t f = 0; f < LB_COUNT(edge_values); f++)
                for (size_t l = 0; l < LB_COUNT(edge_values); l++) {
                    int shortcut = edge_values[(f + l) % LB_COUNT(edge_values)];
                    lb_config q = quant_config(model, methods[m].weights, methods[m].wbits, methods[m].acts, methods[m].abits,
                                               edge_values[f], edge_values[l], shortcut);
                    assert_ok(ctx, lb_net_quantize(net, &q));
                    check_network(ctx, net, plain, &q);
                }
        /* Back to float: nothing is left. */
        assert_ok(ctx, lb_net_quantize(net, &config));
        assert_int_equal(net->nnodes, plain->nnodes);
        assert_int_equal(net->nparams, plain->nparams);
        assert_int_equal(net->nvalues, plain->nvalues);
        for (int i = 0; i < net->nnodes; i++) {
            assert_string_equal(net->nodes[i].name, plain->nodes[i].name);
            assert_memory_equal(net->nodes[i].src, plain->nodes[i].src, sizeof net->nodes[i].src);
            assert_null(net->nodes[i].quant);
        }
        for (int i = 0; i < net->nparams; i++) {
            assert_string_equal(net->params[i].name, plain->params[i].name);
            assert_int_equal(net->params[i].node, plain->params[i].node);
        }
        lb_net_destroy(plain);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* ---- Particular places ----------------------------------------------------------------------------------------- */

static void test_resnet_places(void **state) {
    (void)state;
    test_log log;
    lb_ctx *ctx = test_ctx_logging(&log);
    lb_config config = quant_config("resnet20", "dorefa", 2, "dorefa", 2, 0, 0, LB_EDGE_SAME);
    lb_net *net = small(ctx, &config);
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_quant(net, "conv1", "float");
    assert_quant(net, "relu", "dorefa 2"); /* the stem's, because layer1.0.conv1 reads it */
    assert_quant(net, "layer1.0.conv1", "dorefa 2");
    assert_quant(net, "layer1.0.relu1", "dorefa 2");
    assert_quant(net, "layer2.0.shortcut.conv", "dorefa 2");
    assert_quant(net, "layer3.2.relu", "float"); /* only the float classifier reads it */
    assert_quant(net, "fc", "float");
    char text[600];
    lb_net_describe_quant(net, text, sizeof text);
    test_contains(
        text,
        "weights: float in 2 layers, dorefa 2 bits in 20 layers; activations: dorefa 2 bits in 18 places; "
        "first layer conv1: float; last layer fc: float; shortcuts like layer2.0.shortcut.conv: dorefa 2 bits on dorefa 2 bits");
    assert_int_equal(log.nwarnings, 0);

    config.quant.edge_last = 8;
    config.quant.edge_first = 8;
    config.quant.edge_shortcut = 0;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_quant(net, "conv1", "uniform 8");
    assert_input(net, "conv1", "uniform 8");
    assert_quant(net, "fc", "uniform 8");
    assert_input(net, "fc", "dorefa 8");
    assert_quant(net, "layer2.0.shortcut.conv", "float");
    assert_input(net, "layer2.0.shortcut.conv", "dorefa 2");
    assert_int_equal(log.nwarnings, 0); /* a shortcut that reads what the others read is nothing to warn of */
    lb_net_destroy(net);

    /* The sq variant has no activation behind an addition: one identity there, shared by block and shortcut. */
    strcpy(config.model.variant, "sq");
    config.quant.edge_shortcut = LB_EDGE_SAME;
    net = small(ctx, &config);
    memset(&log, 0, sizeof log);
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_input(net, "layer2.0.conv1", "lsq 2"); /* dorefa has no negative codes */
    test_contains(
        log.notes,
        "dorefa has no negative codes: layer1.0.add.quant and other layer inputs without an activation use lsq at the same bits");
    int shared = lb_net_find(net, "layer1.2.add.quant");
    assert_int_equal(node_of(net, "layer2.0.conv1")->src[0], shared);
    assert_int_equal(node_of(net, "layer2.0.shortcut.conv")->src[0], shared);
    assert_int_equal(node_of(net, "layer1.1.add")->src[1], lb_net_find(net, "layer1.0.add"));
    assert_string_equal(net->params[net->nodes[shared].quant->param].name, "layer1.2.add.quant.act_step");
    assert_input(net, "fc", "lsq 8");
    assert_string_equal(net->nodes[node_of(net, "fc")->src[0]].name, "avgpool.quant"); /* right before the layer */
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Edges whose bits the method cannot do take `uniform`, weights per filter; pooling, dropout and flatten are looked through. */
static void test_fallback(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = quant_config("vgg9", "twn", 2, "sign", 1, 8, 8, LB_EDGE_SAME);
    lb_net *net = small(ctx, &config);
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_quant(net, "conv1", "uniform 8");
    assert_int_equal(node_of(net, "conv1")->quant->spec.options.per, LB_PER_FILTER);
    assert_int_equal(node_of(net, "conv2")->quant->spec.options.per, LB_PER_TENSOR);
    assert_quant(net, "conv2", "twn 2");
    assert_input(net, "conv3", "sign 1");
    assert_string_equal(net->nodes[lb_net_source_act(net, lb_net_find(net, "conv3"))].name,
                        "relu2"); /* through dropout and pooling */
    assert_string_equal(net->nodes[lb_net_source_act(net, lb_net_find(net, "fc7"))].name, "relu6"); /* and flatten */
    assert_quant(net, "fc", "uniform 8");
    assert_input(net, "fc", "uniform 8");
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* A network whose first layer is behind a flatten: the image itself is quantized. */
static void test_mlp(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "mlp", 4, 4, 2, &net));
    int x = lb_net_avgpool(net, 0, "pool", 2, 2, 0);
    x = lb_net_flatten(net, x, "flat");
    int a = lb_net_linear(net, x, "a", 8, true), b = lb_net_linear(net, x, "b", 8, true);
    x = lb_net_hardtanh(net, lb_net_add(net, a, b, "sum"), "tanh");
    lb_net_linear(net, x, "out", 3, true);
    assert_ok(ctx, lb_net_finish(net));
    lb_config config = quant_config("", "dorefa", 2, "dorefa", 2, 8, LB_EDGE_SAME, 0);
    assert_ok(ctx, lb_net_quantize(net, &config));
    test_consistent(net);
    assert_int_equal(lb_net_find(net, "input.quant"), 1);
    assert_int_equal(node_of(net, "pool")->src[0], 1);
    assert_input(net, "a", "uniform 8");
    assert_input(net, "b", "uniform 8");
    assert_input(net, "out", "dorefa 2"); /* on a hard tanh: the quantizer replaces it */
    config.quant.activations = test_tensor("lsq", 2);
    config.quant.edge_first = LB_EDGE_SAME;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_input(net, "a", "lsq 2");
    assert_true(node_of(net, "tanh")->quant->grid.lo < 0);
    lb_net_destroy(net);

    /* One layer is the first. */
    assert_ok(ctx, lb_net_create(ctx, "one", 1, 1, 2, &net));
    lb_net_linear(net, 0, "only", 3, false);
    assert_ok(ctx, lb_net_finish(net));
    config.quant.edge_first = 0;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_quant(net, "only", "float");
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* ---- Rules ----------------------------------------------------------------------------------------------------- */

static void add_rule(lb_config *config, const char *match, const char *weights, int wbits, const char *acts, int abits) {
    lb_layer_rule *rule = &config->quant.layers[config->quant.nlayers++];
    snprintf(rule->match, sizeof rule->match, "%s", match);
    rule->weights = test_tensor(weights, wbits);
    rule->activations = test_tensor(acts, abits);
}

static void test_rules(void **state) {
    (void)state;
    test_log log;
    lb_ctx *ctx = test_ctx_logging(&log);
    lb_config config = quant_config("resnet20", "lsq", 2, "lsq", 2, 0, 8, LB_EDGE_SAME);
    add_rule(&config, "layer2.*", "lsq", 4, "lsq", 4);
    add_rule(&config, "layer2.1.conv?", "lsq", 6, "none", 4); /* later rules win */
    add_rule(&config, "conv1", "uniform", 5, "uniform", 6); /* rules win over edges */
    add_rule(&config, "*.2.conv2", "none", 2, "lsq", 2);
    lb_net *net = small(ctx, &config);
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_quant(net, "conv1", "uniform 5");
    assert_input(net, "conv1", "uniform 6");
    assert_quant(net, "layer1.0.conv1", "lsq 2");
    assert_quant(net, "layer2.0.conv1", "lsq 4");
    assert_input(net, "layer2.0.conv1", "lsq 4");
    assert_quant(net, "layer2.0.shortcut.conv", "lsq 4");
    assert_quant(net, "layer2.1.conv1", "lsq 6");
    assert_input(net, "layer2.1.conv1", "float");
    assert_input(net, "layer2.1.conv2", "float");
    assert_input(net, "layer2.2.conv1", "lsq 4");
    assert_quant(net, "layer1.2.conv2", "float");
    assert_input(net, "layer1.2.conv2", "lsq 2");
    assert_quant(net, "fc", "lsq 8");
    assert_int_equal(log.nwarnings, 0);

    /* Conflicting wishes for one act node: the first layer's stands, with a warning. */
    config.quant.nlayers = 0;
    add_rule(&config, "layer2.0.shortcut.conv", "lsq", 2, "lsq", 5);
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_input(net, "layer2.0.shortcut.conv", "lsq 2");
    assert_int_equal(log.nwarnings, 1);
    test_contains(log.warnings,
                  "layer2.0.shortcut.conv: its input layer1.2.relu is quantized by lsq 2 bits for an earlier layer, so it "
                  "cannot be lsq 5 bits");

    config.quant.nlayers = 0;
    add_rule(&config, "layer2.0.cov1", "lsq", 2, "lsq", 2);
    assert_int_equal(lb_net_quantize(net, &config), LB_ERR_RECIPE);
    test_contains(
        lb_error(ctx),
        "quant.layers: 'layer2.0.cov1' matches no convolution or linear layer of resnet20; did you mean 'layer2.0.conv1'?");
    config.quant.nlayers = 0;
    add_rule(&config, "layer2.0.relu1", "lsq", 2, "lsq", 2); /* no layer with weights */
    assert_int_equal(lb_net_quantize(net, &config), LB_ERR_RECIPE);
    config.quant.nlayers = 0;
    assert_ok(ctx, lb_net_quantize(net, &config)); /* and it works again after a failure */
    test_consistent(net);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* ---- Errors ---------------------------------------------------------------------------------------------------- */

static void test_refused(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const struct {
        const char *weights;
        int wbits;
        const char *acts;
        int abits;
        const char *part;
    } rows[] = {
        {"drefa", 2, "none", 2, "quant.weights.method: there is no 'drefa'; did you mean 'dorefa'?"},
        {"lsq", 2, "pakt", 2, "quant.activations.method: there is no 'pakt'; did you mean 'pact'?"},
        {"xyzzy!!", 2, "none", 2, "there is no 'xyzzy!!'; see docs/recipes.md"},
        {"sign", 2, "none", 2, "weights of layer1.0.conv1: sign has 1 bit"},
        {"lsq", 9, "none", 2, "weights of layer1.0.conv1: lsq has 1 to 8 bits"},
        {"lsq", 2, "twn", 2, "twn does not quantize activations"},
        {"lsq", 2, "lsq", 0, "activations of relu: lsq has"},
    };
    lb_config config = test_config("resnet20");
    lb_net *net = small(ctx, &config);
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        config = quant_config("resnet20", rows[i].weights, rows[i].wbits, rows[i].acts, rows[i].abits, 0, 0, LB_EDGE_SAME);
        assert_int_not_equal(lb_net_quantize(net, &config), LB_OK);
        test_contains(lb_error(ctx), rows[i].part);
        test_consistent(net);
    }
    config = quant_config("resnet20", "lsq", 2, "none", 2, 0, 0, LB_EDGE_SAME);
    strcpy(config.quant.weights.mixer, "constnat");
    assert_int_not_equal(lb_net_quantize(net, &config), LB_OK);
    test_contains(lb_error(ctx), "quant.weights.mixer: there is no 'constnat'; did you mean 'constant'?");
    config = quant_config("resnet20", "lsq", 2, "lsq", 2, 0, 0, LB_EDGE_SAME);
    config.quant.activations.options.per = LB_PER_FILTER;
    assert_int_equal(lb_net_quantize(net, &config), LB_ERR_UNSUPPORTED);
    config = quant_config("resnet20", "lsq", 2, "lsq", 2, 0, 0, LB_EDGE_SAME);
    add_rule(&config, "conv1", "lqs", 2, "none", 2);
    assert_int_not_equal(lb_net_quantize(net, &config), LB_OK);
    test_contains(lb_error(ctx), "quant.layers 'conv1' weights.method: there is no 'lqs'; did you mean 'lsq'?");
    lb_net_destroy(net);

    assert_ok(ctx, lb_net_create(ctx, "open", 1, 1, 2, &net));
    assert_int_equal(lb_net_quantize(net, &config), LB_ERR_ARGUMENT);
    test_contains(lb_error(ctx), "open: the network must be finished");
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Every option reaches the spec. */
static void test_options(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = quant_config("lenet5", "uniform", 3, "uniform", 4, 0, 0, LB_EDGE_SAME);
    config.quant.weights.options.per = LB_PER_FILTER;
    config.quant.weights.options.estimator = LB_EST_STE;
    config.quant.weights.options.surrogate = LB_SUR_HARDTANH;
    config.quant.weights.options.scale = LB_SCALE_L2;
    config.quant.weights.options.mix = 0.25f;
    config.quant.activations.options.estimator = LB_EST_NONE;
    config.quant.activations.options.surrogate = LB_SUR_CLIP01;
    lb_net *net = test_net(ctx, &config, 28, 28, 1, 10);
    assert_int_equal(lb_net_quantize(net, &config), LB_ERR_UNSUPPORTED);
    test_contains(lb_error(ctx), "estimator none lets no gradient through");
    config.quant.activations.options.mix = 0.5f;
    assert_ok(ctx, lb_net_quantize(net, &config));
    const lb_quant_spec *w = &node_of(net, "conv2")->quant->spec, *a = &node_of(net, "relu1")->quant->spec;
    assert_true(w->options.per == LB_PER_FILTER && w->options.estimator == LB_EST_STE && w->options.surrogate == LB_SUR_HARDTANH &&
                w->options.scale == LB_SCALE_L2);
    assert_true(w->options.mix == 0.25f && w->mixer == &lb_mixer_constant && w->bits == 3);
    assert_true(a->options.estimator == LB_EST_NONE && a->options.surrogate == LB_SUR_CLIP01 && a->bits == 4 &&
                a->options.mix == 0.5f && !a->is_signed);

    static const struct {
        const char *mixer;
        float start, end, from, ratio;
        lb_mix_schedule schedule;
        bool refused;
    } wholes[] = {{"alpha", 0, 0, 0, 0, LB_RATIO_EXP, true},        {"alpha", 0, 1, 0, 0, LB_RATIO_EXP, false},
                  {"stochastic", 0, 0, 0, 0, LB_RATIO_EXP, true},   {"stochastic", 0, 1, 1, 0, LB_RATIO_EXP, true},
                  {"stochastic", 0, 1, 0, 0, LB_RATIO_EXP, false},  {"roulette", 0, 0, 0, 0, LB_RATIO_TUNE, true},
                  {"roulette", 0, 0, 0, 1, LB_RATIO_CONSTANT, true}, {"roulette", 0, 0, 0, 0.5f, LB_RATIO_CONSTANT, false},
                  {"roulette", 0, 0, 0, 0, LB_RATIO_EXP, false}};
    for (size_t i = 0; i < LB_COUNT(wholes); i++) { /* from the first step on */
        config = quant_config("lenet5", "bwn", 1, "none", 2, 0, 0, LB_EDGE_SAME);
        lb_quant_options *o = &config.quant.weights.options;
        strcpy(config.quant.weights.mixer, wholes[i].mixer);
        o->estimator = LB_EST_NONE;
        o->mix_start = wholes[i].start;
        o->mix_end = wholes[i].end;
        o->mix_from = wholes[i].from;
        o->mix_ratio = wholes[i].ratio;
        o->mix_schedule = wholes[i].schedule;
        assert_int_equal(lb_net_quantize(net, &config), wholes[i].refused ? LB_ERR_UNSUPPORTED : LB_OK);
    }

    /* The estimator that was asked for, or else the default, where edges take another quantizer. */
    static const struct {
        lb_estimator asked, first, inner;
    } asked[] = {{LB_EST_DEFAULT, LB_EST_NONE, LB_EST_NONE},
                 {LB_EST_STE, LB_EST_STE, LB_EST_STE},
                 {LB_EST_CLIPPED, LB_EST_CLIPPED, LB_EST_CLIPPED},
                 {LB_EST_OWN, LB_EST_CLIPPED, LB_EST_OWN}};
    for (size_t i = 0; i < LB_COUNT(asked); i++) {
        config = quant_config("lenet5", "xnor", 1, "none", 2, 8, 8, LB_EDGE_SAME);
        strcpy(config.quant.weights.mixer, "mask");
        config.quant.weights.options.estimator = asked[i].asked;
        assert_ok(ctx, lb_net_quantize(net, &config));
        assert_int_equal(node_of(net, "conv1")->quant->spec.options.estimator, asked[i].first);
        assert_int_equal(node_of(net, "conv2")->quant->spec.options.estimator, asked[i].inner);
    }

    config = quant_config("lenet5", "twn", 2, "none", 2, 0, 0, LB_EDGE_SAME);
    config.quant.weights.options.threshold = 0.75f;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_true(node_of(net, "conv2")->quant->spec.options.threshold == 0.75f);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Tensors that a mixer may draw together: a layer with its input, or a residual block. */
static void test_units(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = quant_config("resnet20", "dorefa", 2, "dorefa", 2, 8, 8, LB_EDGE_SAME);
    strcpy(config.quant.weights.mixer, "stochastic");
    strcpy(config.quant.activations.mixer, "stochastic");
    lb_net *net = small(ctx, &config);
    for (int block = 0; block < 2; block++) {
        config.quant.weights.options.mix_scope = block ? LB_SCOPE_BLOCK : LB_SCOPE_LAYER;
        config.quant.activations.options.mix_scope = block ? LB_SCOPE_BLOCK : LB_SCOPE_DEFAULT;
        assert_ok(ctx, lb_net_quantize(net, &config));
        int units[64], n = 0;
        for (int i = 0; i < net->nnodes; i++) {
            if (!lb_is_layer(&net->nodes[i]))
                continue;
            const int unit = net->nodes[i].quant->spec.mix_unit, act = lb_net_source_act(net, i);
            assert_true(net->nodes[i].quant->spec.mixer == &lb_mixer_stochastic && act >= 0);
            if (!strstr(net->nodes[i].name, "shortcut")) /* shares its input with the block's first layer */
                assert_int_equal(net->nodes[act].quant->spec.mix_unit, unit);
            bool known = false;
            for (int k = 0; k < n; k++)
                known |= units[k] == unit;
            if (!known)
                units[n++] = unit;
        }
        assert_int_equal(n, block ? 11 : 22); /* stem, 9 blocks, classifier; or each layer */
        const int first = node_of(net, "layer2.0.conv1")->quant->spec.mix_unit;
        assert_true((node_of(net, "layer2.0.conv2")->quant->spec.mix_unit == first) == block);
        assert_true((node_of(net, "layer2.0.shortcut.conv")->quant->spec.mix_unit == first) == block);
        assert_true(node_of(net, "layer2.1.conv1")->quant->spec.mix_unit != first);
    }
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Layers' turns to freeze: one after the other those that are quantized, each with its input, which is the first reader's. */
static void test_turns(void **state) {
    (void)state;
    static const char *const models[] = {"lenet5", "resnet20"};
    lb_ctx *ctx = test_ctx();
    for (size_t m = 0; m < 2 * LB_COUNT(models); m++) {
        const int edges = m % 2; /* first and last layer are quantized, too */
        lb_config config = quant_config(models[m / 2], "sign", 1, "sign", 1, 8 * edges, 8 * edges, LB_EDGE_SAME);
        strcpy(config.quant.weights.mixer, "mask");
        strcpy(config.quant.activations.mixer, "mask");
        lb_net *net = small(ctx, &config);
        assert_ok(ctx, lb_net_quantize(net, &config));
        int turn_of[256], layers = 0;
        for (int i = 0; i < net->nnodes; i++)
            turn_of[i] = -1;
        for (int i = 0; i < net->nnodes; i++) {
            const lb_quant *q = net->nodes[i].quant;
            if (!lb_is_layer(&net->nodes[i]) || !q)
                continue;
            const int act = lb_net_source_act(net, i);
            const bool image = net->nodes[net->nodes[act].src[0]].op == LB_OP_INPUT;
            assert_int_equal(q->spec.layer, layers);
            assert_true(image == (net->nodes[act].quant->spec.mixer == &lb_mixer_constant));
            if (!image && turn_of[act] < 0)
                turn_of[act] = layers;
            layers++;
        }
        assert_int_equal(layers, (m / 2 ? 20 : 2) + 2 * edges);
        for (int i = 0; i < net->nnodes; i++) {
            const lb_quant *q = net->nodes[i].quant;
            if (q && q->spec.mixer == &lb_mixer_mask)
                assert_int_equal(q->spec.layers, layers);
            if (turn_of[i] >= 0)
                assert_int_equal(q->spec.layer, turn_of[i]);
        }
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* ---- Stages ---------------------------------------------------------------------------------------------------- */

static float *learned(const lb_net *net, const char *node) {
    lb_quant *quant = node_of(net, node)->quant;
    assert_non_null(quant);
    assert_true(quant->param >= 0);
    return lb_param_values(net, quant->param);
}

static void learn_all(lb_net *net) {
    for (int i = 0; i < net->nnodes; i++) {
        lb_quant *quant = net->nodes[i].quant;
        if (!quant || quant->param < 0)
            continue;
        for (size_t j = 0; j < net->params[quant->param].count; j++)
            lb_param_values(net, quant->param)[j] = (float)(strlen(net->nodes[i].name) + j);
        quant->initialised = true;
    }
}

static void test_stages(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = quant_config("resnet20", "lsq", 4, "none", 4, 8, 8, LB_EDGE_SAME);
    strcpy(config.model.variant, "sq");
    lb_net *net = small(ctx, &config);
    lb_net_initialise(net, 3, 0);
    size_t fixed = net->nvalues;
    float *weights = malloc(fixed * sizeof *weights);
    memcpy(weights, net->values, fixed * sizeof *weights);

    /* Weights alone, then activations too: the weights' steps stay, the new ones start at nothing. */
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_false(node_of(net, "conv1")->quant->initialised);
    learn_all(net);
    config.quant.activations = test_tensor("lsq", 4);
    assert_ok(ctx, lb_net_quantize(net, &config));
    test_consistent(net);
    assert_true(*learned(net, "layer2.1.conv2") == 14 && node_of(net, "layer2.1.conv2")->quant->initialised);
    assert_true(*learned(net, "layer1.0.add.quant") == 0 && !node_of(net, "layer1.0.add.quant")->quant->initialised);
    learn_all(net);

    /* The same again changes nothing, inserted nodes included. */
    char before[512], after[512];
    lb_net_describe_quant(net, before, sizeof before);
    assert_ok(ctx, lb_net_quantize(net, &config));
    lb_net_describe_quant(net, after, sizeof after);
    assert_string_equal(before, after);
    for (int i = 0; i < net->nnodes; i++)
        if (net->nodes[i].quant && net->nodes[i].quant->param >= 0) {
            assert_true(net->nodes[i].quant->initialised);
            assert_true(*lb_param_values(net, net->nodes[i].quant->param) == (float)strlen(net->nodes[i].name));
        }

    /* Fewer bits, the range kept: the step grows. Weights 4 -> 2 bits: hi 7 -> 1; unsigned activations: 15 -> 3. */
    config.quant.rescale = LB_RESCALE_RANGE;
    config.quant.weights.bits = config.quant.activations.bits = 2;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_float_equal(*learned(net, "layer2.1.conv2"), 14 * 7, 1e-4);
    assert_float_equal(*learned(net, "layer2.1.relu1"), 14 * 5, 1e-4);
    assert_float_equal(*learned(net, "layer1.0.add.quant"), 18 * 7, 1e-4);
    assert_float_equal(*learned(net, "fc"), 2, 0); /* 8 bits before and now */
    assert_true(node_of(net, "layer2.1.conv2")->quant->initialised);

    /* Another method, or another granularity: from the start. Weights in the flat block never moved. */
    config.quant.weights.options.per = LB_PER_FILTER;
    config.quant.activations = test_tensor("pact", 2);
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_int_equal(net->params[node_of(net, "layer2.1.conv2")->quant->param].count, 32);
    assert_true(*learned(net, "layer2.1.conv2") == 0 && !node_of(net, "layer2.1.conv2")->quant->initialised);
    assert_true(*learned(net, "layer2.1.relu1") == 0 && !node_of(net, "layer2.1.relu1")->quant->initialised);
    assert_string_equal(net->params[node_of(net, "layer2.1.relu1")->quant->param].name, "layer2.1.relu1.act_clip");
    assert_string_equal(net->params[node_of(net, "layer2.1.conv2")->quant->param].name, "layer2.1.conv2.weight_step");
    learn_all(net);

    /* A clip is a range already: bits do not change it. */
    config.quant.activations.bits = 6;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_true(*learned(net, "layer2.1.relu1") == 14 && node_of(net, "layer2.1.relu1")->quant->initialised);
    assert_true(learned(net, "layer2.1.conv2")[31] == 14 + 31);

    /* Unless the step is what stays: 6 bits -> 2, hi 63 -> 3. By default a step starts anew, and a clip stays. */
    config.quant.rescale = LB_RESCALE_STEP;
    config.quant.activations.bits = 2;
    config.quant.weights.bits = 4;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_float_equal(*learned(net, "layer2.1.relu1"), 14. * 3 / 63, 1e-6);
    assert_true(learned(net, "layer2.1.conv2")[31] == 14 + 31);
    config.quant.rescale = LB_RESCALE_START;
    config.quant.weights.bits = 2;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_false(node_of(net, "layer2.1.conv2")->quant->initialised);
    config.quant.activations.bits = 5;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_float_equal(*learned(net, "layer2.1.relu1"), 14. * 3 / 63, 1e-6);
    assert_true(node_of(net, "layer2.1.relu1")->quant->initialised);
    config.quant.rescale = LB_RESCALE_RANGE;

    /* Logarithms of lengths: cpq's at 4 -> 2 bits, hi 7 -> 1. */
    config.quant.weights = test_tensor("cpq", 4);
    assert_ok(ctx, lb_net_quantize(net, &config));
    learn_all(net);
    config.quant.weights.bits = 2;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_float_equal(*learned(net, "layer2.1.conv2"), 14 + log(7), 1e-5);

    assert_memory_equal(net->values, weights, fixed * sizeof *weights);
    free(weights);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* A long text is cut, not overrun. */
/* Bit-lengths: what is learned in one stage is kept in the next, edges with bits of their own stay out of it. */
static void test_lengths(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = quant_config("resnet20", "cpq", 4, "none", 4, 8, 8, LB_EDGE_SAME);
    lb_net *net = small(ctx, &config);
    char text[1000];
    lb_net_initialise(net, 3, 0);
    assert_ok(ctx, lb_net_quantize(net, &config));
    learned(net, "layer2.1.conv2")[0] = -1.5f;
    learned(net, "layer2.1.conv2")[1] = -2.5f;
    config.quant.rescale = LB_RESCALE_RANGE; /* values of no meaning yet are not carried over */
    config.quant.weights.bits = 2;
    assert_ok(ctx, lb_net_can_quantize(net, &config));
    assert_true(learned(net, "layer2.1.conv2")[0] == 0);
    config.quant.weights.bits = 4;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_true(learned(net, "layer2.1.conv2")[0] == 0);
    config.quant.rescale = LB_RESCALE_START;
    learned(net, "layer2.1.conv2")[0] = -1.5f;
    learned(net, "layer2.1.conv2")[1] = -2.5f;
    node_of(net, "layer2.1.conv2")->quant->initialised = true;
    assert_false(lb_net_describe_lengths(net, text, sizeof text));

    config.quant.weights.options.bit_lengths = LB_BITS_LEARNED;
    config.quant.weights.options.bits_penalty = 0.01f;
    assert_ok(ctx, lb_net_quantize(net, &config));
    float *p = learned(net, "layer2.1.conv2"); /* the step stays, gates begin open */
    assert_true(p[0] == -1.5f && p[1] == -2.5f && p[2] == 0 && p[3] == 0);
    assert_string_equal(net->params[node_of(net, "layer2.1.conv2")->quant->param + 3].name, "layer2.1.conv2.weight_gate4");
    assert_int_equal(node_of(net, "conv1")->quant->spec.options.bit_lengths, LB_BITS_FIXED);
    assert_int_equal(lb_quant_nparams(&node_of(net, "conv1")->quant->spec), 2);
    p[2] = -6;
    learned(net, "layer2.1.conv1"); /* which stays at four bits */
    node_of(net, "layer2.1.conv1")->quant->initialised = true;
    assert_int_equal(node_of(net, "layer2.1.conv2")->quant->grid.bits, 4);
    lb_net_update_grids(net);
    assert_int_equal(node_of(net, "layer2.1.conv2")->quant->grid.bits, 2);

    config.quant.weights.options.bit_lengths = LB_BITS_KEPT;
    assert_ok(ctx, lb_net_quantize(net, &config));
    p = learned(net, "layer2.1.conv2"); /* of four bits, but two are kept: its step is started anew */
    assert_false(node_of(net, "layer2.1.conv2")->quant->initialised);
    assert_true(node_of(net, "layer2.1.conv1")->quant->initialised);
    assert_true(p[2] == -6);
    lb_quant *kept = node_of(net, "layer2.1.conv2")->quant;
    const float u[4] = {-0.5f, -0.25f, 0.25f, 0.5f};
    float anew[4] = {0, 0, -6, 0}, two[2];
    kept->spec.quantizer->init(&kept->spec, u, 1, 4, anew);
    lb_quant_spec fixed = kept->spec;
    fixed.options.bit_lengths = LB_BITS_FIXED;
    fixed.bits = 2;
    fixed.quantizer->init(&fixed, u, 1, 4, two);
    assert_memory_equal(anew, two, sizeof two);
    assert_true(anew[2] == -6);
    kept->initialised = true;
    p[0] = -1.25f;
    assert_ok(ctx, lb_net_quantize(net, &config)); /* another stage that keeps them */
    p = learned(net, "layer2.1.conv2");
    assert_true(p[0] == -1.25f && p[2] == -6 && node_of(net, "layer2.1.conv2")->quant->initialised);
    config.quant.weights.bits = 6; /* gates are kept whatever becomes of steps */
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_true(learned(net, "layer2.1.conv2")[2] == -6 && learned(net, "layer2.1.conv2")[0] == -1.25f);
    config.quant.weights.bits = 4;
    assert_ok(ctx, lb_net_quantize(net, &config));
    assert_int_equal(node_of(net, "layer2.1.conv2")->quant->grid.bits, 2);
    assert_int_equal(node_of(net, "layer2.1.conv1")->quant->grid.bits, 4);
    assert_true(lb_net_describe_lengths(net, text, sizeof text));
    assert_non_null(strstr(text, "layer2.1.conv1 4, layer2.1.conv2 2, "));
    assert_null(strstr(text, "conv1 8"));
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

static void test_describe_size(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_config config = quant_config("resnet20", "lsq", 4, "lsq", 4, 8, 8, LB_EDGE_SAME);
    lb_net *net = small(ctx, &config);
    assert_ok(ctx, lb_net_quantize(net, &config));
    char whole[512];
    lb_net_describe_quant(net, whole, sizeof whole);
    for (size_t size = 1; size < strlen(whole) + 2; size++) {
        char *text = malloc(size);
        lb_net_describe_quant(net, text, size);
        assert_int_equal(strlen(text), LB_MIN(size - 1, strlen(whole)));
        assert_memory_equal(text, whole, strlen(text));
        free(text);
    }
    lb_net_describe_quant(net, NULL, 0);
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* The n-th allocation fails in either of two quantize calls: nothing leaks, and the net can be quantized again. */
static void test_out_of_memory(void **state) {
    (void)state;
    lb_config first = quant_config("resnet20", "lsq", 4, "lsq", 4, 8, 8, LB_EDGE_SAME), second = first;
    strcpy(first.model.variant, "sq");
    first.model.width = 0.25f;
    second.quant.weights = test_tensor("lsq", 2);
    second.quant.weights.options.per = LB_PER_FILTER;
    for (long n = 0, done = 0; !done; n++) {
        test_allocator allocator = {.left = LONG_MAX};
        lb_ctx *ctx = test_ctx_with(&allocator);
        lb_net *net = small(ctx, &first);
        allocator.left = n;
        lb_status status = lb_net_quantize(net, &first);
        if (status == LB_OK)
            status = lb_net_quantize(net, &second);
        done = status == LB_OK && allocator.left > 0;
        assert_true(status == LB_OK || status == LB_ERR_MEMORY);
        allocator.left = LONG_MAX;
        test_consistent(net);
        if (n % 16 == 0) {
            assert_ok(ctx, lb_net_quantize(net, &second));
            test_consistent(net);
        }
        lb_net_destroy(net);
        lb_ctx_destroy(ctx);
        assert_int_equal(allocator.alive, 0);
        assert_true(n < 2000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zoo_edges), cmocka_unit_test(test_resnet_places), cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_mlp),       cmocka_unit_test(test_rules),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_options),   cmocka_unit_test(test_units),         cmocka_unit_test(test_stages),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_lengths),   cmocka_unit_test(test_describe_size), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

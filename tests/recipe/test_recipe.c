/* Recipes: the table, reading, every error, --set, stages, layer rules. */
#include "recipe/given.h"
#include "recipes.h"

static void test_defaults(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *r;
    assert_ok(ctx, lb_recipe_create(ctx, &r));
    const lb_config *c = r->stages;
    assert_int_equal(r->nstages, 1);
    assert_string_equal(c->stage, "main");
    assert_int_equal(c->train.optimizer.name, LB_OPT_SGD);
    assert_true(c->train.optimizer.lr == 0.1f && c->train.optimizer.momentum == 0.9f && c->train.optimizer.nesterov);
    assert_true(c->train.optimizer.weight_decay == 1e-4f && c->train.optimizer.decay_bias == 0 && c->train.optimizer.lr_quant == 1);
    assert_int_equal(c->train.schedule.name, LB_SCHED_COSINE);
    assert_int_equal(c->train.batch, 128);
    assert_int_equal(c->train.eval_batch, 250);
    assert_true(c->train.epochs == 30 && c->train.steps == 0 && c->train.seed == 1);
    assert_int_equal(c->data.workers, 1);
    assert_true(c->data.cache);
    assert_int_equal(c->data.nmean, 0);
    assert_true(c->data.augment.scale[0] == 0.08f && c->data.augment.scale[1] == 1);
    assert_string_equal(c->quant.weights.method, "none");
    assert_int_equal(c->quant.edge_first, 8);
    assert_int_equal(c->quant.edge_last, 8);
    assert_int_equal(c->quant.edge_shortcut, LB_EDGE_SAME);
    lb_recipe_destroy(r);
    lb_recipe_destroy(NULL);
    lb_ctx_destroy(ctx);
}

/* Every row is well formed: its default parses and formats, its section and its condition exist, no two rows share a place. */
static void test_table(void **state) {
    (void)state;
    const lb_key *key, *other;
    bool used[sizeof(lb_config)] = {0};
    for (size_t i = 0; (key = lb_recipe_key(i)); i++) {
        assert_non_null(key->help);
        assert_ptr_equal(lb_key_find(key->path), key);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(key->path, lb_recipe_key(k)->path);
        const char *dot = strrchr(key->path, '.');
        if (dot) {
            char section[64];
            snprintf(section, sizeof section, "%.*s", (int)(dot - key->path), key->path);
            other = lb_key_find(section);
            if (!other || other->type != LB_KEY_SECTION)
                fail_msg("%s has no section", key->path);
        }
        if (key->type == LB_KEY_SECTION)
            continue;
        if (used[key->offset])
            fail_msg("%s shares its place", key->path);
        used[key->offset] = true;
        char buffer[LB_CONFIG_TEXT], why[LB_KEY_WHY], out[LB_KEY_FORMAT];
        lb_key_value value;
        if (!lb_key_parse_text(key, key->fallback, buffer, &value, why))
            fail_msg("default of %s %s", key->path, why);
        lb_config config = {0}, again = {0};
        lb_key_store(key, &value, &config);
        lb_key_format(key, &config, out);
        assert_true(lb_key_parse_text(key, out, buffer, &value, why));
        lb_key_store(key, &value, &again);
        assert_memory_equal(&config, &again, sizeof config);
        if (key->when && strcmp(key->when, "quant") != 0) {
            char path[64];
            snprintf(path, sizeof path, "%.*s", (int)strcspn(key->when, "!="), key->when);
            other = lb_key_find(path);
            if (!other || other->type == LB_KEY_SECTION)
                fail_msg("%s hangs on %s, which is no key", key->path, path);
            for (const char *c = key->when + strcspn(key->when, "=") + 1; other->choices && *c;) {
                char choice[32];
                snprintf(choice, sizeof choice, "%.*s", (int)strcspn(c, "|"), c);
                if (!lb_key_parse_text(other, choice, buffer, &value, why))
                    fail_msg("%s hangs on %s=%s, which it cannot be", key->path, path, choice);
                c += strlen(choice) + (c[strlen(choice)] == '|');
            }
        }
    }
}

/* A total is shared by the stages as their epochs are, with what is counted in epochs; a saved copy has the same. */
static void test_total_epochs(void **state) {
    (void)state;
    static const char text[] = "train: {epochs: 6, total_epochs: 5, schedule: {name: multistep, milestones: [2, 4], warmup: 1}}\n"
                               "stages:\n"
                               "  - name: a\n"
                               "  - {name: b, train: {epochs: 4, schedule: {name: step, every: 2}}}\n"
                               "  - {name: c, train: {steps: 7}}\n";
    lb_ctx *ctx = test_ctx();
    lb_recipe *r, *copy;
    char *saved;
    size_t size;
    assert_ok(ctx, parse(ctx, text, &r));
    const lb_train_config *a = &r->stages[0].train, *b = &r->stages[1].train, *c = &r->stages[2].train;
    assert_true(a->epochs == 3 && b->epochs == 2 && c->steps == 7);
    assert_true(a->schedule.milestones[0] == 1 && a->schedule.milestones[1] == 2 && a->schedule.warmup == 0.5f);
    assert_true(b->schedule.every == 1 && c->schedule.warmup == 1);
    assert_ok(ctx, lb_recipe_format(r, &saved, &size));
    assert_ok(ctx, parse(ctx, saved, &copy));
    assert_true(copy->stages[0].train.epochs == 3 && copy->stages[1].train.epochs == 2 &&
                copy->stages[1].train.schedule.every == 1);
    assert_true(copy->stages[0].train.schedule.milestones[1] == 2 && copy->stages[0].train.total_epochs == 5);
    lb_free(ctx, saved);
    lb_recipe_destroy(copy);
    lb_recipe_destroy(r);
    lb_ctx_destroy(ctx);
}

static void test_full(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *r;
    assert_ok(ctx, parse(ctx, full, &r));
    assert_int_equal(r->nstages, 4);
    const lb_config *a = &r->stages[0], *b = &r->stages[1], *c = &r->stages[2], *d = &r->stages[3];
    assert_string_equal(a->model.name, "vgg-small");
    assert_string_equal(d->model.name, "vgg-small");
    assert_int_equal(a->data.nmean, 3);
    assert_true(a->data.mean[2] == 0.4465f && a->data.std[1] == 0.2435f && a->data.mean[1] == 0.4822f);
    assert_int_equal(a->data.augment.pad, 4);
    assert_true(a->data.augment.flip);
    assert_true(a->train.epochs == 12.5f && a->train.seed == UINT64_MAX);
    assert_string_equal(a->train.init, "runs/a \"b\" \xc3\xa9");
    assert_string_equal(b->train.init, ""); /* from the stage before */
    assert_string_equal(c->train.init, "runs/other");
    assert_true(a->train.optimizer.lr == 0.03f && b->train.optimizer.lr == 0.001f && c->train.optimizer.lr == 0.03f);
    assert_true(a->train.optimizer.decay_bn == 1);
    assert_int_equal(a->train.schedule.name, LB_SCHED_MULTISTEP);
    assert_int_equal(a->train.schedule.nmilestones, 2);
    assert_true(a->train.schedule.milestones[1] == 10.5f && a->train.schedule.gamma == 0.3333333f);
    assert_int_equal(b->train.schedule.name, LB_SCHED_COSINE);
    assert_int_equal(b->train.schedule.nmilestones, 0); /* not read by cosine: default */
    assert_true(b->train.schedule.gamma == 0.1f && b->train.epochs == 5);
    assert_true(c->train.steps == 7 && c->train.epochs == 30);
    assert_string_equal(a->stage, "weights-only");
    assert_string_equal(a->quant.activations.method, "none");
    assert_string_equal(b->quant.activations.method, "dorefa");
    assert_int_equal(b->quant.activations.bits, 3);
    assert_int_equal(a->quant.edge_first, 0);
    assert_int_equal(a->quant.edge_last, 4);
    assert_int_equal(a->quant.edge_shortcut, LB_EDGE_SAME);
    /* Rules inherit from the stage's final weights and activations. */
    assert_int_equal(a->quant.nlayers, 2);
    assert_string_equal(a->quant.layers[0].match, "layer1.*");
    assert_string_equal(a->quant.layers[0].weights.method, "dorefa");
    assert_int_equal(a->quant.layers[0].weights.bits, 4);
    assert_string_equal(a->quant.layers[0].activations.method, "none");
    assert_string_equal(b->quant.layers[0].activations.method, "dorefa");
    assert_int_equal(b->quant.layers[0].activations.bits, 3);
    assert_string_equal(a->quant.layers[1].match, "*.conv2");
    assert_string_equal(b->quant.layers[1].weights.method, "twn");
    assert_true(b->quant.layers[1].weights.options.threshold == 0.75f);
    assert_int_equal(b->quant.layers[1].weights.bits, 1);
    assert_int_equal(b->quant.weights.bits, 1);
    assert_int_equal(c->quant.nlayers, 1);
    assert_string_equal(c->quant.layers[0].match, "fc");
    assert_int_equal(c->quant.layers[0].weights.bits, 8);
    assert_int_equal(d->quant.nlayers, 0);
    lb_recipe_destroy(r);
    lb_ctx_destroy(ctx);
}

/* Ten lines are enough. */
static void test_small(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *r;
    assert_ok(ctx, parse(ctx, "\xef\xbb\xbfmodel: {name: lenet5}\r\ndata:\r\n  name: mnist\r\n  # nothing else\r\ntrain:\r\n", &r));
    assert_string_equal(r->stages->model.name, "lenet5");
    assert_string_equal(r->stages->data.name, "mnist");
    lb_recipe_destroy(r);
    lb_ctx_destroy(ctx);
}

/* Wrong recipes: what the message must hold. */
static const struct {
    const char *text, *message, *message2;
} wrong[] = {
    {"", "r.yaml: the recipe is empty", NULL},
    {"# only a comment\n", "is empty", NULL},
    {"---\n", "is empty", NULL},
    {"null\n", "is empty", NULL},
    {"- a\n", "r.yaml:1: a recipe must be a mapping", "not a list"},
    {"hello\n", "must be a mapping", "not hello"},
    {"model: {name: a}\n---\nmodel: {name: b}\n", "r.yaml:2: a second document", NULL},
    {"model: {name: a}\n\n\ntrain:\n  optmizer:\n    lr: 1\n", "r.yaml:5: unknown key train.optmizer",
     "did you mean train.optimizer?"},
    {"trian: {}\n", "r.yaml:1: unknown key trian", "did you mean train?"},
    {"lr: 1\n", "unknown key lr", "did you mean train.optimizer.lr?"},
    {"train:\n  lr: 1\n", "r.yaml:2: unknown key train.lr", "did you mean train.optimizer.lr?"},
    {"quant: {bits: 2}\n", "unknown key quant.bits", "did you mean quant.weights.bits?"},
    {"quant:\n  weight:\n    bits: 2\n", "r.yaml:2: unknown key quant.weight:", "did you mean quant.weights?"},
    {"train:\n  qqqqqqq: 1\n", "unknown key train.qqqqqqq", "train has epochs, total_epochs, steps, batch"},
    {"zzzzzz: 1\n", "unknown key zzzzzz", "a recipe has model, data, train, distill, quant"},
    {"train.optmizer.lr: 1\n", "unknown key train.optmizer.lr", "did you mean train.optimizer.lr?"},
    {"train: {batch: 1.5}\n", "train.batch must be a whole number, not 1.5", NULL},
    {"train: {batch: '12'}\n", "train.batch must be a whole number, not the text \"12\"", NULL},
    {"train: {batch: many}\n", "must be a whole number, not the text \"many\"", NULL},
    {"train: {batch: 1e2}\n", "must be a whole number, not 1e2", NULL},
    {"train: {batch: 0x10}\n", "must be a whole number", NULL},
    {"train: {batch: 0}\n", "train.batch must be 1 to 65536, not 0", NULL},
    {"train: {batch: 99999999999999999999}\n", "must be 1 to 65536", NULL},
    {"train: {batch: -1}\n", "must be 1 to 65536, not -1", NULL},
    {"train: {seed: -1}\n", "train.seed must be 0 to 18446744073709551615, not -1", NULL},
    {"train: {seed: 18446744073709551616}\n", "train.seed must be 0 to", NULL},
    {"train: {optimizer: {lr: nan}}\n", "train.optimizer.lr must be a number", NULL},
    {"train: {optimizer: {lr: .inf}}\n", "must be a number", NULL},
    {"train: {optimizer: {lr: inf}}\n", "must be a number", NULL},
    {"train: {optimizer: {lr: 1e999}}\n", "must be 0 to 1000, not 1e999", NULL},
    {"train: {optimizer: {lr: -0.1}}\n", "must be 0 to 1000, not -0.1", NULL},
    {"train: {optimizer: {lr: 1e}}\n", "must be a number", NULL},
    {"train: {optimizer: {lr: .}}\n", "must be a number", NULL},
    {"train: {optimizer: {lr: 0x1p3}}\n", "must be a number", NULL},
    {"train: {optimizer: {lr: }}\n", "train.optimizer.lr has no value", NULL},
    {"train:\n  optimizer:\n    lr: ~\n", "r.yaml:3: train.optimizer.lr has no value", NULL},
    {"train: {optimizer: {lr: [1]}}\n", "must be one value, not a list", NULL},
    {"train: {optimizer: {lr: {a: 1}}}\n", "must be a value, not a mapping", NULL},
    {"train: {optimizer: {nesterov: maybe}}\n", "must be true or false, not \"maybe\"", NULL},
    {"train: {optimizer: {nesterov: 'true'}}\n", "must be true or false", NULL},
    {"train: {optimizer: {name: sdg}}\n", "must be one of sgd, adam, adamw, not \"sdg\"", "did you mean sgd?"},
    {"train: 5\n", "train must be a mapping of keys such as train.epochs, not 5", NULL},
    {"train: [5]\n", "train must be a mapping of keys such as train.epochs, not a list", NULL},
    {"train: {optimizer: adam}\n", "train.optimizer must be a mapping of keys such as train.optimizer.name, not adam", NULL},
    {"quant: {weights: {method: dorefaa}}\n", "must be one of none, sign, bwn, xnor, twn, dorefa", "did you mean dorefa?"},
    {"quant: {activations: {method: bwm}}\n", "one of none, sign, xnor, dorefa, uniform, pact, lsq, cpq, rq, not \"bwm\"", NULL},
    {"quant: {activations: {mixer: roulete}}\n", "must be one of constant, alpha, stochastic, mask, not \"roulete\"", NULL},
    {"quant: {weights: {mixer: roulete}}\n", "one of constant, alpha, roulette, stochastic, mask", "did you mean roulette?"},
    {"quant: {weights: {method: dorefa, bits: 9}}\n", "quant.weights.bits must be 1 to 8, not 9", NULL},
    {"quant: {edges: {first: 9}}\n", "quant.edges.first must be 1 to 8, not 9", NULL},
    {"quant: {edges: {first: 2.5}}\n", "must be a whole number", NULL},
    {"quant: {edges: {first: full}}\n", "must be float, same, or bits from 1 to 8, not \"full\"", NULL},
    {"data: {mean: 0.5}\n", "data.mean must be a list such as", NULL},
    {"data: {mean: [a]}\n", "data.mean must be a number, not the text \"a\"", NULL},
    {"data: {mean: [[1]]}\n", "must be a list of numbers, not of lists", NULL},
    {"data: {name: [[1]]}\n", "data.name must be one value, not a list", NULL},
    {"data: {mean: [.1, .2, .3, .4, .5]}\n", "must have at most 4 numbers, not 5", NULL},
    {"data: {mean: [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}\n", "must have at most 4 numbers", NULL},
    {"data: {mean: [0.5]}\n", "r.yaml:1: data.mean has 1 numbers and data.std 0", NULL},
    {"data: {std: [0, 1]}\n", "data.std must be 0.001 to 10, not 0", NULL},
    {"data: {augment: {resized_crop: true, scale: [0.5]}}\n", "data.augment.scale must have 2 numbers, not 1", NULL},
    {"data: {augment: {resized_crop: true, scale: [1, 0.5]}}\n", "must be [smallest, largest]", NULL},
    {"data: {augment: {scale: [0.5, 1]}}\n", "has no effect here: it is read only with data.augment.resized_crop true", NULL},
    {"data: {path: }\n", "data.path has no value; for an empty text write \"\"", NULL},
    {"data: {path: \"a\\0b\"}\n", "must be UTF-8 text without control characters", NULL},
    {"data: {path: \"a\\nb\"}\n", "must be UTF-8 text without control characters", NULL},
    {"model:\n  name: a\nmodel:\n  width: 2\n", "r.yaml:3: model is given twice", NULL},
    {"model:\n  name: a\n  name: b\n", "r.yaml:3: model.name is given twice", NULL},
    {"model:\n  name: a\nmodel.name: b\n", "model.name is given twice, first in line 2", NULL},
    {"quant:\n  layers: []\nquant.layers: []\n", "quant.layers is given twice", NULL},
    {"model: &x {name: a}\n", "anchors and aliases", NULL},
    {"a: &a [x, x]\nb: [*a, *a]\n", "unknown key a", NULL},
    {"data: {mean: [*a]}\n", "anchors and aliases", NULL},
    {"data: {path: !!str x}\n", "tags (!) are not used", NULL},
    {"? [a, b]\n: c\n", "a key must be a word, not a list", NULL},
    {"model:\n\tname: a\n", "r.yaml:2: not valid YAML", "spaces, not tabs"},
    {"model: {name: a\n", "not valid YAML", NULL},
    {"model:\n  name: a: b\n", "r.yaml:2: not valid YAML", NULL},
    {"model: {name: \"a}\n", "not valid YAML", NULL},
    {"model:\n  name: caf\xe9\n", "r.yaml:2:", "UTF-8"},
    {"model:\n  name: a\x01\n", "r.yaml:2:", "control characters"},
    {"train: {schedule: {name: cosine, gamma: 0.5}}\n", "train.schedule.gamma has no effect here",
     "train.schedule.name step or multistep"},
    {"train: {optimizer: {beta1: 0.5}}\n", "read only with train.optimizer.name adam or adamw", NULL},
    {"train:\n  steps: 5\n  epochs: 3\n", "r.yaml:3: train.epochs has no effect here", "train.steps 0"},
    {"quant:\n  weights: {bits: 3}\n", "r.yaml:2: quant.weights.bits has no effect here", "quant.weights.method other than none"},
    {"quant:\n  edges: {first: 4}\n", "quant.edges.first has no effect here", "other than none"},
    {"quant: {weights: {method: lsq, per: filtre}}\n", "quant.weights.per must be one of tensor, filter, default", "mean filter?"},
    {"quant: {weights: {method: lsq, estimator: clip}}\n", "one of default, ste, clipped, none, own, not \"clip\"", NULL},
    {"quant: {activations: {method: lsq, surrogate: hardtan}}\n", "did you mean hardtanh?", NULL},
    {"quant: {weights: {method: uniform, scale: l1}}\n", "quant.weights.scale must be one of minmax, l2", "did you mean l2?"},
    {"quant: {weights: {method: twn, threshold: 0}}\n", "quant.weights.threshold must be 0.001 to 10, not 0", NULL},
    {"quant: {weights: {method: dorefa, threshold: 1}}\n", "quant.weights.threshold has no effect", "quant.weights.method twn"},
    {"quant: {layers: [{match: a, weights: {bits: 3}}]}\n", "quant.weights.bits has no effect here", NULL},
    {"train: {schedule: {name: multistep}}\n", "r.yaml:1: a multistep schedule needs train.schedule.milestones", NULL},
    {"train:\n  schedule: {name: multistep,\n  milestones: [5, 5]}\n", "r.yaml:3: a multistep schedule needs", "ascending"},
    {"train: {schedule: {name: exponential}}\n", "an exponential schedule needs", "lr_end"},
    {"quant: {layers: {match: a}}\n", "quant.layers must be a list of", "not a mapping"},
    {"quant:\n  layers:\n    - conv1\n", "r.yaml:3: quant.layers[0] must be a mapping", "not conv1"},
    {"quant: {layers: [{weights: {bits: 2}}]}\n", "quant.layers[0] needs match", NULL},
    {"quant: {layers: [{match: [a]}]}\n", "match must be a text, not a list", NULL},
    {"quant: {layers: [{match: \"a b\"}]}\n", "match must be 1 to 63 of the characters", NULL},
    {"quant: {layers: [{match: a, wieghts: {bits: 2}}]}\n", "unknown key quant.layers[0].wieghts; a layer rule has match, weights",
     NULL},
    {"quant: {layers: [{match: a, edges: {first: 8}}]}\n", "unknown key quant.layers[0].edges", NULL},
    {"quant: {layers: [{match: a, layers: []}]}\n", "unknown key quant.layers[0].layers", NULL},
    {"quant: {layers: [{match: a}, {match: b, weights: {bitz: 2}}]}\n", "quant.layers[1].weights.bitz", NULL},
    {"quant: {layers: [{match: a, match: b}]}\n", "given twice", NULL},
    {"stages: {a: 1}\n", "stages must be a list", NULL},
    {"stages: []\n", "stages is empty", NULL},
    {"stages: [a]\n", "stage 1 must be a mapping", "not a"},
    {"stages:\n  - name: a\n  - train: {epochs: 5}\n", "r.yaml:3: stage 2 needs a name", NULL},
    {"stages: [{name: a}, {name: a}]\n", "two stages are named a", NULL},
    {"stages: [{name: a.b}]\n", "a stage's name must be 1 to 63", NULL},
    {"stages: [{name: \"\"}]\n", "a stage's name must be 1 to 63", NULL},
    {"stages: [{name: a, model: {name: lenet5}}]\n", "stage 1: model: the network, the data and the total of epochs stay the same",
     NULL},
    {"stages: [{name: a, data.path: x}]\n", "stage 1: data.path: the network, the data", NULL},
    {"stages: [{name: a, train: {total_epochs: 3}}]\n", "stage 1: train.total_epochs: the network, the data and the total", NULL},
    {"stages: [{name: a, stages: []}]\n", "a stage cannot have stages", NULL},
    {"stages: [{name: a, train: {epoch: 1}}]\n", "unknown key stage 1: train.epoch", "did you mean train.epochs?"},
    {"stages: [{name: a}, {name: b, train: {epochs: -1}}]\n", "stage 2: train.epochs must be 0 to 1000000, not -1", NULL},
    {"name: a\n", "unknown key name", NULL},
    {"match: a\n", "unknown key match", NULL},
    {"<<: {a: b}\n", "unknown key <<", NULL},
    {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "must be a mapping", NULL},
    {"model: {name: {name: {name: {name: {name: {name: 1}}}}}}\n", "model.name must be a value, not a mapping", NULL},
};

static void test_errors(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(wrong); i++) {
        lb_recipe *r = (lb_recipe *)ctx;
        lb_status status = parse(ctx, wrong[i].text, &r);
        if (status != LB_ERR_RECIPE || r)
            fail_msg("accepted (%s): %s", lb_status_name(status), wrong[i].text);
        const char *message = lb_error(ctx);
        if (!strstr(message, wrong[i].message) || (wrong[i].message2 && !strstr(message, wrong[i].message2)) ||
            strchr(message, '\n'))
            fail_msg("%s\ngives: %s", wrong[i].text, message);
    }
    lb_ctx_destroy(ctx);
}

/* Limits that take a generated text. */
static void test_limits(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *r;
    size_t size = LB_RECIPE_LIMIT + 100;
    char *text = calloc(size + 1, 1);

    memset(text, 'x', size);
    memcpy(text, "data: {path: ", 13);
    assert_int_equal(lb_recipe_parse(ctx, "r.yaml", text, size, NULL, 0, &r), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "1048576"));

    memcpy(text + 700, "}\n", 3);
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "data.path must be at most 511 bytes long, not 687"));
    memcpy(text + 13 + 511, "}\n", 3);
    assert_ok(ctx, parse(ctx, text, &r));
    assert_int_equal(strlen(r->stages->data.path), 511);
    lb_recipe_destroy(r);

    memset(text, 'k', 100000); /* a long key */
    text[100000] = ':';
    text[100001] = 0;
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);
    memcpy(text, "\"\xc3\xa9", 3); /* in quotes, cut inside a character */
    memcpy(text + 500, "\": 1", 5);
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "unknown key"));

    memset(text, '[', 200000); /* deep nesting: as a value, and as the whole */
    text[200000] = 0;
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);
    memcpy(text, "data: {mean: ", 13);
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);

    size_t n = (size_t)sprintf(text, "stages:\n");
    for (int i = 0; i <= LB_MAX_STAGES; i++)
        n += (size_t)sprintf(text + n, "  - name: s%d\n", i);
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "r.yaml:18: more than 16 stages"));

    n = (size_t)sprintf(text, "quant:\n  layers:\n");
    for (int i = 0; i <= LB_MAX_LAYER_RULES; i++)
        n += (size_t)sprintf(text + n, "    - match: s%d\n", i);
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "quant.layers has more than 32 rules"));

    n = (size_t)sprintf(text, "train: {schedule: {name: multistep, milestones: [");
    for (int i = 0; i < 100000; i++)
        n += (size_t)sprintf(text + n, "%d,", i);
    sprintf(text + n, "]}}\n");
    assert_int_equal(parse(ctx, text, &r), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "at most 16 numbers"));

    assert_int_equal(lb_recipe_parse(ctx, "r.yaml", "model: {}\n\0x", 12, NULL, 0, &r), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "r.yaml:2: a zero byte"));
    free(text);

    assert_int_equal(lb_recipe_load(ctx, "/nowhere/r.yaml", NULL, 0, &r), LB_ERR_IO);
    assert_null(r);
    assert_non_null(strstr(lb_error(ctx), "/nowhere/r.yaml"));
    lb_ctx_destroy(ctx);
}

static void test_set(void **state) {
    (void)state;
    test_log log;
    lb_ctx *ctx = test_ctx_logging(&log);
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"train.epochs", "--set train.epochs: needs KEY=VALUE"},
        {"=3", "needs KEY=VALUE"},
        {"train.epoch=3", "--set train.epoch=3: unknown key train.epoch: did you mean train.epochs?"},
        {"train.epochs=", "--set train.epochs=: train.epochs has no value"},
        {"train.epochs=x", "--set train.epochs=x: train.epochs must be a number"},
        {"train.epochs=[1]", "must be one value, not a list"},
        {"train.epochs=1, 2", "train.epochs must be a number"},
        {"train.epochs={a: 1}", "must be a value, not a mapping"},
        {"train.epochs=1\n---\n2", "is not valid YAML"},
        {"train.epochs=\"1", "is not valid YAML"},
        {"train={epochs: 1}", "train has no value of its own; set a key below it, such as train.epochs"},
        {"stages=[]", "is a list"},
        {"quant.layers=[]", "is a list"},
        {"stages.nine.train.epochs=1", "no stage \"nine\""},
        {"stages.both", "needs KEY=VALUE"},
        {"stages.both=1", "no stage \"both\""},
        {"stages.both.model.name=x", "stay the same in all stages"},
        {"stages.both.train.epoch=1", "did you mean train.epochs?"},
        {"stages.both.train.schedule.gamma=0.5", "has no effect here"},
        {"train.optimizer.beta1=0.5", "--set train.optimizer.beta1=0.5: train.optimizer.beta1 has no effect here"},
        {"data.mean=[1]", "--set data.mean=[1]: data.mean has"},
    };
    lb_recipe *r;
    for (size_t i = 0; i < LB_COUNT(bad); i++) {
        lb_status status = lb_recipe_parse(ctx, "r.yaml", full, strlen(full), &bad[i].text, 1, &r);
        if (status != LB_ERR_RECIPE && i != LB_COUNT(bad) - 1)
            fail_msg("accepted: %s", bad[i].text);
        if (!strstr(lb_error(ctx), bad[i].message))
            fail_msg("%s\ngives: %s", bad[i].text, lb_error(ctx));
    }

    const char *good[] = {
        "train.optimizer.lr=0.25", "stages.both.train.optimizer.lr=1e-3", "quant.weights.bits=3", "data.mean=[0.1, 0.2,0.3]",
        "data.path=a: b #c",       "train.schedule.name=cosine",          "train.init='it''s'",   "train.steps=9",
        "train.optimizer.lr=0.5"};
    assert_ok(ctx, lb_recipe_parse(ctx, "r.yaml", full, strlen(full), good, LB_COUNT(good), &r));
    for (int i = 0; i < r->nstages; i++) {
        const lb_config *c = &r->stages[i];
        assert_true(c->train.optimizer.lr == (i == 1 ? 1e-3f : 0.5f));
        assert_int_equal(c->quant.weights.bits, 3);
        assert_true(c->data.mean[2] == 0.3f);
        assert_string_equal(c->data.path, "a: b #c");
        assert_int_equal(c->train.schedule.name, LB_SCHED_COSINE);
        assert_int_equal(c->train.steps, 9);
        assert_string_equal(c->train.init, i == 0 ? "it's" : i == 2 ? "runs/other" : "");
    }
    /* What the file says of the other schedule is no mistake, but worth a word. */
    test_contains(log.notes, "r.yaml: without effect under these --set: train.");
    test_contains(log.notes, "train.schedule.milestones (line ");
    assert_int_equal(log.nwarnings, 0);
    /* A rule that does not say its bits follows the override. */
    assert_int_equal(r->stages[0].quant.layers[0].weights.bits, 4);
    assert_int_equal(r->stages[0].quant.layers[1].weights.bits, 3);

    /* One at a time, in any order; a failure changes nothing. */
    assert_ok(ctx, lb_recipe_set(r, "train.epochs", "2"));
    assert_ok(ctx, lb_recipe_set(r, "train.steps", "0"));
    assert_true(r->stages[3].train.epochs == 2);
    lb_config before = r->stages[0];
    assert_int_equal(lb_recipe_set(r, "train.epoch", "3"), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(ctx), "setting train.epoch=3: unknown key train.epoch"));
    assert_int_equal(lb_recipe_set(r, "train.epochs", "1e9"), LB_ERR_RECIPE);
    assert_int_equal(lb_recipe_set(r, NULL, "3"), LB_ERR_ARGUMENT);
    assert_memory_equal(&before, &r->stages[0], sizeof before);
    assert_ok(ctx, lb_recipe_set(r, "data.path", ""));
    assert_string_equal(r->stages[0].data.path, "");
    assert_ok(ctx, lb_recipe_set(r, "train.schedule.name", "exponential"));
    assert_int_equal(lb_recipe_check(r), LB_ERR_RECIPE);
    assert_ok(ctx, lb_recipe_set(r, "train.schedule.lr_end", "1e-5"));
    assert_ok(ctx, lb_recipe_check(r));
    /* Nothing reads it: an error when all is set. A default that is left without effect is none. */
    assert_ok(ctx, lb_recipe_set(r, "train.schedule.gamma", "0.5"));
    assert_int_equal(lb_recipe_check(r), LB_ERR_RECIPE);
    test_contains(lb_error(ctx), "setting train.schedule.gamma=0.5: train.schedule.gamma has no effect here");
    assert_ok(ctx, lb_recipe_propose(r, "train.schedule.gamma", "0.5"));
    assert_ok(ctx, lb_recipe_check(r));
    const char *unread = "train.optimizer.beta1=0.5";
    assert_int_equal(lb_recipe_override(r, &unread, 1), LB_ERR_RECIPE);
    assert_ok(ctx, lb_recipe_set(r, "train.optimizer.name", "adam"));
    assert_ok(ctx, lb_recipe_override(r, &unread, 1));
    assert_true(r->stages[0].train.optimizer.beta1 == 0.5f);
    assert_ok(ctx, lb_recipe_set(r, "train.schedule.name", "step"));
    assert_true(r->stages[0].train.schedule.gamma == 0.5f);
    assert_ok(ctx, lb_recipe_set(r, "train.schedule.name", "exponential"));
    size_t entries = r->given->nentries;
    for (int i = 0; i < 100; i++)
        assert_ok(ctx, lb_recipe_set(r, "train.schedule.lr_end", i % 2 ? "1e-5" : "1e-4"));
    assert_int_equal(r->given->nentries, entries);
    lb_recipe_destroy(r);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_table),  cmocka_unit_test(test_total_epochs),
        cmocka_unit_test(test_full),     cmocka_unit_test(test_small),  cmocka_unit_test(test_errors),
        cmocka_unit_test(test_limits),   cmocka_unit_test(test_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

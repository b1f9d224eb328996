/* From a run directory to a packed model and back: pack, load, evaluate, classify, verify, inspect, on a small made-up data set. */
#define _XOPEN_SOURCE 700 /* nftw */
#include <ftw.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deploy/packed.h"
#include "support.h"
#include "train/trainer.h"

enum { SIDE = 12, TRAIN = 192, TEST = 77, CLASSES = 10 };

typedef struct fixture {
    lb_ctx *ctx;
    char dir[64];
} fixture;

static void put_be32(FILE *f, uint32_t v) {
    for (int s = 24; s >= 0; s -= 8)
        fputc((int)(v >> s & 255), f);
}

/* Images whose bright stripe tells the class. */
static void make_idx(const char *images, const char *labels, int count, uint32_t seed) {
    FILE *f = fopen(images, "wb"), *g = fopen(labels, "wb");
    assert_true(f && g);
    put_be32(f, 0x803), put_be32(f, (uint32_t)count), put_be32(f, SIDE), put_be32(f, SIDE);
    put_be32(g, 0x801), put_be32(g, (uint32_t)count);
    for (int n = 0; n < count; n++) {
        const int label = n % CLASSES;
        fputc(label, g);
        for (int i = 0; i < SIDE * SIDE; i++) {
            seed = seed * 1664525u + 1013904223u;
            fputc((int)(seed >> 25) + (i / SIDE == label ? 120 : 0), f);
        }
    }
    fclose(f), fclose(g);
}

static int setup(void **state) {
    fixture *x = calloc(1, sizeof *x);
    const lb_ctx_options options = {.threads = 2};
    strcpy(x->dir, "/tmp/lowbit-run-XXXXXX");
    if (!mkdtemp(x->dir) || chdir(x->dir) || mkdir("digits", 0777) || lb_ctx_create(&options, &x->ctx) != LB_OK)
        return 1;
    setenv("XDG_CACHE_HOME", x->dir, 1);
    make_idx("digits/train-images-idx3-ubyte", "digits/train-labels-idx1-ubyte", TRAIN, 1);
    make_idx("digits/t10k-images-idx3-ubyte", "digits/t10k-labels-idx1-ubyte", TEST, 2);
    *state = x;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int teardown(void **state) {
    fixture *x = *state;
    lb_ctx_destroy(x->ctx);
    if (chdir("/"))
        return 1;
    nftw(x->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(x);
    return 0;
}

typedef struct setting {
    const char *key, *value;
} setting;

static lb_recipe *make_recipe(lb_ctx *ctx, const setting *extra, int nextra) {
    static const setting base[] = {
        {"model.name", "resnet20"}, {"model.width", "0.25"},  {"data.name", "mnist"},    {"data.path", "digits"},
        {"train.steps", "6"},       {"train.batch", "32"},    {"train.eval_batch", "50"}, {"train.optimizer.lr", "0.05"},
    };
    lb_recipe *recipe;
    assert_ok(ctx, lb_recipe_create(ctx, &recipe));
    for (size_t i = 0; i < LB_COUNT(base); i++)
        assert_ok(ctx, lb_recipe_set(recipe, base[i].key, base[i].value));
    for (int i = 0; i < nextra; i++)
        assert_ok(ctx, lb_recipe_set(recipe, extra[i].key, extra[i].value));
    return recipe;
}

static void train(lb_ctx *ctx, const char *dir, const setting *extra, int nextra) {
    lb_recipe *recipe = make_recipe(ctx, extra, nextra);
    lb_trainer *trainer;
    assert_ok(ctx, lb_trainer_create(ctx, recipe, NULL, &trainer));
    assert_ok(ctx, lb_trainer_run(trainer, dir, false));
    lb_trainer_destroy(trainer);
    lb_recipe_destroy(recipe);
}

static void pack(lb_ctx *ctx, const char *dir, const char *file) {
    lb_trainer *trainer;
    assert_ok(ctx, lb_trainer_open(ctx, dir, NULL, &trainer));
    assert_ok(ctx, lb_pack(trainer, file));
    lb_trainer_destroy(trainer);
}

static void check_verified(const lb_verify_result *r, bool equal) {
    assert_int_equal(r->images, TEST);
    assert_int_equal(r->npaths, 3 + (int)lbrt_best_isa());
    assert_string_equal(r->paths[0].name, "trainer");
    assert_string_equal(r->paths[1].name, "ref");
    assert_string_equal(r->paths[r->npaths - 1].name, "c");
    assert_int_equal(r->paths[0].equal, TEST);
    assert_int_equal(r->equal, equal);
    for (int i = 1; i < r->npaths; i++)
        if (equal) {
            assert_int_equal(r->paths[i].equal, TEST);
            assert_int_equal(r->paths[i].predictions_equal, TEST);
            assert_true(r->paths[i].max_abs_diff == 0);
        } else {
            assert_in_range(r->paths[i].equal, 0, TEST - 1);
            assert_true(r->paths[i].max_abs_diff > 0);
        }
}

/* Method, bits and edges of a run. */
typedef struct method {
    const char *dir, *weights, *wbits, *activations, *abits, *edge;
} method;
static const method methods[] = {
    {"lsq", "lsq", "2", "lsq", "2", "8"},         {"dorefa", "dorefa", "3", "dorefa", "2", "float"},
    {"pact", "dorefa", "4", "pact", "4", "same"}, {"uniform", "uniform", "8", "uniform", "8", "8"},
    {"twn", "twn", "2", "none", "2", "same"},     {"float", "none", "2", "none", "2", "float"},
    {"cpq", "cpq", "3", "cpq", "3", "same"},      {"rq", "rq", "2", "rq", "3", "8"},
};

static void whole_way(void **state) {
    const fixture *x = *state;
    lb_ctx *ctx = x->ctx;
    for (size_t i = 0; i < LB_COUNT(methods); i++) {
        const method *m = &methods[i];
        const bool w = strcmp(m->weights, "none") != 0, a = strcmp(m->activations, "none") != 0;
        setting s[8] = {{"quant.weights.method", m->weights}, {"quant.activations.method", m->activations}};
        int n = 2;
        if (w)
            s[n++] = (setting){"quant.weights.bits", m->wbits};
        if (a)
            s[n++] = (setting){"quant.activations.bits", m->abits};
        if (w || a) {
            s[n++] = (setting){"quant.edges.first", m->edge};
            s[n++] = (setting){"quant.edges.last", m->edge};
        }
        char file[128];
        train(ctx, m->dir, s, n);
        lb_verify_result result;
        assert_ok(ctx, lb_verify(ctx, m->dir, NULL, &result)); /* packed in memory */
        check_verified(&result, true);
        snprintf(file, sizeof file, "%s/model.lbm", m->dir);
        pack(ctx, m->dir, file);
        assert_ok(ctx, lb_verify(ctx, m->dir, NULL, &result));
        check_verified(&result, true);
        assert_ok(ctx, lb_verify(ctx, file, "digits", &result));
        check_verified(&result, true);

        /* The packed model's accuracy is the trainer's. */
        lb_trainer *trainer;
        lb_packed *model;
        lb_metrics trained, packed;
        assert_ok(ctx, lb_trainer_open(ctx, m->dir, NULL, &trainer));
        assert_ok(ctx, lb_trainer_eval(trainer, &trained));
        assert_ok(ctx, lb_packed_load(ctx, file, &model));
        assert_ok(ctx, lb_packed_eval(model, NULL, &packed));
        assert_true(trained.top1 == packed.top1 && trained.top5 == packed.top5);
        assert_true(fabs(trained.loss - packed.loss) < 1e-3);
        assert_int_equal(packed.images, TEST);
        lb_trainer_destroy(trainer);
        lb_packed_destroy(model);
    }
}

/* After whole_way: what a packed model can do. */
static void packed_model(void **state) {
    const fixture *x = *state;
    lb_ctx *ctx = x->ctx;
    lb_packed *model;
    assert_ok(ctx, lb_packed_load(ctx, "lsq/model.lbm", &model));
    lbrt_info info;
    lbrt_model_info(lb_packed_model(model), &info);
    assert_int_equal(info.classes, CLASSES);
    assert_int_equal(info.has_float, 0);
    float scores[CLASSES];
    uint8_t pixels[SIDE * SIDE];
    int label;
    assert_ok(ctx, lb_packed_classify_test(model, NULL, 13, scores, pixels, &label));
    assert_int_equal(label, 3);
    int32_t fixed[CLASSES];
    assert_ok(ctx, lb_packed_scores(model, pixels, 1, fixed));
    for (int c = 0; c < CLASSES; c++)
        assert_true(scores[c] == (float)fixed[c] / 65536);
    assert_int_equal(lb_packed_classify_test(model, NULL, TEST, scores, NULL, &label), LB_ERR_ARGUMENT);
    assert_int_equal(lb_packed_classify_test(model, NULL, -1, scores, NULL, &label), LB_ERR_ARGUMENT);
    assert_int_equal(lb_packed_classify(model, "nothing.png", scores, NULL), LB_ERR_IO);
    lb_latency latency;
    assert_ok(ctx, lb_packed_bench(model, 5, 4, &latency));
    assert_true(latency.min_ms > 0 && latency.median_ms >= latency.min_ms && latency.images_per_s > 0);
    assert_true(latency.cpu_ms > 0);
    assert_int_equal(latency.batch, 5);
    assert_string_equal(latency.isa, lbrt_isa_name(lbrt_best_isa()));
    assert_ok(ctx, lb_packed_use(model, "ref"));
    assert_ok(ctx, lb_packed_bench(model, 1, 1, &latency));
    assert_string_equal(latency.isa, "ref");
    lb_layer_times times;
    assert_ok(ctx, lb_packed_profile(model, 2, 3, &times));
    assert_int_equal(times.nlayers, info.layers);
    double sum = 0;
    for (int i = 0; i < times.nlayers; i++) {
        assert_string_equal(times.layers[i].kernel, "ref");
        assert_true(times.layers[i].ms >= 0 && (strcmp(times.layers[i].op, "conv") != 0 || times.layers[i].gops > 0));
        sum += times.layers[i].ms;
    }
    assert_true(sum == times.ms && times.gops > 0);
    lb_layer_times_free(&times);
    assert_int_equal(lb_packed_profile(model, 1, 0, &times), LB_ERR_ARGUMENT);
    assert_int_equal(lb_packed_use(model, "pentium"), LB_ERR_ARGUMENT);
    assert_int_equal(lb_packed_bench(model, 0, 1, &latency), LB_ERR_ARGUMENT);
    assert_true(lb_packed_data(model, "nowhere") != LB_OK);
    assert_ok(ctx, lb_packed_classify_test(model, NULL, 0, scores, NULL, &label)); /* the model's own data is still there */
    lb_packed_destroy(model);
    lb_packed_destroy(NULL);
}

static void copy_file(const char *from, const char *to, size_t flip) {
    FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
    assert_true(f && g);
    size_t at = 0;
    for (int c; (c = fgetc(f)) != EOF; at++)
        fputc(at == flip ? c ^ 16 : c, g);
    fclose(f), fclose(g);
}

static void wrong_files(void **state) {
    const fixture *x = *state;
    lb_ctx *ctx = x->ctx;
    lb_packed *model;
    lb_verify_result result;
    lb_inspection in;
    assert_int_equal(lb_packed_load(ctx, "none.lbm", &model), LB_ERR_IO);
    copy_file("lsq/model.lbm", "altered.lbm", 300);
    assert_int_equal(lb_packed_load(ctx, "altered.lbm", &model), LB_ERR_FORMAT);
    assert_non_null(strstr(lb_error(ctx), "altered.lbm"));
    assert_int_equal(lb_packed_load(ctx, "lsq/recipe.yaml", &model), LB_ERR_FORMAT);
    assert_non_null(strstr(lb_error(ctx), "not a packed model"));
    assert_int_equal(lb_inspect(ctx, "altered.lbm", &in), LB_ERR_FORMAT);
    assert_int_equal(lb_inspect(ctx, "none", &in), LB_ERR_IO);
    /* Without its run, with another run's weights, of another network. */
    copy_file("lsq/model.lbm", "alone.lbm", (size_t)-1);
    assert_int_equal(lb_verify(ctx, "alone.lbm", NULL, &result), LB_ERR_ARGUMENT);
    assert_non_null(strstr(lb_error(ctx), "run"));
    assert_int_equal(lb_verify(ctx, "none", NULL, &result), LB_ERR_IO);
    assert_int_equal(lb_verify(ctx, "lsq/recipe.yaml", NULL, &result), LB_ERR_FORMAT);
    copy_file("lsq/model.lbm", "pact/other.lbm", (size_t)-1);
    assert_ok(ctx, lb_verify(ctx, "pact/other.lbm", NULL, &result));
    check_verified(&result, false);
    const setting larger[] = {{"model.input_size", "16"}, {"train.steps", "1"}};
    train(ctx, "larger", larger, 2);
    copy_file("lsq/model.lbm", "larger/model.lbm", (size_t)-1);
    assert_int_equal(lb_verify(ctx, "larger", NULL, &result), LB_ERR_SHAPE);
}

static const lb_layer_info *layer(const lb_inspection *in, const char *name) {
    for (int i = 0; i < in->nlayers; i++)
        if (!strcmp(in->layers[i].name, name))
            return &in->layers[i];
    fail_msg("no layer %s", name);
    return NULL;
}

static void check_layers(const lb_inspection *in, bool errors) {
    const lb_layer_info *c = layer(in, "layer1.0.conv1"), *fc = layer(in, "fc"), *first = layer(in, "conv1");
    assert_string_equal(c->op, "conv");
    assert_string_equal(c->dst, "12x12x4");
    assert_int_equal(c->weight_bits, 2);
    assert_int_equal(c->activation_bits, 2);
    assert_int_equal(c->weights, 4 * 4 * 9);
    assert_int_equal(c->macs, 4 * 4 * 9 * 144);
    assert_in_range(c->bytes, 36, 200);
    assert_int_equal(isnan(c->weight_error), !errors);
    if (errors)
        assert_true(c->weight_error > 0.05 && c->weight_error < 0.9);
    assert_string_equal(fc->op, "linear");
    assert_int_equal(fc->weight_bits, 8);
    assert_int_equal(first->weight_bits, 8);
    assert_int_equal(first->activation_bits, 8);
    int64_t bytes = 0;
    for (int i = 0; i < in->nlayers; i++)
        bytes += in->layers[i].bytes;
    assert_in_range(bytes, 1, in->bytes);
    assert_true(in->float_bytes > 2 * in->bytes);
}

static void inspects(void **state) {
    const fixture *x = *state;
    lb_ctx *ctx = x->ctx;
    lb_inspection run, model, recipe;
    assert_ok(ctx, lb_inspect(ctx, "lsq", &run));
    check_layers(&run, true);
    assert_ok(ctx, lb_inspect(ctx, "lsq/model.lbm", &model));
    check_layers(&model, false);
    assert_int_equal(run.bytes, model.bytes);
    assert_int_equal(run.float_bytes, model.float_bytes);
    assert_int_equal(run.nlayers, model.nlayers);
    assert_ok(ctx, lb_inspect(ctx, "lsq/recipe.yaml", &recipe));
    assert_int_equal(recipe.nlayers, run.nlayers);
    for (int i = 0; i < run.nlayers; i++) {
        assert_string_equal(run.layers[i].name, model.layers[i].name);
        assert_string_equal(run.layers[i].op, model.layers[i].op);
        assert_string_equal(run.layers[i].name, recipe.layers[i].name);
        assert_int_equal(run.layers[i].weights, recipe.layers[i].weights);
        assert_int_equal(run.layers[i].weight_bits, recipe.layers[i].weight_bits);
        assert_int_equal(run.layers[i].activation_bits, recipe.layers[i].activation_bits);
        assert_int_equal(run.layers[i].bytes, model.layers[i].bytes);
    }
    lb_inspection_free(&run);
    lb_inspection_free(&run); /* twice is fine */
    lb_inspection_free(&model);
    lb_inspection_free(&recipe);
    assert_ok(ctx, lb_inspect(ctx, "float", &run));
    assert_int_equal(layer(&run, "fc")->weight_bits, 32);
    assert_int_equal(layer(&run, "fc")->activation_bits, 32);
    assert_true(isnan(layer(&run, "fc")->weight_error));
    lb_inspection_free(&run);
    /* Recipes of the tree, whose data is not needed. */
    assert_ok(ctx, lb_inspect(ctx, LB_SOURCE_DIR "/recipes/cifar10/resnet20-lsq-w2a2.yaml", &recipe));
    assert_string_equal(layer(&recipe, "layer1.0.conv1")->dst, "32x32x16");
    lb_inspection_free(&recipe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_way),
        cmocka_unit_test(packed_model),
        cmocka_unit_test(wrong_files),
        cmocka_unit_test(inspects),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

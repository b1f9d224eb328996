/* Layers shared among threads give the scores of one thread, whatever the order of the pieces. */
#include <sys/wait.h>
#include <unistd.h>

#include "deploy/packed.h"
#include "graphs.h"

enum { MB = 2, CLASSES = 5 };

/* How a caller may run the pieces; notes how many a layer had, and how many layers had any. */
typedef struct caller {
    bool backwards;
    int most, layers;
} caller;

static void parallel_for(void *user, int count, void (*task)(void *arg, int i), void *arg) {
    caller *c = user;
    c->most = LB_MAX(c->most, count);
    c->layers++;
    if (c->backwards) {
        for (int i = count - 1; i >= 0; i--)
            task(arg, i);
        return;
    }
#pragma omp parallel for num_threads(count)
    for (int i = 0; i < count; i++)
        task(arg, i);
}

static void random_graph(test_graph *t, uint64_t seed) {
    memset(t, 0, sizeof *t);
    t->state = seed * 0x9e3779b97f4a7c15ull + 1;
    t->g = (lbrt_graph){.name = "random", .classes = CLASSES, .tensors = t->tensors, .layers = t->layers, .ntensors = 1};
    t->tensors[0] = (lbrt_tensor){.h = test_in(t, 60, 100), .w = test_in(t, 60, 100), .c = 3, .type = LBRT_U8, .hi = 255};
    test_input_layer(t, false);
    for (int i = 0; i < 4; i++)
        test_random_layer(t, &weight_formats[test_in(t, 0, 6)], 0);
    test_random_layer(t, &weight_formats[2], CLASSES);
}

/* A layer has enough to do for several threads, whether images are run together or one by one. */
static bool has_large(const test_graph *t) {
    for (int i = 0; i < t->g.nlayers; i++) {
        const lbrt_layer *l = &t->layers[i];
        const lbrt_tensor *dst = &t->tensors[i + 1];
        const double each = l->op == LBRT_OP_CONV ? lbrt_weights_per_channel(l, &t->tensors[l->src]) : 4;
        if (dst->h > 3 && each * dst->h * dst->w * dst->c > 2e6)
            return true;
    }
    return false;
}

static void same_scores(void **state) {
    (void)state;
    lb_ctx *ctx;
    assert_int_equal(lb_ctx_create(NULL, &ctx), LB_OK);
    int most = 0, layers = 0, graphs = 0;
    for (uint64_t seed = 1; graphs < 20; seed++) {
        test_graph t;
        unsigned char *bytes;
        size_t size;
        lbrt_info info;
        lbrt_model *model;
        random_graph(&t, seed);
        if (!has_large(&t)) {
            test_graph_free(&t);
            continue;
        }
        graphs++;
        assert_ok(ctx, lb_pack_graph(ctx, &t.g, NULL, 0, &bytes, &size));
        assert_int_equal(lbrt_probe(bytes, size, &info), LBRT_OK);
        void *memory = malloc(info.model_size);
        assert_int_equal(lbrt_open(bytes, size, memory, info.model_size, &model), LBRT_OK);
        const size_t pixels = MB * lbrt_elements(&t.tensors[0]);
        uint8_t *images = malloc(pixels);
        int32_t want[MB * CLASSES], got[MB * CLASSES];
        for (size_t i = 0; i < pixels; i++)
            images[i] = (uint8_t)test_bits(&t);
        void *arena = malloc(lbrt_arena_size(model, MB));
        assert_int_equal(lbrt_run(model, images, MB, arena, lbrt_arena_size(model, MB), want), LBRT_OK);
        free(arena);
        for (int count = 1; count <= 7; count += 3)
            for (int backwards = 0; backwards < 2; backwards++) {
                caller user = {.backwards = backwards};
                const lbrt_threads threads = {count, parallel_for, &user};
                const size_t need = lbrt_arena_size_threads(model, MB, count);
                arena = malloc(need);
                memset(arena, 0x5a, need);
                memset(got, 0, sizeof got);
                assert_int_equal(lbrt_run_threads(model, images, MB, arena, need - 1, got, &threads), LBRT_ERR_MEMORY);
                assert_int_equal(lbrt_run_threads(model, images, MB, arena, need, got, &threads), LBRT_OK);
                assert_memory_equal(want, got, sizeof want);
                assert_true(user.most <= count);
                most = LB_MAX(most, user.most);
                layers += user.layers;
                free(arena);
            }
        free(images);
        free(memory);
        lb_free(ctx, bytes);
        test_graph_free(&t);
    }
    assert_true(most > 4 && layers >= 4 * graphs);
    lb_ctx_destroy(ctx);
}

/* One image whose rows are odd in number, so that pieces, which are of pairs, do not come out even: the last row too. */
static void odd_rows(void **state) {
    (void)state;
    enum { H = 81, W = 61, C = 32, TAPS = 27 };
    lb_ctx *ctx = test_ctx();
    test_graph t = {.state = 5, .g = {.name = "odd", .classes = CLASSES, .ntensors = 3, .nlayers = 2}};
    t.g.tensors = t.tensors, t.g.layers = t.layers;
    t.tensors[0] = (lbrt_tensor){H, W, 3, LBRT_U8, 0, 255};
    t.tensors[1] = (lbrt_tensor){H, W, C, LBRT_I32, -255 * TAPS, 255 * TAPS};
    t.tensors[2] = (lbrt_tensor){1, 1, CLASSES, LBRT_I32, INT32_MIN, INT32_MAX};
    for (int i = 0; i < 2; i++) {
        const size_t count = i ? (size_t)H * W * C : TAPS, oc = i ? CLASSES : C, bytes = oc * lbrt_packed_bytes((int32_t)count, 1);
        uint8_t *packed = test_block(&t, bytes, 1);
        for (size_t k = 0; k < bytes; k++)
            packed[k] = (uint8_t)test_bits(&t);
        for (size_t o = 1; o <= oc && count % 8; o++)
            packed[o * (bytes / oc) - 1] &= (uint8_t)((1 << count % 8) - 1);
        t.layers[i] = (lbrt_layer){.op = LBRT_OP_CONV, .src = i, .dst = i + 1, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .groups = 1,
                                   .flat = i, .weights = {.bits = 1, .mul = 2, .add = -1, .packed = packed}};
    }
    t.layers[0].kh = t.layers[0].kw = 3;
    t.layers[0].pt = t.layers[0].pl = t.layers[0].pb = t.layers[0].pr = 1;
    unsigned char *bytes;
    size_t size;
    lbrt_info info;
    lbrt_model *model;
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, NULL, 0, &bytes, &size));
    assert_int_equal(lbrt_probe(bytes, size, &info), LBRT_OK);
    void *memory = malloc(info.model_size);
    assert_int_equal(lbrt_open(bytes, size, memory, info.model_size, &model), LBRT_OK);
    uint8_t image[H * W * 3];
    int32_t want[CLASSES], got[CLASSES];
    for (size_t i = 0; i < sizeof image; i++)
        image[i] = (uint8_t)test_bits(&t);
    for (int count = 1; count <= 4; count++) {
        caller user = {0};
        const lbrt_threads threads = {count, parallel_for, &user};
        const size_t need = lbrt_arena_size_threads(model, 1, count);
        void *arena = malloc(need);
        memset(arena, 0x5a, need);
        assert_int_equal(lbrt_run_threads(model, image, 1, arena, need, count > 1 ? got : want, &threads), LBRT_OK);
        assert_true(count == 1 || (user.most == count && !memcmp(got, want, sizeof want)));
        free(arena);
    }
    free(memory);
    lb_free(ctx, bytes);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
}

static void wrong_arguments(void **state) {
    (void)state;
    lb_ctx *ctx;
    test_graph t;
    unsigned char *bytes;
    size_t size;
    lbrt_info info;
    lbrt_model *model;
    assert_int_equal(lb_ctx_create(NULL, &ctx), LB_OK);
    random_graph(&t, 1);
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, NULL, 0, &bytes, &size));
    assert_int_equal(lbrt_probe(bytes, size, &info), LBRT_OK);
    void *memory = malloc(info.model_size);
    assert_int_equal(lbrt_open(bytes, size, memory, info.model_size, &model), LBRT_OK);
    assert_int_equal(lbrt_arena_size_threads(model, 1, 0), 0);
    assert_int_equal(lbrt_arena_size_threads(model, 1, -1), 0);
    const size_t need = lbrt_arena_size_threads(model, 1, 2);
    void *arena = malloc(need);
    uint8_t *image = calloc(lbrt_elements(&t.tensors[0]), 1);
    int32_t scores[CLASSES];
    const lbrt_threads none = {0, parallel_for, NULL}, nothing = {2, NULL, NULL};
    assert_int_equal(lbrt_run_threads(model, image, 1, arena, need, scores, &none), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_run_threads(model, image, 1, arena, need, scores, &nothing), LBRT_ERR_ARGUMENT);
    /* Whatever the arena's size: what is NULL is said first. */
    for (size_t given = 0; given <= need; given += need) {
        assert_int_equal(lbrt_run_threads(model, image, 1, arena, given, scores, &nothing), LBRT_ERR_ARGUMENT);
        assert_int_equal(lbrt_run(model, image, 1, NULL, given, scores), LBRT_ERR_ARGUMENT);
        assert_int_equal(lbrt_run(model, NULL, 1, arena, given, scores), LBRT_ERR_ARGUMENT);
        assert_int_equal(lbrt_run(model, image, 1, arena, given, NULL), LBRT_ERR_ARGUMENT);
        assert_int_equal(lbrt_run(model, image, 0, arena, given, scores), LBRT_ERR_ARGUMENT);
        assert_int_equal(lbrt_run(NULL, image, 1, arena, given, scores), LBRT_ERR_ARGUMENT);
    }
    assert_int_equal(lbrt_run(model, image, 1, arena, 0, scores), LBRT_ERR_MEMORY);
    free(image);
    free(arena);
    free(memory);
    lb_free(ctx, bytes);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
}

/* The scores of a packed model, on a context of its own. */
static void scores_of(const unsigned char *bytes, size_t size, int threads, const uint8_t *images, int32_t *scores) {
    lb_ctx *ctx;
    lb_packed *model;
    const lb_ctx_options options = {.threads = threads};
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
    unsigned char *copy = lb_alloc(ctx, size, 1);
    memcpy(copy, bytes, size);
    assert_ok(ctx, lb_packed_from_memory(ctx, "random", copy, size, &model));
    assert_ok(ctx, lb_packed_scores(model, images, MB, scores));
    lb_packed_destroy(model);
    lb_ctx_destroy(ctx);
}

/* As lowbit.h says: a context of one thread works where the parent's threads are not. */
static void after_fork(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    test_graph t;
    unsigned char *bytes;
    size_t size;
    int32_t want[MB * CLASSES], got[MB * CLASSES];
    random_graph(&t, 2);
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, NULL, 0, &bytes, &size));
    uint8_t *images = calloc(MB, lbrt_elements(&t.tensors[0]));
    scores_of(bytes, size, 2, images, want);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        scores_of(bytes, size, 1, images, got);
        _exit(memcmp(want, got, sizeof want) != 0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    free(images);
    lb_free(ctx, bytes);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_scores), cmocka_unit_test(odd_rows),
                                       cmocka_unit_test(wrong_arguments), cmocka_unit_test(after_fork)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

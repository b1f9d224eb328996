/* Generated C against the reference runtime: random graphs in every weight format, compiled as strictly as promised, bit for
 * bit. */
#include "deploy/codegen/codegen.h"
#include "deploy/compiled.h"
#include "graphs.h"

#define IMAGES 4

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZERS "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"
#else
#define SANITIZERS "-fno-common"
#endif
static const char *const flags[] = {"-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", SANITIZERS, NULL};

static lb_packed *open_graph(lb_ctx *ctx, const lbrt_graph *graph) {
    unsigned char *bytes;
    size_t size;
    lb_packed *model;
    assert_ok(ctx, lb_pack_graph(ctx, graph, NULL, 0, &bytes, &size));
    assert_ok(ctx, lb_packed_from_memory(ctx, "random", bytes, size, &model));
    assert_ok(ctx, lb_packed_set_isa(model, LBRT_ISA_REF));
    return model;
}

static void check(lb_ctx *ctx, test_graph *t, const char *format, int round) {
    const size_t image = lbrt_elements(&t->tensors[0]), classes = (size_t)t->g.classes;
    /* Exactly as large as needed: reading or writing beyond is the sanitizer's to see. */
    uint8_t *pixels = malloc(IMAGES * image);
    int32_t *want = malloc(IMAGES * classes * sizeof *want), *got = malloc(IMAGES * classes * sizeof *got);
    assert_true(pixels && want && got);
    for (size_t i = 0; i < IMAGES * image; i++)
        pixels[i] = (uint8_t)test_bits(t);
    lb_packed *model = open_graph(ctx, &t->g);
    lb_compiled *compiled;
    assert_ok(ctx, lb_compiled_create(model, flags, &compiled));
    assert_non_null(compiled);
    assert_ok(ctx, lb_packed_scores(model, pixels, IMAGES, want));
    lb_compiled_scores(compiled, pixels, IMAGES, got);
    for (size_t i = 0; i < IMAGES * classes; i++)
        if (want[i] != got[i])
            fail_msg("%s, round %d: score %zu is %d in ref and %d in generated C", format, round, i, want[i], got[i]);
    lb_compiled_destroy(compiled);
    lb_packed_destroy(model);
    free(pixels), free(want), free(got);
}

/* What the random graphs made of packed_conv.h: convolutions, those of two pixels in a half, those whose sums are taken apart on
 * the way. */
static int npacked, nshared, nchunked;

/* Layers of each operator. */
static int nlayers[LBRT_OPS];

static void count_kernels(const lbrt_graph *graph) {
    for (int i = 0; i < graph->nlayers; i++) {
        lb_packing p;
        nlayers[graph->layers[i].op]++;
        if (!lb_codegen_packing(graph, i, &p))
            continue;
        npacked++;
        nshared += p.lane > 0;
        nchunked += p.chunk < p.words;
    }
}

static bool has_chunks(const lbrt_graph *graph) {
    lb_packing p;
    for (int i = 0; i < graph->nlayers; i++)
        if (lb_codegen_packing(graph, i, &p) && p.chunk < p.words)
            return true;
    return false;
}

static void random_graphs(void **state) {
    const test_weights *format = *state;
    lb_ctx *ctx = test_ctx();
    for (int round = 0; round < 3; round++) {
        test_graph t;
        uint64_t seed = (uint64_t)(round + 1) * 1000 + (uint64_t)(format - weight_formats);
        test_graph_random(&t, seed, format, 8);
        for (int tries = 0; round == 0 && tries < 60 && !has_chunks(&t.g); tries++) { /* they are rare */
            test_graph_free(&t);
            test_graph_random(&t, seed += 5000, format, 8);
        }
        count_kernels(&t.g);
        check(ctx, &t, format->name, round);
        test_graph_free(&t);
    }
    lb_ctx_destroy(ctx);
}

static void all_kernels_ran(void **state) {
    (void)state;
    if (getenv("LB_TEST_VERBOSE"))
        printf("%d packed, %d of two pixels in a half, %d in chunks\n", npacked, nshared, nchunked);
    for (int op = 0; op < LBRT_OPS; op++)
        if (nlayers[op] < 5)
            fail_msg("operator %d has %d layers only", op, nlayers[op]);
    assert_true(npacked - nshared > 5 && nshared - nchunked > 5 && nchunked > 2);
}

int main(void) {
    struct CMUnitTest tests[LB_COUNT(weight_formats) + 1];
    for (size_t i = 0; i < LB_COUNT(weight_formats); i++) {
        union {
            const test_weights *from;
            void *to;
        } f = {&weight_formats[i]};
        tests[i] = (struct CMUnitTest){.name = weight_formats[i].name, .test_func = random_graphs, .initial_state = f.to};
    }
    tests[LB_COUNT(weight_formats)] = (struct CMUnitTest)cmocka_unit_test(all_kernels_ran);
    return _cmocka_run_group_tests("codegen", tests, LB_COUNT(tests), NULL, NULL);
}

/* Generated C against the reference runtime: random graphs in every weight format, compiled as strictly as promised, bit for
 * bit. */
#include "comma_locale.h"
#include "deploy/codegen/codegen.h"
#include "deploy/compiled.h"
#include "epilogue.h"
#include "graphs.h"

#define IMAGES 4

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZERS "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"
#else
#define SANITIZERS "-fno-common"
#endif
static const char *const flags[] = {"-O1",        "-Wall",         "-Wextra",      "-Werror",  "-pedantic",
                                    "-Wshadow", "-Wconversion", "-Wcast-align", SANITIZERS, NULL};

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
 * the way. Others of depthwise.h, and epilogues of lines, alone and with a residual. */
static int npacked, nshared, nchunked, ndepthwise, nlines, nresidual;

/* Layers of each operator. */
static int nlayers[LBRT_OPS];

static void count_kernels(const lbrt_graph *graph) {
    for (int i = 0; i < graph->nlayers; i++) {
        lb_packing p;
        nlayers[graph->layers[i].op]++;
        ndepthwise += lb_codegen_is_depthwise(graph, i);
        if (!lb_codegen_packing(graph, i, &p))
            continue;
        npacked++;
        nshared += p.lane > 0;
        nchunked += p.chunk < p.words;
    }
}

/* Lines against the reference's epilogue, at accumulators from all over the channel's range and next to each other. */
static void check_line(const lbrt_graph *graph, int i, const lb_lines *lines, int32_t c, int32_t r) {
    const lbrt_layer *l = &graph->layers[i];
    const lbrt_tensor *dst = &graph->tensors[i + 1];
    const lbrt_tensor *res = l->epilogue.flags & LBRT_RESIDUAL ? &graph->tensors[l->epilogue.residual] : NULL;
    const lbrt_site site = {l, &graph->tensors[l->src], dst, res};
    int32_t lo, hi;
    int32_t v[1024] = {0};
    uint8_t codes[1024], residual[1024] = {0};
    assert_in_range(dst->c, 1, 1024);
    assert_true(lbrt_source_range(l, site.src, c, &lo, &hi));
    residual[c] = (uint8_t)r;
    const int64_t stride = ((int64_t)hi - lo) / 2000 + 1;
    for (int64_t at = lo; at <= hi; at += stride) {
        memset(v, 0, sizeof v);
        v[c] = (int32_t)at;
        lbrt_epilogue_row(&site, v, residual, codes, 0);
        const int32_t high = (int32_t)((at * lines->unit * lines->line[c].mul) >> 32);
        const int32_t code = (high + r * lines->res_mul + lines->line[c].add) >> lines->down;
        const int32_t want = dst->type == LBRT_I8 ? (int8_t)codes[c] : codes[c];
        if (want != (lbrt_clamp(code, lines->qlo, lines->qhi) | lines->sign))
            fail_msg("layer %d, channel %d, accumulator %lld: code %d, by the line %d", i, c, (long long)at, want, code);
    }
}

static void check_lines(lb_ctx *ctx, const lbrt_graph *graph) {
    lb_generator g = {.ctx = ctx, .graph = graph};
    lb_pool_init(&g.pool, ctx);
    for (int i = 0; i < graph->nlayers; i++) {
        lb_lines lines;
        assert_ok(ctx, lb_find_lines(&g, i, &lines));
        if (!lines.line)
            continue;
        const bool residual = graph->layers[i].epilogue.flags & LBRT_RESIDUAL;
        const lbrt_tensor *res = residual ? &graph->tensors[graph->layers[i].epilogue.residual] : NULL;
        nlines += !residual;
        nresidual += residual;
        for (int32_t c = 0; c < graph->tensors[i + 1].c; c++)
            for (int32_t r = res ? res->lo : 0; r <= (res ? res->hi : 0); r++)
                check_line(graph, i, &lines, c, r);
    }
    lb_pool_free(&g.pool);
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
        check_lines(ctx, &t.g);
        check(ctx, &t, format->name, round);
        test_graph_free(&t);
    }
    lb_ctx_destroy(ctx);
}

/* Constants of C have a point, whatever the locale. */
static void comma_locale(void **state) {
    (void)state;
    if (!set_comma_locale())
        return;
    lb_ctx *ctx = test_ctx();
    test_graph t;
    test_graph_random(&t, 1, &weight_formats[LB_COUNT(weight_formats) - 1], 8);
    check(ctx, &t, "comma", 0);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
    setlocale(LC_ALL, "C");
}

/* Random graphs rarely have them: these are looked for. */
static void lines_with_residual(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int seed = 1; nresidual < 3 && seed < 2000; seed++) {
        const int before = nresidual;
        test_graph t;
        test_graph_random(&t, (uint64_t)seed, &weight_formats[seed % 5], 8);
        check_lines(ctx, &t.g);
        if (nresidual > before)
            check(ctx, &t, "lines", seed);
        test_graph_free(&t);
    }
    lb_ctx_destroy(ctx);
}

/* Checks five random graphs of the kind that `has` looks for. */
static void check_graphs_with(bool (*has)(const lbrt_graph *), const char *what) {
    lb_ctx *ctx = test_ctx();
    int found = 0;
    for (int seed = 1; found < 5 && seed < 20000; seed++) {
        test_graph t;
        test_graph_random(&t, (uint64_t)seed, &weight_formats[seed % 5], 4);
        if (has(&t.g)) {
            check(ctx, &t, what, seed);
            found++;
        }
        test_graph_free(&t);
    }
    assert_int_equal(found, 5);
    lb_ctx_destroy(ctx);
}

static bool pads_codes_below_zero(const lbrt_graph *graph) {
    lb_packing p;
    for (int i = 0; i < graph->nlayers; i++) {
        const lbrt_layer *l = &graph->layers[i];
        if (lb_codegen_packing(graph, i, &p) && p.lane > 0 && graph->tensors[l->src].hi < 0 && l->pt + l->pl + l->pb + l->pr > 0)
            return true;
    }
    return false;
}

/* Padding, 0, is then larger than every code. */
static void codes_below_zero(void **state) {
    (void)state;
    check_graphs_with(pads_codes_below_zero, "codes below 0");
}

/* Strides and windows may be far wider than an image: then the plain kernel runs the layer. */
static void windows_beyond_memory(void **state) {
    (void)state;
    const lbrt_tensor tensors[] = {{1, 4, 128, LBRT_U8, 0, 1}, {1, 4, 16, LBRT_I32, 0, 0}};
    lbrt_layer layer = {.op = LBRT_OP_CONV, .src = 0, .dst = 1, .groups = 1, .kh = 3, .kw = 1, .sh = 1, .sw = 1,
                        .weights = {.bits = 1, .mul = 2, .add = -1}};
    const lbrt_graph graph = {.tensors = tensors, .layers = &layer, .ntensors = 2, .nlayers = 1, .classes = 16};
    lb_packing p;
    assert_true(lb_codegen_packing(&graph, 0, &p));
    layer.kh = layer.sw = 65535;
    assert_false(lb_codegen_packing(&graph, 0, &p));
}

static bool has_one_row(const lbrt_graph *graph) {
    lbrt_tensor image, result;
    lb_packing p;
    for (int i = 0; i < graph->nlayers; i++) {
        lb_codegen_images(graph, i, &image, &result);
        if (lb_codegen_packing(graph, i, &p) && result.h < graph->tensors[i + 1].h)
            return true;
    }
    return false;
}

/* All pixels are one row, unless the window steps over some or beyond them. */
static void pointwise_in_one_row(void **state) {
    (void)state;
    lbrt_tensor tensors[] = {{5, 3, 8, LBRT_U8, 0, 3}, {5, 3, 16, LBRT_I32, 0, 0}}, image, result;
    lbrt_layer layer = {.op = LBRT_OP_CONV, .src = 0, .dst = 1, .groups = 1, .kh = 1, .kw = 1, .sh = 1, .sw = 1,
                        .weights = {.bits = 2, .mul = 1, .add = -2}};
    const lbrt_graph graph = {.tensors = tensors, .layers = &layer, .ntensors = 2, .nlayers = 1, .classes = 16};
    lb_packing p;
    lb_codegen_images(&graph, 0, &image, &result);
    assert_true(image.h == 1 && image.w == 15 && result.h == 1 && result.w == 15);
    assert_true(lb_codegen_packing(&graph, 0, &p) && p.lane > 0 && p.span == 4);
    layer.pb = 1;
    tensors[1].h = 6;
    lb_codegen_images(&graph, 0, &image, &result);
    assert_true(image.h == 5 && image.w == 3 && result.h == 6 && result.w == 3);
    layer.pb = 0, layer.sh = 2;
    tensors[1].h = 3;
    lb_codegen_images(&graph, 0, &image, &result);
    assert_true(image.h == 5 && image.w == 3 && result.h == 3 && result.w == 3);
    check_graphs_with(has_one_row, "one row");
}

static bool has_one_column(const lbrt_graph *graph) {
    lb_packing p;
    for (int i = 0; i < graph->nlayers; i++)
        if (lb_codegen_packing(graph, i, &p) && p.tile_columns == 1)
            return true;
    return false;
}

/* Linear layers: one pixel fills a tile of one column, and does not share halves with another. */
static void tiles_of_one_column(void **state) {
    (void)state;
    const lbrt_tensor tensors[] = {{5, 3, 8, LBRT_U8, 0, 3}, {1, 1, 16, LBRT_I32, 0, 0}};
    const lbrt_layer layer = {.op = LBRT_OP_CONV, .src = 0, .dst = 1, .groups = 1, .flat = 1, .kh = 1, .kw = 1, .sh = 1, .sw = 1,
                              .weights = {.bits = 2, .mul = 1, .add = -2}};
    const lbrt_graph graph = {.tensors = tensors, .layers = &layer, .ntensors = 2, .nlayers = 1, .classes = 16};
    lb_packing p;
    assert_true(lb_codegen_packing(&graph, 0, &p) && p.tile_columns == 1 && p.lane == 0);
    check_graphs_with(has_one_column, "one column");
}

/* Bytes of the tensors in the arena while layer i runs, and of what its kernel works in. */
static size_t needed(const lbrt_graph *graph, int i) {
    size_t bytes = lb_codegen_scratch(graph, i, false);
    for (int t = 1; t < graph->ntensors - 1; t++) {
        bool there = t == i + 1;
        for (int l = i; l < graph->nlayers; l++)
            for (int32_t k = 0, from; (from = lbrt_layer_reads(&graph->layers[l], k)) >= 0; k++)
                there = there || (from == t && t <= i);
        bytes += there ? lbrt_tensor_bytes(&graph->tensors[t]) : 0;
    }
    return bytes;
}

/* While the convolution runs, its result is where the first tensor was, its source behind that: the kernel works in between, where
 * there is room to keep rows. */
static void check_gap(lb_ctx *ctx, int32_t stride) {
    static const uint8_t stored[4 * 36] = {1, 2, 3};
    test_graph t = {.tensors = {{32, 32, 16, LBRT_U8, 0, 255}, {16, 16, 16, LBRT_U8, 0, 0}, {8, 8, 16, LBRT_U8, 0, 0},
                                {8 / stride, 8 / stride, 4, LBRT_I32, 0, 0}, {1, 1, 4, LBRT_I32, 0, 0}},
                    .state = 1};
    size_t most = 0;
    t.g = (lbrt_graph){.name = "gap", .classes = 4, .ntensors = 5, .nlayers = 4, .tensors = t.tensors, .layers = t.layers};
    for (int i = 0; i < t.g.nlayers; i++) {
        const int side = t.tensors[i].h / t.tensors[i + 1].h;
        t.layers[i] = (lbrt_layer){.op = LBRT_OP_MAXPOOL, .src = i, .dst = i + 1, .groups = 1, .kh = side, .kw = side, .sh = side,
                                   .sw = side};
        if (i == 2)
            t.layers[i] = (lbrt_layer){.op = LBRT_OP_CONV, .src = i, .dst = i + 1, .groups = 1, .kh = 3, .kw = 3, .sh = stride,
                                       .sw = stride, .pt = 1, .pl = 1, .pb = 1, .pr = 1,
                                       .weights = {.bits = 2, .mul = 1, .add = -2, .packed = stored}};
        assert_true(lbrt_layer_range(&t.g, i, &t.tensors[i + 1].lo, &t.tensors[i + 1].hi));
        most = LB_MAX(most, needed(&t.g, i));
    }
    char dir[] = "/tmp/lowbit-arena-XXXXXX", command[128];
    lb_packed *model = open_graph(ctx, &t.g);
    lb_codegen_info info;
    assert_non_null(mkdtemp(dir));
    assert_ok(ctx, lb_codegen_sources(model, dir, &info));
    snprintf(command, sizeof command, "grep -q 'keeps = %d' %s/model.c && rm -r %s", (int)(3 - stride), dir, dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(info.arena, most);
    lb_packed_destroy(model);
    check(ctx, &t, "gap", stride);
}

static void scratch_between_tensors(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    check_gap(ctx, 1);
    check_gap(ctx, 2);
    lb_ctx_destroy(ctx);
}

/* Bytes of the frames of model_run, the largest kernel, and the largest function below that, as the compiler says; 0: there is
 * no such compiler. */
static int stack_of(lb_ctx *ctx, lb_packed *model, const char *compiler) {
    char dir[] = "/tmp/lowbit-stack-XXXXXX", command[512], path[64], line[512];
    int run = 0, kernel = 0, below = 0, bytes;
    assert_non_null(mkdtemp(dir));
    assert_ok(ctx, lb_codegen_sources(model, dir, NULL));
    snprintf(command, sizeof command,
             "cd %s && command -v %s >/dev/null && %s -std=c99 -ffreestanding -fstack-usage -c model.c -o model.o", dir,
             strtok(strcpy(line, compiler), " "), compiler);
    const bool compiled = system(command) == 0;
    snprintf(path, sizeof path, "%s/model.su", dir);
    FILE *file = compiled ? fopen(path, "r") : NULL;
    assert_true(!compiled || file);
    while (file && fgets(line, sizeof line, file)) {
        const char *name = strrchr(strtok(line, "\t"), ':') + 1;
        assert_int_equal(sscanf(strtok(NULL, "\t"), "%d", &bytes), 1);
        int *const most = !strcmp(name, "model_run") ? &run : !strncmp(name, "run_", 4) ? &kernel : &below;
        *most = LB_MAX(*most, bytes);
    }
    if (file)
        fclose(file);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    return compiled ? run + kernel + below : 0;
}

/* What docs/codegen.md promises. Cortex-M0+ has few registers, and no SMLAD: its loops keep a lot in memory unless they are told to
 * be small. Pointers of the machine that tests run on are twice as long. */
static void check_stack(lb_ctx *ctx, const lbrt_graph *graph) {
    static const struct {
        const char *compiler;
        int less_than;
    } machines[] = {{"arm-none-eabi-gcc -mthumb -mcpu=cortex-m4 -O2", 512},
                    {"arm-none-eabi-gcc -mthumb -mcpu=cortex-m3 -O2", 512},
                    {"arm-none-eabi-gcc -mthumb -mcpu=cortex-m0plus -Os", 512},
                    {"arm-none-eabi-gcc -mthumb -mcpu=cortex-m0plus -O2", 1024},
                    {"gcc -O2", 1024}};
    lb_packed *model = open_graph(ctx, graph);
    for (size_t i = 0; i < LB_COUNT(machines); i++) {
        const int bytes = stack_of(ctx, model, machines[i].compiler);
        if (getenv("LB_TEST_VERBOSE"))
            printf("%s: %d bytes of stack by %s\n", graph->name, bytes, machines[i].compiler);
        assert_in_range(bytes, 0, machines[i].less_than - 1);
    }
    lb_packed_destroy(model);
}

/* The stack does not grow with the number of layers that have lists of sources. */
static void stack_of_many_lists(void **state) {
    (void)state;
    enum { COPIES = 60, PRODUCTS = 60, LAYERS = COPIES + PRODUCTS + 2 };
    static lbrt_tensor tensors[LAYERS + 1];
    static lbrt_layer layers[LAYERS];
    lbrt_part parts[LBRT_MAX_SOURCES];
    lb_ctx *ctx = test_ctx();
    const lbrt_graph graph = {.name = "lists", .classes = LBRT_MAX_SOURCES, .ntensors = LAYERS + 1, .nlayers = LAYERS,
                              .tensors = tensors, .layers = layers};
    for (int p = 0; p < LBRT_MAX_SOURCES; p++)
        parts[p] = (lbrt_part){p, p, p, 1};
    tensors[0] = (lbrt_tensor){4, 4, LBRT_MAX_SOURCES, LBRT_U8, 0, 255};
    for (int i = 0; i < LAYERS; i++) {
        lbrt_layer *l = &layers[i];
        *l = (lbrt_layer){.op = i < COPIES       ? LBRT_OP_COPY
                                : i == COPIES    ? LBRT_OP_POINT
                                : i < LAYERS - 1 ? LBRT_OP_MUL
                                                 : LBRT_OP_MAXPOOL,
                          .src = i, .dst = i + 1, .groups = 1, .kh = 1, .kw = 1, .sh = 1, .sw = 1};
        tensors[i + 1] = tensors[i];
        tensors[i + 1].type = i < COPIES ? LBRT_U8 : LBRT_I32;
        if (l->op == LBRT_OP_COPY)
            l->nparts = l->nsources = LBRT_MAX_SOURCES, l->parts = parts;
        else if (l->op == LBRT_OP_MUL)
            l->nsources = 2;
        else if (l->op == LBRT_OP_MAXPOOL)
            l->kh = l->kw = 4, tensors[i + 1].h = tensors[i + 1].w = 1;
        for (int k = 0; k < l->nsources; k++)
            l->sources[k] = l->op == LBRT_OP_COPY ? LB_MAX(i - k, 0) : LB_MAX(i - k, COPIES + 1);
        assert_true(lbrt_layer_range(&graph, i, &tensors[i + 1].lo, &tensors[i + 1].hi));
    }
    check_stack(ctx, &graph);
    lb_ctx_destroy(ctx);
}

/* The inner loop that is longest: 16 pairs in a word of weights. */
static void stack_of_one_bit(void **state) {
    (void)state;
    static const uint8_t zeros[72];
    lbrt_tensor tensors[] = {{4, 4, 64, LBRT_U8, 0, 255}, {2, 2, 1, LBRT_I32, 0, 0}, {1, 1, 1, LBRT_I32, 0, 0}};
    const lbrt_layer layers[] = {{.op = LBRT_OP_CONV, .src = 0, .dst = 1, .groups = 1, .kh = 3, .kw = 3, .sh = 1, .sw = 1,
                                  .weights = {.bits = 1, .mul = 2, .add = -1, .packed = zeros}},
                                 {.op = LBRT_OP_MAXPOOL, .src = 1, .dst = 2, .groups = 1, .kh = 2, .kw = 2, .sh = 2, .sw = 2}};
    const lbrt_graph graph = {.name = "one bit", .classes = 1, .ntensors = 3, .nlayers = 2, .tensors = tensors, .layers = layers};
    for (int i = 0; i < graph.nlayers; i++)
        assert_true(lbrt_layer_range(&graph, i, &tensors[i + 1].lo, &tensors[i + 1].hi));
    lb_ctx *ctx = test_ctx();
    check_stack(ctx, &graph);
    lb_ctx_destroy(ctx);
}

static void all_kernels_ran(void **state) {
    (void)state;
    if (getenv("LB_TEST_VERBOSE"))
        printf("%d packed, %d of two pixels in a half, %d in chunks, %d depthwise, %d of lines, %d with a residual\n", npacked,
               nshared, nchunked, ndepthwise, nlines, nresidual);
    for (int op = 0; op < LBRT_OPS; op++)
        if (nlayers[op] < 5)
            fail_msg("operator %d has %d layers only", op, nlayers[op]);
    assert_true(npacked - nshared > 5 && nshared - nchunked > 5 && nchunked > 2);
    assert_true(ndepthwise > 2 && nlines > 10 && nresidual > 0);
}

int main(void) {
    struct CMUnitTest tests[LB_COUNT(weight_formats) + 10];
    for (size_t i = 0; i < LB_COUNT(weight_formats); i++) {
        union {
            const test_weights *from;
            void *to;
        } f = {&weight_formats[i]};
        tests[i] = (struct CMUnitTest){.name = weight_formats[i].name, .test_func = random_graphs, .initial_state = f.to};
    }
    tests[LB_COUNT(weight_formats)] = (struct CMUnitTest)cmocka_unit_test(lines_with_residual);
    tests[LB_COUNT(weight_formats) + 1] = (struct CMUnitTest)cmocka_unit_test(all_kernels_ran);
    tests[LB_COUNT(weight_formats) + 2] = (struct CMUnitTest)cmocka_unit_test(comma_locale);
    tests[LB_COUNT(weight_formats) + 3] = (struct CMUnitTest)cmocka_unit_test(windows_beyond_memory);
    tests[LB_COUNT(weight_formats) + 4] = (struct CMUnitTest)cmocka_unit_test(codes_below_zero);
    tests[LB_COUNT(weight_formats) + 5] = (struct CMUnitTest)cmocka_unit_test(stack_of_many_lists);
    tests[LB_COUNT(weight_formats) + 6] = (struct CMUnitTest)cmocka_unit_test(stack_of_one_bit);
    tests[LB_COUNT(weight_formats) + 7] = (struct CMUnitTest)cmocka_unit_test(scratch_between_tensors);
    tests[LB_COUNT(weight_formats) + 8] = (struct CMUnitTest)cmocka_unit_test(pointwise_in_one_row);
    tests[LB_COUNT(weight_formats) + 9] = (struct CMUnitTest)cmocka_unit_test(tiles_of_one_column);
    return _cmocka_run_group_tests("codegen", tests, LB_COUNT(tests), NULL, NULL);
}

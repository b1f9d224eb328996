/* Packed, loaded, run: random graphs give what model.h says, bit for bit; files and memory at any alignment; sizes and limits
 * respected. */
#include "graphs.h"

#include "deploy/packed.h"

#define IMAGES 3

static const lb_pack_note notes[] = {{"data", "fashion-mnist"}, {"recipe", "lenet5 w2a2"}, {"empty", ""}};

typedef struct opened {
    unsigned char *file;
    void *memory;
    lbrt_model *model;
    lbrt_info info;
} opened;

/* Opens a copy of the bytes at an odd place, in memory at an odd place, both exactly as large as asked for. */
static opened open_copy(const unsigned char *bytes, size_t size, size_t file_shift, size_t memory_shift) {
    opened o;
    o.file = malloc(size + file_shift);
    assert_non_null(o.file);
    memcpy(o.file + file_shift, bytes, size);
    assert_int_equal(lbrt_probe(o.file + file_shift, size, &o.info), LBRT_OK);
    o.memory = malloc(o.info.model_size + memory_shift);
    assert_non_null(o.memory);
    memset(o.memory, 0xa5, o.info.model_size + memory_shift);
    assert_int_equal(lbrt_open(o.file + file_shift, size, (char *)o.memory + memory_shift, o.info.model_size - 1, &o.model),
                     LBRT_ERR_MEMORY);
    assert_int_equal(lbrt_open(o.file + file_shift, size, (char *)o.memory + memory_shift, o.info.model_size, &o.model), LBRT_OK);
    return o;
}

static void close_copy(opened *o) {
    free(o->file);
    free(o->memory);
}

static void run_copy(const opened *o, const uint8_t *images, int mb, size_t shift, int32_t *scores) {
    const size_t size = lbrt_arena_size(o->model, mb);
    assert_true(size > 0);
    char *arena = malloc(size + shift);
    assert_non_null(arena);
    memset(arena, 0x5a, size + shift);
    assert_int_equal(lbrt_run(o->model, images, mb, arena + shift, size - 1, scores), LBRT_ERR_MEMORY);
    assert_int_equal(lbrt_run(o->model, images, mb, arena + shift, size, scores), LBRT_OK);
    free(arena);
}

/* Packs, opens, runs in one batch and one by one, compares with the plain reading of model.h. */
static void check_graph_runs(lb_ctx *ctx, test_graph *t, const char *what, uint64_t seed) {
    unsigned char *bytes;
    size_t size;
    assert_ok(ctx, lb_pack_graph(ctx, &t->g, notes, LB_COUNT(notes), &bytes, &size));
    const size_t pixels = lbrt_elements(&t->g.tensors[0]), classes = (size_t)t->g.classes;
    uint8_t *images = malloc(IMAGES * pixels);
    int32_t *expected = calloc(IMAGES * classes, sizeof *expected), *got = calloc(IMAGES * classes, sizeof *got);
    assert_true(images && expected && got);
    for (size_t i = 0; i < IMAGES * pixels; i++)
        images[i] = i < pixels ? 255 : (uint8_t)test_bits(t);
    for (size_t n = 0; n < IMAGES; n++)
        plain_run(&t->g, images + n * pixels, expected + n * classes);
    for (size_t shift = 0; shift < 4; shift += 3) {
        opened o = open_copy(bytes, size, shift, shift * 5);
        memset(got, 1, IMAGES * classes * sizeof *got);
        run_copy(&o, images, IMAGES, shift, got);
        for (size_t i = 0; i < IMAGES * classes; i++)
            if (got[i] != expected[i])
                fail_msg("%s, seed %d: score %d is %d, not %d", what, (int)seed, (int)i, (int)got[i], (int)expected[i]);
        memset(got, 1, IMAGES * classes * sizeof *got);
        for (size_t n = 0; n < IMAGES; n++)
            run_copy(&o, images + n * pixels, 1, shift, got + n * classes);
        assert_memory_equal(got, expected, IMAGES * classes * sizeof *got);

        /* Packing the loaded graph gives the same file again. */
        unsigned char *again;
        size_t again_size;
        assert_ok(ctx, lb_pack_graph(ctx, lbrt_model_graph(o.model), notes, LB_COUNT(notes), &again, &again_size));
        assert_int_equal(again_size, size);
        assert_memory_equal(again, bytes, size);
        lb_free(ctx, again);
        close_copy(&o);
    }
    free(images);
    free(expected);
    free(got);
    lb_free(ctx, bytes);
}

static void random_graphs(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (size_t f = 0; f < LB_COUNT(weight_formats); f++)
        for (uint64_t seed = 0; seed < 120; seed++) {
            test_graph t;
            test_graph_random(&t, seed * 64 + f, &weight_formats[f], 1 + (int)(seed % 6));
            check_graph_runs(ctx, &t, weight_formats[f].name, seed);
            test_graph_free(&t);
        }
    lb_ctx_destroy(ctx);
}

/* Residuals scaled by whole numbers, which no shift follows. */
static void whole_residuals(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    int checked = 0;
    for (uint64_t seed = 0; checked < 12; seed++) {
        test_graph t;
        int scaled = 0;
        test_graph_random(&t, seed + 9000, &weight_formats[seed % LB_COUNT(weight_formats)], 4);
        for (int i = 0; i < t.g.nlayers; i++) {
            lbrt_epilogue *e = &t.layers[i].epilogue;
            if (t.layers[i].is_float || !(e->flags & LBRT_RESIDUAL) || !(e->flags & LBRT_CODE) || e->flags & LBRT_THRESHOLDS)
                continue; /* the range of codes is stated whatever comes in */
            e->res = (lbrt_requant){.mul = test_in(&t, -3000, 3000), .add = test_in(&t, -3000, 3000), .shift = 0};
            scaled = 1;
        }
        if (scaled)
            check_graph_runs(ctx, &t, "whole residuals", seed);
        checked += scaled;
        test_graph_free(&t);
        assert_true(seed < 4000);
    }
    lb_ctx_destroy(ctx);
}

/* An epilogue of affine, clamp and code becomes thresholds by asking it about every accumulator value: the same scores must come
 * out. */
static void thresholds_equal_affine_and_code(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    int flipped = 0, compared = 0;
    for (uint64_t seed = 0; seed < 1500; seed++) {
        test_graph t;
        test_graph_random(&t, seed + 5000, &weight_formats[seed % 6], 4);
        for (int i = 0; i < t.g.nlayers; i++) {
            lbrt_layer *l = &t.layers[i];
            lbrt_epilogue *e = &l->epilogue;
            if (l->op != LBRT_OP_CONV || l->is_float || e->flags & (LBRT_RESIDUAL | LBRT_THRESHOLDS) || !(e->flags & LBRT_CODE) ||
                !(e->flags & LBRT_AFFINE) || (!(e->flags & LBRT_SIGN) && (int64_t)e->qhi - e->qlo > 15))
                continue;
            const int channels = t.tensors[i + 1].c, sign = (e->flags & LBRT_SIGN) != 0, n = sign ? 1 : e->qhi - e->qlo;
            e->q.mul = e->q.mul < 0 ? -e->q.mul : e->q.mul;
            int32_t *thresholds = test_block(&t, (size_t)(channels * n), sizeof *thresholds);
            uint8_t *flip = test_block(&t, (size_t)channels, 1);
            int small = 1;
            for (int c = 0; c < channels; c++) {
                int32_t lo, hi;
                assert_true(lbrt_source_range(l, &t.tensors[l->src], c, &lo, &hi));
                if ((int64_t)hi - lo > 1 << 20) {
                    small = 0;
                    break;
                }
                flip[c] = e->requant[c].mul < 0;
                flipped += flip[c];
                int k = 0;
                for (int32_t s = 0; s <= hi - lo; s++) {
                    const int32_t v = flip[c] ? hi - s : lo + s;
                    const int64_t code = plain_epilogue(l, (test_value){v, 0}, c, NULL, NULL).i;
                    while (k < (sign ? (code + 1) / 2 : code - e->qlo))
                        thresholds[c * n + k++] = v;
                }
                while (k < n)
                    thresholds[c * n + k++] = flip[c] ? INT32_MIN : INT32_MAX;
            }
            if (!small)
                continue;
            lbrt_graph whole = t.g;
            int32_t before[8], after[8];
            uint8_t image[9 * 9 * 5];
            for (size_t b = 0; b < sizeof image; b++)
                image[b] = (uint8_t)test_bits(&t);
            plain_run(&whole, image, before);
            e->flags = LBRT_THRESHOLDS | (sign ? LBRT_SIGN : 0u);
            e->thresholds = thresholds;
            e->flip = flip;
            e->nthresholds = n;
            plain_run(&whole, image, after);
            assert_memory_equal(before, after, (size_t)t.g.classes * sizeof *before);
            check_graph_runs(ctx, &t, "thresholds", seed);
            compared++;
        }
        test_graph_free(&t);
    }
    if (compared < 30 || flipped < 100)
        fail_msg("only %d layers compared, %d channels flipped", compared, flipped);
    lb_ctx_destroy(ctx);
}

static void what_the_file_says(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    test_graph t;
    test_graph_random(&t, 7, &weight_formats[2], 3);
    static const char *const names[] = {"T-shirt", "b", "c", "d", "e", "f", "g"};
    t.g.class_names = names;
    unsigned char *bytes;
    size_t size;
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, notes, LB_COUNT(notes), &bytes, &size));
    opened o = open_copy(bytes, size, 1, 1);
    assert_string_equal(o.info.name, "random");
    assert_int_equal(o.info.classes, t.g.classes);
    assert_int_equal(o.info.ih, t.tensors[0].h);
    assert_int_equal(o.info.iw, t.tensors[0].w);
    assert_int_equal(o.info.ic, t.tensors[0].c);
    assert_int_equal(o.info.layers, t.g.nlayers);
    assert_string_equal(lbrt_class_name(o.model, 0), "T-shirt");
    assert_string_equal(lbrt_class_name(o.model, -1), "");
    assert_string_equal(lbrt_class_name(o.model, t.g.classes), "");
    assert_string_equal(lbrt_metadata(o.model, "data"), "fashion-mnist");
    assert_string_equal(lbrt_metadata(o.model, "empty"), "");
    assert_null(lbrt_metadata(o.model, "dat"));
    assert_null(lbrt_metadata(o.model, "datas"));
    const char *key, *value;
    assert_true(lbrt_metadata_at(o.model, 1, &key, &value));
    assert_string_equal(key, "recipe");
    assert_string_equal(value, "lenet5 w2a2");
    assert_false(lbrt_metadata_at(o.model, 3, &key, &value));
    assert_int_equal(lbrt_arena_size(o.model, 0), 0);
    assert_int_equal(lbrt_arena_size(o.model, -1), 0);
    assert_true(lbrt_arena_size(o.model, 1) > 0);
    int64_t layers[MAX_TEST_LAYERS], sum = 0;
    assert_ok(ctx, lb_pack_layer_sizes(ctx, &t.g, layers));
    for (int i = 0; i < t.g.nlayers; i++)
        sum += layers[i];
    assert_true(sum > 0 && sum < (int64_t)size && (int64_t)size - sum < 200);
    close_copy(&o);
    lb_free(ctx, bytes);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
}

/* ResNet-20's epilogues and weights: 2 bits must stay under 1/14 of the float network, everything counted. */
static void overhead_is_small(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    test_graph t = {.state = 1};
    const int widths[] = {16, 32, 64};
    double weights_total = 0, bytes_total = 0;
    for (int stage = 0; stage < 3; stage++)
        for (int residual = 0; residual < 2; residual++) {
            const int c = widths[stage];
            t.g = (lbrt_graph){"resnet", 10, NULL, 2, 1, t.tensors, t.layers};
            t.tensors[0] = (lbrt_tensor){8, 8, c, LBRT_U8, 0, 255};
            t.tensors[1] = (lbrt_tensor){8, 8, c, LBRT_U8, 0, 3};
            lbrt_layer *l = &t.layers[0];
            *l = (lbrt_layer){.op = LBRT_OP_CONV,
                              .dst = 1,
                              .kh = 3,
                              .kw = 3,
                              .sh = 1,
                              .sw = 1,
                              .pt = 1,
                              .pl = 1,
                              .pb = 1,
                              .pr = 1,
                              .groups = 1,
                              .name = "layer1.0.conv1"};
            test_random_weights(&t, l, &t.tensors[0], c, &weight_formats[3]);
            lbrt_epilogue *e = &l->epilogue;
            e->qhi = 3;
            if (residual) {
                e->flags = LBRT_AFFINE | LBRT_RESIDUAL | LBRT_CODE;
                lbrt_requant *q = test_block(&t, (size_t)c, sizeof *q);
                for (int i = 0; i < c; i++)
                    q[i] = (lbrt_requant){(int64_t)test_in(&t, -1000000, 1000000) * 2 + 1, test_in(&t, 1 << 29, 1 << 30), 40};
                for (int i = 0; i < c; i++)
                    q[i].add *= (int64_t)1 << 39;
                e->requant = q;
                e->res.shift = -1;
            } else {
                e->flags = LBRT_THRESHOLDS;
                e->nthresholds = 3;
                int32_t *v = test_block(&t, (size_t)(c * 3), sizeof *v);
                for (int i = 0; i < c * 3; i++)
                    v[i] = i % 3 * 300 - 300;
                e->thresholds = v;
            }
            int64_t bytes;
            assert_ok(ctx, lb_pack_layer_sizes(ctx, &t.g, &bytes));
            weights_total += 3.0 * 9 * c * c;
            bytes_total += 3.0 * (double)bytes;
        }
    if (4 * weights_total / bytes_total < 14)
        fail_msg("2-bit layers are only %.2f times smaller than float", 4 * weights_total / bytes_total);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
}

/* Graphs that break a rule: refused with the layer's name. */
static void refused_graphs(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int what = 0; what < 16; what++) {
        test_graph t;
        test_graph_random(&t, 11, &weight_formats[3], 1);
        const int last = t.g.nlayers - 1;
        lbrt_layer *l = &t.layers[last];
        lbrt_tensor *dst = &t.tensors[last + 1];
        assert_false(l->is_float);
        l->name = "the-last";
        int named = 1;
        lbrt_requant *q = test_block(&t, (size_t)dst->c, sizeof *q);
        memcpy(q, l->epilogue.requant, (size_t)dst->c * sizeof *q);
        switch (what) {
        case 0: dst->lo = dst->hi = 0; break;
        case 1: l->dst = last; break;
        case 2: l->src = last + 1; break;
        case 3: l->weights.bits = 9; break;
        case 4: l->weights.packed = NULL; break;
        case 5: l->groups = 1000; break;
        case 6: l->epilogue.flags |= LBRT_THRESHOLDS; break;
        case 7: l->epilogue.flags = 128; break;
        case 8: q[0].shift = 47, l->epilogue.requant = q; break;
        case 9: q[0].add = (int64_t)1 << 61, l->epilogue.requant = q; break;
        case 10: l->weights.mul = 20000; break;
        case 11: dst->w = 2, named = 0; break;
        case 12: l->name = "bell\a", named = 0; break;
        case 13: t.tensors[0].hi = 15, named = 0; break;
        case 14: /* thresholds that fall, and ones that rise where they are flipped */
        case 15: {
            int32_t *thresholds = test_block(&t, (size_t)dst->c * 2, sizeof *thresholds);
            uint8_t *flip = test_block(&t, (size_t)dst->c, 1);
            thresholds[2 * dst->c - (what == 14 ? 1 : 2)] = -3;
            flip[dst->c - 1] = what == 15;
            l->epilogue = (lbrt_epilogue){.flags = LBRT_THRESHOLDS, .qhi = 2, .nthresholds = 2};
            l->epilogue.thresholds = thresholds;
            l->epilogue.flip = flip;
            break;
        }
        default: break;
        }
        unsigned char *bytes = (unsigned char *)"";
        size_t size = 1;
        const lb_status status = lb_pack_graph(ctx, &t.g, NULL, 0, &bytes, &size);
        if (status != LB_ERR_UNSUPPORTED)
            fail_msg("case %d: status %d", what, (int)status);
        assert_null(bytes);
        if (named && strstr(lb_error(ctx), "'the-last'") == NULL)
            fail_msg("case %d: \"%s\" does not name the layer", what, lb_error(ctx));
        test_graph_free(&t);
    }
    lb_ctx_destroy(ctx);
}

static void out_of_memory(void **state) {
    (void)state;
    test_graph t;
    test_graph_random(&t, 3, &weight_formats[4], 6);
    for (long left = 1;; left++) {
        test_allocator a = {left, 0};
        lb_ctx *ctx = test_ctx_with(&a);
        if (ctx == NULL)
            continue;
        unsigned char *bytes;
        size_t size;
        const lb_status status = lb_pack_graph(ctx, &t.g, notes, 1, &bytes, &size);
        assert_true(status == LB_OK || status == LB_ERR_MEMORY);
        lb_free(ctx, bytes);
        lb_ctx_destroy(ctx);
        assert_int_equal(a.alive, 0);
        if (status == LB_OK)
            break;
    }
    test_graph_free(&t);
}

/* A model whose kernels could not be changed for want of memory can be given some again, the ones it had as well as others. */
static lb_status change_kernels(lb_ctx *ctx, test_allocator *a, long left) {
    test_graph t;
    test_graph_random(&t, 3, &weight_formats[4], 6);
    unsigned char *bytes;
    size_t size;
    lb_packed *model;
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, notes, 1, &bytes, &size));
    assert_ok(ctx, lb_packed_from_memory(ctx, "model", bytes, size, &model));
    assert_ok(ctx, lb_packed_set_isa(model, LBRT_ISA_REF));
    uint8_t *image = calloc(1, (size_t)lbrt_elements(&t.g.tensors[0]));
    int32_t *scores = calloc((size_t)t.g.classes, sizeof *scores);
    assert_true(image && scores);
    a->left = left;
    lb_status status = lb_packed_set_isa(model, lbrt_best_isa());
    if (status == LB_OK)
        status = lb_packed_scores(model, image, 1, scores);
    else
        assert_int_equal(lb_packed_scores(model, image, 1, scores), LB_ERR_ARGUMENT);
    a->left = LONG_MAX;
    assert_ok(ctx, lb_packed_set_isa(model, LBRT_ISA_REF));
    assert_ok(ctx, lb_packed_scores(model, image, 1, scores));
    free(image);
    free(scores);
    lb_packed_destroy(model);
    test_graph_free(&t);
    return status;
}

static void no_memory_for_kernels(void **state) {
    (void)state;
    if (lbrt_best_isa() != LBRT_ISA_REF)
        assert_true(test_memory_runs_out(change_kernels) >= 3);
}

/* From a file in memory and pixels in memory to scores, by the public header alone. */
static lb_status from_memory(lb_ctx *ctx, test_allocator *a, long left) {
    enum { MANY = 50 };
    test_graph t;
    test_graph_random(&t, 9, &weight_formats[3], 4);
    unsigned char *bytes;
    size_t size;
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, notes, 1, &bytes, &size));
    const size_t pixels = lbrt_elements(&t.g.tensors[0]), classes = (size_t)t.g.classes;
    uint8_t *images = malloc(MANY * pixels);
    int32_t *expected = calloc(MANY * classes, sizeof *expected), *got = calloc(MANY * classes, sizeof *got);
    assert_true(images && expected && got);
    for (size_t i = 0; i < MANY * pixels; i++)
        images[i] = (uint8_t)test_bits(&t);
    for (size_t n = 0; n < MANY; n++)
        plain_run(&t.g, images + n * pixels, expected + n * classes);
    lb_packed *model;
    a->left = left;
    lb_status status = lb_packed_load_memory(ctx, "mine", bytes, size, &model);
    a->left = LONG_MAX;
    memset(bytes, 0, size); /* a copy was made */
    lb_free(ctx, bytes);
    if (status == LB_OK) {
        a->left = left;
        status = lb_packed_scores(model, images, MANY, got);
        a->left = LONG_MAX;
        for (int mb = 1; status == LB_OK && mb <= MANY; mb += 7) {
            memset(got, 1, MANY * classes * sizeof *got);
            assert_ok(ctx, lb_packed_scores(model, images, mb, got));
            assert_memory_equal(got, expected, (size_t)mb * classes * sizeof *got);
        }
        lb_packed_destroy(model);
    }
    free(images);
    free(expected);
    free(got);
    test_graph_free(&t);
    return status;
}

static void models_in_memory(void **state) {
    (void)state;
    assert_true(test_memory_runs_out(from_memory) >= 4);
    lb_ctx *ctx = test_ctx();
    test_graph t;
    test_graph_random(&t, 9, &weight_formats[3], 4);
    unsigned char *bytes;
    size_t size;
    lb_packed *model = (lb_packed *)&t;
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, notes, 1, &bytes, &size));
    const struct {
        const char *name;
        const void *bytes;
        size_t size;
        lb_status status;
        const char *text;
    } cases[] = {{"mine", bytes, size - 1, LB_ERR_FORMAT, "mine: the model file is truncated"},
                 {"mine", bytes, 0, LB_ERR_FORMAT, "mine: an empty file"},
                 {"mine", NULL, 0, LB_ERR_FORMAT, "mine: an empty file"},
                 {"mine", "nonsense", 8, LB_ERR_FORMAT, "mine: not a packed model"},
                 {"mine", NULL, size, LB_ERR_ARGUMENT, "bytes"},
                 {NULL, bytes, size, LB_ERR_ARGUMENT, "a name"}};
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        assert_int_equal(lb_packed_load_memory(ctx, cases[i].name, cases[i].bytes, cases[i].size, &model), cases[i].status);
        assert_null(model);
        assert_non_null(strstr(lb_error(ctx), cases[i].text));
    }
    uint8_t image[9 * 9 * 5] = {0};
    int32_t scores[8];
    assert_true(lbrt_elements(&t.g.tensors[0]) <= sizeof image && t.g.classes <= (int)LB_COUNT(scores));
    assert_ok(ctx, lb_packed_load_memory(ctx, "mine", bytes, size, &model));
    assert_ok(ctx, lb_packed_scores(model, image, 1, scores));
    assert_int_equal(lb_packed_scores(model, image, 0, scores), LB_ERR_ARGUMENT);
    assert_int_equal(lb_packed_scores(model, image, -1, scores), LB_ERR_ARGUMENT);
    assert_int_equal(lb_packed_scores(model, NULL, 1, scores), LB_ERR_ARGUMENT);
    assert_int_equal(lb_packed_scores(model, image, 1, NULL), LB_ERR_ARGUMENT);
    lb_packed_destroy(model);
    lb_free(ctx, bytes);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
}

/* The largest pixel, by way of two tensors of 4 bytes a pixel. */
static void pack_largest_pixel(lb_ctx *ctx, int side, unsigned char **bytes, size_t *size) {
    test_graph t = {.g = {.name = "large", .classes = 1, .ntensors = 4, .nlayers = 3}};
    t.g.tensors = t.tensors, t.g.layers = t.layers;
    t.tensors[0] = (lbrt_tensor){side, side, 1, LBRT_U8, 0, 255};
    for (int i = 0; i < 2; i++) {
        t.layers[i] = (lbrt_layer){.op = LBRT_OP_POINT, .src = i, .dst = i + 1, .groups = 1};
        t.tensors[i + 1] = (lbrt_tensor){side, side, 1, LBRT_I32, 0, 255};
    }
    t.layers[2] = (lbrt_layer){.op = LBRT_OP_MAXPOOL, .src = 2, .dst = 3, .groups = 1, .kh = side, .kw = side, .sh = 1, .sw = 1};
    t.tensors[3] = (lbrt_tensor){1, 1, 1, LBRT_I32, 0, 255};
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, NULL, 0, bytes, size));
}

/* A batch larger than what runs together takes no more memory, and gives the scores of single images. */
static void large_batches(void **state) {
    (void)state;
    enum { SIDE = 16, MANY = 1000 }; /* 2 KB of tensors an image */
    lb_ctx *ctx = test_ctx();
    unsigned char *bytes;
    size_t size;
    pack_largest_pixel(ctx, SIDE, &bytes, &size);
    opened o = open_copy(bytes, size, 0, 0);
    const size_t need = lbrt_arena_size(o.model, MANY);
    assert_int_equal(need, lbrt_arena_size(o.model, MANY / 2));
    assert_true(need > lbrt_arena_size(o.model, 100) && need < 1 << 20);
    assert_true(lbrt_arena_size_threads(o.model, MANY, 2) > need); /* each thread is given its 512 KB */
    assert_true(lbrt_arena_size_layers(o.model, MANY, 1) > (size_t)MANY * SIDE * SIDE * 4);
    uint8_t *images = malloc(MANY * SIDE * SIDE);
    assert_non_null(images);
    for (size_t i = 0; i < MANY * SIDE * SIDE; i++)
        images[i] = (uint8_t)(i / (SIDE * SIDE) * 37 % 251);
    int32_t scores[MANY], one;
    run_copy(&o, images, MANY, 3, scores);
    for (int i = 0; i < MANY; i++) {
        run_copy(&o, images + i * SIDE * SIDE, 1, 0, &one);
        if (scores[i] != one || one != i * 37 % 251)
            fail_msg("image %d scores %d of %d, %d alone", i, (int)scores[i], MANY, (int)one);
    }
    free(images);
    close_copy(&o);
    lb_free(ctx, bytes);
    lb_ctx_destroy(ctx);
}

/* What runs takes memory; what is only looked at does not. */
static void opened_without_arenas(void **state) {
    (void)state;
    enum { SIDE = 16384 }; /* 1 GB a tensor */
    lb_ctx *ctx = test_ctx();
    unsigned char *bytes;
    size_t size;
    lb_packed *model;
    pack_largest_pixel(ctx, SIDE, &bytes, &size);
    assert_true(size < 200);
    assert_ok(ctx, lb_packed_from_memory(ctx, "large", bytes, size, &model));
    assert_true(lbrt_arena_size(model->model, 1) > (size_t)SIDE * SIDE * 4);
    for (int i = 0; i < model->threads; i++)
        assert_null(model->arenas[i]);
    lb_packed_destroy(model);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs),         cmocka_unit_test(whole_residuals),
        cmocka_unit_test(thresholds_equal_affine_and_code),
        cmocka_unit_test(what_the_file_says),    cmocka_unit_test(overhead_is_small),
        cmocka_unit_test(refused_graphs),        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(no_memory_for_kernels), cmocka_unit_test(models_in_memory),
        cmocka_unit_test(large_batches),
        cmocka_unit_test(opened_without_arenas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The loader and hostile files: truncated at every length, every byte altered (with a right checksum too, so that fields and not
 * the checksum have to stop it), random mutations. Each gives an error or a model that runs; the sanitizers watch. Files and memory
 * are exactly as large as stated. */
#include "crc32c.h"
#include "graphs.h"
#include "work.h"

#define LIMIT ((size_t)1 << 22) /* a mutated model may ask for much: only small ones are run */

static void fix_checksum(unsigned char *bytes, size_t size) {
    const size_t header = 16, at = 12;
    uint32_t crc = lbrt_crc32c(0, bytes, at);
    crc = lbrt_crc32c(crc, bytes + header, size - header);
    for (size_t i = 0; i < 4; i++)
        bytes[at + i] = (unsigned char)(crc >> (8 * i));
}

static void put_size(unsigned char *bytes, size_t size) {
    for (size_t i = 0; i < 4; i++)
        bytes[8 + i] = (unsigned char)(size >> (8 * i));
}

/* Probes; where that succeeds, opens and runs two images, whose scores must lie in the range that the file states. */
static lbrt_status try_file(const unsigned char *bytes, size_t size) {
    unsigned char *file = malloc(size > 0 ? size : 1);
    assert_non_null(file);
    memcpy(file, bytes, size);
    lbrt_info info;
    const lbrt_status status = lbrt_probe(file, size, &info);
    assert_true(status >= LBRT_OK && status <= LBRT_ERR_FIELD);
    assert_true(strlen(lbrt_status_text(status)) > 0);
    if (status == LBRT_OK && info.model_size < LIMIT) {
        void *memory = malloc(info.model_size);
        lbrt_model *model;
        assert_non_null(memory);
        assert_int_equal(lbrt_open(file, size, memory, info.model_size, &model), LBRT_OK);
        const size_t arena_size = lbrt_arena_size(model, 2), pixels = (size_t)info.ih * (size_t)info.iw * (size_t)info.ic;
        if (arena_size > 0 && arena_size < LIMIT && pixels < LIMIT && test_work(lbrt_model_graph(model)) < 2e5) {
            uint8_t *images = malloc(2 * pixels), *arena = malloc(arena_size);
            int32_t *scores = malloc(2 * (size_t)info.classes * sizeof *scores);
            assert_true(images && arena && scores);
            memset(arena, 0xee, arena_size);
            for (size_t i = 0; i < 2 * pixels; i++)
                images[i] = (uint8_t)(i * 37 + i / 7);
            assert_int_equal(lbrt_run(model, images, 2, arena, arena_size, scores), LBRT_OK);
            const lbrt_graph *g = lbrt_model_graph(model);
            for (int i = 0; i < 2 * info.classes; i++)
                assert_true(scores[i] >= g->tensors[g->nlayers].lo && scores[i] <= g->tensors[g->nlayers].hi);
            free(images);
            free(arena);
            free(scores);
        }
        for (int i = 0; i < info.classes; i++)
            assert_non_null(lbrt_class_name(model, i));
        assert_null(lbrt_metadata(model, "no such key"));
        free(memory);
    }
    free(file);
    return status;
}

static void packed(lb_ctx *ctx, uint64_t seed, int layers, unsigned char **bytes, size_t *size) {
    static const lb_pack_note notes[] = {{"data", "x"}};
    test_graph t;
    test_graph_random(&t, seed, &weight_formats[seed % LB_COUNT(weight_formats)], layers);
    assert_ok(ctx, lb_pack_graph(ctx, &t.g, notes, 1, bytes, size));
    test_graph_free(&t);
}

static void truncated_everywhere(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (uint64_t seed = 0; seed < 14; seed++) {
        unsigned char *bytes;
        size_t size;
        packed(ctx, seed, 3, &bytes, &size);
        for (size_t n = 0; n < size; n++) {
            assert_int_equal(try_file(bytes, n), LBRT_ERR_TRUNCATED);
            if (n < 16)
                continue;
            /* The header says so too: now the body ends too early. */
            unsigned char *copy = malloc(n);
            assert_non_null(copy);
            memcpy(copy, bytes, n);
            put_size(copy, n);
            fix_checksum(copy, n);
            assert_int_equal(try_file(copy, n), LBRT_ERR_FIELD);
            free(copy);
        }
        /* Something behind the end. */
        unsigned char *longer = calloc(size + 1, 1);
        assert_non_null(longer);
        memcpy(longer, bytes, size);
        assert_int_equal(try_file(longer, size + 1), LBRT_ERR_FIELD);
        put_size(longer, size + 1);
        fix_checksum(longer, size + 1);
        assert_int_equal(try_file(longer, size + 1), LBRT_ERR_FIELD);
        free(longer);
        lb_free(ctx, bytes);
    }
    lb_ctx_destroy(ctx);
}

static void every_byte_altered(void **state) {
    (void)state;
    static const unsigned char flips[] = {1, 2, 4, 8, 16, 32, 64, 128, 255, 127};
    lb_ctx *ctx = test_ctx();
    int rejected = 0, accepted = 0;
    for (uint64_t seed = 100; seed < 128; seed++) {
        unsigned char *bytes;
        size_t size;
        packed(ctx, seed, 1 + (int)(seed % 4), &bytes, &size);
        for (size_t i = 0; i<size; i += size> 1500 && i > 400 ? 7 : 1)
            for (size_t f = 0; f < sizeof flips; f++) {
                bytes[i] ^= flips[f];
                const lbrt_status status = try_file(bytes, size);
                assert_int_equal(status, i < 4 ? LBRT_ERR_MAGIC : i < 8 ? LBRT_ERR_VERSION : i >= 12 ? LBRT_ERR_CHECKSUM : status);
                assert_int_not_equal(status, LBRT_OK);
                if (i >= 16) {
                    unsigned char checksum[4];
                    memcpy(checksum, bytes + 12, 4);
                    fix_checksum(bytes, size);
                    if (try_file(bytes, size) == LBRT_OK)
                        accepted++;
                    else
                        rejected++;
                    memcpy(bytes + 12, checksum, 4);
                }
                bytes[i] ^= flips[f];
            }
        assert_int_equal(try_file(bytes, size), LBRT_OK);
        lb_free(ctx, bytes);
    }
    assert_true(rejected > 1000 && accepted > 1000); /* both sides really were exercised */
    lb_ctx_destroy(ctx);
}

/* Fixed seeds, so a failure comes back. Several mutations at once: replaced, inserted, removed, copied bytes. */
static void random_mutations(void **state) {
    (void)state;
    static const unsigned char interesting[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 46, 47, 127, 128, 129, 254, 255};
    lb_ctx *ctx = test_ctx();
    test_graph r = {.state = 42};
    int accepted = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        unsigned char *bytes;
        size_t size;
        packed(ctx, seed + 1000, 1 + (int)(seed % 6), &bytes, &size);
        unsigned char *copy = malloc(size + 64);
        assert_non_null(copy);
        for (int round = 0; round < 400; round++) {
            size_t n = size;
            memcpy(copy, bytes, size);
            for (int k = test_in(&r, 1, 4); k > 0; k--) {
                /* Mostly near the start, where texts, shapes and headers are. */
                const size_t at = 16 + test_bits(&r) % (test_in(&r, 0, 1) ? LB_MIN(n - 16, 200) : n - 16);
                switch (test_in(&r, 0, 4)) {
                case 0: copy[at] = (unsigned char)test_bits(&r); break;
                case 1: copy[at] = interesting[test_bits(&r) % sizeof interesting]; break;
                case 2:
                    if (n < size + 60) {
                        memmove(copy + at + 1, copy + at, n - at);
                        copy[at] = interesting[test_bits(&r) % sizeof interesting];
                        n++;
                    }
                    break;
                case 3:
                    if (n > 40) {
                        memmove(copy + at, copy + at + 1, n - at - 1);
                        n--;
                    }
                    break;
                default: copy[at] = copy[16 + test_bits(&r) % (n - 16)]; break;
                }
            }
            put_size(copy, n);
            fix_checksum(copy, n);
            accepted += try_file(copy, n) == LBRT_OK;
        }
        free(copy);
        lb_free(ctx, bytes);
    }
    assert_true(accepted > 100);
    lb_ctx_destroy(ctx);
}

/* A file whose layers have many channels, but nothing for each, is small: reading it must be fast. */
static void many_layers_of_many_channels(void **state) {
    (void)state;
    enum { LAYERS = LBRT_MAX_LAYERS, CHANNELS = LBRT_MAX_CHANNELS };
    lb_ctx *ctx = test_ctx();
    lbrt_tensor *tensors = calloc(LAYERS + 1, sizeof *tensors);
    lbrt_layer *layers = calloc(LAYERS, sizeof *layers);
    assert_true(tensors && layers);
    tensors[0] = (lbrt_tensor){1, 1, CHANNELS, LBRT_U8, 0, 255};
    for (int i = 0; i < LAYERS; i++) {
        layers[i] = (lbrt_layer){.op = i % 2 ? LBRT_OP_COPY : LBRT_OP_POINT, .src = i, .dst = i + 1, .groups = 1};
        tensors[i + 1] = (lbrt_tensor){1, 1, CHANNELS, LBRT_I32, 0, 255};
    }
    const lbrt_part all = {0, 0, 0, CHANNELS};
    for (int i = 1; i < LAYERS; i += 2) { /* every source of a copy is looked up */
        layers[i].sh = layers[i].sw = 1;
        layers[i].nsources = i < LBRT_MAX_SOURCES ? 1 : LBRT_MAX_SOURCES;
        for (int k = 0; k < layers[i].nsources; k++)
            layers[i].sources[k] = i - k;
        layers[i].nparts = 1;
        layers[i].parts = &all;
    }
    const lbrt_graph graph = {.name = "many", .classes = CHANNELS, .ntensors = LAYERS + 1, .nlayers = LAYERS, .tensors = tensors,
                              .layers = layers};
    unsigned char *bytes;
    size_t size;
    lbrt_info info;
    assert_ok(ctx, lb_pack_graph(ctx, &graph, NULL, 0, &bytes, &size));
    assert_true(size < 200000);
    const double start = lb_cpu_time();
    assert_int_equal(lbrt_probe(bytes, size, &info), LBRT_OK);
    const double seconds = lb_cpu_time() - start;
    if (getenv("LB_TEST_VERBOSE"))
        printf("%zu bytes probed in %.3f s\n", size, seconds);
    assert_true(seconds < 2); /* a loop over channels takes a minute */
    lb_free(ctx, bytes);
    free(tensors);
    free(layers);
    lb_ctx_destroy(ctx);
}

/* Bounds of a float clamp are infinite outwards only. */
static void clamps_to_infinity(void **state) {
    (void)state;
    static const unsigned char infinity[] = {0, 0, 0x80, 0x7f};
    lb_ctx *ctx = test_ctx();
    lbrt_tensor tensors[] = {{1, 1, 2, LBRT_U8, 0, 255}, {1, 1, 2, LBRT_I32, INT32_MIN, INT32_MAX}};
    lbrt_layer layer = {.op = LBRT_OP_POINT, .dst = 1, .is_float = 1, .groups = 1, .src_step = 0.5f};
    layer.epilogue = (lbrt_epilogue){.flags = LBRT_CLAMP | LBRT_TO_FIXED, .flo = -INFINITY, .fhi = INFINITY};
    const lbrt_graph graph = {.name = "n", .classes = 2, .ntensors = 2, .nlayers = 1, .tensors = tensors, .layers = &layer};
    unsigned char *bytes;
    size_t size, at = 0;
    assert_ok(ctx, lb_pack_graph(ctx, &graph, NULL, 0, &bytes, &size));
    assert_int_equal(try_file(bytes, size), LBRT_OK);
    while (memcmp(bytes + at, infinity, sizeof infinity) != 0)
        assert_true(++at <= size - sizeof infinity);
    assert_int_equal(bytes[at - 1], 0xff); /* the lower bound's */
    bytes[at - 1] = 0x7f;
    fix_checksum(bytes, size);
    assert_int_equal(try_file(bytes, size), LBRT_ERR_FIELD);
    bytes[at - 1] = bytes[at + 3] = 0xff;
    fix_checksum(bytes, size);
    assert_int_equal(try_file(bytes, size), LBRT_ERR_FIELD);
    lb_free(ctx, bytes);
    lb_ctx_destroy(ctx);
}

static void wrong_arguments(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char *bytes;
    size_t size;
    packed(ctx, 5, 2, &bytes, &size);
    lbrt_info info;
    lbrt_model *model;
    assert_int_equal(lbrt_probe(NULL, 100, &info), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_probe(bytes, size, NULL), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_probe(bytes, size, &info), LBRT_OK);
    assert_int_equal(lbrt_open(bytes, size, NULL, info.model_size, &model), LBRT_ERR_MEMORY);
    assert_null(model);
    void *memory = malloc(info.model_size);
    assert_non_null(memory);
    assert_int_equal(lbrt_open(bytes, size, memory, info.model_size, NULL), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_open(bytes, size, memory, info.model_size, &model), LBRT_OK);
    const char *key = NULL, *value = NULL;
    assert_string_equal(lbrt_class_name(NULL, 0), "");
    assert_string_equal(lbrt_class_name(model, -1), "");
    assert_null(lbrt_metadata(NULL, "data"));
    assert_null(lbrt_metadata(model, NULL));
    assert_int_equal(lbrt_metadata_at(NULL, 0, &key, &value), 0);
    assert_int_equal(lbrt_metadata_at(model, 0, NULL, &value), 0);
    assert_int_equal(lbrt_metadata_at(model, 0, &key, NULL), 0);
    assert_int_equal(lbrt_metadata_at(model, 0, &key, &value), 1);
    assert_string_equal(key, "data");
    assert_string_equal(value, "x");
    uint8_t *image = calloc(9 * 9 * 5, 1);
    int32_t scores[8];
    const size_t need = lbrt_arena_size(model, 1);
    void *arena = malloc(need);
    assert_true(image && arena);
    assert_int_equal(lbrt_run(NULL, image, 1, arena, need, scores), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_run(model, NULL, 1, arena, need, scores), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_run(model, image, 0, arena, need, scores), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_run(model, image, 1, NULL, need, scores), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_run(model, image, 1, arena, need, NULL), LBRT_ERR_ARGUMENT);
    assert_int_equal(lbrt_run(model, image, 1, arena, need - 1, scores), LBRT_ERR_MEMORY);
    assert_int_equal(lbrt_run(model, image, 1, arena, need, scores), LBRT_OK);
    free(image);
    free(arena);
    free(memory);
    lb_free(ctx, bytes);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(every_byte_altered),
        cmocka_unit_test(random_mutations),
        cmocka_unit_test(many_layers_of_many_channels),
        cmocka_unit_test(clamps_to_infinity),
        cmocka_unit_test(wrong_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

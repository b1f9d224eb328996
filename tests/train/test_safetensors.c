/* Round trips, and files made to hurt: each is refused with a line that names the file and, where there is one, the tensor. */
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"
#include "train/safetensors.h"

static char dir[] = "/tmp/lb-test-safetensors-XXXXXX";
static char path[64];

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(path);
    return rmdir(dir); /* fails if something temporary was left */
}

static const float weights[6] = {1, -2.5f, 3e-30f, 0, -0.0f, 7};
static const int64_t steps[1] = {INT64_C(-1234567890123)};
static const uint8_t codes[5] = {1, 2, 3, 254, 255};
static const int32_t counts[2] = {-7, 8};
static const uint16_t halves[3] = {0x3C00, 0x8000, 0x7BFF};

static const lb_st_tensor tensors[] = {
    {"codes", LB_ST_U8, 1, {5}, codes}, /* 5 bytes: would put what follows at odd addresses */
    {"conv1.weight", LB_ST_F32, 4, {1, 2, 3, 1}, weights},
    {"step", LB_ST_I64, 0, {0}, steps},
    {"half", LB_ST_F16, 1, {3}, halves},
    {"brain", LB_ST_BF16, 2, {3, 1}, halves},
    {"nothing", LB_ST_F32, 2, {0, 4}, NULL},
    {"counts \"\xC3\xA9\\", LB_ST_I32, 1, {2}, counts},
};
static const lb_st_pair metadata[] = {{"format", "lowbit"}, {"recipe", "a: 1\nb: \"x\"\n"}, {"", ""}};

static void round_trip(void **state) {
    (void)state;
    test_allocator a = {.left = 1000};
    lb_ctx *ctx = test_ctx_with(&a);
    assert_ok(ctx, lb_safetensors_write(ctx, path, tensors, LB_COUNT(tensors), metadata, LB_COUNT(metadata)));
    lb_safetensors *file;
    assert_ok(ctx, lb_safetensors_read(ctx, path, &file));
    assert_int_equal(lb_safetensors_count(file), LB_COUNT(tensors));
    for (size_t i = 0; i < LB_COUNT(tensors); i++) {
        const lb_st_tensor *want = &tensors[i], *got = lb_safetensors_find(file, want->name);
        assert_non_null(got);
        assert_string_equal(got->name, want->name);
        assert_int_equal(got->dtype, want->dtype);
        assert_int_equal(got->ndims, want->ndims);
        size_t bytes = lb_st_dtype_size(want->dtype);
        for (int d = 0; d < want->ndims; d++) {
            assert_int_equal(got->dims[d], want->dims[d]);
            bytes *= (size_t)want->dims[d];
        }
        assert_int_equal((uintptr_t)got->data % lb_st_dtype_size(got->dtype), 0);
        if (bytes)
            assert_memory_equal(got->data, want->data, bytes);
        const void *data;
        assert_ok(ctx, lb_safetensors_get(file, want->name, want->dtype, want->ndims, want->dims, &data));
        assert_ptr_equal(data, got->data);
        assert_ptr_equal(lb_safetensors_find(file, lb_safetensors_at(file, i)->name), lb_safetensors_at(file, i));
    }
    assert_null(lb_safetensors_at(file, LB_COUNT(tensors)));
    assert_null(lb_safetensors_find(file, "absent"));
    assert_null(lb_safetensors_find(file, "__metadata__"));
    for (size_t i = 0; i < LB_COUNT(metadata); i++)
        assert_string_equal(lb_safetensors_metadata(file, metadata[i].key), metadata[i].value);
    assert_null(lb_safetensors_metadata(file, "absent"));
    lb_safetensors_destroy(file);
    lb_safetensors_destroy(NULL);
    lb_ctx_destroy(ctx);
    assert_int_equal(a.alive, 0);
}

static void same_bytes(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char *data[2];
    size_t size[2];
    for (int i = 0; i < 2; i++) {
        assert_ok(ctx, lb_safetensors_write(ctx, path, tensors, LB_COUNT(tensors), metadata, LB_COUNT(metadata)));
        assert_ok(ctx, lb_read_file(ctx, path, 1 << 20, &data[i], &size[i]));
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(data[0], data[1], size[0]);
    assert_int_equal((8 + data[0][0] + 256 * data[0][1]) % 64, 0);
    assert_int_equal(data[0][8], '{');
    lb_free(ctx, data[0]);
    lb_free(ctx, data[1]);
    lb_ctx_destroy(ctx);
}

static void empty(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_safetensors *file;
    assert_ok(ctx, lb_safetensors_write(ctx, path, NULL, 0, NULL, 0));
    assert_ok(ctx, lb_safetensors_read(ctx, path, &file));
    assert_int_equal(lb_safetensors_count(file), 0);
    assert_null(lb_safetensors_metadata(file, "x"));
    lb_safetensors_destroy(file);
    lb_ctx_destroy(ctx);
}

static void write_refuses(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unlink(path);
    static const struct {
        lb_st_tensor tensors[2];
        size_t n;
        lb_st_pair metadata[2];
        size_t nmetadata;
        const char *says;
    } rows[] = {
        {.tensors = {{"a", LB_ST_U8, 1, {5}, codes}, {"a", LB_ST_U8, 1, {5}, codes}}, .n = 2, .says = "'a': twice"},
        {.tensors = {{"a", LB_ST_U8, 1, {-1}, codes}}, .n = 1, .says = "'a': wrong type or shape"},
        {.tensors = {{"a", LB_ST_U8, 9, {1}, codes}}, .n = 1, .says = "'a': wrong type or shape"},
        {.tensors = {{"a", (lb_st_dtype)99, 1, {1}, codes}}, .n = 1, .says = "'a': wrong type or shape"},
        {.tensors = {{"a", LB_ST_F32, 2, {INT64_C(1) << 40, INT64_C(1) << 40}, codes}}, .n = 1, .says = "'a': wrong type or shape"},
        {.tensors = {{"a", LB_ST_U8, 1, {5}, NULL}}, .n = 1, .says = "'a': no data"},
        {.tensors = {{NULL, LB_ST_U8, 1, {5}, codes}}, .n = 1, .says = "needs a name"},
        {.tensors = {{"__metadata__", LB_ST_U8, 1, {5}, codes}}, .n = 1, .says = "needs a name"},
        {.tensors = {{"\xFF\xFE", LB_ST_U8, 1, {5}, codes}}, .n = 1, .says = "not UTF-8"},
        {.metadata = {{"k", "1"}, {"k", "2"}}, .nmetadata = 2, .says = "metadata 'k'"},
        {.metadata = {{"k", "\xC3"}}, .nmetadata = 1, .says = "metadata 'k'"},
        {.metadata = {{"k", NULL}}, .nmetadata = 1, .says = "metadata 'k'"},
    };
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_status status = lb_safetensors_write(ctx, path, rows[i].tensors, rows[i].n, rows[i].metadata, rows[i].nmetadata);
        if (status != LB_ERR_ARGUMENT || !strstr(lb_error(ctx), rows[i].says) || strncmp(lb_error(ctx), path, strlen(path)))
            fail_msg("row %zu: %s: %s", i, lb_status_name(status), lb_error(ctx));
        assert_false(lb_exists(path));
    }
    assert_int_equal(lb_safetensors_write(ctx, "/dev/full", tensors, LB_COUNT(tensors), NULL, 0), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "No space left"));
    lb_ctx_destroy(ctx);
}

/* Writes a file by hand: header text, then `space` bytes 0, 1, 2 .. */
static void craft(const char *header, size_t length, size_t space) {
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < 8; i++)
        fputc((int)((uint64_t)length >> 8 * i & 255), f);
    fwrite(header, 1, strlen(header), f);
    for (size_t i = 0; i < space; i++)
        fputc((int)i & 255, f);
    fclose(f);
}

#define T(name, dtype, shape, begin, end)                                                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]}"

static void read_refuses(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t space;
        const char *says;
    } rows[] = {
        {"{" T("a", "F32", "2", 0, 8) "}", 7, "tensor 'a': data_offsets 0 to 8 lie outside the 7 bytes"},
        {"{" T("a", "F32", "2", 0, 8) "}", 9, "1 unused bytes at the end"},
        {"{" T("a", "F32", "2", 1, 9) "}", 9, "tensor 'a': 1 unused bytes before"},
        {"{" T("a", "U8", "2", 0, 2) "," T("b", "U8", "2", 1, 3) "}", 3, "tensor 'b': its data overlaps that of 'a'"},
        {"{" T("b", "U8", "2", 0, 2) "," T("a", "U8", "2", 0, 2) "}", 2, "overlaps"},
        {"{" T("a", "U8", "2", 0, 2) "," T("b", "U8", "2", 3, 5) "}", 5, "tensor 'b': 1 unused bytes before"},
        {"{" T("a", "U8", "2", 0, 3) "}", 3, "tensor 'a': its shape takes 2 bytes, data_offsets hold 3"},
        {"{" T("a", "F32", "2,3", 0, 20) "}", 20, "tensor 'a': its shape takes 24 bytes"},
        {"{" T("a", "U8", "2", 2, 0) "}", 2, "tensor 'a': data_offsets 2 to 0"},
        {"{" T("a", "U8", "2", -2, 0) "}", 2, "tensor 'a': data_offsets -2 to 0"},
        {"{" T("a", "U8", "1", 9223372036854775807, 9223372036854775807) "}", 2, "tensor 'a': data_offsets"},
        {"{" T("a", "U8", "1", 0, 9223372036854775808) "}", 2, "not valid JSON"},
        {"{" T("a", "U8", "1", 0, 1.0) "}", 1, "tensor 'a': data_offsets is missing"},
        {"{" T("a", "U8", "1e0", 0, 1) "}", 1, "tensor 'a': shape holds"},
        {"{" T("a", "U8", "-1,-1", 0, 1) "}", 1, "tensor 'a': shape holds"},
        {"{" T("a", "U8", "\"1\"", 0, 1) "}", 1, "tensor 'a': shape holds"},
        {"{" T("a", "F32", "4611686018427387904,4", 0, 0) "}", 0, "tensor 'a': shape is larger"},
        {"{" T("a", "F64", "1152921504606846976,1", 0, 0) "}", 0, "tensor 'a': shape is larger"},
        {"{" T("a", "U8", "4294967296,4294967296,0", 0, 0) "}", 0, "tensor 'a': shape is larger"},
        {"{" T("a", "U8", "1,1,1,1,1,1,1,1,1", 0, 1) "}", 1, "tensor 'a': shape is missing or not a list of at most 8"},
        {"{" T("a", "F4", "2", 0, 1) "}", 1, "tensor 'a': dtype 'F4' is unknown"},
        {"{" T("a", "U8", "1", 0, 1) "," T("a", "U8", "1", 1, 2) "}", 2, "duplicate"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "duplicate"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "tensor 'a': dtype is missing"},
        {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "tensor 'a': dtype is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, "tensor 'a': shape is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1, "tensor 'a': data_offsets is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{}}}", 1, "tensor 'a': data_offsets is missing"},
        {"{\"a\":[]}", 0, "tensor 'a': its header entry is not an object"},
        {"{\"a\":null}", 0, "tensor 'a'"},
        {"{\"x\\ny\":null}", 0, "tensor 'x y'"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "__metadata__: 'k' is not a string"},
        {"{\"a\\u0000b\":null}", 0, "not valid JSON"},
        {"{\"\xFF\":null}", 0, "not valid JSON"},
        {"{} x", 0, "not valid JSON"},
        {"{\"a\":", 0, "not valid JSON"},
        {"{", 0, "not valid JSON"},
        {" {}", 0, "does not begin with '{'"},
        {"[]", 0, "does not begin with '{'"},
        {"", 0, "does not begin with '{'"},
    };
    test_allocator a = {.left = 1000};
    lb_ctx *ctx = test_ctx_with(&a);
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        craft(rows[i].header, strlen(rows[i].header), rows[i].space);
        lb_safetensors *file = (lb_safetensors *)&a;
        lb_status status = lb_safetensors_read(ctx, path, &file);
        if (status != LB_ERR_FORMAT || !strstr(lb_error(ctx), rows[i].says) || strncmp(lb_error(ctx), path, strlen(path)))
            fail_msg("row %zu, %s: %s: %s", i, rows[i].header, lb_status_name(status), lb_error(ctx));
        assert_null(file);
        assert_int_equal(a.alive, 1);
    }
    lb_ctx_destroy(ctx);
}

static void bad_lengths(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_safetensors *file;
    static const uint64_t lengths[] = {3, 100, 100000001, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63, (uint64_t)1 << 32 | 2};
    for (size_t i = 0; i < LB_COUNT(lengths); i++) {
        craft("{}", lengths[i], 0);
        assert_int_equal(lb_safetensors_read(ctx, path, &file), LB_ERR_FORMAT);
        assert_non_null(strstr(lb_error(ctx), "does not fit a file of 10"));
    }
    for (int size = 0; size < 8; size++) {
        craft("{}", 2, 0);
        assert_int_equal(truncate(path, size), 0);
        assert_int_equal(lb_safetensors_read(ctx, path, &file), LB_ERR_FORMAT);
        assert_non_null(strstr(lb_error(ctx), "too few"));
    }
    assert_int_equal(lb_safetensors_read(ctx, "/nowhere", &file), LB_ERR_IO);
    assert_null(file);
    lb_ctx_destroy(ctx);
}

static void deep_nesting(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    enum { DEPTH = 1000000 };
    for (int kind = 0; kind < 2; kind++) {
        char *text = calloc(DEPTH * 5 + 10, 1), *end = text;
        end += sprintf(end, "{\"a\":");
        for (int i = 0; i < DEPTH; i++)
            end = strcpy(end, kind ? "{\"a\":" : "[") + (kind ? 5 : 1);
        craft(text, strlen(text), 0);
        lb_safetensors *file;
        assert_int_equal(lb_safetensors_read(ctx, path, &file), LB_ERR_FORMAT);
        assert_non_null(strstr(lb_error(ctx), "depth"));
        free(text);
    }
    lb_ctx_destroy(ctx);
}

/* Valid though unlike what we write: odd order, unaligned data, spaces, unknown keys. */
static void others_files(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const char *header = "{ " T("z", "F32", "1", 1, 5) ", " T("e", "F32", "0", 1, 1) ", " T(
        "a", "BOOL", "", 0,
        1) ","
           "\"q\":{\"dtype\":\"I64\",\"more\":{},\"shape\":[1],\"data_offsets\":[5,13]},\"__metadata__\":{}}   ";
    craft(header, strlen(header), 13);
    lb_safetensors *file;
    assert_ok(ctx, lb_safetensors_read(ctx, path, &file));
    assert_int_equal(lb_safetensors_count(file), 4);
    assert_string_equal(lb_safetensors_at(file, 0)->name, "z");
    const unsigned char z[] = {1, 2, 3, 4}, q[] = {5, 6, 7, 8, 9, 10, 11, 12};
    assert_memory_equal(lb_safetensors_find(file, "z")->data, z, 4);
    assert_memory_equal(lb_safetensors_find(file, "q")->data, q, 8);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal((uintptr_t)lb_safetensors_at(file, i)->data % lb_st_dtype_size(lb_safetensors_at(file, i)->dtype), 0);
    lb_safetensors_destroy(file);
    lb_ctx_destroy(ctx);
}

static void get_explains(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_safetensors *file;
    const void *data;
    const int64_t dims[8] = {1, 2, 3, 1};
    assert_ok(ctx, lb_safetensors_write(ctx, path, tensors, LB_COUNT(tensors), NULL, 0));
    assert_ok(ctx, lb_safetensors_read(ctx, path, &file));
    assert_int_equal(lb_safetensors_get(file, "conv1.wieght", LB_ST_F32, 4, dims, &data), LB_ERR_SHAPE);
    assert_non_null(strstr(lb_error(ctx), "no tensor 'conv1.wieght'; the nearest is 'conv1.weight'"));
    assert_int_equal(lb_safetensors_get(file, "something else", LB_ST_F32, 4, dims, &data), LB_ERR_SHAPE);
    assert_int_equal(lb_safetensors_get(file, "conv1.weight", LB_ST_F16, 4, dims, &data), LB_ERR_SHAPE);
    assert_non_null(strstr(lb_error(ctx), "is F32 (1, 2, 3, 1), but F16 (1, 2, 3, 1) is needed"));
    assert_int_equal(lb_safetensors_get(file, "conv1.weight", LB_ST_F32, 3, dims, &data), LB_ERR_SHAPE);
    assert_int_equal(lb_safetensors_get(file, "conv1.weight", LB_ST_F32, 4, (int64_t[]){1, 2, 3, 2}, &data), LB_ERR_SHAPE);
    for (int d = 0; d < 4; d++)
        for (int by = -1; by <= 1; by += 2) { /* larger ones, and parts of it, which would fit */
            int64_t other[4];
            memcpy(other, dims, sizeof other);
            other[d] += by;
            assert_int_equal(lb_safetensors_get(file, "conv1.weight", LB_ST_F32, 4, other, &data), LB_ERR_SHAPE);
        }
    assert_non_null(strstr(lb_error(ctx), path));
    lb_safetensors_destroy(file);
    lb_ctx_destroy(ctx);
}

/* Every byte of a good file changed, and every length: read or refused, never a crash (the sanitizers watch). */
static void mutations(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char *good;
    size_t size;
    assert_ok(ctx, lb_safetensors_write(ctx, path, tensors, LB_COUNT(tensors), metadata, LB_COUNT(metadata)));
    assert_ok(ctx, lb_read_file(ctx, path, 1 << 20, &good, &size));
    static const unsigned char values[] = {0, 0xFF, '9', '-', '"', '}', ' '};
    int refused = 0;
    for (size_t i = 0; i < size; i++)
        for (size_t v = 0; v <= LB_COUNT(values); v++) {
            unsigned char old = good[i];
            if (v < LB_COUNT(values))
                good[i] = values[v];
            unlink(path); /* truncating and rewriting one file makes some file systems wait for the disk */
            FILE *f = fopen(path, "wb");
            fwrite(good, 1, v < LB_COUNT(values) ? size : i, f); /* the last: cut here */
            fclose(f);
            good[i] = old;
            lb_safetensors *file;
            lb_status status = lb_safetensors_read(ctx, path, &file);
            assert_true(status == LB_OK || status == LB_ERR_FORMAT);
            assert_true((status == LB_OK) == (file != NULL));
            assert_true(v < LB_COUNT(values) || status != LB_OK);
            refused += status != LB_OK;
            lb_safetensors_destroy(file);
        }
    assert_true(refused > 1000);
    lb_free(ctx, good);
    lb_ctx_destroy(ctx);
}

static void without_memory(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const char *header = "{" T("a", "U8", "1", 0, 1) "," T("z", "F32", "1", 1, 5) "}"; /* the unaligned one is copied */
    craft(header, strlen(header), 5);
    lb_ctx_destroy(ctx);
    for (int what = 0; what < 2; what++) {
        lb_status status = LB_ERR_MEMORY;
        int failures = 0;
        for (int blocks = 1; status != LB_OK; blocks++) {
            assert_true(blocks < 30);
            test_allocator a = {.left = blocks};
            ctx = test_ctx_with(&a);
            lb_safetensors *file = NULL;
            status = what == 0 ? lb_safetensors_read(ctx, path, &file) : lb_safetensors_write(ctx, path, tensors, 3, metadata, 2);
            assert_true(status == LB_OK || status == LB_ERR_MEMORY);
            failures += status != LB_OK;
            lb_safetensors_destroy(file);
            lb_ctx_destroy(ctx);
            assert_int_equal(a.alive, 0);
        }
        assert_true(failures >= 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),    cmocka_unit_test(same_bytes),     cmocka_unit_test(empty),
        cmocka_unit_test(write_refuses), cmocka_unit_test(read_refuses),   cmocka_unit_test(bad_lengths),
        cmocka_unit_test(deep_nesting),  cmocka_unit_test(others_files),   cmocka_unit_test(get_explains),
        cmocka_unit_test(mutations),     cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

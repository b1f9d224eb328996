/* IDX files: pixels, labels, limits, and every field damaged. */
#include "fixtures.h"

enum { H = 5, W = 4, NTRAIN = 30, NTEST = 12 };

static const char *const names[4] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                                     "t10k-labels-idx1-ubyte"};

static void put32(uint8_t *dst, uint32_t v) {
    for (int i = 0; i < 4; i++)
        dst[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* One of the four files in memory. */
static size_t make(int which, uint8_t dst[1024]) {
    int n = which < 2 ? NTRAIN : NTEST, first = which < 2 ? 0 : NTRAIN;
    put32(dst, which % 2 ? 0x801 : 0x803);
    put32(dst + 4, (uint32_t)n);
    if (which % 2) {
        for (int i = 0; i < n; i++)
            dst[8 + i] = (uint8_t)((first + i) % 10);
        return 8 + (size_t)n;
    }
    put32(dst + 8, H);
    put32(dst + 12, W);
    for (int i = 0; i < n; i++)
        pattern_image(first + i, H, W, 1, dst + 16 + i * H * W);
    return 16 + (size_t)n * H * W;
}

static void put_all(const char *dir, bool gz) {
    for (int i = 0; i < 4; i++) {
        uint8_t bytes[1024];
        char path[300];
        size_t size = make(i, bytes);
        snprintf(path, sizeof path, "%s/%s%s", dir, names[i], gz ? ".gz" : "");
        (gz ? put_gz : put_file)(path, bytes, size);
    }
}

static void check(const lb_data *data, int ntrain, int ntest) {
    for (int split = 0; split < LB_SPLITS; split++) {
        const lb_images *images = &data->split[split];
        assert_int_equal(images->count, split ? ntest : ntrain);
        assert_int_equal(images->h, H);
        assert_int_equal(images->w, W);
        assert_int_equal(images->c, 1);
        for (int i = 0; i < images->count; i++) {
            uint8_t expected[H * W];
            pattern_image(i + (split ? NTRAIN : 0), H, W, 1, expected);
            assert_memory_equal(images->pixels + i * H * W, expected, sizeof expected);
            assert_int_equal(images->labels[i], (i + (split ? NTRAIN : 0)) % 10);
        }
    }
}

static void test_reads(void **state) {
    scratch *s = *state;
    for (int gz = 0; gz < 2; gz++) {
        const char *dir = gz ? "gz" : "plain";
        put_all(dir, gz);
        lb_data_config config = config_of("fashion-mnist", dir);
        lb_data *data;
        assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
        check(data, NTRAIN, NTEST);
        assert_int_equal(data->classes, 10);
        assert_string_equal(data->class_names[9], "Ankle boot");
        assert_true(data->mean[0] == .2860f && data->std[0] == .3530f);
        lb_data_destroy(data);
        config.train_limit = 7;
        config.test_limit = 100;
        assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
        check(data, 7, NTEST);
        lb_data_destroy(data);
    }
}

static void test_unnamed(void **state) {
    scratch *s = *state;
    put_all("mine", true);
    lb_data_config config = config_of("", "mine");
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    check(data, NTRAIN, NTEST);
    assert_int_equal(data->classes, 10);
    assert_string_equal(data->class_names[9], "9");
    double sum = 0, squares = 0;
    for (int i = 0; i < NTRAIN * H * W; i++) {
        sum += data->split[LB_TRAIN].pixels[i] / 255.0;
        squares += data->split[LB_TRAIN].pixels[i] / 255.0 * data->split[LB_TRAIN].pixels[i] / 255.0;
    }
    double mean = sum / (NTRAIN * H * W), variance = squares / (NTRAIN * H * W) - mean * mean;
    assert_true(fabs(data->mean[0] - mean) < 1e-6 && fabs((double)data->std[0] * data->std[0] - variance) < 1e-6);
    lb_data_destroy(data);

    config = config_of("mine/", ""); /* a path as the name */
    config.nmean = config.nstd = 1;
    config.mean[0] = .5f;
    config.std[0] = .25f;
    config.size = 10;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_true(data->mean[0] == .5f && data->std[0] == .25f);
    assert_int_equal(data->split[LB_TEST].h, 10);
    assert_int_equal(data->split[LB_TEST].w, 10);
    lb_data_destroy(data);
}

/* Bytes `at` of file `which` become `value` (32 bits; -1: the file is cut there; -2: one byte more), and the error says so. */
static const struct damage {
    int which;
    long at;
    int64_t value;
    const char *says;
} damages[] = {
    {0, 0, 0x802, "magic number"},
    {1, 0, 0x803, "magic number"},
    {2, 0, 0, "magic number"},
    {3, 0, 0xffffffff, "magic number"},
    {0, 4, NTRAIN + 1, "labels for the 31 images"},
    {0, 4, 0, "make no sense"},
    {0, 4, 0xffffffff, "labels for"},
    {0, 8, 0, "make no sense"},
    {0, 8, 0x10000, "make no sense"},
    {0, 8, 6, "truncated"},
    {0, 8, 60000, "truncated"},
    {0, 12, 0x7fffffff, "make no sense"},
    {1, 4, NTRAIN - 1, "29 labels for the 30 images"},
    {2, 8, 4, "training images have 4 x 5"},
    {3, 4, 11, "11 labels"},
    {1, 8, 0x0a000000, "label 10 of image 0 is out of range"},
    {3, 8 + 7, 0x000000ff, "label 255 of image 10 is out of range"},
    {0, 100, -1, "truncated"},
    {1, 20, -1, "truncated"},
    {2, 10, -1, "truncated"},
    {3, 0, -1, "truncated"},
    {2, 0, -2, "longer than its header"},
};

static void test_damage(void **state) {
    scratch *s = *state;
    for (int gz = 0; gz < 2; gz++)
        for (size_t i = 0; i < LB_COUNT(damages); i++) {
            const struct damage *d = &damages[i];
            uint8_t bytes[1024];
            char path[300];
            const char *dir = gz ? "gz" : "plain";
            put_all(dir, gz);
            size_t size = make(d->which, bytes);
            if (d->value == -1)
                size = (size_t)d->at;
            else if (d->value == -2)
                bytes[size++] = 1;
            else
                put32(bytes + d->at, (uint32_t)d->value);
            snprintf(path, sizeof path, "%s/%s%s", dir, names[d->which], gz ? ".gz" : "");
            (gz ? put_gz : put_file)(path, bytes, size);
            lb_data_config config = config_of("mnist", dir);
            /* a count that is wrong in the images file is found when the labels are read */
            assert_load_fails(s->ctx, &config, d->says[0] == 'l' && d->which == 0 ? "train-" : names[d->which], d->says);
        }
}

static void test_damaged_gz(void **state) {
    scratch *s = *state;
    lb_data_config config = config_of("mnist", "mnist");
    for (int how = 0; how < 3; how++) {
        uint8_t bytes[2048];
        put_all("mnist", true);
        size_t size = get_file("mnist/train-images-idx3-ubyte.gz", bytes, sizeof bytes);
        if (how == 0)
            size -= 30; /* cut inside the stream */
        else if (how == 1)
            size -= 4; /* cut inside the checksum */
        else
            bytes[size - 6] ^= 1; /* wrong checksum */
        put_file("mnist/train-images-idx3-ubyte.gz", bytes, size);
        assert_load_fails(s->ctx, &config, "mnist/train-images-idx3-ubyte.gz", "get the file again");
    }
}

static void test_missing(void **state) {
    scratch *s = *state;
    lb_data_config config = config_of("mnist", "mnist");
    for (int i = 0; i < 4; i++) {
        char path[300];
        put_all("mnist", false);
        snprintf(path, sizeof path, "mnist/%s", names[i]);
        remove(path);
        assert_load_fails(s->ctx, &config, "mnist", names[i]);
    }
    put_all("mnist", false);
    chmod("mnist/t10k-labels-idx1-ubyte", 0);
    if (geteuid() != 0)
        assert_load_fails(s->ctx, &config, "t10k-labels-idx1-ubyte", "Permission denied");
    config.nmean = 3;
    chmod("mnist/t10k-labels-idx1-ubyte", 0644);
    assert_load_fails(s->ctx, &config, "data.mean", "1 channel");
}

static lb_status load_with(lb_ctx *ctx, test_allocator *a, long left) {
    lb_data_config config = config_of("", "mnist");
    config.size = 7;
    lb_data *data;
    a->left = left;
    const lb_status status = lb_data_load(ctx, &config, &data);
    lb_data_destroy(data);
    return status;
}

static void test_memory(void **state) {
    (void)state;
    put_all("mnist", true);
    assert_true(test_memory_runs_out(load_with) > 5);
}

static void test_interrupt(void **state) {
    scratch *s = *state;
    put_all("mnist", true);
    lb_data_config config = config_of("mnist", "mnist");
    lb_interrupt(s->ctx);
    lb_data *data;
    assert_int_equal(lb_data_load(s->ctx, &config, &data), LB_ERR_INTERRUPTED);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_reads),   TEST(test_unnamed), TEST(test_damage),   TEST(test_damaged_gz),
                                       TEST(test_missing), TEST(test_memory),  TEST(test_interrupt)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

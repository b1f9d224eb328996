/* The real data sets, where they are there. */
#include "fixtures.h"

#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool there(const char *path) {
    if (lb_exists(path))
        return true;
    printf("SKIPPED: %s is not there\n", path);
    return false;
}

static void assert_balanced(const lb_images *images, int classes) {
    for (int k = 0; k < classes; k++) {
        int64_t n = 0;
        for (int64_t i = 0; i < images->count; i++)
            n += images->labels[i] == k;
        assert_int_equal(n, images->count / classes);
    }
}

/* The known figures must be those of the pixels. */
static void assert_statistics(const lb_data *data, double tolerance) {
    const lb_images *images = &data->split[LB_TRAIN];
    int64_t n = images->count * images->h * images->w;
    for (int k = 0; k < images->c; k++) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < n; i++) {
            double p = images->pixels[i * images->c + k] / 255.0;
            sum += p;
            squares += p * p;
        }
        assert_true(fabs(sum / (double)n - data->mean[k]) < tolerance);
        assert_true(fabs(sqrt(squares / (double)n - sum / (double)n * sum / (double)n) - data->std[k]) < tolerance);
    }
}

static void test_fashion_mnist(void **state) {
    scratch *s = *state;
    if (!there("/usr/share/datasets/fashion-mnist"))
        return;
    lb_data_config config = config_of("fashion-mnist", "");
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_int_equal(data->split[LB_TRAIN].count, 60000);
    assert_int_equal(data->split[LB_TEST].count, 10000);
    assert_int_equal(data->split[LB_TEST].h, 28);
    assert_balanced(&data->split[LB_TRAIN], 10);
    assert_balanced(&data->split[LB_TEST], 10);
    static const int32_t first[] = {9, 2, 1, 1, 6, 1, 4, 6, 5, 7};
    assert_memory_equal(data->split[LB_TEST].labels, first, sizeof first);
    assert_statistics(data, 2e-4);
    lb_data_destroy(data);
}

static void test_cifar10_jpeg(void **state) {
    scratch *s = *state;
    const char *path = LB_SOURCE_DIR "/../shared/data/cifar10-jpeg.tar.gz";
    if (!there(path))
        return;
    lb_data_config config = config_of("cifar10", path);
    config.cache = true;
    lb_data *data;
    double times[2];
    uint64_t sums[2] = {LB_HASH, LB_HASH};
    for (int i = 0; i < 2; i++) {
        double t = now();
        assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
        times[i] = now() - t;
        assert_int_equal(data->split[LB_TRAIN].count, 50000);
        assert_int_equal(data->split[LB_TEST].count, 10000);
        assert_int_equal(data->split[LB_TRAIN].c, 3);
        assert_balanced(&data->split[LB_TRAIN], 10);
        assert_string_equal(data->class_names[9], "truck");
        for (int split = 0; split < LB_SPLITS; split++) {
            sums[i] = lb_hash(sums[i], data->split[split].pixels, (size_t)data->split[split].count * 32 * 32 * 3 / 16);
            sums[i] = lb_hash(sums[i], data->split[split].labels, (size_t)data->split[split].count * sizeof(int32_t));
        }
        if (i == 0)
            lb_data_destroy(data);
    }
    assert_int_equal(sums[0], sums[1]);
    assert_int_equal(s->notes, 1);
    assert_statistics(data, 2e-3);
    printf("cifar10-jpeg: decoded in %.2f s, from the cache in %.2f s\n", times[0], times[1]);

    config.workers = 1;
    config.augment = (lb_augment_config){.pad = 4, .flip = true};
    lb_loader *loader;
    assert_ok(s->ctx, lb_loader_create(data, &config, 32, 32, 128, 1, &loader));
    double t = now();
    for (int epoch = 0; epoch < 4; epoch++) {
        assert_ok(s->ctx, lb_loader_start(loader, epoch, 0));
        for (int64_t i = 0; i < lb_loader_steps(loader); i++) {
            const lb_batch *batch;
            assert_ok(s->ctx, lb_loader_next(loader, &batch));
        }
    }
    printf("pad 4 + flip, one worker: %.0f images/s\n", 4 * 128 * (double)lb_loader_steps(loader) / (now() - t));
    lb_loader_destroy(loader);
    lb_data_destroy(data);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_fashion_mnist), TEST(test_cifar10_jpeg)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

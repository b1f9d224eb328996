/* The binary releases of CIFAR: planes to pixels, labels, class names, damage. */
#include "fixtures.h"

enum { PLANE = 32 * 32, PER_FILE = 4 };

static uint8_t pixel(int image, int p, int k) { return (uint8_t)(image * 31 + p + 85 * k); }

/* `n` records from image number `first` on; label bytes: coarse 99 (never to be read), then image % classes. */
static void put_records(const char *path, int first, int n, int label_bytes, int classes) {
    size_t record = (size_t)label_bytes + 3 * PLANE;
    uint8_t *bytes = calloc((size_t)n, record);
    for (int i = 0; i < n; i++) {
        uint8_t *r = bytes + (size_t)i * record;
        r[0] = 255;
        r[label_bytes - 1] = (uint8_t)((first + i) * 7 % classes);
        for (int k = 0; k < 3; k++)
            for (int p = 0; p < PLANE; p++)
                r[label_bytes + k * PLANE + p] = pixel(first + i, p, k);
    }
    put_file(path, bytes, (size_t)n * record);
    free(bytes);
}

static void put10(const char *dir) {
    char path[300];
    for (int i = 0; i < 6; i++) {
        if (i < 5)
            snprintf(path, sizeof path, "%s/data_batch_%d.bin", dir, i + 1);
        else
            snprintf(path, sizeof path, "%s/test_batch.bin", dir);
        put_records(path, PER_FILE * i, PER_FILE, 1, 10);
    }
}

static void check(const lb_data *data, int ntrain, int ntest, int first_test, int classes) {
    for (int split = 0; split < LB_SPLITS; split++) {
        const lb_images *images = &data->split[split];
        assert_int_equal(images->count, split ? ntest : ntrain);
        assert_int_equal(images->c, 3);
        for (int i = 0; i < images->count; i++) {
            int image = i + (split ? first_test : 0);
            assert_int_equal(images->labels[i], image * 7 % classes);
            for (int p = 0; p < PLANE; p++)
                for (int k = 0; k < 3; k++)
                    if (images->pixels[(i * PLANE + p) * 3 + k] != pixel(image, p, k))
                        fail_msg("image %d pixel %d channel %d", image, p, k);
        }
    }
}

static void test_cifar10(void **state) {
    scratch *s = *state;
    put10("data/cifar-10-batches-bin");
    static const char *const paths[] = {"", "data", "data/cifar-10-batches-bin"};
    for (size_t i = 0; i < LB_COUNT(paths); i++) {
        lb_data_config config = config_of(i == 2 ? "" : "cifar10", paths[i]);
        lb_data *data;
        assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
        check(data, 5 * PER_FILE, PER_FILE, 5 * PER_FILE, 10);
        assert_int_equal(data->classes, 10);
        assert_string_equal(data->class_names[6], "frog");
        assert_true(data->mean[0] == .4914f && data->mean[2] == .4465f && data->std[1] == .2435f);
        lb_data_destroy(data);
        config.train_limit = PER_FILE + 1;
        config.test_limit = 1;
        assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
        check(data, PER_FILE + 1, 1, 5 * PER_FILE, 10);
        lb_data_destroy(data);
    }
}

static void test_cifar100(void **state) {
    scratch *s = *state;
    put_records("data/cifar-100-binary/train.bin", 0, 20, 2, 100);
    put_records("data/cifar-100-binary/test.bin", 20, 5, 2, 100);
    lb_data_config config = config_of("cifar100", "");
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    check(data, 20, 5, 20, 100);
    assert_int_equal(data->classes, 100);
    assert_string_equal(data->class_names[99], "99");
    lb_data_destroy(data);

    char names[1000] = "";
    for (int i = 0; i < 100; i++)
        sprintf(names + strlen(names), i == 98 ? "thing\t%d\n" : "thing%d\n", i);
    put_file("data/cifar-100-binary/fine_label_names.txt", names, strlen(names));
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_string_equal(data->class_names[98], "thing?98");
    assert_string_equal(data->class_names[99], "thing99");
    lb_data_destroy(data);
}

static void test_damage(void **state) {
    scratch *s = *state;
    lb_data_config config = config_of("cifar10", "c");
    uint8_t byte = 10;

    put10("c");
    truncate("c/data_batch_3.bin", 5000);
    assert_load_fails(s->ctx, &config, "c/data_batch_3.bin", "truncated");
    truncate("c/data_batch_3.bin", 0);
    assert_load_fails(s->ctx, &config, "c/data_batch_3.bin", "truncated");
    remove("c/data_batch_3.bin");
    assert_load_fails(s->ctx, &config, "c/data_batch_3.bin", "No such file");
    mkdir("c/data_batch_3.bin", 0777);
    assert_load_fails(s->ctx, &config, "c/data_batch_3.bin", "truncated");
    rmdir("c/data_batch_3.bin");

    put10("c");
    FILE *file = fopen("c/test_batch.bin", "r+b");
    fseek(file, 2 * (1 + 3 * PLANE), SEEK_SET);
    fwrite(&byte, 1, 1, file);
    fclose(file);
    assert_load_fails(s->ctx, &config, "c/test_batch.bin", "label 10 of image 2 is out of range");
    remove("c/test_batch.bin");
    assert_load_fails(s->ctx, &config, "c/test_batch.bin", "unpack");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_cifar10), TEST(test_cifar100), TEST(test_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Where data sets are looked for, under which names, and what is said when they are nowhere. */
#include "fixtures.h"

static const char *const idx_names[4] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                                         "t10k-labels-idx1-ubyte"};

/* IDX files of n images of 2 x 2, so that it can be told by its size where a set came from. */
static void put_idx(const char *dir, int n) {
    for (int i = 0; i < 4; i++) {
        uint8_t bytes[256] = {0, 0, 8, i % 2 ? 1 : 3, 0, 0, 0, (uint8_t)n};
        char path[300];
        if (i % 2 == 0)
            bytes[11] = bytes[15] = 2;
        snprintf(path, sizeof path, "%s/%s", dir, idx_names[i]);
        put_file(path, bytes, i % 2 ? 8 + (size_t)n : 16 + 4 * (size_t)n);
    }
}

static void put_classes(const char *root, int classes, int size) {
    for (int split = 0; split < 2; split++)
        for (int k = 0; k < classes; k++) {
            char path[300];
            snprintf(path, sizeof path, "%s/%s/class%02d/1.png", root, split ? "test" : "train", k);
            put_image(path, k, size, size, 3);
        }
}

static void assert_found(scratch *s, const lb_data_config *config, int64_t count, const char *source) {
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, config, &data));
    assert_int_equal(data->split[LB_TRAIN].count, count);
    assert_string_equal(data->source, source);
    lb_data_destroy(data);
}

static void test_order(void **state) {
    scratch *s = *state;
    char here[300];
    snprintf(here, sizeof here, "%s/work", s->dir);
    mkdir(here, 0777);
    assert_int_equal(chdir(here), 0);
    lb_data_config config = config_of("mnist", "");
    assert_load_fails(s->ctx, &config, "mnist not found; looked in data, ../shared/data", "into data/mnist/");

    put_idx("../shared/data/mnist", 1);
    assert_found(s, &config, 1, "../shared/data/mnist");
    put_idx("data/MNIST/raw", 2); /* as torchvision leaves it */
    assert_found(s, &config, 2, "data/MNIST/raw");
    put_idx("data/mnist", 3);
    assert_found(s, &config, 3, "data/mnist");
    put_idx("two/mnist", 4);
    put_idx("one/other", 9);
    setenv("LOWBIT_DATA", "nowhere:one::two", 1);
    assert_found(s, &config, 4, "two/mnist");
    put_idx("one/mnist", 5);
    assert_found(s, &config, 5, "one/mnist");
    setenv("LOWBIT_DATA", "two/mnist/", 1); /* the set's own folder */
    assert_found(s, &config, 4, "two/mnist/");
    setenv("LOWBIT_DATA", "one/other", 1); /* might be anything */
    assert_found(s, &config, 3, "data/mnist");
    config = config_of("mnist", "one/other");
    assert_found(s, &config, 9, "one/other");
    config = config_of("mnist", "one"); /* a folder that holds it */
    assert_found(s, &config, 5, "one/mnist");

    /* A path that is wrong is not replaced by something else. */
    config = config_of("mnist", "one/wrong");
    assert_load_fails(s->ctx, &config, "one/wrong", "no such file");

    setenv("LOWBIT_DATA", "a:b", 1);
    config = config_of("cifar100", "");
    assert_load_fails(s->ctx, &config, "cifar100 not found; looked in a, b, data, ../shared/data;", "cifar-100-binary.tar.gz");
}

static void test_cifar_folder(void **state) {
    scratch *s = *state;
    lb_data_config config = config_of("cifar10", "");
    put_classes("data/cifar100-small", 12, 8);
    assert_load_fails(s->ctx, &config, "cifar10 not found", "cifar-10-binary.tar.gz");
    put_classes("data/cifar10-jpeg", 10, 8);
    mkdir("data/cifar10-empty", 0777); /* sorted before it, but not a data set */
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_string_equal(data->source, "data/cifar10-jpeg");
    assert_string_equal(data->class_names[9], "class09"); /* a folder's own names */
    assert_true(data->mean[0] == .4914f && data->std[2] == .2616f);
    lb_data_destroy(data);
    assert_int_equal(s->warnings, 0);

    config = config_of("cifar100", ""); /* with 12 classes: figures of its own, and a word about it */
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    assert_int_equal(data->classes, 12);
    assert_true(data->mean[0] != .5071f);
    assert_int_equal(s->warnings, 1);
    lb_data_destroy(data);
}

static void test_names(void **state) {
    scratch *s = *state;
    lb_data_config config = config_of("cifar11", "");
    assert_load_fails(s->ctx, &config, "cifar11", "did you mean cifar10");
    config = config_of("qqqqqqqqqqqq", "");
    assert_load_fails(s->ctx, &config, "qqqqqqqqqqqq", "lowbit list data");
    config = config_of("no/such/path", "");
    assert_load_fails(s->ctx, &config, "no/such/path", "no such file");
    config = config_of("", "");
    assert_load_fails(s->ctx, &config, "data.path", "");
    config = config_of("mnist", "");
    config.size = -1;
    assert_load_fails(s->ctx, &config, "size", "");

    lb_list_row row;
    int n = 0;
    for (; lb_data_row(n, &row); n++)
        assert_true(row.name[0] && row.help[0]);
    assert_int_equal(n, 5);
}

static void test_spec(void **state) {
    scratch *s = *state;
    lb_data *data;
    put_idx("data/mnist", 3);
    put_idx("elsewhere", 6);
    put_classes("data/cifar10-jpeg", 10, 8);
    put_classes("photos", 10, 12);
    assert_ok(s->ctx, lb_data_from_spec(s->ctx, "mnist", NULL, &data));
    assert_int_equal(data->split[LB_TRAIN].count, 3);
    lb_data_destroy(data);
    assert_ok(s->ctx, lb_data_from_spec(s->ctx, "elsewhere", NULL, &data));
    assert_int_equal(data->split[LB_TRAIN].count, 6);
    lb_data_destroy(data);

    lb_data_config base = config_of("mnist", "elsewhere");
    assert_ok(s->ctx, lb_data_from_spec(s->ctx, "mnist", &base, &data)); /* the very one */
    assert_int_equal(data->split[LB_TRAIN].count, 6);
    lb_data_destroy(data);

    base = config_of("cifar10", "");
    base.size = 8;
    assert_ok(s->ctx, lb_data_from_spec(s->ctx, "photos", &base, &data)); /* other images, prepared as those it was trained on */
    assert_int_equal(data->split[LB_TEST].h, 8);
    assert_true(data->mean[0] == .4914f && data->std[2] == .2616f);
    lb_data_destroy(data);
    assert_int_equal(lb_data_from_spec(s->ctx, "fotos/", &base, &data), LB_ERR_IO);
    assert_null(data);
    assert_non_null(strstr(lb_error(s->ctx), "fotos/"));
    assert_int_equal(lb_data_from_spec(s->ctx, "cifar", &base, &data), LB_ERR_RECIPE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_order), TEST(test_cifar_folder), TEST(test_names), TEST(test_spec)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

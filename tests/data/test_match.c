/* Labels of data sets that lack or rename classes. */
#include "fixtures.h"

static lb_data *load(scratch *s, const char *root) {
    const lb_data_config config = config_of("folder", root);
    lb_data *data;
    assert_ok(s->ctx, lb_data_load(s->ctx, &config, &data));
    return data;
}

static void test_by_name(void **state) {
    scratch *s = *state;
    put_class("ac", "a", 0);
    put_class("ac", "c", 1);
    lb_data *data = load(s, "ac");
    assert_ok(s->ctx, lb_data_match(data, "net", 3, (const char *const[]){"c", "b", "a"}));
    for (int split = 0; split < LB_SPLITS; split++) {
        assert_int_equal(data->split[split].labels[0], 2);
        assert_int_equal(data->split[split].labels[1], 0);
    }
    assert_int_equal(data->classes, 3);
    assert_string_equal(data->class_names[1], "b");
    assert_int_equal(s->warnings, 0);
    lb_data_destroy(data);
}

static void test_other_names(void **state) {
    scratch *s = *state;
    put_class("ac", "a", 0);
    put_class("ac", "c", 1);
    lb_data *data = load(s, "ac");
    assert_int_equal(lb_data_match(data, "net", 3, (const char *const[]){"a", "x", "y"}), LB_ERR_SHAPE);
    assert_non_null(strstr(lb_error(s->ctx), "ac: net knows no class called c; pass data with its classes"));
    assert_ok(s->ctx, lb_data_match(data, "net", 3, NULL));
    assert_ok(s->ctx, lb_data_match(data, "net", 2, (const char *const[]){"a", ""}));
    assert_int_equal(s->warnings, 0);
    assert_ok(s->ctx, lb_data_match(data, "net", 2, (const char *const[]){"a", "x"}));
    assert_int_equal(s->warnings, 1);
    assert_non_null(strstr(s->warning, "ac: class 1 is called c, but x in net; its classes are taken by number"));
    assert_int_equal(data->split[LB_TEST].labels[1], 1);
    lb_data_destroy(data);

    put_class("numbers", "0", 0);
    put_class("numbers", "1", 1);
    data = load(s, "numbers");
    assert_ok(s->ctx, lb_data_match(data, "net", 3, (const char *const[]){"a", "b", "c"}));
    assert_int_equal(s->warnings, 1);
    lb_data_destroy(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_by_name, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_other_names, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The description of a data set in a checkpoint: there and back, and hostile ones. */
#include "fixtures.h"

static lb_data known(lb_ctx *ctx) {
    static const char *names[] = {"cat", "\xff", "d\n\x7fog"};
    lb_data data = {
        .ctx = ctx, .source = "here", .classes = 3, .class_names = names, .mean = {.1f, .2f, .3f}, .std = {.4f, .5f, .6f}};
    data.split[LB_TRAIN] = (lb_images){.count = 12, .h = 5, .w = 7, .c = 3};
    return data;
}

static void test_there_and_back(void **state) {
    scratch *s = *state;
    lb_data data = known(s->ctx), *back;
    lb_pool pool;
    lb_pool_init(&pool, s->ctx);
    for (int named = 0; named < 2; named++) {
        data = known(s->ctx);
        if (!named)
            data.class_names = NULL;
        const char *text = lb_data_describe(&data, &pool);
        assert_non_null(text);
        assert_ok(s->ctx, lb_data_described(s->ctx, &(lb_data_config){.size = 9}, text, &back));
        const lb_images *images = &back->split[LB_TRAIN];
        assert_true(images->h == 5 && images->w == 7 && images->c == 3 && images->count == 12 && !images->pixels);
        assert_int_equal(back->classes, 3);
        assert_int_equal(back->config.size, 9);
        assert_string_equal(back->source, "here");
        assert_memory_equal(back->mean, data.mean, sizeof data.mean);
        assert_memory_equal(back->std, data.std, sizeof data.std);
        assert_int_equal(back->class_names != NULL, named);
        if (named) {
            assert_string_equal(back->class_names[0], "cat");
            assert_string_equal(back->class_names[1], ""); /* was no UTF-8 */
            assert_string_equal(back->class_names[2], "d??og"); /* as packed models may hold it */
        }
        lb_data_destroy(back);
    }
    data.source = "caf\xe9"; /* a path that is no UTF-8 */
    const char *text = lb_data_describe(&data, &pool);
    assert_non_null(text);
    assert_ok(s->ctx, lb_data_described(s->ctx, &(lb_data_config){.size = 9}, text, &back));
    assert_string_equal(back->source, "the data set");
    lb_data_destroy(back);
    lb_pool_free(&pool);
}

static void test_hostile(void **state) {
    scratch *s = *state;
#define SHAPE(h, w, c, count) "{\"height\":" #h ",\"width\":" #w ",\"channels\":" #c ",\"count\":" #count
#define REST ",\"mean\":[0,0,0,0],\"std\":[1,1,1,1]}"
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{",
        SHAPE(5, 5, 3, 1) "}",
        SHAPE(0, 5, 3, 1) ",\"classes\":2,\"names\":[]" REST,
        SHAPE(5, 70000, 3, 1) ",\"classes\":2,\"names\":[]" REST,
        SHAPE(5, 5, 5, 1) ",\"classes\":2,\"names\":[]" REST,
        SHAPE(5, 5, -1, 1) ",\"classes\":2,\"names\":[]" REST,
        SHAPE(5, 5, 3, 0) ",\"classes\":2,\"names\":[]" REST,
        SHAPE(5, 5, 3, 1) ",\"classes\":0,\"names\":[]" REST,
        SHAPE(5, 5, 3, 1) ",\"classes\":2000000000,\"names\":[]" REST,
        SHAPE(5, 5, 3, 1) ",\"classes\":2,\"names\":[\"a\"]" REST,
        SHAPE(5, 5, 3, 1) ",\"classes\":2,\"names\":[\"a\",1]" REST,
        SHAPE(5, 5, 3, 1) ",\"classes\":2,\"names\":{}" REST "x",
        SHAPE(5, 5, 3, 1) ",\"classes\":2,\"names\":[],\"mean\":[0,0],\"std\":[1,1,1,1]}",
        SHAPE(5, 5, 3, 1) ",\"classes\":2,\"names\":[],\"mean\":[0,0,0,1e300],\"std\":[1,1,1,1]}",
        SHAPE(5, 5, 3, 1) ",\"classes\":2,\"names\":[],\"mean\":[0,0,0,0],\"std\":[1,0,1,1]}",
    };
    for (size_t i = 0; i < LB_COUNT(texts); i++) {
        lb_data *data;
        if (lb_data_described(s->ctx, &(lb_data_config){.size = 0}, texts[i], &data) != LB_ERR_FORMAT)
            fail_msg("taken for a description: %s", texts[i]);
        assert_null(data);
    }
    lb_data *data;
    static const char *const most = SHAPE(5, 5, 3, 1) ",\"classes\":1048576,\"names\":[]" REST; /* as many as folders may have */
    assert_ok(s->ctx, lb_data_described(s->ctx, &(lb_data_config){.size = 0}, most, &data));
    lb_data_destroy(data);
    /* The frame around those is right. */
    assert_ok(s->ctx,
              lb_data_described(s->ctx, &(lb_data_config){.size = 0}, SHAPE(5, 5, 3, 1) ",\"classes\":2,\"names\":[]" REST, &data));
    lb_data_destroy(data);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_there_and_back), TEST(test_hostile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

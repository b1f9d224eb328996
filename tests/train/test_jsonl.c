/* The JSON-lines log: what is written, what is kept on resuming. */
#include <math.h>
#include <unistd.h>

#include "support.h"
#include "train/jsonl.h"

static char path[] = "/tmp/lb-test-jsonl-XXXXXX";

static int setup(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state) {
    (void)state;
    return unlink(path);
}

static void assert_file(lb_ctx *ctx, const char *want) {
    unsigned char *text;
    size_t size;
    assert_ok(ctx, lb_read_file(ctx, path, 1 << 20, &text, &size));
    assert_string_equal((char *)text, want);
    lb_free(ctx, text);
}

static void put_file(const char *text) {
    FILE *f = fopen(path, "wb");
    fputs(text, f);
    fclose(f);
}

static void log_steps(lb_ctx *ctx, int64_t resume, int from, int to) {
    lb_jsonl *log;
    assert_ok(ctx, lb_jsonl_open(ctx, path, resume, &log));
    for (int step = from; step <= to; step++) {
        json_t *line = json_pack("{s:i, s:o}", "step", step, "loss", lb_json_number(1.0 / (step + 1)));
        assert_ok(ctx, lb_jsonl_write(log, line));
        json_decref(line);
    }
    lb_jsonl_destroy(log);
}

static void lines(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_jsonl *log;
    put_file("old\n");
    assert_ok(ctx, lb_jsonl_open(ctx, path, -1, &log)); /* a new run: nothing of the old */
    assert_file(ctx, "");
    json_t *line =
        json_pack("{s:i, s:o, s:o, s:s}", "step", 3, "loss", lb_json_number(0.1), "top1", lb_json_number(NAN), "note", "a\nb");
    assert_ok(ctx, lb_jsonl_write(log, line));
    assert_file(ctx, "{\"step\": 3, \"loss\": 0.1, \"top1\": null, \"note\": \"a\\nb\"}\n"); /* there before anything is closed */
    assert_ok(ctx, lb_jsonl_write(log, line));
    assert_int_equal(lb_jsonl_write(log, NULL), LB_ERR_MEMORY);
    json_t *array = json_array();
    assert_int_equal(lb_jsonl_write(log, array), LB_ERR_ARGUMENT);
    json_decref(array);
    assert_ok(ctx, lb_jsonl_write(log, line)); /* and goes on after a wrong argument */
    json_decref(line);
    lb_jsonl_destroy(log);
    lb_jsonl_destroy(NULL);
    lb_ctx_destroy(ctx);
}

/* A finished run that goes on is not finished, whether it gets to another epoch or not. */
static void end_of_run(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_jsonl *log;
    put_file("{\"event\": \"epoch\", \"step\": 3}\n{\"event\": \"done\", \"step\": 3}\n");
    assert_ok(ctx, lb_jsonl_open(ctx, path, 3, &log));
    assert_file(ctx, "{\"event\": \"epoch\", \"step\": 3}\n");
    lb_jsonl_destroy(log);
    lb_ctx_destroy(ctx);
}

static void numbers(void **state) {
    (void)state;
    static const double values[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < LB_COUNT(values); i++) {
        json_t *n = lb_json_number(values[i]);
        assert_true(json_is_null(n));
        json_decref(n);
    }
    json_t *n = lb_json_number(-2.5);
    assert_true(json_real_value(n) == -2.5);
    json_decref(n);
}

/* Stopped anywhere, with any lead of the log over the checkpoint: the same file as without stopping. */
static void resumed_equals_uninterrupted(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char *whole;
    size_t size;
    log_steps(ctx, -1, 0, 9);
    assert_ok(ctx, lb_read_file(ctx, path, 1 << 20, &whole, &size));
    for (int killed = 0; killed <= 9; killed++)
        for (int saved = 0; saved <= killed; saved++)
            for (int torn = 0; torn < 2; torn++) {
                log_steps(ctx, -1, 0, killed);
                if (torn) {
                    FILE *f = fopen(path, "ab");
                    fputs("{\"step\": 5, \"lo", f);
                    fclose(f);
                }
                log_steps(ctx, saved, saved + 1, 9);
                assert_file(ctx, (char *)whole);
            }
    lb_free(ctx, whole);
    assert_int_equal(unlink(path), 0);
    log_steps(ctx, 3, 4, 5); /* no log yet: fine */
    log_steps(ctx, 4, 6, 6);
    assert_file(ctx, "{\"step\": 4, \"loss\": 0.2}\n{\"step\": 6, \"loss\": 0.142857142857}\n");
    lb_ctx_destroy(ctx);
}

static void what_is_kept(void **state) {
    (void)state;
    static const struct {
        const char *before;
        int64_t step;
        const char *after;
    } rows[] = {
        {"", 5, ""},
        {"{\"step\":5}\n", 5, "{\"step\":5}\n"},
        {"{\"step\":6}\n", 5, ""},
        {"{\"step\":6}\n", 0, ""},
        {"{\"run\":1}\n{\"step\":1}\n{\"note\":1}\n{\"step\":2}\n{\"note\":2}\n", 1, "{\"run\":1}\n{\"step\":1}\n{\"note\":1}\n"},
        {"{\"step\":1}\n{\"step\":9}\n{\"step\":2}\n", 5, "{\"step\":1}\n{\"step\":2}\n"},
        {"{ \"step\" : 1 , \"x\": [1, 2] }\n", 5, "{ \"step\" : 1 , \"x\": [1, 2] }\n"}, /* byte for byte */
        {"{\"step\":1}", 5, ""},
        {"{\"step\":1}\n{\"st", 5, "{\"step\":1}\n"},
        {"{\"step\":4000000000}\n{\"step\":4000000001}\n", 4000000000, "{\"step\":4000000000}\n"},
    };
    lb_ctx *ctx = test_ctx();
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        lb_jsonl *log;
        put_file(rows[i].before);
        assert_ok(ctx, lb_jsonl_open(ctx, path, rows[i].step, &log));
        assert_file(ctx, rows[i].after);
        lb_jsonl_destroy(log);
    }
    lb_ctx_destroy(ctx);
}

static void errors(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_jsonl *log = (lb_jsonl *)ctx;
    put_file("{\"step\": 1}\nwhat is this\n{\"step\": 2}\n");
    assert_int_equal(lb_jsonl_open(ctx, path, 5, &log), LB_ERR_FORMAT);
    assert_null(log);
    assert_non_null(strstr(lb_error(ctx), path));
    assert_non_null(strstr(lb_error(ctx), ":2: not a line of JSON"));
    assert_file(ctx, "{\"step\": 1}\nwhat is this\n{\"step\": 2}\n"); /* untouched */
    assert_int_equal(lb_jsonl_open(ctx, "/nowhere/x.jsonl", -1, &log), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "/nowhere/x.jsonl: cannot write: No such file"));
    assert_int_equal(lb_jsonl_open(ctx, "/tmp", 3, &log), LB_ERR_IO);
    assert_ok(ctx, lb_jsonl_open(ctx, "/dev/full", -1, &log));
    json_t *line = json_pack("{s:i}", "step", 1);
    for (int i = 0; i < 3; i++) {
        lb_fail(ctx, LB_OK, "-");
        assert_int_equal(lb_jsonl_write(log, line), LB_ERR_IO);
        assert_non_null(strstr(lb_error(ctx), "/dev/full: cannot write: No space left"));
    }
    json_decref(line);
    lb_jsonl_destroy(log);
    lb_ctx_destroy(ctx);
}

static void without_memory(void **state) {
    (void)state;
    lb_status status = LB_ERR_MEMORY;
    for (int blocks = 1; status != LB_OK; blocks++) {
        put_file("{\"step\":1}\n{\"step\":2}\n");
        assert_true(blocks < 20);
        test_allocator a = {.left = blocks};
        lb_ctx *ctx = test_ctx_with(&a);
        lb_jsonl *log;
        status = lb_jsonl_open(ctx, path, 1, &log);
        assert_true(status == LB_OK ? blocks > 3 : status == LB_ERR_MEMORY && !log);
        lb_jsonl_destroy(log);
        lb_ctx_destroy(ctx);
        assert_int_equal(a.alive, 0);
    }
    lb_ctx *ctx = test_ctx();
    assert_file(ctx, "{\"step\":1}\n");
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(end_of_run),
        cmocka_unit_test(numbers), cmocka_unit_test(resumed_equals_uninterrupted),
        cmocka_unit_test(what_is_kept), cmocka_unit_test(errors),  cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

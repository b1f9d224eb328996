/* Context, messages, events, memory. */
#include <math.h>
#include <signal.h>

#include "support.h"

static void status_names(void **state) {
    (void)state;
    for (int i = LB_OK; i <= LB_ERR_BACKEND; i++) {
        assert_string_not_equal(lb_status_name((lb_status)i), "unknown status");
        for (int j = LB_OK; j < i; j++)
            assert_string_not_equal(lb_status_name((lb_status)i), lb_status_name((lb_status)j));
    }
    assert_string_equal(lb_status_name((lb_status)99), "unknown status");
    assert_string_equal(lb_status_name(LB_ERR_MEMORY), "out of memory");
}

/* Not killed for what Linux promises and does not have. */
static void more_than_there_is(void **state) {
    (void)state;
    const int64_t available = lb_available_memory();
    assert_true(available > 0);
    if (available == INT64_MAX)
        skip();
    lb_ctx *ctx = test_ctx();
    const size_t size = (size_t)available + ((size_t)256 << 20);
    assert_null(lb_alloc(ctx, size, 1));
    assert_non_null(strstr(lb_error(ctx), "out of memory"));
    unsigned char *block = lb_alloc(ctx, 256 << 20, 1);
    assert_non_null(block);
    assert_int_equal(block[0] | block[(256 << 20) - 1], 0);
    lb_free(ctx, block);
    lb_ctx_destroy(ctx);
}

static void create(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    assert_true(lb_threads(ctx) >= 1);
    assert_string_equal(lb_error(ctx), "");
    assert_false(lb_interrupted(ctx));
    lb_interrupt(ctx);
    assert_true(lb_interrupted(ctx));
    lb_ctx_destroy(ctx);
    lb_ctx_destroy(NULL);

    lb_ctx_options options = {.threads = 3};
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
    assert_int_equal(lb_threads(ctx), 3);
    lb_ctx_destroy(ctx);
    options.threads = -1;
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_ERR_ARGUMENT);
    assert_null(ctx);
    options = (lb_ctx_options){.allocator = {.alloc = test_alloc}}; /* no free */
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_ERR_ARGUMENT);
    assert_null(ctx);
    assert_int_equal(lb_ctx_create(NULL, NULL), LB_ERR_ARGUMENT);
}

static void create_without_memory(void **state) {
    (void)state;
    test_allocator a = {.left = 0};
    lb_ctx_options options = {.allocator = {test_alloc, test_dealloc, &a}};
    lb_ctx *ctx = (lb_ctx *)&a;
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_ERR_MEMORY);
    assert_null(ctx);
    a.left = 1;
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
    assert_int_equal(a.alive, 1);
    lb_ctx_destroy(ctx);
    assert_int_equal(a.alive, 0);
}

static void messages(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    assert_int_equal(lb_fail(ctx, LB_ERR_FORMAT, "%s: magic 0x%08x", "a\nb\r\x1b[31m", 7), LB_ERR_FORMAT);
    assert_string_equal(lb_error(ctx), "a b  [31m: magic 0x00000007");
    assert_int_equal(lb_fail_in(ctx, LB_ERR_SHAPE, "layer %d", 3), LB_ERR_SHAPE);
    assert_string_equal(lb_error(ctx), "layer 3: a b  [31m: magic 0x00000007");
    lb_fail(ctx, LB_ERR_FORMAT, "again: %s", lb_error(ctx)); /* the old message as an argument of the new one */
    assert_string_equal(lb_error(ctx), "again: layer 3: a b  [31m: magic 0x00000007");
    assert_int_equal(lb_fail(NULL, LB_ERR_IO, "no context"), LB_ERR_IO);
    assert_int_equal(lb_fail_in(NULL, LB_ERR_IO, "no context"), LB_ERR_IO);
    assert_string_equal(lb_error(NULL), "");
    lb_ctx_destroy(ctx);
}

/* Every length around the buffer's, with text of 1-, 2- and 3-byte characters: cut, marked, ended, never inside a character. */
static void long_messages(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const char *const units[] = {"x", "\xC3\xA9", "\xE2\x82\xAC"};
    for (size_t u = 0; u < LB_COUNT(units); u++)
        for (size_t length = 1000; length < 1100; length++) {
            char text[1200] = "ppppppp";
            size_t width = strlen(units[u]), pad = length % 8, used = pad;
            for (text[used] = 0; used + width <= length; used += width)
                memcpy(text + used, units[u], width + 1);
            lb_fail(ctx, LB_ERR_IO, "%s", text);
            size_t got = strlen(ctx->error);
            if (used < sizeof ctx->error) {
                assert_string_equal(ctx->error, text);
            } else {
                assert_true(got < sizeof ctx->error && got > sizeof ctx->error - 8);
                assert_string_equal(ctx->error + got - 3, "...");
                assert_int_equal((got - 3 - pad) % width, 0);
            }
        }
    char name[3000];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    lb_fail(ctx, LB_ERR_IO, "the reason");
    lb_fail_in(ctx, LB_ERR_IO, "%s", name);
    assert_non_null(strstr(lb_error(ctx), "nnn: the reason")); /* the reason survives a long name */
    for (int i = 0; i < 50; i++)
        lb_fail_in(ctx, LB_ERR_IO, "prefix number %d", i);
    assert_true(strlen(lb_error(ctx)) < sizeof ctx->error);
    assert_memory_equal(lb_error(ctx), "prefix number 49: prefix number 48", 34);
    lb_ctx_destroy(ctx);
}

typedef struct seen {
    int count;
    lb_event last;
    char text[2048];
} seen;

static void remember(void *user, const lb_event *event) {
    seen *s = user;
    s->count++;
    s->last = *event;
    snprintf(s->text, sizeof s->text, "%s", event->text);
}

static void events(void **state) {
    (void)state;
    seen s = {0};
    lb_ctx *ctx;
    lb_ctx_options options = {.report = remember, .user = &s};
    assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
    lb_note(ctx, "wrote %s", "x\ny");
    assert_int_equal(s.last.kind, LB_EVENT_NOTE);
    assert_string_equal(s.text, "wrote x y");
    lb_warn(ctx, "%d odd", 2);
    assert_int_equal(s.last.kind, LB_EVENT_WARNING);
    assert_string_equal(s.text, "2 odd");
    lb_progress(ctx, "reading", 3, 9);
    assert_int_equal(s.last.kind, LB_EVENT_PROGRESS);
    assert_int_equal(s.last.done, 3);
    assert_int_equal(s.last.total, 9);
    assert_true(isnan(s.last.loss) && isnan(s.last.top1) && isnan(s.last.rate));
    lb_report(ctx, &(lb_event){.kind = LB_EVENT_EPOCH, .text = "epoch", .loss = 1.5});
    assert_int_equal(s.last.kind, LB_EVENT_EPOCH);
    assert_true(s.last.loss == 1.5);
    assert_int_equal(s.count, 4);
    assert_string_equal(lb_error(ctx), ""); /* none of them is an error */
    lb_ctx_destroy(ctx);

    ctx = test_ctx(); /* silence */
    lb_note(ctx, "nobody hears this");
    lb_warn(ctx, "nor this");
    lb_progress(ctx, "nor this", 0, 1);
    lb_ctx_destroy(ctx);
}

static lb_ctx *signalled;
static void on_signal(int number) {
    (void)number;
    lb_interrupt(signalled);
}

static void interrupt_from_signal(void **state) {
    (void)state;
    signalled = test_ctx();
    void (*before)(int) = signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    assert_true(lb_interrupted(signalled));
    signal(SIGUSR1, before);
    lb_ctx_destroy(signalled);
}

static void memory(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const size_t counts[] = {0, 1, 63, 64, 65, 1000, 1 << 20};
    for (size_t i = 0; i < LB_COUNT(counts); i++) {
        unsigned char *p = lb_alloc(ctx, counts[i], 3);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % LB_ALIGN, 0);
        for (size_t j = 0; j < counts[i] * 3; j++)
            assert_int_equal(p[j], 0);
        memset(p, 0xA5, counts[i] * 3); /* so that the next block is not zero by chance */
        lb_free(ctx, p);
    }
    lb_free(ctx, NULL);
    void *none = lb_alloc(ctx, 5, 0);
    assert_non_null(none);
    lb_free(ctx, none);

    assert_null(lb_alloc(ctx, SIZE_MAX / 2, 3));
    assert_non_null(strstr(lb_error(ctx), "out of memory"));
    assert_null(lb_alloc(ctx, 3, SIZE_MAX / 2));
    assert_null(lb_alloc(ctx, SIZE_MAX, 1)); /* rounding up must not wrap */
    assert_null(lb_alloc(ctx, SIZE_MAX - 63, 1));
    assert_null(lb_alloc(ctx, (size_t)1 << 63, 2));
    lb_ctx_destroy(ctx);
}

static void grow(void **state) {
    (void)state;
    test_allocator a = {.left = 1000};
    lb_ctx *ctx = test_ctx_with(&a);
    int *array = NULL;
    size_t capacity = 0;
    for (size_t n = 1; n <= 1000; n++) {
        assert_ok(ctx, lb_grow(ctx, &array, &capacity, n, sizeof *array));
        assert_true(capacity >= n);
        array[n - 1] = (int)n;
    }
    for (size_t n = 1; n <= 1000; n++)
        assert_int_equal(array[n - 1], n);
    for (size_t n = 1000; n < capacity; n++)
        assert_int_equal(array[n], 0);
    assert_true(1000 - a.left < 15); /* doubling, not one by one */
    size_t before = capacity;
    int *same = array;
    assert_int_equal(lb_grow(ctx, &array, &capacity, SIZE_MAX / 2, sizeof *array), LB_ERR_MEMORY);
    a.left = 0;
    assert_int_equal(lb_grow(ctx, &array, &capacity, before + 1, sizeof *array), LB_ERR_MEMORY);
    assert_ptr_equal(array, same); /* a failure leaves all as it was */
    assert_int_equal(capacity, before);
    assert_int_equal(array[999], 1000);
    lb_free(ctx, array);
    lb_ctx_destroy(ctx);
    assert_int_equal(a.alive, 0);
}

static void pool(void **state) {
    (void)state;
    test_allocator a = {.left = 6};
    lb_ctx *ctx = test_ctx_with(&a);
    lb_pool p;
    lb_pool_init(&p, ctx);
    for (int round = 0; round < 2; round++) {
        a.left = 4;
        unsigned char *x = lb_pool_alloc(&p, 100, 7);
        assert_int_equal((uintptr_t)x % LB_ALIGN, 0);
        for (int i = 0; i < 700; i++)
            assert_int_equal(x[i], 0);
        memset(x, 0xFF, 700);
        char *copy = lb_pool_strdup(&p, "hello");
        assert_string_equal(copy, "hello");
        char *made = lb_pool_printf(&p, "%s-%05d", copy, 42);
        assert_string_equal(made, "hello-00042");
        assert_non_null(lb_pool_alloc(&p, 0, 8));
        assert_null(lb_pool_alloc(&p, 1, 1));
        assert_null(lb_pool_strdup(&p, "x"));
        assert_null(lb_pool_printf(&p, "%d", 1));
        a.left = 1;
        assert_null(lb_pool_alloc(&p, SIZE_MAX, 1));
        assert_null(lb_pool_alloc(&p, SIZE_MAX / 4, 5));
        assert_null(lb_pool_alloc(&p, (SIZE_MAX - 32) / 8, 8)); /* fits, but not with the block's head */
        assert_int_equal(a.left, 1);
        assert_int_equal(a.alive, 5);
        lb_pool_release(&p, copy);
        lb_pool_release(&p, NULL);
        assert_int_equal(a.alive, 4);
        assert_string_equal(made, "hello-00042");
        lb_pool_free(&p);
        assert_int_equal(a.alive, 1);
    }
    lb_pool_free(&p);
    lb_ctx_destroy(ctx);
    assert_int_equal(a.alive, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_names),
        cmocka_unit_test(create), cmocka_unit_test(more_than_there_is),
        cmocka_unit_test(create_without_memory),
        cmocka_unit_test(messages),
        cmocka_unit_test(long_messages),
        cmocka_unit_test(events),
        cmocka_unit_test(memory),
        cmocka_unit_test(grow),
        cmocka_unit_test(pool),
        cmocka_unit_test(interrupt_from_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

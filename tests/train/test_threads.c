/* Threads that the system has no room for are an error: OpenMP would end the process. */
#include "support.h"
#include "train/threads.h"

static void no_room(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    assert_ok(ctx, lb_start_threads(ctx, 4));
    assert_int_equal(setenv("OMP_STACKSIZE", " 8192 g", 1), 0); /* 100 of them are more than a process can address */
    assert_int_equal(lb_start_threads(ctx, 100), LB_ERR_MEMORY);
    assert_non_null(strstr(lb_error(ctx), "cannot start 100 threads: "));
    assert_ok(ctx, lb_start_threads(ctx, 1));
    assert_int_equal(setenv("OMP_STACKSIZE", "512", 1), 0);
    assert_ok(ctx, lb_start_threads(ctx, 4));
    assert_int_equal(unsetenv("OMP_STACKSIZE"), 0);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

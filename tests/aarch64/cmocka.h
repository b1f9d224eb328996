/* As much of cmocka as the test of the kernels needs: the first failure ends the program. */
#ifndef LB_TEST_CMOCKA_H
#define LB_TEST_CMOCKA_H

#define fail_msg(...)                                 \
    do {                                              \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
        fprintf(stderr, __VA_ARGS__);                 \
        fputc('\n', stderr);                          \
        exit(1);                                      \
    } while (0)
#define assert_true(condition) \
    do {                       \
        if (!(condition))      \
            fail_msg("%s", #condition); \
    } while (0)
#define assert_int_equal(a, b) assert_true((a) == (b))
#define assert_non_null(ptr) assert_true((ptr) != NULL)
#define assert_in_range(v, lo, hi) assert_true((uint64_t)(v) >= (uint64_t)(lo) && (uint64_t)(v) <= (uint64_t)(hi))

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(test) {#test, test}

static inline int run_tests(const struct CMUnitTest *tests, size_t count) {
    for (size_t i = 0; i < count; i++) {
        printf("%s\n", tests[i].name);
        tests[i].run(NULL);
    }
    return 0;
}
#define cmocka_run_group_tests(tests, setup, teardown) run_tests(tests, sizeof(tests) / sizeof *(tests))

#endif

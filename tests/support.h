/* What every test includes: cmocka and its prerequisites, a context that fails the test on error, a failing allocator, and a
 * context that remembers what was reported. */
#ifndef LB_TEST_SUPPORT_H
#define LB_TEST_SUPPORT_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/core.h"

/* Fails the test with the context's message. */
#define assert_ok(ctx, call)                                                            \
    do {                                                                                \
        lb_status status_ = (call);                                                     \
        if (status_ != LB_OK)                                                           \
            fail_msg("%s: %s: %s", #call, lb_status_name(status_), lb_error(ctx));      \
    } while (0)

static inline lb_ctx *test_ctx(void) {
    lb_ctx *ctx;
    if (lb_ctx_create(NULL, &ctx) != LB_OK)
        fail_msg("no context");
    return ctx;
}

/* Random bytes, whole blocks of 4. */
static inline void test_bytes(uint64_t seed, uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i += 4) {
        uint32_t bits[4];
        lb_rng4(seed, LB_RNG_TEST, 1, i, bits);
        for (size_t k = 0; k < 4; k++)
            bytes[i + k] = (uint8_t)(bits[k] >> 24);
    }
}

/* An allocator that gives out `left` blocks and then NULL, and counts what is alive. */
typedef struct test_allocator {
    long left, alive;
} test_allocator;

static inline void *test_alloc(void *user, size_t size) {
    test_allocator *a = user;
    if (a->left <= 0)
        return NULL;
    a->left--;
    void *ptr = aligned_alloc(64, (size + 63) / 64 * 64 + (size == 0) * 64);
    a->alive += ptr != NULL;
    return ptr;
}

static inline void test_dealloc(void *user, void *ptr) {
    test_allocator *a = user;
    a->alive -= ptr != NULL;
    free(ptr);
}

static inline lb_ctx *test_ctx_with(test_allocator *a) {
    lb_ctx *ctx = NULL;
    lb_ctx_options options = {.allocator = {test_alloc, test_dealloc, a}};
    if (lb_ctx_create(&options, &ctx) != LB_OK)
        return NULL;
    return ctx;
}

/* Calls `run`, which leaves its allocator `left` blocks from where it wants, with left = 0, 1, ... until it succeeds: it must fail
 * for lack of memory until then, and leak nothing. Returns how many blocks it took. */
static inline long test_memory_runs_out(lb_status (*run)(lb_ctx *ctx, test_allocator *a, long left)) {
    for (long left = 0;; left++) {
        test_allocator a = {.left = LONG_MAX};
        lb_ctx *ctx = test_ctx_with(&a);
        const lb_status status = run(ctx, &a, left);
        if (status != LB_OK) {
            assert_int_equal(status, LB_ERR_MEMORY);
            assert_non_null(strstr(lb_error(ctx), "memory"));
        }
        lb_ctx_destroy(ctx);
        assert_int_equal(a.alive, 0);
        if (status == LB_OK)
            return left;
    }
}

/* A context that remembers what was reported. */
typedef struct test_log {
    char notes[4096], warnings[4096];
    int nwarnings;
} test_log;

static inline void test_report(void *user, const lb_event *event) {
    test_log *log = user;
    char *to = event->kind == LB_EVENT_WARNING ? log->warnings : log->notes;
    size_t used = strlen(to);
    snprintf(to + used, sizeof log->notes - used, "%s\n", event->text);
    log->nwarnings += event->kind == LB_EVENT_WARNING;
}

static inline lb_ctx *test_ctx_logging(test_log *log) {
    lb_ctx *ctx;
    lb_ctx_options options = {.report = test_report, .user = log};
    memset(log, 0, sizeof *log);
    if (lb_ctx_create(&options, &ctx) != LB_OK)
        fail_msg("no context");
    return ctx;
}

static inline void test_contains(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("'%s' is not in '%s'", part, text);
}

#endif

/* The context: options, messages, events, interruption. */
#define _GNU_SOURCE /* sched_getaffinity, madvise */
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/core.h"

const char *lb_status_name(lb_status status) {
    switch (status) {
    case LB_OK: return "ok";
    case LB_ERR_ARGUMENT: return "wrong argument";
    case LB_ERR_MEMORY: return "out of memory";
    case LB_ERR_IO: return "input/output error";
    case LB_ERR_FORMAT: return "wrong format";
    case LB_ERR_RECIPE: return "wrong recipe";
    case LB_ERR_SHAPE: return "shapes do not fit";
    case LB_ERR_UNSUPPORTED: return "not supported";
    case LB_ERR_DIVERGED: return "training diverged";
    case LB_ERR_INTERRUPTED: return "interrupted";
    case LB_ERR_BACKEND: return "compute library failed";
    }
    return "unknown status";
}

/* Large blocks in large pages, where the system has them: streams of tensors then miss fewer translations of addresses. */
static void ask_for_large_pages(unsigned char *block, size_t size) {
    enum { PAGE = 2 << 20 };
    const size_t before = (PAGE - (uintptr_t)block % PAGE) % PAGE;
    if (size >= 2 * PAGE)
        (void)madvise(block + before, (size - before) / PAGE * PAGE, MADV_HUGEPAGE); /* slower if it is refused, no more */
}

/* Linux promises more memory than there is and kills whoever uses it: what would not fit is refused, and what is promised is taken
 * at once, so that the next block sees what is left. */
enum { HUGE_BLOCK = 256 << 20 };
static void take_pages(unsigned char *block, size_t size) {
#ifdef MADV_POPULATE_WRITE
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (page - (uintptr_t)block % page) % page;
    (void)madvise(block + before, (size - before) / page * page, MADV_POPULATE_WRITE); /* without it they are taken when written */
#else /* headers before Linux 5.14 */
    (void)block;
    (void)size;
#endif
}

/* Aligned upwards in a block that is larger by LB_ALIGN; where it begins stands before it. */
void *lb_default_alloc(void *user, size_t size) {
    (void)user;
    if (size > SIZE_MAX - LB_ALIGN || (size >= HUGE_BLOCK && size > (uint64_t)lb_available_memory()))
        return NULL;
    unsigned char *block = calloc(1, size + LB_ALIGN);
    if (!block)
        return NULL;
    ask_for_large_pages(block, size);
    if (size >= HUGE_BLOCK)
        take_pages(block, size);
    unsigned char *ptr = block + LB_ALIGN - (uintptr_t)block % LB_ALIGN;
    memcpy(ptr - sizeof block, &block, sizeof block);
    return ptr;
}

static void default_free(void *user, void *ptr) {
    unsigned char *block;
    (void)user;
    memcpy(&block, (unsigned char *)ptr - sizeof block, sizeof block);
    free(block);
}

static int processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return LB_MAX(CPU_COUNT(&set), 1);
    long count = sysconf(_SC_NPROCESSORS_ONLN); /* more processors than a cpu_set_t holds */
    return count > 0 ? (int)count : 1;
}

lb_status lb_ctx_create(const lb_ctx_options *options, lb_ctx **ctx) {
    if (!ctx)
        return LB_ERR_ARGUMENT;
    *ctx = NULL;
    lb_ctx_options o = {0};
    if (options)
        o = *options;
    if (!o.allocator.alloc != !o.allocator.free || o.threads < 0)
        return LB_ERR_ARGUMENT;
    if (!o.allocator.alloc) {
        o.allocator.alloc = lb_default_alloc;
        o.allocator.free = default_free;
    }
    if (!o.threads)
        o.threads = processors();
    lb_ctx *made = o.allocator.alloc(o.allocator.user, sizeof *made);
    if (!made)
        return LB_ERR_MEMORY;
    memset(made, 0, sizeof *made);
    made->options = o;
    atomic_init(&made->interrupted, false);
    *ctx = made;
    return LB_OK;
}

void lb_ctx_destroy(lb_ctx *ctx) {
    if (!ctx)
        return;
    lb_allocator a = ctx->options.allocator;
    a.free(a.user, ctx);
}

const char *lb_error(const lb_ctx *ctx) { return ctx ? ctx->error : ""; }

int lb_threads(const lb_ctx *ctx) { return ctx->options.threads; }

void lb_interrupt(lb_ctx *ctx) { atomic_store(&ctx->interrupted, true); }

bool lb_interrupted(const lb_ctx *ctx) { return atomic_load(&ctx->interrupted); }

/* Ends `text` after at most `keep` bytes, never inside a UTF-8 character. */
static void cut(char *text, size_t keep) {
    if (strlen(text) <= keep)
        return;
    while (keep && ((unsigned char)text[keep] & 0xC0) == 0x80)
        keep--;
    text[keep] = 0;
}

/* One printable line of at most size - 1 bytes; "..." at the end tells that something was cut. File names and file contents get
 * into messages, so line ends and terminal controls become spaces. */
LB_PRINTF(3, 0) static void format_line(char *dst, size_t size, const char *fmt, va_list args) {
    int length = vsnprintf(dst, size, fmt, args);
    if (length < 0)
        dst[0] = 0;
    else if ((size_t)length >= size) {
        cut(dst, size - 4);
        strcat(dst, "...");
    }
    for (char *c = dst; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            *c = ' ';
}

lb_status lb_fail(lb_ctx *ctx, lb_status status, const char *fmt, ...) {
    if (!ctx)
        return status;
    char line[sizeof ctx->error]; /* an argument may point into ctx->error */
    va_list args;
    va_start(args, fmt);
    format_line(line, sizeof line, fmt, args);
    va_end(args);
    memcpy(ctx->error, line, sizeof line);
    return status;
}

lb_status lb_fail_in(lb_ctx *ctx, lb_status status, const char *fmt, ...) {
    if (!ctx)
        return status;
    enum { SIZE = sizeof ctx->error };
    char prefix[SIZE], line[2 * SIZE + 2];
    va_list args;
    va_start(args, fmt);
    format_line(prefix, sizeof prefix, fmt, args);
    va_end(args);
    if (strlen(prefix) + 2 + strlen(ctx->error) >= SIZE)
        cut(prefix, SIZE / 2); /* what went wrong matters more than a very long name */
    snprintf(line, sizeof line, "%s: %s", prefix, ctx->error);
    return lb_fail(ctx, status, "%s", line);
}

void lb_report(lb_ctx *ctx, const lb_event *event) {
    if (ctx->options.report)
        ctx->options.report(ctx->options.user, event);
}

LB_PRINTF(3, 0) static void report_text(lb_ctx *ctx, lb_event_kind kind, const char *fmt, va_list args) {
    if (!ctx->options.report)
        return;
    char line[1024];
    format_line(line, sizeof line, fmt, args);
    lb_report(ctx, &(lb_event){.kind = kind, .text = line, .loss = NAN, .top1 = NAN, .rate = NAN});
}

void lb_note(lb_ctx *ctx, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    report_text(ctx, LB_EVENT_NOTE, fmt, args);
    va_end(args);
}

void lb_warn(lb_ctx *ctx, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    report_text(ctx, LB_EVENT_WARNING, fmt, args);
    va_end(args);
}

void lb_progress(lb_ctx *ctx, const char *text, int64_t done, int64_t total) {
    lb_report(
        ctx,
        &(lb_event){.kind = LB_EVENT_PROGRESS, .text = text, .done = done, .total = total, .loss = NAN, .top1 = NAN, .rate = NAN});
}

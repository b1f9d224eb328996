/* Memory through the context's allocator: checked products, growing arrays, pools. */
#include <stdio.h>

#include "core/core.h"

void *lb_alloc(lb_ctx *ctx, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) {
        lb_fail(ctx, LB_ERR_MEMORY, "out of memory: %zu elements of %zu bytes are more than can be addressed", count, size);
        return NULL;
    }
    const lb_allocator *a = &ctx->options.allocator;
    size_t bytes = LB_MAX(count * size, 1);
    void *ptr = a->alloc(a->user, bytes);
    if (!ptr) {
        lb_fail(ctx, LB_ERR_MEMORY, "out of memory: cannot get %zu bytes; a smaller batch or network needs less", bytes);
        return NULL;
    }
    return a->alloc == lb_default_alloc ? ptr : memset(ptr, 0, bytes);
}

void lb_free(lb_ctx *ctx, void *ptr) {
    if (ptr)
        ctx->options.allocator.free(ctx->options.allocator.user, ptr);
}

char *lb_strdup(lb_ctx *ctx, const char *text) {
    const size_t size = strlen(text) + 1;
    char *copy = lb_alloc(ctx, size, 1);
    return copy ? memcpy(copy, text, size) : NULL;
}

lb_status lb_grow(lb_ctx *ctx, void *array, size_t *capacity, size_t need, size_t size) {
    void *old;
    memcpy(&old, array, sizeof old); /* a pointer of another type cannot be read as one to void */
    if (need <= *capacity && old)
        return LB_OK;
    size_t count = LB_MAX(*capacity > SIZE_MAX / 2 ? SIZE_MAX : *capacity * 2, 8);
    count = LB_MAX(count, need);
    if (size && count > SIZE_MAX / size)
        count = need; /* doubling is too much; lb_alloc judges the need itself */
    void *grown = lb_alloc(ctx, count, size);
    if (!grown)
        return LB_ERR_MEMORY;
    if (old)
        memcpy(grown, old, *capacity * size);
    lb_free(ctx, old);
    memcpy(array, &grown, sizeof grown);
    *capacity = count;
    return LB_OK;
}

/* Stands before each allocation, padded so that what follows is aligned too. */
typedef struct lb_pool_block {
    _Alignas(LB_ALIGN) struct lb_pool_block *next;
} lb_pool_block;

_Static_assert(sizeof(lb_pool_block) == LB_ALIGN, "a pool's allocations must stay aligned");

void lb_pool_init(lb_pool *pool, lb_ctx *ctx) { *pool = (lb_pool){.ctx = ctx}; }

void *lb_pool_alloc(lb_pool *pool, size_t count, size_t size) {
    if (size && count > (SIZE_MAX - sizeof(lb_pool_block)) / size) {
        lb_fail(pool->ctx, LB_ERR_MEMORY, "out of memory: %zu elements of %zu bytes are more than can be addressed", count, size);
        return NULL;
    }
    lb_pool_block *block = lb_alloc(pool->ctx, 1, sizeof *block + count * size);
    if (!block)
        return NULL;
    block->next = pool->head;
    pool->head = block;
    return block + 1;
}

char *lb_pool_strdup(lb_pool *pool, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = lb_pool_alloc(pool, size, 1);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *lb_pool_printf(lb_pool *pool, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = NULL;
    if (length < 0)
        lb_fail(pool->ctx, LB_ERR_ARGUMENT, "text cannot be formatted as '%s'", fmt);
    else
        text = lb_pool_alloc(pool, (size_t)length + 1, 1);
    if (text)
        vsnprintf(text, (size_t)length + 1, fmt, again);
    va_end(again);
    return text;
}

void lb_pool_release(lb_pool *pool, void *ptr) {
    for (lb_pool_block **at = &pool->head; *at; at = &(*at)->next)
        if (*at + 1 == ptr) {
            lb_pool_block *block = *at;
            *at = block->next;
            lb_free(pool->ctx, block);
            return;
        }
}

void lb_pool_free(lb_pool *pool) {
    while (pool->head) {
        lb_pool_block *block = pool->head;
        pool->head = block->next;
        lb_free(pool->ctx, block);
    }
}

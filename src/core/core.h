/* What every module uses: the context behind lb_ctx, errors, memory, and small helpers. */
#ifndef LB_CORE_H
#define LB_CORE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include "lowbit/lowbit.h"

#define LB_ALIGN 64
#define LB_COUNT(array) (sizeof(array) / sizeof *(array))
#define LB_MIN(a, b) ((a) < (b) ? (a) : (b))
#define LB_MAX(a, b) ((a) > (b) ? (a) : (b))

/* A choice of the recipe is one list X(enumerator, word): LIST(LB_ENUMERATOR) are the enumerators, LIST(LB_WORD) the words. */
#define LB_ENUMERATOR(id, word) id,
#define LB_WORD(id, word) word,

#if defined(__GNUC__)
#define LB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define LB_PRINTF(fmt, args)
#endif

/* A function compiled for several instruction sets, of which the loader chooses; with -ffp-contract=off the bits are the same. A
 * sanitizer is not ready yet when the loader chooses. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define LB_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define LB_CLONES
#endif

/* Passes a failure on to the caller. Only where nothing has to be cleaned up first. */
#define LB_TRY(call)                             \
    do {                                         \
        lb_status lb_try_status = (call);        \
        if (lb_try_status != LB_OK)              \
            return lb_try_status;                \
    } while (0)

struct lb_ctx {
    lb_ctx_options options;
    atomic_bool interrupted;
    char error[1024];
};

/* ---- Errors: the one way --------------------------------------------------------------------------------------- */

/* Records the message (one line, no newline: what, where, what to do) and returns `status`:
 *     return lb_fail(ctx, LB_ERR_FORMAT, "%s: magic 0x%08x is not an IDX file's", path, magic);        */
lb_status lb_fail(lb_ctx *ctx, lb_status status, const char *fmt, ...) LB_PRINTF(3, 4);

/* Puts "prefix: " before the recorded message and returns `status` (for naming the file or layer around a failure). */
lb_status lb_fail_in(lb_ctx *ctx, lb_status status, const char *fmt, ...) LB_PRINTF(3, 4);

/* Reports through the context's callback. */
void lb_note(lb_ctx *ctx, const char *fmt, ...) LB_PRINTF(2, 3);
void lb_warn(lb_ctx *ctx, const char *fmt, ...) LB_PRINTF(2, 3);
void lb_progress(lb_ctx *ctx, const char *text, int64_t done, int64_t total);
void lb_report(lb_ctx *ctx, const lb_event *event);
bool lb_interrupted(const lb_ctx *ctx);

/* ---- Memory: the one way --------------------------------------------------------------------------------------- */

/* `count * size` bytes, zeroed, 64-byte aligned. NULL (message recorded) when out of memory or when the product overflows.
 * A count of 0 gives a valid pointer. */
void *lb_alloc(lb_ctx *ctx, size_t count, size_t size);

/* The allocator of a context that was given none. Its memory is zero already, so that pages nobody writes to take no room; but
 * blocks of 256 MB and more take theirs at once, or are refused (NULL) where that is more than lb_available_memory(). */
void *lb_default_alloc(void *user, size_t size);

/* Bytes that the machine, or the container's limit, has left. INT64_MAX if that is not known. */
int64_t lb_available_memory(void);

char *lb_strdup(lb_ctx *ctx, const char *text); /* a copy made by lb_alloc */
void lb_free(lb_ctx *ctx, void *ptr); /* NULL is fine */

/* Grows an array made by lb_alloc to hold at least `need` elements of `size` bytes (doubling); *capacity is updated. `array` is the
 * address of the pointer to it, whatever that points to. */
lb_status lb_grow(lb_ctx *ctx, void *array, size_t *capacity, size_t need, size_t size);

/* A pool owns allocations that live and die together; an object embeds one and frees it in its destroy function. */
typedef struct lb_pool {
    lb_ctx *ctx;
    struct lb_pool_block *head;
} lb_pool;

void lb_pool_init(lb_pool *pool, lb_ctx *ctx);
void *lb_pool_alloc(lb_pool *pool, size_t count, size_t size); /* as lb_alloc */
char *lb_pool_strdup(lb_pool *pool, const char *text);
char *lb_pool_printf(lb_pool *pool, const char *fmt, ...) LB_PRINTF(2, 3);
void lb_pool_release(lb_pool *pool, void *ptr); /* one allocation, which is searched for; NULL is fine */
void lb_pool_free(lb_pool *pool); /* everything; the pool can be used again */

/* ---- Measuring ------------------------------------------------------------------------------------------------- */

/* Seconds on a clock that only goes forward. */
double lb_now(void);

/* Processor seconds of this process, all threads. */
double lb_cpu_time(void);
/* That of this thread alone. */
double lb_thread_time(void);

/* Median of `count` > 0 values, which are sorted by it. */
double lb_median(double *values, size_t count);

/* ---- Files ----------------------------------------------------------------------------------------------------- */

/* LB_ERR_IO: "`path`: cannot `what`: ...", the words of `error`, an errno, and what can be done about it. */
lb_status lb_fail_file(lb_ctx *ctx, const char *path, const char *what, int error);

/* Reads a whole file (at most `limit` bytes) into memory made by lb_alloc, with a 0 byte behind it. */
lb_status lb_read_file(lb_ctx *ctx, const char *path, size_t limit, unsigned char **data, size_t *size);

/* As lb_read_file, but of a file whose first bytes, at least 64, `like` does not take, no more than those are read. */
typedef bool (*lb_like_fn)(const unsigned char *head, size_t size);
lb_status lb_read_file_like(lb_ctx *ctx, const char *path, lb_like_fn like, size_t limit, unsigned char **data, size_t *size);

/* Writes path.tmp.PID.N, a name nobody else has, syncs it, renames it over `path`: the old file stays whole whatever happens. */
typedef struct lb_span {
    const void *data;
    size_t size;
} lb_span;
lb_status lb_write_file(lb_ctx *ctx, const char *path, const lb_span *spans, int nspans);

/* Files that only make sense together: each is written under its temporary name, and all are renamed once the last is complete. */
typedef struct lb_temporary {
    char *path, *name; /* what it is to be called, and is called now (NULL: no longer) */
    int held;          /* the lock, until the file has its name; -1: none */
} lb_temporary;

typedef struct lb_staged {
    lb_pool pool;
    lb_temporary *files; /* (count) */
    size_t count, capacity;
} lb_staged;

void lb_staged_init(lb_staged *staged, lb_ctx *ctx);
lb_status lb_staged_write(lb_staged *staged, const char *path, const lb_span *spans, int nspans);
lb_status lb_staged_commit(lb_staged *staged); /* the first that was written gets its name last */
void lb_staged_free(lb_staged *staged);        /* what has no name yet is removed */

/* Makes a directory and its parents; one that exists is fine. */
lb_status lb_make_dirs(lb_ctx *ctx, const char *path);
/* The same; *made: how many directories it made, also on failure. What fails later takes them away again, as far as they are
 * empty. */
lb_status lb_make_new_dirs(lb_ctx *ctx, const char *path, int *made);
void lb_remove_made_dirs(lb_ctx *ctx, const char *path, int made);
bool lb_exists(const char *path);
bool lb_is_dir(const char *path);
bool lb_is_same_file(const char *a, const char *b); /* both exist, and the two paths lead to one file */

/* Locks a directory until lb_unlock_dir or the end of the process, so that no two write there. LB_ERR_IO: it is locked. Where the
 * file system knows no locks, or there is no such directory, *lock is LB_NO_LOCK and the result LB_OK. */
#define LB_NO_LOCK (-1)
lb_status lb_lock_dir(lb_ctx *ctx, const char *path, int *lock);
void lb_unlock_dir(int lock); /* LB_NO_LOCK is fine */

/* Removes what lb_write_file was writing for DIR/name in processes that were killed; what others still write is locked and
 * stays. */
void lb_remove_leftovers(const char *dir, const char *name);

/* ---- Text ------------------------------------------------------------------------------------------------------ */

/* Shell-like match with * and ?. */
bool lb_match(const char *pattern, const char *text);

/* ---- Counter-based random numbers (Philox4x32-10, Salmon et al. 2011) --------------------------------------------- */

/* What a random number is for: part of its key, so that uses never share numbers. Append only: results depend on values. */
typedef enum lb_purpose {
    LB_RNG_INIT,    /* weight initialisation: step = parameter index, index = element */
    LB_RNG_SHUFFLE, /* order of an epoch: step = epoch */
    LB_RNG_AUGMENT, /* augmentation: step = epoch, index = image */
    LB_RNG_DROPOUT, /* step = training step, index = element */
    LB_RNG_TEST,
    LB_RNG_MIXER,   /* masks and roulettes: step = training step */
    LB_RNG_DROPBITS, /* cpq, rq: step = training step, index = four levels each */
    LB_RNG_GUMBEL   /* rq: step = training step, index = element and code */
} lb_purpose;

/* Four 32-bit numbers that depend on nothing but the arguments. */
void lb_rng4(uint64_t seed, lb_purpose purpose, uint64_t step, uint64_t index, uint32_t out[4]);

/* The same of indices first, first + stride, ..: word w of the i-th into out[w * count + i]. Several times faster for many. */
void lb_rng4_many(uint64_t seed, lb_purpose purpose, uint64_t step, uint64_t first, uint64_t stride, int count, uint32_t *out);

/* 32 random bits to a float in [0, 1). */
static inline float lb_uniform(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

/* Two standard normals from two uniforms (Box-Muller). */
void lb_normal2(uint32_t a, uint32_t b, float out[2]);

/* Fills values with N(0, stddev^2). */
void lb_rng_normal(uint64_t seed, lb_purpose purpose, uint64_t step, float stddev, float *dst, size_t count);

/* The finaliser of SplitMix64 (Steele, Lea and Flood 2014): different numbers for different ones, without the pattern they had. */
static inline uint64_t lb_scatter(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* 64-bit FNV-1a of so many bytes more, for tables and for noticing changes. Start with LB_HASH. */
#define LB_HASH 0xcbf29ce484222325u
uint64_t lb_hash(uint64_t hash, const void *data, size_t size);

#endif

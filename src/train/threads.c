#include "train/threads.h"

#include <ctype.h>
#include <errno.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>

/* Bytes that OMP_STACKSIZE (OpenMP 5.0, section 6.7) asks for, a number with B, K (as without a letter), M or G; 0: the system's
 * choice. */
static size_t stack_size(void) {
    const char *text = getenv("OMP_STACKSIZE");
    if (!text)
        return 0;
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    const int letter = toupper((unsigned char)*end);
    const int shift = letter == 'B' ? 0 : letter == 'M' ? 20 : letter == 'G' ? 30 : 10;
    return errno || end == text || number > SIZE_MAX >> shift ? 0 : (size_t)number << shift;
}

static void *wait_for_all(void *lock) {
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

/* Starts `count` threads that wait for each other; 0, or errno. */
static int try_threads(pthread_t *threads, int count) {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attr;
    int error = pthread_attr_init(&attr), n = 0;
    if (error)
        return error;
    const size_t size = stack_size();
    if (size)
        (void)pthread_attr_setstacksize(&attr, size); /* too small a size is refused, by OpenMP too */
    pthread_mutex_lock(&lock);
    while (n < count && !(error = pthread_create(&threads[n], &attr, wait_for_all, &lock)))
        n++;
    pthread_mutex_unlock(&lock);
    while (n)
        pthread_join(threads[--n], NULL);
    pthread_attr_destroy(&attr);
    return error;
}

lb_status lb_start_threads(lb_ctx *ctx, int threads) {
    const int count = LB_MIN(threads, omp_get_thread_limit());
    if (count <= 1)
        return LB_OK;
    pthread_t *others = lb_alloc(ctx, (size_t)count - 1, sizeof *others);
    if (!others)
        return LB_ERR_MEMORY;
    const int error = try_threads(others, count - 1);
    lb_free(ctx, others);
    if (error)
        return lb_fail(ctx, LB_ERR_MEMORY,
                       "cannot start %d threads: %s; ask for fewer, or raise the limits of memory and processes", count,
                       strerror(error));
    int started = 0;
#pragma omp parallel num_threads(count) reduction(+ : started)
    started++;
    (void)started;
    return LB_OK;
}

/* Mean and standard deviation of a data set's pixels, for data sets that nobody knows the figures of. */
#include <math.h>
#include <pthread.h>

#include "data/formats.h"

enum { BLOCK = 1 << 16, MOST_THREADS = 64 }; /* BLOCK: pixels whose squares' sum is less than 2^32 */

/* Whole numbers throughout: neither the order of summing nor the number of threads matters. */
typedef struct sums {
    uint64_t sum[4], squares[4];
} sums;

typedef struct work {
    const lb_ctx *ctx;
    const lb_images *images;
    size_t pixels;
    pthread_mutex_t lock; /* guards what follows */
    size_t next; /* pixel that nobody has taken yet */
    sums all;
} work;

static inline void add_channels(const uint8_t *pixels, size_t n, size_t c, sums *s) {
    uint32_t sum[4] = {0}, squares[4] = {0};
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < c; k++) {
            const uint32_t p = pixels[i * c + k];
            sum[k] += p;
            squares[k] += p * p;
        }
    for (size_t k = 0; k < c; k++) {
        s->sum[k] += sum[k];
        s->squares[k] += squares[k];
    }
}

/* The usual ones as constants, for the compiler. */
static void add_block(const uint8_t *pixels, size_t n, size_t c, sums *s) {
    if (c == 1)
        add_channels(pixels, n, 1, s);
    else if (c == 3)
        add_channels(pixels, n, 3, s);
    else
        add_channels(pixels, n, c, s);
}

static void *add_blocks(void *arg) {
    work *w = arg;
    const size_t c = (size_t)w->images->c;
    sums own = {{0}, {0}};
    pthread_mutex_lock(&w->lock);
    while (w->next < w->pixels && !lb_interrupted(w->ctx)) {
        const size_t at = w->next, n = LB_MIN(w->pixels - at, (size_t)BLOCK);
        w->next += n;
        pthread_mutex_unlock(&w->lock);
        add_block(w->images->pixels + at * c, n, c, &own);
        pthread_mutex_lock(&w->lock);
    }
    for (size_t k = 0; k < c; k++) {
        w->all.sum[k] += own.sum[k];
        w->all.squares[k] += own.squares[k];
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

lb_status lb_data_statistics(lb_data *data) {
    const lb_images *train = &data->split[LB_TRAIN];
    const size_t n = (size_t)train->count * (size_t)train->h * (size_t)train->w;
    const size_t most = LB_MIN((n - 1) / BLOCK, (size_t)LB_MIN(LB_MAX(lb_threads(data->ctx), 1), MOST_THREADS) - 1);
    pthread_t threads[MOST_THREADS];
    work w = {.ctx = data->ctx, .images = train, .pixels = n};
    size_t started = 0;
    pthread_mutex_init(&w.lock, NULL);
    while (started < most && pthread_create(&threads[started], NULL, add_blocks, &w) == 0)
        started++;
    add_blocks(&w); /* this thread too */
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&w.lock);
    if (w.next < n)
        return lb_fail(data->ctx, LB_ERR_INTERRUPTED, "%s: interrupted while loading", data->source);
    for (int k = 0; k < train->c; k++) {
        const double mean = (double)w.all.sum[k] / (double)n, variance = (double)w.all.squares[k] / (double)n - mean * mean;
        data->mean[k] = (float)(mean / 255);
        data->std[k] =
            (float)(sqrt(fmax(variance, 1)) / 255); /* at least one grey level: a constant channel must not divide by 0 */
    }
    return LB_OK;
}

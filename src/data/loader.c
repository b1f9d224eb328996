/* Batches prepared ahead by worker threads.
 *
 * Batches are numbered by tickets: ticket 0 is the first step asked for by lb_loader_start, and after an epoch's last step comes
 * the next epoch's first, so that workers run on while the trainer evaluates. Ticket t is prepared in slot t % nslots. Two orders
 * (permutations) are kept, of the epoch being consumed and of the next; workers never run further ahead. Everything is allocated
 * when the loader is created. */
#include <math.h>
#include <pthread.h>

#include "data/image.h"

enum { MOST_WORKERS = 64 };

typedef enum slot_state { SLOT_EMPTY, SLOT_BUSY, SLOT_READY } slot_state;

typedef struct slot {
    slot_state state;
    int64_t epoch;
    lb_batch batch;
} slot;

typedef struct order {
    int64_t epoch; /* -1: none */
    uint32_t *images; /* (count) */
} order;

struct lb_loader {
    lb_ctx *ctx;
    lb_pool pool;
    const lb_images *images;
    lb_augment_config augment;
    uint8_t fill[4]; /* (c) what images are padded with */
    int oh, ow, mb;
    bool fits; /* images have the network's input size: no resizing unless by random crop */
    lb_box centre; /* otherwise: what is resized */
    uint64_t seed;
    int64_t steps;

    int nworkers, nslots;
    pthread_t threads[MOST_WORKERS];
    struct worker_memory {
        lb_loader *loader;
        void *scratch; /* for lb_resize */
        uint8_t *image; /* (oh, ow, c), when an image is resized and then cropped or flipped */
    } memory[MOST_WORKERS + 1]; /* the last: lb_loader_next's own, without workers */
    slot *slots; /* (nslots) */

    pthread_mutex_t lock; /* guards what follows and the slots' states */
    pthread_cond_t work, ready; /* for workers; for the consumer */
    bool started, stop;
    int busy; /* slots being prepared */
    int64_t first_epoch, first_step;
    int64_t taken, consumed; /* next ticket to prepare; tickets handed out by lb_loader_next */
    order orders[2]; /* [epoch % 2] */
    int64_t ordering; /* epoch whose order a worker is making outside the lock, -1: none */
};

/* Fisher-Yates on counter-based numbers: swap i uses number i of its epoch. */
static void shuffle(uint32_t *images, int64_t count, uint64_t seed, int64_t epoch) {
    for (int64_t i = 0; i < count; i++)
        images[i] = (uint32_t)i;
    uint32_t r[4];
    for (int64_t i = count - 1; i > 0; i--) {
        if (i == count - 1 || i % 4 == 3)
            lb_rng4(seed, LB_RNG_SHUFFLE, (uint64_t)epoch, (uint64_t)i / 4, r);
        int64_t j = (int64_t)((uint64_t)r[i % 4] * (uint64_t)(i + 1) >> 32);
        uint32_t swap = images[i];
        images[i] = images[j];
        images[j] = swap;
    }
}

static void prepare_image(const lb_loader *l, struct worker_memory *memory, int64_t epoch, uint32_t image, uint8_t *dst) {
    const lb_images *images = l->images;
    const uint8_t *src = images->pixels + (size_t)image * (size_t)images->h * (size_t)images->w * (size_t)images->c;
    lb_augment a;
    lb_augment_draw(&l->augment, l->seed, epoch, image, images->h, images->w, &a);
    if (l->augment.resized_crop || !l->fits) {
        bool more = l->augment.pad > 0 || a.flip;
        lb_resize(src, images->h, images->w, images->c, l->augment.resized_crop ? &a.box : &l->centre, more ? memory->image : dst,
                  l->oh, l->ow, memory->scratch);
        if (!more)
            return;
        src = memory->image;
    }
    lb_pad_crop_flip(src, l->oh, l->ow, images->c, l->augment.pad, l->fill, a.dy, a.dx, a.flip, dst);
}

static void prepare(const lb_loader *l, struct worker_memory *memory, const uint32_t *images, int64_t epoch, int64_t step,
                    lb_batch *batch) {
    size_t bytes = (size_t)l->oh * (size_t)l->ow * (size_t)l->images->c;
    batch->step = step;
    for (int i = 0; i < l->mb; i++) {
        uint32_t image = images[step * l->mb + i];
        batch->labels[i] = l->images->labels[image];
        prepare_image(l, memory, epoch, image, batch->pixels + (size_t)i * bytes);
    }
}

static void place(const lb_loader *l, int64_t ticket, int64_t *epoch, int64_t *step) {
    int64_t at = l->first_step + ticket;
    *epoch = l->first_epoch + at / l->steps;
    *step = at % l->steps;
}

/* Is there a ticket that may be prepared now? The batch handed out last stays borrowed, so its slot is not free. */
static bool may_take(const lb_loader *l) {
    int64_t epoch, step, current;
    if (!l->started || l->taken >= l->consumed + l->nslots - 1)
        return false;
    place(l, LB_MAX(l->consumed - 1, 0), &current, &step);
    place(l, l->taken, &epoch, &step);
    if (epoch > current + 1)
        return false;
    return l->orders[epoch % 2].epoch == epoch || l->ordering < 0; /* has its order, or can make it */
}

/* Under the lock: takes the next ticket and prepares it, letting go of the lock meanwhile. */
static void take_and_prepare(lb_loader *l, struct worker_memory *memory) {
    int64_t epoch, step;
    place(l, l->taken, &epoch, &step);
    order *o = &l->orders[epoch % 2];
    if (o->epoch != epoch) { /* the order that is replaced is two epochs old: may_take lets nobody use it any more */
        l->ordering = epoch;
        l->busy++;
        o->epoch = -1;
        pthread_mutex_unlock(&l->lock);
        shuffle(o->images, l->images->count, l->seed, epoch);
        pthread_mutex_lock(&l->lock);
        o->epoch = epoch;
        l->ordering = -1;
        l->busy--;
        pthread_cond_broadcast(&l->work);
        pthread_cond_broadcast(&l->ready);
        return;
    }
    slot *s = &l->slots[l->taken++ % l->nslots];
    s->state = SLOT_BUSY;
    s->epoch = epoch;
    l->busy++;
    pthread_mutex_unlock(&l->lock);
    prepare(l, memory, o->images, epoch, step, &s->batch);
    pthread_mutex_lock(&l->lock);
    s->state = SLOT_READY;
    l->busy--;
    pthread_cond_broadcast(&l->ready);
}

static void *work(void *arg) {
    struct worker_memory *memory = arg;
    lb_loader *l = memory->loader;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        if (may_take(l))
            take_and_prepare(l, memory);
        else
            pthread_cond_wait(&l->work, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static lb_status check(lb_data *data, const lb_data_config *config, int oh, int ow, int mb) {
    const lb_augment_config *a = &config->augment;
    const lb_images *images = &data->split[LB_TRAIN];
    if (oh < 1 || ow < 1 || oh > 65535 || ow > 65535 || mb < 1 || a->pad < 0 || a->pad > 65535)
        return lb_fail(data->ctx, LB_ERR_ARGUMENT, "batches of %d x %d x %d, padded by %d, are out of range", mb, oh, ow, a->pad);
    if (images->count > UINT32_MAX)
        return lb_fail(data->ctx, LB_ERR_UNSUPPORTED, "%s: more than 4,294,967,295 training images", data->source);
    if (images->count < mb)
        return lb_fail(data->ctx, LB_ERR_RECIPE, "train.batch %d is more than the %lld training images of %s", mb,
                       (long long)images->count, data->source);
    if (a->resized_crop && !(a->scale[0] > 0 && a->scale[0] <= a->scale[1] && a->scale[1] <= 1 && a->ratio[0] > 0 &&
                             a->ratio[0] <= a->ratio[1] && a->ratio[1] < 1000))
        return lb_fail(data->ctx, LB_ERR_RECIPE,
                       "data.augment: scale must be within 0..1 and ratio positive, both in ascending order");
    if (a->resize && !a->resized_crop && a->resize < LB_MAX(oh, ow))
        return lb_fail(data->ctx, LB_ERR_RECIPE, "data.augment.resize %d is less than the network's input of %d x %d", a->resize,
                       ow, oh);
    return LB_OK;
}

static lb_status allocate(lb_loader *l) {
    const lb_images *images = l->images;
    size_t bytes = (size_t)l->oh * (size_t)l->ow * (size_t)images->c;
    size_t scratch = l->augment.resized_crop || !l->fits ? lb_resize_scratch(images->h, images->w, images->c, l->oh, l->ow) : 1;
    if (!scratch)
        return lb_fail(l->ctx, LB_ERR_ARGUMENT, "images of %d x %d cannot be resized to %d x %d", images->w, images->h, l->ow,
                       l->oh);
    l->slots = lb_pool_alloc(&l->pool, (size_t)l->nslots, sizeof *l->slots);
    for (int i = 0; i < 2; i++)
        if (!(l->orders[i].images = lb_pool_alloc(&l->pool, (size_t)images->count, sizeof *l->orders[i].images)))
            return LB_ERR_MEMORY;
    for (int i = 0; i < l->nslots && l->slots; i++) {
        lb_batch *batch = &l->slots[i].batch;
        batch->mb = l->mb;
        batch->pixels = lb_pool_alloc(&l->pool, (size_t)l->mb, bytes);
        batch->labels = lb_pool_alloc(&l->pool, (size_t)l->mb, sizeof *batch->labels);
        if (!batch->pixels || !batch->labels)
            return LB_ERR_MEMORY;
    }
    for (int i = 0; i <= l->nworkers; i++) {
        l->memory[i].loader = l;
        l->memory[i].scratch = lb_pool_alloc(&l->pool, scratch, 1);
        l->memory[i].image = lb_pool_alloc(&l->pool, bytes, 1);
        if (!l->memory[i].scratch || !l->memory[i].image)
            return LB_ERR_MEMORY;
    }
    return l->slots ? LB_OK : LB_ERR_MEMORY;
}

lb_status lb_loader_create(lb_data *data, const lb_data_config *config, int oh, int ow, int mb, uint64_t seed, lb_loader **out) {
    *out = NULL;
    LB_TRY(check(data, config, oh, ow, mb));
    lb_ctx *ctx = data->ctx;
    lb_loader *l = lb_alloc(ctx, 1, sizeof *l);
    if (!l)
        return LB_ERR_MEMORY;
    const lb_images *images = &data->split[LB_TRAIN];
    l->ctx = ctx;
    l->images = images;
    l->augment = config->augment;
    for (int k = 0; k < images->c && config->augment.fill == LB_FILL_MEAN; k++)
        l->fill[k] = (uint8_t)lrintf(LB_MIN(LB_MAX(data->mean[k], 0.f), 1.f) * 255.f);
    l->oh = oh;
    l->ow = ow;
    l->mb = mb;
    l->seed = seed;
    l->fits = images->h == oh && images->w == ow && config->augment.resize == 0;
    l->centre = lb_centre_box(images->h, images->w, oh, ow, config->augment.resize);
    l->steps = images->count / mb;
    l->orders[0].epoch = l->orders[1].epoch = l->ordering = -1;
    l->nworkers = LB_MIN(LB_MAX(config->workers, 0), MOST_WORKERS);
    l->nslots = l->nworkers ? 2 * l->nworkers + 3 : 2;
    lb_pool_init(&l->pool, ctx);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    lb_status status = allocate(l);
    int wanted = l->nworkers;
    l->nworkers = 0;
    if (status != LB_OK) {
        lb_loader_destroy(l);
        return status;
    }
    l->memory[MOST_WORKERS] = l->memory[wanted];
    while (l->nworkers < wanted && !pthread_create(&l->threads[l->nworkers], NULL, work, &l->memory[l->nworkers]))
        l->nworkers++;
    if (l->nworkers < wanted)
        lb_warn(ctx, "only %d of %d threads that prepare batches could be started", l->nworkers, wanted);
    *out = l;
    return LB_OK;
}

lb_status lb_loader_start(lb_loader *l, int64_t epoch, int64_t first_step) {
    if (epoch < 0 || first_step < 0 || first_step >= l->steps)
        return lb_fail(l->ctx, LB_ERR_ARGUMENT, "epoch %lld, step %lld: an epoch has %lld steps", (long long)epoch,
                       (long long)first_step, (long long)l->steps);
    pthread_mutex_lock(&l->lock);
    int64_t next_epoch = -1, next_step = -1;
    if (l->started)
        place(l, l->consumed, &next_epoch, &next_step);
    if (epoch != next_epoch || first_step != next_step) { /* else: this is what the workers are preparing anyway */
        l->started = false;
        while (l->busy)
            pthread_cond_wait(&l->ready, &l->lock);
        for (int i = 0; i < l->nslots; i++)
            l->slots[i].state = SLOT_EMPTY;
        l->first_epoch = epoch;
        l->first_step = first_step;
        l->taken = l->consumed = 0;
        l->started = true;
        pthread_cond_broadcast(&l->work);
    }
    pthread_mutex_unlock(&l->lock);
    return LB_OK;
}

lb_status lb_loader_next(lb_loader *l, const lb_batch **batch) {
    *batch = NULL;
    if (!l->started)
        return lb_fail(l->ctx, LB_ERR_ARGUMENT, "lb_loader_next before lb_loader_start");
    pthread_mutex_lock(&l->lock);
    slot *s = &l->slots[l->consumed % l->nslots];
    int64_t ticket = l->consumed++; /* the batch of the call before is given back */
    pthread_cond_broadcast(&l->work);
    while (l->taken <= ticket || s->state != SLOT_READY)
        if (l->nworkers == 0)
            take_and_prepare(l, &l->memory[MOST_WORKERS]);
        else
            pthread_cond_wait(&l->ready, &l->lock);
    pthread_mutex_unlock(&l->lock);
    *batch = &s->batch;
    return LB_OK;
}

int64_t lb_loader_steps(const lb_loader *l) { return l->steps; }

void lb_loader_destroy(lb_loader *l) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->nworkers; i++)
        pthread_join(l->threads[i], NULL);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    lb_ctx *ctx = l->ctx;
    lb_pool_free(&l->pool);
    lb_free(ctx, l);
}

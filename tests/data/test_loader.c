/* Batches: the same whatever the workers, entered anywhere, every image once. */
#include "fixtures.h"

enum { H = 6, W = 6, C = 3, N = 203 };

/* A data set in memory: image i has label i % 10 and its number in its first pixels. */
static lb_data make(lb_ctx *ctx, int n) {
    lb_data data = {.ctx = ctx, .source = "memory", .classes = 10};
    lb_images *images = &data.split[LB_TRAIN];
    *images = (lb_images){.count = n, .h = H, .w = W, .c = C};
    images->pixels = malloc((size_t)n * H * W * C);
    images->labels = malloc((size_t)n * sizeof(int32_t));
    for (int i = 0; i < n; i++) {
        pattern_image(i, H, W, C, images->pixels + i * H * W * C);
        images->pixels[i * H * W * C] = (uint8_t)i;
        images->pixels[i * H * W * C + 1] = (uint8_t)(i >> 8);
        images->labels[i] = i % 10;
    }
    data.split[LB_TEST] = *images;
    return data;
}

static void unmake(lb_data *data) {
    free(data->split[LB_TRAIN].pixels);
    free(data->split[LB_TRAIN].labels);
}

/* A checksum of everything in `steps` batches from (epoch, first) on, going over to following epochs. */
static void run(lb_loader *loader, int64_t epoch, int64_t first, int steps, uint64_t *sums) {
    for (int i = 0; i < steps; i++) {
        const lb_batch *batch;
        int64_t at = first + i;
        if (i == 0 || at % lb_loader_steps(loader) == 0)
            assert_int_equal(lb_loader_start(loader, epoch + at / lb_loader_steps(loader), at % lb_loader_steps(loader)), LB_OK);
        assert_int_equal(lb_loader_next(loader, &batch), LB_OK);
        assert_int_equal(batch->step, at % lb_loader_steps(loader));
        sums[i] = lb_hash(LB_HASH, batch->labels, (size_t)batch->mb * sizeof(int32_t));
        sums[i] = lb_hash(sums[i], batch->pixels, (size_t)batch->mb * H * W * C);
    }
}

static const lb_augment_config augments[] = {
    {.pad = 0},
    {.pad = 2, .flip = true},
    {.flip = true, .resized_crop = true, .scale = {.2f, 1}, .ratio = {.75f, 1.3333f}},
    {.pad = 1, .resized_crop = true, .scale = {.2f, 1}, .ratio = {.75f, 1.3333f}},
    {.resize = 8, .flip = true},
};

static void test_same_whatever_workers(void **state) {
    scratch *s = *state;
    static const int workers[] = {0, 1, 2, 5, 17};
    lb_data data = make(s->ctx, N);
    for (size_t a = 0; a < LB_COUNT(augments); a++) {
        enum { STEPS = 60 }; /* of 12 to an epoch */
        uint64_t expected[STEPS], got[STEPS];
        for (size_t k = 0; k < LB_COUNT(workers); k++) {
            lb_data_config config = {.workers = workers[k], .augment = augments[a]};
            lb_loader *loader;
            assert_ok(s->ctx, lb_loader_create(&data, &config, H, W, 16, 5, &loader));
            assert_int_equal(lb_loader_steps(loader), 12);
            run(loader, 0, 0, STEPS, k ? got : expected);
            if (k)
                assert_memory_equal(got, expected, sizeof got);
            run(loader, 1, 7, 20, got); /* back, and into the middle */
            assert_memory_equal(got, expected + 12 + 7, 20 * sizeof *got);
            run(loader, 3, 11, 1, got);
            assert_memory_equal(got, expected + 36 + 11, sizeof *got);
            run(loader, 0, 0, 3, got);
            assert_memory_equal(got, expected, 3 * sizeof *got);
            assert_int_equal(lb_loader_start(loader, 2, 3), LB_OK); /* left alone while workers prepare */
            lb_loader_destroy(loader);
        }
        if (a > 0)
            assert_memory_not_equal(expected, expected + 12, 12 * sizeof *expected);
    }
    unmake(&data);
}

static void test_once_per_epoch(void **state) {
    scratch *s = *state;
    lb_data data = make(s->ctx, N);
    lb_data_config config = {.workers = 2};
    lb_loader *loader;
    assert_ok(s->ctx, lb_loader_create(&data, &config, H, W, 7, 11, &loader));
    assert_int_equal(lb_loader_steps(loader), 29);
    int first[40][7] = {{0}};
    for (int epoch = 0; epoch < 40; epoch++) {
        int seen[N] = {0};
        assert_int_equal(lb_loader_start(loader, epoch, 0), LB_OK);
        for (int step = 0; step < 29; step++) {
            const lb_batch *batch;
            assert_int_equal(lb_loader_next(loader, &batch), LB_OK);
            for (int i = 0; i < 7; i++) {
                int image = batch->pixels[i * H * W * C] + 256 * batch->pixels[i * H * W * C + 1];
                assert_in_range(image, 0, N - 1);
                assert_int_equal(seen[image]++, 0);
                assert_int_equal(batch->labels[i], image % 10);
                assert_memory_equal(batch->pixels + i * H * W * C, data.split[LB_TRAIN].pixels + image * H * W * C, H * W * C);
                if (step == 0)
                    first[epoch][i] = image;
            }
        }
        for (int before = 0; before < epoch; before++)
            assert_memory_not_equal(first[before], first[epoch], sizeof first[epoch]);
    }
    lb_loader_destroy(loader);
    unmake(&data);
}

/* Where image 0 comes in the order is uniform. */
static void test_shuffle_uniform(void **state) {
    scratch *s = *state;
    enum { FEW = 20, EPOCHS = 8000 };
    lb_data data = make(s->ctx, FEW);
    lb_data_config config = {.workers = 0};
    lb_loader *loader;
    int counts[FEW] = {0};
    assert_ok(s->ctx, lb_loader_create(&data, &config, H, W, FEW, 3, &loader));
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        const lb_batch *batch;
        assert_int_equal(lb_loader_start(loader, epoch, 0), LB_OK);
        assert_int_equal(lb_loader_next(loader, &batch), LB_OK);
        for (int i = 0; i < FEW; i++)
            counts[i] += batch->pixels[i * H * W * C] == 0;
    }
    double sum = 0;
    for (int i = 0; i < FEW; i++)
        sum += (counts[i] - EPOCHS / FEW) * (double)(counts[i] - EPOCHS / FEW) / (EPOCHS / FEW);
    assert_true(sum < 43.8); /* 19 degrees of freedom, p = 0.001 */
    lb_loader_destroy(loader);
    unmake(&data);
}

/* A set of one batch, of fewer epochs than slots, and many workers. */
static void test_small_sets(void **state) {
    scratch *s = *state;
    lb_data data = make(s->ctx, 9);
    for (int mb = 1; mb <= 9; mb++) {
        uint64_t expected[50], got[50];
        for (int workers = 0; workers < 8; workers += 3) {
            lb_data_config config = {.workers = workers, .augment = augments[1]};
            lb_loader *loader;
            assert_ok(s->ctx, lb_loader_create(&data, &config, H, W, mb, 1, &loader));
            run(loader, 0, 0, 50, workers ? got : expected);
            if (workers)
                assert_memory_equal(got, expected, sizeof got);
            lb_loader_destroy(loader);
        }
    }
    lb_loader *loader;
    lb_data_config config = {.workers = 1};
    assert_int_equal(lb_loader_create(&data, &config, H, W, 10, 1, &loader), LB_ERR_RECIPE);
    assert_non_null(strstr(lb_error(s->ctx), "9 training images"));
    assert_ok(s->ctx, lb_loader_create(&data, &config, H, W, 3, 1, &loader));
    const lb_batch *batch;
    assert_int_equal(lb_loader_next(loader, &batch), LB_ERR_ARGUMENT);
    assert_int_equal(lb_loader_start(loader, 0, 3), LB_ERR_ARGUMENT);
    assert_int_equal(lb_loader_start(loader, -1, 0), LB_ERR_ARGUMENT);
    lb_loader_destroy(loader);
    unmake(&data);
}

/* The training images without augmentation are what lb_test_batch gives, resized too. */
static void test_resized(void **state) {
    scratch *s = *state;
    lb_data data = make(s->ctx, 20);
    static const int sizes[][3] = {{6, 6, 0}, {12, 12, 0}, {4, 4, 0}, {4, 4, 6}, {5, 3, 0}, {4, 4, 9}};
    for (size_t k = 0; k < LB_COUNT(sizes); k++) {
        int oh = sizes[k][0], ow = sizes[k][1];
        size_t bytes = (size_t)(oh * ow * C);
        lb_data_config config = {.workers = 1, .augment.resize = sizes[k][2]};
        uint8_t *test = malloc(20 * bytes);
        int32_t labels[20];
        int matched = 0;
        assert_ok(s->ctx, lb_test_batch(&data, &config, LB_TEST, 0, 20, oh, ow, test, labels));
        lb_loader *loader;
        const lb_batch *batch;
        assert_ok(s->ctx, lb_loader_create(&data, &config, oh, ow, 20, 1, &loader));
        assert_ok(s->ctx, lb_loader_start(loader, 0, 0));
        assert_ok(s->ctx, lb_loader_next(loader, &batch));
        for (int i = 0; i < 20; i++) {
            bool found = false;
            for (int j = 0; j < 20 && !found; j++)
                found =
                    labels[j] == batch->labels[i] && !memcmp(test + (size_t)j * bytes, batch->pixels + (size_t)i * bytes, bytes);
            matched += found;
        }
        assert_int_equal(matched, 20);
        if (k == 3) /* resized to its own size: cropped only */
            assert_memory_equal(test, data.split[LB_TEST].pixels + (W + 1) * C, 4 * C);
        lb_loader_destroy(loader);
        free(test);
    }
    uint8_t pixels[12 * 12 * C];
    int32_t labels[2];
    lb_data_config config = {.augment.resize = 5};
    lb_loader *loader;
    assert_int_equal(lb_test_batch(&data, &config, LB_TEST, 0, 1, 6, 6, pixels, labels), LB_ERR_RECIPE);
    assert_int_equal(lb_loader_create(&data, &config, 6, 6, 2, 1, &loader), LB_ERR_RECIPE);
    config.augment.resize = 0;
    assert_int_equal(lb_test_batch(&data, &config, LB_TEST, 19, 2, 6, 6, pixels, labels), LB_ERR_ARGUMENT);
    assert_int_equal(lb_test_batch(&data, &config, LB_TEST, -1, 2, 6, 6, pixels, labels), LB_ERR_ARGUMENT);
    unmake(&data);
}

/* Each image is resized, padded, cropped and flipped as was drawn for it in its epoch. */
static void test_augmented(void **state) {
    enum { FEW = 10, EPOCHS = 4, SEED = 5 }; /* a label tells which image it is */
    scratch *s = *state;
    static const int sizes[][2] = {{H, W}, {9, 4}};
    lb_data data = make(s->ctx, FEW);
    int flips = 0, boxes = 0;
    for (int k = 0; k < C; k++)
        data.mean[k] = 0.25f * (float)k;
    for (size_t a = 0; a < 2 * LB_COUNT(augments); a++)
        for (size_t z = 0; z < LB_COUNT(sizes); z++) {
            const int oh = sizes[z][0], ow = sizes[z][1];
            const size_t bytes = (size_t)(oh * ow * C);
            lb_data_config config = {.workers = 1, .augment = augments[a / 2]};
            config.augment.fill = a % 2 ? LB_FILL_MEAN : LB_FILL_BLACK;
            config.augment.resize = config.augment.resize ? 10 : 0;
            const lb_augment_config *g = &config.augment;
            const uint8_t mean[C] = {0, 64, 128}, black[C] = {0};
            const lb_box centre = lb_centre_box(H, W, oh, ow, g->resize);
            uint8_t *resized = malloc(bytes), *expected = malloc(bytes), *room = malloc(lb_resize_scratch(H, W, C, oh, ow));
            lb_loader *loader;
            assert_true(resized && expected && room);
            assert_ok(s->ctx, lb_loader_create(&data, &config, oh, ow, FEW, SEED, &loader));
            for (int epoch = 0; epoch < EPOCHS; epoch++) {
                const lb_batch *batch;
                assert_ok(s->ctx, lb_loader_start(loader, epoch, 0));
                assert_ok(s->ctx, lb_loader_next(loader, &batch));
                for (int i = 0; i < FEW; i++) {
                    const int image = batch->labels[i];
                    lb_augment drawn;
                    lb_augment_draw(g, SEED, epoch, image, H, W, &drawn);
                    lb_resize(data.split[LB_TRAIN].pixels + image * H * W * C, H, W, C, g->resized_crop ? &drawn.box : &centre,
                              resized, oh, ow, room);
                    lb_pad_crop_flip(resized, oh, ow, C, g->pad, a % 2 ? mean : black, drawn.dy, drawn.dx, drawn.flip, expected);
                    assert_memory_equal(batch->pixels + (size_t)i * bytes, expected, bytes);
                    flips += drawn.flip;
                    boxes += g->resized_crop && drawn.box.h != H;
                }
            }
            lb_loader_destroy(loader);
            free(resized);
            free(expected);
            free(room);
        }
    assert_true(flips > 50 && boxes > 50);
    unmake(&data);
}

static void test_memory(void **state) {
    (void)state;
    for (long n = 0;; n++) {
        test_allocator a = {.left = 1000};
        lb_ctx *ctx = test_ctx_with(&a);
        long before = a.alive;
        lb_data data = make(ctx, 10);
        lb_data_config config = {.workers = 2, .augment = augments[2]};
        a.left = n;
        lb_loader *loader;
        lb_status status = lb_loader_create(&data, &config, H, W, 4, 1, &loader);
        if (status == LB_OK)
            lb_loader_destroy(loader);
        else
            assert_int_equal(status, LB_ERR_MEMORY);
        assert_int_equal(a.alive, before);
        unmake(&data);
        lb_ctx_destroy(ctx);
        if (status == LB_OK)
            break;
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_same_whatever_workers),
                                       TEST(test_once_per_epoch),
                                       TEST(test_shuffle_uniform),
                                       TEST(test_small_sets),
                                       TEST(test_resized),
                                       TEST(test_augmented),
                                       TEST(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* One image: decoding, resizing, cropping, flipping. */
#include "fixtures.h"

static const lb_data_config as_it_is = {.size = 0};

static void test_png(void **state) {
    scratch *s = *state;
    for (int c = 1; c <= 3; c += 2) {
        uint8_t expected[6 * 9 * 3], got[6 * 9 * 3];
        put_image("a.png", 1, 6, 9, c);
        pattern_image(1, 6, 9, c, expected);
        assert_ok(s->ctx, lb_image_load(s->ctx, "a.png", &as_it_is, 6, 9, c, got));
        assert_memory_equal(got, expected, (size_t)(6 * 9 * c));
        int other = c == 1 ? 3 : 1; /* grey to colour repeats; colour to grey weighs */
        assert_ok(s->ctx, lb_image_load(s->ctx, "a.png", &as_it_is, 6, 9, other, got));
        for (int p = 0; p < 54; p++) {
            if (c == 1)
                assert_true(got[3 * p] == expected[p] && got[3 * p + 1] == expected[p] && got[3 * p + 2] == expected[p]);
            else
                assert_true(fabs(got[p] - (.299 * expected[3 * p] + .587 * expected[3 * p + 1] + .114 * expected[3 * p + 2])) <= 1);
        }
    }
}

static void test_jpeg(void **state) {
    scratch *s = *state;
    for (int c = 1; c <= 3; c += 2) {
        uint8_t expected[16 * 24 * 3], got[16 * 24 * 3];
        put_image("a.jpg", 1, 16, 24, c);
        pattern_image(1, 16, 24, c, expected);
        assert_ok(s->ctx, lb_image_load(s->ctx, "a.jpg", &as_it_is, 16, 24, c, got));
        for (int i = 0; i < 16 * 24 * c; i++)
            assert_true(abs(got[i] - expected[i]) <= 6);
    }
}

/* A file comes out as the test image of a data set does that holds it. */
static void test_as_data_set(void **state) {
    scratch *s = *state;
    static const struct {
        int size, resize;
    } cases[] = {{0, 0}, {0, 40}, {20, 0}, {20, 16}, {12, 0}, {12, 13}};
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        lb_data_config config = {.size = cases[i].size, .augment.resize = cases[i].resize};
        uint8_t stored[20 * 20 * 3], expected[12 * 12 * 3], got[12 * 12 * 3];
        put_image("wide.png", 1, 30, 44, 3);
        lb_images images = {.count = 1, .h = 30, .w = 44, .c = 3, .labels = (int32_t[]){0}};
        lb_data data = {.ctx = s->ctx};
        uint8_t whole[30 * 44 * 3];
        pattern_image(1, 30, 44, 3, whole);
        images.pixels = whole;
        if (config.size) {
            const lb_data_config plain = {.size = 0};
            assert_ok(s->ctx, lb_image_load(s->ctx, "wide.png", &plain, config.size, config.size, 3, stored));
            images.h = images.w = config.size;
            images.pixels = stored;
        }
        data.split[LB_TEST] = images;
        int32_t label;
        assert_ok(s->ctx, lb_test_batch(&data, &config, LB_TEST, 0, 1, 12, 12, expected, &label));
        assert_ok(s->ctx, lb_image_load(s->ctx, "wide.png", &config, 12, 12, 3, got));
        assert_memory_equal(got, expected, sizeof got);
    }
}

static void test_bad_images(void **state) {
    scratch *s = *state;
    uint8_t pixels[64 * 64 * 3], *out = pixels;
    static const struct {
        const char *name;
        size_t cut;
        const char *says;
    } cases[] = {{"a.jpg", 20, "JPEG"}, {"a.jpg", 700, "damaged JPEG"}, {"a.png", 20, "PNG"}, {"a.png", 100, "damaged PNG"}};
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        put_image(cases[i].name, 1, 64, 64, 3);
        assert_int_equal(truncate(cases[i].name, (off_t)cases[i].cut), 0);
        assert_int_equal(lb_image_load(s->ctx, cases[i].name, &as_it_is, 64, 64, 3, out), LB_ERR_FORMAT);
        assert_non_null(strstr(lb_error(s->ctx), cases[i].name));
        if (!strstr(lb_error(s->ctx), cases[i].says))
            fail_msg("\"%s\" does not say %s", lb_error(s->ctx), cases[i].says);
    }
    put_file("text.jpg", "hello", 5);
    assert_int_equal(lb_image_load(s->ctx, "text.jpg", &as_it_is, 8, 8, 3, out), LB_ERR_FORMAT);
    assert_non_null(strstr(lb_error(s->ctx), "not an image"));
    put_file("empty.jpg", "", 0);
    assert_int_equal(lb_image_load(s->ctx, "empty.jpg", &as_it_is, 8, 8, 3, out), LB_ERR_FORMAT);
    assert_non_null(strstr(lb_error(s->ctx), "empty"));
    assert_int_equal(lb_image_load(s->ctx, "none.jpg", &as_it_is, 8, 8, 3, out), LB_ERR_IO);

    /* A header that promises 65535 x 65535 pixels, with a right checksum, must not be believed. */
    uint8_t png[4096];
    put_image("big.png", 1, 8, 8, 3);
    size_t size = get_file("big.png", png, sizeof png);
    memcpy(png + 16, "\0\0\xff\xff\0\0\xff\xff", 8);
    uint32_t crc = (uint32_t)crc32(0, png + 12, 17);
    for (int i = 0; i < 4; i++)
        png[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    put_file("big.png", png, size);
    assert_int_equal(lb_image_load(s->ctx, "big.png", &as_it_is, 8, 8, 3, out), LB_ERR_FORMAT);
    assert_non_null(strstr(lb_error(s->ctx), "limit"));
}

/* What the decoder warns of and carries on after is no damage, but hides none either. */
static void test_jpeg_warnings(void **state) {
    scratch *s = *state;
    enum { SIDE = 40, N = SIDE * SIDE * 3 };
    uint8_t pixels[N], expected[N], got[N];
    for (int i = 0; i < N; i++) {
        uint32_t r[4];
        lb_rng4(1, LB_RNG_TEST, 0, (uint64_t)i, r);
        pixels[i] = (uint8_t)r[0];
    }
    for (int scans = 0; scans < 2; scans++) {
        tjhandle jpeg = tjInitCompress();
        unsigned char *made = NULL;
        unsigned long size = 0;
        assert_int_equal(
            tjCompress2(jpeg, pixels, SIDE, 0, SIDE, TJPF_RGB, &made, &size, TJSAMP_444, 80, scans ? TJFLAG_PROGRESSIVE : 0), 0);
        put_file("sound.jpg", made, size);
        assert_ok(s->ctx, lb_image_load(s->ctx, "sound.jpg", &as_it_is, SIDE, SIDE, 3, expected));
        for (int way = 0; way < 2; way++) {
            const size_t more = way ? 4 : 0; /* an unknown JFIF version; bytes between the header's segments */
            uint8_t *bytes = malloc(size + more);
            memcpy(bytes, made, 20);
            memset(bytes + 20, 0, more);
            memcpy(bytes + 20 + more, made + 20, size - 20);
            bytes[11] = way ? bytes[11] : 2;
            put_file("odd.jpg", bytes, size + more);
            memset(got, 0, N);
            assert_ok(s->ctx, lb_image_load(s->ctx, "odd.jpg", &as_it_is, SIDE, SIDE, 3, got));
            assert_memory_equal(got, expected, N);
            for (size_t cut = 2; cut < size + more; cut += cut < size + more - 40 ? 37 : 1) {
                put_file("odd.jpg", bytes, cut);
                assert_int_equal(lb_image_load(s->ctx, "odd.jpg", &as_it_is, SIDE, SIDE, 3, got), LB_ERR_FORMAT);
            }
            if (scans) { /* an error in the last table of codes, behind the first scan: too many */
                size_t at = size + more - 2;
                while (memcmp(bytes + at, "\xff\xc4", 2))
                    at--;
                memset(bytes + at + 5, 0xff, 16);
                put_file("odd.jpg", bytes, size + more);
                assert_int_equal(lb_image_load(s->ctx, "odd.jpg", &as_it_is, SIDE, SIDE, 3, got), LB_ERR_FORMAT);
                assert_non_null(strstr(lb_error(s->ctx), "damaged JPEG"));
            }
            free(bytes);
        }
        tjFree(made);
        tjDestroy(jpeg);
    }
}

/* Every byte of small files altered in turn: an error or some image, but nothing worse (the sanitizers watch). */
static void test_altered_bytes(void **state) {
    scratch *s = *state;
    for (int png = 0; png < 2; png++) {
        blob b = pattern_file(2, 9, 11, 3, png);
        lb_decoder decoder;
        lb_decoder_init(&decoder, s->ctx, NULL);
        uint8_t dst[8 * 8 * 3];
        for (size_t i = 0; i < b.size; i++)
            for (int bit = 0; bit < 8; bit += 3) {
                uint8_t *copy = malloc(b.size); /* exactly as long, for the sanitizer's sake */
                memcpy(copy, b.data, b.size);
                copy[i] ^= (uint8_t)(1 << bit);
                lb_decoder_fit(&decoder, copy, b.size, 8, 8, 3, dst);
                free(copy);
            }
        lb_decoder_free(&decoder);
        free(b.data);
    }
}

/* The resizer in doubles: triangle filter of the box, horizontally rounded first as the fixed-point one does. */
static double triangle(double x) { return fmax(0, 1 - fabs(x)); }

static void reference(const uint8_t *src, int ih, int iw, int c, lb_box box, double *dst, int oh, int ow) {
    double sy = box.h / oh, sx = box.w / ow, wy = fmax(sy, 1), wx = fmax(sx, 1);
    int y0 = (int)floor(box.y + 1e-9), y1 = LB_MIN(ih, (int)ceil(box.y + box.h - 1e-9));
    int x0 = (int)floor(box.x + 1e-9), x1 = LB_MIN(iw, (int)ceil(box.x + box.w - 1e-9));
    for (int oy = 0; oy < oh; oy++)
        for (int ox = 0; ox < ow; ox++)
            for (int k = 0; k < c; k++) {
                double sum = 0, weight = 0;
                for (int y = y0; y < y1; y++)
                    for (int x = x0; x < x1; x++) {
                        double w =
                            triangle((y + .5 - box.y - (oy + .5) * sy) / wy) * triangle((x + .5 - box.x - (ox + .5) * sx) / wx);
                        sum += w * src[(y * iw + x) * c + k];
                        weight += w;
                    }
                dst[(oy * ow + ox) * c + k] = sum / weight;
            }
}

static void test_resize(void **state) {
    scratch *s = *state;
    static const struct {
        int ih, iw, oh, ow;
        lb_box box;
    } cases[] = {
        {8, 8, 16, 16, {0, 0, 8, 8}},     {16, 16, 8, 8, {0, 0, 16, 16}},   {17, 13, 5, 7, {0, 0, 17, 13}},
        {5, 7, 17, 13, {0, 0, 5, 7}},     {20, 20, 8, 8, {3, 5, 11, 9}},    {1, 1, 6, 6, {0, 0, 1, 1}},
        {40, 1, 4, 3, {0, 0, 40, 1}},     {1, 90, 2, 2, {0, 0, 1, 90}},     {30, 20, 10, 10, {5.5, 0, 20, 20}},
        {12, 12, 12, 12, {0, 0, 12, 12}}, {12, 14, 10, 10, {1, 2, 10, 10}}, {333, 500, 8, 8, {0, 83.5, 333, 333}},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++)
        for (int c = 1; c <= 3; c++) {
            int ih = cases[i].ih, iw = cases[i].iw, oh = cases[i].oh, ow = cases[i].ow;
            size_t n = (size_t)ih * (size_t)iw * (size_t)c, m = (size_t)oh * (size_t)ow * (size_t)c;
            uint8_t *src = malloc(n), *dst = malloc(m), *room = malloc(lb_resize_scratch(ih, iw, c, oh, ow));
            double *expected = calloc(m, sizeof *expected);
            for (size_t j = 0; j < n; j++) {
                uint32_t r[4];
                lb_rng4(i, LB_RNG_TEST, 0, j, r);
                src[j] = (uint8_t)r[0];
            }
            lb_resize(src, ih, iw, c, &cases[i].box, dst, oh, ow, room);
            reference(src, ih, iw, c, cases[i].box, expected, oh, ow);
            for (size_t j = 0; j < m; j++)
                if (fabs(dst[j] - expected[j]) > 1.6)
                    fail_msg("case %zu, %d channels, value %zu: %d, expected %.2f", i, c, j, dst[j], expected[j]);
            memset(src, 201, n); /* what is constant stays so */
            lb_resize(src, ih, iw, c, &cases[i].box, dst, oh, ow, room);
            for (size_t j = 0; j < m; j++)
                assert_int_equal(dst[j], 201);
            free(src), free(dst), free(room), free(expected);
        }
    (void)s;
}

static void test_centre_box(void **state) {
    (void)state;
    lb_box b = lb_centre_box(32, 32, 32, 32, 0);
    assert_true(b.y == 0 && b.x == 0 && b.h == 32 && b.w == 32);
    b = lb_centre_box(300, 400, 224, 224, 0); /* whole height, centre of the width */
    assert_true(b.y == 0 && b.h == 300 && fabs(b.x - 50) < 1.5 && fabs(b.w - 300) < 1.5);
    b = lb_centre_box(256, 256, 224, 224, 256); /* nothing but a crop */
    assert_true(b.y == 16 && b.x == 16 && b.h == 224 && b.w == 224);
    b = lb_centre_box(512, 1024, 224, 224, 256);
    assert_true(b.y == 32 && b.h == 448 && b.x == 288 && b.w == 448);
    b = lb_centre_box(1, 65535, 60000, 8, 0);
    assert_true(b.h <= 1 && b.y >= 0 && b.x >= 0 && b.x + b.w <= 65535);
}

static void test_pad_crop_flip(void **state) {
    (void)state;
    static const int sizes[][3] = {{5, 7, 1}, {4, 4, 3}, {6, 3, 2}, {1, 1, 3}};
    for (size_t i = 0; i < LB_COUNT(sizes); i++) {
        int h = sizes[i][0], w = sizes[i][1], c = sizes[i][2];
        uint8_t src[5 * 7 * 3], dst[5 * 7 * 3];
        const uint8_t fill[3] = {0, 125, 255};
        pattern_image(0, h, w, c, src);
        for (int pad = 0; pad <= 9; pad++)
            for (int dy = 0; dy <= 2 * pad; dy++)
                for (int dx = 0; dx <= 2 * pad; dx++)
                    for (int flip = 0; flip < 2; flip++) {
                        memset(dst, 77, sizeof dst);
                        lb_pad_crop_flip(src, h, w, c, pad, fill, dy, dx, flip, dst);
                        for (int y = 0; y < h; y++)
                            for (int x = 0; x < w; x++)
                                for (int k = 0; k < c; k++) {
                                    int sy = y + dy - pad, sx = (flip ? w - 1 - x : x) + dx - pad;
                                    int expected = sy >= 0 && sy < h && sx >= 0 && sx < w ? src[(sy * w + sx) * c + k] : fill[k];
                                    if (dst[(y * w + x) * c + k] != expected)
                                        fail_msg("%dx%dx%d pad %d at %d,%d flip %d: (%d,%d,%d)", h, w, c, pad, dy, dx, flip, y, x,
                                                 k);
                                }
                    }
    }
}

/* Chi-squared of observed counts against equal ones. */
static double chi_squared(const int *counts, int n, int total) {
    double expected = (double)total / n, sum = 0;
    for (int i = 0; i < n; i++)
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    return sum;
}

static void test_draws(void **state) {
    (void)state;
    enum { N = 81000 };
    lb_augment_config config = {.pad = 4, .flip = true};
    int flips = 0, offsets[81] = {0}, joint[2] = {0};
    for (int i = 0; i < N; i++) {
        lb_augment a, again;
        lb_augment_draw(&config, 7, 3, i, 32, 32, &a);
        lb_augment_draw(&config, 7, 3, i, 32, 32, &again);
        assert_memory_equal(&a, &again, sizeof a);
        assert_true(a.dy >= 0 && a.dy <= 8 && a.dx >= 0 && a.dx <= 8);
        offsets[a.dy * 9 + a.dx]++;
        flips += a.flip;
        joint[a.flip] += a.dy < 4;
    }
    assert_true(abs(flips - N / 2) < 4 * sqrt(N) / 2);
    assert_true(abs(joint[0] - joint[1]) < 4 * sqrt(N)); /* flips do not go with offsets */
    assert_true(chi_squared(offsets, 81, N) < 125); /* 80 degrees of freedom: p = 0.001 at 124.8 */

    int same = 0;
    for (int i = 0; i < 1000; i++) { /* other epochs and seeds draw otherwise */
        lb_augment a, b, c;
        lb_augment_draw(&config, 7, 3, i, 32, 32, &a);
        lb_augment_draw(&config, 7, 4, i, 32, 32, &b);
        lb_augment_draw(&config, 8, 3, i, 32, 32, &c);
        same += (a.dy == b.dy && a.dx == b.dx) + (a.dy == c.dy && a.dx == c.dx);
    }
    assert_true(same < 60); /* 1 of 81 by chance: 25 */
}

static void test_resized_crop(void **state) {
    (void)state;
    lb_augment_config config = {.resized_crop = true, .scale = {.08f, 1}, .ratio = {.75f, 4.0f / 3}};
    static const int sizes[][2] = {{300, 400}, {32, 32}, {10, 200}, {1, 1}};
    for (size_t k = 0; k < LB_COUNT(sizes); k++) {
        int ih = sizes[k][0], iw = sizes[k][1], counts[10] = {0};
        double area = 0;
        for (int i = 0; i < 20000; i++) {
            lb_augment a;
            lb_augment_draw(&config, 1, 0, i, ih, iw, &a);
            assert_true(a.box.h >= 1 && a.box.w >= 1 && a.box.y >= 0 && a.box.x >= 0 && a.box.y + a.box.h <= ih &&
                        a.box.x + a.box.w <= iw);
            if (k == 0)
                assert_true(a.box.w / a.box.h > .74 && a.box.w / a.box.h < 1.36);
            area += a.box.h * a.box.w / (ih * iw);
            double part = a.box.h * a.box.w / (ih * iw);
            counts[part >= 1 ? 9 : (int)(part * 10)]++;
        }
        if (k == 0) /* uniform in 0.08 .. 1, less what does not fit: density -ln(a) / ln(16/9) of it fits above 9/16 */
            assert_true(fabs(area / 20000 - .432) < .006 && counts[0] > 450 && counts[0] < 700 && counts[3] > 2700);
    }
    enum { DRAWS = 28900 };
    int places[17 * 17] = {0}; /* of a quarter: down and across are drawn apart */
    config.scale[0] = config.scale[1] = .25f;
    config.ratio[0] = config.ratio[1] = 1;
    for (int i = 0; i < DRAWS; i++) {
        lb_augment a;
        lb_augment_draw(&config, 2, 0, i, 32, 32, &a);
        assert_true(a.box.h == 16 && a.box.w == 16);
        places[(int)a.box.y * 17 + (int)a.box.x]++;
    }
    assert_true(chi_squared(places, 17 * 17, DRAWS) < 366); /* 288 degrees of freedom: p = 0.001 at 365.4 */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_png),          TEST(test_jpeg),          TEST(test_jpeg_warnings),
                                       TEST(test_bad_images),   TEST(test_altered_bytes), TEST(test_resize),
                                       TEST(test_centre_box),   TEST(test_draws),         TEST(test_pad_crop_flip),
                                       TEST(test_resized_crop), TEST(test_as_data_set)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

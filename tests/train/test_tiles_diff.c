/* The weights' gradient by matrix registers: that of AMX, of this machine or emulated, against plain C, bit for bit, and that
 * against plain loops. */
#include "amx_machine.h"

#include "quant/rint.h"
#include "train/simd/tiles.h"
#include "train/simd/vec.h"

/* Every way to pair images and to cut bands, channels that are no multiple of 16, strides, kernels, padding. */
static const lb_tiles_dims shapes[] = {
    {.mb = 3, .ih = 7, .iw = 5, .ic = 16, .oh = 7, .ow = 5, .oc = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 4, .ih = 8, .iw = 8, .ic = 32, .oh = 8, .ow = 8, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 5, .ih = 9, .iw = 8, .ic = 16, .oh = 5, .ow = 4, .oc = 32, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .pt = 1, .pl = 1},
    {.mb = 33, .ih = 3, .iw = 7, .ic = 48, .oh = 3, .ow = 7, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 2, .ih = 6, .iw = 40, .ic = 16, .oh = 4, .ow = 38, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.mb = 2, .ih = 9, .iw = 64, .ic = 3, .oh = 9, .ow = 64, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 3, .ih = 13, .iw = 15, .ic = 3, .oh = 7, .ow = 8, .oc = 16, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .pt = 3, .pl = 3},
    {.mb = 2, .ih = 4, .iw = 5, .ic = 1, .oh = 4, .ow = 5, .oc = 16, .kh = 2, .kw = 2, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.mb = 6, .ih = 8, .iw = 8, .ic = 32, .oh = 4, .ow = 4, .oc = 48, .kh = 1, .kw = 1, .sh = 2, .sw = 2, .pt = 0, .pl = 0},
    {.mb = 1, .ih = 5, .iw = 6, .ic = 80, .oh = 5, .ow = 6, .oc = 16, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.mb = 2, .ih = 70, .iw = 64, .ic = 16, .oh = 35, .ow = 64, .oc = 16, .kh = 5, .kw = 2, .sh = 2, .sw = 1, .pt = 2, .pl = 0},
    {.mb = 40, .ih = 2, .iw = 2, .ic = 240, .oh = 2, .ow = 2, .oc = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.mb = 3, .ih = 5, .iw = 4, .ic = 20, .oh = 7, .ow = 3, .oc = 16, .kh = 3, .kw = 4, .sh = 1, .sw = 2, .pt = 2, .pl = 2},
};
enum { MAX_TENSOR = 1 << 18, MAX_WEIGHTS = 1 << 17 };

static uint16_t src[MAX_TENSOR], dy[MAX_TENSOR];
static float numbers[MAX_TENSOR];

static size_t src_count(const lb_tiles_dims *d) { return (size_t)d->mb * (size_t)d->ih * (size_t)d->iw * (size_t)d->ic; }
static size_t dst_count(const lb_tiles_dims *d) { return (size_t)d->mb * (size_t)d->oh * (size_t)d->ow * (size_t)d->oc; }
static size_t weight_count(const lb_tiles_dims *d) { return (size_t)d->oc * (size_t)d->kh * (size_t)d->kw * (size_t)d->ic; }

/* Cut off; what is too small to be normal stays. */
static uint16_t raw_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* TINY: products and sums around the smallest normal number, and factors below it. */
typedef enum test_numbers { REAL, WHOLE, TINY } test_numbers;

static void fill(const lb_tiles_dims *d, test_numbers kind, uint64_t seed) {
    static const float tiny[] = {0x1p-127f, 0x1p-120f, 0x1p-63f, 0x1p-8f, 0x1p-3f};
    uint16_t *const all[] = {src, dy};
    const size_t counts[] = {src_count(d), dst_count(d)};
    for (uint64_t k = 0; k < 2; k++) {
        assert_true(counts[k] <= MAX_TENSOR);
        lb_rng_normal(seed, LB_RNG_TEST, k, 1, numbers, counts[k]);
        for (size_t i = 0; i < counts[k]; i++)
            all[k][i] = kind == TINY ? raw_bf16(numbers[i] * tiny[(i + i / 16) % LB_COUNT(tiny)])
                                     : lb_bf16_put(kind == WHOLE ? lb_rint(2 * numbers[i]) : numbers[i]);
    }
}

/* In two calls for 16 output channels and two for the others. */
static void run(const lb_tiles_diff *k, const lb_tiles_dims *d, int first, int last, float *diff) {
    lb_ctx *ctx = test_ctx();
    assert_true(weight_count(d) <= MAX_WEIGHTS);
    for (int oc = 0; oc < d->oc;) {
        const int next = oc == 0 ? 16 : d->oc;
        void *scratch = lb_alloc(ctx, k->scratch(d, next - oc), 1);
        assert_non_null(scratch);
        memset(scratch, 0xff, k->scratch(d, next - oc)); /* NaN */
        const int middle = (first + last + 1) / 2;
        k->diff(d, first, middle, oc, next, src, dy, false, diff, scratch);
        if (middle < last)
            k->diff(d, middle, last, oc, next, src, dy, true, diff, scratch);
        lb_free(ctx, scratch);
        oc = next;
    }
    lb_ctx_destroy(ctx);
}

static float got[MAX_WEIGHTS], wanted[MAX_WEIGHTS];

/* What differs from plain C, NULL: nothing. */
static const char *difference(const lb_tiles_diff *fast) {
    static char text[64];
    for (size_t i = 0; i < LB_COUNT(shapes); i++)
        for (int kind = REAL; kind <= TINY; kind++) {
            const lb_tiles_dims *d = &shapes[i];
            fill(d, (test_numbers)kind, i);
            run(lb_tiles_diff_find("scalar"), d, d->mb / 3, d->mb, wanted);
            run(fast, d, d->mb / 3, d->mb, got);
            if (memcmp(got, wanted, weight_count(d) * sizeof *got) != 0) {
                snprintf(text, sizeof text, "amx is not scalar: shape %zu, numbers %d", i, kind);
                return text;
            }
        }
    return NULL;
}

AMX_KERNEL_TESTS(lb_tiles_diff)

/* By its definition, of images [first, last). */
static double plain(const lb_tiles_dims *d, int first, int last, int o, int kh, int kw, int c) {
    double sum = 0;
    for (int n = first; n < last; n++)
        for (int y = 0; y < d->oh; y++)
            for (int x = 0; x < d->ow; x++) {
                const int iy = y * d->sh - d->pt + kh, ix = x * d->sw - d->pl + kw;
                if (iy >= 0 && ix >= 0 && iy < d->ih && ix < d->iw)
                    sum += (double)lb_bf16_get(dy[((n * d->oh + y) * d->ow + x) * d->oc + o]) *
                           (double)lb_bf16_get(src[((n * d->ih + iy) * d->iw + ix) * d->ic + c]);
            }
    return sum;
}

static void check(const lb_tiles_dims *d, int first, int last, bool whole, const float *diff) {
    double error = 0, size = 0;
    for (int o = 0; o < d->oc; o += 3)
        for (int k = 0; k < d->kh * d->kw; k++)
            for (int c = 0; c < d->ic; c += d->ic < 16 ? 1 : 5) {
                const double is = (double)diff[(o * d->kh * d->kw + k) * d->ic + c];
                const double sum = plain(d, first, last, o, k / d->kw, k % d->kw, c);
                assert_true(!whole || is == sum);
                error += (is - sum) * (is - sum);
                size += sum * sum;
            }
    if (!(sqrt(error / size) < 1e-5))
        fail_msg("%dx%d, %d channels: error %g", d->ih, d->iw, d->ic, sqrt(error / size));
}

static void test_scalar(void **state) {
    (void)state;
    for (size_t i = 0; i < LB_COUNT(shapes); i++)
        for (int kind = REAL; kind <= WHOLE; kind++) {
            const lb_tiles_dims *d = &shapes[i];
            fill(d, (test_numbers)kind, 17 + i);
            run(lb_tiles_diff_find("scalar"), d, 0, d->mb, wanted);
            check(d, 0, d->mb, kind == WHOLE, wanted);
            run(lb_tiles_diff_find("scalar"), d, d->mb / 2, d->mb, wanted);
            check(d, d->mb / 2, d->mb, kind == WHOLE, wanted);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_emulated), cmocka_unit_test(test_amx), cmocka_unit_test(test_scalar)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

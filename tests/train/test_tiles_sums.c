/* Evaluation's convolutions by matrix registers: those of AMX against plain C, bit for bit; that against the definition. */
#include "amx_machine.h"

#include "train/simd/tiles_sums.h"

enum { MB = 3, MOST = 1 << 16 };

/* Results that count on over padding and such that do not; several images and several bands; channels that fill lines and that do
 * not; strides, and padding that is not the same on both sides. */
static const lb_sums shapes[] = {
    {.ih = 7, .iw = 5, .ic = 16, .oh = 7, .ow = 5, .oc = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.ih = 20, .iw = 32, .ic = 16, .oh = 20, .ow = 32, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.ih = 9, .iw = 8, .ic = 32, .oh = 5, .ow = 4, .oc = 48, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .pt = 1, .pl = 1},
    {.ih = 19, .iw = 17, .ic = 48, .oh = 19, .ow = 17, .oc = 16, .kh = 5, .kw = 3, .sh = 1, .sw = 1, .pt = 2, .pl = 1},
    {.ih = 9, .iw = 33, .ic = 3, .oh = 9, .ow = 33, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.ih = 13, .iw = 15, .ic = 3, .oh = 7, .ow = 8, .oc = 32, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .pt = 3, .pl = 3},
    {.ih = 8, .iw = 9, .ic = 16, .oh = 4, .ow = 5, .oc = 48, .kh = 1, .kw = 1, .sh = 2, .sw = 2, .pt = 0, .pl = 0},
    {.ih = 5, .iw = 6, .ic = 160, .oh = 5, .ow = 6, .oc = 32, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.ih = 3, .iw = 3, .ic = 192, .oh = 3, .ow = 3, .oc = 32, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.ih = 6, .iw = 40, .ic = 17, .oh = 4, .ow = 19, .oc = 16, .kh = 3, .kw = 4, .sh = 1, .sw = 2, .pt = 0, .pl = 0},
    {.ih = 3, .iw = 7, .ic = 8, .oh = 1, .ow = 3, .oc = 16, .kh = 5, .kw = 4, .sh = 3, .sw = 3, .pt = 1, .pl = 2},
    {.ih = 2, .iw = 3, .ic = 16, .oh = 2, .ow = 4, .oc = 32, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .pt = 2, .pl = 4},
    {.ih = 7, .iw = 6, .ic = 32, .oh = 2, .ow = 2, .oc = 16, .kh = 2, .kw = 2, .sh = 4, .sw = 4, .pt = 0, .pl = 0},
    {.ih = 9, .iw = 1, .ic = 16, .oh = 9, .ow = 1, .oc = 16, .kh = 4, .kw = 1, .sh = 1, .sw = 1, .pt = 3, .pl = 0},
    {.ih = 4, .iw = 5, .ic = 1, .oh = 4, .ow = 5, .oc = 16, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1},
    {.ih = 21, .iw = 1, .ic = 70, .oh = 21, .ow = 1, .oc = 64, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .pt = 0, .pl = 0},
    {.ih = 3, .iw = 3, .ic = 16, .oh = 5, .ow = 7, .oc = 16, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .pt = 1, .pl = 2},
};

static float src_f[MOST], weights[MOST], wanted[MOST], got[MOST];
static uint8_t src_b[MOST];

static size_t src_count(const lb_sums *s) { return (size_t)s->ih * (size_t)s->iw * (size_t)s->ic; }
static size_t dst_count(const lb_sums *s) { return (size_t)s->oh * (size_t)s->ow * (size_t)s->oc; }
static size_t filter(const lb_sums *s) { return (size_t)s->kh * (size_t)s->kw * (size_t)s->ic; }

static void fill(const lb_sums *s, uint64_t seed) {
    const size_t n = MB * src_count(s), count = (size_t)s->oc * filter(s);
    assert_true(n <= MOST && count <= MOST && MB * dst_count(s) <= MOST);
    lb_rng_normal(seed, LB_RNG_TEST, 0, 1, src_f, n);
    lb_rng_normal(seed, LB_RNG_TEST, 1, 1, weights, count);
    for (size_t i = 0; i < n; i++) {
        src_b[i] = (uint8_t)(int)(src_f[i] * 1e4f); /* all of them */
        if (s->type == LB_SUMS_U8)
            src_f[i] = src_b[i];
        else if (s->type == LB_SUMS_S8)
            src_f[i] = (int8_t)src_b[i];
    }
    for (size_t i = 0; s->type != LB_SUMS_F32 && i < count; i++)
        weights[i] = fminf(fmaxf(rintf(weights[i] * 60), -128), 127);
}

typedef struct result {
    const lb_sums *s;
    float *dst;
    int calls;
} result;

static void finish(void *user, int n, int y, int rows, const void *sums) {
    result *r = user;
    const lb_sums *s = r->s;
    const size_t row = (size_t)s->ow * (size_t)s->oc;
    for (int i = 0; i < rows; i++)
        memcpy(r->dst + (size_t)n * dst_count(s) + (size_t)(y + i) * row,
               (const float *)sums + (size_t)i * s->result_row * (size_t)s->oc, row * sizeof(float));
    r->calls++;
}

/* As many rows as there are if `rows` is 0. */
static int run(const lb_tiles_sums *k, lb_sums s, int mb, int images, int rows, float *dst) {
    lb_ctx *ctx = test_ctx();
    k->plan(&s, mb);
    void *w = lb_alloc(ctx, s.weights, 1), *scratch = lb_alloc(ctx, s.scratch, 1);
    void *src = s.type <= LB_SUMS_S8 ? (void *)src_b : (void *)src_f;
    assert_true(w && scratch);
    memset(scratch, 0xff, s.scratch); /* NaN */
    memset(dst, 0, MOST * sizeof *dst);
    k->weights(&s, weights, w);
    result r = {&s, dst, 0};
    k->conv(&s, src, images, rows ? rows : s.oh, w, scratch, finish, &r);
    lb_free(ctx, w);
    lb_free(ctx, scratch);
    lb_ctx_destroy(ctx);
    return r.calls;
}

static lb_sums shape(size_t i, int type) {
    lb_sums s = shapes[i];
    s.type = (lb_sums_type)type;
    return s;
}

/* What differs from plain C, NULL: nothing. */
static const char *difference(const lb_tiles_sums *fast) {
    static char text[64];
    for (size_t i = 0; i < LB_COUNT(shapes); i++)
        for (int type = LB_SUMS_U8; type <= LB_SUMS_F32_CODES; type++) {
            const lb_sums s = shape(i, type);
            fill(&s, i);
            run(lb_tiles_sums_find("scalar"), s, MB, MB, 0, wanted);
            run(fast, s, MB, MB, 0, got);
            if (memcmp(got, wanted, sizeof got) != 0) {
                snprintf(text, sizeof text, "amx is not scalar: shape %zu, type %d", i, type);
                return text;
            }
        }
    return NULL;
}

AMX_KERNEL_TESTS(lb_tiles_sums)

static double product(const lb_sums *s, int n, int y, int x, int o, int ky, int kx, int c) {
    const int iy = y * s->sh - s->pt + ky, ix = x * s->sw - s->pl + kx;
    if (iy < 0 || ix < 0 || iy >= s->ih || ix >= s->iw)
        return 0;
    return (double)src_f[((n * s->ih + iy) * s->iw + ix) * s->ic + c] *
           (double)weights[((o * s->kh + ky) * s->kw + kx) * s->ic + c];
}

/* Bytes are exact; a float's parts leave out 2^-17 of it, and of a weight, and sums are rounded. */
static void check(const lb_sums *s, int n, int y, int x, int o) {
    const size_t at = ((size_t)(n * s->oh + y) * (size_t)s->ow + (size_t)x) * (size_t)s->oc + (size_t)o;
    double sum = 0, size = 0;
    for (int ky = 0; ky < s->kh; ky++)
        for (int kx = 0; kx < s->kw; kx++)
            for (int c = 0; c < s->ic; c++) {
                const double p = product(s, n, y, x, o, ky, kx, c);
                sum += p;
                size += fabs(p);
            }
    int32_t whole;
    memcpy(&whole, &got[at], sizeof whole);
    if (s->type <= LB_SUMS_S8)
        assert_true(whole == sum);
    else
        assert_true(fabs((double)got[at] - sum) <= 0x1p-15 * size + 1e-30);
}

static void definition(void **state) {
    (void)state;
    for (size_t i = 0; i < LB_COUNT(shapes); i++)
        for (int type = LB_SUMS_U8; type <= LB_SUMS_F32_CODES; type++) {
            const lb_sums s = shape(i, type);
            fill(&s, 100 + i);
            run(lb_tiles_sums_find("scalar"), s, MB, MB, 0, got);
            for (int n = 0; n < MB; n++)
                for (int y = 0; y < s.oh; y++)
                    for (int x = 0; x < s.ow; x++)
                        for (int o = n; o < s.oc; o += 5)
                            check(&s, n, y, x, o);
        }
}

/* One image and the first rows give the same numbers as all of them; bands are finished once. */
static void parts(void **state) {
    (void)state;
    const lb_tiles_sums *k = lb_tiles_sums_find("scalar");
    bool several = false;
    for (size_t i = 0; i < LB_COUNT(shapes); i++) {
        const lb_sums s = shape(i, LB_SUMS_F32);
        fill(&s, 200 + i);
        several = run(k, s, MB, MB, 0, wanted) > MB || several;
        run(k, s, 1, MB, 0, got);
        assert_memory_equal(got, wanted, sizeof got);
        run(k, s, MB, 1, (s.oh + 1) / 2, got);
        assert_memory_equal(got, wanted, (size_t)((s.oh + 1) / 2 * s.ow * s.oc) * sizeof *got);
    }
    assert_true(several);
    assert_ptr_equal(lb_tiles_sums_find("none"), NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_emulated), cmocka_unit_test(test_amx), cmocka_unit_test(definition),
                                       cmocka_unit_test(parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

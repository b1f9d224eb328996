/* The runtime's parts: checksum, fixed point, float rules, plan, float convolution. */
#include <math.h>

#include "crc32c.h"
#include "internal.h"
#include "ref_float.h"
#include "support.h"

static uint64_t rng = 88172645463325252ull;
static uint32_t bits(void) {
    rng ^= rng >> 12;
    rng ^= rng << 25;
    rng ^= rng >> 27;
    return (uint32_t)(rng * 2685821657736338717ull >> 32);
}
static int in(int lo, int hi) { return lo + (int)(bits() % (uint32_t)(hi - lo + 1)); }

static void versions(void **state) {
    (void)state;
    assert_string_equal(lbrt_version(), LBRT_VERSION);
    assert_string_equal(LBRT_VERSION, LB_VERSION);
}

static void checksum(void **state) {
    (void)state;
    assert_int_equal(lbrt_crc32c(0, "123456789", 9), 0xe3069283u); /* the check value of CRC-32C */
    assert_int_equal(lbrt_crc32c(0, "", 0), 0);
    unsigned char bytes[32] = {0}; /* RFC 3720, B.4 */
    assert_int_equal(lbrt_crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xFF, 32);
    assert_int_equal(lbrt_crc32c(0, bytes, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)i;
    for (size_t cut = 0; cut <= 32; cut++)
        assert_int_equal(lbrt_crc32c(lbrt_crc32c(0, bytes, cut), bytes + cut, 32 - cut), 0x46dd794eu);
}

static void fixed_point(void **state) {
    (void)state;
    static const struct {
        int32_t x, mul, shift;
        int64_t add;
        int32_t y;
    } cases[] = {
        {5, 1, 1, 1, 3},
        {-5, 1, 1, 1, -2},
        {3, 1, 1, 1, 2},
        {-3, 1, 1, 1, -1},
        {-1, 1, 0, 0, -1},
        {7, -3, 0, 2, -19},
        {-7, 1, 46, 0, -1},
        {INT32_MAX, INT32_MAX, 0, 0, INT32_MAX},
        {INT32_MIN, INT32_MAX, 0, 0, INT32_MIN},
        {INT32_MIN, INT32_MIN, 31, 0, INT32_MAX},
        {INT32_MIN, INT32_MIN, 46, ((int64_t)1 << 61) - 1, 98303},
        {INT32_MIN, INT32_MAX, 46, 1 - ((int64_t)1 << 61), -98304},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        const lbrt_requant q = {cases[i].add, cases[i].mul, cases[i].shift};
        if (lbrt_apply(&q, cases[i].x) != cases[i].y)
            fail_msg("case %d gives %d, not %d", (int)i, (int)lbrt_apply(&q, cases[i].x), (int)cases[i].y);
    }
}

/* Every number where it is not flat yet: to the nearest, but for ties that double cannot tell apart. */
static void sigmoid_and_product(void **state) {
    (void)state;
    int32_t before = 0;
    for (int32_t x = -18 * 65536; x <= 18 * 65536; x++) {
        const int32_t y = lbrt_sigmoid(x);
        const double exact = 65536 / (1 + exp(-(double)x / 65536));
        if (fabs(y - exact) > 0.5 + 1e-4 || y < before)
            fail_msg("sigmoid of %d is %d, not %.6f", (int)x, (int)y, exact);
        before = y;
    }
    static const int32_t ends[][2] = {{INT32_MIN, 0}, {-(16 << 16), 0}, {0, 1 << 15}, {16 << 16, 1 << 16}, {INT32_MAX, 1 << 16}};
    for (size_t i = 0; i < LB_COUNT(ends); i++)
        assert_int_equal(lbrt_sigmoid(ends[i][0]), ends[i][1]);
    static const int32_t products[][3] = {{3 << 16, -(5 << 16), -(15 << 16)}, {1, 1 << 15, 1}, {1, (1 << 15) - 1, 0},
                                          {-1, 1 << 15, 0},
                                          {INT32_MAX, INT32_MAX, INT32_MAX}, {INT32_MIN, INT32_MIN, INT32_MAX},
                                          {INT32_MIN, INT32_MAX, INT32_MIN}, {INT32_MIN, 1 << 16, INT32_MIN}};
    for (size_t i = 0; i < LB_COUNT(products); i++)
        assert_int_equal(lbrt_fixed_mul(products[i][0], products[i][1]), products[i][2]);
}

static void float_rules(void **state) {
    (void)state;
    static const float special[] = {0.0f,       -0.0f,       0.5f,       1.5f,       2.5f,        -0.5f,       -1.5f,
                                    -2.5f,      0.49999997f, 8388607.5f, 8388608.0f, -8388607.5f, 1e30f,       -1e30f,
                                    4194304.5f, 4194303.75f, 32767.5f,   -32768.0f,  32768.0f,    -32768.004f, 127.5f,
                                    -128.5f,    1e-45f,      INFINITY,   -INFINITY,  NAN};
    for (int i = 0; i < 2000000; i++) {
        float v;
        const uint32_t u = bits();
        memcpy(&v, &u, sizeof v);
        if (i < (int)LB_COUNT(special))
            v = special[i];
        const float r = lbrt_rint_f32(v), e = rintf(v);
        if (!(r == e || (r != r && e != e)))
            fail_msg("rint(%a) gives %a, not %a", (double)v, (double)r, (double)e);
        const double code = v != v ? -8 : fmax(-8, fmin(7, rint((double)(v * 0.37f))));
        assert_int_equal(lbrt_code_f32(v, 0.37f, -8, 7), (int)code);
        const double fixed = v != v ? INT32_MIN : fmax(INT32_MIN, fmin(INT32_MAX, rint((double)v * 65536)));
        assert_int_equal(lbrt_fixed_f32(v), (int32_t)fixed);
    }
}

/* Tensors needed at the same time never share bytes; all lie below the peak; a plain chain costs little more than its largest pair.
 */
static void plan(void **state) {
    (void)state;
    size_t given = 0, needed = 0;
    for (int round = 0; round < 2000; round++) {
        enum { MAX = 40 };
        lbrt_tensor tensors[MAX + 1];
        lbrt_layer layers[MAX];
        lbrt_slot slots[MAX + 1];
        const int n = in(1, MAX), chain = round % 2 == 0;
        memset(layers, 0, sizeof layers);
        for (int i = 0; i <= n; i++)
            tensors[i] = (lbrt_tensor){in(1, 30), in(1, 30), in(1, 70), in(0, 3), 0, 0};
        for (int i = 0; i < n; i++) {
            layers[i].src = chain ? i : in(0, i);
            if (!chain && in(0, 1)) {
                layers[i].epilogue.flags = LBRT_RESIDUAL;
                layers[i].epilogue.residual = in(0, i);
            }
        }
        const lbrt_graph g = {.ntensors = n + 1, .nlayers = n, .tensors = tensors, .layers = layers};
        const size_t peak = lbrt_plan(&g, slots);
        size_t least = 0;
        for (int t = 1; t < n; t++) {
            assert_int_equal(slots[t].offset % LBRT_ALIGN, 0);
            assert_true(slots[t].size >= lbrt_tensor_bytes(&tensors[t]) && slots[t].offset + slots[t].size <= peak);
            for (int u = 1; u < t; u++)
                if (slots[u].last >= slots[t].first && slots[t].last >= slots[u].first)
                    assert_true(slots[u].offset + slots[u].size <= slots[t].offset ||
                                slots[t].offset + slots[t].size <= slots[u].offset);
            for (int i = 0; i < n; i++) /* whoever reads it finds it alive */
                if (layers[i].src == t || (layers[i].epilogue.flags && layers[i].epilogue.residual == t))
                    assert_true(slots[t].first < i && i <= slots[t].last);
            const size_t pair = slots[t].size + (t > 1 ? slots[t - 1].size : 0);
            least = LB_MAX(least, pair);
        }
        if (chain) { /* largest first is not always the best, but never far from it */
            assert_true(peak >= least && 2 * peak <= 3 * least);
            given += peak;
            needed += least;
        }
        assert_int_equal(slots[0].size + slots[n].size, 0);
    }
    assert_true((double)given < 1.1 * (double)needed);
}

/* Against one element at a time, bit for bit: channels around every vector length, groups, padding, strides. */
static void float_convolution(void **state) {
    (void)state;
    for (int round = 0; round < 1500; round++) {
        lbrt_conv_shape s = {
            .ih = in(1, 9), .iw = in(1, 12), .kh = in(1, 4), .kw = in(1, 4), .sh = in(1, 3), .sw = in(1, 3), .groups = 1};
        s.ic = in(1, 20);
        s.oc = in(1, 140);
        if (round % 4 == 1)
            s.groups = s.oc = s.ic;
        if (round % 4 == 2) {
            s.groups = in(1, 4);
            s.ic *= s.groups;
            s.oc *= s.groups;
        }
        s.pt = in(0, 4);
        s.pl = in(0, 4);
        const int pb = in(0, 4), pr = in(0, 4), mb = 2;
        if (round % 3 == 0)
            s.gap_h = in(0, 3), s.gap_w = in(0, 3);
        const int down = s.kh + (s.kh - 1) * s.gap_h, across = s.kw + (s.kw - 1) * s.gap_w;
        if (s.ih + s.pt + pb < down || s.iw + s.pl + pr < across)
            continue;
        s.oh = (s.ih + s.pt + pb - down) / s.sh + 1;
        s.ow = (s.iw + s.pl + pr - across) / s.sw + 1;
        const int icg = s.ic / s.groups;
        const size_t nsrc = (size_t)(mb * s.ih * s.iw * s.ic), nw = (size_t)(s.kh * s.kw * icg * s.oc),
                     ndst = (size_t)(mb * s.oh * s.ow * s.oc);
        float *src = malloc(nsrc * sizeof *src), *w = malloc(nw * sizeof *w), *dst = malloc(ndst * sizeof *dst);
        assert_true(src && w && dst);
        for (size_t i = 0; i < nsrc; i++)
            src[i] = (float)((double)bits() * 0x1p-31 - 1);
        for (size_t i = 0; i < nw; i++)
            w[i] = (float)((double)bits() * 0x1p-31 - 1);
        lbrt_conv_f32(&s, src, w, dst, 0, 1);
        lbrt_conv_f32(&s, src, w, dst, 1, 2);
        size_t at = 0;
        for (int n = 0; n < mb; n++)
            for (int y = 0; y < s.oh; y++)
                for (int x = 0; x < s.ow; x++)
                    for (int o = 0; o < s.oc; o++, at++) {
                        float sum = 0.0f;
                        for (int ky = 0; ky < s.kh; ky++)
                            for (int kx = 0; kx < s.kw; kx++)
                                for (int i = 0; i < icg; i++) {
                                    const int sy = y * s.sh - s.pt + ky * (s.gap_h + 1), sx = x * s.sw - s.pl + kx * (s.gap_w + 1);
                                    if (sy < 0 || sy >= s.ih || sx < 0 || sx >= s.iw)
                                        continue;
                                    const float product =
                                        src[((n * s.ih + sy) * s.iw + sx) * s.ic + o / (s.oc / s.groups) * icg + i] *
                                        w[((ky * s.kw + kx) * icg + i) * s.oc + o];
                                    sum = sum + product;
                                }
                        if (memcmp(&sum, &dst[at], sizeof sum) != 0)
                            fail_msg("round %d, element %d: %a, not %a", round, (int)at, (double)dst[at], (double)sum);
                    }
        free(src);
        free(w);
        free(dst);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions),
        cmocka_unit_test(checksum),
        cmocka_unit_test(fixed_point),
        cmocka_unit_test(sigmoid_and_product),
        cmocka_unit_test(float_rules),
        cmocka_unit_test(plan),
        cmocka_unit_test(float_convolution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

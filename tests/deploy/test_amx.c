/* A network as a machine with AMX runs it, on such a machine or emulated: which layers its kernel gets, the scores on any number of
 * threads, and that no thread is left with registers in use. And the emulator itself. */
#include "amx_machine.h"
#include "graphs.h"

#if defined(__x86_64__) && defined(__linux__)
#include <omp.h>

enum { CLASSES = 10, MB = 2, THREADS = 3 };

/* Appends a convolution with 2-bit codes as results (0..3), or with scores if `classes`. */
static void convolve(test_graph *t, const char *format, int kernel, int stride, int groups, int oc, bool classes) {
    const int index = t->g.nlayers++;
    lbrt_layer *l = &t->layers[index];
    lbrt_tensor *dst = &t->tensors[++t->g.ntensors - 1];
    const lbrt_tensor *src = &t->tensors[index];
    *l = (lbrt_layer){.op = LBRT_OP_CONV, .src = index, .dst = index + 1, .name = format, .kh = kernel, .kw = kernel, .sh = stride,
                      .sw = stride, .groups = groups, .flat = classes};
    l->pt = l->pl = l->pb = l->pr = kernel / 2;
    *dst = (lbrt_tensor){1, 1, oc, LBRT_I32, 0, 0};
    if (!classes) {
        dst->h = test_out(src->h, l->pt, l->pb, kernel, stride);
        dst->w = test_out(src->w, l->pl, l->pr, kernel, stride);
        dst->type = LBRT_U8;
        l->epilogue = (lbrt_epilogue){.flags = LBRT_CODE, .qhi = 3, .q = test_requant(t, 0.02, 1.0)};
    }
    for (size_t i = 0; i < LB_COUNT(weight_formats); i++)
        if (!strcmp(weight_formats[i].name, format))
            test_random_weights(t, l, src, oc, &weight_formats[i]);
    assert_true(lbrt_layer_range(&t->g, index, &dst->lo, &dst->hi));
}

static void parallel_for(void *user, int count, void (*task)(void *arg, int i), void *arg) {
    (void)user;
#pragma omp parallel for num_threads(count)
    for (int i = 0; i < count; i++)
        task(arg, i);
}

typedef struct opened {
    lbrt_model *model;
    void *memory;
} opened;

static opened open_model(const unsigned char *bytes, size_t size, lbrt_isa isa) {
    lbrt_info info;
    const char *what;
    int layer;
    assert_int_equal(lbrt_probe_why(bytes, size, isa, &info, &what, &layer), LBRT_OK);
    opened o = {.memory = malloc(info.model_size)};
    assert_non_null(o.memory);
    assert_int_equal(lbrt_open_isa(bytes, size, isa, o.memory, info.model_size, &o.model), LBRT_OK);
    return o;
}

static void run(const lbrt_model *model, const uint8_t *images, int threads, int32_t *scores) {
    const lbrt_threads pool = {threads, parallel_for, NULL};
    const size_t need = lbrt_arena_size_threads(model, MB, threads);
    void *arena = malloc(need);
    assert_non_null(arena);
    memset(arena, 0xc3, need);
    assert_int_equal(lbrt_run_threads(model, images, MB, arena, need, scores, &pool), LBRT_OK);
    free(arena);
}

static void pack_network(lb_ctx *ctx, test_graph *t, unsigned char **bytes, size_t *size) {
    *t = (test_graph){.state = 31338, .g = {.name = "network", .classes = CLASSES, .ntensors = 1}};
    t->g.tensors = t->tensors, t->g.layers = t->layers;
    t->tensors[0] = (lbrt_tensor){56, 60, 3, LBRT_U8, 0, 255};
    test_input_layer(t, false);
    convolve(t, "dorefa8", 7, 2, 1, 64, false);
    convolve(t, "lsq2", 3, 1, 1, 64, false);
    convolve(t, "sign", 3, 2, 1, 96, false);
    convolve(t, "lsq4", 1, 1, 1, 128, false);
    convolve(t, "ternary", 3, 1, 2, 128, false);
    convolve(t, "lsq8", 1, 1, 1, CLASSES, true);
    assert_ok(ctx, lb_pack_graph(ctx, &t->g, NULL, 0, bytes, size));
}

/* Whether `text` is the kernel of some layer. */
static bool runs(const lbrt_model *model, const char *text) {
    bool found = false;
    for (int i = 0; i < lbrt_model_graph(model)->nlayers; i++)
        found |= !strcmp(lbrt_layer_kernel(model, i), text);
    return found;
}

/* Linux refuses AMX to a process with a small signal stack, and later gives it: what probing says is enough for opening before and
 * after, and probing itself asks for nothing. In a process of its own, as it cannot be given back. */
static int leave_comes_later(const unsigned char *bytes, size_t size) {
    enum { SMALL = 8192 };
    static unsigned char stack[SMALL];
    const stack_t small = {.ss_sp = stack, .ss_size = SMALL}, none = {.ss_flags = SS_DISABLE};
    lbrt_info info, again;
    lbrt_model *model;
    if (sigaltstack(&small, NULL) != 0 || lbrt_best_isa() == LBRT_ISA_AMX)
        return 2; /* given already, or one that needs none */
    if (lbrt_probe(bytes, size, &info) != LBRT_OK)
        return 1;
    void *memory = malloc(info.model_size);
    if (memory == NULL || lbrt_open(bytes, size, memory, info.model_size, &model) != LBRT_OK || runs(model, "tiles"))
        return 1;
    if (sigaltstack(&none, NULL) != 0 || lbrt_probe(bytes, size, &again) != LBRT_OK || again.model_size != info.model_size)
        return 1;
    if (sigaltstack(&small, NULL) != 0 || sigaltstack(&none, NULL) != 0)
        return 1;
    if (lbrt_open(bytes, size, memory, info.model_size, &model) != LBRT_OK)
        return 1;
    const bool given = lbrt_best_isa() == LBRT_ISA_AMX;
    if (runs(model, "tiles") != given || lbrt_open(bytes, size, memory, info.model_size - 1, &model) != LBRT_ERR_MEMORY)
        return 1;
    return given ? 0 : 2;
}

static void probed_before_asking(void **state) {
    (void)state;
    lb_ctx *ctx;
    test_graph t;
    unsigned char *bytes;
    size_t size;
    int status;
    assert_int_equal(lb_ctx_create(NULL, &ctx), LB_OK);
    pack_network(ctx, &t, &bytes, &size);
    lbrt_info both, one;
    assert_int_equal(lbrt_probe(bytes, size, &both), LBRT_OK);
    for (int isa = (int)lbrt_best_isa_unasked(); isa <= (int)lbrt_processor_isa(); isa++) {
        assert_int_equal(lbrt_probe_why(bytes, size, (lbrt_isa)isa, &one, NULL, NULL), LBRT_OK);
        assert_true(one.model_size <= both.model_size);
    }
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(leave_comes_later(bytes, size));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) != 1);
    lb_free(ctx, bytes);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
    if (WEXITSTATUS(status) == 2) {
        print_message("skipped: no AMX that Linux refuses first and gives later\n");
        skip();
    }
}

static void network(void **state) {
    (void)state;
    if (amx_machine() != LBRT_ISA_AMX) {
        print_message("skipped: a processor without AVX-512 VBMI cannot run what is around the instructions of AMX\n");
        skip();
    }
    static const char *const kernels[] = {"table", "tiles", "tiles", "tiles", "tiles", "tiles"};
    lb_ctx *ctx;
    assert_int_equal(lb_ctx_create(NULL, &ctx), LB_OK);
    test_graph t;
    unsigned char *bytes;
    size_t size;
    pack_network(ctx, &t, &bytes, &size);
    const opened ref = open_model(bytes, size, LBRT_ISA_REF), fast = open_model(bytes, size, LBRT_ISA_AMX);
    for (size_t i = 0; i < LB_COUNT(kernels); i++)
        assert_string_equal(lbrt_layer_kernel(fast.model, (int)i), kernels[i]);
    assert_string_not_equal(lbrt_layer_kernel(fast.model, (int)LB_COUNT(kernels)), "tiles"); /* one pixel fills no register */

    const size_t pixels = MB * lbrt_elements(&t.tensors[0]);
    uint8_t *images = malloc(pixels);
    assert_non_null(images);
    for (size_t i = 0; i < pixels; i++)
        images[i] = (uint8_t)test_bits(&t);
    int32_t want[MB * CLASSES], got[MB * CLASSES];
    run(ref.model, images, 1, want);
    for (int threads = 1; threads <= THREADS; threads++) {
        memset(got, 0, sizeof got);
        run(fast.model, images, threads, got);
        assert_memory_equal(want, got, sizeof want);
    }
    int configured = 0;
    long products = 0;
#pragma omp parallel num_threads(THREADS) reduction(+ : configured, products)
    {
        configured += amx.palette != 0;
        products += amx.products;
    }
    assert_int_equal(configured, 0);
    assert_true(products > 0 || lbrt_best_isa() == LBRT_ISA_AMX);
    free(images), free(ref.memory), free(fast.memory);
    lb_free(ctx, bytes);
    test_graph_free(&t);
    lb_ctx_destroy(ctx);
}

/* Configurations: the field that is set, and what it is set to. */
static void configurations(void **state) {
    (void)state;
    static const struct {
        int at;
        uint8_t value;
        bool good;
    } cases[] = {
        {0, 1, true},    {0, 2, false},  {1, 1, false},  {2, 1, false},   {15, 1, false}, {16, 64, true},
        {16, 65, false}, {17, 1, false}, {16, 0, false}, {48, 16, true},  {48, 17, false}, {48, 0, false},
        {32, 64, false}, {56, 1, false}, {63, 1, false}, {50, 1, false},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        uint8_t config[64] = {[0] = 1, [16] = 4, [48] = 1};
        amx_state s = {0};
        config[cases[i].at] = cases[i].value;
        if ((amx_configure(&s, config) == NULL) != cases[i].good)
            fail_msg("byte %d, %d", cases[i].at, cases[i].value);
    }
}

/* Products of bytes with and without signs, by hand; registers that do not fit; rows that are not there. */
static void products(void **state) {
    (void)state;
    static const struct {
        bool a_signed, b_signed;
        int32_t sum;
    } cases[] = {{false, true, 7 + 255 * -1 + 2 * 3 + 0}, {true, true, 7 + -1 * -1 + 2 * 3}, {true, false, 7 + -1 * 255 + 2 * 3},
                 {false, false, 7 + 255 * 255 + 2 * 3}};
    const uint8_t a[4] = {255, 2, 0, 9}, b[4] = {255, 3, 100, 0};
    const int32_t c[2] = {7, INT32_MAX};
    const uint8_t config[64] = {[0] = 1,  [16] = 8, [18] = 4, [20] = 8, [22] = 8, [24] = 8,
                                [48] = 2, [49] = 2, [50] = 1, [51] = 2, [52] = 1};
    amx_state s = {0};
    assert_non_null(amx_load(&s, 0, a, 0)); /* nothing configured */
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        int32_t got[2][2];
        const uint8_t weights[8] = {b[0], b[1], b[2], b[3], 1, 0, 0, 0};
        assert_null(amx_configure(&s, config));
        assert_null(amx_load(&s, 0, (const uint8_t *)c, 0));
        assert_null(amx_load(&s, 1, a, 0));
        assert_null(amx_load(&s, 2, weights, 0));
        assert_null(amx_dot(&s, 0, 1, 2, cases[i].a_signed, cases[i].b_signed));
        assert_null(amx_store(&s, 0, (uint8_t *)got, sizeof got[0]));
        const int32_t second = (int32_t)((uint32_t)INT32_MAX + (uint32_t)(cases[i].a_signed ? -1 : 255)); /* wraps */
        for (int row = 0; row < 2; row++) {
            assert_int_equal(got[row][0], cases[i].sum);
            assert_int_equal(got[row][1], second);
        }
    }
    assert_non_null(amx_dot(&s, 0, 1, 1, false, true)); /* one register twice */
    assert_non_null(amx_dot(&s, 4, 1, 2, false, true)); /* other rows */
    assert_non_null(amx_dot(&s, 0, 3, 2, false, true)); /* more inputs than rows of weights */
    assert_non_null(amx_dot(&s, 0, 1, 5, false, true)); /* none */
}

/* bf16 numbers as bits. */
static uint16_t bf16(double v) {
    const float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    assert_int_equal(bits & 0xffff, 0);
    return (uint16_t)(bits >> 16);
}

/* Products of pairs of bf16 by hand: registers 0 (1 x 1 sums) += 1 (1 x PAIRS pairs) * 2. */
static void pairs(void **state) {
    (void)state;
    enum { PAIRS = 3 };
    static const double none = 0x1p-130; /* subnormal: zero */
    static const struct {
        double c, a[2 * PAIRS], b[2 * PAIRS], sum;
    } cases[] = {
        {.c = 0.5, .a = {1, 2, 3, 4, 5, 6}, .b = {1, 1, 1, 1, 2, -1}, .sum = 14.5},
        /* firsts and seconds are summed apart: what the large ones leave */
        {.c = 0, .a = {0x1p30, 1, -0x1p30, 1, 1, 1}, .b = {1, 1, 1, 1, 1, 1}, .sum = 4},
        {.c = 0, .a = {0x1p30, 1, 1, 1, -0x1p30, 1}, .b = {1, 1, 1, 1, 1, 1}, .sum = 3},
        {.c = 0x1p30, .a = {1, 1, -1, -1}, .b = {1, 1, 1, 1}, .sum = 0x1p30},
        /* subnormal factors, products, sums */
        {.c = 1, .a = {none, 1, 0x1p100}, .b = {0x1p100, none, none}, .sum = 1},
        {.c = none, .a = {0}, .b = {0}, .sum = 0},
        {.c = 0, .a = {0x1p-63, 0, -0x1p-63}, .b = {0x1p-63, 0, 0x1.8p-63}, .sum = 0},
        /* 2^-126 (1 + 2^-23 - x 2^-23): the half of the way to the smallest normal number goes up, less does not */
        {.c = 0, .a = {0x1p-63, 0, 0x1p-75, 0, -0x1p-75}, .b = {0x1p-63, 0, 0x1p-74, 0, 0x1.4p-74}, .sum = 0x1p-126},
        {.c = 0, .a = {0x1p-63, 0, 0x1p-75, 0, -0x1p-75}, .b = {0x1p-63, 0, 0x1p-74, 0, 0x1.6p-74}, .sum = 0},
        {.c = 1, .a = {0x1p127, 0x1p127}, .b = {2, -1}, .sum = INFINITY},
    };
    const uint8_t config[64] = {[0] = 1, [16] = 4, [18] = 4 * PAIRS, [20] = 4, [48] = 1, [49] = 1, [50] = PAIRS};
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        uint16_t a[2 * PAIRS], b[2 * PAIRS];
        const float c = (float)cases[i].c;
        float got;
        for (int k = 0; k < 2 * PAIRS; k++) {
            a[k] = bf16(cases[i].a[k]);
            b[k] = bf16(cases[i].b[k]);
        }
        amx_state s = {0};
        assert_null(amx_configure(&s, config));
        assert_null(amx_load(&s, 0, (const uint8_t *)&c, 0));
        assert_null(amx_load(&s, 1, (const uint8_t *)a, 0));
        assert_null(amx_load(&s, 2, (const uint8_t *)b, 4));
        assert_null(amx_dot_bf16(&s, 0, 1, 2));
        assert_null(amx_store(&s, 0, (uint8_t *)&got, 0));
        if ((double)got != cases[i].sum)
            fail_msg("case %zu: %a, not %a", i, (double)got, cases[i].sum);
    }
}

/* What the processor makes of the same registers, shaped as config says. */
static void product_of_hardware(const uint8_t config[64], float *c, const uint16_t *a, const uint16_t *b) {
    __asm__ volatile("ldtilecfg (%0)\n\t"
                     "tileloadd (%1,%4,1), %%tmm0\n\t"
                     "tileloadd (%2,%4,1), %%tmm1\n\t"
                     "tileloadd (%3,%4,1), %%tmm2\n\t"
                     "tdpbf16ps %%tmm2, %%tmm1, %%tmm0\n\t"
                     "tilestored %%tmm0, (%1,%4,1)\n\t"
                     "tilerelease"
                     :
                     : "r"(config), "r"(c), "r"(a), "r"(b), "r"((ptrdiff_t)AMX_BYTES)
                     : "memory");
}

/* Random bits whose exponents, biased, are base .. base + count - 1. */
static uint32_t random_number(test_graph *t, int base, int count) {
    return (test_bits(t) & 0x807fffffu) | (uint32_t)(base + test_in(t, 0, count - 1)) << 23;
}

/* Registers of all shapes, numbers of all sizes: the emulation does what the processor does. */
static void emulation_is_hardware(void **state) {
    (void)state;
    enum { NUMBERS = AMX_ROWS * AMX_BYTES / 2 };
    static const struct {
        int a, b, c, count; /* least exponents, biased by 127, and how many */
    } sizes[] = {{120, 120, 120, 14}, {60, 58, 0, 8}, {0, 120, 0, 3}, {190, 189, 250, 5}, {0, 0, 0, 256}, {64, 63, 1, 1}};
    unsigned eax, ebx, ecx, edx;
    if (lbrt_best_isa() != LBRT_ISA_AMX || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(edx >> 22 & 1)) {
        print_message("skipped: there is no AMX for bf16 to compare with\n");
        skip();
    }
    test_graph t = {.state = 4711};
    for (int round = 0; round < 3000; round++) {
        const uint8_t m = (uint8_t)test_in(&t, 1, 16), n = (uint8_t)test_in(&t, 1, 16), k = (uint8_t)test_in(&t, 1, 16);
        const uint8_t config[64] = {[0] = 1, [16] = 4 * n, [18] = 4 * k, [20] = 4 * n, [48] = m, [49] = m, [50] = k};
        static uint16_t a[NUMBERS], b[NUMBERS];
        static uint32_t c[NUMBERS / 2], want[NUMBERS / 2], got[NUMBERS / 2];
        const size_t size = (size_t)round % LB_COUNT(sizes);
        for (int i = 0; i < NUMBERS; i++) {
            a[i] = (uint16_t)(random_number(&t, sizes[size].a, sizes[size].count) >> 16);
            b[i] = (uint16_t)(random_number(&t, sizes[size].b, sizes[size].count) >> 16);
        }
        for (int i = 0; i < NUMBERS / 2; i++)
            want[i] = c[i] = random_number(&t, sizes[size].c, LB_MIN(sizes[size].count, 6));
        product_of_hardware(config, (float *)(void *)want, a, b);
        amx_state s = {0};
        assert_null(amx_configure(&s, config));
        memcpy(got, c, sizeof got);
        assert_null(amx_load(&s, 0, (const uint8_t *)c, AMX_BYTES));
        assert_null(amx_load(&s, 1, (const uint8_t *)a, AMX_BYTES));
        assert_null(amx_load(&s, 2, (const uint8_t *)b, AMX_BYTES));
        assert_null(amx_dot_bf16(&s, 0, 1, 2));
        assert_null(amx_store(&s, 0, (uint8_t *)got, AMX_BYTES));
        for (int i = 0; i < NUMBERS / 2; i++) {
            const bool both_nan = (want[i] & 0x7fffffffu) > 0x7f800000u && (got[i] & 0x7fffffffu) > 0x7f800000u;
            if (want[i] != got[i] && !both_nan)
                fail_msg("round %d, number %d: %08x, not %08x", round, i, (unsigned)got[i], (unsigned)want[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(probed_before_asking), cmocka_unit_test(network),
                                       cmocka_unit_test(configurations),       cmocka_unit_test(products),
                                       cmocka_unit_test(pairs),                cmocka_unit_test(emulation_is_hardware)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void) { return 0; }
#endif

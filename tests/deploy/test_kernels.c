/* The kernels of every instruction set that this machine has, against ref: random layers, bit for bit. */
#include "graphs.h"

static void *aligned(size_t size) {
    void *ptr = aligned_alloc(LBRT_ALIGN, (size + LBRT_ALIGN) / LBRT_ALIGN * LBRT_ALIGN);
    assert_non_null(ptr);
    return ptr;
}

/* Result rows row0..row1-1. */
static void run(const lbrt_site *site, const lbrt_kernel *kernel, const void *src, const void *res, void *dst, size_t row0,
                size_t row1) {
    void *prepared = aligned(kernel->prepared_size(site)), *scratch = aligned(kernel->scratch_size(site));
    memset(scratch, 0xa5, kernel->scratch_size(site));
    kernel->prepare(site, prepared);
    const lbrt_call call = {*site, prepared, src, res, dst, scratch, row0, row1};
    kernel->run(&call);
    free(prepared), free(scratch);
}

/* signs: the two ends of the range only. */
static void fill(test_graph *t, const lbrt_tensor *tensor, bool signs, size_t count, void *values) {
    for (size_t i = 0; i < count; i++) {
        const uint32_t range = (uint32_t)tensor->hi - (uint32_t)tensor->lo;
        const int32_t v = tensor->lo + (int32_t)(signs ? test_bits(t) % 2 * range : test_bits(t) % (range + 1u));
        if (lbrt_type_size(tensor->type) == 1)
            ((uint8_t *)values)[i] = (uint8_t)v;
        else
            ((int32_t *)values)[i] = v;
    }
}

static const lbrt_tensor sources[] = {{0, 0, 0, LBRT_U8, 0, 3},  {0, 0, 0, LBRT_U8, 0, 255}, {0, 0, 0, LBRT_I8, -128, 127},
                                      {0, 0, 0, LBRT_I8, -1, 1}, {0, 0, 0, LBRT_U8, 0, 1},   {0, 0, 0, LBRT_I8, -2, 1},
                                      {0, 0, 0, LBRT_U8, 3, 6},  {0, 0, 0, LBRT_U8, 1, 15},  {0, 0, 0, LBRT_I8, -8, 7}};
static const lbrt_tensor residuals[] = {{0, 0, 0, LBRT_U8, 0, 3},
                                        {0, 0, 0, LBRT_U8, 0, 200},
                                        {0, 0, 0, LBRT_I8, -100, 127},
                                        {0, 0, 0, LBRT_I32, INT32_MIN / 2, INT32_MAX / 2}};

/* Kernel, stride, padding and shapes of a convolution whose result is not empty. */
static void random_geometry(test_graph *t, lbrt_layer *l, lbrt_tensor *src, lbrt_tensor *dst) {
    const int large = test_in(t, 0, 3) == 0;
    do {
        l->kh = test_in(t, 1, 4), l->kw = test_in(t, 1, 4), l->sh = test_in(t, 1, 3), l->sw = test_in(t, 1, 3);
        l->pt = test_in(t, 0, 5), l->pl = test_in(t, 0, 5), l->pb = test_in(t, 0, 3), l->pr = test_in(t, 0, 3);
        if (test_in(t, 0, 2) == 0)
            l->pt = l->pl = l->pb = l->pr = 0;
        src->h = test_in(t, 1, 8), src->w = test_in(t, 1, large ? 60 : 16), src->c = test_in(t, 1, large ? 70 : 20);
        l->flat = test_in(t, 0, 9) == 0;
        if (l->flat)
            l->kh = l->kw = l->sh = l->sw = 1, l->pt = l->pl = l->pb = l->pr = 0;
        const int h = l->flat ? 1 : src->h, w = l->flat ? 1 : src->w;
        dst->h = h + l->pt + l->pb < l->kh ? 0 : (h + l->pt + l->pb - l->kh) / l->sh + 1;
        dst->w = w + l->pl + l->pr < l->kw ? 0 : (w + l->pl + l->pr - l->kw) / l->sw + 1;
    } while (dst->h == 0 || dst->w == 0);
    dst->c = test_in(t, 1, large ? 150 : 40);
}

static void convolutions(void **state) {
    (void)state;
    int runs[8] = {0};
    for (int round = 0; round < 1500; round++) {
        test_graph t = {.state = 77777 + (uint64_t)round * 1234567};
        const int mb = 2;
        lbrt_layer l = {.op = LBRT_OP_CONV, .groups = 1};
        lbrt_tensor src = sources[test_in(&t, 0, (int)LB_COUNT(sources) - 1)], dst = {0}, res;
        lbrt_site site = {&l, &src, &dst, NULL};
        random_geometry(&t, &l, &src, &dst);
        test_random_weights(&t, &l, &src, dst.c, &weight_formats[test_in(&t, 0, (int)LB_COUNT(weight_formats) - 2)]);
        test_random_epilogue(&t, &l, &dst, test_in(&t, 0, 4) == 0);
        l.epilogue.flags &= ~(uint32_t)LBRT_RESIDUAL;
        if (!(l.epilogue.flags & LBRT_THRESHOLDS) && test_in(&t, 0, 1)) {
            res = residuals[test_in(&t, 0, (int)LB_COUNT(residuals) - 1)];
            res.h = dst.h, res.w = dst.w, res.c = dst.c;
            site.res = &res;
            l.epilogue.flags |= LBRT_RESIDUAL;
            l.epilogue.res.shift = -1;
            if (test_in(&t, 0, 2))
                l.epilogue.res = test_requant(&t, test_float(&t, 1000.0f), test_float(&t, 3.0f));
        }
        const size_t nsrc = lbrt_elements(&src) * mb, ndst = lbrt_elements(&dst) * mb;
        const size_t row0 = (size_t)test_in(&t, 0, dst.h - 1), row1 = (size_t)(mb * dst.h) - (size_t)test_in(&t, 0, dst.h - 1);
        /* Exactly as large as needed: reading or writing beyond is the sanitizer's to see. */
        uint8_t *x = malloc(nsrc), *r = malloc(ndst * sizeof(int32_t)), *want = malloc(ndst * lbrt_type_size(dst.type)),
                *got = malloc(ndst * lbrt_type_size(dst.type));
        assert_true(x && r && want && got);
        l.src_signs = src.lo == -1 && src.hi == 1 && test_in(&t, 0, 1);
        fill(&t, &src, l.src_signs != 0, nsrc, x);
        if (site.res)
            fill(&t, &res, false, ndst, r);
        memset(want, 0x5a, ndst * lbrt_type_size(dst.type));
        memset(got, 0x5a, ndst * lbrt_type_size(dst.type));
        run(&site, lbrt_select(&site, LBRT_ISA_REF), x, r, want, row0, row1);
        const lbrt_kernel *kernel;
        lbrt_isa isa;
        for (size_t i = 0; (kernel = lbrt_fast_kernel(i, &isa)) != NULL; i++) {
            if (isa > lbrt_best_isa() || kernel->op != LBRT_OP_CONV || !kernel->accepts(&site))
                continue;
            run(&site, kernel, x, r, got, row0, row1);
            runs[i]++;
            if (memcmp(want, got, ndst * lbrt_type_size(dst.type)) != 0)
                fail_msg("round %d, %s: %dx%dx%d to %dx%dx%d, kernel %dx%d, flags %u", round, kernel->name, src.h, src.w, src.c,
                         dst.h, dst.w, dst.c, l.kh, l.kw, l.epilogue.flags);
        }
        free(x), free(r), free(want), free(got);
        test_graph_free(&t);
    }
    const lbrt_kernel *kernel;
    lbrt_isa isa;
    for (size_t i = 0; (kernel = lbrt_fast_kernel(i, &isa)) != NULL; i++)
        if (isa <= lbrt_best_isa() && kernel->op == LBRT_OP_CONV)
            assert_true(runs[i] > 150);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(convolutions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The kernels of every instruction set that this machine has, or that can be emulated, against ref: random layers, bit for bit. */
#include "amx_machine.h"
#include "graphs.h"

static lbrt_isa best_isa;

static void *aligned(size_t size) {
    void *ptr = aligned_alloc(LBRT_ALIGN, (size + LBRT_ALIGN) / LBRT_ALIGN * LBRT_ALIGN);
    assert_non_null(ptr);
    return ptr;
}

/* Result rows row0..row1-1. planar: which tensors are planes. */
static void run(const lbrt_site *site, const lbrt_kernel *kernel, uint32_t planar, const void *src, const void *res, void *dst,
                size_t row0, size_t row1) {
    const size_t scratch_size = kernel->scratch_size ? kernel->scratch_size(site) : 0;
    void *prepared = aligned(kernel->prepared_size ? kernel->prepared_size(site) : 0), *scratch = aligned(scratch_size);
    memset(scratch, 0xa5, scratch_size);
    if (kernel->prepare)
        kernel->prepare(site, prepared);
    const lbrt_tensor tensors[2] = {*site->src, site->res ? *site->res : *site->src};
    const lbrt_call call = {.site = *site, .planar = planar, .prepared = prepared, .src = src, .res = res, .sources = {src, res},
                            .tensors = tensors, .dst = dst, .scratch = scratch, .row0 = row0, .row1 = row1};
    kernel->run(&call);
    free(prepared), free(scratch);
}

/* signs: the two ends of the range only. */
static void fill(test_graph *t, const lbrt_tensor *tensor, bool signs, size_t count, void *values) {
    for (size_t i = 0; i < count; i++) {
        const uint32_t range = (uint32_t)tensor->hi - (uint32_t)tensor->lo;
        const uint32_t above = signs ? test_bits(t) % 2 * range : test_bits(t) % (range + 1u);
        const int32_t v = (int32_t)(tensor->lo + (int64_t)above);
        if (lbrt_type_size(tensor->type) == 1)
            ((uint8_t *)values)[i] = (uint8_t)v;
        else
            ((int32_t *)values)[i] = v;
    }
}

static const lbrt_tensor sources[] = {
    {0, 0, 0, LBRT_U8, 0, 3},  {0, 0, 0, LBRT_U8, 0, 255},   {0, 0, 0, LBRT_I8, -128, 127},     {0, 0, 0, LBRT_I8, -1, 1},
    {0, 0, 0, LBRT_U8, 0, 1},  {0, 0, 0, LBRT_I8, -2, 1},    {0, 0, 0, LBRT_U8, 3, 6},          {0, 0, 0, LBRT_U8, 1, 15},
    {0, 0, 0, LBRT_I8, -8, 7}, {0, 0, 0, LBRT_I32, 0, 9000}, {0, 0, 0, LBRT_I32, -40000, 40000},
    {0, 0, 0, LBRT_I32, 0, 147}, {0, 0, 0, LBRT_I32, -100, 150}, {0, 0, 0, LBRT_I32, -32768, 32767},
    {0, 0, 0, LBRT_I8, -8, -5}, {0, 0, 0, LBRT_I8, -128, -97}, {0, 0, 0, LBRT_I8, 3, 6}, {0, 0, 0, LBRT_I32, -40000, -9}};
static const lbrt_tensor residuals[] = {{0, 0, 0, LBRT_U8, 0, 3},
                                        {0, 0, 0, LBRT_U8, 0, 200},
                                        {0, 0, 0, LBRT_I8, -100, 127},
                                        {0, 0, 0, LBRT_I32, INT32_MIN / 2, INT32_MAX / 2}};

/* Kernel, stride, padding and shapes of a convolution whose result is not empty. */
static void random_geometry(test_graph *t, lbrt_layer *l, lbrt_tensor *src, lbrt_tensor *dst) {
    const int large = test_in(t, 0, 3) == 0, strips = test_in(t, 0, 99) == 0; /* more rows than fit one */
    do {
        const int most = test_in(t, 0, 7) == 0 ? 7 : 4;
        l->kh = test_in(t, 1, most), l->kw = test_in(t, 1, most), l->sh = test_in(t, 1, 3), l->sw = test_in(t, 1, 3);
        l->pt = test_in(t, 0, 5), l->pl = test_in(t, 0, 5), l->pb = test_in(t, 0, 3), l->pr = test_in(t, 0, 3);
        if (test_in(t, 0, 1) == 0)
            l->kh = l->kw = 3, l->sh = l->sw = test_in(t, 0, 3) == 0 ? 2 : 1;
        if (l->kw == 3 && test_in(t, 0, 1) == 0)
            l->pt = l->pl = l->pb = l->pr = 1;
        else if (test_in(t, 0, 2) == 0)
            l->pt = l->pl = l->pb = l->pr = 0;
        src->h = test_in(t, 1, 8), src->w = test_in(t, 1, large ? 60 : 16), src->c = test_in(t, 1, large ? 70 : 20);
        if (strips)
            src->h = 70, src->w = 60, src->c = test_in(t, 40, 80), l->kh = l->kw = 3;
        l->flat = test_in(t, 0, 9) == 0;
        l->gap_h = l->gap_w = 0;
        if (!l->flat && test_in(t, 0, 5) == 0)
            l->gap_h = test_in(t, 0, 3), l->gap_w = test_in(t, 0, 3);
        if (l->flat)
            l->kh = l->kw = l->sh = l->sw = 1, l->pt = l->pl = l->pb = l->pr = 0;
        const int h = l->flat ? 1 : src->h, w = l->flat ? 1 : src->w;
        dst->h = test_out(h, l->pt, l->pb, test_span(l->kh, l->gap_h), l->sh);
        dst->w = test_out(w, l->pl, l->pr, test_span(l->kw, l->gap_w), l->sw);
    } while (dst->h == 0 || dst->w == 0);
    dst->c = test_in(t, 1, strips ? 9 : large ? 150 : 40);
}

/* Images of bytes, pixel by pixel, to planes (or back), in place. */
static void transpose(const lbrt_tensor *t, int mb, bool back, uint8_t *values) {
    const size_t pixels = (size_t)t->h * (size_t)t->w, c = (size_t)t->c;
    uint8_t *image = malloc(pixels * c);
    assert_non_null(image);
    for (int m = 0; m < mb; m++, values += pixels * c) {
        memcpy(image, values, pixels * c);
        for (size_t i = 0; i < pixels; i++)
            for (size_t k = 0; k < c; k++)
                values[back ? i * c + k : k * pixels + i] = image[back ? k * pixels + i : i * c + k];
    }
    free(image);
}

/* Runs that each fast kernel made, and runs with planes in each of the three places. */
static int runs[64], planar_runs[3];

/* Every kernel of this machine that accepts the layer, on two random images. */
static void check(test_graph *t, const lbrt_site *site, int round) {
    const int mb = 2;
    const lbrt_layer *l = site->layer;
    const lbrt_tensor *src = site->src, *dst = site->dst;
    const size_t nsrc = lbrt_elements(src) * mb, ndst = lbrt_elements(dst) * mb, size = ndst * lbrt_type_size(dst->type);
    const size_t row0 = (size_t)test_in(t, 0, dst->h - 1), row1 = (size_t)(mb * dst->h) - (size_t)test_in(t, 0, dst->h - 1);
    /* Exactly as large as needed: reading or writing beyond is the sanitizer's to see. */
    uint8_t *x = malloc(nsrc * lbrt_type_size(src->type)), *r = malloc(ndst * sizeof(int32_t)), *want = malloc(size),
            *got = malloc(size);
    assert_true(x && r && want && got);
    fill(t, src, l->src_signs != 0, nsrc, x);
    if (site->res)
        fill(t, site->res, false, ndst, r);
    memset(want, 0x5a, size);
    run(site, lbrt_select(site, LBRT_ISA_REF), 0, x, r, want, row0, row1);
    const lbrt_kernel *kernel;
    lbrt_isa isa;
    for (size_t i = 0; (kernel = lbrt_fast_kernel(i, &isa)) != NULL; i++) {
        if (isa > best_isa || (int)kernel->op != l->op || !kernel->accepts(site))
            continue;
        if (isa > lbrt_best_isa() && round % 3 != 0) /* emulation takes time */
            continue;
        memset(got, 0x5a, size);
        const uint32_t can = kernel->planar ? kernel->planar(site) : 0;
        for (uint32_t planar = 0; planar <= can; planar++) {
            if (planar & ~can)
                continue;
            if (planar & LBRT_PLANAR_SRC)
                transpose(src, mb, false, x);
            if (planar & LBRT_PLANAR_RES && site->res)
                transpose(dst, mb, false, r);
            run(site, kernel, planar, x, r, got, row0, row1);
            if (planar & LBRT_PLANAR_SRC)
                transpose(src, mb, true, x);
            if (planar & LBRT_PLANAR_RES && site->res)
                transpose(dst, mb, true, r);
            if (planar & LBRT_PLANAR_DST)
                transpose(dst, mb, true, got);
            for (int bit = 0; bit < 3; bit++)
                planar_runs[bit] += (planar & (site->res ? 7u : 3u)) >> bit & 1;
            runs[i]++;
            if (memcmp(want, got, size) != 0)
                fail_msg("round %d, kernel %zu (%s, %s), planes %u: %dx%dx%d to %dx%dx%d, window %dx%d, groups %d, flags %u", round,
                         i, kernel->name, lbrt_isa_name(isa), planar, src->h, src->w, src->c, dst->h, dst->w, dst->c, l->kh, l->kw,
                         l->groups, l->epilogue.flags);
            memset(got, 0x5a, size);
        }
    }
    free(x), free(r), free(want), free(got);
}

static void add_residual(test_graph *t, lbrt_layer *l, const lbrt_tensor *dst, lbrt_tensor *res, lbrt_site *site) {
    l->epilogue.flags &= ~(uint32_t)LBRT_RESIDUAL;
    if (l->epilogue.flags & LBRT_THRESHOLDS || test_in(t, 0, 1))
        return;
    *res = residuals[test_in(t, 0, (int)LB_COUNT(residuals) - 1)];
    res->h = dst->h, res->w = dst->w, res->c = dst->c;
    site->res = res;
    l->epilogue.flags |= LBRT_RESIDUAL;
    l->epilogue.res.shift = -1;
    if (test_in(t, 0, 2))
        l->epilogue.res = test_requant(t, test_float(t, 1000.0f), test_float(t, 3.0f));
}

static void convolutions(void **state) {
    (void)state;
    best_isa = amx_machine();
    for (int round = 0; round < 1800; round++) {
        test_graph t = {.state = 77777 + (uint64_t)round * 1234567};
        lbrt_layer l = {.op = LBRT_OP_CONV, .groups = 1};
        lbrt_tensor src = sources[test_in(&t, 0, (int)LB_COUNT(sources) - 1)], dst = {0}, res;
        lbrt_site site = {&l, &src, &dst, NULL};
        random_geometry(&t, &l, &src, &dst);
        const int kind = l.flat ? 0 : test_in(&t, 0, 7);
        if (kind == 1) {
            l.groups = dst.c = src.c;
        } else if (kind == 2) {
            l.groups = src.c % 2 == 0 ? 2 : src.c % 3 == 0 ? 3 : 1;
            dst.c = l.groups * test_in(&t, 1, 9);
        }
        l.src_signs = src.lo == -1 && src.hi == 1 && test_in(&t, 0, 1);
        test_random_weights(&t, &l, &src, dst.c, &weight_formats[test_in(&t, 0, (int)LB_COUNT(weight_formats) - 2)]);
        test_random_epilogue(&t, &l, &dst, test_in(&t, 0, 4) == 0);
        add_residual(&t, &l, &dst, &res, &site);
        int fits = 1;
        for (int32_t c = 0; c < dst.c; c++) {
            int32_t lo, hi;
            fits &= lbrt_source_range(&l, &src, c, &lo, &hi);
        }
        if (fits)
            check(&t, &site, round);
        test_graph_free(&t);
    }
}

/* Layers as residual networks of one and two bits have them, whose accumulators give all of their codes. */
static void residual_networks(void **state) {
    (void)state;
    best_isa = amx_machine();
    for (int round = 0; round < 300; round++) {
        test_graph t = {.state = 31337 + (uint64_t)round * 424243};
        lbrt_layer l = {.op = LBRT_OP_CONV, .groups = 1, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pt = 1, .pl = 1, .pb = 1, .pr = 1};
        const int small = test_in(&t, 0, 1), sign = test_in(&t, 0, 2) == 0;
        lbrt_tensor src, dst, res;
        do
            src = sources[test_in(&t, 0, (int)LB_COUNT(sources) - 1)];
        while (src.hi - src.lo > 3);
        lbrt_site site = {&l, &src, &dst, NULL};
        src.h = test_in(&t, 1, 17), src.w = test_in(&t, 1, small ? 17 : 80), src.c = test_in(&t, 1, 40);
        dst = (lbrt_tensor){src.h, src.w, test_in(&t, 1, 40), sign ? LBRT_I8 : LBRT_U8, 0, 0};
        l.src_signs = src.lo == -1 && src.hi == 1;
        test_random_weights(&t, &l, &src, dst.c, &weight_formats[test_in(&t, 0, 4)]);
        lbrt_epilogue *e = &l.epilogue;
        e->flags = LBRT_AFFINE | (sign ? LBRT_SIGN : LBRT_CODE);
        e->requant = test_requants(&t, dst.c, ldexp(1.0, test_in(&t, 9, 14)), 60000.0);
        e->q = test_requant(&t, ldexp(1.0, -16), 0.5);
        e->qlo = sign ? -1 : 0;
        e->qhi = sign ? 1 : test_in(&t, 0, 1) ? 3 : 1;
        if (test_in(&t, 0, 2) > 0) {
            res = residuals[test_in(&t, 0, 4) == 0 ? 3 : 0];
            res.h = dst.h, res.w = dst.w, res.c = dst.c;
            site.res = &res;
            e->flags |= LBRT_RESIDUAL;
            e->res = test_requant(&t, 40000.0, 0.0);
        }
        check(&t, &site, round);
        test_graph_free(&t);
    }
}

/* Whole blocks of channels, and weights that are many: the same epilogues, and thresholds. And columns of 16 pixels. */
static void whole_blocks(void **state) {
    (void)state;
    best_isa = amx_machine();
    for (int round = 0; round < 360; round++) {
        test_graph t = {.state = 99991 + (uint64_t)round * 525253};
        const int many = round % 8 == 0, columns = round % 8 > 4;
        const int sign = test_in(&t, 0, 2) == 0, k = !columns && test_in(&t, 0, 3) == 0 ? 1 : 3;
        lbrt_layer l = {.op = LBRT_OP_CONV, .groups = 1, .kh = k, .kw = k, .pt = k / 2, .pl = k / 2, .pb = k / 2, .pr = k / 2};
        lbrt_tensor src = sources[test_in(&t, 0, 8)], dst, res;
        lbrt_site site = {&l, &src, &dst, NULL};
        l.sh = l.sw = columns ? 1 : test_in(&t, 1, 2);
        src.h = test_in(&t, 1, many ? 8 : 17), src.w = columns ? 16 * test_in(&t, 1, 3) : test_in(&t, 1, many ? 8 : 40);
        src.c = many ? 64 * test_in(&t, 1, 2) : columns ? test_in(&t, 1, 22) : 16 << test_in(&t, 0, 2);
        dst = (lbrt_tensor){test_out(src.h, l.pt, l.pb, k, l.sh), test_out(src.w, l.pl, l.pr, k, l.sw),
                            many ? 256 : columns ? 16 : 16 * test_in(&t, 1, 3), sign ? LBRT_I8 : LBRT_U8, 0, 0};
        l.src_signs = src.lo == -1 && src.hi == 1;
        test_random_weights(&t, &l, &src, dst.c, &weight_formats[test_in(&t, 0, (int)LB_COUNT(weight_formats) - 2)]);
        lbrt_epilogue *e = &l.epilogue;
        if (test_in(&t, 0, 2) == 0) {
            test_random_epilogue(&t, &l, &dst, false);
            add_residual(&t, &l, &dst, &res, &site);
        } else {
            e->flags = LBRT_AFFINE | LBRT_RESIDUAL | (sign ? LBRT_SIGN : LBRT_CODE);
            e->requant = test_requants(&t, dst.c, ldexp(1.0, test_in(&t, 5, 14)), 60000.0);
            e->q = test_requant(&t, ldexp(1.0, -16), 0.5);
            e->qlo = sign ? -1 : 0;
            e->qhi = sign ? 1 : test_in(&t, 1, 4);
            res = residuals[0];
            res.h = dst.h, res.w = dst.w, res.c = dst.c;
            site.res = &res;
            e->res = test_requant(&t, 40000.0, 0.0);
        }
        check(&t, &site, round);
        test_graph_free(&t);
    }
}

static void other_layers(void **state) {
    (void)state;
    best_isa = amx_machine();
    static const lbrt_op ops[] = {LBRT_OP_INPUT,   LBRT_OP_POINT, LBRT_OP_MAXPOOL,
                                   LBRT_OP_SUMPOOL, LBRT_OP_MUL,   LBRT_OP_SIGMOID};
    for (int round = 0; round < 1200; round++) {
        test_graph t = {.state = 4711 + (uint64_t)round * 7654321};
        lbrt_layer l = {.op = ops[round % (int)LB_COUNT(ops)], .groups = 1};
        lbrt_tensor src = sources[test_in(&t, 0, (int)LB_COUNT(sources) - 1)], dst, res;
        lbrt_site site = {&l, &src, &dst, NULL};
        src.h = test_in(&t, 1, 9), src.w = test_in(&t, 1, 40), src.c = test_in(&t, 1, test_in(&t, 0, 1) ? 4 : 100);
        if (l.op == LBRT_OP_INPUT)
            src.type = LBRT_U8, src.lo = 0, src.hi = 255;
        if (l.op == LBRT_OP_MUL || l.op == LBRT_OP_SIGMOID) {
            const int32_t most = INT32_MAX >> test_in(&t, 0, 14);
            src.type = LBRT_I32, src.lo = -most, src.hi = most;
        }
        dst = src;
        if (l.op == LBRT_OP_MUL) { /* the second source stands where others have a residual */
            res = src;
            site.res = &res;
            l.nsources = 2, l.sources[1] = 1;
            if (test_in(&t, 0, 1))
                res.h = res.w = 1;
        } else if (l.op == LBRT_OP_SIGMOID) {
            l.nsources = 0;
        } else if (l.op == LBRT_OP_POINT) {
            test_random_epilogue(&t, &l, &dst, test_in(&t, 0, 4) == 0);
            add_residual(&t, &l, &dst, &res, &site);
        } else if (l.op == LBRT_OP_INPUT) {
            test_codes(&t, &l.epilogue, &dst, test_in(&t, 1, 8));
            l.epilogue.requant = test_requants(&t, dst.c, 1.0, 4.0);
        } else {
            l.kh = test_in(&t, 1, src.h), l.kw = test_in(&t, 1, src.w < 5 ? src.w : 5), l.sh = test_in(&t, 1, 3),
            l.sw = test_in(&t, 1, 3);
            l.pt = test_in(&t, 0, l.kh - 1), l.pb = test_in(&t, 0, l.kh - 1), l.pl = test_in(&t, 0, l.kw - 1),
            l.pr = test_in(&t, 0, l.kw - 1);
            dst.h = test_out(src.h, l.pt, l.pb, l.kh, l.sh), dst.w = test_out(src.w, l.pl, l.pr, l.kw, l.sw);
            if (l.op == LBRT_OP_SUMPOOL)
                dst.type = LBRT_I32;
        }
        check(&t, &site, round);
        test_graph_free(&t);
    }
}

static void all_ran(void **state) {
    (void)state;
    best_isa = amx_machine();
    const lbrt_kernel *kernel;
    lbrt_isa isa;
    for (size_t i = 0; (kernel = lbrt_fast_kernel(i, &isa)) != NULL; i++) {
        assert_true(i < LB_COUNT(runs));
        if (isa <= best_isa && runs[i] < 50)
            fail_msg("kernel %zu (%s, %s) ran %d times only", i, kernel->name, lbrt_isa_name(isa), runs[i]);
        for (int bit = 0; bit < 3 && isa <= best_isa && kernel->planar; bit++)
            if (planar_runs[bit] < 20)
                fail_msg("%d runs only had planes in place %d", planar_runs[bit], bit);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(convolutions), cmocka_unit_test(residual_networks),
                                       cmocka_unit_test(whole_blocks), cmocka_unit_test(other_layers), cmocka_unit_test(all_ran)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

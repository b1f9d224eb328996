/* The fused norm kernels: the vector variants against the scalar one, and that one against the plain statement of each form. */
#include "support.h"

#include <math.h>

#include "train/plan.h"

enum { ROWS = 37, MAX_C = 70, MASK_ROWS = 8, FORMS = 15, FIRST_SOFT = 8, FIRST_MASKED = 11 };

static void to_type(const lb_kernels *k, lb_dtype type, uint64_t stream, void *dst, size_t count) {
    float *values = malloc(count * sizeof *values);
    lb_rng_normal(31, LB_RNG_TEST, stream, 1, values, count);
    k->from_f32(type, values, dst, count);
    free(values);
}

/* What cpq and rq of 3 bits after a ReLU do, at a mixer's m. */
static void soft_form(const lb_quantizer *quantizer, float m, lb_act_form *form) {
    static const float param[2] = {-1.f, -2.f};
    static lb_quant quants[2];
    lb_quant *q = &quants[quantizer == &lb_quantizer_rq];
    lb_ctx *ctx = test_ctx();
    *q = (lb_quant){.spec = {.quantizer = quantizer, .target = LB_ACTIVATIONS, .bits = 3}};
    assert_ok(ctx, lb_quant_resolve(ctx, "act", &q->spec, &q->grid));
    lb_quant_act_form(q, &(lb_quant_when){.seed = 5, .step = 6}, param, form);
    form->m = m;
    lb_ctx_destroy(ctx);
}

static void compare_norm(const lb_kernels *ref, const lb_kernels *fast, lb_dtype type, int c, int form_index, bool residual) {
    size_t count = (size_t)ROWS * (size_t)c;
    static float x[ROWS * MAX_C], r[ROWS * MAX_C], g[2][ROWS * MAX_C], out[2][3][ROWS * MAX_C];
    static float a[MAX_C], b[MAX_C], center[MAX_C], p[MAX_C], q[MAX_C], s[MAX_C];
    to_type(ref, type, 1, x, count);
    to_type(ref, type, 2, r, count);
    to_type(ref, type, 3, g[0], count);
    to_type(ref, type, 4, g[1], count);
    float *channel[] = {a, b, center, p, q, s};
    for (size_t i = 0; i < LB_COUNT(channel); i++)
        lb_rng_normal(32, LB_RNG_TEST, i, 1, channel[i], (size_t)c);
    static const struct {
        lb_norm_act act;
        lb_act_form form;
    } forms[] = {
        {LB_NORM_NONE, {.step = 1}},
        {LB_NORM_CLIP, {.step = 1, .sur_lo = 0, .sur_hi = INFINITY}},
        {LB_NORM_QUANT, {.step = 1 / 3.f, .lo = 0, .hi = 3, .pass_lo = 0, .pass_hi = 1, .m = 1}},
        {LB_NORM_QUANT, {.step = .3f, .lo = -4, .hi = 3, .pass_lo = -1.2f, .pass_hi = .9f, .m = 1,
                         .learn = LB_LEARN_STEP, .learn_scale = 1}},
        {LB_NORM_QUANT, {.step = .5f, .lo = 0, .hi = 7, .pass_lo = 0, .pass_hi = 3.5f, .m = 1,
                         .learn = LB_LEARN_CLIP, .learn_scale = 1}},
        {LB_NORM_QUANT, {.step = 1, .lo = -1, .hi = 1, .sign = true, .pass_lo = -1, .pass_hi = 1, .m = 1}},
        {LB_NORM_QUANT,
         {.step = .3f,
          .lo = 0,
          .hi = 3,
          .pass_lo = 0,
          .pass_hi = .9f,
          .m = .3f,
          .sur_lo = 0,
          .sur_hi = 1,
          .learn = LB_LEARN_STEP,
          .learn_scale = 1}},
        {LB_NORM_QUANT,
         {.step = 1, .lo = -1, .hi = 1, .sign = true, .pass_lo = -1, .pass_hi = 1, .m = .3f, .sur_lo = -1, .sur_hi = 1}},
        {LB_NORM_QUANT, {.m = 1}}, /* cpq */
        {LB_NORM_QUANT, {.m = 1}}, /* rq */
        {LB_NORM_QUANT, {.m = .3f}}, /* rq */
        {LB_NORM_QUANT, {.step = 1, .lo = -1, .hi = 1, .sign = true, .m = 1, .sur_lo = -1, .sur_hi = 1}},
        {LB_NORM_QUANT, {.step = .3f, .lo = 0, .hi = 3, .pass_hi = .9f, .m = 1, .sur_hi = INFINITY,
                         .learn = LB_LEARN_STEP, .learn_scale = 1}},
        {LB_NORM_QUANT, {.step = .3f, .lo = 0, .hi = 3, .m = 1, .sur_hi = INFINITY, .learn = LB_LEARN_STEP, .learn_scale = 1}},
        {LB_NORM_QUANT, {.m = 1}}, /* rq */
    };
    lb_act_form form = forms[form_index].form;
    if (form.step == 0)
        soft_form(form_index == FIRST_SOFT ? &lb_quantizer_cpq : &lb_quantizer_rq, form.m, &form);
    static uint8_t mask[MASK_ROWS * MAX_C];
    for (size_t i = 0; i < LB_COUNT(mask); i += 4) {
        uint32_t bits[4];
        lb_rng4(33, LB_RNG_TEST, 0, i, bits);
        for (size_t k = 0; k < 4; k++)
            mask[i + k] = (uint8_t)(bits[k] >> 31);
    }
    double sums[2][2 * MAX_C + 2];
    memset(sums, 0, sizeof sums);
    memset(out, 0, sizeof out);
    for (int v = 0; v < 2; v++) {
        const lb_kernels *k = v ? fast : ref;
        lb_norm_args args = {.type = type,
                             .c = c,
                             .act = forms[form_index].act,
                             .form = form,
                             .x = x,
                             .a = a,
                             .b = b,
                             .residual = residual ? r : NULL,
                             .residual_step = .7f,
                             .dst = out[v][0],
                             .mask = form_index >= FIRST_MASKED ? mask : NULL,
                             .mask_rows = MASK_ROWS,
                             .ngrads = 2,
                             .grad = {g[0], g[1]},
                             .factor = {1, .5f},
                             .center = center,
                             .dz = out[v][1],
                             .p = p,
                             .q = q,
                             .s = s,
                             .dx = out[v][2]};
        k->norm_forward(&args, 0, ROWS);
        k->norm_backward(&args, 0, ROWS, sums[v], sums[v] + MAX_C, sums[v] + 2 * MAX_C);
        k->norm_backward_x(&args, 0, ROWS);
        double stat[2 * MAX_C] = {0};
        k->stats(type, x, c, 0, ROWS, stat, stat + c);
        for (int i = 0; i < c; i++)
            sums[v][i] += stat[i] + stat[c + i];
    }
    for (size_t i = 0; i < 3 * count; i++) { /* elementwise: every variant rounds alike; only the sign of a zero may differ */
        const float *o[2] = {out[0][i / count], out[1][i / count]};
        size_t k = i % count;
        uint32_t bits[2] = {0, 0};
        for (int v = 0; v < 2; v++)
            if (type == LB_F32)
                memcpy(&bits[v], o[v] + k, 4);
            else
                memcpy(&bits[v], (const uint16_t *)o[v] + k, 2);
        uint32_t sign = type == LB_F32 ? 0x80000000u : 0x8000u;
        if (bits[0] != bits[1] && ((bits[0] | bits[1]) & ~sign))
            fail_msg("%s: element %zu is %08x, not %08x (c %d, form %d)", fast->isa, i, bits[1], bits[0], c, form_index);
    }
    for (size_t i = 0; i < LB_COUNT(sums[0]); i++)
        if (fabs(sums[0][i] - sums[1][i]) > 1e-4 * (1 + fabs(sums[0][i])))
            fail_msg("%s: sum %zu is %g, not %g (c %d, form %d)", fast->isa, i, sums[1][i], sums[0][i], c, form_index);
}

static void test_kernels(void **state) {
    (void)state;
    const lb_kernels *ref = lb_kernels_find("scalar");
    static const char *const names[] = {"avx2", "avx512", "avx512bf16"};
    for (size_t i = 0; i < LB_COUNT(names); i++) {
        const lb_kernels *fast = lb_kernels_find(names[i]);
        if (!fast) {
            printf("SKIPPED: this processor has no %s\n", names[i]);
            continue;
        }
        for (int c = 1; c <= MAX_C; c += c < 18 ? 1 : 13)
            for (int form = 0; form < FORMS; form++)
                for (int residual = 0; residual < 2; residual++)
                    for (int type = fast->bf16_only ? LB_BF16 : LB_F32; type <= LB_BF16; type++)
                        compare_norm(ref, fast, (lb_dtype)type, c, form, residual);
    }
}

/* The scalar kernel against the plain statement of the form. */
static void test_scalar_form(void **state) {
    (void)state;
    const lb_kernels *k = lb_kernels_find("scalar");
    static const lb_act_form forms[] = {
        {.step = 1 / 3.f, .lo = 0, .hi = 3, .pass_lo = 0, .pass_hi = 1, .m = 1},
        {.step = .3f, .lo = -4, .hi = 3, .pass_lo = -1.2f, .pass_hi = .9f, .m = 1, .learn = LB_LEARN_STEP, .learn_scale = 1},
        {.step = .5f, .lo = 0, .hi = 7, .pass_lo = 0, .pass_hi = 3.5f, .m = 1, .learn = LB_LEARN_CLIP, .learn_scale = 1},
        {.step = 1, .lo = -1, .hi = 1, .sign = true, .pass_lo = -1, .pass_hi = 1, .m = 1},
        {.step = .3f,
         .lo = 0,
         .hi = 3,
         .pass_lo = 0,
         .pass_hi = .9f,
         .m = .3f,
         .sur_lo = 0,
         .sur_hi = 1,
         .learn = LB_LEARN_STEP,
         .learn_scale = 1},
        {.step = 1, .lo = -1, .hi = 1, .sign = true, .pass_lo = -1, .pass_hi = 1, .m = .3f, .sur_lo = -1, .sur_hi = 1},
        {.step = 1, .lo = -1, .hi = 1, .sign = true, .m = .3f, .sur_lo = -1, .sur_hi = 1},
        {.step = .4f, .lo = -1, .hi = 1, .sign = true, .pass_lo = -1, .pass_hi = 1, .m = 1,
         .learn = LB_LEARN_STEP, .learn_scale = 1},
    };
    float one = 1, zero = 0;
    for (size_t i = 0; i < LB_COUNT(forms); i++)
        for (float z = -3; z < 5; z += 0.0371f) {
            float dst, dz, grad = 1.5f, learned = 0;
            double sum = 0, sum_x = 0, learn = 0;
            lb_norm_args args = {.type = LB_F32,
                                 .c = 1,
                                 .act = LB_NORM_QUANT,
                                 .form = forms[i],
                                 .x = &z,
                                 .a = &one,
                                 .b = &zero,
                                 .dst = &dst,
                                 .ngrads = 1,
                                 .grad = {&grad},
                                 .factor = {1},
                                 .center = &zero,
                                 .dz = &dz};
            k->norm_forward(&args, 0, 1);
            k->norm_backward(&args, 0, 1, &sum, &sum_x, &learn);
            assert_float_equal(dst, lb_act_forward_ref(&forms[i], z), 1e-5);
            assert_float_equal(dz, lb_act_backward_ref(&forms[i], z, grad, &learned), 1e-5);
            assert_float_equal((float)learn, learned, 1e-5);
        }
}

/* Forms that answer for blocks: the kernel gives each element what the form says of it, in and out of a mask, wherever a thread's
 * rows begin. */
static void test_soft_form(void **state) {
    (void)state;
    enum { C = MAX_C, R = 2 * MASK_ROWS, COUNT = R * C };
    static float x[COUNT], grad[COUNT], out[COUNT], dz[COUNT];
    static uint8_t mask[MASK_ROWS * C];
    float ones[C], zeros[C] = {0};
    const lb_kernels *k = lb_kernels_find("scalar");
    for (int i = 0; i < C; i++)
        ones[i] = 1;
    for (int i = 0; i < MASK_ROWS * C; i++)
        mask[i] = i * 7 % 11 < 5;
    lb_rng_normal(43, LB_RNG_TEST, 0, 1, x, COUNT);
    lb_rng_normal(43, LB_RNG_TEST, 1, 1, grad, COUNT);
    for (int variant = 0; variant < 6; variant++) {
        lb_norm_args args = {.type = LB_F32, .c = C, .act = LB_NORM_QUANT, .x = x, .a = ones, .b = zeros, .center = zeros,
                             .dst = out, .ngrads = 1, .grad = {grad}, .factor = {1}, .dz = dz,
                             .mask = variant / 2 == 2 ? mask : NULL, .mask_rows = MASK_ROWS};
        double sum[C] = {0}, sum_x[C] = {0}, learn[2] = {0}, want[2] = {0}, size[2] = {0};
        soft_form(variant % 2 ? &lb_quantizer_rq : &lb_quantizer_cpq, variant / 2 == 1 ? .3f : 1, &args.form);
        const lb_act_form *f = &args.form;
        const float error = f->curve.holds ? 2e-4f : 0; /* tests/quant/test_logistic.c has more of it */
        k->norm_forward(&args, 0, 5);
        k->norm_forward(&args, 5, R);
        k->norm_backward(&args, 0, 5, sum, sum_x, learn);
        k->norm_backward(&args, 5, R, sum, sum_x, learn);
        for (int i = 0; i < COUNT; i++) {
            lb_soft soft;
            float code, m = args.mask ? mask[i % (MASK_ROWS * C)] : f->m;
            f->soft(f, x + i, i, 1, &soft);
            const float slope = soft.slope[0], by[2] = {soft.by_step[0], soft.by_sigma[0]};
            if (f->draw)
                f->draw(f, x + i, i, 1, &code);
            else
                code = fminf(fmaxf(rintf(x[i] * (1 / f->step)), f->lo), f->hi);
            assert_float_equal(out[i], (1 - m) * fmaxf(x[i], 0) / f->step + m * code, 1e-5);
            assert_float_equal(dz[i], grad[i] * ((1 - m) * (x[i] > 0 ? 1.f : 0.f) + m * slope), error * fabsf(grad[i]) + 1e-6f);
            for (int p = 0; p < 2; p++)
                want[p] += (double)(grad[i] * m * by[p]), size[p] += (double)fabsf(grad[i] * m * by[p]);
        }
        for (int p = 0; p < 2; p++) /* f32 within a tile */
            assert_true(fabs(learn[p] - want[p]) < (1e-6 + (double)error) * size[p] && fabs(want[p]) > 1e-2);
    }
}

/* Element (row, channel) follows the form with m = mask[row % mask_rows][channel], wherever a thread's rows begin; the gradient is
 * that of the output by differences, the mask held still. */
static void test_masked_form(void **state) {
    (void)state;
    enum { IMAGES = 5, C = 7, R = IMAGES * MASK_ROWS, COUNT = R * C };
    static float x[COUNT], grad[COUNT], out[3][COUNT], dz[COUNT];
    static uint8_t mask[MASK_ROWS * C];
    static const float ones[C] = {1, 1, 1, 1, 1, 1, 1}, zeros[C];
    const float h = 1e-3f;
    const lb_kernels *k = lb_kernels_find("scalar");
    for (int i = 0; i < MASK_ROWS * C; i++)
        mask[i] = i * 7 % 11 < 5;
    lb_rng_normal(41, LB_RNG_TEST, 0, 1, x, COUNT);
    lb_rng_normal(41, LB_RNG_TEST, 1, 1, grad, COUNT);
    for (int ste = 0; ste < 2; ste++) {
        lb_norm_args args = {.type = LB_F32, .c = C, .act = LB_NORM_QUANT, .a = ones, .b = zeros, .center = zeros, .ngrads = 1,
                             .grad = {grad}, .factor = {1}, .dz = dz, .mask = mask, .mask_rows = MASK_ROWS,
                             .form = {.step = 1, .lo = -1, .hi = 1, .sign = true, .m = 1, .sur_lo = -1, .sur_hi = 1,
                                      .pass_lo = ste ? -INFINITY : 0, .pass_hi = ste ? INFINITY : 0}};
        for (int side = 0; side < 3; side++) { /* x, x + h, x - h */
            static float moved[COUNT];
            for (int i = 0; i < COUNT; i++)
                moved[i] = x[i] + (side == 1 ? h : side == 2 ? -h : 0);
            args.x = moved;
            args.dst = out[side];
            k->norm_forward(&args, 0, 13);
            k->norm_forward(&args, 13, R);
        }
        double sum[C] = {0}, sum_x[C] = {0}, learn = 0;
        args.x = x;
        k->norm_backward(&args, 0, 13, sum, sum_x, &learn);
        k->norm_backward(&args, 13, R, sum, sum_x, &learn);
        int checked = 0;
        for (int i = 0; i < COUNT; i++) {
            lb_act_form form = args.form;
            form.m = mask[i % (MASK_ROWS * C)];
            assert_true(out[0][i] == lb_act_forward_ref(&form, x[i]));
            assert_true(dz[i] == lb_act_backward_ref(&form, x[i], grad[i], NULL));
            if (fabsf(x[i]) < 2 * h || fabsf(fabsf(x[i]) - 1) < 2 * h)
                continue;
            float slope = (out[1][i] - out[2][i]) / (2 * h) + (ste ? form.m : 0);
            assert_float_equal(dz[i], slope * grad[i], 2e-3);
            checked++;
        }
        assert_true(checked > COUNT * 9 / 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_scalar_form),
        cmocka_unit_test(test_soft_form),
        cmocka_unit_test(test_masked_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

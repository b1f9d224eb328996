/* The shared arithmetic: multiply-shift exactness, ties, saturation; and which rules apply where. */
#include <math.h>

#include "net/numerics.h"
#include "support.h"

static uint64_t rng = 88172645463325252u;
static uint64_t next(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}

/* Round half up of the true a * x + b, in exact arithmetic: a, b are multiples of 2^-20 here. */
static void exact_factors(void **state) {
    (void)state;
    for (int trial = 0; trial < 20000; trial++) {
        const int64_t a20 = (int64_t)(next() % (1u << 22)) - (1 << 21), b20 = (int64_t)(next() % (1u << 26)) - (1 << 25);
        const int32_t x = (int32_t)(next() % 200001) - 100000;
        lbrt_requant r;
        assert_true(lb_requant_from_real((double)a20 / 1048576, (double)b20 / 1048576, &r));
        assert_in_range(r.shift, 20, 46);
        const int64_t sum = a20 * x + b20 + (1 << 19); /* + half, floor */
        const int64_t want = sum >= 0 ? sum / 1048576 : -((-sum + 1048575) / 1048576);
        assert_int_equal(lbrt_apply(&r, x), lbrt_saturate(want));
    }
}

static void ties_go_up(void **state) {
    (void)state;
    lbrt_requant r;
    assert_true(lb_requant_from_real(0.5, 0, &r));
    const int32_t want[] = {-1, -1, 0, 0, 1, 1, 2}; /* of -3 .. 3, halved: -1.5 -1 -.5 0 .5 1 1.5 */
    for (int x = -3; x <= 3; x++)
        assert_int_equal(lbrt_apply(&r, x), want[x + 3]);
    assert_true(lb_requant_from_real(-0.25, 0.5, &r));
    assert_int_equal(lbrt_apply(&r, 0), 1);
    assert_int_equal(lbrt_apply(&r, 4), 0); /* -0.5 */
    assert_int_equal(lbrt_apply(&r, 5), -1); /* -0.75 */
}

static void saturates(void **state) {
    (void)state;
    lbrt_requant r;
    assert_true(lb_requant_from_real(1e6, 0, &r));
    assert_int_equal(lbrt_apply(&r, INT32_MAX), INT32_MAX);
    assert_int_equal(lbrt_apply(&r, INT32_MIN), INT32_MIN);
    assert_int_equal(lbrt_apply(&r, 2000), 2000000000);
    assert_true(lb_requant_from_real(1, 3e9, &r));
    assert_int_equal(lbrt_apply(&r, 0), INT32_MAX);
    assert_int_equal(lbrt_apply(&r, -2000000000), 1000000000);
    assert_true(lb_requant_from_real(2147483647.0, 0, &r));
    assert_int_equal(r.shift, 0);
    assert_int_equal(lbrt_apply(&r, 1), INT32_MAX);
}

/* mul keeps 31 bits unless the offset needs the room; never outside of fixed.h's bounds. */
static void bounds(void **state) {
    (void)state;
    lbrt_requant r;
    for (int e = -60; e <= 30; e++) {
        for (int k = 0; k < 200; k++) {
            const double a = ldexp(1.0 + (double)(next() % 1000003) / 1000003.0, e) * (k % 2 ? -1 : 1);
            const double b = ldexp((double)(next() % 1000003) / 1000003.0 - 0.5, (int)(next() % 50));
            if (!lb_requant_from_real(a, b, &r)) {
                assert_true(fabs(a) > 2147483646.0);
                continue;
            }
            assert_in_range(r.shift, 0, 46);
            assert_true(r.add < (int64_t)1 << 61 && r.add > -((int64_t)1 << 61));
            for (int x = -1000; x <= 1000; x += 37) {
                const double want = a * x + b;
                const double slack = 0.5 + fabs((double)x) * ldexp(0.5, -r.shift) + ldexp(0.5, -r.shift) + fabs(want) * 1e-15;
                if (fabs(want) < 2e9)
                    assert_true(fabs((double)lbrt_apply(&r, x) - want) <= slack + 1e-9);
            }
        }
    }
    assert_false(lb_requant_from_real(NAN, 0, &r));
    assert_false(lb_requant_from_real(0, INFINITY, &r));
    assert_false(lb_requant_from_real(3e9, 0, &r));
    assert_false(lb_requant_from_real(1, 1e19, &r));
    assert_true(lb_requant_from_real(0, 0, &r));
    assert_int_equal(lbrt_apply(&r, INT32_MIN), 0);
}

/* ---- The rules on a network ------------------------------------------------------------------------------------------ */

static const float mean[4] = {0.5f, 0.4f, 0.3f, 0}, std[4] = {0.2f, 0.25f, 0.3f, 1};

static void attach(lb_ctx *ctx, lb_net *net, int node, const char *method, lb_target target, int bits) {
    lb_quant *q = lb_pool_alloc(&net->pool, 1, sizeof *q);
    q->param = -1;
    q->spec = (lb_quant_spec){.quantizer = lb_quantizer_find(method),
                              .mixer = lb_mixer_find("constant"),
                              .target = target,
                              .bits = bits,
                              .options.per = strcmp(method, "bwn") ? LB_PER_TENSOR : LB_PER_FILTER,
                              .options.threshold = 0.7f,
                              .options.mix = 1};
    assert_ok(ctx, lb_quant_resolve(ctx, net->nodes[node].name, &q->spec, &q->grid));
    net->nodes[node].quant = q;
}

static void kinds(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "kinds", 8, 8, 3, &net));
    const int in = lb_net_input(net);
    const int a0 = lb_net_clip(net, in, "a0", -1, 1);
    const int c1 = lb_net_conv2d(net, a0, "c1", 4, 3, 1, 1, 1, true); /* bias, then batch norm: one affine */
    const int b1 = lb_net_batchnorm(net, c1, "b1", 0, 0);
    const int a1 = lb_net_relu(net, b1, "a1");
    const int c2 = lb_net_conv2d(net, a1, "c2", 4, 3, 1, 1, 1, true); /* bias alone */
    const int c3 = lb_net_conv2d(net, a1, "c3", 4, 1, 1, 0, 1, false); /* accumulators */
    const int add = lb_net_add(net, c2, c3, "add");
    const int sum = lb_net_add(net, add, a1, "sum");
    const int pool = lb_net_globalpool(net, sum, "pool");
    const int flat = lb_net_flatten(net, pool, "flat");
    const int fc = lb_net_linear(net, flat, "fc", 5, true);
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 1, 0);
    attach(ctx, net, a0, "dorefa", LB_ACTIVATIONS, 4);
    attach(ctx, net, a1, "dorefa", LB_ACTIVATIONS, 2);
    attach(ctx, net, c1, "dorefa", LB_WEIGHTS, 2);
    attach(ctx, net, c2, "bwn", LB_WEIGHTS, 1);
    attach(ctx, net, c3, "bwn", LB_WEIGHTS, 1);
    attach(ctx, net, fc, "twn", LB_WEIGHTS, 2);
    lb_numerics *n;
    assert_ok(ctx, lb_numerics_create(ctx, net, mean, std, &n));
    const lb_numeric *x = n->nodes;
    assert_true(n->pixels_direct && x[a0].from_pixels && n->quantized_activations);
    assert_int_equal(x[a0].kind, LB_NUM_INT);
    assert_int_equal(x[a0].hi, 15);
    assert_int_equal(x[c1].folded, b1);
    assert_true(x[c1].integer && !x[c1].requant && x[b1].requant);
    assert_int_equal(x[b1].kind, LB_NUM_FIXED);
    assert_int_equal(x[a1].kind, LB_NUM_INT);
    assert_int_equal(x[c2].kind, LB_NUM_FIXED);
    assert_int_equal(x[c2].folded, -1);
    assert_int_equal(x[c3].kind, LB_NUM_INT);
    assert_int_equal(x[c3].nsteps, 4);
    assert_int_equal(x[add].kind, LB_NUM_FIXED);
    assert_int_equal(x[sum].kind, LB_NUM_FIXED);
    assert_int_equal(x[pool].kind, LB_NUM_FIXED);
    assert_int_equal(x[flat].tensor, pool);
    assert_false(x[fc].integer); /* reads fixed point */
    assert_int_equal(x[fc].kind, LB_NUM_F32);
    assert_true(x[fc].scale && x[fc].offset);
    /* The folded affine is the real one. */
    const double step = x[a0].step[0] * (double)x[c1].weight_step[2], bias = 0;
    assert_true(fabs(ldexp((double)x[b1].requant[2].mul, -x[b1].requant[2].shift) / (step * 65536 / sqrt(1 + 1e-5)) - 1) < 1e-6);
    assert_true(fabs((double)lbrt_apply(&x[b1].requant[2], 0) - bias) < 1);
    lb_numerics_destroy(n);

    /* A pixel's code is that of its normalised value. */
    assert_ok(ctx, lb_numerics_create(ctx, net, mean, std, &n));
    for (int c = 0; c < 3; c++)
        for (int p = 0; p < 256; p++) {
            const double v = ((double)p / 255 - (double)mean[c]) / (double)std[c] * 15;
            const int code = lbrt_clamp(lbrt_apply(&n->nodes[a0].requant[c], p), 0, 15);
            if (fabs(v - floor(v) - 0.5) > 1e-6)
                assert_int_equal(code, (int)fmax(0, fmin(15, rint(v))));
        }
    lb_numerics_destroy(n);

    /* Parameters that cannot be are refused with the layer's name. */
    lb_param_values(net, net->nodes[b1].param[3])[1] = NAN;
    assert_int_equal(lb_numerics_create(ctx, net, mean, std, &n), LB_ERR_UNSUPPORTED);
    assert_non_null(strstr(lb_error(ctx), "b1"));
    lb_net_destroy(net);
    lb_ctx_destroy(ctx);
}

/* Steps of filters that are all alike, and of ones of which only the last differs, are as many as it takes to tell them. */
static void alike_but_the_last(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int differs = 0; differs < 2; differs++) {
        lb_net *net;
        assert_ok(ctx, lb_net_create(ctx, "alike", 4, 4, 1, &net));
        const int act = lb_net_clip(net, lb_net_input(net), "act", -1, 1);
        const int conv = lb_net_conv2d(net, act, "conv", 3, 3, 1, 1, 1, false);
        const int fc = lb_net_linear(net, lb_net_globalpool(net, conv, "pool"), "fc", 2, false);
        assert_ok(ctx, lb_net_finish(net));
        lb_net_initialise(net, 1, 0);
        attach(ctx, net, act, "dorefa", LB_ACTIVATIONS, 4);
        attach(ctx, net, conv, "bwn", LB_WEIGHTS, 1);
        float *weights = lb_param_values(net, net->nodes[conv].param[0]);
        for (int k = 0; k < 27; k++)
            weights[k] = differs && k >= 18 ? 1.0f : 0.5f;
        lb_numerics *n;
        assert_ok(ctx, lb_numerics_create(ctx, net, mean, std, &n));
        assert_true(n->nodes[conv].integer && !n->nodes[fc].integer);
        assert_int_equal(n->nodes[conv].nsteps, differs ? 3 : 1);
        if (differs)
            assert_true(n->nodes[conv].step[2] == 2 * n->nodes[conv].step[0]);
        lb_numerics_destroy(n);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* 8-bit weights and activations with so many inputs that some weights would overflow: float instead. */
static void too_wide(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int big = 0; big < 2; big++) {
        lb_net *net;
        const int ic = big ? 33100 : 33000; /* 33026 * 255 * 255 is 2^31 */
        assert_ok(ctx, lb_net_create(ctx, "wide", 1, 1, 1, &net));
        const int a0 = lb_net_linear(net, lb_net_input(net), "up", ic, false);
        const int a1 = lb_net_relu(net, a0, "a1");
        const int fc = lb_net_linear(net, a1, "fc", 2, false);
        assert_ok(ctx, lb_net_finish(net));
        lb_net_initialise(net, 1, 0);
        attach(ctx, net, a1, "dorefa", LB_ACTIVATIONS, 8);
        attach(ctx, net, fc, "dorefa", LB_WEIGHTS, 8);
        lb_numerics *n;
        assert_ok(ctx, lb_numerics_create(ctx, net, mean, std, &n));
        assert_int_equal(n->nodes[fc].integer, !big);
        lb_numerics_destroy(n);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

static lb_status create_with(lb_ctx *ctx, test_allocator *a, long left) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "small", 4, 4, 1, &net));
    const int conv = lb_net_conv2d(net, lb_net_input(net), "conv", 3, 3, 1, 1, 1, true);
    const int act = lb_net_relu(net, conv, "act");
    const int fc = lb_net_linear(net, lb_net_globalpool(net, act, "pool"), "fc", 2, true);
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 1, 0);
    attach(ctx, net, act, "dorefa", LB_ACTIVATIONS, 2);
    attach(ctx, net, fc, "dorefa", LB_WEIGHTS, 2);
    a->left = left;
    lb_numerics *n;
    const lb_status status = lb_numerics_create(ctx, net, mean, std, &n);
    lb_numerics_destroy(n);
    lb_net_destroy(net);
    return status;
}

static void out_of_memory(void **state) {
    (void)state;
    assert_true(test_memory_runs_out(create_with) > 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_factors), cmocka_unit_test(ties_go_up), cmocka_unit_test(saturates), cmocka_unit_test(bounds),
        cmocka_unit_test(kinds),         cmocka_unit_test(alike_but_the_last),
        cmocka_unit_test(too_wide),      cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The evaluator's parts: kernel variants give the same bits, the ordered convolution is the runtime's, thresholds are what they
 * replace, every way of computing an integer convolution gives the exact sums, and results do not depend on batch, chunk or
 * threads. */
#include <float.h>
#include <math.h>

#include "net/net.h"
#include "ref_float.h"
#include "support.h"
#include "train/evaluate_plan.h"

static uint32_t rng = 2463534242u;
static uint32_t next(void) {
    rng ^= rng << 13;
    rng ^= rng >> 17;
    return rng ^= rng << 5;
}
static float real(float range) { return ((float)next() * 0x1p-31f - 1.0f) * range; }

enum { N = 515 };
static int32_t edge_int(void) {
    static const int32_t edges[] = {0, 1, -1, INT32_MAX, INT32_MIN, INT32_MAX - 1, INT32_MIN + 1, 65536, -65536};
    return next() % 3 ? (int32_t)next() : edges[next() % LB_COUNT(edges)];
}
static float edge_float(void) {
    static const float edges[] = {0,        -0.0f,     0.5f,    1.5f,   2.5f,      -0.5f,     -1.5f,
                                  INFINITY, -INFINITY, FLT_MAX, 1e-30f, 32767.99f, -32768.0f, 2.5e5f};
    const uint32_t pick = next() % 20;
    return pick == 0 ? NAN : pick < 8 ? edges[next() % LB_COUNT(edges)] : real(pick < 14 ? 4.0f : 1e5f);
}

/* Every elementwise kernel against its definition. */
static void elementwise(const lb_eval_kernels *k, int n) {
    static int32_t v[N + 1], w[N], got[N + 1];
    static int64_t mul[N], add[N], shift[N];
    static float f[N + 1], g[N], scale[N], offset[N];
    static uint8_t u8[N], p[N];
    static int8_t s8[N];
    for (int i = 0; i < n; i++) {
        v[i] = edge_int(), w[i] = edge_int(), mul[i] = edge_int();
        shift[i] = (int64_t)(next() % 47);
        add[i] = (int64_t)(((uint64_t)next() << 29) ^ next()) * (next() % 2 ? 1 : -1);
        f[i] = edge_float(), g[i] = real(100), scale[i] = real(3), offset[i] = real(3);
        p[i] = (uint8_t)next();
    }
    got[n] = 77;
    memcpy(got, v, (size_t)n * sizeof *v);
    k->requant(got, n, mul, add, shift, got);
    for (int i = 0; i < n; i++) {
        const lbrt_requant r = {add[i], (int32_t)mul[i], (int32_t)shift[i]};
        assert_int_equal(got[i], lbrt_apply(&r, v[i]));
    }
    for (int i = 0; i < n; i++)
        w[i] = v[i] >> (shift[i] > 30 ? 0 : 31 - shift[i]), add[i] >>= shift[i] > 30 ? 0 : 31 - shift[i];
    k->requant_fits(w, n, mul, add, shift, got);
    for (int i = 0; i < n; i++) {
        const lbrt_requant r = {add[i], (int32_t)mul[i], (int32_t)shift[i]};
        const int64_t y = ((int64_t)w[i] * mul[i] + add[i]) >> shift[i];
        if (y >= INT32_MIN && y <= INT32_MAX)
            assert_int_equal(got[i], lbrt_apply(&r, w[i]));
        w[i] = edge_int();
    }
    const lbrt_requant one = {add[0], (int32_t)mul[0], (int32_t)shift[0]};
    k->requant1(v, n, one, got);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], lbrt_apply(&one, v[i]));
    memcpy(got, v, (size_t)n * sizeof *v);
    k->add(got, w, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], lbrt_saturate((int64_t)v[i] + w[i]));
    memcpy(got, v, (size_t)n * sizeof *v);
    k->clamp(got, n, -70000, 123);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], lbrt_clamp(v[i], -70000, 123));
    memcpy(got, v, (size_t)n * sizeof *v);
    k->sign(got, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], v[i] >= 0 ? 1 : -1);
    static uint8_t start[N], size[N];
    static int32_t above[3 * (N + 2)], table[16];
    for (int i = 0; i < n; i++)
        start[i] = (uint8_t)next(), size[i] = (uint8_t)next();
    for (size_t i = 0; i < LB_COUNT(above); i++)
        above[i] = edge_int();
    for (int i = 0; i < 16; i++)
        table[i] = edge_int();
    k->steps(v, n, start, size, above, 3, N + 2, u8);
    for (int i = 0; i < n; i++) {
        int code = start[i];
        for (int j = 0; j < 3; j++)
            code += v[i] > above[j * (N + 2) + i] ? size[i] : 0;
        assert_int_equal(u8[i], (uint8_t)code);
    }
    k->look_up(v, n, table, got);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], table[v[i] & 15]);
    k->code_f32(f, n, 0.75f, -3, 4, got);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], lbrt_code_f32(f[i], 0.75f, -3, 4));
    k->sign_f32(f, n, got);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], f[i] >= 0 ? 1 : -1);
    k->fixed_f32(f, n, got);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], lbrt_fixed_f32(f[i]));
    assert_int_equal(got[n], 77); /* nothing behind the end */

    float h[N + 1];
    h[n] = 77;
    k->to_float(v, n, scale, h);
    for (int i = 0; i < n; i++)
        assert_true(h[i] == (float)v[i] * scale[i]);
    k->to_float1(v, n, 0.3f, h);
    for (int i = 0; i < n; i++)
        assert_true(h[i] == (float)v[i] * 0.3f);
    k->pixels(p, n, scale, offset, h);
    for (int i = 0; i < n; i++) {
        const float product = (float)p[i] * scale[i];
        assert_true(h[i] == product + offset[i]);
    }
    memcpy(h, f, (size_t)n * sizeof *f);
    k->affine(h, n, scale, offset, -8, INFINITY, h);
    k->add_f32(h, g, n, -INFINITY, 7, h);
    k->clamp_f32(h, n, -5, 6, h);
    for (int i = 0; i < n; i++) {
        const float product = f[i] * scale[i], sum = lbrt_clamp_f32(product + offset[i], -8, INFINITY);
        const float want = lbrt_clamp_f32(lbrt_clamp_f32(sum + g[i], -INFINITY, 7), -5, 6);
        assert_true(h[i] == want || (isnan(h[i]) && isnan(want)));
    }
    assert_true(h[n] == 77);
    for (int i = 0; i < n; i++)
        v[i] = (int32_t)(next() % 256);
    k->store_u8(v, n, u8);
    k->load_u8(u8, n, got);
    assert_memory_equal(got, v, (size_t)n * sizeof *v);
    for (int i = 0; i < n; i++)
        v[i] -= 128;
    k->store_s8(v, n, s8);
    k->load_s8(s8, n, got);
    assert_memory_equal(got, v, (size_t)n * sizeof *v);
}

static void kernels(void **state) {
    (void)state;
    const lb_eval_kernels *k;
    for (int i = 0; (k = lb_eval_kernels_variant(i)); i++)
        for (int n = 1; n <= N; n = n < 40 ? n + 1 : n * 2 - 7)
            elementwise(k, n);
    assert_ptr_equal(lb_eval_kernels_variant(-1), NULL);
}

static void ordered(void **state) {
    (void)state;
    static const lb_ordered_conv shapes[] = {
        {5, 7, 3, 5, 7, 16, 3, 3, 1, 1, 1, 1, 1, 0, 0, NULL},  {6, 5, 4, 3, 3, 17, 3, 3, 2, 2, 1, 1, 1, 0, 0, NULL},
        {8, 8, 6, 8, 8, 6, 3, 3, 1, 1, 1, 1, 6, 0, 0, NULL},   {9, 11, 8, 5, 6, 40, 7, 5, 2, 2, 3, 2, 2, 0, 0, NULL},
        {1, 9, 33, 1, 9, 10, 1, 1, 1, 1, 0, 0, 1, 0, 0, NULL}, {2, 2, 1, 2, 2, 1, 5, 5, 1, 1, 2, 2, 1, 0, 0, NULL},
        {9, 8, 5, 7, 4, 20, 3, 3, 1, 2, 1, 2, 1, 1, 2, NULL},   {8, 9, 4, 8, 9, 4, 3, 3, 1, 1, 2, 3, 4, 1, 2, NULL},
        {3, 21, 3, 3, 21, 16, 3, 3, 1, 1, 1, 1, 1, 0, 0, NULL}, {4, 23, 2, 2, 12, 5, 3, 5, 2, 2, 1, 2, 1, 0, 0, NULL},
        {2, 3, 2, 2, 19, 16, 1, 2, 1, 1, 0, 8, 1, 0, 0, NULL},
    };
    for (size_t s = 0; s < LB_COUNT(shapes); s++) {
        lb_ordered_conv c = shapes[s];
        const int icg = c.ic / c.groups, ocg = c.oc / c.groups, inner = c.kh * c.kw * icg, blocks = (ocg + 15) / 16;
        const size_t count = (size_t)(c.oh * c.ow * c.oc);
        float *src = malloc(sizeof(float) * (size_t)(c.ih * c.iw * c.ic)), *plain = malloc(sizeof(float) * (size_t)(inner * c.oc));
        float *packed = calloc((size_t)(c.groups * blocks * inner * 16), sizeof *packed), *want = malloc(sizeof(float) * count),
              *got = malloc(sizeof(float) * count);
        for (int i = 0; i < c.ih * c.iw * c.ic; i++)
            src[i] = real(3);
        for (int k = 0; k < inner; k++)
            for (int o = 0; o < c.oc; o++) {
                const float w = plain[k * c.oc + o] = real(1);
                packed[(((o / ocg) * blocks + o % ocg / 16) * inner + k) * 16 + o % ocg % 16] = w;
            }
        c.weights = packed;
        const lbrt_conv_shape shape = {c.ih, c.iw, c.ic, c.oh, c.ow, c.oc, c.kh, c.kw, c.sh, c.sw, c.pt, c.pl, c.groups,
                                       c.gap_h, c.gap_w};
        lbrt_conv_f32(&shape, src, plain, want, 0, 1);
        const lb_eval_kernels *k;
        for (int i = 0; (k = lb_eval_kernels_variant(i)); i++) {
            memset(got, 0xff, sizeof(float) * count);
            k->conv_ordered(&c, src, got);
            assert_memory_equal(got, want, sizeof(float) * count);
        }
        free(src), free(plain), free(packed), free(want), free(got);
    }
}

static void pools(void **state) {
    (void)state;
    const lb_eval_pool p = {.ih = 7, .iw = 6, .c = 67, .oh = 4, .ow = 3, .kh = 3, .kw = 2, .sh = 2, .sw = 2, .pt = 1, .pl = 0};
    enum { IN = 7 * 6 * 67, OUT = 4 * 3 * 67 };
    static int32_t i32[IN], mi[OUT], si[OUT];
    static uint8_t u8[IN], mu[OUT];
    static int8_t s8[IN], ms[OUT];
    static float f32[IN], mf[OUT], sf[OUT];
    static int32_t su[OUT], ss[OUT];
    for (int i = 0; i < IN; i++) {
        i32[i] = next() % 2 ? edge_int() : INT32_MAX - (int32_t)(next() % 5);
        u8[i] = (uint8_t)next(), s8[i] = (int8_t)next(), f32[i] = real(10);
    }
    const lb_eval_kernels *k;
    for (int v = 0; (k = lb_eval_kernels_variant(v)); v++) {
        k->max_i32(&p, i32, mi), k->sum_i32(&p, i32, si), k->max_u8(&p, u8, mu), k->sum_u8(&p, u8, su);
        k->max_s8(&p, s8, ms), k->sum_s8(&p, s8, ss), k->max_f32(&p, f32, mf), k->sum_f32(&p, f32, sf);
        for (int o = 0; o < OUT; o++) {
            const int c = o % 67, x = o / 67 % 3, y = o / 67 / 3;
            int64_t sum = 0, sum_u = 0, sum_s = 0, max = INT64_MIN, max_u = 0, max_s = -128;
            float sum_f = 0, max_f = -INFINITY;
            for (int iy = y * 2 - 1; iy < y * 2 + 2; iy++)
                for (int ix = x * 2; ix < x * 2 + 2; ix++) {
                    if (iy < 0 || iy >= 7)
                        continue;
                    const int at = (iy * 6 + ix) * 67 + c;
                    sum += i32[at], sum_u += u8[at], sum_s += s8[at], sum_f += f32[at];
                    max = LB_MAX(max, i32[at]), max_u = LB_MAX(max_u, u8[at]), max_s = LB_MAX(max_s, s8[at]),
                    max_f = LB_MAX(max_f, f32[at]);
                }
            assert_int_equal(si[o], lbrt_saturate(sum));
            assert_int_equal(su[o], sum_u);
            assert_int_equal(ss[o], sum_s);
            assert_true(sf[o] == sum_f && mf[o] == max_f);
            assert_int_equal(mi[o], max);
            assert_int_equal(mu[o], max_u);
            assert_int_equal(ms[o], max_s);
        }
    }
}

/* ---- Chains as thresholds ------------------------------------------------------------------------------------------------- */

static lbrt_requant any_requant(void) {
    const lbrt_requant r = {((int64_t)next() << (next() % 24)) * (next() % 2 ? 1 : -1),
                            next() % 8 ? (int32_t)(next() % (1 << 24)) - (1 << 23) : 0, (int32_t)(next() % 47)};
    return r;
}

/* Multiply-shifts of both signs and of zero, before clamps and signs: the same numbers everywhere near a step and elsewhere. */
static void thresholds(void **state) {
    (void)state;
    enum { C = 5, PERIOD = 20 };
    static int64_t mul[PERIOD], add[PERIOD], shift[PERIOD];
    lb_ctx *ctx = test_ctx();
    const lb_eval_kernels *k = lb_eval_kernels_variant(0);
    for (int round = 0; round < 200; round++) {
        lb_pool pool;
        lb_pool_init(&pool, ctx);
        for (int i = 0; i < PERIOD; i++) {
            const lbrt_requant r = any_requant();
            mul[i] = i < C ? r.mul : mul[i - C];
            add[i] = i < C ? r.add : add[i - C];
            shift[i] = i < C ? r.shift : shift[i - C];
        }
        const bool sign = round % 5 == 0;
        const lbrt_requant second = any_requant();
        const int32_t lo = (int32_t)(next() % 40) - 20, hi = lo + (int32_t)(next() % 18);
        lb_chain chain[4] = {{.kind = LB_CHAIN_ADD},
                             {.kind = LB_CHAIN_REQUANT, .mul = mul, .add = add, .shift = shift},
                             {.kind = LB_CHAIN_REQUANT1, .r = second},
                             {.kind = sign ? LB_CHAIN_SIGN : LB_CHAIN_CLAMP, .lo = lo, .hi = hi}};
        int n = 4;
        assert_ok(ctx, lb_eval_plan_steps(&pool, chain, &n, C, PERIOD));
        const bool few = sign || (hi > lo && hi - lo <= 15);
        assert_int_equal(n, few ? 2 : 4);
        assert_int_equal(chain[0].kind, LB_CHAIN_ADD);
        for (int i = 0; few && i < 40 * PERIOD; i++) {
            const lb_chain *op = &chain[1];
            const int at = i % PERIOD;
            int32_t v = edge_int();
            if (i % 3) { /* beside a threshold */
                const uint32_t near = (uint32_t)op->above[(int)(next() % (uint32_t)op->nabove) * PERIOD + at] + next() % 3 - 1;
                v = (int32_t)near;
            }
            const lbrt_requant first = {add[at], (int32_t)mul[at], (int32_t)shift[at]};
            const int32_t y = lbrt_apply(&second, lbrt_apply(&first, v)), want = sign ? (y >= 0 ? 1 : -1) : lbrt_clamp(y, lo, hi);
            uint8_t got;
            k->steps(&v, 1, op->start + at, op->size + at, op->above + at, op->nabove, op->pitch, &got);
            assert_int_equal(got, (uint8_t)want);
        }
        lb_pool_free(&pool);
    }
    lb_ctx_destroy(ctx);
}

/* ---- Integer convolutions ---------------------------------------------------------------------------------------------- */

static const float mean[4] = {0.5f, 0.5f, 0.5f, 0}, std[4] = {0.25f, 0.25f, 0.25f, 1};

static void attach(lb_ctx *ctx, lb_net *net, int node, const char *method, lb_target target, int bits, bool is_signed) {
    lb_quant *q = lb_pool_alloc(&net->pool, 1, sizeof *q);
    q->param = -1;
    q->spec = (lb_quant_spec){.quantizer = lb_quantizer_find(method),
                              .mixer = lb_mixer_find("constant"),
                              .target = target,
                              .bits = bits,
                              .is_signed = is_signed,
                              .options.threshold = 0.7f,
                              .options.mix = 1};
    assert_ok(ctx, lb_quant_resolve(ctx, net->nodes[node].name, &q->spec, &q->grid));
    net->nodes[node].quant = q;
}

/* image -> codes -> conv -> global pool: the score is the sum of the accumulators of a channel, times a step. */
typedef struct conv_case {
    const char *name, *activations;
    int activation_bits, weight_bits, ic, oc, k, groups;
    bool extreme; /* weights at the ends of the grid */
    lb_conv_way way; /* on a CPU with 8-bit dot products */
    bool halves;
} conv_case;

static const conv_case cases[] = {
    {"u8 x s8", "dorefa", 8, 4, 12, 9, 3, 1, false, LB_WAY_INT8, false},
    {"signs", "sign", 1, 2, 12, 9, 3, 1, false, LB_WAY_INT8, false},
    {"depthwise", "dorefa", 2, 4, 12, 12, 3, 12, false, LB_WAY_INT8, false},
    {"9-bit weights in halves", "dorefa", 8, 8, 12, 9, 3, 1, false, LB_WAY_INT8, true},
    {"large sums in halves", "dorefa", 8, 8, 200, 9, 3, 1, true, LB_WAY_INT8, true},
    {"9-bit weights of a depthwise convolution", "dorefa", 8, 8, 12, 12, 3, 12, false, LB_WAY_WHOLE, false},
    {"9-bit weights, 16 channels", "dorefa", 8, 8, 200, 16, 3, 1, true, LB_WAY_INT8, true},
    {"large sums, 16 channels", "dorefa", 8, 7, 200, 16, 3, 1, true, LB_WAY_INT8, true}, /* but for matrix registers */
    {"signs, 16 channels", "sign", 1, 2, 12, 16, 3, 1, false, LB_WAY_INT8, false},
    {"sums beyond everything", "dorefa", 8, 8, 600, 5, 3, 1, true, LB_WAY_INT32, false},
    {"sums beyond everything, in groups", "dorefa", 8, 8, 700, 4, 3, 2, true, LB_WAY_INT32, false},
};

static void exact_sums(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (size_t t = 0; t < LB_COUNT(cases); t++) {
        const conv_case *c = &cases[t];
        enum { MB = 3, SIDE = 5 };
        lb_net *net;
        assert_ok(ctx, lb_net_create(ctx, c->name, SIDE, SIDE, 3, &net));
        const int up = lb_net_conv2d(net, lb_net_input(net), "up", c->ic, 1, 1, 0, 1, true);
        const int act = lb_net_relu(net, up, "act");
        const int conv = lb_net_conv2d(net, act, "conv", c->oc, c->k, 1, 1, c->groups, false);
        const int bn = lb_net_batchnorm(net, conv, "bn", 0, 0);
        lb_net_globalpool(net, bn, "pool");
        assert_ok(ctx, lb_net_finish(net));
        lb_net_initialise(net, t + 1, 0);
        attach(ctx, net, act, c->activations, LB_ACTIVATIONS, c->activation_bits, false);
        attach(ctx, net, conv, "dorefa", LB_WEIGHTS, c->weight_bits, false);
        const lb_param *wp = &net->params[net->nodes[conv].param[0]];
        float *w = lb_param_values(net, net->nodes[conv].param[0]);
        for (size_t i = 0; c->extreme && i < wp->count; i++)
            w[i] = 1;
        for (int i = 0; i < c->ic; i++) /* high activations */
            lb_param_values(net, net->nodes[up].param[1])[i] = 1;
        uint8_t pixels[MB * SIDE * SIDE * 3];
        for (size_t i = 0; i < sizeof pixels; i++)
            pixels[i] = (uint8_t)next();

        lb_infer *infer;
        lb_eval_plan *plan;
        assert_ok(ctx, lb_infer_create(ctx, 1, &infer));
        assert_ok(ctx, lb_eval_plan_create(infer, net, mean, std, MB, false, &plan));
        for (int i = 0; i < plan->nstages; i++)
            if (plan->stages[i].node == conv && lb_infer_has_int8()) {
                const bool halves = c->halves && !plan->stages[i].tiles;
                if (plan->stages[i].way != c->way || plan->stages[i].halves != halves)
                    fail_msg("%s: way %d, halves %d", c->name, (int)plan->stages[i].way, plan->stages[i].halves);
            }
        /* Codes by the rules, sums in 64 bits, then batch norm and pool by the rules. */
        lb_evaluator *e;
        int32_t scores[MB * 16];
        assert_true(c->oc <= 16);
        assert_ok(ctx, lb_evaluator_create(ctx, net, mean, std, MB, &e));
        assert_ok(ctx, lb_evaluator_update(e));
        assert_ok(ctx, lb_evaluator_run(e, pixels, MB, scores));
        lb_evaluator_destroy(e);
        const lb_numeric *x = plan->numerics->nodes;
        int32_t *codes = malloc(sizeof *codes * (size_t)(SIDE * SIDE * c->ic));
        const float *uw = lb_param_values(net, net->nodes[up].param[0]), *ub = lb_param_values(net, net->nodes[up].param[1]);
        for (int m = 0; m < MB; m++) {
            for (int i = 0; i < SIDE * SIDE * c->ic; i++) {
                const uint8_t *p = pixels + (m * SIDE * SIDE + i / c->ic) * 3;
                float acc = 0;
                for (int k = 0; k < 3; k++) {
                    const float a = (float)p[k] * plan->numerics->scale[k], b = a + plan->numerics->offset[k];
                    const float product = b * uw[i % c->ic * 3 + k];
                    acc += product;
                }
                acc += ub[i % c->ic];
                codes[i] = x[act].sign ? (acc >= 0 ? 1 : -1) : lbrt_code_f32(acc, x[act].inv_step, x[act].qlo, x[act].qhi);
            }
            const int icg = c->ic / c->groups, ocg = c->oc / c->groups;
            for (int o = 0; o < c->oc; o++) {
                int64_t total = 0;
                for (int y = 0; y < SIDE; y++)
                    for (int px = 0; px < SIDE; px++) {
                        int64_t acc = 0;
                        for (int ky = 0; ky < c->k; ky++)
                            for (int kx = 0; kx < c->k; kx++)
                                for (int i = 0; i < icg; i++) {
                                    const int iy = y + ky - 1, ix = px + kx - 1;
                                    if (iy >= 0 && iy < SIDE && ix >= 0 && ix < SIDE)
                                        acc += codes[(iy * SIDE + ix) * c->ic + o / ocg * icg + i] *
                                               (int64_t)x[conv].code[((o * c->k + ky) * c->k + kx) * icg + i];
                                }
                        assert_true(acc > INT32_MIN && acc < INT32_MAX);
                        total += lbrt_apply(&x[bn].requant[o], (int32_t)acc);
                    }
                const int32_t want = lbrt_apply(&x[bn + 1].requant[0], lbrt_saturate(total));
                if (scores[m * c->oc + o] != want)
                    fail_msg("%s: score %d is %d, not %d", c->name, o, scores[m * c->oc + o], want);
            }
        }
        free(codes);
        lb_eval_plan_destroy(plan);
        lb_infer_destroy(infer);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

/* ---- The evaluator ------------------------------------------------------------------------------------------------------ */

static lb_net *small_net(lb_ctx *ctx, int c, bool quantized) {
    lb_net *net;
    assert_ok(ctx, lb_net_create(ctx, "small", 9, 7, 3, &net));
    int x = lb_net_conv2d(net, lb_net_input(net), "c1", c, 3, 1, 1, 1, false);
    x = lb_net_batchnorm(net, x, "b1", 0, 0);
    const int a1 = x = lb_net_relu(net, x, "a1");
    const int c2 = x = lb_net_conv2d(net, x, "c2", c, 3, 1, 1, 1, false);
    x = lb_net_batchnorm(net, x, "b2", 0, 0);
    x = lb_net_add(net, x, a1, "add");
    const int a2 = x = lb_net_relu(net, x, "a2");
    x = lb_net_maxpool(net, x, "max", 2, 2, 0);
    x = lb_net_flatten(net, x, "flat");
    const int fc = lb_net_linear(net, x, "fc", 6, true);
    assert_ok(ctx, lb_net_finish(net));
    lb_net_initialise(net, 5, 0);
    if (!quantized)
        return net;
    attach(ctx, net, a1, "dorefa", LB_ACTIVATIONS, 3, false);
    attach(ctx, net, a2, "dorefa", LB_ACTIVATIONS, 3, false);
    attach(ctx, net, c2, "dorefa", LB_WEIGHTS, 3, false);
    attach(ctx, net, fc, "dorefa", LB_WEIGHTS, 8, false);
    return net;
}

static void check_any_batch(int c, bool quantized) {
    enum { IMAGES = 71, SIZE = 9 * 7 * 3 };
    static uint8_t pixels[IMAGES * SIZE];
    static int32_t want[IMAGES * 6], got[IMAGES * 6];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)next();
    for (int threads = 1; threads <= 3; threads++) {
        lb_ctx *ctx;
        const lb_ctx_options options = {.threads = threads};
        assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
        lb_net *net = small_net(ctx, c, quantized);
        for (int mb = 1; mb <= IMAGES; mb += 14) {
            lb_evaluator *e;
            assert_ok(ctx, lb_evaluator_create(ctx, net, mean, std, mb, &e));
            assert_int_equal(lb_evaluator_run(e, pixels, 1, got), LB_ERR_ARGUMENT); /* not before update */
            assert_ok(ctx, lb_evaluator_update(e));
            assert_int_equal(lb_evaluator_run(e, pixels, mb + 1, got), LB_ERR_ARGUMENT);
            for (int first = 0; first < IMAGES; first += mb)
                assert_ok(ctx, lb_evaluator_run(e, pixels + first * SIZE, LB_MIN(mb, IMAGES - first), got + first * 6));
            if (threads == 1 && mb == 1)
                memcpy(want, got, sizeof want);
            assert_memory_equal(got, want, sizeof want);
            /* New weights count after an update only. */
            float *w = lb_param_values(net, net->nodes[net->nnodes - 1].param[1]);
            w[0] += 1;
            assert_ok(ctx, lb_evaluator_run(e, pixels, 1, got));
            assert_int_equal(got[0], want[0]);
            assert_ok(ctx, lb_evaluator_update(e));
            assert_ok(ctx, lb_evaluator_run(e, pixels, 1, got));
            assert_in_range(abs(got[0] - want[0] - 65536), 0, 1);
            w[0] -= 1;
            assert_ok(ctx, lb_evaluator_run(e, pixels, 0, got));
            lb_evaluator_destroy(e);
        }
        lb_net_destroy(net);
        lb_ctx_destroy(ctx);
    }
}

static void same_in_any_batch(void **state) {
    (void)state;
    check_any_batch(11, true);
    check_any_batch(16, true);
    if (lb_tiles_sums_find("amx")) /* oneDNN's floats may differ */
        check_any_batch(16, false);
}

/* Whole and binary weights, floats between: the packed runtime's order and the fast way, apart in their last bits. */
static void floats_in_any_order(void **state) {
    (void)state;
    enum { IMAGES = 5, SIZE = 9 * 7 * 3 };
    static uint8_t pixels[IMAGES * SIZE];
    int32_t scores[2][IMAGES * 6];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)next();
    lb_ctx *ctx = test_ctx();
    for (int codes = 0; codes < 2; codes++) {
        lb_net *net = small_net(ctx, 32, false);
        for (int i = 0; codes && i < net->nnodes; i++)
            if (net->nodes[i].op == LB_OP_CONV)
                attach(ctx, net, i, "bwn", LB_WEIGHTS, 1, false);
        lb_net_update_grids(net);
        lb_evaluator *e;
        assert_ok(ctx, lb_evaluator_create(ctx, net, mean, std, IMAGES, &e));
        for (int ordered = 0; ordered < 2; ordered++) {
            lb_evaluator_set_ordered(e, ordered);
            assert_ok(ctx, lb_evaluator_update(e));
            assert_ok(ctx, lb_evaluator_run(e, pixels, IMAGES, scores[ordered]));
        }
        int32_t most = 0;
        for (int i = 0; i < IMAGES * 6; i++)
            most = LB_MAX(most, abs(scores[1][i]));
        assert_true(most > 4096);
        for (int i = 0; i < IMAGES * 6; i++)
            assert_true(abs(scores[0][i] - scores[1][i]) <= (most >> 14) + 1);
        lb_evaluator_destroy(e);
        lb_net_destroy(net);
    }
    lb_ctx_destroy(ctx);
}

static lb_status create_with(lb_ctx *ctx, test_allocator *a, long left) {
    lb_net *net = small_net(ctx, 16, true);
    a->left = left;
    lb_evaluator *e;
    lb_status status = lb_evaluator_create(ctx, net, mean, std, 4, &e);
    if (status == LB_OK)
        status = lb_evaluator_update(e);
    lb_evaluator_destroy(e);
    lb_net_destroy(net);
    return status;
}

static void out_of_memory(void **state) {
    (void)state;
    assert_true(test_memory_runs_out(create_with) > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels),       cmocka_unit_test(ordered),    cmocka_unit_test(pools),
        cmocka_unit_test(thresholds),    cmocka_unit_test(exact_sums), cmocka_unit_test(same_in_any_batch),
        cmocka_unit_test(floats_in_any_order), cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

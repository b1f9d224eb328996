/* Optimizers: three steps against values worked out from PyTorch's formulas, rules by kind, and independence of threads. */
#include "support.h"

#include <math.h>

#include "train/optim.h"

/* One parameter of each kind; weights 0 are quantized, weights 1 not; quant 1 belongs to a quantizer that trains nothing, quant 2
 * to one whose bits are learned, which has one parameter and one gate. */
enum { WEIGHT, FLOAT_WEIGHT, BIAS, GAMMA, BETA, MEAN, VAR, QUANT, FIXED, SLOPE, GATED, GATE, KINDS };

typedef struct fixture {
    lb_net net;
    lb_node nodes[4];
    lb_quant quants[3];
    lb_quantizer quantizers[3];
    lb_param params[KINDS];
    float *values, *diff;
} fixture;

static void set_up(fixture *f, size_t each, float value, float diff) {
    static const lb_param_kind kinds[KINDS] = {LB_PARAM_WEIGHT,   LB_PARAM_WEIGHT,  LB_PARAM_BIAS,
                                               LB_PARAM_BN_GAMMA, LB_PARAM_BN_BETA, LB_PARAM_BN_MEAN,
                                               LB_PARAM_BN_VAR,   LB_PARAM_QUANT,   LB_PARAM_QUANT,
                                               LB_PARAM_SLOPE,    LB_PARAM_QUANT,   LB_PARAM_QUANT};
    static const int nodes[KINDS] = {0, 1, 0, 1, 1, 1, 1, 0, 2, 1, 3, 3};
    memset(f, 0, sizeof *f);
    f->quantizers[1].fixed_params = true;
    f->quantizers[2].nparams = 1;
    f->quantizers[2].log_params = true;
    for (int i = 0; i < 3; i++)
        f->quants[i].spec.quantizer = &f->quantizers[i];
    f->quants[2].spec.options.bit_lengths = LB_BITS_LEARNED;
    f->quants[2].param = GATED;
    f->nodes[0].quant = &f->quants[0];
    f->nodes[2].quant = &f->quants[1];
    f->nodes[3].quant = &f->quants[2];
    for (int i = 0; i < KINDS; i++)
        f->params[i] = (lb_param){.name = "p", .kind = kinds[i], .node = nodes[i], .count = each, .offset = (size_t)i * each};
    size_t n = each * KINDS;
    f->values = malloc(n * sizeof(float));
    f->diff = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        f->values[i] = value;
        f->diff[i] = diff;
    }
    f->net = (lb_net){.nnodes = 4, .nodes = f->nodes, .nparams = KINDS, .params = f->params, .nvalues = n, .values = f->values};
}

static void tear_down(fixture *f) {
    free(f->values);
    free(f->diff);
}

/* p0 = 1, gradients 0.5, -0.25, 1; lr 0.1, then 0.1, then 0.05. */
static const struct {
    const char *what;
    lb_optimizer_config config;
    double after[3];
} known[] = {
    /* 1 - .05 = .95; + .025 = .975; - .05 = .925 */
    {"sgd", {.name = LB_OPT_SGD}, {0.95, 0.975, 0.925}},
    /* nesterov without momentum is sgd */
    {"sgd, nesterov 0", {.name = LB_OPT_SGD, .nesterov = true}, {0.95, 0.975, 0.925}},
    /* v: .5, .9*.5-.25 = .2, .9*.2+1 = 1.18 */
    {"momentum", {.name = LB_OPT_SGD, .momentum = 0.9f}, {0.95, 0.93, 0.871}},
    /* d = g + .9 v: .95, -.25 + .18 = -.07, 1 + 1.062 = 2.062 */
    {"nesterov", {.name = LB_OPT_SGD, .momentum = 0.9f, .nesterov = true}, {0.905, 0.912, 0.8089}},
    /* g: .5+.1 = .6 -> p .94; -.25+.094 = -.156 -> .9556; 1+.09556 -> .900822 */
    {"decay", {.name = LB_OPT_SGD, .weight_decay = 0.1f}, {0.94, 0.9556, 0.900822}},
    /* v: .6 -> .94; .54-.156 = .384 (g = -.25+.094) -> .9016; .3456+1.09016 = 1.43576 -> .829812 */
    {"momentum, decay", {.name = LB_OPT_SGD, .momentum = 0.9f, .weight_decay = 0.1f}, {0.94, 0.9016, 0.829812}},
    /* m1 = .05, u1 = .00025: step lr * 1. m2 = .02, u2 = .00031225; m3 = .118, u3 = .00131193775 (beta2 .999) */
    {"adam", {.name = LB_OPT_ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f}, {0.9, 0.873366294, 0.840460719}},
    /* 1 * .99 - .1 = .89; * .99 - .02663... ; * .995 - .03116... */
    {"adamw",
     {.name = LB_OPT_ADAMW, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f},
     {0.89, 0.854466294, 0.817288388}},
};

static void test_known(void **state) {
    (void)state;
    static const float gradients[3] = {0.5f, -0.25f, 1};
    static const double rates[3] = {0.1, 0.1, 0.05};
    lb_ctx *ctx = test_ctx();
    for (size_t k = 0; k < LB_COUNT(known); k++) {
        fixture f;
        lb_optim *optim;
        set_up(&f, 37, 1, 0);
        assert_ok(ctx, lb_optim_create(ctx, &f.net, &known[k].config, &optim));
        for (int step = 0; step < 3; step++) {
            for (size_t i = 0; i < f.net.nvalues; i++)
                f.diff[i] = gradients[step];
            assert_int_equal(lb_optim_step(optim, &f.net, f.diff, rates[step], step), 0);
            for (size_t i = 0; i < 2 * 37; i++) /* both kinds of weights */
                if (!(fabs(f.values[i] - known[k].after[step]) < 2e-6))
                    fail_msg("%s, step %d: %.9g, not %.9g", known[k].what, step, (double)f.values[i], known[k].after[step]);
        }
        lb_optim_destroy(optim);
        tear_down(&f);
    }
    lb_ctx_destroy(ctx);
}

static void test_kinds(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const lb_optimizer_kind names[] = {LB_OPT_SGD, LB_OPT_ADAMW};
    for (size_t k = 0; k < LB_COUNT(names); k++) {
        /* No gradient: only decay acts, p (1 - lr wd factor) in sgd and adamw alike. */
        lb_optimizer_config config = {.name = names[k],
                                      .beta1 = 0.9f,
                                      .beta2 = 0.99f,
                                      .eps = 1e-8f,
                                      .weight_decay = 0.5f,
                                      .decay_bias = 0.25f,
                                      .decay_bn = 0.5f,
                                      .decay_quant = 2,
                                      .lr_quant = 0.125f,
                                      .lr_gates = 4};
        static const double after[KINDS] = {0.95, 0.95, 0.9875, 0.975, 0.975, 1, 1, 0.9875, 1, 1, 0.9875, 1};
        fixture f;
        lb_optim *optim;
        set_up(&f, 3, 1, 0);
        assert_ok(ctx, lb_optim_create(ctx, &f.net, &config, &optim));
        lb_optim_step(optim, &f.net, f.diff, 0.1, 0);
        for (int i = 0; i < KINDS; i++)
            if (!(fabs(f.values[3 * i + 1] - after[i]) < 1e-6))
                fail_msg("kind %d: %.9g, not %g", i, (double)f.values[3 * i + 1], after[i]);
        lb_optim_destroy(optim);
        tear_down(&f);
    }
    lb_ctx_destroy(ctx);
}

/* Clamps: only quantized layers' weights to +-clip_weights, learned steps above the floor, running statistics untouched. */
static void test_limits(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (float sign = -1; sign <= 1; sign += 2) {
        lb_optimizer_config config = {.name = LB_OPT_SGD, .momentum = 0.9f, .lr_quant = 1, .lr_gates = 3, .clip_weights = 1.5f};
        fixture f;
        lb_optim *optim;
        set_up(&f, 2, 0.5f, sign * 100);
        assert_ok(ctx, lb_optim_create(ctx, &f.net, &config, &optim));
        lb_optim_step(optim, &f.net, f.diff, 1, 0);
        float moved = 0.5f - sign * 100;
        const float after[KINDS] = {sign * -1.5f, moved, moved, moved, moved, 0.5f, 0.5f, sign > 0 ? LB_QUANT_FLOOR : moved,
                                    0.5f,         moved, moved, 0.5f - sign * 300};
        for (int i = 0; i < KINDS; i++)
            assert_true(f.values[2 * i] == after[i]);
        lb_optim_destroy(optim);
        tear_down(&f);
    }
    lb_ctx_destroy(ctx);
}

/* Gates that are kept do not move, whatever their gradients; the parameters beside them do. */
static void test_kept_gates(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const lb_optimizer_config config = {.name = LB_OPT_SGD, .weight_decay = 0.5f, .lr_quant = 1, .lr_gates = 10};
    fixture f;
    lb_optim *optim;
    set_up(&f, 2, 0.5f, 1);
    f.quants[2].spec.options.bit_lengths = LB_BITS_KEPT;
    assert_ok(ctx, lb_optim_create(ctx, &f.net, &config, &optim));
    lb_optim_step(optim, &f.net, f.diff, 0.125, 0);
    assert_true(f.values[2 * GATE] == 0.5f && f.values[2 * GATED] == 0.375f);
    lb_optim_destroy(optim);
    tear_down(&f);
    lb_ctx_destroy(ctx);
}

static void test_not_finite(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    for (int name = LB_OPT_SGD; name <= LB_OPT_ADAMW; name++) {
        lb_optimizer_config config = {
            .name = (lb_optimizer_kind)name, .momentum = 0.9f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .lr_quant = 1};
        fixture f;
        lb_optim *optim;
        set_up(&f, 5, 1, 0.5f);
        assert_ok(ctx, lb_optim_create(ctx, &f.net, &config, &optim));
        f.diff[1] = NAN;
        f.diff[2] = INFINITY;
        f.diff[3] = -INFINITY;
        f.diff[QUANT * 5] = NAN;
        f.diff[MEAN * 5] = NAN; /* not looked at */
        assert_int_equal(lb_optim_step(optim, &f.net, f.diff, 0.1, 0), 4);
        assert_true(f.values[1] == 1 && f.values[2] == 1 && f.values[3] == 1 && f.values[0] < 1 && f.values[QUANT * 5] == 1);
        for (int i = 0; i < lb_optim_nstates(optim); i++) {
            const float *s = lb_optim_state(optim, i);
            assert_true(s[1] == 0 && s[2] == 0 && s[3] == 0 && s[0] > 0);
        }
        lb_optim_destroy(optim);
        tear_down(&f);
    }
    lb_ctx_destroy(ctx);
}

/* Large enough to be threaded: the same bits for any number of threads, and as several steps resumed from saved state. */
static void test_threads_and_resume(void **state) {
    (void)state;
    const size_t each = 30011;
    for (int name = LB_OPT_SGD; name <= LB_OPT_ADAMW; name++) {
        lb_optimizer_config config = {.name = (lb_optimizer_kind)name,
                                      .momentum = 0.9f,
                                      .nesterov = true,
                                      .beta1 = 0.9f,
                                      .beta2 = 0.99f,
                                      .eps = 1e-8f,
                                      .weight_decay = 1e-2f,
                                      .lr_quant = 1};
        float *reference = NULL;
        for (int threads = 1; threads <= 4; threads++) {
            lb_ctx *ctx;
            lb_ctx_options options = {.threads = threads};
            assert_int_equal(lb_ctx_create(&options, &ctx), LB_OK);
            fixture f;
            lb_optim *optim;
            set_up(&f, each, 1, 0);
            assert_ok(ctx, lb_optim_create(ctx, &f.net, &config, &optim));
            assert_int_equal(lb_optim_nstates(optim), name == LB_OPT_SGD ? 1 : 2);
            assert_string_equal(lb_optim_state_name(optim, 0), name == LB_OPT_SGD ? "momentum" : "exp_avg");
            for (int64_t step = 0; step < 4; step++) {
                lb_rng_normal(5, LB_RNG_TEST, (uint64_t)step, 1, f.diff, f.net.nvalues);
                lb_optim_step(optim, &f.net, f.diff, 0.1, step);
                if (step == 1 && threads == 4) { /* a fresh optimizer with this one's state goes on alike */
                    lb_optim *next;
                    assert_ok(ctx, lb_optim_create(ctx, &f.net, &config, &next));
                    for (int i = 0; i < lb_optim_nstates(optim); i++)
                        memcpy(lb_optim_state(next, i), lb_optim_state(optim, i), f.net.nvalues * sizeof(float));
                    lb_optim_destroy(optim);
                    optim = next;
                }
            }
            size_t bytes = f.net.nvalues * sizeof(float);
            if (!reference) {
                reference = malloc(bytes);
                memcpy(reference, f.values, bytes);
                assert_true(reference[each * 2 - 1] != 1 && reference[each * FIXED] == 1);
            }
            assert_memory_equal(reference, f.values, bytes);
            lb_optim_destroy(optim);
            tear_down(&f);
            lb_ctx_destroy(ctx);
        }
        free(reference);
    }
}

static void test_out_of_memory(void **state) {
    (void)state;
    lb_optimizer_config config = {.name = LB_OPT_ADAM};
    bool done = false;
    for (long n = 1; !done; n++) {
        test_allocator a = {n, 0};
        lb_ctx *ctx = test_ctx_with(&a);
        if (ctx) {
            fixture f;
            lb_optim *optim = NULL;
            set_up(&f, 3, 1, 1);
            lb_status status = lb_optim_create(ctx, &f.net, &config, &optim);
            assert_true(status == (optim ? LB_OK : LB_ERR_MEMORY));
            done = status == LB_OK;
            lb_optim_destroy(optim);
            tear_down(&f);
            lb_ctx_destroy(ctx);
        }
        assert_int_equal(a.alive, 0);
        assert_true(n < 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_kept_gates),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_threads_and_resume),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

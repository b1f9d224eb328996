/* Every family of the zoo x quantization methods x edges, with random parameters: the evaluator's scores are the packed runtime's,
 * bit for bit, and both are near those of real arithmetic (netref.h). */
#include "families.h"
#include "paths.h"

static bool has_quantized_activations(const lb_net *net) {
    for (int i = 0; i < net->nnodes; i++)
        if (net->nodes[i].op == LB_OP_ACT && net->nodes[i].quant)
            return true;
    return false;
}

/* Mean distance from real arithmetic, relative to the scores' own spread. */
static double distance(const double *real, const int32_t *scores, size_t count) {
    double sum = 0, spread = 0;
    for (size_t i = 0; i < count; i++) {
        sum += fabs((double)scores[i] / 65536 - real[i]);
        spread += fabs(real[i] - real[i / CLASSES * CLASSES]);
    }
    return sum / (spread + 1e-9 * (double)count);
}

static void check(lb_ctx *ctx, const family *f, const scheme *s, int edge, uint32_t seed, double total[2]) {
    static const float mean[4] = {0.49f, 0.48f, 0.45f, 0}, std[4] = {0.25f, 0.24f, 0.26f, 1};
    char what[128];
    snprintf(what, sizeof what, "%s %s%s, %s, edges %d", f->name, f->variant, f->shortcut == LB_SHORTCUT_PAD ? " pad" : "", s->name,
             edge);
    lb_net *net = make_net(ctx, f, s, edge);
    netref_fill(net, seed);
    uint8_t *pixels = make_pixels(net, &seed);
    netref r;
    netref_calibrated(&r, net, mean, std, MB, seed, pixels);

    int32_t trained[MB * CLASSES], packed[MB * CLASSES], fast[MB * CLASSES];
    run_evaluator(ctx, net, mean, std, pixels, MB, false, fast);
    run_evaluator(ctx, net, mean, std, pixels, MB, true, trained);
    run_packed(ctx, net, mean, std, pixels, MB, packed);

    for (int i = 0; i < MB * CLASSES; i++) {
        if (trained[i] != packed[i])
            fail_msg("%s: score %d of image %d is %d in evaluation and %d packed", what, i % CLASSES, i / CLASSES, trained[i],
                     packed[i]);
        if (has_quantized_activations(net) ? fast[i] != packed[i] : abs(fast[i] - packed[i]) > 655 + abs(packed[i]) / 1000)
            fail_msg("%s: score %d of image %d is %d in fast evaluation and %d packed", what, i % CLASSES, i / CLASSES, fast[i],
                     packed[i]);
    }
    /* A code that rounds the other way changes a score, in some networks a lot. How much, real arithmetic with noise as large as
     * fixed point's rounding says. */
    double *real = r.values[net->nnodes - 1], still[MB * CLASSES], shaken = 0;
    memcpy(still, real, sizeof still);
    const double off = distance(still, packed, MB * CLASSES);
    r.noise = 0x1p-16;
    for (int trial = 0; trial < 3; trial++) {
        int32_t noisy[MB * CLASSES];
        netref_run(&r, pixels);
        for (int i = 0; i < MB * CLASSES; i++)
            noisy[i] = (int32_t)fmax(fmin(real[i] * 65536, INT32_MAX), INT32_MIN);
        shaken = fmax(shaken, distance(still, noisy, MB * CLASSES));
    }
    if (getenv("LB_TEST_VERBOSE"))
        printf("%-60s %.5f, with noise %.5f\n", what, off, shaken);
    if (!(off < 0.05 + 3 * shaken))
        fail_msg("%s: scores are %.4f of their spread away from real arithmetic, whose noise makes %.4f", what, off, shaken);
    total[0] += off;
    total[1] += shaken;
    netref_destroy(&r);
    free(pixels);
    lb_net_destroy(net);
}

static void random_networks(void **state) {
    const family *f = *state;
    lb_ctx *ctx = test_ctx();
    double total[2] = {0};
    const double runs = LB_COUNT(schemes) * LB_COUNT(edges);
    uint32_t seed = 12345;
    for (size_t s = 0; s < LB_COUNT(schemes); s++)
        for (size_t e = 0; e < LB_COUNT(edges); e++)
            check(ctx, f, &schemes[s], edges[e], netref_bits(&seed), total);
    if (getenv("LB_TEST_VERBOSE"))
        printf("%s: mean %.5f, with noise %.5f\n", f->name, total[0] / runs, total[1] / runs);
    if (!(total[0] < total[1] + 0.003 * runs))
        fail_msg("%s: on average, scores are %.4f of their spread away from real arithmetic, whose noise makes %.4f", f->name,
                 total[0] / runs, total[1] / runs);
    lb_ctx_destroy(ctx);
}

int main(void) {
    struct CMUnitTest tests[LB_COUNT(families) + 1];
    char names[LB_COUNT(tests)][64];
    for (size_t i = 0; i < LB_COUNT(tests); i++) {
        union {
            const family *from;
            void *to;
        } f = {i < LB_COUNT(families) ? &families[i] : &mixed};
        family_name(f.from, names[i]);
        tests[i] = (struct CMUnitTest){.name = names[i], .test_func = random_networks, .initial_state = f.to};
    }
    return _cmocka_run_group_tests("verify_random", tests, LB_COUNT(tests), NULL, NULL);
}

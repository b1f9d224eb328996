/* Scores that 32 bits cannot hold: what the last layer allows is known when a model is packed and said then, and evaluation counts
 * what was cut off. */
#include <math.h>

#include "deploy/packed.h"
#include "lowbit/lowbit_rt.h"
#include "paths.h"
#include "recipe/recipe.h"
#include "train/accuracy.h"

enum { SIDE = 5, CLASSES = 3, PIXELS = SIDE * SIDE, IMAGES = 2 * CLASSES };
static const float mean[4] = {0.5f}, std[4] = {0.5f}; /* pixels become -1 .. 1 */

typedef struct quantizers {
    const char *weights, *activations, *edges;
    bool known; /* something bounds the scores */
} quantizers;

static const quantizers kinds[] = {
    {"uniform", "dorefa", "same", true},  /* an integer layer, its bias in fixed point */
    {"none", "dorefa", "same", true},     /* float weights on codes */
    {"uniform", "none", "same", false},   /* codes as weights of a float layer, whose source is any float */
    {"none", "none", "float", false},
};

/* A linear layer on the image; its weights are whole numbers of -9 .. 9 times `unit`. */
static lb_net *linear_net(lb_ctx *ctx, const quantizers *q, float unit) {
    lb_net *net;
    lb_recipe *recipe;
    assert_ok(ctx, lb_net_create(ctx, "linear", SIDE, SIDE, 1, &net));
    const int clip = lb_net_clip(net, lb_net_input(net), "clip", -1, 1);
    lb_net_linear(net, lb_net_flatten(net, clip, NULL), "fc", CLASSES, true);
    assert_ok(ctx, lb_net_finish(net));
    const lb_node *fc = &net->nodes[lb_net_find(net, "fc")];
    float *weights = lb_param_values(net, fc->param[0]), *bias = lb_param_values(net, fc->param[1]);
    for (int i = 0; i < CLASSES * PIXELS; i++)
        weights[i] = unit * (float)(i * 7 % 19 - 9);
    for (int c = 0; c < CLASSES; c++)
        bias[c] = unit * (float)(c - 1);

    assert_ok(ctx, lb_recipe_create(ctx, &recipe));
    const struct {
        const char *key, *value;
    } settings[] = {{"quant.weights.method", q->weights}, {"quant.activations.method", q->activations},
                    {"quant.weights.bits", "8"},          {"quant.activations.bits", "8"},
                    {"quant.edges.first", q->edges},      {"quant.edges.last", q->edges}};
    for (size_t i = 0; i < LB_COUNT(settings); i++)
        assert_ok(ctx, lb_recipe_set(recipe, settings[i].key, settings[i].value));
    assert_ok(ctx, lb_net_quantize(net, &recipe->stages[0]));
    lb_recipe_destroy(recipe);
    return net;
}

/* The image that makes class c's score largest, or least. */
static void extreme_image(const lb_net *net, int c, bool least, uint8_t *pixels) {
    const float *weights = lb_param_values(net, net->nodes[lb_net_find(net, "fc")].param[0]) + c * PIXELS;
    for (int i = 0; i < PIXELS; i++)
        pixels[i] = (weights[i] > 0) != least ? 255 : 0;
}

static void bounds(void **state) {
    (void)state;
    static const float units[] = {0.01f, 1, 100, 250, 1000, 1e5f};
    int allowed = 0, cut = 0;
    for (size_t k = 0; k < LB_COUNT(kinds); k++)
        for (size_t u = 0; u < LB_COUNT(units); u++) {
            test_log log;
            lb_ctx *ctx = test_ctx_logging(&log);
            lb_net *net = linear_net(ctx, &kinds[k], units[u]);
            lb_lowered *lowered;
            assert_ok(ctx, lb_lower(ctx, net, mean, std, NULL, &lowered));
            const double bound = lb_score_bound(&lowered->graph);
            lb_lowered_destroy(lowered);
            assert_int_equal(isnan(bound), !kinds[k].known);

            /* The images that come nearest to it. */
            uint8_t pixels[IMAGES * PIXELS];
            int32_t scores[IMAGES * CLASSES], labels[IMAGES] = {0};
            for (int c = 0; c < CLASSES; c++)
                for (int least = 0; least < 2; least++)
                    extreme_image(net, c, least, pixels + (2 * c + least) * PIXELS);
            run_packed(ctx, net, mean, std, pixels, IMAGES, scores);
            double reached = 0;
            bool is_cut = false;
            for (int i = 0; i < IMAGES * CLASSES; i++) {
                reached = fmax(reached, fabs((double)scores[i] / LBRT_SCORE_ONE));
                is_cut |= scores[i] == INT32_MAX || scores[i] == INT32_MIN;
            }
            if (bound <= LBRT_SCORE_LIMIT) {
                assert_true(!is_cut && reached <= bound * (1 + 1e-6) && reached > 0.98 * bound);
                allowed++;
            } else if (bound > 1.02 * LBRT_SCORE_LIMIT) {
                assert_true(is_cut);
                cut++;
            }

            log.nwarnings = 0;
            unsigned char *file;
            size_t size;
            assert_ok(ctx, lb_pack_net(ctx, net, mean, std, NULL, NULL, 0, &file, &size));
            lb_free(ctx, file);
            assert_int_equal(log.nwarnings, bound > LBRT_SCORE_LIMIT);
            if (log.nwarnings > 0)
                test_contains(log.warnings, "fc: its weights allow scores of up to");

            log.nwarnings = 0;
            lb_score_sums sums = {0};
            lb_scores_add(&sums, scores, labels, IMAGES, CLASSES);
            assert_int_equal(lb_scores_warn(ctx, net->name, &sums), is_cut);
            assert_int_equal(log.nwarnings, is_cut);
            if (is_cut)
                test_contains(log.warnings, " of 6 images are cut off at +-32768");
            lb_net_destroy(net);
            lb_ctx_destroy(ctx);
        }
    assert_true(allowed >= 6 && cut >= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Measuring training: what a profile counts is what the network does, and its times add up to the step. */
#include "runs.h"

#include <math.h>

#include "lowbit/lowbit.h"

enum { MB = 16, STEPS = 5 };

#define SMALL(model)                                                                                          \
    "model: {name: " model ", width: 0.5}\n"                                                                  \
    "data: {name: fashion-mnist, path: " DATA ", train_limit: 64, test_limit: 40}\n"                          \
    "train: {batch: 16, eval_batch: 16, precision: f32}\n"                                                    \
    "quant: {weights: {method: dorefa, bits: 2}, activations: {method: lsq, bits: 2}}\n"

static const lb_profile_row *row_named(const lb_profile *profile, const char *name, const char *op) {
    for (int i = 0; i < profile->nrows; i++)
        if (!strcmp(profile->rows[i].name, name) && !strcmp(profile->rows[i].op, op))
            return &profile->rows[i];
    fail_msg("no row %s (%s)", name, op);
    return NULL;
}

/* A 3x3 convolution of 8 to 8 channels on 28 x 28 images: arithmetic and tensors. */
static void check_conv(const lb_profile *profile) {
    const double image = 28.0 * 28 * 8 * 4, weights = 8 * 8 * 9 * 4, flops = 2.0 * MB * 28 * 28 * 8 * 8 * 9;
    const lb_profile_row *row = row_named(profile, "layer1.0.conv1", "conv");
    assert_string_equal(row->dst, "28x28x8");
    for (int pass = 0; pass < LB_PASSES; pass++) {
        assert_true(row->pass[pass].ms > 0);
        assert_true(row->pass[pass].flops == flops);
        assert_true(row->pass[pass].bytes == MB * 2 * image + weights);
    }
    assert_true(lb_profile_bound(profile, &row->pass[0]) >= 1e3 * flops / profile->flops_per_s * 0.999);
}

/* Statistics, then the normalisation with the residual; backward: dz from two consumers' gradients, the shortcut's dx. */
static void check_norm(const lb_profile *profile) {
    const double size = MB * 28.0 * 28 * 8 * 4;
    const lb_profile_row *row = row_named(profile, "layer1.0.relu", "norm");
    assert_true(row->pass[LB_PASS_FORWARD].bytes == 4 * size);
    assert_true(row->pass[LB_PASS_BACKWARD_DATA].bytes == (2 + 2 + 1 + 3) * size);
    assert_true(row->pass[LB_PASS_BACKWARD_WEIGHTS].ms == 0 && row->pass[LB_PASS_FORWARD].flops == 0);
}

static void test_profile(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_recipe *recipe = recipe_of(ctx, SMALL("resnet20"));
    lb_trainer *trainer;
    lb_speed speed;
    lb_profile profile;
    trainer = trainer_of(ctx, recipe);
    assert_int_equal(lb_trainer_profile(trainer, 0, &speed, &profile), LB_ERR_ARGUMENT);
    assert_null(profile.rows);
    assert_ok(ctx, lb_trainer_profile(trainer, STEPS, &speed, &profile));
    assert_true(profile.flops_per_s > 1e8 && profile.bytes_per_s > 1e8);
    assert_true(speed.eval_images_per_s > 0 && speed.eval_cpu_ms > 0 && speed.start_s > 0 && speed.peak_rss_mb > 1);
    assert_true(fabs(speed.images_per_s * speed.step_ms / 1e3 - MB) < 1e-6);
    check_conv(&profile);
    check_norm(&profile);
    const lb_profile_row *first = row_named(&profile, "conv1", "conv");
    assert_true(first->pass[LB_PASS_BACKWARD_DATA].ms == 0); /* nobody wants the gradient of the images */
    assert_true(first->pass[LB_PASS_BACKWARD_WEIGHTS].ms > 0);
    double sum = 0;
    for (int i = 0; i < profile.nrows; i++)
        for (int pass = 0; pass < LB_PASSES; pass++) {
            assert_true(profile.rows[i].pass[pass].ms >= 0);
            sum += i ? profile.rows[i].pass[pass].ms : 0; /* data: a median, which may be far from the least */
        }
    assert_true(sum <= speed.step_ms); /* least times */
    assert_true(sum > 0.02 * speed.step_ms);
    lb_profile_free(&profile);
    lb_profile_free(&profile); /* harmless */
    assert_ok(ctx, lb_trainer_bench(trainer, 1, &speed)); /* and without a stopwatch again */
    destroy_all(ctx, recipe, trainer);
}

static void test_out_of_memory(void **state) {
    (void)state;
    for (long short_of = 1; short_of < 40; short_of += 6) {
        test_allocator a = {.left = 1 << 30};
        lb_ctx *ctx = test_ctx_with(&a);
        lb_recipe *recipe = recipe_of(ctx, SMALL("lenet5"));
        lb_trainer *trainer;
        lb_speed speed;
        lb_profile profile;
        trainer = trainer_of(ctx, recipe);
        const long before = a.left;
        assert_ok(ctx, lb_trainer_profile(trainer, 1, &speed, &profile));
        const long used = before - a.left;
        lb_profile_free(&profile);
        a.left = used > short_of ? used - short_of : 0;
        lb_status status = lb_trainer_profile(trainer, 1, &speed, &profile);
        assert_true(status == LB_ERR_MEMORY || status == LB_OK); /* the evaluator was made the first time */
        if (status)
            assert_null(profile.rows);
        lb_profile_free(&profile);
        a.left = 1 << 30;
        destroy_all(ctx, recipe, trainer);
        assert_int_equal(a.alive, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_out_of_memory),
    };
    return have_data() ? cmocka_run_group_tests(tests, NULL, NULL) : SKIP_ALL;
}

/* lb_tanh against the C library in double. */
#include <math.h>

#include "quant/tanh.h"
#include "support.h"

static void accurate(void **state) {
    double worst = 0;
    (void)state;
    for (uint32_t bits = 0; bits < 0x7f800000u; bits += 4001) { /* floats of every size, 0 and denormals too */
        float x;
        memcpy(&x, &bits, sizeof x);
        double t = tanh((double)x), error = fabs((double)lb_tanh(x) - t);
        if (t > 0 && bits >= 0x00800000u)
            worst = fmax(worst, error / t);
        else
            assert_true(error <= 0x1p-148);
        assert_true(lb_tanh(-x) == -lb_tanh(x));
        assert_true(lb_tanh(x) <= 1.f);
    }
    print_message("worst relative error %.3g\n", worst);
    assert_true(worst < 3e-7);
}

static void special(void **state) {
    (void)state;
    assert_true(isnan(lb_tanh(NAN)));
    assert_true(lb_tanh(INFINITY) == 1.f && lb_tanh(-INFINITY) == -1.f);
    assert_true(lb_tanh(0.f) == 0.f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(accurate), cmocka_unit_test(special)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

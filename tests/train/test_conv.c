/* Convolutions as training runs them, whoever does which pass: oneDNN, Winograd, matrix tiles. */
#include "convs.h"

/* Where each of them may be chosen, and next to it: strides, groups, gaps, channels that are no multiples of 16. */
static const lb_conv_dims shapes[] = {
    {.mb = 3, .ih = 7, .iw = 6, .ic = 16, .oc = 32, .kh = 3},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 32, .oc = 16, .kh = 3, .sh = 2},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 16, .oc = 16, .kh = 3, .sh = 1, .sw = 2},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 16, .oc = 16, .kh = 3, .groups = 2},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 32, .oc = 32, .kh = 3, .groups = 32},
    {.mb = 2, .ih = 5, .iw = 6, .ic = 16, .oc = 16, .kh = 5, .kw = 3},
    {.mb = 3, .ih = 5, .iw = 4, .ic = 48, .oc = 16, .kh = 1},
    {.mb = 2, .ih = 11, .iw = 12, .ic = 3, .oc = 16, .kh = 3},
    {.mb = 2, .ih = 6, .iw = 7, .ic = 24, .oc = 40, .kh = 3},
    {.mb = 5, .ih = 1, .iw = 1, .ic = 70, .oc = 10, .kh = 1, .linear = true},
    {.mb = 3, .ih = 9, .iw = 8, .ic = 16, .oc = 32, .kh = 3, .gap_h = 1, .gap_w = 1},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 16, .oc = 16, .kh = 3, .gap_h = 1},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 16, .oc = 16, .kh = 3, .gap_w = 1},
    {.mb = 2, .ih = 11, .iw = 10, .ic = 32, .oc = 48, .kh = 3, .gap_h = 2, .gap_w = 2},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 32, .oc = 16, .kh = 3, .sh = 2, .gap_h = 1, .gap_w = 1},
    {.mb = 2, .ih = 9, .iw = 8, .ic = 32, .oc = 32, .kh = 3, .groups = 32, .gap_h = 1, .gap_w = 1},
};

static void test_passes(void **state) {
    (void)state;
    check_convs(shapes, LB_COUNT(shapes));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_passes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

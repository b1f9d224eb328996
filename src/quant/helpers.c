/* Loops shared by the quantizers. */
#include "quant/helpers.h"

LB_CLONES double lb_sum(const float *u, int64_t count) {
    double lane[LB_LANES] = {0};
    int64_t i = 0;
    for (; i + LB_LANES <= count; i += LB_LANES)
        for (int j = 0; j < LB_LANES; j++)
            lane[j] += (double)u[i + j];
    for (int j = 0; i < count; i++, j++)
        lane[j] += (double)u[i];
    return lb_fold(lane);
}

LB_CLONES double lb_mean_abs(const float *u, int64_t count) {
    double lane[LB_LANES] = {0};
    int64_t i = 0;
    for (; i + LB_LANES <= count; i += LB_LANES)
        for (int j = 0; j < LB_LANES; j++)
            lane[j] += (double)fabsf(lb_finite(u[i + j]));
    for (int j = 0; i < count; i++, j++)
        lane[j] += (double)fabsf(lb_finite(u[i]));
    return count > 0 ? lb_fold(lane) / (double)count : 0.0;
}

/* The bits of positive floats order as they do, and compilers vectorise a maximum of integers. */
LB_CLONES float lb_max_abs(const float *u, int64_t count) {
    uint32_t max = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &u[i], sizeof bits);
        bits &= 0x7fffffffu;
        bits &= -(uint32_t)(bits < 0x7f800000u); /* neither infinity nor NaN */
        max = LB_MAX(max, bits);
    }
    float largest;
    memcpy(&largest, &max, sizeof largest);
    return largest;
}

LB_CLONES void lb_sign_codes(const float *u, int64_t count, float *code) {
    for (int64_t i = 0; i < count; i++)
        code[i] = u[i] >= 0.f ? 1.f : -1.f;
}

LB_CLONES void lb_round_codes(const float *u, int64_t count, float step, float lo, float hi, float *code) {
    const float inv = 1.f / step;
    for (int64_t i = 0; i < count; i++)
        code[i] = lb_round_clip(u[i] * inv, lo, hi);
}

void lb_even_codes(const float *u, int64_t count, float step, const lb_grid *grid, float *code) {
    if (grid->mul == 2)
        lb_sign_codes(u, count, code);
    else
        lb_round_codes(u, count, step, (float)grid->lo, (float)grid->hi, code);
}

LB_CLONES void lb_backward_ste(int64_t count, const float *diff, float *diff_u) {
    for (int64_t i = 0; i < count; i++)
        diff_u[i] += diff[i];
}

LB_CLONES void lb_backward_clipped(const float *u, int64_t count, float lo, float hi, const float *diff, float *diff_u) {
    for (int64_t i = 0; i < count; i++) {
        const float v = u[i], d = diff[i]; /* read whatever happens, or gcc does not vectorise */
        diff_u[i] += ((v >= lo) & (v <= hi)) ? d : 0.f;
    }
}

void lb_backward_plain(lb_estimator estimator, const float *u, int64_t count, const float *diff, float *diff_u) {
    if (estimator == LB_EST_CLIPPED)
        lb_backward_clipped(u, count, -1.f, 1.f, diff, diff_u);
    else
        lb_backward_ste(count, diff, diff_u);
}

void lb_grid_signed(int bits, lb_grid *grid) {
    const int half = 1 << (bits - 1);
    if (bits == 1)
        lb_grid_odd(1, grid);
    else
        *grid = (lb_grid){.bits = bits, .lo = -half, .hi = half - 1, .mul = 1, .add = -half};
}

void lb_grid_unsigned(int bits, lb_grid *grid) { *grid = (lb_grid){.bits = bits, .hi = (1 << bits) - 1, .mul = 1}; }

void lb_grid_odd(int bits, lb_grid *grid) {
    const int n = (1 << bits) - 1;
    *grid = (lb_grid){.bits = bits, .lo = -n, .hi = n, .mul = 2, .add = -n};
}

void lb_grid_of_sign(const lb_quant_spec *spec, lb_grid *grid) {
    (void)spec;
    lb_grid_signed(1, grid);
}

void lb_grid_of_even(const lb_quant_spec *spec, lb_grid *grid) {
    if (spec->target == LB_ACTIVATIONS && !spec->is_signed)
        lb_grid_unsigned(spec->bits, grid);
    else
        lb_grid_signed(spec->bits, grid);
}

void lb_form_of_sign(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *form) {
    (void)spec, (void)when, (void)param;
    form->step = 1.f;
    form->lo = -1.f, form->hi = 1.f;
    form->sign = true;
    form->pass_lo = -1.f, form->pass_hi = 1.f;
}

void lb_form_of_even(const lb_quant_spec *spec, float step, lb_act_form *f) {
    lb_grid range;
    lb_grid_of_even(spec, &range);
    f->step = step;
    f->lo = (float)range.lo, f->hi = (float)range.hi;
    f->sign = range.mul == 2;
    f->pass_lo = step * f->lo, f->pass_hi = step * f->hi;
}

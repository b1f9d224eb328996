/* What quantizers share: bounded steps, statistics, rounding, and the two plain estimators. Internal to src/quant.
 *
 * Statistics take finite values only: NaN and infinities count as 0, so a step is always positive and finite (and a wrong weight
 * shows as itself, not as a ruined layer). Sums run in eight lanes of double: vectorised, and the same whatever the compiler. */
#ifndef LB_QUANT_HELPERS_H
#define LB_QUANT_HELPERS_H

#include <float.h>
#include <math.h>

#include "quant/quant.h"
#include "quant/rint.h"

#define LB_LANES 8
#define LB_BLOCK 512 /* elements a loop works on at a time where it needs room for intermediate values */

/* Steps stay in 2^-100 .. 2^100, so that a step, its reciprocal and products with codes are normal floats. NaN: the smallest. */
static inline float lb_step_bound(double step) { return step > 0x1p-100 ? (float)(step < 0x1p100 ? step : 0x1p100) : 0x1p-100f; }

/* Learned steps and clips get a floor where training cannot run u / step into the sky. */
static inline float lb_learned_bound(float value) { return value > 1e-8f ? lb_step_bound((double)value) : 1e-8f; }

static inline float lb_finite(float u) { return fabsf(u) <= FLT_MAX ? u : 0.f; }

static inline double lb_fold(const double lane[LB_LANES]) {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Groups share one step: the tensor, or each filter. */
typedef struct lb_groups {
    int count, filters; /* groups, and filters in each */
    int64_t size; /* elements of one */
} lb_groups;

static inline lb_groups lb_quant_groups(const lb_quant_spec *spec, int oc, int64_t fan_in) {
    return spec->options.per == LB_PER_FILTER ? (lb_groups){oc, 1, fan_in} : (lb_groups){1, oc, oc * fan_in};
}

/* Writes group g's step for each of its filters. */
static inline void lb_step_fill(const lb_groups *groups, int g, float value, float *step) {
    for (int i = 0; i < groups->filters; i++)
        step[g * groups->filters + i] = value;
}

double lb_sum(const float *u, int64_t count); /* of all values, finite or not */
double lb_mean_abs(const float *u, int64_t count);
float lb_max_abs(const float *u, int64_t count);

void lb_sign_codes(const float *u, int64_t count, float *code); /* sign(0) = +1, NaN -1 */
void lb_round_codes(const float *u, int64_t count, float step, float lo, float hi, float *code); /* clip(rint(u / step), lo, hi) */
void lb_even_codes(const float *u, int64_t count, float step, const lb_grid *grid, float *code);

/* diff_u += diff, everywhere, where lo <= u <= hi, or as the estimator (ste; clipped with range -1 .. 1) says. */
void lb_backward_ste(int64_t count, const float *diff, float *diff_u);
void lb_backward_clipped(const float *u, int64_t count, float lo, float hi, const float *diff, float *diff_u);
void lb_backward_plain(lb_estimator estimator, const float *u, int64_t count, const float *diff, float *diff_u);

/* The step of least |u - step * clip(rint(u / step), lo, hi)|^2 that alternation finds (uniform.c). */
float lb_step_l2(const float *u, int64_t count, float lo, float hi);

/* lo and hi codes and storage of b-bit two's-complement and unsigned grids; one signed bit is {-1, +1}. */
void lb_grid_signed(int bits, lb_grid *grid);
void lb_grid_unsigned(int bits, lb_grid *grid);
void lb_grid_odd(int bits, lb_grid *grid); /* odd numbers -n..n, n = 2^bits - 1 */

/* The rows' shared functions. */
void lb_grid_of_sign(const lb_quant_spec *spec, lb_grid *grid);
void lb_grid_of_even(const lb_quant_spec *spec, lb_grid *grid); /* signed, or unsigned where the spec is of unsigned activations */
void lb_form_of_sign(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, lb_act_form *form);

/* Form of even levels (lsq, uniform) at a step: codes, sign, and the pass range step * lo .. step * hi. */
void lb_form_of_even(const lb_quant_spec *spec, float step, lb_act_form *form);

#endif

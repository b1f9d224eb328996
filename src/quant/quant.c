/* The equation (quant.h), and what a spec may be. */
#include <stdio.h>

#include "quant/gates.h"
#include "quant/helpers.h"

const lb_quant_when lb_quant_evaluation = {.evaluation = true};

/* ---- Specs ----------------------------------------------------------------------------------------------------- */

int lb_quant_nparams(const lb_quant_spec *spec) {
    if (spec->target == LB_WEIGHTS && !spec->quantizer->weight_params)
        return 0;
    return spec->quantizer->nparams + (lb_has_gates(spec) ? spec->bits - (LB_GATE_FIRST - 1) : 0);
}

const char *lb_quant_param_name(const lb_quant_spec *spec, int i) {
    static const char *const gates[] = {"gate3", "gate4", "gate5", "gate6", "gate7", "gate8"};
    return i < spec->quantizer->nparams ? spec->quantizer->param_names[i] : gates[i - spec->quantizer->nparams];
}

void lb_quant_update_grid(lb_quant *q, const float *param) {
    if (!lb_has_gates(&q->spec))
        return;
    lb_quant_spec spec = q->spec;
    spec.bits = lb_gates_bits(&q->spec, param + q->spec.quantizer->nparams);
    spec.quantizer->grid(&spec, &q->grid);
}

static void fill_defaults(lb_quant_spec *spec) {
    const lb_quantizer *q = spec->quantizer;
    const bool weights = spec->target == LB_WEIGHTS;
    lb_quant_options *o = &spec->options;
    if (!spec->mixer) {
        spec->mixer = &lb_mixer_constant;
        o->mix = 1.f;
    }
    if (o->per == LB_PER_DEFAULT)
        o->per = weights ? q->granularity : LB_PER_TENSOR;
    if (o->estimator == LB_EST_DEFAULT)
        o->estimator = spec->mixer->ste_free ? LB_EST_NONE : lb_quantizer_estimator(q, spec->target);
    if (o->surrogate == LB_SUR_DEFAULT)
        o->surrogate = weights ? q->surrogate_weights : q->surrogate_activations;
    if (o->surrogate == LB_SUR_DEFAULT)
        o->surrogate = spec->is_signed ? LB_SUR_IDENTITY : LB_SUR_RELU;
    if (o->threshold == 0.f)
        o->threshold = 0.7f;
    if (o->temperature == 0.f)
        o->temperature = 1.f;
    if (o->mix_refresh == 0)
        o->mix_refresh = 100;
}

static lb_status check_bit_lengths(lb_ctx *ctx, const char *what, const lb_quant_spec *spec) {
    const lb_quant_options *o = &spec->options;
    const bool learned = o->bit_lengths == LB_BITS_LEARNED;
    if (o->bit_lengths == LB_BITS_FIXED)
        return LB_OK;
    const bool drops = o->drop_top > 0 || o->drop_lower > 0, penalty = o->bits_penalty >= 0 && o->bits_penalty < INFINITY;
    const char *why = spec->target == LB_ACTIVATIONS              ? "activations have none; only weights"
                      : !spec->quantizer->learns_bits             ? "only cpq learns them"
                      : o->per == LB_PER_FILTER                   ? "they are of whole layers, so per: tensor is needed"
                      : learned && spec->bits < LB_GATE_FIRST     ? "2 is the least, so bits must be 3 or more"
                      : learned && o->cpq_backward == LB_CPQ_MODE ? "gates need cpq_backward: expect"
                      : learned && drops                          ? "gates drop levels, so drop_top and drop_lower must be 0"
                      : !penalty                                  ? "bits_penalty must be 0 or more"
                                                                  : NULL;
    return why ? lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: learned bit-lengths: %s", what, why) : LB_OK;
}

static bool has_target(const lb_quantizer *q, lb_target target) { return target == LB_WEIGHTS ? q->weights : q->activations; }

static void append_name(char names[200], const char *name) {
    const size_t used = strlen(names);
    snprintf(names + used, 200 - used, "%s%s", used ? ", " : "", name);
}

/* The quantizer is for the other target only: names those for this one. */
static lb_status fail_target(lb_ctx *ctx, const char *what, const lb_quant_spec *spec) {
    char names[200] = "";
    size_t count;
    const lb_quantizer *const *list = lb_quantizer_list(&count);
    for (size_t i = 0; i < count; i++)
        if (has_target(list[i], spec->target))
            append_name(names, list[i]->name);
    return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: %s does not quantize %s; %s do (see lowbit list methods)", what,
                   spec->quantizer->name, spec->target == LB_WEIGHTS ? "weights" : "activations", names);
}

/* The mixer has no m for activations: names those that have. */
static lb_status fail_mixer(lb_ctx *ctx, const char *what, const lb_quant_spec *spec) {
    char names[200] = "";
    size_t count;
    const lb_mixer *const *list = lb_mixer_list(&count);
    for (size_t i = 0; i < count; i++)
        if (list[i]->activations)
            append_name(names, list[i]->name);
    return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: mixer %s chooses among weights; activations can have %s", what, spec->mixer->name,
                   names);
}

lb_status lb_quant_resolve(lb_ctx *ctx, const char *what, lb_quant_spec *spec, lb_grid *grid) {
    const lb_quantizer *q = spec->quantizer;
    if (!q)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "%s: no quantizer given", what);
    const bool weights = spec->target == LB_WEIGHTS;
    const char *target = weights ? "weights" : "activations";
    if (!has_target(q, spec->target))
        return fail_target(ctx, what, spec);
    if (spec->bits < q->min_bits || spec->bits > q->max_bits) {
        if (q->min_bits == q->max_bits)
            return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: %s has %d bit%s, not %d; set bits to %d", what, q->name,
                           q->min_bits, q->min_bits > 1 ? "s" : "", spec->bits, q->min_bits);
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: %s has %d to %d bits, not %d", what, q->name, q->min_bits, q->max_bits,
                       spec->bits);
    }
    fill_defaults(spec);
    const lb_quant_options *o = &spec->options;
    if (!weights && o->per == LB_PER_FILTER)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: activations have one step per tensor; 'per: filter' is for weights", what);
    if (o->estimator == LB_EST_OWN && (weights ? q->estimator : q->estimator_activations) != LB_EST_OWN)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: %s has no estimator of its own for %s; use ste, clipped or none", what,
                       q->name, target);
    if (o->estimator == LB_EST_CLIPPED && weights && spec->bits > 1 && q->no_clipped)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: estimator clipped with %s: %s", what, q->name, q->no_clipped);
    if (!(o->threshold > 0.f && o->threshold < INFINITY))
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: threshold must be positive, not %g", what, (double)o->threshold);
    if (!(o->mix >= 0.f && o->mix <= 1.f))
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: mix must be from 0 to 1, not %g", what, (double)o->mix);
    if (!(o->temperature >= 0.01f && o->temperature < INFINITY))
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: temperature must be at least 0.01, not %g", what, (double)o->temperature);
    if (!(o->drop_top >= 0.f && o->drop_top < 1.f && o->drop_lower >= 0.f && o->drop_lower < 1.f))
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: drop_top and drop_lower must be from 0 to below 1, not %g and %g", what,
                       (double)o->drop_top, (double)o->drop_lower);
    LB_TRY(check_bit_lengths(ctx, what, spec));
    if (o->mix_refresh < 1 || o->mix_refresh > LB_MAX_REFRESH)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: mix_refresh must be from 1 to %d steps, not %d", what, LB_MAX_REFRESH,
                       o->mix_refresh);
    if (!(o->mix_settle >= 0.f && o->mix_settle < 1.f))
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: mix_settle must be from 0 to below 1, not %g", what, (double)o->mix_settle);
    if (spec->features < 0)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "%s: %lld features", what, (long long)spec->features);
    if (!weights && !spec->mixer->activations)
        return fail_mixer(ctx, what, spec);
    const char *reason = spec->mixer->refuse ? spec->mixer->refuse(spec) : NULL;
    if (reason)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: mixer %s: %s", what, spec->mixer->name, reason);
    q->grid(spec, grid);
    return LB_OK;
}

/* s(u) = clip(u, lo, hi), s'(u) = 1[lo < u < hi]. */
static void surrogate_range(lb_surrogate s, float *lo, float *hi) {
    *lo = s == LB_SUR_HARDTANH ? -1.f : s == LB_SUR_CLIP01 || s == LB_SUR_RELU ? 0.f : -INFINITY;
    *hi = s == LB_SUR_HARDTANH || s == LB_SUR_CLIP01 ? 1.f : INFINITY;
}

static inline float clip(float u, float lo, float hi) { return u < lo ? lo : u > hi ? hi : u; } /* NaN stays */

/* ---- Weights --------------------------------------------------------------------------------------------------- */

/* m = 1 must give exactly the code, whatever s(u) / step is (it may be infinite or NaN). */
static inline float mix(float m, float su, float inv, float code) { return m == 1.f ? code : (1.f - m) * su * inv + m * code; }

/* u^ of one filter, in the place of its codes; by m, one for each, or by `same` where that is NULL. */
LB_CLONES static void mix_filter(const float *restrict u, const float *restrict m, float same, int64_t count, float lo, float hi,
                                 float inv, float *restrict uhat) {
    if (m)
        for (int64_t i = 0; i < count; i++)
            uhat[i] = mix(m[i], clip(u[i], lo, hi), inv, uhat[i]);
    else
        for (int64_t i = 0; i < count; i++)
            uhat[i] = mix(same, clip(u[i], lo, hi), inv, uhat[i]);
}

/* Adds what the surrogate hands on to diff_u; m * diff into m, which is `same` everywhere if it is not given as one for each. */
LB_CLONES static void part_gradient(const float *restrict u, const float *restrict diff, bool each, float same, int64_t count,
                                    float lo, float hi, float *restrict m, float *restrict diff_u) {
    for (int64_t i = 0; i < count; i++) {
        const float mi = each ? m[i] : same, v = u[i], d = diff[i];
        diff_u[i] += ((v > lo) & (v < hi)) ? (1.f - mi) * d : 0.f;
        m[i] = mi * d;
    }
}

lb_estimator lb_quantizer_estimator(const lb_quantizer *quantizer, lb_target target) {
    return target == LB_WEIGHTS ? quantizer->estimator : quantizer->estimator_activations;
}

bool lb_quant_is_always_whole(const lb_quant_spec *spec) {
    return spec->mixer->share(spec, &(lb_quant_when){.stage_step = 0, .stage_steps = INT32_MAX}) >= 1.f;
}

void lb_quant_weights_forward(const lb_quant *q, const lb_quant_when *when, const float *param, const lb_weights *w, float *step,
                              float *uhat, float *work) {
    const lb_quant_spec *spec = &q->spec;
    spec->quantizer->forward(spec, when, param, w, step, uhat);
    if (when->evaluation)
        return;
    const lb_weights coded = {w->u, w->oc, w->fan_in, step, uhat};
    const int64_t fan_in = w->fan_in;
    float scalar = 1.f, lo, hi;
    const bool same = spec->mixer->weights(spec, when, &coded, &scalar, work);
    if (same && scalar == 1.f)
        return;
    surrogate_range(spec->options.surrogate, &lo, &hi);
    for (int o = 0; o < w->oc; o++)
        mix_filter(w->u + o * fan_in, same ? NULL : work + o * fan_in, scalar, fan_in, lo, hi, 1.f / step[o], uhat + o * fan_in);
}

/* m = 1's part, diff already multiplied by m. */
static void backward_quantized(const lb_quant_spec *spec, const lb_quant_when *when, const float *param, const lb_weights *w,
                               const float *diff, float *diff_u, float *diff_param) {
    const lb_quantizer *q = spec->quantizer;
    if (spec->options.estimator == LB_EST_NONE)
        diff_u = NULL;
    if (!lb_quant_nparams(spec))
        diff_param = NULL;
    if (!diff_u && !diff_param)
        return;
    if (q->backward)
        q->backward(spec, when, param, w, diff, diff_u, diff_param);
    else
        lb_backward_plain(spec->options.estimator, w->u, w->oc * w->fan_in, diff, diff_u);
}

void lb_quant_weights_backward(const lb_quant *q, const lb_quant_when *when, const float *param, const lb_weights *w,
                               const float *diff, float *diff_u, float *diff_param, float *work) {
    const lb_quant_spec *spec = &q->spec;
    const int64_t count = w->oc * w->fan_in;
    float *code = NULL, *m = work + count, scalar = 1.f, lo, hi;
    if (spec->quantizer->backward_uses_code || spec->mixer->uses_code) {
        code = work;
        spec->quantizer->forward(spec, when, param, w, m, code); /* m has room for the steps: they are w->step again */
    }
    if (spec->options.bit_lengths == LB_BITS_LEARNED && diff_param)
        lb_gates_penalty(spec, param + spec->quantizer->nparams, diff_param + spec->quantizer->nparams);
    const lb_weights coded = {w->u, w->oc, w->fan_in, w->step, code};
    const bool same = spec->mixer->weights(spec, when, &coded, &scalar, m);
    if (same && scalar == 1.f) {
        backward_quantized(spec, when, param, &coded, diff, diff_u, diff_param);
        return;
    }
    surrogate_range(spec->options.surrogate, &lo, &hi);
    part_gradient(w->u, diff, !same, scalar, count, lo, hi, m, diff_u);
    backward_quantized(spec, when, param, &coded, m, diff_u, diff_param);
}

/* ---- Activations ----------------------------------------------------------------------------------------------- */

void lb_quant_act_form(const lb_quant *q, const lb_quant_when *when, const float *param, lb_act_form *form) {
    const lb_quant_spec *spec = &q->spec;
    *form = (lb_act_form){.learn_scale = 1.f, .m = 1.f, .spec = spec, .when = *when};
    surrogate_range(spec->options.surrogate, &form->sur_lo, &form->sur_hi);
    spec->quantizer->form(spec, when, param, form);
    if (spec->options.estimator == LB_EST_STE)
        form->pass_lo = -INFINITY, form->pass_hi = INFINITY;
    else if (spec->options.estimator == LB_EST_NONE)
        form->pass_lo = form->pass_hi = 0.f;
    if (!when->evaluation)
        form->m = spec->mixer->activations(spec, when);
}

bool lb_quant_act_mask(const lb_quant *q, const lb_quant_when *when, int64_t count, uint8_t *mask) {
    const lb_mixer *mixer = q->spec.mixer;
    return !when->evaluation && mixer->mask && mixer->mask(&q->spec, when, count, mask);
}

static float act_code(const lb_act_form *form, float z) {
    if (form->sign)
        return z >= 0.f ? 1.f : -1.f;
    return lb_round_clip(z * (1.f / form->step), form->lo, form->hi);
}

float lb_act_forward_ref(const lb_act_form *form, float z) {
    return mix(form->m, clip(z, form->sur_lo, form->sur_hi), 1.f / form->step, act_code(form, z));
}

float lb_act_backward_ref(const lb_act_form *form, float z, float diff, float *diff_param) {
    const float code = act_code(form, z), v = z * (1.f / form->step);
    float d = 0.f, slope = z > form->pass_lo && z < form->pass_hi ? 1.f : 0.f, other = 0.f;
    if (form->soft) {
        lb_soft soft;
        form->soft(form, &z, 0, 1, &soft);
        slope = soft.slope[0], d = soft.by_step[0], other = soft.by_sigma[0];
    }
    if (form->learn == LB_LEARN_CLIP)
        d = z >= form->step * form->hi ? 1.f : 0.f;
    else if (form->learn == LB_LEARN_STEP)
        d = form->sign ? code : !(v > form->lo) ? form->lo : v < form->hi ? code - v : form->hi;
    if (diff_param)
        diff_param[0] += diff * form->m * d * form->learn_scale;
    if (diff_param && form->learn == LB_LEARN_SOFT)
        diff_param[1] += diff * form->m * other * form->learn_scale;
    const float real = z > form->sur_lo && z < form->sur_hi ? 1.f - form->m : 0.f;
    return (real + form->m * slope) * diff;
}

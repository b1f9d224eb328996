/* How the evaluator computes each convolution: the fastest way that keeps its sums exact. */
#include <math.h>

#include "train/evaluate_plan.h"

/* code = 16 * high + low, low in -8..7. */
static float high_half(float code) { return floorf((code + 8) / 16); }

/* What the weights' codes look like. */
typedef struct codes {
    bool int8;            /* all in -128..127 */
    int64_t high, low;    /* largest sum of |half| over an output channel */
} codes;

static codes look(const float *code, int oc, int64_t fan_in) {
    codes k = {.int8 = true};
    for (int o = 0; o < oc; o++) {
        int64_t high = 0, low = 0;
        for (int64_t i = 0; i < fan_in; i++) {
            const float w = code[o * fan_in + i], h = high_half(w);
            k.int8 = k.int8 && w >= -128 && w <= 127;
            high += (int64_t)fabsf(h);
            low += (int64_t)fabsf(w - 16 * h);
        }
        k.high = LB_MAX(k.high, high);
        k.low = LB_MAX(k.low, low);
    }
    return k;
}

/* Whole-number weights and sources: 8-bit, else f32, each in halves if the sums need it, else a plain loop. */
static void pick_way(lb_stage *st, const lb_numeric *x, const lb_numeric *src, const codes *k) {
    const int64_t reach = LB_MAX(-(int64_t)src->lo, (int64_t)src->hi);
    const bool bytes = lb_infer_has_int8() && st->src_type <= LB_STORED_S8;
    const int64_t int8_reach = st->src_type == LB_STORED_S8 ? LB_INFER_S8_REACH : reach;
    const bool can_halve = st->conv.groups == 1;
    st->halves = false;
    st->way = LB_WAY_INT8;
    if (bytes && k->int8 && (st->tiles || x->acc_weight * int8_reach <= LB_INFER_EXACT))
        return;
    st->tiles = NULL;
    st->halves = true;
    if (bytes && can_halve && LB_MAX(k->high, k->low) * int8_reach <= LB_INFER_EXACT)
        return;
    st->halves = false;
    st->way = LB_WAY_WHOLE;
    if (x->acc_weight * reach <= LB_INFER_EXACT)
        return;
    st->halves = true;
    if (can_halve && LB_MAX(k->high, k->low) * reach <= LB_INFER_EXACT)
        return;
    st->halves = false;
    st->way = LB_WAY_INT32;
}

static lb_infer_dims infer_dims(const lb_eval_plan *plan, const lb_stage *st) {
    const lb_conv *c = &st->conv;
    const int images = st->vector ? 1 : plan->chunk, rows = st->vector ? plan->chunk : 1;
    const lb_infer_type src = st->way != LB_WAY_INT8 ? LB_INFER_F32 : st->src_type == LB_STORED_U8 ? LB_INFER_U8 : LB_INFER_S8;
    return (lb_infer_dims){.mb = images, .ih = st->ih * rows, .iw = st->iw, .ic = st->ic, .oh = st->oh * rows, .ow = st->ow,
                           .oc = c->oc, .kh = c->kh, .kw = c->kw, .sh = c->sh, .sw = c->sw,
                           .pt = c->pt, .pl = c->pl, .pb = c->pb, .pr = c->pr,
                           .groups = c->groups, .gap_h = c->gap_h, .gap_w = c->gap_w,
                           .src = src};
}

/* All of them are bf16. */
static bool are_short(const float *weights, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &weights[i], sizeof bits);
        if (bits & 0xffff)
            return false;
    }
    return true;
}

static lb_status tiles_conv(lb_eval_plan *plan, lb_stage *st, const float *weights, int64_t fan_in) {
    const lb_infer_dims d = infer_dims(plan, st);
    const lb_sums_type floats = are_short(weights, (size_t)d.oc * (size_t)fan_in) ? LB_SUMS_F32_CODES : LB_SUMS_F32;
    const lb_sums_type type = d.src == LB_INFER_F32 ? floats : d.src == LB_INFER_U8 ? LB_SUMS_U8 : LB_SUMS_S8;
    st->sums = (lb_sums){.ih = d.ih, .iw = d.iw, .ic = d.ic, .oh = d.oh, .ow = d.ow, .oc = d.oc, .kh = d.kh, .kw = d.kw,
                         .sh = d.sh, .sw = d.sw, .pt = d.pt, .pl = d.pl, .type = type};
    st->tiles->plan(&st->sums, d.mb);
    st->sums_weights = lb_pool_alloc(&plan->memory, st->sums.weights, 1);
    if (!st->sums_weights)
        return LB_ERR_MEMORY;
    st->tiles->weights(&st->sums, weights, st->sums_weights);
    return LB_OK;
}

static lb_status infer_conv(lb_eval_plan *plan, lb_infer *infer, lb_stage *st, const float *weights, int64_t fan_in) {
    lb_ctx *ctx = plan->memory.ctx;
    const lb_conv *c = &st->conv;
    lb_infer_dims dims = infer_dims(plan, st);
    float *halves = NULL;
    if (st->halves) {
        const size_t count = (size_t)c->oc * (size_t)fan_in;
        halves = lb_alloc(ctx, count, 2 * sizeof *halves);
        if (!halves)
            return LB_ERR_MEMORY;
        for (size_t i = 0; i < count; i++) {
            halves[i] = high_half(weights[i]);
            halves[count + i] = weights[i] - 16 * halves[i];
        }
        dims.oc *= 2;
    }
    const lb_status status = lb_infer_conv_create(infer, &dims, halves ? halves : weights, &st->infer);
    lb_free(ctx, halves);
    return status;
}

static lb_status ordered_conv(lb_eval_plan *plan, lb_stage *st, const float *weights) {
    const lb_conv *c = &st->conv;
    const size_t icg = (size_t)(st->ic / c->groups), area = (size_t)c->kh * (size_t)c->kw, ocg = (size_t)(c->oc / c->groups);
    const size_t blocks = (ocg + LB_ORDERED_LANES - 1) / LB_ORDERED_LANES, inner = area * icg;
    float *packed = lb_pool_alloc(&plan->memory, (size_t)c->groups * blocks * inner, LB_ORDERED_LANES * sizeof *packed);
    if (!packed)
        return LB_ERR_MEMORY;
    for (size_t o = 0; o < (size_t)c->oc; o++) {
        const size_t g = o / ocg, in_group = o % ocg;
        float *to = packed + (g * blocks + in_group / LB_ORDERED_LANES) * inner * LB_ORDERED_LANES + in_group % LB_ORDERED_LANES;
        for (size_t k = 0; k < inner; k++)
            to[k * LB_ORDERED_LANES] = weights[o * inner + k];
    }
    st->ordered = (lb_ordered_conv){.ih = st->ih, .iw = st->iw, .ic = st->ic, .oh = st->oh, .ow = st->ow, .oc = c->oc, .kh = c->kh,
                                    .kw = c->kw, .sh = c->sh, .sw = c->sw, .pt = c->pt, .pl = c->pl, .groups = c->groups,
                                    .gap_h = c->gap_h, .gap_w = c->gap_w, .weights = packed};
    return LB_OK;
}

lb_status lb_eval_plan_conv(lb_eval_plan *plan, lb_infer *infer, lb_stage *st) {
    const lb_numerics *n = plan->numerics;
    const lb_net *net = n->net;
    const lb_node *node = &net->nodes[st->node];
    const lb_numeric *x = &n->nodes[st->node];
    const lb_shape *view = lb_src_shape(net, node, 0);
    const int64_t fan_in = (int64_t)net->params[node->param[0]].count / node->dst.c;
    st->conv = node->u.conv;
    if (node->op == LB_OP_LINEAR)
        st->conv = (lb_conv){.oc = node->u.conv.oc, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .groups = 1};
    st->ih = view->h;
    st->iw = view->w;
    st->ic = view->c;
    st->oh = node->dst.h;
    st->ow = node->dst.w;
    st->vector = st->ih == 1 && st->iw == 1 && st->oh == 1 && st->ow == 1 && st->conv.kh == 1 && st->conv.kw == 1;
    if (st->vector) /* its rows are images */
        st->conv.sh = st->conv.sw = 1;
    const float *weights = x->code ? x->code : lb_param_values(net, node->param[0]);
    const lb_infer_dims dims = infer_dims(plan, st);
    st->tiles = lb_infer_tiles(&dims);
    if (x->integer) {
        const codes k = look(x->code, node->dst.c, fan_in);
        pick_way(st, x, lb_numeric_src(n, node, 0), &k);
    } else {
        st->way = plan->ordered ? LB_WAY_ORDERED : LB_WAY_F32;
        if (plan->ordered)
            st->tiles = NULL;
    }
    st->acc_type = st->way == LB_WAY_INT8 || st->way == LB_WAY_INT32 ? LB_STORED_I32 : LB_STORED_F32;
    if (st->way == LB_WAY_ORDERED)
        return ordered_conv(plan, st, weights);
    if (st->tiles)
        return tiles_conv(plan, st, weights, fan_in);
    if (st->way != LB_WAY_INT32)
        return infer_conv(plan, infer, st, weights, fan_in);
    st->int_weights = lb_pool_alloc(&plan->memory, (size_t)node->dst.c * (size_t)fan_in, sizeof *st->int_weights);
    if (!st->int_weights)
        return LB_ERR_MEMORY;
    for (int64_t i = 0; i < node->dst.c * fan_in; i++)
        st->int_weights[i] = (int32_t)weights[i];
    return LB_OK;
}

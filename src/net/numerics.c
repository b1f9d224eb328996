/* The rules of numerics.h, applied: one pass over the nodes in order. */
#include "net/numerics.h"

#include <math.h>

#define REQUANT_MAX_MUL 0x7fffff /* as exact as a float's mantissa, and three bytes in the packed file */

/* Numbers that no trained network has. */
#define USUAL_CAUSE                                                                                                                \
    "the training diverged (lower train.optimizer.lr, or start from a float run with train.init), or a variance is nearly 0"

bool lb_requant_from_real(double a, double b, lbrt_requant *requant) {
    if (!isfinite(a) || !isfinite(b))
        return false;
    const double max_mul = fabs(a) > REQUANT_MAX_MUL ? INT32_MAX : REQUANT_MAX_MUL;
    for (int shift = LBRT_MAX_SHIFT; shift >= 0; shift--) {
        const double mul = rint(ldexp(a, shift)), add = rint(ldexp(b, shift));
        const int64_t half = shift ? (int64_t)1 << (shift - 1) : 0;
        /* 2^60 + 2^45 < 2^61: the sum below keeps fixed.h's bound. */
        if (fabs(mul) > max_mul || fabs(add) > 0x1p60)
            continue;
        *requant = (lbrt_requant){.add = (int64_t)add + half, .mul = (int32_t)mul, .shift = shift};
        return true;
    }
    return false;
}

static lb_status make_requant(lb_ctx *ctx, const lb_node *node, double a, double b, lbrt_requant *requant) {
    if (!lb_requant_from_real(a, b, requant))
        return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: factor %g and offset %g do not fit integer arithmetic; " USUAL_CAUSE,
                       node->name, a, b);
    return LB_OK;
}

static const float *values_or_null(const lb_net *net, int param) { return param < 0 ? NULL : lb_param_values(net, param); }

/* Source i as the node sees it is another shape than stored: a flattened image. */
static bool reads_flat(const lb_numerics *n, const lb_node *node, int i) {
    return !lb_same_shape(lb_src_shape(n->net, node, i), &lb_numeric_src(n, node, i)->shape);
}

/* Who is alive, which tensor each node shows, and who reads it. */
static void find_readers(lb_numerics *n) {
    const lb_net *net = n->net;
    n->nodes[net->nnodes - 1].live = true;
    for (int i = net->nnodes - 1; i >= 0; i--)
        for (int s = 0; n->nodes[i].live && s < net->nodes[i].nsrc; s++)
            n->nodes[net->nodes[i].src[s]].live = true;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        lb_numeric *x = &n->nodes[i];
        const bool view = node->op == LB_OP_FLATTEN || node->op == LB_OP_DROPOUT;
        x->tensor = view ? n->nodes[node->src[0]].tensor : i;
        x->reader = x->folded = -1;
        for (int s = 0; x->live && !view && s < node->nsrc; s++) {
            lb_numeric *src = &n->nodes[n->nodes[node->src[s]].tensor];
            src->reader = src->nreaders++ ? -1 : i;
        }
    }
    lb_numeric *out = &n->nodes[n->nodes[net->nnodes - 1].tensor];
    out->nreaders++;
    out->reader = -1;
}

static lb_status set_step(lb_numerics *n, lb_numeric *x, int nsteps) {
    x->kind = LB_NUM_INT;
    x->nsteps = nsteps;
    x->step = lb_pool_alloc(&n->pool, (size_t)nsteps, sizeof *x->step);
    return x->step ? LB_OK : LB_ERR_MEMORY;
}

static void set_fixed(lb_numeric *x) {
    x->kind = LB_NUM_FIXED;
    x->lo = INT32_MIN;
    x->hi = INT32_MAX;
}

/* Kind, steps and range of another tensor. */
static lb_status copy_numbers(lb_numerics *n, lb_numeric *x, const lb_numeric *src) {
    x->kind = src->kind;
    x->lo = src->lo;
    x->hi = src->hi;
    if (src->kind != LB_NUM_INT)
        return LB_OK;
    LB_TRY(set_step(n, x, src->nsteps));
    memcpy(x->step, src->step, (size_t)src->nsteps * sizeof *x->step);
    return LB_OK;
}

static lb_status new_requants(lb_numerics *n, lb_numeric *x, int c) {
    x->affine_channels = c;
    x->requant = lb_pool_alloc(&n->pool, (size_t)c, sizeof *x->requant);
    return x->requant ? LB_OK : LB_ERR_MEMORY;
}

static lb_status new_scales(lb_numerics *n, lb_numeric *x, int c) {
    x->affine_channels = c;
    x->scale = lb_pool_alloc(&n->pool, (size_t)c, sizeof *x->scale);
    x->offset = lb_pool_alloc(&n->pool, (size_t)c, sizeof *x->offset);
    return x->scale && x->offset ? LB_OK : LB_ERR_MEMORY;
}

static lb_status input_numbers(lb_numerics *n, const lb_node *node, lb_numeric *x, const float *mean, const float *std) {
    if (node->dst.c > 4)
        return lb_fail(n->pool.ctx, LB_ERR_UNSUPPORTED, "%s: images of %d channels; up to 4 can be evaluated", node->name,
                       node->dst.c);
    for (int c = 0; c < node->dst.c; c++) {
        n->scale[c] = (float)(1.0 / (255.0 * (double)std[c]));
        n->offset[c] = (float)(-(double)mean[c] / (double)std[c]);
    }
    x->kind = LB_NUM_F32;
    const lb_node *reader = x->reader < 0 ? NULL : &n->net->nodes[x->reader];
    if (reader && reader->op == LB_OP_ACT && reader->quant) {
        lb_act_form form = {0};
        lb_quant_act_form(reader->quant, &lb_quant_evaluation, values_or_null(n->net, reader->quant->param), &form);
        n->pixels_direct = !form.sign; /* clamping gives every code between -1 and 1, sign does not */
    }
    return LB_OK;
}

static lb_status act_numbers(lb_numerics *n, const lb_node *node, lb_numeric *x, const lb_numeric *src, const float *mean,
                             const float *std) {
    lb_ctx *ctx = n->pool.ctx;
    if (!node->quant) {
        const double lo = rint((double)node->u.act.lo * 65536), hi = rint((double)node->u.act.hi * 65536);
        x->flo = node->u.act.lo;
        x->fhi = node->u.act.hi;
        x->clo = lo < INT32_MIN ? INT32_MIN : lo > INT32_MAX ? INT32_MAX : (int32_t)lo;
        x->chi = hi < INT32_MIN ? INT32_MIN : hi > INT32_MAX ? INT32_MAX : (int32_t)hi;
        x->kind = LB_NUM_F32;
        if (src->kind != LB_NUM_F32)
            set_fixed(x);
        return LB_OK;
    }
    lb_act_form form = {0};
    lb_quant_act_form(node->quant, &lb_quant_evaluation, values_or_null(n->net, node->quant->param), &form);
    if (node->quant->param >= 0 && !node->quant->initialised)
        return lb_fail(ctx, LB_ERR_UNSUPPORTED,
                       "%s: its quantizer %s gets its %s from the first training batch; train at least one step", node->name,
                       node->quant->spec.quantizer->name, node->quant->spec.quantizer->param_names[0]);
    if (!(form.step > 0) || !isfinite(form.step))
        return lb_fail(ctx, LB_ERR_DIVERGED, "%s: its quantizer %s has step %g", node->name, node->quant->spec.quantizer->name,
                       (double)form.step);
    n->quantized_activations = true;
    x->quantized = true;
    x->sign = form.sign;
    x->lo = x->qlo = form.sign ? -1 : (int32_t)form.lo;
    x->hi = x->qhi = form.sign ? 1 : (int32_t)form.hi;
    x->inv_step = (float)(1.0 / (double)form.step);
    LB_TRY(set_step(n, x, 1));
    x->step[0] = (double)form.step;
    LB_TRY(make_requant(ctx, node, 1.0 / (65536.0 * x->step[0]), 0, &x->q));
    x->from_pixels = n->pixels_direct && src == &n->nodes[0];
    if (x->from_pixels) {
        LB_TRY(new_requants(n, x, x->shape.c));
        for (int c = 0; c < x->shape.c; c++)
            LB_TRY(make_requant(ctx, node, 1.0 / (255.0 * (double)std[c] * x->step[0]),
                                -(double)mean[c] / ((double)std[c] * x->step[0]), &x->requant[c]));
    }
    return LB_OK;
}

/* Codes and steps of a layer's weights, and the largest sum of |code| of an output channel. */
static lb_status quantize_weights(lb_numerics *n, const lb_node *node, lb_numeric *x, int oc, int64_t fan_in) {
    lb_ctx *ctx = n->pool.ctx;
    const size_t count = (size_t)oc * (size_t)fan_in;
    x->code = lb_pool_alloc(&n->pool, count, sizeof *x->code);
    x->weight_step = lb_pool_alloc(&n->pool, (size_t)oc, sizeof *x->weight_step);
    float *work = lb_alloc(ctx, count, sizeof *work);
    if (!x->code || !x->weight_step || !work) {
        lb_free(ctx, work);
        return LB_ERR_MEMORY;
    }
    const lb_weights weights = {.u = lb_param_values(n->net, node->param[0]), .oc = oc, .fan_in = fan_in};
    lb_quant_weights_forward(node->quant, &lb_quant_evaluation, values_or_null(n->net, node->quant->param), &weights,
                             x->weight_step, x->code, work);
    lb_free(ctx, work);
    for (int o = 0; o < oc; o++) {
        int64_t sum = 0;
        if (!(x->weight_step[o] >= 0) || !isfinite(x->weight_step[o]))
            return lb_fail(ctx, LB_ERR_DIVERGED, "%s: the step of its weights' channel %d is %g", node->name, o,
                           (double)x->weight_step[o]);
        for (int64_t i = 0; i < fan_in; i++) {
            const float code = x->code[(int64_t)o * fan_in + i];
            if (!(code >= (float)node->quant->grid.lo && code <= (float)node->quant->grid.hi) || code != rintf(code))
                return lb_fail(ctx, LB_ERR_DIVERGED, "%s: a weight of channel %d is quantized to %g, outside of %d..%d", node->name,
                               o, (double)code, node->quant->grid.lo, node->quant->grid.hi);
            sum += (int64_t)fabsf(code);
        }
        x->acc_weight = LB_MAX(x->acc_weight, sum);
    }
    return LB_OK;
}

/* a[o] = weight step * batch norm's factor, b[o] = everything added, of a layer whose affine may be folded into batch norm `bn` (or
 * NULL). */
static void fold(const lb_net *net, const lb_node *conv, const lb_numeric *x, const lb_node *bn, int c, double *a, double *b) {
    const float *bias = conv ? values_or_null(net, conv->param[1]) : NULL;
    *a = conv && x->weight_step ? (double)x->weight_step[c] : 1.0;
    *b = bias ? (double)bias[c] : 0.0;
    if (bn) {
        const double scale = (double)lb_param_values(net, bn->param[0])[c] /
                             sqrt((double)lb_param_values(net, bn->param[3])[c] + (double)bn->u.bn.eps);
        *a *= scale;
        *b = (*b - (double)lb_param_values(net, bn->param[2])[c]) * scale + (double)lb_param_values(net, bn->param[1])[c];
    }
}

/* Fills x's affine: FIXED from integers of real value source_step[c] * number, else F32. */
static lb_status make_affine(lb_numerics *n, const lb_node *node, lb_numeric *x, const lb_node *conv, const lb_numeric *layer,
                             const lb_node *bn, const lb_numeric *src, bool integer, int channels) {
    if (integer) {
        LB_TRY(new_requants(n, x, channels));
        set_fixed(x);
    } else {
        LB_TRY(new_scales(n, x, channels));
        x->kind = LB_NUM_F32;
    }
    for (int c = 0; c < channels; c++) {
        double a, b;
        fold(n->net, conv, layer, bn, c, &a, &b);
        if (!integer) {
            x->scale[c] = (float)a;
            x->offset[c] = (float)b;
            if (!isfinite(x->scale[c]) || !isfinite(x->offset[c]))
                return lb_fail(n->pool.ctx, LB_ERR_DIVERGED, "%s: channel %d has factor %g and offset %g; " USUAL_CAUSE, node->name,
                               c, a, b);
            continue;
        }
        /* The source of a convolution has one step; that of a batch norm of a flat image repeats. */
        const double step = src->kind == LB_NUM_FIXED ? 0x1p-16 : src->step[src->nsteps == 1 ? 0 : c % src->nsteps];
        LB_TRY(make_requant(n->pool.ctx, node, a * step * 65536.0, b * 65536.0, &x->requant[c]));
    }
    return LB_OK;
}

static lb_status conv_numbers(lb_numerics *n, const lb_node *node, lb_numeric *x, const lb_numeric *src) {
    const lb_net *net = n->net;
    const lb_param *weight = &net->params[node->param[0]];
    const int oc = node->dst.c;
    const int64_t fan_in = (int64_t)(weight->count / (size_t)oc);
    const lb_node *reader = x->reader < 0 ? NULL : &net->nodes[x->reader];
    if (reader && reader->op == LB_OP_BATCHNORM && reader->dst.c == oc)
        x->folded = x->reader;
    x->kind = LB_NUM_F32;
    if (node->quant) {
        LB_TRY(quantize_weights(n, node, x, oc, fan_in));
        const int64_t src_max = LB_MAX(-(int64_t)src->lo, (int64_t)src->hi);
        const int64_t weight_max = LB_MAX(-(int64_t)node->quant->grid.lo, (int64_t)node->quant->grid.hi);
        x->integer = src->kind == LB_NUM_INT && src->nsteps == 1 &&
                     (double)src_max * (double)weight_max * (double)fan_in <= (double)LB_NUM_ACC_MAX;
    }
    if (x->integer) { /* accumulators */
        bool one = true;
        for (int o = 1; o < oc; o++)
            one = one && x->weight_step[o] == x->weight_step[0];
        LB_TRY(set_step(n, x, one ? 1 : oc));
        for (int o = 0; o < x->nsteps; o++)
            x->step[o] = src->step[0] * (double)x->weight_step[o];
        const int64_t reach = x->acc_weight * LB_MAX(-(int64_t)src->lo, (int64_t)src->hi);
        x->lo = (int32_t)-reach;
        x->hi = (int32_t)reach;
    }
    if (x->folded < 0 && (node->param[1] >= 0 || (node->quant && !x->integer)))
        return make_affine(n, node, x, node, x, NULL, src, x->integer, oc);
    return LB_OK;
}

static lb_status avgpool_numbers(lb_numerics *n, const lb_node *node, lb_numeric *x, const lb_numeric *src) {
    const int64_t area = (int64_t)node->u.pool.kh * node->u.pool.kw;
    const bool fits = src->kind == LB_NUM_INT && (double)area * (double)src->hi <= (double)LB_NUM_ACC_MAX &&
                      (double)area * (double)src->lo >= -(double)LB_NUM_ACC_MAX;
    if (src->kind == LB_NUM_INT && src->nsteps == 1 && fits && !node->u.pool.inside) {
        LB_TRY(set_step(n, x, 1));
        x->step[0] = src->step[0] / (double)area;
        x->lo = (int32_t)(LB_MIN(src->lo, 0) * area);
        x->hi = (int32_t)(LB_MAX(src->hi, 0) * area);
        return LB_OK;
    }
    if (src->kind == LB_NUM_F32) {
        LB_TRY(new_scales(n, x, 1));
        x->kind = LB_NUM_F32;
        x->scale[0] = (float)(1.0 / (double)area);
        return LB_OK;
    }
    LB_TRY(new_requants(n, x, 1));
    set_fixed(x);
    return make_requant(n->pool.ctx, node, 1.0 / (double)area, 0, &x->requant[0]);
}

static lb_status func_numbers(lb_numerics *n, const lb_node *node, lb_numeric *x, const lb_numeric *src) {
    const lb_func_kind kind = node->u.func.kind;
    const bool slopes = node->param[0] >= 0;
    if (slopes && x->shape.c != node->dst.c)
        return lb_fail(n->pool.ctx, LB_ERR_UNSUPPORTED, "%s: cannot follow flatten", node->name);
    double a[2] = {(double)node->u.func.alpha, 0}, b[2] = {(double)node->u.func.beta, 0};
    const bool curved = kind == LB_FUNC_SIGMOID || kind == LB_FUNC_TANH, in_float = src->kind == LB_NUM_F32 && !curved;
    if (kind == LB_FUNC_LEAKY)
        a[0] -= 1, b[0] = 0;
    else if (kind == LB_FUNC_HARDSWISH)
        a[0] = 1.0 / 6, b[0] = 0.5;
    else if (kind == LB_FUNC_TANH)
        a[0] = a[1] = 2, b[0] = 0, b[1] = -1;
    x->func_channels = slopes ? x->shape.c : kind == LB_FUNC_SIGMOID ? 0 : kind == LB_FUNC_TANH ? 2 : 1;
    x->kind = LB_NUM_F32;
    if (!in_float)
        set_fixed(x);
    const size_t count = (size_t)x->func_channels;
    x->func = lb_pool_alloc(&n->pool, in_float ? 0 : count, sizeof *x->func);
    x->func_scale = lb_pool_alloc(&n->pool, in_float ? count : 0, sizeof *x->func_scale);
    x->func_offset = lb_pool_alloc(&n->pool, in_float ? count : 0, sizeof *x->func_offset);
    if (!x->func || !x->func_scale || !x->func_offset)
        return LB_ERR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const double scale = slopes ? (double)lb_func_alpha(n->net, node, i) - 1 : a[i], offset = slopes ? 0 : b[i];
        if (!in_float) {
            LB_TRY(make_requant(n->pool.ctx, node, scale, offset * 65536.0, &x->func[i]));
            continue;
        }
        x->func_scale[i] = (float)scale;
        x->func_offset[i] = (float)offset;
    }
    return LB_OK;
}

static lb_status shortcutpad_numbers(lb_numerics *n, const lb_node *node, lb_numeric *x, const lb_numeric *src) {
    x->kind = src->kind;
    x->lo = LB_MIN(src->lo, 0);
    x->hi = LB_MAX(src->hi, 0);
    if (src->kind != LB_NUM_INT)
        return LB_OK;
    LB_TRY(set_step(n, x, src->nsteps == 1 ? 1 : x->shape.c));
    for (int c = 0; c < x->nsteps; c++) /* the zeros may have any step */
        x->step[c] = src->step[0];
    for (int p = 0; x->nsteps > 1 && p < node->u.shortcutpad.nparts; p++) {
        const lb_part *part = &node->u.shortcutpad.parts[p];
        memcpy(x->step + part->dst, src->step + part->src, (size_t)part->count * sizeof *x->step);
    }
    return LB_OK;
}

static lb_status node_numbers(lb_numerics *n, int index, const float *mean, const float *std) {
    lb_ctx *ctx = n->pool.ctx;
    const lb_net *net = n->net;
    const lb_node *node = &net->nodes[index];
    lb_numeric *x = &n->nodes[index];
    const lb_numeric *src = node->nsrc > 0 ? lb_numeric_src(n, node, 0) : NULL;
    const bool flat = src && reads_flat(n, node, 0);
    x->shape = node->dst;
    switch (node->op) {
    case LB_OP_INPUT: return input_numbers(n, node, x, mean, std);
    case LB_OP_CONV:
    case LB_OP_LINEAR: return conv_numbers(n, node, x, src);
    case LB_OP_BATCHNORM: {
        const lb_node *before = &net->nodes[src - n->nodes];
        if (src->folded == index) /* conv's source has the step; its weights' step is in fold() */
            return make_affine(n, node, x, before, src, node, lb_numeric_src(n, before, 0), src->integer, node->dst.c);
        return make_affine(n, node, x, NULL, NULL, node, src, src->kind != LB_NUM_F32, node->dst.c);
    }
    case LB_OP_ACT:
        x->shape = src->shape;
        return act_numbers(n, node, x, src, mean, std);
    case LB_OP_ADD: {
        const lb_numeric *other = lb_numeric_src(n, node, 1);
        if (lb_same_shape(&src->shape, &other->shape))
            x->shape = src->shape;
        x->kind = LB_NUM_F32;
        if (src->kind != LB_NUM_F32 && other->kind != LB_NUM_F32)
            set_fixed(x);
        return LB_OK;
    }
    case LB_OP_CONCAT:
    case LB_OP_MUL:
        set_fixed(x);
        for (int s = 0; s < node->nsrc; s++) {
            if (reads_flat(n, node, s))
                return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: cannot follow flatten", node->name);
            if (lb_numeric_src(n, node, s)->kind == LB_NUM_F32)
                x->kind = LB_NUM_F32;
        }
        return LB_OK;
    case LB_OP_MAXPOOL:
    case LB_OP_AVGPOOL:
    case LB_OP_SHORTCUTPAD:
        if (flat)
            return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: cannot follow flatten", node->name);
        return node->op == LB_OP_MAXPOOL   ? copy_numbers(n, x, src)
               : node->op == LB_OP_AVGPOOL ? avgpool_numbers(n, node, x, src)
                                           : shortcutpad_numbers(n, node, x, src);
    case LB_OP_FUNC: x->shape = src->shape; return func_numbers(n, node, x, src);
    case LB_OP_FLATTEN:
    case LB_OP_DROPOUT:
        *x = (lb_numeric){.live = true, .tensor = x->tensor, .reader = -1, .folded = -1, .shape = src->shape, .kind = src->kind};
        return LB_OK;
    case LB_OP_COUNT: break;
    }
    return lb_fail(ctx, LB_ERR_UNSUPPORTED, "%s: no evaluation for this operator", node->name);
}

static lb_status all_numbers(lb_numerics *n, const float *mean, const float *std) {
    find_readers(n);
    for (int i = 0; i < n->net->nnodes; i++) {
        lb_numeric *x = &n->nodes[i];
        if (!x->live)
            continue;
        LB_TRY(node_numbers(n, i, mean, std));
        if (x->tensor != i || x->kind != LB_NUM_INT)
            continue;
        x->to_fixed = lb_pool_alloc(&n->pool, (size_t)x->nsteps, sizeof *x->to_fixed);
        if (!x->to_fixed)
            return LB_ERR_MEMORY;
        for (int s = 0; s < x->nsteps; s++)
            LB_TRY(make_requant(n->pool.ctx, &n->net->nodes[i], x->step[s] * 65536.0, 0, &x->to_fixed[s]));
    }
    return LB_OK;
}

lb_status lb_numerics_create(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], lb_numerics **numerics) {
    *numerics = NULL;
    if (!net->finished)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "%s: call lb_net_finish before evaluating a network", net->name);
    lb_numerics *n = lb_alloc(ctx, 1, sizeof *n);
    if (!n)
        return LB_ERR_MEMORY;
    lb_pool_init(&n->pool, ctx);
    n->net = net;
    n->nodes = lb_pool_alloc(&n->pool, (size_t)net->nnodes, sizeof *n->nodes);
    const lb_status status = n->nodes ? all_numbers(n, mean, std) : LB_ERR_MEMORY;
    if (status != LB_OK) {
        lb_numerics_destroy(n);
        return status;
    }
    *numerics = n;
    return LB_OK;
}

void lb_numerics_destroy(lb_numerics *numerics) {
    if (!numerics)
        return;
    lb_ctx *ctx = numerics->pool.ctx;
    lb_pool_free(&numerics->pool);
    lb_free(ctx, numerics);
}

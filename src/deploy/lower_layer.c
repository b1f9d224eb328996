#include "deploy/lower_layer.h"

#include "deploy/code_of.h"

/* ---- What fits ------------------------------------------------------------------------------------------------------- */

static bool advance(lb_lower_state *s, lb_phase latest, lb_phase to) {
    if (s->phase > latest)
        return false;
    s->phase = to;
    return true;
}

bool lb_lower_fits_fixed(lb_lower_state *s) {
    if (s->kind == LB_NUM_INT && !advance(s, LB_PHASE_START, LB_PHASE_AFFINE))
        return false;
    s->kind = LB_NUM_FIXED;
    return true;
}

bool lb_lower_fits(const lb_lowering *l, lb_lower_state *s, int i) {
    const lb_node *node = &l->net->nodes[i];
    const lb_numeric *x = &l->n->nodes[i];
    lb_lower_state next = *s;
    bool fits = false;
    if (x->from_pixels)
        return false;
    switch (node->op) {
    case LB_OP_BATCHNORM: fits = advance(&next, LB_PHASE_START, LB_PHASE_AFFINE); break;
    case LB_OP_ADD:
        fits = x->kind == LB_NUM_F32 ? s->kind == LB_NUM_F32 : lb_lower_fits_fixed(&next);
        fits = fits && advance(&next, LB_PHASE_AFFINE, LB_PHASE_RESIDUAL);
        break;
    case LB_OP_ACT:
        fits = s->kind == LB_NUM_F32 || lb_lower_fits_fixed(&next);
        fits = fits &&
               advance(&next, x->quantized ? LB_PHASE_CLAMP : LB_PHASE_RESIDUAL, x->quantized ? LB_PHASE_DONE : LB_PHASE_CLAMP);
        break;
    default: break;
    }
    if (fits)
        *s = (lb_lower_state){next.phase, x->kind, x};
    return fits;
}

/* ---- Building -------------------------------------------------------------------------------------------------------- */

lbrt_layer *lb_lower_begin(lb_lowering *l, lbrt_op op, int i, int src) {
    lbrt_graph *g = &l->out->graph;
    l->out->layer_node[g->nlayers] = i;
    lbrt_layer *layer = &l->layers[g->nlayers++];
    *layer = (lbrt_layer){
        .op = (int32_t)op, .src = src, .dst = g->nlayers, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .groups = 1, .src_step = 1};
    layer->epilogue.res.shift = -1;
    layer->epilogue.res_step = 1;
    layer->name = l->net->nodes[i].name;
    return layer;
}

lb_status lb_lower_point(lb_lowering *l, int i, const lb_numeric *src, const lb_shape *shape, bool is_float, lb_lower_state *s) {
    const bool same = lb_same_shape(&src->shape, shape);
    lbrt_layer *layer = lb_lower_begin(l, same ? LBRT_OP_POINT : LBRT_OP_CONV, i, l->place[src - l->n->nodes]);
    layer->is_float = is_float;
    *s = (lb_lower_state){LB_PHASE_START, is_float ? LB_NUM_F32 : src->kind, src};
    if (!same) { /* one weight, a 1, for each element */
        uint8_t *ones = lb_pool_alloc(&l->out->pool, (size_t)shape->c, 1);
        if (!ones)
            return LB_ERR_MEMORY;
        memset(ones, 1, (size_t)shape->c);
        layer->flat = 1;
        layer->groups = shape->c;
        layer->weights = (lbrt_weights){.bits = 1, .mul = 1, .packed = ones};
    }
    if (!is_float || src->kind == LB_NUM_F32)
        return LB_OK;
    if (src->kind == LB_NUM_FIXED || src->nsteps == 1) {
        layer->src_step = lb_numeric_step(src, 0);
        return LB_OK;
    }
    float *scale = lb_pool_alloc(&l->out->pool, (size_t)shape->c, sizeof *scale);
    float *offset = lb_pool_alloc(&l->out->pool, (size_t)shape->c, sizeof *offset);
    if (!scale || !offset)
        return LB_ERR_MEMORY;
    for (int c = 0; c < shape->c; c++)
        scale[c] = lb_numeric_step(src, c % src->nsteps);
    layer->epilogue.flags |= LBRT_AFFINE;
    layer->epilogue.scale = scale;
    layer->epilogue.offset = offset;
    s->phase = LB_PHASE_AFFINE;
    return LB_OK;
}

/* (n) requants, repeated, for all channels. */
static lb_status set_requants(lb_lowering *l, const lbrt_requant *r, int n, int channels) {
    lbrt_requant *all = lb_pool_alloc(&l->out->pool, (size_t)channels, sizeof *all);
    if (!all)
        return LB_ERR_MEMORY;
    for (int c = 0; c < channels; c++)
        all[c] = r[c % n];
    lb_lower_last(l)->epilogue.requant = all;
    lb_lower_last(l)->epilogue.flags |= LBRT_AFFINE;
    return LB_OK;
}

lb_status lb_lower_affine(lb_lowering *l, const lb_numeric *x, int channels) {
    if (x->requant)
        return set_requants(l, x->requant, x->affine_channels, channels);
    if (!x->scale)
        return LB_OK;
    lbrt_epilogue *e = &lb_lower_last(l)->epilogue;
    float *scale = lb_pool_alloc(&l->out->pool, (size_t)channels, sizeof *scale);
    float *offset = lb_pool_alloc(&l->out->pool, (size_t)channels, sizeof *offset);
    if (!scale || !offset)
        return LB_ERR_MEMORY;
    for (int c = 0; c < channels; c++) {
        scale[c] = x->scale[c % x->affine_channels];
        offset[c] = x->offset[c % x->affine_channels];
    }
    e->flags |= LBRT_AFFINE;
    e->scale = scale;
    e->offset = offset;
    return LB_OK;
}

lb_status lb_lower_fixed(lb_lowering *l, lb_lower_state *s, int channels) {
    if (s->kind == LB_NUM_INT) {
        LB_TRY(set_requants(l, s->x->to_fixed, s->x->nsteps, channels));
        s->phase = LB_PHASE_AFFINE;
    }
    s->kind = LB_NUM_FIXED;
    return LB_OK;
}

void lb_lower_act(lb_lowering *l, const lb_numeric *x) {
    lbrt_epilogue *e = &lb_lower_last(l)->epilogue;
    if (!x->quantized) {
        e->flags |= LBRT_CLAMP;
        e->lo = x->clo;
        e->hi = x->chi;
        e->flo = x->flo;
        e->fhi = x->fhi;
        return;
    }
    e->flags |= x->sign ? LBRT_SIGN : LBRT_CODE;
    e->q = x->q;
    e->inv_step = x->inv_step;
    e->qlo = x->qlo;
    e->qhi = x->qhi;
}

/* ---- Thresholds ------------------------------------------------------------------------------------------------------ */

/* The accumulator where the code becomes at least `code`: the smallest one if rising, else the largest. No accumulator reaches the
 * ends of int32 (LB_NUM_ACC_MAX), so the ends can mean "never". */
static int32_t search(const lbrt_epilogue *e, int c, bool rising, int32_t code) {
    int64_t yes = rising ? INT32_MAX : INT32_MIN, no = rising ? INT32_MIN : INT32_MAX;
    if (lb_code_of(e, c, (int32_t)no, 0) >= code)
        return (int32_t)no;
    while (yes - no > 1 || no - yes > 1) { /* `yes` reaches the code, or is the end */
        const int64_t middle = no + (yes - no) / 2;
        if (lb_code_of(e, c, (int32_t)middle, 0) >= code)
            yes = middle;
        else
            no = middle;
    }
    return (int32_t)yes;
}

static lb_status make_thresholds(lb_lowering *l, lbrt_layer *layer, int channels) {
    lbrt_epilogue *e = &layer->epilogue;
    const bool sign = (e->flags & LBRT_SIGN) != 0;
    const int count = sign ? 1 : e->qhi - e->qlo;
    const bool wanted = !layer->is_float && (e->flags & (LBRT_CODE | LBRT_SIGN)) && (e->flags & LBRT_AFFINE) &&
                        !(e->flags & LBRT_RESIDUAL) && count >= 1 && count <= LBRT_MAX_THRESHOLDS;
    if (!wanted)
        return LB_OK;
    int32_t *thresholds = lb_pool_alloc(&l->out->pool, (size_t)channels * (size_t)count, sizeof *thresholds);
    uint8_t *flip = lb_pool_alloc(&l->out->pool, (size_t)channels, 1);
    if (!thresholds || !flip)
        return LB_ERR_MEMORY;
    for (int c = 0; c < channels; c++) {
        flip[c] = e->requant[c].mul < 0;
        for (int k = 0; k < count; k++)
            thresholds[c * count + k] = search(e, c, !flip[c], sign ? 1 : e->qlo + k + 1);
    }
    e->thresholds = thresholds;
    e->flip = flip;
    e->nthresholds = count;
    e->flags = LBRT_THRESHOLDS | (sign ? LBRT_SIGN : 0);
    return LB_OK;
}

lb_status lb_lower_end(lb_lowering *l, const lb_shape *shape, int *tensor) {
    lbrt_graph *g = &l->out->graph;
    lbrt_layer *layer = lb_lower_last(l);
    const lbrt_tensor *src = &l->tensors[layer->src];
    const uint32_t flags = layer->epilogue.flags;
    LB_TRY(make_thresholds(l, layer, shape->c));
    lbrt_tensor *dst = &l->tensors[g->ntensors];
    *dst = (lbrt_tensor){.h = shape->h, .w = shape->w, .c = shape->c, .type = LBRT_I32};
    if (layer->op == LBRT_OP_MAXPOOL || layer->op == LBRT_OP_COPY || layer->op == LBRT_OP_MUL)
        dst->type = src->type;
    else if (layer->op == LBRT_OP_SUMPOOL)
        dst->type = src->type == LBRT_F32 ? LBRT_F32 : LBRT_I32;
    else if (flags & (LBRT_CODE | LBRT_SIGN))
        dst->type = layer->epilogue.qlo >= 0 && layer->epilogue.qhi <= 255       ? LBRT_U8
                    : layer->epilogue.qlo >= -128 && layer->epilogue.qhi <= 127 ? LBRT_I8
                                                                                : LBRT_I32;
    else if (layer->is_float && !(flags & LBRT_TO_FIXED))
        dst->type = LBRT_F32;
    *tensor = g->ntensors++;
    if (!lbrt_layer_range(g, g->nlayers - 1, &dst->lo, &dst->hi))
        return lb_fail(l->out->pool.ctx, LB_ERR_UNSUPPORTED, "%s: its sums could leave 32 bits; use fewer bits or fewer channels",
                       layer->name);
    return LB_OK;
}

#include "deploy/lower_layer.h"

#include <math.h>

typedef struct group {
    int head, tail; /* first and last node */
    lb_lower_state s;
    bool open;      /* ends in an epilogue that may grow */
    int concat;     /* the concat whose numbers it ends in, -1: none; its tensor then has no others */
} group;

static const lb_numeric *source(const lb_lowering *l, const lb_node *node, int i) { return lb_numeric_src(l->n, node, i); }
static int index_of(const lb_lowering *l, const lb_numeric *x) { return (int)(x - l->n->nodes); }

/* A quantized activation that reads concat i alone: its codes can be made before they are put together. -1: there is none. */
static int coder_of(const lb_lowering *l, int i) {
    const int r = l->n->nodes[i].reader;
    return r >= 0 && l->net->nodes[r].op == LB_OP_ACT && l->n->nodes[r].quantized ? r : -1;
}

/* ---- Groups: which nodes share a layer ------------------------------------------------------------------------------- */

/* Where the epilogue of a layer that begins with node i stands once that node is in it. */
static void open_group(const lb_lowering *l, group *g, int i) {
    const lb_node *node = &l->net->nodes[i];
    const lb_numeric *x = &l->n->nodes[i];
    *g = (group){.head = i, .tail = i, .s = {LB_PHASE_START, x->kind, x}, .concat = -1};
    switch (node->op) {
    case LB_OP_CONV:
    case LB_OP_LINEAR:
    case LB_OP_AVGPOOL:
        g->open = node->op != LB_OP_AVGPOOL || x->kind != LB_NUM_INT;
        g->s.phase = x->requant || x->scale ? LB_PHASE_AFFINE : LB_PHASE_START;
        break;
    case LB_OP_BATCHNORM: g->open = true, g->s.phase = LB_PHASE_AFFINE; break;
    case LB_OP_ADD: g->open = true, g->s.phase = LB_PHASE_RESIDUAL; break;
    case LB_OP_ACT: g->open = true, g->s.phase = x->quantized ? LB_PHASE_DONE : LB_PHASE_CLAMP; break;
    case LB_OP_CONCAT: g->open = true, g->s.phase = LB_PHASE_CLAMP; break;
    case LB_OP_FUNC:
        g->open = node->u.func.kind != LB_FUNC_HARDSWISH && node->u.func.kind != LB_FUNC_SIGMOID;
        g->s.phase = node->u.func.kind == LB_FUNC_HARDSIGMOID ? LB_PHASE_CLAMP
                     : node->u.func.kind == LB_FUNC_LEAKY     ? LB_PHASE_RESIDUAL
                                                              : LB_PHASE_AFFINE;
        break;
    default: break;
    }
    g->open = g->open && !x->from_pixels;
}

/* Lets the groups before concat i end in the numbers that it puts together: codes, if an activation follows, or fixed point. */
static void join_concat(const lb_lowering *l, group *groups, int i) {
    const lb_node *node = &l->net->nodes[i];
    const int coder = coder_of(l, i);
    const bool in_float = l->n->nodes[i].kind == LB_NUM_F32;
    for (int s = 0; s < node->nsrc; s++) {
        const int t = l->n->nodes[node->src[s]].tensor;
        group *g = &groups[t];
        if (g->tail != t || !g->open || l->net->nodes[g->head].op == LB_OP_CONCAT || l->n->nodes[t].reader != i ||
            (l->n->nodes[t].kind == LB_NUM_F32) != in_float)
            continue;
        lb_lower_state state = g->s;
        if (coder >= 0 ? lb_lower_fits(l, &state, coder) : state.kind == LB_NUM_INT && lb_lower_fits_fixed(&state))
            g->concat = i;
    }
}

/* groups[i]: the one that ends with tensor node i; tail -1: none. */
static void find_groups(const lb_lowering *l, group *groups) {
    for (int i = 0; i < l->net->nnodes; i++) {
        const lb_node *node = &l->net->nodes[i];
        const lb_numeric *x = &l->n->nodes[i];
        groups[i].tail = -1;
        if (!x->live || x->tensor != i || (i == 0 && l->n->pixels_direct))
            continue;
        int into = -1; /* of two sources that could take the node in, the later: the other's result is there by then */
        for (int s = 0; s < node->nsrc; s++) {
            const int t = l->n->nodes[node->src[s]].tensor;
            lb_lower_state state = groups[t].s;
            if (t > into && groups[t].tail == t && groups[t].open && l->n->nodes[t].reader == i &&
                lb_same_shape(&l->n->nodes[t].shape, &x->shape) && lb_lower_fits(l, &state, i))
                into = t;
        }
        if (node->op == LB_OP_CONCAT)
            join_concat(l, groups, i);
        if (into < 0) {
            open_group(l, &groups[i], i);
            continue;
        }
        groups[i] = groups[into];
        groups[into].tail = -1;
        groups[i].tail = i;
        (void)lb_lower_fits(l, &groups[i].s, i);
    }
}

/* ---- Layers ---------------------------------------------------------------------------------------------------------- */

/* A layer of its own that brings src to FIXED, or to F32, or only to a flat shape. */
static lb_status convert(lb_lowering *l, int i, const lb_numeric *src, const lb_shape *shape, bool to_float, bool to_fixed,
                         int *tensor) {
    lb_lower_state s;
    LB_TRY(lb_lower_point(l, i, src, shape, to_float, &s));
    if (to_fixed)
        LB_TRY(lb_lower_fixed(l, &s, shape->c));
    return lb_lower_end(l, shape, tensor);
}

/* Source k of node i in FIXED or F32: as it is, or by a layer of its own. */
static lb_status bring(lb_lowering *l, int i, int k, lb_number to, int *tensor) {
    const lb_numeric *src = source(l, &l->net->nodes[i], k);
    *tensor = l->place[index_of(l, src)];
    if (src->kind == to)
        return LB_OK;
    if (src->kind != LB_NUM_F32)
        return convert(l, i, src, &src->shape, to == LB_NUM_F32, to == LB_NUM_FIXED, tensor);
    lb_lower_state s;
    LB_TRY(lb_lower_point(l, i, src, &src->shape, true, &s));
    lb_lower_last(l)->epilogue.flags |= LBRT_TO_FIXED;
    return lb_lower_end(l, &src->shape, tensor);
}

/* Codes, least significant bit first, each output channel beginning at a byte. */
static lb_status pack_weights(lb_lowering *l, const lb_node *node, const lb_numeric *x, lbrt_weights *w) {
    const size_t oc = (size_t)node->dst.c, count = l->net->params[node->param[0]].count / oc;
    if (!x->code) {
        float *copy = lb_pool_alloc(&l->out->pool, oc * count, sizeof *copy);
        if (!copy)
            return LB_ERR_MEMORY;
        memcpy(copy, lb_param_values(l->net, node->param[0]), oc * count * sizeof *copy);
        *w = (lbrt_weights){.bits = 32, .f32 = copy};
        return LB_OK;
    }
    const lb_grid *grid = &node->quant->grid;
    const size_t row = lbrt_packed_bytes((int32_t)count, grid->bits);
    uint8_t *packed = lb_pool_alloc(&l->out->pool, oc * row, 1);
    if (!packed)
        return LB_ERR_MEMORY;
    for (size_t o = 0; o < oc; o++) {
        for (size_t i = 0; i < count; i++) {
            const int code = (int)x->code[o * count + i], stored = (code - grid->add) / grid->mul;
            if (stored * grid->mul + grid->add != code || stored < 0 || stored >= 1 << grid->bits)
                return lb_fail(l->out->pool.ctx, LB_ERR_UNSUPPORTED,
                               "%s: weight code %d is not on the grid of %d bits (%d * stored + %d)", node->name, code, grid->bits,
                               grid->mul, grid->add);
            const size_t bit = i * (size_t)grid->bits;
            packed[o * row + bit / 8] |= (uint8_t)((unsigned)stored << bit % 8);
            if (bit % 8 + (size_t)grid->bits > 8)
                packed[o * row + bit / 8 + 1] |= (uint8_t)((unsigned)stored >> (8 - bit % 8));
        }
    }
    *w = (lbrt_weights){.bits = grid->bits, .mul = grid->mul, .add = grid->add, .packed = packed};
    return LB_OK;
}

static lb_status begin_conv(lb_lowering *l, int i) {
    const lb_node *node = &l->net->nodes[i];
    const lb_numeric *x = &l->n->nodes[i], *src = source(l, node, 0);
    const lb_shape *view = lb_src_shape(l->net, node, 0);
    int from = l->place[index_of(l, src)];
    float step = 1;
    if (!x->integer && src->kind == LB_NUM_INT && src->nsteps > 1)
        LB_TRY(convert(l, i, src, &src->shape, true, false, &from)); /* a step per channel */
    else if (!x->integer)
        step = lb_numeric_step(src, 0);
    lbrt_layer *layer = lb_lower_begin(l, LBRT_OP_CONV, i, from);
    layer->is_float = !x->integer;
    layer->src_step = step;
    layer->flat = view->h != src->shape.h || view->w != src->shape.w || view->c != src->shape.c;
    if (node->op == LB_OP_CONV) {
        const lb_conv *c = &node->u.conv;
        layer->kh = c->kh, layer->kw = c->kw, layer->sh = c->sh, layer->sw = c->sw;
        layer->pt = c->pt, layer->pl = c->pl, layer->pb = c->pb, layer->pr = c->pr;
        layer->groups = c->groups;
        layer->gap_h = c->gap_h, layer->gap_w = c->gap_w;
        if (layer->flat && (c->kh != 1 || c->kw != 1 || c->sh != 1 || c->sw != 1 || c->pt || c->pl || c->pb || c->pr))
            return lb_fail(l->out->pool.ctx, LB_ERR_UNSUPPORTED, "%s: a convolution with a kernel cannot follow flatten",
                           node->name);
    }
    LB_TRY(pack_weights(l, node, x, &layer->weights));
    return lb_lower_affine(l, x, node->dst.c);
}

static lbrt_layer *begin_pool(lb_lowering *l, lbrt_op op, int i, int from) {
    const lb_pooling *p = &l->net->nodes[i].u.pool;
    lbrt_layer *layer = lb_lower_begin(l, op, i, from);
    layer->kh = p->kh, layer->kw = p->kw, layer->sh = p->sh, layer->sw = p->sw;
    layer->pt = p->pt, layer->pl = p->pl, layer->pb = p->pb, layer->pr = p->pr;
    layer->is_float = l->n->nodes[i].kind == LB_NUM_F32;
    return layer;
}

static lb_status begin_avgpool(lb_lowering *l, int i) {
    const lb_node *node = &l->net->nodes[i];
    const lb_numeric *x = &l->n->nodes[i], *src = source(l, node, 0);
    int from = l->place[index_of(l, src)];
    if (src->kind == LB_NUM_INT && x->kind == LB_NUM_FIXED)
        LB_TRY(convert(l, i, src, &src->shape, false, true, &from));
    begin_pool(l, LBRT_OP_SUMPOOL, i, from)->inside = node->u.pool.inside;
    if (x->kind == LB_NUM_INT)
        return LB_OK;
    int sums;
    LB_TRY(lb_lower_end(l, &x->shape, &sums));
    lb_lower_begin(l, LBRT_OP_POINT, i, sums)->is_float = x->kind == LB_NUM_F32;
    return lb_lower_affine(l, x, x->shape.c);
}

/* A layer that copies: to be given `nparts` parts. */
static lb_status begin_copy(lb_lowering *l, int i, const int *sources, int nsources, int nparts, lbrt_part **parts) {
    lbrt_layer *layer = lb_lower_begin(l, LBRT_OP_COPY, i, sources[0]);
    layer->is_float = l->tensors[sources[0]].type == LBRT_F32;
    layer->nsources = nsources;
    for (int k = 0; k < nsources; k++)
        layer->sources[k] = sources[k];
    *parts = lb_pool_alloc(&l->out->pool, (size_t)nparts, sizeof **parts);
    layer->nparts = nparts;
    layer->parts = *parts;
    return *parts ? LB_OK : LB_ERR_MEMORY;
}

/* The rows or columns that a copy takes; zeros if some are. */
static lb_status place_lines(lb_lowering *l, const int *lines, int count, const int32_t **placed, int32_t *zeros) {
    int32_t *own = lb_pool_alloc(&l->out->pool, (size_t)count, sizeof *own);
    for (int i = 0; own && i < count; i++) {
        own[i] = lines[i];
        *zeros |= lines[i] < 0;
    }
    *placed = own;
    return own ? LB_OK : LB_ERR_MEMORY;
}

/* Pixels by their rows and columns, channels moved and zero ones. */
static lb_status begin_shortcutpad(lb_lowering *l, int i) {
    const lb_node *node = &l->net->nodes[i];
    const lb_shape *dst = &node->dst;
    const int from = l->place[index_of(l, source(l, node, 0))], n = node->u.shortcutpad.nparts;
    lbrt_part *parts;
    LB_TRY(begin_copy(l, i, &from, 1, n, &parts));
    lbrt_layer *layer = lb_lower_last(l);
    layer->sh = layer->sw = node->u.shortcutpad.stride;
    int filled = 0;
    for (int p = 0; p < n; p++) {
        const lb_part *part = &node->u.shortcutpad.parts[p];
        int at = p; /* they may come in any order */
        for (; at > 0 && parts[at - 1].dst > part->dst; at--)
            parts[at] = parts[at - 1];
        parts[at] = (lbrt_part){0, part->dst, part->src, part->count};
        filled += part->count;
    }
    layer->zeros = filled < dst->c;
    if (node->u.shortcutpad.strided)
        return LB_OK;
    layer->sh = layer->sw = 1;
    LB_TRY(place_lines(l, node->u.shortcutpad.rows, dst->h, &layer->rows, &layer->zeros));
    return place_lines(l, node->u.shortcutpad.cols, dst->w, &layer->cols, &layer->zeros);
}

/* Source k of a concat as the codes that activation `coder` makes of it. */
static lb_status code_source(lb_lowering *l, int i, int k, int coder, int *tensor) {
    const lb_numeric *src = source(l, &l->net->nodes[i], k);
    const bool in_float = l->n->nodes[i].kind == LB_NUM_F32;
    lb_lower_state s;
    LB_TRY(lb_lower_point(l, i, src, &src->shape, in_float, &s));
    if (!in_float)
        LB_TRY(lb_lower_fixed(l, &s, src->shape.c));
    lb_lower_act(l, &l->n->nodes[coder]);
    return lb_lower_end(l, &src->shape, tensor);
}

/* The sources, coded if an activation follows, side by side. */
static lb_status begin_concat(lb_lowering *l, int i, const group *groups) {
    const lb_node *node = &l->net->nodes[i];
    const int coder = coder_of(l, i);
    int tensor[LB_MAX_SRC];
    for (int k = 0; k < node->nsrc; k++) {
        const int t = index_of(l, source(l, node, k));
        tensor[k] = l->place[t];
        if (groups[t].concat == i)
            continue;
        LB_TRY(coder >= 0 ? code_source(l, i, k, coder, &tensor[k]) : bring(l, i, k, l->n->nodes[i].kind, &tensor[k]));
    }
    lbrt_part *parts;
    LB_TRY(begin_copy(l, i, tensor, node->nsrc, node->nsrc, &parts));
    for (int k = 0, at = 0; k < node->nsrc; k++) {
        const int c = source(l, node, k)->shape.c;
        parts[k] = (lbrt_part){k, at, 0, c};
        at += c;
    }
    return LB_OK;
}

/* ---- Functions and products ------------------------------------------------------------------------------------------ */

/* A product's layer. */
static void begin_product(lb_lowering *l, int i, int a, int b) {
    lbrt_layer *layer = lb_lower_begin(l, LBRT_OP_MUL, i, a);
    layer->is_float = l->tensors[a].type == LBRT_F32;
    layer->nsources = 2;
    layer->sources[0] = a;
    layer->sources[1] = b;
}

static lb_status begin_mul(lb_lowering *l, int i) {
    int a, b;
    LB_TRY(bring(l, i, 0, l->n->nodes[i].kind, &a));
    LB_TRY(bring(l, i, 1, l->n->nodes[i].kind, &b));
    begin_product(l, i, a, b);
    return LB_OK;
}

/* A pointwise layer of tensor src, FIXED or F32, with affine number k of a function. */
static lb_status begin_affine(lb_lowering *l, int i, int src, int k) {
    const lb_numeric *x = &l->n->nodes[i];
    const bool in_float = x->kind == LB_NUM_F32;
    lbrt_layer *layer = lb_lower_begin(l, LBRT_OP_POINT, i, src);
    layer->is_float = in_float;
    lb_numeric one = {.requant = in_float ? NULL : x->func + k, .scale = x->func_scale, .offset = x->func_offset};
    one.affine_channels = l->net->nodes[i].u.func.slopes ? x->func_channels : 1;
    return lb_lower_affine(l, &one, x->shape.c);
}

static void add_clamp(lb_lowering *l, int32_t lo, int32_t hi) {
    lbrt_epilogue *e = &lb_lower_last(l)->epilogue;
    e->flags |= LBRT_CLAMP;
    e->lo = lo;
    e->hi = hi;
    e->flo = lo == INT32_MIN ? -INFINITY : (float)lo * 0x1p-16f;
    e->fhi = (float)hi * 0x1p-16f;
}

static lb_status begin_func(lb_lowering *l, int i) {
    const lb_numeric *x = &l->n->nodes[i];
    const lb_func_kind kind = l->net->nodes[i].u.func.kind;
    int from, mid = -1;
    LB_TRY(bring(l, i, 0, x->kind, &from));
    switch (kind) {
    case LB_FUNC_LEAKY:
        lb_lower_begin(l, LBRT_OP_POINT, i, from)->is_float = x->kind == LB_NUM_F32;
        add_clamp(l, INT32_MIN, 0);
        LB_TRY(lb_lower_end(l, &x->shape, &mid));
        LB_TRY(begin_affine(l, i, mid, 0));
        lb_lower_last(l)->epilogue.flags |= LBRT_RESIDUAL;
        lb_lower_last(l)->epilogue.residual = from;
        break;
    case LB_FUNC_HARDSIGMOID:
    case LB_FUNC_HARDSWISH:
        LB_TRY(begin_affine(l, i, from, 0));
        add_clamp(l, 0, 1 << LBRT_FIX_BITS);
        if (kind == LB_FUNC_HARDSIGMOID)
            break;
        LB_TRY(lb_lower_end(l, &x->shape, &mid));
        begin_product(l, i, from, mid);
        break;
    case LB_FUNC_SIGMOID: lb_lower_begin(l, LBRT_OP_SIGMOID, i, from); break;
    case LB_FUNC_TANH:
        LB_TRY(begin_affine(l, i, from, 0));
        LB_TRY(lb_lower_end(l, &x->shape, &mid));
        lb_lower_begin(l, LBRT_OP_SIGMOID, i, mid);
        LB_TRY(lb_lower_end(l, &x->shape, &mid));
        LB_TRY(begin_affine(l, i, mid, 1));
        break;
    }
    return LB_OK;
}

/* ---- Input, residual, epilogue --------------------------------------------------------------------------------------- */

static lb_status begin_input(lb_lowering *l, int i) {
    const lb_numeric *x = &l->n->nodes[i];
    const int c = l->net->nodes[0].dst.c;
    lbrt_layer *layer = lb_lower_begin(l, LBRT_OP_INPUT, i, 0);
    if (x->from_pixels) {
        LB_TRY(lb_lower_affine(l, x, c));
        lb_lower_act(l, x);
        return LB_OK;
    }
    const lb_numeric pixels = {.scale = l->n->scale, .offset = l->n->offset, .affine_channels = c};
    layer->is_float = 1;
    return lb_lower_affine(l, &pixels, c);
}

/* A residual: src becomes the last layer's second operand. The layer must not have begun yet if src needs a layer of its own. */
typedef struct residual {
    int tensor;
    lbrt_requant r;
    float step;
} residual;

static lb_status make_residual(lb_lowering *l, int i, const lb_numeric *src, residual *out) {
    const lb_numeric *x = &l->n->nodes[i];
    const bool flat = src->shape.h != x->shape.h || src->shape.w != x->shape.w || src->shape.c != x->shape.c;
    const bool many = src->kind == LB_NUM_INT && src->nsteps > 1, to_float = x->kind == LB_NUM_F32;
    *out = (residual){.tensor = l->place[index_of(l, src)], .r = {.shift = -1}, .step = 1};
    if (flat || many) {
        LB_TRY(convert(l, i, src, &x->shape, to_float, !to_float, &out->tensor));
        return LB_OK;
    }
    if (to_float)
        out->step = lb_numeric_step(src, 0);
    else if (src->kind == LB_NUM_INT)
        out->r = src->to_fixed[0];
    return LB_OK;
}

static lb_status set_residual(lb_lowering *l, lb_lower_state *s, int i, const residual *r) {
    const lb_numeric *x = &l->n->nodes[i];
    if (x->kind == LB_NUM_FIXED)
        LB_TRY(lb_lower_fixed(l, s, x->shape.c));
    lbrt_epilogue *e = &lb_lower_last(l)->epilogue;
    e->flags |= LBRT_RESIDUAL;
    e->residual = r->tensor;
    e->res = r->r;
    e->res_step = r->step;
    return LB_OK;
}

/* Adds node i to the last layer's epilogue. */
static lb_status append(lb_lowering *l, lb_lower_state *s, int i, const residual *r) {
    const lb_numeric *x = &l->n->nodes[i];
    switch (l->net->nodes[i].op) {
    case LB_OP_BATCHNORM: LB_TRY(lb_lower_affine(l, x, x->shape.c)); break;
    case LB_OP_ADD: LB_TRY(set_residual(l, s, i, r)); break;
    default:
        if (s->kind != LB_NUM_F32)
            LB_TRY(lb_lower_fixed(l, s, x->shape.c));
        lb_lower_act(l, x);
        break;
    }
    s->kind = x->kind;
    s->x = x;
    return LB_OK;
}

/* Everything of a group up to and including its first node. */
static lb_status begin_group(lb_lowering *l, const group *groups, int i, const residual *r, lb_lower_state *s) {
    const lb_node *node = &l->net->nodes[i];
    const lb_numeric *x = &l->n->nodes[i];
    *s = (lb_lower_state){LB_PHASE_START, x->kind, x};
    switch (node->op) {
    case LB_OP_INPUT: return begin_input(l, i);
    case LB_OP_CONV:
    case LB_OP_LINEAR: return begin_conv(l, i);
    case LB_OP_AVGPOOL: return begin_avgpool(l, i);
    case LB_OP_SHORTCUTPAD: return begin_shortcutpad(l, i);
    case LB_OP_MAXPOOL: begin_pool(l, LBRT_OP_MAXPOOL, i, l->place[index_of(l, source(l, node, 0))]); return LB_OK;
    case LB_OP_CONCAT: return begin_concat(l, i, groups);
    case LB_OP_FUNC: return begin_func(l, i);
    case LB_OP_MUL: return begin_mul(l, i);
    default: break;
    }
    if (x->from_pixels)
        return begin_input(l, i);
    const lb_numeric *src = source(l, node, 0);
    LB_TRY(lb_lower_point(l, i, src, &x->shape, node->op == LB_OP_ADD ? x->kind == LB_NUM_F32 : src->kind == LB_NUM_F32, s));
    return append(l, s, i, r);
}

static bool is_output(const lb_lowering *l, int i) { return l->n->nodes[l->net->nnodes - 1].tensor == i; }

/* What the other operand of a group's addition needs, which comes before the group. At most one addition is in a group. */
static lb_status begin_residual(lb_lowering *l, const group *g, const int *into, residual *r) {
    for (int i = g->head;; i = l->n->nodes[i].reader) {
        const lb_node *node = &l->net->nodes[i];
        if (node->op == LB_OP_ADD) {
            const lb_numeric *a = source(l, node, 0), *b = source(l, node, 1);
            LB_TRY(make_residual(l, i, i != g->head && into[i] == index_of(l, b) ? a : b, r));
        }
        if (i == g->tail)
            return LB_OK;
    }
}

/* Scores in fixed point: in the last layer's epilogue if it has room, else in a layer of their own. */
static lb_status end_scores(lb_lowering *l, lb_lower_state *s, int tail, int *place) {
    const lb_numeric *x = &l->n->nodes[tail];
    lbrt_layer *layer = lb_lower_last(l);
    const bool has_room = layer->op == LBRT_OP_CONV || layer->op == LBRT_OP_POINT;
    if (x->kind == LB_NUM_F32 && has_room) {
        layer->epilogue.flags |= LBRT_TO_FIXED;
    } else if (x->kind != LB_NUM_FIXED && !(x->kind == LB_NUM_INT && has_room && layer->epilogue.flags == 0)) {
        LB_TRY(lb_lower_end(l, &x->shape, place));
        LB_TRY(lb_lower_point(l, tail, x, &x->shape, x->kind == LB_NUM_F32, s));
        if (x->kind == LB_NUM_F32)
            lb_lower_last(l)->epilogue.flags |= LBRT_TO_FIXED;
        else
            LB_TRY(lb_lower_fixed(l, s, x->shape.c));
    } else if (x->kind == LB_NUM_INT) {
        LB_TRY(lb_lower_fixed(l, s, x->shape.c));
    }
    LB_TRY(lb_lower_end(l, &x->shape, place));
    if (x->shape.h != 1 || x->shape.w != 1)
        return lb_fail(l->out->pool.ctx, LB_ERR_UNSUPPORTED,
                       "%s: scores of an image with %d x %d pixels; put a linear layer or a global pooling last",
                       l->net->nodes[tail].name, x->shape.h, x->shape.w);
    return LB_OK;
}

static lb_status lower_group(lb_lowering *l, const group *groups, const group *g, const int *into) {
    residual r = {0};
    lb_lower_state s;
    LB_TRY(begin_residual(l, g, into, &r));
    LB_TRY(begin_group(l, groups, g->head, &r, &s));
    for (int i = g->head; i != g->tail && l->net->nodes[g->head].op != LB_OP_CONCAT;) { /* a concat's codes are there */
        i = l->n->nodes[i].reader;
        LB_TRY(append(l, &s, i, &r));
    }
    const lb_shape *shape = &l->n->nodes[g->tail].shape;
    if (g->concat >= 0) {
        const int coder = coder_of(l, g->concat);
        if (s.kind != LB_NUM_F32)
            LB_TRY(lb_lower_fixed(l, &s, shape->c));
        if (coder >= 0)
            lb_lower_act(l, &l->n->nodes[coder]);
    }
    int *place = &l->place[g->tail];
    return is_output(l, g->tail) ? end_scores(l, &s, g->tail, place) : lb_lower_end(l, shape, place);
}

/* ---- The whole network ----------------------------------------------------------------------------------------------- */

static lb_status lower_all(lb_lowering *l, group *groups, int *into) {
    const lb_shape *image = &l->net->nodes[0].dst;
    l->tensors[0] = (lbrt_tensor){image->h, image->w, image->c, LBRT_U8, 0, 255};
    l->out->graph.ntensors = 1;
    find_groups(l, groups);
    for (int i = 0; i < l->net->nnodes; i++) /* what each node of a group was appended to */
        for (int t = groups[i].tail < 0 ? -1 : groups[i].head; t >= 0 && t != i; t = l->n->nodes[t].reader)
            into[l->n->nodes[t].reader] = t;
    for (int i = 0; i < l->net->nnodes; i++)
        if (groups[i].tail >= 0)
            LB_TRY(lower_group(l, groups, &groups[i], into));
    return LB_OK;
}

static lb_status copy_names(lb_lowered *out, const lb_net *net, const char *const *class_names) {
    lbrt_graph *g = &out->graph;
    g->name = lb_pool_strdup(&out->pool, net->name);
    g->classes = net->classes;
    if (!g->name)
        return LB_ERR_MEMORY;
    if (!class_names)
        return LB_OK;
    const char **names = lb_pool_alloc(&out->pool, (size_t)net->classes, sizeof *names);
    if (!names)
        return LB_ERR_MEMORY;
    for (int c = 0; c < net->classes; c++)
        if (!(names[c] = lb_pool_strdup(&out->pool, class_names[c])))
            return LB_ERR_MEMORY;
    g->class_names = names;
    return LB_OK;
}

static lb_status copy_layer_names(lb_lowered *out, lbrt_layer *layers) {
    for (int i = 0; i < out->graph.nlayers; i++) {
        layers[i].name = lb_pool_strdup(&out->pool, layers[i].name);
        if (!layers[i].name)
            return LB_ERR_MEMORY;
    }
    return LB_OK;
}

static lb_status lower(lb_lowered *out, const lb_net *net, const float *mean, const float *std, const char *const *class_names) {
    lb_ctx *ctx = out->pool.ctx;
    const size_t nnodes = (size_t)net->nnodes, most = (LB_MAX_SRC + 3) * nnodes + 2; /* layers: one for each source of a concat */
    lb_lowering l = {.out = out, .net = net};
    LB_TRY(copy_names(out, net, class_names));
    l.tensors = lb_pool_alloc(&out->pool, most + 1, sizeof *l.tensors);
    l.layers = lb_pool_alloc(&out->pool, most, sizeof *l.layers);
    out->layer_node = lb_pool_alloc(&out->pool, most, sizeof *out->layer_node);
    out->graph.tensors = l.tensors;
    out->graph.layers = l.layers;
    l.place = lb_alloc(ctx, 2 * nnodes, sizeof *l.place);
    group *groups = lb_alloc(ctx, nnodes, sizeof *groups);
    lb_status status = l.tensors && l.layers && out->layer_node && l.place && groups ? LB_OK : LB_ERR_MEMORY;
    for (size_t i = 0; status == LB_OK && i < 2 * nnodes; i++)
        l.place[i] = -1;
    if (status == LB_OK)
        status = lb_numerics_create(ctx, net, mean, std, &l.n);
    if (status == LB_OK)
        status = lower_all(&l, groups, l.place + nnodes);
    if (status == LB_OK)
        status = copy_layer_names(out, l.layers);
    lb_numerics_destroy(l.n);
    lb_free(ctx, groups);
    lb_free(ctx, l.place);
    return status;
}

lb_status lb_lower(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], const char *const *class_names,
                   lb_lowered **lowered) {
    *lowered = NULL;
    lb_lowered *out = lb_alloc(ctx, 1, sizeof *out);
    if (!out)
        return LB_ERR_MEMORY;
    lb_pool_init(&out->pool, ctx);
    const lb_status status = lower(out, net, mean, std, class_names);
    if (status != LB_OK) {
        lb_lowered_destroy(out);
        return status;
    }
    *lowered = out;
    return LB_OK;
}

void lb_lowered_destroy(lb_lowered *lowered) {
    if (!lowered)
        return;
    lb_ctx *ctx = lowered->pool.ctx;
    lb_pool_free(&lowered->pool);
    lb_free(ctx, lowered);
}

/* Compiles a network into the evaluator's stages. */
#include <math.h>

#include "train/evaluate_plan.h"

#define CHUNK_BYTES (1 << 19) /* of the largest tensor: a few tensors of a chunk then fit into the second-level cache */
#define CHUNK_MAX 32

/* What the numbers of a chain are while it is being built. */
typedef struct state {
    lb_number kind;
    const lb_numeric *x; /* INT: whose steps they have */
} state;

typedef struct builder {
    lb_eval_plan *plan;
    const lb_net *net;
    lb_chain *next; /* where the next operation goes */
    int *count;
    size_t period;
} builder;

static lb_stored stored_type(const lb_numeric *x) {
    if (x->kind == LB_NUM_F32)
        return LB_STORED_F32;
    if (x->kind == LB_NUM_FIXED)
        return LB_STORED_I32;
    return x->lo >= 0 && x->hi <= 255 ? LB_STORED_U8 : x->lo >= -128 && x->hi <= 127 ? LB_STORED_S8 : LB_STORED_I32;
}

static size_t period_of(int c) { return (size_t)c * (c < LB_EVAL_BLOCK ? (size_t)(LB_EVAL_BLOCK / c) : 1); }

static lb_chain *push(builder *b, lb_chain_kind kind) {
    lb_chain *op = b->next++;
    ++*b->count;
    op->kind = kind;
    return op;
}

/* Makes room for `capacity` operations. */
static lb_status begin(builder *b, lb_eval_plan *plan, const lb_net *net, int capacity, size_t period, lb_chain **list,
                       int *count) {
    *list = lb_pool_alloc(&plan->memory, (size_t)LB_MAX(capacity, 1), sizeof **list);
    *b = (builder){plan, net, *list, count, period};
    return *list ? LB_OK : LB_ERR_MEMORY;
}

/* Whether numbers within x's range keep to int32. */
static bool fits(const lbrt_requant *r, int n, const lb_numeric *x) {
    for (int i = 0; i < n; i++)
        for (int end = 0; end < 2; end++) {
            const int64_t y = lbrt_shift_right((int64_t)(end ? x->hi : x->lo) * r[i].mul + r[i].add, r[i].shift);
            if (y < INT32_MIN || y > INT32_MAX)
                return false;
        }
    return true;
}

/* x: INT numbers that it is applied to, or NULL. */
static lb_status push_requant(builder *b, const lbrt_requant *r, int n, const lb_numeric *x) {
    if (n == 1) {
        push(b, LB_CHAIN_REQUANT1)->r = *r;
        return LB_OK;
    }
    lb_chain *op = push(b, LB_CHAIN_REQUANT);
    op->mul = lb_pool_alloc(&b->plan->memory, b->period, sizeof *op->mul);
    op->add = lb_pool_alloc(&b->plan->memory, b->period, sizeof *op->add);
    op->shift = lb_pool_alloc(&b->plan->memory, b->period, sizeof *op->shift);
    if (!op->mul || !op->add || !op->shift)
        return LB_ERR_MEMORY;
    for (size_t i = 0; i < b->period; i++) {
        op->mul[i] = r[i % (size_t)n].mul;
        op->add[i] = r[i % (size_t)n].add;
        op->shift[i] = r[i % (size_t)n].shift;
    }
    op->fits = x && fits(r, n, x);
    return LB_OK;
}

static float *spread(builder *b, const float *values, int n) {
    float *all = lb_pool_alloc(&b->plan->memory, b->period, sizeof *all);
    for (size_t i = 0; all && i < b->period; i++)
        all[i] = values[i % (size_t)n];
    return all;
}

/* Of numbers within at most 16. */
static lb_status push_table(builder *b, const lb_numeric *x) {
    lb_chain *op = push(b, LB_CHAIN_TABLE);
    op->table = lb_pool_alloc(&b->plan->memory, 16, sizeof *op->table);
    if (!op->table)
        return LB_ERR_MEMORY;
    for (int32_t v = x->lo; v <= x->hi; v++)
        op->table[v & 15] = lbrt_apply(x->to_fixed, v);
    return LB_OK;
}

static lb_status push_fixed(builder *b, state *s) {
    if (s->kind == LB_NUM_INT && s->x->nsteps == 1 && (int64_t)s->x->hi - s->x->lo < 16)
        LB_TRY(push_table(b, s->x));
    else if (s->kind == LB_NUM_INT)
        LB_TRY(push_requant(b, s->x->to_fixed, s->x->nsteps, s->x));
    s->kind = LB_NUM_FIXED;
    return LB_OK;
}

static lb_status push_float(builder *b, state *s) {
    if (s->kind == LB_NUM_F32)
        return LB_OK;
    if (s->kind == LB_NUM_FIXED || s->x->nsteps == 1) {
        push(b, LB_CHAIN_FLOAT1)->step = s->kind == LB_NUM_FIXED ? 0x1p-16f : lb_numeric_step(s->x, 0);
    } else {
        lb_chain *op = push(b, LB_CHAIN_FLOAT);
        op->scale = lb_pool_alloc(&b->plan->memory, b->period, sizeof *op->scale);
        if (!op->scale)
            return LB_ERR_MEMORY;
        for (size_t i = 0; i < b->period; i++)
            op->scale[i] = lb_numeric_step(s->x, (int)(i % (size_t)s->x->nsteps));
    }
    s->kind = LB_NUM_F32;
    return LB_OK;
}

/* The affine that node numeric x holds, if any. */
static lb_status push_affine(builder *b, state *s, const lb_numeric *x) {
    if (x->requant) {
        LB_TRY(push_requant(b, x->requant, x->affine_channels, s->kind == LB_NUM_INT ? s->x : NULL));
        s->kind = LB_NUM_FIXED;
    } else if (x->scale) {
        lb_chain *op = push(b, LB_CHAIN_AFFINE);
        op->scale = spread(b, x->scale, x->affine_channels);
        op->offset = spread(b, x->offset, x->affine_channels);
        op->flo = -INFINITY;
        op->fhi = INFINITY;
        if (!op->scale || !op->offset)
            return LB_ERR_MEMORY;
    }
    return LB_OK;
}

static void push_clamp(builder *b, int32_t lo, int32_t hi) {
    lb_chain *op = push(b, LB_CHAIN_CLAMP);
    op->lo = lo;
    op->hi = hi;
}

/* The last operation is one that clamps, and does not yet. */
static bool clamps(const builder *b) {
    const lb_chain *op = b->next - 1;
    return *b->count > 0 && (op->kind == LB_CHAIN_AFFINE || op->kind == LB_CHAIN_ADD_F32) && op->flo == -INFINITY &&
           op->fhi == INFINITY;
}

static lb_status push_act(builder *b, state *s, const lb_numeric *x) {
    if (x->from_pixels) {
        LB_TRY(push_affine(b, s, x));
        push_clamp(b, x->qlo, x->qhi);
    } else if (s->kind == LB_NUM_F32 && !x->quantized && clamps(b)) {
        lb_chain *op = b->next - 1;
        op->flo = x->flo;
        op->fhi = x->fhi;
    } else if (s->kind == LB_NUM_F32) {
        lb_chain *op = push(b, !x->quantized ? LB_CHAIN_CLAMP_F32 : x->sign ? LB_CHAIN_SIGN_F32 : LB_CHAIN_CODE_F32);
        op->step = x->inv_step;
        op->flo = x->quantized ? (float)x->qlo : x->flo;
        op->fhi = x->quantized ? (float)x->qhi : x->fhi;
    } else {
        LB_TRY(push_fixed(b, s));
        if (x->quantized && x->sign) {
            push(b, LB_CHAIN_SIGN);
        } else if (x->quantized) {
            push(b, LB_CHAIN_REQUANT1)->r = x->q;
            push_clamp(b, x->qlo, x->qhi);
        } else {
            push_clamp(b, x->clo, x->chi);
        }
    }
    *s = (state){x->kind, x};
    return LB_OK;
}

static lb_status push_add(builder *b, state *s, const lb_numeric *x, int other) {
    lb_numerics *n = b->plan->numerics;
    state t = {n->nodes[other].kind, &n->nodes[other]};
    const bool fixed = x->kind == LB_NUM_FIXED;
    LB_TRY(fixed ? push_fixed(b, s) : push_float(b, s));
    lb_chain *op = push(b, fixed ? LB_CHAIN_ADD : LB_CHAIN_ADD_F32);
    op->other = other;
    op->flo = -INFINITY;
    op->fhi = INFINITY;
    builder before;
    LB_TRY(begin(&before, b->plan, b->net, 1, b->period, &op->before, &op->nbefore));
    return fixed ? push_fixed(&before, &t) : push_float(&before, &t);
}

/* One elementwise node behind tensor `main`. */
static lb_status push_node(builder *b, state *s, int index, int main) {
    const lb_node *node = &b->net->nodes[index];
    const lb_numerics *n = b->plan->numerics;
    const lb_numeric *x = &n->nodes[index];
    if (node->op == LB_OP_BATCHNORM)
        return push_affine(b, s, x);
    if (node->op == LB_OP_ACT)
        return push_act(b, s, x);
    const int a = n->nodes[node->src[0]].tensor, c = n->nodes[node->src[1]].tensor;
    return push_add(b, s, x, a == main ? c : a);
}

static bool is_elementwise(lb_op op) { return op == LB_OP_BATCHNORM || op == LB_OP_ACT || op == LB_OP_ADD; }

/* The tensor that elementwise node i continues in place, -1: none. Of two candidates the later one. */
static int joins(const lb_net *net, const lb_numerics *n, int i) {
    int best = -1;
    for (int s = 0; is_elementwise(net->nodes[i].op) && s < net->nodes[i].nsrc; s++) {
        const int t = n->nodes[net->nodes[i].src[s]].tensor;
        const lb_numeric *src = &n->nodes[t], *x = &n->nodes[i];
        if (src->reader == i && t > best && !x->from_pixels && src->shape.c == x->shape.c && src->shape.h == x->shape.h &&
            src->shape.w == x->shape.w)
            best = t;
    }
    return best;
}

/* concat, func, mul: all sources in fixed point, or all as floats. */
static lb_status stage_sources(lb_eval_plan *plan, lb_stage *st, const lb_net *net, lb_stage_op op) {
    const lb_numerics *n = plan->numerics;
    const lb_node *node = &net->nodes[st->node];
    const lb_numeric *x = &n->nodes[st->node];
    const bool fixed = x->kind == LB_NUM_FIXED;
    size_t staging = 0;
    st->op = op;
    st->acc_type = fixed ? LB_STORED_I32 : LB_STORED_F32;
    st->func = x;
    st->func_kind = node->u.func.kind;
    st->nsources = node->nsrc;
    st->sources = lb_pool_alloc(&plan->memory, (size_t)node->nsrc, sizeof *st->sources);
    if (!st->sources)
        return LB_ERR_MEMORY;
    for (int s = 0; s < node->nsrc; s++) {
        const lb_numeric *src = lb_numeric_src(n, node, s);
        lb_eval_source *from = &st->sources[s];
        *from = (lb_eval_source){.tensor = (int)(src - n->nodes),
                                 .c = src->shape.c,
                                 .period = period_of(src->shape.c),
                                 .count = lb_shape_count(&src->shape)};
        builder b;
        state now = {src->kind, src};
        LB_TRY(begin(&b, plan, net, 1, from->period, &from->chain, &from->nchain));
        if (fixed && src->kind == LB_NUM_F32)
            push(&b, LB_CHAIN_FIXED_F32);
        else
            LB_TRY(fixed ? push_fixed(&b, &now) : push_float(&b, &now));
        staging += from->count * (size_t)plan->chunk * 4;
    }
    plan->staging = LB_MAX(plan->staging, staging);
    return LB_OK;
}

/* A convolution or linear layer: its way (evaluate_conv.c), and the source as numbers that this way takes. */
static lb_status stage_conv(lb_eval_plan *plan, lb_infer *infer, lb_stage *st, const lb_net *net, const lb_numeric *src) {
    builder b;
    state s = {src->kind, src};
    st->op = LB_STAGE_CONV;
    LB_TRY(lb_eval_plan_conv(plan, infer, st));
    if (st->way == LB_WAY_INT8 || src->kind == LB_NUM_F32)
        return LB_OK;
    st->staged = st->way != LB_WAY_INT32 || st->src_type != LB_STORED_I32;
    st->src_type = st->way == LB_WAY_INT32 ? LB_STORED_I32 : LB_STORED_F32;
    LB_TRY(begin(&b, plan, net, 1, st->staging_period, &st->staging, &st->nstaging));
    if (st->way == LB_WAY_WHOLE)
        push(&b, LB_CHAIN_FLOAT1)->step = 1;
    else if (st->way != LB_WAY_INT32)
        LB_TRY(push_float(&b, &s));
    return LB_OK;
}

/* A largest or a sum of a window; sums of whole numbers that become fixed point are taken of fixed point. */
static lb_status stage_pool(lb_eval_plan *plan, lb_stage *st, const lb_net *net, const lb_numeric *x, const lb_numeric *src) {
    const lb_node *node = &net->nodes[st->node];
    const lb_pooling *p = &node->u.pool;
    builder b;
    state s = {src->kind, src};
    st->op = node->op == LB_OP_MAXPOOL ? LB_STAGE_MAXPOOL : LB_STAGE_SUMPOOL;
    st->pool = (lb_eval_pool){.ih = src->shape.h, .iw = src->shape.w, .c = src->shape.c, .oh = x->shape.h, .ow = x->shape.w,
                              .kh = p->kh, .kw = p->kw, .sh = p->sh, .sw = p->sw, .pt = p->pt, .pl = p->pl, .inside = p->inside};
    if (node->op == LB_OP_MAXPOOL)
        return LB_OK;
    st->acc_type = src->kind == LB_NUM_F32 ? LB_STORED_F32 : LB_STORED_I32;
    if (src->kind != LB_NUM_INT || x->kind != LB_NUM_FIXED)
        return LB_OK;
    st->staged = true;
    st->src_type = LB_STORED_I32;
    LB_TRY(begin(&b, plan, net, 1, st->staging_period, &st->staging, &st->nstaging));
    return push_fixed(&b, &s);
}

/* How the operator reads its source, and what it leaves. */
static lb_status stage_operator(lb_eval_plan *plan, lb_infer *infer, lb_stage *st, const lb_net *net) {
    const lb_numerics *n = plan->numerics;
    const lb_node *node = &net->nodes[st->node];
    const lb_numeric *x = &n->nodes[st->node];
    const lb_numeric *src = node->nsrc ? lb_numeric_src(n, node, 0) : NULL;
    st->src = src ? (int)(src - n->nodes) : -1;
    st->acc_count = lb_shape_count(&x->shape);
    if (!src || x->from_pixels) {
        st->op = src ? LB_STAGE_POINT : LB_STAGE_PIXELS;
        st->src = -1;
        st->src_type = LB_STORED_U8;
        st->src_count = lb_shape_count(&net->nodes[0].dst);
        st->acc_type = src ? LB_STORED_U8 : LB_STORED_F32;
        return LB_OK;
    }
    st->acc_type = st->src_type = stored_type(src);
    st->src_count = lb_shape_count(&src->shape);
    st->staging_period = period_of(src->shape.c);
    switch (node->op) {
    case LB_OP_CONV:
    case LB_OP_LINEAR: return stage_conv(plan, infer, st, net, src);
    case LB_OP_MAXPOOL:
    case LB_OP_AVGPOOL: return stage_pool(plan, st, net, x, src);
    case LB_OP_SHORTCUTPAD:
        st->op = LB_STAGE_PAD;
        st->rows = node->u.shortcutpad.rows;
        st->cols = node->u.shortcutpad.cols;
        st->parts = node->u.shortcutpad.parts;
        st->nparts = node->u.shortcutpad.nparts;
        st->pool = (lb_eval_pool){.iw = src->shape.w, .c = src->shape.c, .oh = x->shape.h, .ow = x->shape.w};
        return LB_OK;
    case LB_OP_CONCAT: return stage_sources(plan, st, net, LB_STAGE_CONCAT);
    case LB_OP_FUNC: return stage_sources(plan, st, net, LB_STAGE_FUNC);
    case LB_OP_MUL: return stage_sources(plan, st, net, LB_STAGE_MUL);
    default: st->op = LB_STAGE_POINT; return LB_OK;
    }
}

/* Appends the chain: the first node's own affine or, of an elementwise first node, the node itself; then everything that joined. */
static lb_status stage_chain(lb_eval_plan *plan, lb_stage *st, const lb_net *net, const int *joined) {
    lb_numerics *n = plan->numerics;
    const lb_node *node = &net->nodes[st->node];
    const lb_numeric *x = &n->nodes[st->node];
    const bool output = st->tail == n->nodes[net->nnodes - 1].tensor;
    int nodes = 1;
    for (int i = st->node; i != st->tail; i = n->nodes[i].reader)
        nodes++;
    builder b;
    st->c = x->shape.c;
    st->period = period_of(x->shape.c);
    LB_TRY(begin(&b, plan, net, 3 * nodes + 2, st->period, &st->chain, &st->nchain));
    state s = {x->kind, x};
    if (st->op == LB_STAGE_PIXELS) {
        st->pixel_scale = spread(&b, n->scale, st->c);
        st->pixel_offset = spread(&b, n->offset, st->c);
        if (!st->pixel_scale || !st->pixel_offset)
            return LB_ERR_MEMORY;
    } else if (st->op == LB_STAGE_POINT) {
        const lb_numeric *src = lb_numeric_src(n, node, 0);
        s = (state){src->kind, src};
        LB_TRY(push_node(&b, &s, st->node, (int)(src - n->nodes)));
    } else {
        LB_TRY(push_affine(&b, &s, x));
    }
    for (int i = st->node; i != st->tail;) {
        const int next = n->nodes[i].reader;
        LB_TRY(push_node(&b, &s, next, joined[next]));
        s.x = &n->nodes[next];
        i = next;
    }
    if (output) {
        if (s.kind == LB_NUM_F32)
            push(&b, LB_CHAIN_FIXED_F32);
        else
            LB_TRY(push_fixed(&b, &s));
    }
    return lb_eval_plan_steps(&plan->memory, st->chain, &st->nchain, st->c, st->period);
}

/* Notes that stage `index` reads tensor t. */
static void reads(lb_eval_plan *plan, int t, int index) {
    if (t >= 0)
        plan->tensors[t].last = LB_MAX(plan->tensors[t].last, index);
}

static size_t aligned(size_t size) { return (size + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN; }

static size_t tensor_size(const lb_eval_plan *plan, const lb_eval_tensor *t) {
    return aligned(t->count * lb_stored_size(t->type) * (size_t)plan->chunk);
}

/* First fit: a tensor must not overlap one that is alive together with it. */
static size_t place_tensors(lb_eval_plan *plan, int nnodes) {
    size_t end = 0;
    for (int i = 0; i < plan->nstages - 1; i++) { /* in the order of first use; the last one is the scores */
        lb_eval_tensor *t = &plan->tensors[plan->stages[i].dst];
        const size_t size = tensor_size(plan, t);
        bool moved = true;
        while (moved) {
            moved = false;
            for (int j = 0; j < nnodes; j++) {
                const lb_eval_tensor *u = &plan->tensors[j];
                if (!u->made || u == t || u->first >= t->first || u->last < t->first)
                    continue;
                const size_t u_size = tensor_size(plan, u);
                if (t->offset < u->offset + u_size && u->offset < t->offset + size) {
                    t->offset = u->offset + u_size;
                    moved = true;
                }
            }
        }
        end = LB_MAX(end, t->offset + size);
    }
    return end;
}

static void place(lb_eval_plan *plan, int nnodes) {
    size_t end = place_tensors(plan, nnodes);
    size_t *const parts[] = {&plan->staging, &plan->acc, &plan->merged, &plan->scratch};
    for (size_t i = 0; i < LB_COUNT(parts); i++) {
        const size_t size = *parts[i];
        *parts[i] = end;
        end += aligned(size);
    }
    plan->workspace = end + LB_ALIGN;
}

static lb_status build_stages(lb_eval_plan *plan, lb_infer *infer, const lb_net *net, int *joined, int *order) {
    lb_numerics *n = plan->numerics;
    /* A stage runs at its last node's place, so that everything its chain reads is there. */
    for (int i = 0; i < net->nnodes; i++) {
        joined[i] = -1;
        order[i] = -1;
        if (!n->nodes[i].live || n->nodes[i].tensor != i || (i == 0 && n->pixels_direct))
            continue;
        joined[i] = joins(net, n, i);
        order[i] = joined[i] < 0 ? i : order[joined[i]]; /* first node */
        if (joined[i] >= 0)
            order[joined[i]] = -1;
    }
    for (int i = 0; i < net->nnodes; i++) {
        if (order[i] < 0)
            continue;
        lb_stage *st = &plan->stages[plan->nstages];
        st->node = order[i];
        st->tail = st->dst = i;
        LB_TRY(stage_operator(plan, infer, st, net));
        LB_TRY(stage_chain(plan, st, net, joined));
        plan->tensors[i] = (lb_eval_tensor){.made = true,
                                            .type = stored_type(&n->nodes[i]),
                                            .count = lb_shape_count(&n->nodes[i].shape),
                                            .first = plan->nstages,
                                            .last = plan->nstages};
        reads(plan, st->src, plan->nstages);
        for (int k = 0; k < st->nsources; k++)
            reads(plan, st->sources[k].tensor, plan->nstages);
        for (int k = 0; k < st->nchain; k++)
            if (st->chain[k].kind == LB_CHAIN_ADD || st->chain[k].kind == LB_CHAIN_ADD_F32)
                reads(plan, st->chain[k].other, plan->nstages);
        const size_t chunk = (size_t)plan->chunk;
        if (st->staged)
            plan->staging = LB_MAX(plan->staging, st->src_count * chunk * 4);
        plan->acc = LB_MAX(plan->acc, st->acc_count * chunk * 4 * (st->halves ? 2 : 1));
        if (st->halves)
            plan->merged = LB_MAX(plan->merged, st->acc_count * chunk * 4);
        if (st->infer)
            plan->scratch = LB_MAX(plan->scratch, lb_infer_conv_scratch(st->infer));
        if (st->tiles)
            plan->scratch = LB_MAX(plan->scratch, st->sums.scratch);
        plan->nstages++;
    }
    return LB_OK;
}

static lb_status compile(lb_eval_plan *plan, lb_infer *infer, const lb_net *net, const float *mean, const float *std, int mb,
                         bool ordered) {
    lb_ctx *ctx = plan->memory.ctx;
    LB_TRY(lb_numerics_create(ctx, net, mean, std, &plan->numerics));
    plan->ordered = ordered || plan->numerics->quantized_activations;
    size_t largest = 1;
    for (int i = 0; i < net->nnodes; i++)
        if (plan->numerics->nodes[i].live)
            largest = LB_MAX(largest, lb_shape_count(&net->nodes[i].dst) * 4);
    const int threads = lb_threads(ctx);
    plan->chunk = (int)LB_MIN(LB_MAX(CHUNK_BYTES / largest, (size_t)4), (size_t)CHUNK_MAX);
    plan->chunk = LB_MAX(LB_MIN(plan->chunk, (mb + threads - 1) / threads), 1);
    plan->stages = lb_pool_alloc(&plan->memory, (size_t)net->nnodes, sizeof *plan->stages);
    plan->tensors = lb_pool_alloc(&plan->memory, (size_t)net->nnodes, sizeof *plan->tensors);
    int *joined = lb_alloc(ctx, 2 * (size_t)net->nnodes, sizeof *joined);
    const lb_status status =
        plan->stages && plan->tensors && joined ? build_stages(plan, infer, net, joined, joined + net->nnodes) : LB_ERR_MEMORY;
    lb_free(ctx, joined);
    LB_TRY(status);
    place(plan, net->nnodes);
    return LB_OK;
}

lb_status lb_eval_plan_create(lb_infer *infer, const lb_net *net, const float mean[4], const float std[4], int mb, bool ordered,
                              lb_eval_plan **out) {
    lb_ctx *ctx = net->ctx;
    *out = NULL;
    lb_eval_plan *plan = lb_alloc(ctx, 1, sizeof *plan);
    if (!plan)
        return LB_ERR_MEMORY;
    lb_pool_init(&plan->memory, ctx);
    const lb_status status = compile(plan, infer, net, mean, std, mb, ordered);
    if (status != LB_OK) {
        lb_eval_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return LB_OK;
}

void lb_eval_plan_destroy(lb_eval_plan *plan) {
    if (!plan)
        return;
    lb_ctx *ctx = plan->memory.ctx;
    for (int i = 0; plan->stages && i <= plan->nstages && i < plan->numerics->net->nnodes; i++) /* the one that failed, too */
        lb_infer_conv_destroy(plan->stages[i].infer);
    lb_numerics_destroy(plan->numerics);
    lb_pool_free(&plan->memory);
    lb_free(ctx, plan);
}

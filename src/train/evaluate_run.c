/* Runs the evaluator's stages on one thread. */
#include "float_rules.h"
#include "train/evaluate_plan.h"

typedef struct run {
    const lb_eval_plan *plan;
    const lb_eval_kernels *k;
    unsigned char *workspace;
    int count;   /* images */
} run;

/* Numbers in flight: int32 or floats, as the chain's last operation left them. They are at `from`, which is the tensor itself as
 * long as nothing was written; then what they are written to, the result's tensor if it is of that type. */
typedef struct block {
    const int32_t *from;
    const float *from_f32;
    int32_t *v;
    float *f;
    uint8_t *codes;            /* the result's tensor, for operations that end in bytes */
    _Alignas(LB_ALIGN) int32_t own[LB_EVAL_BLOCK];
    _Alignas(LB_ALIGN) float own_f32[LB_EVAL_BLOCK];
} block;

static const void *at(const void *base, lb_stored type, size_t index) { return (const char *)base + index * lb_stored_size(type); }
static void *at_mut(void *base, lb_stored type, size_t index) { return (char *)base + index * lb_stored_size(type); }

/* `whole`: the floats are whole numbers and become int32. */
static void load(const lb_eval_kernels *k, const void *src, lb_stored type, bool whole, size_t first, int n, block *b) {
    const void *p = at(src, type, first);
    b->from = type == LB_STORED_I32 ? p : b->v;
    b->from_f32 = p;
    if (type == LB_STORED_F32 && whole)
        k->load_whole(p, n, b->v);
    else if (type == LB_STORED_U8)
        k->load_u8(p, n, b->v);
    else if (type == LB_STORED_S8)
        k->load_s8(p, n, b->v);
}

/* The int32 where they may be written over. */
static int32_t *own(block *b, int n) {
    if (b->from != b->v)
        memcpy(b->v, b->from, (size_t)n * sizeof(int32_t));
    return b->v;
}

/* p: their place in the result. */
static void store(const lb_eval_kernels *k, const block *b, void *p, lb_stored type, int n) {
    if (type == LB_STORED_F32 && b->from_f32 != p)
        memcpy(p, b->from_f32, (size_t)n * sizeof(float));
    else if (type == LB_STORED_I32 && b->from != p)
        memcpy(p, b->from, (size_t)n * sizeof(int32_t));
    else if (type == LB_STORED_U8)
        k->store_u8(b->from, n, p);
    else if (type == LB_STORED_S8)
        k->store_s8(b->from, n, p);
}

/* Operations on numbers [first, first + n) of a tensor, whose parameters begin at `phase`. */
static void apply(const run *r, const lb_chain *chain, int nchain, size_t first, size_t phase, int n, block *b) {
    const lb_eval_kernels *k = r->k;
    for (const lb_chain *op = chain; op < chain + nchain; op++) {
        switch (op->kind) {
        case LB_CHAIN_REQUANT:
            (op->fits ? k->requant_fits : k->requant)(b->from, n, op->mul + phase, op->add + phase, op->shift + phase, b->v);
            break;
        case LB_CHAIN_REQUANT1: k->requant1(b->from, n, op->r, b->v); break;
        case LB_CHAIN_CLAMP: k->clamp(own(b, n), n, op->lo, op->hi); break;
        case LB_CHAIN_SIGN: k->sign(own(b, n), n); break;
        case LB_CHAIN_STEPS:
            k->steps(b->from, n, op->start + phase, op->size + phase, op->above + phase, op->nabove, op->pitch, b->codes);
            break;
        case LB_CHAIN_TABLE: k->look_up(b->from, n, op->table, b->v); break;
        case LB_CHAIN_FLOAT: k->to_float(b->from, n, op->scale + phase, b->f); break;
        case LB_CHAIN_FLOAT1: k->to_float1(b->from, n, op->step, b->f); break;
        case LB_CHAIN_CODE_F32: k->code_f32(b->from_f32, n, op->step, op->flo, op->fhi, b->v); break;
        case LB_CHAIN_SIGN_F32: k->sign_f32(b->from_f32, n, b->v); break;
        case LB_CHAIN_FIXED_F32: k->fixed_f32(b->from_f32, n, b->v); break;
        case LB_CHAIN_AFFINE: k->affine(b->from_f32, n, op->scale + phase, op->offset + phase, op->flo, op->fhi, b->f); break;
        case LB_CHAIN_CLAMP_F32: k->clamp_f32(b->from_f32, n, op->flo, op->fhi, b->f); break;
        case LB_CHAIN_ADD:
        case LB_CHAIN_ADD_F32: {
            const lb_eval_tensor *t = &r->plan->tensors[op->other];
            block other;
            other.v = other.own;
            other.f = other.own_f32;
            load(k, r->workspace + t->offset, t->type, false, first, n, &other);
            apply(r, op->before, op->nbefore, first, phase, n, &other);
            if (op->kind == LB_CHAIN_ADD)
                k->add(own(b, n), other.from, n);
            else
                k->add_f32(b->from_f32, other.from_f32, n, op->flo, op->fhi, b->f);
            break;
        }
        }
        b->from = b->v; /* that is where each of them leaves its numbers */
        b->from_f32 = b->f;
    }
}

/* From one tensor to another through a chain. */
typedef struct route {
    const lb_chain *chain;
    int nchain;
    size_t period;
    const lb_stage *pixels;    /* given if the source is the image, which becomes floats */
    const void *src;
    lb_stored src_type, dst_type;
    bool whole;                /* the source's floats are whole numbers and become int32 */
    void *dst;
} route;

/* Numbers [first, first + count) of dst, block by block; src: the first of them. */
static void pass(const run *r, const route *w, size_t first, size_t count) {
    block b;
    int n;
    for (size_t done = 0; done < count; done += (size_t)n) {
        const size_t index = first + done, phase = index % w->period, left = LB_MIN(w->period - phase, count - done);
        n = (int)LB_MIN(left, (size_t)LB_EVAL_BLOCK);
        void *to = at_mut(w->dst, w->dst_type, index);
        b.v = w->dst_type == LB_STORED_I32 ? to : b.own;
        b.f = w->dst_type == LB_STORED_F32 ? to : b.own_f32;
        b.codes = to;
        if (w->pixels) {
            r->k->pixels((const uint8_t *)w->src + done, n, w->pixels->pixel_scale + phase, w->pixels->pixel_offset + phase, b.f);
            b.from_f32 = b.f;
        } else {
            load(r->k, w->src, w->src_type, w->whole, done, n, &b);
        }
        apply(r, w->chain, w->nchain, index, phase, n, &b);
        if (w->nchain == 0 || w->chain[w->nchain - 1].kind != LB_CHAIN_STEPS)
            store(r->k, &b, to, w->dst_type, n);
    }
}

/* A convolution whose sums are finished band by band. */
typedef struct bands {
    const run *r;
    const lb_stage *st;
    void *dst;
    lb_stored dst_type;
} bands;

static void finish_band(void *user, int n, int y, int rows, const void *sums) {
    const bands *b = user;
    const lb_stage *st = b->st;
    const lb_sums *s = &st->sums;
    const size_t row = (size_t)s->ow * (size_t)s->oc, next = s->result_row * (size_t)s->oc;
    const size_t first = (size_t)n * st->acc_count + (size_t)y * row;
    const bool gaps = next > row;
    route w = {.chain = st->chain, .nchain = st->nchain, .period = st->period, .src_type = st->acc_type, .dst = b->dst,
               .dst_type = b->dst_type};
    for (int i = 0; i < (gaps ? rows : 1); i++) {
        w.src = at(sums, st->acc_type, (size_t)i * next);
        pass(b->r, &w, first + (size_t)i * row, gaps ? row : (size_t)rows * row);
    }
}

static void run_bands(const run *r, const lb_stage *st, const void *src, void *dst, lb_stored dst_type) {
    bands b = {r, st, dst, dst_type};
    st->tiles->conv(&st->sums, src, st->vector ? 1 : r->count, st->vector ? r->count : st->oh, st->sums_weights,
                    r->workspace + r->plan->scratch, finish_band, &b);
}

/* The plain loop, for sums that nothing faster keeps exact. */
static void conv_int32(const lb_stage *st, const int32_t *src, int32_t *dst) {
    const lb_conv *c = &st->conv;
    const int icg = st->ic / c->groups, ocg = c->oc / c->groups;
    for (int y = 0; y < st->oh; y++) {
        for (int x = 0; x < st->ow; x++) {
            for (int o = 0; o < c->oc; o++) {
                const int32_t *weights = st->int_weights + (int64_t)o * c->kh * c->kw * icg;
                int32_t acc = 0;
                for (int ky = 0; ky < c->kh; ky++) {
                    for (int kx = 0; kx < c->kw; kx++) {
                        const int iy = y * c->sh - c->pt + ky * (c->gap_h + 1), ix = x * c->sw - c->pl + kx * (c->gap_w + 1);
                        if (iy < 0 || iy >= st->ih || ix < 0 || ix >= st->iw)
                            continue;
                        const int32_t *s = src + ((int64_t)iy * st->iw + ix) * st->ic + o / ocg * icg;
                        const int32_t *w = weights + (ky * c->kw + kx) * icg;
                        for (int i = 0; i < icg; i++)
                            acc += s[i] * w[i];
                    }
                }
                *dst++ = acc;
            }
        }
    }
}

static bool run_conv(const run *r, const lb_stage *st, int thread, const void *src, void *acc) {
    if (st->infer)
        return lb_infer_conv_run(st->infer, thread, src, acc, r->workspace + r->plan->scratch);
    if (st->way == LB_WAY_ORDERED && st->vector) {
        lb_ordered_conv conv = st->ordered;
        conv.iw = conv.ow = r->count;
        r->k->conv_ordered(&conv, src, acc);
        return true;
    }
    for (int i = 0; i < r->count; i++) {
        const void *s = at(src, st->src_type, (size_t)i * st->src_count);
        void *d = at_mut(acc, st->acc_type, (size_t)i * st->acc_count);
        if (st->way == LB_WAY_ORDERED)
            r->k->conv_ordered(&st->ordered, s, d);
        else
            conv_int32(st, s, d);
    }
    return true;
}

static void run_pool(const run *r, const lb_stage *st, const void *src, void *acc) {
    const lb_eval_kernels *k = r->k;
    const bool max = st->op == LB_STAGE_MAXPOOL;
    for (int i = 0; i < r->count; i++) {
        const void *s = at(src, st->src_type, (size_t)i * st->src_count);
        void *d = at_mut(acc, st->acc_type, (size_t)i * st->acc_count);
        switch (st->src_type) {
        case LB_STORED_U8: max ? k->max_u8(&st->pool, s, d) : k->sum_u8(&st->pool, s, d); break;
        case LB_STORED_S8: max ? k->max_s8(&st->pool, s, d) : k->sum_s8(&st->pool, s, d); break;
        case LB_STORED_I32: max ? k->max_i32(&st->pool, s, d) : k->sum_i32(&st->pool, s, d); break;
        case LB_STORED_F32: max ? k->max_f32(&st->pool, s, d) : k->sum_f32(&st->pool, s, d); break;
        }
    }
}

/* Pixels by their rows and columns: runs of their channels, zeros elsewhere. */
static void run_pad(const run *r, const lb_stage *st, const void *src, void *acc) {
    const lb_eval_pool *p = &st->pool;
    const size_t size = lb_stored_size(st->src_type), from = (size_t)p->c * size, to = (size_t)st->c * size;
    for (int i = 0; i < r->count; i++) {
        const char *s = at(src, st->src_type, (size_t)i * st->src_count);
        char *d = at_mut(acc, st->acc_type, (size_t)i * st->acc_count);
        for (int y = 0; y < p->oh; y++)
            for (int x = 0; x < p->ow; x++, d += to) {
                const bool there = st->rows[y] >= 0 && st->cols[x] >= 0;
                const char *pixel = there ? s + ((size_t)st->rows[y] * (size_t)p->iw + (size_t)st->cols[x]) * from : NULL;
                memset(d, 0, to);
                for (int k = 0; there && k < st->nparts; k++)
                    memcpy(d + (size_t)st->parts[k].dst * size, pixel + (size_t)st->parts[k].src * size,
                           (size_t)st->parts[k].count * size);
            }
    }
}

/* Source k through its chain, to `dst`; where that ends. */
static void *read_source(const run *r, const lb_stage *st, int k, void *dst) {
    const lb_eval_source *source = &st->sources[k];
    const lb_eval_tensor *t = &r->plan->tensors[source->tensor];
    const size_t count = (size_t)r->count * source->count;
    const route w = {.chain = source->chain, .nchain = source->nchain, .period = source->period, .src = r->workspace + t->offset,
                     .src_type = t->type, .dst = dst, .dst_type = st->acc_type};
    pass(r, &w, 0, count);
    return at_mut(dst, st->acc_type, count);
}

/* Each source's pixels to their place among the others'. */
static void run_concat(const run *r, const lb_stage *st, void *acc) {
    const size_t size = lb_stored_size(st->acc_type), row = (size_t)st->c * size;
    void *staging = r->workspace + r->plan->staging;
    size_t first = 0;
    for (int k = 0; k < st->nsources; k++) {
        const size_t own = (size_t)st->sources[k].c * size;
        const char *end = read_source(r, st, k, staging);
        char *to = (char *)acc + first;
        for (const char *from = staging; from < end; from += own, to += row)
            memcpy(to, from, own);
        first += own;
    }
}

static void run_mul(const run *r, const lb_stage *st, void *acc) {
    void *const first = r->workspace + r->plan->staging, *const second = read_source(r, st, 0, first);
    const size_t count = st->sources[0].count, other = st->sources[1].count;
    read_source(r, st, 1, second);
    for (size_t n = 0; n < (size_t)r->count; n++)
        for (size_t k = 0; k < count; k++) {
            const size_t i = n * count + k, j = n * other + k % other;
            if (st->acc_type == LB_STORED_F32)
                ((float *)acc)[i] = ((const float *)first)[i] * ((const float *)second)[j];
            else
                ((int32_t *)acc)[i] = lbrt_fixed_mul(((const int32_t *)first)[i], ((const int32_t *)second)[j]);
        }
}

static int32_t func_fixed(lb_func_kind kind, const lbrt_requant *f, int32_t x) {
    const int32_t one = 1 << LBRT_FIX_BITS;
    switch (kind) {
    case LB_FUNC_LEAKY: return lbrt_saturate((int64_t)lbrt_apply(f, LB_MIN(x, 0)) + x);
    case LB_FUNC_SIGMOID: return lbrt_sigmoid(x);
    case LB_FUNC_TANH: return lbrt_apply(&f[1], lbrt_sigmoid(lbrt_apply(&f[0], x)));
    case LB_FUNC_HARDSIGMOID: return lbrt_clamp(lbrt_apply(f, x), 0, one);
    case LB_FUNC_HARDSWISH: break;
    }
    return lbrt_fixed_mul(x, lbrt_clamp(lbrt_apply(f, x), 0, one));
}

/* sigmoid and tanh are always in fixed point. */
static float func_float(lb_func_kind kind, float scale, float offset, float x) {
    if (kind == LB_FUNC_LEAKY)
        return ((x > 0 ? 0 : x) * scale + offset) + x;
    const float gate = lbrt_clamp_f32(x * scale + offset, 0, 1);
    return kind == LB_FUNC_HARDSWISH ? x * gate : gate;
}

static void run_func(const run *r, const lb_stage *st, void *acc) {
    const size_t count = (size_t)r->count * st->sources[0].count;
    const lb_numeric *x = st->func;
    read_source(r, st, 0, acc);
    const size_t c = st->func_kind == LB_FUNC_TANH ? 1 : (size_t)LB_MAX(x->func_channels, 1);
    for (size_t i = 0; i < count; i++)
        if (st->acc_type == LB_STORED_F32)
            ((float *)acc)[i] = func_float(st->func_kind, x->func_scale[i % c], x->func_offset[i % c], ((float *)acc)[i]);
        else
            ((int32_t *)acc)[i] = func_fixed(st->func_kind, x->func + i % c, ((int32_t *)acc)[i]);
}

/* The stage's own operator, into accumulators. */
static bool run_op(const run *r, const lb_stage *st, int thread, const void *src, void *acc) {
    switch (st->op) {
    case LB_STAGE_CONV: return run_conv(r, st, thread, src, acc);
    case LB_STAGE_PAD: run_pad(r, st, src, acc); break;
    case LB_STAGE_CONCAT: run_concat(r, st, acc); break;
    case LB_STAGE_FUNC: run_func(r, st, acc); break;
    case LB_STAGE_MUL: run_mul(r, st, acc); break;
    case LB_STAGE_MAXPOOL:
    case LB_STAGE_SUMPOOL: run_pool(r, st, src, acc); break;
    case LB_STAGE_PIXELS:
    case LB_STAGE_POINT: break; /* no operator */
    }
    return true;
}

static bool run_stage(const run *r, const lb_stage *st, int thread, const uint8_t *image, int32_t *scores) {
    const lb_eval_plan *plan = r->plan;
    const bool last = st == &plan->stages[plan->nstages - 1];
    const lb_eval_tensor *t = &plan->tensors[st->dst];
    const size_t count = (size_t)r->count;
    void *const dst = last ? (void *)scores : r->workspace + t->offset;
    const lb_stored dst_type = last ? LB_STORED_I32 : t->type;
    const void *src = image;
    if (st->src >= 0)
        src = r->workspace + plan->tensors[st->src].offset;
    route out = {.chain = st->chain, .nchain = st->nchain, .period = st->period, .dst = dst, .dst_type = dst_type};
    if (st->op == LB_STAGE_PIXELS || st->op == LB_STAGE_POINT) {
        out.pixels = st->op == LB_STAGE_PIXELS ? st : NULL;
        out.src = src;
        out.src_type = st->src_type;
        pass(r, &out, 0, count * st->acc_count);
        return true;
    }
    if (st->staged) {
        void *staging = r->workspace + plan->staging;
        const route in = {.chain = st->staging, .nchain = st->nstaging, .period = st->staging_period, .src = src,
                          .src_type = plan->tensors[st->src].type, .dst = staging, .dst_type = st->src_type};
        pass(r, &in, 0, count * st->src_count);
        src = staging;
    }
    if (st->tiles) {
        run_bands(r, st, src, dst, dst_type);
        return true;
    }
    const bool whole = st->op == LB_STAGE_CONV && st->way == LB_WAY_WHOLE;
    /* oneDNN writes whole chunks, which the caller's scores have no room for. */
    const bool direct = st->nchain == 0 && !whole && !st->halves && st->acc_type == dst_type && !last;
    void *acc = direct ? dst : r->workspace + plan->acc;
    if (!run_op(r, st, thread, src, acc))
        return false;
    if (direct)
        return true;
    out.src = acc;
    out.src_type = st->acc_type;
    out.whole = whole;
    if (st->halves) {
        int32_t *merged = (int32_t *)(void *)(r->workspace + plan->merged);
        const int64_t pixels = (int64_t)count * st->oh * st->ow;
        if (whole)
            r->k->merge_whole(acc, pixels, st->conv.oc, merged);
        else
            r->k->merge(acc, pixels, st->conv.oc, merged);
        out.src = merged;
        out.src_type = LB_STORED_I32;
    }
    pass(r, &out, 0, count * st->acc_count);
    return true;
}

bool lb_eval_plan_run(const lb_eval_plan *plan, const lb_eval_kernels *kernels, int thread, unsigned char *workspace,
                      const uint8_t *pixels, int count, int32_t *scores) {
    const run r = {plan, kernels, workspace, count};
    for (int i = 0; i < plan->nstages; i++)
        if (!run_stage(&r, &plan->stages[i], thread, pixels, scores))
            return false;
    return true;
}

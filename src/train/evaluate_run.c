/* Runs the evaluator's stages on one thread. */
#include "train/evaluate_plan.h"

typedef struct run {
    const lb_eval_plan *plan;
    const lb_eval_kernels *k;
    unsigned char *workspace;
    int count;   /* images */
} run;

/* Numbers in flight: int32 or float, as the chain's last operation left them. */
typedef struct block {
    _Alignas(LB_ALIGN) int32_t v[LB_EVAL_BLOCK];
    _Alignas(LB_ALIGN) float f[LB_EVAL_BLOCK];
    bool is_float;
} block;

static const void *at(const void *base, lb_stored type, size_t index) { return (const char *)base + index * lb_stored_size(type); }
static void *at_mut(void *base, lb_stored type, size_t index) { return (char *)base + index * lb_stored_size(type); }

/* `whole`: the floats are whole numbers and become int32. */
static void load(const lb_eval_kernels *k, const void *src, lb_stored type, bool whole, size_t first, int n, block *b) {
    const void *p = at(src, type, first);
    b->is_float = type == LB_STORED_F32 && !whole;
    if (b->is_float)
        memcpy(b->f, p, (size_t)n * sizeof(float));
    else if (type == LB_STORED_F32)
        k->load_whole(p, n, b->v);
    else if (type == LB_STORED_I32)
        memcpy(b->v, p, (size_t)n * sizeof(int32_t));
    else if (type == LB_STORED_U8)
        k->load_u8(p, n, b->v);
    else
        k->load_s8(p, n, b->v);
}

static void store(const lb_eval_kernels *k, const block *b, void *dst, lb_stored type, size_t first, int n) {
    void *p = at_mut(dst, type, first);
    if (type == LB_STORED_F32)
        memcpy(p, b->f, (size_t)n * sizeof(float));
    else if (type == LB_STORED_I32)
        memcpy(p, b->v, (size_t)n * sizeof(int32_t));
    else if (type == LB_STORED_U8)
        k->store_u8(b->v, n, p);
    else
        k->store_s8(b->v, n, p);
}

/* Operations on numbers [first, first + n) of a tensor, whose parameters begin at `phase`. */
static void apply(const run *r, const lb_chain *chain, int nchain, size_t first, size_t phase, int n, block *b) {
    const lb_eval_kernels *k = r->k;
    for (const lb_chain *op = chain; op < chain + nchain; op++) {
        switch (op->kind) {
        case LB_CHAIN_REQUANT: k->requant(b->v, n, op->mul + phase, op->add + phase, op->shift + phase); break;
        case LB_CHAIN_REQUANT1: k->requant1(b->v, n, op->r); break;
        case LB_CHAIN_CLAMP: k->clamp(b->v, n, op->lo, op->hi); break;
        case LB_CHAIN_SIGN: k->sign(b->v, n); break;
        case LB_CHAIN_FLOAT: k->to_float(b->v, n, op->scale + phase, b->f); break;
        case LB_CHAIN_FLOAT1: k->to_float1(b->v, n, op->step, b->f); break;
        case LB_CHAIN_CODE_F32: k->code_f32(b->f, n, op->step, op->flo, op->fhi, b->v); break;
        case LB_CHAIN_SIGN_F32: k->sign_f32(b->f, n, b->v); break;
        case LB_CHAIN_FIXED_F32: k->fixed_f32(b->f, n, b->v); break;
        case LB_CHAIN_AFFINE: k->affine(b->f, n, op->scale + phase, op->offset + phase); break;
        case LB_CHAIN_CLAMP_F32: k->clamp_f32(b->f, n, op->flo, op->fhi); break;
        case LB_CHAIN_ADD:
        case LB_CHAIN_ADD_F32: {
            const lb_eval_tensor *t = &r->plan->tensors[op->other];
            block other;
            load(k, r->workspace + t->offset, t->type, false, first, n, &other);
            apply(r, op->before, op->nbefore, first, phase, n, &other);
            if (op->kind == LB_CHAIN_ADD)
                k->add(b->v, other.v, n);
            else
                k->add_f32(b->f, other.f, n);
            break;
        }
        }
    }
}

/* Whole tensors through a chain, block by block. `stage`: given if the source is the image as floats. */
static void pass(const run *r, const lb_stage *pixels, const lb_chain *chain, int nchain, size_t period, size_t count,
                 const void *src, lb_stored src_type, bool whole, void *dst, lb_stored dst_type) {
    block b;
    for (size_t base = 0; base < count; base += period) {
        for (size_t phase = 0; phase < period && base + phase < count; phase += LB_EVAL_BLOCK) {
            const size_t first = base + phase, left = LB_MIN(period - phase, count - first);
            const int n = (int)LB_MIN(left, (size_t)LB_EVAL_BLOCK);
            if (pixels)
                r->k->pixels((const uint8_t *)src + first, n, pixels->pixel_scale + phase, pixels->pixel_offset + phase, b.f);
            else
                load(r->k, src, src_type, whole, first, n, &b);
            apply(r, chain, nchain, first, phase, n, &b);
            store(r->k, &b, dst, dst_type, first, n);
        }
    }
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
                        const int iy = y * c->sh - c->pt + ky, ix = x * c->sw - c->pl + kx;
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

/* Every stride-th pixel: runs of its channels, zeros elsewhere. */
static void run_pad(const run *r, const lb_stage *st, const void *src, void *acc) {
    const lb_eval_pool *p = &st->pool;
    const size_t size = lb_stored_size(st->src_type), from = (size_t)p->c * size, to = (size_t)st->c * size;
    for (int i = 0; i < r->count; i++) {
        const char *s = at(src, st->src_type, (size_t)i * st->src_count);
        char *d = at_mut(acc, st->acc_type, (size_t)i * st->acc_count);
        for (int y = 0; y < p->oh; y++)
            for (int x = 0; x < p->ow; x++, d += to) {
                const char *pixel = s + ((size_t)y * (size_t)st->stride * (size_t)p->iw + (size_t)x * (size_t)st->stride) * from;
                memset(d, 0, to);
                for (int k = 0; k < st->nparts; k++)
                    memcpy(d + (size_t)st->parts[k].dst * size, pixel + (size_t)st->parts[k].src * size,
                           (size_t)st->parts[k].count * size);
            }
    }
}

static float as_float(lb_stored type, const void *data, size_t i) {
    switch (type) {
    case LB_STORED_U8: return (float)((const uint8_t *)data)[i];
    case LB_STORED_S8: return (float)((const int8_t *)data)[i];
    case LB_STORED_I32: return (float)((const int32_t *)data)[i];
    case LB_STORED_F32: break;
    }
    return ((const float *)data)[i];
}

static void run_real(const run *r, const lb_stage *st, const void *src, float *dst) {
    const size_t c = (size_t)st->c, count = st->acc_count;
    const void *other = st->other < 0 ? NULL : r->workspace + r->plan->tensors[st->other].offset;
    for (int i = 0; i < r->count; i++) {
        const void *a = at(src, st->src_type, (size_t)i * st->src_count);
        const void *b = other ? at(other, st->other_type, (size_t)i * st->other_count) : NULL;
        for (size_t k = 0; k < count; k++) {
            const float x = as_float(st->src_type, a, k) * st->step[0][k % c];
            *dst++ = b ? x * (as_float(st->other_type, b, k % st->other_count) * st->step[1][k % c]) : lb_func_value(st->real, x);
        }
    }
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
    if (st->op == LB_STAGE_PIXELS || st->op == LB_STAGE_POINT) {
        pass(r, st->op == LB_STAGE_PIXELS ? st : NULL, st->chain, st->nchain, st->period, count * st->acc_count, src, st->src_type,
             false, dst, dst_type);
        return true;
    }
    if (st->staged) {
        void *staging = r->workspace + plan->staging;
        pass(r, NULL, st->staging, st->nstaging, st->staging_period, count * st->src_count, src, plan->tensors[st->src].type, false,
             staging, st->src_type);
        src = staging;
    }
    const bool whole = st->op == LB_STAGE_CONV && st->way == LB_WAY_WHOLE;
    /* oneDNN writes whole chunks, which the caller's scores have no room for. */
    const bool direct = st->nchain == 0 && !whole && !st->halves && st->acc_type == dst_type && !last;
    void *acc = direct ? dst : r->workspace + plan->acc;
    lb_stored acc_type = st->acc_type;
    if (st->op == LB_STAGE_CONV) {
        if (!run_conv(r, st, thread, src, acc))
            return false;
    } else if (st->op == LB_STAGE_PAD) {
        run_pad(r, st, src, acc);
    } else if (st->op == LB_STAGE_REAL) {
        run_real(r, st, src, acc);
    } else {
        run_pool(r, st, src, acc);
    }
    if (direct)
        return true;
    if (st->halves) {
        int32_t *merged = (int32_t *)(void *)(r->workspace + plan->merged);
        const int64_t pixels = (int64_t)count * st->oh * st->ow;
        if (whole)
            r->k->merge_whole(acc, pixels, st->conv.oc, merged);
        else
            r->k->merge(acc, pixels, st->conv.oc, merged);
        acc = merged;
        acc_type = LB_STORED_I32;
    }
    pass(r, NULL, st->chain, st->nchain, st->period, count * st->acc_count, acc, acc_type, whole, dst, dst_type);
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

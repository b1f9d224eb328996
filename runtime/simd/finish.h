/* What the convolutions share: the integer epilogue (model.h has its rules) of LANES output channels at a time. */
#ifndef LBRT_FINISH_H
#define LBRT_FINISH_H

#include "stored.h"

#define FEW 16 /* residual values, codes */

/* Multiply-shifts whose source or result takes few values. */
typedef struct shortcuts {
    int32_t residual[FEW]; /* scaled, by value - lo */
    int32_t codes[FEW]; /* the least fixed-point values of the codes from qlo + 1 to qlo + ncodes */
    int32_t ncodes; /* -1: compute them */
    int32_t within; /* neither an accumulator's multiply-shift nor its sum with the residual leaves 32 bits */
} shortcuts;

/* The epilogue's parameters in blocks of LANES output channels; each group of channels starts a block, and what fills up its
 * last one is zeros. */
typedef struct finish {
    vec *flip; /* (blocks) all ones where thresholds count downwards */
    vec *thresholds; /* (blocks, nthresholds), complemented where flipped: ~v >= ~t is v <= t */
    scale *requant; /* (blocks) */
    shortcuts *shortcuts;
} finish;

/* Results of a layer: LANES channels at most of some pixels. */
typedef struct patch {
    size_t block; /* of the parameters */
    size_t channel, count; /* the first channel, and how many */
    const size_t *pixel; /* indices in the batch */
    size_t pixels;
} patch;

static inline int few_residuals(const lbrt_site *site) {
    return site->res != NULL && site->layer->epilogue.res.shift >= 0 && site->res->type != LBRT_I32 &&
           site->res->hi - site->res->lo < FEW;
}

/* A code grows with its fixed-point value, so the values where it steps up say it all. */
static inline void find_codes(const lbrt_epilogue *e, shortcuts *s) {
    const int64_t steps = (int64_t)e->qhi - e->qlo;
    s->ncodes = -1;
    if (e->q.mul < 0 || steps >= FEW)
        return;
    for (s->ncodes = 0; s->ncodes < steps; s->ncodes++) {
        const int32_t code = e->qlo + s->ncodes + 1;
        int64_t lo = INT32_MIN, hi = (int64_t)INT32_MAX + 1; /* the least value with this code or more */
        while (lo < hi) {
            const int64_t middle = lo + (hi - lo) / 2;
            if (lbrt_apply(&e->q, (int32_t)middle) >= code)
                hi = middle;
            else
                lo = middle + 1;
        }
        if (lo > INT32_MAX)
            return;
        s->codes[s->ncodes] = (int32_t)lo;
    }
}

/* Whether saturation in the epilogue of a convolution changes nothing. */
static inline int stays_within(const lbrt_site *site) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    int64_t least = 0, most = 0; /* of the residual */
    if (e->flags & LBRT_RESIDUAL) {
        const int scaled = e->res.shift >= 0;
        const int32_t a = scaled ? lbrt_apply(&e->res, site->res->lo) : site->res->lo;
        const int32_t b = scaled ? lbrt_apply(&e->res, site->res->hi) : site->res->hi;
        least = a < b ? a : b;
        most = a < b ? b : a;
    }
    for (int32_t c = 0; c < site->dst->c; c++) {
        const lbrt_requant *q = &e->requant[c];
        int32_t range[2];
        if (!lbrt_source_range(site->layer, site->src, c, &range[0], &range[1]))
            return 0;
        for (int i = 0; i < 2; i++) {
            const int64_t v = lbrt_shift_right((int64_t)range[i] * q->mul + q->add, q->shift);
            if (v < INT32_MIN || v > INT32_MAX || v + least < INT32_MIN || v + most > INT32_MAX)
                return 0;
        }
    }
    return 1;
}

/* Blocks of each of `groups` groups of output channels. */
static inline size_t blocks_of(const lbrt_site *site, size_t groups) {
    return ((size_t)site->dst->c / groups + LANES - 1) / LANES;
}

static inline finish finish_carve(const lbrt_site *site, size_t groups, lbrt_carve *at) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t blocks = groups * blocks_of(site, groups);
    finish p;
    p.flip = lbrt_take(at, blocks, sizeof *p.flip);
    p.thresholds = lbrt_take(at, lbrt_size_mul(blocks, (size_t)e->nthresholds), sizeof *p.thresholds);
    p.requant = lbrt_take(at, e->flags & LBRT_AFFINE ? blocks : 0, sizeof *p.requant);
    p.shortcuts = lbrt_take(at, 1, sizeof *p.shortcuts);
    return p;
}

/* Into memory that is all zeros. */
static inline void finish_prepare(const lbrt_site *site, size_t groups, const finish *p) {
    const lbrt_epilogue *e = &site->layer->epilogue;
    const size_t n = (size_t)e->nthresholds, oc = (size_t)site->dst->c / groups;
    if (few_residuals(site))
        for (int32_t i = 0; i <= site->res->hi - site->res->lo; i++)
            p->shortcuts->residual[i] = lbrt_apply(&e->res, site->res->lo + i);
    if ((e->flags & (LBRT_CODE | LBRT_SIGN)) == LBRT_CODE)
        find_codes(e, p->shortcuts);
    p->shortcuts->within = e->flags & LBRT_AFFINE && stays_within(site);
    for (size_t o = 0; o < (size_t)site->dst->c; o++) {
        const size_t block = o / oc * blocks_of(site, groups) + o % oc / LANES, lane = o % oc % LANES;
        const int32_t flip = e->flip != NULL && e->flip[o] ? -1 : 0;
        ((int32_t *)&p->flip[block])[lane] = flip;
        for (size_t k = 0; k < n; k++)
            ((int32_t *)&p->thresholds[block * n + k])[lane] = e->thresholds[o * n + k] ^ flip;
        if (e->flags & LBRT_AFFINE)
            scale_set(&p->requant[block], lane, &e->requant[o]);
    }
}

static inline scale scale_broadcast(const lbrt_requant *q) {
    scale s;
    for (size_t i = 0; i < LANES; i++)
        scale_set(&s, i, q);
    return s;
}

/* Stores codes, at element `at` of dst. `base`: the least. */
INLINE void store_codes(void *dst, int32_t type, size_t at, size_t count, codes c, int32_t base) {
    if (type == LBRT_I32)
        vec_store_values(dst, LBRT_I32, at, count, codes_widen(c, base));
    else
        codes_store((uint8_t *)dst + at, count, c);
}

/* What thresholds make of accumulators v[0], v[step], ..: `n` thresholds, copied so that they stay in registers. */
INLINE void finish_thresholds(const lbrt_call *call, const finish *p, const patch *at, size_t count, const vec *v, size_t step,
                              const size_t n) {
    const lbrt_epilogue *e = &call->site.layer->epilogue;
    const size_t oc = (size_t)call->site.dst->c, channel = at->channel, pixels = at->pixels, *const pixel = at->pixel;
    const int32_t type = call->site.dst->type;
    const int sign = (e->flags & LBRT_SIGN) != 0;
    const int32_t base = sign ? -1 : e->qlo;
    const vec flip = p->flip[at->block];
    void *const dst = call->dst;
    vec t[FEW];
    for (size_t k = 0; k < n; k++)
        t[k] = p->thresholds[at->block * n + k];
    for (size_t i = 0; i < pixels; i++)
        store_codes(dst, type, pixel[i] * oc + channel, count, codes_count(vec_xor(v[i * step], flip), t, n, sign, base), base);
}

/* Everything else; `n` codes are found by their steps, -1: none are. What the loop needs is copied, because bytes that are
 * stored could be anything's. */
INLINE void finish_values(const lbrt_call *call, const finish *p, const patch *at, size_t count, const vec *v, size_t step,
                          const int32_t n) {
    const lbrt_site *site = &call->site;
    const lbrt_epilogue *e = &site->layer->epilogue;
    const shortcuts *s = p->shortcuts;
    const scale *requant = &p->requant[at->block];
    const uint32_t flags = e->flags;
    const size_t oc = (size_t)site->dst->c, channel = at->channel, pixels = at->pixels, *const pixel = at->pixel;
    void *const dst = call->dst;
    const void *const from = call->res;
    const int32_t type = site->dst->type, res_type = flags & LBRT_RESIDUAL ? site->res->type : 0, base = e->qlo;
    const int few = few_residuals(site), scaled = e->res.shift >= 0, within = s->within;
    const vec least = vec_set(few ? -site->res->lo : 0);
    const vec lo = vec_set(e->lo), hi = vec_set(e->hi), qlo = vec_set(e->qlo), qhi = vec_set(e->qhi);
    scale res, q;
    if (flags & LBRT_RESIDUAL && scaled && !few)
        res = scale_broadcast(&e->res);
    if ((flags & (LBRT_CODE | LBRT_SIGN)) == LBRT_CODE && n < 0)
        q = scale_broadcast(&e->q);
    vec t[FEW];
    for (int32_t k = 0; k < n; k++)
        t[k] = vec_set(s->codes[k]);
    for (size_t i = 0; i < pixels; i++) {
        const size_t element = pixel[i] * oc + channel;
        vec x = v[i * step];
        if (flags & LBRT_AFFINE)
            x = within ? scale_apply(requant, x, 0) : scale_apply(requant, x, 1);
        if (flags & LBRT_RESIDUAL) {
            vec r = vec_load_values(from, res_type, element, count);
            if (few)
                r = vec_choose(s->residual, vec_add(r, least));
            else if (scaled)
                r = scale_apply(&res, r, 1);
            x = within ? vec_add(x, r) : vec_add_saturated(x, r);
        }
        if (flags & LBRT_CLAMP)
            x = vec_clamp(x, lo, hi);
        if (flags & LBRT_SIGN)
            x = vec_signs(x);
        else if (n >= 0) {
            store_codes(dst, type, element, count, codes_count(x, t, (size_t)n, 0, base), base);
            continue;
        } else if (flags & LBRT_CODE)
            x = vec_clamp(scale_apply(&q, x, 1), qlo, qhi);
        vec_store_values(dst, type, element, count, x);
    }
}

/* With a constant number of channels where it is the common one. */
INLINE void finish_channels(const lbrt_call *call, const finish *p, const patch *at, size_t count, const vec *v, size_t step) {
    const lbrt_epilogue *e = &call->site.layer->epilogue;
    const int32_t n = (e->flags & (LBRT_CODE | LBRT_SIGN)) == LBRT_CODE ? p->shortcuts->ncodes : -1;
    if (!(e->flags & LBRT_THRESHOLDS) && n == 3)
        finish_values(call, p, at, count, v, step, 3);
    else if (!(e->flags & LBRT_THRESHOLDS))
        finish_values(call, p, at, count, v, step, n);
    else if (e->nthresholds == 1)
        finish_thresholds(call, p, at, count, v, step, 1);
    else if (e->nthresholds == 3)
        finish_thresholds(call, p, at, count, v, step, 3);
    else
        finish_thresholds(call, p, at, count, v, step, (size_t)e->nthresholds);
}

/* Accumulators v[0], v[step], ... of a patch's pixels. */
static inline void finish_block(const lbrt_call *call, const finish *p, const patch *at, const vec *v, size_t step) {
    if (at->count == LANES)
        finish_channels(call, p, at, LANES, v, step);
    else
        finish_channels(call, p, at, at->count, v, step);
}

/* The patch of block `b` of group `g`. */
static inline patch patch_of(const lbrt_site *site, size_t groups, size_t g, size_t b, const size_t *pixel, size_t pixels) {
    const size_t oc = (size_t)site->dst->c / groups, left = oc - b * LANES;
    const patch p = {g * blocks_of(site, groups) + b, g * oc + b * LANES, left < LANES ? left : LANES, pixel, pixels};
    return p;
}

#endif

/* How large scores can become, before they are put into 32 bits with LBRT_FIX_BITS of them behind the point: interval arithmetic
 * over the last layer, as range.c's, but in real numbers. */
#include <math.h>

#include "deploy/lower.h"

typedef struct interval {
    double lo, hi;
} interval;

/* A range that may have been cut off says nothing of what the numbers were. */
static bool is_open(const lbrt_tensor *t) { return t->type == LBRT_F32 || t->lo == INT32_MIN || t->hi == INT32_MAX; }

static interval affine(interval x, double a, double b) {
    return a < 0 ? (interval){a * x.hi + b, a * x.lo + b} : (interval){a * x.lo + b, a * x.hi + b};
}

static interval requantized(interval x, const lbrt_requant *r) {
    return affine(x, ldexp(r->mul, -r->shift), ldexp((double)r->add, -r->shift));
}

static double weight(const lbrt_layer *layer, size_t count, int32_t c, size_t i) {
    const lbrt_weights *w = &layer->weights;
    if (w->bits == 32)
        return (double)w->f32[(size_t)c * count + i];
    const uint8_t *row = w->packed + (size_t)c * lbrt_packed_bytes((int32_t)count, w->bits);
    return (double)w->mul * lbrt_stored_weight(row, i, w->bits) + w->add;
}

/* What output channel c's epilogue is given. */
static interval source(const lbrt_layer *layer, const lbrt_tensor *src, int32_t c) {
    const interval x = affine((interval){src->lo, src->hi}, layer->is_float ? (double)layer->src_step : 1, 0);
    if (layer->op != LBRT_OP_CONV)
        return x;
    const size_t count = (size_t)lbrt_weights_per_channel(layer, src);
    interval sum = {0, 0};
    for (size_t i = 0; i < count; i++) { /* padding is a source of 0 */
        const interval product = affine((interval){fmin(x.lo, 0), fmax(x.hi, 0)}, weight(layer, count, c, i), 0);
        sum.lo += product.lo;
        sum.hi += product.hi;
    }
    return sum;
}

/* Scores of channel c, the integer domain's in units of the fixed point. residual: in those units, {0, 0} if there is none. */
static interval scores(const lbrt_layer *layer, const lbrt_tensor *src, interval residual, int32_t c) {
    const lbrt_epilogue *e = &layer->epilogue;
    interval x = source(layer, src, c);
    if (e->flags & LBRT_AFFINE)
        x = layer->is_float ? affine(x, (double)e->scale[c], (double)e->offset[c]) : requantized(x, &e->requant[c]);
    x.lo += residual.lo;
    x.hi += residual.hi;
    if (e->flags & LBRT_CLAMP) {
        const interval ends = {layer->is_float ? (double)e->flo : e->lo, layer->is_float ? (double)e->fhi : e->hi};
        x.lo = fmax(ends.lo, fmin(x.lo, ends.hi));
        x.hi = fmax(ends.lo, fmin(x.hi, ends.hi));
    }
    return x;
}

double lb_score_bound(const lbrt_graph *graph) {
    const lbrt_layer *layer = &graph->layers[graph->nlayers - 1];
    const lbrt_epilogue *e = &layer->epilogue;
    const lbrt_tensor *src = &graph->tensors[layer->src], *dst = &graph->tensors[graph->ntensors - 1];
    interval residual = {0, 0};
    if (!is_open(dst))
        return ldexp(fmax(fabs((double)dst->lo), fabs((double)dst->hi)), -LBRT_FIX_BITS);
    if ((layer->op != LBRT_OP_CONV && layer->op != LBRT_OP_POINT) || is_open(src))
        return NAN;
    if (e->flags & LBRT_RESIDUAL) {
        const lbrt_tensor *t = &graph->tensors[e->residual];
        if (is_open(t))
            return NAN;
        residual = (interval){t->lo, t->hi};
        if (layer->is_float)
            residual = affine(residual, (double)e->res_step, 0);
        else if (e->res.shift >= 0)
            residual = requantized(residual, &e->res);
    }
    double bound = 0;
    for (int32_t c = 0; c < dst->c; c++) {
        const interval x = scores(layer, src, residual, c);
        bound = fmax(bound, fmax(fabs(x.lo), fabs(x.hi)));
    }
    return layer->is_float ? bound : ldexp(bound, -LBRT_FIX_BITS);
}

/* Straight lines for epilogues that end in codes (templates/kernels/epilogue.h says how a code is computed from one).
 *
 * A channel's code is a staircase over its accumulator v: it is at least k from the step T_k(r) on, r being the residual's code. A
 * line a v + b + c r serves if it is at least k at T_k(r) and less than k just before. For each slope a the offsets b that serve
 * are an interval, whose length is a concave function of a: the slope where it is longest is found by ternary search, and b is put
 * into the middle. Then both are rounded to the numbers that the kernel computes with, and every step is tried with those: lines
 * that are not exact are not used. */
#include <float.h>
#include <math.h>

#include "deploy/code_of.h"
#include "deploy/codegen/codegen.h"

#define MOST_STEPS 1024 /* of a channel: steps times residual codes */
#define MOST_DOWN 24
#define FARTHEST (1 << 29) /* accumulators are nearer to 0 */

/* A channel as a staircase that does not descend: over v, or over -v if its codes fall. */
typedef struct staircase {
    const lbrt_epilogue *e;
    int32_t channel, sign; /* -1: over -v */
    int32_t lo, hi;        /* of what it is over */
    int32_t qlo, qhi;      /* codes: signs are -1 and 0 */
} staircase;

/* What the line must be at (v, r): at least k, or less than k. */
typedef struct demand {
    int32_t v, r, k;
    bool least;
} demand;

/* The code of u = sign v, as epilogue.h computes it; increasing in u. */
static int32_t code_at(const staircase *s, int32_t u, int32_t r) {
    const lbrt_epilogue *e = s->e;
    const int32_t v = s->sign * u;
    if (e->flags & LBRT_THRESHOLDS) {
        const int32_t *t = e->thresholds + (size_t)s->channel * (size_t)e->nthresholds;
        int32_t count = 0;
        while (count < e->nthresholds && (s->sign < 0 ? v <= t[count] : v >= t[count]))
            count++;
        return s->qlo + count;
    }
    const int32_t code = lb_code_of(e, s->channel, v, r);
    return e->flags & LBRT_SIGN ? (code - 1) / 2 : code;
}

/* The least u from `from` to hi whose code is at least k; hi + 1 if there is none. */
static int32_t step_of(const staircase *s, int32_t from, int32_t k, int32_t r) {
    int64_t lo = from, hi = (int64_t)s->hi + 1;
    while (lo < hi) {
        const int64_t middle = lo + (hi - lo) / 2;
        if (code_at(s, (int32_t)middle, r) >= k)
            hi = middle;
        else
            lo = middle + 1;
    }
    return (int32_t)lo;
}

/* demands (2 * steps * residual codes); how many. */
static int make_demands(const staircase *s, int32_t rlo, int32_t rhi, demand *demands) {
    int n = 0;
    for (int32_t r = rlo; r <= rhi; r++) {
        int32_t step = s->lo;
        for (int32_t k = s->qlo + 1; k <= s->qhi; k++) {
            step = step_of(s, step, k, r);
            if (step <= s->hi)
                demands[n++] = (demand){step, r, k, true};
            if (step > s->lo)
                demands[n++] = (demand){step - 1, r, k, false};
        }
    }
    return n;
}

/* The offsets that serve slope a: from *least up to *most, which is not among them. Their length. */
static double offsets(const demand *demands, int n, double a, double c, double *least, double *most) {
    *least = -DBL_MAX;
    *most = DBL_MAX;
    for (int i = 0; i < n; i++) {
        const double b = demands[i].k - a * demands[i].v - c * demands[i].r;
        if (demands[i].least)
            *least = fmax(*least, b);
        else
            *most = fmin(*most, b);
    }
    if (*least == -DBL_MAX) /* one side only: any length will do */
        *least = *most - 1;
    if (*most == DBL_MAX)
        *most = *least + 1;
    return *most - *least;
}

typedef struct real_line {
    double a, b;
} real_line;

/* False: no line serves. */
static bool fit(const demand *demands, int n, double c, double steepest, real_line *line) {
    double lo = 0, hi = steepest, least, most;
    if (n == 0) { /* a single code */
        *line = (real_line){0, 0};
        return true;
    }
    for (int i = 0; i < 100; i++) {
        const double left = lo + (hi - lo) / 3, right = hi - (hi - lo) / 3;
        if (offsets(demands, n, left, c, &least, &most) < offsets(demands, n, right, c, &least, &most))
            lo = left;
        else
            hi = right;
    }
    line->a = (lo + hi) / 2;
    if (offsets(demands, n, line->a, c, &least, &most) <= 0)
        return false;
    line->b = (least + most) / 2;
    return true;
}

static int32_t line_at(const lb_lines *lines, const lb_line *line, int32_t v, int32_t r) {
    const int64_t high = lbrt_shift_right((int64_t)(v * lines->unit) * line->mul, 32);
    return (int32_t)lbrt_shift_right(high + (int64_t)r * lines->res_mul + line->add, lines->down);
}

/* Whether no sum leaves 32 bits: at the corners, between which it is monotone in v and in r. */
static bool fits(const lb_lines *lines, const lb_line *line, const staircase *s, int32_t rlo, int32_t rhi) {
    for (int corner = 0; corner < 4; corner++) {
        const int32_t v = s->sign * (corner & 1 ? s->lo : s->hi), r = corner & 2 ? rlo : rhi;
        const int64_t part = lbrt_shift_right((int64_t)(v * lines->unit) * line->mul, 32) + (int64_t)r * lines->res_mul;
        if (part < INT32_MIN || part > INT32_MAX || part + line->add < INT32_MIN || part + line->add > INT32_MAX)
            return false;
    }
    return true;
}

/* The staircase of channel c; its demands. -1: it is too long. */
static int channel_demands(const lbrt_graph *graph, int i, int32_t c, const lb_lines *lines, staircase *s, demand *demands) {
    const lbrt_layer *l = &graph->layers[i];
    const lbrt_epilogue *e = &l->epilogue;
    const bool residual = e->flags & LBRT_RESIDUAL, sign = e->flags & LBRT_SIGN;
    int32_t lo, hi;
    lbrt_source_range(l, &graph->tensors[l->src], c, &lo, &hi); /* fits: this was proven when the model was opened */
    if (lo <= -FARTHEST || hi >= FARTHEST)
        return -1;
    const bool falls = e->flags & LBRT_THRESHOLDS ? e->flip && e->flip[c] : (e->requant[c].mul < 0) != (!sign && e->q.mul < 0);
    *s = (staircase){e, c, falls ? -1 : 1, falls ? -hi : lo, falls ? -lo : hi, lines->qlo, lines->qhi};
    return make_demands(s, residual ? graph->tensors[e->residual].lo : 0, residual ? graph->tensors[e->residual].hi : 0, demands);
}

/* Whether the layer's epilogue is one that lines may stand for. */
static bool is_eligible(const lbrt_graph *graph, int i) {
    const lbrt_layer *l = &graph->layers[i];
    const lbrt_epilogue *e = &l->epilogue;
    const int32_t type = graph->tensors[i + 1].type;
    if ((l->op != LBRT_OP_CONV && l->op != LBRT_OP_POINT) || l->is_float)
        return false;
    if (type != LBRT_U8 && type != LBRT_I8)
        return false;
    if (e->flags & LBRT_THRESHOLDS)
        return true;
    if (!(e->flags & LBRT_AFFINE) || !(e->flags & (LBRT_CODE | LBRT_SIGN)))
        return false;
    const int64_t steps = e->flags & LBRT_SIGN ? 1 : (int64_t)e->qhi - e->qlo;
    if (!(e->flags & LBRT_RESIDUAL))
        return steps <= MOST_STEPS;
    const lbrt_tensor *res = &graph->tensors[e->residual];
    return e->res.shift >= 0 && res->type != LBRT_I32 && steps * ((int64_t)res->hi - res->lo + 1) <= MOST_STEPS;
}

/* Chooses the numbers of binary places: as many as the largest line leaves room for. */
static void choose_places(lb_lines *lines, const real_line *real, int32_t oc, int32_t farthest, double c, double most_r) {
    int up = 0;
    while ((int64_t)farthest << (up + 1) < (int64_t)1 << 30)
        up++;
    double largest = 1, steepest = 0;
    for (int32_t o = 0; o < oc; o++) {
        largest = fmax(largest, real[o].a * farthest + fabs(real[o].b) + fabs(c) * most_r);
        steepest = fmax(steepest, real[o].a);
    }
    int down = MOST_DOWN;
    while (down > 0 && (ldexp(largest, down) >= INT32_MAX / 2 || ldexp(steepest, down + 32 - up) >= INT32_MAX / 2))
        down--;
    lines->up = up;
    lines->unit = 1 << up;
    lines->down = down;
    lines->res_mul = (int32_t)lrint(ldexp(c, down));
}

/* The rest of lb_find_lines, which owns the memory. */
static bool find(const lbrt_graph *graph, int i, lb_lines *lines, demand *demands, real_line *real) {
    const lbrt_layer *l = &graph->layers[i];
    const lbrt_epilogue *e = &l->epilogue;
    const bool residual = e->flags & LBRT_RESIDUAL;
    const int32_t oc = graph->tensors[i + 1].c, rlo = residual ? graph->tensors[e->residual].lo : 0;
    const int32_t rhi = residual ? graph->tensors[e->residual].hi : 0;
    const double one = lines->sign ? ldexp(1, -LBRT_FIX_BITS) : ldexp(e->q.mul, -e->q.shift); /* in codes, of fixed point */
    const double c = residual ? ldexp(e->res.mul, -e->res.shift) * one : 0;
    staircase s;
    int32_t farthest = 1;
    for (int32_t o = 0; o < oc; o++) {
        const int n = channel_demands(graph, i, o, lines, &s, demands);
        if (n < 0 || !fit(demands, n, c, (double)lines->qhi - lines->qlo + 1, &real[o]))
            return false;
        if (n == 0)
            real[o].b = lines->qlo + 0.5;
        farthest = LB_MAX(farthest, LB_MAX(-s.lo, s.hi));
    }
    choose_places(lines, real, oc, farthest, c, LB_MAX(-(double)rlo, (double)rhi));
    for (int32_t o = 0; o < oc; o++) {
        const int n = channel_demands(graph, i, o, lines, &s, demands);
        lb_line *line = &lines->line[o];
        const double mul = s.sign * ldexp(real[o].a, lines->down + 32 - lines->up), add = ldexp(real[o].b, lines->down);
        if (fabs(mul) >= INT32_MAX || fabs(add) >= INT32_MAX)
            return false;
        *line = (lb_line){(int32_t)lrint(mul), (int32_t)lrint(add)};
        if (!fits(lines, line, &s, rlo, rhi))
            return false;
        for (int d = 0; d < n; d++)
            if ((line_at(lines, line, s.sign * demands[d].v, demands[d].r) >= demands[d].k) != demands[d].least)
                return false;
    }
    return true;
}

lb_status lb_find_lines(lb_generator *g, int i, lb_lines *lines) {
    *lines = (lb_lines){.line = NULL};
    if (!is_eligible(g->graph, i))
        return LB_OK;
    const lbrt_epilogue *e = &g->graph->layers[i].epilogue;
    const lbrt_tensor *res = e->flags & LBRT_RESIDUAL ? &g->graph->tensors[e->residual] : NULL;
    const size_t oc = (size_t)g->graph->tensors[i + 1].c, codes = res ? (size_t)(res->hi - res->lo) + 1 : 1;
    lb_line *line = lb_pool_alloc(&g->pool, oc, sizeof *line);
    demand *demands = lb_alloc(g->ctx, 2 * codes * ((size_t)(e->qhi - e->qlo) + 1), sizeof *demands);
    real_line *real = lb_alloc(g->ctx, oc, sizeof *real);
    const bool there = line && demands && real;
    const bool sign = e->flags & LBRT_SIGN;
    *lines = (lb_lines){.line = line, .qlo = sign ? -1 : e->qlo, .qhi = sign ? 0 : e->qhi, .sign = sign};
    if (there && !find(g->graph, i, lines, demands, real))
        lines->line = NULL;
    lb_free(g->ctx, demands);
    lb_free(g->ctx, real);
    return there ? LB_OK : LB_ERR_MEMORY;
}

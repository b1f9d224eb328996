/* Multiply-shifts and a clamp to few numbers, as thresholds: found by searching the very functions that they replace. */
#include <stdlib.h>

#include "train/evaluate_plan.h"

enum { MOST = 15 }; /* thresholds; more of them take longer than what they replace */

static bool replaceable(lb_chain_kind kind) {
    return kind == LB_CHAIN_REQUANT || kind == LB_CHAIN_REQUANT1 || kind == LB_CHAIN_CLAMP || kind == LB_CHAIN_SIGN;
}

/* What `n` operations make of number v of channel c. Each of them rises, or falls, all the way. */
static int32_t value(const lb_chain *ops, int n, size_t c, int32_t v) {
    for (const lb_chain *op = ops; op < ops + n; op++) {
        if (op->kind == LB_CHAIN_REQUANT)
            v = lbrt_apply(&(lbrt_requant){op->add[c], (int32_t)op->mul[c], (int32_t)op->shift[c]}, v);
        else if (op->kind == LB_CHAIN_REQUANT1)
            v = lbrt_apply(&op->r, v);
        else
            v = op->kind == LB_CHAIN_SIGN ? (v >= 0 ? 1 : -1) : lbrt_clamp(v, op->lo, op->hi);
    }
    return v;
}

/* The last number whose value is less than `far` away from that of INT32_MIN. */
static int32_t last_below(const lb_chain *ops, int n, size_t c, int32_t far) {
    const int32_t start = value(ops, n, c, INT32_MIN);
    int64_t below = INT32_MIN, end = (int64_t)INT32_MAX + 1;
    while (end - below > 1) {
        const int64_t middle = below + (end - below) / 2;
        if (abs(value(ops, n, c, (int32_t)middle) - start) < far)
            below = middle;
        else
            end = middle;
    }
    return (int32_t)below;
}

lb_status lb_eval_plan_steps(lb_pool *memory, lb_chain *chain, int *nchain, int c, size_t period) {
    int first = *nchain;
    while (first > 0 && replaceable(chain[first - 1].kind))
        first--;
    const lb_chain *last = &chain[*nchain - 1];
    const int n = *nchain - first;
    if (n < 2 || (last->kind != LB_CHAIN_SIGN && last->kind != LB_CHAIN_CLAMP))
        return LB_OK;
    const bool sign = last->kind == LB_CHAIN_SIGN;
    const int64_t nabove = sign ? 1 : (int64_t)last->hi - last->lo;
    if (nabove < 1 || nabove > MOST || (!sign && (last->lo < -128 || last->hi > 255)))
        return LB_OK;
    lb_chain op = {.kind = LB_CHAIN_STEPS, .nabove = (int)nabove, .pitch = (int64_t)period};
    op.start = lb_pool_alloc(memory, period, sizeof *op.start);
    op.size = lb_pool_alloc(memory, period, sizeof *op.size);
    op.above = lb_pool_alloc(memory, period * (size_t)nabove, sizeof *op.above);
    if (!op.start || !op.size || !op.above)
        return LB_ERR_MEMORY;
    const int32_t size = sign ? 2 : 1;
    for (size_t i = 0; i < period; i++) {
        if (i >= (size_t)c) { /* as that channel before */
            op.start[i] = op.start[i - (size_t)c];
            op.size[i] = op.size[i - (size_t)c];
            for (size_t k = 0; k < (size_t)nabove; k++)
                op.above[k * period + i] = op.above[k * period + i - (size_t)c];
            continue;
        }
        const int32_t start = value(chain + first, n, i, INT32_MIN);
        op.start[i] = (uint8_t)start;
        op.size[i] = (uint8_t)(value(chain + first, n, i, INT32_MAX) < start ? -size : size);
        for (size_t k = 0; k < (size_t)nabove; k++)
            op.above[k * period + i] = last_below(chain + first, n, i, size * (int32_t)(k + 1));
    }
    chain[first] = op;
    *nchain = first + 1;
    return LB_OK;
}

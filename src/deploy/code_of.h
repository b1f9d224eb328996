/* Everything behind an integer layer's accumulator in one function, for those who search where its codes change. */
#ifndef LB_CODE_OF_H
#define LB_CODE_OF_H

#include "internal.h"

/* The code of channel c for accumulator v and the residual's code r, for an epilogue of multiply-shifts that ends in codes or signs
 * (the residual, if there is one, scaled). Monotone in v: rising if the factors' product is not negative. */
static inline int32_t lb_code_of(const lbrt_epilogue *e, int32_t c, int32_t v, int32_t r) {
    v = lbrt_apply(&e->requant[c], v);
    if (e->flags & LBRT_RESIDUAL)
        v = lbrt_saturate((int64_t)v + lbrt_apply(&e->res, r));
    if (e->flags & LBRT_CLAMP)
        v = lbrt_clamp(v, e->lo, e->hi);
    if (e->flags & LBRT_SIGN)
        return v >= 0 ? 1 : -1;
    return lbrt_clamp(lbrt_apply(&e->q, v), e->qlo, e->qhi);
}

#endif

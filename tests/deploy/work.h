/* Additions of one run of a model, roughly: one that is made up may ask for years. */
#ifndef LB_TEST_WORK_H
#define LB_TEST_WORK_H

#include "internal.h"

static inline double test_work(const lbrt_graph *g) {
    double sum = 0;
    for (int i = 0; i < g->nlayers; i++) {
        const lbrt_layer *l = &g->layers[i];
        const lbrt_tensor *src = &g->tensors[l->src];
        double each = 1;
        if (l->op == LBRT_OP_CONV)
            each = lbrt_weights_per_channel(l, src);
        else if (l->op == LBRT_OP_MAXPOOL || l->op == LBRT_OP_SUMPOOL)
            each = (double)(l->kh < src->h ? l->kh : src->h) * (l->kw < src->w ? l->kw : src->w);
        sum += each * (double)lbrt_elements(&g->tensors[i + 1]);
    }
    return sum;
}

#endif

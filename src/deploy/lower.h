/* Lowering: a trained network to the deploy graph (runtime/model.h), by the rules of net/numerics.h. */
#ifndef LB_LOWER_H
#define LB_LOWER_H

#include "model.h"
#include "net/net.h"

typedef struct lb_lowered {
    lb_pool pool;     /* owns everything the graph points to */
    lbrt_graph graph;
    int *layer_node;  /* (nlayers) the net's node that a layer begins with */
} lb_lowered;

/* class_names: (net->classes) or NULL; copied. Batch norm, addition and activation behind a convolution become its epilogue; where
 * codes of at most 4 bits come out and nothing is added, thresholds. LB_ERR_UNSUPPORTED names the node that cannot be lowered. */
lb_status lb_lower(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], const char *const *class_names,
                   lb_lowered **lowered);
void lb_lowered_destroy(lb_lowered *lowered);

/* No score, whatever the image, is larger than this in absolute value, from the last layer's weights and its source's range, as if
 * 32 bits could hold it: a packed model's own scores end at LBRT_SCORE_LIMIT. NaN if nothing bounds them, e.g. behind a float
 * layer. */
double lb_score_bound(const lbrt_graph *graph);

#endif

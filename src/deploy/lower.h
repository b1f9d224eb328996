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

#endif

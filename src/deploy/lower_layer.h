/* Inside lowering: one layer while its epilogue grows. */
#ifndef LB_LOWER_LAYER_H
#define LB_LOWER_LAYER_H

#include "deploy/lower.h"
#include "net/numerics.h"

/* How far an epilogue has got; its parts have a fixed order. */
typedef enum lb_phase { LB_PHASE_START, LB_PHASE_AFFINE, LB_PHASE_RESIDUAL, LB_PHASE_CLAMP, LB_PHASE_DONE } lb_phase;

/* What the numbers are at that point. */
typedef struct lb_lower_state {
    lb_phase phase;
    lb_number kind;
    const lb_numeric *x; /* INT: whose steps they have */
} lb_lower_state;

typedef struct lb_lowering {
    lb_lowered *out;
    lb_numerics *n;
    const lb_net *net;
    lbrt_tensor *tensors; /* of the graph, writable */
    lbrt_layer *layers;
    int *place;           /* (nnodes) a tensor node's tensor in the graph, -1: none yet */
} lb_lowering;

/* The layer that is being made. */
static inline lbrt_layer *lb_lower_last(const lb_lowering *l) { return &l->layers[l->out->graph.nlayers - 1]; }

/* True if node i, whatever its shape, can follow in the epilogue of a layer that stands at *s; *s is moved on. */
bool lb_lower_fits(const lb_lowering *l, lb_lower_state *s, int i);
/* True if whole numbers can become fixed point there. */
bool lb_lower_fits_fixed(lb_lower_state *s);

/* Begins a layer of node i reading graph tensor src. */
lbrt_layer *lb_lower_begin(lb_lowering *l, lbrt_op op, int i, int src);
/* Begins a pointwise layer of node i over numeric src; if the result's shape is the flat one and src's is not, an identity
 * convolution that flattens. is_float: float domain; an INT source with a step per channel gets its affine at once. */
lb_status lb_lower_point(lb_lowering *l, int i, const lb_numeric *src, const lb_shape *shape, bool is_float, lb_lower_state *s);

/* These add to the last layer. */
lb_status lb_lower_affine(lb_lowering *l, const lb_numeric *x, int channels);
lb_status lb_lower_fixed(lb_lowering *l, lb_lower_state *s, int channels);
void lb_lower_act(lb_lowering *l, const lb_numeric *x);

/* Ends the last layer: result's shape, type and range; thresholds where they fit. Returns the graph tensor through *tensor. */
lb_status lb_lower_end(lb_lowering *l, const lb_shape *shape, int *tensor);

#endif

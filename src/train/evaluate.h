/* The trainer's evaluation: runs a network with the numbers that net/numerics.h prescribes, so that its scores are those of the
 * packed model, bit for bit. Layers that compute in float add up in the packed runtime's order if some activation is quantized or
 * if `ordered` is set; otherwise in whatever way is fast: by oneDNN, or by matrix registers with 16 bits of each number (then
 * scores differ in their last bits). */
#ifndef LB_EVALUATE_H
#define LB_EVALUATE_H

#include "net/net.h"

typedef struct lb_evaluator lb_evaluator;

/* For up to `mb` images a call. mean, std: of pixels in 0..1, per channel. The net is borrowed. Call lb_evaluator_update before the
 * first run. */
lb_status lb_evaluator_create(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], int mb,
                              lb_evaluator **evaluator);
void lb_evaluator_destroy(lb_evaluator *evaluator);

/* Float networks too are computed in the packed runtime's order from the next update on. */
void lb_evaluator_set_ordered(lb_evaluator *evaluator, bool ordered);

/* Takes over the net's present weights, statistics and steps. */
lb_status lb_evaluator_update(lb_evaluator *evaluator);

/* pixels: (mb, h, w, c); scores: (mb, classes) with 16 fractional bits. */
lb_status lb_evaluator_run(lb_evaluator *evaluator, const uint8_t *pixels, int mb, int32_t *scores);

#endif

/* Shared by quantize.c (which quantizer goes where), spec.c (what a recipe's words mean for one tensor) and blocks.c
 * (which nodes belong to one residual block). */
#ifndef LB_NET_QUANTIZE_H
#define LB_NET_QUANTIZE_H

#include "net/net.h"
#include "recipe/config.h"

/* One side of quant as a spec, before lb_quant_resolve; spec->quantizer is NULL for `none`. `where` is for messages, e.g.
 * "quant.weights". */
lb_status lb_spec_from_config(lb_ctx *ctx, const char *where, const lb_tensor_config *config, lb_target target,
                              lb_quant_spec *spec);

/* The same with an edge's bits: by its own quantizer if that can do them, else by `uniform`, weights per filter. */
void lb_spec_set_bits(lb_quant_spec *spec, int bits);

/* Another quantizer at the same bits, everything but the mixer as is usual for it. */
void lb_spec_set_quantizer(lb_quant_spec *spec, const lb_quantizer *quantizer);

/* "dorefa 2 bits" into text; "float" for NULL. */
#define LB_SPEC_TEXT 64
char *lb_spec_text(const lb_quant_spec *spec, char text[LB_SPEC_TEXT]);
bool lb_spec_equal(const lb_quant_spec *a, const lb_quant_spec *b);

/* block[i] (nnodes): for what lies between an addition and where its branches part, that addition (the innermost one); else i. */
lb_status lb_net_blocks(const lb_net *net, int *block);

/* Is everything that comes from node `index` at least 0, as far as can be seen? */
lb_status lb_net_nonnegative(const lb_net *net, int index, bool *result);

/* Is this node passed when a layer's input is traced back to the activation that made it? */
static inline bool lb_trace_through(lb_op op) {
    return op == LB_OP_MAXPOOL || op == LB_OP_AVGPOOL || op == LB_OP_FLATTEN || op == LB_OP_DROPOUT || op == LB_OP_SHORTCUTPAD;
}

#endif

/* Packing: a deploy graph (runtime/model.h) to the bytes of a .lbm file (docs/format.md). */
#ifndef LB_PACK_H
#define LB_PACK_H

#include "core/core.h"
#include "model.h"

/* A note that travels with the model, e.g. "data.name" = "fashion-mnist" (lbrt_metadata reads it). Printable text, at most
 * LBRT_MAX_TEXT bytes. */
typedef struct lb_pack_note {
    const char *key, *value;
} lb_pack_note;

/* Serialises the graph; *bytes (freed with lb_free by the caller) is exactly *size long and has passed lbrt_probe. Thresholds are
 * moved into their accumulator's range and requants, thresholds stored as narrow as their values allow; loading gives the same
 * results, bit for bit. LB_ERR_UNSUPPORTED, naming layer and field, for a graph that breaks a rule of model.h. */
lb_status lb_pack_graph(lb_ctx *ctx, const lbrt_graph *graph, const lb_pack_note *notes, int nnotes, unsigned char **bytes,
                        size_t *size);

/* Bytes that each layer takes in the file, everything it needs counted: bytes[nlayers]. */
lb_status lb_pack_layer_sizes(lb_ctx *ctx, const lbrt_graph *graph, int64_t *bytes);

#endif

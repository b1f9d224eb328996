/* Loading, in two files: load.c (header, texts, tensors) and load_layer.c (one layer). The same code probes (no memory: it only
 * checks and counts) and opens. */
#ifndef LBRT_LOAD_H
#define LBRT_LOAD_H

#include "internal.h"
#include "read.h"

#define LBRT_FORMAT_VERSION 2
#define LBRT_HEADER_SIZE 16 /* magic, version, size, checksum */
#define LBRT_CHECKSUM_AT 12

/* Option bits of a layer. */
enum {
    LBRT_FILE_FLOAT = 1,
    LBRT_FILE_FLAT = 2,
    LBRT_FILE_SQUARE = 4,
    LBRT_FILE_DILATED = 8,
    LBRT_FILE_PLACED = 16, /* copy: rows and columns by their numbers */
    LBRT_FILE_INSIDE = 32, /* sum pool */
    LBRT_FILE_OPTIONS = 63
};

#define LBRT_LEAP 64 /* tensors of the file's table */

typedef struct lbrt_loader {
    lbrt_reader r;
    lbrt_carve carve;
    size_t tensors_at[LBRT_MAX_LAYERS / LBRT_LEAP]; /* where every LBRT_LEAP'th of the tensors behind the image stands */
    int32_t ntensors, nlayers;
    lbrt_tensor image;
    size_t scratch;
    lbrt_isa isa; /* whose kernels to choose */
    lbrt_isa other; /* probing: those of this one shall fit as well */
    int layer; /* being read, -1: none */
    uint8_t signs[LBRT_MAX_LAYERS / 8 + 1]; /* a bit per tensor: holds only -1 and 1 */
} lbrt_loader;

/* Tensor `index`, read from the file again: probing has no memory to keep tensors in. */
lbrt_tensor lbrt_load_tensor(lbrt_loader *l, int32_t index);

/* 0-terminated text of printable bytes, in place. "" after a failure. */
const char *lbrt_load_text(lbrt_loader *l);

/* Reads layer `index`. Arrays go to carved memory; `layer` and `step` are filled in any case (pointers NULL when probing). */
void lbrt_load_layer(lbrt_loader *l, int32_t index, lbrt_layer *layer, lbrt_step *step);

#endif

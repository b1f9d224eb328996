/* Weights in their bits: each output channel starts at a byte, its weights follow each other from the lowest bit up. */
#ifndef UNPACK_H
#define UNPACK_H

#include "tensor.h"

typedef struct packed_weights {
    int32_t count;           /* weights of an output channel: kh kw ic / groups */
    int32_t row;             /* bytes of an output channel */
    int32_t bits, mul, add;  /* weight = mul * stored + add */
    const uint8_t *packed;   /* (oc, row) */
} packed_weights;

/* The next weight of a channel that is read from the start. */
typedef struct bit_reader {
    const uint8_t *next;
    uint32_t have; /* bits read and not yet used, */
    int32_t n;     /* so many */
} bit_reader;

static inline bit_reader read_channel(const packed_weights *w, int32_t o) {
    bit_reader r = {NULL, 0, 0};
    r.next = w->packed + (size_t)o * (size_t)w->row;
    return r;
}

static inline int32_t read_weight(const packed_weights *w, bit_reader *r) {
    if (r->n < w->bits) {
        r->have |= (uint32_t)*r->next++ << r->n;
        r->n += 8;
    }
    const int32_t stored = (int32_t)(r->have & ((1u << w->bits) - 1));
    r->have >>= w->bits;
    r->n -= w->bits;
    return w->mul * stored + w->add;
}

#endif

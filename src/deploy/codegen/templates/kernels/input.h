/* The image's bytes to codes. */
#ifndef INPUT_H
#define INPUT_H

#include "tensor.h"

typedef struct input {
    int32_t npixels, channels, dst_type;
    int32_t qlo, qhi;
    const lbrt_requant *requant; /* (channels) */
} input;

static void run_input(const input *l, const uint8_t *src, void *dst) {
    size_t at = 0;
    for (int32_t p = 0; p < l->npixels; p++)
        for (int32_t c = 0; c < l->channels; c++, at++)
            put_int(dst, l->dst_type, at, lbrt_clamp(lbrt_apply(&l->requant[c], src[at]), l->qlo, l->qhi));
}

#endif

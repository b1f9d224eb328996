/* The image's bytes to floats. */
#ifndef FLOAT_INPUT_H
#define FLOAT_INPUT_H

#include "float_epilogue.h"

typedef struct float_input {
    int32_t npixels, channels;
    const float *scale, *offset; /* (channels) */
} float_input;

static void run_float_input(const float_input *l, const uint8_t *src, void *dst) {
    mem_f32 *to = (mem_f32 *)dst;
    for (int32_t p = 0; p < l->npixels; p++)
        for (int32_t c = 0; c < l->channels; c++) {
            const float product = (float)*src++ * l->scale[c];
            *to++ = product + l->offset[c];
        }
}

#endif

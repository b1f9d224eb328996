/* An epilogue alone, in floats. */
#ifndef FLOAT_POINT_H
#define FLOAT_POINT_H

#include "float_epilogue.h"

typedef struct float_point {
    int32_t npixels, channels, src_type;
    float src_step;
    float_epilogue e;
} float_point;

static void run_float_point(const float_point *l, const void *src, const void *res, void *dst) {
    size_t at = 0;
    for (int32_t p = 0; p < l->npixels; p++)
        for (int32_t c = 0; c < l->channels; c++, at++)
            finish_float(&l->e, get_float(src, l->src_type, at, l->src_step), c, at, res, dst);
}

#endif

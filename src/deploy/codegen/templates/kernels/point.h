/* An epilogue alone: batch norm, addition, activation. */
#ifndef POINT_H
#define POINT_H

#include "epilogue.h"

typedef struct point {
    int32_t npixels, channels, src_type;
    epilogue e;
} point;

static void run_point(const point *l, const void *src, const void *res, void *dst) {
    size_t at = 0;
    for (int32_t p = 0; p < l->npixels; p++)
        for (int32_t c = 0; c < l->channels; c++, at++)
            finish(&l->e, get_int(src, l->src_type, at), c, at, res, dst);
}

#endif

/* The largest integer of each window. */
#ifndef MAXPOOL_H
#define MAXPOOL_H

#include "pool.h"

static void run_maxpool(const pool *l, const void *src, void *dst) {
    const window *const s = &l->s;
    size_t at = 0;
    for (int32_t oy = 0; oy < s->oh; oy++)
        for (int32_t ox = 0; ox < s->ow; ox++) {
            const inside in = inside_of(s, oy, ox);
            for (int32_t c = 0; c < s->ic; c++, at++) {
                int32_t best = INT32_MIN;
                for (int32_t ky = in.ky0; ky < in.ky1; ky++)
                    for (int32_t kx = in.kx0; kx < in.kx1; kx++) {
                        const int32_t v = get_int(src, l->type, pixel_at(s, in.y0 + ky, in.x0 + kx) + (size_t)c);
                        best = v > best ? v : best;
                    }
                put_int(dst, l->type, at, best);
            }
        }
}

#endif

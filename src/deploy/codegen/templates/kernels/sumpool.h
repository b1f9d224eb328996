/* The sum of each window's integers, saturated to 32 bits; the layer behind divides. */
#ifndef SUMPOOL_H
#define SUMPOOL_H

#include "pool.h"

static void run_sumpool(const pool *l, const void *src, void *dst) {
    const window *const s = &l->s;
    size_t at = 0;
    for (int32_t oy = 0; oy < s->oh; oy++)
        for (int32_t ox = 0; ox < s->ow; ox++) {
            const inside in = inside_of(s, oy, ox);
            const int64_t area = (int64_t)s->kh * s->kw;
            const int64_t n = l->inside ? (int64_t)(in.ky1 - in.ky0) * (in.kx1 - in.kx0) : area;
            for (int32_t c = 0; c < s->ic; c++, at++) {
                int64_t sum = 0;
                for (int32_t ky = in.ky0; ky < in.ky1; ky++)
                    for (int32_t kx = in.kx0; kx < in.kx1; kx++)
                        sum += get_int(src, l->type, pixel_at(s, in.y0 + ky, in.x0 + kx) + (size_t)c);
                put_int(dst, TYPE_I32, at, n == area ? lbrt_saturate(sum) : lbrt_whole_window(sum, area, n));
            }
        }
}

#endif

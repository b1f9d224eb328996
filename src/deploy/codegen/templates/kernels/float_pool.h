/* Pools of floats: the largest value of each window, or its sum in the order of rows. */
#ifndef FLOAT_POOL_H
#define FLOAT_POOL_H

#include "float_epilogue.h"

typedef struct float_pool {
    window s;
    int32_t sum;    /* 0: the maximum */
    int32_t inside; /* a sum of fewer than kh kw pixels is made one of all */
} float_pool;

static void run_float_pool(const float_pool *l, const void *src, void *dst) {
    const window *const s = &l->s;
    const mem_f32 *const from = (const mem_f32 *)src;
    mem_f32 *to = (mem_f32 *)dst;
    for (int32_t oy = 0; oy < s->oh; oy++)
        for (int32_t ox = 0; ox < s->ow; ox++) {
            const inside in = inside_of(s, oy, ox);
            for (int32_t c = 0; c < s->ic; c++) {
                const float first = from[pixel_at(s, in.y0 + in.ky0, in.x0 + in.kx0) + (size_t)c];
                float v = l->sum ? 0.0f : first;
                for (int32_t ky = in.ky0; ky < in.ky1; ky++)
                    for (int32_t kx = in.kx0; kx < in.kx1; kx++) {
                        const float x = from[pixel_at(s, in.y0 + ky, in.x0 + kx) + (size_t)c];
                        if (l->sum)
                            v = v + x;
                        else if (x > v)
                            v = x;
                    }
                *to++ = l->inside ? lbrt_whole_window_f32(v, s->kh * s->kw, (in.ky1 - in.ky0) * (in.kx1 - in.kx0)) : v;
            }
        }
}

#endif

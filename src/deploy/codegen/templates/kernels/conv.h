/* Convolution of integers: the sum of products as it is written down, one output channel at a time, whose weights are unpacked
 * once. Included once for each type of source, with CONV, the function's name, and SOURCE, the type. */
#ifndef CONV_H
#define CONV_H

#include "epilogue.h"
#include "unpack.h"

typedef struct conv {
    window s;
    packed_weights w;
    epilogue e;
} conv;

static void unpack(const packed_weights *w, int32_t o, mem_i16 *dst) {
    bit_reader r = read_channel(w, o);
    for (int32_t i = 0; i < w->count; i++)
        dst[i] = (int16_t)read_weight(w, &r);
}

#endif

/* scratch: the weights of one output channel. */
static void CONV(const conv *c, const void *src, const void *res, void *dst, void *scratch) {
    mem_i16 *const weights = (mem_i16 *)scratch;
    const window *const s = &c->s;
    const int32_t ic = s->ic / s->groups, ocg = s->oc / s->groups;
    const size_t across = (size_t)s->ic * (size_t)(s->gap_w + 1);
    for (int32_t o = 0; o < s->oc; o++) {
        const SOURCE *const from = (const SOURCE *)src + o / ocg * ic;
        size_t at = (size_t)o;
        unpack(&c->w, o, weights);
        for (int32_t oy = 0; oy < s->oh; oy++)
            for (int32_t ox = 0; ox < s->ow; ox++, at += (size_t)s->oc) {
                const inside in = inside_of(s, oy, ox);
                int32_t sum = 0;
                for (int32_t ky = in.ky0; ky < in.ky1; ky++) {
                    size_t x = pixel_at(s, in.y0 + ky * (s->gap_h + 1), in.x0 + in.kx0 * (s->gap_w + 1));
                    const mem_i16 *w = weights + (ky * s->kw + in.kx0) * ic;
                    for (int32_t kx = in.kx0; kx < in.kx1; kx++, x += across, w += ic)
                        for (int32_t i = 0; i < ic; i++)
                            sum += (int32_t)from[x + (size_t)i] * w[i];
                }
                finish(&c->e, sum, o, at, res, dst);
            }
    }
}

#undef CONV
#undef SOURCE

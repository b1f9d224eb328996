/* Convolution in floats, one output channel at a time: products are added in the order kh, kw, ic, from 0. */
#ifndef FLOAT_CONV_H
#define FLOAT_CONV_H

#include "float_epilogue.h"
#include "unpack.h"

typedef struct float_conv {
    window s;
    int32_t src_type;
    float src_step;     /* of an integer source */
    const float *f32;   /* (oc, count); NULL: the weights are packed */
    packed_weights w;
    float_epilogue e;
} float_conv;

/* scratch: the weights of one output channel, if they are packed. */
static void run_float_conv(const float_conv *c, const void *src, const void *res, void *dst, void *scratch) {
    mem_f32 *const unpacked = (mem_f32 *)scratch;
    const window *const s = &c->s;
    const int32_t ic = s->ic / s->groups, ocg = s->oc / s->groups;
    const size_t across = (size_t)s->ic * (size_t)(s->gap_w + 1);
    for (int32_t o = 0; o < s->oc; o++) {
        const size_t first = (size_t)(o / ocg * ic);
        const mem_f32 *weights = unpacked;
        size_t at = (size_t)o;
        if (c->f32 != NULL) {
            weights = c->f32 + (size_t)o * (size_t)c->w.count;
        } else {
            bit_reader r = read_channel(&c->w, o);
            for (int32_t i = 0; i < c->w.count; i++)
                unpacked[i] = (float)read_weight(&c->w, &r);
        }
        for (int32_t oy = 0; oy < s->oh; oy++)
            for (int32_t ox = 0; ox < s->ow; ox++, at += (size_t)s->oc) {
                const inside in = inside_of(s, oy, ox);
                float sum = 0.0f;
                for (int32_t ky = in.ky0; ky < in.ky1; ky++) {
                    size_t x = pixel_at(s, in.y0 + ky * (s->gap_h + 1), in.x0 + in.kx0 * (s->gap_w + 1)) + first;
                    const mem_f32 *w = weights + (ky * s->kw + in.kx0) * ic;
                    for (int32_t kx = in.kx0; kx < in.kx1; kx++, x += across, w += ic)
                        for (int32_t i = 0; i < ic; i++) {
                            const float product = get_float(src, c->src_type, x + (size_t)i, c->src_step) * w[i];
                            sum = sum + product;
                        }
                }
                finish_float(&c->e, sum, o, at, res, dst);
            }
    }
}

#endif

/* Depthwise convolution of bytes, four channels at a time, whose weights are unpacked once. Under each output pixel the four codes
 * of a tap are a word of bytes; those of two taps make a pair of 16 bits for each channel, which is multiplied at once. */
#ifndef DEPTHWISE_H
#define DEPTHWISE_H

#include "dot2.h"
#include "finish.h"
#include "unpack.h"

typedef struct depthwise {
    window s;         /* ic = oc = groups */
    packed_weights w; /* count: taps */
    uint32_t sign;    /* 0x80808080 for signed codes, which are made unsigned with it, else 0 */
    epilogue e;
} depthwise;

/* pairs (pair of taps, 4): weights of channels o .. o + n - 1. v (4): what they give for the code that `sign` makes of 0. */
static void unpack_four(const depthwise *c, int32_t o, int32_t n, uint32_t *pairs, uint32_t *v) {
    for (int32_t i = 0; i < (c->w.count + 1) / 2 * 4; i++)
        pairs[i] = 0;
    for (int32_t k = 0; k < n; k++) {
        bit_reader r = read_channel(&c->w, o + k);
        int32_t sum = 0;
        for (int32_t i = 0; i < c->w.count; i++) {
            const int32_t weight = read_weight(&c->w, &r);
            sum += weight;
            pairs[i / 2 * 4 + k] |= ((uint32_t)weight & 0xffff) << i % 2 * 16;
        }
        v[k] = c->sign != 0 ? (uint32_t)(-128 * sum) : 0;
    }
}

static inline uint32_t four_codes(const uint8_t *from) {
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static inline uint32_t few_codes(const uint8_t *from, int32_t n) {
    return from[0] | (n > 1 ? (uint32_t)from[1] << 8 : 0) | (n > 2 ? (uint32_t)from[2] << 16 : 0);
}

/* The codes of all taps in n channels from src on: `sign`, which stands for 0, where they lie outside the image. */
static inline void gather_taps(const depthwise *c, const uint8_t *src, const inside *in, int32_t n, uint32_t *taps) {
    const window *const s = &c->s;
    const int32_t step_h = s->gap_h + 1, step_w = s->gap_w + 1, kw = s->kw;
    const size_t across = (size_t)s->ic * (size_t)step_w, down = (size_t)s->ic * (size_t)s->iw * (size_t)step_h;
    const uint32_t sign = c->sign;
    if (in->ky1 - in->ky0 < s->kh || in->kx1 - in->kx0 < kw)
        for (int32_t i = 0; i < c->w.count; i++)
            taps[i] = sign;
    if (in->ky1 == in->ky0)
        return;
    size_t row = pixel_at(s, in->y0 + in->ky0 * step_h, in->x0 + in->kx0 * step_w);
    for (int32_t ky = in->ky0; ky < in->ky1; ky++, row += down) {
        size_t at = row;
        uint32_t *to = taps + ky * kw + in->kx0;
        const uint32_t *const end = taps + ky * kw + in->kx1;
        if (n == 4)
            for (; to < end; at += across)
                *to++ = four_codes(src + at) ^ sign;
        else
            for (; to < end; at += across)
                *to++ = few_codes(src + at, n) ^ sign;
    }
}

/* Adds the products to v (4). taps is even. */
static inline void multiply_taps(const uint32_t *codes, const uint32_t *pairs, int32_t taps, uint32_t *v) {
    const uint32_t mask = 0x00ff00ff, low = 0x0000ffff;
    uint32_t v0 = v[0], v1 = v[1], v2 = v[2], v3 = v[3];
    for (const uint32_t *const end = codes + taps; codes < end; codes += 2, pairs += 4) {
        const uint32_t even0 = codes[0] & mask, even1 = codes[1] & mask;
        const uint32_t odd0 = codes[0] >> 8 & mask, odd1 = codes[1] >> 8 & mask;
        v0 = dot2_signed((even0 & low) | even1 << 16, pairs[0], v0);
        v1 = dot2_signed((odd0 & low) | odd1 << 16, pairs[1], v1);
        v2 = dot2_signed(even0 >> 16 | (even1 & ~low), pairs[2], v2);
        v3 = dot2_signed(odd0 >> 16 | (odd1 & ~low), pairs[3], v3);
    }
    v[0] = v0;
    v[1] = v1;
    v[2] = v2;
    v[3] = v3;
}

/* scratch: pairs of four channels, then the codes of all taps. */
static void run_depthwise(const depthwise *c, const void *src, const void *res, void *dst, void *scratch) {
    const window *const s = &c->s;
    const int32_t taps = (c->w.count + 1) / 2 * 2;
    uint32_t *const pairs = (uint32_t *)scratch, *const codes = pairs + 2 * taps;
    codes[taps - 1] = 0; /* meets a weight of 0 if there is no such tap */
    for (int32_t o = 0; o < s->oc; o += 4) {
        const int32_t n = s->oc - o < 4 ? s->oc - o : 4;
        uint32_t start[4] = {0, 0, 0, 0};
        size_t at = (size_t)o;
        unpack_four(c, o, n, pairs, start);
        for (int32_t oy = 0; oy < s->oh; oy++) {
            const inside rows = inside_rows(s, oy);
            for (int32_t ox = 0; ox < s->ow; ox++, at += (size_t)s->oc) {
                const inside in = inside_columns(s, rows, ox);
                uint32_t v[4] = {start[0], start[1], start[2], start[3]};
                gather_taps(c, (const uint8_t *)src + o, &in, n, codes);
                multiply_taps(codes, pairs, taps, v);
                finish_some(&c->e, v, n, o, 1, at, 1, res, dst);
            }
        }
    }
}

#endif

/* Convolution of bytes with weights that stay packed. With a = x + base for a source code and w = mul * s + add for a stored
 * weight, where x and s are not negative, a sum of products is
 *     sum(a w) = mul * sum(x s) + add * sum(x) + base * sum(w):
 * the first sum takes the time, the second one is the same for all output channels, the third one is a constant of the channel
 * (bias). All of it is modulo 2^32; the true sum was proven to fit.
 *
 * The window under an output pixel becomes a column of pairs of 16 bits; two columns meet two channels at a time (tile.h). Where
 * codes are small, a half holds the codes of two pixels, the second `lane` bits up, so that one product serves two; the sums are
 * taken apart after every `chunk` words of weights, before the first pixel's could reach the second's. */
#ifndef PACKED_CONV_H
#define PACKED_CONV_H

#include "dot2.h"
#include "epilogue.h"

typedef struct packed_conv {
    window s;
    int32_t count;           /* weights of an output channel: kh kw ic / groups */
    int32_t words, pairs;    /* of an output channel, of a word */
    int32_t lane, chunk;     /* lane 0: one pixel in a half */
    int32_t base, mul, add;
    const uint32_t *weights; /* (oc, words) */
    const int32_t *bias;     /* (oc); NULL: base is 0 */
    epilogue e;
} packed_conv;

typedef void tile_fn(const uint32_t *w0, const uint32_t *w1, const uint32_t *x, int32_t words, uint32_t mask,
                     uint32_t *sums);

/* A column as it is written: x is where its next pair goes, every second word is the other column's. */
typedef struct column {
    uint32_t *x;
    uint32_t sum; /* of the codes, as x */
    uint32_t up;  /* -base, in both halves */
    int32_t lane; /* 0: the first pixel in its halves; else the second one goes `lane` bits up */
} column;

/* Four codes, given as bytes, become the pairs (0, 2) and (1, 3). */
static inline void spread(column *k, uint32_t codes) {
    const uint32_t mask = 0x00ff00ff, ones = 0x00010001;
    uint32_t even = ((codes & mask) + k->up) & mask, odd = ((codes >> 8 & mask) + k->up) & mask;
    k->sum = dot2(odd, ones, dot2(even, ones, k->sum));
    if (k->lane != 0) {
        even = (even << k->lane) + k->x[0];
        odd = (odd << k->lane) + k->x[2];
    }
    k->x[0] = even;
    k->x[2] = odd;
    k->x += 4;
}

static void spread_bytes(column *k, const uint8_t *from, int32_t words) {
    column local = *k; /* in registers: the compiler cannot know that x does not point to it */
    for (; words > 0; words--, from += 4)
        spread(&local, from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24);
    *k = local;
}

static void spread_zeros(column *k, int32_t words) {
    column local = *k;
    for (; words > 0; words--)
        spread(&local, 0);
    *k = local;
}

/* Whole words of channels: straight from the source. */
static void spread_window(const window *s, const inside *in, const uint8_t *src, column *k) {
    const int32_t ic = s->ic / s->groups / 4;
    for (int32_t ky = 0; ky < s->kh; ky++) {
        if (ky < in->ky0 || ky >= in->ky1) {
            spread_zeros(k, s->kw * ic);
            continue;
        }
        spread_zeros(k, in->kx0 * ic);
        if (s->groups == 1)
            spread_bytes(k, src + pixel_at(s, in->y0 + ky, in->x0 + in->kx0), (in->kx1 - in->kx0) * ic);
        else
            for (int32_t kx = in->kx0; kx < in->kx1; kx++)
                spread_bytes(k, src + pixel_at(s, in->y0 + ky, in->x0 + kx), ic);
        spread_zeros(k, (s->kw - in->kx1) * ic);
    }
}

/* Any number of channels: through a copy, behind which stand codes that count as nothing. */
static void copy_window(const window *s, const inside *in, const uint8_t *src, uint8_t *to) {
    const int32_t ic = s->ic / s->groups;
    for (int32_t ky = 0; ky < s->kh; ky++)
        for (int32_t kx = 0; kx < s->kw; kx++) {
            const int there = ky >= in->ky0 && ky < in->ky1 && kx >= in->kx0 && kx < in->kx1;
            const uint8_t *from = there ? src + pixel_at(s, in->y0 + ky, in->x0 + kx) : NULL;
            for (int32_t i = 0; i < ic; i++)
                *to++ = there ? from[i] : 0;
        }
}

/* The columns of `n` pixels from p on in one group. codes (n): add * sum(x). */
static void spread_pixels(const packed_conv *c, const uint8_t *src, int32_t p, int32_t n, uint32_t *x, uint8_t *copy,
                          uint32_t *codes) {
    const window *const s = &c->s;
    const int32_t share = c->lane != 0 ? 2 : 1;
    for (int32_t i = 0; i < n; i++) {
        const int32_t oy = (p + i) / s->ow;
        const inside in = inside_of(s, oy, p + i - oy * s->ow);
        column k = {NULL, 0, 0, 0};
        k.x = x + i / share;
        k.up = (uint32_t)-c->base * 0x00010001u;
        k.lane = i % share != 0 ? c->lane : 0;
        if (s->ic / s->groups % 4 == 0) {
            spread_window(s, &in, src, &k);
        } else {
            copy_window(s, &in, src, copy);
            spread_bytes(&k, copy, (c->count + 3) / 4);
        }
        codes[i] = (uint32_t)c->add * k.sum;
    }
}

/* products (channel, pixel): sum(x s) of two channels, whose weights are w0 and w1, and of four pixels, or two if lane is 0. */
static void multiply(const packed_conv *c, tile_fn *tile, const uint32_t *w0, const uint32_t *w1, const uint32_t *x,
                     uint32_t *products) {
    const uint32_t mask = ((1u << 16 / c->pairs) - 1) * 0x00010001u, low = (1u << c->lane) - 1;
    uint32_t sums[4];
    for (int32_t at = 0; at < c->words; at += c->chunk) {
        const int32_t left = c->words - at;
        tile(w0 + at, w1 + at, x + 2 * at * c->pairs, left < c->chunk ? left : c->chunk, mask, sums);
        if (c->lane == 0) { /* a single chunk */
            products[0] = sums[0];
            products[1] = sums[1];
            products[4] = sums[2];
            products[5] = sums[3];
            return;
        }
        for (int32_t i = 0; i < 4; i++) {
            products[2 * i] = (at == 0 ? 0 : products[2 * i]) + (sums[i] & low);
            products[2 * i + 1] = (at == 0 ? 0 : products[2 * i + 1]) + (sums[i] >> c->lane);
        }
    }
}

/* scratch: two columns, then a copy of one window. */
static void run_packed_conv(const packed_conv *c, tile_fn *tile, const void *src, const void *res, void *dst, void *scratch) {
    const window *const s = &c->s;
    const int32_t npixels = s->oh * s->ow, ic = s->ic / s->groups, ocg = s->oc / s->groups, most = c->lane != 0 ? 4 : 2;
    uint32_t *const x = (uint32_t *)scratch;
    uint8_t *const copy = (uint8_t *)(x + 2 * c->words * c->pairs);
    for (int32_t i = c->count; i % 4 != 0; i++)
        copy[i] = (uint8_t)c->base;
    for (int32_t p = 0; p < npixels; p += most) {
        const int32_t n = npixels - p < most ? npixels - p : most;
        for (int32_t g = 0; g < s->groups; g++) {
            const int32_t end = (g + 1) * ocg;
            uint32_t codes[4], products[8];
            spread_pixels(c, (const uint8_t *)src + g * ic, p, n, x, copy, codes);
            for (int32_t o = g * ocg; o < end; o += 2) {
                const uint32_t *const w0 = c->weights + (size_t)o * (size_t)c->words;
                multiply(c, tile, w0, o + 1 < end ? w0 + c->words : w0, x, products);
                for (int32_t k = 0; k < 2 && o + k < end; k++) {
                    const uint32_t bias = c->bias != NULL ? (uint32_t)c->bias[o + k] : 0;
                    size_t at = (size_t)p * (size_t)s->oc + (size_t)(o + k);
                    for (int32_t i = 0; i < n; i++, at += (size_t)s->oc) {
                        const uint32_t v = (uint32_t)c->mul * products[4 * k + i] + codes[i] + bias;
                        finish(&c->e, (int32_t)v, o + k, at, res, dst);
                    }
                }
            }
        }
    }
}

#endif

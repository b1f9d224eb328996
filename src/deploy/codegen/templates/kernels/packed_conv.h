/* Convolution of bytes with weights that stay packed. With a = x + base for a source code and w = mul * s + add for a stored
 * weight, where x and s are not negative, a sum of products is
 *     sum(a w) = mul * sum(x s) + add * sum(x) + base * sum(w):
 * the first sum takes the time, the second one is the same for all output channels, the third one is a constant of the channel
 * (bias). All of it is modulo 2^32; the true sum was proven to fit.
 *
 * The window under an output pixel becomes a column of pairs of 16 bits; two columns meet two channels at a time (tile.h). Source
 * channels are taken in words of four: the weights of those that this adds are 0, and their x is -base. Where codes are small, a
 * half holds the codes of two pixels, the second `lane` bits up, so that one product serves two; the sums are taken apart after
 * every `chunk` words of weights, before the first pixel's could reach the second's. Where there is memory for the columns of a
 * whole output row, the next row takes over what its windows share with those above. */
#ifndef PACKED_CONV_H
#define PACKED_CONV_H

#include "dot2.h"
#include "finish.h"

typedef struct packed_conv {
    window s;
    int32_t width;           /* bits that a weight takes */
    int32_t words, pairs;    /* of an output channel, of a word */
    int32_t column;          /* words of two columns */
    int32_t span, next[3];   /* source pixels across four (lane 0: two) windows; the first ones of all but the first window */
    int32_t lane, chunk;     /* lane 0: one pixel in a half */
    int32_t keeps;           /* rows of a window that are taken over from the output row above */
    int32_t base, mul, add;
    const uint32_t *weights; /* (groups, half of oc / groups rounded up, words, 2): two channels in turn */
    const int32_t *bias;     /* (oc); NULL: base is 0 */
    epilogue e;
} packed_conv;

typedef void tile_fn(const uint32_t *w, const uint32_t *x, int32_t words, uint32_t mask, uint32_t *sums);

/* Four codes x of a source pixel, whose bytes are `codes`. */
static inline uint32_t raise_codes(uint32_t codes, uint32_t up) {
    const uint32_t high = 0x80808080;
    return ((codes & ~high) + (up & ~high)) ^ ((codes ^ up) & high); /* no carry from byte to byte */
}

/* The `channels` of a source pixel, in whole words. NULL: padding. */
static uint32_t *copy_pixel(const uint8_t *from, int32_t channels, uint32_t up, uint32_t *to) {
    if (from == NULL) {
        for (int32_t i = 0; i < channels; i += 4)
            *to++ = up;
        return to;
    }
    for (; channels >= 4; channels -= 4, from += 4) {
        const uint32_t codes = from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
        *to++ = up != 0 ? raise_codes(codes, up) : codes;
    }
    if (channels > 0) {
        uint32_t codes = 0;
        for (int32_t i = 0; i < channels; i++)
            codes |= (uint32_t)from[i] << 8 * i;
        *to++ = raise_codes(codes, up);
    }
    return to;
}

/* The source pixels x under output pixels (oy, ox) .. (oy, ox + pixels - 1), from row `first` of the windows on:
 * (kh - first, span) of them. */
static void copy_windows(const packed_conv *c, const uint8_t *src, int32_t oy, int32_t ox, int32_t first, uint32_t *to) {
    const window *const s = &c->s;
    const uint32_t up = (uint32_t)-c->base * 0x01010101u;
    const int32_t y0 = oy * s->sh - s->pt, x0 = ox * s->sw - s->pl;
    for (int32_t y = y0 + first; y < y0 + s->kh; y++)
        for (int32_t x = x0; x < x0 + c->span; x++) {
            const int there = y >= 0 && y < s->ih && x >= 0 && x < s->iw;
            to = copy_pixel(there ? src + pixel_at(s, y, x) : NULL, s->ic / s->groups, up, to);
        }
}

static inline uint32_t add_codes(uint32_t even, uint32_t odd, uint32_t sum) { return dot2(even + odd, 0x00010001, sum); }

/* One column x, every second word, of the windows at p and, if lane is not 0, at q, from row `first` on: four codes, given as
 * bytes, become the pairs (0, 2) and (1, 3). sums (kh, 4): of each row of each window's x, in two of the four places. */
static void spread_column(const packed_conv *c, const uint32_t *p, const uint32_t *q, int32_t first, uint32_t *x, uint32_t *sums) {
    const int32_t words = (c->s.ic / c->s.groups + 3) / 4, row = c->s.kw * words, skip = c->span * words - row, lane = c->lane;
    const uint32_t mask = 0x00ff00ff;
    x += 4 * row * first;
    for (int32_t ky = first; ky < c->s.kh; ky++, p += skip, q += skip) {
        const uint32_t *const end = p + row;
        uint32_t sum0 = 0, sum1 = 0;
        if (lane == 0)
            for (; p < end; x += 4) {
                const uint32_t codes = *p++, even = codes & mask, odd = codes >> 8 & mask;
                x[0] = even;
                x[2] = odd;
                sum0 = add_codes(even, odd, sum0);
            }
        else
            for (; p < end; x += 4) {
                const uint32_t codes0 = *p++, even0 = codes0 & mask, odd0 = codes0 >> 8 & mask;
                const uint32_t codes1 = *q++, even1 = codes1 & mask, odd1 = codes1 >> 8 & mask;
                x[0] = even0 + (even1 << lane);
                x[2] = odd0 + (odd1 << lane);
                sum0 = add_codes(even0, odd0, sum0);
                sum1 = add_codes(even1, odd1, sum1);
            }
        sums[4 * ky] = sum0;
        sums[4 * ky + 1] = sum1;
    }
}

/* The last `count` words of x (all) become the first ones; in fours. */
static void move_up(uint32_t *x, int32_t all, int32_t count) {
    for (const uint32_t *from = x + all - count, *const end = x + all; from < end; from += 4, x += 4) {
        const uint32_t x0 = from[0], x1 = from[1], x2 = from[2], x3 = from[3];
        x[0] = x0;
        x[1] = x1;
        x[2] = x2;
        x[3] = x3;
    }
}

/* Both columns, whose rows before `first` are the last ones of what is there. codes (4): add * sum(x) of each pixel. */
static void spread_windows(const packed_conv *c, const uint32_t *windows, int32_t first, uint32_t *x, uint32_t *codes) {
    const int32_t words = (c->s.ic / c->s.groups + 3) / 4, kh = c->s.kh, row = 4 * c->s.kw * words;
    uint32_t *const sums = x + c->column;
    move_up(x, kh * row, first * row);
    move_up(sums, 4 * kh, 4 * first);
    if (c->lane == 0) {
        spread_column(c, windows, windows, first, x, sums);
        spread_column(c, windows + c->next[0] * words, windows, first, x + 1, sums + 1);
    } else {
        spread_column(c, windows, windows + c->next[0] * words, first, x, sums);
        spread_column(c, windows + c->next[1] * words, windows + c->next[2] * words, first, x + 1, sums + 2);
    }
    for (int32_t i = 0; i < (c->lane == 0 ? 2 : 4); i++) {
        codes[i] = 0;
        for (int32_t ky = 0; ky < kh; ky++)
            codes[i] += sums[4 * ky + i];
        codes[i] *= (uint32_t)c->add;
    }
}

/* What there is beside the products, of channel o and four pixels. */
static inline void start_sums(const packed_conv *c, const uint32_t *codes, int32_t o, uint32_t *v) {
    const uint32_t bias = c->bias != NULL ? (uint32_t)c->bias[o] : 0;
    v[0] = codes[0] + bias;
    v[1] = codes[1] + bias;
    v[2] = codes[2] + bias;
    v[3] = codes[3] + bias;
}

static inline void take_apart(const uint32_t *sums, int32_t lane, uint32_t mul, uint32_t *v) {
    const uint32_t low = (1u << lane) - 1, s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    v[0] += mul * (s0 & low);
    v[1] += mul * (s0 >> lane);
    v[2] += mul * (s1 & low);
    v[3] += mul * (s1 >> lane);
    v[4] += mul * (s2 & low);
    v[5] += mul * (s2 >> lane);
    v[6] += mul * (s3 & low);
    v[7] += mul * (s3 >> lane);
}

/* Adds mul * sum(x s) to v (channel, pixel): two channels, whose weights are w, and four pixels, or two if lane is 0. */
static void multiply(const packed_conv *c, tile_fn *tile, const uint32_t *w, const uint32_t *x, uint32_t *v) {
    const uint32_t mask = ((1u << c->width) - 1) * 0x00010001u, mul = (uint32_t)c->mul;
    uint32_t sums[4];
    tile(w, x, c->chunk, mask, sums);
    if (c->lane == 0) { /* a single chunk */
        v[0] += mul * sums[0];
        v[1] += mul * sums[1];
        v[4] += mul * sums[2];
        v[5] += mul * sums[3];
        return;
    }
    take_apart(sums, c->lane, mul, v);
    for (int32_t at = c->chunk; at < c->words; at += c->chunk) {
        const int32_t left = c->words - at;
        tile(w + 2 * at, x + 2 * at * c->pairs, left < c->chunk ? left : c->chunk, mask, sums);
        take_apart(sums, c->lane, mul, v);
    }
}

/* scratch: the windows, then two columns and the sums of their rows, of all tiles across if rows are kept. */
static void run_packed_conv(const packed_conv *c, tile_fn *tile, const void *src, const void *res, void *dst, void *scratch) {
    const window *const s = &c->s;
    const int32_t ic = s->ic / s->groups, ocg = s->oc / s->groups, most = c->lane != 0 ? 4 : 2;
    const int32_t each = c->keeps > 0 ? c->column + 4 * s->kh : 0;
    uint32_t *const windows = (uint32_t *)scratch, *const columns = windows + s->kh * c->span * ((ic + 3) / 4);
    for (int32_t oy = 0; oy < s->oh; oy++) {
        const int32_t kept = oy > 0 ? c->keeps : 0;
        uint32_t *x = columns;
        for (int32_t ox = 0; ox < s->ow; ox += most, x += each) {
            const int32_t n = s->ow - ox < most ? s->ow - ox : most;
            const size_t first = ((size_t)oy * (size_t)s->ow + (size_t)ox) * (size_t)s->oc;
            const uint32_t *w = c->weights;
            for (int32_t g = 0; g < s->groups; g++) {
                const int32_t end = (g + 1) * ocg;
                uint32_t codes[4] = {0, 0, 0, 0};
                copy_windows(c, (const uint8_t *)src + g * ic, oy, ox, kept, windows);
                spread_windows(c, windows, kept, x, codes);
                for (int32_t o = g * ocg; o < end; o += 2, w += 2 * c->words) {
                    uint32_t v[8];
                    start_sums(c, codes, o, v);
                    start_sums(c, codes, o + 1 < end ? o + 1 : o, v + 4);
                    multiply(c, tile, w, x, v);
                    for (int32_t k = 0; k < 2 && o + k < end; k++)
                        finish_some(&c->e, v + 4 * k, n, o + k, 0, first + (size_t)(o + k), (size_t)s->oc, res, dst);
                }
            }
        }
    }
}

#endif

/* Sums of products of a tile of pixels and blocks of LANES output channels, in registers. */
#ifndef LBRT_TILE_H
#define LBRT_TILE_H

#include "finish.h"

#define MAX_PIXELS 12 /* of a tile */

typedef struct tile {
    const uint8_t *src; /* first pixel's first kernel row in the strip */
    size_t pixel, row; /* bytes from one pixel's segment to the next, from one strip row to the next */
    size_t kh, steps;
    size_t run; /* steps whose products fit the sums of bytes */
    const int8_t *weights; /* first block's (kh, steps, LANES, STEP) */
    const vec *start;
} tile;

INLINE vec broadcast(const uint8_t *src) {
    int32_t v;
    __builtin_memcpy(&v, src, sizeof v); /* -ffreestanding makes a call of plain memcpy */
    return vec_set(v);
}

/* out: (pixels, blocks). Inlined with constants, so that the accumulators are registers. */
INLINE void multiply(const tile *t, const size_t pixels, const size_t blocks, const int wide, vec *out) {
    const size_t block = t->kh * t->steps * LANES * STEP;
    vec acc[MAX_PIXELS][TILE_BLOCKS];
    sums sum[MAX_PIXELS][TILE_BLOCKS]; /* not if wide: of words */
#pragma GCC unroll 12
    for (size_t i = 0; i < pixels; i++)
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; b++)
            sum[i][b] = sums_start(acc[i][b] = t->start[b]);
    const int8_t *w = t->weights;
    size_t left = t->run;
    for (size_t y = 0; y < t->kh; y++) {
        const uint8_t *src = t->src + y * t->row;
        for (size_t k = 0, end; k < t->steps; k = end) {
            end = wide || t->steps - k <= left ? t->steps : k + left;
            left -= end - k;
            for (size_t j = k; j < end; j++, src += STEP, w += LANES * STEP) {
                vec weights[TILE_BLOCKS];
#pragma GCC unroll 4
                for (size_t b = 0; b < blocks; b++)
                    weights[b] = vec_load(w + b * block);
#pragma GCC unroll 12
                for (size_t i = 0; i < pixels; i++) {
                    vec x = broadcast(src + i * t->pixel);
                    KEEP(x);
#pragma GCC unroll 4
                    for (size_t b = 0; b < blocks; b++)
                        if (wide) {
                            acc[i][b] = vec_dot_words(acc[i][b], x, weights[b]);
                            KEEP(acc[i][b]);
                        } else {
                            sum[i][b] = sums_dot(sum[i][b], x, weights[b]);
                            SUMS_KEEP(sum[i][b]);
                        }
                }
            }
            if (wide || left > 0)
                continue;
            left = t->run;
#pragma GCC unroll 12
            for (size_t i = 0; i < pixels; i++)
#pragma GCC unroll 4
                for (size_t b = 0; b < blocks; b++) {
                    acc[i][b] = sums_end(acc[i][b], sum[i][b]);
                    sum[i][b] = sums_start(acc[i][b]);
                }
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < pixels; i++)
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; b++)
            out[i * blocks + b] = wide ? acc[i][b] : sums_end(acc[i][b], sum[i][b]);
}

#define CASE(n, blocks, wide)                       \
    case n:                                          \
        if ((n) * (blocks) <= TILE_SUMS)             \
            multiply(t, n, blocks, wide, out);      \
        break;
#define TILES(name, blocks, wide)                                                                                   \
    APART void name(const tile *t, size_t pixels, vec *out) {                                                \
        switch (pixels) {                                                                                            \
            CASE(1, blocks, wide) CASE(2, blocks, wide) CASE(3, blocks, wide) CASE(4, blocks, wide)              \
            CASE(5, blocks, wide) CASE(6, blocks, wide) CASE(7, blocks, wide) CASE(8, blocks, wide)              \
            CASE(9, blocks, wide) CASE(10, blocks, wide) CASE(11, blocks, wide) CASE(12, blocks, wide)           \
        }                                                                                                            \
    }
TILES(bytes_1, 1, 0)
TILES(bytes_2, 2, 0)
TILES(words_1, 1, 1)
TILES(words_2, 2, 1)
#if TILE_BLOCKS >= 4
TILES(bytes_4, 4, 0)
TILES(words_4, 4, 1)
#endif

/* Of 1, 2 or (TILE_BLOCKS permitting) 4 blocks, tile_pixels() pixels at most. */
static inline void multiply_tile(const tile *t, size_t pixels, size_t blocks, const int wide, vec *out) {
#if TILE_BLOCKS >= 4
    if (blocks == 4) {
        wide ? words_4(t, pixels, out) : bytes_4(t, pixels, out);
        return;
    }
#endif
    if (blocks == 2)
        wide ? words_2(t, pixels, out) : bytes_2(t, pixels, out);
    else
        wide ? words_1(t, pixels, out) : bytes_1(t, pixels, out);
}

static inline size_t tile_pixels(size_t blocks) { return TILE_SUMS / blocks < MAX_PIXELS ? TILE_SUMS / blocks : MAX_PIXELS; }

/* Blocks of the next tile when `rest` are left. */
static inline size_t tile_blocks(size_t rest) { return rest >= TILE_BLOCKS ? TILE_BLOCKS : rest >= 2 ? 2 : 1; }

#endif

/* Products of unsigned and signed bytes by vpdpbusd: sums of a tile of pixels and blocks of 16 output channels in registers. */
#ifndef LBRT_VNNI_H
#define LBRT_VNNI_H

#include "avx512.h"

#define MAX_PIXELS 12 /* of a tile */
#define MAX_BLOCKS 4

typedef struct tile {
    const uint8_t *src; /* first pixel's first kernel row in the strip */
    size_t pixel, row; /* bytes from one pixel's segment to the next, from one strip row to the next */
    size_t kh, steps;
    const int8_t *weights; /* first block's */
    const __m512i *start;
} tile;

static inline __m512i four(const uint8_t *src) {
    int32_t v;
    __builtin_memcpy(&v, src, sizeof v); /* -ffreestanding makes a call of plain memcpy */
    return _mm512_set1_epi32(v);
}

/* out: (pixels, blocks). Inlined with constants, so that the accumulators are registers. */
static inline __attribute__((always_inline)) void multiply(const tile *t, const size_t pixels, const size_t blocks, __m512i *out) {
    const size_t block = t->kh * t->steps * LANES * 4;
    __m512i acc[MAX_PIXELS][MAX_BLOCKS];
#pragma GCC unroll 12
    for (size_t i = 0; i < pixels; i++)
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; b++)
            acc[i][b] = t->start[b];
    const int8_t *w = t->weights;
    for (size_t y = 0; y < t->kh; y++) {
        const uint8_t *src = t->src + y * t->row;
        for (size_t k = 0; k < t->steps; k++, src += 4, w += LANES * 4) {
            __m512i weights[MAX_BLOCKS];
#pragma GCC unroll 4
            for (size_t b = 0; b < blocks; b++)
                weights[b] = _mm512_load_si512(w + b * block);
#pragma GCC unroll 12
            for (size_t i = 0; i < pixels; i++) {
                const __m512i x = four(src + i * t->pixel);
#pragma GCC unroll 4
                for (size_t b = 0; b < blocks; b++)
                    acc[i][b] = _mm512_dpbusd_epi32(acc[i][b], x, weights[b]);
            }
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < pixels; i++)
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; b++)
            out[i * blocks + b] = acc[i][b];
}

#define CASE(pixels, blocks)              \
    case pixels:                          \
        multiply(t, pixels, blocks, out); \
        break;
#define CASES_6(blocks) CASE(1, blocks) CASE(2, blocks) CASE(3, blocks) CASE(4, blocks) CASE(5, blocks) CASE(6, blocks)
#define CASES_12(blocks) \
    CASES_6(blocks) CASE(7, blocks) CASE(8, blocks) CASE(9, blocks) CASE(10, blocks) CASE(11, blocks) CASE(12, blocks)

static inline void multiply_1(const tile *t, size_t pixels, __m512i *out) {
    switch (pixels) { CASES_12(1) }
}
static inline void multiply_2(const tile *t, size_t pixels, __m512i *out) {
    switch (pixels) { CASES_12(2) }
}
static inline void multiply_4(const tile *t, size_t pixels, __m512i *out) {
    switch (pixels) { CASES_6(4) }
}

/* 1, 2 or 4 blocks; up to 12 pixels, of 4 blocks up to 6. */
static inline void multiply_tile(const tile *t, size_t pixels, size_t blocks, __m512i *out) {
    if (blocks == 4)
        multiply_4(t, pixels, out);
    else if (blocks == 2)
        multiply_2(t, pixels, out);
    else
        multiply_1(t, pixels, out);
}

#endif

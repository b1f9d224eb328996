/* Bytes of 64 pixels and 16 channels from pixels to planes and back (AVX-512). */
#ifndef LBRT_TRANSPOSE_H
#define LBRT_TRANSPOSE_H

#include "vec.h"

/* In each of the four 16-byte parts: byte j of vector i to byte i of vector j, by four perfect shuffles. */
INLINE void transpose_parts(__m512i v[16]) {
    __m512i u[16];
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            u[2 * i] = _mm512_unpacklo_epi8(v[i], v[i + 8]);
            u[2 * i + 1] = _mm512_unpackhi_epi8(v[i], v[i + 8]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            v[i] = u[i];
    }
}

/* 16 bytes from each of four places, `offset` bytes behind them. */
INLINE __m512i load_quarters(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d, size_t offset) {
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(a + offset)));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(b + offset)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(c + offset)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(d + offset)), 3);
}

/* 64 pixels, `pixel` bytes apart, 16 channels of each; to: 16 planes, `plane` bytes apart, where of 16 pixels the even ones come
 * first. */
APART void to_planes(const uint8_t *src, size_t pixel, uint8_t *to, size_t plane) {
    __m512i v[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        v[i] = load_quarters(src, src + 16 * pixel, src + 32 * pixel, src + 48 * pixel, (i < 8 ? 2 * i : 2 * i - 15) * pixel);
    transpose_parts(v);
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        _mm512_storeu_si512(to + i * plane, v[i]);
}

/* 64 bytes whose order is that of such planes, from the pixels' own order, and back. */
INLINE __m512i even_first(__m512i v) {
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
}
INLINE __m512i in_order(__m512i v) {
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15)));
}

/* Back to pixels. */
APART void to_pixels(const uint8_t *src, size_t plane, uint8_t *to, size_t pixel) {
    __m512i v[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        v[i] = _mm512_loadu_si512(src + i * plane);
    transpose_parts(v);
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) {
        uint8_t *at = to + (i < 8 ? 2 * i : 2 * i - 15) * pixel;
        _mm_storeu_si128((__m128i *)at, _mm512_castsi512_si128(v[i]));
        _mm_storeu_si128((__m128i *)(at + 16 * pixel), _mm512_extracti32x4_epi32(v[i], 1));
        _mm_storeu_si128((__m128i *)(at + 32 * pixel), _mm512_extracti32x4_epi32(v[i], 2));
        _mm_storeu_si128((__m128i *)(at + 48 * pixel), _mm512_extracti32x4_epi32(v[i], 3));
    }
}

#endif

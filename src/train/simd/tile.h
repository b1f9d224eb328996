/* The matrix registers 0..7, 16 rows of 64 bytes each, named by literals: those of AMX (AMX-TILE, AMX-BF16), or the same
 * operations in plain C, bit for bit. (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: TDPBF16PS.)
 *
 * Between tiles_begin() and tiles_end():
 *     tile_zero(t)                      all zeros
 *     tile_load(t, from, stride)        16 rows, `stride` bytes apart
 *     tile_store(t, to, stride)
 *     tile_dot(c, a, b)                 c[m][n] += sum over k of the products of 4 unsigned bytes a[m][k] and signed ones b[k][n],
 *                                       32 bits, wraps (TDPBUSD)
 *     tile_dot_signed(c, a, b)          of signed bytes a (TDPBSSD)
 *     tile_dot_bf16(c, a, b)            c[m][n] += sum over k of a[m][2k] b[k][2n] + a[m][2k + 1] b[k][2n + 1]; c: f32 */
#ifndef LB_TILE_H
#define LB_TILE_H

#include <stdbool.h>
#include <stddef.h>

#include "train/simd/vec.h"

LB_INLINE size_t tiles_ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

#if defined(LB_ISA_amx)

#include "simd/amx.h"

LB_INLINE void tiles_begin(void) {
    static const tile_shapes shapes = {.palette = 1,
                                       .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                       .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    tile_begin(&shapes);
}
LB_INLINE void tiles_end(void) { tile_end(); }
/* 16 numbers and 16 more as a row of a register has them: alternating. */
LB_INLINE __m512i tiles_alternate(__m512i two) {
    const __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i order = _mm512_or_si512(index, _mm512_slli_epi32(_mm512_add_epi32(index, _mm512_set1_epi32(16)), 16));
    return _mm512_permutexvar_epi16(order, two);
}
#define tile_zero(t) _tile_zero(t)
#define tile_dot_bf16(c, a, b) _tile_dpbf16ps(c, a, b)

#else

#include <math.h>

static _Thread_local unsigned char tile_registers[8][16][64];

LB_INLINE void tiles_begin(void) { memset(tile_registers, 0, sizeof tile_registers); }
LB_INLINE void tiles_end(void) {}
#define tile_zero(t) memset(tile_registers[t], 0, sizeof tile_registers[t])
LB_INLINE void tile_load(int t, const void *from, ptrdiff_t stride) {
    for (int r = 0; r < 16; r++)
        memcpy(tile_registers[t][r], (const unsigned char *)from + r * stride, 64);
}
LB_INLINE void tile_store(int t, void *to, ptrdiff_t stride) {
    for (int r = 0; r < 16; r++)
        memcpy((unsigned char *)to + r * stride, tile_registers[t][r], 64);
}
/* Numbers too small to be normal are zeros, going in and coming out. */
LB_INLINE float tile_flush(float f) { return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f; }
LB_INLINE float tile_bf16(const uint16_t *from) { return tile_flush(lb_bf16_get(*from)); }
/* To f32. Too small is what is so when rounded to 24 bits: subnormal numbers have fewer, and could round up to a normal one. */
LB_INLINE float tile_round(double v) {
    const int tiny = fabs(v) < 0x1p-126 && fabsf((float)(v * 0x1p64)) < 0x1p-62f;
    return tiny ? copysignf(0, (float)v) : (float)v;
}
/* sum + a * b, rounded once: the product is exact, and a double has room for both unless one of them does not matter. */
LB_INLINE float tile_fma(const uint16_t *a, const uint16_t *b, float sum) {
    return tile_round((double)tile_bf16(a) * (double)tile_bf16(b) + (double)sum);
}
static inline void tile_dot_bf16(int c, int a, int b) {
    for (int m = 0; m < 16; m++) {
        float sums[16], even[16] = {0}, odd[16] = {0};
        uint16_t left[32], right[32];
        memcpy(sums, tile_registers[c][m], sizeof sums);
        memcpy(left, tile_registers[a][m], sizeof left);
        for (int k = 0; k < 16; k++) {
            memcpy(right, tile_registers[b][k], sizeof right);
            for (int n = 0; n < 16; n++) {
                even[n] = tile_fma(&left[2 * k], &right[2 * n], even[n]);
                odd[n] = tile_fma(&left[2 * k + 1], &right[2 * n + 1], odd[n]);
            }
        }
        for (int n = 0; n < 16; n++)
            sums[n] = tile_flush(tile_flush(sums[n]) + tile_flush(even[n] + odd[n]));
        memcpy(tile_registers[c][m], sums, sizeof sums);
    }
}
LB_INLINE void tile_dot_bytes(int c, int a, int b, bool is_signed) {
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            uint32_t sum;
            memcpy(&sum, &tile_registers[c][m][4 * n], 4);
            for (int k = 0; k < 64; k++) {
                const unsigned char left = tile_registers[a][m][k], right = tile_registers[b][k / 4][4 * n + k % 4];
                sum += (uint32_t)((is_signed ? (int8_t)left : (int)left) * (int8_t)right);
            }
            memcpy(&tile_registers[c][m][4 * n], &sum, 4);
        }
}
static inline void tile_dot(int c, int a, int b) { tile_dot_bytes(c, a, b, false); }
static inline void tile_dot_signed(int c, int a, int b) { tile_dot_bytes(c, a, b, true); }

#endif

#endif

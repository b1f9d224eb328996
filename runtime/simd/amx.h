/* The operations of AMX (AMX-TILE, AMX-INT8): eight registers 0..7 of up to 16 rows of up to 64 bytes, which tile_begin() shapes.
 * Registers are named by literals. (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.)
 *
 * TILE_READS() makes compilers write to memory what a tile instruction reads: gcc's intrinsics do not say that they read any. */
#ifndef LBRT_AMX_H
#define LBRT_AMX_H

#include <immintrin.h>
#include <stdint.h>

#define TILE_ROWS 16
#define TILE_BYTES 64 /* of a row */

/* What LDTILECFG loads. */
typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row; of registers that do not exist: 0, like their rows */
    uint8_t rows[16];
} tile_shapes;

#define TILE_READS(from) __asm__ volatile("" : : "r"(from) : "memory")

/* For this thread, until tile_end(), which also spares the system saving the registers. */
#define tile_begin(shapes) do { TILE_READS(shapes); _tile_loadconfig(shapes); } while (0)
#define tile_end() _tile_release()

/* Rows, `stride` bytes apart; 0: the same one for all. */
#define tile_load(t, from, stride) do { TILE_READS(from); _tile_loadd(t, from, stride); } while (0)
#define tile_zero(t) _tile_zero(t)
#define tile_store(t, to, stride) _tile_stored(t, to, stride)

/* 32-bit c[m][n] += the products of 4 unsigned bytes a[m][k] and 4 signed bytes b[k][n], for all k; wraps. */
#define tile_dot(c, a, b) _tile_dpbusd(c, a, b)
#define tile_dot_signed(c, a, b) _tile_dpbssd(c, a, b) /* of signed bytes a */

#endif

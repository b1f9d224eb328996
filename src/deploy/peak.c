/* What the instructions of the runtime's kernels can do at most, to compare layers with: each in a loop of independent sums,
 * its operands in registers. */
#include <math.h>

#include "deploy/packed.h"

enum { SUMS = 12, LOOPS = 20000, TRIES = 20 };

typedef struct row {
    lbrt_isa isa;
    const char *bits, *how;
    int products; /* per sum and loop */
    void (*loop)(void);
} row;

#if defined(__x86_64__)
#include "simd/amx.h"

/* The empty statement keeps a value in its register and the compiler from knowing it. */
#define KEEP(v) __asm__ volatile("" : "+v"(v))

/* sum = step(sum, a, b), `flags` being what the instruction needs. */
#define LOOP(name, flags, type, zero, step)                         \
    __attribute__((target(flags))) static void name(void) {         \
        type sums[SUMS], a = zero, b = zero;                        \
        KEEP(a);                                                    \
        KEEP(b);                                                    \
        _Pragma("GCC unroll 12") for (int k = 0; k < SUMS; k++)     \
            sums[k] = zero;                                         \
        for (int i = 0; i < LOOPS; i++)                             \
            _Pragma("GCC unroll 12") for (int k = 0; k < SUMS; k++) { \
                type sum = sums[k];                                 \
                KEEP(b); /* or the product would leave the loop */  \
                sum = step;                                         \
                KEEP(sum);                                          \
                sums[k] = sum;                                      \
            }                                                       \
    }
#define AVX512 "avx512f,avx512bw,avx512vnni"
LOOP(maddubs, "avx2", __m256i, _mm256_setzero_si256(), _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b)))
LOOP(madd, "avx2", __m256i, _mm256_setzero_si256(), _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)))
LOOP(pshufb, "avx2", __m256i, _mm256_setzero_si256(), _mm256_add_epi8(sum, _mm256_shuffle_epi8(a, b)))
LOOP(dpbusd, AVX512, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(sum, a, b))
LOOP(pshufb512, AVX512, __m512i, _mm512_setzero_si512(), _mm512_add_epi8(sum, _mm512_shuffle_epi8(a, b)))
LOOP(permb, AVX512 ",avx512vbmi", __m512i, _mm512_setzero_si512(), _mm512_add_epi8(sum, _mm512_permutexvar_epi8(a, b)))

/* All registers full of zeros, two of sources by two of weights. */
__attribute__((target("amx-tile,amx-int8"))) static void tdpbusd(void) {
    tile_shapes shapes = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        shapes.rows[t] = TILE_ROWS;
        shapes.bytes[t] = TILE_BYTES;
    }
    tile_begin(&shapes);
    for (int i = 0; i < LOOPS * SUMS / 4; i++) {
        tile_dot(0, 4, 6);
        tile_dot(1, 4, 7);
        tile_dot(2, 5, 6);
        tile_dot(3, 5, 7);
    }
    tile_end();
}

static const row rows[] = {
    {LBRT_ISA_AVX2, "8", "words, vpmaddwd and an addition", 16, madd},
    {LBRT_ISA_AVX2, "8", "bytes whose sums fit 16 bits, vpmaddubsw and an addition", 32, maddubs},
    {LBRT_ISA_AVX2, "2", "lookup of 2 products, vpshufb and an addition", 2 * 32, pshufb},
    {LBRT_ISA_AVX2, "1", "lookup of 4 products", 4 * 32, pshufb},
    {LBRT_ISA_AVX512, "8", "vpdpbusd", 64, dpbusd},
    {LBRT_ISA_AVX512, "2", "lookup of 2 products, vpshufb and an addition", 2 * 64, pshufb512},
    {LBRT_ISA_AVX512, "1", "lookup of 4 products", 4 * 64, pshufb512},
    {LBRT_ISA_AVX512VBMI, "2", "lookup of 3 products, vpermb and an addition", 3 * 64, permb},
    {LBRT_ISA_AVX512VBMI, "1", "lookup of 6 products", 6 * 64, permb},
    {LBRT_ISA_AMX, "8", "tdpbusd", 16 * 16 * 64, tdpbusd},
};
#define ROWS ((int)LB_COUNT(rows))
#else
static const row rows[1];
#define ROWS 0
#endif

static double measure(const row *r) {
    double least = INFINITY;
    for (int i = 0; i < TRIES; i++) {
        const double start = lb_now();
        r->loop();
        least = fmin(least, lb_now() - start);
    }
    return 2e-9 * r->products * SUMS * LOOPS / least;
}

bool lb_peak_row(int i, lb_peak *peak) {
    if (i >= ROWS || rows[i].isa > lbrt_best_isa())
        return false;
    *peak = (lb_peak){lbrt_isa_name(rows[i].isa), rows[i].bits, rows[i].how, measure(&rows[i])};
    return true;
}

double lb_peak_gops(lbrt_isa isa) {
    int best = -1;
    for (int i = 0; i < ROWS; i++)
        if (rows[i].isa <= isa && *rows[i].bits == '8')
            best = i;
    return best < 0 ? 0 : measure(&rows[best]);
}

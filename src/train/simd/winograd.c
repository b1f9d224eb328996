#include "train/simd/winograd.h"
#include "train/simd/vec.h"

#include <math.h>

/* 16 numbers that are computed with as floats, whatever they are in memory. */
enum { WIDTH = LB_WINOGRAD_LANES, POSITIONS = LB_WINOGRAD_POSITIONS, SLICE = LB_WINOGRAD_SLICE, MAX_BLOCKS = 4, SUMS = 16 };
enum { OFFSET = 128 }; /* transformed sources in bytes are that much higher, unsigned */
typedef float lanes __attribute__((vector_size(64)));

LB_INLINE size_t size_of(lb_factor f) { return f == LB_FACTOR_F32 ? 4 : f == LB_FACTOR_BF16 ? 2 : 1; }
/* Numbers of the summed index that one instruction multiplies: neighbours in memory. */
LB_INLINE size_t group_of(lb_factor f) { return f == LB_FACTOR_F32 ? 1 : f == LB_FACTOR_BF16 ? 2 : 4; }

#if defined(LB_ISA_avx512) || defined(LB_ISA_avx512bf16)
LB_INLINE lanes load_f32(const float *p) { return (lanes)_mm512_loadu_ps(p); }
LB_INLINE void store_f32(float *p, lanes v) { _mm512_storeu_ps(p, (__m512)v); }
LB_INLINE lanes fma_f32(lanes acc, float a, const float *b) {
    return (lanes)_mm512_fmadd_ps(_mm512_set1_ps(a), _mm512_loadu_ps(b), (__m512)acc);
}
#else
LB_INLINE lanes load_f32(const float *p) {
    lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}
LB_INLINE void store_f32(float *p, lanes v) { memcpy(p, &v, sizeof v); }
LB_INLINE lanes fma_f32(lanes acc, float a, const float *b) {
    for (int i = 0; i < WIDTH; i++)
        acc[i] = fmaf(a, b[i], acc[i]);
    return acc;
}
#endif

#if defined(LB_ISA_avx512bf16)
LB_INLINE lanes load_bf16(const uint16_t *p) {
    const __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return (lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}
LB_INLINE void store_bf16(uint16_t *p, lanes v) {
    _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
LB_INLINE void store_pair_bf16(uint16_t *p, lanes even, lanes odd) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
    const __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i turn = _mm512_or_si512(index, _mm512_slli_epi32(_mm512_add_epi32(index, _mm512_set1_epi32(16)), 16));
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(turn, both));
}
LB_INLINE __m512i four_bytes(const void *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}
LB_INLINE lanes dot_bf16(lanes acc, const uint16_t *a, const uint16_t *b) {
    return (lanes)_mm512_dpbf16_ps((__m512)acc, (__m512bh)four_bytes(a), (__m512bh)_mm512_loadu_si512(b));
}
LB_INLINE void store_u8(uint8_t *p, lanes v) { /* the last byte of a float's bits, 2^23 added */
    const __m512i bits = (__m512i)_mm512_add_ps((__m512)v, _mm512_set1_ps((1 << 23) + OFFSET));
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(bits));
}
LB_INLINE lanes dot_u8(lanes acc, const uint8_t *a, const int8_t *b) {
    return (lanes)_mm512_dpbusd_epi32((__m512i)acc, four_bytes(a), _mm512_loadu_si512(b));
}
LB_INLINE lanes load_s32(const float *p) { return (lanes)_mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
#else
LB_INLINE lanes load_bf16(const uint16_t *p) {
    lanes v;
    for (int i = 0; i < WIDTH; i++)
        v[i] = lb_bf16_get(p[i]);
    return v;
}
LB_INLINE void store_bf16(uint16_t *p, lanes v) {
    for (int i = 0; i < WIDTH; i++)
        p[i] = lb_bf16_put(v[i]);
}
LB_INLINE void store_pair_bf16(uint16_t *p, lanes even, lanes odd) {
    for (int i = 0; i < WIDTH; i++) {
        p[2 * i] = lb_bf16_put(even[i]);
        p[2 * i + 1] = lb_bf16_put(odd[i]);
    }
}
LB_INLINE lanes dot_bf16(lanes acc, const uint16_t *a, const uint16_t *b) {
    for (int i = 0; i < WIDTH; i++) {
        acc[i] += lb_bf16_get(a[1]) * lb_bf16_get(b[2 * i + 1]);
        acc[i] += lb_bf16_get(a[0]) * lb_bf16_get(b[2 * i]);
    }
    return acc;
}
LB_INLINE void store_u8(uint8_t *p, lanes v) {
    for (int i = 0; i < WIDTH; i++)
        p[i] = (uint8_t)(v[i] + OFFSET);
}
LB_INLINE lanes dot_u8(lanes acc, const uint8_t *a, const int8_t *b) {
    int32_t sum[WIDTH];
    memcpy(sum, &acc, sizeof sum);
    for (int i = 0; i < WIDTH; i++)
        for (int k = 0; k < 4; k++)
            sum[i] += a[k] * b[4 * i + k];
    memcpy(&acc, sum, sizeof sum);
    return acc;
}
LB_INLINE lanes load_s32(const float *p) {
    int32_t sum[WIDTH];
    lanes v;
    memcpy(sum, p, sizeof sum);
    for (int i = 0; i < WIDTH; i++)
        v[i] = (float)sum[i];
    return v;
}
#endif

/* By type or factor, constants wherever these are inlined; `index` in elements. */
LB_INLINE lanes load(lb_dtype type, const void *base, size_t index) {
    return type == LB_F32 ? load_f32((const float *)base + index) : load_bf16((const uint16_t *)base + index);
}
LB_INLINE const void *at(lb_factor f, const void *base, size_t index) { return (const unsigned char *)base + index * size_of(f); }
LB_INLINE void store(lb_factor f, void *base, size_t index, lanes v) {
    if (f == LB_FACTOR_F32)
        store_f32((float *)base + index, v);
    else if (f == LB_FACTOR_BF16)
        store_bf16((uint16_t *)base + index, v);
    else
        store_u8((uint8_t *)base + index, v);
}
LB_INLINE lanes dot(lb_factor f, lanes acc, const void *a, size_t ai, const void *b, size_t bi) {
    return f == LB_FACTOR_F32    ? fma_f32(acc, ((const float *)a)[ai], (const float *)b + bi)
           : f == LB_FACTOR_BF16 ? dot_bf16(acc, (const uint16_t *)a + ai, (const uint16_t *)b + bi)
                                 : dot_u8(acc, (const uint8_t *)a + ai, (const int8_t *)b + bi);
}
LB_INLINE lanes load_sum(lb_factor f, const float *p) { return f == LB_FACTOR_S8 ? load_s32(p) : load_f32(p); }
/* Row `k` of a matrix (rows, c) whose rows are grouped as products need them. */
LB_INLINE size_t grouped(lb_factor f, size_t k, size_t c) { return k / group_of(f) * c * group_of(f); }

/* ---- Products ---------------------------------------------------------------------------------------------------------- */

/* sums[i][j] (+)= sum over k of a[i][k] b[k][j], j a vector, k counting groups. In elements, a is at i a_row + k a_step, b at
 * k b_step. */
typedef struct product {
    const void *a, *b;
    size_t a_row, a_step, b_step, steps;
    float *sums;               /* rows sums_row floats apart; of bytes, 32-bit integers */
    size_t sums_row;
    const float *start;        /* (blocks * 16) what is added to, NULL: sums if `add`, else 0 */
    bool add;
} product;

/* Inlined with constants, so that the sums are registers. */
LB_INLINE void multiply(lb_factor f, const product *p, int rows, int blocks) {
    lanes sum[SUMS][MAX_BLOCKS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < blocks; j++)
            sum[i][j] = p->start ? load_f32(p->start + (size_t)j * WIDTH)
                        : p->add ? load_f32(p->sums + (size_t)i * p->sums_row + (size_t)j * WIDTH)
                                 : (lanes){0};
    const unsigned char *a = p->a, *b = p->b;
    const size_t row = p->a_row, a_step = p->a_step * size_of(f), b_step = p->b_step * size_of(f);
    for (size_t k = 0; k < p->steps; k++, a += a_step, b += b_step)
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < blocks; j++)
                sum[i][j] = dot(f, sum[i][j], a, (size_t)i * row, b, (size_t)j * WIDTH * group_of(f));
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < blocks; j++)
            store_f32(p->sums + (size_t)i * p->sums_row + (size_t)j * WIDTH, sum[i][j]);
}

/* SUMS rows of 1, 2 or 4 blocks. */
LB_INLINE void multiply_rows(lb_factor f, product p, size_t blocks) {
    const int rows = SUMS / (int)blocks;
    for (int i = 0; i < SUMS; i += rows) {
        if (blocks == 4)
            multiply(f, &p, SUMS / 4, 4);
        else if (blocks == 2)
            multiply(f, &p, SUMS / 2, 2);
        else
            multiply(f, &p, SUMS, 1);
        p.a = at(f, p.a, (size_t)rows * p.a_row);
        p.sums += (size_t)rows * p.sums_row;
    }
}

LB_INLINE size_t blocks_of(size_t rest) { return rest >= 4 * WIDTH ? 4 : rest >= 2 * WIDTH ? 2 : 1; }

/* ---- Transforms -------------------------------------------------------------------------------------------------------- */

/* Rows of pixels of a tensor (mb, h, w, c), zeros outside of it. */
typedef struct strip {
    const void *row[4];
    size_t step[4];            /* elements from pixel to pixel; 0: a row of zeros */
    int w;
} strip;

/* `count` rows from row y of image n on; none of the tensor's if n is not an image. */
LB_INLINE strip find_rows(lb_dtype type, const lb_winograd_dims *d, const void *data, size_t n, int h, int w, int c, int y,
                          int count) {
    strip s = {.w = w};
    for (int i = 0; i < count; i++) {
        const bool inside = n < (size_t)d->mb && y + i >= 0 && y + i < h;
        s.row[i] = inside ? at((lb_factor)type, data, (n * (size_t)h + (size_t)(y + i)) * (size_t)w * (size_t)c) : d->zeros;
        s.step[i] = inside ? (size_t)c : 0;
    }
    return s;
}

/* Of column x, channels c .., B^T d. */
LB_INLINE void source_column(lb_dtype type, const strip *s, int x, size_t c, lanes t[4]) {
    if (x < 0 || x >= s->w) {
        for (int i = 0; i < 4; i++)
            t[i] = (lanes){0};
        return;
    }
    lanes v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        v[i] = load(type, s->row[i], (size_t)x * s->step[i] + c);
    t[0] = v[0] - v[2];
    t[1] = v[1] + v[2];
    t[2] = v[2] - v[1];
    t[3] = v[3] - v[1];
}

/* Of column x, channels c .., A dy. */
LB_INLINE void diff_column(lb_dtype type, const strip *s, int x, size_t c, lanes t[4]) {
    if (x >= s->w) {
        for (int i = 0; i < 4; i++)
            t[i] = (lanes){0};
        return;
    }
    t[0] = load(type, s->row[0], (size_t)x * s->step[0] + c);
    t[3] = load(type, s->row[1], (size_t)x * s->step[1] + c);
    t[1] = t[0] + t[3];
    t[2] = t[0] - t[3];
}

/* One number of each of `group` tiles, next to each other. */
LB_INLINE void store_group(lb_factor f, int group, void *dst, size_t index, const lanes *v) {
    if (group == 1)
        store(f, dst, index, v[0]);
    else
        store_pair_bf16((uint16_t *)dst + index, v[0], v[1]);
}

/* A row of tiles, or as many as `group` says next to each other: sources from column x, channels c0 .. c0 + c, to dst
 * (16, across, c, group), positions `step` elements apart. */
LB_INLINE void transform_sources(lb_dtype type, lb_factor f, int group, const strip *s, int x, size_t across, size_t c0, size_t c,
                                 void *dst, size_t step) {
    for (size_t k = 0; k < c; k += WIDTH) {
        lanes t[4][2][4]; /* (column, tile of the group, row) */
        for (int g = 0; g < group; g++)
            for (int j = 0; j < 2; j++)
                source_column(type, &s[g], x + j, c0 + k, t[j][g]);
        for (size_t tile = 0; tile < across; tile++) {
            const size_t index = (tile * c + k) * (size_t)group;
#pragma GCC unroll 2
            for (int g = 0; g < group; g++) {
                source_column(type, &s[g], x + (int)tile * 2 + 2, c0 + k, t[2][g]);
                source_column(type, &s[g], x + (int)tile * 2 + 3, c0 + k, t[3][g]);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                lanes v[4][2];
#pragma GCC unroll 2
                for (int g = 0; g < group; g++) {
                    v[0][g] = t[0][g][i] - t[2][g][i];
                    v[1][g] = t[1][g][i] + t[2][g][i];
                    v[2][g] = t[2][g][i] - t[1][g][i];
                    v[3][g] = t[3][g][i] - t[1][g][i];
                    t[0][g][i] = t[2][g][i];
                    t[1][g][i] = t[3][g][i];
                }
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++)
                    store_group(f, group, dst, (size_t)(4 * i + j) * step + index, v[j]);
            }
        }
    }
}

/* The same of the result's gradient, A dy A^T. */
LB_INLINE void transform_diffs(lb_dtype type, int group, const strip *s, size_t across, size_t c0, size_t c, void *dst,
                               size_t step) {
    for (size_t tile = 0; tile < across; tile++)
        for (size_t k = 0; k < c; k += WIDTH) {
            lanes t[2][2][4];
            for (int g = 0; g < group; g++)
                for (int j = 0; j < 2; j++)
                    diff_column(type, &s[g], (int)tile * 2 + j, c0 + k, t[j][g]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                lanes v[4][2];
#pragma GCC unroll 2
                for (int g = 0; g < group; g++) {
                    v[0][g] = t[0][g][i];
                    v[1][g] = t[0][g][i] + t[1][g][i];
                    v[2][g] = t[0][g][i] - t[1][g][i];
                    v[3][g] = t[1][g][i];
                }
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++)
                    store_group((lb_factor)type, group, dst, (size_t)(4 * i + j) * step + (tile * c + k) * (size_t)group, v[j]);
            }
        }
}

/* A^T n A of 16 channels, positions `step` floats apart. Weights in bytes came times 4. */
LB_INLINE void transform_result(lb_factor f, const float *n, size_t step, lanes y[4]) {
    lanes t[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const lanes n0 = load_sum(f, n + (size_t)j * step), n1 = load_sum(f, n + (size_t)(4 + j) * step);
        const lanes n2 = load_sum(f, n + (size_t)(8 + j) * step), n3 = load_sum(f, n + (size_t)(12 + j) * step);
        t[0][j] = n0 + n1 + n2;
        t[1][j] = n1 - n2 + n3;
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        y[2 * i] = t[i][0] + t[i][1] + t[i][2];
        y[2 * i + 1] = t[i][1] - t[i][2] + t[i][3];
    }
    for (int i = 0; f == LB_FACTOR_S8 && i < 4; i++)
        y[i] *= 0.25f;
}

/* G g of 16 channels. */
LB_INLINE void weight_column(lanes g0, lanes g1, lanes g2, lanes v[4]) {
    const lanes sum = g0 + g2;
    v[0] = g0;
    v[1] = (sum + g1) * 0.5f;
    v[2] = (sum - g1) * 0.5f;
    v[3] = g2;
}

/* G g G^T of 16 channels; g (3, 3), `step` floats apart. */
LB_INLINE void transform_weights(const float *g, size_t step, lanes v[16]) {
    lanes t[3][4];
    for (size_t j = 0; j < 3; j++)
        weight_column(load_f32(g + j * step), load_f32(g + (3 + j) * step), load_f32(g + (6 + j) * step), t[j]);
    for (int i = 0; i < 4; i++)
        weight_column(t[0][i], t[1][i], t[2][i], v + 4 * i);
}

/* G^T n. */
LB_INLINE void diff_weight_column(lanes n0, lanes n1, lanes n2, lanes n3, lanes v[3]) {
    const lanes half = (n1 + n2) * 0.5f;
    v[0] = n0 + half;
    v[1] = (n1 - n2) * 0.5f;
    v[2] = half + n3;
}

/* G^T n G. */
LB_INLINE void transform_diff_weights(const float *n, size_t step, lanes v[9]) {
    lanes t[4][3];
    for (size_t j = 0; j < 4; j++)
        diff_weight_column(load_f32(n + j * step), load_f32(n + (4 + j) * step), load_f32(n + (8 + j) * step),
                           load_f32(n + (12 + j) * step), t[j]);
    for (int i = 0; i < 3; i++)
        diff_weight_column(t[0][i], t[1][i], t[2][i], t[3][i], v + 3 * i);
}

/* ---- Memory ---------------------------------------------------------------------------------------------------------------- */

/* Tiles that are transformed before they are multiplied, filled up to whole products. */
LB_INLINE size_t tiles_at_once(const lb_winograd_dims *d, size_t tiles) {
    const size_t count = lb_winograd_rows(d, tiles) * lb_winograd_across(d);
    return (count + SUMS - 1) / SUMS * SUMS;
}

/* Positions must not be a power of two apart, or they would fall into the same few lines of the cache. */
LB_INLINE size_t spread(size_t elements) { return elements + 2 * WIDTH; }
LB_INLINE size_t align(size_t size) { return (size + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN; }

/* Asks for the pixels under tile rows [first, last) of a tensor (mb, h, w, c), one of 16 parts of them, so that memory works while
 * products are made. */
LB_INLINE void prefetch(const lb_winograd_dims *d, size_t first, size_t last, const void *data, int h, int w, int c, size_t part) {
    const size_t down = lb_winograd_down(d), row = (size_t)w * (size_t)c * lb_dtype_size(d->type);
    const size_t all = (size_t)d->mb * (size_t)h * row;
    const size_t from = LB_MIN((first / down * (size_t)h + first % down * 2) * row, all);
    const size_t size = LB_MIN((last - first) * 2 * row, all - from);
    for (size_t i = size * part / POSITIONS; i < size * (part + 1) / POSITIONS; i += 64)
        __builtin_prefetch((const unsigned char *)data + from + i, 1);
}

/* ---- The convolution ------------------------------------------------------------------------------------------------------ */

typedef struct conv_buffers {
    void *sources;             /* (16, tiles, ic) */
    float *products;           /* (16, tiles, at most 64 output channels) */
    size_t sources_step, products_step, size;
} conv_buffers;

LB_INLINE conv_buffers conv_place(const lb_winograd_dims *d, void *scratch) {
    const size_t tiles = tiles_at_once(d, LB_WINOGRAD_CONV_TILES);
    conv_buffers b;
    b.sources_step = spread(tiles * (size_t)d->ic);
    b.products_step = spread(tiles * LB_MIN((size_t)d->oc, MAX_BLOCKS * WIDTH));
    const size_t sources = align(POSITIONS * b.sources_step * lb_dtype_size(d->type));
    b.sources = scratch;
    b.products = (float *)(void *)((unsigned char *)scratch + sources);
    b.size = sources + align(POSITIONS * b.products_step * sizeof(float));
    return b;
}

static size_t LB_NAME(conv_scratch)(const lb_winograd_dims *d) { return conv_place(d, NULL).size; }

/* One row of tiles, the first with index `tile` among the products; blocks of 16 channels from oc0 on. */
LB_INLINE void store_results(const lb_winograd_dims *d, lb_dtype type, lb_factor f, const conv_buffers *b, size_t row, size_t tile,
                             size_t oc0, size_t blocks, void *dst) {
    const size_t down = lb_winograd_down(d), w = (size_t)d->ow, oc = (size_t)d->oc, y0 = row % down * 2;
    const size_t first = ((row / down * (size_t)d->oh + y0) * w) * oc + oc0;
    for (size_t t = 0; t < lb_winograd_across(d); t++)
        for (size_t j = 0; j < blocks; j++) {
            lanes y[4];
            transform_result(f, b->products + ((tile + t) * blocks + j) * WIDTH, b->products_step, y);
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; k++)
                if (y0 + k / 2 < (size_t)d->oh && 2 * t + k % 2 < w)
                    store((lb_factor)type, dst, first + (k / 2 * w + 2 * t + k % 2) * oc + j * WIDTH, y[k]);
        }
}

LB_INLINE void conv(const lb_winograd_dims *d, lb_dtype type, lb_factor f, size_t first, size_t last, const void *src,
                    const lb_winograd_weights *weights, void *dst, void *scratch) {
    const conv_buffers b = conv_place(d, scratch);
    const size_t ic = (size_t)d->ic, oc = (size_t)d->oc, most = lb_winograd_rows(d, LB_WINOGRAD_CONV_TILES), group = group_of(f);
    const size_t across = lb_winograd_across(d), down = lb_winograd_down(d), step = lb_winograd_weights_step(d->oc, d->ic);
    for (size_t row = first; row < last; row += most) {
        const size_t rows = LB_MIN(most, last - row), tiles = rows * across;
        for (size_t r = 0; r < rows; r++) {
            const strip s = find_rows(type, d, src, (row + r) / down, d->ih, d->iw, d->ic, (int)((row + r) % down) * 2 - d->pt, 4);
            transform_sources(type, f, 1, &s, -d->pl, across, 0, ic, (unsigned char *)b.sources + r * across * ic * size_of(f),
                              b.sources_step);
        }
        for (size_t o = 0, blocks; o < oc; o += blocks * WIDTH) {
            blocks = blocks_of(oc - o);
            for (size_t k = 0; k < POSITIONS; k++) {
                if (o == 0) {
                    prefetch(d, row, row + rows, dst, d->oh, d->ow, d->oc, k);
                    prefetch(d, row + rows, row + rows + most, src, d->ih, d->iw, d->ic, k);
                }
                for (size_t t = 0; t < tiles; t += SUMS) {
                    const product p = {.a = at(f, b.sources, k * b.sources_step + t * ic), .a_row = ic, .a_step = group,
                                       .b = at(f, weights->numbers, k * step + o * group), .b_step = oc * group,
                                       .steps = ic / group,
                                       .sums = b.products + k * b.products_step + t * blocks * WIDTH, .sums_row = blocks * WIDTH,
                                       .start = f == LB_FACTOR_S8 ? weights->start + k * oc + o : NULL};
                    multiply_rows(f, p, blocks);
                }
            }
            for (size_t r = 0; r < rows; r++)
                store_results(d, type, f, &b, row + r, r * across, o, blocks, dst);
        }
    }
}

static void LB_NAME(conv)(const lb_winograd_dims *d, size_t first, size_t last, const void *src, const lb_winograd_weights *weights,
                          void *dst, void *scratch) {
    if (d->type == LB_F32)
        conv(d, LB_F32, LB_FACTOR_F32, first, last, src, weights, dst, scratch);
    else if (weights->factor == LB_FACTOR_BF16)
        conv(d, LB_BF16, LB_FACTOR_BF16, first, last, src, weights, dst, scratch);
    else
        conv(d, LB_BF16, LB_FACTOR_S8, first, last, src, weights, dst, scratch);
}

/* ---- The weights' gradient -------------------------------------------------------------------------------------------------- */

typedef struct diff_buffers {
    void *sources, *diffs;     /* (16, tiles, channels of a slice), tiles grouped */
    float *sums;               /* (16, oc of the slice, ic of the slice) */
    size_t step, sums_step, size;
} diff_buffers;

LB_INLINE diff_buffers diff_place(const lb_winograd_dims *d, void *scratch) {
    const size_t tiles = tiles_at_once(d, LB_WINOGRAD_DIFF_TILES);
    const size_t c = (size_t)LB_MIN(LB_MAX(d->ic, d->oc), SLICE);
    diff_buffers b;
    b.step = spread(tiles * c);
    b.sums_step = spread(c * c);
    const size_t size = align(POSITIONS * b.step * lb_dtype_size(d->type));
    b.sources = scratch;
    b.diffs = (unsigned char *)scratch + size;
    b.sums = (float *)(void *)((unsigned char *)scratch + 2 * size);
    b.size = 2 * size + align(POSITIONS * b.sums_step * sizeof(float));
    return b;
}

static size_t LB_NAME(diff_scratch)(const lb_winograd_dims *d) { return diff_place(d, NULL).size; }

LB_INLINE void diff(const lb_winograd_dims *d, lb_dtype type, size_t first, size_t last, int ic0, int oc0, const void *src,
                    const void *diff_dst, float *to, void *scratch) {
    const diff_buffers b = diff_place(d, scratch);
    const lb_factor f = (lb_factor)type;
    const int group = (int)group_of(f); /* rows of tiles whose tiles are neighbours */
    const size_t nic = (size_t)LB_MIN(SLICE, d->ic - ic0), noc = (size_t)LB_MIN(SLICE, d->oc - oc0), n = (size_t)group;
    const size_t across = lb_winograd_across(d), down = lb_winograd_down(d), most = lb_winograd_rows(d, LB_WINOGRAD_DIFF_TILES);
    for (size_t row = first; row < last; row += most) {
        const size_t rows = LB_MIN(most, last - row), steps = (rows + n - 1) / n * across;
        for (size_t r = 0; r < rows; r += n) {
            strip x[2], dy[2];
            for (size_t g = 0; g < n; g++) {
                const size_t image = r + g < rows ? (row + r + g) / down : (size_t)d->mb;
                const int y = (int)((row + r + g) % down) * 2;
                x[g] = find_rows(type, d, src, image, d->ih, d->iw, d->ic, y - d->pt, 4);
                dy[g] = find_rows(type, d, diff_dst, image, d->oh, d->ow, d->oc, y, 2);
            }
            const size_t tile = r * across * size_of(f);
            transform_sources(type, f, group, x, -d->pl, across, (size_t)ic0, nic, (unsigned char *)b.sources + tile * nic, b.step);
            transform_diffs(type, group, dy, across, (size_t)oc0, noc, (unsigned char *)b.diffs + tile * noc, b.step);
        }
        for (size_t k = 0; k < POSITIONS; k++) {
            prefetch(d, row + rows, row + rows + most, src, d->ih, d->iw, d->ic, k);
            prefetch(d, row + rows, row + rows + most, diff_dst, d->oh, d->ow, d->oc, k);
            for (size_t o = 0; o < noc; o += SUMS)
                for (size_t i = 0, blocks; i < nic; i += blocks * WIDTH) {
                    blocks = blocks_of(nic - i);
                    const product p = {.a = at(f, b.diffs, k * b.step + o * n), .a_row = n, .a_step = noc * n,
                                       .b = at(f, b.sources, k * b.step + i * n), .b_step = nic * n, .steps = steps,
                                       .sums = b.sums + k * b.sums_step + o * nic + i, .sums_row = nic, .add = row > first};
                    multiply_rows(f, p, blocks);
                }
        }
    }
    for (size_t o = 0; o < noc; o++)
        for (size_t i = 0; i < nic; i += WIDTH) {
            lanes v[9];
            transform_diff_weights(b.sums + o * nic + i, b.sums_step, v);
            for (size_t k = 0; k < 9; k++)
                store_f32(to + (((size_t)oc0 + o) * 9 + k) * (size_t)d->ic + (size_t)ic0 + i, v[k]);
        }
}

static void LB_NAME(diff)(const lb_winograd_dims *d, size_t first, size_t last, int ic0, int oc0, const void *src,
                          const void *diff_dst, float *to, void *scratch) {
    if (d->type == LB_F32)
        diff(d, LB_F32, first, last, ic0, oc0, src, diff_dst, to, scratch);
    else
        diff(d, LB_BF16, first, last, ic0, oc0, src, diff_dst, to, scratch);
}

/* ---- Weights --------------------------------------------------------------------------------------------------------------- */

/* Lanes to rows row .. row + 15 of a matrix (rows, c), column `column`. */
LB_INLINE void store_column(lb_factor f, void *dst, size_t row, size_t c, size_t column, lanes v) {
    unsigned char narrow[WIDTH * 4];
    store(f, narrow, 0, f == LB_FACTOR_S8 ? v * 4 : v);
    for (size_t i = 0; f == LB_FACTOR_S8 && i < WIDTH; i++)
        narrow[i] ^= OFFSET; /* signed again */
    for (size_t i = 0; i < WIDTH; i += group_of(f))
        memcpy((unsigned char *)dst + (grouped(f, row + i, c) + column * group_of(f)) * size_of(f), narrow + i * size_of(f),
               group_of(f) * size_of(f));
}

/* What makes up for the sources' offset: the transformed weights of 16 output channels, summed over the input channels. */
LB_INLINE void store_start(const lb_winograd_dims *d, const float *w, size_t first, float *start) {
    float sum[9][WIDTH] = {{0}};
    const size_t ic = (size_t)d->ic;
    for (size_t o = 0; o < WIDTH; o++)
        for (size_t k = 0; k < 9; k++)
            for (size_t i = 0; i < ic; i++)
                sum[k][o] += w[((first + o) * 9 + k) * ic + i];
    lanes v[POSITIONS];
    transform_weights(sum[0], WIDTH, v);
    for (size_t k = 0; k < POSITIONS; k++) {
        int32_t whole[WIDTH];
        for (int o = 0; o < WIDTH; o++)
            whole[o] = (int32_t)(v[k][o] * (-4 * OFFSET));
        memcpy(start + k * (size_t)d->oc + first, whole, sizeof whole);
    }
}

LB_INLINE void weights(const lb_winograd_dims *d, lb_factor f, const float *w, size_t first, void *dst) {
    const size_t ic = (size_t)d->ic, oc = (size_t)d->oc, step = lb_winograd_weights_step(d->oc, d->ic);
    for (size_t i = 0; i < ic; i += WIDTH)
        for (size_t o = first; o < first + WIDTH; o++) {
            lanes v[POSITIONS];
            transform_weights(w + o * 9 * ic + i, ic, v);
            for (size_t k = 0; k < POSITIONS; k++)
                store_column(f, (unsigned char *)dst + k * step * size_of(f), i, oc, o, v[k]);
        }
}

static void LB_NAME(weights)(const lb_winograd_dims *d, const float *w, int first, lb_winograd_weights *to) {
    if (to->factor == LB_FACTOR_F32) {
        weights(d, LB_FACTOR_F32, w, (size_t)first, to->numbers);
    } else if (to->factor == LB_FACTOR_BF16) {
        weights(d, LB_FACTOR_BF16, w, (size_t)first, to->numbers);
    } else {
        weights(d, LB_FACTOR_S8, w, (size_t)first, to->numbers);
        store_start(d, w, (size_t)first, to->start);
    }
}

LB_INLINE void turned(const lb_winograd_dims *d, lb_factor f, const float *w, size_t first, void *dst) {
    static const unsigned char turn[4] = {3, 1, 2, 0}; /* of g2, g1, g0: the second and third transformed ones stay */
    const size_t ic = (size_t)d->ic, step = lb_winograd_weights_step(d->oc, d->ic);
    for (size_t o = first; o < first + WIDTH; o += group_of(f))
        for (size_t i = 0; i < ic; i += WIDTH) {
            lanes v[2][POSITIONS];
            for (size_t g = 0; g < group_of(f); g++)
                transform_weights(w + (o + g) * 9 * ic + i, ic, v[g]);
            for (size_t k = 0; k < POSITIONS; k++) {
                const lanes pair[2] = {v[0][k], v[1][k]};
                const size_t to = (turn[k / 4] * 4u + turn[k % 4]) * step + grouped(f, o, ic) + i * group_of(f);
                store_group(f, (int)group_of(f), dst, to, pair);
            }
        }
}

static void LB_NAME(turned)(const lb_winograd_dims *d, const float *w, int first, lb_winograd_weights *to) {
    if (to->factor == LB_FACTOR_F32)
        turned(d, LB_FACTOR_F32, w, (size_t)first, to->numbers);
    else
        turned(d, LB_FACTOR_BF16, w, (size_t)first, to->numbers);
}

const lb_winograd_kernels LB_NAME(lb_winograd) = {
    .isa = LB_STRING(LB_ISA),
    .weights = LB_NAME(weights),
    .turned = LB_NAME(turned),
    .conv = LB_NAME(conv),
    .conv_scratch = LB_NAME(conv_scratch),
    .diff = LB_NAME(diff),
    .diff_scratch = LB_NAME(diff_scratch),
};

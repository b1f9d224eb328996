#include "train/simd/eval_kernels.h"

#include "float_rules.h"
#include "window.h"

#include <math.h>
#include <stdbool.h>

#if defined(LB_ISA_avx512)
#include <immintrin.h>
#endif

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

/* ---- Loads and stores ---------------------------------------------------------------------------------------------- */

#define CONVERT(name, from, to)                                                                                                    \
    static void name(const from *src, int n, to *dst) {                                                                            \
        for (int i = 0; i < n; i++)                                                                                                \
            dst[i] = (to)src[i];                                                                                                   \
    }
CONVERT(load_u8, uint8_t, int32_t)
CONVERT(load_s8, int8_t, int32_t)
CONVERT(load_whole, float, int32_t)
CONVERT(store_u8, int32_t, uint8_t)
CONVERT(store_s8, int32_t, int8_t)

/* ---- Integers ------------------------------------------------------------------------------------------------------ */

static inline int32_t saturate(int64_t y) { return y > INT32_MAX ? INT32_MAX : y < INT32_MIN ? INT32_MIN : (int32_t)y; }

#if defined(LB_ISA_avx512)
/* Up to 8 numbers, those of a mask. Compilers leave out one that is known to be `all`, which is faster. */
enum { all = 0xff };
static inline __mmask8 tail(int n) { return (__mmask8)((1u << n) - 1); }
static inline __m512i widen(const int32_t *p, __mmask8 mask) { return _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(mask, p)); }

static inline __m512i apply8(const int32_t *src, __mmask8 mask, __m512i mul, __m512i add, __m512i shift) {
    return _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(widen(src, mask), mul), add), shift);
}
static inline void requant8(const int32_t *src, __mmask8 mask, __m512i mul, __m512i add, __m512i shift, int32_t *dst) {
    _mm256_mask_storeu_epi32(dst, mask, _mm512_cvtsepi64_epi32(apply8(src, mask, mul, add, shift)));
}

static void requant(const int32_t *src, int n, const int64_t *mul, const int64_t *add, const int64_t *shift, int32_t *dst) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        requant8(src + i, all, _mm512_loadu_si512(mul + i), _mm512_loadu_si512(add + i), _mm512_loadu_si512(shift + i), dst + i);
    if (i < n) {
        const __mmask8 mask = tail(n - i);
        requant8(src + i, mask, _mm512_maskz_loadu_epi64(mask, mul + i), _mm512_maskz_loadu_epi64(mask, add + i),
                 _mm512_maskz_loadu_epi64(mask, shift + i), dst + i);
    }
}

static void requant_fits(const int32_t *src, int n, const int64_t *mul, const int64_t *add, const int64_t *shift, int32_t *dst) {
    const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512i first =
            apply8(src + i, all, _mm512_loadu_si512(mul + i), _mm512_loadu_si512(add + i), _mm512_loadu_si512(shift + i));
        const __m512i second = apply8(src + i + 8, all, _mm512_loadu_si512(mul + i + 8), _mm512_loadu_si512(add + i + 8),
                                      _mm512_loadu_si512(shift + i + 8));
        _mm512_storeu_si512(dst + i, _mm512_permutex2var_epi32(first, index, second));
    }
    requant(src + i, n - i, mul + i, add + i, shift + i, dst + i);
}

static void requant1(const int32_t *src, int n, lbrt_requant r, int32_t *dst) {
    const __m512i mul = _mm512_set1_epi64(r.mul), add = _mm512_set1_epi64(r.add), shift = _mm512_set1_epi64(r.shift);
    int i = 0;
    for (; i + 8 <= n; i += 8)
        requant8(src + i, all, mul, add, shift, dst + i);
    if (i < n)
        requant8(src + i, tail(n - i), mul, add, shift, dst + i);
}
#else
static void requant(const int32_t *src, int n, const int64_t *mul, const int64_t *add, const int64_t *shift, int32_t *dst) {
    for (int i = 0; i < n; i++)
        dst[i] = saturate((src[i] * mul[i] + add[i]) >> shift[i]);
}

static void requant_fits(const int32_t *src, int n, const int64_t *mul, const int64_t *add, const int64_t *shift, int32_t *dst) {
    for (int i = 0; i < n; i++)
        dst[i] = (int32_t)((src[i] * mul[i] + add[i]) >> shift[i]);
}

static void requant1(const int32_t *src, int n, lbrt_requant r, int32_t *dst) {
    for (int i = 0; i < n; i++)
        dst[i] = saturate(((int64_t)src[i] * r.mul + r.add) >> r.shift);
}
#endif

static void add(int32_t *v, const int32_t *w, int n) {
    for (int i = 0; i < n; i++) {
        /* Wraps, and where both signs differ from the sum's, takes the end of the range on that side. */
        const uint32_t a = (uint32_t)v[i], b = (uint32_t)w[i], sum = a + b;
        const uint32_t end = (a >> 31) + (uint32_t)INT32_MAX;
        v[i] = (int32_t)((((a ^ sum) & (b ^ sum)) >> 31) ? end : sum);
    }
}

static void clamp(int32_t *v, int n, int32_t lo, int32_t hi) {
    for (int i = 0; i < n; i++) {
        const int32_t t = v[i] < lo ? lo : v[i];
        v[i] = t > hi ? hi : t;
    }
}

static void sign(int32_t *v, int n) {
    for (int i = 0; i < n; i++)
        v[i] = v[i] >= 0 ? 1 : -1;
}

static void steps(const int32_t *src, int n, const uint8_t *start, const uint8_t *size, const int32_t *above, int nabove,
                  int64_t pitch, uint8_t *dst) {
    int i = 0;
#if defined(LB_ISA_avx512)
    for (; i + 16 <= n; i += 16) {
        const __m512i v = _mm512_loadu_si512(src + i);
        const __m128i by = _mm_loadu_si128((const __m128i *)(const void *)(size + i));
        __m128i code = _mm_loadu_si128((const __m128i *)(const void *)(start + i));
        for (int k = 0; k < nabove; k++)
            code = _mm_mask_add_epi8(code, _mm512_cmpgt_epi32_mask(v, _mm512_loadu_si512(above + k * pitch + i)), code, by);
        _mm_storeu_si128((__m128i *)(void *)(dst + i), code);
    }
#endif
    for (; i < n; i++) {
        uint8_t code = start[i];
        for (int k = 0; k < nabove; k++)
            code = (uint8_t)(code + (src[i] > above[k * pitch + i] ? size[i] : 0));
        dst[i] = code;
    }
}

static void look_up(const int32_t *src, int n, const int32_t table[16], int32_t *dst) {
#if defined(LB_ISA_avx512)
    const __m512i all16 = _mm512_loadu_si512(table);
    for (; n >= 16; n -= 16, src += 16, dst += 16)
        _mm512_storeu_si512(dst, _mm512_permutexvar_epi32(_mm512_loadu_si512(src), all16));
#endif
    for (int i = 0; i < n; i++)
        dst[i] = table[src[i] & 15];
}

static void merge(const int32_t *halves, int64_t pixels, int c, int32_t *dst) {
    for (int64_t p = 0; p < pixels; p++, halves += 2 * c, dst += c)
        for (int i = 0; i < c; i++)
            dst[i] = 16 * halves[i] + halves[c + i];
}

static void merge_whole(const float *halves, int64_t pixels, int c, int32_t *dst) {
    for (int64_t p = 0; p < pixels; p++, halves += 2 * c, dst += c)
        for (int i = 0; i < c; i++)
            dst[i] = 16 * (int32_t)halves[i] + (int32_t)halves[c + i];
}

/* ---- Floats -------------------------------------------------------------------------------------------------------- */

static void pixels(const uint8_t *src, int n, const float *scale, const float *offset, float *f) {
    for (int i = 0; i < n; i++)
        f[i] = (float)src[i] * scale[i] + offset[i];
}

static void to_float(const int32_t *v, int n, const float *step, float *f) {
    for (int i = 0; i < n; i++)
        f[i] = (float)v[i] * step[i];
}

static void to_float1(const int32_t *v, int n, float step, float *f) {
    for (int i = 0; i < n; i++)
        f[i] = (float)v[i] * step;
}

/* NaN stays. */
static inline float clamp_one(float f, float lo, float hi) {
    const float t = f < lo ? lo : f;
    return t > hi ? hi : t;
}

static void affine(const float *src, int n, const float *scale, const float *offset, float lo, float hi, float *f) {
    for (int i = 0; i < n; i++)
        f[i] = clamp_one(src[i] * scale[i] + offset[i], lo, hi);
}

static void add_f32(const float *src, const float *g, int n, float lo, float hi, float *f) {
    for (int i = 0; i < n; i++)
        f[i] = clamp_one(src[i] + g[i], lo, hi);
}

static void clamp_f32(const float *src, int n, float lo, float hi, float *f) {
    for (int i = 0; i < n; i++)
        f[i] = clamp_one(src[i], lo, hi);
}

static void code_f32(const float *f, int n, float inv_step, float lo, float hi, int32_t *v) {
    for (int i = 0; i < n; i++) { /* NaN becomes lo */
        float t = rintf(f[i] * inv_step);
        t = t > lo ? t : lo;
        v[i] = (int32_t)(t < hi ? t : hi);
    }
}

static void sign_f32(const float *f, int n, int32_t *v) {
    for (int i = 0; i < n; i++)
        v[i] = f[i] >= 0 ? 1 : -1;
}

static void fixed_f32(const float *f, int n, int32_t *v) {
    for (int i = 0; i < n; i++) {
        const float t = rintf(f[i] * 65536.0f);
        v[i] = t >= 0x1p31f ? INT32_MAX : t >= -0x1p31f ? (int32_t)t : INT32_MIN;
    }
}

/* ---- Convolution in order ------------------------------------------------------------------------------------------ */

typedef float lanes __attribute__((vector_size(4 * LB_ORDERED_LANES), aligned(4), may_alias));

/* `tile` neighbouring output pixels of one block of 16 channels; rows y0..y1 and columns x0..x1 of the kernel are inside the
 * image. */
#define TILED(tile)                                                                                                                \
    static inline void CAT(tile_, tile)(const lb_ordered_conv *conv, const float *src, int64_t origin, const float *weights,       \
                                        int y0, int y1, int x0, int x1, int count, float *dst) {                                   \
        const int icg = conv->ic / conv->groups, step = conv->sw * conv->ic;                                                       \
        const int64_t down = (conv->gap_h + 1LL) * conv->iw, across = conv->gap_w + 1LL;                                           \
        lanes acc[tile];                                                                                                           \
        for (int t = 0; t < tile; t++)                                                                                             \
            acc[t] = (lanes){0};                                                                                                   \
        for (int ky = y0; ky < y1; ky++) {                                                                                         \
            for (int kx = x0; kx < x1; kx++) {                                                                                     \
                const float *s = src + (origin + (ky * down + kx * across) * conv->ic);                                            \
                const float *w = weights + (int64_t)(ky * conv->kw + kx) * icg * LB_ORDERED_LANES;                                 \
                for (int i = 0; i < icg; i++, w += LB_ORDERED_LANES)                                                               \
                    for (int t = 0; t < tile; t++)                                                                                 \
                        acc[t] += s[t * step + i] * *(const lanes *)(const void *)w;                                               \
            }                                                                                                                      \
        }                                                                                                                          \
        for (int t = 0; t < tile; t++)                                                                                             \
            for (int j = 0; j < count; j++)                                                                                        \
                dst[t * conv->oc + j] = acc[t][j];                                                                                 \
    }
TILED(1)
TILED(4)
enum { WIDE = 4 };

static void conv_row(const lb_ordered_conv *conv, const float *src, const float *weights, int y, int count, float *dst) {
    const int top = y * conv->sh - conv->pt;
    const int y0 = lbrt_first_tap(top, conv->gap_h, conv->kh), y1 = lbrt_end_tap(top, conv->gap_h, conv->kh, conv->ih);
    const int span = conv->kw + (conv->kw - 1) * conv->gap_w, room = conv->iw + conv->pl - span;
    /* Results [inside, end) have their windows inside the image. */
    const int inside = (conv->pl + conv->sw - 1) / conv->sw, last = room < 0 ? 0 : room / conv->sw + 1;
    const int end = last < conv->ow ? last : conv->ow;
    for (int x = 0; x < conv->ow;) {
        const bool wide = x >= inside && x < end && end - inside >= WIDE;
        const int at = wide && x > end - WIDE ? end - WIDE : x; /* the last ones again */
        const int left = at * conv->sw - conv->pl;
        const int64_t origin =
            ((int64_t)top * conv->iw + left) * conv->ic; /* outside of the image where the window begins outside */
        if (wide) {
            tile_4(conv, src, origin, weights, y0, y1, 0, conv->kw, count, dst + (int64_t)at * conv->oc);
            x = at + WIDE;
            continue;
        }
        const int x0 = lbrt_first_tap(left, conv->gap_w, conv->kw), x1 = lbrt_end_tap(left, conv->gap_w, conv->kw, conv->iw);
        tile_1(conv, src, origin, weights, y0, y1, x0, x1, count, dst + (int64_t)x * conv->oc);
        x++;
    }
}

static void conv_ordered(const lb_ordered_conv *conv, const float *src, float *dst) {
    const int icg = conv->ic / conv->groups, ocg = conv->oc / conv->groups,
              blocks = (ocg + LB_ORDERED_LANES - 1) / LB_ORDERED_LANES;
    const int64_t block_size = (int64_t)conv->kh * conv->kw * icg * LB_ORDERED_LANES;
    for (int g = 0; g < conv->groups; g++) {
        for (int b = 0; b < blocks; b++) {
            const float *weights = conv->weights + ((int64_t)g * blocks + b) * block_size;
            const int first = b * LB_ORDERED_LANES, count = ocg - first < LB_ORDERED_LANES ? ocg - first : LB_ORDERED_LANES;
            for (int y = 0; y < conv->oh; y++)
                conv_row(conv, src + g * icg, weights, y, count, dst + (int64_t)y * conv->ow * conv->oc + g * ocg + first);
        }
    }
}

/* ---- Pooling ------------------------------------------------------------------------------------------------------- */

/* For each output pixel and block of channels, `first` then `each` window position inside the image, then `last`. */
#define CHANNELS 64
#define POOL(name, from, to, acc_type, init, each, last)                                                                           \
    static void name(const lb_eval_pool *pool, const from *src, to *dst) {                                                         \
        for (int y = 0; y < pool->oh; y++) {                                                                                       \
            for (int x = 0; x < pool->ow; x++) {                                                                                   \
                const int top = y * pool->sh - pool->pt, left = x * pool->sw - pool->pl;                                           \
                const int y0 = top < 0 ? 0 : top, y1 = top + pool->kh > pool->ih ? pool->ih : top + pool->kh;                      \
                const int x0 = left < 0 ? 0 : left, x1 = left + pool->kw > pool->iw ? pool->iw : left + pool->kw;                  \
                for (int c = 0; c < pool->c; c += CHANNELS) {                                                                      \
                    const int n = pool->c - c < CHANNELS ? pool->c - c : CHANNELS;                                                 \
                    acc_type acc[CHANNELS];                                                                                        \
                    for (int i = 0; i < n; i++)                                                                                    \
                        acc[i] = init;                                                                                             \
                    for (int iy = y0; iy < y1; iy++)                                                                               \
                        for (int ix = x0; ix < x1; ix++) {                                                                         \
                            const from *s = src + ((int64_t)iy * pool->iw + ix) * pool->c + c;                                     \
                            for (int i = 0; i < n; i++)                                                                            \
                                acc[i] = each;                                                                                     \
                        }                                                                                                          \
                    to *d = dst + ((int64_t)y * pool->ow + x) * pool->c + c;                                                       \
                    for (int i = 0; i < n; i++)                                                                                    \
                        d[i] = last;                                                                                               \
                }                                                                                                                  \
            }                                                                                                                      \
        }                                                                                                                          \
    }
#define GREATER (s[i] > acc[i] ? s[i] : acc[i])
POOL(max_u8, uint8_t, uint8_t, uint8_t, 0, GREATER, acc[i])
POOL(max_s8, int8_t, int8_t, int8_t, INT8_MIN, GREATER, acc[i])
POOL(max_i32, int32_t, int32_t, int32_t, INT32_MIN, GREATER, acc[i])
POOL(max_f32, float, float, float, -INFINITY, GREATER, acc[i])
POOL(sum_u8, uint8_t, int32_t, int32_t, 0, acc[i] + s[i], acc[i])
POOL(sum_s8, int8_t, int32_t, int32_t, 0, acc[i] + s[i], acc[i])
#define AREA (pool->kh * pool->kw)
#define PIXELS (pool->inside ? (y1 - y0) * (x1 - x0) : AREA)
POOL(sum_i32, int32_t, int32_t, int64_t, 0, acc[i] + s[i],
     PIXELS == AREA ? saturate(acc[i]) : lbrt_whole_window(acc[i], AREA, PIXELS))
POOL(sum_f32, float, float, float, 0, acc[i] + s[i], lbrt_whole_window_f32(acc[i], AREA, PIXELS))

extern const lb_eval_kernels CAT(lb_eval_kernels_, LB_ISA);
#define STRING_(a) #a
#define STRING(a) STRING_(a)
const lb_eval_kernels CAT(lb_eval_kernels_, LB_ISA) = {
    .name = STRING(LB_ISA),
    .load_u8 = load_u8, .load_s8 = load_s8, .load_whole = load_whole, .store_u8 = store_u8, .store_s8 = store_s8,
    .requant = requant, .requant_fits = requant_fits, .requant1 = requant1, .add = add, .clamp = clamp, .sign = sign,
    .steps = steps, .look_up = look_up, .merge = merge, .merge_whole = merge_whole,
    .pixels = pixels, .to_float = to_float, .to_float1 = to_float1, .affine = affine, .add_f32 = add_f32, .clamp_f32 = clamp_f32,
    .code_f32 = code_f32, .sign_f32 = sign_f32, .fixed_f32 = fixed_f32,
    .conv_ordered = conv_ordered,
    .max_u8 = max_u8, .max_s8 = max_s8, .max_i32 = max_i32, .max_f32 = max_f32,
    .sum_u8 = sum_u8, .sum_s8 = sum_s8, .sum_i32 = sum_i32, .sum_f32 = sum_f32,
};

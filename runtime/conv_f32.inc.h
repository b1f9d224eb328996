/* Body of the float convolution, to be included by a .c file that defines LBRT_CONV_F32_ROW as the function's name; so the trainer
 * can compile it once more per instruction set. Vectors run over output channels, each of which adds in the stated order, so the
 * bits do not depend on the vector length. Needs -ffp-contract=off. */
#include "ref_float.h"
#include "window.h"

#if defined(__GNUC__)
#if defined(__AVX512F__)
#define LBRT_LANES 16
#elif defined(__AVX__)
#define LBRT_LANES 8
#else
#define LBRT_LANES 4
#endif
typedef float lbrt_vec __attribute__((vector_size(4 * LBRT_LANES), aligned(4), may_alias));
#define LBRT_LOAD(p) (*(const lbrt_vec *)(const void *)(p))
#define LBRT_STORE(p, v) (*(lbrt_vec *)(void *)(p) = (v))

/* The taps [ky0, ky1) x [kx0, kx1) of two pixels, 4 vectors of channels. offset: where a pixel's tap (0, 0) is, maybe outside the
 * image. */
static inline void lbrt_tile_2x4(const lbrt_conv_shape *s, const float *src, const ptrdiff_t offset[2], const float *w, int32_t ky0,
                                 int32_t ky1, int32_t kx0, int32_t kx1, float *const out[2]) {
    const int32_t ic = s->ic / s->groups;
    lbrt_vec a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    for (int32_t ky = ky0; ky < ky1; ky++)
        for (int32_t kx = kx0; kx < kx1; kx++) {
            const ptrdiff_t at = ((ptrdiff_t)ky * (s->gap_h + 1) * s->iw + (ptrdiff_t)kx * (s->gap_w + 1)) * s->ic;
            const float *p = w + ((ptrdiff_t)ky * s->kw + kx) * ic * s->oc;
            for (int32_t i = 0; i < ic; i++, p += s->oc) {
                const float va = src[offset[0] + at + i], vb = src[offset[1] + at + i];
                const lbrt_vec w0 = LBRT_LOAD(p), w1 = LBRT_LOAD(p + LBRT_LANES), w2 = LBRT_LOAD(p + 2 * LBRT_LANES),
                               w3 = LBRT_LOAD(p + 3 * LBRT_LANES);
                a0 += w0 * va, a1 += w1 * va, a2 += w2 * va, a3 += w3 * va;
                b0 += w0 * vb, b1 += w1 * vb, b2 += w2 * vb, b3 += w3 * vb;
            }
        }
    float *da = out[0], *db = out[1];
    LBRT_STORE(da, a0), LBRT_STORE(da + LBRT_LANES, a1), LBRT_STORE(da + 2 * LBRT_LANES, a2), LBRT_STORE(da + 3 * LBRT_LANES, a3);
    LBRT_STORE(db, b0), LBRT_STORE(db + LBRT_LANES, b1), LBRT_STORE(db + 2 * LBRT_LANES, b2), LBRT_STORE(db + 3 * LBRT_LANES, b3);
}

/* Four pixels, one vector. */
static inline void lbrt_tile_4x1(const lbrt_conv_shape *s, const float *src, const ptrdiff_t offset[4], const float *w, int32_t ky0,
                                 int32_t ky1, int32_t kx0, int32_t kx1, float *const out[4]) {
    const int32_t ic = s->ic / s->groups;
    const ptrdiff_t a = offset[0], b = offset[1], c = offset[2], d = offset[3];
    lbrt_vec va = {0}, vb = {0}, vc = {0}, vd = {0};
    for (int32_t ky = ky0; ky < ky1; ky++)
        for (int32_t kx = kx0; kx < kx1; kx++) {
            const ptrdiff_t at = ((ptrdiff_t)ky * (s->gap_h + 1) * s->iw + (ptrdiff_t)kx * (s->gap_w + 1)) * s->ic;
            const float *p = w + ((ptrdiff_t)ky * s->kw + kx) * ic * s->oc;
            for (int32_t i = 0; i < ic; i++, p += s->oc) {
                const lbrt_vec v = LBRT_LOAD(p);
                va += v * src[a + at + i], vb += v * src[b + at + i], vc += v * src[c + at + i], vd += v * src[d + at + i];
            }
        }
    LBRT_STORE(out[0], va), LBRT_STORE(out[1], vb), LBRT_STORE(out[2], vc), LBRT_STORE(out[3], vd);
}
#endif

/* Channels oc0..oc1-1 (of one group) of one pixel. */
static inline void lbrt_pixel_any(const lbrt_conv_shape *s, const float *src, const float *restrict w, int32_t y0, int32_t x0,
                                  int32_t oc0, int32_t oc1, float *restrict dst) {
    const int32_t ic = s->ic / s->groups, ocg = s->oc / s->groups;
    for (int32_t o = oc0; o < oc1; o++)
        dst[o] = 0.0f;
    for (int32_t ky = 0; ky < s->kh; ky++)
        for (int32_t kx = 0; kx < s->kw; kx++) {
            const int32_t y = y0 + ky * (s->gap_h + 1), x = x0 + kx * (s->gap_w + 1);
            if (y < 0 || y >= s->ih || x < 0 || x >= s->iw)
                continue;
            const float *p = src + ((ptrdiff_t)y * s->iw + x) * s->ic, *restrict q = w + ((ptrdiff_t)ky * s->kw + kx) * ic * s->oc;
            if (ic == 1 && ocg == 1) { /* depthwise: all groups at once */
                for (int32_t o = oc0; o < oc1; o++)
                    dst[o] += p[o] * q[o];
                continue;
            }
            p += (ptrdiff_t)(oc0 / ocg) * ic;
            for (int32_t i = 0; i < ic; i++, q += s->oc)
                for (int32_t o = oc0; o < oc1; o++)
                    dst[o] += p[i] * q[o];
        }
}

void LBRT_CONV_F32_ROW(const lbrt_conv_shape *s, const float *src, const float *w, int32_t oy, float *dst);

void LBRT_CONV_F32_ROW(const lbrt_conv_shape *s, const float *src, const float *w, int32_t oy, float *dst) {
    const int32_t ic = s->ic / s->groups, ocg = s->oc / s->groups, y0 = oy * s->sh - s->pt;
    if (ic == 1 && ocg == 1) {
        for (int32_t ox = 0; ox < s->ow; ox++)
            lbrt_pixel_any(s, src, w, y0, ox * s->sw - s->pl, 0, s->oc, dst + (ptrdiff_t)ox * s->oc);
        return;
    }
    /* Output columns [in0, in1) see the whole kernel width. */
    const int32_t span = s->kw + (s->kw - 1) * s->gap_w;
    int32_t in0 = (s->pl + s->sw - 1) / s->sw, in1 = s->iw + s->pl >= span ? (s->iw + s->pl - span) / s->sw + 1 : 0;
    in0 = in0 < s->ow ? in0 : s->ow;
    in1 = in1 < in0 ? in0 : in1 < s->ow ? in1 : s->ow;
    for (int32_t g = 0; g < s->groups; g++) {
        int32_t o = g * ocg;
        const int32_t end = o + ocg;
#if defined(LBRT_LANES)
        const int32_t ky0 = lbrt_first_tap(y0, s->gap_h, s->kh), ky1 = lbrt_end_tap(y0, s->gap_h, s->kh, s->ih);
        const ptrdiff_t base = ((ptrdiff_t)y0 * s->iw - s->pl) * s->ic + (ptrdiff_t)g * ic;
        for (; o + LBRT_LANES <= end;) {
            const int32_t width = o + 4 * LBRT_LANES <= end ? 4 * LBRT_LANES : LBRT_LANES;
            for (int32_t ox = 0; ox < s->ow;) {
                int32_t n = 1, kx0 = 0, kx1 = s->kw; /* n pixels from ox on share kx0, kx1 */
                if (ox >= in0 && ox < in1) {
                    n = in1 - ox < 4 ? in1 - ox : 4;
                } else {
                    const int32_t x0 = ox * s->sw - s->pl;
                    kx0 = lbrt_first_tap(x0, s->gap_w, s->kw);
                    kx1 = lbrt_end_tap(x0, s->gap_w, s->kw, s->iw);
                }
                float *out[4];
                ptrdiff_t offset[4];
                for (int32_t i = 0; i < 4; i++) { /* missing pixels repeat the last one */
                    const int32_t x = ox + (i < n ? i : n - 1);
                    offset[i] = base + (ptrdiff_t)x * s->sw * s->ic;
                    out[i] = dst + (ptrdiff_t)x * s->oc + o;
                }
                if (width == LBRT_LANES) {
                    lbrt_tile_4x1(s, src, offset, w + o, ky0, ky1, kx0, kx1, out);
                } else {
                    lbrt_tile_2x4(s, src, offset, w + o, ky0, ky1, kx0, kx1, out);
                    if (n > 2)
                        lbrt_tile_2x4(s, src, offset + 2, w + o, ky0, ky1, kx0, kx1, out + 2);
                }
                ox += n;
            }
            o += width;
        }
#else
        (void)in1;
#endif
        if (o < end)
            for (int32_t ox = 0; ox < s->ow; ox++)
                lbrt_pixel_any(s, src, w, y0, ox * s->sw - s->pl, o, end, dst + (ptrdiff_t)ox * s->oc);
    }
}

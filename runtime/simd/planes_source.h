/* The source of the kernel `planes`: indices of all pixels, a plane per channel (or two). */
#ifndef LBRT_PLANES_SOURCE_H
#define LBRT_PLANES_SOURCE_H

#include "finish.h"
#include "transpose.h"

#define PIXELS BYTES /* of a vector */
#define VECTORS 2 /* of a tile */
#define TILE 8 /* channels whose weights lie together; and sums of a tile */
#define BLOCK 16 /* channels that are transposed together */
#define TABLE 64
#define CLASSES 16 /* which sides are outside: left 1, right 2, top 4, bottom 8 */
#define PLANES_BUDGET ((size_t)128 << 10)

typedef struct geometry {
    size_t c, oc;
    int32_t spread; /* from one source value to the next: 2 for -1 and 1 */
    int code_bits;
    int32_t padding; /* the value that the padding has in the planes */
    size_t together; /* channels of an index */
    size_t pitch; /* channels of a pixel in the padded row: c filled up */
    size_t columns; /* pixels of the padded row */
    size_t row; /* bytes of the padded row */
    size_t rows; /* result rows per strip */
    size_t strip; /* source rows of a strip at most */
    size_t phase; /* rows of a plane that follow with the vertical stride */
    size_t plane; /* bytes of a plane */
    size_t most_border; /* lookups for the border at most */
} geometry;

static geometry geometry_of(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    const lbrt_tensor *src = site->src;
    const size_t ow = (size_t)site->dst->w, oh = (size_t)site->dst->h, sh = (size_t)l->sh;
    geometry g;
    g.c = (size_t)src->c;
    g.oc = (size_t)site->dst->c;
    g.spread = l->src_signs ? 2 : 1;
    g.code_bits = src->hi - src->lo <= g.spread ? 1 : 2;
    g.padding = src->lo <= 0 && src->hi >= 0 && -src->lo % g.spread == 0 ? 0 : src->lo;
    g.together = g.code_bits == 1 && l->weights.bits == 1 && g.c % 2 == 0 ? 2 : 1;
    g.pitch = (g.c + BLOCK - 1) / BLOCK * BLOCK;
    g.columns = (ow - 1) * (size_t)l->sw + 3;
    g.row = (g.columns * g.pitch + 127) / 64 * 64;
    /* As many rows as the budget has, if it is not all of them a multiple of what fills whole vectors. */
    const size_t fit = PLANES_BUDGET / (g.pitch / g.together) / ow;
    size_t align = VECTORS * PIXELS;
    while (align > 1 && ow % align != 0)
        align /= 2;
    align = VECTORS * PIXELS / align;
    g.rows = fit > 3 ? (fit - 3) / sh + 1 : 1;
    g.rows = g.rows >= oh ? oh : g.rows > align ? g.rows / align * align : g.rows;
    g.strip = (g.rows - 1) * sh + 3;
    g.phase = (g.strip + sh - 1) / sh;
    g.plane = ((g.phase * sh * ow + VECTORS * PIXELS) / 64 | 1) * 64; /* not a power of two: many are read at a time */
    const size_t most = (size_t)magnitude(first_weight(&l->weights), last_weight(&l->weights));
    const int border = g.padding != 0 && (l->pt | l->pl | l->pb | l->pr) != 0;
    g.most_border = border ? 16 * g.c * most * (size_t)magnitude(g.padding, 0) / UINT8_MAX + 1 : 0;
    return g;
}

static size_t planes_of(const geometry *g) { return g->pitch / g->together; } /* those of filled up channels included */
static size_t steps_of(const geometry *g) { return 3 * g->c / g->together; } /* lookups without those of the border */
static size_t tiles_of(const geometry *g) { return (g->oc + TILE - 1) / TILE; }

typedef struct buffers {
    uint8_t *strip; /* (strip, row) codes of the source rows, padding included; the image's first pixel at a multiple of 64 */
    uint8_t *planes; /* (planes, plane) indices */
    uint8_t *border; /* (plane) which sides are outside: the last of the planes */
} buffers;

static buffers buffers_carve(const geometry *g, lbrt_carve *at) {
    const size_t count = planes_of(g);
    buffers b;
    b.strip = lbrt_take(at, g->strip, g->row);
    b.planes = lbrt_take(at, count + (g->most_border > 0), g->plane);
    b.border = b.planes != NULL ? b.planes + count * g->plane : NULL;
    return b;
}

static uint8_t *strip_start(const lbrt_site *site, const geometry *g, const buffers *b) {
    return b->strip + (64 - (size_t)site->layer->pl * g->pitch % 64) % 64;
}

/* `count` bytes, a multiple of 16. */
INLINE void fill_padding(uint8_t *to, __m128i v, size_t count) {
    for (size_t i = 0; i < count; i += 16)
        _mm_storeu_si128((__m128i *)(to + i), v);
}

/* Codes of a source row (NULL: there is none) and its padding. */
static void fill_row(const lbrt_site *site, const geometry *g, const uint8_t *src, uint8_t *row) {
    const size_t c = g->c, left = (size_t)site->layer->pl < g->columns ? (size_t)site->layer->pl : g->columns;
    const size_t w = src != NULL ? (size_t)site->src->w : 0, inside = g->columns - left < w ? g->columns - left : w;
    const __m128i padding = _mm_set1_epi8((char)((g->padding - site->src->lo) / g->spread));
    const __m512i low = bytes_set((uint8_t)site->src->lo);
    const __m128i shift = _mm_cvtsi32_si128(g->spread - 1);
    fill_padding(row, padding, left * g->pitch);
    row += left * g->pitch;
    fill_padding(row + inside * g->pitch, padding, (g->columns - left - inside) * g->pitch);
    const size_t pixels = c == g->pitch ? 1 : inside, each = c == g->pitch ? inside * c : c;
    for (size_t x = 0; x < pixels; x++, src += c, row += g->pitch)
        for (size_t i = 0; i < each; i += BYTES) { /* shifted are even numbers if at all */
            if (each - i >= BYTES) {
                _mm512_storeu_si512(row + i, _mm512_srl_epi16(_mm512_sub_epi8(_mm512_loadu_si512(src + i), low), shift));
                continue;
            }
            const __mmask64 mask = ((__mmask64)1 << (each - i)) - 1;
            const __m512i code = _mm512_sub_epi8(_mm512_maskz_loadu_epi8(mask, src + i), low);
            _mm512_mask_storeu_epi8(row + i, mask, _mm512_srl_epi16(code, shift));
        }
}

/* The indices of 64 pixels and 16 channels, to planes. at: where the first source of each pixel is; with a constant stride sw of
 * the pixels (0: there is none) of each 16th pixel. */
INLINE void merge(const geometry *g, const uint8_t *const *at, size_t channel, const size_t sw, uint8_t *to) {
    const __m128i bits = _mm_cvtsi32_si128(g->code_bits), twice = _mm_cvtsi32_si128(2 * g->code_bits);
    const size_t pitch = g->pitch;
    __m512i v[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) {
        __m512i tap[3];
#pragma GCC unroll 3
        for (size_t k = 0; k < 3; k++)
            tap[k] = sw > 0 ? load_quarters(at[0], at[1], at[2], at[3], (i * sw + k) * pitch + channel)
                            : load_quarters(at[i], at[16 + i], at[32 + i], at[48 + i], k * pitch + channel);
        v[i] = _mm512_ternarylogic_epi64(tap[0], _mm512_sll_epi16(tap[1], bits), _mm512_sll_epi16(tap[2], twice), 0xfe);
    }
    transpose_parts(v);
    if (g->together == 1) {
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++)
            _mm512_storeu_si512(to + i * g->plane, v[i]);
    } else { /* three bits of two neighbours */
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++)
            _mm512_storeu_si512(to + i * g->plane, _mm512_or_si512(v[2 * i], _mm512_slli_epi16(v[2 * i + 1], 3)));
    }
}

APART void merge_1(const geometry *g, const uint8_t *const *at, size_t channel, uint8_t *to) { merge(g, at, channel, 1, to); }
APART void merge_2(const geometry *g, const uint8_t *const *at, size_t channel, uint8_t *to) { merge(g, at, channel, 2, to); }
APART void merge_any(const geometry *g, const uint8_t *const *at, size_t channel, uint8_t *to) { merge(g, at, channel, 0, to); }

/* Indices of the strip's pixels: those of `need` source rows, phase after phase. */
static void fill_planes(const lbrt_site *site, const geometry *g, const buffers *b, size_t need) {
    const size_t ow = (size_t)site->dst->w, sh = (size_t)site->layer->sh, sw = (size_t)site->layer->sw;
    const size_t count = (sh == 1 ? need : g->phase * sh) * ow, step = ow % 16 == 0 && sw <= 2 ? 16 : 1;
    const uint8_t *const strip = strip_start(site, g, b);
    size_t x = 0, phase = 0, row = 0; /* of the next pixel; what is beyond the source rows is anything */
    for (size_t first = 0; first < count; first += PIXELS) {
        const uint8_t *at[PIXELS];
        for (size_t i = 0; i < PIXELS / step; i++) {
            at[i] = strip + (row < need ? row : 0) * g->row + x * sw * g->pitch;
            x += step;
            if (x < ow)
                continue;
            x = 0;
            row += sh;
            if (row >= g->phase * sh)
                row = ++phase;
        }
        for (size_t k = 0; k < g->pitch; k += BLOCK) {
            uint8_t *to = b->planes + k / g->together * g->plane + first;
            if (step == 1)
                merge_any(g, at, k, to);
            else if (sw == 1)
                merge_1(g, at, k, to);
            else
                merge_2(g, at, k, to);
        }
    }
}

/* Of 64 pixels from the first-th on, in rows of w, those in column x. */
static __mmask64 in_column(size_t first, size_t w, size_t x) {
    uint64_t mask = 0;
    for (size_t i = (w + x - first % w) % w; i < PIXELS; i += w)
        mask |= (uint64_t)1 << i;
    return (__mmask64)mask;
}

INLINE __mmask64 first_pixels(size_t count) { return count >= PIXELS ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1; }

/* The indices of 64 pixels of a source plane whose left and right neighbours, where there are some, lie beside them. */
INLINE __m512i merge_plane(const geometry *g, const uint8_t *src, __m512i low, __m512i padding, __mmask64 left, __mmask64 inside,
                           __mmask64 right) {
    const __m128i bits = _mm_cvtsi32_si128(g->code_bits), twice = _mm_cvtsi32_si128(2 * g->code_bits);
    const __m512i a = _mm512_sub_epi8(_mm512_mask_loadu_epi8(padding, left, src - 1), low);
    const __m512i b = _mm512_sub_epi8(_mm512_mask_loadu_epi8(padding, inside, src), low);
    const __m512i c = _mm512_sub_epi8(_mm512_mask_loadu_epi8(padding, right, src + 1), low);
    const __m512i v = _mm512_ternarylogic_epi64(a, _mm512_sll_epi16(b, bits), _mm512_sll_epi16(c, twice), 0xfe);
    return g->spread == 1 ? v : _mm512_srli_epi16(v, 1);
}

/* Stride 1 and as many result columns as source columns, one of them padding on the left. */
static int reads_planes(const lbrt_site *site) {
    const lbrt_layer *l = site->layer;
    return l->sh == 1 && l->sw == 1 && l->pl == 1 && site->dst->w == site->src->w;
}

/* Indices of `need` source rows, from y on, of an image that is planes: rows follow each other there as here. */
static void fill_from_planes(const lbrt_site *site, const geometry *g, const buffers *b, const uint8_t *src, int64_t y,
                             size_t need) {
    const size_t w = (size_t)site->src->w, h = (size_t)site->src->h, size = w * h;
    const size_t above = y >= 0 ? 0 : (size_t)-y < need ? (size_t)-y : need, start = y < 0 ? 0 : (size_t)y < h ? (size_t)y : h;
    const size_t rows = need - above < h - start ? need - above : h - start, count = rows * w;
    const __m512i low = bytes_set((uint8_t)site->src->lo), padding = bytes_set((uint8_t)g->padding);
    const uint8_t outside = (uint8_t)((g->padding - site->src->lo) / g->spread);
    const uint8_t three = (uint8_t)(outside * (1 + (1 << g->code_bits) + (1 << 2 * g->code_bits)));
    for (size_t k = 0; k < planes_of(g); k++)
        memset(b->planes + k * g->plane, g->together == 1 ? three : 9 * three, above * w);
    for (size_t i = 0; i < count; i += PIXELS) {
        const __mmask64 inside = first_pixels(count - i);
        const __mmask64 left = inside & ~in_column(i, w, 0), right = inside & ~in_column(i, w, w - 1);
        const uint8_t *from = src + start * w + i;
        uint8_t *to = b->planes + above * w + i;
        for (size_t k = 0; k < g->c; k += g->together, from += g->together * size, to += g->plane) {
            __m512i v = merge_plane(g, from, low, padding, left, inside, right);
            if (g->together == 2)
                v = _mm512_or_si512(v, _mm512_slli_epi16(merge_plane(g, from + size, low, padding, left, inside, right), 3));
            _mm512_storeu_si512(to, v);
        }
    }
    for (size_t k = 0; k < planes_of(g); k++)
        memset(b->planes + k * g->plane + (above + rows) * w, g->together == 1 ? three : 9 * three, (need - above - rows) * w);
}

/* Which sides of the windows of result row oy are outside: of those of the first and last pixel at most the left and right. */
static void fill_border(const lbrt_site *site, const geometry *g, size_t oy, uint8_t *to) {
    const lbrt_layer *l = site->layer;
    const int64_t y = (int64_t)oy * l->sh - l->pt;
    const size_t ow = (size_t)site->dst->w;
    memset(to, (y < 0 ? 4 : 0) + (y + 3 > site->src->h ? 8 : 0), ow);
    to[0] |= l->pl > 0 ? 1 : 0;
    to[ow - 1] |= g->columns > (size_t)(l->pl + site->src->w) ? 2 : 0;
}

/* The planes for `rows` result rows from oy. */
static void fill(const lbrt_call *call, const geometry *g, const buffers *b, size_t image, size_t oy, size_t rows) {
    const lbrt_site *site = &call->site;
    const size_t sh = (size_t)site->layer->sh, h = (size_t)site->src->h, need = (rows - 1) * sh + 3;
    const uint8_t *src = (const uint8_t *)call->src + image * lbrt_elements(site->src);
    const int64_t first = (int64_t)(oy * sh) - site->layer->pt;
    if (call->planar & LBRT_PLANAR_SRC) {
        fill_from_planes(site, g, b, src, first, need);
    } else {
        for (size_t i = 0; i < need; i++) {
            const int64_t y = first + (int64_t)i;
            const int inside = y >= 0 && y < (int64_t)h;
            fill_row(site, g, inside ? src + (size_t)y * (size_t)site->src->w * g->c : NULL, strip_start(site, g, b) + i * g->row);
        }
        fill_planes(site, g, b, need);
    }
    for (size_t y = 0; y < rows && g->most_border > 0; y++)
        fill_border(site, g, oy + y, b->border + y * (size_t)site->dst->w);
}

#endif

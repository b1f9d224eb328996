#include "train/simd/tiles_sums.h"

#include "train/backend/backend.h"
#include "train/simd/tile.h"

/* A band's source rows are copied to a strip with padding; rows of a register are results, each with 64 bytes of the pixels that a
 * kernel row needs, which lie behind each other. What else is in the last of them is multiplied by zeros. Where it takes fewer
 * registers, results count on over the padding at the ends of rows. */
enum { RESULTS = 16, LINE = 64, BLOCK = RESULTS * LINE /* bytes of a register */ };
enum { NEAR = 40 << 10, FAR = 256 << 10 }; /* bytes of a strip, of sums; FAR: where weights do not stay in the first-level cache */

static size_t round_up(size_t n, size_t to) { return tiles_ceil_div(n, to) * to; }

/* ---- Shapes ----------------------------------------------------------------------------------------------------------------- */

static size_t tiles_of(const lb_sums *s, size_t rows) {
    const size_t ow = (size_t)s->ow;
    return s->count_on ? tiles_ceil_div((rows - 1) * s->pitch + ow, RESULTS) : rows * tiles_ceil_div(ow, RESULTS);
}

/* For a band of `rows` result rows of an image. */
static void plan_rows(lb_sums *s, size_t rows) {
    const size_t ow = (size_t)s->ow;
    s->rows = rows;
    s->strip_rows = (rows - 1) * s->down + (size_t)s->kh;
    s->count_on = s->down == s->across && (rows - 1) * s->pitch + ow <= (rows * tiles_ceil_div(ow, RESULTS) - 1) * RESULTS;
    s->tiles = tiles_of(s, rows);
    s->result_row = s->count_on ? s->pitch : round_up(ow, RESULTS);
}

static size_t strip_bytes(const lb_sums *s) { return s->strip_rows * s->pitch * s->pixel; }
static size_t sums_bytes(const lb_sums *s) { return s->tiles * RESULTS * (size_t)s->oc * sizeof(float); }

static void LB_NAME(plan)(lb_sums *s, int mb) {
    const size_t oh = (size_t)s->oh, oc = (size_t)s->oc;
    s->size = s->type <= LB_SUMS_S8 ? 1 : 2;
    s->parts = s->type == LB_SUMS_F32 ? 3 : s->type == LB_SUMS_F32_CODES ? 2 : 1;
    s->pixel = (size_t)s->ic * s->parts * s->size;
    s->steps = tiles_ceil_div((size_t)s->kw * s->pixel, LINE);
    const bool point = s->kh == 1 && s->kw == 1; /* only the pixels that matter are copied */
    s->down = point ? 1 : (size_t)s->sh;
    s->across = point ? 1 : (size_t)s->sw;
    s->gap_y = point ? (size_t)s->sh : 1;
    s->gap_x = point ? (size_t)s->sw : 1;
    s->pitch = ((size_t)s->ow - 1) * s->across + (size_t)s->kw;
    s->left = LB_MIN((size_t)s->pl, s->pitch);
    s->wide = LB_MIN(tiles_ceil_div((size_t)s->iw, s->gap_x), s->pitch - s->left);
    s->weights = oc / RESULTS * (size_t)s->kh * s->steps * BLOCK;
    const size_t most = s->weights <= NEAR ? (size_t)NEAR : LB_MIN(LB_MAX(s->weights / 2, (size_t)NEAR), (size_t)FAR);
    size_t best = 1, least = SIZE_MAX;
    for (size_t rows = 1; rows <= oh; rows++) {
        plan_rows(s, rows);
        if (rows > 1 && (strip_bytes(s) > most || sums_bytes(s) > most))
            break;
        const size_t work = tiles_ceil_div(oh, rows) * round_up(s->tiles, oc > RESULTS ? 2 : 4); /* registers, unused ones too */
        if (work <= least) {
            best = rows;
            least = work;
        }
    }
    plan_rows(s, best);
    s->images = 1;
    if (s->rows == oh)
        s->images = LB_MAX((size_t)1, LB_MIN((size_t)mb, most / LB_MAX(strip_bytes(s), sums_bytes(s))));
    s->strip = round_up((s->images * s->strip_rows * s->pitch + RESULTS * s->across) * s->pixel + LINE, LINE);
    s->scratch = s->images * sums_bytes(s) + s->strip;
}

/* ---- Weights: (oc / 16) times (kh, steps) registers, each (16, 16 output channels, 4 or 2) ---------------------------------- */

static float part_of(const lb_sums *s, float w, size_t part) {
    if (s->type != LB_SUMS_F32)
        return w;
    const float first = lb_bf16_get(lb_bf16_put(w));
    return part == 0 ? w - first : first;
}

/* Number k of a kernel row, of channel n of 16. */
LB_INLINE size_t place_of(size_t k, size_t n, size_t each) { return (k / each * RESULTS + n) * each + k % each; }

static void LB_NAME(weights)(const lb_sums *s, const float *w, void *to) {
    const size_t ic = (size_t)s->ic, kw = (size_t)s->kw, rows = (size_t)s->oc * (size_t)s->kh, row = s->steps * BLOCK;
    memset(to, 0, s->weights);
    for (size_t i = 0; i < rows; i++) {
        const size_t o = i / (size_t)s->kh, y = i % (size_t)s->kh, n = o % RESULTS;
        int8_t *bytes = (int8_t *)to + (o / RESULTS * (size_t)s->kh + y) * row;
        uint16_t *halves = (void *)bytes;
        for (size_t x = 0, k = 0; x < kw; x++, w += ic)
            for (size_t part = 0; part < s->parts; part++)
                for (size_t c = 0; c < ic; c++, k++)
                    if (s->size == 1)
                        bytes[place_of(k, n, 4)] = (int8_t)w[c];
                    else
                        halves[place_of(k, n, 2)] = lb_bf16_put(part_of(s, w[c], part));
    }
}

/* ---- The strip -------------------------------------------------------------------------------------------------------------- */

/* The parts of a pixel's floats. */
LB_INLINE void take_apart(const float *from, size_t c, bool twice, uint16_t *to) {
    uint16_t *const second = to + (twice ? 2 * c : c);
    for (size_t i = 0; i < c; i += RESULTS) {
#if defined(LB_ISA_amx)
        const __mmask16 mask = c - i >= RESULTS ? 0xffff : (__mmask16)((1u << (c - i)) - 1);
        const __m512 a = _mm512_maskz_loadu_ps(mask, from + i);
        const __m256i high = (__m256i)_mm512_cvtneps_pbh(a);
        const __m512 whole = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
        _mm256_mask_storeu_epi16(to + i, mask, high);
        if (twice)
            _mm256_mask_storeu_epi16(to + c + i, mask, high);
        _mm256_mask_storeu_epi16(second + i, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(a, whole)));
#else
        for (size_t k = i; k < LB_MIN(i + RESULTS, c); k++) {
            to[k] = lb_bf16_put(from[k]);
            if (twice)
                to[c + k] = to[k];
            second[k] = lb_bf16_put(from[k] - lb_bf16_get(to[k]));
        }
#endif
    }
}

/* `count` pixels of c floats, `step` apart. */
LB_INLINE void apart(const float *from, size_t count, size_t step, size_t c, bool twice, uint16_t *to) {
    for (size_t x = 0; x < count; x++, from += step, to += (twice ? 3 : 2) * c)
        take_apart(from, c, twice, to);
}

/* Pixels of a source row, gap_x apart. */
static void copy_pixels(const lb_sums *s, const unsigned char *src, unsigned char *to) {
    const size_t c = (size_t)s->ic, wide = s->wide, step = s->gap_x * c;
    const float *f = (const float *)(const void *)src;
    uint16_t *const parts = (void *)to;
    if (s->size == 1 && s->gap_x == 1)
        memcpy(to, src, wide * c);
    else if (s->size == 1)
        for (size_t x = 0; x < wide; x++)
            memcpy(to + x * c, src + x * step, c);
    else if (c == RESULTS && s->parts == 2)
        apart(f, wide, step, RESULTS, false, parts);
    else if (c == RESULTS && s->parts == 3)
        apart(f, wide, step, RESULTS, true, parts);
    else if (s->parts == 3)
        apart(f, wide, step, c, true, parts);
    else
        apart(f, wide, step, c, false, parts);
}

static size_t source_row(const lb_sums *s) { return (size_t)s->iw * (size_t)s->ic * (s->size == 1 ? 1 : sizeof(float)); }

/* A source row, or NULL: zeros, to a row of the strip. */
static void fill_row(const lb_sums *s, const unsigned char *src, unsigned char *row) {
    const size_t before = s->left * s->pixel, wide = s->wide * s->pixel, all = s->pitch * s->pixel;
    memset(row, 0, src ? before : all);
    if (!src)
        return;
    copy_pixels(s, src, row + before);
    memset(row + before + wide, 0, all - before - wide);
}

/* The source rows of result rows y .., and zeros behind them: what results multiply by zeros must be finite. */
static void fill_strip(const lb_sums *s, const unsigned char *src, size_t images, size_t y, size_t rows, unsigned char *strip) {
    const size_t pt = (size_t)s->pt, ih = (size_t)s->ih, source = source_row(s), row = s->pitch * s->pixel;
    unsigned char *to = strip;
    for (size_t n = 0; n < images; n++) {
        to = strip + n * s->strip_rows * row;
        for (size_t r = 0; r < (rows - 1) * s->down + (size_t)s->kh; r++, to += row) {
            const size_t at = (y * s->down + r) * s->gap_y;
            fill_row(s, at >= pt && at - pt < ih ? src + (n * ih + at - pt) * source : NULL, to);
        }
    }
    memset(to, 0, LINE);
}

/* ---- Products --------------------------------------------------------------------------------------------------------------- */

typedef struct job {
    const lb_sums *s;
    const unsigned char *a[4]; /* first kernel row of 16 results each */
    const unsigned char *b[2]; /* weights of 16 output channels each */
    float *to[4];              /* sums */
} job;

/* Everything around a step of products: `a` is where its sources are, from the first kernel row's on. */
#define EACH_PRODUCT(body)                                                                                                         \
    const lb_sums *s = j->s;                                                                                                       \
    const ptrdiff_t result = (ptrdiff_t)(s->across * s->pixel), channels = (ptrdiff_t)(sizeof(float) * (size_t)s->oc);             \
    const size_t down = s->pitch * s->pixel, steps = s->steps * LINE;                                                              \
    size_t b = 0;                                                                                                                  \
    tile_zero(0);                                                                                                                  \
    tile_zero(1);                                                                                                                  \
    tile_zero(2);                                                                                                                  \
    tile_zero(3);                                                                                                                  \
    for (size_t y = 0; y < (size_t)s->kh; y++)                                                                                     \
        for (size_t k = 0; k < steps; k += LINE, b += BLOCK) {                                                                     \
            const size_t a = y * down + k;                                                                                         \
            body                                                                                                                   \
        }                                                                                                                          \
    tile_store(0, j->to[0], channels);                                                                                             \
    tile_store(1, j->to[1], channels);                                                                                             \
    tile_store(2, j->to[2], channels);                                                                                             \
    tile_store(3, j->to[3], channels);

/* Four times 16 results of 16 channels; twice 16 results of 32 channels. */
#define KERNELS(name, dot)                                                                                                         \
    static void narrow_##name(const job *j) {                                                                                      \
        EACH_PRODUCT({                                                                                                             \
            tile_load(6, j->b[0] + b, LINE);                                                                                       \
            tile_load(4, j->a[0] + a, result);                                                                                     \
            dot(0, 4, 6);                                                                                                          \
            tile_load(5, j->a[1] + a, result);                                                                                     \
            dot(1, 5, 6);                                                                                                          \
            tile_load(7, j->a[2] + a, result);                                                                                     \
            dot(2, 7, 6);                                                                                                          \
            tile_load(4, j->a[3] + a, result);                                                                                     \
            dot(3, 4, 6);                                                                                                          \
        })                                                                                                                         \
    }                                                                                                                              \
    static void square_##name(const job *j) {                                                                                      \
        EACH_PRODUCT({                                                                                                             \
            tile_load(6, j->b[0] + b, LINE);                                                                                       \
            tile_load(4, j->a[0] + a, result);                                                                                     \
            dot(0, 4, 6);                                                                                                          \
            tile_load(7, j->b[1] + b, LINE);                                                                                       \
            dot(1, 4, 7);                                                                                                          \
            tile_load(5, j->a[1] + a, result);                                                                                     \
            dot(2, 5, 6);                                                                                                          \
            dot(3, 5, 7);                                                                                                          \
        })                                                                                                                         \
    }
KERNELS(u8, tile_dot)
KERNELS(s8, tile_dot_signed)
KERNELS(bf16, tile_dot_bf16)

/* The sums of a band: result rows y .. of `images` images, which begin at src. */
static void band(const lb_sums *s, const unsigned char *src, size_t images, size_t y, size_t rows, const unsigned char *weights,
                 float *sums) {
    static void (*const narrow[])(const job *) = {narrow_u8, narrow_s8, narrow_bf16, narrow_bf16};
    static void (*const square[])(const job *) = {square_u8, square_s8, square_bf16, square_bf16};
    const size_t oc = (size_t)s->oc, tile = RESULTS * oc, block = s->weights / (oc / RESULTS);
    const size_t image = s->strip_rows * s->pitch * s->pixel;
    const size_t per_row = s->result_row / RESULTS, tiles = tiles_of(s, rows), all = images * tiles;
    unsigned char *strip = (unsigned char *)sums + s->images * sums_bytes(s);
    fill_strip(s, src, images, y, rows, strip);
    for (size_t o = 0; o < oc; o += 2 * RESULTS) {
        const bool two = o + RESULTS < oc;
        const size_t group = two ? 2 : 4;
        const unsigned char *b = weights + o / RESULTS * block;
        for (size_t t = 0; t < all; t += group) {
            job j = {.s = s, .b = {b, b + block}};
            for (size_t i = 0; i < group; i++) {
                const size_t at = LB_MIN(t + i, all - 1), n = at / tiles, m = at % tiles; /* beyond the last: that one again */
                const size_t pixel = s->count_on ? m * RESULTS * s->across
                                                 : m / per_row * s->down * s->pitch + m % per_row * RESULTS * s->across;
                j.a[i] = strip + n * image + pixel * s->pixel;
                float *to = sums + (n * s->tiles + m) * tile + o;
                j.to[two ? 2 * i : i] = to;
                if (two)
                    j.to[2 * i + 1] = to + RESULTS;
            }
            if (two)
                square[s->type](&j);
            else
                narrow[s->type](&j);
        }
    }
}

static void LB_NAME(conv)(const lb_sums *s, const void *src, int images, int rows, const void *weights, void *scratch,
                          void (*finish)(void *user, int n, int y, int rows, const void *sums), void *user) {
    const size_t image = (size_t)s->ih * source_row(s);
    tiles_begin();
    for (int n = 0; n < images; n += (int)s->images)
        for (int y = 0; y < rows; y += (int)s->rows) {
            const int count = LB_MIN((int)s->images, images - n), high = LB_MIN((int)s->rows, rows - y);
            band(s, (const unsigned char *)src + (size_t)n * image, (size_t)count, (size_t)y, (size_t)high, weights, scratch);
            for (int i = 0; i < count; i++)
                finish(user, n + i, y, high, (unsigned char *)scratch + (size_t)i * sums_bytes(s));
        }
    tiles_end();
}

const lb_tiles_sums LB_NAME(lb_tiles_sums) = {
    .isa = LB_STRING(LB_ISA), .plan = LB_NAME(plan), .weights = LB_NAME(weights), .conv = LB_NAME(conv)};

/* The gradient of the weights. What is summed over is pixels: 32 of them per product, 16 of one image and the same 16 of another.
 *
 * Images are taken by groups of 2 `pairs`. A row of packed sources is what a pair of images has at one place, [16 channels][2];
 * rows are (y, x, pair), so that what a tap of the kernel reads begins a whole number of rows from what another does, and any 16
 * rows are a register. Packed diff_dst is turned: [16 channels][16 such places][2].
 *
 * Strides: places that are sh (sw) apart belong to one phase of the sources, packed as if it were an image of its own.
 *
 * Where channels are no multiple of 16, the kw pixels under a row of the kernel are one of kw * ic channels, and the kernel is
 * (kh, 1). */
#include "train/simd/tiles.h"
#include "train/simd/tile.h"

enum { SIDE = LB_TILES_CHANNELS, ROW = 4 * SIDE, TILE = SIDE * ROW, SUMS = 6, MAX_PAIRS = 16, LINE = 64 };
/* A band, what is packed at a time, is so large that its sums are loaded and stored seldom, and so small, its slice of the sources
 * at least, that it stays in the second-level cache. */
enum { BAND_BYTES = 1 << 20, SLICE_BYTES = 1 << 19, MIN_STEPS = 96, MAX_STEPS = 128 };

LB_INLINE size_t align(size_t size) { return tiles_ceil_div(size, LB_ALIGN) * LB_ALIGN; }

/* ---- Layout ------------------------------------------------------------------------------------------------------------ */

typedef struct layout {
    size_t pairs;                   /* of images in a group */
    bool windows;                   /* a row of the kernel is one pixel of many channels */
    size_t kw, ic_tiles, oc_tiles;  /* kw: 1 for windows */
    size_t taps, phases_h, phases_w;
    size_t groups, rows;            /* of a band: several whole groups, or some rows of one */
    size_t steps;                   /* registers that a row of diff_dst fills */
    size_t pitch, halo;             /* packed rows from a row of sources to the next; rows of sources more than of diff_dst */
    size_t phase, tile;             /* bytes of a phase; of 16 channels of the sources of a band */
    size_t diffs, sources, zeros, sums, size; /* bytes */
} layout;

/* The fewest pairs that waste the least. */
LB_INLINE size_t pairs_of(const lb_tiles_dims *d) {
    size_t best = 1, least = SIZE_MAX;
    for (size_t pairs = 1; pairs <= MAX_PAIRS && (pairs == 1 || 2 * pairs <= (size_t)d->mb); pairs *= 2) {
        const size_t steps = tiles_ceil_div((size_t)d->ow * pairs, SIDE) * tiles_ceil_div((size_t)d->mb, 2 * pairs);
        if (steps < least) {
            least = steps;
            best = pairs;
        }
    }
    return best;
}

LB_INLINE layout place(const lb_tiles_dims *d, size_t oc) {
    const size_t ic = (size_t)d->ic, oh = (size_t)d->oh, ow = (size_t)d->ow, sh = (size_t)d->sh;
    layout l = {.pairs = pairs_of(d), .windows = ic % SIDE != 0};
    l.kw = l.windows ? 1 : (size_t)d->kw;
    l.ic_tiles = tiles_ceil_div(l.windows ? (size_t)d->kw * ic : ic, SIDE);
    l.oc_tiles = oc / SIDE;
    l.taps = (size_t)d->kh * l.kw;
    l.phases_h = LB_MIN(sh, (size_t)d->kh);
    l.phases_w = LB_MIN((size_t)d->sw, l.kw);
    l.steps = tiles_ceil_div(ow * l.pairs, SIDE);
    l.pitch = (ow + (l.kw - 1) / (size_t)d->sw) * l.pairs;
    l.halo = ((size_t)d->kh - 1) / sh;

    const size_t row = l.oc_tiles * l.steps * TILE + l.ic_tiles * l.phases_h * l.phases_w * l.pitch * ROW;
    const size_t steps = LB_MIN(LB_MAX(BAND_BYTES / row * l.steps, MIN_STEPS), MAX_STEPS);
    const size_t groups = tiles_ceil_div((size_t)d->mb, 2 * l.pairs);
    l.rows = LB_MIN(oh, LB_MAX(steps / l.steps, 1));
    l.rows = tiles_ceil_div(oh, tiles_ceil_div(oh, l.rows));
    l.groups = l.rows == oh ? LB_MIN(LB_MAX(steps / (oh * l.steps), 1), groups) : 1;

    l.phase = (l.groups * (l.rows + l.halo) * l.pitch + SIDE) * ROW; /* behind the last row, as registers are loaded whole */
    l.tile = l.phases_h * l.phases_w * l.phase;
    l.diffs = l.oc_tiles * l.groups * l.rows * l.steps * TILE;
    l.sources = l.ic_tiles * l.tile;
    l.zeros = align((size_t)d->iw * ic * sizeof(uint16_t));
    l.sums = l.windows ? l.oc_tiles * l.taps * l.ic_tiles * TILE : 0;
    l.size = l.diffs + l.sources + l.zeros + l.sums;
    return l;
}

static size_t LB_NAME(scratch)(const lb_tiles_dims *d, int oc) { return place(d, (size_t)oc).size; }

/* A call: the arguments, and where things are in `scratch`. */
typedef struct job {
    const lb_tiles_dims *d;
    layout l;
    size_t last, oc_first;
    const uint16_t *src, *diff_dst, *zeros;
    unsigned char *diffs, *sources;
    float *sums, *diff;
    size_t image, at[SIDE];    /* of diff_dst, in numbers: an image; where 16 places of a group are that follow each other */
} job;

/* What a pass is about: groups and rows of the images from `image` on, from row `y` on. */
typedef struct band {
    size_t image, y, groups, rows;
} band;

/* ---- Packing ----------------------------------------------------------------------------------------------------------- */

#if defined(LB_ISA_amx)
LB_INLINE __m512i load_two(const uint16_t *a, const uint16_t *b) {
    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)a);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)b);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
LB_INLINE void store_row(uint16_t *to, __m512i two) {
    _mm512_store_si512(to, tiles_alternate(two));
}
#endif

/* 16 numbers of a and b, alternating. */
LB_INLINE void pack_row(uint16_t *to, const uint16_t *a, const uint16_t *b) {
#if defined(LB_ISA_amx)
    store_row(to, load_two(a, b));
#else
    for (int i = 0; i < SIDE; i++) {
        to[2 * i] = a[i];
        to[2 * i + 1] = b[i];
    }
#endif
}

/* As many, `step` numbers apart, to rows `pairs` apart. */
LB_INLINE void pack_rows(uint16_t *to, size_t pairs, const uint16_t *a, const uint16_t *b, size_t step, size_t count) {
    for (size_t i = 0; i < count; i++)
        pack_row(to + i * pairs * 2 * SIDE, a + i * step, b + i * step);
}

/* Those of numbers [at, at + 16) that are among the `count` of a and b. */
LB_INLINE void pack_edge(uint16_t *to, const uint16_t *a, const uint16_t *b, ptrdiff_t at, ptrdiff_t count) {
    const ptrdiff_t from = LB_MAX(0, -at), end = LB_MIN(SIDE, count - at);
    if (from >= end) {
        memset(to, 0, ROW);
        return;
    }
#if defined(LB_ISA_amx)
    const __mmask16 mask = (__mmask16)((1u << end) - (1u << from));
    const void *const first = (const void *)((uintptr_t)a + (uintptr_t)at * sizeof *a); /* maybe before all memory: masked */
    const void *const second = (const void *)((uintptr_t)b + (uintptr_t)at * sizeof *b);
    const __m512i low = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(mask, first));
    store_row(to, _mm512_inserti64x4(low, _mm256_maskz_loadu_epi16(mask, second), 1));
#else
    uint16_t numbers[2][SIDE] = {{0}};
    for (ptrdiff_t i = from; i < end; i++) {
        numbers[0][i] = a[at + i];
        numbers[1][i] = b[at + i];
    }
    pack_row(to, numbers[0], numbers[1]);
#endif
}

/* 16 numbers of each of 16 places, at from + at[..] numbers, and of those `other` numbers behind, alternating, turned. */
LB_INLINE void turn(unsigned char *to, const uint16_t *from, const size_t at[SIDE], size_t other) {
#if defined(LB_ISA_amx)
    __m512i part[2][4][2]; /* [places 8 h ..][a column of four][channels 0..3 and 8..11, then 4..7 and 12..15] */
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m512i pair[2][4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) { /* of places 8 h + k and 4 further */
            const uint16_t *p = from + at[8 * h + k], *q = from + at[8 * h + k + 4];
            const __m512i a = load_two(p, q), b = load_two(p + other, q + other);
            pair[0][k] = _mm512_unpacklo_epi16(a, b);
            pair[1][k] = _mm512_unpackhi_epi16(a, b);
        }
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++) {
            const __m512i *p = pair[c];
            const __m512i low01 = _mm512_unpacklo_epi32(p[0], p[1]), low23 = _mm512_unpacklo_epi32(p[2], p[3]);
            const __m512i high01 = _mm512_unpackhi_epi32(p[0], p[1]), high23 = _mm512_unpackhi_epi32(p[2], p[3]);
            part[h][0][c] = _mm512_unpacklo_epi64(low01, low23);
            part[h][1][c] = _mm512_unpackhi_epi64(low01, low23);
            part[h][2][c] = _mm512_unpacklo_epi64(high01, high23);
            part[h][3][c] = _mm512_unpackhi_epi64(high01, high23);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const __m512i low = part[0][i % 4][i / 4], high = part[1][i % 4][i / 4];
        _mm512_store_si512(to + i * ROW, _mm512_shuffle_i32x4(low, high, 0x88));
        _mm512_store_si512(to + (i + 8) * ROW, _mm512_shuffle_i32x4(low, high, 0xdd));
    }
#else
    for (size_t k = 0; k < SIDE; k++)
        for (size_t i = 0; i < SIDE; i++) {
            memcpy(to + i * ROW + k * 4, from + at[k] + i, 2);
            memcpy(to + i * ROW + k * 4 + 2, from + at[k] + other + i, 2);
        }
#endif
}

/* Row y of image n of a tensor whose images are `image` and rows `row` numbers; zeros if the call has no such image. */
LB_INLINE const uint16_t *find_row(const job *j, const uint16_t *data, size_t n, size_t y, size_t image, size_t row) {
    return n < j->last ? data + n * image + y * row : j->zeros;
}

/* Those of 16 places that exist: `count` of each pair, of images before the last. */
static __attribute__((noinline)) void LB_NAME(turn_some)(const job *j, const uint16_t *places, size_t count, size_t n,
                                                         unsigned char *to) {
    const size_t pairs = j->l.pairs;
    uint16_t numbers[2][SIDE][SIDE] = {{{0}}};
    size_t at[SIDE];
    for (size_t k = 0; k < SIDE; k++) {
        at[k] = k * SIDE;
        for (size_t i = 0; i < 2; i++)
            if (k / pairs < count && n + k % pairs * 2 + i < j->last)
                memcpy(numbers[i][k], places + j->at[k] + i * j->image, sizeof numbers[i][k]);
    }
    turn(to, numbers[0][0], at, SIDE * SIDE);
}

/* A row of diff_dst of a group. */
LB_INLINE void pack_diff_row(const job *j, size_t n, size_t y, unsigned char *to, size_t tile) {
    const layout *l = &j->l;
    const size_t ow = (size_t)j->d->ow, oc = (size_t)j->d->oc, across = SIDE / l->pairs;
    const size_t row = n * j->image + y * ow * oc + j->oc_first;
    for (size_t x = 0; x < ow; x += across, to += TILE)
        for (size_t o = 0; o < l->oc_tiles; o++) {
            const uint16_t *places = j->diff_dst + row + x * oc + o * SIDE;
            if (x + across <= ow && n + 2 * l->pairs <= j->last)
                turn(to + o * tile, places, j->at, j->image);
            else
                LB_NAME(turn_some)(j, places, LB_MIN(across, ow - x), n, to + o * tile);
        }
}

LB_INLINE void pack_diffs(const job *j, const band *b) {
    const layout *l = &j->l;
    for (size_t g = 0; g < b->groups; g++)
        for (size_t y = 0; y < b->rows; y++)
            pack_diff_row(j, b->image + 2 * g * l->pairs, b->y + y, j->diffs + (g * b->rows + y) * l->steps * TILE,
                          b->groups * b->rows * l->steps * TILE);
}

/* One pair, one row, 16 channels: columns from number `at` of the row on, `step` numbers apart. */
LB_INLINE void pack_columns(uint16_t *to, const layout *l, const uint16_t *a, const uint16_t *b, ptrdiff_t at, ptrdiff_t step,
                            ptrdiff_t numbers) {
    const ptrdiff_t columns = (ptrdiff_t)(l->pitch / l->pairs), next = (ptrdiff_t)l->pairs * 2 * SIDE;
    ptrdiff_t x = 0;
    for (; x < columns && at + x * step < 0; x++)
        pack_edge(to + x * next, a, b, at + x * step, numbers);
    const ptrdiff_t rest = numbers - SIDE - (at + x * step), inside = rest < 0 ? 0 : LB_MIN(rest / step + 1, columns - x);
    if (inside > 0)
        pack_rows(to + x * next, l->pairs, a + at + x * step, b + at + x * step, (size_t)step, (size_t)inside);
    for (x += inside; x < columns; x++)
        pack_edge(to + x * next, a, b, at + x * step, numbers);
}

/* A row of all channels of all pairs of a group, of the phase that begins `left` pixels right of the padding. */
LB_INLINE void pack_source_row(const job *j, size_t n, int y, int left, unsigned char *to) {
    const layout *l = &j->l;
    const lb_tiles_dims *d = j->d;
    const size_t row = (size_t)d->iw * (size_t)d->ic, image = (size_t)d->ih * row;
    for (size_t i = 0; i < l->ic_tiles; i++, to += l->tile) {
        if (y < 0 || y >= d->ih) {
            memset(to, 0, l->pitch * ROW);
            continue;
        }
        for (size_t pair = 0; pair < l->pairs; pair++)
            pack_columns((uint16_t *)(void *)(to + pair * ROW), l, find_row(j, j->src, n + 2 * pair, (size_t)y, image, row),
                         find_row(j, j->src, n + 2 * pair + 1, (size_t)y, image, row),
                         (ptrdiff_t)(left - d->pl) * d->ic + (ptrdiff_t)i * SIDE, (ptrdiff_t)d->sw * d->ic, (ptrdiff_t)row);
    }
}

LB_INLINE void pack_sources(const job *j, const band *b) {
    const layout *l = &j->l;
    for (size_t g = 0; g < b->groups; g++)
        for (size_t y = 0; y < b->rows + l->halo; y++)
            for (size_t h = 0; h < l->phases_h; h++)
                for (size_t w = 0; w < l->phases_w; w++)
                    pack_source_row(j, b->image + 2 * g * l->pairs, (int)(b->y + y) * j->d->sh + (int)h - j->d->pt, (int)w,
                                    j->sources + (h * l->phases_w + w) * l->phase +
                                        (g * (b->rows + l->halo) + y) * l->pitch * ROW);
    for (size_t i = 0; i < l->ic_tiles * l->phases_h * l->phases_w; i++) /* what zeros are multiplied by must not be NaN */
        memset(j->sources + i * l->phase + b->groups * (b->rows + l->halo) * l->pitch * ROW, 0, SIDE * ROW);
}

/* ---- Products ---------------------------------------------------------------------------------------------------------- */

/* 16 output channels times 16 input channels at each of several taps, over a band. */
typedef struct pass {
    const unsigned char *a, *b[SUMS];
    float *c[SUMS];
    size_t c_row;              /* bytes */
    bool add;                  /* to what is in c */
    size_t groups, rows, steps, b_row, b_group; /* bytes from row to row, from group to group */
    uintptr_t ahead;           /* memory that is wanted soon, and how many lines of it are asked for with each register of a */
    size_t lines;
} pass;

#define EACH(op) \
    do { \
        op(0); \
        op(1); \
        op(2); \
        op(3); \
        op(4); \
        op(5); \
    } while (0)
#define START(i) if (n > i && p->add) tile_load(i, p->c[i], p->c_row); else if (n > i) tile_zero(i)
#define STEP(i) if (n > i) { tile_load(7, b##i + at, ROW); tile_dot_bf16(i, 6, 7); }
#define STORE(i) if (n > i) tile_store(i, p->c[i], p->c_row)

/* n is a constant wherever this is inlined. */
LB_INLINE void multiply(const pass *p, int n) {
    const unsigned char *a = p->a, *b0 = p->b[0], *b1 = p->b[1], *b2 = p->b[2], *b3 = p->b[3], *b4 = p->b[4], *b5 = p->b[5];
    const size_t groups = p->groups, rows = p->rows, steps = p->steps, b_row = p->b_row, b_group = p->b_group;
    (void)b1, (void)b2, (void)b3, (void)b4, (void)b5;
    uintptr_t ahead = p->ahead;
    const uintptr_t lines = p->lines * LINE;
    EACH(START);
    size_t group_at = 0;
    for (size_t g = 0; g < groups; g++, group_at += b_group) {
        size_t row_at = group_at;
        for (size_t y = 0; y < rows; y++, row_at += b_row) {
            size_t at = row_at;
            for (size_t k = 0; k < steps; k++, a += TILE, at += TILE) {
                tile_load(6, a, ROW);
                EACH(STEP);
                for (const uintptr_t end = ahead + lines; ahead < end; ahead += LINE)
                    __builtin_prefetch((const void *)ahead, 0, 2);
            }
        }
    }
    EACH(STORE);
}

LB_INLINE void multiply_any(const pass *p, size_t n) {
    switch (n) {
    case 1: multiply(p, 1); break;
    case 2: multiply(p, 2); break;
    case 3: multiply(p, 3); break;
    case 4: multiply(p, 4); break;
    case 5: multiply(p, 5); break;
    default: multiply(p, 6); break;
    }
}

/* What tap (kh, kw) of input channels 16 i .. reads, and where its sums of output channels 16 o .. belong. */
LB_INLINE const unsigned char *sources_of(const job *j, size_t i, size_t kh, size_t kw) {
    const size_t sh = (size_t)j->d->sh, sw = (size_t)j->d->sw, phase = kh % sh * j->l.phases_w + kw % sw;
    return j->sources + i * j->l.tile + phase * j->l.phase + (kh / sh * j->l.pitch + kw / sw * j->l.pairs) * ROW;
}
LB_INLINE float *sums_of(const job *j, size_t o, size_t i, size_t tap) {
    if (j->l.windows)
        return j->sums + ((o * j->l.taps + tap) * j->l.ic_tiles + i) * (TILE / sizeof(float));
    return j->diff + ((j->oc_first + o * SIDE) * j->l.taps + tap) * (size_t)j->d->ic + i * SIDE;
}

/* What the next band reads, to be asked for while this one is multiplied: of src and diff_dst, `count` pieces as far apart as
 * images, `size` bytes each, the first at `at`. `done` bytes of all were asked for. */
typedef struct wanted {
    uintptr_t at[2];
    size_t size[2], image[2], count, done;
} wanted;

LB_INLINE size_t wanted_size(const wanted *w) { return w->count * (w->size[0] + w->size[1]); }

LB_INLINE wanted want(const job *j, const band *b) {
    const lb_tiles_dims *d = j->d;
    const size_t ih = (size_t)d->ih, oh = (size_t)d->oh, images = b->groups * 2 * j->l.pairs;
    const size_t row[2] = {(size_t)d->iw * (size_t)d->ic * sizeof(uint16_t), (size_t)d->ow * (size_t)d->oc * sizeof(uint16_t)};
    const size_t pad = (size_t)d->pt, top = b->y * (size_t)d->sh, bottom = (b->y + b->rows + j->l.halo) * (size_t)d->sh;
    const size_t first[2] = {top < pad ? 0 : LB_MIN(top - pad, ih), b->y};
    const size_t last[2] = {bottom < pad ? 0 : LB_MIN(bottom - pad, ih), LB_MIN(b->y + b->rows, oh)};
    const uint16_t *const data[2] = {j->src, j->diff_dst};
    wanted w = {.count = b->image < j->last ? LB_MIN(images, j->last - b->image) : 0};
    for (int k = 0; k < 2; k++) {
        w.image[k] = row[k] * (k == 0 ? ih : oh);
        w.at[k] = (uintptr_t)data[k] + b->image * w.image[k] + first[k] * row[k];
        w.size[k] = (last[k] - first[k]) * row[k];
    }
    if (b->rows == oh) { /* whole images follow each other */
        w.size[0] = w.count * w.image[0];
        w.size[1] = w.count * w.image[1];
        w.count = 1;
    }
    if (j->l.phases_h < (size_t)d->sh) /* not all of it is read */
        w.size[0] = 0;
    if (j->l.oc_tiles * SIDE < (size_t)d->oc)
        w.size[1] = 0;
    return w;
}

/* Has the pass ask for its share, which is in one piece. */
LB_INLINE void ask(wanted *w, pass *p, size_t passes_left) {
    const size_t steps = p->groups * p->rows * p->steps, all = wanted_size(w), part = w->size[0] + w->size[1];
    p->lines = 0;
    if (w->done >= all) /* also if nothing is wanted */
        return;
    const size_t piece = w->done / part, at = w->done % part, k = at < w->size[0] ? 0 : 1, from = k ? at - w->size[0] : at;
    p->ahead = w->at[k] + piece * w->image[k] + from;
    p->lines = tiles_ceil_div(tiles_ceil_div(all - w->done, passes_left), steps * LINE);
    w->done += LB_MIN(p->lines * steps * LINE, w->size[k] - from);
}

LB_INLINE void multiply_band(const job *j, const band *b, const band *next, bool add) {
    const layout *l = &j->l;
    const size_t slice = LB_MAX(SLICE_BYTES / l->tile, 1);
    wanted w = want(j, next);
    size_t left = tiles_ceil_div(LB_MIN(slice, l->ic_tiles) * l->taps, SUMS) * l->oc_tiles * tiles_ceil_div(l->ic_tiles, slice);
    pass p = {.add = add, .groups = b->groups, .rows = b->rows, .steps = l->steps, .b_row = l->pitch * ROW,
              .b_group = (b->rows + l->halo) * l->pitch * ROW,
              .c_row = l->windows ? ROW : l->taps * (size_t)j->d->ic * sizeof(float)};
    for (size_t first = 0; first < l->ic_tiles; first += slice) {
        const size_t all = LB_MIN(slice, l->ic_tiles - first) * l->taps, passes = tiles_ceil_div(all, SUMS);
        for (size_t o = 0; o < l->oc_tiles; o++) {
            p.a = j->diffs + o * b->groups * b->rows * l->steps * TILE;
            for (size_t k = 0; k < passes; k++) {
                const size_t from = all * k / passes, n = all * (k + 1) / passes - from;
                for (size_t m = 0; m < n; m++) {
                    const size_t i = first + (from + m) / l->taps, tap = (from + m) % l->taps;
                    p.b[m] = sources_of(j, i, tap / l->kw, tap % l->kw);
                    p.c[m] = sums_of(j, o, i, tap);
                }
                ask(&w, &p, left > 1 ? left-- : 1);
                multiply_any(&p, n);
            }
        }
    }
}

/* Windows: rows of the kernel, of kw * ic numbers, from their tiles. */
LB_INLINE void store_windows(const job *j, bool add) {
    const size_t window = (size_t)j->d->kw * (size_t)j->d->ic, taps = j->l.taps;
    for (size_t o = 0; o < j->l.oc_tiles * SIDE; o++)
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t k = 0; k < window; k++) {
                float *to = j->diff + ((j->oc_first + o) * taps + tap) * window + k;
                *to = (add ? *to : 0) + sums_of(j, o / SIDE, k / SIDE, tap)[o % SIDE * SIDE + k % SIDE];
            }
}

static void LB_NAME(diff)(const lb_tiles_dims *d, int first, int last, int oc_first, int oc_last, const void *src,
                          const void *diff_dst, bool add, float *diff, void *scratch) {
    job j = {.d = d, .l = place(d, (size_t)(oc_last - oc_first)), .last = (size_t)last, .oc_first = (size_t)oc_first,
             .src = src, .diff_dst = diff_dst, .diff = diff, .diffs = scratch};
    const layout *l = &j.l;
    j.sources = j.diffs + l->diffs;
    unsigned char *zeros = j.sources + l->sources;
    j.zeros = (const uint16_t *)(const void *)zeros;
    j.sums = (float *)(void *)(zeros + l->zeros);
    memset(zeros, 0, l->zeros);
    j.image = (size_t)d->oh * (size_t)d->ow * (size_t)d->oc;
    for (size_t k = 0; k < SIDE; k++)
        j.at[k] = k % l->pairs * 2 * j.image + k / l->pairs * (size_t)d->oc;
    tiles_begin();
    const size_t together = 2 * l->pairs, groups = tiles_ceil_div((size_t)(last - first), together), oh = (size_t)d->oh;
    for (size_t g = 0; g < groups; g += l->groups)
        for (size_t y = 0; y < oh; y += l->rows) {
            const band b = {(size_t)first + g * together, y, LB_MIN(l->groups, groups - g), LB_MIN(l->rows, oh - y)};
            const bool down = y + l->rows < oh;
            const band next = {down ? b.image : b.image + l->groups * together, down ? y + l->rows : 0, l->groups, l->rows};
            pack_diffs(&j, &b);
            pack_sources(&j, &b);
            multiply_band(&j, &b, &next, g > 0 || y > 0 || (add && !l->windows));
        }
    tiles_end();
    if (l->windows)
        store_windows(&j, add);
}

const lb_tiles_diff LB_NAME(lb_tiles_diff) = {
    .isa = LB_STRING(LB_ISA),
    .diff = LB_NAME(diff),
    .scratch = LB_NAME(scratch),
};

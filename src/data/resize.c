/* Separable resampling with a triangle filter in fixed point. */
#include <math.h>

#include "data/image.h"

#define WEIGHT_BITS 14

/* For each of `on` outputs: first source index, how many, and their weights, which sum to 1 << WEIGHT_BITS exactly. */
typedef struct filter {
    int taps; /* room per output */
    int *first, *count; /* (on) */
    int16_t *weights; /* (on, taps) */
} filter;

static int filter_taps(double in, int on) {
    double scale = in / on;
    return (int)ceil(scale > 1 ? scale : 1) * 2 + 2;
}

static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t filter_bytes(int taps, int on) {
    return rounded((size_t)on * sizeof(int)) * 2 + rounded((size_t)on * (size_t)taps * sizeof(int16_t));
}

size_t lb_resize_scratch(int ih, int iw, int c, int oh, int ow) {
    /* Dimensions are at most 65535 (JPEG) or far below LB_IMAGE_LIMIT, so that these products stay below 2^63. */
    if (ih < 1 || iw < 1 || oh < 1 || ow < 1 || c < 1 || c > 4 || ih > 1 << 24 || iw > 1 << 24 || oh > 1 << 16 || ow > 1 << 16)
        return 0;
    return filter_bytes(filter_taps(ih, oh), oh) + filter_bytes(filter_taps(iw, ow), ow) +
           rounded((size_t)ih * (size_t)ow * (size_t)c);
}

static void *take(uint8_t **scratch, size_t bytes) {
    void *ptr = *scratch;
    *scratch += rounded(bytes);
    return ptr;
}

/* Source samples `from` .. `from + in` of `n` become `on` outputs. Samples outside the box are not read. */
static void filter_make(filter *f, double from, double in, int n, int on, uint8_t **scratch) {
    double scale = in / on, support = scale > 1 ? scale : 1;
    int lo = (int)floor(from + 1e-9), hi = (int)ceil(from + in - 1e-9);
    lo = LB_MIN(LB_MAX(lo, 0), n - 1);
    hi = LB_MIN(LB_MAX(hi, lo + 1), n);
    f->taps = filter_taps(in, on);
    f->first = take(scratch, (size_t)on * sizeof(int));
    f->count = take(scratch, (size_t)on * sizeof(int));
    f->weights = take(scratch, (size_t)on * (size_t)f->taps * sizeof(int16_t));
    for (int o = 0; o < on; o++) {
        double centre = from + (o + 0.5) * scale, sum = 0;
        int first = LB_MIN(LB_MAX((int)(centre - support + 0.5), lo), hi - 1);
        int last = LB_MIN(LB_MAX((int)(centre + support + 0.5), first + 1), hi); /* behind the last */
        int count = LB_MIN(last - first, f->taps), best = 0, left = 1 << WEIGHT_BITS;
        int16_t *weights = f->weights + (size_t)o * (size_t)f->taps;
        for (int i = 0; i < count; i++)
            sum += fmax(0, 1 - fabs((first + i + 0.5 - centre) / support));
        for (int i = 0; i < count; i++) {
            double share = sum > 0 ? fmax(0, 1 - fabs((first + i + 0.5 - centre) / support)) / sum : i == 0;
            weights[i] = (int16_t)lrint(share * (1 << WEIGHT_BITS));
            left -= weights[i];
            if (weights[i] > weights[best])
                best = i;
        }
        weights[best] = (int16_t)(weights[best] + left);
        f->first[o] = first;
        f->count[o] = count;
    }
}

static inline uint8_t rounded_pixel(int32_t sum) { return (uint8_t)((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS); }

/* One row: (iw, c) to (ow, c). */
static inline void filter_row(const filter *f, const uint8_t *src, int c, int ow, uint8_t *dst) {
    for (int o = 0; o < ow; o++) {
        const int16_t *weights = f->weights + (size_t)o * (size_t)f->taps;
        const uint8_t *from = src + (size_t)f->first[o] * (size_t)c;
        int count = f->count[o];
        if (c == 3) {
            int32_t r = 0, g = 0, b = 0;
            for (int i = 0; i < count; i++) {
                r += weights[i] * from[3 * i];
                g += weights[i] * from[3 * i + 1];
                b += weights[i] * from[3 * i + 2];
            }
            dst[3 * o] = rounded_pixel(r);
            dst[3 * o + 1] = rounded_pixel(g);
            dst[3 * o + 2] = rounded_pixel(b);
            continue;
        }
        for (int k = 0; k < c; k++) {
            int32_t sum = 0;
            for (int i = 0; i < count; i++)
                sum += weights[i] * from[i * c + k];
            dst[o * c + k] = rounded_pixel(sum);
        }
    }
}

void lb_resize(const uint8_t *src, int ih, int iw, int c, const lb_box *box, uint8_t *dst, int oh, int ow, void *scratch) {
    size_t row = (size_t)iw * (size_t)c, out = (size_t)ow * (size_t)c;
    if (box->h == oh && box->w == ow && box->y == floor(box->y) && box->x == floor(box->x)) {
        const uint8_t *from = src + (size_t)box->y * row + (size_t)box->x * (size_t)c;
        for (int y = 0; y < oh; y++)
            memcpy(dst + (size_t)y * out, from + (size_t)y * row, out);
        return;
    }
    uint8_t *room = scratch;
    filter fy, fx;
    filter_make(&fy, box->y, box->h, ih, oh, &room);
    filter_make(&fx, box->x, box->w, iw, ow, &room);
    int first = fy.first[0], last = fy.first[oh - 1] + fy.count[oh - 1];
    for (int o = 0; o < oh; o++) {
        first = LB_MIN(first, fy.first[o]);
        last = LB_MAX(last, fy.first[o] + fy.count[o]);
    }
    uint8_t *rows = room; /* (last - first, ow, c) */
    for (int y = first; y < last; y++)
        filter_row(&fx, src + (size_t)y * row, c, ow, rows + (size_t)(y - first) * out);
    int32_t sums[256];
    for (int o = 0; o < oh; o++) {
        const int16_t *weights = fy.weights + (size_t)o * (size_t)fy.taps;
        const uint8_t *from = rows + (size_t)(fy.first[o] - first) * out;
        for (size_t x0 = 0; x0 < out; x0 += LB_COUNT(sums)) {
            size_t n = LB_MIN(LB_COUNT(sums), out - x0);
            memset(sums, 0, n * sizeof *sums);
            for (int i = 0; i < fy.count[o]; i++) {
                const uint8_t *line = from + (size_t)i * out + x0;
                int32_t weight = weights[i];
                for (size_t x = 0; x < n; x++)
                    sums[x] += weight * line[x];
            }
            for (size_t x = 0; x < n; x++)
                dst[(size_t)o * out + x0 + x] = rounded_pixel(sums[x]);
        }
    }
}

static int whole(double x) { return (int)fmin(rint(x), 1e9); }

lb_box lb_centre_box(int ih, int iw, int oh, int ow, int resize) {
    int rh, rw; /* size after resizing, before the crop */
    if (resize > 0) {
        int shorter = LB_MIN(ih, iw);
        rh = whole((double)ih * resize / shorter);
        rw = whole((double)iw * resize / shorter);
    } else if ((double)oh / ih >= (double)ow / iw) {
        rh = oh;
        rw = whole((double)iw * oh / ih);
    } else {
        rw = ow;
        rh = whole((double)ih * ow / iw);
    }
    rh = LB_MAX(rh, oh);
    rw = LB_MAX(rw, ow);
    double sy = (double)ih / rh, sx = (double)iw / rw;
    return (lb_box){((rh - oh) / 2) * sy, ((rw - ow) / 2) * sx, rh == oh ? ih : oh * sy, rw == ow ? iw : ow * sx};
}

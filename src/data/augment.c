/* Augmentation of one training image. */
#include <math.h>

#include "data/image.h"

/* A whole number in 0 .. n-1 from 32 random bits. */
static int below(uint32_t bits, int n) { return (int)((uint64_t)bits * (uint64_t)n >> 32); }

/* Area and aspect ratio as in Szegedy et al. 2015, with the same fallback as torchvision: ten tries, then the centre. */
static lb_box random_box(const lb_augment_config *config, uint64_t seed, int64_t epoch, int64_t image, int ih, int iw) {
    double area = (double)ih * iw, lo = log(config->ratio[0]), hi = log(config->ratio[1]);
    for (int try = 0; try < 10; try++) {
        uint32_t r[4]; /* the image's index has 56 bits, the try the rest */
        lb_rng4(seed, LB_RNG_AUGMENT, (uint64_t)epoch, (uint64_t)image | (uint64_t)(try + 1) << 56, r);
        double part = area * (config->scale[0] + (config->scale[1] - config->scale[0]) * lb_uniform(r[0]));
        double ratio = exp(lo + (hi - lo) * lb_uniform(r[1]));
        int w = (int)lrint(sqrt(part * ratio)), h = (int)lrint(sqrt(part / ratio));
        if (w >= 1 && h >= 1 && w <= iw && h <= ih)
            return (lb_box){below(r[2], ih - h + 1), below(r[3], iw - w + 1), h, w};
    }
    int w = iw, h = ih;
    if ((double)iw / ih < config->ratio[0])
        h = LB_MIN(ih, LB_MAX(1, (int)lrint(iw / (double)config->ratio[0])));
    else if ((double)iw / ih > config->ratio[1])
        w = LB_MIN(iw, LB_MAX(1, (int)lrint(ih * (double)config->ratio[1])));
    return (lb_box){(ih - h) / 2, (iw - w) / 2, h, w};
}

void lb_augment_draw(const lb_augment_config *config, uint64_t seed, int64_t epoch, int64_t image, int ih, int iw,
                     lb_augment *out) {
    *out = (lb_augment){.dy = config->pad, .dx = config->pad};
    if (!config->pad && !config->flip && !config->resized_crop)
        return;
    uint32_t r[4];
    lb_rng4(seed, LB_RNG_AUGMENT, (uint64_t)epoch, (uint64_t)image, r);
    if (config->pad > 0) {
        out->dy = below(r[0], 2 * config->pad + 1);
        out->dx = below(r[1], 2 * config->pad + 1);
    }
    out->flip = config->flip && r[2] >> 31;
    if (config->resized_crop)
        out->box = random_box(config, seed, epoch, image, ih, iw);
}

static void flip_row(const uint8_t *src, int n, int c, uint8_t *dst) {
    if (c == 3) {
        for (int x = 0; x < n; x++) {
            const uint8_t *from = src + (size_t)(n - 1 - x) * 3;
            dst[3 * x] = from[0];
            dst[3 * x + 1] = from[1];
            dst[3 * x + 2] = from[2];
        }
        return;
    }
    if (c == 1) {
        for (int x = 0; x < n; x++)
            dst[x] = src[n - 1 - x];
        return;
    }
    for (int x = 0; x < n; x++)
        memcpy(dst + (size_t)x * (size_t)c, src + (size_t)(n - 1 - x) * (size_t)c, (size_t)c);
}

/* n pixels of colour `fill` (c). */
static void fill_pixels(uint8_t *dst, int n, int c, const uint8_t *fill) {
    for (int x = 0; x < n; x++)
        for (int k = 0; k < c; k++)
            dst[(size_t)x * (size_t)c + (size_t)k] = fill[k];
}

void lb_pad_crop_flip(const uint8_t *src, int h, int w, int c, int pad, const uint8_t *fill, int dy, int dx, bool flip,
                      uint8_t *dst) {
    size_t row = (size_t)w * (size_t)c;
    int sy = dy - pad, sx = dx - pad; /* dst (y, x) is src (y + sy, x + sx) */
    if (sy == 0 && sx == 0 && !flip) {
        memcpy(dst, src, (size_t)h * row);
        return;
    }
    int x0 = LB_MIN(LB_MAX(-sx, 0), w), x1 = LB_MAX(LB_MIN(w, w - sx), x0); /* columns of dst that src fills, before the flip */
    int left = flip ? w - x1 : x0, n = x1 - x0;
    for (int y = 0; y < h; y++) {
        uint8_t *to = dst + (size_t)y * row;
        if (y + sy < 0 || y + sy >= h || n == 0) {
            fill_pixels(to, w, c, fill);
            continue;
        }
        const uint8_t *from = src + (size_t)(y + sy) * row + (size_t)(x0 + sx) * (size_t)c;
        fill_pixels(to, left, c, fill);
        fill_pixels(to + (size_t)(left + n) * (size_t)c, w - left - n, c, fill);
        if (flip)
            flip_row(from, n, c, to + (size_t)left * (size_t)c);
        else
            memcpy(to + (size_t)left * (size_t)c, from, (size_t)n * (size_t)c);
    }
}

/* Single images: decoding, resizing and augmenting. Nothing here touches the context, so that worker threads can use it. */
#ifndef LB_IMAGE_H
#define LB_IMAGE_H

#include "data/data.h"

/* ---- Decoding -------------------------------------------------------------------------------------------------- */

/* What one thread needs to decode. Its memory comes from the context's allocator under `lock` (NULL: only one thread). */
typedef struct lb_decoder {
    lb_ctx *ctx;
    void *lock;                  /* pthread_mutex_t around the allocator */
    void *jpeg;                  /* tjhandle, made when first needed */
    uint8_t *pixels;             /* the last decoded image */
    size_t capacity;
    uint8_t *scratch;            /* for resizing */
    size_t scratch_capacity;
    char error[256];             /* why the last call failed: a phrase to put behind "FILE: " */
} lb_decoder;

typedef struct lb_image_info {
    int h, w, c;                 /* c: 1 if the file holds grey only, else 3 */
} lb_image_info;

void lb_decoder_init(lb_decoder *decoder, lb_ctx *ctx, void *lock);
void lb_decoder_free(lb_decoder *decoder);

/* Grows *buffer (contents lost) to `size` bytes. LB_ERR_MEMORY on failure. */
lb_status lb_decoder_grow(lb_decoder *decoder, uint8_t **buffer, size_t *capacity, size_t size);

/* The size an image file says it has. */
lb_status lb_decoder_info(lb_decoder *decoder, const uint8_t *bytes, size_t size, lb_image_info *info);

/* Decodes to c = 1 or 3 channels; *pixels (h, w, c) is the decoder's, valid until its next call. Orientation tags, colour profiles
 * and alpha are ignored. */
lb_status lb_decoder_decode(lb_decoder *decoder, const uint8_t *bytes, size_t size, int c, lb_image_info *info,
                            const uint8_t **pixels);

/* Decodes to h x w x c: as it is if the size fits, else shorter side resized and centre cropped. */
lb_status lb_decoder_fit(lb_decoder *decoder, const uint8_t *bytes, size_t size, int h, int w, int c, uint8_t *dst);

bool lb_image_extension(const char *name); /* .jpg, .jpeg or .png in any case */

/* ---- Resizing -------------------------------------------------------------------------------------------------- */

/* A part of an image, in pixels, edges included: the whole image is {0, 0, h, w}. */
typedef struct lb_box {
    double y, x, h, w;
} lb_box;

/* Bytes of scratch lb_resize needs for any box of an ih x iw image. 0 when that overflows. */
size_t lb_resize_scratch(int ih, int iw, int c, int oh, int ow);

/* Resamples the box of src (ih, iw, c) to dst (oh, ow, c) with a triangle filter: bilinear when enlarging, widened to the area of
 * an output pixel when shrinking (as Pillow's BILINEAR), in 14-bit fixed point. A box of oh x ow whole pixels is copied exactly. */
void lb_resize(const uint8_t *src, int ih, int iw, int c, const lb_box *box, uint8_t *dst, int oh, int ow, void *scratch);

/* The box that "shorter side to `resize`, then centre crop oh x ow" reads; resize 0: the smallest that covers oh x ow. */
lb_box lb_centre_box(int ih, int iw, int oh, int ow, int resize);

/* ---- Augmentation ---------------------------------------------------------------------------------------------- */

/* What happens to one training image, drawn from (seed, epoch, image) alone. */
typedef struct lb_augment {
    int dy, dx;                  /* offset of the crop in the padded image: 0 .. 2 pad */
    bool flip;
    lb_box box;                  /* random resized crop */
} lb_augment;

void lb_augment_draw(const lb_augment_config *config, uint64_t seed, int64_t epoch, int64_t image, int ih, int iw, lb_augment *out);

/* dst (h, w, c) = src (h, w, c) padded by `pad` pixels of colour `fill` (c) on every side, cropped at (dy, dx), then flipped.
 * dst != src. */
void lb_pad_crop_flip(const uint8_t *src, int h, int w, int c, int pad, const uint8_t *fill, int dy, int dx, bool flip,
                      uint8_t *dst);

#endif

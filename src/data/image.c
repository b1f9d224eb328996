/* Decoding of JPEG (TurboJPEG) and PNG (spng). */
#include <pthread.h>
#include <stdio.h>
#include <strings.h>

#include <spng.h>
#include <turbojpeg.h>

#include "data/image.h"

#define MAX_SIDE 65535

void lb_decoder_init(lb_decoder *decoder, lb_ctx *ctx, void *lock) { *decoder = (lb_decoder){.ctx = ctx, .lock = lock}; }

void lb_decoder_free(lb_decoder *decoder) {
    if (decoder->jpeg)
        tjDestroy(decoder->jpeg);
    lb_free(decoder->ctx, decoder->pixels);
    lb_free(decoder->ctx, decoder->scratch);
    lb_decoder_init(decoder, decoder->ctx, decoder->lock);
}

static lb_status fail(lb_decoder *decoder, lb_status status, const char *fmt, ...) LB_PRINTF(3, 4);
static lb_status fail(lb_decoder *decoder, lb_status status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(decoder->error, sizeof decoder->error, fmt, args);
    va_end(args);
    return status;
}

lb_status lb_decoder_grow(lb_decoder *decoder, uint8_t **buffer, size_t *capacity, size_t size) {
    if (*capacity >= size && *buffer)
        return LB_OK;
    if (decoder->lock)
        pthread_mutex_lock(decoder->lock);
    lb_free(decoder->ctx, *buffer);
    *capacity = 0;
    *buffer = lb_alloc(decoder->ctx, size, 1);
    if (decoder->lock)
        pthread_mutex_unlock(decoder->lock);
    if (!*buffer)
        return fail(decoder, LB_ERR_MEMORY, "out of memory for an image of %zu bytes", size);
    *capacity = size;
    return LB_OK;
}

bool lb_image_extension(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (!strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg") || !strcasecmp(dot, ".png"));
}

static bool is_jpeg(const uint8_t *bytes, size_t size) {
    return size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff;
}
static bool is_png(const uint8_t *bytes, size_t size) { return size >= 8 && !memcmp(bytes, "\x89PNG\r\n\x1a\n", 8); }

static lb_status check_size(lb_decoder *decoder, int64_t h, int64_t w) {
    if (h < 1 || w < 1 || h > MAX_SIDE || w > MAX_SIDE || (uint64_t)h * (uint64_t)w * 3 > LB_IMAGE_LIMIT)
        return fail(decoder, LB_ERR_FORMAT, "an image of %lld x %lld pixels is beyond the limit of %zu MB", (long long)w,
                    (long long)h, LB_IMAGE_LIMIT >> 20);
    return LB_OK;
}

/* ---- JPEG ------------------------------------------------------------------------------------------------------ */

static lb_status jpeg_info(lb_decoder *decoder, const uint8_t *bytes, size_t size, lb_image_info *info) {
    if (!decoder->jpeg && !(decoder->jpeg = tjInitDecompress()))
        return fail(decoder, LB_ERR_MEMORY, "out of memory for the JPEG decoder");
    int w = 0, h = 0, subsampling, space = -1; /* left alone, though it says success, if the file ends before its frame header */
    int failed = tjDecompressHeader3(decoder->jpeg, bytes, (unsigned long)size, &w, &h, &subsampling, &space);
    if (failed && (tjGetErrorCode(decoder->jpeg) != TJERR_WARNING || w < 1)) /* an error leaves w alone, even after a warning */
        return fail(decoder, LB_ERR_FORMAT, "a damaged JPEG image (%s); remove or replace it", tjGetErrorStr2(decoder->jpeg));
    if (w < 1 || h < 1)
        return fail(decoder, LB_ERR_FORMAT, "a damaged JPEG image (it ends before the picture); remove or replace it");
    if (space == TJCS_CMYK || space == TJCS_YCCK)
        return fail(decoder, LB_ERR_UNSUPPORTED, "a CMYK image; convert it to RGB");
    *info = (lb_image_info){h, w, space == TJCS_GRAY ? 1 : 3};
    return check_size(decoder, h, w);
}

/* Does the last scan come to an end? Its data holds no markers but restarts. */
static bool has_end(const uint8_t *bytes, size_t size) {
    for (size_t i = size; i-- > 1;)
        if (bytes[i - 1] == 0xff && (bytes[i] == 0xd9 || bytes[i] == 0xda))
            return bytes[i] == 0xd9;
    return false;
}

static int decompress(lb_decoder *decoder, const uint8_t *bytes, size_t size, int c, const lb_image_info *info) {
    return tjDecompress2(decoder->jpeg, bytes, (unsigned long)size, decoder->pixels, info->w, info->w * c, info->h,
                         c == 1 ? TJPF_GRAY : TJPF_RGB, TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS);
}

/* A warning means that the decoder carried on. Harmless ones are common in the wild; a missing end is a damaged file. Only the
 * first one is told, and an error after it has its code, too, but leaves the last pixel alone. */
static bool is_harmless(lb_decoder *decoder, const uint8_t *bytes, size_t size, int c, const lb_image_info *info) {
    if (tjGetErrorCode(decoder->jpeg) != TJERR_WARNING || strstr(tjGetErrorStr2(decoder->jpeg), "remature"))
        return false;
    uint8_t *last = decoder->pixels + (size_t)info->h * (size_t)info->w * (size_t)c - 1;
    const uint8_t was = *last;
    *last = (uint8_t)~was;
    decompress(decoder, bytes, size, c, info);
    return *last == was;
}

static lb_status jpeg_decode(lb_decoder *decoder, const uint8_t *bytes, size_t size, int c, lb_image_info *info) {
    LB_TRY(jpeg_info(decoder, bytes, size, info));
    LB_TRY(lb_decoder_grow(decoder, &decoder->pixels, &decoder->capacity, (size_t)info->h * (size_t)info->w * (size_t)c));
    if (!decompress(decoder, bytes, size, c, info))
        return LB_OK;
    if (!is_harmless(decoder, bytes, size, c, info))
        return fail(decoder, LB_ERR_FORMAT, "a damaged JPEG image (%s); remove or replace it", tjGetErrorStr2(decoder->jpeg));
    if (!has_end(bytes, size))
        return fail(decoder, LB_ERR_FORMAT, "a damaged JPEG image (its end is missing); remove or replace it");
    return LB_OK;
}

/* ---- PNG ------------------------------------------------------------------------------------------------------- */

static lb_status png_open(lb_decoder *decoder, const uint8_t *bytes, size_t size, lb_image_info *info, spng_ctx **png) {
    *png = spng_ctx_new(0);
    if (!*png)
        return fail(decoder, LB_ERR_MEMORY, "out of memory for the PNG decoder");
    struct spng_ihdr header;
    spng_set_image_limits(*png, MAX_SIDE, MAX_SIDE);
    spng_set_chunk_limits(*png, LB_MEMBER_LIMIT, LB_MEMBER_LIMIT);
    int error = spng_set_png_buffer(*png, bytes, size);
    if (!error)
        error = spng_get_ihdr(*png, &header);
    if (error)
        return fail(decoder, LB_ERR_FORMAT, "a damaged PNG image (%s); remove or replace it", spng_strerror(error));
    bool grey = header.color_type == SPNG_COLOR_TYPE_GRAYSCALE || header.color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA;
    *info = (lb_image_info){(int)header.height, (int)header.width, grey ? 1 : 3};
    return check_size(decoder, header.height, header.width);
}

static lb_status png_pixels(lb_decoder *decoder, spng_ctx *png, int c, const lb_image_info *info) {
    size_t pixels = (size_t)info->h * (size_t)info->w, decoded;
    LB_TRY(lb_decoder_grow(decoder, &decoder->pixels, &decoder->capacity, pixels * 3));
    int error = spng_decoded_image_size(png, SPNG_FMT_RGB8, &decoded);
    if (!error && decoded != pixels * 3)
        return fail(decoder, LB_ERR_FORMAT, "a PNG image whose size is not what its header says; remove or replace it");
    if (!error)
        error = spng_decode_image(png, decoder->pixels, decoded, SPNG_FMT_RGB8, 0);
    if (error)
        return error == SPNG_EMEM
                   ? fail(decoder, LB_ERR_MEMORY, "out of memory for the PNG decoder")
                   : fail(decoder, LB_ERR_FORMAT, "a damaged PNG image (%s); remove or replace it", spng_strerror(error));
    if (c == 1)
        for (size_t i = 0; i < pixels; i++) { /* grey: r = g = b; colour: luma of ITU-R BT.601, as libjpeg's */
            const uint8_t *p = decoder->pixels + 3 * i;
            decoder->pixels[i] = (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
        }
    return LB_OK;
}

/* ---- Either ---------------------------------------------------------------------------------------------------- */

static lb_status not_an_image(lb_decoder *decoder, size_t size) {
    return fail(decoder, LB_ERR_FORMAT,
                size ? "not an image (neither JPEG nor PNG); convert or remove it" : "an empty file; remove or replace it");
}

lb_status lb_decoder_info(lb_decoder *decoder, const uint8_t *bytes, size_t size, lb_image_info *info) {
    if (is_jpeg(bytes, size))
        return jpeg_info(decoder, bytes, size, info);
    if (!is_png(bytes, size))
        return not_an_image(decoder, size);
    spng_ctx *png = NULL;
    lb_status status = png_open(decoder, bytes, size, info, &png);
    spng_ctx_free(png);
    return status;
}

lb_status lb_decoder_decode(lb_decoder *decoder, const uint8_t *bytes, size_t size, int c, lb_image_info *info,
                            const uint8_t **pixels) {
    lb_status status;
    if (is_jpeg(bytes, size)) {
        status = jpeg_decode(decoder, bytes, size, c, info);
    } else if (is_png(bytes, size)) {
        spng_ctx *png = NULL;
        status = png_open(decoder, bytes, size, info, &png);
        if (status == LB_OK)
            status = png_pixels(decoder, png, c, info);
        spng_ctx_free(png);
    } else {
        status = not_an_image(decoder, size);
    }
    *pixels = decoder->pixels;
    return status;
}

/* src (ih, iw, c) resized and cropped at its centre to h x w, as lb_test_batch does it. */
static lb_status fit(lb_decoder *decoder, const uint8_t *src, int ih, int iw, int resize, int h, int w, int c, uint8_t *dst) {
    if (ih == h && iw == w && resize == 0) {
        memcpy(dst, src, (size_t)h * (size_t)w * (size_t)c);
        return LB_OK;
    }
    size_t scratch = lb_resize_scratch(ih, iw, c, h, w);
    if (!scratch)
        return fail(decoder, LB_ERR_ARGUMENT, "cannot be resized to %d x %d", w, h);
    LB_TRY(lb_decoder_grow(decoder, &decoder->scratch, &decoder->scratch_capacity, scratch));
    lb_box box = lb_centre_box(ih, iw, h, w, resize);
    lb_resize(src, ih, iw, c, &box, dst, h, w, decoder->scratch);
    return LB_OK;
}

lb_status lb_decoder_fit(lb_decoder *decoder, const uint8_t *bytes, size_t size, int h, int w, int c, uint8_t *dst) {
    lb_image_info info;
    const uint8_t *pixels;
    LB_TRY(lb_decoder_decode(decoder, bytes, size, c, &info, &pixels));
    return fit(decoder, pixels, info.h, info.w, 0, h, w, c, dst);
}

/* As a data set of `config` would decode the file and lb_test_batch then fit it. stored: (config->size, config->size, c), NULL if
 * 0. */
static lb_status prepare(lb_decoder *decoder, const unsigned char *bytes, size_t size, const lb_data_config *config,
                         uint8_t *stored, int h, int w, int c, uint8_t *pixels) {
    const int resize = config->augment.resize;
    lb_image_info info;
    const uint8_t *decoded;
    if (stored) {
        LB_TRY(lb_decoder_fit(decoder, bytes, size, config->size, config->size, c, stored));
        return fit(decoder, stored, config->size, config->size, resize, h, w, c, pixels);
    }
    LB_TRY(lb_decoder_decode(decoder, bytes, size, c, &info, &decoded));
    return fit(decoder, decoded, info.h, info.w, resize, h, w, c, pixels);
}

lb_status lb_image_load(lb_ctx *ctx, const char *path, const lb_data_config *config, int h, int w, int c, uint8_t *pixels) {
    if (c != 1 && c != 3)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "%s: images have 1 or 3 channels, not %d", path, c);
    unsigned char *bytes;
    size_t size;
    uint8_t *stored = NULL;
    LB_TRY(lb_read_file(ctx, path, LB_MEMBER_LIMIT, &bytes, &size));
    lb_decoder decoder;
    lb_decoder_init(&decoder, ctx, NULL);
    lb_status status = LB_OK;
    if (config->size && !(stored = lb_alloc(ctx, (size_t)config->size * (size_t)config->size, (size_t)c)))
        status = LB_ERR_MEMORY;
    else if ((status = prepare(&decoder, bytes, size, config, stored, h, w, c, pixels)) != LB_OK)
        lb_fail(ctx, status, "%s: %s", path, decoder.error);
    lb_decoder_free(&decoder);
    lb_free(ctx, stored);
    lb_free(ctx, bytes);
    return status;
}

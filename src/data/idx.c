/* IDX files of the MNIST family (yann.lecun.com/exdb/mnist), plain or gzipped: big-endian magic 00 00 08 <dimensions>, the
 * dimensions, then unsigned bytes. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include <zlib.h>

#include "data/formats.h"

static const char *const images_names[LB_SPLITS][2] = {{"train-images-idx3-ubyte", "train-images.idx3-ubyte"},
                                                       {"t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"}};
static const char *const labels_names[LB_SPLITS][2] = {{"train-labels-idx1-ubyte", "train-labels.idx1-ubyte"},
                                                       {"t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"}};

/* Plain or with .gz, in either spelling. */
static bool find_file(char dst[LB_PATH], const char *path, const char *const names[2]) {
    for (int i = 0; i < 4; i++) {
        int n = snprintf(dst, LB_PATH, "%s/%s%s", path, names[i / 2], i % 2 ? ".gz" : "");
        if (n > 0 && n < LB_PATH && lb_exists(dst) && !lb_is_dir(dst))
            return true;
    }
    return false;
}

static bool recognise(const char *path) {
    char file[LB_PATH];
    return find_file(file, path, images_names[LB_TRAIN]) || find_file(file, path, images_names[LB_TEST]);
}

typedef struct reader {
    lb_ctx *ctx;
    char path[LB_PATH];
    gzFile file;
    uint64_t on_disk; /* bytes of the file */
    uint32_t dims[3];
} reader;

static lb_status read_bytes(reader *r, uint8_t *dst, size_t size) {
    size_t done = 0;
    while (done < size) {
        if (lb_interrupted(r->ctx))
            return lb_fail(r->ctx, LB_ERR_INTERRUPTED, "%s: interrupted while loading", r->path);
        int n = gzread(r->file, dst + done, (unsigned)LB_MIN(size - done, (size_t)16 << 20));
        int error = Z_OK;
        const char *text = gzerror(r->file, &error);
        if (n < 0 || (n == 0 && error != Z_OK && error != Z_STREAM_END && error != Z_BUF_ERROR))
            return lb_fail(r->ctx,
                           error == Z_MEM_ERROR ? LB_ERR_MEMORY
                           : error == Z_ERRNO   ? LB_ERR_IO
                                                : LB_ERR_FORMAT,
                           "%s: cannot be read (%s); get the file again", r->path, error == Z_ERRNO ? strerror(errno) : text);
        if (n == 0)
            return lb_fail(r->ctx, LB_ERR_FORMAT, "%s: truncated: ends %zu bytes too early; get the file again", r->path,
                           size - done);
        done += (size_t)n;
    }
    return LB_OK;
}

static lb_status reader_open(reader *r, const char *path, lb_split split, bool labels) {
    const char *const *names = (labels ? labels_names : images_names)[split];
    if (!find_file(r->path, path, names))
        return lb_fail(r->ctx, LB_ERR_IO, "%s: holds no %s (or .gz); put the four files of the data set there", path, names[0]);
    struct stat st;
    errno = 0;
    r->file = stat(r->path, &st) ? NULL : gzopen(r->path, "rb");
    if (!r->file)
        return lb_fail(r->ctx, errno ? LB_ERR_IO : LB_ERR_MEMORY, "%s: cannot be opened: %s", r->path,
                       errno ? strerror(errno) : "out of memory");
    gzbuffer(r->file, 1 << 17);
    r->on_disk = (uint64_t)st.st_size;

    uint8_t head[16];
    int ndims = labels ? 1 : 3;
    LB_TRY(read_bytes(r, head, (size_t)(4 + 4 * ndims)));
    uint32_t magic = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
    if (magic != (0x800u | (unsigned)ndims))
        return lb_fail(r->ctx, LB_ERR_FORMAT,
                       "%s: magic number 0x%08x is not that of an IDX file of %s (0x%08x); get the file again", r->path, magic,
                       labels ? "labels" : "images", 0x800u | (unsigned)ndims);
    for (int i = 0; i < ndims; i++) {
        const uint8_t *p = head + 4 + 4 * i;
        r->dims[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    }
    return LB_OK;
}

/* A header's claim is believed only as far as the file can hold it (deflate expands at most 1032 times). */
static lb_status check_claim(const reader *r, uint64_t bytes) {
    if (bytes > (gzdirect(r->file) ? r->on_disk : r->on_disk * 1040))
        return lb_fail(r->ctx, LB_ERR_FORMAT,
                       "%s: truncated: the header promises %llu bytes, the file has %llu; get the file again", r->path,
                       (unsigned long long)bytes, (unsigned long long)r->on_disk);
    return LB_OK;
}

/* Nothing may follow; this also makes zlib check the checksum at the end. */
static lb_status check_end(reader *r) {
    uint8_t byte;
    int n = gzread(r->file, &byte, 1), error = Z_OK;
    const char *text = gzerror(r->file, &error);
    if (n > 0)
        return lb_fail(r->ctx, LB_ERR_FORMAT, "%s: longer than its header says; get the file again", r->path);
    if (n < 0 || (error != Z_OK && error != Z_STREAM_END))
        return lb_fail(r->ctx, LB_ERR_FORMAT, "%s: damaged (%s); get the file again", r->path, text);
    return LB_OK;
}

static lb_status load_split(lb_data *data, lb_split split, reader *images, reader *labels, const char *path) {
    LB_TRY(reader_open(images, path, split, false));
    LB_TRY(reader_open(labels, path, split, true));
    uint32_t count = images->dims[0], h = images->dims[1], w = images->dims[2];
    if (!count || !h || !w || h > 65535 || w > 65535)
        return lb_fail(data->ctx, LB_ERR_FORMAT, "%s: %u images of %u x %u pixels make no sense", images->path, count, w, h);
    if (labels->dims[0] != count)
        return lb_fail(data->ctx, LB_ERR_FORMAT, "%s: %u labels for the %u images of %s; the files do not belong together",
                       labels->path, labels->dims[0], count, images->path);
    LB_TRY(check_claim(labels, count));
    if ((uint64_t)count * h > UINT64_MAX / w)
        return lb_fail(data->ctx, LB_ERR_FORMAT, "%s: %u images of %u x %u pixels are too many", images->path, count, w, h);
    LB_TRY(check_claim(images, (uint64_t)count * h * w));
    if (split == LB_TEST && ((int)h != data->split[LB_TRAIN].h || (int)w != data->split[LB_TRAIN].w))
        return lb_fail(data->ctx, LB_ERR_FORMAT, "%s: images of %u x %u pixels, but the training images have %d x %d", images->path,
                       w, h, data->split[LB_TRAIN].w, data->split[LB_TRAIN].h);

    int64_t wanted = lb_limited(count, split == LB_TRAIN ? data->config.train_limit : data->config.test_limit);
    LB_TRY(lb_images_alloc(data, split, images->path, wanted, (int)h, (int)w, 1));
    lb_images *dst = &data->split[split];
    LB_TRY(read_bytes(images, dst->pixels, (size_t)wanted * h * w));
    int32_t most = 1;
    for (int64_t done = 0; done < (int64_t)count;) {
        uint8_t block[4096];
        int64_t n = LB_MIN((int64_t)count - done, (int64_t)sizeof block);
        LB_TRY(read_bytes(labels, block, (size_t)n));
        for (int64_t i = 0; i < n; i++) {
            most = LB_MAX(most, (int32_t)block[i]);
            if (done + i < wanted)
                dst->labels[done + i] = block[i];
        }
        done += n;
    }
    LB_TRY(check_end(labels));
    if (wanted == (int64_t)count)
        LB_TRY(check_end(images));

    /* data->classes is what the name promises; unknown data has as many as all its training labels say. */
    if (!data->classes && split == LB_TRAIN)
        data->classes = most + 1;
    for (int64_t i = 0; i < wanted; i++)
        if (dst->labels[i] >= data->classes)
            return lb_fail(data->ctx, LB_ERR_FORMAT, "%s: label %d of image %lld is out of range (%d classes)", labels->path,
                           dst->labels[i], (long long)i, data->classes);
    return LB_OK;
}

static lb_status load(lb_data *data, const char *path) {
    for (int split = 0; split < LB_SPLITS; split++) {
        reader images = {.ctx = data->ctx}, labels = {.ctx = data->ctx};
        lb_status status = load_split(data, (lb_split)split, &images, &labels, path);
        if (images.file)
            gzclose(images.file);
        if (labels.file)
            gzclose(labels.file);
        LB_TRY(status);
    }
    return data->class_names ? LB_OK : lb_number_classes(data, data->classes);
}

const lb_data_format lb_format_idx = {recognise, load};

/* Small data sets made at run time in a temporary folder. */
#ifndef LB_TEST_FIXTURES_H
#define LB_TEST_FIXTURES_H

#define _XOPEN_SOURCE 700 /* nftw */

#include "support.h"

#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>
#include <spng.h>
#include <turbojpeg.h>
#include <zlib.h>

#include "data/data.h"
#include "data/image.h"

/* ---- Folders and files ----------------------------------------------------------------------------------------- */

typedef struct scratch {
    lb_ctx *ctx;
    char dir[256];
    int warnings, notes;
    char warning[1024];
} scratch;

static inline void on_report(void *user, const lb_event *event) {
    scratch *s = user;
    s->notes += event->kind == LB_EVENT_NOTE;
    if (event->kind == LB_EVENT_WARNING) {
        s->warnings++;
        snprintf(s->warning, sizeof s->warning, "%s", event->text);
    }
}

/* A fresh folder, which is also the working folder, with the cache inside. It lies in one of its own, so that ../shared/data is
 * empty. */
static inline int scratch_setup(void **state) {
    scratch *s = calloc(1, sizeof *s);
    char cache[300];
    snprintf(s->dir, sizeof s->dir, "/tmp/lowbit-data-XXXXXX");
    if (!mkdtemp(s->dir))
        return 1;
    strcat(s->dir, "/w");
    if (mkdir(s->dir, 0777) || chdir(s->dir))
        return 1;
    snprintf(cache, sizeof cache, "%s/cache", s->dir);
    setenv("XDG_CACHE_HOME", cache, 1);
    unsetenv("LOWBIT_DATA");
    lb_ctx_options options = {.report = on_report, .user = s, .threads = 3};
    *state = s;
    return lb_ctx_create(&options, &s->ctx) != LB_OK;
}

static inline int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

static inline int scratch_teardown(void **state) {
    scratch *s = *state;
    lb_ctx_destroy(s->ctx);
    if (chdir("/"))
        return 1;
    *strrchr(s->dir, '/') = 0;
    remove_tree(s->dir);
    free(s);
    return 0;
}

static inline void make_parents(const char *path) {
    char part[512];
    snprintf(part, sizeof part, "%s", path);
    for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        mkdir(part, 0777);
        *p = '/';
    }
}

static inline void put_file(const char *path, const void *data, size_t size) {
    make_parents(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void put_gz(const char *path, const void *data, size_t size) {
    make_parents(path);
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, data, (unsigned)size), (int)size);
    assert_int_equal(gzclose(file), Z_OK);
}

static inline size_t get_file(const char *path, uint8_t *dst, size_t most) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(dst, 1, most, file);
    fclose(file);
    return n;
}

/* ---- Images ---------------------------------------------------------------------------------------------------- */

typedef struct blob {
    uint8_t *data;
    size_t size;
} blob;

/* The test pattern: distinct in every pixel, channel and image, and smooth enough for JPEG. */
static inline uint8_t pattern(int image, int y, int x, int k) { return (uint8_t)(40 + 7 * image + 3 * y + 2 * x + 20 * k); }

static inline void pattern_image(int image, int h, int w, int c, uint8_t *dst) {
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int k = 0; k < c; k++)
                dst[(y * w + x) * c + k] = pattern(image, y, x, k);
}

static inline blob encode_png(const uint8_t *pixels, int h, int w, int c) {
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr header = {.width = (uint32_t)w, .height = (uint32_t)h, .bit_depth = 8};
    header.color_type = c == 1 ? SPNG_COLOR_TYPE_GRAYSCALE : SPNG_COLOR_TYPE_TRUECOLOR;
    spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    spng_set_ihdr(png, &header);
    assert_int_equal(spng_encode_image(png, pixels, (size_t)h * (size_t)w * (size_t)c, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE), 0);
    int error;
    blob out;
    out.data = spng_get_png_buffer(png, &out.size, &error);
    assert_non_null(out.data);
    spng_ctx_free(png);
    return out;
}

static inline blob encode_jpeg(const uint8_t *pixels, int h, int w, int c) {
    tjhandle jpeg = tjInitCompress();
    unsigned char *data = NULL;
    unsigned long size = 0;
    assert_int_equal(tjCompress2(jpeg, pixels, w, w * c, h, c == 1 ? TJPF_GRAY : TJPF_RGB, &data, &size,
                                 c == 1 ? TJSAMP_GRAY : TJSAMP_444, 95, TJFLAG_ACCURATEDCT),
                     0);
    blob out = {malloc(size), size};
    memcpy(out.data, data, size);
    tjFree(data);
    tjDestroy(jpeg);
    return out;
}

static inline blob pattern_file(int image, int h, int w, int c, bool png) {
    uint8_t *pixels = malloc((size_t)h * (size_t)w * (size_t)c);
    pattern_image(image, h, w, c, pixels);
    blob out = png ? encode_png(pixels, h, w, c) : encode_jpeg(pixels, h, w, c);
    free(pixels);
    return out;
}

static inline void put_image(const char *path, int image, int h, int w, int c) {
    blob b = pattern_file(image, h, w, c, strstr(path, ".png") != NULL);
    put_file(path, b.data, b.size);
    free(b.data);
}

/* ---- Archives -------------------------------------------------------------------------------------------------- */

typedef struct packer {
    struct archive *archive;
} packer;

/* By the ending: zip, tar, tar.gz, tar.xz. */
static inline packer pack_open(const char *path) {
    packer p = {archive_write_new()};
    if (strstr(path, ".zip"))
        archive_write_set_format_zip(p.archive);
    else
        archive_write_set_format_pax_restricted(p.archive);
    if (strstr(path, "gz"))
        archive_write_add_filter_gzip(p.archive);
    if (strstr(path, "xz"))
        archive_write_add_filter_xz(p.archive);
    assert_int_equal(archive_write_open_filename(p.archive, path), ARCHIVE_OK);
    return p;
}

static inline void pack_entry(packer p, const char *name, unsigned type, const void *data, size_t size) {
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, type == AE_IFREG ? (int64_t)size : 0);
    if (type == AE_IFLNK)
        archive_entry_set_symlink(entry, data);
    assert_int_equal(archive_write_header(p.archive, entry), ARCHIVE_OK);
    if (type == AE_IFREG)
        assert_int_equal(archive_write_data(p.archive, data, size), (la_ssize_t)size);
    archive_entry_free(entry);
}

static inline void pack_image(packer p, const char *name, int image, int h, int w, int c) {
    blob b = pattern_file(image, h, w, c, strstr(name, ".png") != NULL);
    pack_entry(p, name, AE_IFREG, b.data, b.size);
    free(b.data);
}

static inline void pack_close(packer p) {
    assert_int_equal(archive_write_close(p.archive), ARCHIVE_OK);
    archive_write_free(p.archive);
}

/* An image for training and the same for testing. */
static inline void put_class(const char *root, const char *name, int image) {
    for (int split = 0; split < 2; split++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s/%s/1.png", root, split ? "test" : "train", name);
        put_image(path, image, 16, 16, 3);
    }
}

/* ---- Checks ---------------------------------------------------------------------------------------------------- */

static inline lb_data_config config_of(const char *name, const char *path) {
    lb_data_config config = {.workers = 1};
    snprintf(config.name, sizeof config.name, "%s", name);
    snprintf(config.path, sizeof config.path, "%s", path);
    return config;
}

/* Loading must fail with one line that says `a` and `b`. */
static inline void assert_load_fails(lb_ctx *ctx, const lb_data_config *config, const char *a, const char *b) {
    lb_data *data;
    lb_status status = lb_data_load(ctx, config, &data);
    const char *text = lb_error(ctx);
    if (status == LB_OK)
        fail_msg("loaded, but expected an error with \"%s\" and \"%s\"", a, b);
    assert_null(data);
    if (!strstr(text, a) || !strstr(text, b) || strchr(text, '\n'))
        fail_msg("\"%s\" does not say \"%s\" and \"%s\" in one line", text, a, b);
}

#endif

/* A decoded copy of a slow source: $XDG_CACHE_HOME/lowbit/NAME-HASH.images, where HASH stands for the source's path and for how it
 * was read (size, limits), so that a changed source replaces its own copy. Layout, in the machine's byte order: header, class names
 * (each with its 0), and for each split labels and pixels; the header has CRC-32s of itself and of the rest. Whatever does not fit
 * exactly is ignored. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <zlib.h>

#include "data/formats.h"

#define CACHE_MAGIC "LBIMAGES"
#define CACHE_VERSION 2u

typedef struct header {
    char magic[8];
    uint32_t version, order; /* order: 0x01020304, as this machine writes it */
    uint64_t signature; /* state of the source */
    uint32_t classes, names; /* names: bytes */
    struct {
        uint64_t count;
        uint32_t h, w, c, zero;
    } split[LB_SPLITS];
    uint32_t body_crc, header_crc; /* header_crc: of everything before it */
} header;

/* zlib's CRC-32: fast without special instructions. */
static uint32_t checksum(uint32_t crc, const void *data, size_t size) { return (uint32_t)crc32_z(crc, data, size); }

/* False if there is no place for a cache. */
static bool cache_path(const lb_data *data, const char *source, char dir[LB_PATH], char path[LB_PATH]) {
    const char *home = getenv("XDG_CACHE_HOME"), *below = "";
    if (!home || home[0] != '/') {
        home = getenv("HOME");
        below = "/.cache";
    }
    char *absolute = home && home[0] == '/' ? realpath(source, NULL) : NULL;
    if (!absolute)
        return false;
    const char *base = strrchr(absolute, '/') + 1;
    int32_t how[4] = {data->config.size, data->config.train_limit, data->config.test_limit, (int32_t)CACHE_VERSION};
    uint64_t hash = lb_hash(lb_hash(LB_HASH, absolute, strlen(absolute)), how, sizeof how);
    int n = snprintf(dir, LB_PATH, "%s%s/lowbit", home, below);
    int m = snprintf(path, LB_PATH, "%.800s/%.100s-%016llx.images", dir, base, (unsigned long long)hash);
    free(absolute);
    return n > 0 && n < 800 && m > 0 && m < LB_PATH;
}

static uint64_t split_bytes(const header *h, int i) { return (uint64_t)h->split[i].h * h->split[i].w * h->split[i].c; }

/* Everything that is used as a size is checked here, together against the length of the file. Image folders have images of one
 * shape: of `side` x `side` pixels unless that is 0. */
static bool header_sound(const header *h, int side, uint64_t signature, uint64_t file_size) {
    if (memcmp(h->magic, CACHE_MAGIC, 8) || h->version != CACHE_VERSION || h->order != 0x01020304 || h->signature != signature ||
        h->header_crc != checksum(0, h, offsetof(header, header_crc)) || h->classes < 1 || h->classes > LB_MAX_CLASSES ||
        h->names > 1u << 30)
        return false;
    uint64_t size = sizeof *h + h->names;
    for (int i = 0; i < LB_SPLITS; i++) {
        uint64_t bytes;
        if (h->split[i].h - 1 > 65534 || h->split[i].w - 1 > 65534 || (h->split[i].c != 1 && h->split[i].c != 3))
            return false;
        if (h->split[i].h != h->split[0].h || h->split[i].w != h->split[0].w || h->split[i].c != h->split[0].c)
            return false;
        if (side && (h->split[i].h != (uint32_t)side || h->split[i].w != (uint32_t)side))
            return false;
        bytes = split_bytes(h, i) + sizeof(int32_t);
        if (h->split[i].count > LB_DATA_LIMIT / bytes)
            return false;
        size += h->split[i].count * bytes;
    }
    return size == file_size;
}

/* The checksum of the rest of the file, without memory for it: a damaged copy must cost nothing. */
static bool body_sound(FILE *file, const header *h) {
    uint8_t block[1 << 16];
    uint32_t crc = 0;
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        crc = checksum(crc, block, n);
    return !ferror(file) && crc == h->body_crc && !fseek(file, (long)sizeof *h, SEEK_SET);
}

static lb_status read_body(lb_data *data, FILE *file, const header *h, bool *hit) {
    char *names = lb_pool_alloc(&data->pool, (size_t)h->names + 1, 1);
    data->class_names = lb_pool_alloc(&data->pool, h->classes, sizeof *data->class_names);
    if (!names || !data->class_names)
        return LB_ERR_MEMORY;
    bool sound = fread(names, 1, h->names, file) == h->names;
    for (int i = 0; i < LB_SPLITS && sound; i++) {
        LB_TRY(lb_images_alloc(data, (lb_split)i, data->source, (int64_t)h->split[i].count, (int)h->split[i].h, (int)h->split[i].w,
                               (int)h->split[i].c));
        lb_images *images = &data->split[i];
        size_t count = (size_t)images->count, bytes = count * (size_t)split_bytes(h, i);
        sound =
            fread(images->labels, sizeof *images->labels, count, file) == count && fread(images->pixels, 1, bytes, file) == bytes;
        for (size_t k = 0; k < count && sound; k++)
            sound = images->labels[k] >= 0 && (uint32_t)images->labels[k] < h->classes;
    }
    const char *next = names, *end = names + h->names;
    for (uint32_t i = 0; i < h->classes && sound; i++) {
        sound = next < end;
        data->class_names[i] = next;
        next += sound ? strlen(next) + 1 : 0;
    }
    data->classes = (int)h->classes;
    *hit = sound && next == end;
    return LB_OK;
}

lb_status lb_cache_load(lb_data *data, const char *path, uint64_t signature, bool *hit) {
    char dir[LB_PATH], name[LB_PATH];
    header h;
    struct stat st;
    *hit = false;
    if (!cache_path(data, path, dir, name))
        return LB_OK;
    FILE *file = fopen(name, "rb");
    if (!file)
        return LB_OK;
    const int classes = data->classes; /* a folder's are known already */
    const char **class_names = data->class_names;
    lb_status status = LB_OK;
    if (!fstat(fileno(file), &st) && fread(&h, 1, sizeof h, file) == sizeof h &&
        header_sound(&h, data->config.size, signature, (uint64_t)st.st_size) && body_sound(file, &h))
        status = read_body(data, file, &h, hit);
    fclose(file);
    if (status == LB_OK && !*hit) {
        data->classes = classes;
        data->class_names = class_names;
        memset(data->split, 0, sizeof data->split);
    }
    return status;
}

void lb_cache_store(lb_data *data, const char *path, uint64_t signature) {
    char dir[LB_PATH], name[LB_PATH], error[sizeof data->ctx->error];
    if (!cache_path(data, path, dir, name))
        return;
    memcpy(error, data->ctx->error, sizeof error);
    header h = {.magic = CACHE_MAGIC,
                .version = CACHE_VERSION,
                .order = 0x01020304,
                .signature = signature,
                .classes = (uint32_t)data->classes};
    lb_status status = lb_make_dirs(data->ctx, dir);
    lb_remove_leftovers(dir, strrchr(name, '/') + 1);
    size_t bytes = 0;
    for (int i = 0; i < data->classes; i++)
        bytes += strlen(data->class_names[i]) + 1;
    char *names = status == LB_OK ? lb_alloc(data->ctx, bytes, 1) : NULL;
    if (names) {
        size_t at = 0;
        for (int i = 0; i < data->classes; i++) {
            size_t n = strlen(data->class_names[i]) + 1;
            memcpy(names + at, data->class_names[i], n);
            at += n;
        }
        h.names = (uint32_t)bytes;
        lb_span spans[2 + 2 * LB_SPLITS] = {{&h, sizeof h}, {names, bytes}};
        for (int i = 0; i < LB_SPLITS; i++) {
            const lb_images *images = &data->split[i];
            h.split[i].count = (uint64_t)images->count;
            h.split[i].h = (uint32_t)images->h;
            h.split[i].w = (uint32_t)images->w;
            h.split[i].c = (uint32_t)images->c;
            spans[2 + 2 * i] = (lb_span){images->labels, (size_t)images->count * sizeof *images->labels};
            spans[3 + 2 * i] = (lb_span){images->pixels, (size_t)(h.split[i].count * split_bytes(&h, i))};
        }
        for (size_t i = 1; i < LB_COUNT(spans); i++)
            h.body_crc = checksum(h.body_crc, spans[i].data, spans[i].size);
        h.header_crc = checksum(0, &h, offsetof(header, header_crc));
        status = lb_write_file(data->ctx, name, spans, (int)LB_COUNT(spans));
        lb_free(data->ctx, names);
    } else if (status == LB_OK) {
        status = LB_ERR_MEMORY;
    }
    if (status != LB_OK)
        lb_warn(data->ctx, "no decoded copy was kept, so the next start decodes again: %s", data->ctx->error);
    else
        lb_note(data->ctx, "kept a decoded copy in %s", name);
    memcpy(data->ctx->error, error, sizeof error); /* it was no failure */
}

/* The binary releases of CIFAR-10 and CIFAR-100 (cs.toronto.edu/~kriz/cifar.html): records of 1 (CIFAR-100: coarse, fine) label
 * bytes and 3072 pixel bytes, one plane after the other. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "data/formats.h"

#define SIDE 32
#define PLANE (SIDE * SIDE)

typedef struct variant {
    const char *folder, *train[5], *test, *names; /* names: text file with one class name a line */
    int ntrain, classes, label_bytes;
} variant;

static const variant cifar10 = {
    "cifar-10-batches-bin",
    {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
    "test_batch.bin",
    "batches.meta.txt",
    5,
    10,
    1};
static const variant cifar100 = {"cifar-100-binary", {"train.bin"}, "test.bin", "fine_label_names.txt", 1, 100, 2};

/* `path` or its folder of the usual name, whichever holds the first file. */
static bool find_folder(const variant *v, const char *path, char dst[LB_PATH]) {
    char file[LB_PATH];
    for (int i = 0; i < 2; i++) {
        int n = snprintf(dst, LB_PATH, "%s%s%s", path, i ? "/" : "", i ? v->folder : "");
        int m = snprintf(file, sizeof file, "%.900s/%s", dst, v->train[0]);
        if (n > 0 && n < 900 && m > 0 && lb_exists(file))
            return true;
    }
    return false;
}

static bool recognise10(const char *path) {
    char folder[LB_PATH];
    return find_folder(&cifar10, path, folder);
}

static bool recognise100(const char *path) {
    char folder[LB_PATH];
    return find_folder(&cifar100, path, folder);
}

/* How many records a file holds. */
static lb_status count_records(lb_ctx *ctx, const variant *v, const char *path, int64_t *count) {
    struct stat st;
    if (stat(path, &st))
        return lb_fail(ctx, LB_ERR_IO, "%s: %s; unpack the whole archive again", path, strerror(errno));
    int64_t record = v->label_bytes + 3 * PLANE;
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size % record)
        return lb_fail(ctx, LB_ERR_FORMAT,
                       "%s: truncated: %lld bytes are no whole number of %lld-byte images; unpack the archive again", path,
                       (long long)st.st_size, (long long)record);
    *count = st.st_size / record;
    return LB_OK;
}

static lb_status read_records(lb_data *data, const variant *v, const char *path, lb_images *dst, int64_t first, int64_t count) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return lb_fail(data->ctx, LB_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    lb_status status = LB_OK;
    for (int64_t i = 0; i < count && status == LB_OK; i++) {
        uint8_t record[2 + 3 * PLANE];
        size_t size = (size_t)v->label_bytes + 3 * PLANE;
        if (i % 1024 == 0 && lb_interrupted(data->ctx)) {
            status = lb_fail(data->ctx, LB_ERR_INTERRUPTED, "%s: interrupted while loading", path);
        } else if (fread(record, 1, size, file) != size) {
            status = lb_fail(data->ctx, LB_ERR_IO, "%s: cannot be read at image %lld: %s", path, (long long)i,
                             ferror(file) ? strerror(errno) : "file ends");
        } else if (record[v->label_bytes - 1] >= v->classes) {
            status = lb_fail(data->ctx, LB_ERR_FORMAT, "%s: label %d of image %lld is out of range (%d classes)", path,
                             record[v->label_bytes - 1], (long long)i, v->classes);
        } else {
            const uint8_t *planes = record + v->label_bytes;
            uint8_t *pixels = dst->pixels + (first + i) * 3 * PLANE;
            dst->labels[first + i] = record[v->label_bytes - 1];
            for (int p = 0; p < PLANE; p++)
                for (int k = 0; k < 3; k++)
                    pixels[3 * p + k] = planes[k * PLANE + p];
        }
    }
    fclose(file);
    return status;
}

/* The files' own class names; silently none if the text is not there or not as expected. */
static lb_status read_names(lb_data *data, const variant *v, const char *folder) {
    char path[LB_PATH], line[128];
    LB_TRY(lb_join(data->ctx, path, folder, v->names));
    LB_TRY(lb_number_classes(data, v->classes));
    FILE *file = fopen(path, "r");
    if (!file)
        return LB_OK;
    const char *names[100];
    int n = 0;
    while (n < v->classes && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!line[0])
            continue;
        names[n] = lb_pool_strdup(&data->pool, line);
        if (!names[n++]) {
            fclose(file);
            return LB_ERR_MEMORY;
        }
    }
    fclose(file);
    if (n == v->classes)
        memcpy(data->class_names, names, (size_t)n * sizeof *names);
    return LB_OK;
}

static lb_status load(lb_data *data, const variant *v, const char *path) {
    char folder[LB_PATH], file[LB_PATH];
    if (!find_folder(v, path, folder))
        return lb_fail(data->ctx, LB_ERR_IO, "%s: holds no %s", path, v->train[0]);
    for (int split = 0; split < LB_SPLITS; split++) {
        const char *const *names = split == LB_TRAIN ? v->train : &v->test;
        int nfiles = split == LB_TRAIN ? v->ntrain : 1;
        int64_t counts[5], total = 0;
        for (int i = 0; i < nfiles; i++) {
            LB_TRY(lb_join(data->ctx, file, folder, names[i]));
            LB_TRY(count_records(data->ctx, v, file, &counts[i]));
            total += counts[i];
        }
        total = lb_limited(total, split == LB_TRAIN ? data->config.train_limit : data->config.test_limit);
        LB_TRY(lb_images_alloc(data, (lb_split)split, folder, total, SIDE, SIDE, 3));
        int64_t first = 0;
        for (int i = 0; i < nfiles && first < total; i++) {
            LB_TRY(lb_join(data->ctx, file, folder, names[i]));
            int64_t n = LB_MIN(counts[i], total - first);
            LB_TRY(read_records(data, v, file, &data->split[split], first, n));
            first += n;
        }
    }
    bool named = data->class_names != NULL && v == &cifar10;
    data->classes = v->classes;
    return named ? LB_OK : read_names(data, v, folder);
}

static lb_status load10(lb_data *data, const char *path) { return load(data, &cifar10, path); }
static lb_status load100(lb_data *data, const char *path) { return load(data, &cifar100, path); }

const lb_data_format lb_format_cifar10 = {recognise10, load10};
const lb_data_format lb_format_cifar100 = {recognise100, load100};

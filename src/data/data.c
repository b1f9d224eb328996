/* Known data sets, where to look for them, and what is common to all formats once they are read. */
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

#include "data/formats.h"
#include "data/image.h"

/* ---- The tables ------------------------------------------------------------------------------------------------ */

/* In the order in which an unnamed path is recognised. */
static const lb_data_format *const formats[] = {&lb_format_idx, &lb_format_cifar10, &lb_format_cifar100, &lb_format_folder};

typedef struct known_set {
    const char *name, *help;
    const lb_data_format *formats[3];
    const char *entries[5]; /* what it is called inside a place; a final * matches the rest, which may not start with a digit */
    const char *system; /* absolute path where a package installs it */
    const char *get; /* for the message when it is not there */
    int classes, channels, size; /* size: pixels per side; all 0: any */
    float mean[3], std[3];
    const char *class_names[10];
} known_set;

static const known_set known_sets[] = {
    {.name = "fashion-mnist",
     .help = "60,000 + 10,000 grey images of clothes, 28 x 28, 10 classes (Debian package dataset-fashion-mnist)",
     .formats = {&lb_format_idx},
     .entries = {"fashion-mnist", "FashionMNIST/raw", "FashionMNIST"},
     .system = "/usr/share/datasets/fashion-mnist",
     .get = "apt install dataset-fashion-mnist, or put its four .gz files into data/fashion-mnist/",
     .classes = 10,
     .channels = 1,
     .size = 28,
     .mean = {.2860f},
     .std = {.3530f},
     .class_names = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}},
    {.name = "mnist",
     .help = "60,000 + 10,000 grey images of digits, 28 x 28, 10 classes (IDX files, plain or gzipped)",
     .formats = {&lb_format_idx},
     .entries = {"mnist", "MNIST/raw", "MNIST"},
     .get = "get the four .gz files from https://yann.lecun.com/exdb/mnist/ and put them into data/mnist/",
     .classes = 10,
     .channels = 1,
     .size = 28,
     .mean = {.1307f},
     .std = {.3081f},
     .class_names = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}},
    {.name = "cifar10",
     .help = "50,000 + 10,000 colour images, 32 x 32, 10 classes (binary release, or images cifar10*.tar.gz)",
     .formats = {&lb_format_cifar10, &lb_format_folder},
     .entries = {"cifar-10-batches-bin", "cifar10", "cifar-10", "cifar10*", "cifar-10*"},
     .get = "get https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and unpack it in data/",
     .classes = 10,
     .channels = 3,
     .size = 32,
     .mean = {.4914f, .4822f, .4465f},
     .std = {.2470f, .2435f, .2616f},
     .class_names = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}},
    {.name = "cifar100",
     .help = "50,000 + 10,000 colour images, 32 x 32, 100 classes (binary release, or images cifar100*.tar.gz)",
     .formats = {&lb_format_cifar100, &lb_format_folder},
     .entries = {"cifar-100-binary", "cifar100", "cifar-100", "cifar100*", "cifar-100*"},
     .get = "get https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz and unpack it in data/",
     .classes = 100,
     .channels = 3,
     .size = 32,
     .mean = {.5071f, .4866f, .4409f},
     .std = {.2673f, .2564f, .2762f}},
    {.name = "folder",
     .help = "your own images: train/<class>/*.jpg|png and test/ or val/, as a folder, tar, tar.gz, tar.xz or zip at data.path"},
};

const lb_list_row *lb_data_row(int i, lb_list_row *row) {
    if (i < 0 || i >= (int)LB_COUNT(known_sets))
        return NULL;
    *row = (lb_list_row){known_sets[i].name, "data", known_sets[i].help};
    return row;
}

static const known_set *find_known(const char *name) {
    for (size_t i = 0; i < LB_COUNT(known_sets); i++)
        if (!strcmp(known_sets[i].name, name))
            return &known_sets[i];
    return NULL;
}

/* ---- Looking for it -------------------------------------------------------------------------------------------- */

typedef struct found {
    char path[LB_PATH];
    const lb_data_format *format;
} found;

static bool recognise(const lb_data_format *const *list, size_t n, const char *path, found *out) {
    for (size_t i = 0; i < n && list[i]; i++)
        if (list[i]->recognise(path)) {
            snprintf(out->path, sizeof out->path, "%s", path);
            out->format = list[i];
            return true;
        }
    return false;
}

/* First entry of `place`, in alphabetical order, that matches the pattern (prefix and *) and is recognised. */
static bool try_pattern(const known_set *set, const char *place, const char *pattern, found *out) {
    size_t prefix = strlen(pattern) - 1;
    char last[256] = "", path[LB_PATH];
    for (;;) { /* each round finds the next name after `last`; few names match, and nothing has to be allocated */
        DIR *dir = opendir(place);
        if (!dir)
            return false;
        char next[256] = "";
        for (struct dirent *entry; (entry = readdir(dir));) {
            const char *name = entry->d_name;
            if (!strncmp(name, pattern, prefix) && !isdigit((unsigned char)name[prefix]) && strcmp(name, last) > 0 &&
                (!next[0] || strcmp(name, next) < 0))
                snprintf(next, sizeof next, "%s", name);
        }
        closedir(dir);
        if (!next[0])
            return false;
        memcpy(last, next, sizeof last);
        int n = snprintf(path, sizeof path, "%s/%s", place, next);
        if (n > 0 && n < LB_PATH && recognise(set->formats, LB_COUNT(set->formats), path, out))
            return true;
    }
}

static bool try_place(const known_set *set, const char *place, found *out) {
    char path[LB_PATH];
    for (size_t i = 0; i < LB_COUNT(set->entries) && set->entries[i]; i++) {
        const char *entry = set->entries[i];
        if (strchr(entry, '*')) {
            if (try_pattern(set, place, entry, out))
                return true;
            continue;
        }
        int n = snprintf(path, sizeof path, "%s/%s", place, entry);
        if (n > 0 && n < LB_PATH && recognise(set->formats, LB_COUNT(set->formats), path, out))
            return true;
    }
    /* $LOWBIT_DATA may also name the data set's own folder, if that is called as the set. */
    size_t length = strlen(place), name = strlen(set->name);
    while (length > 1 && place[length - 1] == '/')
        length--;
    if (length >= name && !strncasecmp(place + length - name, set->name, name) &&
        (length == name || place[length - name - 1] == '/'))
        return recognise(set->formats, LB_COUNT(set->formats), place, out);
    return false;
}

typedef struct text {
    char chars[640];
    size_t length;
} text;

static void append(text *t, const char *name) {
    int n = snprintf(t->chars + t->length, sizeof t->chars - t->length, "%s%s", t->length ? ", " : "", name);
    t->length = n < 0 ? t->length : LB_MIN(t->length + (size_t)n, sizeof t->chars - 1);
}

static lb_status search_places(lb_ctx *ctx, const known_set *set, found *out) {
    text looked = {.length = 0};
    char place[LB_PATH];
    const char *list = getenv("LOWBIT_DATA");
    while (list && *list) {
        size_t n = strcspn(list, ":");
        if (n > 0 && n < sizeof place) {
            memcpy(place, list, n);
            place[n] = 0;
            append(&looked, place);
            if (try_place(set, place, out))
                return LB_OK;
        }
        list += n + (list[n] == ':');
    }
    static const char *const places[] = {"data", "../shared/data"};
    for (size_t i = 0; i < LB_COUNT(places); i++) {
        append(&looked, places[i]);
        if (try_place(set, places[i], out))
            return LB_OK;
    }
    if (set->system) {
        append(&looked, set->system);
        if (recognise(set->formats, LB_COUNT(set->formats), set->system, out))
            return LB_OK;
    }
    return lb_fail(ctx, LB_ERR_IO, "data set %s not found; looked in %s%s; %s (or set data.path or $LOWBIT_DATA)", set->name,
                   looked.chars, getenv("LOWBIT_DATA") ? "" : " ($LOWBIT_DATA is not set)", set->get);
}

static lb_status find_data(lb_ctx *ctx, const lb_data_config *config, const known_set *set, const char *path, found *out) {
    if (path[0]) {
        if (!lb_exists(path))
            return lb_fail(ctx, LB_ERR_IO, "%s: no such file or folder; correct data.path%s%s", path,
                           set && set->get ? ", or " : "", set && set->get ? set->get : "");
        if (strlen(path) >= LB_PATH - 300)
            return lb_fail(ctx, LB_ERR_ARGUMENT, "data.path is longer than %d bytes", LB_PATH - 300);
        if (recognise(formats, LB_COUNT(formats), path, out) || (set && try_place(set, path, out)))
            return LB_OK;
        return lb_fail(
            ctx, LB_ERR_FORMAT,
            "%s: no data set lowbit knows: neither train-images-idx3-ubyte[.gz], data_batch_1.bin or train.bin, nor an archive or "
            "folder with train/<class>/*.jpg|png and test/ or val/",
            path);
    }
    if (set && set->formats[0])
        return search_places(ctx, set, out);
    return lb_fail(ctx, LB_ERR_RECIPE, "data.name \"%s\" needs data.path: a folder or an archive with train/<class>/*.jpg|png",
                   config->name);
}

/* ---- Helpers of the formats ------------------------------------------------------------------------------------ */

lb_status lb_join(lb_ctx *ctx, char dst[LB_PATH], const char *path, const char *name) {
    int n = snprintf(dst, LB_PATH, "%s/%s", path, name);
    if (n < 0 || n >= LB_PATH)
        return lb_fail(ctx, LB_ERR_IO, "%.200s/%.200s: path longer than %d bytes", path, name, LB_PATH - 1);
    return LB_OK;
}

void lb_printable(char *dst, size_t size, const char *name) {
    size_t n = 0;
    for (; name[n] && n + 1 < size; n++)
        dst[n] = (unsigned char)name[n] < 0x20 || name[n] == 0x7f ? '?' : name[n];
    dst[n] = 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Labels follow names (lb_data_match), so that no two may have become one. */
static lb_status check_distinct(lb_data *data) {
    const char **sorted = lb_alloc(data->ctx, (size_t)data->classes, sizeof *sorted);
    if (!sorted)
        return LB_ERR_MEMORY;
    memcpy(sorted, data->class_names, (size_t)data->classes * sizeof *sorted);
    qsort(sorted, (size_t)data->classes, sizeof *sorted, by_name);
    lb_status status = LB_OK;
    for (int k = 1; k < data->classes && status == LB_OK; k++)
        if (*sorted[k] && !strcmp(sorted[k - 1], sorted[k]))
            status = lb_fail(data->ctx, LB_ERR_FORMAT, "%s: two classes are called %s but for control characters; rename one",
                             data->source, sorted[k]);
    lb_free(data->ctx, sorted);
    return status;
}

lb_status lb_clean_class_names(lb_data *data) {
    bool cleaned = false;
    for (int k = 0; data->class_names && k < data->classes; k++) {
        const char *name = data->class_names[k];
        const size_t size = strlen(name) + 1;
        char *clean = lb_pool_alloc(&data->pool, size, 1);
        if (!clean)
            return LB_ERR_MEMORY;
        lb_printable(clean, size, name);
        cleaned |= strcmp(clean, name) != 0;
        data->class_names[k] = clean;
    }
    return cleaned ? check_distinct(data) : LB_OK;
}

lb_status lb_number_classes(lb_data *data, int classes) {
    data->class_names = lb_pool_alloc(&data->pool, (size_t)classes, sizeof *data->class_names);
    if (!data->class_names)
        return LB_ERR_MEMORY;
    for (int i = 0; i < classes; i++)
        if (!(data->class_names[i] = lb_pool_printf(&data->pool, "%d", i)))
            return LB_ERR_MEMORY;
    data->classes = classes;
    return LB_OK;
}

lb_status lb_images_alloc(lb_data *data, lb_split split, const char *name, int64_t count, int h, int w, int c) {
    uint64_t image = (uint64_t)h * (uint64_t)w * (uint64_t)c;
    if (count < 0 || h < 1 || w < 1 || c < 1 || image > LB_DATA_LIMIT || (count && image > LB_DATA_LIMIT / (uint64_t)count))
        return lb_fail(data->ctx, LB_ERR_UNSUPPORTED,
                       "%s: %lld images of %d x %d x %d are beyond the limit of %llu GB; set data.size or %s", name,
                       (long long)count, w, h, c, (unsigned long long)LB_DATA_LIMIT >> 30,
                       split == LB_TRAIN ? "data.train_limit" : "data.test_limit");
    lb_images *images = &data->split[split];
    *images = (lb_images){.count = count, .h = h, .w = w, .c = c};
    images->labels = lb_pool_alloc(&data->pool, (size_t)count, sizeof *images->labels);
    images->pixels = lb_pool_alloc(&data->pool, (size_t)count, (size_t)image);
    return images->labels && images->pixels ? LB_OK : LB_ERR_MEMORY;
}

/* ---- After reading --------------------------------------------------------------------------------------------- */

/* Formats of a fixed size are resized here; image folders have done so while decoding. */
static lb_status resize_all(lb_data *data, int size) {
    for (int split = 0; split < LB_SPLITS; split++) {
        lb_images old = data->split[split], *new = &data->split[split];
        if (old.h == size && old.w == size)
            continue;
        size_t bytes = lb_resize_scratch(old.h, old.w, old.c, size, size);
        void *scratch = bytes ? lb_pool_alloc(&data->pool, bytes, 1) : NULL;
        if (!scratch)
            return bytes ? LB_ERR_MEMORY : lb_fail(data->ctx, LB_ERR_ARGUMENT, "data.size %d is out of range", size);
        LB_TRY(lb_images_alloc(data, (lb_split)split, data->source, old.count, size, size, old.c));
        memcpy(new->labels, old.labels, (size_t)old.count * sizeof *old.labels);
        lb_box box = lb_centre_box(old.h, old.w, size, size, 0);
        size_t from = (size_t)old.h * (size_t)old.w * (size_t)old.c, to = (size_t)size * (size_t)size * (size_t)old.c;
        for (int64_t i = 0; i < old.count; i++) {
            if (i % 1024 == 0 && lb_interrupted(data->ctx))
                return lb_fail(data->ctx, LB_ERR_INTERRUPTED, "%s: interrupted while loading", data->source);
            lb_resize(old.pixels + (size_t)i * from, old.h, old.w, old.c, &box, new->pixels + (size_t)i *to, size, size, scratch);
        }
        void *const done[] = {scratch, old.labels, old.pixels};
        for (size_t i = 0; i < LB_COUNT(done); i++)
            lb_pool_release(&data->pool, done[i]);
    }
    return LB_OK;
}

static lb_status take_figures(lb_data *data, const char *key, const float *given, int n, float *dst) {
    int c = data->split[LB_TRAIN].c;
    if (n == 0)
        return LB_OK;
    if (n != c && n != 1)
        return lb_fail(data->ctx, LB_ERR_RECIPE, "data.%s has %d figures, but the images of %s have %d channel%s", key, n,
                       data->source, c, c > 1 ? "s" : "");
    for (int k = 0; k < c; k++) {
        dst[k] = given[n == 1 ? 0 : k];
        if (!isfinite(dst[k]) || (dst == data->std && dst[k] <= 0))
            return lb_fail(data->ctx, LB_ERR_RECIPE, "data.%s: %g is out of range", key, (double)dst[k]);
    }
    return LB_OK;
}

static lb_status finish(lb_data *data, const known_set *set) {
    lb_ctx *ctx = data->ctx;
    for (int split = 0; split < LB_SPLITS; split++)
        if (data->split[split].count < 1)
            return lb_fail(ctx, LB_ERR_FORMAT, "%s: no %s images", data->source, split == LB_TRAIN ? "training" : "test");
    if (data->classes == 1)
        lb_warn(data->ctx, "%s: only one class, %s; there is nothing to tell apart", data->source, data->class_names[0]);
    if (data->config.size > 0)
        LB_TRY(resize_all(data, data->config.size));
    int c = data->split[LB_TRAIN].c;
    if (set && set->classes && (set->classes != data->classes || set->channels != c)) {
        lb_warn(ctx, "%s has %d classes and %d channel(s), %s %d and %d: taken as a data set of its own", data->source,
                data->classes, c, set->name, set->classes, set->channels);
        set = NULL;
    }
    if (data->config.nmean == 0 || data->config.nstd == 0) {
        if (set && set->classes) {
            memcpy(data->mean, set->mean, sizeof set->mean);
            memcpy(data->std, set->std, sizeof set->std);
        } else {
            LB_TRY(lb_data_statistics(data));
        }
    }
    LB_TRY(take_figures(data, "mean", data->config.mean, data->config.nmean, data->mean));
    return take_figures(data, "std", data->config.std, data->config.nstd, data->std);
}

static lb_status load(lb_data *data) {
    lb_ctx *ctx = data->ctx;
    const lb_data_config *config = &data->config;
    const known_set *set = find_known(config->name);
    const char *path = config->path;
    if (!set && config->name[0]) {
        if (path[0] || (!strchr(config->name, '/') && !lb_exists(config->name))) {
            const char *names[LB_COUNT(known_sets)];
            for (size_t i = 0; i < LB_COUNT(known_sets); i++)
                names[i] = known_sets[i].name;
            const char *near = lb_nearest(config->name, names, LB_COUNT(names));
            return lb_fail(ctx, LB_ERR_RECIPE, "data.name: no data set \"%s\"; %s%s%s`lowbit list data` shows them, or give a path",
                           config->name, near ? "did you mean " : "", near ? near : "", near ? "? " : "");
        }
        path = config->name;
    }
    found where;
    LB_TRY(find_data(ctx, config, set, path, &where));
    data->source = lb_pool_strdup(&data->pool, where.path);
    if (!data->source)
        return LB_ERR_MEMORY;

    /* CIFAR's binary files say what they are. */
    if (where.format == &lb_format_cifar10)
        set = find_known("cifar10");
    else if (where.format == &lb_format_cifar100)
        set = find_known("cifar100");
    if (set && set->class_names[0] && where.format != &lb_format_folder) {
        data->classes = set->classes;
        data->class_names = lb_pool_alloc(&data->pool, (size_t)set->classes, sizeof *data->class_names);
        if (!data->class_names)
            return LB_ERR_MEMORY;
        memcpy(data->class_names, set->class_names, (size_t)set->classes * sizeof *data->class_names);
    }
    LB_TRY(where.format->load(data, data->source));
    LB_TRY(lb_clean_class_names(data));
    return finish(data, set);
}

lb_data *lb_data_new(lb_ctx *ctx, const lb_data_config *config) {
    lb_data *data = lb_alloc(ctx, 1, sizeof *data);
    if (data) {
        data->ctx = ctx;
        data->config = *config;
        lb_pool_init(&data->pool, ctx);
    }
    return data;
}

lb_status lb_data_load(lb_ctx *ctx, const lb_data_config *config, lb_data **out) {
    *out = NULL;
    if (config->size < 0 || config->size > 65535 || config->train_limit < 0 || config->test_limit < 0 || config->nmean < 0 ||
        config->nmean > 4 || config->nstd < 0 || config->nstd > 4)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "data: size, train_limit, test_limit, mean or std out of range");
    lb_data *data = lb_data_new(ctx, config);
    if (!data)
        return LB_ERR_MEMORY;
    lb_status status = load(data);
    if (status != LB_OK) {
        lb_data_destroy(data);
        return status;
    }
    *out = data;
    return LB_OK;
}

void lb_data_destroy(lb_data *data) {
    if (!data)
        return;
    lb_ctx *ctx = data->ctx;
    lb_pool_free(&data->pool);
    lb_free(ctx, data);
}

bool lb_data_known(const lb_data_config *config, int *size, int *channels, int *classes) {
    const known_set *set = config->path[0] ? NULL : find_known(config->name);
    if (!set || !set->classes)
        return false;
    *size = config->size ? config->size : set->size;
    *channels = set->channels;
    *classes = set->classes;
    return true;
}

lb_status lb_data_check(const lb_data *data, const char *name, int channels, int classes) {
    const int has = data->split[LB_TRAIN].c;
    if (has != channels)
        return lb_fail(data->ctx, LB_ERR_SHAPE, "%s: its images have %d channel%s, but %s takes %d; pass data with %d",
                       data->source, has, has == 1 ? "" : "s", name, channels, channels);
    const lb_images *test = &data->split[LB_TEST];
    if (test->pixels && test->c != channels)
        return lb_fail(data->ctx, LB_ERR_SHAPE, "%s: its test images have %d channel%s, its training images %d", data->source,
                       test->c, test->c == 1 ? "" : "s", has);
    if (data->classes > classes)
        return lb_fail(data->ctx, LB_ERR_SHAPE, "%s: has %d classes, but %s tells only %d apart; pass data with these",
                       data->source, data->classes, name, classes);
    return LB_OK;
}

lb_status lb_data_from_spec(lb_ctx *ctx, const char *spec, const lb_data_config *base, lb_data **data) {
    *data = NULL;
    lb_data_config config = {.cache = true, .workers = 1};
    if (base)
        config = *base;
    if (strlen(spec) >= sizeof config.path)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "--data: longer than %zu bytes", sizeof config.path - 1);
    const known_set *set = find_known(spec), *was = base ? find_known(base->name) : NULL;
    if (set && base && !strcmp(spec, base->name))
        return lb_data_load(ctx, &config, data); /* the very data set it was trained on, data.path included */
    if (was && was->classes && config.nmean == 0) {
        config.nmean = was->channels;
        memcpy(config.mean, was->mean, sizeof was->mean);
    }
    if (was && was->classes && config.nstd == 0) {
        config.nstd = was->channels;
        memcpy(config.std, was->std, sizeof was->std);
    }
    snprintf(config.name, sizeof config.name, "%s", spec);
    config.path[0] = 0;
    if (!set && lb_exists(spec)) {
        config.name[0] = 0;
        snprintf(config.path, sizeof config.path, "%s", spec);
    }
    return lb_data_load(ctx, &config, data);
}

/* ---- Test images ------------------------------------------------------------------------------------------------- */

lb_status lb_test_batch(const lb_data *data, const lb_data_config *config, lb_split split, int64_t first, int mb, int oh, int ow,
                        uint8_t *pixels, int32_t *labels) {
    const lb_images *images = &data->split[split];
    if (first < 0 || mb < 0 || first + mb > images->count)
        return lb_fail(data->ctx, LB_ERR_ARGUMENT, "images %lld .. %lld of %lld", (long long)first, (long long)first + mb,
                       (long long)images->count);
    size_t from = (size_t)images->h * (size_t)images->w * (size_t)images->c, to = (size_t)oh * (size_t)ow * (size_t)images->c;
    const uint8_t *src = images->pixels + (size_t)first * from;
    memcpy(labels, images->labels + first, (size_t)mb * sizeof *labels);
    if (images->h == oh && images->w == ow && config->augment.resize == 0) {
        memcpy(pixels, src, (size_t)mb * to);
        return LB_OK;
    }
    if (config->augment.resize && config->augment.resize < LB_MAX(oh, ow))
        return lb_fail(data->ctx, LB_ERR_RECIPE, "data.augment.resize %d is less than the network's input of %d x %d",
                       config->augment.resize, ow, oh);
    size_t bytes = lb_resize_scratch(images->h, images->w, images->c, oh, ow);
    if (!bytes)
        return lb_fail(data->ctx, LB_ERR_ARGUMENT, "images cannot be resized to %d x %d", ow, oh);
    void *scratch = lb_alloc(data->ctx, bytes, 1);
    if (!scratch)
        return LB_ERR_MEMORY;
    lb_box box = lb_centre_box(images->h, images->w, oh, ow, config->augment.resize);
    for (int i = 0; i < mb; i++)
        lb_resize(src + (size_t)i * from, images->h, images->w, images->c, &box, pixels + (size_t)i * to, oh, ow, scratch);
    lb_free(data->ctx, scratch);
    return LB_OK;
}

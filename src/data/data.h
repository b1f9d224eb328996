/* Data sets as arrays of uint8 images in memory (NHWC), and batches prepared ahead by worker threads. */
#ifndef LB_DATA_H
#define LB_DATA_H

#include "core/core.h"
#include "recipe/config.h"

typedef enum lb_split { LB_TRAIN, LB_TEST, LB_SPLITS } lb_split;

/* One split, decoded: all images of one size. */
typedef struct lb_images {
    int64_t count;
    int h, w, c;
    uint8_t *pixels;             /* (count, h, w, c); NULL: known, but not loaded */
    int32_t *labels;             /* (count) 0 .. classes-1 */
} lb_images;

typedef struct lb_data {
    lb_ctx *ctx;
    lb_pool pool;
    lb_data_config config;
    const char *source;          /* where it was found, for messages */
    int classes;
    const char **class_names;    /* (classes) */
    float mean[4], std[4];       /* resolved, per channel */
    lb_images split[LB_SPLITS];
} lb_data;

/* Largest decoded split, largest file of one image, largest image, in bytes: more is refused, not tried. */
#define LB_DATA_LIMIT ((uint64_t)64 << 30)
#define LB_MEMBER_LIMIT ((size_t)64 << 20)
#define LB_IMAGE_LIMIT ((size_t)512 << 20)

/* Finds, reads and checks the data set the config names. Where it is looked for: if config->path is given, there and nowhere else
 * (the set itself, or a folder that holds it); otherwise in each folder of $LOWBIT_DATA, in data/, ../shared/data and where a
 * package puts it. With an empty name, or a path as the name, it is recognised by content. Progress is reported. A missing data
 * set's error says where it was looked for, where to get it and where to put it. */
lb_status lb_data_load(lb_ctx *ctx, const lb_data_config *config, lb_data **data);
void lb_data_destroy(lb_data *data);

/* As lb_data_load for `lowbit eval --data SPEC`: spec is the name of a known set or a path recognised by content. What the images
 * become (size, mean, std: a known set's own figures included) stays as `base` says; base may be NULL. */
lb_status lb_data_from_spec(lb_ctx *ctx, const char *spec, const lb_data_config *base, lb_data **data);

/* Pixels per side, channels and classes of the data set that the config names, without looking for it; false: that takes reading,
 * since a path may hold anything. */
bool lb_data_known(const lb_data_config *config, int *size, int *channels, int *classes);

/* Does a network (`name`, for the message) with so many input channels and classes suit the data? */
lb_status lb_data_check(const lb_data *data, const char *name, int channels, int classes);

/* Labels as those of a network (`name`, for the message) whose n classes are called `names` (NULL: not known). Where the network
 * has all of the data's classes, each label becomes that of the class of its name, and data->class_names are `names`: a data set
 * may lack some of the classes. LB_ERR_SHAPE: it has fewer, and one the network does not know. Otherwise labels stay, with a
 * warning if their names are others (numbers alone are no names). */
lb_status lb_data_match(lb_data *data, const char *name, int n, const char *const *names);

/* The shape, classes and normalisation of a data set as text, and a data set made of that text: without images (split[].pixels is
 * NULL), for what only needs to know. The text may come from a hostile file. */
const char *lb_data_describe(const lb_data *data, lb_pool *pool);
lb_status lb_data_described(lb_ctx *ctx, const lb_data_config *config, const char *text, lb_data **data);

/* Rows of `lowbit list data`; NULL after the last. */
const lb_list_row *lb_data_row(int i, lb_list_row *row);

/* One prepared batch. */
typedef struct lb_batch {
    int64_t step;                /* which step of the epoch, from 0 */
    int mb;
    uint8_t *pixels;             /* (mb, size, size, c) after augmentation */
    int32_t *labels;             /* (mb) */
} lb_batch;

/* Each image is resized and centre-cropped as lb_test_batch does (or by random resized crop), then padded with data.augment.fill
 * and cropped, then flipped. Batches of the training split, shuffled by (seed, epoch) and augmented by (seed, epoch, image): they
 * depend on nothing else, so an epoch can be entered at any step. The last, incomplete batch of an epoch is dropped. */
typedef struct lb_loader lb_loader;
lb_status lb_loader_create(lb_data *data, const lb_data_config *config, int oh, int ow, int mb, uint64_t seed, lb_loader **loader);
/* Starts an epoch at a step (workers begin to prepare at once). */
lb_status lb_loader_start(lb_loader *loader, int64_t epoch, int64_t first_step);
/* Next batch in order; waits only if the workers are behind. Borrowed until the next call. */
lb_status lb_loader_next(lb_loader *loader, const lb_batch **batch);
int64_t lb_loader_steps(const lb_loader *loader); /* per epoch */
void lb_loader_destroy(lb_loader *loader);

/* Images [first, first + mb) of a split, resized and centre-cropped to oh x ow if their size differs, into pixels (mb, oh, ow, c).
 * data must have its images: not one made by lb_data_described. */
lb_status lb_test_batch(const lb_data *data, const lb_data_config *config, lb_split split, int64_t first, int mb, int oh, int ow,
                        uint8_t *pixels, int32_t *labels);

/* Decodes one image file (JPEG or PNG) to h x w x c (c = 1 or 3, converting), with the size and augment.resize of `config` just as
 * a test image of that data set. For `lowbit run`. */
lb_status lb_image_load(lb_ctx *ctx, const char *path, const lb_data_config *config, int h, int w, int c, uint8_t *pixels);

#endif

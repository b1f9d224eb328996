/* What the readers of src/data/ share. */
#ifndef LB_FORMATS_H
#define LB_FORMATS_H

#include "data/data.h"

#define LB_PATH 1024
#define LB_MAX_CLASSES (1 << 20)

/* A reader of one format recognises what lies at `path` and fills both splits. One file each in src/data/; rows in data.c. */
typedef struct lb_data_format {
    bool (*recognise)(const char *path);
    lb_status (*load)(lb_data *data, const char *path);
} lb_data_format;
extern const lb_data_format lb_format_idx, lb_format_cifar10, lb_format_cifar100, lb_format_folder;

/* An empty data set; NULL when out of memory. */
lb_data *lb_data_new(lb_ctx *ctx, const lb_data_config *config);

/* Allocates one split's arrays; checks sizes against LB_DATA_LIMIT. `name` is for the message. */
lb_status lb_images_alloc(lb_data *data, lb_split split, const char *name, int64_t count, int h, int w, int c);

/* "PATH/NAME"; fails if longer than LB_PATH. */
lb_status lb_join(lb_ctx *ctx, char dst[LB_PATH], const char *path, const char *name);

/* Copies a name that somebody else chose for use in a message: shortened, control characters as '?'. */
void lb_printable(char *dst, size_t size, const char *name);

/* data->classes and class names "0", "1", ... */
lb_status lb_number_classes(lb_data *data, int classes);

/* Control characters of class names become '?': a packed model could not hold them. LB_ERR_FORMAT: two names become the same. */
lb_status lb_clean_class_names(lb_data *data);

/* Mean and standard deviation of the training images, which there must be, by as many threads as the context has: data->mean and
 * std, the same bits whatever their number. LB_ERR_INTERRUPTED. */
lb_status lb_data_statistics(lb_data *data);

/* min(count, limit), where a limit of 0 means none. */
static inline int64_t lb_limited(int64_t count, int limit) { return limit > 0 && limit < count ? limit : count; }

/* ---- Cache of decoded images (cache.c) --------------------------------------------------------------------------- */

/* Fills data from the cached copy of `path` if there is a sound one made from the same state of the source (`signature`). */
lb_status lb_cache_load(lb_data *data, const char *path, uint64_t signature, bool *hit);

/* Writes the cached copy; failure is a warning. */
void lb_cache_store(lb_data *data, const char *path, uint64_t signature);

/* ---- Archives (archive.c) ------------------------------------------------------------------------------------------ */

bool lb_is_archive(const char *path); /* by name: .zip, .tar, .tar.gz, .tgz, .tar.xz, .txz, .tar.bz2, .tbz2, .tar.zst */

typedef struct lb_archive lb_archive;
typedef enum lb_member_kind { LB_MEMBER_FILE, LB_MEMBER_DIR, LB_MEMBER_LINK } lb_member_kind;

lb_status lb_archive_open(lb_ctx *ctx, const char *path, lb_archive **archive);

/* Next member: *name is NULL after the last; borrowed until the next call. Warns of a tar that ends there without saying so. */
lb_status lb_archive_next(lb_archive *archive, const char **name, lb_member_kind *kind);

/* The current member's content into *buffer, which grows by lb_grow; fails beyond LB_MEMBER_LIMIT. */
lb_status lb_archive_read(lb_archive *archive, uint8_t **buffer, size_t *capacity, size_t *size);
void lb_archive_close(lb_archive *archive);

#endif

/* Reading members of tar and zip archives one after the other (libarchive). Nothing is ever written to disk. */
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include <archive.h>
#include <archive_entry.h>

#include "core/locale.h"
#include "data/formats.h"

struct lb_archive {
    lb_ctx *ctx;
    struct archive *archive;
    char name[LB_PATH]; /* for messages */
    char member[512]; /* current member, shortened, for messages */
    int64_t members; /* so far */
    void *utf8; /* libarchive says names in the characters of the locale: in "C", nothing but ASCII */
};

bool lb_is_archive(const char *path) {
    static const char *const endings[] = {".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst"};
    size_t length = strlen(path);
    for (size_t i = 0; i < LB_COUNT(endings); i++) {
        size_t n = strlen(endings[i]);
        if (length > n && !strcasecmp(path + length - n, endings[i]))
            return true;
    }
    return false;
}

static lb_status failed(lb_archive *a, const char *what) {
    int code = archive_errno(a->archive);
    const char *text = archive_error_string(a->archive);
    return lb_fail(a->ctx, code == ENOMEM ? LB_ERR_MEMORY : LB_ERR_FORMAT, "%s: %s (%s)%s%s; get the archive again", a->name, what,
                   text ? text : "no details", a->member[0] ? ", after " : "", a->member);
}

lb_status lb_archive_open(lb_ctx *ctx, const char *path, lb_archive **out) {
    *out = NULL;
    lb_archive *a = lb_alloc(ctx, 1, sizeof *a);
    if (!a)
        return LB_ERR_MEMORY;
    a->ctx = ctx;
    snprintf(a->name, sizeof a->name, "%s", path);
    a->archive = archive_read_new();
    if (!a->archive) {
        lb_free(ctx, a);
        return lb_fail(ctx, LB_ERR_MEMORY, "%s: out of memory", path);
    }
    /* Only what the documents promise: "all" would include filters that start other programs. */
    archive_read_support_filter_gzip(a->archive);
    archive_read_support_filter_xz(a->archive);
    archive_read_support_filter_bzip2(a->archive);
    archive_read_support_filter_zstd(a->archive);
    archive_read_support_format_tar(a->archive);
    archive_read_support_format_zip(a->archive);
    if (archive_read_open_filename(a->archive, path, 1 << 17) != ARCHIVE_OK) {
        lb_status status = failed(a, "cannot be opened as a tar or zip archive");
        lb_archive_close(a);
        return status;
    }
    a->utf8 = lb_utf8_locale_create();
    *out = a;
    return LB_OK;
}

static lb_status next(lb_archive *a, const char **name, lb_member_kind *kind) {
    *name = NULL;
    struct archive_entry *entry;
    int code = archive_read_next_header(a->archive, &entry);
    if (code == ARCHIVE_EOF)
        return LB_OK;
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN)
        return failed(a, "damaged or truncated archive");
    if (++a->members > 200000000)
        return lb_fail(a->ctx, LB_ERR_UNSUPPORTED, "%s: more than 200 million members", a->name);
    *name = archive_entry_pathname(entry);
    if (!*name)
        *name = archive_entry_pathname_utf8(entry); /* names that the locale cannot say */
    if (!*name)
        return lb_fail(a->ctx, LB_ERR_FORMAT, "%s: the name of member %lld cannot be read (%s%s); %s", a->name,
                       (long long)a->members, a->member[0] ? "after " : "the first", a->member,
                       a->utf8 ? "it is not the UTF-8 that it is said to be, pack it again" : "set LC_ALL to a locale with UTF-8");
    lb_printable(a->member, sizeof a->member, *name);
    if (archive_entry_hardlink(entry) || archive_entry_filetype(entry) == AE_IFLNK)
        *kind = LB_MEMBER_LINK;
    else
        *kind = archive_entry_filetype(entry) == AE_IFDIR ? LB_MEMBER_DIR : LB_MEMBER_FILE;
    return LB_OK;
}

/* At the end: a tar that is cut off between two members shows it only there, where its mark of zeros would have been read. */
static bool has_end_mark(lb_archive *a) {
    return (archive_format(a->archive) & ARCHIVE_FORMAT_BASE_MASK) != ARCHIVE_FORMAT_TAR ||
           archive_filter_bytes(a->archive, 0) != archive_read_header_position(a->archive);
}

lb_status lb_archive_next(lb_archive *a, const char **name, lb_member_kind *kind) {
    void *const before = lb_locale_enter(a->utf8);
    const lb_status status = next(a, name, kind);
    lb_locale_enter(before);
    if (status == LB_OK && !*name && !has_end_mark(a))
        lb_warn(a->ctx, "%s: ends without its end mark%s%s; perhaps cut off", a->name, a->member[0] ? ", after " : "", a->member);
    return status;
}

lb_status lb_archive_read(lb_archive *a, uint8_t **buffer, size_t *capacity, size_t *size) {
    *size = 0;
    for (;;) {
        LB_TRY(lb_grow(a->ctx, buffer, capacity, LB_MAX(*size + 4096, 16384), 1));
        la_ssize_t n = archive_read_data(a->archive, *buffer + *size, *capacity - *size);
        if (n == 0)
            return LB_OK;
        if (n < 0)
            return failed(a, "damaged or truncated archive");
        *size += (size_t)n;
        if (*size > LB_MEMBER_LIMIT)
            return lb_fail(a->ctx, LB_ERR_UNSUPPORTED, "%s: member %s is larger than %zu MB, the limit of one image file", a->name,
                           a->member, LB_MEMBER_LIMIT >> 20);
    }
}

void lb_archive_close(lb_archive *a) {
    if (!a)
        return;
    archive_read_free(a->archive);
    lb_utf8_locale_destroy(a->utf8);
    lb_free(a->ctx, a);
}

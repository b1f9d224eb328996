/* Whole files in and out. */
#define _FILE_OFFSET_BITS 64
#define _XOPEN_SOURCE 700 /* realpath */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/core.h"

/* What a user can do about an error number, as the end of a message. */
static const char *advice(int error) {
    switch (error) {
    case ENOSPC:
    case EDQUOT: return "; the disk is full: free some space, or write elsewhere";
    case EACCES:
    case EPERM: return "; check the permissions of the file and of its directory";
    case EROFS: return "; the file system is read-only: write elsewhere";
    case ENOENT:
    case ENOTDIR: return "; check the path";
    case EISDIR: return "; name a file in it";
    case EMFILE:
    case ENFILE: return "; raise the limit of open files (ulimit -n)";
    case ENAMETOOLONG: return "; use a shorter name";
    }
    return "";
}

lb_status lb_fail_file(lb_ctx *ctx, const char *path, const char *what, int error) {
    char text[128];
    if (strerror_r(error, text, sizeof text))
        snprintf(text, sizeof text, "error %d", error);
    return lb_fail(ctx, LB_ERR_IO, "%s: cannot %s: %s%s", path, what, text, advice(error));
}

bool lb_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool lb_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool lb_is_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Reads to the end of the file, whatever stat says: a pipe has no size. */
static lb_status read_all(lb_ctx *ctx, const char *path, int fd, size_t expected, lb_like_fn like, size_t limit,
                          unsigned char **data, size_t *size) {
    size_t capacity = 0, used = 0;
    *data = NULL;
    LB_TRY(lb_grow(ctx, data, &capacity, (like ? LB_MIN(expected, 64) : expected) + 1, 1));
    for (;;) {
        if (used == capacity - 1) {
            if (like && !like(*data, used))
                break;
            like = NULL;
            LB_TRY(lb_grow(ctx, data, &capacity, LB_MAX(expected, capacity) + 1, 1));
        }
        ssize_t got = read(fd, *data + used, LB_MIN(capacity - 1 - used, (size_t)1 << 30));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lb_fail_file(ctx, path, "read", errno);
        if (got == 0)
            break;
        used += (size_t)got;
        if (used > limit)
            return lb_fail(ctx, LB_ERR_FORMAT, "%s: larger than the %zu bytes allowed here; is this the right file?", path, limit);
    }
    (*data)[used] = 0;
    *size = used;
    return LB_OK;
}

lb_status lb_read_file(lb_ctx *ctx, const char *path, size_t limit, unsigned char **data, size_t *size) {
    return lb_read_file_like(ctx, path, NULL, limit, data, size);
}

lb_status lb_read_file_like(lb_ctx *ctx, const char *path, lb_like_fn like, size_t limit, unsigned char **data, size_t *size) {
    *data = NULL;
    *size = 0;
    int fd;
    do
        fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return lb_fail_file(ctx, path, "open", errno);
    struct stat st;
    lb_status status;
    if (fstat(fd, &st) != 0)
        status = lb_fail_file(ctx, path, "read", errno);
    else if (S_ISDIR(st.st_mode))
        status = lb_fail(ctx, LB_ERR_IO, "%s: is a directory; name a file", path);
    else if (st.st_size > 0 && (uintmax_t)st.st_size > limit)
        status = lb_fail(ctx, LB_ERR_FORMAT, "%s: %jd bytes, more than the %zu allowed here; is this the right file?", path,
                         (intmax_t)st.st_size, limit);
    else {
        /* One byte more than the size lets the read that finds the end fit without growing. */
        size_t expected = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size + 1 : 4096;
        status = read_all(ctx, path, fd, expected, like, limit, data, size);
    }
    close(fd);
    if (status != LB_OK) {
        lb_free(ctx, *data);
        *data = NULL;
    }
    return status;
}

/* 0 or an error number. */
static int write_spans(int fd, const lb_span *spans, int nspans) {
    for (int i = 0; i < nspans; i++) {
        const char *from = spans[i].data;
        for (size_t left = spans[i].size; left > 0;) {
            ssize_t put = write(fd, from, LB_MIN(left, (size_t)1 << 30));
            if (put < 0 && errno == EINTR)
                continue;
            if (put <= 0)
                return put < 0 ? errno : EIO;
            from += put;
            left -= (size_t)put;
        }
    }
    while (fsync(fd) != 0)
        if (errno == EINVAL || errno == ENOTSUP || errno == EROFS)
            return 0; /* a pipe, a device or a file system that has no notion of it */
        else if (errno != EINTR)
            return errno;
    return 0;
}

/* Makes the rename itself durable. Best effort: the data is whole either way. */
static void sync_dir(lb_pool *pool, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *dir = !slash ? "." : slash == path ? "/" : lb_pool_printf(pool, "%.*s", (int)(slash - path), path);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

static lb_status write_special(lb_ctx *ctx, const char *path, const lb_span *spans, int nspans) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return lb_fail_file(ctx, path, "write", errno);
    int error = write_spans(fd, spans, nspans);
    if (close(fd) != 0 && !error && errno != EINTR)
        error = errno;
    return error ? lb_fail_file(ctx, path, "write", error) : LB_OK;
}

/* Locks a new temporary file against lb_remove_leftovers of other processes; false: one of them was faster. Where the file system
 * knows no locks, they remove none. */
static bool keep_from_removal(int fd) {
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return false;
    return fstat(fd, &st) != 0 || st.st_nlink > 0;
}

static void release(lb_temporary *file) {
    if (file->held >= 0)
        close(file->held);
    file->held = -1;
    file->name = NULL;
}

static void drop_temporary(lb_temporary *file) {
    unlink(file->name);
    release(file);
}

/* Writes `path`.tmp.PID.N, a name nobody else has. Nothing is left of it on failure. */
static lb_status write_temporary(lb_pool *pool, const char *path, const lb_span *spans, int nspans, lb_temporary *file) {
    lb_ctx *ctx = pool->ctx;
    size_t size = strlen(path) + 48;
    *file = (lb_temporary){.path = lb_pool_strdup(pool, path), .name = lb_pool_alloc(pool, size, 1), .held = -1};
    if (!file->path || !file->name)
        return LB_ERR_MEMORY;
    int fd = -1;
    for (int i = 0; i < 1000 && fd < 0; i++) {
        snprintf(file->name, size, "%s.tmp.%ld.%d", path, (long)getpid(), i);
        fd = open(file->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST && errno != EINTR)
            break;
        if (fd >= 0 && !keep_from_removal(fd)) {
            close(fd);
            fd = -1;
            errno = EEXIST;
        }
    }
    if (fd < 0)
        return lb_fail_file(ctx, path, "write", errno);
    file->held = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int error = write_spans(fd, spans, nspans);
    if (close(fd) != 0 && !error && errno != EINTR)
        error = errno;
    if (error) {
        drop_temporary(file);
        return lb_fail_file(ctx, path, "write", error);
    }
    return LB_OK;
}

/* Renames it over what was there. */
static lb_status name_temporary(lb_pool *pool, lb_temporary *file) {
    if (rename(file->name, file->path) != 0) {
        const int error = errno;
        drop_temporary(file);
        return lb_fail_file(pool->ctx, file->path, "write", error);
    }
    release(file);
    sync_dir(pool, file->path);
    return LB_OK;
}

/* The file behind a symbolic link, which stays; NULL: none. free() */
static char *link_target(const char *path) {
    struct stat link;
    return lstat(path, &link) == 0 && S_ISLNK(link.st_mode) ? realpath(path, NULL) : NULL;
}

lb_status lb_write_file(lb_ctx *ctx, const char *path, const lb_span *spans, int nspans) {
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode))
        return lb_fail_file(ctx, path, "write", EISDIR);
    if (there && !S_ISREG(st.st_mode)) /* /dev/stdout, a pipe: renaming over it would destroy it */
        return write_special(ctx, path, spans, nspans);
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    lb_temporary file;
    char *target = there ? link_target(path) : NULL;
    lb_status status = write_temporary(&pool, target ? target : path, spans, nspans, &file);
    if (status == LB_OK)
        status = name_temporary(&pool, &file);
    free(target);
    lb_pool_free(&pool);
    return status;
}

void lb_staged_init(lb_staged *staged, lb_ctx *ctx) {
    *staged = (lb_staged){0};
    lb_pool_init(&staged->pool, ctx);
}

lb_status lb_staged_write(lb_staged *staged, const char *path, const lb_span *spans, int nspans) {
    lb_ctx *ctx = staged->pool.ctx;
    struct stat st;
    const bool there = stat(path, &st) == 0;
    if (there && !S_ISREG(st.st_mode))
        return lb_fail(ctx, LB_ERR_IO, "%s: cannot write: it is not a file; move it away", path);
    LB_TRY(lb_grow(ctx, &staged->files, &staged->capacity, staged->count + 1, sizeof *staged->files));
    char *target = there ? link_target(path) : NULL;
    const lb_status status = write_temporary(&staged->pool, target ? target : path, spans, nspans, &staged->files[staged->count]);
    staged->count += status == LB_OK;
    free(target);
    return status;
}

lb_status lb_staged_commit(lb_staged *staged) {
    for (; staged->count > 0; staged->count--)
        LB_TRY(name_temporary(&staged->pool, &staged->files[staged->count - 1]));
    return LB_OK;
}

void lb_staged_free(lb_staged *staged) {
    for (size_t i = 0; i < staged->count; i++)
        if (staged->files[i].name)
            drop_temporary(&staged->files[i]);
    lb_free(staged->pool.ctx, staged->files);
    lb_pool_free(&staged->pool);
    staged->files = NULL;
    staged->count = staged->capacity = 0;
}

lb_status lb_make_dirs(lb_ctx *ctx, const char *path) {
    int made;
    return lb_make_new_dirs(ctx, path, &made);
}

lb_status lb_make_new_dirs(lb_ctx *ctx, const char *path, int *made) {
    lb_pool pool;
    *made = 0;
    lb_pool_init(&pool, ctx);
    char *part = lb_pool_strdup(&pool, path);
    lb_status status = part ? LB_OK : LB_ERR_MEMORY;
    for (char *end = part; part && status == LB_OK; end++) {
        char c = *end;
        if ((c == '/' || c == 0) && end > part) {
            *end = 0;
            const int error = mkdir(part, 0777) != 0 ? errno : 0; /* before lb_is_dir has its own */
            *made += !error;
            if (error && !lb_is_dir(part))
                status = error == EEXIST ? lb_fail(ctx, LB_ERR_IO, "%s: cannot make the directory: %s is a file", path, part)
                                         : lb_fail_file(ctx, path, "make the directory", error);
            *end = c;
        }
        if (c == 0)
            break;
    }
    if (status == LB_OK && !*path)
        status = lb_fail(ctx, LB_ERR_ARGUMENT, "cannot make a directory without a name");
    lb_pool_free(&pool);
    return status;
}

void lb_remove_made_dirs(lb_ctx *ctx, const char *path, int made) {
    lb_pool pool;
    lb_pool_init(&pool, ctx);
    char *part = made > 0 ? lb_pool_strdup(&pool, path) : NULL;
    for (size_t size = part ? strlen(part) : 0; size > 0 && made > 0; made--) {
        while (size > 1 && part[size - 1] == '/')
            size--;
        part[size] = 0;
        if (rmdir(part) != 0)
            break;
        while (size > 0 && part[size - 1] != '/')
            size--;
    }
    lb_pool_free(&pool);
}

lb_status lb_lock_dir(lb_ctx *ctx, const char *path, int *lock) {
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock == LB_NO_LOCK || flock(*lock, LOCK_EX | LOCK_NB) == 0)
        return LB_OK;
    const int error = errno;
    lb_unlock_dir(*lock);
    *lock = LB_NO_LOCK;
    if (error != EWOULDBLOCK)
        return LB_OK;
    return lb_fail(ctx, LB_ERR_IO, "%s: another process is writing there; wait for its end, or choose another directory", path);
}

void lb_unlock_dir(int lock) {
    if (lock != LB_NO_LOCK)
        close(lock);
}

void lb_remove_leftovers(const char *dir, const char *name) {
    const size_t length = strlen(name);
    DIR *entries = opendir(dir);
    if (!entries)
        return;
    for (const struct dirent *entry; (entry = readdir(entries));) {
        const char *behind = entry->d_name + length;
        if (strncmp(entry->d_name, name, length) || strncmp(behind, ".tmp.", 5) || !behind[5] ||
            strspn(behind + 5, "0123456789.") != strlen(behind + 5))
            continue;
        const int fd = openat(dirfd(entries), entry->d_name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) /* who writes it has it locked */
            unlinkat(dirfd(entries), entry->d_name, 0);
        close(fd);
    }
    closedir(entries);
}

/* Reading and writing whole files: what is there stays there when something fails. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "support.h"

enum { LIMIT = 1 << 20 };

static char dir[] = "/tmp/lb-test-file-XXXXXX";
static char path[256];

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/file", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static int entries(void) {
    int count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

static void assert_content(lb_ctx *ctx, const char *name, const void *data, size_t size) {
    unsigned char *got;
    size_t length;
    assert_ok(ctx, lb_read_file(ctx, name, LIMIT, &got, &length));
    assert_int_equal(length, size);
    assert_memory_equal(got, data, size);
    assert_int_equal(got[size], 0);
    lb_free(ctx, got);
}

static void write_and_read(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const lb_span spans[] = {{"one ", 4}, {NULL, 0}, {"two", 3}};
    assert_ok(ctx, lb_write_file(ctx, path, spans, 3));
    assert_content(ctx, path, "one two", 7);
    assert_ok(ctx, lb_write_file(ctx, path, spans, 1)); /* over an old one */
    assert_content(ctx, path, "one ", 4);
    assert_ok(ctx, lb_write_file(ctx, path, NULL, 0));
    assert_content(ctx, path, "", 0);
    assert_int_equal(entries(), 1); /* nothing temporary is left */

    const size_t sizes[] = {1, 8, 4095, 4096, 4097, 100001, LIMIT};
    for (size_t i = 0; i < LB_COUNT(sizes); i++) {
        unsigned char *big = lb_alloc(ctx, sizes[i], 1);
        for (size_t j = 0; j < sizes[i]; j++)
            big[j] = (unsigned char)(j * 31 + i);
        assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){big, sizes[i]}, 1));
        assert_content(ctx, path, big, sizes[i]);
        lb_free(ctx, big);
    }
    umask(022);
    struct stat st;
    unlink(path);
    assert_ok(ctx, lb_write_file(ctx, path, spans, 1));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644); /* as any program's, not a private temporary file's */
    lb_ctx_destroy(ctx);
}

static void read_errors(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char *data = (unsigned char *)path;
    size_t size;
    assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){"12345", 5}, 1));
    assert_ok(ctx, lb_read_file(ctx, path, 5, &data, &size));
    lb_free(ctx, data);
    assert_int_equal(lb_read_file(ctx, path, 4, &data, &size), LB_ERR_FORMAT);
    assert_null(data);
    assert_non_null(strstr(lb_error(ctx), path));
    assert_non_null(strstr(lb_error(ctx), "5 bytes"));
    assert_int_equal(lb_read_file(ctx, "/dev/zero", 100000, &data, &size), LB_ERR_FORMAT); /* no size known, no end */
    assert_null(data);
    assert_int_equal(lb_read_file(ctx, dir, LIMIT, &data, &size), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "directory"));
    assert_int_equal(lb_read_file(ctx, "/nowhere/at/all", LIMIT, &data, &size), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "/nowhere/at/all: cannot open: No such file"));
    assert_ok(ctx, lb_read_file(ctx, "/proc/self/status", LIMIT, &data, &size)); /* stat says 0 bytes */
    assert_true(size > 100);
    lb_free(ctx, data);
    assert_ok(ctx, lb_read_file(ctx, "/proc/self/status", SIZE_MAX, &data, &size)); /* no limit */
    lb_free(ctx, data);
    lb_ctx_destroy(ctx);
}

static void *feed(void *fifo) {
    FILE *f = fopen(fifo, "w");
    for (int i = 0; i < 20000; i++)
        fprintf(f, "%07d\n", i);
    fclose(f);
    return NULL;
}

static void read_pipe(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    char fifo[300];
    snprintf(fifo, sizeof fifo, "%s.fifo", path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, feed, fifo);
    unsigned char *data;
    size_t size;
    assert_ok(ctx, lb_read_file(ctx, fifo, LIMIT, &data, &size));
    pthread_join(thread, NULL);
    assert_int_equal(size, 160000);
    assert_string_equal((char *)data + size - 8, "0019999\n");
    lb_free(ctx, data);
    unlink(fifo);
    lb_ctx_destroy(ctx);
}

static bool begins_with_x(const unsigned char *head, size_t size) { return size >= 64 && head[0] == 'x'; }

static void read_like(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    unsigned char text[1000], *got;
    size_t size;
    memset(text, 'x', sizeof text);
    const lb_span span = {text, sizeof text}, little = {"no", 2};
    assert_ok(ctx, lb_write_file(ctx, path, &span, 1));
    assert_ok(ctx, lb_read_file_like(ctx, path, begins_with_x, LIMIT, &got, &size));
    assert_int_equal(size, sizeof text);
    assert_memory_equal(got, text, size);
    lb_free(ctx, got);
    text[0] = 'y';
    assert_ok(ctx, lb_write_file(ctx, path, &span, 1));
    assert_ok(ctx, lb_read_file_like(ctx, path, begins_with_x, LIMIT, &got, &size));
    assert_in_range(size, 64, 200);
    assert_memory_equal(got, text, size);
    assert_int_equal(got[size], 0);
    lb_free(ctx, got);
    assert_ok(ctx, lb_write_file(ctx, path, &little, 1));
    assert_ok(ctx, lb_read_file_like(ctx, path, begins_with_x, LIMIT, &got, &size));
    assert_int_equal(size, 2);
    lb_free(ctx, got);
    assert_ok(ctx, lb_read_file_like(ctx, "/dev/zero", begins_with_x, LIMIT, &got, &size)); /* it has no end */
    assert_in_range(size, 64, 200);
    lb_free(ctx, got);
    lb_ctx_destroy(ctx);
}

static void write_errors(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    struct stat st;
    assert_int_equal(lb_write_file(ctx, "/dev/full", &(lb_span){"x", 1}, 1), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "/dev/full: cannot write: No space left"));
    assert_non_null(strstr(lb_error(ctx), "free some space"));
    assert_int_equal(stat("/dev/full", &st), 0);
    assert_true(S_ISCHR(st.st_mode)); /* the device itself was not replaced */
    assert_ok(ctx, lb_write_file(ctx, "/dev/null", &(lb_span){"x", 1}, 1));
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));

    char name[300];
    snprintf(name, sizeof name, "%s/none/file", dir);
    assert_int_equal(lb_write_file(ctx, name, &(lb_span){"x", 1}, 1), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), name));
    assert_int_equal(lb_write_file(ctx, dir, &(lb_span){"x", 1}, 1), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "directory"));
    lb_ctx_destroy(ctx);
}

/* A write that fails half way: the kernel refuses bytes beyond the process's file size limit. */
static void old_file_survives(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){"precious", 8}, 1));
    int before = entries();
    char *big = lb_alloc(ctx, 100000, 1);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 50000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    lb_status status = lb_write_file(ctx, path, &(lb_span){big, 100000}, 1);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "File too large"));
    assert_content(ctx, path, "precious", 8);
    assert_int_equal(entries(), before);
    lb_free(ctx, big);
    lb_ctx_destroy(ctx);
}

static void unwritable_directory(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){"precious", 8}, 1));
    bool root = geteuid() == 0; /* who may write anywhere: be nobody for a moment */
    chmod(dir, 0555);
    if (root)
        assert_int_equal(seteuid(65534), 0);
    lb_status status = lb_write_file(ctx, path, &(lb_span){"new", 3}, 1);
    if (root)
        assert_int_equal(seteuid(0), 0);
    chmod(dir, 0700);
    assert_int_equal(status, LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "permission"));
    assert_content(ctx, path, "precious", 8);
    lb_ctx_destroy(ctx);
}

/* Calls to the system, in order: w a file's data are forced to the disk, d a directory's, r a file gets its name. */
static char calls[64];

static void note(char call) {
    const size_t n = strlen(calls);
    if (n + 1 < sizeof calls)
        calls[n] = call;
}

int fsync(int fd) {
    struct stat st;
    note(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? 'd' : 'w');
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to) {
    note('r');
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* After a power cut there is the old file or the new one, and the new one once writing has returned. */
static void forced_to_disk(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_staged staged;
    char other[300];
    snprintf(other, sizeof other, "%s2", path);
    for (int i = 0; i < 2; i++) { /* a new file, and one that replaces another */
        memset(calls, 0, sizeof calls);
        assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){"text", 4}, 1));
        assert_string_equal(calls, "wrd");
    }
    memset(calls, 0, sizeof calls);
    lb_staged_init(&staged, ctx);
    assert_ok(ctx, lb_staged_write(&staged, path, &(lb_span){"more", 4}, 1));
    assert_ok(ctx, lb_staged_write(&staged, other, &(lb_span){"more", 4}, 1));
    assert_string_equal(calls, "ww");
    assert_ok(ctx, lb_staged_commit(&staged));
    assert_string_equal(calls, "wwrdrd");
    lb_staged_free(&staged);
    remove(path);
    remove(other);
    lb_ctx_destroy(ctx);
}

static void links_stay_links(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    char name[300];
    struct stat st;
    snprintf(name, sizeof name, "%s.link", path);
    assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){"old", 3}, 1));
    assert_int_equal(symlink("file", name), 0);
    assert_ok(ctx, lb_write_file(ctx, name, &(lb_span){"new", 3}, 1));
    assert_int_equal(lstat(name, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_content(ctx, path, "new", 3);
    unlink(name);
    lb_ctx_destroy(ctx);
}

static void stale_temporaries(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    char name[300];
    for (int i = 0; i < 3; i++) { /* as a killed process with this number left them */
        snprintf(name, sizeof name, "%s.tmp.%ld.%d", path, (long)getpid(), i);
        fclose(fopen(name, "w"));
    }
    assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){"fine", 4}, 1));
    assert_content(ctx, path, "fine", 4);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.tmp.%ld.%d", path, (long)getpid(), i);
        assert_int_equal(unlink(name), 0);
    }
    lb_ctx_destroy(ctx);
}

static void directories(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    const char *const tails[] = {"/d", "/d/e/f", "/d//g///h/", "/d/./i/../j"};
    char name[300];
    for (size_t i = 0; i < LB_COUNT(tails); i++)
        for (int again = 0; again < 2; again++) {
            snprintf(name, sizeof name, "%s%s", dir, tails[i]);
            assert_ok(ctx, lb_make_dirs(ctx, name));
            assert_true(lb_is_dir(name) && lb_exists(name));
        }
    assert_ok(ctx, lb_make_dirs(ctx, "/"));
    assert_ok(ctx, lb_make_dirs(ctx, "."));
    assert_int_equal(lb_make_dirs(ctx, ""), LB_ERR_ARGUMENT);
    assert_ok(ctx, lb_write_file(ctx, path, NULL, 0));
    assert_true(lb_exists(path) && !lb_is_dir(path));
    assert_int_equal(lb_make_dirs(ctx, path), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), "is a file"));
    snprintf(name, sizeof name, "%s/below", path);
    assert_int_equal(lb_make_dirs(ctx, name), LB_ERR_IO);
    assert_false(lb_exists(name));
    assert_int_equal(lb_make_dirs(ctx, "/proc/nope/x"), LB_ERR_IO);
    assert_int_not_equal(mkdir("/sys/lowbit-test", 0777), 0); /* not permitted, not even to root */
    const char *why = strerror(errno);
    assert_int_equal(lb_make_dirs(ctx, "/sys/lowbit-test/x"), LB_ERR_IO);
    assert_non_null(strstr(lb_error(ctx), why));
    lb_ctx_destroy(ctx);
}

/* Only what was made goes, and only while it is empty. */
static void made_directories(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    char name[300], top[300];
    int made;
    snprintf(top, sizeof top, "%s/made", dir);
    snprintf(name, sizeof name, "%s/made//e/f/", dir);
    assert_ok(ctx, lb_make_new_dirs(ctx, name, &made));
    assert_int_equal(made, 3);
    lb_remove_made_dirs(ctx, name, made);
    assert_false(lb_exists(top));
    assert_true(lb_exists(dir));
    assert_ok(ctx, lb_make_dirs(ctx, top));
    assert_ok(ctx, lb_make_new_dirs(ctx, name, &made));
    assert_int_equal(made, 2);
    lb_remove_made_dirs(ctx, name, made);
    assert_true(lb_is_dir(top));
    assert_ok(ctx, lb_make_new_dirs(ctx, top, &made));
    assert_int_equal(made, 0);
    lb_remove_made_dirs(ctx, top, made);
    assert_true(lb_is_dir(top));
    rmdir(top);
    lb_ctx_destroy(ctx);
}

/* All or none; temporary files go with the list. */
static void staged_files(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    char names[3][300];
    const int before = entries();
    for (int commit = 0; commit < 2; commit++) {
        lb_staged staged;
        lb_staged_init(&staged, ctx);
        for (int i = 0; i < 3; i++) {
            snprintf(names[i], sizeof names[i], "%s/staged%d", dir, i);
            assert_ok(ctx, lb_staged_write(&staged, names[i], &(lb_span){"new", 3}, 1));
            assert_false(lb_exists(names[i]));
        }
        assert_int_equal(lb_staged_write(&staged, dir, &(lb_span){"new", 3}, 1), LB_ERR_IO);
        assert_int_equal(lb_staged_write(&staged, "/nowhere/f", &(lb_span){"new", 3}, 1), LB_ERR_IO);
        if (commit)
            assert_ok(ctx, lb_staged_commit(&staged));
        lb_staged_free(&staged);
        assert_int_equal(entries(), before + 3 * commit);
    }
    for (int i = 0; i < 3; i++) {
        unsigned char *data;
        size_t size;
        assert_ok(ctx, lb_read_file(ctx, names[i], LIMIT, &data, &size));
        assert_string_equal((char *)data, "new");
        lb_free(ctx, data);
        unlink(names[i]);
    }
    lb_ctx_destroy(ctx);
}

/* Every allocation of every function refused in turn: the right status, nothing leaked, no file half made. */
static void without_memory(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    char *big = lb_alloc(ctx, 20000, 1);
    assert_ok(ctx, lb_write_file(ctx, path, &(lb_span){big, 20000}, 1));
    lb_free(ctx, big);
    lb_ctx_destroy(ctx);
    for (int what = 0; what < 5; what++) {
        lb_status status = LB_ERR_MEMORY;
        int failures = 0;
        for (int blocks = 1; status != LB_OK; blocks++) {
            assert_true(blocks < 20);
            test_allocator a = {.left = blocks};
            ctx = test_ctx_with(&a);
            unsigned char *data = NULL;
            size_t size;
            char name[300];
            snprintf(name, sizeof name, "%s/oom", dir);
            if (what == 0)
                status = lb_read_file(ctx, path, LIMIT, &data, &size);
            else if (what == 1)
                status = lb_read_file(ctx, "/proc/self/environ", LIMIT, &data, &size);
            else if (what == 2)
                status = lb_make_dirs(ctx, name);
            else if (what == 3)
                status = lb_write_file(ctx, path, &(lb_span){"x", 1}, 1);
            else {
                lb_staged staged;
                lb_staged_init(&staged, ctx);
                status = lb_staged_write(&staged, path, &(lb_span){"x", 1}, 1);
                lb_staged_free(&staged);
            }
            if (status != LB_OK) {
                assert_int_equal(status, LB_ERR_MEMORY);
                assert_non_null(strstr(lb_error(ctx), "out of memory"));
                assert_null(data);
                failures++;
            }
            lb_free(ctx, data);
            assert_int_equal(a.alive, 1);
            lb_ctx_destroy(ctx);
        }
        assert_true(failures > 0);
    }
}

/* One process at a time; the lock ends with its holder and leaves no file. */
static void locks(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    int first, second;
    const int before = entries();
    assert_ok(ctx, lb_lock_dir(ctx, dir, &first));
    assert_true(first != LB_NO_LOCK);
    assert_int_equal(lb_lock_dir(ctx, dir, &second), LB_ERR_IO);
    assert_int_equal(second, LB_NO_LOCK);
    assert_non_null(strstr(lb_error(ctx), "another process"));
    lb_unlock_dir(first);
    assert_ok(ctx, lb_lock_dir(ctx, dir, &second));
    lb_unlock_dir(second);
    assert_ok(ctx, lb_lock_dir(ctx, "/nowhere", &first));
    assert_int_equal(first, LB_NO_LOCK);
    lb_unlock_dir(first);
    assert_int_equal(entries(), before);
    lb_ctx_destroy(ctx);
}

/* A process that was killed while it wrote: its temporary file goes, everything else stays. */
static void leftovers(void **state) {
    (void)state;
    static const char *const names[] = {"f.tmp.17.0", "f.tmp.123456.12", "f", "f.tmp.", "f.tmp.old", "g.tmp.17.0", "f.tmp"};
    lb_ctx *ctx = test_ctx();
    char name[512];
    for (size_t i = 0; i < LB_COUNT(names); i++) {
        snprintf(name, sizeof name, "%s/%s", dir, names[i]);
        assert_ok(ctx, lb_write_file(ctx, name, &(lb_span){"x", 1}, 1));
    }
    snprintf(name, sizeof name, "%s/f.tmp.99.0", dir); /* its writer lives */
    assert_ok(ctx, lb_write_file(ctx, name, &(lb_span){"x", 1}, 1));
    const int writer = open(name, O_WRONLY);
    assert_int_equal(flock(writer, LOCK_EX), 0);
    lb_remove_leftovers(dir, "f");
    assert_true(lb_exists(name));
    close(writer);
    lb_remove_leftovers(dir, "f");
    assert_false(lb_exists(name));
    lb_remove_leftovers("/nowhere", "f");
    for (size_t i = 0; i < LB_COUNT(names); i++) {
        snprintf(name, sizeof name, "%s/%s", dir, names[i]);
        assert_int_equal(lb_exists(name), i >= 2);
        unlink(name);
    }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_and_read),   cmocka_unit_test(read_errors),       cmocka_unit_test(read_pipe),
        cmocka_unit_test(write_errors),     cmocka_unit_test(old_file_survives), cmocka_unit_test(unwritable_directory),
        cmocka_unit_test(links_stay_links), cmocka_unit_test(stale_temporaries), cmocka_unit_test(directories),
        cmocka_unit_test(without_memory),   cmocka_unit_test(locks),             cmocka_unit_test(leftovers),
        cmocka_unit_test(made_directories), cmocka_unit_test(staged_files),      cmocka_unit_test(read_like),
        cmocka_unit_test(forced_to_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

#include "train/tensorboard.h"

#include <dirent.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "event.pb-c.h"

#define PREFIX "events.out.tfevents."

enum { POSITIVE = 775, LIMITS = 2 * POSITIVE + 1 }; /* 1e-12 * 1.1^k below 1e20, then DBL_MAX; mirrored; 0 between */

struct lb_tensorboard {
    lb_ctx *ctx;
    lb_pool pool;
    char *path;
    FILE *file;
    int error; /* of the first write that failed */
    double limits[LIMITS];
    double counts[LIMITS], packed_limits[LIMITS], packed_counts[LIMITS]; /* scratch of one histogram */
    unsigned char *record;
    size_t capacity;
};

static lb_status io_error(const lb_tensorboard *tb) { return lb_fail_file(tb->ctx, tb->path, "write", tb->error); }

/* ---- Records --------------------------------------------------------------------------------------------------- */

static void put32(unsigned char *dst, uint32_t value) {
    for (int i = 0; i < 4; i++)
        dst[i] = (unsigned char)(value >> 8 * i);
}

static uint32_t masked_crc(const void *data, size_t size) {
    uint32_t crc = lbrt_crc32c(0, data, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static lb_status write_event(lb_tensorboard *tb, Lb__Tb__Event *event) {
    if (tb->error)
        return io_error(tb);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    event->wall_time = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    size_t size = lb__tb__event__get_packed_size(event);
    LB_TRY(lb_grow(tb->ctx, &tb->record, &tb->capacity, size + 16, 1));
    put32(tb->record, (uint32_t)size);
    put32(tb->record + 4, (uint32_t)((uint64_t)size >> 32));
    put32(tb->record + 8, masked_crc(tb->record, 8));
    lb__tb__event__pack(event, tb->record + 12);
    put32(tb->record + 12 + size, masked_crc(tb->record + 12, size));
    if (fwrite(tb->record, size + 16, 1, tb->file) != 1) {
        tb->error = errno ? errno : EIO;
        return io_error(tb);
    }
    return LB_OK;
}

static lb_status write_summary(lb_tensorboard *tb, int64_t step, Lb__Tb__Summary__Value *value) {
    Lb__Tb__Summary summary = LB__TB__SUMMARY__INIT;
    summary.n_value = 1;
    summary.value = &value;
    Lb__Tb__Event event = LB__TB__EVENT__INIT;
    event.step = step;
    event.what_case = LB__TB__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    return write_event(tb, &event);
}

/* ---- The file -------------------------------------------------------------------------------------------------- */

static void make_limits(double *limits) {
    double limit = 1e-12;
    limits[POSITIVE] = 0;
    for (int i = 0; i < POSITIVE; i++, limit *= 1.1) {
        double value = i < POSITIVE - 1 ? limit : DBL_MAX;
        limits[POSITIVE + 1 + i] = value;
        limits[POSITIVE - 1 - i] = -value;
    }
}

/* The time for the name. TensorBoard reads a directory's files in order of their names, so a new one must sort behind the others
 * even if the clock was set back or a run is resumed within a second. */
static long long name_time(const char *dir) {
    long long newest = (long long)time(NULL);
    DIR *d = opendir(dir);
    if (!d)
        return newest;
    for (struct dirent *entry; (entry = readdir(d));)
        if (!strncmp(entry->d_name, PREFIX, sizeof PREFIX - 1)) {
            long long t = strtoll(entry->d_name + sizeof PREFIX - 1, NULL, 10);
            if (t >= newest && t < 9999999999)
                newest = t + 1;
        }
    closedir(d);
    return newest;
}

static lb_status open_file(lb_tensorboard *tb, const char *dir, int64_t resume_step) {
    char host[65];
    if (gethostname(host, sizeof host) != 0 || !*host)
        strcpy(host, "localhost");
    host[sizeof host - 1] = 0;
    for (char *c = host; *c; c++)
        if (*c == '/')
            *c = '_';
    LB_TRY(lb_make_dirs(tb->ctx, dir));
    for (int tries = 0; tries < 10 && !tb->file; tries++) { /* another process may take the name in between */
        tb->path = lb_pool_printf(&tb->pool, "%s/" PREFIX "%010lld.%s.%ld", dir, name_time(dir), host, (long)getpid());
        if (!tb->path)
            return LB_ERR_MEMORY;
        tb->file = fopen(tb->path, "wbx");
        if (!tb->file && errno != EEXIST)
            break;
    }
    if (!tb->file) {
        tb->error = errno;
        return io_error(tb);
    }
    Lb__Tb__Event event = LB__TB__EVENT__INIT;
    event.what_case = LB__TB__EVENT__WHAT_FILE_VERSION;
    event.file_version = (char[]){"brain.Event:2"};
    LB_TRY(write_event(tb, &event));
    Lb__Tb__SessionLog start = LB__TB__SESSION_LOG__INIT;
    start.status = LB__TB__SESSION_LOG__STATUS__START;
    event.what_case = LB__TB__EVENT__WHAT_SESSION_LOG;
    event.session_log = &start;
    event.step = LB_MAX(resume_step, -1) + 1;
    LB_TRY(write_event(tb, &event));
    return lb_tensorboard_flush(tb);
}

static void release(lb_tensorboard *tb) {
    if (tb->file)
        fclose(tb->file);
    lb_free(tb->ctx, tb->record);
    lb_pool_free(&tb->pool);
    lb_free(tb->ctx, tb);
}

lb_status lb_tensorboard_open(lb_ctx *ctx, const char *dir, int64_t resume_step, lb_tensorboard **out) {
    *out = NULL;
    lb_tensorboard *tb = lb_alloc(ctx, 1, sizeof *tb);
    if (!tb)
        return LB_ERR_MEMORY;
    tb->ctx = ctx;
    lb_pool_init(&tb->pool, ctx);
    make_limits(tb->limits);
    lb_status status = open_file(tb, dir, resume_step);
    if (status != LB_OK) {
        release(tb);
        return status;
    }
    *out = tb;
    return LB_OK;
}

lb_status lb_tensorboard_flush(lb_tensorboard *tb) {
    if (!tb->error && fflush(tb->file) != 0)
        tb->error = errno;
    return tb->error ? io_error(tb) : LB_OK;
}

lb_status lb_tensorboard_close(lb_tensorboard *tb) {
    if (!tb)
        return LB_OK;
    lb_status status = lb_tensorboard_flush(tb);
    release(tb);
    return status;
}

/* ---- What is logged -------------------------------------------------------------------------------------------- */

lb_status lb_tensorboard_scalar(lb_tensorboard *tb, const char *tag, int64_t step, double value) {
    Lb__Tb__Summary__Value v = LB__TB__SUMMARY__VALUE__INIT;
    v.tag = (char *)tag;
    v.value_case = LB__TB__SUMMARY__VALUE__VALUE_SIMPLE_VALUE;
    v.simple_value = (float)value;
    return write_summary(tb, step, &v);
}

/* The first limit above `value`: guessed with a logarithm, then exact. */
static int bucket_of(const double *limits, double value) {
    double k = log(fabs(value) * 1e12) * (1 / 0.09531017980432493); /* log 1.1 */
    int offset = k > 0 ? (int)LB_MIN(k, POSITIVE - 2) + 1 : 0;
    int i = value < 0 ? POSITIVE - offset : POSITIVE + 1 + offset;
    while (i > 0 && limits[i - 1] > value)
        i--;
    while (limits[i] <= value)
        i++;
    return i;
}

lb_status lb_tensorboard_histogram(lb_tensorboard *tb, const char *tag, int64_t step, const float *values, size_t count) {
    Lb__Tb__Histogram histogram = LB__TB__HISTOGRAM__INIT;
    double min = INFINITY, max = -INFINITY;
    memset(tb->counts, 0, sizeof tb->counts);
    for (size_t i = 0; i < count; i++) {
        double value = values[i];
        if (!isfinite(value))
            continue;
        min = LB_MIN(min, value);
        max = LB_MAX(max, value);
        histogram.num++;
        histogram.sum += value;
        histogram.sum_squares += value * value;
        tb->counts[bucket_of(tb->limits, value)]++;
    }
    histogram.min = histogram.num ? min : 0;
    histogram.max = histogram.num ? max : 0;
    /* A run of empty buckets becomes one, so that every bucket that is not empty keeps its lower limit. */
    size_t n = 0;
    for (int i = 0; i < LIMITS; i++) {
        bool joins = n && !tb->counts[i] && !tb->packed_counts[n - 1];
        n += !joins;
        tb->packed_limits[n - 1] = tb->limits[i];
        tb->packed_counts[n - 1] = tb->counts[i];
    }
    histogram.n_bucket_limit = histogram.n_bucket = n;
    histogram.bucket_limit = tb->packed_limits;
    histogram.bucket = tb->packed_counts;
    Lb__Tb__Summary__Value v = LB__TB__SUMMARY__VALUE__INIT;
    v.tag = (char *)tag;
    v.value_case = LB__TB__SUMMARY__VALUE__VALUE_HISTO;
    v.histo = &histogram;
    return write_summary(tb, step, &v);
}

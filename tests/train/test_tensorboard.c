/* Event files, read back by a decoder of their own: framing, checksums, field numbers as TensorBoard has them, values. */
#include <dirent.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "support.h"
#include "train/tensorboard.h"

static char dir[] = "/tmp/lb-test-tensorboard-XXXXXX";

static int clean(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'/*", dir);
    return system(command);
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) { return clean(state) | rmdir(dir); }

/* ---- A decoder of protocol buffers' wire format --------------------------------------------------------------- */

typedef struct bytes {
    const unsigned char *at, *end;
} bytes;

typedef struct field {
    int number, type;
    uint64_t value; /* types 0, 1, 5 */
    bytes span; /* type 2 */
} field;

static uint64_t little(const unsigned char *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static uint64_t varint(bytes *b) {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(b->at < b->end && shift < 64);
        unsigned char c = *b->at++;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128)
            return v;
    }
}

static bool next_field(bytes *b, field *f) {
    if (b->at == b->end)
        return false;
    uint64_t tag = varint(b);
    f->number = (int)(tag >> 3);
    f->type = (int)(tag & 7);
    size_t size = f->type == 1 ? 8 : f->type == 5 ? 4 : 0;
    if (f->type == 0) {
        f->value = varint(b);
    } else {
        if (f->type == 2)
            size = (size_t)varint(b);
        assert_true(size <= (size_t)(b->end - b->at));
        f->span = (bytes){b->at, b->at + size};
        f->value = size && f->type != 2 ? little(b->at, (int)size) : 0;
        b->at += size;
    }
    return true;
}

static double as_double(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static float as_float(uint64_t bits) {
    uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof f);
    return f;
}

/* ---- Events as decoded ------------------------------------------------------------------------------------------ */

enum { MOST_EVENTS = 64, MOST_BUCKETS = 1600 };

typedef struct event {
    double wall_time;
    int64_t step;
    char version[32], tag[64];
    int session; /* status of a session log, -1: none */
    bool has_scalar, has_histogram;
    float scalar;
    double min, max, num, sum, sum_squares;
    size_t nlimits, nbuckets;
    double limits[MOST_BUCKETS], buckets[MOST_BUCKETS];
} event;

static void copy_text(char *dst, size_t size, bytes b) {
    assert_true((size_t)(b.end - b.at) < size);
    memcpy(dst, b.at, (size_t)(b.end - b.at));
    dst[b.end - b.at] = 0;
}

static size_t doubles(double *dst, bytes b) {
    size_t n = (size_t)(b.end - b.at) / 8;
    assert_true(n <= MOST_BUCKETS && (b.end - b.at) % 8 == 0);
    for (size_t i = 0; i < n; i++)
        dst[i] = as_double(little(b.at + 8 * i, 8));
    return n;
}

static void decode_histogram(bytes b, event *e) {
    e->has_histogram = true;
    for (field f; next_field(&b, &f);)
        switch (f.number * 10 + f.type) {
        case 11: e->min = as_double(f.value); break;
        case 21: e->max = as_double(f.value); break;
        case 31: e->num = as_double(f.value); break;
        case 41: e->sum = as_double(f.value); break;
        case 51: e->sum_squares = as_double(f.value); break;
        case 62: e->nlimits = doubles(e->limits, f.span); break;
        case 72: e->nbuckets = doubles(e->buckets, f.span); break;
        default: fail_msg("histogram: field %d, type %d", f.number, f.type);
        }
}

static void decode_summary(bytes b, event *e) {
    for (field f; next_field(&b, &f);) {
        assert_int_equal(f.number * 10 + f.type, 12); /* Summary.value */
        for (field g; next_field(&f.span, &g);)
            switch (g.number * 10 + g.type) {
            case 12: copy_text(e->tag, sizeof e->tag, g.span); break;
            case 25:
                e->has_scalar = true;
                e->scalar = as_float(g.value);
                break;
            case 52: decode_histogram(g.span, e); break;
            default: fail_msg("value: field %d, type %d", g.number, g.type);
            }
    }
}

static void decode_event(bytes b, event *e) {
    e->session = -1;
    for (field f; next_field(&b, &f);)
        switch (f.number * 10 + f.type) {
        case 11: e->wall_time = as_double(f.value); break;
        case 20: e->step = (int64_t)f.value; break;
        case 32: copy_text(e->version, sizeof e->version, f.span); break;
        case 52: decode_summary(f.span, e); break;
        case 72:
            e->session = 0;
            for (field g; next_field(&f.span, &g);) {
                assert_int_equal(g.number * 10 + g.type, 10);
                e->session = (int)g.value;
            }
            break;
        default: fail_msg("event: field %d, type %d", f.number, f.type);
        }
}

static uint32_t masked(const unsigned char *data, size_t size) {
    uint32_t crc = lbrt_crc32c(0, data, size); /* itself tested with published answers */
    return (uint32_t)(((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

static int newest_first(const struct dirent **a, const struct dirent **b) { return strcmp((*b)->d_name, (*a)->d_name); }
static int is_event_file(const struct dirent *d) { return strstr(d->d_name, "tfevents") != NULL; }

/* Decodes the file whose name sorts last; how many files there are is left in *nfiles. */
static int read_events(lb_ctx *ctx, event *events, int *nfiles) {
    struct dirent **names;
    int n = scandir(dir, &names, is_event_file, newest_first);
    assert_true(n > 0);
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, names[0]->d_name);
    assert_memory_equal(names[0]->d_name, "events.out.tfevents.", 20);
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    if (nfiles)
        *nfiles = n;
    unsigned char *data;
    size_t size;
    assert_ok(ctx, lb_read_file(ctx, path, 1 << 24, &data, &size));
    int count = 0;
    memset(events, 0, MOST_EVENTS * sizeof *events);
    for (size_t at = 0; at < size; count++) {
        assert_true(count < MOST_EVENTS && size - at >= 16);
        uint64_t length = little(data + at, 8);
        assert_true(length <= size - at - 16);
        assert_int_equal(little(data + at + 8, 4), masked(data + at, 8));
        assert_int_equal(little(data + at + 12 + length, 4), masked(data + at + 12, (size_t)length));
        decode_event((bytes){data + at + 12, data + at + 12 + length}, &events[count]);
        at += 16 + (size_t)length;
    }
    lb_free(ctx, data);
    return count;
}

static event events[MOST_EVENTS];

/* ---- Tests -------------------------------------------------------------------------------------------------------- */

static void scalars(void **state) {
    (void)state;
    test_allocator a = {.left = 1000};
    lb_ctx *ctx = test_ctx_with(&a);
    lb_tensorboard *tb;
    double before = (double)time(NULL);
    assert_ok(ctx, lb_tensorboard_open(ctx, dir, -1, &tb));
    assert_int_equal(read_events(ctx, events, NULL), 2); /* the file can be followed at once */
    static const struct {
        const char *tag;
        int64_t step;
        double value;
    } rows[] = {{"loss/train", 0, 2.5}, {"lr", 1, 0}, {"loss/train", INT64_C(5000000000), -1e-30}, {"", 7, 1e300}, {"nan", 8, NAN}};
    for (size_t i = 0; i < LB_COUNT(rows); i++)
        assert_ok(ctx, lb_tensorboard_scalar(tb, rows[i].tag, rows[i].step, rows[i].value));
    assert_ok(ctx, lb_tensorboard_flush(tb));
    assert_int_equal(read_events(ctx, events, NULL), 2 + LB_COUNT(rows));
    assert_ok(ctx, lb_tensorboard_scalar(tb, "last", 9, 1));
    assert_ok(ctx, lb_tensorboard_close(tb));
    assert_ok(ctx, lb_tensorboard_close(NULL));
    assert_int_equal(read_events(ctx, events, NULL), 3 + LB_COUNT(rows));
    assert_string_equal(events[0].version, "brain.Event:2");
    assert_int_equal(events[0].session, -1);
    assert_int_equal(events[1].session, 1);
    assert_int_equal(events[1].step, 0);
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        const event *e = &events[2 + i];
        assert_string_equal(e->tag, rows[i].tag);
        assert_int_equal(e->step, rows[i].step);
        assert_true(e->has_scalar && !e->has_histogram); /* also a value of 0 is written */
        assert_true(e->scalar == (float)rows[i].value || (isnan(e->scalar) && isnan(rows[i].value)));
        assert_true(e->wall_time >= before && e->wall_time <= before + 60);
        assert_string_equal(e->version, "");
    }
    lb_ctx_destroy(ctx);
    assert_int_equal(a.alive, 0);
}

/* Checks a decoded histogram against the values: every bucket counts what lies in it. */
static void assert_histogram(const event *e, const float *values, size_t count) {
    double num = 0, sum = 0, squares = 0, min = INFINITY, max = -INFINITY;
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i])) {
            num++;
            sum += values[i];
            squares += (double)values[i] * values[i];
            min = fmin(min, values[i]);
            max = fmax(max, values[i]);
        }
    assert_true(e->has_histogram && !e->has_scalar);
    assert_true(e->num == num);
    assert_true(e->min == (num > 0 ? min : 0) && e->max == (num > 0 ? max : 0));
    assert_true(e->sum == sum && e->sum_squares == squares);
    assert_true(e->nlimits > 0);
    assert_int_equal(e->nlimits, e->nbuckets);
    assert_true(e->limits[e->nlimits - 1] == DBL_MAX);
    for (size_t b = 0; b < e->nbuckets; b++) {
        double low = b ? e->limits[b - 1] : -INFINITY, inside = 0;
        assert_true(low < e->limits[b]);
        for (size_t i = 0; i < count; i++)
            inside += isfinite(values[i]) && values[i] >= low && values[i] < e->limits[b];
        assert_true(e->buckets[b] == inside);
        if (e->buckets[b] > 0 && fabs(low) > 1e-11 && fabs(low) < 1e19) /* as narrow as promised */
            assert_true(fabs(e->limits[b] / low - (low > 0 ? 1.1 : 1 / 1.1)) < 1e-6);
    }
}

static void histograms(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    enum { N = 3000 };
    static float normal[N], wide[N];
    lb_rng_normal(1, LB_RNG_TEST, 0, 0.05f, normal, N);
    for (int i = 0; i < N; i++)
        wide[i] = (i & 1 ? -1.0f : 1.0f) * powf(10.0f, -40.0f + 78.0f * (float)i / N);
    const float edges[] = {0, -0.0f, 1e-12f, -1e-12f, 1.1e-12f, 1e20f, -1e20f, FLT_MAX, -FLT_MAX, FLT_MIN, 1e-45f, -1e-45f};
    const float broken[] = {NAN, INFINITY, 1, -INFINITY, -2, NAN}, same[] = {3, 3, 3}, one[] = {-0.25f}, zeros[5] = {0};
    const float hopeless[] = {NAN, NAN, INFINITY};
    const struct {
        const float *values;
        size_t count;
    } rows[] = {{normal, N},
                {wide, N},
                {edges, LB_COUNT(edges)},
                {broken, LB_COUNT(broken)},
                {same, 3},
                {one, 1},
                {zeros, 5},
                {hopeless, 3},
                {NULL, 0},
                {normal, 7}};
    lb_tensorboard *tb;
    assert_ok(ctx, lb_tensorboard_open(ctx, dir, -1, &tb));
    for (size_t i = 0; i < LB_COUNT(rows); i++)
        assert_ok(ctx, lb_tensorboard_histogram(tb, "weights", (int64_t)i, rows[i].values, rows[i].count));
    assert_ok(ctx, lb_tensorboard_close(tb));
    assert_int_equal(read_events(ctx, events, NULL), 2 + LB_COUNT(rows));
    for (size_t i = 0; i < LB_COUNT(rows); i++) {
        assert_string_equal(events[2 + i].tag, "weights");
        assert_int_equal(events[2 + i].step, i);
        assert_histogram(&events[2 + i], rows[i].values, rows[i].count);
    }
    assert_int_equal(events[2 + 5].nbuckets, 3); /* one value: its bucket and the empty runs beside it */
    lb_ctx_destroy(ctx);
}

/* Files in one second: each sorts behind the last, and says from which step on the others are void. */
static void resuming(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    static const int64_t steps[] = {-1, 100, 250, -7};
    for (size_t i = 0; i < LB_COUNT(steps); i++) {
        lb_tensorboard *tb;
        assert_ok(ctx, lb_tensorboard_open(ctx, dir, steps[i], &tb));
        assert_ok(ctx, lb_tensorboard_scalar(tb, "run", (int64_t)i, (double)i));
        assert_ok(ctx, lb_tensorboard_close(tb));
        int nfiles;
        assert_int_equal(read_events(ctx, events, &nfiles), 3);
        assert_int_equal(nfiles, i + 1);
        assert_true(events[2].scalar == (float)i); /* the newest really is the last by name */
        assert_int_equal(events[1].session, 1);
        assert_int_equal(events[1].step, LB_MAX(steps[i], -1) + 1);
    }
    lb_ctx_destroy(ctx);
}

static void errors(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_tensorboard *tb = (lb_tensorboard *)ctx;
    assert_int_equal(lb_tensorboard_open(ctx, "/proc/nowhere", -1, &tb), LB_ERR_IO);
    assert_null(tb);
    assert_non_null(strstr(lb_error(ctx), "/proc/nowhere"));
    assert_int_equal(lb_tensorboard_open(ctx, "/proc", -1, &tb), LB_ERR_IO); /* there, but no place for files */
    assert_non_null(strstr(lb_error(ctx), "/proc/events.out.tfevents."));

    assert_ok(ctx, lb_tensorboard_open(ctx, dir, -1, &tb));
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 20000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    lb_status status = LB_OK;
    int written = 0;
    for (; written < 10000 && status == LB_OK; written++)
        status = lb_tensorboard_scalar(tb, "loss", written, 1);
    char message[1024];
    snprintf(message, sizeof message, "%s", lb_error(ctx));
    lb_status later[] = {lb_tensorboard_scalar(tb, "loss", 1, 1), lb_tensorboard_histogram(tb, "h", 1, NULL, 0),
                         lb_tensorboard_flush(tb), lb_tensorboard_close(tb)};
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, LB_ERR_IO);
    assert_true(written > 100);
    assert_non_null(strstr(message, "events.out.tfevents."));
    assert_non_null(strstr(message, "File too large"));
    for (size_t i = 0; i < LB_COUNT(later); i++)
        assert_int_equal(later[i], LB_ERR_IO);
    assert_string_equal(lb_error(ctx), message);
    lb_ctx_destroy(ctx);
}

static void without_memory(void **state) {
    (void)state;
    lb_status status = LB_ERR_MEMORY;
    int failures = 0;
    for (int blocks = 1; status != LB_OK; blocks++) {
        assert_true(blocks < 20);
        test_allocator a = {.left = blocks};
        lb_ctx *ctx = test_ctx_with(&a);
        lb_tensorboard *tb;
        const float value = 1;
        status = lb_tensorboard_open(ctx, dir, 1, &tb);
        assert_true((status == LB_OK) == (tb != NULL));
        if (status == LB_OK)
            status = lb_tensorboard_histogram(
                tb, "a tag so long that the buffer has to grow for it ........................................", 1, &value, 1);
        assert_true(status == LB_OK || status == LB_ERR_MEMORY);
        failures += status != LB_OK;
        assert_ok(ctx, lb_tensorboard_close(tb));
        lb_ctx_destroy(ctx);
        assert_int_equal(a.alive, 0);
    }
    assert_true(failures >= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(scalars, clean),        cmocka_unit_test_teardown(histograms, clean),
        cmocka_unit_test_teardown(resuming, clean),       cmocka_unit_test_teardown(errors, clean),
        cmocka_unit_test_teardown(without_memory, clean),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

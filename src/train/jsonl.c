#include "train/jsonl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define LONGEST_LOG ((size_t)1 << 30)

struct lb_jsonl {
    lb_ctx *ctx;
    char *path;
    FILE *file;
    int error; /* of the first write that failed */
};

/* Is it the line that a run ends with? */
static bool is_end(const json_t *line) {
    const char *event = json_string_value(json_object_get(line, "event"));
    return event && !strcmp(event, "done");
}

/* Keeps, in order, the lines that a run up to `step` wrote; returns how many bytes they take. Lines without a step belong to the
 * line before them. A last line without its end is what a killed run left. The run that goes on writes its end anew. */
static lb_status keep_lines(lb_ctx *ctx, const char *path, char *text, size_t size, int64_t step, size_t *kept) {
    bool keep = true;
    size_t number = 1;
    *kept = 0;
    for (size_t begin = 0, next; begin < size; begin = next, number++) {
        const char *end = memchr(text + begin, '\n', size - begin);
        if (!end)
            break;
        next = (size_t)(end - text) + 1;
        json_error_t error;
        json_t *line = json_loadb(text + begin, next - begin, 0, &error);
        if (!line)
            return json_error_code(&error) == json_error_out_of_memory
                       ? lb_fail(ctx, LB_ERR_MEMORY, "%s: out of memory", path)
                       : lb_fail(ctx, LB_ERR_FORMAT, "%s:%zu: not a line of JSON (%s); move the file away to resume without it",
                                 path, number, error.text);
        const json_t *value = json_object_get(line, "step");
        if (json_is_integer(value))
            keep = json_integer_value(value) <= step && !is_end(line);
        json_decref(line);
        if (keep) {
            memmove(text + *kept, text + begin, next - begin);
            *kept += next - begin;
        }
    }
    return LB_OK;
}

static lb_status cut_back(lb_ctx *ctx, const char *path, int64_t step) {
    unsigned char *text;
    size_t size, kept;
    LB_TRY(lb_read_file(ctx, path, LONGEST_LOG, &text, &size));
    lb_status status = keep_lines(ctx, path, (char *)text, size, step, &kept);
    if (status == LB_OK && kept != size)
        status = lb_write_file(ctx, path, &(lb_span){text, kept}, 1);
    lb_free(ctx, text);
    return status;
}

lb_status lb_jsonl_open(lb_ctx *ctx, const char *path, int64_t resume_step, lb_jsonl **out) {
    *out = NULL;
    if (resume_step >= 0 && lb_exists(path))
        LB_TRY(cut_back(ctx, path, resume_step));
    lb_jsonl *log = lb_alloc(ctx, 1, sizeof *log);
    if (!log)
        return LB_ERR_MEMORY;
    log->ctx = ctx;
    log->path = lb_strdup(ctx, path);
    if (!log->path) {
        lb_jsonl_destroy(log);
        return LB_ERR_MEMORY;
    }
    log->file = fopen(path, resume_step >= 0 ? "ab" : "wb");
    if (!log->file) {
        lb_fail_file(ctx, path, "write", errno);
        lb_jsonl_destroy(log);
        return LB_ERR_IO;
    }
    *out = log;
    return LB_OK;
}

lb_status lb_jsonl_write(lb_jsonl *log, const json_t *object) {
    if (log->error)
        return lb_fail_file(log->ctx, log->path, "write", log->error);
    if (!object)
        return lb_fail(log->ctx, LB_ERR_MEMORY, "%s: out of memory for a line", log->path);
    if (!json_is_object(object))
        return lb_fail(log->ctx, LB_ERR_ARGUMENT, "%s: a line must be an object of numbers and texts", log->path);
    char *text = json_dumps(object, JSON_REAL_PRECISION(12)); /* without indentation there is no line end inside */
    if (!text)
        return lb_fail(log->ctx, LB_ERR_MEMORY, "%s: out of memory for a line", log->path);
    size_t length = strlen(text);
    text[length] = '\n'; /* over the terminator: the line and its end go out together */
    if (fwrite(text, length + 1, 1, log->file) != 1 || fflush(log->file) != 0)
        log->error = errno ? errno : EIO;
    free(text);
    return log->error ? lb_fail_file(log->ctx, log->path, "write", log->error) : LB_OK;
}

json_t *lb_json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

void lb_jsonl_destroy(lb_jsonl *log) {
    if (!log)
        return;
    if (log->file)
        fclose(log->file);
    lb_free(log->ctx, log->path);
    lb_free(log->ctx, log);
}

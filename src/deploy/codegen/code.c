/* C source as text. */
#include <stdio.h>

#include "deploy/codegen/codegen.h"

#define COLUMNS 128

static char *more(lb_code *code, size_t size) {
    if (code->status == LB_OK && size > SIZE_MAX - code->size - 1)
        code->status = lb_fail(code->ctx, LB_ERR_MEMORY, "the generated code is too large for this machine");
    if (code->status == LB_OK)
        code->status = lb_grow(code->ctx, &code->text, &code->capacity, code->size + size + 1, 1);
    return code->status == LB_OK ? code->text + code->size : NULL;
}

static void add(lb_code *code, const char *text, size_t size) {
    char *to = more(code, size);
    if (!to)
        return;
    memcpy(to, text, size);
    to[size] = 0;
    code->size += size;
}

void lb_code_printf(lb_code *code, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int size = vsnprintf(NULL, 0, fmt, args);
    char *to = size >= 0 ? more(code, (size_t)size) : NULL;
    if (to) {
        vsnprintf(to, (size_t)size + 1, fmt, again);
        code->size += (size_t)size;
    }
    va_end(again);
    va_end(args);
}

void lb_code_free(lb_code *code) {
    lb_free(code->ctx, code->text);
    *code = (lb_code){.ctx = code->ctx};
}

/* Question marks are escaped because of trigraphs; octal escapes have three digits, so that what follows cannot join them. */
void lb_code_string(lb_code *code, const char *text) {
    add(code, "\"", 1);
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c < 32 || c > 126)
            lb_code_printf(code, "\\%03o", c);
        else if (c == '"' || c == '\\' || c == '?')
            lb_code_printf(code, "\\%c", c);
        else
            add(code, text, 1);
    }
    add(code, "\"", 1);
}

void lb_code_name(lb_code *code, const char *text) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-";
    for (; *text; text++)
        add(code, strchr(plain, *text) ? text : "_", 1);
}

/* Breaks the line before an item of `size` characters that would not fit. */
static void item(lb_code *code, const char *text, int size, size_t *column) {
    if (*column == 0 || *column + (size_t)size > COLUMNS) {
        if (*column)
            add(code, "\n", 1);
        add(code, "    ", 4);
        *column = 4;
    }
    add(code, text, (size_t)size);
    *column += (size_t)size;
}

void lb_code_bytes(lb_code *code, const uint8_t *values, size_t count) {
    char text[16];
    size_t column = 0;
    for (size_t i = 0; i < count; i++)
        item(code, text, snprintf(text, sizeof text, "%u,", values[i]), &column);
    add(code, "\n", 1);
}

void lb_code_ints(lb_code *code, const int32_t *values, size_t count) {
    char text[16];
    size_t column = 0;
    for (size_t i = 0; i < count; i++) /* the smallest has no literal */
        item(code, text, snprintf(text, sizeof text, values[i] == INT32_MIN ? "INT32_MIN," : "%d,", (int)values[i]), &column);
    add(code, "\n", 1);
}

void lb_code_words(lb_code *code, const uint32_t *values, size_t count) {
    char text[16];
    size_t column = 0;
    for (size_t i = 0; i < count; i++)
        item(code, text, snprintf(text, sizeof text, "0x%08x,", (unsigned)values[i]), &column);
    add(code, "\n", 1);
}

void lb_code_requant(lb_code *code, const lbrt_requant *q) {
    lb_code_printf(code, "{%lld, ", (long long)q->add);
    if (q->mul == INT32_MIN)
        lb_code_printf(code, "INT32_MIN");
    else
        lb_code_printf(code, "%d", (int)q->mul);
    lb_code_printf(code, ", %d}", (int)q->shift);
}

/* Values of keys: from text, into a config, and back into text. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "recipe/keys.h"

/* ---- Parsing ------------------------------------------------------------------------------------------------------- */

/* [+-]digits[.digits][e[+-]digits], at least one digit before e: what strtod reads, minus hexadecimal, inf, nan and spaces. */
static bool is_number(const char *text, bool whole) {
    const char *c = text;
    int digits = 0;
    c += *c == '+' || *c == '-';
    for (; *c >= '0' && *c <= '9'; c++)
        digits++;
    if (whole)
        return digits > 0 && *c == 0;
    if (*c == '.')
        for (c++; *c >= '0' && *c <= '9'; c++)
            digits++;
    if (digits == 0)
        return false;
    if (*c == 'e' || *c == 'E') {
        c++;
        c += *c == '+' || *c == '-';
        if (*c < '0' || *c > '9')
            return false;
        while (*c >= '0' && *c <= '9')
            c++;
    }
    return *c == 0;
}

static bool fail_range(const lb_key *key, const char *given, char why[LB_KEY_WHY]) {
    if (key->type == LB_KEY_UINT64)
        lb_key_append(why, "must be 0 to 18446744073709551615, not %s", given);
    else
        lb_key_append(why, "must be %.10g to %.10g, not %s", key->min, key->max, given);
    return false;
}

/* One number of the key's type. */
static bool parse_number(const lb_key *key, const lb_key_scalar *s, lb_key_value *value, int index, char why[LB_KEY_WHY]) {
    char quoted[80];
    lb_key_quote(s->text, s->length, quoted);
    bool whole = key->type == LB_KEY_INT || key->type == LB_KEY_INT64 || key->type == LB_KEY_UINT64 || key->type == LB_KEY_EDGE;
    if (!s->plain || strlen(s->text) != s->length || !is_number(s->text, whole)) {
        bool other = s->plain && whole && is_number(s->text, false);
        lb_key_append(why, "must be a %s%s, not %s%s%s", whole ? "whole " : "", "number", other ? "" : "the text \"", quoted,
               other ? "" : "\"");
        return false;
    }
    if (!whole) {
        double d = strtod(s->text, NULL);
        if (!(d >= key->min && d <= key->max))
            return fail_range(key, quoted, why);
        /* The bounds are doubles: a value next to one may round past it as a float, which is harmless. */
        value->list[index] = (float)d;
        return true;
    }
    errno = 0;
    if (key->type == LB_KEY_UINT64) {
        value->u = strtoull(s->text, NULL, 10);
        return (errno || s->text[0] == '-') ? fail_range(key, quoted, why) : true;
    }
    long long i = strtoll(s->text, NULL, 10);
    if (errno || (double)i < key->min || (double)i > key->max)
        return fail_range(key, quoted, why);
    value->i = i;
    return true;
}

static int find_choice(const char *const *choices, const char *text) {
    for (int i = 0; choices[i]; i++)
        if (strcmp(choices[i], text) == 0)
            return i;
    return -1;
}

static bool fail_choice(const lb_key *key, const char *given, char why[LB_KEY_WHY]) {
    const char *offered[LB_MAX_CHOICES];
    size_t n = 0;
    for (size_t i = 0; key->choices[i] && n < LB_COUNT(offered); i++)
        if (lb_key_offers(key, key->choices[i]))
            offered[n++] = key->choices[i];
    const char *near = lb_nearest(given, offered, n);
    lb_key_append(why, "must be one of ");
    for (size_t i = 0; i < n; i++)
        lb_key_append(why, "%s%s", i ? ", " : "", offered[i]);
    lb_key_append(why, ", not \"%s\"", given);
    if (near)
        lb_key_append(why, "; did you mean %s?", near);
    return false;
}

/* Valid UTF-8 without control characters. */
static bool is_clean(const char *text, size_t length) {
    const unsigned char *c = (const unsigned char *)text, *end = c + length;
    while (c < end) {
        uint32_t code = *c++;
        if (code < 0x20 || code == 0x7F)
            return false;
        if (code < 0x80)
            continue;
        int more = code >= 0xF0 ? 3 : code >= 0xE0 ? 2 : 1;
        if (code < 0xC2 || code > 0xF4 || end - c < more)
            return false;
        code &= 0x3Fu >> more;
        for (int i = 0; i < more; i++, c++) {
            if ((*c & 0xC0) != 0x80)
                return false;
            code = code << 6 | (*c & 0x3Fu);
        }
        if (code < (more == 1 ? 0x80u : more == 2 ? 0x800u : 0x10000u) || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
            return false;
    }
    return true;
}

static bool parse_one(const lb_key *key, const lb_key_scalar *s, lb_key_value *value, char why[LB_KEY_WHY]) {
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "on", NULL}, *const no[] = {"false", "False", "FALSE",
                                                                                                 "no",    "off",   NULL};
    char quoted[80];
    lb_key_quote(s->text, s->length, quoted);
    switch (key->type) {
    case LB_KEY_BOOL:
        value->i = s->plain && find_choice(yes, s->text) >= 0;
        if (!value->i && !(s->plain && find_choice(no, s->text) >= 0)) {
            lb_key_append(why, "must be true or false, not \"%s\"", quoted);
            return false;
        }
        return true;
    case LB_KEY_TEXT:
        if (s->length >= key->capacity) {
            lb_key_append(why, "must be at most %zu bytes long, not %zu", key->capacity - 1, s->length);
            return false;
        }
        if (!is_clean(s->text, s->length)) {
            lb_key_append(why, "must be UTF-8 text without control characters");
            return false;
        }
        value->text = s->text;
        return true;
    case LB_KEY_NAME:
    case LB_KEY_ENUM:
    case LB_KEY_EDGE:
        if (key->type == LB_KEY_EDGE && s->plain && is_number(s->text, false))
            return parse_number(key, s, value, 0, why);
        value->i = strlen(s->text) == s->length ? find_choice(key->choices, s->text) : -1;
        if (value->i < 0) {
            if (key->type != LB_KEY_EDGE)
                return fail_choice(key, quoted, why);
            lb_key_append(why, "must be float, same, or bits from %g to %g, not \"%s\"", key->min, key->max, quoted);
            return false;
        }
        value->text = key->choices[value->i];
        if (key->type == LB_KEY_EDGE)
            value->i = value->i ? LB_EDGE_SAME : 0;
        return true;
    default:
        return parse_number(key, s, value, 0, why);
    }
}

bool lb_key_parse(const lb_key *key, const lb_key_scalar *scalars, int n, bool is_list, lb_key_value *value, char why[LB_KEY_WHY]) {
    memset(value, 0, sizeof *value);
    why[0] = 0;
    if (is_list != lb_key_is_list(key)) {
        lb_key_append(why, !is_list ? "must be a list such as [0.5, 1]" : "must be one value, not a list");
        return false;
    }
    if (!is_list)
        return parse_one(key, scalars, value, why);
    if (key->type == LB_KEY_PAIR ? n != 2 : (size_t)n > key->capacity) {
        lb_key_append(why, "must have %s%zu numbers, not %d", key->type == LB_KEY_PAIR ? "" : "at most ", key->capacity, n);
        return false;
    }
    for (int i = 0; i < n; i++)
        if (!parse_number(key, &scalars[i], value, i, why))
            return false;
    value->n = n;
    if (key->type == LB_KEY_PAIR && value->list[0] > value->list[1]) {
        lb_key_append(why, "must be [smallest, largest]");
        return false;
    }
    return true;
}

bool lb_key_parse_text(const lb_key *key, const char *text, char buffer[LB_CONFIG_TEXT], lb_key_value *value,
                       char why[LB_KEY_WHY]) {
    size_t length = strlen(text);
    if (!lb_key_is_list(key)) {
        lb_key_scalar scalar = {text, length, true};
        if (key->type == LB_KEY_TEXT && strcmp(text, "\"\"") == 0)
            scalar.text = "", scalar.length = 0;
        return lb_key_parse(key, &scalar, 1, false, value, why);
    }
    lb_key_scalar scalars[LB_KEY_VALUES + 1];
    int n = 0;
    why[0] = 0;
    if (length < 2 || length >= LB_CONFIG_TEXT || text[0] != '[' || text[length - 1] != ']') {
        lb_key_append(why, "must be a list such as [0.5, 1]");
        return false;
    }
    memcpy(buffer, text + 1, length - 2);
    buffer[length - 2] = 0;
    char *c = buffer + strspn(buffer, " ");
    while (*c && n <= LB_KEY_VALUES) {
        size_t piece = strcspn(c, ","), end = piece;
        while (end > 0 && c[end - 1] == ' ')
            end--;
        char *next = c + piece + (c[piece] == ',');
        next += strspn(next, " ");
        c[end] = 0;
        scalars[n++] = (lb_key_scalar){c, end, true};
        c = next;
    }
    return lb_key_parse(key, scalars, n, true, value, why);
}

/* ---- Places in a config -------------------------------------------------------------------------------------------- */

void lb_key_store(const lb_key *key, const lb_key_value *value, void *base) {
    char *at = (char *)base + key->offset;
    switch (key->type) {
    case LB_KEY_SECTION:
        break;
    case LB_KEY_INT:
    case LB_KEY_ENUM:
    case LB_KEY_EDGE:
        memcpy(at, &(int){(int)value->i}, sizeof(int));
        break;
    case LB_KEY_INT64:
        memcpy(at, &value->i, sizeof value->i);
        break;
    case LB_KEY_UINT64:
        memcpy(at, &value->u, sizeof value->u);
        break;
    case LB_KEY_FLOAT:
        memcpy(at, value->list, sizeof(float));
        break;
    case LB_KEY_BOOL:
        memcpy(at, &(bool){value->i != 0}, sizeof(bool));
        break;
    case LB_KEY_TEXT:
    case LB_KEY_NAME: {
        size_t n = LB_MIN(strlen(value->text), key->capacity - 1);
        memset(at, 0, key->capacity);
        memcpy(at, value->text, n);
        break;
    }
    case LB_KEY_LIST:
    case LB_KEY_PAIR:
        memset(at, 0, key->capacity * sizeof(float));
        memcpy(at, value->list, (size_t)value->n * sizeof(float));
        if (key->type == LB_KEY_LIST)
            memcpy((char *)base + key->count_offset, &value->n, sizeof(int));
        break;
    }
}

void lb_key_store_default(const lb_key *key, void *base) {
    if (key->type == LB_KEY_SECTION)
        return;
    char buffer[LB_CONFIG_TEXT], why[LB_KEY_WHY];
    lb_key_value value;
    bool ok = lb_key_parse_text(key, key->fallback, buffer, &value, why);
    (void)ok; /* every default is tested to parse */
    lb_key_store(key, &value, base);
}

/* The value of a key of floats; returns how many there are. */
static int get_floats(const lb_key *key, const void *base, float list[LB_KEY_VALUES]) {
    int n = key->type == LB_KEY_PAIR ? 2 : 1;
    if (key->type == LB_KEY_LIST)
        memcpy(&n, (const char *)base + key->count_offset, sizeof n);
    memcpy(list, (const char *)base + key->offset, (size_t)n * sizeof(float));
    return n;
}

void lb_key_scale(const lb_key *key, void *base, float factor) {
    float list[LB_KEY_VALUES];
    const int n = get_floats(key, base, list);
    for (int i = 0; i < n; i++)
        list[i] *= factor;
    memcpy((char *)base + key->offset, list, (size_t)n * sizeof(float));
}

bool lb_key_is_scaled(const lb_key *key, const void *was, const void *is, double factor) {
    float a[LB_KEY_VALUES], b[LB_KEY_VALUES];
    const int n = get_floats(key, was, a);
    bool scaled = get_floats(key, is, b) == n;
    for (int i = 0; i < n && scaled; i++)
        scaled = !(fabs((double)a[i] * factor - (double)b[i]) > 1e-5 * fabs((double)b[i]));
    return scaled;
}

/* Plain where that is clearly a string again, else double-quoted with escapes. */
static void format_text(const char *text, char out[LB_KEY_FORMAT]) {
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", NULL};
    size_t length = strlen(text);
    bool plain = (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z') || text[0] == '/';
    plain = plain && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./*?") == length;
    for (size_t i = 0; words[i] && plain; i++) {
        size_t k = 0;
        while (words[i][k] && (text[k] | 0x20) == words[i][k])
            k++;
        plain = words[i][k] || text[k];
    }
    if (plain) {
        snprintf(out, LB_KEY_FORMAT, "%s", text);
        return;
    }
    char *o = out, *end = out + LB_KEY_FORMAT - 12;
    *o++ = '"';
    for (const unsigned char *c = (const unsigned char *)text; *c && o < end;) {
        uint32_t code = *c++;
        int more = code >= 0xF0 ? 3 : code >= 0xE0 ? 2 : code >= 0x80 ? 1 : 0;
        if (more == 0) {
            if (code == '"' || code == '\\')
                *o++ = '\\';
            *o++ = (char)code;
            continue;
        }
        code &= 0x3Fu >> more;
        while (more-- > 0 && *c)
            code = code << 6 | (*c++ & 0x3Fu);
        o += snprintf(o, 12, "\\U%08X", (unsigned)code);
    }
    *o++ = '"';
    *o = 0;
}

/* Appends the shortest of %.6g .. %.9g that reads back as the same float. */
static void format_float(float x, char out[LB_KEY_FORMAT]) {
    char number[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(number, sizeof number, "%.*g", digits, (double)x);
        if ((float)strtod(number, NULL) == x)
            break;
    }
    strcat(out, number);
}

void lb_key_format(const lb_key *key, const void *base, char out[LB_KEY_FORMAT]) {
    const char *at = (const char *)base + key->offset;
    int i = 0;
    int64_t i64;
    uint64_t u64;
    float list[LB_KEY_VALUES];
    out[0] = 0;
    switch (key->type) {
    case LB_KEY_SECTION:
        break;
    case LB_KEY_INT:
    case LB_KEY_ENUM:
    case LB_KEY_EDGE:
        memcpy(&i, at, sizeof i);
        if (key->type == LB_KEY_ENUM)
            snprintf(out, LB_KEY_FORMAT, "%s", key->choices[i]);
        else if (key->type == LB_KEY_EDGE && i <= 0)
            snprintf(out, LB_KEY_FORMAT, "%s", i == LB_EDGE_SAME ? "same" : "float");
        else
            snprintf(out, LB_KEY_FORMAT, "%d", i);
        break;
    case LB_KEY_INT64:
        memcpy(&i64, at, sizeof i64);
        snprintf(out, LB_KEY_FORMAT, "%lld", (long long)i64);
        break;
    case LB_KEY_UINT64:
        memcpy(&u64, at, sizeof u64);
        snprintf(out, LB_KEY_FORMAT, "%llu", (unsigned long long)u64);
        break;
    case LB_KEY_FLOAT:
        get_floats(key, base, list);
        format_float(list[0], out);
        break;
    case LB_KEY_BOOL:
        snprintf(out, LB_KEY_FORMAT, "%s", *at ? "true" : "false");
        break;
    case LB_KEY_TEXT:
        format_text(at, out);
        break;
    case LB_KEY_NAME:
        snprintf(out, LB_KEY_FORMAT, "%s", at);
        break;
    case LB_KEY_LIST:
    case LB_KEY_PAIR: {
        const int n = get_floats(key, base, list);
        strcpy(out, "[");
        for (i = 0; i < n; i++) {
            strcat(out, i ? ", " : "");
            format_float(list[i], out);
        }
        strcat(out, "]");
        break;
    }
    }
}

bool lb_key_equal(const lb_key *key, const void *a, const void *b) {
    char x[LB_KEY_FORMAT], y[LB_KEY_FORMAT];
    lb_key_format(key, a, x);
    lb_key_format(key, b, y);
    return strcmp(x, y) == 0;
}

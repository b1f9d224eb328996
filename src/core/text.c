/* Words a user typed: spelling suggestions and patterns. */
#include <ctype.h>

#include "core/core.h"

enum { LONGEST = 64 };

static int lower(char c) { return tolower((unsigned char)c); }

/* Edits (insert, delete, replace, swap neighbours; case is free) that turn `a` into `b`: optimal string alignment distance. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb) {
    size_t rows[3][LONGEST + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *free_row = before;
        before = above;
        above = row;
        row = free_row;
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            bool same = lower(a[i - 1]) == lower(b[j - 1]);
            size_t best = LB_MIN(above[j], row[j - 1]) + 1;
            best = LB_MIN(best, above[j - 1] + !same);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]))
                best = LB_MIN(best, before[j - 2] + 1);
            row[j] = best;
        }
    }
    return row[nb];
}

const char *lb_nearest(const char *word, const char *const *names, size_t count) {
    const char *nearest = NULL;
    size_t least = SIZE_MAX, length = word ? strlen(word) : 0;
    if (!length || length > LONGEST)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t other = names[i] ? strlen(names[i]) : 0;
        if (!other || other > LONGEST)
            continue;
        size_t longer = LB_MAX(length, other);
        size_t near = LB_MIN(LB_MAX(longer / 3, 1), longer - 1); /* a third may differ, but not everything */
        size_t d = distance(word, length, names[i], other);
        if (d <= near && d < least) {
            least = d;
            nearest = names[i];
        }
    }
    return nearest;
}

bool lb_match(const char *pattern, const char *text) {
    const char *star = NULL, *retry = NULL; /* the last * and where the text after it began */
    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            retry = text;
        } else if (*pattern && (*pattern == '?' || *pattern == *text)) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star;
            text = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

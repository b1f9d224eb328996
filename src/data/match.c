/* Labels are numbers; what they mean are the classes' names. */
#include <stdio.h>
#include <stdlib.h>

#include "data/formats.h"

typedef struct named {
    const char *name;
    int label;
} named;

static int by_name(const void *a, const void *b) { return strcmp(((const named *)a)->name, ((const named *)b)->name); }

/* "0", "1", ... name nothing but the labels. */
static bool are_own_numbers(const lb_data *data) {
    char number[16];
    for (int i = 0; i < data->classes; i++) {
        snprintf(number, sizeof number, "%d", i);
        if (strcmp(data->class_names[i], number))
            return false;
    }
    return true;
}

/* to[i]: the label that class i of the data has in the network, -1 if no class there is called so. Returns the first such class, or
 * data->classes. */
static int find_labels(const lb_data *data, const named *sorted, int n, int32_t *to) {
    int unknown = data->classes;
    for (int i = data->classes - 1; i >= 0; i--) {
        const named key = {data->class_names[i], 0};
        const named *found = bsearch(&key, sorted, (size_t)n, sizeof key, by_name);
        to[i] = found ? found->label : -1;
        unknown = found ? unknown : i;
    }
    return unknown;
}

static lb_status take_labels(lb_data *data, const int32_t *to, int n, const char *const *names) {
    for (int s = 0; s < LB_SPLITS; s++)
        for (int64_t i = 0; data->split[s].pixels && i < data->split[s].count; i++)
            data->split[s].labels[i] = to[data->split[s].labels[i]];
    data->class_names = lb_pool_alloc(&data->pool, (size_t)n, sizeof *data->class_names);
    data->classes = data->class_names ? n : 0;
    for (int i = 0; i < data->classes; i++)
        if (!(data->class_names[i] = lb_pool_strdup(&data->pool, names[i])))
            return LB_ERR_MEMORY;
    return data->class_names ? LB_OK : LB_ERR_MEMORY;
}

static lb_status match(lb_data *data, const char *name, int n, const char *const *names, named *sorted, int32_t *to) {
    char theirs[64], ours[64];
    for (int i = 0; i < n; i++) {
        sorted[i] = (named){names[i], i};
        if (!*names[i])
            return LB_OK; /* a name that text could not hold: nothing is known of it */
    }
    qsort(sorted, (size_t)n, sizeof *sorted, by_name);
    const int unknown = find_labels(data, sorted, n, to);
    if (unknown == data->classes)
        return take_labels(data, to, n, names);
    if (are_own_numbers(data))
        return LB_OK;
    lb_printable(theirs, sizeof theirs, data->class_names[unknown]);
    if (data->classes < n)
        return lb_fail(data->ctx, LB_ERR_SHAPE, "%s: %s knows no class called %s; pass data with its classes", data->source, name,
                       theirs);
    lb_printable(ours, sizeof ours, unknown < n ? names[unknown] : "");
    lb_warn(data->ctx, "%s: class %d is called %s, but %s in %s; its classes are taken by number", data->source, unknown, theirs,
            ours, name);
    return LB_OK;
}

lb_status lb_data_match(lb_data *data, const char *name, int n, const char *const *names) {
    if (!names || !data->class_names || n < 1)
        return LB_OK;
    named *sorted = lb_alloc(data->ctx, (size_t)n, sizeof *sorted);
    int32_t *to = lb_alloc(data->ctx, (size_t)data->classes, sizeof *to);
    const lb_status status = sorted && to ? match(data, name, n, names, sorted, to) : LB_ERR_MEMORY;
    lb_free(data->ctx, sorted);
    lb_free(data->ctx, to);
    return status;
}

/* What a network needs to know of its data when the images are not there: kept in checkpoints, so that a run can be packed,
 * exported and inspected on a machine without the data set. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/formats.h"

#define MAX_SIDE 65535
#define UNNAMED "the data set"

static json_t *reals(const float *x, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real((double)x[i]));
    return list;
}

/* `text`, or `otherwise` if it is not UTF-8, as the names of files and folders need not be. */
static json_t *utf8(const char *text, const char *otherwise) {
    json_t *string = json_string(text);
    return string ? string : json_string(otherwise);
}

const char *lb_data_describe(const lb_data *data, lb_pool *pool) {
    const lb_images *images = &data->split[LB_TRAIN];
    json_t *names = json_array();
    for (int i = 0; data->class_names && i < data->classes; i++)
        json_array_append_new(names, utf8(data->class_names[i], ""));
    json_t *root = json_pack("{s:o, s:i, s:i, s:i, s:I, s:i, s:o, s:o, s:o}", "source", utf8(data->source, UNNAMED), "height",
                             images->h, "width", images->w, "channels", images->c, "count", (json_int_t)images->count, "classes",
                             data->classes, "names", names, "mean", reals(data->mean, 4), "std", reals(data->std, 4));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    const char *copy = text ? lb_pool_strdup(pool, text) : NULL;
    free(text);
    json_decref(root);
    return copy;
}

static bool get_reals(const json_t *list, float *x) {
    for (size_t i = 0; i < 4; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_number(value))
            return false;
        x[i] = (float)json_number_value(value);
        if (!isfinite(x[i]))
            return false;
    }
    return true;
}

static lb_status take(lb_data *data, const json_t *root, bool *valid) {
    lb_images *images = &data->split[LB_TRAIN];
    const char *source = NULL;
    json_t *names, *mean, *std;
    json_int_t count;
    *valid = json_unpack((json_t *)root, "{s?s, s:i, s:i, s:i, s:I, s:i, s:o, s:o, s:o}", "source", &source, "height", &images->h,
                         "width", &images->w, "channels", &images->c, "count", &count, "classes", &data->classes, "names", &names,
                         "mean", &mean, "std", &std) == 0 &&
             images->h >= 1 && images->h <= MAX_SIDE && images->w >= 1 && images->w <= MAX_SIDE && images->c >= 1 &&
             images->c <= 4 && count >= 1 && data->classes >= 1 && data->classes <= LB_MAX_CLASSES && get_reals(mean, data->mean) &&
             get_reals(std, data->std) && (json_array_size(names) == 0 || json_array_size(names) == (size_t)data->classes);
    for (int k = 0; *valid && k < images->c; k++)
        *valid = data->std[k] > 0;
    if (!*valid)
        return LB_OK;
    images->count = count;
    if (!(data->source = lb_pool_strdup(&data->pool, source ? source : UNNAMED)))
        return LB_ERR_MEMORY;
    if (json_array_size(names) == 0)
        return LB_OK;
    if (!(data->class_names = lb_pool_alloc(&data->pool, (size_t)data->classes, sizeof *data->class_names)))
        return LB_ERR_MEMORY;
    for (int i = 0; i < data->classes; i++) {
        const char *name = json_string_value(json_array_get(names, (size_t)i));
        *valid &= name != NULL;
        if (!(data->class_names[i] = lb_pool_strdup(&data->pool, name ? name : "")))
            return LB_ERR_MEMORY;
    }
    return lb_clean_class_names(data);
}

lb_status lb_data_described(lb_ctx *ctx, const lb_data_config *config, const char *text, lb_data **out) {
    *out = NULL;
    lb_data *data = lb_data_new(ctx, config);
    if (!data)
        return LB_ERR_MEMORY;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    bool valid = false;
    lb_status status = root ? take(data, root, &valid) : LB_OK;
    json_decref(root);
    if (status == LB_OK && !valid)
        status = lb_fail(ctx, LB_ERR_FORMAT, "\"data\" does not describe a data set: %.60s", text);
    if (status != LB_OK) {
        lb_data_destroy(data);
        return status;
    }
    *out = data;
    return LB_OK;
}

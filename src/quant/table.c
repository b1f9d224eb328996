/* The tables of methods: lists and look-up by name. */
#include "quant/quant.h"

const lb_quantizer *const *lb_quantizer_list(size_t *count) {
#define LB_X(name) &lb_quantizer_##name,
    static const lb_quantizer *const list[] = {LB_QUANTIZERS(LB_X)};
#undef LB_X
    *count = LB_COUNT(list);
    return list;
}

const lb_mixer *const *lb_mixer_list(size_t *count) {
#define LB_X(name) &lb_mixer_##name,
    static const lb_mixer *const list[] = {LB_MIXERS(LB_X)};
#undef LB_X
    *count = LB_COUNT(list);
    return list;
}

const lb_quantizer *lb_quantizer_find(const char *name) {
    size_t count;
    const lb_quantizer *const *list = lb_quantizer_list(&count);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i]->name, name))
            return list[i];
    return NULL;
}

const lb_mixer *lb_mixer_find(const char *name) {
    size_t count;
    const lb_mixer *const *list = lb_mixer_list(&count);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i]->name, name))
            return list[i];
    return NULL;
}

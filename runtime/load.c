/* The loader: header, texts, tensors. Every field is checked before it is used; docs/format.md says what is rejected. */
#include "crc32c.h"
#include "load.h"

const char *lbrt_load_text(lbrt_loader *l) {
    lbrt_reader *r = &l->r;
    for (size_t n = 0; r->what == NULL; n++) {
        if (n >= r->size - r->at)
            lbrt_reject(r, "a text without end");
        else if (r->data[r->at + n] == 0)
            return (const char *)lbrt_get_bytes(r, n + 1);
        else if (r->data[r->at + n] < 32 || r->data[r->at + n] == 127)
            lbrt_reject(r, "a text with control characters");
        else if (n >= LBRT_MAX_TEXT)
            lbrt_reject(r, "a text too long");
    }
    return "";
}

static lbrt_tensor read_shape(lbrt_reader *r) {
    lbrt_tensor t;
    t.h = lbrt_get_within(r, 1, LBRT_MAX_SIDE, "a tensor's height");
    t.w = lbrt_get_within(r, 1, LBRT_MAX_SIDE, "a tensor's width");
    t.c = lbrt_get_within(r, 1, LBRT_MAX_CHANNELS, "a tensor's number of channels");
    if ((uint64_t)t.h * (uint64_t)t.w > LBRT_MAX_ELEMENTS || (uint64_t)t.h * (uint64_t)t.w * (uint64_t)t.c > LBRT_MAX_ELEMENTS)
        lbrt_reject(r, "a tensor too large");
    t.type = LBRT_U8;
    t.lo = 0;
    t.hi = 255;
    return t;
}

static lbrt_tensor read_tensor(lbrt_reader *r) {
    static const int32_t lowest[LBRT_TYPES] = {0, INT8_MIN, INT32_MIN, 0}, highest[LBRT_TYPES] = {255, INT8_MAX, INT32_MAX, 0};
    lbrt_tensor t = read_shape(r);
    t.type = lbrt_get_within(r, 0, LBRT_TYPES - 1, "a tensor's type");
    t.lo = t.hi = 0;
    if (t.type != LBRT_F32) {
        t.lo = lbrt_get_snum(r);
        t.hi = lbrt_get_snum(r);
        if (t.lo > t.hi || t.lo < lowest[t.type] || t.hi > highest[t.type])
            lbrt_reject(r, "a tensor's range");
    }
    return t;
}

lbrt_tensor lbrt_load_tensor(lbrt_loader *l, int32_t index) {
    if (index == 0)
        return l->image;
    lbrt_reader r = l->r; /* the table was read once without failure */
    lbrt_tensor t = l->image;
    r.at = l->tensors_at[(index - 1) / LBRT_LEAP];
    for (int32_t i = (index - 1) / LBRT_LEAP * LBRT_LEAP; i < index; i++)
        t = read_tensor(&r);
    return t;
}

/* What the file's first bytes say, before anything of the body is believed. */
static lbrt_status check_header(const uint8_t *data, size_t size) {
    static const uint8_t magic[4] = {'L', 'B', 'M', 0x1a};
    for (size_t i = 0; i < 4; i++)
        if (i >= size)
            return LBRT_ERR_TRUNCATED;
        else if (data[i] != magic[i])
            return LBRT_ERR_MAGIC;
    if (size < LBRT_HEADER_SIZE)
        return LBRT_ERR_TRUNCATED;
    lbrt_reader r = {data, size, 4, NULL};
    const uint32_t version = lbrt_get_u32(&r), stated = lbrt_get_u32(&r), checksum = lbrt_get_u32(&r);
    if (version != LBRT_FORMAT_VERSION)
        return LBRT_ERR_VERSION;
    if (stated > size)
        return LBRT_ERR_TRUNCATED;
    if (stated != size || stated < LBRT_HEADER_SIZE)
        return LBRT_ERR_FIELD;
    uint32_t crc = lbrt_crc32c(0, data, LBRT_CHECKSUM_AT);
    crc = lbrt_crc32c(crc, data + LBRT_HEADER_SIZE, size - LBRT_HEADER_SIZE);
    return crc == checksum ? LBRT_OK : LBRT_ERR_CHECKSUM;
}

/* The functions below fill what lbrt_take gives them, which is nothing while the file is only checked and its memory counted. */

/* NULL: the classes have no names. */
static const char **load_class_names(lbrt_loader *l, int32_t classes) {
    lbrt_reader *r = &l->r;
    if (!lbrt_get_within(r, 0, 1, "whether classes have names"))
        return NULL;
    if ((size_t)classes > r->size - r->at)
        lbrt_reject(r, "data behind the end");
    const char **names = lbrt_take(&l->carve, r->what == NULL ? (size_t)classes : 0, sizeof *names);
    for (int32_t i = 0; i < classes && r->what == NULL; i++) {
        const char *name = lbrt_load_text(l);
        if (names != NULL)
            names[i] = name;
    }
    return names;
}

/* The image and the results of all layers, the last of which are the scores. */
static lbrt_tensor *load_tensors(lbrt_loader *l, int32_t classes) {
    lbrt_reader *r = &l->r;
    lbrt_tensor *tensors = lbrt_take(&l->carve, (size_t)l->ntensors, sizeof *tensors);
    lbrt_tensor last = l->image;
    if (tensors != NULL)
        tensors[0] = l->image;
    for (int32_t i = 1; i < l->ntensors && r->what == NULL; i++) {
        if ((i - 1) % LBRT_LEAP == 0)
            l->tensors_at[(i - 1) / LBRT_LEAP] = r->at;
        last = read_tensor(r);
        if (tensors != NULL)
            tensors[i] = last;
    }
    if (last.h != 1 || last.w != 1 || last.c != classes || last.type != LBRT_I32)
        lbrt_reject(r, "the output is not one 32-bit score per class");
    return tensors;
}

static void load_layers(lbrt_loader *l, lbrt_layer *layers, lbrt_step *steps, lbrt_info *info) {
    lbrt_reader *r = &l->r;
    for (int32_t i = 0; i < l->nlayers && r->what == NULL; i++) {
        lbrt_layer layer;
        lbrt_step step;
        l->layer = i;
        lbrt_load_layer(l, i, &layer, &step);
        info->has_float |= layer.is_float;
        if (layers != NULL)
            layers[i] = layer;
        if (steps != NULL)
            steps[i] = step;
    }
    if (r->what == NULL)
        l->layer = -1;
    if (r->at != r->size)
        lbrt_reject(r, "data after the last layer");
}

/* Weights and tables as the chosen kernels want them. */
static void prepare_layers(const lbrt_graph *graph, const lbrt_step *steps) {
    for (int32_t i = 0; i < graph->nlayers; i++) {
        const lbrt_site site = lbrt_site_of(graph, i);
        if (steps[i].kernel->prepare != NULL)
            steps[i].kernel->prepare(&site, steps[i].prepared);
    }
}

/* The body into `model` (NULL: only check and count). */
static void load_body(lbrt_loader *l, lbrt_model *model, lbrt_info *info) {
    lbrt_reader *r = &l->r;
    info->name = lbrt_load_text(l);
    const int32_t nmetadata = lbrt_get_within(r, 0, LBRT_MAX_CHANNELS, "the number of notes");
    const size_t metadata_at = r->at;
    for (int32_t i = 0; i < 2 * nmetadata && r->what == NULL; i++)
        lbrt_load_text(l);
    const int32_t classes = lbrt_get_within(r, 1, LBRT_MAX_CHANNELS, "the number of classes");
    const char **names = load_class_names(l, classes);
    l->image = read_shape(r);
    l->nlayers = lbrt_get_within(r, 1, LBRT_MAX_LAYERS, "the number of layers");
    l->ntensors = l->nlayers + 1;
    lbrt_tensor *tensors = load_tensors(l, classes);
    lbrt_layer *layers = lbrt_take(&l->carve, (size_t)l->nlayers, sizeof *layers);
    lbrt_step *steps = lbrt_take(&l->carve, (size_t)l->nlayers, sizeof *steps);
    lbrt_slot *slots = lbrt_take(&l->carve, (size_t)l->ntensors, sizeof *slots);
    load_layers(l, layers, steps, info);

    info->ih = l->image.h;
    info->iw = l->image.w;
    info->ic = l->image.c;
    info->classes = classes;
    info->layers = l->nlayers;
    if (model == NULL || r->what != NULL)
        return;
    model->info = *info;
    model->graph.name = info->name;
    model->graph.classes = classes;
    model->graph.class_names = names;
    model->graph.ntensors = l->ntensors;
    model->graph.nlayers = l->nlayers;
    model->graph.tensors = tensors;
    model->graph.layers = layers;
    model->steps = steps;
    model->slots = slots;
    model->metadata = (const char *)r->data + metadata_at;
    model->nmetadata = nmetadata;
    model->scratch = l->scratch;
    prepare_layers(&model->graph, steps);
    model->peak = lbrt_plan(&model->graph, slots);
    lbrt_lay_out(&model->graph, steps, slots);
}

/* info->model_size is enough for the kernels of either instruction set. */
static lbrt_status probe(const void *file, size_t size, lbrt_isa isa, lbrt_isa other, lbrt_info *info, const char **what,
                         int *layer) {
    lbrt_loader l;
    *what = NULL;
    *layer = -1;
    if (info == NULL)
        return LBRT_ERR_ARGUMENT;
    memset(&l, 0, sizeof l);
    memset(info, 0, sizeof *info);
    info->name = "";
    if (file == NULL || (unsigned)isa > (unsigned)LBRT_LAST_ISA)
        return LBRT_ERR_ARGUMENT;
    const lbrt_status status = check_header(file, size);
    if (status != LBRT_OK)
        return status;
    l.r.data = file;
    l.r.size = size;
    l.r.at = LBRT_HEADER_SIZE;
    l.layer = -1;
    l.isa = isa;
    l.other = other;
    lbrt_take(&l.carve, 1, sizeof(lbrt_model));
    load_body(&l, NULL, info);
    info->model_size = lbrt_size_add(l.carve.used, LBRT_ALIGN - 1);
    if (info->model_size == SIZE_MAX)
        lbrt_reject(&l.r, "a model too large for this machine");
    if (l.r.what != NULL) {
        memset(info, 0, sizeof *info);
        info->name = "";
        *what = l.r.what;
        *layer = l.layer;
        return LBRT_ERR_FIELD;
    }
    return LBRT_OK;
}

/* Of a model that was probed. */
static lbrt_status open_probed(const lbrt_info *info, const void *file, size_t size, lbrt_isa isa, void *memory, size_t memory_size,
                               lbrt_model **model) {
    if (memory == NULL || memory_size < info->model_size)
        return LBRT_ERR_MEMORY;
    lbrt_loader l;
    memset(&l, 0, sizeof l);
    l.r.data = file;
    l.r.size = size;
    l.r.at = LBRT_HEADER_SIZE;
    l.layer = -1;
    l.isa = l.other = isa;
    l.carve.base = lbrt_align_up(memory);
    lbrt_model *m = lbrt_take(&l.carve, 1, sizeof *m);
    memset(m, 0, sizeof *m);
    lbrt_info again = *info;
    load_body(&l, m, &again);
    if (l.r.what != NULL)
        return LBRT_ERR_FIELD;
    *model = m;
    return LBRT_OK;
}

/* For what lbrt_best_isa says now or later, which is not asked. */
lbrt_status lbrt_probe(const void *file, size_t size, lbrt_info *info) {
    const char *what;
    int layer;
    return probe(file, size, lbrt_processor_isa(), lbrt_best_isa_unasked(), info, &what, &layer);
}

lbrt_status lbrt_open(const void *file, size_t size, void *memory, size_t memory_size, lbrt_model **model) {
    if (model == NULL)
        return LBRT_ERR_ARGUMENT;
    *model = NULL;
    lbrt_info info;
    const lbrt_status status = lbrt_probe(file, size, &info);
    return status == LBRT_OK ? open_probed(&info, file, size, lbrt_best_isa(), memory, memory_size, model) : status;
}

lbrt_status lbrt_probe_why(const void *file, size_t size, lbrt_isa isa, lbrt_info *info, const char **what, int *layer) {
    const char *some_what;
    int some_layer;
    return probe(file, size, isa, isa, info, what != NULL ? what : &some_what, layer != NULL ? layer : &some_layer);
}

lbrt_status lbrt_open_isa(const void *file, size_t size, lbrt_isa isa, void *memory, size_t memory_size, lbrt_model **model) {
    if (model == NULL)
        return LBRT_ERR_ARGUMENT;
    *model = NULL;
    lbrt_info info;
    const lbrt_status status = lbrt_probe_why(file, size, isa, &info, NULL, NULL);
    return status == LBRT_OK ? open_probed(&info, file, size, isa, memory, memory_size, model) : status;
}

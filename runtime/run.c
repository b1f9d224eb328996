/* An opened model: running it, and asking about it. */
#include "internal.h"

const char *lbrt_version(void) { return LBRT_VERSION; }

const char *lbrt_status_text(lbrt_status status) {
    switch (status) {
    case LBRT_OK: return "done";
    case LBRT_ERR_TRUNCATED: return "the model file is truncated";
    case LBRT_ERR_MAGIC: return "not a packed model (wrong magic)";
    case LBRT_ERR_VERSION: return "a packed model of another format version";
    case LBRT_ERR_CHECKSUM: return "the model file was altered (wrong checksum)";
    case LBRT_ERR_FIELD: return "a field of the model file has an impossible value";
    case LBRT_ERR_MEMORY: return "the memory given is too small";
    case LBRT_ERR_ARGUMENT: return "wrong argument";
    }
    return "unknown status";
}

const lbrt_graph *lbrt_model_graph(const lbrt_model *model) { return &model->graph; }

const char *lbrt_layer_kernel(const lbrt_model *model, int layer) { return model->steps[layer].kernel->name; }

void lbrt_model_info(const lbrt_model *model, lbrt_info *info) { *info = model->info; }

const char *lbrt_class_name(const lbrt_model *model, int i) {
    const int named = model != NULL && model->graph.class_names != NULL && i >= 0 && i < model->graph.classes;
    return named ? model->graph.class_names[i] : "";
}

static const char *after(const char *text) {
    while (*text != 0)
        text++;
    return text + 1;
}

int lbrt_metadata_at(const lbrt_model *model, int i, const char **key, const char **value) {
    if (model == NULL || key == NULL || value == NULL || i < 0 || i >= model->nmetadata)
        return 0;
    const char *text = model->metadata;
    for (int k = 0; k < 2 * i; k++)
        text = after(text);
    *key = text;
    *value = after(text);
    return 1;
}

const char *lbrt_metadata(const lbrt_model *model, const char *key) {
    if (model == NULL || key == NULL)
        return NULL;
    const char *text = model->metadata;
    for (int i = 0; i < model->nmetadata; i++) {
        const char *value = after(text);
        size_t n = 0;
        while (text[n] != 0 && text[n] == key[n])
            n++;
        if (text[n] == key[n])
            return value;
        text = after(value);
    }
    return NULL;
}

/* Scratch of one piece of a layer, so that the next one's is aligned too. */
static size_t scratch_size(const lbrt_model *model) {
    return lbrt_size_add(model->scratch, LBRT_ALIGN - 1) & ~(size_t)(LBRT_ALIGN - 1);
}

#define TOGETHER ((size_t)512 << 10) /* bytes of tensors of a thread: more take longer to reach than their images save */

static int images_together(const lbrt_model *model, int count) {
    const size_t images = lbrt_size_mul(TOGETHER, (size_t)count) / (model->peak > 0 ? model->peak : 1);
    return images < 1 ? 1 : images > INT16_MAX ? INT16_MAX : (int)images;
}

size_t lbrt_arena_size_layers(const lbrt_model *model, int mb, int count) {
    if (model == NULL || mb <= 0 || count <= 0)
        return 0;
    size_t size = lbrt_size_mul(model->peak, (size_t)mb);
    size = lbrt_size_add(size, lbrt_size_add(lbrt_size_mul(scratch_size(model), (size_t)count), 2 * LBRT_ALIGN));
    return size > PTRDIFF_MAX ? 0 : size;
}

size_t lbrt_arena_size(const lbrt_model *model, int mb) { return lbrt_arena_size_threads(model, mb, 1); }

size_t lbrt_arena_size_threads(const lbrt_model *model, int mb, int count) {
    if (model == NULL || mb <= 0 || count <= 0)
        return 0;
    const lbrt_graph *g = &model->graph; /* all images and scores are the caller's, but they are counted too */
    if (lbrt_size_mul(lbrt_tensor_bytes(&g->tensors[0]), (size_t)mb) > PTRDIFF_MAX ||
        lbrt_size_mul(lbrt_tensor_bytes(&g->tensors[g->ntensors - 1]), (size_t)mb) > PTRDIFF_MAX)
        return 0;
    const int most = images_together(model, count);
    return lbrt_arena_size_layers(model, mb < most ? mb : most, count);
}

/* A layer in pieces of rows. */
typedef struct pieces {
    lbrt_call call; /* rows and scratch of the whole */
    void (*run)(const lbrt_call *call);
    size_t scratch; /* bytes of each */
    int count;
} pieces;

static void run_piece(void *arg, int i) {
    const pieces *p = arg;
    const size_t rows = p->call.row1;
    lbrt_call call = p->call;
    /* Pairs of rows stay together: Winograd's tiles are two high. */
    call.row0 = rows * (size_t)i / (size_t)p->count & ~(size_t)1;
    call.row1 = i + 1 == p->count ? rows : rows * ((size_t)i + 1) / (size_t)p->count & ~(size_t)1;
    call.scratch = (uint8_t *)p->call.scratch + (size_t)i * p->scratch;
    if (call.row0 < call.row1)
        p->run(&call);
}

#define PIECE_PRODUCTS 1000000 /* fewer take less time than waking a thread */

static int count_pieces(const lbrt_site *site, int mb, int count) {
    const size_t rows = (size_t)mb * (size_t)site->dst->h;
    const size_t each = site->layer->op == LBRT_OP_CONV ? (size_t)lbrt_weights_per_channel(site->layer, site->src) : 4;
    const size_t products = lbrt_size_mul(lbrt_size_mul(rows, (size_t)site->dst->w * (size_t)site->dst->c), each);
    if (products / PIECE_PRODUCTS < (size_t)count)
        count = (int)(products / PIECE_PRODUCTS);
    if (rows / 2 < (size_t)count)
        count = (int)(rows / 2);
    return count;
}

static const void *tensor_data(const lbrt_model *model, int32_t tensor, const uint8_t *images, const uint8_t *base, int mb) {
    return tensor == 0 ? images : base + model->slots[tensor].offset * (size_t)mb;
}

static uint32_t planar_of(const lbrt_model *model, int32_t layer) {
    const lbrt_layer *l = &model->graph.layers[layer];
    const int res = l->epilogue.flags & LBRT_RESIDUAL && model->slots[l->epilogue.residual].planar;
    return (model->slots[l->src].planar ? LBRT_PLANAR_SRC : 0u) | (model->slots[layer + 1].planar ? LBRT_PLANAR_DST : 0u) |
           (res ? LBRT_PLANAR_RES : 0u);
}

lbrt_status lbrt_run_layers(const lbrt_model *model, int first, int last, const uint8_t *images, int mb, void *arena,
                            size_t arena_size, int32_t *scores, const lbrt_threads *threads) {
    const int count = threads != NULL ? threads->count : 1;
    const size_t need = lbrt_arena_size_layers(model, mb, count);
    if (need == 0 || images == NULL || scores == NULL || arena == NULL || (count > 1 && threads->parallel_for == NULL))
        return LBRT_ERR_ARGUMENT;
    if (arena_size < need)
        return LBRT_ERR_MEMORY;
    const lbrt_graph *g = &model->graph;
    uint8_t *base = lbrt_align_up(arena);
    for (int32_t i = first; i < last; i++) {
        const lbrt_layer *l = &g->layers[i];
        pieces p;
        lbrt_call *call = &p.call;
        call->site = lbrt_site_of(g, i);
        call->planar = planar_of(model, i);
        call->prepared = model->steps[i].prepared;
        call->tensors = g->tensors;
        call->src = tensor_data(model, l->src, images, base, mb);
        call->res = call->site.res != NULL ? tensor_data(model, l->epilogue.residual, images, base, mb) : NULL;
        for (int32_t k = 0; k < l->nsources; k++)
            call->sources[k] = tensor_data(model, l->sources[k], images, base, mb);
        call->dst = i + 1 == g->nlayers ? (void *)scores : base + model->slots[i + 1].offset * (size_t)mb;
        call->scratch = base + model->peak * (size_t)mb;
        call->row0 = 0;
        call->row1 = (size_t)mb * (size_t)call->site.dst->h;
        p.run = model->steps[i].kernel->run;
        p.scratch = scratch_size(model);
        p.count = count > 1 ? count_pieces(&call->site, mb, count) : 1;
        if (p.count > 1)
            threads->parallel_for(threads->user, p.count, run_piece, &p);
        else
            p.run(call);
    }
    return LBRT_OK;
}

lbrt_status lbrt_run_threads(const lbrt_model *model, const uint8_t *images, int mb, void *arena, size_t arena_size,
                             int32_t *scores, const lbrt_threads *threads) {
    const int count = threads != NULL ? threads->count : 1;
    const size_t need = lbrt_arena_size_threads(model, mb, count);
    if (need == 0 || images == NULL || scores == NULL || arena == NULL || (count > 1 && threads->parallel_for == NULL))
        return LBRT_ERR_ARGUMENT;
    if (arena_size < need)
        return LBRT_ERR_MEMORY;
    const lbrt_graph *g = &model->graph;
    const int most = images_together(model, count);
    lbrt_status status = LBRT_OK;
    for (int done = 0, some; done < mb && status == LBRT_OK; done += some) {
        some = mb - done < most ? mb - done : most;
        status = lbrt_run_layers(model, 0, g->nlayers, images + (size_t)done * lbrt_elements(&g->tensors[0]), some, arena,
                                 arena_size, scores + (size_t)done * (size_t)g->classes, threads);
    }
    return status;
}

lbrt_status lbrt_run(const lbrt_model *model, const uint8_t *images, int mb, void *arena, size_t arena_size, int32_t *scores) {
    return lbrt_run_threads(model, images, mb, arena, arena_size, scores, NULL);
}

int lbrt_argmax(const int32_t *scores, int count) {
    int best = 0;
    for (int i = 1; i < count; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}

/* The kernel that moves channels: for all types, integer or float, on every instruction set. */
#include "internal.h"

static int accepts(const lbrt_site *site) {
    (void)site;
    return 1;
}

static void copy_run(const lbrt_call *call) {
    const lbrt_layer *l = call->site.layer;
    const lbrt_tensor *dst = call->site.dst;
    const size_t size = lbrt_type_size(dst->type), to = (size_t)dst->c * size, sh = (size_t)l->sh, sw = (size_t)l->sw;
    for (size_t row = call->row0; row < call->row1; row++) {
        const size_t n = row / (size_t)dst->h, y = row % (size_t)dst->h;
        const size_t from_row = l->rows == NULL ? y * sh : l->rows[y] < 0 ? SIZE_MAX : (size_t)l->rows[y];
        const size_t first = (n * (size_t)call->site.src->h + from_row) * (size_t)call->site.src->w;
        uint8_t *out = (uint8_t *)call->dst + row * (size_t)dst->w * to;
        if (l->zeros)
            memset(out, 0, (size_t)dst->w * to);
        for (int32_t p = 0; p < l->nparts && from_row != SIZE_MAX; p++) {
            const lbrt_part *part = &l->parts[p];
            const size_t from = (size_t)call->tensors[l->sources[part->source]].c * size, bytes = (size_t)part->count * size;
            const uint8_t *src = (const uint8_t *)call->sources[part->source] + first * from + (size_t)part->src * size;
            uint8_t *at = out + (size_t)part->dst * size;
            for (size_t x = 0; x < (size_t)dst->w; x++) {
                if (l->cols == NULL)
                    memcpy(at + x * to, src + x * sw * from, bytes);
                else if (l->cols[x] >= 0)
                    memcpy(at + x * to, src + (size_t)l->cols[x] * from, bytes);
            }
        }
    }
}

const lbrt_kernel lbrt_ref_copy = {.name = "copy", .op = LBRT_OP_COPY, .accepts = accepts, .run = copy_run};

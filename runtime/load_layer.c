/* The loader: one layer. */
#include "load.h"

#include <float.h>

/* Source, kernel, stride, padding; checks that the result has dst's shape. */
static void read_geometry(lbrt_loader *l, lbrt_layer *layer, const lbrt_site *site, uint32_t options) {
    lbrt_reader *r = &l->r;
    const int square = (options & LBRT_FILE_SQUARE) != 0;
    layer->kh = layer->kw = lbrt_get_within(r, 1, LBRT_MAX_SIDE, "a kernel's height");
    if (!square)
        layer->kw = lbrt_get_within(r, 1, LBRT_MAX_SIDE, "a kernel's width");
    layer->sh = layer->sw = lbrt_get_within(r, 1, LBRT_MAX_SIDE, "a stride");
    if (!square)
        layer->sw = lbrt_get_within(r, 1, LBRT_MAX_SIDE, "a stride");
    layer->pt = layer->pl = layer->pb = layer->pr = lbrt_get_within(r, 0, LBRT_MAX_SIDE, "a padding");
    if (!square) {
        layer->pl = lbrt_get_within(r, 0, LBRT_MAX_SIDE, "a padding");
        layer->pb = lbrt_get_within(r, 0, LBRT_MAX_SIDE, "a padding");
        layer->pr = lbrt_get_within(r, 0, LBRT_MAX_SIDE, "a padding");
    }
    if (options & LBRT_FILE_DILATED) {
        layer->gap_h = lbrt_get_within(r, 0, LBRT_MAX_SIDE, "pixels between taps");
        layer->gap_w = lbrt_get_within(r, 0, LBRT_MAX_SIDE, "pixels between taps");
        if ((int64_t)(layer->kh - 1) * (layer->gap_h + 1) > LBRT_MAX_SIDE ||
            (int64_t)(layer->kw - 1) * (layer->gap_w + 1) > LBRT_MAX_SIDE)
            lbrt_reject(r, "a kernel that spans too much");
        if (!lbrt_is_dilated(layer))
            lbrt_reject(r, "a layer's options");
        if (r->what != NULL)
            return;
    }
    const lbrt_tensor view = lbrt_view(site);
    const int32_t h = view.h + layer->pt + layer->pb - layer->kh - (layer->kh - 1) * layer->gap_h;
    const int32_t w = view.w + layer->pl + layer->pr - layer->kw - (layer->kw - 1) * layer->gap_w;
    if (h < 0 || w < 0 || h / layer->sh + 1 != site->dst->h || w / layer->sw + 1 != site->dst->w)
        lbrt_reject(r, "kernel, stride and padding do not give the stated shape");
    if (layer->op != LBRT_OP_CONV &&
        (layer->pt >= layer->kh || layer->pb >= layer->kh || layer->pl >= layer->kw || layer->pr >= layer->kw))
        lbrt_reject(r, "a pool's padding is as large as its window");
    layer->inside = (options & LBRT_FILE_INSIDE) != 0;
    if (layer->inside && ((int64_t)layer->kh * layer->kw > LBRT_MAX_ELEMENTS || view.type == LBRT_U8 || view.type == LBRT_I8))
        lbrt_reject(r, "a pool of what lies inside that is too large, or of bytes");
    if (layer->flat &&
        (layer->kh != 1 || layer->kw != 1 || layer->sh != 1 || layer->sw != 1 || layer->pt || layer->pl || layer->pb || layer->pr))
        lbrt_reject(r, "a flat layer with a kernel");
}

static void read_weights(lbrt_loader *l, lbrt_layer *layer, const lbrt_site *site) {
    lbrt_reader *r = &l->r;
    const lbrt_tensor view = lbrt_view(site);
    lbrt_weights *w = &layer->weights;
    layer->groups = lbrt_get_within(r, 1, LBRT_MAX_CHANNELS, "a number of groups");
    if (view.c % layer->groups != 0 || site->dst->c % layer->groups != 0)
        lbrt_reject(r, "groups that do not divide the channels");
    const uint64_t count64 = (uint64_t)layer->kh * (uint64_t)layer->kw * (uint64_t)(view.c / layer->groups);
    if (count64 > LBRT_MAX_ELEMENTS)
        lbrt_reject(r, "weights too many");
    w->bits = (int32_t)lbrt_get_u8(r);
    if (w->bits != 32 && (w->bits < 1 || w->bits > 8))
        lbrt_reject(r, "weights of other than 1 to 8 or 32 bits");
    if (r->what != NULL)
        return;
    const size_t oc = (size_t)site->dst->c, count = (size_t)count64;
    if (w->bits == 32) {
        if (!layer->is_float)
            lbrt_reject(r, "float weights in an integer layer");
        if (count > (r->size - r->at) / 4 / oc)
            lbrt_reject(r, "data behind the end");
        if (r->what != NULL)
            return;
        float *f32 = lbrt_take(&l->carve, oc * count, sizeof *f32);
        for (size_t i = 0; i < oc * count; i++) {
            const float v = lbrt_get_f32(r, 0);
            if (f32 != NULL)
                f32[i] = v;
        }
        w->f32 = f32;
        return;
    }
    w->mul = lbrt_get_snum(r);
    w->add = lbrt_get_snum(r);
    const int64_t first = w->add, last = (int64_t)w->mul * ((1 << w->bits) - 1) + w->add;
    if (first < -INT16_MAX || first > INT16_MAX || last < -INT16_MAX || last > INT16_MAX)
        lbrt_reject(r, "weights that do not fit 16 bits");
    const size_t row = lbrt_packed_bytes((int32_t)count, w->bits);
    if (row > (r->size - r->at) / oc)
        lbrt_reject(r, "data behind the end");
    w->packed = lbrt_get_bytes(r, r->what == NULL ? oc * row : 0);
    const size_t used = count * (size_t)w->bits % 8;
    for (size_t i = 0; i < oc && used != 0 && r->what == NULL; i++)
        if (w->packed[(i + 1) * row - 1] >> used != 0)
            lbrt_reject(r, "unused bits that are not 0");
}

/* A block of multiply-shifts: what all have in common, and the bits of each. */
typedef struct requant_block {
    lbrt_bits bits;
    unsigned mul, shift, add; /* bits of each */
    int32_t fraction, least;  /* the smallest shift */
} requant_block;

static requant_block start_requants(lbrt_reader *r, int32_t n) {
    requant_block b;
    b.mul = lbrt_get_u8(r);
    b.add = lbrt_get_u8(r);
    b.fraction = (int32_t)lbrt_get_u8(r);
    b.least = (int32_t)lbrt_get_u8(r);
    b.shift = lbrt_get_u8(r);
    if (b.mul < 1 || b.mul > 32 || b.add > 62 || b.fraction > LBRT_MAX_SHIFT || b.least > LBRT_MAX_SHIFT || b.shift > 6)
        lbrt_reject(r, "a multiply-shift block's header");
    b.bits = lbrt_get_bits(r, (size_t)n, b.mul + b.shift + b.add);
    return b;
}

static lbrt_requant next_requant(lbrt_reader *r, requant_block *b) {
    lbrt_requant q = {0, 0, 0};
    if (r->what != NULL)
        return q;
    q.mul = (int32_t)lbrt_take_signed(&b->bits, b->mul);
    q.shift = b->least + (int32_t)lbrt_take_bits(&b->bits, b->shift);
    const int64_t add = lbrt_take_signed(&b->bits, b->add);
    const int zeros = q.shift > b->fraction ? q.shift - b->fraction : 0;
    const int64_t limit = ((int64_t)1 << 61) >> (zeros < 61 ? zeros : 61);
    if (q.shift > LBRT_MAX_SHIFT || add <= -limit || add >= limit)
        lbrt_reject(r, "a multiply-shift out of range");
    else
        q.add = add * ((int64_t)1 << zeros);
    return q;
}

/* One alone. */
static lbrt_requant read_requant(lbrt_reader *r) {
    requant_block b = start_requants(r, 1);
    return next_requant(r, &b);
}

/* The requants of all channels. But for the input layer, proves the range of each channel. */
static const lbrt_requant *read_requants(lbrt_loader *l, const lbrt_layer *layer, const lbrt_site *site, int32_t *lo, int32_t *hi) {
    lbrt_reader *r = &l->r;
    const int32_t n = site->dst->c;
    requant_block block = start_requants(r, n);
    if (r->what != NULL)
        return NULL;
    lbrt_requant *all = lbrt_take(&l->carve, (size_t)n, sizeof *all);
    for (int32_t c = 0; c < n && r->what == NULL; c++) {
        const lbrt_requant q = next_requant(r, &block);
        if (r->what == NULL && layer->op != LBRT_OP_INPUT && !lbrt_channel_range(site, c, &q, lo, hi))
            lbrt_reject(r, "sums that could leave 32 bits");
        if (all != NULL)
            all[c] = q;
    }
    return all;
}

static void read_scale_offset(lbrt_loader *l, lbrt_epilogue *e, int32_t n) {
    lbrt_reader *r = &l->r;
    if ((size_t)n > (r->size - r->at) / 8)
        lbrt_reject(r, "data behind the end");
    if (r->what != NULL)
        return;
    float *both[2];
    for (int i = 0; i < 2; i++) {
        both[i] = lbrt_take(&l->carve, (size_t)n, sizeof *both[i]);
        for (int32_t c = 0; c < n; c++) {
            const float v = lbrt_get_f32(r, 0);
            if (both[i] != NULL)
                both[i][c] = v;
        }
    }
    e->scale = both[0];
    e->offset = both[1];
}

static void read_codes(lbrt_reader *r, lbrt_epilogue *e) {
    if (e->flags & LBRT_SIGN) {
        e->qlo = -1;
        e->qhi = 1;
        return;
    }
    e->qlo = lbrt_get_snum(r);
    e->qhi = lbrt_get_snum(r);
    if (e->qlo > e->qhi)
        lbrt_reject(r, "codes whose range is empty");
}

/* The first threshold of each channel, and how far each one is from the one before: upwards, or downwards where it is flipped. */
static void read_thresholds(lbrt_loader *l, lbrt_epilogue *e, int32_t n) {
    lbrt_reader *r = &l->r;
    read_codes(r, e);
    const int flips = lbrt_get_within(r, 0, 1, "whether thresholds are flipped");
    const uint32_t first = lbrt_get_u8(r), step = lbrt_get_u8(r);
    const int64_t count = e->flags & LBRT_SIGN ? 1 : (int64_t)e->qhi - e->qlo;
    if (first < 1 || first > 32 || step > 32 || count < 1 || count > LBRT_MAX_THRESHOLDS)
        lbrt_reject(r, "a threshold block's header");
    if (r->what != NULL)
        return;
    e->nthresholds = (int32_t)count;
    lbrt_bits flipped = lbrt_get_bits(r, flips ? (size_t)n : 0, 1);
    lbrt_bits bits = lbrt_get_bits(r, (size_t)n, first + (unsigned)(count - 1) * step);
    if (r->what != NULL)
        return;
    int32_t *thresholds = lbrt_take(&l->carve, (size_t)n * (size_t)count, sizeof *thresholds);
    uint8_t *flip = flips ? lbrt_take(&l->carve, (size_t)n, 1) : NULL;
    for (int32_t c = 0; c < n; c++) {
        const int down = flips && lbrt_take_bits(&flipped, 1);
        int64_t t = lbrt_take_signed(&bits, first);
        for (int32_t k = 0; k < count; k++) {
            if (k > 0)
                t += down ? -(int64_t)lbrt_take_bits(&bits, step) : (int64_t)lbrt_take_bits(&bits, step);
            if (t < INT32_MIN || t > INT32_MAX)
                lbrt_reject(r, "thresholds out of range");
            if (thresholds != NULL)
                thresholds[c * count + k] = (int32_t)t;
        }
        if (flip != NULL)
            flip[c] = (uint8_t)down;
    }
    e->thresholds = thresholds;
    e->flip = flip;
}

static int flags_make_sense(uint32_t flags, int is_float, int32_t dst_type) {
    const uint32_t codes = flags & (LBRT_CODE | LBRT_SIGN | LBRT_THRESHOLDS);
    if (flags > 127)
        return 0;
    if (flags & LBRT_THRESHOLDS)
        return !is_float && (flags & ~(uint32_t)LBRT_SIGN) == LBRT_THRESHOLDS && dst_type != LBRT_F32;
    if (flags & LBRT_TO_FIXED)
        return is_float && codes == 0 && dst_type == LBRT_I32;
    return codes != 0 ? dst_type != LBRT_F32 : dst_type == (is_float ? LBRT_F32 : LBRT_I32);
}

static int same_shape(const lbrt_tensor *a, const lbrt_tensor *b) { return a->h == b->h && a->w == b->w && a->c == b->c; }

static void read_residual(lbrt_loader *l, int32_t index, lbrt_layer *layer, lbrt_site *site, lbrt_tensor *res) {
    lbrt_reader *r = &l->r;
    lbrt_epilogue *e = &layer->epilogue;
    e->residual = lbrt_get_within(r, 0, index, "a residual's tensor");
    if (r->what == NULL)
        *res = lbrt_load_tensor(l, e->residual);
    site->res = res;
    if (layer->is_float) {
        e->res_step = lbrt_get_f32(r, 0);
    } else {
        e->res.shift = -1;
        if (lbrt_get_u8_within(r, 1, "whether a residual is scaled"))
            e->res = read_requant(r);
    }
    if (r->what == NULL && (!same_shape(res, site->dst) || (!layer->is_float && res->type == LBRT_F32)))
        lbrt_reject(r, "a residual of another shape or type");
}

static void read_clamp(lbrt_reader *r, int is_float, lbrt_epilogue *e) {
    if (is_float) {
        e->flo = lbrt_get_f32(r, 1);
        e->fhi = lbrt_get_f32(r, 1);
        if (r->what == NULL && (!(e->flo <= e->fhi) || e->flo > FLT_MAX || e->fhi < -FLT_MAX))
            lbrt_reject(r, "a clamp whose range is empty or infinite");
    } else {
        e->lo = lbrt_get_snum(r);
        e->hi = lbrt_get_snum(r);
        if (e->lo > e->hi)
            lbrt_reject(r, "a clamp whose range is empty");
    }
}

/* What there is per channel, and the proof that results stay in the range that the file states. */
static void read_channels(lbrt_loader *l, lbrt_layer *layer, const lbrt_site *site) {
    lbrt_reader *r = &l->r;
    lbrt_epilogue *e = &layer->epilogue;
    const lbrt_tensor *dst = site->dst;
    int32_t lo = INT32_MAX, hi = INT32_MIN;
    if (layer->is_float) {
        if (e->flags & LBRT_AFFINE)
            read_scale_offset(l, e, dst->c);
        lo = e->flags & LBRT_TO_FIXED ? INT32_MIN : e->qlo;
        hi = e->flags & LBRT_TO_FIXED ? INT32_MAX : e->qhi;
    } else if (e->flags & LBRT_AFFINE) {
        e->requant = read_requants(l, layer, site, &lo, &hi);
    } else {
        for (int32_t c = 0; c < lbrt_range_channels(site) && r->what == NULL; c++)
            if (!lbrt_channel_range(site, c, NULL, &lo, &hi))
                lbrt_reject(r, "sums that could leave 32 bits");
    }
    if (dst->type != LBRT_F32 && (lo < dst->lo || hi > dst->hi))
        lbrt_reject(r, "results that could leave the stated range");
}

/* Scalars first, then what there is per channel, so that one pass can prove ranges. */
static void read_epilogue(lbrt_loader *l, int32_t index, lbrt_layer *layer, lbrt_site *site, lbrt_tensor *res) {
    lbrt_reader *r = &l->r;
    lbrt_epilogue *e = &layer->epilogue;
    e->flags = lbrt_get_u8(r);
    if (!flags_make_sense(e->flags, layer->is_float, site->dst->type))
        lbrt_reject(r, "a combination of epilogue flags");
    if (e->flags & LBRT_RESIDUAL)
        read_residual(l, index, layer, site, res);
    if (e->flags & LBRT_CLAMP)
        read_clamp(r, layer->is_float, e);
    if (e->flags & LBRT_THRESHOLDS) {
        read_thresholds(l, e, site->dst->c);
    } else if (e->flags & (LBRT_CODE | LBRT_SIGN)) {
        read_codes(r, e);
        if (layer->is_float && !(e->flags & LBRT_SIGN))
            e->inv_step = lbrt_get_f32(r, 0);
        else if (!(e->flags & LBRT_SIGN))
            e->q = read_requant(r);
    }
    if (r->what == NULL)
        read_channels(l, layer, site);
}

static void read_input(lbrt_loader *l, lbrt_layer *layer, const lbrt_site *site) {
    lbrt_reader *r = &l->r;
    lbrt_epilogue *e = &layer->epilogue;
    const lbrt_tensor *src = site->src, *dst = site->dst;
    if (layer->src != 0 || !same_shape(src, dst) || layer->is_float != (dst->type == LBRT_F32))
        lbrt_reject(r, "an input layer that does not fit the image");
    e->flags = layer->is_float ? LBRT_AFFINE : LBRT_AFFINE | LBRT_CODE;
    if (layer->is_float) {
        read_scale_offset(l, e, dst->c);
        return;
    }
    read_codes(r, e);
    if (e->qlo < dst->lo || e->qhi > dst->hi)
        lbrt_reject(r, "results that could leave the stated range");
    int32_t lo, hi;
    e->requant = read_requants(l, layer, site, &lo, &hi);
}

/* The sources behind the first, which every layer has. */
static void read_sources(lbrt_loader *l, int32_t index, lbrt_layer *layer, lbrt_tensor *sources) {
    lbrt_reader *r = &l->r;
    layer->nsources = layer->op == LBRT_OP_MUL ? 2 : lbrt_get_within(r, 1, LBRT_MAX_SOURCES, "a number of sources");
    layer->sources[0] = layer->src;
    for (int32_t k = 1; k < layer->nsources; k++) {
        layer->sources[k] = lbrt_get_within(r, 0, index, "a layer's source");
        if (r->what == NULL)
            sources[k] = lbrt_load_tensor(l, layer->sources[k]);
    }
}

/* Rows or columns of a copy by their numbers in a source of `all`; 0 in the file: zeros. */
static const int32_t *read_lines(lbrt_loader *l, lbrt_layer *layer, int32_t count, int32_t all) {
    lbrt_reader *r = &l->r;
    if ((size_t)count > r->size - r->at)
        lbrt_reject(r, "data behind the end");
    if (r->what != NULL)
        return NULL;
    int32_t *lines = lbrt_take(&l->carve, (size_t)count, sizeof *lines);
    for (int32_t i = 0; i < count; i++) {
        const int32_t line = lbrt_get_within(r, 0, all, "a row or column") - 1;
        layer->zeros |= line < 0;
        if (lines != NULL)
            lines[i] = line;
    }
    return lines;
}

/* Stride, or rows and columns, and runs of channels, each behind the one before. */
static void read_copy(lbrt_loader *l, lbrt_layer *layer, uint32_t options, const lbrt_tensor *sources, const lbrt_tensor *dst) {
    lbrt_reader *r = &l->r;
    const int placed = (options & LBRT_FILE_PLACED) != 0;
    layer->sh = layer->sw = placed ? 1 : lbrt_get_within(r, 1, LBRT_MAX_SIDE, "a stride");
    if (placed) {
        layer->rows = read_lines(l, layer, dst->h, sources[0].h);
        layer->cols = read_lines(l, layer, dst->w, sources[0].w);
    }
    layer->nparts = lbrt_get_within(r, 1, LBRT_MAX_CHANNELS, "a number of runs of channels");
    for (int32_t k = 0; k < layer->nsources && r->what == NULL; k++)
        if ((!placed && ((sources[k].h - 1) / layer->sh + 1 != dst->h || (sources[k].w - 1) / layer->sw + 1 != dst->w)) ||
            sources[k].h != sources[0].h || sources[k].w != sources[0].w || sources[k].type != dst->type)
            lbrt_reject(r, "a source of another shape or type");
    if ((size_t)layer->nparts > (r->size - r->at) / 3) /* bytes of a run at least */
        lbrt_reject(r, "data behind the end");
    if (r->what != NULL)
        return;
    lbrt_part *parts = lbrt_take(&l->carve, (size_t)layer->nparts, sizeof *parts);
    int32_t at = 0, filled = 0;
    for (int32_t p = 0; p < layer->nparts && r->what == NULL; p++) {
        lbrt_part part;
        part.source = layer->nsources > 1 ? lbrt_get_within(r, 0, layer->nsources - 1, "a run's source") : 0;
        part.dst = at + lbrt_get_within(r, 0, dst->c - at, "a run's place");
        part.src = lbrt_get_within(r, 0, sources[part.source].c - 1, "a run's first channel");
        part.count = lbrt_get_within(r, 1, sources[part.source].c - part.src, "a run's length");
        if (part.count > dst->c - part.dst)
            lbrt_reject(r, "a run behind the last channel");
        at = part.dst + part.count;
        filled += part.count;
        if (parts != NULL)
            parts[p] = part;
    }
    layer->parts = parts;
    layer->zeros |= filled < dst->c;
}

/* Pools, copies, products, sigmoids. */
static void read_bare(lbrt_loader *l, int32_t index, lbrt_layer *layer, const lbrt_site *site, uint32_t options) {
    lbrt_reader *r = &l->r;
    const lbrt_tensor *src = site->src, *dst = site->dst;
    lbrt_tensor sources[LBRT_MAX_SOURCES];
    int32_t type = src->type, lo, hi;
    sources[0] = *src;
    if (layer->op == LBRT_OP_COPY || layer->op == LBRT_OP_MUL)
        read_sources(l, index, layer, sources);
    if (layer->op == LBRT_OP_COPY)
        read_copy(l, layer, options, sources, dst);
    if (r->what != NULL)
        return;
    if (layer->op == LBRT_OP_SUMPOOL && type != LBRT_F32)
        type = LBRT_I32;
    if (layer->op != LBRT_OP_COPY && dst->c != src->c)
        lbrt_reject(r, "a layer that changes the channels");
    if (layer->op == LBRT_OP_SIGMOID && (type != LBRT_I32 || !same_shape(src, dst)))
        lbrt_reject(r, "a sigmoid that does not fit its source");
    if (layer->op == LBRT_OP_MUL &&
        ((type != LBRT_I32 && type != LBRT_F32) || !same_shape(src, dst) || sources[1].type != type || sources[1].c != dst->c ||
         ((sources[1].h != 1 || sources[1].w != 1) && !same_shape(&sources[1], dst))))
        lbrt_reject(r, "a product that does not fit its sources");
    if (dst->type != type || layer->is_float != (src->type == LBRT_F32))
        lbrt_reject(r, "a result of another type than its source");
    if (r->what != NULL)
        return;
    lbrt_bare_range(layer, sources, &lo, &hi);
    if (type != LBRT_F32 && (lo < dst->lo || hi > dst->hi))
        lbrt_reject(r, "results that could leave the stated range");
}

static size_t prepared_size(const lbrt_kernel *kernel, const lbrt_site *site) {
    return kernel->prepared_size != NULL ? kernel->prepared_size(site) : 0;
}

static int holds_signs(const lbrt_loader *l, int32_t tensor) { return l->signs[tensor / 8] >> tensor % 8 & 1; }

void lbrt_load_layer(lbrt_loader *l, int32_t index, lbrt_layer *layer, lbrt_step *step) {
    lbrt_reader *r = &l->r;
    memset(layer, 0, sizeof *layer);
    memset(step, 0, sizeof *step);
    layer->op = lbrt_get_u8_within(r, LBRT_OPS - 1, "a layer's operator");
    const uint32_t options = lbrt_get_u8(r);
    if (options > LBRT_FILE_OPTIONS || (options & (LBRT_FILE_FLAT | LBRT_FILE_DILATED) && layer->op != LBRT_OP_CONV) ||
        (options & LBRT_FILE_PLACED && layer->op != LBRT_OP_COPY) || (options & LBRT_FILE_INSIDE && layer->op != LBRT_OP_SUMPOOL))
        lbrt_reject(r, "a layer's options");
    layer->is_float = (options & LBRT_FILE_FLOAT) != 0;
    layer->flat = (options & LBRT_FILE_FLAT) != 0;
    layer->groups = 1;
    layer->src = lbrt_get_within(r, 0, index, "a layer's source");
    layer->dst = index + 1;
    layer->name = lbrt_load_text(l);
    if (r->what != NULL)
        return;
    const lbrt_tensor src = lbrt_load_tensor(l, layer->src), dst = lbrt_load_tensor(l, layer->dst);
    lbrt_tensor res;
    lbrt_site site = {layer, &src, &dst, NULL};
    memset(&res, 0, sizeof res);
    const int computes = layer->op == LBRT_OP_CONV || layer->op == LBRT_OP_POINT;
    if (computes && !layer->is_float && src.type == LBRT_F32)
        lbrt_reject(r, "an integer layer with a float source");
    if (layer->op == LBRT_OP_POINT && (src.h != dst.h || src.w != dst.w || src.c != dst.c))
        lbrt_reject(r, "a layer that changes the shape");
    const int geometric = layer->op == LBRT_OP_CONV || layer->op == LBRT_OP_MAXPOOL || layer->op == LBRT_OP_SUMPOOL;
    if (geometric)
        read_geometry(l, layer, &site, options);
    else if (options & LBRT_FILE_SQUARE)
        lbrt_reject(r, "a layer's options");
    if (computes && layer->is_float)
        layer->src_step = lbrt_get_f32(r, 0);
    if (layer->op == LBRT_OP_CONV)
        read_weights(l, layer, &site);
    if (r->what != NULL)
        return;
    if (computes)
        read_epilogue(l, index, layer, &site, &res);
    else if (layer->op == LBRT_OP_INPUT)
        read_input(l, layer, &site);
    else
        read_bare(l, index, layer, &site, options);
    if (r->what != NULL)
        return;
    layer->src_signs = holds_signs(l, layer->src);
    int signs = (layer->op == LBRT_OP_MAXPOOL || layer->op == LBRT_OP_COPY) && !layer->zeros;
    for (int32_t k = 0, t; signs && (t = lbrt_layer_reads(layer, k)) >= 0; k++)
        signs = holds_signs(l, t);
    /* A wider stated range is lawful, but kernels that count in signs' steps of 2 go by it. */
    if ((layer->epilogue.flags & LBRT_SIGN || signs) && dst.lo == -1 && dst.hi == 1)
        l->signs[layer->dst / 8] |= (uint8_t)(1u << layer->dst % 8);
    step->kernel = lbrt_select(&site, l->isa);
    const size_t mine = prepared_size(step->kernel, &site);
    const size_t others = l->other != l->isa ? prepared_size(lbrt_select(&site, l->other), &site) : 0;
    step->prepared = lbrt_take(&l->carve, mine > others ? mine : others, 1);
    const size_t scratch = step->kernel->scratch_size != NULL ? step->kernel->scratch_size(&site) : 0;
    if (scratch > l->scratch)
        l->scratch = scratch;
}

/* Channels in other places: Slice, Split, Concat, and channel shuffles, which are Reshape and Transpose until somebody wants an
 * image: shortcutpads, and concat. */
#include "net/import/internal.h"

/* ---- The channels of a view ------------------------------------------------------------------------------------------- */

bool lb_view_has_channels(const lb_importer *im, const lb_view *v) {
    const lb_shape *s = &im->net->nodes[v->node].dst;
    lb_view image;
    if ((v->ndim != 4 && v->ndim != 3 && v->ndim != 2) || (v->ndim == 3 && s->h != 1) || (v->ndim == 2 && (s->h != 1 || s->w != 1)))
        return false;
    lb_view_image(im, v->node, v->ndim, &image);
    lb_view rest = *v, rest_image = image; /* without the channels' digits they must be the same */
    int64_t channels = 1;
    rest.ndigits = rest_image.ndigits = 0;
    for (int i = 0; i < v->ndigits; i++) {
        if (v->digit[i].dim != 1)
            rest.digit[rest.ndigits++] = v->digit[i];
        else if (v->digit[i].stride * v->digit[i].extent > s->c)
            return false;
        else
            channels *= v->digit[i].extent;
    }
    for (int i = 0; i < image.ndigits; i++)
        if (image.digit[i].dim != 1)
            rest_image.digit[rest_image.ndigits++] = image.digit[i];
    return lb_view_same(&rest, &rest_image) && channels == s->c;
}

/* Where channel c of such an image is. */
static int channel_at(const lb_view *v, int64_t c) {
    int64_t at = 0;
    for (int i = v->ndigits - 1; i >= 0; i--)
        if (v->digit[i].dim == 1) {
            at += c % v->digit[i].extent * v->digit[i].stride;
            c /= v->digit[i].extent;
        }
    return (int)at;
}

lb_status lb_view_channels(lb_importer *im, const lb_view *v, int **channels) {
    const int count = im->net->nodes[v->node].dst.c;
    *channels = NULL;
    if (!lb_view_has_channels(im, v))
        return LB_OK;
    LB_TRY(lb_import_charge(im, &im->places, count));
    int *channel = *channels = lb_pool_alloc(&im->pool, (size_t)count, sizeof *channel);
    for (int c = 0; channel && c < count; c++)
        channel[c] = channel_at(v, c);
    return channel ? LB_OK : LB_ERR_MEMORY;
}

/* Channels from[0 .. count) of a node. */
static lb_status append_select(lb_importer *im, int src, const int *from, int count, const char *name, int *index) {
    LB_TRY(lb_import_charge(im, &im->places, count));
    lb_part *parts = lb_pool_alloc(&im->pool, (size_t)count, sizeof *parts);
    int n = 0;
    if (!parts)
        return LB_ERR_MEMORY;
    for (int c = 0; c < count; c++) {
        if (n && parts[n - 1].src + parts[n - 1].count == from[c])
            parts[n - 1].count++;
        else
            parts[n++] = (lb_part){c, from[c], 1};
    }
    lb_node node = {.op = LB_OP_SHORTCUTPAD, .name = name, .nsrc = 1, .src = {src}};
    node.u.shortcutpad.stride = 1;
    node.u.shortcutpad.oc = count;
    node.u.shortcutpad.nparts = n;
    node.u.shortcutpad.parts = parts;
    return lb_import_append(im, &node, index);
}

lb_status lb_import_image(lb_importer *im, lb_view *v) {
    if (lb_view_is_image(im, v))
        return LB_OK;
    const lb_view padded = *v;
    const int c = im->net->nodes[v->node].dst.c;
    int index, *channel = NULL;
    if (v->ndim > 2)
        LB_TRY(lb_view_channels(im, v, &channel));
    if (!channel)
        return lb_import_refuse(im, "its input is no image in the order batch, channels, height, width");
    LB_TRY(append_select(im, v->node, channel, c, lb_import_unique(im, "shuffle"), &index));
    lb_view_image(im, index, v->ndim, v);
    v->pt = padded.pt, v->pl = padded.pl, v->pb = padded.pb, v->pr = padded.pr;
    v->pads_lowest = padded.pads_lowest;
    return LB_OK;
}

lb_status lb_import_straighten(lb_importer *im, lb_view *v) {
    lb_view turned = *v;
    bool last;
    LB_TRY(lb_import_turn(im, &turned, &last));
    if (!lb_view_has_channels(im, &turned))
        return LB_OK;
    LB_TRY(lb_import_image(im, &turned));
    LB_TRY(lb_import_turn_back(im, &turned, last));
    *v = turned;
    return LB_OK;
}

lb_status lb_import_slice(lb_importer *im, const lb_view *src, int64_t first, int64_t count, int64_t step, lb_view *dst) {
    const int64_t c = im->net->nodes[src->node].dst.c;
    int index;
    if (!lb_view_has_channels(im, src) || first < 0 || first >= c || count < 1 || count > c || first + (count - 1) * step < 0 ||
        first + (count - 1) * step >= c)
        return lb_import_refuse(im, "only channels of an image are taken apart; not %lld from %lld on", (long long)count,
                                (long long)first);
    LB_TRY(lb_import_charge(im, &im->places, count));
    int *from = lb_pool_alloc(&im->pool, (size_t)count, sizeof *from);
    if (!from)
        return LB_ERR_MEMORY;
    for (int64_t k = 0; k < count; k++)
        from[k] = channel_at(src, first + k * step);
    LB_TRY(append_select(im, src->node, from, (int)count, lb_import_name(im, NULL), &index));
    lb_view_image(im, index, src->ndim, dst);
    return LB_OK;
}

/* ---- Operators -------------------------------------------------------------------------------------------------------- */

/* Channels, rows or columns. */
static lb_status read_split(lb_importer *im) {
    lb_view *input, src, dst;
    lb_cut cuts[LB_IMPORT_DIMS];
    const int64_t *sizes;
    int64_t n, first = 0;
    int axis;
    bool last;
    LB_TRY(lb_import_view(im, 0, &input));
    src = *input;
    LB_TRY(lb_import_turn(im, &src, &last));
    LB_TRY(lb_import_axis(im, lb_import_int(im, "axis", 0), src.ndim, &axis));
    LB_TRY(lb_import_list(im, 1, "split", &sizes, &n));
    axis = lb_import_turned_axis(&src, last, axis);
    for (int d = 0; d < src.ndim; d++)
        cuts[d] = (lb_cut){0, src.dims[d], 1};
    const int64_t outputs = (int64_t)im->node->n_output, all = src.dims[axis], each = outputs ? (all + outputs - 1) / outputs : 0;
    if ((n >= 0 && n != outputs) || outputs < 1)
        return lb_import_damaged(im, "has %lld outputs for %lld parts", (long long)outputs, (long long)n);
    for (int64_t o = 0; o < outputs; o++) {
        const int64_t size = n >= 0 ? sizes[o] : LB_MIN(each, all - first);
        if (size < 1 || size > all - first)
            return lb_import_damaged(im, "its parts are not all %lld of dimension %d", (long long)all, axis);
        if (lb_import_is_read(im, (size_t)o)) {
            dst = src;
            cuts[axis] = (lb_cut){first, size, 1};
            LB_TRY(lb_import_cut(im, &dst, cuts));
            LB_TRY(lb_import_turn_back(im, &dst, last));
            lb_import_set_output(im, (size_t)o, &dst);
        }
        first += size;
    }
    return LB_OK;
}

static lb_status refuse_gather(lb_importer *im) {
    return lb_import_refuse(im, "only channels, each at most once, rows or columns are gathered, one or a list");
}

/* The numbers that Gather takes of `all`: a list, or a single one. */
static lb_status read_wanted(lb_importer *im, int64_t all, int64_t most, int **from, int *count) {
    const lb_constant *wanted;
    LB_TRY(lb_import_constant(im, 1, &wanted));
    if (!wanted->whole || wanted->ndim > 1 || wanted->count > most)
        return refuse_gather(im);
    LB_TRY(lb_import_lines(im, wanted->count, from));
    *count = (int)wanted->count;
    for (int k = 0; k < *count; k++) {
        const int64_t i = wanted->i[k] < 0 ? wanted->i[k] + all : wanted->i[k];
        if (i < 0 || i >= all)
            return lb_import_damaged(im, "gathers number %lld of %lld", (long long)wanted->i[k], (long long)all);
        (*from)[k] = (int)i;
    }
    return LB_OK;
}

/* Rows or columns; all of the others. */
static lb_status gather_lines(lb_importer *im, lb_view *v, int axis) {
    const lb_shape s = im->net->nodes[v->node].dst;
    const bool down = axis == 2 && v->ndim == 4;
    int *lines, *others, count;
    LB_TRY(lb_import_image(im, v));
    LB_TRY(read_wanted(im, down ? s.h : s.w, LB_MAX_LINES, &lines, &count));
    LB_TRY(lb_import_lines(im, down ? s.w : s.h, &others));
    for (int i = 0; i < (down ? s.w : s.h); i++)
        others[i] = i;
    return down ? lb_import_place(im, v, lb_import_name(im, NULL), count, lines, s.w, others)
                : lb_import_place(im, v, lb_import_name(im, NULL), s.h, others, count, lines);
}

/* A single number in place of a list takes its dimension away. */
static lb_status drop_gathered(lb_importer *im, lb_view *v, int axis) {
    const lb_constant *wanted;
    int64_t dims[LB_IMPORT_DIMS] = {0};
    LB_TRY(lb_import_constant(im, 1, &wanted));
    if (wanted->ndim != 0)
        return LB_OK;
    for (int d = 0; d < v->ndim; d++)
        if (d != axis)
            dims[d - (d > axis)] = v->dims[d];
    return lb_view_reshape(im, v, v->ndim - 1, dims);
}

/* Channels, rows or columns by their numbers. */
static lb_status read_gather(lb_importer *im) {
    lb_view *src, v;
    int given, axis, index, *from, *channel = NULL, count;
    bool last;
    LB_TRY(lb_import_view(im, 0, &src));
    v = *src;
    LB_TRY(lb_import_turn(im, &v, &last));
    LB_TRY(lb_import_axis(im, lb_import_int(im, "axis", 0), v.ndim, &given));
    axis = lb_import_turned_axis(&v, last, given);
    if (axis == 1)
        LB_TRY(lb_view_channels(im, &v, &channel));
    const int c = im->net->nodes[v.node].dst.c;
    if (axis > 1 && v.ndim <= 4) {
        LB_TRY(gather_lines(im, &v, axis));
    } else if (channel) {
        LB_TRY(read_wanted(im, c, c, &from, &count));
        bool *taken = lb_pool_alloc(&im->pool, (size_t)c, sizeof *taken);
        if (!taken)
            return LB_ERR_MEMORY;
        for (int k = 0; k < count; k++) {
            if (taken[from[k]])
                return lb_import_refuse(im, "gathers channel %d twice, which is not read", from[k]);
            taken[from[k]] = true;
            from[k] = channel[from[k]];
        }
        LB_TRY(append_select(im, v.node, from, count, lb_import_name(im, NULL), &index));
        lb_view_image(im, index, v.ndim, &v);
    } else {
        return refuse_gather(im);
    }
    LB_TRY(lb_import_turn_back(im, &v, last));
    LB_TRY(drop_gathered(im, &v, given));
    return lb_import_set_view(im, &v);
}

/* The inputs side by side, at most LB_MAX_SRC at a time. In a dense block each Concat begins with what the one before put together:
 * that is used again. */
static lb_status put_together(lb_importer *im, const int *nodes, int n, lb_concat *made) {
    const lb_concat *before = NULL;
    for (int i = 0; i < im->nconcats; i++) {
        const lb_concat *k = &im->concats[i];
        if (k->n < n && k->n > (before ? before->n : 1) && !memcmp(k->nodes, nodes, (size_t)k->n * sizeof *nodes))
            before = k;
    }
    int done = before ? before->n : 1, result = before ? before->result : nodes[0];
    while (done < n) {
        lb_node node = {.op = LB_OP_CONCAT, .name = lb_import_name(im, NULL), .nsrc = 1, .src = {result}};
        while (done < n && node.nsrc < LB_MAX_SRC)
            node.src[node.nsrc++] = nodes[done++];
        LB_TRY(lb_import_append(im, &node, &result));
    }
    *made = (lb_concat){nodes, n, result};
    return LB_OK;
}

/* The inputs of Concat as images in the usual order, or as vectors: alike but along `axis`. *last: their channels come last in the
 * file. */
static lb_status read_parts(lb_importer *im, lb_view *parts, int *axis, bool *last) {
    for (int i = 0; i < (int)im->node->n_input; i++) {
        const int64_t *order = NULL;
        lb_view *src;
        bool turned, plain = true;
        LB_TRY(lb_import_view(im, i, &src));
        parts[i] = *src;
        LB_TRY(lb_import_turn(im, &parts[i], &turned));
        *last = i ? *last : turned;
        if (i == 0) {
            LB_TRY(lb_import_axis(im, lb_import_int(im, "axis", 1), src->ndim, axis));
            *axis = lb_import_turned_axis(&parts[0], turned, *axis);
        }
        LB_TRY(src->ndim == 2 ? lb_import_flat(im, &parts[i], false, &order, &plain) : lb_import_image(im, &parts[i]));
        if (!plain)
            return lb_import_refuse(im, "puts flattened images together; only images and vectors are read");
        bool alike = src->ndim == parts[0].ndim && turned == *last;
        for (int d = 1; alike && d < src->ndim; d++)
            alike = d == *axis || parts[i].dims[d] == parts[0].dims[d];
        if (!alike)
            return lb_import_refuse(im, "its inputs 0 and %d are of different sizes", i);
    }
    return LB_OK;
}

/* Channels side by side. */
static lb_status join_channels(lb_importer *im, const lb_view *parts, lb_view *dst) {
    const int n = (int)im->node->n_input, ndim = parts[0].ndim;
    int *nodes = lb_pool_alloc(&im->pool, (size_t)n, sizeof *nodes);
    int64_t c = 0;
    if (!nodes)
        return LB_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        nodes[i] = parts[i].node;
        c += parts[i].dims[1];
    }
    if (c > LB_MAX_EXTENT)
        return lb_import_refuse(im, "makes %lld channels; up to %d are read", (long long)c, LB_MAX_EXTENT);
    lb_concat made = {nodes, 1, nodes[0]};
    if (n > 1)
        LB_TRY(put_together(im, nodes, n, &made));
    LB_TRY(lb_grow(im->ctx, &im->concats, &im->concats_capacity, (size_t)im->nconcats + 1, sizeof *im->concats));
    im->concats[im->nconcats++] = made;
    lb_view_image(im, made.result, ndim, dst);
    return LB_OK;
}

/* Rows below each other, or columns: each image with zeros where the others are, added up. */
static lb_status join_lines(lb_importer *im, lb_view *parts, int axis, lb_view *dst) {
    const int n = (int)im->node->n_input;
    const bool down = axis == 2 && parts[0].ndim == 4;
    const lb_shape *s = &im->net->nodes[parts[0].node].dst;
    const int across = down ? s->w : s->h;
    int64_t all = 0, before = 0;
    int *others;
    for (int i = 0; i < n; i++)
        all += parts[i].dims[axis];
    LB_TRY(lb_import_lines(im, across, &others));
    for (int k = 0; k < across; k++)
        others[k] = k;
    for (int i = 0; i < n; i++) {
        const int64_t count = parts[i].dims[axis];
        int *lines;
        LB_TRY(lb_import_lines(im, all, &lines));
        for (int64_t k = 0; k < all; k++)
            lines[k] = k >= before && k < before + count ? (int)(k - before) : -1;
        before += count;
        const char *name = lb_import_unique(im, "padding");
        LB_TRY(down ? lb_import_place(im, &parts[i], name, (int)all, lines, across, others)
                    : lb_import_place(im, &parts[i], name, across, others, (int)all, lines));
        if (i == 0)
            *dst = parts[0];
        else
            LB_TRY(lb_import_append(
                im, &(lb_node){.op = LB_OP_ADD, .name = lb_import_name(im, NULL), .nsrc = 2, .src = {dst->node, parts[i].node}},
                &dst->node));
    }
    return LB_OK;
}

static lb_status read_concat(lb_importer *im) {
    if (im->node->n_input == 0)
        return lb_import_damaged(im, "has no inputs");
    lb_view *parts = lb_pool_alloc(&im->pool, im->node->n_input, sizeof *parts), dst;
    int axis = 1;
    bool last = false;
    if (!parts)
        return LB_ERR_MEMORY;
    LB_TRY(read_parts(im, parts, &axis, &last));
    if (axis == 0)
        return lb_import_refuse(im, "puts the images of batches together");
    LB_TRY(axis == 1 ? join_channels(im, parts, &dst) : join_lines(im, parts, axis, &dst));
    LB_TRY(lb_import_turn_back(im, &dst, last));
    return lb_import_set_view(im, &dst);
}

static const lb_import_op ops[] = {{"Concat", read_concat}, {"Gather", read_gather}, {"Split", read_split}};

lb_import_reader lb_import_select_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

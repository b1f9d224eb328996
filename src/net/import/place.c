/* Pixels in other places: Pad, Slice, Expand and Resize, and images whose channels come last in the file. */
#include <float.h>

#include "net/import/internal.h"

/* ---- Rows and columns ------------------------------------------------------------------------------------------------- */

lb_status lb_import_lines(lb_importer *im, int64_t count, int **lines) {
    if (count < 1 || count > LB_MAX_LINES)
        return lb_import_refuse(im, "makes images of %lld rows or columns; up to %d are read", (long long)count, LB_MAX_LINES);
    LB_TRY(lb_import_charge(im, &im->places, count));
    *lines = lb_pool_alloc(&im->pool, (size_t)count, sizeof **lines);
    return *lines ? LB_OK : LB_ERR_MEMORY;
}

lb_status lb_import_place(lb_importer *im, lb_view *image, const char *name, int oh, const int *rows, int ow, const int *cols) {
    const lb_shape *s = &im->net->nodes[image->node].dst;
    bool same = oh == s->h && ow == s->w;
    for (int y = 0; same && y < oh; y++)
        same = rows[y] == y;
    for (int x = 0; same && x < ow; x++)
        same = cols[x] == x;
    if (same)
        return LB_OK;
    const lb_node node = {.op = LB_OP_SHORTCUTPAD,
                          .name = name,
                          .nsrc = 1,
                          .src = {image->node},
                          .u.shortcutpad = {.oc = s->c, .oh = oh, .ow = ow, .rows = rows, .cols = cols}};
    int index;
    LB_TRY(lb_import_append(im, &node, &index));
    lb_view_image(im, index, image->ndim, image);
    return LB_OK;
}

/* What stands in row or column `at` of an image of `all` behind one of the modes of Pad; -1: zeros. */
static int padded_line(int64_t at, int64_t all, const char *mode) {
    if (at >= 0 && at < all)
        return (int)at;
    if (!strcmp(mode, "edge"))
        return (int)(at < 0 ? 0 : all - 1);
    if (!strcmp(mode, "reflect"))
        return (int)(at < 0 ? -at : 2 * (all - 1) - at);
    return !strcmp(mode, "wrap") ? (int)((at % all + all) % all) : -1;
}

static lb_status pad_lines(lb_importer *im, int64_t all, int64_t before, int64_t after, const char *mode, int *count, int **lines) {
    const int64_t most = LB_MAX(before, after);
    if (before > LB_MAX_LINES || after > LB_MAX_LINES || before < -all || after < -all ||
        (most > 0 && !strcmp(mode, "reflect") && most >= all))
        return lb_import_refuse(im, "pads %lld rows or columns by %lld and %lld", (long long)all, (long long)before,
                                (long long)after);
    LB_TRY(lb_import_lines(im, all + before + after, lines));
    *count = (int)(all + before + after);
    for (int i = 0; i < *count; i++)
        (*lines)[i] = padded_line(i - before, all, mode);
    return LB_OK;
}

/* Top, left, bottom, right. */
static lb_status pad_image(lb_importer *im, lb_view *image, const char *name, const int64_t pads[4], const char *mode) {
    const lb_shape s = im->net->nodes[image->node].dst;
    int oh, ow, *rows, *cols;
    LB_TRY(pad_lines(im, s.h, pads[0], pads[2], mode, &oh, &rows));
    LB_TRY(pad_lines(im, s.w, pads[1], pads[3], mode, &ow, &cols));
    return lb_import_place(im, image, name, oh, rows, ow, cols);
}

/* Each pixel becomes a block of its copies: oh and ow are multiples of the image's rows and columns. */
static lb_status enlarge(lb_importer *im, lb_view *v, const char *name, int64_t oh, int64_t ow) {
    const lb_shape *s = &im->net->nodes[v->node].dst;
    const int64_t fh = oh / s->h, fw = ow / s->w;
    int *rows, *cols;
    LB_TRY(lb_import_lines(im, oh, &rows));
    LB_TRY(lb_import_lines(im, ow, &cols));
    for (int y = 0; y < oh; y++)
        rows[y] = (int)(y / fh);
    for (int x = 0; x < ow; x++)
        cols[x] = (int)(x / fw);
    return lb_import_place(im, v, name, (int)oh, rows, (int)ow, cols);
}

lb_status lb_import_repeat(lb_importer *im, lb_view *v) {
    const int oh = v->repeat_h, ow = v->repeat_w;
    bool last;
    if (!oh)
        return LB_OK;
    v->repeat_h = v->repeat_w = 0;
    LB_TRY(lb_import_turn(im, v, &last));
    LB_TRY(lb_import_image(im, v));
    LB_TRY(enlarge(im, v, lb_import_unique(im, "spread"), oh, ow));
    return lb_import_turn_back(im, v, last);
}

lb_status lb_import_settle(lb_importer *im, lb_view *v) {
    const int64_t pads[] = {v->pt, v->pl, v->pb, v->pr};
    bool last;
    LB_TRY(lb_import_repeat(im, v));
    if (!lb_view_padded(v))
        return LB_OK;
    if (v->pads_lowest)
        return lb_import_refuse(im, "reads what a Pad node made of -infinity; only maximum pools can");
    v->pt = v->pl = v->pb = v->pr = 0;
    LB_TRY(lb_import_turn(im, v, &last));
    LB_TRY(lb_import_image(im, v));
    LB_TRY(pad_image(im, v, lb_import_unique(im, "padding"), pads, "constant"));
    return lb_import_turn_back(im, v, last);
}

/* ---- Channels last ---------------------------------------------------------------------------------------------------- */

lb_status lb_import_turn(lb_importer *im, lb_view *v, bool *last) {
    static const int64_t first[][4] = {{0, 2, 1, 0}, {0, 3, 1, 2}};
    lb_view turned = *v;
    *last = false;
    if ((v->ndim != 4 && v->ndim != 3) || lb_view_has_channels(im, v))
        return LB_OK;
    LB_TRY(lb_view_transpose(im, &turned, first[v->ndim - 3]));
    *last = lb_view_has_channels(im, &turned);
    if (*last)
        *v = turned;
    return LB_OK;
}

lb_status lb_import_turn_back(lb_importer *im, lb_view *v, bool last) {
    static const int64_t behind[][4] = {{0, 2, 1, 0}, {0, 2, 3, 1}};
    return last ? lb_view_transpose(im, v, behind[v->ndim - 3]) : LB_OK;
}

/* ---- Pad -------------------------------------------------------------------------------------------------------------- */

/* Channels are appended by a shortcutpad. */
static lb_status pad_channels(lb_importer *im, lb_view *v, int64_t before, int64_t after) {
    const int c = im->net->nodes[v->node].dst.c;
    const lb_part part = {(int)before, 0, c};
    if (before == 0 && after == 0)
        return LB_OK;
    if (before < 0 || after < 0 || before > LB_MAX_EXTENT - c || after > LB_MAX_EXTENT - c - before)
        return lb_import_refuse(im, "pads channels by %lld and %lld", (long long)before, (long long)after);
    const lb_node node = {.op = LB_OP_SHORTCUTPAD,
                          .name = lb_import_name(im, NULL),
                          .nsrc = 1,
                          .src = {v->node},
                          .u.shortcutpad = {.stride = 1, .oc = c + (int)(before + after), .nparts = 1, .parts = &part}};
    int index;
    LB_TRY(lb_import_append(im, &node, &index));
    lb_view_image(im, index, v->ndim, v);
    return LB_OK;
}

/* Before and after each dimension of the image with channels first: pads[d], pads[4 + d]. */
static lb_status read_amounts(lb_importer *im, const lb_view *v, bool last, int64_t pads[8]) {
    const int64_t *given, *axes;
    int64_t count, naxes;
    LB_TRY(lb_import_list(im, 1, "pads", &given, &count));
    LB_TRY(lb_import_list(im, 3, "", &axes, &naxes));
    const int64_t n = naxes < 0 ? v->ndim : naxes;
    if (count != 2 * n || n > v->ndim)
        return lb_import_refuse(im, "its pads are not two for each of %lld dimensions", (long long)n);
    memset(pads, 0, 8 * sizeof *pads);
    for (int64_t i = 0; i < n; i++) {
        int d;
        LB_TRY(lb_import_axis(im, naxes < 0 ? i : axes[i], v->ndim, &d));
        d = lb_import_turned_axis(v, last, d);
        d = v->ndim == 3 && d == 2 ? 3 : d; /* a signal's only dimension is the width */
        for (int side = 0; side < 2; side++) {
            const int64_t by = given[i + side * n];
            if (by < -LB_MAX_LINES || by > LB_MAX_LINES)
                return lb_import_refuse(im, "pads by %lld", (long long)by);
            if (d < 4)
                pads[4 * side + d] = by;
            else if (by)
                return lb_import_refuse(im, "pads dimension %d; images have four", d);
        }
    }
    if (pads[0] || pads[4])
        return lb_import_refuse(im, "pads the batch");
    return LB_OK;
}

/* What pads: one of the modes, and whether its constant is -infinity instead of zero. */
static lb_status read_mode(lb_importer *im, const char **mode, bool *lowest) {
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, "mode");
    float value;
    *mode = a && a->has_s ? NULL : modes[0];
    for (size_t i = 0; i < LB_COUNT(modes) && !*mode; i++)
        if (lb_import_is_text(a, modes[i]))
            *mode = modes[i];
    if (!*mode)
        return lb_import_refuse(im, "mode %.*s", (int)LB_MIN(a->s.len, 40), (const char *)a->s.data);
    LB_TRY(lb_import_scalar(im, 2, "value", 0, &value));
    *lowest = *mode == modes[0] && value <= -FLT_MAX;
    if (*mode == modes[0] && value != 0 && !*lowest)
        return lb_import_refuse(im, "pads with %g; only zeros, or -infinity before a maximum pool, are read", (double)value);
    return LB_OK;
}

/* Top, left, bottom, right: padding that the next convolution or pooling takes over. */
static lb_status let_wait(lb_importer *im, lb_view *v, const int64_t around[4], bool lowest) {
    if (around[0] || around[1] || around[2] || around[3])
        v->pads_lowest = lowest;
    v->pt += (int)around[0], v->pl += (int)around[1], v->pb += (int)around[2], v->pr += (int)around[3];
    if (v->pt > LB_MAX_EXTENT || v->pl > LB_MAX_EXTENT || v->pb > LB_MAX_EXTENT || v->pr > LB_MAX_EXTENT)
        return lb_import_refuse(im, "pads too much");
    return LB_OK;
}

/* Zeros around the image wait in the view for the next convolution or pooling, other modes become rows and columns again. */
static lb_status read_pad(lb_importer *im) {
    lb_view *src, v;
    int64_t pads[8];
    bool last, lowest, any = false, negative = false;
    const char *mode;
    LB_TRY(lb_import_padded_view(im, 0, &src));
    LB_TRY(read_mode(im, &mode, &lowest));
    const bool constant = !strcmp(mode, "constant");
    if (lb_view_padded(src) && (!constant || lowest != src->pads_lowest))
        LB_TRY(lb_import_settle(im, src));
    v = *src;
    LB_TRY(lb_import_turn(im, &v, &last));
    LB_TRY(read_amounts(im, &v, last, pads));
    for (int i = 0; i < 8; i++) {
        any |= pads[i] != 0;
        negative |= pads[i] < 0;
    }
    if (!any)
        return lb_import_set_view(im, src);
    if ((pads[1] || pads[5]) && (!constant || lowest || lb_view_padded(&v)))
        return lb_import_refuse(im, "pads channels with other than zeros, or behind another Pad");
    if (negative && lowest)
        return lb_import_refuse(im, "pads with -infinity and cuts off");
    LB_TRY(lb_import_image(im, &v));
    LB_TRY(pad_channels(im, &v, pads[1], pads[5]));
    const int64_t around[] = {pads[2], pads[3], pads[6], pads[7]};
    if (constant && !negative) {
        LB_TRY(let_wait(im, &v, around, lowest));
    } else {
        LB_TRY(lb_import_settle(im, &v));
        LB_TRY(pad_image(im, &v, lb_import_name(im, NULL), around, mode));
    }
    LB_TRY(lb_import_turn_back(im, &v, last));
    return lb_import_set_view(im, &v);
}

/* ---- Slice ------------------------------------------------------------------------------------------------------------ */

static lb_status cut_dimension(lb_importer *im, int64_t all, int64_t from, int64_t to, int64_t step, lb_cut *cut) {
    if (step == 0 || step < -LB_MAX_EXTENT || step > LB_MAX_EXTENT)
        return lb_import_refuse(im, "a step of %lld", (long long)step);
    from += from < 0 ? all : 0;
    to += to < 0 ? all : 0;
    if (step > 0) {
        from = LB_MIN(LB_MAX(from, 0), all);
        to = LB_MIN(LB_MAX(to, from), all);
        *cut = (lb_cut){from, (to - from + step - 1) / step, step};
    } else {
        from = LB_MIN(LB_MAX(from, 0), all - 1);
        to = LB_MIN(LB_MAX(to, -1), from);
        *cut = (lb_cut){from, (from - to - step - 1) / -step, step};
    }
    return LB_OK;
}

lb_status lb_import_cuts(lb_importer *im, int ndim, const int64_t *dims, lb_cut *cuts) {
    const int64_t *starts, *ends, *axes, *steps;
    int64_t n, nends, naxes, nsteps;
    bool given[LB_IMPORT_DIMS] = {false};
    LB_TRY(lb_import_list(im, 1, "starts", &starts, &n));
    LB_TRY(lb_import_list(im, 2, "ends", &ends, &nends));
    LB_TRY(lb_import_list(im, 3, "axes", &axes, &naxes));
    LB_TRY(lb_import_list(im, 4, "steps", &steps, &nsteps));
    if (n < 0 || n > ndim || nends != n || (naxes >= 0 && naxes != n) || (nsteps >= 0 && nsteps != n))
        return lb_import_damaged(im, "its starts, ends, axes and steps are not equally many");
    for (int d = 0; d < ndim; d++)
        cuts[d] = (lb_cut){0, dims[d], 1};
    for (int64_t k = 0; k < n; k++) {
        int d;
        LB_TRY(lb_import_axis(im, naxes < 0 ? k : axes[k], ndim, &d));
        if (given[d])
            return lb_import_damaged(im, "axis %d is given twice", d);
        given[d] = true;
        LB_TRY(cut_dimension(im, dims[d], starts[k], ends[k], nsteps < 0 ? 1 : steps[k], &cuts[d]));
    }
    return LB_OK;
}

static lb_status cut_lines(lb_importer *im, const lb_cut *c, int **lines) {
    LB_TRY(lb_import_lines(im, c->count, lines));
    for (int i = 0; i < c->count; i++)
        (*lines)[i] = (int)(c->first + i * c->step);
    return LB_OK;
}

lb_status lb_import_cut(lb_importer *im, lb_view *v, const lb_cut *cuts) {
    bool whole[LB_IMPORT_DIMS] = {false};
    for (int d = 0; d < v->ndim; d++)
        whole[d] = cuts[d].first == 0 && cuts[d].count == v->dims[d];
    if (!whole[v->batch_dim])
        return lb_import_refuse(im, "takes %lld of a batch of %lld images", (long long)cuts[v->batch_dim].count,
                                (long long)v->dims[v->batch_dim]);
    if (v->ndim > 1 && !whole[1])
        LB_TRY(lb_import_slice(im, v, cuts[1].first, cuts[1].count, cuts[1].step, v));
    if (v->ndim > 4)
        return lb_import_refuse(im, "of %d dimensions; images have four", v->ndim);
    if (v->ndim < 3 || (whole[2] && whole[v->ndim - 1]))
        return LB_OK;
    const lb_cut one = {0, 1, 1}, *down = v->ndim == 4 ? &cuts[2] : &one, *across = &cuts[v->ndim - 1];
    int *rows, *cols;
    LB_TRY(lb_import_image(im, v));
    LB_TRY(cut_lines(im, down, &rows));
    LB_TRY(cut_lines(im, across, &cols));
    return lb_import_place(im, v, lb_import_name(im, NULL), (int)down->count, rows, (int)across->count, cols);
}

static lb_status read_slice(lb_importer *im) {
    lb_view *src, v;
    lb_cut given[LB_IMPORT_DIMS], cuts[LB_IMPORT_DIMS];
    bool last, all = true;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_cuts(im, src->ndim, src->dims, given));
    v = *src;
    LB_TRY(lb_import_turn(im, &v, &last));
    for (int d = 0; d < v.ndim; d++) {
        cuts[lb_import_turned_axis(&v, last, d)] = given[d];
        all &= given[d].first == 0 && given[d].count == src->dims[d];
        if (given[d].count < 1)
            return lb_import_refuse(im, "takes nothing of dimension %d", d);
    }
    if (all)
        return lb_import_set_view(im, src);
    LB_TRY(lb_import_cut(im, &v, cuts));
    LB_TRY(lb_import_turn_back(im, &v, last));
    return lb_import_set_view(im, &v);
}

/* ---- Expand ----------------------------------------------------------------------------------------------------------- */

/* A single row or column, or both, repeated. They wait in the view, for a product does with the one pixel. */
static lb_status read_expand(lb_importer *im) {
    lb_view *src, v;
    const int64_t *asked;
    int64_t n, wide[LB_IMPORT_DIMS];
    bool last, same = true;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_list(im, 1, "", &asked, &n));
    if (n < 0 || n > src->ndim)
        return lb_import_refuse(im, "its shape is missing, or has more dimensions than the image");
    v = *src;
    LB_TRY(lb_import_turn(im, &v, &last));
    for (int d = 0; d < v.ndim; d++) {
        const int64_t has = src->dims[d], want = d < v.ndim - n ? 1 : asked[d - (v.ndim - n)];
        if (want != 1 && want != has && (has != 1 || want < 1 || want > LB_MAX_LINES))
            return lb_import_refuse(im, "repeats dimension %d of %lld to %lld", d, (long long)has, (long long)want);
        same &= want == 1 || want == has;
        wide[lb_import_turned_axis(&v, last, d)] = want == 1 ? has : want;
    }
    if (same)
        return lb_import_set_view(im, src);
    LB_TRY(lb_import_image(im, &v));
    if (wide[0] != v.dims[0] || wide[1] != v.dims[1])
        return lb_import_refuse(im, "repeats images or channels; only rows and columns are");
    const int h = v.ndim == 4 ? (int)wide[2] : 1, w = (int)wide[v.ndim - 1];
    LB_TRY(lb_import_turn_back(im, &v, last));
    v.repeat_h = h;
    v.repeat_w = w;
    return lb_import_set_view(im, &v);
}

/* ---- Resize ----------------------------------------------------------------------------------------------------------- */

static bool is_said(const lb_importer *im, const char *name, const char *text, bool usual) {
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, name);
    return a ? lb_import_is_text(a, text) : usual;
}

/* Does each pixel of the result, where it is larger by a whole factor, show the one that it lies in? */
static bool takes_nearest(const lb_importer *im) {
    const char *const where = "coordinate_transformation_mode", *const round = "nearest_mode";
    if (!is_said(im, "mode", "nearest", true) || lb_import_attribute(im, "axes"))
        return false;
    if (im->opset < 11)
        return true;
    if (is_said(im, where, "asymmetric", false) || is_said(im, where, "tf_half_pixel_for_nn", false))
        return is_said(im, round, "floor", false);
    return (is_said(im, where, "half_pixel", true) || is_said(im, where, "pytorch_half_pixel", false)) &&
           (is_said(im, round, "round_prefer_floor", true) || is_said(im, round, "round_prefer_ceil", false));
}

/* How often each dimension of a view's comes, from sizes or from scales. */
static lb_status read_factors(lb_importer *im, const lb_view *v, int64_t *factors) {
    const Lb__Onnx__AttributeProto *a = lb_import_attribute(im, "scales"); /* of Upsample before opset 9 */
    const int at = im->opset < 11 ? 1 : 2;
    const int64_t *sizes = NULL;
    const float *scales = a ? a->floats : NULL;
    int64_t n = a ? (int64_t)a->n_floats : 0;
    const lb_constant *given;
    if (im->opset >= 11 && lb_import_input(im, 3)) {
        LB_TRY(lb_import_list(im, 3, "", &sizes, &n));
    } else if (lb_import_input(im, at)) {
        LB_TRY(lb_import_constant(im, at, &given));
        n = given->whole || given->weight || !given->f ? 0 : given->count;
        scales = given->f;
    }
    if (n != v->ndim)
        return lb_import_refuse(im, "its scales or sizes are not one for each of %d dimensions", v->ndim);
    for (int d = 0; d < v->ndim; d++) {
        const bool fits = sizes ? sizes[d] % v->dims[d] == 0 : scales[d] >= 1 && scales[d] <= LB_MAX_LINES;
        factors[d] = !fits ? 0 : sizes ? sizes[d] / v->dims[d] : (int64_t)scales[d];
        if (factors[d] < 1 || factors[d] > LB_MAX_LINES || (scales && !sizes && scales[d] != (float)factors[d]))
            return lb_import_refuse(im, "dimension %d grows by no whole factor", d);
    }
    return LB_OK;
}

/* Nearest pixels, larger by whole factors. */
static lb_status read_resize(lb_importer *im) {
    lb_view *src, v;
    int64_t factors[LB_IMPORT_DIMS], by[LB_IMPORT_DIMS];
    bool last;
    LB_TRY(lb_import_view(im, 0, &src));
    if (!takes_nearest(im))
        return lb_import_refuse(im,
                                "only nearest pixels by whole factors are read, as nn.Upsample has them; or use ConvTranspose2d");
    LB_TRY(read_factors(im, src, factors));
    v = *src;
    LB_TRY(lb_import_turn(im, &v, &last));
    for (int d = 0; d < v.ndim; d++)
        by[lb_import_turned_axis(&v, last, d)] = factors[d];
    LB_TRY(lb_import_image(im, &v));
    if (by[0] != 1 || by[1] != 1)
        return lb_import_refuse(im, "repeats images or channels; only rows and columns are");
    const lb_shape *s = &im->net->nodes[v.node].dst;
    LB_TRY(enlarge(im, &v, lb_import_name(im, NULL), s->h * (v.ndim == 4 ? by[2] : 1), s->w * by[v.ndim - 1]));
    LB_TRY(lb_import_turn_back(im, &v, last));
    return lb_import_set_view(im, &v);
}

static const lb_import_op ops[] = {
    {"Expand", read_expand}, {"Pad", read_pad}, {"Resize", read_resize}, {"Slice", read_slice}, {"Upsample", read_resize}};

lb_import_reader lb_import_place_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

/* Operators that only move or pad an image's numbers: most change the view and make no layer. */
#include <float.h>

#include "net/import/internal.h"

lb_status lb_import_perm(lb_importer *im, int ndim, int64_t *perm) {
    size_t count;
    const int64_t *given = lb_import_ints(im, "perm", &count);
    bool seen[LB_IMPORT_DIMS] = {false};
    if (given && count != (size_t)ndim)
        return lb_import_damaged(im, "its perm has %zu entries for %d dimensions", count, ndim);
    for (int d = 0; d < ndim; d++) {
        perm[d] = given ? given[d] : ndim - 1 - d;
        if (perm[d] < 0 || perm[d] >= ndim || seen[perm[d]])
            return lb_import_damaged(im, "its perm is no order of %d dimensions", ndim);
        seen[perm[d]] = true;
    }
    return LB_OK;
}

/* Squeeze without axes takes all dimensions of one element away, Unsqueeze needs axes. */
static lb_status squeeze(lb_importer *im, int ndim, const int64_t *dims, int keep, int *to, int64_t *to_dims) {
    const bool un = !strcmp(im->node->op_type, "Unsqueeze");
    bool chosen[LB_IMPORT_DIMS] = {false};
    const int64_t *axes;
    int64_t naxes;
    int axis;
    LB_TRY(lb_import_list(im, 1, "axes", &axes, &naxes));
    if (un && (naxes < 0 || naxes > LB_IMPORT_DIMS - ndim))
        return lb_import_refuse(im, "without axes, or to more than %d dimensions", LB_IMPORT_DIMS);
    const int all = un ? ndim + (int)naxes : ndim;
    for (int64_t i = 0; i < naxes; i++) {
        LB_TRY(lb_import_axis(im, axes[i], all, &axis));
        if (chosen[axis] || (!un && (dims[axis] != 1 || axis == keep)))
            return lb_import_refuse(im, "axis %d is given twice, is the batch, or has more than one element", axis);
        chosen[axis] = true;
    }
    for (int d = 0; naxes < 0 && d < ndim; d++)
        chosen[d] = dims[d] == 1 && d != keep;
    *to = 0;
    for (int d = 0, from = 0; d < all; d++) {
        if (un)
            to_dims[(*to)++] = chosen[d] ? 1 : dims[from++];
        else if (!chosen[d])
            to_dims[(*to)++] = dims[d];
    }
    return LB_OK;
}

lb_status lb_import_new_dims(lb_importer *im, int ndim, const int64_t *dims, int keep, int *to, int64_t *to_dims) {
    if (!strcmp(im->node->op_type, "Reshape")) {
        const int64_t *asked;
        int64_t count;
        LB_TRY(lb_import_list(im, 1, "shape", &asked, &count));
        if (count < 0 || count > LB_IMPORT_DIMS || lb_import_int(im, "allowzero", 0))
            return lb_import_refuse(im, "its shape is missing, has more than %d dimensions, or zeros", LB_IMPORT_DIMS);
        *to = (int)count;
        return lb_import_resolve(im, ndim, dims, (int)count, asked, to_dims);
    }
    if (!strcmp(im->node->op_type, "Flatten")) {
        const int64_t axis = lb_import_int(im, "axis", 1);
        if (axis < -ndim || axis > ndim)
            return lb_import_damaged(im, "axis %lld of %d dimensions", (long long)axis, ndim);
        int64_t before = 1, all = 1;
        for (int d = 0; d < ndim; d++) {
            all *= dims[d];
            before *= d < (axis < 0 ? axis + ndim : axis) ? dims[d] : 1;
        }
        *to = 2;
        to_dims[0] = before;
        to_dims[1] = before ? all / before : 0;
        return LB_OK;
    }
    return squeeze(im, ndim, dims, keep, to, to_dims);
}

static lb_status move_reshape(lb_importer *im) {
    lb_view *src, dst;
    int64_t dims[LB_IMPORT_DIMS] = {0};
    int ndim;
    LB_TRY(lb_import_view(im, 0, &src));
    dst = *src;
    LB_TRY(lb_import_new_dims(im, src->ndim, src->dims, src->batch_dim, &ndim, dims));
    LB_TRY(lb_view_reshape(im, &dst, ndim, dims));
    return lb_import_set_view(im, &dst);
}

static lb_status move_transpose(lb_importer *im) {
    lb_view *src, dst;
    int64_t perm[LB_IMPORT_DIMS];
    LB_TRY(lb_import_view(im, 0, &src));
    dst = *src;
    LB_TRY(lb_import_perm(im, src->ndim, perm));
    LB_TRY(lb_view_transpose(im, &dst, perm));
    return lb_import_set_view(im, &dst);
}

static lb_status move_identity(lb_importer *im) {
    lb_view *src;
    LB_TRY(lb_import_padded_view(im, 0, &src));
    return lb_import_set_view(im, src);
}

static lb_status move_cast(lb_importer *im) {
    const int64_t to = lb_import_int(im, "to", 0);
    if (to != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT)
        return lb_import_refuse(im, "casts an image to element type %lld; only float networks are read", (long long)to);
    return move_identity(im);
}

/* ---- Padding and strides ---------------------------------------------------------------------------------------------- */

/* Padding of height and width waits in the view for the next convolution or pooling; channels are appended by a
 * shortcutpad. */
static lb_status move_pad(lb_importer *im) {
    lb_view *src, dst;
    const int64_t *pads;
    int64_t count;
    float value;
    LB_TRY(lb_import_padded_view(im, 0, &src));
    LB_TRY(lb_import_list(im, 1, "pads", &pads, &count));
    LB_TRY(lb_import_scalar(im, 2, "value", 0, &value));
    const Onnx__AttributeProto *mode = lb_import_attribute(im, "mode");
    if (mode && mode->has_s && (mode->s.len != 8 || memcmp(mode->s.data, "constant", 8)))
        return lb_import_refuse(im, "mode %.*s; only constant is read", (int)LB_MIN(mode->s.len, 40), (const char *)mode->s.data);
    if (count != 2 * src->ndim || lb_import_input(im, 3))
        return lb_import_refuse(im, "its pads are not two for each of %d dimensions", src->ndim);
    bool any = false;
    for (int64_t i = 0; i < count; i++) {
        if (pads[i] < 0 || pads[i] > LB_MAX_EXTENT)
            return lb_import_refuse(im, "pads by %lld", (long long)pads[i]);
        any |= pads[i] != 0;
    }
    dst = *src;
    if (!any)
        return lb_import_set_view(im, &dst);
    const bool lowest = value <= -FLT_MAX, before = src->pt || src->pl || src->pb || src->pr;
    if ((value != 0 && !lowest) || (lowest && (pads[1] || pads[5])) || (before && lowest != src->pads_lowest) || !lb_view_is_image(im, src) || src->ndim != 4 || pads[0] || pads[4])
        return lb_import_refuse(im, "only zeros around an image or its channels, or what never wins a maximum, are read");
    if (pads[1] || pads[5]) {
        if (before || pads[2] || pads[3] || pads[6] || pads[7])
            return lb_import_refuse(im, "pads channels together with height and width");
        const int c = im->net->nodes[src->node].dst.c;
        const lb_part part = {(int)pads[1], 0, c};
        const lb_node node = {.op = LB_OP_SHORTCUTPAD,
                              .name = lb_import_name(im, NULL),
                              .nsrc = 1,
                              .src = {src->node},
                              .u.shortcutpad = {.stride = 1, .oc = c + (int)pads[1] + (int)pads[5], .nparts = 1, .parts = &part}};
        if (node.u.shortcutpad.oc > LB_MAX_EXTENT)
            return lb_import_refuse(im, "pads too much");
        int index;
        LB_TRY(lb_import_append(im, &node, &index));
        lb_view_image(im, index, 4, &dst);
        return lb_import_set_view(im, &dst);
    }
    dst.pads_lowest = lowest;
    dst.pt += (int)pads[2], dst.pl += (int)pads[3], dst.pb += (int)pads[6], dst.pr += (int)pads[7];
    if (dst.pt > LB_MAX_EXTENT || dst.pl > LB_MAX_EXTENT || dst.pb > LB_MAX_EXTENT || dst.pr > LB_MAX_EXTENT)
        return lb_import_refuse(im, "pads too much");
    return lb_import_set_view(im, &dst);
}

/* Some channels, or every n-th row and column, as the parameter-free residual shortcut takes them. */
static lb_status move_slice(lb_importer *im) {
    lb_view *src, dst;
    const int64_t *starts, *ends, *axes, *steps;
    int64_t n, nends, naxes, nsteps, step[LB_IMPORT_DIMS], first = 0, count;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_list(im, 1, "starts", &starts, &n));
    LB_TRY(lb_import_list(im, 2, "ends", &ends, &nends));
    LB_TRY(lb_import_list(im, 3, "axes", &axes, &naxes));
    LB_TRY(lb_import_list(im, 4, "steps", &steps, &nsteps));
    if (n < 0 || n > src->ndim || nends != n || (naxes >= 0 && naxes != n) || (nsteps >= 0 && nsteps != n))
        return lb_import_damaged(im, "its starts, ends, axes and steps are not equally many");
    for (int d = 0; d < LB_IMPORT_DIMS; d++)
        step[d] = 1;
    count = src->ndim > 1 ? src->dims[1] : 1;
    for (int64_t k = 0; k < n; k++) {
        int d;
        LB_TRY(lb_import_axis(im, naxes < 0 ? k : axes[k], src->ndim, &d));
        const int64_t all = src->dims[d];
        int64_t from = starts[k] < 0 ? starts[k] + all : starts[k], to = ends[k] < 0 ? ends[k] + all : ends[k];
        from = LB_MIN(LB_MAX(from, 0), all);
        to = LB_MIN(LB_MAX(to, from), all);
        step[d] = nsteps < 0 ? 1 : steps[k];
        if (d == 1 && step[d] == 1) {
            first = from;
            count = to - from;
        } else if (from != 0 || to != all) {
            return lb_import_refuse(im, "takes %lld to %lld of dimension %d; only channels, or every n-th pixel, are read",
                                    (long long)from, (long long)to, d);
        }
    }
    dst = *src;
    if (step[0] == 1 && step[1] == 1 && step[2] == 1 && step[3] == 1) {
        if (first != 0 || count != dst.dims[1])
            LB_TRY(lb_import_slice(im, src, first, count, &dst));
        return lb_import_set_view(im, &dst);
    }
    if (!lb_view_is_image(im, src) || src->ndim != 4 || step[0] != 1 || step[1] != 1 || step[2] != step[3] || step[2] < 1 ||
        step[2] > LB_MAX_EXTENT || count != dst.dims[1])
        return lb_import_refuse(im, "only the same step over height and width is read");
    const lb_node node = {.op = LB_OP_SHORTCUTPAD,
                          .name = lb_import_name(im, NULL),
                          .nsrc = 1,
                          .src = {src->node},
                          .u.shortcutpad = {.stride = (int)step[2], .oc = im->net->nodes[src->node].dst.c}};
    int index;
    LB_TRY(lb_import_append(im, &node, &index));
    lb_view_image(im, index, 4, &dst);
    return lb_import_set_view(im, &dst);
}

static const lb_import_op ops[] = {
    {"Cast", move_cast},       {"Flatten", move_reshape},     {"Identity", move_identity},
    {"Pad", move_pad},         {"Reshape", move_reshape},     {"Slice", move_slice},
    {"Squeeze", move_reshape}, {"Transpose", move_transpose}, {"Unsqueeze", move_reshape},
};

lb_import_reader lb_import_move_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

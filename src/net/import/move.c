/* Operators that only move an image's numbers: they change the view and make no layer. */
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
        bool empty = false; /* with allowzero 0 is no dimension of the input but one without elements */
        for (int64_t i = 0; i < count; i++)
            empty |= asked[i] == 0 && lb_import_int(im, "allowzero", 0);
        if (count < 0 || count > LB_IMPORT_DIMS || empty)
            return lb_import_refuse(im, "its shape is missing, has more than %d dimensions, or is empty", LB_IMPORT_DIMS);
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
    LB_TRY(lb_import_padded_view(im, 0, &src));
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
    if (to != LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT)
        return lb_import_refuse(im, "casts an image to element type %lld; only float networks are read", (long long)to);
    return move_identity(im);
}

static const lb_import_op ops[] = {
    {"Cast", move_cast},       {"Flatten", move_reshape},     {"Identity", move_identity}, {"Reshape", move_reshape},
    {"Squeeze", move_reshape}, {"Transpose", move_transpose}, {"Unsqueeze", move_reshape},
};

lb_import_reader lb_import_move_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

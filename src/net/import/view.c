/* Views: which number of a node's output each element of a tensor of the file is. */
#include "net/import/internal.h"

/* Appends a digit; ones carry nothing, and one that continues its neighbour of the same dimension becomes part of it. */
static bool add_digit(lb_view *v, int64_t extent, int64_t stride, int dim) {
    if (extent == 1)
        return true;
    lb_digit *last = v->ndigits ? &v->digit[v->ndigits - 1] : NULL;
    if (last && last->dim == dim && last->stride == extent * stride) {
        last->extent *= extent;
        last->stride = stride;
        return true;
    }
    if (v->ndigits == LB_IMPORT_DIGITS)
        return false;
    v->digit[v->ndigits++] = (lb_digit){extent, stride, dim};
    return true;
}

void lb_view_image(const lb_importer *im, int node, int ndim, lb_view *v) {
    const lb_shape *s = &im->net->nodes[node].dst;
    *v = (lb_view){.node = node, .ndim = ndim, .dims = {im->batch, s->c, s->h, s->w}};
    add_digit(v, s->c, 1, 1);
    if (ndim == 2)
        return;
    if (ndim == 3)
        v->dims[2] = s->w;
    else
        add_digit(v, s->h, (int64_t)s->w * s->c, 2);
    add_digit(v, s->w, s->c, ndim - 1);
}

bool lb_view_same(const lb_view *a, const lb_view *b) {
    if (a->ndim != b->ndim || a->batch_dim != b->batch_dim || a->ndigits != b->ndigits)
        return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    for (int i = 0; i < a->ndigits; i++)
        if (a->digit[i].extent != b->digit[i].extent || a->digit[i].stride != b->digit[i].stride ||
            a->digit[i].dim != b->digit[i].dim)
            return false;
    return true;
}

bool lb_view_is_image(const lb_importer *im, const lb_view *v) {
    lb_view image;
    if (v->ndim != 4 && !(v->ndim == 3 && im->net->nodes[v->node].dst.h == 1))
        return false;
    lb_view_image(im, v->node, v->ndim, &image);
    return lb_view_same(v, &image);
}

lb_status lb_view_order(lb_importer *im, const lb_view *v, const int64_t **order) {
    const int64_t count = (int64_t)lb_shape_count(&im->net->nodes[v->node].dst);
    LB_TRY(lb_import_charge(im, &im->budget, count));
    int64_t *at = lb_pool_alloc(&im->pool, (size_t)count, sizeof *at);
    for (int64_t k = 0; at && k < count; k++) {
        int64_t rest = k;
        for (int d = v->ndigits - 1; d >= 0; d--) {
            at[k] += rest % v->digit[d].extent * v->digit[d].stride;
            rest /= v->digit[d].extent;
        }
    }
    *order = at;
    return at ? LB_OK : LB_ERR_MEMORY;
}

lb_status lb_import_resolve(lb_importer *im, int from, const int64_t *before, int ndim, const int64_t *asked, int64_t *dims) {
    int64_t all = 1, known = 1;
    int open = -1;
    for (int i = 0; i < from; i++)
        all *= before[i];
    if (ndim > LB_IMPORT_DIMS)
        return lb_import_refuse(im, "a shape of %d dimensions; up to %d are read", ndim, LB_IMPORT_DIMS);
    for (int i = 0; i < ndim; i++) {
        dims[i] = asked[i] == 0 && i < from ? before[i] : asked[i];
        if (dims[i] == -1 && open < 0) {
            open = i;
            continue;
        }
        if (dims[i] < 1 || known > all / dims[i])
            return lb_import_refuse(im, "its shape has %lld as dimension %d", (long long)dims[i], i);
        known *= dims[i];
    }
    if (open >= 0)
        dims[open] = all / known;
    if ((open >= 0 ? known * dims[open] : known) != all)
        return lb_import_refuse(im, "its shape has another number of elements than its input, %lld", (long long)all);
    return LB_OK;
}

lb_status lb_view_reshape(lb_importer *im, lb_view *v, int ndim, const int64_t *dims) {
    lb_view to = {.node = v->node, .ndim = ndim};
    memcpy(to.dims, dims, (size_t)ndim * sizeof *dims);
    if (ndim < 1 || v->batch_dim != 0 || to.dims[0] != im->batch)
        return lb_import_refuse(im, "it mixes the images of a batch: %lld becomes dimension 0, of %lld images",
                                (long long)to.dims[0], (long long)im->batch);
    int next = 0; /* digit of v, and what is left of it */
    lb_digit rest = next < v->ndigits ? v->digit[next] : (lb_digit){1, 0, 0};
    for (int d = 1; d < ndim; d++)
        for (int64_t need = to.dims[d]; need > 1;) {
            const int64_t take = LB_MIN(need, rest.extent);
            if (take < 2 || need % take || rest.extent % take)
                return lb_import_refuse(im, "it cuts a dimension of the image in pieces that do not fit");
            if (!add_digit(&to, take, rest.stride * (rest.extent / take), d))
                return lb_import_refuse(im, "it cuts the image in too many pieces");
            need /= take;
            rest.extent /= take;
            if (rest.extent == 1)
                rest = ++next < v->ndigits ? v->digit[next] : (lb_digit){1, 0, 0};
        }
    *v = to;
    return LB_OK;
}

lb_status lb_view_transpose(lb_importer *im, lb_view *v, const int64_t *perm) {
    lb_view to = {.node = v->node, .ndim = v->ndim};
    to.pt = v->pt, to.pl = v->pl, to.pb = v->pb, to.pr = v->pr, to.pads_lowest = v->pads_lowest;
    bool seen[LB_IMPORT_DIMS] = {false};
    for (int d = 0; d < v->ndim; d++) {
        if (perm[d] < 0 || perm[d] >= v->ndim || seen[perm[d]])
            return lb_import_damaged(im, "its perm is no order of the %d dimensions", v->ndim);
        seen[perm[d]] = true;
        to.dims[d] = v->dims[perm[d]];
        if (perm[d] == v->batch_dim)
            to.batch_dim = d;
        for (int i = 0; i < v->ndigits; i++)
            if (v->digit[i].dim == perm[d])
                add_digit(&to, v->digit[i].extent, v->digit[i].stride, d); /* not more than before */
    }
    *v = to;
    return LB_OK;
}

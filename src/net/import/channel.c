/* Arithmetic by channel: batch norm, slopes, and addition and multiplication with constants. On the image itself it becomes part of
 * the normalisation, behind a layer without bias its bias, elsewhere a batch norm. Arithmetic of two images is here too. */
#include <float.h>
#include <math.h>

#include "net/import/internal.h"

#define EPS 1e-5f

/* Does dimension `dim` count a node's channels, in their order? */
static bool counts_channels(const lb_importer *im, const lb_view *v, int dim) {
    const int c = im->net->nodes[v->node].dst.c;
    const lb_digit *digit = NULL;
    int digits = 0;
    for (int i = 0; i < v->ndigits; i++)
        if (v->digit[i].dim == dim) {
            digit = &v->digit[i];
            digits++;
        }
    return digits == 0 ? c == 1 : digits == 1 && digit->extent == c && digit->stride == 1;
}

/* Which element of a list of `count`, along dimension `dim` of a view, belongs to which channel of the node: order[j], NULL: j. A
 * flat image gets its flatten node here, for its channels are all its elements, and shuffled channels are put in order. Without
 * values the order is not made. */
static lb_status match_channels(lb_importer *im, lb_view *v, int dim, int64_t count, bool values, const int64_t **order) {
    *order = NULL;
    if (!counts_channels(im, v, dim))
        LB_TRY(v->ndim == 2 ? lb_import_flat(im, v, values, order, NULL) : lb_import_straighten(im, v));
    if (v->ndim != 2 && !counts_channels(im, v, dim))
        return lb_import_refuse(im, "its %lld numbers are not one for each channel", (long long)count);
    if (count != im->net->nodes[v->node].dst.c)
        return lb_import_damaged(im, "%lld numbers for %d channels", (long long)count, im->net->nodes[v->node].dst.c);
    return LB_OK;
}

static lb_status append_batchnorm(lb_importer *im, lb_view *v, const char *parameter, float eps, float momentum, bool calibrate) {
    lb_node node = {.op = LB_OP_BATCHNORM, .name = lb_import_name(im, parameter), .nsrc = 1, .src = {v->node}};
    node.u.bn.eps = eps;
    node.u.bn.momentum = momentum;
    node.u.bn.calibrate = calibrate;
    return lb_import_append(im, &node, &v->node);
}

/* Exported for training, a batch norm says how the statistics go on and computes with those of the batch. Here it computes with the
 * running ones, its inputs, and goes on by itself. */
static lb_status leave_training(lb_importer *im) {
    bool training = lb_import_int(im, "training_mode", 0) != 0; /* opset 14; older ones only have more outputs */
    for (size_t o = 1; o < im->node->n_output; o++) {
        training |= *im->node->output[o] != 0;
        if (lb_import_is_read(im, o))
            return lb_import_refuse(im, "its statistics are used, which only training has; export the network for evaluation");
    }
    im->ntraining += training;
    return LB_OK;
}

static lb_status read_batchnorm(lb_importer *im) {
    lb_view *src, dst;
    const lb_constant *given[4];
    const int64_t *order;
    const float eps = lb_import_real(im, "epsilon", EPS), momentum = 1 - lb_import_real(im, "momentum", 0.9f);
    LB_TRY(leave_training(im));
    LB_TRY(lb_import_view(im, 0, &src));
    for (int i = 0; i < 4; i++) {
        LB_TRY(lb_import_constant(im, i + 1, &given[i]));
        if (given[i]->whole || given[i]->count != given[0]->count)
            return lb_import_damaged(im, "its scale, bias, mean and variance are not equally many numbers");
    }
    dst = *src;
    if (src->batch_dim != 0 || src->ndim < 2)
        return lb_import_refuse(im, "its input is no image in the order batch, channels, ...");
    bool values = false;
    for (int i = 0; i < 4; i++)
        values |= given[i]->f != NULL;
    LB_TRY(match_channels(im, &dst, 1, given[0]->count, values, &order));
    if (!(eps >= 0) || isinf(eps))
        return lb_import_damaged(im, "its epsilon is %g", (double)eps);
    const lb_tensor *scale = lb_import_input(im, 1);
    LB_TRY(
        append_batchnorm(im, &dst, scale->name, eps > 0 ? eps : FLT_MIN, momentum > 0 && momentum <= 1 ? momentum : 0.1f, false));
    for (int i = 0; i < 4; i++)
        LB_TRY(lb_import_fill(im, &(lb_import_values){.param = im->net->nodes[dst.node].param[i],
                                                      .src = given[i]->f,
                                                      .rows = 1,
                                                      .cols = given[i]->count,
                                                      .col_stride = 1,
                                                      .order = order,
                                                      .factor = 1}));
    return lb_import_set_view(im, &dst);
}

/* ---- With constants --------------------------------------------------------------------------------------------------- */

/* y = scale * x + offset for each channel of a node, in its order. */
typedef struct affine {
    int c;
    int n; /* c, or 1: all channels have the same */
    bool known; /* the numbers are there */
    float *scale, *offset; /* (n) */
} affine;

/* All zeros. */
static lb_status new_affine(lb_importer *im, int c, int n, bool known, affine *a) {
    LB_TRY(lb_import_charge(im, &im->budget, 2 * (int64_t)n));
    float *both = lb_pool_alloc(&im->pool, 2 * (size_t)n, sizeof *both);
    *a = (affine){c, n, known, both, both ? both + n : NULL};
    return both ? LB_OK : LB_ERR_MEMORY;
}

/* x op k; reversed: k op x, which is no division. */
static lb_status make_affine(lb_importer *im, lb_arithmetic op, const lb_constant *k, const int64_t *order, int c, bool reversed,
                             affine *a) {
    LB_TRY(new_affine(im, c, k->f && k->count > 1 ? c : 1, k->f != NULL, a));
    for (int j = 0; j < a->n; j++) {
        const float value = k->f ? k->f[j] : 1;
        const int64_t at = order && a->n > 1 ? order[j] : j;
        a->scale[at] = op == LB_MUL ? value : op == LB_DIV ? 1 / value : op == LB_SUB && reversed ? -1 : 1;
        a->offset[at] = op == LB_ADD || (op == LB_SUB && reversed) ? value : op == LB_SUB ? -value : 0;
        if (!isfinite(a->scale[at]) || !isfinite(a->offset[at]))
            return lb_import_damaged(im, "its constant %g gives numbers that are not finite", (double)value);
    }
    return LB_OK;
}

/* Dimension along which a constant differs, aligned at the last one of the view: -1 for a single number. */
static lb_status find_dim(lb_importer *im, const lb_view *v, const lb_constant *k, int *dim) {
    *dim = -1;
    if (k->ndim > v->ndim)
        return lb_import_refuse(im, "its constant has %d dimensions, the image %d", k->ndim, v->ndim);
    for (int d = 0; d < k->ndim && k->count != 1; d++) {
        if (k->dims[d] == 1)
            continue;
        if (*dim >= 0)
            return lb_import_refuse(im, "its constant is not one number for each channel");
        *dim = v->ndim - k->ndim + d;
    }
    return LB_OK;
}

/* May a sum with `t` become the bias of the layer before? */
static bool takes_bias(const lb_importer *im, const lb_tensor *t, const lb_view *v) {
    const lb_node *node = &im->net->nodes[v->node];
    return lb_is_layer(node) && node->param[1] < 0 && lb_import_is_own(t);
}

static lb_status add_bias(lb_importer *im, const lb_view *v, const affine *a) {
    lb_node *node = &im->net->nodes[v->node];
    node->u.conv.bias = true;
    LB_TRY(lb_net_add_param(im->net, node, "bias", LB_PARAM_BIAS, 1, (int64_t[]){a->c}, &node->param[1]));
    return lb_import_fill(im, &(lb_import_values){.param = node->param[1],
                                                  .src = a->known ? a->offset : NULL,
                                                  .rows = 1,
                                                  .cols = a->c,
                                                  .col_stride = a->n > 1,
                                                  .factor = 1});
}

static lb_status add_affine(lb_importer *im, lb_view *v, const affine *a) {
    LB_TRY(append_batchnorm(im, v, NULL, EPS, 0, true));
    const int *param = im->net->nodes[v->node].param;
    if (!a->known)
        return LB_OK;
    LB_TRY(lb_import_fill(
        im, &(lb_import_values){
                .param = param[0], .src = a->scale, .rows = 1, .cols = a->c, .col_stride = a->n > 1, .factor = sqrtf(1 + EPS)}));
    return lb_import_fill(
        im, &(lb_import_values){.param = param[1], .src = a->offset, .rows = 1, .cols = a->c, .col_stride = a->n > 1, .factor = 1});
}

/* Input `which` is the image, the other one k. */
static lb_status with_constant(lb_importer *im, lb_arithmetic op, int which, const lb_constant *k) {
    lb_view *src, dst;
    const lb_tensor *t = lb_import_input(im, which);
    const int64_t *order = NULL;
    int dim;
    affine a;
    LB_TRY(lb_import_view(im, which, &src));
    if (k->whole || k->count < 1)
        return lb_import_refuse(im, "its constant holds no real numbers");
    if (which == 1 && op == LB_DIV)
        return lb_import_refuse(im, "divides by an image");
    dst = *src;
    LB_TRY(find_dim(im, &dst, k, &dim));
    if (dim >= 0)
        LB_TRY(match_channels(im, &dst, dim, k->count, k->f != NULL, &order));
    LB_TRY(make_affine(im, op, k, order, im->net->nodes[dst.node].dst.c, which == 1, &a));
    bool positive = a.c <= 4; /* only then it can be a standard deviation */
    for (int c = 0; positive && c < a.n; c++)
        positive = a.scale[c] > 0;
    if (dst.node == 0 && lb_import_is_own(t) && positive) {
        for (int c = 0; c < a.c; c++) {
            const int at = a.n > 1 ? c : 0;
            im->scale[c] *= a.scale[at];
            im->offset[c] = im->offset[c] * a.scale[at] + a.offset[at];
        }
    } else if ((op == LB_ADD || (op == LB_SUB && which == 0)) && takes_bias(im, t, &dst)) {
        LB_TRY(add_bias(im, &dst, &a));
    } else {
        LB_TRY(add_affine(im, &dst, &a));
    }
    return lb_import_set_view(im, &dst);
}

/* One slope for each channel, or a constant one for all. */
static lb_status read_prelu(lb_importer *im) {
    lb_view *src, dst;
    const lb_constant *slope;
    const int64_t *order = NULL;
    int dim;
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_constant(im, 1, &slope));
    if (slope->whole || slope->count < 1)
        return lb_import_refuse(im, "its constant holds no real numbers");
    dst = *src;
    lb_node node = {.op = LB_OP_FUNC, .nsrc = 1};
    const bool single = slope->count == 1 && !slope->weight;
    node.u.func.alpha = single ? slope->f[0] : 0;
    node.u.func.slopes = !single;
    if (!single) {
        dim = slope->count == 1 ? -1 : 1; /* before opset 7 a list goes along the channels */
        if (im->opset >= 7 || slope->ndim != 1)
            LB_TRY(find_dim(im, &dst, slope, &dim));
        if (dim >= 0)
            LB_TRY(match_channels(im, &dst, dim, slope->count, slope->f != NULL, &order));
    }
    node.name = lb_import_name(im, single ? NULL : lb_import_input(im, 1)->name);
    node.src[0] = dst.node;
    LB_TRY(lb_import_append(im, &node, &dst.node));
    if (!single)
        LB_TRY(lb_import_fill(im, &(lb_import_values){.param = im->net->nodes[dst.node].param[0],
                                                      .src = slope->f,
                                                      .rows = 1,
                                                      .cols = im->net->nodes[dst.node].dst.c,
                                                      .col_stride = slope->count > 1,
                                                      .order = order,
                                                      .factor = 1}));
    return lb_import_set_view(im, &dst);
}

/* ---- Two images ------------------------------------------------------------------------------------------------------- */

lb_status lb_import_times(lb_importer *im, lb_view *v, float factor) {
    affine a;
    LB_TRY(new_affine(im, im->net->nodes[v->node].dst.c, 1, true, &a));
    a.scale[0] = factor;
    return add_affine(im, v, &a);
}

/* Inputs 0 and 1. A pixel that is to be repeated to the size of the other image stays one in a product. */
static lb_status read_both(lb_importer *im, bool mul, lb_view *both) {
    lb_view *input[2];
    for (int i = 0; i < 2; i++) {
        LB_TRY(lb_import_repeated_view(im, i, &input[i]));
        if (!input[i]->repeat_h)
            LB_TRY(lb_import_settle(im, input[i]));
    }
    for (int i = 0; i < 2; i++) {
        const lb_shape *other = &im->net->nodes[input[1 - i]->node].dst;
        if (!mul || other->h != input[i]->repeat_h || other->w != input[i]->repeat_w)
            LB_TRY(lb_import_settle(im, input[i]));
        both[i] = *input[i];
        both[i].repeat_h = both[i].repeat_w = 0;
    }
    return LB_OK;
}

/* Images of the same shape, or one of them with one number for each channel, as both[0] op both[1] in *result, which may be one of
 * them. */
static lb_status two_images(lb_importer *im, lb_arithmetic op, const lb_view *both, lb_view *result) {
    lb_view turned[] = {both[0], both[1]}, *a = &turned[0], *b = &turned[1], dst, negative;
    const bool mul = op == LB_MUL;
    bool last[2];
    for (int i = 0; i < 2; i++)
        LB_TRY(lb_import_turn(im, &turned[i], &last[i]));
    if (last[0] != last[1])
        return lb_import_refuse(im, "of images of different order");
    for (int i = 0; i < 2 && !lb_view_same(a, b); i++)
        LB_TRY(lb_import_straighten(im, &turned[i]));
    const lb_shape *sa = &im->net->nodes[a->node].dst, *sb = &im->net->nodes[b->node].dst;
    lb_view *small = sa->h * sa->w < sb->h * sb->w ? a : b, *large = small == a ? b : a;
    const lb_shape *ss = &im->net->nodes[small->node].dst, *sl = &im->net->nodes[large->node].dst;
    const bool gate =
        ss->h == 1 && ss->w == 1 && ss->c == sl->c && a->ndim == b->ndim && lb_view_is_image(im, a) && lb_view_is_image(im, b);
    if (mul && gate) {
        a = large, b = small;
    } else if (gate && !lb_view_same(a, b)) { /* its pixel everywhere */
        small->repeat_h = sl->h, small->repeat_w = sl->w;
        LB_TRY(lb_import_repeat(im, small));
    }
    if (!lb_view_same(a, b) && !gate)
        return lb_import_refuse(im, "of images of different shapes");
    if (op == LB_SUB) {
        negative = *b;
        LB_TRY(lb_import_times(im, &negative, -1));
        b = &negative;
    }
    const lb_node node = {
        .op = mul ? LB_OP_MUL : LB_OP_ADD, .name = lb_import_name(im, NULL), .nsrc = 2, .src = {a->node, b->node}};
    dst = *a;
    LB_TRY(lb_import_append(im, &node, &dst.node));
    LB_TRY(lb_import_turn_back(im, &dst, last[0]));
    *result = dst;
    return LB_OK;
}

static lb_status read_arithmetic(lb_importer *im, lb_arithmetic op) {
    if (im->opset < 7 && lb_import_attribute(im, "axis"))
        return lb_import_refuse(im, "its axis attribute is of opset 6; export again with a newer one");
    for (int i = 0; i < 2; i++) {
        const lb_tensor *t = lb_import_input(im, i);
        if (t && t->kind == LB_TENSOR_CONSTANT)
            return with_constant(im, op, 1 - i, &t->constant);
    }
    lb_view both[2], dst;
    if (op == LB_DIV)
        return lb_import_refuse(im, "divides by an image");
    LB_TRY(read_both(im, op == LB_MUL, both));
    LB_TRY(two_images(im, op, both, &dst));
    return lb_import_set_view(im, &dst);
}

static lb_status read_add(lb_importer *im) { return read_arithmetic(im, LB_ADD); }
static lb_status read_sub(lb_importer *im) { return read_arithmetic(im, LB_SUB); }
static lb_status read_mul(lb_importer *im) { return read_arithmetic(im, LB_MUL); }
static lb_status read_div(lb_importer *im) { return read_arithmetic(im, LB_DIV); }

/* Of two one may be a constant, of more none. */
static lb_status read_sum(lb_importer *im) {
    lb_view *src, both[2];
    if (im->node->n_input == 2)
        return read_add(im);
    LB_TRY(lb_import_view(im, 0, &src));
    both[0] = *src;
    for (int i = 1; i < (int)im->node->n_input; i++) {
        LB_TRY(lb_import_view(im, i, &src));
        both[1] = *src;
        LB_TRY(two_images(im, LB_ADD, both, &both[0]));
    }
    return lb_import_set_view(im, &both[0]);
}

static lb_status read_neg(lb_importer *im) {
    lb_view *src, dst;
    LB_TRY(lb_import_view(im, 0, &src));
    dst = *src;
    LB_TRY(lb_import_times(im, &dst, -1));
    return lb_import_set_view(im, &dst);
}

static const lb_import_op ops[] = {
    {"Add", read_add}, {"BatchNormalization", read_batchnorm},
    {"Div", read_div}, {"Mul", read_mul},
    {"Neg", read_neg}, {"PRelu", read_prelu},
    {"Sub", read_sub}, {"Sum", read_sum},
};

lb_import_reader lb_import_channel_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

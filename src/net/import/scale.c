/* The size of weights before a batch norm, which divides by it. Training sees it all the same: gradients are as large as the
 * weights are small, so that a learning rate moves small ones by the inverse square of their size, in relation to it. The weights'
 * size grows until they fit the learning rate; the learned step of their quantizer, which the batch norm does not protect, is lost
 * on the way. torchvision's googlenet starts with a standard deviation of 0.01, in its first layer a twelfth of He's. */
#include <math.h>

#include "net/import/internal.h"

enum { SMALL = 4, MOST_DOUBLINGS = 20 };

/* He's standard deviation over the weights' own. */
static double he_ratio(const lb_net *net, const lb_node *layer) {
    const lb_param *p = &net->params[layer->param[0]];
    const float *w = net->values + p->offset;
    double squares = 0;
    for (size_t k = 0; k < p->count; k++)
        squares += (double)w[k] * (double)w[k];
    return squares > 0 ? sqrt(2.0 * layer->dst.c / squares) : 0;
}

static float scaled_var(float var, float eps, int doublings) { return ldexpf(var + eps, 2 * doublings) - eps; }

/* Do they stay finite? */
static bool fits(const lb_net *net, const lb_node *layer, const lb_node *bn, int doublings) {
    const float *mean = lb_param_values(net, bn->param[2]), *var = lb_param_values(net, bn->param[3]);
    bool finite = true;
    for (int i = 0; i < 2 && layer->param[i] >= 0; i++) {
        const lb_param *p = &net->params[layer->param[i]];
        for (size_t k = 0; k < p->count; k++)
            finite &= isfinite(ldexpf(net->values[p->offset + k], doublings)) != 0;
    }
    for (int c = 0; c < bn->dst.c; c++)
        finite &= isfinite(ldexpf(mean[c], doublings)) && isfinite(scaled_var(var[c], bn->u.bn.eps, doublings));
    return finite;
}

/* Weights and bias times 2^doublings, of which the batch norm's output knows nothing. */
static void scale(const lb_net *net, const lb_node *layer, const lb_node *bn, int doublings) {
    const float eps = bn->u.bn.eps;
    for (int i = 0; i < 2 && layer->param[i] >= 0; i++) {
        const lb_param *p = &net->params[layer->param[i]];
        for (size_t k = 0; k < p->count; k++)
            net->values[p->offset + k] = ldexpf(net->values[p->offset + k], doublings);
    }
    float *mean = lb_param_values(net, bn->param[2]), *var = lb_param_values(net, bn->param[3]);
    for (int c = 0; c < bn->dst.c; c++) {
        mean[c] = ldexpf(mean[c], doublings);
        var[c] = scaled_var(var[c], eps, doublings);
    }
}

lb_status lb_import_scale(lb_importer *im) {
    lb_net *net = im->net;
    int *readers = lb_pool_alloc(&im->pool, (size_t)net->nnodes, sizeof *readers), scaled = 0;
    if (!readers)
        return LB_ERR_MEMORY;
    for (int i = 0; i < net->nnodes; i++)
        for (int s = 0; s < net->nodes[i].nsrc; s++)
            readers[net->nodes[i].src[s]]++;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *bn = &net->nodes[i], *layer = &net->nodes[bn->src[0]];
        if (bn->op != LB_OP_BATCHNORM || bn->u.bn.calibrate || readers[bn->src[0]] != 1 || !lb_is_layer(layer))
            continue;
        const double ratio = he_ratio(net, layer);
        if (ratio < SMALL)
            continue;
        const int doublings = (int)fmin(lround(log2(ratio)), MOST_DOUBLINGS);
        if (!fits(net, layer, bn, doublings))
            continue;
        scale(net, layer, bn, doublings);
        scaled++;
    }
    if (scaled)
        lb_note(
            im->ctx,
            "%s: weights of %d layers are smaller than a quarter of He's; they are scaled up, and their batch norms take it back",
            im->path, scaled);
    return LB_OK;
}

/* Networks with random parameters, and what they compute in real numbers: plain loops in double on dequantised weights, ideal
 * rounding. It shares nothing with evaluation and lowering but the quantizers' public functions. */
#ifndef LB_TEST_NETREF_H
#define LB_TEST_NETREF_H

#include <math.h>

#include "net/net.h"
#include "recipe/config.h"
#include "support.h"

typedef struct netref {
    const lb_net *net;
    const float *mean, *std;
    int mb;
    bool calibrate;   /* batch norm's running statistics are set from what arrives */
    double noise;     /* added to results of batch norm, addition and pooling: up to this much either way */
    uint32_t seed;
    const double *image; /* (mb, h, w, c) instead of pixels */
    double **values;  /* (nnodes) (mb, h, w, c) */
} netref;

static inline uint32_t netref_bits(uint32_t *state) { /* xorshift */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}
static inline float netref_uniform(uint32_t *state, float lo, float hi) {
    return lo + (hi - lo) * (float)(netref_bits(state) >> 8) * 0x1p-24f;
}

static inline const double *netref_src(const netref *r, const lb_node *node, int i) { return r->values[node->src[i]]; }

/* Weights as real numbers. */
static inline double *netref_weights(const netref *r, const lb_node *node) {
    const lb_param *p = &r->net->params[node->param[0]];
    const float *u = lb_param_values(r->net, node->param[0]);
    const size_t oc = (size_t)node->dst.c, fan_in = p->count / oc;
    double *w = calloc(p->count, sizeof *w);
    float *step = calloc(oc, sizeof *step), *code = calloc(p->count, sizeof *code), *work = calloc(p->count, sizeof *work);
    if (node->quant)
        lb_quant_weights_forward(node->quant, &lb_quant_evaluation,
                                 node->quant->param < 0 ? NULL : lb_param_values(r->net, node->quant->param),
                                 &(lb_weights){.u = u, .oc = (int)oc, .fan_in = (int64_t)fan_in}, step, code, work);
    for (size_t i = 0; i < p->count; i++)
        w[i] = node->quant ? (double)code[i] * (double)step[i / fan_in] : (double)u[i];
    free(step), free(code), free(work);
    return w;
}

static inline void netref_conv(const netref *r, const lb_node *node, double *dst) {
    const lb_shape s = *lb_src_shape(r->net, node, 0), d = node->dst;
    lb_conv c = node->u.conv;
    if (node->op == LB_OP_LINEAR)
        c = (lb_conv){.oc = d.c, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .groups = 1};
    const int icg = s.c / c.groups, ocg = d.c / c.groups;
    const double *src = netref_src(r, node, 0);
    const float *bias = node->param[1] < 0 ? NULL : lb_param_values(r->net, node->param[1]);
    double *w = netref_weights(r, node);
    for (int n = 0; n < r->mb; n++)
        for (int y = 0; y < d.h; y++)
            for (int x = 0; x < d.w; x++)
                for (int o = 0; o < d.c; o++) {
                    double sum = bias ? (double)bias[o] : 0;
                    for (int ky = 0; ky < c.kh; ky++)
                        for (int kx = 0; kx < c.kw; kx++) {
                            const int iy = y * c.sh - c.pt + ky * (c.gap_h + 1), ix = x * c.sw - c.pl + kx * (c.gap_w + 1);
                            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w)
                                continue;
                            const double *p =
                                src + (((size_t)n * (size_t)s.h + (size_t)iy) * (size_t)s.w + (size_t)ix) * (size_t)s.c;
                            for (int i = 0; i < icg; i++)
                                sum += p[o / ocg * icg + i] * w[((o * c.kh + ky) * c.kw + kx) * icg + i];
                        }
                    *dst++ = sum;
                }
    free(w);
}

static inline void netref_pool(const netref *r, const lb_node *node, double *dst) {
    const lb_shape s = *lb_src_shape(r->net, node, 0), d = node->dst;
    const lb_pooling p = node->u.pool;
    const double *src = netref_src(r, node, 0);
    for (int n = 0; n < r->mb; n++)
        for (int y = 0; y < d.h; y++)
            for (int x = 0; x < d.w; x++)
                for (int c = 0; c < d.c; c++) {
                    double max = -INFINITY, sum = 0;
                    int inside = 0;
                    for (int iy = y * p.sh - p.pt; iy < y * p.sh - p.pt + p.kh; iy++)
                        for (int ix = x * p.sw - p.pl; ix < x * p.sw - p.pl + p.kw; ix++) {
                            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w)
                                continue;
                            const double v =
                                src[(((size_t)n * (size_t)s.h + (size_t)iy) * (size_t)s.w + (size_t)ix) * (size_t)s.c + (size_t)c];
                            max = v > max ? v : max;
                            sum += v;
                            inside++;
                        }
                    *dst++ = node->op == LB_OP_MAXPOOL ? max : sum / (p.inside ? inside : p.kh * p.kw);
                }
}

static inline void netref_batchnorm(netref *r, const lb_node *node, double *dst) {
    const size_t c = (size_t)node->dst.c, rows = (size_t)r->mb * lb_shape_count(&node->dst) / c;
    const double *src = netref_src(r, node, 0);
    float *p[4];
    for (int i = 0; i < 4; i++)
        p[i] = lb_param_values(r->net, node->param[i]);
    for (size_t k = 0; k < c; k++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < rows; i++)
            sum += src[i * c + k], squares += src[i * c + k] * src[i * c + k];
        if (r->calibrate) {
            const double mean = sum / (double)rows, var = fabs(squares / (double)rows - mean * mean);
            p[2][k] = (float)mean;
            p[3][k] = (float)(var * (0.5 + (double)netref_uniform(&r->seed, 0, 1)));
            if (netref_bits(&r->seed) % 16 == 0) { /* a variance far below eps, and a gamma that makes up for it */
                p[3][k] = 1e-12f;
                p[0][k] *= (float)sqrt((double)node->u.bn.eps / (var + 1e-5));
            }
        }
        for (size_t i = 0; i < rows; i++)
            dst[i * c + k] = (src[i * c + k] - (double)p[2][k]) / sqrt((double)p[3][k] + (double)node->u.bn.eps) * (double)p[0][k] +
                             (double)p[1][k];
    }
}

static inline void netref_act(const netref *r, const lb_node *node, double *dst) {
    const size_t count = (size_t)r->mb * lb_shape_count(&node->dst);
    const double *src = netref_src(r, node, 0);
    lb_act_form f = {0};
    if (node->quant)
        lb_quant_act_form(node->quant, &lb_quant_evaluation,
                          node->quant->param < 0 ? NULL : lb_param_values(r->net, node->quant->param), &f);
    for (size_t i = 0; i < count; i++) {
        const double step = (double)f.step, v = src[i];
        if (!node->quant)
            dst[i] = fmin(fmax(v, (double)node->u.act.lo), (double)node->u.act.hi);
        else if (f.sign)
            dst[i] = v >= 0 ? step : -step;
        else
            dst[i] = step * fmin(fmax(rint(v / step), (double)f.lo), (double)f.hi);
    }
}

static inline double netref_func(const lb_node *node, double alpha, double x) {
    const double beta = (double)node->u.func.beta;
    switch (node->u.func.kind) {
    case LB_FUNC_LEAKY: return fmax(x, 0) + alpha * fmin(x, 0);
    case LB_FUNC_SIGMOID: return 1 / (1 + exp(-x));
    case LB_FUNC_TANH: return tanh(x);
    case LB_FUNC_HARDSIGMOID: return fmax(0, fmin(1, alpha * x + beta));
    default: return x * fmax(0, fmin(1, x / 6 + 0.5));
    }
}

/* Fills r->values; the last node's are the scores. */
static inline void netref_run(netref *r, const uint8_t *pixels) {
    for (int n = 0; n < r->net->nnodes; n++) {
        const lb_node *node = &r->net->nodes[n];
        const size_t count = (size_t)r->mb * lb_shape_count(&node->dst), c = (size_t)node->dst.c;
        double *dst = r->values[n];
        switch (node->op) {
        case LB_OP_INPUT:
            for (size_t i = 0; i < count; i++)
                dst[i] = r->image ? r->image[i] : ((double)pixels[i] / 255 - (double)r->mean[i % c]) / (double)r->std[i % c];
            break;
        case LB_OP_CONV:
        case LB_OP_LINEAR: netref_conv(r, node, dst); break;
        case LB_OP_BATCHNORM: netref_batchnorm(r, node, dst); break;
        case LB_OP_ACT: netref_act(r, node, dst); break;
        case LB_OP_MAXPOOL:
        case LB_OP_AVGPOOL: netref_pool(r, node, dst); break;
        case LB_OP_ADD:
            for (size_t i = 0; i < count; i++)
                dst[i] = netref_src(r, node, 0)[i] + netref_src(r, node, 1)[i];
            break;
        case LB_OP_SHORTCUTPAD: {
            const lb_shape s = *lb_src_shape(r->net, node, 0), d = node->dst;
            for (size_t i = 0; i < count; i++) {
                const size_t k = i % c, x = i / c % (size_t)d.w, y = i / c / (size_t)d.w % (size_t)d.h,
                             m = i / c / (size_t)d.w / (size_t)d.h;
                const int sy = node->u.shortcutpad.rows[y], sx = node->u.shortcutpad.cols[x];
                dst[i] = 0;
                for (int p = 0; sy >= 0 && sx >= 0 && p < node->u.shortcutpad.nparts; p++) {
                    const lb_part *part = &node->u.shortcutpad.parts[p];
                    if (k >= (size_t)part->dst && k < (size_t)part->dst + (size_t)part->count)
                        dst[i] = netref_src(
                            r, node, 0)[((m * (size_t)s.h + (size_t)sy) * (size_t)s.w + (size_t)sx) * (size_t)s.c +
                                        k - (size_t)part->dst + (size_t)part->src];
                }
            }
            break;
        }
        case LB_OP_CONCAT: {
            size_t at = 0;
            for (int s = 0; s < node->nsrc; s++) {
                const size_t own = (size_t)lb_src_shape(r->net, node, s)->c;
                for (size_t i = 0; i < count / c * own; i++)
                    dst[i / own * c + at + i % own] = netref_src(r, node, s)[i];
                at += own;
            }
            break;
        }
        case LB_OP_FUNC:
            for (size_t i = 0; i < count; i++)
                dst[i] = netref_func(node, (double)lb_func_alpha(r->net, node, i % c), netref_src(r, node, 0)[i]);
            break;
        case LB_OP_MUL: {
            const size_t each = lb_shape_count(&node->dst), other = lb_shape_count(lb_src_shape(r->net, node, 1));
            for (size_t i = 0; i < count; i++)
                dst[i] = netref_src(r, node, 0)[i] * netref_src(r, node, 1)[i / each * other + i % each % other];
            break;
        }
        default: memcpy(dst, netref_src(r, node, 0), count * sizeof *dst); break;
        }
        for (size_t i = 0; r->noise > 0 && i < count; i++)
            if (node->op == LB_OP_BATCHNORM || node->op == LB_OP_ADD || node->op == LB_OP_AVGPOOL)
                dst[i] += r->noise * (double)netref_uniform(&r->seed, -1, 1);
    }
}

static inline void netref_create(netref *r, const lb_net *net, const float *mean, const float *std, int mb, uint32_t seed) {
    *r = (netref){.net = net, .mean = mean, .std = std, .mb = mb, .seed = seed};
    r->values = calloc((size_t)net->nnodes, sizeof *r->values);
    for (int n = 0; n < net->nnodes; n++)
        r->values[n] = calloc((size_t)mb * lb_shape_count(&net->nodes[n].dst), sizeof(double));
}

/* Made, its batch norms calibrated on the images, and run on them. */
static inline void netref_calibrated(netref *r, const lb_net *net, const float *mean, const float *std, int mb, uint32_t seed,
                                     const uint8_t *pixels) {
    netref_create(r, net, mean, std, mb, seed);
    r->calibrate = true;
    netref_run(r, pixels);
    r->calibrate = false;
    netref_run(r, pixels);
}

static inline void netref_destroy(netref *r) {
    for (int n = 0; n < r->net->nnodes; n++)
        free(r->values[n]);
    free(r->values);
}

/* Random weights, biases, gammas of both signs and zero, betas; quantizers' parameters started from plausible values. */
static inline void netref_fill(lb_net *net, uint32_t seed) {
    lb_net_initialise(net, seed, 0);
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *p = &net->params[i];
        float *v = lb_param_values(net, i);
        for (size_t k = 0; k < p->count; k++) {
            if (p->kind == LB_PARAM_BIAS || p->kind == LB_PARAM_BN_BETA)
                v[k] = netref_uniform(&seed, -0.5f, 0.5f);
            else if (p->kind == LB_PARAM_SLOPE)
                v[k] = netref_uniform(&seed, -0.4f, 1.3f);
            else if (p->kind == LB_PARAM_BN_GAMMA)
                v[k] = netref_bits(&seed) % 12 == 0
                           ? 0
                           : netref_uniform(&seed, 0.3f, 1.2f) * (netref_bits(&seed) % 4 == 0 ? -1.0f : 1.0f);
        }
    }
    float sample[512];
    for (size_t k = 0; k < LB_COUNT(sample); k++)
        sample[k] = netref_uniform(&seed, -2, 2);
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        lb_quant *q = node->quant;
        if (!q || q->param < 0)
            continue;
        float *param = lb_param_values(net, q->param);
        if (node->op == LB_OP_ACT)
            q->spec.quantizer->init(&q->spec, sample, 1, LB_COUNT(sample), param);
        else
            q->spec.quantizer->init(&q->spec, lb_param_values(net, node->param[0]), node->dst.c,
                                    (int64_t)net->params[node->param[0]].count / node->dst.c, param);
        q->initialised = true;
    }
}

#endif

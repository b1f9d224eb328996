#include "train/optim.h"

#include <float.h>
#include <math.h>

#define THREADED ((size_t)1 << 17) /* fewer values are not worth waking threads for */

struct lb_optim {
    lb_ctx *ctx;
    lb_optimizer_config config;
    size_t count;
    int nstates;
    float *state[2]; /* (count) */
};

lb_status lb_optim_create(lb_ctx *ctx, const lb_net *net, const lb_optimizer_config *config, lb_optim **optim) {
    *optim = NULL;
    lb_optim *o = lb_alloc(ctx, 1, sizeof *o);
    if (!o)
        return LB_ERR_MEMORY;
    o->ctx = ctx;
    o->config = *config;
    o->count = net->nvalues;
    o->nstates = config->name != LB_OPT_SGD ? 2 : config->momentum > 0;
    for (int i = 0; i < o->nstates; i++)
        if (!(o->state[i] = lb_alloc(ctx, o->count, sizeof(float)))) {
            lb_optim_destroy(o);
            return LB_ERR_MEMORY;
        }
    *optim = o;
    return LB_OK;
}

void lb_optim_destroy(lb_optim *optim) {
    if (!optim)
        return;
    lb_free(optim->ctx, optim->state[0]);
    lb_free(optim->ctx, optim->state[1]);
    lb_free(optim->ctx, optim);
}

int lb_optim_nstates(const lb_optim *optim) { return optim->nstates; }

const char *lb_optim_state_name(const lb_optim *optim, int i) {
    return optim->config.name == LB_OPT_SGD ? "momentum" : i == 0 ? "exp_avg" : "exp_avg_sq";
}

float *lb_optim_state(const lb_optim *optim, int i) { return optim->state[i]; }

/* What one kind of parameter gets. */
typedef struct rule {
    float lr, decay, lo, hi;
    float correct1, correct2; /* adam: 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
} rule;

/* Images have no gradient, so their quantizer keeps its first parameters; decay alone would move them. */
static bool of_image(const lb_net *net, const lb_param *param) {
    const lb_node *node = &net->nodes[param->node];
    return node->op == LB_OP_ACT && net->nodes[node->src[0]].op == LB_OP_INPUT;
}

/* False: not trained. */
static bool rule_of(const lb_optimizer_config *c, const lb_net *net, const lb_param *param, double lr, rule *r) {
    const lb_quant *quant = net->nodes[param->node].quant;
    *r = (rule){.lr = (float)lr, .lo = -INFINITY, .hi = INFINITY};
    double decay = c->weight_decay;
    switch (param->kind) {
    case LB_PARAM_WEIGHT:
        if (quant && c->clip_weights > 0) {
            r->lo = -c->clip_weights;
            r->hi = c->clip_weights;
        }
        break;
    case LB_PARAM_BIAS:
        decay *= c->decay_bias;
        break;
    case LB_PARAM_SLOPE: /* decay would make it a relu */
        decay = 0;
        break;
    case LB_PARAM_BN_GAMMA:
    case LB_PARAM_BN_BETA:
        decay *= c->decay_bn;
        break;
    case LB_PARAM_QUANT:
        if ((quant && quant->spec.quantizer->fixed_params) || of_image(net, param))
            return false;
        if (quant && quant->spec.options.bit_lengths != LB_BITS_FIXED &&
            (int)(param - net->params) - quant->param >= quant->spec.quantizer->nparams) { /* a gate */
            if (quant->spec.options.bit_lengths == LB_BITS_KEPT)
                return false;
            r->lr = (float)(lr * c->lr_gates);
            decay = 0;
            break;
        }
        decay *= c->decay_quant;
        r->lr = (float)(lr * c->lr_quant);
        if (!quant || !quant->spec.quantizer->log_params)
            r->lo = LB_QUANT_FLOOR;
        break;
    case LB_PARAM_BN_MEAN:
    case LB_PARAM_BN_VAR:
        return false;
    }
    r->decay = (float)decay;
    return true;
}

static inline float clamp(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

/* The loops are written with selections and no branches, so that they vectorise. `bad`, as wide as a float
 * for the same reason, counts gradients that are not finite. */

static int32_t sgd(const rule *r, size_t n, float *restrict p, const float *restrict diff) {
    int32_t bad = 0;
#pragma omp simd reduction(+ : bad)
    for (size_t i = 0; i < n; i++) {
        bool ok = fabsf(diff[i]) <= FLT_MAX;
        float g = diff[i] + r->decay * p[i];
        float x = clamp(p[i] - r->lr * g, r->lo, r->hi);
        p[i] = ok ? x : p[i];
        bad += !ok;
    }
    return bad;
}

static int32_t sgd_momentum(const rule *r, float momentum, bool nesterov, size_t n, float *restrict p, const float *restrict diff,
                            float *restrict velocity) {
    /* Both forms are p -= lr (a g + b v). */
    const float a = nesterov ? 1.0f : 0.0f, b = nesterov ? momentum : 1.0f;
    int32_t bad = 0;
#pragma omp simd reduction(+ : bad)
    for (size_t i = 0; i < n; i++) {
        bool ok = fabsf(diff[i]) <= FLT_MAX;
        float g = diff[i] + r->decay * p[i];
        float v = momentum * velocity[i] + g;
        float x = clamp(p[i] - r->lr * (a * g + b * v), r->lo, r->hi);
        velocity[i] = ok ? v : velocity[i];
        p[i] = ok ? x : p[i];
        bad += !ok;
    }
    return bad;
}

static int32_t adam(const rule *r, const lb_optimizer_config *c, size_t n, float *restrict p, const float *restrict diff,
                    float *restrict mean, float *restrict square) {
    const bool decoupled = c->name == LB_OPT_ADAMW;
    const float shrink = decoupled ? 1.0f - r->lr * r->decay : 1.0f, decay = decoupled ? 0.0f : r->decay;
    const float beta1 = c->beta1, beta2 = c->beta2, eps = c->eps, lr = r->lr * r->correct1;
    int32_t bad = 0;
#pragma omp simd reduction(+ : bad)
    for (size_t i = 0; i < n; i++) {
        bool ok = fabsf(diff[i]) <= FLT_MAX;
        float g = diff[i] + decay * p[i];
        float m = beta1 * mean[i] + (1.0f - beta1) * g;
        float u = beta2 * square[i] + (1.0f - beta2) * g * g;
        float x = clamp(shrink * p[i] - lr * m / (sqrtf(u) * r->correct2 + eps), r->lo, r->hi);
        mean[i] = ok ? m : mean[i];
        square[i] = ok ? u : square[i];
        p[i] = ok ? x : p[i];
        bad += !ok;
    }
    return bad;
}

/* Elements [first, last) of the flat block. */
static int64_t update(const lb_optim *o, lb_net *net, const float *diff, double lr, int64_t step, size_t first, size_t last) {
    const lb_optimizer_config *c = &o->config;
    float correct1 = (float)(1 / (1 - pow(c->beta1, (double)step + 1))),
          correct2 = (float)(1 / sqrt(1 - pow(c->beta2, (double)step + 1)));
    int64_t bad = 0;
    for (int i = 0; i < net->nparams; i++) {
        const lb_param *param = &net->params[i];
        size_t from = LB_MAX(first, param->offset), to = LB_MIN(last, param->offset + param->count);
        rule r;
        if (from >= to || !rule_of(c, net, param, lr, &r))
            continue;
        r.correct1 = correct1;
        r.correct2 = correct2;
        float *p = net->values + from;
        const float *g = diff + from;
        if (c->name != LB_OPT_SGD)
            bad += adam(&r, c, to - from, p, g, o->state[0] + from, o->state[1] + from);
        else if (o->nstates)
            bad += sgd_momentum(&r, c->momentum, c->nesterov, to - from, p, g, o->state[0] + from);
        else
            bad += sgd(&r, to - from, p, g);
    }
    return bad;
}

int64_t lb_optim_step(lb_optim *optim, lb_net *net, const float *diff, double lr, int64_t step) {
    size_t count = optim->count;
    int64_t bad = 0;
    int pieces = count >= THREADED ? LB_MAX(lb_threads(optim->ctx), 1) : 1;
    size_t piece = (count / (size_t)pieces + 64) / 64 * 64; /* whole cache lines; pieces * piece >= count */
#pragma omp parallel for schedule(static) num_threads(pieces) reduction(+ : bad) if (pieces > 1)
    for (int i = 0; i < pieces; i++)
        bad += update(optim, net, diff, lr, step, LB_MIN((size_t)i * piece, count), LB_MIN((size_t)(i + 1) * piece, count));
    return bad;
}

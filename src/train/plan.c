/* Compiling: graph -> fused steps -> lifetimes -> arena -> primitives. */
#include "train/plan.h"

#include <omp.h>

#include "train/threads.h"

typedef struct builder {
    lb_plan *plan;
    const lb_net *net;
    int *uses;             /* (nnodes) number of consumers */
    int *sole;             /* (nnodes) the consumer if there is one only */
    bool *done;            /* (nnodes) fused into an earlier step */
    int last_layer;        /* last conv or linear: from its accumulator on everything is f32; -1: nothing is */
    size_t buffer_capacity;
} builder;

void *lb_plan_buffer(const lb_plan *plan, int buffer) { return plan->arena + plan->buffers[buffer].offset; }

static lb_status new_buffer(builder *b, size_t size, int time, int *index) {
    lb_plan *plan = b->plan;
    LB_TRY(lb_grow(plan->ctx, &plan->buffers, &b->buffer_capacity, (size_t)plan->nbuffers + 1, sizeof *plan->buffers));
    plan->buffers[plan->nbuffers] = (lb_buffer){.size = (size + LB_ALIGN - 1) / LB_ALIGN * LB_ALIGN, .first = time, .last = time};
    *index = plan->nbuffers++;
    return LB_OK;
}

static void touch(builder *b, int buffer, int time) {
    lb_buffer *buf = &b->plan->buffers[buffer];
    buf->first = LB_MIN(buf->first, time);
    buf->last = LB_MAX(buf->last, time);
}

/* ---- Forward: which nodes go into which step ------------------------------------------------------------------------ */

static lb_dtype type_at(const builder *b, int node) {
    return b->plan->options.bf16 && (b->last_layer < 0 || node < b->last_layer) ? LB_BF16 : LB_F32;
}

static size_t value_size(const lb_value *v) { return v->rows * (size_t)v->c * lb_dtype_size(v->type); }

static lb_status make_value(builder *b, int node, lb_dtype type, int time) {
    lb_value *v = &b->plan->values[node];
    const lb_shape *s = &b->net->nodes[node].dst;
    v->type = type;
    v->rows = (size_t)b->plan->options.mb * (size_t)s->h * (size_t)s->w;
    v->c = s->c;
    v->step = 1;
    return new_buffer(b, value_size(v), time, &v->buffer);
}

static bool ready(const builder *b, int node) { return lb_plan_value(b->plan, node)->buffer >= 0; }

/* Fuses the chain batch norm -> add -> activation that follows `node`, as far as each is the only consumer. */
static void fuse_chain(builder *b, lb_step *step) {
    const lb_net *net = b->net;
    for (;;) {
        int next = b->uses[step->node] == 1 ? b->sole[step->node] : -1;
        const lb_node *n = next < 0 ? NULL : &net->nodes[next];
        if (!n || b->done[next])
            return;
        if (n->op == LB_OP_BATCHNORM && step->bn < 0 && step->residual < 0) {
            step->bn = next;
        } else if (n->op == LB_OP_ADD && step->residual < 0 && n->src[0] != n->src[1]) {
            int other = n->src[n->src[0] == step->node];
            if (!ready(b, other) || lb_plan_value(b->plan, other)->type != type_at(b, next))
                return;
            step->residual = other;
        } else if (n->op == LB_OP_ACT) {
            step->act = next;
        } else {
            return;
        }
        b->done[next] = true;
        step->node = next;
        if (n->op == LB_OP_ACT)
            return;
    }
}

static lb_step *new_step(builder *b, lb_step_kind kind, int node) {
    lb_step *step = &b->plan->steps[b->plan->nsteps++];
    *step = (lb_step){.kind = kind, .node = node, .src = b->net->nodes[node].nsrc ? b->net->nodes[node].src[0] : -1,
                      .residual = -1, .conv = -1, .bn = -1, .act = -1, .acc = -1, .dz = -1, .dx = -1, .grad = -1, .workspace = -1};
    for (size_t i = 0; i < LB_COUNT(step->more_dx); i++)
        step->more_dx[i] = -1;
    return step;
}

static lb_status emit_norm(builder *b, lb_step *step) {
    lb_plan *plan = b->plan;
    int time = plan->nsteps - 1;
    fuse_chain(b, step);
    if (step->acc >= 0)
        touch(b, step->acc, time);
    else
        touch(b, lb_plan_value(plan, step->src)->buffer, time);
    if (step->residual >= 0)
        touch(b, lb_plan_value(plan, step->residual)->buffer, time);
    LB_TRY(make_value(b, step->node, step->acc >= 0 ? step->acc_type : lb_plan_value(plan, step->src)->type, time));
    lb_value *v = &plan->values[step->node];
    const lb_quant *quant = step->act >= 0 ? b->net->nodes[step->act].quant : NULL;
    bool learns = quant && lb_quant_nparams(&quant->spec) && !quant->spec.quantizer->fixed_params;
    v->wants_grad = step->conv >= 0 || step->bn >= 0 || learns || lb_plan_value(plan, step->src)->wants_grad ||
                    (step->residual >= 0 && lb_plan_value(plan, step->residual)->wants_grad);
    return LB_OK;
}

static lb_status emit_layer(builder *b, int node) {
    lb_plan *plan = b->plan;
    lb_step *conv = new_step(b, LB_STEP_CONV, node);
    const lb_shape *s = &b->net->nodes[node].dst;
    int time = plan->nsteps - 1;
    touch(b, lb_plan_value(plan, conv->src)->buffer, time);
    conv->acc_type = type_at(b, node);
    LB_TRY(new_buffer(b, (size_t)plan->options.mb * lb_shape_count(s) * lb_dtype_size(conv->acc_type), time, &conv->acc));
    lb_step *norm = new_step(b, LB_STEP_NORM, node);
    norm->src = -1;
    norm->conv = node;
    norm->acc = conv->acc;
    norm->acc_type = conv->acc_type;
    return emit_norm(b, norm);
}

static lb_status emit_node(builder *b, int i) {
    lb_plan *plan = b->plan;
    const lb_node *node = &b->net->nodes[i];
    lb_step *step;
    switch (node->op) {
    case LB_OP_INPUT:
        step = new_step(b, LB_STEP_INPUT, i);
        if (b->uses[i] == 1 && b->net->nodes[b->sole[i]].op == LB_OP_ACT && b->net->nodes[b->sole[i]].quant) {
            step->node = step->act = b->sole[i]; /* pixels go straight to codes */
            b->done[step->node] = true;
        }
        return make_value(b, step->node, type_at(b, step->node), 0);
    case LB_OP_CONV:
    case LB_OP_LINEAR:
        return emit_layer(b, i);
    case LB_OP_FLATTEN:
        plan->root[i] = plan->root[node->src[0]];
        return LB_OK;
    case LB_OP_BATCHNORM:
    case LB_OP_ACT:
    case LB_OP_ADD:
        step = new_step(b, LB_STEP_NORM, i);
        if (node->op == LB_OP_BATCHNORM)
            step->bn = i;
        else if (node->op == LB_OP_ACT)
            step->act = i;
        else
            step->residual = node->src[1];
        return emit_norm(b, step);
    case LB_OP_MAXPOOL:
    case LB_OP_AVGPOOL:
    case LB_OP_DROPOUT:
    case LB_OP_SHORTCUTPAD:
        step = new_step(b,
                        node->op == LB_OP_DROPOUT       ? LB_STEP_DROPOUT
                        : node->op == LB_OP_SHORTCUTPAD ? LB_STEP_PAD
                                                        : LB_STEP_POOL,
                        i);
        touch(b, lb_plan_value(plan, step->src)->buffer, plan->nsteps - 1);
        LB_TRY(make_value(b, i, lb_plan_value(plan, step->src)->type, plan->nsteps - 1));
        plan->values[i].wants_grad = lb_plan_value(plan, step->src)->wants_grad;
        return LB_OK;
    case LB_OP_FUNC:
    case LB_OP_MUL:
    case LB_OP_CONCAT:
        step = new_step(b, node->op == LB_OP_CONCAT ? LB_STEP_CONCAT : LB_STEP_REAL, i);
        LB_TRY(make_value(b, i, lb_plan_value(plan, step->src)->type, plan->nsteps - 1));
        for (int s = 0; s < node->nsrc; s++) {
            const lb_value *src = lb_plan_value(plan, node->src[s]);
            touch(b, src->buffer, plan->nsteps - 1);
            plan->values[i].wants_grad |= src->wants_grad;
            if (src->type != plan->values[i].type)
                return lb_fail(plan->ctx, LB_ERR_UNSUPPORTED, "%s: its sources are of different precision; use train.precision f32",
                               node->name);
        }
        if (node->op == LB_OP_MUL)
            step->residual = node->src[1];
        plan->values[i].wants_grad |= node->param[0] >= 0;
        return LB_OK;
    default:
        return lb_fail(plan->ctx, LB_ERR_UNSUPPORTED, "%s: operator %s cannot be trained", node->name, lb_op_info(node->op)->name);
    }
}

/* Does everything behind node `first` read from there only? What reads something from before it, too, has sources of two types. */
static bool is_closed(const lb_net *net, int first) {
    for (int i = first + 1; i < net->nnodes; i++)
        for (int k = 0; k < net->nodes[i].nsrc; k++)
            if (net->nodes[i].src[k] < first)
                return false;
    return true;
}

static lb_status emit_forward(builder *b) {
    const lb_net *net = b->net;
    b->last_layer = -1;
    for (int i = 0; i < net->nnodes; i++) {
        b->plan->root[i] = i;
        b->plan->values[i].buffer = -1;
        for (int k = 0; k < net->nodes[i].nsrc; k++) {
            b->uses[net->nodes[i].src[k]]++;
            b->sole[net->nodes[i].src[k]] = i;
        }
        if (lb_is_layer(&net->nodes[i]))
            b->last_layer = i;
    }
    if (!is_closed(net, b->last_layer))
        b->last_layer = -1;
    int output = net->nnodes - 1;
    for (int i = 0; i < output; i++)
        if (!b->uses[i])
            return lb_fail(b->plan->ctx, LB_ERR_SHAPE, "%s: no other layer uses its output; remove it", net->nodes[i].name);
    for (int i = 0; i < net->nnodes; i++)
        if (!b->done[i])
            LB_TRY(emit_node(b, i));
    touch(b, lb_plan_value(b->plan, output)->buffer, b->plan->nsteps);
    return LB_OK;
}

/* Taps: losses read them between forward and backward pass. A node that was fused away is seen at the end of its step. */
static lb_status find_taps(builder *b) {
    lb_plan *plan = b->plan;
    plan->ntaps = plan->options.ntaps;
    for (int k = 0; k < plan->ntaps; k++) {
        int node = plan->root[plan->options.tap[k]];
        while (plan->values[node].buffer < 0) /* then it has one consumer, into whose step it was fused */
            node = plan->root[b->sole[node]];
        for (int i = 0; i < k; i++)
            if (plan->taps[i].node == node)
                return lb_fail(plan->ctx, LB_ERR_UNSUPPORTED, "%s and %s have the same output here; name one of them",
                               b->net->nodes[plan->options.tap[i]].name, b->net->nodes[plan->options.tap[k]].name);
        plan->taps[k] = (lb_tap){node, -1};
        touch(b, plan->values[node].buffer, plan->nsteps);
    }
    return LB_OK;
}

/* ---- Backward: gradient buffers and lifetimes ------------------------------------------------------------------------ */

static lb_status add_grad(builder *b, int node, int buffer, bool real, int time) {
    lb_value *v = lb_plan_value(b->plan, node);
    if (!v->wants_grad)
        return LB_OK;
    if (v->ngrads == LB_MAX_GRADS)
        return lb_fail(b->plan->ctx, LB_ERR_UNSUPPORTED, "%s: its output is used by more than %d layers", b->net->nodes[node].name,
                       LB_MAX_GRADS);
    touch(b, buffer, time);
    v->grad[v->ngrads++] = (lb_grad){buffer, real};
    return LB_OK;
}

static void touch_grads(builder *b, const lb_value *v, int time) {
    for (int i = 0; i < v->ngrads; i++)
        touch(b, v->grad[i].buffer, time);
}

/* A buffer to write the sum of v's gradients into: one of them if nobody else reads it, else a new one. */
static lb_status grad_buffer(builder *b, const lb_value *v, int time, int *buffer) {
    for (int i = 0; i < v->ngrads; i++)
        if (!b->plan->buffers[v->grad[i].buffer].shared) {
            *buffer = v->grad[i].buffer;
            return LB_OK;
        }
    return new_buffer(b, value_size(v), time, buffer);
}

static lb_status norm_backward(builder *b, lb_step *step, int time) {
    lb_plan *plan = b->plan;
    lb_value *v = &plan->values[step->node];
    touch_grads(b, v, time);
    LB_TRY(grad_buffer(b, v, time, &step->dz));
    touch(b, step->acc >= 0 ? step->acc : lb_plan_value(plan, step->src)->buffer, time);
    if (step->residual >= 0) {
        touch(b, lb_plan_value(plan, step->residual)->buffer, time);
        LB_TRY(add_grad(b, step->residual, step->dz, true, time));
    }
    if (step->acc >= 0)
        return LB_OK;
    if (step->bn < 0) { /* real = the sum itself: its gradient is dz */
        plan->buffers[step->dz].shared |= step->residual >= 0;
        return add_grad(b, step->src, step->dz, true, time);
    }
    lb_value *src = lb_plan_value(plan, step->src);
    if (!src->wants_grad)
        return LB_OK;
    LB_TRY(new_buffer(b, value_size(src), time, &step->dx));
    return add_grad(b, step->src, step->dx, false, time);
}

static lb_status step_backward(builder *b, int index) {
    lb_plan *plan = b->plan;
    lb_step *step = &plan->steps[index];
    int time = 2 * plan->nsteps - 1 - index;
    lb_value *v = lb_plan_value(plan, step->node);
    if (step->kind == LB_STEP_INPUT || !(step->kind == LB_STEP_CONV || v->wants_grad))
        return LB_OK;
    if (step->kind == LB_STEP_NORM)
        return norm_backward(b, step, time);
    lb_value *src = lb_plan_value(plan, step->src);
    if (step->kind == LB_STEP_CONV) {
        touch(b, step->acc, time);
        touch(b, src->buffer, time);
        if (step->acc_type != src->type) {
            size_t count = (size_t)plan->options.mb * lb_shape_count(&b->net->nodes[step->node].dst);
            LB_TRY(new_buffer(b, count * lb_dtype_size(src->type), time, &step->workspace));
        }
        if (!src->wants_grad)
            return LB_OK;
        LB_TRY(new_buffer(b, value_size(src), time, &step->dx));
        return add_grad(b, step->src, step->dx, false, time);
    }
    touch_grads(b, v, time);
    LB_TRY(grad_buffer(b, v, time, &step->grad));
    if (step->workspace >= 0)
        touch(b, step->workspace, time);
    const lb_node *node = &b->net->nodes[step->node];
    for (int s = 0; s < node->nsrc; s++) {
        lb_value *from = lb_plan_value(plan, node->src[s]);
        int *dx = s ? &step->more_dx[s - 1] : &step->dx;
        if (step->kind == LB_STEP_REAL)
            touch(b, from->buffer, time);
        if (!from->wants_grad)
            continue;
        LB_TRY(new_buffer(b, value_size(from), time, dx));
        LB_TRY(add_grad(b, node->src[s], *dx, false, time));
    }
    return LB_OK;
}

/* Losses leave the first gradients, in real units. */
static lb_status emit_backward(builder *b) {
    lb_plan *plan = b->plan;
    const int output = plan->net->nnodes - 1;
    LB_TRY(new_buffer(b, value_size(lb_plan_value(plan, output)), plan->nsteps, &plan->diff_output));
    LB_TRY(add_grad(b, output, plan->diff_output, true, plan->nsteps));
    for (int k = 0; k < plan->ntaps; k++) {
        lb_tap *tap = &plan->taps[k];
        LB_TRY(new_buffer(b, value_size(&plan->values[tap->node]), plan->nsteps, &tap->diff));
        LB_TRY(add_grad(b, tap->node, tap->diff, true, plan->nsteps));
    }
    for (int i = plan->nsteps - 1; i >= 0; i--)
        LB_TRY(step_backward(b, i));
    return LB_OK;
}

/* First fit: buffers in order of size, each at the lowest place free during its lifetime. */
static lb_status place_buffers(builder *b) {
    lb_plan *plan = b->plan;
    int n = plan->nbuffers;
    int *order = lb_pool_alloc(&plan->pool, (size_t)n, sizeof *order);
    if (!order)
        return LB_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        int k = i;
        for (; k > 0 && plan->buffers[order[k - 1]].size < plan->buffers[i].size; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    for (int i = 0; i < n; i++) {
        lb_buffer *buf = &plan->buffers[order[i]];
        buf->offset = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (int k = 0; k < i; k++) {
                const lb_buffer *other = &plan->buffers[order[k]];
                bool together = other->first <= buf->last + LB_TASK_SPAN && buf->first <= other->last + LB_TASK_SPAN;
                if (together && buf->offset < other->offset + other->size && other->offset < buf->offset + buf->size) {
                    buf->offset = other->offset + other->size;
                    moved = true;
                }
            }
        }
        plan->arena_size = LB_MAX(plan->arena_size, buf->offset + buf->size);
    }
    return LB_OK;
}

/* ---- Primitives and small arrays -------------------------------------------------------------------------------------- */

static lb_status make_conv(lb_plan *plan, lb_step *step) {
    const lb_node *node = &plan->net->nodes[step->node];
    const lb_shape *src = lb_src_shape(plan->net, node, 0), *dst = &node->dst;
    const lb_conv *c = &node->u.conv;
    lb_value *value = lb_plan_value(plan, step->src);
    lb_conv_dims dims = {.mb = plan->options.mb,
                         .ih = src->h,
                         .iw = src->w,
                         .ic = src->c,
                         .oh = dst->h,
                         .ow = dst->w,
                         .oc = dst->c,
                         .kh = c->kh,
                         .kw = c->kw,
                         .sh = c->sh,
                         .sw = c->sw,
                         .pt = c->pt,
                         .pl = c->pl,
                         .pb = c->pb,
                         .pr = c->pr,
                         .groups = c->groups,
                         .gap_h = c->gap_h,
                         .gap_w = c->gap_w,
                         .src_type = value->type,
                         .dst_type = step->acc_type,
                         .backward_data = value->wants_grad};
    if (node->op == LB_OP_LINEAR) {
        dims.linear = true;
        dims.kh = dims.kw = dims.sh = dims.sw = dims.groups = 1;
        dims.pt = dims.pl = dims.pb = dims.pr = dims.gap_h = dims.gap_w = 0;
    }
    lb_status status = lb_conv_prims_create(plan->backend, &dims, &step->prims);
    if (status)
        return lb_fail_in(plan->ctx, status, "%s", node->name);
    const bool remembers = node->quant && node->quant->spec.mixer->remembers && !plan->options.inference;
    step->scale = lb_pool_alloc(&plan->pool, (size_t)dst->c, sizeof *step->scale);
    if (remembers)
        step->memory.entry = lb_pool_alloc(&plan->pool, plan->net->params[node->param[0]].count, sizeof *step->memory.entry);
    return step->scale && (!remembers || step->memory.entry) ? LB_OK : LB_ERR_MEMORY;
}

static lb_status make_pool(builder *b, lb_step *step, int time) {
    lb_plan *plan = b->plan;
    const lb_node *node = &plan->net->nodes[step->node];
    const lb_shape *src = lb_src_shape(plan->net, node, 0), *dst = &node->dst;
    const lb_pooling *p = &node->u.pool;
    lb_pool_dims dims = {.mb = plan->options.mb, .ih = src->h, .iw = src->w, .c = src->c, .oh = dst->h, .ow = dst->w,
                         .kh = p->kh, .kw = p->kw, .sh = p->sh, .sw = p->sw, .pt = p->pt, .pl = p->pl, .pb = p->pb, .pr = p->pr,
                         .max = node->op == LB_OP_MAXPOOL, .inside = p->inside, .type = lb_plan_value(plan, step->src)->type};
    lb_status status = lb_pool_prims_create(plan->backend, &dims, &step->pool);
    if (status)
        return lb_fail_in(plan->ctx, status, "%s", node->name);
    size_t size = lb_pool_workspace(step->pool);
    return size ? new_buffer(b, size, time, &step->workspace) : LB_OK;
}

static lb_status make_norm(lb_plan *plan, lb_step *step) {
    const int channels = plan->net->nodes[step->node].dst.c;
    const size_t c = (size_t)channels;
    float *block = lb_pool_alloc(&plan->pool, 7 * c, sizeof *block);
    const size_t parts = (size_t)lb_parts(plan->threads, plan->options.mb);
    step->sums = lb_pool_alloc(&plan->pool, parts * lb_sums_stride(channels), sizeof *step->sums);
    if (!block || !step->sums)
        return LB_ERR_MEMORY;
    float **arrays[] = {&step->a, &step->b, &step->mean, &step->inv, &step->p, &step->q, &step->s};
    for (size_t i = 0; i < LB_COUNT(arrays); i++)
        *arrays[i] = block + i * c;
    if (step->conv >= 0)
        step->scale = step[-1].scale; /* the convolution is always the step before */
    const lb_node *act = step->act < 0 ? NULL : &plan->net->nodes[step->act];
    if (act && act->quant && act->quant->spec.mixer->mask) {
        step->mask = lb_pool_alloc(&plan->pool, lb_shape_count(&act->dst), sizeof *step->mask);
        step->memory.entry = lb_pool_alloc(&plan->pool, lb_shape_count(&act->dst), sizeof *step->memory.entry);
        if (!step->mask || !step->memory.entry)
            return LB_ERR_MEMORY;
    }
    if (act && act->quant && act->quant->spec.quantizer->noisy && !plan->options.inference) {
        step->memory.noise = lb_pool_alloc(&plan->pool, LB_QUANT_NOISE, sizeof *step->memory.noise);
        if (!step->memory.noise)
            return LB_ERR_MEMORY;
    }
    return LB_OK;
}

static lb_status make_arrays(lb_plan *plan) {
    const lb_net *net = plan->net;
    size_t logits = (size_t)plan->options.mb * (size_t)net->classes, calibrate = 0;
    for (int i = 0; i < net->nparams; i++)
        if (net->params[i].kind == LB_PARAM_WEIGHT)
            plan->work_stride = LB_MAX(plan->work_stride, 2 * net->params[i].count);
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        if (node->op == LB_OP_ACT && node->quant && lb_quant_nparams(&node->quant->spec) && !node->quant->initialised)
            calibrate = LB_MAX(calibrate, (size_t)plan->options.mb * lb_shape_count(&node->dst));
    }
    plan->weights = lb_pool_alloc(&plan->pool, net->nvalues, sizeof(float));
    plan->diff_weights = lb_pool_alloc(&plan->pool, plan->options.inference ? 0 : net->nvalues, sizeof(float));
    plan->filter_steps = lb_pool_alloc(&plan->pool, net->nvalues, sizeof(float));
    plan->work = lb_pool_alloc(&plan->pool, (size_t)plan->threads * plan->work_stride, sizeof(float));
    plan->logits = lb_pool_alloc(&plan->pool, logits, sizeof(float));
    plan->diff_logits = lb_pool_alloc(&plan->pool, logits, sizeof(float));
    plan->calibration = lb_pool_alloc(&plan->pool, calibrate, sizeof(float));
    plan->arena = lb_pool_alloc(&plan->pool, plan->arena_size, 1);
    bool ok = plan->weights && plan->diff_weights && plan->filter_steps && plan->work && plan->logits && plan->diff_logits &&
              plan->calibration && plan->arena;
    return ok ? LB_OK : LB_ERR_MEMORY;
}

static lb_status build(builder *b) {
    lb_plan *plan = b->plan;
    LB_TRY(emit_forward(b));
    LB_TRY(find_taps(b));
    for (int i = 0; i < plan->nsteps; i++)
        if (plan->steps[i].kind == LB_STEP_POOL)
            LB_TRY(make_pool(b, &plan->steps[i], i));
    if (plan->options.inference)
        for (int i = 0; i < plan->net->nnodes; i++)
            plan->values[i].wants_grad = false;
    else
        LB_TRY(emit_backward(b));
    LB_TRY(place_buffers(b));
    for (int i = 0; i < plan->nsteps; i++) {
        if (plan->steps[i].kind == LB_STEP_CONV)
            LB_TRY(make_conv(plan, &plan->steps[i]));
        else if (plan->steps[i].kind == LB_STEP_NORM)
            LB_TRY(make_norm(plan, &plan->steps[i]));
    }
    LB_TRY(make_arrays(plan));
    return lb_backend_reserve(plan->backend);
}

lb_status lb_plan_create(lb_ctx *ctx, lb_net *net, const lb_plan_options *options, lb_plan **out) {
    *out = NULL;
    lb_plan *plan = lb_alloc(ctx, 1, sizeof *plan);
    if (!plan)
        return LB_ERR_MEMORY;
    plan->ctx = ctx;
    plan->net = net;
    plan->options = *options;
    plan->kernels[LB_F32] = lb_kernels_select(LB_F32);
    plan->kernels[LB_BF16] = lb_kernels_select(LB_BF16);
    plan->threads = lb_threads(ctx);
    for (int i = 0; i < net->nodes[0].dst.c; i++) {
        plan->mean[i] = options->mean[i];
        plan->std[i] = options->std[i];
    }
    lb_pool_init(&plan->pool, ctx);
    size_t n = (size_t)net->nnodes;
    builder b = {.plan = plan, .net = net};
    plan->steps = lb_pool_alloc(&plan->pool, 2 * n, sizeof *plan->steps);
    plan->values = lb_pool_alloc(&plan->pool, n, sizeof *plan->values);
    plan->root = lb_pool_alloc(&plan->pool, n, sizeof *plan->root);
    b.uses = lb_pool_alloc(&plan->pool, n, sizeof *b.uses);
    b.sole = lb_pool_alloc(&plan->pool, n, sizeof *b.sole);
    b.done = lb_pool_alloc(&plan->pool, n, sizeof *b.done);
    bool ok = plan->steps && plan->values && plan->root && b.uses && b.sole && b.done;
    lb_status status = ok ? lb_backend_create(ctx, &plan->backend) : LB_ERR_MEMORY;
    if (!status)
        status = build(&b);
    if (!status)
        status = lb_start_threads(ctx, plan->threads);
    if (status) {
        lb_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return LB_OK;
}

void lb_plan_destroy(lb_plan *plan) {
    if (!plan)
        return;
    for (int i = 0; i < plan->nsteps; i++) {
        lb_conv_prims_destroy(plan->steps[i].prims);
        lb_pool_prims_destroy(plan->steps[i].pool);
    }
    lb_backend_destroy(plan->backend);
    lb_free(plan->ctx, plan->buffers);
    lb_pool_free(&plan->pool);
    lb_free(plan->ctx, plan);
}

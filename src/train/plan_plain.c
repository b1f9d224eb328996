/* The steps of a plan that are neither convolution nor norm: input, pooling, dropout, moved channels, functions and products. */
#include "train/plan_run.h"

#include <omp.h>

void lb_step_input_forward(lb_plan *plan, lb_step *step, const uint8_t *pixels) {
    lb_value *v = &plan->values[step->node];
    int c = v->c;
    size_t count = v->rows * (size_t)c;
    float table[4 * 256];
    for (int k = 0; k < c; k++) {
        float a = (float)(1 / (255.0 * (double)plan->std[k])), b = (float)(-(double)plan->mean[k] / (double)plan->std[k]);
        for (int p = 0; p < 256; p++)
            table[k * 256 + p] = (float)p * a + b;
    }
    if (lb_plan_must_start(plan, step->act)) {
        for (size_t i = 0; i < count; i++)
            plan->calibration[i] = table[i % (size_t)c * 256 + pixels[i]];
        lb_plan_start_act(plan, plan->net->nodes[step->act].quant, plan->calibration, count);
    }
    if (step->act >= 0) {
        const lb_quant *q = plan->net->nodes[step->act].quant;
        lb_act_form form;
        const lb_quant_when when = lb_plan_when(plan, step, step->act);
        lb_quant_act_form(q, &when, lb_plan_param(plan, q->param), &form);
        for (int i = 0; i < c * 256; i++)
            table[i] = lb_act_forward_ref(&form, table[i]);
        v->step = form.step;
        v->reach = lb_plan_reach(&form);
    }
    uint16_t narrow[4 * 256];
    plan->kernels[LB_BF16]->from_f32(LB_BF16, table, narrow, (size_t)c * 256);
    float *dst = lb_plan_buffer(plan, v->buffer);
    uint16_t *narrow_dst = lb_plan_buffer(plan, v->buffer);
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < v->rows; row++)
        for (int k = 0; k < c; k++) {
            size_t i = row * (size_t)c + (size_t)k;
            if (v->type == LB_F32)
                dst[i] = table[k * 256 + pixels[i]];
            else
                narrow_dst[i] = narrow[k * 256 + pixels[i]];
        }
}

/* Multiplies by 1 / (1 - ratio) or 0: one number of Philox's four for each of four neighbours. `at` is the first's index. */
enum { DROP_BLOCK = 64 };
LB_CLONES static void drop_block(uint64_t seed, uint64_t step, size_t at, float ratio, float values[DROP_BLOCK]) {
    const float keep = 1 / (1 - ratio);
    uint32_t bits[4][DROP_BLOCK / 4];
    lb_rng4_many(seed, LB_RNG_DROPOUT, step, at, 4, DROP_BLOCK / 4, bits[0]);
    for (int i = 0; i < DROP_BLOCK / 4; i++)
        for (int k = 0; k < 4; k++)
            values[4 * i + k] *= lb_uniform(bits[k][i]) < ratio ? 0 : keep;
}

/* The same numbers forward and backward. */
static void dropout(const lb_plan *plan, const lb_step *step, const lb_value *v, const void *src, void *dst) {
    const float ratio = plan->net->nodes[step->node].u.dropout.ratio;
    size_t count = v->rows * (size_t)v->c;
    uint64_t seed = lb_plan_seed(plan, step->node);
#pragma omp parallel for num_threads(plan->threads)
    for (size_t block = 0; block < (count + DROP_BLOCK - 1) / DROP_BLOCK; block++) {
        float values[DROP_BLOCK] = {0};
        size_t at = block * DROP_BLOCK, n = LB_MIN((size_t)DROP_BLOCK, count - at), bytes = lb_dtype_size(v->type);
        plan->kernels[v->type]->to_f32(v->type, (const unsigned char *)src + at * bytes, values, n);
        drop_block(seed, (uint64_t)plan->when.step, at, ratio, values);
        plan->kernels[v->type]->from_f32(v->type, values, (unsigned char *)dst + at * bytes, n);
    }
}

enum { REAL_BLOCK = 64 };

static void read_block(const lb_plan *plan, lb_dtype type, const void *data, size_t at, size_t n, float scale, float *block) {
    plan->kernels[type]->to_f32(type, (const unsigned char *)data + at * lb_dtype_size(type), block, n);
    for (size_t i = 0; i < n; i++)
        block[i] *= scale;
}

static void add_row(const lb_plan *plan, lb_dtype type, const unsigned char *from, unsigned char *to, int count) {
    for (int k = 0; k < count; k += REAL_BLOCK) {
        float a[REAL_BLOCK], b[REAL_BLOCK];
        const size_t n = (size_t)LB_MIN((int)REAL_BLOCK, count - k), at = (size_t)k * lb_dtype_size(type);
        read_block(plan, type, from + at, 0, n, 1, a);
        read_block(plan, type, to + at, 0, n, 1, b);
        for (size_t i = 0; i < n; i++)
            b[i] += a[i];
        plan->kernels[type]->from_f32(type, b, to + at, n);
    }
}

/* dst[y][x] = runs of channels of src[rows[y]][cols[x]], 0 elsewhere; backward the other way round. */
static void shortcut_pad(const lb_plan *plan, const lb_step *step, lb_dtype type, bool backward, const void *from, void *to) {
    const lb_node *node = &plan->net->nodes[step->node];
    const lb_shape *s = lb_src_shape(plan->net, node, 0), *d = &node->dst;
    const int *rows = node->u.shortcutpad.rows, *cols = node->u.shortcutpad.cols;
    const bool adds = backward && node->u.shortcutpad.repeats;
    const size_t bytes = lb_dtype_size(type);
    size_t src_row = (size_t)s->c * bytes, dst_row = (size_t)d->c * bytes;
    size_t to_bytes = (size_t)plan->options.mb * lb_shape_count(backward ? s : d) * bytes;
    memset(to, 0, to_bytes);
#pragma omp parallel for num_threads(plan->threads)
    for (int n = 0; n < plan->options.mb; n++)
        for (int y = 0; y < d->h; y++)
            for (int x = 0; x < d->w; x++) {
                if (rows[y] < 0 || cols[x] < 0)
                    continue;
                size_t si = (((size_t)n * (size_t)s->h + (size_t)rows[y]) * (size_t)s->w + (size_t)cols[x]) * src_row;
                size_t di = (((size_t)n * (size_t)d->h + (size_t)y) * (size_t)d->w + (size_t)x) * dst_row;
                for (int p = 0; p < node->u.shortcutpad.nparts; p++) {
                    const lb_part *part = &node->u.shortcutpad.parts[p];
                    const size_t s_at = si + (size_t)part->src * bytes, d_at = di + (size_t)part->dst * bytes;
                    unsigned char *put = (unsigned char *)to + (backward ? s_at : d_at);
                    const unsigned char *get = (const unsigned char *)from + (backward ? d_at : s_at);
                    if (adds)
                        add_row(plan, type, get, put, part->count);
                    else
                        memcpy(put, get, (size_t)part->count * bytes);
                }
            }
}

/* dst[row] = the sources' rows one after the other, as real numbers; backward the other way round. */
static void concat(const lb_plan *plan, const lb_step *step, bool backward, unsigned char *all) {
    const lb_node *node = &plan->net->nodes[step->node];
    const lb_value *v = &plan->values[step->node];
    const size_t bytes = lb_dtype_size(v->type);
    size_t at = 0;
    for (int s = 0; s < node->nsrc; s++) {
        const lb_value *src = lb_plan_value(plan, node->src[s]);
        const int dx = s ? step->more_dx[s - 1] : step->dx;
        const size_t c = (size_t)src->c;
        unsigned char *own = backward ? dx < 0 ? NULL : lb_plan_buffer(plan, dx) : lb_plan_data(plan, node->src[s]);
#pragma omp parallel for num_threads(plan->threads)
        for (size_t row = 0; row < (own ? v->rows : 0); row++) {
            unsigned char *joined = all + (row * (size_t)v->c + at) * bytes, *single = own + row * c * bytes;
            unsigned char *to = backward ? single : joined;
            const unsigned char *from = backward ? joined : single;
            if (src->step == 1) {
                memcpy(to, from, c * bytes);
                continue;
            }
            for (size_t k = 0; k < c; k += REAL_BLOCK) {
                float block[REAL_BLOCK];
                const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
                read_block(plan, v->type, from, k, n, src->step, block);
                plan->kernels[v->type]->from_f32(v->type, block, to + k * bytes, n);
            }
        }
        at += c;
    }
}

/* ---- Functions and products, in real numbers ----------------------------------------------------------------------------- */

/* The product's second source: one row for each pixel, or one for all of an image's. */
static size_t other_row(const lb_plan *plan, const lb_step *step, size_t row) {
    const lb_value *v = &plan->values[step->node], *other = lb_plan_value(plan, step->residual);
    return other->rows == v->rows ? row : row / (v->rows / other->rows);
}

static void real_forward(const lb_plan *plan, const lb_step *step) {
    const lb_value *v = &plan->values[step->node], *src = lb_plan_value(plan, step->src);
    const lb_node *node = &plan->net->nodes[step->node];
    const size_t c = (size_t)v->c;
    unsigned char *dst = lb_plan_buffer(plan, v->buffer);
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < v->rows; row++)
        for (size_t k = 0; k < c; k += REAL_BLOCK) {
            float a[REAL_BLOCK], b[REAL_BLOCK];
            const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
            read_block(plan, v->type, lb_plan_data(plan, step->src), row * c + k, n, src->step, a);
            if (step->residual >= 0)
                read_block(plan, v->type, lb_plan_data(plan, step->residual), other_row(plan, step, row) * c + k, n,
                           lb_plan_value(plan, step->residual)->step, b);
            for (size_t i = 0; i < n; i++)
                a[i] = step->residual >= 0 ? a[i] * b[i] : lb_func_value(node, lb_func_alpha(plan->net, node, k + i), a[i]);
            plan->kernels[v->type]->from_f32(v->type, a, dst + (row * c + k) * lb_dtype_size(v->type), n);
        }
}

/* The gradient of the first source: dz times the derivative, or times the other factor. */
static void real_backward_first(const lb_plan *plan, const lb_step *step, const void *dz, unsigned char *dx) {
    const lb_value *v = &plan->values[step->node], *src = lb_plan_value(plan, step->src);
    const lb_node *node = &plan->net->nodes[step->node];
    const size_t c = (size_t)v->c;
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < v->rows; row++)
        for (size_t k = 0; k < c; k += REAL_BLOCK) {
            float a[REAL_BLOCK], g[REAL_BLOCK];
            const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
            read_block(plan, v->type, dz, row * c + k, n, src->step, g);
            if (step->residual >= 0)
                read_block(plan, v->type, lb_plan_data(plan, step->residual), other_row(plan, step, row) * c + k, n,
                           lb_plan_value(plan, step->residual)->step, a);
            else
                read_block(plan, v->type, lb_plan_data(plan, step->src), row * c + k, n, src->step, a);
            for (size_t i = 0; i < n; i++)
                g[i] *= step->residual >= 0 ? a[i] : lb_func_slope(node, lb_func_alpha(plan->net, node, k + i), a[i]);
            plan->kernels[v->type]->from_f32(v->type, g, dx + (row * c + k) * lb_dtype_size(v->type), n);
        }
}

/* Of a leaky function's slopes: dz times what is negative, over all rows. */
static void slopes_backward(const lb_plan *plan, const lb_step *step, const void *dz, float *diff) {
    const lb_value *v = &plan->values[step->node], *src = lb_plan_value(plan, step->src);
    const size_t c = (size_t)v->c;
#pragma omp parallel for num_threads(plan->threads)
    for (size_t k = 0; k < c; k += REAL_BLOCK) {
        float a[REAL_BLOCK], g[REAL_BLOCK];
        double sum[REAL_BLOCK] = {0};
        const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
        for (size_t row = 0; row < v->rows; row++) {
            read_block(plan, v->type, dz, row * c + k, n, 1, g);
            read_block(plan, v->type, lb_plan_data(plan, step->src), row * c + k, n, src->step, a);
            for (size_t i = 0; i < n; i++)
                sum[i] += a[i] < 0 ? (double)a[i] * (double)g[i] : 0;
        }
        for (size_t i = 0; i < n; i++)
            diff[k + i] += (float)sum[i];
    }
}

/* That of the second: summed over the pixels that it was multiplied with. */
static void real_backward_second(const lb_plan *plan, const lb_step *step, const void *dz, unsigned char *dx) {
    const lb_value *v = &plan->values[step->node], *src = lb_plan_value(plan, step->src);
    const lb_value *other = lb_plan_value(plan, step->residual);
    const size_t c = (size_t)v->c, pixels = v->rows / other->rows;
#pragma omp parallel for num_threads(plan->threads)
    for (size_t row = 0; row < other->rows; row++)
        for (size_t k = 0; k < c; k += REAL_BLOCK) {
            float a[REAL_BLOCK], g[REAL_BLOCK], sum[REAL_BLOCK] = {0};
            const size_t n = LB_MIN((size_t)REAL_BLOCK, c - k);
            for (size_t p = row * pixels; p < (row + 1) * pixels; p++) {
                read_block(plan, v->type, dz, p * c + k, n, other->step, g);
                read_block(plan, v->type, lb_plan_data(plan, step->src), p * c + k, n, src->step, a);
                for (size_t i = 0; i < n; i++)
                    sum[i] += a[i] * g[i];
            }
            plan->kernels[v->type]->from_f32(v->type, sum, dx + (row * c + k) * lb_dtype_size(v->type), n);
        }
}

lb_status lb_step_plain_forward(lb_plan *plan, lb_step *step) {
    lb_value *v = &plan->values[step->node];
    const void *src = lb_plan_data(plan, step->src);
    void *dst = lb_plan_buffer(plan, v->buffer);
    if (step->kind == LB_STEP_REAL || step->kind == LB_STEP_CONCAT) {
        v->step = 1;
        if (step->kind == LB_STEP_REAL)
            real_forward(plan, step);
        else
            concat(plan, step, false, dst);
        return LB_OK;
    }
    v->step = lb_plan_value(plan, step->src)->step;
    const bool keeps = step->kind == LB_STEP_PAD || plan->net->nodes[step->node].op == LB_OP_MAXPOOL;
    v->reach = keeps ? lb_plan_value(plan, step->src)->reach : 0;
    if (step->kind == LB_STEP_POOL)
        return lb_pool_forward(step->pool, src, dst, step->workspace >= 0 ? lb_plan_buffer(plan, step->workspace) : NULL);
    if (step->kind == LB_STEP_PAD)
        shortcut_pad(plan, step, v->type, false, src, dst);
    else if (plan->when.evaluation)
        memcpy(dst, src, v->rows * (size_t)v->c * lb_dtype_size(v->type));
    else
        dropout(plan, step, v, src, dst);
    return LB_OK;
}

lb_status lb_step_plain_backward(lb_plan *plan, lb_step *step, float *diff) {
    lb_value *v = &plan->values[step->node];
    const void *grad[LB_MAX_GRADS];
    float factor[LB_MAX_GRADS];
    void *sum = lb_plan_buffer(plan, step->grad), *dx = step->dx < 0 ? NULL : lb_plan_buffer(plan, step->dx);
    lb_plan_grads(plan, v, v->step, 1, grad, factor); /* all in stored units */
#pragma omp parallel num_threads(plan->threads)
    {
        size_t first, last;
        lb_plan_share(v->rows * (size_t)v->c, omp_get_thread_num(), omp_get_num_threads(), &first, &last);
        plan->kernels[v->type]->sum(v->type, v->ngrads, grad, factor, sum, first, last);
    }
    if (step->kind == LB_STEP_CONCAT) {
        concat(plan, step, true, sum);
        return LB_OK;
    }
    if (step->kind == LB_STEP_REAL) {
        const int slopes = plan->net->nodes[step->node].param[0];
        if (slopes >= 0)
            slopes_backward(plan, step, sum, diff + plan->net->params[slopes].offset);
        if (step->residual >= 0 && step->more_dx[0] >= 0)
            real_backward_second(plan, step, sum, lb_plan_buffer(plan, step->more_dx[0]));
        if (dx)
            real_backward_first(plan, step, sum, dx);
        return LB_OK;
    }
    if (step->kind == LB_STEP_POOL)
        return lb_pool_backward(step->pool, sum, dx, step->workspace >= 0 ? lb_plan_buffer(plan, step->workspace) : NULL);
    if (step->kind == LB_STEP_DROPOUT)
        dropout(plan, step, v, sum, dx);
    else
        shortcut_pad(plan, step, v->type, true, sum, dx);
    return LB_OK;
}

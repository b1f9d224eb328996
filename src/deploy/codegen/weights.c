/* weights.h: the network's constants, layer by layer, and how many bytes they take. */
#include <math.h>

#include "deploy/codegen/codegen.h"

static void count(lb_generator *g, size_t elements, size_t size) { g->info.constants += (int64_t)(elements * size); }

static void write_floats(lb_generator *g, lb_code *code, const char *name, int layer, const float *values, size_t n) {
    lb_code_printf(code, "static const float %s_%d[%zu] = {", name, layer, n);
    for (size_t i = 0; i < n; i++)
        lb_code_printf(code, "%s%af,", i % 6 ? " " : "\n    ", (double)values[i]);
    lb_code_printf(code, "\n};\n");
    count(g, n, sizeof(float));
}

static void write_requants(lb_generator *g, lb_code *code, int layer, const lbrt_requant *q, size_t n) {
    lb_code_printf(code, "static const lbrt_requant requant_%d[%zu] = {", layer, n);
    for (size_t c = 0; c < n; c++) {
        lb_code_printf(code, c % 4 ? " " : "\n    ");
        lb_code_requant(code, &q[c]);
        lb_code_printf(code, ",");
    }
    lb_code_printf(code, "\n};\n");
    count(g, n, sizeof *q);
}

/* The value that is stored: ascending for all channels, because v <= t, where it counts, is ~v >= ~t. */
static int32_t stored_threshold(const lbrt_epilogue *e, size_t i) {
    const bool flip = e->flip != NULL && e->flip[i / (size_t)e->nthresholds];
    return flip ? ~e->thresholds[i] : e->thresholds[i];
}

bool lb_thresholds_fit16(const lbrt_epilogue *e, int32_t oc) {
    const size_t total = (size_t)oc * (size_t)e->nthresholds;
    for (size_t i = 0; i < total; i++)
        if (stored_threshold(e, i) < INT16_MIN || stored_threshold(e, i) > INT16_MAX)
            return false;
    return true;
}

bool lb_thresholds_flip(const lbrt_epilogue *e, int32_t oc) {
    for (int32_t c = 0; c < oc && e->flip != NULL; c++)
        if (e->flip[c])
            return true;
    return false;
}

static void write_thresholds(lb_generator *g, lb_code *code, int layer, const lbrt_epilogue *e, int32_t oc) {
    const size_t total = (size_t)oc * (size_t)e->nthresholds; /* at least oc */
    const int bits = lb_thresholds_fit16(e, oc) ? 16 : 32;
    int32_t *values = lb_alloc(g->ctx, total, sizeof *values);
    if (!values) {
        code->status = LB_ERR_MEMORY;
        return;
    }
    for (size_t i = 0; i < total; i++)
        values[i] = stored_threshold(e, i);
    lb_code_printf(code, "static const int%d_t thresholds_%d[%zu] = {\n", bits, layer, total);
    lb_code_ints(code, values, total);
    lb_code_printf(code, "};\n");
    count(g, total, (size_t)bits / 8);
    if (lb_thresholds_flip(e, oc)) {
        for (int32_t c = 0; c < oc; c++)
            values[c] = e->flip[c] ? -1 : 0;
        lb_code_printf(code, "static const int8_t flip_%d[%d] = {\n", layer, (int)oc);
        lb_code_ints(code, values, (size_t)oc);
        lb_code_printf(code, "};\n");
        count(g, (size_t)oc, 1);
    }
    lb_free(g->ctx, values);
}

/* Packed as packed_conv.h wants it: two channels at a time, so that memory for the whole is not needed twice. */
static void write_pairs(lb_generator *g, lb_code *code, int i, const lb_packing *p) {
    const lbrt_layer *l = &g->graph->layers[i];
    const int32_t oc = g->graph->tensors[i + 1].c;
    const int32_t groups = LB_MAX(l->groups, 1), ocg = oc / groups;
    const size_t both = 2 * (size_t)p->words, total = (size_t)groups * (size_t)((ocg + 1) / 2) * both;
    uint32_t *words = lb_alloc(g->ctx, both, sizeof *words);
    int32_t *bias = lb_alloc(g->ctx, (size_t)oc, sizeof *bias);
    if (!words || !bias)
        code->status = LB_ERR_MEMORY;
    if (words && bias) {
        lb_code_printf(code, "static const uint32_t weights_%d[%zu] = {\n", i, total);
        for (int32_t o = 0; o < oc; o++) {
            const bool second = o % ocg % 2, alone = !second && o % ocg == ocg - 1;
            if (alone)
                memset(words, 0, both * sizeof *words);
            lb_pack_channel(l, p, o, words + second);
            bias[o] = lb_packing_bias(l, p, o);
            if (second || alone)
                lb_code_words(code, words, both);
        }
        lb_code_printf(code, "};\n");
        count(g, total, sizeof *words);
        if (p->base != 0) {
            lb_code_printf(code, "static const int32_t bias_%d[%d] = {\n", i, (int)oc);
            lb_code_ints(code, bias, (size_t)oc);
            lb_code_printf(code, "};\n");
            count(g, (size_t)oc, sizeof *bias);
        }
    }
    lb_free(g->ctx, words);
    lb_free(g->ctx, bias);
}

static void write_lines(lb_generator *g, lb_code *code, int i) {
    const size_t oc = (size_t)g->graph->tensors[i + 1].c;
    const lb_line *lines = g->lines[i].line;
    lb_code_printf(code, "static const line lines_%d[%zu] = {", i, oc);
    for (size_t c = 0; c < oc; c++)
        lb_code_printf(code, "%s{%d, %d},", c % 6 ? " " : "\n    ", (int)lines[c].mul, (int)lines[c].add);
    lb_code_printf(code, "\n};\n");
    count(g, oc, sizeof *lines);
}

static void write_places(lb_generator *g, lb_code *code, const char *what, int i, const int32_t *lines, int32_t n) {
    lb_code_printf(code, "static const int32_t %s_%d[%d] = {", what, i, (int)n);
    for (int32_t k = 0; k < n; k++)
        lb_code_printf(code, "%s%d,", k % 24 ? " " : "\n    ", (int)lines[k]);
    lb_code_printf(code, "\n};\n");
    count(g, (size_t)n, sizeof *lines);
}

static void write_parts(lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    lb_code_printf(code, "static const copy_part parts_%d[%d] = {", i, (int)l->nparts);
    for (int p = 0; p < l->nparts; p++) {
        const lbrt_part *part = &l->parts[p];
        lb_code_printf(code, "%s{%d, %d, %d, %d, %d},", p % 4 ? " " : "\n    ", (int)part->source,
                       (int)g->graph->tensors[l->sources[part->source]].c, (int)part->src, (int)part->dst, (int)part->count);
    }
    lb_code_printf(code, "\n};\n");
    count(g, (size_t)l->nparts, 5 * sizeof(int32_t));
    if (l->rows == NULL)
        return;
    write_places(g, code, "rows", i, l->rows, g->graph->tensors[i + 1].h);
    write_places(g, code, "cols", i, l->cols, g->graph->tensors[i + 1].w);
}

static void write_layer(lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    const lbrt_tensor *src = &g->graph->tensors[l->src], *dst = &g->graph->tensors[i + 1];
    const lbrt_epilogue *e = &l->epilogue;
    const size_t oc = (size_t)dst->c;
    lb_packing packing;
    lb_code_printf(code, "\n/* %d: ", i);
    lb_code_name(code, l->name);
    lb_code_printf(code, " */\n");
    if (l->op == LBRT_OP_CONV && l->weights.bits == 32) {
        write_floats(g, code, "weights", i, l->weights.f32, oc * (size_t)lbrt_weights_per_channel(l, src));
    } else if (lb_codegen_packing(g->graph, i, &packing)) {
        write_pairs(g, code, i, &packing);
    } else if (l->op == LBRT_OP_CONV) {
        const size_t bytes = oc * lbrt_packed_bytes(lbrt_weights_per_channel(l, src), l->weights.bits);
        lb_code_printf(code, "static const uint8_t weights_%d[%zu] = {\n", i, bytes);
        lb_code_bytes(code, l->weights.packed, bytes);
        lb_code_printf(code, "};\n");
        count(g, bytes, 1);
    }
    if (l->op == LBRT_OP_COPY)
        write_parts(g, code, i);
    if (l->is_float) {
        if (e->flags & LBRT_AFFINE) {
            write_floats(g, code, "scale", i, e->scale, oc);
            write_floats(g, code, "offset", i, e->offset, oc);
        }
        if (e->flags & LBRT_CLAMP && e->flo > -INFINITY)
            write_floats(g, code, "lo", i, &e->flo, 1);
        if (e->flags & LBRT_CLAMP && e->fhi < INFINITY)
            write_floats(g, code, "hi", i, &e->fhi, 1);
    } else if (g->lines[i].line) {
        write_lines(g, code, i);
    } else if (e->flags & LBRT_AFFINE) {
        write_requants(g, code, i, e->requant, oc);
    }
    if (e->flags & LBRT_THRESHOLDS && !g->lines[i].line)
        write_thresholds(g, code, i, e, dst->c);
}

void lb_write_weights(lb_generator *g, lb_code *code) {
    lb_code_printf(
        code,
        "/* The network's constants. Weights are packed: words are described in kernels/tile.h, bytes in kernels/unpack.h. */\n");
    g->info.constants = 0;
    for (int i = 0; i < g->graph->nlayers; i++)
        write_layer(g, code, i);
}

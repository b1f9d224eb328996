/* model.h and model.c: the interface, the kernels that are included, one constant per layer that describes it, and the calls. */
#include <math.h>
#include <stdio.h>

#include "deploy/codegen/codegen.h"

/* ---- model.h ---------------------------------------------------------------------------------------------------------- */

void lb_write_header(const lb_generator *g, lb_code *code) {
    const lbrt_tensor *image = &g->graph->tensors[0];
    lb_code_printf(code, LB_CODEGEN_MARK " " LB_VERSION " from a packed model: ");
    lb_code_name(code, g->graph->name);
    lb_code_printf(code,
                   ".\n"
                   " * C99 without a C library; see README.md beside this file. Not reentrant: all calls share one arena. */\n"
                   "#ifndef MODEL_H\n#define MODEL_H\n\n#include <stdint.h>\n\n"
                   "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"
                   "#define MODEL_HEIGHT %d\n#define MODEL_WIDTH %d\n#define MODEL_CHANNELS %d\n#define MODEL_CLASSES %d\n"
                   "#define MODEL_SCORE_ONE %d /* a score of 1.0 */\n"
                   "#define MODEL_ARENA_SIZE %zu /* bytes of static memory */\n\n",
                   (int)image->h, (int)image->w, (int)image->c, (int)g->graph->classes, LBRT_SCORE_ONE, g->arena);
    lb_code_printf(code,
                   "/* image: MODEL_HEIGHT x MODEL_WIDTH x MODEL_CHANNELS bytes, rows of pixels as decoded: no normalisation.\n"
                   " * scores: MODEL_CLASSES logits, 16 fractional bits, equal bit for bit to the PC's. */\n"
                   "void model_run(const uint8_t *image, int32_t *scores);\n\n"
                   "/* The class of the largest score, the first of equals. */\n"
                   "int model_best(const int32_t *scores);\n\n"
                   "/* \"\" for a class without a name. */\n"
                   "const char *model_class_name(int class_index);\n\n"
                   "#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
}

/* ---- Includes --------------------------------------------------------------------------------------------------------- */

static const char *const type_names[LBRT_TYPES] = {"TYPE_U8", "TYPE_I8", "TYPE_I32", "TYPE_F32"};
static const char *const conv_names[LBRT_F32] = {"conv_u8", "conv_i8", "conv_i32"};
static const char *const source_names[LBRT_F32] = {"uint8_t", "int8_t", "mem_i32"};

/* Writes what the code behind `start` does not have yet. */
static void write_once(lb_code *code, size_t start, const char *text) {
    if (code->status == LB_OK && (code->size == start || !strstr(code->text + start, text)))
        lb_code_printf(code, "%s", text);
}

/* The inner loop of a packed convolution. */
static const char *tile_name(const lb_packing *p) {
    static const char *const names[2][9] = {{"", "column_1", "column_2", "column_3", "column_4", "column_5", "", "", "column_8"},
                                            {"", "tile_1", "tile_2", "tile_3", "tile_4", "tile_5", "", "", "tile_8"}};
    return names[p->tile_columns - 1][p->width];
}

/* The kernel of layer i: its header, and what is defined before that. */
static void include_kernel(const lb_generator *g, lb_code *code, size_t start, int i) {
    static const char *const plain[LBRT_OPS] = {"input", NULL, "point", "maxpool", "sumpool", "copy", "mul", "sigmoid"};
    static const char *const floats[LBRT_OPS] = {"float_input", "float_conv", "float_point", "float_pool",
                                                "float_pool",  "copy",       "float_mul",   NULL};
    const lbrt_layer *l = &g->graph->layers[i];
    const int type = (int)g->graph->tensors[l->src].type;
    lb_packing packing;
    char text[128];
    if (l->is_float || l->op != LBRT_OP_CONV) {
        snprintf(text, sizeof text, "#include \"kernels/%s.h\"\n", l->is_float ? floats[l->op] : plain[l->op]);
    } else if (lb_codegen_packing(g->graph, i, &packing)) {
        write_once(code, start, "#include \"kernels/packed_conv.h\"\n");
        snprintf(text, sizeof text, "#define TILE %s\n#define BITS %d\n#define COLUMNS %d\n#include \"kernels/tile.h\"\n",
                 tile_name(&packing), (int)packing.width, (int)packing.tile_columns);
    } else if (lb_codegen_is_depthwise(g->graph, i)) {
        snprintf(text, sizeof text, "#include \"kernels/depthwise.h\"\n");
    } else {
        snprintf(text, sizeof text, "#define CONV %s\n#define SOURCE %s\n#include \"kernels/conv.h\"\n", conv_names[type],
                 source_names[type]);
    }
    write_once(code, start, text);
}

static void write_includes(const lb_generator *g, lb_code *code) {
    uint32_t flags = 0;
    lb_code_printf(code, "#include \"model.h\"\n\n");
    for (int i = 0; i < g->graph->nlayers; i++)
        if (!g->graph->layers[i].is_float)
            flags |= lb_codegen_flags(g, i);
    lb_code_printf(code, "#define EPILOGUE_FLAGS %uu\n", (unsigned)flags);
    const size_t start = code->size;
    for (int i = 0; i < g->graph->nlayers; i++)
        include_kernel(g, code, start, i);
    lb_code_printf(code, "#include \"weights.h\"\n\n");
}

/* ---- Descriptions of layers ------------------------------------------------------------------------------------------- */

static void write_window(const lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    lbrt_tensor src, dst;
    lb_codegen_images(g->graph, i, &src, &dst);
    lb_code_printf(code, "    .s = {%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d},\n", (int)src.h, (int)src.w,
                   (int)src.c, (int)dst.h, (int)dst.w, (int)dst.c, (int)l->kh, (int)l->kw, (int)l->sh, (int)l->sw, (int)l->pt,
                   (int)l->pl, (int)LB_MAX(l->groups, 1), (int)l->gap_h, (int)l->gap_w);
}

static void write_packed(const lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    const int32_t count = lbrt_weights_per_channel(l, &g->graph->tensors[l->src]);
    lb_code_printf(code, "    .w = {%d, %zu, %d, %d, %d, weights_%d},\n", (int)count, lbrt_packed_bytes(count, l->weights.bits),
                   (int)l->weights.bits, (int)l->weights.mul, (int)l->weights.add, i);
}

static void write_pairs(const lb_generator *g, lb_code *code, int i, const lb_packing *p) {
    const lbrt_layer *l = &g->graph->layers[i];
    lb_code_printf(code,
                   "    .width = %d, .words = %d, .pairs = %d, .column = %d, .span = %d, .next = {%d, %d, %d},\n"
                   "    .lane = %d, .chunk = %d, .keeps = %d, .base = %d, .mul = %d, .add = %d,\n",
                   (int)p->width, (int)p->words, (int)p->pairs, (int)p->column, (int)p->span, (int)p->next[0], (int)p->next[1],
                   (int)p->next[2], (int)p->lane, (int)p->chunk, g->keeps[i] ? (int)(l->kh - l->sh) : 0, (int)p->base,
                   (int)l->weights.mul, (int)l->weights.add);
    lb_code_printf(code, "    .weights = weights_%d,", i);
    if (p->base != 0)
        lb_code_printf(code, " .bias = bias_%d,", i);
    lb_code_printf(code, "\n");
}

uint32_t lb_codegen_flags(const lb_generator *g, int i) {
    const uint32_t flags = g->graph->layers[i].epilogue.flags;
    return g->lines[i].line ? LB_CODEGEN_LINES | (flags & LBRT_RESIDUAL) : flags;
}

static void write_line_epilogue(const lb_generator *g, lb_code *code, int i) {
    const lbrt_epilogue *e = &g->graph->layers[i].epilogue;
    const lb_lines *lines = &g->lines[i];
    if (e->flags & LBRT_RESIDUAL)
        lb_code_printf(code, ", .res_type = %s", type_names[g->graph->tensors[e->residual].type]);
    lb_code_printf(code, ",\n          .lines = lines_%d, .form = {%d, %d, %d, %d, %d, %d}},\n", i, (int)lines->unit,
                   (int)lines->down, (int)lines->res_mul, (int)lines->qlo, (int)lines->qhi, (int)lines->sign);
}

static void write_epilogue(const lb_generator *g, lb_code *code, int i) {
    const lbrt_epilogue *e = &g->graph->layers[i].epilogue;
    const lbrt_tensor *dst = &g->graph->tensors[i + 1];
    lb_code_printf(code, "    .e = {.flags = %uu, .dst_type = %s", (unsigned)lb_codegen_flags(g, i), type_names[dst->type]);
    if (g->lines[i].line) {
        write_line_epilogue(g, code, i);
        return;
    }
    if (e->flags & LBRT_AFFINE)
        lb_code_printf(code, ", .requant = requant_%d", i);
    if (e->flags & LBRT_RESIDUAL) {
        lb_code_printf(code, ",\n          .res_type = %s, .res = ", type_names[g->graph->tensors[e->residual].type]);
        lb_code_requant(code, &e->res);
    }
    if (e->flags & LBRT_CLAMP)
        lb_code_printf(code, ",\n          .lo = %lld, .hi = %lld", (long long)e->lo, (long long)e->hi);
    if (e->flags & LBRT_CODE) {
        lb_code_printf(code, ",\n          .q = ");
        lb_code_requant(code, &e->q);
    }
    if (e->flags & (LBRT_CODE | LBRT_THRESHOLDS))
        lb_code_printf(code, ", .qlo = %lld, .qhi = %lld", (long long)e->qlo, (long long)e->qhi);
    if (e->flags & LBRT_THRESHOLDS) {
        lb_code_printf(code, ",\n          .nthresholds = %d, .t%d = thresholds_%d", (int)e->nthresholds,
                       lb_thresholds_fit16(e, dst->c) ? 16 : 32, i);
        if (lb_thresholds_flip(e, dst->c))
            lb_code_printf(code, ", .flip = flip_%d", i);
    }
    lb_code_printf(code, "},\n");
}

static void write_float_epilogue(const lb_generator *g, lb_code *code, int i) {
    const lbrt_epilogue *e = &g->graph->layers[i].epilogue;
    const uint32_t flags = e->flags & (LBRT_AFFINE | LBRT_RESIDUAL | LBRT_CODE | LBRT_SIGN | LBRT_TO_FIXED);
    lb_code_printf(code, "    .e = {.flags = %uu, .dst_type = %s", (unsigned)flags, type_names[g->graph->tensors[i + 1].type]);
    if (e->flags & LBRT_AFFINE)
        lb_code_printf(code, ", .scale = scale_%d, .offset = offset_%d", i, i);
    if (e->flags & LBRT_RESIDUAL)
        lb_code_printf(code, ",\n          .res_type = %s, .res_step = %af", type_names[g->graph->tensors[e->residual].type],
                       (double)e->res_step);
    if (e->flags & LBRT_CLAMP && e->flo > -INFINITY)
        lb_code_printf(code, ", .lo = lo_%d", i);
    if (e->flags & LBRT_CLAMP && e->fhi < INFINITY)
        lb_code_printf(code, ", .hi = hi_%d", i);
    if (e->flags & LBRT_CODE)
        lb_code_printf(code, ",\n          .inv_step = %af, .qlo = %lld, .qhi = %lld", (double)e->inv_step, (long long)e->qlo,
                       (long long)e->qhi);
    lb_code_printf(code, "},\n");
}

/* Copies, products, sigmoids. False: layer i is none of them. */
static bool write_elementwise(const lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    const lbrt_tensor *src = &g->graph->tensors[l->src], *dst = &g->graph->tensors[i + 1];
    const int count = (int)lbrt_elements(dst);
    switch ((lbrt_op)l->op) {
    case LBRT_OP_COPY:
        lb_code_printf(code, "static const copy layer_%d = {%d, %d, %d, %d, %d, %d, %d, %d, parts_%d, ", i, (int)src->w,
                       (int)dst->h, (int)dst->w, (int)dst->c, (int)l->sh, lbrt_type_size(dst->type) == 4, (int)l->zeros,
                       (int)l->nparts, i);
        if (l->rows != NULL)
            lb_code_printf(code, "rows_%d, cols_%d};\n", i, i);
        else
            lb_code_printf(code, "NULL, NULL};\n");
        return true;
    case LBRT_OP_MUL:
        lb_code_printf(code, "static const %s layer_%d = {%d, %d};\n", l->is_float ? "float_mul" : "fixed_mul", i, count,
                       (int)lbrt_elements(&g->graph->tensors[l->sources[1]]));
        return true;
    case LBRT_OP_SIGMOID: lb_code_printf(code, "static const sigmoid layer_%d = {%d};\n", i, count); return true;
    default: return false;
    }
}

static void write_integer_layer(const lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    const lbrt_tensor *src = &g->graph->tensors[l->src], *dst = &g->graph->tensors[i + 1];
    lb_packing packing;
    switch ((lbrt_op)l->op) {
    case LBRT_OP_INPUT:
        lb_code_printf(code, "static const input layer_%d = {%d, %d, %s, %lld, %lld, requant_%d};\n", i, (int)(dst->h * dst->w),
                       (int)dst->c, type_names[dst->type], (long long)l->epilogue.qlo, (long long)l->epilogue.qhi, i);
        break;
    case LBRT_OP_CONV:
        if (lb_codegen_packing(g->graph, i, &packing)) {
            lb_code_printf(code, "static const packed_conv layer_%d = {\n", i);
            write_window(g, code, i);
            write_pairs(g, code, i, &packing);
        } else {
            const bool depthwise = lb_codegen_is_depthwise(g->graph, i);
            lb_code_printf(code, "static const %s layer_%d = {\n", depthwise ? "depthwise" : "conv", i);
            write_window(g, code, i);
            write_packed(g, code, i);
            if (depthwise)
                lb_code_printf(code, "    .sign = %s,\n", src->type == LBRT_I8 ? "0x80808080" : "0");
        }
        write_epilogue(g, code, i);
        lb_code_printf(code, "};\n");
        break;
    case LBRT_OP_POINT:
        lb_code_printf(code, "static const point layer_%d = {\n    %d, %d, %s,\n", i, (int)(dst->h * dst->w), (int)dst->c,
                       type_names[src->type]);
        write_epilogue(g, code, i);
        lb_code_printf(code, "};\n");
        break;
    default:
        lb_code_printf(code, "static const pool layer_%d = {\n", i);
        write_window(g, code, i);
        lb_code_printf(code, "    .type = %s, .inside = %d,\n};\n", type_names[src->type], (int)l->inside);
        break;
    }
}

static void write_float_layer(const lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    const lbrt_tensor *src = &g->graph->tensors[l->src], *dst = &g->graph->tensors[i + 1];
    const double step = src->type == LBRT_F32 ? 1 : (double)l->src_step;
    switch ((lbrt_op)l->op) {
    case LBRT_OP_INPUT:
        lb_code_printf(code, "static const float_input layer_%d = {%d, %d, scale_%d, offset_%d};\n", i, (int)(dst->h * dst->w),
                       (int)dst->c, i, i);
        break;
    case LBRT_OP_CONV:
        lb_code_printf(code, "static const float_conv layer_%d = {\n    .src_type = %s, .src_step = %af,\n", i,
                       type_names[src->type], step);
        write_window(g, code, i);
        if (l->weights.bits == 32)
            lb_code_printf(code, "    .f32 = weights_%d, .w = {.count = %d},\n", i, (int)lbrt_weights_per_channel(l, src));
        else
            write_packed(g, code, i);
        write_float_epilogue(g, code, i);
        lb_code_printf(code, "};\n");
        break;
    case LBRT_OP_POINT:
        lb_code_printf(code, "static const float_point layer_%d = {\n    %d, %d, %s, %af,\n", i, (int)(dst->h * dst->w),
                       (int)dst->c, type_names[src->type], step);
        write_float_epilogue(g, code, i);
        lb_code_printf(code, "};\n");
        break;
    default:
        lb_code_printf(code, "static const float_pool layer_%d = {\n", i);
        write_window(g, code, i);
        lb_code_printf(code, "    .sum = %d, .inside = %d,\n};\n", l->op == LBRT_OP_SUMPOOL, (int)l->inside);
        break;
    }
}

/* ---- Calls ------------------------------------------------------------------------------------------------------------ */

bool lb_codegen_can_keep(const lbrt_graph *graph, int i) {
    const lbrt_layer *l = &graph->layers[i];
    lb_packing p;
    return lb_codegen_packing(graph, i, &p) && l->groups == 1 && l->sh < l->kh && graph->tensors[i + 1].h > 1;
}

size_t lb_codegen_scratch(const lbrt_graph *graph, int i, bool keeps) {
    const lbrt_layer *l = &graph->layers[i];
    lb_packing p;
    if (l->op != LBRT_OP_CONV || l->weights.bits == 32)
        return 0;
    if (lb_codegen_packing(graph, i, &p)) {
        const size_t each = (size_t)p.column + 4 * (size_t)l->kh, pixels = p.lane > 0 ? 4 : 2;
        const size_t tiles = keeps ? ((size_t)graph->tensors[i + 1].w + pixels - 1) / pixels : 1;
        return lbrt_size_mul(4, lbrt_size_add((size_t)p.windows, lbrt_size_mul(tiles, each)));
    }
    const size_t count = (size_t)lbrt_weights_per_channel(l, &graph->tensors[l->src]);
    if (lb_codegen_is_depthwise(graph, i)) /* pairs of four channels, codes of all taps */
        return (count + 1) / 2 * 6 * sizeof(uint32_t);
    return lbrt_size_mul(count, l->is_float ? sizeof(float) : sizeof(int16_t));
}

static void write_place(const lb_generator *g, lb_code *code, int tensor) {
    if (tensor == 0)
        lb_code_printf(code, "image");
    else if (tensor == g->graph->ntensors - 1)
        lb_code_printf(code, "scores");
    else
        lb_code_printf(code, "memory + %zu", g->slots[tensor].offset);
}

static void write_sources(const lb_generator *g, lb_code *code, const lbrt_layer *l) {
    lb_code_printf(code, "(const void *const[]){");
    for (int k = 0; k < l->nsources; k++) {
        lb_code_printf(code, k ? ", " : "");
        write_place(g, code, l->sources[k]);
    }
    lb_code_printf(code, "}");
}

static void write_call(const lb_generator *g, lb_code *code, int i) {
    const lbrt_layer *l = &g->graph->layers[i];
    const bool is_float = l->is_float;
    lb_packing packing;
    const bool packed = lb_codegen_packing(g->graph, i, &packing);
    const char *name;
    switch ((lbrt_op)l->op) {
    case LBRT_OP_INPUT: name = is_float ? "run_float_input" : "run_input"; break;
    case LBRT_OP_CONV:
        name = is_float                              ? "run_float_conv"
               : packed                              ? "run_packed_conv"
               : lb_codegen_is_depthwise(g->graph, i) ? "run_depthwise"
                                                     : conv_names[g->graph->tensors[l->src].type];
        break;
    case LBRT_OP_POINT: name = is_float ? "run_float_point" : "run_point"; break;
    case LBRT_OP_COPY: name = "run_copy"; break;
    case LBRT_OP_MUL: name = is_float ? "run_float_mul" : "run_mul"; break;
    case LBRT_OP_SIGMOID: name = "run_sigmoid"; break;
    default: name = is_float ? "run_float_pool" : l->op == LBRT_OP_MAXPOOL ? "run_maxpool" : "run_sumpool"; break;
    }
    /* In a block, so that all lists of sources share their place on the stack. */
    const bool several = l->op == LBRT_OP_COPY || l->op == LBRT_OP_MUL;
    lb_code_printf(code, several ? "    {\n        %s(&layer_%d, " : "    %s(&layer_%d, ", name, i);
    if (packed)
        lb_code_printf(code, "%s, ", tile_name(&packing));
    if (several)
        write_sources(g, code, l);
    else
        write_place(g, code, l->src);
    if (l->op == LBRT_OP_CONV || l->op == LBRT_OP_POINT) {
        lb_code_printf(code, ", ");
        if (l->epilogue.flags & LBRT_RESIDUAL)
            write_place(g, code, l->epilogue.residual);
        else
            lb_code_printf(code, "NULL");
    }
    lb_code_printf(code, ", ");
    write_place(g, code, i + 1);
    if (l->op == LBRT_OP_CONV && lb_codegen_scratch(g->graph, i, false) > 0)
        lb_code_printf(code, ", memory + %zu", g->scratch[i]);
    else if (l->op == LBRT_OP_CONV)
        lb_code_printf(code, ", NULL");
    lb_code_printf(code, several ? ");\n    }\n    MODEL_AFTER_LAYER(%d);\n" : ");\n    MODEL_AFTER_LAYER(%d);\n", i);
}

static void write_class_names(const lb_generator *g, lb_code *code) {
    lb_code_printf(code, "\nconst char *model_class_name(int class_index) {\n");
    if (g->graph->class_names == NULL) {
        lb_code_printf(code, "    (void)class_index;\n    return \"\";\n}\n");
        return;
    }
    lb_code_printf(code, "    static const char *const names[MODEL_CLASSES] = {\n");
    for (int i = 0; i < g->graph->classes; i++) {
        lb_code_printf(code, "        ");
        lb_code_string(code, g->graph->class_names[i]);
        lb_code_printf(code, ",\n");
    }
    lb_code_printf(code, "    };\n    return class_index >= 0 && class_index < MODEL_CLASSES ? names[class_index] : \"\";\n}\n");
}

void lb_write_model(const lb_generator *g, lb_code *code) {
    lb_code_printf(code, "/* The network: its kernels, its layers, the calls. */\n");
    write_includes(g, code);
    if (g->arena > 0)
        lb_code_printf(code, "/* For example -DMODEL_ARENA_ATTRIBUTE='__attribute__((section(\".ccm\")))'. */\n"
                             "#ifndef MODEL_ARENA_ATTRIBUTE\n#define MODEL_ARENA_ATTRIBUTE\n#endif\n"
                             "static MODEL_ARENA_ATTRIBUTE uint32_t arena[MODEL_ARENA_SIZE / 4];\n");
    for (int i = 0; i < g->graph->nlayers; i++) {
        const lbrt_layer *l = &g->graph->layers[i];
        const lbrt_tensor *src = &g->graph->tensors[l->src], *dst = &g->graph->tensors[i + 1];
        lb_code_printf(code, "\n/* %d: ", i);
        lb_code_name(code, l->name);
        lb_code_printf(code, ", %d x %d x %d to %d x %d x %d */\n", (int)src->h, (int)src->w, (int)src->c, (int)dst->h, (int)dst->w,
                       (int)dst->c);
        if (write_elementwise(g, code, i))
            continue;
        if (l->is_float)
            write_float_layer(g, code, i);
        else
            write_integer_layer(g, code, i);
    }
    lb_code_printf(code,
                   "\n/* -DMODEL_AFTER_LAYER=FUNCTION: is called with each layer's number after it, to time layers. */\n"
                         "#ifdef MODEL_AFTER_LAYER\nvoid MODEL_AFTER_LAYER(int layer);\n"
                         "#else\n#define MODEL_AFTER_LAYER(layer) ((void)0)\n#endif\n\n"
                         "void model_run(const uint8_t *image, int32_t *scores) {\n");
    if (g->arena > 0)
        lb_code_printf(code, "    uint8_t *const memory = (uint8_t *)arena;\n");
    for (int i = 0; i < g->graph->nlayers; i++)
        write_call(g, code, i);
    lb_code_printf(code, "}\n\n"
                         "int model_best(const int32_t *scores) {\n"
                         "    int best = 0;\n"
                         "    for (int i = 1; i < MODEL_CLASSES; i++)\n"
                         "        if (scores[i] > scores[best])\n"
                         "            best = i;\n"
                         "    return best;\n"
                         "}\n");
    write_class_names(g, code);
}

/* Which convolutions packed_conv.h runs, and how their weights are laid out for it. */
#include "deploy/codegen/codegen.h"

#define HALF 32767 /* the largest number of half a word: halves are signed to SMLAD */
#define MOST_WORDS (1 << 24) /* of windows in working memory */
#define MIN_SHARED 16 /* pairs after which sums may be taken apart without that costing more than sharing saves */

/* Words that tile.h takes at a time. */
static int32_t at_a_time(const lb_packing *p) { return p->width < 5 ? 1 : 2; }

/* Two pixels share a half where xmax * (2^lane + 1) fits into it, xmax the largest x of window memory, which are codes less base
 * and, for padding, 0 less base; then the sums of a chunk of products must stay below 2^lane, and those of the second pixel below
 * 2^(32 - lane), which is more. */
static void share_halves(lb_packing *p, int32_t xmax, int32_t wmax) {
    int32_t lane = 15;
    while (lane > 0 && (int64_t)xmax * ((1 << lane) + 1) > HALF)
        lane--;
    const int32_t pairs = xmax > 0 ? ((1 << lane) - 1) / (2 * xmax * wmax) : INT32_MAX;
    if (pairs >= MIN_SHARED && pairs >= p->pairs) {
        p->lane = lane;
        p->chunk = LB_MIN(pairs / p->pairs / at_a_time(p) * at_a_time(p), p->words);
    }
}

static bool has_bytes(const lbrt_graph *graph, int i) {
    const int32_t type = graph->tensors[graph->layers[i].src].type;
    return graph->layers[i].op == LBRT_OP_CONV && !graph->layers[i].is_float && (type == LBRT_U8 || type == LBRT_I8);
}

bool lb_codegen_is_depthwise(const lbrt_graph *graph, int i) {
    const lbrt_layer *l = &graph->layers[i];
    return has_bytes(graph, i) && !l->flat && graph->tensors[l->src].c == l->groups && graph->tensors[i + 1].c == l->groups;
}

void lb_codegen_images(const lbrt_graph *graph, int i, lbrt_tensor *src, lbrt_tensor *dst) {
    const lbrt_layer *l = &graph->layers[i];
    const lbrt_site site = {l, &graph->tensors[l->src], &graph->tensors[i + 1], NULL};
    *src = lbrt_view(&site);
    *dst = *site.dst;
    const bool pointwise = l->op == LBRT_OP_CONV && l->kh == 1 && l->kw == 1 && l->sh == 1 && l->sw == 1;
    if (pointwise && src->h == dst->h && src->w == dst->w && l->pt == 0 && l->pl == 0) {
        src->w = dst->w = src->h * src->w; /* at most LBRT_MAX_ELEMENTS */
        src->h = dst->h = 1;
    }
}

bool lb_codegen_packing(const lbrt_graph *graph, int i, lb_packing *p) {
    const lbrt_layer *l = &graph->layers[i];
    const lbrt_tensor *src = &graph->tensors[l->src];
    const int32_t bits = l->weights.bits;
    lbrt_tensor image, result;
    lb_codegen_images(graph, i, &image, &result);
    const int32_t count = lbrt_weights_per_channel(l, src);
    *p = (lb_packing){.base = LB_MIN(src->lo, 0)};
    if (!has_bytes(graph, i) || lbrt_is_dilated(l) || lb_codegen_is_depthwise(graph, i) || count > INT32_MAX / 256)
        return false;
    p->width = bits <= 5 ? bits : 8;
    p->pairs = 16 / p->width;
    p->channels = image.c / l->groups;
    p->padded = (p->channels + 3) / 4 * 4;
    p->taps = l->kh * l->kw;
    const int32_t pairs = p->taps * p->padded / 2;
    p->words = (pairs + p->pairs - 1) / p->pairs;
    p->words += p->words % at_a_time(p);
    p->column = 2 * LB_MAX(p->words * p->pairs, pairs);
    p->chunk = p->words;
    p->tile_columns = LB_MIN(result.w, 2);
    if (p->tile_columns == 2)
        share_halves(p, LB_MAX(src->hi, 0) - p->base, (1 << bits) - 1);
    const int32_t last = LB_MIN(p->lane > 0 ? 4 : 2, result.w) - 1;
    for (int32_t k = 0; k < 3; k++)
        p->next[k] = LB_MIN(k + 1, last) * l->sw;
    p->span = last * l->sw + l->kw;
    const int64_t windows = (int64_t)l->kh * p->span * p->padded / 4; /* strides and windows far wider than the image are lawful */
    p->windows = (int32_t)LB_MIN(windows, MOST_WORDS);
    return windows <= MOST_WORDS;
}

/* Pair k of a channel holds its weights 4 (k / 2) + k % 2 and the second behind that one: so do the codes that are spread from
 * bytes. */
void lb_pack_channel(const lbrt_layer *layer, const lb_packing *p, int32_t oc, uint32_t *words) {
    const int32_t bits = layer->weights.bits;
    const uint8_t *row = layer->weights.packed + (size_t)oc * lbrt_packed_bytes(p->taps * p->channels, bits);
    for (int32_t i = 0; i < p->words; i++)
        words[2 * i] = 0;
    for (int32_t i = 0; i < p->taps * p->channels; i++) {
        const int32_t at = i / p->channels * p->padded + i % p->channels, pair = at / 4 * 2 + at % 2, half = at % 4 / 2;
        const uint32_t stored = (uint32_t)lbrt_stored_weight(row, (size_t)i, bits);
        words[pair / p->pairs * 2] |= stored << (pair % p->pairs * p->width + 16 * half);
    }
}

/* Sum of a channel's weights times the smallest source code, modulo 2^32. The weights of channels that are there to make the words
 * whole count with `add`: their x is not 0 if base is not. */
int32_t lb_packing_bias(const lbrt_layer *layer, const lb_packing *p, int32_t oc) {
    const lbrt_weights *w = &layer->weights;
    const int32_t count = p->taps * p->channels;
    const uint8_t *row = w->packed + (size_t)oc * lbrt_packed_bytes(count, w->bits);
    int64_t sum = (int64_t)w->add * p->taps * (p->padded - p->channels);
    for (int32_t i = 0; i < count; i++)
        sum += w->mul * lbrt_stored_weight(row, (size_t)i, w->bits) + w->add;
    return (int32_t)(uint32_t)(uint64_t)(sum * p->base);
}

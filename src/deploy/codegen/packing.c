/* Which convolutions packed_conv.h runs, and how their weights are laid out for it. */
#include "deploy/codegen/codegen.h"

#define HALF 32767 /* the largest number of half a word: halves are signed to SMLAD */
#define MIN_SHARED 16 /* pairs after which sums may be taken apart without that costing more than sharing saves */

/* Two pixels share a half where amax * (2^lane + 1) fits into it; then the sums of a chunk of products must stay below 2^lane, and
 * those of the second pixel below 2^(32 - lane), which is more. */
static void share_halves(lb_packing *p, int32_t amax, int32_t wmax) {
    int32_t lane = 15;
    while (lane > 0 && (int64_t)amax * ((1 << lane) + 1) > HALF)
        lane--;
    const int32_t pairs = amax > 0 ? ((1 << lane) - 1) / (2 * amax * wmax) : INT32_MAX;
    if (pairs >= MIN_SHARED && pairs >= p->pairs) {
        p->lane = lane;
        p->chunk = LB_MIN(pairs / p->pairs, p->words);
    }
}

bool lb_codegen_packing(const lbrt_graph *graph, int i, lb_packing *p) {
    const lbrt_layer *l = &graph->layers[i];
    const lbrt_tensor *src = &graph->tensors[l->src];
    const int32_t bits = l->weights.bits;
    *p = (lb_packing){.count = lbrt_weights_per_channel(l, src), .base = LB_MIN(src->lo, 0)};
    if (l->op != LBRT_OP_CONV || l->is_float || lbrt_is_dilated(l) || (bits != 1 && bits != 2 && bits != 4 && bits != 8) ||
        (src->type != LBRT_U8 && src->type != LBRT_I8) || graph->tensors[i + 1].c == l->groups || p->count > INT32_MAX / 64)
        return false;
    p->pairs = 16 / bits;
    p->words = (p->count + 2 * p->pairs - 1) / (2 * p->pairs);
    p->chunk = p->words;
    share_halves(p, src->hi - p->base, (1 << bits) - 1);
    return true;
}

/* Pair k of a channel holds its weights 4 (k / 2) + k % 2 and the second behind that one: so do the codes that are spread from
 * bytes. */
void lb_pack_channel(const lbrt_layer *layer, const lb_packing *p, int32_t oc, uint32_t *words) {
    const int32_t bits = layer->weights.bits;
    const uint8_t *row = layer->weights.packed + (size_t)oc * lbrt_packed_bytes(p->count, bits);
    memset(words, 0, (size_t)p->words * sizeof *words);
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t pair = i / 4 * 2 + i % 2, half = i % 4 / 2;
        words[pair / p->pairs] |= (uint32_t)lbrt_stored_weight(row, (size_t)i, bits) << (pair % p->pairs * bits + 16 * half);
    }
}

/* Sum of a channel's weights times the smallest source code, modulo 2^32. */
int32_t lb_packing_bias(const lbrt_layer *layer, const lb_packing *p, int32_t oc) {
    const lbrt_weights *w = &layer->weights;
    const uint8_t *row = w->packed + (size_t)oc * lbrt_packed_bytes(p->count, w->bits);
    int64_t sum = 0;
    for (int32_t i = 0; i < p->count; i++)
        sum += w->mul * lbrt_stored_weight(row, (size_t)i, w->bits) + w->add;
    return (int32_t)(uint32_t)(uint64_t)(sum * p->base);
}

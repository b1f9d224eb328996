/* Where tensors live in the arena: largest first, each in the smallest gap between the tensors whose lifetimes overlap its own.
 * And which of them are planes. */
#include "internal.h"

static size_t round_up(size_t size) { return lbrt_size_add(size, LBRT_ALIGN - 1) & ~(size_t)(LBRT_ALIGN - 1); }

/* Puts tensor t into the list of placed tensors, which is sorted by offset; returns the list's head. */
static int32_t place(lbrt_slot *slots, int32_t head, int32_t t) {
    lbrt_slot *s = &slots[t];
    size_t end = 0, best = 0, best_gap = SIZE_MAX;
    int found = 0;
    for (int32_t i = head; i >= 0; i = slots[i].next) {
        const lbrt_slot *p = &slots[i];
        if (p->last < s->first || p->first > s->last)
            continue;
        if (p->offset > end && p->offset - end >= s->size && p->offset - end < best_gap) {
            best = end;
            best_gap = p->offset - end;
            found = 1;
        }
        if (p->offset + p->size > end)
            end = p->offset + p->size;
    }
    s->offset = found ? best : end;
    int32_t *link = &head;
    while (*link >= 0 && slots[*link].offset < s->offset)
        link = &slots[*link].next;
    s->next = *link;
    *link = t;
    return head;
}

size_t lbrt_plan(const lbrt_graph *graph, lbrt_slot *slots) {
    const int32_t n = graph->ntensors;
    size_t total = 0;
    for (int32_t t = 0; t < n; t++) {
        slots[t].size = t > 0 && t < n - 1 ? round_up(lbrt_tensor_bytes(&graph->tensors[t])) : 0;
        slots[t].offset = 0;
        slots[t].first = slots[t].last = t - 1;
        slots[t].next = -1;
        total = lbrt_size_add(total, slots[t].size);
    }
    if (total >= SIZE_MAX - LBRT_ALIGN) /* then no sum of sizes below can overflow */
        return SIZE_MAX;
    for (int32_t i = 0; i < graph->nlayers; i++)
        for (int32_t k = 0, t; (t = lbrt_layer_reads(&graph->layers[i], k)) >= 0; k++)
            slots[t].last = i; /* they are in ascending order, and read what is before them */
    size_t peak = 0, bound = SIZE_MAX;
    int32_t head = -1;
    /* Sizes in descending order, equal ones by index, without sorting anything: n is small. */
    for (;;) {
        size_t size = 0;
        for (int32_t t = 0; t < n; t++)
            if (slots[t].size < bound && slots[t].size > size)
                size = slots[t].size;
        if (size == 0)
            return peak;
        for (int32_t t = 0; t < n; t++)
            if (slots[t].size == size) {
                head = place(slots, head, t);
                if (slots[t].offset + size > peak)
                    peak = slots[t].offset + size;
            }
        bound = size;
    }
}

void lbrt_lay_out(const lbrt_graph *graph, const lbrt_step *steps, lbrt_slot *slots) {
    slots[0].planar = 0;
    for (int32_t i = 0; i < graph->nlayers; i++) {
        const lbrt_site site = lbrt_site_of(graph, i);
        const uint32_t can = steps[i].kernel->planar != NULL ? steps[i].kernel->planar(&site) : 0;
        slots[i + 1].planar = i + 1 < graph->nlayers && can & LBRT_PLANAR_DST;
        for (int32_t k = 0, t; (t = lbrt_layer_reads(site.layer, k)) >= 0; k++)
            if (!(can & (k == 0 ? LBRT_PLANAR_SRC : LBRT_PLANAR_RES)))
                slots[t].planar = 0;
    }
}

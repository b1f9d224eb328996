/* How sources and weights are stored for products: as bytes, or as words where those would not do. */
#ifndef LBRT_STORED_H
#define LBRT_STORED_H

#include "vec.h"

#define STEP 4 /* bytes of a source per step and lane: 4 of them, or 2 words */

#ifdef LBRT_SIGNED_BYTES
typedef int8_t stored_byte;
#else
typedef uint8_t stored_byte;
#endif

/* What is added (modulo 256) to a source's values, and to the zeros of its padding, to make bytes of them. */
static inline int32_t stored_offset(const lbrt_tensor *src) {
#ifdef LBRT_SIGNED_BYTES
    return src->hi > INT8_MAX ? INT8_MAX - src->hi : src->lo < INT8_MIN ? INT8_MIN - src->lo : 0;
#else
    return src->lo < 0 ? -src->lo : 0;
#endif
}

static inline int32_t magnitude(int32_t a, int32_t b) {
    a = a < 0 ? -a : a;
    b = b < 0 ? -b : b;
    return a > b ? a : b;
}

static inline int32_t first_weight(const lbrt_weights *w) { return w->add; }
static inline int32_t last_weight(const lbrt_weights *w) { return w->mul * ((1 << w->bits) - 1) + w->add; }

static inline int weights_fit_byte(const lbrt_weights *w) {
    const int32_t first = first_weight(w), last = last_weight(w);
    return first >= INT8_MIN && first <= INT8_MAX && last >= INT8_MIN && last <= INT8_MAX;
}

/* Steps of bytes whose products with weights of at most `most` fit the sums (SIZE_MAX: any number); 0: this takes words. */
static inline size_t stored_run(const lbrt_tensor *src, int32_t most) {
    const int64_t lo = src->lo < 0 ? src->lo : 0, hi = src->hi > 0 ? src->hi : 0;
    if (hi - lo > UINT8_MAX)
        return 0;
#if SUM_PRODUCTS == 0
    return (void)most, SIZE_MAX;
#else
    const int32_t offset = stored_offset(src), product = magnitude((int32_t)lo + offset, (int32_t)hi + offset) * most;
    return product > 0 ? (size_t)(INT16_MAX / (SUM_PRODUCTS * product)) : SIZE_MAX;
#endif
}

static inline void store_weight(void *to, size_t size, int32_t v) {
    if (size == 1)
        *(int8_t *)to = (int8_t)v;
    else
        *(int16_t *)to = (int16_t)v;
}

/* Kernels that copy source rows copy columns that a large stride skips, too: those of a hostile file are ref's work. */
static inline int strides_are_small(const lbrt_site *site) {
    const size_t ow = (size_t)site->dst->w, kw = (size_t)site->layer->kw;
    return (ow - 1) * (size_t)site->layer->sw + kw <= 4 * ow * kw;
}

#endif

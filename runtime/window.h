/* Which taps of a kernel lie inside an image, along one side: the first lies at `at`, maybe outside, the others follow with `gap`
 * pixels in between. Shared by trainer, runtime and generated C. */
#ifndef LBRT_WINDOW_H
#define LBRT_WINDOW_H

#include <stdint.h>

/* The first tap inside, `count` if all lie before the image. */
static inline int32_t lbrt_first_tap(int32_t at, int32_t gap, int32_t count) {
    const int32_t n = at < 0 ? (gap - at) / (gap + 1) : 0;
    return n < count ? n : count;
}

/* The first tap behind an image of `size` pixels, `count` if there is none. */
static inline int32_t lbrt_end_tap(int32_t at, int32_t gap, int32_t count, int32_t size) {
    const int32_t n = at < size ? (size - at + gap) / (gap + 1) : 0;
    return n < count ? n : count;
}

#endif

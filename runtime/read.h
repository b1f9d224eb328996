/* Bounds-checked reading of a packed model's bytes (docs/format.md): little endian at any alignment, the first failure sticks and
 * later reads give 0, so that a parser reads on and asks once. */
#ifndef LBRT_READ_H
#define LBRT_READ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct lbrt_reader {
    const uint8_t *data;
    size_t size, at;
    const char *what; /* what was wrong first; NULL: nothing */
} lbrt_reader;

static inline void lbrt_reject(lbrt_reader *r, const char *what) {
    if (r->what == NULL)
        r->what = what;
}

/* The next `count` bytes in place, or NULL. */
static inline const uint8_t *lbrt_get_bytes(lbrt_reader *r, size_t count) {
    if (r->what != NULL || count > r->size - r->at) {
        lbrt_reject(r, "data behind the end");
        return NULL;
    }
    const uint8_t *p = r->data + r->at;
    r->at += count;
    return p;
}

static inline uint32_t lbrt_get_u8(lbrt_reader *r) {
    const uint8_t *p = lbrt_get_bytes(r, 1);
    return p != NULL ? *p : 0;
}

/* Signed integer of `width` 0..8 bytes, two's complement. */
static inline int64_t lbrt_get_int(lbrt_reader *r, unsigned width) {
    const uint8_t *p = lbrt_get_bytes(r, width);
    uint64_t u = 0;
    if (p == NULL || width == 0)
        return 0;
    for (unsigned i = 0; i < width; i++)
        u |= (uint64_t)p[i] << (8 * i);
    const uint64_t sign = (uint64_t)1 << (8 * width - 1);
    if ((u & sign) == 0)
        return (int64_t)u;
    return -(int64_t)(sign - 1 - (u & (sign - 1))) - 1;
}

static inline uint32_t lbrt_get_u32(lbrt_reader *r) { return (uint32_t)((uint64_t)lbrt_get_int(r, 4) & 0xffffffffu); }

/* LEB128: 7 bits a byte, lowest first, bit 7 set on all but the last byte; at most 32 bits. */
static inline uint32_t lbrt_get_num(lbrt_reader *r) {
    uint32_t v = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        const uint32_t byte = lbrt_get_u8(r);
        if (shift == 28 && byte > 15)
            break;
        v |= (byte & 127) << shift;
        if (byte < 128)
            return v;
    }
    lbrt_reject(r, "a number of more than 32 bits");
    return 0;
}

/* Zigzag: 0, -1, 1, -2, ... as 0, 1, 2, 3, ... */
static inline int32_t lbrt_get_snum(lbrt_reader *r) {
    const uint32_t v = lbrt_get_num(r);
    return v & 1 ? -(int32_t)(v >> 1) - 1 : (int32_t)(v >> 1);
}

static inline int32_t lbrt_get_within(lbrt_reader *r, int32_t lo, int32_t hi, const char *what) {
    const uint32_t v = lbrt_get_num(r);
    if (v < (uint32_t)lo || v > (uint32_t)hi) {
        lbrt_reject(r, what);
        return lo;
    }
    return (int32_t)v;
}

/* IEEE 754 single; infinities and NaN are rejected unless allowed. No float arithmetic happens here. */
static inline float lbrt_get_f32(lbrt_reader *r, int infinite_too) {
    uint32_t bits = lbrt_get_u32(r);
    if ((bits & 0x7f800000u) == 0x7f800000u && !(infinite_too && (bits & 0x007fffffu) == 0)) {
        lbrt_reject(r, "a float is not finite");
        bits = 0;
    }
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#endif

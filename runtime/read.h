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

/* At most `hi`, below 256. */
static inline int32_t lbrt_get_u8_within(lbrt_reader *r, int32_t hi, const char *what) {
    const int32_t v = (int32_t)lbrt_get_u8(r);
    if (v <= hi)
        return v;
    lbrt_reject(r, what);
    return 0;
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

/* A string of bits: numbers follow each other from the lowest bit of its first byte up. */
typedef struct lbrt_bits {
    const uint8_t *data;
    size_t at;
} lbrt_bits;

/* The next `count` times `each` bits (both below 2^32), which end in a byte whose unused bits are 0. data is NULL after a
 * failure. */
static inline lbrt_bits lbrt_get_bits(lbrt_reader *r, size_t count, unsigned each) {
    lbrt_bits b = {NULL, 0};
    const uint64_t bits = (uint64_t)count * each, bytes = bits / 8 + (bits % 8 != 0);
    if (r->what != NULL || bytes > r->size - r->at) {
        lbrt_reject(r, "data behind the end");
        return b;
    }
    b.data = lbrt_get_bytes(r, (size_t)bytes);
    if (bits % 8 != 0 && b.data[bits / 8] >> bits % 8 != 0) {
        lbrt_reject(r, "unused bits that are not 0");
        b.data = NULL;
    }
    return b;
}

/* The next number of `width` 0..63 bits of a string that has them. */
static inline uint64_t lbrt_take_bits(lbrt_bits *b, unsigned width) {
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++, b->at++)
        v |= (uint64_t)(b->data[b->at / 8] >> b->at % 8 & 1) << i;
    return v;
}

/* The same, two's complement. */
static inline int64_t lbrt_take_signed(lbrt_bits *b, unsigned width) {
    const int64_t v = (int64_t)lbrt_take_bits(b, width);
    return width > 0 && v >> (width - 1) != 0 ? v - ((int64_t)1 << (width - 1)) * 2 : v;
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

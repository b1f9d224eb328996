/* The source transform of one Winograd tile for vectors of VEC bytes: included once per width by winograd.c. Bytes wrap; the
 * results fit. src: 4 rows of 6 pixels, `pixel` and `row` bytes apart; dst: 24 positions (4 x 6), `position` bytes apart. */
static inline VEC NAME(load)(const uint8_t *src) {
    VEC v;
    __builtin_memcpy(&v, src, sizeof v);
    return v;
}

/* Bytes have no shifts. */
static inline VEC NAME(four)(VEC v) {
    const VEC two = v + v;
    return two + two;
}

static inline void NAME(transform)(const uint8_t *src, size_t pixel, size_t row, uint8_t *dst, size_t position) {
    VEC d[4][6];
#pragma GCC unroll 6
    for (size_t j = 0; j < 6; j++) {
        VEC x[4];
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            x[i] = NAME(load)(src + i * row + j * pixel);
        d[0][j] = x[0] - x[2];
        d[1][j] = x[1] + x[2];
        d[2][j] = x[2] - x[1];
        d[3][j] = x[1] - x[3];
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const VEC *x = d[i], a = x[4] - NAME(four)(x[2]), b = x[3] - NAME(four)(x[1]), c = x[4] - x[2], half = x[3] - x[1],
                  e = half + half;
        const VEC v[6] = {a + NAME(four)(x[0]) - x[2], a + b, a - b, c + e, c - e, x[5] - b - NAME(four)(x[3])};
#pragma GCC unroll 6
        for (size_t j = 0; j < 6; j++) {
            const VEC u = v[j] ^ 0x80; /* + 128: from -128..127 to 0..255 */
            __builtin_memcpy(dst + (i * 6 + j) * position, &u, sizeof u);
        }
    }
}

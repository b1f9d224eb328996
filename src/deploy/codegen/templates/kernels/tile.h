/* The inner loop of packed_conv.h for weights of BITS bits, 1, 2, 4 or 8, included once for each: two output channels times two
 * columns.
 *
 * A word of weights holds 16 / BITS pairs: pair j has one weight at bit j * BITS and the other one 16 bits further up, so that a
 * shift and a mask bring a pair into place for dot2. x has a pair of each column in turn. */
#define TILE_JOIN(a, b) a##b
#define TILE(bits) TILE_JOIN(tile_, bits)
#define STEP(j)                                                      \
    do {                                                             \
        const uint32_t x0 = x[2 * (j)], x1 = x[2 * (j) + 1];         \
        const uint32_t p = a >> (j) * BITS & mask, q = b >> (j) * BITS & mask; \
        s0 = dot2(x0, p, s0);                                        \
        s1 = dot2(x1, p, s1);                                        \
        s2 = dot2(x0, q, s2);                                        \
        s3 = dot2(x1, q, s3);                                        \
    } while (0)

/* sums[2 * channel + column]. mask: BITS ones in both halves; an argument because compilers then keep it in a register, and ARM
 * shifts and masks in one instruction. */
static void TILE(BITS)(const uint32_t *w0, const uint32_t *w1, const uint32_t *x, int32_t words, uint32_t mask,
                       uint32_t *sums) {
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (const uint32_t *const end = w0 + words; w0 < end; x += 2 * (16 / BITS)) {
        const uint32_t a = *w0++, b = *w1++;
        STEP(0);
        STEP(1);
#if BITS <= 4
        STEP(2);
        STEP(3);
#endif
#if BITS <= 2
        STEP(4);
        STEP(5);
        STEP(6);
        STEP(7);
#endif
#if BITS == 1
        STEP(8);
        STEP(9);
        STEP(10);
        STEP(11);
        STEP(12);
        STEP(13);
        STEP(14);
        STEP(15);
#endif
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

#undef STEP
#undef TILE
#undef TILE_JOIN
#undef BITS

/* The inner loop of packed_conv.h: two output channels times COLUMNS columns, two or, where results are one pixel wide, one.
 * Included once for each loop, with TILE, the function's name, and BITS, those of the weights, 1 to 5 or 8.
 *
 * A word of weights holds 16 / BITS pairs: pair j has one weight at bit j * BITS and the other one 16 bits further up, so that a
 * shift and a mask bring a pair into place for dot2. w has a word of each channel in turn, x a pair of each of two columns. */
#define STEP(at, a, b, j)                                                                              \
    do {                                                                                               \
        const uint32_t x0 = x[2 * ((at) + (j))], x1 = x[2 * ((at) + (j)) + 1];                         \
        const uint32_t p = (a) >> (j) * BITS & mask, q = (b) >> (j) * BITS & mask;                     \
        s0 = dot2(x0, p, s0);                                                                          \
        s1 = COLUMNS == 2 ? dot2(x1, p, s1) : 0;                                                       \
        s2 = dot2(x0, q, s2);                                                                          \
        s3 = COLUMNS == 2 ? dot2(x1, q, s3) : 0;                                                       \
    } while (0)
#if BITS < 5
#define WORDS 1
#else
#define WORDS 2 /* at a time: words is even */
#endif

/* sums[2 * channel + column]. mask: BITS ones in both halves; an argument because compilers then keep it in a register, and ARM
 * shifts and masks in one instruction. */
static void TILE(const uint32_t *w, const uint32_t *x, int32_t words, uint32_t mask, uint32_t *sums) {
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (const uint32_t *const end = w + 2 * words; w < end; w += 2 * WORDS, x += 2 * (16 / BITS) * WORDS) {
        const uint32_t a = w[0], b = w[1];
        STEP(0, a, b, 0);
        STEP(0, a, b, 1);
#if BITS <= 5
        STEP(0, a, b, 2);
#endif
#if BITS <= 4
        STEP(0, a, b, 3);
#endif
#if BITS <= 3
        STEP(0, a, b, 4);
#endif
#if BITS <= 2
        STEP(0, a, b, 5);
        STEP(0, a, b, 6);
        STEP(0, a, b, 7);
#endif
#if BITS == 1
        STEP(0, a, b, 8);
        STEP(0, a, b, 9);
        STEP(0, a, b, 10);
        STEP(0, a, b, 11);
        STEP(0, a, b, 12);
        STEP(0, a, b, 13);
        STEP(0, a, b, 14);
        STEP(0, a, b, 15);
#endif
#if BITS >= 5
        STEP(16 / BITS, w[2], w[3], 0);
        STEP(16 / BITS, w[2], w[3], 1);
#endif
#if BITS == 5
        STEP(3, w[2], w[3], 2);
#endif
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

#undef STEP
#undef WORDS
#undef TILE
#undef BITS
#undef COLUMNS

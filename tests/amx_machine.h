/* AMX where the processor has none: its instructions raise SIGILL, and the handler carries them out in plain C, as Intel's manual
 * describes them (64 and IA-32 Architectures Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TILESTORED, TDPBUSD, ..,
 * TDPBF16PS and their exceptions), so that the very machine code runs that a processor with AMX would run. What would be an
 * exception there aborts.
 *
 * Where the processor has AMX, a process that has not asked Linux for the registers gets SIGILL too, from all instructions but
 * LDTILECFG and TILERELEASE, which are carried out: the configuration then comes from the signal's frame. So the emulation and the
 * hardware can be compared on one machine.
 *
 * amx_machine(), in a test, because cmocka takes all signals before each, gives the best instruction set that it can run then;
 * amx_emulate() is for code that is known to run but for AMX. Each thread has registers of its own. */
#ifndef LB_TEST_AMX_MACHINE_H
#define LB_TEST_AMX_MACHINE_H

#include <math.h>

#include "model.h"
#include "support.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <signal.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { AMX_REGISTERS = 8, AMX_ROWS = 16, AMX_BYTES = 64 };

/* palette 0: the initial state, nothing configured. Rows and bytes behind a register's own are zeros. */
typedef struct amx_state {
    uint8_t palette, rows[AMX_REGISTERS];
    uint16_t bytes[AMX_REGISTERS];
    uint8_t data[AMX_REGISTERS][AMX_ROWS][AMX_BYTES];
    uint8_t config[64]; /* what was configured */
    long products; /* TDP instructions so far */
} amx_state;

static _Thread_local amx_state amx;

/* ---- The instructions: what would be an exception is returned as text ------------------------------------------------- */

static inline const char *amx_configure(amx_state *s, const uint8_t config[64]) {
    const long products = s->products;
    *s = (amx_state){.products = products};
    if (config[0] > 1)
        return "LDTILECFG: no such palette";
    if (config[0] == 0)
        return NULL;
    for (int i = 1; i < 16; i++) /* start_row is for restarts after page faults */
        if (config[i] != 0)
            return "LDTILECFG: start row or reserved bytes";
    for (int t = 0; t < 16; t++) {
        const int bytes = config[16 + 2 * t] | config[17 + 2 * t] << 8, rows = config[48 + t];
        if (t >= AMX_REGISTERS ? bytes != 0 || rows != 0 : bytes > AMX_BYTES || rows > AMX_ROWS || (bytes == 0) != (rows == 0))
            return "LDTILECFG: rows or bytes of a row";
        if (t < AMX_REGISTERS) {
            s->bytes[t] = (uint16_t)bytes;
            s->rows[t] = (uint8_t)rows;
        }
    }
    s->palette = 1;
    memcpy(s->config, config, sizeof s->config);
    return NULL;
}

static inline const char *amx_unusable(const amx_state *s, int t) {
    return s->palette == 0 ? "registers are not configured" : s->rows[t] == 0 ? "a register without rows" : NULL;
}

static inline const char *amx_load(amx_state *s, int t, const uint8_t *from, ptrdiff_t stride) {
    const char *fault = amx_unusable(s, t);
    if (fault)
        return fault;
    memset(s->data[t], 0, sizeof s->data[t]);
    for (int r = 0; r < s->rows[t]; r++)
        memcpy(s->data[t][r], from + r * stride, s->bytes[t]);
    return NULL;
}

static inline const char *amx_store(const amx_state *s, int t, uint8_t *to, ptrdiff_t stride) {
    const char *fault = amx_unusable(s, t);
    for (int r = 0; !fault && r < s->rows[t]; r++)
        memcpy(to + r * stride, s->data[t][r], s->bytes[t]);
    return fault;
}

static inline void amx_widen(const amx_state *s, int t, bool is_signed, int values[AMX_ROWS][AMX_BYTES]) {
    for (int r = 0; r < s->rows[t]; r++)
        for (int i = 0; i < s->bytes[t]; i++)
            values[r][i] = is_signed ? (int8_t)s->data[t][r][i] : s->data[t][r][i];
}

/* Of a product's registers. */
static inline const char *amx_unfit(const amx_state *s, int c, int a, int b) {
    for (int i = 0; i < 3; i++) {
        const char *fault = amx_unusable(s, (const int[3]){c, a, b}[i]);
        if (fault)
            return fault;
    }
    if (c == a || c == b || a == b)
        return "TDP: the same register twice";
    if (s->bytes[c] % 4 || s->bytes[a] % 4 || s->bytes[b] % 4)
        return "TDP: rows of no whole number of four bytes";
    if (s->rows[c] != s->rows[a] || s->bytes[c] != s->bytes[b] || s->bytes[a] / 4 != s->rows[b])
        return "TDP: shapes that do not fit each other";
    return NULL;
}

/* c[m][n] += sum over k of 4 products of a[m][k] and b[k][n], modulo 2^32. */
static inline const char *amx_dot(amx_state *s, int c, int a, int b, bool a_signed, bool b_signed) {
    const char *fault = amx_unfit(s, c, a, b);
    if (fault)
        return fault;
    int x[AMX_ROWS][AMX_BYTES], y[AMX_ROWS][AMX_BYTES];
    amx_widen(s, a, a_signed, x);
    amx_widen(s, b, b_signed, y);
    for (int m = 0; m < s->rows[c]; m++)
        for (int n = 0; n < s->bytes[c]; n += 4) {
            int products = 0;
            uint32_t sum;
            for (int k = 0; k < s->rows[b]; k++) {
                const int *u = &x[m][4 * k], *v = &y[k][n];
                products += u[0] * v[0] + u[1] * v[1] + u[2] * v[2] + u[3] * v[3];
            }
            memcpy(&sum, &s->data[c][m][n], sizeof sum);
            sum += (uint32_t)products;
            memcpy(&s->data[c][m][n], &sum, sizeof sum);
        }
    s->products++;
    return NULL;
}

/* To f32, to the nearest, subnormal numbers being zeros: those that are subnormal when rounded as if exponents had no end. */
static inline float amx_round(double v) {
    const bool tiny = fabs(v) < 0x1p-126 && fabsf((float)(v * 0x1p64)) < 0x1p-62f;
    return tiny ? copysignf(0, (float)v) : (float)v;
}
static inline float amx_f32(const uint8_t *from) {
    float f;
    memcpy(&f, from, sizeof f);
    return amx_round((double)f);
}
static inline float amx_bf16(const uint8_t *from) { return amx_f32((const uint8_t[4]){0, 0, from[0], from[1]}); }

/* c[m][n] += products of pairs of bf16 a[m][k] and b[k][n]: the first of each pair and the second are summed apart, k upwards, each
 * product and its addition rounded once (a double holds both, or the smaller one does not matter), then added, then to c. */
static inline const char *amx_dot_bf16(amx_state *s, int c, int a, int b) {
    const char *fault = amx_unfit(s, c, a, b);
    if (fault)
        return fault;
    for (int m = 0; m < s->rows[c]; m++)
        for (int n = 0; n < s->bytes[c]; n += 4) {
            float sums[2] = {0};
            for (int k = 0; k < s->rows[b]; k++)
                for (int i = 0; i < 2; i++)
                    sums[i] = amx_round((double)amx_bf16(&s->data[a][m][4 * k + 2 * i]) *
                                            (double)amx_bf16(&s->data[b][k][n + 2 * i]) + (double)sums[i]);
            const float added = amx_round((double)sums[0] + (double)sums[1]);
            const float sum = amx_round((double)amx_f32(&s->data[c][m][n]) + (double)added);
            memcpy(&s->data[c][m][n], &sum, sizeof sum);
        }
    s->products++;
    return NULL;
}

/* ---- Their machine code ------------------------------------------------------------------------------------------------ */

/* The address of a ModRM byte that names memory; *index: of the SIB byte, scaled; *next: the first byte behind. */
static inline uint8_t *amx_address(const greg_t *regs, const uint8_t *modrm, bool x, bool b, ptrdiff_t *index,
                                   const uint8_t **next) {
    /* rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8.. in the numbering of Linux's signal frames */
    static const int order[16] = {13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7};
    const int mod = modrm[0] >> 6, rm = modrm[0] & 7;
    const uint8_t *at = modrm + 1;
    int base = rm;
    *index = 0;
    if (rm == 4) {
        const uint8_t sib = *at++;
        const int i = (sib >> 3 & 7) + 8 * x;
        base = sib & 7;
        if (i != 4)
            *index = (ptrdiff_t)regs[order[i]] << (sib >> 6);
    }
    const bool none = mod == 0 && base == 5;
    intptr_t address = none ? 0 : (intptr_t)regs[order[base + 8 * b]];
    if (mod == 1) {
        address += (int8_t)*at++;
    } else if (mod == 2 || none) {
        int32_t displacement;
        memcpy(&displacement, at, sizeof displacement);
        at += sizeof displacement;
        address += displacement;
        if (none && rm == 5) /* from the next instruction on */
            address += (intptr_t)at;
    }
    *next = at;
    return (uint8_t *)address;
}

/* Carries out the instruction at *code and moves on; false: it is none of AMX. */
static inline bool amx_step(amx_state *s, const greg_t *regs, const uint8_t **code, const char **fault) {
    enum { NP, P66, PF3, PF2 };
    const uint8_t *p = *code;
    *fault = NULL;
    if (p[0] != 0xc4 || (p[1] & 0x1f) != 2 || (p[2] & 0x84) != 0)
        return false;
    const int prefix = p[2] & 3, other = ~p[2] >> 3 & 15, reg = p[4] >> 3 & 7, rm = p[4] & 7;
    const bool memory = p[4] >> 6 != 3;
    ptrdiff_t index = 0;
    const uint8_t *next = p + 5;
    uint8_t *const address = memory ? amx_address(regs, p + 4, !(p[1] & 0x40), !(p[1] & 0x20), &index, &next) : NULL;
    if (p[3] == 0x49 && prefix == NP && memory && reg == 0)
        *fault = amx_configure(s, address);
    else if (p[3] == 0x49 && prefix == NP && p[4] == 0xc0)
        *fault = amx_configure(s, (const uint8_t[64]){0});
    else if (p[3] == 0x49 && prefix == PF2 && !memory && rm == 0)
        *fault = amx_load(s, reg, (const uint8_t[AMX_BYTES]){0}, 0);
    else if (p[3] == 0x4b && (prefix == PF2 || prefix == P66) && memory && rm == 4)
        *fault = amx_load(s, reg, address, index);
    else if (p[3] == 0x4b && prefix == PF3 && memory && rm == 4)
        *fault = amx_store(s, reg, address, index);
    else if (p[3] == 0x5c && prefix == PF3 && !memory && other < AMX_REGISTERS)
        *fault = amx_dot_bf16(s, reg, rm, other);
    else if (p[3] == 0x5e && !memory && other < AMX_REGISTERS)
        *fault = amx_dot(s, reg, rm, other, prefix == PF2 || prefix == PF3, prefix == PF2 || prefix == P66);
    else
        return false;
    *code = next;
    return true;
}

/* The configuration that the hardware has where only the registers' data is kept from the process. */
static inline const char *amx_take_configuration(amx_state *s, const ucontext_t *context) {
    enum { MAGIC = 464, FEATURES = 472, PRESENT = 512, CONFIG = 17 }; /* of XSAVE's area in a frame; the state's component */
    const uint8_t *frame = (const uint8_t *)context->uc_mcontext.fpregs;
    uint8_t config[64] = {0};
    uint32_t magic;
    uint64_t features, present;
    memcpy(&magic, frame + MAGIC, sizeof magic);
    memcpy(&features, frame + FEATURES, sizeof features);
    if (magic != 0x46505853u || !(features >> CONFIG & 1)) /* no XSAVE, or none with AMX: all instructions raise signals */
        return NULL;
    unsigned size, offset, c, d;
    memcpy(&present, frame + PRESENT, sizeof present);
    if (present >> CONFIG & 1) {
        __cpuid_count(13, CONFIG, size, offset, c, d);
        memcpy(config, frame + offset, LB_MIN((size_t)size, sizeof config));
    }
    return memcmp(config, s->config, sizeof config) == 0 ? NULL : amx_configure(s, config);
}

static void amx_trap(int number, siginfo_t *info, void *context) {
    enum { RIP = 16 };
    (void)info;
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)regs[RIP];
    const char *fault = amx_take_configuration(&amx, context);
    if (!fault && !amx_step(&amx, regs, &code, &fault)) {
        signal(number, SIG_DFL); /* and here we are again */
        return;
    }
    if (fault) {
        fprintf(stderr, "AMX: %s\n", fault);
        abort();
    }
    regs[RIP] = (greg_t)code;
}

static inline void amx_emulate(void) {
    struct sigaction action = {.sa_sigaction = amx_trap, .sa_flags = SA_SIGINFO};
    assert_int_equal(sigaction(SIGILL, &action, NULL), 0);
}

/* A test of a kernel of training: calls `check` in a process of its own whose AMX is emulated, whatever the processor has, unless
 * this one has asked for it before. The text that check returns is a failure, NULL none. */
static inline void amx_test_emulated(const char *(*check)(void)) {
    enum { DONE, FAILED, HARDWARE };
    int status;
    if (!__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512bf16")) {
        printf("SKIPPED: a processor without AVX-512 BF16 cannot run what is around the instructions of AMX\n");
        return;
    }
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        amx_emulate();
        const char *failure = check();
        if (failure)
            fprintf(stderr, "AMX emulated: %s\n", failure);
        _exit(failure ? FAILED : amx.products > 0 ? DONE : HARDWARE);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != FAILED);
    if (WEXITSTATUS(status) == HARDWARE)
        printf("SKIPPED: this process had been given AMX before\n");
}

static inline lbrt_isa amx_machine(void) {
    const lbrt_isa best = lbrt_best_isa();
    if (best != LBRT_ISA_AVX512VBMI) /* less cannot run what is around the instructions */
        return best;
    amx_emulate();
    return LBRT_ISA_AMX;
}

#define AMX_EMULATED(kernel)                                                                                                       \
    extern const kernel kernel##_amx;                                                                                              \
    static const char *emulated(void) { return difference(&kernel##_amx); }
#else
static inline void amx_test_emulated(const char *(*check)(void)) { (void)check; }
static inline lbrt_isa amx_machine(void) { return lbrt_best_isa(); }
#define AMX_EMULATED(kernel)                                                                                                       \
    static const char *emulated(void) { return NULL; }
#endif

/* test_emulated, which has to be the first test because others ask for AMX where it is, and test_amx, on the processor's own: what
 * const char *difference(const KERNEL *) says of a kernel of training is a failure, NULL none. */
#define AMX_KERNEL_TESTS(kernel)                                                                                                   \
    AMX_EMULATED(kernel)                                                                                                           \
    static void test_emulated(void **state) {                                                                                      \
        (void)state;                                                                                                               \
        amx_test_emulated(emulated);                                                                                               \
    }                                                                                                                              \
    static void test_amx(void **state) {                                                                                           \
        (void)state;                                                                                                               \
        const kernel *fast = kernel##_find("amx");                                                                                 \
        const char *text = fast ? difference(fast) : NULL;                                                                         \
        if (!fast)                                                                                                                 \
            printf("SKIPPED: this processor has no matrix registers (AMX)\n");                                                     \
        if (text)                                                                                                                  \
            fail_msg("%s", text);                                                                                                  \
    }

#endif

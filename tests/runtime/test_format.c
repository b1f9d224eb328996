/* docs/format.md taken at its word: files written by hand, byte by byte, opened and run. With a directory as argument the program
 * writes those files, which a fuzzer may start from, and images for the example instead. */
#include "crc32c.h"
#include "internal.h"
#include "support.h"

#if defined(__x86_64__) && defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

/* 2 x 2 x 1 image, one linear layer of 1-bit weights, 2 classes. */
static const unsigned char tiny[] = {
    'L',  'B',   'M',  0x1a, /* magic */
    2,    0,     0,    0, /* version */
    90,   0,     0,    0, /* size */
    0,    0,     0,    0, /* checksum: filled in below */
    't',  'i',   'n',  'y',  0, /* name */
    1,    'd',   'a',  't',  'a',  0,    'n',  'o',  'n',  'e',  0, /* 1 note */
    2,    1,     'n',  'o',  0,    'y',  'e',  's',  0, /* 2 classes, named */
    2,    2,     1, /* image: h, w, c */
    1, /* 1 layer */
    1,    1,     2,    2,    0xff, 0xff, 0xff, 0xff, 0x0f, 0xfe, 0xff,
    0xff, 0xff,  0x0f, /* tensor 1: 1 x 1 x 2, i32, INT32_MIN..INT32_MAX */
    1,    2 | 4, 0,    'f',  'c',  0, /* convolution, flat and square, source tensor 0, name */
    1,    1,     0, /* kernel 1, stride 1, padding 0 */
    1, /* 1 group */
    1,    4,     1, /* 1 bit; value = 2 * stored - 1: zigzag of 2 is 4, of -1 is 1 */
    0x03, 0x0c, /* + + - -, - - + + */
    1, /* epilogue: affine */
    16,   24,    2,    0,    0, /* mul in 16 bits, add in 24, fraction 2, the least shift 0, none above it */
    0x00, 0x01,  0x00, 0x00, 0x01, /* mul 256, add 65536 */
    0x00, 0xff,  0x00, 0x00, 0xff, /* mul -256, add -65536 */
};

/* 1 x 1 x 2 image: its channels swapped behind a zero, as fixed point, squared, through a sigmoid: 3 classes. */
static const unsigned char moved[] = {
    'L',  'B',  'M',  0x1a, 2,    0,    0,    0,    103,  0,    0,    0,    0,    0,    0,    0, /* as above */
    0,    0, /* name, no notes */
    3,    0, /* 3 classes without names */
    1,    1,    2, /* image */
    4, /* 4 layers */
    1,    1,    3,    0,    0,    0xfe, 3, /* tensor 1: u8, 0..255 */
    1,    1,    3,    2,    0,    0x80, 0x80, 0xf8, 0x0f, /* tensor 2: i32, 0..255 * 65536, zigzag 255 << 17 */
    1,    1,    3,    2,    0,    0xfe, 0xff, 0xff, 0xff, 0x0f, /* tensor 3: i32, 0..INT32_MAX */
    1,    1,    3,    2,    0,    0x80, 0x80, 0x08, /* tensor 4: i32, 0..65536 */
    5,    0,    0,    'c',  0, /* copy, no options, source tensor 0, name */
    1,    1,    2, /* one source, stride 1, two runs */
    1,    1,    1, /* behind a gap of 1: channel 1, one channel */
    0,    0,    1, /* then channel 0, one channel */
    2,    0,    1,    'p',  0, /* point, source tensor 1 */
    1,    24,   0,    0,    0,    0, /* affine: mul in 24 bits, add in 0, fraction 0, shift 0 */
    0,    0,    1,    0,    0,    1,    0,    0,    1, /* mul 65536 */
    6,    0,    2,    'm',  0, /* product, source tensor 2 */
    2, /* and tensor 2 */
    7,    0,    3,    's',  0, /* sigmoid, source tensor 3 */
};

/* Puts the right checksum in. */
static void seal(unsigned char *bytes, size_t size) {
    uint32_t crc = lbrt_crc32c(0, bytes, 12);
    crc = lbrt_crc32c(crc, bytes + 16, size - 16);
    for (int i = 0; i < 4; i++)
        bytes[12 + i] = (unsigned char)(crc >> (8 * i));
}

static void complete(unsigned char bytes[sizeof tiny]) {
    memcpy(bytes, tiny, sizeof tiny);
    seal(bytes, sizeof tiny);
}

static void by_hand(void **state) {
    (void)state;
    unsigned char bytes[sizeof tiny], memory[4096], arena[1024];
    complete(bytes);
    assert_int_equal(sizeof tiny, tiny[8]);
    lbrt_info info;
    lbrt_model *model;
    const char *what;
    int layer;
    const lbrt_status status = lbrt_probe_why(bytes, sizeof bytes, lbrt_best_isa(), &info, &what, &layer);
    if (status != LBRT_OK)
        fail_msg("%s: %s", lbrt_status_text(status), what != NULL ? what : "");
    assert_true(info.model_size <= sizeof memory);
    assert_int_equal(lbrt_open(bytes, sizeof bytes, memory, sizeof memory, &model), LBRT_OK);
    assert_string_equal(info.name, "tiny");
    assert_string_equal(lbrt_metadata(model, "data"), "none");
    assert_string_equal(lbrt_class_name(model, 1), "yes");
    assert_int_equal(info.has_float, 0);
    const lbrt_layer *l = &lbrt_model_graph(model)->layers[0];
    assert_int_equal(l->weights.bits, 1);
    assert_int_equal(l->epilogue.requant[1].mul, -256);
    assert_int_equal(l->epilogue.requant[1].add, -65536);
    const uint8_t image[] = {10, 20, 3, 4};
    int32_t scores[2];
    assert_int_equal(lbrt_run(model, image, 1, arena, sizeof arena, scores), LBRT_OK);
    assert_int_equal(scores[0], 23 * 256 + 65536);
    assert_int_equal(scores[1], 23 * 256 - 65536);
    assert_int_equal(lbrt_argmax(scores, 2), 0);
    const int32_t equal[] = {3, 7, 7, -1};
    assert_int_equal(lbrt_argmax(equal, 4), 1);
}

/* The caller may choose the instruction set: all that are there give the same scores, in the memory they say. */
static void chosen_sets(void **state) {
    (void)state;
    unsigned char bytes[sizeof tiny], memory[4096], arena[1024];
    complete(bytes);
    assert_true(lbrt_best_isa_unasked() <= lbrt_best_isa() && lbrt_best_isa() <= lbrt_processor_isa());
    for (int isa = LBRT_ISA_REF; isa <= (int)lbrt_best_isa(); isa++) {
        lbrt_info info;
        lbrt_model *model;
        assert_int_equal(lbrt_probe_why(bytes, sizeof bytes, (lbrt_isa)isa, &info, NULL, NULL), LBRT_OK);
        assert_true(info.model_size <= sizeof memory);
        assert_int_equal(lbrt_open_isa(bytes, sizeof bytes, (lbrt_isa)isa, memory, info.model_size - 1, &model), LBRT_ERR_MEMORY);
        assert_null(model);
        assert_int_equal(lbrt_open_isa(bytes, sizeof bytes, (lbrt_isa)isa, memory, info.model_size, &model), LBRT_OK);
        const uint8_t image[] = {10, 20, 3, 4};
        int32_t scores[2];
        assert_int_equal(lbrt_run(model, image, 1, arena, sizeof arena, scores), LBRT_OK);
        assert_int_equal(scores[0], 23 * 256 + 65536);
        assert_int_equal(scores[1], 23 * 256 - 65536);
    }
    assert_string_equal(lbrt_isa_name(LBRT_ISA_REF), "ref");
    static const int none[] = {LBRT_LAST_ISA + 1, -1, 1000};
    for (size_t i = 0; i < LB_COUNT(none); i++) {
        lbrt_info info;
        lbrt_model *model = (lbrt_model *)memory;
        assert_string_equal(lbrt_isa_name((lbrt_isa)none[i]), "ref");
        assert_int_equal(lbrt_probe_why(bytes, sizeof bytes, (lbrt_isa)none[i], &info, NULL, NULL), LBRT_ERR_ARGUMENT);
        assert_int_equal(lbrt_open_isa(bytes, sizeof bytes, (lbrt_isa)none[i], memory, sizeof memory, &model), LBRT_ERR_ARGUMENT);
        assert_null(model);
    }
    const char *what = "";
    int layer = 0;
    assert_int_equal(lbrt_probe_why(bytes, sizeof bytes, LBRT_ISA_REF, NULL, &what, &layer), LBRT_ERR_ARGUMENT);
    assert_true(what == NULL && layer == -1);
}

#if defined(__x86_64__) && defined(__linux__)
/* What may be done where arch_prctl, by which AMX is asked for, ends the process. */
static int works_unasked(void) {
    unsigned char bytes[sizeof tiny], memory[4096], arena[1024];
    const lbrt_isa isas[] = {LBRT_ISA_REF, lbrt_best_isa_unasked()};
    const uint8_t image[] = {10, 20, 3, 4};
    lbrt_info best;
    complete(bytes);
    int works = lbrt_probe(bytes, sizeof bytes, &best) == LBRT_OK;
    for (size_t i = 0; i < LB_COUNT(isas); i++) {
        lbrt_info info;
        lbrt_model *model;
        int32_t scores[2];
        works &= lbrt_probe_why(bytes, sizeof bytes, isas[i], &info, NULL, NULL) == LBRT_OK &&
                 lbrt_open_isa(bytes, sizeof bytes, isas[i], memory, sizeof memory, &model) == LBRT_OK &&
                 lbrt_run(model, image, 1, arena, sizeof arena, scores) == LBRT_OK && scores[0] == 23 * 256 + 65536;
    }
    return works;
}

static void sandboxed(void **state) {
    (void)state;
    enum { WORKS, FAILS, NO_SANDBOX };
    int status;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                       BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 1),
                                       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                                       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        const struct sock_fprog program = {LB_COUNT(filter), filter};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
            _exit(NO_SANDBOX);
        _exit(works_unasked() ? WORKS : FAILS);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NO_SANDBOX) {
        print_message("skipped: this system has no seccomp filters\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), WORKS);
}
#define SANDBOXED cmocka_unit_test(sandboxed),
#else
#define SANDBOXED
#endif

static void moved_by_hand(void **state) {
    (void)state;
    unsigned char bytes[sizeof moved], memory[8192], arena[1024];
    memcpy(bytes, moved, sizeof moved);
    seal(bytes, sizeof bytes);
    lbrt_info info;
    lbrt_model *model;
    const char *what;
    int layer;
    const lbrt_status status = lbrt_probe_why(bytes, sizeof bytes, lbrt_best_isa(), &info, &what, &layer);
    if (status != LBRT_OK)
        fail_msg("layer %d: %s: %s", layer, lbrt_status_text(status), what != NULL ? what : "");
    assert_true(info.model_size <= sizeof memory);
    assert_int_equal(lbrt_open(bytes, sizeof bytes, memory, sizeof memory, &model), LBRT_OK);
    const uint8_t images[] = {1, 2, 200, 0};
    int32_t scores[6];
    assert_int_equal(lbrt_run(model, images, 2, arena, sizeof arena, scores), LBRT_OK);
    const int32_t want[] = {32768, 64357, 47911, 32768, 32768, 65536}; /* sigmoids of 0, 4, 1; of 0, 0, 32767.99 */
    assert_memory_equal(scores, want, sizeof want);
}

/* The reason and the layer come with a rejected field. */
static void why(void **state) {
    (void)state;
    static const struct {
        size_t at;
        unsigned char value;
        int layer;
        const char *what;
    } cases[] = {
        {16, 7, -1, "a text with control characters"},
        {32, 0, -1, "the number of classes"},
        {41, 0, -1, "a tensor's height"},
        {44, 0, -1, "the number of layers"},
        {48, 3, -1, "the output is not one 32-bit score per class"},
        {59, 9, 0, "a layer's operator"},
        {60, 16, 0, "a layer's options"},
        {61, 1, 0, "a layer's source"},
        {65, 2, 0, "kernel, stride and padding do not give the stated shape"},
        {68, 3, 0, "groups that do not divide the channels"},
        {69, 9, 0, "weights of other than 1 to 8 or 32 bits"},
        {72, 0x13, 0, "unused bits that are not 0"},
        {74, 128, 0, "a combination of epilogue flags"},
        {75, 33, 0, "a multiply-shift block's header"},
        {76, 63, 0, "a multiply-shift block's header"},
        {78, 47, 0, "a multiply-shift block's header"},
        {79, 7, 0, "a multiply-shift block's header"},
        {79, 6, 0, "data behind the end"},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        unsigned char bytes[sizeof tiny];
        lbrt_info info;
        const char *what;
        int layer;
        complete(bytes);
        bytes[cases[i].at] = cases[i].value;
        assert_int_equal(lbrt_probe_why(bytes, sizeof bytes, lbrt_best_isa(), &info, &what, &layer), LBRT_ERR_CHECKSUM);
        assert_null(what);
        seal(bytes, sizeof bytes);
        assert_int_equal(lbrt_probe_why(bytes, sizeof bytes, lbrt_best_isa(), &info, &what, &layer), LBRT_ERR_FIELD);
        if (what == NULL || strcmp(what, cases[i].what) != 0 || layer != cases[i].layer)
            fail_msg("byte %d: \"%s\" in layer %d, not \"%s\"", (int)cases[i].at, what != NULL ? what : "", layer, cases[i].what);
    }
}

/* What is wrong with a header, in the page's order: each with all that comes after it wrong too. */
static void headers(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size, zeros; /* of these bytes, and behind them */
        lbrt_status status;
    } cases[] = {
        {"", 0, 0, LBRT_ERR_TRUNCATED},
        {"XY", 2, 0, LBRT_ERR_MAGIC},
        {"L", 1, 0, LBRT_ERR_TRUNCATED},
        {"LBX", 3, 0, LBRT_ERR_MAGIC},
        {"XBM\x1a\2\0\0\0\0\0", 10, 0, LBRT_ERR_MAGIC},
        {"XBM\x1a\3\0\0\0\xc8\0\0\0", 12, 78, LBRT_ERR_MAGIC},
        {"LBM\x1a\3\0\0\0\xc8\0\0", 11, 4, LBRT_ERR_TRUNCATED},
        {"LBM\x1a\3\0\0\0\xc8\0\0\0", 12, 78, LBRT_ERR_VERSION},
        {"LBM\x1a\3\0\0\0\0\0\0\0", 12, 78, LBRT_ERR_VERSION},
        {"LBM\x1a\2\0\0\0\xc8\0\0\0", 12, 78, LBRT_ERR_TRUNCATED},
        {"LBM\x1a\2\0\0\0\x59\0\0\0", 12, 78, LBRT_ERR_FIELD},
        {"LBM\x1a\2\0\0\0\x0f\0\0\0", 12, 78, LBRT_ERR_FIELD},
        {"LBM\x1a\2\0\0\0\x5a\0\0\0", 12, 78, LBRT_ERR_CHECKSUM},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        unsigned char bytes[128] = {0};
        lbrt_info info;
        memcpy(bytes, cases[i].bytes, cases[i].size);
        const lbrt_status status = lbrt_probe(bytes, cases[i].size + cases[i].zeros, &info);
        if (status != cases[i].status)
            fail_msg("case %d: %s", (int)i, lbrt_status_text(status));
    }
}

/* The model `moved` with other bytes in place of `count`, `at` bytes behind the mark: what is wrong with it, "" if nothing. */
static const char *replaced(const char *mark, size_t mark_size, size_t at, size_t count, const char *by, size_t by_size) {
    unsigned char bytes[sizeof moved + 16];
    size_t place = 0;
    while (place + mark_size <= sizeof moved && memcmp(moved + place, mark, mark_size) != 0)
        place++;
    place += at;
    assert_true(place + count <= sizeof moved);
    const size_t rest = sizeof moved - place - count, size = place + by_size + rest;
    memcpy(bytes, moved, place);
    memcpy(bytes + place, by, by_size);
    memcpy(bytes + place + by_size, moved + place + count, rest);
    bytes[8] = (unsigned char)size;
    seal(bytes, size);
    lbrt_info info;
    const char *what;
    const lbrt_status status = lbrt_probe_why(bytes, size, LBRT_ISA_REF, &info, &what, NULL);
    assert_true(status == LBRT_OK || (status == LBRT_ERR_FIELD && what != NULL));
    return status == LBRT_OK ? "" : what;
}

/* A u8 is one byte, no `num` that goes on, and no layer has the float domain that the page does not give it. */
static void bytes_and_domains(void **state) {
    (void)state;
#define COPY "\5\0\0c"
#define POINT "\2\0\1p\0"
#define PRODUCT "\6\0\2m"
#define SIGMOID "\7\0\3s"
    assert_string_equal(replaced(COPY, 4, 0, 1, "\5", 1), "");
    assert_string_equal(replaced(COPY, 4, 0, 1, "\x85\0", 2), "a layer's operator");
    assert_string_equal(replaced(COPY, 4, 0, 1, "\x85\x80\x80\x80\0", 5), "a layer's operator");
    /* Residual: tensor 1, as fixed point: all is well but the stated range. */
    assert_string_equal(replaced(POINT, 5, 5, 1, "\3\1\0", 3), "results that could leave the stated range");
    assert_string_equal(replaced(POINT, 5, 5, 1, "\3\1\x80\0", 4), "whether a residual is scaled");
    assert_string_equal(replaced(POINT, 5, 5, 1, "\3\1\2", 3), "whether a residual is scaled");
    assert_string_equal(replaced(COPY, 4, 1, 1, "\1", 1), "a result of another type than its source");
    assert_string_equal(replaced(PRODUCT, 4, 1, 1, "\1", 1), "a result of another type than its source");
    assert_string_equal(replaced(SIGMOID, 4, 1, 1, "\1", 1), "a result of another type than its source");
}

/* The largest shift is 46, the least of the block and a channel's own together; an addend has 61 bits with the zeros that its shift
 * puts behind it. */
static void multiply_shifts(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *what; /* 24 bits a channel: mul, shift, add, as the block's header says */
    } cases[] = {
        {"\1\x12\0\0\x2e\6\0\0\1\0\0\1\0\0\1", ""}, /* mul 65536, shift 46 */
        {"\1\x12\0\0\x2e\6\0\0\1\0\0\1\0\0\5", "a multiply-shift out of range"}, /* 47 */
        {"\1\x12\0\0\x2e\6\0\0\1\0\0\xfd\0\0\1", "a multiply-shift out of range"}, /* 46 + 63 */
        {"\1\x12\0\0\0\6\0\0\1\0\0\1\0\0\xbd", "a multiply-shift out of range"}, /* 47 of its own */
        {"\1\1\x11\0\x2e\6\x80\xff\x3f\x80\xff\x3f\x80\xff\x3f", ""}, /* mul 0, add 32767 << 46 */
        {"\1\1\x11\0\x2e\6\x80\xff\x3f\x80\xff\x3f\0\0\x40", "a multiply-shift out of range"}, /* 32768 << 46 */
        {"\1\1\x11\0\x2e\6\0\0\xc0\x80\xff\x3f\x80\xff\x3f", "a multiply-shift out of range"}, /* -32768 << 46 */
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++)
        assert_string_equal(replaced(POINT, 5, 5, 15, cases[i].bytes, 15), cases[i].what);
}

/* A copy's runs stay inside their source, of 2 channels, and the result, of 3. */
static void runs_of_channels(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *what; /* of each of two runs: gap before it, first channel in the source, channels */
    } cases[] = {
        {"\0\0\2\0\1\1", ""},
        {"\0\0\1\0\0\2", ""},
        {"\1\0\1\0\0\2", "a run behind the last channel"},
        {"\2\0\2\0\0\1", "a run behind the last channel"},
        {"\2\0\1\0\0\1", "a run behind the last channel"},
        {"\4\0\1\0\0\1", "a run's place"},
        {"\1\0\1\2\0\1", "a run's place"},
        {"\0\2\1\0\0\1", "a run's first channel"},
        {"\0\1\2\0\0\1", "a run's length"},
        {"\0\1\0\0\0\1", "a run's length"},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++)
        assert_string_equal(replaced(COPY, 4, 8, 6, cases[i].bytes, 6), cases[i].what);
}

/* Each rule of the page by a file that breaks it alone, beside one that just keeps it. */
static void rules(void **state) {
    (void)state;
#define TENSOR1 "\1\1\3\0\0\xfe\3"
#define TENSOR4 "\1\1\3\2\0\x80\x80\x08"
#define TENSORS "\1\1\3\2\0\x80\x80\xf8\x0f\1\1\3\2\0\xfe\xff\xff\xff\x0f" TENSOR4 /* 2 to 4 */
#define REQUANTS "\x18\0\0\0\0\0\0\1\0\0\1\0\0\1" /* a block's header, three times mul 65536 */
#define REQUANTS2 "\x18\0\0\0\0\0\0\1\0\0\1" /* of two */
#define REALS4 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define OF_TEXT(text) text, sizeof text - 1
    static const struct {
        const char *mark;
        size_t mark_size, count; /* bytes behind the mark's begin that are replaced */
        const char *by;
        size_t by_size;
        const char *what;
    } cases[] = {
        /* Tensors, texts and the end. */
        {OF_TEXT("\1\1\2\4"), 3, OF_TEXT("\x80\x80\1\x80\x80\1\1"), "a source of another shape or type"},
        {OF_TEXT("\1\1\2\4"), 3, OF_TEXT("\x80\x80\1\x80\x80\1\2"), "a tensor too large"},
        {OF_TEXT(TENSOR1), 7, OF_TEXT("\1\1\3\0\0\x80\4"), "a tensor's range"}, /* 0..256 */
        {OF_TEXT(TENSOR1), 7, OF_TEXT("\1\1\3\0\1\xfe\3"), "a tensor's range"}, /* -1..255 */
        {OF_TEXT(TENSOR1), 7, OF_TEXT("\1\1\3\0\2\0"), "a tensor's range"}, /* 1..0 */
        {OF_TEXT(TENSOR4), 8, OF_TEXT("\1\1\3\2\0\xfe\xff\7"), "results that could leave the stated range"}, /* 0..65535 */
        {OF_TEXT(SIGMOID "\0"), 5, OF_TEXT(SIGMOID "\0\0"), "data after the last layer"},
        {OF_TEXT(SIGMOID "\0"), 5, OF_TEXT(SIGMOID), "a text without end"},
        /* Layers that do not fit their sources. */
        {OF_TEXT(COPY), 14, OF_TEXT("\0\0\0c\0"), "an input layer that does not fit the image"},
        {OF_TEXT(POINT), 20, OF_TEXT("\0\0\1p\0"), "an input layer that does not fit the image"},
        {OF_TEXT(TENSOR1), 48, OF_TEXT("\1\1\2\0\0\x1e" TENSORS "\0\0\0c\0\0\x1e" REQUANTS2),
         "a layer that changes the shape"}, /* the next one */
        {OF_TEXT(TENSOR1), 48, OF_TEXT("\1\1\2\0\0\x1e" TENSORS "\0\0\0c\0\0\x20" REQUANTS2),
         "results that could leave the stated range"}, /* codes of 0..16 in 0..15 */
        {OF_TEXT(TENSOR1), 48, OF_TEXT("\1\1\2\0\2\x1e" TENSORS "\0\0\0c\0\0\x1e" REQUANTS2),
         "results that could leave the stated range"}, /* of 0..15 in 1..15 */
        {OF_TEXT(TENSOR1), 48, OF_TEXT("\1\1\2\3" TENSORS "\0\1\0c\0" REALS4), "an integer layer with a float source"},
        {OF_TEXT(COPY), 14, OF_TEXT("\2\0\0c\0\1" REQUANTS), "a layer that changes the shape"},
        {OF_TEXT(COPY), 14, OF_TEXT("\3\4\0c\0\1\1\0"), "a layer that changes the channels"},
        {OF_TEXT(POINT), 20, OF_TEXT("\5\0\1p\0\1\1\1\0\0\3"), "a source of another shape or type"},
        {OF_TEXT(SIGMOID), 4, OF_TEXT("\7\0\1s"), "a sigmoid that does not fit its source"},
        {OF_TEXT(PRODUCT "\0\2"), 6, OF_TEXT("\6\0\1m\0\1"), "a product that does not fit its sources"},
        {OF_TEXT(PRODUCT "\0\2"), 6, OF_TEXT("\6\0\2m\0\1"), "a product that does not fit its sources"},
        {OF_TEXT(POINT), 5, OF_TEXT("\2\4\1p\0"), "a layer's options"},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\3\0\0" REQUANTS), "a residual of another shape or type"},
        /* Pools and kernels. */
        {OF_TEXT(POINT), 20, OF_TEXT("\4\4\1p\0\1\1\0"), ""},
        {OF_TEXT(POINT), 20, OF_TEXT("\4\4\1p\0\1\3\1"), "a pool's padding is as large as its window"},
        {OF_TEXT(POINT), 20, OF_TEXT("\4\x24\1p\0\1\1\0"), "a pool of what lies inside that is too large, or of bytes"},
        {OF_TEXT(POINT), 20, OF_TEXT("\1\4\1p\0\1\1\0\3\1\2\xfc\xff\3\1\1\1\0"), ""}, /* weights of 32767 */
        {OF_TEXT(POINT), 20, OF_TEXT("\1\4\1p\0\1\1\0\3\1\2\xfe\xff\3\1\1\1\0"), "weights that do not fit 16 bits"},
        {OF_TEXT(POINT), 20, OF_TEXT("\1\4\1p\0\1\1\0\3\1\1\xfd\xff\3\1\1\1\0"), "weights that do not fit 16 bits"},
        {OF_TEXT(POINT), 20, OF_TEXT("\1\4\1p\0\1\1\0\3\x20"), "float weights in an integer layer"},
        {OF_TEXT(POINT), 20, OF_TEXT("\1\6\1p\0\1\2\0"), "a flat layer with a kernel"},
        {OF_TEXT(POINT), 20, OF_TEXT("\1\x0c\1p\0\2\1\0\xff\xff\3\0"), "a kernel that spans too much"},
        {OF_TEXT(POINT), 20, OF_TEXT("\1\x0c\1p\0\1\1\0\0\0"), "a layer's options"},
        {OF_TEXT(PRODUCT "\0\2"), 6, OF_TEXT("\1\4\2m\0\1\1\0\3\1\2\xfe\1\1\1\1\0"), ""}, /* 255 * 65536 * 128 */
        {OF_TEXT(PRODUCT "\0\2"), 6, OF_TEXT("\1\4\2m\0\1\1\0\3\1\2\x80\2\1\1\1\0"), "sums that could leave 32 bits"},
        {OF_TEXT(PRODUCT "\0\2"), 6, OF_TEXT("\1\4\2m\0\1\1\0\3\1\2\x80\2\1\1\1\1\1\0\0\0\0"), "sums that could leave 32 bits"},
        /* Epilogues. */
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\4\2\2"), ""},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\4\2\0"), "a clamp whose range is empty"},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x08\2\0"), "codes whose range is empty"},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x40\0\4\0\0\0"), "a threshold block's header"},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x40\0\4\0\x21\0"), "a threshold block's header"},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x40\0\4\0\1\x21"), "a threshold block's header"},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x40\0\x1e\0\1\0\0"), ""}, /* 15 thresholds, all 0 */
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x40\0\x20\0\1\0\0"), "a threshold block's header"},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x40\0\4\0\x20\1\xfe\xff\xff\x7f\xfd\xff\xff\xff\xfa\xff\xff\xff\3"), ""},
        {OF_TEXT(POINT), 20, OF_TEXT("\2\0\1p\0\x40\0\4\0\x20\1\xff\xff\xff\x7f\xfd\xff\xff\xff\xfa\xff\xff\xff\3"),
         "thresholds out of range"},
    };
    for (size_t i = 0; i < LB_COUNT(cases); i++) {
        const char *what = replaced(cases[i].mark, cases[i].mark_size, 0, cases[i].count, cases[i].by, cases[i].by_size);
        if (strcmp(what, cases[i].what) != 0)
            fail_msg("case %d: \"%s\", not \"%s\"", (int)i, what, cases[i].what);
    }
}

static int write_file(const char *dir, const char *name, const void *data, size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    const int ok = f != NULL && fwrite(data, 1, size, f) == size;
    return (f != NULL && fclose(f) == 0) && ok;
}

static int write_files(const char *dir) {
    unsigned char bytes[sizeof tiny], other[sizeof moved];
    static const struct {
        const char *name, *text;
        size_t size;
    } images[] = {{"image.pgm", "P5\n2 2\n255\n\x0a\x14\x03\x04", 15},
                  {"image.raw", "\x0a\x14\x03\x04", 4},
                  {"wide.pgm", "P5\n3 2\n255\n123456", 17},
                  {"comment.pgm", "P5 # made\r\n#\n# by 9 hands\n2\t2\n#255\n255\n\x0a\x14\x03\x04", 43},
                  {"word.pgm", "P5\n2 2\n65535\n\0\x0a\0\x14\0\x03\0\x04", 21},
                  {"short.pgm", "P5\n2 2\n255\n\x0a\x14\x03", 14},
                  {"long.pgm", "P5\n2 2\n255\n\x0a\x14\x03\x04\n", 16},
                  {"empty.pgm", "P5\n2 2\n255", 10},
                  {"mark.raw", "P5\n2", 4}};
    complete(bytes);
    memcpy(other, moved, sizeof moved);
    seal(other, sizeof other);
    int ok = write_file(dir, "tiny.lbm", bytes, sizeof bytes) && write_file(dir, "moved.lbm", other, sizeof other);
    for (size_t i = 0; i < LB_COUNT(images); i++)
        ok &= write_file(dir, images[i].name, images[i].text, images[i].size);
    return !ok;
}

int main(int argc, char **argv) {
    if (argc == 2)
        return write_files(argv[1]);
    const struct CMUnitTest tests[] = {SANDBOXED cmocka_unit_test(by_hand), cmocka_unit_test(chosen_sets),
                                       cmocka_unit_test(moved_by_hand), cmocka_unit_test(why),
                                       cmocka_unit_test(headers), cmocka_unit_test(bytes_and_domains),
                                       cmocka_unit_test(multiply_shifts), cmocka_unit_test(runs_of_channels),
                                       cmocka_unit_test(rules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

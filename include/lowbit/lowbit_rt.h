/* liblowbit_rt: runs a packed model (.lbm, docs/format.md). C99, freestanding: no allocation, no libc beyond memcpy, memset, no
 * float unless the model has float layers. All memory is the caller's.
 *
 *     lbrt_info info;
 *     lbrt_probe(file, file_size, &info);                        // checks every field of the file
 *     lbrt_model *model;
 *     lbrt_open(file, file_size, memory, info.model_size, &model);   // `memory` and `file` must outlive the model
 *     lbrt_run(model, images, 1, arena, lbrt_arena_size(model, 1), scores);
 *
 * AMX. On processors that have it, lbrt_open and lbrt_best_isa ask Linux to let the process use it: the one system call of this
 * library, arch_prctl(ARCH_REQ_XCOMP_PERM), which a sandbox must allow. From then on signal frames have room for its 8 KB of
 * registers: sigaltstack refuses stacks too small for that (getauxval(AT_MINSIGSTKSZ) is the limit). Linux for its part refuses if
 * a thread has such a stack already; then other kernels run. A program that wants none of this takes an instruction set that needs
 * no leave: lbrt_probe_why and lbrt_open_isa with lbrt_best_isa_unasked().
 *
 * Scores are the network's outputs (logits) as 32-bit fixed point with 16 fractional bits, equal bit for bit on every machine,
 * kernel and thread count; for models with float layers (lbrt_info.has_float) in the floating-point environment that C programs
 * start in: rounding to nearest, no denormal flushed to zero (programs linked with -ffast-math start in another). */
#ifndef LOWBIT_RT_H
#define LOWBIT_RT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LBRT_VERSION "0.1.0"

/* That of the library which runs: LBRT_VERSION where it was compiled. Before 1.0 what differs in the second number does not fit. */
const char *lbrt_version(void);

/* Instruction sets with kernels of their own, those of the architecture that this is compiled for, each including those before it.
 * The scores are the same with all of them. */
typedef enum lbrt_isa {
    LBRT_ISA_REF, /* plain C */
#if defined(__aarch64__)
    LBRT_ISA_NEON,
    LBRT_ISA_DOTPROD /* the dot product instructions of ARMv8.2 */
#else
    LBRT_ISA_AVX2,
    LBRT_ISA_AVX512, /* F, BW, VL, DQ, VNNI */
    LBRT_ISA_AVX512VBMI, /* and VBMI */
    LBRT_ISA_AMX /* and AMX-TILE, AMX-INT8, which the operating system lets this process use */
#endif
} lbrt_isa;

#define LBRT_SCORE_ONE 65536   /* a score of 1.0 */
#define LBRT_SCORE_LIMIT 32768 /* beyond this, above and below 0, scores are cut off; `lowbit pack` says if they can be so large */

typedef enum lbrt_status {
    LBRT_OK = 0,
    LBRT_ERR_TRUNCATED, /* the file ends before what its header says */
    LBRT_ERR_MAGIC, /* not a packed model */
    LBRT_ERR_VERSION, /* a newer or older format than this library reads */
    LBRT_ERR_CHECKSUM, /* altered */
    LBRT_ERR_FIELD, /* a field's value is impossible */
    LBRT_ERR_MEMORY, /* the memory given is too small */
    LBRT_ERR_ARGUMENT
} lbrt_status;

/* One line per status, never NULL. */
const char *lbrt_status_text(lbrt_status status);

/* The best that the machine has. Asks Linux for AMX where the processor has it (above), for the whole process. */
lbrt_isa lbrt_best_isa(void);

/* The best of those that need no leave of the operating system: never AMX. Nothing is asked, the process stays as it is. */
lbrt_isa lbrt_best_isa_unasked(void);

const char *lbrt_isa_name(lbrt_isa isa); /* "ref", "avx2", "avx512", "avx512vbmi", "amx"; "ref", "neon", "dotprod" */

typedef struct lbrt_info {
    int ih, iw, ic; /* input: uint8 images (mb, ih, iw, ic) as decoded, no normalisation needed */
    int classes; /* scores per image */
    int layers;
    size_t model_size; /* bytes that lbrt_open needs, alignment included */
    int has_float; /* 1 if some layer computes in float */
    const char *name; /* network's name; 0-terminated, inside the file */
} lbrt_info;

typedef struct lbrt_model lbrt_model;

/* Checks the whole file (magic, version, checksum, every length, index, range) and describes it; after an error *info is all 0, its
 * name "". Nothing is asked of the operating system: info->model_size is enough with AMX and without. */
lbrt_status lbrt_probe(const void *file, size_t size, lbrt_info *info);

/* As lbrt_probe, then builds the model in `memory` (at least info.model_size bytes, any alignment; else LBRT_ERR_MEMORY). The file
 * and the memory must stay as they are while the model is used. *model is NULL after an error. */
lbrt_status lbrt_open(const void *file, size_t size, void *memory, size_t memory_size, lbrt_model **model);

/* As lbrt_probe, for the given instruction set, which this machine need not have (info->model_size depends on it). Says on
 * LBRT_ERR_FIELD what is wrong (static text; NULL: nothing to say) and in which layer (-1: in none); both pointers may be NULL. */
lbrt_status lbrt_probe_why(const void *file, size_t size, lbrt_isa isa, lbrt_info *info, const char **what, int *layer);

/* As lbrt_open, with the kernels of the given instruction set, the one that was probed for. The processor must have it:
 * lbrt_best_isa(), lbrt_best_isa_unasked() or one before it; others are opened, but running them is an illegal instruction.
 * LBRT_ERR_ARGUMENT: no such set. */
lbrt_status lbrt_open_isa(const void *file, size_t size, lbrt_isa isa, void *memory, size_t memory_size, lbrt_model **model);

void lbrt_model_info(const lbrt_model *model, lbrt_info *info);

/* Name of class i ("" if the model has no names). Borrowed from the file. */
const char *lbrt_class_name(const lbrt_model *model, int i);

/* What the model's maker noted, e.g. key "data.name" -> "fashion-mnist"; NULL if there is no such key. Borrowed from the file. */
const char *lbrt_metadata(const lbrt_model *model, const char *key);

/* Note i as key and value; 0 after the last. */
int lbrt_metadata_at(const lbrt_model *model, int i, const char **key, const char **value);

/* Bytes of scratch that a run of `mb` images needs, alignment included. 0 if mb is not positive or too large. A few images run at a
 * time, as many as have 512 KB of tensors (at least one), so that from there on a larger batch needs no more. */
size_t lbrt_arena_size(const lbrt_model *model, int mb);

/* images: (mb, ih, iw, ic) uint8; scores: (mb, classes). Nothing is kept in the arena between runs. A model is never written after
 * lbrt_open: several threads may run it at the same time, each with its own arena. LBRT_ERR_ARGUMENT: a NULL, or mb for which
 * lbrt_arena_size is 0; LBRT_ERR_MEMORY: the arena is smaller than that. */
lbrt_status lbrt_run(const lbrt_model *model, const uint8_t *images, int mb, void *arena, size_t arena_size, int32_t *scores);

/* Threads of the caller's choosing, to share the layers of one run: the same scores. */
typedef struct lbrt_threads {
    int count; /* pieces that may run at the same time, at least 1 */
    /* Calls task(arg, i) for every i of 0..count-1, in any order, on any threads, and returns when all have returned. This count is
     * at most the one above. */
    void (*parallel_for)(void *user, int count, void (*task)(void *arg, int i), void *arg);
    void *user; /* handed to parallel_for */
} lbrt_threads;

/* As lbrt_arena_size and lbrt_run; `count` is that of the threads. A layer too small to gain runs in the calling thread. threads
 * NULL: all do. */
size_t lbrt_arena_size_threads(const lbrt_model *model, int mb, int count);
lbrt_status lbrt_run_threads(const lbrt_model *model, const uint8_t *images, int mb, void *arena, size_t arena_size,
                             int32_t *scores, const lbrt_threads *threads);

/* Index of the largest of `count` >= 1 scores (the first of equals). */
int lbrt_argmax(const int32_t *scores, int count);

#ifdef __cplusplus
}
#endif
#endif

/* What the runtime's own files share: the opened model, the kernel table, memory carving. */
#ifndef LBRT_INTERNAL_H
#define LBRT_INTERNAL_H

#include <string.h>

#include "model.h"

#define LBRT_ALIGN 64

#if defined(__aarch64__)
#define LBRT_LAST_ISA LBRT_ISA_DOTPROD
#else
#define LBRT_LAST_ISA LBRT_ISA_AMX
#endif

/* The sources in simd/ are compiled once per instruction set LBRT_VARIANT (cmake/runtime_kernels.cmake) and say lbrt_avx2_dot,
 * lbrt_neon_dot and so on. So are some of ref's: lbrt_avx2_conv for lbrt_ref_conv. */
#ifdef LBRT_VARIANT
#define LBRT_JOIN_(a, b, c) a##b##_##c
#define LBRT_JOIN(a, b, c) LBRT_JOIN_(a, b, c)
#define LBRT_NAME(name) LBRT_JOIN(lbrt_, LBRT_VARIANT, name)
#define lbrt_ref_input LBRT_NAME(input)
#define lbrt_ref_conv LBRT_NAME(conv)
#define lbrt_ref_depthwise LBRT_NAME(depthwise)
#define lbrt_ref_point LBRT_NAME(point)
#define lbrt_ref_maxpool LBRT_NAME(maxpool)
#define lbrt_ref_sumpool LBRT_NAME(sumpool)
#define lbrt_ref_mul LBRT_NAME(mul)
#define lbrt_ref_sigmoid LBRT_NAME(sigmoid)
#define lbrt_accepts_all LBRT_NAME(accepts_all)
#define lbrt_epilogue_row LBRT_NAME(epilogue_row)
#define lbrt_widen32 LBRT_NAME(widen32)
#define lbrt_widen16 LBRT_NAME(widen16)
#define lbrt_narrow LBRT_NAME(narrow)
#define LBRT_PLAIN "plain"
#else
#define LBRT_PLAIN "ref"
#endif

/* A layer with the tensors it touches. */
typedef struct lbrt_site {
    const lbrt_layer *layer;
    const lbrt_tensor *src, *dst;
    const lbrt_tensor *res; /* NULL: no residual */
} lbrt_site;

/* Tensors of a layer that are planes: an image's bytes are (c, h, w) and not (h, w, c). */
enum { LBRT_PLANAR_SRC = 1, LBRT_PLANAR_DST = 2, LBRT_PLANAR_RES = 4 };

/* One piece of work: the image rows row0..row1-1 of dst, counted over the whole batch (row = image * dst->h + y). Pointers are to
 * the whole batch's tensors. Pieces are independent, so that threads can share a layer; each needs its own scratch. */
typedef struct lbrt_call {
    lbrt_site site;
    uint32_t planar; /* LBRT_PLANAR_..: which tensors are planes, of those that the kernel says can be */
    const void *prepared; /* what prepare() made */
    const void *src, *res;
    const void *sources[LBRT_MAX_SOURCES]; /* copy, mul */
    const lbrt_tensor *tensors; /* the graph's */
    void *dst, *scratch;
    size_t row0, row1;
} lbrt_call;

/* One implementation of one operator. Of the chosen instruction set's kernels that accept a layer, the one with the least cost runs
 * it, if there is none ref. The ref kernels accept everything and are the specification: every other kernel gives the same bits.
 * Functions see only shapes, ranges and scalars of the layer until prepare(). NULL functions: nothing to do. */
typedef struct lbrt_kernel {
    const char *name;
    lbrt_op op;
    int (*accepts)(const lbrt_site *site);
    size_t (*prepared_size)(const lbrt_site *site); /* bytes of model memory; SIZE_MAX: too large */
    void (*prepare)(const lbrt_site *site, void *prepared);
    size_t (*scratch_size)(const lbrt_site *site); /* bytes of arena for one call, any batch size */
    void (*run)(const lbrt_call *call);
    size_t (*cost)(const lbrt_site *site); /* cycles per result pixel, from measurements; NULL: more than any */
    uint32_t (*planar)(const lbrt_site *site); /* LBRT_PLANAR_..: what it may be given as planes, any of them; NULL: nothing */
} lbrt_kernel;

/* The best that the processor has, and its operating system could let a process use: with AMX, whether it does or not. */
lbrt_isa lbrt_processor_isa(void);

const lbrt_kernel *lbrt_select(const lbrt_site *site, lbrt_isa isa);

/* Kernel i of those that are not ref, and the first instruction set that has it; NULL after the last. */
const lbrt_kernel *lbrt_fast_kernel(size_t i, lbrt_isa *isa);

/* Ref kernels. */
int lbrt_accepts_all(const lbrt_site *site);
extern const lbrt_kernel lbrt_ref_input, lbrt_ref_input_float, lbrt_ref_conv, lbrt_ref_depthwise, lbrt_ref_conv_float,
    lbrt_ref_point, lbrt_ref_point_float, lbrt_ref_maxpool, lbrt_ref_maxpool_float, lbrt_ref_sumpool, lbrt_ref_sumpool_float,
    lbrt_ref_copy, lbrt_ref_mul, lbrt_ref_mul_float, lbrt_ref_sigmoid;

/* Kernels of each instruction set. */
#define LBRT_DECLARE(isa)                                                                                                         \
    extern const lbrt_kernel lbrt_##isa##_input, lbrt_##isa##_conv, lbrt_##isa##_depthwise, lbrt_##isa##_point,                   \
        lbrt_##isa##_maxpool, lbrt_##isa##_sumpool, lbrt_##isa##_mul, lbrt_##isa##_sigmoid, lbrt_##isa##_bytes_input,             \
        lbrt_##isa##_bytes_maxpool, lbrt_##isa##_bytes_sumpool, lbrt_##isa##_dot, lbrt_##isa##_dot_depthwise, lbrt_##isa##_lookup
LBRT_DECLARE(avx2);
LBRT_DECLARE(avx512);
LBRT_DECLARE(neon);
extern const lbrt_kernel lbrt_avx512_winograd, lbrt_avx512vbmi_lookup, lbrt_avx512vbmi_planes, lbrt_amx_tiles, lbrt_dotprod_dot,
    lbrt_dotprod_dot_depthwise;

typedef struct lbrt_step {
    const lbrt_kernel *kernel;
    void *prepared;
} lbrt_step;

/* Where a tensor lives in the arena: per image, in bytes; batches multiply both by mb. And how it lies there. */
typedef struct lbrt_slot {
    size_t offset, size;
    int32_t first, last; /* layers between which it is needed, both included */
    int32_t next; /* placed tensor with the next higher offset, -1: none */
    int32_t planar; /* (c, h, w) and not (h, w, c) */
} lbrt_slot;

struct lbrt_model {
    lbrt_info info;
    lbrt_graph graph;
    const lbrt_step *steps; /* (nlayers) */
    const lbrt_slot *slots; /* (ntensors) */
    size_t peak; /* arena bytes per image; SIZE_MAX: too large for this machine */
    size_t scratch; /* arena bytes of the hungriest kernel */
    const char *metadata; /* key, 0, value, 0, ... in the file */
    int nmetadata;
};

/* Fills slots (ntensors) and returns the arena's bytes per image, SIZE_MAX if that overflows. The image and the output have no
 * slot: they are the caller's. */
size_t lbrt_plan(const lbrt_graph *graph, lbrt_slot *slots);

/* Makes planes of the tensors that the kernel which writes them and all that read them take as such: slots[].planar. */
void lbrt_lay_out(const lbrt_graph *graph, const lbrt_step *steps, lbrt_slot *slots);

/* ---- Memory carving: the same code counts (base NULL) and hands out --------------------------------------------- */

static inline size_t lbrt_size_mul(size_t a, size_t b) { return b != 0 && a > SIZE_MAX / b ? SIZE_MAX : a * b; }
static inline size_t lbrt_size_add(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }

typedef struct lbrt_carve {
    uint8_t *base; /* aligned to LBRT_ALIGN, or NULL */
    size_t used; /* SIZE_MAX: overflow */
} lbrt_carve;

/* NULL when only counting. */
static inline void *lbrt_take(lbrt_carve *carve, size_t count, size_t size) {
    const size_t bytes = lbrt_size_mul(count, size), at = carve->used;
    carve->used = lbrt_size_add(at, lbrt_size_add(bytes, LBRT_ALIGN - 1));
    if (carve->used == SIZE_MAX)
        return NULL;
    carve->used &= ~(size_t)(LBRT_ALIGN - 1);
    return carve->base != NULL ? carve->base + at : NULL;
}

static inline uint8_t *lbrt_align_up(void *ptr) {
    const uintptr_t rest = (uintptr_t)ptr % LBRT_ALIGN;
    return (uint8_t *)ptr + (rest != 0 ? LBRT_ALIGN - rest : 0);
}

/* ---- Small helpers ------------------------------------------------------------------------------------------------ */

static inline size_t lbrt_type_size(int32_t type) { return type == LBRT_U8 || type == LBRT_I8 ? 1 : 4; }
static inline size_t lbrt_elements(const lbrt_tensor *t) { return (size_t)t->h * (size_t)t->w * (size_t)t->c; }
static inline size_t lbrt_tensor_bytes(const lbrt_tensor *t) { return lbrt_size_mul(lbrt_elements(t), lbrt_type_size(t->type)); }

static inline lbrt_site lbrt_site_of(const lbrt_graph *graph, int32_t layer) {
    const lbrt_layer *l = &graph->layers[layer];
    const int has_res = (l->epilogue.flags & LBRT_RESIDUAL) != 0;
    const lbrt_site site = {l, &graph->tensors[l->src], &graph->tensors[layer + 1],
                            has_res ? &graph->tensors[l->epilogue.residual] : NULL};
    return site;
}

/* Shape of a convolution's or pool's source as its kernel sees it. */
static inline lbrt_tensor lbrt_view(const lbrt_site *site) {
    lbrt_tensor t = *site->src;
    if (site->layer->flat) {
        t.c *= t.h * t.w;
        t.h = t.w = 1;
    }
    return t;
}

/* Grows [*lo, *hi] by what channel c of an integer layer with an epilogue can give; 0: its sums could leave 32 bits. Its requant
 * (with LBRT_AFFINE) is given apart because loading has it before it has memory. */
int lbrt_channel_range(const lbrt_site *site, int32_t c, const lbrt_requant *requant, int32_t *lo, int32_t *hi);

/* How many channels lbrt_channel_range must see: all give what the first one gives if nothing is per channel but, perhaps,
 * thresholds. A file has something for each of the channels counted here. */
int32_t lbrt_range_channels(const lbrt_site *site);

/* The interval a pool, copy, product or sigmoid gives; needs no weights. sources: copy, mul: the tensors of layer->sources. */
void lbrt_bare_range(const lbrt_layer *layer, const lbrt_tensor *sources, int32_t *lo, int32_t *hi);

/* Pools, copies, products, sigmoids: they have no epilogue. */
static inline int lbrt_is_bare(const lbrt_layer *layer) {
    return layer->op != LBRT_OP_INPUT && layer->op != LBRT_OP_CONV && layer->op != LBRT_OP_POINT;
}

/* Integer weights of output channel oc into dst (lbrt_weights_per_channel(layer, src)), in the order in which they are packed. */
void lbrt_unpack(const lbrt_layer *layer, const lbrt_tensor *src, int32_t oc, int16_t *dst);

#endif

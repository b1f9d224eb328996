/* The fused norm step (kernels.h): batch statistics, affine + residual + activation or quantizer, and their backward. */
#include "train/simd/kernels.h"
#include "train/simd/vec.h"

#include <math.h>

/* Rows are walked in tiles that stay in the first-level cache, channels outermost inside a tile, so that per-channel numbers stay
 * in registers and f32 sums stay short before they go to doubles. */
LB_INLINE size_t tile_rows(lb_dtype type, int c) {
    size_t rows = 12288 / ((size_t)c * lb_dtype_size(type));
    return rows < 1 ? 1 : rows > 256 ? 256 : rows;
}

#define FOR_TILES(type, c, first, last)                                                                                    \
    for (size_t t0 = (first), step_ = tile_rows(type, c), t1; t0 < (last) && (t1 = LB_MIN(t0 + step_, (last)), 1); t0 = t1)

#define HAS_F32 (LANES <= 16)

/* ---- Few channels in wide vectors ----------------------------------------------------------------------------------------------
 * Where `times` rows make just a vector, they are treated as one row of LANES channels, with the numbers per channel repeated. The
 * rows before and after the last whole one are done singly. Only in the variant for bf16: its vectors are wider than common channel
 * counts, and in the others sums would change with the instruction set. */
typedef struct folding {
    int times;
    size_t first, last;    /* folded rows */
    size_t edge[2][2];     /* [from, to) of rows left over */
} folding;

LB_INLINE folding fold_rows(int c, size_t first, size_t last) {
    folding f = {.times = 1, .edge = {{first, last}, {last, last}}};
    if (LANES <= 16 || c >= LANES || LANES % c)
        return f;
    const size_t times = (size_t)(LANES / c), from = (first + times - 1) / times, to = last / times;
    if (from < to)
        f = (folding){(int)times, from, to, {{first, from * times}, {to * times, last}}};
    return f;
}

/* Adds what LANES channels stand for to c channels. */
LB_INLINE void unfold(const double *wide, int c, double *sum) {
    for (int i = 0; i < LANES; i++)
        sum[i % c] += wide[i];
}

typedef struct folded_args {
    lb_norm_args args;
    float channels[6][LANES];
} folded_args;

static void fold_args(const lb_norm_args *args, int times, folded_args *f) {
    const float **arrays[] = {&f->args.a, &f->args.b, &f->args.center, &f->args.p, &f->args.q, &f->args.s};
    f->args = *args;
    f->args.c = LANES;
    f->args.mask_rows /= (size_t)times;
    for (size_t k = 0; k < LB_COUNT(arrays); k++) {
        const float *narrow = *arrays[k];
        for (int i = 0; narrow && i < LANES; i++)
            f->channels[k][i] = narrow[i % args->c];
        *arrays[k] = f->channels[k];
    }
}

/* A mask repeats after mask_rows rows, which must be whole folded ones. */
LB_INLINE folding fold_norm(const lb_norm_args *args, size_t first, size_t last) {
    const folding f = fold_rows(args->c, first, last);
    if (args->mask && args->mask_rows % (size_t)f.times)
        return (folding){.times = 1, .edge = {{first, last}, {last, last}}};
    return f;
}

/* ---- The passes ------------------------------------------------------------------------------------------------------------ */

LB_INLINE void stats(lb_dtype type, const void *x, int c, size_t first, size_t last, double *sum, double *sum_sq) {
    FOR_TILES(type, c, first, last) {
        for (int c0 = 0; c0 < c; c0 += LANES) {
            int n = LB_MIN(LANES, c - c0);
            vec s = v_set(0), q = v_set(0);
            for (size_t row = t0; row < t1; row++) {
                v_ahead(type, x, row * (size_t)c + (size_t)c0, c);
                vec v = v_load(type, x, row * (size_t)c + (size_t)c0, n);
                s = v_add(s, v);
                q = v_add(q, v_mul(v, v));
            }
            v_add_to(sum + c0, n, s);
            v_add_to(sum_sq + c0, n, q);
        }
    }
}

static void LB_NAME(lb_stats)(lb_dtype type, const void *x, int c, size_t first, size_t last, double *sum, double *sum_sq) {
    const folding f = fold_rows(c, first, last);
    if (f.times > 1) {
        double wide[2][LANES] = {0};
        stats(LB_BF16, x, LANES, f.first, f.last, wide[0], wide[1]);
        unfold(wide[0], c, sum);
        unfold(wide[1], c, sum_sq);
    }
    for (int i = 0; i < 2; i++) {
        if (HAS_F32 && type == LB_F32)
            stats(LB_F32, x, c, f.edge[i][0], f.edge[i][1], sum, sum_sq);
        else
            stats(LB_BF16, x, c, f.edge[i][0], f.edge[i][1], sum, sum_sq);
    }
}

/* The variants worth their own code; MIX holds every mixer value and rare combinations, and its generality costs a little. RANGE is
 * MIX where nothing is learned and the quantized part has a gradient where the surrogate has one or nowhere, FREE a mask where it
 * has none, FREE_LSQ one that learns a step. */
typedef enum lb_mode {
    MODE_NONE,
    MODE_CLIP,
    MODE_CODE,
    MODE_LSQ,
    MODE_PACT,
    MODE_SIGN,
    MODE_MIX,
    MODE_RANGE,
    MODE_MASK,
    MODE_FREE,
    MODE_FREE_LSQ
} lb_mode;

static lb_mode mode_of(const lb_norm_args *args) {
    if (args->act != LB_NORM_QUANT)
        return args->act == LB_NORM_NONE ? MODE_NONE : MODE_CLIP;
    const lb_act_form *f = &args->form;
    if (args->mask)
        return f->pass_lo != f->pass_hi ? MODE_MASK : f->learn == LB_LEARN_STEP && !f->sign ? MODE_FREE_LSQ : MODE_FREE;
    if (f->m == 0 && f->step == 1)
        return MODE_CLIP; /* the surrogate alone, and nothing learned */
    const bool same = f->pass_lo == f->pass_hi || (f->pass_lo == f->sur_lo && f->pass_hi == f->sur_hi);
    if (f->m != 1 || (f->sign && f->learn != LB_LEARN_NOTHING))
        return f->learn == LB_LEARN_NOTHING && same ? MODE_RANGE : MODE_MIX;
    return f->sign ? MODE_SIGN : f->learn == LB_LEARN_STEP ? MODE_LSQ : f->learn == LB_LEARN_CLIP ? MODE_PACT : MODE_CODE;
}

LB_INLINE vec code_of(const lb_act_form *f, bool sign, vec z, vec inv_step) {
    if (sign)
        return v_select(v_ge(z, v_set(0)), v_set(1), v_set(-1));
    return v_rint(v_clip(v_mul(z, inv_step), v_set(f->lo), v_set(f->hi)));
}

LB_INLINE vec z_of(const lb_norm_args *args, lb_dtype type, bool residual, size_t at, int n, vec x, vec a, vec b) {
    vec z = v_add(v_mul(a, x), b);
    if (residual)
        z = v_add(z, v_mul(v_load(type, args->residual, at, n), v_set(args->residual_step)));
    return z;
}

/* Which lanes are quantized; goes on to the next row. */
LB_INLINE lb_mask mask_of(const lb_norm_args *args, size_t *row, int c0, int n) {
    const lb_mask m = v_load_mask(args->mask + *row * (size_t)args->c + (size_t)c0, n);
    *row = *row + 1 == args->mask_rows ? 0 : *row + 1;
    return m;
}

LB_INLINE void forward(const lb_norm_args *args, lb_dtype type, lb_mode mode, bool residual, size_t first, size_t last) {
    const lb_act_form *f = &args->form;
    const bool sign = mode == MODE_SIGN || f->sign;
    const bool masked = mode == MODE_MASK || mode == MODE_FREE || mode == MODE_FREE_LSQ;
    int c = args->c;
    vec inv_step = v_set(1 / f->step), lo = v_set(f->sur_lo), hi = v_set(f->sur_hi), m = v_set(f->m), rest = v_set(1 - f->m);
    FOR_TILES(type, c, first, last) {
        for (int c0 = 0; c0 < c; c0 += LANES) {
            int n = LB_MIN(LANES, c - c0);
            vec a = v_load_f32(args->a + c0, n), b = v_load_f32(args->b + c0, n);
            size_t mask_row = masked ? t0 % args->mask_rows : 0;
            for (size_t row = t0; row < t1; row++) {
                size_t at = row * (size_t)c + (size_t)c0;
                v_ahead(type, args->x, at, c);
                v_ahead(type, args->dst, at, c);
                if (residual)
                    v_ahead(type, args->residual, at, c);
                vec z = z_of(args, type, residual, at, n, v_load(type, args->x, at, n), a, b);
                vec d = z;
                if (mode == MODE_CLIP)
                    d = v_clip(z, lo, hi);
                else if (mode == MODE_MIX || mode == MODE_RANGE)
                    d = v_add(v_mul(v_mul(rest, v_clip(z, lo, hi)), inv_step), v_mul(m, code_of(f, sign, z, inv_step)));
                else if (masked)
                    d = v_select(mask_of(args, &mask_row, c0, n), code_of(f, sign, z, inv_step),
                                 v_mul(v_clip(z, lo, hi), inv_step));
                else if (mode != MODE_NONE)
                    d = code_of(f, mode == MODE_SIGN, z, inv_step);
                v_store(type, args->dst, at, n, d);
            }
        }
    }
}

LB_INLINE lb_mask inside(vec z, float lo, float hi) { return v_and(v_gt(z, v_set(lo)), v_gt(v_set(hi), z)); }
LB_INLINE vec if_inside(vec z, float lo, float hi, vec value) { return v_select(inside(z, lo, hi), value, v_set(0)); }

/* Adds `factor` times each lane. */
LB_INLINE void add_lanes(vec a, float factor, double *sum) {
    double lanes[LANES] = {0};
    v_add_to(lanes, LANES, a);
    for (int i = 0; i < LANES; i++)
        *sum += lanes[i] * (double)factor;
}

/* All streams of a backward pass. */
LB_INLINE void ask_backward(const lb_norm_args *args, lb_dtype type, bool residual, size_t at) {
    v_ahead(type, args->x, at, args->c);
    v_ahead(type, args->dz, at, args->c);
    if (residual)
        v_ahead(type, args->residual, at, args->c);
    for (int i = 0; i < args->ngrads; i++)
        v_ahead(type, args->grad[i], at, args->c);
}

/* The sum of the consumers' gradients. */
LB_INLINE vec arriving(const lb_norm_args *args, lb_dtype type, size_t at, int n) {
    vec g = v_mul(v_load(type, args->grad[0], at, n), v_set(args->factor[0]));
    for (int i = 1; i < args->ngrads; i++)
        g = v_add(g, v_mul(v_load(type, args->grad[i], at, n), v_set(args->factor[i])));
    return g;
}

LB_INLINE void backward(const lb_norm_args *args, lb_dtype type, lb_mode mode, bool residual, size_t first, size_t last,
                        double *sum_dz, double *sum_dz_x, double *learn) {
    const lb_act_form *f = &args->form;
    const int c = args->c;
    const bool lsq = mode == MODE_LSQ || mode == MODE_FREE_LSQ, sign = !lsq && f->sign;
    const bool masked = mode == MODE_MASK || mode == MODE_FREE || mode == MODE_FREE_LSQ;
    const lb_act_learn learns = lsq                            ? LB_LEARN_STEP
                                : mode == MODE_PACT            ? LB_LEARN_CLIP
                                : mode == MODE_MIX || masked   ? f->learn
                                                               : LB_LEARN_NOTHING;
    const vec inv_step = v_set(1 / f->step), m = v_set(f->m), rest = v_set(1 - f->m);
    const vec slope = v_set(f->pass_lo == f->pass_hi ? 1 - f->m : f->m + (1 - f->m));
    const vec pass_lo = v_set(f->pass_lo), pass_hi = v_set(f->pass_hi), sur_lo = v_set(f->sur_lo), sur_hi = v_set(f->sur_hi);
    FOR_TILES(type, c, first, last) {
        vec tile_learn = v_set(0);
        for (int c0 = 0; c0 < c; c0 += LANES) {
            int n = LB_MIN(LANES, c - c0);
            vec a = v_load_f32(args->a + c0, n), b = v_load_f32(args->b + c0, n), center = v_load_f32(args->center + c0, n);
            vec s = v_set(0), sx = v_set(0);
            size_t mask_row = masked ? t0 % args->mask_rows : 0;
            for (size_t row = t0; row < t1; row++) {
                size_t at = row * (size_t)c + (size_t)c0;
                ask_backward(args, type, residual, at);
                vec g = arriving(args, type, at, n);
                vec x = v_load(type, args->x, at, n), dz = g;
                if (mode != MODE_NONE) {
                    vec z = z_of(args, type, residual, at, n, x, a, b);
                    if (mode == MODE_CLIP) {
                        dz = if_inside(z, f->sur_lo, f->sur_hi, g);
                    } else if (mode == MODE_FREE || mode == MODE_FREE_LSQ) {
                        lb_mask quantized = mask_of(args, &mask_row, c0, n);
                        dz = v_select(quantized, v_set(0), v_select(v_and(v_gt(z, sur_lo), v_gt(sur_hi, z)), g, v_set(0)));
                        g = v_select(quantized, g, v_set(0)); /* what is learned learns from the quantized part */
                    } else if (mode == MODE_RANGE) {
                        dz = v_select(v_and(v_gt(z, sur_lo), v_gt(sur_hi, z)), v_mul(g, slope), v_set(0));
                    } else if (mode == MODE_MASK) {
                        lb_mask quantized = mask_of(args, &mask_row, c0, n);
                        vec lo = v_select(quantized, pass_lo, sur_lo), hi = v_select(quantized, pass_hi, sur_hi);
                        dz = v_select(v_and(v_gt(z, lo), v_gt(hi, z)), g, v_set(0));
                        g = v_select(quantized, g, v_set(0));
                    } else if (mode == MODE_MIX) {
                        const vec pass = v_select(v_and(v_gt(z, pass_lo), v_gt(pass_hi, z)), m, v_set(0));
                        dz = v_mul(g, v_add(pass, v_select(v_and(v_gt(z, sur_lo), v_gt(sur_hi, z)), rest, v_set(0))));
                    } else {
                        dz = if_inside(z, f->pass_lo, f->pass_hi, g);
                    }
                    if (mode != MODE_CLIP) {
                        if (learns == LB_LEARN_STEP) { /* LSQ: code - z / step inside, the code at the ends */
                            vec u = v_mul(z, inv_step), code = v_rint(v_clip(u, v_set(f->lo), v_set(f->hi)));
                            vec d = v_select(inside(u, f->lo, f->hi), v_sub(code, u), code);
                            if (sign)
                                d = code_of(f, true, z, inv_step);
                            tile_learn = v_add(tile_learn, v_mul(g, d));
                        } else if (learns == LB_LEARN_CLIP) { /* PACT: 1 above the clip */
                            tile_learn = v_add(tile_learn, v_select(v_ge(z, v_set(f->hi * f->step)), g, v_set(0)));
                        }
                    }
                }
                s = v_add(s, dz);
                sx = v_add(sx, v_mul(dz, v_sub(x, center)));
                v_store(type, args->dz, at, n, dz);
            }
            v_add_to(sum_dz + c0, n, s);
            v_add_to(sum_dz_x + c0, n, sx);
        }
        if (learns != LB_LEARN_NOTHING)
            add_lanes(tile_learn, f->m, learn);
    }
}

/* ---- Forms that draw their codes, and forms with `soft`: z goes through memory, in blocks ------------------------------------ */

/* A block is LB_ACT_BLOCK channels of a row or as many whole rows as fit, so that its elements follow each other. */
#define FOR_BLOCKS(type, c, first, last)    \
    FOR_TILES(type, c, first, last)         \
        for (int c0 = 0, width; c0 < (c) && (width = LB_MIN(LB_ACT_BLOCK, (c)-c0), 1); c0 += LB_ACT_BLOCK)
LB_INLINE size_t block_end(int width, size_t row, size_t last) { return LB_MIN(row + (size_t)(LB_ACT_BLOCK / width), last); }

/* Vectors of channels, the rows of a block under each. `whole`: no part of a vector is left over. */
#define FOR_CHANNELS(width, whole) \
    for (int k = 0, lanes; k < (width) && (lanes = (whole) ? LANES : LB_MIN(LANES, (width)-k), 1); k += LANES)

/* Returns how many elements there are. */
LB_INLINE int store_z(const lb_norm_args *args, lb_dtype type, bool residual, bool whole, size_t row, size_t end, int c0, int width,
                      float *z) {
    FOR_CHANNELS(width, whole) {
        vec a = v_load_f32(args->a + c0 + k, lanes), b = v_load_f32(args->b + c0 + k, lanes);
        for (size_t r = row; r < end; r++) {
            const size_t at = r * (size_t)args->c + (size_t)(c0 + k);
            v_store_f32(z + (r - row) * (size_t)width + (size_t)k, lanes,
                        z_of(args, type, residual, at, lanes, v_load(type, args->x, at, lanes), a, b));
        }
    }
    return (int)(end - row) * width;
}

/* m of channels c0 .. c0 + n of a row. */
LB_INLINE vec share_of(const lb_norm_args *args, size_t row, int c0, int n) {
    if (!args->mask)
        return v_set(args->form.m);
    return v_select(v_load_mask(args->mask + row % args->mask_rows * (size_t)args->c + (size_t)c0, n), v_set(1), v_set(0));
}

LB_INLINE void draw_forward(const lb_norm_args *args, lb_dtype type, bool residual, size_t first, size_t last) {
    const lb_act_form *f = &args->form;
    vec inv_step = v_set(1 / f->step);
    FOR_BLOCKS(type, args->c, first, last) {
        for (size_t row = t0, end; row < t1; row = end) {
            float z[LB_ACT_BLOCK], code[LB_ACT_BLOCK];
            end = block_end(width, row, t1);
            const int n = store_z(args, type, residual, false, row, end, c0, width, z);
            f->draw(f, z, (int64_t)(row * (size_t)args->c + (size_t)c0), n, code);
            FOR_CHANNELS(width, false)
                for (size_t r = row; r < end; r++) {
                    const size_t i = (r - row) * (size_t)width + (size_t)k;
                    vec m = share_of(args, r, c0 + k, lanes), d = v_load_f32(code + i, lanes);
                    if (args->mask || f->m != 1) {
                        vec real = v_mul(v_clip(v_load_f32(z + i, lanes), v_set(f->sur_lo), v_set(f->sur_hi)), inv_step);
                        d = v_select(v_ge(m, v_set(1)), d, v_add(v_mul(v_sub(v_set(1), m), real), v_mul(m, d)));
                    }
                    v_store(type, args->dst, r * (size_t)args->c + (size_t)(c0 + k), lanes, d);
                }
        }
    }
}

/* `plain`: whole vectors, everything quantized. */
LB_INLINE void soft_rows(const lb_norm_args *args, lb_dtype type, bool residual, bool plain, size_t first, size_t last,
                         double *sum_dz, double *sum_dz_x, double *learn) {
    const lb_act_form *f = &args->form;
    FOR_BLOCKS(type, args->c, first, last) {
        vec s[LB_ACT_BLOCK / LANES + 1], sx[LB_ACT_BLOCK / LANES + 1], by_step = v_set(0), by_sigma = v_set(0);
        for (int k = 0; k < width; k += LANES)
            s[k / LANES] = sx[k / LANES] = v_set(0);
        for (size_t row = t0, end; row < t1; row = end) {
            float z[LB_ACT_BLOCK];
            lb_soft soft;
            end = block_end(width, row, t1);
            const int n = store_z(args, type, residual, plain, row, end, c0, width, z);
            f->soft(f, z, (int64_t)(row * (size_t)args->c + (size_t)c0), n, &soft);
            FOR_CHANNELS(width, plain) {
                vec center = v_load_f32(args->center + c0 + k, lanes), sum = s[k / LANES], sum_x = sx[k / LANES];
                for (size_t r = row; r < end; r++) {
                    const size_t i = (r - row) * (size_t)width + (size_t)k, at = r * (size_t)args->c + (size_t)(c0 + k);
                    vec g = arriving(args, type, at, lanes);
                    vec m = plain ? v_set(1) : share_of(args, r, c0 + k, lanes), gm = plain ? g : v_mul(g, m);
                    vec dz = v_mul(gm, v_load_f32(soft.slope + i, lanes));
                    if (!plain)
                        dz = v_add(dz, v_mul(g, if_inside(v_load_f32(z + i, lanes), f->sur_lo, f->sur_hi, v_sub(v_set(1), m))));
                    by_step = v_add(by_step, v_mul(gm, v_load_f32(soft.by_step + i, lanes)));
                    by_sigma = v_add(by_sigma, v_mul(gm, v_load_f32(soft.by_sigma + i, lanes)));
                    sum = v_add(sum, dz);
                    sum_x = v_add(sum_x, v_mul(dz, v_sub(v_load(type, args->x, at, lanes), center)));
                    v_store(type, args->dz, at, lanes, dz);
                }
                s[k / LANES] = sum, sx[k / LANES] = sum_x;
            }
        }
        for (int k = 0; k < width; k += LANES) {
            v_add_to(sum_dz + c0 + k, width - k, s[k / LANES]);
            v_add_to(sum_dz_x + c0 + k, width - k, sx[k / LANES]);
        }
        add_lanes(by_step, 1, &learn[0]);
        add_lanes(by_sigma, 1, &learn[1]);
    }
}

LB_INLINE void soft_backward(const lb_norm_args *args, lb_dtype type, bool residual, size_t first, size_t last, double *sum_dz,
                             double *sum_dz_x, double *learn) {
    if (args->c % LANES == 0 && !args->mask && args->form.m == 1)
        soft_rows(args, type, residual, true, first, last, sum_dz, sum_dz_x, learn);
    else
        soft_rows(args, type, residual, false, first, last, sum_dz, sum_dz_x, learn);
}

/* ---- Forms with a curve --------------------------------------------------------------------------------------------------- */

LB_INLINE vec cubic(const float c[4][LB_CURVE_PIECES], vec place, vec t) {
    vec sum = v_fma(v_look_up(c[3], place), t, v_look_up(c[2], place));
    sum = v_fma(sum, t, v_look_up(c[1], place));
    return v_fma(sum, t, v_look_up(c[0], place));
}

/* What is quantized: everything, with the curve's own slope; a share of each element; the elements of a mask. */
typedef enum curve_mode { CURVE_WHOLE, CURVE_SHARE, CURVE_MASK } curve_mode;

/* `one`: one centre for all. The copy is one that no store can change, so that its numbers stay in registers. */
LB_INLINE void curve_rows(const lb_norm_args *given, lb_dtype type, bool residual, curve_mode mode, bool one, size_t first,
                          size_t last, double *sum_dz, double *sum_dz_x, double *learn) {
    const lb_norm_args own_args = *given, *args = &own_args;
    const lb_act_form *f = &args->form;
    const lb_curve *curve = &f->curve;
    const int c = args->c;
    const vec m = v_set(f->m), rest = v_set(1 - f->m), sur_lo = v_set(f->sur_lo), sur_hi = v_set(f->sur_hi);
    const vec inv_step = v_set(1 / f->step), scale = v_set(curve->scale), shift = v_set(0x1.8p23f);
    const vec pieces = v_set(1 / f->step * curve->scale), begin = v_set(-curve->lowest * curve->scale);
    FOR_TILES(type, c, first, last) {
        vec by_step = v_set(0), by_sigma = v_set(0), by_centre = v_set(0);
        for (int c0 = 0; c0 < c; c0 += LANES) {
            const int n = LB_MIN(LANES, c - c0);
            vec a = v_load_f32(args->a + c0, n), b = v_load_f32(args->b + c0, n), center = v_load_f32(args->center + c0, n);
            vec s = v_set(0), sx = v_set(0);
            size_t mask_row = mode == CURVE_MASK ? t0 % args->mask_rows : 0;
            for (size_t row = t0; row < t1; row++) {
                const size_t at = row * (size_t)c + (size_t)c0;
                ask_backward(args, type, residual, at);
                const vec g = arriving(args, type, at, n);
                const vec x = v_load(type, args->x, at, n), z = z_of(args, type, residual, at, n, x, a, b);
                vec off, middle = v_set(curve->lowest);
                if (one) {
                    off = v_fma(z, pieces, begin);
                } else {
                    const vec v = v_mul(z, inv_step);
                    middle = v_sub(v_add(v_clip(v, middle, v_set(curve->highest)), shift), shift); /* rint */
                    off = v_mul(v_sub(v, middle), scale);
                }
                const vec far = v_min(v_abs(off), v_set(LB_CURVE_PIECES - 1)); /* NaN: that */
                const vec place = v_add(far, shift), t = v_sub(far, v_sub(place, shift));
                const lb_mask quantized = mode == CURVE_MASK ? mask_of(args, &mask_row, c0, n) : v_gt(g, g);
                const vec gq = mode == CURVE_MASK ? v_select(quantized, g, v_set(0)) : g, turned = v_flip(gq, off);
                const vec own = v_mul(gq, cubic(curve->slope, place, t));
                vec dz = mode == CURVE_WHOLE || curve->own ? own : if_inside(z, f->pass_lo, f->pass_hi, gq);
                if (mode != CURVE_WHOLE) {
                    const vec real = v_select(v_and(v_gt(z, sur_lo), v_gt(sur_hi, z)), g, v_set(0));
                    dz = mode == CURVE_MASK ? v_select(quantized, dz, real) : v_fma(dz, m, v_mul(real, rest));
                }
                by_step = v_fma(turned, cubic(curve->by_step, place, t), by_step);
                by_sigma = v_fma(turned, cubic(curve->by_sigma, place, t), by_sigma);
                by_centre = one ? v_add(by_centre, v_sub(gq, own)) : v_fma(middle, v_sub(gq, own), by_centre);
                s = v_add(s, dz);
                sx = v_fma(dz, v_sub(x, center), sx);
                v_store(type, args->dz, at, n, dz);
            }
            v_add_to(sum_dz + c0, n, s);
            v_add_to(sum_dz_x + c0, n, sx);
        }
        const float share = mode == CURVE_SHARE ? f->m : 1;
        add_lanes(by_step, share, &learn[0]);
        add_lanes(by_centre, one ? share * curve->lowest : share, &learn[0]);
        add_lanes(by_sigma, share, &learn[1]);
    }
}

LB_INLINE void curve_backward(const lb_norm_args *args, lb_dtype type, bool residual, size_t first, size_t last, double *sum_dz,
                              double *sum_dz_x, double *learn) {
    const lb_curve *curve = &args->form.curve;
    const curve_mode mode = args->mask ? CURVE_MASK : args->form.m == 1 && curve->own ? CURVE_WHOLE : CURVE_SHARE;
    const bool one = curve->lowest == curve->highest;
#define ROWS(mode, one) curve_rows(args, type, residual, mode, one, first, last, sum_dz, sum_dz_x, learn)
    switch (mode) {
    case CURVE_WHOLE: one ? ROWS(CURVE_WHOLE, true) : ROWS(CURVE_WHOLE, false); break;
    case CURVE_SHARE: one ? ROWS(CURVE_SHARE, true) : ROWS(CURVE_SHARE, false); break;
    case CURVE_MASK: one ? ROWS(CURVE_MASK, true) : ROWS(CURVE_MASK, false); break;
    }
#undef ROWS
}

LB_INLINE void backward_x(const lb_norm_args *args, lb_dtype type, size_t first, size_t last) {
    int c = args->c;
    FOR_TILES(type, c, first, last) {
        for (int c0 = 0; c0 < c; c0 += LANES) {
            int n = LB_MIN(LANES, c - c0);
            vec p = v_load_f32(args->p + c0, n), q = v_load_f32(args->q + c0, n), s = v_load_f32(args->s + c0, n);
            vec center = v_load_f32(args->center + c0, n);
            for (size_t row = t0; row < t1; row++) {
                size_t at = row * (size_t)c + (size_t)c0;
                v_ahead(type, args->dz, at, c);
                v_ahead(type, args->x, at, c);
                vec dz = v_load(type, args->dz, at, n), x = v_sub(v_load(type, args->x, at, n), center);
                v_store(type, args->dx, at, n, v_add(v_add(v_mul(p, dz), v_mul(q, x)), s));
            }
        }
    }
}

/* Calls an always-inlined body with constants for type, mode and residual, so that each combination is its own loop. */
#define WITH_RESIDUAL(body, type, mode, ...)     \
    if (args->residual)                          \
        body(args, type, mode, true, __VA_ARGS__); \
    else                                         \
        body(args, type, mode, false, __VA_ARGS__);
#define WITH_MODE(body, type, ...)                                                     \
    switch (mode_of(args)) {                                                           \
    case MODE_NONE: WITH_RESIDUAL(body, type, MODE_NONE, __VA_ARGS__) break;           \
    case MODE_CLIP: WITH_RESIDUAL(body, type, MODE_CLIP, __VA_ARGS__) break;           \
    case MODE_CODE: WITH_RESIDUAL(body, type, MODE_CODE, __VA_ARGS__) break;           \
    case MODE_LSQ: WITH_RESIDUAL(body, type, MODE_LSQ, __VA_ARGS__) break;             \
    case MODE_PACT: WITH_RESIDUAL(body, type, MODE_PACT, __VA_ARGS__) break;           \
    case MODE_SIGN: WITH_RESIDUAL(body, type, MODE_SIGN, __VA_ARGS__) break;           \
    case MODE_MIX: WITH_RESIDUAL(body, type, MODE_MIX, __VA_ARGS__) break;             \
    case MODE_RANGE: WITH_RESIDUAL(body, type, MODE_RANGE, __VA_ARGS__) break;         \
    case MODE_MASK: WITH_RESIDUAL(body, type, MODE_MASK, __VA_ARGS__) break;           \
    case MODE_FREE: WITH_RESIDUAL(body, type, MODE_FREE, __VA_ARGS__) break;           \
    case MODE_FREE_LSQ: WITH_RESIDUAL(body, type, MODE_FREE_LSQ, __VA_ARGS__) break;   \
    }

/* The same without modes; the choice of f32 is left out where there is no code for it. */
#define WITH_TYPE(body, ...)                               \
    if (HAS_F32 && args->type == LB_F32 && args->residual) \
        body(args, LB_F32, true, __VA_ARGS__);             \
    else if (HAS_F32 && args->type == LB_F32)              \
        body(args, LB_F32, false, __VA_ARGS__);            \
    else if (args->residual)                               \
        body(args, LB_BF16, true, __VA_ARGS__);            \
    else                                                   \
        body(args, LB_BF16, false, __VA_ARGS__);

static void forward_rows(const lb_norm_args *args, size_t first, size_t last) {
    if (first == last)
        return;
    if (args->act == LB_NORM_QUANT && args->form.draw) {
        WITH_TYPE(draw_forward, first, last)
    } else if (HAS_F32 && args->type == LB_F32) {
        WITH_MODE(forward, LB_F32, first, last)
    } else {
        WITH_MODE(forward, LB_BF16, first, last)
    }
}

static void LB_NAME(lb_norm_forward)(const lb_norm_args *args, size_t first, size_t last) {
    const folding f = fold_norm(args, first, last);
    if (f.times > 1) {
        folded_args folded;
        fold_args(args, f.times, &folded);
        forward_rows(&folded.args, f.first, f.last);
    }
    for (int i = 0; i < 2; i++)
        forward_rows(args, f.edge[i][0], f.edge[i][1]);
}

static void backward_rows(const lb_norm_args *args, size_t first, size_t last, double *sum_dz, double *sum_dz_x, double *learn) {
    if (first == last)
        return;
    if (args->act == LB_NORM_QUANT && args->form.curve.holds) {
        WITH_TYPE(curve_backward, first, last, sum_dz, sum_dz_x, learn)
    } else if (args->act == LB_NORM_QUANT && args->form.soft) {
        WITH_TYPE(soft_backward, first, last, sum_dz, sum_dz_x, learn)
    } else if (HAS_F32 && args->type == LB_F32) {
        WITH_MODE(backward, LB_F32, first, last, sum_dz, sum_dz_x, learn)
    } else {
        WITH_MODE(backward, LB_BF16, first, last, sum_dz, sum_dz_x, learn)
    }
}

static void LB_NAME(lb_norm_backward)(const lb_norm_args *args, size_t first, size_t last, double *sum_dz, double *sum_dz_x,
                                      double *learn) {
    const folding f = fold_norm(args, first, last);
    if (f.times > 1) {
        folded_args folded;
        double wide[2][LANES] = {0};
        fold_args(args, f.times, &folded);
        backward_rows(&folded.args, f.first, f.last, wide[0], wide[1], learn);
        unfold(wide[0], args->c, sum_dz);
        unfold(wide[1], args->c, sum_dz_x);
    }
    for (int i = 0; i < 2; i++)
        backward_rows(args, f.edge[i][0], f.edge[i][1], sum_dz, sum_dz_x, learn);
}

static void backward_x_rows(const lb_norm_args *args, size_t first, size_t last) {
    if (HAS_F32 && args->type == LB_F32)
        backward_x(args, LB_F32, first, last);
    else
        backward_x(args, LB_BF16, first, last);
}

static void LB_NAME(lb_norm_backward_x)(const lb_norm_args *args, size_t first, size_t last) {
    const folding f = fold_rows(args->c, first, last);
    if (f.times > 1) {
        folded_args folded;
        fold_args(args, f.times, &folded);
        backward_x_rows(&folded.args, f.first, f.last);
    }
    for (int i = 0; i < 2; i++)
        backward_x_rows(args, f.edge[i][0], f.edge[i][1]);
}

LB_INLINE void sum(lb_dtype type, int n, const void *const *grad, const float *factor, void *dst, size_t first, size_t last) {
    for (size_t at = first; at < last; at += LANES) {
        int lanes = (int)LB_MIN((size_t)LANES, last - at);
        vec g = v_mul(v_load(type, grad[0], at, lanes), v_set(factor[0]));
        for (int i = 1; i < n; i++)
            g = v_add(g, v_mul(v_load(type, grad[i], at, lanes), v_set(factor[i])));
        v_store(type, dst, at, lanes, g);
    }
}

static void LB_NAME(lb_sum)(lb_dtype type, int n, const void *const *grad, const float *factor, void *dst, size_t first,
                            size_t last) {
    if (HAS_F32 && type == LB_F32)
        sum(LB_F32, n, grad, factor, dst, first, last);
    else
        sum(LB_BF16, n, grad, factor, dst, first, last);
}

static void LB_NAME(lb_to_f32)(lb_dtype type, const void *src, float *dst, size_t count) {
    for (size_t at = 0; at < count; at += LANES) {
        int lanes = (int)LB_MIN((size_t)LANES, count - at);
        v_store_f32(dst + at, lanes, HAS_F32 && type == LB_F32 ? v_load(LB_F32, src, at, lanes) : v_load(LB_BF16, src, at, lanes));
    }
}

static void LB_NAME(lb_from_f32)(lb_dtype type, const float *src, void *dst, size_t count) {
    for (size_t at = 0; at < count; at += LANES) {
        int lanes = (int)LB_MIN((size_t)LANES, count - at);
        vec v = v_load_f32(src + at, lanes);
        if (HAS_F32 && type == LB_F32)
            v_store(LB_F32, dst, at, lanes, v);
        else
            v_store(LB_BF16, dst, at, lanes, v);
    }
}

const lb_kernels LB_NAME(lb_kernels) = {
    .isa = LB_STRING(LB_ISA),
    .bf16_only = !HAS_F32,
    .stats = LB_NAME(lb_stats),
    .norm_forward = LB_NAME(lb_norm_forward),
    .norm_backward = LB_NAME(lb_norm_backward),
    .norm_backward_x = LB_NAME(lb_norm_backward_x),
    .sum = LB_NAME(lb_sum),
    .to_f32 = LB_NAME(lb_to_f32),
    .from_f32 = LB_NAME(lb_from_f32),
};

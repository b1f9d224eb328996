/* lowbit: train neural networks with 1- to 8-bit weights and activations, and pack them for integer-only inference.
 *
 * This header is the whole library for training and conversion; inference alone is lowbit_rt.h, which needs nothing else.
 * A program makes one context, then objects from it:
 *
 *     lb_ctx *ctx;  lb_ctx_create(NULL, &ctx);
 *     lb_recipe *recipe;  lb_recipe_load(ctx, "recipe.yaml", NULL, 0, &recipe);     // what to do
 *     lb_trainer *trainer;  lb_trainer_create(ctx, recipe, NULL, &trainer);         // data, network, optimizer
 *     if (lb_trainer_run(trainer, "runs/mine", false)) puts(lb_error(ctx));         // train, checkpoint, log
 *     lb_pack(trainer, "runs/mine/model.lbm");                                      // integer-only packed model
 *
 * Conventions. Every function that can fail returns lb_status: LB_OK is 0, and on anything else lb_error() has one line
 * saying what went wrong, where, and what to do. Nothing here prints, exits, or keeps global state. An object made by
 * X_create or X_load is freed by X_destroy, which accepts NULL; objects must be destroyed before their context.
 * `const` pointers that come back are borrowed. Images are NHWC; shapes are named mb, ih, iw, ic (source), oh, ow, oc
 * (destination), kh, kw (kernel). A context and its objects belong to one thread at a time. A process that
 * is forked has none of the threads that its parent computed with, and would wait for them for ever: there, make a context of one
 * thread, use lowbit_rt.h, or call exec. */
#ifndef LOWBIT_H
#define LOWBIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LB_VERSION "0.1.0"

/* ---- Status and context ------------------------------------------------------------------------------------------ */

typedef enum lb_status {
    LB_OK = 0,
    LB_ERR_ARGUMENT,    /* the caller's argument is wrong */
    LB_ERR_MEMORY,      /* the allocator returned NULL, or there is no room for the threads (if it goes later, OpenMP exits) */
    LB_ERR_IO,          /* a file cannot be opened, read or written */
    LB_ERR_FORMAT,      /* a file's content is not what it should be */
    LB_ERR_RECIPE,      /* a recipe has an unknown key, a wrong type or a value out of range */
    LB_ERR_SHAPE,       /* shapes of two layers, or of a checkpoint and a network, do not fit */
    LB_ERR_UNSUPPORTED, /* a combination that makes no sense or is not there */
    LB_ERR_DIVERGED,    /* the loss became NaN or exploded */
    LB_ERR_INTERRUPTED, /* lb_interrupt was called; the state was saved */
    LB_ERR_BACKEND      /* the compute library failed */
} lb_status;

/* Name of a status, e.g. "out of memory". Never NULL. */
const char *lb_status_name(lb_status status);

/* Memory for everything the library allocates itself. `alloc` returns memory aligned to 64 bytes, or NULL.
 * Both may be called from threads of the library (which read images), one at a time. */
typedef struct lb_allocator {
    void *(*alloc)(void *user, size_t size);
    void (*free)(void *user, void *ptr);
    void *user;
} lb_allocator;

typedef enum lb_event_kind {
    LB_EVENT_NOTE,     /* text: something the user should know (a choice made, a file written) */
    LB_EVENT_WARNING,  /* text: something that may be wrong */
    LB_EVENT_PROGRESS, /* text (what is going on), done, total; loss and rate when training */
    LB_EVENT_EPOCH     /* text: one finished epoch as a line */
} lb_event_kind;

/* What a long call reports while it runs. Borrowed during the callback only. */
typedef struct lb_event {
    lb_event_kind kind;
    const char *text;
    int64_t done, total;
    double loss;   /* running training loss, or NaN */
    double top1;   /* running training accuracy in percent, or NaN */
    double rate;   /* images per second, or NaN */
} lb_event;

typedef void (*lb_report_fn)(void *user, const lb_event *event);

/* All fields may be zero: default allocator, all processors, silence. */
typedef struct lb_ctx_options {
    lb_allocator allocator;
    int threads;          /* compute threads; 0: one per processor this process may use */
    lb_report_fn report;
    void *user;           /* handed to report */
} lb_ctx_options;

typedef struct lb_ctx lb_ctx;

/* Options may be NULL. On failure *ctx is NULL. */
lb_status lb_ctx_create(const lb_ctx_options *options, lb_ctx **ctx);
void lb_ctx_destroy(lb_ctx *ctx);

/* The message of the last failure in this context, "" if there was none. Borrowed, valid until the next failure. */
const char *lb_error(const lb_ctx *ctx);

/* Asks the running call to stop at the next step and save; it returns LB_ERR_INTERRUPTED, and so do later calls in this context;
 * those in another one go on. May be called from a signal handler or another thread. */
void lb_interrupt(lb_ctx *ctx);

/* Compute threads: as asked for, or the processors that this process may use. */
int lb_threads(const lb_ctx *ctx);

/* ---- Recipes (docs/recipes.md lists every key) --------------------------------------------------------------------- */

typedef struct lb_recipe lb_recipe;

/* Reads a YAML recipe; `overrides` are "a.b=value" texts applied on top, as the program's --set. Errors name file:line. */
lb_status lb_recipe_load(lb_ctx *ctx, const char *path, const char *const *overrides, int noverrides, lb_recipe **recipe);

/* The resolved recipe of the run at `dir`, to resume it. An imported network's graph is the run's copy, wherever the run is. */
lb_status lb_recipe_load_run(lb_ctx *ctx, const char *dir, const char *const *overrides, int noverrides, lb_recipe **recipe);

/* A recipe of defaults, to be filled by lb_recipe_set. */
lb_status lb_recipe_create(lb_ctx *ctx, lb_recipe **recipe);

/* Sets one key, e.g. lb_recipe_set(r, "quant.weights.bits", "2"). Values are written as in YAML. A key that nothing reads under the
 * others is an error once the recipe is used. */
lb_status lb_recipe_set(lb_recipe *recipe, const char *key, const char *value);

/* Writes the recipe with every key resolved, so that the run can be repeated from it. */
lb_status lb_recipe_save(const lb_recipe *recipe, const char *path);
void lb_recipe_destroy(lb_recipe *recipe);

/* ---- Networks ------------------------------------------------------------------------------------------------------ */

typedef struct lb_net lb_net;

/* Builds a network by hand. Every lb_net_X returns the new node's index, or -1 after a failure, which then sticks: later
 * calls do nothing and lb_net_finish returns it. `name` may be NULL (a name is made). Sources are earlier nodes' indices. */
lb_status lb_net_create(lb_ctx *ctx, const char *name, int ih, int iw, int ic, lb_net **net);
int lb_net_input(const lb_net *net);

/* Square kernel k, stride, zero padding `pad` on every side, weights (oc, k, k, ic / groups). */
int lb_net_conv2d(lb_net *net, int src, const char *name, int oc, int k, int stride, int pad, int groups, bool bias);
int lb_net_linear(lb_net *net, int src, const char *name, int oc, bool bias); /* source is 1 x 1 x ic */
int lb_net_batchnorm(lb_net *net, int src, const char *name, float eps, float momentum); /* 0, 0: 1e-5, 0.1 */
int lb_net_relu(lb_net *net, int src, const char *name);
int lb_net_relu6(lb_net *net, int src, const char *name);
int lb_net_hardtanh(lb_net *net, int src, const char *name);
int lb_net_clip(lb_net *net, int src, const char *name, float lo, float hi);
int lb_net_add(lb_net *net, int src0, int src1, const char *name);
int lb_net_maxpool(lb_net *net, int src, const char *name, int k, int stride, int pad);
int lb_net_avgpool(lb_net *net, int src, const char *name, int k, int stride, int pad);
int lb_net_globalpool(lb_net *net, int src, const char *name);   /* average over the image */
int lb_net_flatten(lb_net *net, int src, const char *name);      /* in NHWC order */
int lb_net_dropout(lb_net *net, int src, const char *name, float ratio);

/* Closes the network: the last node must be a 1 x 1 x classes vector. Allocates the parameters. */
lb_status lb_net_finish(lb_net *net);
void lb_net_destroy(lb_net *net);

/* ---- Training ------------------------------------------------------------------------------------------------------ */

typedef struct lb_trainer lb_trainer;

/* Loads the data, builds the recipe's network (or takes `net`, which the trainer then owns, even on failure; NULL: the recipe's)
 * and prepares the first stage. The recipe is borrowed, must outlive the trainer and stay as it is meanwhile. The recipe.yaml of a
 * run of `net` has its name; lb_trainer_open cannot build it again, but lb_trainer_run resumes the run with the same `net`. */
lb_status lb_trainer_create(lb_ctx *ctx, const lb_recipe *recipe, lb_net *net, lb_trainer **trainer);

/* Trains all stages, from the beginning unless `resume`. `dir` receives recipe.yaml, last.safetensors, best.safetensors,
 * metrics.jsonl and TensorBoard events (NULL: nothing is written, and the trainer ends with the last weights). Ends with the
 * weights of best.safetensors, those at the best test accuracy of the last stage (if that has no steps: the last weights). A stage
 * after the first that is saved before its first evaluation, or has none, has last.safetensors alone. With resume, continues from
 * dir/last.safetensors to the same bits as a run never stopped; without, LB_ERR_IO if `dir` has a run. The directory is locked
 * meanwhile: LB_ERR_IO if another process trains into it.
 * LB_ERR_INTERRUPTED after lb_interrupt, LB_ERR_DIVERGED if loss or gradients are not finite; both say what to do. */
lb_status lb_trainer_run(lb_trainer *trainer, const char *dir, bool resume);

/* Opens a finished or stopped run directory for evaluation: its recipe, and the weights of best.safetensors (or last). `data_spec`:
 * as for lb_packed_eval, NULL for the recipe's data set; images are read when something needs them. */
lb_status lb_trainer_open(lb_ctx *ctx, const char *dir, const char *data_spec, lb_trainer **trainer);
void lb_trainer_destroy(lb_trainer *trainer);

typedef struct lb_metrics {
    double top1, top5;   /* percent */
    double loss;
    int64_t images;
} lb_metrics;

/* Accuracy of the quantized network on the test split. */
lb_status lb_trainer_eval(lb_trainer *trainer, lb_metrics *metrics);

/* Training speed: `steps` timed steps (after a warm-up) on the recipe's data, in the middle of its first stage, where schedules
 * mix; then some test images. Weights stay as they are, but batch norm's statistics do not, and quantizers of activations start:
 * measure with a trainer of its own. lb_trainer_run may follow and begins anew. */
typedef struct lb_speed {
    double images_per_s, step_ms;  /* median step */
    double cpu_ms;                 /* median processor time of a step, all threads: what to compare on a busy machine */
    double start_s;                /* from lb_trainer_create to the end of the first step */
    double eval_images_per_s;      /* NaN: the data has no test images */
    double eval_cpu_ms;            /* processor time of a test image, all threads; NaN likewise */
    double peak_rss_mb;            /* of training, before the evaluation */
    const char *precision;         /* "bf16" or "f32"; static */
    int threads, batch;
} lb_speed;
lb_status lb_trainer_bench(lb_trainer *trainer, int steps, lb_speed *speed);

#define LB_NAME_SIZE 201 /* bytes of a layer's name with its end */

/* Where the time of a training step goes. */
typedef enum lb_pass { LB_PASS_FORWARD, LB_PASS_BACKWARD_DATA, LB_PASS_BACKWARD_WEIGHTS, LB_PASSES } lb_pass;

typedef struct lb_cost {
    double ms;            /* least over the steps (waiting for data: median); 0: there is no such pass */
    double bytes;         /* read and written, from the shapes alone: each tensor once per loop over it */
    double flops;         /* two for each multiply-accumulate of a convolution or linear layer */
} lb_cost;

typedef struct lb_profile_row {
    char name[LB_NAME_SIZE], op[16], dst[40]; /* dst: "32x32x16" of one image, or "" */
    lb_cost pass[LB_PASSES];
} lb_profile_row;

/* First four rows for the whole step: "data" (waiting for the batch), "weights" (quantizing all weights and laying them out for the
 * convolutions, and the gradients on the way back), "loss" and "optimizer"; then the operators in the order of the network, those
 * that are fused into a norm under the name of the last one. The bound: a machine that does nothing but multiply at `flops_per_s`,
 * the speed of a large matrix product in the same precision and threads, or copy at `bytes_per_s`, that of copying 64 MB; both are
 * measured in the same call. Tensors still in a cache move faster; Winograd's filtering makes fewer products than are counted. */
typedef struct lb_profile {
    int nrows;
    lb_profile_row *rows; /* (nrows) owned; free with lb_profile_free */
    double flops_per_s, bytes_per_s;
    lb_ctx *ctx;
} lb_profile;

/* Milliseconds that the bound allows for a cost. */
double lb_profile_bound(const lb_profile *profile, const lb_cost *cost);

/* As lb_trainer_bench, with the steps taken apart: each time is the least of the steps, of processor time with one thread and of
 * elapsed time with several (of "data" always, the median). */
lb_status lb_trainer_profile(lb_trainer *trainer, int steps, lb_speed *speed, lb_profile *profile);
void lb_profile_free(lb_profile *profile);

/* ---- Packed models ------------------------------------------------------------------------------------------------- */

/* Lowers the trainer's network to integers and writes the packed model. */
lb_status lb_pack(lb_trainer *trainer, const char *path);

typedef struct lb_packed lb_packed;

/* A packed model on the host: the file in memory, opened by the runtime. */
lb_status lb_packed_load(lb_ctx *ctx, const char *path, lb_packed **model);

/* The same of a file that is in memory already, which is copied. `name` is for messages. */
lb_status lb_packed_load_memory(lb_ctx *ctx, const char *name, const void *bytes, size_t size, lb_packed **model);
void lb_packed_destroy(lb_packed *model);

/* A model uses the best kernels the machine has; this chooses others: "amx", "avx512vbmi", "avx512", "avx2", "dotprod", "neon",
 * "ref". The scores are the same. A name that this machine has no kernels of changes nothing; after LB_ERR_MEMORY the model can
 * only be destroyed, or used after a call that succeeds. */
lb_status lb_packed_use(lb_packed *model, const char *isa);

/* What the runtime itself sees; borrowed, until lb_packed_use or lb_packed_destroy. */
const struct lbrt_model *lb_packed_model(const lb_packed *model);

/* Accuracy on the test split of the data `spec` names: a recipe's data.name or data.path, e.g. "fashion-mnist". NULL: the data set
 * the model was trained on, which the file names. */
lb_status lb_packed_eval(lb_packed *model, const char *data_spec, lb_metrics *metrics);

/* Scores images that are in memory, on all threads: pixels (mb, h, w, c) as decoded, 0 to 255, of the size that the model wants, to
 * scores (mb, classes) in the runtime's fixed point, 65536 for 1.0: equal bit for bit whatever the kernels and threads. The sizes
 * are what lowbit_rt.h's lbrt_model_info says of lb_packed_model. The first call takes the memory to run in. */
lb_status lb_packed_scores(lb_packed *model, const uint8_t *pixels, int mb, int32_t *scores);

/* Reads an image file (JPEG, PNG) as the model wants it and scores it. scores: (classes), logits. `pixels` may be NULL, else (h,
 * w, c). */
lb_status lb_packed_classify(lb_packed *model, const char *image, float *scores, uint8_t *pixels);

/* The test image `index` of the model's own data set, scored likewise; *label receives the truth. */
lb_status lb_packed_classify_test(lb_packed *model, const char *data_spec, int64_t index, float *scores, uint8_t *pixels,
                                  int *label);

typedef struct lb_latency {
    double min_ms, median_ms, images_per_s;
    double cpu_ms;              /* least processor time of a batch, all threads: for busy machines */
    int threads, batch;
    const char *isa;            /* whose kernels ran; static */
} lb_latency;

/* Times `runs` inferences of `batch` images each (noise: speed does not depend on them) on all threads, after a warm-up. */
lb_status lb_packed_bench(lb_packed *model, int batch, int runs, lb_latency *latency);

/* A layer's part of the time. */
typedef struct lb_layer_time {
    const char *name, *kernel;  /* the kernel that ran it, "ref": the scalar one; borrowed from the model */
    char op[16];
    double ms;                  /* least of all runs, per batch */
    double gops;                /* 2 operations per multiply-accumulate; 0: a layer without */
} lb_layer_time;

typedef struct lb_layer_times {
    int nlayers;
    lb_layer_time *layers;      /* (nlayers) owned; free with lb_layer_times_free */
    double ms;                  /* sum of the layers' times */
    double gops;                /* of the whole network */
    double peak_gops;           /* 8-bit multiply-adds of the model's instruction set, one thread, measured; 0: ref, or not known */
    lb_ctx *ctx;
} lb_layer_times;

/* Times each layer on one thread. */
lb_status lb_packed_profile(lb_packed *model, int batch, int runs, lb_layer_times *profile);
void lb_layer_times_free(lb_layer_times *profile);

/* ---- ONNX ------------------------------------------------------------------------------------------------------------ */

/* How an exported network shows its codes (docs/onnx.md). */
typedef enum lb_onnx_format {
    LB_ONNX_QDQ,   /* integer weights, QuantizeLinear and DequantizeLinear */
    LB_ONNX_QCDQ,  /* the same with 8-bit integers and Clip, for runtimes that know no smaller ones */
    LB_ONNX_QONNX, /* float weights on their grid, Quant and BipolarQuant */
    LB_ONNX_FLOAT, /* float weights on their grid, rounding in float operators */
    LB_ONNX_FORMATS
} lb_onnx_format;

enum { LB_ONNX_OPSET_MIN = 13, LB_ONNX_OPSET_MAX = 25 };

typedef struct lb_export_options {
    lb_onnx_format format;
    int opset;     /* LB_ONNX_OPSET_MIN to LB_ONNX_OPSET_MAX; 0: 21 for QDQ, the least for the others */
    bool exact;    /* the packed model's own fixed-point arithmetic between the convolutions, in double; not QONNX */
} lb_export_options;

/* "qdq", ...; NULL after the last. */
const char *lb_onnx_format_name(int format);

/* Writes the trainer's network as an ONNX file, which is replaced only when the new one is complete. Options may be NULL: QDQ. */
lb_status lb_export(lb_trainer *trainer, const char *path, const lb_export_options *options);

typedef struct lb_import_result {
    int ih, iw, ic, classes;
    int layers;          /* convolutions and linear layers */
    int added;           /* batch norms that the file does not have, to be set by the first training batch */
    int64_t parameters;
} lb_import_result;

/* Makes a run directory from a float network in an ONNX file: its graph, its weights as a checkpoint, and a recipe that trains on
 * from them. `overrides` are "a.b=value" texts for that recipe, data.name and data.path above all; otherwise the data set is
 * guessed from channels and classes. `result` may be NULL. What cannot be read is an error that names the node. */
lb_status lb_import(lb_ctx *ctx, const char *path, const char *dir, const char *const *overrides, int noverrides,
                    lb_import_result *result);

/* ---- Generated C (docs/codegen.md) ------------------------------------------------------------------------------------- */

typedef struct lb_codegen_info {
    int64_t constants;  /* bytes of weights and tables; the code comes on top */
    int64_t arena;      /* bytes of static memory */
} lb_codegen_info;

/* Writes the model as C99 into the directory `dir`, which is made; one that exists must be empty or made by this function. The
 * self-test's images are the first of the test split of the data that `data_spec` names; NULL: of the model's own data set, or
 * noise (and a warning) if that cannot be found. info may be NULL. */
lb_status lb_codegen(lb_packed *model, const char *dir, const char *data_spec, lb_codegen_info *info);

/* ---- Verification -------------------------------------------------------------------------------------------------- */

typedef struct lb_verify_path {
    const char *name;           /* "trainer", "ref", ...; static */
    int64_t equal;              /* images with every score equal to the trainer's */
    int64_t predictions_equal;  /* images with the same class */
    double max_abs_diff;        /* largest difference of a score */
} lb_verify_path;

typedef struct lb_verify_result {
    int64_t images;
    bool equal;                 /* every path gave the reference's scores on every image */
    int npaths;
    lb_verify_path paths[8];
} lb_verify_result;

/* Runs every test image through the trainer's own evaluation, through the packed runtime with each instruction set, and through
 * generated C (path "c"; compiled with $CC or cc, left out with a warning if there is none), and compares score by score. `path`: a
 * run directory (its model.lbm, or packed in memory if there is none), or a model inside one. */
lb_status lb_verify(lb_ctx *ctx, const char *path, const char *data_spec, lb_verify_result *result);

/* ---- Looking inside ------------------------------------------------------------------------------------------------ */

typedef struct lb_layer_info {
    char name[LB_NAME_SIZE], op[16], dst[32]; /* dst: "32x32x16" */
    int weight_bits, activation_bits; /* of the weights, of the layer's input; 32: float; 0: none */
    bool bits_learned;              /* weight_bits were (quant.weights.bit_lengths) */
    int64_t weights, macs, bytes;   /* bytes: packed, everything the layer needs */
    double weight_error;            /* relative L1 quantization error after the best common factor, NaN if float or unknown */
} lb_layer_info;

typedef struct lb_inspection {
    int nlayers;
    lb_layer_info *layers;          /* (nlayers) owned; free with lb_inspection_free */
    int64_t bytes, float_bytes;     /* packed model, and the same network in f32 */
    lb_ctx *ctx;
} lb_inspection;

/* path: run directory, packed model, or recipe (then nothing is trained and sizes are those of initial weights). */
lb_status lb_inspect(lb_ctx *ctx, const char *path, lb_inspection *inspection);

/* The same of a recipe, with overrides as in lb_recipe_load. */
lb_status lb_inspect_recipe(lb_ctx *ctx, const char *path, const char *const *overrides, int noverrides,
                            lb_inspection *inspection);
void lb_inspection_free(lb_inspection *inspection);

/* Rows of `lowbit list`: name and one line of help. */
typedef enum lb_list_kind { LB_LIST_METHODS, LB_LIST_MODELS, LB_LIST_DATA } lb_list_kind;
typedef struct lb_list_row {
    const char *name, *kind, *help;
} lb_list_row;
/* Row i, or NULL after the last. Static memory. */
const lb_list_row *lb_list(lb_list_kind kind, int i, lb_list_row *row);

/* The name nearest to a misspelt word in edit distance, NULL if none is near: for "did you mean ...?". */
const char *lb_nearest(const char *word, const char *const *names, size_t count);

#ifdef __cplusplus
}
#endif
#endif

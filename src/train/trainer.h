/* What lb_trainer is inside: shared by the training loop, checkpoints, and deployment. */
#ifndef LB_TRAINER_H
#define LB_TRAINER_H

#include "data/data.h"
#include "net/net.h"
#include "recipe/config.h"
#include "train/evaluate.h"
#include "train/jsonl.h"
#include "train/optim.h"
#include "train/plan.h"
#include "train/tensorboard.h"

/* Where training stands; everything a checkpoint holds besides tensors. */
typedef struct lb_progress_state {
    int stage;
    int64_t stage_step;      /* steps done in this stage */
    int64_t step;            /* steps done in all */
    double best_top1;        /* of this stage; -1: none yet */
    double loss_sum;         /* since the last evaluation */
    int64_t correct, images; /* since the last evaluation */
} lb_progress_state;

struct lb_trainer {
    lb_ctx *ctx;
    const lb_recipe *recipe;     /* borrowed, or owned_recipe */
    lb_recipe *owned_recipe;
    const lb_config *config;     /* of the current stage */
    lb_data *data;               /* of an opened run without images until something needs them */
    lb_net *net;
    lb_plan *plan;               /* made when training starts */
    lb_loader *loader;
    lb_optim *optim;
    lb_evaluator *evaluator;
    float *diff;                 /* (nvalues) */
    uint8_t *signs;              /* (nvalues / 8) sign of each weight at the last evaluation, for the flip ratio */
    const char *dir;             /* run directory, NULL: none */
    lb_jsonl *log;
    lb_tensorboard *board;
    lb_progress_state at;
    bool bf16;
    double created;              /* lb_now() when lb_trainer_create was called */
};

/* An imported network's graph in its run directory. */
#define LB_GRAPH_FILE "net.onnx"

/* Stage `stage`'s quantizers, and what training it needs besides the plan. */
lb_status lb_trainer_enter_stage(lb_trainer *trainer, int stage);

/* Loads the images if the trainer only has their description. */
lb_status lb_trainer_need_images(lb_trainer *trainer);

/* Plan, loader and optimizer of the current stage. */
lb_status lb_trainer_prepare(lb_trainer *trainer);

/* One training step on a batch: forward, loss, backward, optimizer. */
lb_status lb_trainer_step(lb_trainer *trainer, const lb_batch *batch, double lr);

int64_t lb_trainer_epoch_steps(const lb_trainer *trainer);
int64_t lb_trainer_stage_steps(const lb_trainer *trainer, int stage);

/* Checkpoints. Saving needs a prepared trainer if `full` (optimizer state and progress, for resuming). */
lb_status lb_checkpoint_save(const lb_trainer *trainer, const char *path, bool full);
/* Resumes: enters the checkpoint's stage, prepares it and restores everything. */
lb_status lb_checkpoint_resume(lb_trainer *trainer, const char *path);
/* Parameters only, into a trainer that has entered a stage: the checkpoint's own stage is entered first if `enter`. Otherwise quantizer
 * parameters that the file lacks are left to be started by their quantizers. */
lb_status lb_checkpoint_load(lb_trainer *trainer, const char *path, bool enter);

/* The data set that a checkpoint describes, without images; NULL if it does not describe any. */
lb_status lb_checkpoint_data(lb_ctx *ctx, const lb_data_config *config, const char *path, lb_data **data);

/* Weights and biases from another run (directory or .safetensors file), for train.init. */
lb_status lb_trainer_init_from(lb_trainer *trainer, const char *path);

/* Accuracy on all test images, and on the first `count` of them at most; reads the data set if that has not been done. */
lb_status lb_trainer_evaluate(lb_trainer *trainer, lb_metrics *metrics);
lb_status lb_trainer_evaluate_first(lb_trainer *trainer, int64_t count, lb_metrics *metrics);

#endif

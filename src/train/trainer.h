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
#include "train/run_files.h"
#include "train/tensorboard.h"

/* Where training stands; everything a checkpoint holds besides tensors. */
typedef struct lb_progress_state {
    int stage;
    int64_t stage_step;      /* steps done in this stage */
    int64_t step;            /* steps done in all */
    double best_top1;        /* of this stage; -1: none yet */
    double loss_sum;         /* since the last evaluation */
    double terms_sum;        /* likewise, of the first learner's terms */
    int64_t correct, images; /* since the last evaluation */
} lb_progress_state;

typedef enum lb_learner_kind {
    LB_LEARNER_STUDENT,          /* the recipe's network (the first learner), or the same at other bits */
    LB_LEARNER_TWIN,             /* the same in float */
    LB_LEARNER_TEACHER           /* another run's, not trained */
} lb_learner_kind;

/* A network that runs on a run's batches. What training alone needs is made by lb_trainer_prepare. */
typedef struct lb_learner {
    lb_learner_kind kind;
    int bits;                    /* of further students; 0: the recipe's own */
    char name[16];               /* in logs, checkpoints, as directory: "" (the first), "4bit", "twin", "teacher" */
    lb_net *net;                 /* owned, except a teacher's */
    lb_trainer *run;             /* teacher: the run it is from, owned */
    lb_config *config;           /* of the current stage; owned, except the first's and a teacher's, which are NULL */
    lb_plan *plan;
    lb_optim *optim;             /* NULL: not trained */
    float *diff;                 /* (nvalues) */
    lb_evaluator *evaluator;
    float lr;                    /* factor on the learning rate */
    float label_weight;          /* of train.loss in its loss; the terms below are the rest */
    double top1;                 /* at the last evaluation, percent; NaN: none yet */
    bool is_new;                 /* no weights yet that this run gave it */
} lb_learner;

/* Part of a learner's loss: how far its outputs, and the tensors of its taps, are from those of another, which are held fixed. */
typedef struct lb_term {
    int learner, target;
    float weight, feature_weight;
} lb_term;

#define LB_MAX_LEARNERS (2 + LB_MAX_STUDENTS)
#define LB_MAX_TERMS (2 * LB_MAX_LEARNERS)

struct lb_trainer {
    lb_ctx *ctx;
    const lb_recipe *recipe;     /* borrowed, or owned_recipe */
    lb_recipe *owned_recipe;
    const lb_config *config;     /* of the current stage */
    lb_data *data;               /* of an opened run without images until something needs them */
    bool net_is_given;           /* not built from the recipe */
    lb_net *net;                 /* the first learner's: what is evaluated, saved, packed */
    int nlearners, nterms;
    lb_learner learners[2 * LB_MAX_LEARNERS]; /* all run on every batch; from the second on they exist while training only. Twice as
                                               * many: those of two stages meet for a moment */
    lb_term terms[LB_MAX_TERMS];
    lb_loader *loader;
    uint8_t *signs;              /* (nvalues / 8) sign of each weight at the last evaluation, for the flip ratio */
    lb_run_files files;          /* of the run; all NULL: it has no directory */
    lb_jsonl *log;
    lb_tensorboard *board;
    lb_progress_state at;
    bool bf16;
    bool warned_of_scores;       /* that some are cut off */
    double created;              /* lb_now() when lb_trainer_create was called */
};

/* Stage `stage`'s quantizers, and what training it needs besides the plan. */
lb_status lb_trainer_enter_stage(lb_trainer *trainer, int stage);

/* Loads the images if the trainer only has their description. */
lb_status lb_trainer_need_images(lb_trainer *trainer);

/* Loader of the current stage, its learners with plan and optimizer, and its terms. Learners that the stage before had keep their
 * weights. */
lb_status lb_trainer_prepare(lb_trainer *trainer);

/* What quantizers and mixers are told of the next step. */
lb_quant_when lb_trainer_when(const lb_trainer *trainer);

/* One training step on a batch: every learner forward, losses, backward, optimizer. */
lb_status lb_trainer_step(lb_trainer *trainer, const lb_batch *batch, double lr);

/* distill.c: the learners besides the first that the current stage has, quantized, and the terms between all; plans are made
 * after. On failure there is the first alone. */
lb_status lb_distill_learners(lb_trainer *trainer);
/* What can be said of a later stage, t->config, before training: whether the further students can be quantized, and what features
 * there are. Quantizes t->net. */
lb_status lb_distill_check_stage(const lb_trainer *trainer);
/* Weights of new learners: those of train.init; else, in a later stage, the first's; else random ones of their own. */
lb_status lb_distill_start(lb_trainer *trainer);
/* The nodes whose tensors are compared, into options (taps). */
lb_status lb_distill_taps(const lb_trainer *trainer, const lb_learner *learner, lb_plan_options *options);
/* That tensors to be compared have the same size in all learners. */
lb_status lb_distill_check(const lb_trainer *trainer);
/* All terms of a learner, after the forward passes: gradients are added to plan->diff_logits and written to the taps. Returns
 * their sum. */
double lb_distill_terms(const lb_trainer *trainer, int learner);
/* Removes a learner that is not the first. */
void lb_distill_remove(lb_trainer *trainer, int learner);
/* A run of an imported network, and those of its students, have their own copies of the graph, so that they can be opened wherever
 * they are: writes one to `path`, if it is such a network and has none there. The first is that of t->files. */
lb_status lb_trainer_keep_graph(const lb_trainer *trainer, const char *path);
/* Once training has ended: students and twin as runs of their own, DIR/NAME/ with recipe, last weights, log and, if
 * imported, graph. */
lb_status lb_distill_save(lb_trainer *trainer);

/* Of a stage: steps of one epoch, whole batches only, at least 1 (a set without a whole batch is not trained on); its budget,
 * whether the recipe says it in steps or epochs. */
int64_t lb_trainer_epoch_steps(const lb_trainer *trainer, int stage);
int64_t lb_trainer_stage_steps(const lb_trainer *trainer, int stage);
/* For messages: the key of train that says this budget. */
const char *lb_trainer_budget(const lb_trainer *trainer, int stage);

/* Checkpoints. All that resuming needs, of a prepared trainer: all learners, optimizer state and progress. */
lb_status lb_checkpoint_save(const lb_trainer *trainer, const char *path);
/* One learner's parameters alone, as a checkpoint of its own. */
lb_status lb_checkpoint_save_learner(const lb_trainer *trainer, int learner, const char *path);
/* Resumes: enters the checkpoint's stage, prepares it and restores everything. */
lb_status lb_checkpoint_resume(lb_trainer *trainer, const char *path);
/* Parameters only, of the first learner: enters the checkpoint's stage, or stays in the one that the trainer has entered. */
lb_status lb_checkpoint_open(lb_trainer *trainer, const char *path);
lb_status lb_checkpoint_load(lb_trainer *trainer, const char *path);

/* The data set that a checkpoint describes, without images; NULL if it does not describe any. */
lb_status lb_checkpoint_data(lb_ctx *ctx, const lb_data_config *config, const char *path, lb_data **data);

/* Parameters into a network from another run (directory or .safetensors file), for train.init. What a quantizer learned is carried
 * over as `rescale` says (lb_quant_carry), as far as the file says what it is of; parameters that the file lacks are left to be
 * started. */
lb_status lb_net_init_from(lb_ctx *ctx, lb_net *net, const char *path, lb_rescale rescale);

/* Accuracy of a learner on all test images, and on the first `count` of them at most; reads the data set if that has not been
 * done. */
lb_status lb_trainer_evaluate(lb_trainer *trainer, lb_learner *learner, lb_metrics *metrics);
lb_status lb_trainer_evaluate_first(lb_trainer *trainer, lb_learner *learner, int64_t count, lb_metrics *metrics);

#endif

/* What lies where in a run directory. */
#ifndef LB_RUN_FILES_H
#define LB_RUN_FILES_H

#include "core/core.h"

#define LB_RUN_RECIPE "recipe.yaml"
#define LB_RUN_LAST "last.safetensors"
#define LB_RUN_BEST "best.safetensors"
#define LB_RUN_LOG "metrics.jsonl"
#define LB_RUN_GRAPH "net.onnx"
#define LB_RUN_MODEL "model.lbm"

typedef struct lb_run_files {
    const char *dir;    /* borrowed */
    const char *recipe; /* every key resolved */
    const char *last;   /* checkpoint to resume from */
    const char *best;   /* that of the last stage's best epoch, if there has been one */
    const char *log;    /* a JSON object per evaluation */
    const char *graph;  /* of an imported network */
} lb_run_files;

/* Removes temporary files that killed trainings left there. */
void lb_run_remove_leftovers(const char *dir);

/* Their paths in the directory, in the pool. */
lb_status lb_run_files_of(lb_pool *pool, const char *dir, lb_run_files *files);

/* The checkpoint to evaluate, pack or learn from: the best, or the last where there is none. */
const char *lb_run_checkpoint(const lb_run_files *files);

#endif

#include "train/run_files.h"

lb_status lb_run_files_of(lb_pool *pool, const char *dir, lb_run_files *files) {
    files->recipe = lb_pool_printf(pool, "%s/recipe.yaml", dir);
    files->last = lb_pool_printf(pool, "%s/" LB_RUN_LAST, dir);
    files->best = lb_pool_printf(pool, "%s/" LB_RUN_BEST, dir);
    files->log = lb_pool_printf(pool, "%s/metrics.jsonl", dir);
    files->graph = lb_pool_printf(pool, "%s/net.onnx", dir);
    return files->recipe && files->last && files->best && files->log && files->graph ? LB_OK : LB_ERR_MEMORY;
}

const char *lb_run_checkpoint(const lb_run_files *files) { return lb_exists(files->best) ? files->best : files->last; }

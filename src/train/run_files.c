#include "train/run_files.h"

lb_status lb_run_files_of(lb_pool *pool, const char *dir, lb_run_files *files) {
    files->dir = dir;
    files->recipe = lb_pool_printf(pool, "%s/" LB_RUN_RECIPE, dir);
    files->last = lb_pool_printf(pool, "%s/" LB_RUN_LAST, dir);
    files->best = lb_pool_printf(pool, "%s/" LB_RUN_BEST, dir);
    files->log = lb_pool_printf(pool, "%s/" LB_RUN_LOG, dir);
    files->graph = lb_pool_printf(pool, "%s/" LB_RUN_GRAPH, dir);
    return files->recipe && files->last && files->best && files->log && files->graph ? LB_OK : LB_ERR_MEMORY;
}

const char *lb_run_checkpoint(const lb_run_files *files) { return lb_exists(files->best) ? files->best : files->last; }

void lb_run_remove_leftovers(const char *dir) {
    static const char *const written[] = {LB_RUN_RECIPE, LB_RUN_LAST, LB_RUN_BEST, LB_RUN_LOG, LB_RUN_GRAPH};
    for (size_t i = 0; i < LB_COUNT(written); i++)
        lb_remove_leftovers(dir, written[i]);
}

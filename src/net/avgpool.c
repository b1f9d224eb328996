/* avgpool: the mean of each window; padding counts as zeros, or not at all. Global pooling is a window as large as the source. */
#include "net/ops.h"

const lb_op_desc lb_op_avgpool = {"avgpool", 1, lb_op_pool, NULL};

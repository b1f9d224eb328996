/* maxpool: the largest value of each window; padding never wins. */
#include "net/ops.h"

const lb_op_desc lb_op_maxpool = {"maxpool", 1, lb_op_pool, NULL};

/* A pool of integers: windows that never lie in the padding alone. */
#ifndef POOL_H
#define POOL_H

#include "tensor.h"

typedef struct pool {
    window s;
    int32_t type;   /* of the source */
    int32_t inside; /* a sum of fewer than kh kw pixels is made one of all */
} pool;

#endif

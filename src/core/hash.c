/* FNV-1a (Fowler, Noll and Vo), 64 bits. */
#include "core/core.h"

uint64_t lb_hash(uint64_t hash, const void *data, size_t size) {
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

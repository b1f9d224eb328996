/* CRC-32C (Castagnoli), of packed models, checkpoints and TensorBoard's records. */
#ifndef LBRT_CRC32C_H
#define LBRT_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of so many bytes more; start with crc = 0. */
uint32_t lbrt_crc32c(uint32_t crc, const void *data, size_t size);

#endif

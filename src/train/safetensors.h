/* Checkpoint files in the safetensors format (github.com/huggingface/safetensors): an 8-byte little-endian header length, a JSON
 * header {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, .., "__metadata__": {"key": "value"}}, then the
 * tensors' bytes without holes. The reader takes nothing on trust; every error names the file and, if there is one, the tensor. */
#ifndef LB_TRAIN_SAFETENSORS_H
#define LB_TRAIN_SAFETENSORS_H

#include "core/core.h"

enum { LB_ST_MAX_DIMS = 8 };

typedef enum lb_st_dtype {
    LB_ST_F32,
    LB_ST_F16,
    LB_ST_BF16,
    LB_ST_F64,
    LB_ST_I64,
    LB_ST_I32,
    LB_ST_I16,
    LB_ST_I8,
    LB_ST_U64,
    LB_ST_U32,
    LB_ST_U16,
    LB_ST_U8,
    LB_ST_BOOL
} lb_st_dtype;

const char *lb_st_dtype_name(lb_st_dtype dtype); /* "F32" */
size_t lb_st_dtype_size(lb_st_dtype dtype); /* bytes of an element */

typedef struct lb_st_tensor {
    const char *name;
    lb_st_dtype dtype;
    int ndims; /* 0: a single number */
    int64_t dims[LB_ST_MAX_DIMS]; /* outermost first */
    const void *data; /* dense, little-endian; from the reader always aligned to its element */
} lb_st_tensor;

typedef struct lb_st_pair {
    const char *key, *value;
} lb_st_pair;

/* Writes the tensors and the metadata atomically (see lb_write_file). Names and metadata must be UTF-8 and unique. In the file,
 * tensors of larger elements come first, otherwise in the order given, so that each is aligned. Same arguments, same bytes. */
lb_status lb_safetensors_write(lb_ctx *ctx, const char *path, const lb_st_tensor *tensors, size_t ntensors,
                               const lb_st_pair *metadata, size_t nmetadata);

typedef struct lb_safetensors lb_safetensors;

/* Reads and checks a whole file. LB_ERR_IO, LB_ERR_FORMAT or LB_ERR_MEMORY, and then *file is NULL. What the functions below
 * return is borrowed from the object. */
lb_status lb_safetensors_read(lb_ctx *ctx, const char *path, lb_safetensors **file);
void lb_safetensors_destroy(lb_safetensors *file);

size_t lb_safetensors_count(const lb_safetensors *file);
const lb_st_tensor *lb_safetensors_at(const lb_safetensors *file, size_t i); /* in the header's order; NULL behind the last */
const lb_st_tensor *lb_safetensors_find(const lb_safetensors *file, const char *name); /* NULL: not there */
const char *lb_safetensors_metadata(const lb_safetensors *file, const char *key); /* NULL: not there */

/* The data of a tensor that must be there with this type and shape; else LB_ERR_SHAPE, saying what is there and what should be. */
lb_status lb_safetensors_get(const lb_safetensors *file, const char *name, lb_st_dtype dtype, int ndims, const int64_t *dims,
                             const void **data);

#endif

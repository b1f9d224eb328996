/* ONNX files as messages: reading, with every length checked, and writing. The messages (onnx.pb-c.h) are generated from the public
 * schema by protobuf-c, with the prefix Lb__Onnx__ (CMakeLists.txt). */
#ifndef LB_ONNX_H
#define LB_ONNX_H

#include "core/core.h"
#include "onnx.pb-c.h"

/* protobuf-c's memory from the context; valid as long as the context. */
ProtobufCAllocator lb_onnx_allocator(lb_ctx *ctx);

/* Reads a model file of at most 2 GB (the format's limit; larger weights lie in external files). Messages nested deeper than any
 * network needs are refused, so that nobody's recursion runs out of stack. Free with lb_onnx_free. On failure *model is NULL. */
lb_status lb_onnx_load(lb_ctx *ctx, const char *path, Lb__Onnx__ModelProto **model);

/* The same from memory; `path` is for messages. */
lb_status lb_onnx_parse(lb_ctx *ctx, const char *path, const void *data, size_t size, Lb__Onnx__ModelProto **model);
void lb_onnx_free(lb_ctx *ctx, Lb__Onnx__ModelProto *model); /* NULL is fine */

/* Writes a model file, as lb_write_file does. */
lb_status lb_onnx_save(lb_ctx *ctx, const char *path, const Lb__Onnx__ModelProto *model);

#endif

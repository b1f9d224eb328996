/* A packed model on the host, for the other parts of deployment. */
#ifndef LB_PACKED_H
#define LB_PACKED_H

#include "data/data.h"
#include "deploy/pack.h"
#include "net/net.h"

struct lb_packed {
    lb_ctx *ctx;
    char *name;             /* the file, for messages */
    unsigned char *file;    /* (size) owned */
    size_t size;
    void *memory;           /* the runtime's model */
    lbrt_model *model;
    lbrt_info info;
    lbrt_isa isa;           /* whose kernels it uses */
    int threads, chunk;     /* images a thread takes at a time */
    size_t arena_size, shared_size; /* for `chunk` images on one thread, for one image on all */
    void **arenas;          /* (threads) each NULL before its first run */
    int started;            /* threads that the system had room for */
    lb_data_config config;  /* what the file says about its data */
    lb_data *data;          /* loaded when first wanted */
    char *data_spec;        /* of `data`; NULL: the model's own */
};

/* Lowers and packs a network; *bytes is freed with lb_free. class_names may be NULL. */
lb_status lb_pack_net(lb_ctx *ctx, const lb_net *net, const float mean[4], const float std[4], const char *const *class_names,
                      const lb_pack_note *notes, int nnotes, unsigned char **bytes, size_t *size);

/* As lb_pack, into memory: with class names, and notes about the data. */
lb_status lb_pack_trainer(const lb_trainer *trainer, unsigned char **bytes, size_t *size);

/* Opens a model that is in memory, which the result then owns, even on failure. */
lb_status lb_packed_from_memory(lb_ctx *ctx, const char *name, unsigned char *bytes, size_t size, lb_packed **model);

/* Opens the model again with the kernels of another instruction set, one that this machine has. */
lb_status lb_packed_set_isa(lb_packed *model, lbrt_isa isa);

/* True if the file begins like a packed model. */
bool lb_is_packed(const char *path);

/* LB_OK, unless the file is named as ONNX files are, which only import reads. */
lb_status lb_refuse_onnx(lb_ctx *ctx, const char *path);

/* Name, operator, shape and counts of layer i; bytes are left 0, the error unknown. */
void lb_describe_layer(const lbrt_graph *graph, int i, lb_layer_info *info);

/* What an instruction set's multiply-adds of so many bits reach on one thread, measured for some milliseconds. */
typedef struct lb_peak {
    const char *isa, *bits, *how;
    double gops; /* 10^9 operations per second, two per multiply-add */
} lb_peak;

/* Measures row i of the table, sorted by instruction set; false: none that this machine has is left. */
bool lb_peak_row(int i, lb_peak *peak);

/* GOP/s of an instruction set's best 8-bit multiply-adds; 0: it has none (ref). */
double lb_peak_gops(lbrt_isa isa);

/* The data set `spec` names, NULL: the model's own; model->data, checked against the model's input. */
lb_status lb_packed_data(lb_packed *model, const char *spec);

#endif

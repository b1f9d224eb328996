/* The rows of `lowbit list`, from the tables that hold the methods, networks and data sets. */
#include "data/data.h"
#include "net/net.h"

static const lb_list_row *method_row(int i, lb_list_row *row) {
    size_t count;
    const lb_quantizer *const *quantizers = lb_quantizer_list(&count);
    if (i < (int)count) {
        const lb_quantizer *q = quantizers[i];
        *row = (lb_list_row){q->name,
                             q->weights && q->activations ? "weights, activations"
                             : q->weights                 ? "weights"
                                                          : "activations",
                             q->help};
        return row;
    }
    i -= (int)count;
    const lb_mixer *const *mixers = lb_mixer_list(&count);
    if (i >= (int)count)
        return NULL;
    *row = (lb_list_row){mixers[i]->name, "mixer", mixers[i]->help};
    return row;
}

const lb_list_row *lb_list(lb_list_kind kind, int i, lb_list_row *row) {
    if (i < 0)
        return NULL;
    if (kind == LB_LIST_METHODS)
        return method_row(i, row);
    if (kind == LB_LIST_DATA)
        return lb_data_row(i, row);
    size_t count;
    const lb_zoo_entry *zoo = lb_zoo_list(&count);
    if (kind != LB_LIST_MODELS || i > (int)count)
        return NULL;
    if (i == (int)count) {
        *row = (lb_list_row){"onnx", "network", "a network from an ONNX file, made by `lowbit import`: model.path"};
        return row;
    }
    *row = (lb_list_row){zoo[i].name, "network", zoo[i].help};
    return row;
}

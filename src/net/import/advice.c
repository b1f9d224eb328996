/* What to do about operators that are not read. */
#include "net/import/internal.h"

typedef struct advice {
    const char *op, *what, *instead; /* what it comes from; what to train the network with */
} advice;

static const advice rows[] = {
    {"Erf", "GELU", "Hardswish or ReLU"},
    {"Gelu", "GELU", "Hardswish or ReLU"},
    {"Mish", "Mish", "Hardswish or ReLU"},
    {"Softplus", "Softplus, or a part of Mish", "Hardswish or ReLU"},
    {"Elu", "ELU", "LeakyReLU or PReLU"},
    {"Selu", "SELU", "LeakyReLU or PReLU"},
    {"Celu", "CELU", "LeakyReLU or PReLU"},
    {"ThresholdedRelu", "a threshold", "ReLU"},
    {"Softsign", "Softsign", "Tanh"},
    {"InstanceNormalization", "instance norm, or a part of group norm", "batch norm"},
    {"GroupNormalization", "group norm", "batch norm"},
    {"LayerNormalization", "layer norm", "batch norm"},
    {"RMSNormalization", "RMS norm", "batch norm"},
    {"LRN", "local response norm", "batch norm"},
    {"LpPool", "a pool of powers", "AvgPool or MaxPool"},
    {"GlobalLpPool", "a pool of powers", "AdaptiveAvgPool"},
    {"LSTM", "a recurrent layer", "convolutions"},
    {"GRU", "a recurrent layer", "convolutions"},
    {"RNN", "a recurrent layer", "convolutions"},
    {"Einsum", "attention, or a linear layer", "convolutions or Linear"},
    {"Attention", "attention", "convolutions"},
    {"DepthToSpace", "PixelShuffle", "ConvTranspose2d or Upsample by nearest pixels"},
    {"SpaceToDepth", "PixelUnshuffle", "x[..., ::2, ::2] and the others side by side, which is the same"},
};

static const struct {
    const char *op, *reason;
} others[] = {
    {"ArgMax", "the class of the highest score; export the network without it, scores are what is read"},
    {"TopK", "the classes of the highest scores; export the network without it, scores are what is read"},
    {"NonMaxSuppression", "of a detector; networks for classification and regression are read"},
    {"If", "it depends on the image what is computed; export the network without branches (torch.onnx.export traces them away)"},
    {"Loop", "it depends on the image what is computed; export the network without loops (torch.onnx.export traces them away)"},
};

lb_status lb_import_refuse_operator(lb_importer *im) {
    const char *op = im->node->op_type;
    for (size_t i = 0; i < LB_COUNT(rows); i++)
        if (!strcmp(op, rows[i].op))
            return lb_import_refuse(im, "this operator is not read: it is %s; train the network with %s", rows[i].what,
                                    rows[i].instead);
    for (size_t i = 0; i < LB_COUNT(others); i++)
        if (!strcmp(op, others[i].op))
            return lb_import_refuse(im, "this operator is not read: %s", others[i].reason);
    return lb_import_refuse(im, "this operator is not read; docs/onnx.md lists those that are");
}

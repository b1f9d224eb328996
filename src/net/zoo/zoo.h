/* For the families of the zoo: what their build functions share. Layer names are PyTorch-like ("layer1.0.conv1"). */
#ifndef LB_NET_ZOO_H
#define LB_NET_ZOO_H

#include "net/net.h"
#include "recipe/config.h"

/* What a family's helper functions carry around. */
typedef struct lb_zoo {
    lb_net *net;
    const lb_model_config *model;
} lb_zoo;

/* A layer's name, "prefix.suffix", or the suffix alone where the prefix is "". */
typedef struct lb_zoo_name {
    char text[64];
} lb_zoo_name;
lb_zoo_name lb_zoo_join(const char *prefix, const char *suffix);
lb_zoo_name lb_zoo_number(const char *prefix, int number); /* "conv3" */

/* Channels times model.width, to the nearest whole number, at least 1. */
int lb_zoo_width(const lb_zoo *zoo, int channels);

/* An activation of the family's own kind, or of the one model.act names. */
int lb_zoo_act(const lb_zoo *zoo, int src, const char *name, lb_act_kind own);

/* Dropout by the family's own ratio or by model.dropout; nothing if that is 0. */
int lb_zoo_dropout(const lb_zoo *zoo, int src, const char *name, float own);

/* A residual shortcut that changes the shape: a convolution without padding, marked as a shortcut, or the parameter-free one. */
int lb_zoo_shortcut_conv(const lb_zoo *zoo, int src, const char *name, int oc, int k, int stride, bool bias);
int lb_zoo_shortcut_pad(const lb_zoo *zoo, int src, const char *name, int oc, int stride);

/* Convolution without bias, then batch norm. */
int lb_zoo_conv_bn(const lb_zoo *zoo, int src, const char *conv, const char *bn, int oc, int k, int stride, int pad, int groups);

/* dropout (the family's `ratio`), then the classifier "fc". */
int lb_zoo_classifier(const lb_zoo *zoo, int src, float ratio);

/* Build functions, one per row of the table in zoo.c. */
#define LB_ZOO(X)                                                                                                                  \
    X(lenet5, "lenet5", 28, 1, "", false, "LeNet-5: 32C5-MP2-64C5-MP2-512FC, batch norm after each layer")                         \
    X(vgg7, "vgg7", 32, 3, "", false, "VGG-7: 2x128C3-MP2-2x256C3-MP2-2x512C3-MP2-1024FC (Li 2016, RQ)")                           \
    X(vgg9, "vgg9", 32, 3, "", false, "VGG-9 of SQ: 2x64C3-MP2-2x128C3-MP2-2x256C3-MP2-2x512FC, dropout (Dong 2017)")              \
    X(vgg_small, "vgg-small", 32, 3, "", false, "VGG-small: 2x128C3-MP2-2x256C3-MP2-2x512C3-MP2, one classifier (LQ-Nets)")        \
    X(binarynet, "binarynet", 32, 3, "", false,                                                                                    \
      "BinaryNet: VGG with pooling before batch norm, hard tanh, 2x1024FC (Courbariaux 2016)")                                     \
    X(resnet20, "resnet20", 32, 3, "sq", true, "ResNet-20 for CIFAR, 16-32-64 channels (He 2016); variant sq: as Dong 2017")       \
    X(resnet32, "resnet32", 32, 3, "sq", true, "ResNet-32 for CIFAR; variant sq")                                                  \
    X(resnet44, "resnet44", 32, 3, "sq", true, "ResNet-44 for CIFAR; variant sq")                                                  \
    X(resnet56, "resnet56", 32, 3, "sq", true, "ResNet-56 for CIFAR; variant sq")                                                  \
    X(resnet110, "resnet110", 32, 3, "sq", true, "ResNet-110 for CIFAR; variant sq")                                               \
    X(preresnet20, "preresnet20", 32, 3, "", true, "ResNet-20 for CIFAR with pre-activation (He 2016b)")                           \
    X(resnet18, "resnet18", 224, 3, "", true, "ResNet-18 for ImageNet (He 2016)")                                                  \
    X(resnet34, "resnet34", 224, 3, "", true, "ResNet-34 for ImageNet")                                                            \
    X(resnet50, "resnet50", 224, 3, "", true, "ResNet-50 for ImageNet, stride in the 3x3 convolution")                             \
    X(mobilenet_v1, "mobilenet-v1", 224, 3, "", false, "MobileNet: depthwise separable convolutions (Howard 2017)")                \
    X(mobilenet_v2, "mobilenet-v2", 224, 3, "", false, "MobileNet v2: inverted residuals, ReLU6 (Sandler 2018)")

#define LB_X(id, name, size, channels, variants, residual, help)                                                                   \
    lb_status lb_zoo_##id(lb_net *net, const lb_config *config, int input_node);
LB_ZOO(LB_X)
#undef LB_X

#endif

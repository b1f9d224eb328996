/* Residual networks: for CIFAR (6n + 2 layers; plain, the SQ code's variant, and pre-activation) and for ImageNet. */
#include "net/zoo/zoo.h"

/* Does a block change the shape, so that its shortcut cannot be the identity? */
static bool changes(const lb_zoo *zoo, int src, int oc, int stride) {
    return src >= 0 && (stride != 1 || zoo->net->nodes[src].dst.c != oc);
}

/* Shortcut of a block that changes the shape: conv + batch norm, or strided identity with zero channels. */
static int shortcut(const lb_zoo *zoo, int src, const char *prefix, int oc, int k, int stride, bool bias) {
    if (zoo->model->shortcut == LB_SHORTCUT_PAD)
        return lb_zoo_shortcut_pad(zoo, src, lb_zoo_join(prefix, "shortcut").text, oc, stride);
    int x = lb_zoo_shortcut_conv(zoo, src, lb_zoo_join(prefix, "shortcut.conv").text, oc, k, stride, bias);
    return lb_net_batchnorm(zoo->net, x, lb_zoo_join(prefix, "shortcut.bn").text, 0, 0);
}

/* conv + batch norm, numbered inside a block: its last. The others have a relu. */
static int last_unit(const lb_zoo *zoo, int src, const char *prefix, int number, int oc, int k, int stride, bool bias) {
    int x =
        lb_net_conv2d(zoo->net, src, lb_zoo_join(prefix, lb_zoo_number("conv", number).text).text, oc, k, stride, k / 2, 1, bias);
    return lb_net_batchnorm(zoo->net, x, lb_zoo_join(prefix, lb_zoo_number("bn", number).text).text, 0, 0);
}

static int unit(const lb_zoo *zoo, int src, const char *prefix, int number, int oc, int k, int stride, bool bias) {
    int x = last_unit(zoo, src, prefix, number, oc, k, stride, bias);
    return lb_zoo_act(zoo, x, lb_zoo_join(prefix, lb_zoo_number("relu", number).text).text, LB_ACT_RELU);
}

/* Two 3x3 convolutions and a shortcut. `sq`, as in SQ's released model (Dong 2017): convolutions with biases, 2x2 shortcut, no relu
 * after the addition. */
static int basic_block(const lb_zoo *zoo, int src, const char *prefix, int oc, int stride, bool sq) {
    int x = unit(zoo, src, prefix, 1, oc, 3, stride, sq);
    x = last_unit(zoo, x, prefix, 2, oc, 3, 1, sq);
    int other = src;
    if (changes(zoo, src, oc, stride))
        other = shortcut(zoo, src, prefix, oc, sq && stride == 2 ? 2 : 1, stride, sq);
    x = lb_net_add(zoo->net, x, other, lb_zoo_join(prefix, "add").text);
    return sq ? x : lb_zoo_act(zoo, x, lb_zoo_join(prefix, "relu").text, LB_ACT_RELU);
}

/* 1x1, 3x3 (which has the stride), 1x1 to four times the channels. */
static int bottleneck(const lb_zoo *zoo, int src, const char *prefix, int oc, int stride) {
    int x = unit(zoo, src, prefix, 1, oc, 1, 1, false);
    x = unit(zoo, x, prefix, 2, oc, 3, stride, false);
    x = last_unit(zoo, x, prefix, 3, 4 * oc, 1, 1, false);
    int other = changes(zoo, src, 4 * oc, stride) ? shortcut(zoo, src, prefix, 4 * oc, 1, stride, false) : src;
    x = lb_net_add(zoo->net, x, other, lb_zoo_join(prefix, "add").text);
    return lb_zoo_act(zoo, x, lb_zoo_join(prefix, "relu").text, LB_ACT_RELU);
}

/* batch norm and relu before each convolution; the shortcut of a block that changes the shape reads the first relu. */
static int preact_block(const lb_zoo *zoo, int src, const char *prefix, int oc, int stride) {
    lb_net *net = zoo->net;
    bool change = changes(zoo, src, oc, stride);
    int x = lb_net_batchnorm(net, src, lb_zoo_join(prefix, "bn1").text, 0, 0);
    int first = x = lb_zoo_act(zoo, x, lb_zoo_join(prefix, "relu1").text, LB_ACT_RELU);
    x = lb_net_conv2d(net, x, lb_zoo_join(prefix, "conv1").text, oc, 3, stride, 1, 1, false);
    x = lb_net_batchnorm(net, x, lb_zoo_join(prefix, "bn2").text, 0, 0);
    x = lb_zoo_act(zoo, x, lb_zoo_join(prefix, "relu2").text, LB_ACT_RELU);
    x = lb_net_conv2d(net, x, lb_zoo_join(prefix, "conv2").text, oc, 3, 1, 1, 1, false);
    int other = src;
    if (change && zoo->model->shortcut == LB_SHORTCUT_PAD)
        other = lb_zoo_shortcut_pad(zoo, first, lb_zoo_join(prefix, "shortcut").text, oc, stride);
    else if (change)
        other = lb_zoo_shortcut_conv(zoo, first, lb_zoo_join(prefix, "shortcut.conv").text, oc, 1, stride, false);
    return lb_net_add(net, x, other, lb_zoo_join(prefix, "add").text);
}

typedef enum block_kind { BASIC, SQ, PREACT, BOTTLENECK } block_kind;

/* Groups of blocks: channels double and the image halves at each group but the first. */
static int groups(const lb_zoo *zoo, int x, block_kind kind, const int *blocks, int ngroups, int channels) {
    for (int g = 0; g < ngroups; g++) {
        int oc = lb_zoo_width(zoo, channels << g);
        for (int b = 0; b < blocks[g]; b++) {
            int stride = g > 0 && b == 0 ? 2 : 1;
            lb_zoo_name layer = lb_zoo_number("layer", g + 1);
            lb_zoo_name prefix = lb_zoo_number(lb_zoo_join(layer.text, "").text, b);
            if (kind == BOTTLENECK)
                x = bottleneck(zoo, x, prefix.text, oc, stride);
            else if (kind == PREACT)
                x = preact_block(zoo, x, prefix.text, oc, stride);
            else
                x = basic_block(zoo, x, prefix.text, oc, stride, kind == SQ);
        }
    }
    return x;
}

/* He et al. 2016, section 4.2, with n blocks per group; as ../shared/peers/torch_train.py. */
static lb_status cifar(lb_net *net, const lb_config *config, int x, int n) {
    lb_zoo zoo = {net, &config->model};
    bool sq = !strcmp(config->model.variant, "sq");
    x = lb_net_conv2d(net, x, "conv1", lb_zoo_width(&zoo, 16), 3, 1, 1, 1, sq);
    x = lb_net_batchnorm(net, x, "bn1", 0, 0);
    x = lb_zoo_act(&zoo, x, "relu", LB_ACT_RELU);
    x = groups(&zoo, x, sq ? SQ : BASIC, (const int[]){n, n, n}, 3, 16);
    x = lb_net_globalpool(net, x, "avgpool");
    lb_zoo_classifier(&zoo, x, 0);
    return net->status;
}

lb_status lb_zoo_resnet20(lb_net *net, const lb_config *config, int x) { return cifar(net, config, x, 3); }
lb_status lb_zoo_resnet32(lb_net *net, const lb_config *config, int x) { return cifar(net, config, x, 5); }
lb_status lb_zoo_resnet44(lb_net *net, const lb_config *config, int x) { return cifar(net, config, x, 7); }
lb_status lb_zoo_resnet56(lb_net *net, const lb_config *config, int x) { return cifar(net, config, x, 9); }
lb_status lb_zoo_resnet110(lb_net *net, const lb_config *config, int x) { return cifar(net, config, x, 18); }

/* He et al. 2016b. */
lb_status lb_zoo_preresnet20(lb_net *net, const lb_config *config, int x) {
    lb_zoo zoo = {net, &config->model};
    x = lb_net_conv2d(net, x, "conv1", lb_zoo_width(&zoo, 16), 3, 1, 1, 1, false);
    x = groups(&zoo, x, PREACT, (const int[]){3, 3, 3}, 3, 16);
    x = lb_net_batchnorm(net, x, "bn1", 0, 0);
    x = lb_zoo_act(&zoo, x, "relu", LB_ACT_RELU);
    x = lb_net_globalpool(net, x, "avgpool");
    lb_zoo_classifier(&zoo, x, 0);
    return net->status;
}

/* He et al. 2016, section 4.1, in torchvision's shape. */
static lb_status imagenet(lb_net *net, const lb_config *config, int x, block_kind kind, const int *blocks) {
    lb_zoo zoo = {net, &config->model};
    x = lb_zoo_conv_bn(&zoo, x, "conv1", "bn1", lb_zoo_width(&zoo, 64), 7, 2, 3, 1);
    x = lb_zoo_act(&zoo, x, "relu", LB_ACT_RELU);
    x = lb_net_maxpool(net, x, "maxpool", 3, 2, 1);
    x = groups(&zoo, x, kind, blocks, 4, 64);
    x = lb_net_globalpool(net, x, "avgpool");
    lb_zoo_classifier(&zoo, x, 0);
    return net->status;
}

lb_status lb_zoo_resnet18(lb_net *net, const lb_config *config, int x) {
    return imagenet(net, config, x, BASIC, (const int[]){2, 2, 2, 2});
}
lb_status lb_zoo_resnet34(lb_net *net, const lb_config *config, int x) {
    return imagenet(net, config, x, BASIC, (const int[]){3, 4, 6, 3});
}
lb_status lb_zoo_resnet50(lb_net *net, const lb_config *config, int x) {
    return imagenet(net, config, x, BOTTLENECK, (const int[]){3, 4, 6, 3});
}

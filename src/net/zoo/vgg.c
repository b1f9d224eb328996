/* The VGG-like networks of low-bit papers: pairs of 3x3 convolutions, each pair halving the image, then fully connected layers. */
#include "net/zoo/zoo.h"

typedef struct plan {
    int channels[3]; /* of each pair */
    int nfc, fc; /* hidden fully connected layers, and their width */
    float drop_pool, drop_fc;
    bool pool_first; /* conv, pool, batch norm, act instead of conv, batch norm, act, pool */
    bool output_norm; /* batch norm after the classifier, which then needs no bias */
    lb_act_kind act;
    float eps;
} plan;

static lb_status build(lb_net *net, const lb_config *config, int x, const plan *p) {
    lb_zoo zoo = {net, &config->model};
    int layer = 0;
    for (int i = 0; i < 6; i++) {
        layer++;
        bool pool = i % 2 == 1;
        x = lb_net_conv2d(net, x, lb_zoo_number("conv", layer).text, lb_zoo_width(&zoo, p->channels[i / 2]), 3, 1, 1, 1, false);
        if (pool && p->pool_first)
            x = lb_net_maxpool(net, x, lb_zoo_number("pool", layer).text, 2, 2, 0);
        x = lb_net_batchnorm(net, x, lb_zoo_number("bn", layer).text, p->eps, 0);
        x = lb_zoo_act(&zoo, x, lb_zoo_number("relu", layer).text, p->act);
        if (pool && !p->pool_first)
            x = lb_net_maxpool(net, x, lb_zoo_number("pool", layer).text, 2, 2, 0);
        if (pool && p->drop_pool > 0)
            x = lb_zoo_dropout(&zoo, x, lb_zoo_number("dropout", layer).text, p->drop_pool);
    }
    x = lb_net_flatten(net, x, "flatten");
    for (int i = 0; i < p->nfc; i++) {
        layer++;
        x = lb_net_linear(net, x, lb_zoo_number("fc", layer).text, lb_zoo_width(&zoo, p->fc), false);
        x = lb_net_batchnorm(net, x, lb_zoo_number("bn", layer).text, p->eps, 0);
        x = lb_zoo_act(&zoo, x, lb_zoo_number("relu", layer).text, p->act);
        if (p->drop_fc > 0 && i < p->nfc - 1)
            x = lb_zoo_dropout(&zoo, x, lb_zoo_number("dropout", layer).text, p->drop_fc);
    }
    if (p->output_norm) {
        x = lb_zoo_dropout(&zoo, x, "dropout", p->drop_fc);
        x = lb_net_linear(net, x, "fc", net->classes, false);
        lb_net_batchnorm(net, x, "bn", p->eps, 0);
    } else {
        lb_zoo_classifier(&zoo, x, p->drop_fc);
    }
    return net->status;
}

/* Li 2016; RQ, Louizos 2019. */
lb_status lb_zoo_vgg7(lb_net *net, const lb_config *config, int x) {
    return build(net, config, x, &(plan){.channels = {128, 256, 512}, .nfc = 1, .fc = 1024, .act = LB_ACT_RELU});
}

/* SQ, Dong 2017, the released Caffe model: no biases but the classifier's, batch norm with learned scale, dropout 0.25 and 0.5. Its
 * weights start from N(0, 0.01^2): set model.init_std to 0.01. */
lb_status lb_zoo_vgg9(lb_net *net, const lb_config *config, int x) {
    return build(net, config, x,
                 &(plan){.channels = {64, 128, 256}, .nfc = 2, .fc = 512, .drop_pool = 0.25f, .drop_fc = 0.5f, .act = LB_ACT_RELU});
}

/* Zhang et al. 2018 (LQ-Nets): the convolutions of VGG-7 and one classifier on their 4x4x512. */
lb_status lb_zoo_vgg_small(lb_net *net, const lb_config *config, int x) {
    return build(net, config, x, &(plan){.channels = {128, 256, 512}, .act = LB_ACT_RELU});
}

/* BNN, Courbariaux 2016: conv, pool, batch norm (eps 1e-4), hard tanh; batch norm after the classifier too. */
lb_status lb_zoo_binarynet(lb_net *net, const lb_config *config, int x) {
    return build(net, config, x,
                 &(plan){.channels = {128, 256, 512},
                         .nfc = 2,
                         .fc = 1024,
                         .pool_first = true,
                         .output_norm = true,
                         .act = LB_ACT_HARDTANH,
                         .eps = 1e-4f});
}

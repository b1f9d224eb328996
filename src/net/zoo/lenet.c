/* LeNet-5 as low-bit papers use it: 32C5-MP2-64C5-MP2-512FC (Li 2016; RQ, Louizos 2019). Unpadded convolutions as in Caffe's
 * LeNet, which the papers started from; batch norm after each layer, without which low-bit weights have no scale of their own. */
#include "net/zoo/zoo.h"

lb_status lb_zoo_lenet5(lb_net *net, const lb_config *config, int x) {
    lb_zoo zoo = {net, &config->model};
    static const int channels[2] = {32, 64};
    for (int i = 0; i < 2; i++) {
        x = lb_zoo_conv_bn(&zoo, x, lb_zoo_number("conv", i + 1).text, lb_zoo_number("bn", i + 1).text,
                           lb_zoo_width(&zoo, channels[i]), 5, 1, 0, 1);
        x = lb_zoo_act(&zoo, x, lb_zoo_number("relu", i + 1).text, LB_ACT_RELU);
        x = lb_net_maxpool(net, x, lb_zoo_number("pool", i + 1).text, 2, 2, 0);
    }
    x = lb_net_flatten(net, x, "flatten");
    x = lb_net_linear(net, x, "fc1", lb_zoo_width(&zoo, 512), false);
    x = lb_net_batchnorm(net, x, "bn3", 0, 0);
    x = lb_zoo_act(&zoo, x, "relu3", LB_ACT_RELU);
    lb_zoo_classifier(&zoo, x, 0);
    return net->status;
}

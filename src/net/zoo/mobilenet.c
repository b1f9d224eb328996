/* MobileNets: depthwise separable convolutions (Howard 2017) and inverted residuals (Sandler 2018). */
#include "net/zoo/zoo.h"

/* conv + batch norm named "<prefix>.conv", "<prefix>.bn"; with an activation, "<prefix>.relu". */
static int linear_unit(const lb_zoo *zoo, int src, const char *prefix, int oc, int k, int stride, int groups) {
    return lb_zoo_conv_bn(zoo, src, lb_zoo_join(prefix, "conv").text, lb_zoo_join(prefix, "bn").text, oc, k, stride, k / 2, groups);
}

static int unit(const lb_zoo *zoo, int src, const char *prefix, int oc, int k, int stride, int groups, lb_act_kind kind) {
    return lb_zoo_act(zoo, linear_unit(zoo, src, prefix, oc, k, stride, groups), lb_zoo_join(prefix, "relu").text, kind);
}

static int depthwise(const lb_zoo *zoo, int src, const char *prefix, int stride, lb_act_kind kind) {
    int channels = src >= 0 ? zoo->net->nodes[src].dst.c : 1;
    return unit(zoo, src, prefix, channels, 3, stride, channels, kind);
}

lb_status lb_zoo_mobilenet_v1(lb_net *net, const lb_config *config, int x) {
    static const struct {
        int oc, stride;
    } blocks[] = {{64, 1},  {128, 2}, {128, 1}, {256, 2}, {256, 1},  {512, 2}, {512, 1},
                  {512, 1}, {512, 1}, {512, 1}, {512, 1}, {1024, 2}, {1024, 1}};
    lb_zoo zoo = {net, &config->model};
    x = unit(&zoo, x, "stem", lb_zoo_width(&zoo, 32), 3, 2, 1, LB_ACT_RELU);
    for (size_t i = 0; i < LB_COUNT(blocks); i++) {
        lb_zoo_name block = lb_zoo_number("block", (int)i + 1);
        x = depthwise(&zoo, x, lb_zoo_join(block.text, "depthwise").text, blocks[i].stride, LB_ACT_RELU);
        x = unit(&zoo, x, lb_zoo_join(block.text, "pointwise").text, lb_zoo_width(&zoo, blocks[i].oc), 1, 1, 1, LB_ACT_RELU);
    }
    x = lb_net_globalpool(net, x, "avgpool");
    lb_zoo_classifier(&zoo, x, 0);
    return net->status;
}

/* Expand by 1x1, 3x3 depthwise, project by 1x1 without activation; added to the source where the shape stays. */
static int inverted_residual(const lb_zoo *zoo, int src, const char *block, int oc, int stride, int expand) {
    int ic = src >= 0 ? zoo->net->nodes[src].dst.c : 1, x = src;
    if (expand != 1)
        x = unit(zoo, x, lb_zoo_join(block, "expand").text, ic > INT32_MAX / expand ? INT32_MAX : ic * expand, 1, 1, 1,
                 LB_ACT_RELU6);
    x = depthwise(zoo, x, lb_zoo_join(block, "depthwise").text, stride, LB_ACT_RELU6);
    x = linear_unit(zoo, x, lb_zoo_join(block, "project").text, oc, 1, 1, 1);
    return stride == 1 && ic == oc ? lb_net_add(zoo->net, src, x, lb_zoo_join(block, "add").text) : x;
}

lb_status lb_zoo_mobilenet_v2(lb_net *net, const lb_config *config, int x) {
    static const struct {
        int expand, oc, repeat, stride;
    } groups[] = {{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    lb_zoo zoo = {net, &config->model};
    x = unit(&zoo, x, "stem", lb_zoo_width(&zoo, 32), 3, 2, 1, LB_ACT_RELU6);
    int block = 0;
    for (size_t g = 0; g < LB_COUNT(groups); g++)
        for (int i = 0; i < groups[g].repeat; i++)
            x = inverted_residual(&zoo, x, lb_zoo_number("block", ++block).text, lb_zoo_width(&zoo, groups[g].oc),
                                  i ? 1 : groups[g].stride, groups[g].expand);
    x = unit(&zoo, x, "head", lb_zoo_width(&zoo, 1280), 1, 1, 1, LB_ACT_RELU6);
    x = lb_net_globalpool(net, x, "avgpool");
    lb_zoo_classifier(&zoo, x, 0.2f);
    return net->status;
}

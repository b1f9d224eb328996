/* Builds a small network by hand, quantizes it to 2 bits, trains it on Fashion-MNIST, and packs it.
 *
 *     example_train DIR [STEPS]        writes the run and DIR/model.lbm
 *
 * Built beside the program (build/example_train); elsewhere:  cc train.c $(pkg-config --cflags --libs lowbit) */
#include <stdio.h>

#include <lowbit/lowbit.h>

/* What lasts long tells how far it is. */
static void report(void *user, const lb_event *event) {
    (void)user;
    if (event->kind != LB_EVENT_PROGRESS)
        fprintf(stderr, "%s\n", event->text);
}

/* Two convolutions and a classifier. Where a batch norm and an activation follow a layer, lowbit quantizes the activation. */
static lb_status build(lb_ctx *ctx, lb_net **net) {
    lb_status status = lb_net_create(ctx, "two-convs", 28, 28, 1, net);
    if (status != LB_OK)
        return status;
    int x = lb_net_input(*net);
    x = lb_net_conv2d(*net, x, "conv1", 16, 3, 1, 1, 1, false); /* 28 x 28 x 16 */
    x = lb_net_relu(*net, lb_net_batchnorm(*net, x, "bn1", 0, 0), "relu1");
    x = lb_net_maxpool(*net, x, "pool1", 2, 2, 0); /* 14 x 14 x 16 */
    x = lb_net_conv2d(*net, x, "conv2", 32, 3, 1, 1, 1, false); /* 14 x 14 x 32 */
    x = lb_net_relu(*net, lb_net_batchnorm(*net, x, "bn2", 0, 0), "relu2");
    x = lb_net_maxpool(*net, x, "pool2", 2, 2, 0); /* 7 x 7 x 32 */
    lb_net_linear(*net, lb_net_flatten(*net, x, "flatten"), "classes", 10, true);
    return lb_net_finish(*net); /* a failure of any call above comes out here */
}

/* The recipe: all that is not the network. The same keys as in a YAML file; docs/recipes.md lists them. */
static lb_status fill(lb_recipe *recipe, const char *steps) {
    const char *const settings[][2] = {
        {"data.name", "fashion-mnist"},   {"quant.weights.method", "dorefa"},     {"quant.weights.bits", "2"},
        {"train.steps", steps},           {"quant.activations.method", "dorefa"}, {"quant.activations.bits", "2"},
        {"train.optimizer.name", "adam"}, {"train.optimizer.lr", "0.002"},
    };
    lb_status status = LB_OK;
    for (size_t i = 0; i < sizeof settings / sizeof *settings && status == LB_OK; i++)
        status = lb_recipe_set(recipe, settings[i][0], settings[i][1]);
    return status;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: example_train DIR [STEPS]\n");
        return 2;
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/model.lbm", argv[1]);

    lb_ctx *ctx = NULL;
    lb_net *net = NULL;
    lb_recipe *recipe = NULL;
    lb_trainer *trainer = NULL;
    lb_metrics metrics = {0};
    lb_ctx_options options = {.report = report};
    lb_status status = lb_ctx_create(&options, &ctx);
    if (status == LB_OK)
        status = lb_recipe_create(ctx, &recipe);
    if (status == LB_OK)
        status = fill(recipe, argc > 2 ? argv[2] : "400");
    if (status == LB_OK)
        status = build(ctx, &net);
    if (status == LB_OK) {
        status = lb_trainer_create(ctx, recipe, net, &trainer);
        net = NULL; /* the trainer's now */
    }
    if (status == LB_OK)
        status = lb_trainer_run(trainer, argv[1], false);
    if (status == LB_OK)
        status = lb_trainer_eval(trainer, &metrics);
    if (status == LB_OK)
        status = lb_pack(trainer, path);

    if (status == LB_OK)
        printf("%.2f %% of %lld test images right; packed into %s\n", metrics.top1, (long long)metrics.images, path);
    else
        fprintf(stderr, "%s: %s\n", lb_status_name(status), ctx ? lb_error(ctx) : "no context");
    lb_trainer_destroy(trainer);
    lb_net_destroy(net);
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
    return status == LB_OK ? 0 : 1;
}

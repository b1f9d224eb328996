/* The layers of ResNet-20 (32 x 32 x 3, 10 classes) by the int8 functions of CMSIS-NN, as an application calls them: a line
 * "NAME INSTRUCTIONS" per layer, with the names of lowbit's network. Weights and images are some bytes: no function's instructions
 * depend on them, but for those that saturate. WEIGHTS_4 takes convolutions of int4 weights instead. */
#include <stdio.h>
#include <stdlib.h>

#include "arm_nnfunctions.h"
#include "cycles.h"

#define MOST_CHANNELS 64
#define MOST_WEIGHTS (9 * MOST_CHANNELS * MOST_CHANNELS)

static int8_t weights[MOST_WEIGHTS], tensors[3][32 * 32 * 16];
static int16_t scratch[4 * 9 * MOST_CHANNELS];
static int32_t bias[MOST_CHANNELS], multiplier[MOST_CHANNELS], shift[MOST_CHANNELS];

static void done(const char *name, int stage, int block, int status) {
    const int64_t count = stop_counting();
    if (status != ARM_CMSIS_NN_SUCCESS || count < 0) {
        printf("%s: status %d, count %ld\n", name, status, (long)count);
        exit(1);
    }
    if (stage > 0)
        printf("layer%d.%d.", stage, block);
    printf("%s %ld\n", name, (long)count);
}

/* A convolution with "same" padding of a square image; its status. */
static int convolve(int size, int ic, int oc, int kernel, int stride, const int8_t *src, int8_t *dst) {
    const cmsis_nn_dims in = {1, size, size, ic}, filter = {oc, kernel, kernel, ic}, channels = {1, 1, 1, oc};
    const cmsis_nn_dims out = {1, size / stride, size / stride, oc};
    const cmsis_nn_conv_params params = {128, -128, {stride, stride}, {kernel / 2, kernel / 2}, {1, 1}, {-128, 127}};
    const cmsis_nn_per_channel_quant_params quant = {multiplier, shift};
#ifdef WEIGHTS_4
    const int32_t need = arm_convolve_wrapper_s4_get_buffer_size(&params, &in, &filter, &out);
#else
    const int32_t need = arm_convolve_wrapper_s8_get_buffer_size(&params, &in, &filter, &out);
#endif
    const cmsis_nn_context context = {scratch, sizeof scratch};
    if (need > context.size)
        return ARM_CMSIS_NN_FAILURE;
    start_counting();
#ifdef WEIGHTS_4
    return arm_convolve_wrapper_s4(&context, &params, &quant, &in, src, &filter, weights, &channels, bias, &out, dst);
#else
    return arm_convolve_wrapper_s8(&context, &params, &quant, &in, src, &filter, weights, &channels, bias, &out, dst);
#endif
}

/* Two convolutions and an addition; the second stage's and the third stage's first block has a convolution beside them. */
static void block(int stage, int number) {
    const int oc = 8 << stage, down = stage > 1 && number == 0, stride = down ? 2 : 1, ic = oc / stride, size = 64 >> stage;
    int8_t *const src = tensors[0], *const middle = tensors[1], *const sum = tensors[2];
    done("conv1", stage, number, convolve(size * stride, ic, oc, 3, stride, src, middle));
    done("conv2", stage, number, convolve(size, oc, oc, 3, 1, middle, sum));
    if (down) {
        done("shortcut.conv", stage, number, convolve(size * stride, ic, oc, 1, stride, src, middle));
        memcpy(src, middle, (size_t)(size * size * oc));
    }
    start_counting();
    done("add", stage, number,
         arm_elementwise_add_s8(src, sum, 128, 1 << 30, 0, 128, 1 << 30, 0, 20, src, -128, 1 << 30, -18, -128, 127,
                                size * size * oc));
}

int main(void) {
    for (int i = 0; i < MOST_WEIGHTS; i++)
        weights[i] = (int8_t)((unsigned)i * 2654435761u >> 16);
    for (unsigned i = 0; i < sizeof tensors[0]; i++)
        tensors[2][i] = (int8_t)(i * 2654435761u >> 16);
    for (int c = 0; c < MOST_CHANNELS; c++)
        multiplier[c] = 1 << 30, shift[c] = -8;

    done("conv1", 0, 0, convolve(32, 3, 16, 3, 1, tensors[2], tensors[0]));
    for (int stage = 1; stage <= 3; stage++)
        for (int number = 0; number < 3; number++)
            block(stage, number);

    const cmsis_nn_context context = {scratch, sizeof scratch};
    const cmsis_nn_dims image = {1, 8, 8, 64}, window = {1, 8, 8, 1}, features = {1, 1, 1, 64}, filter = {64, 1, 1, 10};
    const cmsis_nn_dims classes = {1, 1, 1, 10};
    const cmsis_nn_pool_params pool = {{8, 8}, {0, 0}, {-128, 127}};
    start_counting();
    done("avgpool", 0, 0, arm_avgpool_s8(&context, &pool, &image, tensors[0], &window, &features, tensors[1]));
    const cmsis_nn_fc_params linear = {128, 0, 0, {-128, 127}};
    const cmsis_nn_per_tensor_quant_params quant = {1 << 30, -8};
    start_counting();
    done("fc", 0, 0,
         arm_fully_connected_s8(&context, &linear, &quant, &features, tensors[1], &filter, weights, &classes, bias, &classes,
                                tensors[2]));
    return 0;
}

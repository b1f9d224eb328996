/* A recipe with a bit of everything, for more than one test program. */
#ifndef LB_TEST_RECIPES_H
#define LB_TEST_RECIPES_H

#include "recipe/recipe.h"
#include "support.h"

static inline lb_status parse(lb_ctx *ctx, const char *text, lb_recipe **recipe) {
    return lb_recipe_parse(ctx, "r.yaml", text, strlen(text), NULL, 0, recipe);
}

static const char full[] =
    "model:\n"
    "  name: vgg-small\n"
    "  width: 0.5\n"
    "data: {name: cifar10, mean: [0.4914, .4822, 4.465e-1], std: [0.2470, 0.2435, 0.2616], augment: {pad: 4, flip: yes}}\n"
    "train:\n"
    "  epochs: 12.5\n"
    "  seed: 18446744073709551615\n"
    "  init: \"runs/a \\\"b\\\" \\u00e9\"\n"
    "  optimizer: {lr: 3e-2, weight_decay: 1e-4, decay_bn: 1}\n"
    "  schedule: {name: multistep, milestones: [5, 10.5], gamma: 0.3333333}\n"
    "quant:\n"
    "  weights: {method: dorefa, bits: 2}\n"
    "  activations: {method: dorefa, bits: 3}\n"
    "  edges: {first: float, last: 4, shortcut: same}\n"
    "  layers:\n"
    "    - match: layer1.*\n"
    "      weights: {bits: 4}\n"
    "    - {match: '*.conv2', activations: {method: none}, weights: {method: twn, threshold: 0.75}}\n"
    "stages:\n"
    "  - name: weights-only\n"
    "    quant: {activations: {method: none}}\n"
    "  - name: both\n"
    "    train: {epochs: 5, optimizer.lr: 0.001, schedule: {name: cosine}}\n"
    "    quant: {weights: {bits: 1}}\n"
    "  - name: last\n"
    "    train: {steps: 7, init: runs/other}\n"
    "    quant: {layers: [{match: fc, weights: {bits: 8}}]}\n"
    "  - {name: plain, quant: {layers: []}}\n";

#endif

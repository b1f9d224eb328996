/* Losses with their gradients. */
#ifndef LB_LOSS_H
#define LB_LOSS_H

#include "recipe/config.h"

/* Mean loss of a batch. logits: (mb, classes); labels: (mb) 0 .. classes-1; diff receives dL/dlogits (mb, classes), NULL: not
 * wanted; *correct receives how many labels have the largest logit (the first of equals), NULL: not wanted.
 *
 *   cross-entropy   mean over images of -sum_j q_j log softmax(y)_j, q = (1 - smoothing) onehot + smoothing / classes
 *   squared-hinge   mean over images and classes of max(0, 1 - t y)^2, t = +1 for the label and -1 for the others
 *                   (BinaryConnect and BinaryNet, Courbariaux et al. 2015 and 2016); smoothing is not read
 *
 * NaN or infinite logits give a loss that is not finite. */
double lb_loss(lb_loss_kind kind, float smoothing, const float *logits, const int32_t *labels, int mb, int classes, float *diff,
               int64_t *correct);

/* How far a network's outputs are from those of another, which are held fixed (distillation). logits, target: (mb, classes).
 * Returns weight * L and adds weight * dL/dlogits to diff.
 *
 *   kl    T^2 * mean over images of sum_j t_j (log t_j - log q_j), t = softmax(target / T), q = softmax(logits / T)
 *         (Hinton et al. 2015, arXiv 1503.02531)
 *   mse   mean over images and classes of (logits - target)^2 */
double lb_distill_loss_add(lb_distill_loss kind, float temperature, float weight, const float *logits, const float *target, int mb,
                           int classes, float *diff);

/* How many classes come before `label` when sorted by falling score, equals by rising index: 0 is right, below k in the top k. */
int lb_logit_rank(const float *logits, int classes, int label);

#endif

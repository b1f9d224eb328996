/* Optimizers over a network's flat block of parameters, in PyTorch's forms. With g the gradient, lr the step's rate times the
 * kind's factor, wd = weight_decay times the kind's factor, and t = step + 1:
 *
 *   sgd     g += wd p;  v = momentum v + g;  p -= lr (nesterov ? g + momentum v : v)
 *   adam    g += wd p;  m = beta1 m + (1 - beta1) g;  u = beta2 u + (1 - beta2) g^2
 *           p -= lr / (1 - beta1^t) * m / (sqrt(u / (1 - beta2^t)) + eps)
 *   adamw   p -= lr wd p first, then adam without the decay
 *
 * By kind: weights have factor 1 on the decay, biases decay_bias, gamma and beta decay_bn, slopes 0, learned quantizer parameters
 * decay_quant, and lr_quant on the rate; gates of learned bit-lengths have no decay and lr_gates on the rate. Afterwards the
 * weights of quantized layers are clamped to +-clip_weights (if not 0), and learned steps and clips, which must stay positive,
 * are floored at 1e-6; parameters that are logarithms (log_params) have any sign. Left alone are running statistics and the
 * parameters of quantizers that do not train theirs (fixed_params), of the image's quantizer, and gates that are kept. An element
 * whose gradient is not finite keeps its value and its state. */
#ifndef LB_OPTIM_H
#define LB_OPTIM_H

#include "net/net.h"
#include "recipe/config.h"

#define LB_QUANT_FLOOR 1e-6f

typedef struct lb_optim lb_optim;

/* State for net->nvalues values, all zero. The config is copied. Make a new one when the net's parameters change. */
lb_status lb_optim_create(lb_ctx *ctx, const lb_net *net, const lb_optimizer_config *config, lb_optim **optim);
void lb_optim_destroy(lb_optim *optim);

/* Updates net->values. diff: (nvalues) dL/dvalues; `step` counts this optimizer's steps from 0. Depends on nothing but its
 * arguments and state, not on threads. Returns how many gradients were not finite. */
int64_t lb_optim_step(lb_optim *optim, lb_net *net, const float *diff, double lr, int64_t step);

/* For checkpoints: state i has nvalues floats. Names: "momentum"; "exp_avg", "exp_avg_sq". SGD without momentum has none. */
int lb_optim_nstates(const lb_optim *optim);
const char *lb_optim_state_name(const lb_optim *optim, int i);
float *lb_optim_state(const lb_optim *optim, int i);

#endif

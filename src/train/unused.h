/* Settings that the table of recipe keys (recipe/keys.h) cannot know to be without effect, since that depends on the network and on
 * what its quantizers learn. */
#ifndef LB_TRAIN_UNUSED_H
#define LB_TRAIN_UNUSED_H

#include "net/net.h"
#include "recipe/config.h"

/* Warns of each key that differs from its default in some stage while no stage uses it: its name and why, a line each. */
void lb_warn_unused(const lb_recipe *recipe, const lb_net *net);

#endif

/* Residual blocks, found by the network's shape, without names or marks in the zoo. */
#include "net/quantize.h"

lb_status lb_net_blocks(const lb_net *net, int *block) {
    unsigned char *seen = lb_alloc(net->ctx, (size_t)net->nnodes, 1);
    if (!seen)
        return LB_ERR_MEMORY;
    for (int i = 0; i < net->nnodes; i++)
        block[i] = i;
    for (int add = 0; add < net->nnodes; add++) { /* inner blocks come first, and keep their layers */
        if (net->nodes[add].op != LB_OP_ADD)
            continue;
        memset(seen, 0, (size_t)net->nnodes);
        seen[add] = 1;
        int open = 1; /* nodes seen and not passed yet; sources come before what they feed, so the latest is passed first */
        for (int i = add; i >= 0 && (i == add || open > 1); i--) {
            if (!seen[i])
                continue;
            open--;
            if (block[i] == i)
                block[i] = add;
            for (int s = 0; s < net->nodes[i].nsrc; s++) {
                open += !seen[net->nodes[i].src[s]];
                seen[net->nodes[i].src[s]] = 1;
            }
        }
    }
    lb_free(net->ctx, seen);
    return LB_OK;
}

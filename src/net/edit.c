/* Changing a finished graph: inserting and removing nodes, with renumbering. */
#include <assert.h>

#include "net/net.h"

/* Adds `delta` to every reference to a node at or behind `from`. */
static void renumber(lb_net *net, int from, int delta) {
    for (int i = 0; i < net->nnodes; i++)
        for (int s = 0; s < net->nodes[i].nsrc; s++)
            if (net->nodes[i].src[s] >= from)
                net->nodes[i].src[s] += delta;
    for (int i = 0; i < net->nparams; i++)
        if (net->params[i].node >= from)
            net->params[i].node += delta;
}

lb_status lb_net_insert_identity(lb_net *net, int consumer, int *index) {
    if (consumer < 0 || consumer >= net->nnodes || net->nodes[consumer].nsrc < 1)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: node %d has no source to put an activation behind", net->name, consumer);
    int src = net->nodes[consumer].src[0], at = src + 1;
    const char *name = lb_pool_printf(&net->pool, "%s.quant", net->nodes[src].name);
    for (int i = 2; name && lb_net_find(net, name) >= 0; i++)
        name = lb_pool_printf(&net->pool, "%s.quant%d", net->nodes[src].name, i);
    if (!name)
        return LB_ERR_MEMORY;
    void *nodes = net->nodes;
    LB_TRY(lb_grow(net->ctx, &nodes, &net->nodes_capacity, (size_t)net->nnodes + 1, sizeof(lb_node)));
    net->nodes = nodes;

    renumber(net, at, 1);
    memmove(net->nodes + at + 1, net->nodes + at, (size_t)(net->nnodes - at) * sizeof *net->nodes);
    net->nnodes++;
    lb_node *node = &net->nodes[at];
    *node = (lb_node){.op = LB_OP_ACT, .name = name, .nsrc = 1, .src = {src}, .dst = net->nodes[src].dst, .inserted = true};
    node->u.act.kind = LB_ACT_IDENTITY;
    for (int i = 0; i < LB_MAX_PARAMS; i++)
        node->param[i] = -1;
    lb_node *reader = &net->nodes[consumer + 1];
    for (int s = 0; s < reader->nsrc; s++)
        if (reader->src[s] == src)
            reader->src[s] = at;
    *index = at;
    return lb_op_info(LB_OP_ACT)->infer(net, node); /* fills the range */
}

void lb_net_remove(lb_net *net, int index) {
    assert(index > 0 && index < net->nnodes && net->nodes[index].nsrc == 1);
    int src = net->nodes[index].src[0];
    for (int i = index + 1; i < net->nnodes; i++)
        for (int s = 0; s < net->nodes[i].nsrc; s++)
            if (net->nodes[i].src[s] == index)
                net->nodes[i].src[s] = src;
    memmove(net->nodes + index, net->nodes + index + 1, (size_t)(net->nnodes - index - 1) * sizeof *net->nodes);
    net->nnodes--;
    renumber(net, index + 1, -1);
}

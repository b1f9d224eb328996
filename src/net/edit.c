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

/* A free name: `name`, or with a number behind it. */
static const char *free_name(lb_net *net, const char *suffix, int src) {
    const char *name = lb_pool_printf(&net->pool, "%s.%s", net->nodes[src].name, suffix);
    for (int i = 2; name && lb_net_find(net, name) >= 0; i++)
        name = lb_pool_printf(&net->pool, "%s.%s%d", net->nodes[src].name, suffix, i);
    return name;
}

/* Puts a node right behind its source; nobody reads it yet. Calls its infer function. */
static lb_status insert(lb_net *net, lb_node node) {
    const int at = node.src[0] + 1;
    if (!node.name)
        return LB_ERR_MEMORY;
    LB_TRY(lb_grow(net->ctx, &net->nodes, &net->nodes_capacity, (size_t)net->nnodes + 1, sizeof(lb_node)));
    renumber(net, at, 1);
    memmove(net->nodes + at + 1, net->nodes + at, (size_t)(net->nnodes - at) * sizeof *net->nodes);
    net->nnodes++;
    for (int i = 0; i < LB_MAX_PARAMS; i++)
        node.param[i] = -1;
    net->nodes[at] = node;
    return lb_op_info(node.op)->infer(net, &net->nodes[at]);
}

lb_status lb_net_insert_identity(lb_net *net, int consumer, int *index) {
    if (consumer < 0 || consumer >= net->nnodes || net->nodes[consumer].nsrc < 1)
        return lb_fail(net->ctx, LB_ERR_ARGUMENT, "%s: node %d has no source to put an activation behind", net->name, consumer);
    const int src = net->nodes[consumer].src[0];
    lb_node node = {.op = LB_OP_ACT, .name = free_name(net, "quant", src), .nsrc = 1, .src = {src}, .dst = net->nodes[src].dst,
                    .inserted = true};
    node.u.act.kind = LB_ACT_IDENTITY;
    LB_TRY(insert(net, node));
    *index = src + 1;
    lb_node *reader = &net->nodes[consumer + 1];
    for (int s = 0; s < reader->nsrc; s++)
        if (reader->src[s] == src)
            reader->src[s] = *index;
    return LB_OK;
}

/* Does everybody who reads node i normalise it? */
static bool is_normalised(const lb_net *net, int i) {
    bool all = true;
    for (int r = i + 1; r < net->nnodes; r++)
        for (int s = 0; s < net->nodes[r].nsrc; s++)
            all &= net->nodes[r].src[s] != i || net->nodes[r].op == LB_OP_BATCHNORM;
    return all;
}

lb_status lb_net_add_batchnorms(lb_net *net) {
    lb_edge_role *roles = lb_alloc(net->ctx, (size_t)net->nnodes, sizeof *roles);
    lb_status status = roles ? lb_net_edge_roles(net, roles) : LB_ERR_MEMORY;
    for (int i = net->nnodes - 1; i > 0 && status == LB_OK; i--) { /* backwards: what is inserted moves only what is done */
        bool below = false;
        if (net->nodes[i].op != LB_OP_CONV || roles[i] == LB_EDGE_ROLE_LAST || is_normalised(net, i))
            continue;
        for (int k = i + 1; k < net->nnodes && !below; k++)
            below = lb_is_layer(&net->nodes[k]);
        if (!below) /* the only layer: first and last at once */
            continue;
        lb_node node = {.op = LB_OP_BATCHNORM, .name = free_name(net, "bn", i), .nsrc = 1, .src = {i}};
        node.u.bn.calibrate = true;
        status = insert(net, node);
        for (int r = i + 2; status == LB_OK && r < net->nnodes; r++)
            for (int s = 0; s < net->nodes[r].nsrc; s++)
                if (net->nodes[r].src[s] == i)
                    net->nodes[r].src[s] = i + 1;
    }
    lb_free(net->ctx, roles);
    return status;
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

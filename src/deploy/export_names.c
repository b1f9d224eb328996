/* What tensors of an ONNX graph are called, whose names must all differ. Those of a layer are its own name, and that with a slash
 * and what they are behind it. So a layer keeps its name unless it is another's with a slash and more behind it, or one of the
 * graph's own: then no two layers share a tensor's name, whatever is behind the slash. */
#include <stdio.h>

#include "deploy/export.h"

/* Whether `name` is `start`, or goes on with a slash behind it. */
static bool is_below(const char *name, const char *start) {
    const size_t length = strlen(start);
    return !strncmp(name, start, length) && (name[length] == 0 || name[length] == '/');
}

static bool must_change(const lb_net *net, int i) {
    const char *name = net->nodes[i].name;
    if (!strcmp(name, LB_EXPORT_INPUT) || !strcmp(name, LB_EXPORT_OUTPUT))
        return true;
    for (int k = 0; k < net->nnodes; k++)
        if (k != i && is_below(name, net->nodes[k].name))
            return true;
    return false;
}

/* Whether node i cannot be called `name`, which has no slash: it is a layer's, the start of one, or was given before. */
static bool is_taken(const lb_exporting *e, int i, const char *name) {
    for (int k = 0; k < e->net->nnodes; k++)
        if (is_below(e->net->nodes[k].name, name) || (k < i && !strcmp(e->names[k], name)))
            return true;
    return false;
}

/* Its name without slashes, and a number. */
static const char *new_name(lb_exporting *e, int i) {
    char plain[LB_NAME_SIZE];
    snprintf(plain, sizeof plain, "%s", e->net->nodes[i].name);
    for (char *at = plain; *at; at++)
        if (*at == '/')
            *at = '_';
    for (int number = 2;; number++) {
        const char *name = lb_onnx_name(e->b, "%s_%d", plain, number);
        if (!name || !is_taken(e, i, name))
            return name;
    }
}

lb_status lb_export_names(lb_exporting *e) {
    for (int i = 0; i < e->net->nnodes; i++) {
        e->names[i] = must_change(e->net, i) ? new_name(e, i) : e->net->nodes[i].name;
        LB_TRY(e->b->status);
    }
    return LB_OK;
}

const char *lb_export_part(lb_exporting *e, const lb_node *node, const char *part) {
    return lb_onnx_name(e->b, "%s/%s", lb_export_name(e, node), part);
}

/* lb_net_quantize: which tensor gets which quantizer. */
#include <math.h>
#include <stdio.h>

#include "net/quantize.h"
#include "quant/gates.h"

/* One conv or linear, and what was decided for it. */
typedef struct layer {
    int node;
    lb_edge_role role;
    const lb_layer_rule *rule; /* the last that matches, or NULL */
    int own, block;            /* numbers of the layer and of its residual block, the same in every stage */
} layer;

/* The learned parameters of a quantizer that was attached before. */
typedef struct kept {
    const char *node;
    lb_quant quant;
    float *values; /* (count) */
    size_t count, each; /* each: of one parameter */
} kept;

typedef struct work {
    lb_net *net;
    const lb_config *config;
    layer *layers;
    int nlayers;
    kept *kept;
    int nkept;
    lb_quant_spec weights, activations; /* of quant.weights and quant.activations */
    int replaced; /* identity nodes that took lsq for a method without negative codes */
    const char *replaced_name;
} work;

/* ---- Roles ----------------------------------------------------------------------------------------------------- */

lb_status lb_net_edge_roles(const lb_net *net, lb_edge_role *roles) {
    enum { ABOVE = 1, BELOW = 2 }; /* is there a layer above (towards the input), below? */
    unsigned char *has = lb_alloc(net->ctx, (size_t)net->nnodes, 1);
    if (!has)
        return LB_ERR_MEMORY;
    for (int i = 0; i < net->nnodes; i++)
        for (int s = 0; s < net->nodes[i].nsrc; s++) {
            int src = net->nodes[i].src[s];
            if (lb_is_layer(&net->nodes[src]) || has[src] & ABOVE)
                has[i] |= ABOVE;
        }
    for (int i = net->nnodes - 1; i >= 0; i--)
        for (int s = 0; s < net->nodes[i].nsrc; s++)
            if (lb_is_layer(&net->nodes[i]) || has[i] & BELOW)
                has[net->nodes[i].src[s]] |= BELOW;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_node *node = &net->nodes[i];
        roles[i] = !lb_is_layer(node)  ? LB_EDGE_ROLE_NONE
                   : !(has[i] & ABOVE) ? LB_EDGE_ROLE_FIRST
                   : !(has[i] & BELOW) ? LB_EDGE_ROLE_LAST
                   : node->shortcut    ? LB_EDGE_ROLE_SHORTCUT
                                       : LB_EDGE_ROLE_INNER;
    }
    lb_free(net->ctx, has);
    return LB_OK;
}

/* Follows node `index`'s source back through pooling and the like: the node it ends at, and the last one passed (or `index`). */
static int trace(const lb_net *net, int index, int *below) {
    *below = index;
    int at = net->nodes[index].src[0];
    while (lb_trace_through(net->nodes[at].op)) {
        *below = at;
        at = net->nodes[at].src[0];
    }
    return at;
}

int lb_net_source_act(const lb_net *net, int index) {
    int below;
    if (index <= 0 || index >= net->nnodes)
        return -1;
    int at = trace(net, index, &below);
    return net->nodes[at].op == LB_OP_ACT && net->nodes[at].quant ? at : -1;
}

/* ---- What was there before ------------------------------------------------------------------------------------- */

/* Takes everything off the net that an earlier call put there; learned parameters go to work->kept. */
static lb_status strip(work *w) {
    lb_net *net = w->net;
    w->kept = lb_alloc(net->ctx, (size_t)net->nnodes, sizeof *w->kept);
    if (!w->kept)
        return LB_ERR_MEMORY;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_quant *quant = net->nodes[i].quant;
        if (!quant || quant->param < 0)
            continue;
        size_t count = net->params[quant->param].count * (size_t)lb_quant_nparams(&quant->spec);
        kept *k = &w->kept[w->nkept];
        *k = (kept){net->nodes[i].name, *quant, lb_alloc(net->ctx, count, sizeof(float)), count,
                    net->params[quant->param].count};
        if (!k->values)
            return LB_ERR_MEMORY;
        memcpy(k->values, lb_param_values(net, quant->param), count * sizeof(float));
        w->nkept++;
    }
    for (int i = 0; i < net->nnodes; i++)
        net->nodes[i].quant = NULL;
    while (net->nparams && net->params[net->nparams - 1].kind == LB_PARAM_QUANT)
        net->nvalues = net->params[--net->nparams].offset;
    for (int i = net->nnodes - 1; i > 0; i--)
        if (net->nodes[i].inserted)
            lb_net_remove(net, i);
    return LB_OK;
}

/* Bits that learned parameters are of: where lengths are kept, those that the gates behind the `own` parameters leave. */
static int bits_of(const lb_quant_spec *spec, const float *values, size_t own) {
    return spec->options.bit_lengths == LB_BITS_KEPT ? lb_gates_bits(spec, values + own) : spec->bits;
}

static double largest_code(const lb_quant_spec *spec, int bits) {
    lb_quant_spec other = *spec;
    lb_grid grid;
    other.bits = bits;
    spec->quantizer->grid(&other, &grid);
    return LB_MAX(grid.hi, 1);
}

bool lb_quant_carry(const lb_quant *from, const float *values, const lb_quant *to, float *dst, size_t count, lb_rescale rescale) {
    const lb_quantizer *quantizer = to->spec.quantizer;
    const bool clips = quantizer->clips;
    if (from->spec.quantizer != quantizer || from->spec.is_signed != to->spec.is_signed)
        return false;
    const size_t own = (size_t)quantizer->nparams * count, gates = count * (size_t)LB_MIN(lb_quant_nparams(&from->spec),
                                                                                          lb_quant_nparams(&to->spec));
    for (size_t i = own; i < gates; i++) /* of learned bits, which come last: those that both have, whatever steps become */
        dst[i] = values[i];
    const int before = bits_of(&from->spec, values, own), after = bits_of(&to->spec, dst, own);
    if (before != after && !clips && rescale == LB_RESCALE_START)
        return false;
    const double ratio = largest_code(&from->spec, before) / largest_code(&to->spec, after);
    const double factor = rescale == LB_RESCALE_STEP ? (clips ? 1 / ratio : 1) : clips ? 1 : ratio;
    for (size_t i = 0; i < own; i++)
        dst[i] = quantizer->log_params ? values[i] + (float)log(factor) : (float)(values[i] * factor);
    return true;
}

/* Gives a quantizer back what the one at its place had learned. */
static void restore(const work *w, const char *name, lb_quant *quant) {
    const size_t each = w->net->params[quant->param].count;
    for (int i = 0; i < w->nkept; i++) {
        const kept *k = &w->kept[i];
        if (k->quant.initialised && !strcmp(k->node, name) && k->quant.spec.target == quant->spec.target && k->each == each &&
            lb_quant_carry(&k->quant, k->values, quant, lb_param_values(w->net, quant->param), each, w->config->quant.rescale))
            quant->initialised = true;
    }
}

/* ---- Attaching ------------------------------------------------------------------------------------------------- */

static lb_status attach(work *w, int index, const lb_quant_spec *spec, const lb_grid *grid) {
    lb_net *net = w->net;
    lb_node *node = &net->nodes[index];
    lb_quant *quant = lb_pool_alloc(&net->pool, 1, sizeof *quant);
    if (!quant)
        return LB_ERR_MEMORY;
    *quant = (lb_quant){.spec = *spec, .grid = *grid, .param = -1};
    int64_t dims[1] = {spec->options.per == LB_PER_FILTER ? node->dst.c : 1};
    for (int p = 0; p < lb_quant_nparams(spec); p++) {
        char suffix[64];
        int param;
        snprintf(suffix, sizeof suffix, "%s_%s", spec->target == LB_WEIGHTS ? "weight" : "act", lb_quant_param_name(spec, p));
        LB_TRY(lb_net_add_param(net, node, suffix, LB_PARAM_QUANT, 1, dims, &param));
        if (p == 0)
            quant->param = param;
    }
    if (quant->param >= 0)
        restore(w, node->name, quant);
    node->quant = quant;
    return LB_OK;
}

/* What an edge of quant.edges says about layers of this role. */
static int edge_value(const work *w, const layer *l) {
    if (l->rule)
        return LB_EDGE_SAME;
    const lb_quant_config *quant = &w->config->quant;
    switch (l->role) {
    case LB_EDGE_ROLE_FIRST:
        return quant->edge_first;
    case LB_EDGE_ROLE_LAST:
        return quant->edge_last;
    case LB_EDGE_ROLE_SHORTCUT:
        return quant->edge_shortcut;
    default:
        return LB_EDGE_SAME;
    }
}

/* What is wished for a layer's weights or input; spec->quantizer NULL: float. */
static lb_status wish(const work *w, const layer *l, lb_target target, lb_quant_spec *spec) {
    int edge = edge_value(w, l);
    *spec = target == LB_WEIGHTS ? w->weights : w->activations;
    if (l->rule) {
        char where[128];
        snprintf(where, sizeof where, "quant.layers '%s' %s", l->rule->match, target == LB_WEIGHTS ? "weights" : "activations");
        LB_TRY(lb_spec_from_config(w->net->ctx, where, target == LB_WEIGHTS ? &l->rule->weights : &l->rule->activations, target,
                                   spec));
    }
    spec->mix_unit = spec->options.mix_scope == LB_SCOPE_BLOCK ? l->block : l->own;
    if (edge == 0)
        spec->quantizer = NULL;
    else if (edge != LB_EDGE_SAME && spec->quantizer)
        lb_spec_set_bits(spec, edge);
    return LB_OK;
}

/* Without an estimator gradients need a part that is not quantized, at least for a while. */
static lb_status check_gradient(const work *w, const char *what, const lb_quant_spec *spec) {
    if (spec->options.estimator == LB_EST_NONE && lb_quant_is_always_whole(spec))
        return lb_fail(w->net->ctx, LB_ERR_UNSUPPORTED,
                       "%s: estimator none lets no gradient through what is quantized, and mixer %s as it is set quantizes "
                       "everything from the first step on, so %s; choose another estimator or a mixer that leaves something float",
                       what, spec->mixer->name,
                       spec->target == LB_WEIGHTS ? "these weights would never change" : "nothing before them would learn");
    return LB_OK;
}

static lb_status quantize_weights(work *w, const layer *l) {
    lb_quant_spec spec;
    lb_grid grid;
    LB_TRY(wish(w, l, LB_WEIGHTS, &spec));
    if (!spec.quantizer)
        return LB_OK;
    char what[256];
    snprintf(what, sizeof what, "weights of %s", w->net->nodes[l->node].name);
    LB_TRY(lb_quant_resolve(w->net->ctx, what, &spec, &grid));
    LB_TRY(check_gradient(w, what, &spec));
    return attach(w, l->node, &spec, &grid);
}

lb_status lb_net_nonnegative(const lb_net *net, int index, bool *result) {
    bool *known = lb_alloc(net->ctx, (size_t)index + 1, sizeof *known);
    if (!known)
        return LB_ERR_MEMORY;
    for (int i = 1; i <= index; i++) {
        const lb_node *node = &net->nodes[i];
        known[i] = node->op == LB_OP_ACT ? node->u.act.lo >= 0
                                         : node->op == LB_OP_ADD || node->op == LB_OP_CONCAT || lb_trace_through(node->op);
        for (int s = 0; node->op != LB_OP_ACT && s < node->nsrc; s++)
            known[i] &= known[node->src[s]];
    }
    *result = known[index];
    lb_free(net->ctx, known);
    return LB_OK;
}

/* The act node that is to carry the quantizer of a layer's input; inserts one if there is none. */
static lb_status find_site(work *w, const layer *l, int *site) {
    lb_net *net = w->net;
    int below, at = trace(net, l->node, &below);
    if (net->nodes[at].op == LB_OP_ACT) {
        *site = at;
        return LB_OK;
    }
    int consumer = at == 0 ? below : l->node, tensor = net->nodes[consumer].src[0];
    for (int i = tensor + 1; i < consumer; i++)
        if (net->nodes[i].inserted && net->nodes[i].src[0] == tensor) {
            net->nodes[consumer].src[0] = *site = i;
            return LB_OK;
        }
    bool nonnegative;
    LB_TRY(lb_net_nonnegative(net, tensor, &nonnegative));
    LB_TRY(lb_net_insert_identity(net, consumer, site));
    if (nonnegative) { /* sums and joins of activations: relu is the identity there, and lets codes begin at 0 */
        net->nodes[*site].u.act.kind = LB_ACT_RELU;
        net->nodes[*site].u.act.lo = 0;
    }
    for (int i = 0; i < w->nlayers; i++)
        w->layers[i].node += w->layers[i].node >= *site;
    return LB_OK;
}

/* Settles what fits the place: the input's quantizer, signed grids, and negative codes where nothing clips at 0. */
static lb_status settle(work *w, const layer *l, int site, lb_quant_spec *spec, lb_grid *grid) {
    const lb_node *node = &w->net->nodes[site];
    bool identity = node->u.act.kind == LB_ACT_IDENTITY;
    int edge = edge_value(w, l);
    if (l->role == LB_EDGE_ROLE_FIRST && edge > 0 && node->inserted)
        lb_spec_set_quantizer(spec, &lb_quantizer_uniform);
    if (w->net->nodes[node->src[0]].op == LB_OP_INPUT && spec->mixer->mask) {
        spec->mixer = &lb_mixer_constant; /* the image: no gradient passes it, so nothing is gained by waiting */
        spec->options.mix = 1.f;
    }
    spec->is_signed = node->u.act.lo < 0;
    spec->features = (int64_t)lb_shape_count(&node->dst);
    char what[256];
    snprintf(what, sizeof what, "activations of %s", node->name);
    LB_TRY(lb_quant_resolve(w->net->ctx, what, spec, grid));
    if (w->net->nodes[node->src[0]].op != LB_OP_INPUT)
        LB_TRY(check_gradient(w, what, spec));
    if (!identity || grid->lo < 0)
        return LB_OK;
    lb_spec_set_quantizer(spec, &lb_quantizer_lsq);
    if (!w->replaced++)
        w->replaced_name = node->name;
    return lb_quant_resolve(w->net->ctx, what, spec, grid);
}

static lb_status quantize_input(work *w, const layer *l, bool yields) {
    lb_quant_spec spec;
    lb_grid grid;
    LB_TRY(wish(w, l, LB_ACTIVATIONS, &spec));
    if (!spec.quantizer)
        return LB_OK;
    int site;
    LB_TRY(find_site(w, l, &site));
    const lb_quant *present = w->net->nodes[site].quant;
    if (present && yields)
        return LB_OK;
    int replaced = w->replaced;
    LB_TRY(settle(w, l, site, &spec, &grid));
    if (!present)
        return attach(w, site, &spec, &grid);
    w->replaced = replaced;
    if (!lb_spec_equal(&present->spec, &spec)) {
        char ours[LB_SPEC_TEXT], theirs[LB_SPEC_TEXT];
        lb_warn(w->net->ctx, "%s: its input %s is quantized by %s for an earlier layer, so it cannot be %s%s",
                w->net->nodes[l->node].name, w->net->nodes[site].name, lb_spec_text(&present->spec, theirs),
                lb_spec_text(&spec, ours), strcmp(ours, theirs) ? "" : " with other options");
    }
    return LB_OK;
}

/* Tells each mask which turn is its own: a layer's weights and its input have the same, an input of several layers the first's. */
static void number_masks(const work *w) {
    lb_net *net = w->net;
    int layers = 0;
    for (int i = 0; i < w->nlayers; i++) {
        const int act = lb_net_source_act(net, w->layers[i].node);
        lb_quant *both[] = {net->nodes[w->layers[i].node].quant, act < 0 ? NULL : net->nodes[act].quant};
        bool any = false;
        for (int k = 0; k < 2; k++)
            if (both[k] && both[k]->spec.mixer->mask && !both[k]->spec.layers) {
                both[k]->spec.layer = layers;
                both[k]->spec.layers = 1;
                any = true;
            }
        layers += any;
    }
    for (int i = 0; i < net->nnodes; i++)
        if (net->nodes[i].quant && net->nodes[i].quant->spec.layers)
            net->nodes[i].quant->spec.layers = layers;
}

/* ---- The whole ------------------------------------------------------------------------------------------------- */

static lb_status list_layers(work *w) {
    lb_net *net = w->net;
    lb_ctx *ctx = net->ctx;
    const lb_quant_config *quant = &w->config->quant;
    lb_edge_role *roles = lb_alloc(ctx, (size_t)net->nnodes, sizeof *roles);
    const char **names = lb_alloc(ctx, (size_t)net->nnodes, sizeof *names);
    w->layers = lb_alloc(ctx, (size_t)net->nnodes, sizeof *w->layers);
    int *blocks = lb_alloc(ctx, (size_t)net->nnodes, sizeof *blocks);
    lb_status status = !roles || !names || !w->layers || !blocks ? LB_ERR_MEMORY : lb_net_edge_roles(net, roles);
    if (status == LB_OK)
        status = lb_net_blocks(net, blocks);
    for (int i = 0; status == LB_OK && i < net->nnodes; i++)
        if (lb_is_layer(&net->nodes[i])) {
            names[w->nlayers] = net->nodes[i].name;
            w->layers[w->nlayers++] = (layer){i, roles[i], NULL, i, blocks[i]};
        }
    for (int r = 0; status == LB_OK && r < quant->nlayers; r++) {
        int matches = 0;
        for (int i = 0; i < w->nlayers; i++)
            if (lb_match(quant->layers[r].match, names[i])) {
                w->layers[i].rule = &quant->layers[r];
                matches++;
            }
        if (!matches) {
            const char *near = lb_nearest(quant->layers[r].match, names, (size_t)w->nlayers);
            status = lb_fail(ctx, LB_ERR_RECIPE, "quant.layers: '%s' matches no convolution or linear layer of %s%s%s%s",
                             quant->layers[r].match, net->name, near ? "; did you mean '" : "", near ? near : "",
                             near ? "'?" : "; `lowbit inspect` lists them");
        }
    }
    lb_free(ctx, roles);
    lb_free(ctx, names);
    lb_free(ctx, blocks);
    return status;
}

static lb_status quantize(work *w) {
    lb_net *net = w->net;
    const lb_quant_config *quant = &w->config->quant;
    LB_TRY(lb_spec_from_config(net->ctx, "quant.weights", &quant->weights, LB_WEIGHTS, &w->weights));
    LB_TRY(lb_spec_from_config(net->ctx, "quant.activations", &quant->activations, LB_ACTIVATIONS, &w->activations));
    LB_TRY(strip(w));
    LB_TRY(list_layers(w));
    for (int i = 0; i < w->nlayers; i++)
        LB_TRY(quantize_weights(w, &w->layers[i]));
    for (int yields = 0; yields < 2; yields++)
        for (int i = 0; i < w->nlayers; i++) {
            const layer *l = &w->layers[i];
            bool edge = !l->rule && (l->role == LB_EDGE_ROLE_LAST || l->role == LB_EDGE_ROLE_SHORTCUT);
            if (edge == (bool)yields)
                LB_TRY(quantize_input(w, l, edge));
        }
    number_masks(w);
    lb_net_update_grids(w->net);
    return LB_OK;
}

void lb_net_update_grids(lb_net *net) {
    for (int i = 0; i < net->nnodes; i++) {
        lb_quant *q = net->nodes[i].quant;
        if (q && q->param >= 0)
            lb_quant_update_grid(q, lb_param_values(net, q->param));
    }
}

bool lb_net_describe_lengths(const lb_net *net, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; i < net->nnodes; i++) {
        const lb_quant *q = net->nodes[i].quant;
        if (!q || q->spec.options.bit_lengths == LB_BITS_FIXED || used >= size)
            continue;
        const int n = snprintf(text + used, size - used, "%s%s %d", used ? ", " : "", net->nodes[i].name, q->grid.bits);
        used += n > 0 ? (size_t)n : 0;
    }
    return used > 0;
}

lb_status lb_net_quantize(lb_net *net, const lb_config *config) {
    lb_ctx *ctx = net->ctx;
    LB_TRY(net->status);
    if (!net->finished)
        return lb_fail(ctx, LB_ERR_ARGUMENT, "%s: the network must be finished (lb_net_finish) before it is quantized", net->name);
    work w = {.net = net, .config = config};
    lb_status status = quantize(&w);
    for (int i = 0; i < w.nkept; i++)
        lb_free(ctx, w.kept[i].values);
    lb_free(ctx, w.kept);
    lb_free(ctx, w.layers);
    if (status != LB_OK)
        return status;
    if (w.replaced)
        lb_note(ctx, "%s has no negative codes: %s%s use%s lsq at the same bits instead",
                w.activations.quantizer ? w.activations.quantizer->name : "the method", w.replaced_name,
                w.replaced > 1 ? " and other layer inputs without an activation" : "", w.replaced > 1 ? "" : "s");
    return LB_OK;
}

lb_status lb_net_can_quantize(lb_net *net, const lb_config *config) {
    lb_ctx_options *options = &net->ctx->options;
    const lb_ctx_options own = *options;
    options->report = NULL;
    const lb_status status = lb_net_quantize(net, config);
    *options = own;
    return status;
}

/* ---- Describing ------------------------------------------------------------------------------------------------ */

typedef struct writer {
    char *text;
    size_t size, used;
} writer;

LB_PRINTF(2, 3) static void put(writer *out, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    if (out->used < out->size) {
        int n = vsnprintf(out->text + out->used, out->size - out->used, fmt, args);
        out->used += n > 0 ? (size_t)n : 0;
    }
    va_end(args);
}

static bool is_site(const lb_node *node, lb_target target) {
    return target == LB_WEIGHTS ? lb_is_layer(node) : node->op == LB_OP_ACT && node->quant;
}

static bool same_label(const lb_quant *a, const lb_quant *b) {
    return a && b ? a->spec.quantizer == b->spec.quantizer && a->spec.bits == b->spec.bits : a == b;
}

/* "dorefa 2 bits in 18 layers, float in 2 layers" */
static void put_counts(writer *out, const lb_net *net, lb_target target, const char *one, const char *many) {
    bool any = false;
    for (int i = 0; i < net->nnodes; i++) {
        if (!is_site(&net->nodes[i], target))
            continue;
        int count = 0, earlier = 0;
        for (int j = 0; j < net->nnodes; j++)
            if (is_site(&net->nodes[j], target) && same_label(net->nodes[i].quant, net->nodes[j].quant)) {
                count++;
                earlier += j < i;
            }
        if (earlier)
            continue;
        char spec[LB_SPEC_TEXT];
        const lb_quant *quant = net->nodes[i].quant;
        put(out, "%s%s in %d %s", any ? ", " : "", lb_spec_text(quant ? &quant->spec : NULL, spec), count, count == 1 ? one : many);
        any = true;
    }
    if (!any)
        put(out, "float");
}

/* "; first layer (conv1): float" for the first node of that role. */
static void put_role(writer *out, const lb_net *net, const lb_edge_role *roles, lb_edge_role role, const char *title) {
    for (int i = 0; i < net->nnodes; i++) {
        if (roles[i] != role)
            continue;
        int act = lb_net_source_act(net, i);
        char spec[LB_SPEC_TEXT];
        const lb_quant *quant = net->nodes[i].quant;
        put(out, "; %s %s: %s", title, net->nodes[i].name, lb_spec_text(quant ? &quant->spec : NULL, spec));
        if (act >= 0)
            put(out, " on %s", lb_spec_text(&net->nodes[act].quant->spec, spec));
        else if (quant)
            put(out, " on float");
        return;
    }
}

void lb_net_describe_quant(const lb_net *net, char *text, size_t size) {
    writer out = {text, size, 0};
    if (!size)
        return;
    *text = 0;
    put(&out, "weights: ");
    put_counts(&out, net, LB_WEIGHTS, "layer", "layers");
    put(&out, "; activations: ");
    put_counts(&out, net, LB_ACTIVATIONS, "place", "places");
    lb_edge_role *roles = lb_alloc(net->ctx, (size_t)net->nnodes, sizeof *roles);
    if (roles && lb_net_edge_roles(net, roles) == LB_OK) {
        put_role(&out, net, roles, LB_EDGE_ROLE_FIRST, "first layer");
        put_role(&out, net, roles, LB_EDGE_ROLE_LAST, "last layer");
        put_role(&out, net, roles, LB_EDGE_ROLE_SHORTCUT, "shortcuts like");
    }
    lb_free(net->ctx, roles);
}

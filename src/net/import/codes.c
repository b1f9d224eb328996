/* Quantized networks whose nodes compute with real numbers: QuantizeLinear and DequantizeLinear around float operators (QDQ).
 * Import takes the float network in them: weights are the numbers that their codes stand for, activations lose their rounding. */
#include <math.h>

#include "net/import/internal.h"
#include "net/quantize.h"

/* y = (x - zero_point) * scale of a constant; scale and zero point are one for all or one for each index along `axis`. */
static lb_status fold_dequantize(lb_importer *im) {
    const lb_constant *src, *scale, *zero = NULL;
    lb_constant dst;
    float *values;
    int axis = 0;
    int64_t inner = 1;
    LB_TRY(lb_import_constant(im, 0, &src));
    if (src->unrounded) {
        dst = *src;
        dst.unrounded = false;
        return lb_import_set_constant(im, &dst);
    }
    LB_TRY(lb_import_constant(im, 1, &scale));
    if (lb_import_input(im, 2))
        LB_TRY(lb_import_constant(im, 2, &zero));
    if (!src->whole || scale->whole || (zero && (!zero->whole || zero->count != scale->count)))
        return lb_import_damaged(im, "its codes, scale and zero point are not whole, real, and as many whole numbers");
    if (scale->count != 1) {
        LB_TRY(lb_import_axis(im, lb_import_int(im, "axis", 1), src->ndim, &axis));
        if (scale->ndim != 1 || scale->count != src->dims[axis])
            return lb_import_refuse(im, "its scales are not one for each index of one dimension");
        for (int d = axis + 1; d < src->ndim; d++)
            inner *= src->dims[d];
    }
    LB_TRY(lb_constant_real(im, src->ndim, src->dims, &dst, &values));
    dst.weight = scale->weight || lb_import_is_weight(LB__ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, dst.count);
    if (!scale->f)
        dst.f = NULL;
    for (int64_t k = 0; dst.f && k < dst.count; k++) {
        const int64_t at = scale->count == 1 ? 0 : k / inner % scale->count;
        values[k] = (float)((double)src->i[k] - (zero ? (double)zero->i[at] : 0)) * scale->f[at];
    }
    return lb_import_set_constant(im, &dst);
}

static lb_status read_dequantize(lb_importer *im) {
    const lb_tensor *t = lb_import_input(im, 0);
    lb_view *src, dst;
    if (t && t->kind == LB_TENSOR_CONSTANT)
        return fold_dequantize(im);
    LB_TRY(lb_import_view(im, 0, &src));
    dst = *src;
    dst.codes = false;
    return lb_import_set_view(im, &dst);
}

void lb_import_note_codes(lb_importer *im) {
    if (im->nquantized)
        lb_note(im->ctx,
                "%s: a quantized network; import takes the float one in it: weights as their codes stand for, and %d roundings of "
                "activations left out",
                im->path, im->nquantized);
}

/* The rounding goes. Codes that begin at 0 are a Relu, which quantizers take out of the graph. */
static lb_status read_quantize(lb_importer *im) {
    lb_view *src;
    const lb_constant *zero = NULL;
    float step;
    int64_t least = 0;
    const lb_tensor *t = lb_import_input(im, 0);
    if (t && t->kind == LB_TENSOR_CONSTANT && !t->constant.whole) {
        lb_constant unrounded = t->constant;
        unrounded.unrounded = true;
        return lb_import_set_constant(im, &unrounded);
    }
    LB_TRY(lb_import_view(im, 0, &src));
    LB_TRY(lb_import_scalar(im, 1, "", 0, &step));
    if (!(step > 0) || isinf(step))
        return lb_import_damaged(im, "its scale is %g", (double)step);
    if (lb_import_input(im, 2))
        LB_TRY(lb_import_constant(im, 2, &zero));
    if (zero && (zero->count != 1 || !zero->whole || (zero->type && !lb_import_least_code(zero->type, &least))))
        return lb_import_refuse(im, "its zero point is no single integer of at most 8 bits");
    bool nonnegative = src->node == 0; /* the image is what it is */
    if (!nonnegative)
        LB_TRY(lb_net_nonnegative(im->net, src->node, &nonnegative));
    if (!nonnegative && (zero ? zero->i[0] : 0) == least)
        LB_TRY(lb_import_clip(im, 0, 0, INFINITY));
    else
        LB_TRY(lb_import_set_view(im, src));
    if (lb_import_is_read(im, 0))
        im->tensors[lb_import_find(im, im->node->output[0])].view.codes = true;
    im->nquantized++;
    return LB_OK;
}

bool lb_import_is_quantized(const lb_importer *im) {
    static const char *const operators[] = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "Round"};
    static const char *const domains[] = {"qonnx", "onnx.brevitas", "finn"};
    const char *op = im->node->op_type, *domain = im->node->domain ? im->node->domain : "";
    bool found = !strncmp(op, "QLinear", 7);
    for (size_t i = 0; i < LB_COUNT(operators); i++)
        found |= !strcmp(op, operators[i]);
    for (size_t i = 0; i < LB_COUNT(domains); i++)
        found |= !strncmp(domain, domains[i], strlen(domains[i]));
    return found;
}

static const lb_import_op ops[] = {{"DequantizeLinear", read_dequantize}, {"QuantizeLinear", read_quantize}};

lb_import_reader lb_import_codes_reader(const lb_importer *im) { return lb_import_look_up(im, ops, LB_COUNT(ops)); }

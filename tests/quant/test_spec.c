/* The tables and what a spec may ask for. */
#include "quant/reference.h"

static void tables(void **state) {
    size_t count;
    (void)state;
    const lb_quantizer *const *quantizers = lb_quantizer_list(&count);
    assert_int_equal(count, LB_COUNT(ref_rows));
    for (size_t i = 0; i < count; i++) {
        const lb_quantizer *q = quantizers[i];
        assert_ptr_equal(lb_quantizer_find(q->name), q);
        ref_find(q);
        assert_true(q->help && *q->help && strlen(q->help) < 100 && !strchr(q->help, '\n') && q->paper && *q->paper);
        assert_true(q->weights || q->activations);
        assert_true(q->grid && q->min_bits >= 1 && q->min_bits <= q->max_bits && q->max_bits <= 8);
        assert_true((q->forward != NULL) == q->weights);
        assert_true((q->form != NULL) == q->activations);
        assert_true(q->granularity != LB_PER_DEFAULT);
        assert_true(!q->weights || q->estimator != LB_EST_DEFAULT);
        assert_true(!q->activations || q->estimator_activations != LB_EST_DEFAULT);
        assert_true((q->init != NULL) == (q->nparams > 0) && (size_t)q->nparams <= LB_COUNT(q->param_names));
        for (int p = 0; p < q->nparams; p++)
            assert_true(q->param_names[p] && *q->param_names[p]);
        assert_true(!q->estimator || q->estimator != LB_EST_OWN || q->backward);
    }
    const lb_mixer *const *mixers = lb_mixer_list(&count);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(lb_mixer_find(mixers[i]->name), mixers[i]);
        assert_true(mixers[i]->help && mixers[i]->paper && mixers[i]->weights && mixers[i]->share);
    }
    assert_null(lb_quantizer_find("nonsense"));
    assert_null(lb_quantizer_find(""));
    assert_null(lb_mixer_find("nonsense"));
}

static void defaults(void **state) {
    lb_ctx *ctx = test_ctx();
    size_t count;
    (void)state;
    const lb_quantizer *const *list = lb_quantizer_list(&count);
    for (size_t i = 0; i < count; i++)
        for (lb_target t = LB_WEIGHTS; t <= LB_ACTIVATIONS; t++) {
            lb_quant_spec spec = {.quantizer = list[i], .target = t, .bits = list[i]->max_bits, .options.per = LB_PER_DEFAULT};
            lb_grid grid;
            if (t == LB_WEIGHTS ? !list[i]->weights : !list[i]->activations)
                continue;
            assert_ok(ctx, lb_quant_resolve(ctx, "conv1", &spec, &grid));
            assert_true(spec.mixer == &lb_mixer_constant && spec.options.mix == 1.f);
            assert_true(spec.options.estimator != LB_EST_DEFAULT && spec.options.surrogate != LB_SUR_DEFAULT &&
                        spec.options.per != LB_PER_DEFAULT);
            assert_true(spec.options.threshold == 0.7f);
            const lb_quant_spec once = spec; /* resolving what is resolved changes nothing */
            assert_ok(ctx, lb_quant_resolve(ctx, "conv1", &spec, &grid));
            assert_true(spec.options.estimator == once.options.estimator && spec.options.surrogate == once.options.surrogate &&
                        spec.options.per == once.options.per);
        }
    assert_int_equal(lb_quant_nparams(&(lb_quant_spec){.quantizer = &lb_quantizer_lsq}), 1);
    assert_int_equal(lb_quant_nparams(&(lb_quant_spec){.quantizer = &lb_quantizer_uniform}), 0);
    assert_int_equal(lb_quant_nparams(&(lb_quant_spec){.quantizer = &lb_quantizer_pact}), 0);
    lb_ctx_destroy(ctx);
}

/* What is refused, and a word its reason must hold. */
static const struct {
    lb_quant_spec spec;
    const char *word;
} refused[] = {
    {{.quantizer = &lb_quantizer_bwn, .target = LB_ACTIVATIONS, .bits = 1}, "does not quantize activations"},
    {{.quantizer = &lb_quantizer_twn, .target = LB_ACTIVATIONS, .bits = 2}, "does not quantize activations"},
    {{.quantizer = &lb_quantizer_sign, .bits = 2}, "sign has 1 bit, not 2"},
    {{.quantizer = &lb_quantizer_twn, .bits = 1}, "twn has 2 bits, not 1"},
    {{.quantizer = &lb_quantizer_dorefa, .bits = 0}, "1 to 8 bits"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 9}, "1 to 8 bits"},
    {{.quantizer = &lb_quantizer_lsq, .bits = -1}, "1 to 8 bits"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 4, .target = LB_ACTIVATIONS, .options.per = LB_PER_FILTER}, "per: filter"},
    {{.quantizer = &lb_quantizer_bwn, .bits = 1, .options.estimator = LB_EST_OWN}, "no estimator of its own"},
    {{.quantizer = &lb_quantizer_xnor, .bits = 1, .target = LB_ACTIVATIONS, .options.estimator = LB_EST_OWN},
     "no estimator of its own"},
    {{.quantizer = &lb_quantizer_dorefa, .bits = 2, .options.estimator = LB_EST_CLIPPED}, "tanh"},
    {{.quantizer = &lb_quantizer_twn, .bits = 2, .options.threshold = -1.f}, "threshold"},
    {{.quantizer = &lb_quantizer_twn, .bits = 2, .options.threshold = NAN}, "threshold"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .mixer = &lb_mixer_constant, .options.mix = 1.5f}, "mix"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .mixer = &lb_mixer_constant, .options.mix = NAN}, "mix"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .mixer = &lb_mixer_alpha, .options.mix_start = 0.5f, .options.mix_end = 0.4f},
     "mix_start"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .target = LB_ACTIVATIONS, .mixer = &lb_mixer_roulette},
     "chooses among weights; activations can have constant, alpha, stochastic, mask"},
    {{.quantizer = &lb_quantizer_bwn, .bits = 1, .mixer = &lb_mixer_roulette, .options.mix_scope = LB_SCOPE_LAYER},
     "filter or element"},
    {{.quantizer = &lb_quantizer_bwn, .bits = 1, .mixer = &lb_mixer_roulette, .options.mix_ratio = NAN}, "mix_ratio"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .mixer = &lb_mixer_stochastic, .options.mix_scope = LB_SCOPE_FILTER},
     "layer or block"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .mixer = &lb_mixer_stochastic, .options.mix_from = 2.f}, "mix_from"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .mixer = &lb_mixer_stochastic, .options.mix_start = 0.9f, .options.mix_end = 0.8f},
     "mix_start"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 1}, "2 to 8 bits"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 2, .options.drop_top = 1.f}, "drop_top"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 2, .options.drop_lower = NAN}, "drop_lower"},
    {{.quantizer = &lb_quantizer_rq, .bits = 2, .options.temperature = -1.f}, "temperature"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 4, .options.bit_lengths = LB_BITS_LEARNED}, "only cpq"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 4, .target = LB_ACTIVATIONS, .options.bit_lengths = LB_BITS_LEARNED}, "only weights"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 4, .options.per = LB_PER_FILTER, .options.bit_lengths = LB_BITS_KEPT}, "per: tensor"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 2, .options.bit_lengths = LB_BITS_LEARNED}, "3 or more"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 4, .options.cpq_backward = LB_CPQ_MODE, .options.bit_lengths = LB_BITS_LEARNED},
     "expect"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 4, .options.drop_top = 0.1f, .options.bit_lengths = LB_BITS_LEARNED}, "drop_top"},
    {{.quantizer = &lb_quantizer_cpq, .bits = 4, .options.bits_penalty = NAN, .options.bit_lengths = LB_BITS_LEARNED},
     "bits_penalty"},
    {{.quantizer = NULL, .bits = 2}, "no quantizer"},
    {{.quantizer = &lb_quantizer_lsq, .bits = 2, .features = -1}, "features"},
};

static void refusals(void **state) {
    lb_ctx *ctx = test_ctx();
    (void)state;
    for (size_t i = 0; i < LB_COUNT(refused); i++) {
        lb_quant_spec spec = refused[i].spec;
        lb_grid grid;
        lb_status status = lb_quant_resolve(ctx, "stage2.conv1", &spec, &grid);
        assert_true(status == LB_ERR_UNSUPPORTED || status == LB_ERR_ARGUMENT);
        if (!strstr(lb_error(ctx), refused[i].word) || strncmp(lb_error(ctx), "stage2.conv1: ", 14))
            fail_msg("row %zu says: %s", i, lb_error(ctx));
    }
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tables), cmocka_unit_test(defaults), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Import of ONNX models that are small files and want much: time, memory. Each is read quickly, or refused before it has it. */
#include "import.h"

enum { MANY = 19990 };

static lb_status import_built(lb_ctx *ctx, lb_onnx_build *b, bool graph_only, lb_imported *in) {
    *in = (lb_imported){0};
    assert_ok(ctx, b->status);
    return lb_net_import(ctx, &b->model, "limits.onnx", &(lb_import_options){.graph_only = graph_only}, in);
}

/* Layers of one name each get the next number; finding it takes no longer the more there are. */
static void same_names(void **state) {
    (void)state;
    lb_ctx *ctx = test_ctx();
    lb_onnx_build b;
    lb_imported in;
    test_model(&b, ctx);
    const char *src = "scores";
    for (int i = 0; i < MANY; i++) {
        const char *dst = i == MANY - 1 ? "last" : lb_onnx_name(&b, "t%d", i);
        TEST_NODE(&b, "Sigmoid", dst, src)->name = TEXT(i == 3 ? "same_3" : "same");
        src = dst;
    }
    b.graph.output[0]->name = TEXT("last");
    const double begin = lb_thread_time();
    assert_ok(ctx, import_built(ctx, &b, false, &in));
    const double took = lb_thread_time() - begin;
    static const char *const names[] = {"same", "same_2", "same_3", "same_3_2", "same_4", "same_5"};
    for (size_t i = 0; i < LB_COUNT(names); i++)
        assert_int_equal(lb_net_find(in.net, names[i]), lb_net_find(in.net, "same") + (int)i);
    printf("%d layers of one name: %.2f s\n", MANY, took);
    assert_true(took < 20);
    lb_net_destroy(in.net);
    lb_onnx_build_free(&b);
    lb_ctx_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

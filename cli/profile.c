/* lowbit bench MODEL --profile */
#include "cli.h"

static double share(const lb_layer_times *p, double gops) { return p->peak_gops > 0 ? 100 * gops / p->peak_gops : 0; }

static int print_json(const lb_layer_times *p) {
    json_t *layers = json_array();
    for (int i = 0; i < p->nlayers; i++) {
        const lb_layer_time *l = &p->layers[i];
        json_array_append_new(layers, json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", l->name, "op", l->op, "kernel", l->kernel,
                                                "ms", cli_json_real(l->ms), "gops", cli_json_real(l->gops)));
    }
    return cli_print_json(json_pack("{s:o, s:o, s:o, s:o}", "layers", layers, "ms", cli_json_real(p->ms), "gops",
                                    cli_json_real(p->gops), "peak_gops", cli_json_real(p->peak_gops)));
}

static void print_table(const lb_layer_times *p) {
    cli_table table;
    cli_table_init(&table, "<<<>>>>");
    cli_table_row(&table, "layer\top\tkernel\tms\t%% of time\tGOP/s\t%% of peak");
    for (int i = 0; i < p->nlayers; i++) {
        const lb_layer_time *l = &p->layers[i];
        if (l->gops > 0)
            cli_table_row(&table, "%s\t%s\t%s\t%.4f\t%.1f\t%.1f\t%.1f", l->name, l->op, l->kernel, l->ms, 100 * l->ms / p->ms,
                          l->gops, share(p, l->gops));
        else
            cli_table_row(&table, "%s\t%s\t%s\t%.4f\t%.1f\t-\t-", l->name, l->op, l->kernel, l->ms, 100 * l->ms / p->ms);
    }
    cli_table_row(&table, "total\t\t\t%.4f\t\t%.1f\t%.1f", p->ms, p->gops, share(p, p->gops));
    cli_table_print(&table);
    if (p->peak_gops > 0)
        printf("peak: %.0f GOP/s, 8-bit multiply-adds of one thread; fewer bits may be faster (bench/peak)\n", p->peak_gops);
}

int cli_profile_model(lb_ctx *ctx, lb_packed *model, const cli_args *args) {
    lb_layer_times profile = {0};
    if (lb_packed_profile(model, args->batch ? args->batch : 1, args->runs ? args->runs : 100, &profile) != LB_OK)
        return cli_library_error(ctx);
    int status = CLI_DONE;
    if (args->json)
        status = print_json(&profile);
    else
        print_table(&profile);
    lb_layer_times_free(&profile);
    return status;
}

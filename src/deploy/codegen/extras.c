/* test_images.h and README.md. */
#include "deploy/codegen/codegen.h"

void lb_write_test_images(const lb_generator *g, lb_code *code) {
    const lbrt_tensor *image = &g->graph->tensors[0];
    const size_t size = lbrt_elements(image), classes = (size_t)g->graph->classes;
    lb_code_printf(code, "/* %s, and the scores that the PC's runtime gives them. */\n#include \"model.h\"\n\n",
                   g->real ? "The first images of the test set" : "Noise, because no test set was at hand");
    lb_code_printf(code,
                   "#define TEST_IMAGES %d\n\n"
                   "static const uint8_t test_images[TEST_IMAGES][MODEL_HEIGHT * MODEL_WIDTH * MODEL_CHANNELS] = {\n",
                   g->nimages);
    for (int i = 0; i < g->nimages; i++) {
        lb_code_printf(code, "{\n");
        lb_code_bytes(code, g->images + (size_t)i * size, size);
        lb_code_printf(code, "},\n");
    }
    lb_code_printf(code, "};\n\nstatic const int32_t test_scores[TEST_IMAGES][MODEL_CLASSES] = {\n");
    for (int i = 0; i < g->nimages; i++) {
        lb_code_printf(code, "{\n");
        lb_code_ints(code, g->scores + (size_t)i * classes, classes);
        lb_code_printf(code, "},\n");
    }
    lb_code_printf(code, "};\n");
}

void lb_write_readme(const lb_generator *g, lb_code *code) {
    const lbrt_tensor *image = &g->graph->tensors[0];
    lb_code_printf(code, "# ");
    lb_code_name(code, g->graph->name);
    lb_code_printf(code,
                   " as C\n\n"
                   "Made by `lowbit codegen` " LB_VERSION ". C99, no C library, no allocation, %s.\n\n"
                   "    uint8_t image[MODEL_HEIGHT * MODEL_WIDTH * MODEL_CHANNELS]; /* %d x %d x %d, bytes as decoded */\n"
                   "    int32_t scores[MODEL_CLASSES];                              /* %d */\n"
                   "    model_run(image, scores);\n"
                   "    puts(model_class_name(model_best(scores)));\n\n",
                   g->model->info.has_float ? "float arithmetic in the network's float layers only" : "integers only",
                   (int)image->h, (int)image->w, (int)image->c, (int)g->graph->classes);
    lb_code_printf(code,
                   "| memory | bytes |\n|---|---:|\n"
                   "| flash: constants (weights.h) | %lld |\n"
                   "| RAM: arena (MODEL_ARENA_SIZE) | %zu |\n\n"
                   "To the flash comes the code, a few kilobytes, as your compiler makes it (`size model.o` shows both together);\n"
                   "to the RAM the image and the scores, which are yours, and the stack: with -O2 or -Os less than half a\n"
                   "kilobyte on Cortex-M3 and up, less than one on smaller ones.\n\n",
                   (long long)g->info.constants, g->arena);
    lb_code_printf(
        code,
        "| file | |\n|---|---|\n"
        "| `model.h` | the interface: the only file to include |\n"
        "| `model.c` | the network: the only file to compile |\n"
        "| `weights.h`, `kernels/` | what `model.c` includes |\n"
        "| `test.c`, `test_images.h` | the self-test: scores of %d %s must be equal to the last bit |\n\n"
        "    cc -std=c99 -O2 test.c model.c -o test && ./test\n"
        "    arm-none-eabi-gcc -mcpu=cortex-m4 -std=c99 -ffreestanding -O2 -c model.c\n\n"
        "A compiler may call `memcpy` and `memset` even in freestanding code. All calls share one arena: not reentrant.\n"
        "Define `MODEL_ARENA_ATTRIBUTE` to place it in a section of its own. With `-DMODEL_AFTER_LAYER=function` model.c calls\n"
        "`void function(int layer)` after each layer, for example to time them.%s\n",
        g->nimages, g->real ? "images of the test set" : "images of noise",
        g->model->info.has_float
            ? "\n"
              "Float layers must not be compiled with `-ffast-math`, nor, by others than GCC and clang, with fused multiply-adds."
            : "");
}

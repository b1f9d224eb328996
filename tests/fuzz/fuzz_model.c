/* libFuzzer: any bytes as a packed model. The header is made right, so that the fuzzer spends its time on fields; what opens is
 * run, with the kernels of an instruction set that depends on the input and with ref's: the scores must be the same. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "../deploy/work.h"
#include "crc32c.h"

#define LIMIT ((size_t)1 << 22)

/* (classes) owned scores of one image; NULL: it would take too long. */
static int32_t *run(const lbrt_model *model, const lbrt_info *info) {
    const size_t arena_size = lbrt_arena_size(model, 1), pixels = (size_t)info->ih * (size_t)info->iw * (size_t)info->ic;
    if (arena_size == 0 || arena_size > LIMIT || pixels > LIMIT || test_work(lbrt_model_graph(model)) > 1e6)
        return NULL;
    uint8_t *image = malloc(pixels), *arena = malloc(arena_size);
    int32_t *scores = malloc((size_t)info->classes * sizeof *scores);
    assert(image && arena && scores);
    memset(arena, 0xee, arena_size);
    for (size_t i = 0; i < pixels; i++)
        image[i] = (uint8_t)(i * 37 + i / 7);
    const lbrt_status status = lbrt_run(model, image, 1, arena, arena_size, scores);
    assert(status == LBRT_OK);
    (void)status;
    free(image);
    free(arena);
    return scores;
}

/* The same of a file; NULL also if it is no model, or one too large. */
static int32_t *open_and_run(const uint8_t *file, size_t size, lbrt_isa isa, int32_t *classes) {
    lbrt_info info;
    const char *what;
    int layer;
    if (lbrt_probe_why(file, size, isa, &info, &what, &layer) != LBRT_OK || info.model_size >= LIMIT)
        return NULL;
    void *memory = malloc(info.model_size);
    lbrt_model *model;
    assert(memory);
    const lbrt_status status = lbrt_open_isa(file, size, isa, memory, info.model_size, &model);
    assert(status == LBRT_OK);
    (void)status;
    int32_t *scores = run(model, &info);
    *classes = (int32_t)info.classes;
    free(memory);
    return scores;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t header = 16;
    if (size < header)
        return 0;
    uint8_t *file = malloc(size);
    assert(file);
    memcpy(file, data, size);
    memcpy(file, "LBM\x1a\2\0\0\0", 8);
    for (size_t i = 0; i < 4; i++)
        file[8 + i] = (uint8_t)(size >> (8 * i));
    uint32_t crc = lbrt_crc32c(0, file, 12);
    crc = lbrt_crc32c(crc, file + header, size - header);
    for (size_t i = 0; i < 4; i++)
        file[12 + i] = (uint8_t)(crc >> (8 * i));
    int32_t classes = 0;
    int32_t *fast = open_and_run(file, size, (lbrt_isa)(crc % ((unsigned)lbrt_best_isa() + 1)), &classes);
    int32_t *ref = fast ? open_and_run(file, size, LBRT_ISA_REF, &classes) : NULL;
    assert(!fast || !ref || memcmp(fast, ref, (size_t)classes * sizeof *ref) == 0);
    free(fast);
    free(ref);
    free(file);
    return 0;
}

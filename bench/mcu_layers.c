/* Instructions of each layer of a generated network (-DMODEL_AFTER_LAYER=after_layer): a line "LAYER INSTRUCTIONS" each. */
#include <stdio.h>

#include "cycles.h"
#include "model.h"

static uint8_t image[MODEL_HEIGHT * MODEL_WIDTH * MODEL_CHANNELS];
static int32_t scores[MODEL_CLASSES];

void after_layer(int layer);

void after_layer(int layer) {
    printf("%d %ld\n", layer, (long)stop_counting());
    start_counting();
}

int main(void) {
    FILE *file = fopen("images", "rb");
    if (!file || fread(image, sizeof image, 1, file) != 1)
        return 1;
    start_counting();
    model_run(image, scores);
    return fclose(file) != 0;
}

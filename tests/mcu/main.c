/* Runs a generated network on the images of the file `images` (bytes, one after another) and writes its scores (int32) to the file
 * `scores`. Prints the instructions of the last image where they can be counted. */
#include <stdio.h>

#include "cycles.h"
#include "model.h"

static uint8_t image[MODEL_HEIGHT * MODEL_WIDTH * MODEL_CHANNELS];
static int32_t scores[MODEL_CLASSES];

int main(void) {
    FILE *from = fopen("images", "rb"), *to = fopen("scores", "wb");
    int64_t count = -1;
    if (!from || !to)
        return 1;
    while (fread(image, sizeof image, 1, from) == 1) {
        start_counting();
        model_run(image, scores);
        count = stop_counting();
        if (fwrite(scores, sizeof scores, 1, to) != 1)
            return 1;
    }
    if (count >= 0)
        printf("%ld\n", (long)count);
    return fclose(to) != 0;
}

/* Self-test: the scores of a few images must be, to the last bit, those that the PC computed when this code was generated. Returns
 * 0 if they are; where there is a C library, it also prints what it sees. */
#include "model.h"
#include "test_images.h"

#if __STDC_HOSTED__
#include <stdio.h>
#endif

static int32_t scores[MODEL_CLASSES];

int main(void) {
    int wrong = 0;
    for (int i = 0; i < TEST_IMAGES; i++) {
        int equal = 1;
        model_run(test_images[i], scores);
        for (int c = 0; c < MODEL_CLASSES; c++)
            equal = equal && scores[c] == test_scores[i][c];
        wrong += !equal;
#if __STDC_HOSTED__
        printf("image %d: class %d %s, %s\n", i, model_best(scores), model_class_name(model_best(scores)),
               equal ? "equal" : "NOT EQUAL");
#endif
    }
    return wrong;
}

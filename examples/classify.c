/* Classifies one image with a packed model: the inference library alone, no allocation.
 *
 *     example_classify MODEL.lbm IMAGE        IMAGE: PGM (P5), PPM (P6) or raw bytes, of exactly the size that the model wants
 *
 * Built beside the program (build/example_classify); elsewhere:  cc classify.c $(pkg-config --cflags --libs lowbit_rt) */
#include <stdio.h>
#include <stdlib.h>

#include <lowbit/lowbit_rt.h>

static unsigned char file[8 << 20], memory[64 << 20], arena[64 << 20], image[1 << 20]; /* as large as your models need */
static int32_t scores[1000];

static size_t load(const char *path, unsigned char *bytes, size_t limit) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    const size_t size = fread(bytes, 1, limit, f);
    fclose(f);
    return size;
}

int main(int argc, char **argv) {
    lbrt_info info;
    lbrt_model *model;
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.lbm IMAGE\n", argv[0]);
        return 2;
    }

    /* The file is checked completely and used where it is; everything else goes into `memory`. */
    const size_t file_size = load(argv[1], file, sizeof file);
    lbrt_status status = lbrt_probe(file, file_size, &info);
    if (status == LBRT_OK)
        status = lbrt_open(file, file_size, memory, sizeof memory, &model);
    if (status != LBRT_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], lbrt_status_text(status));
        return 1;
    }

    /* Pixels as they are stored, 0 to 255, rows of interleaved channels. A PGM or PPM has a header before them. */
    const size_t pixels = (size_t)info.ih * (size_t)info.iw * (size_t)info.ic, size = load(argv[2], image, sizeof image - 1);
    int w = info.iw, h = info.ih, start = 0;
    if (size > 2 && image[0] == 'P' && image[1] == (info.ic == 3 ? '6' : '5'))
        sscanf((char *)image + 2, "%d %d 255%n", &w, &h, &start);
    const size_t header = start > 0 ? (size_t)start + 3 : 0;
    if (size != header + pixels || w != info.iw || h != info.ih || info.classes > 1000) {
        fprintf(stderr, "%s: the model wants an image of %dx%d pixels, %d channels\n", argv[2], info.iw, info.ih, info.ic);
        return 1;
    }

    status = lbrt_run(model, image + header, 1, arena, sizeof arena, scores);
    if (status != LBRT_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], lbrt_status_text(status));
        return 1;
    }
    const int best = lbrt_argmax(scores, info.classes);
    printf("%d %s %.4f\n", best, lbrt_class_name(model, best), (double)scores[best] / LBRT_SCORE_ONE);
    return 0;
}

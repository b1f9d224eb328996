/* Classifies one image with a packed model: the inference library alone, no allocation.
 *
 *     example_classify MODEL.lbm IMAGE        IMAGE: PGM (P5), PPM (P6) or raw bytes, of exactly the size that the model wants
 *
 * Built beside the program (build/example_classify); elsewhere:  cc classify.c $(pkg-config --cflags --libs lowbit_rt) */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include <lowbit/lowbit_rt.h>

static unsigned char file[16 << 20], memory[64 << 20], arena[64 << 20], image[1 << 20]; /* as large as your models need */
static int32_t scores[1000];

static size_t load(const char *path, unsigned char *bytes, size_t limit) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    const size_t size = fread(bytes, 1, limit, f);
    if (ferror(f)) {
        perror(path);
        exit(1);
    }
    if (size == limit && fgetc(f) != EOF) {
        fprintf(stderr, "%s: larger than the %zu bytes that this program has for it\n", path, limit);
        exit(1);
    }
    fclose(f);
    return size;
}

/* The numbers of a PGM's or PPM's header: width, height, largest value. Returns where the pixels begin, 0 if it is none. */
static size_t read_header(const unsigned char *bytes, size_t size, int channels, int numbers[3]) {
    size_t at = 2;
    if (size < 2 || bytes[0] != 'P' || bytes[1] != (channels == 3 ? '6' : '5'))
        return 0;
    for (int i = 0; i < 3; i++) {
        for (int comment = 0; at < size && (comment || isspace(bytes[at]) || bytes[at] == '#'); at++)
            comment = bytes[at] == '#' || (comment && bytes[at] != '\n');
        const size_t start = at;
        for (numbers[i] = 0; at < size && at < start + 6 && isdigit(bytes[at]); at++)
            numbers[i] = 10 * numbers[i] + bytes[at] - '0';
        if (at == start)
            return 0;
    }
    return at < size && isspace(bytes[at]) ? at + 1 : 0;
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
    if (status == LBRT_ERR_MEMORY) {
        fprintf(stderr, "%s: wants %zu bytes to be opened in, more than this program has\n", argv[1], info.model_size);
        return 1;
    }
    if (status != LBRT_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], lbrt_status_text(status));
        return 1;
    }
    if ((size_t)info.classes > sizeof scores / sizeof *scores) {
        fprintf(stderr, "%s: more classes than this program has room for\n", argv[1]);
        return 1;
    }

    /* Pixels as they are stored, 0 to 255, rows of interleaved channels. A PGM or PPM has a header before them. */
    const size_t pixels = (size_t)info.ih * (size_t)info.iw * (size_t)info.ic, size = load(argv[2], image, sizeof image);
    int numbers[3] = {info.iw, info.ih, 255};
    const size_t header = read_header(image, size, info.ic, numbers);
    if (header > 0 && numbers[2] != 255) {
        fprintf(stderr, "%s: its largest value is %d; this program reads images of bytes, 255\n", argv[2], numbers[2]);
        return 1;
    }
    if (header > 0 ? numbers[0] != info.iw || numbers[1] != info.ih : size != pixels) {
        fprintf(stderr, "%s: the model wants an image of %dx%d pixels, %d channels\n", argv[2], info.iw, info.ih, info.ic);
        return 1;
    }
    if (size != header + pixels) {
        fprintf(stderr, "%s: %zu bytes of pixels, not %zu\n", argv[2], size - header, pixels);
        return 1;
    }

    status = lbrt_run(model, image + header, 1, arena, sizeof arena, scores);
    if (status == LBRT_ERR_MEMORY) {
        fprintf(stderr, "%s: wants %zu bytes to run in, more than this program has\n", argv[1], lbrt_arena_size(model, 1));
        return 1;
    }
    if (status != LBRT_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], lbrt_status_text(status));
        return 1;
    }
    const int best = lbrt_argmax(scores, info.classes);
    printf("%d %s %.4f\n", best, lbrt_class_name(model, best), (double)scores[best] / LBRT_SCORE_ONE);
    return 0;
}

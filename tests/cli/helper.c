/* Helper of the shell tests:
 *     helper json FILE PATH          prints the value at PATH (a.b.0) of the one JSON value in FILE; "" is the whole
 *     helper idx DIR TRAIN TEST      a learnable data set as four IDX files: 4 classes of 12 x 12 stripes and noise
 *     helper folder DIR TRAIN TEST   the same as an image folder of PNG files, 3 channels
 *     helper flip FILE OFFSET        inverts one byte (a negative offset counts from the end) */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>
#include <spng.h>

#define SIDE 12
#define CLASSES 4

static int print_json(const char *file, const char *path) {
    json_error_t error;
    json_t *root = json_load_file(file, JSON_DECODE_ANY, &error), *at = root;
    char key[256];
    if (!root) {
        fprintf(stderr, "%s:%d: %s\n", file, error.line, error.text);
        return 1;
    }
    for (; at && *path; path += *path == '.') {
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
        path += n;
    }
    if (!at) {
        fprintf(stderr, "%s: no %s\n", file, key);
        return 1;
    }
    if (json_is_string(at))
        puts(json_string_value(at));
    else if (json_is_array(at))
        printf("%zu\n", json_array_size(at)); /* its length is what tests ask for */
    else
        json_dumpf(at, stdout, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9)), putchar('\n');
    json_decref(root);
    return 0;
}

/* Pixel of image i: horizontal, vertical, rising or falling stripes by class, shifted, with noise. */
static uint8_t pixel(int i, int y, int x, uint32_t *noise) {
    int kind = i % CLASSES, shift = i / CLASSES % 4;
    int t = kind == 0 ? y : kind == 1 ? x : kind == 2 ? x + y : x - y + 2 * SIDE;
    *noise = *noise * 1664525u + 1013904223u;
    return (uint8_t)((((t + shift) / 2) % 2 ? 180 : 40) + (int)(*noise >> 26));
}

static void put_be32(FILE *file, uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8)
        fputc((int)(v >> shift & 255), file);
}

static FILE *create(const char *dir, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%.900s/%.99s", dir, name);
    FILE *file = fopen(path, "wb");
    if (!file) {
        perror(path);
        exit(1);
    }
    return file;
}

static void write_idx(const char *dir, const char *split, int count, uint32_t seed) {
    char name[64];
    snprintf(name, sizeof name, "%s-images-idx3-ubyte", split);
    FILE *images = create(dir, name);
    put_be32(images, 0x803);
    put_be32(images, (uint32_t)count);
    put_be32(images, SIDE);
    put_be32(images, SIDE);
    for (int i = 0; i < count; i++)
        for (int p = 0; p < SIDE * SIDE; p++)
            fputc(pixel(i, p / SIDE, p % SIDE, &seed), images);
    fclose(images);
    snprintf(name, sizeof name, "%s-labels-idx1-ubyte", split);
    FILE *labels = create(dir, name);
    put_be32(labels, 0x801);
    put_be32(labels, (uint32_t)count);
    for (int i = 0; i < count; i++)
        fputc(i % CLASSES, labels);
    fclose(labels);
}

static void write_png(FILE *file, const uint8_t *rgb) {
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr header = {.width = SIDE, .height = SIDE, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
    spng_set_png_file(png, file);
    spng_set_ihdr(png, &header);
    spng_encode_image(png, rgb, SIDE * SIDE * 3, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    spng_ctx_free(png);
}

static void write_folder(const char *dir, const char *split, int count, uint32_t seed) {
    static const char *const names[CLASSES] = {"level", "upright", "rising", "falling"};
    char path[1024];
    snprintf(path, sizeof path, "%.900s/%.99s", dir, split);
    mkdir(path, 0777);
    for (int i = 0; i < count; i++) {
        uint8_t rgb[SIDE * SIDE * 3];
        for (int p = 0; p < SIDE * SIDE * 3; p++)
            rgb[p] = pixel(i, p / 3 / SIDE, p / 3 % SIDE, &seed);
        snprintf(path, sizeof path, "%.800s/%.99s/%.99s", dir, split, names[i % CLASSES]);
        mkdir(path, 0777);
        char name[32];
        snprintf(name, sizeof name, "%04d.png", i);
        FILE *file = create(path, name);
        write_png(file, rgb);
        fclose(file);
    }
}

static int flip(const char *path, long offset) {
    FILE *file = fopen(path, "r+b");
    if (!file || fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET))
        return 1;
    int byte = fgetc(file);
    if (byte == EOF || fseek(file, -1, SEEK_CUR))
        return 1;
    fputc(byte ^ 255, file);
    return fclose(file) != 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "json") && argc == 4)
        return print_json(argv[2], argv[3]);
    if (!strcmp(what, "flip") && argc == 4)
        return flip(argv[2], atol(argv[3]));
    if (argc == 5 && (!strcmp(what, "idx") || !strcmp(what, "folder"))) {
        mkdir(argv[2], 0777);
        if (!strcmp(what, "idx")) {
            write_idx(argv[2], "train", atoi(argv[3]), 1);
            write_idx(argv[2], "t10k", atoi(argv[4]), 2);
        } else {
            write_folder(argv[2], "train", atoi(argv[3]), 1);
            write_folder(argv[2], "test", atoi(argv[4]), 2);
        }
        return 0;
    }
    fputs("wrong usage\n", stderr);
    return 2;
}

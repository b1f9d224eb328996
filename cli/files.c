/* Paths, and what lies there. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

int cli_check_output(const char *path, const char *kind, bool (*ours)(const unsigned char *head, size_t size)) {
    struct stat st;
    unsigned char head[16];
    if (stat(path, &st) != 0)
        return CLI_DONE;
    if (S_ISDIR(st.st_mode))
        return cli_fail("%s: a directory; name a file in it with -o", path);
    if (!S_ISREG(st.st_mode))
        return cli_fail("%s: not a file but a pipe or a device; name a file with -o", path);
    if (st.st_size == 0)
        return CLI_DONE;
    FILE *file = fopen(path, "rb");
    const bool known = file && ours(head, fread(head, 1, sizeof head, file));
    if (file)
        fclose(file);
    return known ? CLI_DONE : cli_fail("%s: a file is there already that is not %s; choose another with -o", path, kind);
}

char *cli_join(const char *dir, const char *name) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    char *path = cli_alloc(n + strlen(name) + 2);
    sprintf(path, "%.*s/%s", (int)n, dir, name);
    return path;
}

bool cli_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool cli_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool cli_is_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool cli_is_recipe(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

/* How much memory this process can still have. */
#include <stdio.h>
#include <string.h>

#include "core/core.h"

/* The number behind `key` at the beginning of a line; key "": the first line's. -1 if there is none. */
static int64_t number_in(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char line[256];
    long long value;
    int64_t found = -1;
    while (file && found < 0 && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), " %lld", &value) == 1)
            found = value;
    if (file)
        fclose(file);
    return found;
}

/* A container's limit; its files in memory give way. */
static int64_t left_in_group(void) {
    const int64_t limit = number_in("/sys/fs/cgroup/memory.max", ""), used = number_in("/sys/fs/cgroup/memory.current", "");
    const int64_t files = number_in("/sys/fs/cgroup/memory.stat", "inactive_file ");
    if (limit < 0 || used < 0)
        return INT64_MAX;
    return LB_MAX(limit - used + LB_MAX(files, (int64_t)0), (int64_t)0);
}

int64_t lb_available_memory(void) {
    const int64_t free_kb = number_in("/proc/meminfo", "MemAvailable:"), swap_kb = number_in("/proc/meminfo", "SwapFree:");
    if (free_kb < 0)
        return INT64_MAX;
    return LB_MIN((free_kb + LB_MAX(swap_kb, (int64_t)0)) * 1024, left_in_group());
}

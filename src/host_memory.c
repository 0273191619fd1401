/* host_memory.c: see host_memory.h */
#include "host_memory.h"

#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number behind `word` at the beginning of a line, or the first number of the file when word is ""; -1: none. */
static long long read_number(const char *path, const char *word)
{
    const size_t n = strlen(word);
    char line[256];
    long long value = -1;
    FILE *f = fopen(path, "r");

    while (f && value < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, word, n) != 0 || sscanf(line + n, " %lld", &value) != 1) value = -1;
    if (f) fclose(f);
    return value;
}

static long long group_number(const char *group, const char *file, const char *word)
{
    char *path = xasprintf("/sys/fs/cgroup%s/%s", group, file);
    const long long value = read_number(path, word);

    free(path);
    return value;
}

/* What the group may still take: files in the cache are given up when memory is asked for. */
static long long group_room(const char *group)
{
    const long long most = group_number(group, "memory.max", ""), used = group_number(group, "memory.current", "");
    const long long cache = group_number(group, "memory.stat", "inactive_file");

    return most < 0 || used < 0 ? -1 : max_i64(most - used + max_i64(cache, 0), 0);
}

/* "0::/system.slice/job_7/step_0" of /proc/self/cgroup; "/" in a container that sees only its own. */
static void own_group(char *group, size_t room)
{
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[1024];

    group[0] = '\0';
    while (f && !group[0] && fgets(line, sizeof line, f))
        if (strncmp(line, "0::", 3) == 0) snprintf(group, room, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    if (f) fclose(f);
}

size_t host_memory_available(void)
{
    const long long kib = read_number("/proc/meminfo", "MemAvailable:");
    long long least = kib < 0 ? (long long)1 << 62 : kib << 10;
    char group[1024];

    own_group(group, sizeof group);
    for (char *end = group + strlen(group);; end = strrchr(group, '/')) {     /* a limit above holds below */
        if (end) *end = '\0';
        const long long room = group_room(group);
        if (room >= 0) least = min_i64(least, room);
        if (!end || !group[0]) break;
    }
    return (size_t)least;
}

/* host_memory.c: see host_memory.h */
#include "host_memory.h"

#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a version of control groups keeps its figures. */
typedef struct group_files {
    const char *mount, *controller;           /* the controller's name in /proc/self/cgroup */
    const char *most, *used, *cache[2];       /* cache: words of memory.stat */
} group_files;

static const group_files versions[] = {
    {"/sys/fs/cgroup", "", "memory.max", "memory.current", {"active_file", "inactive_file"}},
    {"/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     {"total_active_file", "total_inactive_file"}},
};

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

static long long group_number(const char *mount, const char *group, const char *file, const char *word)
{
    char *path = xasprintf("%s%s/%s", mount, group, file);
    const long long value = read_number(path, word);

    free(path);
    return value;
}

/* A group's limit, and what it may still take: files in the cache are given up when memory is asked for. */
static void apply_limit(host_memory *m, const group_files *f, const char *mount, const char *group)
{
    const long long most = group_number(mount, group, f->most, ""), used = group_number(mount, group, f->used, "");
    long long cache = 0;

    if (most < 0 || used < 0) return;
    for (int i = 0; i < 2; i++) cache += max_i64(group_number(mount, group, "memory.stat", f->cache[i]), 0);
    const size_t room = (size_t)max_i64(most - max_i64(used - cache, 0), 0);
    m->total = (size_t)min_i64((int64_t)m->total, most);
    m->available = (size_t)min_i64((int64_t)m->available, (int64_t)room);
}

/* Is the controller in the list "cpu,memory"? */
static bool is_listed(const char *list, size_t n, const char *controller)
{
    const size_t length = strlen(controller);

    for (const char *end = list + n; list < end; list += strcspn(list, ",:") + 1)
        if (strcspn(list, ",:") == length && strncmp(list, controller, length) == 0) return true;
    return n == 0 && length == 0;
}

/* The path of "0::/system.slice/job_7/step_0" or "9:memory:/slurm/job_7" in /proc/self/cgroup; "/" in a container that
 * sees only its own. */
static void own_group(char *group, size_t room, const char *root, const char *controller)
{
    char line[1024], *path = xasprintf("%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "r");

    free(path);
    group[0] = '\0';
    while (f && !group[0] && fgets(line, sizeof line, f)) {
        const char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
        if (at && is_listed(list + 1, (size_t)(at - list - 1), controller))
            snprintf(group, room, "%.*s", (int)strcspn(at + 1, "\n"), at + 1);
    }
    if (f) fclose(f);
}

host_memory host_memory_read(const char *root)
{
    char *meminfo = xasprintf("%s/proc/meminfo", root);
    const long long free_kib = read_number(meminfo, "MemAvailable:"), kib = read_number(meminfo, "MemTotal:");
    const long long unknown = (long long)1 << 62;
    host_memory m = {.available = (size_t)(free_kib < 0 ? unknown : free_kib << 10),
                     .total = (size_t)(kib < 0 ? unknown : kib << 10)};
    char group[1024];

    free(meminfo);
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        const group_files *f = &versions[i];
        char *mount = xasprintf("%s%s", root, f->mount);
        own_group(group, sizeof group, root, f->controller);
        for (char *end = group + strlen(group);; end = strrchr(group, '/')) {     /* a limit above holds below */
            if (end) *end = '\0';
            apply_limit(&m, f, mount, group);
            if (!end || !group[0]) break;
        }
        free(mount);
    }
    return m;
}

/* host_memory.c: see host_memory.h */
#include "src/host/host_memory.h"

#include "src/base/base.h"
#include "src/host/control_group.h"

#include <stdlib.h>

/* Where a version of control groups keeps its figures. */
typedef struct group_files {
    const char *most, *used, *cache[2];       /* cache: words of memory.stat */
} group_files;

static const group_files files_of[] = {
    [1] = {"memory.limit_in_bytes", "memory.usage_in_bytes", {"total_active_file", "total_inactive_file"}},
    [2] = {"memory.max", "memory.current", {"active_file", "inactive_file"}},
};

/* A group's limit, and what it may still take: files in the cache are given up when memory is asked for. */
static void apply_limit(void *arg, int version, const char *dir)
{
    host_memory *m = arg;
    const group_files *f = &files_of[version];
    const long long most = control_group_number(dir, f->most, ""), used = control_group_number(dir, f->used, "");
    long long cache = 0;

    if (most < 0 || used < 0) return;
    for (int i = 0; i < 2; i++) cache += max_i64(control_group_number(dir, "memory.stat", f->cache[i]), 0);
    const size_t room = (size_t)max_i64(most - max_i64(used - cache, 0), 0);
    m->total = (size_t)min_i64((int64_t)m->total, most);
    m->available = (size_t)min_i64((int64_t)m->available, (int64_t)room);
}

host_memory host_memory_read(const char *root)
{
    char *proc = xasprintf("%s/proc", root);
    const long long free_kib = control_group_number(proc, "meminfo", "MemAvailable:"),
                    kib = control_group_number(proc, "meminfo", "MemTotal:"), unknown = (long long)1 << 62;
    host_memory m = {.available = (size_t)(free_kib < 0 ? unknown : free_kib << 10),
                     .total = (size_t)(kib < 0 ? unknown : kib << 10)};

    free(proc);
    control_groups(root, "memory", apply_limit, &m);
    return m;
}

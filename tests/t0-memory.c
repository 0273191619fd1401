/* How much memory a host has, from directories made up like /proc and /sys. */
#include "host_memory.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *root;

/* Writes ROOT/path, with the directories on the way. */
static void put(const char *path, const char *text)
{
    char *at = xasprintf("%s/%s", root, path);

    for (char *slash = strchr(at + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(at, 0777);
        *slash = '/';
    }
    FILE *f = fopen(at, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s cannot be written", at);
    free(at);
}

static void begin(const char *name, const char *groups)
{
    free(root);
    root = xasprintf("%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
    put("proc/meminfo", "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    800 kB\n");
    put("proc/self/cgroup", groups);
}

static void is(long long available, long long total, const char *what)
{
    const host_memory m = host_memory_read(root);

    ok((long long)m.available == available && (long long)m.total == total, "%s: %zu of %zu bytes", what, m.available,
       m.total);
}

int main(void)
{
    begin("none", "0::/\n");
    is(800 * 1024, 1000 * 1024, "no limit: the kernel's estimate");

    begin("two", "0::/job/step\n");
    put("sys/fs/cgroup/job/step/memory.max", "max\n");
    put("sys/fs/cgroup/job/step/memory.current", "5000\n");
    put("sys/fs/cgroup/job/memory.max", "20000\n");
    put("sys/fs/cgroup/job/memory.current", "9000\n");
    put("sys/fs/cgroup/job/memory.stat", "anon 1000\nfile 8000\ninactive_file 3000\nactive_file 4000\n");
    is(20000 - 9000 + 7000, 20000, "cgroup 2: the limit above holds, the cache counts as free");

    begin("one", "12:cpu,cpuacct:/other\n9:memory:/slurm/job_7\n0::/\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "30000\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", "12000\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.stat",
        "active_file 1\ntotal_inactive_file 500\ntotal_active_file 100\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "90000\n");
    is(30000 - 12000 + 600, 30000, "cgroup 1: likewise");

    begin("full", "0::/\n");
    put("sys/fs/cgroup/memory.max", "1000\n");
    put("sys/fs/cgroup/memory.current", "1500\n");
    is(0, 1000, "used beyond the limit: nothing is left");
    free(root);
    return tap_done();
}

/* How much memory a host has, from directories made up like /proc and /sys. */
#include "src/host/host_memory.h"
#include "tests/lib/made_up.h"
#include "tests/lib/tap.h"

static const char two[] = "25 24 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                  one[] = "31 24 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                          "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
                          "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                          "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

static void host(const char *name, const char *groups, const char *mounts)
{
    begin(name, groups, mounts);
    put("proc/meminfo", "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    800 kB\n");
}

static void is(long long available, long long total, const char *what)
{
    const host_memory m = host_memory_read(made_up);

    ok((long long)m.available == available && (long long)m.total == total, "%s: %zu of %zu bytes", what, m.available,
       m.total);
}

int main(void)
{
    host("none", "0::/\n", two);
    is(800 * 1024, 1000 * 1024, "no limit: the kernel's estimate");

    host("two", "0::/job/step\n", two);
    put("sys/fs/cgroup/job/step/memory.max", "max\n");
    put("sys/fs/cgroup/job/step/memory.current", "5000\n");
    put("sys/fs/cgroup/job/memory.max", "20000\n");
    put("sys/fs/cgroup/job/memory.current", "9000\n");
    put("sys/fs/cgroup/job/memory.stat", "anon 1000\nfile 8000\ninactive_file 3000\nactive_file 4000\n");
    is(20000 - 9000 + 7000, 20000, "cgroup 2: the limit above holds, the cache counts as free");

    host("one", "12:cpu,cpuacct:/other\n9:memory:/slurm/job_7\n0::/\n", one);
    put("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "30000\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", "12000\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.stat",
        "active_file 1\ntotal_inactive_file 500\ntotal_active_file 100\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "90000\n");
    is(30000 - 12000 + 600, 30000, "cgroup 1: likewise");

    host("docker", "9:memory:/docker/7\n",
         "36 31 0:33 /docker/7 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "40000\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "10000\n");
    is(30000, 40000, "a container of version 1 sees only its own group");

    host("full", "0::/\n", two);
    put("sys/fs/cgroup/memory.max", "1000\n");
    put("sys/fs/cgroup/memory.current", "1500\n");
    is(0, 1000, "used beyond the limit: nothing is left");
    return tap_done();
}

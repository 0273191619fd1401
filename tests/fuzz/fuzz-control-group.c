/* fuzz-control-group.c: /proc/self/mountinfo and, behind a byte 0xFF, /proc/self/cgroup and a limit's file. */
#include "src/host/control_group.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void fuzz_start(void)
{
    mkdir("proc", 0777);
    mkdir("proc/self", 0777);
}

void fuzz_seeds(void)
{
    fuzz_seed_text("v1",
                   "36 25 0:30 /docker/7 /sys/fs/cgroup/cpu\\040x rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n\xFF"
                   "4:cpu,cpuacct:/docker/7/job\n0::/\n\xFF"
                   "50000 100000\n");
    fuzz_seed_text("v2", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\xFF"
                         "0::/system.slice/job_7/step_0\n\xFF"
                         "max 100000\n");
}

static void visit(void *arg, int version, const char *dir)
{
    int *n = arg;

    CHECK(version == 1 || version == 2, "version %d", version);
    CHECK(++*n < 100000, "no end of %s", dir);
    control_group_number(dir, "limit", "");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size, *second = size ? memchr(data, 0xFF, size) : NULL;
    const uint8_t *third = second ? memchr(second + 1, 0xFF, (size_t)(end - second - 1)) : NULL;
    int n = 0;

    fuzz_write("proc/self/mountinfo", data, (size_t)((second ? second : end) - data));
    fuzz_write("proc/self/cgroup", second ? second + 1 : data,
               second ? (size_t)((third ? third : end) - second - 1) : 0);
    fuzz_write("limit", third ? third + 1 : data, third ? (size_t)(end - third - 1) : 0);
    control_groups(".", "cpu", visit, &n);
    control_group_number(".", "limit", "");
    control_group_number(".", "limit", "5");
    return 0;
}

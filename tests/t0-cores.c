/* Which of a host's cores a process may use, from directories made up like /proc and /sys, and from OMP_NUM_THREADS. */
#include "src/host/host_cores.h"
#include "tests/lib/made_up.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

/* The quotas found, own group first: "2 in /sys/fs/cgroup/a, 4 in /sys/fs/cgroup"; "": none. */
static void are(const char *wanted, const char *what)
{
    host_cores h;
    char text[1024] = "";

    host_cores_read(&h, made_up);
    for (int i = 0; i < h.n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d in %s", i ? ", " : "", h.limits[i].cores,
                 h.where[i] + strlen(made_up));
    ok(strcmp(text, wanted) == 0, "%s: \"%s\"", what, text);
}

static void test_version_2(void)
{
    begin("two-none", "0::/\n", "25 24 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
    are("", "version 2, no limit");
    put("sys/fs/cgroup/cpu.max", "max 100000\n");
    are("", "\"max\"");
    put("sys/fs/cgroup/cpu.max", "200000 100000\n");
    are("2 in /sys/fs/cgroup", "a container that sees only its own group");
    put("sys/fs/cgroup/cpu.max", "765000 100000\n");
    are("8 in /sys/fs/cgroup", "7.65 cores, rounded up");
    put("sys/fs/cgroup/cpu.max", "1000 50000\n");
    are("1 in /sys/fs/cgroup", "less than one");

    begin("two-slice", "0::/user.slice/user-7.slice/job.scope\n",
          "25 24 0:22 / /sys/fs/cgroup rw,nosuid shared:4 master:9 - cgroup2 cgroup2 rw\n");
    put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    put("sys/fs/cgroup/user.slice/user-7.slice/cpu.max", "300000 100000\n");
    put("sys/fs/cgroup/user.slice/user-7.slice/job.scope/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/user.slice/other.scope/cpu.max", "100000 100000\n");
    are("3 in /sys/fs/cgroup/user.slice/user-7.slice", "a slice's quota holds in its scopes, a stranger's does not");

    begin("two-slurm", "0::/system.slice/slurmstepd.scope/job_8/step_0/user/task_3\n",
          "25 24 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("sys/fs/cgroup/system.slice/slurmstepd.scope/job_8/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/system.slice/slurmstepd.scope/job_8/step_0/user/task_3/cpu.max", "150000 100000\n");
    are("2 in /sys/fs/cgroup/system.slice/slurmstepd.scope/job_8/step_0/user/task_3, "
        "4 in /sys/fs/cgroup/system.slice/slurmstepd.scope/job_8", "a task's and its job's");
}

static void test_version_1(void)
{
    static const char own[] = "9:name=systemd:/a\n4:cpu,cpuacct:/docker/7\n3:cpuset:/b\n0::/a\n";

    begin("one-docker", own, "36 25 0:30 /docker/7 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
                             "37 25 0:31 /docker/7 /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpuset/cpu.cfs_quota_us", "5000\n");
    put("sys/fs/cgroup/cpuset/cpu.cfs_period_us", "5000\n");
    are("1 in /sys/fs/cgroup/cpu,cpuacct", "version 1, docker run --cpus: only the own group is mounted");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    are("", "-1: no quota");

    begin("one-host", own, "36 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "250000\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "50000\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/7/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/7/cpu.cfs_period_us", "100000\n");
    are("5 in /sys/fs/cgroup/cpu,cpuacct/docker", "the group above, with the host's mounts");

    begin("hybrid", own, "36 25 0:30 / /my\\040cgroups/cpu rw - cgroup none rw,cpu,cpuacct\n"
                         "41 25 0:35 / /my\\040cgroups/unified rw - cgroup2 none rw\n");
    put("my cgroups/cpu/docker/7/cpu.cfs_quota_us", "350000\n");
    put("my cgroups/cpu/docker/7/cpu.cfs_period_us", "100000\n");
    put("my cgroups/unified/a/cgroup.procs", "1\n");
    are("4 in /my cgroups/cpu/docker/7", "both versions, mounted elsewhere, with a blank in the path");
}

static void test_odd(void)
{
    begin("foreign", "0::/../../other/group\n", "25 24 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("sys/fs/cgroup/cpu.max", "600000 100000\n");
    are("6 in /sys/fs/cgroup", "a group outside of the namespace: its directory is not here");
    begin("prefix", "0::/docker/77\n", "25 24 0:22 /docker/7 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("sys/fs/cgroup/cpu.max", "600000 100000\n");
    are("6 in /sys/fs/cgroup", "/docker/77 is not below /docker/7");
    begin("backslash", "0::/\n", "25 24 0:22 / /a\\040b\\1 rw - cgroup2 cgroup2 rw\n"
                                "26 24 0:23 / /\\ rw - cgroup2 c rw\n");
    put("a b\\1/cpu.max", "600000 100000\n");
    are("6 in /a b\\1", "a backslash without three digits, at the end of a path, is itself");
    begin("garbage", "x\n\n4:cpu\n0::/a\n", "25\n25 24 0:22 / /sys/fs/cgroup rw - cgroup2\n- cgroup2 x rw\n");
    are("", "lines that are none");
    begin("nothing", NULL, NULL);
    are("", "no /proc at all");
}

static void test_asked(void)
{
    static const struct {
        const char *text;
        int threads;
    } asked[] = {{"4", 4}, {"4,2", 4}, {" 3 , 2 ,1", 3}, {"", 0}, {"  ", 0}, {"4096", 4096}, {"0", -1}, {"-2", -1},
                 {"abc", -1}, {"4x", -1}, {"4,", -1}, {",4", -1}, {"4,abc", -1}, {"4;2", -1}, {"1.5", -1},
                 {"99999999999999999999", -1}};

    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        moai_error err = {.text = ""};
        setenv("OMP_NUM_THREADS", asked[i].text, 1);
        const int n = threads_asked(&err);
        ok(n == asked[i].threads && (n >= 0 || (err.config && strstr(err.text, "OMP_NUM_THREADS is \""))),
           "OMP_NUM_THREADS=\"%s\": %d %s", asked[i].text, n, err.text);
    }
    unsetenv("OMP_NUM_THREADS");
    ok(threads_asked(NULL) == 0, "not set: nothing is asked for");
}

int main(void)
{
    test_version_2();
    test_version_1();
    test_odd();
    test_asked();
    return tap_done();
}

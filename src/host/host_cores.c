/* host_cores.c: see host_cores.h */
#include "src/host/host_cores.h"

#include "src/host/control_group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* "200000 100000", or "max 100000"; version 1 has a file for each, and -1 for no quota. */
static void add_limit(void *arg, int version, const char *dir)
{
    host_cores *h = arg;
    long long quota, period = -1;
    struct stat st;

    if (version == 2) {
        FILE *f;
        char *path = xasprintf("%s/cpu.max", dir);
        if (!(f = fopen(path, "r")) || fscanf(f, "%lld %lld", &quota, &period) != 2) period = -1;
        if (f) fclose(f);
        free(path);
    } else {
        quota = control_group_number(dir, "cpu.cfs_quota_us", "");
        period = control_group_number(dir, "cpu.cfs_period_us", "");
    }
    if (period <= 0 || quota <= 0 || h->n == CORE_LIMITS || stat(dir, &st)) return;
    h->limits[h->n] = (core_limit){st.st_ino, (int)min_i64((quota + period - 1) / period, HOST_CPUS)};
    format_elided(h->where[h->n++], sizeof h->where[0], "%s", dir);
}

void host_cores_read(host_cores *h, const char *root)
{
    h->n = 0;
    control_groups(root, "cpu", add_limit, h);
}

cpu_set_t *host_cpus(void)
{
    cpu_set_t *set = CPU_ALLOC(HOST_CPUS);
    const size_t n_bytes = CPU_ALLOC_SIZE(HOST_CPUS);

    CHECK(set, "out of host memory");
    CPU_ZERO_S(n_bytes, set);
    CHECK(sched_getaffinity(0, n_bytes, set) == 0, "sched_getaffinity: %s", strerror(errno));
    return set;
}

int threads_asked(moai_error *err)
{
    enum { MOST = 4096 };                     /* as of the key num_threads */
    const char *text = getenv("OMP_NUM_THREADS"), *at = text;
    long first = 0;

    if (!text || !text[strspn(text, " \t")]) return 0;
    for (;; at++) {
        char *end;
        const long n = strtol(at, &end, 10);
        const bool number = end > at && n >= 1 && n <= MOST;
        if (!first) first = n;
        at = end + strspn(end, " \t");
        if (!number || (*at && *at != ','))
            return error_config(err, "OMP_NUM_THREADS is \"%s\", must be a number from 1 to %d, or some like 4,2; "
                                     "--num_threads N goes before it", text, MOST);
        if (!*at) return (int)first;
    }
}

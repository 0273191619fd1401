/* many_cpus.c: a host with more CPUs than a cpu_set_t has room for: 4096.  Preloaded (LD_PRELOAD), the kernel refuses
 * smaller masks, as it does there. */
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

int sched_getaffinity(pid_t pid, size_t n_bytes, cpu_set_t *set)
{
    if (n_bytes < 4096 / 8) return errno = EINVAL, -1;
    return syscall(SYS_sched_getaffinity, pid, n_bytes, set) < 0 ? -1 : 0;
}

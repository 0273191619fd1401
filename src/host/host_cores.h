/* host_cores.h: the processor time that this process may take of its host. */
#ifndef MOAI_HOST_CORES_H
#define MOAI_HOST_CORES_H

#include "src/base/base.h"

#include <sched.h>

enum { HOST_CPUS = 1 << 16, CORE_LIMITS = 16 };       /* more than any kernel counts; groups with a quota each */

/* A control group's quota, shared by all that run in it. */
typedef struct core_limit {
    uint64_t group;                           /* tells it from the host's others */
    int cores;                                /* rounded up */
} core_limit;

typedef struct host_cores {
    int n;                                    /* own group first, then those above it */
    core_limit limits[CORE_LIMITS];
    char where[CORE_LIMITS][128];             /* their directories */
} host_cores;

/* `root` as in control_group.h. */
void host_cores_read(host_cores *, const char *root);
/* The CPUs that this process may run on: a set of HOST_CPUS, for CPU_COUNT_S and its like.  Caller frees
 * with CPU_FREE. */
cpu_set_t *host_cpus(void);
/* What OMP_NUM_THREADS asks for at the outermost level ("4,2": 4); 0: it is not set, -1: it makes no sense. */
int threads_asked(moai_error *err);

#endif

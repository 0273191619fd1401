/* host_memory.h: how much of this host's memory is free for the taking. */
#ifndef MOAI_HOST_MEMORY_H
#define MOAI_HOST_MEMORY_H

#include <stddef.h>

/* Bytes that can be taken without swapping, by the kernel's estimate and by the limits of this process's control group
 * (cgroup 2, where Slurm and containers set them). */
size_t host_memory_available(void);

#endif

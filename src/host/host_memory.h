/* host_memory.h: how much of this host's memory is free for the taking. */
#ifndef MOAI_HOST_MEMORY_H
#define MOAI_HOST_MEMORY_H

#include <stddef.h>

/* By the kernel's estimate and by the limits of this process's control group and those above it (where Slurm and
 * containers set them; cgroup 2 and 1). */
typedef struct host_memory {
    size_t available, total;                  /* bytes: that can be taken without swapping; with nobody else there */
} host_memory;

host_memory host_memory_read(const char *root);   /* "": this host's; a test's directory with proc/ and sys/ */
static inline size_t host_memory_available(void) { return host_memory_read("").available; }

#endif

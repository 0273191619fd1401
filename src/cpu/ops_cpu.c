/* ops_cpu.c: the CPU's table of operations */
#include "src/cpu/cpu.h"

const moai_ops ops_cpu = {
    .name = "cpu",
    .alloc = alloc_cpu,
    .free = free_cpu,
    .alloc_host = alloc_host_cpu,
    .free_host = free_host_cpu,
    .sync = sync_cpu,
    .phase = phase_cpu,
#define REQUIRED(op, ...) .op = op##_cpu,
#include "src/ops/ops.def"
};

/* ops_dry.c: a device that computes nothing.  The memory plan is a micro-batch run on it: every arena sees the takes
 * of the real run, so the plan cannot differ from it. */
#include "src/ops/ops.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

static void sync_dry(moai_device *d) {}
static void phase_dry(moai_device *d, const char *name, int number) {}

#define REQUIRED(op, parameters, ...) static void op##_dry parameters {}
#include "src/ops/ops.def"

const moai_ops ops_dry = {
    .name = "dry",
    .sync = sync_dry,
    .phase = phase_dry,
#define REQUIRED(op, ...) .op = op##_dry,
#include "src/ops/ops.def"
};

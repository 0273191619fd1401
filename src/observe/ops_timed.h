/* ops_timed.h: a device that forwards every op to another device and notes it on a timeline. */
#ifndef MOAI_OPS_TIMED_H
#define MOAI_OPS_TIMED_H

#include "src/observe/timeline.h"

typedef struct timed_device {
    const moai_ops *ops;                      /* who does the work */
    moai_device *dev;
    timeline *line;
} timed_device;

/* The device it is called with is a timed_device.  Has every entry. */
extern const moai_ops ops_timed;

#endif

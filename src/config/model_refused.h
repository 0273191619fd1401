/* model_refused.h: keys of other models' config.json that would change what the model computes, and that nothing here
 * implements: experts, caps, scales, biases, other attention, residual streams, ...  Each must be absent, null, or what
 * switches it off; configs/README.md lists them.  All other keys that are not read are let through. */
#ifndef MOAI_MODEL_REFUSED_H
#define MOAI_MODEL_REFUSED_H

#include "src/config/model_config.h"
#include "src/json/json_scan.h"

/* Of a config.json whose shape and positions have been read. */
int model_refused_check(const json_members *, const model_config *, moai_error *err);
/* Of its rope_scaling or rope_parameters. */
int model_refused_check_rope(const json_members *, const model_config *, moai_error *err);

#endif

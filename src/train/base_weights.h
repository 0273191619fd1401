/* base_weights.h: the weights of model_name_or_path, from which a run starts; with adapters its frozen part. */
#ifndef MOAI_BASE_WEIGHTS_H
#define MOAI_BASE_WEIGHTS_H

#include "io/checkpoint/checkpoint.h"
#include "src/model/model.h"
#include "src/train/run_config.h"

/* What every checkpoint says of the base: weights_xxh3, "" without adapters.  Adds the files that go along (carried.h)
 * on rank 0.  -1 when its tokenizer is known and not the data's.  Collective over the world, as are the others; nothing
 * is done where the run has no base. */
int base_weights_open(const run_config *, const model_config *, const comm *world, const char *tokenizer_sha256,
                      char xxh3[33], checkpoint_files *, moai_error *err);
/* This rank's blocks of what is frozen. */
int base_weights_freeze(moai_model *, const run_config *, const comm *world, moai_error *err);
/* This rank's share of what is trained and the base holds, into the masters. */
int base_weights_start(moai_model *, const run_config *, const comm *world, moai_error *err);

#endif

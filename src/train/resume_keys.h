/* resume_keys.h: which keys of a run may differ from those of the checkpoint it goes on from. */
#ifndef MOAI_RESUME_KEYS_H
#define MOAI_RESUME_KEYS_H

#include "src/train/run_config.h"

/* `saved` is what run_config_json wrote into a checkpoint after `done` steps.  Returns -1 naming the first key that
 * differs and may not, with both values; keys that resume_allow names may.  The keys of the learning rate may differ
 * where the rates of the steps done come out the same.  data and global_batch_size are the
 * caller's: what counts is what is in the shards, and what global_batch_size and the layout make. */
int resume_keys_check(const run_config *, const char *saved, int64_t done, moai_error *err);
bool resume_key_allowed(const char *resume_allow, const char *key);

#endif

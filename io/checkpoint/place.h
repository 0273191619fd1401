/* place.h: where things are written: not into a checkpoint, which its run's save_total_limit removes with all in it,
 * and where a later save may stand; not into a model that others read. */
#ifndef MOAI_PLACE_H
#define MOAI_PLACE_H

#include "src/base/base.h"

/* What a directory is. */
bool place_is_checkpoint(const char *dir);    /* a manifest of one, or a rank's state; whole or not */
bool place_is_model(const char *dir);         /* Hugging Face's: config.json and weights of any kind */

/* A wrong configuration where `path`, which messages call `key`, is a checkpoint or lies in one, there or not: also by
 * the name alone, checkpoint-STEP in a run's directory, where a save will put one. */
int place_check(const char *key, const char *path, moai_error *err);

#endif

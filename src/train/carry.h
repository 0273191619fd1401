/* carry.h: what lies beside the state of the checkpoint that a run goes on from goes into its own. */
#ifndef MOAI_CARRY_H
#define MOAI_CARRY_H

#include "src/train/resume.h"

/* Moves the files of the checkpoint to those of the run, but for names that these have.  Imported
 * weights know only their own tokens: where they come with a tokenizer.json and the shards with the tokenizer.model of
 * the list, from `model_path` (NULL: none), the two must have the same pieces, or it fails; where that cannot be told,
 * a warning.  `sha256` is that of the shards' tokenizer.  Not collective. */
int carry_files(checkpoint_files *, resume_point *from, const char *model_path, const char *sha256, moai_error *err);

#endif

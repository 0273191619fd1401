/* audit.h: looking at token shards: `path` is a shard, a manifest, or the directory of one.  One process. */
#ifndef MOAI_AUDIT_H
#define MOAI_AUDIT_H

#include "src/base/base.h"

/* Header, counts and the first n_tokens tokens with their text.  Prints to stdout; 0, or -1 with the reason. */
int shards_inspect(const char *path, int64_t n_tokens, moai_error *err);
/* Reads everything.  Prints each fault on a line "FAULT file: what", then the histogram of document lengths, a
 * decoded sample, the unknown tokens where there are any, and the verdict.  Returns the number of faults; -1 when there
 * is nothing to audit. */
int64_t shards_audit(const char *path, moai_error *err);
/* Validation loss, nats per token, of a bigram model (bigram.h) fitted to the tokens of the split `train`. */
int shards_bigram(const char *manifest_path, double *loss, int64_t *n_train, int64_t *n_validation, int64_t *n_pairs,
                  moai_error *err);

#endif

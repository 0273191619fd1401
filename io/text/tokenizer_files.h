/* tokenizer_files.h: PREFIX.model and PREFIX.vocab while a tokenizer is trained for them; see tokenizer.h.
 *
 * Both are written as NAME.tmp, flushed, loaded again and renamed.  A model that is replaced is there until the new one
 * has its name; the list of its pieces goes just before and comes just after, so that no model stands beside another's
 * list.  One that is killed in between leaves the rest to the next. */
#ifndef MOAI_TOKENIZER_FILES_H
#define MOAI_TOKENIZER_FILES_H

#include "src/base/dir_lock.h"

typedef struct tokenizer_files {
    char *model, *vocab, *old_vocab; /* PREFIX.model, PREFIX.vocab, PREFIX.vocab.old.tmp */
    job_lock *lock;                  /* PREFIX.model.lock */
} tokenizer_files;

/* Makes the directory, takes the lock, refuses what exists unless `overwrite`, and sees that there is room for
 * n_pieces: training may take hours. */
int tokenizer_files_begin(tokenizer_files *, const char *prefix, int64_t n_pieces, bool overwrite, moai_error *err);
int tokenizer_files_commit(const tokenizer_files *, const void *model, size_t model_bytes, const void *vocab,
                           size_t vocab_bytes, int64_t n_pieces, moai_error *err);
void tokenizer_files_end(tokenizer_files *); /* after success and failure */

#endif

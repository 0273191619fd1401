/* encode_output.h: a data set's directory while encode is at work in it.
 *
 * New shards, tokenizer and manifest are written to OUTPUT/.parts and renamed into OUTPUT when all are whole, under
 * names that nothing there has; manifest.json comes last: until then a reader sees the old set, from then on the new.
 * Then what the old manifest alone names is removed, unless a job still reads that set (manifest_read): it goes on to
 * its end, and the next encode removes what it had.
 *
 * The old manifest is kept as OUTPUT/.replaced-GENERATION.json until its set is removed, and OUTPUT/.parts/names lists
 * the new names: by these the next encode tidies up behind one that was killed.  Nothing that no manifest there has
 * named is ever removed. */
#ifndef MOAI_ENCODE_OUTPUT_H
#define MOAI_ENCODE_OUTPUT_H

#include "io/data/shard.h"
#include "src/base/dir_lock.h"

typedef struct encode_output {
    char *dir, *parts;  /* OUTPUT, OUTPUT/.parts */
    int64_t generation; /* of the new names */
    job_lock *lock;
    manifest old;        /* the set to be replaced; no splits: there is none that can be read */
    bool is_old, is_new; /* there is a set to be replaced; the new one is in place */
    bool is_unsure;      /* in place, but not flushed: nothing is removed */
} encode_output;

/* For the rank that keeps the directory, in this order; a failure leaves the old set as it was.
 *
 * Makes the directory, takes its lock, tidies up behind a killed encode, sees that nothing is in the way (a manifest
 * is, unless `overwrite`) and makes an empty .parts. */
int encode_output_begin(encode_output *, const char *dir, bool overwrite, moai_error *err);
/* Puts the shards of m, whole in .parts, and the tokenizer of m->info.tokenizer_sha256 in place, with what lies beside
 * it where it is a tokenizer.json.  Sets m->tokenizer. */
int encode_output_commit(encode_output *, manifest *m, const char *tokenizer, bool is_json, moai_error *err);
/* After success and failure: removes .parts and what the manifest does not name, and ends the lock. */
void encode_output_end(encode_output *);

/* On every rank.  DIR/SPLIT-NUMBER.h5, from the second generation on DIR/SPLIT-NUMBER.GENERATION.h5; caller frees. */
char *encode_shard_path(const char *dir, const char *split, int64_t number, int64_t generation);
/* Where the file that will be `path` lies until then; caller frees. */
char *encode_unfinished_path(const char *parts, const char *path);

#endif

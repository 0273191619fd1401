/* encode.h: text files to token shards, over the threads of all ranks.
 *
 * An input that is no regular file (a pipe, "-") is copied to OUTPUT/.parts/input-N by rank 0 first, as it comes, so
 * that every rank can open it, and again.  All inputs are judged (text_judge) before any is encoded, and what is copied
 * before it is copied.
 *
 * The shards depend on the inputs, their order and the options alone, not on the number of threads or ranks:
 *   1. Each file's text is cut in blocks of a size that the inputs decide; a block owns the documents that start in
 *      it (text.h).  Rank (file + block) % world encodes it, its threads taking blocks as they come, into the rank's
 *      file OUTPUT/.parts/rank-N.
 *   2. The ranks add up how many documents and tokens each block has.  That numbers the documents in input order; a
 *      document's split is a stateless hash of its number, and its place is the count of its split's tokens before
 *      it.
 *   3. A document that begins at token p of its split belongs to shard p / shard_tokens.  Shards are dealt out to the
 *      ranks, each written from whatever parts hold its documents.  A shard thus exceeds shard_tokens by less than
 *      one document, and a document longer than shard_tokens leaves a gap in the numbers.
 * The parts need as much room as the shards, in a directory that all ranks see.  manifest.json comes last; until then
 * a set that is replaced is there whole: encode_output.h. */
#ifndef MOAI_ENCODE_H
#define MOAI_ENCODE_H

#include "io/text/text.h"
#include "parallel/comm/comm.h"
#include "src/corpus/encode_chat.h"

typedef struct encode_options {
    const char *const *inputs;
    int n_inputs;
    const char *tokenizer, *output;           /* tokenizer.model; directory */
    text_format format;
    int64_t shard_tokens;
    double validation_fraction; /* each document by a hash of its number; or, when validation_documents > 0, */
    int64_t validation_documents;             /* exactly so many, the first of a permutation of all numbers */
    uint64_t seed;
    int n_threads;                            /* of this rank */
    bool overwrite, progress;
    const chat_making *chat;                  /* documents are the examples in lines of JSON; NULL: they are texts */
} encode_options;

/* Collective over the host comm; every rank returns the same.  An input that cannot be read, is not UTF-8 or not
 * JSON, or a full disk stops all ranks within a block's time, and the directory holds what it held.  Inputs and
 * tokenizer are looked at before anything is touched; a second job in the directory is refused at once. */
int encode_run(const encode_options *, const comm *world, moai_error *err);

#endif

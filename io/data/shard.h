/* shard.h: pre-tokenized text in HDF5.
 *
 * A shard is one HDF5 file:
 *   /tokens      uint16 when vocab_size <= 65536, else uint32; 1-D, chunked, Fletcher32; documents one after another,
 *                each ending with eos
 *   /documents   uint64 (n_documents + 1) offsets into /tokens
 *   attributes   format "moai-tokens", version 1, vocab_size, eos, pad, tokenizer_sha256
 * One whose documents are examples to tune on (`moai_tokenize chat`) is marked: of version 2, documents may end with
 * any token, and
 *   /trained     uint8, chunked and summed as /tokens: 1 where the loss counts that the token is predicted, else 0
 *   /counted     uint64 (n_documents): how many of a document's tokens count; its first does not, nothing predicts it
 * A manifest (JSON) names the shards of each split, their token and document counts, bytes and XXH3-128 of the file:
 *   {"format": "moai-manifest", "version": 1, "vocab_size": .., "eos": .., "pad": .., "tokenizer": "tokenizer.model",
 *    "tokenizer_sha256": "..", "splits": {"train": [{"file": "train-00000.h5", "tokens": .., "documents": ..,
 *    "bytes": .., "xxh3": ".."}], "validation": [..]},  version 2 and "counted": .. where the shards are marked
 *   "xxh3": ".."}          the last line: the hash of all bytes before it
 * File names are plain ones, of files in the manifest's directory; others are refused.
 *
 * All that moai_tokenize writes is under checksums, HDF5's own structure too, so damage is found.  A file that was made
 * to deceive, checksums and all, and damage to one that another program wrote in HDF5's oldest form, which has none,
 * meet the decoders of HDF5: no more is safe there than the library is. */
#ifndef MOAI_SHARD_H
#define MOAI_SHARD_H

#include "src/base/base.h"

typedef struct shard_info {
    int64_t vocab_size, eos, pad;
    char tokenizer_sha256[65];
    bool is_marked;
} shard_info;

/* Writing.  The file appears under its name only when closed well: written beside as NAME.tmp, flushed, fsynced,
 * renamed. */
typedef struct shard_writer shard_writer;
shard_writer *shard_create(const char *path, const shard_info *, moai_error *err);           /* NULL on failure */
/* One document, eos included.  `trained` (n): the flags of one that is marked, else NULL. */
int shard_append(shard_writer *, const int32_t *ids, const uint8_t *trained, int64_t n, moai_error *err);
int64_t shard_n_tokens(const shard_writer *);
int64_t shard_n_counted(const shard_writer *);/* of a marked one, the sum of /counted */
int shard_close(shard_writer *, moai_error *err);                                            /* frees in either case */
void shard_discard(shard_writer *);

/* Reading: any range of tokens.  Not thread-safe by itself (serial HDF5): callers hold one reader per thread and the
 * library's global lock, which these functions take. */
typedef struct shard shard;
shard *shard_open(const char *path, moai_error *err); /* checks format, version, sizes */
const shard_info *shard_get_info(const shard *);
int64_t shard_tokens(const shard *);
int64_t shard_documents(const shard *);
int shard_read(shard *, int64_t begin, int64_t n, int32_t *dst, moai_error *err);
int shard_read_documents(shard *, int64_t begin, int64_t n, uint64_t *offsets, moai_error *err);
/* Of a marked one: flags of tokens, counts of documents. */
int shard_read_trained(shard *, int64_t begin, int64_t n, uint8_t *trained, moai_error *err);
int shard_read_counted(shard *, int64_t begin, int64_t n, uint64_t *counts, moai_error *err);
/* Asleep a shard has no file open and remembers what it knows; nobody reads it until it wakes.  It does not wake when
 * the name is another file's by now, or the file has been written to: SHARD_REPLACED, and only shard_free may
 * follow. */
enum { SHARD_REPLACED = 1 };
void shard_sleep(shard *);
int shard_wake(shard *, moai_error *err);
void shard_forget_cached(const shard *);      /* what is read next comes from the disk, if the system can */
void shard_free(shard *);

typedef struct manifest_shard {
    char *path;                               /* in the manifest's directory */
    int64_t tokens, documents, bytes;
    int64_t counted;                          /* of marked shards */
    char xxh3[33];
} manifest_shard;

typedef struct manifest {
    shard_info info;
    char *dir, *tokenizer;                    /* tokenizer: its path there; NULL when none is named */
    struct manifest_split {
        char *name;
        manifest_shard *list;
        int n;
        int64_t tokens;
    } *splits;
    int n_splits;
    void *held;                               /* the file, open: by it encode_output.h knows that the set is in use */
} manifest;

/* `path` is the file, or the directory that holds manifest.json.  The set is in use until manifest_free or
 * manifest_let_go: the files of one that is replaced meanwhile stay. */
int manifest_read(manifest *, const char *path, moai_error *err);
void manifest_let_go(manifest *);
/* Is it as it was written?  -1: not, by its last line.  Older ones lack that line: then unknown keys fail. */
int manifest_check(const char *path, moai_error *err);
int manifest_write(const manifest *, const char *path, moai_error *err);/* temporary, fsync, rename */
const struct manifest_split *manifest_split(const manifest *, const char *name);             /* NULL: no such split */
void manifest_free(manifest *);

#endif

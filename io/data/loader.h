/* loader.h: samples for training.  Sample i of a split is the T+1 consecutive tokens [i*T, i*T + T] of its concatenated
 * shards; or, where it is packed, up to T+1 tokens of whole documents.  The shuffle is stateless, so there is no index
 * to build, and a position is one number: the count of data_order.h.
 *
 * A step takes the next accumulation * dp * batch samples of the order, of which micro-batch m of data-parallel rank d
 * has those at (m * dp + d) * batch + [0, batch): the set of samples of a step is the same on every layout. */
#ifndef MOAI_LOADER_H
#define MOAI_LOADER_H

#include "io/data/data_order.h"
#include "io/data/shard.h"
#include "parallel/comm/comm.h"

/* What rank 0 has read, on every rank; collective over a host comm. */
void manifest_share(manifest *, const comm *world);

typedef struct dataset dataset;

/* Is the data set at `path` for this model and tokenizer?  `vocab_size`, the model's, may not be below the shards' (it
 * may be padded); `tokenizer_sha256` may be NULL.  -1: not, with both values; also when the tokenizer beside the shards
 * is not theirs.  Not collective. */
int dataset_check(const manifest *, const char *path, int64_t vocab_size, const char *tokenizer_sha256,
                  moai_error *err);
typedef struct dataset_readers {
    const comm *world;                        /* a host comm; &comm_alone: this process reads alone */
    int part, parts;                          /* this rank among those that will read samples; part -1: it will not */
} dataset_readers;
/* One split; the manifest is the caller's and outlives it.  The readers divide the shards among themselves and see that
 * each is there, of its size, and has the header that the manifest tells of; where one is wrong, NULL on every rank,
 * with file and value.  Otherwise a shard is opened when it is read, and not many are open (shard_pool.h).  Collective
 * over the world. */
dataset *dataset_open(const manifest *, const char *split, const dataset_readers *, moai_error *err);
/* From now on a sample is whole documents (packing.h), of which those with more than seq_len + 1 tokens, or none that
 * counts, are left out.  In shards that are not marked all tokens count but each document's first.  Collective over
 * the world; -1 on every rank. */
typedef struct pack_said {
    int64_t n_examples, n_long, n_untrained;  /* documents; of them left out */
    int64_t n_tokens, n_counted;              /* of what is left, in an epoch */
} pack_said;
typedef struct pack_plan {
    int64_t seq_len;
    bool together;                            /* several in a sample; else each in one of its own */
    pack_said *said;                          /* filled */
} pack_plan;
int dataset_pack(dataset *, const pack_plan *, const comm *world, moai_error *err);
bool dataset_is_packed(const dataset *);
int64_t dataset_tokens(const dataset *);
int64_t dataset_samples(const dataset *, int64_t seq_len);              /* (tokens - 1) / seq_len, or as packed */
typedef struct sample_size {
    int64_t tokens, counted;                  /* that the model reads; that it is to predict */
    double pairs;                             /* sum of the squared lengths of what attends to itself */
} sample_size;
sample_size dataset_sample_size(const dataset *, int64_t sample, int64_t seq_len);
const manifest *dataset_manifest(const dataset *);
void dataset_xxh3(const dataset *, char hex[33]);   /* of the hashes of the split's shards, in order */
/* ids (seq_len + 1); an id >= vocab_size fails with the shard, position and id.  Where it is packed also marks
 * (seq_len + 1), of each token 1: counts, 0: does not, 2: is the first of a document; and behind the last document ids
 * of -1.  Thread-safe. */
int dataset_sample(dataset *, int64_t sample, int64_t seq_len, int32_t *ids, uint8_t *marks, moai_error *err);
void dataset_free(dataset *);

typedef struct loader_plan {
    int64_t seq_len, batch, accumulation;
    int64_t dp_size, dp_rank;
    uint64_t seed;
    bool shuffle;                             /* false: sample = count (evaluation) */
    int64_t first;                            /* the count at which the first step begins */
    const left_out *left_out;                 /* as in data_order.h, n_left_out of them; copied */
    int64_t n_left_out;
    int n_workers;                            /* 0: read in the caller's thread */
    int prefetch;                             /* micro-batches ready ahead, per worker */
} loader_plan;

typedef struct loader loader;
/* Fails when the split has fewer tokens than one sample.  The dataset outlives the loader.  Not collective. */
loader *loader_start(dataset *, const loader_plan *, moai_error *err);
/* The next micro-batch in step order: ids (batch, seq_len + 1), marks the same where the dataset is packed (else it may
 * be NULL), samples (batch) the sample numbers.  Waits when none
 * is ready and adds the wait to *waited (seconds).  A worker's failure is returned by the call whose micro-batch it
 * hit. */
int loader_next(loader *, int32_t *ids, uint8_t *marks, int64_t *samples, double *waited, moai_error *err);
void loader_stop(loader *);

#endif

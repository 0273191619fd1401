/* batch.h: what a micro-batch means: the token that each row holds, the one that it is to predict, its position, and
 * which rows see each other.  Decided once, where the samples come from; the model looks it up. */
#ifndef MOAI_BATCH_H
#define MOAI_BATCH_H

#include "src/ops/ops.h"

/* Host memory.  Ids, targets and weights are for the stages with the embedding and the head, positions and segments for
 * all. */
typedef struct token_batch {
    int64_t n_rows;                           /* N: the samples' tokens, and padding up to a multiple of tp */
    int32_t *ids, *targets;                   /* (N) -1: padding, and a target that is not counted */
    float *weights;                           /* (N) of the targets' losses, where is_weighted; else all are 1 */
    bool is_weighted;
    int64_t n_counted;                        /* targets that are */
    int32_t *positions;                       /* (N) rows of the rope table */
    attend_segment *segments;                 /* room for N */
    int n_segments;
    int32_t *picked, *places;                 /* (N) of batch_pick: rows, and where each row is among them; -1: none */
    int64_t n_picked;                         /* 0: the head takes the rows as they are */
} token_batch;

void batch_init(token_batch *, int64_t n_rows);
void batch_free(token_batch *);
/* Positions and segments of whole samples of seq_len rows, one behind another. */
void batch_whole_samples(token_batch *, int64_t n_samples, int64_t seq_len);
/* These, and samples (n_samples, seq_len + 1): each of a sample's first seq_len tokens predicts the next one.  Samples
 * from n_counted on, and the rows that are left, are padding. */
void batch_samples(token_batch *, const int32_t *samples, int64_t n_samples, int64_t n_counted, int64_t seq_len);

/* Then: each document, which ends with `eos`, by itself, and with positions from 0 on if they restart.  The end of one
 * still predicts the first token of the next: what counts stays what it was. */
void batch_documents(token_batch *, int64_t n_samples, int64_t seq_len, int64_t eos, bool restart);
/* Or: examples one behind another in each sample, by their tokens' marks (n_samples, seq_len + 1): 1 counts as a
 * target, 0 does not, 2 begins an example.  Each sees itself alone, and no end predicts what follows; behind the last
 * one of a sample, where its ids are -1, is padding that nothing sees. */
void batch_examples(token_batch *, const uint8_t *marks, int64_t n_samples, int64_t seq_len, bool restart);
/* Then, where the context axis has `cp` ranks: the rows of rank `rank` of it.  Each sample is 2 cp equal chunks, of
 * which it holds chunks rank and 2 cp - 1 - rank, in this order, sample after sample (context_parallel.h); what is left
 * of its rows is padding.  What a row predicts, its position and whom it sees are those of the whole samples, `whole`,
 * and its segments' keys are rows of these. */
void batch_cut(token_batch *, const token_batch *whole, int64_t n_samples, int64_t seq_len, int cp, int rank);
/* Last: where an eighth of the targets or more do not count, the head is given the rows of the others alone, and as
 * many of padding as make a multiple of BATCH_PICK; targets and weights are then theirs. */
enum { BATCH_PICK = 64 };
void batch_pick(token_batch *);
int64_t batch_most_picked(int64_t n_rows);

#endif

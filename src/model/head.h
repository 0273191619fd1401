/* head.h: the last block of the model: final norm, logits and the loss.
 *
 * Rows are taken in chunks, so that the full logits never exist; a chunk's gradient follows its loss at once, and so
 * the head's backward is part of its forward. */
#ifndef MOAI_HEAD_H
#define MOAI_HEAD_H

#include "src/model/block.h"

typedef struct head_weights {
    stream_head streams;                      /* what is read of several                        */
    norm_weight norm;                         /* (1, H)                                         */
    linear map;                               /* (V/tp, H)   the embedding's table when tied    */
    int64_t vocab_begin;                      /* of this rank's columns of the logits           */
} head_weights;

typedef struct head_acts {
    tensor x;                                 /* (N/tp, nH)  input, n streams */
    float *nll;                               /* (N)         losses                             */
} head_acts;

head_weights head_view(const flat_params *);
int64_t head_rows(const moai_ctx *, const head_weights *);     /* the tokens of a chunk */

extern size_t head_logits_bytes;              /* that exist at once: 1 GiB; the tests' own is less */
extern const block_kind head_block;           /* of the two structs */

#endif

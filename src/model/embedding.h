/* embedding.h: x = table[ids], the first block of the model. */
#ifndef MOAI_EMBEDDING_H
#define MOAI_EMBEDDING_H

#include "src/model/block.h"

typedef struct embedding_weights {
    tensor table, dtable;                     /* (V/tp, H); the gradient fp32 */
    bool is_trained;
    int64_t vocab_begin;                      /* of this rank's rows */
    bool begins_with_head;                    /* tied, with the head on this rank: its product comes first in a step */
} embedding_weights;

embedding_weights embedding_view(const flat_params *);

extern const block_kind embedding_block;      /* of embedding_weights; it keeps nothing */

#endif

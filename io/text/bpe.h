/* bpe.h: byte-pair encoding of one word (arXiv 1508.07909): of all neighbours whose union is a token the pair that was
 * learned first is joined, the leftmost of equals, until none is left. */
#ifndef MOAI_BPE_H
#define MOAI_BPE_H

#include "src/base/base.h"

typedef struct bpe bpe;

typedef struct bpe_token {
    const char *bytes;                        /* what it stands for; borrowed from the model */
    uint32_t n_bytes;
    bool is_there, is_special, is_added;      /* added: found in a text as it is, before it is cut into words */
} bpe_token;

bpe *bpe_new(void);
void bpe_free(bpe *);
/* Token `id` (>= 0) stands for these bytes, which are copied; false: it is another's already, or bytes are. */
bool bpe_add(bpe *, int32_t id, const char *bytes, size_t n_bytes);
/* The pair (left, right) is joined to `whole`; pairs come in the order in which they were learned. */
void bpe_add_pair(bpe *, int32_t left, int32_t right, int32_t whole);
/* After the last of both: the least byte that no token stands for, or -1. */
int bpe_seal(bpe *);
int32_t bpe_n_tokens(const bpe *);            /* the greatest id + 1 */
bpe_token *bpe_token_of(const bpe *, int32_t id);
int32_t bpe_find(const bpe *, const char *bytes, size_t n_bytes);           /* -1: no token */
/* Tokens of a word of n_bytes >= 1 into ids (n_bytes); returns how many.  O(n log n).  Thread-safe. */
size_t bpe_encode(const bpe *, const char *word, size_t n_bytes, int32_t *ids);

#endif

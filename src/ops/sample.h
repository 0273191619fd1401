/* sample.h: the next token from its logits: temperature, then top-k, then top-p, in Transformers' order and sense.
 *
 *     temperature   logits / temperature; 0 means greedy: the largest logit, the lowest id among equals
 *     top-k         keeps the logits that are at least the k-th largest (all that tie with it); 0 keeps all
 *     top-p         of what is left, the smallest set of the most probable tokens whose probabilities sum to at
 *                   least top_p (arXiv 1904.09751); lower ids first among equals; 1 keeps all */
#ifndef MOAI_SAMPLE_H
#define MOAI_SAMPLE_H

#include "src/base/base.h"

typedef struct sample_options {
    double temperature; /* >= 0 */
    int64_t top_k;      /* >= 0 */
    double top_p;       /* (0, 1] */
} sample_options;

typedef struct candidate {
    double p; /* probability; those of a list sum to 1 */
    int32_t id;
} candidate;

typedef struct sampler {
    sample_options opt;
    int64_t n_vocab;
    candidate *list; /* (n_vocab) room for the kept */
    float *spare;    /* (n_vocab) */
} sampler;

void sampler_init(sampler *, sample_options, int64_t n_vocab);
void sampler_free(sampler *);

/* The distribution that is drawn from, in s->list; returns how many tokens it holds.  In the order of ids, or, with
 * top_p < 1, of falling probabilities.  A NaN among the logits, or a largest that is not finite, comes from a broken
 * model: 0 tokens. */
int64_t sampler_candidates(sampler *, const float *logits);
/* A token of that distribution; u in [0, 1) decides which: the first where the sum of probabilities exceeds u.  -1 from
 * an empty one. */
int32_t sampler_draw(sampler *, const float *logits, double u);

#endif

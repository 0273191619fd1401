/* bigram.h: a bigram model of tokens, the baseline that a language model must beat.  Interpolated modified Kneser-Ney
 * (Chen & Goodman 1999, section 3.3), c counts pairs, N counts kinds:
 *
 *     p(b|a) = (c(ab) - D(c(ab))) / c(a.)  +  (D1 N1(a.) + D2 N2(a.) + D3 N3+(a.)) / c(a.) * p(b)
 *     p(b)   = (max(k(b) - d, 0) + d |{b: k(b) > 0}| / V) / K
 *
 * where k(b) = N1+(.b), kinds of tokens seen before b, and K is their sum.  The discounts come from the counts of
 * counts n1..n4:  Y = n1 / (n1 + 2 n2), D1 = 1 - 2 Y n2/n1, D2 = 2 - 3 Y n3/n2, D3 = 3 - 4 Y n4/n3 (3/4 where one of
 * them is 0);  d likewise is the Y of k.  After a token never seen, p(b|a) = p(b). */
#ifndef MOAI_BIGRAM_H
#define MOAI_BIGRAM_H

#include "src/base/base.h"

typedef struct bigram bigram;
bigram *bigram_new(int64_t vocab_size);
void bigram_add(bigram *, int32_t a, int32_t b);              /* before bigram_fit */
void bigram_fit(bigram *);
double bigram_probability(const bigram *, int32_t a, int32_t b);
int64_t bigram_kinds(const bigram *);                         /* different pairs seen */
void bigram_free(bigram *);

#endif

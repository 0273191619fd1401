/* packing.h: examples of many lengths put into samples of one, best-fit decreasing: the longest first, each into the
 * sample with the least room that takes it (Johnson et al. 1974).  A pure function of the lengths. */
#ifndef MOAI_PACKING_H
#define MOAI_PACKING_H

#include "src/base/base.h"

typedef struct packing {
    int64_t n_samples;
    int64_t *begin;                           /* (n_samples + 1) where each sample begins in the list */
    int64_t *list;                            /* the examples, sample by sample, as they were put in */
} packing;

/* Lengths (n), none above the capacity; those of 0 are left out.  Without `together` each example is a sample, in their
 * order. */
packing packing_make(const int32_t *lengths, int64_t n, int64_t capacity, bool together);
void packing_free(packing *);

#endif

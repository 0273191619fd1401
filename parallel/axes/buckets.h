/* buckets.h: the life of a step's gradients, and of the weights that come of them, bucket by bucket.
 *
 *     gradient   FILLING   micro-batches add to it                     buckets_begin
 *                SUMMING   its sum over the ranks is under way         bucket_filled in the last one, or buckets_end
 *                SUMMED    this rank's share holds the sum             bucket_summed
 *     weights    held by n readers                                     bucket_acquire, bucket_release
 *                their update is under way, nobody reads               bucket_updating
 *                the others' shares are gathered                       bucket_updated, until bucket_acquire
 *
 * A call out of this order is a fault of the program (die).  The sums run beside the last backward and the gathers
 * beside the next forward, so both are under way at once for different buckets.  All ranks of a stage make the calls
 * in the same order: bucket_filled, buckets_end and bucket_updated begin collectives (zero.h). */
#ifndef MOAI_BUCKETS_H
#define MOAI_BUCKETS_H

#include "parallel/axes/zero.h"

typedef enum { GRADIENT_FILLING, GRADIENT_SUMMING, GRADIENT_SUMMED } gradient_state;

typedef struct bucket_life {
    gradient_state state;
    bool is_updating;
    int n_readers;
    comm_request sum, gather;
} bucket_life;

/* Borrows all but `of`.  The flat buffers may come later than buckets_init, before the first call. */
typedef struct buckets {
    const param_table *params;
    const moai_grid *grid;
    float *grads;                             /* (n_elem) */
    void *weights;                            /* (n_elem) of dt */
    dtype dt;
    bool is_last;                             /* the micro-batch under way is the step's last */
    bucket_life *of;                          /* (n_buckets) */
} buckets;

void buckets_init(buckets *, const param_table *, const moai_grid *, dtype);
void buckets_free(buckets *);                 /* waits for what is under way */

void buckets_begin(buckets *);
/* After the bucket's last product of a micro-batch; in the step's last its sum begins, but for a tied embedding's,
 * which joins two stages, one of which is at work for the other: it waits for buckets_end.  Buckets fill from the last
 * to the first, and on the host two are summed at a time: each sum under way takes a buffer of its bucket's size there.
 * Collective over tp, kv, embed, data, as is buckets_end. */
void bucket_filled(buckets *, int b);
void buckets_end(buckets *);                  /* begins what has not begun */
void bucket_summed(buckets *, int b);         /* waits */

void bucket_acquire(buckets *, int b);        /* waits for what other ranks own of the weights; they stay as they are */
void bucket_release(buckets *, int b);
void bucket_updating(buckets *, int b);       /* this rank is about to write its share */
void bucket_updated(buckets *, int b);        /* it has; collective over data */

#endif

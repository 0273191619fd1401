/* resume.h: where a run begins: the checkpoint that it goes on from, loaded and checked. */
#ifndef MOAI_RESUME_H
#define MOAI_RESUME_H

#include "io/checkpoint/checkpoint.h"
#include "src/train/run_config.h"

typedef struct resume_point {
    checkpoint_meta meta;                     /* of the checkpoint; checkpoint_meta_free */
    checkpoint_files files;                   /* rank 0: what lies beside its state */
    char *dir;                                /* NULL: the run starts anew */
    bool disagrees;                           /* it failed since the run's keys or data do not fit the checkpoint */
} resume_point;

/* Finds and loads the checkpoint that resume_from_checkpoint means.  `now` is what this run would save: it must agree
 * with what was saved (resume_keys.h), or the run stops.  With auto and latest a damaged checkpoint (its bytes are not
 * those that were written) is reported, each with the piece's name, and the next older one is taken; the damaged are
 * then called checkpoint-STEP.damaged.  When all are damaged, or one cannot be read, the run stops.  All ranks together
 * read every byte of the checkpoint and check every hash.  Returns -1 with the reason on every rank.  Collective over
 * the world. */
int resume_load(resume_point *, const run_config *, const checkpoint_meta *now, const checkpoint_state *,
                moai_error *err);
void resume_free(resume_point *);

#endif

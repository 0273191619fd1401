/* trainer.h: a training run from inside: what the files train.c, trainer.c and those they call share. */
#ifndef MOAI_TRAINER_H
#define MOAI_TRAINER_H

#include "io/data/loader.h"
#include "io/metrics/metrics.h"
#include "parallel/pipeline/pipeline.h"
#include "src/base/dir_lock.h"
#include "src/device/device.h"
#include "src/model/model.h"
#include "src/train/feed.h"
#include "src/train/plan.h"
#include "src/train/profile.h"
#include "src/train/resume.h"
#include "src/train/run_state.h"
#include "src/train/saver.h"
#include "src/train/straggler.h"

typedef struct trainer {
    run_config settled;                       /* with the steps that the data make of epochs; strings are borrowed */
    const run_config *run;                    /* that */
    const model_config *cfg;
    batch_plan batch;
    moai_grid grid;
    device device;
    moai_model model;
    pipe_schedule schedule;
    profile *profile;                         /* NULL until the step before the observed one */

    manifest data;                            /* read by rank 0 for all */
    dataset *train_set, *eval_set;            /* eval_set NULL: no evaluation */
    feed feed;                                /* waited: in this step */
    int64_t *samples_read;                    /* (accumulation, micro_batch): this rank's sample numbers of the step */
    sample_size size;                         /* of the step: its loss is the mean of what counts */
    double busy;                              /* in this step: seconds that this rank did not wait for others */
    stragglers stragglers;
    bool evaluation_failed;                   /* the last one's loss was not finite */
    bool save_due;

    int64_t step, samples, updates, skipped;  /* as in checkpoint_meta */
    int64_t step_began_at;                    /* the place in the data order where the last step began */
    run_state state;
    spike spike;                              /* that the last step was; measure NULL: none */
    int64_t first_step;                       /* where this start began, and when */
    double began;
    int64_t evaluated_step, checked_step;     /* the last ones, of validation loss and replicas; -1: none */
    resume_point from;                        /* dir NULL: a new start */
    saver *saver;
    char base_xxh3[33];                       /* of the frozen weights; "" without adapters */
    checkpoint_files files;                   /* rank 0 only: what lies beside the state in each checkpoint */
    metrics *metrics;                         /* rank 0 only */
    job_lock *lock;                           /* of output_dir, rank 0 only */
} trainer;

/* Device, data, weights, loader, metrics and saver.  What can be known to be wrong before the
 * first step is found here.  Collective over all ranks; on failure -1 on every rank with the same text. */
int trainer_open(trainer *, moai_error *err);
void trainer_close(trainer *);                /* after a failed trainer_open too */
checkpoint_state trainer_state(trainer *);    /* the device memory that a checkpoint holds */
data_order trainer_order(const trainer *);    /* of the training samples; valid until something is left out */
left_out_data trainer_left_out_data(const trainer *);
char *trainer_left_out_path(const trainer *); /* caller frees */
/* Everything that a checkpoint holds as it is in `dir`; NULL: as at a new start.  Collective over all ranks. */
int trainer_load(trainer *, const char *dir, moai_error *err);
/* The next step reads what comes at t->samples.  Collective over all ranks. */
int trainer_read_data(trainer *, moai_error *err);
/* The run as a checkpoint describes it; checkpoint_meta_free frees. */
checkpoint_meta trainer_meta(const trainer *);

#endif

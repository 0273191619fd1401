/* run_config.h: the run file, JSON keys that are also flags: what each module asks for (its options struct and its
 * table, in its own header), and what the run as a whole does. */
#ifndef MOAI_RUN_CONFIG_H
#define MOAI_RUN_CONFIG_H

#include "src/params/ctx.h"
#include "src/train/batch_plan.h"
#include "src/train/finetune.h"
#include "src/train/loss_scale.h"
#include "src/train/optimizer.h"
#include "src/train/schedule.h"
#include "src/train/spike.h"

/* One field per key of the run file, here or in a module's options; the tables hold each key's name, aliases, default,
 * range and help. */
typedef struct run_config {
    /* files */
    char *model, *data, *tokenizer, *output_dir;
    char *resume_from_checkpoint;                       /* a directory, "auto", "latest", "" */
    char *resume_allow;                                 /* names of keys, separated by commas */
    finetune_options finetune;
    /* layout */
    int64_t tensor_parallel, context_parallel, pipeline_parallel, data_parallel;  /* data_parallel 0: what is left */
    char *device;                                       /* cpu | cuda | auto */
    bool deterministic;                                 /* GPU: same bits in every run */
    int64_t num_threads;                                /* 0: cores of this rank */
    /* optimization */
    int64_t seq_length;
    batch_options batch;
    schedule_options schedule;
    adamw_options adamw;
    int64_t stop_at_step;                               /* 0: none */
    int64_t seed;
    /* numbers and memory */
    bool bf16, fp16;                                    /* neither: fp32 */
    loss_scale_options loss_scale;                      /* fp16 */
    recompute_mode gradient_checkpointing;              /* true: full; auto: see fit.h */
    double device_memory;                               /* GiB that a rank may take; 0: what is free */
    /* data */
    int64_t dataloader_num_workers, dataloader_prefetch_factor;
    /* output */
    int64_t logging_steps, eval_steps, eval_batches, save_steps, save_total_limit;
    bool async_save, save_on_exit, tensorboard, progress, log_samples;
    spike_options spike;
    int64_t replica_check_steps;                        /* 0: none */
    double hang_timeout;                                /* seconds; 0: nobody watches */
    int64_t profile_step;                               /* the step whose timeline is written; 0: none */
    /* questions only */
    bool plan;                                          /* print the plan and leave */
    int64_t plan_ranks;                                 /* of a run on so many; 0: TP x CP x PP x DP */
} run_config;

/* Strings are never NULL ("" when not given) and belong to the struct: run_config_free frees them.
 * Defaults, then the run file named by --config, then the other flags (--key value, --key=value, --no_key for bools).
 * Unknown keys name the nearest known key; values out of range name key, value and range.  --help prints the table
 * and leaves with 0.  Rank 0 reads the file for all.  Collective, but in a process without MPI: every rank is given the
 * same words and comes to the same end. */
int run_config_read(run_config *, int argc, char **argv, moai_error *err);
void run_config_help(void);
/* -1: what it asks for no GPU does.  Of `device` cuda run_config_read has asked. */
int run_config_refuse_gpu(const run_config *, moai_error *err);
key_table run_config_keys(void);
char *run_config_json(const run_config *);              /* every key, for the checkpoint and metrics; caller frees */
void run_config_free(run_config *);

#endif

/* resume.c: see resume.h */
#include "src/train/resume.h"

#include "io/checkpoint/place.h"
#include "src/base/files.h"
#include "src/train/resume_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a rank thinks of a checkpoint, and, by their maximum, all.  Only the damaged are passed over. */
typedef enum { GOOD, DAMAGED, UNREADABLE, DISAGREES } verdict;

static verdict verdict_of(int rc) { return rc == 0 ? GOOD : rc == CHECKPOINT_DAMAGED ? DAMAGED : UNREADABLE; }

/* What must not change between a checkpoint and the run that goes on from it. */
static verdict check_meta(const run_config *run, const checkpoint_meta *now, const checkpoint_meta *saved,
                          const char *dir, moai_error *err)
{
    moai_error why;

    if (model_config_same(&saved->model, &now->model, &why)) {
        error_set(err, "%s is of another model: %s", dir, why.text);
        return DISAGREES;
    }
    if (strcmp(saved->base_xxh3, now->base_xxh3) != 0 && !resume_key_allowed(run->resume_allow, "model_name_or_path")) {
        error_set(err, "%s: its adapters were trained on another base than %s: XXH3 %s then, %s now (--resume_allow "
                  "model_name_or_path goes on all the same)", dir, run->finetune.model_name_or_path, saved->base_xxh3,
                  now->base_xxh3);
        return DISAGREES;
    }
    const bool other_tokens = strcmp(saved->tokenizer_sha256, now->tokenizer_sha256) != 0;
    /* nothing consumed yet: any data and any keys will do, but imported weights know only their tokenizer's tokens */
    if (saved->samples == 0 && (!other_tokens || !saved->tokenizer_sha256[0])) return GOOD;
    if (other_tokens)
        error_set(&why, "was trained with tokenizer %s, the data has %s", saved->tokenizer_sha256,
                  now->tokenizer_sha256);
    else if (saved->seed != now->seed)
        error_set(&why, "seed %llu, this run has %llu: samples would repeat",
                  (unsigned long long)saved->seed, (unsigned long long)now->seed);
    else if (saved->seq_length != now->seq_length && !resume_key_allowed(run->resume_allow, "seq_length"))
        error_set(&why, "was trained with seq_length %lld, this run has %lld: its data position has no meaning here",
                  (long long)saved->seq_length, (long long)now->seq_length);
    else if (saved->global_batch_size != now->global_batch_size &&
             !resume_key_allowed(run->resume_allow, "global_batch_size"))
        error_set(&why,
                  "was trained with %lld samples a step, this run has %lld: set global_batch_size "
                  "(--resume_allow global_batch_size goes on all the same)",
                  (long long)saved->global_batch_size, (long long)now->global_batch_size);
    else if (saved->data_xxh3[0] && strcmp(saved->data_xxh3, now->data_xxh3) != 0 &&
             !resume_key_allowed(run->resume_allow, "data"))
        error_set(&why,
                  "was trained on other data (XXH3 %s) than %s (%s): its data position has no meaning here "
                  "(--resume_allow data goes on all the same)",
                  saved->data_xxh3, run->data, now->data_xxh3);
    else if (!saved->run_json || resume_keys_check(run, saved->run_json, saved->step, &why) == 0)
        return GOOD;
    error_set(err, "%s: %s", dir, why.text);
    return DISAGREES;
}

static verdict load_here(resume_point *r, const checkpoint_manifest *m, const char *dir, const run_config *run,
                         const checkpoint_meta *now, const checkpoint_state *st, moai_error *err)
{
    verdict v = check_meta(run, now, checkpoint_get_meta(m), dir, err);

    if (v == GOOD) v = verdict_of(checkpoint_load(m, st, err));
    if (v == GOOD) v = verdict_of(checkpoint_check_rest(m, st->grid->rank, st->grid->world, err));
    if (v == GOOD && st->grid->rank == 0) v = verdict_of(checkpoint_read_files(&r->files, m, err));
    if (v == GOOD) r->meta = checkpoint_meta_copy(checkpoint_get_meta(m));
    return v;
}

/* The worst verdict of all ranks, with the words of one that holds it. */
static verdict load(resume_point *r, const char *dir, const run_config *run, const checkpoint_meta *now,
                    const checkpoint_state *st, moai_error *err)
{
    const comm *world = &st->grid->host_world;
    checkpoint_manifest *m;
    verdict own = verdict_of(checkpoint_open(&m, dir, world, err));

    if (own == GOOD) own = load_here(r, m, dir, run, now, st, err);
    checkpoint_close(m);
    int32_t worst = (int32_t)own;
    comm_all_reduce(world, &worst, 1, DT_I32, REDUCE_MAX);
    if (worst == GOOD) {
        r->dir = xstrdup(dir);
        return GOOD;
    }
    comm_agree(world, (int32_t)own == worst, err);
    checkpoint_meta_free(&r->meta);
    checkpoint_files_free(&r->files);
    r->disagrees = worst == DISAGREES;
    return (verdict)worst;
}

/* Rank 0 tells the others what it found; without any, or where they cannot be listed, -1 on every rank. */
static int find(const run_config *run, const comm *world, bool must, checkpoint_names *found, int32_t *n,
                moai_error *err)
{
    int failed = 0;

    *found = (checkpoint_names){0};
    if (world->rank == 0) {
        checkpoint_clean(run->output_dir);
        failed = checkpoint_find(run->output_dir, found, err);
    }
    if (!failed && world->rank == 0 && found->n == 0 && must)
        failed = error_set(err, "resume_from_checkpoint is latest: output_dir %s holds no checkpoint", run->output_dir);
    if (comm_agree(world, failed, err)) return -1;
    *n = found->n;
    comm_broadcast(world, n, 1, DT_I32, 0);
    return 0;
}

/* The path of rank 0's i-th, on every rank; caller frees. */
static char *agreed_path(const run_config *run, const comm *world, const checkpoint_names *found, int i)
{
    char name[64] = "";

    if (world->rank == 0) snprintf(name, sizeof name, "%s", found->list[i]);
    comm_broadcast(world, name, sizeof name, DT_U8, 0);
    return xasprintf("%s/%s", run->output_dir, name);
}

/* Only now, when a good one is there, the damaged ones lose their names. */
static int choose(resume_point *r, const run_config *run, const comm *world, const checkpoint_names *found, int i,
                  moai_error *err)
{
    const int failed = world->rank == 0 ? checkpoint_choose(run->output_dir, found, i, err) : 0;

    if (comm_agree(world, failed, err)) return -1;
    const size_t n = strlen(r->dir);
    if (n > 4 && strcmp(r->dir + n - 4, ".old") == 0) r->dir[n - 4] = '\0';
    return 0;
}

/* The newest good one; without any, an error when there are damaged ones or one must be there. */
static int load_newest(resume_point *r, bool must, const run_config *run, const checkpoint_meta *now,
                       const checkpoint_state *st, moai_error *err)
{
    const comm *world = &st->grid->host_world;
    checkpoint_names found;
    verdict v = DAMAGED;
    int32_t n;
    int i, failed = 0;

    if (find(run, world, must, &found, &n, err)) return -1;
    for (i = 0; i < n && v == DAMAGED; i++) {
        char *dir = agreed_path(run, world, &found, i);
        v = load(r, dir, run, now, st, err);
        if (v == DAMAGED) warn("%s is damaged and skipped: %s", dir, err->text);
        free(dir);
    }
    if (v == UNREADABLE || v == DISAGREES)
        failed = -1;
    else if (v == GOOD)
        failed = choose(r, run, world, &found, i - 1, err);
    else if (n > 0)
        failed = error_set(err,
                           "output_dir %s: each of its %d checkpoints is damaged: a new start needs another directory",
                           run->output_dir, n);
    checkpoint_names_free(&found);
    return failed;
}

/* No rank finds a manifest there, nor will another start: a run's directory was meant to be one of its checkpoints, it
 * seems. */
static void refuse_none(const char *dir, const comm *world, moai_error *err)
{
    char *path = xasprintf("%s/manifest.json", dir), *newest = world->rank == 0 ? checkpoint_latest(dir) : NULL;
    int32_t found = !file_missing(path);

    free(path);
    comm_all_reduce(world, &found, 1, DT_I32, REDUCE_MAX);
    err->config = err->config || !found;
    if (newest && !found) error_config(err, "%s is no checkpoint; the newest in it is %s", dir, newest);
    if (!newest && !found && place_is_model(dir))
        error_config(err,
                     "%s is a Hugging Face model, no checkpoint: `moai_checkpoint import %s RUN` makes "
                     "RUN/checkpoint-0 of it, from which --output_dir RUN --resume_from_checkpoint auto goes on", dir,
                     dir);
    free(newest);
}

int resume_load(resume_point *r, const run_config *run, const checkpoint_meta *now, const checkpoint_state *st,
                moai_error *err)
{
    const char *wanted = run->resume_from_checkpoint;
    const bool must = strcmp(wanted, "latest") == 0;

    *r = (resume_point){0};
    if (!wanted[0]) return 0;
    if (must || strcmp(wanted, "auto") == 0) return load_newest(r, must, run, now, st, err);
    if (load(r, wanted, run, now, st, err) == GOOD) return 0;
    refuse_none(wanted, &st->grid->host_world, err);
    return -1;
}

void resume_free(resume_point *r)
{
    checkpoint_meta_free(&r->meta);
    checkpoint_files_free(&r->files);
    free(r->dir);
    *r = (resume_point){0};
}

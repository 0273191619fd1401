/* trainer.c: see trainer.h */
#include "src/train/trainer.h"

#include "io/file/hash.h"
#include "parallel/watch/watchdog.h"
#include "src/base/files.h"
#include "src/config/keys.h"
#include "src/train/base_weights.h"
#include "src/train/carry.h"
#include "src/train/optimizer.h"
#include "src/train/output_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *tokenizer_path(const trainer *t)
{
    return t->run->tokenizer[0] ? t->run->tokenizer : t->data.tokenizer;
}

/* What lies beside a tokenizer.json and says more of it. */
static int read_settings(trainer *t, const char *path, moai_error *err)
{
    static const char *const names[] = {"tokenizer_config.json", "chat_template.jinja"};
    const char *slash = strrchr(path, '/');
    int rc = 0;

    for (int i = 0; rc == 0 && i < 2; i++) {
        char *beside = xasprintf("%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, names[i]);
        if (file_exists(beside)) rc = checkpoint_files_add(&t->files, names[i], beside, err);
        free(beside);
    }
    return rc;
}

/* For the checkpoints; NULL: none. */
static int read_tokenizer(trainer *t, const char *path, moai_error *err)
{
    char hex[65];

    if (!path) return 0;
    if (checkpoint_read_tokenizer(&t->files, path, hex, err)) return -1;
    if (checkpoint_files_find(&t->files, "tokenizer.json") && read_settings(t, path, err)) return -1;
    if (strcmp(hex, t->data.info.tokenizer_sha256) == 0) return 0;
    return error_config(err, "%s: sha256 %s is not that of the shards' tokenizer, %s", path, hex,
                        t->data.info.tokenizer_sha256);
}

/* Where config.json names ends of a text, the shards' is one of them, or of the generation_config.json beside it. */
static int check_eos(const trainer *t, int64_t eos, moai_error *err)
{
    const char *model = t->run->model, *slash = strrchr(model, '/');
    char *path = xasprintf("%.*sgeneration_config.json", slash ? (int)(slash + 1 - model) : 0, model);
    const token_list *ends = &t->cfg->eos_token_id;
    token_list more = {0};
    int status = 0;

    if (ends->n > 0 && !token_list_has(ends, eos))
        status = generation_config_read_eos(&more, path, t->cfg->vocab_size, err);
    if (status == 0 && ends->n > 0 && !token_list_has(ends, eos) && !token_list_has(&more, eos)) {
        json_t *value = token_list_json(ends);
        char *shown = json_text(value, JSON_COMPACT);
        status = error_config(err, "%s: documents end with token %lld, eos_token_id of %s is %s", t->run->data,
                              (long long)eos, model, shown);
        json_decref(value);
        free(shown);
    }
    free(path);
    return status;
}

/* What else than token shards may be named. */
static int check_data(const char *path, moai_error *err)
{
    static const char hdf5[] = "\x89HDF\r\n";
    char *inside = xasprintf("%s/manifest.json", path), head[64] = "";
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(head, 1, sizeof head - 1, f) : 0;     /* none of a directory */
    int rc = file_given("data", path, err);

    if (f) fclose(f);
    if (rc == 0 && n == 0 && file_missing(inside))
        rc = error_config(err, "--data %s holds no manifest.json: `moai_tokenize encode` makes token shards with one",
                          path);
    else if (rc == 0 && n > 6 && memcmp(head, hdf5, 6) == 0)
        rc = error_config(err, "--data %s is a token shard; --data takes the directory of the shards, or its "
                               "manifest.json", path);
    else if (rc == 0 && n > 0 && head[strspn(head, " \t\r\n")] != '{')
        rc = error_config(err, "--data %s is no manifest.json of token shards, which `moai_tokenize encode` makes of "
                               "text", path);
    free(inside);
    return rc;
}

/* Rank 0 for all. */
static int read_manifest(trainer *t, moai_error *err)
{
    const run_config *run = t->run;
    const manifest *m = &t->data;
    char given[65];
    const char *sha256 = run->tokenizer[0] ? given : NULL;

    if (sha256 && (file_given("tokenizer", run->tokenizer, err) || file_sha256(run->tokenizer, given, err))) return -1;
    if (check_data(run->data, err) || manifest_read(&t->data, run->data, err)) return -1;
    if (dataset_check(m, run->data, t->cfg->vocab_size, sha256, err)) return -1;
    if (m->info.is_marked && run->batch.mode != MODE_SFT)
        return error_config(err, "%s: examples to tune on, of whose tokens not all are trained, and mode is pretrain: "
                            "--mode sft", run->data);
    if (read_tokenizer(t, tokenizer_path(t), err)) return -1;
    return m->info.is_marked ? 0 : check_eos(t, m->info.eos, err);  /* examples end with any token */
}

/* Those of the first stage, then those of the last, or of each. */
static dataset_readers readers_of(const trainer *t)
{
    const grid_shape at = t->grid.at, n = t->grid.size;
    const bool all = batch_is_divided(&t->run->batch);
    const int in_stage = n.dp, stage = all ? at.pp : !grid_first_stage(&t->grid),
              n_stages = all ? n.pp : n.pp > 1 ? 2 : 1;

    return (dataset_readers){.world = &t->grid.host_world, .parts = in_stage * n_stages,
                             .part = feed_reads(&t->run->batch, &t->grid) ? at.dp + in_stage * stage : -1};
}

/* What an epoch has of examples, and what it has not. */
static int say_packed(const trainer *t, const char *split, const pack_said *p, int64_t n_samples, moai_error *err)
{
    char n[32], tokens[32], counted[32];
    const int64_t most = t->run->seq_length + 1;

    if (n_samples == 0)
        return error_config(err, "%s: of %lld examples in the split `%s` none is left: %lld have more than %lld tokens "
                            "(seq_length + 1), %lld no trained one", t->run->data, (long long)p->n_examples, split,
                            (long long)p->n_long, (long long)most, (long long)p->n_untrained);
    say("%-10s %s examples in %lld samples: %s tokens, %s of them trained", split,
        with_commas(n, p->n_examples - p->n_long - p->n_untrained), (long long)n_samples,
        with_commas(tokens, p->n_tokens), with_commas(counted, p->n_counted));
    if (p->n_long)
        warn("%lld of %lld examples of the split `%s` have more than %lld tokens (seq_length + 1) and are left out",
             (long long)p->n_long, (long long)p->n_examples, split, (long long)most);
    if (p->n_untrained)
        warn("%lld of %lld examples of the split `%s` have no trained token and are left out",
             (long long)p->n_untrained, (long long)p->n_examples, split);
    return 0;
}

/* In the mode that is asked for.  NULL on every rank. */
static dataset *open_split(const trainer *t, const char *split, const dataset_readers *readers, moai_error *err)
{
    const batch_options *o = &t->run->batch;
    dataset *d = dataset_open(&t->data, split, readers, err);
    pack_said said;

    if (!d || o->mode != MODE_SFT) return d;
    const pack_plan plan = {.seq_len = t->run->seq_length, .together = o->packing, .said = &said};
    if (!dataset_pack(d, &plan, readers->world, err) &&
        !say_packed(t, split, &said, dataset_samples(d, t->run->seq_length), err))
        return d;
    dataset_free(d);
    return NULL;
}

/* How many steps the epochs are, said where they are counted so. */
static int settle_steps(trainer *t, moai_error *err)
{
    schedule_options *s = &t->settled.schedule;
    const int64_t n = dataset_samples(t->train_set, t->run->seq_length), global = t->batch.global;

    if (schedule_settle(s, n, global, err)) return -1;
    if (s->num_train_epochs > 0)
        say("epochs     %g of %lld samples are %lld steps of %lld, of which the last goes %lld beyond",
            s->num_train_epochs, (long long)n, (long long)s->max_steps, (long long)global,
            (long long)(s->max_steps * global - (int64_t)(s->num_train_epochs * (double)n + 0.5)));
    return 0;
}

static int open_data(trainer *t, moai_error *err)
{
    const run_config *run = t->run;
    const comm *world = &t->grid.host_world;
    const dataset_readers readers = readers_of(t);
    const int failed = world->rank == 0 ? read_manifest(t, err) : 0;

    if (comm_agree(world, failed, err)) return -1;
    manifest_share(&t->data, world);
    t->train_set = open_split(t, "train", &readers, err);
    if (!t->train_set || settle_steps(t, err)) return -1;
    if (run->eval_steps == 0) return 0;
    t->eval_set = open_split(t, "validation", &readers, err);
    if (!t->eval_set) return -1;
    if (dataset_samples(t->eval_set, run->seq_length) < 1)
        return error_config(err,
                            "%s: the validation split has %lld tokens, fewer than one sample of seq_length %lld + 1; "
                            "eval_steps needs it (0: no evaluation; moai_tokenize encode --validation_documents N)",
                            run->data, (long long)dataset_tokens(t->eval_set), (long long)run->seq_length);
    return 0;
}

data_order trainer_order(const trainer *t)
{
    return (data_order){.seed = (uint64_t)t->run->seed, .shuffle = true,
                        .n_samples = dataset_samples(t->train_set, t->run->seq_length),
                        .left_out = t->state.left_out.list,
                        .n_left_out = t->state.left_out.n};
}

left_out_data trainer_left_out_data(const trainer *t)
{
    return (left_out_data){.seed = t->run->seed, .seq_length = t->run->seq_length,
                           .n_samples = dataset_samples(t->train_set, t->run->seq_length)};
}

char *trainer_left_out_path(const trainer *t) { return xasprintf("%s/left_out.json", t->run->output_dir); }

checkpoint_state trainer_state(trainer *t)
{
    return (checkpoint_state){.params = &t->model.params, .grid = &t->grid, .ops = t->model.ctx.ops,
                              .dev = t->device.dev, .states = t->model.states};
}

checkpoint_meta trainer_meta(const trainer *t)
{
    checkpoint_meta meta = {.step = t->step, .samples = t->samples, .updates = t->updates, .skipped = t->skipped,
                            .layout = t->grid.size, .seed = (uint64_t)t->run->seed, .seq_length = t->run->seq_length,
                            .global_batch_size = t->batch.global, .model = *t->cfg,
                            .run_json = run_config_json(t->run), .state_json = run_state_json(&t->state, t->run)};

    memcpy(meta.tokenizer_sha256, t->data.info.tokenizer_sha256, sizeof meta.tokenizer_sha256);
    memcpy(meta.base_xxh3, t->base_xxh3, sizeof meta.base_xxh3);
    if (t->cfg->lora.rank) meta.base = xstrdup(t->run->finetune.model_name_or_path);
    dataset_xxh3(t->train_set, meta.data_xxh3);
    return meta;
}

static int start_anew(trainer *t, moai_error *err)
{
    const moai_ctx *c = &t->model.ctx;

    model_init_weights(&t->model, (uint64_t)t->run->seed);
    for (int i = 0; i < t->model.states.n; i++)
        if (i != STATE_WEIGHT) state_zero(&t->model.states, i, c->ops, c->dev);
    t->step = t->samples = t->updates = t->skipped = 0;
    return base_weights_start(&t->model, t->run, &t->grid.host_world, err);
}

/* What resume_from_checkpoint of `run` means, or a new start. */
static int load_state(trainer *t, const run_config *run, resume_point *from, moai_error *err)
{
    const checkpoint_state state = trainer_state(t);
    checkpoint_meta now = trainer_meta(t);
    const int failed = resume_load(from, run, &now, &state, err);
    const checkpoint_meta *meta = &from->meta;

    checkpoint_meta_free(&now);
    if (failed) return -1;
    run_state_reset(&t->state, t->run);
    if (!from->dir && start_anew(t, err)) return -1;
    weights_from_master(&t->model);
    if (!from->dir) return 0;
    t->step = meta->step, t->samples = meta->samples, t->updates = meta->updates, t->skipped = meta->skipped;
    return run_state_read(&t->state, t->run, meta->state_json, from->dir, err);
}

int trainer_load(trainer *t, const char *dir, moai_error *err)
{
    run_config run = *t->run;
    resume_point from = {0};

    run.resume_from_checkpoint = (char *)(dir ? dir : "");
    watch_phase("loading", -1);
    const int failed = load_state(t, &run, &from, err);
    watch_phase("", -1);
    resume_free(&from);
    return failed;
}

/* What OUTPUT_DIR/left_out.json adds to the checkpoint's list: rank 0 reads for all. */
static int read_left_out(trainer *t, moai_error *err)
{
    const comm *world = &t->grid.host_world;
    const left_out_data data = trainer_left_out_data(t);
    char *path = trainer_left_out_path(t), *text = NULL;
    int failed = world->rank == 0 ? left_out_read(&t->state.left_out, &data, path, err) : 0;
    size_t n_bytes = 0;

    free(path);
    if (comm_agree(world, failed, err)) return -1;
    if (world->rank == 0) text = json_dumps(t->state.left_out.decisions, JSON_COMPACT), n_bytes = strlen(text);
    comm_broadcast_bytes(world, &text, &n_bytes, 0);
    json_t *decisions = json_loads(text, 0, NULL);
    failed = left_out_merge(&t->state.left_out, decisions, err);
    json_decref(decisions);
    free(text);
    if (t->state.left_out.n > 0 && t->state.left_out.n >= data.n_samples)
        failed = error_config(err, "all %lld samples of the data are left out", (long long)data.n_samples);
    if (t->state.left_out.n) say("left out   %lld samples, decided earlier", (long long)t->state.left_out.n);
    return failed;
}

static int carry(trainer *t, moai_error *err)
{
    const bool here = t->from.dir && t->grid.rank == 0;
    const char *sha256 = t->data.info.tokenizer_sha256;
    const int failed = here ? carry_files(&t->files, &t->from, tokenizer_path(t), sha256, err) : 0;

    return comm_agree(&t->grid.host_world, failed, err);
}

static int start_weights(trainer *t, moai_error *err)
{
    const comm *world = &t->grid.host_world;

    if (base_weights_open(t->run, t->cfg, world, t->data.info.tokenizer_sha256, t->base_xxh3, &t->files, err) ||
        base_weights_freeze(&t->model, t->run, world, err))
        return -1;
    if (load_state(t, t->run, &t->from, err)) {
        err->config = err->config || t->from.disagrees;
        return -1;
    }
    if (t->from.dir)
        say("resumed    %s: step %lld, %lld samples consumed", t->from.dir, (long long)t->step, (long long)t->samples);
    return carry(t, err) ? -1 : read_left_out(t, err);
}

/* Only saves on the way are worth the memory of a copy: the one at the end is waited for anyhow. */
static int open_saver(trainer *t, moai_error *err)
{
    char *same = xasprintf("%s/checkpoint-%lld", t->run->output_dir, (long long)t->step);
    const bool there = t->from.dir && strcmp(t->from.dir, same) == 0;
    const saver_options o = {.output_dir = t->run->output_dir, .files = &t->files, .state = trainer_state(t),
                             .async = plan_copies(t->run), .keep = (int)t->run->save_total_limit,
                             .metrics = t->metrics, .saved_step = there ? t->step : -1};

    free(same);
    t->saver = saver_open(&o, err);
    return t->saver ? 0 : -1;
}

static loader_plan loader_plan_of(const trainer *t)
{
    return (loader_plan){.seq_len = t->run->seq_length, .batch = t->batch.micro_batch,
                         .accumulation = t->batch.accumulation, .dp_size = t->grid.size.dp,
                         .dp_rank = t->grid.at.dp, .seed = (uint64_t)t->run->seed, .shuffle = true,
                         .first = t->samples, .left_out = t->state.left_out.list, .n_left_out = t->state.left_out.n,
                         .n_workers = (int)t->run->dataloader_num_workers,
                         .prefetch = (int)t->run->dataloader_prefetch_factor};
}

int trainer_read_data(trainer *t, moai_error *err)
{
    const loader_plan plan = loader_plan_of(t);
    const bool reads = feed_reads(&t->run->batch, &t->grid);

    watch_files(true);
    if (t->feed.loader) loader_stop(t->feed.loader);
    t->feed.loader = reads ? loader_start(t->train_set, &plan, err) : NULL;
    watch_files(false);
    return comm_agree(&t->grid.host_world, reads && !t->feed.loader, err);
}

static void take_batch_memory(trainer *t)
{
    feed_init(&t->feed, &t->run->batch, &t->grid, t->train_set, t->batch.micro_batch, t->run->seq_length);
    t->samples_read = xmalloc((size_t)(t->batch.micro_batch * t->batch.accumulation) * sizeof *t->samples_read);
}

static int open_metrics(trainer *t, moai_error *err)
{
    t->metrics = metrics_open(t->run->output_dir, t->run->tensorboard, t->run->progress, t->step, err);
    return t->metrics ? 0 : -1;
}

static bool is_name(const char *from) { return from[0] && strcmp(from, "auto") != 0 && strcmp(from, "latest") != 0; }

/* One part after another, agreed by all ranks before the next. */
int trainer_open(trainer *t, moai_error *err)
{
    const comm *world = &t->grid.host_world;
    const model_options opt = model_options_of(t->run, &t->batch, t->grid.size, t->grid.at.pp);
    const device_options wanted = {.name = t->run->device, .deterministic = t->run->deterministic,
                                   .num_threads = t->run->num_threads};
    int failed = 0;

    if (watchdog_start(&t->grid, t->run->hang_timeout, err)) return -1;
    watch_phase("start", -1);
    stragglers_open(&t->stragglers, &t->grid);
    failed = device_open(&t->device, &wanted, err);
    if (comm_agree(world, failed, err)) return -1;
    device_connect(&t->device, &t->grid);
    say("device     %s", t->device.text);
    if (output_dir_open(t->run, world, &t->lock, err)) return -1;
    if (open_data(t, err)) return -1;
    if (!t->run->resume_from_checkpoint[0] && output_dir_check(t->run, -1, world, err)) return -1;
    model_plan(&t->model, t->cfg, &t->grid, &opt);
    failed = model_alloc(&t->model, t->device.ops, t->device.dev, &t->grid, err);
    if (comm_agree(world, failed, err)) return -1;
    if (start_weights(t, err)) return -1;
    if (is_name(t->run->resume_from_checkpoint) && output_dir_check(t->run, t->step, world, err)) return -1;
    if (device_waits(&t->device) && t->grid.world > 1) model_rehearse(&t->model);
    take_batch_memory(t);
    if (trainer_read_data(t, err)) return -1;
    if (t->grid.rank == 0) failed = open_metrics(t, err);
    if (comm_agree(world, failed, err)) return -1;
    return open_saver(t, err);
}

void trainer_close(trainer *t)
{
    if (t->feed.loader) loader_stop(t->feed.loader);
    feed_free(&t->feed);
    if (t->train_set) dataset_free(t->train_set);
    if (t->eval_set) dataset_free(t->eval_set);
    manifest_free(&t->data);
    saver_close(t->saver);
    resume_free(&t->from);
    if (t->metrics) metrics_close(t->metrics);
    if (t->model.chunks) model_free(&t->model);
    profile_free(t->profile);
    schedule_free(&t->schedule);
    stragglers_free(&t->stragglers);
    watchdog_stop();
    grid_free(&t->grid);
    device_close(&t->device);
    free(t->samples_read);
    checkpoint_files_free(&t->files);
    job_unlock(t->lock);
    run_state_free(&t->state);
}

/* moai_train: trains a model.  mpirun -np 32 moai_train --config run.json [--key value ...] */
#include "src/base/files.h"
#include "src/host/signals.h"
#include "src/train/fit.h"
#include "src/train/run_config.h"
#include "src/train/train.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A Hugging Face directory is more than the model file, which is the shape alone. */
static int read_model_file(model_config *cfg, const char *path, moai_error *err)
{
    struct stat st;

    if (file_given("model", path, err)) return -1;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) return model_config_read(cfg, path, err);
    char *inside = xasprintf("%s/config.json", path);
    if (file_exists(inside))
        error_config(err, "--model %s is a directory; the model file in it is --model %s (its weights come by "
                          "`moai_checkpoint import`)", path, inside);
    else
        error_config(err, "--model %s is a directory without a config.json, must be the model file", path);
    free(inside);
    return -1;
}

/* The model file, which is that of the weights that the run starts from, if it does. */
static int find_model(model_config *cfg, const run_config *run, moai_error *err)
{
    const char *base = run->finetune.model_name_or_path;
    char *inside = xasprintf("%s/config.json", base);
    model_config own;
    moai_error why;
    int rc = *base ? file_given("model_name_or_path", base, err) : 0;

    if (!rc && *base && file_missing(inside))
        rc = error_config(err, "--model_name_or_path %s holds no config.json, must be a Hugging Face directory or a "
                          "checkpoint", base);
    if (!rc && *base) rc = model_config_read(&own, inside, err);
    if (!rc) rc = read_model_file(cfg, run->model, err);
    if (!rc && *base && model_config_same(cfg, &own, &why))
        rc = error_config(err, "--model %s and --model_name_or_path %s are two models: %s", run->model, base, why.text);
    free(inside);
    return rc;
}

/* Rank 0 for all. */
static int read_model(model_config *cfg, const run_config *run, moai_error *err)
{
    const bool reads = process_rank() == 0;
    char *bytes = (char *)cfg;
    size_t n_bytes = sizeof *cfg;

    if (process_share(reads && find_model(cfg, run, err) != 0, &bytes, &n_bytes, err)) return -1;
    if (reads) return 0;
    memcpy(cfg, bytes, sizeof *cfg);
    free(bytes);
    return 0;
}

/* What needs neither data nor memory; the same answer on every rank. */
static int check(run_config *run, model_config *cfg, grid_shape *size, batch_plan *batch, int world, moai_error *err)
{
    if (!*run->model) {
        free(run->model);
        run->model = xasprintf("%s/config.json", run->finetune.model_name_or_path);
    }
    if (read_model(cfg, run, err)) return -1;
    model_config_remark(cfg, run->model);
    if (finetune_settle(cfg, &run->finetune, err)) return -1;
    if (!recompute_applies(run->gradient_checkpointing, cfg))
        return error_set(err, "gradient_checkpointing is %s, but the model of %s has one residual stream; must be "
                         "none, selective, keep_attention, full or auto", recompute_name(run->gradient_checkpointing),
                         run->model);
    *size = (grid_shape){.tp = (int)run->tensor_parallel, .cp = (int)run->context_parallel,
                         .dp = (int)run->data_parallel, .pp = (int)run->pipeline_parallel};
    if (run->plan_ranks) {                    /* questions about a world that is not running */
        world = (int)run->plan_ranks;
    } else if (run->plan && world == 1) {
        size->dp = size->dp ? size->dp : 1;
        world = grid_ranks(*size);
    }
    if (grid_factor(size, world, err) || params_check(cfg, *size, err) ||
        batch_settle(batch, &run->batch, size->dp, err))
        return -1;
    if (run->seq_length > cfg->max_position_embeddings && cfg->rope.kind == ROPE_DEFAULT)
        return error_set(err, "seq_length %lld is larger than max_position_embeddings %lld of %s",
                         (long long)run->seq_length, (long long)cfg->max_position_embeddings, run->model);
    return 0;
}

int main(int argc, char **argv)
{
    base_start();
    signals_ignore_pipe();
    const int world = process_start(&argc, &argv);
    run_config run;
    model_config cfg;
    grid_shape size;
    batch_plan batch;
    fit_memory memory;
    moai_error err;
    int status = STATUS_OK;

    int wrong = run_config_read(&run, argc, argv, &err);
    if (wrong) err.config = true;
    if (process_agree(wrong, &err)) error_leave(&err);
    wrong = check(&run, &cfg, &size, &batch, world, &err);
    if (wrong) err.config = true;
    if (process_agree(wrong, &err)) error_leave(&err);
    if (fit_find_memory(&memory, &run, &err)) error_leave(&err);
    const int too_big = fit_settle(&run, &cfg, size, &batch, memory, &err);
    plan_print(&run, &cfg, size, &batch, memory.gpu, memory.bytes);
    if (too_big && !run.plan) error_leave(&err);
    if (too_big) plan_say(&run, "           it does not fit: %s", err.text);
    if (!run.plan) status = train_run(&run, &cfg, size, &batch);
    /* A run's product is its checkpoints and metrics.jsonl: that its lines on standard output are lost is a warning
     * (metrics.c) and no failure, for which a job would start it again. */
    if (run.plan) status = output_end(status);
    run_config_free(&run);
    process_finish();
    return status;
}

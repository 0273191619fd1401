/* run_config.c: the run file and the flags, see run_config.h */
#include "src/train/run_config.h"
#include "parallel/comm/grid.h"
#include "src/config/flags.h"
#include "src/config/paths.h"
#include "src/json/json_scan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_OF run_config
#include "src/config/key_rows.h"

static const key_choice recomputations[] = {{"none", RECOMPUTE_NONE},
                                            {"streams", RECOMPUTE_STREAMS},
                                            {"selective", RECOMPUTE_SELECTIVE},
                                            {"keep_attention", RECOMPUTE_KEEP_ATTENTION},
                                            {"full", RECOMPUTE_FULL},
                                            {"true", RECOMPUTE_FULL},
                                            {"false", RECOMPUTE_NONE},
                                            {"auto", RECOMPUTE_AUTO},
                                            {NULL, 0}};

static const key_spec first[] = {
    PATH(model, "", "model file, a Hugging Face config.json"),
    PATH(data, "", "manifest.json of the token shards, or its directory", CONTENT),
    PATH(tokenizer, "", "tokenizer.model or tokenizer.json, when not the one that the manifest names"),
    PATH(output_dir, "output", "checkpoints, metrics.jsonl and runs/ go here"),
    PATH(resume_from_checkpoint, "",
         "a checkpoint directory; auto: the newest good one of output_dir, if any; latest: auto, but it must be there"),
    TEXT(resume_allow, "", "keys, separated by commas, that may differ from the checkpoint's"),
};
static const key_spec layout[] = {
    INT(tensor_parallel, "1", 1, 4096, "ranks that split each layer (TP)"),
    INT(context_parallel, "1", 1, 4096,
        "ranks that split each sample (CP), whose seq_length must be a multiple of 2 x CP; 1 on a GPU"),
    INT(pipeline_parallel, "1", 1, 1024, "stages of consecutive layers (PP)"),
    INT(data_parallel, "0", 0, 65536, "copies of the model (DP); 0: the ranks left over by TP, CP and PP"),
    TEXT(device, "auto", "cpu, cuda or auto"),
    BOOL(deterministic, "false", "on a GPU, algorithms that give the same bits in every run; the CPU always does"),
    INT(num_threads, "0", 0, 4096, "OpenMP threads of a rank; 0: OMP_NUM_THREADS, or its share of the node's cores"),

    INT(seq_length, "4096", 1, INT32_MAX, "tokens per sample (T)", FIXED),
};
static const key_spec numbers[] = {
    INT(stop_at_step, "0", 0, 1ll << 40, "leave after this step as on SIGTERM, schedules unchanged; 0: at max_steps"),
    INT(seed, "42", 0, 1ll << 52, "initial weights and data order"),

    BOOL(bf16, "false", "bf16 weights and activations, fp32 master weights; else fp32 everywhere", FIXED),
    BOOL(fp16, "false", "fp16 weights and activations, fp32 master weights, dynamic loss scaling", FIXED),
};
static const key_spec memory[] = {
    CHOICE(gradient_checkpointing, "auto", recomputations,
           "activations recomputed in the backward pass: none (also false), streams (of hc_mult > 1 only), selective, "
           "keep_attention (all else), full (also true), or auto: the least that fits", .bare = "true"),
    REAL(device_memory, "0", 0, 1e6, "GiB that a rank may take; 0: what its GPU, or its share of the host, has free"),

    INT(dataloader_num_workers, "1", 0, 256, "prefetch threads of a reading rank; 0: read in the step"),
    INT(dataloader_prefetch_factor, "2", 1, 4096, "micro-batches ready ahead, per worker"),

};
static const key_spec last[] = {
    INT(replica_check_steps, "0", 0, 1ll << 40,
        "steps between checks that all copies of a weight are the same bytes; a difference stops the run; 0: none"),
    REAL(hang_timeout, "600", 0, 1e9,
         "seconds that a rank may wait in one operation: then the late ranks are named and the run ends; 0: any"),

    INT(logging_steps, "1", 1, 1ll << 40, "steps between progress lines"),
    INT(eval_steps, "0", 0, 1ll << 40, "steps between evaluations; 0: none"),
    INT(eval_batches, "0", 0, 1ll << 40,
        "evaluation takes this many times a step's samples; 0: the whole validation split"),
    INT(save_steps, "500", 0, 1ll << 40, "steps between checkpoints; 0: none on the way"),
    INT(save_total_limit, "3", 0, 1 << 20, "newest checkpoints kept; 0: all"),
    BOOL(async_save, "true", "save a copy in host memory while training goes on; else training waits"),
    BOOL(save_on_exit, "true", "a checkpoint at the end and on a signal"),
    BOOL(tensorboard, "true", "write OUTPUT_DIR/runs/events.out.tfevents.*"),
    BOOL(progress, "true", "a live bar where the output is a terminal"),
    BOOL(log_samples, "false", "sample numbers of each logged step (logging_steps) in metrics.jsonl"),
    ROW(KEY_INT, profile_step, "0", .alias = "profile", .min = 0, .max = 1ll << 40,
        .help = "this step's timeline to OUTPUT_DIR/profile/rank-N.json, for ui.perfetto.dev; 0: none"),

    BOOL(plan, "false", "print the layout and the memory per rank, and leave"),
    INT(plan_ranks, "0", 0, 1 << 24, "ranks that --plan is about; 0: TP x CP x PP x DP"),
};
static const key_table first_keys = KEY_TABLE(first), layout_keys = KEY_TABLE(layout), number_keys = KEY_TABLE(numbers),
                       memory_keys = KEY_TABLE(memory), last_keys = KEY_TABLE(last);

/* As --help lists them. */
static const key_group groups[] = {{&first_keys, 0},
                                   {&finetune_keys, offsetof(run_config, finetune)},
                                   {&layout_keys, 0},
                                   {&batch_keys, offsetof(run_config, batch)},
                                   {&schedule_keys, offsetof(run_config, schedule)},
                                   {&adamw_keys, offsetof(run_config, adamw)},
                                   {&number_keys, 0},
                                   {&loss_scale_keys, offsetof(run_config, loss_scale)},
                                   {&memory_keys, 0},
                                   {&spike_keys, offsetof(run_config, spike)},
                                   {&last_keys, 0}};

key_table run_config_keys(void)
{
    static key_table all;

    if (!all.n) all = keys_join(groups, sizeof groups / sizeof *groups);
    return all;
}

static int read_text(run_config *c, const char *path, const char *text, size_t n_bytes, moai_error *err)
{
    const key_table keys = run_config_keys();
    json_t *object = json_object_of(text, n_bytes, path, err), *value;
    const char **seen = xmalloc((size_t)keys.n * sizeof *seen), *name;
    int status = object ? 0 : -1;

    json_object_foreach(object, name, value) {
        const key_spec *k = keys_find(keys, name), *near;
        char label[1024];
        if (!k) {
            near = keys_nearest(keys, name);
            status = near ? error_set(err, "%s: unknown key \"%s\"; did you mean \"%s\"?", path, name, near->name)
                          : error_set(err, "%s: unknown key \"%s\"; --help lists them", path, name);
            break;
        }
        const char **earlier = &seen[k - keys.list];
        if (*earlier) {
            status = error_set(err, "%s: \"%s\" and \"%s\" are the same key", path, *earlier, name);
            break;
        }
        *earlier = name;
        format_elided(label, sizeof label, "%s: %s", path, name);
        if (!json_is_null(value) && (status = key_set_json(k, c, label, value, err))) break;
    }
    json_decref(object);
    free(seen);
    return status;
}

/* the file that --config names, wherever it stands; caller frees */
static int find_config(int argc, char **argv, char **path, moai_error *err)
{
    const char *given;

    *path = NULL;
    if (flags_find("config", argc, argv, &given, err)) return -1;
    *path = given ? path_expand("--config", given, err) : NULL;
    return given && !*path ? -1 : 0;
}

static int pass_over(void *arg, const char *label, const char *value, moai_error *err)
{
    (void)arg, (void)label, (void)value, (void)err;
    return 0;
}

/* -1: resume_allow names something else than a key that a resume may not change. */
static int check_allowed(const char *list, moai_error *err)
{
    size_t n;

    for (const char *name; (name = names_next(&list, &n));) {
        char *one = xasprintf("%.*s", (int)n, name);
        const key_spec *k = keys_find(run_config_keys(), one);
        const bool held = k && k->on_resume != RESUME_FREE && strcmp(k->name, one) == 0;
        free(one);
        if (!held)
            return error_set(err, "resume_allow names \"%.*s\", which is no key that a resume may not change", (int)n,
                             name);
    }
    return 0;
}

static int64_t default_steps(void)
{
    schedule_options o;

    keys_defaults(schedule_keys, &o);
    return o.max_steps;
}

int run_config_refuse_gpu(const run_config *c, moai_error *err)
{
    if (c->context_parallel == 1) return 0;
    return error_config(err, "context_parallel is %lld, and on a GPU this version has none; must be 1, or --device cpu",
                        (long long)c->context_parallel);
}

/* Does each rank of the context axis get two chunks of a sample? */
static int check_context(const run_config *c, moai_error *err)
{
    const int64_t cp = c->context_parallel, chunks = 2 * cp, below = c->seq_length / chunks * chunks;
    char lengths[64];

    if (cp == 1) return 0;
    if (strcmp(c->device, "cuda") == 0) return run_config_refuse_gpu(c, err);
    if (c->seq_length == below) return 0;
    if (below)
        snprintf(lengths, sizeof lengths, "%lld or %lld", (long long)below, (long long)(below + chunks));
    else
        snprintf(lengths, sizeof lengths, "%lld", (long long)chunks);
    return error_set(err, "seq_length is %lld, must be a multiple of 2 x context_parallel %lld: %s",
                     (long long)c->seq_length, (long long)cp, lengths);
}

/* what no single key can see */
static int check_together(const run_config *c, moai_error *err)
{
    if (c->bf16 && c->fp16) return error_set(err, "bf16 and fp16 are both true; choose one");
    if (c->fp16 && loss_scale_check(&c->loss_scale, err)) return -1;
    if (strcmp(c->device, "cpu") && strcmp(c->device, "cuda") && strcmp(c->device, "auto"))
        return error_set(err, "device is \"%s\", must be cpu, cuda or auto", c->device);
    if (check_context(c, err)) return -1;
    if (adamw_check(&c->adamw, err) || schedule_check(&c->schedule, err)) return -1;
    if (!c->batch.packing && c->batch.mode != MODE_SFT)
        return error_set(err, "packing is false, and mode is pretrain: whose samples are a running text");
    if (c->schedule.num_train_epochs > 0 && c->schedule.max_steps != default_steps())
        return error_set(err, "num_train_epochs is %g and max_steps %lld: one of them says how long the run is",
                         c->schedule.num_train_epochs, (long long)c->schedule.max_steps);
    if (c->schedule.warmup_ratio > 0 && c->schedule.warmup_steps)
        return error_set(err, "warmup_ratio is %g and warmup_steps %lld: one of them says how long the warm-up is",
                         c->schedule.warmup_ratio, (long long)c->schedule.warmup_steps);
    if (c->schedule.num_train_epochs == 0 && c->schedule.max_steps && c->profile_step > c->schedule.max_steps)
        return error_set(err, "profile_step is %lld, must not exceed max_steps %lld", (long long)c->profile_step,
                         (long long)c->schedule.max_steps);
    if (check_allowed(c->resume_allow, err)) return -1;
    if (c->plan_ranks && !c->plan) return error_set(err, "plan_ranks is %lld without --plan", (long long)c->plan_ranks);
    if (!*c->model && !*c->finetune.model_name_or_path)
        return error_set(err, "model is missing: --model FILE names the config.json");
    if (c->finetune.lora_rank && !*c->finetune.model_name_or_path && !c->plan)
        return error_set(err, "lora_rank is %lld without model_name_or_path: adapters need weights to adapt",
                         (long long)c->finetune.lora_rank);
    if (!*c->data && !c->plan)
        return error_set(err, "data is missing: --data FILE names the manifest of the token shards");
    return 0;
}

/* Rank 0 reads for all, whatever has `failed` on a rank before. */
static int read_file(run_config *c, const char *path, int failed, moai_error *err)
{
    const bool reads = process_rank() == 0 && path;
    char *text = NULL;
    size_t n_bytes = 0;
    moai_error why;

    if (reads && (text = json_file_read(path, &n_bytes, &why))) n_bytes++;     /* its NUL goes along: none is no file */
    if (process_share(reads && !text, &text, &n_bytes, &why)) {
        if (!failed) *err = why;
        failed = -1;
    }
    if (!failed && path && n_bytes == 0) failed = error_set(err, "--config %s: rank 0 is given none", path);
    if (!failed && path) failed = read_text(c, path, text, n_bytes - 1, err);
    free(text);
    return failed;
}

int run_config_read(run_config *c, int argc, char **argv, moai_error *err)
{
    char *path;

    memset(c, 0, sizeof *c);
    keys_defaults(run_config_keys(), c);
    if (flags_ask_help(argc - 1, argv + 1)) {
        if (base_process.printer) run_config_help();
        base_process.leave(STATUS_OK);
    }
    int failed = find_config(argc - 1, argv + 1, &path, err);
    failed = read_file(c, path, failed, err);
    free(path);
    if (failed) return -1;
    static const flag_own config[] = {{"config", false, pass_over}, {NULL, false, NULL}};   /* it has been read */
    const flag_rules rules = {.own = config, .no_word = "options are --key value, --help lists them"};
    if (flags_read(run_config_keys(), c, argc - 1, argv + 1, &rules, NULL, err)) return -1;
    return check_together(c, err);
}

static void print_resume_help(void)
{
    const key_table keys = run_config_keys();

    printf("\nA run that goes on from a checkpoint may not change what its data hold, its samples a step "
           "(global_batch_size),\n");
    for (int i = 0, n = 0; i < keys.n; i++)
        if (keys.list[i].on_resume == RESUME_FIXED) printf("%s%s", n++ ? ", " : "", keys.list[i].name);
    printf(
        ".\nThe keys of the learning rate may change where its values of the steps done stay the same.  --resume_allow "
        "names\nexceptions.  The model, the seed and the tokenizer have none; everything else may change.\n");
}

void run_config_help(void)
{
    const key_table keys = run_config_keys();

    printf(
        "usage: moai_train [--config RUN.json] [--key value ...]\n"
        "Each key may stand in the run file or be a flag; flags win.  A switch is --key, --no_key or --key false.  "
        "[default]\n"
        "In a PATH a leading ~/, $NAME and ${NAME} are put in, but where it exists as it is written.\n\n");
    for (int i = 0; i < keys.n; i++) {
        const key_spec *k = &keys.list[i];
        key_print_help(k, 33);
        if (*k->initial) printf(" [%s]", k->initial);
        if (k->alias) printf(" (also --%s)", k->alias);
        putchar('\n');
    }
    print_resume_help();
}

char *run_config_json(const run_config *c)
{
    const key_table keys = run_config_keys();
    json_t *object = json_object();

    for (int i = 0; i < keys.n; i++)
        if (keys.list[i].offset < offsetof(run_config, plan))     /* what follows are questions, no part of the run */
            json_object_set_new(object, keys.list[i].name, key_get_json(&keys.list[i], c));
    char *text = json_text(object, JSON_INDENT(2));
    json_decref(object);
    return text;
}

void run_config_free(run_config *c) { keys_free(run_config_keys(), c); }

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

static const key_choice schedules[] = {{"cosine", SCHEDULE_COSINE},
                                       {"wsd", SCHEDULE_WSD},
                                       {"linear", SCHEDULE_LINEAR},
                                       {"constant", SCHEDULE_CONSTANT},
                                       {"warmup_stable_decay", SCHEDULE_WSD},
                                       {"constant_with_warmup", SCHEDULE_CONSTANT},
                                       {NULL, 0}};
static const key_choice recomputations[] = {{"none", RECOMPUTE_NONE},  {"selective", RECOMPUTE_SELECTIVE},
                                            {"full", RECOMPUTE_FULL},  {"true", RECOMPUTE_FULL},
                                            {"false", RECOMPUTE_NONE}, {"auto", RECOMPUTE_AUTO}, {NULL, 0}};

static const key_choice measures[] = {
    {"loss", SPIKE_LOSS}, {"grad_norm", SPIKE_GRAD_NORM}, {"either", SPIKE_EITHER}, {NULL, 0}};
static const key_choice actions[] = {{"skip", SPIKE_SKIP}, {"rollback", SPIKE_ROLLBACK}, {NULL, 0}};

#define ROW(t, key, value, ...) \
    {.type = t, .name = #key, .offset = offsetof(run_config, key), .initial = value, __VA_ARGS__}
#define TEXT(key, value, ...) ROW(KEY_STRING, key, value, .help = __VA_ARGS__)
#define PATH(key, value, ...) ROW(KEY_PATH, key, value, .help = __VA_ARGS__)
#define BOOL(key, value, ...) ROW(KEY_BOOL, key, value, .bare = "true", .help = __VA_ARGS__)
#define INT(key, value, lo, hi, ...) ROW(KEY_INT, key, value, .min = lo, .max = hi, .help = __VA_ARGS__)
#define REAL(key, value, lo, hi, ...) ROW(KEY_DOUBLE, key, value, .min = lo, .max = hi, .help = __VA_ARGS__)
#define CHOICE(key, value, list, ...) ROW(KEY_CHOICE, key, value, .choices = list, .help = __VA_ARGS__)
/* behind a row's help: what a resume may do with the key */
#define FIXED .on_resume = RESUME_FIXED
#define RATE .on_resume = RESUME_SCHEDULE
#define CONTENT .on_resume = RESUME_CONTENT

static const key_spec rows[] = {
    PATH(model, "", "model file, a Hugging Face config.json"),
    PATH(data, "", "manifest.json of the token shards, or its directory", CONTENT),
    PATH(tokenizer, "", "tokenizer.model, when not the one that the manifest names"),
    PATH(output_dir, "output", "checkpoints, metrics.jsonl and runs/ go here"),
    PATH(resume_from_checkpoint, "",
         "a checkpoint directory; auto: the newest good one of output_dir, if any; latest: auto, but it must be there"),
    TEXT(resume_allow, "", "keys, separated by commas, that may differ from the checkpoint's"),

    INT(tensor_parallel, "1", 1, 4096, "ranks that split each layer (TP)"),
    INT(context_parallel, "1", 1, 4096, "ranks that split each sequence (CP)"),
    INT(pipeline_parallel, "1", 1, 1024, "stages of consecutive layers (PP)"),
    INT(data_parallel, "0", 0, 65536, "copies of the model (DP); 0: the ranks left over by TP, CP and PP"),
    TEXT(device, "auto", "cpu, cuda or auto"),
    BOOL(deterministic, "false", "on a GPU, algorithms that give the same bits in every run; the CPU always does"),
    INT(num_threads, "0", 0, 4096, "OpenMP threads of a rank; 0: OMP_NUM_THREADS, or its share of the node's cores"),

    INT(seq_length, "4096", 1, INT32_MAX, "tokens per sample (T)", FIXED),
    ROW(KEY_INT, per_device_train_batch_size, "1", .alias = "batch_size", .min = 1, .max = 65536,
        .help = "samples per micro-batch"),
    INT(gradient_accumulation_steps, "1", 1, 1 << 20, "micro-batches per step"),
    INT(global_batch_size, "0", 0, 1 << 30, "samples per step; fixes the accumulation; 0: batch x accumulation x DP",
        CONTENT),

    REAL(learning_rate, "3e-4", 0, 1e3, "peak learning rate", RATE),
    REAL(min_lr_ratio, "0.1", 0, 1, "the schedule ends at this much of the peak rate", RATE),
    REAL(weight_decay, "0.1", 0, 10, "AdamW decay of the matrices", FIXED),
    /* 1 - beta in fp32 is 0 from 1 - 3e-8 on, and the root of a moment that is 0 divides */
    REAL(adam_beta1, "0.9", 0, 0.999999, "decay of the first moment", FIXED),
    REAL(adam_beta2, "0.95", 0, 0.999999, "decay of the second moment", FIXED),
    REAL(adam_epsilon, "1e-8", 1e-30, 1, "added to the root of the second moment", FIXED),
    REAL(max_grad_norm, "1", 0, 1e9, "global gradient norm is clipped to this; 0: no clipping", FIXED),
    CHOICE(lr_scheduler_type, "cosine", schedules,
           "cosine, wsd (also warmup_stable_decay), linear, constant (also constant_with_warmup), each after the "
           "warm-up; configs/README.md has the formulas", RATE),
    INT(max_steps, "1000", 0, 1ll << 40, "steps of the whole run; 0: the initial weights are saved", RATE),
    INT(stop_at_step, "0", 0, 1ll << 40, "leave after this step as on SIGTERM, schedules unchanged; 0: at max_steps"),
    INT(warmup_steps, "0", 0, 1ll << 40, "steps of linear warm-up; the first has 1/warmup_steps of the peak rate",
        RATE),
    INT(decay_steps, "0", 0, 1ll << 40, "last steps of the wsd schedule, in which the rate falls; the last has "
        "min_lr_ratio of the peak", RATE),
    INT(seed, "42", 0, 1ll << 52, "initial weights and data order"),

    BOOL(bf16, "false", "bf16 weights and activations, fp32 master weights; else fp32 everywhere", FIXED),
    BOOL(fp16, "false", "fp16 weights and activations, fp32 master weights, dynamic loss scaling", FIXED),
    REAL(initial_loss_scale, "65536", 1, 1e18, "fp16: the loss's gradient is multiplied by this at the start"),
    INT(loss_scale_window, "1000", 1, 1ll << 40, "fp16: steps without overflow until the scale doubles"),
    REAL(min_loss_scale, "1", 1, 1e18, "fp16: each overflow halves the scale, to no less than this"),
    CHOICE(gradient_checkpointing, "auto", recomputations,
           "activations recomputed in the backward pass: none (also false), selective, full (also true), or auto: the "
           "least that fits", .bare = "true"),
    REAL(device_memory, "0", 0, 1e6, "GiB that a rank may take; 0: what its GPU, or its share of the host, has free"),

    INT(dataloader_num_workers, "1", 0, 256, "prefetch threads of a reading rank; 0: read in the step"),
    INT(dataloader_prefetch_factor, "2", 1, 4096, "micro-batches ready ahead, per worker"),

    REAL(loss_spike_zscore, "0", 0, 1e9, "deviations above the mean that make a step a spike; 0: no step is judged"),
    INT(loss_spike_window, "100", 2, 100000,
        "steps before it that a step is judged by; none is before there are so many"),
    CHOICE(loss_spike_measure, "loss", measures, "loss, grad_norm or either"),
    CHOICE(loss_spike_action, "skip", actions,
           "skip: no update; rollback: to the last checkpoint, the step's samples left out for good"),
    INT(loss_spike_limit, "5", 1, 1 << 20,
        "the run stops after more steps in a row than this left out (spikes, norms not finite), or rollbacks to one "
        "checkpoint"),
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
static const key_table keys = {rows, sizeof rows / sizeof *rows};

key_table run_config_keys(void) { return keys; }

static int read_text(run_config *c, const char *path, const char *text, size_t n_bytes, moai_error *err)
{
    json_t *object = json_object_of(text, n_bytes, path, err), *value;
    const char *seen[sizeof rows / sizeof *rows] = {NULL}, *name;
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
        const char **earlier = &seen[k - rows];
        if (*earlier) {
            status = error_set(err, "%s: \"%s\" and \"%s\" are the same key", path, *earlier, name);
            break;
        }
        *earlier = name;
        format_elided(label, sizeof label, "%s: %s", path, name);
        if (!json_is_null(value) && (status = key_set_json(k, c, label, value, err))) break;
    }
    json_decref(object);
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
        const key_spec *k = keys_find(keys, one);
        const bool held = k && k->on_resume != RESUME_FREE && strcmp(k->name, one) == 0;
        free(one);
        if (!held)
            return error_set(err, "resume_allow names \"%.*s\", which is no key that a resume may not change", (int)n,
                             name);
    }
    return 0;
}

/* what no single key can see */
static int check_together(const run_config *c, moai_error *err)
{
    if (c->bf16 && c->fp16) return error_set(err, "bf16 and fp16 are both true; choose one");
    if (c->fp16 && c->min_loss_scale > c->initial_loss_scale)
        return error_set(err, "min_loss_scale is %g, must not exceed initial_loss_scale %g", c->min_loss_scale,
                         c->initial_loss_scale);
    if (c->context_parallel > 1)
        return error_set(err, "context_parallel is %lld, but this version has no context parallelism; must be 1",
                         (long long)c->context_parallel);
    if (strcmp(c->device, "cpu") && strcmp(c->device, "cuda") && strcmp(c->device, "auto"))
        return error_set(err, "device is \"%s\", must be cpu, cuda or auto", c->device);
    if (c->max_grad_norm > 0 && c->max_grad_norm < 1e-30)
        return error_set(err, "max_grad_norm is %g, must be 0 or at least 1e-30", c->max_grad_norm);
    if (c->max_steps && c->warmup_steps > c->max_steps)
        return error_set(err, "warmup_steps is %lld, must not exceed max_steps %lld", (long long)c->warmup_steps,
                         (long long)c->max_steps);
    if (c->max_steps && c->lr_scheduler_type == SCHEDULE_WSD && c->warmup_steps + c->decay_steps > c->max_steps)
        return error_set(err, "warmup_steps %lld and decay_steps %lld together exceed max_steps %lld",
                         (long long)c->warmup_steps, (long long)c->decay_steps, (long long)c->max_steps);
    if (c->max_steps && c->profile_step > c->max_steps)
        return error_set(err, "profile_step is %lld, must not exceed max_steps %lld", (long long)c->profile_step,
                         (long long)c->max_steps);
    if (check_allowed(c->resume_allow, err)) return -1;
    if (c->plan_ranks && !c->plan) return error_set(err, "plan_ranks is %lld without --plan", (long long)c->plan_ranks);
    if (!*c->model) return error_set(err, "model is missing: --model FILE names the config.json");
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
    keys_defaults(keys, c);
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
    if (flags_read(keys, c, argc - 1, argv + 1, &rules, NULL, err)) return -1;
    return check_together(c, err);
}

static void print_resume_help(void)
{
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
    json_t *object = json_object();

    for (int i = 0; i < keys.n; i++)
        if (keys.list[i].offset < offsetof(run_config, plan))     /* what follows are questions, no part of the run */
            json_object_set_new(object, keys.list[i].name, key_get_json(&keys.list[i], c));
    char *text = json_text(object, JSON_INDENT(2));
    json_decref(object);
    return text;
}

void run_config_free(run_config *c) { keys_free(keys, c); }

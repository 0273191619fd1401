/* moai_checkpoint: look at checkpoints, check them, and turn them into Hugging Face directories
 * and back.  One process; only verify shares its work among the ranks of an mpirun. */
#include "io/checkpoint/checkpoint.h"
#include "io/hf/hf.h"
#include "src/config/choices.h"
#include "src/config/flags.h"
#include "src/config/paths.h"
#include "src/host/signals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "moai_checkpoint ls DIR                    what lies in a run's output directory\n"
    "moai_checkpoint verify DIR...             read everything, check every hash; DIR is a checkpoint, or holds some;\n"
    "                                          mpirun -np N shares the work among N processes\n"
    "moai_checkpoint export CHECKPOINT HF_DIR  write a directory that Transformers' "
    "Qwen3ForCausalLM.from_pretrained loads\n"
    "    --dtype float32|bfloat16              of the weights (float32)\n"
    "    --max_shard_size SIZE                 of a file: 5GB, 500MB, 2GiB (5GB)\n"
    "    --quantization nf4                    the layers' linear maps in 4 bits, as bitsandbytes stores them;\n"
    "    --no_double_quantization              their scales in fp32\n"
    "    --overwrite                           replace an earlier export, once the new one is whole\n"
    "moai_checkpoint import HF_DIR OUTPUT_DIR  write OUTPUT_DIR/checkpoint-0, from which moai_train goes on "
    "in any layout;\n"
    "                                          tokenizer.json, chat templates and generation_config.json go along\n"
    "    --overwrite                           replace a checkpoint-0, once the new one is whole\n"
    "    --base DIR                            HF_DIR holds PEFT's adapters for this model\n"
    "    --hc_mult N                           a plain model with N residual streams, of the same function\n"
    "    --hc_mixing sinkhorn|permutation      what mixes them (sinkhorn)\n"
    "moai_checkpoint export --adapter CHECKPOINT PEFT_DIR\n"
    "                                          write adapters as PEFT's adapter_config.json and\n"
    "                                          adapter_model.safetensors; --dtype and --overwrite as above\n"
    "moai_checkpoint merge BASE ADAPTERS HF_DIR\n"
    "                                          write the model with the adapters folded into its weights;\n"
    "                                          ADAPTERS is a checkpoint of a run that trains them, or PEFT's;\n"
    "                                          options as of export\n"
    "\n"
    "Status: 0 well, 1 failed or damaged, 2 usage.\n";

static int usage(const char *what, const char *value)
{
    fprintf(stderr, "moai_checkpoint: %s%s%s\n\n%s", what, value ? ": " : "", value ? value : "", help);
    return STATUS_CONFIG;
}

static int fail(const moai_error *err)
{
    if (base_process.printer) fprintf(stderr, "moai_checkpoint: %s\n", err->text);
    return STATUS_FAILED;
}

static struct {
    char **list;
    int n;
} expanded;                                   /* what expand_paths has made */

/* In place. */
static int expand_paths(int n, char **paths)
{
    moai_error err;

    expanded.list = xmalloc((size_t)n * sizeof *expanded.list);
    for (int i = 0; i < n; i++) {
        paths[i] = path_expand("the path", paths[i], &err);
        if (paths[i]) {
            expanded.list[expanded.n++] = paths[i];
            continue;
        }
        fail(&err);
        return STATUS_CONFIG;
    }
    return STATUS_OK;
}

/* "1.2 GB" in decimal units, as ls and Hugging Face count */
static void print_bytes(char *text, size_t room, int64_t n_bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double x = (double)n_bytes;
    int u = 0;

    while (x >= 1000 && u < 4) x /= 1000, u++;
    snprintf(text, room, u == 0 ? "%.0f %s" : "%.2f %s", x, units[u]);
}

static int list(int argc, char **argv)
{
    moai_error err;
    int n;

    if (argc != 1) return usage("ls takes one directory", NULL);
    if (expand_paths(argc, argv) != STATUS_OK) return STATUS_CONFIG;
    checkpoint_info *all = checkpoint_list(argv[0], &n, &err);
    if (!all) return fail(&err);
    if (n == 0) printf("%s: no checkpoints\n", argv[0]);
    if (n > 0) printf("%10s %12s  %-18s %10s  %-20s  %s\n", "step", "samples", "layout", "size", "saved", "directory");
    for (int i = 0; i < n; i++) {
        const checkpoint_info *c = &all[i];
        char size[32], layout[64];
        print_bytes(size, sizeof size, c->n_bytes);
        snprintf(layout, sizeof layout, "TP%d CP%d DP%d PP%d", c->layout.tp, c->layout.cp, c->layout.dp, c->layout.pp);
        if (c->complete)
            printf("%10lld %12lld  %-18s %10s  %-20s  %s\n", (long long)c->step, (long long)c->samples, layout, size,
                   c->saved_at, c->dir);
        else
            printf("%10s %12s  %-18s %10s  %-20s  %s\n", "-", "-", "incomplete", size, "-", c->fault);
    }
    checkpoint_list_free(all, n);
    return STATUS_OK;
}

static void print_fault(void *arg, const char *fault)
{
    (void)arg;
    printf("FAULT %s\n", fault);
}

/* Every rank prints the faults that it found; rank 0 the verdict. */
static int verify_one(const comm *world, const char *dir)
{
    moai_error err;
    const double begin = now_seconds();
    const int64_t n_faults = checkpoint_verify(dir, world, print_fault, NULL, &err);
    int32_t n = n_faults < 0 ? 1 : (int32_t)min_i64(n_faults, INT32_MAX / world->size);

    output_flush();
    comm_all_reduce(world, &n, 1, DT_I32, REDUCE_SUM);
    if (world->rank == 0 && n_faults < 0)
        printf("FAULT %s\n", err.text);
    else if (world->rank == 0 && n > 0)
        printf("%s: %d faults\n", dir, n);
    else if (world->rank == 0)
        printf("%s: complete and undamaged (%.1f s)\n", dir, now_seconds() - begin);
    return n == 0 ? STATUS_OK : STATUS_FAILED;
}

/* What is half written or half removed is no checkpoint, and what a run has set aside as damaged no longer: they are
 * left out, unless named. */
static bool is_left_out(const checkpoint_info *c)
{
    const size_t length = strlen(c->dir);
    const char *name = strrchr(c->dir, '/');

    if (strstr(name ? name : c->dir, ".damaged")) return true;
    return length > 4 && strcmp(c->dir + length - 4, ".tmp") == 0;
}

/* What rank 0 sees, one after another on every rank: a run may be writing there.  False at the end. */
static bool next_to_verify(const comm *world, const checkpoint_info *all, int n, int *i, char dir[4096])
{
    dir[0] = '\0';
    while (*i < n && is_left_out(&all[*i])) (*i)++;
    if (*i < n) snprintf(dir, 4096, "%s", all[(*i)++].dir);
    comm_broadcast(world, dir, 4096, DT_U8, 0);
    return dir[0] != '\0';
}

static int verify_all_in(const comm *world, const char *dir)
{
    moai_error err = {.text = ""};
    char name[4096];
    int n = 0, i = 0, n_checked = 0, status = STATUS_OK;
    checkpoint_info *all = world->rank == 0 ? checkpoint_list(dir, &n, &err) : NULL;

    if (comm_agree(world, world->rank == 0 && !all, &err) != 0) return fail(&err);
    for (; next_to_verify(world, all, n, &i, name); n_checked++)
        if (verify_one(world, name) != STATUS_OK) status = STATUS_FAILED;
    if (all) checkpoint_list_free(all, n);
    return n_checked ? status : verify_one(world, dir);
}

static int verify(int argc, char **argv)
{
    moai_grid grid;
    int status;

    if (argc < 1) return usage("verify takes directories", NULL);
    const int world = process_start(&argc, &argv);
    status = expand_paths(argc, argv);
    if (status == STATUS_OK) {
        grid_init(&grid, (grid_shape){.tp = 1, .cp = 1, .dp = world, .pp = 1}, 1);
        for (int i = 0; i < argc; i++)
            if (verify_all_in(&grid.host_world, argv[i]) != STATUS_OK) status = STATUS_FAILED;
        grid_free(&grid);
    }
    process_finish();
    return status;
}

/* "5GB", "500MB", "2GiB", "1000000"; -1 for anything else */
static int64_t parse_size(const char *text)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1}, {"B", 1}, {"KB", 1e3}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
                 {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    char *end;
    const double x = strtod(text, &end);

    for (size_t i = 0; end != text && i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].name) == 0 && x * units[i].bytes >= 1 && x * units[i].bytes < 0x1p62)
            return (int64_t)(x * units[i].bytes);
    return -1;
}

enum { MOST_DIRS = 3 };

typedef struct convert_options {
    char *dtype, *max_shard_size, *base;
    bool overwrite, adapter, double_quantization;
    weight_quantization quantization;
    int64_t hc_mult;
    hc_mixing hc_mixing;
    const char *dirs[MOST_DIRS];
    int n_dirs;
} convert_options;

#define KEYS_OF convert_options
#include "src/config/key_rows.h"

static const key_spec rows[] = {ROW(KEY_BOOL, overwrite, "false", .bare = "true"),
                                ROW(KEY_CHOICE, quantization, "none", .choices = weight_quantizations),
                                ROW(KEY_BOOL, double_quantization, "true", .bare = "true"),
                                ROW(KEY_STRING, dtype, "float32"), ROW(KEY_STRING, max_shard_size, "5GB"),
                                ROW(KEY_BOOL, adapter, "false", .bare = "true")};
static const key_spec import_rows[] = {ROW(KEY_BOOL, overwrite, "false", .bare = "true"), ROW(KEY_PATH, base, ""),
                                       ROW(KEY_INT, hc_mult, "0", .min = 0, .max = 8),
                                       ROW(KEY_CHOICE, hc_mixing, "sinkhorn", .choices = hc_mixings)};
static const key_table export_keys = {rows, 6}, merge_keys = {rows, 5}, import_keys = {import_rows, 4};

static int take_directory(void *to, const char *word, moai_error *err)
{
    convert_options *o = to;

    if (word[0] == '-') return error_set(err, "unknown option: %s", word);
    if (o->n_dirs == MOST_DIRS) return error_set(err, "one argument too many: %s", word);
    o->dirs[o->n_dirs++] = word;
    return 0;
}

/* So many directories, paths expanded, and the keys; what is wrong is said. */
static int read_arguments(key_table keys, convert_options *o, int n, char *dirs[], const char *wanted, int argc,
                          char **argv)
{
    const flag_rules rules = {.arg = o, .word = take_directory};
    moai_error err;

    keys_defaults(keys, o);
    if (flags_read(keys, o, argc, argv, &rules, NULL, &err) != 0) return usage(err.text, NULL);
    if (o->n_dirs != n) return usage(wanted, NULL);
    for (int i = 0; i < n; i++) dirs[i] = (char *)(uintptr_t)o->dirs[i];
    return expand_paths(n, dirs);
}

static int export_to(const char *from, const char *adapters, const char *to, const convert_options *o)
{
    const hf_export_options how = {.dir = from, .to = to, .adapters = adapters, .is_adapter = o->adapter,
                                   .torch_dtype = o->dtype, .max_shard_bytes = parse_size(o->max_shard_size),
                                   .nf4 = o->quantization == QUANTIZATION_NF4, .nested = o->double_quantization,
                                   .overwrite = o->overwrite};
    moai_error err;

    if (strcmp(o->dtype, "float32") != 0 && strcmp(o->dtype, "bfloat16") != 0)
        return usage("--dtype is float32 or bfloat16, not", o->dtype);
    if (how.max_shard_bytes < 0) return usage("--max_shard_size is a size like 5GB, not", o->max_shard_size);
    if (how.nf4 && how.is_adapter)
        return usage("--quantization is of a model; --adapter exports its adapters alone", NULL);
    signals_ignore_pipe();
    if (hf_export(&how, &err) != 0) return fail(&err), error_status(&err);
    printf("%s%s%s: exported as %s%s to %s\n", from, adapters ? " and " : "", adapters ? adapters : "", o->dtype,
           how.nf4 ? ", its layers in 4 bits (NF4)," : "", to);
    if (how.nf4 && adapters)
        say("merge: the sums of weights and adapters were rounded to 4 bits anew: without --quantization they stay "
            "as they are");
    return STATUS_OK;
}

static int export_one(int argc, char **argv)
{
    convert_options o = {0};
    char *dirs[2];
    int status = read_arguments(export_keys, &o, 2, dirs, "export takes a checkpoint and a directory", argc, argv);

    if (status == STATUS_OK) status = export_to(dirs[0], NULL, dirs[1], &o);
    keys_free(export_keys, &o);
    return status;
}

static int merge(int argc, char **argv)
{
    convert_options o = {0};
    char *dirs[3];
    int status = read_arguments(merge_keys, &o, 3, dirs, "merge takes a model, its adapters and a directory", argc,
                                argv);

    if (status == STATUS_OK) status = export_to(dirs[0], dirs[1], dirs[2], &o);
    keys_free(merge_keys, &o);
    return status;
}

static int import_one(int argc, char **argv)
{
    convert_options o = {0};
    moai_error err;
    char *dirs[2];
    int status = read_arguments(import_keys, &o, 2, dirs,
                                "import takes a Hugging Face directory and an output directory", argc, argv);

    if (status == STATUS_OK) {
        signals_ignore_pipe();
        const hf_import_options how = {.dir = dirs[0], .output_dir = dirs[1], .base = *o.base ? o.base : NULL,
                                       .hc_mult = o.hc_mult, .hc_mixing = o.hc_mixing, .overwrite = o.overwrite};
        if (how.base && how.hc_mult)
            status = usage("--hc_mult is of a model; adapters have the streams of their base", NULL);
        else if (hf_import(&how, &err) != 0)
            status = (fail(&err), error_status(&err));
        if (status == STATUS_OK) printf("%s: imported to %s/checkpoint-0\n", dirs[0], dirs[1]);
    }
    keys_free(import_keys, &o);
    return status;
}

static int run(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } verbs[] = {{"ls", list}, {"verify", verify}, {"export", export_one}, {"merge", merge}, {"import", import_one}};

    if (flags_ask_help(argc - 1, argv + 1)) return fputs(help, stdout), STATUS_OK;
    if (argc < 2) return usage("what to do?", NULL);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].name) == 0) {
            if (verbs[i].run != verify) process_alone(argv[1]);
            return verbs[i].run(argc - 2, argv + 2);
        }
    return usage("unknown command", argv[1]);
}

int main(int argc, char **argv)
{
    base_start();
    const int status = run(argc, argv);
    for (int i = 0; i < expanded.n; i++) free(expanded.list[i]);
    free(expanded.list);
    return output_end(status);
}

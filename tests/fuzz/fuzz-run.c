/* fuzz-run.c: a run file and flags, of moai_generate too: the file, and behind a byte 0xFF each, the arguments.  What
 * is read can be written into a checkpoint, and a run with the same keys may go on from that. */
#include "src/config/keys.h"
#include "src/serve/generate_flags.h"
#include "src/train/resume_keys.h"
#include "src/train/run_config.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

void fuzz_start(void) {}

/* Each key as a flag of its default, all of them in a file. */
static void seed_keys(void)
{
    static char *const words[] = {"moai_train", "--model", "m", "--data", "d"};
    const key_table keys = run_config_keys();
    run_config run;
    moai_error err;

    for (int i = 0; i < keys.n; i++) {
        char *text = xasprintf("{}\xFF--%s\xFF%s", keys.list[i].name, keys.list[i].initial);
        fuzz_seed_text(keys.list[i].name, text);
        free(text);
    }
    CHECK(run_config_read(&run, 5, (char **)(uintptr_t)words, &err) == 0, "%s", err.text);
    char *json = run_config_json(&run);
    fuzz_seed_text("all", json);
    free(json);
    run_config_free(&run);
}

void fuzz_seeds(void)
{
    seed_keys();
    fuzz_seed_text(
        "file",
        "{\"model\": \"m.json\", \"data\": \"d\", \"seq_length\": 64, \"batch_size\": 4, \"learning_rate\": 3e-4,\n"
        "\"lr_scheduler_type\": \"wsd\", \"max_steps\": 100, \"warmup_steps\": 10, \"decay_steps\": 20, \"bf16\": "
        "true,\n"
        "\"gradient_checkpointing\": true, \"output_dir\": \"~/$RUN/x\"}\n");
    fuzz_seed_text(
        "flags", "{}\xFF--model\xFFm.json\xFF--data=d\xFF--no_tensorboard\xFF--fp16\xFF--min_loss_scale\xFF"
                 "2\xFF--max_steps\xFF"
                 "7\xFF"
                 "--gradient_checkpointing\xFFselective\xFF--resume_allow\xFFseq_length,data\xFF--plan\xFF--device\xFF"
                 "cpu");
    fuzz_seed_text("generate", "\xFF"
                               "dir\xFF--prompt=a\xFF--temperature\xFF"
                               "0.5\xFF--top_k=4\xFF--jsonl\xFF--no_echo\xFF--dtype\xFF"
                               "bfloat16");
    fuzz_seed_text("both", "{\"model\": \"m.json\", \"loss_spike_zscore\": 3, \"seed\": "
                           "7}\xFF--config\xFFrun.json\xFF--data\xFF$D\xFF--seed=-1");
}

/* The file as JSON, or everything as bytes. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    const uint8_t *end = size ? memchr(data, 0xFF, size) : NULL;
    const size_t n = end ? (size_t)(end - data) : size, rest = size - n;
    uint8_t tail[4096];

    if (fuzz_draw(&seed, 2) || rest > sizeof tail || max_size < size) return LLVMFuzzerMutate(data, size, max_size);
    memcpy(tail, data + n, rest);
    const size_t file = fuzz_mutate_json(data, n, max_size - rest, seed);
    memcpy(data + file, tail, rest);
    return file + rest;
}

enum { MOST = 64 };

/* The arguments, each a string of its own; "--help" would end the process. */
static int arguments(char *text, const char *end, char **argv)
{
    int n = 0;

    argv[n++] = "moai_train";
    while (text && n < MOST) {
        *text++ = 0;
        argv[n++] = text;
        text = memchr(text, 0xFF, (size_t)(end - text));
        if (strncmp(argv[n - 1], "--help", 6) == 0 || strncmp(argv[n - 1], "-h", 2) == 0) n--;
    }
    argv[n] = NULL;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *argv[MOST + 4];
    generate_flags flags;
    run_config run;
    moai_error err;

    CHECK(text, "out of host memory");
    memcpy(text, data, size);
    text[size] = 0;
    char *first = memchr(text, 0xFF, size);
    fuzz_write("run.json", text, first ? (size_t)(first - text) : size);
    int argc = arguments(first, text + size, argv);
    if (generate_flags_read(&flags, argc, argv, &err) == 0)
        CHECK(flags.source && *flags.source, "nothing to generate from");
    generate_flags_free(&flags);
    if (argc == 1) argv[argc++] = "--config=run.json", argv[argc] = NULL;
    if (run_config_read(&run, argc, argv, &err) == 0) {
        char *json = run_config_json(&run);
        CHECK(resume_keys_check(&run, json, 100, &err) == 0, "%s", err.text);
        free(json);
    }
    run_config_free(&run);
    free(text);
    return 0;
}

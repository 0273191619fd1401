/* fuzz.c: see fuzz.h
 *
 * FUZZ_SEEDS=DIR fuzz-NAME writes the corpus to begin with into DIR and leaves. */
#include "tests/fuzz/fuzz.h"
#include "io/hf/safetensors.h"
#include "io/text/tokenizer.h"
#include "src/base/files.h"
#include "src/params/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *scratch;

static _Noreturn void end_all(int status)
{
    (void)status;
    __builtin_trap();
}

static void remove_scratch(void)
{
    moai_error err;

    if (chdir("/") == 0) dir_remove(scratch, &err);
}

/* Open MPI and HDF5 keep some memory until the end. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libmpi\nleak:libopen-rte\nleak:libopen-pal\nleak:libpmix\nleak:libhwloc\nleak:libevent\nleak:"
           "libhdf5\n";
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *seeds = getenv("FUZZ_SEEDS");

    (void)argc, (void)argv;
    setenv("OMP_NUM_THREADS", "1", 0);
    base_process.printer = false;
    base_process.abort_all = base_process.leave = end_all;
    scratch = xasprintf("%s/moai-fuzz.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    CHECK(mkdtemp(scratch), "%s", scratch);
    atexit(remove_scratch);
    seeds = seeds ? realpath(seeds, NULL) : NULL;
    CHECK(chdir(scratch) == 0, "%s", scratch);
    fuzz_start();
    if (seeds) {
        setenv("FUZZ_SEEDS", seeds, 1);
        fuzz_seeds();
        exit(0);
    }
    CHECK(freopen("/dev/null", "w", stdout), "/dev/null");
    return 0;
}

void fuzz_write(const char *path, const void *data, size_t n_bytes)
{
    FILE *f = fopen(path, "wb");

    CHECK(f && fwrite(data, 1, n_bytes, f) == n_bytes && fclose(f) == 0, "%s", path);
}

void *fuzz_read(const char *path, size_t *n_bytes)
{
    moai_error err;
    void *data = file_read(path, SIZE_MAX / 2, n_bytes, &err);

    CHECK(data, "%s", err.text);
    return data;
}

void fuzz_seed(const char *name, const void *data, size_t n_bytes)
{
    char *path = xasprintf("%s/%s", getenv("FUZZ_SEEDS"), name);

    fuzz_write(path, data, n_bytes);
    free(path);
}

void fuzz_seed_text(const char *name, const char *text) { fuzz_seed(name, text, strlen(text)); }

void fuzz_seed_file(const char *name, const char *path)
{
    size_t n;
    void *data = fuzz_read(path, &n);

    fuzz_seed(name, data, n);
    free(data);
}

void fuzz_model(const char *dir)
{
    static const char config[] = "{\"model_type\": \"qwen3\", \"architectures\": [\"Qwen3ForCausalLM\"], "
                                 "\"num_hidden_layers\": 1, \"hidden_size\": 4, "
                                 "\"intermediate_size\": 6, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "
                                 "\"head_dim\": 2, \"vocab_size\": 11, "
                                 "\"max_position_embeddings\": 32, \"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-06, "
                                 "\"tie_word_embeddings\": false, "
                                 "\"eos_token_id\": 2}\n";
    char *config_path = xasprintf("%s/config.json", dir), *path = xasprintf("%s/model.safetensors", dir);
    float x[512];
    model_config cfg;
    param_table t;
    moai_error err;

    for (int i = 0; i < 512; i++) x[i] = 0.01f * (float)(i % 37) - 0.2f;
    mkdir(dir, 0777);
    fuzz_write(config_path, config, sizeof config - 1);
    CHECK(model_config_read(&cfg, config_path, &err) == 0, "%s", err.text);
    params_whole(&t, &cfg);
    safetensors_writer *w = safetensors_create(path, &err);
    CHECK(w, "%s", err.text);
    for (int i = 0; i < t.n; i++) {
        const int64_t shape[2] = {t.list[i].rows, t.list[i].cols};
        const bool vector = t.list[i].rows == 1;
        safetensors_declare(w, t.list[i].name, DT_F32, vector ? 1 : 2, vector ? shape + 1 : shape);
    }
    for (int i = 0; i < t.n; i++)
        CHECK(safetensors_write(w, x, t.list[i].rows * t.list[i].cols, &err) == 0, "%s", err.text);
    CHECK(safetensors_finish(w, &err) == 0, "%s", err.text);
    params_free(&t);
    free(config_path);
    free(path);
}

void fuzz_tokenizer(const char *path)
{
    static const char words[] = "the cat and the dog sat on the mat with 12 other animals of the same kind\n"
                                "a second line that tells of nothing else, and then another one there\n";
    const char *const inputs[] = {"words.txt"};
    const tokenizer_train_options how = {
        .vocab_size = 384, .character_coverage = 0.9995, .n_threads = 1, .text_key = "text"};
    moai_error err;
    FILE *f = fopen("words.txt", "w");

    for (int i = 0; f && i < 40; i++) fputs(words, f);
    CHECK(f && fclose(f) == 0, "words.txt");
    CHECK(tokenizer_train(inputs, 1, "trained", &how, &err) == 0, "%s", err.text);
    CHECK(rename("trained.model", path) == 0, "%s", path);
}

void fuzz_tokenizer_json(const char *path)
{
    FILE *f = fopen(path, "w");
    int n_moved = 0;

    CHECK(f, "%s", path);
    fputs(
        "{\"added_tokens\": [{\"id\": 258, \"content\": \"<|endoftext|>\", \"special\": true}, {\"id\": 259, "
        "\"content\": "
        "\"<|im_start|>\", \"special\": true}, {\"id\": 260, \"content\": \"<|im_end|>\", \"special\": true}, {\"id\": "
        "261, \"content\": \"<think>\", \"special\": false}], \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": "
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": "
        "\"\\\\p{L}+|\\\\p{N}| "
        "?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": "
        "\"ByteLevel\", "
        "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}]}, \"post_processor\": null, "
        "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"th\": 256, \"the\": 257",
        f);
    for (int byte = 0; byte < 256; byte++) { /* its character, as GPT-2 writes it */
        const bool stays = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        fprintf(f, ", \"\\u%04x\": %d", stays ? byte : 256 + n_moved, byte);
        n_moved += !stays;
    }
    fputs("}, \"merges\": [\"t h\", [\"th\", \"e\"]]}}\n", f);
    CHECK(fclose(f) == 0, "%s", path);
}

enum { SEAL_BYTES = 46 }; /* files.c */

size_t fuzz_unseal(uint8_t *data, size_t size)
{
    if (!json_seal_holds((const char *)data, size)) return size;
    data[size - SEAL_BYTES] = '}';
    return size - SEAL_BYTES + 1;
}

size_t fuzz_seal(uint8_t *data, size_t size, size_t max_size)
{
    char *text = size ? strndup((const char *)data, size) : NULL, *sealed = text && text[0] ? json_sealed(text) : NULL;
    const size_t n = sealed ? strlen(sealed) : 0;

    if (n && n <= max_size) memcpy(data, sealed, size = n);
    free(sealed);
    free(text);
    return size;
}
